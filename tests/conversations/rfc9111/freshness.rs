//! How long a response is fresh, and how old it is: RFC 9111 sections 4.2, 5.1, 5.2.2 and 5.3.

use super::engine::Table;
use super::words::{Row, get, head, may, must, not_reused, reused, should};

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
        "freshness",
        [lifetimes(), precedence(), directives(), ages(), generated()],
    )
}

#[rustfmt::skip]
fn lifetimes() -> Vec<Row> {
    vec![
        // 4.2.1: "If the max-age response directive is present, use its value"
        reused("9111 5.2.2.1", "max-age", "Cache-Control: max-age=3600"),
        not_reused("9111 5.2.2.1", "max-age=0", "Cache-Control: max-age=0"),
        reused("9111 1.2.2", "max-age of 2^31 - 1", "Cache-Control: max-age=2147483647"),
        // "If a cache receives a delta-seconds value greater than the greatest integer it can represent [...] the cache
        // MUST consider the value to be 2147483648 (2^31) or the greatest positive integer it can conveniently represent."
        reused("9111 1.2.2", "max-age of 2^31", "Cache-Control: max-age=2147483648"),
        reused("9111 1.2.2", "max-age beyond 32 bits", "Cache-Control: max-age=4294967297"),
        reused("9111 1.2.2", "max-age beyond 64 bits", "Cache-Control: max-age=99999999999999999999999"),
        must("9111 4.2", "max-age has passed", &[get().says("Cache-Control: max-age=1"), get().later(2).reaches()]),
        // 5.2.2.10: "for a shared cache, the maximum age specified by this directive overrides the maximum age specified
        // by either the max-age directive or the Expires header field"
        reused("9111 5.2.2.10", "s-maxage", "Cache-Control: s-maxage=3600"),
        not_reused("9111 5.2.2.10", "s-maxage=0", "Cache-Control: s-maxage=0"),
        must("9111 5.2.2.10", "s-maxage has passed", &[get().says("Cache-Control: s-maxage=1"), get().later(2).reaches()]),
        reused("9111 5.3", "Expires in the future", "Expires: {now+3600}"),
        reused("9111 5.3", "Expires in the future, with a Date", "Expires: {now+3600}\nDate: {now}"),
        not_reused("9111 5.3", "Expires in the past", "Expires: {now-3600}\nDate: {now}"),
        not_reused("9111 5.3", "Expires in the past, without a Date", "Expires: {now-3600}"),
        not_reused("9111 5.3", "Expires of this moment", "Expires: {now}\nDate: {now}"),
        must("9111 5.3", "Expires has passed", &[get().says("Expires: {now+1}\nDate: {now}"), get().later(2).reaches()]),
        // 4.2.1: "use its value minus the value of the Date response header field"
        reused("9111 4.2.1", "Expires counts from a Date ahead", "Expires: {now+7200}\nDate: {now+3600}"),
        not_reused("9111 4.2.1", "Expires before a Date ahead", "Expires: {now+3600}\nDate: {now+7200}"),
        not_reused("9111 4.2.1", "Expires after a Date that is past, both gone by", "Expires: {now-3600}\nDate: {now-7200}"),
        not_reused("9111 4.2.1", "no lifetime at all", "X-Nothing: said"),
        not_reused("9111 4.2.1", "a Date alone is no lifetime", "Date: {now}"),
        not_reused("9111 4.2.1", "an ETag alone is no lifetime", "ETag: \"a\""),
    ]
}

