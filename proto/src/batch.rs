//! A batch: one signature over the Merkle root of 1 to 64 statements (FORMATS.md §1), and its framing on a stream (§5).
//!
//! Knows the spelling of a batch and how a statement hangs in it. Never knows whose key it is, nor what a statement says beyond its
//! issuer. Invariants: a header is read only strictly; a statement is included only by a path of the exact length for its place.
use std::collections::HashMap;

use bytes::Bytes;
use serde::Serialize;

use crate::{
    ids::{Digest, InstitutionName},
    jws::{Compact, SignError, Signer, VerifyingKey},
    merkle,
    pb::statement::v1::{FramedStatement, Statement},
    reason::{Reason, Refused},
    statement::STATEMENT_MAX,
    strict::{Object, Problem, decode_exact},
};

/// Statements under one signature: a full frame. More would only make paths longer; 64 already make the signature's share negligible.
pub const BATCH_MAX: usize = 64;

const ALG: &str = "ES256";
const TYP: &str = "tramite-batch+jwt";

/// What a batch says of itself. Believe it only after [`verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// SHA-256 of the signing certificate in DER.
    pub x5t: Digest,
    /// The institution that signed.
    pub iss: InstitutionName,
    /// When, in unix seconds on the signer's clock.
    pub iat: i64,
    /// How many statements, 1 to 64.
    pub n: u32,
    /// The Merkle root over them.
    pub root: merkle::Hash,
}

#[derive(Serialize)]
struct Protected<'a> {
    alg: &'a str,
    typ: &'a str,
    #[serde(rename = "x5t#S256")]
    x5t: String,
}

#[derive(Serialize)]
struct Payload<'a> {
    v: u64,
    iss: &'a str,
    iat: i64,
    n: usize,
    root: String,
}

/// Signs `jsons` (1 to 64) once, at `iat` in unix seconds; gives one statement for each, in their order.
pub fn sign(signer: &dyn Signer, iat: i64, jsons: &[Bytes]) -> Result<Vec<Statement>, SignError> {
    if jsons.is_empty() || jsons.len() > BATCH_MAX {
        return Err(SignError::BatchSize(jsons.len()));
    }
    if let Some(long) = jsons.iter().find(|json| json.len() > STATEMENT_MAX) {
        return Err(SignError::StatementTooLong(long.len()));
    }
    let tree = merkle::Tree::new(jsons.iter().map(|json| merkle::leaf(json)).collect());
    let protected = Protected { alg: ALG, typ: TYP, x5t: crate::strict::encode(signer.x5t().as_bytes()) };
    let payload =
        Payload { v: 1, iss: signer.issuer(), iat, n: jsons.len(), root: crate::strict::encode(&tree.root()) };
    let jws = Compact::sign(signer, &written(&protected)?, &written(&payload)?)?;
    Ok((0_u32..)
        .zip(jsons)
        .map(|(index, json)| Statement {
            json: json.clone(),
            jws: jws.clone(),
            index,
            path: tree.path(index as usize).iter().map(|hash| Bytes::copy_from_slice(hash)).collect(),
        })
        .collect())
}

fn written(value: &impl Serialize) -> Result<Vec<u8>, SignError> {
    serde_json::to_vec(value).map_err(|error| SignError::Failed(error.to_string()))
}

/// Reads a batch's header without believing it: strict in spelling (BATCH_MALFORMED) and bounds (BATCH_BOUNDS).
pub fn parse(jws: &str) -> Result<Header, Refused> {
    header(&Compact::parse(jws).map_err(malformed)?)
}

/// Reads a batch and checks its signature (SIGNATURE_INVALID) and, where the key came from a certificate, that it names that one
/// (SIGNER_UNKNOWN). Whose key it is, and whether it counted at that time, is for the caller to know.
pub fn verify(jws: &str, key: &VerifyingKey) -> Result<Header, Refused> {
    let compact = Compact::parse(jws).map_err(malformed)?;
    let header = header(&compact)?;
    if key.x5t().is_some_and(|x5t| x5t != header.x5t) {
        return Err(Refused::new(Reason::SignerUnknown, "The batch names another certificate than its signer's."));
    }
    if !key.verifies(compact.signed.as_bytes(), &compact.signature) {
        return Err(Refused::new(
            Reason::SignatureInvalid,
            "The signature over the batch is not by the key that it names.",
        ));
    }
    Ok(header)
}

fn header(compact: &Compact<'_>) -> Result<Header, Refused> {
    let x5t = protected(&compact.protected).map_err(malformed)?;
    let (v, iss, iat, n, root) = payload(&compact.payload).map_err(malformed)?;
    if v != 1 {
        return Err(bounds("The batch's `v` is not 1."));
    }
    let n = u32::try_from(n).ok().filter(|n| (1..=BATCH_MAX).contains(&(*n as usize)));
    Ok(Header { x5t, iss, iat, n: n.ok_or_else(|| bounds("The batch's `n` is not in 1 to 64."))?, root })
}

