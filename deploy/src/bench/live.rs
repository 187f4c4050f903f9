//! What is shown while it runs: a bar on a terminal, plain lines elsewhere, on standard error; nothing for programs.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::Mutex,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::wire::Window;
use crate::output::Output;

/// The view.
pub(super) struct Live {
    quiet: bool,
    terminal: bool,
    bar: Mutex<Option<ProgressBar>>,
}

impl Live {
    pub(super) fn new(output: Output) -> Self {
        Self {
            quiet: output.is_json(),
            terminal: io::stderr().is_terminal() && !output.is_json(),
            bar: Mutex::new(None),
        }
    }

    /// A sentence about what is done now.
    pub(super) fn say(&self, sentence: &str) {
        if !self.quiet {
            // Who closed standard error does not want to know.
            drop(writeln!(io::stderr().lock(), "{sentence}"));
        }
    }

    /// A run begins.
    pub(super) fn begin(&self, what: &str, window: Window) {
        let seconds = (window.end_ns - window.begin_ns) / 1_000_000_000;
        self.say(&format!("{what}: {seconds} s"));
        self.show(ProgressBar::new_spinner(), "{elapsed:>5}  {pos} messages acknowledged, {rate}");
    }

    /// So many shall be filled in.
    pub(super) fn count(&self, count: u64) {
        self.show(ProgressBar::new(count), "{elapsed:>5}  {bar:30} {pos} of {len}, {rate}");
    }

    fn show(&self, bar: ProgressBar, template: &str) {
        if self.terminal {
            // The templates are constants that the library accepts.
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.with_key("rate", |state: &ProgressState, to: &mut dyn std::fmt::Write| {
                // It draws what it can; there is nobody to tell.
                let _ = write!(to, "{:.0} a second", state.per_sec());
            }));
            // Twice a second: the bench must not take the CPU that it measures.
            bar.enable_steady_tick(Duration::from_millis(500));
            self.put(Some(bar));
        }
    }

    fn put(&self, bar: Option<ProgressBar>) {
        let mut there = self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(before) = there.take() {
            before.finish_and_clear();
        }
        *there = bar;
    }

    /// So far.
    pub(super) fn progress(&self, count: u64) {
        if let Some(bar) = &*self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            bar.set_position(count);
        }
    }

    /// What moved is cleared.
    pub(super) fn end(&self) {
        self.put(None);
    }
}
