//! Files and archives on web servers.

use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use ciab_core::ports::{Fetched, TemplateFetcher as _};
use ciab_core::template_hosts::TemplateHosts;
use ciab_fetch::{Roots, WebFetcher};
use ciab_template::Bundle;

use crate::{PUBLIC, World, refused};
use template_server::authority::{Authority, self_signed_server};
use template_server::server::{self, Answer, ok, raw, redirect, status};

const URL: &str = "https://public.example/a/t.pkr.hcl?token=s3cret";

#[tokio::test]
async fn a_template_is_fetched_over_a_chain_of_certificates() {
    let world = World::with_server(|request| {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/a/t.pkr.hcl?token=s3cret"));
        assert_eq!(request.header("host"), Some("public.example"));
        assert_eq!(request.header("accept-encoding"), Some("identity"));
        assert_eq!(request.header("authorization"), None);
        ok("a = 1")
    });
    let bundle = world.bundle(URL).await;
    assert_eq!(bundle, Bundle::from_files([("t.pkr.hcl", "a = 1")]).unwrap());
    assert_eq!(world.network.asked(), ["public.example"]);
    assert_eq!(world.network.dialled(), [format!("{PUBLIC}:443")]);
}

#[tokio::test]
async fn a_proxy_that_the_environment_names_is_not_used() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "https::a_template_is_fetched_over_a_chain_of_certificates"]);
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"] {
        again.env(name, &address);
    }
    let output = again.env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    proxy.set_nonblocking(true).unwrap();
    assert!(proxy.accept().is_err(), "somebody asked the proxy");
}

/// Runs once more as a process of its own: the environment can't be changed within one.
#[tokio::test]
async fn the_machine_says_which_authorities_are_believed() {
    const PORT: &str = "CIAB_TEST_PORT";
    if let Ok(port) = std::env::var(PORT) {
        let hosts =
            TemplateHosts { allowed: vec![], trusted: vec![format!("127.0.0.1:{port}").parse().unwrap()] };
        let source = format!("https://127.0.0.1:{port}/t.json").parse().unwrap();
        let fetched = WebFetcher::new(hosts, Roots::of_the_machine()).fetch(&source, None, None).await;
        assert!(matches!(fetched, Ok(Fetched::Bundle { .. })), "{fetched:?}");
        return;
    }
    let authority = Authority::create();
    let server = server::tls(authority.server(&["127.0.0.1"]), |_| ok("{}"));
    for (pem, passed) in [(authority.root_pem(), "1 passed"), (Authority::create().root_pem(), "1 failed")] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pem).unwrap();
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "https::the_machine_says_which_authorities_are_believed"]);
        again
            .env(PORT, server.port().to_string())
            .env("SSL_CERT_FILE", file.path())
            .env_remove("SSL_CERT_DIR");
        let output = again.output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains(passed), "{output:?}");
    }
}

