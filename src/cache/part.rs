//! Parts of representations: which octets of one are kept, and what they answer (RFC 9111 sections 3.3 and 3.4).
//!
//! A part is stored as the 200 that it belongs to, with a map of the octets that are there. It decides which octets
//! answer a request and which are missing, and how two parts become one; it moves none.

use super::stored::Stored;
use crate::http::conditional;
use crate::http::etag::EntityTag;
use crate::http::range::{self, Asked, ContentRange, Ranges, Span};
use crate::http::{Headers, Method, RequestHead, ResponseHead};

/// Spans kept of one representation; beyond, what came last is kept alone.
const MOST_SPANS: usize = 64;

/// What is there of a representation that is not whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// In order and apart from each other; the body has them one behind the other.
    pub spans: Vec<Span>,
    /// Octets of the whole representation, where it is known.
    pub complete: Option<u64>,
    /// The Range field that got it, which it answers however it is meant.
    pub asked: Option<Box<[u8]>>,
}

/// What of a stored response answers a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selected {
    Whole,
    /// 206 with these octets.
    Spans(Vec<Span>),
    /// 416.
    Unsatisfiable,
    /// All is asked for, and the octets from here on are missing.
    Rest(u64),
    /// Octets are missing.
    NotHere,
}

impl Selected {
    /// From which octet on a request for the rest would make it whole.
    pub fn rest(&self) -> Option<u64> {
        match self {
            Selected::Rest(from) => Some(*from),
            _ => None,
        }
    }
}

/// What a request gets from a stored response that it selects.
pub fn selected(request: &RequestHead, stored: &Stored) -> Selected {
    // RFC 9110 section 14.2: "A server MUST ignore a Range header field received with a request method that is
    // unrecognized or for which range handling is not defined. For this specification, GET is the only method".
    if request.method != Method::Get {
        // A HEAD is told the length of the whole, which a part may not know.
        return match stored.complete() {
            Some(_) => Selected::Whole,
            None => Selected::NotHere,
        };
    }
    let mut lines = request.headers.get_all("range");
    let range = match (lines.next(), lines.next()) {
        (Some(range), None) => Some(range),
        _ => None,
    };
    let holds = || conditional::if_range_holds(&request.headers, &stored.validators());
    select(range.filter(|_| holds()), stored)
}

/// What a GET with this Range field, if it has one that counts, gets from a stored response.
fn select(range: Option<&[u8]>, stored: &Stored) -> Selected {
    let part = stored.part.as_deref();
    // RFC 9110 section 14.2: "The Range header field is evaluated after evaluating the precondition header fields [...],
    // and only if the result in absence of the Range header field would be a 200 (OK) response."
    let asked = range.filter(|_| stored.status == 200);
    let parsed = asked.and_then(range::parse);
    match (parsed, part) {
        (None, None) => Selected::Whole,
        (None, Some(part)) => part.rest(),
        (Some(parsed), None) => match range::resolve(&parsed, stored.body_len) {
            Ranges::Parts(spans) => Selected::Spans(spans),
            Ranges::Unsatisfiable => Selected::Unsatisfiable,
        },
        (Some(parsed), Some(part)) => part.select(asked.unwrap_or_default(), &parsed),
    }
}

// === impl Part

impl Part {
    /// One that has arrived in answer to the Range field `asked`: so many octets, the first of them at `first`.
    pub fn arrived(first: u64, octets: u64, complete: Option<u64>, asked: Option<&[u8]>) -> Part {
        let to = first.saturating_add(octets);
        Part {
            spans: vec![Span { from: first, to }],
            complete,
            asked: asked.map(Box::from),
        }
    }

    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        matches!((self.spans.as_slice(), self.complete), ([span], Some(complete)) if span.from == 0 && span.to == complete)
    }

    fn select(&self, value: &[u8], asked: &[Asked]) -> Selected {
        if let (Some(same), [span]) = (&self.asked, self.spans.as_slice())
            && **same == *value
        {
            return Selected::Spans(vec![*span]);
        }
        let ranges = match self.complete {
            Some(complete) => range::resolve(asked, complete),
            // Where the end is not known, only what is counted from the start means anything.
            None if asked.iter().all(|one| matches!(one, Asked::Between(..))) => {
                range::resolve(asked, u64::MAX)
            }
            None => return Selected::NotHere,
        };
        match ranges {
            Ranges::Unsatisfiable => Selected::Unsatisfiable,
            Ranges::Parts(spans) if spans.iter().all(|span| self.position(*span).is_some()) => {
                Selected::Spans(spans)
            }
            Ranges::Parts(_) => Selected::NotHere,
        }
    }

    fn rest(&self) -> Selected {
        match self.spans.as_slice() {
            [span] if span.from == 0 => Selected::Rest(span.to),
            _ => Selected::NotHere,
        }
    }

    /// Where in the body these octets of the representation begin. None: they are not all there.
    pub fn position(&self, wanted: Span) -> Option<u64> {
        let mut before = 0;
        for span in &self.spans {
            if span.holds(wanted) {
                return Some(before + (wanted.from - span.from));
            }
            before += span.len();
        }
        None
    }

    /// The octets that are there, and where in the body each span begins.
    fn positions(&self) -> impl Iterator<Item = (Span, u64)> {
        self.spans.iter().scan(0, |before, span| {
            let at = *before;
            *before += span.len();
            Some((*span, at))
        })
    }

    /// Octets of memory held, for accounts.
    pub fn memory(&self) -> usize {
        size_of::<Part>()
            + self.spans.capacity() * size_of::<Span>()
            + self.asked.as_ref().map_or(0, |asked| asked.len())
    }
}

