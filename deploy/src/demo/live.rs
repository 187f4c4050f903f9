//! The live view: a bar and the last deed of each desk on a terminal; plain lines, each with its time, when it is none; JSON
//! lines for programs.

use std::{collections::BTreeMap, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;
use tramite_adapters::desk::event::{Event, What};

use super::board::Board;
use crate::output::{Output, Tone};

/// The last characters of a case's id: enough to tell the cases of a demo apart.
const SHORT: usize = 8;

/// The live view.
pub(super) struct Live {
    output: Output,
    screen: Option<Screen>,
}

struct Screen {
    bars: MultiProgress,
    cases: ProgressBar,
    desks: BTreeMap<String, ProgressBar>,
}

impl Live {
    /// A view of so many cases and these desks.
    pub(super) fn new(output: Output, cases: usize, desks: &[&str]) -> Self {
        let screen = output.is_terminal().then(|| Screen::new(cases, desks));
        Self { output, screen }
    }

    /// A view of plain lines, whatever the output.
    pub(super) fn plain(output: Output) -> Self {
        Self { output, screen: None }
    }

    /// A desk did something.
    pub(super) fn event(&self, board: &Board, event: &Event, at_ms: i64) {
        let case = short(&event.case_id);
        if let Some(screen) = &self.screen {
            screen.cases.set_position(u64::try_from(board.ended()).unwrap_or(0));
            if let Some(bar) = screen.desks.get(&event.desk) {
                bar.set_message(format!("{} {}", event.what.sentence(), self.output.word(&case, Tone::Faint)));
            }
            if matches!(event.what, What::SeenAgain { .. } | What::Trouble { .. }) {
                self.say(at_ms, &format!("{} {}", event.desk, event.what.sentence()), Tone::Bad);
            }
        } else if self.output.is_json() {
            self.output.value(&json!({
                "at_ms": at_ms, "institution": event.desk, "case_id": event.case_id, "event": event.what.sentence(),
            }));
        } else if !matches!(event.what, What::Receipt) {
            let seconds = at_ms / 1000;
            self.output.line(&format!(
                "{seconds:>4}.{} s  {:<20} {case:<9} {}",
                at_ms % 1000 / 100,
                event.desk,
                event.what.sentence()
            ));
        }
    }

    /// Something about the whole.
    pub(super) fn say(&self, at_ms: i64, sentence: &str, tone: Tone) {
        let text = format!("{:>4}.{} s  {}", at_ms / 1000, at_ms % 1000 / 100, self.output.word(sentence, tone));
        match &self.screen {
            Some(screen) => screen.bars.suspend(|| self.output.line(&text)),
            None if self.output.is_json() => self.output.value(&json!({"at_ms": at_ms, "event": sentence})),
            None => self.output.line(&text),
        }
    }

    /// Clears what moves.
    pub(super) fn end(self) {
        if let Some(screen) = self.screen {
            screen.cases.finish_and_clear();
            screen.desks.values().for_each(ProgressBar::finish_and_clear);
        }
    }
}

impl Screen {
    fn new(cases: usize, desks: &[&str]) -> Self {
        let bars = MultiProgress::new();
        // The templates are constants that the library accepts; a template that it did not accept would only look plain.
        let style =
            |template: &str| ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let whole = bars.add(ProgressBar::new(u64::try_from(cases).unwrap_or(0)));
        whole.set_style(style("{elapsed:>5}  {bar:30} {pos} of {len} cases have ended"));
        whole.enable_steady_tick(Duration::from_millis(200));
        let desk = |name: &&str| {
            let bar = bars.add(ProgressBar::new_spinner());
            bar.set_style(style("       {prefix:<20} {wide_msg}"));
            bar.set_prefix((*name).to_owned());
            ((*name).to_owned(), bar)
        };
        let desks = desks.iter().map(desk).collect();
        Self { bars, cases: whole, desks }
    }
}

/// The last characters of an id.
pub(super) fn short(id: &str) -> String {
    let begin = id.char_indices().rev().nth(SHORT - 1).map_or(0, |(place, _)| place);
    id.get(begin..).unwrap_or(id).to_owned()
}
