//! Stale on purpose, and stale never: RFC 9111 section 4.2.4, RFC 5861.

use super::engine::Table;
use super::words::{Row, Step, get, head, may, must, should};

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
        "stale",
        [while_revalidating(), if_error(), unreachable(), forbidden()],
    )
}

/// Stale after a second.
fn second(more: &str) -> Step {
    get().says(&format!("Cache-Control: max-age=1{more}"))
}

/// RFC 5861 3: "caches MAY serve the response in which it appears after it becomes stale, up to the indicated number of
/// seconds", and "SHOULD attempt to revalidate it while still serving stale responses (i.e., without blocking)".
#[rustfmt::skip]
fn while_revalidating() -> Vec<Row> {
    vec![
        may("5861 3", "stale-while-revalidate gives the stale one, and asks", &[second(", stale-while-revalidate=3600"), get().later(2).then_asked()]),
        may("5861 3", "what the background brought is what comes next", &[
            second(", stale-while-revalidate=3600"), get().says("Cache-Control: max-age=3600").later(2).then_asked(), get().later(1).cached_from(2),
        ]),
        may("5861 3", "in the background the validator is asked about", &[
            second(", stale-while-revalidate=3600\nETag: \"a\""), get().later(2).answers(304).says("Cache-Control: max-age=3600\nETag: \"a\"").then_asked().status(200).asks("If-None-Match: \"a\""),
            get().later(1).cached_from(1),
        ]),
        must("5861 3", "stale-while-revalidate that has passed", &[second(", stale-while-revalidate=1"), get().later(4).reaches()]),
        must("5861 3", "stale-while-revalidate without seconds", &[second(", stale-while-revalidate"), get().later(2).reaches()]),
        may("5861 3", "stale-while-revalidate counts the age", &[second(", stale-while-revalidate=3600"), get().later(3).then_asked().age(3, 9)]),
        must("9111 5.2.2.2", "stale-while-revalidate against must-revalidate", &[
            second(", stale-while-revalidate=3600, must-revalidate"), get().later(2).reaches(),
        ]),
        must("9111 5.2.2.8", "stale-while-revalidate against proxy-revalidate", &[
            second(", stale-while-revalidate=3600, proxy-revalidate"), get().later(2).reaches(),
        ]),
        // 5.2.2.10 gives s-maxage the meaning of proxy-revalidate. Beside an explicit grant that cannot be what is meant: it is
        // how responses for shared caches are written, and every one of them grants it. A deliberate deviation.
        may("5861 3", "stale-while-revalidate beside s-maxage", &[
            get().says("Cache-Control: s-maxage=1, stale-while-revalidate=3600"), get().later(2).then_asked(),
        ]),
        must("9111 5.2.2.4", "stale-while-revalidate against no-cache", &[
            second(", stale-while-revalidate=3600, no-cache"), get().later(2).reaches(),
        ]),
        should("9111 5.2.1.4", "stale-while-revalidate against no-cache of the request", &[
            second(", stale-while-revalidate=3600"), get().with("Cache-Control: no-cache").later(2).reaches(),
        ]),
        should("9111 5.2.1.1", "stale-while-revalidate against max-age of the request", &[
            second(", stale-while-revalidate=3600"), get().with("Cache-Control: max-age=0").later(2).reaches(),
        ]),
        may("5861 3", "stale-while-revalidate for HEAD", &[second(", stale-while-revalidate=3600"), head().later(2).then_asked()]),
    ]
}

/// RFC 5861 4: "when an error is encountered, a cached stale response MAY be used to satisfy the request, regardless of other
/// freshness information"; "an error is any situation that would result in a 500, 502, 503, or 504 HTTP response status code
/// being returned".
#[rustfmt::skip]
fn if_error() -> Vec<Row> {
    let mut rows: Vec<Row> = [500, 502, 503, 504]
        .into_iter()
        .map(|status| may("5861 4", format!("stale-if-error against {status}"), &[
            second(", stale-if-error=3600"), get().answers(status).later(2).in_place_of_error(),
        ]))
        .collect();
    for status in [400, 404, 410, 501, 505] {
        rows.push(must("5861 4", format!("stale-if-error is not for {status}"), &[
            second(", stale-if-error=3600"), get().answers(status).later(2).reaches(),
        ]));
    }
    rows.extend([
        may("5861 4", "stale-if-error against a closed connection", &[second(", stale-if-error=3600"), get().closes().later(2).in_place_of_error()]),
        may("5861 4", "stale-if-error to a condition", &[
            second(", stale-if-error=3600\nETag: \"a\""), get().answers(503).later(2).in_place_of_error().asks("If-None-Match: \"a\""),
        ]),
        may("5861 4", "stale-if-error in the request", &[
            second(""), get().with("Cache-Control: stale-if-error=3600").answers(503).later(2).in_place_of_error(),
        ]),
        must("5861 4", "stale-if-error that has passed", &[second(", stale-if-error=1"), get().answers(503).later(4).reaches()]),
        must("5861 4", "stale-if-error without seconds", &[second(", stale-if-error"), get().answers(503).later(2).reaches()]),
        must("5861 4", "without stale-if-error a 503 goes to the client", &[second(""), get().answers(503).later(2).reaches()]),
        must("9111 5.2.2.2", "stale-if-error against must-revalidate", &[
            second(", stale-if-error=3600, must-revalidate"), get().answers(503).later(2).reaches(),
        ]),
        must("9111 5.2.2.8", "stale-if-error against proxy-revalidate", &[
            second(", stale-if-error=3600, proxy-revalidate"), get().answers(503).later(2).reaches(),
        ]),
        may("5861 4", "stale-if-error beside s-maxage", &[
            get().says("Cache-Control: s-maxage=1, stale-if-error=3600"), get().answers(503).later(2).in_place_of_error(),
        ]),
        must("9111 5.2.2.4", "stale-if-error against no-cache", &[
            get().says("Cache-Control: max-age=3600, stale-if-error=3600, no-cache"), get().answers(503).reaches(),
        ]),
        may("5861 4", "the error itself takes nobody's place", &[
            second(", stale-if-error=3600"), get().answers(503).says("Cache-Control: max-age=3600").later(2).in_place_of_error(),
            get().answers(503).whoever().status(200),
        ]),
        may("5861 4", "stale-if-error counts the age", &[second(", stale-if-error=3600"), get().answers(503).later(3).in_place_of_error().age(3, 9)]),
    ]);
    rows
}

