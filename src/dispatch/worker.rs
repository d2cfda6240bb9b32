//! One worker as the master sees it: its life, its open offers, and whether it may get another one.
//!
//! A worker that does not claim is barred until its loop is seen to come around; then it gets a single offer at a
//! time until it claims one. One that dies is replaced at once the first time, then after growing pauses.

use std::collections::VecDeque;

use super::event::{KillReason, Load, Retry, Token};

/// Offers that a worker may leave unclaimed.
pub(super) const CREDIT: usize = 16;

/// Sequences that share an entry of the offer ring are this far apart.
const RING: u64 = 64;

/// How long an offer may stay unclaimed, and how old a heartbeat may be.
pub(super) const PATIENCE_MS: u64 = 500;

/// How long a worker may be stuck before it is replaced.
pub(super) const STUCK_MS: u64 = 30_000;

/// How long a worker may take to become ready.
pub(super) const START_MS: u64 = 30_000;

/// When to try again what the kernel had no room for.
pub(super) const RETRY_MS: u64 = 50;

/// Pauses before a replacement: none, then this, doubling up to the last.
const FIRST_PAUSE_MS: u64 = 100;
const LONGEST_PAUSE_MS: u64 = 5_000;

/// A worker that served this long did not die of its start.
const HEALTHY_MS: u64 = 10_000;

/// Rounds of offers in vain, each of `PATIENCE_MS`, that count as stuck although the heartbeat goes on.
const VAIN_ROUNDS: u32 = (STUCK_MS / PATIENCE_MS) as u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// No process; the next one starts at this time.
    Down {
        until: u64,
    },
    Starting {
        since: u64,
    },
    Ready {
        since: u64,
    },
    /// Told to die; its death has not been told yet.
    Killed,
    /// No process, and none will follow.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenOffer {
    pub(super) seq: u64,
    pub(super) token: Token,
    pub(super) offered_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outlet {
    Open,
    UntilWritable,
    Until(u64),
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) life: Life,
    /// Unclaimed as far as we know, oldest first.
    pub(super) open: VecDeque<OpenOffer>,
    next_seq: u64,
    outlet: Outlet,
    /// Gets nothing until its heartbeat is newer than this.
    barred: Option<u64>,
    /// Has not claimed since offers were taken back from it.
    probation: bool,
    /// Times that offers were taken back since it last claimed.
    vain_rounds: u32,
    /// Since when the heartbeat has been too old, as we noticed.
    stale_since: Option<u64>,
    /// Deaths with no healthy time between them.
    deaths: u32,
    /// Ends before the worker was ever ready, under this number.
    pub(super) failed_starts: u32,
}

impl Worker {
    pub(super) fn new() -> Worker {
        Worker {
            life: Life::Down { until: 0 },
            open: VecDeque::with_capacity(CREDIT),
            next_seq: 1,
            outlet: Outlet::Open,
            barred: None,
            probation: false,
            vain_rounds: 0,
            stale_since: None,
            deaths: 0,
            failed_starts: 0,
        }
    }

