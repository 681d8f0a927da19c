//! What the tests stand on: a moto server and an edge of their own on free ports, EC2 calls, SSH, the real Packer.
//!
//! Needs root, and what `cargo xtask test` sets up; says so where it is missing, and never skips.

#![allow(dead_code, reason = "each test file uses its part")]
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use xmltree::{Element, XMLNode};

/// The key pair whose private half [`Stack::ssh`] has.
pub(crate) const KEY_NAME: &str = "test-key";

/// What the environment must name, or a failure that says how to get it.
fn provided(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable).unwrap_or_else(|| {
        panic!("{variable} is not set; run `cargo xtask test`, which sets up what this test needs")
    });
    PathBuf::from(value)
}

fn packer() -> PathBuf {
    std::env::var_os("CIAB_PACKER_BINARY").map_or_else(|| PathBuf::from("packer"), PathBuf::from)
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ciab-local-ec2"))
}

/// moto and the edge; both end with it.
pub(crate) struct Stack {
    pub(crate) directory: tempfile::TempDir,
    edge: Child,
    moto: Child,
    /// moto itself, for services that are not EC2.
    pub(crate) moto_endpoint: String,
    pub(crate) endpoint: String,
}

impl Stack {
    /// A stack whose instances have a body.
    pub(crate) fn start() -> Self {
        let root = provided("CIAB_TEST_ROOTFS");
        assert!(nix::unistd::geteuid().is_root(), "instances need root; run `cargo xtask test` as root");
        Self::start_with(Some(&root), None, &[])
    }

    /// As [`Stack::start`], with more arguments for the edge.
    pub(crate) fn start_with_arguments(arguments: &[&str]) -> Self {
        Self::start_with(Some(&provided("CIAB_TEST_ROOTFS")), None, arguments)
    }

    /// A stack whose addresses no other stack takes once it is gone: `octet` is none that a stack takes by itself.
    pub(crate) fn start_in_block(octet: u8) -> Self {
        Self::start_with(Some(&provided("CIAB_TEST_ROOTFS")), Some(octet), &[])
    }

    /// A stack on a machine that can't host instances.
    pub(crate) fn without_bodies() -> Self {
        Self::start_with(None, None, &[])
    }

    fn start_with(root: Option<&Path>, block: Option<u8>, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let images = directory.path().join("base-images.json");
        let mut list = program();
        list.arg("--base-images");
        fs::write(&images, list.output().unwrap().stdout).unwrap();
        let (moto, moto_endpoint) = start_moto(&images, &directory.path().join("moto.log"));
        let (edge, endpoint) =
            start_edge(&moto_endpoint, &directory.path().join("work"), root, block, arguments);
        let stack = Self { directory, edge, moto, moto_endpoint, endpoint };
        stack.make_key();
        stack
    }

    fn make_key(&self) {
        let key = self.key();
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
        assert!(made.unwrap().success());
        let public = fs::read(key.with_extension("pub")).unwrap();
        self.call("ImportKeyPair", &[("KeyName", KEY_NAME), ("PublicKeyMaterial", &base64(&public))]);
    }

    fn key(&self) -> PathBuf {
        self.directory.path().join("key")
    }

