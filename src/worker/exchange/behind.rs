//! Revalidation behind a stale response that was served at once (RFC 5861 section 3): for the store, nobody waits.
//!
//! One at a time for each key; what it finds out, or that it fails, only shows in what the store has afterwards.

use std::net::IpAddr;
use std::rc::Rc;

use super::deliver::End;
use super::fetch::{self, Asker, Fetched};
use super::record::{self, Recorded};
use super::request_body::RequestBody;
use super::share::{self, Came, absorb};
use super::{Fetch, Request, finish, lookup, route};
use crate::cache::Key;
use crate::config::Mode;
use crate::http::body::Decoder;
use crate::http::framing::Framing;
use crate::http::head::{Method, RequestHead};
use crate::http::target::TargetUri;
use crate::shared::Claimed;
use crate::wire::Inbox;
use crate::worker::context::Context;
use crate::worker::herd::{Lead, Outcome, Place};
use crate::worker::session::Session;

/// Keys asked for at once; over that, what is stale is served and not asked about.
const MOST: usize = 256;

/// Octets of a response that clients wait for to its end; what is larger they ask for themselves, and read as it comes.
const MOST_WAITED_FOR: u64 = 1 << 20;

/// What of a client's request is for itself alone, and says nothing of what the store needs.
const OWN: [&str; 8] = [
    "cache-control",
    "pragma",
    "range",
    "if-range",
    "if-none-match",
    "if-modified-since",
    "if-match",
    "if-unmodified-since",
];

/// Asks the origin server what `request` asks, for the store; the caller's session goes on.
pub fn ask(
    session: &Session,
    request: &RequestHead,
    uri: TargetUri,
    to: route::Origin,
    plan: lookup::Plan,
) {
    let context = session.context.clone();
    let Some(key) = plan.key.clone() else { return };
    let is_crowded = context.behind.borrow().len() >= MOST;
    if context.is_draining() || is_crowded || !context.behind.borrow_mut().insert(key.clone()) {
        return;
    }
    let head = for_the_store(request);
    let fetch = Fetch {
        request: Request {
            head,
            framing: Framing::None,
            expects_continue: false,
            persists: false,
            began: tokio::time::Instant::now(),
        },
        uri,
        to,
        plan,
    };
    let (mode, peer) = (session.mode, session.conn.peer_addr().ip());
    tokio::task::spawn_local(async move {
        let _asked = Asked(context.clone(), key);
        if let Ok(lead) = lead(&context, &fetch) {
            run(context, mode, peer, fetch, lead).await;
        }
    });
}

/// A client's request without what is for itself alone.
pub fn for_the_store(request: &RequestHead) -> RequestHead {
    let mut head = request.clone();
    head.method = Method::Get;
    head.headers
        .retain(|name, _| !OWN.iter().any(|own| own.eq_ignore_ascii_case(name)));
    head
}

/// A key that is being asked for, until this is dropped.
struct Asked(Rc<Context>, Key);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.behind.borrow_mut().remove(&self.1);
    }
}

/// A place in the herd, if there is one to be had. Error: another request asks for it, here or in another worker.
fn lead(context: &Context, fetch: &Fetch) -> Result<Option<Lead>, Taken> {
    let Some(key) = &fetch.plan.key else {
        return Ok(None);
    };
    match context.herd.enter(key, fetch.plan.herd, true) {
        Place::Lead(lead) => match lead.claim() {
            Claimed::Theirs(_) => Err(Taken),
            Claimed::Ours | Claimed::Crowded => Ok(Some(lead)),
        },
        Place::Alone => Ok(None),
        Place::Behind(_) => Err(Taken),
    }
}

struct Taken;

async fn run(context: Rc<Context>, mode: Mode, peer: IpAddr, mut fetch: Fetch, lead: Option<Lead>) {
    // A 304 that speaks of something else is asked again, without conditions.
    for _ in 0..2 {
        let mut body = RequestBody::of(&fetch.request);
        let mut asker = Asker {
            context: context.clone(),
            mode,
            peer,
            stream: None,
            lead: None,
            inbox: &mut Inbox::default(),
            outbox: &mut Vec::new(),
        };
        let reply = match fetch::fetch(&mut asker, &fetch, &mut body).await {
            Ok(Fetched::Reply(reply)) => reply,
            Ok(Fetched::Switched(_)) => return,
            Err(fetch::Trouble::Upstream(error)) => {
                let key = fetch
                    .plan
                    .key
                    .as_ref()
                    .map(Key::as_bytes)
                    .unwrap_or_default();
                let key = String::from_utf8_lossy(key);
                return log::debug!("{key} is revalidated in vain: {error}");
            }
            Err(fetch::Trouble::Client(_)) => return,
        };
        match record::record(&context, &fetch, reply).await {
            Recorded::AskAgain(plan) => fetch.plan = plan,
            Recorded::Refreshed(_, reply) => {
                lead.iter().for_each(|lead| lead.settle(Outcome::Stored));
                return finish::keep_origin(&context, reply, body.is_sent());
            }
            Recorded::Reply(mut reply, recording) => {
                let decoder = Decoder::new(reply.framing);
                let mut recording = recording;
                if reply
                    .expected()
                    .is_none_or(|length| length > MOST_WAITED_FOR)
                {
                    lead.iter().for_each(Lead::release);
                }
                let always = || true;
                match absorb(&context, &mut reply, decoder, &mut recording, always).await {
                    Came::Whole => {
                        recording.finish(&context).await;
                        let outcome = share::outcome(&recording, &End::Whole);
                        lead.iter().for_each(|lead| lead.settle(outcome));
                        finish::keep_origin(&context, reply, body.is_sent());
                    }
                    Came::Unwanted | Came::Broken => recording.cut(&context).await,
                }
                return;
            }
        }
    }
}
