//! Idle connections to origin servers, by authority, in this worker.
//!
//! Only a connection whose last response ended where it should comes back here. One on which anything has
//! arrived meanwhile (the end included) is never handed out: RFC 9112 section 9.2, octets on an idle connection
//! answer no request of ours.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::wire::Stream;

/// Idle connections over all authorities.
const MOST_IDLE: usize = 1024;

pub struct Pool {
    idle: HashMap<Box<[u8]>, VecDeque<Idle>, ahash::RandomState>,
    count: usize,
    per_host: usize,
    timeout: Duration,
}

struct Idle {
    stream: Stream,
    address: SocketAddr,
    until: Instant,
}

impl Pool {
    /// `per_host` idle connections an authority, each for at most `timeout`.
    pub fn new(per_host: usize, timeout: Duration) -> Pool {
        Pool {
            idle: HashMap::default(),
            count: 0,
            per_host,
            timeout,
        }
    }

    /// The connection of `authority` that was used last, if one is alive.
    pub fn take(&mut self, authority: &[u8]) -> Option<(Stream, SocketAddr)> {
        let idle = self.idle.get_mut(authority)?;
        let now = Instant::now();
        while let Some(candidate) = idle.pop_back() {
            self.count -= 1;
            if candidate.until > now && candidate.stream.is_quiet() {
                return Some((candidate.stream, candidate.address));
            }
        }
        self.idle.remove(authority);
        None
    }

    /// Keeps a connection for the next request. `allowed` is the origin's own `Keep-Alive: timeout`.
    pub fn give(
        &mut self,
        authority: &[u8],
        stream: Stream,
        address: SocketAddr,
        allowed: Option<Duration>,
    ) {
        // A second less than the origin allows, so that a request does not meet its close.
        let allowed = allowed.map_or(self.timeout, |own| {
            own.saturating_sub(Duration::from_secs(1)).min(self.timeout)
        });
        if self.per_host == 0 || allowed.is_zero() || self.count >= MOST_IDLE {
            return;
        }
        let idle = Idle {
            stream,
            address,
            until: Instant::now() + allowed,
        };
        let queue = match self.idle.get_mut(authority) {
            Some(queue) => queue,
            None => self.idle.entry(authority.into()).or_default(),
        };
        queue.push_back(idle);
        self.count += 1;
        if queue.len() > self.per_host {
            queue.pop_front();
            self.count -= 1;
        }
    }

    /// Drops what has been idle for too long or has been closed by its origin.
    pub fn sweep(&mut self) {
        let now = Instant::now();
        self.idle.retain(|_, queue| {
            queue.retain(|idle| idle.until > now && idle.stream.is_quiet());
            !queue.is_empty()
        });
        self.count = self.idle.values().map(VecDeque::len).sum();
    }

    pub fn clear(&mut self) {
        self.idle.clear();
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::new(ours.into()), theirs)
    }

    #[test]
    fn the_last_used_comes_first_and_only_so_many_stay() {
        let address = "127.0.0.1:80".parse().unwrap();
        let mut pool = Pool::new(2, Duration::from_secs(60));
        let mut peers = Vec::new();
        for _ in 0..3 {
            let (stream, peer) = pair();
            peers.push(peer);
            pool.give(b"a:80", stream, address, None);
        }
        assert!(pool.take(b"b:80").is_none());
        assert!(pool.take(b"a:80").is_some());
        assert!(pool.take(b"a:80").is_some());
        assert!(pool.take(b"a:80").is_none());
        assert_eq!(pool.count, 0);
    }

    #[test]
    fn a_connection_with_octets_or_an_end_on_it_is_not_handed_out() {
        let address = "127.0.0.1:80".parse().unwrap();
        let mut pool = Pool::new(8, Duration::from_secs(60));
        let (talking, mut peer) = pair();
        peer.write_all(b"HTTP/1.1 408 \r\n\r\n").unwrap();
        pool.give(b"a:80", talking, address, None);
        let (closed, gone) = pair();
        drop(gone);
        pool.give(b"a:80", closed, address, None);
        let (short, _kept) = pair();
        pool.give(b"a:80", short, address, Some(Duration::from_secs(1)));
        assert!(pool.take(b"a:80").is_none());
        assert_eq!(pool.count, 0);
    }
}
