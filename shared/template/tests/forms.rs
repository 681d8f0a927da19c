//! Which form a bundle is in, what is read from each, and what is refused, with its place.

#![expect(clippy::unwrap_used, reason = "a test stops where its own set-up fails")]

use std::collections::BTreeMap;

use ciab_template::{
    Bundle, PackerVersion, TagOptions, TemplateError, TemplateForm, TemplateSummary, read, tag,
};

fn bundle(files: &[(&str, &str)]) -> Bundle {
    Bundle::from_files(files.iter().copied()).unwrap()
}

fn summary(files: &[(&str, &str)]) -> TemplateSummary {
    read(&bundle(files)).unwrap()
}

/// The error of tagging; reading and tagging agree where reading fails.
fn refusal(files: &[(&str, &str)]) -> String {
    let options = TagOptions {
        tags: BTreeMap::from([("ciab:build-id".to_owned(), "0e7f".to_owned())]),
        image_tags: BTreeMap::new(),
        packer_version: PackerVersion { major: 1, minor: 11, patch: 0 },
        endpoint: None,
        temporary_key_pair_name: None,
    };
    let error = tag(&bundle(files), &options).unwrap_err();
    if let Err(read) = read(&bundle(files)) {
        assert_eq!(read, error);
    }
    error.to_string()
}

fn legacy(file: &str) -> Result<TemplateForm, TemplateError> {
    Ok(TemplateForm::Legacy { file: file.to_owned() })
}

#[test]
fn any_hcl2_file_at_the_top_makes_a_bundle_hcl2() {
    let builders = ("a.json", "{\"builders\": []}");
    assert_eq!(bundle(&[("a.pkr.hcl", ""), builders]).form(), Ok(TemplateForm::Hcl2));
    assert_eq!(bundle(&[("a.pkr.json", "{}"), builders]).form(), Ok(TemplateForm::Hcl2));
    assert_eq!(bundle(&[("inner/a.pkr.hcl", ""), builders]).form(), legacy("a.json"));
}

#[test]
fn the_one_json_file_with_builders_is_the_legacy_template() {
    let other = [("package.json", "{}"), ("list.json", "[{\"builders\": 1}]"), ("broken.json", "{")];
    let mut files = vec![("image.json", "{\"Builders\": []}"), ("inner/b.json", "{\"builders\": []}")];
    files.extend(other);
    assert_eq!(bundle(&files).form(), legacy("image.json"));
}

#[test]
fn several_legacy_templates_are_refused_by_name() {
    let error =
        refusal(&[("a.json", "{\"builders\": []}"), ("b.json", "{\"builders\": []}"), ("c.json", "{}")]);
    assert_eq!(
        error,
        "the template has several legacy JSON files with `builders`, and Packer reads one: a.json, b.json"
    );
}

#[test]
fn where_nothing_else_is_a_template_a_broken_file_is_the_reason() {
    assert_eq!(refusal(&[("a.json", "{\n  \"builders\": [}")]), "a.json:2:16: expected value");
    assert!(matches!(bundle(&[("a.json", "{}")]).form(), Err(TemplateError::NoTemplate { .. })));
}

#[test]
fn inline_content_gets_the_name_that_packer_reads_it_by() {
    for (content, name) in [
        ("source \"null\" \"x\" {}", "template.pkr.hcl"),
        ("\u{feff}source \"null\" \"x\" {}", "template.pkr.hcl"),
        ("\r\n {\"source\": {}}", "template.pkr.json"),
        ("[{\"source\": {}}]", "template.pkr.json"),
        ("{\"variable\": {\"builders\": {}}}", "template.pkr.json"),
        (" {\"builders\": []}", "template.json"),
        ("{\"variables\": {}, \"BUILDERS\": []}", "template.json"),
        ("{\"builders\": [}", "template.json"),
        ("\u{feff}{\"builders\": []}", "template.json"),
        ("{\"source\": ", "template.pkr.json"),
    ] {
        let bundle = Bundle::from_inline(content);
        assert_eq!(bundle.files().map(|(path, _)| path).collect::<Vec<_>>(), [name], "{content}");
        assert_eq!(bundle.get(name), Some(content.as_bytes()));
    }
}

