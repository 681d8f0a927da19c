//! Gives CloudFormation's references and functions their values, as far as our own template uses them.
//!
//! Must never guess: what it does not know is an error that names it, so that the local stack cannot quietly differ from
//! the deployed one.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value as Json, json};
use serde_norway::Value as Yaml;

use super::TemplateError;

/// What a stack is called and where it lives, which the pseudo parameters (`AWS::…`) stand for.
#[derive(Clone, Debug)]
pub(crate) struct StackIdentity {
    pub(crate) stack_name: String,
    pub(crate) region: String,
    pub(crate) account: String,
    /// SSM's public parameters, as far as there is anything here that their values can name.
    pub(crate) public_parameters: BTreeMap<String, String>,
}

/// Turns the template's YAML into plain JSON, with every reference replaced.
pub(crate) struct Resolver<'a> {
    identity: &'a StackIdentity,
    parameters: BTreeMap<String, Json>,
    resources: &'a serde_norway::Mapping,
    conditions: Option<&'a serde_norway::Mapping>,
}

impl<'a> Resolver<'a> {
    /// Takes the parameters' defaults, replaced by `overrides`, and checks every value against what the template allows.
    pub(crate) fn new(
        document: &'a Yaml,
        identity: &'a StackIdentity,
        overrides: &BTreeMap<String, String>,
    ) -> Result<Self, TemplateError> {
        let empty = || TemplateError::Malformed("the template has no Resources".to_owned());
        let resources = document.get("Resources").and_then(Yaml::as_mapping).ok_or_else(empty)?;
        let declared = document.get("Parameters").and_then(Yaml::as_mapping).cloned().unwrap_or_default();
        let names: Vec<String> = declared.keys().filter_map(Yaml::as_str).map(str::to_owned).collect();
        if let Some(unknown) = overrides.keys().find(|name| !names.contains(name)) {
            return Err(TemplateError::UnknownParameter { name: unknown.clone(), known: names.join(", ") });
        }
        let mut parameters = BTreeMap::new();
        for (name, declaration) in &declared {
            let Some(name) = name.as_str() else { continue };
            let value = parameter_value(name, declaration, overrides.get(name), identity)?;
            parameters.insert(name.to_owned(), value);
        }
        let conditions = document.get("Conditions").and_then(Yaml::as_mapping);
        let resolver = Self { identity, parameters, resources, conditions };
        resolver.check_rules(document)?;
        Ok(resolver)
    }

    /// The value with every tag resolved; entries that resolve to `AWS::NoValue` are left out.
    pub(crate) fn resolve(&self, value: &Yaml) -> Result<Json, TemplateError> {
        match value {
            Yaml::Null => Ok(Json::Null),
            Yaml::Bool(flag) => Ok(json!(flag)),
            Yaml::Number(number) => serde_json::to_value(number)
                .map_err(|error| TemplateError::Malformed(format!("{number:?} is no JSON number: {error}"))),
            Yaml::String(text) => Ok(json!(text)),
            Yaml::Sequence(items) => {
                let mut resolved = Vec::new();
                for item in items {
                    if let Some(item) = self.chosen(item)? {
                        resolved.push(self.resolve(item)?);
                    }
                }
                Ok(Json::Array(resolved))
            }
            Yaml::Mapping(entries) => {
                let mut object = Map::new();
                for (key, entry) in entries {
                    let key = scalar_text(key)?;
                    if key == "Ref" || key.starts_with("Fn::") {
                        return Err(TemplateError::Unsupported(format!("{key} in its long form")));
                    }
                    if let Some(entry) = self.chosen(entry)? {
                        object.insert(key, self.resolve(entry)?);
                    }
                }
                Ok(Json::Object(object))
            }
            Yaml::Tagged(tagged) => self.function(&tagged.tag.to_string(), &tagged.value),
        }
    }

    /// The value as text, for places that hold text only.
    pub(crate) fn text(&self, value: &Yaml) -> Result<String, TemplateError> {
        match self.resolve(value)? {
            Json::String(text) => Ok(text),
            Json::Number(number) => Ok(number.to_string()),
            Json::Bool(flag) => Ok(flag.to_string()),
            other => {
                Err(TemplateError::Malformed(format!("text is expected where the template has {other}")))
            }
        }
    }

