//! One instance: its files on this machine and its body.
//!
//! Knows nothing of the API: callers tell moto. One life-changing operation at a time holds [`Instance::life`].

use std::{
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    InstanceProfile,
    body::{Body, BodySpec},
    moto::Caller,
    registry::{Key, LayerId, Layers},
    rewrite::BodyState,
};

/// Where root file systems and layers are.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) work_dir: PathBuf,
    /// `None`: nothing to boot from, instances exist in the API only.
    pub(crate) root_filesystem: Option<PathBuf>,
    /// `None`: with the instance's other files.
    pub(crate) consoles: Option<PathBuf>,
    pub(crate) profile: InstanceProfile,
}

impl Store {
    pub(crate) fn layer(&self, layer: LayerId) -> PathBuf {
        self.work_dir.join("layers").join(layer.0.to_string())
    }

    fn lower(&self, layers: &[LayerId]) -> io::Result<Vec<PathBuf>> {
        let base = self
            .root_filesystem
            .clone()
            .ok_or_else(|| io::Error::other("there is no root file system to boot from"))?;
        Ok(layers.iter().map(|layer| self.layer(*layer)).chain([base]).collect())
    }

    /// A description that only tries out whether this machine can do it.
    pub(crate) fn probe(&self, directory: &Path) -> io::Result<BodySpec> {
        Ok(BodySpec {
            hostname: "ciab-probe".to_owned(),
            address: Ipv4Addr::LOCALHOST,
            lower: self.lower(&[])?,
            upper: directory.join("upper"),
            work: directory.join("work"),
            mount_point: directory.join("root"),
            public_key: None,
            user_data: None,
            environment: Vec::new(),
            programs: Vec::new(),
            probe: true,
        })
    }
}

#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) key: Key,
    pub(crate) caller: Caller,
    pub(crate) address: Ipv4Addr,
    /// Network interfaces that came with the instance and go with it.
    pub(crate) interfaces: Vec<String>,
    /// False: exists in the API only.
    pub(crate) hosted: bool,
    first_boot: FirstBoot,
    directory: PathBuf,
    store: Store,
    state: Mutex<State>,
    pub(crate) life: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    layers: Layers,
    body: Option<Arc<Body>>,
    /// User data runs at the first boot alone.
    has_booted: bool,
    terminating: bool,
}

/// What an instance is made from.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) key: Key,
    pub(crate) caller: Caller,
    pub(crate) address: Ipv4Addr,
    pub(crate) interfaces: Vec<String>,
    /// `None`: exists in the API only.
    pub(crate) layers: Option<Layers>,
    pub(crate) first_boot: FirstBoot,
}

/// What a launch says to the instance itself.
#[derive(Debug, Clone)]
pub(crate) struct FirstBoot {
    pub(crate) public_key: Option<String>,
    pub(crate) user_data: Option<String>,
    pub(crate) has_profile: bool,
}

