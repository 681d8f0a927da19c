//! From text to values: strict JSON (RFC 8259), as Packer wants it, and no deeper than a template needs.

use jsonc_parser::ast::Value;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use serde::de::IgnoredAny;

use super::{Dialect, JsonFile};
use crate::error::TemplateError;
use crate::text::{column_at, line_at};

/// How deep objects and arrays may stand in each other; the same as for HCL.
const DEEPEST: usize = 64;

/// Parses one file.
///
/// # Errors
///
/// Where it is not JSON, or too deep. The message says where.
pub(crate) fn parse<'a>(
    path: &'a str,
    bytes: &'a [u8],
    dialect: Dialect,
) -> Result<JsonFile<'a>, TemplateError> {
    let text = std::str::from_utf8(bytes).map_err(|_| TemplateError::NotText { file: path.to_owned() })?;
    let error = |line, column, message: &str| TemplateError::Syntax {
        file: path.to_owned(),
        line,
        column,
        message: message.replace('\n', " "),
    };
    if text.starts_with('\u{feff}') {
        return Err(error(1, 1, "Packer reads no JSON that starts with a byte order mark"));
    }
    // The parser that knows places takes more than JSON (a raw line break in a string) and calls itself at each level;
    // this one is strict and does not.
    serde_json::from_str::<IgnoredAny>(text).map_err(|wrong| {
        let at = offset_of(text, wrong.line(), wrong.column());
        let message = wrong.to_string();
        let place = format!(" at line {} column {}", wrong.line(), wrong.column());
        error(line_at(text, at), column_at(text, at), message.strip_suffix(&place).unwrap_or(&message))
    })?;
    if let Some(at) = too_deep(text) {
        let message = format!("objects and arrays stand more than {DEEPEST} deep in each other");
        return Err(error(line_at(text, at), column_at(text, at), &message));
    }
    Ok(JsonFile {
        path,
        text,
        root: values(text).map_err(|(line, column, message)| error(line, column, &message))?,
        dialect,
    })
}

fn values(text: &str) -> Result<Value<'_>, (usize, usize, String)> {
    let strict = ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let parsed = parse_to_ast(text, &CollectOptions::default(), &strict)
        .map_err(|wrong| (wrong.line_display(), wrong.column_display(), wrong.kind().to_string()))?;
    parsed.value.ok_or_else(|| (1, 1, "there is no value".to_owned()))
}

/// The offset of a line and a column in bytes, both from 1, as `serde_json` counts them.
fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let mut at = (start + column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Where the first bracket stands that opens one level too many. The text is JSON.
fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => {
                while let Some((_, byte)) = bytes.next() {
                    match byte {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > DEEPEST {
                    return Some(at);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (usize, usize, String) {
        match parse("a.pkr.json", text.as_bytes(), Dialect::Hcl2).map(|_| ()) {
            Err(TemplateError::Syntax { line, column, message, .. }) => (line, column, message),
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        assert_eq!(refused("{\n  \"é\": x\n}"), (2, 8, "expected value".to_owned()));
        assert_eq!(refused("{\"a\": 1,}"), (1, 9, "key must be a string".to_owned()));
        for text in [
            "",
            " ",
            "{",
            "{\"a\"",
            "{a: 1}",
            "{'a': 1}",
            "[1 2]",
            "// x\n{}",
            "{} {}",
            "{\"a\": \"\n\"}",
            "{\"a\": 01}",
            "{\"a\": +1}",
            "{\"a\": .5}",
            "{\"a\": NaN}",
            "{\"a\": \"\\x41\"}",
            "{\"a\": \"\\ud800\"}",
            "\u{a0}{}",
        ] {
            refused(text);
        }
    }

    #[test]
    fn a_byte_order_mark_is_named() {
        let (line, column, message) = refused("\u{feff}{}");
        assert_eq!((line, column), (1, 1));
        assert!(message.contains("byte order mark"), "{message}");
    }

    #[test]
    fn depth_is_bounded_and_brackets_in_strings_do_not_count() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse("a.json", nested(64).as_bytes(), Dialect::Legacy).is_ok());
        assert_eq!(refused(&nested(65)).1, 65);
        assert_eq!(refused(&nested(100_000)).1, 65);
        let objects = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
        assert!(refused(&objects).2.contains("64 deep"));
        let text = format!("[\"\\\"{}\"]", "[".repeat(1_000));
        assert!(parse("a.json", text.as_bytes(), Dialect::Legacy).is_ok());
    }
}
