//! Writing values as HCL and as JSON. Must never let a value become anything but a string.

use super::TagError;
use crate::json::Dialect;

/// A quoted HCL string that means exactly `value`.
pub(super) fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    let mut rest = value.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            // `${` and `%{` start code; HCL writes them doubled. In a longer run of these signs it is not clear which
            // ones are doubled, so those before the last are written by their number.
            '$' | '%' if matches!(rest.peek(), Some('{')) => text.extend([character, character]),
            '$' | '%' if matches!(rest.peek(), Some('$' | '%')) => escape_by_number(character, &mut text),
            _ if character.is_control() => escape_by_number(character, &mut text),
            _ => text.push(character),
        }
    }
    text.push('"');
    text
}

fn escape_by_number(character: char, text: &mut String) {
    text.push_str(&format!("\\u{:04x}", u32::from(character)));
}

/// A value as the decoded string of a JSON template has to hold it, so that Packer reads exactly `value`.
pub(super) fn as_json_text(value: &str, dialect: Dialect) -> String {
    if dialect == Dialect::Legacy {
        return value.to_owned();
    }
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find(['$', '%']) {
        text.push_str(&rest[..at]);
        let signs = &rest[at..];
        let length = signs.find(|sign| !matches!(sign, '$' | '%')).unwrap_or(signs.len());
        let (signs, after) = signs.split_at(length);
        if after.starts_with('{') {
            // Doubling the last one makes the brace text. Those before it would be taken for doubled signs themselves,
            // and there is no other way to write them: a string of HCL's JSON has no escapes of HCL.
            let (before, last) = signs.split_at(length - 1);
            before.chars().for_each(|sign| text.push_str(&format!("${{\"{sign}\"}}")));
            text.push_str(last);
            text.push_str(last);
        } else {
            text.push_str(signs);
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

/// A text as a JSON string, quotes included.
pub(super) fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether a tag can be written into a template.
///
/// # Errors
///
/// Packer renders `{{…}}` in tags again and again until nothing changes, so there is no way to write it as text.
pub fn check_tag(key: &str, value: &str) -> Result<(), TagError> {
    if key.contains("{{") || value.contains("{{") {
        return Err(TagError { key: key.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hcl_edit::expr::Expression;
    use proptest::prelude::*;

    #[test]
    fn code_becomes_text() {
        assert_eq!(quoted("${env}"), r#""$${env}""#);
        assert_eq!(quoted("%{if}"), r#""%%{if}""#);
        assert_eq!(quoted("a\"b\\c\nd"), r#""a\"b\\c\nd""#);
        assert_eq!(quoted("$5 100%"), r#""$5 100%""#);
        assert_eq!(quoted("$${x}"), r#""\u0024$${x}""#);
    }

    #[test]
    fn code_becomes_text_in_json_too() {
        let text = |value| as_json_text(value, Dialect::Hcl2);
        assert_eq!(text("${env} %{if}"), "$${env} %%{if}");
        assert_eq!(text("$5 100% $$ {"), "$5 100% $$ {");
        assert_eq!(text("$${x}"), "${\"$\"}$${x}");
        assert_eq!(text("%$%{x}$"), "${\"%\"}${\"$\"}%%{x}$");
        assert_eq!(as_json_text("$${x}", Dialect::Legacy), "$${x}");
        assert_eq!(json_string("a\"b\\\n"), r#""a\"b\\\n""#);
    }

    #[test]
    fn a_tag_that_packer_would_render_is_refused() {
        assert!(check_tag("a", "{{ env `HOME` }}").is_err());
        assert!(check_tag("{{build_name}}", "a").is_err());
        assert!(check_tag("a", "{}").is_ok());
    }

    proptest! {
        #[test]
        fn whatever_the_value_it_reads_back_as_that_value(value in r#"([$%{}"\\\n\t\r~a]|\PC){0,12}"#) {
            let expression: Expression = quoted(&value).parse().unwrap();
            let read = match &expression {
                Expression::String(text) => text.value().clone(),
                Expression::StringTemplate(template) => {
                    prop_assert!(template.iter().all(hcl_edit::template::Element::is_literal));
                    template.iter().map(|element| element.as_literal().unwrap().value().as_str()).collect()
                }
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(read, value);
        }

        #[test]
        fn in_json_too(value in r#"([$%{}"\\\n\t\r~a]|\PC){0,12}"#) {
            let template: hcl_edit::template::Template =
                as_json_text(&value, Dialect::Hcl2).parse().unwrap();
            let read: String = template
                .iter()
                .map(|element| match element {
                    hcl_edit::template::Element::Literal(text) => text.value().as_str(),
                    hcl_edit::template::Element::Interpolation(sign) => sign.expr.as_str().unwrap(),
                    other => panic!("{other:?}"),
                })
                .collect();
            prop_assert_eq!(read, value);
        }
    }
}
