//! Step 4: the response's head from an origin server.
//!
//! A connection of the pool may have died unseen; a request that met its close is sent once more, where that is
//! safe. Interim responses are passed on from here. Nobody may be waiting: then the answer is for the store.

use std::io::IoSlice;
use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;

use super::Fetch;
use super::request_body::{self, Ends, RequestBody};
use crate::cache::{self, Times};
use crate::config::{Config, Mode};
use crate::http::connection::{self, EndToEnd};
use crate::http::framing::{self, Framing};
use crate::http::head::{Limits, Method, ResponseHead, Version};
use crate::http::syntax::write_address;
use crate::http::target::Authority;
use crate::routing::loops;
use crate::shared::Counter;
use crate::store::Object;
use crate::sys::clock;
use crate::upstream::client::Link;
use crate::upstream::{self, dial};
use crate::wire::{Inbox, Pace, Stream, buffers};
use crate::worker::context::Context;
use crate::worker::herd::Lead;
use crate::worker::session::Session;

/// The client's conditions, in whose place ours go when we revalidate.
const CONDITIONS: [&str; 4] = [
    "if-none-match",
    "if-modified-since",
    "if-match",
    "if-unmodified-since",
];
const FORWARDED: [&str; 3] = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
/// Interim responses passed on for one request.
const MOST_INTERIM: usize = 16;

/// Octets of what is kept that are read at once.
const PIECE: u64 = 256 << 10;

/// For whom an origin server is asked.
pub struct Asker<'a> {
    pub context: Rc<Context>,
    pub mode: Mode,
    pub peer: IpAddr,
    /// None: for nobody, but the store.
    pub stream: Option<&'a Stream>,
    /// Who else waits for the answer.
    pub lead: Option<&'a Lead>,
    pub inbox: &'a mut Inbox,
    pub outbox: &'a mut Vec<u8>,
}

impl Asker<'_> {
    pub fn of<'a>(session: &'a mut Session, lead: Option<&'a Lead>) -> Asker<'a> {
        Asker {
            context: session.context.clone(),
            mode: session.mode,
            peer: session.conn.peer_addr().ip(),
            stream: Some(&session.stream),
            lead,
            inbox: &mut session.inbox,
            outbox: &mut session.outbox,
        }
    }

    /// The request's two connections.
    pub fn ends<'a>(&'a mut self, link: &Link, config: &'a Config) -> Ends<'a> {
        Ends {
            client: self.stream,
            lead: self.lead,
            inbox: self.inbox,
            origin: link.stream.clone(),
            config,
        }
    }
}

pub enum Fetched {
    Reply(Box<Reply>),
    /// 101: the connection is a tunnel from here on.
    Switched(Box<Reply>),
}

/// The final response's head, and the connection that its body is on.
pub struct Reply {
    pub head: ResponseHead,
    pub framing: Framing,
    pub link: Link,
    /// Unix seconds at which the request was sent and the head was there.
    pub asked_at: i64,
    pub answered_at: i64,
    /// Whether the connection may carry another exchange.
    pub persists: bool,
    /// Octets that are kept and go before what comes.
    pub prefix: Option<Prefix>,
}

/// The beginning of a representation, of which only the rest was asked for.
pub struct Prefix {
    pub object: Rc<Object>,
    pub length: u64,
    /// Octets of it that have been taken.
    pub at: u64,
    /// Octets of both together.
    pub complete: u64,
}

impl Prefix {
    /// The next octets of it. None: that was all. Error: the store does not give them, and is told to forget it.
    pub async fn next(&mut self, context: &Context) -> Result<Option<Bytes>, Lost> {
        if self.at >= self.length {
            return Ok(None);
        }
        let length = (self.length - self.at).min(PIECE);
        match self.object.body.read_piece(self.at, length).await {
            Some(piece) => {
                self.at += piece.len() as u64;
                Ok(Some(piece))
            }
            None => {
                if let Some(store) = &context.store {
                    store.discard(&self.object).await;
                }
                Err(Lost)
            }
        }
    }
}

/// What was kept is there no more.
pub struct Lost;

impl Reply {
    /// Octets of content that will come, where that is known.
    pub fn expected(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(length) => Some(length),
            Framing::None => Some(0),
            Framing::Chunked | Framing::UntilClose => None,
        }
    }

    pub fn times(&self) -> Times {
        Times {
            request: self.asked_at,
            response: self.answered_at,
        }
    }
}

/// Why there is no reply.
pub enum Trouble {
    Upstream(upstream::Error),
    Client(request_body::Trouble),
}

impl From<upstream::Error> for Trouble {
    fn from(error: upstream::Error) -> Self {
        Trouble::Upstream(error)
    }
}

impl From<request_body::Trouble> for Trouble {
    fn from(trouble: request_body::Trouble) -> Self {
        Trouble::Client(trouble)
    }
}

