//! What is in memory or open already, what becomes so when it is found, and what has to go because something else has.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::Inner;
use crate::cache::key;
use crate::http::Headers;
use crate::store::disk::lookup::{Found, FoundBody, Looked};
use crate::store::{Body, BodyFile, Coherence, Find, Hot, Object, Version};

impl<C: Coherence> Inner<C> {
    fn tiers(&self) -> impl Iterator<Item = &Hot<Rc<C>>> {
        self.memory.iter().chain(&self.files)
    }

    pub(super) fn copy(&self, key: &[u8], request: &Headers) -> Option<Rc<Object>> {
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

    pub(super) fn found(&self, key: &[u8], looked: Looked, version: Version) -> Find {
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
    pub(super) fn deserves_a_place(&self, key: &[u8], body: &Body) -> bool {
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
    pub(super) fn keep_copy(&self, key: &[u8], object: &Rc<Object>, version: Version) {
        self.forget_other(key, object);
        if let Some(tier) = self.tier_of(&object.body) {
            tier.keep(key, object.clone(), version);
        }
    }

    /// What `object` takes the place of may be in the other tier.
    pub(super) fn forget_other(&self, key: &[u8], object: &Object) {
        let other = match &object.body {
            Body::Memory(_) => &self.files,
            Body::File(_) => &self.memory,
            Body::Growing(_) | Body::Rows(_) => return,
        };
        if let Some(tier) = other {
            tier.forget_variant(key, &object.stored.selection);
        }
    }

    pub(super) fn tier_of(&self, body: &Body) -> Option<&Hot<Rc<C>>> {
        match body {
            Body::Memory(_) => self.memory.as_ref(),
            Body::File(_) => self.files.as_ref(),
            Body::Growing(_) | Body::Rows(_) => None,
        }
    }

    pub(super) fn forget_copies(&self, key: &[u8]) -> bool {
        self.tiers().fold(false, |any, tier| tier.forget(key) | any)
    }
}

pub(super) fn object(found: Found) -> Option<Object> {
    let body = match found.content {
        FoundBody::Memory(body) => Body::Memory(Bytes::from(body).into()),
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