#[rustfmt::skip]
fn precedence() -> Vec<Row> {
    vec![
        reused("9111 5.3", "max-age before Expires in the past", "Cache-Control: max-age=3600\nExpires: {now-3600}\nDate: {now}"),
        not_reused("9111 5.3", "max-age=0 before Expires in the future", "Cache-Control: max-age=0\nExpires: {now+3600}\nDate: {now}"),
        reused("9111 5.3", "max-age before Expires: 0", "Cache-Control: max-age=3600\nExpires: 0"),
        reused("9111 5.2.2.10", "s-maxage before max-age=0", "Cache-Control: max-age=0, s-maxage=3600"),
        reused("9111 5.2.2.10", "s-maxage before max-age=0, the other way round", "Cache-Control: s-maxage=3600, max-age=0"),
        not_reused("9111 5.2.2.10", "s-maxage=0 before max-age", "Cache-Control: max-age=3600, s-maxage=0"),
        not_reused("9111 5.2.2.10", "s-maxage=0 before max-age, the other way round", "Cache-Control: s-maxage=0, max-age=3600"),
        reused("9111 5.2.2.10", "s-maxage before Expires in the past", "Cache-Control: s-maxage=3600\nExpires: {now-10}"),
        not_reused("9111 5.2.2.10", "s-maxage=0 before Expires in the future", "Cache-Control: s-maxage=0\nExpires: {now+3600}"),
        reused("9111 5.3", "an unknown directive leaves Expires alone", "Cache-Control: community=\"UCI\"\nExpires: {now+3600}"),
        // 5.4: "When the Cache-Control header field is also present and understood in a response, Pragma is ignored."
        reused("9111 5.4", "Pragma beside max-age", "Cache-Control: max-age=3600\nPragma: no-cache"),
        reused("9111 5.4", "an unknown Pragma beside max-age", "Cache-Control: max-age=3600\nPragma: unknown"),
        // "its meaning in a response was never specified": it does not undo an explicit lifetime.
        reused("9111 5.4", "Pragma beside Expires", "Expires: {now+3600}\nPragma: unknown"),
    ]
}

#[rustfmt::skip]
fn directives() -> Vec<Row> {
    vec![
        not_reused("9111 5.2.2.4", "no-cache", "Cache-Control: no-cache"),
        not_reused("9111 5.2.2.4", "no-cache beside max-age", "Cache-Control: max-age=3600, no-cache"),
        not_reused("9111 5.2.2.4", "no-cache beside s-maxage", "Cache-Control: s-maxage=3600, no-cache"),
        not_reused("9111 5.2.2.4", "no-cache beside Expires", "Cache-Control: no-cache\nExpires: {now+3600}"),
        not_reused("9111 5.2.2.4", "no-cache beside public", "Cache-Control: public, max-age=3600, no-cache"),
        not_reused("9111 5.2.2.4", "no-cache beside immutable", "Cache-Control: max-age=3600, immutable, no-cache"),
        may("9111 5.2.2.4", "no-cache is validated, and then used", &[
            get().says("Cache-Control: max-age=3600, no-cache\nETag: \"a\""), get().validated().says("ETag: \"a\""), get().validated().says("ETag: \"a\""),
        ]),
        // 5.2.2.2: "once the response has become stale, a cache MUST NOT reuse that response [...] until it has been
        // successfully validated"; until then it is like any other.
        reused("9111 5.2.2.2", "must-revalidate while it is fresh", "Cache-Control: max-age=3600, must-revalidate"),
        reused("9111 5.2.2.8", "proxy-revalidate while it is fresh", "Cache-Control: max-age=3600, proxy-revalidate"),
        must("9111 5.2.2.2", "must-revalidate when it is stale", &[
            get().says("Cache-Control: max-age=1, must-revalidate"), get().later(2).reaches(),
        ]),
        must("9111 5.2.2.8", "proxy-revalidate when it is stale", &[
            get().says("Cache-Control: max-age=1, proxy-revalidate"), get().later(2).reaches(),
        ]),
        reused("9111 5.2.2.9", "public", "Cache-Control: public, max-age=3600"),
        reused("9111 5.2.2.6", "no-transform is no obstacle", "Cache-Control: max-age=3600, no-transform"),
        reused("8246 2", "immutable while it is fresh", "Cache-Control: max-age=3600, immutable"),
        must("8246 2", "immutable when it is stale", &[get().says("Cache-Control: max-age=1, immutable"), get().later(2).reaches()]),
    ]
}

