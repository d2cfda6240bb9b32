//! Step 4 for those who are not the first: what another client's request is fetching.
//!
//! It waits for the head of that response, and makes a hit of it if this request selects it; what follows is read as it
//! arrives. Whoever it is not for asks for itself, at once.

use std::rc::Rc;

use super::lookup::{self, Looked};
use super::{Fetch, Hit};
use crate::cache::decide::{Decision, Reused, decide};
use crate::cache::part::Selected;
use crate::cache::stale::Failure;
use crate::cache::vary::Match;
use crate::cache::{CacheStatus, Forwarded};
use crate::http::conditional;
use crate::http::head::{Method, Version};
use crate::http::headers::Headers;
use crate::http::page::Answer;
use crate::store::{Body, Object};
use crate::sys::clock;
use crate::worker::context::Context;
use crate::worker::herd::{Lead, Outcome, Place};

/// How often a request waits for an answer that it cannot use, before it asks for itself.
const MOST_WAITS: usize = 2;
const TOLD: &str = "another request for the same has just been told so";
/// How far behind what has come a range may begin, so that waiting for it is no worse than asking.
const SOON: u64 = 1 << 20;

/// How a request goes on.
pub enum Joined {
    /// It asks the origin server; for others, too, if it leads them.
    Ask(Fetch, Option<Lead>),
    Serve(Fetch, Hit),
    /// There is no answer to be had, as somebody else has just been told.
    Refuse(Fetch, Answer),
    /// As the store says now.
    Look(Fetch, Looked),
}

/// Takes a place in the herd, and waits behind whoever leads it.
pub async fn join(context: &Rc<Context>, mut fetch: Fetch) -> Joined {
    let mut waits = 0;
    while waits < MOST_WAITS {
        let place = place(context, &fetch);
        // Something has been stored since it looked: perhaps what it wants. Others wait behind it meanwhile.
        let is_late = fetch.plan.key.as_ref().is_some_and(|key| {
            let stored = context.herd.stored(key.as_bytes());
            !matches!(place, Place::Behind(_)) && stored != fetch.plan.seen
        });
        if is_late && let Some(looked) = look_again(context, &mut fetch).await {
            return Joined::Look(fetch, looked);
        }
        let told = match place {
            Place::Alone => break,
            Place::Lead(lead) => return Joined::Ask(fetch, Some(lead)),
            Place::Behind(waiting) => waiting.told().await,
        };
        match told {
            Ok(object) => {
                return match hit(context, &fetch, object) {
                    Some(hit) => Joined::Serve(fetch, hit),
                    None => Joined::Ask(fetch, None),
                };
            }
            Err(Outcome::Unshared | Outcome::NotKept) => break,
            Err(Outcome::Unreachable(reason)) => {
                if let Some(hit) = lookup::instead(context, &fetch, Failure::Unreachable) {
                    return Joined::Serve(fetch, hit);
                }
                // One more of those who waited tries; what all of them try does not help an origin server that is down.
                waits += 1;
                if waits == MOST_WAITS {
                    return Joined::Refuse(fetch, Answer::new(reason, TOLD));
                }
            }
            Err(Outcome::Error(status)) => {
                if let Some(hit) = lookup::instead(context, &fetch, Failure::Status(status)) {
                    return Joined::Serve(fetch, hit);
                }
                waits += 1;
            }
            Err(Outcome::Stored) => waits += 1,
            // Whoever asked has left: one of those who waited asks, and it takes no more than that.
            Err(Outcome::Failed) => {}
        }
        if let Some(looked) = look_again(context, &mut fetch).await {
            return Joined::Look(fetch, looked);
        }
    }
    Joined::Ask(fetch, None)
}

/// None: the origin server is still to be asked, as the fetch says now.
async fn look_again(context: &Context, fetch: &mut Fetch) -> Option<Looked> {
    let key = fetch.plan.key.clone()?;
    match lookup::look(context, &fetch.request.head, key, fetch.plan.policy).await {
        Looked::Ask(plan) => {
            fetch.plan = plan;
            None
        }
        looked => Some(looked),
    }
}

fn place(context: &Context, fetch: &Fetch) -> Place {
    let (request, plan) = (&fetch.request.head, &fetch.plan);
    let Some(key) = &plan.key else {
        return Place::Alone;
    };
    // A client that asks for something newer than what is stored wants an answer to its own question.
    if request.method != Method::Get || plan.status.forwarded == Some(Forwarded::Request) {
        return Place::Alone;
    }
    // A handshake is between two.
    if request.headers.contains("upgrade") {
        return Place::Alone;
    }
    let is_range = request.headers.contains("range");
    if is_range && !context.herd.is_answered(key) {
        return Place::Alone;
    }
    let leads = !is_range && is_for_all(&request.headers, plan.stale.is_some());
    context.herd.enter(key, plan.version, leads)
}

/// Whether the answer to it is likely to be one for others.
fn is_for_all(request: &Headers, is_revalidated: bool) -> bool {
    !request.contains("authorization") && (is_revalidated || !conditional::is_conditional(request))
}

/// What is arriving, if this request may have it.
fn hit(context: &Context, fetch: &Fetch, object: Rc<Object>) -> Option<Hit> {
    let (request, stored) = (&fetch.request.head, &object.stored);
    let Body::Growing(growing) = &object.body else {
        return None;
    };
    if stored.matches(&request.headers) != Some(Match::Same) {
        return None;
    }
    let now = clock::unix_seconds();
    let policy = context.policies.get(fetch.plan.policy);
    let Decision::Serve(selected, Reused::Fresh) = decide(request, stored, policy, now) else {
        return None;
    };
    let is_soon = match (&selected, growing.expected) {
        // RFC 9112 section 7: chunks are for HTTP/1.1 clients.
        (Selected::Whole, None) => {
            request.version == Version::Http11 && !request.headers.contains("range")
        }
        (Selected::Whole | Selected::Unsatisfiable, Some(_)) => true,
        (Selected::Spans(spans), Some(_)) => match spans.as_slice() {
            [span] => span.from <= growing.length().saturating_add(SOON),
            _ => false,
        },
        _ => false,
    };
    let from = match &selected {
        Selected::Spans(spans) => spans.first().map_or(0, |span| span.from),
        _ => 0,
    };
    let is_there = is_soon && growing.has(from);
    is_there.then(|| Hit {
        status: CacheStatus {
            collapsed: true,
            ttl: Some(stored.remaining(now)),
            ..fetch.plan.status
        },
        age: stored.age(now),
        object: object.clone(),
        selected,
        for_client: Vec::new(),
        outcome: "joined",
        reason: "collapsed",
        origin: None,
    })
}
