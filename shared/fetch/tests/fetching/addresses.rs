//! Addresses that nobody may be led to, in whatever way they are spelt or come about.
//!
//! Every name that the tests don't know resolves to an address that is not public, and a server answers whatever is
//! dialled: so that whoever is dialled is told by the network, and a mistake would look like a success.

use std::collections::BTreeSet;
use std::sync::Mutex;

use ciab_core::ports::{FetchError, Fetched};

use crate::{PUBLIC, World};
use template_server::server::{self, ok, redirect};

/// Hosts as they may stand in a URL.
const SPELLINGS: &[&str] = &[
    // Loopback, in each way that a URL may write an IPv4 address.
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0x7F000001",
    "0x7f.0.0.1",
    "0x7f.1",
    "0x7f.0x0.0x0.0x1",
    "0177.0.0.1",
    "0177.1",
    "00000177.0.0.1",
    "017700000001",
    "127.0.0.1.",
    "127.1.",
    "0x7f.1.",
    "127.000.000.001",
    "0x0000007f.0.0.1",
    "127.0x0.00.1",
    "127.0.0x1",
    "127.65535",
    "127.0.00000000001",
    // With characters that become digits and dots.
    "１２７.０.０.１",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "127．0．0．1",
    "127｡0｡0｡1",
    "𝟏𝟐𝟕.𝟎.𝟎.𝟏",
    "0ｘ7f.1",
    "127.0.0.¹",
    "%31%32%37.0.0.1",
    "%31%32%37%2e0%2e0%2e1",
    "127%2E1",
    "%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1",
    "127.0.0.1\u{ad}",
    "127.0.0.1\u{200b}",
    // With characters that parsers leave out.
    "127.0\t.0.1",
    "127.0\n.0.1",
    "\t127.0.0.1",
    "127.0.0.1\r",
    // What programs disagree about.
    "127.0.0.1:443",
    "127.0.0.1:22",
    "127.0.0.1:6379",
    "127.0.0.1:0",
    "127.0.0.1:65535",
    "127.0.0.1:",
    "127.0.0.1:00443",
    "public.example@127.0.0.1",
    "public.example:443@127.0.0.1",
    "public.example:443@127.0.0.1:443",
    "public.example%40127.0.0.1",
    "127.0.0.1#@public.example",
    "127.0.0.1?@public.example",
    "127.0.0.1/@public.example",
    "127.0.0.1\\@public.example",
    "127.0.0.1\\.public.example",
    "127.0.0.1%2f@public.example",
    "127.0.0.1%00.example",
    "127.0.0.1%23.example",
    "127.0.0.1;public.example",
    "127.0.0.1,public.example",
    "/127.0.0.1",
    "///127.0.0.1",
    "\\127.0.0.1",
    "@127.0.0.1",
    ":@127.0.0.1",
    "127.0.0.1 public.example",
    "127.0.0.1%20public.example",
    // Names of this machine.
    "localhost",
    "LOCALHOST",
    "localhost.",
    "localhost:443",
    "foo.localhost",
    "localhost.localdomain",
    "ip6-localhost",
    "ip6-loopback",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "ｌｏｃａｌｈｏｓｔ",
    "lo\u{ad}calhost",
    "loc%61lhost",
    "𝓵𝓸𝓬𝓪𝓵𝓱𝓸𝓼𝓽",
    // Names that lead to addresses by themselves.
    "127.0.0.1.nip.io",
    "169.254.169.254.nip.io",
    "7f000001.nip.io",
    "localtest.me",
    "customer1.app.localhost",
    "1.0.0.127.in-addr.arpa",
    "xn--localhost-.example",
    "_dns.resolver.arpa",
    // The clouds' metadata.
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0xA9.0xFE.0xA9.0xFE",
    "0251.0376.0251.0376",
    "025177524776",
    "169.254.43518",
    "169.16689662",
    "169.254.169.254.",
    "169.254.169.254:80",
    "１６９.２５４.１６９.２５４",
    "169。254。169。254",
    "169.254.170.2",
    "169.254.170.23",
    "169.254.169.253",
    "169.254.169.123",
    "169.254.0.23",
    "100.100.100.200",
    "0x64646464.200",
    "168.63.129.16",
    "2822734096",
    "192.0.0.192",
    "metadata.google.internal",
    "metadata.google.internal.",
    "metadata",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.azure.internal",
    // Other addresses that are nobody's in public.
    "0.0.0.0",
    "0",
    "0x0",
    "00",
    "0.0.0.0.",
    "0.1.2.3",
    "10.0.0.1",
    "10.1",
    "167772161",
    "0xa000001",
    "012.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.257",
    "3232235521",
    "100.64.0.1",
    "100.127.255.255",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "4294967295",
    "0xffffffff",
    // What is no address and no name.
    "256.256.256.256",
    "4294967296",
    "127.0.0.0.1",
    "1.2.3.4.5",
    "0x.0x.0x.0x",
    "09.0.0.1",
    "127.0.0.09",
    "..",
    ".",
    "127..1",
    "%00",
    "%",
    "*",
    "[",
    "]",
    "[]",
    "::1",
    "",
    "-",
    "a..b.example",
    // IPv6.
    "[::1]",
    "[::1]:443",
    "[::1]:8080",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::0.0.0.1]",
    "[::]",
    "[::2]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::FFFF:7F00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[::ffff:10.0.0.1]",
    "[::ffff:8.8.8.8]",
    "[::ffff:0:127.0.0.1]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[::169.254.169.254]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b::8.8.8.8]",
    "[64:ff9b:1::a9fe:a9fe]",
    "[64:ff9b:1:ffff::1]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]",
    "[2002:a00:1::1]",
    "[2001::1]",
    "[2001:0:4136:e378:8000:63bf:8000:0001]",
    "[2001:10::1]",
    "[2001:20::1]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[5f00::1]",
    "[100::1]",
    "[100:0:0:1::1]",
    "[fc00::1]",
    "[fd00::1]",
    "[fd00:ec2::254]",
    "[fd00:ec2::23]",
    "[fd20:ce::254]",
    "[fe80::1]",
    "[fe80::a9fe:a9fe]",
    "[fe80::1%25eth0]",
    "[fe80::1%eth0]",
    "[::1%25lo]",
    "[::1%lo]",
    "[::1%251]",
    "[febf::1]",
    "[fec0::1]",
    "[ff02::1]",
    "[ff0e::1]",
    "[4000::1]",
    "[::1].",
    "[::1",
    "::1]",
    "[127.0.0.1]",
    "[::1]@public.example",
    "public.example@[::1]",
    "[v1.127.0.0.1]",
    "[::ffff:127.1]",
    "%5B::1%5D",
    "［::1］",
];

