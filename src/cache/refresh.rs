//! What a 304, or the answer to a HEAD, makes of a stored response (RFC 9111 sections 3.2, 4.3.4 and 4.3.5).
//!
//! It makes a new value and leaves the old one alone; putting it in place is the store's part. The exchange
//! calls it when a revalidation of ours comes back.

use thiserror::Error;

use super::Policy;
use super::control::Speaker;
use super::storable::{NotStored, Storing, storable_fields};
use super::stored::{Stored, Times, clean, strip_named};
use crate::http::etag::EntityTag;
use crate::http::syntax::decimal;
use crate::http::{Headers, Method, RequestHead, ResponseHead, connection};

/// A stored response brought up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refreshed {
    pub stored: Stored,
    /// An error: serve it this once, then invalidate the key.
    pub keep: Result<(), NotStored>,
}

/// The 304 speaks of another response than the one we hold: ask again without conditions.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the 304 response names another validator than the stored response has")]
pub struct NotRefreshed;

pub fn refresh(
    request: &RequestHead,
    stored: &Stored,
    response: &ResponseHead,
    times: Times,
    policy: &Policy,
) -> Result<Refreshed, NotRefreshed> {
    if !speaks_of(stored, response) {
        return Err(NotRefreshed);
    }
    let mut update = response.headers.clone();
    clean(&mut update, policy);
    let mut headers = stored.headers.clone();
    // 3.2: "Caches are required to update a stored response's header fields from another (typically newer) response in
    // several situations [...]. The cache MUST add each header field in the provided response to the stored response,
    // replacing field values that are already present, with the following exceptions"
    headers.retain(|name, _| is_bound_to_content(name) || !update.contains(name));
    for (name, value) in update.iter().filter(|(name, _)| !is_bound_to_content(name)) {
        headers.push(name, value);
    }
    // Which fields are for one client only may be said by either.
    strip_named(&mut headers, policy);
    // Without a Date of its own the 304 was made when it came: an old Expires must not count from an old Date.
    if !update.contains("date") {
        headers.remove("date");
    }
    let ruling = ruling(&headers, stored, response);
    let ruling = ruling.as_ref().unwrap_or(&headers);
    let keep = may_stay(request, stored.status, ruling, response, times, policy);
    let storing = Storing::of(stored.status, ruling, times.response, policy);
    let mut new = Stored::from_parts(
        request,
        stored.status,
        stored.reason.clone(),
        headers,
        times,
        storing,
        response,
    );
    // What selects it stays, also where this request had it by its language.
    let keep = match new.selection.names().eq(stored.selection.names()) {
        true => keep,
        false => keep.and(Err(NotStored::VaryChanged)),
    };
    new.selection = stored.selection.clone();
    new.body_len = stored.body_len;
    new.part = stored.part.clone();
    Ok(Refreshed { stored: new, keep })
}

/// Whether the answer to a HEAD speaks of the stored response, and so brings it up to date.
///
/// 4.3.5: "if the stored response and HEAD response have matching values for any received validator fields (ETag and
/// Last-Modified) and, if the HEAD response has a Content-Length header field, the value of Content-Length matches that
/// of the stored response, the cache SHOULD update the stored response"
pub fn agrees(stored: &Stored, head: &ResponseHead) -> bool {
    let same = |name| match head.headers.get(name) {
        Some(value) => stored.headers.get(name) == Some(value),
        None => true,
    };
    let length = head.headers.get("content-length").and_then(decimal);
    let same_length = match (length, stored.complete()) {
        (Some(length), Some(complete)) => length == complete,
        _ => true,
    };
    head.status == stored.status && same("etag") && same("last-modified") && same_length
}

/// The fields that decide how long it is fresh, where they are not just those that are kept: Surrogate-Control is obeyed
/// and not kept. A 304 without it leaves it as it was.
fn ruling(merged: &Headers, stored: &Stored, response: &ResponseHead) -> Option<Headers> {
    const NAME: &str = "Surrogate-Control";
    let said = response.headers.contains(NAME);
    if !said && stored.control.spoken_by != Speaker::Surrogate {
        return None;
    }
    let mut ruling = merged.clone();
    if said {
        for line in response.headers.get_all(NAME) {
            ruling.push(NAME, line);
        }
        return Some(ruling);
    }
    let seconds = stored.control.max_age?;
    let more = stored.control.stale_while_revalidate.unwrap_or(0);
    ruling.push(NAME, format!("max-age={seconds}+{more}").as_bytes());
    Some(ruling)
}

