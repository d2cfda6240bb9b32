//! Step 6 for a hit: a stored response as this client asked for it, whole, in part, or 304.
//!
//! Small ones are written at once, without a task or a wait. What turns out to be lost before an octet has left is
//! told to the caller, who asks the origin server.

use std::io;

use tokio::time::Instant;

use super::admit::Admitted;
use super::deliver::{COPIED, End, take_outbox, write_connection};
use super::fetch::write_field;
use super::finish::{self, Outcome};
use super::recording;
use super::stored_body::{self, Sender, Slice};
use super::{Hit, Next, Request};
use crate::cache::part::Selected;
use crate::http::conditional::{self, Outcome as Condition};
use crate::http::head::{Method, RequestHead, Version, write_status_line};
use crate::http::range::{self, ContentRange, Span};
use crate::http::syntax::write_decimal;
use crate::routing::loops;
use crate::store::{Body, Object};
use crate::sys::files::Access;
use crate::wire::buffers;
use crate::worker::herd::Role;
use crate::worker::session::Session;

/// What follows the head.
enum Content {
    None,
    Slice(Slice),
    /// All of a body of unknown length, as it comes.
    Arriving,
    /// `multipart/byteranges`, whose boundary this is.
    Parts(String),
}

/// What came of serving a hit.
pub enum Served {
    Next(Next),
    /// Nothing: the stored body cannot be read, and no octet has left.
    Lost,
    /// Nothing: what another client's request was bringing broke off, and no octet has left.
    Unbegun,
}

/// What came of serving a hit without waiting.
pub enum Now {
    /// It has left, or is in the outbox.
    Done(Next),
    /// The head with that status, and of the body all but this, which has to wait for the client.
    Rest(u16, Slice),
    /// Nothing: something has to be waited for.
    Later,
}

/// Serves a hit as far as that needs no waiting, and no task: a small one is put into the outbox, of a larger one goes
/// what the kernel takes.
pub fn hit_now(session: &mut Session, admitted: &Admitted, hit: &Hit, began: Instant) -> Now {
    let body = &hit.object.body;
    let is_small = body.len() <= COPIED as u64;
    if hit.selected != Selected::Whole || !(is_small || stored_body::leaves_now(body)) {
        return Now::Later;
    }
    // A GET or HEAD with a body is no hit, so the next octet on this connection is the next request's.
    let persists = admitted.persists;
    let mut out = take_outbox(session);
    let before = out.len();
    let head = session.head();
    let (status, content) = write_head(session, head, hit, persists, &mut out);
    // All of the body, and what of it has left already.
    let (mut octets, mut sent) = (0, 0);
    match content {
        Content::None => {}
        Content::Slice(slice) if !is_small => {
            let rest = stored_body::send_now(&session.stream, &mut out, body, slice);
            if !out.is_empty() || rest.length > 0 {
                session.outbox = out;
                return Now::Rest(status, rest);
            }
            octets = slice.length;
            sent = octets;
            buffers::give(&mut out);
        }
        _ => {
            octets = body.len();
            if let Err(error) = body.read(&mut out, Access::Cached) {
                if error.kind() != io::ErrorKind::WouldBlock {
                    body.give_up();
                }
                out.truncate(before);
                session.outbox = out;
                return Now::Later;
            }
        }
    }
    log_hit(session, head, hit, status, octets, &End::Whole, began);
    session.outbox = out;
    session.turn += sent;
    Now::Done(next(&End::Whole, persists))
}

/// Delivers the rest of a hit of which `hit_now` has sent something.
pub async fn rest(
    session: &Session,
    request: &Request,
    hit: &Hit,
    status: u16,
    rest: Slice,
) -> Next {
    let persists = request.persists && session.may_go_on();
    let mut sender = Sender::new(session);
    let sent = sender.send(&[], &hit.object.body, rest).await;
    let octets = rest.at + sender.sent;
    let end = match sent {
        Ok(()) => End::Whole,
        // Its head has left.
        Err(End::Lost) => End::Store,
        Err(end) => end,
    };
    if matches!(end, End::Store)
        && let Some(store) = &session.context.store
    {
        store.discard(&hit.object).await;
    }
    let (head, began) = (&request.head, request.began);
    log_hit(session, head, hit, status, octets, &end, began);
    next(&end, persists)
}

