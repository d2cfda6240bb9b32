//! Going on with a response that has broken off while others read it: the rest of it, asked for by its range.
//!
//! RFC 9110 section 14: "Clients often encounter interrupted data transfers as a result of canceled requests or dropped
//! connections." Only where a strong validator says that both are one representation (`cache::part::resumes`); else what
//! broke off stays visibly incomplete. It neither knows who fetched the beginning nor who reads it.

use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use tokio::time::Instant;

use super::behind;
use super::fetch::{self, Asker, Fetched, Reply};
use super::recording::Recording;
use super::request_body::RequestBody;
use super::{Fetch, Request};
use crate::cache::{CacheControl, Part, Stored, part};
use crate::config::Mode;
use crate::http::framing::Framing;
use crate::store::Object;
use crate::wire::Inbox;
use crate::worker::context::Context;
use crate::worker::session::Session;

/// How often one response is gone on with.
const MOST: u8 = 3;

/// A question that can be asked once more, and in whose name.
pub struct Again {
    fetch: Fetch,
    mode: Mode,
    peer: IpAddr,
    tries: u8,
    /// How far it had come when it was asked last.
    last: Option<u64>,
}

impl Again {
    pub fn of(session: &Session, fetch: &Fetch) -> Again {
        let mut plan = fetch.plan.anew();
        plan.fallback = None;
        Again {
            fetch: Fetch {
                request: Request {
                    head: behind::for_the_store(&fetch.request.head),
                    framing: Framing::None,
                    expects_continue: false,
                    persists: false,
                    began: Instant::now(),
                },
                uri: fetch.uri.clone(),
                to: fetch.to,
                plan,
            },
            mode: session.mode,
            peer: session.conn.peer_addr().ip(),
            tries: 0,
            last: None,
        }
    }

    pub fn fetch(&self) -> &Fetch {
        &self.fetch
    }

    /// The rest of a response of that `length`, from the octet `from` on, for `recording`. None: there is no going on.
    pub async fn resume(
        &mut self,
        context: &Rc<Context>,
        stored: &Stored,
        from: u64,
        length: Option<u64>,
        recording: &mut Recording,
    ) -> Option<Box<Reply>> {
        // Of what nothing has come there is no rest: whoever waits for it asks anew.
        let is_begun = |length: &u64| (1..*length).contains(&from);
        let length = length.filter(|length| is_begun(length) && part::may_resume(stored))?;
        // What comes to nothing twice at one place will do so again.
        if self.tries >= MOST || self.last == Some(from) || context.is_draining() {
            return None;
        }
        self.tries += 1;
        self.last = Some(from);
        let mut beginning = stored.clone();
        beginning.body_len = from;
        beginning.keep_as(Part::arrived(0, from, Some(length), None));
        self.fetch.plan.part = Some(Rc::new(Object::new(beginning, Bytes::new())));
        self.fetch.plan.rest = Some(from);
        let mut asker = Asker {
            context: context.clone(),
            mode: self.mode,
            peer: self.peer,
            stream: None,
            lead: None,
            inbox: &mut Inbox::default(),
            outbox: &mut Vec::new(),
        };
        let mut body = RequestBody::of(&self.fetch.request);
        let reply = match fetch::fetch(&mut asker, &self.fetch, &mut body).await {
            Ok(Fetched::Reply(reply)) => reply,
            Ok(Fetched::Switched(_)) | Err(fetch::Trouble::Client(_)) => return None,
            Err(fetch::Trouble::Upstream(error)) => {
                log::debug!("the rest of a response cannot be had: {error}");
                return None;
            }
        };
        // What says so now is not kept, whatever its beginning said.
        if CacheControl::of(&reply.head.headers).no_store {
            recording.keep_no_more();
        }
        part::resumes(stored, from, length, &reply.head).then_some(reply)
    }
}
