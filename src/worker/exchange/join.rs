//! Step 4: what another client's request is fetching, in this worker or in another.
//!
//! `herd/course` says what comes next, this does it. Who waits does so for a head, and makes a hit of it if this
//! request selects it; what follows is read as it arrives. Whoever it is not for asks for itself, at once.

use std::rc::Rc;

use tokio::time::timeout;

use super::follow::{self, Followed};
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
use crate::shared::{Claim, Claimed, Counter};
use crate::store::{Body, Object};
use crate::sys::clock;
use crate::worker::context::Context;
use crate::worker::herd::course::{Course, Heard, Step};
use crate::worker::herd::{Lead, Outcome, Place, Role, Waiting};
use crate::worker::session::Session;

const TOLD: &str = "another request for the same has just been told so";
/// How far behind what has come a range may begin, so that waiting for it is no worse than asking.
const SOON: u64 = 1 << 20;

/// How a request goes on.
pub enum Joined {
    /// It asks the origin server; for others, too, if it leads them.
    Ask(Option<Lead>),
    Serve(Hit),
    /// There is no answer to be had, as somebody else has just been told.
    Refuse(Answer),
    /// As the store says now.
    Look(Looked),
}

/// A request on its course: what it does next, and what it has with it.
pub struct Joining {
    course: Course,
    step: Step,
    held: Held,
}

/// What a request has on its way.
#[derive(Default)]
struct Held {
    lead: Option<Lead>,
    waiting: Option<Waiting>,
    /// What is arriving, to be read.
    object: Option<Rc<Object>>,
}

/// Takes a place in the herd, and goes as far as nothing has to be waited for: most requests ask at once.
pub fn join(context: &Context, fetch: &mut Fetch) -> Result<Joined, Joining> {
    let plan = &fetch.plan;
    if plan
        .key
        .as_ref()
        .is_none_or(|key| context.herd.asks_alone(key, plan.seen))
    {
        return Ok(Joined::Ask(None));
    }
    let mut joining = Joining {
        course: Course::default(),
        step: Step::Enter,
        held: Held::default(),
    };
    joining.hurry(context, fetch).ok_or(joining)
}

impl Joining {
    /// Goes the way that follows, to its end.
    pub async fn go_on(mut self, session: &Session, fetch: &mut Fetch) -> Joined {
        let context = &session.context;
        loop {
            let held = &mut self.held;
            let heard = match self.step {
                Step::Wait => wait(context, held).await,
                Step::Follow(claim) => turn_to(session, fetch, claim, held).await,
                // The only other one that is waited for: a look in the store.
                _ => match look_again(context, fetch).await {
                    Some(looked) => {
                        if let Some(lead) = held.lead.take() {
                            lead.settle(Outcome::Stored);
                        }
                        return Joined::Look(looked);
                    }
                    None => looked_in_vain(fetch, held),
                },
            };
            if let Some(hit) = instead(context, fetch, heard) {
                return Joined::Serve(hit);
            }
            self.step = self.course.next(heard);
            if let Some(joined) = self.hurry(context, fetch) {
                return joined;
            }
        }
    }

    /// All steps that wait for nothing. None: the next one does.
    fn hurry(&mut self, context: &Context, fetch: &mut Fetch) -> Option<Joined> {
        let held = &mut self.held;
        loop {
            let heard = match self.step {
                Step::Wait | Step::Follow(_) | Step::Look => return None,
                Step::Enter => enter(context, fetch, held),
                Step::Claim => claim(context, fetch, held),
                Step::TakeOver(claim) => {
                    match held.lead.as_ref().is_some_and(|lead| lead.take_over(claim)) {
                        true => Heard::TookOver,
                        false => Heard::TooLate,
                    }
                }
                Step::Ask => {
                    let lead = held.lead.take();
                    if lead.is_some() && self.course.has_seen_failure() {
                        context.count(Counter::HerdTakenOver, 1);
                        fetch.plan.role = Role::TookOver;
                    }
                    return Some(Joined::Ask(lead));
                }
                Step::AskAlone => return Some(released(context, fetch)),
                Step::Read => {
                    let object = held.object.take();
                    let hit = object.and_then(|object| hit(context, fetch, object));
                    return Some(match hit {
                        Some(hit) => Joined::Serve(hit),
                        None => released(context, fetch),
                    });
                }
                Step::Refuse(reason) => {
                    return Some(Joined::Refuse(Answer::new(reason, TOLD)));
                }
            };
            self.step = self.course.next(heard);
        }
    }
}

