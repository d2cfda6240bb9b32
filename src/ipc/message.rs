//! What the master and a worker say to each other, as octets.
//!
//! One message is one datagram: a version, a type, the number of descriptors that travel with it, and a body whose
//! length must come out exactly. An unknown type, a missing or a surplus octet is an error, and the caller replaces
//! the child it came from: both ends are the same program, so a message that does not fit means a broken process.

use thiserror::Error;

use crate::dispatch::Conn;

/// Must rise with any change of what follows.
const VERSION: u8 = 2;

/// Descriptors one message may carry.
pub const MAX_DESCRIPTORS: usize = 32;

/// Octets that may travel with one connection: what had been read of it and not been used.
pub const MAX_BYTES: usize = 16 * 1024;

/// Octets of a whole message.
pub const MAX_MESSAGE: usize = 96 * 1024;

/// Version, type, count of descriptors.
const HEADER: usize = 3;

/// From the master to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToWorker {
    /// First of all. Descriptors: the configuration, the shared memory.
    Start { worker: u16, workers: u16 },
    /// Sockets with something to read, one descriptor each.
    Offers(Vec<Offer>),
    /// Another process wants to talk: its end of a stream, one descriptor.
    Introduced,
    /// Open the log files again.
    Reopen,
    /// No offer will follow: finish what is in progress, take nothing new, and exit.
    Drain,
    /// Exit now.
    Stop,
}

/// From a worker to the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToMaster {
    /// The worker has started and waits for offers.
    Ready,
    /// Sockets that are still alive, one descriptor each.
    Return(Vec<Returned>),
    /// The far end of a stream, one descriptor, for that worker. Where it cannot be had it is closed.
    Introduce { worker: u16 },
}

/// A socket that is the worker's as soon as it has claimed `seq`, and not before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub seq: u64,
    pub conn: Conn,
    /// What has been read of the connection already; it comes before whatever the socket holds.
    pub bytes: Vec<u8>,
}

/// A socket that the worker has no more use for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    pub conn: Conn,
    /// What has been read of the next request.
    pub bytes: Vec<u8>,
}

/// Why octets are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    #[error("the message ends early")]
    Cut,
    #[error("the message counts {stated} descriptors where its type has {due}")]
    Descriptors { stated: usize, due: usize },
    #[error("the message is longer than its content")]
    Surplus,
    #[error("the message or a part of it is over its limit")]
    TooLong,
    #[error("unknown type {0}")]
    UnknownType(u8),
    #[error("unknown version {0}")]
    UnknownVersion(u8),
}

/// What a channel can carry in one direction.
pub trait Message: Sized {
    /// Descriptors that travel with it.
    fn descriptors(&self) -> usize;

    /// Appends the message. One that is over a limit is refused, and `out` is as before.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), MessageError>;

    /// Reads a whole message.
    fn decode(octets: &[u8]) -> Result<Self, MessageError>;

    /// The number of descriptors that the message says it carries, without reading the rest.
    fn stated_descriptors(octets: &[u8]) -> usize {
        octets.get(2).copied().map_or(0, usize::from)
    }
}

mod kind {
    pub(super) const START: u8 = 1;
    pub(super) const OFFERS: u8 = 2;
    pub(super) const REOPEN: u8 = 3;
    pub(super) const DRAIN: u8 = 4;
    pub(super) const STOP: u8 = 5;
    pub(super) const INTRODUCED: u8 = 6;
    pub(super) const READY: u8 = 64;
    pub(super) const RETURN: u8 = 65;
    pub(super) const INTRODUCE: u8 = 66;
}

/// The configuration and the shared memory.
const START_DESCRIPTORS: usize = 2;

// === impl ToWorker ===

