//! What a worker has done to the cache directory, told to the janitor: a ring of words with one writer and one reader.
//!
//! Both positions are in shared memory, so either side may die: a record is there when the writer has moved on, and
//! its room is free again when the reader has settled it, which it does when it has made it last. A ring that is
//! full loses what has been used, which costs little, and says so when it loses what has been stored or removed: then
//! the janitor has to look at the files. The reader believes nothing that it finds: a record that cannot be one
//! counts as a loss.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::cache::Name;
use crate::sys::memory::in_shared_memory;

/// Words of a ring: 1 MiB, some thousand records.
const WORDS: usize = 128 * 1024;

/// A record's header, its name, its numbers.
const SHORT: usize = 4;
const LONG: usize = SHORT + 4;

/// Room that is kept for what must not be lost.
const KEPT: usize = WORDS / 4;

/// Longer keys than any that a client may send.
const MAX_KEY: usize = 256 * 1024;

in_shared_memory! {
    /// One worker's journal.
    pub struct Journal {
        /// Words written since the beginning; the writer's.
        written: AtomicU64,
        /// Stored or removed without a record: the janitor must look at the files.
        lost: AtomicU64,
        /// Keeps the two positions apart.
        spare: [AtomicU64; 6],
        /// Words whose room is free again; the reader's.
        settled: AtomicU64,
        rest: [AtomicU64; 7],
        words: [AtomicU64; WORDS],
    }
}

/// What a head file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    #[default]
    Object,
    /// One of the responses that Vary distinguishes.
    Variant,
    /// What the variants under a name are.
    List,
}

/// A head file that has been put in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    pub name: Name,
    pub kind: Kind,
    pub key: &'a [u8],
    pub status: u16,
    /// Octets of the body.
    pub length: u64,
    /// Space that all its files take.
    pub kib: u32,
    /// Seconds since 1970: fresh until then.
    pub expires: i64,
    /// Seconds since 1970: when it was stored.
    pub at: i64,
}

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    Stored(Stored<'a>),
    /// So many times since this was told last.
    Used(Name, u32),
    Removed(Name),
}

/// Where a reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position(u64);

mod code {
    pub(super) const STORED: u64 = 1;
    pub(super) const USED: u64 = 2;
    pub(super) const REMOVED: u64 = 3;
}

// === impl Journal: the worker ===

impl Journal {
    /// Writes a record; `false`: the ring is full.
    pub fn push(&self, entry: &Entry<'_>) -> bool {
        let written = self.written.load(Relaxed);
        let taken = written.wrapping_sub(self.settled.load(Acquire));
        let room = WORDS.saturating_sub(usize::try_from(taken).unwrap_or(WORDS));
        let wanted = match entry {
            Entry::Stored(stored) if stored.key.len() > MAX_KEY => usize::MAX,
            Entry::Stored(stored) => long(stored.key.len()),
            Entry::Removed(_) => SHORT,
            Entry::Used(..) => SHORT + KEPT,
        };
        if wanted > room {
            if !matches!(entry, Entry::Used(..)) {
                self.lost.store(1, Release);
            }
            return false;
        }
        let mut at = written;
        let mut put = |word: u64| {
            self.word(at).store(word, Relaxed);
            at = at.wrapping_add(1);
        };
        match entry {
            Entry::Stored(stored) => put_stored(stored, put),
            Entry::Used(name, times) => {
                put_short(code::USED | u64::from(*times) << 32, name, &mut put);
            }
            Entry::Removed(name) => put_short(code::REMOVED, name, &mut put),
        }
        self.written.store(at, Release);
        true
    }

    fn word(&self, at: u64) -> &AtomicU64 {
        &self.words[(at % WORDS as u64) as usize]
    }
}

fn put_short(code: u64, name: &Name, put: &mut impl FnMut(u64)) {
    put(code);
    words_of(name).into_iter().for_each(put);
}

fn put_stored(stored: &Stored<'_>, mut put: impl FnMut(u64)) {
    let kind = match stored.kind {
        Kind::Object => 0,
        Kind::Variant => 1,
        Kind::List => 2,
    };
    let head = code::STORED | kind << 4 | u64::from(stored.status) << 8;
    put_short(
        head | (stored.key.len() as u64) << 32,
        &stored.name,
        &mut put,
    );
    put(stored.length);
    put(u64::from(stored.kib));
    put(stored.expires.cast_unsigned());
    put(stored.at.cast_unsigned());
    for part in stored.key.chunks(8) {
        let mut octets = [0; 8];
        octets[..part.len()].copy_from_slice(part);
        put(u64::from_le_bytes(octets));
    }
}

