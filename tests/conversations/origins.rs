//! Connections to origin servers: reuse, what ends it, retries, and origins that cannot be reached.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::support::origin::ok;
use crate::support::{Baton, DEADLINE, Gate, Origin, eventually};

/// A port on which nobody listens.
fn dead_port() -> u16 {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    gone.local_addr().unwrap().port()
}

#[test]
fn a_connection_carries_the_requests_of_many_clients() {
    let origin = Origin::start(|request| ok("", &request.body));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    for _ in 0..3 {
        baton.client().get("/");
        let mut client = baton.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!(client.response().text(), "body");
    }
    let connections: Vec<usize> = origin
        .requests()
        .iter()
        .map(|request| request.connection)
        .collect();
    assert_eq!(connections, [0; 6]);
}

#[test]
fn an_origin_that_closes_is_not_used_again() {
    let origin = Origin::start(|request| {
        let fields = match request.target.as_str() {
            "/close" => "Connection: close\r\n",
            _ => "",
        };
        let mut octets = ok(fields, "body");
        if request.target == "/1.0" {
            octets[..8].copy_from_slice(b"HTTP/1.0");
        }
        octets
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    for target in ["/close", "/1.0", "/", "/"] {
        assert_eq!(client.get(target).text(), "body");
    }
    let connections: Vec<usize> = origin
        .requests()
        .iter()
        .map(|request| request.connection)
        .collect();
    assert_eq!(connections, [0, 1, 2, 2]);
}

#[test]
fn an_http_1_0_origin_may_keep_its_connection() {
    let origin = Origin::start(|_| {
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi".to_vec()
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.get("/");
    client.get("/");
    assert!(
        origin
            .requests()
            .iter()
            .all(|request| request.connection == 0)
    );
}

#[test]
fn keep_alive_timeout_and_idle_limits_are_respected() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/short" => ok("Keep-Alive: timeout=1, max=10\r\n", ""),
        _ => ok("Keep-Alive: timeout=100\r\n", ""),
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    for target in ["/short", "/long", "/long"] {
        client.get(target);
    }
    let connections: Vec<usize> = origin
        .requests()
        .iter()
        .map(|request| request.connection)
        .collect();
    assert_eq!(
        connections,
        [0, 1, 1],
        "with a second to live no connection is kept"
    );

    let (tell, ended) = mpsc::channel();
    let tell = Mutex::new(tell);
    let counted = Origin::raw(move |mut stream, _| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(&ok("", "body"));
        let read = stream.read(&mut [0; 1024]);
        let _ = tell.lock().unwrap().send(matches!(read, Ok(0)));
    });
    let baton = Baton::reverse(
        counted,
        &["--workers", "1", "--set", "origin.idle_timeout=100ms"],
    );
    assert_eq!(baton.client().get("/").text(), "body");
    assert!(
        ended.recv_timeout(DEADLINE).unwrap(),
        "idle for too long: closed by us"
    );
}

#[test]
fn idle_connections_are_bounded_and_busy_ones_are_not_counted() {
    let gate = Arc::new((Mutex::new(0), std::sync::Condvar::new()));
    let waiting = gate.clone();
    let open = Arc::new(AtomicUsize::new(0));
    let counted = open.clone();
    let origin = Origin::raw(move |mut stream, _| {
        counted.fetch_add(1, SeqCst);
        if matches!(stream.read(&mut [0; 1024]), Ok(1..)) {
            let (count, all) = &*waiting;
            let mut count = count.lock().unwrap();
            *count += 1;
            all.notify_all();
            // All four are busy at once.
            drop(
                all.wait_timeout_while(count, DEADLINE, |count| *count < 4)
                    .unwrap(),
            );
            let _ = stream.write_all(&ok("", "body"));
            let _ = stream.read(&mut [0; 1024]);
        }
        counted.fetch_sub(1, SeqCst);
    });
    let baton = Baton::reverse(
        origin,
        &["--workers", "1", "--set", "origin.idle_per_host=2"],
    );
    let mut clients: Vec<_> = (0..4).map(|_| baton.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.response().text(), "body");
    }
    eventually("two idle connections are left", || {
        (open.load(SeqCst) == 2).then_some(())
    });
    drop(gate);
}

#[test]
fn octets_on_an_idle_connection_end_it() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let origin = Origin::raw(move |mut stream, connection| {
        counted.fetch_add(1, SeqCst);
        if matches!(stream.read(&mut [0; 1024]), Ok(1..)) {
            let _ = stream.write_all(&ok("", "real"));
            if connection == 0 {
                let _ = stream.write_all(&ok("", "forged"));
                let _ = tell.lock().unwrap().send(());
            }
            let _ = stream.read(&mut [0; 1024]);
        }
    });
    let baton = Baton::reverse(origin, &["--workers", "1"]);
    let mut client = baton.client();
    assert_eq!(client.get("/").text(), "real");
    told.recv_timeout(DEADLINE).unwrap();
    assert_eq!(client.get("/").text(), "real");
    assert_eq!(connections.load(SeqCst), 2);
}

