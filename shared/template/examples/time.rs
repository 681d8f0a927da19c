//! Times what prepare-build does with a template: reading it, checking its variables, tagging it. For
//! `cargo xtask bench template`; prints the nanoseconds of each run, one a line.
//!
//! `time FOLDER RUNS`

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;
use std::time::Instant;

use ciab_template::{Bundle, PackerVersion, ParsedTemplate, TagOptions, check_variables};

/// Runs that do not count, before those that do.
const WARM_UP: usize = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(runs)) = (arguments.next(), arguments.next()) else {
        return Err("give a folder and a number of runs".into());
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        files.push((entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?));
    }
    let options = TagOptions {
        tags: [
            "ciab:build-id",
            "ciab:expires-at",
            "ciab:provider",
            "ciab:region",
            "ciab:stack",
            "ciab:template-digest",
        ]
        .into_iter()
        .map(|key| (key.to_owned(), "a value of some length, as a digest is".to_owned()))
        .collect(),
        image_tags: BTreeMap::from([("Name".to_owned(), "image".to_owned())]),
        packer_version: PackerVersion { major: 1, minor: 11, patch: 2 },
        endpoint: None,
        temporary_key_pair_name: Some("ciab-0e7f".to_owned()),
    };
    let given = BTreeMap::from([("variable_0".to_owned(), "x".into())]);

    let mut times = Vec::new();
    for run in 0..WARM_UP + runs.parse::<usize>()? {
        let files = files.clone();
        let begun = Instant::now();
        let bundle = Bundle::from_files(files)?;
        let template = ParsedTemplate::of(&bundle)?;
        check_variables(&template.summary()?.variables, &given)?;
        std::hint::black_box(template.tag(&options)?);
        let took = begun.elapsed();
        if run >= WARM_UP {
            times.push(took.as_nanos().to_string());
        }
    }
    writeln!(std::io::stdout(), "{}", times.join("\n"))?;
    Ok(())
}
