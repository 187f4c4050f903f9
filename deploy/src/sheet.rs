//! Tables: one line for each row when a program reads; laid out for the width when a person looks on.
//!
//! Knows widths, never what a column means. Invariant: no word is ever broken, so that whatever is shown can be copied: a table that
//! is too wide is shortened, then loses columns, then flows between words, then stands as blocks of lines.

use std::fmt;

use crate::output::{Output, Tone};

/// Between two columns.
const GAP: &str = "  ";
/// A space at which no line ends; shown as any other.
pub(crate) const JOINED: char = '\u{a0}';

/// A text and how it is meant.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    text: String,
    tone: Tone,
}

impl Word {
    pub(crate) fn new(text: impl ToString, tone: Tone) -> Self {
        Self { text: text.to_string(), tone }
    }
}

/// What may be done to a table that is too wide, in the order given.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// Writes a column in a shorter form.
    Short(usize, fn(&str) -> String),
    /// Gives a column another head.
    Head(usize, &'static str),
    /// Leaves a column out.
    Drop(usize),
    /// Lets a column go on in the next line, between words.
    Flow(usize),
}

/// A table.
#[derive(Debug, Clone)]
pub(crate) struct Sheet {
    output: Output,
    heads: Vec<String>,
    rows: Vec<Vec<Word>>,
    steps: Vec<Step>,
}

