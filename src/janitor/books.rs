//! The books of the cache directory: the ledger in memory, the catalogue on the disk, and the account that all
//! processes share, kept in step.
//!
//! What happens comes from the workers' journals, from a tour of the disk, or from the janitor's own removals. A
//! catalogue that breaks is begun anew, and one that cannot be written waits: the ledger needs neither. Records are
//! settled when the catalogue has them, so that a janitor that dies leaves them to its successor. No file but the
//! catalogue is touched here; `written` is about that one.

mod written;

use std::collections::HashMap;
use std::path::PathBuf;

use super::catalogue::{Catalogue, Change, Row};
use super::ledger::{Entry, Ledger, Moment};
use crate::cache::Name;
use crate::shared::{self, Kind, Position, Region, Stored};
use crate::sys::clock;

/// Records taken from one journal before others get their turn.
const AT_ONCE: usize = 10_000;
/// Names that were used and nobody knows, at most, until they are looked at.
const MOST_UNKNOWN: usize = 1000;
/// Use is written down when it moves from one such stretch of time to another.
const COARSE: u32 = 600;

pub(super) use written::Opened;

/// The time, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Monotonic milliseconds.
    pub(super) ms: u64,
    /// Seconds since 1970.
    pub(super) unix: i64,
}

pub(super) struct Books {
    path: PathBuf,
    region: Region,
    /// When this pass of the janitor's loop began.
    pub(super) now: Now,
    pub(super) ledger: Ledger,
    catalogue: Option<Catalogue>,
    pending: Vec<Change>,
    /// How often rows were found that are not in `pending` yet, since then.
    hits: HashMap<u64, u64>,
    hits_since: u64,
    /// When the first of them came.
    pending_since: u64,
    /// Since when the catalogue cannot be written.
    failing_since: Option<u64>,
    retry_at: u64,
    /// The files must be read again to fill the catalogue.
    wants_tour: bool,
    /// No janitor has counted before in this region.
    is_first: bool,
    last_row: u64,
    /// How far each worker's journal has been read.
    positions: Vec<Position>,
    /// Octets on the disk that are counted and not yet found.
    presumed: u64,
    /// By how much the account was off when it was last compared.
    difference: i128,
    /// Used, and in no row.
    unknown: Vec<Name>,
    /// What has been removed lately, on our own account.
    removed: Vec<Name>,
    /// Names that came since the filter was made.
    pub(super) added: usize,
}

impl Now {
    pub(super) fn read() -> Now {
        Now {
            ms: clock::monotonic_ms(),
            unix: clock::unix_seconds(),
        }
    }

    pub(super) fn moment(self) -> Moment {
        Moment::of_unix(self.unix)
    }
}

// === impl Books

impl Books {
    pub(super) fn new(path: PathBuf, region: Region, now: Now) -> Books {
        let workers = 0..region.workers();
        Books {
            // A predecessor has said what the limit is.
            is_first: region.space().limit() == 0,
            positions: workers.map(|n| region.journal(n).begin()).collect(),
            path,
            region,
            now,
            ledger: Ledger::new(),
            catalogue: None,
            pending: Vec::new(),
            hits: HashMap::new(),
            hits_since: now.ms,
            pending_since: 0,
            failing_since: None,
            retry_at: 0,
            wants_tour: false,
            last_row: 0,
            presumed: 0,
            difference: 0,
            unknown: Vec::new(),
            removed: Vec::new(),
            added: 0,
        }
    }
}

// === impl Books: what happens

impl Books {
    /// Reads the workers' journals; how many records there were.
    pub(super) fn drain(&mut self) -> usize {
        let region = self.region.clone();
        let mut count = 0;
        for worker in 0..region.workers() {
            let journal = region.journal(worker);
            let mut position = self.positions[worker];
            count += journal.drain(&mut position, AT_ONCE, |entry| self.enter(entry));
            self.positions[worker] = position;
        }
        self.settle();
        count
    }

    /// Something was stored or removed that no record tells of.
    pub(super) fn take_lost(&self) -> bool {
        // Every one is asked, so that none is left for later.
        (0..self.region.workers()).fold(false, |lost, worker| {
            self.region.journal(worker).take_lost() | lost
        })
    }

    fn enter(&mut self, entry: shared::Entry<'_>) {
        match entry {
            shared::Entry::Stored(stored) => self.stored(&stored),
            shared::Entry::Used(name, times) => self.used(&name, times),
            shared::Entry::Removed(name) => {
                self.forget(&name);
            }
        }
    }

    fn stored(&mut self, stored: &Stored<'_>) {
        let replaced = self.put(stored, self.now.moment());
        // The worker has reserved what is there now; what was there before is our business.
        if let Some(replaced) = replaced {
            self.region.space().release(octets(&replaced));
        }
        // A list is as old as the youngest of its variants: it takes them along when it is evicted.
        if stored.kind == Kind::Variant {
            self.ledger.touch(&stored.name.of_base(), self.now.moment());
        }
        if self.removed.contains(&stored.name) {
            // It may be that the new one was removed in place of the old one.
            self.note_unknown(stored.name);
        }
    }

