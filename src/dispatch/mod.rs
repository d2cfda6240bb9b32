//! The master's mind: who waits, who is served next, by which worker, and what becomes of the workers.
//!
//! Pure: events come in with the time, actions go out, and nothing here touches a socket or a clock. `Dispatch` is
//! told about connections by token; whoever carries the actions out keeps the sockets, and the octets that came
//! along, in a table by the same index. The master calls it; the simulation drives it through every race we know.
//!
//! A connection is in exactly one state: arriving, parked, queued or offered. It leaves by being claimed by a
//! worker, closed, or refused. While it is offered, only the offer ring says whose it is, so the master tells what
//! it saw there (`Claimed`, `Revoked`) before anything is decided about it.

mod conn;
mod event;
mod queue;
mod shutdown;
mod slab;
mod supervise;
mod worker;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use conn::{Conn, Peer};
pub use event::{Action, CloseReason, Event, KillReason, Load, Retry, Settings, Shutdown, Token};

use queue::{Place, Queue};
use shutdown::Stopping;
use slab::{Slab, State};
use worker::{Life, Worker};

/// How often the queue is looked at again while it waits for workers that are about to have room.
const QUEUE_WAKE_MS: u64 = 1;

/// How often open offers are looked at.
const OFFER_WAKE_MS: u64 = 10;

/// How often workers are looked at when nothing else happens.
const SUPERVISE_WAKE_MS: u64 = 5_000;

/// How long accepting rests after the kernel refused.
const ACCEPT_RETRY_MS: u64 = 100;

/// A worker above the first is passed over while another is below the second; permille.
const BUSY: u32 = 900;
const ROOMY: u32 = 700;

#[derive(Debug)]
pub struct Dispatch {
    settings: Settings,
    slab: Slab,
    queue: Queue,
    workers: Vec<Worker>,
    /// Where the search for a worker begins, so that ties go round.
    turn: usize,
    /// Identities given so far.
    last_id: u64,
    /// All workers have been ready once.
    serving: bool,
    accepting: Accepting,
    stopping: Option<Stopping>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    Yes,
    /// Until there is room, and not before this time.
    Paused {
        until: u64,
    },
}

// === impl Dispatch: what the master calls ===

impl Dispatch {
    #[must_use]
    pub fn new(settings: Settings) -> Dispatch {
        Dispatch {
            slab: Slab::new(),
            queue: Queue::new(settings.queue_capacity.max(1), settings.ageing_ms),
            workers: std::iter::repeat_with(Worker::new)
                .take(settings.workers)
                .collect(),
            turn: 0,
            last_id: 0,
            serving: false,
            accepting: Accepting::Yes,
            stopping: None,
            settings,
        }
    }

    /// Has every worker started.
    pub fn start(&mut self, now: u64, out: &mut Vec<Action>) {
        self.start_due(now, out);
    }

    /// Takes a connection in; its socket is to be kept under the token, and `Event::Arrived` must follow. A new one
    /// (id 0) gets its identity here.
    pub fn admit(&mut self, mut conn: Conn) -> Token {
        if conn.id == 0 {
            self.last_id += 1;
            conn.id = self.last_id;
        }
        self.slab.insert(conn)
    }

    /// Something has happened.
    pub fn on(&mut self, event: Event, now: u64, out: &mut Vec<Action>) {
        match event {
            Event::Arrived { token, ready } => self.arrived(token, ready, now, out),
            Event::Readable(token) => {
                if self.unpark(token, out) {
                    self.enqueue(token, now, out);
                }
            }
            Event::HungUp(token) => {
                if self.unpark(token, out) {
                    self.close(token, CloseReason::HungUp, out);
                }
            }
            Event::Claimed { worker, seq } => self.claimed(worker, seq, out),
            Event::Revoked { worker, seq } => self.taken_back(worker, seq),
            Event::Unsent { worker, seq, retry } => {
                self.taken_back(worker, seq);
                if let Some(worker) = self.workers.get_mut(worker) {
                    worker.close_outlet(retry, now);
                }
            }
            Event::Writable { worker } => {
                if let Some(worker) = self.workers.get_mut(worker) {
                    worker.writable();
                }
            }
            Event::Ready { worker } => self.ready(worker, now, out),
            Event::Misbehaved { worker } => self.kill(worker, KillReason::Misbehaved, out),
            Event::Died { worker } => self.died(worker, now, out),
            Event::SpawnFailed { worker } => self.spawn_failed(worker, now, out),
            Event::AcceptFailed => self.pause_accepting(now + ACCEPT_RETRY_MS, out),
            Event::Shutdown(how) => self.shut_down(how, now, out),
        }
    }

    /// Ends one pass of the loop: looks after the workers and the clock, and offers what can be offered. `loads` has
    /// an entry for each worker.
    pub fn pass(&mut self, loads: &[Load], now: u64, out: &mut Vec<Action>) {
        self.supervise(loads, now, out);
        self.start_due(now, out);
        self.close_idle(now, out);
        self.assign(loads, now, out);
        self.proceed_with_shutdown(now, out);
        self.resume_accepting(now, out);
    }

