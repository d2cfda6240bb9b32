//! The children as processes: started, spoken to without ever waiting, ended and reaped.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::connections::Connections;
use super::{Master, Source};
use crate::dispatch::{Dispatch, Event, Retry, Token};
use crate::ipc::{Channel, MAX_PARTS, Offer, SendError, ToWorker};
use crate::shared::{Counter, OfferState};
use crate::sys::epoll::Interest;
use crate::sys::fd::seqpacket_pair;
use crate::sys::spawn::{self, Exit, Pid};
use crate::wire::frames;

/// Offers in one message.
const OFFERS_A_MESSAGE: usize = 16;

/// Messages that may wait for room in a worker's channel, before strangers are turned away.
const UNSENT: usize = 64;

/// How long a worker may live on after it has closed its channel.
const SPEECHLESS_MS: u64 = 1_000;

/// An offer that has been decided on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) seq: u64,
    pub(super) token: Token,
}

pub(super) struct Child {
    pub(super) pid: Pid,
    pub(super) channel: Channel,
    /// Messages that its channel had no room for.
    unsent: VecDeque<(ToWorker, Option<OwnedFd>)>,
    /// Something waits for room in the channel.
    wants_writable: bool,
    /// There is no descriptor left for what it sends.
    pub(super) deaf: bool,
    /// Since when its end of the channel has been closed, or what came out of it was nonsense.
    pub(super) closed_at: Option<u64>,
}

pub(super) struct Children {
    /// By worker.
    children: Vec<Option<Child>>,
    /// What every worker gets with its first message.
    launch: OwnedFd,
    region: OwnedFd,
}

// === impl Children ===

impl Children {
    pub(super) fn new(workers: usize, launch: OwnedFd, region: OwnedFd) -> Children {
        let children = std::iter::repeat_with(|| None).take(workers).collect();
        Children {
            children,
            launch,
            region,
        }
    }

    pub(super) fn get(&self, worker: usize) -> Option<&Child> {
        self.children.get(worker)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, worker: usize) -> Option<&mut Child> {
        self.children.get_mut(worker)?.as_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.children.len()
    }

    /// Starts the janitor with what every child gets.
    pub(super) fn start_janitor(&self) -> io::Result<(Pid, Channel)> {
        let (near, far) = seqpacket_pair()?;
        let pid = spawn::spawn("baton: janitor", far)?;
        let channel = Channel::new(near);
        let start = ToWorker::Start {
            worker: 0,
            workers: narrow(self.children.len()),
        };
        if let Err(error) =
            channel.send_borrowed(&start, &[self.launch.as_fd(), self.region.as_fd()])
        {
            log::error!("the janitor (pid {pid}) cannot be told to start: {error}");
            spawn::kill(pid)?;
        }
        Ok((pid, channel))
    }

    fn start(&mut self, worker: usize) -> io::Result<&Child> {
        let (near, far) = seqpacket_pair()?;
        let pid = spawn::spawn(&format!("baton: worker {worker}"), far)?;
        let child = Child {
            pid,
            channel: Channel::new(near),
            unsent: VecDeque::new(),
            wants_writable: false,
            deaf: false,
            closed_at: None,
        };
        let start = ToWorker::Start {
            worker: narrow(worker),
            workers: narrow(self.children.len()),
        };
        if let Err(error) = child
            .channel
            .send_borrowed(&start, &[self.launch.as_fd(), self.region.as_fd()])
        {
            // It cannot do anything without; its death will be told like any other.
            log::error!("worker {worker} (pid {pid}) cannot be told to start: {error}");
            spawn::kill(pid)?;
        }
        Ok(self.children[worker].insert(child))
    }
}

