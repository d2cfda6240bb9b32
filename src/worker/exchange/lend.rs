//! The other side of `follow`: what this worker is fetching goes to another one, too.
//!
//! | frame | content |
//! |---|---|
//! | question | versions (2 × 8, of the asker's era), first octet wanted (8), 1 if only what has been answered will do, key and request fields, each behind its length (4) |
//! | HEAD | versions that it is of (2 × 8), octets that are there (8), octets that there will be (8; all ones: unknown), the stored fields as in a head file |
//! | FILE, IN_FILE | the file that the store is writing; octets that it has (8) |
//! | DATA | octets of content |
//! | OVER | what came of it |
//! | UNKNOWN | this worker does not ask for it |
//!
//! All numbers are little-endian. The stream is between two processes of one program, and what does not fit is refused.

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

use super::Fetch;
use super::relay::read_file;
use crate::cache::{Key, Stored};
use crate::http::Headers;
use crate::http::page::AnswerReason;
use crate::shared::Version;
use crate::store::disk::format::{Content, Head};
use crate::store::{Body, Find, Growing, Object, Read, Reader, Store};
use crate::sys::clock;
use crate::wire::{Frame, Frames};
use crate::worker::context::Context;
use crate::worker::herd::{Outcome, Waiting};
use crate::worker::kept::Kept;

pub const HEAD: u8 = 1;
pub const FILE: u8 = 2;
pub const IN_FILE: u8 = 3;
pub const DATA: u8 = 4;
pub const OVER: u8 = 5;
pub const UNKNOWN: u8 = 6;

/// Octets of content in one frame at most.
const PIECE: u64 = 256 << 10;

/// What another worker wants.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    pub key: Vec<u8>,
    pub version: Version,
    /// The first octet that it has not got.
    pub from: u64,
    /// It does not wait for a head.
    pub only_answered: bool,
    /// What the request selects by; empty where all workers have one store.
    pub headers: Headers,
}

impl Question {
    pub fn of(context: &Context, fetch: &Fetch, key: &Key, from: u64) -> Question {
        let headers = &fetch.request.head.headers;
        Question {
            key: key.as_bytes().to_vec(),
            version: fetch.plan.herd,
            from,
            only_answered: headers.contains("range"),
            headers: match &context.store {
                Some(Kept::Memory(_)) => headers.clone(),
                _ => Headers::new(),
            },
        }
    }

    pub fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_version(self.version, &mut out);
        out.extend_from_slice(&self.from.to_le_bytes());
        out.push(u8::from(self.only_answered));
        counted(&self.key, &mut out);
        for (name, value) in self.headers.iter() {
            counted(name.as_bytes(), &mut out);
            counted(value, &mut out);
        }
        out
    }

    pub fn decode(octets: &[u8]) -> Option<Question> {
        let mut rest = octets;
        let version = take_version(&mut rest)?;
        let from = take_number(&mut rest)?;
        let (only_answered, mut rest) = rest.split_first()?;
        let key = take_counted(&mut rest)?.to_vec();
        let mut headers = Headers::new();
        while !rest.is_empty() {
            let name = std::str::from_utf8(take_counted(&mut rest)?).ok()?;
            headers.push(name, take_counted(&mut rest)?);
        }
        Some(Question {
            key,
            version,
            from,
            only_answered: *only_answered == 1,
            headers,
        })
    }
}

/// Another worker has asked for what this one is fetching.
pub async fn lend(context: &Rc<Context>, mut frames: Frames, question: &Frame) {
    let Some(question) = Question::decode(&question.content) else {
        return log::error!("another worker's question cannot be read");
    };
    // A drain waits for those who read from here.
    let _held = context.session_begins();
    let key = Key::from(question.key.as_slice());
    let waiting = context
        .herd
        .follow(&key, question.version, question.only_answered);
    let lent = match waiting {
        Some(waiting) => lend_arriving(context, &mut frames, &question, &waiting).await,
        None => lend_stored(context, &mut frames, &question, UNKNOWN, &[]).await,
    };
    if let Err(error) = lent {
        log::debug!("another worker does not read on: {error}");
    }
}

