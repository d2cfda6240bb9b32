//! The disk store of one worker: files below one directory, shared by all workers and kept over restarts.
//!
//! The files are the truth: a rename publishes to every process at once, and no request ever needs the janitor's
//! catalogue. What only the disk knows is asked, and what changes it is done, on other threads, so that a slow
//! disk holds up nobody but those who wait for it. Space is reserved before it is written; what has been done is
//! told to the janitor through the worker's journal. It keeps nothing in memory: `tiered` does.

mod elsewhere;
pub mod format;
pub mod limits;
pub mod lookup;
pub mod place;
pub mod purged;
pub mod read;
mod trouble;
pub mod write;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicU32};

use super::{Known, NotKept};
use crate::cache::Name;
use crate::http::Headers;
use crate::shared::{Counter, Entry, Region, Stored as StoredEntry, Version};
use crate::sys::clock;
use crate::sys::files::{Access, Facts};
use elsewhere::Elsewhere;
#[cfg(test)]
pub use elsewhere::MOST as MOST_AT_ONCE;
use lookup::{Looked, Question, Report};
use place::Place;
use trouble::Trouble;
use write::{Done, New, Seen};

/// How long a use is remembered before it is worth telling again, in seconds.
const USE_TOLD: i64 = 60;
/// How long what was used again meanwhile waits to be told, in seconds, how many do, and how many are told at once.
const UNTOLD: i64 = 10;
const MOST_UNTOLD: usize = 20_000;
const UNTOLD_AT_ONCE: usize = 1_000;

/// Where an object is on the disk.
#[derive(Clone, Debug)]
pub struct OnDisk {
    pub name: Name,
    /// Of a variant: the number of the list that leads to it.
    pub list: Option<u64>,
    uses: Arc<Uses>,
}

/// How often an object was found that is not told yet. Only the loop of its worker counts.
#[derive(Debug)]
struct Uses {
    name: Name,
    is_variant: bool,
    count: AtomicU32,
    /// When the janitor was last told.
    told: AtomicI64,
}

impl OnDisk {
    pub fn new(name: Name, list: Option<u64>) -> OnDisk {
        OnDisk {
            name,
            list,
            uses: Arc::new(Uses {
                name,
                is_variant: list.is_some(),
                count: AtomicU32::new(0),
                told: AtomicI64::new(0),
            }),
        }
    }
}

pub struct Disk {
    path: PathBuf,
    /// None: it could not be opened.
    place: RefCell<Option<Arc<Place>>>,
    region: Region,
    purges: Known,
    worker: usize,
    /// The process id.
    process: u32,
    /// Bodies up to so many octets are read into memory.
    in_memory: u64,
    elsewhere: Elsewhere,
    trouble: Trouble,
    buffer: Cell<Vec<u8>>,
    /// In the order in which they were used.
    untold: RefCell<VecDeque<(i64, Arc<Uses>)>>,
}

/// Octets taken from the disk's account until their files are told of.
pub struct Reservation {
    region: Region,
    worker: usize,
    octets: u64,
}

impl Disk {
    /// For the worker of that number. A directory that cannot be opened now is tried again later.
    pub fn new(path: &Path, region: Region, worker: usize, in_memory: u64) -> Rc<Disk> {
        region.space_row(worker).inherit(region.space());
        let disk = Disk {
            path: path.to_owned(),
            place: RefCell::default(),
            purges: Known::new(region.clone()),
            region,
            worker,
            process: std::process::id(),
            in_memory,
            elsewhere: Elsewhere::default(),
            trouble: Trouble::default(),
            buffer: Cell::default(),
            untold: RefCell::default(),
        };
        match Place::open(path) {
            Ok(place) => *disk.place.borrow_mut() = Some(Arc::new(place)),
            Err(error) => disk.failed(&error),
        }
        Rc::new(disk)
    }

    pub fn generation(&self) -> u64 {
        self.region.space().generation()
    }

    /// Bodies up to so many octets are read into memory.
    pub fn in_memory(&self) -> u64 {
        self.in_memory
    }

    /// Octets that there may be, over all.
    pub fn limit(&self) -> u64 {
        self.region.space().limit()
    }

    /// Whether there may be something under that name.
    pub fn may_hold(&self, name: &Name) -> bool {
        self.region.filter().may_hold(name)
    }

    // === reading

    /// What memory knows without waiting; counts as one more time that the key is asked for.
    pub fn find(&self, key: &[u8], request: &Headers) -> Looked {
        let name = Name::of(key);
        self.region.sketch().touch(name.hash());
        if !self.may_hold(&name) {
            return Looked::Absent;
        }
        let Some(place) = self.place() else {
            return Looked::Absent;
        };
        let question = self.question(&place, key, name, request);
        let mut buffer = self.buffer.take();
        let mut report = Report::default();
        let looked = lookup::lookup(&question, Access::Cached, &mut buffer, &mut report);
        self.buffer.set(buffer);
        self.heed(report);
        looked
    }

