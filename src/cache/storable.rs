//! May this response be stored (RFC 9111 section 3)? Each clause under its sentence, each refusal a value.
//!
//! It looks at heads only: that a body came whole is for whoever receives it to know. The exchange calls it
//! before it begins to write; `refresh` calls it on what a 304 makes of a stored response.

use super::control::CacheControl;
use super::freshness::{Lifetime, bounded, is_heuristic, lifetime};
use super::invalidate::resolve;
use super::{Policy, SetCookie, targeted, vary};
use crate::http::{Headers, Method, RequestHead, ResponseHead, TargetUri};

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotStored {
    Authorization,
    /// Set-Cookie without explicit freshness, or by the operator's setting.
    Cookie,
    Method,
    NoStore,
    /// Nothing says how long it is fresh, and nothing is there to revalidate it by.
    NothingToGain,
    Partial,
    Private,
    /// The request has content, which nobody says is part of the question.
    RequestContent,
    RequestNoStore,
    /// The operator's rule says `store = false`.
    Setting,
    Status,
    VaryAny,
    /// A 304 has changed what selects the response: what came before it must not be selected by the old rule.
    VaryChanged,
    /// It names more fields than are worth comparing at each request.
    VaryMany,
    /// It varies by the address of the client, as we have told it.
    VaryPeer,
}

impl NotStored {
    pub fn as_str(self) -> &'static str {
        match self {
            NotStored::Authorization => "authorization",
            NotStored::Cookie => "set-cookie",
            NotStored::Method => "method",
            NotStored::NoStore => "no-store",
            NotStored::NothingToGain => "no-freshness",
            NotStored::Partial => "partial",
            NotStored::Private => "private",
            NotStored::RequestContent => "request-content",
            NotStored::RequestNoStore => "request-no-store",
            NotStored::Setting => "store-rule",
            NotStored::Status => "status",
            NotStored::VaryAny => "vary-any",
            NotStored::VaryChanged => "vary-changed",
            NotStored::VaryMany => "vary-many",
            NotStored::VaryPeer => "vary-by-client",
        }
    }
}

/// What storing needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storing {
    pub lifetime: Lifetime,
    /// Whether the response itself says how long it is fresh; the operator may have bounded that.
    pub is_explicit: bool,
    pub control: CacheControl,
}

impl Storing {
    pub(super) fn of(
        status: u16,
        headers: &Headers,
        response_time: i64,
        policy: &Policy,
    ) -> Storing {
        let control = targeted::control(headers, policy);
        let given = lifetime(status, headers, &control, response_time, policy);
        Storing {
            lifetime: bounded(given, policy),
            is_explicit: given.source.is_explicit(),
            control,
        }
    }
}

/// `response_time` decides only how far away Expires is where there is no Date.
pub fn storable(
    request: &RequestHead,
    response: &ResponseHead,
    response_time: i64,
    policy: &Policy,
) -> Result<Storing, NotStored> {
    storable_fields(
        request,
        response.status,
        &response.headers,
        response_time,
        policy,
    )
}

/// Whether the response to a POST is what a GET would get.
///
/// RFC 9110 9.3.3: "Responses to POST requests are only cacheable when they include explicit freshness information [...] and
/// a Content-Location header field that has the same value as the POST's target URI". 8.7 says it of "a 2xx
/// (Successful) response"; of those, any but 200 speaks of the POST itself.
pub fn answers_get(uri: &TargetUri, response: &ResponseHead) -> bool {
    let mut locations = response.headers.get_all("content-location");
    let (Some(location), None) = (locations.next(), locations.next()) else {
        return false;
    };
    response.status == 200 && resolve(uri, location).is_some_and(|location| location == *uri)
}

/// The same for a response that `answers_get`. What the POST's content asked for is part of the answer, not of the
/// question that a later GET asks.
pub fn storable_answer(
    request: &RequestHead,
    response: &ResponseHead,
    response_time: i64,
    policy: &Policy,
) -> Result<Storing, NotStored> {
    let mut as_get = RequestHead {
        method: Method::Get,
        ..request.clone()
    };
    as_get.headers.remove("content-length");
    as_get.headers.remove("transfer-encoding");
    let storing = storable(&as_get, response, response_time, policy)?;
    match storing.is_explicit {
        true => Ok(storing),
        false => Err(NotStored::Method),
    }
}

