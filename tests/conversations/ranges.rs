//! Byte ranges: from what is stored whole, from parts, and what is missing fetched.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::support::origin::{Request, answer, ok};
use crate::support::{Baton, Client, Origin, Response};

const FRESH: &str = "Cache-Control: max-age=3600\r\n";
const TAGGED: &str = "Cache-Control: max-age=3600\r\nETag: \"a\"\r\n";

fn octets(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

fn get(client: &mut Client, target: &str, fields: &str) -> Response {
    client.get_with(target, fields)
}

/// An origin server that knows ranges: `/N` has N octets.
fn ranged() -> Origin {
    Origin::start(|request| {
        let body = octets(request.target[1..].parse().unwrap());
        range_of(request, &body, TAGGED)
    })
}

fn range_of(request: &Request, body: &[u8], fields: &str) -> Vec<u8> {
    let Some(range) = request.field("range") else {
        return ok(fields, body);
    };
    let (from, to) = range
        .strip_prefix("bytes=")
        .unwrap()
        .split_once('-')
        .unwrap();
    let from: usize = from.parse().unwrap();
    let to = to.parse::<usize>().map_or(body.len(), |last| last + 1);
    let fields = format!(
        "{fields}Content-Range: bytes {from}-{}/{}\r\n",
        to - 1,
        body.len()
    );
    answer("206 Partial Content", &fields, &body[from..to])
}

#[test]
fn a_stored_response_answers_every_kind_of_range() {
    // In memory, inline in a head file, and in a file of its own over several blocks.
    for length in [100, 40_000, 700_000] {
        let origin = ranged();
        let baton = Baton::reverse(origin.address(), &[]);
        let mut client = baton.client();
        let target = format!("/{length}");
        let body = octets(length);
        assert_eq!(client.get(&target).body, body);
        for (range, from, to) in [
            ("bytes=0-9".to_owned(), 0, 10),
            ("bytes=10-10".to_owned(), 10, 11),
            ("bytes=90-".to_owned(), 90, length),
            ("bytes=-7".to_owned(), length - 7, length),
            (format!("bytes=50-{length}"), 50, length),
            (format!("bytes=-{}", length + 1), 0, length),
            ("bytes=5-9, 3-6".to_owned(), 3, 10),
            (format!("bytes={}-", length / 2), length / 2, length),
        ] {
            let part = get(&mut client, &target, &format!("Range: {range}\r\n"));
            assert_eq!((part.status, part.is_hit()), (206, true), "{}", part.head);
            assert!(part.body == body[from..to], "{range} of {length}");
            let expected = format!("bytes {from}-{}/{length}", to - 1);
            assert_eq!(part.field("content-range"), Some(expected));
            assert_eq!(part.field("etag").as_deref(), Some("\"a\""));
        }
        let beyond = format!("Range: bytes={length}-\r\n");
        let none = get(&mut client, &target, &beyond);
        assert_eq!((none.status, none.body.len()), (416, 0));
        assert_eq!(
            none.field("content-range"),
            Some(format!("bytes */{length}"))
        );
        for ignored in ["Range: bytes=9-3\r\n", "Range: lines=1-2\r\n"] {
            let whole = get(&mut client, &target, ignored);
            assert_eq!((whole.status, whole.body.len()), (200, length));
        }
        client.send(format!(
            "HEAD {target} HTTP/1.1\r\nHost: a.example\r\nRange: bytes=0-9\r\n\r\n"
        ));
        let head = client.response_to("HEAD");
        assert_eq!(head.status, 200);
        assert_eq!(head.field("content-length"), Some(length.to_string()));
        assert_eq!(origin.requests().len(), 1);
    }
}

#[test]
fn several_ranges_come_as_parts() {
    for length in [100, 700_000] {
        let origin = ranged();
        let baton = Baton::reverse(origin.address(), &[]);
        let mut client = baton.client();
        let target = format!("/{length}");
        client.get(&target);
        let response = get(&mut client, &target, "Range: bytes=0-4, 10-12, -3\r\n");
        assert_eq!(response.status, 206);
        assert_eq!(response.field("content-range"), None);
        let kind = response.field("content-type").unwrap();
        let boundary = kind
            .strip_prefix("multipart/byteranges; boundary=")
            .unwrap();
        let body = octets(length);
        let mut expected = Vec::new();
        for (from, to) in [(0, 5), (10, 13), (length - 3, length)] {
            let head = format!(
                "\r\n--{boundary}\r\nContent-Range: bytes {from}-{}/{length}\r\n\r\n",
                to - 1
            );
            expected.extend_from_slice(head.as_bytes());
            expected.extend_from_slice(&body[from..to]);
        }
        expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        assert!(response.body == expected);
        assert_eq!(origin.requests().len(), 1);
    }
}

#[test]
fn if_range_names_the_stored_response_for_certain_or_gets_all() {
    let origin = Origin::start(|_| {
        let fields = "Cache-Control: max-age=3600\r\nETag: \"a\"\r\nLast-Modified: Thu, 01 Jan 2015 00:00:00 GMT\r\n";
        ok(fields, "0123456789")
    });
    let baton = Baton::reverse(origin.address(), &[]);
    let mut client = baton.client();
    client.get("/");
    for (validator, status) in [
        ("\"a\"", 206),
        ("\"b\"", 200),
        ("W/\"a\"", 200),
        ("Thu, 01 Jan 2015 00:00:00 GMT", 206),
        ("Fri, 02 Jan 2015 00:00:00 GMT", 200),
        ("yesterday", 200),
    ] {
        let fields = format!("Range: bytes=2-3\r\nIf-Range: {validator}\r\n");
        let response = get(&mut client, "/", &fields);
        assert_eq!(
            (response.status, response.is_hit()),
            (status, true),
            "{validator}"
        );
    }
    // Preconditions go before ranges.
    let unchanged = get(
        &mut client,
        "/",
        "Range: bytes=2-3\r\nIf-None-Match: \"a\"\r\n",
    );
    assert_eq!(unchanged.status, 304);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn parts_are_kept_joined_and_become_whole() {
    let origin = ranged();
    let baton = Baton::reverse(origin.address(), &[]);
    let mut client = baton.client();
    let body = octets(1000);
    let mut ask = |range: &str| {
        let fields = match range {
            "" => String::new(),
            range => format!("Range: bytes={range}\r\n"),
        };
        let response = get(&mut client, "/1000", &fields);
        (response.status, response.is_hit(), response.body)
    };
    // A range that misses goes to the origin server as it is.
    assert_eq!(ask("100-199"), (206, false, body[100..200].to_vec()));
    assert_eq!(
        origin.requests()[0].field("range").as_deref(),
        Some("bytes=100-199")
    );
    assert_eq!(ask("100-199"), (206, true, body[100..200].to_vec()));
    assert_eq!(ask("150-159"), (206, true, body[150..160].to_vec()));
    assert_eq!(ask("150-200"), (206, false, body[150..201].to_vec()));
    assert_eq!(ask("100-200"), (206, true, body[100..201].to_vec()));
    assert_eq!(ask("0-99"), (206, false, body[..100].to_vec()));
    assert_eq!(ask("50-150"), (206, true, body[50..151].to_vec()));
    // All is asked for: only the rest is fetched.
    assert_eq!(ask(""), (200, false, body.clone()));
    let rest = origin.requests().pop().unwrap();
    assert_eq!(rest.field("range").as_deref(), Some("bytes=201-"));
    assert_eq!(rest.field("if-range").as_deref(), Some("\"a\""));
    assert_eq!(ask(""), (200, true, body.clone()));
    assert_eq!(ask("900-"), (206, true, body[900..].to_vec()));
    assert_eq!(origin.requests().len(), 4);
}

#[test]
fn parts_of_different_representations_are_not_mixed() {
    let changed = Arc::new(AtomicBool::new(false));
    let seen = changed.clone();
    let origin = Origin::start(move |request| {
        let (fill, tag) = if seen.load(SeqCst) {
            (b'b', "b")
        } else {
            (b'a', "a")
        };
        let fields = format!("{FRESH}ETag: \"{tag}\"\r\n");
        let body = [fill; 100];
        // If-Range that does not hold: all of it.
        match request.field("if-range") {
            Some(held) if held != format!("\"{tag}\"") => ok(&fields, body),
            _ => range_of(request, &body, &fields),
        }
    });
    let baton = Baton::reverse(origin.address(), &[]);
    let mut client = baton.client();
    for target in ["/x", "/y"] {
        changed.store(false, SeqCst);
        assert_eq!(
            get(&mut client, target, "Range: bytes=0-49\r\n").body,
            [b'a'; 50]
        );
        changed.store(true, SeqCst);
        if target == "/x" {
            let other = get(&mut client, target, "Range: bytes=50-99\r\n");
            assert_eq!(other.body, [b'b'; 50]);
        }
        let whole = client.get(target);
        assert_eq!((whole.status, whole.body), (200, vec![b'b'; 100]));
        let again = client.get(target);
        assert_eq!((again.is_hit(), again.body), (true, vec![b'b'; 100]));
    }
}

#[test]
fn what_breaks_off_is_completed() {
    for length in [5_000, 900_000] {
        let origin = Origin::conversing(move |request, stream| {
            let body = octets(length);
            if request.field("range").is_some() {
                let rest = range_of(request, &body, TAGGED);
                return stream.write_all(&rest).is_ok();
            }
            let whole = ok(TAGGED, &body);
            let _ = stream.write_all(&whole[..whole.len() - length / 3]);
            false
        });
        let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
        let mut client = baton.client();
        client.send("GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n");
        let cut = client.rest();
        assert!(cut.len() < length + 300);
        let mut client = baton.client();
        let response = client.get("/x");
        assert_eq!(response.status, 200, "{}", response.head);
        assert!(response.body == octets(length));
        let rest = origin.requests().pop().unwrap();
        let from = length - length / 3;
        assert_eq!(rest.field("range"), Some(format!("bytes={from}-")));
        assert_eq!(rest.field("if-range").as_deref(), Some("\"a\""));
        let again = client.get("/x");
        assert!(again.is_hit() && again.body == octets(length));
        assert_eq!(origin.requests().len(), 2);
    }
}
