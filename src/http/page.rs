//! Our own answers: every reason for one with its status, what happened, what to do, and its Proxy-Status error.
//!
//! One table holds them all. It escapes what it quotes, and it never makes an answer cacheable. Every step of
//! the exchange, sessions and the access rules call it.

use std::borrow::Cow;

use super::date;
use super::framing::FramingError;
use super::head::{HeadError, write_status_line};
use super::headers::Headers;
use super::syntax::write_decimal;
use super::target::TargetError;

/// Whose doing an answer of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    Client,
    Origin,
    Ourselves,
    /// The operator's access rules.
    Rules,
}

/// Why we answer ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AnswerReason {
    BadFraming,
    BadHost,
    BadRequest,
    BadTarget,
    BodyTimeout,
    BodyTooBroken,
    ClientDenied,
    ConnectTimeout,
    ConnectWithContent,
    DestinationDenied,
    DnsError,
    DnsTimeout,
    ExpectationFailed,
    HeadTooLarge,
    HeaderTimeout,
    HttpsTarget,
    Internal,
    Loop,
    MaxForwards,
    MethodNotAllowed,
    MethodTooLong,
    NotAProxyRequest,
    NothingToPurge,
    OnlyIfCached,
    OriginClosed,
    OriginProtocol,
    OriginRefused,
    OriginTimeout,
    OriginTooLarge,
    OriginUnreachable,
    Overloaded,
    PortDenied,
    PurgeDenied,
    Purged,
    PurgedHere,
    TargetTooLong,
    TraceWithContent,
    UnsolicitedUpgrade,
    UnsupportedCoding,
    VersionNotSupported,
}

/// A row of the table.
struct Row {
    status: u16,
    title: &'static str,
    remedy: &'static str,
    /// RFC 9209 section 2.3; empty: the answer is no failure of ours to forward.
    error: &'static str,
    /// Seconds.
    retry_after: Option<u32>,
}

const fn row(status: u16, error: &'static str, title: &'static str, remedy: &'static str) -> Row {
    Row {
        status,
        title,
        remedy,
        error,
        retry_after: None,
    }
}

const SET_UP: &str = "This is the address of a proxy, not of a web site. Set it up as your HTTP and HTTPS proxy: in Firefox \
    under Settings, Network Settings, Manual proxy configuration; in a shell with http_proxy and https_proxy; with curl by \
    its option -x.";
const REQUEST: &str =
    "The program that sent it is at fault, or it speaks another protocol than HTTP/1.1.";
const ORIGIN: &str = "The web server is at fault. Try again later, or tell its operator.";

/// What is the origin server's doing.
const OF_ORIGIN: [AnswerReason; 10] = [
    AnswerReason::ConnectTimeout,
    AnswerReason::DnsError,
    AnswerReason::DnsTimeout,
    AnswerReason::OriginClosed,
    AnswerReason::OriginProtocol,
    AnswerReason::OriginRefused,
    AnswerReason::OriginTimeout,
    AnswerReason::OriginTooLarge,
    AnswerReason::OriginUnreachable,
    AnswerReason::UnsolicitedUpgrade,
];

