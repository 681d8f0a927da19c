//! `authorize-request`: whether a bearer key opens the door. Deny by default; knows the key's hash, never the key.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The SHA-256 of the key that opens the door.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

/// A hash that is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key's hash must have 64 hexadecimal digits")]
pub struct InvalidKeyHash;

impl std::str::FromStr for KeyHash {
    type Err = InvalidKeyHash;

    fn from_str(hex: &str) -> Result<Self, InvalidKeyHash> {
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(InvalidKeyHash);
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).map_err(|_| InvalidKeyHash)?;
        }
        Ok(Self(bytes))
    }
}

/// Whether the `Authorization` header's value holds the key. Takes the same time whichever part of it is wrong.
pub fn is_authorized(header: Option<&str>, expected: &KeyHash) -> bool {
    let Some((scheme, key)) = header.and_then(|header| header.split_once(' ')) else {
        return false;
    };
    let given: [u8; 32] = Sha256::digest(key.trim().as_bytes()).into();
    scheme.eq_ignore_ascii_case("bearer") && bool::from(given.ct_eq(&expected.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_key_in_the_right_form_opens() {
        // SHA-256 of "key", from `printf key | sha256sum`.
        let hash: KeyHash =
            "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683".parse().unwrap();
        assert!(is_authorized(Some("Bearer key"), &hash));
        assert!(is_authorized(Some("bearer key"), &hash));
        for wrong in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer Key"),
            Some("Basic key"),
            Some("key"),
        ] {
            assert!(!is_authorized(wrong, &hash), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        assert!("".parse::<KeyHash>().is_err());
        assert!("g".repeat(64).parse::<KeyHash>().is_err());
        assert!("é".repeat(32).parse::<KeyHash>().is_err());
    }
}
