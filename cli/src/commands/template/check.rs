//! `ciab template check`: what a template declares, and whether the service would refuse it. Asks nobody.

use std::collections::BTreeMap;

use ciab_template::{
    Bundle, DeclaredVariable, LocalExecution, PackerVersion, TagOptions, TemplateSummary, check_variables,
    local_execution, tag,
};
use serde_json::{Value, json};

use crate::args::{CheckOptions, Format};
use crate::build_request;
use crate::document::{cell, inline};
use crate::exit::{Exit, Failure};
use crate::local_template;
use crate::output::{Printer, table};
use crate::terminal_text::neutralise;

/// The Packer that tags are shown for.
const PACKER: PackerVersion = PackerVersion { major: 1, minor: 11, patch: 0 };

/// In place of a build's own.
const NO_BUILD: &str = "00000000-0000-0000-0000-000000000000";

pub(crate) fn run(printer: &mut Printer, options: &CheckOptions) -> Result<Exit, Failure> {
    let given = build_request::variables(&options.variable_files, &options.variables)?;
    let given = (!options.variable_files.is_empty() || !options.variables.is_empty())
        .then(|| given.into_iter().collect::<BTreeMap<_, _>>());
    let bundle = local_template::read(&options.path)?;
    local_template::pack(&options.path, &bundle)?;

    let checked = Checked::of(&bundle, options.fetched, given.as_ref());
    let document = checked.document(options);
    if options.tagged && printer.format() == Format::Table {
        printer.raw(&tagged_text(&checked.tagged))?;
    } else {
        printer.result(&document, |document| shown(document, &checked.summary))?;
    }
    for finding in checked.on_the_runner.iter().filter(|_| !options.fetched) {
        printer.note(&format!("{finding}"));
    }
    if !options.fetched && !checked.on_the_runner.is_empty() {
        printer.hint(
            "a template that is uploaded may run on the runner unless the operator says otherwise; one that is fetched may \
             not (--fetched)",
        );
    }
    if checked.refused.is_empty() {
        return Ok(Exit::Done);
    }
    Err(Failure::TemplateRefused { path: options.path.clone(), reasons: checked.refused })
}

struct Checked {
    summary: TemplateSummary,
    digest: String,
    files: usize,
    on_the_runner: Vec<LocalExecution>,
    /// The templates as they would be built, by path.
    tagged: BTreeMap<String, String>,
    refused: Vec<String>,
}

impl Checked {
    fn of(bundle: &Bundle, fetched: bool, given: Option<&BTreeMap<String, Value>>) -> Self {
        let mut refused = Vec::new();
        let mut note = |error: String| {
            // Several looks at one template find the same thing wrong with it.
            if !refused.contains(&error) {
                refused.push(error);
            }
        };
        let summary =
            ciab_template::read(bundle).map_err(|error| note(error.to_string())).unwrap_or_default();
        let digest = bundle.digest();
        let tagged = tag(bundle, &placeholders(&digest)).map_err(|error| note(error.to_string()));
        let on_the_runner =
            local_execution(bundle).map_err(|error| note(error.to_string())).unwrap_or_default();
        if fetched {
            on_the_runner.iter().for_each(|finding| note(finding.to_string()));
        }
        if let Some(Err(error)) = given.map(|given| check_variables(&summary.variables, given)) {
            note(error.to_string());
        }
        let tagged = tagged.map(|tagged| templates(bundle, &tagged)).unwrap_or_default();
        Self { summary, digest, files: bundle.files().count(), on_the_runner, tagged, refused }
    }

