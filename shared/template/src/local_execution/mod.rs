//! What of a template would run, read or write something on the runner itself, which has AWS permissions and a network of
//! its own. The operator decides whether such a template is built.
//!
//! Denies by default: what is not known to run on the build instance, or to speak to AWS alone, is a finding. So is a path
//! that can't be known without evaluating the template. Must never evaluate it.

mod calls;
mod document;
mod paths;
mod plain;
mod rules;

use std::fmt;

use crate::bundle::{Bundle, shown};
use crate::error::TemplateError;
use crate::stack::with_room;

/// One thing that a template would do on the runner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalExecution {
    /// Path inside of the bundle.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// What it is, in words that need no more.
    pub what: String,
}

impl fmt::Display for LocalExecution {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// Everything in the bundle that would run, read or write on the runner, by file and line. Empty where all of the template
/// runs on the build instance.
///
/// # Errors
///
/// Where a template can't be parsed.
pub fn local_execution(bundle: &Bundle) -> Result<Vec<LocalExecution>, TemplateError> {
    with_room(|| look(bundle))
}

fn look(bundle: &Bundle) -> Result<Vec<LocalExecution>, TemplateError> {
    let mut found = plugins_in_disguise(bundle);
    let at_the_top = || bundle.files().filter(|(path, _)| !path.contains('/'));
    let mut has_hcl2 = false;
    for (path, bytes) in at_the_top() {
        let document = if path.ends_with(".pkr.hcl") {
            document::of_hcl(path, bytes)?
        } else if path.ends_with(".pkr.json") {
            document::of_json(path, bytes)?
        } else {
            continue;
        };
        has_hcl2 = true;
        found.extend(rules::of_hcl2(&document, bundle));
    }
    // Packer reads the form before HCL2 only where there is no file of HCL2.
    if !has_hcl2 {
        for (path, bytes) in at_the_top().filter(|(path, _)| path.ends_with(".json")) {
            found.extend(rules::of_legacy(&document::of_legacy(path, bytes)?));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Beginnings of the names under which Packer finds plugins in its working folder.
const PLUGINS: [&str; 5] = [
    "packer-builder-",
    "packer-provisioner-",
    "packer-post-processor-",
    "packer-datasource-",
    "packer-plugin-",
];

/// Places where Packer looks for settings and plugins, should the folder ever be somebody's home.
const SETTINGS: [&str; 3] = [".packer.d", ".packerconfig", "packer.d"];

/// Files that Packer would start, or that tell it what to start.
fn plugins_in_disguise(bundle: &Bundle) -> Vec<LocalExecution> {
    let is_plugin =
        |part: &str| PLUGINS.iter().any(|plugin| part.starts_with(plugin)) || SETTINGS.contains(&part);
    let files = bundle.files().filter(|(path, _)| path.split('/').any(is_plugin));
    files
        .map(|(path, _)| LocalExecution {
            file: shown(path),
            line: 1,
            what:
                "Packer takes a file of this name for a plugin or for its settings, which run on the runner"
                    .to_owned(),
        })
        .collect()
}
