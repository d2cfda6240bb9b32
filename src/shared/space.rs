//! How much of the disk the cache takes, and how much it may: octets are reserved here before they are written.
//!
//! Workers reserve, and release what they have not used; what they have removed or replaced the janitor releases,
//! when it reads of that. It also says what the limit is, and what a candidate must be worth while space is tight.
//! What a worker has reserved and not yet written down in its journal stands in its row as well, so that
//! its death loses nothing: its successor gives it back. Nothing here touches a file.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::sys::memory::in_shared_memory;

in_shared_memory! {
    /// The account of the whole cache directory.
    pub struct Space {
        /// Octets reserved or stored.
        used: AtomicU64,
        /// Octets there may be; 0 until the janitor knows: nothing is stored.
        limit: AtomicU64,
        /// Beyond so many octets `used`, space is tight.
        tight: AtomicU64,
        /// What a candidate must be asked for more often than, while space is tight.
        floor: AtomicU64,
        /// Raised by each purge of everything; an object with another one does not exist.
        generation: AtomicU64,
        /// Numbers given out by `ticket`.
        tickets: AtomicU64,
    }
}

in_shared_memory! {
    /// One worker's share of `used` that no record tells of yet.
    pub struct SpaceRow {
        in_flight: AtomicU64,
        /// The worker's process id.
        owner: AtomicU64,
    }
}

// === impl Space ===

impl Space {
    /// Takes `octets`, if the limit leaves room for them.
    #[must_use]
    pub fn reserve(&self, octets: u64) -> bool {
        let before = self.used.fetch_add(octets, SeqCst);
        let fits = before.saturating_add(octets) <= self.limit.load(Relaxed);
        if !fits {
            self.release(octets);
        }
        fits
    }

    /// Gives back what had been reserved, or what a removed file took.
    pub fn release(&self, octets: u64) {
        // Never below nothing: a number that was released twice must not look like a full disk.
        let less = |used: u64| Some(used.saturating_sub(octets));
        let _ = self.used.fetch_update(SeqCst, Relaxed, less);
    }

    /// Counts what is on the disk already, whatever the limit is.
    pub fn count(&self, octets: u64) {
        self.used.fetch_add(octets, SeqCst);
    }

    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(SeqCst)
    }

    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    /// Whether something must go for what comes: then only what is worth it is stored.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.used.load(Relaxed) > self.tight.load(Relaxed)
    }

    /// While space is tight, what has not been asked for more often than this is not stored.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor.load(Relaxed)
    }

    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    /// A number that nobody else gets while this master lives.
    pub fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Relaxed)
    }

    /// Janitor: what there may be, and from where on space is tight.
    pub fn set_limit(&self, limit: u64, tight: u64) {
        self.tight.store(tight, Relaxed);
        self.limit.store(limit, Relaxed);
    }

    /// Janitor.
    pub fn set_floor(&self, floor: u64) {
        self.floor.store(floor, Relaxed);
    }

    /// Master at its start, and whoever has purged everything: it never goes back.
    pub fn raise_generation(&self, generation: u64) {
        self.generation.fetch_max(generation, SeqCst);
    }

    /// Janitor: puts the account right, unless it has moved since `seen` was read.
    pub fn correct(&self, seen: u64, right: u64) -> bool {
        self.used
            .compare_exchange(seen, right, SeqCst, Relaxed)
            .is_ok()
    }
}

// === impl SpaceRow ===

impl SpaceRow {
    /// Worker: reserves in its own name.
    #[must_use]
    pub fn reserve(&self, space: &Space, octets: u64) -> bool {
        // The row comes first: whoever sees the octets in the account sees them here, or their record.
        self.in_flight.fetch_add(octets, SeqCst);
        let fits = space.reserve(octets);
        if !fits {
            self.recorded(octets);
        }
        fits
    }

    /// Worker: gives back what it does not use of its reservation.
    pub fn release(&self, space: &Space, octets: u64) {
        space.release(octets);
        self.recorded(octets);
    }

    /// Worker: the journal tells of these octets now.
    pub fn recorded(&self, octets: u64) {
        let less = |in_flight: u64| Some(in_flight.saturating_sub(octets));
        let _ = self.in_flight.fetch_update(SeqCst, Relaxed, less);
    }

    /// A starting worker: the row is its own now, and what its predecessor had in flight, which is dead, is given
    /// back.
    pub fn inherit(&self, space: &Space) {
        self.owner.store(u64::from(std::process::id()), SeqCst);
        space.release(self.in_flight.swap(0, SeqCst));
    }

    /// The process id of the worker that stores in this row's name; 0: none ever did.
    #[must_use]
    pub fn owner(&self) -> u64 {
        self.owner.load(SeqCst)
    }

    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use crate::shared::Region;

    #[test]
    fn nothing_is_reserved_before_there_is_a_limit_nor_beyond_it() {
        let (region, _fd) = Region::create(1).unwrap();
        let space = region.space();
        assert!(!space.reserve(1));
        space.set_limit(100, 90);
        assert!(space.reserve(90) && !space.is_tight());
        assert!(!space.reserve(11));
        assert!(space.reserve(10) && space.is_tight());
        space.release(60);
        assert_eq!(space.used(), 40);
        space.set_limit(20, 10);
        assert!(!space.reserve(1), "the limit has come down");
        space.release(1000);
        assert_eq!(space.used(), 0);
        assert!(!space.reserve(u64::MAX));
    }

    #[test]
    fn what_a_dead_worker_had_in_flight_comes_back() {
        let (region, _fd) = Region::create(2).unwrap();
        let (space, row) = (region.space(), region.space_row(1));
        space.set_limit(100, 90);
        assert!(row.reserve(space, 30) && row.reserve(space, 20));
        assert!(!row.reserve(space, 60));
        assert_eq!((space.used(), row.in_flight()), (50, 50));
        row.recorded(20);
        row.release(space, 5);
        row.inherit(space);
        assert_eq!((space.used(), row.in_flight()), (20, 0));
        assert_eq!(region.space_row(0).in_flight(), 0);
        assert_eq!(row.owner(), u64::from(std::process::id()));
        assert_eq!(region.space_row(0).owner(), 0);
    }

    #[test]
    fn a_correction_gives_way_to_whoever_reserves() {
        let (region, _fd) = Region::create(1).unwrap();
        let space = region.space();
        space.set_limit(100, 90);
        let seen = space.used();
        assert!(space.reserve(10));
        assert!(!space.correct(seen, 70));
        assert!(space.correct(10, 70) && space.used() == 70);
    }

    #[test]
    fn many_threads_together_stay_below_the_limit() {
        let (region, fd) = Region::create(1).unwrap();
        region.space().set_limit(1000, 900);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let fd = fd.try_clone().unwrap();
                scope.spawn(move || {
                    let region = Region::open(fd).unwrap();
                    for _ in 0..10_000 {
                        if region.space().reserve(7) {
                            region.space().release(7);
                        }
                    }
                });
            }
        });
        assert_eq!(region.space().used(), 0);
    }

    #[test]
    fn tickets_differ_and_generations_only_rise() {
        let (region, _fd) = Region::create(1).unwrap();
        let space = region.space();
        assert_ne!(space.ticket(), space.ticket());
        space.raise_generation(5);
        space.raise_generation(3);
        assert_eq!(space.generation(), 5);
    }
}
