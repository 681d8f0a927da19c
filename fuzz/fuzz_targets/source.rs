//! The reader of template sources, in both forms: whatever is given, what is taken means the same once it was written down,
//! and nothing that is shown or refused repeats a credential.

#![no_main]

use ciab_template::{SubmittedTemplate, TemplateSource};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(source) = text.parse::<TemplateSource>() {
        let kept = serde_json::to_string(&source).expect("a source can be kept");
        assert!(serde_json::from_str::<TemplateSource>(&kept).expect("what was kept can be read") == source);
        if let Some(address) = source.address() {
            assert!(address.username().is_empty() && address.password().is_none());
            assert!(matches!(address.scheme(), "https" | "http"));
        }
        shown_as_it_is(&source);
    }
    if let Ok(object) = serde_json::from_str::<serde_json::Value>(text) {
        if let Ok(submitted) = SubmittedTemplate::from_object(&object) {
            shown_as_it_is(&submitted.source);
        }
    }
});

/// What is shown of a git source names the same one, as far as a source may be that long.
fn shown_as_it_is(source: &TemplateSource) {
    let shown = source.to_string();
    if matches!(source, TemplateSource::Git(_)) && shown.len() <= 2_048 {
        let again: TemplateSource = shown.parse().expect("what is shown of a git source is one");
        assert!(again == *source, "{again:?} is not {source:?}");
    }
}
