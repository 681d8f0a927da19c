//! Packer from a mirror and from the bucket: what is downloaded, how often, and what is never unpacked. The mirror listens on the
//! loopback device and gives archives that the test has made.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod world;

use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use async_trait::async_trait;
use ciab_runner::install::{DownloadFailed, Downloads, Mirror};
use ciab_runner::report::Reported;
use ciab_runner::run::Ports;
use sha2::{Digest, Sha256};
use world::{Told, World, packer, wanted};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// How the mirror answers a request.
#[derive(Clone)]
enum Answer {
    File(Vec<u8>),
    /// Half of a file, of which all was announced.
    Half(Vec<u8>),
    Status(u16),
}

struct Server {
    address: SocketAddr,
    paths: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Gives these answers one after the other, and the last one from then on.
    fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let paths = Arc::new(Mutex::new(Vec::new()));
        let seen = paths.clone();
        // It ends with the test's process.
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let answer = answers.get(number).or(answers.last()).unwrap();
                let mut stream = stream.unwrap();
                seen.lock().unwrap().push(path_of(&mut stream));
                let head = |status: u16, length: usize| {
                    format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")
                };
                // The other side may be gone.
                let _ = match answer {
                    Answer::File(bytes) => stream
                        .write_all(head(200, bytes.len()).as_bytes())
                        .and_then(|()| stream.write_all(bytes)),
                    Answer::Half(bytes) => stream
                        .write_all(head(200, bytes.len()).as_bytes())
                        .and_then(|()| stream.write_all(&bytes[..bytes.len() / 2])),
                    Answer::Status(status) => stream.write_all(head(*status, 0).as_bytes()),
                };
            }
        });
        Self { address, paths }
    }

    fn paths(&self) -> Vec<String> {
        self.paths.lock().unwrap().clone()
    }
}

fn path_of(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().split(' ').nth(1).unwrap_or_default().to_owned()
}

