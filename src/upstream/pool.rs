//! Idle connections to origin servers, by authority, in this worker.
//!
//! Only a connection whose last response ended where it should comes back here. One on which anything has
//! arrived meanwhile (the end included) is never handed out: RFC 9112 section 9.2, octets on an idle connection
//! answer no request of ours. As many stay as the load needs, so that none is made anew for the next request; those that
//! nobody has needed for a while go, however long they might stay.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::wire::Stream;

/// So many of an authority stay until their time is over, needed or not.
const UNTOUCHED: usize = 32;
/// Sweeps after which half of those that were not needed meanwhile go.
const PERIOD: u32 = 5;

pub struct Pool {
    shelves: HashMap<Box<[u8]>, Shelf, ahash::RandomState>,
    /// Connections over all authorities, and how many there may be.
    count: usize,
    most: usize,
    per_host: usize,
    timeout: Duration,
    sweeps: u32,
}

/// Of one authority.
#[derive(Default)]
struct Shelf {
    /// The last used at the back.
    idle: VecDeque<Idle>,
    /// The fewest that have been here in this period: so many nobody has needed.
    fewest: usize,
}

struct Idle {
    stream: Stream,
    address: SocketAddr,
    until: Instant,
}

impl Pool {
    /// At most `per_host` idle connections an authority and `most` over all, each for at most `timeout`.
    pub fn new(per_host: usize, most: usize, timeout: Duration) -> Pool {
        Pool {
            shelves: HashMap::default(),
            count: 0,
            most,
            per_host,
            timeout,
            sweeps: 0,
        }
    }

    /// The connection of `authority` that was used last, if one is alive.
    pub fn take(&mut self, authority: &[u8]) -> Option<(Stream, SocketAddr)> {
        let shelf = self.shelves.get_mut(authority)?;
        let now = Instant::now();
        while let Some(candidate) = shelf.idle.pop_back() {
            self.count -= 1;
            if candidate.until > now && candidate.stream.is_quiet() {
                shelf.fewest = shelf.fewest.min(shelf.idle.len());
                return Some((candidate.stream, candidate.address));
            }
        }
        self.shelves.remove(authority);
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
        if self.per_host == 0 || allowed.is_zero() || self.most == 0 {
            return;
        }
        if self.count >= self.most {
            self.make_room();
        }
        let idle = Idle {
            stream,
            address,
            until: Instant::now() + allowed,
        };
        let shelf = match self.shelves.get_mut(authority) {
            Some(shelf) => shelf,
            None => self.shelves.entry(authority.into()).or_default(),
        };
        shelf.idle.push_back(idle);
        self.count += 1;
        if shelf.idle.len() > self.per_host {
            shelf.idle.pop_front();
            shelf.lost(1);
            self.count -= 1;
        }
    }

    /// Of all, the half goes whose time is over first: what has just been used is worth more. So whoever finds no room pays for
    /// as many who will find some.
    fn make_room(&mut self) {
        let shelves = self.shelves.values();
        let mut ends: Vec<Instant> = shelves.flat_map(Shelf::ends).collect();
        let Some(middle) = ends.len().checked_sub(1).map(|last| last / 2) else {
            return;
        };
        let (_, &mut last, _) = ends.select_nth_unstable(middle);
        self.keep(|idle| idle.until > last);
    }

    /// Drops those that `is_good` is not true of.
    fn keep(&mut self, is_good: impl Fn(&Idle) -> bool) {
        self.shelves.retain(|_, shelf| {
            let before = shelf.idle.len();
            shelf.idle.retain(&is_good);
            shelf.lost(before - shelf.idle.len());
            !shelf.idle.is_empty()
        });
        self.count = self.shelves.values().map(|shelf| shelf.idle.len()).sum();
    }

    /// To be called every second: drops what has been idle for too long or has been closed by its origin, and now and then
    /// half of what nobody has needed.
    pub fn sweep(&mut self) {
        self.sweeps += 1;
        if self.sweeps.is_multiple_of(PERIOD) {
            self.shelves.values_mut().for_each(Shelf::end_period);
        }
        let now = Instant::now();
        self.keep(|idle| idle.until > now && idle.stream.is_quiet());
    }

