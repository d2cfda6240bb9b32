//! The body of a stored response, in memory, in a file, or in rows of a database.
//!
//! A file is held open, so that it can be served whatever becomes of its name. It refuses to serve a file that has
//! been changed since it was opened.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

use super::disk::format::{self, Kept};
use super::disk::read;
use super::growing::Growing;
use super::octets::Octets;
use super::postgres::Rows;
use crate::sys::files::{self, Access, Facts};

/// Of a word.
const BITS: usize = u64::BITS as usize;

#[derive(Clone, Debug)]
pub enum Body {
    Memory(Octets),
    File(Arc<BodyFile>),
    /// It is still arriving, and is no store's yet.
    Growing(Rc<Growing>),
    /// In a database, read a piece at a time.
    Rows(Rc<Rows>),
}

#[derive(Debug)]
pub struct BodyFile {
    file: Arc<OwnedFd>,
    /// Where in the file it begins.
    pub from: u64,
    pub length: u64,
    /// What is known of the file, to see that it does not change.
    facts: Facts,
    /// The checksums of its blocks.
    checksums: Vec<u32>,
    /// Blocks that have been read and found to be right, a bit each; none where it was trusted when it was opened.
    checked: Vec<AtomicU64>,
    /// Blocks that have not been: when it is down to 0, it may be sent without looking at it.
    unchecked: AtomicUsize,
    /// Found to be damaged.
    given_up: AtomicBool,
}