/// What it has waited for is not for it.
fn released(context: &Context, fetch: &mut Fetch) -> Joined {
    context.count(Counter::HerdReleased, 1);
    fetch.plan.role = Role::Released;
    Joined::Ask(None)
}

/// Turns to the worker that has the claim.
async fn turn_to(session: &Session, fetch: &Fetch, claim: Claim, held: &mut Held) -> Heard {
    let Some(lead) = held.lead.take() else {
        return Heard::Alone { is_late: false };
    };
    match follow::follow(session, fetch, claim, lead).await {
        Followed::Arrives(object) => {
            held.object = Some(object);
            Heard::Arrives
        }
        Followed::Told(outcome) => Heard::Told(outcome),
        // Whoever waits behind it begins anew.
        Followed::Unknown(_) | Followed::NotAsked(_) if is_range(fetch) => {
            Heard::Alone { is_late: true }
        }
        Followed::Unknown(lead) => {
            held.lead = Some(lead);
            Heard::Unknown(claim)
        }
        // As if there were no place for a claim.
        Followed::NotAsked(lead) => {
            held.lead = Some(lead);
            Heard::Claimed { is_late: true }
        }
    }
}

fn enter(context: &Context, fetch: &Fetch, held: &mut Held) -> Heard {
    match place(context, fetch) {
        Place::Alone => Heard::Alone {
            is_late: is_late(context, fetch),
        },
        Place::Behind(waiting) => {
            held.waiting = Some(waiting);
            Heard::Behind
        }
        Place::Lead(lead) => {
            held.lead = Some(lead);
            Heard::First
        }
    }
}

async fn wait(context: &Context, held: &mut Held) -> Heard {
    let Some(waiting) = held.waiting.take() else {
        return Heard::Waited;
    };
    match timeout(patience(context), waiting.told()).await {
        Ok(Ok(object)) => {
            held.object = Some(object);
            Heard::Arrives
        }
        Ok(Err(outcome)) => Heard::Told(outcome),
        Err(_) => Heard::Waited,
    }
}

/// How long anybody waits for another one's head: as long as that one may wait for it.
pub fn patience(context: &Context) -> std::time::Duration {
    let origin = &context.config.origin;
    origin.connect_timeout + origin.header_timeout
}

fn claim(context: &Context, fetch: &Fetch, held: &mut Held) -> Heard {
    match held.lead.as_ref().map(Lead::claim) {
        Some(Claimed::Theirs(claim)) => Heard::Theirs(claim),
        Some(_) if is_range(fetch) => {
            held.lead = None;
            Heard::Alone { is_late: true }
        }
        // Others wait behind it already, so what it does not know yet is worth a look.
        Some(Claimed::Ours | Claimed::Crowded) | None => Heard::Claimed {
            is_late: is_late(context, fetch),
        },
    }
}

/// Whether something has been stored since it looked: perhaps what it wants.
fn is_late(context: &Context, fetch: &Fetch) -> bool {
    let key = fetch.plan.key.as_ref();
    key.is_some_and(|key| context.herd.stored(key.as_bytes()) != fetch.plan.seen)
}

/// What is stored, where that is better than what another request was told.
fn instead(context: &Context, fetch: &Fetch, heard: Heard) -> Option<Hit> {
    let failure = match heard {
        Heard::Told(Outcome::Unreachable(_)) => Failure::Unreachable,
        Heard::Told(Outcome::Error(status)) => Failure::Status(status),
        _ => return None,
    };
    lookup::instead(context, fetch, failure)
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

/// Those behind it begin anew as well, where they have asked for what was stored before, or in another era.
fn looked_in_vain(fetch: &Fetch, held: &mut Held) -> Heard {
    let herd = fetch.plan.herd;
    match held.lead.take_if(|lead| lead.version() != herd) {
        Some(_) => Heard::Moved,
        None => Heard::Absent,
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
    let leads = match is_range(fetch) {
        false => is_for_all(&request.headers, plan.stale.is_some()),
        // It never leads, but perhaps it finds what it wants in another worker.
        true if !context.herd.is_answered(key, plan.herd) => {
            if !context.herd.is_asked_elsewhere(key, plan.herd) {
                return Place::Alone;
            }
            true
        }
        true => false,
    };
    context.herd.enter(key, plan.herd, leads)
}

/// A range request asks for its range, which is no answer to others.
fn is_range(fetch: &Fetch) -> bool {
    fetch.request.head.headers.contains("range")
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
            [span] => span.from <= growing.soon().saturating_add(SOON),
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
        failures: fetch.plan.failures,
    })
}
