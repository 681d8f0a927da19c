//! What the real Packer says to generated templates, before and after tagging.

use std::path::Path;
use std::process::Command;

use ciab_template::{Bundle, tag};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::json::Form;
use crate::{hcl, json, options};

/// Each takes Packer about 0.2 s, before and after.
const OF_EACH_FORM: usize = 12;

#[test]
fn what_packer_takes_it_takes_tagged() {
    let mut runner = TestRunner::deterministic();
    let mut generated: Vec<(&str, String)> = Vec::new();
    for _ in 0..OF_EACH_FORM {
        generated.push(("a.pkr.hcl", hcl::template().new_tree(&mut runner).unwrap().current()));
        for form in [Form::Hcl2, Form::Legacy] {
            generated.push((form.file(), json::template(form).new_tree(&mut runner).unwrap().current()));
        }
    }
    let mut taken = 0;
    for (file, text) in generated {
        if packer_refuses(file, text.as_bytes()).is_some() {
            continue;
        }
        taken += 1;
        let bundle = Bundle::from_files([(file, text.as_str())]).unwrap();
        let tagged = tag(&bundle, &options(true)).unwrap();
        let tagged = tagged.get(file).unwrap();
        if let Some(said) = packer_refuses(file, tagged) {
            panic!("{said}\n{}", String::from_utf8_lossy(tagged));
        }
    }
    assert!(taken > OF_EACH_FORM * 2, "Packer takes too few of what is generated to show anything: {taken}");
}

/// What Packer has against the syntax of a template.
fn packer_refuses(file: &str, text: &[u8]) -> Option<String> {
    let packer = std::env::var_os("CIAB_TEST_PACKER")
        .expect("CIAB_TEST_PACKER names the Packer to test with: run `cargo xtask test`, which sets it");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(file), text).unwrap();
    let legacy = !Path::new(file).file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with(".pkr"));
    let output = Command::new(packer)
        .args(["validate", "-syntax-only", if legacy { file } else { "." }])
        .current_dir(folder.path())
        .env("CHECKPOINT_DISABLE", "1")
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (!output.status.success()).then_some(said)
}
