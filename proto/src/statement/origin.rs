//! Origin: what the sender says of a message (FORMATS.md §2.1).
//!
//! Knows every routing fact; they exist only here. Never knows content. Invariants: who sends is not who receives; a message that
//! opens its case moves it to `requested`; digests and lengths of what travels beside it stand in it.
use std::{fmt, str::FromStr};

use bytes::Bytes;
use serde::Serialize;

use super::{
    CLOCK_AHEAD_S_MAX, Checkpoint, Kind, SealedPart, SubjectTag, checkpoint, field, read, refused, subject_tags, write,
};
use crate::{
    ids::{CaseId, ConversationId, Digest, InstitutionName, KeyId, MessageId, Token},
    parts::{self, PARTS_MAX, PLAIN_MAX},
    reason::{Reason, Refused},
    seal::{self, Context, Suite},
    strict::{Object, Problem},
};

/// Days from issue to expiry: what an office on leave still answers; ids are remembered 30 days beyond.
pub const LIFETIME_S_MAX: i64 = 60 * 86_400;
/// Milliseconds after its expiry for which the id of a message is remembered; a repeat after them is refused as expired.
pub const REMEMBERED_MS: i64 = 30 * 86_400_000;

/// A message's routing facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// Message id, UUIDv7.
    pub jti: MessageId,
    /// Conversation id.
    pub cid: ConversationId,
    /// The case: the id of the message that opened it.
    pub case: CaseId,
    /// `ref`: the message that this one answers.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub in_reply_to: Option<MessageId>,
    /// Issuer.
    pub iss: InstitutionName,
    /// Audience.
    pub aud: InstitutionName,
    /// Message type: protobuf full name of the body's kind.
    pub mt: String,
    /// Case status that it moves the case to.
    pub cs: String,
    /// Reason code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rsn: Option<String>,
    /// Issued, unix seconds.
    pub iat: i64,
    /// Expires, unix seconds.
    pub exp: i64,
    /// Reply deadline, unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dl: Option<i64>,
    /// Priority.
    pub pri: Priority,
    /// Purpose code.
    pub pur: String,
    /// Legal basis code.
    pub lb: String,
    /// Agreement under which it is sent.
    pub agr: Token,
    /// Operator, by a pseudonym that only the sender can resolve.
    pub op: Token,
    /// Location: desk or office.
    pub loc: Token,
    /// Level of assurance of the operator's sign-in.
    pub loa: LevelOfAssurance,
    /// The sealed body beside it.
    pub ct: Content,
    /// Commitment to the plaintext.
    pub ptc: Digest,
    /// Sealed parts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<SealedPart>,
    /// Subject tags under the sender's own key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sj: Vec<SubjectTag>,
    /// Last log checkpoint seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lcp: Option<Checkpoint>,
}

/// How the body is sealed, and which sealed bytes belong to the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Content {
    /// HPKE suite.
    pub suite: Suite,
    /// The recipient's key.
    pub kid: KeyId,
    /// SHA-256 of enc.
    pub enc_s256: Digest,
    /// SHA-256 of the ciphertext.
    pub s256: Digest,
    /// Length of the ciphertext in bytes.
    pub len: u64,
}

/// How soon somebody should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Priority {
    /// In its turn.
    Routine,
    /// Before others.
    Urgent,
}

/// How well the operator is known to the sender (eIDAS levels).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LevelOfAssurance {
    /// Low.
    Low,
    /// Substantial.
    Substantial,
    /// High.
    High,
}

/// The texts of an enum whose values are written as text.
macro_rules! texts {
    ($name:ident { $($variant:ident = $text:literal),+ }) => {
        impl $name {
            /// Its text.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $name {
            type Err = ();
            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $($text => Ok(Self::$variant),)+ _ => Err(()) }
            }
        }
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}
texts!(Priority { Routine = "routine", Urgent = "urgent" });
texts!(LevelOfAssurance { Low = "low", Substantial = "substantial", High = "high" });

impl Origin {
    /// Reads an origin strictly.
    pub fn parse(json: &[u8]) -> Result<Self, Refused> {
        let origin = read(json, Kind::Origin, members)?;
        origin.consistent().map_err(refused)?;
        if origin.exp <= origin.iat || origin.exp - origin.iat > LIFETIME_S_MAX {
            let detail = "The expiry is not after the issue and at most 60 days later.";
            return Err(Refused::new(Reason::ExpiryInvalid, detail).field("exp"));
        }
        if origin.opens_case() && origin.cs != "requested" {
            let detail = "A message that opens its case moves it to `requested`.";
            return Err(Refused::new(Reason::CaseTransitionInvalid, detail).field("cs"));
        }
        Ok(origin)
    }

    /// Writes it: the bytes that are then signed and never written again.
    pub fn to_json(&self) -> Bytes {
        write(Kind::Origin, self)
    }

