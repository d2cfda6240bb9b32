//! What is known of a client connection, wherever its socket is: it travels with the socket between processes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The record of one client connection.
///
/// The master writes it at accept; the worker that served it brings it up to date when it hands the socket back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conn {
    /// Unique for the life of the master; the access log names it.
    pub id: u64,
    /// When it was accepted, monotonic milliseconds.
    pub accepted_ms: u64,
    /// When a request or its response last moved, monotonic milliseconds.
    pub active_ms: u64,
    /// Kept here because the kernel forgets it after a reset.
    pub peer: Peer,
    /// Which listener accepted it, as an index into the configuration's list.
    pub listener: u16,
    /// Requests served on it so far.
    pub requests: u32,
    /// How long it last waited in the master's queue, milliseconds.
    pub queued_ms: u32,
    /// See the constants of [`Conn`].
    pub flags: u8,
}

/// A client's address in 18 octets; IPv4 is kept in its mapped form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    octets: [u8; 16],
    port: u16,
}

impl Conn {
    /// A worker handed it back between requests because others had room.
    pub const SPREAD: u8 = 1;

    /// Octets of the record in a message.
    pub const WIRE_LENGTH: usize = 53;

    /// A connection as it is when it has just been accepted. The dispatcher gives it its id.
    #[must_use]
    pub fn accepted(peer: SocketAddr, listener: u16, now_ms: u64) -> Conn {
        Conn {
            id: 0,
            accepted_ms: now_ms,
            active_ms: now_ms,
            peer: Peer::from(peer),
            listener,
            requests: 0,
            queued_ms: 0,
            flags: 0,
        }
    }

    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer.into()
    }

    /// Appends the record: every number little-endian, in the order of the struct.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.accepted_ms.to_le_bytes());
        out.extend_from_slice(&self.active_ms.to_le_bytes());
        out.extend_from_slice(&self.peer.octets);
        out.extend_from_slice(&self.peer.port.to_le_bytes());
        out.extend_from_slice(&self.listener.to_le_bytes());
        out.extend_from_slice(&self.requests.to_le_bytes());
        out.extend_from_slice(&self.queued_ms.to_le_bytes());
        out.push(self.flags);
    }

    /// Reads what [`Conn::write`] wrote.
    #[must_use]
    pub fn read(wire: &[u8; Conn::WIRE_LENGTH]) -> Conn {
        Conn {
            id: u64::from_le_bytes(octets(wire, 0)),
            accepted_ms: u64::from_le_bytes(octets(wire, 8)),
            active_ms: u64::from_le_bytes(octets(wire, 16)),
            peer: Peer {
                octets: octets(wire, 24),
                port: u16::from_le_bytes(octets(wire, 40)),
            },
            listener: u16::from_le_bytes(octets(wire, 42)),
            requests: u32::from_le_bytes(octets(wire, 44)),
            queued_ms: u32::from_le_bytes(octets(wire, 48)),
            flags: wire[52],
        }
    }
}

// An idle connection costs the master this and a few links; ARCHITECTURE.md promises at most 64.
const _: () = assert!(size_of::<Conn>() <= 64 && Conn::WIRE_LENGTH <= 64);

fn octets<const N: usize>(wire: &[u8; Conn::WIRE_LENGTH], at: usize) -> [u8; N] {
    std::array::from_fn(|i| wire[at + i])
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Peer {
        let octets = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        Peer {
            octets,
            port: address.port(),
        }
    }
}

impl From<Peer> for SocketAddr {
    fn from(peer: Peer) -> SocketAddr {
        let bits = u128::from_be_bytes(peer.octets);
        let ip = match bits >> 32 {
            // RFC 4291 section 2.5.5.2: an IPv4-mapped address.
            0xffff => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
            _ => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        };
        SocketAddr::new(ip, peer.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_its_short_form() {
        for text in [
            "127.0.0.1:80",
            "[::1]:65535",
            "[2001:db8::7]:1",
            "0.0.0.0:0",
        ] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(SocketAddr::from(Peer::from(address)), address);
        }
    }

    #[test]
    fn the_record_survives_the_wire() {
        let mut conn = Conn::accepted("192.0.2.7:4711".parse().unwrap(), 3, u64::MAX - 9);
        conn.id = 0x0102_0304_0506_0708;
        conn.requests = 17;
        conn.queued_ms = 5;
        conn.flags = Conn::SPREAD;
        let mut wire = Vec::new();
        conn.write(&mut wire);
        let wire: [u8; Conn::WIRE_LENGTH] = wire.try_into().unwrap();
        assert_eq!(Conn::read(&wire), conn);
    }
}
