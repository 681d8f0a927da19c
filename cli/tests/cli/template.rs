//! `ciab template check` and `upload`, and builds from a folder of this machine.

use std::path::Path;

use ciab_template::{Bundle, UnpackLimits};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::program::{Outcome, ciab, command, run, write};
use crate::service::{Answer, Seen, Service, accepted, ok};

const TEMPLATE: &str = "\
variable \"name\" {
  type        = string
  description = \"The image's name.\"
}

variable \"sizes\" {
  type      = list(number)
  default   = [1]
  sensitive = true
}

source \"amazon-ebs\" \"image\" {
  ami_name = var.name
}

build {
  sources = [\"source.amazon-ebs.image\"]
}
";

const LOCAL: &str = "
build {
  provisioner \"shell-local\" {
    inline = [\"id\"]
  }
}
";

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        write(&folder.path().join(path), text);
    }
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Without any service to ask.
fn check(path: &Path, more: &[&str]) -> Outcome {
    let mut arguments = vec!["template", "check", text(path)];
    arguments.extend(more);
    run(&mut command(&arguments))
}

/// The name and bytes of each part of a form, in their order.
fn parts(seen: &Seen) -> Vec<(String, Vec<u8>)> {
    let kind = seen.headers["content-type"].to_str().unwrap();
    let boundary = format!("--{}", kind.strip_prefix("multipart/form-data; boundary=").unwrap());
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|window| window == what);
    let mut rest = &seen.bytes[..];
    let mut parts = Vec::new();
    while let Some(at) = find(rest, boundary.as_bytes()) {
        rest = &rest[at + boundary.len()..];
        let Some(headers) = find(rest, b"\r\n\r\n") else { break };
        let named = String::from_utf8_lossy(&rest[..headers]).into_owned();
        let name = named.split("name=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let end = find(&rest[headers..], format!("\r\n{boundary}").as_bytes()).unwrap() + headers;
        parts.push((name, rest[headers + 4..end].to_vec()));
        rest = &rest[end..];
    }
    parts
}

/// A service that asks for an upload to the store, and is told what to expect when it is asked.
fn wanting(store: &Service, sha256: &str) -> Service {
    let service = Service::start();
    // As text: the order of a form's fields counts, and a map would sort them.
    let answer = format!(
        r#"{{"template_source": "template://sha256:{sha256}", "upload": {{"url": "{}/bucket", "fields": {{"key":
            "templates/{sha256}", "x-amz-date": "20260325T143000Z", "policy": "cG9saWN5", "a": "last"}},
            "expires_at": "2026-03-25T14:45:00Z"}}}}"#,
        store.url()
    );
    service.on("POST /templates", [Answer::Raw(200, Vec::new(), answer)]);
    service
}

/// What the command packs of a folder: found out as the service would, by the bytes that it is sent.
fn packed(folder: &Path) -> (Vec<u8>, String) {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    });
    let bytes = Bundle::from_files(files).unwrap().to_tar_gz("", &[]).unwrap();
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    (bytes, sha256)
}

#[test]
fn a_good_template_is_shown_with_what_it_declares() {
    let folder = folder(&[("image.pkr.hcl", TEMPLATE)]);
    let outcome = check(&folder.path().join("image.pkr.hcl"), &[]);
    outcome.exited(0);
    assert_eq!(outcome.stderr, "");
    for line in [
        "Accepted:   yes\n",
        "amazon-ebs.image          image.pkr.hcl:12\n",
        "name                  string        yes       no         The image's name.\n",
        "sizes                 list(number)  no        yes        --\n",
    ] {
        assert!(outcome.stdout.contains(line), "{line:?} is not in {}", outcome.stdout);
    }
}

