//! Step 1: may this client ask at all, and is it clear where its request ends?

use tokio::time::Instant;

use super::Request;
use crate::http::connection::{self, Expectation};
use crate::http::framing::{self, Framing};
use crate::http::head::RequestHead;
use crate::http::page::{Answer, AnswerReason};
use crate::worker::session::Session;

/// A request that may be worked on.
pub struct Admitted {
    pub framing: Framing,
    pub expects_continue: bool,
    pub persists: bool,
}

impl Admitted {
    pub fn into_request(self, head: RequestHead, began: Instant) -> Request {
        let Admitted {
            framing,
            expects_continue,
            persists,
        } = self;
        Request {
            head,
            framing,
            expects_continue,
            persists,
            began,
        }
    }
}

pub fn admit(session: &Session) -> Result<Admitted, Answer> {
    let client = session.conn.peer_addr().ip();
    if !session.context.clients.allows(client) {
        return Err(Answer::new(
            AnswerReason::ClientDenied,
            format!("your address is {client}"),
        ));
    }
    let head = session.head();
    let framing =
        framing::of_request(head).map_err(|error| Answer::new(error.into(), error.to_string()))?;
    let expects_continue = match Expectation::of(head) {
        Expectation::None => false,
        Expectation::Continue => true,
        // RFC 9110 section 10.1.1: "A server that receives an Expect field value containing a member other than
        // 100-continue MAY respond with a 417 (Expectation Failed) status code".
        Expectation::Unknown => return Err(Answer::new(AnswerReason::ExpectationFailed, "")),
    };
    let persists = connection::persists(head.version, &head.headers) && session.may_go_on();
    Ok(Admitted {
        framing,
        expects_continue,
        persists,
    })
}