    /// When `pass` must be called again at the latest.
    #[must_use]
    pub fn next_wake(&self, now: u64) -> u64 {
        let open = self.workers.iter().any(|worker| !worker.open.is_empty());
        let soon = match (self.queue.is_empty(), open) {
            (false, _) if self.workers.iter().any(Worker::is_hopeful) => now + QUEUE_WAKE_MS,
            (false, _) | (true, true) => now + OFFER_WAKE_MS,
            (true, false) => now + SUPERVISE_WAKE_MS,
        };
        let workers = self.workers.iter().filter_map(Worker::due);
        let idle = self
            .slab
            .oldest_parked()
            .map(|(_, since)| since.saturating_add(self.settings.idle_timeout_ms));
        let accepting = match self.accepting {
            Accepting::Paused { until } if until > now => Some(until),
            _ => None,
        };
        let stopping = self.stopping.as_ref().and_then(Stopping::due);
        workers
            .chain(idle)
            .chain(accepting)
            .chain(stopping)
            .fold(soon, u64::min)
            .max(now)
    }

    /// Whether new connections may be accepted now.
    #[must_use]
    pub fn may_accept(&self) -> bool {
        self.serving && self.stopping.is_none() && self.accepting == Accepting::Yes
    }

    /// Closes connections that have been parked longest until `wanted` more descriptors fit; `false`: they do not.
    pub fn make_room(&mut self, wanted: usize, out: &mut Vec<Action>) -> bool {
        while self.room() < wanted {
            let Some((token, _)) = self.slab.oldest_parked() else {
                return false;
            };
            self.unpark(token, out);
            self.close(token, CloseReason::Room, out);
        }
        true
    }

    #[must_use]
    pub fn conn(&self, token: Token) -> Option<&Conn> {
        self.slab.get(token).map(|slot| &slot.conn)
    }

    /// Connections whose sockets the master holds.
    #[must_use]
    pub fn held(&self) -> usize {
        self.slab.len()
    }

    #[must_use]
    pub fn parked(&self) -> usize {
        self.slab.parked()
    }

    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Sequences of the offers that a worker has not been seen to claim.
    pub fn open_offers(&self, worker: usize) -> impl Iterator<Item = u64> {
        self.workers
            .get(worker)
            .into_iter()
            .flat_map(|worker| worker.open.iter().map(|offer| offer.seq))
    }

    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.serving
    }

    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Every connection is where its state says, and nowhere else.
    ///
    /// # Panics
    /// When that is not so.
    pub fn check_invariants(&self) {
        self.slab.check_invariants();
        let (mut queued, mut offered) = (0, 0);
        for (token, slot) in self.slab.iter() {
            match slot.state {
                State::Queued => {
                    queued += 1;
                    assert!(
                        self.queue.contains(&self.place(token)),
                        "a queued connection has its place"
                    );
                }
                State::Offered { worker } => {
                    offered += 1;
                    let open = &self.workers[usize::from(worker)].open;
                    assert_eq!(open.iter().filter(|offer| offer.token == token).count(), 1);
                }
                State::Free | State::Arriving | State::Parked => {}
            }
        }
        assert_eq!(queued, self.queue.len(), "nothing else is queued");
        assert_eq!(
            offered,
            self.workers
                .iter()
                .map(|worker| worker.open.len())
                .sum::<usize>()
        );
        for worker in &self.workers {
            assert!(worker.open.len() <= worker::CREDIT);
            let dead = matches!(worker.life, Life::Down { .. } | Life::Gone);
            assert!(
                !dead || worker.open.is_empty(),
                "nothing is offered to the dead"
            );
        }
    }
}

// === impl Dispatch: connections ===

impl Dispatch {
    fn arrived(&mut self, token: Token, ready: bool, now: u64, out: &mut Vec<Action>) {
        if self
            .slab
            .get(token)
            .is_none_or(|slot| slot.state != State::Arriving)
        {
            return;
        }
        if ready {
            self.enqueue(token, now, out);
        } else if self.stopping.is_some() {
            self.close(token, CloseReason::Stopping, out);
        } else {
            self.slab.park(token, now);
            out.push(Action::Watch(token));
        }
        if self.room() <= self.settings.reserve {
            self.pause_accepting(now, out);
        }
    }

    fn enqueue(&mut self, token: Token, now: u64, out: &mut Vec<Action>) {
        if self
            .stopping
            .as_ref()
            .is_some_and(Stopping::is_past_serving)
        {
            self.refuse(token, out);
            return;
        }
        let Some(slot) = self.slab.get_mut(token) else {
            return;
        };
        slot.since_ms = now;
        slot.state = State::Queued;
        if let Some(worst) = self.queue.push(self.place(token)) {
            self.refuse(worst, out);
        }
    }

    /// Where a connection stands in the queue; the same whenever it is asked.
    fn place(&self, token: Token) -> Place {
        let (id, since, listener) = self.slab.get(token).map_or((0, 0, 0), |slot| {
            (slot.conn.id, slot.since_ms, slot.conn.listener)
        });
        let priority = self
            .settings
            .priorities
            .get(usize::from(listener))
            .copied()
            .unwrap_or(0);
        self.queue.place(token, id, since, priority)
    }

