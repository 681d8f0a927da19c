//! The files of a commit, straight from its pack: nothing is checked out, so no filter, attribute or hook has a say.
//!
//! Must never follow a link, and never take anything but regular files.

use std::sync::atomic::{AtomicBool, Ordering};

use bstr::ByteSlice as _;
use ciab_template::{Bundle, BundleError, UnpackLimits};
use gix_hash::{Kind as HashKind, ObjectId, oid};
use gix_object::tree::EntryKind;
use gix_object::{CommitRefIter, Kind, TreeRef};
use gix_zlib::Inflate;

/// Bytes of a path; as much as a bundle takes.
const PATH: usize = 1_024;

/// Why a path of a commit is no template.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTree {
    #[error("the repository has nothing at `{0}`")]
    Absent(String),
    #[error("`{0}` is a submodule: a template's repository must hold its files itself")]
    Submodule(String),
    #[error("`{0}` is a symbolic link, which a template can't have")]
    Link(String),
    #[error("`{0}` is not a path that a template can have")]
    Path(String),
    #[error("what `ref` names is no commit")]
    NoCommit,
    #[error("it holds more than {0} files and folders")]
    TooMany(usize),
    #[error("its files have more than {0} bytes")]
    TooLarge(u64),
    #[error("the server left out an object of the commit, or sent one that can't be read or is too large")]
    Object,
    #[error("the fetch was stopped")]
    Stopped,
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// The objects that a server sent.
pub(super) struct Objects<'a> {
    pack: gix_pack::Bundle,
    inflate: Inflate,
    /// Set once nobody waits any more: to read an object can take long where it is the end of many differences.
    stop: &'a AtomicBool,
}

impl<'a> Objects<'a> {
    pub(super) fn new(pack: gix_pack::Bundle, object_bytes: usize, stop: &'a AtomicBool) -> Self {
        let gix_pack::Bundle { pack, index } = pack;
        let pack = gix_pack::Bundle { pack: pack.with_alloc_limit_bytes(Some(object_bytes)), index };
        Self { pack, inflate: Inflate::default(), stop }
    }

    fn get(&mut self, id: &oid, kind: Kind) -> Result<Vec<u8>, NoTree> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(NoTree::Stopped);
        }
        let mut bytes = Vec::new();
        let found = self.pack.find(id, &mut bytes, &mut self.inflate, &mut gix_pack::cache::Never);
        let found = found.ok().flatten().map(|(data, _)| data.kind);
        if found == Some(kind) { Ok(bytes) } else { Err(NoTree::Object) }
    }

    /// The bundle that a path of a commit is: the folder's files, or, for a template, what [`Bundle::at`] makes of the
    /// folder that it stands in.
    pub(super) fn bundle(
        &mut self,
        commit: &oid,
        path: Option<&str>,
        limits: UnpackLimits,
    ) -> Result<Bundle, NoTree> {
        let commit = self.get(commit, Kind::Commit).map_err(|_| NoTree::NoCommit)?;
        let root =
            CommitRefIter::from_bytes(&commit, HashKind::Sha1).tree_id().map_err(|_| NoTree::NoCommit)?;
        let Some(path) = path else {
            return self.folder(root, "", limits);
        };
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut folder = root;
        let mut walked = String::new();
        for part in parent.split('/').filter(|part| !part.is_empty()) {
            join(&mut walked, part);
            let absent = || NoTree::Absent(path.to_owned());
            folder = match self.entry(folder, part)?.ok_or_else(absent)? {
                (EntryKind::Tree, id) => id,
                (kind, _) => return Err(unfit(kind, &walked).unwrap_or_else(absent)),
            };
        }
        match self.entry(folder, name)?.ok_or_else(|| NoTree::Absent(path.to_owned()))? {
            (EntryKind::Tree, id) => self.folder(id, path, limits),
            (EntryKind::Blob | EntryKind::BlobExecutable, _) => {
                Ok(self.folder(folder, parent, limits)?.at(name)?)
            }
            (kind, _) => Err(unfit(kind, path).unwrap_or_else(|| NoTree::Absent(path.to_owned()))),
        }
    }

    fn entry(&mut self, folder: ObjectId, name: &str) -> Result<Option<(EntryKind, ObjectId)>, NoTree> {
        let bytes = self.get(&folder, Kind::Tree)?;
        let tree = TreeRef::from_bytes(&bytes, HashKind::Sha1).map_err(|_| NoTree::Object)?;
        let found = tree.entries.iter().find(|entry| entry.filename.as_bytes() == name.as_bytes());
        Ok(found.map(|entry| (entry.mode.kind(), entry.oid.to_owned())))
    }

    /// All files below a folder. `at` is where it stands in the repository, for messages.
    fn folder(&mut self, root: ObjectId, at: &str, limits: UnpackLimits) -> Result<Bundle, NoTree> {
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        let (mut seen, mut total) = (0, 0_u64);
        // Not by recursion: how deep folders go is the server's choice.
        let mut folders = vec![(String::new(), root)];
        while let Some((prefix, id)) = folders.pop() {
            let bytes = self.get(&id, Kind::Tree)?;
            let tree = TreeRef::from_bytes(&bytes, HashKind::Sha1).map_err(|_| NoTree::Object)?;
            for entry in &tree.entries {
                // Folders count too: a few objects can stand for folders without end.
                seen += 1;
                if seen > limits.files {
                    return Err(NoTree::TooMany(limits.files));
                }
                let mut path = prefix.clone();
                join(&mut path, &entry.filename.to_str_lossy());
                let mut shown = at.to_owned();
                join(&mut shown, &path);
                let name = entry.filename.to_str().ok().filter(|name| may_be_named(name));
                if name.is_none() || path.len() > PATH {
                    return Err(NoTree::Path(shown.escape_debug().take(200).collect()));
                }
                match entry.mode.kind() {
                    EntryKind::Tree => folders.push((path, entry.oid.to_owned())),
                    EntryKind::Blob | EntryKind::BlobExecutable => {
                        let bytes = self.get(entry.oid, Kind::Blob)?;
                        total = total.saturating_add(bytes.len() as u64);
                        if total > limits.total_bytes {
                            return Err(NoTree::TooLarge(limits.total_bytes));
                        }
                        files.push((path, bytes));
                    }
                    kind => return Err(unfit(kind, &shown).unwrap_or(NoTree::Object)),
                }
            }
        }
        Ok(Bundle::from_files(files)?)
    }
}

fn unfit(kind: EntryKind, path: &str) -> Option<NoTree> {
    match kind {
        EntryKind::Link => Some(NoTree::Link(path.to_owned())),
        EntryKind::Commit => Some(NoTree::Submodule(path.to_owned())),
        EntryKind::Tree | EntryKind::Blob | EntryKind::BlobExecutable => None,
    }
}

/// One part of a path: git itself would not write the others, so that they were put there by hand.
fn may_be_named(name: &str) -> bool {
    !name.is_empty()
        && !name.contains('/')
        && name != "."
        && name != ".."
        && !name.eq_ignore_ascii_case(".git")
}

fn join(path: &mut String, part: &str) {
    if !path.is_empty() && !part.is_empty() {
        path.push('/');
    }
    path.push_str(part);
}