    fn function(&self, tag: &str, value: &Yaml) -> Result<Json, TemplateError> {
        match tag {
            "!Ref" => self.reference(&scalar_text(value)?),
            "!Sub" => Ok(Json::String(self.substitute(&scalar_text(value)?)?)),
            "!GetAtt" => {
                let path = scalar_text(value)?;
                let (resource, attribute) = path
                    .split_once('.')
                    .ok_or_else(|| TemplateError::Unsupported(format!("!GetAtt {path}")))?;
                self.attribute(resource, attribute)
            }
            "!Join" => {
                let [separator, items] = arguments::<2>(tag, value)?;
                let separator = self.text(separator)?;
                let items = match self.resolve(items)? {
                    Json::Array(items) => items,
                    other => {
                        return Err(TemplateError::Malformed(format!("!Join wants a list, not {other}")));
                    }
                };
                let parts: Vec<String> = items.iter().map(json_text).collect();
                Ok(Json::String(parts.join(&separator)))
            }
            "!If" => {
                let chosen = self.branch(tag, value)?;
                self.resolve(chosen)
            }
            "!Equals" => {
                let [left, right] = arguments::<2>(tag, value)?;
                Ok(json!(json_text(&self.resolve(left)?) == json_text(&self.resolve(right)?)))
            }
            "!Not" => {
                let [inner] = arguments::<1>(tag, value)?;
                Ok(json!(self.resolve(inner)? != json!(true)))
            }
            "!Or" => {
                let alternatives: Result<Vec<Json>, TemplateError> =
                    value.as_sequence().into_iter().flatten().map(|item| self.resolve(item)).collect();
                Ok(json!(alternatives?.contains(&json!(true))))
            }
            "!EachMemberIn" => {
                let [members, list] = arguments::<2>(tag, value)?;
                let (members, list) = (self.list(tag, members)?, self.list(tag, list)?);
                Ok(json!(members.iter().all(|member| list.contains(member))))
            }
            "!EachMemberEquals" => {
                let [members, item] = arguments::<2>(tag, value)?;
                let (members, item) = (self.list(tag, members)?, self.resolve(item)?);
                Ok(json!(members.iter().all(|member| *member == item)))
            }
            "!Contains" => {
                let [list, item] = arguments::<2>(tag, value)?;
                let (list, item) = (self.resolve(list)?, self.resolve(item)?);
                Ok(json!(list.as_array().is_some_and(|items| items.contains(&item))))
            }
            other => Err(TemplateError::Unsupported(other.to_owned())),
        }
    }

    fn list(&self, tag: &str, value: &Yaml) -> Result<Vec<Json>, TemplateError> {
        match self.resolve(value)? {
            Json::Array(items) => Ok(items),
            other => Err(TemplateError::Malformed(format!("{tag} wants a list, not {other}"))),
        }
    }