    pub fn clear(&mut self) {
        self.shelves.clear();
        self.count = 0;
    }
}

impl Shelf {
    fn ends(&self) -> impl Iterator<Item = Instant> {
        self.idle.iter().map(|idle| idle.until)
    }

    /// So many have gone that had not been used for longest: they were not needed, and are here no more.
    fn lost(&mut self, count: usize) {
        self.fewest = self.fewest.saturating_sub(count);
    }

    fn end_period(&mut self) {
        let surplus = self.fewest.min(self.idle.len().saturating_sub(UNTOUCHED));
        self.idle.drain(..surplus.div_ceil(2));
        self.fewest = self.idle.len();
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
        let mut pool = Pool::new(2, 1000, Duration::from_secs(60));
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
        let mut pool = Pool::new(8, 1000, Duration::from_secs(60));
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

    #[test]
    fn what_a_crowd_needed_stays_as_long_as_it_is_there_and_then_goes_by_and_by() {
        let address = "127.0.0.1:80".parse().unwrap();
        let mut pool = Pool::new(1000, 1000, Duration::from_secs(600));
        let mut peers = Vec::new();
        let mut of_the_crowd = Vec::new();
        for _ in 0..200 {
            let (stream, peer) = pair();
            peers.push(peer);
            of_the_crowd.push(stream);
        }
        let mut period = |pool: &mut Pool, needed: usize| {
            for _ in 0..PERIOD {
                let taken: Vec<_> = (0..needed).map(|_| pool.take(b"a:80").unwrap().0).collect();
                for stream in taken.into_iter().chain(of_the_crowd.drain(..)) {
                    pool.give(b"a:80", stream, address, None);
                }
                pool.sweep();
            }
            pool.count
        };
        assert_eq!(period(&mut pool, 0), 200, "they have only just come");
        assert_eq!(period(&mut pool, 200), 200);
        assert_eq!(period(&mut pool, 200), 200);
        assert_eq!(period(&mut pool, 120), 160, "80 were not needed");
        assert_eq!(period(&mut pool, 120), 140);
        let at_last = (0..20).map(|_| period(&mut pool, 0)).last();
        assert_eq!(at_last, Some(UNTOUCHED), "these wait for their time");
    }

    #[test]
    fn what_goes_by_itself_is_not_counted_as_unneeded_once_more() {
        let address = "127.0.0.1:80".parse().unwrap();
        let mut pool = Pool::new(1000, 1000, Duration::from_secs(600));
        let mut peers = Vec::new();
        for _ in 0..200 {
            let (stream, peer) = pair();
            peers.push(peer);
            pool.give(b"a:80", stream, address, None);
        }
        (0..PERIOD).for_each(|_| pool.sweep());
        // The last hundred are needed; the others, which are not, are closed by the origin server.
        let needed: Vec<_> = (0..100).map(|_| pool.take(b"a:80").unwrap().0).collect();
        for stream in needed {
            pool.give(b"a:80", stream, address, None);
        }
        peers.drain(..100);
        (0..PERIOD).for_each(|_| pool.sweep());
        assert_eq!(pool.count, 100);
    }

    #[test]
    fn who_comes_last_finds_room_and_who_has_been_there_for_longest_makes_it() {
        let address = "127.0.0.1:80".parse().unwrap();
        let mut pool = Pool::new(1000, 4, Duration::from_secs(600));
        let mut peers = Vec::new();
        for authority in [b"a:80", b"b:80", b"a:80", b"c:80", b"d:80"] {
            let (stream, peer) = pair();
            peers.push(peer);
            pool.give(authority, stream, address, None);
            assert!(pool.count <= 4);
        }
        assert!(pool.take(b"d:80").is_some());
        assert!(pool.take(b"c:80").is_some());
        assert!(pool.take(b"b:80").is_none());
        assert!(pool.take(b"a:80").is_some() && pool.take(b"a:80").is_none());
        assert_eq!(pool.count, 0);
    }
}
