//! The life of one request, as a table of steps.
//!
//! | step | what it does | what it hands on |
//! |---|---|---|
//! | admit | who asks, how the body is framed, what is expected | `Admitted` or an answer |
//! | route | where to: an origin server, a tunnel, this proxy itself; loops | `Routed` or an answer |
//! | lookup | what the store has, and whether it may be reused | `Looked` or an answer |
//! | join | whether another request is asking for the same: wait, read along, or lead | `Joined` |
//! | nodes | whether another node that shares the store is asking for the same | `Turned` |
//! | fetch | an origin server's response head, retried where that is safe | `Fetched` or trouble |
//! | record | what is kept, refreshed, invalidated | `Recorded` |
//! | serve, deliver | octets to the client, from the store or as they come | `Served`, `Delivered` |
//! | finish | counters, access log, the origin's connection | `Next` |
//!
//! Each step consumes what the one before returned; none calls another. The first three are plain functions:
//! a hit in memory is written without a task, a timer or a registration. `Later` is what has to wait.

mod admit;
mod answer;
mod behind;
mod deliver;
mod fetch;
mod finish;
mod follow;
mod join;
mod lend;
mod lookup;
mod nodes;
mod purge;
mod record;
mod recording;
mod relay;
mod request_body;
mod resume;
mod route;
mod serve;
mod share;
mod stored_body;
mod tunnel;

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::time::Instant;

use super::context::Context;
use super::herd::{Lead, Outcome};
use super::session::Session;
use crate::cache::decide::{Decision, decide};
use crate::cache::part::Selected;
use crate::cache::stale::Failure;
use crate::cache::{CacheStatus, Forwarded, Key, Stored};
use crate::http::framing::Framing;
use crate::http::head::RequestHead;
use crate::http::target::TargetUri;
use crate::log::OriginUse;
use crate::store::Object;
pub use answer::refuse_unread;
pub use lend::lend;

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It may carry another request.
    KeepAlive,
    /// It ends, in order.
    Close,
    /// It ends visibly: a response was cut short.
    Abort,
    /// It was a tunnel, and is over.
    Tunnelled,
}

/// What a request came to without waiting.
pub enum Begun {
    /// The whole answer is in the outbox.
    Written(Next),
    Later(Box<Later>),
}

/// A request that has to wait, as far as it has come.
pub enum Later {
    Serve(Request, Hit, TargetUri, route::Origin),
    /// The rest of a hit whose head, with that status, has left.
    Rest(Request, Hit, u16, stored_body::Slice),
    Fetch(Fetch),
    /// Only the disk knows whether it is stored.
    Look(Request, TargetUri, route::Origin, Key),
    Purge(Request, Key),
    Tunnel(Request, TargetUri),
}

impl Later {
    fn request(&self) -> &Request {
        match self {
            Later::Serve(request, ..)
            | Later::Rest(request, ..)
            | Later::Look(request, ..)
            | Later::Purge(request, _)
            | Later::Tunnel(request, _) => request,
            Later::Fetch(fetch) => &fetch.request,
        }
    }
}

/// A request that was admitted, out of the session's hands.
pub struct Request {
    pub head: RequestHead,
    pub framing: Framing,
    pub expects_continue: bool,
    /// Whether the connection may go on after it.
    pub persists: bool,
    pub began: Instant,
}

/// A stored response that may be reused now.
pub struct Hit {
    pub object: Rc<Object>,
    /// Seconds.
    pub age: u32,
    /// Which octets of it are sent.
    pub selected: Selected,
    pub status: CacheStatus,
    /// Field lines that are for this client alone and are not stored.
    pub for_client: Vec<u8>,
    /// `hit` or `revalidated`, and why, for the log.
    pub outcome: &'static str,
    pub reason: &'static str,
    /// Who was asked whether it is still good.
    pub origin: Option<(SocketAddr, OriginUse)>,
    /// How often this request has read along with what broke off before its first octet, this time left out.
    pub failures: u8,
}

/// A request on its way to an origin server.
pub struct Fetch {
    pub request: Request,
    pub uri: TargetUri,
    pub to: route::Origin,
    pub plan: lookup::Plan,
}

