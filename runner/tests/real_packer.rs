//! Whole builds with the real Packer, as far as it goes without a cloud: its own words for errors, its process tree.

mod world;

use std::collections::BTreeSet;
use std::path::PathBuf;

use ciab_core::ledger::Ledger;
use ciab_runner::stop::StopReason;
use world::{World, until};

/// The real Packer that `cargo xtask test` provides.
fn real_packer() -> PathBuf {
    std::env::var_os("CIAB_TEST_PACKER")
        .expect("CIAB_TEST_PACKER must name the real Packer: run the tests with `cargo xtask test`")
        .into()
}

fn world(template: &str, variables: &str) -> World {
    let folder = tempfile::tempdir().expect("a folder for the test");
    World::with_packer(folder, real_packer(), &[("build.pkr.hcl", template)], variables)
}

fn with_provisioner(inline: &str) -> String {
    format!(
        r#"
source "null" "n" {{
  communicator = "none"
}}
variable "password" {{
  type      = string
  sensitive = true
  default   = "hunter2hunter2"
}}
build {{
  sources = ["source.null.n"]
  provisioner "shell-local" {{
    inline = [{inline}]
  }}
}}
"#
    )
}

#[tokio::test]
async fn a_template_with_a_syntax_error_is_invalid_in_packers_own_words() {
    let world = world("source \"null\" \"n\" {\n  communicator =\n}\n", "{}");
    world.run().await;
    let (name, failure) = world.failure();
    assert_eq!(name, "TemplateInvalid");
    assert!(
        failure.message.starts_with("Invalid expression (on build.pkr.hcl line 2"),
        "{}",
        failure.message
    );
    assert_eq!(failure.step.as_deref(), Some("packer validate"));
    assert!(world.objects.log_text().contains("Invalid expression"));
}

#[tokio::test]
async fn a_variable_without_a_value_makes_the_template_invalid() {
    let world = world(
        &with_provisioner("var.needed")
            .replace("hunter2hunter2\"", "x\"\n}\nvariable \"needed\" {\n type = string"),
        "{}",
    );
    world.run().await;
    let (name, failure) = world.failure();
    assert_eq!(name, "TemplateInvalid");
    assert!(failure.message.contains("Unset variable \"needed\""), "{}", failure.message);
}

#[tokio::test]
async fn a_failing_provisioner_is_told_with_its_output() {
    let world = world(&with_provisioner(r#""echo one, two", "echo oops >&2", "exit 3""#), "{}");
    world.run().await;
    let (name, failure) = world.failure();
    assert_eq!(name, "PackerFailed");
    assert!(failure.message.contains("non-zero exit status: 3"), "{}", failure.message);
    assert!(failure.step.as_deref().unwrap().starts_with("Running local shell script"), "{:?}", failure.step);
    assert!(failure.last_log_lines.contains(&"one, two".to_owned()), "{:?}", failure.last_log_lines);
    assert!(failure.last_log_lines.contains(&"oops".to_owned()), "{:?}", failure.last_log_lines);
}

#[tokio::test]
async fn a_sensitive_variable_is_masked_though_packer_shows_it() {
    let world = world(&with_provisioner(r#""echo the ${var.password} and ${var.password}""#), "{}");
    world.run().await;
    let log = world.objects.log_text();
    assert!(log.contains("the <sensitive> and <sensitive>"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
}

#[tokio::test]
async fn a_build_of_no_image_is_no_success() {
    let world = world(&with_provisioner(r#""true""#), "{}");
    world.run().await;
    let (name, failure) = world.failure();
    assert_eq!(name, "PackerFailed");
    assert!(failure.message.contains("made no AMI"), "{}", failure.message);
}

#[tokio::test]
async fn at_the_deadline_packer_is_cancelled_and_nothing_of_its_tree_stays() {
    let world = world(&with_provisioner(r#""touch $PACKER_TEST_FOLDER/started; sleep 1000""#), "{}");
    let stopper = async {
        until("the provisioner", || world.path("started").exists()).await;
        world.switch.stop(StopReason::Deadline);
    };
    // `run` checks that no process is left.
    tokio::join!(world.run(), stopper);
    assert_eq!(world.failure().0, "BuildTimedOut");
    assert!(world.objects.log_text().contains("Cancelling build after receiving terminated"));
}

#[tokio::test]
async fn of_two_builds_that_fail_the_first_is_told_and_the_other_named() {
    let template = r#"
source "null" "first" {
  communicator = "none"
}
source "null" "second" {
  communicator = "none"
}
build {
  sources = ["source.null.first", "source.null.second"]
  provisioner "shell-local" {
    only   = ["null.first"]
    inline = ["echo one >&2", "exit 3"]
  }
  provisioner "shell-local" {
    only   = ["null.second"]
    inline = ["while [ ! -e $PACKER_TEST_FOLDER/go ]; do sleep 0.05; done", "exit 4"]
  }
}
"#;
    let world = world(template, "{}");
    let watcher = async {
        until("the first to fail", || world.objects.log_text().contains("Build 'null.first' errored")).await;
        std::fs::write(world.path("go"), "").expect("the file can be written");
    };
    tokio::join!(world.run(), watcher);
    let (name, failure) = world.failure();
    assert_eq!(name, "PackerFailed");
    assert!(
        failure.message.starts_with("null.first: Script exited with non-zero exit status: 3"),
        "{}",
        failure.message
    );
    assert!(failure.message.ends_with("(also failed: null.second)"), "{}", failure.message);
    assert!(failure.last_log_lines.contains(&"one".to_owned()), "{:?}", failure.last_log_lines);
    let ledger: Ledger =
        serde_json::from_value(world.objects.json("ledger.json").expect("a ledger")).expect("a ledger");
    assert_eq!(ledger.begun, ["null.first".to_owned(), "null.second".to_owned()].into());
    assert_eq!(ledger.provisioned, BTreeSet::new());
}

#[tokio::test]
async fn a_post_processor_that_fails_is_the_step_that_failed() {
    // The null builder makes an artifact too.
    let template = with_provisioner(r#""true""#).trim_end().trim_end_matches('}').to_owned()
        + "  post-processor \"shell-local\" {\n    inline = [\"echo checking\", \"exit 5\"]\n  }\n}\n";
    let world = world(&template, "{}");
    world.run().await;
    let (name, failure) = world.failure();
    assert_eq!(name, "PackerFailed");
    assert!(
        failure.message.starts_with("Post-processor failed: Script exited with non-zero exit status: 5"),
        "{}",
        failure.message
    );
    assert_eq!(failure.step.as_deref(), Some("Running post-processor: shell-local"));
    assert!(failure.last_log_lines.contains(&"checking".to_owned()), "{:?}", failure.last_log_lines);
}

#[tokio::test]
async fn a_plugin_that_is_killed_is_told_as_a_crash() {
    // The script's group is Packer's own: the builder's plugin in it is ended by its process id.
    let kill = r#""for p in /proc/[0-9]*; do case \"$(tr '\\0' ' ' < $p/cmdline 2>/dev/null)\" in *'plugin packer-builder-null'*) [ \"$(cut -d' ' -f5 $p/stat)\" = \"$(cut -d' ' -f5 /proc/$$/stat)\" ] && kill -9 $${p#/proc/};; esac; done; sleep 1""#;
    let world = world(&with_provisioner(kill), "{}");
    world.run().await;
    let (name, failure) = world.failure();
    assert_eq!(name, "PackerFailed");
    assert!(failure.message.starts_with("A plugin of Packer's crashed: "), "{}", failure.message);
    assert!(failure.step.as_deref().is_some_and(|step| step.starts_with("Running local shell script")));
}