/// There are at most 1024 workers.
fn narrow(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

// === impl Child ===

impl Child {
    fn interest(&self) -> Interest {
        match (self.deaf, self.wants_writable) {
            (true, _) => Interest::Quiet,
            (false, false) => Interest::Read,
            (false, true) => Interest::ReadWrite,
        }
    }
}

// === impl Master ===

impl Master {
    pub(super) fn spawn(&mut self, worker: usize) {
        let started = self.children.start(worker).and_then(|child| {
            self.epoll.add(
                child.channel.as_fd(),
                Source::Child(worker).into(),
                Interest::Read,
            )?;
            Ok(child.pid)
        });
        match started {
            Ok(pid) => log::info!("worker {worker} (pid {pid}) started"),
            Err(error) => {
                log::error!("worker {worker} cannot be started: {error}");
                match self.children.get(worker) {
                    // It runs and cannot be listened to.
                    Some(child) => kill_process(worker, child.pid),
                    None => {
                        self.mind
                            .on(Event::SpawnFailed { worker }, self.now, &mut self.actions)
                    }
                }
            }
        }
    }

    pub(super) fn kill(&self, worker: usize) {
        if let Some(child) = self.children.get(worker) {
            kill_process(worker, child.pid);
        }
    }

    /// Sends a message that carries no descriptor, now or when there is room.
    pub(super) fn say(&mut self, worker: usize, message: ToWorker) {
        let Some(child) = self.children.get_mut(worker) else {
            return;
        };
        child.unsent.push_back((message, None));
        self.say_rest(worker);
    }

    /// Passes on one end of a stream whose other end another process has. Where there is no worker, it is closed.
    pub(super) fn introduce(&mut self, worker: usize, stream: OwnedFd) {
        match self.children.get_mut(worker) {
            Some(child) if child.unsent.len() < UNSENT => {
                child.unsent.push_back((ToWorker::Introduced, Some(stream)));
                self.say_rest(worker);
            }
            Some(_) => frames::turn_away(stream),
            None => {}
        }
    }

    fn say_rest(&mut self, worker: usize) {
        let Some(child) = self.children.get_mut(worker) else {
            return;
        };
        while let Some((message, stream)) = child.unsent.front() {
            let stream: Vec<BorrowedFd<'_>> = stream.iter().map(AsFd::as_fd).collect();
            match child.channel.send_borrowed(message, &stream) {
                Ok(()) => {
                    child.unsent.pop_front();
                }
                Err(SendError::WouldBlock | SendError::TooManyInFlight) => {
                    child.wants_writable = true;
                    break;
                }
                // Its death is being told, or will be.
                Err(error) => {
                    log::debug!("worker {worker} does not hear: {error}");
                    child.unsent.clear();
                }
            }
        }
        self.set_interest(worker);
    }

    pub(super) fn channel_is_writable(&mut self, worker: usize) {
        let Some(child) = self.children.get_mut(worker) else {
            return;
        };
        child.wants_writable = false;
        self.say_rest(worker);
        self.tell(Event::Writable { worker });
    }

    pub(super) fn set_interest(&self, worker: usize) {
        if let Some(child) = self
            .children
            .get(worker)
            .filter(|child| child.closed_at.is_none())
        {
            let token = Source::Child(worker).into();
            if let Err(error) = self
                .epoll
                .modify(child.channel.as_fd(), token, child.interest())
            {
                log::error!("the channel of worker {worker} cannot be watched: {error}");
            }
        }
    }

    /// Sends the offers that have been decided on, several a message.
    pub(super) fn send_offers(&mut self) {
        for worker in 0..self.offers.len() {
            if self.offers[worker].is_empty() {
                continue;
            }
            let offers = std::mem::take(&mut self.offers[worker]);
            let mut rest = offers.as_slice();
            while !rest.is_empty() {
                let count = fitting(rest, &self.connections);
                let (now, later) = rest.split_at(count);
                match self.send_some_offers(worker, now) {
                    Ok(()) => rest = later,
                    Err(retry) => {
                        self.take_back(worker, rest, retry);
                        break;
                    }
                }
            }
            self.offers[worker] = offers;
            self.offers[worker].clear();
        }
    }

    fn send_some_offers(&mut self, worker: usize, offers: &[Pending]) -> Result<(), Retry> {
        let Some(child) = self.children.get(worker) else {
            return Err(Retry::Writable);
        };
        let (message, sockets) = message(offers, &self.mind, &self.connections);
        let ring = self.region.ring(worker);
        // The entry is up before the message can arrive.
        offers.iter().for_each(|offer| ring.offer(offer.seq));
        let sent = child.channel.send_borrowed(&message, &sockets);
        let retry = match sent {
            Ok(()) => {
                self.region
                    .counters(super::MASTER)
                    .add(Counter::Offered, offers.len() as u64);
                return Ok(());
            }
            Err(SendError::WouldBlock) => Retry::Writable,
            // Its death will be told soon; nothing more goes out until then.
            Err(SendError::PeerGone) => return Err(Retry::Writable),
            Err(SendError::TooManyInFlight) => Retry::Later,
            Err(error) => {
                log::error!("worker {worker} cannot be offered sockets: {error}");
                Retry::Later
            }
        };
        if retry == Retry::Writable {
            if let Some(child) = self.children.get_mut(worker) {
                child.wants_writable = true;
            }
            self.set_interest(worker);
        }
        Err(retry)
    }

    /// The offers did not leave; the ring must not say otherwise.
    fn take_back(&mut self, worker: usize, offers: &[Pending], retry: Retry) {
        for &Pending { seq, .. } in offers {
            let ring = self.region.ring(worker);
            let claimed = !ring.revoke(seq) && ring.state(seq) == OfferState::Claimed;
            let event = if claimed {
                Event::Claimed { worker, seq }
            } else {
                Event::Unsent { worker, seq, retry }
            };
            self.mind.on(event, self.now, &mut self.actions);
        }
    }

    /// Ends workers that live on without a channel, and listens again to those there is room for now.
    pub(super) fn look_after_children(&mut self) {
        for worker in 0..self.children.len() {
            let Some(child) = self.children.get_mut(worker) else {
                continue;
            };
            if child
                .closed_at
                .is_some_and(|at| self.now >= at + SPEECHLESS_MS)
                && !self.mind.is_stopping()
            {
                self.tell(Event::Misbehaved { worker });
            } else if child.deaf && self.mind.room() >= self.room_to_receive {
                child.deaf = false;
                self.set_interest(worker);
            }
        }
    }

    /// Finds out who has ended.
    pub(super) fn reap(&mut self) {
        for worker in 0..self.children.len() {
            let Some(child) = self.children.get(worker) else {
                continue;
            };
            match spawn::reap(child.pid) {
                Ok(None) => {}
                Ok(Some(exit)) => self.ended(worker, exit),
                Err(error) => log::error!(
                    "worker {worker} (pid {}) cannot be waited for: {error}",
                    child.pid
                ),
            }
        }
    }

    /// One worker is gone. Its last words are heard first, then its claims; only then is the mind told.
    fn ended(&mut self, worker: usize, exit: Exit) {
        self.receive_rest(worker);
        self.look_at_ring(worker);
        let Some(child) = self.children.children[worker].take() else {
            return;
        };
        if child.closed_at.is_none() {
            let _ = self.epoll.delete(child.channel.as_fd());
        }
        if self.mind.is_stopping() {
            log::info!("worker {worker} (pid {}) ended: {exit}", child.pid);
        } else {
            self.count(Counter::WorkerDeaths);
            log::warn!("worker {worker} (pid {}) died: {exit}", child.pid);
        }
        self.tell(Event::Died { worker });
    }
}

fn kill_process(worker: usize, pid: Pid) {
    if let Err(error) = spawn::kill(pid) {
        log::error!("worker {worker} (pid {pid}) cannot be killed: {error}");
    }
}

/// How many of the offers fit in one message; at least one.
fn fitting(offers: &[Pending], connections: &Connections) -> usize {
    let mut octets = 0;
    let fits = offers.iter().take(OFFERS_A_MESSAGE).take_while(|offer| {
        octets += Offer::OVERHEAD + connections.bytes(offer.token).len();
        octets <= MAX_PARTS
    });
    fits.count().max(1)
}

fn message<'a>(
    offers: &[Pending],
    mind: &Dispatch,
    connections: &'a Connections,
) -> (ToWorker, Vec<BorrowedFd<'a>>) {
    let mut parts = Vec::with_capacity(offers.len());
    let mut sockets = Vec::with_capacity(offers.len());
    for &Pending { seq, token } in offers {
        if let (Some(conn), Some(socket)) = (mind.conn(token), connections.socket(token)) {
            parts.push(Offer {
                seq,
                conn: *conn,
                bytes: connections.bytes(token).to_vec(),
            });
            sockets.push(socket);
        }
    }
    (ToWorker::Offers(parts), sockets)
}
