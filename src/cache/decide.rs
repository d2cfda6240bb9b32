//! What is done about a request for which something is stored: served, served while it is asked about, asked for.
//!
//! `reuse` says whether it may be served, `part` which octets a request gets of it, `stale` whether stale will do; this
//! puts the three together. The exchange's lookup carries it out, and `explain` tells it to the operator.

use super::part::{self, Selected};
use super::reuse::{MissReason, RevalidateReason, Verdict, reuse};
use super::stored::Stored;
use super::{CacheStatus, Policy, stale};
use crate::http::RequestHead;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// These octets of it are served, for that reason.
    Serve(Selected, Reused),
    /// Stale as it is: the origin server is asked behind the client's back.
    ServeAndAsk(Selected, Ask),
    /// The origin server is asked first.
    Ask(Ask),
    /// It would have to be asked, which the client forbids: 504.
    OnlyIfCached,
}

/// Why a stored response may be served without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reused {
    Fresh,
    MaxStale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub reason: AskReason,
    pub with: With,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskReason {
    Miss(MissReason),
    Revalidate(RevalidateReason),
}

/// What part the stored response has in the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    /// None; it may be better than a failure.
    Nothing,
    /// None at all: it is not what is asked for.
    NothingOfIt,
    /// Its validators: a 304 makes it fresh again.
    Conditions,
    /// It is a part to which what comes is joined; only the octets from `rest` on are asked for.
    Part { rest: Option<u64> },
}

/// For a request that selects `stored` by Vary.
pub fn decide(request: &RequestHead, stored: &Stored, policy: &Policy, now: i64) -> Decision {
    let selected = part::selected(request, stored);
    let is_here = !matches!(selected, Selected::Rest(_) | Selected::NotHere);
    let may_wait = || stale::while_revalidate(&request.headers, stored, policy, now);
    let ask = |reason, with| Ask { reason, with };
    match reuse(request, stored, policy, now) {
        // RFC 9111 section 3.3: "A cache MUST NOT send a partial response to a client without explicitly marking it using the
        // 206 (Partial Content) status code", and what is missing may be asked for by a range request (3.4).
        Verdict::Fresh { .. } | Verdict::Stale { .. } if !is_here => {
            let rest = selected.rest();
            match super::reuse::missing(request, MissReason::Range) {
                Verdict::OnlyIfCached => Decision::OnlyIfCached,
                _ => Decision::Ask(ask(AskReason::Miss(MissReason::Range), With::Part { rest })),
            }
        }
        Verdict::Fresh { .. } => Decision::Serve(selected, Reused::Fresh),
        Verdict::Stale { .. } => Decision::Serve(selected, Reused::MaxStale),
        Verdict::OnlyIfCached => Decision::OnlyIfCached,
        Verdict::Revalidate(reason) => {
            let reason = AskReason::Revalidate(reason);
            match is_here {
                // To hear that a part is still good does not help where it is not enough.
                false => Decision::Ask(ask(reason, With::Part { rest: None })),
                true if reason.is_expiry() && may_wait() => {
                    Decision::ServeAndAsk(selected, ask(reason, With::Conditions))
                }
                true => Decision::Ask(ask(reason, With::Conditions)),
            }
        }
        Verdict::Miss(reason) => {
            let reason = AskReason::Miss(reason);
            match is_here {
                false => Decision::Ask(ask(reason, With::NothingOfIt)),
                true if reason.is_expiry() && may_wait() => {
                    Decision::ServeAndAsk(selected, ask(reason, With::NothingOfIt))
                }
                true => Decision::Ask(ask(reason, With::Nothing)),
            }
        }
    }
}

impl Reused {
    pub fn as_str(self) -> &'static str {
        match self {
            Reused::Fresh => "fresh",
            Reused::MaxStale => "max-stale",
        }
    }
}

