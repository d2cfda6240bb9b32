//! Stale on purpose: while it is revalidated behind, and where no better answer can be had (RFC 9111 section 4.2.4,
//! RFC 5861).
//!
//! It is asked only about responses that a request selects and that may not be served as they are; `reuse` has said
//! so before.

use super::Policy;
use super::control::CacheControl;
use super::stored::Stored;
use crate::http::Headers;

/// What went wrong at the origin server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No complete head could be had: refused, reset, closed, timed out.
    Unreachable,
    Status(u16),
}

/// Why a stale response is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Excuse {
    /// RFC 5861 section 4, or the operator's setting.
    IfError,
    /// RFC 9111 section 4.2.4.
    Unreachable,
    /// RFC 5861 section 3, or the operator's setting.
    WhileRevalidate,
}

impl Excuse {
    pub fn as_str(self) -> &'static str {
        match self {
            Excuse::IfError => "stale-if-error",
            Excuse::Unreachable => "origin-unreachable",
            Excuse::WhileRevalidate => "stale-while-revalidate",
        }
    }
}

/// RFC 5861 section 3: "caches MAY serve the response in which it appears after it becomes stale, up to the indicated
/// number of seconds", and "SHOULD attempt to revalidate it while still serving stale responses".
pub fn while_revalidate(request: &Headers, stored: &Stored, policy: &Policy, now: i64) -> bool {
    let control = &stored.control;
    let window = control
        .stale_while_revalidate
        .or(silent(control).then_some(policy.stale_while_revalidate));
    let asked = CacheControl::asked(request, policy);
    // The client's own limits are kept: this is no failure.
    let limited = asked.no_cache || asked.max_age.is_some() || asked.min_fresh.is_some();
    !is_strict(control) && !limited && is_within(window, stored, now) && stored.remaining(now) <= 0
}

/// Whether a stale response is better than what a failure would give the client.
pub fn instead_of(
    failure: Failure,
    request: &Headers,
    stored: &Stored,
    policy: &Policy,
    now: i64,
) -> Option<Excuse> {
    let control = &stored.control;
    let asked = CacheControl::asked(request, policy);
    // 4.2.4: "A cache MUST NOT generate a stale response if it is prohibited by an explicit in-protocol directive (e.g.,
    // by a no-cache response directive, a must-revalidate response directive, or an applicable s-maxage or
    // proxy-revalidate response directive". A client that says no-cache wants none either.
    if is_strict(control) || asked.no_cache {
        return None;
    }
    // RFC 5861 section 4: stale-if-error of the response, or of the request.
    let window = control
        .stale_if_error
        .or(asked.stale_if_error)
        .or(silent(control).then_some(policy.stale_if_error));
    // "an error is any situation that would result in a 500, 502, 503, or 504 HTTP response status code being returned"
    let is_error = match failure {
        Failure::Unreachable => true,
        Failure::Status(status) => matches!(status, 500 | 502 | 503 | 504),
    };
    if is_error && is_within(window, stored, now) {
        return Some(Excuse::IfError);
    }
    // 4.2.4: "A cache MUST NOT generate a stale response unless it is disconnected or doing so is explicitly permitted".
    let is_disconnected = failure == Failure::Unreachable;
    (is_disconnected && silent(control)).then_some(Excuse::Unreachable)
}

/// Whether it has been stale for no longer than that; no time at all is none.
fn is_within(window: Option<u32>, stored: &Stored, now: i64) -> bool {
    window.is_some_and(|seconds| seconds > 0 && -stored.remaining(now) <= i64::from(seconds))
}

/// Stale responses are forbidden whatever else is said. `s-maxage` forbids them too, but where the same response
/// grants a time explicitly, that is what its author means: it is how such responses are written.
fn is_strict(control: &CacheControl) -> bool {
    control.no_cache || control.must_revalidate || control.proxy_revalidate
}

