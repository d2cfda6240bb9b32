//! The end: first what is queued is served, then the workers are told to finish, then they are waited for.

use super::event::{Action, CloseReason, KillReason, Shutdown};
use super::slab::State;
use super::worker::Life;
use super::{Dispatch, Token};

/// How long workers may take to stop at once before they are killed.
const AT_ONCE_MS: u64 = 500;

#[derive(Debug)]
pub(super) struct Stopping {
    phase: Phase,
    /// When patience ends.
    deadline: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Workers still get what is queued.
    Serving,
    /// Workers have been told that nothing more comes.
    Leaving,
    /// Workers have been killed.
    Killed,
    /// The end has been reported.
    Over,
}

impl Stopping {
    /// Nothing is offered any more and no worker is replaced.
    pub(super) fn is_past_serving(&self) -> bool {
        self.phase != Phase::Serving
    }

    pub(super) fn due(&self) -> Option<u64> {
        matches!(self.phase, Phase::Serving | Phase::Leaving).then_some(self.deadline)
    }
}

impl Dispatch {
    pub(super) fn shut_down(&mut self, how: Shutdown, now: u64, out: &mut Vec<Action>) {
        let first = self.stopping.is_none();
        if first {
            out.push(Action::CloseListeners);
            while let Some((token, _)) = self.slab.oldest_parked() {
                self.unpark(token, out);
                self.close(token, CloseReason::Stopping, out);
            }
        }
        if first && how == Shutdown::Graceful {
            let deadline = now.saturating_add(self.settings.shutdown_timeout_ms);
            self.stopping = Some(Stopping {
                phase: Phase::Serving,
                deadline,
            });
        } else if self
            .stopping
            .as_ref()
            .is_none_or(|stopping| !stopping.is_brief(now))
        {
            // A second request to stop means: now.
            self.stopping = Some(Stopping {
                phase: Phase::Leaving,
                deadline: now + AT_ONCE_MS,
            });
            self.dismiss(out, |worker| Action::Stop { worker });
            self.drop_queue(out);
        }
    }

    pub(super) fn proceed_with_shutdown(&mut self, now: u64, out: &mut Vec<Action>) {
        let offered = self.workers.iter().any(|worker| !worker.open.is_empty());
        let Some(stopping) = &mut self.stopping else {
            return;
        };
        let overdue = now >= stopping.deadline;
        match stopping.phase {
            Phase::Serving if overdue => stopping.phase = Phase::Killed,
            Phase::Serving if self.queue.is_empty() && !offered => {
                stopping.phase = Phase::Leaving;
                self.dismiss(out, |worker| Action::Drain { worker });
            }
            Phase::Leaving if overdue => stopping.phase = Phase::Killed,
            Phase::Serving | Phase::Leaving | Phase::Killed | Phase::Over => {}
        }
        self.finish_shutdown(out);
    }

    /// Kills who must be killed, and reports the end when nobody is left.
    fn finish_shutdown(&mut self, out: &mut Vec<Action>) {
        let phase = self
            .stopping
            .as_ref()
            .map_or(Phase::Over, |stopping| stopping.phase);
        if matches!(phase, Phase::Serving | Phase::Over) {
            return;
        }
        if phase == Phase::Killed {
            for index in 0..self.workers.len() {
                self.kill(index, KillReason::ShutdownTimeout, out);
            }
        }
        for worker in &mut self.workers {
            if matches!(worker.life, Life::Down { .. }) {
                worker.life = Life::Gone;
            }
        }
        // What came back too late, or was offered to a worker that left, has nobody to serve it.
        self.drop_queue(out);
        if self.workers.iter().all(|worker| worker.life == Life::Gone) {
            self.stopping = Some(Stopping {
                phase: Phase::Over,
                deadline: u64::MAX,
            });
            out.push(Action::Finished);
        }
    }

    fn dismiss(&mut self, out: &mut Vec<Action>, action: impl Fn(usize) -> Action) {
        for (index, worker) in self.workers.iter().enumerate() {
            if worker.is_alive() {
                out.push(action(index));
            }
        }
    }

    fn drop_queue(&mut self, out: &mut Vec<Action>) {
        while let Some(token) = self.queue.pop() {
            self.drop_queued(token, out);
        }
    }

    fn drop_queued(&mut self, token: Token, out: &mut Vec<Action>) {
        debug_assert_eq!(
            self.slab.get(token).map(|slot| slot.state),
            Some(State::Queued)
        );
        self.refuse(token, out);
    }
}

impl Stopping {
    /// It cannot be made any shorter.
    fn is_brief(&self, now: u64) -> bool {
        self.deadline <= now + AT_ONCE_MS || matches!(self.phase, Phase::Killed | Phase::Over)
    }
}
