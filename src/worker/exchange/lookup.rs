//! Step 3: what the store has for a request, and whether it may be served without asking.

use std::rc::Rc;

use super::{Fetch, Hit};
use crate::cache::decide::{Decision, With, decide};
use crate::cache::part::{self, Selected};
use crate::cache::stale::{self, Excuse, Failure};
use crate::cache::{self, CacheStatus, Forwarded, Key, MissReason, PolicyId, Side, Verdict};
use crate::http::conditional;
use crate::http::head::{Method, RequestHead};
use crate::http::page::{Answer, AnswerReason};
use crate::http::target::TargetUri;
use crate::shared::Version;
use crate::store::{Find, Object, Store};
use crate::sys::clock;
use crate::worker::context::Context;
use crate::worker::herd::Role;
use crate::worker::kept::Kept;
use crate::worker::session::Session;

pub enum Looked {
    Hit(Hit),
    /// The origin server is asked behind it, for the store.
    HitAndAsk(Hit, Plan),
    /// The origin server is asked.
    Ask(Plan),
    /// The disk is asked for this key.
    AskDisk(Key),
    Answer(Answer),
}

/// Why the origin server is asked, and what its answer may do to the store.
#[derive(Clone)]
pub struct Plan {
    /// Where the answer may be kept; none: the store has no part in this request.
    pub key: Option<Key>,
    /// Of the key, read before the request is sent (a POST, too): what was changed since is not overwritten.
    pub version: Version,
    /// The same for those who ask for it together: without a lease they are those of one era.
    pub herd: Version,
    /// What is revalidated.
    pub stale: Option<Rc<Object>>,
    /// A part that is kept: what comes is joined to it.
    pub part: Option<Rc<Object>>,
    /// Only the octets from here on are asked for; those before are in `part`.
    pub rest: Option<u64>,
    /// What is stored under the key for other requests: any of it may be what the origin server selects for this one.
    pub offers: Vec<Rc<Object>>,
    /// What is stored, if that is better than a failure of the origin server (`instead`).
    pub fallback: Option<Rc<Object>>,
    /// How often an answer had come into the store when this was planned.
    pub seen: u64,
    /// What the operator has decided about such requests.
    pub policy: PolicyId,
    /// As far as it is known.
    pub status: CacheStatus,
    /// What it is to others that want the same.
    pub role: Role,
    /// How often it has read along with what broke off before its first octet.
    pub failures: u8,
}

impl Plan {
    fn without_store(status: CacheStatus, policy: PolicyId) -> Plan {
        Plan {
            key: None,
            version: Version::default(),
            herd: Version::default(),
            stale: None,
            part: None,
            rest: None,
            fallback: None,
            offers: Vec::new(),
            seen: 0,
            policy,
            status,
            role: Role::Alone,
            failures: 0,
        }
    }

    /// With the part that `object` has in the question.
    fn with(self, with: With, object: &Rc<Object>) -> Plan {
        let object = Some(object.clone());
        match with {
            With::NothingOfIt => self,
            With::Nothing => Plan {
                fallback: object,
                ..self
            },
            With::Conditions => Plan {
                stale: object.clone(),
                fallback: object,
                ..self
            },
            With::Part { rest } => Plan {
                part: object,
                rest,
                ..self
            },
        }
    }

    /// Asked again as if nothing were kept.
    pub fn anew(&self) -> Plan {
        Plan {
            stale: None,
            part: None,
            rest: None,
            offers: Vec::new(),
            ..self.clone()
        }
    }

    /// For the log and the counters.
    pub fn outcome(&self) -> &'static str {
        if self.key.is_some() { "miss" } else { "pass" }
    }
}

