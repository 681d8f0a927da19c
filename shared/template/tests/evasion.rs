//! Templates that try to hide from [`local_execution`] what they do on the runner. Each class of them was one that Packer
//! takes, or may take, as its author meant it.

#![expect(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

use ciab_template::{Bundle, local_execution, read};

fn bundle(file: &str, text: &str) -> Bundle {
    let nested = "${\"${file(\"/etc/shadow\")}\"}";
    Bundle::from_files([(file, text), ("a.sh", ""), ("nested.tpl", nested)]).unwrap()
}

/// The one finding, in words.
#[track_caller]
fn finding(file: &str, text: &str) -> String {
    let found = local_execution(&bundle(file, text)).unwrap();
    assert_eq!(found.len(), 1, "{text}\n{found:#?}");
    found[0].what.clone()
}

#[track_caller]
fn no_finding(file: &str, text: &str) {
    assert_eq!(local_execution(&bundle(file, text)).unwrap(), [], "{text}");
}

const HCL: &str = "a.pkr.hcl";
const JSON: &str = "a.pkr.json";
const LEGACY: &str = "a.json";

/// Packer ends the heredoc at the first line, and builds what we would take for the heredoc's text. An empty one is enough.
#[test]
fn nothing_hides_in_a_heredoc_that_ends_sooner_for_packer() {
    for white_space in ["", "\u{c}", "\u{b}", "\u{a0}", "\u{2003}", " \u{85}"] {
        let text = format!(
            "locals {{\n  x = <<EOT\n{white_space}EOT\n}}\nbuild {{\n  provisioner \"shell-local\" {{}}\n}}\nlocals {{\n  \
             y = <<EOT\nEOT\n}}\n"
        );
        let error = local_execution(&bundle(HCL, &text)).unwrap_err();
        assert!(
            error.to_string().starts_with("a.pkr.hcl:2:7: it isn't clear where this heredoc ends"),
            "{error}"
        );
        assert_eq!(read(&bundle(HCL, &text)), Err(error), "{white_space:?}");
    }
}

/// Packer does not end the heredoc there, and takes for blocks what stands in our comment.
#[test]
fn nothing_hides_behind_a_heredoc_that_ends_later_for_packer() {
    for text in [
        "x = <<EOT\na\nEOT /*\nEOT\n}\nbuild {\n  provisioner \"shell-local\" {}\n}\n# */\n}\n",
        "x = upper(<<EOT\na\nEOT)\n}\n",
        "x = <<EOT\na\nEOT # x\n}\n",
    ] {
        let error = read(&bundle(HCL, &format!("locals {{\n  {text}"))).unwrap_err().to_string();
        assert!(error.contains("it isn't clear where this heredoc ends"), "{error}");
    }
}

#[test]
fn heredocs_as_people_write_them_are_read() {
    for heredoc in [
        "<<EOT\nEOT",
        "<<-EOT\n  a EOT\n  EOTS\n  ${x}\n  EOT",
        "<<EOT\r\na\r\nEOT\r",
        "<<A\n${<<B\nb\nB\n}\nA",
    ] {
        no_finding(HCL, &format!("locals {{\n  x = {heredoc}\n}}\n"));
        no_finding(HCL, &format!("locals {{\n  x = trim({heredoc}\n)\n}}\n"));
    }
}

#[test]
fn white_space_that_packer_takes_away_hides_no_path() {
    for path in [
        "\"  ${~ \"/etc/shadow\"}\"",
        "\". ${~ \"./x\"}\"",
        "\"${\".\" ~} ./x\"",
        "<<-EOT\n    ${\"/etc/shadow\" ~}\nEOT\n",
        "\" /etc/shadow\"",
    ] {
        let what = finding(HCL, &format!("locals {{\n  x = file({path})\n}}\n"));
        assert!(
            what.starts_with("the path in `file()` is computed") || what.starts_with("`file()` reads"),
            "{what}"
        );
    }
}

#[test]
fn calls_are_found_in_every_kind_of_expression() {
    for expression in [
        "[for name in [\"/etc/shadow\"] : file(name)]",
        "{ for k, v in {} : k => v if fileexists(\"/etc/shadow\") }",
        "{ (file(\"/x\")) = 1 }",
        "<<EOT\n${file(\"/proc/self/environ\")}\nEOT\n",
        "<<EOT\n%{ if file(\"/x\") == \"\" }a%{ else }b%{ endif }\nEOT\n",
        "<<EOT\n%{ for x in [1] }${file(\"/x\")}%{ endfor }\nEOT\n",
        "true ? 1 : -length(file(\"/x\"))",
        "a.b[file(\"/x\")].c[*].d",
        "jsondecode(file(\"/x\"))[\"a\"]",
        "merge({}, [file(\"/x\")]...)",
        "file(true ? \"/x\" : \"a.sh\")",
        "file(join(\"\", [\"/\", \"x\"]))",
        "file(\"\\u002fetc/shadow\")",
        "file(var.path)",
        "templatefile(local.path, {})",
        "templatefile(\"nested.tpl\", {})",
        "fileset(\".\", \"../../**\")",
        "fileset(\".\", var.pattern)",
        "fileset(\"/\", \"*\")",
    ] {
        finding(HCL, &format!("locals {{\n  x = {expression}\n}}\n"));
        finding(HCL, &format!("local \"x\" {{\n  expression = {expression}\n}}\n"));
        finding(HCL, &format!("variable \"x\" {{\n  default = {expression}\n}}\n"));
        let json = serde_json::to_string(&format!("${{{expression}}}")).unwrap();
        finding(JSON, &format!("{{\"locals\": [{{\"x\": [{json}]}}]}}"));
    }
}

