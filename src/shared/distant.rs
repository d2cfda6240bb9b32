//! What the processes of this node know of a store that other nodes use as well: how far its changes have been applied here,
//! until when copies may be served without asking it, and what this node has invalidated and could not tell it yet.
//!
//! The janitor applies a change to the version table and *then* says so (`applied`); it extends the lease by what it knew
//! before it asked. Copies of a node that hears nothing are served no more when the lease has ended. A name that waits to be told
//! is found by nobody here; when there is no room for more names, nothing is.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

use crate::sys::clock::{awake_or_not_ms, monotonic_ms};
use crate::sys::memory::in_shared_memory;

/// How long copies may be served after the store was asked what has changed.
pub const LEASE_MS: u64 = 2_000;
/// Places for names that wait. Memory that is not used is not taken.
const ROOM: usize = 16_384;
/// Where a name may be: so many places from the one that its hash tells.
const PROBED: usize = 64;
/// How long who has taken a place may take to write a name there; then it has died.
const WRITING_MS: u64 = 2_000;

const FREE: u64 = 0;
/// Somebody writes the name, since the moment in the other bits.
const TAKEN: u64 = 1 << 63;

in_shared_memory! {
    /// One store that is not this machine's alone.
    pub struct Distant {
        /// Of the counter that `applied` belongs to; 0: the store cannot be used.
        incarnation: AtomicU64,
        /// The last change that the version table knows of.
        applied: AtomicU64,
        /// Until then (`awake_or_not_ms`) copies are as good as the store.
        lease: AtomicU64,
        /// Places that are not free.
        waiting: AtomicU64,
        /// Ticket of an invalidation of everything that waits; 0: none.
        everything: AtomicU64,
        tickets: AtomicU64,
        /// Until then (`awake_or_not_ms`) no other node uses the store.
        alone: AtomicU64,
        spare: [AtomicU64; 1],
        places: [Waiting; ROOM],
    }
}

in_shared_memory! {
    /// A name that is to be invalidated.
    struct Waiting {
        /// `FREE`, `TAKEN` with a time, or the ticket of the name that is here.
        state: AtomicU64,
        name: [AtomicU64; 2],
        /// Of its key: where copies of it show their version.
        hash: AtomicU64,
        since: AtomicU64,
    }
}

/// What has to be done before a name, or everything, may be found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Ticket {
    /// None: everything.
    place: Option<usize>,
    number: u64,
}

/// Something that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// A name, the hash of its key.
    Name([u8; 16], u64, Ticket),
    Everything(Ticket),
}

impl Distant {
    // === changes

    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation.load(Acquire)
    }

    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied.load(Acquire)
    }

    /// Everything until `number` is in the version table.
    pub fn set_applied(&self, incarnation: u64, number: u64) {
        // Who sees the one number with the other of before stores nothing.
        self.applied.store(number, Release);
        self.incarnation.store(incarnation, Release);
    }

    /// The same by whoever has made the change, and told the version table: good only where nothing came before it.
    pub fn applied_next(&self, number: u64) {
        let before = number.wrapping_sub(1);
        let _ = self
            .applied
            .compare_exchange(before, number, AcqRel, Relaxed);
    }

    /// It cannot be used: nothing is looked for or stored.
    pub fn shut(&self) {
        self.lease.store(0, Release);
        self.incarnation.store(0, Release);
    }

    // === the lease

    /// Whether copies may be served without asking.
    #[must_use]
    pub fn holds_lease(&self) -> bool {
        let until = self.lease.load(Acquire);
        until != 0 && awake_or_not_ms() < until
    }

    /// With the lease 0. Without it nobody hears of what other nodes invalidate: then a number that stays for as long as a lease does,
    /// and what was asked of an origin server under another one is not joined. To be read before a version that goes with it.
    #[must_use]
    pub fn era(&self) -> u64 {
        match self.holds_lease() {
            true => 0,
            false => 1 + awake_or_not_ms() / LEASE_MS,
        }
    }

    pub fn extend_lease(&self, until: u64) {
        self.lease.store(until, Release);
    }

    /// Whether no other node uses the store, as far as has been heard.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        awake_or_not_ms() < self.alone.load(Relaxed)
    }

    /// 0: others do.
    pub fn set_alone(&self, until: u64) {
        self.alone.store(until, Relaxed);
    }

    // === what is owed

    /// To be called before the version is bumped: from now on nobody here finds what has that name.
    pub fn owe(&self, name: &[u8; 16], hash: u64) -> Ticket {
        self.waiting.fetch_add(1, SeqCst);
        let number = self.ticket();
        let (words, now) = (words(name), monotonic_ms());
        for place in places(words) {
            let waiting = &self.places[place];
            let mine = TAKEN | now;
            let taken = waiting.state.compare_exchange(FREE, mine, AcqRel, Relaxed);
            if taken.is_err() {
                continue;
            }
            waiting.since.store(now, Relaxed);
            waiting.hash.store(hash, Relaxed);
            for (own, word) in waiting.name.iter().zip(words) {
                own.store(word, Relaxed);
            }
            // Whoever took so long that it was thought dead has made it everything.
            let written = waiting
                .state
                .compare_exchange(mine, number, SeqCst, Relaxed);
            if written.is_err() {
                return self.owe_everything();
            }
            return Ticket {
                place: Some(place),
                number,
            };
        }
        self.waiting.fetch_sub(1, SeqCst);
        self.owe_everything()
    }

    pub fn owe_everything(&self) -> Ticket {
        let number = self.ticket();
        self.everything.store(number, SeqCst);
        Ticket {
            place: None,
            number,
        }
    }

    /// The store has been told. False: there is more to be told since.
    pub fn paid(&self, ticket: Ticket) -> bool {
        let Some(place) = ticket.place else {
            let paid = self
                .everything
                .compare_exchange(ticket.number, 0, AcqRel, Relaxed);
            return paid.is_ok();
        };
        let Some(waiting) = self.places.get(place) else {
            return false;
        };
        let paid = waiting
            .state
            .compare_exchange(ticket.number, FREE, AcqRel, Relaxed);
        if paid.is_ok() {
            self.waiting.fetch_sub(1, SeqCst);
        }
        paid.is_ok()
    }

    /// Whether what has that name may not be served because it waits to be invalidated.
    #[must_use]
    pub fn is_owed(&self, name: &[u8; 16]) -> bool {
        if self.everything.load(SeqCst) != 0 {
            return true;
        }
        if self.waiting.load(SeqCst) == 0 {
            return false;
        }
        let words = words(name);
        places(words).any(|place| {
            let waiting = &self.places[place];
            match waiting.state.load(SeqCst) {
                FREE => false,
                // It may become any name.
                state if state & TAKEN != 0 => true,
                _ => {
                    let own = waiting.name.iter().map(|word| word.load(Relaxed));
                    own.eq(words)
                }
            }
        })
    }

    /// What has waited for `ms` or longer. A place that its owner never filled makes it everything.
    #[must_use]
    pub fn owed_since(&self, ms: u64) -> Vec<Owed> {
        let mut owed = Vec::new();
        let now = monotonic_ms();
        if self.waiting.load(SeqCst) > 0 {
            for (place, waiting) in self.places.iter().enumerate() {
                let number = waiting.state.load(SeqCst);
                let since = match number & TAKEN {
                    0 => waiting.since.load(Relaxed),
                    _ => number & !TAKEN,
                };
                let waited = now.saturating_sub(since);
                match number {
                    FREE => {}
                    taken if taken & TAKEN != 0 && waited < WRITING_MS => {}
                    taken if taken & TAKEN != 0 => {
                        let _ = self.owe_everything();
                        let freed = waiting.state.compare_exchange(taken, FREE, AcqRel, Relaxed);
                        if freed.is_ok() {
                            self.waiting.fetch_sub(1, SeqCst);
                        }
                    }
                    number if waited >= ms => {
                        let mut name = [0; 16];
                        for (part, word) in name.chunks_exact_mut(8).zip(&waiting.name) {
                            part.copy_from_slice(&word.load(Relaxed).to_le_bytes());
                        }
                        let place = Some(place);
                        let hash = waiting.hash.load(Relaxed);
                        owed.push(Owed::Name(name, hash, Ticket { place, number }));
                    }
                    _ => {}
                }
            }
        }
        match self.everything.load(SeqCst) {
            0 => {}
            number => owed.push(Owed::Everything(Ticket {
                place: None,
                number,
            })),
        }
        owed
    }

    fn ticket(&self) -> u64 {
        1 + self.tickets.fetch_add(1, Relaxed)
    }
}

