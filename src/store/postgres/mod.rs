//! The PostgreSQL store of one worker, with memory over it: shared by all workers of any number of nodes.
//!
//! The database is the truth. Storing is one transaction there, which refuses what a change has overtaken since its request
//! was sent; changes have numbers, and a purge and a storing exclude each other, so that none is missed. What is
//! served from memory is served under a lease, which the janitor extends while it hears of changes. A request
//! waits for the database for the deadline at most; then the origin server is asked. What cannot be invalidated is owed
//! (`shared::Distant`): nobody here finds it until the database has been told.

mod filling;
pub mod intake;
mod lease;
mod link;
mod looks;
mod rows;
pub mod schema;
pub mod server;
mod session;
pub mod tags;
pub mod trouble;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::disk::format::{FormatError, Kept};
use super::lasting::lasting;
use super::{Body, Coherence, Find, Hot, NotKept, Object, Store, Version};
use crate::cache::vary::Match;
use crate::cache::{Key, Name, Stored, key};
use crate::config::Postgres as Settings;
use crate::http::Headers;
use crate::shared::{Counter, Region, Ticket};
pub use filling::Filling;
pub use lease::{Lease, Turn};
use link::{Link, What};
use looks::Found;
pub use looks::LOOK;
pub use rows::{InRow, Rows, Sums, decode};
use server::{Server, ServerError};
use session::{Known, Refreshed};
pub use session::{PIECE, PIECE_SIZE, PLAN_ONCE};

/// How long an invalidation waits until those before it are known here.
const CATCHING_UP: Duration = Duration::from_millis(20);
/// Octets of bodies on their way to the database, over all responses of a worker.
const MAX_ARRIVING: u64 = 128 << 20;
/// Between two times that the database is told what has been used, in looks (one a second).
const USED_EVERY: u32 = 20;
/// Uses remembered for that at most.
const MAX_USED: usize = 20_000;

pub struct Postgres<C: Coherence + 'static> {
    inner: Rc<Inner<C>>,
}

struct Inner<C: Coherence> {
    hot: Option<Hot<Rc<C>>>,
    coherence: Rc<C>,
    link: Link,
    region: Region,
    worker: usize,
    max_object: u64,
    /// Octets of bodies in memory that are on their way to the database.
    arriving: Cell<u64>,
    /// Nothing is stored any more.
    closed: Cell<bool>,
    /// Objects that have been used since the database was told, and how often.
    used: RefCell<HashMap<i64, i64>>,
    looks: Cell<u32>,
}

