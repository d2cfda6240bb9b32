//! Changes that all have to hear of: an object published, brought up to date, invalidated.
//!
//! Each compares the version of the key with the one that was seen before, says that it has changed it, and keeps a copy only
//! if nobody else has.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::Inner;
use crate::cache::{Key, Name, key};
use crate::store::disk::write::{Done, New, NewBody};
use crate::store::disk::{OnDisk, Reservation};
use crate::store::{Body, BodyFile, Coherence, Object, Version};
use crate::wire::buffers;

impl<C: Coherence> Inner<C> {
    /// Makes an object visible to all, unless something has changed since its request was sent.
    pub(super) async fn publish(
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

    pub(super) async fn refresh(
        self: Rc<Self>,
        key: Key,
        old: Rc<Object>,
        object: Rc<Object>,
        seen: Version,
    ) {
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

    /// Whether there was something.
    pub(super) async fn invalidate(self: Rc<Self>, key: Key) -> bool {
        let hash = key::hash(key.as_bytes());
        let had_copy = self.forget_copies(key.as_bytes());
        self.coherence.bump(hash);
        let name = Name::of(key.as_bytes());
        if !self.disk.may_hold(&name) {
            return had_copy;
        }
        let Some(removed) = self.disk.remove(name).await else {
            return self.lose(hash);
        };
        self.coherence.bump(hash);
        had_copy || removed > 0
    }

    /// What may not be served any more and cannot be removed takes everything with it. There was something.
    pub(super) fn lose(&self, hash: u64) -> bool {
        self.disk.give_up();
        // Who read it meanwhile has a copy of what was current after the first word.
        self.coherence.bump(hash);
        true
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
        Some(body) => Body::Memory(body.into()),
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
