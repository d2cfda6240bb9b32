//! Parts of representations: RFC 9110 section 14, RFC 9111 sections 3.3 and 3.4.

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
        "ranges",
        [
            single(),
            several(),
            outside(),
            conditional(),
            missing(),
            parts(),
            incomplete(),
        ],
    )
}

const ALL: &str = "0123456789";

/// Ten octets, for an hour.
fn whole() -> Step {
    get()
        .says("Cache-Control: max-age=3600\nETag: \"a\"")
        .body(ALL)
}

fn range(of: &str) -> Step {
    get().with(&format!("Range: bytes={of}"))
}

/// Asks for octets, and the origin server gives these of ten, for an hour.
fn part(from: usize, to: usize, validator: &str) -> Step {
    range(&format!("{from}-{to}"))
        .answers(206)
        .says(&format!(
            "Cache-Control: max-age=3600\n{validator}\nContent-Range: bytes {from}-{to}/10"
        ))
        .body(&ALL[from..=to])
}

/// RFC 9110 14.2: "A server that supports range requests MAY [...] respond [...] with a 206"; from a stored whole response.
fn single() -> Vec<Row> {
    [
        ("the first octets", "0-3", "0123", "0-3"),
        ("octets in the middle", "2-5", "2345", "2-5"),
        ("one octet", "0-0", "0", "0-0"),
        ("the last octet", "9-9", "9", "9-9"),
        // "If the last-pos value is absent, or if the value is greater than or equal to the current length of the
        // representation data, the byte range is interpreted as the remainder of the representation"
        ("from an octet on", "7-", "789", "7-9"),
        ("from the first octet on", "0-", ALL, "0-9"),
        ("beyond the end", "7-99", "789", "7-9"),
        ("far beyond the end", "7-99999999999999999999999", "789", "7-9"),
        // "If the selected representation is shorter than the specified suffix-length, the entire representation is used."
        ("the last octets", "-3", "789", "7-9"),
        ("more of the last octets than there are", "-99", ALL, "0-9"),
        ("leading zeros", "0002-0005", "2345", "2-5"),
    ]
    .into_iter()
    .map(|(what, asked, content, is)| {
        let asks = range(asked).cached().status(206).gives(content);
        let steps = [whole(), asks.has(&format!("Content-Range: bytes {is}/10")).has(&format!("Content-Length: {}", content.len()))];
        may("9110 14.1.2", what, &steps)
    })
    .chain([
        may("9110 14.1", "the unit in other letters", &[whole(), get().with("Range: Bytes=2-5").whoever().gives("2345").status(206)]),
        must("9110 15.3.7", "a 206 has the fields that a 200 has", &[
            whole().says("Content-Type: text/plain\nLast-Modified: {now-60}\nVary: X-A\nContent-Location: /x"),
            range("2-5").cached().status(206).gives("2345").has("ETag: \"a\"").has("Content-Type: text/plain").has("Vary: X-A").has("Content-Location: /x").has("Cache-Control: max-age=3600"),
        ]),
        must("9111 4", "a 206 from the store has an Age", &[whole().says("Age: 30"), range("2-5").cached().status(206).gives("2345").age(30, 35)]),
        // "A server MUST ignore a Range header field received with a request method that is unrecognized or for which range
        // handling is not defined. For this specification, GET is the only method for which range handling is defined."
        may("9110 14.2", "HEAD has no ranges", &[whole(), head().with("Range: bytes=2-5").cached().status(200).has("Content-Length: 10")]),
    ])
    .collect()
}

