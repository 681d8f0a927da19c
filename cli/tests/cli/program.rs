//! Running `ciab` as a user does, in an environment that holds nothing but what a test puts there.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::service::Service;

pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    #[track_caller]
    pub(crate) fn exited(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "{text:?} is not in stderr: {}", self.stderr);
        self
    }
}

pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ciab"));
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn finish(child: Child) -> Outcome {
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn run(command: &mut Command) -> Outcome {
    finish(command.spawn().unwrap())
}

/// Runs against the service, with the key that its users have.
pub(crate) fn ciab(service: &Service, arguments: &[&str]) -> Outcome {
    run(&mut against(service, arguments))
}

pub(crate) fn against(service: &Service, arguments: &[&str]) -> Command {
    let mut command = command(arguments);
    command.env("CIAB_SERVER_URL", service.url()).env("CIAB_API_KEY", "a-key-for-tests");
    command
}

pub(crate) fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}
