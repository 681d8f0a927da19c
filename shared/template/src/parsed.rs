//! A bundle's templates, parsed once for all that is done with them.

use std::fmt;

use crate::bundle::Bundle;
use crate::error::TemplateError;
use crate::form::{TemplateFile, parse_templates};
use crate::summary::{self, TemplateSummary};
use crate::tagging::{self, TagOptions};

/// The templates of a bundle. Parsing is most of the time that a template takes: keep this where it is read and tagged.
pub struct ParsedTemplate<'a> {
    bundle: &'a Bundle,
    files: Vec<TemplateFile<'a>>,
}

impl<'a> ParsedTemplate<'a> {
    /// Parses what Packer would read of a bundle.
    ///
    /// # Errors
    ///
    /// Where there is no template, it is not clear which, or one can't be parsed.
    pub fn of(bundle: &'a Bundle) -> Result<Self, TemplateError> {
        Ok(Self { bundle, files: parse_templates(bundle)? })
    }

    /// What it declares.
    ///
    /// # Errors
    ///
    /// Where a block is not what Packer would take for one, or the bundle's own variable files can't be parsed.
    pub fn summary(&self) -> Result<TemplateSummary, TemplateError> {
        summary::summarise(self.bundle, &self.files)
    }

    /// The bundle with every Amazon source tagged.
    ///
    /// # Errors
    ///
    /// Where it has no Amazon source, or a tag can't be written.
    pub fn tag(&self, options: &TagOptions) -> Result<Bundle, TemplateError> {
        tagging::tag_files(self.bundle, &self.files, options)
    }
}

impl fmt::Debug for ParsedTemplate<'_> {
    /// Names the files and shows none: there may be secrets in them.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.files.iter().map(TemplateFile::path)).finish()
    }
}

/// Reads all of a bundle's templates.
///
/// # Errors
///
/// Those of [`ParsedTemplate::of`] and [`ParsedTemplate::summary`].
pub fn read(bundle: &Bundle) -> Result<TemplateSummary, TemplateError> {
    ParsedTemplate::of(bundle)?.summary()
}

/// The bundle with every Amazon source tagged.
///
/// # Errors
///
/// Those of [`ParsedTemplate::of`] and [`ParsedTemplate::tag`].
pub fn tag(bundle: &Bundle, options: &TagOptions) -> Result<Bundle, TemplateError> {
    ParsedTemplate::of(bundle)?.tag(options)
}