async fn lend_arriving(
    context: &Context,
    frames: &mut Frames,
    question: &Question,
    waiting: &Waiting,
) -> io::Result<()> {
    let told = tokio::select! {
        told = waiting.told() => told,
        () = frames.closed() => return Ok(()),
    };
    let object = match told {
        Ok(object) => object,
        Err(outcome) => {
            let over = encoded_outcome(outcome);
            return match outcome {
                Outcome::Stored => lend_stored(context, frames, question, OVER, &over).await,
                _ => frames.send(OVER, &over).await,
            };
        }
    };
    let Body::Growing(growing) = &object.body else {
        return frames.send(OVER, &encoded_outcome(Outcome::NotKept)).await;
    };
    if !growing.has(question.from) {
        return frames.send(OVER, &encoded_outcome(Outcome::NotKept)).await;
    }
    // From here on what it has not sent yet stays.
    let reader = growing.reader(question.from);
    let arriving = Arriving {
        stored: object.stored.clone(),
        version: question.version,
        expected: growing.expected,
        ahead: growing.length(),
    };
    frames.send(HEAD, &arriving.encoded()).await?;
    if send_growing(frames, growing, &reader, question.from).await? {
        // Its end and what came of it are told in one go.
        let outcome = waiting.outcome().unwrap_or(Outcome::NotKept);
        frames.send(OVER, &encoded_outcome(outcome)).await?;
    }
    Ok(())
}

/// Sends what arrives, to its end. Whether it came whole.
async fn send_growing(
    frames: &mut Frames,
    growing: &Growing,
    reader: &Reader<'_>,
    from: u64,
) -> io::Result<bool> {
    let (mut at, mut in_file, mut file) = (from, 0, None);
    loop {
        let read = tokio::select! {
            biased;
            read = reader.read(at) => read,
            () = frames.closed() => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        let piece = match read {
            Read::Memory(piece) => piece,
            Read::File(file, end) => read_file(file, at, (end - at).min(PIECE)).await?,
            Read::End => return Ok(true),
            Read::Broken => return Ok(false),
        };
        at += piece.len() as u64;
        frames.send(DATA, &piece).await?;
        // What the file has need not stay in the other's memory.
        if let Some(has) = growing.in_file().filter(|has| has.length > in_file) {
            if file.is_none() {
                frames.send_with(FILE, &[], has.file.as_fd()).await?;
                file = Some(has.file.clone());
            }
            in_file = has.length;
            frames.send(IN_FILE, &in_file.min(at).to_le_bytes()).await?;
        }
    }
}

/// Where each worker has a store of its own, the other one cannot look there: it gets what is in this one and fresh, or
/// else word.
async fn lend_stored(
    context: &Context,
    frames: &mut Frames,
    question: &Question,
    otherwise: u8,
    word: &[u8],
) -> io::Result<()> {
    let Some(store @ Kept::Memory(_)) = &context.store else {
        return frames.send(otherwise, word).await;
    };
    // First: what changes meanwhile makes the copy that the other one keeps unfit.
    let version = store.version(&question.key);
    match store.find(&question.key, &question.headers) {
        Find::Object(object) if question.from == 0 && is_whole_and_fresh(&object) => {
            let length = object.body.len();
            let arriving = Arriving {
                stored: object.stored.clone(),
                version,
                expected: Some(length),
                ahead: length,
            };
            frames.send(HEAD, &arriving.encoded()).await?;
            let mut at = 0;
            while at < length {
                let Some(piece) = object.body.read_piece(at, PIECE).await else {
                    return Ok(());
                };
                at += piece.len() as u64;
                frames.send(DATA, &piece).await?;
            }
            frames.send(OVER, &encoded_outcome(Outcome::Stored)).await
        }
        _ => frames.send(otherwise, word).await,
    }
}

fn is_whole_and_fresh(object: &Object) -> bool {
    object.stored.part.is_none() && object.stored.remaining(clock::unix_seconds()) > 0
}

// === as octets

/// The head, as it comes from the other worker.
pub struct Arriving {
    pub stored: Stored,
    /// A copy of it is of this version.
    pub version: Version,
    /// Octets that there will be, where that is known.
    pub expected: Option<u64>,
    /// Octets that are there.
    pub ahead: u64,
}

impl Arriving {
    fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_version(self.version, &mut out);
        out.extend_from_slice(&self.ahead.to_le_bytes());
        out.extend_from_slice(&self.expected.unwrap_or(u64::MAX).to_le_bytes());
        Head::without_body(&[], self.stored.clone()).encode(&mut out);
        out
    }

    pub fn decode(content: &[u8]) -> Option<Arriving> {
        let mut rest = content;
        let version = take_version(&mut rest)?;
        let ahead = take_number(&mut rest)?;
        let expected = Some(take_number(&mut rest)?).filter(|expected| *expected != u64::MAX);
        match Head::decode(rest).ok()?.0.content {
            Content::Object(kept) => Some(Arriving {
                stored: kept.stored,
                version,
                expected,
                ahead,
            }),
            Content::List(_) => None,
        }
    }
}

