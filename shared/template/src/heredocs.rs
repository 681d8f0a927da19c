//! Heredocs that end in one place for our parser and in another for Packer's. Between the two places could stand whatever
//! we would take for text and Packer for blocks, or the other way round: such a file is refused.
//!
//! Packer ends a heredoc at the first line that is nothing but its name, whatever white space stands around it. Ours looks
//! for the name at the beginning of a line, with blanks and tabs alone before it, lets more follow, and does not see the end of
//! an empty heredoc where the same name comes again.

use hcl_edit::Span;
use hcl_edit::expr::Expression;
use hcl_edit::structure::Body;
use hcl_edit::template::Template;
use hcl_edit::visit::{Visit, visit_expr};

/// What to say of one.
pub(crate) const MESSAGE: &str = "it isn't clear where this heredoc ends: the name that ends it must stand alone on one line, \
                                  and on no line before";

/// Where the first one stands in the text that a body was parsed from.
pub(crate) fn unclear_in(text: &str, body: &Body) -> Option<usize> {
    let mut finder = Finder { text, found: None };
    finder.visit_body(body);
    finder.found
}

/// Where the first one stands in the text that a template was parsed from.
pub(crate) fn unclear_in_template(text: &str, template: &Template) -> Option<usize> {
    let mut finder = Finder { text, found: None };
    finder.visit_template(template);
    finder.found
}

struct Finder<'a> {
    text: &'a str,
    found: Option<usize>,
}

impl Visit for Finder<'_> {
    fn visit_expr(&mut self, expression: &Expression) {
        if let Expression::HeredocTemplate(heredoc) = expression {
            let start = expression.span().map_or(0, |span| span.start);
            let end = expression.span().map_or(self.text.len(), |span| span.end);
            if self.found.is_none() && !ends_once(self.text, start, end, heredoc.delimiter.as_str()) {
                self.found = Some(start);
            }
        }
        visit_expr(self, expression);
    }
}

/// Whether the first line that is nothing but the name is that on which the heredoc was seen to end.
fn ends_once(text: &str, start: usize, end: usize, name: &str) -> bool {
    let (Some(heredoc), Some(after)) = (text.get(start..end), text.get(end..)) else { return false };
    let rest_of_line = after.split('\n').next().unwrap_or_default();
    let Some((before, last)) = heredoc.rsplit_once('\n') else { return false };
    last.trim() == name
        && rest_of_line.trim().is_empty()
        && before.split('\n').skip(1).all(|line| line.trim() != name)
}
