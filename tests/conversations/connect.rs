//! CONNECT: tunnels, their ends, and refusals behind which nothing is run.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::{Baton, Client, DEADLINE, Origin};

/// A forward proxy that may open tunnels to `origin`.
fn proxy(origin: SocketAddr, more: &[&str]) -> Baton {
    let ports = format!("access.connect_ports=[{}]", origin.port());
    Baton::forward(
        origin,
        &[&["--workers", "1", "--set", &ports], more].concat(),
    )
}

fn connect(baton: &Baton, authority: &str) -> Client {
    let mut client = baton.client();
    client.send(format!(
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
    ));
    client
}

/// Sends back what it gets until the other side ends, then `bye`.
fn echo() -> SocketAddr {
    Origin::raw(|mut stream, _| {
        let mut octets = [0; 64 * 1024];
        while let Ok(read @ 1..) = stream.read(&mut octets) {
            if stream.write_all(&octets[..read]).is_err() {
                return;
            }
        }
        let _ = stream.write_all(b"bye");
    })
}

#[test]
fn octets_pass_both_ways_and_half_a_close_passes() {
    let origin = echo();
    let baton = proxy(origin, &[]);
    let mut client = connect(&baton, &origin.to_string());
    let established = client.response_to("CONNECT");
    assert_eq!(established.status, 200);
    for gone in ["content-length", "transfer-encoding", "connection"] {
        assert_eq!(established.field(gone), None, "{}", established.head);
    }
    assert!(
        established.has("cache-status", "fwd=method"),
        "{}",
        established.head
    );
    // Not HTTP at all, and not for us to read.
    let octets = b"\x16\x03\x01\0\n\r\n\r\nGET / HTTP/1.1\r\n\r\n";
    client.send(octets);
    assert_eq!(client.exactly(octets.len()).unwrap(), octets);
    client.shutdown_write();
    assert_eq!(client.rest(), b"bye", "the other direction stays open");
}

#[test]
fn octets_sent_with_the_request_reach_the_other_end() {
    let origin = echo();
    let baton = proxy(origin, &[]);
    let mut client = baton.client();
    client.send(format!(
        "CONNECT {origin} HTTP/1.1\r\nHost: {origin}\r\n\r\nearly"
    ));
    assert_eq!(client.response_to("CONNECT").status, 200);
    assert_eq!(client.exactly(5).unwrap(), b"early");
}

#[test]
fn much_passes_unchanged() {
    let origin = echo();
    let baton = proxy(origin, &[]);
    let mut client = connect(&baton, &origin.to_string());
    assert_eq!(client.response_to("CONNECT").status, 200);
    let data: Vec<u8> = (0..4_000_000u32).map(|n| (n / 7) as u8).collect();
    let mut writer = client.stream.try_clone().unwrap();
    let sent = data.clone();
    let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    assert!(client.exactly(data.len()).unwrap() == data);
    writing.join().unwrap();
}

#[test]
fn the_origins_end_is_passed_on_too() {
    let origin = Origin::raw(|mut stream, _| {
        stream.write_all(b"greeting").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"answer");
    });
    let baton = proxy(origin, &[]);
    let mut client = connect(&baton, &origin.to_string());
    assert_eq!(client.response_to("CONNECT").status, 200);
    assert_eq!(client.rest(), b"greeting");
    client.send("answer");
    client.shutdown_write();
    let line = &baton_line(&baton, client)[0];
    assert!(
        line.contains("CONNECT") && line.contains(" 200 8 "),
        "{line}"
    );
}

fn baton_line(baton: &Baton, client: Client) -> Vec<String> {
    drop(client);
    baton.access_lines(1)
}

#[test]
fn a_reset_on_one_side_ends_the_other() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let origin = Origin::raw(move |mut stream, _| {
        let _ = stream.read(&mut [0; 16]);
        let ended = !matches!(stream.read(&mut [0; 16]), Ok(1..));
        let _ = tell.lock().unwrap().send(ended);
    });
    let baton = proxy(origin, &[]);
    let mut client = connect(&baton, &origin.to_string());
    assert_eq!(client.response_to("CONNECT").status, 200);
    client.send("x");
    client.reset();
    assert!(told.recv_timeout(DEADLINE).unwrap());
}