/// 4.2.3: "corrected_initial_age = max(apparent_age, corrected_age_value)"
#[rustfmt::skip]
fn ages() -> Vec<Row> {
    vec![
        reused("9111 4.2.3", "an Age below max-age", "Cache-Control: max-age=3600\nAge: 1800"),
        not_reused("9111 4.2.3", "an Age of max-age", "Cache-Control: max-age=3600\nAge: 3600"),
        not_reused("9111 4.2.3", "an Age beyond max-age", "Cache-Control: max-age=3600\nAge: 12000"),
        not_reused("9111 4.2.3", "an Age beyond s-maxage", "Cache-Control: s-maxage=3600, max-age=36000\nAge: 12000"),
        not_reused("9111 4.2.3", "an Age beyond Expires", "Expires: {now+3600}\nDate: {now}\nAge: 12000"),
        not_reused("9111 4.2.3", "an Age beyond Expires, without a Date", "Expires: {now+3600}\nAge: 12000"),
        not_reused("9111 4.2.3", "a Date further back than max-age", "Cache-Control: max-age=3600\nDate: {now-7200}"),
        reused("9111 4.2.3", "a Date less far back than max-age", "Cache-Control: max-age=3600\nDate: {now-1800}"),
        not_reused("9111 4.2.3", "the older of Age and Date counts: Age", "Cache-Control: max-age=3600\nDate: {now}\nAge: 4000"),
        not_reused("9111 4.2.3", "the older of Age and Date counts: Date", "Cache-Control: max-age=3600\nDate: {now-4000}\nAge: 0"),
        reused("9111 4.2.3", "a Date ahead of us makes no negative age", "Cache-Control: max-age=3600\nDate: {now+7200}"),
        must("9111 4.2.3", "a Date ahead of us does not stretch max-age", &[
            get().says("Cache-Control: max-age=1\nDate: {now+7200}"), get().later(2).reaches(),
        ]),
        must("9111 4.2.3", "the time in the cache adds to Age", &[
            get().says("Cache-Control: max-age=60\nAge: 58"), get().later(3).reaches(),
        ]),
    ]
}

/// 5.1: "The presence of an Age header field implies that the response was not generated or validated by the origin server
/// for this request"; 4: "a cache [...] MUST generate an Age header field"
#[rustfmt::skip]
fn generated() -> Vec<Row> {
    vec![
        must("9111 4", "Age on a stored response", &[get().says("Cache-Control: max-age=3600"), get().cached().age(0, 5)]),
        must("9111 4", "Age counts on", &[get().says("Cache-Control: max-age=3600"), get().later(2).cached().age(2, 9)]),
        must("9111 4", "Age counts on from an Age that came", &[
            get().says("Cache-Control: max-age=3600\nAge: 100"), get().later(2).cached().age(102, 109),
        ]),
        must("9111 4", "Age counts on from a Date that is past", &[
            get().says("Cache-Control: max-age=3600\nDate: {now-100}"), get().cached().age(100, 105),
        ]),
        must("9111 4", "Age on the answer to HEAD", &[
            get().says("Cache-Control: max-age=3600\nAge: 30"), head().cached().age(30, 35),
        ]),
        must("9111 4", "Age on a 304 from the store", &[
            get().says("Cache-Control: max-age=3600\nAge: 30\nETag: \"a\""),
            get().with("If-None-Match: \"a\"").cached().status(304).age(30, 35),
        ]),
        must("9111 5.1", "a first-hand response has no Age", &[get().says("Cache-Control: max-age=3600").lacks("Age")]),
        must("9111 5.1", "an Age from upstream goes on to the client", &[
            get().says("Cache-Control: max-age=3600\nAge: 30").age(30, 33),
        ]),
        must("9111 4.2.3", "a validated response is new again", &[
            get().says("Cache-Control: max-age=1\nETag: \"a\"\nDate: {now}"),
            get().later(3).validated().says("Cache-Control: max-age=3600\nETag: \"a\"\nDate: {now+3}"),
            get().cached().age(0, 2),
        ]),
        // RFC 9110 6.6.1: "A recipient with a clock that receives a response message without a Date header field MUST
        // record the time it was received and append a corresponding Date header field"
        must("9110 6.6.1", "a Date where the origin has none", &[
            get().says("Cache-Control: max-age=3600"), get().cached().contains("Date", "GMT"),
        ]),
        must("9111 4.2.3", "the origin's own Date stays", &[
            get().says("Cache-Control: max-age=3600\nDate: {now-30}"), get().cached().has("Date: {now-30}"),
        ]),
        should("9211 2", "Cache-Status tells hit", &[
            get().says("Cache-Control: max-age=3600").contains("Cache-Status", "fwd=uri-miss"), get().cached().contains("Cache-Status", "; hit"),
        ]),
    ]
}
