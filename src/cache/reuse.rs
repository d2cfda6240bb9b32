//! May a stored response answer this request now (RFC 9111 section 4)? A verdict with its reason.
//!
//! A request without cache fields costs no allocation. That the stored response was
//! selected by Vary is for the store to have seen to. The exchange's lookup calls it.

use super::control::{CacheControl, pragma_no_cache};
use super::policy::Policy;
use super::storable::has_content;
use super::stored::Stored;
use crate::http::{Headers, Method, RequestHead};

/// How far a clock may seem to go back, between two processes or two moments, before we stop believing it.
const CLOCK_TOLERANCE: i64 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it, with that Age.
    Fresh { age: u32 },
    /// The client said that stale will do: serve it, with that Age.
    Stale { age: u32 },
    /// Ask the origin server whether it is still good (`set_conditions`).
    Revalidate(RevalidateReason),
    /// Forward the request as if nothing were stored.
    Miss(MissReason),
    /// The request must not be forwarded: 504.
    OnlyIfCached,
}

/// Why a stored response is not served unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RevalidateReason {
    /// The clock went back behind the time of storing.
    Clock,
    Expired,
    NoCache,
    /// It was purged softly.
    Purged,
    RequestMaxAge,
    RequestMinFresh,
    RequestNoCache,
}

/// Why the cache has no part in the answer, or nothing for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MissReason {
    /// If-Match or If-Unmodified-Since: for the origin server.
    Conditional,
    /// Stale, with nothing to revalidate it by.
    Expired,
    Method,
    NotFound,
    /// Octets are asked for that are not there.
    Range,
    RequestContent,
    /// A request directive asks for more than the stored response can give, and nothing is there to revalidate by.
    RequestDirective,
    RequestNoStore,
    /// The operator's rule says `store = false`.
    Setting,
    /// Something is stored under the key, selected by other request fields.
    Vary,
}

impl RevalidateReason {
    pub fn as_str(self) -> &'static str {
        match self {
            RevalidateReason::Clock => "clock",
            RevalidateReason::Expired => "expired",
            RevalidateReason::NoCache => "no-cache",
            RevalidateReason::Purged => "purged",
            RevalidateReason::RequestMaxAge => "request-max-age",
            RevalidateReason::RequestMinFresh => "request-min-fresh",
            RevalidateReason::RequestNoCache => "request-no-cache",
        }
    }

    fn is_the_requests(self) -> bool {
        matches!(
            self,
            RevalidateReason::RequestMaxAge
                | RevalidateReason::RequestMinFresh
                | RevalidateReason::RequestNoCache
        )
    }
}

impl MissReason {
    pub fn as_str(self) -> &'static str {
        match self {
            MissReason::Conditional => "conditional",
            MissReason::Expired => "expired",
            MissReason::Method => "method",
            MissReason::NotFound => "not-found",
            MissReason::Range => "range",
            MissReason::RequestContent => "request-content",
            MissReason::RequestDirective => "request-directive",
            MissReason::RequestNoStore => "request-no-store",
            MissReason::Setting => "store-rule",
            MissReason::Vary => "vary",
        }
    }
}

/// Whether the cache has a part in a request at all; asked before the store is.
pub fn bypass(request: &RequestHead, policy: &Policy) -> Option<MissReason> {
    if !matches!(request.method, Method::Get | Method::Head) {
        return Some(MissReason::Method);
    }
    if !policy.store {
        return Some(MissReason::Setting);
    }
    let asked = Asked::by(&request.headers);
    asked.bypass(&request.headers)
}

/// What to do where nothing is stored that the request selects.
pub fn missing(request: &RequestHead, reason: MissReason) -> Verdict {
    // 5.2.1.7: "The only-if-cached request directive indicates that the client only wishes to obtain a stored response.
    // Caches that honor this request directive SHOULD, upon receiving it, respond with [...] a 504 (Gateway Timeout)"
    match request.headers.contains("cache-control")
        && CacheControl::of(&request.headers).only_if_cached
    {
        true => Verdict::OnlyIfCached,
        false => Verdict::Miss(reason),
    }
}

