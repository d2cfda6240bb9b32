//! What may be stored, and what of it: RFC 9111 sections 3, 3.1, 3.5, 4.2.2 and 7.3.

use super::engine::Table;
use super::words::{Row, by, get, head, may, must, not_reused, post, reused};

#[test]
fn in_reverse_mode() {
    table().holds_in_reverse_mode();
}

#[test]
fn on_disk() {
    table().holds_on_disk();
}

#[test]
fn in_forward_mode() {
    table().holds_in_forward_mode();
}

fn table() -> Table {
    Table::new(
        "storing",
        [
            statuses(),
            heuristics(),
            no_heuristics(),
            understanding(),
            forbidden(),
            named_fields(),
            posts(),
            methods(),
            credentials(),
            bodies(),
        ],
    )
}

/// 3: "the response contains at least one of the following: [...]"; a status code needs no understanding where the response
/// is explicitly fresh and the status code is final.
fn statuses() -> Vec<Row> {
    let mut rows = Vec::new();
    for status in [
        200, 201, 202, 203, 204, 299, 300, 301, 302, 303, 307, 308, 399, 400, 403, 404, 405, 410,
        414, 421, 451, 499, 500, 501, 502, 503, 504, 599,
    ] {
        rows.push(may(
            "9111 3",
            format!("{status} is reused while it is fresh"),
            &[
                get().answers(status).says("Cache-Control: max-age=3600"),
                get().cached(),
            ],
        ));
        rows.push(must(
            "9111 4.2",
            format!("{status} is not reused when it is stale"),
            &[
                get().answers(status).says("Cache-Control: max-age=1"),
                get().answers(status).later(2).reaches(),
            ],
        ));
    }
    rows
}

/// 4.2.2: "a cache MAY assign a heuristic expiration time when an explicit time is not specified"; "a typical setting of
/// this fraction might be 10%".
fn heuristics() -> Vec<Row> {
    let old = "Last-Modified: {now-864000}\nDate: {now}";
    let mut rows = Vec::new();
    // RFC 9110 15.1: "Responses with status codes that are defined as heuristically cacheable (e.g., 200, 203, 204, 206, 300,
    // 301, 308, 404, 405, 410, 414, and 501 in this specification) can be reused by a cache with heuristic expiration"
    for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        rows.push(may(
            "9110 15.1",
            format!("{status} is reused by a heuristic"),
            &[get().answers(status).says(old), get().cached()],
        ));
    }
    // "all other status codes are not"
    for status in [
        201, 202, 299, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599,
    ] {
        rows.push(must(
            "9110 15.1",
            format!("{status} is not reused by a heuristic"),
            &[
                get().answers(status).says(old),
                get().answers(status).reaches(),
            ],
        ));
    }
    // 4.2.2: "caches can use a heuristic for responses explicitly marked as cacheable (e.g., using a public response
    // directive)"
    for status in [302, 400, 599] {
        rows.push(may(
            "9111 4.2.2",
            format!("{status} is reused by a heuristic where it is public"),
            &[
                get()
                    .answers(status)
                    .says(old)
                    .says("Cache-Control: public"),
                get().cached(),
            ],
        ));
    }
    rows
}

