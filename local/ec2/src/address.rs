//! The addresses of instances: one loopback block (`127.x.0.0/16`) per stack, one address in it per instance.
//!
//! Never gives out an address outside 127.0.0.0/8: whatever a client is told, it can only dial this machine.

use std::{
    net::{Ipv4Addr, TcpListener},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

/// The second octets a stack may claim when it leaves the choice to us. 127.0 is where everything else listens.
const CLAIMABLE: std::ops::RangeInclusive<u8> = 64..=191;

/// A claimed `127.x.0.0/16`. Claimed means: no other process on this machine has it while this value lives.
///
/// The claim is a listening abstract socket, so the kernel releases it however the process ends.
#[derive(Debug)]
pub struct LoopbackBlock {
    second_octet: u8,
    next: u16,
    _claim: UnixListener,
}

/// Why a block could not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Someone else has the block that was asked for.
    #[error("the address block 127.{0}.0.0/16 is in use by another stack on this machine; choose another")]
    InUse(u8),
    /// 127.0.0.0/16 holds the machine's own services, 127.255.0.0/16 its broadcast address.
    #[error("127.{0}.0.0/16 can't be an instance block; choose a number from 1 to 254")]
    Reserved(u8),
    /// Every block is claimed.
    #[error("every address block on this machine is in use by another stack")]
    NoneFree,
}

impl LoopbackBlock {
    /// Claims `127.<second_octet>.0.0/16`.
    pub fn claim(second_octet: u8) -> Result<Self, AddressError> {
        if second_octet == 0 || second_octet == 255 {
            return Err(AddressError::Reserved(second_octet));
        }
        let name = format!("ciab-local-ec2/127.{second_octet}.0.0");
        let claim = SocketAddr::from_abstract_name(name)
            .and_then(|address| UnixListener::bind_addr(&address))
            .map_err(|_| AddressError::InUse(second_octet))?;
        Ok(Self { second_octet, next: 2, _claim: claim })
    }

    /// Claims the first block that no other stack has.
    pub fn claim_any() -> Result<Self, AddressError> {
        CLAIMABLE.clone().find_map(|octet| Self::claim(octet).ok()).ok_or(AddressError::NoneFree)
    }

    /// The second octet of every address in the block.
    pub fn second_octet(&self) -> u8 {
        self.second_octet
    }

    /// The address shown for things that have no body, such as an elastic address: nothing ever listens on it.
    pub fn unassigned(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.second_octet, 0, 1)
    }

    /// The next address that `taken` does not refuse and on which nothing listens at port 22.
    ///
    /// Goes round the block, so that the address of a dead instance is not soon someone else's. `None` when full.
    pub fn next_free(&mut self, taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        for _ in 0..=u16::MAX {
            let [third, fourth] = self.next.to_be_bytes();
            self.next = self.next.wrapping_add(1);
            let address = Ipv4Addr::new(127, self.second_octet, third, fourth);
            let usable = fourth != 0 && fourth != 255 && address != self.unassigned();
            if usable && !taken(address) && port_22_is_free(address) {
                return Some(address);
            }
        }
        None
    }
}

/// Without the privilege to bind port 22 there is no sshd of ours to collide either.
fn port_22_is_free(address: Ipv4Addr) -> bool {
    match TcpListener::bind((address, 22)) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::AddrInUse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_belongs_to_one_stack_at_a_time() {
        let first = LoopbackBlock::claim(231).unwrap();
        assert!(matches!(LoopbackBlock::claim(231), Err(AddressError::InUse(231))));
        drop(first);
        LoopbackBlock::claim(231).unwrap();
    }

    #[test]
    fn every_address_is_inside_the_block_and_different() {
        let mut block = LoopbackBlock::claim(232).unwrap();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..600 {
            let address = block.next_free(|_| false).unwrap();
            assert_eq!(address.octets()[..2], [127, 232]);
            assert_ne!(address, block.unassigned());
            assert!(seen.insert(address));
        }
    }

    #[test]
    fn a_taken_address_is_not_given_again() {
        let mut block = LoopbackBlock::claim(233).unwrap();
        let second = Ipv4Addr::new(127, 233, 0, 2);
        assert_eq!(block.next_free(|address| address == second), Some(Ipv4Addr::new(127, 233, 0, 3)));
    }
}
