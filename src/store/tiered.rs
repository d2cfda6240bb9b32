//! The disk store with memory over it: small bodies, and open files of larger ones.
//!
//! A worker keeps copies of what it serves often, under the version that was current before it read them; the files
//! belong to all. A change of the files is told to all by the version, and an invalidation is told twice, before
//! its files go and after: who writes meanwhile finds out when it is his turn, and who reads keeps a copy of a
//! version that is no longer current.

mod recent;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::disk::format::{BLOCK, INLINE};
use super::disk::lookup::{Found, FoundBody, Looked};
use super::disk::place::cost;
use super::disk::write::{Done, New, NewBody, Spill};
use super::disk::{Disk, OnDisk, Reservation};
use super::{
    Body, BodyFile, Coherence, Find, Hot, InFile, NotKept, Object, SoFar, Store, Version, Writer,
};
use crate::cache::{Key, Name, Part, Stored, key};
use crate::http::Headers;
use crate::shared::Region;
use crate::wire::buffers;
use recent::Recent;

/// How long a response is held back for a disk; what takes longer goes on without it.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long the disk is waited for, where it may have what is asked for; then the origin server is asked.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// How long the octets of a body wait for a disk that is slower than the network, before it is not kept.
const SPILL_PATIENCE: Duration = Duration::from_secs(2);
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
        let asked = tokio::task::spawn_local(async move { disk.look(&own, &request).await });
        match timeout(LOOK_PATIENCE, asked).await {
            Ok(Ok(looked)) => self.inner.found(key, looked, version),
            _ => Find::Absent,
        }
    }

    async fn variants(&self, key: &[u8]) -> Vec<Rc<Object>> {
        let (disk, own) = (self.inner.disk.clone(), key.to_vec());
        let asked = tokio::task::spawn_local(async move { disk.variants(&own).await });
        match timeout(LOOK_PATIENCE, asked).await {
            Ok(Ok(found)) => found.into_iter().filter_map(object).map(Rc::new).collect(),
            _ => Vec::new(),
        }
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
        let name = Name::of(key.as_bytes());
        let head = stored.memory() as u64 + key.as_bytes().len() as u64;
        let whole = space(head, expected.unwrap_or(0));
        if whole > inner.disk.limit() {
            return Err(NotKept::Full);
        }
        // Of what is only promised, no more than a step: a promise must not throw out what is there.
        let reservation = inner.disk.reserve(&name, whole.min(STEP))?;
        Ok(Filling {
            generation: inner.disk.generation(),
            inner: inner.clone(),
            key,
            name,
            head,
            stored: Some(stored),
            expected,
            seen,
            length: 0,
            buffer: match expected {
                Some(length) if length <= buffers::ORDINARY as u64 => {
                    Vec::with_capacity(length as usize)
                }
                _ => buffers::take_large(),
            },
            counted: Counted::none(inner),
            reservation: Some(reservation),
            spilling: Spilling::No,
            in_file: None,
            replaces: false,
        })
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
        let _ = timeout(PATIENCE, tokio::task::spawn_local(work)).await;
        object
    }

    async fn invalidate(&self, key: &[u8]) -> bool {
        let work = Inner::invalidate(self.inner.clone(), Key::from(key));
        match timeout(INVALIDATION_PATIENCE, tokio::task::spawn_local(work)).await {
            Ok(Ok(Some(had))) => had,
            // What may not be served any more and cannot be removed takes everything with it.
            _ => {
                self.inner.disk.give_up();
                // Who read it meanwhile has a copy of what was current after the first word.
                self.inner.coherence.bump(key::hash(key));
                true
            }
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

// === reading

impl<C: Coherence> Inner<C> {
    fn tiers(&self) -> impl Iterator<Item = &Hot<Rc<C>>> {
        self.memory.iter().chain(&self.files)
    }

    fn copy(&self, key: &[u8], request: &Headers) -> Option<Rc<Object>> {
        for tier in self.tiers() {
            let Some(object) = tier.get(key, request) else {
                continue;
            };
            if object.body.is_kept() {
                object.on_disk.iter().for_each(|at| self.disk.used(at));
                return Some(object);
            }
            tier.forget(key);
        }
        None
    }

    fn found(&self, key: &[u8], looked: Looked, version: Version) -> Find {
        match looked {
            Looked::Absent => Find::Absent,
            Looked::Later => Find::AskDisk,
            Looked::OtherVariant => Find::OtherVariant,
            Looked::Found(found) => match object(*found) {
                Some(object) => {
                    let object = Rc::new(object);
                    object.on_disk.iter().for_each(|at| self.disk.used(at));
                    if self.deserves_a_place(key, &object.body) {
                        self.keep_copy(key, &object, version);
                    }
                    Find::Object(object)
                }
                None => Find::Absent,
            },
        }
    }

    /// Whether what is not in its tier should be.
    fn deserves_a_place(&self, key: &[u8], body: &Body) -> bool {
        match (body, &self.files) {
            (Body::File(_), Some(files)) => {
                // Also where there is a place: it may be gone by the next time.
                let again = self.missed.again(key::hash(key));
                again || !files.is_full()
            }
            _ => true,
        }
    }

    /// In memory or as an open file, as its body is.
    fn keep_copy(&self, key: &[u8], object: &Rc<Object>, version: Version) {
        self.forget_other(key, object);
        if let Some(tier) = self.tier_of(&object.body) {
            tier.keep(key, object.clone(), version);
        }
    }

    /// What `object` takes the place of may be in the other tier.
    fn forget_other(&self, key: &[u8], object: &Object) {
        let other = match &object.body {
            Body::Memory(_) => &self.files,
            Body::File(_) => &self.memory,
            Body::Growing(_) | Body::Rows(_) => return,
        };
        if let Some(tier) = other {
            tier.forget_variant(key, &object.stored.selection);
        }
    }

    fn tier_of(&self, body: &Body) -> Option<&Hot<Rc<C>>> {
        match body {
            Body::Memory(_) => self.memory.as_ref(),
            Body::File(_) => self.files.as_ref(),
            Body::Growing(_) | Body::Rows(_) => None,
        }
    }

    fn forget_copies(&self, key: &[u8]) -> bool {
        self.tiers().fold(false, |any, tier| tier.forget(key) | any)
    }
}

fn object(found: Found) -> Option<Object> {
    let body = match found.content {
        FoundBody::Memory(body) => Body::Memory(body.into()),
        FoundBody::File {
            file,
            from,
            trusted,
        } => Body::File(Arc::new(
            BodyFile::new(file, from, &found.kept, trusted).ok()?,
        )),
    };
    Some(Object {
        stored: found.kept.stored,
        head: found.kept.text,
        body,
        on_disk: Some(found.on_disk),
        in_row: None,
    })
}

// === changing

impl<C: Coherence> Inner<C> {
    /// Makes an object visible to all, unless something has changed since its request was sent.
    async fn publish(
        self: Rc<Self>,
        key: Key,
        seen: Version,
        new: New,
        reserved: Reservation,
        replaces: bool,
    ) -> Option<Rc<Object>> {
        let hash = key::hash(key.as_bytes());
        let is_small = matches!(&new.body, NewBody::Inline(body) if body.len() as u64 <= self.disk.in_memory());
        let mut done = self.disk.put(new, reserved).await?;
        let inline = is_small.then(|| exactly(&mut done.inline));
        buffers::give(&mut done.inline);
        let object = Rc::new(stored_object(done, inline)?);
        let mut seen = seen;
        if replaces {
            self.coherence.bump(hash);
            seen = seen.next();
        }
        self.forget_other(key.as_bytes(), &object);
        // Ours is the only change since, or else the files know better.
        if self.coherence.read(hash) == seen
            && let Some(tier) = self.tier_of(&object.body)
            // What it takes the place of there has to go, and all must hear of that.
            && (tier.holds(key.as_bytes()) || self.deserves_a_place(key.as_bytes(), &object.body))
        {
            tier.add(key, object.clone(), seen);
        }
        Some(object)
    }

    async fn refresh(self: Rc<Self>, key: Key, old: Rc<Object>, object: Rc<Object>, seen: Version) {
        let Some(on_disk) = &old.on_disk else { return };
        let hash = key::hash(key.as_bytes());
        // What was changed since the request was sent is not spoken of by its answer: nor is it by one that comes while
        // an invalidation is between its two words.
        if self.coherence.read(hash) != seen {
            return;
        }
        let new = New {
            key: key.as_bytes().to_vec(),
            generation: self.disk.generation(),
            stored: object.stored.clone(),
            body: NewBody::Inline(Vec::new()),
            aside: self.disk.aside(),
            replaces: true,
            seen: Some(self.disk.seen(seen)),
        };
        let known = old.stored.clone();
        if self.disk.refresh(on_disk, known, new).await.is_none() {
            self.forget_copies(key.as_bytes());
            return;
        }
        self.coherence.bump(hash);
        let now = self.coherence.read(hash);
        // Ours is the only change since, or else the files know better.
        if now == seen.next() {
            self.keep_copy(key.as_bytes(), &object, now);
        }
    }

    /// Whether there was something; none: the disk refused to remove it.
    async fn invalidate(self: Rc<Self>, key: Key) -> Option<bool> {
        let hash = key::hash(key.as_bytes());
        let had_copy = self.forget_copies(key.as_bytes());
        self.coherence.bump(hash);
        let name = Name::of(key.as_bytes());
        if !self.disk.may_hold(&name) {
            return Some(had_copy);
        }
        let removed = self.disk.remove(name).await?;
        self.coherence.bump(hash);
        Some(had_copy || removed > 0)
    }
}

/// The octets in as much memory as they need: a buffer of that size is taken, of a larger one they are copied.
fn exactly(buffer: &mut Vec<u8>) -> Bytes {
    match buffer.len() == buffer.capacity() {
        true => std::mem::take(buffer).into(),
        false => Bytes::copy_from_slice(buffer),
    }
}

fn stored_object(done: Done, inline: Option<Bytes>) -> Option<Object> {
    let body = match inline {
        Some(body) => Body::Memory(body),
        None => Body::File(Arc::new(
            BodyFile::new(done.file, done.from, &done.kept, true).ok()?,
        )),
    };
    Some(Object {
        stored: done.kept.stored,
        head: done.kept.text,
        body,
        on_disk: Some(OnDisk::new(done.name, done.kept.list)),
        in_row: None,
    })
}

// === filling

/// An object whose body is arriving.
pub struct Filling<C: Coherence + 'static> {
    inner: Rc<Inner<C>>,
    key: Key,
    name: Name,
    /// Octets of the head file without a body, about.
    head: u64,
    /// Taken when it finishes.
    stored: Option<Stored>,
    expected: Option<u64>,
    seen: Version,
    generation: u64,
    /// Octets that have arrived.
    length: u64,
    /// Those of them that have not gone to the disk.
    buffer: Vec<u8>,
    counted: Counted<C>,
    reservation: Option<Reservation>,
    spilling: Spilling,
    /// What the disk has of it.
    in_file: Option<InFile>,
    replaces: bool,
}

/// Octets that are in `Inner::arriving`, as long as they are in memory: also while the disk has them and nobody waits for it.
struct Counted<C: Coherence> {
    inner: Rc<Inner<C>>,
    octets: u64,
}

impl<C: Coherence> Counted<C> {
    fn none(inner: &Rc<Inner<C>>) -> Self {
        Counted {
            inner: inner.clone(),
            octets: 0,
        }
    }

    /// All of it, for who has the octets from now on.
    fn take(&mut self) -> Self {
        let none = Counted::none(&self.inner);
        std::mem::replace(self, none)
    }
}

impl<C: Coherence> Drop for Counted<C> {
    fn drop(&mut self) {
        let arriving = &self.inner.arriving;
        arriving.set(arriving.get() - self.octets);
    }
}

/// How far a body that is too large for memory has got.
enum Spilling {
    No,
    Idle(Spill),
    Busy(JoinHandle<Option<Spill>>),
    /// Nobody waits for the disk any more, which is busy still.
    Late(JoinHandle<Option<Spill>>),
    Failed,
}

impl<C: Coherence + 'static> Writer for Filling<C> {
    fn write(&mut self, data: &[u8]) -> bool {
        let length = self.length + data.len() as u64;
        let most = self.expected.unwrap_or(u64::MAX).min(self.inner.max_object);
        let arriving = self.inner.arriving.get() + data.len() as u64;
        if length > most || arriving > MAX_ARRIVING || !self.has_space(length) {
            return false;
        }
        self.length = length;
        self.inner.arriving.set(arriving);
        self.counted.octets += data.len() as u64;
        self.buffer.extend_from_slice(data);
        true
    }

    async fn room(&mut self) -> bool {
        if self.length <= INLINE as u64 || self.buffer.len() < BLOCK {
            return true;
        }
        if !self.is_idle().await {
            return false;
        }
        let data = std::mem::replace(&mut self.buffer, buffers::take_large());
        self.spill(data);
        true
    }

    fn stored(&self) -> Option<&Stored> {
        self.stored.as_ref()
    }

    async fn so_far(&mut self) -> Option<SoFar> {
        let is_idle = self.is_idle().await;
        is_idle.then(|| SoFar::new(self.in_file.clone(), Bytes::copy_from_slice(&self.buffer)))
    }

    fn in_file(&self) -> Option<InFile> {
        self.in_file.clone()
    }

    fn replace(&mut self) {
        self.replaces = true;
    }

    fn keep_as(&mut self, part: Part) {
        self.expected = None;
        if let Some(stored) = &mut self.stored {
            stored.keep_as(part);
        }
    }

    async fn finish(mut self) -> Option<Rc<Object>> {
        if self.expected.is_some_and(|length| length != self.length) || !self.is_current() {
            return None;
        }
        let body = if self.length <= INLINE as u64 {
            NewBody::Inline(std::mem::take(&mut self.buffer))
        } else {
            self.spill_rest().await?
        };
        let new = New {
            key: self.key.as_bytes().to_vec(),
            generation: self.generation,
            stored: self.stored.take()?,
            body,
            aside: self.inner.disk.aside(),
            replaces: self.inner.disk.may_hold(&self.name),
            seen: Some(self.inner.disk.seen(self.seen)),
        };
        let reserved = self.reservation.take()?;
        let publish = Inner::publish(
            self.inner.clone(),
            self.key.clone(),
            self.seen,
            new,
            reserved,
            self.replaces,
        );
        let counted = self.counted.take();
        let publish = async move {
            let published = publish.await;
            drop(counted);
            published
        };
        let done = timeout(PATIENCE, tokio::task::spawn_local(publish)).await;
        done.ok()?.ok()?
    }
}