/// An origin that answers the first request of its first connection, and resets or closes that connection on the second.
fn dies_on_reuse(how: &'static str) -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seen_there = seen.clone();
    let address = Origin::raw(move |mut stream, connection| {
        let mut octets = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut octets) {
            let head = String::from_utf8_lossy(&octets[..read]).into_owned();
            let line = head.split("\r\n").next().unwrap().to_owned();
            seen_there
                .lock()
                .unwrap()
                .push(format!("{connection} {line}"));
            let count = seen_there.lock().unwrap().len();
            if connection == 0 && count > 1 {
                match how {
                    "reset" => {
                        let socket = socket2::SockRef::from(&stream);
                        socket.set_linger(Some(Duration::ZERO)).unwrap();
                    }
                    "interim" => drop(stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n")),
                    "half" => drop(stream.write_all(b"HTTP/1.1 200 O")),
                    _ => {}
                }
                return;
            }
            let _ = stream.write_all(&ok("", "body"));
        }
    });
    (address, seen)
}

#[test]
fn an_idempotent_request_that_meets_a_dying_connection_is_sent_once_more() {
    for how in ["close", "reset"] {
        for method in ["GET", "PUT", "DELETE", "HEAD"] {
            let (origin, seen) = dies_on_reuse(how);
            let baton = Baton::reverse(origin, &["--workers", "1"]);
            let mut client = baton.client();
            assert_eq!(client.get("/1").text(), "body");
            let body = if method == "PUT" {
                "Content-Length: 3\r\n\r\nabc"
            } else {
                "\r\n"
            };
            client.send(format!("{method} /2 HTTP/1.1\r\nHost: a\r\n{body}"));
            let response = client.response_to(method);
            assert_eq!(response.status, 200, "{method} {how}: {}", response.head);
            let expected = format!("0 {method} /2 HTTP/1.1 / 1 {method} /2 HTTP/1.1");
            assert_eq!(seen.lock().unwrap()[1..].join(" / "), expected);
        }
    }
}

#[test]
fn a_post_is_never_sent_twice() {
    for how in ["close", "reset"] {
        let (origin, seen) = dies_on_reuse(how);
        let baton = Baton::reverse(origin, &["--workers", "1"]);
        let mut client = baton.client();
        client.get("/1");
        client.send("POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
        let response = client.response();
        assert_eq!(response.status, 502, "{}", response.head);
        assert!(
            response.has("proxy-status", "connection_terminated"),
            "{}",
            response.head
        );
        assert_eq!(seen.lock().unwrap().len(), 2);
        assert_eq!(
            client.get("/3").text(),
            "body",
            "the client's connection goes on"
        );
    }
}

#[test]
fn nothing_is_sent_twice_once_a_response_has_begun() {
    for how in ["interim", "half"] {
        let (origin, seen) = dies_on_reuse(how);
        let baton = Baton::reverse(origin, &["--workers", "1"]);
        let mut client = baton.client();
        client.get("/1");
        let mut response = client.get("/2");
        if how == "interim" {
            assert_eq!(response.status, 103);
            response = client.response();
        }
        assert_eq!(response.status, 502, "{how}");
        assert_eq!(seen.lock().unwrap().len(), 2, "{how}");
    }
}

#[test]
fn a_fresh_connection_that_dies_is_not_tried_again() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let origin = Origin::raw(move |mut stream, _| {
        counted.fetch_add(1, SeqCst);
        let _ = stream.read(&mut [0; 1024]);
    });
    let baton = Baton::reverse(origin, &["--workers", "1"]);
    let response = baton.client().get("/");
    assert_eq!(response.status, 502);
    assert_eq!(tries.load(SeqCst), 1);
}

#[test]
fn an_origin_that_is_not_there_is_502_with_what_to_do() {
    let dead = format!("http://127.0.0.1:{}", dead_port());
    let baton = Baton::start(&[
        "reverse",
        "--to",
        &dead,
        "--listen",
        "127.0.0.1:0",
        "--workers",
        "1",
    ]);
    let mut client = baton.client();
    let page = client.get_with("/", "Accept: text/html\r\n");
    assert_eq!(page.status, 502);
    assert!(
        page.has("proxy-status", "baton; error=connection_refused"),
        "{}",
        page.head
    );
    assert!(page.has("cache-control", "no-store"));
    assert!(
        page.has("cache-status", "baton; fwd=uri-miss; detail=origin-refused"),
        "{}",
        page.head
    );
    assert!(page.text().contains("refused"), "{}", page.text());
    assert_eq!(
        client.get("/").status,
        502,
        "the client's connection goes on"
    );
}

