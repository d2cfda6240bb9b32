//! An object whose body is arriving: in memory as long as it is small, and from then on in a file, a block at a time.
//!
//! The octets wait for the disk for a while and no longer: a response is not held up by where it is kept. What is in memory
//! is counted until the disk has it, and the space for it is reserved before it is written.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Inner, MAX_ARRIVING, PATIENCE, STEP, space};
use crate::cache::{Key, Name, Stored, key};
use crate::store::disk::Reservation;
use crate::store::disk::format::{BLOCK, INLINE};
use crate::store::disk::write::{New, NewBody, Spill};
use crate::store::lasting::within;
use crate::store::{Coherence, InFile, NotKept, Object, Promise, SoFar, Version, Writer};
use crate::wire::buffers;

/// How long the octets of a body wait for a disk that is slower than the network, before it is not kept.
const SPILL_PATIENCE: Duration = Duration::from_secs(2);

/// An object whose body is arriving.
pub struct Filling<C: Coherence + 'static> {
    inner: Rc<Inner<C>>,
    key: Key,
    name: Name,
    /// Octets of the head file without a body, about.
    head: u64,
    promise: Promise,
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
        let most = self
            .promise
            .expected()
            .unwrap_or(u64::MAX)
            .min(self.inner.max_object);
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

    fn promise(&self) -> &Promise {
        &self.promise
    }

    fn promise_mut(&mut self) -> &mut Promise {
        &mut self.promise
    }

    async fn so_far(&mut self) -> Option<SoFar> {
        let is_idle = self.is_idle().await;
        is_idle.then(|| SoFar::new(self.in_file.clone(), Bytes::copy_from_slice(&self.buffer)))
    }

    fn in_file(&self) -> Option<InFile> {
        self.in_file.clone()
    }

    async fn finish(mut self) -> Option<Rc<Object>> {
        if !self.promise.is_kept_by(self.length) || !self.is_current() {
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
            stored: self.promise.take_stored()?,
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
            self.promise.replaces(),
        );
        let counted = self.counted.take();
        let publish = async move {
            let published = publish.await;
            drop(counted);
            published
        };
        within(PATIENCE, publish).await?
    }
}

impl<C: Coherence + 'static> Filling<C> {
    /// Takes the space for it, as far as its length is known.
    pub(super) fn begin(
        inner: &Rc<Inner<C>>,
        key: Key,
        stored: Stored,
        expected: Option<u64>,
        seen: Version,
    ) -> Result<Filling<C>, NotKept> {
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
            promise: Promise::new(stored, expected),
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
        })
    }

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
        let most = self.promise.expected().map_or(u64::MAX, |whole| {
            space(self.head, whole).saturating_sub(reservation.octets())
        });
        let step = if length > INLINE as u64 { STEP } else { 0 };
        reservation.more(missing.max(step.min(most)))
    }

    /// Waits until what was given to the disk is there.
    pub(super) async fn is_idle(&mut self) -> bool {
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
