//! The janitor: keeps the cache directory within its limits, its catalogue in step with its files, and clean.
//!
//! One thread, no runtime: a loop that reads what the workers have noted down, removes what must go, and goes on with
//! a tour of the disk when there is one, each for a moment. It serves no client and nothing waits for it: without
//! it, workers store until the limit and no further. The master starts it, and again when it ends; `roles` runs it.
//!
//! Where responses are kept in memory alone it only answers commands (`memory`): the workers know what there is. Where they are in
//! PostgreSQL it hears of what other nodes change (`postgres`).
//!
//! It ends when its channel does (the master is gone), when it is told to, and when the directory is no longer the
//! one that it knows: then the master makes everything ready anew.

mod aside;
mod board;
mod books;
pub mod catalogue;
pub mod control;
mod evict;
mod ledger;
pub mod listing;
pub mod meeting;
mod memory;
pub mod operations;
pub mod postgres;
pub mod protocol;
mod purging;
mod tour;
mod trouble;
mod victim;
mod workers;

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cache::Name;
use crate::config::{Cache, Launch, StoreKind};
use crate::ipc::{Channel, Received, ToWorker};
use crate::shared::{Counter, Region};
use crate::store::disk::limits::Limits;
use crate::store::disk::place::{CATALOGUE, Place};
use crate::store::disk::purged;
use crate::sys::clock::monotonic_ms;
use board::Board;
use books::{Books, Now, Opened};
use control::{Control, Heard};
use evict::Bounds;
use tour::{Scope, Tour};
use trouble::Trouble;

/// Between two looks, when there is something to do and when there is not.
const BUSY_MS: u16 = 20;
const QUIET_MS: u16 = 200;
/// How long a tour goes on before everything else gets its turn.
const TOUR_MS: u64 = 10;
/// Between two looks at what changes slowly: the disk, the workers, the catalogue's files.
const SURVEY_MS: u64 = 1_000;
/// Objects evicted before everything else gets its turn.
const VICTIMS_AT_ONCE: usize = 2_000;
/// How long evicting rests after the disk refused.
const REFUSED_MS: u64 = 1_000;
/// Changes that are this much older than a death have been told of.
const BEFORE_DEATH: i64 = 10;
/// By so much the clocks may part before times on the disk are believed no more, in seconds.
const CLOCK_STEP: i64 = 5;
/// How long the filter that is made anew waits for names on their way.
const FILTER_MS: u64 = 5_000;
/// Until what was too young to be removed is looked at again.
const YOUNG_MS: u64 = 7_000;

struct Janitor {
    place: Place,
    region: Region,
    /// None: commands find nobody to ask.
    control: Option<Control>,
    books: Books,
    limits: Limits,
    bounds: Bounds,
    tour: Option<Tour>,
    /// What the next tour must visit.
    wanted: Option<Scope>,
    /// When something that was too young has to be looked at again, and since when it may have changed.
    again: Option<(u64, i64)>,
    /// Whose notes have been read: the process id of each worker; 0 when it is known to have died.
    owners: Vec<u64>,
    /// The generation of which everything else has been removed, or is being.
    generation: u64,
    filter: Filtering,
    surveyed: u64,
    /// Wall-clock time less monotonic time, when it was last looked at.
    clock: i64,
    refused: Trouble,
    /// Evicting rests until then.
    rests_until: u64,
}

/// How far the filter that knows only what is there has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filtering {
    Idle,
    /// It is asked from then on.
    Turning(u64),
}

/// Why the loop ends.
enum End {
    /// Workers are gone and everything is to be written down.
    Told,
    /// The master is gone; workers may not be.
    Orphaned,
    /// The directory is another one, or none.
    Moved,
}

/// Looks after the directory until the end. `channel` is the janitor's end of the control socket.
///
/// Errors: there is no directory to look after, or the log cannot be opened.
pub fn run(channel: &Channel, launch: &Launch, region: OwnedFd) -> anyhow::Result<ExitCode> {
    crate::log::init("janitor", &launch.config.log)?;
    if launch.config.cache.store == StoreKind::Memory {
        return memory::run(channel, launch, region);
    }
    if launch.config.cache.store == StoreKind::Postgres {
        return postgres::run(channel, launch, region);
    }
    let config = &launch.config.cache;
    let path = config.directory.as_deref();
    let path = path.context("there is no cache directory to look after")?;
    let place = Place::open(path).context("the cache directory cannot be opened")?;
    let control = region
        .try_clone()
        .and_then(|region| Control::start(&place, region, launch.config.policies()))
        .inspect_err(|error| log::warn!("there is no control socket for commands: {error}"));
    let region = Region::open(region).context("the shared memory")?;
    let mut janitor = Janitor::new(place, region, config);
    janitor.control = control.ok();
    let end = janitor.work(channel);
    match end {
        End::Told => janitor.close(true),
        End::Orphaned => {
            log::warn!("the master is gone");
            janitor.close(false);
        }
        End::Moved => log::warn!("the cache directory {} is gone", path.display()),
    }
    Ok(ExitCode::SUCCESS)
}

