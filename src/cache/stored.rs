//! A response as it is kept: cleaned of what must not be kept, with everything that reuse needs worked out.
//!
//! It has no body, but knows which octets of it are there; stores keep those beside it. The exchange makes one of each response that `storable` lets
//! through.

use super::control::CacheControl;
use super::freshness::{Lifetime, current_age, date_value, initial_age};
use super::part::Part;
use super::storable::Storing;
use super::vary::{Match, Selection};
use super::{Name, Policy, SetCookie, targeted};
use crate::http::conditional::Validators;
use crate::http::etag::EntityTag;
use crate::http::range::Span;
use crate::http::syntax::trim;
use crate::http::{Headers, RequestHead, ResponseHead, connection, date};

/// When the request was sent and when its response's head was there, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub request: i64,
    pub response: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub status: u16,
    pub reason: Vec<u8>,
    /// Without hop-by-hop fields, framing and Age; with Date.
    pub headers: Headers,
    /// The request fields that selected it.
    pub selection: Selection,
    pub times: Times,
    pub lifetime: Lifetime,
    pub initial_age: u32,
    pub control: CacheControl,
    pub last_modified: Option<i64>,
    /// Date, or when it was received.
    pub date: i64,
    /// Purged softly, at that time, seconds since 1970: stale since then, however long it would have been fresh.
    pub purged: Option<i64>,
    /// Octets of the body that are there, once it has come.
    pub body_len: u64,
    /// Which octets those are, where some are missing.
    pub part: Option<Box<Part>>,
}

impl Stored {
    /// For a response that `storable` let through.
    pub fn new(
        request: &RequestHead,
        response: &ResponseHead,
        times: Times,
        policy: &Policy,
    ) -> Stored {
        let storing = Storing::of(response.status, &response.headers, times.response, policy);
        let mut headers = response.headers.clone();
        clean(&mut headers, policy);
        Stored::from_parts(
            request,
            response.status,
            response.reason.clone(),
            headers,
            times,
            storing,
            response,
        )
    }

    /// `headers` is clean; `message` is the response that gives the age.
    pub(super) fn from_parts(
        request: &RequestHead,
        status: u16,
        reason: Vec<u8>,
        mut headers: Headers,
        times: Times,
        storing: Storing,
        message: &ResponseHead,
    ) -> Stored {
        let date = date_value(&message.headers, times.response);
        // RFC 9110 6.6.1: "A recipient with a clock that receives a response message without a Date header field MUST record
        // the time it was received and append a corresponding Date header field to the message's header section if it is
        // cached"
        let mut value = Vec::with_capacity(29);
        date::write(date, &mut value);
        if headers.get("date") != Some(&value) {
            headers.set("Date", &value);
        }
        Stored {
            status,
            reason,
            selection: Selection::of(&request.headers, &headers),
            times,
            lifetime: storing.lifetime,
            initial_age: initial_age(&message.headers, times.request, times.response),
            control: storing.control,
            last_modified: headers
                .get("last-modified")
                .and_then(|value| date::parse_near(trim(value), times.response)),
            date,
            purged: None,
            headers,
            body_len: 0,
            part: None,
        }
    }

    pub fn age(&self, now: i64) -> u32 {
        current_age(self.initial_age, self.times.response, now)
    }

    /// Seconds that it stays fresh; less than zero: that it has been stale.
    pub fn remaining(&self, now: i64) -> i64 {
        let remaining = i64::from(self.lifetime.seconds) - i64::from(self.age(now));
        match self.purged {
            None => remaining,
            Some(since) => remaining.min(since - now).min(0),
        }
    }

    /// What it is called under that key: where nothing selects it, as the key as a whole.
    pub fn name(&self, key: &[u8]) -> Name {
        let name = Name::of(key);
        if self.selection.is_empty() {
            return name;
        }
        let mut selected = Vec::new();
        self.selection.write(&mut selected);
        name.variant(&selected)
    }