pub fn encoded_outcome(outcome: Outcome) -> Vec<u8> {
    match outcome {
        Outcome::Stored => vec![0],
        Outcome::Unshared => vec![1],
        Outcome::NotKept => vec![2],
        Outcome::Failed => vec![3],
        Outcome::Unreachable(reason) => [&[4], reason.as_str().as_bytes()].concat(),
        Outcome::Error(status) => [&[5], status.to_le_bytes().as_slice()].concat(),
    }
}

pub fn outcome(octets: &[u8]) -> Option<Outcome> {
    Some(match octets {
        [0] => Outcome::Stored,
        [1] => Outcome::Unshared,
        [2] => Outcome::NotKept,
        [3] => Outcome::Failed,
        [4, word @ ..] => {
            let reason = std::str::from_utf8(word)
                .ok()
                .and_then(AnswerReason::of_origin);
            Outcome::Unreachable(reason.unwrap_or(AnswerReason::OriginUnreachable))
        }
        [5, low, high] => Outcome::Error(u16::from_le_bytes([*low, *high])),
        _ => return None,
    })
}

pub fn number(octets: &[u8]) -> Option<u64> {
    octets.try_into().ok().map(u64::from_le_bytes)
}

fn counted(octets: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(octets.len() as u32).to_le_bytes());
    out.extend_from_slice(octets);
}

fn put_version(version: Version, out: &mut Vec<u8>) {
    out.extend_from_slice(&version.slot.to_le_bytes());
    out.extend_from_slice(&version.epoch.to_le_bytes());
}

fn take_version(rest: &mut &[u8]) -> Option<Version> {
    Some(Version {
        slot: take_number(rest)?,
        epoch: take_number(rest)?,
    })
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(u64::from_le_bytes(*head))
}

fn take_counted<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk()?;
    let length = u32::from_le_bytes(*length) as usize;
    let (octets, tail) = tail.split_at_checked(length)?;
    *rest = tail;
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Policy, Times};
    use crate::http::{RequestHead, ResponseHead};

    fn arriving(expected: Option<u64>) -> Arriving {
        let mut response = ResponseHead::new();
        response.headers.push("Cache-Control", b"max-age=60");
        let times = Times {
            request: 7,
            response: 8,
        };
        Arriving {
            stored: Stored::new(&RequestHead::new(), &response, times, &Policy::default()),
            version: Version { slot: 3, epoch: 4 },
            expected,
            ahead: 5,
        }
    }

    #[test]
    fn a_head_comes_as_it_was_sent_and_of_its_version() {
        for expected in [None, Some(0), Some(9)] {
            let sent = arriving(expected);
            let octets = sent.encoded();
            let came = Arriving::decode(&octets).unwrap();
            assert_eq!(came.stored, sent.stored);
            assert_eq!(came.version, sent.version);
            assert_eq!((came.expected, came.ahead), (expected, 5));
            for length in 0..octets.len() {
                assert!(Arriving::decode(&octets[..length]).is_none());
            }
        }
    }

    #[test]
    fn a_question_comes_as_it_was_asked_and_half_of_one_is_none() {
        let question = Question {
            key: b"http://a/".to_vec(),
            version: Version { slot: 1, epoch: 2 },
            from: 3,
            only_answered: true,
            headers: [("Accept", "text/html")].into_iter().collect(),
        };
        let octets = question.encoded();
        assert_eq!(Question::decode(&octets).unwrap(), question);
        let whole_fields = octets.len() - (4 + 6 + 4 + 9);
        for length in (0..octets.len()).filter(|length| *length != whole_fields) {
            assert!(Question::decode(&octets[..length]).is_none(), "{length}");
        }
    }
}
