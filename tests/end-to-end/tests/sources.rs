//! Builds whose templates come from everywhere: other people's servers over https and git, uploads, and requests, in every
//! form that Packer reads.
//!
//! The servers are on loopback, with certificates of an authority that the stack's functions trust, as an operator's own
//! servers would be. One stack for all: the builds make images of instances that nobody connects to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use end_to_end::{Scene, templates};
use local_stack::{JsonApi, StackParts};
use serde_json::{Value, json};
use template_server::authority::Authority;
use template_server::repositories::{self, Repository};
use template_server::server::{self, Answer, Request, ok, status};

const TOKEN: &str = "s3cret-token";

/// A legacy template, which Packer must be given by its file.
const LEGACY: &str = r#"{
  "variables": {"region": null, "name": "legacy"},
  "builders": [{
    "type": "amazon-ebs",
    "region": "{{user `region`}}",
    "instance_type": "t3.medium",
    "ami_name": "end-to-end-{{user `name`}}-{{uuid}}",
    "communicator": "none",
    "source_ami_filter": {
      "filters": {"name": "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-*", "virtualization-type": "hvm"},
      "owners": ["099720109477"],
      "most_recent": true
    }
  }]
}
"#;

/// The same in HCL2's JSON syntax.
const HCL2_JSON: &str = r#"{
  "variable": {"region": {"type": "string"}},
  "source": {"amazon-ebs": {"test": {
    "region": "${var.region}",
    "instance_type": "t3.medium",
    "ami_name": "end-to-end-json-{{uuid}}",
    "communicator": "none",
    "source_ami_filter": {
      "filters": {"name": "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-*", "virtualization-type": "hvm"},
      "owners": ["099720109477"],
      "most_recent": true
    }
  }}},
  "build": {"sources": ["source.amazon-ebs.test"]}
}
"#;

/// Two AMIs of one build.
fn two_sources() -> String {
    let one = templates::without_communicator();
    let (variable, rest) = one.split_once("source \"").unwrap_or_default();
    let (source, _) = rest.split_once("\nbuild {").unwrap_or_default();
    let other = source.replacen("\"test\"", "\"other\"", 1);
    format!(
        "{variable}source \"{source}\nsource \"{other}\nbuild {{\n  sources = [\"source.amazon-ebs.test\", \"source.amazon-ebs.other\"]\n}}\n"
    )
}

/// What other people serve, and what they were asked.
struct Servers {
    authority: Authority,
    files: BTreeMap<&'static str, Vec<u8>>,
    repository: Repository,
    commit: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Servers {
    fn new() -> Self {
        let template = templates::without_communicator();
        let files = BTreeMap::from([
            ("/image.pkr.hcl", template.clone().into_bytes()),
            ("/image.pkr.json", HCL2_JSON.as_bytes().to_vec()),
            ("/legacy.json", LEGACY.as_bytes().to_vec()),
            (
                "/bundle.tar.gz",
                tarball(&[("image-main/build.pkr.hcl", &template), ("image-main/README", "x")]),
            ),
            ("/private/image.pkr.hcl", template.clone().into_bytes()),
            ("/local.pkr.hcl", with_local_execution().into_bytes()),
            ("/demanding.pkr.hcl", format!("variable \"needed\" {{}}\n{template}").into_bytes()),
        ]);
        let repository = Repository::create();
        repository.write("packer/image.pkr.hcl", &template);
        repository.write("packer/other.pkr.hcl", "this is no HCL {{{");
        repository.write("legacy/image.json", LEGACY);
        let commit = repository.commit();
        repository.git(&["tag", "v1"]);
        Self { authority: Authority::create(), files, repository, commit, asked: Arc::default() }
    }

    /// Where they answer: a host and a port.
    fn start(&self) -> String {
        let (files, repository, asked) = (self.files.clone(), self.repository.path(), self.asked.clone());
        let answer = move |request: &Request| answer(&files, &repository, &asked, request);
        server::tls(self.authority.server(&["127.0.0.1"]), answer).to_string()
    }

    fn asked_for(&self, target: &str) -> usize {
        let asked = self.asked.lock().map(|asked| asked.clone()).unwrap_or_default();
        asked.iter().filter(|one| one.as_str() == target).count()
    }
}

fn answer(
    files: &BTreeMap<&'static str, Vec<u8>>,
    repository: &Path,
    asked: &Mutex<Vec<String>>,
    request: &Request,
) -> Answer {
    if let Ok(mut asked) = asked.lock() {
        asked.push(format!("{}{}", request.target, request.header("if-none-match").unwrap_or_default()));
    }
    if request.target.contains(".git/") {
        return repositories::answer(repository, request, true);
    }
    let authorized = request.header("authorization") == Some(&format!("Bearer {TOKEN}"));
    if request.target.starts_with("/private/") && !authorized {
        return status(401);
    }
    match files.get(request.target.as_str()) {
        Some(_) if request.header("if-none-match") == Some("\"v1\"") => {
            Answer::Plain { status: 304, headers: Vec::new(), body: Vec::new() }
        }
        Some(bytes) => ok(bytes.clone()).with("ETag", "\"v1\""),
        None => status(404),
    }
}

fn with_local_execution() -> String {
    let template = templates::without_communicator();
    let end = template.rfind('}').unwrap_or(template.len());
    format!("{}  provisioner \"shell-local\" {{\n    inline = [\"env\"]\n  }}\n}}\n", &template[..end])
}

fn tarball(files: &[(&str, &str)]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut tar = tar::Builder::new(gzip);
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, text.as_bytes()).expect("pack a template");
    }
    tar.into_inner().and_then(flate2::write::GzEncoder::finish).expect("pack a template")
}