/// The part that never waits.
pub fn begin(session: &mut Session) -> Begun {
    let began = session.ended.take().unwrap_or_else(Instant::now);
    let admitted = match admit::admit(session) {
        Ok(admitted) => admitted,
        Err(answer) => return Begun::Written(answer::refuse(session, &answer, began)),
    };
    let mut memory = std::mem::take(&mut session.memory);
    let routed = route::route(session, &mut memory);
    session.memory = memory;
    let routed = match routed {
        Ok(routed) => routed,
        Err(answer) => return Begun::Written(answer::refuse(session, &answer, began)),
    };
    let (uri, to) = match routed {
        route::Routed::Origin(uri, to) => (uri, to),
        route::Routed::Here => {
            return Begun::Written(answer::as_final_recipient(session, &admitted, began));
        }
        route::Routed::Tunnel(uri) => {
            let request = admitted.into_request(session.take_head(), began);
            return Begun::Later(Box::new(Later::Tunnel(request, uri)));
        }
    };
    match purge::purge(session, &uri, to.side()) {
        Ok(None) => {}
        Ok(Some(key)) => {
            let request = admitted.into_request(session.take_head(), began);
            return Begun::Later(Box::new(Later::Purge(request, key)));
        }
        Err(answer) => return Begun::Written(answer::refuse(session, &answer, began)),
    }
    session.choose_policy(&uri, to.side());
    match lookup::lookup(session, &uri, to.side()) {
        lookup::Looked::Answer(answer) => Begun::Written(answer::refuse(session, &answer, began)),
        lookup::Looked::Hit(hit) => serve_now(session, admitted, hit, (uri, to), began),
        lookup::Looked::HitAndAsk(hit, plan) => {
            behind::ask(session, session.head(), uri.clone(), to, plan);
            serve_now(session, admitted, hit, (uri, to), began)
        }
        lookup::Looked::AskDisk(key) => {
            let request = admitted.into_request(session.take_head(), began);
            Begun::Later(Box::new(Later::Look(request, uri, to, key)))
        }
        lookup::Looked::Ask(plan) => {
            let request = admitted.into_request(session.take_head(), began);
            Begun::Later(Box::new(Later::Fetch(Fetch {
                request,
                uri,
                to,
                plan,
            })))
        }
    }
}

/// A hit, as far as it can be served without waiting.
fn serve_now(
    session: &mut Session,
    admitted: admit::Admitted,
    hit: Hit,
    (uri, to): (TargetUri, route::Origin),
    began: Instant,
) -> Begun {
    let later = match serve::hit_now(session, &admitted, &hit, began) {
        serve::Now::Done(next) => {
            session.memory.recycle(uri);
            return Begun::Written(next);
        }
        serve::Now::Rest(status, rest) => {
            session.memory.recycle(uri);
            let request = admitted.into_request(session.take_head(), began);
            Later::Rest(request, hit, status, rest)
        }
        serve::Now::Later => {
            let request = admitted.into_request(session.take_head(), began);
            Later::Serve(request, hit, uri, to)
        }
    };
    Begun::Later(Box::new(later))
}

/// The part that waits. Answers to earlier requests leave first.
pub async fn run(session: &mut Session, later: Box<Later>) -> Next {
    if session.flush().await.is_err() {
        answer::log_client_gone(session, later.request());
        return Next::Abort;
    }
    match *later {
        Later::Serve(request, hit, uri, to) => serve_hit(session, request, hit, uri, to).await,
        Later::Rest(request, hit, status, rest) => {
            let next = serve::rest(session, &request, &hit, status, rest).await;
            session.recycle_head(request.head);
            next
        }
        Later::Look(request, uri, to, key) => look(session, request, uri, to, key).await,
        Later::Purge(request, key) => purge::answer(session, request, key).await,
        Later::Tunnel(request, uri) => tunnel::connect(session, &request, &uri).await,
        Later::Fetch(fetch) => ask_origin(session, fetch).await,
    }
}

/// How often a request reads along with what breaks off before its first octet.
const MOST_FAILURES: u8 = 2;