fn words(name: &[u8; 16]) -> [u64; 2] {
    let (words, _) = name.as_chunks::<8>();
    [0, 1].map(|n| words.get(n).map_or(0, |word| u64::from_le_bytes(*word)))
}

fn places(words: [u64; 2]) -> impl Iterator<Item = usize> {
    let first = (words[0] ^ words[1]) as usize;
    (0..PROBED).map(move |n| first.wrapping_add(n) % ROOM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Region;

    #[test]
    fn what_is_owed_is_found_by_nobody_until_it_is_paid() {
        let (region, _fd) = Region::create(1).unwrap();
        let distant = region.distant();
        let (one, two) = ([1; 16], [2; 16]);
        let first = distant.owe(&one, 1);
        let again = distant.owe(&one, 1);
        assert!(distant.is_owed(&one) && !distant.is_owed(&two));
        assert_eq!(distant.owed_since(0).len(), 2);
        assert_eq!(distant.owed_since(60_000).len(), 0);
        assert!(distant.paid(first) && !distant.paid(first));
        assert!(distant.is_owed(&one), "twice is twice");
        assert!(distant.paid(again) && !distant.is_owed(&one));
    }

    #[test]
    fn when_there_is_no_room_everything_is_owed() {
        let (region, _fd) = Region::create(1).unwrap();
        let distant = region.distant();
        let tickets: Vec<_> = (0..PROBED).map(|_| distant.owe(&[9; 16], 9)).collect();
        assert!(!distant.is_owed(&[8; 16]));
        let all = distant.owe(&[9; 16], 9);
        assert!(distant.is_owed(&[8; 16]));
        let later = distant.owe_everything();
        assert!(!distant.paid(all), "there is more since");
        assert!(distant.paid(later));
        assert!(!distant.is_owed(&[8; 16]));
        assert!(tickets.into_iter().all(|ticket| distant.paid(ticket)));
        assert!(distant.owed_since(0).is_empty());
    }

    #[test]
    fn a_change_of_ones_own_counts_only_where_none_is_missing() {
        let (region, _fd) = Region::create(1).unwrap();
        let distant = region.distant();
        distant.set_applied(7, 10);
        distant.applied_next(12);
        assert_eq!(distant.applied(), 10);
        distant.applied_next(11);
        assert_eq!((distant.applied(), distant.incarnation()), (11, 7));
        assert!(!distant.holds_lease() && distant.era() != 0);
        distant.extend_lease(awake_or_not_ms() + 60_000);
        assert!(distant.holds_lease() && distant.era() == 0);
        distant.shut();
        assert!(!distant.holds_lease() && distant.incarnation() == 0);
    }
}