/// Whether what it has become may still be stored. Set-Cookie in the 304 counts as it would in a full response,
/// though it has been stripped already.
fn may_stay(
    request: &RequestHead,
    status: u16,
    merged: &Headers,
    response: &ResponseHead,
    times: Times,
    policy: &Policy,
) -> Result<(), NotStored> {
    // A HEAD may refresh what a GET has stored; it is asked as that GET.
    let as_get = RequestHead {
        method: Method::Get,
        ..request.clone()
    };
    let ask = |headers: &Headers| {
        storable_fields(&as_get, status, headers, times.response, policy).map(|_| ())
    };
    if response.headers.contains("set-cookie") && !merged.contains("set-cookie") {
        let mut with_cookie = merged.clone();
        with_cookie.push("Set-Cookie", b"");
        return ask(&with_cookie);
    }
    ask(merged)
}

// 4.3.4: "If the new response contains one or more strong validators [...] If none of the stored responses contains at
// least one of the same strong validators, then the cache MUST NOT use the new response to update any stored
// responses." A tag that is weak here and strong there passes for the same: servers that weaken the tag of what they
// compress do not do so with a 304, which answers our condition all the same.
fn speaks_of(stored: &Stored, response: &ResponseHead) -> bool {
    let parse = |value| EntityTag::parse(value);
    match (
        response.headers.get("etag").and_then(parse),
        stored.etag().and_then(parse),
    ) {
        (Some(new), Some(old)) => new.weak_eq(old),
        (Some(new), None) => new.weak,
        (None, _) => match (
            response.headers.get("last-modified"),
            stored.headers.get("last-modified"),
        ) {
            (Some(new), Some(old)) => new == old,
            _ => true,
        },
    }
}

