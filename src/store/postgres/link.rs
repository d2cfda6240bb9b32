//! A worker's sessions with the database, and what protects requests from it.
//!
//! Whoever asks waits for the deadline at most, and only once for all: what misses it, or fails, opens a circuit, and from then
//! on nobody waits. A task of its own connects, no more often than once a second, and closes the circuit when
//! the database answers again. Reading and writing have a circuit each: one that refuses to write still
//! gives.

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::server::Server;
use super::session::Session;
use super::trouble::{Trouble, said};
use crate::shared::{Counter, Region};

/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one may take.
const CONNECT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Reading,
    Writing,
}

#[derive(Clone)]
pub struct Link {
    inner: Rc<Inner>,
}

struct Inner {
    server: Server,
    /// Sessions that there are to be.
    wanted: usize,
    deadline: Duration,
    sessions: RefCell<Vec<Rc<Session>>>,
    next: Cell<usize>,
    /// Open: nobody waits.
    reading: Cell<bool>,
    writing: Cell<bool>,
    trouble: Trouble,
    /// It has been said that it can be used.
    is_announced: Cell<bool>,
    wake: Notify,
    region: Region,
    worker: usize,
}

/// What an error means for the session that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The session has ended, and another one may do.
    Ended,
    ReadOnly,
    /// The statement failed.
    Failed,
}

impl Link {
    /// Begins to connect. Must be called within the runtime.
    pub fn new(
        server: Server,
        wanted: usize,
        deadline: Duration,
        region: Region,
        worker: usize,
    ) -> Link {
        let inner = Rc::new(Inner {
            wanted,
            deadline,
            sessions: RefCell::default(),
            next: Cell::default(),
            // There is no session yet.
            reading: Cell::new(true),
            writing: Cell::new(true),
            trouble: Trouble::new(server.called()),
            server,
            is_announced: Cell::default(),
            wake: Notify::new(),
            region,
            worker,
        });
        tokio::task::spawn_local(keep(Rc::downgrade(&inner)));
        Link { inner }
    }

    /// Whether it is worth asking.
    pub fn is_open(&self, what: What) -> bool {
        // Nothing is known of what other nodes have done.
        self.inner.circuit(what).get() || self.inner.region.distant().incarnation() == 0
    }

    /// Asks, within the deadline. None: there is trouble, or has been before.
    pub async fn ask<T, E: Borrow<Error>>(
        &self,
        what: What,
        work: impl AsyncFn(&Session) -> Result<T, E>,
    ) -> Option<T> {
        self.ask_within(self.inner.deadline, what, work).await
    }

    /// The same for whoever has no better choice than to wait, at least so long.
    pub async fn ask_patiently<T>(
        &self,
        patience: Duration,
        what: What,
        work: impl AsyncFn(&Session) -> Result<T, Error>,
    ) -> Option<T> {
        let deadline = self.inner.deadline.max(patience);
        self.ask_within(deadline, what, work).await
    }

    async fn ask_within<T, E: Borrow<Error>>(
        &self,
        deadline: Duration,
        what: What,
        work: impl AsyncFn(&Session) -> Result<T, E>,
    ) -> Option<T> {
        if self.is_open(what) {
            return None;
        }
        let inner = &self.inner;
        let until = Instant::now() + deadline;
        // A session that has ended meanwhile says nothing of the others.
        for _ in 0..=inner.wanted {
            let Some(session) = inner.session(what) else {
                inner.open(what, "there is no connection");
                return None;
            };
            let error = match timeout_at(until, work(&session)).await {
                Ok(Ok(done)) => return Some(done),
                Ok(Err(error)) => error,
                Err(_) => {
                    inner.missed(what, &session, deadline);
                    return None;
                }
            };
            let error = error.borrow();
            match meaning(&session, error) {
                Meaning::Ended => inner.forget(&session),
                Meaning::ReadOnly => {
                    inner.open(What::Writing, said(error));
                    return None;
                }
                Meaning::Failed => {
                    inner.open(what, said(error));
                    return None;
                }
            }
        }
        inner.open(what, "its connections end");
        None
    }

