//! The state machine and its task tokens.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use aws_sdk_sfn::Client;
use aws_sdk_sfn::operation::describe_execution::DescribeExecutionOutput;
use aws_sdk_sfn::types::ExecutionStatus;
use ciab_aws::{RandomIdentifiers, StepFunctionsTaskTokens, StepFunctionsWorkflows};
use ciab_core::ids::BuildId;
use ciab_core::ports::{ExecutionState, Identifiers, TaskState, TaskTokens, Workflows};

use crate::servers::Server;

const WAITS: &str = r#"{"StartAt":"Wait","States":{"Wait":{"Type":"Wait","Seconds":60,"End":true}}}"#;

fn build() -> BuildId {
    "550e8400-e29b-41d4-a716-446655440000".parse().unwrap()
}

async fn state_machine(server: &Server, definition: &str) -> (Client, String) {
    let client = Client::new(&server.config());
    let made = client
        .create_state_machine()
        .name("ciab-test-build-image")
        .definition(definition)
        .role_arn("arn:aws:iam::123456789012:role/test")
        .send()
        .await
        .unwrap();
    (client, made.state_machine_arn)
}

#[tokio::test]
async fn a_build_has_one_execution_however_often_it_is_started() {
    let server = Server::moto();
    let (client, arn) = state_machine(&server, WAITS).await;
    let workflows = StepFunctionsWorkflows::new(&server.config(), &arn);
    workflows.ready().await.unwrap();
    assert_eq!(workflows.state(build()).await.unwrap(), ExecutionState::Absent);
    workflows.start(build()).await.unwrap();
    workflows.start(build()).await.unwrap();
    let ExecutionState::Running { since } = workflows.state(build()).await.unwrap() else {
        panic!("the execution runs")
    };
    let executions = client.list_executions().state_machine_arn(&arn).send().await.unwrap().executions;
    assert_eq!(executions.len(), 1);
    assert_eq!(executions[0].name, build().to_string());
    let input = client.describe_execution().execution_arn(&executions[0].execution_arn).send().await.unwrap();
    let input: serde_json::Value = serde_json::from_str(input.input().unwrap()).unwrap();
    assert_eq!(input, serde_json::json!({ "build_id": build() }));
    assert_eq!(workflows.running().await.unwrap(), [(build(), since)].into());
}

#[tokio::test]
async fn the_builds_whose_executions_run_are_listed_to_the_last_page() {
    let server = Server::moto();
    let (client, arn) = state_machine(&server, WAITS).await;
    let workflows = StepFunctionsWorkflows::new(&server.config(), &arn);
    assert!(workflows.running().await.unwrap().is_empty());
    let (mut expected, stopped) = (BTreeSet::new(), RandomIdentifiers.new_build_id());
    for _ in 0..1_010 {
        let id = RandomIdentifiers.new_build_id();
        workflows.start(id).await.unwrap();
        expected.insert(id);
    }
    workflows.start(stopped).await.unwrap();
    workflows.stop(stopped).await.unwrap();
    client.start_execution().state_machine_arn(&arn).name("by-hand").send().await.unwrap();
    let running: BTreeSet<BuildId> = workflows.running().await.unwrap().into_keys().collect();
    assert_eq!(running.len(), expected.len());
    assert_eq!(running, expected);
}

#[tokio::test]
async fn stopping_ends_what_runs_and_is_content_with_what_does_not() {
    let server = Server::moto();
    let (_, arn) = state_machine(&server, WAITS).await;
    let workflows = StepFunctionsWorkflows::new(&server.config(), &arn);
    workflows.stop(build()).await.unwrap();
    workflows.start(build()).await.unwrap();
    workflows.stop(build()).await.unwrap();
    workflows.stop(build()).await.unwrap();
    assert_eq!(workflows.state(build()).await.unwrap(), ExecutionState::Ended);
    workflows.start(build()).await.unwrap();
    assert_eq!(workflows.state(build()).await.unwrap(), ExecutionState::Ended, "a name is used once");
}

