//! Packer on the runner: which one, and where it comes from where it is not there.
//!
//! What is downloaded is of a pinned version, is what its checksum says before anything of it is unpacked, and is kept in the
//! stack's bucket: the next build asks nobody else for it. Must never run, unpack or keep what has not been checked.

mod archive;
mod release;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use ciab_core::ports::{ObjectStore, PortError};
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use crate::log::{Log, Stream};
use crate::packer::{Packer, PackerError, PackerVersion};
use crate::stop::{StopReason, StopSwitch};

pub use archive::UnpackError;
pub use release::{Mirror, Product, Release};

/// The folder that Packer is unpacked to, in the build's own.
const TOOLS: &str = "tools";
/// The folder that plugins are looked for in, in the build's own.
const PLUGINS: &str = "plugins";
/// How often a server that cannot answer is asked.
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// What the operator says of Packer.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// This one and no other, by path or by a name that is looked up in `PATH`.
    pub binary: Option<PathBuf>,
    /// Whether anything may be downloaded.
    pub auto_install: bool,
    /// The version that must be there.
    pub packer: Release,
    /// The Amazon plugin, for versions of Packer that take plugins.
    pub amazon_plugin: Release,
}

/// Where archives are downloaded from.
#[async_trait]
pub trait Downloads: Send + Sync {
    /// The file at this address of a mirror.
    async fn download(&self, mirror: &Mirror, path: &str) -> Result<Vec<u8>, DownloadFailed>;
}

/// Nothing came.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DownloadFailed {
    /// It may come later.
    #[error("{0}")]
    Unavailable(String),
    /// It will not.
    #[error("{0}")]
    Refused(String),
}

/// Why there is no Packer.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Packer was found and could not be asked.
    #[error(transparent)]
    Packer(#[from] PackerError),
    /// It is not there and may not be downloaded.
    #[error(
        "{found}, and PackerAutoInstall is false: have the runner's image bring Packer {wanted}, say where it is \
         (PackerBinaryPath), or allow it to be downloaded (PackerAutoInstall)"
    )]
    MayNotInstall {
        /// What there is in its place, in a few words.
        found: String,
        /// The version.
        wanted: String,
    },
    /// Nothing says what the archive must be.
    #[error(
        "{product} {version} is not downloaded without its checksum: set {parameter} to the one that the release's SHA256SUMS \
         has for {file}"
    )]
    NoChecksum {
        /// What was to be installed.
        product: Product,
        /// Which one.
        version: String,
        /// The stack's parameter.
        parameter: &'static str,
        /// The archive's name.
        file: String,
    },
    /// Another archive came than was meant.
    #[error(
        "what {host} sent for {file} has the SHA-256 {found} and not {expected}: it was not unpacked. Compare {parameter} with \
         the release's SHA256SUMS"
    )]
    WrongChecksum {
        /// Who sent it.
        host: String,
        /// The archive's name.
        file: String,
        /// Its digest.
        found: String,
        /// What the operator says.
        expected: String,
        /// The stack's parameter.
        parameter: &'static str,
    },
    /// Nothing came.
    #[error("{file} could not be downloaded: {source}")]
    NotDownloaded {
        /// The archive's name.
        file: String,
        /// Why not.
        source: DownloadFailed,
    },
    /// The archive was right and could not be unpacked.
    #[error("{file} could not be unpacked")]
    NotUnpacked {
        /// The archive's name.
        file: String,
        /// Why not.
        #[source]
        source: UnpackError,
    },
    /// The build was stopped.
    #[error("the build was stopped")]
    Stopped(StopReason),
}

impl From<StopReason> for InstallError {
    fn from(reason: StopReason) -> Self {
        Self::Stopped(reason)
    }
}

/// Puts Packer where a build can use it.
pub struct Installer<'a> {
    /// What is wanted.
    pub wanted: &'a Wanted,
    /// The stack's bucket.
    pub objects: &'a dyn ObjectStore,
    /// Everywhere else.
    pub downloads: &'a dyn Downloads,
    /// The build's log.
    pub log: &'a Log,
    /// Ends a wait.
    pub switch: &'a StopSwitch,
    /// The build's own folder.
    pub work: &'a Path,
}

