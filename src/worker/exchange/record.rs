//! Step 5: what a response does to the store: kept as it passes, refreshed, or a reason to invalidate.
//!
//! Everything that others must see is done before the last octet of the response leaves. `recording` keeps the octets.

use std::rc::Rc;

use super::fetch::{Prefix, Reply, write_field};
use super::lookup::Plan;
use super::recording::{Joining, Keeping, Recording};
use super::{Fetch, Hit, finish};
use crate::cache::part::{self, Selected};
use crate::cache::vary::{self, Selection};
use crate::cache::{self, CacheStatus, Forwarded, Key, NotStored, Refreshed, Side, Stored};
use crate::http::etag::EntityTag;
use crate::http::head::{Method, ResponseHead};
use crate::shared::{Counter, Version};
use crate::store::{Object, Store, Writer};
use crate::worker::context::Context;
use crate::worker::kept::Kept;

pub enum Recorded {
    /// 304: what is stored is served, brought up to date.
    Refreshed(Hit, Box<Reply>),
    /// The 304 spoke of something else: ask once more, without conditions.
    AskAgain(Plan),
    Reply(Box<Reply>, Recording),
}

pub async fn record(context: &Context, fetch: &Fetch, reply: Box<Reply>) -> Recorded {
    let plan = &fetch.plan;
    let Some(store) = &context.store else {
        return Recorded::passed(reply, plan.status);
    };
    let method = &fetch.request.head.method;
    let answers_get =
        *method == Method::Post && cache::storable::answers_get(&fetch.uri, &reply.head);
    let target = answers_get.then(|| Key::of(&fetch.uri, fetch.to.side()));
    // Whoever has invalidated it meanwhile may have a newer answer.
    let target = target.filter(|key| store.version(key.as_bytes()) == plan.version);
    for key in cache::invalidate::invalidates(method, &fetch.uri, fetch.to.side(), &reply.head) {
        store.invalidate(key.as_bytes()).await;
        context.count(Counter::CacheInvalidated, 1);
    }
    if let Some(key) = target {
        return kept_answer(context, store, fetch, &key, reply).await;
    }
    let status = reply.head.status;
    match (&plan.key, &plan.stale, &plan.part) {
        (None, ..) => Recorded::passed(reply, plan.status),
        (Some(key), Some(stale), _) if status == 304 => {
            refreshed(context, store, fetch, key, stale, reply).await
        }
        (Some(key), ..) if *method == Method::Head => {
            headed(context, store, fetch, key, reply).await
        }
        (Some(key), ..) if status == 304 && !plan.offers.is_empty() => {
            selected(context, store, fetch, key, reply).await
        }
        (Some(key), _, Some(part)) if plan.rest.is_some() && matches!(status, 206 | 416) => {
            continued(context, store, fetch, key, part, reply).await
        }
        (Some(key), _, part) if status == 206 => {
            kept_part(context, store, fetch, key, part.as_ref(), reply).await
        }
        // It answers the Range field of this request, and no other.
        (Some(_), ..) if status == 416 => {
            Recorded::passed(reply, plan.status.and_not_stored(NotStored::Partial))
        }
        (Some(key), ..) => {
            let whole = Keeping::Whole(reply.expected());
            kept(context, store, fetch, key, reply, None, whole).await
        }
    }
}

/// The rest of what is kept already (RFC 9111 section 3.4).
async fn continued(
    context: &Context,
    store: &Kept,
    fetch: &Fetch,
    key: &Key,
    part: &Rc<Object>,
    mut reply: Box<Reply>,
) -> Recorded {
    let from = fetch.plan.rest.unwrap_or_default();
    let Some((whole, complete)) = part::continued(&part.stored, from, &reply.head) else {
        return Recorded::AskAgain(fetch.plan.anew());
    };
    reply.prefix = Some(Prefix {
        object: part.clone(),
        length: from,
        at: 0,
        complete,
    });
    reply.head = whole.clone();
    let keeping = Keeping::Whole(Some(complete));
    match kept(context, store, fetch, key, reply, Some(&whole), keeping).await {
        Recorded::Reply(reply, recording) => {
            Recorded::Reply(reply, recording.completing(part.stored.body_len))
        }
        recorded => recorded,
    }
}

