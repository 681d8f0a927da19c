//! The one printer: results to stdout, everything else to stderr.
//!
//! Nothing else in the program writes to either. Progress is drawn on a terminal only, colour is never needed to
//! understand a line, and text from elsewhere can't steer the terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{ColumnConstraint, Table, TableStyle, Width};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::args::Format;
use crate::exit::Failure;
use crate::terminal_text::neutralise;

/// What goes to stderr: errors, notes and hints.
pub(crate) struct Notices {
    terminal: bool,
    colour: bool,
}

impl Notices {
    pub(crate) fn new() -> Self {
        let terminal = io::stderr().is_terminal();
        let switched_off = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self { terminal, colour: terminal && !switched_off }
    }

    pub(crate) fn error(&self, message: &str) {
        self.labelled("error", "\u{1b}[1;31m", message);
    }

    pub(crate) fn warning(&self, message: &str) {
        self.labelled("warning", "\u{1b}[1;33m", message);
    }

    pub(crate) fn hint(&self, message: &str) {
        self.labelled("hint", "\u{1b}[1;36m", message);
    }

    pub(crate) fn note(&self, message: &str) {
        self.line(message);
    }

    fn labelled(&self, label: &str, colour: &str, message: &str) {
        let message: Vec<String> = message.lines().map(neutralise).collect();
        let message = message.join("\n");
        if self.colour {
            write_notice(&format!("{colour}{label}\u{1b}[0m: {message}"));
        } else {
            write_notice(&format!("{label}: {message}"));
        }
    }

    fn line(&self, text: &str) {
        if self.terminal { write_notice(&neutralise(text)) } else { write_notice(text) }
    }
}

/// Where stderr is closed there is nobody left to tell.
fn write_notice(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

pub(crate) struct Printer {
    format: Format,
    notices: Notices,
    stdout_terminal: bool,
    /// The reader of stdout went away (`| head`): nothing more to print, which is no failure.
    stdout_closed: bool,
    progress: Option<ProgressBar>,
}

impl Printer {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            notices: Notices::new(),
            stdout_terminal: io::stdout().is_terminal(),
            stdout_closed: false,
            progress: None,
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.stdout_closed
    }

    /// The result: the service's document, or a text made of it for people.
    pub(crate) fn result(
        &mut self,
        document: &Value,
        text: impl FnOnce(&Value) -> String,
    ) -> Result<(), Failure> {
        let rendered = match self.format {
            Format::Table => text(document),
            Format::Json => json(document, true)? + "\n",
            Format::Yaml => yaml(document)?,
        };
        self.raw(&rendered)
    }

    /// One line of a log that is the result.
    pub(crate) fn result_line(&mut self, line: &Value) -> Result<(), Failure> {
        let rendered = match self.format {
            Format::Table if self.stdout_terminal => neutralise(log_text(line)) + "\n",
            Format::Table => log_text(line).to_owned() + "\n",
            Format::Json => json(line, false)? + "\n",
            // Lists of one, printed one after the other, read as one list.
            Format::Yaml => yaml(&Value::Array(vec![line.clone()]))?,
        };
        self.raw(&rendered)
    }

    /// Text for stdout as it is.
    pub(crate) fn raw(&mut self, text: &str) -> Result<(), Failure> {
        if self.stdout_closed {
            return Ok(());
        }
        let write = || {
            let mut stdout = io::stdout().lock();
            stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
        };
        let written = match &self.progress {
            Some(progress) => progress.suspend(write),
            None => write(),
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.stdout_closed = true,
            other => other.map_err(|source| Failure::Output { source })?,
        }
        Ok(())
    }

    /// One line of a log that is progress.
    pub(crate) fn progress_line(&self, line: &Value) {
        self.notice(|notices| notices.line(log_text(line)));
    }

    pub(crate) fn note(&self, text: &str) {
        self.notice(|notices| notices.note(text));
    }

    pub(crate) fn warning(&self, text: &str) {
        self.notice(|notices| notices.warning(text));
    }

    pub(crate) fn hint(&self, text: &str) {
        self.notice(|notices| notices.hint(text));
    }

    fn notice(&self, write: impl FnOnce(&Notices)) {
        match &self.progress {
            Some(progress) => progress.suspend(|| write(&self.notices)),
            None => write(&self.notices),
        }
    }

    /// Begins a progress line; off a terminal this does nothing.
    pub(crate) fn start_progress(&mut self, message: &str) {
        if !self.notices.terminal {
            return;
        }
        let progress = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            progress.set_style(style);
        }
        progress.set_message(neutralise(message));
        progress.enable_steady_tick(Duration::from_millis(120));
        self.progress = Some(progress);
    }

    pub(crate) fn set_progress(&self, message: &str) {
        if let Some(progress) = &self.progress {
            progress.set_message(neutralise(message));
        }
    }

    /// Takes the progress line away, so that what follows starts on a clean line.
    pub(crate) fn end_progress(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.finish_and_clear();
        }
    }

    /// Asks on stderr; only a clear yes is one. `None` where nobody can answer.
    pub(crate) fn confirm(&self, question: &str) -> Option<bool> {
        if !io::stdin().is_terminal() || !self.notices.terminal {
            return None;
        }
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "{} [y/N] ", neutralise(question)).and_then(|()| stderr.flush());
        let mut answer = String::new();
        let read = io::stdin().read_line(&mut answer);
        Some(read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        self.end_progress();
    }
}

