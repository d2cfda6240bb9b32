//! Which of several stored responses a request selects: RFC 9111 section 4.1.

use super::engine::Table;
use super::words::{Row, Step, by, get, may, must, not_reused};

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

/// The origin server has been told the client's address by a reverse listener, and by nobody else.
#[test]
fn by_the_clients_address() {
    let answered = || varies("X-Forwarded-For").contains("Cache-Status", "vary-by-client");
    let reverse = must("9111 4.1", "reverse", &[answered(), answered()]);
    Table::new("by_address", [vec![reverse]]).holds_in_reverse_mode();
    let forward = may(
        "9111 4.1",
        "forward",
        &[
            varies("X-Forwarded-For").with("X-Forwarded-For: 192.0.2.1"),
            get().with("X-Forwarded-For: 192.0.2.1").cached(),
            get().with("X-Forwarded-For: 192.0.2.2").reaches(),
        ],
    );
    Table::new("by_address", [vec![forward]]).holds_in_forward_mode();
}

fn table() -> Table {
    Table::new(
        "vary",
        [
            matching(),
            any(),
            variants(),
            changing(),
            normalised(),
            normalised_further(),
            negotiated(),
        ],
    )
}

/// A response for an hour that varies so.
fn varies(by: &str) -> Step {
    get().says(&format!("Cache-Control: max-age=3600\nVary: {by}"))
}

/// "the cache MUST NOT use that stored response without revalidation unless all the presented request header fields
/// nominated by that Vary field value match those fields in the original request"
#[rustfmt::skip]
fn matching() -> Vec<Row> {
    vec![
        may("9111 4.1", "the same value", &[varies("X-A").with("X-A: 1"), get().with("X-A: 1").cached()]),
        must("9111 4.1", "another value", &[varies("X-A").with("X-A: 1"), get().with("X-A: 2").reaches()]),
        must("9111 4.1", "a value that begins alike", &[varies("X-A").with("X-A: 1"), get().with("X-A: 10").reaches()]),
        // "If [...] a header field is absent from a request, it can only match another request if it is also absent there."
        may("9111 4.1", "absent in both", &[varies("X-A"), get().cached()]),
        must("9111 4.1", "absent in the second", &[varies("X-A").with("X-A: 1"), get().reaches()]),
        must("9111 4.1", "absent in the first", &[varies("X-A"), get().with("X-A: 1").reaches()]),
        must("9111 4.1", "absent is not empty", &[varies("X-A"), get().with("X-A:").reaches()]),
        must("9111 4.1", "empty is not absent", &[varies("X-A").with("X-A:"), get().reaches()]),
        must("9111 4.1", "values are compared as they are", &[varies("X-A").with("X-A: a"), get().with("X-A: A").reaches()]),
        may("9110 5.1", "names are compared in any letters", &[varies("x-A").with("X-a: 1"), get().with("x-a: 1").cached()]),
        may("9111 4.1", "a field that Vary does not name", &[varies("X-A").with("X-A: 1\nX-B: 1"), get().with("X-A: 1\nX-B: 2").cached()]),
        may("9111 4.1", "three fields that match", &[
            varies("X-A, X-B, X-C").with("X-A: 1\nX-B: 2\nX-C: 3"), get().with("X-C: 3\nX-A: 1\nX-B: 2").cached(),
        ]),
        must("9111 4.1", "three fields of which one does not match", &[
            varies("X-A, X-B, X-C").with("X-A: 1\nX-B: 2\nX-C: 3"), get().with("X-A: 1\nX-B: 2\nX-C: 4").reaches(),
        ]),
        must("9111 4.1", "three fields of which one is absent", &[
            varies("X-A, X-B, X-C").with("X-A: 1\nX-B: 2\nX-C: 3"), get().with("X-A: 1\nX-B: 2").reaches(),
        ]),
        must("9110 12.5.5", "Vary on two lines", &[
            varies("X-A\nVary: X-B").with("X-A: 1\nX-B: 1"), get().with("X-A: 1\nX-B: 2").reaches(),
        ]),
        must("9111 4.1", "an empty Vary selects all", &[varies("").with("X-A: 1"), get().with("X-A: 2").cached()]),
        must("9110 12.5.5", "empty members of Vary", &[varies(", ,X-A,").with("X-A: 1"), get().with("X-A: 2").reaches()]),
        must("9111 4.1", "Vary: Cookie", &[varies("Cookie").with("Cookie: a=1"), get().with("Cookie: a=2").reaches()]),
        must("9111 4.1", "Vary: Authorization", &[
            varies("Authorization").says("Cache-Control: public").with("Authorization: Basic eA=="), get().with("Authorization: Basic eQ==").reaches(),
        ]),
        must("9111 4.1", "a variant of its own needs validation by itself", &[
            get().with("X-A: 1").says("Cache-Control: max-age=1\nVary: X-A"), get().with("X-A: 1").later(2).reaches(),
        ]),
    ]
}

