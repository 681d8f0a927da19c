//! Good archives with bytes changed, cut out or put in: reading them ends, and what is accepted keeps to the limits.

use ciab_template::{Bundle, UnpackLimits};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::make_tar::{FOLDER, GNU_LONG_NAME, PAX, PAX_GLOBAL, Tar};
use crate::make_zip::{Around, deflated, stored, zip_with};

const LIMITS: UnpackLimits = UnpackLimits { files: 5, total_bytes: 16 * 1024 };

fn archives() -> Vec<(&'static str, Vec<u8>)> {
    let text = b"source \"amazon-ebs\" \"x\" {}\n".repeat(20);
    let tar = Tar::new()
        .pax(PAX_GLOBAL, &[("comment", "0123456789")])
        .entry(FOLDER, b"x/", b"")
        .file("x/a.pkr.hcl", "x")
        .entry(GNU_LONG_NAME, b"././@LongLink", b"x/long\0")
        .file("x/short", "y")
        .pax(PAX, &[("path", "x/pax")])
        .file("x/z", "z")
        .end();
    let files = [
        stored("x/", b""),
        deflated("x/a", &text).streamed(),
        stored("x/b", b"x"),
        stored("x/c", b"y").zip64(),
    ];
    let zip64 = Around { zip64_count: Some(4), comment: b"comment".to_vec(), ..Around::default() };
    vec![("x.tar", tar), ("x.zip", zip_with(&files, &Around::default())), ("x.zip", zip_with(&files, &zip64))]
}

#[derive(Debug, Clone)]
enum Mutation {
    Set(usize, u8),
    Cut(usize, usize),
    Insert(usize, Vec<u8>),
    /// One part over another: the fields of a header in other places.
    Copy(usize, usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = || any::<prop::sample::Index>().prop_map(|index| index.index(1 << 16));
    let byte = prop_oneof![Just(0), Just(0xff), Just(0x7f), any::<u8>()];
    prop_oneof![
        4 => (at(), byte).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        1 => (at(), 1..600usize).prop_map(|(at, length)| Mutation::Cut(at, length)),
        1 => (at(), vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        1 => (at(), at(), 1..64usize).prop_map(|(from, to, length)| Mutation::Copy(from, to, length)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: Mutation) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    match mutation {
        Mutation::Set(at, byte) => bytes[at % length] = byte,
        Mutation::Cut(at, count) => drop(bytes.drain(at % length..(at % length + count).min(length))),
        Mutation::Insert(at, new) => drop(bytes.splice(at % length..at % length, new)),
        Mutation::Copy(from, to, count) => {
            let (from, to) = (from % length, to % length);
            let count = count.min(length - from).min(length - to);
            bytes.copy_within(from..from + count, to);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_change_to_an_archive_gets_past_the_limits(which in 0..3usize, mutations in vec(mutation(), 1..6)) {
        let (name, mut bytes) = archives().swap_remove(which);
        mutations.into_iter().for_each(|mutation| mutate(&mut bytes, mutation));
        for name in [name, "x"] {
            if let Ok(bundle) = Bundle::from_download(name, &bytes, LIMITS) {
                prop_assert!(bundle.files().count() <= LIMITS.files);
                prop_assert!(bundle.files().map(|(_, bytes)| bytes.len() as u64).sum::<u64>() <= LIMITS.total_bytes);
                for (path, _) in bundle.files() {
                    let is_plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
                    prop_assert!(is_plain && !path.contains('\\') && !path.contains(char::is_control), "{:?}", path);
                }
            }
        }
    }
}