impl<C: Coherence + 'static> Postgres<C> {
    /// `memory`: octets for copies; 0: none. Must be called within the runtime. It connects in the background.
    ///
    /// Errors: the settings cannot be used.
    pub fn new(
        settings: &Settings,
        region: Region,
        worker: usize,
        memory: u64,
        max_object: u64,
        coherence: C,
    ) -> Result<Self, ServerError> {
        let coherence = Rc::new(coherence);
        let server = Server::new(settings, &format!("worker {worker}"))?;
        let (wanted, deadline) = (settings.connections, settings.deadline);
        let hot = Hot::new(memory, PIECE_SIZE as u64, coherence.clone());
        Ok(Postgres {
            inner: Rc::new(Inner {
                hot: (memory > 0).then_some(hot),
                coherence,
                link: Link::new(server, wanted, deadline, region.clone(), worker),
                region,
                worker,
                max_object,
                arriving: Cell::default(),
                closed: Cell::default(),
                used: RefCell::default(),
                looks: Cell::default(),
            }),
        })
    }

    /// What is in memory for a request: the first thing that `find` looks at.
    pub fn copy(&self, key: &[u8], request: &Headers) -> Option<Rc<Object>> {
        self.inner.copy(key, request)
    }

    /// What there is where nothing is in memory. Never waits.
    pub fn find_beyond(&self) -> Find {
        match self.inner.link.is_open(What::Reading) {
            true => Find::Absent,
            false => Find::AskDisk,
        }
    }

    /// Before an origin server is asked: whether another node asks it already.
    pub async fn take_turn(&self, key: &[u8]) -> Turn {
        let distant = self.inner.region.distant();
        // Whoever comes meanwhile may ask as well, once. And without a lease this node may have asked already, for those who must
        // not be joined any more.
        if distant.is_alone() || !distant.holds_lease() {
            return Turn::Mine(None);
        }
        Lease::take(&self.inner.link, Name::of(key).base).await
    }

    /// Whether some node is asking for it.
    pub async fn is_asked_for(&self, key: &[u8]) -> bool {
        Lease::is_taken(&self.inner.link, Name::of(key).base).await
    }

    /// Forgets what is stored under `key`: whether anything was, and whether the database knows. Where it does not, nobody finds
    /// it here, but other nodes may until it has been told.
    pub async fn purge(&self, key: &[u8]) -> (bool, bool) {
        let inner = self.inner.clone();
        let had = inner.forget_copies(key);
        // In this order: who finds it no more, then who must let go of it, then the others.
        let hash = key::hash(key);
        let ticket = inner.region.distant().owe(&Name::of(key).base, hash);
        inner.coherence.bump(hash);
        let removed = lasting(inner.invalidate(Key::from(key), ticket)).await;
        (had || removed > Some(0), removed.is_some())
    }

    /// From now on nothing is stored, not even what has begun to arrive.
    pub fn close(&self) {
        self.inner.closed.set(true);
    }

    /// Now and then: tells the database what has been used.
    pub async fn look_after(&self) {
        let inner = &self.inner;
        let looks = inner.looks.get().wrapping_add(1);
        inner.looks.set(looks);
        if !looks.is_multiple_of(USED_EVERY) || inner.used.borrow().is_empty() {
            return;
        }
        let (ids, times): (Vec<i64>, Vec<i64>) = inner.used.borrow_mut().drain().unzip();
        let told = async |session: &session::Session| session.used(&ids, &times).await;
        let _ = inner.link.ask(What::Writing, told).await;
    }

    /// An object turned out to be damaged or gone while it was served.
    pub async fn discard(&self, object: &Object) {
        let is_bad = match &object.body {
            Body::Rows(rows) => rows.is_given_up(),
            _ => false,
        };
        if let (true, Some(row)) = (is_bad, object.in_row) {
            self.inner.discard(row.id);
        }
    }
}

impl<C: Coherence + 'static> Store for Postgres<C> {
    type Writer = Filling<C>;

    fn find(&self, key: &[u8], request: &Headers) -> Find {
        if let Some(object) = self.inner.copy(key, request) {
            return Find::Object(object);
        }
        self.find_beyond()
    }

    async fn look(&self, key: &[u8], request: &Headers) -> Find {
        let inner = &self.inner;
        let version = self.version(key);
        let name = Name::of(key);
        if inner.region.distant().is_owed(&name.base) {
            return Find::Absent;
        }
        let Some((found, any)) = inner.look(key, &name, request).await else {
            return Find::Absent;
        };
        // What was invalidated meanwhile may have been read before.
        if inner.region.distant().is_owed(&name.base) {
            return Find::Absent;
        }
        match found {
            Some(object) => {
                inner.was_used(&object);
                inner.keep_copy(key, &object, version);
                Find::Object(object)
            }
            None if any => Find::OtherVariant,
            None => Find::Absent,
        }
    }

    async fn variants(&self, key: &[u8]) -> Vec<Rc<Object>> {
        let (inner, name) = (&self.inner, Name::of(key));
        let incarnation = inner.region.distant().incarnation();
        let heads = async |session: &session::Session| session.heads(&name, incarnation).await;
        let found = inner.link.ask(What::Reading, heads).await;
        if inner.region.distant().is_owed(&name.base) {
            return Vec::new();
        }
        let mut objects = inner.decode(key, found.unwrap_or_default());
        objects.reverse();
        let whole = |(mut found, kept)| rows::object(&inner.link, &mut found, kept, false);
        objects.into_iter().filter_map(whole).map(Rc::new).collect()
    }

    fn version(&self, key: &[u8]) -> Version {
        self.inner.coherence.read(key::hash(key))
    }

    fn begin(
        &self,
        key: Key,
        stored: Stored,
        expected: Option<u64>,
        seen: Version,
    ) -> Result<Filling<C>, NotKept> {
        let inner = &self.inner;
        if expected.is_some_and(|length| length > inner.max_object) {
            return Err(NotKept::TooLarge);
        }
        if inner.closed.get() || inner.arriving.get() > MAX_ARRIVING {
            return Err(NotKept::Full);
        }
        if inner.link.is_open(What::Writing) {
            return Err(NotKept::Trouble);
        }
        Ok(Filling::new(inner.clone(), key, stored, expected, seen))
    }

    async fn refresh(
        &self,
        key: &[u8],
        old: &Rc<Object>,
        new: Stored,
        seen: Version,
    ) -> Rc<Object> {
        let mut object = old.refreshed(new);
        object.in_row = old.in_row.map(|row| InRow {
            edition: row.edition.wrapping_add(1),
            ..row
        });
        let object = Rc::new(object);
        if old.stored.selection == object.stored.selection {
            let (inner, key) = (self.inner.clone(), Key::from(key));
            let work = inner.refresh(key, old.clone(), object.clone(), seen);
            // What takes longer than the deadline ends by itself, and what it comes to is heeded.
            lasting(work).await;
        }
        object
    }

    async fn invalidate(&self, key: &[u8]) -> bool {
        self.purge(key).await.0
    }
}