/// 4.2.4: "A cache MUST NOT generate a stale response unless it is disconnected or doing so is explicitly permitted by the
/// client or origin server"
#[rustfmt::skip]
fn unreachable() -> Vec<Row> {
    vec![
        may("9111 4.2.4", "the origin server closes", &[second(""), get().closes().later(2).in_place_of_error()]),
        may("9111 4.2.4", "the origin server closes within its head", &[
            second(""), get().octets_and_end("HTTP/1.1 200 OK\r\nX-A: ").later(2).in_place_of_error().gives("what step 1 of {path} says").status(200),
        ]),
        may("9111 4.2.4", "the origin server closes, asked by HEAD", &[second(""), head().closes().later(2).in_place_of_error()]),
        may("9111 4.2.4", "a stale response tells its age", &[second(""), get().closes().later(3).in_place_of_error().age(3, 9)]),
        may("9111 4.2.4", "the origin server closes on a condition", &[second("\nETag: \"a\""), get().closes().later(2).in_place_of_error()]),
        may("9111 4.2.4", "a heuristic lifetime that has passed", &[
            get().says("Last-Modified: {now-10}\nDate: {now}"), get().closes().later(3).in_place_of_error(),
        ]),
        must("9111 4.2.4", "nothing is stored", &[get().closes().whoever().status(502)]),
        must("9111 4.2.4", "a stale answer does not become fresh by it", &[
            second(""), get().closes().later(2).in_place_of_error(), get().reaches(),
        ]),
        must("9111 4.1", "a variant of another", &[
            second("\nVary: X-A").with("X-A: 1"), get().with("X-A: 2").closes().later(2).whoever().status(502),
        ]),
        must("9111 5.2.2.7", "what was private", &[get().says("Cache-Control: private, max-age=1"), get().closes().whoever().status(502)]),
        must("9111 5.2.2.5", "what was no-store", &[get().says("Cache-Control: no-store, max-age=1"), get().closes().whoever().status(502)]),
    ]
}

/// "A cache MUST NOT generate a stale response if it is prohibited by an explicit in-protocol directive (e.g., by a no-cache
/// response directive, a must-revalidate response directive, or an applicable s-maxage or proxy-revalidate response
/// directive"; 5.2.2.2: "the cache MUST generate an error response rather than reuse the stale response. The generated
/// response SHOULD use the 504 (Gateway Timeout) status code"
#[rustfmt::skip]
fn forbidden() -> Vec<Row> {
    [
        ("must-revalidate", "Cache-Control: max-age=1, must-revalidate"),
        ("proxy-revalidate", "Cache-Control: max-age=1, proxy-revalidate"),
        ("s-maxage", "Cache-Control: s-maxage=1"),
        ("no-cache", "Cache-Control: max-age=1, no-cache"),
        ("must-revalidate and an ETag", "Cache-Control: max-age=1, must-revalidate\nETag: \"a\""),
        ("must-revalidate and stale-if-error", "Cache-Control: max-age=1, must-revalidate, stale-if-error=3600"),
        ("must-revalidate and Expires", "Cache-Control: must-revalidate\nExpires: {now+1}"),
    ]
    .into_iter()
    .map(|(what, fields)| {
        let fields = match fields.contains("ETag") {
            true => fields.to_owned(),
            // Something to be stored for, whatever the lifetime.
            false => format!("{fields}\nETag: \"x\""),
        };
        must("9111 5.2.2.2", format!("a silent origin server and {what}"), &[get().says(&fields), get().closes().later(2).whoever().status(504)])
    })
    .collect()
}