/// Starts a build of this template.
fn start(scene: &Scene, template: &Value) -> Result<String> {
    let field = if template.is_string() { "template_source" } else { "template" };
    scene
        .start_build(&json!({"provider": "codex", "force": true, field: template}))
        .with_context(|| template.to_string())
}

fn succeeded(scene: &Scene, id: &str, source: &Value) -> Result<Value> {
    let build = scene.ended(id)?;
    ensure!(build["status"] == "succeeded", "{source}: {build:#}");
    ensure!(build["template"]["digest"].as_str().is_some_and(|digest| digest.len() == 71), "{build:#}");
    Ok(build)
}

#[test]
fn templates_build_from_every_source_in_every_form() -> Result<()> {
    let servers = Servers::new();
    let host = servers.start();
    let folder = tempfile::tempdir()?;
    let certificates = folder.path().join("authority.pem");
    fs::write(&certificates, servers.authority.root_pem())?;
    let parts = StackParts { root_filesystem: None, ..StackParts::from_environment()? };
    let credentials = format!("TemplateCredentials={{\"{host}\": \"/ciab/token\"}}");
    let trusted = format!("TrustedTemplateHosts={host}");
    let certificates = certificates.display().to_string();
    let arguments =
        ["--poll-interval", "2", "--certificates", &certificates, "--set", &trusted, "--set", &credentials];
    let scene = Scene::start(&parts, &arguments)?;
    let outcome = (|| {
        let parameter = json!({"Name": "/ciab/token", "Value": TOKEN, "Type": "SecureString"});
        JsonApi::new(scene.aws_endpoint_url())?.call("ssm", "AmazonSSM.PutParameter", &parameter)?;
        every_source(&scene, &servers, &host)?;
        what_is_wrong_is_said_by_the_first_step(&scene, &host)?;
        what_has_not_changed_is_not_fetched_again(&scene, &servers, &host)?;
        a_folder_is_uploaded(&scene, folder.path())?;
        all_images_of_a_build_go_together(&scene)
    })();
    scene.end(outcome)
}

fn every_source(scene: &Scene, servers: &Servers, host: &str) -> Result<()> {
    let git = format!("git::https://{host}/template.git");
    let sources = [
        json!(format!("https://{host}/image.pkr.hcl")),
        json!(format!("https://{host}/image.pkr.json")),
        json!({"type": "url", "url": format!("https://{host}/legacy.json")}),
        json!(format!("https://{host}/bundle.tar.gz")),
        json!(format!("https://{host}/private/image.pkr.hcl")),
        json!(format!("{git}//packer/image.pkr.hcl?ref=main")),
        json!(format!("{git}//legacy?ref=v1")),
        json!({"type": "git", "url": format!("https://{host}/template.git"), "path": "packer/image.pkr.hcl", "ref": servers.commit}),
        json!({"type": "inline", "content": templates::without_communicator()}),
        json!({"type": "inline", "content": HCL2_JSON}),
        json!({"type": "inline", "content": LEGACY}),
    ];
    let started: Vec<(String, &Value)> =
        sources.iter().map(|source| Ok((start(scene, source)?, source))).collect::<Result<_>>()?;
    for (id, source) in &started {
        let build = succeeded(scene, id, source)?;
        ensure!(!build.to_string().contains(TOKEN), "{build:#}");
        let log = scene.log(id)?.join("\n");
        ensure!(!log.contains(TOKEN), "the token is in the log");
    }
    Ok(())
}