/// Addresses that a name may be made to have.
const ADDRESSES: &[&str] = &[
    "127.0.0.1",
    "127.255.255.255",
    "0.0.0.0",
    "0.0.0.1",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.175.48.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:1::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2620:4f:8000::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::1234:5678:9abc:def0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
];

const NOBODY: [String; 0] = [];

fn only_public() -> [String; 1] {
    [format!("{PUBLIC}:443")]
}

#[tokio::test]
async fn no_spelling_of_a_host_leads_to_an_address_that_is_not_public() {
    let all: BTreeSet<_> = SPELLINGS.iter().collect();
    assert!(all.len() == SPELLINGS.len() && all.len() >= 200, "{} different ones", all.len());
    for everything in ["127.0.0.1", "169.254.169.254", "::1", "fd00:ec2::254"] {
        let world = World::with_server(|_| ok("{}"));
        world.network.every_other_name(everything);
        for host in SPELLINGS {
            for source in [
                format!("https://{host}/t.json"),
                format!("http://{host}/t.json"),
                format!("git::https://{host}/t.git"),
                format!("git::http://{host}/t.git//x?ref=y"),
            ] {
                let fetched = world.fetch(&source).await;
                assert_eq!(world.network.dialled(), NOBODY, "{source:?}");
                assert!(matches!(fetched, Err(FetchError::Refused(_))), "{source:?}: {fetched:?}");
            }
        }
    }
}

#[tokio::test]
async fn no_redirect_leads_to_an_address_that_is_not_public() {
    static TO: Mutex<String> = Mutex::new(String::new());
    let world = World::with_server(|_| redirect(&TO.lock().unwrap()));
    world.network.every_other_name("169.254.169.254");
    for host in SPELLINGS {
        // As it may stand in a header.
        let in_header = |character: char| {
            let text = character.to_string();
            if character.is_ascii_graphic() {
                text
            } else {
                text.bytes().map(|byte| format!("%{byte:02X}")).collect()
            }
        };
        let host: String = host.chars().map(in_header).collect();
        for (scheme, source) in [
            ("https:", "https://public.example/t.json"),
            ("http:", "https://public.example/t.json"),
            ("", "git::https://public.example/t.git"),
        ] {
            let to = format!("{scheme}//{host}/t.json?s3cret");
            TO.lock().unwrap().clone_from(&to);
            let fetched = world.fetch(source).await;
            let dialled = world.network.dialled();
            // A few of them lead nowhere but back: then to the public address alone.
            assert!(dialled.iter().all(|address| *address == only_public()[0]), "{to:?}: {dialled:?}");
            assert!(matches!(fetched, Err(FetchError::Refused(_))), "{to:?}: {fetched:?}");
        }
    }
}

