//! The services that are asked by JSON and `X-Amz-Target`: DynamoDB, Step Functions, CodeBuild, Systems Manager, Secrets Manager,
//! EventBridge, SQS and CloudWatch Logs ("Actions, resources, and condition keys for …" of each).

use serde_json::Value as Json;

use super::super::call::Check;
use super::{Asked, Surroundings};

pub(super) fn checks(asked: &Asked<'_>, surroundings: &Surroundings) -> Result<Vec<Check>, String> {
    let target =
        asked.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let (service, action) = target
        .split_once('.')
        .ok_or_else(|| format!("{} {} of {} is in no table", asked.method, asked.path, asked.service))?;
    let body: Json =
        serde_json::from_slice(asked.body).map_err(|error| format!("{target} is no JSON: {error}"))?;
    let call = Call { action, body: &body, region: asked.region, surroundings };
    // The target says what is called; a signature for another service would be refused by AWS.
    let signed = match service {
        "DynamoDB_20120810" | "DynamoDBStreams_20120810" => "dynamodb",
        "AWSStepFunctions" => "states",
        "CodeBuild_20161006" => "codebuild",
        "AmazonSSM" => "ssm",
        "secretsmanager" => "secretsmanager",
        "AWSEvents" => "events",
        "AmazonSQS" => "sqs",
        "Logs_20140328" => "logs",
        _ => return Err(format!("{target} is in no table")),
    };
    if signed != asked.service {
        return Err(format!("{target} is signed for {}", asked.service));
    }
    match signed {
        "dynamodb" => call.dynamodb(),
        "states" => call.states(),
        "codebuild" => call.codebuild(),
        "ssm" => call.ssm(),
        "secretsmanager" => call.secret(),
        "events" => call.events(),
        "sqs" => call.sqs(),
        _ => call.logs(),
    }
}

struct Call<'a> {
    action: &'a str,
    body: &'a Json,
    region: &'a str,
    surroundings: &'a Surroundings,
}

