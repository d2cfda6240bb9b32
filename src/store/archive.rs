//! A cache as one stream of octets, from which another store can be filled: each response as its head file would be, and
//! its body behind that.
//!
//! The stream is written once, from the front, while the store is in use: what turns out to be damaged in the middle of its
//! body is given up there, and nothing of it is kept by who reads. A stream that is not all there is found out by its end.
//! It knows no store and decides nothing; `janitor::operations` moves responses in and out.
//!
//! ```text
//! "baton archive 1\n"
//! for each response: its head (`disk::format`), of generation 0 and in no list; then, for each 256 KiB of its body, an octet
//!     (1: they follow, 0: they cannot be had, and this response ends here), and the octets
//! "end\0\0\0", the number of responses, u64, and the CRC-32 of these 14 octets, u32
//! ```

use std::io::{self, Read, Write};

use super::disk::format::{
    self, BLOCK, Body, Content, File, FormatError, Head, INLINE, Kept, MAX_HEAD,
};
use crate::cache::Stored;

const BEGINNING: &[u8] = b"baton archive 1\n";
/// Of it, in every version.
const SIGN: &[u8] = b"baton archive ";
const END: &[u8; 6] = b"end\0\0\0";
/// Of the end, and as much of a head as says how long that is.
const PREFIX: usize = 18;
const FOLLOWS: u8 = 1;
const GIVEN_UP: u8 = 0;

/// A response, whole but for its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Vec<u8>,
    pub stored: Stored,
    /// CRC-32 of each 256 KiB of the body.
    pub checksums: Vec<u32>,
}

/// What comes next of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Block<'a> {
    Octets(&'a [u8]),
    /// It could not be read when the archive was made: there will be no more.
    GivenUp,
    /// All of it has come.
    End,
}

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("this is no archive of a cache; `baton cache export` makes one")]
    NotOne,
    #[error(
        "the archive was made by a baton of another version, and must be made anew by this one"
    )]
    Version,
    #[error("the archive ends at octet {0}, before its end: the rest is missing")]
    Short(u64),
    #[error("the archive is damaged before octet {0}")]
    Damaged(u64),
    #[error("the archive cannot be read")]
    Io(#[from] io::Error),
}

// === writing

pub struct Writer<W> {
    to: W,
    responses: u64,
}

impl<W: Write> Writer<W> {
    pub fn new(mut to: W) -> io::Result<Writer<W>> {
        to.write_all(BEGINNING)?;
        Ok(Writer { to, responses: 0 })
    }

    /// A response, of whose body the blocks follow.
    pub fn begin(&mut self, entry: Entry) -> io::Result<()> {
        let body = match entry.stored.body_len <= INLINE as u64 {
            true => Body::Inline,
            false => Body::File(File {
                random: 0,
                modified: (0, 0),
                boot: [0; 16],
            }),
        };
        let kept = Kept::new(entry.stored, None, body, entry.checksums);
        let head = Head {
            key: entry.key,
            generation: 0,
            content: Content::Object(Box::new(kept)),
        };
        let mut octets = Vec::with_capacity(1024);
        head.encode(&mut octets);
        self.responses += 1;
        self.to.write_all(&octets)
    }

    /// 256 KiB of the body, or its rest.
    pub fn block(&mut self, octets: &[u8]) -> io::Result<()> {
        self.to.write_all(&[FOLLOWS])?;
        self.to.write_all(octets)
    }

    /// In place of the next block: there is none.
    pub fn give_up(&mut self) -> io::Result<()> {
        self.responses -= 1;
        self.to.write_all(&[GIVEN_UP])
    }

    /// How many responses are in it.
    pub fn finish(mut self) -> io::Result<u64> {
        let mut end = END.to_vec();
        end.extend_from_slice(&self.responses.to_le_bytes());
        end.extend_from_slice(&format::checksum(&end).to_le_bytes());
        self.to.write_all(&end)?;
        self.to.flush()?;
        Ok(self.responses)
    }
}

// === reading