#[test]
fn machines_get_the_same_as_one_document() {
    let folder = folder(&[("image.pkr.hcl", TEMPLATE), ("scripts/a.sh", "")]);
    let document = check(folder.path(), &["--output", "json"]).exited(0).json();
    assert_eq!(document["accepted"], json!(true));
    assert_eq!(document["files"], json!(2));
    assert_eq!(
        document["sources"],
        json!([{"type": "amazon-ebs", "name": "image", "amazon": true, "file": "image.pkr.hcl", "line": 12}])
    );
    assert_eq!(
        document["variables"][0],
        json!({"name": "name", "type": "string", "has_default": false, "sensitive": false,
               "description": "The image's name.", "file": "image.pkr.hcl", "line": 1})
    );
    assert_eq!(document["variables"][1]["sensitive"], json!(true));
    assert_eq!((&document["refused"], &document["local_execution"]), (&json!([]), &json!([])));
    assert_eq!(document.get("tagged"), None);
    let yaml = check(folder.path(), &["--output", "yaml"]);
    assert!(yaml.exited(0).stdout.contains("accepted: true\n"), "{}", yaml.stdout);
}

#[test]
fn what_the_service_would_refuse_exits_1_and_says_why() {
    for (name, content, reason) in [
        ("a.pkr.hcl", "source \"amazon-ebs\" {\n  a = \n}\n", "a.pkr.hcl:2:"),
        ("a.pkr.hcl", "source \"docker\" \"x\" {}\n", "the template has no Amazon source"),
        ("notes.txt", "x", "`notes.txt` is no template that can be used"),
        ("a.zip", "x", "`a.zip` is not the zip archive that its name says"),
    ] {
        let folder = folder(&[(name, content)]);
        check(&folder.path().join(name), &[]).exited(1).says("error: ").says(reason);
    }
    let broken = folder(&[("a.pkr.hcl", "x {")]);
    let outcome = check(broken.path(), &["--output", "json"]);
    let document = outcome.exited(1).json();
    assert_eq!(document["accepted"], json!(false));
    assert_eq!(document["refused"].as_array().unwrap().len(), 1, "{document}");
}

#[test]
fn what_runs_on_the_runner_is_only_told_of_an_uploaded_template_and_refused_of_a_fetched_one() {
    let folder = folder(&[("a.pkr.hcl", TEMPLATE), ("b.pkr.hcl", LOCAL)]);
    let finding = "b.pkr.hcl:3: provisioner \"shell-local\" runs on the runner";
    let outcome = check(folder.path(), &[]);
    outcome.exited(0).says(finding).says("hint: a template that is uploaded may run on the runner unless");
    let outcome = check(folder.path(), &["--fetched", "--output", "json"]);
    let document = outcome.exited(1).says(finding).json();
    assert_eq!(document["refused"], json!([finding]));
    assert_eq!(document["local_execution"][0]["line"], json!(3));
}

#[test]
fn the_text_is_shown_as_it_would_be_built_with_placeholders() {
    let folder = folder(&[("a.pkr.hcl", TEMPLATE)]);
    let outcome = check(folder.path(), &["--tagged"]);
    let tagged = &outcome.exited(0).stdout;
    assert!(tagged.starts_with("variable \"name\" {\n"), "{tagged}");
    assert!(tagged.contains("\"ciab:build-id\""), "{tagged}");
    assert!(tagged.contains("\"00000000-0000-0000-0000-000000000000\""), "{tagged}");
    let document = check(folder.path(), &["--tagged", "--output", "json"]).exited(0).json();
    assert_eq!(document["tagged"]["a.pkr.hcl"].as_str().unwrap(), tagged);

    write(&folder.path().join("b.pkr.hcl"), "locals {\n  x = 1\n}\n");
    let several = check(folder.path(), &["--tagged"]).exited(0).stdout.clone();
    assert!(several.starts_with("# a.pkr.hcl\n\nvariable"), "{several}");
    assert!(several.contains("\n# b.pkr.hcl\n\nlocals"), "{several}");
}

