//! Statements made by hand, so that each can be wrong in exactly one way.
//!
//! Knows proto/FORMATS.md §1 and §2 and spells them out once more instead of calling the code under test: what signs here would
//! sign anything. Nothing here checks.

use std::{
    fmt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::{SystemRandom, fill},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Value, json};
use tramite_proto::{
    pb::statement::v1::{SealedMessage, Statement},
    seal::{self, PublicKey},
};
use uuid::Uuid;

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// base64url without padding.
#[must_use]
pub fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Unix seconds.
#[must_use]
pub fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_secs()).ok()).unwrap_or(0)
}

/// Random bytes.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The system's generator fails only where nothing else works either; zeros make the test fail visibly.
    let _ = fill(&mut bytes);
    bytes
}

/// A new UUIDv7.
#[must_use]
pub fn uuid7() -> Uuid {
    Uuid::now_v7()
}

/// A signing certificate and its key: whoever holds them can sign anything.
pub struct Pen {
    /// The name that it signs under.
    pub issuer: String,
    /// The chain in DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    key: EcdsaKeyPair,
}

impl fmt::Debug for Pen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pen").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Pen {
    /// Takes a chain and a key in PEM.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read(issuer: &str, chain: &Path, key: &Path) -> Result<Self> {
        let chain = CertificateDer::pem_file_iter(chain)?
            .map(|certificate| Ok(certificate?.to_vec()))
            .collect::<Result<Vec<_>>>()
            .context("a chain in PEM")?;
        let key = PrivatePkcs8KeyDer::from_pem_file(key).context("a key in PKCS#8")?;
        Self::new(issuer, chain, key.secret_pkcs8_der())
    }

    /// Takes a chain in DER and a key in PKCS#8 DER.
    ///
    /// # Errors
    /// When the key is none of P-256.
    pub fn new(issuer: &str, chain: Vec<Vec<u8>>, pkcs8: &[u8]) -> Result<Self> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).ok().context("a key of P-256")?;
        Ok(Self { issuer: issuer.to_owned(), chain, key })
    }

    /// The protected header as it should be.
    #[must_use]
    pub fn header(&self) -> String {
        let x5t = self.chain.first().map_or_else(String::new, |leaf| b64(&sha256(leaf)));
        format!(r#"{{"alg":"ES256","typ":"tramite-batch+jwt","x5t#S256":"{x5t}"}}"#)
    }

    /// A batch payload as it should be, for a root over `count` statements.
    #[must_use]
    pub fn payload(&self, count: usize, root: &[u8; 32]) -> String {
        format!(r#"{{"v":1,"iss":"{}","iat":{},"n":{count},"root":"{}"}}"#, self.issuer, now_s(), b64(root))
    }

    /// Signs a header and a payload, whatever they say.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn jws(&self, header: &str, payload: &str) -> Result<String> {
        let input = format!("{}.{}", b64(header.as_bytes()), b64(payload.as_bytes()));
        let signature = self.key.sign(&SystemRandom::new(), input.as_bytes()).ok().context("no randomness")?;
        Ok(format!("{input}.{}", b64(signature.as_ref())))
    }

    /// One statement in a batch of its own.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn statement(&self, json: &[u8]) -> Result<Statement> {
        let jws = self.jws(&self.header(), &self.payload(1, &leaf(json)))?;
        Ok(Statement { json: json.to_vec().into(), jws, index: 0, path: Vec::new() })
    }

    /// Two statements under one signature.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn pair(&self, first: &[u8], second: &[u8]) -> Result<[Statement; 2]> {
        let (a, b) = (leaf(first), leaf(second));
        let jws = self.jws(&self.header(), &self.payload(2, &node(&a, &b)))?;
        let path = |sibling: [u8; 32]| vec![sibling.to_vec().into()];
        Ok([
            Statement { json: first.to_vec().into(), jws: jws.clone(), index: 0, path: path(b) },
            Statement { json: second.to_vec().into(), jws, index: 1, path: path(a) },
        ])
    }

    /// Up to 64 statements under one signature.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn batch(&self, jsons: &[Vec<u8>]) -> Result<Vec<Statement>> {
        let leaves: Vec<[u8; 32]> = jsons.iter().map(|json| leaf(json)).collect();
        let jws = self.jws(&self.header(), &self.payload(leaves.len(), &root(&leaves)))?;
        let statement = |(place, json): (usize, &Vec<u8>)| {
            let path = path(&leaves, place).into_iter().map(|hash| hash.to_vec().into()).collect();
            Ok(Statement { json: json.clone().into(), jws: jws.clone(), index: u32::try_from(place)?, path })
        };
        jsons.iter().enumerate().map(statement).collect()
    }
}

/// RFC 6962 leaf.
#[must_use]
pub fn leaf(json: &[u8]) -> [u8; 32] {
    sha256(&[&[0][..], json].concat())
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    sha256(&[&[1][..], left, right].concat())
}

