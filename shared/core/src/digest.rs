//! SHA-256 as it is written here: in hexadecimal, in lower case.

use sha2::{Digest, Sha256};

/// The digest of these bytes, 64 digits.
pub(crate) fn sha256_hex(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
