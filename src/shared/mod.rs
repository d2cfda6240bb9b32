//! What all processes see at once: one sealed region of atomics, created by the master, mapped by everyone.
//!
//! No lock, no pointer, no index is ever taken from it, so whatever a broken process writes there can mislead
//! nobody into more than a wrong number. It wakes nobody either: who waits for a change looks again. Every process
//! calls it. The tables of the cache directory take no memory until it is used.

mod counters;
mod distant;
mod filter;
mod inflight;
mod journal;
mod load;
mod purges;
mod ring;
mod sketch;
mod space;
mod versions;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::sys::memory::{Shared, in_shared_memory};

pub use counters::{Counter, Counters};
pub use distant::{Distant, LEASE_MS, Owed, Ticket};
pub use filter::Filter;
pub use inflight::{Claim, Claimed, Inflight};
pub use journal::{Entry, Journal, Kind, Position, Stored};
pub use load::LoadRow;
pub use purges::{NotPosted, Posted, Purges};
pub use ring::{OfferState, RING_LENGTH, Ring};
pub use sketch::Sketch;
pub use space::{Space, SpaceRow};
pub use versions::{Version, Versions};

/// Says "this is our region"; the octets read `baton\0\0\0`.
const MAGIC: u64 = u64::from_le_bytes(*b"baton\0\0\0");

/// Must rise with any change of the layout below.
const LAYOUT_VERSION: u64 = 5;

/// More workers than any machine of ours has cores.
pub const MAX_WORKERS: usize = 1024;

in_shared_memory! {
    /// Written once, before anybody else maps the region.
    struct Header {
        magic: AtomicU64,
        layout: AtomicU64,
        size: AtomicU64,
        workers: AtomicU64,
    }
}

/// The mapped region. Clones share the mapping.
#[derive(Clone)]
pub struct Region {
    shared: Arc<Shared>,
    workers: usize,
}

/// Where each table begins, for a number of workers.
struct Layout {
    versions: usize,
    inflight: usize,
    distant: usize,
    purges: usize,
    rings: usize,
    loads: usize,
    counters: usize,
    space: usize,
    space_rows: usize,
    sketch: usize,
    filter: usize,
    journals: usize,
    size: usize,
}

// === impl Region ===

impl Region {
    /// A fresh region for `workers` workers (1 to [`MAX_WORKERS`]) and the descriptor by which they map it.
    pub fn create(workers: usize) -> io::Result<(Region, OwnedFd)> {
        if !(1..=MAX_WORKERS).contains(&workers) {
            return Err(invalid("the number of workers is out of bounds"));
        }
        let layout = Layout::of(workers);
        let (shared, fd) = Shared::create("baton-shared", layout.size)?;
        let region = Region {
            shared: Arc::new(shared),
            workers,
        };
        let header = region.header();
        header.layout.store(LAYOUT_VERSION, Relaxed);
        header.size.store(layout.size as u64, Relaxed);
        header.workers.store(workers as u64, Relaxed);
        header.magic.store(MAGIC, Relaxed);
        Ok((region, fd))
    }

    /// Maps the region that another process created, if it is one of ours and of this layout.
    pub fn open(fd: OwnedFd) -> io::Result<Region> {
        let shared = Arc::new(Shared::open(&fd)?);
        let header: &Header = shared
            .at(0)
            .ok_or_else(|| invalid("the region is too small"))?;
        if header.magic.load(Relaxed) != MAGIC {
            return Err(invalid("the region is not baton's"));
        }
        if header.layout.load(Relaxed) != LAYOUT_VERSION {
            return Err(invalid("the region has another layout"));
        }
        let workers = usize::try_from(header.workers.load(Relaxed)).unwrap_or(0);
        let known = (1..=MAX_WORKERS).contains(&workers);
        if !known
            || header.size.load(Relaxed) != shared.size() as u64
            || Layout::of(workers).size != shared.size()
        {
            return Err(invalid("the region's size does not fit its header"));
        }
        Ok(Region { shared, workers })
    }

    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The offers to a worker. `worker` must be below [`Region::workers`], here and below.
    #[must_use]
    pub fn ring(&self, worker: usize) -> &Ring {
        &self.table(Layout::of(self.workers).rings, self.workers)[worker]
    }

