//! Templates in HCL.

use ciab_template::{Bundle, tag};
use hcl_edit::structure::Body;
use proptest::prelude::*;

use crate::{KINDS, OURS, only_adds, options};

/// What an author may give a tag attribute.
fn tag_value() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "{}",
        "{ }",
        "{\n  }",
        "{ # }\n  }",
        "null",
        "var.tags",
        "local.tags[\"a\"]",
        "{ a = \"b\" }",
        "{a=\"b\"}",
        "{ a = \"}\", }",
        "{ a : \"b\", \"c d\" : var.x }",
        "{\n    a = \"b\"\n  }",
        "{\n    a = \"b\", # }\n    // {\n  }",
        "{\n    a = \"b\"\n    c = { d = \"e\" } }",
        "{\n    a = <<EOF\n}\nEOF\n  }",
        "{ (var.key) = \"b\" }",
        "{ \"${var.key}\" = \"b\" }",
        "merge(var.tags, { a = \"b\" })",
        "merge(var.tags, { a = \"b\" },)",
        "merge(var.tags, {})",
        "merge(var.tags...)",
        "merge(\n    var.tags, # )\n    {\n      a = \"b\" /* } */\n    }\n  )",
        "({ a = \"b\" })",
        "var.on ? { a = \"b\" } : {}",
        "{ for k, v in var.tags : k => v }",
        "jsondecode(<<EOF\n{}\nEOF\n  )",
    ])
    .prop_map(str::to_owned)
}

fn other_line() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "ami_name = \"x-${var.y}\"",
        "# run_tags = {",
        "",
        "/* }\n */",
        "user_data = <<-EOF\n    run_tags = { x = \"}\" }\n  EOF",
        "instance_type = \"t3.micro\" // }",
        "ssh_password = var.password",
        "spot_price = \"auto\"",
        "disable_stop_instance = true",
        "source_ami_filter {\n    filters = { name = \"x\" }\n  }",
        "run_tag {\n    key = \"a\"\n    value = \"b\"\n  }",
        "ebs_volumes {\n    device_name = \"/dev/xvdf\"\n  }",
        "dynamic \"ebs_volumes\" {\n    for_each = var.v\n    content {}\n  }",
    ])
    .prop_map(str::to_owned)
}

fn source(name: usize) -> impl Strategy<Value = String> {
    let kind = prop::sample::select(&KINDS[..]);
    let tags = prop::collection::btree_map(
        prop::sample::select(vec![
            "run_tags",
            "run_volume_tags",
            "tags",
            "snapshot_tags",
            "root_volume_tags",
        ]),
        tag_value(),
        0..4,
    );
    let others = prop::collection::hash_set(other_line(), 0..4);
    let close = prop::sample::select(vec!["}", "  }", "\t}"]);
    (kind, tags, others, close).prop_map(move |(kind, tags, others, close)| {
        let mut lines: Vec<_> = tags.into_iter().map(|(key, value)| format!("{key} = {value}")).collect();
        lines.extend(others);
        let body: String = lines.iter().map(|line| format!("  {line}\n")).collect();
        if body.is_empty() {
            format!("source \"{kind}\" \"s{name}\" {{}}\n")
        } else {
            format!("source \"{kind}\" \"s{name}\" {{\n{body}{close}\n")
        }
    })
}

pub(crate) fn template() -> impl Strategy<Value = String> {
    let first = Just("source \"amazon-ebs\" \"always\" { communicator = \"none\" }\n".to_owned());
    let build = Just("\nbuild {\n  sources = [\"amazon-ebs.always\", \"amazon-ebs.s0\"]\n}".to_owned());
    (first, source(0), source(1), build, any::<bool>()).prop_map(|(first, one, two, build, windows)| {
        let text = format!("{first}{one}# between {{\n{two}{build}");
        if windows { text.replace('\n', "\r\n") } else { text }
    })
}

fn tagged(text: &str, endpoint: bool) -> String {
    let bundle = Bundle::from_files([("a.pkr.hcl", text)]).unwrap();
    let bundle = tag(&bundle, &options(endpoint)).unwrap();
    String::from_utf8(bundle.get("a.pkr.hcl").unwrap().to_vec()).unwrap()
}

/// The body without what tagging may set. Bodies compare by what they mean: white space and comments do not count.
fn without_ours(text: &str) -> Body {
    let mut body: Body = text.parse().unwrap();
    strip(&mut body);
    body
}

fn strip(body: &mut Body) {
    for name in OURS {
        body.remove_attribute(name);
    }
    for block in body.blocks_mut() {
        strip(&mut block.body);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tagging_only_adds(text in template(), endpoint: bool) {
        let tagged = tagged(&text, endpoint);
        // `null` is the one value of the author's that ours replaces.
        if !text.contains("null\n") && !text.contains("null\r\n") {
            prop_assert!(only_adds(&text, &tagged), "{}", tagged);
        }
        prop_assert_eq!(without_ours(&text), without_ours(&tagged));
    }

    #[test]
    fn tagging_twice_is_tagging_once(text in template(), endpoint: bool) {
        let once = tagged(&text, endpoint);
        prop_assert_eq!(&tagged(&once, endpoint), &once);
    }

    #[test]
    fn what_is_not_a_template_never_panics(text in "[a-z{}=\"#\\n<$ ]{0,60}") {
        let bundle = Bundle::from_files([("a.pkr.hcl", text.as_str())]).unwrap();
        let _ = tag(&bundle, &options(true));
    }
}
