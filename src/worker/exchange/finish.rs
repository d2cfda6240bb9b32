//! Step 7: counters, the access log, and what becomes of the two connections.

use std::net::SocketAddr;

use tokio::time::Instant;

use super::deliver::{Delivered, End, Source};
use super::fetch::Reply;
use super::request_body::RequestBody;
use super::{Fetch, Next};
use crate::http::connection;
use crate::http::head::{RequestHead, Version};
use crate::log::{OriginUse, Record};
use crate::shared::Counter;
use crate::sys::clock;
use crate::upstream::client::Link;
use crate::worker::context::Context;
use crate::worker::herd::Role;
use crate::worker::session::Session;

/// What the log and the counters tell of an exchange.
pub struct Outcome<'a> {
    pub status: u16,
    /// Octets of content sent to the client.
    pub octets: u64,
    pub content_type: Option<&'a [u8]>,
    /// `hit`, `miss`, `revalidated`, `pass`, `tunnel`, or empty.
    pub cache: &'static str,
    pub reason: &'static str,
    pub origin: Option<(SocketAddr, OriginUse)>,
    pub end: &'static str,
    /// What it was to others that wanted the same.
    pub herd: Role,
}

/// After a response that an origin server sent.
pub fn finish(
    session: &mut Session,
    fetch: &Fetch,
    source: Source,
    delivered: &Delivered,
    body: &RequestBody,
) -> Next {
    let (content_type, origin) = match &source {
        Source::Here(reply) => (reply.head.headers.get("content-type"), origin(&reply.link)),
        Source::Elsewhere {
            content_type,
            origin,
        } => (content_type.as_deref(), *origin),
    };
    let outcome = Outcome {
        status: delivered.status,
        octets: delivered.octets,
        content_type,
        cache: fetch.plan.outcome(),
        reason: delivered.reason,
        origin: Some(origin),
        end: delivered.end.as_str(),
        herd: match fetch.plan.role {
            Role::Alone if delivered.led => Role::Led,
            role => role,
        },
    };
    log(
        session,
        Some(&fetch.request.head),
        fetch.request.began,
        &outcome,
    );
    // One of which nothing had left was counted with the answer in its place.
    if matches!(delivered.end, End::Origin(_)) {
        session.context.count(Counter::OriginErrors, 1);
    }
    match delivered.end {
        End::Whole => {
            if let Source::Here(reply) = source {
                keep_origin(&session.context, reply, body.is_sent());
            }
            if delivered.persists {
                Next::KeepAlive
            } else {
                Next::Close
            }
        }
        End::Answered => {
            if delivered.persists {
                Next::KeepAlive
            } else {
                Next::Close
            }
        }
        _ => Next::Abort,
    }
}

/// An origin's connection goes to the pool if the exchange on it is over, both ways, and nothing is left on it.
pub fn keep_origin(context: &Context, reply: Box<Reply>, is_sent: bool) {
    if !reply.persists || !is_sent || context.is_draining() {
        return;
    }
    let allowed = connection::keep_alive_timeout(&reply.head.headers);
    // Surplus octets would be taken for the next response: such a connection is dropped.
    if let Some((name, stream, address)) = reply.link.into_idle() {
        context
            .pool
            .borrow_mut()
            .give(&name, stream, address, allowed);
    }
}

/// Who was asked, and on what kind of connection.
pub fn origin(link: &Link) -> (SocketAddr, OriginUse) {
    let how = if link.reused {
        OriginUse::Reused
    } else {
        OriginUse::New
    };
    (link.address, how)
}

/// One line in the access log, and the counters. `head` is none where no head could be read.
pub fn log(session: &Session, head: Option<&RequestHead>, began: Instant, outcome: &Outcome<'_>) {
    let context = &session.context;
    let now = Instant::now();
    context.count(Counter::Requests, 1);
    context.count(Counter::of_status(outcome.status), 1);
    context.count(Counter::ClientBytesOut, outcome.octets);
    match outcome.cache {
        "hit" => context.count(Counter::CacheHit, 1),
        "joined" => context.count(Counter::CacheJoined, 1),
        "stale" => context.count(Counter::CacheStale, 1),
        "revalidated" => context.count(Counter::CacheRevalidated, 1),
        "miss" => context.count(Counter::CacheMiss, 1),
        "pass" => context.count(Counter::CachePass, 1),
        _ => {}
    }
    let field = |name: &str| head.and_then(|head| head.headers.get(name));
    let has_waited = context.access_log.borrow_mut().add(&Record {
        unix_ms: clock::unix_ms(),
        client: session.conn.peer_addr(),
        method: head.map_or("-", |head| head.method.as_str()),
        target: head.map_or(b"-", |head| &head.target),
        version: match head.map(|head| head.version) {
            Some(Version::Http10) => "HTTP/1.0",
            Some(Version::Http11) => "HTTP/1.1",
            None => "-",
        },
        status: outcome.status,
        octets: outcome.octets,
        referer: field("referer"),
        user_agent: field("user-agent"),
        content_type: outcome.content_type,
        worker: context.worker,
        connection: session.conn.id,
        request: session.conn.requests,
        queued: session.queued(),
        took: now.duration_since(began),
        cache: outcome.cache,
        reason: outcome.reason,
        origin: outcome.origin.map(|(address, _)| address),
        origin_use: outcome.origin.map_or(OriginUse::None, |(_, how)| how),
        end: outcome.end,
        herd: outcome.herd.as_str(),
    });
    session.ended.set((!has_waited).then_some(now));
}
