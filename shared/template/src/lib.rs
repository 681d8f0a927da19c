//! Packer templates: where they come from, what they hold, and how a build's tags get into them.
//!
//! Everything here is a pure function over bytes. This crate must never read or write a file, the network, the clock or
//! the environment; whoever calls it does that.
#![warn(missing_docs)]

mod archive;
mod builtin;
mod bundle;
mod bundle_part;
mod download;
mod error;
mod form;
mod hcl;
mod heredocs;
mod json;
mod legacy;
mod local_execution;
mod packer_environment;
mod parsed;
mod source;
mod stack;
mod summary;
mod tagging;
mod text;
mod variable_file;
mod variable_type;
mod variables;

pub use archive::{ArchiveError, ArchivedFile, UnpackLimits, VARIABLES_FILE, read_tar_gz};
pub use builtin::{builtin, builtin_names};
pub use bundle::{Bundle, BundleError};
pub use download::DownloadError;
pub use error::TemplateError;
pub use form::TemplateForm;
pub use hcl::parse_hcl;
pub use local_execution::{LocalExecution, local_execution};
pub use packer_environment::is_passed_to_packer;
pub use parsed::{ParsedTemplate, read, tag};
pub use source::{GitSource, SubmittedTemplate, TemplateSource, TemplateSourceError, UrlSource};
pub use summary::{DeclaredSource, DeclaredVariable, RequiredPlugin, TemplateSummary};
pub use tagging::{PackerVersion, TagError, TagOptions, check_tag};
pub use variable_file::{VariableFileError, read_variable_file};
pub use variables::{
    STANDARD_VARIABLES, StandardValues, VariableError, check_variables, fill_in, standard_values,
    variables_file,
};
