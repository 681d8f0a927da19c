//! Writing values as HCL. Must never let a value become anything but a string.

use super::TagError;

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
    }
}
