//! Functions in the strings of the form before HCL2, which are templates of Go's: `{{…}}`.
//!
//! Reads the actions as Go does, as far as finding every call needs it: what stands in quotes or in a comment is none, and
//! braces in quotes end nothing.

use super::calls::environment;

/// What is wrong with the functions in one string.
pub(super) fn judge(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("{{") {
        let (words, after) = action(after);
        rest = after;
        for (index, word) in words.iter().enumerate() {
            let Word::Name(name) = word else { continue };
            found.extend(match name.as_str() {
                "env" => environment(argument(&words, index)),
                "vault" | "consul_key" => Some(format!("`{name}` asks another service from the runner")),
                _ if name.starts_with("aws_secretsmanager") => {
                    Some(format!("`{name}` reads a secret with the runner's AWS permissions"))
                }
                _ => None,
            });
        }
    }
    found
}

/// The one thing that a function is called with, where it is written out. After a pipe comes what the pipe brings.
fn argument(words: &[Word], index: usize) -> Option<&str> {
    if index > 0 && matches!(words.get(index - 1), Some(Word::Mark('|'))) {
        return None;
    }
    match words.get(index + 1) {
        Some(Word::Text(text)) => text.as_deref(),
        _ => None,
    }
}

enum Word {
    /// A function, or a field with its dots, or a variable with its dollar sign.
    Name(String),
    /// None where it has escapes, which nobody needs in a variable's name.
    Text(Option<String>),
    Mark(char),
}

/// The words of an action, and what follows it. One that does not end goes on to the end of the text.
fn action(text: &str) -> (Vec<Word>, &str) {
    // Go trims white space in the text before where a hyphen and a blank stand here.
    let trimmed = text.strip_prefix('-').unwrap_or(text).trim_start();
    if let Some(comment) = trimmed.strip_prefix("/*") {
        return (Vec::new(), comment.split_once("*/").map_or("", |(_, after)| after));
    }
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("}}") {
            return (words, after);
        }
        let length = match first {
            '`' => rest[1..].find('`').map_or(rest.len(), |end| end + 2),
            '"' | '\'' => quoted(rest, first),
            _ if is_of_name(first) => rest.find(|other| !is_of_name(other)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (word, after) = rest.split_at(length);
        match first {
            '`' | '"' | '\'' => {
                let inner = word.get(1..word.len().saturating_sub(1)).unwrap_or_default();
                let is_plain = first == '`' || !inner.contains('\\');
                words.push(Word::Text(is_plain.then(|| inner.to_owned())));
            }
            _ if is_of_name(first) => words.push(Word::Name(word.to_owned())),
            _ if first.is_whitespace() => {}
            other => words.push(Word::Mark(other)),
        }
        rest = after;
    }
    (words, "")
}

fn is_of_name(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '.' | '$')
}

/// The length of what stands in quotes at the beginning of a text, quotes included.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_harms_nobody_passes() {
        for text in [
            "",
            "env AWS_SECRET_ACCESS_KEY",
            "{{env `HOME`}} {{ env \"USER\" | lower }} {{- env `AWS_REGION` -}}",
            "chmod +x {{ .Path }}; env {{ .Vars }} {{ .Path }}",
            "{{/* env `AWS_SECRET_ACCESS_KEY` */}}",
            "{{ \"env\" }} {{ .env }} {{ $env }}",
            "{{user `env`}}",
            "}} env `AWS_SECRET_ACCESS_KEY`",
        ] {
            assert_eq!(judge(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn a_variable_is_found_however_its_name_gets_to_env() {
        for text in [
            "{{env `AWS_SECRET_ACCESS_KEY`}}",
            "x {{- env \"AWS_SECRET_ACCESS_KEY\"",
            "{{ \"AWS_SECRET_ACCESS_KEY\" | env }}",
            "{{ \"AWS_SECRET_ACCESS_KEY\" | env | upper }}",
            "{{ env (printf \"AWS_%s\" \"SECRET_ACCESS_KEY\") }}",
            "{{ env \"\\x41WS_SECRET_ACCESS_KEY\" }}",
            "{{ env \"AWS\\x5fSECRET_ACCESS_KEY\" }}",
            "{{ $x := \"AWS_SECRET_ACCESS_KEY\" }}{{ env $x }}",
            "{{ with \"AWS_SECRET_ACCESS_KEY\" }}{{ env . }}{{ end }}",
            "{{ \"}}\" | printf \"AWS_SECRET_ACCESS_KEY%.0s\" | env }}",
            "{{/* \" */}}{{env `AWS_SECRET_ACCESS_KEY`}}{{/* \" */}}",
            "{{if true}}{{env `AWS_SECRET_ACCESS_KEY`}}{{end}}",
            "{{ '\"' }}{{env `AWS_SECRET_ACCESS_KEY`}}{{ '\"' }}",
        ] {
            assert_eq!(judge(text).len(), 1, "{text}");
        }
    }

    #[test]
    fn other_services_are_found() {
        for text in
            ["{{ vault `/a` `b` }}", "{{ `a` | consul_key | upper }}", "{{aws_secretsmanager_raw `a`}}"]
        {
            assert_eq!(judge(text).len(), 1, "{text}");
        }
    }
}
