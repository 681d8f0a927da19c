//! The programs that have to be on the machine, and the Debian packages that bring them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// A program, how to see that it is there, and the package that has it.
#[derive(Clone, Copy)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) packages: &'static [&'static str],
    find: fn(&str) -> Option<PathBuf>,
}

impl Program {
    pub(crate) const PACKER: Self = Self::on_path("packer", &["packer"]);
    pub(crate) const MMDEBSTRAP: Self = Self::on_path("mmdebstrap", &["mmdebstrap"]);
    pub(crate) const SSH: Self = Self::on_path("ssh", &["openssh-client"]);
    pub(crate) const SSH_KEYGEN: Self = Self::on_path("ssh-keygen", &["openssh-client"]);
    pub(crate) const UNSHARE: Self = Self::on_path("unshare", &["util-linux"]);
    pub(crate) const JAVA: Self = Self::on_path("java", &["default-jre-headless"]);
    /// Used where it is; never installed.
    pub(crate) const NPM: Self = Self::on_path("npm", &["npm"]);
    pub(crate) const CURL: Self = Self::on_path("curl", &["curl"]);
    pub(crate) const SHELLCHECK: Self = Self::on_path("shellcheck", &["shellcheck"]);
    /// A Python that can make environments; Debian ships the interpreter without that.
    pub(crate) const PYTHON: Self =
        Self { name: "python3", packages: &["python3", "python3-venv"], find: python_with_environments };
    /// The authorities that registries over TLS are checked against.
    pub(crate) const CERTIFICATES: Self =
        Self { name: "ca-certificates", packages: &["ca-certificates"], find: |_| certificates() };

    const fn on_path(name: &'static str, packages: &'static [&'static str]) -> Self {
        Self { name, packages, find: on_path }
    }

    pub(crate) fn is_missing(&self) -> bool {
        (self.find)(self.name).is_none()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        (self.find)(self.name).with_context(|| {
            format!("{} is missing (Debian has it in {})", self.name, self.packages.join(" and "))
        })
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    candidates(name).next()
}

fn candidates(name: &str) -> impl Iterator<Item = PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let name = name.to_owned();
    directories.into_iter().map(move |directory| directory.join(&name)).filter(|file| {
        file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    })
}

/// The oldest Python that the pinned packages accept is 3.10. A machine may have several: the first that will do.
fn python_with_environments(name: &str) -> Option<PathBuf> {
    candidates(name).find(|python| {
        let check = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))";
        Command::new(python)
            .args(["-c", check])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

fn certificates() -> Option<PathBuf> {
    let bundle = Path::new("/etc/ssl/certs/ca-certificates.crt");
    bundle.is_file().then(|| bundle.to_path_buf())
}
