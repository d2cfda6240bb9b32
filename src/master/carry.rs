//! Doing what the mind wants, one action after another.

use std::fmt;
use std::io::{self, Write};

use super::children::Pending;
use super::{Master, Outcome, summary};
use crate::dispatch::{Action, CloseReason, Event, Shutdown, Token};
use crate::ipc::ToWorker;
use crate::shared::{Counter, OfferState};
use crate::sys::epoll::Interest;

/// How often the log says that accepting pauses.
const PAUSE_SAID_MS: u64 = 10_000;

impl Master {
    /// Does what the mind wants, and what it wants because of that.
    pub(super) fn carry_out(&mut self) {
        let mut next = 0;
        loop {
            while let Some(action) = self.actions.get(next).copied() {
                next += 1;
                self.carry_out_one(action);
            }
            // Offers go out together; what does not get out gives the mind more to say.
            self.send_offers();
            if next == self.actions.len() {
                break;
            }
        }
        self.actions.clear();
    }

    fn carry_out_one(&mut self, action: Action) {
        match action {
            Action::Watch(token) => self.watch(token),
            Action::Unwatch(token) => {
                if let Some(socket) = self.connections.socket(token) {
                    let _ = self.epoll.delete(socket);
                }
            }
            Action::Offer { worker, seq, token } => {
                self.offers[worker].push(Pending { seq, token })
            }
            Action::Revoke { worker, seq } => self.revoke(worker, seq),
            Action::Release(token) => self.connections.let_go(token),
            Action::Close(token, reason) => {
                if reason == CloseReason::Idle {
                    self.count(Counter::IdleClosed);
                }
                self.connections.end(token);
            }
            Action::Refuse(token) => {
                if !self.mind.is_stopping() {
                    self.count(Counter::QueueOverflow);
                }
                self.connections.refuse(token);
            }
            Action::Spawn { worker } => self.spawn(worker),
            Action::Kill { worker, reason } => {
                log::warn!("worker {worker} is killed: {reason}");
                self.kill(worker);
            }
            Action::Bury { worker } => {
                self.region.ring(worker).reset();
                self.region.load(worker).reset();
                self.region.versions().bump_epoch();
                if let Ok(worker) = u16::try_from(worker) {
                    self.region.inflight().bury(worker);
                }
            }
            Action::Drain { worker } => self.say(worker, ToWorker::Drain),
            Action::Stop { worker } => self.say(worker, ToWorker::Stop),
            Action::Serve => self.begin_to_serve(),
            Action::PauseAccept => {
                self.pause_is_said();
                self.listeners.unwatch(&self.epoll);
            }
            Action::ResumeAccept => self.watch_listeners(),
            Action::CloseListeners => {
                self.listeners.unwatch(&self.epoll);
                self.listeners.close();
            }
            Action::GiveUp { worker } => {
                log::error!("worker {worker} cannot be started");
                tell_console(format_args!(
                    "worker {worker} ends before it is ready, again and again; its log says why"
                ));
                self.outcome = Outcome::Failing;
                self.mind.on(
                    Event::Shutdown(Shutdown::AtOnce),
                    self.now,
                    &mut self.actions,
                );
            }
            Action::Finished => {
                self.outcome = Outcome::Over(u8::from(self.outcome == Outcome::Failing));
            }
        }
    }

    fn watch(&mut self, token: Token) {
        self.count(Counter::Parked);
        let Some(socket) = self.connections.socket(token) else {
            return;
        };
        if let Err(error) = self.epoll.add(socket, token.into(), Interest::ReadOrEnd) {
            // Nobody would ever hear of it again.
            log::error!("a connection cannot be watched: {error}");
            self.mind
                .on(Event::HungUp(token), self.now, &mut self.actions);
        }
    }

    /// Says that accepting pauses; not each time when it keeps happening.
    fn pause_is_said(&mut self) {
        self.count(Counter::AcceptPauses);
        if self
            .pause_said
            .is_none_or(|at| self.now >= at + PAUSE_SAID_MS)
        {
            self.pause_said = Some(self.now);
            log::warn!(
                "accepting pauses: no descriptors left, {} connections wait here",
                self.mind.held()
            );
        }
    }

    /// Of the worker and us, one is faster.
    fn revoke(&mut self, worker: usize, seq: u64) {
        let ring = self.region.ring(worker);
        let claimed = !ring.revoke(seq) && ring.state(seq) == OfferState::Claimed;
        let event = if claimed {
            Event::Claimed { worker, seq }
        } else {
            self.count(Counter::Revoked);
            Event::Revoked { worker, seq }
        };
        self.mind.on(event, self.now, &mut self.actions);
    }

    fn begin_to_serve(&mut self) {
        self.watch_listeners();
        let line = self.listeners.describe(&summary(&self.launch.config));
        log::info!("listening on {line}");
        tell_console(format_args!("listening on {line}"));
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            log::warn!("the service manager cannot be told: {error}");
        }
    }

    fn watch_listeners(&mut self) {
        if let Err(error) = self.listeners.watch(&self.epoll) {
            log::error!("listeners cannot be watched: {error}");
            self.listeners.unwatch(&self.epoll);
            self.mind
                .on(Event::AcceptFailed, self.now, &mut self.actions);
        }
    }
}

/// A line on standard error, in one piece. `eprintln!` would end the master where nobody reads it any more, or the disk
/// is full.
fn tell_console(line: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(format!("baton: {line}\n").as_bytes());
}