#[tokio::test]
async fn a_state_machine_that_is_not_there_is_not_ready() {
    let server = Server::moto();
    let arn = "arn:aws:states:us-east-1:123456789012:stateMachine:nowhere";
    assert!(StepFunctionsWorkflows::new(&server.config(), arn).ready().await.is_err());
}

/// A task that writes its token into a table and waits.
const NOTES_ITS_TOKEN: &str = r#"{"StartAt":"Note","States":{"Note":{
    "Type":"Task","Resource":"arn:aws:states:::aws-sdk:dynamodb:putItem.waitForTaskToken",
    "Parameters":{"TableName":"tokens","Item":{"pk":{"S":"token"},"token":{"S.$":"$$.Task.Token"}}},
    "HeartbeatSeconds":60,"TimeoutSeconds":120,"End":true}}}"#;

/// A running execution whose task waits, its token, and its ARN.
async fn waiting(server: &Server) -> (Client, String, String) {
    server.carry_out_state_machines();
    let table = aws_sdk_dynamodb::Client::new(&server.config());
    let named = AttributeDefinition::builder().attribute_name("pk").attribute_type(ScalarAttributeType::S);
    let keyed = KeySchemaElement::builder().attribute_name("pk").key_type(KeyType::Hash);
    table
        .create_table()
        .table_name("tokens")
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(named.build().unwrap())
        .key_schema(keyed.build().unwrap())
        .send()
        .await
        .unwrap();
    let (client, arn) = state_machine(server, NOTES_ITS_TOKEN).await;
    let execution = client.start_execution().state_machine_arn(arn).send().await.unwrap().execution_arn;
    for _ in 0..200 {
        let key = AttributeValue::S("token".into());
        let noted = table.get_item().table_name("tokens").key("pk", key).send().await.unwrap();
        if let Some(item) = noted.item {
            return (client, item["token"].as_s().unwrap().clone(), execution);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the task noted no token");
}

async fn ended(client: &Client, execution: &str) -> DescribeExecutionOutput {
    for _ in 0..200 {
        let described = client.describe_execution().execution_arn(execution).send().await.unwrap();
        if described.status != ExecutionStatus::Running {
            return described;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the execution goes on");
}

#[tokio::test]
async fn a_task_takes_heartbeats_and_one_answer() {
    let server = Server::moto();
    let (client, token, execution) = waiting(&server).await;
    let tokens = StepFunctionsTaskTokens::new(&server.config());
    assert_eq!(tokens.heartbeat(&token).await.unwrap(), TaskState::Open);
    let output = serde_json::json!({ "artifacts": [] });
    assert_eq!(tokens.succeed(&token, &output).await.unwrap(), TaskState::Open);
    let described = ended(&client, &execution).await;
    assert_eq!(described.status, ExecutionStatus::Succeeded);
    assert_eq!(serde_json::from_str::<serde_json::Value>(described.output().unwrap()).unwrap(), output);
    assert_eq!(tokens.heartbeat(&token).await.unwrap(), TaskState::Gone);
    assert_eq!(tokens.succeed(&token, &output).await.unwrap(), TaskState::Gone);
}

#[tokio::test]
async fn a_task_that_fails_says_why() {
    let server = Server::moto();
    let (client, token, execution) = waiting(&server).await;
    let tokens = StepFunctionsTaskTokens::new(&server.config());
    assert_eq!(tokens.fail(&token, "PackerFailed", "{}").await.unwrap(), TaskState::Open);
    let described = ended(&client, &execution).await;
    assert_eq!(described.status, ExecutionStatus::Failed);
    // moto leaves the cause out.
    assert_eq!(described.error(), Some("PackerFailed"));
}

#[tokio::test]
async fn a_token_that_nobody_waits_for_is_gone() {
    let server = Server::moto();
    server.carry_out_state_machines();
    let tokens = StepFunctionsTaskTokens::new(&server.config());
    assert_eq!(tokens.heartbeat("nobody").await.unwrap(), TaskState::Gone);
    assert_eq!(tokens.succeed("nobody", &serde_json::json!({})).await.unwrap(), TaskState::Gone);
    assert_eq!(tokens.fail("nobody", "PackerFailed", "{}").await.unwrap(), TaskState::Gone);
}
