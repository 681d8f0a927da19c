//! A stack whose runner has no Packer of the wanted version: it comes from a mirror once, and from the bucket ever after.

use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;

use anyhow::{Result, ensure};
use end_to_end::{Scene, templates};
use local_stack::StackParts;
use serde_json::json;
use sha2::{Digest, Sha256};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// No machine has this one; templates are tagged as for the 1.6 that it is.
const VERSION: &str = "1.6.99";

/// Gives this archive to whoever asks for the release's path.
struct Releases {
    address: SocketAddr,
    requests: Arc<AtomicU32>,
    archive: Arc<RwLock<Vec<u8>>>,
}

impl Releases {
    fn serve(archive: Vec<u8>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, requests) = (listener.local_addr()?, Arc::new(AtomicU32::new(0)));
        let archive = Arc::new(RwLock::new(archive));
        let (counted, served) = (requests.clone(), archive.clone());
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let archive = served.read().unwrap_or_else(PoisonError::into_inner).clone();
                // The runner may be gone.
                let _ = answer(stream, &archive);
            }
        });
        Ok(Self { address, requests, archive })
    }
}

fn answer(mut stream: TcpStream, archive: &[u8]) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
        head.push(byte[0]);
    }
    let wanted = format!("GET /packer/{VERSION}/packer_{VERSION}_linux_amd64.zip ");
    let (status, body) = if head.starts_with(wanted.as_bytes()) { (200, archive) } else { (404, &[][..]) };
    write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len())?;
    stream.write_all(body)
}

/// The machine's Packer under another version's name.
fn archive(parts: &StackParts) -> Result<Vec<u8>> {
    let packer = parts.packer.display();
    let script = format!(
        "#!/bin/sh\nif [ \"$2\" = version ]; then echo \"$(date +%s),,version,{VERSION}\"; exit 0; fi\nexec {packer} \"$@\"\n"
    );
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("packer", SimpleFileOptions::default())?;
    zip.write_all(script.as_bytes())?;
    Ok(zip.finish()?.into_inner())
}

#[test]
fn packer_comes_from_the_mirror_once_and_then_from_the_bucket() -> Result<()> {
    let parts = StackParts::from_environment()?;
    let archive = archive(&parts)?;
    let sha256: String = Sha256::digest(&archive).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut spoiled = archive.clone();
    spoiled.push(0);
    let releases = Releases::serve(spoiled)?;
    let parameters = [
        "PackerBinaryPath=".to_owned(),
        format!("PackerVersion={VERSION}"),
        format!("PackerSha256={sha256}"),
        format!("PackerMirror=http://{}/packer", releases.address),
    ];
    let arguments: Vec<&str> =
        parameters.iter().flat_map(|parameter| ["--set", parameter.as_str()]).collect();
    let scene = Scene::start(&parts, &arguments)?;
    let outcome = builds(&scene, &releases, archive);
    scene.end(outcome)
}

fn builds(scene: &Scene, releases: &Releases, archive: Vec<u8>) -> Result<()> {
    let request = |name: &str| {
        let content = templates::without_communicator().replace("end-to-end-", name);
        json!({"provider": "codex", "template": {"type": "inline", "content": content}})
    };
    let build = scene.ended(&scene.start_build(&request("spoiled-"))?)?;
    let error = build["error"].as_str().unwrap_or_default();
    ensure!(build["status"] == "failed" && error.contains("PackerSha256"), "{build:#}");
    scene.nothing_is_left_of(&build)?;

    *releases.archive.write().unwrap_or_else(PoisonError::into_inner) = archive;
    for (name, expected) in [
        ("first-", format!("Packer {VERSION} from 127.0.0.1")),
        ("second-", format!("Packer {VERSION} from the stack's bucket")),
    ] {
        let id = scene.start_build(&request(name))?;
        let build = scene.ended(&id)?;
        ensure!(build["status"] == "succeeded", "{build:#}");
        let log = scene.log(&id)?;
        ensure!(log.iter().any(|line| line.contains(&expected)), "{expected}: {log:#?}");
    }
    let requests = releases.requests.load(Ordering::SeqCst);
    ensure!(requests == 2, "the mirror was asked {requests} times, and not by two builds of three");
    Ok(())
}