/// 3.2: "Content-Length", and fields "that the cache's stored form depends on", such as those that say how the
/// stored octets are to be read; hop-by-hop fields were never stored.
fn is_bound_to_content(name: &str) -> bool {
    [
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
    ]
    .iter()
    .any(|other| name.eq_ignore_ascii_case(other))
        || connection::is_hop_by_hop(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::stored::tests::{NOW, stored};

    const OLD: [(&str, &str); 6] = [
        ("Cache-Control", "max-age=60"),
        ("ETag", "\"a\""),
        ("Content-Type", "text/plain"),
        ("X-A", "1"),
        ("X-A", "2"),
        ("X-B", "1"),
    ];

    fn ask(old: &[(&str, &str)], new: &[(&str, &str)]) -> Result<Refreshed, NotRefreshed> {
        let mut stored = stored(&[], old, &Policy::default());
        stored.body_len = 7;
        let response = ResponseHead {
            status: 304,
            headers: new.iter().copied().collect(),
            ..ResponseHead::new()
        };
        let times = Times {
            request: NOW + 98,
            response: NOW + 100,
        };
        refresh(
            &RequestHead::new(),
            &stored,
            &response,
            times,
            &Policy::default(),
        )
    }

    #[test]
    fn fields_are_replaced_and_time_begins_again() {
        let new = [
            ("Cache-Control", "max-age=90"),
            ("X-A", "3"),
            ("X-C", "4"),
            ("Content-Type", "text/html"),
            ("Content-Length", "0"),
            ("Content-Language", "de"),
            ("Connection", "X-Hop"),
            ("X-Hop", "1"),
            ("Age", "4"),
        ];
        let refreshed = ask(&OLD, &new).unwrap();
        assert_eq!(refreshed.keep, Ok(()));
        let stored = refreshed.stored;
        let fields: Vec<_> = stored
            .headers
            .iter()
            .map(|(n, v)| format!("{n}: {}", String::from_utf8_lossy(v)))
            .collect();
        assert_eq!(
            fields,
            [
                "ETag: \"a\"",
                "Content-Type: text/plain",
                "X-B: 1",
                "Cache-Control: max-age=90",
                "X-A: 3",
                "X-C: 4",
                "Content-Language: de",
                "Date: Sun, 06 Nov 1994 08:51:17 GMT",
            ]
        );
        assert_eq!(
            (stored.status, stored.body_len, stored.lifetime.seconds),
            (200, 7, 90)
        );
        assert_eq!(stored.age(NOW + 100), 6);
    }

    #[test]
    fn a_304_without_fields_refreshes_too() {
        let stored = ask(&OLD, &[]).unwrap().stored;
        assert_eq!((stored.remaining(NOW + 100), stored.date), (58, NOW + 100));
    }

    #[test]
    fn an_old_expires_stays_old_and_a_cookie_counts() {
        let expires = ("Expires", "Sun, 06 Nov 1994 08:50:37 GMT");
        let refreshed = ask(&[expires, ("ETag", "\"a\"")], &[]).unwrap();
        assert_eq!(
            (refreshed.stored.lifetime.seconds, refreshed.keep),
            (0, Ok(()))
        );
        let refreshed = ask(&OLD, &[("Set-Cookie", "a=b")]).unwrap();
        assert_eq!(
            (
                refreshed.stored.headers.contains("set-cookie"),
                refreshed.keep
            ),
            (false, Ok(()))
        );
    }

    #[test]
    fn surrogate_control_stays_until_another_comes() {
        let old = [
            ("Surrogate-Control", "max-age=60"),
            ("Cache-Control", "no-store"),
            ("ETag", "\"a\""),
        ];
        let same = ask(&old, &[]).unwrap();
        assert_eq!((same.stored.lifetime.seconds, same.keep), (60, Ok(())));
        let other = ask(&old, &[("Surrogate-Control", "max-age=90")]).unwrap();
        assert_eq!((other.stored.lifetime.seconds, other.keep), (90, Ok(())));
        assert!(!other.stored.headers.contains("surrogate-control"));
        let none = ask(&old, &[("Surrogate-Control", "no-store")]).unwrap();
        assert_eq!(none.keep, Err(NotStored::NoStore));
    }

    #[test]
    fn a_304_for_another_response() {
        assert_eq!(ask(&OLD, &[("ETag", "\"b\"")]), Err(NotRefreshed));
        assert!(ask(&OLD, &[("ETag", "W/\"a\"")]).is_ok());
        let modified = ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
        let old = [("Cache-Control", "max-age=60"), modified];
        assert_eq!(ask(&old, &[("ETag", "\"b\"")]), Err(NotRefreshed));
        assert!(ask(&old, &[modified]).is_ok());
        assert_eq!(
            ask(&old, &[("Last-Modified", "Sun, 06 Nov 1994 08:49:38 GMT")]),
            Err(NotRefreshed)
        );
    }

    #[test]
    fn what_a_head_agrees_with() {
        let modified = ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
        let old = [OLD[0], OLD[1], modified];
        let mut stored = stored(&[], &old, &Policy::default());
        stored.body_len = 7;
        for (status, fields, expected) in [
            (200, &[][..], true),
            (
                200,
                &[("ETag", "\"a\""), modified, ("Content-Length", "7")],
                true,
            ),
            (200, &[("ETag", "\"b\""), modified], false),
            (200, &[("ETag", "W/\"a\"")], false),
            (
                200,
                &[("Last-Modified", "Sun, 06 Nov 1994 08:49:38 GMT")],
                false,
            ),
            (200, &[("Content-Length", "8")], false),
            (404, &[], false),
        ] {
            let head = ResponseHead {
                status,
                headers: fields.iter().copied().collect(),
                ..ResponseHead::new()
            };
            assert_eq!(agrees(&stored, &head), expected, "{status} {fields:?}");
        }
        stored.headers.remove("etag");
        let head = ResponseHead {
            headers: [("ETag", "\"a\"")].into_iter().collect(),
            ..ResponseHead::new()
        };
        assert!(!agrees(&stored, &head), "a tag where none was");
    }

    #[test]
    fn a_304_may_end_the_storing() {
        for (new, reason) in [
            (("Cache-Control", "no-store"), NotStored::NoStore),
            (("Cache-Control", "private"), NotStored::Private),
            (("Vary", "*"), NotStored::VaryAny),
            (("Vary", "X-A"), NotStored::VaryChanged),
        ] {
            assert_eq!(ask(&OLD, &[new]).unwrap().keep, Err(reason));
        }
    }
}
