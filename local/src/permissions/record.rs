//! What roles really called, for comparing it with what they may: one line for each role and action, appended to a file that many
//! stacks may share.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) struct Called {
    /// Its logical name.
    pub(crate) role: String,
    /// Such as `ec2:RunInstances`; for a request that is in no table, why.
    pub(crate) action: String,
    pub(crate) allowed: bool,
}

pub(crate) struct Record(Option<Mutex<(File, HashSet<Called>)>>);

impl Record {
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let open = |path: &Path| OpenOptions::new().create(true).append(true).open(path);
        Ok(Self(path.map(open).transpose()?.map(|file| Mutex::new((file, HashSet::new())))))
    }

    pub(crate) fn note(&self, role: &str, action: &str, allowed: bool) {
        let Some(record) = &self.0 else { return };
        let called = Called { role: role.to_owned(), action: action.to_owned(), allowed };
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        if record.1.contains(&called) {
            return;
        }
        // One write, so that the lines of stacks that run side by side do not mix.
        let line = serde_json::to_string(&called).map(|line| line + "\n").unwrap_or_default();
        match record.0.write_all(line.as_bytes()) {
            Ok(()) => {
                record.1.insert(called);
            }
            Err(error) => tracing::error!("a call cannot be recorded: {error}"),
        }
    }
}