// === impl Janitor

impl Janitor {
    fn new(place: Place, region: Region, config: &Cache) -> Janitor {
        let now = Now::read();
        let mut books = Books::new(place.path().join(CATALOGUE), region.clone(), now);
        let mut limits = Limits::new(config.max_size, config.min_free);
        // Nothing is stored before there is a limit: it comes as soon as it is known what there is.
        let mut publish = || drop(publish_limit(&place, &region, &mut limits, 0));
        if place.is_empty().unwrap_or(false) {
            publish();
        }
        let began = monotonic_ms();
        let opened = books.open(publish);
        // There will be one anyway.
        books.take_wants_tour();
        let (objects, took) = (books.ledger.len(), monotonic_ms() - began);
        let kib = books.ledger.memory() / 1024;
        log::info!(
            "janitor ready: {objects} objects in the catalogue, read in {took} ms, {kib} KiB of memory"
        );
        let wanted = match opened {
            // Only what was changed at rest, by hand or by a command.
            Opened::Complete { written } => Scope::Since(written - 1),
            Opened::Doubtful | Opened::Empty => Scope::All,
        };
        let mut janitor = Janitor {
            owners: vec![0; region.workers()],
            generation: region.space().generation(),
            limits,
            bounds: Bounds::of(0),
            tour: None,
            wanted: Some(wanted),
            again: None,
            filter: Filtering::Idle,
            surveyed: 0,
            clock: now.unix - seconds(now.ms),
            refused: Trouble::default(),
            rests_until: 0,
            control: None,
            place,
            region,
            books,
        };
        // An instance that is gone may not have carried out all.
        if !janitor
            .place
            .pending()
            .is_ok_and(|purges| purges.is_empty())
        {
            janitor.want(Scope::All);
        }
        if opened != Opened::Empty && !janitor.region.filter().is_ready() {
            janitor.fill_filter();
        }
        if let Opened::Complete { .. } = opened {
            janitor.limits.settle();
            janitor.region.filter().set_ready();
        }
        janitor.look_at_disk();
        janitor.books.begin();
        janitor
    }

    fn work(&mut self, channel: &Channel) -> End {
        loop {
            self.books.now = Now::read();
            // First of all: what the limit is must be known before anything is removed for it.
            if self.now().ms >= self.surveyed + SURVEY_MS {
                if !self.place.is_there() {
                    return End::Moved;
                }
                self.survey();
            }
            let is_busy = self.pass();
            let pause = match (&self.tour, is_busy) {
                (Some(_), _) => 0,
                (None, true) => BUSY_MS,
                (None, false) => QUIET_MS,
            };
            if let Some(end) = listen(channel, pause) {
                return end;
            }
        }
    }

    fn now(&self) -> Now {
        self.books.now
    }

    /// Everything that may be due, each for a moment. Whether there will soon be more.
    fn pass(&mut self) -> bool {
        let drained = self.books.drain();
        let Heard { waiting, put } = match &self.control {
            Some(control) => control.hear(&mut self.books),
            None => Heard::default(),
        };
        for name in self.books.take_unknown() {
            self.look_for(&name, false);
        }
        for (names, reserved) in put {
            names.iter().for_each(|name| self.look_for(name, true));
            // The books have counted what is there.
            self.region.space().release(reserved);
            if let Some(control) = &self.control {
                control.board().settled(reserved);
            }
        }
        let removed = self.make_room();
        self.heed_purges();
        self.go_on_with_tour();
        self.books.commit(!waiting.is_empty());
        control::answer(waiting);
        if self.books.take_wants_tour() {
            self.want(Scope::All);
        }
        drained > 0 || removed
    }

    /// `is_renewed`: its file is another one than the books may know.
    fn look_for(&mut self, name: &Name, is_renewed: bool) {
        let (place, region) = (&self.place, &self.region);
        let taken = tour::look_for(place, name, &mut self.books, region, is_renewed);
        if let Some(control) = &self.control {
            control.board().count_purged(taken);
        }
    }

    // === room

