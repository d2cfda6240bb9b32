//! Content on its way: codings of the transfer, interim responses, 100 (Continue), and changes of protocol.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::client::find;
use crate::support::origin::{answer, ok};
use crate::support::{Baton, Origin, Request};

#[test]
fn a_body_without_length_is_chunked_for_1_1_and_ends_with_the_connection_for_1_0() {
    let origin = Origin::conversing(|request, stream| {
        let octets: &[u8] = match request.target.as_str() {
            "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n",
            "/close" => b"HTTP/1.1 200 OK\r\n\r\nabcde",
            _ => b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
        };
        stream.write_all(octets).unwrap();
        false
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    for target in ["/chunked", "/close"] {
        let mut client = baton.client();
        let response = client.get(target);
        assert_eq!(
            response.field("transfer-encoding").as_deref(),
            Some("chunked")
        );
        assert_eq!(
            (response.field("content-length"), response.field("trailer")),
            (None, None)
        );
        assert_eq!(response.text(), "abcde");
        assert_eq!(client.get(target).text(), "abcde", "the connection goes on");

        let mut old = baton.client();
        old.send(format!(
            "GET {target} HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
        ));
        let response = old.response();
        assert_eq!(
            response.field("transfer-encoding"),
            None,
            "{}",
            response.head
        );
        assert!(response.has("connection", "close"));
        assert_eq!(response.text(), "abcde");
        assert!(response.head.starts_with("HTTP/1.1 200"));
    }
    let mut old = baton.client();
    for _ in 0..2 {
        old.send("GET /length HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        let response = old.response();
        assert!(
            response.has("connection", "keep-alive"),
            "{}",
            response.head
        );
        assert_eq!(response.text(), "abcde");
    }
    old.send("GET /length HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(old.response().has("connection", "close"));
    assert!(old.is_closed());
}

#[test]
fn request_bodies_arrive_whole_however_they_are_cut() {
    let origin = Origin::start(|request| ok("", &request.body));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let body: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let mut client = baton.client();
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    body.chunks(7_001).for_each(|piece| {
        client.send(piece);
    });
    assert!(client.response().body == body);
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in body.chunks(13_007) {
        client
            .send(format!("{:X}\r\n", piece.len()))
            .send(piece)
            .send("\r\n");
    }
    assert!(client.send("0\r\n\r\n").response().body == body);
    // Octet by octet, head and all.
    for octet in
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    {
        client.send([*octet]);
    }
    assert_eq!(client.response().text(), "abc");
}

#[test]
fn a_response_streams_before_it_is_whole() {
    let origin = Origin::conversing(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            .unwrap();
        // No more comes until the proxy gives up.
        let _ = stream.read(&mut [0]);
        false
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    while !client.line().unwrap().is_empty() {}
    assert_eq!(client.line().unwrap(), "5");
    assert_eq!(client.exactly(5).unwrap(), b"first");
}

#[test]
fn head_204_and_304_have_no_body_and_the_connection_goes_on() {
    let origin =
        Origin::start(
            |request| match (request.method.as_str(), request.target.as_str()) {
                ("HEAD", "/chunked") => {
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()
                }
                ("HEAD", _) => b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n".to_vec(),
                (_, "/204") => b"HTTP/1.1 204 No Content\r\nContent-Length: 10\r\n\r\n".to_vec(),
                (_, "/304") => {
                    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\nETag: \"a\"\r\n\r\n"
                        .to_vec()
                }
                _ => ok("", "next"),
            },
        );
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    for (method, target) in [
        ("HEAD", "/"),
        ("HEAD", "/chunked"),
        ("GET", "/204"),
        ("GET", "/304"),
    ] {
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.response_to(method);
        if target == "/" {
            assert_eq!(response.field("content-length").as_deref(), Some("1234"));
        }
        if target == "/204" {
            assert_eq!(response.field("content-length"), None);
        }
        assert_eq!(
            response.field("transfer-encoding"),
            None,
            "{}",
            response.head
        );
        assert_eq!(
            client.get("/next").text(),
            "next",
            "after {method} {target}"
        );
    }
    assert!(
        origin
            .requests()
            .iter()
            .all(|request| request.connection == 0)
    );
}

// === 100 (Continue)

/// What has not come along with the head is waited for.
fn read_body(request: &Request, stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut rest = vec![0; length - request.body.len()];
    stream.read_exact(&mut rest).unwrap();
    [request.body.as_slice(), &rest].concat()
}

#[test]
fn the_origins_100_lets_the_body_through() {
    let origin = Origin::conversing(|request, stream| {
        assert_eq!(request.field("expect").as_deref(), Some("100-continue"));
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        let body = read_body(request, stream, 5);
        stream.write_all(&ok("", body)).is_ok()
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    for _ in 0..2 {
        let began = Instant::now();
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        );
        assert_eq!(client.response().status, 100);
        assert!(
            began.elapsed() < Duration::from_millis(900),
            "the origin's own 100, not ours"
        );
        client.send("hello");
        assert_eq!(client.response().text(), "hello");
    }
}

#[test]
fn a_body_follows_within_a_second_even_if_no_100_comes() {
    let origin = Origin::conversing(|request, stream| {
        let body = read_body(request, stream, 5);
        stream.write_all(&ok("", body)).is_ok()
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    let began = Instant::now();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.response().status, 100);
    assert!(began.elapsed() < Duration::from_millis(1900));
    client.send("hello");
    assert_eq!(client.response().text(), "hello");
    // A client that does not wait is not kept waiting, and gets no 100.
    let began = Instant::now();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    );
    assert_eq!(client.response().text(), "hello");
    assert!(began.elapsed() < Duration::from_millis(900));
}

#[test]
fn a_final_answer_to_an_expectation_is_not_interrupted_by_a_100() {
    let origin = Origin::conversing(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nno")
            .unwrap();
        // Longer than the second after which a waiting client is told to go on.
        std::thread::park_timeout(Duration::from_millis(1300));
        stream.write_all(b" way").is_ok()
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (403, "no way"));
    assert!(
        response.has("connection", "close"),
        "its body never came: {}",
        response.head
    );
    assert!(client.is_closed());
}

#[test]
fn other_expectations_are_417_and_nothing_behind_them_is_run() {
    let origin = Origin::start(|_| ok("", "no"));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    for expect in ["200-ok", "100-continue, more", "100-continue=1"] {
        let mut client = baton.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: {expect}\r\nContent-Length: 5\r\n\r\nhello"
        ));
        client.send_anyway("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().status, 417, "{expect}");
        assert!(client.rest().is_empty());
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn an_expectation_of_http_1_0_is_ignored() {
    let origin = Origin::conversing(|request, stream| {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        let body = read_body(request, stream, 5);
        stream.write_all(&ok("", body)).is_ok()
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.send(
        "POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    );
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    // What goes on is a request of HTTP/1.1, whose expectation the origin would have to obey.
    assert_eq!(origin.requests()[0].field("expect"), None);
}

// === other interim responses

#[test]
fn interim_responses_are_relayed_to_1_1_clients_and_never_from_the_cache() {
    let origin = Origin::conversing(|_, stream| {
        let mut octets = b"HTTP/1.1 102 Processing\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n".to_vec();
        octets.extend_from_slice(
            b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
        );
        octets.extend_from_slice(&ok("Cache-Control: max-age=60\r\n", "final"));
        stream.write_all(&octets).is_ok()
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    let processing = client.get("/");
    assert_eq!(processing.status, 102);
    for gone in ["content-length", "transfer-encoding", "connection", "x-hop"] {
        assert_eq!(processing.field(gone), None, "{gone}: {}", processing.head);
    }
    let hints = client.response();
    assert_eq!(hints.status, 103);
    assert!(hints.has("link", "</style.css>"));
    assert_eq!(client.response().text(), "final");
    let again = client.get("/");
    assert!(again.is_hit() && again.status == 200);
    client.send("GET /other HTTP/1.0\r\nHost: a\r\n\r\n");
    let old = client.response();
    assert_eq!((old.status, old.text().as_str()), (200, "final"));
}

#[test]
fn interim_responses_are_bounded() {
    let origin = Origin::conversing(|_, stream| {
        stream
            .write_all("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000).as_bytes())
            .is_ok()
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    let mut interim = 0;
    let mut response = client.get("/");
    while response.status == 103 {
        interim += 1;
        response = client.response();
    }
    assert_eq!(response.status, 502, "{}", response.head);
    assert!((1..100).contains(&interim), "{interim}");
}

// === changes of protocol

#[test]
fn a_websocket_opens_after_the_origins_own_101() {
    let origin = Origin::raw(|stream, _| {
        let mut socket = tungstenite::accept(stream).unwrap();
        while let Ok(message) = socket.read() {
            if message.is_close() {
                return;
            }
            socket.send(message).unwrap();
        }
    });
    let baton = Baton::reverse(origin, &["--workers", "1"]);
    let stream = TcpStream::connect(baton.address()).unwrap();
    stream
        .set_read_timeout(Some(crate::support::DEADLINE))
        .unwrap();
    let (mut socket, response) = tungstenite::client("ws://a.example/chat", stream).unwrap();
    assert_eq!(response.status(), 101);
    assert!(
        response.headers().contains_key("via") && response.headers().contains_key("cache-status")
    );
    for text in ["hello", "again", &"long ".repeat(100_000)] {
        socket.send(tungstenite::Message::text(text)).unwrap();
        assert_eq!(socket.read().unwrap(), tungstenite::Message::text(text));
    }
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

#[test]
fn an_origin_that_declines_an_upgrade_is_an_ordinary_one() {
    let origin = Origin::start(|request| ok("", request.field("upgrade").unwrap_or_default()));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    assert_eq!(client.get_with("/", UPGRADE).text(), "websocket");
    assert_eq!(client.get("/").text(), "");
}

#[test]
fn h2c_and_what_connection_does_not_name_are_stripped() {
    let origin = Origin::start(|request| ok("", &request.head));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    for fields in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Upgrade: websocket\r\n",
        "Connection: close-ish\r\nUpgrade: websocket\r\n",
    ] {
        let seen = client.get_with("/", fields).text().to_ascii_lowercase();
        assert!(
            !seen.contains("upgrade") && !seen.contains("http2"),
            "{fields}: {seen}"
        );
    }
}

#[test]
fn a_101_to_something_else_than_was_offered_is_502() {
    let origin = Origin::start(|request| {
        let fields = match request.target.as_str() {
            "/other" => "Connection: upgrade\r\nUpgrade: h2c\r\n",
            _ => "",
        };
        format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n").into_bytes()
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    for target in ["/other", "/none"] {
        let mut client = baton.client();
        let response = client.get_with(target, UPGRADE);
        assert_eq!(response.status, 502, "{target}: {}", response.head);
        // Not a tunnel: the next request is one.
        client.send_anyway("GET /x y HTTP/1.1\r\n\r\n");
        let rest = client.rest();
        assert!(
            rest.is_empty() || find(&rest, b"HTTP/1.1 400").is_some(),
            "{}",
            rest.escape_ascii()
        );
    }
}

#[test]
fn octets_sent_with_the_101_arrive_and_half_a_close_passes() {
    let origin = Origin::conversing(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly")
            .unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
        false
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nmore");
    assert_eq!(client.response().status, 101);
    assert_eq!(client.exactly(5).unwrap(), b"early");
    client.shutdown_write();
    assert_eq!(client.rest(), b"more");
}

#[test]
fn a_refused_upload_is_answered_while_it_is_still_being_sent() {
    let origin = Origin::conversing(|_, stream| {
        stream
            .write_all(&answer(
                "413 Content Too Large",
                "Connection: close\r\n",
                "too large",
            ))
            .unwrap();
        false
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n",
    );
    let response = client.response();
    assert_eq!(response.status, 413);
    assert!(response.has("connection", "close"));
}

#[test]
fn both_directions_flow_at_once() {
    let origin = Origin::raw(|mut stream, _| {
        let mut octets = vec![0; 64 * 1024];
        let mut seen = Vec::new();
        while find(&seen, b"\r\n\r\n").is_none() {
            let read = stream.read(&mut octets).unwrap();
            seen.extend_from_slice(&octets[..read]);
        }
        let mut body = seen.split_off(find(&seen, b"\r\n\r\n").unwrap() + 4);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n")
            .unwrap();
        let mut left = 4_000_000 - body.len();
        stream.write_all(&body).unwrap();
        while left > 0 {
            let read = stream.read(&mut octets).unwrap();
            assert!(read > 0);
            left -= read;
            body.clear();
            stream.write_all(&octets[..read]).unwrap();
        }
    });
    let baton = Baton::reverse(origin, &["--workers", "1"]);
    let mut client = baton.client();
    let data: Vec<u8> = (0..4_000_000u32).map(|n| (n / 11) as u8).collect();
    let mut writer = client.stream.try_clone().unwrap();
    let sent = data.clone();
    let writing = std::thread::spawn(move || {
        writer
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n")
            .unwrap();
        writer.write_all(&sent).unwrap();
    });
    let response = client.response();
    writing.join().unwrap();
    assert!(response.body == data);
}

#[test]
fn a_101_within_a_requests_body_is_502() {
    let origin = Origin::raw(|mut stream, _| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        );
        let _ = stream.read(&mut [0; 4096]);
    });
    let baton = Baton::reverse(origin, &["--workers", "1"]);
    let mut client = baton.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 5\r\n\r\nhe",
    );
    assert_eq!(client.response().status, 502);
}