#[rustfmt::skip]
fn several() -> Vec<Row> {
    let parts = |of: &str| range(of).cached().status(206).contains("Content-Type", "multipart/byteranges; boundary=").lacks("Content-Range");
    let plenty = vec!["0-"; 800].join(",");
    vec![
        may("9110 15.3.7.2", "two ranges", &[
            whole(), parts("0-1,8-9").holds("Content-Range: bytes 0-1/10\r\n\r\n01\r\n").holds("Content-Range: bytes 8-9/10\r\n\r\n89\r\n"),
        ]),
        may("9110 15.3.7.2", "two ranges, with their type", &[
            whole().says("Content-Type: text/plain"), parts("0-1,8-9").holds("Content-Type: text/plain\r\n"),
        ]),
        may("9110 15.3.7.2", "a range and a suffix, with white space", &[
            whole(), parts("0-1 ,\t-1").holds("bytes 0-1/10").holds("bytes 9-9/10"),
        ]),
        // "A server that generates a multipart response to a request for a single range MUST NOT"
        may("9110 15.3.7.2", "several of which one is there", &[
            whole(), range("2-5,50-60").whoever().status(206).gives("2345").has("Content-Range: bytes 2-5/10"),
        ]),
        // "a server MAY coalesce any of the ranges that overlap, or that are separated by a gap that is smaller than the
        // overhead of sending multiple parts"
        may("9110 15.3.7.2", "overlapping ranges are one", &[
            whole(), range("2-5,4-7").whoever().status(206).gives("234567").has("Content-Range: bytes 2-7/10"),
        ]),
        // "A server that supports range requests MAY ignore or reject a Range header field that contains [...] a ranges-
        // specifier with more than two overlapping ranges or a set of many small ranges"
        should("9110 14.2", "hundreds of ranges do not make hundreds of parts", &[
            get().says("Cache-Control: max-age=3600").body(ALL), range(&plenty).body(ALL).whoever().contains("Content-Length", "10"),
        ]),
    ]
}

#[rustfmt::skip]
fn outside() -> Vec<Row> {
    let mut rows = vec![
        // RFC 9110 15.5.17: 416 "SHOULD generate a Content-Range header field specifying the current length"
        should("9110 15.5.17", "a range beyond the end", &[whole(), range("10-").whoever().status(416).has("Content-Range: bytes */10")]),
        should("9110 15.5.17", "ranges all beyond the end", &[whole(), range("10-,20-30").whoever().status(416).has("Content-Range: bytes */10")]),
        should("9110 15.5.17", "the last no octets", &[whole(), range("-0").whoever().status(416).has("Content-Range: bytes */10")]),
        must("9110 15.5.17", "a 416 of the origin server goes to the client", &[
            range("50-60").answers(416).says("Content-Range: bytes */10").reaches(),
        ]),
        must("9110 15.5.17", "a 416 is not what others get", &[
            range("50-60").answers(416).says("Content-Range: bytes */10\nCache-Control: max-age=3600").reaches(), get().reaches(),
        ]),
        must("9110 15.5.17", "a 416 leaves what is stored", &[
            whole(), range("50-60").with("Cache-Control: no-cache").answers(416).says("Content-Range: bytes */10").whoever(), get().whoever().status(200),
        ]),
    ];
    // RFC 9110 14.2: "A server [...] MUST ignore a Range header field that contains a range unit it does not understand. A
    // proxy MAY discard"; and 14.1.1: a "ranges-specifier that is invalid" is as none.
    for (what, line) in [
        ("another unit", "lines=1-2"), ("no number", "bytes=a-b"), ("nothing", "bytes="), ("a minus alone", "bytes=-"), ("the wrong way round", "bytes=5-2"),
        ("no unit", "2-5"), ("a sign", "bytes=+2-5"), ("a space inside", "bytes=2 -5"),
    ] {
        rows.push(must("9110 14.2", format!("a Range with {what} is ignored"), &[
            whole(), get().with(&format!("Range: {line}")).body(ALL).whoever().status(200).gives(ALL),
        ]));
    }
    rows
}