    /// Removes what must go; whether anything was.
    fn make_room(&mut self) -> bool {
        let space = self.region.space();
        let used = space.used();
        if used <= self.bounds.high || self.now().ms < self.rests_until {
            return false;
        }
        let sketch = self.region.sketch();
        let wanted = used - self.bounds.low;
        let choice = evict::choose(&self.books.ledger, wanted, |hash| sketch.estimate(hash));
        space.set_floor(choice.floor);
        let mut removed = false;
        for name in choice.victims.iter().take(VICTIMS_AT_ONCE) {
            match self.evict(name) {
                Ok(is_gone) => removed |= is_gone,
                Err(error) => {
                    self.rests_until = self.now().ms + REFUSED_MS;
                    let path = self.place.path().display();
                    self.refused
                        .begins(format_args!("nothing can be removed from {path}: {error}"));
                    return false;
                }
            }
        }
        let path = self.place.path().display();
        self.refused
            .ends(format_args!("files can be removed from {path} again"));
        removed
    }

    /// Whether it is gone.
    fn evict(&mut self, name: &Name) -> std::io::Result<bool> {
        // One that an earlier one has taken along.
        let Some(entry) = self.books.ledger.get(name) else {
            return Ok(true);
        };
        let now = self.now();
        let Some(gone) = victim::remove(&self.place, entry, now.unix)? else {
            // The next choice is another one.
            self.books.ledger.touch(name, now.moment());
            return Ok(false);
        };
        gone.iter().for_each(|name| self.books.evicted(name));
        self.count(Counter::CacheEvicted, 1);
        Ok(true)
    }

    // === tours

    fn go_on_with_tour(&mut self) {
        if self.tour.is_none() {
            self.tour = self
                .wanted
                .take()
                .map(|scope| Tour::new(scope, &mut self.books, &self.region));
        }
        let Some(tour) = &mut self.tour else {
            return;
        };
        let deadline = monotonic_ms() + TOUR_MS;
        let has_ended = tour.go_on(&self.place, &mut self.books, &self.region, deadline);
        let board = self.control.as_ref().map(Control::board);
        if let Some(board) = board
            && tour.is_of_all()
        {
            board.set_remaining(tour.remaining());
        }
        if let Some(board) = board {
            board.count_purged(tour.take_purged());
        }
        if !has_ended {
            return;
        }
        if tour.has_left_young() {
            self.again = Some((self.books.now.ms + YOUNG_MS, tour.began_at()));
        }
        let removed = tour.removed();
        let was_of_all = tour.is_of_all();
        self.tour = None;
        self.count(Counter::CacheSwept, removed);
        self.books.commit(true);
        if was_of_all {
            if let Some(board) = board {
                board.set_remaining(0);
                self.forget_purges(board);
                board.set_swept(self.generation);
            }
            self.limits.settle();
            if !self.region.filter().is_ready() {
                self.fill_filter();
                self.region.filter().set_ready();
            }
        }
    }

    /// Another tour, or a wider one, when this one is over.
    fn want(&mut self, scope: Scope) {
        self.wanted = Some(match (self.wanted, scope) {
            (Some(Scope::All), _) | (_, Scope::All) => Scope::All,
            (Some(Scope::Since(one)), Scope::Since(other)) => Scope::Since(one.min(other)),
            (None, scope) => scope,
        });
    }

    // === what changes slowly

    fn survey(&mut self) {
        self.surveyed = self.now().ms;
        let clock = self.now().unix - seconds(self.now().ms);
        let clock_stepped = (clock - self.clock).abs() > CLOCK_STEP;
        self.clock = clock;
        self.look_at_workers(clock_stepped);
        self.look_at_disk();
        self.look_at_generation();
        self.books.look_after_catalogue();
        if self.books.take_lost() {
            self.want(Scope::All);
        }
        if let Some((_, since)) = self.again.take_if(|(at, _)| *at <= self.surveyed) {
            self.want(Scope::Since(since));
        }
        if self.tour.is_none() {
            let board = self.control.as_ref().map(Control::board);
            self.books.reconcile(board.map_or(0, Board::in_flight));
        }
        if evict::is_time_to_halve(self.region.sketch().touches(), self.books.ledger.len()) {
            self.region.sketch().halve();
            self.region
                .space()
                .set_floor(self.region.space().floor() / 2);
        }
        self.renew_filter();
        match aside::sweep(&self.place, &self.region) {
            Ok(removed) => self.count(Counter::CacheSwept, removed as usize),
            Err(error) => log::debug!("files being written cannot be listed: {error}"),
        }
    }

    /// A worker that died may have put files in their place and not have told.
    fn look_at_workers(&mut self, clock_stepped: bool) {
        let mut died = false;
        for (worker, known) in self.owners.iter_mut().enumerate() {
            let owner = self.region.space_row(worker).owner();
            if *known != 0 && (owner != *known || !aside::is_alive(owner)) {
                died = true;
                *known = 0;
            }
            if owner != 0 && aside::is_alive(owner) {
                *known = owner;
            }
        }
        if died {
            self.want(match clock_stepped {
                true => Scope::All,
                false => Scope::Since(self.now().unix - BEFORE_DEATH),
            });
        }
    }

