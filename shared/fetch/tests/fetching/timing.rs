//! Servers that take their time.

use std::io::Write;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::World;
use template_server::server::{Answer, raw, status};

/// A byte at a time, each of them long before any single read would time out, until the other side hangs up.
fn drip(to: &mut dyn Write, bytes: &'static [u8]) -> std::io::Result<()> {
    loop {
        for byte in bytes {
            to.write_all(&[*byte])?;
            to.flush()?;
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What the whole fetch may take here, and what is still counted as that.
const ALLOWED: Duration = Duration::from_millis(700);
const SOON: Duration = Duration::from_secs(5);

async fn is_given_up_in_time(mut world: World, source: &str) {
    world.limits.download_time = ALLOWED;
    world.limits.git_time = ALLOWED;
    let started = Instant::now();
    let message = world.unavailable(source).await;
    assert!(started.elapsed() < SOON, "{source}: {:?}", started.elapsed());
    assert!(message.contains("did not finish in time"), "{source}: {message}");
}

const SOURCES: [&str; 2] = ["https://public.example/t.json", "git::https://public.example/t.git"];

#[tokio::test]
async fn a_head_that_drips_is_given_up() {
    for source in SOURCES {
        let drips = || raw(|to| to.write_all(b"HTTP/1.1 200 x\r\nX: ").and_then(|()| drip(to, b"x")));
        is_given_up_in_time(World::with_server(move |_| drips()), source).await;
    }
}

#[tokio::test]
async fn a_body_that_drips_is_given_up() {
    for source in SOURCES {
        let drips = || {
            raw(|to| {
                to.write_all(
                    b"HTTP/1.1 200 x\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n\r\n",
                )?;
                drip(to, b"001e# service=git-upload-pack\n0000")
            })
        };
        is_given_up_in_time(World::with_server(move |_| drips()), source).await;
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_even_before_tls() {
    for source in SOURCES {
        let world = World::with_server(|_| status(200));
        // Takes connections into its backlog, and does nothing with them.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        world.network.serve(silent.local_addr().unwrap());
        is_given_up_in_time(world, source).await;
    }
}

#[tokio::test]
async fn each_step_has_a_time_of_its_own() {
    let mut world = World::with_server(|_| raw(|to| drip(to, b"x")));
    world.limits.step_time = Duration::from_millis(300);
    let started = Instant::now();
    world.unavailable(SOURCES[0]).await;
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

#[tokio::test]
async fn redirects_share_one_time() {
    let world = World::with_server(|request| {
        thread::sleep(Duration::from_millis(250));
        Answer::Plain {
            status: 302,
            headers: vec![("Location".into(), format!("{}x", request.target))],
            body: vec![],
        }
    });
    is_given_up_in_time(world, SOURCES[0]).await;
}
