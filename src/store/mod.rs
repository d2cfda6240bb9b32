//! Where responses are kept: the contract, and the stores that keep it.
//!
//! An object is visible when it is complete, or a part that knows what it lacks, and never before: a writer that is
//! dropped unfinished leaves nothing behind. Whether something may be stored or reused is for `cache` to say; a store only keeps, selects by
//! Vary, and forgets. What may have to wait for a disk is `async`, and then other connections go on. The exchange
//! calls it.

pub mod archive;
pub mod asked;
mod body;
#[cfg(test)]
pub(crate) mod contract;
pub mod disk;
mod growing;
pub mod hot;
mod lasting;
mod octets;
pub mod postgres;
mod promise;
pub mod purges;
pub mod tiered;

use std::rc::Rc;
use std::sync::Arc;

use crate::cache::{Key, Part, Stored};
use crate::http::Headers;
pub use crate::shared::Version;
pub use body::{Body, BodyFile};
pub use disk::{Disk, OnDisk};
pub use growing::{Growing, InFile, Read, Reader, SoFar};
pub use hot::Hot;
pub use octets::Octets;
pub use postgres::{InRow, Postgres};
pub use promise::Promise;
pub use purges::{Fate, Known, Purge, Purges};
pub use tiered::Tiered;

/// Variants kept of one key; the oldest goes.
pub const MAX_VARIANTS: usize = 8;

/// A stored response, ready to be sent.
#[derive(Debug)]
pub struct Object {
    pub stored: Stored,
    /// Status line and fields, without Age, framing and connection fields and without the blank line: a hit
    /// appends those.
    pub head: Vec<u8>,
    pub body: Body,
    /// Where it is on the disk, if it is.
    pub on_disk: Option<OnDisk>,
    /// Where it is in a database.
    pub in_row: Option<InRow>,
}

impl Object {
    pub fn new(mut stored: Stored, body: impl Into<Octets>) -> Object {
        let body = body.into();
        stored.body_len = body.len() as u64;
        Object {
            head: disk::format::text(&stored),
            stored,
            body: Body::Memory(body),
            on_disk: None,
            in_row: None,
        }
    }

    /// The same body under fields that have been brought up to date.
    pub fn refreshed(&self, mut stored: Stored) -> Object {
        stored.body_len = self.stored.body_len;
        Object {
            head: disk::format::text(&stored),
            stored,
            body: self.body.clone(),
            on_disk: self.on_disk.clone(),
            in_row: self.in_row,
        }
    }

    /// One whose body is still arriving: nothing that a store keeps.
    pub fn growing(mut stored: Stored, body: Rc<Growing>) -> Object {
        stored.body_len = body.expected.unwrap_or_default();
        Object {
            head: disk::format::text(&stored),
            stored,
            body: Body::Growing(body),
            on_disk: None,
            in_row: None,
        }
    }

    /// Octets of memory held, for accounts.
    pub fn memory(&self) -> usize {
        self.stored.memory() + self.head.capacity() + self.body.memory() + 64
    }
}

/// How processes tell each other that what one of them keeps has been refreshed or invalidated.
pub trait Coherence {
    /// The version of whatever has that hash now.
    fn read(&self, hash: u64) -> Version;
    /// Adds one to the slot of that hash: whoever keeps something of an older version drops it.
    fn bump(&self, hash: u64);
    /// The purges of many responses at once between two versions. None: something else may have changed as well.
    fn purges(&self, _earlier: Version, _now: Version) -> Option<Vec<Arc<Purge>>> {
        None
    }
}

impl<T: Coherence + ?Sized> Coherence for Rc<T> {
    fn read(&self, hash: u64) -> Version {
        (**self).read(hash)
    }

    fn bump(&self, hash: u64) {
        (**self).bump(hash);
    }

    fn purges(&self, earlier: Version, now: Version) -> Option<Vec<Arc<Purge>>> {
        (**self).purges(earlier, now)
    }
}

/// What is kept for a request.
#[derive(Debug)]
pub enum Find {
    Absent,
    /// Only the disk, or the database, knows: `look` asks it.
    AskDisk,
    Object(Rc<Object>),
    /// Something is kept under the key, and this request does not select it.
    OtherVariant,
}

/// Why a response is not kept although it might be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// There is no room, and nothing has been thrown out in time.
    Full,
    /// Space is tight, and what is kept is asked for more often.
    Rare,
    TooLarge,
    /// The disk or the database refuses; it is tried again soon.
    Trouble,
}

impl NotKept {
    /// One word for Cache-Status and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            NotKept::Full => "cache-full",
            NotKept::Rare => "rarely-asked-for",
            NotKept::TooLarge => "too-large",
            NotKept::Trouble => "store-trouble",
        }
    }
}

#[allow(
    async_fn_in_trait,
    reason = "everything here stays on the thread of its worker"
)]
pub trait Store {
    type Writer: Writer;

    /// What this request selects of the current version. Never waits.
    fn find(&self, key: &[u8], request: &Headers) -> Find;

    /// The same, waiting for the disk where only it knows.
    async fn look(&self, key: &[u8], request: &Headers) -> Find;

    /// All that is kept under the key and is current, whatever selects it, the newest first. It counts as no use.
    async fn variants(&self, key: &[u8]) -> Vec<Rc<Object>>;

    /// To be read before a request is sent; `begin` wants it. What changes meanwhile makes the answer unfit.
    fn version(&self, key: &[u8]) -> Version;

    /// Begins to keep the response to a request that was sent at version `seen`. `expected` is the length of the
    /// body, where it is known.
    fn begin(
        &self,
        key: Key,
        stored: Stored,
        expected: Option<u64>,
        seen: Version,
    ) -> Result<Self::Writer, NotKept>;

    /// Puts `new` in the place of `old`, with the same body, for all processes; the request was sent at version `seen`.
    /// What is returned is to be served, whether or not it could be kept.
    async fn refresh(&self, key: &[u8], old: &Rc<Object>, new: Stored, seen: Version)
    -> Rc<Object>;

    /// Forgets everything under the key, in all processes. Whether there was something.
    async fn invalidate(&self, key: &[u8]) -> bool;
}

/// Dropped unfinished, it never was.
#[allow(
    async_fn_in_trait,
    reason = "everything here stays on the thread of its worker"
)]
pub trait Writer {
    /// False: the object has become too large, or there is no more room; drop the writer.
    fn write(&mut self, data: &[u8]) -> bool;

    /// Waits until there is memory for more, where a disk is slower than the network. False: it is too slow, or
    /// refuses; drop the writer.
    async fn room(&mut self) -> bool;

    /// What it was begun with, for what all stores do alike.
    fn promise(&self) -> &Promise;

    fn promise_mut(&mut self) -> &mut Promise;

    /// The fields of what is kept.
    fn stored(&self) -> Option<&Stored> {
        self.promise().stored()
    }

    /// What has been written so far, for those who read it while more comes. None: it cannot be had.
    async fn so_far(&mut self) -> Option<SoFar>;

    /// How much of it a file has, from the beginning; none: everything is in memory.
    fn in_file(&self) -> Option<InFile>;

    /// What is stored under the key is older: once this one is there, no process uses that any more.
    fn replace(&mut self) {
        self.promise_mut().replace();
    }

    /// What is written is this part of a representation, however long it was expected to be.
    fn keep_as(&mut self, part: Part) {
        self.promise_mut().keep_as(part);
    }

    /// The body has come: makes the object visible. None: it was overtaken by a change, or is not what was
    /// expected, or cannot be kept.
    async fn finish(self) -> Option<Rc<Object>>;
}