    pub(crate) fn work_dir(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// A call that must succeed.
    pub(crate) fn call(&self, action: &str, parameters: &[(&str, &str)]) -> Element {
        let (status, root) = self.try_call(action, parameters);
        assert_eq!(status, 200, "{action}: {}", text(&root));
        root
    }

    pub(crate) fn try_call(&self, action: &str, parameters: &[(&str, &str)]) -> (u16, Element) {
        call(&self.endpoint, "us-east-1", action, parameters)
    }

    pub(crate) fn base_image(&self) -> String {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
        let filter = [("Filter.1.Name", "architecture"), ("Filter.1.Value.1", architecture)];
        let owner = [("Owner.1", "099720109477")];
        only(&self.call("DescribeImages", &[&filter[..], &owner[..]].concat()), "imageId")
    }

    /// Launches one instance; gives its id and address.
    pub(crate) fn run_instance(&self, image: &str, more: &[(&str, &str)]) -> (String, String) {
        let parameters = [("ImageId", image), ("MinCount", "1"), ("MaxCount", "1"), ("KeyName", KEY_NAME)];
        let root = self.call("RunInstances", &[&parameters[..], more].concat());
        (only(&root, "instanceId"), only(&root, "ipAddress"))
    }

    pub(crate) fn state_of(&self, instance: &str) -> String {
        let root = self.call("DescribeInstances", &[("InstanceId.1", instance)]);
        let state = find(&root, "instanceState").remove(0);
        only(state, "name")
    }

    pub(crate) fn terminate(&self, instance: &str) {
        self.call("TerminateInstances", &[("InstanceId.1", instance)]);
    }

    /// Runs a command in an instance, as the default user.
    pub(crate) fn ssh(&self, address: &str, command: &str) -> Output {
        self.ssh_as("ubuntu", address, command)
    }

    pub(crate) fn ssh_as(&self, user: &str, address: &str, command: &str) -> Output {
        assert!(address.starts_with("127."), "never dial {address}");
        let mut ssh = Command::new("ssh");
        ssh.args(["-q", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
        ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5", "-i"]).arg(self.key());
        ssh.arg(format!("{user}@{address}")).arg(command).stdin(Stdio::null()).output().unwrap()
    }

    /// What a command in an instance says; it must succeed.
    pub(crate) fn output_of(&self, address: &str, command: &str) -> String {
        let output = self.ssh(address, command);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The real Packer on a template, ready to be run.
    pub(crate) fn packer(&self, template: &str) -> Command {
        let file = self.directory.path().join("template.pkr.hcl");
        fs::write(&file, template.replace("ENDPOINT", &self.endpoint)).unwrap();
        let mut command = Command::new(packer());
        command.args(["build", "-color=false"]).arg(file).current_dir(self.directory.path());
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").stdin(Stdio::null());
        command
    }

    /// Processes of this stack's instances: their launchers are children of the edge.
    pub(crate) fn launchers(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task", self.edge.id());
        let Ok(tasks) = fs::read_dir(path) else { return Vec::new() };
        let children =
            tasks.flatten().map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
        children
            .flat_map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<u32>>())
            .collect()
    }

    /// Sends the edge a signal and waits for its end.
    pub(crate) fn end_edge(&mut self, signal: nix::sys::signal::Signal) {
        let process = nix::unistd::Pid::from_raw(i32::try_from(self.edge.id()).unwrap());
        nix::sys::signal::kill(process, signal).unwrap();
        self.edge.wait().unwrap();
    }

    /// Processes that have a name of this stack in their mounts or root: what an instance leaves if it leaves anything.
    pub(crate) fn processes_with_our_mounts(&self) -> Vec<String> {
        let ours = self.work_dir().display().to_string();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter(|process| {
                fs::read_to_string(process.path().join("mounts")).is_ok_and(|mounts| mounts.contains(&ours))
            })
            .map(|process| process.path().display().to_string())
            .collect()
    }

    /// The names of what is in a folder of the work directory.
    pub(crate) fn files_in(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.work_dir().join(folder)).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        for child in [&mut self.edge, &mut self.moto] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start_moto(images: &Path, log: &Path) -> (Child, String) {
    let port = free_port();
    let moto = Command::new(provided("CIAB_TEST_MOTO_SERVER"))
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .env("MOTO_AMIS_PATH", images)
        .stdout(Stdio::null())
        .stderr(fs::File::create(log).unwrap())
        .spawn()
        .expect("CIAB_TEST_MOTO_SERVER names moto_server");
    let up =
        eventually(Duration::from_secs(30), || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert!(up, "moto server did not start: {}", fs::read_to_string(log).unwrap());
    (moto, format!("http://127.0.0.1:{port}"))
}

fn start_edge(
    moto: &str,
    work_dir: &Path,
    root: Option<&Path>,
    block: Option<u8>,
    arguments: &[&str],
) -> (Child, String) {
    let mut edge = program();
    edge.args(arguments).args(["--moto", moto]).arg("--work-dir").arg(work_dir).stdout(Stdio::piped());
    if let Some(root) = root {
        edge.arg("--root-filesystem").arg(root);
    }
    if let Some(octet) = block {
        edge.args(["--address-block", &octet.to_string()]);
    }
    let mut edge = edge.spawn().unwrap();
    let mut endpoint = String::new();
    BufReader::new(edge.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
    (edge, endpoint.trim().to_owned())
}

/// One call of EC2's Query protocol, signed for a region.
pub(crate) fn call(
    endpoint: &str,
    region: &str,
    action: &str,
    parameters: &[(&str, &str)],
) -> (u16, Element) {
    call_service(endpoint, ("ec2", "2016-11-15"), region, action, parameters)
}

/// One call of a service's Query protocol: its name and its API's version.
pub(crate) fn call_service(
    endpoint: &str,
    (service, version): (&str, &str),
    region: &str,
    action: &str,
    parameters: &[(&str, &str)],
) -> (u16, Element) {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("Action", action).append_pair("Version", version).extend_pairs(parameters);
    let scope = format!("test/20260101/{region}/{service}/aws4_request");
    let output = Command::new("curl")
        .args(["-s", "--max-time", "30", "-w", "\n%{http_code}", "-H"])
        .arg(format!("Authorization: AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"))
        .args(["-d", &form.finish(), endpoint])
        .output()
        .expect("curl is installed");
    let answer = String::from_utf8(output.stdout).unwrap();
    let (body, status) = answer.rsplit_once('\n').unwrap();
    let root = Element::parse(body.as_bytes()).unwrap_or_else(|error| panic!("{action}: {error}: {body}"));
    (status.parse().unwrap(), root)
}

/// Every element of a name, at any depth.
pub(crate) fn find<'a>(element: &'a Element, name: &str) -> Vec<&'a Element> {
    let children = element.children.iter().filter_map(XMLNode::as_element);
    children
        .flat_map(|child| {
            let here = (child.name == name).then_some(child);
            here.into_iter().chain(find(child, name))
        })
        .collect()
}

/// The texts of every element of a name.
pub(crate) fn texts(element: &Element, name: &str) -> Vec<String> {
    let found = find(element, name);
    found.into_iter().map(|found| found.get_text().unwrap_or_default().into_owned()).collect()
}

/// The text that every element of a name has.
pub(crate) fn only(element: &Element, name: &str) -> String {
    let mut found = texts(element, name);
    found.dedup();
    assert_eq!(found.len(), 1, "{name} in {}", text(element));
    found.remove(0)
}

pub(crate) fn text(element: &Element) -> String {
    let mut bytes = Vec::new();
    element.write(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Looks again until it is so; false if it is not so in time.
pub(crate) fn eventually(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let encode = |chunk: &[u8]| {
        let mut word = [0; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        let digit = |place: u32| char::from(ALPHABET[(word >> (18 - 6 * place)) as usize & 63]);
        (0..4).map(|place| if place as usize <= chunk.len() { digit(place) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(encode).collect()
}
