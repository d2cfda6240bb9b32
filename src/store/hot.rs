//! The memory store of one worker: bounded in octets, admission by frequency.
//!
//! Single-threaded; each worker keeps its own copies, and the version table makes refreshing and invalidating
//! reach all of them. An entry remembers the version that was current before its request was sent; any other
//! version now means that it may be out of date, and it is dropped. Bodies that are still arriving have a budget
//! of their own, so that many at once cannot take memory without bound.

mod census;
mod filling;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use super::{Coherence, Fate, Find, MAX_VARIANTS, NotKept, Object, Promise, Store, Version};
use crate::cache::vary::{Match, Selection};
use crate::cache::{Key, Stored, key};
use crate::http::Headers;
pub use filling::Filling;

/// What bookkeeping costs an entry, about.
const OVERHEAD: usize = 96;
/// How many octets an object usually has; it only sizes tables.
const USUAL_OBJECT: u64 = 16 << 10;
/// A body of known length up to this is given its memory at once.
const AT_ONCE: u64 = 1 << 20;

pub struct Hot<C: Coherence> {
    inner: Rc<Inner<C>>,
}

struct Inner<C> {
    entries: RefCell<Cache<Key, Variants, Weigh>>,
    coherence: C,
    max_object: u64,
    /// Octets of bodies that are arriving, and how many there may be.
    arriving: Cell<u64>,
    max_arriving: u64,
}

/// The variants of one key, the newest last.
type Variants = Vec<Kept>;

#[derive(Clone)]
struct Kept {
    object: Rc<Object>,
    version: Version,
}

/// Where an object that is being refreshed stands now.
enum Place {
    Kept,
    /// Another request has refreshed it already.
    Refreshed,
    Outdated,
    Gone,
}

/// What the capacity counts.
#[derive(Clone)]
enum Weigh {
    Octets,
    Objects,
}

impl Weighter<Key, Variants> for Weigh {
    fn weight(&self, key: &Key, variants: &Variants) -> u64 {
        if matches!(self, Weigh::Objects) {
            return variants.len().max(1) as u64;
        }
        let objects: usize = variants.iter().map(|kept| kept.object.memory()).sum();
        (OVERHEAD + key.as_bytes().len() + objects) as u64
    }
}

impl<C: Coherence> Hot<C> {
    /// `capacity` in octets; objects larger than `max_object`, or than a quarter of the capacity, are not kept.
    pub fn new(capacity: u64, max_object: u64, coherence: C) -> Hot<C> {
        let items = (capacity / USUAL_OBJECT).clamp(16, 1 << 20) as usize;
        Hot {
            inner: Rc::new(Inner {
                entries: RefCell::new(Cache::with_weighter(items, capacity, Weigh::Octets)),
                coherence,
                max_object: max_object.min(capacity / 4),
                arriving: Cell::new(0),
                max_arriving: capacity / 2,
            }),
        }
    }

    /// Of objects whose bodies are open files, so many of them.
    pub fn of_files(count: usize, coherence: C) -> Hot<C> {
        Hot {
            inner: Rc::new(Inner {
                entries: RefCell::new(Cache::with_weighter(count, count as u64, Weigh::Objects)),
                coherence,
                max_object: u64::MAX,
                arriving: Cell::new(0),
                max_arriving: 0,
            }),
        }
    }

    /// What this request selects of the current version.
    pub fn get(&self, key: &[u8], request: &Headers) -> Option<Rc<Object>> {
        let current = self.inner.coherence.read(key::hash(key));
        let (best, outdated) = self.inner.select(key, request, current)?;
        if outdated && self.inner.bring_up_to_date(key, current) {
            // What has survived a purge may be what is asked for.
            return self.inner.select(key, request, current)?.0;
        }
        best
    }

    /// Keeps a copy of what a lower store has; `version` was read before it was read there.
    pub fn keep(&self, key: &[u8], object: Rc<Object>, version: Version) {
        self.inner.keep(Key::from(key), object, version);
    }

    /// Adds an object whose request was sent at version `seen`, which is still current.
    pub fn add(&self, key: Key, object: Rc<Object>, seen: Version) {
        self.inner.add(key, object, seen);
    }

    /// Forgets what is kept in this process. Whether there was something that still counted.
    pub fn forget(&self, key: &[u8]) -> bool {
        let had = self.holds(key);
        self.inner.entries.borrow_mut().remove(key);
        had
    }