pub fn reuse(request: &RequestHead, stored: &Stored, policy: &Policy, now: i64) -> Verdict {
    if !matches!(request.method, Method::Get | Method::Head) {
        return Verdict::Miss(MissReason::Method);
    }
    let asked = Asked::by(&request.headers);
    if let Some(reason) = asked.bypass(&request.headers) {
        return Verdict::Miss(reason);
    }
    let control = match asked.control {
        true => CacheControl::asked(&request.headers, policy),
        false => CacheControl::default(),
    };
    let pragma = asked.pragma
        && !asked.control
        && !policy.ignore_reload
        && pragma_no_cache(&request.headers);
    let age = stored.age(now);
    let reason = match obstacle(stored, &control, pragma, age, now) {
        None if stored.remaining(now) > 0 => return Verdict::Fresh { age },
        None => return Verdict::Stale { age },
        Some(reason) => reason,
    };
    match (control.only_if_cached, stored.has_validator()) {
        (true, _) => Verdict::OnlyIfCached,
        (false, true) => Verdict::Revalidate(reason),
        (false, false) if reason.is_the_requests() => Verdict::Miss(MissReason::RequestDirective),
        (false, false) => Verdict::Miss(MissReason::Expired),
    }
}

/// What keeps the response from being served without asking.
fn obstacle(
    stored: &Stored,
    control: &CacheControl,
    pragma: bool,
    age: u32,
    now: i64,
) -> Option<RevalidateReason> {
    // "the stored response does not contain the no-cache directive, unless it is successfully validated"
    if stored.control.no_cache {
        return Some(RevalidateReason::NoCache);
    }
    // 5.2.1.4: "The no-cache request directive indicates that the client prefers a stored response not be used to satisfy
    // the request without successful validation on the origin server."
    if control.no_cache || pragma {
        return Some(RevalidateReason::RequestNoCache);
    }
    if now < stored.times.response - CLOCK_TOLERANCE {
        return Some(RevalidateReason::Clock);
    }
    // 5.2.1.1: "the client prefers a response whose age is less than or equal to the specified number of seconds". Zero
    // is how a browser says reload, so that even what came this very second is asked about.
    if control
        .max_age
        .is_some_and(|seconds| age > seconds || seconds == 0)
    {
        return Some(RevalidateReason::RequestMaxAge);
    }
    let remaining = stored.remaining(now);
    // 5.2.1.3: "the client prefers a response whose freshness lifetime is no less than its current age plus the specified
    // time in seconds"
    if control
        .min_fresh
        .is_some_and(|seconds| remaining < i64::from(seconds))
    {
        return Some(RevalidateReason::RequestMinFresh);
    }
    // 4.2: "response_is_fresh = (freshness_lifetime > current_age)"
    if remaining > 0 {
        return None;
    }
    // 5.2.1.2: max-stale: "the client will accept a response that has exceeded its freshness lifetime [...] by no more
    // than the specified number of seconds", where the response does not forbid it (4.2.4).
    let tolerated = !stored.control.forbids_stale()
        && control
            .max_stale
            .is_some_and(|seconds| -remaining <= i64::from(seconds));
    let reason = match stored.purged {
        Some(_) => RevalidateReason::Purged,
        None => RevalidateReason::Expired,
    };
    (!tolerated).then_some(reason)
}

/// Which fields that matter here a request has.
#[derive(Clone, Copy)]
struct Asked {
    control: bool,
    pragma: bool,
    /// If-Match, If-Unmodified-Since.
    for_origin: bool,
    /// Content-Length or Transfer-Encoding.
    content: bool,
}

impl Asked {
    fn by(headers: &Headers) -> Asked {
        Asked {
            control: headers.contains("cache-control"),
            pragma: headers.contains("pragma"),
            for_origin: headers.contains("if-match") || headers.contains("if-unmodified-since"),
            content: headers.contains("content-length") || headers.contains("transfer-encoding"),
        }
    }