impl AskReason {
    pub fn status(self) -> CacheStatus {
        match self {
            AskReason::Miss(reason) => CacheStatus::miss(reason),
            AskReason::Revalidate(reason) => CacheStatus::revalidated(reason),
        }
    }

    fn is_expiry(self) -> bool {
        matches!(
            self,
            AskReason::Miss(MissReason::Expired)
                | AskReason::Revalidate(RevalidateReason::Expired | RevalidateReason::Purged)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Part, Times};
    use crate::http::range::Span;
    use crate::http::{Method, ResponseHead};

    /// Ten octets, received at 0.
    fn stored(fields: &[(&str, &str)]) -> Stored {
        let response = ResponseHead {
            status: 200,
            headers: fields.iter().copied().collect(),
            ..ResponseHead::new()
        };
        let times = Times {
            request: 0,
            response: 0,
        };
        let mut stored = Stored::new(&RequestHead::new(), &response, times, &Policy::default());
        stored.body_len = 10;
        stored
    }

    fn asking(fields: &[(&str, &str)]) -> RequestHead {
        RequestHead {
            method: Method::Get,
            headers: fields.iter().copied().collect(),
            ..RequestHead::new()
        }
    }

    #[test]
    fn a_whole_response() {
        let minute = ("Cache-Control", "max-age=60, stale-while-revalidate=10");
        let tag = ("ETag", "\"a\"");
        let (with, without) = (stored(&[minute, tag]), stored(&[minute]));
        let decided = |stored: &Stored, fields: &[(&str, &str)], now| {
            decide(&asking(fields), stored, &Policy::default(), now)
        };
        let ask = |reason, with| Ask { reason, with };
        let expired = AskReason::Revalidate(RevalidateReason::Expired);
        let gone = AskReason::Miss(MissReason::Expired);
        assert_eq!(
            decided(&with, &[], 59),
            Decision::Serve(Selected::Whole, Reused::Fresh)
        );
        assert_eq!(
            decided(&with, &[("Cache-Control", "max-stale")], 90),
            Decision::Serve(Selected::Whole, Reused::MaxStale)
        );
        assert_eq!(
            decided(&with, &[], 65),
            Decision::ServeAndAsk(Selected::Whole, ask(expired, With::Conditions))
        );
        assert_eq!(
            decided(&without, &[], 65),
            Decision::ServeAndAsk(Selected::Whole, ask(gone, With::NothingOfIt))
        );
        assert_eq!(
            decided(&with, &[], 71),
            Decision::Ask(ask(expired, With::Conditions))
        );
        assert_eq!(
            decided(&without, &[], 71),
            Decision::Ask(ask(gone, With::Nothing))
        );
        assert_eq!(
            decided(&with, &[("Cache-Control", "only-if-cached")], 71),
            Decision::OnlyIfCached
        );
    }

    #[test]
    fn a_part() {
        let mut part = stored(&[("Cache-Control", "max-age=60"), ("ETag", "\"a\"")]);
        part.keep_as(Part::arrived(0, 4, Some(10), None));
        part.body_len = 4;
        let decided =
            |fields: &[(&str, &str)], now| decide(&asking(fields), &part, &Policy::default(), now);
        let missing = AskReason::Miss(MissReason::Range);
        assert_eq!(
            decided(&[("Range", "bytes=1-2")], 1),
            Decision::Serve(
                Selected::Spans(vec![Span { from: 1, to: 3 }]),
                Reused::Fresh
            )
        );
        assert_eq!(
            decided(&[], 1),
            Decision::Ask(Ask {
                reason: missing,
                with: With::Part { rest: Some(4) }
            })
        );
        assert_eq!(
            decided(&[("Range", "bytes=5-6")], 1),
            Decision::Ask(Ask {
                reason: missing,
                with: With::Part { rest: None }
            })
        );
        assert_eq!(
            decided(&[], 61),
            Decision::Ask(Ask {
                reason: AskReason::Revalidate(RevalidateReason::Expired),
                with: With::Part { rest: None }
            })
        );
    }
}