/// "A stored response with a Vary header field value containing a member "*" always fails to match."
fn any() -> Vec<Row> {
    [
        "*",
        " * ",
        "*, *",
        "X-A, *",
        "*, X-A",
        "X-A\nVary: *",
        "*\nVary: X-A",
        ", *",
        "*,",
        "X-A, *, X-B",
    ]
    .into_iter()
    .map(|value| {
        let fields = format!("Cache-Control: max-age=3600\nVary: {value}");
        not_reused("9111 4.1", format!("Vary: {value:?}"), &fields)
    })
    .collect()
}

#[rustfmt::skip]
fn variants() -> Vec<Row> {
    vec![
        may("9111 4.1", "two variants side by side", &[
            varies("X-A").with("X-A: 1"), varies("X-A").with("X-A: 2"), get().with("X-A: 1").cached_from(1), get().with("X-A: 2").cached_from(2),
        ]),
        may("9111 4.1", "four variants side by side", &[
            varies("X-A").with("X-A: 1"), varies("X-A").with("X-A: 2"), varies("X-A").with("X-A: 3"), varies("X-A").with("X-A: 4"),
            get().with("X-A: 3").cached_from(3), get().with("X-A: 1").cached_from(1), get().with("X-A: 4").cached_from(4), get().with("X-A: 2").cached_from(2),
        ]),
        may("9111 4.1", "a variant for those without the field", &[
            varies("X-A").with("X-A: 1"), varies("X-A"), get().with("X-A: 1").cached_from(1), get().cached_from(2),
        ]),
        // 4: "When more than one suitable response is stored, a cache MUST use the most recent one (as determined by the Date
        // header field)."
        must("9111 4", "of two that match the most recent", &[
            varies("X-A").with("X-A: 1\nX-B: 1").says("Date: {now-10}"), varies("X-B").with("X-A: 2\nX-B: 2").says("Date: {now}"),
            get().with("X-A: 1\nX-B: 2").cached_from(2),
        ]),
        may("9111 4.1", "variants that vary by different fields", &[
            varies("X-A").with("X-A: 1\nX-B: 1"), varies("X-A, X-B").with("X-A: 2\nX-B: 2"),
            get().with("X-A: 1\nX-B: 9").cached_from(1), get().with("X-A: 2\nX-B: 2").cached_from(2), get().with("X-A: 2\nX-B: 9").reaches(),
        ]),
        must("9111 4.4", "an unsafe request invalidates all variants", &[
            varies("X-A").with("X-A: 1"), varies("X-A").with("X-A: 2"), super::words::by("DELETE"),
            get().with("X-A: 1").reaches(), get().with("X-A: 2").reaches(),
        ]),
        // 4.1: "If no stored response matches, the cache cannot satisfy the presented request. Typically, the request is
        // forwarded to the origin server, potentially with preconditions added": its 304 selects the variant (4.3.1).
        may("9111 4.3.1", "a 304 to all stored validators selects the variant", &[
            varies("X-A").with("X-A: 1").says("ETag: \"a\""), varies("X-A").with("X-A: 2").says("ETag: \"b\""),
            get().with("X-A: 3").validated().asks("If-None-Match: \"a\"").asks("If-None-Match: \"b\"").says("ETag: \"a\"\nVary: X-A").status(200).gives("what step 1 of {path} says"),
        ]),
    ]
}