impl Call<'_> {
    fn unknown(&self, service: &str) -> String {
        format!("{service}:{} is in no table", self.action)
    }

    fn text(&self, key: &str) -> Result<&str, String> {
        self.body[key].as_str().ok_or_else(|| format!("{} has no {key}", self.action))
    }

    fn arn(&self, service: &str, rest: &str) -> String {
        format!("arn:aws:{service}:{}:{}:{rest}", self.region, self.surroundings.account)
    }

    fn dynamodb(&self) -> Result<Vec<Check>, String> {
        match self.action {
            "GetItem" | "UpdateItem" | "DeleteItem" => Ok(vec![self.item(self.action, self.body, "Key")?]),
            "PutItem" => Ok(vec![self.item(self.action, self.body, "Item")?]),
            "Query" => Ok(vec![self.query()?]),
            "Scan" => Ok(vec![Check::new("dynamodb:Scan", self.table_or_index()?)]),
            "DescribeTable" | "DescribeTimeToLive" => {
                Ok(vec![Check::new(format!("dynamodb:{}", self.action), self.table(self.text("TableName")?))])
            }
            // Each of its parts by itself ("TransactWriteItems", "Permissions").
            "TransactWriteItems" | "TransactGetItems" => {
                let items =
                    self.body["TransactItems"].as_array().ok_or("a transaction has no TransactItems")?;
                items.iter().map(|item| self.part(item)).collect()
            }
            "BatchGetItem" | "BatchWriteItem" => {
                let tables = self.body["RequestItems"].as_object().ok_or("a batch has no RequestItems")?;
                tables.iter().map(|(table, items)| self.batch(table, items)).collect()
            }
            // DynamoDB's second API; in policies the service is one.
            "ListStreams" => Ok(vec![Check::new("dynamodb:ListStreams", "*")]),
            "DescribeStream" | "GetShardIterator" => {
                Ok(vec![Check::new(format!("dynamodb:{}", self.action), self.text("StreamArn")?)])
            }
            "GetRecords" => {
                // An iterator begins with the ARN of its stream.
                let stream = self.text("ShardIterator")?.split('|').next().unwrap_or_default();
                Ok(vec![Check::new("dynamodb:GetRecords", stream)])
            }
            _ => Err(self.unknown("dynamodb")),
        }
    }

    fn part(&self, item: &Json) -> Result<Check, String> {
        let (kind, part) =
            item.as_object().and_then(|item| item.iter().next()).ok_or("an empty part of a transaction")?;
        match kind.as_str() {
            "Put" => self.item("PutItem", part, "Item"),
            "Update" => self.item("UpdateItem", part, "Key"),
            "Delete" => self.item("DeleteItem", part, "Key"),
            "Get" => self.item("GetItem", part, "Key"),
            "ConditionCheck" => self.item("ConditionCheckItem", part, "Key"),
            other => Err(format!("{other} is no part of a transaction")),
        }
    }

    fn batch(&self, table: &str, items: &Json) -> Result<Check, String> {
        let keys: Option<Vec<&Json>> = if self.action == "BatchGetItem" {
            items["Keys"].as_array().map(|keys| keys.iter().collect())
        } else {
            items.as_array().and_then(|writes| writes.iter().map(written).collect())
        };
        let keys = keys.ok_or("a batch has an unknown part")?;
        self.with_leading(Check::new(format!("dynamodb:{}", self.action), self.table(table)), table, &keys)
    }

    fn item(&self, action: &str, part: &Json, key: &str) -> Result<Check, String> {
        let table = part["TableName"].as_str().ok_or_else(|| format!("{action} has no TableName"))?;
        self.with_leading(Check::new(format!("dynamodb:{action}"), self.table(table)), table, &[&part[key]])
    }

    fn with_leading(&self, check: Check, table: &str, keys: &[&Json]) -> Result<Check, String> {
        // What is known of no table cannot be judged by its keys, and no policy of ours allows another table.
        let Some(table) = self.surroundings.tables.get(table) else { return Ok(check) };
        let leading = keys.iter().map(|key| scalar(&key[&table.partition]));
        let leading: Option<Vec<String>> = leading.collect();
        Ok(check.with_all("dynamodb:LeadingKeys", leading.ok_or("an item has no partition key")?))
    }

    fn query(&self) -> Result<Check, String> {
        let check = Check::new("dynamodb:Query", self.table_or_index()?);
        let Some(table) = self.surroundings.tables.get(self.text("TableName")?) else { return Ok(check) };
        let index = self.body["IndexName"].as_str();
        let partition = index.map_or(Some(&table.partition), |index| table.indexes.get(index));
        let partition =
            partition.ok_or_else(|| format!("there is no index {}", index.unwrap_or_default()))?;
        let leading = self.leading_key(partition).ok_or("a query's partition key cannot be told")?;
        Ok(check.with_all("dynamodb:LeadingKeys", vec![leading]))
    }

    /// The value that the partition key is compared with: `key = :value` or `#key = :value`, at any place of the expression.
    fn leading_key(&self, partition: &str) -> Option<String> {
        let expression =
            self.body["KeyConditionExpression"].as_str()?.replace(['(', ')'], " ").replace('=', " = ");
        let words: Vec<&str> = expression.split_whitespace().collect();
        let is_partition = |word: &str| {
            word == partition || self.body["ExpressionAttributeNames"][word].as_str() == Some(partition)
        };
        let value = words.windows(3).find(|words| is_partition(words[0]) && words[1] == "=")?[2];
        scalar(&self.body["ExpressionAttributeValues"][value])
    }

    fn table(&self, table: &str) -> String {
        if table.starts_with("arn:") {
            table.to_owned()
        } else {
            self.arn("dynamodb", &format!("table/{table}"))
        }
    }

    fn table_or_index(&self) -> Result<String, String> {
        let table = self.table(self.text("TableName")?);
        Ok(match self.body["IndexName"].as_str() {
            Some(index) => format!("{table}/index/{index}"),
            None => table,
        })
    }

    fn states(&self) -> Result<Vec<Check>, String> {
        let action = format!("states:{}", self.action);
        match self.action {
            "StartExecution" | "ListExecutions" | "DescribeStateMachine" => {
                Ok(vec![Check::new(action, self.text("stateMachineArn")?)])
            }
            "DescribeExecution" | "StopExecution" | "GetExecutionHistory" => {
                Ok(vec![Check::new(action, self.text("executionArn")?)])
            }
            // The reference names no resource, yet the machine's ARN is taken: it is what CDK's `grantTaskResponse` gives.
            "SendTaskSuccess" | "SendTaskFailure" | "SendTaskHeartbeat" => {
                match self.surroundings.state_machines.as_slice() {
                    [machine] => Ok(vec![Check::new(action, machine)]),
                    _ => Err("a task token does not tell of which machine it is".to_owned()),
                }
            }
            _ => Err(self.unknown("states")),
        }
    }

    fn codebuild(&self) -> Result<Vec<Check>, String> {
        let check = |project: &str| {
            Check::new(
                format!("codebuild:{}", self.action),
                self.arn("codebuild", &format!("project/{project}")),
            )
        };
        let of_build = |id: &str| id.split(':').next().unwrap_or_default().to_owned();
        match self.action {
            "StartBuild" | "ListBuildsForProject" => Ok(vec![check(self.text("projectName")?)]),
            "StopBuild" => Ok(vec![check(&of_build(self.text("id")?))]),
            "BatchGetBuilds" => {
                let ids = self.body["ids"].as_array().ok_or("BatchGetBuilds has no ids")?;
                ids.iter().map(|id| Ok(check(&of_build(id.as_str().ok_or("an id is no text")?)))).collect()
            }
            _ => Err(self.unknown("codebuild")),
        }
    }

    fn ssm(&self) -> Result<Vec<Check>, String> {
        if self.action != "GetParameter" {
            return Err(self.unknown("ssm"));
        }
        let name = self.text("Name")?;
        let mut checks = vec![Check::new(
            "ssm:GetParameter",
            self.arn("ssm", &format!("parameter/{}", name.trim_start_matches('/'))),
        )];
        // Parameter Store asks Secrets Manager with the caller's own rights ("Referencing AWS Secrets Manager secrets from Parameter Store").
        if let Some(secret) = name.strip_prefix("/aws/reference/secretsmanager/") {
            checks.push(Check::new("secretsmanager:GetSecretValue", self.secret_arn(secret)));
        }
        Ok(checks)
    }

    fn secret(&self) -> Result<Vec<Check>, String> {
        match self.action {
            "GetSecretValue" | "DescribeSecret" | "PutSecretValue" => {
                let arn = self.secret_arn(self.text("SecretId")?);
                Ok(vec![Check::new(format!("secretsmanager:{}", self.action), arn)])
            }
            _ => Err(self.unknown("secretsmanager")),
        }
    }

    /// A secret's ARN ends in six characters of Secrets Manager's own.
    fn secret_arn(&self, id: &str) -> String {
        if id.starts_with("arn:") {
            id.to_owned()
        } else {
            self.arn("secretsmanager", &format!("secret:{id}-AAAAAA"))
        }
    }

    fn events(&self) -> Result<Vec<Check>, String> {
        if self.action != "PutEvents" {
            return Err(self.unknown("events"));
        }
        let entries = self.body["Entries"].as_array().ok_or("PutEvents has no Entries")?;
        let check = |entry: &Json| {
            let bus = entry["EventBusName"].as_str().unwrap_or("default");
            let bus = if bus.starts_with("arn:") {
                bus.to_owned()
            } else {
                self.arn("events", &format!("event-bus/{bus}"))
            };
            let mut check = Check::new("events:PutEvents", bus);
            for (key, name) in [("events:source", "Source"), ("events:detail-type", "DetailType")] {
                if let Some(value) = entry[name].as_str() {
                    check = check.with(key, value);
                }
            }
            check
        };
        Ok(entries.iter().map(check).collect())
    }

    fn sqs(&self) -> Result<Vec<Check>, String> {
        if !["SendMessage", "ReceiveMessage", "DeleteMessage"].contains(&self.action) {
            return Err(self.unknown("sqs"));
        }
        let queue = self.text("QueueUrl")?.rsplit('/').next().unwrap_or_default();
        Ok(vec![Check::new(format!("sqs:{}", self.action), self.arn("sqs", queue))])
    }

    fn logs(&self) -> Result<Vec<Check>, String> {
        let group = self.text("logGroupName")?;
        let resource = match self.action {
            "CreateLogGroup" => self.arn("logs", &format!("log-group:{group}")),
            "CreateLogStream" | "PutLogEvents" => {
                self.arn("logs", &format!("log-group:{group}:log-stream:{}", self.text("logStreamName")?))
            }
            _ => return Err(self.unknown("logs")),
        };
        Ok(vec![Check::new(format!("logs:{}", self.action), resource)])
    }
}

/// What one write of a batch puts or deletes.
fn written(write: &Json) -> Option<&Json> {
    write.pointer("/PutRequest/Item").or_else(|| write.pointer("/DeleteRequest/Key"))
}

/// The text of `{"S": "…"}` or `{"N": "…"}`.
fn scalar(value: &Json) -> Option<String> {
    ["S", "N", "B"].iter().find_map(|kind| value[kind].as_str()).map(str::to_owned)
}