pub struct Reader<R> {
    from: R,
    /// Octets read so far.
    at: u64,
    /// Whole responses so far.
    responses: u64,
    /// Of the response that is being read: octets of the body that are to come, and the checksums of its blocks.
    rest: u64,
    checksums: std::vec::IntoIter<u32>,
    buffer: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Errors: it is no archive, or of another version.
    pub fn new(from: R) -> Result<Reader<R>, ArchiveError> {
        let mut reader = Reader {
            from,
            at: 0,
            responses: 0,
            rest: 0,
            checksums: Vec::new().into_iter(),
            buffer: Vec::new(),
        };
        match reader.read(BEGINNING.len()) {
            Ok([]) => Err(ArchiveError::NotOne),
            Ok(BEGINNING) => Ok(reader),
            Ok(other) if other.starts_with(SIGN) => Err(ArchiveError::Version),
            Ok(_) | Err(ArchiveError::Short(_)) => Err(ArchiveError::NotOne),
            Err(error) => Err(error),
        }
    }

    /// Octets read so far.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next response; what is left of the body before it is passed over. None: there is no other.
    pub fn entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        while !matches!(self.block()?, Block::GivenUp | Block::End) {}
        self.read(PREFIX)?;
        if self.buffer.starts_with(END) {
            return self.end().map(|()| None);
        }
        let (head, length) = match Head::decode(&self.buffer) {
            Err(FormatError::Short(length)) if length <= MAX_HEAD => {
                self.read_on(length)?;
                Head::decode(&self.buffer)
            }
            other => other,
        }
        .map_err(|error| match error {
            FormatError::Version => ArchiveError::Version,
            _ => ArchiveError::Damaged(self.at),
        })?;
        let Content::Object(kept) = head.content else {
            return Err(ArchiveError::Damaged(self.at));
        };
        if length != self.buffer.len() {
            return Err(ArchiveError::Damaged(self.at));
        }
        self.rest = kept.stored.body_len;
        self.checksums = kept.checksums.clone().into_iter();
        self.responses += 1;
        Ok(Some(Entry {
            key: head.key,
            stored: kept.stored,
            checksums: kept.checksums,
        }))
    }

    /// The next block of the body, compared with its checksum.
    pub fn block(&mut self) -> Result<Block<'_>, ArchiveError> {
        let Some(checksum) = self.checksums.next() else {
            return Ok(Block::End);
        };
        match self.read(1)? {
            [FOLLOWS] => {}
            [GIVEN_UP] => {
                self.checksums = Vec::new().into_iter();
                self.responses -= 1;
                return Ok(Block::GivenUp);
            }
            _ => return Err(ArchiveError::Damaged(self.at)),
        }
        let length = self.rest.min(BLOCK as u64);
        self.rest -= length;
        self.read(length as usize)?;
        match format::checksum(&self.buffer) == checksum {
            true => Ok(Block::Octets(&self.buffer)),
            false => Err(ArchiveError::Damaged(self.at)),
        }
    }

    fn end(&mut self) -> Result<(), ArchiveError> {
        let mut end = END.to_vec();
        end.extend_from_slice(&self.responses.to_le_bytes());
        end.extend_from_slice(&format::checksum(&end).to_le_bytes());
        if self.buffer != end || self.from.read(&mut [0])? != 0 {
            return Err(ArchiveError::Damaged(self.at));
        }
        Ok(())
    }

    fn read(&mut self, length: usize) -> Result<&[u8], ArchiveError> {
        self.buffer.clear();
        self.read_on(length)?;
        Ok(&self.buffer)
    }

    /// Until the buffer holds so many octets.
    fn read_on(&mut self, length: usize) -> Result<(), ArchiveError> {
        let missing = length.saturating_sub(self.buffer.len()) as u64;
        // Grows as octets come: a length that was made up costs no memory.
        let read = self
            .from
            .by_ref()
            .take(missing)
            .read_to_end(&mut self.buffer)?;
        self.at += read as u64;
        match read as u64 == missing {
            true => Ok(()),
            false => Err(ArchiveError::Short(self.at)),
        }
    }
}

#[cfg(test)]
mod tests;