    /// A tour of the disk has found it; whether it was not known.
    pub(super) fn found(&mut self, stored: &Stored<'_>, used: i64) -> bool {
        let known = self.ledger.get(&stored.name);
        if known.is_some_and(|entry| entry.kib == stored.kib && entry.row() != 0) {
            self.ledger.mark(&stored.name);
            return false;
        }
        let used = known.map_or(Moment::of_unix(used.min(self.now.unix)), |entry| entry.used);
        let replaced = self.put(stored, used);
        let space = self.region.space();
        space.count(u64::from(stored.kib) * 1024);
        if let Some(replaced) = &replaced {
            space.release(octets(replaced));
        }
        replaced.is_none()
    }

    /// An object that is known says other things of itself now.
    pub(super) fn renewed(&mut self, stored: &Stored<'_>) {
        if let Some(known) = self.ledger.get(&stored.name) {
            let used = known.used;
            self.put(stored, used);
        }
    }

    fn put(&mut self, stored: &Stored<'_>, used: Moment) -> Option<Entry> {
        let name = stored.name;
        let id = match self.ledger.get(&name).map(Entry::row) {
            Some(row) if row != 0 => row,
            _ => {
                self.last_row += 1;
                self.last_row
            }
        };
        let entry = Entry::new(name, stored.kind, stored.kib, used, id);
        let replaced = self.ledger.put(entry);
        self.ledger.mark(&name);
        self.region.filter().add(&name);
        self.added += usize::from(replaced.is_none());
        self.change(Change::Put(Row {
            id,
            name,
            kind: stored.kind,
            status: stored.status,
            length: stored.length,
            kib: stored.kib,
            stored: stored.at,
            expires: stored.expires,
            used: used.unix(),
            hits: 0,
            key: stored.key.to_vec(),
        }));
        replaced
    }

    fn used(&mut self, name: &Name, times: u32) {
        let moment = self.now.moment();
        match self.ledger.touch(name, moment) {
            Some((before, entry)) => {
                let id = entry.row();
                // The stretches of different names end at different times.
                let shift = name.hash() as u32 % COARSE;
                let stretch = |moment: Moment| moment.0.saturating_add(shift) / COARSE;
                let is_list = entry.is_list();
                if id != 0 && stretch(before) != stretch(moment) {
                    let used = moment.unix();
                    self.change(Change::Used { id, used });
                }
                // A list is found with one of its variants, which counts.
                if id != 0 && !is_list {
                    *self.hits.entry(id).or_default() += u64::from(times);
                }
            }
            None => self.note_unknown(*name),
        }
        // A list is as old as the youngest of its variants.
        if !name.is_base() {
            self.ledger.touch(&name.of_base(), moment);
        }
    }

    fn note_unknown(&mut self, name: Name) {
        if self.unknown.len() < MOST_UNKNOWN {
            self.unknown.push(name);
        }
    }

    /// Names that somebody should look for on the disk.
    pub(super) fn take_unknown(&mut self) -> Vec<Name> {
        self.removed.clear();
        std::mem::take(&mut self.unknown)
    }

    /// Its file is gone.
    pub(super) fn forget(&mut self, name: &Name) -> bool {
        let Some(entry) = self.ledger.remove(name) else {
            return false;
        };
        self.region.space().release(octets(&entry));
        if entry.row() != 0 {
            self.change(Change::Remove { id: entry.row() });
        }
        true
    }

    /// We have removed its file.
    pub(super) fn evicted(&mut self, name: &Name) {
        self.forget(name);
        self.removed.push(*name);
    }

    /// Nothing counts any more, but it is still there: a tour removes it.
    pub(super) fn forget_all(&mut self) {
        self.presumed += self.ledger.octets();
        self.ledger.clear();
        self.pending.clear();
        self.hits.clear();
        self.change(Change::RemoveAll);
    }
}

fn octets(entry: &Entry) -> u64 {
    u64::from(entry.kib) * 1024
}

// === impl Books: the shared account

impl Books {
    /// Octets that are counted for what nobody has found yet.
    pub(super) fn presumed(&self) -> u64 {
        self.presumed
    }

    /// Counts so many octets for what is on the disk and has not been found yet.
    pub(super) fn presume(&mut self, octets: u64) {
        let space = self.region.space();
        space.count(octets.saturating_sub(self.presumed));
        space.release(self.presumed.saturating_sub(octets));
        self.presumed = octets;
    }

    /// Puts the account right where a death has left it wrong. What is on its way between the processes makes for
    /// differences as well, but for none that is the same each time. `commands`: octets that commands have reserved.
    pub(super) fn reconcile(&mut self, commands: u64) {
        let space = self.region.space();
        let seen = space.used();
        let workers = 0..self.region.workers();
        let in_flight: u64 = workers
            .clone()
            .map(|worker| self.region.space_row(worker).in_flight())
            .fold(commands, u64::saturating_add);
        let all_read = workers
            .into_iter()
            .all(|worker| self.region.journal(worker).is_read(self.positions[worker]));
        if !all_read {
            return;
        }
        let right = (self.ledger.octets() + self.presumed).saturating_add(in_flight);
        let difference = i128::from(seen) - i128::from(right);
        if difference != 0 && difference == self.difference {
            if space.correct(seen, right) {
                log::debug!("the account of space was off by {difference} octets");
            }
            self.difference = 0;
        } else {
            self.difference = difference;
        }
    }
}

#[cfg(test)]
mod tests;