#[tokio::test]
async fn no_name_leads_to_an_address_that_is_not_public_even_beside_public_ones() {
    let world = World::with_server(|request| match request.header("host") {
        Some("public.example") => redirect("https://doubtful.example/t.json"),
        _ => ok("{}"),
    });
    for address in ADDRESSES {
        let answers: [&[&str]; 4] =
            [&[address], &[PUBLIC, address], &[address, PUBLIC], &[PUBLIC, "2606:4700::1", address]];
        for answer in answers {
            world.network.name("doubtful.example", &[answer]);
            for (source, dialled) in [
                ("https://doubtful.example/t.json", &NOBODY[..]),
                ("https://doubtful.example:8443/t.json", &NOBODY[..]),
                ("git::https://doubtful.example/t.git", &NOBODY[..]),
                ("https://public.example/t.json", &only_public()[..]),
                ("git::https://public.example/t.git", &only_public()[..]),
            ] {
                let message = world.refused(source).await;
                assert_eq!(world.network.dialled(), dialled, "{source}: {answer:?}");
                let redirected_git = source == "git::https://public.example/t.git";
                assert!(redirected_git || message.contains("an address that is not public"), "{message}");
                assert!(!message.contains(address), "{message}");
            }
        }
    }
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_asked_only_once() {
    let world = World::with_server(|request| match request.target.as_str() {
        "/again.json" => redirect("/t.json"),
        "/upwards.json" => redirect("https://public.example:8443/t.json"),
        _ => ok("{}"),
    });
    for (path, dialled) in [
        ("t.json", vec!["93.184.216.34:443"]),
        ("again.json", vec!["93.184.216.34:443", "93.184.216.34:443"]),
        ("upwards.json", vec!["93.184.216.34:443", "93.184.216.34:8443"]),
    ] {
        world.network.name("public.example", &[&[PUBLIC], &["127.0.0.1"]]);
        world.bundle(&format!("https://public.example/{path}")).await;
        assert_eq!(world.network.asked(), ["public.example"]);
        assert_eq!(world.network.dialled(), dialled);
        // The next fetch asks again, and believes what it is told then.
        world.refused("https://public.example/t.json").await;
        assert_eq!(world.network.asked(), ["public.example"]);
        assert_eq!(world.network.dialled(), NOBODY);
    }
}

#[tokio::test]
async fn trust_reaches_no_metadata_and_nothing_that_is_not_a_host() {
    let world = World::new().trusting(&["git.local", "169.254.169.254", "[fe80::1]"]);
    world.network.serve(server::plain(|_| ok("{}")));
    let private = |address: &str| {
        let private = ["10.", "127.", "172.", "192.168.", "100.64.", "fc00::", "fd00::1", "::1"];
        private.iter().any(|start| address.starts_with(start)) && !address.starts_with("172.15")
    };
    for address in ADDRESSES {
        world.network.name("git.local", &[&[address]]);
        let fetched = world.fetch("http://git.local/t.json").await;
        let dialled = world.network.dialled();
        if private(address) {
            assert!(matches!(fetched, Ok(Fetched::Bundle { .. })), "{address}: {fetched:?}");
        } else {
            assert!(matches!(fetched, Err(FetchError::Refused(_))), "{address}: {fetched:?}");
            assert_eq!(dialled, NOBODY, "{address}");
        }
    }
    for source in ["http://169.254.169.254/latest/meta-data", "https://[fe80::1]/t.json"] {
        assert!(world.fetch(source).await.is_err());
        assert_eq!(world.network.dialled(), NOBODY, "{source}");
    }
}

#[tokio::test]
async fn a_public_host_is_dialled_at_its_own_port_over_both_protocols() {
    let world = World::with_server(|_| ok("{}"));
    world.network.name("public.example", &[&["2606:4700::1111", "8.8.8.8"]]);
    world.bundle("https://PUBLIC.example:443/t.json").await;
    assert_eq!(world.network.dialled(), ["[2606:4700::1111]:443"]);
    world.bundle("https://ｐｕｂｌｉｃ.example:9443/t.json").await;
    assert_eq!(world.network.dialled(), ["[2606:4700::1111]:9443"]);
    world.network.serve(server::tls(world.authority.server(&["2606:4700::1111", "8.8.8.8"]), |_| ok("{}")));
    for (host, address) in [("[2606:4700:0::1111]", "[2606:4700::1111]:443"), ("0x8080808", "8.8.8.8:443")] {
        world.bundle(&format!("https://{host}/t.json")).await;
        assert_eq!(world.network.dialled(), [address]);
        let message = world.refused(&format!("git::https://{host}/t.git")).await;
        assert!(message.contains("did not answer as a git server"), "{message}");
        assert_eq!(world.network.dialled(), [address]);
    }
}
