//! Tagging a template that knows nothing of this project: every Amazon source in it gets our tags, and where needed
//! our endpoint, merged into what its author wrote.
//!
//! The author's text stays byte for byte but for what is added. Tagging what is tagged changes nothing. Must never
//! evaluate the author's expressions.

mod builders;
mod edits;
mod places;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use hcl_edit::expr::Expression;

pub(crate) use builders::AmazonBuilder;
use builders::OPTIONAL_TAGS;
use edits::{Edits, Tags};
use places::{Source, amazon_sources, blocks_named};
pub use text::check_tag;
use text::quoted;

use crate::bundle::Bundle;
use crate::error::TemplateError;
use crate::hcl::{TemplateFile, parse, parse_templates, source_labels};

/// A tag that can't be written into a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the tag `{key}` can't be used: Packer would render `{{{{` in a tag's key or value as code")]
pub struct TagError {
    /// The tag's key.
    pub key: String,
}

/// The version of Packer that will read the template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackerVersion {
    /// 1 of 1.6.6.
    pub major: u32,
    /// 6 of 1.6.6.
    pub minor: u32,
    /// The last 6 of 1.6.6.
    pub patch: u32,
}

impl PackerVersion {
    /// Whether it knows plugins, `packer init` and data sources: from 1.7 on.
    #[must_use]
    pub fn has_plugins(self) -> bool {
        (self.major, self.minor) >= (1, 7)
    }
}

impl FromStr for PackerVersion {
    type Err = String;

    /// Reads `1.6.6`, `v1.11.2` or `1.12.0-dev`; the error is what is wrong with it, in one sentence.
    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("`{text}` is no version of Packer; give it as `1.11.2`");
        let numbers = text.strip_prefix('v').unwrap_or(text);
        let numbers = numbers.split(['-', '+']).next().unwrap_or_default();
        let mut parts = numbers.split('.').map(|part| part.parse::<u32>().map_err(|_| invalid()));
        let mut next = || parts.next().unwrap_or_else(|| Err(invalid()));
        let version = Self { major: next()?, minor: next()?, patch: next()? };
        if parts.next().is_some() { Err(invalid()) } else { Ok(version) }
    }
}

impl fmt::Display for PackerVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What goes into a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagOptions {
    /// Tags of everything that the build makes (`ciab:…`).
    pub tags: BTreeMap<String, String>,
    /// Tags of the AMI alone, which the caller asked for. Where both have a key, `tags` wins.
    pub image_tags: BTreeMap<String, String>,
    /// The Packer that will read the result.
    pub packer_version: PackerVersion,
    /// Another address of EC2's API, for every Amazon source; `None` leaves AWS's own.
    pub endpoint: Option<String>,
    /// The name of the temporary key pair. Where a template builds from more than one Amazon source, `-<uuid>` is
    /// appended, as all of them make one at the same time: look for it by prefix.
    pub temporary_key_pair_name: Option<String>,
}

/// The bundle with every Amazon source tagged.
///
/// # Errors
///
/// Where the bundle has no template or no Amazon source, can't be parsed, or a tag can't be written.
pub fn tag(bundle: &Bundle, options: &TagOptions) -> Result<Bundle, TemplateError> {
    for (key, value) in options.tags.iter().chain(&options.image_tags) {
        check_tag(key, value)?;
    }
    let files = parse_templates(bundle)?;
    let sources = amazon_sources(&files);
    if sources.is_empty() {
        return Err(TemplateError::NoAmazonSource { sources: source_names(&files) });
    }

    let mut image_tags = options.image_tags.clone();
    image_tags.extend(options.tags.clone());
    let mut tagging = Tagging {
        files: &files,
        edits: files.iter().map(Edits::new).collect(),
        image_tags: &image_tags,
        key_pair_name: options.temporary_key_pair_name.as_deref().map(|name| key_pair_name(name, &sources)),
        options,
    };
    for source in &sources {
        tagging.tag_source(source)?;
    }
    for index in 0..files.len() {
        tagging.adapt_to_version(index);
    }

    let edits = tagging.edits;
    let mut tagged = bundle.clone();
    for (file, edits) in files.iter().zip(edits) {
        if !edits.is_empty() {
            store(&mut tagged, file.path, edits.apply())?;
        }
    }
    Ok(tagged)
}