// "A cache MUST NOT store a response to a request unless:"
pub(super) fn storable_fields(
    request: &RequestHead,
    status: u16,
    headers: &Headers,
    response_time: i64,
    policy: &Policy,
) -> Result<Storing, NotStored> {
    let storing = Storing::of(status, headers, response_time, policy);
    let Storing {
        control,
        lifetime,
        is_explicit,
    } = storing;
    if !policy.store {
        return Err(NotStored::Setting);
    }
    // "the request method is understood by the cache;" A HEAD response has no content to store.
    if request.method != Method::Get {
        return Err(NotStored::Method);
    }
    if has_content(&request.headers) {
        return Err(NotStored::RequestContent);
    }
    // "the response status code is final (see Section 15 of [HTTP]);"
    if !(200..600).contains(&status) {
        return Err(NotStored::Status);
    }
    // "if the response status code is 206 or 304, or the must-understand cache directive (see Section 5.2.2.3) is present:
    // the cache understands the response status code;"
    if status == 206 {
        return Err(NotStored::Partial);
    }
    if status == 304 || control.must_understand && !is_heuristic(status) {
        return Err(NotStored::Status);
    }
    // "the no-store cache directive is not present in the response;" 5.2.2.3: "When a cache that implements the
    // must-understand directive receives a response that includes it, the cache SHOULD ignore the no-store directive if
    // it understands and implements the status code's caching requirements."
    if control.no_store && !control.must_understand {
        return Err(NotStored::NoStore);
    }
    // 5.2.1.5: the request's no-store "indicates that a cache MUST NOT store any part of either this request or any
    // response to it"
    if CacheControl::of(&request.headers).no_store {
        return Err(NotStored::RequestNoStore);
    }
    // "if the cache is shared: the private response directive is either not present or allows a shared cache to store a
    // modified response;"
    if control.private {
        return Err(NotStored::Private);
    }
    // 5.2.2.7: where it names fields, "a shared cache MUST NOT store the listed fields, whereas it might store the remainder of
    // the message": without these the remainder would be another response.
    if names_essential(headers, policy, &control) {
        return Err(NotStored::Private);
    }
    // "if the cache is shared: the Authorization header field is not present in the request or a response directive is
    // present that explicitly allows shared caching;" 3.5: must-revalidate, public and s-maxage do.
    if request.headers.contains("authorization")
        && !(control.must_revalidate || control.public || control.s_maxage.is_some())
    {
        return Err(NotStored::Authorization);
    }
    // 4.1: a response with `Vary: *` would never be selected.
    if vary::is_any(headers) {
        return Err(NotStored::VaryAny);
    }
    if vary::is_excessive(headers) {
        return Err(NotStored::VaryMany);
    }
    if headers.contains("set-cookie") && (policy.set_cookie == SetCookie::Refuse || !is_explicit) {
        return Err(NotStored::Cookie);
    }
    // "the response contains at least one of the following: a public response directive; [...] an Expires header field; a
    // max-age response directive; [...] s-maxage; [...] or a status code that is defined as heuristically cacheable". Of
    // those, what could never be served unasked is worth keeping only with a validator.
    let fresh = lifetime.seconds > 0 && !control.no_cache;
    let permitted = is_explicit || control.public || is_heuristic(status);
    let has_validator = headers.contains("etag") || headers.contains("last-modified");
    if !(permitted && (fresh || has_validator)) {
        return Err(NotStored::NothingToGain);
    }
    Ok(storing)
}

fn names_essential(headers: &Headers, policy: &Policy, control: &CacheControl) -> bool {
    const ESSENTIAL: [&str; 4] = ["vary", "content-encoding", "content-type", "content-range"];
    let mut found = false;
    if control.names_fields {
        targeted::named_fields(headers, policy, |name| {
            let is = |own: &&str| own.as_bytes().eq_ignore_ascii_case(name);
            found |= ESSENTIAL.iter().any(|own| is(own) && headers.contains(own));
        });
    }
    found
}

