//! Reading what is kept: a head with what is behind it, and whether a body may be trusted.
//!
//! A head is checked each time it is read. A body in a file of its own is trusted while its size, its last change
//! and the start of the machine are those that its head recorded: then no octet of it can have been changed by
//! anything but a failing disk, and the kernel may send it unseen. Otherwise each block's checksum decides. It
//! removes nothing: whoever calls does, where a file turns out to be damaged.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::format::{self, BLOCK, Body, Content, File, FormatError, Head, Kept};
use super::place::Place;
use crate::cache::Name;
use crate::sys::files::{self, Access};

/// Octets read at first: nearly every head, with a small body behind it.
const FIRST: usize = 24 << 10;

/// A head file, read.
pub struct Read<'a> {
    pub head: Head,
    /// Octets of the head: where an inline body begins.
    pub length: usize,
    /// The inline body; empty where it has a file.
    pub inline: &'a [u8],
    pub file: OwnedFd,
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("there is no such file")]
    Absent,
    /// It is there or not: only the disk knows.
    #[error("the disk must be asked")]
    Later,
    /// Of another version of the format.
    #[error("of another version")]
    Version,
    /// Not what was written, or not where it was written.
    #[error("damaged: {0}")]
    Damaged(&'static str),
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::NotFound, _) => ReadError::Absent,
            (io::ErrorKind::WouldBlock, _) => ReadError::Later,
            (io::ErrorKind::IsADirectory, _) | (_, Some(libc::ESPIPE | libc::ELOOP)) => {
                ReadError::Damaged("it is no plain file")
            }
            (_, Some(libc::EIO)) => ReadError::Damaged("the disk cannot read it"),
            _ => ReadError::Io(error),
        }
    }
}

impl ReadError {
    /// Whether the file is good for nothing and may go.
    pub fn is_worthless(&self) -> bool {
        matches!(self, ReadError::Version | ReadError::Damaged(_))
    }
}

/// Reads the head file of that name. `buffer` is lent for the reading.
pub fn head<'a>(
    place: &Place,
    name: &Name,
    access: Access,
    buffer: &'a mut Vec<u8>,
) -> Result<Read<'a>, ReadError> {
    let file = place.open_head(name, access)?;
    buffer.clear();
    let mut wanted = FIRST;
    let (head, length) = loop {
        let ended = fill(file.as_fd(), buffer, wanted, access)?;
        match Head::decode(buffer) {
            Ok(read) => break read,
            Err(FormatError::Short(length)) if !ended => wanted = length + FIRST,
            Err(FormatError::Short(_)) => return Err(ReadError::Damaged("its head is cut off")),
            Err(FormatError::Version) => return Err(ReadError::Version),
            Err(FormatError::Damaged) => return Err(ReadError::Damaged("its head is not whole")),
        }
    };
    let inline = match &head.content {
        Content::Object(kept) if kept.body == Body::Inline => {
            let end = length + kept.stored.body_len as usize;
            fill(file.as_fd(), buffer, end + 1, access)?;
            let body = buffer.get(length..end);
            let body = body.ok_or(ReadError::Damaged("its body is cut off"))?;
            if !format::agrees(body, &kept.checksums) {
                return Err(ReadError::Damaged("its body is not what was written"));
            }
            end
        }
        _ => length,
    };
    if buffer.len() > inline {
        return Err(ReadError::Damaged("something follows it"));
    }
    if Name::of(&head.key).base != name.base {
        return Err(ReadError::Damaged("it belongs elsewhere"));
    }
    // A list leads to objects only: what it leads to is looked up and removed without end otherwise.
    if !name.is_base() && matches!(head.content, Content::List(_)) {
        return Err(ReadError::Damaged("it belongs elsewhere"));
    }
    Ok(Read {
        head,
        length,
        inline: buffer.get(length..).unwrap_or_default(),
        file,
    })
}

/// Reads on until `buffer` holds `wanted` octets of the file, or all. Whether that is all.
fn fill(
    file: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    wanted: usize,
    access: Access,
) -> Result<bool, ReadError> {
    while buffer.len() < wanted {
        let max = wanted - buffer.len();
        let read = files::read(file, buffer, max, buffer.len() as u64, access)?;
        if read == 0 {
            return Ok(true);
        }
        // At its end, a file of a disk says less than it was asked for, once.
        if read < max && access == Access::Cached {
            return Ok(buffer.len() < wanted);
        }
    }
    Ok(false)
}

/// Opens the body's own file. Also returns whether it is trusted.
pub fn body(
    place: &Place,
    name: &Name,
    kept: &Kept,
    file: &File,
    access: Access,
) -> Result<(OwnedFd, bool), ReadError> {
    let opened = place.open_body(name, file.random, access)?;
    let trusted = is_trusted(opened.as_fd(), kept.stored.body_len, file)?;
    Ok((opened, trusted))
}

/// Whether nothing can have changed the file since its head was written. Another size than recorded is damage.
pub fn is_trusted(opened: BorrowedFd<'_>, length: u64, file: &File) -> Result<bool, ReadError> {
    let facts = files::facts(opened)?;
    if !facts.is_file || facts.size != length {
        return Err(ReadError::Damaged("its body has another length"));
    }
    Ok(facts.modified == file.modified && file.boot == boot())
}

/// Reads the whole body and compares every checksum. May wait for the disk.
pub fn verify(opened: BorrowedFd<'_>, kept: &Kept, buffer: &mut Vec<u8>) -> Result<(), ReadError> {
    let length = kept.stored.body_len;
    (0..kept.checksums.len())
        .try_for_each(|block| verify_block(opened, length, &kept.checksums, block, buffer))
}

/// Reads one block of a body of `length` octets that has a file of its own, and compares its checksum; `buffer`
/// holds the block then. May wait for the disk.
pub fn verify_block(
    opened: BorrowedFd<'_>,
    length: u64,
    checksums: &[u32],
    block: usize,
    buffer: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let from = (block * BLOCK) as u64;
    let wanted = length.saturating_sub(from).min(BLOCK as u64) as usize;
    buffer.clear();
    while buffer.len() < wanted {
        let at = from + buffer.len() as u64;
        let rest = wanted - buffer.len();
        if files::read(opened, buffer, rest, at, Access::Blocking)? == 0 {
            return Err(ReadError::Damaged("its body is cut off"));
        }
    }
    match checksums.get(block) {
        Some(sum) if *sum == format::checksum(buffer) => Ok(()),
        _ => Err(ReadError::Damaged("its body is not what was written")),
    }
}

/// This start of the machine.
pub fn boot() -> [u8; 16] {
    static BOOT: std::sync::OnceLock<[u8; 16]> = std::sync::OnceLock::new();
    *BOOT.get_or_init(files::boot)
}
