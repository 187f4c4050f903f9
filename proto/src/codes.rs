//! One macro for every closed list of codes, so that a code, its name for people and its parsing stand in one line.
//!
//! Knows: how a code is written, parsed, listed. Never knows: what any code means.
//! Invariant: a code parses to the variant that writes it, and nothing else parses. The offered text is never repeated in an
//! error, because a caller may have put personal data where a code belongs.

/// A text that is none of the codes of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {what}; it is one of {}", .codes.join(", "))]
pub struct UnknownCode {
    /// Which list, with its article: `a benefit code`.
    pub what: &'static str,
    /// The codes that there are.
    pub codes: &'static [&'static str],
}

/// Declares an enum of codes: `codes! { /// doc  pub enum Name("a name code") { Variant = "CODE", "label"; ... } }`.
macro_rules! codes {
    ($(#[$meta:meta])* pub enum $Name:ident($what:literal) { $($Variant:ident = $code:literal, $label:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $Name {
            $(#[doc = concat!("`", $code, "`: ", $label, ".")] $Variant,)+
        }

        impl $Name {
            /// Every one, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$Variant),+];
            /// Every code as written, in the order of the table.
            pub const CODES: &'static [&'static str] = &[$($code),+];

            /// Every one, in the order of the table.
            pub fn all() -> impl ExactSizeIterator<Item = Self> {
                Self::ALL.iter().copied()
            }

            /// The code as written in messages and configuration.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$Variant => $code),+ }
            }

            /// The name for people.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$Variant => $label),+ }
            }
        }

        impl std::str::FromStr for $Name {
            type Err = $crate::codes::UnknownCode;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($code => Ok(Self::$Variant),)+
                    _ => Err($crate::codes::UnknownCode { what: $what, codes: Self::CODES }),
                }
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl serde::Serialize for $Name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $Name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use codes;

#[cfg(test)]
#[expect(unreachable_pub, reason = "the macro writes public lists, and here it writes one for a test")]
mod tests {
    codes! {
        /// Two codes.
        pub enum Colour("a colour") { Red = "RED", "red"; DarkBlue = "DARK_BLUE", "dark blue"; }
    }

    #[test]
    fn a_code_parses_to_the_variant_that_writes_it_and_nothing_else_parses() {
        for colour in Colour::all() {
            assert_eq!(colour.as_str().parse(), Ok(colour));
        }
        assert_eq!(Colour::DarkBlue.label(), "dark blue");
        assert!("red".parse::<Colour>().is_err());
        assert!("".parse::<Colour>().is_err());
        assert_eq!(serde_json::from_str::<Colour>("\"DARK_BLUE\"").expect("a code of the list"), Colour::DarkBlue);
    }

    #[test]
    fn the_error_lists_the_codes_and_does_not_repeat_what_was_offered() {
        let problem = "RSSMRA80A01A944I".parse::<Colour>().expect_err("no colour").to_string();
        assert_eq!(problem, "not a colour; it is one of RED, DARK_BLUE");
    }
}
