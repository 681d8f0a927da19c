//! What of a template would happen on the runner: each finding with its line, and nothing where there is none.

#![expect(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

use ciab_template::{Bundle, builtin, builtin_names, local_execution};

/// The findings in one file, each as `line: words`.
#[track_caller]
fn found_in(file: &str, text: &str) -> Vec<String> {
    let bundle =
        Bundle::from_files([(file, text), ("scripts/a.sh", ""), ("files/b.tpl", "${upper(name)}")]).unwrap();
    let findings = local_execution(&bundle).unwrap();
    findings
        .iter()
        .map(|finding| {
            assert_eq!(finding.file, file);
            finding.to_string().split_once(':').unwrap().1.to_owned()
        })
        .collect()
}

#[track_caller]
fn hcl(text: &str) -> Vec<String> {
    found_in("image.pkr.hcl", text)
}

/// Each text must give exactly these findings, of which the beginning of each is given.
#[track_caller]
fn judge(file: &str, cases: &[(&str, &[&str])]) {
    let mut wrong = Vec::new();
    for (text, expected) in cases {
        let found = found_in(file, text);
        let same = found.len() == expected.len()
            && found.iter().zip(*expected).all(|(found, expected)| found.starts_with(expected));
        if !same {
            wrong.push(format!("{text}\n  gave {found:#?}\n  instead of {expected:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_builtin_templates_run_nothing_on_the_runner() {
    for name in builtin_names() {
        assert_eq!(local_execution(&builtin(name).unwrap()).unwrap(), [], "{name}");
    }
}

#[test]
fn a_finding_says_where_and_what() {
    let bundle =
        Bundle::from_inline("build {\n  provisioner \"shell-local\" {\n    inline = [\"id\"]\n  }\n}\n");
    let found = local_execution(&bundle).unwrap();
    assert_eq!(found[0].to_string(), "template.pkr.hcl:2: provisioner \"shell-local\" runs on the runner");
}

#[test]
fn a_usual_template_has_no_finding() {
    let template = r#"
        packer {
          required_version = ">= 1.7"
          required_plugins {
            amazon = {
              source  = "github.com/hashicorp/amazon"
              version = "~> 1"
            }
          }
        }
        variable "user" { default = env("USER") }
        variable "path" { default = env("HOME") }
        variable "where" { default = env("AWS_REGION") }
        locals {
          script = file("scripts/a.sh")
          again  = file("${path.root}/scripts/a.sh")
          third  = file("${path.cwd}/scripts/a.sh")
          all    = fileset(path.root, "*.sh")
          text   = templatefile("${path.root}/files/b.tpl", { name = "x" })
          key    = sha256(join(",", [for name in ["a"] : upper(name)]))
        }
        data "amazon-ami" "base" {
          filters = { name = "ubuntu/*" }
          owners  = ["099720109477"]
        }
        data "amazon-parameterstore" "base" { name = "/aws/service/ami-amazon-linux-latest/al2023" }
        source "amazon-ebs" "x" {
          user_data_file       = "scripts/a.sh"
          ssh_private_key_file = ""
          dynamic "tag" {
            for_each = { a = "b" }
            content { key = tag.key }
          }
        }
        source "null" "y" { communicator = "none" }
        build {
          name    = "x"
          sources = ["source.amazon-ebs.x"]
          source "source.amazon-ebs.x" { ami_name = "x-${local.key}" }
          hcp_packer_registry { bucket_name = "x" }
          provisioner "shell" {
            inline          = ["cat /etc/passwd", "cd .. && ls ~"]
            execute_command = "sudo {{ .Vars }} bash {{ .Path }}"
            remote_path     = "/tmp/x"
            script          = var.user == "" ? "scripts/a.sh" : "./scripts/a.sh"
            override = {
              "amazon-ebs.x" = { scripts = ["scripts/a.sh"] }
            }
          }
          provisioner "file" {
            source      = "${path.root}/files"
            destination = "/etc/x"
          }
          provisioner "file" {
            direction   = "download"
            source      = "files"
            destination = "out/x.log"
          }
          provisioner "breakpoint" { disable = true }
          dynamic "provisioner" {
            for_each = ["a"]
            labels   = ["shell"]
            content { inline = [provisioner.value] }
          }
          error-cleanup-provisioner "shell" { inline = ["true"] }
          post-processor "manifest" { output = "manifest.json" }
          post-processors {
            post-processor "artifice" { files = ["out/x"] }
            post-processor "checksum" { output = "{{.ChecksumType}}.txt" }
            post-processor "compress" { output = "x.tar.gz" }
          }
        }
    "#;
    assert_eq!(hcl(template), Vec::<String>::new());
}

#[test]
fn what_runs_on_the_runner_is_found_wherever_it_stands() {
    judge(
        "image.pkr.hcl",
        &[
            (
                "build {\n provisioner \"shell-local\" {}\n}",
                &["2: provisioner \"shell-local\" runs on the runner"],
            ),
            ("build {\n\n provisioner \"ansible\" {}\n}", &["3: provisioner \"ansible\" is not known"]),
            (
                "build {\n error-cleanup-provisioner \"shell-local\" {}\n}",
                &["2: error-cleanup-provisioner \"shell-local\""],
            ),
            ("build {\n post-processor \"shell-local\" {}\n}", &["2: post-processor \"shell-local\" runs"]),
            (
                "build {\n post-processor \"docker-push\" {}\n}",
                &["2: post-processor \"docker-push\" is not known"],
            ),
            (
                "build {\n post-processors {\n  post-processor \"manifest\" {}\n  post-processor \"shell-local\" {}\n }\n}",
                &["4: post-processor \"shell-local\" runs"],
            ),
            (
                "build {\n dynamic \"provisioner\" {\n  labels = [\"shell-local\"]\n  content {}\n }\n}",
                &["2: provisioner \"shell-local\" runs"],
            ),
            (
                "build {\n dynamic \"provisioner\" {\n  labels = [var.x]\n  content {}\n }\n}",
                &["2: the type of a provisioner is computed"],
            ),
            (
                "build {\n dynamic \"provisioner\" {\n  content {}\n }\n}",
                &["2: the type of a provisioner is computed"],
            ),
            (
                "build {\n dynamic \"post-processors\" {\n  content {\n   post-processor \"shell-local\" {}\n  }\n }\n}",
                &["4: post-processor \"shell-local\" runs"],
            ),
            ("build {\n dynamic \"x\" {\n  content {}\n }\n}", &["2: `dynamic \"x\"` is not known"]),
            ("build {\n x {}\n}", &["2: `x` in a build is not known"]),
            ("\nx {}", &["2: `x` is not known"]),
            (
                "source \"amazon-chroot\" \"x\" {}",
                &["1: source \"amazon-chroot\" builds on the runner itself"],
            ),
            ("source \"docker\" \"x\" {}", &["1: source \"docker\" is not known"]),
            (
                "source \"virtualbox-iso\" \"x\" {}\nsource \"qemu\" \"y\" {}",
                &["1: source \"virtual", "2: source \"qemu\""],
            ),
            (
                "data \"http\" \"x\" { url = \"http://169.254.170.2/\" }",
                &["1: data \"http\" asks any server"],
            ),
            ("data \"external\" \"x\" {}", &["1: data \"external\" is not known"]),
            (
                "data \"amazon-secretsmanager\" \"x\" {}",
                &["1: data \"amazon-secretsmanager\" reads a secret"],
            ),
            (
                "data \"amazon-parameterstore\" \"x\" { name = \"/ours\" }",
                &["1: data \"amazon-parameterstore\" reads a"],
            ),
            (
                "data \"amazon-parameterstore\" \"x\" { name = var.x }",
                &["1: data \"amazon-parameterstore\" reads a"],
            ),
            (
                "packer {\n required_plugins {\n  amazon = {\n   source = \"github.com/else/amazon\"\n  }\n }\n}",
                &["3: the plugin `github.com/else/amazon` is a program"],
            ),
            (
                "packer {\n required_plugins {\n  ansible = \"1.0\"\n }\n}",
                &["3: the plugin `ansible` is a program"],
            ),
            (
                "packer {\n required_plugins {\n  x = { source = \"github.com/hashicorp/${var.x}\" }\n }\n}",
                &["3: the plugin `one that is computed`"],
            ),
        ],
    );
}

#[test]
fn what_reaches_the_runners_files_is_found() {
    judge(
        "image.pkr.hcl",
        &[
            (
                "build {\n provisioner \"file\" {\n  source = \"/etc/shadow\"\n }\n}",
                &["3: provisioner \"file\" names `/etc/shadow` on the runner's disk: it is absolute"],
            ),
            (
                "build {\n provisioner \"file\" {\n  sources = [\n   \"files\",\n   \"../x\",\n  ]\n }\n}",
                &["5: provisioner \"file\" names `../x`"],
            ),
            (
                "build {\n provisioner \"file\" {\n  source = \"${path.root}/../x\"\n }\n}",
                &["3: provisioner \"file\" names `./../x`"],
            ),
            (
                "build {\n provisioner \"file\" {\n  source = var.path\n }\n}",
                &["3: `source` in provisioner \"file\" is computed"],
            ),
            (
                "build {\n provisioner \"file\" {\n  source = \"files/${var.path}\"\n }\n}",
                &["3: `source` in provisioner \"file\" is computed"],
            ),
            (
                "build {\n provisioner \"file\" {\n  direction = \"download\"\n  source = \"x\"\n  destination = \"/root/x\"\n }\n}",
                &["5: provisioner \"file\" names `/root/x`"],
            ),
            (
                "build {\n provisioner \"file\" {\n  direction = var.x\n  destination = \"/root/x\"\n }\n}",
                &["4: provisioner \"file\" names `/root/x`"],
            ),
            (
                "build {\n provisioner \"shell\" {\n  script = \"~/x.sh\"\n }\n}",
                &["3: provisioner \"shell\" names `~/x.sh`"],
            ),
            (
                "build {\n provisioner \"shell\" {\n  scripts = [for name in var.x : \"${name}.sh\"]\n }\n}",
                &["3: `scripts` in provisioner \"shell\" is computed"],
            ),
            (
                "build {\n provisioner \"shell\" {\n  script = var.x ? \"a.sh\" : \"/x.sh\"\n }\n}",
                &["3: provisioner \"shell\" names `/x.sh`"],
            ),
            (
                "build {\n provisioner \"shell\" {\n  override = {\n   \"x\" = { script = \"/x.sh\" }\n  }\n }\n}",
                &["4: provisioner \"shell\" names `/x.sh`"],
            ),
            (
                "build {\n provisioner \"shell\" {\n  override = {\n   \"x\" = { (var.y) = \"/x.sh\" }\n  }\n }\n}",
                &["4: provisioner \"shell\" names `/x.sh`"],
            ),
            (
                "build {\n provisioner \"shell\" {\n  override = var.x\n }\n}",
                &["3: `override` in provisioner \"shell\" is computed"],
            ),
            (
                "build {\n provisioner \"ansible-local\" {\n  playbook_file = \"/x\"\n }\n}",
                &["3: provisioner \"ansible-local\" names `/x`"],
            ),
            (
                "build {\n provisioner \"salt-masterless\" {\n  local_state_tree = \"/\"\n }\n}",
                &["3: provisioner \"salt-masterless\" names `/`"],
            ),
            (
                "build {\n post-processor \"manifest\" {\n  output = \"/x\"\n }\n}",
                &["3: post-processor \"manifest\" names `/x`"],
            ),
            (
                "build {\n post-processor \"artifice\" {\n  files = [\"/x\"]\n }\n}",
                &["3: post-processor \"artifice\" names `/x`"],
            ),
            (
                "source \"amazon-ebs\" \"x\" {\n user_data_file = \"/proc/self/environ\"\n}",
                &["2: source \"amazon-ebs\" names `/proc/self/environ`"],
            ),
            (
                "source \"amazon-ebs\" \"x\" {\n ssh_private_key_file = pathexpand(\"~/.ssh/id_rsa\")\n}",
                &["2: `ssh_private_key_file` in source \"amazon-ebs\" is computed"],
            ),
            (
                "build {\n source \"amazon-ebs.x\" {\n  user_data_file = \"/x\"\n }\n}",
                &["3: source \"amazon-ebs.x\" names `/x`"],
            ),
            (
                "build {\n dynamic \"source\" {\n  labels = [\"amazon-ebs.x\"]\n  content {\n   user_data_file = \"/x\"\n  }\n }\n}",
                &["5: source \"dynamic\" names `/x`"],
            ),
            (
                "source \"amazon-ebs\" \"x\" {\n ssh_remote_tunnels = [\"80:169.254.170.2:80\"]\n}",
                &["2: `ssh_remote_tunnels` in source \"amazon-ebs\" opens the runner's network"],
            ),
            (
                "source \"amazon-ebs\" \"x\" {\n vault_aws_engine {\n  name = \"x\"\n }\n}",
                &["2: `vault_aws_engine` in source \"amazon-ebs\" asks another service"],
            ),
            ("source \"file\" \"x\" {\n target = \"/root/x\"\n}", &["2: source \"file\" names `/root/x`"]),
        ],
    );
}

#[test]
fn functions_that_reach_the_runner_are_found_wherever_they_are_called() {
    judge(
        "image.pkr.hcl",
        &[
            (
                "locals {\n x = file(\"/etc/shadow\")\n}",
                &["2: `file()` reads `/etc/shadow` on the runner: it is absolute"],
            ),
            ("locals {\n x = base64encode(file(\"~/x\"))\n}", &["2: `file()` reads `~/x`"]),
            ("locals {\n x = \"a ${file(\"../x\")} b\"\n}", &["2: `file()` reads `../x`"]),
            ("locals {\n x = <<EOT\n${file(\"../x\")}\nEOT\n}", &["3: `file()` reads `../x`"]),
            ("locals {\n x = file(var.x)\n}", &["2: the path in `file()` is computed"]),
            (
                "locals {\n x = [for name in fileset(\"/etc\", \"*\") : file(name)]\n}",
                &["2: `fileset()`", "2: the path in"],
            ),
            ("locals {\n x = filebase64(\"/x\")\n}", &["2: `filebase64()` reads `/x`"]),
            ("locals {\n x = templatefile(\"/x\", {})\n}", &["2: `templatefile()` reads `/x`"]),
            (
                "locals {\n x = templatefile(\"files/none\", {})\n}",
                &["2: `templatefile()` renders `files/none`, which the"],
            ),
            ("locals {\n x = vault(\"/x\", \"y\")\n}", &["2: `vault()` asks another service"]),
            ("locals {\n x = consul_key(\"x\")\n}", &["2: `consul_key()` asks another service"]),
            (
                "locals {\n x = aws_secretsmanager(\"x\", null)\n}",
                &["2: `aws_secretsmanager()` reads a secret"],
            ),
            (
                "variable \"x\" {\n default = env(\"AWS_SECRET_ACCESS_KEY\")\n}",
                &["2: `env(AWS_SECRET_ACCESS_KEY)` reads"],
            ),
            ("variable \"x\" {\n default = env(\"HTTPS_PROXY\")\n}", &["2: `env(HTTPS_PROXY)` reads"]),
            (
                "variable \"x\" {\n default = env(\"PACKER_GITHUB_API_TOKEN\")\n}",
                &["2: `env(PACKER_GITHUB_API_TOKEN)`"],
            ),
            (
                "variable \"x\" {\n default = env(var.y)\n}",
                &["2: `env()` reads a variable of the runner whose name"],
            ),
            (
                "build {\n provisioner \"shell\" {\n  inline = [file(\"/x\")]\n }\n}",
                &["3: `file()` reads `/x`"],
            ),
        ],
    );
}

#[test]
fn a_file_that_is_rendered_is_looked_into() {
    let bundle = Bundle::from_files([
        ("a.pkr.hcl", "locals {\n  x = templatefile(\"x.tpl\", {})\n}\n"),
        ("x.tpl", "a\n${file(\"/proc/self/environ\")}\n"),
    ])
    .unwrap();
    let found = local_execution(&bundle).unwrap();
    assert_eq!(found.len(), 1);
    assert!(
        found[0]
            .to_string()
            .starts_with("a.pkr.hcl:2: `templatefile()` renders `x.tpl`, in which `file()` reads `/proc/"),
        "{}",
        found[0]
    );
}

#[test]
fn hcl2_in_json_is_judged_by_the_same_rules() {
    judge(
        "image.pkr.json",
        &[
            (r#"{"build": {"provisioner": {"shell": {"inline": ["id"], "script": "scripts/a.sh"}}}}"#, &[]),
            (
                "{\n\"build\": [{\n\"provisioner\": [{\n\"shell-local\": {}}]}]}",
                &["4: provisioner \"shell-local\" runs on the runner"],
            ),
            (
                "{\"build\": {\n\"provisioner\": {\"shell\": [{}, {\n\"script\": \"/x\"}]}}}",
                &["3: provisioner \"shell\" names `/x`"],
            ),
            (
                "{\"build\": {\"dynamic\": {\n\"provisioner\": {\"labels\": [\"shell-local\"], \"content\": {}}}}}",
                &["2: provisioner \"shell-local\" runs"],
            ),
            (
                "{\"locals\": {\n\"x\": \"${file(\\\"/etc/shadow\\\")}\"}}",
                &["2: `file()` reads `/etc/shadow`"],
            ),
            ("{\"locals\": {\n\"${file(\\\"/x\\\")}\": 1}}", &["2: `file()` reads `/x`"]),
            ("{\"build\": {\"provisioner\": {\"file\": {\n\"source\": \"${path.root}/files\"}}}}", &[]),
            (
                "{\"build\": {\"provisioner\": {\"file\": {\n\"source\": \"${var.x}\"}}}}",
                &["2: `source` in provisioner \"file\" is computed"],
            ),
            ("{\"source\": {\n\"amazon-chroot\": {\"x\": {}}}}", &["2: source \"amazon-chroot\" builds"]),
            (
                "{\"source\": {\"amazon-ebs\": {\"x\": {\n\"user_data_file\": \"/x\"}}}}",
                &["2: source \"amazon-ebs\" names"],
            ),
            (
                "{\"packer\": {\"required_plugins\": {\n\"x\": {\"source\": \"github.com/x/y\"}}}}",
                &["2: the plugin `github.com/x/y`"],
            ),
            ("[{\"//\": \"comment\"}, {\n\"builders\": []}]", &["2: `builders` is not known"]),
        ],
    );
}

#[test]
fn the_form_before_hcl2_is_judged_by_the_same_rules() {
    judge(
        "image.json",
        &[
            (
                r#"{"_comment": "x", "description": "x", "min_packer_version": "1.0", "sensitive-variables": ["x"],
                    "variables": {"home": "{{env `HOME`}}", "region": "{{env `AWS_REGION`}}"},
                    "builders": [{"type": "amazon-ebs", "ami_name": "x {{timestamp}}", "user_data_file": "scripts/a.sh"}],
                    "provisioners": [{"type": "shell", "script": "{{template_dir}}/scripts/a.sh"}],
                    "post-processors": ["manifest", [{"type": "manifest", "output": "x.json"}, "compress"]]}"#,
                &[],
            ),
            (
                "{\"builders\": [\n{\"type\": \"amazon-chroot\"}]}",
                &["2: builder \"amazon-chroot\" builds on the runner"],
            ),
            ("{\"builders\": [\n{}]}", &["2: the type of a builder is computed"]),
            (
                "{\"builders\": [], \"provisioners\": [\n{\"type\": \"shell-local\"}]}",
                &["2: provisioner \"shell-local\" runs"],
            ),
            (
                "{\"Builders\": [], \"Provisioners\": [\n{\"Type\": \"shell\",\n\"Script\": \"/x\"}]}",
                &["3: provisioner \"shell\" names `/x`"],
            ),
            (
                "{\"builders\": [], \"provisioners\": [\n{\"type\": \"shell\", \"type\": \"shell-local\"}]}",
                &["2: the type of a provisioner is computed"],
            ),
            (
                "{\"builders\": [],\n\"error-cleanup-provisioner\": {\"type\": \"shell-local\"}}",
                &["2: error-cleanup-provisioner \"shell-local\" runs"],
            ),
            (
                "{\"builders\": [], \"post-processors\": [\n\"vagrant\", [\n{\"type\": \"shell-local\"}]]}",
                &["2: post-processor \"vagrant\" is not known", "3: post-processor \"shell-local\" runs"],
            ),
            (
                "{\"builders\": [], \"provisioners\": [{\"type\": \"file\",\n\"source\": \"{{user `path`}}\"}]}",
                &["2: provisioner \"file\" names `{{user `path`}}`"],
            ),
            (
                "{\"builders\": [], \"variables\": {\n\"x\": \"{{env `AWS_SECRET_ACCESS_KEY`}}\"}}",
                &["2: `env(AWS_SECRET_ACCESS_KEY)` reads"],
            ),
            (
                "{\"builders\": [], \"variables\": {\n\"x\": \"{{ vault `/a` `b` }}\",\n\"y\": \"{{consul_key `a`}}\"}}",
                &["2: `vault` asks", "3: `consul_key` asks"],
            ),
            (
                "{\"builders\": [], \"variables\": {\n\"x\": \"{{ aws_secretsmanager `a` | upper }}\"}}",
                &["2: `aws_secretsmanager` reads a secret"],
            ),
            ("{\"builders\": [],\n\"push\": {}}", &["2: `push` is not known"]),
            (r#"{"scripts": {"test": "{{env `AWS_SECRET_ACCESS_KEY`}}"}}"#, &[]),
        ],
    );
}

#[test]
fn files_that_packer_takes_for_plugins_are_found() {
    for path in [
        "packer-provisioner-shell",
        "packer-builder-amazon-ebs",
        "packer-post-processor-x",
        "packer-plugin-amazon_v1_x5.0_linux_amd64",
        "packer-datasource-x",
        ".packer.d/plugins/x",
        "a/.packerconfig",
    ] {
        let bundle = Bundle::from_files([("a.pkr.hcl", "build {}\n"), (path, "")]).unwrap();
        let found = local_execution(&bundle).unwrap();
        assert_eq!(found.iter().map(|found| found.file.as_str()).collect::<Vec<_>>(), [path]);
    }
}

#[test]
fn json_beside_hcl2_is_not_read_as_a_template() {
    let legacy = r#"{"builders": [{"type": "docker"}]}"#;
    let bundle = Bundle::from_files([("a.pkr.hcl", "build {}\n"), ("b.json", legacy)]).unwrap();
    assert_eq!(local_execution(&bundle).unwrap(), []);
    let bundle = Bundle::from_files([("b.json", legacy)]).unwrap();
    assert_eq!(local_execution(&bundle).unwrap().len(), 1);
}

#[test]
fn what_cannot_be_parsed_is_an_error_with_its_place() {
    for (file, text, place) in [
        ("a.pkr.hcl", "build {\n", "a.pkr.hcl:"),
        ("a.pkr.json", "{\n\"build\": x}", "a.pkr.json:2:"),
        ("a.json", "{\n\"builders\":", "a.json:2:"),
        ("a.pkr.json", &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)), "a.pkr.json:1:"),
    ] {
        let error = local_execution(&Bundle::from_files([(file, text)]).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with(place), "{error}");
    }
}

/// As deep as the parsers go: a stack that overflows ends the test's process.
#[test]
fn deep_nesting_is_answered() {
    let fors = |depth: usize| format!("{}1{}", "[for a in b : ".repeat(depth), "]".repeat(depth));
    let lists = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    for depth in [1, 30, 60, 64, 100, 10_000] {
        for expression in [fors(depth), lists(depth)] {
            for (file, text) in [
                ("a.pkr.hcl", format!("locals {{\n  x = {expression}\n}}\n")),
                ("a.pkr.json", format!("{{\"locals\": {{\"x\": \"${{{expression}}}\"}}}}")),
                ("a.pkr.json", format!("{{\"locals\": {{\"x\": {}}}}}", lists(depth))),
                ("a.json", format!("{{\"builders\": {}}}", lists(depth))),
            ] {
                let answer = local_execution(&Bundle::from_files([(file, text)]).unwrap());
                assert!(depth > 60 || answer.is_ok(), "{file}, {depth} deep: {answer:?}");
            }
            let values = ciab_template::read_variable_file("x.hcl", format!("x = {expression}\n").as_bytes());
            assert_eq!(values.is_ok(), depth <= 64 && expression == lists(depth), "{depth} deep: {values:?}");
        }
    }
}
