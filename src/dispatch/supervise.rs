//! Looking after the workers: starting, replacing, and taking back what they do not claim.

use super::Dispatch;
use super::event::{Action, KillReason, Load};
use super::worker::{Life, Worker};

/// Ends before a worker was ever ready, at the first start, after which it is given up.
const FAILED_STARTS: u32 = 3;

impl Dispatch {
    /// Finds the workers that do not claim and those that are stuck.
    pub(super) fn supervise(&mut self, loads: &[Load], now: u64, out: &mut Vec<Action>) {
        for index in 0..self.workers.len() {
            let load = loads.get(index).copied().unwrap_or_default();
            let worker = &mut self.workers[index];
            if let Some(reason) = worker.look(&load, now) {
                self.kill(index, reason, out);
            } else if worker.is_overdue(now) {
                worker.bar(&load);
                out.extend(worker.open.iter().map(|offer| Action::Revoke {
                    worker: index,
                    seq: offer.seq,
                }));
            }
        }
    }

    /// Starts the workers whose pause is over.
    pub(super) fn start_due(&mut self, now: u64, out: &mut Vec<Action>) {
        for (index, worker) in self.workers.iter_mut().enumerate() {
            if matches!(worker.life, Life::Down { until } if until <= now) {
                worker.life = Life::Starting { since: now };
                out.push(Action::Spawn { worker: index });
            }
        }
    }

    pub(super) fn ready(&mut self, index: usize, now: u64, out: &mut Vec<Action>) {
        let Some(worker) = self.workers.get_mut(index) else {
            return;
        };
        match worker.life {
            Life::Starting { .. } => {
                worker.life = Life::Ready { since: now };
                worker.failed_starts = 0;
            }
            // It says so once.
            _ => self.kill(index, KillReason::Misbehaved, out),
        }
        let all_ready = self
            .workers
            .iter()
            .all(|worker| matches!(worker.life, Life::Ready { .. }));
        if all_ready && !self.serving && self.stopping.is_none() {
            self.serving = true;
            out.push(Action::Serve);
        }
    }

    pub(super) fn kill(&mut self, index: usize, reason: KillReason, out: &mut Vec<Action>) {
        if let Some(worker) = self
            .workers
            .get_mut(index)
            .filter(|worker| worker.is_alive())
        {
            worker.life = Life::Killed;
            out.push(Action::Kill {
                worker: index,
                reason,
            });
        }
    }

    /// What it had not claimed goes back to the queue; only then may its ring be used again.
    pub(super) fn died(&mut self, index: usize, now: u64, out: &mut Vec<Action>) {
        let Some(worker) = self.workers.get_mut(index) else {
            return;
        };
        let unclaimed = std::mem::take(&mut worker.open);
        let started = matches!(worker.life, Life::Ready { .. });
        let until = worker.died(now);
        for offer in unclaimed {
            self.queue_again(offer.token);
        }
        out.push(Action::Bury { worker: index });
        self.replace(index, started, until, now, out);
    }

    pub(super) fn spawn_failed(&mut self, index: usize, now: u64, out: &mut Vec<Action>) {
        let Some(worker) = self.workers.get_mut(index) else {
            return;
        };
        let until = worker.spawn_failed(now);
        self.replace(index, false, until, now, out);
    }

    fn replace(
        &mut self,
        index: usize,
        started: bool,
        until: u64,
        now: u64,
        out: &mut Vec<Action>,
    ) {
        let serving = self.serving;
        let wanted = self
            .stopping
            .as_ref()
            .is_none_or(|stopping| !stopping.is_past_serving());
        let worker: &mut Worker = &mut self.workers[index];
        worker.life = if wanted {
            Life::Down { until }
        } else {
            Life::Gone
        };
        if !started && !serving {
            worker.failed_starts += 1;
            if worker.failed_starts > FAILED_STARTS {
                out.push(Action::GiveUp { worker: index });
                return;
            }
        }
        self.start_due(now, out);
    }
}
