//! Where the stack keeps its files: logs, and what it needs while it runs. One stack at a time has a folder.
//!
//! Must never remove what it did not make: in a folder that the user chose, that is everything but the three below.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};

const PREFIX: &str = "ciab-local-";
const LOCK: &str = "lock";

#[derive(Clone)]
pub(crate) struct WorkDir {
    path: PathBuf,
    temporary: bool,
    /// Held by every process of the stack, and let go by the kernel however they end.
    _lock: Arc<File>,
}

impl WorkDir {
    /// The folder given, or a temporary one. Removes what a stack that was killed left behind in either.
    pub(crate) fn create(given: Option<&Path>) -> anyhow::Result<Self> {
        let (path, temporary) = match given {
            Some(path) => {
                fs::create_dir_all(path)
                    .with_context(|| format!("the work folder {} cannot be made", path.display()))?;
                (path.canonicalize()?, false)
            }
            None => {
                remove_abandoned(&std::env::temp_dir());
                (tempfile::Builder::new().prefix(PREFIX).tempdir()?.keep(), true)
            }
        };
        let Some(lock) = lock(&path).with_context(|| format!("{} cannot be written", path.display()))? else {
            bail!("{} is in use by another stack; take another with --work-dir", path.display());
        };
        let work_dir = Self { path, temporary, _lock: Arc::new(lock) };
        if !temporary {
            work_dir.remove_perishable();
        }
        fs::create_dir_all(work_dir.logs()).context("the folder for logs cannot be made")?;
        Ok(work_dir)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    pub(crate) fn builds(&self) -> PathBuf {
        self.path.join("builds")
    }

    pub(crate) fn ec2(&self) -> PathBuf {
        self.path.join("ec2")
    }

    pub(crate) fn moto(&self) -> PathBuf {
        self.path.join("moto")
    }

    /// Removes everything, except the logs in a folder that the user chose.
    pub(crate) fn remove(&self) {
        self.remove_perishable();
        let _ = fs::remove_file(self.path.join(LOCK));
    }

    fn remove_perishable(&self) {
        let perishable = if self.temporary {
            vec![self.path.clone()]
        } else {
            vec![self.builds(), self.ec2(), self.moto()]
        };
        for path in perishable {
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    eprintln!("warning: {} is left behind: {error}", path.display());
                }
                _ => {}
            }
        }
    }
}

/// Removes temporary folders whose stack is gone: it was killed, together with whoever would have done it.
fn remove_abandoned(temporary: &Path) {
    for entry in fs::read_dir(temporary).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let path = entry.path();
        // A folder without a lock is one that another stack is just making.
        if ours && path.join(LOCK).is_file() && matches!(lock(&path), Ok(Some(_))) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// The folder's lock, or nothing if a stack has it.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_stack_at_a_time_and_keeps_its_logs() {
        let folder = tempfile::tempdir().unwrap();
        let first = WorkDir::create(Some(folder.path())).unwrap();
        assert!(WorkDir::create(Some(folder.path())).is_err());
        fs::create_dir_all(first.builds()).unwrap();
        first.remove();
        assert!(first.logs().is_dir() && !first.builds().exists());
        drop(first);
        WorkDir::create(Some(folder.path())).unwrap();
    }

    #[test]
    fn what_a_killed_stack_left_goes_and_what_a_living_one_has_stays() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = |name: &str| temporary.path().join(name);
        for name in ["ciab-local-killed", "ciab-local-living", "ciab-local-new", "other"] {
            fs::create_dir(folder(name)).unwrap();
        }
        fs::write(folder("ciab-local-killed").join(LOCK), "").unwrap();
        fs::write(folder("other").join(LOCK), "").unwrap();
        let _living = lock(&folder("ciab-local-living")).unwrap().unwrap();
        remove_abandoned(temporary.path());
        assert!(!folder("ciab-local-killed").exists());
        assert!(["ciab-local-living", "ciab-local-new", "other"].iter().all(|name| folder(name).exists()));
    }
}
