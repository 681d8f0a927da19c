//! EC2 on one machine: moto keeps the API's state, this crate stands in front of it and gives instances a body.
//!
//! An instance is a Linux root file system in namespaces of its own with sshd on a loopback address; CreateImage keeps
//! what the instance wrote as a layer, so the image can be booted again. Everything else of the API is moto's, corrected
//! where a client would notice the difference from EC2 (each correction says what moto lacks).
//!
//! Must never: let an address that moto invented reach a client; show a state that the body has not reached; leave a
//! process, mount or namespace behind, however the program that uses it dies; pretend that an instance was provisioned.
//!
//! A program that uses this crate calls [`run_if_asked`] first in its `main`, before any thread exists: instances are
//! started by starting the program again under another name.

mod address;
mod answer;
mod authorization;
mod base_images;
mod body;
mod images;
mod instance;
mod launch;
mod launch_template;
mod life;
mod moto;
mod query;
mod registry;
mod rewrite;
mod root_filesystem;
mod service;
mod user_data;
mod work_dir;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use http::{Request, Response};

pub use crate::{
    address::{AddressError, LoopbackBlock},
    body::launcher::run_if_asked,
    query::Query,
    root_filesystem::{RootFilesystemError, build_root_filesystem},
    work_dir::WorkDirError,
};

/// What EC2 on this machine is made of.
#[derive(Debug)]
pub struct Ec2Options {
    /// Where moto server listens, for example `http://127.0.0.1:5000`.
    pub moto: reqwest::Url,
    /// Everything is kept below it. Belongs to this value alone: what is in it at the start is removed, and so is
    /// everything when it stops.
    pub work_dir: PathBuf,
    /// An unpacked root file system, only ever read; see [`build_root_filesystem`]. `None`: instances exist in the API only.
    pub root_filesystem: Option<PathBuf>,
    /// The instances' addresses.
    pub addresses: LoopbackBlock,
    /// Where the instances' consoles are kept, each as `<instance id>.log`, also when the instance is gone. `None`: a console
    /// goes with its instance.
    pub consoles: Option<PathBuf>,
    /// What an instance finds that was launched with an instance profile.
    pub instance_profile: InstanceProfile,
}

/// What stands in for an instance profile's credentials: an instance that was launched with one, whichever, finds this, and
/// every other instance finds nothing of it.
#[derive(Debug, Clone, Default)]
pub struct InstanceProfile {
    /// Variables of the process that runs the user data.
    pub environment: Vec<(String, String)>,
    /// Programs of this machine: each is seen in the instance, read-only, as `/run/host/<its file's name>`.
    pub programs: Vec<PathBuf>,
}

impl InstanceProfile {
    /// Where an instance sees a program of this machine.
    pub fn place_of(program: &Path) -> PathBuf {
        Path::new(HOST_PROGRAMS).join(program.file_name().unwrap_or_default())
    }
}

/// On a file system that goes with the instance, so that no image made of it holds a trace.
const HOST_PROGRAMS: &str = "/run/host";

/// Why EC2 on this machine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Ec2Error {
    /// The work directory can't be used.
    #[error(transparent)]
    WorkDir(#[from] WorkDirError),
    /// No HTTP client.
    #[error("the HTTP client for moto can't be made")]
    Client(#[source] reqwest::Error),
}

/// Why this machine can't host instances, in words for the person at the terminal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CannotHost(pub String);

/// EC2 on this machine. Cheap to clone; all clones are the same one.
#[derive(Debug, Clone)]
pub struct Ec2 {
    service: Arc<service::Service>,
}

impl Ec2 {
    /// Takes the work directory and finds out whether this machine can host instances. If it can't, that is no error:
    /// instances then exist in the API only, and images made of them are tagged `ciab:provisioned=false`.
    pub async fn start(options: Ec2Options) -> Result<Self, Ec2Error> {
        Ok(Self { service: Arc::new(service::Service::start(options).await?) })
    }

    /// Answers one request of EC2's Query protocol.
    pub async fn handle(&self, request: Request<Bytes>) -> Response<Bytes> {
        self.service.clone().handle(request).await
    }

    /// Whether instances get a body, and if not, why.
    pub fn can_host_instances(&self) -> Result<(), CannotHost> {
        self.service.cannot_host.clone().map_or(Ok(()), Err)
    }

    /// Ends every instance and removes everything below the work directory. Requests after that get an error.
    pub async fn stop(&self) {
        self.service.stop().await;
    }

    /// The base image that this machine can boot, if there is one of its architecture.
    pub fn base_image() -> Option<&'static str> {
        base_images::of_this_machine()
    }

    /// The base images, for the file that moto's `MOTO_AMIS_PATH` names. moto reads it only when it starts.
    pub fn base_images(root_filesystem: Option<&Path>) -> serde_json::Value {
        base_images::list(root_filesystem)
    }
}
