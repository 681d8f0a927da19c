//! Text from elsewhere (a build's log, the service's messages) made safe for a terminal.
//!
//! A log line must not be able to move the cursor, retitle the window, hide other text, or answer for the user.

/// The text with colour sequences dropped and every other control character made visible; tabs stay.
pub(crate) fn neutralise(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text.trim_end_matches(['\r', '\n']).chars();
    while let Some(character) = rest.next() {
        if character == '\u{1b}'
            && let Some(after) = after_colour(rest.as_str())
        {
            rest = after.chars();
            continue;
        }
        safe.push(visible(character));
    }
    safe
}

/// What follows a colour sequence's `[…m`. Only digits and `;` may stand inside: all others are shown, not guessed at.
fn after_colour(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('[')?;
    inside
        .trim_start_matches(|character: char| character.is_ascii_digit() || character == ';')
        .strip_prefix('m')
}

fn visible(character: char) -> char {
    match character {
        '\t' => '\t',
        // U+2400 to U+2421 picture the control characters of ASCII.
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(character)).unwrap_or('\u{fffd}'),
        '\u{7f}' => '\u{2421}',
        '\u{80}'..='\u{9f}' => '\u{fffd}',
        // Marks that turn the direction of text and so can make it read as something else.
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        // Line separators that some terminals break at.
        '\u{2028}' | '\u{2029}' => '\u{fffd}',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_vanish_and_text_stays() {
        assert_eq!(neutralise("\u{1b}[1;32mamazon-ebs: done\u{1b}[0m\r"), "amazon-ebs: done");
    }

    #[test]
    fn a_window_title_and_a_cleared_screen_are_only_shown() {
        assert_eq!(neutralise("\u{1b}]0;owned\u{7}"), "␛]0;owned␇");
        assert_eq!(neutralise("a\u{1b}[2Jb"), "a␛[2Jb");
        assert_eq!(neutralise("a\u{9b}2Jb"), "a\u{fffd}2Jb");
    }

    #[test]
    fn one_line_stays_one_line() {
        assert_eq!(neutralise("a\nb\rc"), "a␊b␍c");
    }

    #[test]
    fn tabs_and_other_scripts_stay() {
        assert_eq!(neutralise("\tÄpfel 水"), "\tÄpfel 水");
    }

    #[test]
    fn text_cannot_be_turned_around() {
        assert_eq!(neutralise("a\u{202e}b"), "a\u{fffd}b");
    }

    #[test]
    fn an_unfinished_sequence_does_not_swallow_what_follows() {
        assert_eq!(neutralise("\u{1b}[31"), "␛[31");
    }
}
