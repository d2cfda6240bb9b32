//! Who owns an offered socket: one word an offer, moved by compare-and-swap, so exactly one side wins.
//!
//! The master moves an entry Free → Offered, and Offered → Revoked when it wants the socket back; the worker moves
//! Offered → Claimed just before its first read. Whoever loses closes its copy without `shutdown`. An entry names
//! its sequence, so a message that was delayed for ever so long finds a foreign sequence and loses.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::sys::memory::in_shared_memory;

/// Entries of a ring. Sequences this far apart share an entry.
pub const RING_LENGTH: u64 = 64;

in_shared_memory! {
    /// The offers to one worker.
    pub struct Ring {
        words: [AtomicU64; RING_LENGTH as usize],
    }
}

/// What has become of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferState {
    /// The entry holds nothing, or another sequence.
    Free,
    Offered,
    Claimed,
    Revoked,
}

impl Ring {
    /// Master: puts an offer up. The entry's former offer must have been seen claimed, or been revoked.
    pub fn offer(&self, seq: u64) {
        self.word(seq)
            .store(word(seq, OfferState::Offered), Release);
    }

    /// Worker: takes an offer; `false`: it is somebody else's by now.
    #[must_use]
    pub fn claim(&self, seq: u64) -> bool {
        self.move_on(seq, OfferState::Claimed)
    }

    /// Master: takes an offer back; `false`: the worker has it.
    #[must_use]
    pub fn revoke(&self, seq: u64) -> bool {
        self.move_on(seq, OfferState::Revoked)
    }

    #[must_use]
    pub fn state(&self, seq: u64) -> OfferState {
        let found = self.word(seq).load(Acquire);
        [
            OfferState::Offered,
            OfferState::Claimed,
            OfferState::Revoked,
        ]
        .into_iter()
        .find(|state| found == word(seq, *state))
        .unwrap_or(OfferState::Free)
    }

    /// Master, after the worker's death and before another uses the ring.
    pub fn reset(&self) {
        for word in &self.words {
            word.store(0, Relaxed);
        }
    }

    fn move_on(&self, seq: u64, to: OfferState) -> bool {
        let offered = word(seq, OfferState::Offered);
        self.word(seq)
            .compare_exchange(offered, word(seq, to), AcqRel, Acquire)
            .is_ok()
    }

    fn word(&self, seq: u64) -> &AtomicU64 {
        &self.words[(seq % RING_LENGTH) as usize]
    }
}

const fn word(seq: u64, state: OfferState) -> u64 {
    seq << 2 | state as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;

    fn ring() -> Ring {
        Ring {
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    #[test]
    fn an_offer_is_won_once() {
        let ring = ring();
        assert_eq!(ring.state(1), OfferState::Free);
        assert!(!ring.claim(1) && !ring.revoke(1), "nothing is there yet");

        ring.offer(1);
        assert_eq!(ring.state(1), OfferState::Offered);
        assert!(ring.claim(1));
        assert!(!ring.claim(1) && !ring.revoke(1));
        assert_eq!(ring.state(1), OfferState::Claimed);

        ring.offer(2);
        assert!(ring.revoke(2));
        assert!(!ring.claim(2));
        assert_eq!(ring.state(2), OfferState::Revoked);
    }

    #[test]
    fn a_late_claim_finds_a_foreign_sequence() {
        let ring = ring();
        ring.offer(3);
        assert!(ring.revoke(3));
        ring.offer(3 + RING_LENGTH);
        assert!(!ring.claim(3), "the old message wakes up");
        assert_eq!(ring.state(3), OfferState::Free);
        assert!(ring.claim(3 + RING_LENGTH));
        ring.reset();
        assert_eq!(ring.state(3 + RING_LENGTH), OfferState::Free);
    }

    #[test]
    fn of_two_racing_sides_exactly_one_wins_every_offer() {
        const OFFERS: u64 = 20_000;
        let ring = ring();
        let offered = AtomicU64::new(0);
        let settled = AtomicU64::new(0);
        let claimed = AtomicUsize::new(0);
        let revoked = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            // The worker claims whatever is up, and now and then something old.
            scope.spawn(|| {
                while settled.load(SeqCst) < OFFERS {
                    let seq = offered.load(SeqCst);
                    if ring.claim(seq) {
                        claimed.fetch_add(1, SeqCst);
                    }
                    assert!(!ring.claim(seq.wrapping_sub(RING_LENGTH) & (u64::MAX >> 2)));
                }
            });
            // The master offers, and revokes after a pause of varying length.
            for seq in 1..=OFFERS {
                ring.offer(seq);
                offered.store(seq, SeqCst);
                for _ in 0..seq % 97 {
                    std::hint::spin_loop();
                }
                if ring.revoke(seq) {
                    revoked.fetch_add(1, SeqCst);
                } else {
                    assert_eq!(ring.state(seq), OfferState::Claimed);
                }
                settled.store(seq, SeqCst);
            }
        });
        assert_eq!(claimed.load(SeqCst) + revoked.load(SeqCst), OFFERS as usize);
    }
}
