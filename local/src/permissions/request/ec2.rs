//! EC2 ("Actions, resources, and condition keys for Amazon EC2"). A call that concerns several resources needs leave for each of
//! them; one that tags what it makes needs `ec2:CreateTags` for each kind on top ("Grant permission to tag Amazon EC2 resources
//! during creation"), and one that hands over a role `iam:PassRole`.

use std::collections::BTreeSet;

use ciab_local_ec2::Query;

use super::super::call::{Check, Tagged};
use super::{Launch, Surroundings};

/// Actions that concern what is named in a list or by itself: the action, the parameter, and the kind of resource.
const NAMED: [(&str, &str, &str); 27] = [
    ("DeleteKeyPair", "KeyName", "key-pair"),
    ("DeleteKeyPair", "KeyPairId", "key-pair"),
    ("DeleteLaunchTemplate", "LaunchTemplateId", "launch-template"),
    ("DeleteLaunchTemplate", "LaunchTemplateName", "launch-template"),
    ("DeleteSecurityGroup", "GroupId", "security-group"),
    ("DeleteSnapshot", "SnapshotId", "snapshot"),
    ("DeleteVolume", "VolumeId", "volume"),
    ("DeregisterImage", "ImageId", "image"),
    ("DescribeImageAttribute", "ImageId", "image"),
    ("DescribeInstanceAttribute", "InstanceId", "instance"),
    ("DescribeSnapshotAttribute", "SnapshotId", "snapshot"),
    ("DescribeVolumeAttribute", "VolumeId", "volume"),
    ("DisableImageDeprecation", "ImageId", "image"),
    ("EnableImageDeprecation", "ImageId", "image"),
    ("GetConsoleOutput", "InstanceId", "instance"),
    ("GetPasswordData", "InstanceId", "instance"),
    ("ModifyImageAttribute", "ImageId", "image"),
    ("ModifyInstanceAttribute", "InstanceId", "instance"),
    ("ModifyInstanceMetadataOptions", "InstanceId", "instance"),
    ("ModifySnapshotAttribute", "SnapshotId", "snapshot"),
    ("RebootInstances", "InstanceId", "instance"),
    ("ResetImageAttribute", "ImageId", "image"),
    ("RevokeSecurityGroupIngress", "GroupId", "security-group"),
    ("StartInstances", "InstanceId", "instance"),
    ("StopInstances", "InstanceId", "instance"),
    ("TerminateInstances", "InstanceId", "instance"),
    ("AuthorizeSecurityGroupIngress", "GroupId", "security-group"),
];

/// What an id begins with, and what it is the id of.
const KINDS: [(&str, &str); 12] = [
    ("ami-", "image"),
    ("eni-", "network-interface"),
    ("fleet-", "fleet"),
    ("i-", "instance"),
    ("key-", "key-pair"),
    ("lt-", "launch-template"),
    ("sg-", "security-group"),
    ("sgr-", "security-group-rule"),
    ("sir-", "spot-instances-request"),
    ("snap-", "snapshot"),
    ("subnet-", "subnet"),
    ("vol-", "volume"),
];

/// `Describe…` calls that do take a resource; they are among [`NAMED`] or not known.
const DESCRIBES_ONE: [&str; 16] = [
    "DescribeClientVpnAuthorizationRules",
    "DescribeClientVpnConnections",
    "DescribeClientVpnRoutes",
    "DescribeClientVpnTargetNetworks",
    "DescribeFleetHistory",
    "DescribeFleetInstances",
    "DescribeFpgaImageAttribute",
    "DescribeImageAttribute",
    "DescribeInstanceAttribute",
    "DescribeSecurityGroupReferences",
    "DescribeSnapshotAttribute",
    "DescribeSpotFleetInstances",
    "DescribeSpotFleetRequestHistory",
    "DescribeVolumeAttribute",
    "DescribeVpcAttribute",
    "DescribeVpcEndpointServicePermissions",
];

