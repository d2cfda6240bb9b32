//! What is certainly not on the disk: a filter over the names of all head files, so that a miss need not open a file.
//!
//! A name sets six bits within one cache line. Bits are only ever added to a table; to forget what has gone there are
//! two tables, and every name is added to both: the janitor fills the idle one anew and then turns to it. Workers
//! add a name in their turn, right before they put its file in place, and tell it in their journal right after; the janitor lets
//! some time pass between emptying the idle table and turning to it, and so knows every name that it emptied.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU64, fence};

use crate::cache::Name;
use crate::sys::memory::in_shared_memory;

/// Words in a cache line.
const LINE: usize = 8;
/// Lines of a table: 2^25 bits.
const LINES: usize = 1 << 16;
/// Bits a name sets.
const BITS: usize = 6;

in_shared_memory! {
    /// The filter, and the table that is its spare.
    pub struct Filter {
        /// Which table is asked.
        active: AtomicU64,
        /// 1: the active table knows everything that is on the disk.
        ready: AtomicU64,
        spare: [AtomicU64; 6],
        tables: [[AtomicU64; LINE * LINES]; 2],
    }
}

impl Filter {
    /// `false`: there is no file of this name.
    #[must_use]
    pub fn may_hold(&self, name: &Name) -> bool {
        if self.ready.load(Acquire) == 0 {
            return true;
        }
        let table = &self.tables[(self.active.load(Acquire) & 1) as usize];
        bits(name).all(|(word, bit)| table[word].load(Relaxed) & bit != 0)
    }

    /// From now on there may be a file of this name. Said before a look at its version: see `Versions::bump`.
    pub fn add(&self, name: &Name) {
        for table in &self.tables {
            add_to(table, name);
        }
        fence(SeqCst);
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Acquire) != 0
    }

    /// Janitor: every name on the disk has been added.
    pub fn set_ready(&self) {
        self.ready.store(1, Release);
    }

    /// Janitor: empties the idle table.
    pub fn begin_anew(&self) {
        for word in self.idle() {
            word.store(0, Relaxed);
        }
    }

    /// Janitor: adds a name to the idle table.
    pub fn add_anew(&self, name: &Name) {
        add_to(self.idle(), name);
    }

    /// Janitor: the idle table knows everything; it is the one that is asked from now on.
    pub fn turn(&self) {
        self.active.fetch_xor(1, Release);
    }

    fn idle(&self) -> &[AtomicU64; LINE * LINES] {
        &self.tables[(self.active.load(Relaxed) & 1 ^ 1) as usize]
    }
}

fn add_to(table: &[AtomicU64; LINE * LINES], name: &Name) {
    for (word, bit) in bits(name) {
        // Most bits of a popular line are set: reading leaves the line shared.
        if table[word].load(Relaxed) & bit == 0 {
            table[word].fetch_or(bit, Release);
        }
    }
}

/// The words and bits of a name: one line, six bits in it.
fn bits(name: &Name) -> impl Iterator<Item = (usize, u64)> {
    let hash = name.hash();
    let line = (hash as usize % LINES) * LINE;
    let mut rest = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..BITS).map(move |_| {
        let bit = rest >> 55;
        rest = rest.rotate_left(9);
        (line + (bit >> 6) as usize, 1 << (bit & 63))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Region;

    fn names(from: u32, count: u32) -> impl Iterator<Item = Name> {
        (from..from + count).map(|n| Name::of(&n.to_le_bytes()))
    }

    #[test]
    fn nothing_is_ruled_out_before_it_is_ready() {
        let (region, _fd) = Region::create(1).unwrap();
        let filter = region.filter();
        let name = Name::of(b"x");
        assert!(filter.may_hold(&name));
        filter.set_ready();
        assert!(!filter.may_hold(&name));
        filter.add(&name);
        assert!(filter.may_hold(&name));
        assert!(!filter.may_hold(&name.variant(b"y")));
    }

    #[test]
    fn what_was_added_is_never_denied_and_little_else_is_affirmed() {
        let (region, _fd) = Region::create(1).unwrap();
        let filter = region.filter();
        filter.set_ready();
        names(0, 1_000_000).for_each(|name| filter.add(&name));
        assert!(names(0, 1_000_000).all(|name| filter.may_hold(&name)));
        let wrong = names(1 << 30, 100_000).filter(|name| filter.may_hold(name));
        let wrong = wrong.count();
        assert!(wrong < 1_000, "{wrong} of 100000");
    }

    #[test]
    fn a_turn_forgets_what_has_gone_and_keeps_what_came_meanwhile() {
        let (region, _fd) = Region::create(1).unwrap();
        let filter = region.filter();
        filter.set_ready();
        names(0, 1000).for_each(|name| filter.add(&name));
        for round in 0..3 {
            filter.begin_anew();
            names(0, 500).for_each(|name| filter.add_anew(&name));
            names(2000 + round, 1).for_each(|name| filter.add(&name));
            assert!(names(0, 500).all(|name| filter.may_hold(&name)));
            filter.turn();
            assert!(names(0, 500).all(|name| filter.may_hold(&name)));
            assert!(names(2000 + round, 1).all(|name| filter.may_hold(&name)));
            assert!(names(500, 500).filter(|name| filter.may_hold(name)).count() < 5);
        }
    }
}