    /// Waits until it is worth asking, in all sessions.
    #[cfg(test)]
    pub async fn ready(&self) {
        while self.is_open(What::Writing) || self.inner.missing() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

// === impl Inner

impl Inner {
    fn circuit(&self, what: What) -> &Cell<bool> {
        match what {
            What::Reading => &self.reading,
            What::Writing => &self.writing,
        }
    }

    /// The last session is for writing, so that nobody who reads waits behind one who waits for a lock.
    fn session(&self, what: What) -> Option<Rc<Session>> {
        let mut sessions = self.sessions.borrow_mut();
        sessions.retain(|session| !session.client.is_closed());
        let readers = match sessions.len() {
            0 => return None,
            1 => 1,
            several => several - 1,
        };
        let next = (self.next.get() + 1) % readers;
        self.next.set(next);
        match what {
            // In turn, and rather one that has nothing to look for.
            What::Reading => {
                let mut in_turn = (0..readers).map(|n| &sessions[(next + n) % readers]);
                let idle = in_turn.clone().find(|session| session.is_idle());
                idle.or_else(|| in_turn.next()).cloned()
            }
            What::Writing => sessions.last().cloned(),
        }
    }

    fn forget(&self, ended: &Rc<Session>) {
        let mut sessions = self.sessions.borrow_mut();
        sessions.retain(|session| !Rc::ptr_eq(session, ended));
        drop(sessions);
        self.wake.notify_one();
    }

    /// The deadline has passed: whoever comes next must not find that out again.
    fn missed(&self, what: What, session: &Rc<Session>, deadline: Duration) {
        let mut sessions = self.sessions.borrow_mut();
        // Whoever has given it up has said so, and those that came after it may do.
        if !sessions.iter().any(|own| Rc::ptr_eq(own, session)) {
            return;
        }
        match what {
            What::Reading => sessions.clear(),
            What::Writing => sessions.retain(|own| !Rc::ptr_eq(own, session)),
        }
        drop(sessions);
        self.open(what, format_args!("no answer within {deadline:?}"));
    }

    fn open(&self, what: What, why: impl std::fmt::Display) {
        let counters = self.region.counters(1 + self.worker);
        counters.add(Counter::StoreFailures, 1);
        self.trouble.began(&why);
        self.circuit(what).set(true);
        if what == What::Reading {
            self.writing.set(true);
        }
        self.wake.notify_one();
    }

    /// Closes what answers. Whether all is well.
    async fn probe(&self) -> bool {
        for what in [What::Reading, What::Writing] {
            let Some(session) = self.session(what) else {
                return false;
            };
            if !self.circuit(what).get() {
                continue;
            }
            match timeout(self.deadline, session.is_writable()).await {
                Ok(Ok(is_writable)) => {
                    let is_good = what == What::Reading || is_writable;
                    self.circuit(what).set(!is_good);
                    if !is_good {
                        self.trouble.goes_on();
                    }
                }
                Ok(Err(_)) | Err(_) => {
                    self.forget(&session);
                    return false;
                }
            }
        }
        !self.reading.get() && !self.writing.get()
    }

    /// Another session, if one is missing. False: it cannot be had.
    async fn connect(&self) -> bool {
        let opened = timeout(CONNECT, Session::open(&self.server)).await;
        let why = match opened {
            Ok(Ok(session)) => {
                self.sessions.borrow_mut().push(Rc::new(session));
                return true;
            }
            Ok(Err(error)) => said(&error),
            Err(_) => format!("no connection within {CONNECT:?}"),
        };
        // One that does may do for all.
        if self.sessions.borrow().is_empty() {
            self.open(What::Reading, why);
        }
        false
    }

    fn missing(&self) -> bool {
        let mut sessions = self.sessions.borrow_mut();
        sessions.retain(|session| !session.client.is_closed());
        sessions.len() < self.wanted
    }
}

/// Connects what is missing, and closes circuits, as long as the link is used.
async fn keep(inner: Weak<Inner>) {
    // At the start all sessions are opened at once; later each has to wait for its second.
    let mut at_once = None::<usize>;
    let mut attempt = Instant::now();
    loop {
        let Some(link) = inner.upgrade() else { return };
        let more = at_once.get_or_insert(link.wanted);
        if link.missing() && (*more > 0 || Instant::now() >= attempt) {
            attempt = Instant::now() + PAUSE;
            *more = match link.connect().await {
                true => more.saturating_sub(1),
                false => 0,
            };
        }
        if link.probe().await {
            link.trouble.is_over();
            if !link.is_announced.replace(true) {
                log::info!("the database is connected to");
            }
        }
        if *more > 0 && link.missing() {
            continue;
        }
        // Trouble that begins is looked into soon.
        let _ = timeout(PAUSE, link.wake.notified()).await;
        if link.reading.get() {
            let soon = Instant::now() + Duration::from_millis(50);
            tokio::time::sleep_until(attempt.max(soon).min(Instant::now() + PAUSE)).await;
        }
        drop(link);
    }
}

fn meaning(session: &Session, error: &Error) -> Meaning {
    match error.code() {
        _ if error.is_closed() || session.client.is_closed() => Meaning::Ended,
        None => Meaning::Ended,
        Some(code) if *code == SqlState::READ_ONLY_SQL_TRANSACTION => Meaning::ReadOnly,
        // Class 57P: it is being shut down, or this session was ended.
        Some(code) if code.code().starts_with("57P") => Meaning::Ended,
        Some(_) => Meaning::Failed,
    }
}