    /// True when it opens its case.
    pub fn opens_case(&self) -> bool {
        self.case == CaseId::from(self.jti)
    }

    /// What binds the sealed body to this message.
    pub fn context(&self) -> Context<'_> {
        Context {
            jti: &self.jti,
            cid: &self.cid,
            case: &self.case,
            iss: &self.iss,
            aud: &self.aud,
            mt: &self.mt,
            kid: &self.ct.kid,
            exp: self.exp,
        }
    }

    /// Refuses one that claims to be issued later than the verifier's clock, beyond what clocks differ (ISSUED_IN_FUTURE).
    pub fn check_issued(&self, now_s: i64) -> Result<(), Refused> {
        if self.iat.saturating_sub(now_s) > CLOCK_AHEAD_S_MAX {
            let detail = "The message was issued more than 300 s ahead of this clock; set the sender's clock.";
            return Err(Refused::new(Reason::IssuedInFuture, detail).field("iat"));
        }
        Ok(())
    }

    /// Refuses one whose time is over (MESSAGE_EXPIRED).
    pub fn check_not_expired(&self, now_s: i64) -> Result<(), Refused> {
        if self.exp <= now_s {
            return Err(Refused::new(Reason::MessageExpired, "The message's expiry has passed.").field("exp"));
        }
        Ok(())
    }

    /// Checks that enc (ENC_MISMATCH) and ciphertext (CIPHERTEXT_MISMATCH) are the ones that this origin names.
    pub fn check_content(&self, enc: &[u8], ciphertext: &[u8]) -> Result<(), Refused> {
        if enc.len() != self.ct.suite.enc_len() || Digest::of(enc) != self.ct.enc_s256 {
            return Err(Refused::new(
                Reason::EncMismatch,
                "The encapsulated key is not the one that the origin names.",
            ));
        }
        if ciphertext.len() as u64 != self.ct.len || Digest::of(ciphertext) != self.ct.s256 {
            return Err(Refused::new(
                Reason::CiphertextMismatch,
                "The ciphertext is not the one that the origin names.",
            ));
        }
        Ok(())
    }

    /// The rules between members.
    fn consistent(&self) -> Result<(), Problem> {
        let wrong = |field: &str, what: &str| Err(Problem::new(field, what));
        if self.iss == self.aud {
            return wrong("aud", "is the issuer");
        }
        if !seal::is_ciphertext_len(self.ct.len) {
            return wrong("ct.len", "is not the length of a padded body and its tag");
        }
        let plain =
            self.parts.iter().map(|part| parts::plain_len(part.len)).try_fold(0_u64, |sum, len| sum.checked_add(len?));
        match plain {
            None => wrong("parts", "has a length that no sealed part has"),
            Some(length) if length > PLAIN_MAX => wrong("parts", "is more than 25 MiB in all"),
            Some(_) => Ok(()),
        }
    }
}

fn members(object: &mut Object<'_>) -> Result<Origin, Problem> {
    Ok(Origin {
        jti: field::message_id(object, "jti")?,
        cid: field::conversation_id(object, "cid")?,
        case: field::case_id(object, "case")?,
        in_reply_to: field::optional(object, "ref", field::message_id)?,
        iss: field::institution(object, "iss")?,
        aud: field::institution(object, "aud")?,
        mt: field::message_type(object, "mt")?,
        cs: field::status(object, "cs")?,
        rsn: field::optional(object, "rsn", field::code)?,
        iat: field::time(object, "iat")?,
        exp: field::time(object, "exp")?,
        dl: field::optional(object, "dl", field::time)?,
        pri: field::spelled(object, "pri", "routine or urgent")?,
        pur: field::code(object, "pur")?,
        lb: field::code(object, "lb")?,
        agr: field::token(object, "agr")?,
        op: field::token(object, "op")?,
        loc: field::token(object, "loc")?,
        loa: field::spelled(object, "loa", "low, substantial or high")?,
        ct: content(object)?,
        ptc: field::digest(object, "ptc")?,
        parts: field::list(object, "parts", PARTS_MAX, |part| {
            Ok(SealedPart { len: part.number("len")?, s256: field::digest(part, "s256")? })
        })?,
        sj: subject_tags(object)?,
        lcp: checkpoint(object)?,
    })
}

fn content(object: &mut Object<'_>) -> Result<Content, Problem> {
    let mut ct = object.object("ct")?;
    let content = Content {
        suite: field::spelled(&mut ct, "suite", "a suite of FORMATS.md §3")?,
        kid: field::key_id(&mut ct, "kid")?,
        enc_s256: field::digest(&mut ct, "enc_s256")?,
        s256: field::digest(&mut ct, "s256")?,
        len: ct.number("len")?,
    };
    ct.finish()?;
    Ok(content)
}
