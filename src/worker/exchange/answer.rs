//! Answers of our own: refusals, failures, and what is asked of this proxy itself.
//!
//! One table says what each failure of an origin server is for the client.

use std::io;

use tokio::time::Instant;

use super::admit::Admitted;
use super::fetch::Trouble;
use super::finish::{self, Outcome};
use super::request_body::{self, RequestBody};
use super::{Fetch, Next, Request};
use crate::cache::CacheStatus;
use crate::http::body::BodyError;
use crate::http::framing::Framing;
use crate::http::head::{HeadError, Method, RequestHead, write_status_line};
use crate::http::page::{self, Answer, AnswerReason, Whom};
use crate::http::syntax::write_decimal;
use crate::shared::Counter;
use crate::upstream::Error;
use crate::worker::exchange::deliver::write_connection;
use crate::worker::herd::Role;
use crate::worker::session::Session;

/// For the log, where a client went away within its own request: nobody is left to be told a status.
const CLIENT_GONE: u16 = 499;

/// What a client is told of a failure upstream (RFC 9110 section 15.6, RFC 9209 section 2.3).
pub fn of_upstream(error: &Error) -> AnswerReason {
    match error {
        Error::Name(..) => AnswerReason::DnsError,
        Error::Denied(..) => AnswerReason::DestinationDenied,
        Error::Connect(_, error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            AnswerReason::OriginRefused
        }
        Error::Connect(..) => AnswerReason::OriginUnreachable,
        Error::ConnectTimeout(_) => AnswerReason::ConnectTimeout,
        Error::Closed | Error::Broken(_) => AnswerReason::OriginClosed,
        Error::HeaderTimeout | Error::BodyStalled => AnswerReason::OriginTimeout,
        Error::Head(HeadError::TooLarge | HeadError::TooManyFields) => AnswerReason::OriginTooLarge,
        Error::Body(BodyError::Short { .. } | BodyError::Unfinished) => AnswerReason::OriginClosed,
        Error::Head(_) | Error::Framing(_) | Error::Body(_) | Error::TooManyInterim => {
            AnswerReason::OriginProtocol
        }
        Error::UnaskedSwitch => AnswerReason::UnsolicitedUpgrade,
    }
}

/// Refuses a request whose head has been read. What follows on the connection is a request only where this one
/// has no body.
pub fn refuse(session: &mut Session, answer: &Answer, began: Instant) -> Next {
    let head = session.take_head();
    let bodyless = matches!(
        crate::http::framing::of_request(&head),
        Ok(Framing::None | Framing::Length(0))
    );
    // After a refused CONNECT a client may go on as if it had its tunnel.
    let persists = bodyless
        && head.method != Method::Connect
        && answer.reason.is_policy()
        && crate::http::connection::persists(head.version, &head.headers)
        && session.may_go_on();
    session.expects_more = !bodyless;
    let octets = write(session, &head, answer, persists);
    log(session, Some(&head), answer, octets, began);
    if persists {
        Next::KeepAlive
    } else {
        Next::Close
    }
}

/// Refuses a request whose head could not be read; the connection ends after it.
pub fn refuse_unread(session: &mut Session, answer: &Answer) {
    let octets = answer.render(
        false,
        false,
        crate::sys::clock::unix_seconds(),
        &mut session.outbox,
        true,
    );
    log(session, None, answer, octets, Instant::now());
}

/// Answers a request that no origin server answered.
pub fn trouble(session: &mut Session, fetch: &Fetch, body: &RequestBody, trouble: Trouble) -> Next {
    let held = match fetch.plan.fallback {
        Some(_) => Held::Stale,
        None => Held::Nothing,
    };
    let status = fetch.plan.status;
    trouble_of(
        session,
        &fetch.request,
        status,
        trouble,
        !body.is_read(),
        held,
    )
}

/// What is stored and was not served.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Held {
    Nothing,
    Stale,
}

/// `close`: the connection cannot carry another request.
pub fn trouble_of(
    session: &mut Session,
    request: &Request,
    status: CacheStatus,
    trouble: Trouble,
    close: bool,
    held: Held,
) -> Next {
    let (mut answer, close) = match trouble {
        Trouble::Upstream(error) => {
            log::debug!(
                "{} {}: {error}",
                request.head.method.as_str(),
                String::from_utf8_lossy(&request.head.target)
            );
            let mut answer = of_origin(&error);
            // RFC 9111 section 5.2.2.2: where the origin server cannot be reached and what is stale must not be used, "a cache
            // MUST generate an error response [...] 504 (Gateway Timeout)".
            if held == Held::Stale {
                answer.status = 504;
            }
            (answer, close)
        }
        Trouble::Client(request_body::Trouble::Broken) => {
            log_client_gone(session, request);
            return Next::Close;
        }
        Trouble::Client(request_body::Trouble::Gone) => {
            log_client_gone(session, request);
            return Next::Abort;
        }
        Trouble::Client(request_body::Trouble::Stalled) => {
            (Answer::new(AnswerReason::BodyTimeout, ""), true)
        }
        Trouble::Client(request_body::Trouble::Malformed(error)) => (
            Answer::new(AnswerReason::BodyTooBroken, error.to_string()),
            true,
        ),
    };
    set_cache_status(&mut answer, status);
    let persists = !close && request.persists && session.may_go_on();
    let octets = write(session, &request.head, &answer, persists);
    log(session, Some(&request.head), &answer, octets, request.began);
    if persists {
        Next::KeepAlive
    } else {
        Next::Close
    }
}