    pub fn etag(&self) -> Option<&[u8]> {
        self.headers.get("etag")
    }

    /// For a client's own conditions.
    pub fn validators(&self) -> Validators<'_> {
        Validators {
            etag: self.etag(),
            last_modified: self.last_modified,
            date: self.date,
        }
    }

    /// What If-Range may name (RFC 9110 section 13.1.5).
    pub fn strong_validator(&self) -> Option<&[u8]> {
        match self.etag().and_then(EntityTag::parse) {
            Some(tag) if tag.weak => None,
            Some(_) => self.etag(),
            None => self
                .last_modified
                .filter(|modified| modified + 60 <= self.date)
                .and(self.headers.get("last-modified")),
        }
    }

    /// Whether a request with these fields selects it.
    pub fn matches(&self, request: &Headers) -> Option<Match> {
        self.selection.matches(request, &self.headers)
    }

    pub fn has_validator(&self) -> bool {
        self.headers.contains("etag") || self.headers.contains("last-modified")
    }

    /// What is kept of it is `part`.
    pub fn keep_as(&mut self, part: Part) {
        self.part = (!part.is_whole()).then(|| Box::new(part));
    }

    /// Whether this is a part, and `other` all of it, from no earlier answer.
    pub fn is_less_than(&self, other: &Stored) -> bool {
        self.part.is_some() && other.part.is_none() && other.times.response >= self.times.request
    }

    /// Octets of the whole representation, where it is known.
    pub fn complete(&self) -> Option<u64> {
        match &self.part {
            None => Some(self.body_len),
            Some(part) => part.complete,
        }
    }

    /// Where in the body these octets of the representation begin. None: they are not all there.
    pub fn position(&self, wanted: Span) -> Option<u64> {
        match &self.part {
            None => (wanted.to <= self.body_len).then_some(wanted.from),
            Some(part) => part.position(wanted),
        }
    }

    /// Octets of memory held, for accounts.
    pub fn memory(&self) -> usize {
        let part = self.part.as_ref().map_or(0, |part| part.memory());
        size_of::<Stored>()
            + self.reason.len()
            + self.headers.memory()
            + self.selection.memory()
            + part
    }
}

/// RFC 9111 3.1: what "Caches MUST include [...] except".
pub(super) fn clean(headers: &mut Headers, policy: &Policy) {
    strip_named(headers, policy);
    // "The Connection header field and fields whose names are listed in it are required [...] to be removed before
    // forwarding the message", and "Proxy-Authentication-Info [...], Proxy-Authorization [...], and Proxy-Authenticate"
    connection::strip_response(headers);
    headers.retain(|name, _| match name.len() {
        3 => !name.eq_ignore_ascii_case("age"),
        10 => policy.set_cookie == SetCookie::Store || !name.eq_ignore_ascii_case("set-cookie"),
        14 => !name.eq_ignore_ascii_case("content-length"),
        // Edge Architecture 2.1: it is for surrogates, and "MUST be removed" before clients see it.
        17 => !name.eq_ignore_ascii_case("surrogate-control"),
        19 => !name.eq_ignore_ascii_case("proxy-authorization"),
        _ => true,
    });
}

/// 5.2.2.4: "If a qualified form of no-cache is present, [...] the cache MUST NOT use the listed fields without
/// validation", 5.2.2.7: "a shared cache MUST NOT store the listed fields".
pub(super) fn strip_named(headers: &mut Headers, policy: &Policy) {
    if !targeted::control(headers, policy).names_fields {
        return;
    }
    let mut named = Vec::new();
    targeted::named_fields(headers, policy, |name| {
        named.push(name.to_ascii_lowercase())
    });
    headers.retain(|name, _| {
        name.eq_ignore_ascii_case("cache-control")
            || !named.contains(&name.to_ascii_lowercase().into_bytes())
    });
}

