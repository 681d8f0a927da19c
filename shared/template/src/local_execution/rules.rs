//! What each of Packer's parts may do without being a finding. Lists of what is known to be harmless, and for each what in
//! it names a file of the runner.

use super::calls;
use super::document::{Document, Field, Value};
use super::{LocalExecution, paths, plain};
use crate::bundle::{Bundle, shown};

/// Provisioners that run on the build instance, with their attributes that name files of the machine that Packer runs on.
///
/// `breakpoint` runs nothing: a build that waits there for somebody to press a key ends at its deadline.
const PROVISIONERS: [(&str, &[&str]); 13] = [
    ("shell", &["script", "scripts"]),
    ("file", &["source", "sources"]),
    ("powershell", &["script", "scripts"]),
    ("windows-shell", &["script", "scripts"]),
    ("windows-restart", &[]),
    ("sleep", &[]),
    ("breakpoint", &[]),
    (
        "ansible-local",
        &[
            "playbook_file",
            "playbook_files",
            "playbook_dir",
            "playbook_paths",
            "inventory_file",
            "galaxy_file",
            "role_paths",
            "collection_paths",
            "group_vars",
            "host_vars",
        ],
    ),
    (
        "chef-solo",
        &[
            "config_template",
            "cookbook_paths",
            "data_bags_path",
            "environments_path",
            "roles_path",
            "encrypted_data_bag_secret_path",
        ],
    ),
    (
        "chef-client",
        &["config_template", "encrypted_data_bag_secret_path", "validation_key_path", "client_key"],
    ),
    ("puppet-masterless", &["manifest_file", "manifest_dir", "hiera_config_path", "module_paths"]),
    ("puppet-server", &["client_cert_path", "client_private_key_path"]),
    (
        "salt-masterless",
        &["local_state_tree", "local_pillar_roots", "minion_config", "grains_file", "custom_state"],
    ),
];

/// Post-processors that only write or read a file beside the template.
const POST_PROCESSORS: [(&str, &[&str]); 4] = [
    ("manifest", &["output"]),
    ("checksum", &["output"]),
    ("compress", &["output"]),
    ("artifice", &["files"]),
];

/// Builders that build in AWS or nowhere. `amazon-chroot` is none of them: it builds on the machine that it runs on.
const BUILDERS: [(&str, &[&str]); 6] = [
    ("amazon-ebs", AMAZON),
    ("amazon-ebssurrogate", AMAZON),
    ("amazon-ebsvolume", AMAZON),
    ("amazon-instance", AMAZON),
    ("null", AMAZON),
    ("file", &["source", "target"]),
];

const AMAZON: &[&str] = &[
    "ssh_private_key_file",
    "ssh_certificate_file",
    "ssh_bastion_private_key_file",
    "ssh_bastion_certificate_file",
    "user_data_file",
    "shared_credentials_file",
    "web_identity_token_file",
    "x509_cert_path",
    "x509_key_path",
];

/// Data sources that only look at what everybody in the account may see.
const DATA_SOURCES: [(&str, &[&str]); 3] =
    [("amazon-ami", AMAZON), ("amazon-parameterstore", AMAZON), ("null", &[])];

const PLUGIN: &str = "github.com/hashicorp/amazon";

pub(super) fn of_hcl2(document: &Document, bundle: &Bundle) -> Vec<LocalExecution> {
    let mut findings = Findings { file: &document.file, found: Vec::new() };
    for field in &document.fields {
        match field.name.as_deref() {
            Some("packer") => findings.plugins(&field.value),
            Some("source") => findings.labelled("source", field, &BUILDERS),
            Some("data") => findings.labelled("data", field, &DATA_SOURCES),
            Some("build") => each_map(&field.value, field.line, &mut |_, fields| findings.build(fields)),
            // They hold values and nothing that does anything by itself; their calls are looked at below.
            Some("variable" | "variables" | "local" | "locals" | "//") => {}
            other => findings.add(field.line, format!("`{}` is not known to be harmless", named(other))),
        }
    }
    for line in &document.unreadable {
        findings.add(
            *line,
            "an expression in this string can't be read, so that it may call anything".to_owned(),
        );
    }
    for call in &document.calls {
        if let Some(what) = calls::judge(call, bundle) {
            findings.add(call.line, what);
        }
    }
    findings.found
}