impl Body {
    pub fn len(&self) -> u64 {
        match self {
            Body::Memory(body) => body.len() as u64,
            Body::File(body) => body.length,
            Body::Growing(body) => body.expected.unwrap_or_else(|| body.length()),
            Body::Rows(body) => body.length,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets of memory held, about.
    pub fn memory(&self) -> usize {
        match self {
            Body::Memory(body) => body.memory(),
            // The kernel's part of an open file is counted, too.
            Body::File(body) => {
                size_of::<BodyFile>() + 4 * body.checksums.len() + 8 * body.checked.len() + 512
            }
            Body::Growing(_) => 0,
            Body::Rows(body) => body.memory(),
        }
    }

    /// Whether it is worth keeping at hand: a file that was removed takes its space until it is closed.
    pub fn is_kept(&self) -> bool {
        match self {
            Body::Memory(_) => true,
            Body::File(body) => body.unchanged().is_some_and(|now| now.links > 0),
            Body::Growing(_) => false,
            Body::Rows(body) => !body.is_given_up(),
        }
    }

    /// It is damaged: nobody is to be served from it any more.
    pub fn give_up(&self) {
        match self {
            Body::File(body) => body.given_up.store(true, Relaxed),
            Body::Rows(body) => body.give_up(),
            Body::Memory(_) | Body::Growing(_) => {}
        }
    }

    /// Whether two are the same octets by being the same memory or the same file.
    pub fn is(&self, other: &Body) -> bool {
        match (self, other) {
            (Body::Memory(one), Body::Memory(two)) => {
                one.as_ptr() == two.as_ptr() && one.len() == two.len()
            }
            (Body::File(one), Body::File(two)) => one.facts.inode == two.facts.inode,
            (Body::Rows(one), Body::Rows(two)) => one.is(two),
            _ => false,
        }
    }

    /// Octets from `at` on, at most `length`. None: they are not there, or may not be trusted.
    pub async fn read_piece(&self, at: u64, length: u64) -> Option<Bytes> {
        match self {
            Body::Memory(body) => {
                let from = usize::try_from(at).ok()?.min(body.len());
                let to = from.saturating_add(usize::try_from(length).ok()?);
                let piece = body.slice(from..to.min(body.len()));
                (!piece.is_empty()).then_some(piece)
            }
            Body::File(body) if body.is_trusted() && body.is_intact() => {
                let body = body.clone();
                let read = tokio::task::spawn_blocking(move || body.piece(at, length));
                read.await.ok()?.ok().map(Bytes::from)
            }
            Body::File(body) if body.is_intact() => {
                let body = body.clone();
                let read = tokio::task::spawn_blocking(move || body.checked_piece(at, length));
                read.await.ok()?.map(Bytes::from)
            }
            Body::Rows(body) => body.read(at, length).await,
            Body::File(_) | Body::Growing(_) => None,
        }
    }

    /// Appends the whole body. Errors: the file is damaged, or (`Cached`) only the disk has it.
    pub fn read(&self, out: &mut Vec<u8>, access: Access) -> io::Result<()> {
        match self {
            Body::Memory(body) => out.extend_from_slice(body),
            Body::File(body) => body.read(out, access)?,
            Body::Growing(_) | Body::Rows(_) => return Err(io::ErrorKind::WouldBlock.into()),
        }
        Ok(())
    }
}

impl BodyFile {
    /// `from`: where in `file` the body of `kept` begins.
    pub fn new(
        file: impl Into<Arc<OwnedFd>>,
        from: u64,
        kept: &Kept,
        trusted: bool,
    ) -> io::Result<BodyFile> {
        let file = file.into();
        let unchecked = if trusted { 0 } else { kept.checksums.len() };
        let words = 0..unchecked.div_ceil(BITS);
        Ok(BodyFile {
            facts: files::facts(file.as_fd())?,
            file,
            from,
            length: kept.stored.body_len,
            checksums: kept.checksums.clone(),
            checked: words.map(|_| AtomicU64::new(0)).collect(),
            unchecked: AtomicUsize::new(unchecked),
            given_up: AtomicBool::new(false),
        })
    }

    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Whether it may be sent without looking at it, as long as it is intact.
    pub fn is_trusted(&self) -> bool {
        self.unchecked.load(Relaxed) == 0
    }

    /// What was known of the file, before any of it was read.
    pub fn facts(&self) -> Facts {
        self.facts
    }

    /// Whether it can still be served as it is.
    pub fn is_intact(&self) -> bool {
        self.unchanged().is_some()
    }

    /// What is known of the file now, if nobody has changed what is in it.
    fn unchanged(&self) -> Option<Facts> {
        let now = files::facts(self.file()).ok()?;
        // A file that is renamed or removed changes, too, and not what is in it.
        let same = (now.size, now.modified) == (self.facts.size, self.facts.modified);
        (same && !self.given_up.load(Relaxed)).then_some(now)
    }

    fn read(&self, out: &mut Vec<u8>, access: Access) -> io::Result<()> {
        let before = out.len();
        while ((out.len() - before) as u64) < self.length {
            let at = (out.len() - before) as u64;
            let rest = (self.length - at) as usize;
            if files::read(self.file(), out, rest, self.from + at, access)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let body = out.get(before..).unwrap_or_default();
        match format::agrees(body, &self.checksums) {
            true => Ok(()),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Octets from `at` on, at most `length`. May wait for the disk.
    fn piece(&self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        let wanted = length.min(self.length.saturating_sub(at)) as usize;
        let mut piece = Vec::with_capacity(wanted);
        let from = self.from + at;
        match files::read(self.file(), &mut piece, wanted, from, Access::Blocking)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(piece),
        }
    }

    /// The same of a file that is not trusted: of one block, which is compared with its checksum before.
    fn checked_piece(&self, at: u64, length: u64) -> Option<Vec<u8>> {
        let mut octets = Vec::with_capacity(Self::BLOCK);
        let block = (at / Self::BLOCK as u64) as usize;
        self.read_block(block, &mut octets).ok()?;
        let from = (at % Self::BLOCK as u64) as usize;
        let to = from.saturating_add(usize::try_from(length).ok()?);
        let piece = octets.get(from..to.min(octets.len()))?;
        (!piece.is_empty()).then(|| piece.to_vec())
    }

    /// Octets of a block, the unit of `read_block`.
    pub const BLOCK: usize = format::BLOCK;

    /// Whether that range is in memory, so that sending it waits for no disk.
    pub fn is_resident(&self, at: u64, length: u64) -> bool {
        files::is_resident(self.file(), self.from + at, length)
    }

    /// Brings a range into memory. May wait for the disk.
    pub fn fetch(&self, at: u64, length: u64) -> io::Result<()> {
        let mut piece = Vec::with_capacity(format::BLOCK);
        let (mut at, end) = (self.from + at, self.from + at + length);
        while at < end {
            piece.clear();
            let wanted = (end - at).min(format::BLOCK as u64) as usize;
            match files::read(self.file(), &mut piece, wanted, at, Access::Blocking)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => at += read as u64,
            }
        }
        Ok(())
    }

    /// Reads one block, and checks it. May wait for the disk.
    pub fn read_block(&self, block: usize, out: &mut Vec<u8>) -> Result<(), read::ReadError> {
        read::verify_block(self.file(), self.length, &self.checksums, block, out)?;
        let bit = 1 << (block % BITS);
        let is_new = |word: &AtomicU64| word.fetch_or(bit, Relaxed) & bit == 0;
        if self.checked.get(block / BITS).is_some_and(is_new) {
            self.unchecked.fetch_sub(1, Relaxed);
        }
        Ok(())
    }
}
