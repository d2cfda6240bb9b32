//! Step 6: octets to the client, from the store or from the origin server as they come.
//!
//! Messages are always serialised anew. A body that ends early is never completed: it is cut, visibly.

use std::io::{self, IoSlice};
use std::sync::Arc;

use tokio::time::Instant;

use super::admit::Admitted;
use super::fetch::{self, Reply, write_field};
use super::finish::{self, Outcome};
use super::record::{self, Recording};
use super::request_body::{RequestBody, Trouble};
use super::{Fetch, Hit, Next, Request, answer};
use crate::http::body::{Decoder, Encoder};
use crate::http::conditional::{self, Outcome as Condition};
use crate::http::connection::EndToEnd;
use crate::http::date;
use crate::http::framing::Framing;
use crate::http::head::{Method, RequestHead, ResponseHead, Version, write_status_line};
use crate::http::syntax::write_decimal;
use crate::routing::loops;
use crate::store::{Body, BodyFile, Object};
use crate::sys::files::Access;
use crate::upstream;
use crate::upstream::client::Link;
use crate::wire::{Broken, Pace, Stream, buffers};
use crate::worker::context::Context;
use crate::worker::session::Session;

/// Bodies up to this size are copied behind their heads, so that answers that are ready together leave in one write.
const COPIED: usize = 16 * 1024;

/// Octets of a file that the kernel is given at once, where they are in memory.
const GIVEN: u64 = 8 << 20;

/// Octets of a file that are brought into memory at once, where they are not there.
const FETCHED: u64 = 1 << 20;

/// What came of delivering a response.
pub struct Delivered {
    pub status: u16,
    /// Octets of content.
    pub octets: u64,
    pub reason: &'static str,
    pub end: End,
    /// Whether the client's connection may go on.
    pub persists: bool,
}

pub enum End {
    /// The whole response has left, or is in the outbox.
    Whole,
    /// The origin server failed before an octet had left: the client has an answer of ours instead.
    Answered,
    ClientGone,
    ClientStalled,
    Origin(upstream::Error),
    Request,
    /// The stored body could not be read, or is not what was stored.
    Store,
    /// The same, before an octet had left.
    Lost,
}

impl End {
    pub fn as_str(&self) -> &'static str {
        match self {
            End::Whole => "",
            End::Answered => "answered",
            End::ClientGone => "client-gone",
            End::ClientStalled => "client-stalled",
            End::Origin(upstream::Error::BodyStalled) => "origin-stalled",
            End::Origin(_) => "origin-broke",
            End::Request => "request-broke",
            End::Store | End::Lost => "store-broke",
        }
    }
}

// === from the store

/// Writes a small hit into the outbox: no waiting, no task. None: it is too large, or only the disk has its body.
pub fn hit_now(
    session: &mut Session,
    admitted: &Admitted,
    hit: &Hit,
    began: Instant,
) -> Option<Next> {
    let body = &hit.object.body;
    if body.len() > COPIED as u64 {
        return None;
    }
    // A GET or HEAD with a body is no hit, so the next octet on this connection is the next request's.
    let persists = admitted.persists;
    let mut out = take_outbox(session);
    let before = out.len();
    let head = session.head();
    let (status, sends_body) = write_hit_head(session, head, hit, persists, &mut out);
    let octets = if sends_body { body.len() } else { 0 };
    if sends_body && let Err(error) = body.read(&mut out, Access::Cached) {
        if error.kind() != io::ErrorKind::WouldBlock {
            body.give_up();
        }
        out.truncate(before);
        session.outbox = out;
        return None;
    }
    log_hit(session, head, hit, status, octets, &End::Whole, began);
    session.outbox = out;
    Some(if persists {
        Next::KeepAlive
    } else {
        Next::Close
    })
}

/// What came of serving a hit.
pub enum Served {
    Next(Next),
    /// Nothing: the stored body cannot be read, and no octet has left.
    Lost,
}

