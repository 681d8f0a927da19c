//! The folder where set-up keeps what it made: each entry keyed by a digest of its recipe, so a new recipe makes a
//! new entry and never changes an old one that someone may be using.
//!
//! An entry is made in its final place, since a Python environment can't be moved, and counts only once its marker is
//! written, which is the last thing that happens to it. The lock keeps two set-ups apart; readers need none.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::progress;
use local_stack::interruption;

const MARKER: &str = ".complete";

pub(crate) struct Cache {
    directory: PathBuf,
}

/// The right to change the cache; held by one process at a time, given back when dropped or when the process dies.
pub(crate) struct Lock<'cache> {
    cache: &'cache Cache,
    _file: File,
}

impl Cache {
    /// Opens $CIAB_CACHE_DIR, or ciab-images in the user's cache folder.
    pub(crate) fn open() -> Result<Self> {
        let variable =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let directory = variable("CIAB_CACHE_DIR")
            .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("ciab-images")))
            .or_else(|| variable("HOME").map(|home| home.join(".cache/ciab-images")))
            .context("no place for a cache: set CIAB_CACHE_DIR, XDG_CACHE_HOME or HOME")?;
        Self::at(&directory)
    }

    fn at(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        let directory = directory.canonicalize().context("resolve the cache's path")?;
        Ok(Self { directory })
    }

    /// Waits until no other set-up is running.
    pub(crate) fn lock(&self) -> Result<Lock<'_>> {
        let path = self.directory.join("setup.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { cache: self, _file: file }),
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        progress::note("another set-up is running; waiting for it");
                        told = true;
                    }
                    interruption::pause(Duration::from_millis(100))?;
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("lock {}", path.display()));
                }
            }
        }
    }
}

impl Lock<'_> {
    /// The cache's folder, for what names its own entries.
    pub(crate) fn directory(&self) -> &Path {
        &self.cache.directory
    }

    /// The entry's folder, made now by `make` if it is not there yet. `recipe` is all that decides what it holds.
    pub(crate) fn entry(
        &self,
        name: &str,
        recipe: &[u8],
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let directory = self.cache.directory.join(format!("{name}-{}", digest(recipe)));
        if directory.join(MARKER).is_file() {
            return Ok(directory);
        }
        self.discard(&directory)?;
        std::fs::create_dir(&directory).with_context(|| format!("create {}", directory.display()))?;
        let made = make(&directory).and_then(|()| Ok(std::fs::write(directory.join(MARKER), "")?));
        if let Err(error) = made {
            // What is half there would be discarded by the next set-up anyway; this only frees the space sooner.
            let _ = self.discard(&directory);
            return Err(error);
        }
        Ok(directory)
    }

    /// Removes an entry, whole or half made.
    pub(crate) fn discard(&self, directory: &Path) -> Result<()> {
        match std::fs::remove_file(directory.join(MARKER)).and_then(|()| std::fs::remove_dir_all(directory)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if !directory.exists() {
                    return Ok(());
                }
                std::fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))
            }
            other => other.with_context(|| format!("remove {}", directory.display())),
        }
    }
}

/// The first 16 hexadecimal digits of the SHA-256: enough to tell recipes apart.
fn digest(recipe: &[u8]) -> String {
    Sha256::digest(recipe).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path()).unwrap();
        (directory, cache)
    }

    #[test]
    fn an_entry_is_made_once_for_each_recipe() {
        let (_directory, cache) = cache();
        let lock = cache.lock().unwrap();
        let first =
            lock.entry("thing", b"one", |path| Ok(std::fs::write(path.join("content"), "1")?)).unwrap();
        let again = lock.entry("thing", b"one", |_| panic!("it is there already")).unwrap();
        let other = lock.entry("thing", b"two", |_| Ok(())).unwrap();
        assert_eq!(first, again);
        assert_ne!(first, other);
        assert_eq!(std::fs::read_to_string(first.join("content")).unwrap(), "1");
    }

    #[test]
    fn an_entry_that_was_not_finished_is_made_anew() {
        let (_directory, cache) = cache();
        let lock = cache.lock().unwrap();
        let path = lock.entry("thing", b"one", |path| Ok(std::fs::write(path.join("stale"), "")?)).unwrap();
        std::fs::remove_file(path.join(MARKER)).unwrap();
        let again = lock.entry("thing", b"one", |_| Ok(())).unwrap();
        assert_eq!(path, again);
        assert!(!again.join("stale").exists());
    }

    #[test]
    fn an_entry_that_failed_leaves_nothing() {
        let (directory, cache) = cache();
        let lock = cache.lock().unwrap();
        lock.entry("thing", b"one", |_| anyhow::bail!("no")).unwrap_err();
        let left: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["setup.lock"]);
    }

    #[test]
    fn two_set_ups_take_turns() {
        let (_directory, cache) = cache();
        let lock = cache.lock().unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| cache.lock().map(|_| ()));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!second.is_finished());
            drop(lock);
            second.join().unwrap().unwrap();
        });
    }
}
