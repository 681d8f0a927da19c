//! Templates made to harm whoever reads them: each must be answered, by an error with a place or by a tagged template.
//!
//! A stack that overflows ends the test's process, and a parser that tries every way through takes for ever: both fail.

#![expect(clippy::unwrap_used, reason = "a test stops where its own set-up fails")]

use std::collections::BTreeMap;

use ciab_template::{Bundle, PackerVersion, TagOptions, TemplateError, read, tag};

/// Deep enough to overflow any stack, were it followed.
const DEEP: usize = 10_000;

fn options() -> TagOptions {
    TagOptions {
        tags: BTreeMap::from([("ciab:build-id".to_owned(), "0e7f".to_owned())]),
        image_tags: BTreeMap::new(),
        packer_version: PackerVersion { major: 1, minor: 6, patch: 6 },
        endpoint: Some("http://127.0.0.1:9".to_owned()),
        temporary_key_pair_name: None,
    }
}

fn answer(path: &str, text: &str) -> Result<(), TemplateError> {
    let bundle = Bundle::from_files([(path, text)]).unwrap();
    let read = read(&bundle).map(|_| ());
    tag(&bundle, &options()).map(|_| ()).and(read)
}

fn nested(open: &str, inner: &str, close: &str, depth: usize) -> String {
    format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
}

/// What nests in an expression of HCL: what opens a level, what stands inside, what closes it.
const EXPRESSIONS: [(&str, &str, &str); 16] = [
    ("[", "", "]"),
    ("(", "1", ")"),
    ("{ a = ", "1", " }"),
    ("f(", "1", ")"),
    ("merge({}, ", "{}", ")"),
    ("\"${", "1", "}\""),
    ("!", "true", ""),
    ("-", "1", ""),
    ("a ? b : ", "c", ""),
    ("a ? ", "b", " : c"),
    ("[for x in y : ", "x", "]"),
    ("{ for k, v in ", "x", " : k => v }"),
    ("a[", "0", "]"),
    ("1 + ", "1", ""),
    ("\"%{ if x }${", "1", "}%{ endif }\""),
    ("", "a", ".b"),
];

fn source(expression: &str) -> String {
    format!("source \"amazon-ebs\" \"x\" {{\n  run_tags = f({expression})\n}}\n")
}

#[test]
fn hcl_that_nests_without_end_is_refused_with_its_place() {
    for (open, inner, close) in EXPRESSIONS {
        // A long chain is no nesting, and may be built.
        let chain = close == ".b";
        let answer = answer("a.pkr.hcl", &source(&nested(open, inner, close, DEEP)));
        assert!(
            matches!(answer, Err(TemplateError::Syntax { line: 2, .. })) || (chain && answer.is_ok()),
            "{open}: {answer:?}"
        );
    }
    let blocks = nested("a {\n", "", "}\n", DEEP);
    assert!(matches!(answer("a.pkr.hcl", &blocks), Err(TemplateError::Syntax { .. })));
}

#[test]
fn hcl_that_is_never_closed_is_refused() {
    for (open, ..) in EXPRESSIONS {
        for depth in [1, 30, 63, 64, 65, DEEP] {
            if open.is_empty() {
                continue;
            }
            let answer = answer("a.pkr.hcl", &source(&open.repeat(depth)));
            assert!(matches!(answer, Err(TemplateError::Syntax { .. })), "{open} × {depth}: {answer:?}");
        }
    }
}

#[test]
fn nesting_that_a_template_may_have_is_read() {
    for (open, inner, close) in EXPRESSIONS {
        let answer = answer("a.pkr.hcl", &source(&nested(open, inner, close, 20)));
        assert_eq!(answer, Ok(()), "{open}");
    }
}

#[test]
fn json_that_nests_without_end_is_refused_with_its_place() {
    for (open, inner, close) in [("[", "", "]"), ("{\"source\":", "{}", "}"), ("[{\"a\":", "1", "}]")] {
        for path in ["a.pkr.json", "a.json"] {
            for text in [nested(open, inner, close, DEEP), open.repeat(DEEP)] {
                let answer = answer(path, &text);
                assert!(matches!(answer, Err(TemplateError::Syntax { .. })), "{path} {open}: {answer:?}");
            }
        }
    }
    let builders =
        format!("{{\"builders\": [{{\"type\": \"amazon-ebs\", \"tags\": {}}}]}}", nested("[", "", "]", DEEP));
    assert!(matches!(answer("a.json", &builders), Err(TemplateError::Syntax { line: 1, .. })));
}

#[test]
fn an_expression_in_json_that_nests_without_end_is_refused_with_its_place() {
    for (open, inner, close) in EXPRESSIONS {
        let expression = format!("${{{}}}", nested(open, inner, close, DEEP));
        let text = format!(
            "{{\"source\": {{\"amazon-ebs\": {{\"x\": {{\n  \"run_tags\": {}}}}}}}}}",
            serde_json::Value::from(expression)
        );
        let answer = answer("a.pkr.json", &text);
        let refused = matches!(answer, Err(TemplateError::UnmergeableTags { line: 2, column: 15, .. }));
        assert!(refused || (close == ".b" && answer.is_ok()), "{open}: {answer:?}");
    }
}

#[test]
fn a_large_template_is_no_trouble() {
    let many = (0..500).map(|index| format!("source \"amazon-ebs\" \"s{index}\" {{}}\n")).collect::<String>();
    assert_eq!(answer("a.pkr.hcl", &many), Ok(()));
    let builders = vec!["{\"type\": \"amazon-ebs\"}"; 500].join(",\n");
    assert_eq!(answer("a.json", &format!("{{\"builders\": [{builders}]}}")), Ok(()));
}