pub async fn fetch(
    asker: &mut Asker<'_>,
    fetch: &Fetch,
    body: &mut RequestBody,
) -> Result<Fetched, Trouble> {
    let context = asker.context.clone();
    let (authority, exempt) = fetch.to.authority(&context, &fetch.uri);
    let authority = authority.clone().with_default_port(80);
    let name = fetch.to.pool_name(&authority);
    body.begin(head_for_origin(asker, fetch), asker.inbox)?;
    let mut link = pooled(&context, name.clone());
    loop {
        let mut used = match link.take() {
            Some(link) => link,
            None => dialled(&context, &authority, name.clone(), exempt).await?,
        };
        let asked_at = clock::unix_seconds();
        match converse(asker, fetch, body, &mut used).await {
            // RFC 9110 section 7.8: "the client can't change the protocol it is sending in the middle of a message". What is
            // still to come of the request would be taken for the new protocol's first octets.
            Ok(head) if head.status == 101 && !body.is_sent() => {
                return Err(upstream::Error::UnaskedSwitch.into());
            }
            Ok(head) => {
                body.answered();
                return reply(fetch, head, used, asked_at).map_err(Trouble::Upstream);
            }
            // RFC 9112 section 9.3.1: "a proxy or gateway ... can automatically retry" an idempotent request, once, on
            // another connection.
            Err(Trouble::Upstream(error))
                if met_its_close(&used, &error)
                    && fetch.request.head.method.is_idempotent()
                    && body.rewind() =>
            {
                context.count(Counter::OriginRetries, 1);
            }
            Err(trouble) => return Err(trouble),
        }
    }
}

/// Whether a kept connection ended before an octet of the response.
fn met_its_close(link: &Link, error: &upstream::Error) -> bool {
    link.reused
        && link.is_untouched()
        && matches!(error, upstream::Error::Closed | upstream::Error::Broken(_))
}

fn pooled(context: &Context, name: Rc<[u8]>) -> Option<Link> {
    let (stream, address) = context.pool.borrow_mut().take(&name)?;
    context.count(Counter::OriginReuses, 1);
    Some(Link::new(name, stream, address, true))
}

async fn dialled(
    context: &Context,
    authority: &Authority,
    name: Rc<[u8]>,
    exempt: bool,
) -> Result<Link, upstream::Error> {
    let destinations = (!exempt).then_some(&context.destinations);
    let limit = context.config.origin.connect_timeout;
    let (stream, address) = dial::dial(&context.resolver, authority, destinations, limit).await?;
    context.count(Counter::OriginConnects, 1);
    Ok(Link::new(name, stream, address, false))
}

/// Sends the request, and passes interim responses on, until the final head is there.
async fn converse(
    asker: &mut Asker<'_>,
    fetch: &Fetch,
    body: &mut RequestBody,
    link: &mut Link,
) -> Result<ResponseHead, Trouble> {
    let context = asker.context.clone();
    let limits = Limits {
        max_target: usize::MAX,
        ..context.limits
    };
    for _ in 0..MOST_INTERIM {
        let head = {
            let ends = asker.ends(link, &context.config);
            let limit = Some(context.config.origin.header_timeout);
            let head = std::pin::pin!(link.read_head(&limits));
            body.beside(ends, limit, head)
                .await?
                .ok_or(upstream::Error::HeaderTimeout)??
        };
        match head.status {
            101 | 200.. => return Ok(head),
            // Passed on to a client that waits for it; one that does not has no use for it.
            100 if !body.go_ahead() => {}
            _ => pass_on_interim(asker, fetch, head).await?,
        }
    }
    Err(upstream::Error::TooManyInterim.into())
}

/// RFC 9110 section 15.2: "A proxy MUST forward 1xx responses unless the proxy itself requested the generation
/// of the 1xx response", and "a server MUST NOT send a 1xx response to an HTTP/1.0 client".
async fn pass_on_interim(
    asker: &mut Asker<'_>,
    fetch: &Fetch,
    mut head: ResponseHead,
) -> Result<(), Trouble> {
    let Some(client) = asker.stream else {
        return Ok(());
    };
    if fetch.request.head.version == Version::Http10 {
        return Ok(());
    }
    connection::strip_response(&mut head.headers);
    head.headers.remove("content-length");
    head.write(asker.outbox);
    asker.context.count(Counter::Responses1xx, 1);
    let config = &asker.context.config.client;
    let mut pace = Pace::new(config.write_timeout, config.min_rate);
    let written = client
        .write_paced(&mut [IoSlice::new(asker.outbox)], &mut pace)
        .await;
    buffers::give(asker.outbox);
    match written {
        Ok(()) => Ok(()),
        Err(_) if asker.lead.is_some_and(Lead::is_followed) => Ok(()),
        Err(_) => Err(Trouble::Client(request_body::Trouble::Broken)),
    }
}