fn what_is_wrong_is_said_by_the_first_step(scene: &Scene, host: &str) -> Result<()> {
    for (source, says) in [
        (format!("https://{host}/local.pkr.hcl"), "shell-local"),
        (format!("https://{host}/demanding.pkr.hcl"), "required variables that are missing: needed"),
        (format!("https://{host}/nothing.pkr.hcl"), "404"),
        (format!("git::https://{host}/template.git//packer?ref=main"), "other.pkr.hcl"),
        (format!("git::https://{host}/template.git?ref=nothing"), "nothing"),
    ] {
        let id = start(scene, &json!(source))?;
        let build = scene.ended(&id)?;
        ensure!(build["status"] == "failed" && build["failure"]["stage"] == "prepare-build", "{build:#}");
        ensure!(build["error"].as_str().is_some_and(|error| error.contains(says)), "{source}: {build:#}");
    }
    // The hosts' rules are the request's own business.
    let refused = json!({"provider": "codex", "template_source": "http://127.0.0.1:9/x.pkr.hcl"});
    let answer = scene.api.post("/api/v1/images/build", &refused)?;
    ensure!(answer.status == 400 && answer.code() == "config_validation_error", "{answer:?}");
    // An address that is not public, over https, is refused by whoever would dial it.
    let id = start(scene, &json!("https://127.0.0.1:9/x.pkr.hcl"))?;
    let build = scene.ended(&id)?;
    ensure!(build["error"].as_str().is_some_and(|error| error.contains("not public")), "{build:#}");
    Ok(())
}

fn what_has_not_changed_is_not_fetched_again(scene: &Scene, servers: &Servers, host: &str) -> Result<()> {
    let source = json!(format!("https://{host}/image.pkr.hcl"));
    let build = succeeded(scene, &start(scene, &source)?, &source)?;
    ensure!(servers.asked_for("/image.pkr.hcl") == 1, "it was fetched twice");
    ensure!(servers.asked_for("/image.pkr.hcl\"v1\"") == 1, "nobody asked whether it has changed");

    // The same bytes again, by the digest that the build tells.
    let kept = json!(format!("template://{}", build["template"]["digest"].as_str().unwrap_or_default()));
    let again = succeeded(scene, &start(scene, &kept)?, &kept)?;
    ensure!(again["template"]["digest"] == build["template"]["digest"], "{again:#}");
    Ok(())
}

fn a_folder_is_uploaded(scene: &Scene, folder: &Path) -> Result<()> {
    let template = folder.join("my-template");
    fs::create_dir(&template)?;
    fs::write(template.join("image.pkr.hcl"), templates::without_communicator())?;
    fs::write(template.join("notes.txt"), "not for the service")?;
    fs::write(template.join(".ciabignore"), "notes.txt\n")?;
    let path = template.display().to_string();
    let mut digests = Vec::new();
    for _ in 0..2 {
        let arguments = ["image", "build", "--provider", "codex", "--force", "--template", &path, "--wait"];
        let output = scene.ciab(&arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ciab ended with {}:\n{said}", output.status);
        let build: Value = serde_json::from_slice(&output.stdout)?;
        let source = build["template"]["source"].as_str().unwrap_or_default();
        ensure!(source.starts_with("template://sha256:"), "{build:#}");
        digests.push(build["template"]["digest"].clone());
        fs::write(template.join("notes.txt"), "changed, and still not for the service")?;
    }
    ensure!(digests[0] == digests[1], "what is ignored changes nothing: {digests:?}");
    Ok(())
}

fn all_images_of_a_build_go_together(scene: &Scene) -> Result<()> {
    let source = json!({"type": "inline", "content": two_sources()});
    let build = succeeded(scene, &start(scene, &source)?, &source)?;
    let listed = || -> Result<Vec<Value>> {
        let answer = scene.api.get("/api/v1/images?limit=100")?;
        let images = answer.body["images"].as_array().cloned().unwrap_or_default();
        Ok(images.into_iter().filter(|image| image["build_id"] == build["build_id"]).collect())
    };
    let images = listed()?;
    ensure!(images.len() == 2, "{images:#?}");
    let id = build["image_id"].as_str().context("no image")?;
    let answer = scene.api.delete(&format!("/api/v1/images/{id}"))?;
    ensure!(answer.status == 204, "{answer:?}");
    ensure!(listed()?.is_empty(), "an image of the build is still listed");
    for image in &images {
        let id = image["image_id"].as_str().unwrap_or_default();
        let answer = scene.ec2.call("DescribeImages", &[("Owner.1", "self")])?;
        ensure!(!answer.texts("imagesSet/item/imageId").contains(&id.to_owned()), "{id} is still there");
    }
    Ok(())
}
