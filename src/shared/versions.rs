//! By what a cached copy in one process learns that another process has changed the original.
//!
//! A key's hash picks a slot; several keys share one, which costs a needless miss and never a wrong hit. A reader
//! reads the version, *then* looks at the store, and keeps its copy under the version it read; a writer changes the
//! store, *then* bumps. A copy whose version is not the current one does not exist any more.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, SeqCst};
use std::sync::atomic::fence;

use crate::sys::memory::in_shared_memory;

const SLOTS: usize = 65_536;
/// What is added to an epoch by what nobody can tell; purges count in what is below.
const UNKNOWN: u64 = 1 << 32;

in_shared_memory! {
    /// The version table.
    pub struct Versions {
        epoch: AtomicU64,
        /// Keeps the epoch, which everybody reads, out of the line of slots that change.
        spare: [AtomicU64; 7],
        slots: [AtomicU64; SLOTS],
    }
}

/// A moment in the life of a slot. Equal: nothing in that slot has changed in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version {
    pub slot: u64,
    pub epoch: u64,
}

impl Version {
    /// Purges that lie between, where nothing else may have changed since that earlier version.
    #[must_use]
    pub const fn purges_since(self, earlier: Version) -> Option<u64> {
        let is_known = self.epoch / UNKNOWN == earlier.epoch / UNKNOWN;
        match self.slot == earlier.slot && is_known {
            true => self.epoch.checked_sub(earlier.epoch),
            false => None,
        }
    }

    /// For a herd: the same, of that era (`Distant::era`).
    #[must_use]
    pub const fn of_era(self, era: u64) -> Version {
        Version {
            slot: self.slot.wrapping_add(era << 32),
            epoch: self.epoch,
        }
    }

    /// What it is when one change has followed.
    #[must_use]
    pub const fn next(self) -> Version {
        Version {
            slot: self.slot.wrapping_add(1),
            epoch: self.epoch,
        }
    }
}

impl Versions {
    #[must_use]
    pub fn read(&self, hash: u64) -> Version {
        Version {
            slot: self.slot(hash).load(Acquire),
            epoch: self.epoch.load(Acquire),
        }
    }

    /// What is stored under keys of this hash has changed.
    pub fn bump(&self, hash: u64) {
        self.slot(hash).fetch_add(1, AcqRel);
        // Who says so and then asks the filter, and who tells the filter and then looks here: one of them sees the other.
        fence(SeqCst);
    }

    /// Anything may have changed: a process died, and nobody knows what it had been doing.
    pub fn bump_epoch(&self) {
        self.epoch.fetch_add(UNKNOWN, AcqRel);
    }

    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    /// Everybody has to look at a purge that makes the epoch behind `from`, if that still is the epoch; whether it was.
    #[must_use]
    pub fn advance(&self, from: u64) -> bool {
        let next = from.wrapping_add(1);
        self.epoch
            .compare_exchange(from, next, AcqRel, Acquire)
            .is_ok()
    }

    fn slot(&self, hash: u64) -> &AtomicU64 {
        &self.slots[(hash % SLOTS as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use crate::shared::Region;

    #[test]
    fn a_bump_is_seen_in_its_slot_and_an_epoch_everywhere() {
        let (region, _fd) = Region::create(1).unwrap();
        let versions = region.versions();
        let (one, two) = (versions.read(1), versions.read(2));
        versions.bump(1 + 65_536);
        assert_ne!(versions.read(1), one, "the slot is shared");
        assert_eq!(versions.read(2), two);
        versions.bump_epoch();
        assert_ne!(versions.read(2), two);
        assert_eq!(versions.read(2).purges_since(two), None);
        let three = versions.read(2);
        assert!(!versions.advance(two.epoch) && versions.advance(three.epoch));
        assert_eq!(versions.read(2).purges_since(three), Some(1));
        assert_eq!(three.purges_since(versions.read(2)), None);
    }
}