// === impl Journal: the janitor ===

impl Journal {
    /// Where reading begins: at the first record that has not been settled.
    #[must_use]
    pub fn begin(&self) -> Position {
        Position(self.settled.load(Relaxed))
    }

    /// Hands out at most `max` records and moves `position` behind them; how many there were.
    pub fn drain(
        &self,
        position: &mut Position,
        max: usize,
        mut each: impl FnMut(Entry<'_>),
    ) -> usize {
        let written = self.written.load(Acquire);
        let mut key = Vec::new();
        for count in 0..max {
            let there = written.wrapping_sub(position.0);
            if there == 0 {
                return count;
            }
            let there = usize::try_from(there).unwrap_or(usize::MAX);
            let Some((entry, words)) = self.read(position.0, there, &mut key) else {
                // Nothing behind it can be made out either.
                self.lost.store(1, Release);
                position.0 = written;
                return count;
            };
            each(entry);
            position.0 = position.0.wrapping_add(words as u64);
        }
        max
    }

    /// What lies before `position` will be needed no more: its room is free.
    pub fn settle(&self, position: Position) {
        self.settled.store(position.0, Release);
    }

    /// Whether everything up to here has been read.
    #[must_use]
    pub fn is_read(&self, position: Position) -> bool {
        self.written.load(Acquire) == position.0
    }

    /// Whether something has been stored or removed without a record since this was last asked.
    pub fn take_lost(&self) -> bool {
        self.lost.swap(0, Acquire) != 0
    }

    fn read<'a>(&self, at: u64, there: usize, key: &'a mut Vec<u8>) -> Option<(Entry<'a>, usize)> {
        if !(SHORT..=WORDS).contains(&there) {
            return None;
        }
        let word = |n: usize| self.word(at.wrapping_add(n as u64)).load(Relaxed);
        let head = word(0);
        let name = name_of([word(1), word(2), word(3)]);
        match head & 15 {
            code::USED => return Some((Entry::Used(name, (head >> 32) as u32), SHORT)),
            code::REMOVED => return Some((Entry::Removed(name), SHORT)),
            code::STORED => {}
            _ => return None,
        }
        let kind = match head >> 4 & 15 {
            0 => Kind::Object,
            1 => Kind::Variant,
            2 => Kind::List,
            _ => return None,
        };
        let length = usize::try_from(head >> 32).ok()?;
        let words = long(length);
        if words > there {
            return None;
        }
        key.clear();
        for n in LONG..words {
            key.extend_from_slice(&word(n).to_le_bytes());
        }
        key.truncate(length);
        let stored = Stored {
            name,
            kind,
            key,
            status: (head >> 8 & 0xffff) as u16,
            length: word(SHORT),
            kib: u32::try_from(word(SHORT + 1)).ok()?,
            expires: word(SHORT + 2).cast_signed(),
            at: word(SHORT + 3).cast_signed(),
        };
        Some((Entry::Stored(stored), words))
    }
}

const fn long(key: usize) -> usize {
    LONG + key.div_ceil(8)
}

fn words_of(name: &Name) -> [u64; 3] {
    let (halves, _) = name.base.as_chunks::<8>();
    [halves[0], halves[1], name.variant].map(u64::from_le_bytes)
}