/// Delivers a hit of any size.
pub async fn hit(session: &mut Session, request: &Request, hit: &Hit) -> Served {
    let persists = request.persists && session.may_go_on();
    let mut out = take_outbox(session);
    let (status, sends_body) = write_hit_head(session, &request.head, hit, persists, &mut out);
    let (octets, end) = match &hit.object.body {
        _ if !sends_body => (0, End::Whole),
        // Left to the session, which may have more answers to put behind it.
        Body::Memory(body) if body.len() <= COPIED => {
            out.extend_from_slice(body);
            (body.len() as u64, End::Whole)
        }
        Body::Memory(body) => {
            let written = write_large(session, &out, body).await;
            out.clear();
            written
        }
        Body::File(body) => {
            let sent = send_file(session, &out, body).await;
            out.clear();
            sent
        }
    };
    session.outbox = out;
    if matches!(end, End::Lost | End::Store)
        && let Some(store) = &session.context.store
    {
        store.discard(&hit.object).await;
    }
    if matches!(end, End::Lost) {
        return Served::Lost;
    }
    log_hit(
        session,
        &request.head,
        hit,
        status,
        octets,
        &end,
        request.began,
    );
    Served::Next(match end {
        End::Whole if persists => Next::KeepAlive,
        End::Whole => Next::Close,
        _ => Next::Abort,
    })
}

/// Sends a head and the body that is in a file. How much of the body has left, and why no more has.
async fn send_file(session: &Session, head: &[u8], body: &Arc<BodyFile>) -> (u64, End) {
    if !body.is_intact() {
        return (0, End::Lost);
    }
    let client = &session.context.config.client;
    let mut pace = Pace::new(client.write_timeout, client.min_rate);
    let mut sent = 0;
    let whole = match body.trusted {
        true => send_unseen(session, head, body, &mut pace, &mut sent).await,
        false => send_checked(session, head, body, &mut pace, &mut sent).await,
    };
    (sent, whole.err().unwrap_or(End::Whole))
}

/// By the kernel, as long as what it sends is in memory; what is not is fetched elsewhere first.
async fn send_unseen(
    session: &Session,
    head: &[u8],
    body: &Arc<BodyFile>,
    pace: &mut Pace,
    sent: &mut u64,
) -> Result<(), End> {
    let mut resident = make_resident(body, 0).await.ok_or(End::Lost)?;
    session
        .stream
        .write_before_file(head, pace)
        .await
        .map_err(client_end)?;
    while *sent < body.length {
        if *sent >= resident {
            resident = make_resident(body, *sent).await.ok_or(End::Store)?;
        }
        let count = (resident - *sent) as usize;
        let file = session
            .stream
            .send_file(body.file(), body.from + *sent, count, pace);
        match file.await.map_err(client_end)? {
            0 => return Err(End::Store),
            octets => *sent += octets as u64,
        }
    }
    Ok(())
}

/// Sees to it that octets from `at` on are in memory; up to where. None: the disk does not give them.
async fn make_resident(body: &Arc<BodyFile>, at: u64) -> Option<u64> {
    let rest = body.length - at;
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

/// Block by block, each read and compared with its checksum before it leaves.
async fn send_checked(
    session: &Session,
    head: &[u8],
    body: &Arc<BodyFile>,
    pace: &mut Pace,
    sent: &mut u64,
) -> Result<(), End> {
    let mut head = head;
    for block in 0..(body.length as usize).div_ceil(BodyFile::BLOCK) {
        let body = body.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut octets = Vec::with_capacity(BodyFile::BLOCK);
            body.read_block(block, &mut octets).map(|()| octets)
        });
        let unread = if block == 0 { End::Lost } else { End::Store };
        let octets = read.await.ok().and_then(Result::ok).ok_or(unread)?;
        let mut parts = [head, &octets].map(IoSlice::new);
        let written = session.stream.write_paced(&mut parts, pace).await;
        written.map_err(client_end)?;
        *sent += octets.len() as u64;
        head = &[];
    }
    Ok(())
}