#[test]
fn variables_are_checked_where_some_are_given() {
    let folder = folder(&[
        ("a.pkr.hcl", TEMPLATE),
        ("good.pkrvars.hcl", "name  = \"x\"\nsizes = [1, 2]\n"),
        ("good.json", r#"{"name": "x"}"#),
        ("wrong.pkrvars.hcl", "name = \"x\"\nsizes = \"s3cret\"\n"),
        ("code.pkrvars.hcl", "name = env(\"X\")\n"),
    ]);
    let template = folder.path().join("a.pkr.hcl");
    let with = |option: &str, value: &str| {
        let path = folder.path().join(value);
        check(&template, &[option, if option == "--var" { value } else { text(&path) }])
    };
    with("--var", "name=x").exited(0);
    with("--var-file", "good.pkrvars.hcl").exited(0);
    with("--var-file", "good.json").exited(0);
    with("--var", "typo=s3cret")
        .exited(1)
        .says("unknown variables: typo; required variables that are missing: name");
    let outcome = with("--var-file", "wrong.pkrvars.hcl");
    outcome.exited(1).says("variables of the wrong type: sizes (list(number))");
    assert!(!outcome.stderr.contains("s3cret"), "{}", outcome.stderr);
    with("--var-file", "code.pkrvars.hcl").exited(2).says("code.pkrvars.hcl:1: a variable file takes values");
    with("--var", "no-equals-sign").exited(2);
}

#[test]
fn a_path_without_anything_is_wrong_usage() {
    let outcome = run(&mut command(&["template", "check", "no-such-thing"]));
    outcome.exited(2).says("no-such-thing is neither a file nor a folder");
    run(&mut command(&["template", "check"])).exited(2);
}

#[test]
fn a_folder_is_uploaded_without_the_key_and_built_by_its_digest() {
    let folder = folder(&[("a.pkr.hcl", TEMPLATE), (".gitignore", "*.log\n")]);
    let (bytes, sha256) = packed(folder.path());
    write(&folder.path().join("b.log"), "x");
    let store = Service::start();
    store.on("POST /bucket", [Answer::Json(204, json!(null))]);
    let service = wanting(&store, &sha256);
    service.on("POST /build", [accepted()]);
    ciab(&service, &["image", "build", "--template", text(folder.path())]).exited(0);

    assert_eq!(service.targets(), ["POST /templates", "POST /build"]);
    let seen = service.seen();
    assert_eq!(seen[0].body, json!({"sha256": sha256, "size": bytes.len()}));
    assert_eq!(
        seen[1].body,
        json!({"provider": "claude-code", "template_source": format!("template://sha256:{sha256}")})
    );
    let stored = &store.seen()[0];
    assert_eq!(stored.headers.get("authorization"), None);
    assert!(!stored.bytes.windows(15).any(|window| window == b"a-key-for-tests"));
    assert_eq!(stored.headers["content-length"].to_str().unwrap(), stored.bytes.len().to_string());
    let parts = parts(stored);
    let names: Vec<_> = parts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["key", "x-amz-date", "policy", "a", "file"]);
    assert_eq!(parts[0].1, format!("templates/{sha256}").into_bytes());
    assert_eq!(parts[4].1, bytes);
    let bundle = Bundle::from_download("x.tar.gz", &parts[4].1, UnpackLimits::default()).unwrap();
    assert_eq!(bundle.get("a.pkr.hcl"), Some(TEMPLATE.as_bytes()));
    assert_eq!(bundle.get("b.log"), None);
}

#[test]
fn what_the_service_has_already_is_not_sent_again() {
    let folder = folder(&[("a.pkr.hcl", TEMPLATE)]);
    let (_, sha256) = packed(folder.path());
    let source = format!("template://sha256:{sha256}");
    let service = Service::start();
    service.on("POST /templates", [ok(json!({"template_source": source, "upload": null}))]);
    let outcome = ciab(&service, &["template", "upload", text(folder.path())]);
    outcome.exited(0).says(&format!("hint: `ciab image build --template {source}` builds it"));
    assert_eq!(outcome.stdout, format!("{source}\n"));
    assert_eq!(service.targets(), ["POST /templates"]);
    let document =
        ciab(&service, &["template", "upload", text(folder.path()), "--output", "json"]).exited(0).json();
    assert_eq!(document["template_source"], json!(source));
}