#[test]
fn legacy_json_under_an_hcl2_name_is_refused_with_the_way_out() {
    let error = refusal(&[("a.pkr.json", "{\"builders\": []}")]);
    assert!(error.starts_with("a.pkr.json:1:1: `builders` is legacy JSON"), "{error}");
}

#[test]
fn a_template_without_an_amazon_source_is_refused_in_every_form() {
    let sources = "(amazon-ebs, amazon-ebssurrogate, amazon-ebsvolume, amazon-chroot, amazon-instance)";
    for (path, text, has) in [
        ("a.pkr.json", "{\"source\": {\"null\": {\"x\": {}}, \"docker\": {\"y\": {}}}}", "null.x, docker.y"),
        ("a.pkr.json", "{\"source\": {\"amazon-ebs\": {\"x\": null}}}", "none"),
        ("a.pkr.json", "{}", "none"),
        (
            "a.json",
            "{\"builders\": [{\"type\": \"null\"}, {\"type\": \"docker\", \"name\": \"y\"}]}",
            "null.null, docker.y",
        ),
        ("a.json", "{\"builders\": []}", "none"),
    ] {
        assert_eq!(
            refusal(&[(path, text)]),
            format!("the template has no Amazon source {sources}; it has {has}")
        );
    }
}

#[test]
fn what_tags_cannot_be_merged_into_is_refused_with_its_place() {
    let in_hcl2 = |value: &str| {
        refusal(&[(
            "a.pkr.json",
            &format!("{{\"source\": {{\"amazon-ebs\": {{\"x\": {{\n\"tags\": {value}}}}}}}}}"),
        )])
    };
    for text in [
        "\"\"",
        "\"x\"",
        "\"${a}${b}\"",
        "\"a${b}\"",
        "\"${a} \"",
        "\"%{if a}b%{endif}\"",
        "\"${\"",
        "\"$${a}\"",
        "\"${\\\"a\\\"}\"",
    ] {
        assert_eq!(
            in_hcl2(text),
            "a.pkr.json:2:9: `tags` can't get the build's tags: its value is a string, and neither an object nor one \
             `${…}`"
        );
    }
    for value in ["5", "true", "[]", "[{}]"] {
        assert_eq!(
            in_hcl2(value),
            "a.pkr.json:2:9: `tags` can't get the build's tags: its value is not an object"
        );
    }
    let in_legacy = |value: &str| {
        refusal(&[(
            "a.json",
            &format!("{{\"builders\": [{{\"type\": \"amazon-ebs\",\n  \"run_tags\": {value}}}]}}"),
        )])
    };
    assert_eq!(
        in_legacy("\"{{user `tags`}}\""),
        "a.json:2:15: `run_tags` can't get the build's tags: its value is a string, and legacy JSON can't merge into \
         that: give it as an object"
    );
    assert_eq!(
        in_legacy("[{}, \"x\"]"),
        "a.json:2:15: `run_tags` can't get the build's tags: its value is neither an object nor an array of objects"
    );
}

#[test]
fn what_is_no_legacy_template_is_refused_with_its_place() {
    for (text, message) in [
        ("{\"builders\": {}}", "a.json:1:14: `builders` takes an array of objects"),
        ("{\"builders\": [5]}", "a.json:1:15: `builders` takes an array of objects"),
        ("{\"builders\": [{}]}", "a.json:1:15: this builder has no `type`"),
        ("{\"builders\": [{\"type\": 5}]}", "a.json:1:15: this builder has no `type`"),
        ("{\"builders\": [], \"builders\": []}", "a.json:1:18: `builders` stands twice in one object"),
        (
            "{\"builders\": [{\"type\": \"amazon-ebs\",\n\"tags\": {\"a\": 1, \"\\u0061\": 2}}]}",
            "a.json:2:18: `a` stands twice in one object",
        ),
    ] {
        assert_eq!(refusal(&[("a.json", text)]), message);
    }
}

#[test]
fn a_split_attribute_is_refused_in_json_too() {
    let error = refusal(&[
        ("a.pkr.hcl", "source \"amazon-ebs\" \"x\" {}\n"),
        (
            "b.pkr.json",
            "{\"build\": [{\"sources\": [\"amazon-ebs.x\"]},\n {\"source\": {\"amazon-ebs.x\": {\"run_tags\": {}}}}]}",
        ),
    ]);
    assert!(
        error.starts_with("b.pkr.json:2: `run_tags` is set for amazon-ebs.x inside of one build"),
        "{error}"
    );
}