/// A request that nobody waits for any more.
pub fn log_client_gone(session: &Session, request: &Request) {
    let outcome = Outcome {
        status: CLIENT_GONE,
        octets: 0,
        content_type: None,
        cache: "",
        reason: "",
        origin: None,
        end: "client-gone",
        herd: Role::Alone,
    };
    finish::log(session, Some(&request.head), request.began, &outcome);
}

fn of_origin(error: &Error) -> Answer {
    Answer::new(of_upstream(error), error.to_string())
}

/// In place of a response of which nothing has left yet; returns the status and the octets of content.
pub fn instead(session: &mut Session, fetch: &Fetch, error: &Error, persists: bool) -> (u16, u64) {
    let mut answer = of_origin(error);
    set_cache_status(&mut answer, fetch.plan.status);
    let octets = write(session, &fetch.request.head, &answer, persists);
    session.context.count(Counter::OriginErrors, 1);
    (answer.status, octets)
}

/// Why the origin server was asked, and what came of it.
fn set_cache_status(answer: &mut Answer, status: CacheStatus) {
    let mut value = Vec::new();
    let detail = Some(answer.reason.as_str());
    CacheStatus { detail, ..status }.write(&mut value);
    answer.fields.set("Cache-Status", &value);
}

/// RFC 9110 sections 9.3.7 and 9.3.8: OPTIONS and TRACE that end here.
pub fn as_final_recipient(session: &mut Session, admitted: &Admitted, began: Instant) -> Next {
    let head = session.take_head();
    let bodyless = matches!(admitted.framing, Framing::None | Framing::Length(0));
    let persists = admitted.persists && bodyless;
    session.expects_more = !bodyless;
    let mut reflected = Vec::new();
    if head.method == Method::Trace {
        // "The final recipient of the request SHOULD exclude any request fields that are likely to contain sensitive data".
        let mut copy = head.clone();
        for sensitive in ["authorization", "proxy-authorization", "cookie"] {
            copy.headers.remove(sensitive);
        }
        copy.write(&mut reflected);
    }
    let out = &mut session.outbox;
    write_status_line(200, b"OK", out);
    out.extend_from_slice(b"Date: ");
    crate::http::date::write(crate::sys::clock::unix_seconds(), out);
    out.extend_from_slice(match head.method {
        Method::Trace => b"\r\nContent-Type: message/http\r\nContent-Length: ".as_slice(),
        _ => b"\r\nAllow: GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE, PATCH, CONNECT\r\nContent-Length: ",
    });
    write_decimal(reflected.len() as u64, out);
    out.extend_from_slice(b"\r\nCache-Status: baton; detail=final-recipient\r\n");
    write_connection(head.version, persists, out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&reflected);
    let outcome = Outcome {
        status: 200,
        octets: reflected.len() as u64,
        content_type: None,
        cache: "",
        reason: "final-recipient",
        origin: None,
        end: "",
        herd: Role::Alone,
    };
    finish::log(session, Some(&head), began, &outcome);
    if persists {
        Next::KeepAlive
    } else {
        Next::Close
    }
}

fn write(session: &mut Session, head: &RequestHead, answer: &Answer, persists: bool) -> u64 {
    let html = page::wants_html(&head.headers);
    let head_only = head.method == Method::Head;
    answer.render(
        head_only,
        html,
        crate::sys::clock::unix_seconds(),
        &mut session.outbox,
        !persists,
    )
}

fn log(
    session: &Session,
    head: Option<&RequestHead>,
    answer: &Answer,
    octets: u64,
    began: Instant,
) {
    match answer.reason.of_whom() {
        Whom::Origin => session.context.count(Counter::OriginErrors, 1),
        Whom::Rules => session.context.count(Counter::Denied, 1),
        Whom::Client | Whom::Ourselves => {}
    }
    let outcome = Outcome {
        status: answer.status,
        octets,
        content_type: None,
        cache: "",
        reason: answer.reason.as_str(),
        origin: None,
        end: "",
        herd: Role::Alone,
    };
    finish::log(session, head, began, &outcome);
}