impl AnswerReason {
    #[rustfmt::skip]
    fn row(self) -> Row {
        use AnswerReason::*;
        match self {
            BadFraming => row(400, "http_request_error", "The length of the request's body is not clear", REQUEST),
            BadHost => row(400, "http_request_error", "The request does not say which host it is for", REQUEST),
            BadRequest => row(400, "http_request_error", "The request is malformed", REQUEST),
            BadTarget => row(400, "http_request_error", "The address in the request is malformed", "Check the address for typing errors."),
            BodyTimeout => row(408, "http_request_error", "The request's body came too slowly", "Send it again over a better connection."),
            BodyTooBroken => row(400, "http_request_error", "The request's body is malformed", REQUEST),
            ClientDenied => row(403, "http_request_denied", "You may not use this proxy", "Ask its operator to add your address to access.clients."),
            ConnectTimeout => row(504, "connection_timeout", "The web server did not accept a connection in time", "Try again later; check that the address is right."),
            ConnectWithContent => row(400, "http_request_error", "A CONNECT request has no body", REQUEST),
            DestinationDenied => row(403, "destination_ip_prohibited", "This proxy does not connect to that address", "Its operator can allow it in access.destinations_allow."),
            DnsError => row(502, "dns_error", "The host name was not found", "Check the address for typing errors."),
            DnsTimeout => row(504, "dns_timeout", "The host name was not found in time", "Try again later."),
            ExpectationFailed => row(417, "http_request_error", "The request expects what is not known here", "Send it without the field Expect."),
            HeadTooLarge => row(431, "http_request_error", "The request's header fields are too large", "Delete this site's cookies, or ask the operator for a greater client.max_header_bytes."),
            HeaderTimeout => row(408, "http_request_error", "The request came too slowly", "Send it again over a better connection."),
            HttpsTarget => row(400, "http_request_error", "An https address was asked for in clear text", "Let your program use CONNECT for https, as browsers do."),
            Internal => row(500, "proxy_internal_error", "The proxy failed", "Try again; tell its operator if it stays so."),
            Loop => row(508, "proxy_loop_detected", "The request came back to this proxy", "An address leads to the proxy itself: its operator should check the routes."),
            MaxForwards => row(400, "http_request_error", "Max-Forwards is not a number", REQUEST),
            MethodNotAllowed => row(405, "http_request_denied", "That method is not served here", "Use one of the methods in the field Allow."),
            MethodTooLong => row(501, "http_request_error", "No method has such a long name", REQUEST),
            NotAProxyRequest => row(400, "http_request_error", "This is a proxy", SET_UP),
            NothingToPurge => row(404, "", "Nothing is stored under that address", "There was nothing to remove."),
            OnlyIfCached => row(504, "", "Not in the cache", "The request asked for a stored response only; send it without only-if-cached."),
            OriginClosed => row(502, "connection_terminated", "The web server closed the connection without an answer", ORIGIN),
            OriginProtocol => row(502, "http_protocol_error", "The web server's answer is malformed", ORIGIN),
            OriginRefused => row(502, "connection_refused", "The web server refused the connection", "Check that address and port are right and that the server runs."),
            OriginTimeout => row(504, "http_response_timeout", "The web server did not answer in time", "Try again later."),
            OriginTooLarge => row(502, "http_response_header_section_size", "The web server's header fields are too large", ORIGIN),
            OriginUnreachable => row(502, "destination_unavailable", "The web server cannot be reached", "Check the network and that the address is right."),
            Overloaded => Row { retry_after: Some(1), ..row(503, "proxy_internal_response", "The proxy has more work than it can do", "Try again in a moment.") },
            PortDenied => row(403, "http_request_denied", "CONNECT to that port is not allowed", "The proxy's operator can allow it in access.connect_ports."),
            PurgeDenied => row(403, "http_request_denied", "You may not remove stored responses", "The proxy's operator can allow it in access.purge."),
            Purged => row(200, "", "The stored response has been removed", "It will be fetched anew when it is asked for."),
            PurgedHere => row(202, "", "The stored response is not served here any more", "The database could not be told. It will be as soon as it can; until then other proxies that use it may serve the response."),
            TargetTooLong => row(414, "http_request_error", "The address in the request is too long", "Ask the operator for a greater client.max_target_bytes."),
            TraceWithContent => row(400, "http_request_error", "A TRACE request has no body", REQUEST),
            UnsolicitedUpgrade => row(502, "http_upgrade_failed", "The web server changed the protocol without being asked", ORIGIN),
            UnsupportedCoding => row(501, "http_request_error", "The request's body has an unknown transfer coding", "Send it with the coding chunked, or with Content-Length."),
            VersionNotSupported => row(505, "http_request_error", "That HTTP version is not served here", "Use HTTP/1.1."),
        }
    }

