//! Templates in JSON: HCL2's and the legacy form.

use std::collections::BTreeMap;

use ciab_template::{Bundle, tag};
use proptest::prelude::*;
use serde_json::Value;

use crate::{KINDS, OURS, TAGS, only_adds, options};

/// A form of template in JSON, by the name of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Hcl2,
    Legacy,
}

impl Form {
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Hcl2 => "a.pkr.json",
            Self::Legacy => "a.json",
        }
    }
}

/// JSON before it is laid out.
#[derive(Debug, Clone)]
enum Node {
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    /// As it is written.
    Raw(&'static str),
    Text(String),
}

/// How JSON is laid out.
#[derive(Debug, Clone, Copy)]
struct Layout {
    newline: &'static str,
    indent: &'static str,
    colon: &'static str,
    comma: &'static str,
}

const LAYOUTS: [Layout; 6] = [
    Layout { newline: "\n", indent: "  ", colon: ": ", comma: "," },
    Layout { newline: "\r\n", indent: "    ", colon: ": ", comma: "," },
    Layout { newline: "\n", indent: "\t", colon: " : ", comma: " ," },
    Layout { newline: "\n", indent: "", colon: ":", comma: "," },
    Layout { newline: "", indent: "", colon: ":", comma: "," },
    Layout { newline: "", indent: "", colon: ": ", comma: ", " },
];

impl Layout {
    fn print(self, node: &Node, depth: usize) -> String {
        let line = |depth: usize| format!("{}{}", self.newline, self.indent.repeat(depth));
        let wrap = |open: &str, items: Vec<String>, close: &str| {
            let items = items.join(&format!("{}{}", self.comma, line(depth + 1)));
            format!("{open}{}{items}{}{close}", line(depth + 1), line(depth))
        };
        match node {
            Node::Raw(text) => (*text).to_owned(),
            Node::Text(text) => Value::from(text.as_str()).to_string(),
            Node::Array(items) => {
                wrap("[", items.iter().map(|item| self.print(item, depth + 1)).collect(), "]")
            }
            Node::Object(items) => {
                let property = |(name, value): &(String, Node)| {
                    format!("{}{}{}", Value::from(name.as_str()), self.colon, self.print(value, depth + 1))
                };
                wrap("{", items.iter().map(property).collect(), "}")
            }
        }
    }
}

/// What an author may give a tag attribute.
fn tag_value(form: Form) -> impl Strategy<Value = &'static str> {
    let both = [
        "{}",
        "{ }",
        "{\n}",
        "null",
        "{\"a\": \"b\"}",
        "{\"a\":\"}\",\"c d\":\"\\\"{\"}",
        "{\n      \"a\": \"b\"\n    }",
        "{\r\n\t\"a\": \"\\u00e9\" ,\r\n\t\"b\": \"\\\\\" }",
        "{\"ciab:build-id\": \"theirs\", \"a\": \"b\"}",
        "{\"\\u0063iab:build-id\": \"\\u0030e7f\"}",
    ];
    let hcl2 = [
        "\"${local.t}\"",
        "\"${ local.t }\"",
        "\"${~ local.t ~}\"",
        "\"\\u0024{local.t\\u007d\"",
        "\"${merge(local.t, {a = \\\"b\\\"})}\"",
        "\"${merge(local.t,\\n{\\n\\\"a\\\" = \\\"é\\\"\\n})}\"",
        "\"${{a = \\\"}\\\", \\\"ciab:build-id\\\" = \\\"theirs\\\"}}\"",
        "\"${{}}\"",
        "\"${{for k, v in local.t : k => upper(v)}}\"",
        "\"${length(local.t) > 0 ? local.t : {}}\"",
        "{\"${local.t.x}\": \"${local.t.x}\", \"$${b}\": \"%%{c}\"}",
    ];
    let legacy = [
        "[]",
        "[{\"a\": \"b\"}]",
        "[{\"a\": \"b\"}, {\n\"ciab:build-id\": \"theirs\"\n}]",
        "{\"{{user `x`}}\": \"{{user `x`}}\", \"${b}\": \"%{c}\"}",
    ];
    let mut values = both.to_vec();
    values.extend(if form == Form::Hcl2 { hcl2.as_slice() } else { legacy.as_slice() });
    prop::sample::select(values)
}