    /// The same from the disk.
    pub async fn look(self: &Rc<Self>, key: &[u8], request: &Headers) -> Looked {
        let Some(place) = self.place() else {
            return Looked::Absent;
        };
        let (key, request) = (key.to_vec(), request.clone());
        let (generation, in_memory) = (self.generation(), self.in_memory);
        let purges = self.purges.all();
        let asked = self.elsewhere.run(move || {
            let question = Question {
                place: &place,
                key: &key,
                name: Name::of(&key),
                generation,
                purges,
                request: &request,
                in_memory,
            };
            let (mut buffer, mut report) = (Vec::new(), Report::default());
            let looked = lookup::lookup(&question, Access::Blocking, &mut buffer, &mut report);
            (looked, report)
        });
        match asked.await {
            Some((looked, report)) => {
                if let Some((name, facts)) = report.checked {
                    // Whoever asked does not wait for that.
                    let disk = self.clone();
                    tokio::task::spawn_local(async move { disk.attest(name, facts).await });
                }
                self.heed(report);
                looked
            }
            None => Looked::Absent,
        }
    }

    /// All that is kept under the key, the newest first.
    pub async fn variants(&self, key: &[u8]) -> Vec<lookup::Found> {
        let Some(place) = self.place() else {
            return Vec::new();
        };
        let key = key.to_vec();
        let (generation, in_memory) = (self.generation(), self.in_memory);
        let purges = self.purges.all();
        let asked = self.elsewhere.run(move || {
            let question = Question {
                place: &place,
                key: &key,
                name: Name::of(&key),
                generation,
                purges,
                request: &Headers::new(),
                in_memory,
            };
            let mut report = Report::default();
            let found = lookup::variants(&question, &mut Vec::new(), &mut report);
            (found, report)
        });
        match asked.await {
            Some((found, report)) => {
                self.heed(report);
                found
            }
            None => Vec::new(),
        }
    }

