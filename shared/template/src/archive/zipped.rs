//! Reading a zip. Its files are listed in a directory at the end and described again where each of them begins; programs
//! differ in which of the two they believe, so that here both have to say the same.

use std::io::{self, Cursor, Read};
use std::ops::Range;

use zip::read::{ArchiveOffset, Config};
use zip::{CompressionMethod, ZipArchive};

use super::{ArchiveError, ArchivedFile, Budget, Files, UnpackLimits, check_folder, text_of};
use crate::bundle::shown;

// Signatures, as PKWARE's APPNOTE names them.
const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
const DATA_DESCRIPTOR: &[u8] = b"PK\x07\x08";
const CENTRAL_HEADER: &[u8] = b"PK\x01\x02";
const ZIP64_END_RECORD: &[u8] = b"PK\x06\x06";
const END_RECORD: &[u8] = b"PK\x05\x06";

/// Encrypted, in any of the ways there are.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
/// Sizes and checksum follow the data.
const HAS_DESCRIPTOR: u16 = 1 << 3;
/// Stands for a size that is in the zip64 field.
const IN_ZIP64: u32 = u32::MAX;

/// The files of a zip, in its directory's order.
pub(crate) fn read_zip(archive: &[u8], limits: UnpackLimits) -> Result<Vec<ArchivedFile>, ArchiveError> {
    let end_record = end_record(archive)?;
    check_counts(archive, end_record, limits.files)?;
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut zip = ZipArchive::with_config(config, Cursor::new(archive)).map_err(unreadable)?;
    if zip.offset() != 0 {
        return Err(ambiguous("something stands before its first file"));
    }
    // The library keeps the last of entries that have one name, and looks for another directory where it can't read one.
    if listed(archive, zip.central_directory_start(), end_record) != Some(zip.len()) {
        return Err(ambiguous("its directory does not list each of its files once"));
    }

    let mut budget = Budget::of_archive(archive, limits.total_bytes);
    let mut files = Files::default();
    let mut extents = Vec::new();
    for index in 0..zip.len() {
        let entry = {
            let file = zip.by_index_raw(index).map_err(unreadable)?;
            Entry::read(archive, &file)?
        };
        extents.push(entry.extent.clone());
        if entry.is_folder {
            check_folder(&entry.name)?;
            continue;
        }
        let path = files.claim(&entry.name)?;
        if entry.size > budget.left {
            return Err(budget.exceeded());
        }
        // One byte more than it says is enough to know that it lies.
        let reader = zip.by_index(index).map_err(unreadable)?.take(entry.size.saturating_add(1));
        let bytes = budget.read(reader)?;
        if bytes.len() as u64 != entry.size {
            return Err(ambiguous("a file in it has another size than it says"));
        }
        files.add(path, bytes, entry.mode);
    }
    check_extents(extents, zip.central_directory_start())?;
    Ok(files.files)
}

fn ambiguous(reason: &'static str) -> ArchiveError {
    ArchiveError::Ambiguous { reason }
}

fn unreadable(error: zip::result::ZipError) -> ArchiveError {
    ArchiveError::Unreadable(error.into())
}

fn cut_short() -> ArchiveError {
    ArchiveError::Unreadable(io::ErrorKind::UnexpectedEof.into())
}

/// Where the record stands that ends the archive: with its comment it must reach to the last byte.
fn end_record(archive: &[u8]) -> Result<usize, ArchiveError> {
    let at =
        archive.windows(END_RECORD.len()).rposition(|window| window == END_RECORD).ok_or_else(cut_short)?;
    let comment = u16_at(archive, at + 20).ok_or_else(cut_short)?;
    if at + 22 + usize::from(comment) == archive.len() {
        Ok(at)
    } else {
        Err(ambiguous("something follows its end"))
    }
}

/// No directory may list more than is allowed: the library makes room for all of it before it reads the first.
fn check_counts(archive: &[u8], end_record: usize, allowed: usize) -> Result<(), ArchiveError> {
    let too_many = || ArchiveError::TooMany { allowed };
    let count = u16_at(archive, end_record + 10).ok_or_else(cut_short)?;
    if count != u16::MAX && usize::from(count) > allowed {
        return Err(too_many());
    }
    // Whichever record the library may come to: more than the archive has bytes is an error that it finds by itself.
    let plausible = allowed as u64 + 1..=archive.len() as u64;
    let records = archive.windows(ZIP64_END_RECORD.len()).enumerate();
    for (at, _) in records.filter(|(_, window)| *window == ZIP64_END_RECORD) {
        if [24, 32]
            .iter()
            .filter_map(|offset| u64_at(archive, at + offset))
            .any(|count| plausible.contains(&count))
        {
            return Err(too_many());
        }
    }
    Ok(())
}

/// How many files the directory lists, if it is nothing but a list that ends where the archive's end begins.
fn listed(archive: &[u8], start: u64, end_record: usize) -> Option<usize> {
    let mut at = usize::try_from(start).ok()?;
    let mut count = 0;
    while archive.get(at..)?.starts_with(CENTRAL_HEADER) {
        let lengths = [28, 30, 32].map(|offset| u16_at(archive, at + offset).map(usize::from));
        at += 46 + lengths.into_iter().sum::<Option<usize>>()?;
        count += 1;
    }
    if archive.get(at..)?.starts_with(ZIP64_END_RECORD) {
        // The record without its first 12 bytes, and the locator of 20 bytes after it.
        at = at.checked_add(usize::try_from(u64_at(archive, at + 4)?).ok()?)?.checked_add(12 + 20)?;
    }
    (at == end_record).then_some(count)
}

