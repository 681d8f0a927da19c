//! Attacks. Most must be refused, for the reason that they are made for; some are only disarmed.

use ciab_template::{ArchiveError, Bundle, BundleError, DownloadError, UnpackLimits};

use crate::make_tar::{
    BLOCK_DEVICE, CHARACTER_DEVICE, CONTIGUOUS, FIFO, FILE, FOLDER, GNU_LONG_LINK, GNU_LONG_NAME, GNU_SPARSE,
    HARD_LINK, PAX, PAX_GLOBAL, SYMLINK, Tar, gzip,
};
use crate::make_zip::{Around, File, HAS_DESCRIPTOR, deflated, stored, zip, zip_with};

/// What has to come of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The path leads out, or has no place on some disk.
    Path,
    Twice,
    Alike,
    FileAndFolder,
    /// Neither file nor folder.
    Kind,
    Encrypted,
    Compression,
    TooMany,
    TooLarge,
    Ratio,
    /// Two readers could see two archives.
    Ambiguous,
    Unreadable,
    Misnamed,
    /// Read, and should not have been.
    Accepted,
    /// Read as this one file, with these bytes.
    Harmless(&'static str, &'static [u8]),
}

fn end(result: Result<Bundle, DownloadError>, expected: End) -> End {
    match result {
        Ok(bundle) => match expected {
            End::Harmless(path, bytes) => {
                let files: Vec<_> = bundle.files().collect();
                assert_eq!(files, [(path, bytes)]);
                expected
            }
            _ => End::Accepted,
        },
        Err(DownloadError::Misnamed { .. }) => End::Misnamed,
        Err(DownloadError::Archive(ArchiveError::Path(error)) | DownloadError::Bundle(error)) => {
            match error {
                BundleError::Path { .. } => End::Path,
                BundleError::Twice { .. } => End::Twice,
                BundleError::Alike { .. } => End::Alike,
                BundleError::FileAndFolder { .. } => End::FileAndFolder,
                BundleError::NotThere { .. } | BundleError::NoTemplate { .. } => {
                    unreachable!("no part was asked for")
                }
            }
        }
        Err(DownloadError::Archive(error)) => match error {
            ArchiveError::Unreadable(_) => End::Unreadable,
            ArchiveError::Ambiguous { .. } => End::Ambiguous,
            ArchiveError::Kind { .. } => End::Kind,
            ArchiveError::Encrypted { .. } => End::Encrypted,
            ArchiveError::Compression { .. } => End::Compression,
            ArchiveError::TooMany { .. } => End::TooMany,
            ArchiveError::TooLarge { .. } => End::TooLarge,
            ArchiveError::Ratio { .. } => End::Ratio,
            ArchiveError::Path(_) => unreachable!("handled above"),
        },
        Err(other) => panic!("no end of an archive: {other}"),
    }
}

const LIMITS: UnpackLimits = UnpackLimits { files: 100, total_bytes: 4 << 20 };