    fn question<'a>(
        &self,
        place: &'a Place,
        key: &'a [u8],
        name: Name,
        request: &'a Headers,
    ) -> Question<'a> {
        Question {
            place,
            key,
            name,
            generation: self.generation(),
            purges: self.purges.all(),
            request,
            in_memory: self.in_memory,
        }
    }

    fn heed(&self, report: Report) {
        self.gone(&report.removed);
        let damaged = report.removed.len() as u64;
        self.count(Counter::CacheDamaged, damaged);
        if let Some(error) = report.trouble {
            self.failed(&error);
        }
    }

    /// An object has been used; the janitor is told now and then.
    pub fn used(&self, on_disk: &OnDisk) {
        let uses = &on_disk.uses;
        let count = uses.count.load(Relaxed).saturating_add(1);
        uses.count.store(count, Relaxed);
        let now = clock::unix_seconds();
        if (now - uses.told.load(Relaxed)).abs() >= USE_TOLD {
            self.tell_uses(uses, now);
        } else if count == 1 {
            let mut untold = self.untold.borrow_mut();
            if untold.len() < MOST_UNTOLD {
                untold.push_back((now, uses.clone()));
            }
        }
    }

    /// Now and then: tells what was used lately and would have to be used again to be told.
    pub fn tell_rest(&self) {
        let now = clock::unix_seconds();
        for _ in 0..UNTOLD_AT_ONCE {
            let mut untold = self.untold.borrow_mut();
            match untold.front() {
                Some((since, _)) if (now - since).abs() >= UNTOLD => {}
                _ => return,
            }
            if let Some((_, uses)) = untold.pop_front()
                && uses.count.load(Relaxed) > 0
            {
                self.tell_uses(&uses, now);
            }
        }
    }

    fn tell_uses(&self, uses: &Uses, now: i64) {
        uses.told.store(now, Relaxed);
        let journal = self.region.journal(self.worker);
        // Where the janitor is behind, it is told with the next ones.
        if journal.push(&Entry::Used(uses.name, uses.count.load(Relaxed))) {
            uses.count.store(0, Relaxed);
        }
        if uses.is_variant {
            journal.push(&Entry::Used(uses.name.of_base(), 0));
        }
    }

    // === storing

    /// Whether an object of this name may be stored, and the space for it.
    pub fn reserve(self: &Rc<Self>, name: &Name, octets: u64) -> Result<Reservation, NotKept> {
        if self.trouble.is_recent() {
            return Err(NotKept::Trouble);
        }
        let space = self.region.space();
        let asked = || self.region.sketch().estimate(name.hash());
        if space.is_tight() && asked() <= space.floor() {
            return Err(NotKept::Rare);
        }
        let mut reservation = Reservation {
            region: self.region.clone(),
            worker: self.worker,
            octets: 0,
        };
        match reservation.more(octets) {
            true => Ok(reservation),
            false => Err(NotKept::Full),
        }
    }

    /// Puts a response in its place. None: it has been overtaken, or the disk refused.
    pub async fn put(&self, new: New, reserved: Reservation) -> Option<Done> {
        // The space is taken as long as it is being written, whoever waits for that.
        let written = self.run(move |place| Ok((write::put(place, new)?, reserved)));
        let (done, reserved) = written.await?;
        let done = done?;
        self.tell(&done, reserved);
        Some(done)
    }

    /// None: the disk refused, it is not there any more, or the answer has been overtaken.
    pub async fn refresh(
        &self,
        on_disk: &OnDisk,
        known: crate::cache::Stored,
        new: New,
    ) -> Option<Done> {
        let name = on_disk.name;
        let done = self
            .run(move |place| write::refresh(place, &name, &known, new))
            .await??;
        let none = Reservation {
            region: self.region.clone(),
            worker: self.worker,
            octets: 0,
        };
        self.tell(&done, none);
        Some(done)
    }

    /// Removes what is under that name. How many head files are gone; none: the disk refused.
    pub async fn remove(&self, name: Name) -> Option<usize> {
        if self.place().is_none() {
            return Some(0);
        }
        let removed = self
            .run(move |place| match write::remove(place, &name) {
                // Where there is no directory there is nothing to be read, either.
                Err(_) if !place.is_there() => Ok(Vec::new()),
                removed => removed,
            })
            .await?;
        self.gone(&removed);
        Some(removed.len())
    }

    /// A body that was not trusted has been read, and is as it was written: that is remembered, if it can be.
    pub async fn attest(&self, name: Name, facts: Facts) {
        let (Some(place), aside) = (self.place(), self.aside()) else {
            return;
        };
        let attest = move || write::attest(&place, &name, facts, &aside);
        if let Some(Err(error)) = self.elsewhere.run(attest).await {
            log::debug!("{name} will be read once more: {error}");
        }
    }

    /// Gives up everything that is stored: from now on no file of before is read.
    pub fn give_up(&self) {
        let generation = purged::after_all(self.generation());
        self.region.space().raise_generation(generation);
        log::error!(
            "{}: something that may not be served any more cannot be removed, so nothing that was stored is served",
            self.path.display()
        );
    }

    /// Does something that may wait, elsewhere. None: it failed, which has been said.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Arc<Place>) -> io::Result<T> + Send + 'static,
    ) -> Option<T> {
        let place = self.place()?;
        let done = self.elsewhere.run(move || job(&place)).await;
        match done.unwrap_or_else(|| Err(io::Error::other("a bug in the store"))) {
            Ok(value) => {
                self.trouble.is_over(&self.path);
                Some(value)
            }
            Err(error) => {
                self.failed(&error);
                self.open_again().await;
                None
            }
        }
    }

    /// What has to be the same still when something comes into its place.
    pub fn seen(&self, version: Version) -> Seen {
        Seen {
            region: self.region.clone(),
            version,
        }
    }

    /// A name for a file that is being written, which nobody else uses.
    pub fn aside(&self) -> String {
        let ticket = self.region.space().ticket();
        format!("{}-{}-{ticket}", self.worker, self.process)
    }

    fn tell(&self, done: &Done, reserved: Reservation) {
        let journal = self.region.journal(self.worker);
        let at = clock::unix_seconds();
        for written in &done.written {
            self.region.filter().add(&written.name);
            let (status, length) = done.figures(written);
            journal.push(&Entry::Stored(StoredEntry {
                name: written.name,
                kind: written.kind,
                key: &done.key,
                status,
                length,
                kib: u32::try_from(written.octets / 1024).unwrap_or(u32::MAX),
                expires: at + done.kept.stored.remaining(at),
                at,
            }));
        }
        let total = done.written.iter().map(|written| written.octets).sum();
        reserved.settle(total);
        self.gone(&done.removed);
    }

    fn gone(&self, names: &[Name]) {
        let journal = self.region.journal(self.worker);
        for name in names {
            journal.push(&Entry::Removed(*name));
        }
    }

    // === the directory

    fn place(&self) -> Option<Arc<Place>> {
        self.place.borrow().clone()
    }

    /// Looks whether the directory is still the one that is open: it may have been deleted and made anew.
    pub async fn open_again(&self) {
        let (path, old) = (self.path.clone(), self.place());
        let opened = self.elsewhere.run(move || {
            if old.is_some_and(|old| old.is_there()) {
                return None;
            }
            Place::open(&path).ok()
        });
        if let Some(Some(place)) = opened.await {
            *self.place.borrow_mut() = Some(Arc::new(place));
        }
    }

    fn failed(&self, error: &io::Error) {
        self.count(Counter::CacheErrors, 1);
        self.trouble.began(&self.path, error);
    }

    fn count(&self, counter: Counter, n: u64) {
        self.region.counters(1 + self.worker).add(counter, n);
    }
}

// === impl Reservation

impl Reservation {
    /// False: there is no room for so many more.
    pub fn more(&mut self, octets: u64) -> bool {
        let row = self.region.space_row(self.worker);
        let fits = row.reserve(self.region.space(), octets);
        if fits {
            self.octets += octets;
        }
        fits
    }

    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// The journal tells of so many octets now.
    fn settle(mut self, octets: u64) {
        let space = self.region.space();
        let row = self.region.space_row(self.worker);
        space.count(octets.saturating_sub(self.octets));
        row.recorded(octets.min(self.octets));
        self.octets = self.octets.saturating_sub(octets);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let row = self.region.space_row(self.worker);
        row.release(self.region.space(), self.octets);
    }
}
