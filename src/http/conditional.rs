//! A client's conditions on a stored response (RFC 9110 section 13, RFC 9111 section 4.3.2).
//!
//! Only those that a cache may evaluate: If-None-Match and If-Modified-Since. If-Match and
//! If-Unmodified-Since are the origin server's; `needs_origin` tells. The cache rules and deliver call it.

use super::date;
use super::etag::{self, EntityTag};
use super::headers::Headers;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client's own copy is good: 304.
    NotModified,
    Proceed,
}

/// What the conditions are evaluated against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validators<'a> {
    /// The ETag value as stored.
    pub etag: Option<&'a [u8]>,
    /// Last-Modified in seconds since 1970.
    pub last_modified: Option<i64>,
    /// Date of the stored response, or when it was received.
    pub date: i64,
}

/// For GET and HEAD, on a response that would be 200.
pub fn evaluate(request: &Headers, stored: &Validators<'_>) -> Outcome {
    // RFC 9110 13.2.2: "When recipient is a cache [...] if If-None-Match is present, evaluate", and 13.1.3: "A recipient
    // MUST ignore If-Modified-Since if the request contains an If-None-Match header field"
    if request.contains("if-none-match") {
        return match none_match(request, stored.etag) {
            true => Outcome::Proceed,
            false => Outcome::NotModified,
        };
    }
    let mut since = request.get_all("if-modified-since");
    // 13.1.3: "A recipient MUST ignore the If-Modified-Since header field if the received field value is not a valid
    // HTTP-date, the field value has more than one member"
    let (Some(value), None) = (since.next(), since.next()) else {
        return Outcome::Proceed;
    };
    let Some(since) = date::parse_near(value, stored.date) else {
        return Outcome::Proceed;
    };
    // RFC 9111 4.3.2: "If-Modified-Since [...] the cache SHOULD use the stored Last-Modified; if there is none, Date; if
    // there is none, the time when the stored response was received."
    match stored.last_modified.unwrap_or(stored.date) <= since {
        true => Outcome::NotModified,
        false => Outcome::Proceed,
    }
}

/// Whether If-None-Match holds, so that the request is to be carried out.
fn none_match(request: &Headers, stored: Option<&[u8]>) -> bool {
    let stored = stored.and_then(EntityTag::parse);
    request.get_all("if-none-match").all(|value| {
        // 13.1.2: "If the field value is "*", the condition is false if the origin server has a current representation for
        // the target resource." A list: "false if one of the listed tags matches", by weak comparison.
        value != b"*"
            && !stored.is_some_and(|stored| etag::list(value).any(|tag| tag.weak_eq(stored)))
    })
}

/// Whether a Range field counts: there is no If-Range, or it names the stored response for certain.
pub fn if_range_holds(request: &Headers, stored: &Validators<'_>) -> bool {
    let mut lines = request.get_all("if-range");
    let Some(value) = lines.next() else {
        return true;
    };
    if lines.next().is_some() {
        return false;
    }
    // RFC 9110 13.1.5: "If the validator given is an entity tag [...] the comparison is by the strong comparison function".
    if let Some(tag) = EntityTag::parse(value) {
        let stored = stored.etag.and_then(EntityTag::parse);
        return stored.is_some_and(|stored| tag.strong_eq(stored));
    }
    // "If the HTTP-date validator provided is not a strong validator in the sense defined by Section 8.8.2.2, the
    // condition is false", and otherwise it must be "exactly" the Last-Modified. 8.8.2.2: it is strong where it is "at
    // least one second earlier" than Date, and sixty are meant to be on the safe side.
    let given = date::parse_near(value, stored.date);
    given.is_some()
        && given == stored.last_modified
        && given.is_some_and(|given| given + 60 <= stored.date)
}

/// Whether the client has set a condition that is evaluated at the origin server only.
pub fn needs_origin(request: &Headers) -> bool {
    request.contains("if-match") || request.contains("if-unmodified-since")
}

/// Whether the client has set a condition of any kind.
pub fn is_conditional(request: &Headers) -> bool {
    [
        "if-none-match",
        "if-modified-since",
        "if-match",
        "if-unmodified-since",
        "if-range",
    ]
    .iter()
    .any(|name| request.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sunday, 06-Nov-94 08:49:38 GMT";
    const EARLIER: &str = "Sun Nov  6 08:49:36 1994";

    type Row = (
        &'static [(&'static str, &'static str)],
        Option<&'static [u8]>,
        Option<i64>,
        Outcome,
    );

    #[test]
    fn conditions() {
        use Outcome::*;
        let etag = Some(&b"W/\"a\""[..]);
        let modified = date::parse(LAST.as_bytes());
        let table: &[Row] = &[
            (&[], etag, modified, Proceed),
            (&[("If-None-Match", "\"a\"")], etag, modified, NotModified),
            (
                &[("If-None-Match", "\"b\", W/\"a\"")],
                etag,
                modified,
                NotModified,
            ),
            (
                &[("If-None-Match", "\"b\""), ("If-None-Match", "\"a\"")],
                etag,
                modified,
                NotModified,
            ),
            (&[("If-None-Match", "\"b\"")], etag, modified, Proceed),
            (&[("If-None-Match", "\"a\"")], None, modified, Proceed),
            (&[("If-None-Match", "*")], None, None, NotModified),
            (
                &[("If-None-Match", "\"b\""), ("If-Modified-Since", LATER)],
                etag,
                modified,
                Proceed,
            ),
            (&[("If-Modified-Since", LAST)], etag, modified, NotModified),
            (&[("If-Modified-Since", LATER)], etag, modified, NotModified),
            (&[("If-Modified-Since", EARLIER)], etag, modified, Proceed),
            (
                &[("If-Modified-Since", "yesterday")],
                etag,
                modified,
                Proceed,
            ),
            (
                &[("If-Modified-Since", LAST), ("If-Modified-Since", LAST)],
                etag,
                modified,
                Proceed,
            ),
            (&[("If-Modified-Since", LATER)], etag, None, NotModified),
            (&[("If-Modified-Since", EARLIER)], etag, None, Proceed),
        ];
        for (fields, etag, last_modified, expected) in table {
            let headers = fields.iter().copied().collect();
            let date = date::parse(LAST.as_bytes()).unwrap();
            let stored = Validators {
                etag: *etag,
                last_modified: *last_modified,
                date,
            };
            assert_eq!(evaluate(&headers, &stored), *expected, "{fields:?}");
        }
    }

    #[test]
    fn conditions_for_the_origin_server() {
        let headers = |name| [(name, "x")].into_iter().collect::<Headers>();
        assert!(
            needs_origin(&headers("If-Match")) && needs_origin(&headers("if-unmodified-since"))
        );
        assert!(!needs_origin(&headers("If-None-Match")) && is_conditional(&headers("If-Range")));
    }
}