fn other_property(form: Form) -> impl Strategy<Value = (&'static str, &'static str)> {
    let mut properties = vec![
        ("ami_name", "\"x-{{timestamp}}\""),
        ("user_data", "\"run_tags: {}\\n\\\"tags\\\": {\\n\""),
        ("instance_type", "\"t3.micro\""),
        ("spot_price", "\"auto\""),
        ("ssh_password", "\"p\""),
        ("disable_stop_instance", "true"),
        ("ami_regions", "[\"us-west-2\"]"),
        ("source_ami_filter", "{\"filters\": {\"tag:tags\": \"run_tags\"}, \"most_recent\": true}"),
        (
            "run_tag",
            "[{\"key\": \"ciab:build-id\", \"value\": \"0e7f\"}, {\"value\": \"x\", \"key\": \"y\"}]",
        ),
        ("shutdown_behavior", "\"stop\""),
    ];
    if form == Form::Hcl2 {
        properties.push(("//", "{\"run_tags\": \"${\"}"));
        properties.push((
            "dynamic",
            "{\"run_tag\": {\"for_each\": [], \"content\": {\"key\": \"a\", \"value\": \"b\"}}}",
        ));
    }
    prop::sample::select(properties)
}

fn builder(form: Form) -> impl Strategy<Value = (&'static str, Node)> {
    let kind = prop::sample::select(&KINDS[..]);
    let names = vec!["run_tags", "run_volume_tags", "tags", "snapshot_tags", "root_volume_tags"];
    let tags = prop::collection::btree_map(prop::sample::select(names), tag_value(form), 0..4);
    let others = prop::collection::vec(other_property(form), 0..4);
    (kind, tags, others, any::<prop::sample::Index>()).prop_map(|(kind, tags, others, turn)| {
        let properties: BTreeMap<_, _> = tags.into_iter().chain(others).collect();
        let mut properties: Vec<_> =
            properties.into_iter().map(|(name, value)| (name.to_owned(), Node::Raw(value))).collect();
        let length = properties.len();
        properties.rotate_left(if length == 0 { 0 } else { turn.index(length) });
        (kind, Node::Object(properties))
    })
}

fn object(name: &str, value: Node) -> Node {
    Node::Object(vec![(name.to_owned(), value)])
}

