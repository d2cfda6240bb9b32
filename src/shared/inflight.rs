//! Which keys are being asked for, over all workers: one claim a key, and how often an answer has come into the store.
//!
//! A claim is one word, put up and taken over by compare-and-swap, so that a worker's death at any moment leaves
//! nothing half done: whoever meets the claim of a dead worker takes it over. Its place follows from the key and from the
//! version of what is stored under it: what is asked for after a purge is something else. Two of them in one place at
//! once is rare: then only the first has a claim, and the other is asked for by each worker for itself. It wakes nobody, and what it says is a hint: who believes a wrong claim asks once more than needed.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::{MAX_WORKERS, Version};
use crate::sys::memory::in_shared_memory;

/// Room for claims, and for counts.
const PLACES: usize = 65_536;
/// Of a claim: the bits that number it among those of its worker, and those that name the worker.
const TICKET: u32 = 14;
const WORKER: u32 = 10;

const _: () = assert!(MAX_WORKERS <= 1 << WORKER);

in_shared_memory! {
    /// The claims, each in the place of its key.
    pub struct Inflight {
        claims: [AtomicU64; PLACES],
        stored: [AtomicU64; PLACES],
    }
}

/// The word of one worker that it asks for one key, at one version of what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    place: u16,
    /// Fingerprint, worker, ticket. Never 0.
    word: u64,
}

/// What came of claiming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    Ours,
    /// It is being asked for already.
    Theirs(Claim),
    /// Another key has the place.
    Crowded,
}

impl Claim {
    /// `hash`: of the key. `ticket`: any number that the worker has not given lately.
    #[must_use]
    pub fn new(hash: u64, version: Version, worker: u16, ticket: u64) -> Claim {
        let ticket = ticket % ((1 << TICKET) - 1) + 1;
        let worker = u64::from(worker) % (1 << WORKER);
        let mixed = mixed(hash, version);
        Claim {
            place: mixed as u16,
            word: mixed >> (TICKET + WORKER) << (TICKET + WORKER) | worker << TICKET | ticket,
        }
    }

    /// Who made it.
    #[must_use]
    pub fn worker(self) -> u16 {
        (self.word >> TICKET) as u16 & ((1 << WORKER) - 1)
    }

    fn with(self, word: u64) -> Claim {
        Claim { word, ..self }
    }

    fn is_of_same(self, other: Claim) -> bool {
        self.word >> (TICKET + WORKER) == other.word >> (TICKET + WORKER)
    }
}

fn mixed(hash: u64, version: Version) -> u64 {
    let of_version = version
        .slot
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(version.epoch)
        .wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (hash ^ of_version).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ mixed >> 32
}

impl Inflight {
    /// Puts up `claim`, unless there is one for the same.
    pub fn claim(&self, claim: Claim) -> Claimed {
        loop {
            let place = self.place(claim);
            let Err(present) = place.compare_exchange(0, claim.word, AcqRel, Acquire) else {
                return Claimed::Ours;
            };
            let present = claim.with(present);
            if !present.is_of_same(claim) {
                return Claimed::Crowded;
            }
            // A worker claims a key once: what says otherwise is from one that had its number before, and died.
            if present.worker() != claim.worker() {
                return Claimed::Theirs(present);
            }
            if self.take_over(present, claim) {
                return Claimed::Ours;
            }
        }
    }

    /// Whether another worker has a claim for the same up.
    #[must_use]
    pub fn is_claimed_by_another(&self, claim: Claim) -> bool {
        let word = self.place(claim).load(Acquire);
        let present = claim.with(word);
        word != 0 && present.is_of_same(claim) && present.worker() != claim.worker()
    }

    /// Puts `claim` in the place of one for the same, whose worker has said that it does not know of it, or nothing.
    pub fn take_over(&self, from: Claim, claim: Claim) -> bool {
        let place = self.place(from);
        place
            .compare_exchange(from.word, claim.word, AcqRel, Acquire)
            .is_ok()
    }