/// Where it ends, and what it must not go against.
fn no_heuristics() -> Vec<Row> {
    let old = "Last-Modified: {now-864000}\nDate: {now}";
    vec![
        not_reused(
            "9111 4.2.2",
            "no heuristic against max-age=0",
            &format!("{old}\nCache-Control: max-age=0"),
        ),
        not_reused(
            "9111 4.2.2",
            "no heuristic against Expires: 0",
            &format!("{old}\nExpires: 0"),
        ),
        not_reused(
            "9111 4.2.2",
            "no heuristic against an Age beyond it",
            &format!("{old}\nAge: 864000"),
        ),
        not_reused(
            "9111 4.2.2",
            "a resource of this moment has no heuristic lifetime",
            "Last-Modified: {now}\nDate: {now}",
        ),
        not_reused(
            "9111 4.2.2",
            "a Last-Modified ahead of us makes no lifetime",
            "Last-Modified: {now+864000}\nDate: {now}",
        ),
        not_reused(
            "9111 4.2.2",
            "a Last-Modified that is no date makes no lifetime",
            "Last-Modified: long ago\nDate: {now}",
        ),
        reused(
            "9111 4.2.2",
            "a heuristic without a Date",
            "Last-Modified: {now-864000}",
        ),
        must(
            "9111 4.2.2",
            "a heuristic ends after a tenth",
            &[
                get().says("Last-Modified: {now-10}\nDate: {now}"),
                get().later(3).reaches(),
            ],
        ),
        may(
            "9110 10.1.1",
            "a heuristic beside Content-Disposition",
            &[
                get()
                    .says(old)
                    .says("Content-Disposition: attachment; filename=a"),
                get().cached(),
            ],
        ),
    ]
}

/// 5.2.2.3: "The must-understand response directive limits caching of the response to a cache that understands and
/// conforms to the requirements for that response's status code."
#[rustfmt::skip]
fn understanding() -> Vec<Row> {
    vec![
        reused("9111 5.2.2.3", "must-understand where we do", "Cache-Control: max-age=3600, must-understand"),
        reused("9111 5.2.2.3", "must-understand sets no-store aside where we do", "Cache-Control: no-store, must-understand, max-age=3600"),
        must("9111 5.2.2.3", "must-understand where we do not", &[
            get().answers(299).says("Cache-Control: max-age=3600, must-understand"), get().answers(299).reaches(),
        ]),
        must("9111 5.2.2.3", "must-understand beside no-store where we do not", &[
            get().answers(599).says("Cache-Control: max-age=3600, no-store, must-understand"), get().answers(599).reaches(),
        ]),
        may("9111 5.2.2.3", "must-understand with a 404", &[
            get().answers(404).says("Cache-Control: max-age=3600, must-understand"), get().cached(),
        ]),
    ]
}

#[rustfmt::skip]
fn forbidden() -> Vec<Row> {
    vec![
        // 5.2.2.5: "a cache MUST NOT store any part of either the immediate request or the response"
        not_reused("9111 5.2.2.5", "no-store", "Cache-Control: no-store"),
        not_reused("9111 5.2.2.5", "no-store beside max-age", "Cache-Control: max-age=3600, no-store"),
        not_reused("9111 5.2.2.5", "no-store beside s-maxage and public", "Cache-Control: public, s-maxage=3600, no-store"),
        not_reused("9111 5.2.2.5", "no-store beside Expires", "Cache-Control: no-store\nExpires: {now+3600}"),
        not_reused("9111 5.2.2.5", "no-store with an argument", "Cache-Control: no-store=\"foo\", max-age=3600"),
        // 5.2.2.7: "a shared cache MUST NOT store the response"
        not_reused("9111 5.2.2.7", "private", "Cache-Control: private, max-age=3600"),
        not_reused("9111 5.2.2.7", "private beside s-maxage", "Cache-Control: private, s-maxage=3600"),
        not_reused("9111 5.2.2.7", "private beside Expires", "Cache-Control: private\nExpires: {now+3600}"),
        // 5.2.1.5: "a cache MUST NOT store any part of either this request or any response to it"
        must("9111 5.2.1.5", "no-store in the request", &[
            get().with("Cache-Control: no-store").says("Cache-Control: max-age=3600"), get().reaches(),
        ]),
        // 5.2.2.5 takes nothing away that an earlier response gave.
        may("9111 5.2.2.5", "a later no-store answer of a variant does not come back", &[
            get().says("Cache-Control: max-age=3600"), get().with("Cache-Control: no-cache").says("Cache-Control: no-store").reaches(),
            get().whoever().status(200),
        ]),
        // 7.3: "the presence of the Set-Cookie header field in a response does not inhibit caching"
        may("9111 7.3", "Set-Cookie is stored where it is to be", &[
            get().says("Cache-Control: max-age=3600\nSet-Cookie: a=b"), get().cached().has("Set-Cookie: a=b"),
        ]),
        may("9111 7.3", "a request's Cookie alone prevents nothing", &[
            get().with("Cookie: a=b").says("Cache-Control: max-age=3600"), get().with("Cookie: c=d").cached(), get().cached(),
        ]),
        reused("9111 3", "Content-Disposition: attachment", "Cache-Control: max-age=3600\nContent-Disposition: attachment; filename=a"),
        reused("9110 14.4", "Content-Range in a 200 is an ordinary field", "Cache-Control: max-age=3600\nContent-Range: bytes 0-3/9"),
    ]
}

