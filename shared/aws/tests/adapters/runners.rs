//! Runners on CodeBuild, as far as moto has it: its builds end at once.

use std::collections::BTreeSet;

use aws_sdk_codebuild::Client;
use aws_sdk_codebuild::types::{
    ArtifactsType, ComputeType, EnvironmentType, ProjectArtifacts, ProjectEnvironment, ProjectSource,
    SourceType,
};
use ciab_aws::CodeBuildRunners;
use ciab_core::build::RunnerKind;
use ciab_core::ports::{RunnerOrder, RunnerState, Runners};

use crate::servers::Server;

async fn project(server: &Server) -> CodeBuildRunners {
    let config = server.config();
    let environment = ProjectEnvironment::builder()
        .r#type(EnvironmentType::LinuxContainer)
        .image("standard")
        .compute_type(ComputeType::BuildGeneral1Small)
        .build()
        .unwrap();
    Client::new(&config)
        .create_project()
        .name("ciab-test-runner")
        .source(ProjectSource::builder().r#type(SourceType::S3).location("bucket/key").build().unwrap())
        .artifacts(ProjectArtifacts::builder().r#type(ArtifactsType::NoArtifacts).build().unwrap())
        .environment(environment)
        .service_role("arn:aws:iam::123456789012:role/service-role/test")
        .send()
        .await
        .unwrap();
    CodeBuildRunners::new(&config, "ciab-test-runner")
}

fn order() -> RunnerOrder {
    RunnerOrder {
        build_id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
        request_id: None,
        kind: RunnerKind::Codebuild,
        task_token: "token".into(),
        deadline: "2026-03-25T15:00:05Z".parse().unwrap(),
        timeout_secs: 1800,
        region: "us-east-1".parse().unwrap(),
    }
}

#[tokio::test]
async fn a_runners_state_is_told_and_one_that_never_was_is_absent() {
    let server = Server::moto();
    let runners = project(&server).await;
    let id = runners.start(&order()).await.unwrap();
    let never = "ciab-test-runner:11111111-2222-3333-4444-555555555555".to_owned();
    let states = runners.states(&BTreeSet::from([id.clone(), never.clone()])).await.unwrap();
    assert!(
        matches!(states[&id], RunnerState::Ended { reported: true, .. } | RunnerState::Running),
        "{states:?}"
    );
    assert_eq!(states[&never], RunnerState::Absent);
    assert!(runners.states(&BTreeSet::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_runner_that_never_was_counts_as_stopped() {
    let server = Server::moto();
    let runners = project(&server).await;
    let id = runners.start(&order()).await.unwrap();
    runners.stop(&id).await.unwrap();
    runners.stop(&id).await.unwrap();
    runners.stop("ciab-test-runner:11111111-2222-3333-4444-555555555555").await.unwrap();
    let states = runners.states(&BTreeSet::from([id.clone()])).await.unwrap();
    assert!(matches!(states[&id], RunnerState::Ended { .. }), "{states:?}");
}