pub(super) fn checks(
    form: &Query,
    region: &str,
    launch: Option<&Launch>,
    surroundings: &Surroundings,
) -> Result<Vec<Check>, String> {
    let call = Call { form, region, account: &surroundings.account, action: form.action() };
    let mut checks = match form.action() {
        "RunInstances" => {
            let launch = launch.ok_or("a launch was not looked at")?;
            let form = &launch.call;
            Call { form, ..call }.launch(launch.launch_template.as_deref(), surroundings)?
        }
        "CreateTags" | "DeleteTags" => call.tagging()?,
        "CreateFleet" => call.fleet()?,
        "CreateImage" => {
            let instance = call.named("InstanceId", "instance")?;
            [instance, vec![call.made("image"), call.made("snapshot")]].concat()
        }
        "CopyImage" => vec![call.made("image"), call.made("snapshot")],
        "CreateSnapshot" => [call.named("VolumeId", "volume")?, vec![call.made("snapshot")]].concat(),
        "CreateVolume" => vec![call.made("volume")],
        "CreateKeyPair" | "ImportKeyPair" => vec![call.key_pair()?],
        "CreateSecurityGroup" => {
            let vpc = form.get("VpcId").map(|vpc| call.existing("vpc", vpc));
            vpc.into_iter().chain([call.made("security-group")]).collect()
        }
        "CreateLaunchTemplate" => vec![call.made("launch-template")],
        "RegisterImage" => call.registration(),
        "AttachVolume" | "DetachVolume" => {
            let mut checks = call.named("VolumeId", "volume")?;
            checks.extend(form.get("InstanceId").map(|instance| call.existing("instance", instance)));
            checks
        }
        "RequestSpotInstances" => vec![call.made("spot-instances-request")],
        "CancelSpotInstanceRequests" => call.named("SpotInstanceRequestId", "spot-instances-request")?,
        action if action.starts_with("Describe") && !DESCRIBES_ONE.contains(&action) => {
            vec![Check::new(format!("ec2:{action}"), "*")]
        }
        action => {
            let mut checks = Vec::new();
            for (_, parameter, kind) in NAMED.iter().filter(|(named, _, _)| *named == action) {
                checks.extend(call.named(parameter, kind).unwrap_or_default());
            }
            if checks.is_empty() {
                return Err(format!("ec2:{action}, or what it names, is in no table"));
            }
            checks
        }
    };
    if !["RunInstances", "CreateTags", "DeleteTags"].contains(&form.action()) {
        checks.extend(call.tags_on_creation());
    }
    Ok(checks
        .into_iter()
        .map(|check| if check.action.starts_with("ec2:") { check.with("ec2:Region", region) } else { check })
        .collect())
}

#[derive(Clone, Copy)]
struct Call<'a> {
    form: &'a Query,
    region: &'a str,
    account: &'a str,
    action: &'a str,
}

