//! Statements: what anyone vouches for, one JSON object each (FORMATS.md §2).
//!
//! Knows the four kinds and every rule that the object alone can be held to. Never knows keys, other statements or the time, but for
//! what it is asked ([`Origin::check_issued`]). Invariants: a statement is kept and passed on as the bytes that were signed; a struct
//! here is a reading of them, and writing one makes a new statement. A struct that was parsed keeps every rule of §2.
mod evidence;
mod field;
mod key;
mod origin;
mod receipt;

use bytes::Bytes;
use serde::Serialize;

pub use self::{
    evidence::{Event, Evidence},
    key::{CHAIN_MAX, EncryptionKey, KeyRecord, VALIDITY_S_MAX},
    origin::{Content, LIFETIME_S_MAX, LevelOfAssurance, Origin, Priority, REMEMBERED_MS},
    receipt::Receipt,
};
use crate::{
    ids::{Digest, InstitutionName},
    merkle,
    reason::{Reason, Refused},
    strict::{Object, Problem},
};

/// Bytes of one statement's JSON. A key record with four certificates and a post-quantum key needs about 12 KiB, the rest 2 KiB.
pub const STATEMENT_MAX: usize = 16 * 1024;
/// How far ahead of the verifier's clock a statement may be issued, in seconds: clocks without a time service drift by minutes.
pub const CLOCK_AHEAD_S_MAX: i64 = 300;

/// Which kind of statement it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A message's routing facts, by its sender.
    Origin,
    /// What its recipient says of it.
    Receipt,
    /// What the gateway says of it.
    Evidence,
    /// An institution's keys.
    Key,
}

impl Kind {
    /// The text of `typ`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Receipt => "receipt",
            Self::Evidence => "evidence",
            Self::Key => "key",
        }
    }

    fn all() -> [Self; 4] {
        [Self::Origin, Self::Receipt, Self::Evidence, Self::Key]
    }
}

/// Any statement, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// A message's routing facts.
    Origin(Box<Origin>),
    /// A recipient's word.
    Receipt(Box<Receipt>),
    /// The gateway's word.
    Evidence(Box<Evidence>),
    /// An institution's key record.
    Key(Box<KeyRecord>),
}

impl Statement {
    /// Reads a statement of any kind.
    pub fn parse(json: &[u8]) -> Result<Self, Refused> {
        Ok(match kind_of(json)? {
            Kind::Origin => Self::Origin(Box::new(Origin::parse(json)?)),
            Kind::Receipt => Self::Receipt(Box::new(Receipt::parse(json)?)),
            Kind::Evidence => Self::Evidence(Box::new(Evidence::parse(json)?)),
            Kind::Key => Self::Key(Box::new(KeyRecord::parse(json)?)),
        })
    }

    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Origin(_) => Kind::Origin,
            Self::Receipt(_) => Kind::Receipt,
            Self::Evidence(_) => Kind::Evidence,
            Self::Key(_) => Kind::Key,
        }
    }

    /// Who says it.
    pub fn issuer(&self) -> &InstitutionName {
        match self {
            Self::Origin(origin) => &origin.iss,
            Self::Receipt(receipt) => &receipt.iss,
            Self::Evidence(evidence) => &evidence.iss,
            Self::Key(record) => &record.iss,
        }
    }
}

/// Which kind of statement `json` says it is. Reads no further: parse it before believing anything.
pub fn kind_of(json: &[u8]) -> Result<Kind, Refused> {
    let json = sized(json)?;
    // As every writer begins it; whoever parses it reads the rest strictly anyhow.
    let begun = json.strip_prefix(br#"{"typ":""#).unwrap_or_default();
    let says = |kind: &Kind| begun.strip_prefix(kind.as_str().as_bytes()).is_some_and(|rest| rest.starts_with(b"\""));
    if let Some(kind) = Kind::all().into_iter().find(says) {
        return Ok(kind);
    }
    let typ = Object::parse(json).and_then(|mut object| object.text("typ")).map_err(refused)?;
    let kind = Kind::all().into_iter().find(|kind| typ == kind.as_str());
    kind.ok_or_else(|| refused(Problem::new("typ", "is not a kind of statement")))
}

/// A statement's identity: SHA-256 of its bytes.
pub fn identity(json: &[u8]) -> Digest {
    Digest::of(json)
}

/// A log checkpoint that the signer had seen: gossip that contradicts a forked log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    /// Number of entries.
    pub size: u64,
    /// The root over them.
    pub root: Digest,
}

