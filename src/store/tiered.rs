//! The disk store with memory over it: small bodies, and open files of larger ones.
//!
//! A worker keeps copies of what it serves often, under the version that was current before it read them; the files
//! belong to all. A change of the files is told to all by the version, and an invalidation is told twice, before
//! its files go and after: who writes meanwhile finds out when it is his turn, and who reads keeps a copy of a
//! version that is no longer current.

mod changing;
mod filling;
mod reading;
mod recent;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::disk::Disk;
use super::disk::format::INLINE;
use super::disk::place::cost;
use super::lasting::within;
use super::{Coherence, Find, Hot, NotKept, Object, Store, Version};
use crate::cache::{Key, Stored, key};
use crate::http::Headers;
use crate::shared::Region;
pub use filling::Filling;
use reading::object;
use recent::Recent;

/// How long a response is held back for a disk; what takes longer goes on without it.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long the disk is waited for, where it may have what is asked for; then the origin server is asked.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// How long an invalidation may hold a response back: what others see after it must not be of before.
const INVALIDATION_PATIENCE: Duration = Duration::from_secs(45);
/// Octets of bodies on their way to the disk, over all responses of a worker.
const MAX_ARRIVING: u64 = 128 << 20;
/// Space is reserved in steps of this.
const STEP: u64 = 1 << 20;

/// Bodies up to this size are kept in memory; larger ones leave from their files as fast.
const IN_MEMORY: u64 = 32 << 10;

pub struct Tiered<C: Coherence + 'static> {
    inner: Rc<Inner<C>>,
}

struct Inner<C: Coherence> {
    /// Small bodies, bounded in octets.
    memory: Option<Hot<Rc<C>>>,
    /// Open files, bounded in number.
    files: Option<Hot<Rc<C>>>,
    /// What was not among them.
    missed: Recent,
    coherence: Rc<C>,
    disk: Rc<Disk>,
    max_object: u64,
    /// Octets of bodies in memory that are on their way to the disk.
    arriving: Cell<u64>,
    /// Nothing is stored any more: another instance may have the directory.
    closed: Cell<bool>,
    /// The directory is being looked at.
    looking: Cell<bool>,
}

impl<C: Coherence + 'static> Tiered<C> {
    /// `memory`: octets for small bodies; `files`: how many are kept open. 0: none.
    pub fn new(
        path: &Path,
        region: Region,
        worker: usize,
        (memory, files): (u64, usize),
        max_object: u64,
        coherence: C,
    ) -> Self {
        let coherence = Rc::new(coherence);
        let in_memory = if memory > 0 { IN_MEMORY } else { 0 };
        let disk = Disk::new(path, region, worker, in_memory);
        let memory = (memory > 0).then(|| Hot::new(memory, IN_MEMORY, coherence.clone()));
        let missed = Recent::new(files);
        let files = (files > 0).then(|| Hot::of_files(files, coherence.clone()));
        Tiered {
            inner: Rc::new(Inner {
                memory,
                files,
                missed,
                coherence,
                disk,
                max_object,
                arriving: Cell::new(0),
                closed: Cell::new(false),
                looking: Cell::new(false),
            }),
        }
    }

    /// What is in memory, or an open file, for a request: the first thing that `find` looks at.
    pub fn copy(&self, key: &[u8], request: &Headers) -> Option<Rc<Object>> {
        self.inner.copy(key, request)
    }

    /// The second thing that `find` looks at, where `copy` has nothing.
    pub fn find_on_disk(&self, key: &[u8], request: &Headers) -> Find {
        let version = self.version(key);
        let looked = self.inner.disk.find(key, request);
        self.inner.found(key, looked, version)
    }

    /// From now on nothing is stored, not even what has begun to arrive.
    pub fn close(&self) {
        self.inner.closed.set(true);
    }

    /// Now and then: closes files that have been removed, and looks whether the directory is still where it was.
    pub async fn look_after(&self) {
        self.inner.files.iter().for_each(Hot::sweep);
        self.inner.disk.tell_rest();
        // One look at a time, however long the disk takes for it.
        if !self.inner.looking.replace(true) {
            self.inner.disk.open_again().await;
            self.inner.looking.set(false);
        }
    }

    pub fn disk(&self) -> &Disk {
        &self.inner.disk
    }
}

impl<C: Coherence + 'static> Store for Tiered<C> {
    type Writer = Filling<C>;

    fn find(&self, key: &[u8], request: &Headers) -> Find {
        match self.copy(key, request) {
            Some(object) => Find::Object(object),
            None => self.find_on_disk(key, request),
        }
    }

    async fn look(&self, key: &[u8], request: &Headers) -> Find {
        let version = self.version(key);
        let (disk, own, request) = (self.inner.disk.clone(), key.to_vec(), request.clone());
        // What it finds out is heeded, also when nobody waits for the answer any more.
        let asked = async move { disk.look(&own, &request).await };
        match within(LOOK_PATIENCE, asked).await {
            Some(looked) => self.inner.found(key, looked, version),
            None => Find::Absent,
        }
    }

    async fn variants(&self, key: &[u8]) -> Vec<Rc<Object>> {
        let (disk, own) = (self.inner.disk.clone(), key.to_vec());
        let asked = async move { disk.variants(&own).await };
        let found = within(LOOK_PATIENCE, asked).await.unwrap_or_default();
        found.into_iter().filter_map(object).map(Rc::new).collect()
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
        Filling::begin(&self.inner, key, stored, expected, seen)
    }

    async fn refresh(
        &self,
        key: &[u8],
        old: &Rc<Object>,
        new: Stored,
        seen: Version,
    ) -> Rc<Object> {
        let object = Rc::new(old.refreshed(new));
        let work = Inner::refresh(
            self.inner.clone(),
            Key::from(key),
            old.clone(),
            object.clone(),
            seen,
        );
        within(PATIENCE, work).await;
        object
    }

    async fn invalidate(&self, key: &[u8]) -> bool {
        let work = Inner::invalidate(self.inner.clone(), Key::from(key));
        match within(INVALIDATION_PATIENCE, work).await {
            Some(had) => had,
            None => self.inner.lose(key::hash(key)),
        }
    }
}

/// Octets of the disk that an object takes, about; of its files, once they are written, exactly.
fn space(head: u64, body: u64) -> u64 {
    if body <= INLINE as u64 {
        cost(head + body)
    } else {
        cost(head) + cost(body)
    }
}

#[cfg(test)]
mod tests;