/// RFC 9110 13.1.5: If-Range: "if the representation is unchanged, send me the part(s) that I am requesting in Range;
/// otherwise, send me the entire representation", compared strongly.
#[rustfmt::skip]
fn conditional() -> Vec<Row> {
    let asks = |condition: &str| range("2-5").with(&format!("If-Range: {condition}"));
    let part = |step: Step| step.cached().status(206).gives("2345");
    let all = |step: Step| step.whoever().status(200).gives(ALL);
    let dated = || get().says("Cache-Control: max-age=3600\nLast-Modified: {now-86400}\nDate: {now}").body(ALL);
    vec![
        may("9110 13.1.5", "If-Range with the tag", &[whole(), part(asks("\"a\""))]),
        must("9110 13.1.5", "If-Range with another tag", &[whole(), all(asks("\"b\"").body(ALL))]),
        must("9110 13.1.5", "If-Range with the tag as weak", &[whole(), all(asks("W/\"a\"").body(ALL))]),
        must("9110 13.1.5", "If-Range against a weak tag", &[
            get().says("Cache-Control: max-age=3600\nETag: W/\"a\"").body(ALL), all(asks("W/\"a\"").body(ALL)),
        ]),
        may("9110 13.1.5", "If-Range with the date", &[dated(), part(asks("{now-86400}"))]),
        must("9110 13.1.5", "If-Range with a later date", &[dated(), all(asks("{now-86399}").body(ALL))]),
        must("9110 13.1.5", "If-Range with an earlier date", &[dated(), all(asks("{now-90000}").body(ALL))]),
        // RFC 9110 8.8.2.2: a Last-Modified of the second in which it was sent may still change: weak.
        must("9110 8.8.2.2", "If-Range with a date that is not strong", &[
            get().says("Cache-Control: max-age=3600\nLast-Modified: {now}\nDate: {now}").body(ALL), all(asks("{now}").body(ALL)),
        ]),
        must("9110 13.1.5", "If-Range without a Range means nothing", &[whole(), get().with("If-Range: \"b\"").cached().status(200)]),
        // 13.2.2: If-None-Match comes first.
        must("9110 13.2.2", "If-None-Match before Range", &[whole(), range("2-5").with("If-None-Match: \"a\"").cached().status(304)]),
        must("9110 13.2.2", "If-None-Match that does not match, then Range", &[
            whole(), range("2-5").with("If-None-Match: \"b\"").cached().status(206).gives("2345"),
        ]),
        must("9110 14.2", "a stale response is asked about before its part is given", &[
            get().says("Cache-Control: max-age=0\nETag: \"a\"").body(ALL),
            range("2-5").answers(304).says("ETag: \"a\"\nCache-Control: max-age=3600").whoever().status(206).gives("2345").asks("If-None-Match: \"a\""),
        ]),
        must("9110 14.2", "no part of a 404", &[get().answers(404).says("Cache-Control: max-age=3600").body(ALL), range("2-5").cached_from(1).status(404)]),
    ]
}

/// A range that nothing is stored for.
#[rustfmt::skip]
fn missing() -> Vec<Row> {
    vec![
        must("9110 14.2", "a Range that misses goes on as it came", &[part(2, 5, "ETag: \"a\"").reaches().asks("Range: bytes=2-5")]),
        must("9110 14.2", "an If-Range that misses goes on as it came", &[
            part(2, 5, "ETag: \"a\"").with("If-Range: \"a\"").reaches().asks("If-Range: \"a\""),
        ]),
        may("9110 14.2", "a 200 in answer to a Range is stored", &[
            range("2-5").says("Cache-Control: max-age=3600").body(ALL).whoever().gives(ALL), get().cached_from(1),
        ]),
        may("9110 14.2", "a 200 in answer to a Range answers ranges", &[
            range("2-5").says("Cache-Control: max-age=3600").body(ALL).whoever().gives(ALL), range("3-4").cached().status(206).gives("34"),
        ]),
        must("9110 15.3.7", "several ranges that miss go on as they came", &[
            range("0-1,8-9").answers(206).says("Content-Type: multipart/byteranges; boundary=x").body("--x--\r\n").reaches().asks("Range: bytes=0-1,8-9"),
        ]),
        must("9111 3.3", "parts in several pieces are not what others get", &[
            range("0-1,8-9").answers(206).says("Cache-Control: max-age=3600\nContent-Type: multipart/byteranges; boundary=x").body("--x--\r\n").reaches(), get().reaches(),
        ]),
    ]
}

