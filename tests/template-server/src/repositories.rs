//! Real repositories behind git's own server program, over the test's https.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::server::{Answer, Request};

/// A folder with a repository that is worked in.
pub struct Repository {
    folder: TempDir,
}

/// git, as nobody has configured it.
fn git(folder: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(folder).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    for (name, value) in [
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_AUTHOR_NAME", "a"),
        ("GIT_AUTHOR_EMAIL", "a@example.com"),
        ("GIT_COMMITTER_NAME", "a"),
        ("GIT_COMMITTER_EMAIL", "a@example.com"),
        ("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z"),
        ("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z"),
    ] {
        git.env(name, value);
    }
    git
}

impl Repository {
    pub fn create() -> Self {
        let repository = Self { folder: TempDir::new().unwrap() };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        let output = git(self.folder.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub fn link(&self, path: &str, to: &str) {
        std::os::unix::fs::symlink(to, self.folder.path().join(path)).unwrap();
    }

    /// Commits all that is there; its id.
    pub fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=x"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Takes what git would not add: entries as `git mktree` reads them. Its id as a commit.
    pub fn commit_tree(&self, entries: &str) -> String {
        let mut mktree = git(self.folder.path());
        let mut mktree = mktree
            .args(["mktree", "--missing"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        mktree.stdin.take().unwrap().write_all(entries.as_bytes()).unwrap();
        let output = mktree.wait_with_output().unwrap();
        assert!(output.status.success());
        let tree = String::from_utf8(output.stdout).unwrap();
        let commit = self.git(&["commit-tree", "-m", "x", tree.trim()]);
        self.git(&["update-ref", "refs/heads/main", &commit]);
        commit
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join(".git")
    }
}

/// Answers as git's own server program does. In protocol 0 where it is not told of a later one.
pub fn answer(repository: &Path, request: &Request, tell_version: bool) -> Answer {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let Some((_, path)) = path.split_once(".git/") else { return crate::server::status(404) };
    let mut backend = git(repository);
    backend
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", repository)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", format!("/{path}"))
        .env("REQUEST_METHOD", &request.method)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", request.header("content-type").unwrap_or_default())
        .env("CONTENT_LENGTH", request.body.len().to_string())
        // The repository belongs to whoever runs the tests.
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*");
    if tell_version {
        backend.env("GIT_PROTOCOL", request.header("git-protocol").unwrap_or_default());
    }
    let mut backend =
        backend.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    backend.stdin.take().unwrap().write_all(&request.body).unwrap();
    let output = backend.wait_with_output().unwrap().stdout;
    let head = output.windows(4).position(|window| window == b"\r\n\r\n").expect("a CGI program's head");
    let (mut status, mut headers) = (200, Vec::new());
    for line in String::from_utf8_lossy(&output[..head]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        match name {
            "Status" => status = value[..3].parse().unwrap(),
            _ => headers.push((name.to_owned(), value.to_owned())),
        }
    }
    Answer::Plain { status, headers, body: output[head + 4..].to_vec() }
}
