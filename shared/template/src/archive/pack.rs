//! Writing a bundle as a `.tar.gz`.

use flate2::{Compression, GzBuilder, write::GzEncoder};
use tar::{Builder, EntryType, Header};

use super::{ArchiveError, ArchivedFile};
use crate::bundle::{Bundle, mode_of, normalise};

impl Bundle {
    /// The bundle under `prefix` (such as `template/`), with `extra` files beside it. The same input gives the same bytes.
    ///
    /// # Errors
    ///
    /// Where the prefix or an extra file's path leads out of the archive.
    pub fn to_tar_gz(&self, prefix: &str, extra: &[ArchivedFile]) -> Result<Vec<u8>, ArchiveError> {
        let own = self.files().map(|(path, bytes)| (format!("{prefix}{path}"), bytes, mode_of(path)));
        let others = extra.iter().map(|file| (file.path.clone(), file.bytes.as_slice(), file.mode));
        let mut files: Vec<_> = own.chain(others).collect();
        files.sort();

        // Neither time nor operating system goes into gzip's header: they would change the bytes.
        let gzip = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::default());
        let mut tar = Builder::new(gzip);
        for (path, bytes, mode) in files {
            let path = normalise(&path)?;
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Regular);
            header.set_size(bytes.len() as u64);
            header.set_mode(mode & 0o777);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            tar.append_data(&mut header, path, bytes).map_err(ArchiveError::Unreadable)?;
        }
        tar.into_inner().and_then(GzEncoder::finish).map_err(ArchiveError::Unreadable)
    }
}
