//! Which keys this worker is asking an origin server for, so that a herd of requests asks once.
//!
//! The first request of a key leads, those that come meanwhile wait behind it: for a response that is arriving, which
//! they read while it does, or for word that there is nothing to share. What turned out not to be shared is remembered
//! for a while, and not waited for. It moves no octets; the exchange asks it before each fetch.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::cache::stale::Failure;
use crate::cache::{Key, key};
use crate::store::Object;

/// Keys of which is remembered that their responses are not shared.
const REMEMBERED: usize = 4096;
/// Requests that wait behind one.
const MOST_WAITING: u32 = 10_000;

pub struct Herd {
    asked: RefCell<HashMap<Key, Rc<Asked>, ahash::RandomState>>,
    /// Hashes, each at a place of its own choice; a newer one takes the place.
    unshared: RefCell<Box<[u64]>>,
    /// How often an answer has come into the store.
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
    /// What came is for one client alone.
    Unshared,
    /// Nothing came.
    Failed(Option<Failure>),
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
            unshared: RefCell::new(vec![0; REMEMBERED].into()),
            stored: Cell::new(0),
        }
    }
}

impl Herd {
    /// A request for `key` is about to be sent; whether its answer may be one for others.
    pub fn enter(self: &Rc<Herd>, key: &Key, may_lead: bool) -> Place {
        let mut asked = self.asked.borrow_mut();
        if let Some(asked) = asked.get(key) {
            return match asked.waiting.get() {
                MOST_WAITING.. => Place::Alone,
                _ => Place::Behind(Waiting::new(asked.clone())),
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
        });
        asked.insert(key.clone(), lead.clone());
        Place::Lead(Lead {
            herd: self.clone(),
            key: key.clone(),
            asked: lead,
        })
    }

    /// How often an answer has come into the store: who has looked there before it changed looks again.
    pub fn stored(&self) -> u64 {
        self.stored.get()
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
        self.unshared.borrow().get(place_of(hash)) == Some(&hash)
    }

    fn remember(&self, key: &Key, is_unshared: bool) {
        let hash = key::hash(key.as_bytes());
        if let Some(place) = self.unshared.borrow_mut().get_mut(place_of(hash)) {
            match is_unshared {
                true => *place = hash,
                false if *place == hash => *place = 0,
                false => {}
            }
        }
    }
}

fn place_of(hash: u64) -> usize {
    hash as usize % REMEMBERED
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

    /// What comes may be read by all.
    pub fn share(&self, object: Rc<Object>) {
        self.asked.turn(Stage::Arriving(object));
    }

    /// The question is settled; whoever comes from now on asks the store, or anew.
    pub fn settle(self, outcome: Outcome) {
        match outcome {
            Outcome::Unshared => self.herd.remember(&self.key, true),
            Outcome::Stored => {
                self.herd.stored.set(self.herd.stored.get() + 1);
                self.herd.remember(&self.key, false);
            }
            Outcome::Failed(_) => {}
        }
        self.asked.turn(Stage::Over(outcome));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.herd.asked.borrow_mut().remove(&self.key);
        let is_over = matches!(*self.asked.stage.borrow(), Stage::Over(_));
        if !is_over {
            self.asked.turn(Stage::Over(Outcome::Failed(None)));
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
        match herd.enter(key, true) {
            Place::Lead(lead) => lead,
            _ => panic!("somebody else leads"),
        }
    }

    fn behind(herd: &Rc<Herd>, key: &Key) -> Waiting {
        match herd.enter(key, true) {
            Place::Behind(waiting) => waiting,
            _ => panic!("nobody leads"),
        }
    }

    #[test]
    fn the_first_leads_and_the_others_hear_what_comes_of_it() {
        let (herd, key) = (Rc::new(Herd::default()), Key::from(&b"http://a/"[..]));
        for outcome in [Outcome::Failed(None), Outcome::Stored, Outcome::Unshared] {
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
        assert!(matches!(herd.enter(&key, true), Place::Alone), "not shared");
    }

    #[test]
    fn a_leader_that_is_gone_has_failed() {
        let (herd, key) = (Rc::new(Herd::default()), Key::from(&b"http://a/"[..]));
        let first = lead(&herd, &key);
        let second = behind(&herd, &key);
        let told = run(async { tokio::join!(second.told(), async move { drop(first) }).0 });
        assert_eq!(told.unwrap_err(), Outcome::Failed(None));
        lead(&herd, &key);
    }
}