fn archive(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("LICENSE.txt", SimpleFileOptions::default()).unwrap();
    zip.start_file(program, SimpleFileOptions::default()).unwrap();
    zip.write_all(bytes).unwrap();
    zip.finish().unwrap().into_inner()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

const BUILD: &str = r#"
[ -z "$PACKER_PLUGIN_PATH" ] || (cd "$PACKER_PLUGIN_PATH" && find . -type f -exec sha256sum {} + && cat */*/*/*_SHA256SUM) > "$PACKER_TEST_FOLDER/plugins"
artifact us-east-1:ami-0123456789abcdef0
"#;
/// No machine has this one.
const VERSION: &str = "1.6.99";
const KEY: &str = "tools/packer/1.6.99/packer_1.6.99_linux_amd64.zip";

/// A build without a Packer of its own, and the archive of one.
fn world(version: &str) -> (World, Vec<u8>) {
    let mut world = World::new("");
    let folder = world.path("made");
    std::fs::create_dir(&folder).unwrap();
    let made = packer(&folder, BUILD);
    let archive = archive("packer", &std::fs::read(made).unwrap());
    std::fs::remove_file(world.path("packer")).unwrap();
    let mut wanted = wanted(None);
    wanted.auto_install = true;
    wanted.packer.version = version.to_owned();
    wanted.packer.sha256 = Some(sha256(&archive));
    world.configuration.packer = wanted;
    world.environment.push(("PACKER_TEST_VERSION".into(), version.into()));
    (world, archive)
}

fn from(world: &mut World, server: &Server) {
    let mirror = format!("http://{}/packer/", server.address);
    world.configuration.packer.packer.mirror = mirror.parse().unwrap();
    let plugins = format!("http://{}/plugins", server.address);
    world.configuration.packer.amazon_plugin.mirror = plugins.parse().unwrap();
}

fn is_kept(world: &World, key: &str) -> bool {
    world.objects.stored.lock().unwrap().contains_key(key)
}

/// That the build failed before Packer was run, and how.
async fn failure_of(world: &World) -> String {
    assert!(matches!(world.run().await, Reported::Yes));
    let (name, failure) = world.failure();
    assert_eq!(name, "RunnerFailed");
    assert!(!world.path("commands").exists(), "Packer was run");
    failure.message
}

#[tokio::test]
async fn packer_is_downloaded_once_and_then_comes_from_the_bucket() {
    let (mut first, archive) = world(VERSION);
    let server = Server::start(vec![Answer::File(archive.clone())]);
    from(&mut first, &server);
    assert!(matches!(first.run().await, Reported::Yes));
    assert!(matches!(first.told(), Told::Success(_)));
    assert_eq!(server.paths(), ["/packer/1.6.99/packer_1.6.99_linux_amd64.zip"]);
    assert_eq!(first.objects.stored.lock().unwrap()[KEY], archive);
    let log = first.objects.log_text();
    assert!(log.contains(&format!("runner: Packer 1.6.99 from {}", server.address)), "{log}");
    assert_eq!(first.objects.json("manifest.json").unwrap()["packer_version"], VERSION);

    let (mut second, _) = world(VERSION);
    second.configuration.packer.packer.sha256 = first.configuration.packer.packer.sha256.clone();
    second.objects.stored.lock().unwrap().insert(KEY.to_owned(), archive);
    from(&mut second, &server);
    second.run().await;
    assert!(matches!(second.told(), Told::Success(_)));
    assert_eq!(server.paths().len(), 1, "the mirror is asked by the first build alone");
    assert!(second.objects.log_text().contains("runner: Packer 1.6.99 from the stack's bucket"));
}

#[tokio::test]
async fn what_is_not_what_the_checksum_says_is_neither_unpacked_nor_kept() {
    let (mut world, mut archive) = world(VERSION);
    archive.push(0);
    let server = Server::start(vec![Answer::File(archive.clone())]);
    from(&mut world, &server);
    let message = failure_of(&world).await;
    for part in ["PackerSha256", "127.0.0.1", "was not unpacked", sha256(&archive).as_str()] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!is_kept(&world, KEY));
    assert_eq!(server.paths().len(), 1, "asking again would not help");
}

#[tokio::test]
async fn without_a_checksum_nobody_is_asked() {
    let (mut world, archive) = world(VERSION);
    let server = Server::start(vec![Answer::File(archive.clone())]);
    from(&mut world, &server);
    world.configuration.packer.packer.sha256 = None;
    world.objects.stored.lock().unwrap().insert(KEY.to_owned(), archive);
    let message = failure_of(&world).await;
    assert!(message.contains("set PackerSha256") && message.contains("SHA256SUMS"), "{message}");
    assert_eq!(server.paths(), [""; 0]);
}

#[tokio::test]
async fn a_packer_that_may_not_be_installed_is_not() {
    let (mut world, archive) = world(VERSION);
    let server = Server::start(vec![Answer::File(archive)]);
    from(&mut world, &server);
    world.configuration.packer.auto_install = false;
    let message = failure_of(&world).await;
    assert!(message.contains("PackerAutoInstall is false") && message.contains("Packer 1.6.99"), "{message}");
    assert_eq!(server.paths(), [""; 0]);
}

#[tokio::test]
async fn a_mirror_that_stumbles_is_asked_again() {
    let (mut world, archive) = world(VERSION);
    let answers = vec![Answer::Status(503), Answer::Half(archive.clone()), Answer::File(archive)];
    let server = Server::start(answers);
    from(&mut world, &server);
    world.run().await;
    assert!(matches!(world.told(), Told::Success(_)), "{:?}", world.told());
    assert_eq!(server.paths().len(), 3);
    assert!(is_kept(&world, KEY));
}

#[tokio::test]
async fn a_mirror_without_the_release_fails_the_build_at_once() {
    let (mut world, _) = world(VERSION);
    let server = Server::start(vec![Answer::Status(404)]);
    from(&mut world, &server);
    let message = failure_of(&world).await;
    assert!(message.contains("packer_1.6.99_linux_amd64.zip") && message.contains("404"), "{message}");
    assert_eq!(server.paths().len(), 1);
}

