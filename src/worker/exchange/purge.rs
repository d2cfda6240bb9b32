//! PURGE: a client that may do so has a stored response removed. No standard knows the method; Squid, Varnish and
//! nginx do, and this is what they answer: 200 where something was removed, 404 where there was nothing. And 202 where a database
//! that other nodes use could not be told, so that they may still have it.
//!
//! Nobody may unless `access.purge` says so; then the method is like any other that only origin servers know.

use super::{Next, Request, answer};
use crate::cache::{Key, Side};
use crate::http::head::Method;
use crate::http::page::{Answer, AnswerReason};
use crate::http::target::TargetUri;
use crate::store::Store;
use crate::worker::kept::Kept;
use crate::worker::session::Session;

/// The key to be purged, if the request asks for that.
pub fn purge(session: &Session, uri: &TargetUri, side: Side) -> Result<Option<Key>, Answer> {
    let allowed = &session.context.config.access.purge;
    let is_purge = matches!(&session.head().method, Method::Other(name) if &**name == "PURGE");
    if !is_purge || allowed.is_empty() {
        return Ok(None);
    }
    let client = session.conn.peer_addr().ip().to_canonical();
    match allowed.iter().any(|network| network.contains(&client)) {
        true => Ok(Some(Key::of(uri, side))),
        false => Err(Answer::new(
            AnswerReason::PurgeDenied,
            format!("your address is {client}"),
        )),
    }
}

pub async fn answer(session: &mut Session, request: Request, key: Key) -> Next {
    let key = key.as_bytes();
    let (found, is_known_to_all) = match &session.context.store {
        Some(Kept::Postgres(store)) => store.purge(key).await,
        Some(store) => (store.invalidate(key).await, true),
        None => (false, true),
    };
    let reason = match (found, is_known_to_all) {
        // RFC 9110 section 15.3.3: "the request has been accepted for processing, but the processing has not been completed".
        (_, false) => AnswerReason::PurgedHere,
        (true, true) => AnswerReason::Purged,
        (false, true) => AnswerReason::NothingToPurge,
    };
    session.recycle_head(request.head);
    answer::refuse(session, &Answer::new(reason, ""), request.began)
}
