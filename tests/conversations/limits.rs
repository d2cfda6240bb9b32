//! Deadlines, minimum rates and sizes; and the load that the defaults have to carry.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::origin::ok;
use crate::support::{Baton, Client, DEADLINE, Origin};

/// Until a connection ends, sends an octet every `every`; says how long that took.
fn trickle(client: &mut Client, every: Duration) -> Duration {
    let began = Instant::now();
    client.stream.set_read_timeout(Some(every)).unwrap();
    let mut octets = [0; 1];
    while began.elapsed() < DEADLINE {
        match client.stream.peek(&mut octets) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                client.send_anyway("x");
            }
            _ => break,
        }
    }
    client.stream.set_read_timeout(Some(DEADLINE)).unwrap();
    began.elapsed()
}

#[test]
fn a_heads_deadline_is_for_the_whole_and_not_reset_by_each_octet() {
    let origin = Origin::start(|_| ok("", "no"));
    let baton = Baton::reverse(
        origin.address(),
        &["--workers", "1", "--set", "client.header_timeout=400ms"],
    );
    for begun in [
        "G",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: ",
    ] {
        let mut client = baton.client();
        client.send(begun);
        let took = trickle(&mut client, Duration::from_millis(50));
        assert!(
            (Duration::from_millis(300)..Duration::from_secs(5)).contains(&took),
            "{begun:?}: {took:?}"
        );
        let response = client.response();
        assert_eq!(response.status, 408, "{begun:?}: {}", response.head);
        assert!(response.has("connection", "close") && response.field("cache-status").is_some());
    }
    // The second request's head has a deadline of its own.
    let mut client = baton.client();
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n");
        std::thread::park_timeout(Duration::from_millis(200));
        client.send("\r\n");
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(origin.requests().len(), 3);
}

#[test]
fn a_connection_that_stays_silent_is_closed_without_a_word() {
    let origin = Origin::start(|_| ok("", "body"));
    for grace in ["worker.grace=50ms", "worker.grace=10s"] {
        let baton = Baton::reverse(
            origin.address(),
            &[
                "--workers",
                "1",
                "--set",
                "client.idle_timeout=300ms",
                "--set",
                grace,
            ],
        );
        let mut silent = baton.client();
        assert!(silent.rest().is_empty());
        let mut client = baton.client();
        client.get("/");
        assert!(client.rest().is_empty(), "{grace}");
    }
}

#[test]
fn a_request_body_has_a_minimum_rate() {
    let origin = Origin::start(|request| ok("", request.body.len().to_string()));
    let baton = Baton::reverse(
        origin.address(),
        &[
            "--workers",
            "1",
            "--set",
            "client.body_timeout=400ms",
            "--set",
            "client.min_rate=1000",
        ],
    );
    for head in [
        "Content-Length: 100000\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nfffff\r\n",
    ] {
        let mut client = baton.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}"));
        let took = trickle(&mut client, Duration::from_millis(50));
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert_eq!(client.response().status, 408, "{head}");
    }
    assert!(origin.requests().is_empty());
    // At a fair rate it may take as long as it takes: four windows.
    let mut client = baton.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6400\r\n\r\n");
    for _ in 0..32 {
        client.send([b'x'; 200]);
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert_eq!(client.response().text(), "6400");
}

