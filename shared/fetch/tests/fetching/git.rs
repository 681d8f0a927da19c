//! Files and folders of git repositories.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ciab_core::ports::Fetched;
use ciab_fetch::Limits;

use crate::{PUBLIC, World, refused};
use template_server::repositories::{Repository, answer};
use template_server::server::{redirect, status};

const SOURCE: &str = "git::https://public.example/o/r.git";

/// One in which this repository is at [`SOURCE`].
fn serving(repository: &Repository) -> World {
    let path = repository.path();
    World::with_server(move |request| answer(&path, request, true))
}

/// A repository with two templates, and the ids of its two commits.
fn templates() -> (Repository, [String; 2]) {
    let repository = Repository::create();
    repository.write("old.pkr.hcl", "old = 1");
    let old = repository.commit();
    repository.git(&["branch", "old"]);
    repository.git(&["tag", "light"]);
    repository.git(&["tag", "--annotate", "--message=x", "annotated"]);
    repository.git(&["rm", "--quiet", "old.pkr.hcl"]);
    for (path, text) in [
        ("README.md", "read me"),
        ("packer/a.pkr.hcl", "a = 1"),
        ("packer/b.pkr.hcl", "b = 1"),
        ("packer/a.auto.pkrvars.hcl", "c = 1"),
        ("packer/shared.json", "{}"),
        ("packer/scripts/x.sh", "echo x"),
        ("packer/scripts/y.pkr.hcl", "y = 1"),
    ] {
        repository.write(path, text);
    }
    let new = repository.commit();
    (repository, [old, new])
}

fn paths(bundle: &ciab_template::Bundle) -> Vec<&str> {
    bundle.files().map(|(path, _)| path).collect()
}

#[tokio::test]
async fn branches_tags_commits_and_the_head_are_fetched() {
    let (repository, [old, new]) = templates();
    let world = serving(&repository);
    for (reference, commit) in [
        ("", &new),
        ("?ref=HEAD", &new),
        ("?ref=main", &new),
        ("?ref=refs/heads/main", &new),
        ("?ref=old", &old),
        ("?ref=light", &old),
        ("?ref=annotated", &old),
        ("?ref=refs/tags/annotated", &old),
        (&format!("?ref={new}"), &new),
        (&format!("?ref={old}"), &old),
    ] {
        let fetched = world.fetch(&format!("{SOURCE}{reference}")).await;
        let Ok(Fetched::Bundle { bundle, validator }) = fetched else { panic!("{reference}: {fetched:?}") };
        assert_eq!(validator.as_ref(), Some(commit), "{reference}");
        assert_eq!(bundle.get("old.pkr.hcl").is_some(), commit == &old, "{reference}");
        assert_eq!(bundle.get("packer/a.pkr.hcl").is_some(), commit == &new, "{reference}");
        let (asked, dialled) = (world.network.asked(), world.network.dialled());
        assert_eq!(asked, ["public.example"]);
        assert!(dialled.len() <= 3 && dialled.iter().all(|to| *to == format!("{PUBLIC}:443")), "{dialled:?}");
    }
}

#[tokio::test]
async fn a_folder_is_its_files_and_a_file_is_the_only_template_among_those_beside_it() {
    let (repository, _) = templates();
    let world = serving(&repository);
    let folder = world.bundle(&format!("{SOURCE}//packer")).await;
    let everything =
        ["a.auto.pkrvars.hcl", "a.pkr.hcl", "b.pkr.hcl", "scripts/x.sh", "scripts/y.pkr.hcl", "shared.json"];
    assert_eq!(paths(&folder), everything);
    let file = world.bundle(&format!("{SOURCE}//packer/b.pkr.hcl?ref=main")).await;
    assert_eq!(paths(&file), ["b.pkr.hcl", "scripts/x.sh", "scripts/y.pkr.hcl", "shared.json"]);
    assert_eq!(file.get("b.pkr.hcl"), Some(&b"b = 1"[..]));
    let message = world.refused(&format!("{SOURCE}//README.md")).await;
    assert!(message.contains("`README.md`"), "{message}");
    for path in ["nothing", "packer/nothing", "README.md/x", "packer/a.pkr.hcl/x", "PACKER"] {
        let message = world.refused(&format!("{SOURCE}//{path}")).await;
        assert!(message.contains(&format!("nothing at `{path}`")), "{message}");
    }
}