fn source_names(files: &[TemplateFile<'_>]) -> Vec<String> {
    let blocks = files.iter().flat_map(|file| file.body.blocks());
    blocks.filter_map(source_labels).map(|(kind, name)| format!("{kind}.{name}")).collect()
}

/// Several sources build at the same time, and a key pair's name exists once in a region.
fn key_pair_name(name: &str, sources: &[Source<'_>]) -> String {
    let alone = sources.len() == 1 && sources.iter().all(Source::builds_once_at_most);
    if alone { quoted(name) } else { quoted(&format!("{name}-{{{{uuid}}}}")) }
}

/// Keeps a changed file, unless nothing is left of it.
fn store(bundle: &mut Bundle, path: &str, text: String) -> Result<(), TemplateError> {
    let parsed = parse(path, text.as_bytes()).map_err(|error| match error {
        TemplateError::Syntax { file, line, message, .. } => {
            TemplateError::Untaggable { file, line, message }
        }
        other => other,
    })?;
    let is_left = !parsed.body.is_empty();
    if is_left {
        bundle.replace(path, text.into_bytes());
    } else {
        bundle.remove(path);
    }
    Ok(())
}

struct Tagging<'a> {
    files: &'a [TemplateFile<'a>],
    edits: Vec<Edits<'a>>,
    image_tags: &'a Tags,
    /// As HCL.
    key_pair_name: Option<String>,
    options: &'a TagOptions,
}

