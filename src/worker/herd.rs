//! Which keys are being asked for, so that a herd of requests asks an origin server once.
//!
//! The first request of a key in this worker leads, those that come meanwhile wait behind it: for a response that is
//! arriving, which they read while it does, or for word that there is nothing to share. Who leads here claims the key
//! over all workers, and asks; or follows the one who has it. What turned out not to be shared is remembered for a
//! while, and not waited for. It moves no octets; `course` says what a request does next, `exchange/join` does it.

pub mod course;
#[cfg(test)]
mod simulation;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::cache::{Key, key};
use crate::http::page::AnswerReason;
use crate::shared::{Claim, Claimed, Counter, Region, Version};
use crate::store::Object;
use crate::store::postgres::Lease;

/// Keys of which is remembered that their responses are not shared.
const REMEMBERED: usize = 4096;
/// Requests that wait behind one.
const MOST_WAITING: u32 = 10_000;

pub struct Herd {
    region: Region,
    worker: u16,
    /// Numbers the claims.
    tickets: Cell<u64>,
    /// By key and version: what is asked for after a purge, an invalidation or a death is another herd, and so is, without a
    /// lease, that of another era.
    asked: RefCell<HashMap<(Key, Version), Rc<Asked>, ahash::RandomState>>,
    /// Hashes of keys whose responses were not shared, each at a place that it chooses; a newer one takes the place.
    unshared: Box<[Cell<u64>]>,
}

/// Where a request stands that would ask an origin server.
pub enum Place {
    /// It asks, and nobody else is concerned.
    Alone,
    /// It asks for those who come behind it.
    Lead(Lead),
    Behind(Waiting),
}

/// A question to an origin server, while the answer is not in the store.
pub struct Asked {
    stage: RefCell<Stage>,
    changed: Notify,
    waiting: Cell<u32>,
    /// There is a head, and it is for all.
    answered: Cell<bool>,
    /// Somebody waits: the response is to be shared from now on.
    wanted: Cell<bool>,
    call: Notify,
    /// One who waited has left.
    left: Notify,
    /// The word of this worker that it asks for the key; none: another worker does, or may.
    claim: RefCell<Option<Held>>,
    /// The same of this node among others.
    lease: RefCell<Option<Lease>>,
}

/// A claim that is up, until this is dropped.
struct Held {
    region: Region,
    claim: Claim,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.region.inflight().release(self.claim);
    }
}

#[derive(Clone)]
pub enum Stage {
    /// There is no head yet.
    Asking,
    /// It comes, and may be read.
    Arriving(Rc<Object>),
    Over(Outcome),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The store has it.
    Stored,
    /// What came is for one client alone, and what comes next is likely to be.
    Unshared,
    /// It came, and there is nothing to share: it could not be kept, or only one could read it.
    NotKept,
    /// Nothing came, which says nothing of the origin server.
    Failed,
    /// There is no answer to be had: what the one who asked was told.
    Unreachable(AnswerReason),
    /// It answered, and with nothing that the one who asked could use.
    Error(u16),
}

/// What a request that asked an origin server was to others that wanted the same, for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    #[default]
    Alone,
    /// They waited for it.
    Led,
    /// It asked in the place of one that had failed.
    TookOver,
    /// It had waited for an answer that was not for it.
    Released,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Alone => "",
            Role::Led => "led",
            Role::TookOver => "taken-over",
            Role::Released => "released",
        }
    }
}

/// Who leads says what comes of it; dropped, nothing has.
pub struct Lead {
    herd: Rc<Herd>,
    /// Its key, and the version of what was stored under it, with its era.
    place: (Key, Version),
    asked: Rc<Asked>,
}

/// Who waits behind another one.
pub struct Waiting(Rc<Asked>);

impl Herd {
    pub fn new(region: Region, worker: usize) -> Herd {
        Herd {
            region,
            worker: u16::try_from(worker).unwrap_or_default(),
            tickets: Cell::new(fastrand::u64(..)),
            asked: RefCell::default(),
            unshared: (0..REMEMBERED).map(|_| Cell::default()).collect(),
        }
    }

