//! The patterns of policies: `*`, `?` and policy variables (`${aws:PrincipalTag/team}`).
//!
//! Must never read a wildcard out of what a variable stands for: a value is text (IAM User Guide, "IAM policy elements:
//! Variables and tags").

use super::call::Keys;

/// One pattern.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pattern(Vec<Token>);

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Character(char),
    One,
    Any,
    /// The name of a condition key, and what stands for it where the request has none.
    Variable {
        key: String,
        default: Option<String>,
    },
}

impl Pattern {
    /// Reads a pattern; an error says what of it cannot be.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            if let Some(inside) = rest.strip_prefix("${") {
                let (variable, after) = inside
                    .split_once('}')
                    .ok_or_else(|| format!("`{text}` opens a variable and does not close it"))?;
                tokens.push(variable_of(variable)?);
                rest = after;
                continue;
            }
            tokens.push(match next {
                '*' => Token::Any,
                '?' => Token::One,
                other => Token::Character(other),
            });
            rest = &rest[next.len_utf8()..];
        }
        Ok(Self(tokens))
    }

    /// Only its own text, with no wildcards: for operators that know none.
    pub(crate) fn text(&self, keys: &Keys) -> Option<String> {
        let mut text = String::new();
        for token in &self.0 {
            match token {
                Token::Character(character) => text.push(*character),
                Token::One => text.push('?'),
                Token::Any => text.push('*'),
                Token::Variable { key, default } => text.push_str(&value_of(key, default.as_ref(), keys)?),
            }
        }
        Some(text)
    }

    /// Whether the text is one that the pattern means. A variable that the request has no value for matches nothing.
    pub(crate) fn matches(&self, text: &str, keys: &Keys) -> bool {
        self.resolved(keys).is_some_and(|tokens| matches(&tokens, &text.chars().collect::<Vec<_>>()))
    }

    /// As [`Pattern::matches`], for two ARNs: each of the first five parts for itself, so that no wildcard reaches over a colon there.
    pub(crate) fn matches_arn(&self, arn: &str, keys: &Keys) -> bool {
        let Some(tokens) = self.resolved(keys) else { return false };
        if tokens.iter().all(|token| *token == Token::Any) && !tokens.is_empty() {
            return true;
        }
        let ours: Vec<&[Token]> = tokens.splitn(6, |token| *token == Token::Character(':')).collect();
        let theirs: Vec<&str> = arn.splitn(6, ':').collect();
        ours.len() == 6
            && theirs.len() == 6
            && ours
                .iter()
                .zip(theirs)
                .all(|(ours, theirs)| matches(ours, &theirs.chars().collect::<Vec<_>>()))
    }

    /// Puts another text in the place of one that stands in it whole.
    pub(crate) fn replace(&mut self, from: &str, to: &str) {
        let characters = |text: &str| text.chars().map(Token::Character).collect::<Vec<_>>();
        let from = characters(from);
        if self.0.ends_with(&from) {
            self.0.truncate(self.0.len() - from.len());
            self.0.extend(characters(to));
        }
    }

    fn resolved(&self, keys: &Keys) -> Option<Vec<Token>> {
        let mut resolved = Vec::with_capacity(self.0.len());
        for token in &self.0 {
            match token {
                Token::Variable { key, default } => {
                    resolved.extend(value_of(key, default.as_ref(), keys)?.chars().map(Token::Character));
                }
                other => resolved.push(other.clone()),
            }
        }
        Some(resolved)
    }
}

fn variable_of(variable: &str) -> Result<Token, String> {
    match variable {
        "*" | "?" | "$" => return Ok(Token::Character(variable.chars().next().unwrap_or('$'))),
        _ => {}
    }
    let (key, default) = match variable.split_once(',') {
        None => (variable, None),
        Some((key, default)) => {
            let text = default.trim().strip_prefix('\'').and_then(|default| default.strip_suffix('\''));
            (
                key,
                Some(
                    text.ok_or_else(|| format!("the default of the variable {variable} is not quoted"))?
                        .to_owned(),
                ),
            )
        }
    };
    let key = super::condition::known_key(key.trim())?;
    Ok(Token::Variable { key, default })
}

fn value_of(key: &str, default: Option<&String>, keys: &Keys) -> Option<String> {
    match keys.get(key).map(Vec::as_slice) {
        Some([value]) => Some(value.clone()),
        _ => default.cloned(),
    }
}

fn matches(pattern: &[Token], text: &[char]) -> bool {
    // Where the last `*` was, and how far the text was taken for it: the only place to come back to.
    let (mut at, mut read) = (0, 0);
    let mut last: Option<(usize, usize)> = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(Token::Any) => {
                last = Some((at, read));
                at += 1;
                continue;
            }
            Some(Token::One) => {}
            Some(Token::Character(wanted)) if *wanted == text[read] => {}
            _ => {
                let Some((star, taken)) = last else { return false };
                last = Some((star, taken + 1));
                (at, read) = (star + 1, taken + 1);
                continue;
            }
        }
        (at, read) = (at + 1, read + 1);
    }
    pattern[at..].iter().all(|token| *token == Token::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn does_match(pattern: &str, text: &str) -> bool {
        let keys = Keys::from([("aws:principaltag/team".to_owned(), vec!["a*".to_owned()])]);
        Pattern::parse(pattern).unwrap().matches(text, &keys)
    }

    #[test]
    fn wildcards_reach_as_far_as_they_must() {
        for (pattern, text) in
            [("*", ""), ("a*c", "abbc"), ("a?c", "abc"), ("*b*", "abc"), ("a*b*c", "axbxbc"), ("", "")]
        {
            assert!(does_match(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a?c", "ac"), ("a*c", "abcd"), ("abc", "ab"), ("ab", "abc"), ("?", "")] {
            assert!(!does_match(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_variables_value_is_text_and_one_without_a_value_matches_nothing() {
        assert!(does_match("x/${aws:PrincipalTag/team}", "x/a*"));
        assert!(!does_match("x/${aws:PrincipalTag/team}", "x/ab"));
        assert!(!does_match("x/${aws:PrincipalTag/other}*", "x/"));
        assert!(does_match("x/${aws:PrincipalTag/other, 'none'}", "x/none"));
        assert!(does_match("${*}", "*") && !does_match("${*}", "a"));
        assert!(Pattern::parse("${aws:PrincipalTag/team").is_err());
        assert!(Pattern::parse("${aws:nonsense}").is_err());
    }

    #[test]
    fn a_wildcard_in_an_arn_stays_between_its_colons() {
        let is = |pattern: &str, arn: &str| Pattern::parse(pattern).unwrap().matches_arn(arn, &Keys::new());
        assert!(is("*", "arn:aws:s3:::b"));
        assert!(is("arn:aws:ec2:*::image/*", "arn:aws:ec2:us-east-1::image/ami-1"));
        assert!(!is("arn:aws:ec2:*::image/*", "arn:aws:ec2:us-east-1:123456789012:image/ami-1"));
        assert!(!is("arn:aws:ec2:*:image/*", "arn:aws:ec2:us-east-1::image/ami-1"));
        assert!(is("arn:aws:logs:r:a:log-group:x:*", "arn:aws:logs:r:a:log-group:x:log-stream:y"));
        assert!(!is("arn:aws:s3:::b/*", "*"));
    }
}