    pub fn status(self) -> u16 {
        self.row().status
    }

    /// Whether the request was well-formed and its answer leaves no doubt where the next one begins.
    pub fn is_policy(self) -> bool {
        use AnswerReason::*;
        matches!(
            self,
            ClientDenied
                | DestinationDenied
                | Loop
                | MethodNotAllowed
                | NothingToPurge
                | OnlyIfCached
                | PortDenied
                | PurgeDenied
                | Purged
                | PurgedHere
        )
    }

    /// Whose doing it is that there is no other answer.
    pub fn of_whom(self) -> Whom {
        use AnswerReason::*;
        match self {
            ClientDenied | DestinationDenied | PortDenied | PurgeDenied => Whom::Rules,
            reason if OF_ORIGIN.contains(&reason) => Whom::Origin,
            Internal | Overloaded => Whom::Ourselves,
            _ => Whom::Client,
        }
    }

    /// One word for the log.
    pub fn as_str(self) -> &'static str {
        use AnswerReason::*;
        match self {
            BadFraming => "bad-framing",
            BadHost => "bad-host",
            BadRequest => "bad-request",
            BadTarget => "bad-target",
            BodyTimeout => "body-timeout",
            BodyTooBroken => "bad-body",
            ClientDenied => "client-denied",
            ConnectTimeout => "connect-timeout",
            ConnectWithContent => "connect-with-content",
            DestinationDenied => "destination-denied",
            DnsError => "dns-error",
            DnsTimeout => "dns-timeout",
            ExpectationFailed => "expectation-failed",
            HeadTooLarge => "head-too-large",
            HeaderTimeout => "header-timeout",
            HttpsTarget => "https-target",
            Internal => "internal",
            Loop => "loop",
            MaxForwards => "max-forwards",
            MethodNotAllowed => "method-not-allowed",
            MethodTooLong => "method-too-long",
            NotAProxyRequest => "not-a-proxy-request",
            NothingToPurge => "nothing-to-purge",
            OnlyIfCached => "only-if-cached",
            OriginClosed => "origin-closed",
            OriginProtocol => "origin-protocol",
            OriginRefused => "origin-refused",
            OriginTimeout => "origin-timeout",
            OriginTooLarge => "origin-too-large",
            OriginUnreachable => "origin-unreachable",
            Overloaded => "overloaded",
            PortDenied => "port-denied",
            PurgeDenied => "purge-denied",
            Purged => "purged",
            PurgedHere => "purged-here",
            TargetTooLong => "target-too-long",
            TraceWithContent => "trace-with-content",
            UnsolicitedUpgrade => "unsolicited-upgrade",
            UnsupportedCoding => "unsupported-coding",
            VersionNotSupported => "version-not-supported",
        }
    }

    /// The same back, of those that are the origin server's doing.
    pub fn of_origin(word: &str) -> Option<AnswerReason> {
        OF_ORIGIN.into_iter().find(|reason| reason.as_str() == word)
    }

    /// What happened, in half a sentence.
    pub fn title(self) -> &'static str {
        self.row().title
    }

    /// The error type of RFC 9209; None where nothing failed.
    pub fn proxy_error(self) -> Option<&'static str> {
        Some(self.row().error).filter(|error| !error.is_empty())
    }
}

impl From<HeadError> for AnswerReason {
    /// For a client's head; an origin server's is `OriginProtocol`.
    fn from(error: HeadError) -> AnswerReason {
        match error {
            HeadError::TargetTooLong => AnswerReason::TargetTooLong,
            HeadError::TooManyFields | HeadError::TooLarge => AnswerReason::HeadTooLarge,
            HeadError::MethodTooLong => AnswerReason::MethodTooLong,
            HeadError::VersionNotSupported => AnswerReason::VersionNotSupported,
            _ => AnswerReason::BadRequest,
        }
    }
}

