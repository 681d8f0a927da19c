//! The readers of archives: whatever the bytes are, what comes back lies inside of one folder and of the limits.

#![no_main]

use ciab_template::{Bundle, UnpackLimits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((form, bytes)) = input.split_first() else { return };
    let name = ["a.zip", "a.tar.gz", "a.tar", "a", "a.pkr.hcl"][usize::from(form % 5)];
    let limits = UnpackLimits { files: 50, total_bytes: 100_000, ..UnpackLimits::default() };
    let Ok(bundle) = Bundle::from_download(name, bytes, limits) else { return };
    let mut total = 0;
    for (path, content) in bundle.files() {
        assert!(
            !path.starts_with('/')
                && !path.contains('\\')
                && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        );
        total += content.len() as u64;
    }
    assert!(total <= limits.total_bytes.max(bytes.len() as u64));
    let packed = bundle.to_tar_gz("", &[]).expect("a bundle can be packed");
    let large = UnpackLimits { total_bytes: 100_000_000, ..UnpackLimits::default() };
    let again = Bundle::from_download("a.tar.gz", &packed, large).expect("what was packed can be unpacked");
    // Paths may be shorter: where all files stand in one folder, that folder is left out.
    assert!(again.files().map(|(_, content)| content).eq(bundle.files().map(|(_, content)| content)));
});