    fn branch<'y>(&self, tag: &str, value: &'y Yaml) -> Result<&'y Yaml, TemplateError> {
        let [condition, yes, no] = arguments::<3>(tag, value)?;
        Ok(if self.condition(&scalar_text(condition)?)? { yes } else { no })
    }

    /// The entry itself, or what its conditions choose; none where that is `AWS::NoValue`.
    fn chosen<'y>(&self, entry: &'y Yaml) -> Result<Option<&'y Yaml>, TemplateError> {
        match entry {
            Yaml::Tagged(tagged) if tagged.tag == "If" => self.chosen(self.branch("!If", &tagged.value)?),
            entry => Ok((!is_no_value(entry)).then_some(entry)),
        }
    }

    /// Whether a condition of the template holds.
    pub(crate) fn condition(&self, name: &str) -> Result<bool, TemplateError> {
        let expression = self
            .conditions
            .and_then(|conditions| conditions.get(name))
            .ok_or_else(|| TemplateError::Unresolved(format!("condition {name}")))?;
        Ok(self.resolve(expression)? == json!(true))
    }

    fn check_rules(&self, document: &Yaml) -> Result<(), TemplateError> {
        let Some(rules) = document.get("Rules").and_then(Yaml::as_mapping) else { return Ok(()) };
        for rule in rules.values() {
            let assertions = rule.get("Assertions").and_then(Yaml::as_sequence);
            for assertion in assertions.into_iter().flatten() {
                let assert = assertion.get("Assert").unwrap_or(&Yaml::Null);
                if self.resolve(assert)? != json!(true) {
                    let reason = assertion.get("AssertDescription").and_then(Yaml::as_str);
                    return Err(TemplateError::Rule(reason.unwrap_or("a rule does not hold").to_owned()));
                }
            }
        }
        Ok(())
    }

    fn substitute(&self, text: &str) -> Result<String, TemplateError> {
        let mut result = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            result.push_str(&rest[..start]);
            let inner = &rest[start + 2..];
            let end = inner.find('}').ok_or_else(|| {
                TemplateError::Malformed(format!("!Sub {text}: an opened ${{ is not closed"))
            })?;
            let name = &inner[..end];
            // `${!name}` stands for `${name}` itself.
            if let Some(literal) = name.strip_prefix('!') {
                result.push_str(&format!("${{{literal}}}"));
                rest = &inner[end + 1..];
                continue;
            }
            let value = match name.split_once('.') {
                Some((resource, attribute)) => self.attribute(resource, attribute)?,
                None => self.reference(name)?,
            };
            result.push_str(&json_text(&value));
            rest = &inner[end + 1..];
        }
        result.push_str(rest);
        Ok(result)
    }

    fn reference(&self, name: &str) -> Result<Json, TemplateError> {
        let identity = self.identity;
        match name {
            "AWS::StackName" => return Ok(json!(identity.stack_name)),
            "AWS::Region" => return Ok(json!(identity.region)),
            "AWS::AccountId" => return Ok(json!(identity.account)),
            "AWS::Partition" => return Ok(json!("aws")),
            "AWS::URLSuffix" => return Ok(json!("amazonaws.com")),
            _ => {}
        }
        if let Some(value) = self.parameters.get(name) {
            return Ok(value.clone());
        }
        match self.resource_type(name)? {
            "AWS::Serverless::HttpApi" => Ok(json!("local")),
            "AWS::Serverless::StateMachine" => self.attribute(name, "Arn"),
            "AWS::IAM::ManagedPolicy" => {
                let name = self.physical_name(name)?;
                Ok(json!(format!("arn:aws:iam::{}:policy/{name}", identity.account)))
            }
            _ => Ok(json!(self.physical_name(name)?)),
        }
    }

    fn attribute(&self, resource: &str, attribute: &str) -> Result<Json, TemplateError> {
        let StackIdentity { region, account, .. } = self.identity;
        let unresolved = || TemplateError::Unresolved(format!("{resource}.{attribute}"));
        if self.is_role_of_sam(resource) && attribute == "Arn" {
            return Ok(json!(self.role_arn(resource)));
        }
        if (self.resource_type(resource)?, attribute) == ("AWS::EC2::SecurityGroup", "GroupId") {
            // EC2 gives the id when it makes the group; up to then the name stands for it.
            return Ok(json!(self.physical_name(resource)?));
        }
        match (self.resource_type(resource)?, attribute) {
            // AWS ends it in the time when the stream was made.
            ("AWS::DynamoDB::Table", "StreamArn") => {
                let name = self.physical_name(resource)?;
                return Ok(json!(format!("arn:aws:dynamodb:{region}:{account}:table/{name}/stream/latest")));
            }
            ("AWS::SQS::Queue", "QueueName") => return Ok(json!(self.physical_name(resource)?)),
            (_, "Arn") => {}
            _ => return Err(unresolved()),
        }
        let name = self.physical_name(resource)?;
        let arn = match self.resource_type(resource)? {
            "AWS::Serverless::Function" => format!("arn:aws:lambda:{region}:{account}:function:{name}"),
            "AWS::Serverless::StateMachine" => {
                format!("arn:aws:states:{region}:{account}:stateMachine:{name}")
            }
            "AWS::DynamoDB::Table" => format!("arn:aws:dynamodb:{region}:{account}:table/{name}"),
            "AWS::S3::Bucket" => format!("arn:aws:s3:::{name}"),
            "AWS::SQS::Queue" => format!("arn:aws:sqs:{region}:{account}:{name}"),
            "AWS::IAM::Role" => format!("arn:aws:iam::{account}:role/{name}"),
            "AWS::IAM::InstanceProfile" => format!("arn:aws:iam::{account}:instance-profile/{name}"),
            "AWS::Logs::LogGroup" => format!("arn:aws:logs:{region}:{account}:log-group:{name}:*"),
            "AWS::CodeBuild::Project" => format!("arn:aws:codebuild:{region}:{account}:project/{name}"),
            _ => return Err(unresolved()),
        };
        Ok(json!(arn))
    }

    /// The ARN of a role that SAM makes, which the template has no resource for.
    pub(crate) fn role_arn(&self, logical: &str) -> String {
        format!("arn:aws:iam::{}:role/{}-{logical}", self.identity.account, self.identity.stack_name)
    }

    /// Whether the template means by this the role that SAM makes for one of its functions, unless the function names another.
    fn is_role_of_sam(&self, logical: &str) -> bool {
        let function = logical.strip_suffix("Role").and_then(|function| self.resources.get(function));
        let is_functions = function.is_some_and(|body| {
            body.get("Type").and_then(Yaml::as_str) == Some("AWS::Serverless::Function")
                && body.get("Properties").is_some_and(|properties| properties.get("Role").is_none())
        });
        is_functions && !self.resources.contains_key(logical)
    }

    fn resource_type(&self, resource: &str) -> Result<&str, TemplateError> {
        self.resources
            .get(resource)
            .and_then(|body| body.get("Type"))
            .and_then(Yaml::as_str)
            .ok_or_else(|| TemplateError::Unresolved(resource.to_owned()))
    }

    /// The name the template gives a resource, or, as CloudFormation would, one made of stack and resource.
    pub(crate) fn physical_name(&self, resource: &str) -> Result<String, TemplateError> {
        let property = match self.resource_type(resource)? {
            "AWS::Serverless::Function" => "FunctionName",
            "AWS::DynamoDB::Table" => "TableName",
            "AWS::S3::Bucket" => "BucketName",
            "AWS::SQS::Queue" => "QueueName",
            "AWS::IAM::Role" => "RoleName",
            "AWS::IAM::InstanceProfile" => "InstanceProfileName",
            "AWS::IAM::ManagedPolicy" => "ManagedPolicyName",
            "AWS::EC2::SecurityGroup" => "GroupName",
            "AWS::EC2::LaunchTemplate" => "LaunchTemplateName",
            "AWS::Logs::LogGroup" => "LogGroupName",
            "AWS::Serverless::StateMachine" | "AWS::CodeBuild::Project" | "AWS::SNS::Topic" => "Name",
            other => return Err(TemplateError::Unresolved(format!("the name of {resource} ({other})"))),
        };
        let given = self
            .resources
            .get(resource)
            .and_then(|body| body.get("Properties"))
            .and_then(|p| p.get(property));
        match given {
            Some(name) => self.text(name),
            None => Ok(format!("{}-{resource}", self.identity.stack_name)),
        }
    }
}

