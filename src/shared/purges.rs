//! Purges of many responses at once, as all processes of this instance are told of them.
//!
//! Each makes an epoch of its own in the version table, so that whoever holds a copy from an earlier epoch knows which purges lie
//! between, and whether the copy survives them. One process posts at a time; a text that is being replaced is read by nobody.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::fence;

use super::Versions;
use crate::sys::memory::in_shared_memory;

/// Purges that are remembered. Memory that is not used is not taken.
const SLOTS: usize = 64;
/// Words of eight octets that the text of one may have.
const WORDS: usize = 8192;

in_shared_memory! {
    pub struct Purges {
        slots: [Slot; SLOTS],
    }
}

in_shared_memory! {
    struct Slot {
        /// 0: never used; odd: it is being written.
        state: AtomicU64,
        epoch: AtomicU64,
        generation: AtomicU64,
        /// 0: what it names is gone; 1: it is stale since `since`.
        soft: AtomicU64,
        since: AtomicU64,
        length: AtomicU64,
        text: [AtomicU64; WORDS],
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// What it made of the epoch before.
    pub epoch: u64,
    /// The number by which a cache directory knows it; 0: there is no directory.
    pub generation: u64,
    /// What it names is stale since then; none: gone.
    pub soft: Option<i64>,
    /// The set, as its JSON.
    pub text: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPosted {
    #[error("what is to be purged takes {0} octets to name, and {max} are the most", max = WORDS * 8)]
    TooLong(usize),
    #[error("{SLOTS} purges are being carried out: try again when one of them has ended")]
    TooMany,
}

impl Purges {
    /// Tells all processes; the number of the epoch is set here. Places of generations up to `done` are free for others.
    pub fn post(
        &self,
        mut purge: Posted,
        done: u64,
        versions: &Versions,
    ) -> Result<Posted, NotPosted> {
        if purge.text.len() > WORDS * 8 {
            return Err(NotPosted::TooLong(purge.text.len()));
        }
        let is_free =
            |slot: &&Slot| slot.state.load(Acquire) == 0 || slot.generation.load(Relaxed) <= done;
        let oldest = |slot: &&Slot| (slot.state.load(Relaxed) != 0, slot.epoch.load(Relaxed));
        let slot = self.slots.iter().filter(is_free).min_by_key(oldest);
        let slot = slot.ok_or(NotPosted::TooMany)?;
        let state = slot.state.load(Relaxed) | 1;
        slot.state.swap(state, AcqRel);
        slot.generation.store(purge.generation, Relaxed);
        slot.soft.store(u64::from(purge.soft.is_some()), Relaxed);
        let since = purge.soft.unwrap_or_default().cast_unsigned();
        slot.since.store(since, Relaxed);
        slot.length.store(purge.text.len() as u64, Relaxed);
        for (word, octets) in slot.text.iter().zip(purge.text.chunks(8)) {
            let mut whole = [0; 8];
            whole
                .iter_mut()
                .zip(octets)
                .for_each(|(to, from)| *to = *from);
            word.store(u64::from_le_bytes(whole), Relaxed);
        }
        // Whoever sees the epoch finds the purge that made it.
        loop {
            let epoch = versions.epoch();
            purge.epoch = epoch.wrapping_add(1);
            slot.epoch.store(purge.epoch, Relaxed);
            slot.state.store(state.wrapping_add(1), Release);
            if versions.advance(epoch) {
                return Ok(purge);
            }
            slot.state.store(state, Relaxed);
            fence(Release);
        }
    }

    /// All that are remembered, in the order of their epochs.
    #[must_use]
    pub fn all(&self) -> Vec<Posted> {
        let mut all: Vec<Posted> = self.slots.iter().filter_map(Slot::read).collect();
        all.sort_by_key(|purge| purge.epoch);
        all
    }
}

impl Slot {
    fn read(&self) -> Option<Posted> {
        let state = self.state.load(Acquire);
        if state == 0 || state & 1 == 1 {
            return None;
        }
        let soft = self.soft.load(Relaxed) != 0;
        let length = usize::try_from(self.length.load(Relaxed)).unwrap_or(usize::MAX);
        let words = self.text.iter().take(length.div_ceil(8));
        let mut text: Vec<u8> = words
            .flat_map(|word| word.load(Relaxed).to_le_bytes())
            .collect();
        text.truncate(length);
        let purge = Posted {
            epoch: self.epoch.load(Relaxed),
            generation: self.generation.load(Relaxed),
            soft: soft.then(|| self.since.load(Relaxed).cast_signed()),
            text,
        };
        fence(Acquire);
        (self.state.load(Relaxed) == state).then_some(purge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Region;

    fn purge(generation: u64, text: &[u8]) -> Posted {
        Posted {
            epoch: 0,
            generation,
            soft: None,
            text: text.to_vec(),
        }
    }

    #[test]
    fn what_is_posted_is_read_with_the_epoch_that_it_made() {
        let (region, fd) = Region::create(1).unwrap();
        let (purges, versions) = (region.purges(), region.versions());
        versions.bump_epoch();
        let one = purges.post(purge(5, b"of nine o"), 0, versions).unwrap();
        let soft = Posted {
            soft: Some(-7),
            ..purge(6, b"")
        };
        let two = purges.post(soft, 0, versions).unwrap();
        assert_eq!((one.epoch + 1, two.soft), (two.epoch, Some(-7)));
        assert_eq!(versions.read(1).epoch, two.epoch);
        let far = Region::open(fd).unwrap();
        assert_eq!(far.purges().all(), [one, two]);
    }

    #[test]
    fn those_that_are_done_make_room_and_no_others() {
        let (region, _fd) = Region::create(1).unwrap();
        let (purges, versions) = (region.purges(), region.versions());
        for generation in 1..=64 {
            purges.post(purge(generation, b"x"), 0, versions).unwrap();
        }
        let more = || purge(65, b"y");
        assert_eq!(purges.post(more(), 0, versions), Err(NotPosted::TooMany));
        purges.post(more(), 2, versions).unwrap();
        let left: Vec<u64> = purges.all().iter().map(|it| it.generation).collect();
        assert_eq!(left, (2..=65).collect::<Vec<_>>());
        let long = purge(66, &[b'x'; WORDS * 8 + 1]);
        assert!(matches!(
            purges.post(long, 9, versions),
            Err(NotPosted::TooLong(_))
        ));
        let longest = purge(66, &[b'x'; WORDS * 8]);
        let posted = purges.post(longest, 9, versions).unwrap();
        assert_eq!(purges.all().last(), Some(&posted));
    }
}
