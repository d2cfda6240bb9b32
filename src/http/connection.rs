//! What holds for one connection only: keep-alive, hop-by-hop fields, upgrades, expectations.
//!
//! It reads and strips fields; it never adds one. Sessions and the exchange call it, on both sides of a message.

use std::time::Duration;

use super::head::{RequestHead, ResponseHead, Version};
use super::headers::Headers;
use super::syntax::{decimal, trim, unquoted};

/// RFC 9112 section 9.3: whether the connection goes on after this message.
pub fn persists(version: Version, headers: &Headers) -> bool {
    // "If the "close" connection option is present, the connection will not persist after the current response; else, if
    // the received protocol is HTTP/1.1 (or later), the connection will persist after the current response; else, if
    // the received protocol is HTTP/1.0, the "keep-alive" connection option is present [...], the connection will persist"
    !headers.has_token("connection", "close")
        && (version == Version::Http11 || headers.has_token("connection", "keep-alive"))
}

/// Hop-by-hop in both directions, named by Connection or not.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A peer cannot nominate these away: they frame or route the message, say through whom it came, or are meant
/// for every recipient (RFC 9110 section 7.6.1: "A sender MUST NOT send a connection option corresponding to a
/// field that is intended for all recipients of the content").
const END_TO_END: [&str; 34] = [
    "age",
    "authorization",
    "cache-control",
    "cdn-loop",
    "content-encoding",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "forwarded",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "range",
    "set-cookie",
    "transfer-encoding",
    "vary",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];

/// Says field by field what goes on to the next hop.
pub struct EndToEnd {
    nominated: Vec<Vec<u8>>,
    /// What is between a client and its proxy, and so ends here.
    ours: &'static [&'static str],
}

impl EndToEnd {
    /// Proxy-Authorization is consumed.
    pub fn of_request(headers: &Headers) -> EndToEnd {
        EndToEnd {
            nominated: nominated(headers),
            ours: &["proxy-authorization"],
        }
    }

    /// An origin server is nobody's proxy, so its Proxy-Authenticate ends here.
    pub fn of_response(headers: &Headers) -> EndToEnd {
        EndToEnd {
            nominated: nominated(headers),
            ours: &["proxy-authenticate", "proxy-authentication-info"],
        }
    }

    // RFC 9110 7.6.1: "Intermediaries MUST parse a received Connection header field before a message is forwarded and,
    // for each connection-option in this field, remove any header or trailer field(s) from the message with the same
    // name as the connection-option, and then remove the Connection header field itself"
    pub fn keeps(&self, name: &str) -> bool {
        !is_any(name, &HOP_BY_HOP)
            && !is_any(name, self.ours)
            && (self.nominated.is_empty()
                || self
                    .nominated
                    .binary_search(&name.to_ascii_lowercase().into_bytes())
                    .is_err())
    }
}

/// Strips what does not go on.
pub fn strip_request(headers: &mut Headers) {
    let end_to_end = EndToEnd::of_request(headers);
    headers.retain(|name, _| end_to_end.keeps(name));
}

/// Strips what does not go on.
pub fn strip_response(headers: &mut Headers) {
    let end_to_end = EndToEnd::of_response(headers);
    headers.retain(|name, _| end_to_end.keeps(name));
}

/// Names of fields that Connection adds to the fixed ones, in lower case, sorted. Usually none, and then
/// nothing is allocated.
pub fn nominated(headers: &Headers) -> Vec<Vec<u8>> {
    let mut names: Vec<_> = headers
        .list("connection")
        .filter_map(|option| std::str::from_utf8(option).ok())
        .filter(|option| !option.eq_ignore_ascii_case("close"))
        .filter(|option| !is_any(option, &HOP_BY_HOP) && !is_any(option, &END_TO_END))
        .map(|option| option.to_ascii_lowercase().into_bytes())
        .collect();
    names.sort_unstable();
    names
}

/// Whether the field is hop-by-hop, nominated or not.
pub fn is_hop_by_hop(name: &str) -> bool {
    is_any(name, &HOP_BY_HOP)
}

#[inline]
fn is_any(name: &str, names: &[&str]) -> bool {
    let is = |other: &&str| name.len() == other.len() && name.eq_ignore_ascii_case(other);
    names.iter().any(is)
}

/// The protocol that a client asks to change to.
pub fn upgrade(request: &RequestHead) -> Option<&[u8]> {
    // RFC 9110 7.8: "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0 request", and "A sender
    // of Upgrade MUST also send an "Upgrade" connection option"
    if request.version == Version::Http10 || !request.headers.has_token("connection", "upgrade") {
        return None;
    }
    // h2c would carry requests past every rule of ours.
    request.headers.list("upgrade").find(|protocol| {
        let name = protocol.split(|&c| c == b'/').next().unwrap_or_default();
        !name.eq_ignore_ascii_case(b"h2c")
            && !name.eq_ignore_ascii_case(b"h2")
            && !name.eq_ignore_ascii_case(b"http")
    })
}

/// Whether a 101 changes to what the client offered.
pub fn is_agreed_upgrade(request: &RequestHead, response: &ResponseHead) -> bool {
    // RFC 9110 7.8: "A server MUST NOT switch to a protocol that was not indicated by the client in the corresponding
    // request's Upgrade header field."
    let name = |protocol: &[u8]| {
        let end = protocol.iter().position(|&c| c == b'/');
        protocol[..end.unwrap_or(protocol.len())].to_ascii_lowercase()
    };
    let offered = upgrade(request).map(name);
    let mut chosen = response.headers.list("upgrade").map(name);
    offered.is_some() && chosen.next() == offered
}

