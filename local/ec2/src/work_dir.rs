//! The directory that everything on disk is in, held by one process at a time.
//!
//! Removes only what this crate makes there.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// What this crate makes in the directory. A killed run leaves them behind; the next one removes them.
const OURS: [&str; 4] = ["instances", "layers", "probe", "trash"];

/// Why a work directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkDirError {
    /// Another process has it.
    #[error("{} is in use by another stack; choose another directory", .0.display())]
    InUse(PathBuf),
    /// It can't be read or written.
    #[error("can't use {} as work directory", .directory.display())]
    Io {
        /// The directory.
        directory: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// A directory that is ours until this is dropped.
#[derive(Debug)]
pub(crate) struct WorkDir {
    pub(crate) path: PathBuf,
    _lock: File,
}

impl WorkDir {
    /// Takes the directory and removes what a run that was killed left in it.
    pub(crate) fn take(path: &Path) -> Result<Self, WorkDirError> {
        let failed = |source| WorkDirError::Io { directory: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        // Instances change their root, and a path with a link in it would lead elsewhere afterwards.
        let path = path.canonicalize().map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WorkDirError::InUse(path)),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let work_dir = Self { path: path.clone(), _lock: lock };
        work_dir.remove_ours().map_err(|source| WorkDirError::Io { directory: path, source })?;
        Ok(work_dir)
    }

    /// Removes what this crate made, the lock last, and the directory too if nothing of anyone else's is in it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.remove_ours()?;
        fs::remove_file(self.path.join("lock")).or_else(ignore_absence)?;
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => other.or_else(ignore_absence),
        }
    }

    fn remove_ours(&self) -> io::Result<()> {
        for name in OURS {
            fs::remove_dir_all(self.path.join(name)).or_else(ignore_absence)?;
        }
        Ok(())
    }
}

fn ignore_absence(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_work_directory_belongs_to_one_stack_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let first = WorkDir::take(directory.path()).unwrap();
        assert!(matches!(WorkDir::take(directory.path()), Err(WorkDirError::InUse(_))));
        drop(first);
        WorkDir::take(directory.path()).unwrap();
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("layers/1/etc")).unwrap();
        fs::write(directory.path().join("notes.txt"), "someone else's").unwrap();
        let work_dir = WorkDir::take(directory.path()).unwrap();
        assert!(!directory.path().join("layers").exists());
        work_dir.remove().unwrap();
        assert!(directory.path().join("notes.txt").exists());
        assert!(!directory.path().join("lock").exists());
    }
}
