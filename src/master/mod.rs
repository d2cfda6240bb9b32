//! The master: the one process that accepts, and the only parent. It holds every client that waits.
//!
//! It carries out what `dispatch` decides, on one thread with one level-triggered epoll set, and never blocks: what
//! a full channel does not take stays in its hands. It parses nothing that comes from the network; the only
//! answer it ever gives is one constant 503. `roles` runs it.

mod carry;
mod children;
mod connections;
mod control;
mod janitor;
mod listeners;
mod receive;

use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::Context;

use crate::config::{Config, Launch, StoreKind};
use crate::dispatch::{Action, Dispatch, Event, Load, Settings};
use crate::ipc::MAX_DESCRIPTORS;
use crate::shared::{Counter, OfferState, Region};
use crate::sys::clock::monotonic_ms;
use crate::sys::epoll::{Epoll, Interest, Ready};
use crate::sys::limits;
use crate::sys::memory::sealed_file;
use crate::sys::signal::Signals;
use children::Children;
use connections::Connections;
use control::Control;
use janitor::Janitor;
use listeners::Listeners;

/// Events taken from the kernel at once.
const BATCH: usize = 256;

/// Descriptors that are open now and then: for starting a child, for a log being opened again, for `/dev/null`;
/// and the channel of the janitor.
const SPARE_DESCRIPTORS: usize = 20;

/// Descriptors a worker costs for good or while it is started.
const DESCRIPTORS_A_WORKER: usize = 4;

/// Sockets on their way back from one worker, at most, for which descriptors are kept.
const BACKLOG_A_WORKER: usize = 2 * MAX_DESCRIPTORS;

/// The process's own counters come first in shared memory.
const MASTER: usize = 0;

struct Master {
    launch: Launch,
    mind: Dispatch,
    /// What the mind wants done and has not been done yet.
    actions: Vec<Action>,
    /// Offers decided on and not yet sent, by worker.
    offers: Vec<Vec<children::Pending>>,
    loads: Vec<Load>,
    epoll: Epoll,
    control: Control,
    listeners: Listeners,
    children: Children,
    /// None: nothing is kept.
    janitor: Option<Janitor>,
    connections: Connections,
    region: Region,
    /// When this pass of the loop began.
    now: u64,
    /// Descriptors that a message from a worker may bring.
    room_to_receive: usize,
    /// When it was last said that accepting pauses.
    pause_said: Option<u64>,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Running,
    /// A worker cannot be started; the others are being stopped.
    Failing,
    Over(u8),
}

/// What an epoll token names. Connections use the numbers below the highest bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Connection(u64),
    Child(usize),
    Janitor,
    Listener(usize),
    Signals,
}

/// Runs the master until it is told to stop.
pub fn run(launch: Launch) -> anyhow::Result<ExitCode> {
    // Before anything else, so that no signal falls between two stools.
    let signals = Signals::block().context("signals cannot be blocked")?;
    crate::log::init("master", &launch.config.log)?;
    let limit = limits::raise_descriptors().context("the limit of descriptors cannot be raised")?;
    let janitor = Janitor::prepare(&launch)?;
    let listeners = Listeners::bind(&launch.config.listeners)?;
    let mut master = Master::new(
        launch,
        janitor,
        listeners,
        signals,
        usize::try_from(limit).unwrap_or(usize::MAX),
    )?;
    let code = master.serve()?;
    log::info!(
        "the master ends; since its start: {}",
        master.region.totals()
    );
    Ok(ExitCode::from(code))
}

// === impl Master ===

impl Master {
    fn new(
        mut launch: Launch,
        mut janitor: Option<Janitor>,
        listeners: Listeners,
        signals: Signals,
        limit: usize,
    ) -> anyhow::Result<Master> {
        launch.addresses = listeners.addresses();
        let config = &launch.config;
        let workers = config.workers;
        let (region, region_fd) = Region::create(workers).context("shared memory cannot be had")?;
        if let Some(janitor) = &mut janitor {
            janitor
                .introduce(&launch.addresses)
                .and_then(|()| janitor.publish(&region))
                .context("the cache directory cannot be used")?;
        }
        let json =
            serde_json::to_vec(&launch).context("the configuration cannot be handed over")?;
        let launch_fd = sealed_file("baton-launch", &json)
            .context("the configuration cannot be handed over")?;
        let epoll = Epoll::new(BATCH).context("epoll cannot be had")?;
        let control = Control::new(signals);
        epoll
            .add(control.signals(), Source::Signals.into(), Interest::Read)
            .context("signals cannot be watched")?;
        let open = limits::open_descriptors().context("open descriptors cannot be counted")?;
        let settings = settings(config, limit, limit.saturating_sub(open));
        Ok(Master {
            room_to_receive: settings.reserve.min(MAX_DESCRIPTORS),
            mind: Dispatch::new(settings),
            actions: Vec::new(),
            offers: vec![Vec::new(); workers],
            loads: vec![Load::default(); workers],
            epoll,
            control,
            listeners,
            children: Children::new(workers, launch_fd, region_fd),
            janitor,
            connections: Connections::new(),
            region,
            now: monotonic_ms(),
            pause_said: None,
            outcome: Outcome::Running,
            launch,
        })
    }

