//! Conditional requests: the cache's own (RFC 9111 section 4.3.1) and the client's (4.3.2, RFC 9110 section 13).

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
        "validation",
        [
            asking(),
            answered(),
            selecting(),
            etags(),
            dates(),
            precedence(),
            forwarded(),
            refreshed(),
            strange(),
        ],
    )
}

/// Fresh for an hour, with this validator.
fn hour(validator: &str) -> Step {
    get().says(&format!("Cache-Control: max-age=3600\n{validator}"))
}

/// Stale at once, with this validator.
fn stale(validator: &str) -> Step {
    get().says(&format!("Cache-Control: max-age=0\n{validator}"))
}

/// 4.3.1: "When generating a conditional request for validation, a cache [...] adds one or more of the following header
/// fields": "An If-Modified-Since header field whose value is that of the stored Last-Modified"; "an If-None-Match header
/// field whose value or values are the stored entity tags".
#[rustfmt::skip]
fn asking() -> Vec<Row> {
    vec![
        should("9111 4.3.1", "a stale ETag is asked about", &[stale("ETag: \"abc\""), get().validated().asks("If-None-Match: \"abc\"")]),
        should("9111 4.3.1", "a stale weak ETag is asked about as it is", &[stale("ETag: W/\"abc\""), get().validated().asks("If-None-Match: W/\"abc\"")]),
        should("9111 4.3.1", "a stale Last-Modified is asked about", &[
            stale("Last-Modified: {now-3600}"), get().validated().asks("If-Modified-Since: {now-3600}"),
        ]),
        should("9111 4.3.1", "both validators are asked about", &[
            stale("ETag: \"abc\"\nLast-Modified: {now-3600}"),
            get().validated().asks("If-None-Match: \"abc\"").asks("If-Modified-Since: {now-3600}"),
        ]),
        must("9111 4.3.1", "without a validator there is no condition", &[
            get().says("Cache-Control: max-age=1"), get().later(2).reaches().asks_without("If-None-Match").asks_without("If-Modified-Since"),
        ]),
        may("9111 4.3.1", "a response without any lifetime, but with an ETag, is asked about", &[
            get().says("ETag: \"abc\""), get().validated().asks("If-None-Match: \"abc\""),
        ]),
        may("9111 4.3.1", "an ETag of Latin letters is asked about octet for octet", &[
            stale("ETag: \"ab\u{e9}\""), get().validated().asks("If-None-Match: \"ab\u{e9}\""),
        ]),
        may("9111 4.3.1", "HEAD is a question that validates, too", &[
            stale("ETag: \"abc\""), head().validated().asks("If-None-Match: \"abc\""),
        ]),
        must("9110 13.1.2", "an empty ETag is an entity tag", &[hour("ETag: \"\""), get().with("If-None-Match: \"\"").cached().status(304)]),
    ]
}