/// No two files share bytes, the first stands at the very beginning, and all end before the directory.
fn check_extents(mut extents: Vec<Range<u64>>, directory: u64) -> Result<(), ArchiveError> {
    extents.sort_by_key(|extent| (extent.start, extent.end));
    if extents.first().is_some_and(|first| first.start != 0) {
        return Err(ambiguous("something stands before its first file"));
    }
    let ends_before_next = extents.windows(2).all(|pair| pair[0].end <= pair[1].start);
    if ends_before_next && extents.last().is_none_or(|last| last.end <= directory) {
        Ok(())
    } else {
        Err(ambiguous("files in it overlap"))
    }
}

/// One entry, as directory and local header agree on it.
struct Entry {
    name: String,
    is_folder: bool,
    size: u64,
    mode: u32,
    /// From its local header to the end of its data.
    extent: Range<u64>,
}

impl Entry {
    fn read<R: io::Read>(archive: &[u8], file: &zip::read::ZipFile<'_, R>) -> Result<Self, ArchiveError> {
        let central = part(archive, file.central_header_start())?;
        let local = part(archive, file.header_start())?;
        let name = named(central, 28, 46)?;
        if name != file.name_raw() || name != named(local, 26, 30)? || !local.starts_with(LOCAL_HEADER) {
            return Err(ambiguous("a file in it has two names"));
        }
        let name = text_of(name)?.to_owned();
        let path = || shown(&name);

        let flags = u16_at(central, 8).ok_or_else(cut_short)?;
        let local_flags = u16_at(local, 6).ok_or_else(cut_short)?;
        if (flags | local_flags) & ENCRYPTED != 0 {
            return Err(ArchiveError::Encrypted { path: path() });
        }
        if !matches!(file.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
            return Err(ArchiveError::Compression { path: path() });
        }
        let data = file.data_start().ok_or_else(cut_short)?;
        let end = data.checked_add(file.compressed_size()).ok_or_else(cut_short)?;
        let sizes = Sizes { crc32: file.crc32(), packed: file.compressed_size(), size: file.size() };
        let agrees = u16_at(central, 10) == u16_at(local, 8)
            && (flags ^ local_flags) & HAS_DESCRIPTOR == 0
            && if flags & HAS_DESCRIPTOR == 0 {
                sizes.stand_in(local)
            } else {
                part(archive, end).is_ok_and(|after| sizes.follow(after))
            };
        if !agrees {
            return Err(ambiguous("a file in it is described in two ways"));
        }

        let attributes = u32_at(central, 38).ok_or_else(cut_short)?;
        let (unix, dos) = (attributes >> 16, attributes & 0xff);
        let is_folder = name.ends_with('/');
        let right_kind = match unix & 0o170_000 {
            0 => is_folder || dos & 0x10 == 0,
            0o040_000 => is_folder,
            0o100_000 => !is_folder,
            _ => false,
        };
        if !right_kind || (is_folder && file.size() != 0) {
            return Err(ArchiveError::Kind { path: path() });
        }
        let mode = if unix & 0o777 == 0 { 0o644 } else { unix };
        Ok(Self { name, is_folder, size: file.size(), mode, extent: file.header_start()..end })
    }
}

struct Sizes {
    crc32: u32,
    packed: u64,
    size: u64,
}

impl Sizes {
    /// Whether a local header says the same, by itself or in its zip64 field.
    fn stand_in(&self, local: &[u8]) -> bool {
        let (Some(packed), Some(size)) = (u32_at(local, 18), u32_at(local, 22)) else { return false };
        let same = if packed == IN_ZIP64 || size == IN_ZIP64 {
            zip64_sizes(local) == Some((self.size, self.packed))
        } else {
            (u64::from(packed), u64::from(size)) == (self.packed, self.size)
        };
        same && u32_at(local, 14) == Some(self.crc32)
    }

    /// Whether the data descriptor says the same: with or without signature, with sizes of 4 or 8 bytes.
    fn follow(&self, after: &[u8]) -> bool {
        let says = |at: usize| {
            let short = (u32_at(after, at + 4).map(u64::from), u32_at(after, at + 8).map(u64::from));
            let long = (u64_at(after, at + 4), u64_at(after, at + 12));
            let expected = (Some(self.packed), Some(self.size));
            u32_at(after, at) == Some(self.crc32) && (short == expected || long == expected)
        };
        (after.starts_with(DATA_DESCRIPTOR) && says(DATA_DESCRIPTOR.len())) || says(0)
    }
}

/// Size and compressed size in the zip64 field of a local header, which has to hold both.
fn zip64_sizes(local: &[u8]) -> Option<(u64, u64)> {
    let mut at = 30 + usize::from(u16_at(local, 26)?);
    let end = at + usize::from(u16_at(local, 28)?);
    while at + 4 <= end {
        if u16_at(local, at)? == 1 {
            return Some((u64_at(local, at + 4)?, u64_at(local, at + 12)?));
        }
        at += 4 + usize::from(u16_at(local, at + 2)?);
    }
    None
}

fn part(archive: &[u8], start: u64) -> Result<&[u8], ArchiveError> {
    usize::try_from(start).ok().and_then(|start| archive.get(start..)).ok_or_else(cut_short)
}

/// The name in a header, whose length stands at one place and which begins at another.
fn named(header: &[u8], length_at: usize, at: usize) -> Result<&[u8], ArchiveError> {
    let length = usize::from(u16_at(header, length_at).ok_or_else(cut_short)?);
    header.get(at..at + length).ok_or_else(cut_short)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}
