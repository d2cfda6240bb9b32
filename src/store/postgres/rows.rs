//! A stored response as rows: its head, as the disk store writes it, and its body in pieces.
//!
//! What comes from the database is believed as little as a file: the head has its checksum and the whole key, each block of
//! the body its own. A body is read while it is sent, a piece at a time; one that is being removed stays long enough for those
//! who have begun.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::link::{Link, What};
use super::looks::Found;
use super::session::{PIECE_SIZE, Session};
use crate::cache::Stored;
use crate::store::disk::format::{self, BLOCK, Content, File, FormatError, Head, INLINE, Kept};
use crate::store::{Body, Object, Octets};

/// How long a body that is being sent waits for a database that has gone away, and for one answer.
const PATIENCE: Duration = Duration::from_secs(15);
const ANSWER: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(100);

/// Where an object is in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InRow {
    pub id: i64,
    /// Which of its refreshed heads this is.
    pub edition: i32,
}

/// The body of an object, in the database.
pub struct Rows {
    link: Link,
    id: i64,
    /// Rows that have it; 0: the row of the object.
    pieces: i32,
    pub length: u64,
    checksums: Vec<u32>,
    given_up: Cell<bool>,
}

/// The checksums of a body that is arriving.
#[derive(Default)]
pub struct Sums {
    blocks: Vec<u32>,
    block: crc32fast::Hasher,
    in_block: usize,
    whole: crc32fast::Hasher,
}

// === heads

/// The octets of the column `head`.
pub fn encode(key: &[u8], id: i64, stored: &Stored, checksums: Vec<u32>) -> Vec<u8> {
    let body = match stored.body_len <= INLINE as u64 {
        true => format::Body::Inline,
        false => format::Body::File(File {
            random: id.cast_unsigned(),
            modified: (0, 0),
            boot: [0; 16],
        }),
    };
    let head = Head {
        key: key.to_vec(),
        generation: 0,
        content: Content::Object(Box::new(Kept::new(stored.clone(), None, body, checksums))),
    };
    let mut octets = Vec::with_capacity(1024);
    head.encode(&mut octets);
    octets
}

/// Errors: it is of another version, or damaged, or not what is kept under that key.
pub fn decode(key: &[u8], octets: &[u8]) -> Result<Kept, FormatError> {
    let (head, length) = Head::decode(octets)?;
    match head.content {
        Content::Object(kept) if head.key == key && length == octets.len() => Ok(*kept),
        _ => Err(FormatError::Damaged),
    }
}

/// The object of a row; its body in memory where `found` has it, in no more than it needs where it is `for_long`. None: it
/// is damaged.
pub fn object(link: &Link, found: &mut Found, kept: Kept, for_long: bool) -> Option<Object> {
    let pieces = kept.stored.body_len.div_ceil(PIECE_SIZE as u64);
    if found.pieces != 0 && u64::try_from(found.pieces) != Ok(pieces) {
        return None;
    }
    let body = match found.body.take() {
        Some(body) => {
            let is_right =
                body.len() as u64 == kept.stored.body_len && format::agrees(&body, &kept.checksums);
            if !is_right {
                return None;
            }
            in_memory(body, for_long)
        }
        None => Body::Rows(Rc::new(Rows {
            link: link.clone(),
            id: found.id,
            pieces: found.pieces,
            length: kept.stored.body_len,
            checksums: kept.checksums,
            given_up: Cell::new(false),
        })),
    };
    Some(Object {
        stored: kept.stored,
        head: kept.text,
        body,
        on_disk: None,
        in_row: Some(InRow {
            id: found.id,
            edition: found.edition,
        }),
    })
}

/// What has been read of the database is kept with its surroundings, unless that is to be `for_long`.
pub fn in_memory(body: Bytes, for_long: bool) -> Body {
    Body::Memory(match for_long {
        true => Octets::copy_of(&body),
        false => body.into(),
    })
}

// === impl Rows

impl Rows {
    pub fn new(link: Link, id: i64, pieces: i32, length: u64, checksums: Vec<u32>) -> Rows {
        Rows {
            link,
            id,
            pieces,
            length,
            checksums,
            given_up: Cell::new(false),
        }
    }

