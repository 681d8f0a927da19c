//! Build ids, API keys, and names for those who hold leases, from the machine's random source. Must never be guessable from one
//! another.

use ciab_core::ids::BuildId;
use ciab_core::key::{KeyId, NewKey};
use ciab_core::ports::{Identifiers, KeyMaker, PortError};
use jiff::Timestamp;
use uuid::Uuid;

use crate::failure::Call;

/// The machine's random source.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIdentifiers;

impl Identifiers for RandomIdentifiers {
    fn new_build_id(&self) -> BuildId {
        BuildId::new(Uuid::new_v4())
    }

    fn new_holder(&self) -> String {
        Uuid::new_v4().to_string()
    }
}

impl KeyMaker for RandomIdentifiers {
    fn new_key(&self, now: Timestamp) -> Result<NewKey, PortError> {
        let (mut id, mut secret) = ([0; 4], [0; 32]);
        // Key material must come from the operating system's own generator, and a machine without one must make no key.
        getrandom::fill(&mut id)
            .and_then(|()| getrandom::fill(&mut secret))
            .map_err(|error| Call { service: "machine", operation: "getrandom" }.unavailable(error))?;
        Ok(NewKey::new(KeyId::new(now, id), &secret))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_keys_of_one_moment_have_a_part_in_common() {
        let now = "2026-03-25T14:30:00Z".parse().unwrap();
        let keys: Vec<NewKey> = (0..100).map(|_| RandomIdentifiers.new_key(now).unwrap()).collect();
        let ids: BTreeSet<&str> = keys.iter().map(|key| key.id.as_str()).collect();
        let secrets: BTreeSet<&str> =
            keys.iter().filter_map(|key| key.text.expose().rsplit('_').next()).collect();
        assert_eq!((ids.len(), secrets.len()), (100, 100));
        for secret in secrets {
            let digits: BTreeSet<char> = secret.chars().collect();
            assert!(digits.len() > 6, "{secret} is not random");
        }
    }
}
