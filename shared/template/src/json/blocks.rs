//! HCL2's blocks in JSON. `source "amazon-ebs" "base" {}` is `{"source": {"amazon-ebs": {"base": {}}}}`; at each level an
//! array of objects may stand for one object, and a name may come more than once: all of it counts.
//!
//! <https://github.com/hashicorp/hcl/blob/main/json/spec.md>

use jsonc_parser::ast::Value;
use jsonc_parser::common::Ranged as _;

use super::{Body, Dialect, objects};
use crate::error::TemplateError;

/// One block: its labels, and its content, which knows where the block stands.
pub(crate) struct Block<'a> {
    pub(crate) labels: Vec<&'a str>,
    pub(crate) body: Body<'a>,
}

impl<'a> Body<'a> {
    /// The blocks of a type, with that many labels each.
    ///
    /// # Errors
    ///
    /// Where there is something else than objects in their place.
    pub(crate) fn blocks(self, name: &str, labels: usize) -> Result<Vec<Block<'a>>, TemplateError> {
        let mut found = Vec::new();
        for property in self.object.properties.iter().filter(|property| self.is_named(property, name)) {
            let inner = Inner { body: self, name, at: property.start() };
            inner.unpack(&property.value, labels, &[], &mut found)?;
        }
        Ok(found)
    }

    /// The blocks of a type without labels, those that a `dynamic` block makes included.
    pub(crate) fn plain_blocks(self, name: &str) -> Result<Vec<Body<'a>>, TemplateError> {
        let mut found = self.blocks(name, 0)?;
        if self.file.dialect == Dialect::Hcl2 {
            for dynamic in self.blocks("dynamic", 1)? {
                if dynamic.labels.first() == Some(&name) {
                    found.extend(dynamic.body.blocks("content", 0)?);
                }
            }
        }
        Ok(found.into_iter().map(|block| block.body).collect())
    }
}

/// What stands inside of a block's name, or inside of its labels so far.
struct Inner<'a, 'n> {
    body: Body<'a>,
    name: &'n str,
    at: usize,
}

impl<'a> Inner<'a, '_> {
    fn unpack(
        &self,
        value: &'a Value<'a>,
        labels_left: usize,
        labels: &[&'a str],
        found: &mut Vec<Block<'a>>,
    ) -> Result<(), TemplateError> {
        let file = self.body.file;
        // Packer takes `null` for no block at all.
        if labels_left == 0 && value.as_null_keyword().is_some() {
            return Ok(());
        }
        let objects = objects(value).map_err(|at| {
            file.error(at, format!("`{}` takes an object or an array of objects here", self.name))
        })?;
        for object in objects {
            if labels_left == 0 {
                let at = if value.as_array().is_some() { object.start() } else { self.at };
                found.push(Block { labels: labels.to_vec(), body: file.body(object, at) });
                continue;
            }
            for property in &object.properties {
                let labels: Vec<_> = labels.iter().copied().chain([property.name.as_str()]).collect();
                let inner = Inner { at: property.start(), ..*self };
                inner.unpack(&property.value, labels_left - 1, &labels, found)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn sources(text: &str) -> Result<Vec<String>, TemplateError> {
        let file = parse("a.pkr.json", text.as_bytes(), Dialect::Hcl2).unwrap();
        let mut found = Vec::new();
        for body in file.bodies()? {
            for block in body.blocks("source", 2)? {
                found.push(format!("{}@{}", block.labels.join("."), block.body.line()));
            }
        }
        Ok(found)
    }

    #[test]
    fn blocks_are_found_however_they_are_nested() {
        let text = r#"[
          {"source": {"a": {"one": {}, "two": [{},
             {}]}}},
          {"source": [{"a": [{"three": {}}]}, {"b": {"four": null}}],
           "source": {"c": {"five": {}}}}
        ]"#;
        assert_eq!(sources(text).unwrap(), ["a.one@2", "a.two@2", "a.two@3", "a.three@4", "c.five@5"]);
    }

    #[test]
    fn what_is_no_block_is_refused_with_its_place() {
        for (text, place) in [
            ("{\"source\":\n 5}", "a.pkr.json:2:2: "),
            ("{\"source\": {\"a\": {\"x\": [{}, \"y\"]}}}", "a.pkr.json:1:29: "),
            ("{\"source\": {\"a\": null}}", "a.pkr.json:1:18: "),
            ("5", "a.pkr.json:1:1: "),
        ] {
            let error = sources(text).unwrap_err().to_string();
            assert!(error.starts_with(place), "{error}");
        }
    }
}