/// Writes a head and its body from where they are. How much of the body has left, and why no more has.
async fn write_large(session: &Session, head: &[u8], body: &[u8]) -> (u64, End) {
    let client = &session.context.config.client;
    let mut pace = Pace::new(client.write_timeout, client.min_rate);
    let mut written = 0usize;
    loop {
        let of_body = written.saturating_sub(head.len());
        let parts = [
            IoSlice::new(head.get(written..).unwrap_or_default()),
            IoSlice::new(body.get(of_body..).unwrap_or_default()),
        ];
        match session.stream.write_some_paced(&parts, &mut pace).await {
            Ok(octets) => written += octets,
            Err(broken) => return (of_body as u64, client_end(broken)),
        }
        if written == head.len() + body.len() {
            return (body.len() as u64, End::Whole);
        }
    }
}

fn take_outbox(session: &mut Session) -> Vec<u8> {
    if session.outbox.capacity() == 0 {
        buffers::take()
    } else {
        std::mem::take(&mut session.outbox)
    }
}

/// The head of a hit, conditions evaluated; returns the status, and whether the body follows.
fn write_hit_head(
    session: &Session,
    request: &RequestHead,
    hit: &Hit,
    persists: bool,
    out: &mut Vec<u8>,
) -> (u16, bool) {
    let object: &Object = &hit.object;
    // RFC 9110 section 13.2.1: preconditions count only where the response without them would be "2xx (Successful)".
    let may_be_tried = (200..300).contains(&object.stored.status);
    let condition = match may_be_tried && conditional::is_conditional(&request.headers) {
        true => conditional::evaluate(&request.headers, &object.stored.validators()),
        false => Condition::Proceed,
    };
    let status = match condition {
        Condition::NotModified => {
            write_not_modified(object, out);
            304
        }
        Condition::Proceed => {
            out.extend_from_slice(&object.head);
            // RFC 9110 section 8.6: "A server MUST NOT send a Content-Length header field in any response with a status
            // code of 1xx (Informational) or 204 (No Content)."
            if object.stored.status != 204 {
                out.extend_from_slice(b"Content-Length: ");
                write_decimal(object.body.len(), out);
                out.extend_from_slice(b"\r\n");
            }
            object.stored.status
        }
    };
    // RFC 9111 section 5.1: Age is "the sender's estimate of the time since the response was generated or validated".
    out.extend_from_slice(b"Age: ");
    write_decimal(u64::from(hit.age), out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&hit.for_client);
    loops::write_via(Version::Http11, &session.context.pseudonym, out);
    record::write_status(&hit.status, out);
    write_connection(request.version, persists, out);
    out.extend_from_slice(b"\r\n");
    (status, status != 304 && request.method != Method::Head)
}

/// RFC 9110 section 15.4.5: a 304 carries the fields "that would have been sent in a 200 (OK) response to the
/// same request: Content-Location, Date, ETag, and Vary; Cache-Control and Expires".
fn write_not_modified(object: &Object, out: &mut Vec<u8>) {
    const KEPT: [&str; 7] = [
        "cache-control",
        "content-location",
        "date",
        "etag",
        "expires",
        "last-modified",
        "vary",
    ];
    write_status_line(304, b"Not Modified", out);
    for (name, value) in object.stored.headers.iter() {
        if KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(name)) {
            write_field(name, value, out);
        }
    }
}

fn log_hit(
    session: &Session,
    head: &RequestHead,
    hit: &Hit,
    status: u16,
    octets: u64,
    end: &End,
    began: Instant,
) {
    let outcome = Outcome {
        status,
        octets,
        content_type: hit.object.stored.headers.get("content-type"),
        cache: hit.outcome,
        reason: hit.reason,
        origin: hit.origin,
        end: end.as_str(),
    };
    finish::log(session, Some(head), began, &outcome);
}

// === from the origin server

