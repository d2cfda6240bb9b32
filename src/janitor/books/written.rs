//! The books' catalogue: opened, written in batches, made anew when it breaks, done without when it must be.

use super::super::catalogue::{Catalogue, CatalogueError, Change, Fact};
use super::super::ledger::{Entry, Moment};
use super::Books;
use crate::sys::files::boot;

/// Changes that are worth a transaction before its time.
const BATCH: usize = 1000;
/// How long changes wait for others.
const WAIT_MS: u64 = 1000;
/// How long the number of hits is only in memory, and of how many rows at most.
const HITS_MS: u64 = 30_000;
const MOST_HITS: usize = 20_000;
/// Until a catalogue that could not be written is tried again.
const RETRY_MS: u64 = 5_000;
/// Changes that are kept for a catalogue that cannot be written; beyond, the files are read again.
const MOST_WAITING: usize = 100_000;

/// What the catalogue was worth when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::janitor) enum Opened {
    /// Complete, when it was written last.
    Complete { written: i64 },
    /// It may lack something, and have what is gone.
    Doubtful,
    /// There was none.
    Empty,
}

/// What the catalogue says of itself.
#[derive(Clone, Copy, Debug, Default)]
struct Word {
    complete: bool,
    written: Option<i64>,
    octets: u64,
}

// === impl Books: opening

impl Books {
    /// Opens the catalogue and takes in what it knows; a broken one is begun anew. `counted` is called as soon as the
    /// account tells how much there is, which is before every row has been read.
    pub(in crate::janitor) fn open(&mut self, counted: impl FnOnce()) -> Opened {
        let opened = self.try_open().and_then(|word| {
            if self.is_first {
                self.presume(word.octets);
            }
            counted();
            self.load()?;
            Ok(match word.written {
                Some(written) if word.complete => Opened::Complete { written },
                _ if self.ledger.is_empty() => Opened::Empty,
                _ => Opened::Doubtful,
            })
        });
        let opened = opened.unwrap_or_else(|error| {
            self.ledger.clear();
            self.last_row = 0;
            self.has_failed(error);
            Opened::Empty
        });
        // A predecessor in this region has counted already; what it got wrong will show.
        if self.is_first {
            self.region.space().count(self.ledger.octets());
            self.presume(0);
        }
        opened
    }

    fn try_open(&mut self) -> Result<Word, CatalogueError> {
        let catalogue = Catalogue::open(&self.path)?;
        let is_clean = catalogue.fact(Fact::Clean)? == Some(1);
        let boot = catalogue.fact(Fact::Boot)?;
        // Without a word that it is complete, what another start of the machine left may be half on the disk.
        if !is_clean && boot.is_some_and(|boot| boot != boot_id()) {
            drop(catalogue);
            Catalogue::delete(&self.path)
                .map_err(|error| CatalogueError::Unwritable(error.into()))?;
            self.catalogue = Some(Catalogue::open(&self.path)?);
            return Ok(Word::default());
        }
        let generation = self.region.space().generation().cast_signed();
        let word = Word {
            complete: is_clean && catalogue.fact(Fact::Generation)? == Some(generation),
            written: catalogue.fact(Fact::Written)?,
            octets: catalogue
                .fact(Fact::Octets)?
                .unwrap_or(0)
                .max(0)
                .cast_unsigned(),
        };
        self.catalogue = Some(catalogue);
        Ok(word)
    }

    fn load(&mut self) -> Result<(), CatalogueError> {
        let (ledger, last_row) = (&mut self.ledger, &mut self.last_row);
        let Some(catalogue) = &self.catalogue else {
            return Ok(());
        };
        catalogue.load(|known| {
            *last_row = known.id.max(*last_row);
            let used = Moment::of_unix(known.used);
            let entry = Entry::new(known.name, known.kind, known.kib, used, known.id);
            ledger.put(entry);
        })
    }

    /// From now on the catalogue is not complete, and the disk knows. To be called before it is written.
    pub(in crate::janitor) fn begin(&mut self) {
        let facts = [(Fact::Clean, 0), (Fact::Boot, boot_id())];
        let begun = self.catalogue.as_mut().map(|it| it.write_through(&facts));
        if let Some(Err(error)) = begun {
            self.has_failed(error);
        }
    }

    /// Whether the files are to be read again, to fill the catalogue from them.
    pub(in crate::janitor) fn take_wants_tour(&mut self) -> bool {
        std::mem::take(&mut self.wants_tour)
    }
}

/// This start of the machine, as a number.
pub(super) fn boot_id() -> i64 {
    boot()
        .first_chunk()
        .map_or(0, |half| i64::from_le_bytes(*half))
}