// === storing

/// A 206 as the 200 that it is a part of, and which part. None: several parts, or none that can be made out.
pub fn of_response(response: &ResponseHead) -> Option<(ResponseHead, ContentRange)> {
    let mut lines = response.headers.get_all("content-range");
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return None;
    };
    let range = ContentRange::parse(line)?;
    let mut whole = ResponseHead {
        status: 200,
        reason: b"OK".to_vec(),
        ..response.clone()
    };
    whole.headers.remove("content-range");
    Some((whole, range))
}

/// Octets that a stored part has and a new one has not: what lies before it and what lies behind it, as spans of the
/// representation with their places in the stored body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    pub before: Vec<(Span, u64)>,
    pub after: Vec<(Span, u64)>,
}

impl Others {
    pub fn octets(&self) -> u64 {
        let all = self.before.iter().chain(&self.after);
        all.map(|(span, _)| span.len()).sum()
    }
}

/// What a stored part adds to a new response with the octets `new`.
///
/// RFC 9111 section 3.4: "A response might transfer only a partial representation [...]. If all of the responses share
/// the same strong validator [...], a cache MAY combine them".
pub fn others(old: &Stored, new_headers: &Headers, new: ContentRange) -> Others {
    let mut others = Others::default();
    let Some(part) = &old.part else {
        return others;
    };
    let lengths_agree = match (part.complete, new.complete) {
        (Some(old), Some(new)) => old == new,
        _ => true,
    };
    if !lengths_agree || !is_same(old, new_headers) || part.spans.len() >= MOST_SPANS {
        return others;
    }
    for (span, at) in part.positions() {
        let head = Span {
            from: span.from,
            to: span.to.min(new.span.from),
        };
        let tail = Span {
            from: span.from.max(new.span.to),
            to: span.to,
        };
        if !head.is_empty() {
            others.before.push((head, at));
        }
        if !tail.is_empty() {
            others.after.push((tail, at + (tail.from - span.from)));
        }
    }
    others
}

/// The map of what has become of old and new octets: `new` as far as it has arrived.
pub fn joined(others: &Others, new: Span, complete: Option<u64>, asked: Option<&[u8]>) -> Part {
    let before = others.before.iter().map(|(span, _)| *span);
    let after = others.after.iter().map(|(span, _)| *span);
    let mut spans: Vec<Span> = Vec::new();
    for span in before.chain([new]).chain(after) {
        match spans.last_mut() {
            Some(last) if last.to == span.from => last.to = span.to,
            _ => spans.push(span),
        }
    }
    let is_alone = others.before.is_empty() && others.after.is_empty();
    Part {
        spans,
        complete,
        asked: asked.filter(|_| is_alone).map(Box::from),
    }
}

/// The octets from `from` on, asked for behind a stored part, as the 200 that both are together. None: they are not
/// what was asked for, or of another representation.
///
/// Where neither has a validator, the part is joined as long as it is fresh and both name the same length: the origin
/// server has said that until then it is the representation.
pub fn continued(old: &Stored, from: u64, response: &ResponseHead) -> Option<(ResponseHead, u64)> {
    let (whole, range) = of_response(response)?;
    let complete = range.complete?;
    let part = old.part.as_deref()?;
    let lengths_agree = part.complete.is_none_or(|length| length == complete);
    let has_none = |headers: &Headers| !headers.contains("etag");
    let same_date = match (
        old.headers.get("last-modified"),
        whole.headers.get("last-modified"),
    ) {
        (Some(old), Some(new)) => old == new,
        _ => true,
    };
    let agrees = is_same(old, &whole.headers)
        || has_none(&old.headers) && has_none(&whole.headers) && same_date;
    let fits = range.span == Span { from, to: complete };
    (lengths_agree && agrees && fits).then_some((whole, complete))
}

