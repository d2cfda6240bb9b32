//! Step 3: what the store has for a request, and whether it may be served without asking.

use std::rc::Rc;

use super::Hit;
use crate::cache::{self, CacheStatus, Forwarded, Key, MissReason, Side, Verdict};
use crate::http::page::{Answer, AnswerReason};
use crate::http::target::TargetUri;
use crate::shared::Version;
use crate::store::{Object, Store};
use crate::sys::clock;
use crate::worker::session::Session;

pub enum Looked {
    Hit(Hit),
    /// The origin server is asked.
    Ask(Plan),
    Answer(Answer),
}

/// Why the origin server is asked, and what its answer may do to the store.
#[derive(Clone)]
pub struct Plan {
    /// Where the answer may be kept; none: the store has no part in this request.
    pub key: Option<Key>,
    /// Of the key, read before the request is sent: what was changed since is not overwritten.
    pub version: Version,
    /// What is revalidated.
    pub stale: Option<Rc<Object>>,
    /// As far as it is known.
    pub status: CacheStatus,
}

impl Plan {
    fn without_store(status: CacheStatus) -> Plan {
        Plan {
            key: None,
            version: Version::default(),
            stale: None,
            status,
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
        return Looked::Ask(Plan::without_store(status));
    };
    if let Some(reason) = cache::reuse::bypass(head) {
        return Looked::Ask(Plan::without_store(CacheStatus::miss(reason)));
    }
    let mut key = session.context.key_buffer.take();
    key.clear();
    cache::key::write(uri, side, &mut key);
    let now = clock::unix_seconds();
    // The version is read before the store is: see `store`.
    let version = store.version(&key);
    let (verdict, stale) = match store.find(&key, &head.headers) {
        Some(object) => match cache::reuse(head, &object.stored, now) {
            Verdict::Fresh { age } | Verdict::Stale { age } => {
                let status = CacheStatus::hit(object.stored.remaining(now));
                session.context.key_buffer.set(key);
                return Looked::Hit(Hit {
                    object,
                    age,
                    status,
                    for_client: Vec::new(),
                    outcome: "hit",
                    reason: "fresh",
                    origin: None,
                });
            }
            verdict => (verdict, Some(object)),
        },
        None if store.holds(&key) => (cache::reuse::missing(head, MissReason::Vary), None),
        None => (cache::reuse::missing(head, MissReason::NotFound), None),
    };
    let looked = match verdict {
        Verdict::OnlyIfCached => Looked::Answer(Answer::new(AnswerReason::OnlyIfCached, "")),
        Verdict::Revalidate(reason) => Looked::Ask(Plan {
            key: Some(Key::from(&key[..])),
            version,
            stale,
            status: CacheStatus::revalidated(reason),
        }),
        Verdict::Miss(reason) => Looked::Ask(Plan {
            key: Some(Key::from(&key[..])),
            version,
            stale: None,
            status: CacheStatus::miss(reason),
        }),
        Verdict::Fresh { .. } | Verdict::Stale { .. } => {
            unreachable!("a response to serve was served above")
        }
    };
    session.context.key_buffer.set(key);
    looked
}