/// 4.3.3: "A 304 (Not Modified) response status code indicates that the stored response can be updated and reused"; "A full
/// response (i.e., one containing content) indicates that none of the stored responses nominated in the conditional request
/// are suitable. Instead, the cache MUST use the full response to satisfy the request."
#[rustfmt::skip]
fn answered() -> Vec<Row> {
    vec![
        may("9111 4.3.3", "a 304 makes the stored response good again", &[
            stale("ETag: \"a\""), get().validated().says("Cache-Control: max-age=3600\nETag: \"a\""), get().cached_from(1),
        ]),
        must("9111 4.3.3", "a full answer takes the stored one's place", &[
            stale("ETag: \"a\""), get().says("Cache-Control: max-age=3600\nETag: \"b\"").reaches(), get().cached_from(2),
        ]),
        must("9111 4.3.3", "a full answer that may not be stored ends the stored one all the same", &[
            stale("ETag: \"a\""), get().says("Cache-Control: no-store").reaches(), get().reaches(),
        ]),
        must("9111 4.3.3", "a 404 to the condition goes to the client", &[stale("ETag: \"a\""), get().answers(404).reaches()]),
        must("9111 4.3.3", "a 304 without a lifetime leaves the old one: asked again each time", &[
            stale("ETag: \"a\""), get().validated().says("ETag: \"a\""), get().validated().says("ETag: \"a\""),
        ]),
        may("9111 4.3.3", "a 304 without any field renews the lifetime that is stored", &[
            get().says("Cache-Control: max-age=2\nETag: \"a\""), get().later(3).validated(), get().cached_from(1),
        ]),
        must("9111 4.3.4", "a 304 with another strong ETag makes nothing fresh", &[
            stale("ETag: \"a\""), get().answers(304).says("Cache-Control: max-age=3600\nETag: \"other\"").whoever(), get().reaches(),
        ]),
        may("9111 4.3.4", "a 304 with the same Last-Modified selects", &[
            stale("Last-Modified: {now-3600}"), get().validated().says("Cache-Control: max-age=3600\nLast-Modified: {now-3600}"), get().cached_from(1),
        ]),
        may("9111 4.3.4", "a 304 with the same weak ETag selects", &[
            stale("ETag: W/\"a\""), get().validated().says("Cache-Control: max-age=3600\nETag: W/\"a\""), get().cached_from(1),
        ]),
    ]
}

/// 4.3.2: "a cache that is asked for a resource [...] MUST evaluate"; RFC 9110 13.1.2: "A recipient MUST use the weak
/// comparison function when comparing entity tags for If-None-Match".
#[rustfmt::skip]
fn selecting() -> Vec<Row> {
    let cases: [(&str, &str, &str, bool); 19] = [
        ("the same tag", "\"abc\"", "\"abc\"", true),
        ("another tag", "\"abc\"", "\"abd\"", false),
        ("a tag in other letters", "\"abc\"", "\"ABC\"", false),
        ("a weak tag, asked for as strong", "W/\"abc\"", "\"abc\"", true),
        ("a strong tag, asked for as weak", "\"abc\"", "W/\"abc\"", true),
        ("both weak", "W/\"abc\"", "W/\"abc\"", true),
        ("the first of several", "\"abc\"", "\"abc\", \"x\"", true),
        ("the last of several", "\"abc\"", "\"x\", \"y\", \"abc\"", true),
        ("a weak one of several", "\"abc\"", "\"x\", W/\"abc\"", true),
        ("none of several", "\"abc\"", "\"x\", \"y\"", false),
        ("a list without white space", "\"abc\"", "\"x\",\"abc\"", true),
        ("a list with much white space", "\"abc\"", "\"x\" ,\t \"abc\" ", true),
        ("a list with empty members", "\"abc\"", ", \"x\",,\"abc\"", true),
        ("a tag with a comma in it", "\"a,b\"", "\"a,b\"", true),
        ("half of a tag with a comma in it", "\"a\"", "\"x,\"a\",y\"", false),
        ("a star", "\"abc\"", "*", true),
        ("a star in quotes", "\"abc\"", "\"*\"", false),
        ("two lines", "\"abc\"", "\"x\"\nIf-None-Match: \"abc\"", true),
        ("a small w is no weak tag", "\"abc\"", "w/\"abc\"", false),
    ];
    cases
        .into_iter()
        .map(|(what, has, asked, matches)| {
            let asks = get().with(&format!("If-None-Match: {asked}"));
            let end = match matches {
                true => asks.cached().status(304).has(&format!("ETag: {has}")),
                false => asks.whoever().status(200),
            };
            must("9110 13.1.2", format!("If-None-Match: {what}"), &[hour(&format!("ETag: {has}")), end])
        })
        .collect()
}