/// "matching [...] by any of: adding or removing whitespace, where allowed in the header field's syntax; combining multiple
/// header field lines with the same field name; normalizing both header field values in a way that is known to have identical
/// semantics, according to the header field's specification"
#[rustfmt::skip]
fn normalised() -> Vec<Row> {
    vec![
        may("9111 4.1", "lines of an unknown field combined", &[
            varies("X-A").with("X-A: 1\nX-A: 2"), get().with("X-A: 1, 2").cached(),
        ]),
        may("9111 4.1", "white space around commas", &[varies("X-A").with("X-A: 1,2"), get().with("X-A: 1 ,\t2").cached()]),
        must("9111 4.1", "another order in an unknown field", &[varies("X-A").with("X-A: 1, 2"), get().with("X-A: 2, 1").reaches()]),
        may("9111 4.1", "Accept-Language in other letters", &[varies("Accept-Language").with("Accept-Language: en, de"), get().with("Accept-Language: eN, De").cached()]),
        may("9111 4.1", "Accept-Language with other white space", &[varies("Accept-Language").with("Accept-Language: en,de"), get().with("Accept-Language:  en ,  de").cached()]),
        may("9111 4.1", "Accept-Language in another order with the same weights", &[
            varies("Accept-Language").with("Accept-Language: en, de"), get().with("Accept-Language: de, en").cached(),
        ]),
        may("9111 4.1", "Accept-Language with its weights written otherwise", &[
            varies("Accept-Language").with("Accept-Language: en;q=0.50, de"), get().with("Accept-Language: de;q=1.0, en; q=0.5").cached(),
        ]),
        must("9111 4.1", "Accept-Language with other weights", &[
            varies("Accept-Language").with("Accept-Language: en;q=0.5, de"), get().with("Accept-Language: en, de;q=0.5").reaches(),
        ]),
        may("9111 4.1", "Accept-Encoding in another order and other letters", &[
            varies("Accept-Encoding").with("Accept-Encoding: gzip, br"), get().with("Accept-Encoding: BR,GZIP").cached(),
        ]),
        must("9111 4.1", "Accept-Encoding with another coding", &[
            varies("Accept-Encoding").with("Accept-Encoding: gzip, br"), get().with("Accept-Encoding: gzip").reaches(),
        ]),
        must("9111 4.1", "Accept-Encoding that refuses what it took", &[
            varies("Accept-Encoding").with("Accept-Encoding: gzip"), get().with("Accept-Encoding: gzip;q=0").reaches(),
        ]),
        must("9111 4.1", "Accept-Encoding in lines of its own", &[
            varies("Accept-Encoding").with("Accept-Encoding: gzip\nAccept-Encoding: br"), get().with("Accept-Encoding: gzip, br").cached(),
        ]),
    ]
}

/// What Vary says may change from one response to the next.
#[rustfmt::skip]
fn changing() -> Vec<Row> {
    vec![
        may("9111 4.1", "a later response varies by more: both are there", &[
            varies("X-A").with("X-A: 1"), varies("X-A, X-B").with("X-A: 2\nX-B: 1"),
            get().with("X-A: 1\nX-B: 9").cached_from(1), get().with("X-A: 2\nX-B: 1").cached_from(2),
        ]),
        must("9111 4.1", "a later response varies by more: what it does not answer", &[
            varies("X-A").with("X-A: 1"), varies("X-A, X-B").with("X-A: 2\nX-B: 1"), get().with("X-A: 2\nX-B: 2").reaches(),
        ]),
        may("9111 4.1", "the names in another order", &[varies("X-A, X-B").with("X-A: 1\nX-B: 2"), varies("X-B, X-A").with("X-A: 2\nX-B: 2"),
            get().with("X-A: 1\nX-B: 2").cached_from(1), get().with("X-A: 2\nX-B: 2").cached_from(2),
        ]),
        must("9111 4.1", "of several that match the most recent answers", &[
            varies("X-A").with("X-A: 1"), varies("X-B").with("X-A: 2\nX-B: 1"), get().with("X-A: 1\nX-B: 1").cached_from(2),
        ]),
        may("9111 4.1", "a response that does not vary answers all", &[
            varies("X-A").with("X-A: 1"), get().with("X-A: 2").says("Cache-Control: max-age=3600").reaches(), get().with("X-A: 3").cached_from(2),
        ]),
        must("9111 4.4", "an unsafe request ends all variants", &[
            varies("X-A").with("X-A: 1"), varies("X-A").with("X-A: 2"), by("DELETE").with("X-A: 1").reaches(), get().with("X-A: 2").reaches(),
        ]),
        may("9111 4.3.4", "what one variant's 304 says is said of that one", &[
            varies("X-A").with("X-A: 1").says("ETag: \"a\"\nX-B: old"), varies("X-A").with("X-A: 2").says("ETag: \"b\"\nX-B: old"),
            get().with("X-A: 1\nCache-Control: no-cache").answers(304).whoever().says("ETag: \"a\"\nX-B: new").status(200).has("X-B: new"),
            get().with("X-A: 1").cached_from(1).has("X-B: new"), get().with("X-A: 2").cached_from(2).has("X-B: old"),
        ]),
        must("9111 3.2", "a 304 that varies by more ends the old selection", &[
            varies("X-A").with("X-A: 1").says("ETag: \"a\""),
            get().with("X-A: 1\nX-B: 1\nCache-Control: no-cache").validated().says("ETag: \"a\"\nVary: X-A, X-B"), get().with("X-A: 1\nX-B: 2").reaches(),
        ]),
        must("9111 4.1", "a reload replaces its own variant", &[
            varies("X-A").with("X-A: 1"), varies("X-A").with("X-A: 2"), varies("X-A").with("X-A: 1\nCache-Control: no-cache").reaches(), get().with("X-A: 1").cached_from(3),
        ]),
    ]
}

