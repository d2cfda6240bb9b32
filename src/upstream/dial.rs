//! From an authority to a connected socket: resolve, ask `access` about each address, race them (RFC 8305).

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Error;
use super::dns::Resolver;
use crate::access::{Decision, DenyReason, Destinations};
use crate::http::target::Authority;
use crate::wire::Stream;

/// RFC 8305 section 5: "The RECOMMENDED value for the Connection Attempt Delay is 250 milliseconds."
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Addresses tried at the most.
const MOST_ATTEMPTS: usize = 8;
/// How long a connection waits for a descriptor, and between two looks.
const LONGEST_SHORTAGE: Duration = Duration::from_secs(2);
const SHORTAGE_STEP: Duration = Duration::from_millis(5);

/// Connects to `authority` within `limit`.
///
/// `destinations` decides on each address that would be connected to; `None` exempts (the reverse mode's origin).
/// Errors: no address, every address refused by `destinations`, no connection, or the deadline.
pub async fn dial(
    resolver: &Resolver,
    authority: &Authority,
    destinations: Option<&Destinations>,
    limit: Duration,
) -> Result<(Stream, SocketAddr), Error> {
    let attempt = async {
        let addresses = resolver.addresses(&authority.host).await;
        let addresses = addresses.map_err(|why| Error::Name(authority.host.to_string(), why))?;
        let port = authority.port_or(80);
        let (allowed, denied) = permitted(
            addresses.into_iter().map(|ip| SocketAddr::new(ip, port)),
            authority,
            destinations,
        );
        match (allowed.is_empty(), denied) {
            (true, Some((address, reason))) => Err(Error::Denied(address, reason)),
            (true, None) => Err(Error::Name(
                authority.host.to_string(),
                "it has none".to_owned(),
            )),
            (false, _) => race(interleave(allowed), authority).await,
        }
    };
    timeout(limit, attempt)
        .await
        .unwrap_or_else(|_| Err(Error::ConnectTimeout(authority.to_string())))
}

fn permitted(
    addresses: impl Iterator<Item = SocketAddr>,
    authority: &Authority,
    destinations: Option<&Destinations>,
) -> (Vec<SocketAddr>, Option<(SocketAddr, DenyReason)>) {
    let mut allowed = Vec::new();
    let mut denied = None;
    for address in addresses {
        match destinations.map_or(Decision::Allow, |rules| {
            rules.decide(&authority.host, address)
        }) {
            Decision::Allow => allowed.push(address),
            Decision::Deny(reason) => denied = Some((address, reason)),
        }
    }
    (allowed, denied)
}

/// RFC 8305 section 4: the families alternate, IPv6 first.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (six, four): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv6);
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut order = Vec::new();
    loop {
        let before = order.len();
        order.extend(six.next());
        order.extend(four.next());
        if order.len() == before {
            order.truncate(MOST_ATTEMPTS);
            return order;
        }
    }
}

async fn race(
    addresses: Vec<SocketAddr>,
    authority: &Authority,
) -> Result<(Stream, SocketAddr), Error> {
    if let [address] = addresses[..] {
        let stream = connect(address)
            .await
            .map_err(|error| Error::Connect(authority.to_string(), error))?;
        return Ok((stream, address));
    }
    let mut attempts = JoinSet::new();
    let mut waiting = addresses.into_iter();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        let more = match waiting.next() {
            Some(address) => {
                attempts.spawn_local(async move { (address, connect(address).await) });
                true
            }
            None => false,
        };
        if !more && attempts.is_empty() {
            return Err(Error::Connect(authority.to_string(), last));
        }
        tokio::select! {
            Some(Ok((address, outcome))) = attempts.join_next() => match outcome {
                Ok(stream) => return Ok((stream, address)),
                // A failed attempt starts the next one at once.
                Err(error) => last = error,
            },
            () = sleep(ATTEMPT_DELAY), if more => {}
            else => {}
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<Stream> {
    let socket = socket_for(address).await?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => return Ok(Stream::new(OwnedFd::from(socket))),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    let stream = Stream::new(OwnedFd::from(socket));
    stream.connected().await?;
    Ok(stream)
}

/// A new socket. Where the descriptors are used up it waits a while for one: idle clients are handed back, and responses
/// end, all the time.
async fn socket_for(address: SocketAddr) -> io::Result<Socket> {
    let mut waited = Duration::ZERO;
    loop {
        let made = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        );
        match made {
            Err(error) if is_shortage(&error) && waited < LONGEST_SHORTAGE => {
                sleep(SHORTAGE_STEP).await;
                waited += SHORTAGE_STEP;
            }
            made => return made,
        }
    }
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate_and_six_goes_first() {
        let parse = |texts: &[&str]| {
            texts
                .iter()
                .map(|t| t.parse().unwrap())
                .collect::<Vec<SocketAddr>>()
        };
        let order = interleave(parse(&["1.1.1.1:80", "2.2.2.2:80", "[::1]:80"]));
        assert_eq!(order, parse(&["[::1]:80", "1.1.1.1:80", "2.2.2.2:80"]));
    }

    #[test]
    fn a_refused_address_does_not_keep_another_from_answering() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let alive = listener.local_addr().unwrap();
        let dead = {
            let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            gone.local_addr().unwrap()
        };
        let authority = Authority::parse(b"a.example").unwrap();
        let local = tokio::task::LocalSet::new();
        let (_, address) = local
            .block_on(&runtime, race(vec![dead, alive], &authority))
            .unwrap();
        assert_eq!(address, alive);
        assert!(
            local
                .block_on(&runtime, race(vec![dead, dead], &authority))
                .is_err()
        );
    }
}