/// 5.2.2.4 and 5.2.2.7, the qualified forms: the cache "MUST NOT use the listed header fields" unvalidated, and "MUST NOT
/// store" them; the rest may be used.
#[rustfmt::skip]
fn named_fields() -> Vec<Row> {
    vec![
        may("9111 5.2.2.4", "no-cache with a field keeps that field back", &[
            get().says("Cache-Control: max-age=3600, no-cache=\"X-A\"\nX-A: 1\nX-B: 2"), get().cached().lacks("X-A").has("X-B: 2"),
        ]),
        may("9111 5.2.2.4", "no-cache with two fields keeps both back", &[
            get().says("Cache-Control: max-age=3600, no-cache=\"X-A, x-b\"\nX-A: 1\nX-B: 2\nX-C: 3"),
            get().cached().lacks("X-A").lacks("X-B").has("X-C: 3"),
        ]),
        may("9111 5.2.2.4", "no-cache with a field as a token", &[
            get().says("Cache-Control: max-age=3600, no-cache=X-A\nX-A: 1"), get().cached().lacks("X-A"),
        ]),
        may("9111 5.2.2.7", "private with a field keeps that field back", &[
            get().says("Cache-Control: max-age=3600, private=\"X-A\"\nX-A: 1\nX-B: 2"), get().cached().lacks("X-A").has("X-B: 2"),
        ]),
        may("9111 5.2.2.7", "private with two fields keeps both back", &[
            get().says("Cache-Control: max-age=3600, private=\"X-A ,\tX-B\"\nX-A: 1\nX-B: 2\nX-C: 3"),
            get().cached().lacks("X-A").lacks("X-B").has("X-C: 3"),
        ]),
        must("9111 5.2.2.7", "private with Vary keeps variants apart", &[
            get().with("X-U: a").says("Cache-Control: max-age=3600, private=\"Vary\"\nVary: X-U"), get().with("X-U: b").reaches(),
        ]),
        must("9111 5.2.2.7", "private with Content-Encoding leaves no coded content without it", &[
            get().says("Cache-Control: max-age=3600, private=\"Content-Encoding\"\nContent-Encoding: x-unknown"), get().reaches(),
        ]),
        must("9111 5.2.2.7", "the first client has the private field", &[
            get().says("Cache-Control: max-age=3600, private=\"X-A\"\nX-A: 1").has("X-A: 1"),
        ]),
        must("9111 5.2.2.7", "private with Set-Cookie keeps the cookie back", &[
            get().says("Cache-Control: max-age=3600, private=\"Set-Cookie\"\nSet-Cookie: a=b"), get().cached().lacks("Set-Cookie"),
        ]),
    ]
}