impl Message for ToWorker {
    fn descriptors(&self) -> usize {
        match self {
            ToWorker::Start { .. } => START_DESCRIPTORS,
            ToWorker::Offers(offers) => offers.len(),
            ToWorker::Introduced => 1,
            ToWorker::Reopen | ToWorker::Drain | ToWorker::Stop => 0,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), MessageError> {
        let kind = match self {
            ToWorker::Start { .. } => kind::START,
            ToWorker::Offers(_) => kind::OFFERS,
            ToWorker::Introduced => kind::INTRODUCED,
            ToWorker::Reopen => kind::REOPEN,
            ToWorker::Drain => kind::DRAIN,
            ToWorker::Stop => kind::STOP,
        };
        whole(out, kind, self.descriptors(), |out| {
            match self {
                ToWorker::Start { worker, workers } => {
                    out.extend_from_slice(&worker.to_le_bytes());
                    out.extend_from_slice(&workers.to_le_bytes());
                }
                ToWorker::Offers(offers) => {
                    for offer in offers {
                        out.extend_from_slice(&offer.seq.to_le_bytes());
                        write_connection(out, &offer.conn, &offer.bytes)?;
                    }
                }
                ToWorker::Introduced | ToWorker::Reopen | ToWorker::Drain | ToWorker::Stop => {}
            }
            Ok(())
        })
    }

    fn decode(octets: &[u8]) -> Result<ToWorker, MessageError> {
        let (mut reader, kind, stated) = Reader::open(octets)?;
        let message = match kind {
            kind::START => ToWorker::Start {
                worker: reader.u16()?,
                workers: reader.u16()?,
            },
            kind::OFFERS => {
                let mut offers = Vec::with_capacity(stated);
                for _ in 0..stated {
                    let seq = reader.u64()?;
                    let (conn, bytes) = reader.connection()?;
                    offers.push(Offer { seq, conn, bytes });
                }
                ToWorker::Offers(offers)
            }
            kind::INTRODUCED => ToWorker::Introduced,
            kind::REOPEN => ToWorker::Reopen,
            kind::DRAIN => ToWorker::Drain,
            kind::STOP => ToWorker::Stop,
            other => return Err(MessageError::UnknownType(other)),
        };
        reader.close(stated, message.descriptors())?;
        Ok(message)
    }
}

// === impl ToMaster ===

impl Message for ToMaster {
    fn descriptors(&self) -> usize {
        match self {
            ToMaster::Ready => 0,
            ToMaster::Return(returned) => returned.len(),
            ToMaster::Introduce { .. } => 1,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), MessageError> {
        let kind = match self {
            ToMaster::Ready => kind::READY,
            ToMaster::Return(_) => kind::RETURN,
            ToMaster::Introduce { .. } => kind::INTRODUCE,
        };
        whole(out, kind, self.descriptors(), |out| match self {
            ToMaster::Ready => Ok(()),
            ToMaster::Return(returned) => returned
                .iter()
                .try_for_each(|one| write_connection(out, &one.conn, &one.bytes)),
            ToMaster::Introduce { worker } => {
                out.extend_from_slice(&worker.to_le_bytes());
                Ok(())
            }
        })
    }

    fn decode(octets: &[u8]) -> Result<ToMaster, MessageError> {
        let (mut reader, kind, stated) = Reader::open(octets)?;
        let message = match kind {
            kind::READY => ToMaster::Ready,
            kind::RETURN => {
                let mut returned = Vec::with_capacity(stated);
                for _ in 0..stated {
                    let (conn, bytes) = reader.connection()?;
                    returned.push(Returned { conn, bytes });
                }
                ToMaster::Return(returned)
            }
            kind::INTRODUCE => ToMaster::Introduce {
                worker: reader.u16()?,
            },
            other => return Err(MessageError::UnknownType(other)),
        };
        reader.close(stated, message.descriptors())?;
        Ok(message)
    }
}

// === impl Offer, Returned ===

impl Offer {
    /// Octets that it takes in a message, next to its bytes.
    pub const OVERHEAD: usize = size_of::<u64>() + connection_length(&[]);
}

impl Returned {
    /// Octets that it takes in a message.
    #[must_use]
    pub fn encoded_length(&self) -> usize {
        connection_length(&self.bytes)
    }
}

/// Room for the parts of one message, next to its header.
pub const MAX_PARTS: usize = MAX_MESSAGE - HEADER;

const fn connection_length(bytes: &[u8]) -> usize {
    Conn::WIRE_LENGTH + size_of::<u16>() + bytes.len()
}

/// Header and body, or nothing at all.
fn whole(
    out: &mut Vec<u8>,
    kind: u8,
    descriptors: usize,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), MessageError>,
) -> Result<(), MessageError> {
    let start = out.len();
    let count = u8::try_from(descriptors)
        .ok()
        .filter(|_| descriptors <= MAX_DESCRIPTORS);
    let written = match count {
        None => Err(MessageError::TooLong),
        Some(count) => {
            out.extend_from_slice(&[VERSION, kind, count]);
            body(out)
        }
    };
    let outcome = written.and_then(|()| {
        if out.len() - start > MAX_MESSAGE {
            Err(MessageError::TooLong)
        } else {
            Ok(())
        }
    });
    if outcome.is_err() {
        out.truncate(start);
    }
    outcome
}

fn write_connection(out: &mut Vec<u8>, conn: &Conn, bytes: &[u8]) -> Result<(), MessageError> {
    let length = u16::try_from(bytes.len())
        .ok()
        .filter(|_| bytes.len() <= MAX_BYTES);
    conn.write(out);
    out.extend_from_slice(&length.ok_or(MessageError::TooLong)?.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

// === Reader ===

/// Takes a message apart from the front.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Checks the header; yields the body, the type and the stated count of descriptors.
    fn open(octets: &'a [u8]) -> Result<(Reader<'a>, u8, usize), MessageError> {
        if octets.len() > MAX_MESSAGE {
            return Err(MessageError::TooLong);
        }
        let mut reader = Reader { rest: octets };
        let [version, kind, stated] = reader.array()?;
        if version != VERSION {
            return Err(MessageError::UnknownVersion(version));
        }
        let stated = usize::from(stated);
        if stated > MAX_DESCRIPTORS {
            return Err(MessageError::TooLong);
        }
        Ok((reader, kind, stated))
    }

    /// Refuses surplus octets and a count of descriptors that the type does not have.
    fn close(self, stated: usize, due: usize) -> Result<(), MessageError> {
        if stated != due {
            return Err(MessageError::Descriptors { stated, due });
        }
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(MessageError::Surplus)
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(MessageError::Cut)?;
        self.rest = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, MessageError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, MessageError> {
        self.array().map(u64::from_le_bytes)
    }

    fn connection(&mut self) -> Result<(Conn, Vec<u8>), MessageError> {
        let conn = Conn::read(&self.array()?);
        let length = usize::from(self.u16()?);
        if length > MAX_BYTES {
            return Err(MessageError::TooLong);
        }
        let (bytes, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(MessageError::Cut)?;
        self.rest = rest;
        Ok((conn, bytes.to_vec()))
    }
}

#[cfg(test)]
mod tests;