pub(super) fn of_legacy(document: &Document) -> Vec<LocalExecution> {
    let mut findings = Findings { file: &document.file, found: Vec::new() };
    for field in &document.fields {
        match field.name.as_deref() {
            Some("builders") => findings.typed("builder", field, &BUILDERS),
            Some("provisioners") => findings.typed("provisioner", field, &PROVISIONERS),
            Some(kind @ "error-cleanup-provisioner") => findings.typed(kind, field, &PROVISIONERS),
            Some("post-processors") => findings.typed("post-processor", field, &POST_PROCESSORS),
            Some("variables" | "sensitive-variables" | "min_packer_version" | "description") => {}
            Some(comment) if comment.starts_with('_') => {}
            other => findings.add(field.line, format!("`{}` is not known to be harmless", named(other))),
        }
    }
    for (line, text) in &document.plain_strings {
        for what in plain::judge(text) {
            findings.add(*line, what);
        }
    }
    findings.found
}

type Known = [(&'static str, &'static [&'static str])];

struct Findings<'a> {
    file: &'a str,
    found: Vec<LocalExecution>,
}

impl Findings<'_> {
    fn add(&mut self, line: usize, what: String) {
        self.found.push(LocalExecution { file: shown(self.file), line, what });
    }

    fn build(&mut self, fields: &[Field]) {
        for field in fields {
            match field.name.as_deref() {
                Some(kind @ ("provisioner" | "error-cleanup-provisioner")) => {
                    self.labelled(kind, field, &PROVISIONERS);
                }
                Some("post-processor") => self.labelled("post-processor", field, &POST_PROCESSORS),
                Some("post-processors") => {
                    each_map(&field.value, field.line, &mut |_, fields| self.build(fields));
                }
                // A build lays it over a source whose type has been looked at where it stands.
                Some("source") => each_map(&field.value, field.line, &mut |_, names| {
                    for name in names {
                        each_map(&name.value, name.line, &mut |_, fields| {
                            self.inside("source", named(name.name.as_deref()), fields, AMAZON);
                        });
                    }
                }),
                Some("dynamic") => self.dynamic(field),
                Some("name" | "description" | "sources" | "hcp_packer_registry" | "//") => {}
                other => {
                    self.add(
                        field.line,
                        format!("`{}` in a build is not known to be harmless", named(other)),
                    );
                }
            }
        }
    }

    /// `dynamic "provisioner" { labels = ["shell"]; content { … } }`: the block that it makes is looked at in its place.
    fn dynamic(&mut self, field: &Field) {
        each_map(&field.value, field.line, &mut |_, kinds| {
            for kind in kinds {
                each_map(&kind.value, kind.line, &mut |line, fields| {
                    let labels = fields.iter().find(|field| field.name.as_deref() == Some("labels"));
                    let label = match labels.map(|labels| &labels.value) {
                        None => None,
                        Some(Value::List(labels)) if labels.len() == 1 => match &labels[0].1 {
                            Value::Text(label) => Some(Some(label.clone())),
                            _ => Some(None),
                        },
                        Some(_) => Some(None),
                    };
                    for content in fields.iter().filter(|field| field.name.as_deref() == Some("content")) {
                        each_map(&content.value, content.line, &mut |_, content| {
                            self.made(kind.name.as_deref(), label.clone(), line, content);
                        });
                    }
                });
            }
        });
    }

    fn made(&mut self, kind: Option<&str>, label: Option<Option<String>>, line: usize, content: &[Field]) {
        let known: &Known = match kind {
            Some("provisioner" | "error-cleanup-provisioner") => &PROVISIONERS,
            Some("post-processor") => &POST_PROCESSORS,
            Some("post-processors") => return self.build(content),
            Some("source") => return self.inside("source", "dynamic", content, AMAZON),
            other => {
                return self.add(line, format!("`dynamic \"{}\"` is not known to be harmless", named(other)));
            }
        };
        let label = label.flatten();
        self.part(kind.unwrap_or_default(), label.as_deref(), line, content, known);
    }

    /// Blocks with the part's type as first label. What further labels there are (a source's name) is a level without
    /// meaning here.
    fn labelled(&mut self, kind: &str, field: &Field, known: &Known) {
        let names_follow = matches!(kind, "source" | "data");
        each_map(&field.value, field.line, &mut |_, types| {
            for of_type in types {
                each_map(&of_type.value, of_type.line, &mut |line, fields| {
                    if !names_follow {
                        return self.part(kind, of_type.name.as_deref(), line, fields, known);
                    }
                    for name in fields {
                        each_map(&name.value, name.line, &mut |line, fields| {
                            self.part(kind, of_type.name.as_deref(), line, fields, known);
                        });
                    }
                });
            }
        });
    }

    /// The form before HCL2: objects that say their type, or only types, in lists of any depth.
    fn typed(&mut self, kind: &str, field: &Field, known: &Known) {
        fn walk(findings: &mut Findings<'_>, kind: &str, line: usize, value: &Value, known: &Known) {
            match value {
                Value::List(items) => {
                    for (line, item) in items {
                        walk(findings, kind, *line, item, known);
                    }
                }
                Value::Text(name) => findings.part(kind, Some(name), line, &[], known),
                Value::Map(fields) => {
                    let mut types = fields.iter().filter(|field| field.name.as_deref() == Some("type"));
                    let name = match (types.next(), types.next()) {
                        (Some(Field { value: Value::Text(name), .. }), None) => Some(name.as_str()),
                        _ => None,
                    };
                    findings.part(kind, name, line, fields, known);
                }
                Value::Plain | Value::Computed => findings.part(kind, None, line, &[], known),
            }
        }
        walk(self, kind, field.line, &field.value, known);
    }

    /// One source, provisioner, post-processor or data source.
    fn part(&mut self, kind: &str, name: Option<&str>, line: usize, fields: &[Field], known: &Known) {
        let Some(name) = name else {
            return self.add(
                line,
                format!("the type of a {kind} is computed, so that it may run anything on the runner"),
            );
        };
        let Some((_, files)) = known.iter().find(|(known, _)| *known == name) else {
            let name = shown(name);
            let what = match name.as_str() {
                "shell-local" => format!("{kind} \"{name}\" runs on the runner"),
                "amazon-chroot" => format!("{kind} \"{name}\" builds on the runner itself"),
                "http" => format!("{kind} \"{name}\" asks any server from the runner's network"),
                "amazon-secretsmanager" => {
                    format!("{kind} \"{name}\" reads a secret with the runner's AWS permissions")
                }
                _ => format!("{kind} \"{name}\" is not known to run on the build instance alone"),
            };
            return self.add(line, what);
        };
        self.inside(kind, name, fields, files);
        let field = |wanted: &str| fields.iter().find(|field| field.name.as_deref() == Some(wanted));
        match (kind, name) {
            // A file that comes from the instance is written on the runner.
            ("provisioner" | "error-cleanup-provisioner", "file") => {
                let is_upload =
                    |direction: &Field| matches!(&direction.value, Value::Text(text) if text == "upload");
                if field("direction").is_some_and(|direction| !is_upload(direction)) {
                    self.inside(kind, name, fields, &["destination"]);
                }
            }
            // Public parameters, such as the newest AMI of a distribution, are AWS's own. All others are the account's.
            ("data", "amazon-parameterstore") => {
                let is_public = field("name").is_some_and(
                    |name| matches!(&name.value, Value::Text(text) if text.starts_with("/aws/service/")),
                );
                if !is_public {
                    self.add(
                        line,
                        format!(
                            "{kind} \"{name}\" reads a parameter with the runner's AWS permissions; only those whose names \
                             begin with `/aws/service/` are public"
                        ),
                    );
                }
            }
            _ => {}
        }
    }

    /// What a part says, at any depth: paths, and settings that reach into the runner.
    fn inside(&mut self, kind: &str, name: &str, fields: &[Field], files: &[&str]) {
        for field in fields {
            match field.name.as_deref() {
                // What nobody can know the name of may be any of them.
                None => self.path(kind, name, "a setting", field.line, &field.value),
                Some(setting) if files.contains(&setting) => {
                    self.path(kind, name, setting, field.line, &field.value);
                }
                Some(setting @ ("ssh_remote_tunnels" | "ssh_local_tunnels")) => self.add(
                    field.line,
                    format!(
                        "`{setting}` in {kind} \"{}\" opens the runner's network to the instance",
                        shown(name)
                    ),
                ),
                Some(setting @ ("ssh_host" | "winrm_host")) => self.add(
                    field.line,
                    format!(
                        "`{setting}` in {kind} \"{}\" logs in to any machine that the runner's network reaches",
                        shown(name)
                    ),
                ),
                Some(setting @ "formulas") => self.add(
                    field.line,
                    format!("`{setting}` in {kind} \"{}\" are downloaded by the runner", shown(name)),
                ),
                Some(setting @ "vault_aws_engine") => self.add(
                    field.line,
                    format!("`{setting}` in {kind} \"{}\" asks another service from the runner", shown(name)),
                ),
                // It may hold any of the others for one of the sources.
                Some("override") if is_computed_for_some_source(&field.value) => self.add(
                    field.line,
                    format!(
                        "`override` in {kind} \"{}\" is computed, so that it may name any file of the runner",
                        shown(name)
                    ),
                ),
                // A `dynamic` block makes blocks of the same settings.
                Some(_) => each_map(&field.value, field.line, &mut |_, fields| {
                    self.inside(kind, name, fields, files);
                }),
            }
        }
    }

    fn path(&mut self, kind: &str, name: &str, setting: &str, line: usize, value: &Value) {
        let name_shown = shown(name);
        match value {
            Value::Plain => {}
            Value::List(items) => {
                for (line, item) in items {
                    self.path(kind, name, setting, *line, item);
                }
            }
            Value::Text(text) => {
                if let Some(wrong) = paths::judge(text) {
                    let path = paths::shown(text);
                    self.add(line, format!("{kind} \"{name_shown}\" names `{path}` on the runner's disk: {wrong}"));
                }
            }
            Value::Map(_) | Value::Computed => self.add(
                line,
                format!("`{setting}` in {kind} \"{name_shown}\" is computed, so that it may name any file of the runner"),
            ),
        }
    }

    fn plugins(&mut self, packer: &Value) {
        each_map(packer, 0, &mut |_, fields| {
            for field in fields {
                match field.name.as_deref() {
                    Some("required_plugins") => each_map(&field.value, field.line, &mut |_, plugins| {
                        for plugin in plugins {
                            self.plugin(plugin);
                        }
                    }),
                    Some("required_version" | "//") => {}
                    other => {
                        let what =
                            format!("`{}` in a packer block is not known to be harmless", named(other));
                        self.add(field.line, what);
                    }
                }
            }
        });
    }

    fn plugin(&mut self, plugin: &Field) {
        let mut sources = Vec::new();
        each_map(&plugin.value, plugin.line, &mut |_, fields| {
            for field in fields.iter().filter(|field| matches!(field.name.as_deref(), Some("source") | None))
            {
                sources.push(match &field.value {
                    Value::Text(source) => shown(source),
                    _ => "one that is computed".to_owned(),
                });
            }
        });
        if sources.is_empty() {
            sources.push(named(plugin.name.as_deref()).to_owned());
        }
        for source in sources.iter().filter(|source| !source.eq_ignore_ascii_case(PLUGIN)) {
            self.add(
                plugin.line,
                format!(
                    "the plugin `{source}` is a program that runs on the runner; only `{PLUGIN}` is known"
                ),
            );
        }
    }
}

/// Whether an `override`, or what it says for one of the sources, is something that only Packer can work out.
fn is_computed_for_some_source(overrides: &Value) -> bool {
    match overrides {
        Value::Computed => true,
        Value::List(items) => items.iter().any(|(_, item)| is_computed_for_some_source(item)),
        Value::Map(sources) => sources.iter().any(|source| is_computed(&source.value)),
        Value::Text(_) | Value::Plain => false,
    }
}

fn is_computed(value: &Value) -> bool {
    match value {
        Value::Computed => true,
        Value::List(items) => items.iter().any(|(_, item)| is_computed(item)),
        Value::Text(_) | Value::Plain | Value::Map(_) => false,
    }
}

/// Every object at a place where one, or a list of them, may stand.
fn each_map(value: &Value, line: usize, visit: &mut dyn FnMut(usize, &[Field])) {
    match value {
        Value::Map(fields) => visit(line, fields),
        Value::List(items) => {
            for (line, item) in items {
                each_map(item, *line, visit);
            }
        }
        Value::Text(_) | Value::Plain | Value::Computed => {}
    }
}

fn named(name: Option<&str>) -> &str {
    name.unwrap_or("a name that is computed")
}