    /// The loop: wait, tell the mind what happened, do what it wants.
    fn serve(&mut self) -> anyhow::Result<u8> {
        let mut ready = Vec::with_capacity(BATCH);
        // First, so that there is a limit when the first response could be stored.
        self.look_after_janitor();
        self.mind.start(self.now, &mut self.actions);
        self.carry_out();
        loop {
            if let Outcome::Over(code) = self.outcome {
                self.dismiss_janitor();
                return Ok(code);
            }
            let now = monotonic_ms();
            let wake = self.mind.next_wake(now).min(self.janitor_wake());
            let timeout = wake.saturating_sub(now);
            self.epoll
                .wait(Some(timeout), &mut ready)
                .context("epoll fails")?;
            self.now = monotonic_ms();
            for event in ready.drain(..) {
                self.happened(event);
            }
            self.look_after_children();
            self.look_after_janitor();
            self.look_at_rings();
            self.read_loads();
            self.mind.pass(&self.loads, self.now, &mut self.actions);
            self.carry_out();
        }
    }

    fn happened(&mut self, ready: Ready) {
        match Source::from(ready.token) {
            Source::Connection(number) => self.parked_is_ready(number.into(), ready),
            Source::Child(worker) => {
                if ready.write {
                    self.channel_is_writable(worker);
                }
                if ready.read || ready.hang_up {
                    self.receive(worker);
                }
            }
            Source::Janitor => self.hear_janitor(),
            Source::Listener(listener) => self.accept(listener),
            Source::Signals => self.obey_signals(),
        }
    }

    /// Tells the mind, and does what it wants at once.
    fn tell(&mut self, event: Event) {
        self.mind.on(event, self.now, &mut self.actions);
        self.carry_out();
    }

    fn look_at_rings(&mut self) {
        for worker in 0..self.loads.len() {
            self.look_at_ring(worker);
        }
    }

    /// Lets go of what a worker has claimed.
    fn look_at_ring(&mut self, worker: usize) {
        let ring = self.region.ring(worker);
        let claimed: Vec<u64> = self
            .mind
            .open_offers(worker)
            .filter(|seq| ring.state(*seq) == OfferState::Claimed)
            .collect();
        for seq in claimed {
            self.mind
                .on(Event::Claimed { worker, seq }, self.now, &mut self.actions);
        }
        self.carry_out();
    }

    fn read_loads(&mut self) {
        for (worker, load) in self.loads.iter_mut().enumerate() {
            let row = self.region.load(worker);
            *load = Load {
                // Nothing comes from the future; a worker that says so is not fresh for ever.
                heartbeat_ms: row.heartbeat.load(Relaxed).min(self.now),
                active: row.active.load(Relaxed),
                held: row.held.load(Relaxed),
                busy: row.busy.load(Relaxed),
            };
        }
    }

    fn count(&self, counter: Counter) {
        self.region.counters(MASTER).add(counter, 1);
    }
}

/// `limit`: descriptors that each process may have open; `free`: how many the master has left.
fn settings(config: &Config, limit: usize, free: usize) -> Settings {
    // A worker has the same limit, and a request needs two: the client's and the origin server's.
    let room = (limit.saturating_sub(SPARE_DESCRIPTORS) / 2).max(4);
    let fixed = SPARE_DESCRIPTORS + config.workers * DESCRIPTORS_A_WORKER;
    let descriptors = free.saturating_sub(fixed).max(4);
    let millis =
        |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Settings {
        workers: config.workers,
        priorities: config
            .listeners
            .iter()
            .map(|listener| listener.priority)
            .collect(),
        queue_capacity: config.queue.capacity,
        ageing_ms: millis(config.queue.ageing),
        idle_timeout_ms: millis(config.client.idle_timeout),
        max_active: u32::try_from(config.worker.max_active.min(room)).unwrap_or(u32::MAX),
        shutdown_timeout_ms: millis(config.shutdown_timeout),
        descriptors,
        reserve: (config.workers * BACKLOG_A_WORKER).min(descriptors / 4),
    }
}

/// What follows the addresses in the line that says that baton serves.
fn summary(config: &Config) -> String {
    let workers = if config.workers == 1 {
        "1 worker".to_owned()
    } else {
        format!("{} workers", config.workers)
    };
    let store = match (config.cache.store, &config.cache.directory) {
        (StoreKind::Directory, Some(path)) => path.display().to_string(),
        (StoreKind::Directory | StoreKind::Memory, _) => "memory".to_owned(),
        (StoreKind::Off, _) => "off".to_owned(),
        (StoreKind::Postgres, _) => config.postgres.shown(),
    };
    format!("{workers}, cache {store}")
}

// === impl Source ===

const NOT_A_CONNECTION: u64 = 1 << 63;
const CHILD: u64 = NOT_A_CONNECTION;
const LISTENER: u64 = NOT_A_CONNECTION | 1 << 32;
const SIGNALS: u64 = NOT_A_CONNECTION | 2 << 32;
const JANITOR: u64 = NOT_A_CONNECTION | 3 << 32;

impl From<Source> for u64 {
    fn from(source: Source) -> u64 {
        match source {
            Source::Connection(number) => number,
            Source::Child(worker) => CHILD | worker as u64,
            Source::Janitor => JANITOR,
            Source::Listener(index) => LISTENER | index as u64,
            Source::Signals => SIGNALS,
        }
    }
}

impl From<u64> for Source {
    fn from(token: u64) -> Source {
        let index = (token & 0xffff_ffff) as usize;
        match token & !0xffff_ffff {
            CHILD => Source::Child(index),
            JANITOR => Source::Janitor,
            LISTENER => Source::Listener(index),
            SIGNALS => Source::Signals,
            _ => Source::Connection(token),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_their_source() {
        for source in [
            Source::Connection(0),
            Source::Connection(u64::MAX >> 1),
            Source::Child(0),
            Source::Child(1023),
            Source::Janitor,
            Source::Listener(7),
            Source::Signals,
        ] {
            assert_eq!(Source::from(u64::from(source)), source);
        }
    }
}
