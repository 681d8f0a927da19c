//! What people really send.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::path::Path;

use ciab_template::{Bundle, DownloadError, UnpackLimits, read_tar_gz};

use crate::make_tar::{FILE, FOLDER, GNU_LONG_NAME, OLD_FILE, PAX, PAX_GLOBAL, Tar};
use crate::make_zip::{Around, deflated, stored, zip, zip_with};

const TEMPLATE: &str = "source \"amazon-ebs\" \"x\" {}\n";

#[track_caller]
fn paths(name: &str, bytes: &[u8]) -> Vec<String> {
    let bundle = Bundle::from_download(name, bytes, UnpackLimits::default()).unwrap();
    bundle.files().map(|(path, _)| path.to_owned()).collect()
}

fn refused(name: &str, bytes: &[u8]) -> String {
    Bundle::from_download(name, bytes, UnpackLimits::default()).unwrap_err().to_string()
}

#[test]
fn one_template_keeps_its_own_name_whatever_its_folder_was() {
    for (name, kept) in [
        ("image.pkr.hcl", "image.pkr.hcl"),
        ("a/b/image.pkr.json", "image.pkr.json"),
        ("https://host/x/../legacy.json", "legacy.json"),
    ] {
        assert_eq!(paths(name, TEMPLATE.as_bytes()), [kept]);
    }
}

#[test]
fn an_archive_is_told_by_its_name_and_without_one_by_its_bytes() {
    let tar = Tar::new().file("a.pkr.hcl", TEMPLATE).end();
    let tar_gz = Tar::new().file("a.pkr.hcl", TEMPLATE).gz();
    let zip = zip(&[deflated("a.pkr.hcl", TEMPLATE.as_bytes())]);
    for (names, bytes) in [
        (["x.tar", "X.TAR", "archive/main"], &tar),
        (["x.tar.gz", "x.tgz", "tarball"], &tar_gz),
        (["x.zip", "X.Zip", "zipball/v1.2"], &zip),
    ] {
        for name in names {
            assert_eq!(paths(name, bytes), ["a.pkr.hcl"], "{name}");
        }
    }
}

#[test]
fn what_is_neither_is_refused_with_what_is_allowed() {
    for name in ["image.rar", "image", "", "image.hcl", "image.PKR.HCL"] {
        let error = refused(name, b"x");
        assert!(error.contains("must be a `.pkr.hcl`, `.pkr.json` or `.json` file, or a `.zip`"), "{error}");
    }
    assert_eq!(refused("x.zip", b"<html>"), "`x.zip` is not the zip archive that its name says");
    assert_eq!(
        refused("x.tar.gz", &zip(&[])),
        "`x.tar.gz` is not the tar archive compressed with gzip that its name says"
    );
    assert!(refused("x.tar", &zip(&[])).contains("is not the tar archive"));
}

#[test]
fn one_template_over_the_limit_is_refused() {
    let limits = UnpackLimits { files: 1, total_bytes: 10 };
    let error = Bundle::from_download("a.pkr.hcl", &[b'x'; 11], limits).unwrap_err();
    assert!(matches!(error, DownloadError::TooLarge { bytes: 11, allowed: 10, .. }), "{error}");
}

#[test]
fn a_forges_download_is_the_content_of_its_one_folder() {
    let tar = Tar::new()
        .pax(PAX_GLOBAL, &[("comment", "0123456789abcdef0123456789abcdef01234567")])
        .entry(FOLDER, b"repository-main/", b"")
        .file("repository-main/a.pkr.hcl", TEMPLATE)
        .entry(FOLDER, b"repository-main/provision/", b"")
        .file("repository-main/provision/b.sh", "x")
        .gz();
    assert_eq!(paths("main.tar.gz", &tar), ["a.pkr.hcl", "provision/b.sh"]);

    let comment =
        Around { comment: b"0123456789abcdef0123456789abcdef01234567".to_vec(), ..Around::default() };
    let files = [
        stored("repository-main/", b""),
        deflated("repository-main/a.pkr.hcl", TEMPLATE.as_bytes()),
        stored("repository-main/provision/b.sh", b"x"),
    ];
    assert_eq!(paths("main.zip", &zip_with(&files, &comment)), ["a.pkr.hcl", "provision/b.sh"]);
}

