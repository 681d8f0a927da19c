//! Every value that a caller can give to a builtin template is checked twice before a shell sees it: by Packer, and by the
//! script on the instance.

#![expect(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

use ciab_template::{builtin, builtin_names, read};
use hcl_edit::structure::Body;

/// The conditions that a variable's `validation` blocks state, as text.
fn conditions(text: &str, variable: &str) -> Vec<String> {
    let body: Body = text.parse().unwrap();
    let blocks = body
        .get_blocks("variable")
        .filter(|block| block.labels.iter().any(|label| label.as_str() == variable));
    blocks
        .flat_map(|block| block.body.get_blocks("validation"))
        .filter_map(|validation| validation.body.get_attribute("condition"))
        .map(|condition| condition.value.to_string())
        .collect()
}

#[test]
fn every_string_variable_is_held_to_a_pattern_or_a_list() {
    let mut looked_at = 0;
    for name in builtin_names() {
        let bundle = builtin(name).unwrap();
        for variable in read(&bundle).unwrap().variables {
            match variable.type_text.as_deref() {
                // Nothing but true and false passes Packer.
                Some("bool" | "number") => continue,
                Some("string") => {}
                other => panic!("{name}: the variable {} has the type {other:?}", variable.name),
            }
            let text = std::str::from_utf8(bundle.get(&variable.file).unwrap()).unwrap();
            let conditions = conditions(text, &variable.name);
            let given = format!("var.{}", variable.name);
            let is_held = conditions.iter().any(|condition| {
                let by_pattern = condition.contains(&format!("regex_replace({given}, \"^"))
                    && condition.contains("$\", \"\") == \"\"");
                let by_list = condition.contains("contains([") && condition.contains(&format!("], {given})"));
                by_pattern || by_list
            });
            assert!(is_held, "{name}: nothing holds {} to a pattern: {conditions:?}", variable.name);
            looked_at += 1;
        }
    }
    assert!(looked_at >= 15, "{looked_at}");
}

/// A variable reaches the instance as an environment variable, and `values.sh` has to know each of them.
#[test]
fn every_value_that_reaches_the_instance_is_checked_there_again() {
    let bundle = builtin("default-ec2").unwrap();
    let file = |path: &str| std::str::from_utf8(bundle.get(path).unwrap()).unwrap();
    let values = file("provision/values.sh");
    let handed_on: Vec<_> = file("default-ec2.pkr.hcl")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("\"CIAB_")?.split_once('='))
        .collect();
    assert!(handed_on.len() >= 15, "{handed_on:?}");
    for (name, value) in handed_on {
        let checked = values.contains(&format!("check_value CIAB_{name} "))
            || (name == "BASE_IMAGE"
                && values.contains("[[ \"${CIAB_BASE_IMAGE:-}\" =~ ^ami-[0-9a-f]{8,17}$ ]]"));
        assert!(checked, "values.sh does not check CIAB_{name}, which is {value}");
    }
}

/// In double quotes, inside of `[[ … ]]` or `(( … ))`, or in the two places that split a value that has been checked.
#[test]
fn no_script_uses_a_value_outside_of_quotes() {
    let bundle = builtin("default-ec2").unwrap();
    let mut uses = 0;
    for (path, bytes) in bundle.files().filter(|(path, _)| path.ends_with(".sh")) {
        for (index, line) in std::str::from_utf8(bytes).unwrap().lines().enumerate() {
            let code = line.trim_start();
            if code.starts_with('#') {
                continue;
            }
            for (at, _) in code.match_indices("${CIAB_") {
                uses += 1;
                // Inside of `$(…)` quotes begin anew.
                let before = &code[..at];
                let inner = before.rfind("$(").filter(|open| !before[*open..].contains(')'));
                let before = &before[inner.unwrap_or(0)..];
                let quotes = before.matches('"').count() - before.matches("\\\"").count();
                let quoted = quotes % 2 == 1;
                let tested = code[..at].contains("((") && code[at..].contains("))");
                let split = code.starts_with("for name in ${CIAB_EXTRA_PACKAGES//,/ }");
                assert!(quoted || tested || split, "{path}:{}: {line}", index + 1);
            }
        }
    }
    assert!(uses >= 20, "{uses}");
}
