//! What others hear of builds: a queue behind a rule on the event bus, as a consumer would have it, and the metrics in the functions'
//! logs.
//!
//! Must never take an event that `infra/events.schema.json` does not describe.

use std::cell::RefCell;

use anyhow::{Context as _, Result, bail, ensure};
use local_stack::JsonApi;
use serde_json::{Map, Value, json};

use crate::Scene;

const SCHEMA: &str = include_str!("../../../infra/events.schema.json");
const TEMPLATE: &str = include_str!("../../../infra/template.yaml");

/// A queue that gets the events of a rule, and what came so far.
pub struct Listener {
    api: JsonApi,
    queue: String,
    heard: RefCell<Vec<Value>>,
}

impl Listener {
    /// Listens to all that the service tells.
    pub fn to_everything(scene: &Scene) -> Result<Self> {
        Self::to(scene, "everything", &json!({"source": ["ciab.images"]}))
    }

    /// Listens to what the template's own rule would send to a topic.
    pub fn to_what_the_template_tells(scene: &Scene) -> Result<Self> {
        let template: serde_norway::Value = serde_norway::from_str(TEMPLATE)?;
        let pattern = &template["Resources"]["BuildsEndedRule"]["Properties"]["EventPattern"];
        Self::to(scene, "the-templates", &resolved(pattern)?)
    }

    fn to(scene: &Scene, name: &str, pattern: &Value) -> Result<Self> {
        let api = JsonApi::new(scene.aws_endpoint_url())?;
        let made = api.call("sqs", "AmazonSQS.CreateQueue", &json!({"QueueName": name}))?;
        let queue = made["QueueUrl"].as_str().context("a queue has no URL")?.to_owned();
        let rule = json!({"Name": name, "EventPattern": pattern.to_string(), "State": "ENABLED"});
        api.call("events", "AWSEvents.PutRule", &rule)?;
        let target = json!({"Id": "queue", "Arn": format!("arn:aws:sqs:us-east-1:123456789012:{name}")});
        api.call("events", "AWSEvents.PutTargets", &json!({"Rule": name, "Targets": [target]}))?;
        Ok(Self { api, queue, heard: RefCell::default() })
    }

    /// All that came so far of a build, in the order in which it came, each as the schema has it.
    pub fn heard_of(&self, build_id: &str) -> Result<Vec<Value>> {
        loop {
            let request = json!({"QueueUrl": self.queue, "MaxNumberOfMessages": 10});
            let answer = self.api.call("sqs", "AmazonSQS.ReceiveMessage", &request)?;
            let messages = answer["Messages"].as_array().cloned().unwrap_or_default();
            if messages.is_empty() {
                break;
            }
            for message in messages {
                let event = serde_json::from_str(message["Body"].as_str().unwrap_or_default())?;
                is_described(&event)?;
                self.heard.borrow_mut().push(event);
                let request = json!({"QueueUrl": self.queue, "ReceiptHandle": message["ReceiptHandle"]});
                self.api.call("sqs", "AmazonSQS.DeleteMessage", &request)?;
            }
        }
        let heard = self.heard.borrow();
        let mut of_build: Vec<Value> =
            heard.iter().filter(|event| event["detail"]["build_id"] == build_id).cloned().collect();
        // Told once or twice: whoever listens drops what it has.
        let mut known = std::collections::BTreeSet::new();
        of_build.retain(|event| known.insert(event["detail"]["event_id"].to_string()));
        Ok(of_build)
    }
}

/// The pattern with `!Ref AWS::StackName` as the local stack has it.
fn resolved(value: &serde_norway::Value) -> Result<Value> {
    use serde_norway::Value as Yaml;
    Ok(match value {
        Yaml::Tagged(tagged) if tagged.tag == "Ref" && tagged.value == "AWS::StackName" => {
            json!("ciab-local")
        }
        Yaml::Tagged(tagged) => bail!("{} in the rule's pattern", tagged.tag),
        Yaml::Mapping(fields) => {
            let mut object = Map::new();
            for (key, value) in fields {
                object.insert(key.as_str().context("a key is no text")?.to_owned(), resolved(value)?);
            }
            Value::Object(object)
        }
        Yaml::Sequence(items) => Value::Array(items.iter().map(resolved).collect::<Result<_>>()?),
        other => serde_json::to_value(other)?,
    })
}

