//! Where messages end: what two parsers could read differently is refused, and nothing behind it is run.

use std::io::Write;

use crate::support::origin::ok;
use crate::support::{Baton, Client, Origin};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// Sends a request and one more behind it; the first must get `status` and the second nothing at all.
fn is_refused(baton: &Baton, origin: &Origin, name: &str, octets: &str, status: u16) {
    let mut client = baton.client();
    client.send_anyway(octets).send_anyway(SMUGGLED);
    let response = client
        .try_response_to("GET")
        .unwrap_or_else(|why| panic!("{name}: {why}"));
    assert_eq!(response.status, status, "{name}: {}", response.head);
    assert!(response.has("connection", "close"), "{name}");
    assert!(response.field("proxy-status").is_some(), "{name}");
    assert!(response.field("cache-status").is_some(), "{name}");
    let rest = client.rest();
    assert!(rest.is_empty(), "{name}: {}", rest.escape_ascii());
    assert!(origin.requests().is_empty(), "{name}: reached the origin");
}

/// Name, request, status.
#[rustfmt::skip]
const BAD_HEADS: &[(&str, &str, u16)] = &[
    ("bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    ("bare LF after a field", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
    ("bare LF as blank line", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    ("bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: y\rZ: w\r\n\r\n", 400),
    ("bare CR as line end", "GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
    ("NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400),
    ("NUL in a target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("folded field", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", 400),
    ("folded first field", "GET / HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n", 400),
    ("space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("tab before the colon", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length\t: 3\r\n\r\nabc", 400),
    ("empty name", "GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", 400),
    ("name that is no token", "GET / HTTP/1.1\r\nHost: a\r\nX(y): z\r\n\r\n", 400),
    ("line without a colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", 400),
    ("method that is no token", "G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("tab as separator", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("space at the end", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    ("version in lower case", "GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    ("no version", "GET /\r\nHost: a\r\n\r\n", 400),
    ("version 2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("version 0.9", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
    ("empty lines without end", "\r\n\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
];

#[test]
fn lines_that_parsers_read_differently_are_refused() {
    let origin = Origin::start(|_| ok("", "no"));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    for &(name, octets, status) in BAD_HEADS {
        is_refused(&baton, &origin, name, octets, status);
    }
}

/// Name, fields, status.
#[rustfmt::skip]
const UNCLEAR_LENGTHS: &[(&str, &str, u16)] = &[
    ("length and coding", "Content-Length: 3\r\nTransfer-Encoding: chunked", 400),
    ("coding and length", "Transfer-Encoding: chunked\r\nContent-Length: 3", 400),
    ("two lengths", "Content-Length: 3\r\nContent-Length: 4", 400),
    ("two equal lengths", "Content-Length: 3\r\nContent-Length: 3", 400),
    ("list of lengths", "Content-Length: 3, 3", 400),
    ("signed length", "Content-Length: +3", 400),
    ("negative length", "Content-Length: -3", 400),
    ("hexadecimal length", "Content-Length: 0x3", 400),
    ("length with a space inside", "Content-Length: 3 3", 400),
    ("empty length", "Content-Length:", 400),
    ("length beyond 64 bits", "Content-Length: 18446744073709551616", 400),
    ("chunked twice", "Transfer-Encoding: chunked, chunked", 400),
    ("chunked in two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
    ("chunked not last", "Transfer-Encoding: chunked, gzip", 400),
    ("gzip before chunked", "Transfer-Encoding: gzip, chunked", 501),
    ("identity", "Transfer-Encoding: identity", 400),
    ("empty coding", "Transfer-Encoding:", 400),
    ("chunked with a parameter", "Transfer-Encoding: chunked;q=1", 400),
    ("quoted chunked", "Transfer-Encoding: \"chunked\"", 400),
    ("vertical tab before chunked", "Transfer-Encoding: \x0bchunked", 400),
    ("near miss", "Transfer-Encoding: xchunked", 400),
];

#[test]
fn bodies_whose_length_is_not_clear_are_refused() {
    let origin = Origin::start(|_| ok("", "no"));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    for &(name, fields, status) in UNCLEAR_LENGTHS {
        let octets = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n");
        is_refused(&baton, &origin, name, &octets, status);
    }
    let on_1_0 = "POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    is_refused(&baton, &origin, "coding on HTTP/1.0", on_1_0, 400);
}

#[test]
fn a_forward_listener_is_as_strict() {
    let origin = Origin::start(|_| ok("", "no"));
    let baton = Baton::forward(origin.address(), &["--workers", "1"]);
    let url = origin.url("/");
    for (name, fields) in [
        (
            "length and coding",
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
        ),
        ("two lengths", "Content-Length: 3\r\nContent-Length: 4"),
        ("bare LF", "X: y\nTransfer-Encoding: chunked"),
    ] {
        let octets = format!("POST {url} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n");
        is_refused(&baton, &origin, name, &octets, 400);
    }
}

#[test]
fn a_coding_in_any_case_and_with_white_space_is_understood() {
    let origin = Origin::start(|request| ok("", &request.body));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    for coding in ["chunked", "Chunked", " \tCHUNKED \t"] {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:{coding}\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        ));
        assert_eq!(client.response().text(), "abc", "{coding:?}");
    }
    for request in origin.requests() {
        // Serialised anew, in our own words.
        assert!(
            request.head.contains("\r\nTransfer-Encoding: chunked\r\n"),
            "{}",
            request.head
        );
    }
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    let origin = Origin::start(|_| ok("", "yes"));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.send("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().text(), "yes");
    // Old browsers send one after a body.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
    assert_eq!(client.response().text(), "yes");
    client.send("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().text(), "yes");
}

#[test]
fn a_broken_chunked_body_is_never_completed_towards_the_origin() {
    let origin = Origin::start(|_| ok("", "no"));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    for (name, body) in [
        ("no size", "\r\nabc\r\n0\r\n\r\n"),
        ("no hex digits", "xyz\r\nabc\r\n0\r\n\r\n"),
        ("prefixed size", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("signed size", "+3\r\nabc\r\n0\r\n\r\n"),
        ("space before the size", " 3\r\nabc\r\n0\r\n\r\n"),
        ("17 digits", "00000000000000003\r\nabc\r\n0\r\n\r\n"),
        ("data longer than the size", "3\r\nabcd\r\n0\r\n\r\n"),
        ("LF after the data", "3\r\nabc\n0\r\n\r\n"),
        ("LF after the size", "3\nabc\r\n0\r\n\r\n"),
        (
            "control character in an extension",
            "3;a=\x01\r\nabc\r\n0\r\n\r\n",
        ),
        ("bare CR in an extension", "3;a\rb\r\nabc\r\n0\r\n\r\n"),
        (
            "trailer that is no field",
            "3\r\nabc\r\n0\r\nno trailer\r\n\r\n",
        ),
    ] {
        let mut client = baton.client();
        client.send_anyway(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}{SMUGGLED}"
        ));
        let response = client.response();
        assert_eq!(response.status, 400, "{name}: {}", response.head);
        assert!(client.rest().is_empty(), "{name}");
        // The scripted origin records a request once its body is whole.
        assert!(origin.requests().is_empty(), "{name}: completed");
    }
}

#[test]
fn a_body_that_ends_early_is_never_completed_towards_the_origin() {
    let origin = Origin::start(|_| ok("", "no"));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    for framing in [
        "Content-Length: 10\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let mut client = baton.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}"));
        client.shutdown_write();
        client.rest();
        assert!(origin.requests().is_empty(), "{framing}");
    }
}

#[test]
fn extensions_and_trailers_are_read_and_dropped() {
    let origin = Origin::start(|request| {
        assert!(!request.head.contains("X-Trailer"));
        ok("", &request.body)
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.send(concat!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "3;name=value;other=\"quoted ; \\\" text\"\r\nabc\r\n02;x\r\nde\r\n000\r\nX-Trailer: 1\r\nHost: evil\r\n\r\n",
    ));
    assert_eq!(client.response().text(), "abcde");
    assert_eq!(
        client.get("/").status,
        200,
        "the connection goes on behind the trailers"
    );
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let origin = Origin::start(|_| ok("", "no"));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let long = "x".repeat(100_000);
    for body in [
        format!("3;{long}\r\nabc\r\n0\r\n\r\n"),
        format!("3\r\nabc\r\n0\r\nX: {long}\r\n\r\n"),
    ] {
        let mut client = baton.client();
        client.send_anyway(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        ));
        assert_eq!(client.response().status, 400);
        assert!(origin.requests().is_empty());
    }
}

// === responses

/// Heads and framings for which an origin server gets no second chance.
#[rustfmt::skip]
const BAD_RESPONSES: &[(&str, &str)] = &[
    ("bare LF", "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nhi"),
    ("bare CR", "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nhi"),
    ("NUL", "HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 2\r\n\r\nhi"),
    ("folded", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nhi"),
    ("space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nhi"),
    ("no colon", "HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 2\r\n\r\nhi"),
    ("status 000", "HTTP/1.1 000 No\r\nContent-Length: 2\r\n\r\nhi"),
    ("status 099", "HTTP/1.1 099 No\r\nContent-Length: 2\r\n\r\nhi"),
    ("status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nhi"),
    ("status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nhi"),
    ("version 2", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
    ("no HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    ("length and coding", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!"),
    ("two equal lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi"),
    ("bad length", "HTTP/1.1 200 OK\r\nContent-Length: 2a\r\n\r\nhi"),
    ("huge length", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhi"),
    ("coding on HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
    ("gzip, chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
    ("gzip", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhi"),
    ("chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    ("204 with length and coding", "HTTP/1.1 204 No\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("bad first chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhi\r\n0\r\n\r\n"),
    ("unasked 101", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
    ("nothing", ""),
    ("half a head", "HTTP/1.1 200 OK\r\nContent-Le"),
];

#[test]
fn what_an_origin_may_not_send_is_502_and_its_connection_is_dropped() {
    let origin = Origin::conversing(|request, stream| {
        let index: usize = request.target[1..].parse().unwrap();
        stream.write_all(BAD_RESPONSES[index].1.as_bytes()).unwrap();
        // Left open where that is the question: what follows must not come on the same connection.
        let octets = BAD_RESPONSES[index].1;
        !(octets.is_empty() || octets.ends_with("Content-Le"))
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1", "--ttl", "1h"]);
    let mut client = baton.client();
    for (index, (name, _)) in BAD_RESPONSES.iter().enumerate() {
        let response = client.get(&format!("/{index}"));
        assert_eq!(response.status, 502, "{name}: {}", response.head);
        assert!(response.field("proxy-status").is_some(), "{name}");
        assert!(
            response.has("cache-status", "fwd=uri-miss"),
            "{name}: {}",
            response.head
        );
        assert!(!response.text().contains("hi\r\n"), "{name}");
    }
    assert!(origin.requests().iter().all(|request| request.number == 0));
    // A GET that met a closed connection is tried once more only on a connection that had been used.
    assert_eq!(origin.requests().len(), BAD_RESPONSES.len());
}

#[test]
fn a_response_that_breaks_off_is_cut_and_never_completed() {
    let origin = Origin::conversing(|request, stream| {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n";
        let filling = "x".repeat(100_000);
        let octets = match request.target.as_str() {
            "/length" => format!("{head}Content-Length: 200000\r\n\r\n{filling}"),
            "/chunked" => format!("{head}Transfer-Encoding: chunked\r\n\r\n186a0\r\n{filling}\r\n"),
            "/bad-chunk" => {
                format!("{head}Transfer-Encoding: chunked\r\n\r\n186a0\r\n{filling}\r\nzz\r\n")
            }
            "/no-crlf" => {
                format!("{head}Transfer-Encoding: chunked\r\n\r\n186a0\r\n{filling}0\r\n\r\n")
            }
            other => panic!("{other}"),
        };
        let _ = stream.write_all(octets.as_bytes());
        false
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    for target in ["/length", "/chunked", "/bad-chunk", "/no-crlf"] {
        for _ in 0..2 {
            let mut client = baton.client();
            client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let got = client.try_response_to("GET");
            assert!(got.is_err(), "{target} was completed");
            assert!(!client.rest().ends_with(b"0\r\n\r\n"), "{target}");
        }
        assert_eq!(origin.count(target), 2, "{target} was stored");
    }
}

#[test]
fn octets_behind_a_response_are_nobodys() {
    let origin = Origin::start(|request| {
        let mut octets = ok("Cache-Control: max-age=60\r\n", "real");
        if request.target == "/surplus" {
            octets.extend_from_slice(&ok("", "forged"));
        }
        octets
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    assert_eq!(client.get("/surplus").text(), "real");
    assert_eq!(
        client.get("/next").text(),
        "real",
        "a forged answer was taken"
    );
    let again = client.get("/surplus");
    assert!(
        again.is_hit() && again.text() == "real",
        "whole before the surplus: kept"
    );
    let connections: Vec<usize> = origin
        .requests()
        .iter()
        .map(|request| request.connection)
        .collect();
    assert_eq!(
        connections,
        [0, 1],
        "the connection with surplus octets is not used again"
    );
}

#[test]
fn a_body_where_none_may_be_is_nobodys() {
    let origin =
        Origin::start(
            |request| match (request.method.as_str(), request.target.as_str()) {
                ("HEAD", _) => ok("", "body of a HEAD"),
                (_, "/204") => {
                    b"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nforged".to_vec()
                }
                (_, "/304") => {
                    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\nforged".to_vec()
                }
                _ => ok("", "fine"),
            },
        );
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    let ask = |client: &mut Client, method: &str, target: &str| {
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.response_to(method)
    };
    for (method, target, status) in [
        ("HEAD", "/", 200),
        ("GET", "/204", 204),
        ("GET", "/304", 304),
    ] {
        let response = ask(&mut client, method, target);
        assert_eq!(response.status, status);
        if status == 204 {
            assert_eq!(response.field("content-length"), None, "{}", response.head);
        }
        assert_eq!(
            ask(&mut client, "GET", "/next").text(),
            "fine",
            "after {method} {target}"
        );
    }
}
