//! An instance started from the image through the EC2 API, with a key pair made for it, and spoken to over SSH.
//! It must never dial an address off this machine, whatever the API says.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use local_stack::Ec2Api;
use local_stack::{http_client, interruption, process};

const KEY_NAME: &str = "xtask-demo";
/// The image has a user of its own; it logs in with the key that the instance was started with.
const USER: &str = "ciab";
const LIMIT: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

pub(crate) struct Instance<'ec2> {
    ec2: &'ec2 Ec2Api,
    id: String,
    address: String,
    key: PathBuf,
    known_hosts: PathBuf,
}

impl<'ec2> Instance<'ec2> {
    /// Starts an instance and returns once its SSH server lets us in. On failure nothing of it is left.
    pub(crate) fn start(ec2: &'ec2 Ec2Api, image_id: &str, directory: &Path) -> Result<Self> {
        let key = directory.join("demo-key");
        let material = ec2
            .call("CreateKeyPair", &[("KeyName", KEY_NAME)])?
            .text("keyMaterial")
            .context("CreateKeyPair gave no key")?;
        let mut instance = Self {
            ec2,
            id: String::new(),
            address: String::new(),
            key,
            known_hosts: directory.join("known-hosts"),
        };
        match instance.become_reachable(image_id, &material) {
            Ok(()) => Ok(instance),
            Err(error) => {
                // The error that matters is the one above.
                let _ = instance.terminate();
                Err(error)
            }
        }
    }

    fn become_reachable(&mut self, image_id: &str, material: &str) -> Result<()> {
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&self.key)
            .context("create the key's file")?;
        writeln!(file, "{}", material.trim()).context("write the key")?;
        let started = self.ec2.call(
            "RunInstances",
            &[
                ("ImageId", image_id),
                ("InstanceType", "t3.small"),
                ("KeyName", KEY_NAME),
                ("MinCount", "1"),
                ("MaxCount", "1"),
            ],
        )?;
        self.id = started.text("instancesSet/item/instanceId").context("RunInstances gave no instance")?;
        self.address = self.wait_for_address()?;
        self.wait_for_login()
    }

    /// Runs a command in it and returns what it printed, which must not be nothing.
    pub(crate) fn run(&self, command: &str) -> Result<String> {
        let captured = process::capture(self.ssh().arg(command))?;
        let printed = captured.stdout.trim();
        if !captured.status.success() || printed.is_empty() {
            bail!("`{command}` in the instance ended with {} and printed {printed:?}", captured.status);
        }
        Ok(printed.to_owned())
    }

    /// Ends the instance, waits until it has ended, and deletes the key pair.
    pub(crate) fn terminate(self) -> Result<()> {
        let ended = if self.id.is_empty() { Ok(()) } else { self.end() };
        let key_deleted = self.ec2.call("DeleteKeyPair", &[("KeyName", KEY_NAME)]).map(|_| ());
        ended.and(key_deleted)
    }

    fn end(&self) -> Result<()> {
        self.ec2.call("TerminateInstances", &[("InstanceId.1", &self.id)])?;
        let since = Instant::now();
        while since.elapsed() < LIMIT {
            let answer = self.ec2.call("DescribeInstances", &[("InstanceId.1", &self.id)])?;
            if answer.text("reservationSet/item/instancesSet/item/instanceState/name").as_deref()
                == Some("terminated")
            {
                return Ok(());
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        bail!("{} was not terminated within {} s", self.id, LIMIT.as_secs())
    }

    fn wait_for_address(&self) -> Result<String> {
        let since = Instant::now();
        while since.elapsed() < LIMIT {
            let answer = self.ec2.call("DescribeInstances", &[("InstanceId.1", &self.id)])?;
            let running = answer.text("reservationSet/item/instancesSet/item/instanceState/name");
            let address = answer.text("reservationSet/item/instancesSet/item/ipAddress");
            if let (Some("running"), Some(address)) = (running.as_deref(), address) {
                if !http_client::is_loopback(&address) {
                    bail!("{} has the address {address}, which is not on this machine: not dialled", self.id);
                }
                return Ok(address);
            }
            interruption::pause(BETWEEN_LOOKS)?;
        }
        bail!("{} was not running with an address within {} s", self.id, LIMIT.as_secs())
    }

    fn wait_for_login(&self) -> Result<()> {
        let since = Instant::now();
        loop {
            match process::run_quietly(self.ssh().arg("true")) {
                Ok(()) => return Ok(()),
                Err(error) if since.elapsed() > LIMIT => {
                    return Err(
                        error.context(format!("no login as {USER} at {} ({})", self.address, self.id))
                    );
                }
                Err(_) => interruption::pause(BETWEEN_LOOKS)?,
            }
        }
    }

    fn ssh(&self) -> Command {
        let mut command = Command::new("ssh");
        // No configuration and no agent of the person's: only this key, and a list of hosts of this run's own.
        command.args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "IdentityAgent=none",
        ]);
        command.args([
            "-o",
            "StrictHostKeyChecking=accept-new",
            "-o",
            "ConnectTimeout=5",
            "-o",
            "LogLevel=ERROR",
        ]);
        command.arg("-o").arg(format!("UserKnownHostsFile={}", self.known_hosts.display()));
        command.arg("-i").arg(&self.key).arg(format!("{USER}@{}", self.address));
        command
    }
}
