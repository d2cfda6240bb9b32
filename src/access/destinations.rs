//! Which addresses the proxy connects to. Decided on the address itself, after resolution, at every attempt.
//!
//! Forbidden by default is what leads into this host or its surroundings by accident or by trick: loopback,
//! link-local, unspecified, multicast, broadcast and cloud metadata, also where an IPv6 address carries such an
//! IPv4 one inside. Private networks are allowed: offices are made of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use thiserror::Error;

use crate::http::{Authority, Host};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    Deny(DenyReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DenyReason {
    Broadcast,
    CloudMetadata,
    LinkLocal,
    Loopback,
    Multicast,
    Unspecified,
}

impl DenyReason {
    pub fn as_str(self) -> &'static str {
        match self {
            DenyReason::Broadcast => "broadcast address",
            DenyReason::CloudMetadata => "address of a cloud's metadata service",
            DenyReason::LinkLocal => "link-local address",
            DenyReason::Loopback => "loopback address",
            DenyReason::Multicast => "multicast address",
            DenyReason::Unspecified => "unspecified address",
        }
    }
}

impl fmt::Display for DenyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An entry of `destinations_allow` that cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{entry}` is none of host:port, address, address:port, [address]:port or network/bits")]
pub struct ExceptionError {
    pub entry: String,
}

/// The exceptions to what is forbidden.
#[derive(Clone, Debug, Default)]
pub struct Destinations {
    exceptions: Vec<Exception>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    /// Whatever that name resolves to, at that port.
    Name {
        host: Host,
        port: u16,
    },
    Network {
        network: IpNet,
        port: Option<u16>,
    },
}

impl Destinations {
    pub fn parse(entries: &[String]) -> Result<Destinations, ExceptionError> {
        let read = |entry: &String| {
            Exception::parse(entry).ok_or_else(|| ExceptionError {
                entry: entry.clone(),
            })
        };
        Ok(Destinations {
            exceptions: entries.iter().map(read).collect::<Result<_, _>>()?,
        })
    }

    /// Whether a request for `host` may connect to `address`, one of those that it resolved to.
    pub fn decide(&self, host: &Host, address: SocketAddr) -> Decision {
        match forbidden(address.ip()) {
            Some(reason) if !self.excepts(host, address) => Decision::Deny(reason),
            _ => Decision::Allow,
        }
    }

    fn excepts(&self, host: &Host, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.exceptions.iter().any(|exception| match exception {
            Exception::Name { host: name, port } => name == host && *port == address.port(),
            Exception::Network { network, port } => {
                network.contains(&ip) && port.is_none_or(|port| port == address.port())
            }
        })
    }
}

impl Exception {
    fn parse(entry: &str) -> Option<Exception> {
        if let Ok(network) = entry.parse::<IpNet>() {
            return Some(Exception::Network {
                network,
                port: None,
            });
        }
        if let Ok(address) = entry.parse::<IpAddr>() {
            return Some(Exception::Network {
                network: address.to_canonical().into(),
                port: None,
            });
        }
        let Authority { host, port } = Authority::parse(entry.as_bytes()).ok()?;
        match (host.address(), port) {
            (Some(address), port) => Some(Exception::Network {
                network: address.to_canonical().into(),
                port,
            }),
            // A wildcard is a legal character of a name, but nobody means it so.
            (None, Some(port)) if !entry.contains('*') => Some(Exception::Name { host, port }),
            (None, _) => None,
        }
    }
}

fn forbidden(address: IpAddr) -> Option<DenyReason> {
    match address {
        IpAddr::V4(address) => forbidden_v4(address),
        IpAddr::V6(address) => forbidden_v6(address),
    }
}

/// Metadata services outside the link-local range: Alibaba's, Azure's and Oracle's.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// Amazon's and Google's.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

fn forbidden_v4(address: Ipv4Addr) -> Option<DenyReason> {
    match address.octets() {
        _ if METADATA_V4.contains(&address) => Some(DenyReason::CloudMetadata),
        // RFC 1122 3.2.1.3: 0/8 is "this host on this network"; some systems connect it to loopback.
        [0, ..] => Some(DenyReason::Unspecified),
        [127, ..] => Some(DenyReason::Loopback),
        [169, 254, ..] => Some(DenyReason::LinkLocal),
        [224..=239, ..] => Some(DenyReason::Multicast),
        [255, 255, 255, 255] => Some(DenyReason::Broadcast),
        _ => None,
    }
}

fn forbidden_v6(address: Ipv6Addr) -> Option<DenyReason> {
    if METADATA_V6.contains(&address) {
        return Some(DenyReason::CloudMetadata);
    }
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(DenyReason::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(DenyReason::Loopback),
        [0xfe80..=0xfebf, ..] => Some(DenyReason::LinkLocal),
        [0xff00..=0xffff, ..] => Some(DenyReason::Multicast),
        _ => embedded(address)
            .into_iter()
            .flatten()
            .find_map(forbidden_v4),
    }
}

/// The IPv4 addresses that an IPv6 one may lead to.
fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    let bits = address.to_bits();
    let at = |first_bit: u32| Ipv4Addr::from((bits >> (96 - first_bit)) as u32);
    match address.segments() {
        // IPv4-compatible ::/96, IPv4-mapped ::ffff:0:0/96, IPv4-translated ::ffff:0:0:0/96 (RFC 4291, RFC 2765)
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => {
            [Some(at(96)), None, None, None]
        }
        // NAT64 (RFC 6052)
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => [Some(at(96)), None, None, None],
        // NAT64 of local use (RFC 8215): the prefix may have 48, 56, 64 or 96 bits, and where it is shorter the address is
        // cut by an octet of zeros at bit 64 and followed by zeros (RFC 6052 section 2.2).
        [0x64, 0xff9b, 1, ..] => {
            let cut = |before: u32| {
                let high_bits = 64 - before;
                let high = ((bits >> 64) & ((1u128 << high_bits) - 1)) as u32;
                let low_bits = 32 - high_bits;
                let low = ((bits & ((1u128 << 56) - 1)) >> (56 - low_bits)) as u32;
                let rest = bits & ((1u128 << (56 - low_bits)) - 1);
                let high = if low_bits == 32 { 0 } else { high << low_bits };
                (bits >> 56 & 0xff == 0 && rest == 0).then(|| Ipv4Addr::from(high | low))
            };
            let whole = Some(at(96)).filter(|address| !address.is_unspecified());
            let not_zero = |address: &Ipv4Addr| !address.is_unspecified();
            [
                whole,
                cut(48).filter(not_zero),
                cut(56).filter(not_zero),
                cut(64).filter(not_zero),
            ]
        }
        // 6to4 (RFC 3056)
        [0x2002, ..] => [Some(at(16)), None, None, None],
        // Teredo (RFC 4380): the client's address is inverted.
        [0x2001, 0, ..] => [Some(Ipv4Addr::from(!at(96).to_bits())), None, None, None],
        _ => [None; 4],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(entries: &[&str]) -> Result<Destinations, ExceptionError> {
        Destinations::parse(
            &entries
                .iter()
                .map(|entry| entry.to_string())
                .collect::<Vec<_>>(),
        )
    }

    fn decide(destinations: &Destinations, host: &str, address: &str) -> Decision {
        let host = Authority::parse(host.as_bytes()).unwrap().host;
        destinations.decide(&host, address.parse().unwrap())
    }

    #[test]
    fn forbidden_by_default() {
        use DenyReason::*;
        for (address, reason) in [
            ("127.0.0.1", Loopback),
            ("127.255.255.254", Loopback),
            ("0.0.0.0", Unspecified),
            ("0.1.2.3", Unspecified),
            ("169.254.0.1", LinkLocal),
            ("169.254.169.254", CloudMetadata),
            ("100.100.100.200", CloudMetadata),
            ("224.0.0.1", Multicast),
            ("239.255.255.255", Multicast),
            ("255.255.255.255", Broadcast),
            ("::", Unspecified),
            ("::1", Loopback),
            ("fe80::1", LinkLocal),
            ("febf::1", LinkLocal),
            ("ff02::1", Multicast),
            ("fd00:ec2::254", CloudMetadata),
            ("::127.0.0.1", Loopback),
            ("::ffff:127.0.0.1", Loopback),
            ("::ffff:169.254.169.254", CloudMetadata),
            ("::ffff:0:127.0.0.1", Loopback),
            ("64:ff9b::127.0.0.1", Loopback),
            ("64:ff9b::a9fe:a9fe", CloudMetadata),
            ("64:ff9b:1::7f00:1", Loopback),
            ("64:ff9b:1:7f00:0:100::", Loopback),
            ("64:ff9b:1:7f:0:1::", Loopback),
            ("64:ff9b:1:5:7f:0:100:0", Loopback),
            ("2002:7f00:1::1", Loopback),
            ("2002:a9fe:a9fe::", CloudMetadata),
            ("2001:0:4136:e378:8000:63bf:80ff:fffe", Loopback),
        ] {
            let ip: IpAddr = address.parse().unwrap();
            let decision =
                Destinations::default().decide(&Host::Name("x".into()), SocketAddr::new(ip, 80));
            assert_eq!(decision, Decision::Deny(reason), "{address}");
        }
    }

    #[test]
    fn allowed_by_default() {
        for address in [
            "1.1.1.1",
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "2606:4700::1111",
            "fd12::1",
            "::ffff:10.0.0.1",
            "64:ff9b::101:101",
            "64:ff9b:1:101:1:100::",
            "2002:101:101::1",
        ] {
            let ip: IpAddr = address.parse().unwrap();
            let decision =
                Destinations::default().decide(&Host::Name("x".into()), SocketAddr::new(ip, 80));
            assert_eq!(decision, Decision::Allow, "{address}");
        }
    }

    #[test]
    fn exceptions() {
        use Decision::*;
        let loopback = Deny(DenyReason::Loopback);
        let some = parse(&[
            "localhost:8000",
            "127.0.0.2",
            "127.0.0.3:81",
            "169.254.0.0/16",
            "[::1]:82",
            "::ffff:127.0.0.9",
        ]);
        let some = some.unwrap();
        for (host, address, expected) in [
            ("LOCALHOST", "127.0.0.1:8000", Allow),
            ("localhost", "127.0.0.1:8001", loopback),
            ("evil.example", "127.0.0.1:8000", loopback),
            ("evil.example", "127.0.0.2:1", Allow),
            ("x", "[::ffff:127.0.0.2]:1", Allow),
            ("x", "127.0.0.3:81", Allow),
            ("x", "127.0.0.3:80", loopback),
            ("x", "169.254.169.254:80", Allow),
            ("[::1]", "[::1]:82", Allow),
            ("[::1]", "[::1]:80", loopback),
            ("x", "127.0.0.9:5", Allow),
        ] {
            assert_eq!(decide(&some, host, address), expected, "{host} {address}");
        }
        for bad in [
            "localhost",
            "",
            "a b:1",
            "127.0.0.1/33",
            "127.0.0.1:99999",
            "127.1",
            "*:80",
        ] {
            let error = parse(&[bad]).unwrap_err();
            assert_eq!(error.entry, bad);
        }
    }
}
