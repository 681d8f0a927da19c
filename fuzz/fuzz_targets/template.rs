//! The readers of HCL2, its JSON form, and legacy JSON: whatever a file holds, reading, checking and tagging it ends in a
//! result; what was tagged is a template that tagging leaves as it is; and nothing that tagging adds runs on the runner.

#![no_main]

use std::collections::BTreeMap;

use ciab_template::{
    Bundle, LocalExecution, PackerVersion, ParsedTemplate, TagOptions, local_execution, read, tag,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((form, text)) = input.split_first() else { return };
    let path = ["image.pkr.hcl", "image.pkr.json", "image.json", "x.auto.pkrvars.hcl"][usize::from(form % 4)];
    let mut files = vec![(path, text)];
    if path.starts_with('x') {
        files.push(("image.pkr.hcl", b"source \"amazon-ebs\" \"x\" {}\n"));
    }
    let Ok(bundle) = Bundle::from_files(files) else { return };
    let options = TagOptions {
        tags: BTreeMap::from([("ciab:build-id".to_owned(), "0".to_owned())]),
        image_tags: BTreeMap::from([("Team".to_owned(), "a \"b\" ${c}".to_owned())]),
        packer_version: PackerVersion { major: 1, minor: if form & 4 == 0 { 6 } else { 11 }, patch: 0 },
        endpoint: (form & 8 == 0).then(|| "http://127.0.0.1:9/".to_owned()),
        temporary_key_pair_name: Some("ciab-0".to_owned()),
    };
    let parsed = ParsedTemplate::of(&bundle);
    let summary = parsed.as_ref().map_err(Clone::clone).and_then(ParsedTemplate::summary);
    assert!(summary == read(&bundle), "what was parsed before declares something else");
    let tagged = parsed.as_ref().map_err(Clone::clone).and_then(|parsed| parsed.tag(&options));
    assert!(tagged == tag(&bundle, &options), "what was parsed before is tagged in another way");
    let found = local_execution(&bundle);

    let Ok(tagged) = tagged else { return };
    let again = tag(&tagged, &options).expect("what was tagged can be tagged");
    assert!(again == tagged, "tagging what is tagged changes it");
    let Ok(found) = found else { return };
    let still = local_execution(&tagged).expect("what was tagged can be looked at");
    let before = counted(&found);
    for (what, times) in counted(&still) {
        let times_before = before.get(what).copied().unwrap_or_default();
        assert!(times <= times_before, "tagging adds local execution: {what}");
    }
});

/// How often each finding comes. Lines move.
fn counted(found: &[LocalExecution]) -> BTreeMap<&str, usize> {
    let mut counted = BTreeMap::new();
    for finding in found {
        *counted.entry(finding.what.as_str()).or_default() += 1;
    }
    counted
}