impl From<FramingError> for AnswerReason {
    fn from(error: FramingError) -> AnswerReason {
        match error {
            FramingError::UnknownCoding => AnswerReason::UnsupportedCoding,
            _ => AnswerReason::BadFraming,
        }
    }
}

impl From<TargetError> for AnswerReason {
    fn from(error: TargetError) -> AnswerReason {
        match error {
            TargetError::HttpsScheme => AnswerReason::HttpsTarget,
            TargetError::HostMissing | TargetError::HostRepeated => AnswerReason::BadHost,
            _ => AnswerReason::BadTarget,
        }
    }
}

/// An answer of our own.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub reason: AnswerReason,
    /// What exactly, for the page and for Proxy-Status.
    pub detail: String,
    /// Fields that this answer has besides, such as Allow or Cache-Status.
    pub fields: Headers,
}

impl Answer {
    pub fn new(reason: AnswerReason, detail: impl Into<String>) -> Answer {
        let row = reason.row();
        let mut fields = Headers::new();
        if let Some(seconds) = row.retry_after {
            fields.push("Retry-After", seconds.to_string().as_bytes());
        }
        if reason == AnswerReason::MethodNotAllowed {
            // RFC 9110 15.5.6: "The origin server MUST generate an Allow header field in a 405 response"
            fields.push(
                "Allow",
                b"GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE, PATCH",
            );
        }
        Answer {
            status: row.status,
            reason,
            detail: detail.into(),
            fields,
        }
    }

