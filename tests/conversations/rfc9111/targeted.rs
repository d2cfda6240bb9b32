//! Cache-Control for some caches only: RFC 9213, and Surrogate-Control.

use super::engine::Table;
use super::words::{Row, get, may, must, not_reused, reused, should};

#[test]
fn in_reverse_mode() {
    table().holds_in_reverse_mode();
}

#[test]
fn in_forward_mode() {
    table().holds_in_forward_mode();
}

fn table() -> Table {
    Table::new(
        "targeted",
        [precedence(), structure(), behind(), surrogates()],
    )
}

/// 2.2: "When a cache that implements this specification receives a response with one or more of the header field names on
/// its target list, the cache MUST select the first (in target-list order) field with a valid, non-empty value and use its
/// value to determine the caching policy for the response, and it MUST ignore the Cache-Control and Expires header fields in
/// that response, unless no valid, non-empty value is available".
#[rustfmt::skip]
fn precedence() -> Vec<Row> {
    vec![
        reused("9213 2.2", "a lifetime alone", "CDN-Cache-Control: max-age=3600"),
        not_reused("9213 2.2", "no lifetime", "CDN-Cache-Control: max-age=0"),
        must("9213 2.2", "a lifetime that has passed", &[get().says("CDN-Cache-Control: max-age=1"), get().later(2).reaches()]),
        reused("9213 2.2", "before max-age=0", "CDN-Cache-Control: max-age=3600\nCache-Control: max-age=0"),
        reused("9213 2.2", "before s-maxage=0", "CDN-Cache-Control: max-age=3600\nCache-Control: s-maxage=0"),
        reused("9213 2.2", "before no-store", "CDN-Cache-Control: max-age=3600\nCache-Control: no-store"),
        reused("9213 2.2", "before no-cache", "CDN-Cache-Control: max-age=3600\nCache-Control: no-cache"),
        reused("9213 2.2", "before private", "CDN-Cache-Control: max-age=3600\nCache-Control: private"),
        reused("9213 2.2", "before Expires in the past", "CDN-Cache-Control: max-age=3600\nExpires: {now-3600}\nDate: {now}"),
        reused("9213 2.2", "before Expires: 0", "CDN-Cache-Control: max-age=3600\nExpires: 0"),
        reused("9213 2.2", "before Pragma", "CDN-Cache-Control: max-age=3600\nPragma: no-cache"),
        not_reused("9213 2.2", "max-age=0 before a lifetime", "CDN-Cache-Control: max-age=0\nCache-Control: max-age=3600"),
        not_reused("9213 2.2", "max-age=0 before Expires", "CDN-Cache-Control: max-age=0\nExpires: {now+3600}"),
        not_reused("9213 2.2", "no-store before a lifetime", "CDN-Cache-Control: no-store\nCache-Control: max-age=3600"),
        not_reused("9213 2.2", "private before a lifetime", "CDN-Cache-Control: private\nCache-Control: max-age=3600"),
        not_reused("9213 2.2", "no-cache before a lifetime", "CDN-Cache-Control: no-cache\nCache-Control: max-age=3600"),
        not_reused("9213 2.2", "no-store beside its own lifetime", "CDN-Cache-Control: max-age=3600, no-store"),
        not_reused("9213 2.2", "no-cache beside its own lifetime", "CDN-Cache-Control: max-age=3600, no-cache"),
        not_reused("9213 2.2", "private beside its own lifetime", "CDN-Cache-Control: max-age=3600, private"),
        // An unknown directive is a valid value all the same.
        not_reused("9213 2.2", "an unknown directive alone sets Cache-Control aside", "CDN-Cache-Control: foo\nCache-Control: max-age=3600"),
        reused("9213 2.2", "s-maxage", "CDN-Cache-Control: s-maxage=3600\nCache-Control: max-age=0"),
        must("9213 2.2", "must-revalidate there", &[
            get().says("CDN-Cache-Control: max-age=1, must-revalidate\nETag: \"a\""), get().closes().later(2).whoever().status(504),
        ]),
        may("5861 3", "stale-while-revalidate there", &[get().says("CDN-Cache-Control: max-age=1, stale-while-revalidate=3600"), get().later(2).then_asked()]),
        may("9111 3.5", "public there, and credentials", &[
            get().with("Authorization: Basic eA==").says("CDN-Cache-Control: max-age=3600, public"), get().cached(),
        ]),
        must("9111 3.5", "public in Cache-Control counts no more", &[
            get().with("Authorization: Basic eA==").says("CDN-Cache-Control: max-age=3600\nCache-Control: public"), get().reaches(),
        ]),
        may("9213 2.2", "a condition with it", &[
            get().says("CDN-Cache-Control: max-age=0\nETag: \"a\""), get().validated().says("CDN-Cache-Control: max-age=3600\nETag: \"a\""), get().cached_from(1),
        ]),
    ]
}