#[test]
fn what_is_plainly_no_map_is_refused_in_hcl_too() {
    for value in ["\"x\"", "5", "true", "[]", "<<EOF\nx\nEOF"] {
        let text = format!("source \"amazon-ebs\" \"x\" {{\n  tags = {value}\n}}\n");
        assert_eq!(
            refusal(&[("a.pkr.hcl", &text)]),
            "a.pkr.hcl:2:10: `tags` can't get the build's tags: its value is neither an object nor an expression that \
             could be one"
        );
    }
}

#[test]
fn an_hcl2_template_in_json_says_what_it_declares() {
    let summary = summary(&[
        (
            "a.pkr.json",
            r#"{
              "packer": {"required_version": ">= 1.6.0", "required_plugins": {
                "amazon": {"source": "github.com/hashicorp/amazon", "version": ">= 1.2.8"}, "null": "~> 1"}},
              "variable": {
                "plain": {},
                "full": {"type": "list(string)", "default": [], "description": "All of it.", "sensitive": true},
                "hidden": {"type": "string", "sensitive": "${true}"},
                "given": {"sensitive": false}
              },
              "variables": {"//": "none", "short": "x"},
              "source": {"amazon-ebs": {
                "base": {}}, "null": {"other": {}}}
            }"#,
        ),
        ("x.auto.pkrvars.json", "{\"given\": \"x\"}"),
    ]);
    assert_eq!(summary.required_versions, [">= 1.6.0"]);
    let plugins: Vec<_> = summary
        .required_plugins
        .iter()
        .map(|plugin| (plugin.name.as_str(), plugin.source.as_deref(), plugin.version.as_deref()))
        .collect();
    assert_eq!(
        plugins,
        [("amazon", Some("github.com/hashicorp/amazon"), Some(">= 1.2.8")), ("null", None, Some("~> 1"))]
    );
    let variables: Vec<_> = summary
        .variables
        .iter()
        .map(|variable| {
            let kind = variable.type_text.as_deref();
            (variable.name.as_str(), kind, variable.has_default, variable.sensitive, variable.line)
        })
        .collect();
    assert_eq!(
        variables,
        [
            ("plain", None, false, false, 5),
            ("full", Some("list(string)"), true, true, 6),
            ("hidden", Some("string"), false, true, 7),
            ("given", None, true, false, 8),
            ("short", None, true, false, 10),
        ]
    );
    assert_eq!(summary.variables[1].description.as_deref(), Some("All of it."));
    let sources: Vec<_> = summary
        .sources
        .iter()
        .map(|source| (source.kind.as_str(), source.name.as_str(), source.line, source.is_amazon))
        .collect();
    assert_eq!(sources, [("amazon-ebs", "base", 12, true), ("null", "other", 12, false)]);
}

#[test]
fn a_legacy_template_says_what_it_declares() {
    let summary = summary(&[
        (
            "a.json",
            r#"{
              "min_packer_version": "1.6.0",
              "variables": {"needed": null, "empty": "", "secret": "s3cret",
                "from_environment": "{{env `HOME`}}"},
              "sensitive-variables": ["secret"],
              "builders": [{"type": "amazon-ebs", "name": "one"},
                {"type": "amazon-chroot"}]
            }"#,
        ),
        // Packer reads these beside HCL2 only.
        ("x.auto.pkrvars.json", "{\"needed\": \"x\"}"),
    ]);
    assert_eq!(summary.required_versions, [">= 1.6.0"]);
    let variables: Vec<_> = summary
        .variables
        .iter()
        .map(|variable| (variable.name.as_str(), variable.has_default, variable.sensitive, variable.line))
        .collect();
    assert_eq!(
        variables,
        [
            ("needed", false, false, 3),
            ("empty", true, false, 3),
            ("secret", true, true, 3),
            ("from_environment", true, false, 4),
        ]
    );
    let sources: Vec<_> = summary.sources.iter().map(|source| (source.name.as_str(), source.line)).collect();
    assert_eq!(sources, [("one", 6), ("amazon-chroot", 7)]);
}
