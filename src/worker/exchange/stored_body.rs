//! Octets of a stored body on their way to a client: copied from memory where they are few, sent by the kernel from a file
//! on the disk or in memory, or read and checked block by block where a file is not trusted, or piece by piece from a
//! database.
//!
//! A disk that is slow holds up this client alone. It writes the head that goes before the octets only when it is
//! certain that there are any.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;

use super::deliver::{End, client_end};
use super::relay::Onward;
use crate::http::framing::Framing;
use crate::store::postgres::{PIECE_SIZE, Rows};
use crate::store::{Body, BodyFile, Growing};
use crate::wire::{Pace, Stream};
use crate::worker::session::Session;

/// Octets of a file that the kernel is given at once, where they are in memory: other connections wait meanwhile.
const GIVEN: u64 = 8 << 20;
/// Octets of a file that are sent without a task: other connections wait meanwhile.
const AT_ONCE: u64 = 256 << 10;
/// Octets of a file that are brought into memory at once, where they are not there.
const FETCHED: u64 = 1 << 20;

/// Some octets of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Where in the body they begin.
    pub at: u64,
    pub length: u64,
}

/// Whether octets of the body can be sent without waiting for anything but the client.
pub fn leaves_now(body: &Body) -> bool {
    match body {
        Body::Memory(_) => true,
        // Whether it is still what was stored was looked at when it was found, a moment ago.
        Body::File(body) => {
            body.is_trusted() && body.length <= AT_ONCE && body.is_resident(0, body.length)
        }
        Body::Rows(_) | Body::Growing(_) => false,
    }
}

/// Sends a head and octets of the body behind it, as many as the kernel takes now: `head` keeps what has not left, and
/// what is returned is the rest of the octets. What goes wrong shows when that is sent.
pub fn send_now(stream: &Stream, head: &mut Vec<u8>, body: &Body, slice: Slice) -> Slice {
    let of_body = match body {
        Body::Memory(octets) => match octets.file_for(slice.length) {
            Some(file) => send_from_file_now(stream, head, file, slice),
            None => {
                let octets = octets.get(slice.at as usize..).unwrap_or_default();
                let octets = octets.get(..slice.length as usize).unwrap_or(octets);
                let parts = [IoSlice::new(head), IoSlice::new(octets)];
                let written = stream.try_write(&parts).unwrap_or(0);
                let of_head = written.min(head.len());
                head.drain(..of_head);
                (written - of_head) as u64
            }
        },
        Body::File(body) => {
            let at = body.from + slice.at;
            send_from_file_now(stream, head, body.file(), Slice { at, ..slice })
        }
        Body::Rows(_) | Body::Growing(_) => 0,
    };
    Slice {
        at: slice.at + of_body,
        length: slice.length - of_body,
    }
}

/// How many octets of that part of a file have left behind the head.
fn send_from_file_now(
    stream: &Stream,
    head: &mut Vec<u8>,
    file: BorrowedFd<'_>,
    slice: Slice,
) -> u64 {
    let of_head = stream.try_write_before_file(head).unwrap_or(0);
    head.drain(..of_head);
    let count = slice.length.min(GIVEN) as usize;
    let sent = || stream.try_send_file(file, slice.at, count);
    match head.is_empty() {
        true => sent().unwrap_or(0) as u64,
        false => 0,
    }
}

/// A client, and what it has got of a body.
pub struct Sender<'a> {
    session: &'a Session,
    pace: Pace,
    /// Octets of the body that have left.
    pub sent: u64,
}

