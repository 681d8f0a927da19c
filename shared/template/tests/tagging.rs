//! What templates look like once tagged, and whether the real Packer still takes them.
//!
//! Every folder of `templates/` is a template that knows nothing of this project. What it becomes is kept as a snapshot.

#![expect(clippy::unwrap_used, reason = "a test stops where its own set-up fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ciab_template::{Bundle, PackerVersion, TagOptions, TemplateError, TemplateForm, builtin, read, tag};

const OLD: PackerVersion = PackerVersion { major: 1, minor: 6, patch: 6 };
const NEW: PackerVersion = PackerVersion { major: 1, minor: 11, patch: 2 };

fn options(packer_version: PackerVersion) -> TagOptions {
    let tags = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
    };
    TagOptions {
        tags: tags(&[("ciab:build-id", "0e7f"), ("ciab:stack", "ciab-local")]),
        image_tags: tags(&[("Cost ${center}", "a \"b\" \\ %{c}")]),
        packer_version,
        endpoint: Some("http://127.0.0.1:9/".to_owned()),
        temporary_key_pair_name: Some("ciab-0e7f".to_owned()),
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates")
}

fn templates() -> Vec<(String, Bundle)> {
    let mut names: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), load(&folder().join(name)))).collect()
}

fn load(root: &Path) -> Bundle {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let relative = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.push((relative, fs::read(&path).unwrap()));
            }
        }
    }
    Bundle::from_files(files).unwrap()
}

fn is_for_newer_packer(name: &str) -> bool {
    name.starts_with("newer-")
}

fn version_for(name: &str) -> PackerVersion {
    if is_for_newer_packer(name) { NEW } else { OLD }
}

fn shown(bundle: &Bundle) -> String {
    bundle
        .files()
        .filter(|(path, _)| path.ends_with(".hcl") || path.ends_with(".json"))
        .map(|(path, bytes)| format!("== {path}\n{}", std::str::from_utf8(bytes).unwrap().replace('\r', "␍")))
        .collect()
}

#[test]
fn every_template_becomes_what_was_reviewed() {
    for (name, bundle) in templates() {
        let tagged =
            tag(&bundle, &options(version_for(&name))).unwrap_or_else(|error| panic!("{name}: {error}"));
        insta::assert_snapshot!(name, shown(&tagged));
    }
}

#[test]
fn tagging_twice_is_tagging_once() {
    for (name, bundle) in templates() {
        for version in [OLD, NEW] {
            let once = tag(&bundle, &options(version)).unwrap();
            let twice = tag(&once, &options(version)).unwrap();
            assert_eq!(shown(&once), shown(&twice), "{name}");
        }
    }
}

#[test]
fn nothing_but_templates_at_the_top_is_touched() {
    for (name, bundle) in templates() {
        let tagged = tag(&bundle, &options(NEW)).unwrap();
        for (path, bytes) in bundle.files() {
            let is_template = match bundle.form().unwrap() {
                TemplateForm::Hcl2 => path.ends_with(".pkr.hcl") || path.ends_with(".pkr.json"),
                TemplateForm::Legacy { file } => path == file,
            };
            if path.contains('/') || !is_template {
                assert_eq!(tagged.get(path), Some(bytes), "{name}/{path}");
            }
        }
    }
}

#[test]
fn the_real_packer_takes_every_tagged_template() {
    for (name, bundle) in templates() {
        if is_for_newer_packer(&name) {
            continue;
        }
        let tagged = tag(&bundle, &options(OLD)).unwrap();
        validate(&name, &tagged);
    }
}

#[test]
fn the_real_packer_takes_the_builtin_template() {
    let bundle = builtin("default-ec2").unwrap();
    let tagged = tag(&bundle, &options(OLD)).unwrap();
    validate("default-ec2", &tagged);
}

#[test]
fn without_an_endpoint_no_endpoint_is_written() {
    let bundle = builtin("default-ec2").unwrap();
    let without = TagOptions { endpoint: None, ..options(NEW) };
    let tagged = shown(&tag(&bundle, &without).unwrap());
    assert!(!tagged.contains("custom_endpoint_ec2") && !tagged.contains("skip_metadata_api_check"));
}

