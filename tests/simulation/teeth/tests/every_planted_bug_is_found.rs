//! That the simulation has teeth: with each planted bug, some of its worlds are not as they must be.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ciab_core::bugs::{BUGS, Bug, OF_ADAPTERS};
use ciab_core::planted::plant;
use teeth::{Options, run};

/// How many worlds a bug may hide in.
const SEEDS: u64 = 10_000;

/// The first world in which the bug shows, and how.
fn found(bug: &Bug) -> Option<(u64, String)> {
    let planted = bug.changes.is_empty().then_some(bug.name);
    plant(planted.is_none().then_some(bug.name));
    let found = (0..SEEDS).find_map(|seed| {
        let life = run(seed, Options { planted, ..Options::default() });
        Some((seed, life.violation?))
    });
    plant(None);
    found
}

#[test]
fn every_planted_bug_is_found() {
    let bugs: Vec<&Bug> = BUGS.iter().chain(OF_ADAPTERS).collect();
    assert!(bugs.len() >= 20);
    let (next, hidden) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match found(bug) {
                        Some((seed, violation)) => eprintln!("{}: seed {seed}: {violation}", bug.name),
                        None => {
                            hidden.lock().unwrap().insert(bug.name, bug.breaks);
                        }
                    }
                }
            });
        }
    });
    let hidden = hidden.into_inner().unwrap();
    assert!(hidden.is_empty(), "not found within {SEEDS} worlds: {hidden:#?}");
}

#[test]
fn without_a_planted_bug_the_same_worlds_hold() {
    for seed in 0..100 {
        let life = run(seed, Options::default());
        assert_eq!(life.violation, None, "seed {seed}");
    }
}

#[test]
fn nothing_but_this_crate_knows_of_the_planted_bugs() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let mut folders = vec![
        root.join("cli"),
        root.join("functions"),
        root.join("local"),
        root.join("runner"),
        root.join("shared"),
    ];
    let mut manifests = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("Cargo.toml") {
                manifests += 1;
                let manifest = std::fs::read_to_string(&path).unwrap();
                assert!(!manifest.contains("with-bugs"), "{}", path.display());
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                assert!(!std::fs::read_to_string(&path).unwrap().contains("planted"), "{}", path.display());
            }
        }
    }
    assert!(manifests > 10);
}