    /// Forgets what is kept for this selection: another tier has what took its place.
    pub fn forget_variant(&self, key: &[u8], selection: &Selection) {
        let mut entries = self.inner.entries.borrow_mut();
        let is_there = entries.peek(key).is_some_and(|variants| {
            let mut selections = variants.iter().map(|kept| &kept.object.stored.selection);
            selections.any(|other| other == selection)
        });
        if is_there && let Some((key, mut variants)) = entries.remove(key) {
            variants.retain(|kept| kept.object.stored.selection != *selection);
            if !variants.is_empty() {
                entries.insert(key, variants);
            }
        }
    }

    /// Forgets what is not worth keeping any more.
    pub fn sweep(&self) {
        let is_kept =
            |_: &Key, variants: &Variants| variants.iter().all(|kept| kept.object.body.is_kept());
        self.inner.entries.borrow_mut().retain(is_kept);
    }

    /// Octets in use, as they are counted.
    pub fn weight(&self) -> u64 {
        self.inner.entries.borrow().weight()
    }

    /// Whether something has to go for what comes.
    pub fn is_full(&self) -> bool {
        let entries = self.inner.entries.borrow();
        entries.weight() >= entries.capacity()
    }

    /// Keys with something under them.
    pub fn len(&self) -> usize {
        self.inner.entries.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<C: Coherence> Store for Hot<C> {
    type Writer = Filling<C>;

    fn find(&self, key: &[u8], request: &Headers) -> Find {
        match self.get(key, request) {
            Some(object) => Find::Object(object),
            None => self.find_other(key),
        }
    }

    async fn look(&self, key: &[u8], request: &Headers) -> Find {
        self.find(key, request)
    }

    async fn variants(&self, key: &[u8]) -> Vec<Rc<Object>> {
        self.current(key)
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
        if expected.is_some_and(|length| length > self.inner.max_object) {
            return Err(NotKept::TooLarge);
        }
        let at_once = expected.filter(|&length| length <= AT_ONCE).unwrap_or(0);
        if self.inner.arriving.get() + at_once > self.inner.max_arriving {
            return Err(NotKept::Full);
        }
        let (inner, promise) = (self.inner.clone(), Promise::new(stored, expected));
        Ok(Filling::new(inner, key, promise, seen, at_once as usize))
    }

    // What is held here remembers its own version.
    async fn refresh(
        &self,
        key: &[u8],
        old: &Rc<Object>,
        new: Stored,
        _seen: Version,
    ) -> Rc<Object> {
        let object = Rc::new(old.refreshed(new));
        let current = self.inner.settle(key);
        match self.inner.place_of(key, old, current) {
            Place::Kept => self.inner.replace(key, object.clone(), current),
            // Requests that were revalidated at the same time need not undo each other's work.
            Place::Refreshed => {}
            // Somebody has changed it since, and told all; what we hold is of before.
            Place::Outdated => drop(self.inner.bring_up_to_date(key, current)),
            Place::Gone => drop(self.forget_everywhere(key)),
        }
        object
    }

    async fn invalidate(&self, key: &[u8]) -> bool {
        self.forget_everywhere(key)
    }
}

impl<C: Coherence> Hot<C> {
    /// What there is for a request that `get` has nothing for.
    pub fn find_other(&self, key: &[u8]) -> Find {
        match self.holds(key) {
            true => Find::OtherVariant,
            false => Find::Absent,
        }
    }

    /// Whether anything is kept under the key, whatever selects it.
    pub fn holds(&self, key: &[u8]) -> bool {
        let current = self.inner.settle(key);
        let entries = self.inner.entries.borrow();
        entries
            .peek(key)
            .is_some_and(|variants| variants.iter().any(|kept| kept.version == current))
    }

    fn forget_everywhere(&self, key: &[u8]) -> bool {
        let had = self.forget(key);
        self.inner.coherence.bump(key::hash(key));
        had
    }
}

impl<C: Coherence> Inner<C> {
    /// What the request selects of that version, and whether there is something of another one.
    fn select(
        &self,
        key: &[u8],
        request: &Headers,
        current: Version,
    ) -> Option<(Option<Rc<Object>>, bool)> {
        let (mut best, mut outdated) = (None, false);
        let entries = self.entries.borrow();
        for kept in entries.get(key)?.iter().rev() {
            if kept.version != current {
                outdated = true;
                continue;
            }
            // The newest of those that match best.
            if matches!(best, Some((Match::Same, _))) {
                continue;
            }
            let matches = kept.object.stored.matches(request);
            if matches > best.as_ref().map(|(matches, _)| *matches) {
                best = matches.map(|matches| (matches, kept.object.clone()));
            }
        }
        Some((best.map(|(_, object)| object), outdated))
    }

    /// Brings what is kept under the key up to date, if it is not: the current version.
    fn settle(&self, key: &[u8]) -> Version {
        let current = self.coherence.read(key::hash(key));
        let is_outdated = |variants: &Variants| variants.iter().any(|it| it.version != current);
        let outdated = self.entries.borrow().peek(key).is_some_and(is_outdated);
        if outdated {
            self.bring_up_to_date(key, current);
        }
        current
    }

    /// Drops what a change has overtaken or a purge has taken; whether anything of an older version is current now.
    fn bring_up_to_date(&self, key: &[u8], current: Version) -> bool {
        let Some((key, variants)) = self.entries.borrow_mut().remove(key) else {
            return false;
        };
        let mut survived = false;
        let mut left = Vec::with_capacity(variants.len());
        for kept in variants {
            if kept.version == current {
                left.push(kept);
            } else if let Some(kept) = self.survives(key.as_bytes(), kept, current) {
                left.push(kept);
                survived = true;
            }
        }
        if !left.is_empty() {
            self.entries.borrow_mut().insert(key, left);
        }
        survived
    }

    /// None: something has changed, or it was purged.
    fn survives(&self, key: &[u8], mut kept: Kept, current: Version) -> Option<Kept> {
        let purges = self.coherence.purges(kept.version, current)?;
        match Fate::by(&purges, key, &kept.object.stored) {
            Fate::Gone(_) => return None,
            Fate::Stays => {}
            Fate::Stale(since, _) => {
                let mut stored = kept.object.stored.clone();
                stored.purged = Some(since);
                kept.object = Rc::new(kept.object.refreshed(stored));
            }
        }
        kept.version = current;
        Some(kept)
    }

    fn place_of(&self, key: &[u8], old: &Rc<Object>, current: Version) -> Place {
        let entries = self.entries.borrow();
        let Some(variants) = entries.peek(key) else {
            return Place::Gone;
        };
        let same_body = |object: &Object| {
            object.body.is(&old.body) && object.stored.etag() == old.stored.etag()
        };
        if let Some(kept) = variants.iter().find(|kept| Rc::ptr_eq(&kept.object, old)) {
            return if kept.version == current {
                Place::Kept
            } else {
                Place::Outdated
            };
        }
        match variants
            .iter()
            .any(|kept| kept.version == current && same_body(&kept.object))
        {
            true => Place::Refreshed,
            false => Place::Gone,
        }
    }

    /// Adds an object whose request was sent at version `seen`, which is still current.
    fn add(&self, key: Key, object: Rc<Object>, seen: Version) {
        self.settle(key.as_bytes());
        // What was here before the request was sent has been replaced, and all processes must hear of it. What came in
        // the meantime is from a request of the same time, and as good: to tell others would only make them fetch again.
        let is_older = |kept: &Kept| {
            kept.version == seen
                && kept.object.stored.selection == object.stored.selection
                && kept.object.stored.times.response < object.stored.times.request
        };
        let replaces = self
            .entries
            .borrow()
            .peek(key.as_bytes())
            .is_some_and(|variants| variants.iter().any(is_older));
        if replaces {
            return self.replace(key.as_bytes(), object, seen);
        }
        self.keep(key, object, seen);
    }

    /// Whether all of it is here, where `new` is a part.
    fn has_more(&self, key: &[u8], new: Option<&Stored>) -> bool {
        let (Some(new), entries) = (new, self.entries.borrow()) else {
            return false;
        };
        let mut variants = entries.peek(key).into_iter().flatten();
        variants.any(|kept| {
            let other = &kept.object.stored;
            other.selection == new.selection && new.is_less_than(other)
        })
    }

    fn keep(&self, key: Key, object: Rc<Object>, version: Version) {
        self.settle(key.as_bytes());
        let mut variants = self.take_current(key.as_bytes(), version);
        variants.retain(|kept| kept.object.stored.selection != object.stored.selection);
        variants.push(Kept { object, version });
        self.put(key, variants);
    }

    /// Puts `object` in the place of what has its selection, and tells all processes.
    fn replace(&self, key: &[u8], object: Rc<Object>, seen: Version) {
        let mut variants = self.take_current(key, seen);
        variants.retain(|kept| kept.object.stored.selection != object.stored.selection);
        variants.push(Kept {
            object,
            version: seen,
        });
        let hash = key::hash(key);
        self.coherence.bump(hash);
        // Ours is the only change since `seen`, or else we cannot know which of the two is later.
        let now = self.coherence.read(hash);
        if now
            == (Version {
                slot: seen.slot.wrapping_add(1),
                ..seen
            })
        {
            variants.iter_mut().for_each(|kept| kept.version = now);
            self.put(Key::from(key), variants);
        }
    }

    /// Removes the entry and gives what of it is of that version.
    fn take_current(&self, key: &[u8], version: Version) -> Variants {
        let mut variants = self
            .entries
            .borrow_mut()
            .remove(key)
            .map(|(_, variants)| variants)
            // Most keys have one.
            .unwrap_or_else(|| Vec::with_capacity(1));
        variants.retain(|kept| kept.version == version);
        variants
    }

    fn put(&self, key: Key, mut variants: Variants) {
        let surplus = variants.len().saturating_sub(MAX_VARIANTS);
        variants.drain(..surplus);
        self.entries.borrow_mut().insert(key, variants);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Writer;
    use crate::store::contract::{self, Slots, put, run, stored};

    fn hot(capacity: u64, max_object: u64) -> Hot<Rc<Slots>> {
        Hot::new(capacity, max_object, Rc::new(Slots::default()))
    }

    #[test]
    fn the_contract() {
        let make = |world: &contract::World, _| Hot::new(1 << 20, 4096, world.slots.clone());
        contract::holds_for(make, 4096, false);
    }

    #[test]
    fn it_is_bounded_in_octets() {
        let store = hot(256 << 10, 1 << 20);
        run(async {
            for n in 0..2000 {
                put(&store, &format!("http://a/{n}"), &vec![b'x'; n % 3000]).await;
                assert!(store.weight() <= 256 << 10);
            }
        });
        assert!(store.weight() > 128 << 10 && store.len() > 50);
    }

    #[test]
    fn one_time_keys_do_not_flush_what_is_used() {
        let store = hot(1 << 20, 1 << 20);
        let key = |n: usize| format!("http://hot/{n}");
        let none = Headers::new();
        run(async {
            for n in 0..100 {
                put(&store, &key(n), &[b'h'; 1000]).await;
            }
            for n in 0..20_000 {
                put(&store, &format!("http://scan/{n}"), &[b's'; 1000]).await;
                store.get(key(n % 100).as_bytes(), &none);
            }
        });
        let left = (0..100)
            .filter(|&n| store.get(key(n).as_bytes(), &none).is_some())
            .count();
        assert!(left >= 95, "{left} of 100 left");
    }

    #[test]
    fn it_tells_what_it_has_and_lets_go_of_what_counts_no_more() {
        let store = hot(1 << 20, 1 << 20);
        run(async {
            for n in 0..10 {
                put(&store, &format!("http://a/{n}"), &[b'x'; 100]).await;
            }
        });
        let sum = store.sum();
        assert_eq!((sum.keys, sum.responses, sum.content), (10, 10, 1000));
        assert_eq!((sum.size, store.keys().len()), (store.weight(), 10));
        assert_eq!(store.current(b"http://a/3").len(), 1);
        // As another process would do it.
        store.inner.coherence.bump(key::hash(b"http://a/3"));
        assert_eq!((store.sum().responses, store.len()), (9, 10));
        store.forget_outdated();
        assert_eq!((store.sum().responses, store.len()), (9, 9));
        store.inner.coherence.bump(key::hash(b"http://a/4"));
        assert!(store.current(b"http://a/4").is_empty());
    }

    #[test]
    fn bodies_that_arrive_have_a_budget() {
        let store = hot(64 << 10, 16 << 10);
        let begin = |n: usize| {
            let key = format!("http://a/{n}");
            let seen = store.version(key.as_bytes());
            let begun = store.begin(Key::from(key.as_bytes()), stored(&[], &[]), None, seen);
            begun.unwrap_or_else(|reason| panic!("{reason:?}"))
        };
        let mut writers: Vec<_> = (0..4).map(begin).collect();
        let taken = writers
            .iter_mut()
            .filter_map(|writer| writer.write(&[0; 12 << 10]).then_some(()))
            .count();
        assert_eq!(taken, 2);
        drop(writers);
        assert!(begin(9).write(&[0; 12 << 10]));
        assert_eq!(store.inner.arriving.get(), 0);
    }
}
