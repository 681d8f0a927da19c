//! Copies `shared/core` and writes the planted bugs into the copy.
//!
//! A bug whose text is not there exactly once stops the build: then `shared/core` has changed, and `bugs.rs` must follow.

#[path = "bugs.rs"]
#[expect(dead_code, reason = "what a bug breaks is for people and for the test")]
mod bugs;

use std::path::{Path, PathBuf};
use std::{env, fs};

use bugs::{BUGS, Change};

fn main() {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("Cargo sets it"));
    let core = here.join("../../../shared/core/src");
    let copy = PathBuf::from(env::var("OUT_DIR").expect("Cargo sets it"));
    println!("cargo::rerun-if-changed={}", core.display());
    println!("cargo::rerun-if-changed={}", here.join("bugs.rs").display());

    let mut names = Vec::new();
    for entry in fs::read_dir(&core).expect("list shared/core/src") {
        let path = entry.expect("list shared/core/src").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8").to_owned();
        assert!(name.ends_with(".rs"), "{name}: shared/core/src has only files of Rust so far");
        let text = fs::read_to_string(&path).expect("read a file of shared/core");
        let text = with_bugs(&name, text);
        if name == "lib.rs" {
            fs::write(copy.join("core.rs"), root(&text, &copy)).expect("write the copy");
        } else {
            fs::write(copy.join(&name), text).expect("write the copy");
        }
        names.push(name);
    }
    for (bug, change) in BUGS.iter().flat_map(|bug| bug.changes.iter().map(move |change| (bug, change))) {
        assert!(names.iter().any(|name| name == change.file), "{}: there is no {}", bug.name, change.file);
    }
}

fn with_bugs(file: &str, mut text: String) -> String {
    for bug in BUGS {
        for Change { original, mutant, .. } in bug.changes.iter().filter(|change| change.file == file) {
            let found = text.matches(original).count();
            assert!(
                found == 1,
                "tests/simulation/core-with-bugs/bugs.rs: the bug `{}` changes a text that is in \
                 shared/core/src/{file} {found} times and not once:\n{original}",
                bug.name
            );
            assert!(mutant.contains("PLANTED"), "the bug `{}` cannot be switched off", bug.name);
            let switch = format!("crate::planted::is({:?})", bug.name);
            text = text.replacen(original, &mutant.replace("PLANTED", &switch), 1);
        }
    }
    text
}

/// The crate's root, to be included: what stands at the head of a file cannot be, and modules are where the copy is.
fn root(text: &str, copy: &Path) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("//!") && !line.starts_with("#!["));
    let module = |line: &str| {
        let name = line.strip_prefix("pub mod ")?.strip_suffix(';')?;
        Some(format!("#[path = {:?}]\n{line}\n", copy.join(format!("{name}.rs"))))
    };
    lines.map(|line| module(line).unwrap_or_else(|| format!("{line}\n"))).collect()
}
