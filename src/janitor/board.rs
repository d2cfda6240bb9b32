//! What the janitor's loop says about its own work, for the threads that answer commands.
//!
//! The loop writes, others read; numbers that belong together may be a moment apart.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU16, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::disk::place::DIRECTORIES;

/// Purges whose figures are kept: more than can be under way.
const MOST_PURGES: usize = 256;

#[derive(Debug, Default)]
pub struct Board {
    /// Directories that remain to be visited by a tour of all; 0: there is none.
    remaining: AtomicU16,
    /// The generation of which nothing older is left.
    swept: AtomicU64,
    /// Octets taken from the account by commands, for what the loop has not entered yet.
    reserved: AtomicU64,
    /// Held by whoever raises the generation.
    purging: Mutex<()>,
    /// Responses that purges have taken, with their octets on the disk, by the generations of those.
    purged: Mutex<HashMap<u64, (u64, u64)>>,
}

impl Board {
    /// Loop: a tour of all directories has so many to go, or there is none.
    pub fn set_remaining(&self, directories: u16) {
        self.remaining.store(directories, Relaxed);
    }

    /// Loop: a tour that began in that generation has come to its end.
    pub fn set_swept(&self, generation: u64) {
        self.swept.fetch_max(generation, Relaxed);
    }

    /// How much of the directory a tour of all has seen, in percent; none: there is no tour.
    #[must_use]
    pub fn percent(&self) -> Option<u8> {
        let remaining = u32::from(self.remaining.load(Relaxed));
        let seen = u32::from(DIRECTORIES).saturating_sub(remaining);
        let percent = seen * 100 / u32::from(DIRECTORIES);
        (remaining > 0).then(|| u8::try_from(percent).unwrap_or(100))
    }

    /// Directories visited by the tour that goes on; all of them, where none does.
    #[must_use]
    pub fn visited(&self) -> u64 {
        u64::from(DIRECTORIES.saturating_sub(self.remaining.load(Relaxed)))
    }

    /// Loop: so many responses, and octets, by the purges of these generations.
    pub(super) fn count_purged(&self, purged: impl IntoIterator<Item = (u64, (u64, u64))>) {
        let mut all = self.purged.lock().unwrap_or_else(PoisonError::into_inner);
        for (generation, (objects, octets)) in purged {
            let count = all.entry(generation).or_default();
            *count = (count.0 + objects, count.1 + octets);
        }
        // Of a command that has been interrupted nobody asks.
        while all.len() > MOST_PURGES {
            let Some(oldest) = all.keys().min().copied() else {
                break;
            };
            all.remove(&oldest);
        }
    }

    /// What the purge of that generation has taken; it is told once.
    #[must_use]
    pub fn purged(&self, generation: u64) -> (u64, u64) {
        let mut all = self.purged.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&generation).unwrap_or_default()
    }

    #[must_use]
    pub fn swept(&self) -> u64 {
        self.swept.load(Relaxed)
    }

    /// Commands: so many octets have been taken from the account.
    pub fn reserved(&self, octets: u64) {
        self.reserved.fetch_add(octets, Relaxed);
    }

    /// They have been given back, or entered.
    pub fn settled(&self, octets: u64) {
        self.reserved.fetch_sub(octets, Relaxed);
    }

    /// Octets that commands have taken.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.reserved.load(Relaxed)
    }

    /// Two that raise the generation do it one after the other.
    pub fn purge_alone(&self) -> MutexGuard<'_, ()> {
        self.purging.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_how_far_the_tour_is() {
        let board = Board::default();
        assert_eq!((board.percent(), board.visited()), (None, 4096));
        board.set_remaining(4096);
        assert_eq!((board.percent(), board.visited()), (Some(0), 0));
        board.set_remaining(1);
        assert_eq!((board.percent(), board.visited()), (Some(99), 4095));
        board.set_swept(3);
        board.set_swept(2);
        assert_eq!(board.swept(), 3);
    }
}