#[rustfmt::skip]
fn etags() -> Vec<Row> {
    vec![
        // RFC 9110 15.4.5: "The server generating a 304 response MUST generate any of the following header fields that would
        // have been sent in a 200 (OK) response to the same request: Content-Location, Date, ETag, and Vary; Cache-Control
        // and Expires"
        must("9110 15.4.5", "a 304 from the store has the fields that a 304 must have", &[
            hour("ETag: \"a\"\nContent-Location: /x\nVary: X-Absent\nExpires: {now+3600}\nDate: {now}"),
            get().with("If-None-Match: \"a\"").cached().status(304)
                .has("ETag: \"a\"").has("Content-Location: /x").has("Vary: X-Absent").has("Expires: {now+3600}").has("Date: {now}").has("Cache-Control: max-age=3600"),
        ]),
        must("9110 15.4.5", "a 304 to HEAD", &[hour("ETag: \"a\""), head().with("If-None-Match: \"a\"").cached().status(304)]),
        must("9110 13.1.2", "a star without an ETag: a representation is there", &[
            get().says("Cache-Control: max-age=3600"), get().with("If-None-Match: *").cached().status(304),
        ]),
        must("9110 13.1.2", "a tag where the stored response has none", &[
            get().says("Cache-Control: max-age=3600"), get().with("If-None-Match: \"a\"").whoever().status(200),
        ]),
        must("9111 4.3.2", "a condition on a variant is put to that variant: it matches", &[
            hour("Vary: X-A\nETag: \"a\"").with("X-A: 1"), hour("Vary: X-A\nETag: \"b\"").with("X-A: 2"),
            get().with("X-A: 2\nIf-None-Match: \"b\"").cached().status(304).has("ETag: \"b\""),
        ]),
        must("9111 4.3.2", "a condition on a variant is put to that variant: it does not match", &[
            hour("Vary: X-A\nETag: \"a\"").with("X-A: 1"), hour("Vary: X-A\nETag: \"b\"").with("X-A: 2"),
            get().with("X-A: 1\nIf-None-Match: \"b\"").whoever().status(200),
        ]),
        // RFC 9110 13.2.1: a server "MUST ignore all received preconditions if its response to the same request without
        // those conditions [...] would have been a status code other than a 2xx (Successful) or 412".
        must("9110 13.2.1", "no condition on a 404", &[
            hour("ETag: \"a\"").answers(404), get().with("If-None-Match: \"a\"").cached_from(1).status(404),
        ]),
        must("9110 13.2.1", "no condition on a 301", &[
            hour("ETag: \"a\"\nLocation: /x").answers(301), get().with("If-None-Match: \"a\"").cached_from(1).status(301),
        ]),
    ]
}

/// RFC 9110 13.1.3: "If the selected representation's last modification date is earlier or equal to the date provided in the
/// field value, the condition is false."
#[rustfmt::skip]
fn dates() -> Vec<Row> {
    let asks = |date: &str| get().with(&format!("If-Modified-Since: {date}"));
    let changed = || hour("Last-Modified: {now-3600}\nDate: {now}");
    vec![
        must("9110 13.1.3", "the same date", &[changed(), asks("{now-3600}").cached().status(304)]),
        must("9110 13.1.3", "a later date", &[changed(), asks("{now-1800}").cached().status(304)]),
        must("9110 13.1.3", "an earlier date", &[changed(), asks("{now-7200}").cached_from(1).status(200)]),
        must("9110 5.6.7", "the same date as RFC 850 had dates", &[changed(), asks("{now-3600 rfc850}").cached().status(304)]),
        must("9110 5.6.7", "the same date as asctime writes dates", &[changed(), asks("{now-3600 asctime}").cached().status(304)]),
        // "A recipient MUST ignore the If-Modified-Since header field if the received field value is not a valid HTTP-date,
        // the field value has more than one member, or if the request method is neither GET nor HEAD."
        must("9110 13.1.3", "no date", &[changed(), asks("foo").cached_from(1).status(200)]),
        must("9110 13.1.3", "two dates", &[changed(), asks("{now-3600}, {now-3600}").cached_from(1).status(200)]),
        must("9110 13.1.3", "two lines", &[changed(), asks("{now-3600}\nIf-Modified-Since: {now-3600}").cached_from(1).status(200)]),
        must("9110 13.1.3", "HEAD", &[changed(), head().with("If-Modified-Since: {now-3600}").cached().status(304)]),
        // 9111 4.3.2: "if [Last-Modified] is not present, [...] the stored Date header field [...] or, if Date is not
        // present, the time that the response was received"
        must("9111 4.3.2", "no Last-Modified, after Date", &[hour("Date: {now-100}"), asks("{now-50}").cached().status(304)]),
        must("9111 4.3.2", "no Last-Modified, before Date", &[hour("Date: {now-100}"), asks("{now-200}").cached_from(1).status(200)]),
        must("9111 4.3.2", "neither Last-Modified nor Date, before it came", &[
            get().says("Cache-Control: max-age=3600"), asks("{now-200}").cached_from(1).status(200),
        ]),
    ]
}

