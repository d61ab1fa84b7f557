//! Who is inside: TCP connections, by address, and those that have not opened a secure channel yet.
//!
//! Without I/O and time. When something is full the oldest half-open connection makes room, that of the address with
//! the most of them first, so that who only connects keeps nobody out (OPC 10000-4, 5.5.2: a server closes the
//! oldest channel without a session before it refuses a new one).

use super::frame::{Refusal, refuse};
use crate::opcua::server::limits::Limits;
use ::opcua::types::StatusCode;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(super) struct Doors {
    total: usize,
    per_address: usize,
    half_open: usize,
    next: u64,
    /// In the order in which they came.
    guests: BTreeMap<u64, Guest>,
}

#[derive(Debug)]
struct Guest {
    address: IpAddr,
    is_half_open: bool,
    leave: CancellationToken,
}

impl Doors {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            total: limits.connections,
            per_address: limits.connections_per_address,
            half_open: limits.half_open,
            next: 0,
            guests: BTreeMap::new(),
        }
    }

    /// Lets a connection in, or says why not. The token is cancelled when it has to go for another.
    pub(super) fn enter(&mut self, address: IpAddr) -> Result<(u64, CancellationToken), Refusal> {
        // An IPv6 network gives its hosts as many addresses as they like; 64 bits are one network.
        let address = network(address);
        if self.guests.values().filter(|guest| guest.address == address).count() >= self.per_address
            && !self.shed(Some(address))
        {
            return Err(refuse(StatusCode::BadTcpNotEnoughResources, "too many connections from this address"));
        }
        if self.guests.len() >= self.total && !self.shed(None) {
            return Err(refuse(StatusCode::BadTcpServerTooBusy, "too many connections"));
        }
        if self.guests.values().filter(|guest| guest.is_half_open).count() >= self.half_open {
            self.shed(None);
        }
        let id = self.next;
        self.next += 1;
        let leave = CancellationToken::new();
        self.guests.insert(id, Guest { address, is_half_open: true, leave: leave.clone() });
        Ok((id, leave))
    }

    /// It has opened a secure channel.
    pub(super) fn opened(&mut self, id: u64) {
        if let Some(guest) = self.guests.get_mut(&id) {
            guest.is_half_open = false;
        }
    }

    pub(super) fn left(&mut self, id: u64) {
        self.guests.remove(&id);
    }

    /// Sends the oldest half-open one away, of this address or of the one that has most.
    fn shed(&mut self, address: Option<IpAddr>) -> bool {
        let half_open = || self.guests.iter().filter(|(_, guest)| guest.is_half_open);
        let address = address.or_else(|| {
            let mut counts: HashMap<IpAddr, usize> = HashMap::new();
            half_open().for_each(|(_, guest)| *counts.entry(guest.address).or_default() += 1);
            counts.into_iter().max_by_key(|(_, count)| *count).map(|(address, _)| address)
        });
        let oldest = half_open().find(|(_, guest)| Some(guest.address) == address).map(|(id, _)| *id);
        let Some(guest) = oldest.and_then(|id| self.guests.remove(&id)) else { return false };
        guest.leave.cancel();
        true
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6([a, b, c, d, 0, 0, 0, 0].into())
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors(connections: usize, connections_per_address: usize, half_open: usize) -> Doors {
        Doors::new(&Limits { connections, connections_per_address, half_open, ..Limits::default() })
    }

    fn host(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn a_full_house_refuses_unless_somebody_only_stands_in_the_door() {
        let mut doors = doors(2, 9, 9);
        let (first, leave) = doors.enter(host(1)).unwrap();
        let (second, _) = doors.enter(host(2)).unwrap();
        doors.opened(second);
        let (third, _) = doors.enter(host(3)).unwrap();
        assert!(leave.is_cancelled());
        doors.left(first);
        doors.opened(third);
        assert_eq!(doors.enter(host(4)).unwrap_err().status, StatusCode::BadTcpServerTooBusy);
        doors.left(second);
        doors.enter(host(4)).unwrap();
    }

    #[test]
    fn one_address_gets_its_share_and_loses_its_own() {
        let mut doors = doors(9, 2, 9);
        let (first, _) = doors.enter(host(1)).unwrap();
        let (_, leave) = doors.enter(host(1)).unwrap();
        doors.opened(first);
        let (third, _) = doors.enter(host(1)).unwrap();
        assert!(leave.is_cancelled(), "the half-open one of the same address goes");
        doors.opened(third);
        assert_eq!(doors.enter(host(1)).unwrap_err().status, StatusCode::BadTcpNotEnoughResources);
        doors.enter(host(2)).unwrap();
    }

    #[test]
    fn whoever_has_most_half_open_ones_loses_the_oldest() {
        let mut doors = doors(9, 9, 3);
        let (_, quiet) = doors.enter(host(1)).unwrap();
        let (_, oldest) = doors.enter(host(2)).unwrap();
        let (_, newer) = doors.enter(host(2)).unwrap();
        doors.enter(host(3)).unwrap();
        assert_eq!([&quiet, &oldest, &newer].map(CancellationToken::is_cancelled), [false, true, false]);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let v6 = |text: &str| network(text.parse().unwrap());
        assert_eq!(v6("2001:db8::1"), v6("2001:db8::2:3:4:5"));
        assert_ne!(v6("2001:db8::1"), v6("2001:db8:0:1::1"));
        assert_eq!(v6("::ffff:192.0.2.1"), host(1));
    }
}
