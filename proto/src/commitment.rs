//! The commitment to a plaintext (FORMATS.md §3, `ptc`), and the plaintext's padding.
//!
//! Knows salt, body and padding. Never knows keys. Why it exists: a signature over ciphertext alone proves nothing of the content;
//! AES-GCM does not commit to its key; and either side can later disclose salt and body, and prove what was said. Invariants: each
//! body has one plaintext (for a salt), so padding carries no hidden bytes and the length shows no more than a power of two.
use bytes::Bytes;
use zeroize::Zeroizing;

use crate::ids::Digest;

/// Bytes of salt before the body: nobody who guesses the body can check the guess against the commitment.
pub const SALT_LEN: usize = 32;
/// The least padded plaintext: most updates and answers fit, and look the same.
pub const PADDED_MIN: usize = 512;
/// The largest padded plaintext; what is larger travels as a part.
pub const PADDED_MAX: usize = 65_536;
/// Bytes of the largest body that fits.
pub const BODY_MAX: usize = PADDED_MAX - SALT_LEN - LENGTH_LEN;

const LENGTH_LEN: usize = 4;
const LABEL: &[u8] = b"tramite-ptc-v1\0";

/// `SHA-256("tramite-ptc-v1" || 0x00 || salt || body)`.
pub fn commit(salt: &[u8; SALT_LEN], body: &[u8]) -> Digest {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    [LABEL, salt, body].iter().for_each(|piece| context.update(piece));
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    Digest(digest)
}

/// `salt || u32(len(body)) || body || zeros`, padded to a power of two; `None` when the body is too long.
pub(crate) fn pad(salt: &[u8; SALT_LEN], body: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let length = u32::try_from(body.len()).ok()?;
    let padded = padded_len(body.len())?;
    let mut plaintext = Zeroizing::new(Vec::with_capacity(padded));
    plaintext.extend_from_slice(salt);
    plaintext.extend_from_slice(&length.to_be_bytes());
    plaintext.extend_from_slice(body);
    plaintext.resize(padded, 0);
    Some(plaintext)
}

/// Salt and body of a plaintext; `None` unless it is exactly what [`pad`] makes of them.
pub(crate) fn unpad(plaintext: &[u8]) -> Option<([u8; SALT_LEN], Bytes)> {
    let (salt, rest) = plaintext.split_first_chunk::<SALT_LEN>()?;
    let (length, rest) = rest.split_first_chunk::<LENGTH_LEN>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (body, zeros) = rest.split_at_checked(length)?;
    let whole = padded_len(length)? == plaintext.len() && zeros.iter().all(|byte| *byte == 0);
    whole.then(|| (*salt, Bytes::copy_from_slice(body)))
}

/// The least power of two from 512 to 65,536 into which salt, length and a body of `body` bytes fit.
fn padded_len(body: usize) -> Option<usize> {
    if body > BODY_MAX {
        return None;
    }
    Some((SALT_LEN + LENGTH_LEN + body).next_power_of_two().max(PADDED_MIN))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_the_least_power_of_two_that_fits() {
        for (body, padded) in [(0, 512), (476, 512), (477, 1024), (988, 1024), (989, 2048), (BODY_MAX, PADDED_MAX)] {
            assert_eq!(pad(&[1; 32], &vec![7; body]).unwrap().len(), padded, "{body}");
        }
        assert!(pad(&[1; 32], &vec![7; BODY_MAX + 1]).is_none());
    }

    #[test]
    fn padding_that_hides_bytes_is_refused() {
        let mut plaintext = pad(&[1; 32], b"body").unwrap();
        *plaintext.last_mut().unwrap() = 1;
        assert_eq!(unpad(&plaintext), None);
        plaintext[32 + 4 + 4] = 1;
        *plaintext.last_mut().unwrap() = 0;
        assert_eq!(unpad(&plaintext), None);
    }

    #[test]
    fn a_padding_longer_or_shorter_than_the_least_is_refused() {
        let mut plaintext = pad(&[1; 32], b"body").unwrap().to_vec();
        plaintext.resize(1024, 0);
        assert_eq!(unpad(&plaintext), None);
        plaintext.truncate(511);
        assert_eq!(unpad(&plaintext), None);
        let mut long = pad(&[1; 32], b"body").unwrap().to_vec();
        long[32..36].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(unpad(&long), None);
        long[32..36].copy_from_slice(&477_u32.to_be_bytes());
        assert_eq!(unpad(&long), None, "a body that runs past the end");
    }

    #[test]
    fn salt_and_body_both_count() {
        let ptc = commit(&[1; 32], b"body");
        assert_ne!(ptc, commit(&[2; 32], b"body"));
        assert_ne!(ptc, commit(&[1; 32], b"bodz"));
    }

    proptest! {
        #[test]
        fn what_was_padded_comes_back(salt: [u8; 32], body in prop::collection::vec(any::<u8>(), 0..3000)) {
            let plaintext = pad(&salt, &body).unwrap();
            prop_assert_eq!(unpad(&plaintext), Some((salt, Bytes::from(body))));
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..1100), length: u32, at_edge in 0_u32..1100) {
            let _ = unpad(&bytes);
            let mut plaintext = vec![0; 512];
            for length in [length, at_edge] {
                plaintext[32..36].copy_from_slice(&length.to_be_bytes());
                let _ = unpad(&plaintext);
            }
        }
    }
}
