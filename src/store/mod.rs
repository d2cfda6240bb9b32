//! Where responses are kept: the contract, and the stores that keep it.
//!
//! An object is visible when it is complete and never before: a writer that is dropped unfinished leaves nothing
//! behind. Whether something may be stored or reused is for `cache` to say; a store only keeps, selects by
//! Vary, and forgets. The exchange calls it.

#[cfg(test)]
mod contract;
pub mod disk;
pub mod hot;

use std::rc::Rc;

use bytes::Bytes;

use crate::cache::{Key, Stored};
use crate::http::Headers;
use crate::http::head::write_status_line;
pub use crate::shared::Version;
pub use hot::Hot;

/// Variants kept of one key; the oldest goes.
pub const MAX_VARIANTS: usize = 8;

/// A stored response, ready to be sent.
#[derive(Debug)]
pub struct Object {
    pub stored: Stored,
    /// Status line and fields, without Age, framing and connection fields and without the blank line: a hit
    /// appends those.
    pub head: Vec<u8>,
    pub body: Bytes,
}

impl Object {
    pub fn new(mut stored: Stored, body: Bytes) -> Object {
        stored.body_len = body.len() as u64;
        let mut head = Vec::new();
        write_status_line(stored.status, &stored.reason, &mut head);
        stored.headers.write(&mut head);
        head.shrink_to_fit();
        Object { stored, head, body }
    }

    /// Octets of memory held, for accounts.
    pub fn memory(&self) -> usize {
        self.stored.memory() + self.head.capacity() + self.body.len() + 64
    }
}

/// How processes tell each other that what one of them keeps has been refreshed or invalidated.
pub trait Coherence {
    /// The version of whatever has that hash now.
    fn read(&self, hash: u64) -> Version;
    /// Adds one to the slot of that hash: whoever keeps something of an older version drops it.
    fn bump(&self, hash: u64);
}

impl<T: Coherence + ?Sized> Coherence for Rc<T> {
    fn read(&self, hash: u64) -> Version {
        (**self).read(hash)
    }

    fn bump(&self, hash: u64) {
        (**self).bump(hash);
    }
}

pub trait Store {
    type Writer: Writer;

    /// The object that this request selects, if it is of the current version.
    fn find(&self, key: &[u8], request: &Headers) -> Option<Rc<Object>>;

    /// Whether anything is kept under the key, whatever selects it.
    fn holds(&self, key: &[u8]) -> bool;

    /// To be read before a request is sent; `begin` wants it. What changes meanwhile makes the answer unfit.
    fn version(&self, key: &[u8]) -> Version;

    /// Begins to keep the response to a request that was sent at version `seen`. `expected` is the length of the
    /// body, where it is known. None: there is no room for such an object.
    fn begin(
        &self,
        key: Key,
        stored: Stored,
        expected: Option<u64>,
        seen: Version,
    ) -> Option<Self::Writer>;

    /// Puts `new` in the place of `old`, with the same body, for all processes. What is returned is to be served,
    /// whether or not it could be kept.
    fn refresh(&self, key: &[u8], old: &Rc<Object>, new: Stored) -> Rc<Object>;

    /// Forgets everything under the key, in all processes.
    fn invalidate(&self, key: &[u8]);
}

/// Dropped unfinished, it never was.
pub trait Writer {
    /// False: the object has become too large; drop the writer.
    fn write(&mut self, data: &[u8]) -> bool;

    /// The body is whole: makes the object visible. None: it was overtaken by a change, or is not what was
    /// expected, and is not kept.
    fn finish(self) -> Option<Rc<Object>>;
}
