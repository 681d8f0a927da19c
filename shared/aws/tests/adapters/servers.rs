//! Servers for one test each: on a port of their own, gone when the test ends.

use std::env;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use ciab_aws::{SdkConfig, connect_to};
use tempfile::TempDir;

/// How long a server may take to answer, on a machine that starts many at once.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server that dies with this value.
pub(crate) struct Server {
    process: Child,
    port: u16,
    /// What it stands in front of, and where it works.
    _behind: Option<(Box<Server>, TempDir)>,
}

impl Server {
    /// Every AWS service, as moto has it.
    pub(crate) fn moto() -> Self {
        Self::start(|port| {
            let mut command = Command::new(required("CIAB_TEST_MOTO_SERVER"));
            command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
            // Where its own state machines find the other services.
            command.env("MOTO_PORT", port.to_string());
            command
        })
    }

    /// moto behind this project's own EC2, which knows of EC2 what moto lacks: where an image was copied from, and which
    /// instances use an instance profile. Its instances exist in the API only.
    pub(crate) fn ec2() -> Self {
        let moto = Self::moto();
        let program = required("CIAB_TEST_BIN_DIR").join("ciab-local-ec2");
        let work = tempfile::tempdir().expect("a folder can be made");
        let mut ec2 = Self::start(|port| {
            let mut command = Command::new(&program);
            command.args(["--listen", &format!("127.0.0.1:{port}")]);
            command.args(["--moto", &format!("http://127.0.0.1:{}", moto.port)]);
            command.arg("--work-dir").arg(work.path().join("ec2"));
            command
        });
        ec2._behind = Some((Box::new(moto), work));
        ec2
    }

    /// Amazon's own DynamoDB, in memory.
    pub(crate) fn dynamodb_local() -> Self {
        let jar = required("CIAB_TEST_DYNAMODB_LOCAL");
        let libraries = jar.with_file_name("DynamoDBLocal_lib");
        let java = env::var_os("CIAB_TEST_JAVA").unwrap_or_else(|| "java".into());
        Self::start(|port| {
            let mut command = Command::new(&java);
            command
                .arg(format!("-Djava.library.path={}", libraries.display()))
                .args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-jar"])
                .arg(&jar)
                .args(["-inMemory", "-port", &port.to_string()]);
            command
        })
    }

    fn start(command: impl Fn(u16) -> Command) -> Self {
        let deadline = Instant::now() + PATIENCE;
        'tries: while Instant::now() < deadline {
            let port = free_port();
            let mut process = command(port)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the server can be started");
            while Instant::now() < deadline {
                if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                    return Self { process, port, _behind: None };
                }
                if process.try_wait().expect("a child can be asked").is_some() {
                    // Somebody else took the port first.
                    sleep(Duration::from_millis(200));
                    continue 'tries;
                }
                sleep(Duration::from_millis(20));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        panic!("the server did not answer in time");
    }

    /// Lets moto carry out state machines instead of only noting them.
    pub(crate) fn carry_out_state_machines(&self) {
        let body = r#"{"stepfunctions":{"execute_state_machine":true}}"#;
        let request = format!(
            "POST /moto-api/config HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("moto answers");
        connection.write_all(request.as_bytes()).expect("moto reads");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("moto answers");
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The product's configuration, pointed at this server.
    pub(crate) fn config(&self) -> SdkConfig {
        let credentials = Credentials::new("test", "test", None, None, "test");
        connect_to("us-east-1", Some(&format!("http://127.0.0.1:{}", self.port)))
            .into_builder()
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn required(variable: &str) -> PathBuf {
    let path = env::var_os(variable).unwrap_or_else(|| {
        panic!("{variable} is not set: run the tests by `cargo xtask test`, which sets it")
    });
    PathBuf::from(path)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}
