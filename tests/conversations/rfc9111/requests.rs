//! What a request may say about the cache: RFC 9111 section 5.2.1.

use super::engine::Table;
use super::words::{Row, get, head, may, must, should};

const HOUR: &str = "Cache-Control: max-age=3600";

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
    Table::new("requests", [ages(), stale(), reloads(), only_if_cached()])
}

#[rustfmt::skip]
fn ages() -> Vec<Row> {
    let hour = || get().says(HOUR);
    let half = || get().says(HOUR).says("Age: 1800");
    vec![
        // 5.2.1.1: "the client prefers a response whose age is less than or equal to the specified number of seconds"
        should("9111 5.2.1.1", "max-age=0 in a request", &[hour(), get().with("Cache-Control: max-age=0").reaches()]),
        should("9111 5.2.1.1", "max-age=0 in a request, with a validator", &[
            hour().says("ETag: \"a\""), get().with("Cache-Control: max-age=0").validated(),
        ]),
        should("9111 5.2.1.1", "max-age below the age", &[half(), get().with("Cache-Control: max-age=600").reaches()]),
        may("9111 5.2.1.1", "max-age above the age", &[half(), get().with("Cache-Control: max-age=2000").cached()]),
        should("9111 5.2.1.1", "max-age below the age that time has made", &[hour(), get().with("Cache-Control: max-age=1").later(3).reaches()]),
        must("9111 5.2.1.1", "max-age of a request does not stretch the response's", &[
            get().says("Cache-Control: max-age=1"), get().with("Cache-Control: max-age=3600").later(2).reaches(),
        ]),
        // 5.2.1.3: "the client prefers a response whose freshness lifetime is no less than its current age plus the specified
        // time in seconds"
        may("9111 5.2.1.3", "min-fresh that is met", &[hour(), get().with("Cache-Control: min-fresh=60").cached()]),
        should("9111 5.2.1.3", "min-fresh beyond the lifetime", &[hour(), get().with("Cache-Control: min-fresh=7200").reaches()]),
        should("9111 5.2.1.3", "min-fresh beyond what is left", &[half(), get().with("Cache-Control: min-fresh=2000").reaches()]),
        may("9111 5.2.1.3", "min-fresh within what is left", &[half(), get().with("Cache-Control: min-fresh=1000").cached()]),
        must("9111 5.2.3", "an unknown directive of a request changes nothing", &[hour(), get().with("Cache-Control: foo=1").cached()]),
        must("9111 5.2.1", "s-maxage of a request means nothing", &[half(), get().with("Cache-Control: s-maxage=0").cached()]),
        must("9111 5.2.1", "private of a request means nothing", &[get().with("Cache-Control: private").says(HOUR), get().cached()]),
    ]
}

/// 5.2.1.2: "the client will accept a response that has exceeded its freshness lifetime. If a value is present, then the
/// client is willing to accept a response that has exceeded its freshness lifetime by no more than the specified number of
/// seconds. If no value is assigned to max-stale, then the client will accept a stale response of any age."
#[rustfmt::skip]
fn stale() -> Vec<Row> {
    let second = |more: &str| get().says(&format!("Cache-Control: max-age=1{more}"));
    vec![
        may("9111 5.2.1.2", "max-stale takes any age", &[second(""), get().with("Cache-Control: max-stale").later(3).cached()]),
        may("9111 5.2.1.2", "max-stale with enough seconds", &[second(""), get().with("Cache-Control: max-stale=1000").later(3).cached()]),
        must("9111 5.2.1.2", "max-stale with too few seconds", &[second(""), get().with("Cache-Control: max-stale=1").later(4).reaches()]),
        must("9111 5.2.2.2", "max-stale against must-revalidate", &[
            second(", must-revalidate"), get().with("Cache-Control: max-stale=1000").later(3).reaches(),
        ]),
        must("9111 5.2.2.8", "max-stale against proxy-revalidate", &[
            second(", proxy-revalidate"), get().with("Cache-Control: max-stale=1000").later(3).reaches(),
        ]),
        must("9111 5.2.2.10", "max-stale against s-maxage", &[
            second(", s-maxage=1"), get().with("Cache-Control: max-stale=1000").later(3).reaches(),
        ]),
        must("9111 5.2.2.4", "max-stale against no-cache", &[
            second(", no-cache").says("ETag: \"a\""), get().with("Cache-Control: max-stale=1000").validated(),
        ]),
        may("9111 5.2.1.2", "max-stale tells the age", &[second(""), get().with("Cache-Control: max-stale").later(3).cached().age(3, 9)]),
    ]
}