impl Instance {
    pub(crate) fn new(launch: Launch, store: Store) -> Self {
        let name = format!("{}-{}", launch.key.region, launch.key.id);
        Self {
            directory: store.work_dir.join("instances").join(name),
            key: launch.key,
            caller: launch.caller,
            address: launch.address,
            interfaces: launch.interfaces,
            hosted: launch.layers.is_some(),
            first_boot: launch.first_boot,
            store,
            state: Mutex::new(State {
                layers: launch.layers.unwrap_or_default(),
                body: None,
                has_booted: false,
                terminating: false,
            }),
            life: tokio::sync::Mutex::new(()),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The layers below what the instance itself writes.
    pub(crate) fn layers(&self) -> Layers {
        self.state().layers.clone()
    }

    pub(crate) fn body(&self) -> Option<Arc<Body>> {
        self.state().body.clone()
    }

    pub(crate) fn body_state(&self) -> BodyState {
        let state = self.state();
        match &state.body {
            _ if state.terminating => BodyState::Terminating,
            None => BodyState::Absent,
            Some(body) if body.state() == BodyState::Absent => BodyState::Absent,
            Some(body) if body.is_ending() => BodyState::Stopping,
            Some(body) => body.state(),
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.body().is_some_and(|body| body.state() != BodyState::Absent)
    }

    /// From now on it is shown as shutting down, until [`Instance::cancel_termination`] or its removal.
    pub(crate) fn begin_termination(&self) {
        self.state().terminating = true;
    }

    pub(crate) fn cancel_termination(&self) {
        self.state().terminating = false;
    }

    /// The end of what the instance said while it booted and ran.
    pub(crate) fn console_tail(&self) -> String {
        let text = std::fs::read(self.console()).unwrap_or_default();
        let start = text.len().saturating_sub(2000);
        String::from_utf8_lossy(&text[start..]).trim().to_owned()
    }

    fn console(&self) -> PathBuf {
        match &self.store.consoles {
            Some(folder) => folder.join(format!("{}.log", self.key.id)),
            None => self.directory.join("console.log"),
        }
    }

    /// Starts the body; does not wait for its sshd. What the instance wrote before is there again.
    pub(crate) async fn boot(&self) -> io::Result<Arc<Body>> {
        let work = self.directory.join("work");
        let upper = self.directory.join("upper");
        let mount_point = self.directory.join("root");
        if work.exists() {
            // Overlayfs wants it empty, and marks it when it was used without waiting for the disk.
            tokio::fs::remove_dir_all(&work).await?;
        }
        for directory in [&work, &upper, &mount_point] {
            tokio::fs::create_dir_all(directory).await?;
        }
        if let Some(folder) = &self.store.consoles {
            tokio::fs::create_dir_all(folder).await?;
        }
        let profile =
            if self.first_boot.has_profile { self.store.profile.clone() } else { InstanceProfile::default() };
        let is_first = !std::mem::replace(&mut self.state().has_booted, true);
        let [a, b, c, d] = self.address.octets();
        let spec = BodySpec {
            hostname: format!("ip-{a}-{b}-{c}-{d}"),
            address: self.address,
            lower: self.store.lower(&self.layers())?,
            upper,
            work,
            mount_point,
            public_key: self.first_boot.public_key.clone(),
            user_data: self.first_boot.user_data.clone().filter(|_| is_first),
            environment: profile.environment,
            programs: profile.programs,
            probe: false,
        };
        let body = Arc::new(Body::start(&spec, &self.console()).await?);
        self.state().body = Some(body.clone());
        Ok(body)
    }

    /// Ends the body in good order.
    pub(crate) async fn shut_down(&self) {
        if let Some(body) = self.body() {
            body.shut_down().await;
        }
    }

    /// Ends the body at once.
    pub(crate) async fn kill(&self) {
        if let Some(body) = self.body() {
            body.kill().await;
        }
    }

    /// Makes what a stopped instance wrote the newest layer; the instance goes on atop it. Moves, copies nothing.
    pub(crate) async fn freeze(&self, layer: LayerId) -> io::Result<()> {
        let upper = self.directory.join("upper");
        tokio::fs::create_dir_all(self.store.work_dir.join("layers")).await?;
        tokio::fs::rename(&upper, self.store.layer(layer)).await?;
        tokio::fs::create_dir_all(&upper).await?;
        self.state().layers.insert(0, layer);
        Ok(())
    }

    /// Copies what a running instance has written so far into a layer; the instance is left alone. Like a snapshot
    /// without reboot, the copy is of no one moment.
    pub(crate) async fn copy_to(&self, layer: LayerId) -> io::Result<()> {
        let to = self.store.layer(layer);
        tokio::fs::create_dir_all(&to).await?;
        // `cp` knows about overlayfs's own marks: character devices for what was deleted, trusted attributes for the rest.
        let output = tokio::process::Command::new("cp")
            .arg("-a")
            .arg(self.directory.join("upper").join("."))
            .arg(&to)
            .stdin(std::process::Stdio::null())
            .output()
            .await?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        // A file may vanish while it is copied; everything else is a failure.
        if said.lines().all(|line| line.contains("No such file or directory")) {
            return Ok(());
        }
        Err(io::Error::other(said.trim().to_owned()))
    }

    /// Where its files are, to be removed once it is gone.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}
