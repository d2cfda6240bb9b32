//! An object whose body is arriving: in memory, within a budget for all that are on their way.

use std::rc::Rc;

use bytes::Bytes;

use super::Inner;
use crate::cache::{Key, key};
use crate::store::{Coherence, InFile, Object, Octets, Promise, SoFar, Version, Writer};

/// An object whose body is arriving.
pub struct Filling<C: Coherence> {
    inner: Rc<Inner<C>>,
    key: Key,
    promise: Promise,
    seen: Version,
    body: Vec<u8>,
    /// Octets of `body` that are in `Inner::arriving`.
    counted: u64,
}

impl<C: Coherence> Writer for Filling<C> {
    fn write(&mut self, data: &[u8]) -> bool {
        let length = (self.body.len() + data.len()) as u64;
        let arriving = self.inner.arriving.get() + data.len() as u64;
        let fits = length <= self.promise.expected().unwrap_or(self.inner.max_object)
            && length <= self.inner.max_object
            && arriving <= self.inner.max_arriving;
        if fits {
            self.inner.arriving.set(arriving);
            self.counted += data.len() as u64;
            self.body.extend_from_slice(data);
        }
        fits
    }

    async fn room(&mut self) -> bool {
        true
    }

    fn promise(&self) -> &Promise {
        &self.promise
    }

    fn promise_mut(&mut self) -> &mut Promise {
        &mut self.promise
    }

    async fn so_far(&mut self) -> Option<SoFar> {
        Some(SoFar::new(None, Bytes::copy_from_slice(&self.body)))
    }

    fn in_file(&self) -> Option<InFile> {
        None
    }

    async fn finish(mut self) -> Option<Rc<Object>> {
        let body = std::mem::take(&mut self.body);
        if !self.promise.is_kept_by(body.len() as u64) || self.is_overtaken() {
            return None;
        }
        let body = Octets::kept(body).await?;
        // Once more, as that may have taken its time.
        if self.is_overtaken() {
            return None;
        }
        let hash = key::hash(self.key.as_bytes());
        if self.promise.replaces() {
            self.inner.coherence.bump(hash);
            self.seen = self.seen.next();
            // Somebody else has changed it at the same time.
            if self.inner.coherence.read(hash) != self.seen {
                return None;
            }
        }
        let object = Rc::new(Object::new(self.promise.take_stored()?, body));
        self.inner.add(self.key.clone(), object.clone(), self.seen);
        Some(object)
    }
}

impl<C: Coherence> Filling<C> {
    pub(super) fn new(
        inner: Rc<Inner<C>>,
        key: Key,
        promise: Promise,
        seen: Version,
        at_once: usize,
    ) -> Filling<C> {
        Filling {
            inner,
            key,
            promise,
            seen,
            body: Vec::with_capacity(at_once),
            counted: 0,
        }
    }

    /// Whether something has been changed since its request was sent, or there is more of it already.
    fn is_overtaken(&self) -> bool {
        let key = self.key.as_bytes();
        self.inner.coherence.read(key::hash(key)) != self.seen
            || self.inner.has_more(key, self.promise.stored())
    }
}

impl<C: Coherence> Drop for Filling<C> {
    fn drop(&mut self) {
        self.inner
            .arriving
            .set(self.inner.arriving.get() - self.counted);
    }
}