#[tokio::test]
async fn a_mirror_that_never_answers_does_not_hold_the_build_past_its_deadline() {
    let (mut world, _) = world(VERSION);
    world.configuration.deadline = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1);
    let ports = Ports { downloads: Arc::new(Never), ..world.ports() };
    world.run_with(&ports).await;
    assert_eq!(world.failure().0, "BuildTimedOut");
}

/// A download that does not even give up.
struct Never;

#[async_trait]
impl Downloads for Never {
    async fn download(&self, _mirror: &Mirror, _path: &str) -> Result<Vec<u8>, DownloadFailed> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_mirror_that_is_down_for_good_is_asked_a_few_times_and_no_more() {
    let (mut world, _) = world(VERSION);
    let server = Server::start(vec![Answer::Status(503)]);
    from(&mut world, &server);
    let message = failure_of(&world).await;
    assert!(message.contains("503"), "{message}");
    assert!((2..10).contains(&server.paths().len()), "{:?}", server.paths());
}

#[tokio::test]
async fn what_the_bucket_holds_is_checked_too_and_replaced_where_it_is_not_right() {
    let (mut world, archive) = world(VERSION);
    let server = Server::start(vec![Answer::File(archive.clone())]);
    from(&mut world, &server);
    world.objects.stored.lock().unwrap().insert(KEY.to_owned(), b"something else".to_vec());
    world.run().await;
    assert!(matches!(world.told(), Told::Success(_)));
    assert_eq!(world.objects.stored.lock().unwrap()[KEY], archive);
}

#[tokio::test]
async fn an_archive_without_the_program_is_told_as_that() {
    let (mut world, _) = world(VERSION);
    let other = archive("../packer", b"#!/bin/sh\n");
    world.configuration.packer.packer.sha256 = Some(sha256(&other));
    let server = Server::start(vec![Answer::File(other)]);
    from(&mut world, &server);
    let message = failure_of(&world).await;
    assert!(message.contains("could not be unpacked"), "{message}");
}

#[tokio::test]
async fn from_1_10_on_the_amazon_plugin_is_where_packer_looks_for_it() {
    let (mut world, archive_of_packer) = world("1.11.99");
    let program = "packer-plugin-amazon_v1.3.9_x5.0_linux_amd64";
    let archive_of_plugin = archive(program, b"a plugin");
    world.configuration.packer.amazon_plugin.sha256 = Some(sha256(&archive_of_plugin));
    let server = Server::start(vec![Answer::File(archive_of_packer), Answer::File(archive_of_plugin)]);
    from(&mut world, &server);
    world.run().await;
    assert!(matches!(world.told(), Told::Success(_)), "{:?}", world.told());
    assert_eq!(server.paths()[1], format!("/plugins/v1.3.9/{program}.zip"));
    assert!(is_kept(&world, &format!("tools/packer-plugin-amazon/1.3.9/{program}.zip")));
    let found = std::fs::read_to_string(world.path("plugins")).unwrap();
    let digest = sha256(b"a plugin");
    assert!(found.contains(&format!("{digest}  ./github.com/hashicorp/amazon/{program}\n")), "{found}");
    assert!(found.ends_with(&digest), "{found}");
}

#[tokio::test]
async fn plugins_that_the_operator_brings_are_left_alone() {
    let (mut world, archive) = world("1.11.99");
    let server = Server::start(vec![Answer::File(archive), Answer::Status(404)]);
    from(&mut world, &server);
    let plugins = world.path("");
    world.environment.push(("PACKER_PLUGIN_PATH".into(), plugins.into()));
    world.run().await;
    assert!(matches!(world.told(), Told::Success(_)), "{:?}", world.told());
    assert_eq!(server.paths().len(), 1);
}