/// The conditions that ask the origin server whether `stored` is still good (RFC 9111 section 4.3.1), in place
/// of the client's own.
pub fn set_conditions(stored: &Stored, headers: &mut Headers) {
    for name in [
        "if-none-match",
        "if-modified-since",
        "if-match",
        "if-unmodified-since",
        "if-range",
    ] {
        headers.remove(name);
    }
    for (name, value) in conditions(stored) {
        headers.push(name, value);
    }
}

/// "One such validator is [...] If-None-Match [...]. Another is the [...] If-Modified-Since"; both where both are.
pub fn conditions(stored: &Stored) -> impl Iterator<Item = (&'static str, &[u8])> {
    let etag = stored.etag().map(|value| ("If-None-Match", value));
    let modified = stored
        .headers
        .get("last-modified")
        .map(|value| ("If-Modified-Since", value));
    etag.into_iter().chain(modified)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cache::storable::storable;

    pub const NOW: i64 = 784_111_777;

    /// A response stored at `NOW`.
    pub fn stored(request: &[(&str, &str)], response: &[(&str, &str)], policy: &Policy) -> Stored {
        let request = RequestHead {
            headers: request.iter().copied().collect(),
            ..RequestHead::new()
        };
        let response = ResponseHead {
            reason: b"OK".to_vec(),
            headers: response.iter().copied().collect(),
            ..ResponseHead::new()
        };
        storable(&request, &response, NOW, policy).unwrap();
        Stored::new(
            &request,
            &response,
            Times {
                request: NOW,
                response: NOW,
            },
            policy,
        )
    }

    fn names(stored: &Stored) -> Vec<&str> {
        stored.headers.iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn what_must_not_be_kept_is_not() {
        let fields = [
            (
                "Cache-Control",
                "max-age=60, private=\"X-Mine\", no-cache=x-also",
            ),
            ("X-Mine", "1"),
            ("X-Also", "1"),
            ("Connection", "X-Hop, close"),
            ("X-Hop", "1"),
            ("Keep-Alive", "timeout=1"),
            ("Proxy-Authenticate", "Basic"),
            ("Proxy-Authentication-Info", "x"),
            ("Proxy-Authorization", "x"),
            ("Set-Cookie", "a=b"),
            ("Age", "5"),
            ("Content-Length", "3"),
            ("Content-Type", "text/plain"),
            ("ETag", "\"a\""),
            ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ];
        let kept = stored(&[], &fields, &Policy::default());
        assert_eq!(
            names(&kept),
            [
                "Cache-Control",
                "Content-Type",
                "ETag",
                "Last-Modified",
                "Date"
            ]
        );
        assert_eq!(
            kept.headers.get("date"),
            Some(&b"Sun, 06 Nov 1994 08:49:37 GMT"[..])
        );
        assert_eq!((kept.age(NOW + 3), kept.remaining(NOW + 3)), (8, 52));
        assert_eq!(kept.last_modified, Some(NOW));
        let policy = Policy {
            set_cookie: SetCookie::Store,
            ..Policy::default()
        };
        assert!(names(&stored(&[], &fields, &policy)).contains(&"Set-Cookie"));
        let mut headers: Headers = [
            ("Host", "x"),
            ("If-None-Match", "\"z\""),
            ("If-Range", "\"z\""),
        ]
        .into_iter()
        .collect();
        set_conditions(&kept, &mut headers);
        let fields: Vec<_> = headers.iter().map(|(name, _)| name).collect();
        assert_eq!(fields, ["Host", "If-None-Match", "If-Modified-Since"]);
        assert_eq!(headers.get("if-none-match"), Some(&b"\"a\""[..]));
    }

    #[test]
    fn an_invalid_date_is_replaced() {
        let kept = stored(
            &[],
            &[("Date", "yesterday"), ("Cache-Control", "max-age=60")],
            &Policy::default(),
        );
        assert_eq!(
            kept.headers.get("date"),
            Some(&b"Sun, 06 Nov 1994 08:49:37 GMT"[..])
        );
    }
}