#[test]
fn a_name_without_address_is_502_and_a_silent_host_504() {
    let origin = Origin::start(|_| ok("", "no"));
    let baton = Baton::forward(
        origin.address(),
        &["--workers", "1", "--set", "origin.header_timeout=100ms"],
    );
    let mut client = baton.client();
    let name = client.get("http://nowhere.invalid/");
    assert!(matches!(name.status, 502 | 504), "{}", name.head);
    assert!(
        name.field("proxy-status")
            .is_some_and(|value| value.contains("dns") || value.contains("timeout"))
    );

    let silent = Origin::raw(|mut stream, _| drop(stream.read_to_end(&mut Vec::new())));
    let baton = Baton::reverse(
        silent,
        &["--workers", "1", "--set", "origin.header_timeout=100ms"],
    );
    let began = Instant::now();
    let late = baton.client().get("/");
    assert_eq!(late.status, 504, "{}", late.head);
    assert!(late.has("proxy-status", "http_response_timeout"));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn addresses_are_tried_until_one_answers() {
    // localhost is ::1 and 127.0.0.1; only the second one listens.
    let origin = Origin::start(|_| ok("", "four"));
    let to = format!("http://localhost:{}", origin.address().port());
    let baton = Baton::start(&[
        "reverse",
        "--to",
        &to,
        "--listen",
        "127.0.0.1:0",
        "--workers",
        "1",
    ]);
    assert_eq!(baton.client().get("/").text(), "four");
}

#[test]
fn the_two_modes_share_neither_connections_nor_responses() {
    let origin = Origin::start(|request| ok("Cache-Control: max-age=60\r\n", &request.target));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxy.conf");
    let text = format!(
        "workers = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\nmode = \"reverse\"\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\nmode = \"forward\"\n[reverse]\nto = \"http://{}\"\n",
        origin.address()
    );
    std::fs::write(&file, text).unwrap();
    let baton = Baton::start(&["serve", "-c", file.to_str().unwrap(), "--workers", "1"]);
    let [reverse, forward] = baton.addresses() else {
        panic!("{:?}", baton.addresses())
    };
    let mut behind = crate::support::Client::connect(*reverse);
    let authority = origin.address().to_string();
    behind.send(format!("GET /secret HTTP/1.1\r\nHost: {authority}\r\n\r\n"));
    assert_eq!(behind.response().text(), "/secret");
    // Neither what the other side has stored, nor its idle connection, leads a forward client to a refused address.
    let mut browser = crate::support::Client::connect(*forward);
    for path in ["/secret", "/other"] {
        let refused = browser.get(&origin.url(path));
        assert_eq!(refused.status, 403, "{}", refused.head);
    }
}

/// An origin that says nothing, or only the head of its response, and tells when its connection has ended.
fn silent_origin(head: &'static str) -> (SocketAddr, mpsc::Receiver<()>) {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let address = Origin::raw(move |mut stream, _| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(head.as_bytes());
        if !matches!(stream.read(&mut [0; 1]), Ok(1..)) {
            let _ = tell.lock().unwrap().send(());
        }
    });
    (address, told)
}

#[test]
fn a_client_that_resets_its_connection_ends_the_work_for_it() {
    for head in ["", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"] {
        let (origin, ended) = silent_origin(head);
        let baton = Baton::reverse(origin, &["--workers", "1"]);
        let mut client = baton.client();
        client.send("GET /left HTTP/1.1\r\nHost: a\r\n\r\n");
        baton.wait_until_served(&client);
        if !head.is_empty() {
            client.line().unwrap();
        }
        client.reset();
        // Long before any deadline of the origin's.
        ended.recv_timeout(Duration::from_secs(5)).unwrap();
        let line = &baton.access_lines(1)[0];
        assert!(
            line.contains("GET /left ") && line.contains("end=client-gone"),
            "{line}"
        );
    }
}

#[test]
fn a_client_that_shuts_one_direction_still_gets_a_late_answer() {
    let gate = Gate::new();
    let origin = {
        let gate = gate.clone();
        Origin::start(move |_| {
            gate.wait();
            ok("", "late")
        })
    };
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.shutdown_write();
    // Longer than a worker waits before it watches the client.
    std::thread::park_timeout(Duration::from_millis(400));
    gate.open();
    assert_eq!(client.response().text(), "late");
}

#[test]
fn a_head_that_comes_in_pieces_is_one_head() {
    let address = Origin::raw(|mut stream, _| {
        let mut request = [0; 1000];
        while matches!(stream.read(&mut request), Ok(1..)) {
            for piece in [
                "HTTP/1.1 200 O",
                "K\r\nCache-Control: no-store\r\nContent-Le",
                "ngth: 5\r\n\r",
                "\nhe",
                "llo",
            ] {
                stream.write_all(piece.as_bytes()).unwrap();
            }
        }
    });
    let baton = Baton::reverse(address, &[]);
    let mut client = baton.client();
    // They are packets of their own; how many of them come together is chance.
    for _ in 0..200 {
        assert_eq!(client.get("/").text(), "hello");
    }
}
