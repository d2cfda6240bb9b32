//! Several requests on one connection: order, coalescing, and what becomes of a connection after trouble.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::mpsc;

use crate::support::origin::{answer, ok};
use crate::support::{Baton, DEADLINE, Origin};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")
}

#[test]
fn answers_come_in_the_order_of_the_requests() {
    let origin = Origin::start(|request| ok("Cache-Control: max-age=60\r\n", &request.target));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    for n in (0..40).step_by(2) {
        client.get(&format!("/{n}"));
    }
    // Every other one is a hit and could overtake.
    client.send((0..40).map(|n| get(&format!("/{n}"))).collect::<String>());
    for n in 0..40 {
        let response = client.response();
        assert_eq!(response.text(), format!("/{n}"));
        assert_eq!(response.is_hit(), n % 2 == 0, "{n}");
    }
}

#[test]
fn requests_of_all_kinds_follow_each_other() {
    let origin = Origin::start(|request| match request.method.as_str() {
        "HEAD" => b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n".to_vec(),
        _ => ok(
            "",
            format!(
                "{} {}",
                request.target,
                String::from_utf8_lossy(&request.body)
            ),
        ),
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.send(concat!(
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "HEAD /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n",
        "GET /4 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nfg",
        "DELETE /5 HTTP/1.1\r\nHost: a\r\n\r\n",
    ));
    assert_eq!(client.response().text(), "/1 abc");
    assert_eq!(client.response_to("HEAD").status, 200);
    assert_eq!(client.response().text(), "/3 de");
    assert_eq!(client.response().text(), "/4 fg");
    assert_eq!(client.response().text(), "/5 ");
}

#[test]
fn answers_that_are_ready_together_leave_in_one_write() {
    let origin = Origin::start(|_| ok("Cache-Control: max-age=60\r\n", "hit"));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.get("/");
    client.send(get("/").repeat(16));
    // One write is one segment on loopback; a single read sees all of them.
    let mut octets = vec![0; 64 * 1024];
    let read = client.stream.read(&mut octets).unwrap();
    let answers = octets[..read]
        .windows(3)
        .filter(|window| window == b"hit")
        .count();
    // "hit" stands in each body and in each Cache-Status.
    assert_eq!(answers, 32, "{}", String::from_utf8_lossy(&octets[..read]));
}

#[test]
fn a_slow_answer_does_not_hold_back_those_before_it() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |request| {
        if request.target == "/slow" {
            wait.lock().unwrap().recv_timeout(DEADLINE).unwrap();
        }
        ok("Cache-Control: max-age=60\r\n", &request.target)
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.get("/fast");
    client.send(get("/fast") + &get("/slow") + &get("/fast"));
    assert!(client.response().is_hit());
    go.send(()).unwrap();
    assert_eq!(client.response().text(), "/slow");
    assert!(client.response().is_hit());
}

#[test]
fn an_early_answer_ends_the_connection_unless_the_body_is_through() {
    let origin = Origin::conversing(|request, stream| {
        if request.target == "/early" {
            stream
                .write_all(&answer("403 Forbidden", "", "early"))
                .unwrap();
        } else {
            stream.write_all(&ok("", "whole")).unwrap();
        }
        true
    });
    // An origin that answers before it has read the body.
    let hasty = Origin::raw(|mut stream, _| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(&answer("403 Forbidden", "", "early"));
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let baton = Baton::reverse(hasty, &["--workers", "1"]);
    let mut client = baton.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nbeginning");
    let response = client.response();
    assert_eq!(response.status, 403);
    assert!(response.has("connection", "close"), "{}", response.head);
    // What comes now is body, though it looks like a request.
    client.send_anyway(get("/smuggled"));
    assert!(client.rest().is_empty());

    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.response().status, 403);
    assert_eq!(client.get("/next").text(), "whole", "the body was whole");
}

#[test]
fn a_refused_request_with_a_body_takes_the_connection_with_it() {
    let origin = Origin::start(|_| ok("", "no"));
    let baton = Baton::forward(origin.address(), &["--workers", "1"]);
    for (name, request) in [
        (
            "denied",
            "POST http://127.0.0.1:1/ HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n",
        ),
        (
            "denied, chunked",
            "POST http://127.0.0.1:1/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "not for a proxy",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n",
        ),
        (
            "options",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n",
        ),
    ] {
        let mut client = baton.client();
        client
            .send(request)
            .send_anyway(get(&origin.url("/smuggled")));
        let response = client.response();
        assert!(
            response.has("connection", "close"),
            "{name}: {}",
            response.head
        );
        assert!(client.rest().is_empty(), "{name}");
    }
    assert!(origin.requests().is_empty());
    // Without a body there is no doubt where the next request begins.
    let mut client = baton.client();
    assert_eq!(client.get("http://127.0.0.1:1/").status, 403);
    assert_eq!(client.get(&origin.url("/")).status, 200);
}

#[test]
fn a_connection_is_closed_when_the_client_says_so() {
    let origin = Origin::start(|_| ok("Cache-Control: max-age=60\r\n", "body"));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    for _ in 0..2 {
        let mut client = baton.client();
        let response = client.get_with("/", "Connection: close\r\n");
        assert!(response.has("connection", "close"), "{}", response.head);
        assert!(client.is_closed());
        let mut client = baton.client();
        client.send(
            get("/").replace("\r\n\r\n", "\r\nConnection: foo, close\r\n\r\n") + &get("/after"),
        );
        client.response();
        assert!(client.rest().is_empty());
    }
    assert_eq!(origin.count("/after"), 0);
}

#[test]
fn a_client_that_has_shut_its_side_still_gets_its_answers() {
    let origin = Origin::start(|request| ok("", &request.target));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.send(get("/1") + &get("/2"));
    client.shutdown_write();
    assert_eq!(client.response().text(), "/1");
    assert_eq!(client.response().text(), "/2");
    assert!(client.is_closed());
}

#[test]
fn so_many_requests_a_connection() {
    let origin = Origin::start(|_| ok("Cache-Control: max-age=60\r\n", "body"));
    let baton = Baton::reverse(
        origin.address(),
        &["--workers", "1", "--set", "client.max_requests=3"],
    );
    let mut client = baton.client();
    assert_eq!(client.get("/").field("connection"), None);
    assert_eq!(client.get("/").field("connection"), None);
    assert!(client.get("/").has("connection", "close"));
    assert!(client.is_closed());
}

#[test]
fn large_answers_follow_each_other_whole() {
    let origin = Origin::start(|request| {
        ok(
            "Cache-Control: max-age=60\r\n",
            request.target.repeat(200_000),
        )
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    for round in 0..2 {
        client.send(get("/a") + &get("/b") + &get("/c"));
        for path in ["/a", "/b", "/c"] {
            let response = client.response();
            assert!(response.text() == path.repeat(200_000), "{path}");
            assert_eq!(response.is_hit(), round == 1);
        }
    }
}

#[test]
fn what_came_before_a_malformed_request_is_answered_first() {
    let origin = Origin::start(|request| ok("", &request.target));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.send(get("/1") + &get("/2") + "GET /3 HTTP/1.1\nHost: a\r\n\r\n" + &get("/4"));
    assert_eq!(client.response().text(), "/1");
    assert_eq!(client.response().text(), "/2");
    assert_eq!(client.response().status, 400);
    assert!(client.rest().is_empty());
    assert_eq!((origin.requests().len(), origin.count("/4")), (2, 0));
}

#[test]
fn a_connection_goes_on_after_it_has_waited_in_the_master() {
    let origin =
        Origin::start(|request| ok("", format!("{} {}", request.target, request.body.len())));
    let baton = Baton::reverse(origin.address(), &["--set", "worker.grace=0s"]);
    let mut client = baton.client();
    for n in 0..20 {
        // The head and the body in pieces, each time from the master's hands.
        client.send(format!(
            "POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc"
        ));
        client.send("def");
        assert_eq!(client.response().text(), format!("/{n} 6"));
    }
}
