//! What a fetch may cost.

use std::time::Duration;

use ciab_template::UnpackLimits;

/// What a fetch may cost, whatever the other side does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For a file or archive, from the first look-up to the last byte.
    pub download_time: Duration,
    /// For a git repository, with all of its requests and the reading of what came.
    pub git_time: Duration,
    /// For resolving a name, for connecting, and for the head of an answer, each.
    pub step_time: Duration,
    /// Redirects that are followed.
    pub redirects: usize,
    /// Bytes of a file or an archive, as they come.
    pub download_bytes: u64,
    /// Bytes of all that a git server sends, which is compressed.
    pub git_bytes: u64,
    /// Bytes of any one object of a git repository.
    pub object_bytes: usize,
    /// What it may unpack to.
    pub unpacked: UnpackLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            download_time: Duration::from_secs(20),
            git_time: Duration::from_secs(60),
            step_time: Duration::from_secs(10),
            redirects: 5,
            download_bytes: 16 << 20,
            git_bytes: 64 << 20,
            object_bytes: 32 << 20,
            unpacked: UnpackLimits::default(),
        }
    }
}