#[test]
fn a_long_download_at_a_fair_rate_is_not_cut_and_a_stalled_one_is() {
    let origin = Origin::conversing(|request, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6400\r\n\r\n")
            .unwrap();
        for n in 0..32 {
            if request.target == "/stalls" && n == 16 {
                let _ = stream.read(&mut [0; 16]);
                return false;
            }
            if stream.write_all(&[b'x'; 200]).is_err() {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        true
    });
    let baton = Baton::reverse(
        origin.address(),
        &[
            "--workers",
            "1",
            "--set",
            "origin.body_timeout=400ms",
            "--set",
            "origin.min_rate=1000",
        ],
    );
    assert_eq!(baton.client().get("/fair").body.len(), 6400);
    let mut client = baton.client();
    client.send("GET /stalls HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        client.try_response_to("GET").is_err(),
        "a stalled response was completed"
    );
    let lines = baton.access_lines(2);
    assert!(
        lines
            .iter()
            .any(|line| line.contains("/stalls") && line.contains("end=origin-stalled")),
        "{lines:?}"
    );
}

#[test]
fn a_client_that_does_not_read_is_cut_and_a_slow_reader_is_not() {
    let origin = Origin::start(|_| ok("Cache-Control: max-age=60\r\n", vec![b'x'; 8_000_000]));
    let baton = Baton::reverse(
        origin.address(),
        &[
            "--workers",
            "1",
            "--set",
            "client.write_timeout=500ms",
            "--set",
            "client.min_rate=1000",
        ],
    );
    assert_eq!(baton.client().get("/").body.len(), 8_000_000);
    // Both a hit and a passed-on response.
    for target in ["/", "/?new"] {
        let mut client = baton.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        crate::support::eventually("the stalled client is given up", || {
            let text = baton.log("access-0.log");
            text.lines()
                .filter(|line| line.contains(&format!("GET {target} ")))
                .any(|line| line.contains("client-stalled"))
                .then_some(())
        });
        assert!(client.try_response_to("GET").is_err());
    }
    let mut slow = baton.client();
    slow.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut read = 0;
    let began = Instant::now();
    let mut octets = vec![0; 400_000];
    while read < 8_000_000 {
        read += slow.stream.read(&mut octets).unwrap();
        if began.elapsed() < Duration::from_secs(2) {
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
}

#[test]
fn sizes() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/large-head" => ok(&format!("X: {}\r\n", "x".repeat(100_000)), ""),
        "/many-fields" => ok(&"X: y\r\n".repeat(300), ""),
        _ => ok("", "fits"),
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let get =
        |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let long = |n: usize| format!("/{}", "x".repeat(n - 1));
    for (name, octets, status) in [
        ("target of 16 KiB", get(&long(16 * 1024), ""), 200),
        ("target over 16 KiB", get(&long(16 * 1024 + 1), ""), 414),
        (
            "target without end",
            format!("GET {}", long(1_000_000)),
            414,
        ),
        (
            "60,000 octets of fields",
            get("/", &format!("X: {}\r\n", "x".repeat(60_000))),
            200,
        ),
        (
            "70,000 octets of fields",
            get("/", &format!("X: {}\r\n", "x".repeat(70_000))),
            431,
        ),
        (
            "fields without end",
            format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(1_000_000)),
            431,
        ),
        ("200 fields", get("/", &"X: y\r\n".repeat(199)), 200),
        ("201 fields", get("/", &"X: y\r\n".repeat(200)), 431),
        (
            "long method",
            format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(1000)),
            501,
        ),
    ] {
        let mut client = baton.client();
        client.send_anyway(octets);
        let response = client.response();
        assert_eq!(response.status, status, "{name}: {}", response.head);
        if status != 200 {
            assert!(
                response.has("connection", "close") && response.field("proxy-status").is_some(),
                "{name}"
            );
        }
    }
    let mut client = baton.client();
    for target in ["/large-head", "/many-fields"] {
        let response = client.get(target);
        assert_eq!(response.status, 502, "{target}");
        assert!(
            response.has("proxy-status", "http_response_header_section_size"),
            "{}",
            response.head
        );
    }
    assert_eq!(client.get("/").text(), "fits");
}

#[test]
fn the_defaults_carry_idle_and_half_sent_requests_and_a_burst_besides() {
    let origin = Origin::start(|_| ok("Cache-Control: max-age=60\r\n", "body"));
    let baton = Baton::reverse(origin.address(), &[]);
    // Both sides of these connections are counted against the limit of this process and of baton's.
    let _ = rlimit_up();
    let connect = || {
        let stream = TcpStream::connect(baton.address()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    };
    baton.client().get("/");
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..2000 {
        held.push(connect());
    }
    for _ in 0..500 {
        let mut stream = connect();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.exa").unwrap();
        held.push(stream);
    }
    for _ in 0..500 {
        let mut stream = connect();
        stream
            .write_all(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
            .unwrap();
        held.push(stream);
    }
    let began = Instant::now();
    let mut burst: Vec<TcpStream> = (0..400).map(|_| connect()).collect();
    for stream in &mut burst {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
            .unwrap();
    }
    for stream in &mut burst {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "the burst took {took:?}");
    // Those that were half sent go on as if nothing had been.
    let mut late = held.swap_remove(2100);
    late.write_all(b"mple\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// As many descriptors as this process may have.
fn rlimit_up() -> nix::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}