fn parameter_value(
    name: &str,
    declaration: &Yaml,
    given: Option<&String>,
    identity: &StackIdentity,
) -> Result<Json, TemplateError> {
    let refused = |reason: String| TemplateError::Parameter { name: name.to_owned(), reason };
    let text = match (given, declaration.get("Default")) {
        (Some(given), _) => given.clone(),
        (None, Some(default)) => scalar_text(default)?,
        (None, None) => return Err(refused("it has no default and was not set".to_owned())),
    };
    let kind = declaration.get("Type").and_then(Yaml::as_str).unwrap_or_default();
    if kind.starts_with("AWS::SSM::Parameter::Value<") {
        let known = identity.public_parameters.get(&text);
        return known
            .map(|value| json!(value))
            .ok_or_else(|| refused(format!("`{text}` is no SSM parameter that the local stack has")));
    }
    let is_list = declaration.get("Type").and_then(Yaml::as_str) == Some("CommaDelimitedList");
    let items: Vec<&str> =
        if is_list { text.split(',').map(str::trim).collect() } else { vec![text.as_str()] };
    let why = declaration.get("ConstraintDescription").and_then(Yaml::as_str);
    let explained = |fallback: String| refused(format!("`{text}` {}", why.map_or(fallback, str::to_owned)));
    if let Some(pattern) = declaration.get("AllowedPattern").and_then(Yaml::as_str) {
        let pattern = Regex::new(&format!("^(?:{pattern})$"))
            .map_err(|error| TemplateError::Malformed(format!("AllowedPattern of {name}: {error}")))?;
        if items.iter().any(|item| !pattern.is_match(item)) {
            return Err(explained(format!("must match {pattern}")));
        }
    }
    if let Some(allowed) = declaration.get("AllowedValues").and_then(Yaml::as_sequence) {
        let allowed: Result<Vec<String>, _> = allowed.iter().map(scalar_text).collect();
        let allowed = allowed?;
        if !items.iter().all(|item| allowed.iter().any(|value| value == item)) {
            return Err(explained(format!("must be one of {}", allowed.join(", "))));
        }
    }
    if declaration.get("Type").and_then(Yaml::as_str) == Some("Number") {
        let number: f64 = text.parse().map_err(|_| explained("must be a number".to_owned()))?;
        let limit = |key: &str| declaration.get(key).and_then(Yaml::as_f64);
        if limit("MinValue").is_some_and(|least| number < least)
            || limit("MaxValue").is_some_and(|most| number > most)
        {
            return Err(explained("is out of bounds".to_owned()));
        }
    }
    Ok(if is_list { json!(items) } else { json!(text) })
}