    fn look_at_disk(&mut self) {
        let overhead = self.books.overhead();
        match publish_limit(&self.place, &self.region, &mut self.limits, overhead) {
            Ok(bounds) => self.bounds = bounds,
            Err(error) => log::debug!("the free space cannot be told: {error}"),
        }
    }

    /// The number is in its file as well.
    fn look_at_generation(&mut self) {
        let generation = self.region.space().generation();
        // A worker may have raised it because the disk refused to remove something.
        if self
            .place
            .generation()
            .is_ok_and(|known| known < generation)
            && let Err(error) = self.place.set_generation(generation)
        {
            log::debug!("the generation cannot be written down: {error}");
        }
        self.heed_purges();
    }

    /// The files of what has been purged go.
    fn heed_purges(&mut self) {
        let generation = self.region.space().generation();
        if generation == self.generation {
            return;
        }
        if !purged::counts(self.generation, generation) {
            self.books.drain();
            self.books.forget_all();
        }
        self.generation = generation;
        self.want(Scope::All);
        // One that goes on has seen files that are dead now.
        self.tour = None;
    }

    /// Purges of which all files have been looked at need not be known any more.
    fn forget_purges(&self, board: &Board) {
        let _alone = board.purge_alone();
        let forgotten = self.place.pending().and_then(|mut pending| {
            let before = pending.len();
            pending.retain(|purge| purge.generation > self.generation);
            match pending.len() == before {
                true => Ok(()),
                false => self.place.set_pending(&pending),
            }
        });
        if let Err(error) = forgotten {
            log::debug!("what has been purged cannot be written down: {error}");
        }
    }

    // === the filter

    fn fill_filter(&mut self) {
        let filter = self.region.filter();
        self.books
            .ledger
            .iter()
            .for_each(|entry| filter.add(&entry.name));
    }

    /// Forgets names that have gone, when there are many.
    fn renew_filter(&mut self) {
        let filter = self.region.filter();
        match self.filter {
            Filtering::Idle => {
                let ledger = &self.books.ledger;
                if filter.is_ready() && self.books.added > ledger.len() * 2 + 100_000 {
                    filter.begin_anew();
                    ledger.iter().for_each(|entry| filter.add_anew(&entry.name));
                    self.books.added = 0;
                    self.filter = Filtering::Turning(self.now().ms + FILTER_MS);
                }
            }
            Filtering::Turning(at) if at <= self.now().ms => {
                filter.turn();
                self.filter = Filtering::Idle;
            }
            Filtering::Turning(_) => {}
        }
    }

    fn count(&self, counter: Counter, n: usize) {
        self.region.janitor_counters().add(counter, n as u64);
    }

    fn close(mut self, complete: bool) {
        self.books.now = Now::read();
        // What a tour has not seen yet may not be as the catalogue says.
        let complete = complete && self.tour.is_none() && self.wanted.is_none();
        self.books.close(complete);
    }
}

/// Tells the workers how much there may be. `overhead`: octets that the catalogue takes.
fn publish_limit(
    place: &Place,
    region: &Region,
    limits: &mut Limits,
    overhead: u64,
) -> std::io::Result<Bounds> {
    let (free, size) = place.free_space()?;
    let space = region.space();
    let bounds = Bounds::of(limits.limit(space.used(), overhead, free, size));
    space.set_limit(bounds.limit, bounds.tight);
    Ok(bounds)
}

fn seconds(ms: u64) -> i64 {
    (ms / 1000).cast_signed()
}

/// Waits for the master's word, at most `pause` milliseconds.
fn listen(channel: &Channel, pause: u16) -> Option<End> {
    let mut sources = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
    let _ = poll(&mut sources, PollTimeout::from(pause));
    loop {
        match channel.recv::<ToWorker>() {
            Ok(Received::Message {
                message: ToWorker::Reopen,
                ..
            }) => crate::log::reopen(),
            Ok(Received::Message {
                message: ToWorker::Stop | ToWorker::Drain,
                ..
            }) => return Some(End::Told),
            Ok(Received::Message { .. }) => log::error!("a message from the master is disregarded"),
            Ok(Received::Nothing) => return None,
            Ok(Received::End) => return Some(End::Orphaned),
            Err(error) => {
                log::error!("the master's message cannot be used: {error}");
                return Some(End::Orphaned);
            }
        }
    }
}