impl Call<'_> {
    fn arn(&self, kind: &str, id: &str) -> String {
        // Images and snapshots belong to no account in their ARNs.
        let account = if ["image", "snapshot"].contains(&kind) { "" } else { self.account };
        format!("arn:aws:ec2:{}:{account}:{kind}/{id}", self.region)
    }

    fn existing(&self, kind: &'static str, id: &str) -> Check {
        let mut check = Check::new(format!("ec2:{}", self.action), self.arn(kind, id));
        check.tagged = Some(Tagged { kind, id: id.to_owned() });
        match kind {
            "image" => check.with("ec2:ImageId", id),
            "key-pair" if !id.starts_with("key-") => check.with("ec2:KeyPairName", id),
            _ => check,
        }
    }

    /// Something that the call makes, with the tags that it gives it.
    fn made(&self, kind: &'static str) -> Check {
        Check::new(format!("ec2:{}", self.action), self.arn(kind, "*")).tagging(&self.tags_for(kind))
    }

    fn key_pair(&self) -> Result<Check, String> {
        let name = self.form.get("KeyName").ok_or("the key pair has no name")?;
        let check = Check::new(format!("ec2:{}", self.action), self.arn("key-pair", name));
        Ok(check.with("ec2:KeyPairName", name).tagging(&self.tags_for("key-pair")))
    }

    /// What is named by a parameter, by itself or in a list.
    fn named(&self, parameter: &str, kind: &'static str) -> Result<Vec<Check>, String> {
        let mut ids = self.form.list(parameter);
        ids.extend(self.form.get(parameter));
        if ids.is_empty() {
            return Err(format!("{} has no {parameter}", self.action));
        }
        Ok(ids.into_iter().map(|id| self.modifying(self.existing(kind, id))).collect())
    }

    /// With whom an image or snapshot is shared.
    fn modifying(&self, check: Check) -> Check {
        let added = |suffix: &str| -> Vec<String> {
            let is = |name: &str| name.contains(".Add.") && name.ends_with(suffix);
            self.form.iter().filter(|(name, _)| is(name)).map(|(_, value)| value.to_owned()).collect()
        };
        let mut check = check;
        for (key, suffix) in [("ec2:Add/group", ".Group"), ("ec2:Add/userId", ".UserId")] {
            let values = added(suffix);
            if !values.is_empty() {
                check = check.with_all(key, values);
            }
        }
        check
    }

    fn tags_for(&self, kind: &str) -> Vec<(String, String)> {
        let specifications = self.form.structures("TagSpecification");
        let of_kind = specifications
            .iter()
            .filter(|specification| self.form.get(&format!("{specification}.ResourceType")) == Some(kind));
        of_kind.flat_map(|specification| self.tags(&format!("{specification}.Tag"))).collect()
    }

    fn tags(&self, list: &str) -> Vec<(String, String)> {
        let tag = |prefix: &String| {
            let key = self.form.get(&format!("{prefix}.Key"))?.to_owned();
            Some((key, self.form.get(&format!("{prefix}.Value")).unwrap_or_default().to_owned()))
        };
        self.form.structures(list).iter().filter_map(tag).collect()
    }

    /// Leave for the tags that the call gives to what it makes.
    fn tags_on_creation(&self) -> Vec<Check> {
        let kinds: BTreeSet<&str> = self
            .form
            .structures("TagSpecification")
            .iter()
            .filter_map(|specification| self.form.get(&format!("{specification}.ResourceType")))
            .collect();
        let check = |kind: &str| {
            let name = self.form.get("KeyName").filter(|_| kind == "key-pair").unwrap_or("*");
            Check::new("ec2:CreateTags", self.arn(kind, name))
                .tagging(&self.tags_for(kind))
                .with("ec2:CreateAction", self.action)
        };
        kinds.into_iter().map(check).collect()
    }

    fn tagging(&self) -> Result<Vec<Check>, String> {
        let tags = self.tags("Tag");
        let mut checks = Vec::new();
        for id in self.form.list("ResourceId") {
            let kind = KINDS.iter().find(|(prefix, _)| id.starts_with(prefix));
            let (_, kind) = kind.ok_or_else(|| format!("{id} is the id of nothing that is known"))?;
            checks.push(self.existing(kind, id).tagging(&tags));
        }
        if checks.is_empty() { Err(format!("{} names no resource", self.action)) } else { Ok(checks) }
    }

    fn registration(&self) -> Vec<Check> {
        let snapshots = self.form.iter().filter(|(name, _)| name.ends_with(".Ebs.SnapshotId"));
        snapshots.map(|(_, id)| self.existing("snapshot", id)).chain([self.made("image")]).collect()
    }

    fn fleet(&self) -> Result<Vec<Check>, String> {
        let mut checks = vec![self.made("fleet"), self.made("instance"), self.made("volume")];
        let templates: Vec<(&str, &str)> = self
            .form
            .iter()
            .filter(|(name, _)| name.ends_with(".LaunchTemplateSpecification.LaunchTemplateId"))
            .collect();
        if templates.is_empty() {
            return Err("CreateFleet names no launch template by its id".to_owned());
        }
        checks.extend(templates.iter().map(|(_, id)| self.existing("launch-template", id)));
        Ok(checks)
    }

    /// RunInstances. What the call does not name and EC2 chooses, such as the default subnet, stands as `*`: no pattern for one
    /// certain thing takes that.
    fn launch(&self, template: Option<&str>, surroundings: &Surroundings) -> Result<Vec<Check>, String> {
        let form = self.form;
        let image = form.get("ImageId").ok_or("the launch has no image")?;
        let spot = form.get("InstanceMarketOptions.MarketType") == Some("spot");
        let mut instance =
            self.made("instance").with("ec2:InstanceMarketType", if spot { "spot" } else { "on-demand" });
        for (key, parameter) in
            [("ec2:InstanceType", "InstanceType"), ("ec2:MetadataHttpTokens", "MetadataOptions.HttpTokens")]
        {
            if let Some(value) = form.get(parameter) {
                instance = instance.with(key, value);
            }
        }
        let mut passed = None;
        let profile = form.get("IamInstanceProfile.Arn").or(form.get("IamInstanceProfile.Name"));
        // Packer sends an empty name where it means none.
        if let Some(profile) = profile.filter(|profile| !profile.is_empty()) {
            let name = profile.rsplit('/').next().unwrap_or_default();
            let role = surroundings.profile_roles.get(name);
            let role = role.ok_or_else(|| format!("the role of the instance profile {name} is not known"))?;
            passed = Some(Check::new("iam:PassRole", role).with("iam:PassedToService", "ec2.amazonaws.com"));
            instance = instance.with(
                "ec2:InstanceProfile",
                format!("arn:aws:iam::{}:instance-profile/{name}", self.account),
            );
        }
        let mut checks = vec![
            instance,
            self.made("volume"),
            self.made("network-interface"),
            self.existing("image", image),
        ];
        if spot {
            checks.push(self.made("spot-instances-request"));
        }
        let interfaces = form.structures("NetworkInterface");
        let inner = |parameter: &str| -> Vec<&str> {
            interfaces.iter().filter_map(|interface| form.get(&format!("{interface}.{parameter}"))).collect()
        };
        let mut subnets = inner("SubnetId");
        subnets.extend(form.get("SubnetId"));
        let mut groups = form.list("SecurityGroupId");
        groups.extend(
            interfaces.iter().flat_map(|interface| form.list(&format!("{interface}.SecurityGroupId"))),
        );
        for (kind, ids) in [("subnet", subnets), ("security-group", groups)] {
            if ids.is_empty() {
                checks.push(Check::new("ec2:RunInstances", self.arn(kind, "*")));
            }
            checks.extend(ids.into_iter().map(|id| self.existing(kind, id)));
        }
        if let Some(key) = form.get("KeyName") {
            checks.push(self.existing("key-pair", key));
        }
        let snapshots = form.iter().filter(|(name, _)| name.ends_with(".Ebs.SnapshotId"));
        checks.extend(snapshots.map(|(_, id)| self.existing("snapshot", id)));
        if let Some(group) = form.get("Placement.GroupName") {
            checks.push(self.existing("placement-group", group));
        }
        if let Some(id) = template {
            checks.push(self.existing("launch-template", id));
            let arn = self.arn("launch-template", id);
            checks = checks.into_iter().map(|check| check.with("ec2:LaunchTemplate", &arn)).collect();
        } else if form.names().any(|name| name.starts_with("LaunchTemplate.")) {
            return Err("the launch template does not exist".to_owned());
        }
        checks.extend(self.tags_on_creation());
        checks.extend(passed);
        Ok(checks)
    }
}
