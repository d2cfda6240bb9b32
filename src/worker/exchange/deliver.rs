//! Step 6: octets to the client as they come from the origin server; `serve` is for those from the store.
//!
//! Messages are always serialised anew. A body that ends early is never completed: it is cut, visibly.

use std::net::SocketAddr;

use super::fetch::{self, Reply, write_field};
use super::recording::{Recording, write_told};
use super::relay::{Coming, Onward, Relay};
use super::request_body::{Ends, RequestBody, Trouble};
use super::resume::Again;
use super::{Fetch, Request, answer, share};
use crate::http::body::Decoder;
use crate::http::connection::EndToEnd;
use crate::http::date;
use crate::http::framing::Framing;
use crate::http::head::{Method, ResponseHead, Version, write_status_line};
use crate::log::OriginUse;
use crate::routing::loops;
use crate::store::disk::format;
use crate::upstream;
use crate::wire::{Broken, buffers};
use crate::worker::context::Context;
use crate::worker::herd::{Lead, Outcome};
use crate::worker::session::Session;

/// Bodies up to this size are copied behind their heads, so that answers that are ready together leave in one write.
pub const COPIED: usize = format::SENT;

/// What came of delivering a response.
pub struct Delivered {
    pub status: u16,
    /// Octets of content.
    pub octets: u64,
    pub reason: &'static str,
    pub end: End,
    /// Whether the client's connection may go on.
    pub persists: bool,
    /// Whether others waited for it.
    pub led: bool,
}

/// Where a response came from, once it has been delivered.
pub enum Source {
    Here(Box<Reply>),
    /// It still comes, for others.
    Elsewhere {
        content_type: Option<Vec<u8>>,
        origin: (SocketAddr, OriginUse),
    },
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
    /// It is read from elsewhere from here on.
    Shared,
    /// What another client's request brought broke off.
    Broken,
    /// The same, before an octet had left.
    Unbegun,
    /// The stored body could not be read, or is not what was stored.
    Store,
    /// That, before an octet had left.
    Lost,
}

impl End {
    pub fn as_str(&self) -> &'static str {
        match self {
            End::Whole | End::Shared => "",
            End::Answered => "answered",
            End::ClientGone => "client-gone",
            End::ClientStalled => "client-stalled",
            End::Origin(upstream::Error::BodyStalled) => "origin-stalled",
            End::Origin(_) | End::Broken | End::Unbegun => "origin-broke",
            End::Request => "request-broke",
            End::Store | End::Lost => "store-broke",
        }
    }
}

/// Delivers a response as it arrives, and the rest of its request meanwhile. Once others wait for it, it comes for all
/// of them, and this client is one who reads it (`lead`).
pub async fn reply(
    session: &mut Session,
    fetch: &Fetch,
    mut reply: Box<Reply>,
    mut recording: Recording,
    body: &mut RequestBody,
    lead: Option<Lead>,
) -> (Delivered, Source) {
    let request = &fetch.request;
    let coming = Coming {
        prefix: reply.prefix.take(),
        decoder: Decoder::new(reply.framing),
    };
    let framing = match &coming.prefix {
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
        led: false,
    };
    write_reply_head(session, request, &mut reply, framing, &recording, persists);
    if framing == Framing::UntilClose {
        // The death of this process must not look like the end of the response.
        session.stream.reset_on_death(true);
    }
    // Where the rest of the request is still moving, nobody else reads along.
    let lead = unless_alone(lead, !body.is_read() || !body.is_sent());
    let from = (&mut *reply, coming, &mut recording);
    let (end, mut onward, coming) = relayed(session, from, framing, body, lead.as_ref()).await;
    delivered.end = end;
    delivered.led = lead.as_ref().is_some_and(Lead::is_wanted);
    let lead = match lead {
        Some(lead) if comes_for_others(&session.context, &delivered.end, &lead, &recording) => {
            let context = session.context.clone();
            let again = Again::of(session, fetch);
            let (source, reader) =
                share::share(&context, lead, reply, coming, recording, again).await;
            if matches!(delivered.end, End::Shared) {
                let (stream, body) = (&session.stream, &reader.growing);
                delivered.end = onward.follow(stream, &mut session.outbox, body).await;
            }
            delivered.octets = onward.octets;
            if matches!(delivered.end, End::Whole) && framing == Framing::UntilClose {
                session.stream.reset_on_death(false);
            }
            if matches!(delivered.end, End::Unbegun) {
                answered_instead(session, fetch, &upstream::Error::Closed, &mut delivered);
            }
            return (delivered, source);
        }
        lead => lead,
    };
    delivered.octets = onward.octets;
    if !matches!(delivered.end, End::Whole) {
        recording.cut(&session.context).await;
    }
    if let Some(lead) = lead {
        lead.settle(share::outcome(&recording, &delivered.end));
    }
    if matches!(delivered.end, End::Whole) && framing == Framing::UntilClose {
        session.stream.reset_on_death(false);
    }
    match std::mem::replace(&mut delivered.end, End::Whole) {
        End::Origin(error) if !onward.sent => {
            answered_instead(session, fetch, &error, &mut delivered);
        }
        end => delivered.end = end,
    }
    (delivered, Source::Here(reply))
}