/// A subject tag: finds a person's messages again for the institution that made it, and for nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubjectTag {
    /// The year of the key under which it was made.
    pub ep: u16,
    /// The tag.
    #[serde(serialize_with = "field::base64url")]
    pub tag: [u8; 16],
}

/// A sealed part, as origin names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SealedPart {
    /// Sealed length in bytes.
    pub len: u64,
    /// SHA-256 of the sealed bytes.
    pub s256: Digest,
}

/// Writes `typ`, `v` and then the members of `statement`.
fn write(kind: Kind, statement: &impl Serialize) -> Bytes {
    #[derive(Serialize)]
    struct Written<'a, T> {
        typ: &'static str,
        v: u8,
        #[serde(flatten)]
        members: &'a T,
    }
    let written = Written { typ: kind.as_str(), v: 1, members: statement };
    serde_json::to_vec(&written).expect("structs of text, integers and lists have no value that JSON lacks").into()
}

/// Opens `json` as a statement of `kind`: its size, `typ` first, then `v`, both as they must be; lets `members` take the rest by name.
fn read<T>(json: &[u8], kind: Kind, members: impl FnOnce(&mut Object<'_>) -> Result<T, Problem>) -> Result<T, Refused> {
    let object = Object::parse(sized(json)?).map_err(refused)?;
    begun(object, kind, members).map_err(refused)
}

fn begun<T>(
    mut object: Object<'_>,
    kind: Kind,
    members: impl FnOnce(&mut Object<'_>) -> Result<T, Problem>,
) -> Result<T, Problem> {
    if object.name_at(0) != Some("typ") || object.name_at(1) != Some("v") {
        return Err(Problem::new("", "does not begin with `typ` and `v`"));
    }
    if object.text("typ")? != kind.as_str() {
        return Err(object.problem("typ", format!("is not {}", kind.as_str())));
    }
    if object.number("v")? != 1 {
        return Err(object.problem("v", "is not 1"));
    }
    let statement = members(&mut object)?;
    object.finish()?;
    Ok(statement)
}

fn sized(json: &[u8]) -> Result<&[u8], Refused> {
    if json.len() > STATEMENT_MAX {
        return Err(Refused::new(Reason::StatementTooLarge, "The statement is longer than 16 KiB."));
    }
    Ok(json)
}

fn refused(problem: Problem) -> Refused {
    let refused = Refused::new(Reason::StatementMalformed, format!("The statement cannot be read: {problem}."));
    if problem.field.is_empty() { refused } else { refused.field(problem.field) }
}

/// `lcp`, which origin and receipt may carry.
fn checkpoint(object: &mut Object<'_>) -> Result<Option<Checkpoint>, Problem> {
    field::optional(object, "lcp", |object, name| {
        let mut lcp = object.object(name)?;
        let checkpoint = Checkpoint { size: lcp.number("size")?, root: field::digest(&mut lcp, "root")? };
        lcp.finish()?;
        if checkpoint.size == 0 && checkpoint.root.as_bytes() != &merkle::root(&[]) {
            return Err(object.problem("lcp.root", "is not the root over nothing"));
        }
        Ok(checkpoint)
    })
}

/// Subject tags on a statement: several identifiers of one person under the keys of two years.
const TAGS_MAX: usize = 8;

fn subject_tags(object: &mut Object<'_>) -> Result<Vec<SubjectTag>, Problem> {
    field::list(object, "sj", TAGS_MAX, |tag| {
        let ep = tag.number("ep")?;
        let year = u16::try_from(ep).ok().filter(|year| (2000..=9999).contains(year));
        Ok(SubjectTag { ep: year.ok_or_else(|| tag.problem("ep", "is not a year"))?, tag: field::exact(tag, "tag")? })
    })
}

#[cfg(test)]
mod tests;
