//! Which addresses may be dialled.
//!
//! Pure, and a list of what is allowed rather than of what is not: an address that no rule names is refused. Must never
//! ask a resolver.
//!
//! From IANA's registries of special-purpose addresses for IPv4 and IPv6, and from the clouds' documents for the
//! addresses at which a machine finds its own metadata and credentials.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whose host an address was found for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    /// Anybody's.
    Any,
    /// One that the operator vouches for: it may stand in a private network.
    Trusted,
}

impl Host {
    /// Whether an address of such a host may be dialled.
    pub(crate) fn may_be_at(self, address: IpAddr) -> bool {
        is_public(address) || (self == Self::Trusted && is_private(address))
    }
}

/// IPv4 that is not global unicast, or is somebody's metadata service.
const SPECIAL_V4: [([u8; 4], u32); 19] = [
    ([0, 0, 0, 0], 8),        // "this network"
    ([10, 0, 0, 0], 8),       // private
    ([100, 64, 0, 0], 10),    // between a provider and its customers; Alibaba's metadata is in it
    ([127, 0, 0, 0], 8),      // loopback
    ([168, 63, 129, 16], 32), // Azure's own agent
    ([169, 254, 0, 0], 16),   // link-local: EC2's and most other clouds' metadata
    ([172, 16, 0, 0], 12),    // private
    ([192, 0, 0, 0], 24),     // IETF; Oracle's metadata is in it
    ([192, 0, 2, 0], 24),     // documentation
    ([192, 31, 196, 0], 24),  // AS112
    ([192, 52, 193, 0], 24),  // AMT
    ([192, 88, 99, 0], 24),   // 6to4 relays
    ([192, 168, 0, 0], 16),   // private
    ([192, 175, 48, 0], 24),  // AS112
    ([198, 18, 0, 0], 15),    // benchmarks
    ([198, 51, 100, 0], 24),  // documentation
    ([203, 0, 113, 0], 24),   // documentation
    ([224, 0, 0, 0], 4),      // multicast
    ([240, 0, 0, 0], 4),      // reserved, and broadcast
];

/// The only IPv6 that is given out as global unicast.
const GLOBAL_V6: (u128, u32) = (0x2000 << 112, 3);

/// IPv6 within [`GLOBAL_V6`] that is not global unicast all the same. What carries an IPv4 address (mapped, compatible,
/// NAT64) lies outside of it, 6to4 and Teredo inside: none is dialled, whatever address it carries.
const SPECIAL_V6: [(u128, u32); 5] = [
    (0x2001 << 112, 23),                             // IETF, with Teredo and ORCHID
    (0x2001_0db8 << 96, 32),                         // documentation
    (0x2002 << 112, 16),                             // 6to4
    (0x2620_004f_8000_0000_0000_0000_0000_0000, 48), // AS112
    (0x3fff << 112, 20),                             // documentation
];

/// Where the clouds answer within unique local addresses, so that no trust reaches it.
const METADATA_V6: [(u128, u32); 2] = [
    (0xfd00_0ec2 << 96, 32), // EC2: metadata, credentials, DNS, time
    (0xfd20_00ce << 96, 32), // Google
];

/// Whether this is global unicast, the only kind that anybody's host may have.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !SPECIAL_V4.iter().any(|block| in_v4(v4, *block)),
        IpAddr::V6(v6) => in_v6(v6, GLOBAL_V6) && !SPECIAL_V6.iter().any(|block| in_v6(v6, *block)),
    }
}

/// Whether this is an address that an operator gives to a host of their own.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let shared = in_v4(v4, ([100, 64, 0, 0], 10)) && v4 != Ipv4Addr::new(100, 100, 100, 200);
            v4.is_private() || v4.is_loopback() || shared
        }
        IpAddr::V6(v6) => {
            let unique_local = v6.is_unique_local() && !METADATA_V6.iter().any(|block| in_v6(v6, *block));
            v6.is_loopback() || unique_local
        }
    }
}

fn in_v4(address: Ipv4Addr, (block, bits): ([u8; 4], u32)) -> bool {
    (u32::from(address) ^ u32::from_be_bytes(block)) >> (32 - bits) == 0
}

fn in_v6(address: Ipv6Addr, (block, bits): (u128, u32)) -> bool {
    (u128::from(address) ^ block) >> (128 - bits) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(host: Host, text: &str) -> bool {
        host.may_be_at(text.parse().unwrap_or_else(|_| panic!("{text} is no address")))
    }

    #[test]
    fn what_is_public_may_be_dialled_for_everybody() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "2001:200::1",
            "2a00:1450::1",
            "2000::1",
            "3ffe::1",
        ] {
            assert!(allowed(Host::Any, text) && allowed(Host::Trusted, text), "{text}");
        }
    }

    #[test]
    fn what_is_private_may_be_dialled_for_a_trusted_host_alone() {
        for text in [
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "192.168.255.255",
            "::1",
            "fc00::1",
            "fd12:3456::1",
        ] {
            assert!(!allowed(Host::Any, text) && allowed(Host::Trusted, text), "{text}");
        }
    }

    #[test]
    fn what_is_special_is_never_dialled() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "100.100.100.200",
            "168.63.129.16",
            "169.254.0.1",
            "169.254.169.254",
            "169.254.170.2",
            "192.0.0.192",
            "192.0.2.1",
            "192.31.196.1",
            "192.52.193.1",
            "192.88.99.1",
            "192.175.48.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.255",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::2",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:0:127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b::8.8.8.8",
            "64:ff9b:1::a00:1",
            "100::1",
            "100:0:0:1::1",
            "1fff::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:10::1",
            "2001:20::1",
            "2001:1ff::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2620:4f:8000::1",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "5f00::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fe80::1",
            "fe80::a9fe:a9fe",
            "febf::1",
            "fec0::1",
            "feff::1",
            "ff02::1",
            "ffff::1",
        ] {
            assert!(!allowed(Host::Any, text) && !allowed(Host::Trusted, text), "{text}");
        }
    }
}
