//! What was downloaded, as a bundle.
//!
//! Pure: names and bytes go in. Must never trust a name that a server gives further than for its ending.

use ciab_template::{Bundle, DownloadError, UnpackLimits};

/// Endings that say what a download is.
const ENDINGS: [&str; 6] = [".pkr.hcl", ".json", ".zip", ".tar.gz", ".tgz", ".tar"];

/// Why what came is no template.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoTemplate {
    #[error("it is a web page: perhaps one that asks to sign in")]
    WebPage,
    #[error(transparent)]
    Download(#[from] DownloadError),
}

/// The name that says what a download is: of those given the first that has a known ending.
pub(crate) fn name_of<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let last = |name: &'a str| name.rsplit(['/', '\\']).next().unwrap_or_default();
    names.into_iter().map(last).find(|name| ENDINGS.iter().any(|ending| ends_with(name, ending)))
}

fn ends_with(name: &str, ending: &str) -> bool {
    let at = name.len().checked_sub(ending.len());
    at.and_then(|at| name.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(ending))
}

/// The file's name in a `Content-Disposition`; what is encoded (`filename*`) says the same once more and is left out.
pub(crate) fn disposition_name(header: &str) -> Option<&str> {
    header.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("filename").then(|| value.trim().trim_matches('"'))
    })
}

/// The bundle that something of this name is, or of none that says anything: then its bytes do.
pub(crate) fn bundle(name: Option<&str>, bytes: &[u8], limits: UnpackLimits) -> Result<Bundle, NoTemplate> {
    if is_web_page(bytes) {
        return Err(NoTemplate::WebPage);
    }
    Ok(Bundle::from_download(name.unwrap_or("download"), bytes, limits)?)
}

/// Neither HCL nor JSON nor an archive begins so, and the page that asks to sign in does, whatever the file was called.
fn is_web_page(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"<")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_with_a_known_ending_says_what_it_is() {
        assert_eq!(name_of(["/a/x.pkr.hcl", "y.zip"]), Some("x.pkr.hcl"));
        assert_eq!(name_of(["/raw/v1.2", "../../y.TAR.GZ"]), Some("y.TAR.GZ"));
        assert_eq!(name_of(["/a/b", "C:\\x\\y.json"]), Some("y.json"));
        assert_eq!(name_of(["/a/b", "x.hcl", "é", ""]), None);
    }

    #[test]
    fn the_name_of_an_attachment_is_read() {
        for header in [
            "attachment; filename=\"a b.zip\"",
            "attachment; FileName = a b.zip ",
            "x;y=z;filename=\"a b.zip\";q=1",
        ] {
            assert_eq!(disposition_name(header), Some("a b.zip"), "{header}");
        }
        for header in
            ["inline", "attachment; filename*=UTF-8''a.zip", "attachment; name=\"a.zip\"", "filename=a.zip"]
        {
            assert_eq!(disposition_name(header), None, "{header}");
        }
    }

    #[test]
    fn a_template_keeps_its_name_and_an_archive_is_unpacked_with_or_without_one() {
        let limits = UnpackLimits::default();
        let plain = bundle(Some("x.pkr.hcl"), b"a = 1", limits).unwrap();
        assert_eq!(plain.get("x.pkr.hcl"), Some(&b"a = 1"[..]));
        let packed = plain.to_tar_gz("", &[]).unwrap();
        assert_eq!(bundle(Some("y.tgz"), &packed, limits).unwrap(), plain);
        assert_eq!(bundle(None, &packed, limits).unwrap(), plain);
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let limits = UnpackLimits::default();
        assert!(matches!(bundle(None, b"hello", limits), Err(NoTemplate::Download(_))));
        assert!(matches!(bundle(Some("a.json"), b"\n<!doctype html>", limits), Err(NoTemplate::WebPage)));
        assert!(bundle(Some("a.tar.gz"), b"hello", limits).is_err());
    }
}