    /// Offers the queue's connections, as long as a worker has room for one.
    fn assign(&mut self, loads: &[Load], now: u64, out: &mut Vec<Action>) {
        while !self.queue.is_empty() {
            let Some(worker) = self.choose(loads, now) else {
                return;
            };
            let Some(token) = self.queue.pop() else {
                return;
            };
            let Some(slot) = self.slab.get_mut(token) else {
                continue;
            };
            let waited = now.saturating_sub(slot.since_ms);
            slot.conn.queued_ms = u32::try_from(waited).unwrap_or(u32::MAX);
            slot.state = State::Offered {
                worker: worker as u16,
            };
            let seq = self.workers[worker].offer(token, now);
            out.push(Action::Offer { worker, seq, token });
        }
    }

    /// The worker with most room, of those that may get an offer.
    ///
    /// One whose heartbeat is old gets nothing while any other is fresh, even if those have no room for now: what
    /// it does not get it cannot delay. A busy one is passed over while another that has room is not.
    fn choose(&mut self, loads: &[Load], now: u64) -> Option<usize> {
        let count = self.workers.len();
        let load = |index: usize| loads.get(index).copied().unwrap_or_default();
        let any_fresh = (0..count).any(|index| self.workers[index].is_fresh(&load(index), now));
        let best = (0..count)
            .map(|step| (self.turn + step) % count)
            .filter(|&index| {
                let worker = &self.workers[index];
                worker.has_room(&load(index), self.settings.max_active)
                    && (!any_fresh || worker.is_fresh(&load(index), now))
            })
            .map(|index| {
                (
                    index,
                    u64::from(load(index).held) + self.workers[index].open.len() as u64,
                )
            });
        let roomy = best.clone().any(|(index, _)| load(index).busy < ROOMY);
        let chosen = best
            .filter(|&(index, _)| !roomy || load(index).busy <= BUSY)
            .min_by_key(|&(_, connections)| connections)
            .map(|(index, _)| index)?;
        self.turn = (chosen + 1) % count;
        Some(chosen)
    }

    fn claimed(&mut self, worker: usize, seq: u64, out: &mut Vec<Action>) {
        let Some(worker) = self.workers.get_mut(worker) else {
            return;
        };
        if let Some(token) = worker.settle(seq) {
            worker.claimed();
            out.push(Action::Release(token));
            self.slab.remove(token);
        }
    }

    /// An offer came to nothing: the connection goes back to where it stood in the queue.
    fn taken_back(&mut self, worker: usize, seq: u64) {
        if let Some(token) = self
            .workers
            .get_mut(worker)
            .and_then(|worker| worker.settle(seq))
        {
            self.queue_again(token);
        }
    }

    fn queue_again(&mut self, token: Token) {
        if let Some(slot) = self.slab.get_mut(token) {
            slot.state = State::Queued;
            self.queue.push_again(self.place(token));
        }
    }

    /// Takes a connection out of the idle list and has it watched no more; `false`: it was not parked.
    fn unpark(&mut self, token: Token, out: &mut Vec<Action>) -> bool {
        let was_parked = self.slab.unpark(token);
        if was_parked {
            out.push(Action::Unwatch(token));
        }
        was_parked
    }

    fn close_idle(&mut self, now: u64, out: &mut Vec<Action>) {
        while let Some((token, since)) = self.slab.oldest_parked() {
            if now < since.saturating_add(self.settings.idle_timeout_ms) {
                return;
            }
            self.unpark(token, out);
            self.close(token, CloseReason::Idle, out);
        }
    }

    fn close(&mut self, token: Token, reason: CloseReason, out: &mut Vec<Action>) {
        out.push(Action::Close(token, reason));
        self.slab.remove(token);
    }

    fn refuse(&mut self, token: Token, out: &mut Vec<Action>) {
        out.push(Action::Refuse(token));
        self.slab.remove(token);
    }
}

// === impl Dispatch: descriptors ===

impl Dispatch {
    /// Descriptors that are left for client sockets.
    #[must_use]
    pub fn room(&self) -> usize {
        self.settings.descriptors.saturating_sub(self.slab.len())
    }

    fn pause_accepting(&mut self, until: u64, out: &mut Vec<Action>) {
        if self.accepting == Accepting::Yes && self.serving && self.stopping.is_none() {
            self.accepting = Accepting::Paused { until };
            out.push(Action::PauseAccept);
        }
    }

    fn resume_accepting(&mut self, now: u64, out: &mut Vec<Action>) {
        let Accepting::Paused { until } = self.accepting else {
            return;
        };
        // A little more than what made it stop, so that it does not stop again at once.
        let enough = self.settings.reserve + self.settings.descriptors / 64;
        if now >= until && self.room() > enough && self.stopping.is_none() {
            self.accepting = Accepting::Yes;
            out.push(Action::ResumeAccept);
        }
    }
}