/// How an attribute of ours gets along with the author's.
#[derive(Clone, Copy)]
enum Change<'a> {
    Merge(&'a Tags),
    Set(&'a str),
    SetIfAbsent(&'a str),
}

impl Tagging<'_> {
    fn tag_source(&mut self, source: &Source<'_>) -> Result<(), TemplateError> {
        let builder = source.builder;
        let options = self.options;
        self.tag_resources(source)?;

        // An author who has the instance shut itself down relies on it being stopped, not terminated.
        if builder.has_shutdown_behavior() && !source.any_has(&["disable_stop_instance"]) {
            self.change(source, "shutdown_behavior", Change::SetIfAbsent("\"terminate\""))?;
        }
        if builder.runs_instance()
            && !source.any_has(&OWN_KEY)
            && let Some(name) = self.key_pair_name.clone()
        {
            self.change(source, "temporary_key_pair_name", Change::SetIfAbsent(&name))?;
        }
        if let Some(endpoint) = &options.endpoint {
            self.change(source, "custom_endpoint_ec2", Change::Set(&quoted(endpoint)))?;
            self.change(source, "skip_metadata_api_check", Change::SetIfAbsent("true"))?;
            if builder.has_skip_region_validation() {
                self.change(source, "skip_region_validation", Change::SetIfAbsent("true"))?;
            }
        }
        Ok(())
    }

    fn tag_resources(&mut self, source: &Source<'_>) -> Result<(), TemplateError> {
        let tags = &self.options.tags;
        for attribute in source.builder.resource_tags() {
            self.merge_tags(source, attribute, tags)?;
        }
        if source.builder.makes_ami() {
            self.merge_tags(source, "tags", self.image_tags)?;
        }
        for attribute in OPTIONAL_TAGS {
            if source.any_has(&[attribute]) || (attribute == "spot_tags" && wants_spot(source)) {
                self.merge_tags(source, attribute, tags)?;
            }
        }
        if source.builder == AmazonBuilder::EbsVolume {
            for place in source.places() {
                for volume in blocks_named(&place.block.body, "ebs_volumes") {
                    let edits = &mut self.edits[place.file];
                    edits.merge(volume, "tags", tags);
                    edits.correct_tag_blocks(&blocks_named(&volume.body, "tag"), tags);
                    // Known only to versions whose templates can set it, so merged into where it is used.
                    if volume.body.has_attribute("snapshot_tags")
                        || volume.body.has_attribute("snapshot_volume")
                    {
                        edits.merge(volume, "snapshot_tags", tags);
                        edits.correct_tag_blocks(&blocks_named(&volume.body, "snapshot_tag"), tags);
                    }
                }
            }
        }
        Ok(())
    }

    /// Merges into `attribute`, and into the author's singular blocks of it (`tag {}` for `tags`).
    fn merge_tags(&mut self, source: &Source<'_>, attribute: &str, tags: &Tags) -> Result<(), TemplateError> {
        if tags.is_empty() {
            return Ok(());
        }
        let singular = attribute.trim_end_matches('s');
        for place in source.places() {
            self.edits[place.file].correct_tag_blocks(&blocks_named(&place.block.body, singular), tags);
        }
        self.change(source, attribute, Change::Merge(tags))
    }

    /// Changes an attribute of a source, in the source's own block unless its builds set it themselves.
    fn change(
        &mut self,
        source: &Source<'_>,
        attribute: &str,
        change: Change<'_>,
    ) -> Result<(), TemplateError> {
        let overriding = source.overrides.iter().find(|place| place.has(attribute));
        let Some(overriding) = overriding else {
            self.change_in(source.own, attribute, change);
            return Ok(());
        };
        if source.listed > 0 && !matches!(change, Change::SetIfAbsent(_)) {
            let file = &self.files[overriding.file];
            return Err(TemplateError::SplitAttribute {
                file: file.path.to_owned(),
                line: file.line_of(overriding.block),
                source_name: source.name.clone(),
                attribute: attribute.to_owned(),
            });
        }
        for place in &source.overrides {
            self.change_in(*place, attribute, change);
        }
        Ok(())
    }

    fn change_in(&mut self, place: places::Place<'_>, attribute: &str, change: Change<'_>) {
        let edits = &mut self.edits[place.file];
        match change {
            Change::Merge(tags) => edits.merge(place.block, attribute, tags),
            Change::Set(value) => edits.set(place.block, attribute, value),
            Change::SetIfAbsent(value) => edits.set_if_absent(place.block, attribute, value),
        }
    }

    /// What depends on the Packer in use, besides sources.
    fn adapt_to_version(&mut self, index: usize) {
        let file = &self.files[index];
        let edits = &mut self.edits[index];
        if self.options.packer_version.has_plugins() {
            if let Some(endpoint) = &self.options.endpoint {
                for block in file.body.get_blocks("data") {
                    if block.labels.first().is_some_and(|label| label.as_str() == "amazon-ami") {
                        edits.set(block, "custom_endpoint_ec2", &quoted(endpoint));
                        edits.set_if_absent(block, "skip_metadata_api_check", "true");
                    }
                }
            }
            return;
        }
        for block in file.body.get_blocks("packer") {
            let plugins: Vec<_> = block.body.get_blocks("required_plugins").collect();
            if plugins.is_empty() {
                continue;
            }
            if plugins.len() == block.body.len() {
                edits.remove(block);
            } else {
                plugins.into_iter().for_each(|plugins| edits.remove(plugins));
            }
        }
    }
}

/// With any of these Packer makes no key pair, or one that the author named.
const OWN_KEY: [&str; 5] =
    ["ssh_keypair_name", "temporary_key_pair_name", "ssh_private_key_file", "ssh_password", "ssh_agent_auth"];

/// Whether a source plainly asks for a spot instance; `spot_tags` without one is an error.
fn wants_spot(source: &Source<'_>) -> bool {
    source.places().any(|place| {
        let price = place.block.body.get_attribute("spot_price").map(|price| &price.value);
        match price {
            Some(Expression::Number(price)) => price.value().as_f64() != Some(0.0),
            Some(price) => price.as_str().is_some_and(|price| !matches!(price, "" | "0")),
            None => false,
        }
    })
}
