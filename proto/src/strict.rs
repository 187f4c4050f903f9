//! JSON read strictly: the one reader for what others signed.
//!
//! Knows JSON and the rules that hold for every object here (FORMATS.md §1, §2): no duplicate names, no null, no fractions, integers in
//! 0..=2^53-1, nothing behind the object, and whoever reads it takes every member by name and then says that it was all. Derived
//! deserialisers were considered: they take an array for an object and a null for an absent member. Never knows what a member means.
use std::{borrow::Cow, collections::VecDeque, fmt};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Integers beyond this are not exact in every JSON library.
const INTEGER_MAX: u64 = (1 << 53) - 1;
/// So much of a name that somebody else chose goes into an error's text.
const SHOWN_MAX: usize = 40;

/// Which member is wrong, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {what}")]
pub(crate) struct Problem {
    /// The member's name, with the names of the objects around it; empty for the whole object.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) what: String,
}

impl Problem {
    pub(crate) fn new(field: impl Into<String>, what: impl Into<String>) -> Self {
        Self { field: field.into(), what: what.into() }
    }
}

/// A JSON value, without null and without fractions. Text without escapes is not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Text(Cow<'a, str>),
    Number(u64),
    Flag(bool),
    List(Vec<Value<'a>>),
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

/// An object that is being taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Object<'a> {
    /// Readers take them in the order in which writers write: the first one, most of the time.
    members: VecDeque<(Cow<'a, str>, Value<'a>)>,
    /// The name under which it stands, with a point behind it; empty at the top.
    within: String,
}

impl<'a> Object<'a> {
    /// Reads one object and nothing else.
    pub(crate) fn parse(json: &'a [u8]) -> Result<Self, Problem> {
        // Text is checked once, and every piece of it is then known to be text.
        let Ok(json) = std::str::from_utf8(json) else { return Err(Problem::new("", "is not UTF-8")) };
        match serde_json::from_str(json) {
            Ok(Value::Object(members)) => Ok(Self { members: members.into(), within: String::new() }),
            Ok(_) => Err(Problem::new("", "is not an object")),
            Err(error) => Err(Problem::new("", format!("is not strict JSON: {}", shown(&error.to_string())))),
        }
    }

    /// The name of the member at `place`, in the order of the bytes.
    pub(crate) fn name_at(&self, place: usize) -> Option<&str> {
        self.members.get(place).map(|(name, _)| name.as_ref())
    }

    /// Takes a member that may be absent.
    pub(crate) fn optional(&mut self, name: &str) -> Option<Value<'a>> {
        let place = self.members.iter().position(|(member, _)| member == name)?;
        Some(self.members.remove(place)?.1)
    }

    /// True while the member has not been taken.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|(member, _)| member == name)
    }

    fn required(&mut self, name: &str) -> Result<Value<'a>, Problem> {
        self.optional(name).ok_or_else(|| self.problem(name, "is missing"))
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Cow<'a, str>, Problem> {
        match self.required(name)? {
            Value::Text(text) => Ok(text),
            _ => Err(self.problem(name, "is not a string")),
        }
    }

    pub(crate) fn number(&mut self, name: &str) -> Result<u64, Problem> {
        match self.required(name)? {
            Value::Number(number) => Ok(number),
            _ => Err(self.problem(name, "is not an integer")),
        }
    }

    pub(crate) fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        match self.required(name)? {
            Value::Flag(flag) => Ok(flag),
            _ => Err(self.problem(name, "is not true or false")),
        }
    }

    pub(crate) fn object(&mut self, name: &str) -> Result<Self, Problem> {
        let value = self.required(name)?;
        self.within(value, name)
    }

    /// Takes a list, and lets `each` read its elements. `each` gets the element's name for its errors.
    pub(crate) fn list<T>(
        &mut self,
        name: &str,
        most: usize,
        mut each: impl FnMut(&Self, Value<'a>, &str) -> Result<T, Problem>,
    ) -> Result<Vec<T>, Problem> {
        let Value::List(values) = self.required(name)? else { return Err(self.problem(name, "is not a list")) };
        if values.is_empty() || values.len() > most {
            return Err(self.problem(name, format!("has not 1 to {most} elements")));
        }
        values.into_iter().enumerate().map(|(place, value)| each(self, value, &format!("{name}[{place}]"))).collect()
    }

    /// The object inside `value`, whose errors are named after where it stands.
    pub(crate) fn within(&self, value: Value<'a>, name: &str) -> Result<Self, Problem> {
        match value {
            Value::Object(members) => Ok(Self { members: members.into(), within: format!("{}{name}.", self.within) }),
            _ => Err(self.problem(name, "is not an object")),
        }
    }

    /// Says that every name was read: anything left over is unknown.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        match self.members.front() {
            None => Ok(()),
            Some((name, _)) => Err(self.problem(&shown(name), "is not a known name")),
        }
    }

    /// An error about one of its members.
    pub(crate) fn problem(&self, name: &str, what: impl Into<String>) -> Problem {
        Problem::new(format!("{}{name}", self.within), what)
    }
}