/// A part of a representation, and with it what is kept of the same one.
async fn kept_part(
    context: &Context,
    store: &Kept,
    fetch: &Fetch,
    key: &Key,
    part: Option<&Rc<Object>>,
    reply: Box<Reply>,
) -> Recorded {
    // The client gets what it asked for, and that is no 200: only the store sees it as one.
    let Some((whole, range)) = part::of_response(&reply.head) else {
        return Recorded::passed(reply, fetch.plan.status.and_not_stored(NotStored::Partial));
    };
    let asked = fetch.request.head.headers.get("range");
    let keeping = Joining::new(part, &whole, range, asked);
    kept(
        context,
        store,
        fetch,
        key,
        reply,
        Some(&whole),
        Keeping::Part(keeping),
    )
    .await
}

/// The origin server has selected what is stored for another request (RFC 9111 section 4.3.4); from now on it is
/// stored for this one, too.
async fn selected(
    context: &Context,
    store: &Kept,
    fetch: &Fetch,
    key: &Key,
    reply: Box<Reply>,
) -> Recorded {
    let plan = &fetch.plan;
    let head = &fetch.request.head;
    let tag = reply.head.headers.get("etag").and_then(EntityTag::parse);
    let mut offers = plan.offers.iter();
    let chosen = offers.find(|object| {
        let own = object.stored.etag().and_then(EntityTag::parse);
        matches!((tag, own), (Some(tag), Some(own)) if tag.weak_eq(own))
    });
    let chosen = match plan.offers.as_slice() {
        // It can only mean the one that was offered.
        [only] if tag.is_none() => Some(only),
        _ => chosen,
    };
    let Some(chosen) = chosen else {
        return Recorded::AskAgain(plan.anew());
    };
    let times = reply.times();
    let policy = context.policies.get(plan.policy);
    let refreshed = cache::refresh(head, &chosen.stored, &reply.head, times, policy);
    let Ok(mut refreshed) = refreshed else {
        return Recorded::AskAgain(plan.anew());
    };
    refreshed.stored.selection = Selection::of(&head.headers, &refreshed.stored.headers);
    let object = Rc::new(chosen.refreshed(refreshed.stored.clone()));
    let mut status = plan.status;
    if refreshed.keep.is_ok()
        && let Ok(writer) = store.begin(
            key.clone(),
            refreshed.stored,
            Some(object.body.len()),
            plan.version,
        )
    {
        let keeping = Keeping::Whole(Some(object.body.len()));
        let mut recording = Recording::begin(writer, keeping, status).await;
        recording.copy(&object.body).await;
        recording.finish(context).await;
        if recording.is_kept() {
            status = status.and_stored(object.stored.remaining(times.response));
        }
    }
    status.forwarded_status = Some(304);
    let hit = Hit {
        age: object.stored.age(times.response),
        selected: Selected::Whole,
        object,
        status,
        for_client: Vec::new(),
        outcome: "revalidated",
        reason: plan.status.detail.unwrap_or("vary"),
        origin: Some(finish::origin(&reply.link)),
        failures: 0,
    };
    Recorded::Refreshed(hit, reply)
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
        context.policies.get(plan.policy),
    );
    let Ok(refreshed) = refreshed else {
        return Recorded::AskAgain(plan.anew());
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
        selected: part::selected(&fetch.request.head, &object.stored),
        object,
        status,
        for_client,
        outcome: "revalidated",
        reason,
        origin: Some(finish::origin(&reply.link)),
        failures: 0,
    };
    Recorded::Refreshed(hit, reply)
}

/// The answer to a HEAD: nothing to keep, but news of what is stored (RFC 9111 section 4.3.5).
async fn headed(
    context: &Context,
    store: &Kept,
    fetch: &Fetch,
    key: &Key,
    reply: Box<Reply>,
) -> Recorded {
    let plan = &fetch.plan;
    let not_stored = plan.status.and_not_stored(NotStored::Method);
    let Some(old) = plan.stale.as_ref().or(plan.fallback.as_ref()) else {
        return Recorded::passed(reply, not_stored);
    };
    // "When a cache makes an inbound HEAD request for a given request target and receives a 200 (OK) response, the cache
    // SHOULD update or invalidate each of its stored GET responses that could have been chosen". What is gone is gone
    // for GET, too; any other status may be about HEAD alone.
    if !matches!(reply.head.status, 200 | 404 | 410) {
        return Recorded::passed(reply, not_stored);
    }
    let refreshed = match cache::refresh::agrees(&old.stored, &reply.head) {
        true => cache::refresh(
            &fetch.request.head,
            &old.stored,
            &reply.head,
            reply.times(),
            context.policies.get(plan.policy),
        )
        .ok(),
        false => None,
    };
    match refreshed {
        Some(Refreshed {
            stored,
            keep: Ok(()),
        }) => {
            let status = plan
                .status
                .and_stored(stored.remaining(reply.answered_at))
                .because(stored.lifetime.source);
            store
                .refresh(key.as_bytes(), old, stored, plan.version)
                .await;
            Recorded::passed(reply, status)
        }
        _ => {
            store.invalidate(key.as_bytes()).await;
            Recorded::passed(reply, not_stored)
        }
    }
}

