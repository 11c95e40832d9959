use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};

use crate::Failure;

/// Ports tried. Below the range from which Linux takes the local ports of outgoing connections (from 32,768 on), for a
/// broker that is down for a moment must get its port back: a client that keeps connecting to a loopback port in that
/// range can be given the very port and be connected to itself.
const FIRST: u16 = 15_000;
const COUNT: u16 = 17_000;

/// A free port of the loopback interface, held until dropped.
#[derive(Debug)]
pub(crate) struct FreePort {
    number: u16,
    _held: TcpListener,
}

impl FreePort {
    /// Takes a free port, chosen at random so that test processes started together seldom meet.
    pub(crate) fn take() -> Result<Self, Failure> {
        let start = random();
        for step in 0..u64::from(COUNT) {
            let offset = u16::try_from(start.wrapping_add(step) % u64::from(COUNT)).unwrap_or(0);
            let port = FIRST.saturating_add(offset);
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                return Ok(Self { number: port, _held: listener });
            }
        }
        Err(Failure::new(format!("no free port on 127.0.0.1 from {FIRST} on")))
    }

    /// The number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

/// A number that differs from call to call and from process to process.
pub(crate) fn random() -> u64 {
    // Each `RandomState` is keyed anew from the system's randomness.
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}
