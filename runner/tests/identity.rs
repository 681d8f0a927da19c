//! Who Packer is: the build's role and nobody else.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod world;

use std::sync::atomic::Ordering;

use ciab_runner::report::Reported;
use serde_json::Value;
use world::{SECRET_KEY, Told, World};

/// A Packer that asks for credentials as AWS's SDKs do: once, once more, and with a token of its own invention.
const ASKS: &str = r#"
env > "$PACKER_TEST_FOLDER/environment"
uri=${AWS_CONTAINER_CREDENTIALS_FULL_URI#http://}
host=${uri%%/*}
ask() {
    exec 3<>"/dev/tcp/${host%:*}/${host#*:}"
    printf 'GET /%s HTTP/1.0\r\nAuthorization: %s\r\n\r\n' "${uri#*/}" "$1" >&3
    cat <&3
    exec 3>&-
}
ask "$AWS_CONTAINER_AUTHORIZATION_TOKEN" > "$PACKER_TEST_FOLDER/first"
ask "$AWS_CONTAINER_AUTHORIZATION_TOKEN" > "$PACKER_TEST_FOLDER/second"
ask invented > "$PACKER_TEST_FOLDER/refused"
message "the key is $(cat "$PACKER_TEST_FOLDER/first") and the token $AWS_CONTAINER_AUTHORIZATION_TOKEN"
artifact us-east-1:ami-0123456789abcdef0
"#;

/// The answer's status and body.
fn answer(world: &World, name: &str) -> (String, Value) {
    let text = std::fs::read_to_string(world.path(name)).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().to_owned(), serde_json::from_str(body).unwrap())
}

fn world() -> World {
    let mut world = World::new(ASKS);
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "AKIARUNNER"),
        ("AWS_SECRET_ACCESS_KEY", "the-runners-own-secret"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/of-the-runner"),
        ("AWS_REGION", "us-east-1"),
    ] {
        world.environment.push((name.into(), value.into()));
    }
    world
}

#[tokio::test]
async fn packer_is_the_builds_role_and_knows_nothing_of_the_runners() {
    let world = world();
    world.run().await;
    assert!(matches!(world.told(), Told::Success(_)), "{:?}", world.told());
    let (status, first) = answer(&world, "first");
    assert_eq!(status, "200");
    assert_eq!(first["AccessKeyId"], "ASIABUILD1");
    assert_eq!(first["SecretAccessKey"], SECRET_KEY);
    assert!(
        first["Expiration"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap() > jiff::Timestamp::now()
    );
    assert_eq!(answer(&world, "second").1, first, "an hour is not over");
    assert_eq!(world.issuer.asked.load(Ordering::SeqCst), 1);
    let environment = std::fs::read_to_string(world.path("environment")).unwrap();
    for absent in ["AKIARUNNER", "the-runners-own-secret", "of-the-runner", "AWS_ACCESS_KEY_ID", "ASIAFILES"]
    {
        assert!(!environment.contains(absent), "{environment}");
    }
    assert!(
        environment.contains("AWS_REGION=us-east-1\n")
            && environment.contains("AWS_EC2_METADATA_DISABLED=true\n")
    );
}

#[tokio::test]
async fn whoever_does_not_know_the_token_gets_nothing() {
    let world = world();
    world.run().await;
    let (status, refused) = answer(&world, "refused");
    assert_eq!(status, "403");
    assert_eq!(refused.get("SecretAccessKey"), None);
}

#[tokio::test]
async fn what_soon_ends_is_renewed_under_packer() {
    let world = world();
    *world.issuer.seconds.lock().unwrap() = Some(60);
    world.run().await;
    let (first, second) = (answer(&world, "first").1, answer(&world, "second").1);
    assert_ne!(first["AccessKeyId"], second["AccessKeyId"]);
}

#[tokio::test]
async fn what_packer_is_known_by_stands_in_no_log() {
    let world = world();
    world.run().await;
    let log = world.objects.log_text();
    assert!(log.contains("the key is"), "{log}");
    let environment = std::fs::read_to_string(world.path("environment")).unwrap();
    let token = environment.lines().find_map(|line| line.strip_prefix("AWS_CONTAINER_AUTHORIZATION_TOKEN="));
    for secret in [SECRET_KEY, "the-session-token-of-the-build", token.unwrap()] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test]
async fn without_credentials_nothing_is_launched() {
    let world = world();
    world.issuer.refuses.store(true, Ordering::SeqCst);
    assert!(matches!(world.run().await, Reported::Yes));
    let (name, failure) = world.failure();
    assert_eq!(name, "RunnerFailed");
    assert!(failure.message.contains("the build's credentials were not given"), "{}", failure.message);
    assert!(failure.message.contains("CredentialsRefused"), "{}", failure.message);
    assert!(!world.path("environment").exists());
}