    /// Appends the whole response. `head_only` for HEAD, `html` as `wants_html` says, `close` where the
    /// connection ends with it.
    ///
    /// Where nobody has set Cache-Status, it says that the cache was not asked, and why.
    pub fn render(
        &self,
        head_only: bool,
        html: bool,
        now: i64,
        out: &mut Vec<u8>,
        close: bool,
    ) -> u64 {
        let body = if html { self.html() } else { self.text() };
        write_status_line(self.status, phrase(self.status).as_bytes(), out);
        out.extend_from_slice(b"Date: ");
        date::write(now, out);
        out.extend_from_slice(match html {
            true => b"\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: ".as_slice(),
            false => b"\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ",
        });
        write_decimal(body.len() as u64, out);
        out.extend_from_slice(
            b"\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
        );
        if let Some(error) = self.reason.proxy_error() {
            out.extend_from_slice(b"Proxy-Status: ");
            out.extend_from_slice(self.proxy_status(error).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if !self.fields.contains("cache-status") {
            out.extend_from_slice(b"Cache-Status: baton; detail=");
            out.extend_from_slice(self.reason.as_str().as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        self.fields.write(out);
        out.extend_from_slice(match close {
            true => b"Connection: close\r\n\r\n".as_slice(),
            false => b"Connection: keep-alive\r\n\r\n",
        });
        if head_only {
            return 0;
        }
        out.extend_from_slice(body.as_bytes());
        body.len() as u64
    }

    // RFC 9209 2.1: details is a String of RFC 8941: printable ASCII, quotes and backslashes escaped.
    fn proxy_status(&self, error: &str) -> String {
        let mut value = format!("baton; error={error}");
        if !self.detail.is_empty() {
            value.push_str("; details=\"");
            for c in self.detail.chars().take(200) {
                match c {
                    '"' | '\\' => value.extend(['\\', c]),
                    ' '..='~' => value.push(c),
                    _ => value.push('?'),
                }
            }
            value.push('"');
        }
        value
    }

    fn text(&self) -> String {
        let Row { title, remedy, .. } = self.reason.row();
        let detail = if self.detail.is_empty() {
            String::new()
        } else {
            format!(" ({})", printable(&self.detail))
        };
        format!(
            "{} {}\n\n{title}{detail}.\n{remedy}\n\nbaton\n",
            self.status,
            phrase(self.status)
        )
    }

    fn html(&self) -> String {
        let Row { title, remedy, .. } = self.reason.row();
        let detail = match self.detail.is_empty() {
            true => String::new(),
            false => format!("<p><code>{}</code></p>\n", escape(&printable(&self.detail))),
        };
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
             <style>body{{font:16px/1.5 sans-serif;max-width:36em;margin:4em auto;padding:0 1em}}small{{color:#666}}</style>\
             </head><body>\n<h1>{title}</h1>\n{detail}<p>{remedy}</p>\n<p><small>{} {} · baton</small></p>\n</body></html>\n",
            self.status,
            phrase(self.status),
        )
    }
}

fn printable(text: &str) -> String {
    text.chars()
        .take(500)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

/// Whether the client's Accept names HTML: browsers do, programs do not.
pub fn wants_html(request: &Headers) -> bool {
    request.list("accept").any(|range| {
        let kind = range.split(|&c| c == b';').next().unwrap_or_default();
        let kind = super::syntax::trim(kind);
        let refused = String::from_utf8_lossy(range)
            .replace(' ', "")
            .to_ascii_lowercase()
            .ends_with(";q=0");
        (kind.eq_ignore_ascii_case(b"text/html") || kind.eq_ignore_ascii_case(b"text/*"))
            && !refused
    })
}

/// Reason phrases of RFC 9110 section 15, and of the statuses that we make besides.
pub fn phrase(status: u16) -> Cow<'static, str> {
    Cow::Borrowed(match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => "",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{Limits, ResponseHead};

    fn render(answer: &Answer, head_only: bool, html: bool, close: bool) -> (ResponseHead, String) {
        let mut out = Vec::new();
        answer.render(head_only, html, 784_111_777, &mut out, close);
        let mut head = ResponseHead::new();
        let end = head.parse(&out, &Limits::default()).unwrap().unwrap();
        (head, String::from_utf8(out[end..].to_vec()).unwrap())
    }

    #[test]
    fn a_page_says_what_happened_and_what_to_do() {
        let answer = Answer::new(
            AnswerReason::DnsError,
            "no <such> host \"a\\b\" \u{e4}\r\nX: y",
        );
        let (head, body) = render(&answer, false, true, true);
        assert_eq!(head.status, 502);
        assert!(
            body.contains("<h1>The host name was not found</h1>")
                && body.contains("Check the address")
        );
        assert!(
            body.contains("no &lt;such&gt; host &quot;a\\b&quot; \u{e4}??X: y"),
            "{body}"
        );
        let field = |name| String::from_utf8(head.headers.get(name).unwrap().to_vec()).unwrap();
        assert_eq!(
            field("Proxy-Status"),
            "baton; error=dns_error; details=\"no <such> host \\\"a\\\\b\\\" ???X: y\""
        );
        assert_eq!(field("Date"), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(field("Content-Length"), body.len().to_string());
        assert_eq!(
            (field("Cache-Control"), field("Connection")),
            ("no-store".into(), "close".into())
        );
    }

    #[test]
    fn text_for_programs_and_no_body_for_head() {
        let answer = Answer::new(AnswerReason::Overloaded, "");
        let (head, body) = render(&answer, false, false, false);
        assert!(
            body.starts_with(
                "503 Service Unavailable\n\nThe proxy has more work than it can do.\n"
            )
        );
        assert_eq!(head.headers.get("retry-after"), Some(&b"1"[..]));
        let (without, nothing) = render(&answer, true, false, false);
        assert_eq!((without.headers, nothing.as_str()), (head.headers, ""));
        let (head, _) = render(
            &Answer::new(AnswerReason::MethodNotAllowed, ""),
            false,
            false,
            false,
        );
        assert!(head.headers.contains("allow"));
    }

    #[test]
    fn html_only_where_it_is_asked_for() {
        let wants = |accept| wants_html(&[("Accept", accept)].into_iter().collect());
        assert!(wants("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"));
        assert!(wants("Text/HTML ; q=0.1"));
        for accept in ["", "*/*", "application/json", "text/html;q=0"] {
            assert!(!wants(accept), "{accept}");
        }
    }
}