    /// A process exists that has not been told to die.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.life, Life::Starting { .. } | Life::Ready { .. })
    }

    /// Ready, and its loop came around lately.
    pub(super) fn is_fresh(&self, load: &Load, now: u64) -> bool {
        let Life::Ready { since } = self.life else {
            return false;
        };
        now.saturating_sub(load.heartbeat_ms.max(since)) <= PATIENCE_MS
    }

    /// Whether one more offer may be made to it now.
    pub(super) fn has_room(&self, load: &Load, max_active: u32) -> bool {
        let credit = if self.probation { 1 } else { CREDIT };
        matches!(self.life, Life::Ready { .. })
            && self.barred.is_none()
            && self.outlet == Outlet::Open
            && self.open.len() < credit
            && self.open.len() as u64 + u64::from(load.active) < u64::from(max_active)
            // The ring's entry for the next sequence must not hold an offer that is still open.
            && self.open.front().is_none_or(|oldest| self.next_seq - oldest.seq < RING)
    }

    /// Could get something soon, so the queue is worth looking at often.
    pub(super) fn is_hopeful(&self) -> bool {
        matches!(self.life, Life::Ready { .. })
            && self.barred.is_none()
            && self.outlet == Outlet::Open
    }

    pub(super) fn offer(&mut self, token: Token, now: u64) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.open.push_back(OpenOffer {
            seq,
            token,
            offered_ms: now,
        });
        seq
    }

    /// Takes an offer off the list of open ones.
    pub(super) fn settle(&mut self, seq: u64) -> Option<Token> {
        let position = self.open.iter().position(|offer| offer.seq == seq)?;
        self.open.remove(position).map(|offer| offer.token)
    }

    pub(super) fn claimed(&mut self) {
        self.barred = None;
        self.probation = false;
        self.vain_rounds = 0;
    }

    pub(super) fn is_overdue(&self, now: u64) -> bool {
        self.open
            .front()
            .is_some_and(|offer| now.saturating_sub(offer.offered_ms) >= PATIENCE_MS)
    }

    /// All its offers are being taken back.
    pub(super) fn bar(&mut self, load: &Load) {
        self.barred = Some(load.heartbeat_ms);
        self.probation = true;
        self.vain_rounds += 1;
    }

    pub(super) fn close_outlet(&mut self, retry: Retry, now: u64) {
        self.outlet = match retry {
            Retry::Writable => Outlet::UntilWritable,
            Retry::Later => Outlet::Until(now + RETRY_MS),
        };
    }

    pub(super) fn writable(&mut self) {
        if self.outlet == Outlet::UntilWritable {
            self.outlet = Outlet::Open;
        }
    }

    /// Time passes: bars fall, and a reason to kill it may appear.
    pub(super) fn look(&mut self, load: &Load, now: u64) -> Option<KillReason> {
        if matches!(self.outlet, Outlet::Until(at) if at <= now) {
            self.outlet = Outlet::Open;
        }
        if self
            .barred
            .is_some_and(|heartbeat| load.heartbeat_ms > heartbeat)
        {
            self.barred = None;
        }
        match self.life {
            Life::Starting { since } => {
                (now.saturating_sub(since) >= START_MS).then_some(KillReason::NeverReady)
            }
            Life::Ready { .. } if self.is_fresh(load, now) => {
                self.stale_since = None;
                (self.vain_rounds >= VAIN_ROUNDS).then_some(KillReason::Stuck)
            }
            Life::Ready { .. } => {
                let since = *self.stale_since.get_or_insert(now);
                (now.saturating_sub(since) >= STUCK_MS).then_some(KillReason::Stuck)
            }
            Life::Down { .. } | Life::Killed | Life::Gone => None,
        }
    }

    /// When something about it is due, if anything is.
    pub(super) fn due(&self) -> Option<u64> {
        let outlet = if let Outlet::Until(at) = self.outlet {
            Some(at)
        } else {
            None
        };
        let life = match self.life {
            Life::Down { until } => Some(until),
            Life::Starting { since } => Some(since + START_MS),
            Life::Ready { .. } | Life::Killed | Life::Gone => None,
        };
        outlet.into_iter().chain(life).min()
    }

    /// The process is gone: forgets all about it, and says when the next one may start. Sequences go on, so a
    /// message to the dead one can never fit an offer to its successor.
    pub(super) fn died(&mut self, now: u64) -> u64 {
        if matches!(self.life, Life::Ready { since } if now.saturating_sub(since) >= HEALTHY_MS) {
            self.deaths = 0;
        }
        let pause = match self.deaths {
            0 => 0,
            n => FIRST_PAUSE_MS
                .checked_shl(n - 1)
                .unwrap_or(u64::MAX)
                .min(LONGEST_PAUSE_MS),
        };
        let fresh = Worker::new();
        let deaths = self.deaths.saturating_add(1).min(32);
        *self = Worker {
            next_seq: self.next_seq,
            deaths,
            failed_starts: self.failed_starts,
            ..fresh
        };
        now + pause
    }

    /// It could not even be started; that is never tried again at once.
    pub(super) fn spawn_failed(&mut self, now: u64) -> u64 {
        self.deaths = self.deaths.max(1);
        self.died(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(now: u64) -> Worker {
        Worker {
            life: Life::Ready { since: now },
            ..Worker::new()
        }
    }

    fn beat(heartbeat_ms: u64) -> Load {
        Load {
            heartbeat_ms,
            ..Load::default()
        }
    }

    #[test]
    fn pauses_grow_and_health_resets_them() {
        let mut worker = ready(0);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            pauses.push(worker.died(1000) - 1000);
            worker.life = Life::Ready { since: 1000 };
        }
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(worker.died(11_000), 11_000);
        worker.life = Life::Killed;
        assert_eq!(worker.spawn_failed(0), 100);
    }

    #[test]
    fn credit_is_bounded_and_no_ring_entry_is_used_twice() {
        let mut worker = ready(0);
        let token = Token {
            index: 0,
            generation: 0,
        };
        let first = worker.offer(token, 0);
        for _ in 0..RING - 1 {
            assert!(worker.has_room(&beat(0), 100));
            let seq = worker.offer(token, 0);
            assert!(worker.settle(seq).is_some());
        }
        assert!(
            !worker.has_room(&beat(0), 100),
            "the entry of the next sequence is the first one's"
        );
        assert_eq!(worker.settle(first), Some(token));
        for _ in 0..CREDIT {
            assert!(worker.has_room(&beat(0), 100));
            worker.offer(token, 0);
        }
        assert!(!worker.has_room(&beat(0), 100));
        let busy = Load {
            active: 10,
            ..beat(0)
        };
        assert!(!ready(0).has_room(&busy, 10));
        assert!(ready(0).has_room(&busy, 11));
    }

    #[test]
    fn a_barred_worker_gets_one_offer_at_a_time_until_it_claims() {
        let mut worker = ready(0);
        let token = Token {
            index: 0,
            generation: 0,
        };
        worker.offer(token, 0);
        assert!(!worker.is_overdue(PATIENCE_MS - 1) && worker.is_overdue(PATIENCE_MS));
        worker.open.clear();
        worker.bar(&beat(40));
        worker.look(&beat(40), 600);
        assert!(!worker.has_room(&beat(40), 100));
        worker.look(&beat(41), 600);
        assert!(worker.has_room(&beat(41), 100));
        worker.offer(token, 600);
        assert!(!worker.has_room(&beat(41), 100));
        worker.claimed();
        assert!(worker.has_room(&beat(41), 100));
    }

    #[test]
    fn a_stuck_worker_is_found_by_its_heartbeat_or_by_its_claims() {
        let mut worker = ready(0);
        assert_eq!(worker.look(&beat(0), 600), None);
        assert_eq!(worker.look(&beat(0), 600 + STUCK_MS - 1), None);
        assert_eq!(
            worker.look(&beat(0), 600 + STUCK_MS),
            Some(KillReason::Stuck)
        );
        // It has come around after all.
        assert_eq!(worker.look(&beat(40_000), 40_001), None);
        for _ in 0..VAIN_ROUNDS {
            worker.bar(&beat(40_000));
        }
        assert_eq!(worker.look(&beat(40_001), 40_001), Some(KillReason::Stuck));
        worker.claimed();
        assert_eq!(worker.look(&beat(40_001), 40_001), None);
        worker.life = Life::Starting { since: 0 };
        assert_eq!(
            worker.look(&beat(0), START_MS),
            Some(KillReason::NeverReady)
        );
    }

    #[test]
    fn an_outlet_reopens_by_event_or_by_time() {
        let mut worker = ready(0);
        worker.close_outlet(Retry::Writable, 0);
        worker.look(&beat(0), 400);
        assert!(!worker.has_room(&beat(0), 9));
        worker.writable();
        assert!(worker.has_room(&beat(0), 9));
        worker.close_outlet(Retry::Later, 0);
        worker.writable();
        assert!(!worker.has_room(&beat(0), 9));
        assert_eq!(worker.due(), Some(RETRY_MS));
        worker.look(&beat(0), RETRY_MS);
        assert!(worker.has_room(&beat(0), 9));
    }
}
