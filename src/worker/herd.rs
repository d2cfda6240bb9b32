//! Which keys this worker is asking an origin server for, so that a herd of requests asks once.
//!
//! The first request of a key leads, those that come meanwhile wait behind it: for a response that is arriving, which
//! they read while it does, or for word that there is nothing to share. What turned out not to be shared is remembered
//! for a while, and not waited for. It moves no octets; the exchange asks it before each fetch.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::cache::{Key, key};
use crate::http::page::AnswerReason;
use crate::shared::Version;
use crate::store::Object;

/// Keys of which is remembered that their responses are not shared.
const REMEMBERED: usize = 4096;
/// Requests that wait behind one.
const MOST_WAITING: u32 = 10_000;

pub struct Herd {
    asked: RefCell<HashMap<Key, Rc<Asked>, ahash::RandomState>>,
    /// What is remembered of keys, each at a place that its hash chooses; a newer one takes the place.
    remembered: Box<[Remembered]>,
}

#[derive(Default)]
struct Remembered {
    /// The hash of a key whose response was not shared.
    unshared: Cell<u64>,
    /// How often an answer to a key of this place has come into the store.
    stored: Cell<u64>,
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
    /// Of the key, before it was asked: what was changed since is another question.
    version: Version,
    stage: RefCell<Stage>,
    changed: Notify,
    waiting: Cell<u32>,
    /// There is a head, and it is for all.
    answered: Cell<bool>,
    /// Somebody waits: the response is to be shared from now on.
    wanted: Cell<bool>,
    call: Notify,
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

/// Who leads says what comes of it; dropped, nothing has.
pub struct Lead {
    herd: Rc<Herd>,
    key: Key,
    asked: Rc<Asked>,
}

/// Who waits behind another one.
pub struct Waiting(Rc<Asked>);

impl Default for Herd {
    fn default() -> Herd {
        Herd {
            asked: RefCell::default(),
            remembered: (0..REMEMBERED).map(|_| Remembered::default()).collect(),
        }
    }
}

impl Herd {
    /// A request for `key` at this version is about to be sent; whether its answer may be one for others.
    pub fn enter(self: &Rc<Herd>, key: &Key, version: Version, may_lead: bool) -> Place {
        let mut asked = self.asked.borrow_mut();
        if let Some(asked) = asked.get(key) {
            // What was purged or invalidated after it was asked for is no answer to whoever comes later.
            return match asked.version == version && asked.waiting.get() < MOST_WAITING {
                true => Place::Behind(Waiting::new(asked.clone())),
                false => Place::Alone,
            };
        }
        if !may_lead || self.is_unshared(key) {
            return Place::Alone;
        }
        let lead = Rc::new(Asked {
            version,
            stage: RefCell::new(Stage::Asking),
            changed: Notify::new(),
            waiting: Cell::new(0),
            answered: Cell::new(false),
            wanted: Cell::new(false),
            call: Notify::new(),
        });
        asked.insert(key.clone(), lead.clone());
        Place::Lead(Lead {
            herd: self.clone(),
            key: key.clone(),
            asked: lead,
        })
    }

    /// A number that changes when an answer for `key` has come into the store: who has looked there before looks again.
    pub fn stored(&self, key: &[u8]) -> u64 {
        self.remembered(key::hash(key)).stored.get()
    }

    /// Whether an answer for `key` is on its way, and not only asked for.
    pub fn is_answered(&self, key: &Key) -> bool {
        let asked = self.asked.borrow();
        asked.get(key).is_some_and(|asked| asked.answered.get())
    }

    /// A response for `key` has been stored after all: the next ones are waited for again.
    pub fn is_shared(&self, key: &Key) {
        self.remember(key, false);
    }

    fn is_unshared(&self, key: &Key) -> bool {
        let hash = key::hash(key.as_bytes());
        self.remembered(hash).unshared.get() == hash
    }

    fn remember(&self, key: &Key, is_unshared: bool) {
        let hash = key::hash(key.as_bytes());
        let unshared = &self.remembered(hash).unshared;
        match is_unshared {
            true => unshared.set(hash),
            false if unshared.get() == hash => unshared.set(0),
            false => {}
        }
    }

    fn remembered(&self, hash: u64) -> &Remembered {
        &self.remembered[hash as usize % REMEMBERED]
    }
}

impl Lead {
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

    /// What comes may be read by all.
    pub fn share(&self, object: Rc<Object>) {
        self.asked.turn(Stage::Arriving(object));
    }

    /// What comes cannot be shared any more: who waits goes on at once, and nobody waits from now on.
    pub fn give_up(&self) {
        self.leave();
        self.asked.turn(Stage::Over(Outcome::NotKept));
    }

    /// Makes room for another one who asks.
    fn leave(&self) {
        let mut asked = self.herd.asked.borrow_mut();
        if asked
            .get(&self.key)
            .is_some_and(|own| Rc::ptr_eq(own, &self.asked))
        {
            asked.remove(&self.key);
        }
    }

    /// The question is settled; whoever comes from now on asks the store, or anew.
    pub fn settle(self, outcome: Outcome) {
        match outcome {
            Outcome::Unshared => self.herd.remember(&self.key, true),
            Outcome::Stored => {
                let remembered = self.herd.remembered(key::hash(self.key.as_bytes()));
                remembered.stored.set(remembered.stored.get() + 1);
                self.herd.remember(&self.key, false);
            }
            Outcome::NotKept | Outcome::Failed | Outcome::Unreachable(_) | Outcome::Error(_) => {}
        }
        self.asked.turn(Stage::Over(outcome));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.leave();
        let is_over = matches!(*self.asked.stage.borrow(), Stage::Over(_));
        if !is_over {
            self.asked.turn(Stage::Over(Outcome::Failed));
        }
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(future)
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
        let (herd, key) = (Rc::new(Herd::default()), Key::from(&b"http://a/"[..]));
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
        let (herd, key) = (Rc::new(Herd::default()), Key::from(&b"http://a/"[..]));
        let first = lead(&herd, &key);
        let waiting = behind(&herd, &key);
        first.give_up();
        assert_eq!(run(waiting.told()).unwrap_err(), Outcome::NotKept);
        let second = lead(&herd, &key);
        drop(first);
        behind(&herd, &key);
        drop(second);
    }

    #[test]
    fn a_leader_that_is_gone_has_failed() {
        let (herd, key) = (Rc::new(Herd::default()), Key::from(&b"http://a/"[..]));
        let first = lead(&herd, &key);
        let second = behind(&herd, &key);
        let told = run(async { tokio::join!(second.told(), async move { drop(first) }).0 });
        assert_eq!(told.unwrap_err(), Outcome::Failed);
        lead(&herd, &key);
    }
}
