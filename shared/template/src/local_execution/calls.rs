//! Calls of functions that read the runner's files or environment, or ask another service with what they find there.

use hcl_edit::Span;
use hcl_edit::expr::FuncCall;
use hcl_edit::structure::Body;
use hcl_edit::template::Template;
use hcl_edit::visit::{Visit, visit_func_call};

use super::document::{template_of, text_of};
use super::paths;
use crate::bundle::{Bundle, normalise};
use crate::packer_environment::may_hold_a_credential;

/// One call, with its arguments as far as they are known.
pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: Vec<Option<String>>,
    /// A line, or where it stands until somebody knows the lines.
    pub(super) line: usize,
}

pub(super) fn calls_in(body: &Body) -> Vec<Call> {
    let mut finder = Finder::default();
    finder.visit_body(body);
    finder.calls
}

pub(super) fn calls_in_template(template: &Template) -> Vec<Call> {
    let mut finder = Finder::default();
    finder.visit_template(template);
    finder.calls
}

#[derive(Default)]
struct Finder {
    calls: Vec<Call>,
}

impl Visit for Finder {
    fn visit_func_call(&mut self, call: &FuncCall) {
        self.calls.push(Call {
            name: call.name.name.as_str().to_owned(),
            arguments: call.args.iter().map(text_of).collect(),
            line: call.span().map_or(0, |span| span.start),
        });
        visit_func_call(self, call);
    }
}

/// What is wrong with a call, if anything is.
pub(super) fn judge(call: &Call, bundle: &Bundle) -> Option<String> {
    let name = call.name.as_str();
    let first = call.arguments.first().and_then(Option::as_deref);
    match name {
        "templatefile" => path(name, first).or_else(|| template_file(first.unwrap_or_default(), bundle)),
        "vault" | "consul_key" => Some(format!("`{name}()` asks another service from the runner")),
        _ if name.starts_with("aws_secretsmanager") => {
            Some(format!("`{name}()` reads a secret with the runner's AWS permissions"))
        }
        "env" => environment(first),
        // Its second argument is a pattern, which may lead out as well.
        "fileset" => {
            path(name, first).or_else(|| path(name, call.arguments.get(1).map_or(Some(""), Option::as_deref)))
        }
        // `file`, `fileset`, `fileexists`, and whatever a later Packer adds to them.
        _ if name.starts_with("file") => path(name, first),
        _ => None,
    }
}

fn path(function: &str, first: Option<&str>) -> Option<String> {
    let Some(given) = first else {
        return Some(format!(
            "the path in `{function}()` is computed, so that it may lead to any file of the runner"
        ));
    };
    paths::judge(given)
        .map(|wrong| format!("`{function}()` reads `{}` on the runner: {wrong}", paths::shown(given)))
}

/// Functions in a file that is rendered run where the rendering is done.
fn template_file(given: &str, bundle: &Bundle) -> Option<String> {
    let unknown = |why: &str| Some(format!("`templatefile()` renders `{}`, {why}", paths::shown(given)));
    let Some(bytes) = normalise(given).ok().and_then(|path| bundle.get(&path)) else {
        return unknown("which the template does not have");
    };
    let Some(template) = std::str::from_utf8(bytes).ok().and_then(template_of) else {
        return unknown("which can't be read as a template");
    };
    let nested = calls_in_template(&template);
    let wrong = nested.iter().find_map(|call| match call.name.as_str() {
        // Packer refuses it there.
        "templatefile" => None,
        _ => judge(call, bundle),
    })?;
    unknown(&format!("in which {wrong}"))
}

/// Reading a variable that Packer does not get gives an empty string, so that the common `default = env("USER")` harms
/// nobody.
pub(super) fn environment(name: Option<&str>) -> Option<String> {
    let Some(name) = name else {
        return Some("`env()` reads a variable of the runner whose name is computed".to_owned());
    };
    may_hold_a_credential(name).then(|| {
        format!(
            "`{}` reads a variable of the runner that may hold a credential",
            paths::shown(&format!("env({name})"))
        )
    })
}
