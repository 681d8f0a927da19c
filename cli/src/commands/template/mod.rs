//! `ciab template`: what there is to do with a template before any build.

pub(crate) mod check;
pub(crate) mod upload;