impl Sender<'_> {
    pub fn new(session: &Session) -> Sender<'_> {
        let client = &session.context.config.client;
        Sender {
            session,
            pace: Pace::new(client.write_timeout, client.min_rate),
            sent: 0,
        }
    }

    /// Sends a head and octets of the body behind it.
    pub async fn send(&mut self, head: &[u8], body: &Body, slice: Slice) -> Result<(), End> {
        match body {
            Body::Memory(body) if let Some(file) = body.file_for(slice.length) => {
                self.before_file(head).await?;
                self.send_of(file, slice).await
            }
            Body::Memory(body) => {
                let from = (slice.at as usize).min(body.len());
                let to = from + (slice.length as usize).min(body.len() - from);
                self.copied(head, body.get(from..to).unwrap_or_default())
                    .await
            }
            Body::File(body) if !body.is_intact() => Err(End::Lost),
            Body::File(body) if body.is_trusted() => self.unseen(head, body, slice).await,
            Body::File(body) => self.checked(head, body, slice).await,
            Body::Rows(body) => self.piecewise(head, body, slice).await,
            Body::Growing(body) => {
                let to = Framing::Length(slice.length);
                self.growing(head, body, slice, to).await
            }
        }
    }

    /// Sends a head and all of a body of unknown length, in chunks.
    pub async fn arriving(&mut self, head: &[u8], body: &Body) -> Result<(), End> {
        let Body::Growing(body) = body else {
            return Err(End::Store);
        };
        let all = Slice {
            at: 0,
            length: u64::MAX,
        };
        self.growing(head, body, all, Framing::Chunked).await
    }

    async fn growing(
        &mut self,
        head: &[u8],
        body: &Growing,
        slice: Slice,
        to: Framing,
    ) -> Result<(), End> {
        let mut onward = Onward::new(&self.session.context, to);
        let (mut out, end) = (head.to_vec(), slice.at.saturating_add(slice.length));
        let stream = &self.session.stream;
        let followed = onward.followed(stream, &mut out, body, slice.at, end).await;
        self.sent += onward.octets;
        followed
    }

    /// Sends what belongs to no body.
    pub async fn frame(&mut self, octets: &[u8]) -> Result<(), End> {
        let mut parts = [IoSlice::new(octets)];
        let stream = &self.session.stream;
        let written = stream.write_paced(&mut parts, &mut self.pace).await;
        written.map_err(client_end)
    }

    async fn copied(&mut self, head: &[u8], body: &[u8]) -> Result<(), End> {
        let mut written = 0usize;
        let before = self.sent;
        while written < head.len() + body.len() {
            let of_body = written.saturating_sub(head.len());
            let parts = [
                IoSlice::new(head.get(written..).unwrap_or_default()),
                IoSlice::new(body.get(of_body..).unwrap_or_default()),
            ];
            let stream = &self.session.stream;
            let wrote = stream.write_some_paced(&parts, &mut self.pace).await;
            written += wrote.map_err(client_end)?;
            self.sent = before + written.saturating_sub(head.len()) as u64;
        }
        Ok(())
    }

    /// By the kernel, as long as what it sends is in memory; what is not is fetched elsewhere first.
    async fn unseen(&mut self, head: &[u8], body: &Arc<BodyFile>, slice: Slice) -> Result<(), End> {
        let Slice { mut at, length } = slice;
        let end = at + length;
        let mut resident = make_resident(body, at, end).await.ok_or(End::Lost)?;
        self.before_file(head).await?;
        loop {
            let here = Slice {
                at: body.from + at,
                length: resident - at,
            };
            self.send_of(body.file(), here).await?;
            at = resident;
            if at >= end {
                return Ok(());
            }
            resident = make_resident(body, at, end).await.ok_or(End::Store)?;
        }
    }

    async fn before_file(&mut self, head: &[u8]) -> Result<(), End> {
        let stream = &self.session.stream;
        let written = stream.write_before_file(head, &mut self.pace).await;
        written.map_err(client_end)
    }

    /// Octets of a file that are in memory.
    async fn send_of(&mut self, file: BorrowedFd<'_>, slice: Slice) -> Result<(), End> {
        let Slice { mut at, length } = slice;
        let end = at + length;
        let stream = &self.session.stream;
        while at < end {
            let count = (end - at).min(GIVEN) as usize;
            let sent = stream.send_file(file, at, count, &mut self.pace).await;
            match sent.map_err(client_end)? {
                0 => return Err(End::Store),
                octets => {
                    at += octets as u64;
                    self.sent += octets as u64;
                }
            }
        }
        Ok(())
    }

    /// Piece by piece; the next one is asked for while this one leaves.
    async fn piecewise(&mut self, head: &[u8], body: &Rc<Rows>, slice: Slice) -> Result<(), End> {
        let Slice { mut at, length } = slice;
        let end = at + length;
        if length == 0 {
            return self.frame(head).await;
        }
        // Before an octet has left, the origin server is the better choice than to wait.
        let first = body.read(at, length).await;
        let mut piece = first.ok_or(End::Lost)?;
        let mut head = head;
        loop {
            let next = at + piece.len() as u64;
            let ahead = (next < end).then(|| {
                let body = body.clone();
                let most = (end - next).min(PIECE_SIZE as u64);
                Ahead(tokio::task::spawn_local(async move {
                    body.read_patiently(next, most).await
                }))
            });
            self.copied(head, &piece).await?;
            head = &[];
            at = next;
            let Some(mut ahead) = ahead else {
                return Ok(());
            };
            let read = (&mut ahead.0).await;
            piece = read.ok().flatten().ok_or(End::Store)?;
        }
    }

    /// Block by block, each read and compared with its checksum before it leaves.
    async fn checked(
        &mut self,
        head: &[u8],
        body: &Arc<BodyFile>,
        slice: Slice,
    ) -> Result<(), End> {
        let mut head = head;
        let Slice { mut at, length } = slice;
        let end = at + length;
        let mut unread = End::Lost;
        while at < end {
            let block = at as usize / BodyFile::BLOCK;
            let body = body.clone();
            let read = tokio::task::spawn_blocking(move || {
                let mut octets = Vec::with_capacity(BodyFile::BLOCK);
                body.read_block(block, &mut octets).map(|()| octets)
            });
            let octets = read.await.ok().and_then(Result::ok);
            let first = (block * BodyFile::BLOCK) as u64;
            let wanted = |octets: &Vec<u8>| {
                let to = (end - first).min(octets.len() as u64);
                octets
                    .get((at - first) as usize..to as usize)
                    .map(<[u8]>::to_vec)
            };
            let octets = octets
                .as_ref()
                .and_then(wanted)
                .filter(|octets| !octets.is_empty());
            let octets = octets.ok_or(unread)?;
            unread = End::Store;
            let mut parts = [head, &octets].map(IoSlice::new);
            let stream = &self.session.stream;
            let written = stream.write_paced(&mut parts, &mut self.pace).await;
            written.map_err(client_end)?;
            at += octets.len() as u64;
            self.sent += octets.len() as u64;
            head = &[];
        }
        match head.is_empty() {
            true => Ok(()),
            false => self.frame(head).await,
        }
    }
}

/// A piece that is being read; nobody waits for it any more when this goes.
struct Ahead(tokio::task::JoinHandle<Option<bytes::Bytes>>);

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sees to it that octets from `at` on are in memory; up to where, `end` at the most. None: the disk does not give them.
async fn make_resident(body: &Arc<BodyFile>, at: u64, end: u64) -> Option<u64> {
    let rest = end - at;
    let given = rest.min(GIVEN);
    if body.is_resident(at, given) {
        return Some(at + given);
    }
    let piece = rest.min(FETCHED);
    if !body.is_resident(at, piece) {
        let body = body.clone();
        let fetched = tokio::task::spawn_blocking(move || body.fetch(at, piece)).await;
        fetched.ok()?.ok()?;
    }
    Some(at + piece)
}