/// RFC 9110 13.1.3: "A recipient MUST ignore If-Modified-Since if the request contains an If-None-Match header field".
#[rustfmt::skip]
fn precedence() -> Vec<Row> {
    let both = || hour("ETag: \"a\"\nLast-Modified: {now-3600}");
    vec![
        must("9110 13.1.3", "the tag matches, the date does not", &[
            both(), get().with("If-None-Match: \"a\"\nIf-Modified-Since: {now-7200}").cached().status(304),
        ]),
        must("9110 13.1.3", "the date matches, the tag does not", &[
            both(), get().with("If-None-Match: \"b\"\nIf-Modified-Since: {now-3600}").whoever().status(200),
        ]),
        must("9110 13.1.3", "the date matches, the tag is nonsense", &[
            both(), get().with("If-None-Match: nonsense\nIf-Modified-Since: {now-3600}").whoever().status(200),
        ]),
    ]
}

/// What a cache does not answer itself: 4.3.2 "the If-Match and If-Unmodified-Since conditional header fields are not
/// applicable to a cache", and what misses.
#[rustfmt::skip]
fn forwarded() -> Vec<Row> {
    vec![
        must("9110 13", "a condition that misses goes on", &[get().with("If-None-Match: \"a\"").says("ETag: \"b\"").reaches().asks("If-None-Match: \"a\"")]),
        must("9110 13", "a date that misses goes on", &[
            get().with("If-Modified-Since: {now-60}").reaches().asks("If-Modified-Since: {now-60}"),
        ]),
        must("9110 15.4.5", "a 304 to the client's own condition goes to the client", &[
            get().with("If-None-Match: \"a\"").answers(304).says("ETag: \"a\"").reaches(),
        ]),
        // 4.3.3: "the cache MUST [...] forward it to the client" where nothing is stored; and nobody else gets it.
        must("9111 4.3.4", "a 304 without a stored response is none for others", &[
            get().with("If-None-Match: \"a\"").answers(304).says("Cache-Control: max-age=3600\nETag: \"a\"").reaches(), get().reaches(),
        ]),
        must("9110 13.1.1", "If-Match goes on", &[get().with("If-Match: \"a\"").reaches().asks("If-Match: \"a\"")]),
        must("9110 13.1.4", "If-Unmodified-Since goes on", &[
            get().with("If-Unmodified-Since: {now-60}").reaches().asks("If-Unmodified-Since: {now-60}"),
        ]),
        must("9110 15.5.13", "a 412 is for who asked", &[
            get().with("If-Match: \"a\"").answers(412).reaches(), get().says("Cache-Control: max-age=3600").reaches(), get().cached_from(2),
        ]),
        must("9110 15.5.13", "a 412 leaves what is stored", &[
            hour("ETag: \"a\""), get().with("Cache-Control: no-cache\nIf-Match: \"b\"").answers(412).reaches(), get().whoever().status(200),
        ]),
        may("9111 4.3.2", "a 200 to the client's own condition is stored", &[
            get().with("If-None-Match: \"a\"").says("Cache-Control: max-age=3600\nETag: \"b\"").reaches(), get().cached_from(1),
        ]),
    ]
}

