//! The codice fiscale that names and birth would give: an aid to notice a mistyped name or code, and never an identifier. Only
//! the code that the Agenzia delle Entrate assigned identifies; it may differ from this one by omocodia or by correction.
//!
//! Knows: the rules of DM 23/12/1976. Never knows: which municipalities existed when.
//! Invariant: what cannot be computed with certainty (letters with more than one transliteration, missing data) is not computed.
use super::{
    CodiceFiscale,
    codice_fiscale::{MONTHS, check_character},
};
use crate::pb::body::v1::{Person, Sex};

/// What the code is computed from.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// Surname at birth; empty for people without one.
    pub surname: &'a str,
    /// Given name; empty for people without one.
    pub given_name: &'a str,
    /// Year of birth, four digits.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// Whether the person is registered as a woman.
    pub female: bool,
    /// Belfiore code of the place of birth, e.g. `A944`; `Z` and three digits for a foreign state.
    pub place: &'a str,
}

/// Why no code can be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A name has a letter without one certain transliteration.
    #[error("a name has a letter without one certain transliteration")]
    Letter,
    /// The date is none.
    #[error("month or day of birth is out of range")]
    Date,
    /// The place is not a letter and three digits.
    #[error("the place is not a letter and three digits")]
    Place,
}

/// The code that names and birth give, without omocodia.
pub fn encode(given: &Given<'_>) -> Result<CodiceFiscale, EncodeError> {
    let month = MONTHS.get(usize::from(given.month).wrapping_sub(1)).ok_or(EncodeError::Date)?;
    if !(1..=31).contains(&given.day) {
        return Err(EncodeError::Date);
    }
    let day = given.day + if given.female { 40 } else { 0 };
    let mut code = Vec::with_capacity(16);
    code.extend(surname_letters(given.surname)?);
    code.extend(given_name_letters(given.given_name)?);
    code.extend(format!("{:02}", given.year % 100).bytes());
    code.push(*month);
    code.extend(format!("{day:02}").bytes());
    code.extend(given.place.to_ascii_uppercase().bytes());
    code.push(check_character(&code).ok_or(EncodeError::Place)?);
    // The rest is right by construction, so a code that does not parse has a wrong place.
    std::str::from_utf8(&code).ok().and_then(|text| text.parse().ok()).ok_or(EncodeError::Place)
}

fn surname_letters(text: &str) -> Result<[u8; 3], EncodeError> {
    let (consonants, vowels) = letters(text)?;
    Ok(three(consonants.iter().chain(&vowels).copied()))
}

fn given_name_letters(text: &str) -> Result<[u8; 3], EncodeError> {
    let (mut consonants, vowels) = letters(text)?;
    if consonants.len() >= 4 {
        // Of four or more: the first, third and fourth.
        consonants.remove(1);
    }
    Ok(three(consonants.iter().chain(&vowels).copied()))
}

/// The first three, filled up with X.
fn three(letters: impl Iterator<Item = u8>) -> [u8; 3] {
    let mut code = *b"XXX";
    for (slot, letter) in code.iter_mut().zip(letters) {
        *slot = letter;
    }
    code
}

/// Consonants and vowels, in order, in capitals. Spaces, apostrophes and hyphens do not count.
fn letters(text: &str) -> Result<(Vec<u8>, Vec<u8>), EncodeError> {
    let mut plain = Vec::new();
    for c in text.chars() {
        match c {
            ' ' | '\'' | '’' | '‘' | '`' | '-' | '.' => {}
            _ => plain.push(base_letter(c).ok_or(EncodeError::Letter)?),
        }
    }
    Ok(plain.into_iter().partition(|c| !b"AEIOU".contains(c)))
}

/// The letter under the accent. Letters that offices transliterate in more than one way (ä ö ü å ø æ ß …) have none.
fn base_letter(c: char) -> Option<u8> {
    if c.is_ascii_alphabetic() {
        return u8::try_from(c.to_ascii_uppercase()).ok();
    }
    Some(match c.to_lowercase().next()? {
        'à' | 'á' | 'â' | 'ã' | 'ā' | 'ă' | 'ą' => b'A',
        'ç' | 'ć' | 'č' | 'ĉ' | 'ċ' => b'C',
        'ď' => b'D',
        'è' | 'é' | 'ê' | 'ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' => b'E',
        'ğ' | 'ĝ' | 'ġ' | 'ģ' => b'G',
        'ì' | 'í' | 'î' | 'ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' => b'I',
        'ķ' => b'K',
        'ĺ' | 'ļ' | 'ľ' | 'ł' => b'L',
        'ń' | 'ņ' | 'ň' | 'ñ' => b'N',
        'ò' | 'ó' | 'ô' | 'õ' | 'ō' | 'ŏ' | 'ő' => b'O',
        'ŕ' | 'ŗ' | 'ř' => b'R',
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' => b'S',
        'ţ' | 'ť' | 'ț' => b'T',
        'ù' | 'ú' | 'û' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' => b'U',
        'ŵ' => b'W',
        'ý' | 'ÿ' | 'ŷ' => b'Y',
        'ź' | 'ż' | 'ž' => b'Z',
        _ => return None,
    })
}

impl CodiceFiscale {
    /// What about a person does not agree with the code, as far as it can be told: a warning for people, never a refusal, because
    /// the assigned code is right even where it differs from what the rules give.
    #[must_use]
    pub fn disagreements(&self, person: &Person) -> Vec<&'static str> {
        let mut found = Vec::new();
        let (surname, given_name) = self.name_letters();
        if !person.surname.is_empty() && surname_letters(&person.surname).is_ok_and(|letters| letters != surname) {
            found.push("surname");
        }
        if !person.given_name.is_empty()
            && given_name_letters(&person.given_name).is_ok_and(|letters| letters != given_name)
        {
            found.push("given_name");
        }
        if let Some(born) = &person.born {
            let (month, day) = self.birth_month_and_day();
            let year = born.year != 0 && born.year.rem_euclid(100) != i32::from(self.birth_year_two_digits());
            let month = born.month != 0 && born.month != i32::from(month);
            let day = born.day != 0 && born.day != i32::from(day);
            if year || month || day {
                found.push("born");
            }
        }
        let female = match person.sex() {
            Sex::Male => Some(false),
            Sex::Female => Some(true),
            Sex::Unspecified | Sex::NotStated => None,
        };
        if female.is_some_and(|female| female != self.says_female()) {
            found.push("sex");
        }
        found
    }
}
