//! Requests that turn their connection into a tunnel: CONNECT, and Upgrade once the origin server agreed.

use tokio::time::timeout;

use super::answer;
use super::fetch::{Reply, Trouble, write_field};
use super::finish::{self, Outcome};
use super::recording;
use super::{Fetch, Next, Request};
use crate::cache::{CacheStatus, Forwarded};
use crate::http::connection::EndToEnd;
use crate::http::head::{Version, write_status_line};
use crate::http::target::TargetUri;
use crate::log::OriginUse;
use crate::routing::loops;
use crate::shared::Counter;
use crate::upstream::dial;
use crate::upstream::tunnel::{self, Why};
use crate::wire::Stream;
use crate::worker::herd::Role;
use crate::worker::session::Session;

/// What Cache-Status says of CONNECT.
const NO_PART: CacheStatus = CacheStatus {
    hit: false,
    forwarded: Some(Forwarded::Method),
    forwarded_status: None,
    stored: false,
    collapsed: false,
    ttl: None,
    detail: None,
};

/// CONNECT (RFC 9110 section 9.3.6): 200 only when connected, then octets both ways.
pub async fn connect(session: &mut Session, request: &Request, uri: &TargetUri) -> Next {
    let context = session.context.clone();
    let limit = context.config.origin.connect_timeout;
    let dialled = dial::dial(
        &context.resolver,
        &uri.authority,
        Some(&context.destinations),
        limit,
    )
    .await;
    let (origin, address) = match dialled {
        Ok(dialled) => dialled,
        // What follows a refused CONNECT was meant for somebody else: nothing of it is run.
        Err(error) => {
            let trouble = Trouble::Upstream(error);
            return answer::trouble_of(
                session,
                request,
                NO_PART,
                trouble,
                true,
                answer::Held::Nothing,
            );
        }
    };
    session
        .outbox
        .extend_from_slice(b"HTTP/1.1 200 Connection established\r\n");
    write_via(session);
    recording::write_status(&NO_PART, &mut session.outbox);
    session.outbox.extend_from_slice(b"\r\n");
    let ended = between(session, &origin).await;
    let end = match ended.why {
        Why::Closed => "",
        Why::Idle => "idle",
        Why::Reset => "reset",
    };
    let outcome = Outcome {
        status: 200,
        octets: ended.to_client,
        content_type: None,
        cache: "tunnel",
        reason: "",
        origin: Some((address, OriginUse::New)),
        end,
        herd: Role::Alone,
    };
    finish::log(session, Some(&request.head), request.began, &outcome);
    Next::Tunnelled
}

/// The origin server's 101 (RFC 9110 section 7.8) goes to the client, and what follows it both ways.
pub async fn switched(session: &mut Session, fetch: &Fetch, mut reply: Box<Reply>) -> Next {
    let head = &reply.head;
    let end_to_end = EndToEnd::of_response(&head.headers);
    let out = &mut session.outbox;
    write_status_line(101, &head.reason, out);
    for (name, value) in head.headers.iter() {
        if end_to_end.keeps(name) && !name.eq_ignore_ascii_case("content-length") {
            write_field(name, value, out);
        }
    }
    out.extend_from_slice(b"Connection: upgrade\r\n");
    write_field(
        "Upgrade",
        head.headers.get("upgrade").unwrap_or_default(),
        out,
    );
    loops::write_via(head.version, &session.context.pseudonym, out);
    recording::write_status(&fetch.plan.status, out);
    out.extend_from_slice(b"\r\n");
    session.outbox.extend_from_slice(&reply.link.inbox.take());
    let ended = between(session, &reply.link.stream).await;
    let outcome = Outcome {
        status: 101,
        octets: ended.to_client,
        content_type: None,
        cache: "tunnel",
        reason: "upgrade",
        origin: Some(finish::origin(&reply.link)),
        end: if ended.why == Why::Idle { "idle" } else { "" },
        herd: Role::Alone,
    };
    finish::log(
        session,
        Some(&fetch.request.head),
        fetch.request.began,
        &outcome,
    );
    Next::Tunnelled
}

/// Octets that have been read already go first.
async fn between(session: &mut Session, origin: &Stream) -> tunnel::Ended {
    session.context.count(Counter::Tunnels, 1);
    let early = session.inbox.take();
    let idle = session.context.config.client.tunnel_timeout;
    let started = session.flush().await.is_ok()
        && matches!(timeout(idle, origin.write_all(&early)).await, Ok(Ok(())));
    if !started {
        return tunnel::Ended {
            to_origin: 0,
            to_client: 0,
            why: Why::Reset,
        };
    }
    tunnel::run(&session.stream, origin, idle).await
}

fn write_via(session: &mut Session) {
    loops::write_via(
        Version::Http11,
        &session.context.pseudonym,
        &mut session.outbox,
    );
}
