//! What can be wrong with a template. Each message is one line that says what was found and what is allowed.

use std::fmt;

/// Why a template can't be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Not HCL or JSON, or not what Packer would take for a template.
    #[error("{file}:{line}:{column}: {message}")]
    Syntax {
        /// Path inside of the bundle.
        file: String,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// One line.
        message: String,
    },
    /// A template that is not text.
    #[error("{file}: not UTF-8 text")]
    NotText {
        /// Path inside of the bundle.
        file: String,
    },
    /// Packer would find nothing to read.
    #[error(
        "the template has no `.pkr.hcl` or `.pkr.json` file and no JSON file with `builders` at its top level, where \
         Packer looks for it; it has {}", List(.files)
    )]
    NoTemplate {
        /// What there is instead, shortened.
        files: Vec<String>,
    },
    /// Packer reads one legacy template at a time.
    #[error("the template has several legacy JSON files with `builders`, and Packer reads one: {}", List(.files))]
    SeveralLegacy {
        /// Their paths.
        files: Vec<String>,
    },
    /// Nothing that would become an AMI.
    #[error(
        "the template has no Amazon source (amazon-ebs, amazon-ebssurrogate, amazon-ebsvolume, amazon-chroot, \
         amazon-instance); it has {}", List(.sources)
    )]
    NoAmazonSource {
        /// The sources it does have, as `type.name`.
        sources: Vec<String>,
    },
    /// The same attribute would have to stand in two places at once.
    #[error(
        "{file}:{line}: `{attribute}` is set for {source_name} inside of one build while another build lists the source \
         by name; set `{attribute}` in the source block itself, or give each build its own `source \"{source_name}\"` block"
    )]
    SplitAttribute {
        /// Path inside of the bundle.
        file: String,
        /// From 1.
        line: usize,
        /// `type.name`.
        source_name: String,
        /// The attribute.
        attribute: String,
    },
    /// A value that tags can't be merged into.
    #[error("{file}:{line}:{column}: `{attribute}` can't get the build's tags: {reason}")]
    UnmergeableTags {
        /// Path inside of the bundle.
        file: String,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// The attribute.
        attribute: String,
        /// What it takes instead.
        reason: &'static str,
    },
    /// A tag that can't be written into a template.
    #[error(transparent)]
    Tag(#[from] crate::tagging::TagError),
    /// Our own change made the file unreadable; the author's text is not at fault.
    #[error("{file}:{line}: this template's text can't be tagged: {message}")]
    Untaggable {
        /// Path inside of the bundle.
        file: String,
        /// From 1, in the tagged text.
        line: usize,
        /// One line.
        message: String,
    },
}

/// A list in a sentence: `a, b and 3 more`, or `none`.
pub(crate) struct List<'a>(pub(crate) &'a [String]);

const SHOWN: usize = 10;

impl fmt::Display for List<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("none");
        }
        formatter.write_str(&self.0[..self.0.len().min(SHOWN)].join(", "))?;
        match self.0.len().checked_sub(SHOWN) {
            Some(more) if more > 0 => write!(formatter, " and {more} more"),
            _ => Ok(()),
        }
    }
}