/// Delivers a response as it arrives, and the rest of its request meanwhile.
pub async fn reply(
    session: &mut Session,
    fetch: &Fetch,
    reply: &mut Reply,
    recording: Recording,
    body: &mut RequestBody,
) -> Delivered {
    let request = &fetch.request;
    let framing = framing_for_client(request, reply.framing);
    // What is still to come of the request would be taken for the next one.
    let persists =
        request.persists && session.may_go_on() && framing != Framing::UntilClose && body.is_read();
    let mut delivered = Delivered {
        status: reply.head.status,
        octets: 0,
        reason: recording.reason(),
        end: End::Whole,
        persists,
    };
    write_reply_head(session, request, reply, framing, &recording, persists);
    if framing == Framing::UntilClose {
        // The death of this process must not look like the end of the response.
        session.stream.reset_on_death(true);
    }
    let context = session.context.clone();
    let mut out = std::mem::take(&mut session.outbox);
    let ends = fetch::ends(session, &reply.link, &context.config);
    let client = ends.client;
    let mut relay = Relay {
        context: &context,
        client,
        link: &mut reply.link,
        out: &mut out,
        recording,
        octets: &mut delivered.octets,
        sent: false,
        to: Pace::new(
            context.config.client.write_timeout,
            context.config.client.min_rate,
        ),
        from: Pace::new(
            context.config.origin.body_timeout,
            context.config.origin.min_rate,
        ),
    };
    let ended = body
        .beside(ends, None, relay.run(reply.framing, framing))
        .await;
    let sent = relay.sent;
    session.outbox = out;
    delivered.end = match ended {
        Ok(end) => end.unwrap_or(End::ClientGone),
        Err(Trouble::Gone) => End::ClientGone,
        Err(trouble) => {
            log::debug!("connection {}: {trouble}", session.conn.id);
            End::Request
        }
    };
    match &delivered.end {
        End::Whole if framing == Framing::UntilClose => session.stream.reset_on_death(false),
        End::Origin(error) if !sent => {
            session.stream.reset_on_death(false);
            session.outbox.clear();
            delivered.persists = persists;
            (delivered.status, delivered.octets) = answer::instead(session, fetch, error, persists);
            delivered.end = End::Answered;
        }
        _ => {}
    }
    delivered
}

/// RFC 9112 section 6.3: a body of unknown length is chunked for HTTP/1.1 and ends with the connection for 1.0.
fn framing_for_client(request: &Request, framing: Framing) -> Framing {
    match (framing, request.head.version) {
        (Framing::Chunked | Framing::UntilClose, Version::Http11) => Framing::Chunked,
        (Framing::Chunked | Framing::UntilClose, Version::Http10) => Framing::UntilClose,
        (known, _) => known,
    }
}

fn write_reply_head(
    session: &mut Session,
    request: &Request,
    reply: &mut Reply,
    framing: Framing,
    recording: &Recording,
    persists: bool,
) {
    let head: &mut ResponseHead = &mut reply.head;
    let mut out = take_outbox(session);
    write_status_line(head.status, &head.reason, &mut out);
    // RFC 9110 section 8.6: the answer to HEAD may say the length that GET would have; 1xx and 204 must not.
    let length_of_get = framing == Framing::None && request.head.method == Method::Head;
    let end_to_end = EndToEnd::of_response(&head.headers);
    for (name, value) in head.headers.iter() {
        let is_length = name.eq_ignore_ascii_case("content-length");
        if end_to_end.keeps(name) && (!is_length || length_of_get) {
            write_field(name, value, &mut out);
        }
    }
    // RFC 9110 section 6.6.1: "A recipient with a clock that receives a response message without a Date header field
    // MUST record the time it was received and append a corresponding Date header field".
    if !head.headers.contains("date") {
        out.extend_from_slice(b"Date: ");
        date::write(reply.answered_at, &mut out);
        out.extend_from_slice(b"\r\n");
    }
    fetch::write_framing(framing, &mut out);
    loops::write_via(head.version, &session.context.pseudonym, &mut out);
    recording.write_status(&mut out);
    write_connection(request.head.version, persists, &mut out);
    out.extend_from_slice(b"\r\n");
    session.outbox = out;
}