/// Nothing in the response forbids what it does not grant.
fn silent(control: &CacheControl) -> bool {
    control.s_maxage.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Times;
    use crate::http::{RequestHead, ResponseHead};

    /// Received at 0.
    fn stored(control: &str) -> Stored {
        let mut response = ResponseHead::new();
        response.status = 200;
        response.headers.push("Cache-Control", control.as_bytes());
        let times = Times {
            request: 0,
            response: 0,
        };
        Stored::new(&RequestHead::new(), &response, times, &Policy::default())
    }

    fn asking(control: &str) -> Headers {
        let mut headers = Headers::new();
        if !control.is_empty() {
            headers.push("Cache-Control", control.as_bytes());
        }
        headers
    }

    #[test]
    fn stale_is_served_while_it_is_revalidated() {
        for (response, request, now, expected) in [
            ("max-age=10, stale-while-revalidate=5", "", 9, false),
            ("max-age=10, stale-while-revalidate=5", "", 10, true),
            ("max-age=10, stale-while-revalidate=5", "", 15, true),
            ("max-age=10, stale-while-revalidate=5", "", 16, false),
            ("max-age=10", "", 10, false),
            ("max-age=10", "", 11, false),
            ("s-maxage=10, stale-while-revalidate=5", "", 11, true),
            (
                "max-age=10, stale-while-revalidate=5, must-revalidate",
                "",
                11,
                false,
            ),
            (
                "max-age=10, stale-while-revalidate=5, no-cache",
                "",
                11,
                false,
            ),
            (
                "max-age=10, stale-while-revalidate=5",
                "no-cache",
                11,
                false,
            ),
            (
                "max-age=10, stale-while-revalidate=5",
                "max-age=0",
                11,
                false,
            ),
        ] {
            let (stored, request) = (stored(response), asking(request));
            let served = while_revalidate(&request, &stored, &Policy::default(), now);
            assert_eq!(served, expected, "{response} at {now}");
        }
        let policy = Policy {
            stale_while_revalidate: 5,
            ..Policy::default()
        };
        let request = asking("");
        assert!(while_revalidate(
            &request,
            &stored("max-age=10"),
            &policy,
            14
        ));
        assert!(!while_revalidate(
            &request,
            &stored("s-maxage=10"),
            &policy,
            14
        ));
    }

    #[test]
    fn stale_is_served_instead_of_a_failure() {
        use Failure::{Status, Unreachable};
        for (response, request, failure, now, expected) in [
            (
                "max-age=10",
                "",
                Unreachable,
                1000,
                Some(Excuse::Unreachable),
            ),
            ("max-age=10", "", Status(500), 11, None),
            ("max-age=10, must-revalidate", "", Unreachable, 11, None),
            ("max-age=10, proxy-revalidate", "", Unreachable, 11, None),
            ("s-maxage=10", "", Unreachable, 11, None),
            ("no-cache", "", Unreachable, 11, None),
            ("max-age=10", "no-cache", Unreachable, 11, None),
            (
                "max-age=10, stale-if-error=5",
                "",
                Status(503),
                15,
                Some(Excuse::IfError),
            ),
            ("max-age=10, stale-if-error=5", "", Status(503), 16, None),
            ("max-age=10, stale-if-error=5", "", Status(501), 11, None),
            ("max-age=10, stale-if-error=5", "", Status(404), 11, None),
            (
                "max-age=10, stale-if-error=5",
                "",
                Unreachable,
                15,
                Some(Excuse::IfError),
            ),
            (
                "s-maxage=10, stale-if-error=5",
                "",
                Status(502),
                11,
                Some(Excuse::IfError),
            ),
            (
                "max-age=10",
                "stale-if-error=5",
                Status(504),
                11,
                Some(Excuse::IfError),
            ),
        ] {
            let (stored, request) = (stored(response), asking(request));
            let excuse = instead_of(failure, &request, &stored, &Policy::default(), now);
            assert_eq!(
                excuse, expected,
                "{response} | {request:?} {failure:?} {now}"
            );
        }
    }
}