    /// A request for `key` at this version is about to be sent; whether its answer may be one for others.
    pub fn enter(self: &Rc<Herd>, key: &Key, version: Version, may_lead: bool) -> Place {
        let mut asked = self.asked.borrow_mut();
        let place = (key.clone(), version);
        if let Some(asked) = asked.get(&place) {
            return match asked.waiting.get() < MOST_WAITING {
                true => Place::Behind(self.wait(asked)),
                false => Place::Alone,
            };
        }
        if !may_lead || self.is_unshared(key) {
            return Place::Alone;
        }
        let lead = Rc::new(Asked {
            stage: RefCell::new(Stage::Asking),
            changed: Notify::new(),
            waiting: Cell::new(0),
            answered: Cell::new(false),
            wanted: Cell::new(false),
            call: Notify::new(),
            left: Notify::new(),
            claim: RefCell::new(None),
            lease: RefCell::new(None),
        });
        asked.insert(place.clone(), lead.clone());
        Place::Lead(Lead {
            herd: self.clone(),
            place,
            asked: lead,
        })
    }

    /// The short way of most that is never shared: whether nobody asks for anything here, the last answer for `key` was
    /// for one client alone, and none has been stored since it was `seen`.
    pub fn asks_alone(&self, key: &Key, seen: u64) -> bool {
        let hash = key::hash(key.as_bytes());
        self.asked.borrow().is_empty()
            && self.unshared(hash).get() == hash
            && self.region.inflight().stored(hash) == seen
    }

    /// For a request in another worker: what this worker asks for, by its own claim.
    pub fn follow(&self, key: &Key, version: Version, only_answered: bool) -> Option<Waiting> {
        let asked = self.asked.borrow();
        let asked = asked.get(&(key.clone(), version)).filter(|asked| {
            asked.claim.borrow().is_some()
                && asked.waiting.get() < MOST_WAITING
                && (asked.answered.get() || !only_answered)
        });
        asked.map(|asked| self.wait(asked))
    }

    fn wait(&self, asked: &Rc<Asked>) -> Waiting {
        if !asked.wanted.get() {
            let counters = self.region.counters(1 + usize::from(self.worker));
            counters.add(Counter::HerdLed, 1);
        }
        Waiting::new(asked.clone())
    }

    /// A number that changes when an answer for `key` has come into the store: who has looked there before looks again.
    pub fn stored(&self, key: &[u8]) -> u64 {
        self.region.inflight().stored(key::hash(key))
    }

    /// Whether an answer for `key` is on its way, and not only asked for.
    pub fn is_answered(&self, key: &Key, version: Version) -> bool {
        let asked = self.asked.borrow();
        asked
            .get(&(key.clone(), version))
            .is_some_and(|asked| asked.answered.get())
    }

    /// Whether another worker has the claim.
    pub fn is_asked_elsewhere(&self, key: &Key, version: Version) -> bool {
        let hash = key::hash(key.as_bytes());
        let claim = Claim::new(hash, version, self.worker, 0);
        self.region.inflight().is_claimed_by_another(claim)
    }

    /// A response for `key` has been stored after all: the next ones are waited for again.
    pub fn is_shared(&self, key: &Key) {
        self.remember(key, false);
    }

    fn is_unshared(&self, key: &Key) -> bool {
        let hash = key::hash(key.as_bytes());
        self.unshared(hash).get() == hash
    }

    fn remember(&self, key: &Key, is_unshared: bool) {
        let hash = key::hash(key.as_bytes());
        let unshared = self.unshared(hash);
        match is_unshared {
            true => unshared.set(hash),
            false if unshared.get() == hash => unshared.set(0),
            false => {}
        }
    }

    fn unshared(&self, hash: u64) -> &Cell<u64> {
        &self.unshared[hash as usize % REMEMBERED]
    }
}

impl Lead {
    /// Claims the key for this worker.
    pub fn claim(&self) -> Claimed {
        let claim = self.new_claim();
        let claimed = self.herd.region.inflight().claim(claim);
        if claimed == Claimed::Ours {
            self.holds(claim);
        }
        claimed
    }

    /// Claims it in the place of a worker that does not know of its claim, or has died.
    pub fn take_over(&self, from: Claim) -> bool {
        let claim = self.new_claim();
        let is_ours = self.herd.region.inflight().take_over(from, claim);
        if is_ours {
            self.holds(claim);
        }
        is_ours
    }