/// A hit; where its body turns out to be lost, what the origin server says.
async fn serve_hit(
    session: &mut Session,
    request: Request,
    hit: Hit,
    uri: TargetUri,
    to: route::Origin,
) -> Next {
    match serve::hit(session, &request, &hit).await {
        serve::Served::Next(next) => {
            session.recycle_head(request.head);
            session.memory.recycle(uri);
            next
        }
        serve::Served::Lost => {
            let plan = lookup::lost(&session.context, &uri, to.side(), session.policy);
            let fetch = Fetch {
                request,
                uri,
                to,
                plan,
            };
            ask_origin(session, fetch).await
        }
        // One more of them tries; what all of them try does not help an origin server that always breaks off.
        serve::Served::Unbegun => {
            let mut plan = lookup::unbegun(&session.context, &uri, to.side(), session.policy);
            plan.failures = hit.failures + 1;
            let fetch = Fetch {
                request,
                uri,
                to,
                plan,
            };
            match fetch.plan.failures < MOST_FAILURES {
                true => ask_origin(session, fetch).await,
                false => {
                    session.outbox.clear();
                    let body = request_body::RequestBody::of(&fetch.request);
                    answer::trouble(
                        session,
                        &fetch,
                        &body,
                        crate::upstream::Error::Closed.into(),
                    )
                }
            }
        }
    }
}

/// What is stored, stale, in place of a failure of the origin server.
async fn serve_instead(session: &mut Session, fetch: Fetch, hit: Hit) -> Next {
    let Fetch {
        request, uri, to, ..
    } = fetch;
    Box::pin(serve_hit(session, request, hit, uri, to)).await
}

async fn look(
    session: &mut Session,
    request: Request,
    uri: TargetUri,
    to: route::Origin,
    key: Key,
) -> Next {
    let looked = lookup::look(&session.context, &request.head, key, session.policy).await;
    looked_up(session, request, uri, to, looked).await
}

async fn looked_up(
    session: &mut Session,
    request: Request,
    uri: TargetUri,
    to: route::Origin,
    looked: lookup::Looked,
) -> Next {
    match looked {
        lookup::Looked::Hit(hit) => serve_hit(session, request, hit, uri, to).await,
        lookup::Looked::HitAndAsk(hit, plan) => {
            behind::ask(session, &request.head, uri.clone(), to, plan);
            serve_hit(session, request, hit, uri, to).await
        }
        lookup::Looked::Answer(answer) => {
            session.recycle_head(request.head);
            answer::refuse(session, &answer, request.began)
        }
        lookup::Looked::Ask(plan) => {
            let fetch = Fetch {
                request,
                uri,
                to,
                plan,
            };
            ask_origin(session, fetch).await
        }
        lookup::Looked::AskDisk(_) => unreachable!("the disk has been asked"),
    }
}

/// What is not there is asked for, once for all who want it meanwhile.
async fn ask_origin(session: &mut Session, mut fetch: Fetch) -> Next {
    let joined = match join::join(&session.context, &mut fetch) {
        Ok(joined) => Some(joined),
        Err(joining) => tokio::select! {
            biased;
            joined = joining.go_on(session, &mut fetch) => Some(joined),
            () = request_body::gone(Some(&session.stream)) => None,
        },
    };
    match joined {
        Some(join::Joined::Ask(Some(lead))) => ask_for_nodes(session, fetch, lead).await,
        Some(join::Joined::Ask(None)) => ask(session, fetch, None).await,
        Some(join::Joined::Serve(hit)) => serve_instead(session, fetch, hit).await,
        Some(join::Joined::Refuse(answer)) => {
            session.recycle_head(fetch.request.head);
            answer::refuse(session, &answer, fetch.request.began)
        }
        Some(join::Joined::Look(looked)) => {
            let Fetch {
                request, uri, to, ..
            } = fetch;
            Box::pin(looked_up(session, request, uri, to, looked)).await
        }
        None => {
            answer::log_client_gone(session, &fetch.request);
            Next::Abort
        }
    }
}

/// Where other nodes use the store, too, one of them asks.
async fn ask_for_nodes(session: &mut Session, mut fetch: Fetch, lead: Lead) -> Next {
    let turned = tokio::select! {
        biased;
        turned = nodes::take_turn(&session.context, &mut fetch) => turned,
        () = request_body::gone(Some(&session.stream)) => {
            answer::log_client_gone(session, &fetch.request);
            return Next::Abort;
        }
    };
    match turned {
        nodes::Turned::Ask(lease) => {
            if let Some(lease) = lease {
                lead.holds_lease(lease);
            }
            ask(session, fetch, Some(lead)).await
        }
        nodes::Turned::Look(looked) => {
            lead.settle(Outcome::Stored);
            drop(lead);
            let Fetch {
                request, uri, to, ..
            } = fetch;
            Box::pin(looked_up(session, request, uri, to, *looked)).await
        }
    }
}

