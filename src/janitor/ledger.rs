//! What is on the disk, in memory: every head file's name, size, and when it was last used, in some fifty octets.
//!
//! Pure: no file, no clock. Entries lie in blocks, so that growing moves nothing, and without holes: the last one
//! takes the place of what is removed. A table of places finds them by name. The books keep it.

use crate::cache::Name;
use crate::shared::Kind;

/// Entries in a block.
const BLOCK: usize = 4096;

/// A place in the table that nothing is in.
const EMPTY: u32 = u32::MAX;

/// Places of an empty table.
const LEAST: usize = 64;

/// 2020-01-01, from where use is counted, in seconds since 1970.
const EPOCH: i64 = 1_577_836_800;

const LIST: u64 = 1 << 63;
const MARK: u64 = 1 << 62;
const ROW: u64 = MARK - 1;

/// A moment to the second; before 2020 counts as 2020.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u32);

/// A head file and what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: Name,
    /// Space that all its files take.
    pub kib: u32,
    pub used: Moment,
    /// The row in the catalogue, and two bits.
    row: u64,
}

pub struct Ledger {
    blocks: Vec<Vec<Entry>>,
    length: usize,
    /// Places of entries, by the hash of their name; a power of two of them.
    table: Vec<u32>,
    kib: u64,
}

// === impl Moment ===

impl Moment {
    #[must_use]
    pub fn of_unix(seconds: i64) -> Moment {
        let since = seconds.saturating_sub(EPOCH).max(0);
        Moment(u32::try_from(since).unwrap_or(u32::MAX))
    }

    #[must_use]
    pub fn unix(self) -> i64 {
        EPOCH + i64::from(self.0)
    }
}

// === impl Entry ===

impl Entry {
    #[must_use]
    pub fn new(name: Name, kind: Kind, kib: u32, used: Moment, row: u64) -> Entry {
        let list = if kind == Kind::List { LIST } else { 0 };
        Entry {
            name,
            kib,
            used,
            row: row & ROW | list,
        }
    }

    /// 0: it is in no row of the catalogue.
    #[must_use]
    pub fn row(&self) -> u64 {
        self.row & ROW
    }

    #[must_use]
    pub fn is_list(&self) -> bool {
        self.row & LIST != 0
    }
}

// === impl Ledger ===