impl<C: Coherence + 'static> Inner<C> {
    fn copy(&self, key: &[u8], request: &Headers) -> Option<Rc<Object>> {
        if !self.region.distant().holds_lease() {
            return None;
        }
        let object = self.hot.as_ref()?.get(key, request)?;
        if !object.body.is_kept() {
            self.forget_copies(key);
            return None;
        }
        self.was_used(&object);
        Some(object)
    }

    fn keep_copy(&self, key: &[u8], object: &Rc<Object>, version: Version) {
        if let Some(hot) = &self.hot {
            hot.keep(key, object.clone(), version);
        }
    }

    fn forget_copies(&self, key: &[u8]) -> bool {
        self.hot.as_ref().is_some_and(|hot| hot.forget(key))
    }

    fn was_used(&self, object: &Object) {
        let mut used = self.used.borrow_mut();
        let Some(row) = object.in_row else { return };
        if used.len() < MAX_USED || used.contains_key(&row.id) {
            *used.entry(row.id).or_default() += 1;
        }
    }

    /// What the database has: what the request selects, and whether there is anything. None: it does not say.
    async fn look(
        &self,
        key: &[u8],
        name: &Name,
        request: &Headers,
    ) -> Option<(Option<Rc<Object>>, bool)> {
        let incarnation = self.region.distant().incarnation();
        let look = async |session: &session::Session| session.look(name, incarnation).await;
        let found = self.link.ask(What::Reading, look).await?;
        let mut best: Option<(Match, Found, Kept)> = None;
        let mut any = false;
        for (found, kept) in self.decode(key, found).into_iter().rev() {
            any = true;
            // The newest of those that match best.
            if matches!(best, Some((Match::Same, ..))) {
                continue;
            }
            let matches = kept.stored.matches(request);
            if matches > best.as_ref().map(|(matches, ..)| *matches)
                && let Some(matches) = matches
            {
                best = Some((matches, found, kept));
            }
        }
        let Some((_, mut found, kept)) = best else {
            return Some((None, any));
        };
        let for_long = self.hot.is_some();
        let object = rows::object(&self.link, &mut found, kept, for_long);
        let Some(mut object) = object else {
            self.is_damaged(found.id);
            return Some((None, any));
        };
        // Of several only the one is read.
        if let Body::Rows(rows) = &object.body
            && found.pieces == 0
        {
            match rows.whole().await {
                Some(body) => object.body = rows::in_memory(body, for_long),
                None if rows.is_given_up() => self.is_damaged(found.id),
                None => {}
            }
            if matches!(object.body, Body::Rows(_)) {
                return Some((None, any));
            }
        }
        Some((Some(Rc::new(object)), any))
    }

    /// What can be read of it.
    fn decode(&self, key: &[u8], found: Vec<Found>) -> Vec<(Found, Kept)> {
        let decoded = found.into_iter().filter_map(|found| {
            let mut kept = match rows::decode(key, &found.head) {
                Ok(kept) => kept,
                // Another node may be of another version: it goes on using what it has.
                Err(FormatError::Version) => return None,
                Err(_) => {
                    self.is_damaged(found.id);
                    return None;
                }
            };
            // What was imported has it in its head.
            kept.stored.purged = found.outdated.or(kept.stored.purged);
            Some((found, kept))
        });
        decoded.collect()
    }

    fn is_damaged(&self, id: i64) {
        let counters = self.region.counters(1 + self.worker);
        counters.add(Counter::CacheDamaged, 1);
        self.discard(id);
    }

    /// Removes it when there is time.
    fn discard(&self, id: i64) {
        let link = self.link.clone();
        tokio::task::spawn_local(async move {
            let discard = async |session: &session::Session| session.discard(&[id]).await;
            link.ask(What::Writing, discard).await
        });
    }

    /// Which changes are known here. To be read before the version of what is to be stored is compared: a change that is
    /// not known yet shows in the database, one that is shows in the version.
    fn known(&self) -> Known {
        let distant = self.region.distant();
        let incarnation = distant.incarnation();
        Known {
            incarnation,
            applied: distant.applied(),
        }
    }

    /// The version after a change of our own; `seen` was current before it.
    fn changed(&self, key: &Key, change: u64, seen: Version) -> Version {
        if change == 0 {
            return seen;
        }
        self.coherence.bump(key::hash(key.as_bytes()));
        self.region.distant().applied_next(change);
        seen.next()
    }

    async fn refresh(self: Rc<Self>, key: Key, old: Rc<Object>, object: Rc<Object>, seen: Version) {
        let Some(row) = old.in_row else { return };
        let hash = key::hash(key.as_bytes());
        let known = self.known();
        // What was changed since the request was sent is not spoken of by its answer.
        if self.coherence.read(hash) != seen {
            return;
        }
        let checksums = match &object.body {
            Body::Memory(body) => crate::store::disk::format::checksums(body),
            Body::Rows(rows) => rows.checksums().to_vec(),
            Body::File(_) | Body::Growing(_) => return,
        };
        let name = object.stored.name(key.as_bytes());
        let head = rows::encode(key.as_bytes(), row.id, &object.stored, checksums);
        let refresh = async |session: &session::Session| {
            let new = Refreshed {
                row,
                name: &name,
                hash,
                head: &head,
                old: &old.stored,
                stored: &object.stored,
            };
            session.refresh(&new, known).await
        };
        match self.link.ask(What::Writing, refresh).await {
            Some((outcome, itself)) if outcome.kept => {
                let now = self.changed(&key, outcome.change, seen);
                // Ours is the only change since, or else the database knows better.
                if itself && self.coherence.read(hash) == now {
                    self.keep_copy(key.as_bytes(), &object, now);
                }
            }
            Some(_) => {
                self.forget_copies(key.as_bytes());
            }
            // Nobody knows whether it has been done.
            None => self.coherence.bump(hash),
        }
    }

    /// How much was there. None: the database could not be told, which stays owed.
    async fn invalidate(self: Rc<Self>, key: Key, ticket: Ticket) -> Option<u64> {
        let name = Name::of(key.as_bytes());
        let hash = key::hash(key.as_bytes());
        let purge = async |session: &session::Session| session.purge(&name, hash).await;
        match self.link.ask(What::Writing, purge).await {
            Some((removed, change)) if change > 0 => {
                self.coherence.bump(hash);
                let distant = self.region.distant();
                distant.applied_next(change);
                distant.paid(ticket);
                // Where another change came before it, the janitor is about to say so; what is stored next must not be
                // taken for what this one has overtaken.
                let until = Instant::now() + CATCHING_UP;
                while distant.applied() < change && Instant::now() < until {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Some(removed)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