/// Whether a request has content. `Content-Length: 0` says that it has none.
pub fn has_content(request: &Headers) -> bool {
    request.contains("transfer-encoding")
        || request.get_all("content-length").any(|value| value != b"0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::policy::Bound;
    use crate::http::Authority;

    const NOW: i64 = 784_111_777;

    fn ask(
        request: &[(&str, &str)],
        status: u16,
        response: &[(&str, &str)],
        policy: &Policy,
    ) -> Result<Storing, NotStored> {
        let request = RequestHead {
            headers: request.iter().copied().collect(),
            ..RequestHead::new()
        };
        let response = ResponseHead {
            status,
            headers: response.iter().copied().collect(),
            ..ResponseHead::new()
        };
        storable(&request, &response, NOW, policy)
    }

    const MANY: &str =
        "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33";

    #[test]
    fn each_clause() {
        use NotStored::*;
        let fresh = ("Cache-Control", "max-age=60");
        let etag = ("ETag", "\"a\"");
        let cookie = ("Set-Cookie", "a=b");
        let auth = ("Authorization", "Basic x");
        let cc = |value| ("Cache-Control", value);
        type Fields = &'static [(&'static str, &'static str)];
        type Row<'a> = (
            &'a [(&'a str, &'a str)],
            u16,
            &'a [(&'a str, &'a str)],
            Result<(), NotStored>,
        );
        let no: Fields = &[];
        let table: &[Row<'_>] = &[
            (no, 200, &[fresh], Ok(())),
            (no, 200, no, Err(NothingToGain)),
            (no, 200, &[cc("max-age=0")], Err(NothingToGain)),
            (no, 200, &[cc("max-age=0"), etag], Ok(())),
            (no, 200, &[cc("no-cache"), etag], Ok(())),
            (no, 200, &[cc("no-cache, max-age=60")], Err(NothingToGain)),
            (no, 200, &[("Expires", "0"), ("Last-Modified", "x")], Ok(())),
            (no, 404, &[fresh], Ok(())),
            (no, 302, &[fresh], Ok(())),
            (no, 599, &[fresh], Ok(())),
            (no, 600, &[fresh], Err(Status)),
            (no, 304, &[fresh], Err(Status)),
            (no, 103, &[fresh], Err(Status)),
            (no, 206, &[fresh], Err(Partial)),
            (no, 200, &[fresh, ("Content-Range", "bytes 0-1/2")], Ok(())),
            (no, 200, &[cc("no-store, max-age=60")], Err(NoStore)),
            (no, 200, &[cc("max-age=60"), cc("No-Store")], Err(NoStore)),
            (
                no,
                200,
                &[cc("no-store, must-understand, max-age=60")],
                Ok(()),
            ),
            (no, 299, &[cc("must-understand, max-age=60")], Err(Status)),
            (no, 200, &[cc("private, max-age=60")], Err(Private)),
            (no, 200, &[cc("private=\"x\", max-age=60")], Ok(())),
            (&[auth], 200, &[fresh], Err(Authorization)),
            (&[auth], 200, &[cc("public, max-age=60")], Ok(())),
            (&[auth], 200, &[cc("must-revalidate, max-age=60")], Ok(())),
            (&[auth], 200, &[cc("s-maxage=60")], Ok(())),
            (no, 200, &[fresh, ("Vary", "a, *")], Err(VaryAny)),
            (no, 200, &[fresh, ("Vary", MANY)], Err(VaryMany)),
            (no, 200, &[fresh, cookie], Ok(())),
            (&[("Cookie", "a=b")], 200, &[fresh], Ok(())),
            (&[cc("no-store")], 200, &[fresh], Err(RequestNoStore)),
            (
                &[("Content-Length", "3")],
                200,
                &[fresh],
                Err(RequestContent),
            ),
            (&[("Content-Length", "0")], 200, &[fresh], Ok(())),
            (
                &[("Transfer-Encoding", "chunked")],
                200,
                &[fresh],
                Err(RequestContent),
            ),
        ];
        for (request, status, response, expected) in table {
            let found = ask(request, *status, response, &Policy::default()).map(|_| ());
            assert_eq!(found, *expected, "{request:?} {status} {response:?}");
        }
    }

    #[test]
    fn a_validator_is_enough() {
        let etag = ("ETag", "\"a\"");
        let modified = ("Last-Modified", "Sat, 05 Nov 1994 08:49:37 GMT");
        let nothing = Err(NotStored::NothingToGain);
        for (status, fields, expected) in [
            (200, &[etag][..], Ok(())),
            (404, &[etag], Ok(())),
            (302, &[etag], nothing),
            (302, &[modified], nothing),
            (302, &[modified, ("Cache-Control", "public")], Ok(())),
            (200, &[modified], Ok(())),
            (200, &[etag, ("Pragma", "no-cache")], Ok(())),
            (200, &[etag, ("Set-Cookie", "a")], Err(NotStored::Cookie)),
        ] {
            let found = ask(&[], status, fields, &Policy::default()).map(|_| ());
            assert_eq!(found, expected, "{status} {fields:?}");
        }
    }

    #[test]
    fn the_operators_settings() {
        let ttl = Policy {
            ttl: Bound::new(60),
            ..Policy::default()
        };
        assert!(ask(&[], 200, &[], &ttl).is_ok_and(|storing| storing.lifetime.seconds == 60));
        assert_eq!(
            ask(&[], 200, &[("Set-Cookie", "a")], &ttl).err(),
            Some(NotStored::Cookie)
        );
        assert_eq!(
            ask(&[], 500, &[], &ttl).err(),
            Some(NotStored::NothingToGain)
        );
        let bounds = Policy {
            min_ttl: Bound::new(60),
            ..Policy::default()
        };
        let zero = ask(&[], 200, &[("Cache-Control", "max-age=0")], &bounds);
        assert!(zero.is_ok_and(|storing| storing.lifetime.seconds == 60));
        for (control, reason) in [
            ("private, max-age=0", NotStored::Private),
            ("no-store, max-age=0", NotStored::NoStore),
            ("no-cache, max-age=0", NotStored::NothingToGain),
        ] {
            let found = ask(&[], 200, &[("Cache-Control", control)], &bounds);
            assert_eq!(found.err(), Some(reason), "{control}");
        }
        let refuse = Policy {
            set_cookie: SetCookie::Refuse,
            ..Policy::default()
        };
        let fields = [("Set-Cookie", "a"), ("Cache-Control", "max-age=60")];
        assert_eq!(
            ask(&[], 200, &fields, &refuse).err(),
            Some(NotStored::Cookie)
        );
    }

    #[test]
    fn what_answers_a_post() {
        let uri = TargetUri {
            authority: Authority::parse(b"h:80").unwrap(),
            path_and_query: b"/a?b".into(),
        };
        let own = ("Content-Location", "/a?b");
        for (status, fields, expected) in [
            (200, &[own][..], true),
            (200, &[("Content-Location", "http://H/a?b")], true),
            (200, &[("Content-Location", "?b")], true),
            (200, &[("Content-Location", "/a")], false),
            (200, &[("Content-Location", "//other/a?b")], false),
            (200, &[("Content-Location", "https://h/a?b")], false),
            (200, &[own, ("Content-Location", "/c")], false),
            (200, &[], false),
            (201, &[own], false),
            (303, &[own], false),
        ] {
            let response = ResponseHead {
                status,
                headers: fields.iter().copied().collect(),
                ..ResponseHead::new()
            };
            assert_eq!(
                answers_get(&uri, &response),
                expected,
                "{status} {fields:?}"
            );
        }
        let ask = |request: &[(&str, &str)], response: &[(&str, &str)]| {
            let request = RequestHead {
                method: Method::Post,
                headers: request.iter().copied().collect(),
                ..RequestHead::new()
            };
            let response = ResponseHead {
                headers: response.iter().copied().collect(),
                ..ResponseHead::new()
            };
            let policy = Policy {
                ttl: Bound::new(60),
                ..Policy::default()
            };
            storable_answer(&request, &response, NOW, &policy).map(|_| ())
        };
        let fresh = ("Cache-Control", "max-age=60");
        let content = ("Content-Length", "3");
        assert_eq!(ask(&[content], &[fresh]), Ok(()));
        assert_eq!(ask(&[("Transfer-Encoding", "chunked")], &[fresh]), Ok(()));
        assert_eq!(ask(&[content], &[]), Err(NotStored::Method));
        let credentials = ("Authorization", "Basic x");
        assert_eq!(
            ask(&[content, credentials], &[fresh]),
            Err(NotStored::Authorization)
        );
        let no_store = ("Cache-Control", "no-store");
        assert_eq!(ask(&[no_store], &[fresh]), Err(NotStored::RequestNoStore));
        assert_eq!(ask(&[], &[fresh, no_store]), Err(NotStored::NoStore));
    }

    #[test]
    fn methods() {
        for method in [
            Method::Head,
            Method::Post,
            Method::Options,
            Method::Other("get".into()),
        ] {
            let request = RequestHead {
                method,
                ..RequestHead::new()
            };
            let headers = [("Cache-Control", "max-age=60")].into_iter().collect();
            let response = ResponseHead {
                headers,
                ..ResponseHead::new()
            };
            assert_eq!(
                storable(&request, &response, NOW, &Policy::default()),
                Err(NotStored::Method)
            );
        }
    }
}
