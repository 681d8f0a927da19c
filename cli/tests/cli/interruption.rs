//! Ctrl-C, closed pipes, and terminals.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::program::{against, finish};
use crate::service::{BUILD_ID, Service, accepted, build, log_page, ok, refusal};

#[test]
fn an_interrupted_wait_exits_130_and_says_that_the_build_goes_on() {
    let service = Service::start();
    service.on("POST /build", [accepted()]).on_build([ok(build("building"))]);
    let child = against(&service, &["image", "build", "--wait"]).spawn().unwrap();
    while service.seen().len() < 3 {
        std::thread::sleep(Duration::from_millis(20));
    }
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let outcome = finish(child);
    outcome
        .exited(130)
        .says(&format!("hint: build {BUILD_ID} goes on"))
        .says(&format!("hint: `ciab image logs {BUILD_ID} --follow`"))
        .says(&format!("hint: `ciab image cancel {BUILD_ID}` cancels it"));
    assert_eq!(outcome.stdout, "");
    assert!(service.targets().iter().all(|target| !target.contains("cancel")));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let service = Service::start();
    service.on_build([ok(build("building"))]);
    let long = "x".repeat(100_000);
    service.on_log(0, [log_page(0, &[&long, &long], false)]);
    service.on_log(2, [log_page(2, &[], false)]);
    let mut child = against(&service, &["image", "logs", BUILD_ID, "--follow"]).spawn().unwrap();
    let mut first = [0];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let outcome = finish(child);
    outcome.exited(0);
    assert_eq!(outcome.stderr, "");
}

#[test]
fn errors_are_coloured_on_a_terminal_unless_no_color_is_set() {
    let service = Service::start();
    service.on_build([refusal(404, "build_not_found", "no such build")]);
    let arguments = ["image", "status", BUILD_ID];
    let (coloured, code) = on_terminal(&mut against(&service, &arguments), "");
    assert_eq!(code, Some(3));
    assert!(coloured.contains("\u{1b}[1;31merror\u{1b}[0m: no such build"), "{coloured:?}");
    let (plain, _) = on_terminal(against(&service, &arguments).env("NO_COLOR", "1"), "");
    assert!(plain.contains("error: no such build"), "{plain:?}");
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
}

#[test]
fn a_log_cannot_steer_the_terminal() {
    let service = Service::start();
    service.on_build([ok(build("succeeded"))]);
    service.on_log(0, [log_page(0, &["\u{1b}]0;owned\u{7}\u{1b}[2Jtext"], true)]);
    service.on_log(1, [log_page(1, &[], true)]);
    let (screen, code) = on_terminal(&mut against(&service, &["image", "logs", BUILD_ID]), "");
    assert_eq!(code, Some(0));
    assert_eq!(screen, "␛]0;owned␇␛[2Jtext\r\n");
}

#[test]
fn progress_is_drawn_on_a_terminal() {
    let service = Service::start();
    service.on("POST /build", [accepted()]);
    service.on_build([ok(build("building")), ok(build("building")), ok(build("succeeded"))]);
    let (screen, code) = on_terminal(&mut against(&service, &["image", "build", "--wait"]), "");
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains(&format!("Build {BUILD_ID}: building")), "{screen:?}");
    assert!(screen.ends_with("AMI ID:     ami-0abcdef1234567890\r\n"), "{screen:?}");
}

#[test]
fn deleting_on_a_terminal_asks_and_only_yes_is_yes() {
    let service = Service::start();
    service.on("DELETE /ami-1", [crate::service::Answer::Json(204, json!(null))]);
    let (screen, code) = on_terminal(&mut against(&service, &["image", "delete", "ami-1"]), "n\n");
    assert_eq!(code, Some(130), "{screen}");
    assert!(
        screen.contains("Delete ami-1, whatever other images its build made, and their snapshots? [y/N]"),
        "{screen}"
    );
    assert!(screen.contains("nothing was deleted"), "{screen}");
    assert!(service.seen().is_empty());
    let (screen, code) = on_terminal(&mut against(&service, &["image", "delete", "ami-1"]), "y\n");
    assert_eq!(code, Some(0), "{screen}");
    assert_eq!(service.targets(), ["DELETE /ami-1"]);
}

/// Runs with all three streams on a terminal of its own, on which `typed` was typed; gives what the terminal showed.
fn on_terminal(command: &mut Command, typed: &str) -> (String, Option<i32>) {
    let size = nix::libc::winsize { ws_row: 40, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(Some(&size), None).unwrap();
    let stream = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut child =
        command.env("TERM", "xterm").stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    drop(pty.slave);
    let mut master = File::from(pty.master);
    std::io::Write::write_all(&mut master, typed.as_bytes()).unwrap();
    let reader = std::thread::spawn(move || {
        let mut screen = Vec::new();
        // The terminal's end is an error once the last stream on it is closed.
        let _ = master.read_to_end(&mut screen);
        String::from_utf8(screen).unwrap()
    });
    let deadline = Instant::now() + Duration::from_secs(20);
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        assert!(Instant::now() < deadline, "the program did not end");
        std::thread::sleep(Duration::from_millis(10));
    };
    (reader.join().unwrap(), code)
}
