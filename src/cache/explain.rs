//! Why a request gets what it gets, for people: the freshness arithmetic, the outcome, and the rule behind it.
//!
//! The same functions decide here as for a client (`reuse`, `decide`); this only finds words. `baton explain` shows them.

use super::decide::{AskReason, Decision, Reused, With, decide};
use super::freshness::Source;
use super::part::Selected;
use super::policy::Level;
use super::reuse::{MissReason, RevalidateReason, Verdict, bypass, missing};
use super::stored::Stored;
use super::{CacheStatus, Policy};
use crate::http::RequestHead;

/// RFC 9111 section 4.2, in seconds, as far as what is stored tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arithmetic {
    /// Where the lifetime comes from.
    pub source: Source,
    pub freshness_lifetime: u32,
    /// `max(0, response_time - date_value)`
    pub apparent_age: i64,
    /// `response_time - request_time`
    pub response_delay: i64,
    /// `max(apparent_age, age_value + response_delay)`
    pub corrected_initial_age: u32,
    /// `now - response_time`
    pub resident_time: i64,
    pub current_age: u32,
    /// `freshness_lifetime - current_age`; less than zero: stale for so long.
    pub remaining: i64,
}

/// What a client would see now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub word: &'static str,
    /// A sentence, with the section that has the rule.
    pub why: &'static str,
    /// A second one: what happens beside that.
    pub then: Option<&'static str>,
    pub status: CacheStatus,
}

/// What is found under the key of a request.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    Nothing,
    /// Responses that other requests select.
    Others,
    Selected(&'a Stored),
}

pub fn arithmetic(stored: &Stored, now: i64) -> Arithmetic {
    let times = stored.times;
    Arithmetic {
        source: stored.lifetime.source,
        freshness_lifetime: stored.lifetime.seconds,
        apparent_age: times.response.saturating_sub(stored.date).max(0),
        response_delay: times.response.saturating_sub(times.request).max(0),
        corrected_initial_age: stored.initial_age,
        resident_time: now.saturating_sub(times.response).max(0),
        current_age: stored.age(now),
        remaining: stored.remaining(now),
    }
}

pub fn outcome(request: &RequestHead, found: Found<'_>, policy: &Policy, now: i64) -> Outcome {
    if let Some(reason) = bypass(request, policy) {
        return asked("pass", reason, None);
    }
    let absent = |reason| match missing(request, reason) {
        Verdict::OnlyIfCached => only_if_cached(),
        _ => asked("miss", reason, None),
    };
    match found {
        Found::Nothing => absent(MissReason::NotFound),
        Found::Others => absent(MissReason::Vary),
        Found::Selected(stored) => selected(request, stored, policy, now),
    }
}

fn selected(request: &RequestHead, stored: &Stored, policy: &Policy, now: i64) -> Outcome {
    match decide(request, stored, policy, now) {
        Decision::Serve(octets, reused) => Outcome {
            word: "hit",
            why: match reused {
                Reused::Fresh => "it is fresh (RFC 9111 section 4.2)",
                Reused::MaxStale => {
                    "it is stale, and the request accepts that (max-stale, RFC 9111 section 5.2.1.2)"
                }
            },
            then: described(&octets),
            status: CacheStatus::hit(stored.remaining(now)).because(stored.lifetime.source),
        },
        Decision::ServeAndAsk(..) => Outcome {
            word: "hit",
            why: "it is stale, and may be served while it is revalidated (RFC 5861 section 3)",
            then: Some("the origin server is asked in the background"),
            status: CacheStatus::hit(stored.remaining(now)),
        },
        Decision::OnlyIfCached => only_if_cached(),
        Decision::Ask(ask) => {
            let then = match ask.with {
                With::Conditions => Some("the origin server is asked by the stored validators"),
                With::Part { rest: Some(_) } => Some("the octets that are missing are asked for"),
                With::Part { rest: None } => Some("what comes is joined to the part that is kept"),
                With::Nothing | With::NothingOfIt => None,
            };
            match ask.reason {
                AskReason::Miss(reason) => asked("miss", reason, then),
                AskReason::Revalidate(reason) => Outcome {
                    word: "revalidate",
                    why: why_revalidate(reason),
                    then,
                    status: ask.reason.status(),
                },
            }
        }
    }
}

fn asked(word: &'static str, reason: MissReason, then: Option<&'static str>) -> Outcome {
    Outcome {
        word,
        why: why_miss(reason),
        then,
        status: CacheStatus::miss(reason),
    }
}

fn only_if_cached() -> Outcome {
    Outcome {
        word: "504",
        why: "the origin server would have to be asked, and the request forbids that (only-if-cached, RFC 9111 section 5.2.1.7)",
        then: None,
        status: CacheStatus::default(),
    }
}

fn described(octets: &Selected) -> Option<&'static str> {
    match octets {
        Selected::Spans(_) => Some("206 with the range that is asked for (RFC 9110 section 14)"),
        Selected::Unsatisfiable => {
            Some("416: the range is beyond the end (RFC 9110 section 15.5.17)")
        }
        _ => None,
    }
}