/// A response's body on its way from one connection to the other.
struct Relay<'a> {
    context: &'a Context,
    client: &'a Stream,
    link: &'a mut Link,
    /// The head, and what is small enough to leave with it.
    out: &'a mut Vec<u8>,
    recording: Recording,
    octets: &'a mut u64,
    /// Whether anything has left.
    sent: bool,
    to: Pace,
    from: Pace,
}

impl Relay<'_> {
    async fn run(&mut self, from: Framing, to: Framing) -> End {
        match self.relay(Decoder::new(from), Encoder::new(to)).await {
            Ok(()) => End::Whole,
            Err(end) => end,
        }
    }

    async fn relay(&mut self, mut decoder: Decoder, mut encoder: Encoder) -> Result<(), End> {
        let mut size = buffers::ORDINARY;
        loop {
            while !decoder.is_done() && !self.link.inbox.is_empty() {
                let step = decoder
                    .decode(self.link.inbox.octets())
                    .map_err(|error| End::Origin(error.into()))?;
                let content = self.link.inbox.octets().get(step.data.clone());
                self.recording.write(content.unwrap_or_default()).await;
                if step.done {
                    // Visible to everybody before the last octet leaves.
                    self.recording.finish(self.context).await;
                }
                self.payload(step.data, &mut encoder).await?;
                self.link.inbox.consume(step.consumed);
                if step.consumed == 0 {
                    break;
                }
            }
            if decoder.is_done() {
                self.recording.finish(self.context).await;
                // An encoder that was promised another length than came is our own fault: the response is cut.
                return encoder.end(self.out).map_err(|_| End::ClientGone);
            }
            self.flush().await?;
            let read = self
                .link
                .inbox
                .fill_paced(&self.link.stream, size, &mut self.from)
                .await;
            match read.map_err(|broken| End::Origin(broken.into()))? {
                0 => decoder
                    .end_of_input()
                    .map_err(|error| End::Origin(error.into()))?,
                // A full buffer tells of a large body: fewer, larger calls.
                read if read == size => size = buffers::LARGE,
                _ => {}
            }
        }
    }

    async fn payload(
        &mut self,
        data: std::ops::Range<usize>,
        encoder: &mut Encoder,
    ) -> Result<(), End> {
        let payload = self.link.inbox.octets().get(data).unwrap_or_default();
        *self.octets += payload.len() as u64;
        let prefix = encoder.prefix(payload.len()).map_err(|_| End::ClientGone)?;
        let suffix: &[u8] = if payload.is_empty() {
            b""
        } else {
            encoder.suffix()
        };
        if self.out.len() + payload.len() <= COPIED {
            self.out.extend_from_slice(prefix.as_ref());
            self.out.extend_from_slice(payload);
            self.out.extend_from_slice(suffix);
            return Ok(());
        }
        self.sent = true;
        let mut parts = [self.out.as_slice(), prefix.as_ref(), payload, suffix].map(IoSlice::new);
        let written = self.client.write_paced(&mut parts, &mut self.to).await;
        self.out.clear();
        written.map_err(client_end)
    }

    async fn flush(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.sent = true;
        let written = self
            .client
            .write_paced(&mut [IoSlice::new(self.out)], &mut self.to)
            .await;
        self.out.clear();
        written.map_err(client_end)
    }
}

fn client_end(broken: Broken) -> End {
    match broken {
        Broken::Io(_) => End::ClientGone,
        Broken::Stalled => End::ClientStalled,
    }
}

// === fields that every response of ours has

/// RFC 9112 section 9.3: 1.1 persists unless told otherwise, 1.0 only if told so.
pub fn write_connection(version: Version, persists: bool, out: &mut Vec<u8>) {
    match (persists, version) {
        (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
        (true, Version::Http10) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (true, Version::Http11) => {}
    }
}
