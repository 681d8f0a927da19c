//! Tagging a template that knows nothing of this project: every Amazon source in it gets our tags, and where needed
//! our endpoint, merged into what its author wrote. This module knows what goes into which source, whatever the form;
//! `places` finds the sources, and `hcl_edits` and `json_edits` change the text.
//!
//! The author's text stays byte for byte but for what is added. Tagging what is tagged changes nothing. Must never
//! evaluate the author's expressions.

mod builders;
mod edits;
mod hcl_edits;
mod json_edits;
mod places;
mod text;
mod version;

use std::collections::BTreeMap;

pub(crate) use builders::AmazonBuilder;
use builders::OPTIONAL_TAGS;
use edits::{FileEdits, Tags, Value};
use json_edits::JsonEdits;
use places::{Block, Place, Source, amazon_sources};
pub use text::check_tag;
pub use version::PackerVersion;

use crate::bundle::Bundle;
use crate::error::TemplateError;
use crate::form::TemplateFile;
use crate::hcl;
use crate::json::{self, Body, Dialect, JsonFile};
use crate::summary::summarise;

/// A tag that can't be written into a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the tag `{key}` can't be used: Packer would render `{{{{` in a tag's key or value as code")]
pub struct TagError {
    /// The tag's key.
    pub key: String,
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

/// The bundle with every Amazon source in its templates tagged.
pub(crate) fn tag_files(
    bundle: &Bundle,
    files: &[TemplateFile<'_>],
    options: &TagOptions,
) -> Result<Bundle, TemplateError> {
    for (key, value) in options.tags.iter().chain(&options.image_tags) {
        check_tag(key, value)?;
    }
    let sources = amazon_sources(files)?;
    if sources.is_empty() {
        let declared = summarise(bundle, files)?.sources;
        let sources = declared.iter().map(|source| format!("{}.{}", source.kind, source.name)).collect();
        return Err(TemplateError::NoAmazonSource { sources });
    }

    let mut image_tags = options.image_tags.clone();
    image_tags.extend(options.tags.clone());
    let mut tagging = Tagging {
        files,
        edits: files.iter().map(FileEdits::new).collect(),
        image_tags: &image_tags,
        key_pair_name: options.temporary_key_pair_name.as_deref().map(|name| key_pair_name(name, &sources)),
        options,
    };
    for source in &sources {
        tagging.tag_source(source)?;
    }
    for index in 0..files.len() {
        tagging.adapt_to_version(index)?;
    }

    let edits = tagging.edits;
    let mut tagged = bundle.clone();
    for (file, edits) in files.iter().zip(edits) {
        if !edits.is_empty() {
            store(&mut tagged, file, edits.apply())?;
        }
    }
    Ok(tagged)
}

/// Several sources build at the same time, and a key pair's name exists once in a region.
fn key_pair_name(name: &str, sources: &[Source<'_>]) -> String {
    let alone = sources.len() == 1 && sources.iter().all(Source::builds_once_at_most);
    if alone { name.to_owned() } else { format!("{name}-{{{{uuid}}}}") }
}

/// Keeps a changed file, unless nothing is left of it.
fn store(bundle: &mut Bundle, file: &TemplateFile<'_>, text: String) -> Result<(), TemplateError> {
    let path = file.path();
    let is_left = match file {
        TemplateFile::Hcl(_) => hcl::parse(path, text.as_bytes()).map(|parsed| !parsed.body.is_empty()),
        TemplateFile::Json(file) => json::parse(path, text.as_bytes(), file.dialect).map(|parsed| {
            file.dialect == Dialect::Legacy
                || parsed
                    .bodies()
                    .is_ok_and(|bodies| bodies.iter().any(|body| !body.object.properties.is_empty()))
        }),
    };
    let is_left = is_left.map_err(|error| match error {
        TemplateError::Syntax { file, line, message, .. } => {
            TemplateError::Untaggable { file, line, message }
        }
        other => other,
    })?;
    if !is_left {
        bundle.remove(path);
        return Ok(());
    }
    let has_mark = bundle.get(path).is_some_and(|bytes| bytes.starts_with(hcl::BYTE_ORDER_MARK.as_bytes()));
    let text = if has_mark { format!("{}{text}", hcl::BYTE_ORDER_MARK) } else { text };
    bundle.replace(path, text.into_bytes());
    Ok(())
}

struct Tagging<'a> {
    files: &'a [TemplateFile<'a>],
    edits: Vec<FileEdits<'a>>,
    image_tags: &'a Tags,
    key_pair_name: Option<String>,
    options: &'a TagOptions,
}

/// How an attribute of ours gets along with the author's.
#[derive(Clone, Copy)]
enum Change<'a> {
    Merge(&'a Tags),
    Set(&'a Value),
    SetIfAbsent(&'a Value),
}

impl<'a> Tagging<'a> {
    fn tag_source(&mut self, source: &Source<'a>) -> Result<(), TemplateError> {
        let builder = source.builder;
        let options = self.options;
        self.tag_resources(source)?;

        // An author who has the instance shut itself down relies on it being stopped, not terminated.
        if builder.has_shutdown_behavior() && !source.any_has(&["disable_stop_instance"]) {
            self.change(
                source,
                "shutdown_behavior",
                Change::SetIfAbsent(&Value::Text("terminate".to_owned())),
            )?;
        }
        if builder.runs_instance()
            && !source.any_has(&OWN_KEY)
            && let Some(name) = self.key_pair_name.clone()
        {
            self.change(source, "temporary_key_pair_name", Change::SetIfAbsent(&Value::Text(name)))?;
        }
        if let Some(endpoint) = &options.endpoint {
            self.change(source, "custom_endpoint_ec2", Change::Set(&Value::Text(endpoint.clone())))?;
            self.change(source, "skip_metadata_api_check", Change::SetIfAbsent(&Value::Yes))?;
            if builder.has_skip_region_validation() {
                self.change(source, "skip_region_validation", Change::SetIfAbsent(&Value::Yes))?;
            }
        }
        Ok(())
    }

    fn tag_resources(&mut self, source: &Source<'a>) -> Result<(), TemplateError> {
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
                for volume in place.block.blocks_named("ebs_volumes")? {
                    let edits = &mut self.edits[place.file];
                    edits.merge(volume, "tags", tags)?;
                    edits.correct_tag_blocks(&volume.blocks_named("tag")?, tags);
                    // Known only to versions whose templates can set it, so merged into where it is used.
                    if volume.has("snapshot_tags") || volume.has("snapshot_volume") {
                        edits.merge(volume, "snapshot_tags", tags)?;
                        edits.correct_tag_blocks(&volume.blocks_named("snapshot_tag")?, tags);
                    }
                }
            }
        }
        Ok(())
    }

    /// Merges into `attribute`, and into the author's singular blocks of it (`tag {}` for `tags`).
    fn merge_tags(&mut self, source: &Source<'a>, attribute: &str, tags: &Tags) -> Result<(), TemplateError> {
        if tags.is_empty() {
            return Ok(());
        }
        let singular = attribute.trim_end_matches('s');
        for place in source.places() {
            self.edits[place.file].correct_tag_blocks(&place.block.blocks_named(singular)?, tags);
        }
        self.change(source, attribute, Change::Merge(tags))
    }

    /// Changes an attribute of a source, in the source's own block unless its builds set it themselves.
    fn change(
        &mut self,
        source: &Source<'a>,
        attribute: &str,
        change: Change<'_>,
    ) -> Result<(), TemplateError> {
        let overriding = source.overrides.iter().find(|place| place.block.has(attribute));
        let Some(overriding) = overriding else {
            return self.change_in(source.own, attribute, change);
        };
        if source.listed > 0 && !matches!(change, Change::SetIfAbsent(_)) {
            let file = &self.files[overriding.file];
            return Err(TemplateError::SplitAttribute {
                file: file.path().to_owned(),
                line: overriding.line(file),
                source_name: source.name.clone(),
                attribute: attribute.to_owned(),
            });
        }
        for place in &source.overrides {
            self.change_in(*place, attribute, change)?;
        }
        Ok(())
    }

    fn change_in(
        &mut self,
        place: Place<'a>,
        attribute: &str,
        change: Change<'_>,
    ) -> Result<(), TemplateError> {
        let edits = &mut self.edits[place.file];
        match change {
            Change::Merge(tags) => edits.merge(place.block, attribute, tags)?,
            Change::Set(value) => edits.set(place.block, attribute, value),
            Change::SetIfAbsent(value) => edits.set_if_absent(place.block, attribute, value),
        }
        Ok(())
    }

    /// What depends on the Packer in use, besides sources.
    fn adapt_to_version(&mut self, index: usize) -> Result<(), TemplateError> {
        if self.options.packer_version.has_plugins() {
            self.set_endpoint_of_data(index)
        } else {
            self.remove_plugins(index)
        }
    }

    fn set_endpoint_of_data(&mut self, index: usize) -> Result<(), TemplateError> {
        let Some(endpoint) = &self.options.endpoint else { return Ok(()) };
        let endpoint = Value::Text(endpoint.clone());
        for block in data_blocks(&self.files[index])? {
            self.edits[index].set(block, "custom_endpoint_ec2", &endpoint);
            self.edits[index].set_if_absent(block, "skip_metadata_api_check", &Value::Yes);
        }
        Ok(())
    }

    fn remove_plugins(&mut self, index: usize) -> Result<(), TemplateError> {
        match (&self.files[index], &mut self.edits[index]) {
            (TemplateFile::Hcl(file), FileEdits::Hcl(edits)) => {
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
            (TemplateFile::Json(file), FileEdits::Json(edits)) if file.dialect == Dialect::Hcl2 => {
                for body in file.bodies()? {
                    remove_plugins_from(body, edits)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Data sources that look for AMIs.
fn data_blocks<'a>(file: &'a TemplateFile<'a>) -> Result<Vec<Block<'a>>, TemplateError> {
    let amazon = "amazon-ami";
    match file {
        TemplateFile::Hcl(file) => {
            let blocks = file.body.get_blocks("data");
            let ours =
                blocks.filter(|block| block.labels.first().is_some_and(|kind| kind.as_str() == amazon));
            Ok(ours.map(Block::Hcl).collect())
        }
        TemplateFile::Json(file) => data_blocks_in_json(file, amazon),
    }
}

fn data_blocks_in_json<'a>(file: &'a JsonFile<'a>, kind: &str) -> Result<Vec<Block<'a>>, TemplateError> {
    let mut found = Vec::new();
    if file.dialect == Dialect::Hcl2 {
        for body in file.bodies()? {
            let blocks = body.blocks("data", 2)?.into_iter();
            found.extend(
                blocks
                    .filter(|block| block.labels.first() == Some(&kind))
                    .map(|block| Block::Json(block.body)),
            );
        }
    }
    Ok(found)
}

/// Removes `required_plugins`, and `packer` where it holds nothing else.
fn remove_plugins_from(body: Body<'_>, edits: &mut JsonEdits<'_>) -> Result<(), TemplateError> {
    const PLUGINS: &str = "required_plugins";
    let packer = body.blocks("packer", 0)?;
    let only_plugins = packer.iter().all(|block| {
        let properties = &block.body.object.properties;
        !properties.is_empty() && properties.iter().all(|property| property.name.as_str() == PLUGINS)
    });
    if only_plugins && !packer.is_empty() {
        edits.remove(body.object, |property| property.name.as_str() == "packer");
        return Ok(());
    }
    for block in packer {
        if block.body.property(PLUGINS).is_some() {
            edits.remove(block.body.object, |property| property.name.as_str() == PLUGINS);
        }
    }
    Ok(())
}

/// With any of these Packer makes no key pair, or one that the author named.
const OWN_KEY: [&str; 5] =
    ["ssh_keypair_name", "temporary_key_pair_name", "ssh_private_key_file", "ssh_password", "ssh_agent_auth"];

/// Whether a source plainly asks for a spot instance; `spot_tags` without one is an error.
fn wants_spot(source: &Source<'_>) -> bool {
    source.places().any(|place| place.block.has_price("spot_price"))
}
