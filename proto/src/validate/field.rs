//! The hand that collects problems, with the path of where it is.
//!
//! Knows: paths, lengths, alphabets, dates, amounts. Never knows: which message it checks.
//! Invariant: no problem repeats a value.
use std::{collections::HashSet, fmt::Display, hash::Hash, str::FromStr};

use super::PROBLEMS_MAX;
use crate::{
    pb::body::v1::{Date, Money},
    reason::FieldProblem,
};

/// Where we are, and what was found so far.
pub(super) struct Check<'a> {
    problems: &'a mut Vec<FieldProblem>,
    path: String,
}

impl<'a> Check<'a> {
    /// At the body itself.
    pub(super) fn root(problems: &'a mut Vec<FieldProblem>) -> Self {
        Self { problems, path: String::new() }
    }

    /// Inside a field.
    pub(super) fn inside(&mut self, field: impl Display) -> Check<'_> {
        let path = self.path_of(field);
        Check { problems: self.problems, path }
    }

    fn path_of(&self, field: impl Display) -> String {
        if self.path.is_empty() { field.to_string() } else { format!("{}.{field}", self.path) }
    }

    /// Notes a problem of a field.
    pub(super) fn problem(&mut self, field: impl Display, problem: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            let field = self.path_of(field);
            self.problems.push(FieldProblem { field, problem: problem.into() });
        }
    }

    /// A message that must be there.
    pub(super) fn required<'m, M>(&mut self, field: &str, message: Option<&'m M>) -> Option<&'m M> {
        if message.is_none() {
            self.problem(field, "missing");
        }
        message
    }

    /// At most `max` entries.
    pub(super) fn count(&mut self, field: &str, count: usize, max: usize) {
        if count > max {
            self.problem(field, format!("{count} entries, at most {max}"));
        }
    }

    /// A line or a text of at most `max` characters; empty is fine.
    pub(super) fn text(&mut self, field: impl Display, text: &str, max: usize) {
        let length = text.chars().count();
        if length > max {
            self.problem(field, format!("{length} characters, at most {max}"));
        } else if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
            self.problem(field, "has control characters");
        }
    }

    /// A text that must not be empty.
    pub(super) fn required_text(&mut self, field: &str, text: &str, max: usize) {
        if text.trim().is_empty() {
            self.problem(field, "missing");
        }
        self.text(field, text, max);
    }

    /// Something that parses.
    pub(super) fn parses<T: FromStr<Err: Display>>(&mut self, field: impl Display, text: &str) -> Option<T> {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(field, T::Err::to_string(&error));
                None
            }
        }
    }

    /// A code that must be there.
    pub(super) fn code<C: FromStr<Err = crate::codes::UnknownCode>>(
        &mut self,
        field: impl Display,
        text: &str,
    ) -> Option<C> {
        self.parses(field, text)
    }

    /// A code, or empty.
    pub(super) fn optional_code<C: FromStr<Err = crate::codes::UnknownCode>>(
        &mut self,
        field: &str,
        text: &str,
    ) -> Option<C> {
        if text.is_empty() { None } else { self.code(field, text) }
    }

    /// At most `max` codes, none twice.
    pub(super) fn codes<C: FromStr<Err = crate::codes::UnknownCode> + Eq + Hash>(
        &mut self,
        field: &str,
        texts: &[String],
        max: usize,
    ) {
        self.count(field, texts.len(), max);
        let mut seen = HashSet::new();
        for (place, text) in texts.iter().take(max).enumerate() {
            if let Some(code) = self.code::<C>(format_args!("{field}[{place}]"), text)
                && !seen.insert(code)
            {
                self.problem(format_args!("{field}[{place}]"), "stands twice");
            }
        }
    }

    /// `count` capital (or small) letters.
    pub(super) fn letters(
        &mut self,
        field: impl Display,
        text: &str,
        count: usize,
        is_letter: fn(&u8) -> bool,
        what: &str,
    ) {
        if text.len() != count || !text.as_bytes().iter().all(is_letter) {
            self.problem(field, format!("not {what}"));
        }
    }

    /// A date as far as it is known: no day without a month, no month without a year, and no 30th of February.
    pub(super) fn date(&mut self, field: &str, date: Option<&Date>) {
        let Some(Date { year, month, day }) = date.copied() else { return };
        let days = match month {
            2 if year != 0 && !(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)) => 28,
            2 => 29,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if year != 0 && !(1850..=2200).contains(&year) {
            self.problem(field, "the year is not 0 or 1850 to 2200");
        } else if !(0..=12).contains(&month) {
            self.problem(field, "the month is not 0 to 12");
        } else if !(0..=days).contains(&day) {
            self.problem(field, "the day is not in the month");
        } else if (day != 0 && month == 0) || (month != 0 && year == 0) {
            self.problem(field, "a day needs its month, a month needs its year");
        }
    }

    /// An amount with at most two decimals, and a currency.
    pub(super) fn money(&mut self, field: &str, money: Option<&Money>) {
        let Some(money) = money else { return };
        let (whole, cents) = money.amount.split_once('.').unwrap_or((&money.amount, "0"));
        let digits =
            |text: &str, max: usize| (1..=max).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
        let mut inside = self.inside(field);
        if !digits(whole, 9) || !digits(cents, 2) {
            inside.problem("amount", "not an amount such as 541.66");
        }
        inside.letters("currency", &money.currency, 3, u8::is_ascii_uppercase, "an ISO 4217 code such as EUR");
    }

    /// Unix seconds after the epoch.
    pub(super) fn time(&mut self, field: &str, seconds: i64) {
        // 9999-12-31: what ISO 8601 can write in four digits of year.
        if !(1..=253_402_300_799).contains(&seconds) {
            self.problem(field, "not a time in unix seconds");
        }
    }
}