fn validate(name: &str, bundle: &Bundle) {
    let packer = std::env::var_os("CIAB_TEST_PACKER")
        .expect("CIAB_TEST_PACKER names the Packer to test with: run `cargo xtask test`, which sets it");
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in bundle.files() {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let summary = read(bundle).unwrap();
    let mut command = Command::new(packer);
    command.arg("validate");
    for variable in summary.variables.iter().filter(|variable| !variable.has_default) {
        let value = if variable.name == "provider" { "claude-code" } else { "t3.micro" };
        command.arg(format!("-var={}={value}", variable.name));
    }
    let template = match bundle.form().unwrap() {
        TemplateForm::Hcl2 => ".".to_owned(),
        TemplateForm::Legacy { file } => file,
    };
    let output = command
        .arg(template)
        .current_dir(folder.path())
        .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("CHECKPOINT_DISABLE", "1")])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{name}: {}{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        shown(bundle)
    );
}

fn refusal(files: &[(&str, &str)]) -> TemplateError {
    tag(&Bundle::from_files(files.iter().copied()).unwrap(), &options(OLD)).unwrap_err()
}

#[test]
fn a_template_without_an_amazon_source_is_refused_with_what_it_has() {
    let error = refusal(&[("a.pkr.hcl", "source \"null\" \"x\" {}\nsource \"docker\" \"y\" {}\n")]);
    assert_eq!(
        error.to_string(),
        "the template has no Amazon source (amazon-ebs, amazon-ebssurrogate, amazon-ebsvolume, amazon-chroot, \
         amazon-instance); it has null.x, docker.y"
    );
}

#[test]
fn a_bundle_without_a_template_is_refused_with_what_it_has() {
    let error = refusal(&[("inner/a.pkr.hcl", ""), ("README.md", "")]);
    assert_eq!(
        error.to_string(),
        "the template has no `.pkr.hcl` or `.pkr.json` file and no JSON file with `builders` at its top level, where \
         Packer looks for it; it has README.md, inner/a.pkr.hcl"
    );
}

#[test]
fn a_syntax_error_is_said_with_file_line_and_column_on_one_line() {
    let error = refusal(&[("a.pkr.hcl", "source \"amazon-ebs\" \"x\" {\n  ami_name = = 1\n}\n")]);
    assert!(matches!(&error, TemplateError::Syntax { line: 2, column: 14, .. }), "{error:?}");
    assert!(error.to_string().starts_with("a.pkr.hcl:2:14: "), "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
}

#[test]
fn an_attribute_that_would_have_to_stand_in_two_places_is_refused_with_the_way_out() {
    let error = refusal(&[(
        "a.pkr.hcl",
        "source \"amazon-ebs\" \"x\" {}\nbuild {\n  sources = [\"amazon-ebs.x\"]\n}\nbuild {\n  source \
         \"amazon-ebs.x\" {\n    run_tags = {}\n  }\n}\n",
    )]);
    assert!(
        matches!(&error, TemplateError::SplitAttribute { line: 6, attribute, .. } if attribute == "run_tags"),
        "{error:?}"
    );
}

#[test]
fn a_tag_that_packer_would_run_as_code_is_refused() {
    let mut options = options(NEW);
    options.image_tags.insert("Name".into(), "{{env `AWS_SECRET_ACCESS_KEY`}}".into());
    let error = tag(&builtin("default-ec2").unwrap(), &options).unwrap_err();
    assert!(matches!(error, TemplateError::Tag(_)), "{error:?}");
}

#[test]
fn a_template_says_what_it_declares() {
    let summary = read(&load(&folder().join("several-files"))).unwrap();
    assert_eq!(summary.required_versions, [">= 1.6.0"]);
    let plugins: Vec<_> = summary.required_plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    assert_eq!(plugins, ["shell", "amazon"]);
    let [source] = summary.sources.as_slice() else { panic!("{:?}", summary.sources) };
    assert_eq!((source.kind.as_str(), source.name.as_str(), source.line), ("amazon-ebs", "base", 1));
    assert!(source.is_amazon && source.file == "source.pkr.hcl");
    let [region, secret] = summary.variables.as_slice() else { panic!("{:?}", summary.variables) };
    assert!(region.has_default, "its own variable file sets it");
    assert_eq!(region.description.as_deref(), Some("Where to build."));
    assert!(secret.sensitive && secret.type_text.as_deref() == Some("string"));
}

#[test]
fn a_packer_version_is_read_as_packer_says_it() {
    assert_eq!("1.6.6".parse(), Ok(OLD));
    assert_eq!("v1.11.2".parse(), Ok(NEW));
    assert_eq!("1.12.0-dev".parse(), Ok(PackerVersion { major: 1, minor: 12, patch: 0 }));
    for wrong in ["", "1.6", "1.6.6.6", "latest"] {
        assert!(wrong.parse::<PackerVersion>().is_err(), "{wrong}");
    }
}