/// The leaves left and right of the root: as many left as the largest power of two below their number.
fn halves(leaves: &[[u8; 32]]) -> (&[[u8; 32]], &[[u8; 32]]) {
    leaves.split_at(leaves.len().next_power_of_two() / 2)
}

/// RFC 6962 root over one leaf or more.
fn root(leaves: &[[u8; 32]]) -> [u8; 32] {
    match leaves {
        [] => sha256(&[]),
        [leaf] => *leaf,
        _ => {
            let (left, right) = halves(leaves);
            node(&root(left), &root(right))
        }
    }
}

/// RFC 6962 inclusion path, from the leaf up.
fn path(leaves: &[[u8; 32]], place: usize) -> Vec<[u8; 32]> {
    if leaves.len() < 2 {
        return Vec::new();
    }
    let (left, right) = halves(leaves);
    let (mut path, other) = match place.checked_sub(left.len()) {
        None => (path(left, place), root(right)),
        Some(place) => (path(right, place), root(left)),
    };
    path.push(other);
    path
}

/// A statement's JSON object, member by member, in the order in which they were put.
#[derive(Debug, Clone)]
pub struct Object(Vec<(String, Value)>);

impl Object {
    /// Takes `typ` and `v`.
    #[must_use]
    pub fn of(kind: &str) -> Self {
        Self(vec![("typ".into(), kind.into()), ("v".into(), 1.into())])
    }

    /// Puts a member, or replaces it where it stands.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
        self
    }

    /// Takes a member out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.0.retain(|(known, _)| known != name);
        self
    }

    /// A member's text; empty when it is none.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// A member's number; 0 when it is none.
    #[must_use]
    pub fn number(&self, name: &str) -> i64 {
        self.0.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.as_i64()).unwrap_or_default()
    }

    /// The bytes.
    #[must_use]
    pub fn json(&self) -> Vec<u8> {
        let members: Vec<String> = self.0.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
        format!("{{{}}}", members.join(",")).into_bytes()
    }
}

/// What the smallest body is sealed to: 512 bytes and a tag.
pub const BLIND_BYTES: usize = 528;

/// A message before it is signed: its origin and the bytes that the origin vouches for.
#[derive(Debug, Clone)]
pub struct Draft {
    /// What the origin says.
    pub origin: Object,
    /// HPKE encapsulated key.
    pub enc: Vec<u8>,
    /// HPKE ciphertext.
    pub ciphertext: Vec<u8>,
}

impl Draft {
    /// A referral whose sealed body is random bytes of the right length: good enough for whoever cannot open it.
    #[must_use]
    pub fn blind(from: &str, to: &str) -> Self {
        Self::blind_over(from, to, random::<BLIND_BYTES>().to_vec())
    }

    /// The same over a ciphertext of one's own.
    #[must_use]
    pub fn blind_over(from: &str, to: &str, ciphertext: Vec<u8>) -> Self {
        let enc = random::<32>().to_vec();
        let origin = referral_origin(from, to, &uuid7().to_string());
        let origin = origin.with("ct", content("blind-1", &enc, &ciphertext)).with("ptc", b64(&random::<32>()));
        Self { origin, enc, ciphertext }
    }

    /// A referral that its recipient can open: `body` sealed to a key.
    ///
    /// # Errors
    /// When a name is none, or the body is too long.
    pub fn sealed(from: &str, to: &str, key: &PublicKey, body: &[u8]) -> Result<Self> {
        Self::seal(referral_origin(from, to, &uuid7().to_string()), key, body)
    }

    /// Seals a body to a key, bound to what an origin says.
    ///
    /// # Errors
    /// When a member of the origin is not of its form, or the body is too long.
    pub fn seal(origin: Object, key: &PublicKey, body: &[u8]) -> Result<Self> {
        let context = seal::Context {
            jti: &origin.text("jti").parse()?,
            cid: &origin.text("cid").parse()?,
            case: &origin.text("case").parse()?,
            iss: &origin.text("iss").parse()?,
            aud: &origin.text("aud").parse()?,
            mt: origin.text("mt"),
            kid: key.kid(),
            exp: origin.number("exp"),
        };
        let sealed = seal::seal(key, &context, body, random())?;
        let (enc, ciphertext) = (sealed.enc.to_vec(), sealed.ciphertext.to_vec());
        let origin = origin.clone().with("ct", content(key.kid().as_str(), &enc, &ciphertext));
        Ok(Self { origin: origin.with("ptc", b64(sealed.ptc.as_bytes())), enc, ciphertext })
    }

    /// The same with one member of the origin changed.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.origin = self.origin.with(name, value);
        self
    }

    /// The message id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.origin.text("jti")
    }

    /// Signs it in a batch of its own.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn signed(&self, pen: &Pen) -> Result<SealedMessage> {
        Ok(self.carrying(pen.statement(&self.origin.json())?))
    }

    /// The message around a statement that somebody made.
    #[must_use]
    pub fn carrying(&self, origin: Statement) -> SealedMessage {
        SealedMessage { origin: Some(origin), enc: self.enc.clone().into(), ciphertext: self.ciphertext.clone().into() }
    }
}