fn reply(
    fetch: &Fetch,
    head: ResponseHead,
    link: Link,
    asked_at: i64,
) -> Result<Fetched, upstream::Error> {
    let request = &fetch.request.head;
    if head.status == 101 {
        // RFC 9110 section 7.8: "A server MUST NOT switch to a protocol that was not indicated by the client".
        if !connection::is_agreed_upgrade(request, &head) {
            return Err(upstream::Error::UnaskedSwitch);
        }
        let framing = Framing::None;
        return Ok(Fetched::Switched(Box::new(Reply {
            head,
            framing,
            link,
            asked_at,
            answered_at: asked_at,
            persists: false,
            prefix: None,
        })));
    }
    let framing = framing::of_response(&request.method, &head)?;
    let persists =
        connection::persists(head.version, &head.headers) && framing != Framing::UntilClose;
    Ok(Fetched::Reply(Box::new(Reply {
        head,
        framing,
        link,
        asked_at,
        answered_at: clock::unix_seconds(),
        persists,
        prefix: None,
    })))
}

/// The request as the origin server gets it: re-serialised, without what was meant for us.
fn head_for_origin(asker: &Asker<'_>, fetch: &Fetch) -> Vec<u8> {
    let request = &fetch.request.head;
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(&fetch.uri.path_and_query);
    // RFC 9112 section 3.2: "a client MUST send a Host header field", first by custom.
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    fetch
        .to
        .host(&asker.context, &fetch.uri)
        .write(80, &mut out);
    out.extend_from_slice(b"\r\n");
    write_end_to_end(asker, fetch, &mut out);
    if let Some(stale) = &fetch.plan.stale {
        cache::stored::conditions(&stale.stored)
            .for_each(|(name, value)| write_field(name, value, &mut out));
    }
    if !fetch.plan.offers.is_empty() {
        let tags = fetch.plan.offers.iter();
        let tags: Vec<&[u8]> = tags.filter_map(|object| object.stored.etag()).collect();
        write_field("If-None-Match", &tags.join(&b", "[..]), &mut out);
    }
    if let (Some(from), Some(part)) = (fetch.plan.rest, &fetch.plan.part) {
        write_field("Range", format!("bytes={from}-").as_bytes(), &mut out);
        // RFC 9110 section 13.1.5: a weak entity tag cannot vouch for octets.
        if let Some(tag) = part.stored.strong_validator() {
            write_field("If-Range", tag, &mut out);
        }
    }
    if counts_forwards(&request.method) {
        loops::write_forwarded_once(&request.headers, &mut out);
    }
    loops::write_via(request.version, &asker.context.pseudonym, &mut out);
    if asker.mode == Mode::Reverse {
        write_forwarded(asker, fetch, &mut out);
    }
    if let Some(protocol) = connection::upgrade(request) {
        out.extend_from_slice(b"Connection: upgrade\r\n");
        write_field("Upgrade", protocol, &mut out);
    }
    write_framing(fetch.request.framing, &mut out);
    out.extend_from_slice(b"\r\n");
    out
}

fn counts_forwards(method: &Method) -> bool {
    matches!(method, Method::Trace | Method::Options)
}

/// The client's own fields, but for those that end here and those that are written anew.
fn write_end_to_end(asker: &Asker<'_>, fetch: &Fetch, out: &mut Vec<u8>) {
    let request = &fetch.request.head;
    let end_to_end = EndToEnd::of_request(&request.headers);
    for (name, value) in request.headers.iter() {
        let is_any = |names: &[&str]| names.iter().any(|other| name.eq_ignore_ascii_case(other));
        let anew = is_any(&["host", "content-length"])
            || (fetch.plan.stale.is_some() && is_any(&CONDITIONS))
            || (fetch.plan.rest.is_some() && is_any(&["range", "if-range"]))
            || (counts_forwards(&request.method) && is_any(&["max-forwards"]))
            // RFC 9110 section 10.1.1: a 100-continue expectation of HTTP/1.0 is ignored, and what we send is 1.1.
            || (request.version == Version::Http10 && is_any(&["expect"]))
            || (asker.mode == Mode::Reverse && is_any(&FORWARDED));
        if !anew && end_to_end.keeps(name) {
            write_field(name, value, out);
        }
    }
}

/// The framing fields of a message that we send.
pub fn write_framing(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            crate::http::syntax::write_decimal(length, out);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::None | Framing::UntilClose => {}
    }
}

/// What a web server behind us is told of the client; a chain that others have begun goes on.
fn write_forwarded(asker: &Asker<'_>, fetch: &Fetch, out: &mut Vec<u8>) {
    out.extend_from_slice(b"X-Forwarded-For: ");
    for hop in fetch.request.head.headers.list("x-forwarded-for") {
        out.extend_from_slice(hop);
        out.extend_from_slice(b", ");
    }
    write_address(asker.peer.to_canonical(), out);
    out.extend_from_slice(b"\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: ");
    fetch.uri.authority.write(80, out);
    out.extend_from_slice(b"\r\n");
}

pub fn write_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