fn protected(json: &[u8]) -> Result<Digest, Problem> {
    let mut object = Object::parse(json)?;
    let (alg, typ, x5t) = (object.text("alg")?, object.text("typ")?, object.text("x5t#S256")?);
    if alg != ALG {
        return Err(object.problem("alg", "is not ES256"));
    }
    if typ != TYP {
        return Err(object.problem("typ", "is not tramite-batch+jwt"));
    }
    let x5t = decode_exact(&x5t).ok_or_else(|| object.problem("x5t#S256", "is not base64url of 32 bytes"))?;
    object.finish()?;
    Ok(Digest(x5t))
}

type PayloadMembers = (u64, InstitutionName, i64, u64, merkle::Hash);

fn payload(json: &[u8]) -> Result<PayloadMembers, Problem> {
    let mut object = Object::parse(json)?;
    let (v, iss, iat) = (object.number("v")?, object.text("iss")?, object.number("iat")?);
    let (n, root) = (object.number("n")?, object.text("root")?);
    let iss = iss.parse().map_err(|_| object.problem("iss", "is not an institution name"))?;
    let root = decode_exact(&root).ok_or_else(|| object.problem("root", "is not base64url of 32 bytes"))?;
    let iat = i64::try_from(iat).map_err(|_| object.problem("iat", "is out of range"))?;
    object.finish()?;
    Ok((v, iss, iat, n, root))
}

/// Checks that the statement hangs in the batch: its size (STATEMENT_TOO_LARGE), its place and path in bounds (BATCH_BOUNDS), and the
/// path leading to the root (INCLUSION_INVALID).
pub fn check_inclusion(statement: &Statement, header: &Header) -> Result<(), Refused> {
    if statement.json.len() > STATEMENT_MAX {
        return Err(Refused::new(Reason::StatementTooLarge, "The statement is longer than 16 KiB."));
    }
    let length = merkle::path_len(statement.index.into(), header.n.into())
        .ok_or_else(|| bounds("The statement's index is not below the batch's `n`."))?;
    if statement.path.len() != length {
        return Err(bounds("The statement's path has not the length that its place asks for."));
    }
    let path = statement.path.iter().map(|hash| merkle::Hash::try_from(hash.as_ref())).collect::<Result<Vec<_>, _>>();
    let path = path.map_err(|_| bounds("An element of the statement's path has not 32 bytes."))?;
    let leaf = merkle::leaf(&statement.json);
    match merkle::root_from_path(&leaf, statement.index.into(), header.n.into(), &path) {
        Some(root) if root == header.root => Ok(()),
        _ => Err(Refused::new(Reason::InclusionInvalid, "The statement's path does not lead to the batch's root.")),
    }
}

/// Checks that the batch was signed in the name of the statement's issuer (ISSUER_MISMATCH).
pub fn check_issuer(header: &Header, iss: &InstitutionName) -> Result<(), Refused> {
    if header.iss == *iss {
        return Ok(());
    }
    Err(Refused::new(Reason::IssuerMismatch, format!("The batch is by {}, the statement in it by {iss}.", header.iss)))
}

fn malformed(problem: Problem) -> Refused {
    Refused::new(Reason::BatchMalformed, format!("The batch cannot be read: {problem}."))
}

fn bounds(detail: &str) -> Refused {
    Refused::new(Reason::BatchBounds, detail)
}

/// Collects statements into a frame that carries each JWS once.
#[derive(Debug, Default)]
pub struct Framer {
    jws: Vec<String>,
    places: HashMap<String, u32>,
}

impl Framer {
    /// An empty frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts one statement in.
    pub fn frame(&mut self, statement: &Statement) -> FramedStatement {
        FramedStatement {
            json: statement.json.clone(),
            jws_index: self.place(&statement.jws),
            index: statement.index,
            path: statement.path.clone(),
        }
    }

    /// Where a batch stands; it is put in when it is new.
    fn place(&mut self, jws: &str) -> u32 {
        let next = u32::try_from(self.jws.len()).unwrap_or(u32::MAX);
        // Most come in the order in which they were signed.
        if self.jws.last().is_some_and(|last| last == jws) {
            return next.saturating_sub(1);
        }
        if let Some(place) = self.places.get(jws) {
            return *place;
        }
        self.places.insert(jws.to_owned(), next);
        self.jws.push(jws.to_owned());
        next
    }

    /// How many batches the frame has so far.
    pub fn batches(&self) -> usize {
        self.jws.len()
    }

    /// The frame's `jws` list.
    pub fn into_jws(self) -> Vec<String> {
        self.jws
    }
}

/// Lets a framed statement stand alone again, with its JWS copied beside it (FRAME_INVALID when the frame carries none there).
pub fn unframe(jws: &[String], framed: FramedStatement) -> Result<Statement, Refused> {
    let batch = usize::try_from(framed.jws_index).ok().and_then(|place| jws.get(place));
    let batch = batch.ok_or_else(|| {
        Refused::new(Reason::FrameInvalid, "A statement refers to a batch that the frame does not carry.")
    })?;
    Ok(Statement { json: framed.json, jws: batch.clone(), index: framed.index, path: framed.path })
}

#[cfg(test)]
mod tests;
