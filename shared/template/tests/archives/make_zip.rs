//! Zips made field by field, so that directory and local headers can say different things.

use std::io::Write;

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

pub(crate) const HAS_DESCRIPTOR: u16 = 8;

/// One side's description of a file.
#[derive(Clone)]
pub(crate) struct Header {
    pub(crate) name: Vec<u8>,
    pub(crate) flags: u16,
    pub(crate) method: u16,
    pub(crate) crc32: u32,
    pub(crate) packed: u32,
    pub(crate) size: u32,
    pub(crate) extra: Vec<u8>,
}

/// One file, as the directory and as its own header describe it.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) local: Header,
    pub(crate) central: Header,
    pub(crate) data: Vec<u8>,
    pub(crate) after: Vec<u8>,
    /// Unix mode with the kind of file.
    pub(crate) mode: u32,
    /// Where the directory says that it begins, if not where it does.
    pub(crate) claimed_start: Option<u32>,
}

pub(crate) fn stored(name: &str, bytes: &[u8]) -> File {
    File::new(name.as_bytes(), 0, bytes.to_vec(), bytes)
}

pub(crate) fn deflated(name: &str, bytes: &[u8]) -> File {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    File::new(name.as_bytes(), 8, encoder.finish().unwrap(), bytes)
}

impl File {
    pub(crate) fn new(name: &[u8], method: u16, data: Vec<u8>, bytes: &[u8]) -> Self {
        let mut crc = Crc::new();
        crc.update(bytes);
        let header = Header {
            name: name.to_vec(),
            flags: 1 << 11,
            method,
            crc32: crc.sum(),
            packed: data.len() as u32,
            size: bytes.len() as u32,
            extra: Vec::new(),
        };
        let mode = if name.ends_with(b"/") { 0o040_755 } else { 0o100_644 };
        Self { local: header.clone(), central: header, data, after: Vec::new(), mode, claimed_start: None }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// In both headers.
    pub(crate) fn both(self, change: impl Fn(&mut Header)) -> Self {
        self.with(|file| {
            change(&mut file.local);
            change(&mut file.central);
        })
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        self.with(|file| file.mode = mode)
    }

    /// Size and checksum after the data, and not before it.
    pub(crate) fn streamed(self) -> Self {
        self.both(|header| header.flags |= HAS_DESCRIPTOR).with(|file| {
            file.after.extend(b"PK\x07\x08");
            for field in [file.central.crc32, file.central.packed, file.central.size] {
                file.after.extend(field.to_le_bytes());
            }
            (file.local.crc32, file.local.packed, file.local.size) = (0, 0, 0);
        })
    }

    /// Sizes in zip64 fields.
    pub(crate) fn zip64(self) -> Self {
        self.both(|header| {
            header.extra.extend([1, 0, 16, 0]);
            header.extra.extend(u64::from(header.size).to_le_bytes());
            header.extra.extend(u64::from(header.packed).to_le_bytes());
            (header.packed, header.size) = (u32::MAX, u32::MAX);
        })
    }
}

/// What stands around the files.
#[derive(Default)]
pub(crate) struct Around {
    pub(crate) before: Vec<u8>,
    pub(crate) comment: Vec<u8>,
    /// Claimed at the end, if not the number there is.
    pub(crate) count: Option<u16>,
    /// Claimed by a zip64 end record, which is left out where there is none.
    pub(crate) zip64_count: Option<u64>,
}

pub(crate) fn zip(files: &[File]) -> Vec<u8> {
    zip_with(files, &Around::default())
}

pub(crate) fn zip_with(files: &[File], around: &Around) -> Vec<u8> {
    let mut out = around.before.clone();
    let mut directory = Vec::new();
    for file in files {
        let start = file.claimed_start.unwrap_or(out.len() as u32);
        out.extend(b"PK\x03\x04\x14\0");
        out.extend(common(&file.local));
        out.extend(&file.local.name);
        out.extend(&file.local.extra);
        out.extend(&file.data);
        out.extend(&file.after);

        directory.extend(b"PK\x01\x02\x14\x03\x14\0");
        directory.extend(common(&file.central));
        directory.extend([0; 6]);
        directory.extend((file.mode << 16).to_le_bytes());
        directory.extend(start.to_le_bytes());
        directory.extend(&file.central.name);
        directory.extend(&file.central.extra);
    }
    let directory_start = out.len() as u64;
    out.extend(&directory);
    let mut count = around.count.unwrap_or(files.len() as u16);
    if let Some(zip64_count) = around.zip64_count {
        let record = out.len() as u64;
        out.extend(b"PK\x06\x06");
        out.extend(44u64.to_le_bytes());
        out.extend([45, 3, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for field in [zip64_count, zip64_count, directory.len() as u64, directory_start] {
            out.extend(field.to_le_bytes());
        }
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend(record.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        count = u16::MAX;
    }
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend((directory_start as u32).to_le_bytes());
    out.extend((around.comment.len() as u16).to_le_bytes());
    out.extend(&around.comment);
    out
}

/// Flags to extra length, which both kinds of header have in this order.
fn common(header: &Header) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(header.flags.to_le_bytes());
    out.extend(header.method.to_le_bytes());
    out.extend([0, 0, 0x21, 0]);
    for field in [header.crc32, header.packed, header.size] {
        out.extend(field.to_le_bytes());
    }
    out.extend((header.name.len() as u16).to_le_bytes());
    out.extend((header.extra.len() as u16).to_le_bytes());
    out
}