/// In place of a response of which nothing has left.
fn answered_instead(
    session: &mut Session,
    fetch: &Fetch,
    error: &upstream::Error,
    delivered: &mut Delivered,
) {
    session.stream.reset_on_death(false);
    session.outbox.clear();
    let persists = delivered.persists;
    (delivered.status, delivered.octets) = answer::instead(session, fetch, error, persists);
    delivered.end = End::Answered;
}

/// Whether it goes on without this client, which reads it like any other or has left: for those who wait, or for the
/// store, where there is little missing.
fn comes_for_others(context: &Context, end: &End, lead: &Lead, recording: &Recording) -> bool {
    match end {
        End::Shared => true,
        End::ClientGone | End::ClientStalled => {
            recording.is_shareable() && (lead.is_wanted() || recording.is_worth_finishing(context))
        }
        _ => false,
    }
}

/// Who waits hears at once where only this client can read it.
fn unless_alone(lead: Option<Lead>, is_alone: bool) -> Option<Lead> {
    match (lead, is_alone) {
        (Some(lead), true) => {
            lead.settle(Outcome::NotKept);
            None
        }
        (lead, _) => lead,
    }
}

/// Relays the body, and moves the rest of the request meanwhile. How it ended, and how far both sides have come.
async fn relayed(
    session: &mut Session,
    (reply, coming, recording): (&mut Reply, Coming, &mut Recording),
    framing: Framing,
    body: &mut RequestBody,
    lead: Option<&Lead>,
) -> (End, Onward, Coming) {
    let context = session.context.clone();
    let mut out = std::mem::take(&mut session.outbox);
    let stream = &session.stream;
    let mut relay = Relay::new(&context, stream, &mut out, coming, framing, lead);
    let ends = Ends {
        client: Some(stream),
        lead: None,
        inbox: &mut session.inbox,
        origin: reply.link.stream.clone(),
        config: &context.config,
    };
    let end = {
        let run = std::pin::pin!(relay.run(&mut reply.link, recording));
        body.beside(ends, None, run).await
    };
    let end = match end {
        Ok(end) => end.unwrap_or(End::ClientGone),
        Err(Trouble::Gone) => End::ClientGone,
        Err(trouble) => {
            log::debug!("connection {}: {trouble}", session.conn.id);
            End::Request
        }
    };
    let (onward, coming) = relay.into_parts(&mut reply.link);
    session.outbox = out;
    (end, onward, coming)
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
        // Edge Architecture 2.1: it is for surrogates, and goes no further than the first.
        let is_for_us = name.eq_ignore_ascii_case("surrogate-control");
        if end_to_end.keeps(name) && !is_for_us && (!is_length || length_of_get) {
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
    write_told(session, recording.status(), false, &mut out);
    write_connection(request.head.version, persists, &mut out);
    out.extend_from_slice(b"\r\n");
    session.outbox = out;
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
