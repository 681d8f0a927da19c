//! Flag over environment over file over default, and what stops the start.

use std::path::Path;

use serde_json::json;

use crate::program::{Outcome, command, run, write};
use crate::service::{Service, accepted, ok};

fn images_from(service: &Service) {
    service.on("GET ", [ok(json!({"images": [], "next_token": null}))]);
}

fn with_file(text: &str, check: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("ciab/config.toml"), text);
    check(folder.path());
}

fn list(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Outcome {
    let arguments: Vec<&str> = ["image", "list"].iter().chain(arguments).copied().collect();
    run(command(&arguments).env("XDG_CONFIG_HOME", folder).envs(variables.iter().copied()))
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let (by_file, by_environment, by_flag) = (Service::start(), Service::start(), Service::start());
    [&by_file, &by_environment, &by_flag].into_iter().for_each(images_from);
    let text = format!("server_url = \"{}\"\napi_key = \"key-of-file\"\noutput = \"json\"\n", by_file.url());
    with_file(&text, |folder| {
        let outcome = list(folder, &[], &[]);
        assert_eq!(outcome.exited(0).json(), json!({"images": [], "next_token": null}));
        assert_eq!(by_file.seen()[0].headers["authorization"], "Bearer key-of-file");

        let environment =
            [("CIAB_SERVER_URL", by_environment.url()), ("CIAB_API_KEY", "key-of-environment".to_owned())];
        let environment: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        list(folder, &[], &environment).exited(0);
        assert_eq!(by_environment.seen()[0].headers["authorization"], "Bearer key-of-environment");

        let flags = ["--server-url", &by_flag.url(), "--api-key", "key-of-flag", "--output", "yaml"];
        let outcome = list(folder, &flags, &environment);
        assert_eq!(outcome.exited(0).stdout, "images: []\nnext_token: null\n");
        assert_eq!(by_flag.seen()[0].headers["authorization"], "Bearer key-of-flag");
    });
    assert_eq!((by_file.seen().len(), by_environment.seen().len(), by_flag.seen().len()), (1, 1, 1));
}

#[test]
fn the_packer_table_gives_defaults_to_requests() {
    let service = Service::start();
    service.on("POST /build", [accepted()]);
    service.on("GET ?region=eu-west-1", [ok(json!({"images": [], "next_token": null}))]);
    images_from(&service);
    let text = "[packer]\ndefault_region = \"eu-west-1\"\nbuild_timeout_secs = 600\nbuild_subnet_id = \"\"\n";
    with_file(text, |folder| {
        let url = service.url();
        let environment = [("CIAB_SERVER_URL", url.as_str())];
        list(folder, &[], &environment).exited(0).says("hint: no images in eu-west-1");
        list(folder, &["--region", ""], &environment).exited(0);
        run(command(&["image", "build"]).env("XDG_CONFIG_HOME", folder).envs(environment)).exited(0);
    });
    assert_eq!(service.targets(), ["GET ?region=eu-west-1", "GET ", "POST /build"]);
    let sent = &service.seen()[2].body;
    assert_eq!(*sent, json!({"provider": "claude-code", "region": "eu-west-1", "timeout_secs": 600}));
}

#[test]
fn unknown_keys_stop_the_start_and_are_named() {
    with_file("sever_url = \"x\"\n[packer]\nregion = \"y\"\n", |folder| {
        let outcome = list(folder, &[], &[]);
        outcome.exited(2).says("unknown key `sever_url`, `packer.region`; known are").says("config.toml");
    });
}

#[test]
fn a_broken_file_does_not_give_the_key_away() {
    with_file("api_key = hunter2\n", |folder| {
        let outcome = list(folder, &[], &[]);
        outcome.exited(2).says("line 1 is not TOML");
        assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
    });
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    run(&mut command(&["image", "list", "--config", "/no/such/config.toml"]))
        .exited(2)
        .says("can't read the configuration /no/such/config.toml");
}

#[test]
fn an_impossible_address_is_refused() {
    let outcome = run(&mut command(&["image", "list", "--server-url", "http://me:hunter2@localhost"]));
    outcome.exited(2).says("must not hold a user name or password");
    assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
}