/// What Expect asks (RFC 9110 section 10.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    None,
    Continue,
    /// 417.
    Unknown,
}

impl Expectation {
    pub fn of(request: &RequestHead) -> Expectation {
        // "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore that expectation."
        let is_continue = |member: &[u8]| member.eq_ignore_ascii_case(b"100-continue");
        match (request.headers.contains("expect"), request.version) {
            (false, _) => Expectation::None,
            (true, version) if request.headers.list("expect").all(is_continue) => match version {
                Version::Http10 => Expectation::None,
                Version::Http11 => Expectation::Continue,
            },
            (true, _) => Expectation::Unknown,
        }
    }
}

/// How long the peer says that it keeps an idle connection (`Keep-Alive: timeout=5, max=100`).
pub fn keep_alive_timeout(headers: &Headers) -> Option<Duration> {
    headers.list("keep-alive").find_map(|member| {
        let equals = unquoted(member, b'=')?;
        let (name, value) = (trim(&member[..equals]), trim(&member[equals + 1..]));
        let value = value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""))
            .unwrap_or(value);
        name.eq_ignore_ascii_case(b"timeout")
            .then(|| decimal(value).map(Duration::from_secs))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> Headers {
        fields.iter().copied().collect()
    }

    #[test]
    fn persistence() {
        use Version::*;
        for (version, connection, expected) in [
            (Http11, "", true),
            (Http11, "foo, CLOSE", false),
            (Http11, "keep-alive, close", false),
            (Http10, "", false),
            (Http10, "Keep-Alive", true),
            (Http10, "keep-alive, close", false),
        ] {
            assert_eq!(
                persists(version, &headers(&[("Connection", connection)])),
                expected,
                "{connection}"
            );
        }
    }

    #[test]
    fn hop_by_hop_fields_go_and_others_cannot_be_nominated_away() {
        let fields = [
            ("Host", "h"),
            (
                "connection",
                "X-Gone, close, Host, content-length,via, X-Forwarded-For",
            ),
            ("Connection", "\"quoted\", cache-control"),
            ("X-GONE", "1"),
            ("Content-Length", "3"),
            ("Via", "1.1 a"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("Cache-Control", "no-cache"),
            ("Keep-Alive", "timeout=3"),
            ("Proxy-Connection", "keep-alive"),
            ("TE", "trailers"),
            ("Upgrade", "websocket"),
            ("HTTP2-Settings", "AA"),
            ("Proxy-Authorization", "Basic x"),
            ("Proxy-Authenticate", "Basic"),
            ("Accept", "*/*"),
        ];
        let names = |headers: &Headers| {
            headers
                .iter()
                .map(|(name, _)| name.to_string())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let mut request = headers(&fields);
        strip_request(&mut request);
        assert_eq!(
            names(&request),
            "Host Content-Length Via X-Forwarded-For Cache-Control Proxy-Authenticate Accept"
        );
        let mut response = headers(&fields);
        strip_response(&mut response);
        assert_eq!(
            names(&response),
            "Host Content-Length Via X-Forwarded-For Cache-Control Proxy-Authorization Accept"
        );
    }

    #[test]
    fn upgrades() {
        let request = |version, connection, protocols| RequestHead {
            version,
            headers: headers(&[("Connection", connection), ("Upgrade", protocols)]),
            ..RequestHead::new()
        };
        for (version, connection, protocols, expected) in [
            (
                Version::Http11,
                "keep-alive, Upgrade",
                "websocket",
                Some(&b"websocket"[..]),
            ),
            (
                Version::Http11,
                "upgrade",
                "h2c, WebSocket/13",
                Some(b"WebSocket/13"),
            ),
            (Version::Http11, "upgrade, HTTP2-Settings", "H2C", None),
            (Version::Http11, "upgrade", "HTTP/2.0", None),
            (Version::Http11, "close", "websocket", None),
            (Version::Http10, "upgrade", "websocket", None),
        ] {
            assert_eq!(
                upgrade(&request(version, connection, protocols)),
                expected,
                "{protocols}"
            );
        }
    }

    #[test]
    fn expectations() {
        let of = |version, fields: &[(&str, &str)]| {
            Expectation::of(&RequestHead {
                version,
                headers: headers(fields),
                ..RequestHead::new()
            })
        };
        assert_eq!(of(Version::Http11, &[]), Expectation::None);
        assert_eq!(
            of(Version::Http11, &[("Expect", "100-Continue")]),
            Expectation::Continue
        );
        assert_eq!(
            of(Version::Http10, &[("Expect", "100-continue")]),
            Expectation::None
        );
        assert_eq!(
            of(Version::Http11, &[("Expect", "100-continue, x=y")]),
            Expectation::Unknown
        );
        assert_eq!(
            of(Version::Http10, &[("Expect", "200-ok")]),
            Expectation::Unknown
        );
    }

    #[test]
    fn keep_alive() {
        let of = |value| keep_alive_timeout(&headers(&[("Keep-Alive", value)]));
        assert_eq!(of("timeout=5, max=100"), Some(Duration::from_secs(5)));
        assert_eq!(of("max=1, Timeout = \"7\""), Some(Duration::from_secs(7)));
        assert_eq!(of("timeout=-1"), None);
        assert_eq!(of("300"), None);
    }
}