fn why_miss(reason: MissReason) -> &'static str {
    match reason {
        MissReason::Conditional => {
            "If-Match and If-Unmodified-Since are for the origin server (RFC 9110 section 13.1)"
        }
        MissReason::Expired => {
            "it is stale, and has no validator to ask by (RFC 9111 section 4.3.1)"
        }
        MissReason::Method => "only GET and HEAD are answered from the store (RFC 9111 section 4)",
        MissReason::NotFound => "nothing is stored under this key",
        MissReason::Range => {
            "only a part is stored, and it has not all that is asked for (RFC 9111 section 3.3)"
        }
        MissReason::RequestContent => "a request with content is for the origin server",
        MissReason::RequestDirective => {
            "the request wants it fresher, and it has no validator to ask by (RFC 9111 section 5.2.1)"
        }
        MissReason::RequestNoStore => "the request says no-store (RFC 9111 section 5.2.1.5)",
        MissReason::Setting => "a [[cache_rule]] says store = false",
        MissReason::Vary => {
            "what is stored was selected by other request fields (Vary, RFC 9111 section 4.1)"
        }
    }
}

fn why_revalidate(reason: RevalidateReason) -> &'static str {
    match reason {
        RevalidateReason::Clock => "the clock went back behind the time of storing",
        RevalidateReason::Expired => "it is stale (RFC 9111 section 4.2)",
        RevalidateReason::Purged => "it was purged softly: stale since then",
        RevalidateReason::NoCache => {
            "the response says no-cache: never without asking (RFC 9111 section 5.2.2.4)"
        }
        RevalidateReason::RequestMaxAge => {
            "it is older than the request accepts (max-age, RFC 9111 section 5.2.1.1)"
        }
        RevalidateReason::RequestMinFresh => {
            "it is not fresh for as long as the request demands (min-fresh, RFC 9111 section 5.2.1.3)"
        }
        RevalidateReason::RequestNoCache => {
            "the request says no-cache: a reload (RFC 9111 section 5.2.1.4)"
        }
    }
}

impl Source {
    /// For people, with the section that has the rule.
    pub fn describe(self) -> &'static str {
        match self {
            Source::Expires => "Expires (RFC 9111 section 5.3)",
            Source::Heuristic => "a share of the time since Last-Modified (RFC 9111 section 4.2.2)",
            Source::MaxAge => "max-age (RFC 9111 section 5.2.2.1)",
            Source::MaxTtl(Level::Cache) => "bounded by the setting cache.max_ttl",
            Source::MaxTtl(Level::Listener) => "bounded by the listener's max_ttl",
            Source::MaxTtl(Level::Rule) => "bounded by a rule's max_ttl",
            Source::MinTtl(Level::Cache) => "raised by the setting cache.min_ttl",
            Source::MinTtl(Level::Listener) => "raised by the listener's min_ttl",
            Source::MinTtl(Level::Rule) => "raised by a rule's min_ttl",
            Source::Nothing => "the response says nothing",
            Source::SharedMaxAge => "s-maxage (RFC 9111 section 5.2.2.10)",
            Source::Ttl(Level::Cache) => "the setting cache.ttl",
            Source::Ttl(Level::Listener) => "the listener's ttl",
            Source::Ttl(Level::Rule) => "a rule's ttl",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Times;
    use crate::http::{Method, ResponseHead};

    fn stored(fields: &[(&str, &str)]) -> Stored {
        let response = ResponseHead {
            status: 200,
            headers: fields.iter().copied().collect(),
            ..ResponseHead::new()
        };
        let times = Times {
            request: 99,
            response: 101,
        };
        Stored::new(&RequestHead::new(), &response, times, &Policy::default())
    }

    fn told(found: Found<'_>, fields: &[(&str, &str)], now: i64) -> (&'static str, String) {
        let request = RequestHead {
            method: Method::Get,
            headers: fields.iter().copied().collect(),
            ..RequestHead::new()
        };
        let outcome = outcome(&request, found, &Policy::default(), now);
        let mut status = Vec::new();
        outcome.status.write(&mut status);
        (outcome.word, String::from_utf8(status).unwrap())
    }

    #[test]
    fn the_arithmetic_is_that_of_the_rfc() {
        let stored = stored(&[("Cache-Control", "max-age=60"), ("Age", "10")]);
        assert_eq!(
            arithmetic(&stored, 111),
            Arithmetic {
                source: Source::MaxAge,
                freshness_lifetime: 60,
                apparent_age: 0,
                response_delay: 2,
                corrected_initial_age: 12,
                resident_time: 10,
                current_age: 22,
                remaining: 38,
            }
        );
    }

    #[test]
    fn every_outcome_has_the_status_that_a_client_would_see() {
        let minute = stored(&[("Cache-Control", "max-age=60"), ("ETag", "\"a\"")]);
        let found = Found::Selected(&minute);
        for (found, fields, now, word, status) in [
            (found, &[][..], 111, "hit", "baton; hit; ttl=48"),
            (
                found,
                &[("Cache-Control", "no-cache")],
                111,
                "revalidate",
                "baton; fwd=request; detail=request-no-cache",
            ),
            (
                found,
                &[],
                200,
                "revalidate",
                "baton; fwd=stale; detail=expired",
            ),
            (
                found,
                &[("Cache-Control", "no-store")],
                111,
                "pass",
                "baton; fwd=request; detail=request-no-store",
            ),
            (Found::Nothing, &[], 0, "miss", "baton; fwd=uri-miss"),
            (Found::Others, &[], 0, "miss", "baton; fwd=vary-miss"),
            (
                Found::Nothing,
                &[("Cache-Control", "only-if-cached")],
                0,
                "504",
                "baton",
            ),
        ] {
            assert_eq!(
                told(found, fields, now),
                (word, status.to_owned()),
                "{fields:?}"
            );
        }
    }
}