    /// What a worker says about its load.
    #[must_use]
    pub fn load(&self, worker: usize) -> &LoadRow {
        &self.table(Layout::of(self.workers).loads, self.workers)[worker]
    }

    /// A process's own counters: 0 is the master, 1 + N is worker N, the last is the janitor.
    #[must_use]
    pub fn counters(&self, process: usize) -> &Counters {
        &self.all_counters()[process]
    }

    /// The janitor's own counters.
    #[must_use]
    pub fn janitor_counters(&self) -> &Counters {
        self.counters(1 + self.workers)
    }

    /// All counters that have counted, as `name=value`, for the log.
    pub fn totals(&self) -> String {
        let counted = Counter::ALL
            .iter()
            .map(|counter| (counter.name(), self.total(*counter)));
        let words: Vec<String> = counted
            .filter(|(_, total)| *total > 0)
            .map(|(name, total)| format!("{name}={total}"))
            .collect();
        words.join(" ")
    }

    /// A counter over all processes, the dead ones' share included.
    #[must_use]
    pub fn total(&self, counter: Counter) -> u64 {
        self.all_counters()
            .iter()
            .fold(0, |sum: u64, row| sum.wrapping_add(row.value(counter)))
    }

    /// The version table by which caches in different processes stay coherent.
    #[must_use]
    pub fn versions(&self) -> &Versions {
        self.one(Layout::of(self.workers).versions)
    }

    /// Which keys are being asked for.
    #[must_use]
    pub fn inflight(&self) -> &Inflight {
        self.one(Layout::of(self.workers).inflight)
    }

    /// What is known of a store that other nodes use, too.
    #[must_use]
    pub fn distant(&self) -> &Distant {
        self.one(Layout::of(self.workers).distant)
    }

    /// Purges of many responses at once.
    #[must_use]
    pub fn purges(&self) -> &Purges {
        self.one(Layout::of(self.workers).purges)
    }

    /// The account of the cache directory.
    #[must_use]
    pub fn space(&self) -> &Space {
        self.one(Layout::of(self.workers).space)
    }

    /// What a worker has reserved and not yet recorded.
    #[must_use]
    pub fn space_row(&self, worker: usize) -> &SpaceRow {
        &self.table(Layout::of(self.workers).space_rows, self.workers)[worker]
    }

    /// How often names are asked for.
    #[must_use]
    pub fn sketch(&self) -> &Sketch {
        self.one(Layout::of(self.workers).sketch)
    }

    /// What is certainly not in the cache directory.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        self.one(Layout::of(self.workers).filter)
    }

    /// What a worker tells the janitor.
    #[must_use]
    pub fn journal(&self, worker: usize) -> &Journal {
        &self.table(Layout::of(self.workers).journals, self.workers)[worker]
    }

    fn header(&self) -> &Header {
        self.one(0)
    }

    fn all_counters(&self) -> &[Counters] {
        self.table(Layout::of(self.workers).counters, self.workers + 2)
    }

    fn one<T: crate::sys::memory::OfAtomics>(&self, offset: usize) -> &T {
        self.shared.at(offset).expect(FITS)
    }

    fn table<T: crate::sys::memory::OfAtomics>(&self, offset: usize, rows: usize) -> &[T] {
        self.shared.slice(offset, rows).expect(FITS)
    }
}

const FITS: &str = "the size of the mapping was checked against the layout, and is sealed";

// === impl Layout ===

