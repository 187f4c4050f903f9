//! Private keys on disk: reading them only where others cannot, and the file of an encryption key.
//!
//! Knows file modes, PKCS#8 and the encryption key's file. Never knows what is signed or opened with them.
//! Invariants: a key file that its group or others may read or write is refused, with what to do; bytes of keys are zeroed when
//! dropped and stand in no error and no `Debug`.
//!
//! An encryption key's file (`enc-<key id>.key`) is four lines of text:
//! ```text
//! tramite encryption key v1
//! suite X25519-SHA256-AES256GCM
//! kid 0123456789abcdef
//! key <base64url>
//! ```
use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::{rand::SystemRandom, signature::Ed25519KeyPair};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use serde::Deserialize;
use tramite_proto::{
    ids::{Digest, IdError, KeyId},
    jws::{EcdsaSigner, SignError},
    seal::{PrivateKey, Suite},
};
use zeroize::Zeroizing;

use crate::{
    files::{self, Access, FileError},
    identity::{IdentityError, Peer, Role, TrustDomain, Usage},
};

/// Encryption keys in one directory: one in use and those of some years for what is still on its way.
pub const ENCRYPTION_KEYS_MAX: usize = 64;
const FIRST_LINE: &str = "tramite encryption key v1";

/// Why a key was not read or made.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Others may read or write it: change its mode.
    #[error(
        "{} may be read or written by others (mode {mode:04o}): run `chmod 600 {}`; if others could read it, issue a new key",
        path.display(), path.display()
    )]
    Mode {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a regular file.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
    /// Its bytes cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not a key of the kind.
    #[error("{} is not {what}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
    },
    /// Key and certificate do not serve to sign.
    #[error("{} does not serve for signing", path.display())]
    Signer {
        /// The key file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SignError,
    },
    /// The signing certificate tells another identity, or none.
    #[error("{} does not serve for signing", path.display())]
    Identity {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: IdentityError,
    },
    /// The certificate is somebody else's.
    #[error("{} is the certificate of {found}", path.display())]
    Other {
        /// The certificate's file.
        path: PathBuf,
        /// Whose it is.
        found: String,
    },
    /// More keys than anyone needs.
    #[error("{} holds {ENCRYPTION_KEYS_MAX} encryption keys or more: move those away whose key records are past their expiry", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
    /// There is none to follow.
    #[error("{} holds no encryption key: name the folder of an institution", path.display())]
    NoKey {
        /// The directory.
        path: PathBuf,
    },
    /// Others refuse a key record with a weaker suite than one before it.
    #[error("{wanted} is weaker than {} of the key in use, so others would refuse it", held)]
    Weaker {
        /// The one that was asked for.
        wanted: &'static str,
        /// The strongest one there.
        held: &'static str,
    },
    /// The system gave no randomness.
    #[error("the system gave no randomness")]
    NoRandomness,
}

/// Reads a file that only its owner may read.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Of the open file, not of the path: it cannot be exchanged in between.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(SecretError::NotAFile { path: path.to_owned() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Mode { path: path.to_owned(), mode });
    }
    Ok(Zeroizing::new(files::read_open(file, path)?))
}

/// Reads a TLS key in PEM.
pub fn load_tls_key(path: &Path) -> Result<PrivateKeyDer<'static>, SecretError> {
    let pem = read_private(path)?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| SecretError::Malformed { path: path.to_owned(), what: "a private key in PEM" })
}

fn load_pkcs8(path: &Path) -> Result<PrivatePkcs8KeyDer<'static>, SecretError> {
    let pem = read_private(path)?;
    PrivatePkcs8KeyDer::from_pem_slice(&pem)
        .map_err(|_| SecretError::Malformed { path: path.to_owned(), what: "a private key in PEM (PKCS#8)" })
}

/// Where a signing certificate and its key are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningFiles {
    /// Chain in PEM, leaf first.
    pub cert: PathBuf,
    /// Key in PEM, mode 0600.
    pub key: PathBuf,
}

impl SigningFiles {
    /// With relative paths taken from `base`, the directory of the configuration file.
    #[must_use]
    pub fn relative_to(&self, base: &Path) -> Self {
        Self { cert: base.join(&self.cert), key: base.join(&self.key) }
    }
}

/// A signer with the chain that others verify it by.
#[derive(Debug)]
pub struct LoadedSigner {
    /// Signs.
    pub signer: EcdsaSigner,
    /// Certificates in DER, leaf first: the `x5c` of a key record.
    pub chain: Vec<Vec<u8>>,
    /// Whose it is, until when.
    pub holder: Peer,
}

/// Reads a signing certificate (chain in PEM, leaf first) and its key, and checks that they are `role`/`name`'s.
pub fn load_signing(
    certificate: &Path,
    key: &Path,
    trust_domain: &TrustDomain,
    role: Role,
    name: &str,
) -> Result<LoadedSigner, SecretError> {
    let chain: Vec<Vec<u8>> = files::certificates(certificate)?.iter().map(|der| der.to_vec()).collect();
    let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
    let identity = |source| SecretError::Identity { path: certificate.to_owned(), source };
    let holder = Peer::from_certificate(leaf, trust_domain, Usage::Signing).map_err(identity)?;
    if holder.role() != role || holder.name().as_str() != name {
        return Err(SecretError::Other { path: certificate.to_owned(), found: holder.to_string() });
    }
    let pkcs8 = load_pkcs8(key)?;
    let signer = EcdsaSigner::from_pkcs8(name, leaf, pkcs8.secret_pkcs8_der());
    let signer = signer.map_err(|source| SecretError::Signer { path: key.to_owned(), source })?;
    Ok(LoadedSigner { signer, chain, holder })
}

