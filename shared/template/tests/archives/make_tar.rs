//! Tars made block by block, so that they can hold what no library would write.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

pub(crate) const FILE: u8 = b'0';
pub(crate) const OLD_FILE: u8 = 0;
pub(crate) const HARD_LINK: u8 = b'1';
pub(crate) const SYMLINK: u8 = b'2';
pub(crate) const CHARACTER_DEVICE: u8 = b'3';
pub(crate) const BLOCK_DEVICE: u8 = b'4';
pub(crate) const FOLDER: u8 = b'5';
pub(crate) const FIFO: u8 = b'6';
pub(crate) const CONTIGUOUS: u8 = b'7';
pub(crate) const GNU_LONG_LINK: u8 = b'K';
pub(crate) const GNU_LONG_NAME: u8 = b'L';
pub(crate) const GNU_SPARSE: u8 = b'S';
pub(crate) const PAX: u8 = b'x';
pub(crate) const PAX_GLOBAL: u8 = b'g';

/// A tar without its end.
#[derive(Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn entry(self, kind: u8, path: &[u8], bytes: &[u8]) -> Self {
        self.entry_with(kind, path, bytes, |_| {})
    }

    pub(crate) fn file(self, path: &str, text: &str) -> Self {
        self.entry(FILE, path.as_bytes(), text.as_bytes())
    }

    /// An entry whose header is changed before its checksum is made.
    pub(crate) fn entry_with(
        mut self,
        kind: u8,
        path: &[u8],
        bytes: &[u8],
        change: impl FnOnce(&mut [u8; 512]),
    ) -> Self {
        let mut header = [0; 512];
        header[..path.len()].copy_from_slice(path);
        header[100..107].copy_from_slice(b"0104755");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[156] = kind;
        if matches!(kind, HARD_LINK | SYMLINK) {
            header[157..168].copy_from_slice(b"/etc/passwd");
        }
        header[257..265].copy_from_slice(b"ustar\x0000");
        change(&mut header);
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend(header);
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// An extended header for the next entry, or for all that follow.
    pub(crate) fn pax(self, kind: u8, records: &[(&str, &str)]) -> Self {
        let records: String = records.iter().map(|(key, value)| pax_record(key, value)).collect();
        self.entry(kind, b"pax", records.as_bytes())
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    pub(crate) fn gz(self) -> Vec<u8> {
        gzip(&self.end())
    }
}

fn pax_record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while length.to_string().len() + rest.len() != length {
        length = length.to_string().len() + rest.len();
    }
    format!("{length}{rest}")
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}
