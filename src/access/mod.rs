//! Who may use the proxy, and what it may connect to. Pure: addresses in, decisions with reasons out.
//!
//! Names are never resolved here. Admit asks about clients and CONNECT ports; dial asks about each address just
//! before it connects to it.

mod destinations;

use std::net::IpAddr;

use ipnet::IpNet;

pub use destinations::{Decision, DenyReason, Destinations, ExceptionError};

/// The clients that may use the proxy.
#[derive(Clone, Debug)]
pub struct Clients {
    allowed: Vec<IpNet>,
    own: Vec<IpAddr>,
}

impl Clients {
    /// An empty `allowed` stands for loopback and `own`, this host's addresses.
    pub fn new(allowed: &[IpNet], own: Vec<IpAddr>) -> Clients {
        let own = own
            .into_iter()
            .map(|address| address.to_canonical())
            .collect();
        Clients {
            allowed: allowed.to_vec(),
            own,
        }
    }

    pub fn allows(&self, client: IpAddr) -> bool {
        // A socket that listens on both families reports IPv4 clients in mapped form.
        let client = client.to_canonical();
        match self.allowed.is_empty() {
            true => client.is_loopback() || self.own.contains(&client),
            false => self.allowed.iter().any(|net| net.contains(&client)),
        }
    }
}

/// Whether CONNECT may open a tunnel to that port.
pub fn connect_port_allowed(ports: &[u16], port: u16) -> bool {
    ports.contains(&port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn by_default_this_host_only() {
        let clients = Clients::new(&[], vec![ip("192.0.2.7"), ip("2001:db8::7")]);
        for own in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "192.0.2.7",
            "::ffff:192.0.2.7",
            "2001:db8::7",
        ] {
            assert!(clients.allows(ip(own)), "{own}");
        }
        for other in ["192.0.2.8", "::ffff:192.0.2.8", "2001:db8::8", "10.0.0.1"] {
            assert!(!clients.allows(ip(other)), "{other}");
        }
    }

    #[test]
    fn a_list_is_the_whole_list() {
        let clients = Clients::new(
            &[
                "10.0.0.0/8".parse().unwrap(),
                "2001:db8::/32".parse().unwrap(),
            ],
            vec![],
        );
        assert!(clients.allows(ip("10.1.2.3")) && clients.allows(ip("::ffff:10.1.2.3")));
        assert!(clients.allows(ip("2001:db8::1")) && !clients.allows(ip("127.0.0.1")));
    }

    #[test]
    fn ports() {
        assert!(connect_port_allowed(&[80, 443], 443) && !connect_port_allowed(&[80, 443], 25));
    }
}
