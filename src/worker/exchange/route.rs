//! Step 2: where a request goes: to an origin server, through a tunnel, or no further than here.

use std::rc::Rc;

use crate::access;
use crate::cache::{self, Side};
use crate::config::{HostField, Mode};
use crate::http::head::{Method, RequestHead};
use crate::http::page::{Answer, AnswerReason};
use crate::http::target::{Authority, Memory, Parts, Target, TargetError, TargetUri};
use crate::routing::loops;
use crate::worker::context::Context;
use crate::worker::session::Session;

pub enum Routed {
    Origin(TargetUri, Origin),
    /// CONNECT.
    Tunnel(TargetUri),
    /// The proxy itself is the final recipient.
    Here,
}

/// The origin server of a request.
#[derive(Clone, Copy)]
pub enum Origin {
    /// That of the target URI.
    Target,
    /// The one that the operator put behind this listener.
    Configured,
}

/// `memory`: of the connection.
pub fn route(session: &Session, memory: &mut Memory) -> Result<Routed, Answer> {
    let head = session.head();
    let context = &session.context;
    // RFC 9110 section 7.6.3: Via is for "avoiding request loops": what has been here must not go round again.
    if loops::via_has(&head.headers, &context.pseudonym) {
        return Err(Answer::new(AnswerReason::Loop, ""));
    }
    let malformed = |error: TargetError| Answer::new(error.into(), error.to_string());
    let parts = Parts::split(&head.method, &head.target).map_err(malformed)?;
    match (session.mode, &parts.target) {
        (Mode::Forward, Target::Origin) => {
            return Err(Answer::new(AnswerReason::NotAProxyRequest, ""));
        }
        (Mode::Reverse, Target::Authority(_)) => {
            return Err(Answer::new(AnswerReason::MethodNotAllowed, "CONNECT"));
        }
        _ => {}
    }
    // RFC 9110 section 9.3.8: "A client MUST NOT send content in a TRACE request."
    if head.method == Method::Trace
        && ["content-length", "transfer-encoding"]
            .iter()
            .any(|n| head.headers.contains(n))
    {
        return Err(Answer::new(AnswerReason::TraceWithContent, ""));
    }
    // RFC 9110 section 9.3.6: "A CONNECT request message does not have content." What one reader takes for it is the
    // tunnel's first octets for another; the length 0 that some clients send is no such case.
    if head.method == Method::Connect && cache::storable::has_content(&head.headers) {
        return Err(Answer::new(AnswerReason::ConnectWithContent, ""));
    }
    let fallback = context
        .reverse_to
        .as_ref()
        .filter(|_| session.mode == Mode::Reverse);
    let uri = TargetUri::of_parts(head, parts, fallback, memory).map_err(malformed)?;
    match (session.mode, target_is_here(head)) {
        (Mode::Forward, _) if head.method == Method::Connect => tunnel(session, uri),
        // `OPTIONS *` to the proxy itself, and what may go no further.
        (Mode::Forward, _) if head.target == b"*" => Ok(Routed::Here),
        (_, true) => Ok(Routed::Here),
        (Mode::Forward, _) => Ok(Routed::Origin(uri, Origin::Target)),
        (Mode::Reverse, _) => Ok(Routed::Origin(uri, Origin::Configured)),
    }
}

fn tunnel(session: &Session, uri: TargetUri) -> Result<Routed, Answer> {
    let port = uri.authority.port_or(443);
    if !access::connect_port_allowed(&session.context.config.access.connect_ports, port) {
        return Err(Answer::new(
            AnswerReason::PortDenied,
            format!("port {port}"),
        ));
    }
    Ok(Routed::Tunnel(uri))
}

/// RFC 9110 section 7.6.2: "If the received value is zero (0), the intermediary MUST NOT forward the request;
/// instead, the intermediary MUST respond as the final recipient", for TRACE and OPTIONS.
fn target_is_here(head: &RequestHead) -> bool {
    matches!(head.method, Method::Trace | Method::Options)
        && loops::max_forwards(&head.headers) == Some(0)
}

impl Origin {
    /// Which of the store's key spaces its responses belong to.
    pub fn side(&self) -> Side {
        match self {
            Origin::Target => Side::Forward,
            Origin::Configured => Side::Reverse,
        }
    }

    /// The pool's name for its idle connections. Those to a configured origin are apart: they were made without
    /// asking `access`, so a forward listener's request must not get them.
    pub fn pool_name(&self, authority: &Authority) -> Rc<[u8]> {
        let mut name = Vec::with_capacity(64);
        if matches!(self, Origin::Configured) {
            name.extend_from_slice(b"reverse ");
        }
        // No port is left out for being the default.
        authority.write(0, &mut name);
        name.into()
    }

    /// The authority to connect to; `access` is not asked about a configured one.
    pub fn authority<'a>(&self, context: &'a Context, uri: &'a TargetUri) -> (&'a Authority, bool) {
        match (self, &context.reverse_to) {
            (Origin::Configured, Some(to)) => (to, true),
            _ => (&uri.authority, false),
        }
    }

    /// Host for the origin server, in normal form.
    pub fn host<'a>(&self, context: &'a Context, uri: &'a TargetUri) -> &'a Authority {
        match (self, &context.reverse_to, context.config.reverse.host) {
            (Origin::Configured, Some(to), HostField::Origin) => to,
            _ => &uri.authority,
        }
    }
}