pub fn lookup(session: &Session, uri: &TargetUri, side: Side) -> Looked {
    let head = session.head();
    let Some(store) = &session.context.store else {
        let status = CacheStatus {
            forwarded: Some(Forwarded::Bypass),
            detail: Some("off"),
            ..CacheStatus::default()
        };
        return Looked::Ask(Plan::without_store(status, session.policy));
    };
    let policy = session.policy;
    if let Some(reason) = cache::reuse::bypass(head, session.context.policies.get(policy)) {
        let mut plan = Plan::without_store(CacheStatus::miss(reason), policy);
        if head.method == Method::Post {
            plan.version = store.version(Key::of(uri, side).as_bytes());
        }
        return Looked::Ask(plan);
    }
    let mut key = session.context.key_buffer.take();
    key.clear();
    cache::key::write(uri, side, &mut key);
    let object = store.at_hand(&key, &head.headers);
    let is_at_hand = object.is_some();
    let hit = object.and_then(|object| hit_at_hand(&session.context, head, object, policy));
    if let Some(hit) = hit {
        session.context.key_buffer.set(key);
        return Looked::Hit(hit);
    }
    let before = Before::of(&session.context, store, &key);
    let found = match is_at_hand {
        true => store.find(&key, &head.headers),
        false => store.find_beyond(&key, &head.headers),
    };
    let looked = match found {
        Find::AskDisk => Looked::AskDisk(Key::from(&key[..])),
        found => judge(&session.context, head, (&key, policy), before, found),
    };
    session.context.key_buffer.set(key);
    looked
}

/// The same where only the disk knows.
pub async fn look(context: &Context, head: &RequestHead, key: Key, policy: PolicyId) -> Looked {
    let Some(store) = &context.store else {
        let status = CacheStatus::miss(MissReason::NotFound);
        return Looked::Ask(Plan::without_store(status, policy));
    };
    let key = key.as_bytes();
    let before = Before::of(context, store, key);
    let found = store.look(key, &head.headers).await;
    judge(context, head, (key, policy), before, found)
}

/// The short way of most hits: what needs no question needs no look at versions.
fn hit_at_hand(
    context: &Context,
    head: &RequestHead,
    object: Rc<Object>,
    policy: PolicyId,
) -> Option<Hit> {
    let (rules, now) = (context.policies.get(policy), clock::unix_seconds());
    match decide(head, &object.stored, rules, now) {
        Decision::Serve(selected, reused) => {
            Some(Hit::stored(object, selected, now, reused.as_str()))
        }
        _ => None,
    }
}

/// What is read before the store is, so that what changes meanwhile shows: see `store`, and `herd`.
#[derive(Default)]
struct Before {
    version: Version,
    herd: Version,
    seen: u64,
}

impl Before {
    fn of(context: &Context, store: &Kept, key: &[u8]) -> Before {
        let era = match store.of_nodes() {
            Some(_) => context.region.distant().era(),
            None => 0,
        };
        let seen = context.herd.stored(key);
        let version = store.version(key);
        Before {
            version,
            herd: version.of_era(era),
            seen,
        }
    }
}

/// What was found could not be read: it is asked for as if it had not been there.
pub fn lost(context: &Context, uri: &TargetUri, side: Side, policy: PolicyId) -> Plan {
    anew(context, uri, side, policy, "damaged")
}

/// The same of what another client's request was bringing.
pub fn unbegun(context: &Context, uri: &TargetUri, side: Side, policy: PolicyId) -> Plan {
    anew(context, uri, side, policy, "collapsed")
}

fn anew(
    context: &Context,
    uri: &TargetUri,
    side: Side,
    policy: PolicyId,
    detail: &'static str,
) -> Plan {
    let key = Key::of(uri, side);
    let status = CacheStatus {
        detail: Some(detail),
        ..CacheStatus::miss(MissReason::NotFound)
    };
    let before = context
        .store
        .as_ref()
        .map(|store| Before::of(context, store, key.as_bytes()));
    let has_store = before.is_some();
    let Before {
        version,
        herd,
        seen,
    } = before.unwrap_or_default();
    Plan {
        key: has_store.then_some(key),
        version,
        herd,
        seen,
        stale: None,
        part: None,
        rest: None,
        fallback: None,
        offers: Vec::new(),
        policy,
        status,
        role: Role::Alone,
        failures: 0,
    }
}