#[test]
fn an_upload_that_breaks_off_is_tried_again_with_the_same_bytes() {
    let folder = folder(&[("a.pkr.hcl", TEMPLATE)]);
    let (bytes, sha256) = packed(folder.path());
    let store = Service::start();
    let slow_down = Answer::Raw(503, Vec::new(), "<Error><Code>SlowDown</Code></Error>".to_owned());
    store.on("POST /bucket", [Answer::Dropped, slow_down, Answer::Json(204, json!(null))]);
    ciab(&wanting(&store, &sha256), &["template", "upload", text(folder.path())]).exited(0);
    let seen = store.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| parts(seen).last().unwrap().1 == bytes));
}

#[test]
fn what_the_store_refuses_is_said_in_its_words_and_nothing_is_built() {
    let folder = folder(&[("a.pkr.hcl", TEMPLATE)]);
    let (_, sha256) = packed(folder.path());
    let store = Service::start();
    let refusal =
        "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Policy expired.</Message></Error>";
    store.on("POST /bucket", [Answer::Raw(403, Vec::new(), refusal.to_owned())]);
    let service = wanting(&store, &sha256);
    let outcome = ciab(&service, &["image", "build", "--template", text(folder.path())]);
    outcome.exited(5).says("it answered 403 (AccessDenied: Policy expired.)").says("hint: nothing was built");
    assert_eq!(store.seen().len(), 1);
    assert_eq!(service.targets(), ["POST /templates"]);
}

#[test]
fn an_upload_goes_where_the_service_says_and_not_on_from_there() {
    let folder = folder(&[("a.pkr.hcl", TEMPLATE)]);
    let (_, sha256) = packed(folder.path());
    let elsewhere = Service::start();
    let store = Service::start();
    let location = vec![("location", format!("{}/bucket", elsewhere.url()))];
    store.on("POST /bucket", [Answer::Raw(307, location, String::new())]);
    ciab(&wanting(&store, &sha256), &["template", "upload", text(folder.path())])
        .exited(5)
        .says("it answered 307");
    assert!(elsewhere.seen().is_empty());
}

#[test]
fn a_service_that_names_another_template_is_not_believed() {
    let folder = folder(&[("a.pkr.hcl", TEMPLATE)]);
    let service = Service::start();
    let other = format!("template://sha256:{}", "0".repeat(64));
    service.on("POST /templates", [ok(json!({"template_source": other, "upload": null}))]);
    ciab(&service, &["template", "upload", text(folder.path())]).exited(5).says("under another name");
}

#[test]
fn json_travels_inline_and_what_is_no_template_does_not_travel() {
    let folder =
        folder(&[("a.pkr.json", "{\"source\": {}}"), ("b.json", "{\"builders\": []}"), ("c.txt", "x")]);
    let service = Service::start();
    service.on("POST /build", [accepted()]);
    for name in ["a.pkr.json", "b.json"] {
        ciab(&service, &["image", "build", "--template", text(&folder.path().join(name))]).exited(0);
    }
    let sent: Vec<_> = service.seen().iter().map(|seen| seen.body["template"].clone()).collect();
    assert_eq!(
        sent,
        [
            json!({"type": "inline", "content": "{\"source\": {}}"}),
            json!({"type": "inline", "content": "{\"builders\": []}"})
        ]
    );
    ciab(&service, &["image", "build", "--template", text(&folder.path().join("c.txt"))])
        .exited(2)
        .says("`c.txt` is no template that can be used");
    assert_eq!(service.seen().len(), 2);
}