#[test]
fn only_one_folder_that_holds_everything_is_taken_away() {
    let two = Tar::new().file("a/x.pkr.hcl", "").file("b/y", "").gz();
    assert_eq!(paths("x.tgz", &two), ["a/x.pkr.hcl", "b/y"]);
    let beside = Tar::new().file("a/x", "").file("x.pkr.hcl", "").gz();
    assert_eq!(paths("x.tgz", &beside), ["a/x", "x.pkr.hcl"]);
    let deep = Tar::new().file("a/b/x", "").file("a/b/y", "").gz();
    assert_eq!(paths("x.tgz", &deep), ["b/x", "b/y"]);
    let from_a_mac = zip(&[stored("image/x.pkr.hcl", b""), stored("__MACOSX/image/._x.pkr.hcl", b"")]);
    assert_eq!(paths("x.zip", &from_a_mac), ["x.pkr.hcl"]);
}

#[test]
fn what_tools_write_in_their_own_ways_is_read() {
    let long = format!("folder/{}.sh", "x".repeat(150));
    let tar = Tar::new()
        .entry(FOLDER, b"./", b"")
        .entry(FILE, b"./a.pkr.hcl", TEMPLATE.as_bytes())
        .entry(OLD_FILE, b"old/", b"")
        .entry(GNU_LONG_NAME, b"././@LongLink", format!("{long}\0").as_bytes())
        .entry(FILE, &long.as_bytes()[..100], b"gnu")
        .pax(PAX, &[("mtime", "1.5"), ("path", "caf\u{e9}/pax")])
        .entry(FILE, b"ascii", b"pax")
        .gz();
    assert_eq!(paths("x.tgz", &tar), ["a.pkr.hcl", "caf\u{e9}/pax", long.as_str()]);

    let text = TEMPLATE.repeat(50);
    let streamed = zip(&[deflated("a", text.as_bytes()).streamed(), stored("b", b"").streamed()]);
    assert_eq!(paths("x.zip", &streamed), ["a", "b"]);
    let zip64 = Around { zip64_count: Some(2), ..Around::default() };
    let zip64 = zip_with(&[deflated("a", text.as_bytes()).zip64(), stored("b", b"x").zip64()], &zip64);
    assert_eq!(paths("x.zip", &zip64), ["a", "b"]);
    let inner = zip(&[stored("inner", b"x")]);
    assert_eq!(paths("x.zip", &zip(&[stored("inner.zip", &inner), stored("a", b"")])), ["a", "inner.zip"]);
}

#[test]
fn text_that_repeats_itself_a_lot_is_no_bomb() {
    let text = TEMPLATE.repeat(2_000);
    let tar = Tar::new().file("a.pkr.hcl", &text).gz();
    let bundle = Bundle::from_download("x.tgz", &tar, UnpackLimits::default()).unwrap();
    assert_eq!(bundle.get("a.pkr.hcl"), Some(text.as_bytes()));
    let bundle =
        Bundle::from_download("x.zip", &zip(&[deflated("a", text.as_bytes())]), UnpackLimits::default())
            .unwrap();
    assert_eq!(bundle.get("a"), Some(text.as_bytes()));
}

/// The runner's rules (`runner/src/bundle.rs`): folders made as paths ask for them, no file opened that is there already.
fn write(bundle: &Bundle, folder: &Path) {
    for file in read_tar_gz(&bundle.to_tar_gz("template/", &[]).unwrap(), UnpackLimits::default()).unwrap() {
        let target = folder.join(&file.path);
        DirBuilder::new().recursive(true).create(target.parent().unwrap()).unwrap();
        let mut out = OpenOptions::new().write(true).create_new(true).open(&target).unwrap();
        out.write_all(&file.bytes).unwrap();
    }
}

fn below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(below(&entry.path()).into_iter().map(|path| format!("{name}/{path}")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_accepted_lands_on_the_disk_where_its_paths_say_and_nowhere_else() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("work");
    std::fs::create_dir(&inner).unwrap();
    let files = [
        stored("x/a.pkr.hcl", b"a"),
        stored("x/./provision//b.sh", b"b"),
        stored("x/...", b"c"),
        stored("x/..hidden/~root", b"d"),
        stored("x/-rf", b"e"),
        stored("x/${HOME}", b"f"),
    ];
    write(&Bundle::from_download("x.zip", &zip(&files), UnpackLimits::default()).unwrap(), &inner);
    let expected = ["${HOME}", "-rf", "...", "..hidden/~root", "a.pkr.hcl", "provision/b.sh"]
        .map(|path| format!("work/template/{path}"));
    assert_eq!(below(outer.path()), expected);
}