#[test]
fn a_silent_tunnel_ends_and_one_that_talks_in_one_direction_does_not() {
    let origin = Origin::raw(|mut stream, connection| {
        if connection > 0 {
            for _ in 0..12 {
                std::thread::park_timeout(Duration::from_millis(50));
                if stream.write_all(b".").is_err() {
                    return;
                }
            }
        }
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let baton = proxy(origin, &["--set", "client.tunnel_timeout=300ms"]);
    let mut silent = connect(&baton, &origin.to_string());
    assert_eq!(silent.response_to("CONNECT").status, 200);
    let began = Instant::now();
    assert!(silent.is_closed());
    assert!(began.elapsed() < Duration::from_secs(10));
    let mut talking = connect(&baton, &origin.to_string());
    assert_eq!(talking.response_to("CONNECT").status, 200);
    // 600 ms of talk, twice the limit.
    assert_eq!(talking.exactly(12).unwrap(), b"............");
}

#[test]
fn only_permitted_ports_and_addresses_are_reached() {
    let origin = echo();
    // Allowed as a destination, but the port is not one for CONNECT.
    let baton = Baton::forward(origin, &["--workers", "1"]);
    let refused = connect(&baton, &origin.to_string()).response_to("GET");
    assert_eq!(refused.status, 403);
    assert!(refused.has("proxy-status", "http_request_denied"));
    assert!(
        refused.text().contains(&origin.port().to_string()),
        "{}",
        refused.text()
    );
    // The port is one for CONNECT, the destination is refused.
    let ports = format!("access.connect_ports=[{}]", origin.port());
    let baton = Baton::start(&[
        "forward",
        "--listen",
        "127.0.0.1:0",
        "--workers",
        "1",
        "--set",
        &ports,
    ]);
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    ] {
        let refused = connect(&baton, &format!("{host}:{}", origin.port())).response_to("GET");
        assert_eq!(refused.status, 403, "{host}: {}", refused.head);
        assert!(
            refused.has("proxy-status", "destination_ip_prohibited"),
            "{host}"
        );
    }
}

#[test]
fn nothing_behind_a_refused_connect_is_run() {
    let origin = Origin::start(|_| crate::support::origin::ok("", "no"));
    let baton = Baton::forward(origin.address(), &["--workers", "1"]);
    let port = origin.address().port();
    for authority in [
        format!("127.0.0.1:{port}"),
        "127.0.0.1:443".to_owned(),
        "nowhere.invalid:443".to_owned(),
        "127.0.0.1".to_owned(),
        "127.0.0.1:".to_owned(),
        format!("http://127.0.0.1:{port}/"),
        format!("user@127.0.0.1:{port}"),
        "/".to_owned(),
    ] {
        let mut client = connect(&baton, &authority);
        client.send_anyway(format!(
            "GET {} HTTP/1.1\r\nHost: a\r\n\r\n",
            origin.url("/smuggled")
        ));
        let refused = client.response_to("GET");
        assert!(
            (400..=504).contains(&refused.status),
            "{authority}: {}",
            refused.head
        );
        assert!(
            refused.has("connection", "close") && refused.field("cache-status").is_some(),
            "{authority}: {}",
            refused.head
        );
        assert!(client.rest().is_empty(), "{authority}");
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn two_hundred_comes_only_when_connected() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = gone.local_addr().unwrap();
    drop(gone);
    let baton = proxy(dead, &[]);
    let refused = connect(&baton, &dead.to_string()).response_to("GET");
    assert_eq!(refused.status, 502, "{}", refused.head);
    assert!(refused.has("proxy-status", "connection_refused"));
}

#[test]
fn connect_with_content_is_refused_and_what_follows_reaches_nobody() {
    let origin = echo();
    let baton = proxy(origin, &[]);
    for (fields, status) in [
        ("Content-Length: 5\r\n", 400),
        ("Transfer-Encoding: chunked\r\n", 400),
        // That of some clients, and no content.
        ("Content-Length: 0\r\n", 200),
    ] {
        let mut client = baton.client();
        client.send(format!(
            "CONNECT {origin} HTTP/1.1\r\nHost: {origin}\r\n{fields}\r\n0\r\n\r\n"
        ));
        assert_eq!(client.response_to("CONNECT").status, status, "{fields}");
        if status == 200 {
            assert_eq!(client.exactly(5).unwrap(), b"0\r\n\r\n");
        } else {
            assert!(client.is_closed(), "{fields}");
        }
    }
}
