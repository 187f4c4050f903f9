//! What a command prints: tables and sentences for people, JSON for programs; colours only on a terminal, and not when NO_COLOR
//! is set. Standard output carries the answer, standard error everything else. A closed pipe ends nothing with noise.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::OnceLock,
};

use serde_json::{Value, json};

use crate::{
    failure::{Exit, Failure},
    sheet::{Sheet, Word, wrap},
};

/// Columns of a terminal that does not say how many it has.
const WIDTH: usize = 80;
/// How much further to the right a folded line goes on.
const HANGING: usize = 2;
/// The last characters of an id are random, and enough to find it again; the first ones are a time.
const SHORT_ID: usize = 8;

/// Where answers go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
    terminal: bool,
    colour: bool,
}

/// How a word is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it is.
    Plain,
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// Worth a look.
    Warn,
    /// Of less weight.
    Faint,
    /// A heading.
    Strong,
}

impl Output {
    /// For this process' standard output.
    pub(crate) fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        // https://no-color.org: present and not empty.
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { json, terminal, colour: terminal && !refused && !json }
    }

    /// For a file or a pipe, wherever the tests run.
    #[cfg(test)]
    pub(crate) const fn to_a_pipe() -> Self {
        Self { json: false, terminal: false, colour: false }
    }

    /// True when a program reads.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// True when somebody looks on.
    pub(crate) fn is_terminal(self) -> bool {
        self.terminal && !self.json
    }

    /// What somebody must look after, a line each; begins with the end of the line before.
    pub(crate) fn troubles(self, troubles: &[String]) -> String {
        troubles.iter().map(|trouble| format!("\n{}", self.word(trouble, Tone::Warn))).collect()
    }

    /// One line for people; nothing in JSON.
    pub(crate) fn line(self, text: &str) {
        if !self.json {
            print(text);
        }
    }

    /// One JSON value on one line; nothing for people.
    pub(crate) fn value(self, value: &Value) {
        if self.json {
            print(&value.to_string());
        }
    }

    /// An answer: JSON for programs, the text for people.
    pub(crate) fn answer(self, value: &Value, text: impl FnOnce() -> String) {
        if self.json { print(&value.to_string()) } else { print(&text()) }
    }

    /// Why the command failed, on standard error.
    pub(crate) fn failure(self, failure: &Failure) {
        let mut errors = io::stderr().lock();
        let said = if self.json {
            let value = json!({"error": {
                "exit": failure.exit as u8,
                "reason": failure.reason,
                "message": failure.sentence,
                "advice": failure.advice,
            }});
            writeln!(errors, "{value}")
        } else if failure.advice.is_empty() {
            writeln!(errors, "tramite: {}", failure.sentence)
        } else {
            writeln!(errors, "tramite: {}\n  {}", failure.sentence, failure.advice)
        };
        drop(said);
    }

    /// A table that fits the terminal; without one, one line for each row.
    pub(crate) fn table(self, heads: &[&str]) -> Sheet {
        Sheet::new(self, heads)
    }

    /// A cell of a table.
    pub(crate) fn cell(self, text: impl ToString, tone: Tone) -> Word {
        Word::new(text, tone)
    }

    /// Columns of the terminal; none when there is no terminal.
    pub(crate) fn width(self) -> Option<usize> {
        if !self.terminal {
            return None;
        }
        let told =
            std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|columns| *columns > 0);
        let asked = || {
            let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
            Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
        };
        Some(told.or_else(asked).unwrap_or(WIDTH))
    }

    /// Lines that fit the terminal, broken between words, each going on a little to the right of where it begins; without a terminal,
    /// as they are.
    pub(crate) fn folded(self, text: &str) -> String {
        let Some(width) = self.width() else { return text.to_owned() };
        let mut lines = Vec::new();
        for line in text.lines() {
            let words = line.trim_start();
            let indent = line.len() - words.len();
            let parts = wrap(words, width.saturating_sub(indent + HANGING));
            lines.extend(parts.iter().enumerate().map(|(number, part)| {
                let blanks = if number == 0 { indent } else { indent + HANGING };
                format!("{}{part}", " ".repeat(blanks))
            }));
            if parts.is_empty() {
                lines.push(String::new());
            }
        }
        lines.join("\n")
    }

    /// A word in a line.
    pub(crate) fn word(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Warn => "33",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// What kept an answer from being written.
static UNWRITTEN: OnceLock<io::Error> = OnceLock::new();

/// A line on standard output. A reader that has gone (a closed pipe) is nobody to tell.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => drop(UNWRITTEN.set(error)),
        _ => {}
    }
}

/// Why an answer could not be written, if one could not.
pub(crate) fn unwritten() -> Option<Failure> {
    let error = UNWRITTEN.get()?;
    let failure = Failure::new(Exit::CannotCreate, "the answer cannot be written", "Look at the room where it goes.");
    Some(failure.because(error))
}

/// A time of day in UTC for people, from unix milliseconds.
pub(crate) fn clock_time(ms: i64) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    time::OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000))
        .ok()
        .and_then(|time| time.format(&format).ok())
        .map_or_else(|| format!("{ms} ms"), |text| format!("{text}Z"))
}

/// A time as [`clock_time`] writes it, without its seconds.
pub(crate) fn short_time(time: &str) -> String {
    time.get(..16).filter(|_| time.ends_with('Z')).unwrap_or(time).to_owned()
}

/// The end of an id; commands take it for the whole.
pub(crate) fn short_id(id: &str) -> String {
    let begin = id.char_indices().rev().nth(SHORT_ID - 1).map_or(0, |(place, _)| place);
    id.get(begin..).unwrap_or(id).to_owned()
}

/// A span for people, from milliseconds.
pub(crate) fn span(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}.{} s", ms.max(0) % 1000 / 100),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1_024 => format!("{count} B"),
        1_024..1_048_576 => format!("{} KiB", count.div_ceil(1_024)),
        _ => format!("{}.{} MiB", count / 1_048_576, count % 1_048_576 * 10 / 1_048_576),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_read_as_people_say_them() {
        assert_eq!(span(4_250), "4.2 s");
        assert_eq!(span(125_000), "2 min 5 s");
        assert_eq!(span(-3), "0.0 s");
        assert_eq!(bytes(6_815_744), "6.5 MiB");
        assert_eq!(bytes(1_025), "2 KiB");
    }

    #[test]
    fn times_are_utc_and_say_so() {
        assert_eq!(clock_time(0), "1970-01-01 00:00:00Z");
    }
}