/// Makes an encryption key and the id that names it: the beginning of its public key's SHA-256.
pub fn generate_encryption_key(suite: Suite) -> Result<(KeyId, PrivateKey), SecretError> {
    let key = PrivateKey::generate(suite).map_err(|_| SecretError::NoRandomness)?;
    let draft: KeyId = "draft".parse().map_err(no_id)?;
    let print = Digest::of(key.public_key(draft).as_bytes()).to_hex();
    let kid = print.get(..16).unwrap_or_default().parse().map_err(no_id)?;
    Ok((kid, key))
}

/// Sixteen hexadecimal digits are a key id.
fn no_id(_: IdError) -> SecretError {
    SecretError::NoRandomness
}

/// Writes `enc-<kid>.key` into `directory` and returns its path.
pub fn save_encryption_key(directory: &Path, kid: &KeyId, key: &PrivateKey) -> Result<PathBuf, SecretError> {
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.encode(key.to_bytes().as_slice()));
    let head = format!("{FIRST_LINE}\nsuite {}\nkid {kid}\nkey ", key.suite().as_str());
    let mut text = Zeroizing::new(String::with_capacity(head.len() + bytes.len() + 1));
    text.push_str(&head);
    text.push_str(&bytes);
    text.push('\n');
    let path = directory.join(format!("enc-{kid}.key"));
    files::replace(&path, text.as_bytes(), Access::Private)?;
    Ok(path)
}

/// Puts a new encryption key beside those that are there, of the same suite or a stronger one. The old ones stay: what was sealed to
/// them may still be on its way. A running adapter takes the new one up, publishes it, and opens with all of them.
pub fn rotate_encryption_key(directory: &Path, suite: Option<Suite>) -> Result<(KeyId, PathBuf), SecretError> {
    let held = load_encryption_keys(directory)?;
    if held.len() >= ENCRYPTION_KEYS_MAX {
        return Err(SecretError::TooMany { path: directory.to_owned() });
    }
    let strongest = held.iter().map(|(_, key)| key.suite()).max_by_key(|suite| suite.strength());
    let strongest = strongest.ok_or_else(|| SecretError::NoKey { path: directory.to_owned() })?;
    let suite = suite.unwrap_or(strongest);
    if suite.strength() < strongest.strength() {
        return Err(SecretError::Weaker { wanted: suite.as_str(), held: strongest.as_str() });
    }
    let (kid, key) = generate_encryption_key(suite)?;
    let path = save_encryption_key(directory, &kid, &key)?;
    Ok((kid, path))
}

/// Reads one encryption key's file.
pub fn load_encryption_key(path: &Path) -> Result<(KeyId, PrivateKey), SecretError> {
    let text = read_private(path)?;
    parse_encryption_key(&text)
        .ok_or_else(|| SecretError::Malformed { path: path.to_owned(), what: "an encryption key of Tramite" })
}

fn parse_encryption_key(text: &[u8]) -> Option<(KeyId, PrivateKey)> {
    let mut lines = std::str::from_utf8(text).ok()?.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let suite: Suite = lines.next()?.strip_prefix("suite ")?.parse().ok()?;
    let kid: KeyId = lines.next()?.strip_prefix("kid ")?.parse().ok()?;
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(lines.next()?.strip_prefix("key ")?).ok()?);
    if lines.next().is_some() {
        return None;
    }
    Some((kid, PrivateKey::from_bytes(suite, &bytes)?))
}

/// Reads every `enc-*.key` of a directory, by key id.
pub fn load_encryption_keys(directory: &Path) -> Result<Vec<(KeyId, PrivateKey)>, SecretError> {
    let failed = |source: io::Error| FileError::Read { path: directory.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("enc-") && name.ends_with(".key") {
            paths.push(path);
        }
        if paths.len() > ENCRYPTION_KEYS_MAX {
            return Err(SecretError::TooMany { path: directory.to_owned() });
        }
    }
    paths.sort();
    paths.iter().map(|path| load_encryption_key(path)).collect()
}

/// Makes an Ed25519 key for the log and writes it to `path` (PKCS#8 v1: OpenSSL before 3.4 does not read v2).
pub fn generate_log_key(path: &Path) -> Result<(), SecretError> {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(|_| SecretError::NoRandomness)?;
    let text = Zeroizing::new(files::pem("PRIVATE KEY", pkcs8.as_ref()));
    Ok(files::replace(path, text.as_bytes(), Access::Private)?)
}

/// Reads the log's key.
pub fn load_log_key(path: &Path) -> Result<Ed25519KeyPair, SecretError> {
    let pkcs8 = load_pkcs8(path)?;
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8.secret_pkcs8_der())
        .map_err(|_| SecretError::Malformed { path: path.to_owned(), what: "an Ed25519 key" })
}

#[cfg(test)]
mod tests;
