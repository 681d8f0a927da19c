//! Runners on EC2, as far as moto has them: instances without a body, and no memory for client tokens.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    InstanceAttributeName, InstanceType, RequestLaunchTemplateData, ShutdownBehavior, Tag,
};
use ciab_aws::{Ec2RunnerSettings, Ec2Runners, connect_to};
use ciab_core::build::RunnerKind;
use ciab_core::ports::{PortError, RunnerOrder, RunnerState, Runners};
use ciab_core::resource::tag;
use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::servers::Server;

const BUILD: &str = "550e8400-e29b-41d4-a716-446655440000";

fn settings() -> Ec2RunnerSettings {
    Ec2RunnerSettings {
        launch_template: "ciab-test-runner".into(),
        stack: "prod".into(),
        bucket: "prod-123456789012".into(),
        runner_sha256: None,
        log_filter: "info".into(),
        variables: Vec::new(),
    }
}

fn order(build: &str) -> RunnerOrder {
    RunnerOrder {
        build_id: build.parse().unwrap(),
        request_id: None,
        kind: RunnerKind::Ec2,
        task_token: "token".into(),
        deadline: "2026-03-25T15:00:05Z".parse().unwrap(),
        timeout_secs: 1800,
        region: "us-east-1".parse().unwrap(),
    }
}

async fn launch_template(server: &Server) -> (Ec2Runners, Client) {
    let config = server.config();
    let client = Client::new(&config);
    let images = client.describe_images().owners("amazon").send().await.unwrap();
    let data = RequestLaunchTemplateData::builder()
        .image_id(images.images()[0].image_id().unwrap())
        .instance_type(InstanceType::T3Small)
        .instance_initiated_shutdown_behavior(ShutdownBehavior::Terminate)
        .build();
    client
        .create_launch_template()
        .launch_template_name("ciab-test-runner")
        .launch_template_data(data)
        .send()
        .await
        .unwrap();
    (Ec2Runners::new(&config, settings()), client)
}

async fn tags_of(client: &Client, id: &str) -> Vec<Tag> {
    let described = client.describe_instances().instance_ids(id).send().await.unwrap();
    described.reservations()[0].instances()[0].tags().to_vec()
}

async fn user_data_of(client: &Client, id: &str) -> String {
    let attribute = client
        .describe_instance_attribute()
        .instance_id(id)
        .attribute(InstanceAttributeName::UserData)
        .send()
        .await
        .unwrap();
    attribute.user_data.unwrap().value.unwrap()
}

#[tokio::test]
async fn a_runner_is_launched_with_the_tags_by_which_it_is_found() {
    let server = Server::moto();
    let (runners, client) = launch_template(&server).await;
    let id = runners.start(&order(BUILD)).await.unwrap();
    let tags = tags_of(&client, &id).await;
    for (key, value) in [
        (tag::MANAGED, "true"),
        (tag::STACK, "prod"),
        (tag::RUNNER_OF, BUILD),
        (tag::EXPIRES_AT, "2026-03-25T15:00:50Z"),
    ] {
        assert!(
            tags.iter().any(|tag| (tag.key(), tag.value()) == (Some(key), Some(value))),
            "{key}: {tags:?}"
        );
    }
    assert!(tags.iter().all(|tag| tag.key() != Some(tag::BUILD_ID)), "a runner is no leftover of its build");

    let builds =
        BTreeSet::from([order(BUILD).build_id, "11111111-2222-4333-8444-555555555555".parse().unwrap()]);
    let found = runners.of_builds(RunnerKind::Ec2, &builds).await.unwrap();
    assert_eq!(found, [(order(BUILD).build_id, BTreeSet::from([id]))].into());
    assert!(runners.of_builds(RunnerKind::Codebuild, &builds).await.unwrap().is_empty());
    let others = Ec2RunnerSettings { stack: "other".into(), ..settings() };
    let others = Ec2Runners::new(&server.config(), others);
    assert!(
        others.of_builds(RunnerKind::Ec2, &builds).await.unwrap().is_empty(),
        "another stack's is another's"
    );
}