/// What follows from what is stored.
fn judge(
    context: &Context,
    head: &RequestHead,
    (key, policy): (&[u8], PolicyId),
    before: Before,
    found: Find,
) -> Looked {
    let now = clock::unix_seconds();
    let plan = |status| Plan {
        key: Some(Key::from(key)),
        version: before.version,
        herd: before.herd,
        stale: None,
        part: None,
        rest: None,
        fallback: None,
        offers: Vec::new(),
        seen: before.seen,
        policy,
        status,
        role: Role::Alone,
        failures: 0,
    };
    let object = match found {
        Find::Object(object) => object,
        Find::OtherVariant => return missing(head, MissReason::Vary, plan),
        Find::Absent | Find::AskDisk => return missing(head, MissReason::NotFound, plan),
    };
    let rules = context.policies.get(policy);
    match decide(head, &object.stored, rules, now) {
        Decision::Serve(selected, reused) => {
            Looked::Hit(Hit::stored(object, selected, now, reused.as_str()))
        }
        Decision::ServeAndAsk(selected, ask) => {
            let plan = plan(ask.reason.status()).with(ask.with, &object);
            Looked::HitAndAsk(hit_behind(object, selected, now), plan)
        }
        Decision::Ask(ask) => Looked::Ask(plan(ask.reason.status()).with(ask.with, &object)),
        Decision::OnlyIfCached => Looked::Answer(Answer::new(AnswerReason::OnlyIfCached, "")),
    }
}

/// RFC 9111 section 4.3.1: If-None-Match has the entity tags "of all stored responses for the same URI"; the origin
/// server may select one that was stored for another request.
pub async fn offer(context: &Context, request: &RequestHead, plan: &mut Plan) {
    let is_plain = request.method == Method::Get
        && !conditional::is_conditional(&request.headers)
        && !request.headers.contains("range");
    if let (Some(store), Some(key)) = (&context.store, &plan.key)
        && is_plain
    {
        let mut seen: Vec<Vec<u8>> = Vec::new();
        plan.offers = store.variants(key.as_bytes()).await;
        plan.offers.retain(|object| match object.stored.etag() {
            Some(tag) if object.stored.part.is_none() && !seen.iter().any(|own| own == tag) => {
                seen.push(tag.to_vec());
                true
            }
            _ => false,
        });
    }
}

fn hit_behind(object: Rc<Object>, selected: Selected, now: i64) -> Hit {
    let reason = Excuse::WhileRevalidate.as_str();
    let mut hit = Hit::stored(object, selected, now, reason);
    hit.status.detail = Some(reason);
    hit
}

/// What is stored, where the origin server has failed and that is better than what the client would get. None: it may not
/// be served.
pub fn instead(context: &Context, fetch: &Fetch, failure: Failure) -> Option<Hit> {
    let object = fetch.plan.fallback.as_ref()?;
    let head = &fetch.request.head;
    let now = clock::unix_seconds();
    let policy = context.policies.get(fetch.plan.policy);
    let excuse = stale::instead_of(failure, &head.headers, &object.stored, policy, now)?;
    let selected = part::selected(head, &object.stored);
    let mut hit = Hit::stored(object.clone(), selected, now, excuse.as_str());
    hit.status = CacheStatus {
        ttl: Some(object.stored.remaining(now)),
        detail: Some(excuse.as_str()),
        forwarded_status: match failure {
            Failure::Status(status) => Some(status),
            Failure::Unreachable => None,
        },
        ..fetch.plan.status
    };
    hit.outcome = "stale";
    Some(hit)
}

impl Hit {
    fn stored(object: Rc<Object>, selected: Selected, now: i64, reason: &'static str) -> Hit {
        Hit {
            status: CacheStatus::hit(object.stored.remaining(now))
                .because(object.stored.lifetime.source),
            age: object.stored.age(now),
            object,
            selected,
            for_client: Vec::new(),
            outcome: "hit",
            reason,
            origin: None,
            failures: 0,
        }
    }
}

fn missing(
    head: &RequestHead,
    reason: MissReason,
    plan: impl FnOnce(CacheStatus) -> Plan,
) -> Looked {
    match cache::reuse::missing(head, reason) {
        Verdict::OnlyIfCached => Looked::Answer(Answer::new(AnswerReason::OnlyIfCached, "")),
        _ => Looked::Ask(plan(CacheStatus::miss(reason))),
    }
}
