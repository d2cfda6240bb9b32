//! Step 5: what a response does to the store: kept as it passes, refreshed, or a reason to invalidate.
//!
//! Everything that others must see is done before the last octet of the response leaves.

use std::rc::Rc;

use super::fetch::{Reply, write_field};
use super::lookup::Plan;
use super::{Fetch, Hit, finish};
use crate::cache::{self, CacheStatus, Forwarded, Key, Stored};
use crate::http::framing::Framing;
use crate::shared::Counter;
use crate::store::{Object, Store, Writer};
use crate::worker::context::Context;
use crate::worker::kept::{Filling, Kept};

pub enum Recorded {
    /// 304: what is stored is served, brought up to date.
    Refreshed(Hit, Box<Reply>),
    /// The 304 spoke of something else: ask once more, without conditions.
    AskAgain(Plan),
    Reply(Box<Reply>, Recording),
}

/// A response on its way into the store, or not.
pub struct Recording {
    writer: Option<Box<Filling>>,
    status: CacheStatus,
}

pub async fn record(context: &Context, fetch: &Fetch, reply: Box<Reply>) -> Recorded {
    let plan = &fetch.plan;
    let Some(store) = &context.store else {
        return Recorded::passed(reply, plan.status);
    };
    let method = &fetch.request.head.method;
    for key in cache::invalidate::invalidates(method, &fetch.uri, fetch.to.side(), &reply.head) {
        store.invalidate(key.as_bytes()).await;
        context.count(Counter::CacheInvalidated, 1);
    }
    match (&plan.key, &plan.stale) {
        (None, _) => Recorded::passed(reply, plan.status),
        (Some(key), Some(stale)) if reply.head.status == 304 => {
            refreshed(context, store, fetch, key, stale, reply).await
        }
        (Some(key), _) => kept(context, store, fetch, key, reply).await,
    }
}

/// A 304 to our own conditions (RFC 9111 section 4.3.4).
async fn refreshed(
    context: &Context,
    store: &Kept,
    fetch: &Fetch,
    key: &Key,
    stale: &Rc<Object>,
    reply: Box<Reply>,
) -> Recorded {
    let plan = &fetch.plan;
    let now = reply.times().response;
    let refreshed = cache::refresh(
        &fetch.request.head,
        &stale.stored,
        &reply.head,
        reply.times(),
        &context.policy,
    );
    let Ok(refreshed) = refreshed else {
        return Recorded::AskAgain(Plan {
            stale: None,
            ..plan.clone()
        });
    };
    let object = store
        .refresh(key.as_bytes(), stale, refreshed.stored, plan.version)
        .await;
    let mut status = plan.status.and_stored(object.stored.remaining(now));
    if let Err(reason) = refreshed.keep {
        // Good for this once.
        store.invalidate(key.as_bytes()).await;
        status = plan.status.and_not_stored(reason);
    }
    status.forwarded_status = Some(304);
    // A cookie in the 304 is for the one client whose request was revalidated, kept or not.
    let mut for_client = Vec::new();
    if !object.stored.headers.contains("set-cookie") {
        for cookie in reply.head.headers.get_all("set-cookie") {
            write_field("Set-Cookie", cookie, &mut for_client);
        }
    }
    let reason = plan.status.detail.unwrap_or_default();
    let hit = Hit {
        age: object.stored.age(now),
        object,
        status,
        for_client,
        outcome: "revalidated",
        reason,
        origin: Some(finish::origin(&reply.link)),
    };
    Recorded::Refreshed(hit, reply)
}

/// A response that is kept if `cache` lets it be.
async fn kept(
    context: &Context,
    store: &Kept,
    fetch: &Fetch,
    key: &Key,
    reply: Box<Reply>,
) -> Recorded {
    let plan = &fetch.plan;
    let request = &fetch.request.head;
    let replaces = plan.stale.is_some() || plan.status.forwarded == Some(Forwarded::Request);
    if let Err(reason) = cache::storable(request, &reply.head, reply.answered_at, &context.policy) {
        // A newer representation that may not be kept still ends the use of the older one; a failure does not.
        if replaces && reply.head.status < 500 {
            store.invalidate(key.as_bytes()).await;
        }
        return Recorded::passed(reply, plan.status.and_not_stored(reason));
    }
    let mut version = plan.version;
    if replaces {
        let overtaken = store.version(key.as_bytes()) != plan.version;
        // What was asked for anew takes the place of what any worker holds.
        store.invalidate(key.as_bytes()).await;
        // Unless somebody has invalidated the key since the request was sent: then this answer may be the older one, and
        // the old version keeps it out.
        if !overtaken {
            version = store.version(key.as_bytes());
        }
    }
    let expected = match reply.framing {
        Framing::Length(length) => Some(length),
        Framing::None => Some(0),
        Framing::Chunked | Framing::UntilClose => None,
    };
    let stored = Stored::new(request, &reply.head, reply.times(), &context.policy);
    let status = plan.status.and_stored(stored.remaining(reply.answered_at));
    match store.begin(key.clone(), stored, expected, version) {
        Ok(writer) => Recorded::Reply(
            reply,
            Recording {
                writer: Some(Box::new(writer)),
                status,
            },
        ),
        Err(reason) => Recorded::passed(
            reply,
            CacheStatus {
                detail: Some(reason.as_str()),
                ..plan.status
            },
        ),
    }
}

impl Recorded {
    /// Delivered and not kept.
    fn passed(reply: Box<Reply>, status: CacheStatus) -> Recorded {
        Recorded::Reply(
            reply,
            Recording {
                writer: None,
                status,
            },
        )
    }
}

impl Recording {
    /// Takes content as it passes. A body over the limit ends the recording, never the delivery.
    pub async fn write(&mut self, content: &[u8]) {
        if let Some(writer) = &mut self.writer
            && !(writer.write(content) && writer.room().await)
        {
            self.writer = None;
        }
    }

    /// The content is whole: from here on it is found.
    pub async fn finish(&mut self, context: &Context) {
        if let Some(writer) = self.writer.take()
            && writer.finish().await.is_some()
        {
            context.count(Counter::CacheStored, 1);
        }
    }

    /// The Cache-Status field (RFC 9211).
    pub fn write_status(&self, out: &mut Vec<u8>) {
        write_status(&self.status, out);
    }

    /// The reason in one word, for the log.
    pub fn reason(&self) -> &'static str {
        reason(&self.status)
    }
}

pub fn write_status(status: &CacheStatus, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Cache-Status: ");
    status.write(out);
    out.extend_from_slice(b"\r\n");
}

fn reason(status: &CacheStatus) -> &'static str {
    status
        .detail
        .or(status.forwarded.map(cache::Forwarded::as_str))
        .unwrap_or_default()
}
