//! The `hpke` crate behind plain bytes: the one place where a suite becomes types.
//!
//! Knows RFC 9180's single shot in mode Base. Never knows padding, commitments or messages. Invariant: wrong bytes of any length give
//! `None`, never a panic.
use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable,
    aead::AesGcm256,
    kdf::HkdfSha256,
    kem::{X25519HkdfSha256, XWing},
};
use zeroize::Zeroizing;

use super::{PRIVATE_KEY_LEN, Suite};

pub(super) fn is_public_key(suite: Suite, bytes: &[u8]) -> bool {
    // An X25519 key of 32 bytes always reads; one of small order is found when something is sealed to it (RFC 9180 §7.1.4).
    match suite {
        Suite::X25519 => <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(bytes).is_ok(),
        Suite::XWing => <XWing as Kem>::PublicKey::from_bytes(bytes).is_ok(),
    }
}

pub(super) fn public_key(suite: Suite, private: &[u8; PRIVATE_KEY_LEN]) -> Vec<u8> {
    match suite {
        Suite::X25519 => public_key_of::<X25519HkdfSha256>(private),
        Suite::XWing => public_key_of::<XWing>(private),
    }
}

fn public_key_of<K: Kem>(private: &[u8; PRIVATE_KEY_LEN]) -> Vec<u8> {
    let private = K::PrivateKey::from_bytes(private).expect("any 32 bytes are a private key of both suites");
    K::sk_to_pk(&private).to_bytes().to_vec()
}

pub(super) fn seal(suite: Suite, to: &[u8], info: &[u8], plaintext: &[u8], aad: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    match suite {
        Suite::X25519 => seal_with::<X25519HkdfSha256>(to, info, plaintext, aad),
        Suite::XWing => seal_with::<XWing>(to, info, plaintext, aad),
    }
}

fn seal_with<K: Kem>(to: &[u8], info: &[u8], plaintext: &[u8], aad: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let to = K::PublicKey::from_bytes(to).ok()?;
    let (enc, ciphertext) =
        hpke::single_shot_seal::<AesGcm256, HkdfSha256, K>(&OpModeS::Base, &to, info, plaintext, aad).ok()?;
    Some((enc.to_bytes().to_vec(), ciphertext))
}

pub(super) fn open(
    suite: Suite,
    private: &[u8; PRIVATE_KEY_LEN],
    enc: &[u8],
    info: &[u8],
    ciphertext: &[u8],
    aad: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    match suite {
        Suite::X25519 => open_with::<X25519HkdfSha256>(private, enc, info, ciphertext, aad),
        Suite::XWing => open_with::<XWing>(private, enc, info, ciphertext, aad),
    }
}

fn open_with<K: Kem>(
    private: &[u8; PRIVATE_KEY_LEN],
    enc: &[u8],
    info: &[u8],
    ciphertext: &[u8],
    aad: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let private = K::PrivateKey::from_bytes(private).ok()?;
    let enc = K::EncappedKey::from_bytes(enc).ok()?;
    let opened =
        hpke::single_shot_open::<AesGcm256, HkdfSha256, K>(&OpModeR::Base, &private, &enc, info, ciphertext, aad);
    opened.ok().map(Zeroizing::new)
}
