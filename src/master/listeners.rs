//! The listening sockets: bound before any child exists, watched while there is room, closed first of all.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use thiserror::Error;

use super::{Master, Source};
use crate::config::{self, Mode};
use crate::dispatch::{Conn, Event};
use crate::shared::Counter;
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::socket::{self, Readiness};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 4096;

/// Connections accepted from one listener before others get their turn, at the most.
const ACCEPTED_AT_ONCE: usize = 64;

struct Listener {
    /// Its place in the configuration.
    index: usize,
    socket: OwnedFd,
    address: SocketAddr,
    mode: Mode,
    /// Connections expected at the next wake. Asking for one more than there are costs a call in vain each time, and
    /// asking for fewer costs another wake.
    burst: usize,
}

pub(super) struct Listeners {
    listeners: Vec<Listener>,
}

/// Why an address cannot be listened on, and what to do about it.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {cause}; {}", remedy(.cause))]
pub(super) struct ListenError {
    address: SocketAddr,
    /// In the text already, so it is no `source` that would be told twice.
    cause: io::Error,
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program (or another baton) has it: stop that one or choose another port"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE: choose a higher one"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address: choose one that it has"
        }
        _ => "choose another address",
    }
}

// === impl Listeners ===

impl Listeners {
    /// Binds all of them, or none.
    pub(super) fn bind(wanted: &[config::Listener]) -> Result<Listeners, ListenError> {
        let mut listeners = Vec::new();
        for (index, listener) in wanted.iter().enumerate() {
            let error = |cause| ListenError {
                address: listener.address,
                cause,
            };
            match socket::listen(listener.address, BACKLOG) {
                Ok(socket) => {
                    let address = socket::local_addr(socket.as_fd()).map_err(error)?;
                    listeners.push(Listener {
                        index,
                        socket,
                        address,
                        mode: listener.mode,
                        burst: 1,
                    });
                }
                // Machines without IPv6 exist; there its loopback address is left out, if another one remains.
                Err(missing) if wanted.len() > 1 && is_without_ipv6(listener.address, &missing) => {
                    log::warn!("not listening on {}: {missing}", listener.address);
                }
                Err(cause) => return Err(error(cause)),
            }
        }
        match (listeners.is_empty(), wanted.first()) {
            (true, Some(first)) => Err(ListenError {
                address: first.address,
                cause: io::ErrorKind::AddrNotAvailable.into(),
            }),
            _ => Ok(Listeners { listeners }),
        }
    }

    pub(super) fn watch(&self, epoll: &Epoll) -> io::Result<()> {
        for (place, listener) in self.listeners.iter().enumerate() {
            epoll.add(
                listener.socket.as_fd(),
                Source::Listener(place).into(),
                Interest::Read,
            )?;
        }
        Ok(())
    }

    pub(super) fn unwatch(&self, epoll: &Epoll) {
        for listener in &self.listeners {
            // One that is not watched is fine.
            let _ = epoll.delete(listener.socket.as_fd());
        }
    }

    fn burst(&self, place: usize) -> usize {
        self.listeners
            .get(place)
            .map_or(0, |listener| listener.burst)
    }

    fn expect(&mut self, place: usize, connections: usize) {
        if let Some(listener) = self.listeners.get_mut(place) {
            listener.burst = connections.clamp(1, ACCEPTED_AT_ONCE);
        }
    }

    /// Where clients find them.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|it| it.address).collect()
    }

    pub(super) fn close(&mut self) {
        self.listeners.clear();
    }

    /// `http://127.0.0.1:3128, http://[::1]:3128 (forward, …)`; each with its mode where modes differ.
    pub(super) fn describe(&self, summary: &str) -> String {
        let mode = |mode: Mode| match mode {
            Mode::Forward => "forward",
            Mode::Reverse => "reverse",
        };
        let first = self
            .listeners
            .first()
            .map_or(Mode::Forward, |listener| listener.mode);
        let alike = self.listeners.iter().all(|listener| listener.mode == first);
        let addresses: Vec<String> = self
            .listeners
            .iter()
            .map(|listener| {
                let url = format!("http://{}", listener.address);
                if alike {
                    url
                } else {
                    format!("{url} {}", mode(listener.mode))
                }
            })
            .collect();
        let addresses = addresses.join(", ");
        if alike {
            format!("{addresses} ({}, {summary})", mode(first))
        } else {
            format!("{addresses} ({summary})")
        }
    }
}