/// What becomes of the connection.
fn next(end: &End, persists: bool) -> Next {
    match end {
        End::Whole if persists => Next::KeepAlive,
        End::Whole => Next::Close,
        _ => Next::Abort,
    }
}

/// Delivers a hit of any size.
pub async fn hit(session: &mut Session, request: &Request, hit: &Hit) -> Served {
    let persists = request.persists && session.may_go_on();
    let mut out = take_outbox(session);
    let (status, content) = write_head(session, &request.head, hit, persists, &mut out);
    let was_trusted = is_trusted(hit);
    let (octets, end) = deliver(session, hit, &content, &mut out).await;
    session.outbox = out;
    if !was_trusted && is_trusted(hit) {
        remember_trust(session, hit);
    }
    if matches!(end, End::Lost | End::Store)
        && let Some(store) = &session.context.store
    {
        store.discard(&hit.object).await;
    }
    match end {
        End::Lost => return Served::Lost,
        End::Unbegun => return Served::Unbegun,
        _ => {}
    }
    let (head, began) = (&request.head, request.began);
    log_hit(session, head, hit, status, octets, &end, began);
    Served::Next(next(&end, persists))
}

/// Whether its octets may be sent without looking at them.
fn is_trusted(hit: &Hit) -> bool {
    match &hit.object.body {
        Body::File(body) => body.is_trusted(),
        Body::Memory(_) | Body::Growing(_) | Body::Rows(_) => true,
    }
}

/// What this hit has found to be right need not be looked at again. Nobody waits for that.
fn remember_trust(session: &Session, hit: &Hit) {
    let (context, object) = (session.context.clone(), hit.object.clone());
    tokio::task::spawn_local(async move {
        if let Some(store) = &context.store {
            store.attest(&object).await;
        }
    });
}

/// Sends `out`, which is the head, and what follows it. How much of the body has left, and why no more has.
async fn deliver(session: &Session, hit: &Hit, content: &Content, out: &mut Vec<u8>) -> (u64, End) {
    let body = &hit.object.body;
    let mut sender = Sender::new(session);
    let sent = match content {
        Content::None => return (0, End::Whole),
        // Left to the session, which may have more answers to put behind it.
        Content::Slice(slice)
            if slice.length <= COPIED as u64 && matches!(body, Body::Memory(_)) =>
        {
            let piece = body.read_piece(slice.at, slice.length).await;
            out.extend_from_slice(&piece.unwrap_or_default());
            return (slice.length, End::Whole);
        }
        Content::Slice(slice) => sender.send(out, body, *slice).await,
        Content::Arriving => sender.arriving(out, body).await,
        Content::Parts(boundary) => parts(&mut sender, hit, boundary, out).await,
    };
    out.clear();
    (sender.sent, sent.err().unwrap_or(End::Whole))
}

// === the head

/// The head of a hit, conditions evaluated; returns the status and what follows.
fn write_head(
    session: &Session,
    request: &RequestHead,
    hit: &Hit,
    persists: bool,
    out: &mut Vec<u8>,
) -> (u16, Content) {
    let (status, mut content) = match condition(request, &hit.object) {
        Condition::NotModified => {
            write_not_modified(&hit.object, out);
            (304, Content::None)
        }
        Condition::Proceed => write_representation(hit, out),
    };
    // RFC 9111 section 5.1: Age is "the sender's estimate of the time since the response was generated or validated".
    out.extend_from_slice(b"Age: ");
    write_decimal(u64::from(hit.age), out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&hit.for_client);
    loops::write_via(Version::Http11, &session.context.pseudonym, out);
    recording::write_told(session, &hit.status, true, out);
    write_connection(request.version, persists, out);
    out.extend_from_slice(b"\r\n");
    if request.method == Method::Head {
        content = Content::None;
    }
    (status, content)
}

fn condition(request: &RequestHead, object: &Object) -> Condition {
    // RFC 9110 section 13.2.1: preconditions count only where the response without them would be "2xx (Successful)".
    let may_be_tried = (200..300).contains(&object.stored.status);
    match may_be_tried && conditional::is_conditional(&request.headers) {
        true => conditional::evaluate(&request.headers, &object.stored.validators()),
        false => Condition::Proceed,
    }
}