    fn document(&self, options: &CheckOptions) -> Value {
        let sources: Vec<_> = self.summary.sources.iter().map(|source| {
            json!({"type": source.kind, "name": source.name, "amazon": source.is_amazon, "file": source.file, "line": source.line})
        }).collect();
        let plugins: Vec<_> = self
            .summary
            .required_plugins
            .iter()
            .map(|plugin| json!({"name": plugin.name, "source": plugin.source, "version": plugin.version}))
            .collect();
        let local: Vec<_> = self
            .on_the_runner
            .iter()
            .map(|finding| json!({"file": finding.file, "line": finding.line, "what": finding.what}))
            .collect();
        let mut document = json!({
            "template": options.path.display().to_string(),
            "digest": self.digest,
            "files": self.files,
            "accepted": self.refused.is_empty(),
            "refused": self.refused,
            "sources": sources,
            "variables": self.summary.variables.iter().map(variable).collect::<Vec<_>>(),
            "required_versions": self.summary.required_versions,
            "required_plugins": plugins,
            "local_execution": local,
        });
        if options.tagged {
            document["tagged"] = json!(self.tagged);
        }
        document
    }
}

fn variable(variable: &DeclaredVariable) -> Value {
    json!({
        "name": variable.name, "type": variable.type_text, "has_default": variable.has_default,
        "sensitive": variable.sensitive, "description": variable.description, "file": variable.file, "line": variable.line
    })
}

/// The tags of a build that does not exist, each so that nobody takes it for one that does.
fn placeholders(digest: &str) -> TagOptions {
    let tags = [
        ("ciab:managed", "true"),
        ("ciab:stack", "the-stacks-name"),
        ("ciab:build-id", NO_BUILD),
        ("ciab:provider", "the-provider"),
        ("ciab:template-digest", digest),
        ("ciab:expires-at", "1970-01-01T00:00:00Z"),
    ];
    TagOptions {
        tags: tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        image_tags: BTreeMap::new(),
        packer_version: PACKER,
        endpoint: None,
        temporary_key_pair_name: Some(format!("ciab-{NO_BUILD}")),
    }
}

/// What Packer reads as templates, and whatever else the tags went into.
fn templates(bundle: &Bundle, tagged: &Bundle) -> BTreeMap<String, String> {
    let is_template =
        |path: &str| !path.contains('/') && (path.ends_with(".pkr.hcl") || path.ends_with(".pkr.json"));
    tagged
        .files()
        .filter(|(path, bytes)| is_template(path) || bundle.get(path) != Some(*bytes))
        .map(|(path, bytes)| (path.to_owned(), String::from_utf8_lossy(bytes).into_owned()))
        .collect()
}

/// One file as it is; several with the name of each before it.
fn tagged_text(tagged: &BTreeMap<String, String>) -> String {
    if let (1, Some(text)) = (tagged.len(), tagged.values().next()) {
        return text.clone();
    }
    tagged.iter().map(|(path, text)| format!("# {}\n\n{}\n\n", neutralise(path), text.trim_end())).collect()
}

fn shown(document: &Value, summary: &TemplateSummary) -> String {
    let mut text = format!(
        "Template:   {}\nDigest:     {}\nFiles:      {}\nAccepted:   {}\n",
        cell(document, "template"),
        cell(document, "digest"),
        cell(document, "files"),
        if document["accepted"] == json!(true) { "yes" } else { "no" },
    );
    if !summary.sources.is_empty() {
        let rows = summary.sources.iter().map(|source| {
            let name = format!("{}.{}", source.kind, source.name);
            vec![inline(&name.into()), inline(&format!("{}:{}", source.file, source.line).into())]
        });
        text.push_str(&format!("\n{}", table(&[("SOURCE", 24), ("DECLARED AT", 0)], rows)));
    }
    if !summary.variables.is_empty() {
        let columns = [("VARIABLE", 20), ("TYPE", 8), ("REQUIRED", 8), ("SENSITIVE", 9), ("DESCRIPTION", 0)];
        let rows = summary.variables.iter().map(|variable| {
            let yes = |is_so: bool| if is_so { "yes" } else { "no" }.to_owned();
            let of =
                variable.type_text.as_deref().map(|of| of.split_whitespace().collect::<Vec<_>>().join(" "));
            vec![
                neutralise(&variable.name),
                inline(&json!(of)),
                yes(!variable.has_default),
                yes(variable.sensitive),
                inline(&json!(variable.description)),
            ]
        });
        text.push_str(&format!("\n{}", table(&columns, rows)));
    }
    text
}