/// 3.3: "a cache that stores incomplete or partial responses [...] MUST NOT use [...] to satisfy requests unless the response has been
/// made complete, or the request is partial and specifies a range wholly within the incomplete response"; 3.4: "A cache MAY
/// combine these responses into a single stored response [...] if they all share the same strong validator".
#[rustfmt::skip]
fn parts() -> Vec<Row> {
    const TAG: &str = "ETag: \"a\"";
    let has = |step: Step, octets: &str| step.cached().status(206).gives(octets);
    vec![
        must("9111 3.3", "a part is not the whole", &[part(0, 4, TAG), get().says(TAG).body(ALL).whoever().status(200).gives(ALL)]),
        must("9111 3.3", "a part from the middle is not the whole", &[part(2, 5, ""), get().body(ALL).reaches()]),
        must("9111 3.3", "a 206 without Content-Range is nothing for others", &[
            get().answers(206).says("Cache-Control: max-age=3600").whoever(), get().reaches(),
        ]),
        may("9111 3.3", "the same part again", &[part(2, 5, TAG), has(range("2-5"), "2345").has("Content-Range: bytes 2-5/10")]),
        may("9111 3.3", "the same part again, without a validator", &[part(2, 5, ""), has(range("2-5"), "2345").has("Content-Range: bytes 2-5/10")]),
        may("9111 3.3", "a part of the part", &[part(2, 5, TAG), has(range("3-4"), "34").has("Content-Range: bytes 3-4/10")]),
        may("9111 3.3", "the same suffix again", &[
            range("-3").answers(206).says("Cache-Control: max-age=3600\nETag: \"a\"\nContent-Range: bytes 7-9/10").body("789"), has(range("-3"), "789"),
        ]),
        may("9111 3.3", "the same open range again", &[
            range("7-").answers(206).says("Cache-Control: max-age=3600\nETag: \"a\"\nContent-Range: bytes 7-9/10").body("789"), has(range("7-"), "789"),
        ]),
        // Which octets it was, the origin server knew best.
        may("9111 3.3", "the same suffix again, answered with other octets", &[
            range("-5").answers(206).says("Cache-Control: max-age=3600\nETag: \"a\"\nContent-Range: bytes 0-4/10").body("01234"), has(range("-5"), "01234"),
        ]),
        must("9111 3.3", "a part that is not there", &[part(2, 5, TAG), part(6, 9, TAG).reaches()]),
        must("9111 3.3", "a part of which not all is there", &[part(2, 5, TAG), part(4, 7, TAG).whoever().status(206).gives("4567")]),
        must("9111 4.2", "a part that is stale", &[
            range("2-5").answers(206).says("Cache-Control: max-age=1\nContent-Range: bytes 2-5/10").body("2345"), part(2, 5, "").later(2).reaches(),
        ]),
        must("9111 5.2.2.5", "a part with no-store", &[
            range("2-5").answers(206).says("Cache-Control: no-store\nContent-Range: bytes 2-5/10").body("2345"), part(2, 5, "").reaches(),
        ]),
        must("9111 4.1", "a part of another variant", &[
            part(2, 5, TAG).says("Vary: X-A").with("X-A: 1"), part(2, 5, TAG).says("Vary: X-A").with("X-A: 2").reaches(),
        ]),
        must("9111 3.3", "HEAD of what is there in part has the length of the whole", &[part(0, 4, TAG), head().body(ALL).whoever().status(200).has("Content-Length: 10")]),
        must("9111 3.3", "HEAD of a part of who knows how much", &[
            range("0-4").answers(206).says("Cache-Control: max-age=3600\nETag: \"a\"\nContent-Range: bytes 0-4/*").body("01234"),
            head().body(ALL).whoever().status(200).says_not("Content-Length", "5"),
        ]),
        must("9111 4.3.5", "HEAD with another ETag ends a part", &[
            part(0, 4, TAG), head().with("Cache-Control: no-cache").says("ETag: \"b\"").body(ALL).reaches(), part(0, 4, "ETag: \"b\"").reaches(),
        ]),
        must("9111 4.3.4", "a part that is refreshed is still a part", &[
            range("0-4").answers(206).says("Cache-Control: max-age=1\nETag: \"a\"\nContent-Range: bytes 0-4/10").body("01234"),
            range("0-4").later(2).answers(304).says("Cache-Control: max-age=3600\nETag: \"a\"").whoever().status(206).gives("01234"),
            get().body(ALL).whoever().status(200).gives(ALL),
        ]),
        may("9111 3.4", "two parts that meet make the whole", &[part(0, 4, TAG), part(5, 9, TAG), get().cached().status(200).gives(ALL)]),
        may("9111 3.4", "two parts that overlap make the whole", &[
            part(0, 6, TAG), part(5, 9, TAG).whoever().status(206), get().cached().status(200).gives(ALL),
        ]),
        may("9111 3.4", "a part across two that meet", &[part(0, 4, TAG), part(5, 9, TAG), has(range("3-6"), "3456")]),
        may("9111 3.4", "two parts with a gap are both there", &[part(0, 2, TAG), part(7, 9, TAG), has(range("1-2"), "12"), has(range("7-8"), "78")]),
        must("9111 3.4", "parts of different ETags are not joined", &[
            part(0, 4, TAG), part(5, 9, "ETag: \"b\""), get().body("another").reaches(),
        ]),
        must("9111 3.4", "parts of weak ETags are not joined", &[
            part(0, 4, "ETag: W/\"a\""), part(5, 9, "ETag: W/\"a\""), get().body("another").whoever().status(200).gives("another"),
        ]),
        must("9111 3.4", "parts without validators are not joined", &[part(0, 4, ""), part(5, 9, ""), get().body("another").reaches()]),
        must("9111 4.4", "an unsafe request ends parts", &[part(2, 5, TAG), super::words::post().reaches(), part(2, 5, TAG).reaches()]),
        must("9110 14.4", "a Content-Range that lies stores nothing", &[
            range("2-5").answers(206).says("Cache-Control: max-age=3600\nContent-Range: bytes 5-2/10").body("2345").whoever(), part(2, 5, TAG).reaches(),
        ]),
        must("9110 14.4", "another unit than octets is not stored as octets", &[
            get().with("Range: lines=2-5").answers(206).says("Cache-Control: max-age=3600\nContent-Range: lines 2-5/10").body("2345").whoever(), part(2, 5, TAG).reaches(),
        ]),
    ]
}