impl Layout {
    /// Every row is a multiple of a cache line, so every table is aligned.
    const fn of(workers: usize) -> Layout {
        let versions = size_of::<Header>();
        let inflight = versions + size_of::<Versions>();
        let distant = inflight + size_of::<Inflight>();
        let purges = distant + size_of::<Distant>();
        let rings = purges + size_of::<Purges>();
        let loads = rings + workers * size_of::<Ring>();
        let counters = loads + workers * size_of::<LoadRow>();
        let space = counters + (workers + 2) * size_of::<Counters>();
        let space_rows = space + size_of::<Space>();
        let sketch = space_rows + workers * size_of::<SpaceRow>();
        let filter = sketch + size_of::<Sketch>();
        let journals = filter + size_of::<Filter>();
        let size = journals + workers * size_of::<Journal>();
        Layout {
            versions,
            inflight,
            distant,
            purges,
            rings,
            loads,
            counters,
            space,
            space_rows,
            sketch,
            filter,
            journals,
            size,
        }
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::sealed_file;

    #[test]
    fn two_processes_see_one_region() {
        let (near, fd) = Region::create(3).unwrap();
        let far = Region::open(fd).unwrap();
        assert_eq!(far.workers(), 3);

        near.ring(2).offer(5);
        assert!(far.ring(2).claim(5));
        assert_eq!(near.ring(2).state(5), OfferState::Claimed);
        assert_eq!(near.ring(1).state(5), OfferState::Free);

        far.load(0).held.store(9, Relaxed);
        assert_eq!(near.load(0).held.load(Relaxed), 9);

        near.counters(0).add(Counter::Accepted, 1);
        far.counters(3).add(Counter::Accepted, 2);
        assert_eq!(near.total(Counter::Accepted), 3);

        far.journal(2).push(&Entry::Used(Default::default(), 1));
        assert!(!near.journal(2).is_read(near.journal(2).begin()));
        far.space().raise_generation(7);
        assert_eq!(near.space().generation(), 7);
        assert_eq!(far.sketch().touch(1), 1);
        assert_eq!(near.sketch().estimate(1), 1);

        let before = near.versions().read(77);
        far.versions().bump(77);
        assert_ne!(near.versions().read(77), before);
    }

    #[test]
    fn tables_do_not_overlap() {
        let (region, _fd) = Region::create(2).unwrap();
        for seq in 1..=RING_LENGTH {
            region.ring(0).offer(seq);
            region.ring(1).offer(seq);
        }
        assert_eq!(region.load(0).held.load(Relaxed), 0);
        assert_eq!(region.total(Counter::Accepted), 0);
        assert_eq!(
            region.versions().read(u64::MAX),
            Version { slot: 0, epoch: 0 }
        );
        while region.journal(0).push(&Entry::Removed(Default::default())) {}
        let journal = region.journal(1);
        assert!(journal.is_read(journal.begin()) && !journal.take_lost());
        region.filter().begin_anew();
        assert_eq!(region.sketch().touches(), 0);
        region.ring(0).reset();
        assert_eq!(region.ring(1).state(64), OfferState::Offered);
    }

    #[test]
    fn what_is_not_a_region_is_refused() {
        assert!(Region::create(0).is_err());
        assert!(Region::create(MAX_WORKERS + 1).is_err());
        let foreign = sealed_file("test", &[7; 4096]).unwrap();
        assert!(Region::open(foreign).is_err());
        let (shared, fd) = Shared::create("test", Layout::of(1).size).unwrap();
        assert!(Region::open(fd.try_clone().unwrap()).is_err(), "no magic");
        let header: &Header = shared.at(0).unwrap();
        header.magic.store(MAGIC, Relaxed);
        header.layout.store(LAYOUT_VERSION, Relaxed);
        header.size.store(shared.size() as u64, Relaxed);
        header.workers.store(u64::MAX, Relaxed);
        assert!(Region::open(fd.try_clone().unwrap()).is_err(), "workers");
        header.workers.store(2, Relaxed);
        assert!(Region::open(fd.try_clone().unwrap()).is_err(), "size");
        header.workers.store(1, Relaxed);
        assert!(Region::open(fd).is_ok());
    }
}
