//! The readers of HCL2, its JSON form, and legacy JSON: whatever a file holds, reading, checking and tagging it ends in a
//! result; and what was tagged is a template that tagging leaves as it is.

#![no_main]

use std::collections::BTreeMap;

use ciab_template::{Bundle, PackerVersion, TagOptions, local_execution, read, tag};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((form, text)) = input.split_first() else { return };
    let path = ["image.pkr.hcl", "image.pkr.json", "image.json", "x.auto.pkrvars.hcl"][usize::from(form % 4)];
    let mut files = vec![(path, text)];
    if path.starts_with('x') {
        files.push(("image.pkr.hcl", b"source \"amazon-ebs\" \"x\" {}\n"));
    }
    let Ok(bundle) = Bundle::from_files(files) else { return };
    let _ = read(&bundle);
    let _ = local_execution(&bundle);
    let options = TagOptions {
        tags: BTreeMap::from([("ciab:build-id".to_owned(), "0".to_owned())]),
        image_tags: BTreeMap::from([("Team".to_owned(), "a \"b\" ${c}".to_owned())]),
        packer_version: PackerVersion { major: 1, minor: if form & 4 == 0 { 6 } else { 11 }, patch: 0 },
        endpoint: (form & 8 == 0).then(|| "http://127.0.0.1:9/".to_owned()),
        temporary_key_pair_name: Some("ciab-0".to_owned()),
    };
    let Ok(tagged) = tag(&bundle, &options) else { return };
    let again = tag(&tagged, &options).expect("what was tagged can be tagged");
    assert!(again == tagged, "tagging what is tagged changes it");
});