/// 3.3: "A cache that receives an incomplete response [...] MAY complete a stored incomplete response by making a subsequent
/// range request and combining the successful response with the stored response"
#[rustfmt::skip]
fn incomplete() -> Vec<Row> {
    let half = |fields: &str| get().octets_and_end(&format!("HTTP/1.1 200 OK\r\nContent-Length: 10\r\nCache-Control: max-age=3600\r\n{fields}\r\n01234")).cut_short();
    let rest = |tag: &str| get().later(1).answers(206).says(&format!("Cache-Control: max-age=3600\nContent-Range: bytes 5-9/10\n{tag}")).body("56789");
    vec![
        must("9112 8", "a response that ends early ends early for the client, too, and passes for no whole one", &[
            half(""), get().later(1).body(ALL).whoever().status(200).gives(ALL),
        ]),
        must("9112 8", "a chunked response that ends early passes for no whole one", &[
            get().octets_and_end("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: max-age=3600\r\n\r\n5\r\n01234\r\n").cut_short(),
            get().later(1).body(ALL).reaches(),
        ]),
        may("9111 3.3", "an incomplete response is completed", &[
            half("ETag: \"a\"\r\n"), rest("ETag: \"a\"").whoever().asks("Range: bytes=5-").asks("If-Range: \"a\"").status(200).gives(ALL),
        ]),
        may("9111 3.3", "what has been completed is reused", &[
            half("ETag: \"a\"\r\n"), rest("ETag: \"a\"").whoever().asks("Range: bytes=5-").status(200).gives(ALL), get().later(1).cached().status(200).gives(ALL),
        ]),
        must("9111 3.3", "a 200 replaces what was incomplete", &[
            half("ETag: \"a\"\r\n"), get().later(1).says("Cache-Control: max-age=3600\nETag: \"b\"").body("another").whoever().status(200).gives("another"),
            get().later(1).cached().status(200).gives("another"),
        ]),
        may("9111 3.3", "octets that have come answer a range", &[half("ETag: \"a\"\r\n"), range("1-3").later(1).cached().status(206).gives("123")]),
        must("9111 3.3", "an incomplete response without a validator is not completed with octets of who knows what", &[
            half(""), get().later(1).body("another").whoever().status(200).gives("another"),
        ]),
    ]
}
