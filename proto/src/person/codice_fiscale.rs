//! The codice fiscale of a person, 16 characters, in any of its 128 omocode forms (DM 23/12/1976 n. 13813).
//!
//! Knows: form, check character, omocodia. Never knows: municipalities (their codes change with history) or assignment.
//! Invariants: two codes are equal only when all 16 characters are; codes that agree after undoing the omocodia belong to
//! *different* people, which is why the omocodia exists. [`CodiceFiscale::hint`] is therefore for searching only.
use std::{fmt, str::FromStr};

use super::IdentifierError;

/// Length in characters.
const LENGTH: usize = 16;
/// Places (from 0) that hold digits, or the letters that stand for them. Omocodia begins at the last.
const NUMERIC: [usize; 7] = [6, 7, 9, 10, 12, 13, 14];
/// The letters that stand for 0 to 9.
const OMOCODE: &[u8; 10] = b"LMNPQRSTUV";
/// January to December.
pub(super) const MONTHS: &[u8; 12] = b"ABCDEHLMPRST";
/// What A to Z, and 0 to 9 as A to J, are worth at odd places (from 1) of the check sum.
const ODD: [u8; 26] = [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];

/// A codice fiscale whose form and check character hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodiceFiscale([u8; LENGTH]);

/// The form without omocodia: the same for people whose codes differ only by it. For searching, never for telling people apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SearchHint([u8; LENGTH]);

impl SearchHint {
    /// As text. Personal data: not for logs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        ascii(&self.0)
    }
}

impl fmt::Debug for SearchHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SearchHint(…)")
    }
}

impl fmt::Debug for CodiceFiscale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodiceFiscale(…)")
    }
}

fn ascii(bytes: &[u8; LENGTH]) -> &str {
    std::str::from_utf8(bytes).expect("letters and digits only, checked when it was made")
}

/// What a character is worth, 0 to 25, before its place counts.
fn rank(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'A'..=b'Z' => Some(c - b'A'),
        _ => None,
    }
}

/// The sixteenth character for the first fifteen; none when one of those is neither digit nor capital.
pub(super) fn check_character(code: &[u8]) -> Option<u8> {
    let mut sum = 0_u32;
    for (place, c) in code.iter().take(LENGTH - 1).enumerate() {
        let rank = rank(*c)?;
        // Places count from 1 in the decree, so the first is odd.
        sum += u32::from(if place % 2 == 0 { *ODD.get(usize::from(rank))? } else { rank });
    }
    u8::try_from(sum % 26).ok().map(|rest| b'A' + rest)
}

/// The digit that a character at a numeric place stands for.
fn digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        _ => OMOCODE.iter().position(|letter| *letter == c).and_then(|place| u8::try_from(place).ok()),
    }
}

/// Writes digits at every numeric place and the check character that belongs to them.
fn without_omocodia(code: &[u8; LENGTH]) -> Option<[u8; LENGTH]> {
    let mut plain = *code;
    for place in NUMERIC {
        let c = plain.get_mut(place)?;
        *c = b'0' + digit(*c)?;
    }
    let check = check_character(&plain)?;
    *plain.last_mut()? = check;
    Some(plain)
}

fn two_digits(plain: &[u8; LENGTH], place: usize) -> Option<u8> {
    Some((plain.get(place)? - b'0') * 10 + (plain.get(place + 1)? - b'0'))
}

/// Letters where letters belong, a month, a day of 1 to 31 or 41 to 71. None: not of the form.
fn plain_form(code: &[u8; LENGTH]) -> Option<[u8; LENGTH]> {
    let letters = code.iter().enumerate().all(|(place, c)| NUMERIC.contains(&place) || c.is_ascii_uppercase());
    let plain = without_omocodia(code)?;
    let month = plain.get(8).is_some_and(|c| MONTHS.contains(c));
    let day = two_digits(&plain, 9).is_some_and(|day| matches!(day, 1..=31 | 41..=71));
    (letters && month && day).then_some(plain)
}

impl FromStr for CodiceFiscale {
    type Err = IdentifierError;
    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        const WHAT: &str = "a codice fiscale";
        let form = IdentifierError::Form {
            what: WHAT,
            rule: "16 characters: six letters, year, month letter, day, place, check letter",
        };
        let code = <[u8; LENGTH]>::try_from(text.to_ascii_uppercase().as_bytes()).map_err(|_| form)?;
        plain_form(&code).ok_or(form)?;
        if check_character(&code) == code.last().copied() {
            Ok(Self(code))
        } else {
            Err(IdentifierError::Check { what: WHAT })
        }
    }
}

impl CodiceFiscale {
    /// The code, in upper case. Personal data: not for logs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        ascii(&self.0)
    }

    /// The form without omocodia, for searching only.
    #[must_use]
    pub fn hint(&self) -> SearchHint {
        SearchHint(self.plain())
    }

    fn plain(&self) -> [u8; LENGTH] {
        plain_form(&self.0).expect("checked when it was made")
    }

    /// Whether it is one of the 127 forms with omocodia.
    #[must_use]
    pub fn is_omocode(&self) -> bool {
        self.plain() != self.0
    }

    /// The form in which bit i of `mask` (0 to 127) puts a letter at the i-th numeric place, from the left; 0 is the plain form.
    #[must_use]
    pub fn with_omocodia(&self, mask: u8) -> Self {
        let mut code = self.plain();
        for (bit, place) in NUMERIC.iter().enumerate() {
            if mask & (1 << bit) != 0
                && let Some(c) = code.get_mut(*place)
                && let Some(letter) = OMOCODE.get(usize::from(*c - b'0'))
            {
                *c = *letter;
            }
        }
        if let (Some(check), Some(last)) = (check_character(&code), code.last_mut()) {
            *last = check;
        }
        Self(code)
    }

    /// The last two digits of the year of birth. The century is not in the code.
    #[must_use]
    pub fn birth_year_two_digits(&self) -> u8 {
        two_digits(&self.plain(), 6).expect("checked when it was made")
    }

    /// Month (1 to 12) and day (1 to 31) of birth.
    #[must_use]
    pub fn birth_month_and_day(&self) -> (u8, u8) {
        let plain = self.plain();
        let month = MONTHS.iter().zip(1_u8..).find(|(letter, _)| plain.get(8) == Some(letter)).map(|(_, month)| month);
        let day = two_digits(&plain, 9).map(|day| if day > 40 { day - 40 } else { day });
        month.zip(day).expect("checked when it was made")
    }

    /// Whether the code was made for a woman.
    #[must_use]
    pub fn says_female(&self) -> bool {
        two_digits(&self.plain(), 9).is_some_and(|day| day > 40)
    }

    /// The letters for surname and given name.
    #[must_use]
    pub(super) fn name_letters(&self) -> (&[u8], &[u8]) {
        let (surname, rest) = self.0.split_at(3);
        (surname, rest.split_at(3).0)
    }
}