fn is_without_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    let missing = matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    );
    missing && address.is_ipv6() && address.ip().is_loopback()
}

// === impl Master ===

/// What an error of `accept` means.
enum Trouble {
    /// That connection is gone; the next one may be fine.
    Connection,
    /// There is no room for any.
    Shortage,
}

impl Master {
    /// Takes what waits at a listener, as much as there is room for.
    pub(super) fn accept(&mut self, place: usize) {
        let expected = self.listeners.burst(place);
        for accepted in 0..expected {
            let Some(listener) = self
                .listeners
                .listeners
                .get(place)
                .filter(|_| self.mind.may_accept())
            else {
                return;
            };
            match socket::accept(listener.socket.as_fd()) {
                Ok(Some((socket, peer))) => {
                    let index = u16::try_from(listener.index).unwrap_or(u16::MAX);
                    self.accepted(socket, Conn::accepted(peer, index, self.now));
                }
                Ok(None) => return self.listeners.expect(place, accepted),
                Err(error) => match trouble(&error) {
                    Trouble::Connection => {}
                    Trouble::Shortage => {
                        log::debug!("accepting fails: {error}");
                        self.tell(Event::AcceptFailed);
                        return;
                    }
                },
            }
        }
        self.listeners.expect(place, expected + 1);
    }

    fn accepted(&mut self, socket: OwnedFd, conn: Conn) {
        self.count(Counter::Accepted);
        // With TCP_DEFER_ACCEPT most have sent something by now, and need not be watched at all.
        let ready = match socket::has_bytes(socket.as_fd()) {
            Ok(Readiness::Bytes) => true,
            Ok(Readiness::Nothing) => false,
            Ok(Readiness::End) | Err(_) => return,
        };
        self.take_in(socket, conn, Vec::new(), ready);
    }
}

fn trouble(error: &io::Error) -> Trouble {
    match error.raw_os_error() {
        // accept(2): network errors that were pending on the new socket; to be treated like "try again".
        Some(
            libc::ECONNABORTED
            | libc::EINTR
            | libc::EPROTO
            | libc::EPERM
            | libc::ENOPROTOOPT
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENONET,
        ) => Trouble::Connection,
        _ => Trouble::Shortage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(address: &str, mode: Mode) -> config::Listener {
        config::Listener {
            address: address.parse().unwrap(),
            mode,
            priority: 0,
            caching: config::Overrides::default(),
        }
    }

    #[test]
    fn a_taken_port_names_itself_and_the_remedy() {
        let first = Listeners::bind(&[wanted("127.0.0.1:0", Mode::Forward)]).unwrap();
        let address = first.listeners[0].address;
        let error = Listeners::bind(&[wanted(&address.to_string(), Mode::Forward)])
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.starts_with(&format!("cannot listen on {address}: ")),
            "{error}"
        );
        assert!(error.contains("another program"), "{error}");
    }

    #[test]
    fn the_line_names_the_real_port_and_each_mode_once() {
        let mut both = Listeners::bind(&[
            wanted("127.0.0.1:0", Mode::Forward),
            wanted("127.0.0.1:0", Mode::Forward),
        ])
        .unwrap();
        let [a, b] = [both.listeners[0].address, both.listeners[1].address];
        assert_eq!(
            both.describe("2 workers"),
            format!("http://{a}, http://{b} (forward, 2 workers)")
        );
        both.listeners[1].mode = Mode::Reverse;
        assert_eq!(
            both.describe("2 workers"),
            format!("http://{a} forward, http://{b} reverse (2 workers)")
        );
    }
}