/// The rest of what is normalised, and where it ends.
#[rustfmt::skip]
fn normalised_further() -> Vec<Row> {
    let varied = |name: &str, one: &str, other: &str| [varies(name).with(&format!("{name}: {one}")), get().with(&format!("{name}: {other}"))];
    let same = |name: &str, one: &str, other: &str, what: &str| {
        let [first, second] = varied(name, one, other);
        may("9111 4.1", format!("{name}: {what}"), &[first, second.cached()])
    };
    let other = |name: &str, one: &str, other: &str, what: &str| {
        let [first, second] = varied(name, one, other);
        must("9111 4.1", format!("{name}: {what}"), &[first, second.reaches()])
    };
    vec![
        same("Accept-Language", "en;q=0.5, de;q=0.7", "de ;q=0.70 ,en; Q=0.5", "weights in order"),
        same("Accept-Language", "en\nAccept-Language: de", "de, EN", "several lines"),
        same("Accept-Charset", "utf-8, iso-8859-1;q=0.5", "ISO-8859-1;q=0.5, UTF-8", "case and order"),
        same("Accept", "text/html, text/plain;q=0.5", "TEXT/html,text/plain; q=0.50", "case and weights"),
        other("Accept", "text/html;x=a", "text/html;x=A", "a parameter's value"),
        other("Accept-Language", "en, de", "en", "one less"),
        other("Accept-Language", "en, de;q=0", "en", "one refused"),
        other("Accept-Encoding", "gzip, br;q=0.5", "br, gzip;q=0.5", "weights the other way round"),
        other("Accept-Encoding", "gzip", "", "nothing"),
        other("Accept-Language", "en;q=x", "en", "a weight that is none"),
        other("Cookie", "a=1; b=2", "b=2; a=1", "pairs in another order"),
    ]
}

/// 4.1: a cache may go by how the origin server selects where it knows, as by Content-Language.
#[rustfmt::skip]
fn negotiated() -> Vec<Row> {
    let said = |language: &str| varies("Accept-Language").says(&format!("Content-Language: {language}"));
    vec![
        may("9111 4.1", "the most preferred language is there", &[
            said("de").with("Accept-Language: de"), said("en").with("Accept-Language: en"),
            get().with("Accept-Language: en, de;q=0.5").cached_from(2), get().with("Accept-Language: de, en;q=0.5").cached_from(1),
        ]),
        may("9111 4.1", "the most preferred language of those that came together", &[
            said("de").with("Accept-Language: en, de"), get().with("Accept-Language: fr;q=0.5, de;q=1.0").cached_from(1),
        ]),
        must("9111 4.1", "the language does not help where another field differs", &[
            said("de").says("Vary: X-A").with("Accept-Language: de\nX-A: 1"), get().with("Accept-Language: de, en;q=0.5\nX-A: 2").reaches(),
        ]),
        must("9111 4.1", "no language is preferred", &[said("de").with("Accept-Language: de"), get().with("Accept-Language: en, de").reaches()]),
        must("9111 4.1", "the only language is refused", &[said("de").with("Accept-Language: de"), get().with("Accept-Language: de;q=0").reaches()]),
        must("9111 4.1", "one of several content languages", &[said("de, en").with("Accept-Language: de, en"), get().with("Accept-Language: de").reaches()]),
        may("9111 4.3.4", "what was selected by its language is refreshed for all", &[
            get().with("Accept-Language: de").says("Cache-Control: max-age=1\nVary: Accept-Language\nContent-Language: de\nETag: \"a\""),
            get().with("Accept-Language: de, en;q=0.5").later(2).validated().says("Cache-Control: max-age=3600\nETag: \"a\""),
            get().with("Accept-Language: de").cached_from(1), get().with("Accept-Language: de, en;q=0.5").cached_from(1),
        ]),
        must("9111 4.1", "only a less preferred language is there", &[
            said("de").with("Accept-Language: de"), get().with("Accept-Language: en, de;q=0.5").reaches(),
        ]),
    ]
}