impl Sheet {
    pub(crate) fn new(output: Output, heads: &[&str]) -> Self {
        Self {
            output,
            heads: heads.iter().map(|head| (*head).to_owned()).collect(),
            rows: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// What may be done when it is too wide.
    pub(crate) fn steps(mut self, steps: &[Step]) -> Self {
        self.steps = steps.to_vec();
        self
    }

    /// Adds a row; missing cells are empty.
    pub(crate) fn add_row(&mut self, row: impl IntoIterator<Item = Word>) {
        let mut row: Vec<Word> = row.into_iter().collect();
        row.resize(self.heads.len(), Word::new("", Tone::Plain));
        self.rows.push(row);
    }

    /// One line for each row, whatever its length.
    fn flat(&self) -> String {
        let mut flat = self.clone();
        for word in flat.rows.iter_mut().flatten() {
            word.text = word.text.replace('\n', " ");
        }
        let widths: Vec<usize> = flat.columns().map(|column| flat.natural(column)).collect();
        flat.draw(&widths)
    }

    /// As it fits into so many columns.
    pub(crate) fn fitted(&self, width: usize) -> String {
        let mut sheet = self.clone();
        let mut flowing: Vec<usize> = Vec::new();
        let mut hidden: Vec<usize> = Vec::new();
        for step in &self.steps {
            if sheet.least(&flowing, &hidden) <= width {
                break;
            }
            match *step {
                Step::Short(column, shorter) => {
                    for word in sheet.rows.iter_mut().filter_map(|row| row.get_mut(column)) {
                        word.text = shorter(&word.text);
                    }
                }
                Step::Head(column, head) => {
                    if let Some(place) = sheet.heads.get_mut(column) {
                        head.clone_into(place);
                    }
                }
                Step::Drop(column) => hidden.push(column),
                Step::Flow(column) => flowing.push(column),
            }
        }
        if sheet.least(&flowing, &hidden) > width {
            return self.stacked(width);
        }
        let mut widths: Vec<usize> =
            sheet.columns().map(|column| if hidden.contains(&column) { 0 } else { sheet.natural(column) }).collect();
        sheet.narrow(&mut widths, &flowing, &hidden, width);
        sheet.draw(&widths)
    }

    /// Takes from the widest flowing column, one by one, until the whole fits.
    fn narrow(&self, widths: &mut [usize], flowing: &[usize], hidden: &[usize], width: usize) {
        let gaps = GAP.len() * widths.iter().filter(|width| **width > 0).count().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > width {
            let able = flowing.iter().copied().filter(|column| !hidden.contains(column));
            let able = able.filter(|column| widths.get(*column).is_some_and(|now| *now > self.longest_word(*column)));
            let Some(widest) = able.max_by_key(|column| widths.get(*column).copied()) else { return };
            if let Some(place) = widths.get_mut(widest) {
                *place -= 1;
            }
        }
    }

    /// Each row as a block: its first column, then what else it has.
    fn stacked(&self, width: usize) -> String {
        let label = self.heads.iter().skip(1).map(|head| chars(head)).max().unwrap_or(0);
        let mut text = String::new();
        for row in &self.rows {
            for (index, (head, word)) in self.heads.iter().zip(row).enumerate() {
                if word.text.is_empty() || (index > 0 && head.is_empty()) {
                    continue;
                }
                let (before, room) = match index {
                    0 => (String::new(), width),
                    _ => (format!("  {head:<label$}  "), width.saturating_sub(label + 4)),
                };
                let mut lines = wrap(&word.text, room);
                if let (0, Some(last)) = (index, lines.last_mut()) {
                    // What has no head belongs to the first column.
                    for (_, sign) in self.heads.iter().zip(row).skip(1).filter(|(head, _)| head.is_empty()) {
                        *last = format!("{last} {}", sign.text).trim_end().to_owned();
                    }
                }
                for (line, part) in lines.into_iter().enumerate() {
                    let before = if line == 0 { before.clone() } else { " ".repeat(chars(&before)) };
                    text = format!("{text}{before}{}\n", self.output.word(&part.replace(JOINED, " "), word.tone));
                }
            }
        }
        text.trim_end_matches('\n').to_owned()
    }

    /// The least width that the columns that are left can have.
    fn least(&self, flowing: &[usize], hidden: &[usize]) -> usize {
        let shown: Vec<usize> = self
            .columns()
            .filter(|column| !hidden.contains(column))
            .map(|column| if flowing.contains(&column) { self.longest_word(column) } else { self.natural(column) })
            .collect();
        shown.iter().sum::<usize>() + GAP.len() * shown.len().saturating_sub(1)
    }

    fn columns(&self) -> std::ops::Range<usize> {
        0..self.heads.len()
    }

    fn texts(&self, column: usize) -> impl Iterator<Item = &str> {
        let cells = self.rows.iter().filter_map(move |row| row.get(column)).map(|word| word.text.as_str());
        cells.chain(self.heads.get(column).map(String::as_str))
    }

    /// Width with nothing flowing. At least one: no width means no column.
    fn natural(&self, column: usize) -> usize {
        self.texts(column).flat_map(str::lines).map(chars).max().unwrap_or(0).max(1)
    }

    fn longest_word(&self, column: usize) -> usize {
        self.texts(column).flat_map(words).map(chars).max().unwrap_or(0).max(1)
    }

    /// Draws columns of these widths; a width of zero leaves its column out.
    fn draw(&self, widths: &[usize]) -> String {
        let heads: Vec<Word> = self.heads.iter().map(|head| Word::new(head, Tone::Strong)).collect();
        let mut lines = self.draw_row(&heads, widths);
        let shown = widths.iter().filter(|width| **width > 0);
        let rule = shown.clone().sum::<usize>() + GAP.len() * shown.count().saturating_sub(1);
        lines.push(self.output.word(&"─".repeat(rule), Tone::Faint));
        for row in &self.rows {
            lines.extend(self.draw_row(row, widths));
        }
        lines.join("\n")
    }

    fn draw_row(&self, row: &[Word], widths: &[usize]) -> Vec<String> {
        let cells: Vec<(Vec<String>, Tone, usize)> = row
            .iter()
            .zip(widths)
            .filter(|(_, width)| **width > 0)
            .map(|(word, width)| (wrap(&word.text, *width), word.tone, *width))
            .collect();
        let height = cells.iter().map(|(lines, ..)| lines.len()).max().unwrap_or(0).max(1);
        let line = |number: usize| {
            let mut line = String::new();
            let mut owed = String::new();
            for (lines, tone, width) in &cells {
                let text = lines.get(number).map_or("", String::as_str);
                if !text.is_empty() {
                    // Blanks are written only before something: no line ends with them.
                    line = format!("{line}{owed}{}", self.output.word(&text.replace(JOINED, " "), *tone));
                    owed.clear();
                }
                owed.push_str(&" ".repeat(width.saturating_sub(chars(text)) + GAP.len()));
            }
            line
        };
        (0..height).map(line).collect()
    }
}

impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.output.width().map_or_else(|| self.flat(), |width| self.fitted(width)))
    }
}

/// Lines of at most so many characters, broken between words only; a longer word has a line of its own.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for given in text.lines() {
        if chars(given) <= width {
            lines.push(given.to_owned());
            continue;
        }
        let mut line = String::new();
        for word in words(given) {
            if !line.is_empty() && chars(&line) + 1 + chars(word) > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// What is kept together: a space that does not break joins two words to one.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '\n']).filter(|word| !word.is_empty())
}

/// Columns on a terminal: every character that is written here takes one, and a change of colour (`ESC … m`) none.
fn chars(text: &str) -> usize {
    let mut colour = false;
    let shown = text.chars().filter(|c| {
        let hidden = colour || *c == '\u{1b}';
        colour = hidden && *c != 'm';
        !hidden
    });
    shown.count()
}

#[cfg(test)]
mod tests;
