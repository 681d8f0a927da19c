//! What is kept of a task token: enough to know it again, and nothing that it could be made of.

use std::fmt;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::digest::sha256_hex;

/// The SHA-256 of a task token.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskTokenDigest(String);

impl TaskTokenDigest {
    /// What is kept of this token.
    pub fn of(token: &str) -> Self {
        Self(sha256_hex(token))
    }

    /// Whether both are of one token. Takes the same time whichever part differs, as `==` does not.
    pub fn is(&self, other: &Self) -> bool {
        bool::from(self.0.as_bytes().ct_eq(other.0.as_bytes()))
    }
}

impl fmt::Debug for TaskTokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskTokenDigest(…)")
    }
}
