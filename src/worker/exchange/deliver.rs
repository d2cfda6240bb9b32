//! Step 6: octets to the client as they come from the origin server; `serve` is for those from the store.
//!
//! Messages are always serialised anew. A body that ends early is never completed: it is cut, visibly.

use std::io::IoSlice;

use super::fetch::{self, Prefix, Reply, write_field};
use super::recording::Recording;
use super::request_body::{Ends, RequestBody, Trouble};
use super::{Fetch, Request, answer};
use crate::http::body::{Decoder, Encoder};
use crate::http::connection::EndToEnd;
use crate::http::date;
use crate::http::framing::Framing;
use crate::http::head::{Method, ResponseHead, Version, write_status_line};
use crate::routing::loops;
use crate::upstream;
use crate::upstream::client::Link;
use crate::wire::{Broken, Pace, Stream, buffers};
use crate::worker::context::Context;
use crate::worker::session::Session;

/// Bodies up to this size are copied behind their heads, so that answers that are ready together leave in one write.
pub const COPIED: usize = 16 * 1024;

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

/// Delivers a response as it arrives, and the rest of its request meanwhile.
pub async fn reply(
    session: &mut Session,
    fetch: &Fetch,
    reply: &mut Reply,
    mut recording: Recording,
    body: &mut RequestBody,
) -> Delivered {
    let request = &fetch.request;
    let prefix = reply.prefix.take();
    let framing = match &prefix {
        Some(prefix) => Framing::Length(prefix.complete),
        None => framing_for_client(request, reply.framing),
    };
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
    let ends = Ends {
        client: Some(&session.stream),
        inbox: &mut session.inbox,
        origin: reply.link.stream.clone(),
        config: &context.config,
    };
    let (client, origin) = (&context.config.client, &context.config.origin);
    let mut relay = Relay {
        context: &context,
        client: &session.stream,
        link: &mut reply.link,
        out: &mut out,
        recording: &mut recording,
        octets: &mut delivered.octets,
        sent: false,
        to: Pace::new(client.write_timeout, client.min_rate),
        from: Pace::new(origin.body_timeout, origin.min_rate),
    };
    let ended = body
        .beside(ends, None, relay.run(prefix, reply.framing, framing))
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
    if !matches!(delivered.end, End::Whole) {
        recording.cut(&context).await;
    }
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

/// Takes a response for the store alone. Whether it has come whole.
pub async fn absorb(context: &Context, reply: &mut Reply, mut recording: Recording) -> bool {
    let mut decoder = Decoder::new(reply.framing);
    let link = &mut reply.link;
    let mut pace = Pace::new(
        context.config.origin.body_timeout,
        context.config.origin.min_rate,
    );
    let is_whole = loop {
        while !decoder.is_done() && !link.inbox.is_empty() {
            let Ok(step) = decoder.decode(link.inbox.octets()) else {
                return false;
            };
            let content = link.inbox.octets().get(step.data.clone());
            recording.write(content.unwrap_or_default()).await;
            link.inbox.consume(step.consumed);
            if step.consumed == 0 {
                break;
            }
        }
        if decoder.is_done() {
            break true;
        }
        let read = link
            .inbox
            .fill_paced(&link.stream, buffers::LARGE, &mut pace)
            .await;
        match read {
            Ok(0) if decoder.end_of_input().is_ok() => {}
            Ok(0) | Err(_) => break false,
            Ok(_) => {}
        }
    };
    match is_whole {
        true => recording.finish(context).await,
        false => recording.cut(context).await,
    }
    is_whole
}

pub fn take_outbox(session: &mut Session) -> Vec<u8> {
    if session.outbox.capacity() == 0 {
        buffers::take()
    } else {
        std::mem::take(&mut session.outbox)
    }
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
    recording: &'a mut Recording,
    octets: &'a mut u64,
    /// Whether anything has left.
    sent: bool,
    to: Pace,
    from: Pace,
}

impl Relay<'_> {
    async fn run(&mut self, prefix: Option<Prefix>, from: Framing, to: Framing) -> End {
        let relayed = match prefix {
            None => self.relay(Decoder::new(from), Encoder::new(to)).await,
            Some(prefix) => self.behind(&prefix, from).await,
        };
        relayed.err().unwrap_or(End::Whole)
    }

    /// What is kept, and then the rest of it as it comes.
    async fn behind(&mut self, prefix: &Prefix, from: Framing) -> Result<(), End> {
        let mut at = 0;
        while at < prefix.length {
            let piece = prefix.object.body.read_piece(at, prefix.length - at);
            let piece = piece.await.ok_or(End::Store)?;
            at += piece.len() as u64;
            self.recording.write(&piece).await;
            *self.octets += piece.len() as u64;
            self.sent = true;
            let mut parts = [self.out.as_slice(), &piece].map(IoSlice::new);
            let written = self.client.write_paced(&mut parts, &mut self.to).await;
            self.out.clear();
            written.map_err(client_end)?;
        }
        let rest = Framing::Length(prefix.complete - prefix.length);
        self.relay(Decoder::new(from), Encoder::new(rest)).await
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

pub fn client_end(broken: Broken) -> End {
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