#[tokio::test]
async fn what_a_build_made_is_no_runner_whatever_it_says_of_itself() {
    let server = Server::moto();
    let (runners, client) = launch_template(&server).await;
    let id = runners.start(&order(BUILD)).await.unwrap();
    let tag = Tag::builder().key(tag::BUILD_ID).value("11111111-2222-4333-8444-555555555555").build();
    client.create_tags().resources(&id).tags(tag).send().await.unwrap();
    let found = runners.of_builds(RunnerKind::Ec2, &[order(BUILD).build_id].into()).await.unwrap();
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test]
async fn a_repeated_order_is_the_same_request() {
    let server = Server::moto();
    let (runners, client) = launch_template(&server).await;
    let first = runners.start(&order(BUILD)).await.unwrap();
    let second = runners.start(&order(BUILD)).await.unwrap();
    assert_eq!(user_data_of(&client, &first).await, user_data_of(&client, &second).await);
    let as_text = |tags: Vec<Tag>| -> BTreeSet<String> {
        tags.iter().map(|tag| format!("{:?}={:?}", tag.key(), tag.value())).collect()
    };
    assert_eq!(as_text(tags_of(&client, &first).await), as_text(tags_of(&client, &second).await));
}

#[tokio::test]
async fn a_runner_has_ended_once_it_is_terminated_and_one_that_never_was_is_absent() {
    let server = Server::moto();
    let (runners, client) = launch_template(&server).await;
    let id = runners.start(&order(BUILD)).await.unwrap();
    // More than one filter takes.
    let mut ids: BTreeSet<String> = (0..250).map(|number| format!("i-{number:017x}")).collect();
    ids.insert(id.clone());
    let states = runners.states(&ids).await.unwrap();
    assert_eq!(states.len(), 251);
    assert_eq!(states[&id], RunnerState::Running);
    assert!(states.iter().all(|(other, state)| *other == id || *state == RunnerState::Absent));

    client.stop_instances().instance_ids(&id).send().await.unwrap();
    let one = BTreeSet::from([id.clone()]);
    assert_eq!(runners.states(&one).await.unwrap()[&id], RunnerState::Running, "it still has its disk");
    runners.stop(&id).await.unwrap();
    runners.stop(&id).await.unwrap();
    runners.stop("i-0123456789abcdef0").await.unwrap();
    let RunnerState::Ended { at, reported } = runners.states(&one).await.unwrap()[&id] else {
        panic!("it has not ended");
    };
    assert!(Timestamp::now().duration_since(at) < SignedDuration::from_secs(60) && !reported, "{at}");
    assert!(runners.states(&BTreeSet::new()).await.unwrap().is_empty());
}

/// moto behind a client token that was used before with other parameters.
async fn token_was_used(server: &Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let moto = server.address();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let moto = moto.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 1 << 16];
                let mut length = client.read(&mut request).await.unwrap();
                // Head and body may come apart; what follows is a moment away.
                while let Ok(Ok(more)) =
                    tokio::time::timeout(Duration::from_millis(200), client.read(&mut request[length..]))
                        .await
                {
                    length += more;
                    if more == 0 {
                        break;
                    }
                }
                if String::from_utf8_lossy(&request[..length]).contains("Action=RunInstances") {
                    let body = "<Response><Errors><Error><Code>IdempotentParameterMismatch</Code><Message>used</Message>\
                        </Error></Errors><RequestID>1</RequestID></Response>";
                    let head = format!(
                        "HTTP/1.1 400 Bad Request\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                        body.len()
                    );
                    client.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
                    return;
                }
                let mut server = TcpStream::connect(moto).await.unwrap();
                server.write_all(&request[..length]).await.unwrap();
                let _ = tokio::io::copy(&mut server, &mut client).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_runner_that_was_ordered_with_other_settings_before_is_found_and_not_started_again() {
    let server = Server::moto();
    let (before, client) = launch_template(&server).await;
    let id = before.start(&order(BUILD)).await.unwrap();
    let config = connect_to("us-east-1", Some(&token_was_used(&server).await))
        .into_builder()
        .credentials_provider(server.config().credentials_provider().unwrap())
        .build();
    let runners = Ec2Runners::new(&config, settings());
    assert_eq!(runners.start(&order(BUILD)).await.unwrap(), id);
    let other = runners.start(&order("11111111-2222-4333-8444-555555555555")).await.unwrap_err();
    assert!(
        matches!(&other, PortError::Refused { code, .. } if code == "IdempotentParameterMismatch"),
        "{other:?}"
    );
    let all = client.describe_instances().send().await.unwrap();
    assert_eq!(all.reservations().len(), 1);
}
