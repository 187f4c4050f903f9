//! Signatures: ES256 over bytes, and the three parts of a JWS in compact form (RFC 7515), read strictly.
//!
//! Knows P-256, certificates as far as the key inside, and base64url. Never knows who may sign what: chains, purposes and validity
//! are judged elsewhere, before a key gets here. Invariants: the algorithm is the key's, never the header's; a JWS has one spelling.
use std::fmt;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, ParsedPublicKey,
    },
};
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::{
    ids::Digest,
    strict::{self, Problem},
};

/// Bytes of a JWS: a batch needs about 400; the rest is room for long institution names.
pub const JWS_MAX: usize = 2048;
/// Bytes of a certificate in DER: ours have about 600; those of qualified authorities up to 3 KiB.
pub const CERTIFICATE_MAX: usize = 4096;

/// SubjectPublicKeyInfo of a P-256 key up to the point (RFC 5480): id-ecPublicKey, prime256v1, uncompressed point of 65 bytes.
const SPKI_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The private key is not a P-256 key in PKCS#8: use another file.
    #[error("the private key is not a P-256 key in PKCS#8")]
    KeyUnreadable,
    /// The certificate cannot be read, or holds no P-256 key: use another file.
    #[error("the certificate cannot be read or holds no P-256 key")]
    CertificateUnreadable,
    /// The private key belongs to another certificate: pair the files that were issued together.
    #[error("the private key does not belong to the certificate")]
    KeyOfAnotherCertificate,
    /// A batch takes 1 to 64 statements.
    #[error("a batch takes 1 to {max} statements, not {0}", max = crate::batch::BATCH_MAX)]
    BatchSize(usize),
    /// A statement is at most 16 KiB.
    #[error("a statement has at most {max} bytes, not {0}", max = crate::statement::STATEMENT_MAX)]
    StatementTooLong(usize),
    /// The signer failed (for one behind a device: it may be tried again).
    #[error("signing failed: {0}")]
    Failed(String),
}

/// Signs in an institution's name: a key in memory here, a device or a remote seal elsewhere.
pub trait Signer: Send + Sync + fmt::Debug {
    /// ES256 over `input`: r and s, 32 bytes each.
    fn sign(&self, input: &[u8]) -> Result<[u8; 64], SignError>;
    /// SHA-256 of the signing certificate in DER.
    fn x5t(&self) -> Digest;
    /// The institution in whose name it signs.
    fn issuer(&self) -> &str;
}

/// A P-256 private key in memory, with the name and the certificate that it signs under.
pub struct EcdsaSigner {
    issuer: String,
    x5t: Digest,
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl EcdsaSigner {
    /// Takes the key in PKCS#8 DER and the certificate that it belongs to, and checks that it does.
    pub fn from_pkcs8(issuer: &str, certificate: &[u8], pkcs8: &[u8]) -> Result<Self, SignError> {
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map_err(|_| SignError::KeyUnreadable)?;
        let point = point_of(certificate).ok_or(SignError::CertificateUnreadable)?;
        if point != key.public_key().as_ref() {
            return Err(SignError::KeyOfAnotherCertificate);
        }
        Ok(Self { issuer: issuer.to_owned(), x5t: Digest::of(certificate), key, random: SystemRandom::new() })
    }
}

impl Signer for EcdsaSigner {
    fn sign(&self, input: &[u8]) -> Result<[u8; 64], SignError> {
        let signature = self.key.sign(&self.random, input).map_err(|_| SignError::Failed("no randomness".into()))?;
        signature.as_ref().try_into().map_err(|_| SignError::Failed("a signature of another length".into()))
    }

    fn x5t(&self) -> Digest {
        self.x5t
    }

    fn issuer(&self) -> &str {
        &self.issuer
    }
}

impl fmt::Debug for EcdsaSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EcdsaSigner").field("issuer", &self.issuer).field("x5t", &self.x5t).finish_non_exhaustive()
    }
}

/// A P-256 public key, its point checked once; from a certificate, it also knows which.
#[derive(Debug, Clone)]
pub struct VerifyingKey {
    key: ParsedPublicKey,
    x5t: Option<Digest>,
}

impl VerifyingKey {
    /// From SubjectPublicKeyInfo in DER; `None` when it is not a valid P-256 key in its usual spelling.
    pub fn from_spki(spki: &[u8]) -> Option<Self> {
        Self::from_point(spki.strip_prefix(&SPKI_P256)?, None)
    }

    /// From a certificate in DER, whose chain somebody else checks; `None` when it is none, or holds no P-256 key.
    pub fn from_certificate(certificate: &[u8]) -> Option<Self> {
        Self::from_point(&point_of(certificate)?, Some(Digest::of(certificate)))
    }

    fn from_point(point: &[u8], x5t: Option<Digest>) -> Option<Self> {
        if point.len() != 65 || point.first() != Some(&0x04) {
            return None;
        }
        Some(Self { key: ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok()?, x5t })
    }

    /// SHA-256 of the certificate that it came from.
    pub fn x5t(&self) -> Option<Digest> {
        self.x5t
    }

    /// True when `signature` (r and s, 32 bytes each) over `input` is by this key.
    pub fn verifies(&self, input: &[u8], signature: &[u8; 64]) -> bool {
        self.key.verify_sig(input, signature).is_ok()
    }
}

/// The uncompressed point in a certificate.
fn point_of(certificate: &[u8]) -> Option<Vec<u8>> {
    if certificate.len() > CERTIFICATE_MAX {
        return None;
    }
    let der = CertificateDer::from(certificate);
    let spki = EndEntityCert::try_from(&der).ok()?.subject_public_key_info();
    spki.as_ref().strip_prefix(&SPKI_P256).map(<[u8]>::to_vec)
}

/// A JWS taken apart; nothing in it is checked yet but its spelling.
#[derive(Debug)]
pub(crate) struct Compact<'a> {
    pub(crate) protected: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: [u8; 64],
    /// What the signature is over: the ASCII before the last point.
    pub(crate) signed: &'a str,
}

impl<'a> Compact<'a> {
    pub(crate) fn parse(jws: &'a str) -> Result<Self, Problem> {
        let wrong = |what: &str| Problem::new("jws", what);
        if jws.len() > JWS_MAX {
            return Err(wrong("is longer than 2 KiB"));
        }
        let (signed, signature) = jws.rsplit_once('.').ok_or_else(|| wrong("has not three parts"))?;
        let (protected, payload) = signed.split_once('.').ok_or_else(|| wrong("has not three parts"))?;
        Ok(Self {
            protected: strict::decode(protected)
                .ok_or_else(|| wrong("has a protected header that is not base64url"))?,
            // A point more than two is not in the alphabet either.
            payload: strict::decode(payload).ok_or_else(|| wrong("has a payload that is not base64url"))?,
            signature: strict::decode_exact(signature)
                .ok_or_else(|| wrong("has a signature that is not base64url of 64 bytes"))?,
            signed,
        })
    }

    /// Signs and writes.
    pub(crate) fn sign(signer: &dyn Signer, protected: &[u8], payload: &[u8]) -> Result<String, SignError> {
        let mut jws = format!("{}.{}", strict::encode(protected), strict::encode(payload));
        let signature = signer.sign(jws.as_bytes())?;
        jws.push('.');
        jws.push_str(&strict::encode(&signature));
        Ok(jws)
    }
}

#[cfg(test)]
pub(crate) mod tests;