#[tokio::test]
async fn an_archive_is_unpacked_by_any_of_the_names_that_it_has() {
    let packed =
        Bundle::from_files([("t.pkr.hcl", "a = 1"), ("b/c.sh", "x")]).unwrap().to_tar_gz("", &[]).unwrap();
    let world = World::with_server(move |request| match request.target.as_str() {
        "/moved" => redirect("/x/y.tar.gz"),
        "/attached" => ok(packed.clone()).with("Content-Disposition", "attachment; filename=\"z.tgz\""),
        _ => ok(packed.clone()),
    });
    for path in ["a.tar.gz", "a.tgz?raw=1", "moved", "attached", "nameless"] {
        let bundle = world.bundle(&format!("https://public.example/{path}")).await;
        assert_eq!(bundle.get("b/c.sh"), Some(&b"x"[..]), "{path}");
    }
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() {
    let world = World::with_server(|request| match request.header("if-none-match") {
        Some("\"v1\"") => Answer::Plain { status: 304, headers: Vec::new(), body: Vec::new() },
        Some(other) => panic!("asked with {other}"),
        None => ok("a = 1").with("ETag", "\"v1\""),
    });
    let Ok(Fetched::Bundle { validator, .. }) = world.fetch(URL).await else { panic!("not fetched") };
    assert_eq!(validator.as_deref(), Some("\"v1\""));
    assert_eq!(world.fetch_with(URL, validator.as_deref(), None).await, Ok(Fetched::Unchanged));
    // Such as a commit, where the source was a repository before.
    let other = world.fetch_with(URL, Some("0123456789"), None).await;
    assert!(matches!(other, Ok(Fetched::Bundle { .. })), "{other:?}");
}

#[tokio::test]
async fn a_certificate_that_does_not_prove_the_host_is_refused() {
    let world = World::with_server(|_| panic!("asked all the same"));
    for (config, says) in [
        (world.authority.server(&["other.example"]), "for another host"),
        (world.authority.expired_server(&["public.example"]), "expired"),
        (self_signed_server(&["public.example"]), "not trusted"),
        (Authority::create().server(&["public.example"]), "not trusted"),
    ] {
        world.network.serve(server::tls(config, |_| panic!("asked all the same")));
        for source in [URL, "git::https://public.example/a.git"] {
            let message = world.refused(source).await;
            assert!(
                message.contains("certificate of `public.example`") && message.contains(says),
                "{message}"
            );
        }
    }
    world.network.serve(server::plain(|_| ok("a = 1")));
    world.unavailable(URL).await;
}

#[tokio::test]
async fn redirects_are_followed_five_times() {
    let world = World::with_server(|request| {
        let left: u32 = request.target.trim_start_matches("/t").parse().unwrap();
        if left == 0 {
            ok("a = 1").with("Content-Disposition", "x; filename=t.json")
        } else {
            redirect(&format!("t{}", left - 1))
        }
    });
    world.bundle("https://public.example/t5").await;
    assert_eq!(world.network.dialled().len(), 6);
    assert_eq!(world.network.asked(), ["public.example"], "a name is asked for once");
    let message = world.refused("https://public.example/t6").await;
    assert!(message.contains("more than 5 times"), "{message}");
    assert_eq!(world.network.dialled().len(), 6);
}

#[tokio::test]
async fn a_redirect_that_leads_nowhere_good_is_refused() {
    for (to, says) in [
        ("", "more than 5 times"),
        ("http://public.example/t.pkr.hcl", "over https"),
        ("ftp://public.example/t.pkr.hcl", "over https"),
        ("file:///etc/passwd", "over https"),
        ("https://", "nowhere"),
        ("https://user:s3cret@public.example/", "user name or password"),
        ("https://nobody.example/", "does not exist"),
    ] {
        let world = World::with_server(move |_| redirect(to));
        let message = world.refused(URL).await;
        assert!(message.contains(says), "{to}: {message}");
    }
    let world = World::with_server(|_| status(302));
    assert!(world.refused(URL).await.contains("nowhere"));
}

#[tokio::test]
async fn a_list_of_hosts_holds_for_redirects_too() {
    let mut world = World::with_server(|_| redirect("https://other.example/t.json"));
    world.network.name("other.example", &[&[PUBLIC]]);
    world.hosts.allowed = vec!["public.example".parse().unwrap()];
    let message = world.refused(URL).await;
    assert!(message.contains("`other.example`: allowed are public.example"), "{message}");
    assert_eq!(world.network.asked(), ["public.example"]);
    let message = world.refused("git::https://elsewhere.example/a.git").await;
    assert!(message.contains("allowed are public.example"), "{message}");
    assert_eq!(world.network.asked(), [""; 0]);
}

#[tokio::test]
async fn a_trusted_host_may_be_private_and_without_tls() {
    let world = World::new().trusting(&["10.1.2.3:8080", "git.local"]);
    world.network.name("git.local", &[&["192.168.0.9"]]);
    world.network.serve(server::plain(|_| ok("a = 1")));
    world.bundle("http://10.1.2.3:8080/t.json").await;
    world.bundle("http://git.local/t.json").await;
    assert_eq!(world.network.dialled(), ["10.1.2.3:8080", "192.168.0.9:80"]);
    world.refused("http://10.1.2.3:8081/t.json").await;
    assert_eq!(world.network.dialled(), [""; 0]);
}

#[tokio::test]
async fn a_token_reaches_the_source_itself_and_nobody_else() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seeing = seen.clone();
    let world = World::with_server(move |request| {
        let host = request.header("host").unwrap().to_owned();
        seeing.lock().unwrap().push((host, request.header("authorization").map(ToOwned::to_owned)));
        match request.target.as_str() {
            "/first" => redirect("/second"),
            "/second" => redirect("https://public.example:8443/third"),
            "/third" => redirect("https://other.example/t.json"),
            _ => ok("{}"),
        }
    });
    world.network.name("other.example", &[&["8.8.8.8"]]);
    let fetched = world.fetch_with("https://public.example/first", None, Some("s3cret\n")).await;
    assert!(matches!(fetched, Ok(Fetched::Bundle { .. })), "{fetched:?}");
    let given = |host: &str, token: bool| (host.to_owned(), token.then(|| "Bearer s3cret".to_owned()));
    let expected = [
        given("public.example", true),
        given("public.example", true),
        given("public.example:8443", false),
        given("other.example", false),
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[tokio::test]
async fn what_is_too_large_is_not_read_to_its_end() {
    let head = "HTTP/1.1 200 x\r\nContent-Type: text/plain\r\n";
    let endless = |write: &mut dyn std::io::Write, chunked: bool| loop {
        // Until the other side hangs up.
        if chunked {
            write.write_all(b"10000\r\n")?;
        }
        write.write_all(&[b'x'; 0x10000])?;
        if chunked {
            write.write_all(b"\r\n")?;
        }
    };
    let mut world = World::with_server(move |request| match request.target.as_str() {
        "/honest.json" => ok(vec![b'x'; 200_001]),
        "/exact.json" => ok(vec![b'x'; 200_000]),
        "/chunked.json" => raw(move |to| {
            write!(to, "{head}Transfer-Encoding: chunked\r\n\r\n")?;
            endless(to, true)
        }),
        "/more.json" => raw(move |to| {
            write!(to, "{head}Content-Length: 5\r\n\r\n")?;
            to.write_all(&[b'x'; 100_000])
        }),
        "/less.json" => raw(move |to| {
            write!(to, "{head}Content-Length: 500\r\n\r\n")?;
            to.write_all(b"xxxxx")
        }),
        _ => raw(move |to| {
            write!(to, "{head}Connection: close\r\n\r\n")?;
            endless(to, false)
        }),
    });
    world.limits.download_bytes = 200_000;
    for path in ["honest.json", "chunked.json", "endless.json"] {
        let message = world.refused(&format!("https://public.example/{path}")).await;
        assert!(message.contains("more than the 200000 bytes"), "{path}: {message}");
    }
    assert_eq!(
        world.bundle("https://public.example/exact.json").await.get("exact.json").unwrap().len(),
        200_000
    );
    // No more is believed than was announced, and no less.
    assert_eq!(world.bundle("https://public.example/more.json").await.get("more.json"), Some(&b"xxxxx"[..]));
    world.unavailable("https://public.example/less.json").await;
}

#[tokio::test]
async fn answers_are_told_apart_into_those_worth_asking_for_again() {
    let world = World::with_server(|request| status(request.target[1..4].parse().unwrap()));
    for code in [201, 202, 203, 204, 205, 206, 300, 305, 400, 401, 402, 403, 404, 405, 410, 418, 451] {
        let message = world.refused(&format!("https://public.example/{code}.json?s3cret")).await;
        assert!(message.contains("`public.example`"), "{code}: {message}");
    }
    for code in [304, 408, 425, 429, 500, 502, 503, 504] {
        world.unavailable(&format!("https://public.example/{code}.json?s3cret")).await;
    }
    for code in [401, 403] {
        let url = format!("https://public.example/{code}.json");
        assert!(world.refused(&url).await.contains("without a token"));
        assert!(refused(world.fetch_with(&url, None, Some("s3cret")).await).contains("with the token"));
    }
}

#[tokio::test]
async fn what_is_no_template_is_refused() {
    let world = World::with_server(|request| match request.target.as_str() {
        "/encoded.json" => ok("{}").with("Content-Encoding", "gzip"),
        "/page.json" => ok("\n<!doctype html><title>Sign in</title>"),
        "/broken.tar.gz" => ok("not gzip"),
        _ => ok("hello"),
    });
    for (path, says) in [
        ("encoded.json", "an encoded body"),
        ("page.json", "a web page"),
        ("broken.tar.gz", "`broken.tar.gz` is not"),
        ("nameless", ".pkr.hcl"),
    ] {
        let message = world.refused(&format!("https://public.example/{path}")).await;
        assert!(message.contains(says) && message.contains("public.example"), "{path}: {message}");
    }
}

#[tokio::test]
async fn a_name_that_can_not_be_resolved_just_now_is_worth_asking_for_again() {
    let world = World::new();
    let message = world.unavailable("https://servfail.example/t.json").await;
    assert!(message.contains("servfail.example"), "{message}");
    assert!(world.refused("https://nobody.example/t.json").await.contains("does not exist"));
    world.network.name("nobody.example", &[&[PUBLIC]]);
    world.unavailable("https://nobody.example/t.json").await;
    assert_eq!(world.network.dialled(), [format!("{PUBLIC}:443")], "asked, and nobody was there");
}