// === impl Books: writing

impl Books {
    /// Octets that it takes.
    pub(in crate::janitor) fn overhead(&self) -> u64 {
        self.catalogue.as_ref().map_or(0, Catalogue::size)
    }

    pub(super) fn change(&mut self, change: Change) {
        if self.pending.is_empty() {
            self.pending_since = self.now.ms;
        }
        self.pending.push(change);
    }

    /// Frees the room of records that nobody will need to read again.
    pub(super) fn settle(&mut self) {
        if self.pending.is_empty() || self.failing_since.is_some() {
            for (worker, position) in self.positions.iter().enumerate() {
                self.region.journal(worker).settle(*position);
            }
        }
    }

    /// Writes what has changed, when it is time or (`at_once`) anyway.
    pub(in crate::janitor) fn commit(&mut self, at_once: bool) {
        let now = self.now;
        if at_once || now.ms >= self.hits_since + HITS_MS || self.hits.len() >= MOST_HITS {
            self.hits_since = now.ms;
            let hits = std::mem::take(&mut self.hits);
            // They are worth no room that something else needs which waits.
            let is_failing = self.failing_since.is_some();
            for (id, hits) in hits.into_iter().filter(|_| !is_failing) {
                self.change(Change::Hits { id, hits });
            }
        }
        if self.failing_since.is_some() && now.ms < self.retry_at && !at_once {
            if self.pending.len() > MOST_WAITING {
                self.pending = Vec::new();
                self.wants_tour = true;
            }
            return;
        }
        let is_time = self.pending.len() >= BATCH || now.ms >= self.pending_since + WAIT_MS;
        if self.pending.is_empty() && self.failing_since.is_none() || !is_time && !at_once {
            return;
        }
        match self.try_commit() {
            Ok(()) => {
                self.pending.clear();
                if let Some(since) = self.failing_since.take() {
                    let seconds = (now.ms - since) / 1000;
                    log::info!("the catalogue can be written again, after {seconds} s");
                }
                self.settle();
            }
            Err(error) => self.has_failed(error),
        }
    }

    fn try_commit(&mut self) -> Result<(), CatalogueError> {
        let facts = [
            (
                Fact::Generation,
                self.region.space().generation().cast_signed(),
            ),
            (Fact::Octets, self.ledger.octets().cast_signed()),
            (Fact::Written, self.now.unix),
        ];
        match &mut self.catalogue {
            Some(catalogue) => catalogue.write(&self.pending, &facts),
            None => self.begin_anew(),
        }
    }

    /// Whether its files are where they should be.
    pub(in crate::janitor) fn look_after_catalogue(&mut self) {
        if self.catalogue.as_ref().is_some_and(|it| !it.is_there()) {
            self.has_failed(CatalogueError::Broken("its files are gone".into()));
        }
    }

    fn has_failed(&mut self, error: CatalogueError) {
        let error = match error {
            CatalogueError::Broken(_) => {
                log::warn!(
                    "the catalogue {}: {error}; it is made anew",
                    self.path.display()
                );
                self.catalogue = None;
                match self.begin_anew() {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            error => error,
        };
        if self.failing_since.is_none() {
            let path = self.path.display();
            log::warn!(
                "the catalogue {path}: {error}; the cache is used without, and it is tried again"
            );
        }
        self.failing_since.get_or_insert(self.now.ms);
        self.retry_at = self.now.ms + RETRY_MS;
        self.settle();
    }

    /// Makes a new catalogue, which the next tour fills.
    fn begin_anew(&mut self) -> Result<(), CatalogueError> {
        Catalogue::delete(&self.path).map_err(|error| CatalogueError::Unwritable(error.into()))?;
        let mut catalogue = Catalogue::open(&self.path)?;
        catalogue.write_through(&[(Fact::Clean, 0), (Fact::Boot, boot_id())])?;
        self.catalogue = Some(catalogue);
        self.pending.clear();
        self.hits.clear();
        self.ledger.forget_rows();
        self.last_row = 0;
        self.wants_tour = true;
        Ok(())
    }

    /// The orderly end: everything is written, and (`complete`) the catalogue says so.
    pub(in crate::janitor) fn close(mut self, complete: bool) {
        self.drain();
        self.commit(true);
        let complete = complete && self.pending.is_empty() && !self.wants_tour;
        if let Some(catalogue) = self.catalogue.as_mut().filter(|_| complete) {
            let facts = [(Fact::Clean, 1), (Fact::Written, self.now.unix)];
            if let Err(error) = catalogue.write_through(&facts) {
                log::warn!("the catalogue {}: {error}", self.path.display());
            }
        }
    }
}