/// A 304 that cannot be about what is stored, and conditions that are not ours to replace.
#[rustfmt::skip]
fn strange() -> Vec<Row> {
    vec![
        must("9111 4.3.4", "a client's condition goes on where what is stored has no validator", &[
            get().says("Cache-Control: max-age=1"),
            get().with("If-None-Match: \"a\"").later(2).answers(304).says("ETag: \"a\"\nCache-Control: max-age=3600").reaches().asks("If-None-Match: \"a\"").status(304),
            get().reaches(),
        ]),
        must("9111 4.3.4", "a 304 that nobody asked for is not kept", &[get().answers(304).says("Cache-Control: max-age=3600").whoever(), get().reaches()]),
        must("9111 4.3.4", "a 304 with another Last-Modified makes nothing fresh", &[
            stale("Last-Modified: {now-3600}"), get().answers(304).says("Cache-Control: max-age=3600\nLast-Modified: {now-60}").whoever(), get().reaches(),
        ]),
        must("9111 4.3.2", "the client's date with a tag that the cache asks about", &[
            stale("ETag: \"a\"\nLast-Modified: {now-3600}"),
            get().with("If-Modified-Since: {now-60}").validated().asks("If-None-Match: \"a\"").says("ETag: \"a\"").status(304),
        ]),
        must("9111 4.3.2", "the client's tag with another date: the tag counts", &[
            stale("ETag: \"a\"\nLast-Modified: {now-3600}"),
            get().with("If-None-Match: \"b\"\nIf-Modified-Since: {now-60}").validated().says("ETag: \"a\"").status(200),
        ]),
        must("9110 13.1.2", "a refreshed response to HEAD with the client's own tag", &[
            stale("ETag: \"a\""), head().with("If-None-Match: \"a\"").validated().says("ETag: \"a\"").status(304),
        ]),
        may("9111 4.3.1", "a reload with the client's tag is answered by a 304", &[
            hour("ETag: \"a\""), get().with("If-None-Match: \"a\"\nCache-Control: max-age=0").validated().says("ETag: \"a\"").status(304),
        ]),
        must("9111 4.3.3", "a full answer of another variant leaves the condition's own", &[
            stale("ETag: \"a\""), get().answers(200).says("ETag: \"b\"\nCache-Control: max-age=3600").with("If-None-Match: \"a\"").reaches().status(200),
            get().with("If-None-Match: \"b\"").cached().status(304),
        ]),
        must("9110 15.4.5", "a 304 of the origin server has no content", &[
            stale("ETag: \"a\""), get().octets("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 500\r\n\r\n").whoever().status(200).gives("what step 1 of {path} says"),
            get().whoever().status(200),
        ]),
    ]
}

/// 4.3.2: "a cache that is validating a stored response for a conditional request [...] evaluates" that on the refreshed one.
#[rustfmt::skip]
fn refreshed() -> Vec<Row> {
    vec![
        must("9111 4.3.2", "the client's tag matches what was refreshed", &[
            stale("ETag: \"a\""), get().with("If-None-Match: \"a\"").validated().says("ETag: \"a\"").status(304),
        ]),
        must("9111 4.3.2", "the client's tag does not match what was refreshed", &[
            stale("ETag: \"a\""),
            get().with("If-None-Match: \"old\"").validated().asks("If-None-Match: \"a\"").says("Cache-Control: max-age=3600\nETag: \"a\"").status(200),
            get().cached_from(1),
        ]),
        must("9111 4.3.2", "the client's date matches what was refreshed", &[
            stale("Last-Modified: {now-3600}"), get().with("If-Modified-Since: {now-60}").validated().says("Last-Modified: {now-3600}").status(304),
        ]),
        must("9111 4.3.2", "the client's date does not match what was refreshed", &[
            stale("Last-Modified: {now-3600}"),
            get().with("If-Modified-Since: {now-7200}").answers(200).body("whole").reaches().status(200),
        ]),
        may("9111 4.3.3", "a 304 to a client's condition refreshes for all", &[
            stale("ETag: \"a\""),
            get().with("If-None-Match: \"a\"").validated().says("Cache-Control: max-age=3600\nETag: \"a\"").status(304),
            get().cached_from(1).status(200),
        ]),
    ]
}