impl<C: Coherence + 'static> Filling<C> {
    fn is_current(&self) -> bool {
        let version = self.inner.coherence.read(key::hash(self.key.as_bytes()));
        version == self.seen
            && self.inner.disk.generation() == self.generation
            && !self.inner.closed.get()
    }

    /// Whether space is reserved for a body of that length.
    fn has_space(&mut self, length: u64) -> bool {
        let Some(reservation) = &mut self.reservation else {
            return false;
        };
        let missing = space(self.head, length).saturating_sub(reservation.octets());
        if missing == 0 {
            return true;
        }
        let most = self.expected.map_or(u64::MAX, |whole| {
            space(self.head, whole).saturating_sub(reservation.octets())
        });
        let step = if length > INLINE as u64 { STEP } else { 0 };
        reservation.more(missing.max(step.min(most)))
    }

    /// Waits until what was given to the disk is there.
    async fn is_idle(&mut self) -> bool {
        // Whoever waits may be left in the middle of it, by a client that goes away: then it is still being written.
        if let Spilling::Busy(writing) = &mut self.spilling {
            let written = timeout(SPILL_PATIENCE, writing).await;
            let before = std::mem::replace(&mut self.spilling, Spilling::Failed);
            self.spilling = match (written, before) {
                (Ok(Ok(Some(spill))), _) => Spilling::Idle(spill),
                (Err(_), Spilling::Busy(writing)) => Spilling::Late(writing),
                _ => Spilling::Failed,
            };
        }
        if let Spilling::Idle(spill) = &self.spilling {
            self.in_file = spill.so_far();
        }
        !matches!(self.spilling, Spilling::Failed | Spilling::Late(_))
    }

    /// Begins to write `data` to the disk; nothing else is being written.
    fn spill(&mut self, data: Vec<u8>) {
        let counted = self.counted.take();
        let begun = match std::mem::replace(&mut self.spilling, Spilling::Failed) {
            Spilling::Idle(spill) => Some(spill),
            _ => None,
        };
        let (disk, aside) = (self.inner.disk.clone(), self.inner.disk.aside());
        self.spilling = Spilling::Busy(tokio::task::spawn_local(async move {
            let written = disk.run(move |place| {
                let mut spill = match begun {
                    Some(spill) => spill,
                    None => Spill::create(place.clone(), aside)?,
                };
                spill.write(&data)?;
                Ok((spill, data))
            });
            let written = written.await;
            drop(counted);
            let (spill, mut data) = written?;
            buffers::give(&mut data);
            Some(spill)
        }));
    }

    async fn spill_rest(&mut self) -> Option<NewBody> {
        if !self.is_idle().await {
            return None;
        }
        if !self.buffer.is_empty() {
            let data = std::mem::take(&mut self.buffer);
            self.spill(data);
        }
        if !self.is_idle().await {
            return None;
        }
        match std::mem::replace(&mut self.spilling, Spilling::No) {
            Spilling::Idle(spill) => Some(NewBody::File(spill)),
            _ => None,
        }
    }
}

impl<C: Coherence + 'static> Drop for Filling<C> {
    fn drop(&mut self) {
        buffers::give(&mut self.buffer);
        // Its file is removed where that may take its time, and takes its space until then.
        let reservation = self.reservation.take();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        match std::mem::replace(&mut self.spilling, Spilling::No) {
            Spilling::Idle(spill) => {
                drop(runtime.spawn_blocking(move || drop((spill, reservation))));
            }
            Spilling::Busy(writing) | Spilling::Late(writing) => drop(runtime.spawn(async move {
                let written = writing.await;
                let _ = tokio::task::spawn_blocking(move || drop((written, reservation))).await;
            })),
            Spilling::No | Spilling::Failed => {}
        }
    }
}

#[cfg(test)]
mod tests;