/// The origin of a referral that opens a case; `ct` and `ptc` are still missing.
#[must_use]
pub fn referral_origin(from: &str, to: &str, id: &str) -> Object {
    let now = now_s();
    Object::of("origin")
        .with("jti", id)
        .with("cid", Uuid::new_v4().to_string())
        .with("case", id)
        .with("iss", from)
        .with("aud", to)
        .with("mt", "tramite.body.v1.Referral")
        .with("cs", "requested")
        .with("iat", now)
        .with("exp", now + 3600)
        .with("pri", "routine")
        .with("pur", "RIGHTS_SCREENING")
        .with("lb", "GDPR-6-1-E")
        .with("agr", "inps-per-tutti-2021")
        .with("op", "raw-peer")
        .with("loc", "desk-1")
        .with("loa", "substantial")
}

/// The `ct` member for what was sealed with the usual suite.
#[must_use]
pub fn content(kid: &str, enc: &[u8], ciphertext: &[u8]) -> Value {
    json!({
        "suite": "X25519-SHA256-AES256GCM", "kid": kid, "enc_s256": b64(&sha256(enc)),
        "s256": b64(&sha256(ciphertext)), "len": ciphertext.len(),
    })
}

/// A key record: `seq` and the encryption key as given, valid from a minute ago for a day.
#[must_use]
pub fn key_record(pen: &Pen, seq: i64, kid: &str, public: &[u8]) -> Object {
    let now = now_s();
    let chain: Vec<String> = pen.chain.iter().map(|one| b64(one)).collect();
    Object::of("key")
        .with("iss", pen.issuer.as_str())
        .with("seq", seq)
        .with("iat", now)
        .with("nbf", now - 60)
        .with("exp", now + 86_400)
        .with("x5c", chain)
        .with("alg", "ES256")
        .with("enc", json!({"kid": kid, "suite": "X25519-SHA256-AES256GCM", "pub": b64(public)}))
}

/// The encryption key in a key record.
///
/// # Errors
/// When there is none that can be read.
pub fn encryption_key(record: &[u8]) -> Result<PublicKey> {
    let record: Value = serde_json::from_slice(record)?;
    let text = |path: &str| record.pointer(path).and_then(Value::as_str).context("a key record");
    let bytes = URL_SAFE_NO_PAD.decode(text("/enc/pub")?)?;
    PublicKey::new(text("/enc/suite")?.parse()?, text("/enc/kid")?.parse()?, &bytes).context("a public key")
}

/// A receipt over a message, as its recipient would give it.
#[must_use]
pub fn receipt(from: &str, origin: &Object, ciphertext: &[u8]) -> Object {
    Object::of("receipt")
        .with("jti", uuid7().to_string())
        .with("iss", from)
        .with("aud", origin.text("iss"))
        .with("mid", origin.text("jti"))
        .with("org_s256", b64(&sha256(&origin.json())))
        .with("ct_s256", b64(&sha256(ciphertext)))
        .with("ptc", origin.text("ptc"))
        .with("at", now_s())
        .with("opened", true)
}

#[cfg(test)]
mod tests {
    use tramite_proto::{batch, jws::VerifyingKey, statement};

    use super::*;
    use crate::pki::Pki;

    /// The whole point of a forger is that the product finds nothing wrong but what is wrong.
    #[test]
    fn what_is_made_by_hand_is_what_the_product_reads() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::make(folder.path(), &["caritas", "inps"]).unwrap();
        let pen = pki.pen("caritas").unwrap();
        let draft = Draft::blind("caritas", "inps");
        let kinds =
            [draft.origin.clone(), receipt("inps", &draft.origin, b""), key_record(&pen, 1, "k-1", &random::<32>())];
        for object in kinds {
            let made = pen.statement(&object.json()).unwrap();
            let header = batch::verify(&made.jws, &VerifyingKey::from_certificate(&pen.chain[0]).unwrap()).unwrap();
            batch::check_inclusion(&made, &header).unwrap();
            statement::Statement::parse(&made.json).unwrap();
        }
        let [first, second] = pen.pair(&draft.origin.json(), b"{}").unwrap();
        let header = batch::parse(&first.jws).unwrap();
        batch::check_inclusion(&first, &header).unwrap();
        batch::check_inclusion(&second, &header).unwrap();
        for count in [1, 2, 3, 7, 64] {
            let batch = pen.batch(&vec![draft.origin.json(); count]).unwrap();
            let header = batch::parse(&batch[0].jws).unwrap();
            batch.iter().for_each(|statement| batch::check_inclusion(statement, &header).unwrap());
        }
        let origin = statement::Origin::parse(&draft.origin.json()).unwrap();
        origin.check_content(&draft.enc, &draft.ciphertext).unwrap();
    }
}