fn log_text(line: &Value) -> &str {
    line.get("text").and_then(Value::as_str).unwrap_or_default()
}

fn json(document: &Value, pretty: bool) -> Result<String, Failure> {
    let text = if pretty { serde_json::to_string_pretty(document) } else { serde_json::to_string(document) };
    let text = text.map_err(|error| Failure::Output { source: error.into() })?;
    // JSON leaves these as they are, and some terminals obey them.
    Ok(text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        match character {
            '\u{7f}'..='\u{9f}' => escaped.push_str(&format!("\\u{:04x}", u32::from(character))),
            other => escaped.push(other),
        }
        escaped
    }))
}

fn yaml(document: &Value) -> Result<String, Failure> {
    serde_norway::to_string(document).map_err(|error| Failure::Output { source: io::Error::other(error) })
}

/// A table without borders: columns two spaces apart, each at least as wide as its documented width.
pub(crate) fn table(columns: &[(&str, u16)], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new());
    table.set_header(columns.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    table.add_rows(rows);
    for (column, (_, width)) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        // The constraint counts the padding in.
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width + 2)));
    }
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json as document;

    use super::*;

    #[test]
    fn a_table_has_no_borders_and_no_trailing_spaces() {
        let text = table(&[("ID", 4), ("NAME", 4)], [vec!["a".to_owned(), "longer".to_owned()]]);
        assert_eq!(text, "ID    NAME\na     longer\n");
    }

    #[test]
    fn json_holds_no_character_that_a_terminal_obeys() {
        let text = json(&document!({"a": "\u{1b}[2J\u{9b}\u{7f}"}), false).unwrap();
        assert_eq!(text, r#"{"a":"\u001b[2J\u009b\u007f"}"#);
    }

    #[test]
    fn yaml_holds_no_character_that_a_terminal_obeys() {
        let text = yaml(&document!({"a": "\u{1b}[2J\u{9b}"})).unwrap();
        assert!(!text.contains('\u{1b}') && !text.contains('\u{9b}'), "{text:?}");
    }

    #[test]
    fn yaml_lines_printed_one_after_the_other_are_one_list() {
        let one = yaml(&document!([{"text": "a"}])).unwrap();
        let two = yaml(&document!([{"text": "b"}])).unwrap();
        let list: Value = serde_norway::from_str(&(one + &two)).unwrap();
        assert_eq!(list, document!([{"text": "a"}, {"text": "b"}]));
    }
}