/// Whether the rest of a response that broke off may be asked for, and put behind what has come: a length that nobody has
/// told and a validator that does not vouch for octets cannot say that it is the rest.
pub fn may_resume(stored: &Stored) -> bool {
    let tag = stored.etag().and_then(EntityTag::parse);
    stored.status == 200 && tag.is_some_and(|tag| !tag.weak)
}

/// Whether `response` is the rest, from the octet `from` on, of a representation of that length.
///
/// RFC 9110 section 15.3.7.3: "A client that has received multiple partial responses to GET requests on a target resource MAY
/// combine those responses into a larger continuous range if they share the same strong validator."
pub fn resumes(stored: &Stored, from: u64, length: u64, response: &ResponseHead) -> bool {
    let rest = ContentRange {
        span: Span { from, to: length },
        complete: Some(length),
    };
    let whole = of_response(response).filter(|(_, range)| *range == rest);
    // RFC 9110 section 14.4: Content-Range has a meaning in 206 and 416 alone.
    response.status == 206 && whole.is_some_and(|(whole, _)| is_same(stored, &whole.headers))
}

/// Whether a stored response and the fields of another one are of the same representation for certain.
pub fn is_same(old: &Stored, new: &Headers) -> bool {
    let tag = |value| EntityTag::parse(value);
    match (
        old.etag().and_then(tag),
        new.get("etag").and_then(EntityTag::parse),
    ) {
        (Some(old), Some(new)) => old.strong_eq(new),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::stored::Times;
    use crate::cache::{Policy, Stored};
    use crate::http::{Method, RequestHead};

    fn span(from: u64, to: u64) -> Span {
        Span { from, to }
    }

    fn stored(fields: &[(&str, &str)], part: Option<Part>) -> Stored {
        let mut response = ResponseHead::new();
        response.status = 200;
        response.headers.push("Cache-Control", b"max-age=60");
        for (name, value) in fields {
            response.headers.push(name, value.as_bytes());
        }
        let mut request = RequestHead::new();
        request.method = Method::Get;
        let times = Times {
            request: 0,
            response: 0,
        };
        let mut stored = Stored::new(&request, &response, times, &Policy::default());
        stored.body_len = match &part {
            Some(part) => part.spans.iter().map(|span| span.len()).sum(),
            None => 10,
        };
        stored.part = part.map(Box::new);
        stored
    }

    #[test]
    fn a_whole_response_answers_any_range() {
        let whole = stored(&[], None);
        for (range, expected) in [
            (None, Selected::Whole),
            (Some("bytes=0-4"), Selected::Spans(vec![span(0, 5)])),
            (Some("bytes=-4"), Selected::Spans(vec![span(6, 10)])),
            (
                Some("bytes=0-0,9-"),
                Selected::Spans(vec![span(0, 1), span(9, 10)]),
            ),
            (Some("bytes=10-"), Selected::Unsatisfiable),
            // 14.2: "A server MAY ignore the Range header field", and must where it cannot be read.
            (Some("bytes=9-4"), Selected::Whole),
            (Some("lines=1-2"), Selected::Whole),
        ] {
            assert_eq!(select(range.map(str::as_bytes), &whole), expected);
        }
        let mut error = stored(&[], None);
        error.status = 404;
        assert_eq!(select(Some(b"bytes=0-4"), &error), Selected::Whole);
    }

    #[test]
    fn a_part_answers_what_it_has() {
        let part = Part {
            spans: vec![span(0, 3), span(5, 8)],
            complete: Some(10),
            asked: None,
        };
        let part = stored(&[], Some(part));
        for (range, expected) in [
            ("bytes=0-2", Selected::Spans(vec![span(0, 3)])),
            ("bytes=6-6", Selected::Spans(vec![span(6, 7)])),
            (
                "bytes=1-1,5-7",
                Selected::Spans(vec![span(1, 2), span(5, 8)]),
            ),
            ("bytes=0-3", Selected::NotHere),
            ("bytes=-1", Selected::NotHere),
            ("bytes=10-", Selected::Unsatisfiable),
        ] {
            let selected = select(Some(range.as_bytes()), &part);
            assert_eq!(selected, expected, "{range}");
        }
        assert_eq!(select(None, &part), Selected::NotHere);
        let map = part.part.as_deref().unwrap();
        assert_eq!(map.position(span(6, 7)), Some(4));
        assert_eq!(map.position(span(2, 6)), None);
    }

    #[test]
    fn the_same_question_gets_the_same_part_and_all_gets_the_rest() {
        let part = Part::arrived(4, 5, Some(10), Some(b"bytes=-5"));
        let kept = stored(&[], Some(part));
        let same = select(Some(b"bytes=-5"), &kept);
        assert_eq!(same, Selected::Spans(vec![span(4, 9)]));
        assert_eq!(select(Some(b"bytes=-4"), &kept), Selected::NotHere);
        assert_eq!(select(None, &kept), Selected::NotHere);
        let unknown = stored(&[], Some(Part::arrived(0, 5, None, None)));
        let inner = select(Some(b"bytes=1-2"), &unknown);
        assert_eq!(inner, Selected::Spans(vec![span(1, 3)]));
        assert_eq!(select(Some(b"bytes=1-"), &unknown), Selected::NotHere);
        assert_eq!(select(None, &unknown), Selected::Rest(5));
    }

    #[test]
    fn what_broke_off_goes_on_only_as_the_same_representation() {
        let rest = |tag: &str, range: &str| {
            let mut response = ResponseHead::new();
            response.status = 206;
            response.headers.push("ETag", tag.as_bytes());
            response.headers.push("Content-Range", range.as_bytes());
            response
        };
        let strong = stored(&[("ETag", "\"a\"")], None);
        for (tag, range, expected) in [
            ("\"a\"", "bytes 4-9/10", true),
            ("\"b\"", "bytes 4-9/10", false),
            ("W/\"a\"", "bytes 4-9/10", false),
            ("\"a\"", "bytes 3-9/10", false),
            ("\"a\"", "bytes 4-8/10", false),
            ("\"a\"", "bytes 4-10/11", false),
            ("\"a\"", "bytes 4-9/*", false),
            ("\"a\"", "lines 4-9/10", false),
        ] {
            let resumed = resumes(&strong, 4, 10, &rest(tag, range));
            assert_eq!(resumed, expected, "{tag} {range}");
        }
        let whole = ResponseHead {
            status: 200,
            ..rest("\"a\"", "bytes 4-9/10")
        };
        assert!(may_resume(&strong) && !resumes(&strong, 4, 10, &whole));
        for fields in [&[][..], &[("ETag", "W/\"a\"")], &[("ETag", "a")]] {
            assert!(!may_resume(&stored(fields, None)), "{fields:?}");
        }
    }

    #[test]
    fn parts_are_joined_only_under_one_strong_validator() {
        let part = Part {
            spans: vec![span(0, 4), span(8, 10)],
            complete: Some(20),
            asked: None,
        };
        let old = stored(&[("ETag", "\"a\"")], Some(part));
        let new = ContentRange {
            span: span(2, 9),
            complete: Some(20),
        };
        let fields = |tag: &str| {
            let mut headers = Headers::new();
            headers.push("ETag", tag.as_bytes());
            headers
        };
        let joins = others(&old, &fields("\"a\""), new);
        assert_eq!(joins.before, [(span(0, 2), 0)]);
        assert_eq!(joins.after, [(span(9, 10), 5)]);
        let whole = joined(&joins, new.span, new.complete, None);
        assert_eq!(whole.spans, [span(0, 10)]);
        // What has not arrived leaves a gap.
        let cut = joined(&joins, span(2, 5), new.complete, None);
        assert_eq!(cut.spans, [span(0, 5), span(9, 10)]);
        for other in [fields("\"b\""), fields("W/\"a\""), Headers::new()] {
            assert_eq!(others(&old, &other, new), Others::default());
        }
        let longer = ContentRange {
            complete: Some(21),
            ..new
        };
        assert_eq!(others(&old, &fields("\"a\""), longer), Others::default());
    }

    #[test]
    fn what_is_whole_is_no_part() {
        assert!(Part::arrived(0, 10, Some(10), None).is_whole());
        assert!(!Part::arrived(0, 9, Some(10), None).is_whole());
        assert!(!Part::arrived(1, 9, Some(10), None).is_whole());
        assert!(!Part::arrived(0, 10, None, None).is_whole());
    }
}