    /// Takes `claim` down, if it is still up.
    pub fn release(&self, claim: Claim) {
        let place = self.place(claim);
        let _ = place.compare_exchange(claim.word, 0, AcqRel, Relaxed);
    }

    /// After a worker's death: takes down all claims that it had up.
    pub fn bury(&self, worker: u16) {
        for place in &self.claims {
            let word = place.load(Relaxed);
            let claim = Claim { place: 0, word };
            if word != 0 && claim.worker() == worker {
                let _ = place.compare_exchange(word, 0, AcqRel, Relaxed);
            }
        }
    }

    /// A number that changes when an answer for a key of that hash has come into the store.
    #[must_use]
    pub fn stored(&self, hash: u64) -> u64 {
        self.stored[hash as usize % PLACES].load(Acquire)
    }

    pub fn has_stored(&self, hash: u64) {
        self.stored[hash as usize % PLACES].fetch_add(1, AcqRel);
    }

    fn place(&self, claim: Claim) -> &AtomicU64 {
        &self.claims[usize::from(claim.place)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Region;

    const NOW: Version = Version { slot: 3, epoch: 1 };

    fn claim(hash: u64, worker: u16) -> Claim {
        Claim::new(hash, NOW, worker, 7)
    }

    #[test]
    fn one_worker_has_a_key_until_it_lets_go() {
        let (region, _fd) = Region::create(2).unwrap();
        let inflight = region.inflight();
        let (one, two) = (claim(5, 1), claim(5, 1023));
        assert_eq!((one.worker(), two.worker()), (1, 1023));
        assert_eq!(inflight.claim(one), Claimed::Ours);
        assert_eq!(inflight.claim(two), Claimed::Theirs(one));
        assert!(inflight.is_claimed_by_another(two) && !inflight.is_claimed_by_another(one));
        inflight.release(two);
        assert_eq!(inflight.claim(two), Claimed::Theirs(one));
        inflight.release(one);
        assert_eq!(inflight.claim(two), Claimed::Ours);
    }

    #[test]
    fn one_takes_over_from_the_dead() {
        let (region, _fd) = Region::create(2).unwrap();
        let inflight = region.inflight();
        let (dead, one, two) = (claim(5, 0), claim(5, 1), claim(5, 2));
        inflight.claim(dead);
        assert!(inflight.take_over(dead, one));
        assert!(!inflight.take_over(dead, two));
        inflight.release(dead);
        assert_eq!(inflight.claim(two), Claimed::Theirs(one));
        // The next process of that number does not wait for the one before.
        let again = Claim::new(5, NOW, 1, 8);
        assert_eq!(inflight.claim(again), Claimed::Ours);
    }

    #[test]
    fn the_claims_of_the_dead_are_taken_down() {
        let (region, _fd) = Region::create(2).unwrap();
        let inflight = region.inflight();
        inflight.claim(claim(5, 0));
        inflight.claim(claim(6, 1));
        inflight.bury(0);
        assert_eq!(inflight.claim(claim(5, 2)), Claimed::Ours);
        assert_eq!(inflight.claim(claim(6, 2)), Claimed::Theirs(claim(6, 1)));
    }

    #[test]
    fn another_key_or_version_is_not_waited_for() {
        let (region, _fd) = Region::create(2).unwrap();
        let inflight = region.inflight();
        let first = claim(5, 0);
        inflight.claim(first);
        for version in [NOW.next(), Version { epoch: 2, ..NOW }] {
            let later = Claim::new(5, version, 1, 7);
            assert_eq!(inflight.claim(later), Claimed::Ours);
        }
        let mut others = (6..).map(|hash| claim(hash, 1));
        let crowded = others.find(|other| other.place == first.place).unwrap();
        assert_eq!(inflight.claim(crowded), Claimed::Crowded);
        assert!(!inflight.is_claimed_by_another(crowded));
        assert_eq!(inflight.stored(5), 0);
        inflight.has_stored(5);
        assert_eq!((inflight.stored(5), inflight.stored(6)), (1, 0));
    }
}