/// Base64url without padding; an ending with bits that no encoder sets is refused, so that each value has one spelling.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Base64url without padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Base64url of exactly `N` bytes.
pub(crate) fn decode_exact<const N: usize>(text: &str) -> Option<[u8; N]> {
    decode(text)?.try_into().ok()
}

/// Somebody else's text, short and without control characters, for an error.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Strict)
    }
}

/// A name, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(Strict)? {
            Value::Text(name) => Ok(Self(name)),
            _ => Err(de::Error::custom("a name is text")),
        }
    }
}

/// Accepts what a statement may hold; null, fractions and negative numbers have no method here, and are refused for it.
struct Strict;

impl<'de> Visitor<'de> for Strict {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, an integer from 0 to 2^53-1, true or false, a list or an object")
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Value<'de>, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value<'de>, E> {
        if number > INTEGER_MAX {
            return Err(E::custom("integer over 2^53-1"));
        }
        Ok(Value::Number(number))
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = sequence.next_element()? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        let mut members: Vec<(Cow<'de, str>, Value<'de>)> = Vec::with_capacity(MEMBERS_USUAL);
        while let Some(Name(name)) = map.next_key()? {
            if members.len() == MEMBERS_MAX {
                return Err(de::Error::custom("too many names"));
            }
            if members.iter().any(|(member, _)| *member == name) {
                return Err(de::Error::custom("duplicate name"));
            }
            members.push((name, map.next_value()?));
        }
        Ok(Value::Object(members))
    }
}

/// No object here has more than 30 names; the limit keeps the search for duplicates short on bytes that are hostile.
const MEMBERS_MAX: usize = 64;
/// Room that most statements do without growing.
const MEMBERS_USUAL: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(json: &str) -> String {
        Object::parse(json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_strict_is_refused() {
        for json in [
            "",
            "null",
            "[]",
            "1",
            "\"x\"",
            "{",
            "{}x",
            "{} {}",
            "{\"a\":null}",
            "{\"a\":1.0}",
            "{\"a\":1e3}",
            "{\"a\":-1}",
            "{\"a\":-0}",
            "{\"a\":1,\"a\":1}",
            "{\"a\":{\"b\":1,\"b\":2}}",
            "{\"a\":9007199254740992}",
            "{\"a\":18446744073709551616}",
            "{\"a\":01}",
            "{a:1}",
            "{\"a\":1,}",
            "{\"a\":[1,]}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\n\"}",
            "\u{feff}{}",
            "{/**/}",
            "{\"a\":NaN}",
        ] {
            let _ = refused(json);
        }
        assert!(Object::parse(b"{\"a\":\"\xff\"}").is_err());
        let many = (0..=MEMBERS_MAX).map(|i| format!("\"a{i}\":1")).collect::<Vec<_>>().join(",");
        assert!(refused(&format!("{{{many}}}")).contains("too many"));
    }

    #[test]
    fn the_same_name_in_another_spelling_is_a_duplicate() {
        assert!(refused("{\"a\":1,\"\\u0061\":2}").contains("duplicate"));
    }

    #[test]
    fn names_left_over_are_unknown() {
        let mut object = Object::parse(b" {\"a\":9007199254740991 , \"b\":true}\n").unwrap();
        assert_eq!(object.number("a").unwrap(), INTEGER_MAX);
        assert!(object.clone().finish().unwrap_err().to_string().contains("`b`"));
        assert!(object.flag("b").unwrap());
        object.finish().unwrap();
    }

    #[test]
    fn errors_say_where() {
        let mut object = Object::parse(b"{\"a\":{\"b\":[{\"c\":1}]}}").unwrap();
        let mut a = object.object("a").unwrap();
        let error = a.list("b", 1, |a, value, name| a.within(value, name)?.text("c")).unwrap_err();
        assert_eq!(error.field, "a.b[0].c");
    }

    #[test]
    fn base64url_has_one_spelling() {
        assert_eq!(decode("AA"), Some(vec![0]));
        for text in ["AB", "AA==", "A", "A A", "AA\n", "+/AA", "AAB"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..400), json in "[\\[\\]{}\",:0-9a-e.\\\\-]{0,60}") {
            let _ = Object::parse(&bytes);
            let _ = Object::parse(json.as_bytes());
            let _ = decode(&json);
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_overflow() {
        let deep = format!("{{\"a\":{}", "[".repeat(16_000));
        assert!(Object::parse(deep.as_bytes()).is_err());
    }
}