#[track_caller]
fn judge(attacks: Vec<(&str, Vec<u8>, End)>, name: &str) -> usize {
    let mut wrong = Vec::new();
    for (attack, bytes, expected) in &attacks {
        let result = Bundle::from_download(name, bytes, LIMITS);
        let message = result.as_ref().err().map(ToString::to_string);
        let seen = end(result, *expected);
        if seen != *expected {
            wrong.push(format!("{attack}: {seen:?} ({message:?}) instead of {expected:?}"));
        }
        if let Some(message) = message.filter(|text| text.len() > 500 || text.contains(char::is_control)) {
            wrong.push(format!("{attack}: its message is not fit to be shown: {message:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    attacks.len()
}

fn one(kind: u8, path: &str, bytes: &[u8]) -> Vec<u8> {
    Tar::new().entry(kind, path.as_bytes(), bytes).gz()
}

fn octal_size(header: &mut [u8; 512], size: &[u8; 11]) {
    header[124..135].copy_from_slice(size);
}

/// Paths that no archive may hold, in any of its forms.
const BAD_PATHS: [&str; 22] = [
    "/etc/cron.d/x",
    "//x",
    "../x",
    "a/../../x",
    "a/..",
    "..",
    "./..",
    "a\\..\\x",
    "..\\x",
    "\\\\host\\share\\x",
    "C:/x",
    "C:x",
    "c:\\x",
    "a\nb",
    "a\u{1b}[2Jb",
    "a\tb",
    "a\u{85}b",
    "a/\u{7f}",
    "a\rb",
    "/",
    "x/../../.ssh/authorized_keys",
    "./../../x",
];

#[test]
fn no_path_leads_out_of_any_archive() {
    for path in BAD_PATHS {
        let folder = format!("{path}/");
        // By its end a folder, and so no file at any rate.
        let refused = if path == "/" { End::Kind } else { End::Path };
        judge(
            vec![
                (path, one(FILE, path, b"x"), refused),
                (path, one(FOLDER, &folder, b""), End::Path),
                (path, Tar::new().pax(PAX, &[("path", path)]).file("x", "x").gz(), pax_end(path, refused)),
                (
                    path,
                    Tar::new()
                        .entry(GNU_LONG_NAME, b"././@LongLink", format!("{path}\0").as_bytes())
                        .file("x", "x")
                        .gz(),
                    refused,
                ),
            ],
            "x.tar.gz",
        );
        judge(
            vec![
                (path, zip(&[stored(path, b"x")]), refused),
                (path, zip(&[stored(&folder, b"")]), End::Path),
            ],
            "x.zip",
        );
    }
}

/// A newline ends a record of an extended header.
fn pax_end(path: &str, refused: End) -> End {
    if path.contains('\n') { End::Unreadable } else { refused }
}

#[test]
fn tars_that_attack() {
    let sparse_map = |header: &mut [u8; 512]| {
        header[257..265].copy_from_slice(b"ustar  \0");
        // One chunk at 0, and a real size of 8 GiB.
        header[386..397].copy_from_slice(b"00000000000");
        header[398..409].copy_from_slice(b"00000000001");
        header[483..494].copy_from_slice(b"77777777777");
    };
    let good = Tar::new().file("a", "x").gz();
    let plain = Tar::new().file("a", "x").end();
    let count = judge(
        vec![
            ("a symbolic link", one(SYMLINK, "a", b""), End::Kind),
            ("a hard link", one(HARD_LINK, "a", b""), End::Kind),
            (
                "a link, then a file through it",
                Tar::new().entry(SYMLINK, b"a", b"").file("a/passwd", "x").gz(),
                End::Kind,
            ),
            (
                "a link to the folder above under a long name",
                Tar::new().entry(GNU_LONG_LINK, b"././@LongLink", b"../..\0").entry(SYMLINK, b"a", b"").gz(),
                End::Kind,
            ),
            ("a character device", one(CHARACTER_DEVICE, "a", b""), End::Kind),
            ("a block device", one(BLOCK_DEVICE, "a", b""), End::Kind),
            ("a fifo", one(FIFO, "a", b""), End::Kind),
            ("a contiguous file", one(CONTIGUOUS, "a", b"x"), End::Kind),
            ("an entry of a kind nobody knows", one(b'Z', "a", b"x"), End::Kind),
            ("a folder with content", one(FOLDER, "a/", b"x"), End::Kind),
            ("a file that ends like a folder, with content", one(FILE, "a/", b"x"), End::Kind),
            (
                "a sparse file that inflates to 8 GiB",
                Tar::new().entry_with(GNU_SPARSE, b"a", b"x", sparse_map).gz(),
                End::Unreadable,
            ),
            (
                "a sparse file in POSIX's clothes",
                Tar::new()
                    .pax(PAX, &[("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "8589934592")])
                    .file("a", "1\n0\n1\nx")
                    .gz(),
                End::Kind,
            ),
            (
                "another name for a sparse file",
                Tar::new().pax(PAX, &[("GNU.sparse.name", "../../x")]).file("a", "x").gz(),
                End::Kind,
            ),
            ("a file twice", Tar::new().file("a", "1").file("a", "2").gz(), End::Twice),
            ("a file twice, spelt differently", Tar::new().file("a", "1").file("./a", "2").gz(), End::Twice),
            ("two files but for their case", Tar::new().file("A/b", "1").file("a/B", "2").gz(), End::Alike),
            (
                "two files but for the encoding of an accent",
                Tar::new().file("e\u{301}", "1").file("\u{e9}", "2").gz(),
                End::Alike,
            ),
            ("a file below a file", Tar::new().file("a", "1").file("a/b", "2").gz(), End::FileAndFolder),
            ("a file above a file", Tar::new().file("a/b", "1").file("a", "2").gz(), End::FileAndFolder),
            ("a name that is no text", Tar::new().entry(FILE, b"a\xff\xfe", b"x").gz(), End::Path),
            (
                "a NUL in a name, which ends it for some",
                Tar::new().pax(PAX, &[("path", "a\0/../../x")]).file("b", "x").gz(),
                End::Path,
            ),
            (
                "a name of 300 bytes",
                Tar::new().pax(PAX, &[("path", &"x".repeat(300))]).file("b", "x").gz(),
                End::Path,
            ),
            (
                "a folder 600 levels deep",
                Tar::new().pax(PAX, &[("path", &"x/".repeat(600))]).file("b", "x").gz(),
                End::Kind,
            ),
            (
                "a global header that renames all that follows",
                Tar::new().pax(PAX_GLOBAL, &[("path", "../x")]).file("a", "x").gz(),
                End::Ambiguous,
            ),
            (
                "a size in the extended header that hides an entry",
                Tar::new()
                    .pax(PAX, &[("size", "1024")])
                    .entry_with(FILE, b"a", &hidden_entry(), |header| octal_size(header, b"00000000000"))
                    .gz(),
                End::Ambiguous,
            ),
            (
                "a size beyond the end",
                Tar::new().entry_with(FILE, b"a", b"x", |header| octal_size(header, b"00000010000")).gz(),
                End::Unreadable,
            ),
            (
                "a size of eight exabytes",
                Tar::new()
                    .entry_with(FILE, b"a", b"x", |header| {
                        header[124..136]
                            .copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255]);
                    })
                    .gz(),
                End::Unreadable,
            ),
            (
                "the largest size there is",
                Tar::new()
                    .entry_with(FILE, b"a", b"x", |header| {
                        header[124..136]
                            .copy_from_slice(&[0x80, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
                    })
                    .gz(),
                End::Unreadable,
            ),
            (
                "a size that is no number",
                Tar::new().entry_with(FILE, b"a", b"x", |header| octal_size(header, b"zzzzzzzzzzz")).gz(),
                End::Unreadable,
            ),
            (
                "a checksum that does not fit",
                {
                    let mut tar = Tar::new().file("a", "x").end();
                    tar[0] = b'b';
                    gzip(&tar)
                },
                End::Unreadable,
            ),
            (
                "an extended header without the entry that it is for",
                Tar::new().pax(PAX, &[("path", "a")]).gz(),
                End::Unreadable,
            ),
            (
                "two long names for one file",
                Tar::new()
                    .entry(GNU_LONG_NAME, b"x", b"a\0")
                    .entry(GNU_LONG_NAME, b"x", b"../b\0")
                    .file("c", "x")
                    .gz(),
                End::Unreadable,
            ),
            ("cut in the middle of its gzip data", good[..good.len() / 2].to_vec(), End::Unreadable),
            ("cut before its checksum", good[..good.len() - 6].to_vec(), End::Unreadable),
            ("cut between two entries", gzip(&Tar::new().file("a", "x").0), End::Unreadable),
            ("cut inside of an entry", gzip(&Tar::new().file("a", "x").0[..700]), End::Unreadable),
            (
                "another archive after the first",
                [good.clone(), Tar::new().file("b", "y").gz()].concat(),
                End::Ambiguous,
            ),
            ("bytes after its gzip data", [good.as_slice(), b"#!/bin/sh"].concat(), End::Ambiguous),
            (
                "entries after its end",
                gzip(&[plain.clone(), Tar::new().file("b", "y").end()].concat()),
                End::Ambiguous,
            ),
            ("a wrong checksum of its gzip data", wrong_checksum(&good), End::Unreadable),
            ("gzip of nothing", gzip(b""), End::Unreadable),
            ("gzip of text", gzip(&[b'x'; 2_000]), End::Unreadable),
            ("gzip of gzip", gzip(&good), End::Unreadable),
            ("a bomb of zeros", gzip(&vec![0; 3 << 20]), End::Ratio),
            ("a bomb in one file", Tar::new().entry(FILE, b"a", &vec![b'x'; 3 << 20]).gz(), End::Ratio),
            ("a thousand entries", thousand_files().gz(), End::TooMany),
            (
                "a thousand folders",
                (0..1_000).fold(Tar::new(), |tar, n| tar.entry(FOLDER, format!("{n}/").as_bytes(), b"")).gz(),
                End::TooMany,
            ),
            ("more than may be unpacked", Tar::new().entry(FILE, b"a", &noise(5 << 20)).gz(), End::TooLarge),
            ("set-uid, set-gid and sticky", one(FILE, "a", b"x"), End::Harmless("a", b"x")),
            ("a zip by another name", zip(&[stored("a", b"x")]), End::Misnamed),
        ],
        "x.tar.gz",
    );
    assert!(count >= 50, "{count}");
}

#[test]
fn plain_tars_that_attack() {
    judge(
        vec![
            (
                "more than may be unpacked",
                Tar::new().entry(FILE, b"a", &vec![0; 5 << 20]).end(),
                End::TooLarge,
            ),
            ("cut between two entries", Tar::new().file("a", "x").0, End::Unreadable),
            ("a link", Tar::new().entry(SYMLINK, b"a", b"").end(), End::Kind),
            (
                "entries after its end",
                [Tar::new().end(), Tar::new().file("b", "y").end()].concat(),
                End::Ambiguous,
            ),
        ],
        "x.tar",
    );
}

#[test]
fn zips_that_attack() {
    let good = zip(&[stored("a", b"x")]);
    let bomb = vec![0; 3 << 20];
    let around = |change: fn(&mut Around)| {
        let mut around = Around::default();
        change(&mut around);
        zip_with(&[stored("a", b"x")], &around)
    };
    let count = judge(
        vec![
            ("a symbolic link", zip(&[stored("a", b"/etc/passwd").mode(0o120_777)]), End::Kind),
            ("a device", zip(&[stored("a", b"").mode(0o020_666)]), End::Kind),
            ("a fifo", zip(&[stored("a", b"").mode(0o010_644)]), End::Kind),
            ("a socket", zip(&[stored("a", b"").mode(0o140_644)]), End::Kind),
            ("a folder that does not say so", zip(&[stored("a", b"").mode(0o040_755)]), End::Kind),
            ("a folder that is a file", zip(&[stored("a/", b"").mode(0o100_644)]), End::Kind),
            ("a folder with content", zip(&[stored("a/", b"x")]), End::Kind),
            ("set-uid", zip(&[stored("a", b"x").mode(0o104_755)]), End::Harmless("a", b"x")),
            ("a file twice", zip(&[stored("a", b"1"), stored("a", b"2")]), End::Ambiguous),
            ("a file twice, spelt differently", zip(&[stored("a", b"1"), stored("./a", b"2")]), End::Twice),
            ("two files but for their case", zip(&[stored("a", b"1"), stored("A", b"2")]), End::Alike),
            (
                "two files but for the encoding of an accent",
                zip(&[stored("e\u{301}", b"1"), stored("\u{e9}", b"2")]),
                End::Alike,
            ),
            ("a file below a file", zip(&[stored("a", b"1"), stored("a/b", b"2")]), End::FileAndFolder),
            ("a file above a file", zip(&[stored("a/b", b"1"), stored("a", b"2")]), End::FileAndFolder),
            ("a name that is no text", zip(&[File::new(b"a\xff", 0, b"x".to_vec(), b"x")]), End::Path),
            ("a NUL in a name", zip(&[stored("a\0/../x", b"x")]), End::Path),
            ("an empty name", zip(&[stored("", b"x")]), End::Path),
            (
                "another name in the local header",
                zip(&[stored("a", b"x").with(|file| file.local.name = b"b".to_vec())]),
                End::Ambiguous,
            ),
            (
                "another name of another length in the local header",
                zip(&[stored("a", b"x").with(|file| file.local.name = b"../x".to_vec())]),
                End::Ambiguous,
            ),
            (
                "another name in the Unicode field",
                zip(&[stored("a", b"x").both(|header| header.extra = unicode_path(&header.name, "../x"))]),
                End::Ambiguous,
            ),
            (
                "another way of compression in the local header",
                zip(&[stored("a", b"x").with(|file| file.local.method = 8)]),
                End::Ambiguous,
            ),
            (
                "another size in the local header",
                zip(&[stored("a", b"x").with(|file| file.local.size = 2)]),
                End::Ambiguous,
            ),
            (
                "another compressed size in the local header",
                zip(&[stored("a", b"xy").with(|file| file.local.packed = 1)]),
                End::Ambiguous,
            ),
            (
                "another checksum in the local header",
                zip(&[stored("a", b"x").with(|file| file.local.crc32 = 1)]),
                End::Ambiguous,
            ),
            (
                "a data descriptor that only the directory knows",
                zip(&[stored("a", b"x").with(|file| file.central.flags |= HAS_DESCRIPTOR)]),
                End::Ambiguous,
            ),
            (
                "a data descriptor that says something else",
                zip(&[stored("a", b"x").streamed().with(|file| file.after[12] = 7)]),
                End::Ambiguous,
            ),
            (
                "zip64 sizes that differ from the directory's",
                zip(&[stored("a", b"x").zip64().with(|file| file.local.extra[4] = 7)]),
                End::Ambiguous,
            ),
            (
                "no local header where the directory says",
                zip(&[stored("a", b"PK\x03\x04 and more than thirty bytes")
                    .with(|file| file.claimed_start = Some(2))]),
                End::Unreadable,
            ),
            (
                "two files that are one",
                zip(&[
                    stored("a", b"x"),
                    stored("a", b"x").with(|file| {
                        file.claimed_start = Some(0);
                        file.central.name = b"b".to_vec();
                    }),
                ]),
                End::Ambiguous,
            ),
            (
                "a file inside of another's data",
                zip(&[
                    stored("a", &local_header_of("b")),
                    stored("b", b"").with(|file| file.claimed_start = Some(31)),
                ]),
                End::Ambiguous,
            ),
            ("encrypted", zip(&[stored("a", &[b'x'; 20]).both(|header| header.flags |= 1)]), End::Encrypted),
            (
                "encrypted, by the local header only",
                zip(&[stored("a", &[b'x'; 20]).with(|file| file.local.flags |= 1)]),
                End::Encrypted,
            ),
            (
                "strongly encrypted",
                zip(&[stored("a", &[b'x'; 20]).both(|header| header.flags |= 1 << 6)]),
                End::Encrypted,
            ),
            ("LZMA", zip(&[stored("a", b"x").both(|header| header.method = 14)]), End::Compression),
            ("Zstandard", zip(&[stored("a", b"x").both(|header| header.method = 93)]), End::Compression),
            ("Deflate64", zip(&[stored("a", b"x").both(|header| header.method = 9)]), End::Compression),
            (
                "a method that nobody knows",
                zip(&[stored("a", b"x").both(|header| header.method = 777)]),
                End::Compression,
            ),
            ("a bomb", zip(&[deflated("a", &bomb)]), End::Ratio),
            (
                "a bomb that says it is small",
                zip(&[deflated("a", &bomb).both(|header| header.size = 10)]),
                End::Ambiguous,
            ),
            (
                "a bomb that says it is small in its descriptor",
                zip(&[deflated("a", &bomb).both(|header| header.size = 10).streamed()]),
                End::Ambiguous,
            ),
            (
                "a file that says it is huge",
                zip(&[stored("a", b"x").both(|header| header.size = u32::MAX - 1)]),
                End::Ratio,
            ),
            (
                "a file that says it is larger",
                zip(&[deflated("a", b"x").both(|header| header.size = 9)]),
                End::Ambiguous,
            ),
            (
                "many bombs",
                zip(&(0..20).map(|n| deflated(&n.to_string(), &bomb[..200_000])).collect::<Vec<_>>()),
                End::Ratio,
            ),
            ("more than may be unpacked", zip(&[stored("a", &noise(5 << 20))]), End::TooLarge),
            (
                "data that is no deflate",
                zip(&[File::new(b"a", 8, b"garbage!".to_vec(), b"x")]),
                End::Unreadable,
            ),
            ("a wrong checksum", zip(&[stored("a", b"x").both(|header| header.crc32 ^= 1)]), End::Unreadable),
            (
                "a thousand files",
                zip(&(0..1_000).map(|n| stored(&n.to_string(), b"")).collect::<Vec<_>>()),
                End::TooMany,
            ),
            (
                "sixty thousand files, of which one is there",
                around(|around| around.count = Some(60_000)),
                End::TooMany,
            ),
            (
                "fewer files than there are",
                zip_with(
                    &[stored("a", b""), stored("b", b"")],
                    &Around { count: Some(1), ..Around::default() },
                ),
                End::Ambiguous,
            ),
            ("more files than there are", around(|around| around.count = Some(2)), End::Unreadable),
            (
                "as many files as it has bytes, in zip64",
                around(|around| around.zip64_count = Some(150)),
                End::TooMany,
            ),
            (
                "more files than it has bytes, in zip64",
                around(|around| around.zip64_count = Some(1 << 60)),
                End::Unreadable,
            ),
            (
                "fewer files than there are, in zip64",
                around(|around| around.zip64_count = Some(0)),
                End::Ambiguous,
            ),
            (
                "a program before the first file",
                [b"#!/bin/sh\nexit\n".as_slice(), &good].concat(),
                End::Misnamed,
            ),
            (
                "another archive before the first file",
                [zip(&[stored("b", b"y")]), good.clone()].concat(),
                End::Ambiguous,
            ),
            (
                "a file before the first that the directory does not list",
                around(|around| around.before = local_header_of("hidden")),
                End::Ambiguous,
            ),
            ("bytes after its end", [good.as_slice(), b"x"].concat(), End::Ambiguous),
            ("another end in its comment", around(|around| around.comment = zip(&[])), End::Ambiguous),
            (
                "a comment that is cut",
                {
                    let mut cut = around(|around| around.comment = b"comment".to_vec());
                    cut.pop();
                    cut
                },
                End::Ambiguous,
            ),
            ("cut before its directory", good[..40].to_vec(), End::Unreadable),
            ("cut in its end", good[..good.len() - 4].to_vec(), End::Unreadable),
            (
                "a directory that is not there",
                {
                    let mut lost = good.clone();
                    let at = lost.len() - 6;
                    lost[at..at + 4].copy_from_slice(&[0xff, 0xff, 0, 0]);
                    lost
                },
                End::Unreadable,
            ),
            ("a tar by another name", Tar::new().file("a", "x").gz(), End::Misnamed),
        ],
        "x.zip",
    );
    assert!(count >= 50, "{count}");
}

/// What is unpacked is never more than one byte over the limit, wherever the limit falls: the bundle is refused at every
/// limit below its size, by what it says and by what it holds alike.
#[test]
fn the_limit_is_exact() {
    let bytes = noise(5_000);
    let zip = zip(&[stored("a", &bytes[..2_500]), deflated("b", &bytes[2_500..])]);
    let tar = Tar::new().entry(FILE, b"a", &bytes).gz();
    let unpacked = |name, archive: &[u8], total_bytes| {
        Bundle::from_download(name, archive, UnpackLimits { files: 2, total_bytes }).is_ok()
    };
    assert!(unpacked("x.zip", &zip, 5_000) && !unpacked("x.zip", &zip, 4_999) && !unpacked("x.zip", &zip, 0));
    // With its header, the rest of its last block and its end.
    assert!(unpacked("x.tgz", &tar, 512 + 5_120 + 1_024) && !unpacked("x.tgz", &tar, 512 + 5_120 + 1_023));
}

/// A tar entry to be hidden behind the size of another.
fn hidden_entry() -> Vec<u8> {
    Tar::new().file("hidden", "x").0
}

fn thousand_files() -> Tar {
    (0..1_000).fold(Tar::new(), |tar, n| tar.file(&n.to_string(), ""))
}

fn wrong_checksum(gzip: &[u8]) -> Vec<u8> {
    let mut wrong = gzip.to_vec();
    let at = wrong.len() - 8;
    wrong[at] ^= 1;
    wrong
}

/// A whole local entry of an empty file.
fn local_header_of(name: &str) -> Vec<u8> {
    let zip = zip(&[stored(name, b"")]);
    zip[..30 + name.len()].to_vec()
}

/// Info-ZIP's field that gives a name in UTF-8.
fn unicode_path(name: &[u8], path: &str) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(name);
    let mut field = vec![0x75, 0x70];
    field.extend((5 + path.len() as u16).to_le_bytes());
    field.push(1);
    field.extend(crc.sum().to_le_bytes());
    field.extend(path.as_bytes());
    field
}

/// Bytes that don't compress, the same every time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}