/// Fails where the event is not what the schema says, or has something in its detail that the schema does not say.
fn is_described(event: &Value) -> Result<()> {
    let schema: Value = serde_json::from_str(SCHEMA)?;
    let validator = jsonschema::draft202012::new(&schema).context("infra/events.schema.json")?;
    if let Err(error) = validator.validate(event) {
        bail!("{event:#} is not what infra/events.schema.json says: at {}: {error}", error.instance_path());
    }
    let described = schema["$defs"]["detail"]["properties"].as_object().context("no properties")?;
    for field in event["detail"].as_object().into_iter().flatten().map(|(field, _)| field) {
        ensure!(described.contains_key(field), "infra/events.schema.json does not describe {field}");
    }
    Ok(())
}

/// The documents with metrics that a function has written to its log so far.
pub fn metrics_of(scene: &Scene, function: &str) -> Result<Vec<Value>> {
    let folder = scene.directory().context("the stack is somebody else's")?;
    let log = std::fs::read_to_string(folder.join(format!("logs/functions/{function}.log")))?;
    let mut documents = Vec::new();
    for line in log.lines().filter(|line| line.contains("\"_aws\"")) {
        // The last line may still be being written.
        let Ok(document) = serde_json::from_str::<Value>(line) else { continue };
        announces_what_it_has(&document)?;
        documents.push(document);
    }
    Ok(documents)
}

/// What CloudWatch asks of a document ("Specification: Embedded metric format").
fn announces_what_it_has(document: &Value) -> Result<()> {
    let told = || format!("{document:#}");
    ensure!(document["_aws"]["Timestamp"].is_u64(), "no time: {}", told());
    let directives = document["_aws"]["CloudWatchMetrics"].as_array().with_context(told)?;
    ensure!(!directives.is_empty(), "no metrics: {}", told());
    for directive in directives {
        ensure!(directive["Namespace"] == "ciab-images", "{}", told());
        for set in directive["Dimensions"].as_array().with_context(told)? {
            let set = set.as_array().with_context(told)?;
            ensure!(set.len() <= 30, "too many dimensions: {}", told());
            for dimension in set {
                let value = &document[dimension.as_str().unwrap_or_default()];
                ensure!(value.is_string(), "the dimension {dimension} has no value: {}", told());
            }
        }
        for metric in directive["Metrics"].as_array().with_context(told)? {
            let value = &document[metric["Name"].as_str().unwrap_or_default()];
            ensure!(value.is_number(), "{metric} has no number: {}", told());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first indented document of docs/EVENTS.md.
    fn example() -> Value {
        let text = include_str!("../../../docs/EVENTS.md");
        let lines =
            text.lines().skip_while(|line| *line != "    {").take_while(|line| line.starts_with("    "));
        serde_json::from_str(&lines.collect::<Vec<_>>().join("\n")).expect("a document")
    }

    #[test]
    fn the_documentations_example_is_what_the_schema_says() {
        is_described(&example()).expect("it is described");
    }

    #[test]
    fn what_the_schema_does_not_say_is_refused() {
        let changed = |change: fn(&mut Value)| {
            let mut event = example();
            change(&mut event);
            is_described(&event)
        };
        assert!(changed(|event| event["detail"]["message"] = json!("secret")).is_err());
        assert!(changed(|event| event["detail"]["status"] = json!("done")).is_err());
        assert!(changed(|event| event["source"] = json!("aws.ec2")).is_err());
        assert!(changed(|event| event["detail"]["event_id"] = Value::Null).is_err());
    }

    #[test]
    fn the_templates_rule_is_read_with_the_local_stacks_name() {
        let template: serde_norway::Value = serde_norway::from_str(TEMPLATE).expect("YAML");
        let pattern = &template["Resources"]["BuildsEndedRule"]["Properties"]["EventPattern"];
        let pattern = resolved(pattern).expect("a pattern");
        assert_eq!(pattern["detail"], json!({"stack": ["ciab-local"], "status": ["succeeded", "failed"]}));
    }
}