fn name_of(words: [u64; 3]) -> Name {
    let [first, second, variant] = words.map(u64::to_le_bytes);
    let mut base = [0; 16];
    base[..8].copy_from_slice(&first);
    base[8..].copy_from_slice(&second);
    Name { base, variant }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Region;

    fn stored(key: &[u8]) -> Stored<'_> {
        Stored {
            name: Name::of(key),
            kind: Kind::Variant,
            key,
            status: 203,
            length: u64::MAX,
            kib: u32::MAX,
            expires: -1,
            at: i64::MAX,
        }
    }

    #[test]
    fn records_come_out_as_they_went_in() {
        let (region, _fd) = Region::create(2).unwrap();
        let journal = region.journal(1);
        let name = Name::of(b"a").variant(b"b");
        for length in 0..70 {
            let key: Vec<u8> = (0..length).collect();
            let entries = [
                Entry::Stored(stored(&key)),
                Entry::Used(name, u32::MAX),
                Entry::Removed(name),
            ];
            assert!(entries.iter().all(|entry| journal.push(entry)));
            let mut position = journal.begin();
            let mut found = 0;
            let count = journal.drain(&mut position, 9, |entry| {
                assert_eq!(entry, entries[found]);
                found += 1;
            });
            assert_eq!((count, found), (3, 3));
            assert!(journal.is_read(position));
            journal.settle(position);
        }
        assert!(!journal.take_lost());
    }

    #[test]
    fn what_is_not_settled_is_read_again() {
        let (region, _fd) = Region::create(1).unwrap();
        let journal = region.journal(0);
        for n in 0..5_u8 {
            assert!(journal.push(&Entry::Removed(Name::of(&[n]))));
        }
        let mut position = journal.begin();
        assert_eq!(journal.drain(&mut position, 2, |_| ()), 2);
        journal.settle(position);
        assert_eq!(journal.drain(&mut position, 9, |_| ()), 3);
        let mut successor = journal.begin();
        let mut first = None;
        journal.drain(&mut successor, 1, |entry| {
            if let Entry::Removed(name) = entry {
                first = Some(name);
            }
        });
        assert_eq!(first, Some(Name::of(&[2])));
    }

    #[test]
    fn a_full_ring_loses_uses_first_and_says_when_it_loses_more() {
        let (region, _fd) = Region::create(1).unwrap();
        let journal = region.journal(0);
        let name = Name::of(b"x");
        while journal.push(&Entry::Used(name, 1)) {}
        assert!(!journal.take_lost(), "a use is no loss");
        assert!(journal.push(&Entry::Stored(stored(b"there is room for it"))));
        while journal.push(&Entry::Removed(name)) {}
        assert!(journal.take_lost() && !journal.take_lost());
        let mut position = journal.begin();
        let count = journal.drain(&mut position, usize::MAX, |_| ());
        assert!(count > WORDS / 5 && journal.is_read(position));
        journal.settle(position);
        assert!(journal.push(&Entry::Used(name, 1)));
        assert!(!journal.push(&Entry::Stored(stored(&[0; MAX_KEY + 1]))));
        assert!(journal.take_lost());
    }

    #[test]
    fn nonsense_is_a_loss_and_reading_goes_on_behind_it() {
        let (region, _fd) = Region::create(1).unwrap();
        let journal = region.journal(0);
        let nonsense: [(u64, u64); 5] = [
            (4, 0),
            (4, 9),
            (4, code::STORED | 7 << 4),
            (4, code::STORED | u64::MAX << 32),
            (u64::MAX / 2, code::USED),
        ];
        for (words, head) in nonsense {
            let mut position = journal.begin();
            journal.word(position.0).store(head, Relaxed);
            journal.written.fetch_add(words, Relaxed);
            assert_eq!(journal.drain(&mut position, 9, |_| ()), 0);
            assert!(journal.take_lost() && journal.is_read(position));
            journal.settle(position);
            assert!(journal.push(&Entry::Used(Name::of(b"y"), 1)));
            assert_eq!(journal.drain(&mut position, 9, |_| ()), 1);
            journal.settle(position);
        }
    }

    #[test]
    fn a_writer_and_a_reader_at_full_speed() {
        const RECORDS: u64 = 100_000;
        let (region, fd) = Region::create(1).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let region = Region::open(fd).unwrap();
                for n in 0..RECORDS {
                    let key = vec![n as u8; (n % 300) as usize];
                    let entry = Entry::Stored(Stored {
                        length: n,
                        ..stored(&key)
                    });
                    while !region.journal(0).push(&entry) {
                        std::thread::yield_now();
                    }
                }
            });
            let journal = region.journal(0);
            let (mut position, mut next) = (journal.begin(), 0);
            while next < RECORDS {
                journal.drain(&mut position, 1000, |entry| {
                    let Entry::Stored(stored) = entry else {
                        panic!("{entry:?}")
                    };
                    assert_eq!(stored.length, next);
                    assert!(stored.key.iter().all(|octet| *octet == next as u8));
                    assert_eq!(stored.key.len() as u64, next % 300);
                    next += 1;
                });
                journal.settle(position);
            }
        });
    }
}