/// Status line and fields, with Content-Length.
fn write_representation(hit: &Hit, out: &mut Vec<u8>) -> (u16, Content) {
    let object = &*hit.object;
    let stored = &object.stored;
    match (&hit.selected, stored.complete()) {
        (Selected::Unsatisfiable, complete) => {
            write_status_line(416, b"Range Not Satisfiable", out);
            write_fields(object, &["content-type", "content-encoding"], out);
            let mut value = Vec::new();
            range::write_unsatisfied(complete.unwrap_or_default(), &mut value);
            write_field("Content-Range", &value, out);
            write_length(0, out);
            (416, Content::None)
        }
        (Selected::Spans(spans), complete) => match spans.as_slice() {
            [span] => {
                write_partial(object, *span, complete, out);
                (206, slice_of(object, *span))
            }
            spans => {
                write_status_line(206, b"Partial Content", out);
                // 15.3.7.2: "the server MUST NOT generate a Content-Range header field in the HTTP header section of a multiple
                // part response".
                write_fields(object, &["content-type"], out);
                let boundary = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
                let kind = format!("multipart/byteranges; boundary={boundary}");
                write_field("Content-Type", kind.as_bytes(), out);
                let of_parts: u64 = spans
                    .iter()
                    .map(|span| part_head(object, *span, &boundary).len() as u64 + span.len())
                    .sum();
                write_length(of_parts + end_of_parts(&boundary).len() as u64, out);
                (206, Content::Parts(boundary))
            }
        },
        (_, complete) => {
            out.extend_from_slice(&object.head);
            if matches!(&object.body, Body::Growing(growing) if growing.expected.is_none()) {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                return (stored.status, Content::Arriving);
            }
            let length = complete.unwrap_or(stored.body_len);
            // RFC 9110 section 8.6: "A server MUST NOT send a Content-Length header field in any response with a status
            // code of 1xx (Informational) or 204 (No Content)."
            if stored.status != 204 {
                write_length(length, out);
            }
            (stored.status, Content::Slice(Slice { at: 0, length }))
        }
    }
}

fn write_partial(object: &Object, span: Span, complete: Option<u64>, out: &mut Vec<u8>) {
    write_status_line(206, b"Partial Content", out);
    write_fields(object, &[], out);
    write_field("Content-Range", &content_range(span, complete), out);
    write_length(span.len(), out);
}

fn content_range(span: Span, complete: Option<u64>) -> Vec<u8> {
    let mut value = Vec::new();
    ContentRange { span, complete }.write(&mut value);
    value
}

fn slice_of(object: &Object, span: Span) -> Content {
    // It was selected because the octets are there.
    let at = object.stored.position(span).unwrap_or_default();
    let length = span.len();
    Content::Slice(Slice { at, length })
}

/// The stored fields, but for some.
fn write_fields(object: &Object, but: &[&str], out: &mut Vec<u8>) {
    for (name, value) in object.stored.headers.iter() {
        if !but.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            write_field(name, value, out);
        }
    }
}

fn write_length(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Content-Length: ");
    write_decimal(length, out);
    out.extend_from_slice(b"\r\n");
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

// === several parts (RFC 9110 section 14.6)

async fn parts(sender: &mut Sender<'_>, hit: &Hit, boundary: &str, out: &[u8]) -> Result<(), End> {
    let object = &*hit.object;
    let Selected::Spans(spans) = &hit.selected else {
        return Ok(());
    };
    let mut head = out.to_vec();
    for (n, span) in spans.iter().enumerate() {
        head.extend_from_slice(&part_head(object, *span, boundary));
        let at = object.stored.position(*span).unwrap_or_default();
        let length = span.len();
        let sent = sender.send(&head, &object.body, Slice { at, length }).await;
        sent.map_err(|end| match end {
            End::Lost if n > 0 => End::Store,
            end => end,
        })?;
        head.clear();
    }
    sender.frame(end_of_parts(boundary).as_bytes()).await
}

fn part_head(object: &Object, span: Span, boundary: &str) -> Vec<u8> {
    let mut out = format!("\r\n--{boundary}\r\n").into_bytes();
    if let Some(kind) = object.stored.headers.get("content-type") {
        write_field("Content-Type", kind, &mut out);
    }
    let complete = object.stored.complete();
    write_field("Content-Range", &content_range(span, complete), &mut out);
    out.extend_from_slice(b"\r\n");
    out
}

fn end_of_parts(boundary: &str) -> String {
    format!("\r\n--{boundary}--\r\n")
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
        herd: Role::Alone,
    };
    finish::log(session, Some(head), began, &outcome);
}