    /// Whether it was found to be damaged, or gone.
    pub fn is_given_up(&self) -> bool {
        self.given_up.get()
    }

    pub fn give_up(&self) {
        self.given_up.set(true);
    }

    pub fn is(&self, other: &Rows) -> bool {
        self.id == other.id
    }

    pub fn memory(&self) -> usize {
        size_of::<Rows>() + 4 * self.checksums.len()
    }

    /// The checksums, for another head of the same body.
    pub fn checksums(&self) -> &[u32] {
        &self.checksums
    }

    /// Octets from `at` on, at most `length`, as far as one row has them, each block compared with its checksum. None: they
    /// are not there, or damaged, or the database does not answer.
    pub async fn read(&self, at: u64, length: u64) -> Option<Bytes> {
        self.read_within(Duration::ZERO, at, length).await
    }

    async fn read_within(&self, patience: Duration, at: u64, length: u64) -> Option<Bytes> {
        if at >= self.length || self.given_up.get() {
            return None;
        }
        let (piece, size) = (PIECE_SIZE as u64, BLOCK as u64);
        let number = at / piece;
        let end = at
            .saturating_add(length)
            .min(self.length)
            .min((number + 1) * piece);
        let first = at / size;
        let (from, to) = (first * size, end.div_ceil(size) * size);
        let to = to.min(self.length);
        let row = match self.pieces {
            0 => None,
            _ => Some(i32::try_from(number).ok()?),
        };
        let (within, wanted) = ((from - number * piece) as usize, (to - from) as usize);
        let read = async |session: &Session| session.octets(self.id, row, within, wanted).await;
        let octets = self
            .link
            .ask_patiently(patience, What::Reading, read)
            .await?;
        let sums = self
            .checksums
            .get(first as usize..to.div_ceil(size) as usize)?;
        match octets {
            Some(octets) if octets.len() == wanted && format::agrees(&octets, sums) => {
                Some(octets.slice((at - from) as usize..(end - from) as usize))
            }
            octets => {
                let what = if octets.is_some() {
                    "is damaged"
                } else {
                    "is gone"
                };
                log::warn!(
                    "a body in the database {what}: object {}, octets {from} to {to}",
                    self.id
                );
                self.give_up();
                None
            }
        }
    }

    /// The same in the middle of a response, which cannot be had from anywhere else: a database that has gone away may
    /// come back.
    pub async fn read_patiently(&self, at: u64, length: u64) -> Option<Bytes> {
        let until = Instant::now() + PATIENCE;
        loop {
            let read = self.read_within(ANSWER, at, length).await;
            if read.is_some() || self.given_up.get() {
                return read;
            }
            if Instant::now() > until {
                log::warn!("a body in the database cannot be read: its response is cut");
                return None;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// All of it, where it is with its object.
    pub async fn whole(&self) -> Option<Bytes> {
        match self.length {
            0 => Some(Bytes::new()),
            length => self.read(0, length).await,
        }
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rows({}, {} octets)", self.id, self.length)
    }
}

// === impl Sums

impl Sums {
    pub fn add(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(BLOCK - self.in_block));
            self.block.update(now);
            self.in_block += now.len();
            data = later;
            if self.in_block == BLOCK {
                self.end_block();
            }
        }
    }

    /// Of each block, and of all octets.
    pub fn finish(mut self) -> (Vec<u32>, u32) {
        if self.in_block > 0 {
            self.end_block();
        }
        (self.blocks, self.whole.finalize())
    }

    fn end_block(&mut self) {
        let block = std::mem::take(&mut self.block);
        self.whole.combine(&block);
        self.blocks.push(block.finalize());
        self.in_block = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_same_however_a_body_arrives() {
        let body: Vec<u8> = (0..BLOCK * 2 + 77).map(|n| (n % 253) as u8).collect();
        for step in [1000, BLOCK - 1, BLOCK, BLOCK * 3] {
            let mut sums = Sums::default();
            body.chunks(step).for_each(|chunk| sums.add(chunk));
            assert_eq!(
                sums.finish(),
                (format::checksums(&body), format::checksum(&body))
            );
        }
        assert_eq!(Sums::default().finish(), (Vec::new(), 0));
    }
}
