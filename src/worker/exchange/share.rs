//! A response that is read by more than one client while it arrives.
//!
//! From then on a task of its own takes it from the origin server, at the origin server's pace, into the store; no
//! client holds it up, and none that leaves ends it but the last. `relay` lets go of it, `join` is where those come from who read it.

use std::rc::Rc;

use super::deliver::{End, Source, absorb};
use super::fetch::Reply;
use super::finish;
use super::recording::Recording;
use crate::http::body::Decoder;
use crate::store::{Growing, Object};
use crate::worker::context::Context;
use crate::worker::herd::{Lead, Outcome};

/// Lets what comes of the response come for everybody. `decoder`: as far as it has come.
pub async fn share(
    context: &Rc<Context>,
    lead: Lead,
    mut reply: Box<Reply>,
    decoder: Decoder,
    mut recording: Recording,
) -> (Source, Reader) {
    let (object, growing) = recording.share().await;
    let lead = match &object {
        Some(object) => {
            lead.share(object.clone());
            Some(lead)
        }
        None => {
            lead.settle(Outcome::NotKept);
            None
        }
    };
    let source = Source::Elsewhere {
        content_type: reply.head.headers.get("content-type").map(<[u8]>::to_vec),
        origin: finish::origin(&reply.link),
    };
    let reader = Reader {
        growing: growing.clone(),
        _object: object,
    };
    let context = context.clone();
    tokio::task::spawn_local(async move {
        let is_read = || match &lead {
            Some(lead) => lead.is_followed(),
            // Ours, the recording's, and the reader's.
            None => Rc::strong_count(&growing) > 2,
        };
        let is_whole = absorb(&context, &mut reply, decoder, &mut recording, is_read).await;
        let end = match is_whole {
            true => End::Whole,
            false => End::Broken,
        };
        if let Some(lead) = lead {
            lead.settle(outcome(&recording, &end));
        }
        if is_whole {
            finish::keep_origin(&context, reply, true);
        }
    });
    (source, reader)
}

/// One who reads what comes; while there is any, it does.
pub struct Reader {
    pub growing: Rc<Growing>,
    _object: Option<Rc<Object>>,
}

/// What those hear who wait for a response that has come to that end.
pub fn outcome(recording: &Recording, end: &End) -> Outcome {
    match (recording.is_kept(), end) {
        (true, _) => Outcome::Stored,
        (false, End::Whole) => Outcome::NotKept,
        (false, _) => Outcome::Failed,
    }
}