/// A limit of our parser, a heredoc: whatever the reason is, a string that can't be read may call anything.
#[test]
fn an_expression_in_json_that_cannot_be_read_is_a_finding() {
    let deep = format!("${{{}file(\"/etc/shadow\"){}}}", "[".repeat(70), "]".repeat(70));
    let heredoc = "${<<EOT\n\u{c}EOT\n}${file(\"/etc/shadow\")}${<<EOT\nEOT\n}";
    for text in [deep.as_str(), heredoc, "${", "%{ if", "%{http_code}"] {
        let text = serde_json::to_string(text).unwrap();
        let what = finding(JSON, &format!("{{\"locals\": {{\"x\": {text}}}}}"));
        assert!(what.starts_with("an expression in this string can't be read"), "{what}");
    }
    no_finding(JSON, r#"{"locals": {"x": "100 % { a } $ {", "y": "$${a}"}}"#);
}

#[test]
fn an_override_computed_for_one_source_is_a_finding() {
    for value in [
        "{ \"amazon-ebs.x\" = jsondecode(\"{\\\"script\\\": \\\"/etc/shadow\\\"}\") }",
        "{ x = true ? var.a : {} }",
        "true ? { x = var.a } : {}",
    ] {
        let text = format!("build {{\n  provisioner \"shell\" {{\n    override = {value}\n  }}\n}}\n");
        let what = finding(HCL, &text);
        assert!(what.starts_with("`override` in provisioner \"shell\" is computed"), "{what}");
    }
    let json = r#"{"build": {"provisioner": [{"shell": [{"override": {"x": "${var.a}"}}]}]}}"#;
    finding(JSON, json);
    no_finding(HCL, "build {\n provisioner \"shell\" {\n  override = { x = { inline = var.a } }\n }\n}\n");
}

#[test]
fn blocks_are_found_in_every_shape_of_json() {
    for text in [
        r#"[{"build": [{"provisioner": [{"shell": {}}, {"shell-local": [{}, {}]}]}]}]"#,
        r#"{"build": {"provisioner": {"shell": {}}, "provisioner": {"shell-local": {}}}}"#,
        r#"{"build": {"post-processors": [[{"post-processor": {"shell-local": {}}}]]}}"#,
        r#"{"build": {"\u0070rovisioner": {"shell\u002dlocal": {}}}}"#,
        r#"{"build": {"dynamic": [{"provisioner": [{"labels": "${[\"shell-local\"]}", "content": {}}]}]}}"#,
        r#"{"build": {"source": [{"amazon-ebs.x": [{"user_data_file": "/x"}]}]}}"#,
        r#"{"source": [{"amazon-ebs": [{"x": [{"user_data_file": "/x"}]}]}]}"#,
        r#"{"source": {"amazon-ebs": {"x": {}}, "amazon-ebs": {"x": {"user_data_file": "/x"}}}}"#,
        r#"{"packer": [{"required_plugins": [{"amazon": [{"source": "github.com/x/amazon"}]}]}]}"#,
        r#"{"packer": {"required_plugins": {"x": "1.0"}}}"#,
        r#"{"packer": {"dynamic": {"required_plugins": {"content": {}}}}}"#,
        r#"{"packer": {"required_plugins": {"amazon": {"source": "github.com/hashicorp/amazon", "source": "x/y"}}}}"#,
    ] {
        finding(JSON, text);
    }
}

#[test]
fn the_source_of_a_plugin_is_found_however_its_name_is_written() {
    for key in ["(\"source\")", "\"source\"", "(lower(\"SOURCE\"))", "\"${\"source\"}\""] {
        let amazon = format!("{{ source = \"github.com/hashicorp/amazon\", {key} = \"github.com/x/y\" }}");
        finding(HCL, &format!("packer {{\n required_plugins {{\n  amazon = {amazon}\n }}\n}}\n"));
    }
}

/// Packer compares names in the older form as Go does, for which a long s is an s and the sign for Kelvin a k.
#[test]
fn names_in_the_older_form_are_found_in_every_spelling_that_packer_takes() {
    for part in [
        r#""provisioners": [{"type": "shell", "ſcript": "/x"}]"#,
        r#""proviſioners": [{"type": "shell-local"}]"#,
        r#""provisioners": [{"type": "ansible-local", "playboo\u212a_file": "/x"}]"#,
        r#""provisioners": [{"type": "shell", "Override": {"x": {"SCRIPTS": ["/x"]}}}]"#,
        r#""provisioners": [{"type": "{{user `t`}}"}]"#,
        r#""variables": {"a": "{{ `AWS_SESSION_TOKEN` | env | lower }}"}"#,
    ] {
        finding(LEGACY, &format!("{{\"builders\": [], {part}}}"));
    }
}

/// Provisioners would run there, with a password that the template's author chose.
#[test]
fn machines_other_than_the_build_instance_are_found() {
    for text in [
        "source \"null\" \"x\" {\n  ssh_host = \"127.0.0.1\"\n}\n",
        "source \"amazon-ebs\" \"x\" {\n  winrm_host = var.host\n}\n",
        "build {\n  source \"amazon-ebs.x\" {\n    ssh_host = \"10.0.0.1\"\n  }\n}\n",
        "build {\n  provisioner \"salt-masterless\" {\n    formulas = [\"git::https://example.com/x\"]\n  }\n}\n",
    ] {
        finding(HCL, text);
    }
}