/// 2.1: "Targeted fields are Dictionary Structured Fields"; "If a targeted field in a given response is empty or a parsing
/// error is encountered, that field MUST be ignored by the cache (i.e., it behaves as if the field were not present, likely
/// falling back to other cache-control mechanisms present)."
#[rustfmt::skip]
fn structure() -> Vec<Row> {
    let mut rows = vec![
        reused("9213 2.1", "an unknown directive beside", "CDN-Cache-Control: foo, max-age=3600"),
        reused("9213 2.1", "an unknown directive with a list", "CDN-Cache-Control: foo=(1 2), max-age=3600"),
        reused("9213 2.1", "an unknown directive with octets", "CDN-Cache-Control: foo=:aGVsbG8=:, max-age=3600"),
        reused("9213 2.1", "a text with a directive inside", "CDN-Cache-Control: foo=\"no-store, max-age=0\", max-age=3600"),
        // "parameters received on directives are to be ignored, unless other handling is explicitly specified"
        reused("9213 2.1", "a parameter", "CDN-Cache-Control: max-age=3600;foo=bar"),
        not_reused("9213 2.1", "no-store with a parameter", "CDN-Cache-Control: no-store;foo\nCache-Control: max-age=3600"),
        reused("9213 2.1", "two lines are one dictionary", "CDN-Cache-Control: foo\nCDN-Cache-Control: max-age=3600"),
        reused("9213 2.1", "white space around the comma", "CDN-Cache-Control: foo ,\tmax-age=3600"),
        // RFC 9651 4.2.2: "if dictionary already contains a key, [...] overwrite": the last one counts.
        reused("9651 4.2.2", "of two the last counts: more", "CDN-Cache-Control: max-age=0, max-age=3600"),
        not_reused("9651 4.2.2", "of two the last counts: 0", "CDN-Cache-Control: max-age=3600, max-age=0"),
        reused("9213 2.1", "the name in other letters", "cdn-cache-control: max-age=3600"),
    ];
    for (what, value) in [
        ("empty", ""), ("capitals", "MAX-AGE=3600"), ("a comma behind", "max-age=3600,"), ("a comma before", ", max-age=3600"), ("two commas", "foo,,max-age=3600"),
        ("white space before the equals sign", "max-age =3600"), ("white space behind it", "max-age= 3600"), ("no value", "max-age="), ("a sign of no meaning", "max-age=@3600"),
        ("an open quote", "max-age=3600, foo=\"a"), ("an open list", "max-age=3600, foo=(a"), ("a plus", "max-age=+3600"), ("apostrophes", "max-age='3600'"),
        ("a number of sixteen digits", "max-age=1000000000000000"), ("a colon", "max-age:3600"), ("a word and a number", "max-age=3600 foo"),
    ] {
        rows.push(not_reused("9213 2.1", format!("ignored, no-store counts: {what}"), &format!("CDN-Cache-Control: {value}\nCache-Control: no-store")));
        rows.push(reused("9213 2.1", format!("ignored, max-age counts: {what}"), &format!("CDN-Cache-Control: {value}\nCache-Control: max-age=3600")));
    }
    // Whether a value of another type spoils the directive or the whole field: it allows nothing.
    for (what, value) in [
        ("a text", "\"3600\""), ("a fraction", "3600.5"), ("true", "?1"), ("a number below zero", "-3600"), ("a token", "long"), ("a list", "(3600)"), ("a date", "@3600"),
    ] {
        rows.push(not_reused("9213 2.1", format!("no lifetime: {what}"), &format!("CDN-Cache-Control: max-age={value}\nCache-Control: no-store")));
    }
    rows.push(not_reused("9213 2.1", "no lifetime: nothing but its name", "CDN-Cache-Control: max-age\nCache-Control: no-store"));
    rows
}

#[rustfmt::skip]
fn behind() -> Vec<Row> {
    vec![
        must("9111 4.2.3", "an Age counts", &[get().says("CDN-Cache-Control: max-age=3600\nAge: 4000"), get().reaches()]),
        must("9111 4.2.3", "a Date counts", &[get().says("CDN-Cache-Control: max-age=3600\nDate: {now-4000}"), get().reaches()]),
        // 3.1: "CDN-Cache-Control [...] Typically, caches [...] forward it"
        may("9213 3.1", "it goes on to the client", &[get().says("CDN-Cache-Control: max-age=3600\nCache-Control: max-age=60").has("CDN-Cache-Control: max-age=3600").has("Cache-Control: max-age=60")]),
        should("9213 2.2", "Cache-Control and Expires go on to the client from the store, too", &[
            get().says("CDN-Cache-Control: max-age=3600\nCache-Control: no-store\nExpires: 0"), get().cached().has("Cache-Control: no-store").has("Expires: 0"),
        ]),
        must("9213 2", "a request's own means nothing", &[
            get().says("Cache-Control: max-age=3600"), get().with("CDN-Cache-Control: no-cache").cached(),
        ]),
    ]
}

/// Edge Architecture Specification 1.0, section 2: Surrogate-Control is for surrogates alone.
#[rustfmt::skip]
fn surrogates() -> Vec<Row> {
    vec![
        reused("edge-arch 2.2", "Surrogate-Control: max-age", "Surrogate-Control: max-age=3600"),
        not_reused("edge-arch 2.2", "Surrogate-Control: max-age=0 before Cache-Control", "Surrogate-Control: max-age=0\nCache-Control: max-age=3600"),
        reused("edge-arch 2.2", "Surrogate-Control: max-age before Cache-Control: no-store", "Surrogate-Control: max-age=3600\nCache-Control: no-store"),
        reused("edge-arch 2.2", "Surrogate-Control: max-age before Cache-Control: max-age=0", "Surrogate-Control: max-age=3600\nCache-Control: max-age=0"),
        reused("edge-arch 2.2", "Surrogate-Control: max-age before Expires", "Surrogate-Control: max-age=3600\nExpires: {now-60}"),
        not_reused("edge-arch 2.2", "Surrogate-Control: no-store", "Surrogate-Control: no-store\nCache-Control: max-age=3600"),
        must("edge-arch 2.2", "Surrogate-Control: max-age that has passed", &[get().says("Surrogate-Control: max-age=1"), get().later(2).reaches()]),
        must("edge-arch 2.1", "Surrogate-Control does not reach the client", &[
            get().says("Surrogate-Control: max-age=3600").lacks("Surrogate-Control"), get().cached().lacks("Surrogate-Control"),
        ]),
    ]
}