#[tokio::test]
async fn a_commit_that_is_known_is_not_fetched_again() {
    let (repository, [old, new]) = templates();
    let posts = Arc::new(AtomicUsize::new(0));
    let (path, counted) = (repository.path(), posts.clone());
    let world = World::with_server(move |request| {
        counted.fetch_add(
            usize::from(request.body.windows(13).any(|window| window == b"command=fetch")),
            Ordering::SeqCst,
        );
        answer(&path, request, true)
    });
    for source in [SOURCE.to_owned(), format!("{SOURCE}?ref=main")] {
        assert_eq!(world.fetch_with(&source, Some(&new), None).await, Ok(Fetched::Unchanged));
    }
    assert_eq!(
        world.fetch_with(&format!("{SOURCE}?ref=annotated"), Some(&old), None).await,
        Ok(Fetched::Unchanged)
    );
    assert_eq!(posts.load(Ordering::SeqCst), 0);
    world.network.dialled();
    let source = format!("{SOURCE}?ref={new}");
    assert_eq!(world.fetch_with(&source, Some(&new), None).await, Ok(Fetched::Unchanged));
    assert_eq!(world.network.dialled(), [""; 0], "what a commit holds never changes");
    let fetched = world.fetch_with(SOURCE, Some(&old), None).await;
    assert!(matches!(fetched, Ok(Fetched::Bundle { .. })), "{fetched:?}");
    assert_eq!(posts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_reference_that_there_is_none_of_is_refused_with_what_can_be_done() {
    let (repository, _) = templates();
    let world = serving(&repository);
    let message = world.refused(&format!("{SOURCE}?ref=nope")).await;
    assert!(message.contains("neither a branch nor a tag `nope`"), "{message}");
    let unknown = "0123456789".repeat(4);
    let message = world.refused(&format!("{SOURCE}?ref={unknown}")).await;
    assert!(message.contains(&unknown) && message.contains("name a branch or a tag"), "{message}");
    let message = world.refused(&format!("{SOURCE}?ref=01234567")).await;
    assert!(message.contains("40 digits"), "{message}");
    let empty = Repository::create();
    let message = serving(&empty).refused(SOURCE).await;
    assert!(message.contains("no commit yet"), "{message}");
}

#[tokio::test]
async fn a_server_that_knows_only_the_first_protocol_serves_branches_and_tags() {
    let (repository, [old, new]) = templates();
    let path = repository.path();
    let world = World::with_server(move |request| answer(&path, request, false));
    for (reference, commit) in
        [("", &new), ("?ref=main", &new), ("?ref=light", &old), ("?ref=annotated", &old)]
    {
        let fetched = world.fetch(&format!("{SOURCE}{reference}")).await;
        let Ok(Fetched::Bundle { validator, .. }) = fetched else { panic!("{reference}: {fetched:?}") };
        assert_eq!(validator.as_ref(), Some(commit), "{reference}");
    }
    // Such a server gives out what it lists, and what lies before that.
    let hidden = repository.commit_tree("");
    repository.git(&["update-ref", "refs/heads/main", &new]);
    let message = world.refused(&format!("{SOURCE}?ref={hidden}")).await;
    assert!(message.contains("name a branch or a tag"), "{message}");
}

#[tokio::test]
async fn links_and_submodules_are_refused_where_they_belong_to_the_template() {
    let (repository, [old, _]) = templates();
    repository.link("packer/link", "../README.md");
    std::fs::create_dir(repository.path().join("../module")).unwrap();
    repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{old},module/inside")]);
    repository.git(&["add", "packer"]);
    repository.git(&["commit", "--quiet", "--message=x"]);
    let world = serving(&repository);
    for (path, says) in [
        ("//packer", "`packer/link` is a symbolic link"),
        ("//packer/link", "`packer/link` is a symbolic link"),
        ("//packer/link/x", "`packer/link` is a symbolic link"),
        ("//module", "`module/inside` is a submodule"),
        ("//module/inside", "`module/inside` is a submodule"),
        ("//module/inside/x", "`module/inside` is a submodule"),
    ] {
        let message = world.refused(&format!("{SOURCE}{path}")).await;
        assert!(message.contains(says), "{path}: {message}");
    }
    world.bundle(&format!("{SOURCE}//packer/scripts")).await;
}

#[tokio::test]
async fn names_that_git_itself_would_not_write_are_refused() {
    let repository = Repository::create();
    repository.write("t.pkr.hcl", "a = 1");
    repository.commit();
    let blob = repository.git(&["rev-parse", "HEAD:t.pkr.hcl"]);
    for name in [".git", ".GIT", "..", ".", "a\\b", "a\u{1b}b"] {
        repository.commit_tree(&format!("100644 blob {blob}\t{name}\n"));
        let message = serving(&repository).refused(SOURCE).await;
        assert!(message.contains("path"), "{name}: {message}");
    }
}

#[tokio::test]
async fn a_private_repository_is_fetched_with_a_token_that_nobody_else_sees() {
    let (repository, _) = templates();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (path, seeing) = (repository.path(), seen.clone());
    let world = World::with_server(move |request| {
        let host = request.header("host").unwrap().to_owned();
        let authorization = request.header("authorization").map(ToOwned::to_owned);
        seeing.lock().unwrap().push((host.clone(), authorization.clone()));
        match authorization.as_deref() {
            _ if request.target.starts_with("/moved.git/") => {
                redirect(&format!("https://other.example/o/r.git{}", &request.target["/moved.git".len()..]))
            }
            Some("Basic eC1hY2Nlc3MtdG9rZW46czNjcmV0") => answer(&path, request, true),
            None if host == "other.example" => answer(&path, request, true),
            _ => status(401).with("WWW-Authenticate", "Basic realm=x"),
        }
    });
    world.network.name("other.example", &[&["8.8.8.8"]]);
    let message = world.refused(SOURCE).await;
    assert!(message.contains("without a token"), "{message}");
    let message = refused(world.fetch_with(SOURCE, None, Some("wr0ng")).await);
    assert!(message.contains("with the token") && !message.contains("wr0ng"), "{message}");
    let fetched = world.fetch_with(SOURCE, None, Some("s3cret\n")).await;
    assert!(matches!(fetched, Ok(Fetched::Bundle { .. })), "{fetched:?}");

    seen.lock().unwrap().clear();
    let moved = world.fetch_with("git::https://public.example/moved.git", None, Some("s3cret")).await;
    assert!(matches!(moved, Ok(Fetched::Bundle { .. })), "{moved:?}");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(seen.iter().all(|(host, given)| given.is_some() == (host == "public.example")), "{seen:?}");
}

#[tokio::test]
async fn a_huge_repository_is_stopped_by_the_limits() {
    let repository = Repository::create();
    // What can't be compressed.
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    repository.write("noise", (0..3 << 20).map(|_| noise()).collect::<Vec<u8>>());
    repository.write("t/t.pkr.hcl", "a = 1");
    repository.commit();
    let mut world = serving(&repository);
    world.limits.git_bytes = 2 << 20;
    let message = world.refused(SOURCE).await;
    assert!(message.contains("more than the 2097152 bytes"), "{message}");
    world.limits.git_bytes = 4 << 20;
    world.bundle(SOURCE).await;
    world.limits.unpacked.total_bytes = 2 << 20;
    let message = world.refused(SOURCE).await;
    assert!(message.contains("more than 2097152 bytes"), "{message}");
    world.bundle(&format!("{SOURCE}//t")).await;
    world.limits.unpacked = Limits::default().unpacked;
    world.limits.unpacked.files = 2;
    let message = world.refused(SOURCE).await;
    assert!(message.contains("more than 2 files"), "{message}");
}

#[tokio::test]
async fn an_object_that_inflates_without_end_is_not_inflated() {
    let repository = Repository::create();
    repository.write("t.pkr.hcl", "a = 1");
    repository.write("zeros", vec![0; 4 << 20]);
    repository.commit();
    let mut world = serving(&repository);
    world.limits.object_bytes = 1 << 20;
    let message = world.refused(SOURCE).await;
    assert!(message.contains("larger than 1048576 bytes"), "{message}");
    world.limits.object_bytes = 5 << 20;
    world.bundle(SOURCE).await;
}

#[tokio::test]
async fn folders_that_hold_each_other_many_times_are_not_walked_to_the_end() {
    let repository = Repository::create();
    repository.write("t.pkr.hcl", "a = 1");
    repository.commit();
    // Ten folders in each, forty deep, in forty objects.
    let mut tree = repository.git(&["rev-parse", "HEAD^{tree}"]);
    for _ in 0..40 {
        let entries: String = (0..10).map(|name| format!("040000 tree {tree}\t{name}\n")).collect();
        let commit = repository.commit_tree(&entries);
        tree = repository.git(&["rev-parse", &format!("{commit}^{{tree}}")]);
    }
    let message = serving(&repository).refused(SOURCE).await;
    assert!(message.contains("more than 2000 files and folders"), "{message}");
}

#[tokio::test]
async fn what_is_no_repository_is_refused() {
    let (repository, _) = templates();
    let path = repository.path();
    let world = World::with_server(move |request| match request.target.as_str() {
        target if target.starts_with("/page.git") => template_server::server::ok("<html>"),
        target if target.starts_with("/elsewhere.git") => redirect("https://public.example/"),
        "/" => template_server::server::ok("<html>"),
        target if target.starts_with("/down.git") => status(503),
        target if target.starts_with("/garbage.git") => template_server::server::ok("zzzz")
            .with("Content-Type", "application/x-git-upload-pack-advertisement"),
        target if target.starts_with("/half.git") && request.method == "POST" => {
            template_server::server::ok("0011packfile\nzzzz")
                .with("Content-Type", "application/x-git-upload-pack-result")
        }
        _ => answer(&path, request, true),
    });
    for (name, says) in [
        ("page", "did not answer as a git server"),
        ("garbage", "did not answer as a git server"),
        ("elsewhere", "not a git repository"),
        ("half", "can't be read"),
    ] {
        let message = world.refused(&format!("git::https://public.example/{name}.git")).await;
        assert!(message.contains("public.example") && message.contains(says), "{name}: {message}");
    }
    let message = world.refused("git::https://public.example/none").await;
    assert!(message.contains("404"), "{message}");
    world.unavailable("git::https://public.example/down.git").await;
}

#[test]
fn nothing_stays_on_disk() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.env("TMPDIR", folder.path()).arg("--exact");
    again.args([
        "git::a_folder_is_its_files_and_a_file_is_the_only_template_among_those_beside_it",
        "git::a_huge_repository_is_stopped_by_the_limits",
    ]);
    let output = again.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("2 passed"), "{output:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