fn document(form: Form, builders: Vec<(&'static str, Node)>, in_arrays: bool) -> Node {
    let always = [("amazon-ebs", object("communicator", Node::Raw("\"none\"")))];
    let builders = always.into_iter().chain(builders).enumerate();
    let wrapped = |node: Node| if in_arrays { Node::Array(vec![node]) } else { node };
    match form {
        Form::Hcl2 => {
            let sources = builders.map(|(index, (kind, body))| {
                wrapped(object(kind, wrapped(object(&format!("s{index}"), wrapped(body)))))
            });
            let mut properties: Vec<_> = if in_arrays {
                sources.map(|source| ("source".to_owned(), source)).collect()
            } else {
                vec![("source".to_owned(), Node::Array(sources.collect()))]
            };
            properties.push(("locals".to_owned(), Node::Raw("{\"t\": {\"x\": \"y\"}}")));
            properties.push(("build".to_owned(), Node::Raw("{\"sources\": [\"amazon-ebs.s0\"]}")));
            wrapped(Node::Object(properties))
        }
        Form::Legacy => {
            let builders = builders.map(|(index, (kind, body))| {
                let Node::Object(properties) = body else { unreachable!("a builder is an object") };
                let own = [
                    ("type".to_owned(), Node::Text(kind.to_owned())),
                    ("name".to_owned(), Node::Text(format!("s{index}"))),
                ];
                Node::Object(own.into_iter().chain(properties).collect())
            });
            Node::Object(vec![
                ("variables".to_owned(), Node::Raw("{\"x\": \"y\"}")),
                ("builders".to_owned(), Node::Array(builders.collect())),
            ])
        }
    }
}

/// A template of a form, as text.
pub(crate) fn template(form: Form) -> impl Strategy<Value = String> {
    let builders = prop::collection::vec(builder(form), 0..4);
    let layout = prop::sample::select(LAYOUTS.to_vec());
    (builders, layout, any::<bool>())
        .prop_map(move |(builders, layout, in_arrays)| layout.print(&document(form, builders, in_arrays), 0))
}

fn any_template() -> impl Strategy<Value = (Form, String)> {
    prop::sample::select(vec![Form::Hcl2, Form::Legacy])
        .prop_flat_map(|form| template(form).prop_map(move |text| (form, text)))
}

fn tagged(form: Form, text: &str, endpoint: bool) -> String {
    let bundle = Bundle::from_files([(form.file(), text)]).unwrap();
    let bundle = tag(&bundle, &options(endpoint)).unwrap_or_else(|error| panic!("{error}\n{text}"));
    String::from_utf8(bundle.get(form.file()).unwrap().to_vec()).unwrap()
}

/// JSON with names in their order and repeated names kept, which `Value` would lose.
#[derive(Debug, PartialEq)]
enum Tree {
    Object(Vec<(String, Tree)>),
    Array(Vec<Tree>),
    Leaf(Value),
}

impl<'de> serde::Deserialize<'de> for Tree {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Tree;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("JSON")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut properties = Vec::new();
                while let Some(property) = map.next_entry()? {
                    properties.push(property);
                }
                Ok(Tree::Object(properties))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = items.next_element()? {
                    elements.push(element);
                }
                Ok(Tree::Array(elements))
            }

            fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
                Ok(Tree::Leaf(text.into()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
                Ok(Tree::Leaf(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
                Ok(Tree::Leaf(value.into()))
            }

            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Leaf(Value::Null))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// What a text means, but for what tagging may set.
fn without_ours(text: &str) -> Tree {
    let mut tree: Tree = serde_json::from_str(text).unwrap();
    strip(&mut tree);
    tree
}

fn strip(tree: &mut Tree) {
    match tree {
        Tree::Object(properties) => {
            properties.retain(|(name, _)| !OURS.contains(&name.as_str()));
            properties.iter_mut().for_each(|(_, value)| strip(value));
        }
        Tree::Array(elements) => elements.iter_mut().for_each(strip),
        Tree::Leaf(_) => {}
    }
}

/// Every value of an attribute, wherever it stands.
fn values_of<'a>(tree: &'a Tree, wanted: &str, found: &mut Vec<&'a Tree>) {
    match tree {
        Tree::Object(properties) => {
            for (name, value) in properties {
                if name == wanted {
                    found.push(value);
                }
                values_of(value, wanted, found);
            }
        }
        Tree::Array(elements) => elements.iter().for_each(|element| values_of(element, wanted, found)),
        Tree::Leaf(_) => {}
    }
}

fn has_tag(tree: &Tree, key: &str, value: &str) -> bool {
    match tree {
        Tree::Object(properties) => {
            properties.iter().any(|(name, tag)| name == key && *tag == Tree::Leaf(value.into()))
        }
        Tree::Array(elements) => elements.last().is_some_and(|last| has_tag(last, key, value)),
        Tree::Leaf(text) => {
            text.as_str().is_some_and(|text| text.contains(&format!("\"{key}\" = \"{value}\"")))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tagging_json_only_adds((form, text) in any_template(), endpoint: bool) {
        let tagged = tagged(form, &text, endpoint);
        // Nothing, and a tag of ours with another value, are what ours replaces.
        if !["null", "theirs", "{}", "[]", "{ }", "{\n}"].iter().any(|replaced| text.contains(replaced)) {
            prop_assert!(only_adds(&text, &tagged), "{}", tagged);
        }
        prop_assert_eq!(without_ours(&text), without_ours(&tagged));
    }

    #[test]
    fn tagging_json_twice_is_tagging_it_once((form, text) in any_template(), endpoint: bool) {
        let once = tagged(form, &text, endpoint);
        prop_assert_eq!(&tagged(form, &once, endpoint), &once);
    }

    #[test]
    fn every_tag_attribute_in_json_has_our_tags((form, text) in any_template()) {
        // `snapshot_tags` is what all of Amazon's builders have but this one.
        let text = text.replace("\"null\"", "\"amazon-ebs\"").replace("amazon-ebsvolume", "amazon-ebs");
        let tree: Tree = serde_json::from_str(&tagged(form, &text, false)).unwrap();
        let mut found = Vec::new();
        values_of(&tree, "snapshot_tags", &mut found);
        prop_assert!(!found.is_empty());
        for value in found {
            for (key, tag) in TAGS {
                prop_assert!(has_tag(value, key, tag), "{:?}", value);
            }
        }
    }

    #[test]
    fn what_is_not_json_never_panics(text in "[a-z{}\\[\\]=\"#:,0-9\\n<$\\\\ ]{0,60}") {
        for form in [Form::Hcl2, Form::Legacy] {
            let bundle = Bundle::from_files([(form.file(), text.as_str())]).unwrap();
            let _ = tag(&bundle, &options(true));
        }
    }

    #[test]
    fn a_template_that_is_damaged_never_panics(
        (form, text) in any_template(),
        at: prop::sample::Index,
        length in 0..20_usize,
        other in "[{}\\[\\]\",:$\\\\ueé]{0,3}",
    ) {
        let mut damaged: Vec<char> = text.chars().collect();
        let start = at.index(damaged.len());
        let end = (start + length).min(damaged.len());
        damaged.splice(start..end, other.chars());
        let damaged: String = damaged.into_iter().collect();
        let bundle = Bundle::from_files([(form.file(), damaged.as_str())]).unwrap();
        if let Ok(tagged) = tag(&bundle, &options(true)) {
            let again = tag(&tagged, &options(true));
            prop_assert_eq!(again, Ok(tagged));
        }
    }
}