fn is_no_value(value: &Yaml) -> bool {
    matches!(value, Yaml::Tagged(tagged) if tagged.tag == "Ref" && tagged.value.as_str() == Some("AWS::NoValue"))
}

fn arguments<'y, const COUNT: usize>(tag: &str, value: &'y Yaml) -> Result<[&'y Yaml; COUNT], TemplateError> {
    let items: Vec<&Yaml> = value.as_sequence().into_iter().flatten().collect();
    items.try_into().map_err(|_| TemplateError::Malformed(format!("{tag} wants a list of {COUNT}")))
}

pub(crate) fn scalar_text(value: &Yaml) -> Result<String, TemplateError> {
    match value {
        Yaml::String(text) => Ok(text.clone()),
        Yaml::Number(number) => Ok(number.to_string()),
        Yaml::Bool(flag) => Ok(flag.to_string()),
        other => Err(TemplateError::Malformed(format!("text is expected where the template has {other:?}"))),
    }
}

fn json_text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> StackIdentity {
        StackIdentity {
            stack_name: "s".into(),
            region: "us-east-1".into(),
            account: "123456789012".into(),
            public_parameters: BTreeMap::from([("/images/newest".into(), "ami-1".into())]),
        }
    }

    const DOCUMENT: &str = r#"
Parameters:
  Word: { Type: String, Default: one, AllowedPattern: "[a-z]+", ConstraintDescription: must be lower case }
  Words: { Type: CommaDelimitedList, Default: "one, two" }
  Count: { Type: Number, Default: 5, MinValue: 1, MaxValue: 9 }
  Image: { Type: "AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>", Default: /images/newest }
Rules:
  WordIsAmongWords:
    Assertions: [{ Assert: !Contains [!Ref Words, !Ref Word], AssertDescription: Word must be one of Words }]
Conditions:
  Many: !Equals [!Ref Count, "9"]
Resources:
  Thing: { Type: "AWS::DynamoDB::Table", Properties: { TableName: !Sub "${AWS::StackName}-things" } }
  ActFunction: { Type: "AWS::Serverless::Function", Properties: { FunctionName: act } }
Probe:
  joined: !Join [",", !Ref Words]
  arn: !GetAtt Thing.Arn
  sub: !Sub "${Thing.Arn}/index/${Word}"
  choice: !If [Many, many, few]
  gone: !Ref AWS::NoValue
  gone too: !If [Many, many, !Ref AWS::NoValue]
  either: !Or [!Equals [a, b], !Equals [c, c]]
  image: !Ref Image
  role of SAM: !GetAtt ActFunctionRole.Arn
"#;

    fn probe(overrides: &[(&str, &str)]) -> Result<Json, TemplateError> {
        let document: Yaml = serde_norway::from_str(DOCUMENT).unwrap();
        let identity = identity();
        let overrides = overrides.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Resolver::new(&document, &identity, &overrides)?.resolve(&document["Probe"])
    }

    #[test]
    fn references_get_their_values() {
        let arn = "arn:aws:dynamodb:us-east-1:123456789012:table/s-things";
        let expected = json!({"joined": "one,two", "arn": arn, "sub": format!("{arn}/index/one"), "choice": "few", "either": true, "image": "ami-1",
            "role of SAM": "arn:aws:iam::123456789012:role/s-ActFunctionRole"});
        assert_eq!(probe(&[]).unwrap(), expected);
        assert_eq!(probe(&[("Count", "9")]).unwrap()["choice"], "many");
    }

    #[test]
    fn impossible_values_are_refused_with_the_templates_own_words() {
        let message = |overrides: &[(&str, &str)]| probe(overrides).unwrap_err().to_string();
        assert!(message(&[("Word", "ONE")]).contains("must be lower case"));
        assert!(message(&[("Word", "three")]).contains("Word must be one of Words"));
        assert!(message(&[("Count", "10")]).contains("Count"));
        assert!(message(&[("Colour", "red")]).contains("Word, Words, Count"));
        assert!(message(&[("Image", "/images/oldest")]).contains("/images/oldest"));
    }

    #[test]
    fn a_function_it_does_not_know_is_an_error_that_names_it() {
        let document: Yaml = serde_norway::from_str("{Resources: {}, Probe: !Cidr [a, b]}").unwrap();
        let identity = identity();
        let resolver = Resolver::new(&document, &identity, &BTreeMap::new()).unwrap();
        assert!(resolver.resolve(&document["Probe"]).unwrap_err().to_string().contains("!Cidr"));
    }
}