    /// Whether this worker asks for it, by its own word.
    pub fn has_claim(&self) -> bool {
        self.asked.claim.borrow().is_some()
    }

    /// What was stored under its key when it was asked for, and in which era.
    pub fn version(&self) -> Version {
        self.place.1
    }

    fn new_claim(&self) -> Claim {
        let herd = &self.herd;
        herd.tickets.set(herd.tickets.get().wrapping_add(1));
        let hash = key::hash(self.place.0.as_bytes());
        let ticket = herd.tickets.get();
        Claim::new(hash, self.place.1, herd.worker, ticket)
    }

    fn holds(&self, claim: Claim) {
        *self.asked.claim.borrow_mut() = Some(Held {
            region: self.herd.region.clone(),
            claim,
        });
    }

    /// Other nodes wait as long as this question is open.
    pub fn holds_lease(&self, lease: Lease) {
        *self.asked.lease.borrow_mut() = Some(lease);
    }

    /// There is a head, and what comes may be shared.
    pub fn answered(&self) {
        self.asked.answered.set(true);
    }

    /// Whether somebody waits for what comes.
    pub fn is_wanted(&self) -> bool {
        self.asked.wanted.get()
    }

    /// Waits until somebody does.
    pub async fn wanted(&self) {
        while !self.is_wanted() {
            self.asked.call.notified().await;
        }
    }

    /// Whether anybody waits for what comes, or reads it.
    pub fn is_followed(&self) -> bool {
        let is_read = match &*self.asked.stage.borrow() {
            Stage::Arriving(object) => Rc::strong_count(object) > 1,
            Stage::Asking | Stage::Over(_) => false,
        };
        is_read || self.asked.waiting.get() > 0
    }

    /// Waits until nobody waits for what comes, nor reads it.
    pub async fn forsaken(&self) {
        while self.is_followed() {
            self.asked.left.notified().await;
        }
    }

    /// What comes may be read by all.
    pub fn share(&self, object: Rc<Object>) {
        self.asked.turn(Stage::Arriving(object));
    }

    /// Who waits goes on at once, and nobody waits from now on; the claim stays, so that other workers know of it.
    pub fn release(&self) {
        self.leave_here();
        self.asked.turn(Stage::Over(Outcome::NotKept));
    }

    fn leave_here(&self) {
        let mut asked = self.herd.asked.borrow_mut();
        if asked
            .get(&self.place)
            .is_some_and(|own| Rc::ptr_eq(own, &self.asked))
        {
            asked.remove(&self.place);
        }
    }

    /// Makes room for another one who asks.
    fn leave(&self) {
        self.asked.claim.take();
        self.asked.lease.take();
        self.leave_here();
    }

    fn is_over(&self) -> bool {
        matches!(*self.asked.stage.borrow(), Stage::Over(_))
    }

    /// The question is settled; whoever comes from now on asks the store, or anew. Only the first word counts.
    pub fn settle(&self, outcome: Outcome) {
        if self.is_over() {
            return;
        }
        match outcome {
            Outcome::Unshared => self.herd.remember(&self.place.0, true),
            Outcome::Stored => {
                let hash = key::hash(self.place.0.as_bytes());
                self.herd.region.inflight().has_stored(hash);
                self.herd.remember(&self.place.0, false);
            }
            Outcome::NotKept | Outcome::Failed | Outcome::Unreachable(_) | Outcome::Error(_) => {}
        }
        self.asked.turn(Stage::Over(outcome));
        self.leave();
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.settle(Outcome::Failed);
        self.leave();
    }
}

impl Asked {
    fn turn(&self, stage: Stage) {
        *self.stage.borrow_mut() = stage;
        self.changed.notify_waiters();
    }
}

impl Waiting {
    fn new(asked: Rc<Asked>) -> Waiting {
        asked.waiting.set(asked.waiting.get() + 1);
        asked.wanted.set(true);
        asked.call.notify_one();
        Waiting(asked)
    }

    /// What came of it, if it is over.
    pub fn outcome(&self) -> Option<Outcome> {
        match &*self.0.stage.borrow() {
            Stage::Over(outcome) => Some(*outcome),
            Stage::Asking | Stage::Arriving(_) => None,
        }
    }