#[rustfmt::skip]
fn reloads() -> Vec<Row> {
    let hour = || get().says(HOUR);
    vec![
        // 5.2.1.4: "the client prefers a stored response not be used to satisfy the request without successful validation"
        should("9111 5.2.1.4", "no-cache", &[hour(), get().with("Cache-Control: no-cache").reaches()]),
        should("9111 5.2.1.4", "No-Cache in other letters", &[hour(), get().with("Cache-Control: No-Cache").reaches()]),
        may("9111 5.2.1.4", "no-cache with an ETag is validated", &[
            hour().says("ETag: \"a\""), get().with("Cache-Control: no-cache").validated().asks("If-None-Match: \"a\""),
        ]),
        may("9111 5.2.1.4", "no-cache with a Last-Modified is validated", &[
            hour().says("Last-Modified: {now-3600}"), get().with("Cache-Control: no-cache").validated().asks("If-Modified-Since: {now-3600}"),
        ]),
        may("9111 5.2.1.4", "what a reload brings takes the old one's place", &[
            hour(), get().with("Cache-Control: no-cache").says(HOUR).reaches(), get().cached_from(2),
        ]),
        // 5.2.1.5: no-store "does not [...] prevent [...] from using" what is there; not using it is as good.
        may("9111 5.2.1.5", "no-store of a request leaves what is stored", &[
            hour(), get().with("Cache-Control: no-store").whoever().status(200), get().cached_from(1),
        ]),
        must("9111 5.2.1.5", "no-store of a request does not replace what is stored", &[
            get().with("Cache-Control: no-store").says(HOUR), get().says(HOUR).reaches(), get().cached_from(2),
        ]),
        may("9111 5.2.1.6", "no-transform of a request is no obstacle", &[hour(), get().with("Cache-Control: no-transform").cached()]),
    ]
}

/// 5.2.1.7: "Caches that honor this request directive SHOULD, upon receiving it, respond with either a stored response
/// consistent with the other constraints of the request or a 504 (Gateway Timeout) status code."
#[rustfmt::skip]
fn only_if_cached() -> Vec<Row> {
    let only = || get().with("Cache-Control: only-if-cached");
    vec![
        should("9111 5.2.1.7", "only-if-cached with nothing stored", &[only().refused(504)]),
        may("9111 5.2.1.7", "only-if-cached with a fresh response", &[get().says(HOUR), only().cached()]),
        should("9111 5.2.1.7", "only-if-cached with a stale response", &[get().says("Cache-Control: max-age=1"), only().later(2).refused(504)]),
        should("9111 5.2.1.7", "only-if-cached with no-cache", &[get().says(HOUR), only().with("Cache-Control: no-cache").refused(504)]),
        should("9111 5.2.1.7", "only-if-cached with a variant that is not there", &[
            get().with("X-A: 1").says(HOUR).says("Vary: X-A"), only().with("X-A: 2").refused(504),
        ]),
        may("9111 5.2.1.7", "only-if-cached with max-stale", &[
            get().says("Cache-Control: max-age=1"), only().with("Cache-Control: max-stale").later(2).cached(),
        ]),
        should("9111 5.2.1.7", "only-if-cached by HEAD", &[head().with("Cache-Control: only-if-cached").refused(504)]),
    ]
}