#[rustfmt::skip]
fn posts() -> Vec<Row> {
    vec![
        // RFC 9110 9.3.3: "Responses to POST requests are only cacheable when they include explicit freshness information and
        // a Content-Location header field that has the same value as the POST's target URI"
        may("9110 9.3.3", "POST with its own Content-Location answers GET", &[
            post().says("Cache-Control: max-age=3600\nContent-Location: {base}{path}"), get().cached(),
        ]),
        may("9110 9.3.3", "POST with its own Content-Location, as a path", &[
            post().says("Cache-Control: max-age=3600\nContent-Location: {path}"), get().cached(),
        ]),
        may("9110 9.3.3", "POST with its own Content-Location answers HEAD", &[
            post().says("Cache-Control: max-age=3600\nContent-Location: {path}\nX-A: 1"), head().cached().has("X-A: 1"),
        ]),
        may("9110 9.3.3", "POST with its own Content-Location by Expires", &[
            post().says("Expires: {now+3600}\nContent-Location: {path}"), get().cached(),
        ]),
        may("9110 9.3.3", "POST takes the place of what GET has stored", &[
            get().says("Cache-Control: max-age=3600"), post().says("Cache-Control: max-age=3600\nContent-Location: {path}"), get().cached_from(2),
        ]),
        may("9111 4.1", "POST with Vary answers who asks alike", &[
            post().with("X-A: 1").says("Cache-Control: max-age=3600\nContent-Location: {path}\nVary: X-A"),
            get().with("X-A: 2").reaches(), get().with("X-A: 1").cached_from(1),
        ]),
        must("9111 5.2.2.5", "POST with no-store", &[
            post().says("Cache-Control: max-age=3600, no-store\nContent-Location: {path}"), get().reaches(),
        ]),
        must("9111 5.2.1.5", "POST asked with no-store", &[
            post().with("Cache-Control: no-store").says("Cache-Control: max-age=3600\nContent-Location: {path}"), get().reaches(),
        ]),
        must("9111 3.5", "POST with credentials", &[
            post().with("Authorization: Basic eA==").says("Cache-Control: max-age=3600\nContent-Location: {path}"), get().reaches(),
        ]),
        must("9110 8.7", "POST that made something with its own Content-Location", &[
            post().answers(201).says("Cache-Control: max-age=3600\nContent-Location: {path}"), get().reaches(),
        ]),
        must("9110 9.3.3", "POST that fails with its own Content-Location", &[
            get().says("Cache-Control: max-age=3600"), post().answers(400).says("Cache-Control: max-age=3600\nContent-Location: {path}"), get().cached_from(1),
        ]),
        must("9110 9.3.3", "POST with two Content-Locations", &[
            post().says("Cache-Control: max-age=3600\nContent-Location: {path}\nContent-Location: {path}/other"), get().reaches(),
        ]),
        must("9110 9.3.3", "PUT with its own Content-Location", &[
            by("PUT").content("x").says("Cache-Control: max-age=3600\nContent-Location: {path}"), get().reaches(),
        ]),
        must("9110 9.3.3", "POST without a Content-Location", &[post().says("Cache-Control: max-age=3600"), get().reaches()]),
        must("9110 9.3.3", "POST with another Content-Location", &[
            post().says("Cache-Control: max-age=3600\nContent-Location: {path}/other"), get().reaches(), get().at("/other").reaches(),
        ]),
        must("9110 9.3.3", "POST without explicit freshness", &[
            post().says("Content-Location: {path}\nLast-Modified: {now-864000}"), get().reaches(),
        ]),
        // "A cached POST response can be reused to satisfy a later GET or HEAD request. In contrast, a POST request cannot be
        // satisfied by a cached POST response because POST is potentially unsafe"
        must("9110 9.3.3", "POST is never answered from the cache", &[
            post().says("Cache-Control: max-age=3600\nContent-Location: {path}"), post().reaches(),
        ]),
        must("9110 9.3.3", "POST is not answered by what GET has stored", &[
            get().says("Cache-Control: max-age=3600"), post().reaches().asks_by("POST"),
        ]),
    ]
}