/// A response that is kept if `cache` lets it be; `whole` is what it is kept as, where that is not its own head.
async fn kept(
    context: &Context,
    store: &Kept,
    fetch: &Fetch,
    key: &Key,
    reply: Box<Reply>,
    whole: Option<&ResponseHead>,
    keeping: Keeping,
) -> Recorded {
    let plan = &fetch.plan;
    let request = &fetch.request.head;
    let policy = context.policies.get(plan.policy);
    let head = whole.unwrap_or(&reply.head);
    let storable = cache::storable(request, head, reply.answered_at, policy);
    if let Err(reason) = storable.and(for_others(fetch, head)) {
        // A newer representation that may not be kept still ends the use of the older one; a failure does not.
        if replaces(plan) && reply.head.status < 500 {
            store.invalidate(key.as_bytes()).await;
        }
        return Recorded::passed(reply, plan.status.and_not_stored(reason));
    }
    let stored = Stored::new(request, head, reply.times(), policy);
    begin(store, plan, key, reply, stored, keeping, plan.version).await
}

/// The answer to a POST, which is what a GET would get (RFC 9110 section 9.3.3). What was stored before has been
/// invalidated, and the new version is its own.
async fn kept_answer(
    context: &Context,
    store: &Kept,
    fetch: &Fetch,
    key: &Key,
    reply: Box<Reply>,
) -> Recorded {
    let (plan, request) = (&fetch.plan, &fetch.request.head);
    let policy = context.policies.get(plan.policy);
    let storable =
        cache::storable::storable_answer(request, &reply.head, reply.answered_at, policy);
    if let Err(reason) = storable.and(for_others(fetch, &reply.head)) {
        return Recorded::passed(reply, plan.status.and_not_stored(reason));
    }
    let version = store.version(key.as_bytes());
    let stored = Stored::new(request, &reply.head, reply.times(), policy);
    let keeping = Keeping::Whole(reply.expected());
    begin(store, plan, key, reply, stored, keeping, version).await
}

/// It was invalidated, or something that shares its place in the version table was, after it was asked for.
const OVERTAKEN: &str = "invalidated-meanwhile";

/// Whether the answer is newer than what is stored.
fn replaces(plan: &Plan) -> bool {
    plan.stale.is_some() || plan.status.forwarded == Some(Forwarded::Request)
}

/// Whether it may be for other clients than the one whose address the origin server was told.
fn for_others(fetch: &Fetch, response: &ResponseHead) -> Result<(), NotStored> {
    match fetch.to.side() == Side::Reverse && vary::is_by_peer(&response.headers) {
        true => Err(NotStored::VaryPeer),
        false => Ok(()),
    }
}

async fn begin(
    store: &Kept,
    plan: &Plan,
    key: &Key,
    reply: Box<Reply>,
    stored: Stored,
    keeping: Keeping,
    version: Version,
) -> Recorded {
    let replaces = replaces(plan);
    // What has been invalidated meanwhile comes for those who wait for it, and is not kept.
    let status = match store.version(key.as_bytes()) == version {
        true => plan
            .status
            .and_stored(stored.remaining(reply.answered_at))
            .because(stored.lifetime.source),
        false => CacheStatus {
            detail: Some(OVERTAKEN),
            ..plan.status
        },
    };
    let mut writer = match store.begin(key.clone(), stored, keeping.expected(), version) {
        Ok(writer) => writer,
        Err(reason) => {
            if replaces {
                store.invalidate(key.as_bytes()).await;
            }
            let detail = Some(reason.as_str());
            return Recorded::passed(
                reply,
                CacheStatus {
                    detail,
                    ..plan.status
                },
            );
        }
    };
    if !replaces {
        return Recorded::Reply(reply, Recording::begin(writer, keeping, status).await);
    }
    // What is stored stays until this one has come whole: it may be stale and still be of use.
    writer.replace();
    let recording = Recording::begin(writer, keeping, status).await;
    Recorded::Reply(reply, recording.replacing(key.clone()))
}

impl Recorded {
    /// Delivered and not kept.
    fn passed(reply: Box<Reply>, status: CacheStatus) -> Recorded {
        Recorded::Reply(reply, Recording::none(status))
    }
}