impl Installer<'_> {
    /// Lets `packer` be the one that is wanted, and tells its version.
    ///
    /// # Errors
    /// Where there is none: then nothing has been launched.
    pub async fn packer(&self, packer: &mut Packer) -> Result<PackerVersion, InstallError> {
        if let Some(binary) = &self.wanted.binary {
            packer.uses(binary.clone());
            return Ok(packer.version().await?);
        }
        let release = &self.wanted.packer;
        packer.uses("packer".into());
        let found = match packer.version().await {
            Ok(version) if version.text == release.version => return Ok(version),
            Ok(version) => format!("the runner's Packer is {} and not {}", version.text, release.version),
            Err(error @ PackerError::Stopped { .. }) => return Err(error.into()),
            Err(PackerError::NotStarted { .. } | PackerError::NoVersion { .. }) => {
                "there is no Packer on the runner's path".to_owned()
            }
        };
        if !self.wanted.auto_install {
            return Err(InstallError::MayNotInstall { found, wanted: release.version.clone() });
        }
        let binary = self.install(release, &self.work.join(TOOLS)).await?;
        packer.uses(binary);
        Ok(packer.version().await?)
    }

    /// Puts the Amazon plugin where Packer looks for it, so that it need not download it. The answer is the folder.
    ///
    /// # Errors
    /// Where it is not to be had.
    pub async fn amazon_plugin(&self) -> Result<PathBuf, InstallError> {
        let plugins = self.work.join(PLUGINS);
        let folder = plugins.join("github.com").join("hashicorp").join("amazon");
        let binary = self.install(&self.wanted.amazon_plugin, &folder).await?;
        archive::write_checksum(binary)
            .await
            .map_err(|source| InstallError::NotUnpacked { file: self.wanted.amazon_plugin.file(), source })?;
        Ok(plugins)
    }

    async fn install(&self, release: &Release, folder: &Path) -> Result<PathBuf, InstallError> {
        let bytes = self.archive(release).await?;
        let unpacked = archive::unpack(bytes, release.program(), folder.to_owned()).await;
        unpacked.map_err(|source| InstallError::NotUnpacked { file: release.file(), source })
    }

    /// The archive, from the bucket or from its mirror, after a look at its checksum.
    async fn archive(&self, release: &Release) -> Result<Vec<u8>, InstallError> {
        let Some(expected) = &release.sha256 else {
            return Err(InstallError::NoChecksum {
                product: release.product,
                version: release.version.clone(),
                parameter: release.product.checksum_parameter(),
                file: release.file(),
            });
        };
        let what = format!("{} {}", release.product, release.version);
        let key = release.key();
        match self.switch.unless_stopped(self.objects.get(&key)).await? {
            Ok(Some(bytes)) if sha256(&bytes) == *expected => {
                self.say(&format!("{what} from the stack's bucket"));
                return Ok(bytes);
            }
            Ok(Some(_)) => self.say(&format!("{key} in the stack's bucket is not {what}: it is replaced")),
            Ok(None) => {}
            Err(error) => self.could_not("the stack's bucket could not be asked for it", &error),
        }
        let bytes = self.download(release).await?;
        let found = sha256(&bytes);
        if found != *expected {
            return Err(InstallError::WrongChecksum {
                host: release.mirror.host(),
                file: release.file(),
                found,
                expected: expected.clone(),
                parameter: release.product.checksum_parameter(),
            });
        }
        self.say(&format!("{what} from {}", release.mirror.host()));
        // Two builds may do this at once: both write the same bytes, for both have looked at the checksum.
        match self.switch.unless_stopped(self.objects.put(&key, bytes.clone())).await? {
            Ok(()) => self.say(&format!("{what} is kept in the stack's bucket for the builds to come")),
            Err(error) => self.could_not("it could not be kept in the stack's bucket", &error),
        }
        Ok(bytes)
    }

    async fn download(&self, release: &Release) -> Result<Vec<u8>, InstallError> {
        let mut pause = FIRST_PAUSE;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let path = release.path();
            match self.switch.unless_stopped(self.downloads.download(&release.mirror, &path)).await? {
                Ok(bytes) => return Ok(bytes),
                Err(DownloadFailed::Unavailable(why)) if attempts < ATTEMPTS => {
                    self.say(&format!("{} did not come ({why}): it is asked for again", release.file()));
                    self.switch.unless_stopped(sleep(pause)).await?;
                    pause *= 2;
                }
                Err(source) => return Err(InstallError::NotDownloaded { file: release.file(), source }),
            }
        }
    }

    fn say(&self, what: &str) {
        self.log.add(Stream::Runner, what, false);
    }

    fn could_not(&self, what: &str, error: &PortError) {
        tracing::warn!(error = error as &dyn std::error::Error, "{what}");
        self.say(what);
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