    fn bypass(&self, headers: &Headers) -> Option<MissReason> {
        if self.content && has_content(headers) {
            return Some(MissReason::RequestContent);
        }
        if self.for_origin {
            return Some(MissReason::Conditional);
        }
        (self.control && CacheControl::of(headers).no_store).then_some(MissReason::RequestNoStore)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::stored::tests::{NOW, stored};

    fn ask(stored: &Stored, request: &[(&str, &str)], now: i64) -> Verdict {
        let request = RequestHead {
            headers: request.iter().copied().collect(),
            ..RequestHead::new()
        };
        reuse(&request, stored, &Policy::default(), now)
    }

    fn with(control: &str) -> Stored {
        stored(
            &[],
            &[("Cache-Control", control), ("ETag", "\"a\"")],
            &Policy::default(),
        )
    }

    #[test]
    fn time_alone() {
        let minute = with("max-age=60");
        for (now, expected) in [
            (NOW, Verdict::Fresh { age: 0 }),
            (NOW + 59, Verdict::Fresh { age: 59 }),
            (NOW + 60, Verdict::Revalidate(RevalidateReason::Expired)),
            (NOW - 5, Verdict::Fresh { age: 0 }),
            (NOW - 86_400, Verdict::Revalidate(RevalidateReason::Clock)),
        ] {
            assert_eq!(ask(&minute, &[], now), expected, "{now}");
        }
        let plain = stored(&[], &[("Cache-Control", "max-age=60")], &Policy::default());
        assert_eq!(
            ask(&plain, &[], NOW + 60),
            Verdict::Miss(MissReason::Expired)
        );
        let aged = stored(
            &[],
            &[("Cache-Control", "max-age=60"), ("Age", "58")],
            &Policy::default(),
        );
        assert_eq!(ask(&aged, &[], NOW + 1), Verdict::Fresh { age: 59 });
        assert_eq!(ask(&aged, &[], NOW + 2), Verdict::Miss(MissReason::Expired));
        assert_eq!(
            ask(&with("no-cache, max-age=60"), &[], NOW),
            Verdict::Revalidate(RevalidateReason::NoCache)
        );
    }

    #[test]
    fn what_is_purged_softly_is_stale_at_once_and_no_fresher_for_it() {
        let purged = |control: &str, at| Stored {
            purged: Some(at),
            ..with(control)
        };
        let hour = purged("max-age=3600", NOW + 10);
        let revalidate = Verdict::Revalidate(RevalidateReason::Purged);
        // Another machine's clock may be ahead of ours.
        for now in [NOW + 5, NOW + 10, NOW + 20, NOW + 4000] {
            assert_eq!(ask(&hour, &[], now), revalidate, "{now}");
        }
        assert_eq!(hour.remaining(NOW + 30), -20);
        let minute = purged("max-age=60", NOW + 100);
        assert_eq!(minute.remaining(NOW + 100), -40, "it was stale already");
        let max_stale = [("Cache-Control", "max-stale=60")];
        assert_eq!(ask(&hour, &max_stale, NOW + 20), Verdict::Stale { age: 20 });
        let plain = Stored {
            purged: Some(NOW),
            ..stored(&[], &[("Cache-Control", "max-age=60")], &Policy::default())
        };
        assert_eq!(ask(&plain, &[], NOW), Verdict::Miss(MissReason::Expired));
    }

    #[test]
    fn request_directives() {
        use RevalidateReason::*;
        use Verdict::*;
        let cc = |value| ("Cache-Control", value);
        let minute = with("max-age=60");
        for (fields, now, expected) in [
            (&[cc("no-cache")][..], NOW, Revalidate(RequestNoCache)),
            (&[("Pragma", "no-cache")], NOW, Revalidate(RequestNoCache)),
            (
                &[("Pragma", "no-cache"), cc("max-age=100")],
                NOW,
                Fresh { age: 0 },
            ),
            (&[cc("no-store")], NOW, Miss(MissReason::RequestNoStore)),
            (&[cc("max-age=0")], NOW, Revalidate(RequestMaxAge)),
            (&[cc("max-age=10")], NOW + 10, Fresh { age: 10 }),
            (&[cc("max-age=10")], NOW + 11, Revalidate(RequestMaxAge)),
            (&[cc("min-fresh=50")], NOW + 10, Fresh { age: 10 }),
            (&[cc("min-fresh=50")], NOW + 11, Revalidate(RequestMinFresh)),
            (&[cc("max-stale")], NOW + 1000, Stale { age: 1000 }),
            (&[cc("max-stale=10")], NOW + 70, Stale { age: 70 }),
            (&[cc("max-stale=10")], NOW + 71, Revalidate(Expired)),
            (&[cc("max-stale=x")], NOW + 71, Revalidate(Expired)),
            (&[cc("only-if-cached")], NOW, Fresh { age: 0 }),
            (&[cc("only-if-cached")], NOW + 60, OnlyIfCached),
            (&[cc("only-if-cached, no-cache")], NOW, OnlyIfCached),
            (&[("Range", "bytes=0-1")], NOW, Fresh { age: 0 }),
            (&[("If-Match", "*")], NOW, Miss(MissReason::Conditional)),
            (&[("If-None-Match", "*")], NOW, Fresh { age: 0 }),
            (
                &[("Content-Length", "1")],
                NOW,
                Miss(MissReason::RequestContent),
            ),
            (&[("Content-Length", "0")], NOW, Fresh { age: 0 }),
            (
                &[("Cookie", "a"), ("Authorization", "b")],
                NOW,
                Fresh { age: 0 },
            ),
        ] {
            assert_eq!(ask(&minute, fields, now), expected, "{fields:?} {now}");
        }
        for strict in [
            "max-age=60, must-revalidate",
            "max-age=60, proxy-revalidate",
            "s-maxage=60",
        ] {
            assert_eq!(
                ask(&with(strict), &[cc("max-stale")], NOW + 61),
                Revalidate(Expired),
                "{strict}"
            );
        }
        let plain = stored(&[], &[("Cache-Control", "max-age=60")], &Policy::default());
        assert_eq!(
            ask(&plain, &[cc("no-cache")], NOW),
            Miss(MissReason::RequestDirective)
        );
    }

    #[test]
    fn a_reload_may_be_ignored() {
        let policy = Policy {
            ignore_reload: true,
            ..Policy::default()
        };
        let minute = with("max-age=60");
        for (field, expected) in [
            (("Cache-Control", "no-cache"), Verdict::Fresh { age: 10 }),
            (("Cache-Control", "max-age=0"), Verdict::Fresh { age: 10 }),
            (("Pragma", "no-cache"), Verdict::Fresh { age: 10 }),
            (
                ("Cache-Control", "max-age=5"),
                Verdict::Revalidate(RevalidateReason::RequestMaxAge),
            ),
            (
                ("Cache-Control", "no-cache, no-store"),
                Verdict::Miss(MissReason::RequestNoStore),
            ),
        ] {
            let request = RequestHead {
                headers: [field].into_iter().collect(),
                ..RequestHead::new()
            };
            let found = reuse(&request, &minute, &policy, NOW + 10);
            assert_eq!(found, expected, "{field:?}");
        }
    }

    #[test]
    fn without_anything_stored() {
        let policy = Policy::default();
        let request = |method, fields: &[(&str, &str)]| RequestHead {
            method,
            headers: fields.iter().copied().collect(),
            ..RequestHead::new()
        };
        assert_eq!(
            bypass(&request(Method::Post, &[]), &policy),
            Some(MissReason::Method)
        );
        assert_eq!(bypass(&request(Method::Head, &[]), &policy), None);
        let range = request(Method::Get, &[("Range", "x")]);
        assert_eq!(bypass(&range, &policy), None);
        let never = Policy {
            store: false,
            ..Policy::default()
        };
        assert_eq!(bypass(&range, &never), Some(MissReason::Setting));
        let plain = request(Method::Get, &[]);
        assert_eq!(
            missing(&plain, MissReason::Vary),
            Verdict::Miss(MissReason::Vary)
        );
        let only = request(Method::Get, &[("Cache-Control", "only-if-cached")]);
        assert_eq!(missing(&only, MissReason::NotFound), Verdict::OnlyIfCached);
    }
}