#[rustfmt::skip]
fn methods() -> Vec<Row> {
    vec![
        may("9110 9.3.2", "HEAD is answered by what GET has stored", &[
            get().says("Cache-Control: max-age=3600\nX-A: 1"), head().cached().has("X-A: 1"),
        ]),
        must("9110 9.3.2", "GET is not answered by what HEAD brought", &[
            head().says("Cache-Control: max-age=3600"), get().reaches(),
        ]),
        // RFC 9110 9.3.1: "content received in a GET request has no generally defined semantics"
        must("9110 9.3.1", "GET with content stores nothing", &[
            get().content("question").says("Cache-Control: max-age=3600"), get().reaches(),
        ]),
        // RFC 9110 9.3.7: "Responses to the OPTIONS method are not cacheable."
        must("9110 9.3.7", "OPTIONS stores nothing", &[
            super::words::by("OPTIONS").says("Cache-Control: max-age=3600"), super::words::by("OPTIONS").reaches(),
        ]),
        must("9110 9.3.4", "PUT stores nothing", &[
            super::words::by("PUT").content("x").says("Cache-Control: max-age=3600"), get().reaches(),
        ]),
        // 4: "the presented target URI and that of the stored response match"
        must("9111 4", "another query is another resource", &[
            get().at("?a").says("Cache-Control: max-age=3600"), get().at("?b").reaches(), get().reaches(),
        ]),
        may("9111 4", "the same query is the same resource", &[
            get().at("?a=1&b=2").says("Cache-Control: max-age=3600"), get().at("?a=1&b=2").cached(),
        ]),
        must("9111 4", "an empty query is another resource than none", &[
            get().at("?").says("Cache-Control: max-age=3600"), get().reaches(),
        ]),
    ]
}

/// 3.5: "A shared cache MUST NOT use a cached response to a request with an Authorization header field to satisfy any
/// subsequent request unless the response contains a Cache-Control field with a response directive that allows it"
#[rustfmt::skip]
fn credentials() -> Vec<Row> {
    let asked = |fields: &str| get().with("Authorization: Basic eA==").says(fields);
    vec![
        must("9111 3.5", "credentials", &[asked("Cache-Control: max-age=3600"), get().reaches()]),
        must("9111 3.5", "credentials, asked for again", &[
            asked("Cache-Control: max-age=3600"), get().with("Authorization: Basic eA==").reaches(),
        ]),
        must("9111 3.5", "credentials and Expires", &[asked("Expires: {now+3600}"), get().reaches()]),
        must("9111 3.5", "credentials and proxy-revalidate", &[
            asked("Cache-Control: max-age=3600, proxy-revalidate"), get().reaches(),
        ]),
        may("9111 3.5", "credentials and public", &[asked("Cache-Control: max-age=3600, public"), get().cached()]),
        may("9111 3.5", "credentials and s-maxage", &[asked("Cache-Control: s-maxage=3600"), get().cached()]),
        may("9111 3.5", "credentials and must-revalidate", &[
            asked("Cache-Control: max-age=3600, must-revalidate"), get().cached(),
        ]),
        may("9111 3.5", "what was asked for without credentials is for all", &[
            get().says("Cache-Control: max-age=3600"), get().with("Authorization: Basic eA==").cached(),
        ]),
    ]
}

/// 3.3: "If the request method is GET, the response status code is 200 (OK), and the entire response header section has
/// been received, a cache MAY store a response that is not complete [...] provided that the stored response is recorded as
/// being incomplete"; it never passes for a whole one.
#[rustfmt::skip]
fn bodies() -> Vec<Row> {
    vec![
        may("9112 7.1", "a chunked response", &[
            get().octets("HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").gives("hello"),
            get().cached_from(1).gives("hello"),
        ]),
        // 3.1 and RFC 9110 6.5.1: trailer fields are not merged into the header section.
        must("9110 6.5.1", "trailer fields do not become header fields", &[
            get().octets("HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n").gives("hello"),
            get().cached_from(1).gives("hello").lacks("X-T"),
        ]),
        may("9112 6.3", "a response that ends with its connection", &[
            get().octets_and_end("HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\n\r\nhello").gives("hello"),
            get().cached_from(1).gives("hello"),
        ]),
        may("9111 3", "a response of HTTP/1.0", &[
            get().octets_and_end("HTTP/1.0 200 OK\r\nExpires: {now+3600}\r\n\r\nhello").gives("hello"),
            get().cached_from(1).gives("hello"),
        ]),
        may("9111 3", "a response without content", &[get().says("Cache-Control: max-age=3600").body(""), get().cached()]),
    ]
}