    /// What is arriving, or what came of it.
    pub async fn told(&self) -> Result<Rc<Object>, Outcome> {
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            match &*self.0.stage.borrow() {
                Stage::Asking => {}
                Stage::Arriving(object) => return Ok(object.clone()),
                Stage::Over(outcome) => return Err(*outcome),
            }
            changed.await;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
        self.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(future)
    }

    fn herd() -> Rc<Herd> {
        Rc::new(Herd::new(Region::create(2).unwrap().0, 1))
    }

    fn lead(herd: &Rc<Herd>, key: &Key) -> Lead {
        match herd.enter(key, Version::default(), true) {
            Place::Lead(lead) => lead,
            _ => panic!("somebody else leads"),
        }
    }

    fn behind(herd: &Rc<Herd>, key: &Key) -> Waiting {
        match herd.enter(key, Version::default(), true) {
            Place::Behind(waiting) => waiting,
            _ => panic!("nobody leads"),
        }
    }

    #[test]
    fn the_first_leads_and_the_others_hear_what_comes_of_it() {
        let (herd, key) = (herd(), Key::from(&b"http://a/"[..]));
        for outcome in [Outcome::Failed, Outcome::Stored, Outcome::Unshared] {
            let first = lead(&herd, &key);
            assert!(!first.is_wanted());
            let waiting = [behind(&herd, &key), behind(&herd, &key)];
            run(first.wanted());
            let other = lead(&herd, &Key::from(&b"http://b/"[..]));
            first.settle(outcome);
            for one in &waiting {
                assert_eq!(run(one.told()).unwrap_err(), outcome);
            }
            drop(other);
        }
        assert!(
            matches!(herd.enter(&key, Version::default(), true), Place::Alone),
            "not shared"
        );
    }

    #[test]
    fn who_gives_up_releases_those_who_wait_and_leaves_its_place() {
        let (herd, key) = (herd(), Key::from(&b"http://a/"[..]));
        let first = lead(&herd, &key);
        let waiting = behind(&herd, &key);
        first.settle(Outcome::NotKept);
        assert_eq!(run(waiting.told()).unwrap_err(), Outcome::NotKept);
        let second = lead(&herd, &key);
        drop(first);
        behind(&herd, &key);
        drop(second);
    }

    #[test]
    fn what_is_asked_for_after_a_change_leaves_the_herd_before_it_alone() {
        let (herd, key) = (herd(), Key::from(&b"http://a/"[..]));
        let later = Version::default().next();
        let first = lead(&herd, &key);
        assert_eq!(first.claim(), Claimed::Ours);
        let Place::Lead(second) = herd.enter(&key, later, true) else {
            panic!("it waits for what is of before");
        };
        assert_eq!(second.claim(), Claimed::Ours);
        assert!(herd.follow(&key, Version::default(), false).is_some());
        drop(first);
        assert!(herd.follow(&key, Version::default(), false).is_none());
        assert!(herd.follow(&key, later, false).is_some());
    }

    #[test]
    fn who_is_released_does_not_wait_and_other_workers_know_of_the_claim() {
        let (herd, key) = (herd(), Key::from(&b"http://a/"[..]));
        let first = lead(&herd, &key);
        first.claim();
        let waiting = behind(&herd, &key);
        first.release();
        assert_eq!(run(waiting.told()).unwrap_err(), Outcome::NotKept);
        assert!(herd.follow(&key, Version::default(), false).is_none());
        let other = Rc::new(Herd::new(herd.region.clone(), 0));
        let elsewhere = lead(&other, &key);
        assert!(matches!(elsewhere.claim(), Claimed::Theirs(_)));
        drop(first);
        assert_eq!(elsewhere.claim(), Claimed::Ours);
    }

    #[test]
    fn a_leader_that_is_gone_has_failed() {
        let (herd, key) = (herd(), Key::from(&b"http://a/"[..]));
        let first = lead(&herd, &key);
        let second = behind(&herd, &key);
        let told = run(async { tokio::join!(second.told(), async move { drop(first) }).0 });
        assert_eq!(told.unwrap_err(), Outcome::Failed);
        lead(&herd, &key);
    }
}
