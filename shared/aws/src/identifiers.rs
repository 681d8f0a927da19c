//! Build ids, and names for those who hold leases, from the machine's random source. Must never be guessable from one another.

use ciab_core::ids::BuildId;
use ciab_core::ports::Identifiers;
use uuid::Uuid;

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