impl Ledger {
    #[must_use]
    pub fn new() -> Ledger {
        Ledger {
            blocks: Vec::new(),
            length: 0,
            table: vec![EMPTY; LEAST],
            kib: 0,
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Space that everything in it takes.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.kib * 1024
    }

    #[must_use]
    pub fn get(&self, name: &Name) -> Option<&Entry> {
        let (_, place) = self.find(name)?;
        Some(self.entry(place))
    }

    /// Takes an entry in; what had that name before.
    pub fn put(&mut self, entry: Entry) -> Option<Entry> {
        self.kib += u64::from(entry.kib);
        if let Some((_, place)) = self.find(&entry.name) {
            let before = std::mem::replace(self.entry_mut(place), entry);
            self.kib -= u64::from(before.kib);
            return Some(before);
        }
        if (self.length + 1) * 4 > self.table.len() * 3 {
            self.grow();
        }
        let place = self.length as u32;
        match self.blocks.last_mut().filter(|block| block.len() < BLOCK) {
            Some(block) => block.push(entry),
            None => {
                let mut block = Vec::with_capacity(BLOCK);
                block.push(entry);
                self.blocks.push(block);
            }
        }
        self.length += 1;
        self.settle(&entry.name, place);
        None
    }

    pub fn remove(&mut self, name: &Name) -> Option<Entry> {
        let (slot, place) = self.find(name)?;
        self.vacate(slot);
        // The last one takes its place; if it is the last itself, it is found no more.
        let last = *self.entry(self.length as u32 - 1);
        let of_last = self.find(&last.name);
        let removed = std::mem::replace(self.entry_mut(place), last);
        if let Some((slot, _)) = of_last {
            self.table[slot] = place;
        }
        self.length -= 1;
        self.blocks.last_mut().and_then(Vec::pop);
        if self.blocks.last().is_some_and(Vec::is_empty) {
            self.blocks.pop();
        }
        self.kib -= u64::from(removed.kib);
        Some(removed)
    }

    /// Notes that it has been used; when it was before, and the entry.
    pub fn touch(&mut self, name: &Name, now: Moment) -> Option<(Moment, &Entry)> {
        let (_, place) = self.find(name)?;
        let entry = self.entry_mut(place);
        let before = entry.used;
        entry.used = entry.used.max(now);
        Some((before, entry))
    }

    pub fn clear(&mut self) {
        *self = Ledger::new();
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.blocks.iter().flatten()
    }

    /// Forgets which rows of a catalogue they are in: there is another one.
    pub fn forget_rows(&mut self) {
        for entry in self.blocks.iter_mut().flatten() {
            entry.row &= !ROW;
        }
    }

    // === marks: what has been seen on a tour of the disk

    pub fn unmark_all(&mut self) {
        for entry in self.blocks.iter_mut().flatten() {
            entry.row &= !MARK;
        }
    }

    pub fn mark(&mut self, name: &Name) {
        if let Some((_, place)) = self.find(name) {
            self.entry_mut(place).row |= MARK;
        }
    }

    /// What has not been seen.
    pub fn unmarked(&self) -> impl Iterator<Item = &Entry> {
        self.iter().filter(|entry| entry.row & MARK == 0)
    }

    /// Octets of memory held.
    #[must_use]
    pub fn memory(&self) -> usize {
        let blocks = self.blocks.len() * BLOCK * size_of::<Entry>();
        blocks
            + self.blocks.capacity() * size_of::<Vec<Entry>>()
            + self.table.capacity() * size_of::<u32>()
    }

    // === the table

    fn entry(&self, place: u32) -> &Entry {
        &self.blocks[place as usize / BLOCK][place as usize % BLOCK]
    }

    fn entry_mut(&mut self, place: u32) -> &mut Entry {
        &mut self.blocks[place as usize / BLOCK][place as usize % BLOCK]
    }

    /// The slot of the table that leads to it, and its place.
    fn find(&self, name: &Name) -> Option<(usize, u32)> {
        let mut slot = self.home(name);
        loop {
            let place = self.table[slot];
            if place == EMPTY {
                return None;
            }
            if self.entry(place).name == *name {
                return Some((slot, place));
            }
            slot = self.next(slot);
        }
    }

    fn home(&self, name: &Name) -> usize {
        name.hash() as usize & (self.table.len() - 1)
    }

    fn next(&self, slot: usize) -> usize {
        (slot + 1) & (self.table.len() - 1)
    }

    fn settle(&mut self, name: &Name, place: u32) {
        let mut slot = self.home(name);
        while self.table[slot] != EMPTY {
            slot = self.next(slot);
        }
        self.table[slot] = place;
    }

    /// Empties a slot; what lies behind it and could no longer be found moves up.
    fn vacate(&mut self, mut hole: usize) {
        let mut slot = hole;
        loop {
            slot = self.next(slot);
            let place = self.table[slot];
            if place == EMPTY {
                break;
            }
            let home = self.home(&self.entry(place).name);
            let mask = self.table.len() - 1;
            let from_home = slot.wrapping_sub(home) & mask;
            let from_hole = slot.wrapping_sub(hole) & mask;
            if from_home >= from_hole {
                self.table[hole] = place;
                hole = slot;
            }
        }
        self.table[hole] = EMPTY;
    }

    fn grow(&mut self) {
        let slots = self.table.len() * 2;
        // The old table goes first: twice is not held at once.
        self.table = Vec::new();
        self.table = vec![EMPTY; slots];
        for place in 0..self.length as u32 {
            let name = self.entry(place).name;
            self.settle(&name, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn name(n: u32) -> Name {
        Name::of(&n.to_le_bytes())
    }

    fn entry(n: u32, kib: u32) -> Entry {
        Entry::new(name(n), Kind::Object, kib, Moment(n), u64::from(n))
    }

    #[test]
    fn it_does_what_a_map_does() {
        let mut random = fastrand::Rng::with_seed(3);
        let (mut ledger, mut model) = (Ledger::new(), HashMap::new());
        for _ in 0..200_000 {
            let n = random.u32(..10_000);
            let known: Option<u32> = model.get(&n).copied();
            match random.u8(..4) {
                0 | 1 => {
                    let kib = random.u32(1..100);
                    let before = ledger.put(entry(n, kib));
                    assert_eq!(before.map(|entry| entry.kib), known);
                    model.insert(n, kib);
                }
                2 => {
                    let removed = ledger.remove(&name(n));
                    assert_eq!(removed.map(|entry| entry.kib), known);
                    model.remove(&n);
                }
                _ => assert_eq!(ledger.get(&name(n)).map(|entry| entry.kib), known),
            }
            assert_eq!(ledger.len(), model.len());
        }
        let sum: u64 = model.values().map(|kib| u64::from(*kib)).sum();
        assert_eq!(ledger.octets(), sum * 1024);
        assert!(ledger.iter().all(|entry| model.contains_key(&entry.used.0)));
        assert_eq!(ledger.iter().count(), model.len());
    }

    #[test]
    fn an_object_costs_less_than_a_hundred_octets_at_any_number() {
        let mut ledger = Ledger::new();
        for n in 0..1_000_000 {
            ledger.put(entry(n, 5));
            if n >= 50_000 && n % 10_000 == 0 {
                let each = ledger.memory() / ledger.len();
                assert!(each < 60, "{each} octets at {n}");
            }
        }
        for n in 0..999_000 {
            assert!(ledger.remove(&name(n)).is_some());
        }
        assert_eq!(ledger.len(), 1000);
        assert!((999_000..1_000_000).all(|n| ledger.get(&name(n)).is_some()));
    }

    #[test]
    fn use_moves_forward_and_rows_and_kinds_are_kept() {
        let mut ledger = Ledger::new();
        ledger.put(Entry::new(name(1), Kind::List, 5, Moment(10), 77));
        assert_eq!(ledger.touch(&name(1), Moment(20)).unwrap().0, Moment(10));
        ledger.touch(&name(1), Moment(15));
        let found = *ledger.get(&name(1)).unwrap();
        assert_eq!((found.used, found.row()), (Moment(20), 77));
        assert!(found.is_list() && ledger.touch(&name(2), Moment(1)).is_none());
        ledger.forget_rows();
        let found = ledger.get(&name(1)).unwrap();
        assert!(found.row() == 0 && found.is_list());
    }

    #[test]
    fn marks_tell_what_has_been_seen() {
        let mut ledger = Ledger::new();
        for n in 0..10 {
            ledger.put(entry(n, 5));
        }
        ledger.mark(&name(3));
        ledger.mark(&name(99));
        assert_eq!(ledger.unmarked().count(), 9);
        assert_eq!(ledger.get(&name(3)).unwrap().row(), 3);
        ledger.unmark_all();
        assert_eq!(ledger.unmarked().count(), 10);
    }

    #[test]
    fn moments_are_bounded() {
        assert_eq!(Moment::of_unix(i64::MIN), Moment(0));
        assert_eq!(Moment::of_unix(i64::MAX), Moment(u32::MAX));
        let now = 1_790_000_000;
        assert_eq!(Moment::of_unix(now).unix(), now);
    }
}
