//! Every program that is deployed links one and the same AWS SDK: built one by one, as `sam build` does, they ask for one set of
//! features of everything that several of them have.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// The features of all that a package is built of, other than the workspace's own, by name and version.
fn features(package: &str) -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let arguments = ["tree", "--locked", "--offline", "--edges", "normal,build", "--prefix", "none"];
    let printed = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--format", "{p};{f}", "--package", package])
        .current_dir(root)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&printed.stderr);
    assert!(printed.status.success(), "{package}: {error}");
    let lines = String::from_utf8(printed.stdout).unwrap();
    lines
        .lines()
        .filter_map(|line| line.trim_end_matches(" (*)").split_once(';'))
        .filter(|(name, _)| !name.contains(" (/"))
        .map(|(name, features)| (name.to_owned(), features.to_owned()))
        .collect()
}

#[test]
fn all_programs_link_one_sdk() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../functions");
    let mut programs: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .chain(["ciab-runner".to_owned()])
        .collect();
    programs.sort();
    let mut known: BTreeMap<String, (String, String)> = BTreeMap::new();
    for program in programs {
        let features = features(&program);
        assert!(features.keys().any(|name| name.starts_with("aws-sdk-ec2 ")), "{program}: {features:?}");
        for (name, features) in features {
            let (first, expected) =
                known.entry(name.clone()).or_insert_with(|| (program.clone(), features.clone()));
            assert_eq!(
                features, *expected,
                "{name} differs between {program} and {first}: see shared/features"
            );
        }
    }
}