async fn ask(session: &mut Session, mut fetch: Fetch, lead: Option<Lead>) -> Next {
    let settle = |outcome| lead.iter().for_each(|lead| lead.settle(outcome));
    if fetch.plan.status.forwarded == Some(Forwarded::VaryMiss) {
        lookup::offer(&session.context, &fetch.request.head, &mut fetch.plan).await;
    }
    let mut body = request_body::RequestBody::of(&fetch.request);
    let mut asker = fetch::Asker::of(session, lead.as_ref());
    let reply = match fetch::fetch(&mut asker, &fetch, &mut body).await {
        Ok(fetch::Fetched::Reply(reply)) => reply,
        Ok(fetch::Fetched::Switched(reply)) => {
            settle(Outcome::Unshared);
            return tunnel::switched(session, &fetch, reply).await;
        }
        Err(fetch::Trouble::Upstream(error)) => {
            settle(Outcome::Unreachable(answer::of_upstream(&error)));
            return match lookup::instead(&session.context, &fetch, Failure::Unreachable) {
                Some(hit) if body.is_read() => serve_instead(session, fetch, hit).await,
                _ => answer::trouble(session, &fetch, &body, error.into()),
            };
        }
        Err(trouble) => return answer::trouble(session, &fetch, &body, trouble),
    };
    let failure = Failure::Status(reply.head.status);
    if let Some(hit) = lookup::instead(&session.context, &fetch, failure) {
        settle(Outcome::Error(reply.head.status));
        return serve_instead(session, fetch, hit).await;
    }
    match record::record(&session.context, &fetch, reply).await {
        record::Recorded::Refreshed(hit, reply) => {
            match is_for_others(&session.context, &fetch, &hit.object.stored) {
                true => {
                    settle(Outcome::Stored);
                    is_shared_again(&session.context, &fetch, lead.as_ref());
                }
                // Each of them has to ask whether it is still good.
                false if is_wanted(lead.as_ref()) => settle(Outcome::Unshared),
                false => settle(Outcome::Stored),
            }
            finish::keep_origin(&session.context, reply, body.is_sent());
            let Fetch {
                request, uri, to, ..
            } = fetch;
            Box::pin(serve_hit(session, request, hit, uri, to)).await
        }
        record::Recorded::AskAgain(plan) => {
            Box::pin(ask(session, Fetch { plan, ..fetch }, lead)).await
        }
        record::Recorded::Reply(reply, recording) => {
            let lead = herd_sees(&session.context, &fetch, lead, &recording);
            let (delivered, source) =
                deliver::reply(session, &fetch, reply, recording, &mut body, lead).await;
            let next = finish::finish(session, &fetch, source, &delivered, &body);
            session.recycle_head(fetch.request.head);
            next
        }
    }
}

fn is_wanted(lead: Option<&Lead>) -> bool {
    lead.is_some_and(Lead::is_wanted)
}

/// What was asked for by each is for all from now on.
fn is_shared_again(context: &Context, fetch: &Fetch, lead: Option<&Lead>) {
    if let (Some(key), None) = (&fetch.plan.key, lead) {
        context.herd.is_shared(key);
    }
}

/// Whether what is stored now answers the same request of somebody else, without a question.
fn is_for_others(context: &Context, fetch: &Fetch, stored: &Stored) -> bool {
    let policy = context.policies.get(fetch.plan.policy);
    let now = crate::sys::clock::unix_seconds();
    matches!(
        decide(&fetch.request.head, stored, policy, now),
        Decision::Serve(..) | Decision::ServeAndAsk(..)
    )
}

/// There is a head: those who wait hear at once if it is not for them.
fn herd_sees(
    context: &Context,
    fetch: &Fetch,
    lead: Option<Lead>,
    recording: &recording::Recording,
) -> Option<Lead> {
    let stored = recording.stored().filter(|_| recording.is_shareable());
    // Where nobody waits for it, who comes next may get something better: a 304 that makes it fresh.
    let is_shared = stored
        .is_some_and(|stored| !is_wanted(lead.as_ref()) || is_for_others(context, fetch, stored));
    match (lead, is_shared) {
        (Some(lead), true) => {
            lead.answered();
            Some(lead)
        }
        (Some(lead), false) => {
            lead.settle(Outcome::Unshared);
            None
        }
        (None, true) => {
            if stored.is_some_and(|stored| is_for_others(context, fetch, stored)) {
                is_shared_again(context, fetch, None);
            }
            None
        }
        (None, false) => None,
    }
}
