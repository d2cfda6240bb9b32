//! What an answer to an unsafe request makes invalid (RFC 9111 section 4.4).
//!
//! Keys out; the store drops what it holds under them. The exchange calls it before it delivers such an answer.

use super::key::{Key, Side};
use crate::http::target::HTTP_PORT;
use crate::http::{Authority, Method, ResponseHead, TargetUri};

/// Empty for safe methods and for errors.
pub fn invalidates(
    method: &Method,
    uri: &TargetUri,
    side: Side,
    response: &ResponseHead,
) -> Vec<Key> {
    // "A cache MUST invalidate the target URI [...] when it receives a non-error status code in response to an unsafe
    // request method (including methods whose safety is unknown)." "A "non-error response" is one with a 2xx
    // (Successful) or 3xx (Redirection) status code."
    if method.is_safe() || *method == Method::Connect || !(200..400).contains(&response.status) {
        return Vec::new();
    }
    let mut keys = vec![Key::of(uri, side)];
    // "A cache MAY invalidate other URIs [...]. In particular, the URI(s) in the Location and Content-Location response
    // header fields (if present) are candidates for invalidation", "a cache MUST NOT trigger an invalidation under these
    // conditions if the origin of the URI to be invalidated differs from that of the URI used to trigger it".
    for name in ["location", "content-location"] {
        if let Some(other) = response
            .headers
            .get(name)
            .and_then(|reference| resolve(uri, reference))
        {
            let key = Key::of(&other, side);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    keys
}

/// A reference (RFC 3986 section 5.2) to something of the same origin; None for any other.
pub fn resolve(base: &TargetUri, reference: &[u8]) -> Option<TargetUri> {
    let reference = reference.split(|&c| c == b'#').next().unwrap_or_default();
    let path_and_query = match reference {
        [b'/', b'/', rest @ ..] => same_origin(base, rest)?,
        [b'/', ..] => reference.to_vec(),
        [] => base.path_and_query.clone(),
        [b'?', ..] => [path_of(&base.path_and_query), reference].concat(),
        _ => match scheme(reference) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"http") => {
                same_origin(base, rest.strip_prefix(b"//")?)?
            }
            Some(_) => return None,
            None => {
                let path = path_of(&base.path_and_query);
                let directory =
                    memchr::memrchr(b'/', path).map_or(&b"/"[..], |slash| &path[..=slash]);
                [directory, reference].concat()
            }
        },
    };
    Some(TargetUri {
        authority: base.authority.clone(),
        path_and_query: without_dots(&path_and_query),
    })
}

fn path_of(path_and_query: &[u8]) -> &[u8] {
    path_and_query
        .split(|&c| c == b'?')
        .next()
        .unwrap_or_default()
}

/// The scheme and what follows its colon, if the reference begins with one.
fn scheme(reference: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = reference
        .iter()
        .position(|c| matches!(c, b':' | b'/' | b'?'))?;
    (reference[end] == b':').then(|| (&reference[..end], &reference[end + 1..]))
}

/// Path and query of `authority/path?query`, if the authority is the base's.
fn same_origin(base: &TargetUri, rest: &[u8]) -> Option<Vec<u8>> {
    let end = rest
        .iter()
        .position(|c| matches!(c, b'/' | b'?'))
        .unwrap_or(rest.len());
    let authority = Authority::parse(&rest[..end]).ok()?.without_port(HTTP_PORT);
    if authority != base.authority.clone().without_port(HTTP_PORT) {
        return None;
    }
    match &rest[end..] {
        path @ [b'/', ..] => Some(path.to_vec()),
        query => Some([b"/", query].concat()),
    }
}

/// RFC 3986 section 5.2.4, remove_dot_segments, for a path that begins with a slash.
fn without_dots(path_and_query: &[u8]) -> Vec<u8> {
    let path = path_of(path_and_query);
    let query = &path_and_query[path.len()..];
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut open = false;
    for segment in path.split(|&c| c == b'/').skip(1) {
        open = matches!(segment, b"." | b"..");
        match segment {
            b"." => {}
            b".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    let mut out = Vec::with_capacity(path_and_query.len());
    for segment in &kept {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if open || kept.is_empty() {
        out.push(b'/');
    }
    out.extend_from_slice(query);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(path: &str) -> TargetUri {
        TargetUri {
            authority: Authority::parse(b"h:80").unwrap(),
            path_and_query: path.into(),
        }
    }

    #[test]
    fn references() {
        for (reference, expected) in [
            ("/x", Some("/x")),
            ("x", Some("/a/x")),
            ("./x/../y?q=..", Some("/a/y?q=..")),
            ("..", Some("/")),
            ("../../../x", Some("/x")),
            ("?z", Some("/a/b?z")),
            ("", Some("/a/b?q")),
            ("#f", Some("/a/b?q")),
            ("/x#f", Some("/x")),
            ("HTTP://H/x", Some("/x")),
            ("http://h:80", Some("/")),
            ("http://h?q", Some("/?q")),
            ("//h/x", Some("/x")),
            ("//i/x", None),
            ("http://h:81/x", None),
            ("http://u@h/x", None),
            ("https://h/x", None),
            ("mailto:x", None),
            ("http:x", None),
        ] {
            let found = resolve(&uri("/a/b?q"), reference.as_bytes());
            let path = found.map(|uri| String::from_utf8(uri.path_and_query).unwrap());
            assert_eq!(path.as_deref(), expected, "{reference}");
        }
    }

    #[test]
    fn unsafe_methods_that_succeed() {
        let keys = |method: Method, status, fields: &[(&str, &str)]| {
            let response = ResponseHead {
                status,
                headers: fields.iter().copied().collect(),
                ..ResponseHead::new()
            };
            let keys = invalidates(&method, &uri("/a"), Side::Forward, &response);
            keys.iter()
                .map(|key| String::from_utf8(key.as_bytes().to_vec()).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(Method::Post, 200, &[]), ["http://h/a"]);
        assert_eq!(
            keys(Method::Other("PURGE".into()), 302, &[("Location", "/a")]),
            ["http://h/a"]
        );
        let both = [("Location", "http://h/b"), ("Content-Location", "c")];
        assert_eq!(
            keys(Method::Put, 201, &both),
            ["http://h/a", "http://h/b", "http://h/c"]
        );
        assert_eq!(
            keys(Method::Delete, 204, &[("Location", "http://other/b")]),
            ["http://h/a"]
        );
        for (method, status) in [
            (Method::Post, 404),
            (Method::Post, 500),
            (Method::Get, 200),
            (Method::Head, 200),
            (Method::Options, 200),
            (Method::Trace, 200),
        ] {
            assert!(keys(method, status, &[]).is_empty());
        }
    }
}
