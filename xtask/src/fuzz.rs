//! `cargo xtask fuzz`: gives the readers of other people's text whatever a fuzzer comes up with.
//!
//! The targets are in `fuzz/`, which is a workspace of its own. What a run finds stays in `fuzz/artifacts/`; what it learned
//! stays in the target folder. Without a sanitizer: the readers have no unsafe code, and so any toolchain will do.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::setup::{self, CargoFuzz};
use crate::{progress, workspace};

const TARGETS: [Target; 4] = [
    Target { name: "template", seeds: "shared/template/tests/templates", forms: &TEMPLATES },
    Target { name: "source", seeds: "fuzz/seeds/source", forms: &[] },
    Target { name: "archive", seeds: "fuzz/seeds/archive", forms: &ARCHIVES },
    Target { name: "packer_output", seeds: "fuzz/seeds/packer_output", forms: &[] },
];

/// Ends of names, and the byte by which the target tells that form.
const TEMPLATES: [(&str, u8); 4] = [(".pkr.hcl", 0), (".pkr.json", 1), (".json", 2), (".pkrvars.hcl", 3)];
const ARCHIVES: [(&str, u8); 3] = [(".zip", 0), (".tar.gz", 1), (".tar", 2)];

/// A file larger than this is no good seed: it makes every run slow.
const LARGEST_SEED: u64 = 8 * 1024;

struct Target {
    name: &'static str,
    /// A folder of what to begin with.
    seeds: &'static str,
    /// Where it reads several forms, those, the first that fits; its input begins with a byte for the form.
    forms: &'static [(&'static str, u8)],
}

#[derive(Args)]
pub(crate) struct Options {
    /// Only this target; may be repeated
    #[arg(long = "target", value_name = "NAME")]
    targets: Vec<String>,
    /// How long each target runs, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    if let Some(unknown) = options.targets.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("there is no target `{unknown}`; there are {}", names.join(", "));
    }
    let cargo_fuzz = setup::cargo_fuzz()?;
    let chosen = |target: &&Target| {
        options.targets.is_empty() || options.targets.iter().any(|name| name == target.name)
    };
    let mut found = Vec::new();
    for target in TARGETS.iter().filter(chosen) {
        let held = progress::step(&format!("fuzz {} for {} s", target.name, options.seconds), || {
            fuzz(&cargo_fuzz, target, options.seconds)
        })?;
        if !held {
            found.push(target.name);
        }
    }
    ensure!(found.is_empty(), "found something in {}: see above and fuzz/artifacts/", found.join(", "));
    Ok(ExitCode::SUCCESS)
}

/// Whether nothing was found.
fn fuzz(cargo_fuzz: &CargoFuzz, target: &Target, seconds: u32) -> Result<bool> {
    let corpus = workspace::target_directory()?.join("fuzz-corpus").join(target.name);
    std::fs::create_dir_all(&corpus).with_context(|| format!("create {}", corpus.display()))?;
    sow(&workspace::root().join(target.seeds), target, &corpus)?;
    let mut command = cargo_fuzz.command();
    command.current_dir(workspace::root()).args(["run", "--sanitizer", "none", target.name]);
    command.arg(&corpus);
    command.args([
        "--",
        &format!("-max_total_time={seconds}"),
        "-timeout=10",
        "-max_len=16384",
        "-print_final_stats=1",
    ]);
    let status = command.status().context("start cargo fuzz")?;
    Ok(status.success())
}

/// Files as the target reads them: a byte for the form, if it reads several, then the file.
fn sow(folder: &Path, target: &Target, corpus: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            sow(&path, target, corpus)?;
            continue;
        }
        let name = path.display().to_string();
        let form = target.forms.iter().find(|(end, _)| name.ends_with(end)).map(|(_, form)| *form);
        if form.is_none() && !target.forms.is_empty() {
            continue;
        }
        let file = std::fs::read(&path).with_context(|| format!("read {name}"))?;
        if file.len() as u64 <= LARGEST_SEED {
            let seed = corpus.join(format!("seed-{}", name.replace(['/', '.'], "-")));
            let bytes: Vec<u8> = form.into_iter().chain(file).collect();
            std::fs::write(&seed, bytes).context("write a seed")?;
        }
    }
    Ok(())
}
