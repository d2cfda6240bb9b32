//! Fields on their way through: hop-by-hop ones end here, ours are added, and nothing goes round in circles.

use crate::support::origin::ok;
use crate::support::{Baton, Origin};

#[test]
fn hop_by_hop_fields_of_a_request_end_here() {
    let origin = Origin::start(|request| ok("", &request.head));
    for baton in [
        Baton::reverse(origin.address(), &["--workers", "1"]),
        Baton::forward(origin.address(), &["--workers", "1"]),
    ] {
        let mut client = baton.client();
        let target = if baton.start_line().contains("forward") {
            origin.url("/")
        } else {
            "/".into()
        };
        let seen = client
            .get_with(
                &target,
                "Connection: keep-alive, X-Hop , x-other\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nX-Other: 2\r\n\
                 Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic c2VjcmV0\r\nTE: trailers\r\nTrailer: X\r\n\
                 Upgrade: foo\r\nX-Kept: yes\r\nX-kEpT: Twice\r\nAccept-Encoding: gzip\r\n",
            )
            .text();
        let lower = seen.to_ascii_lowercase();
        for gone in [
            "connection:",
            "keep-alive",
            "x-hop",
            "x-other",
            "proxy-",
            "\nte:",
            "trailer",
            "upgrade",
        ] {
            assert!(!lower.contains(gone), "{gone}: {seen}");
        }
        assert!(
            seen.contains("\r\nX-Kept: yes\r\nX-kEpT: Twice\r\n"),
            "order and case are kept: {seen}"
        );
        assert!(seen.contains("\r\nAccept-Encoding: gzip\r\n"));
    }
}

#[test]
fn a_client_cannot_nominate_away_what_routes_frames_or_traces() {
    let origin =
        Origin::start(|request| ok("", format!("{}\n{}", request.head, request.body.len())));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nX-Forwarded-For: 10.0.0.9\r\nVia: 1.1 before\r\n\
         Cookie: a=b\r\nAuthorization: Basic eA==\r\n\
         Connection: Host, Content-Length, Transfer-Encoding, Via, X-Forwarded-For, X-Forwarded-Proto, Cookie, Authorization\r\n\r\nabc",
    );
    let seen = client.response().text();
    for there in [
        "\r\nHost: a.example\r\n",
        "\r\nContent-Length: 3\r\n",
        "\r\nVia: 1.1 before\r\n",
        "\r\nX-Forwarded-For: 10.0.0.9, 127.0.0.1\r\n",
        "\r\nX-Forwarded-Proto: http\r\n",
        "\r\nX-Forwarded-Host: a.example\r\n",
        "\r\nCookie: a=b\r\n",
        "\r\nAuthorization: Basic eA==\r\n",
    ] {
        assert!(seen.contains(there), "{there:?}: {seen}");
    }
    assert!(seen.ends_with("\n3"));
}

#[test]
fn hop_by_hop_fields_of_a_response_end_here_stored_or_not() {
    let origin = Origin::start(|request| {
        let fresh = if request.target == "/kept" {
            "Cache-Control: max-age=60\r\n"
        } else {
            ""
        };
        ok(
            &format!(
                "Connection: X-Hop, keep-alive\r\nKeep-Alive: timeout=9\r\nX-Hop: 1\r\nProxy-Authenticate: Basic\r\n\
                 Proxy-Connection: keep-alive\r\nUpgrade: foo\r\nTrailer: X\r\nX-Kept: yes\r\n{fresh}"
            ),
            "body",
        )
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    for target in ["/", "/kept", "/kept"] {
        let response = client.get(target);
        for gone in [
            "connection",
            "keep-alive",
            "x-hop",
            "proxy-authenticate",
            "proxy-connection",
            "upgrade",
            "trailer",
        ] {
            assert_eq!(response.field(gone), None, "{gone}: {}", response.head);
        }
        assert!(response.has("x-kept", "yes"));
        assert_eq!(
            response.field("content-length").as_deref(),
            Some("4"),
            "once: {}",
            response.head
        );
    }
}

#[test]
fn via_and_x_forwarded_fields_are_set() {
    let origin = Origin::start(|request| ok("Via: 1.0 inner\r\n", &request.head));
    let reverse = Baton::reverse(origin.address(), &["--workers", "1"]);
    let response = reverse.client().get_with(
        "/",
        "X-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\n",
    );
    let via = response.field("via").unwrap();
    assert!(via.starts_with("1.0 inner, 1.1 "), "{via}");
    let seen = response.text();
    assert!(seen.contains("\r\nVia: 1.1 "), "{seen}");
    assert!(
        seen.contains("\r\nX-Forwarded-For: 127.0.0.1\r\n"),
        "{seen}"
    );
    assert!(
        seen.contains("\r\nX-Forwarded-Host: a.example\r\n") && !seen.contains("evil"),
        "{seen}"
    );
    assert!(seen.contains("\r\nX-Forwarded-Proto: http\r\n"), "{seen}");
    // A client's own version is what Via tells.
    let mut old = reverse.client();
    old.send("GET / HTTP/1.0\r\n\r\n");
    let seen = old.response().text();
    assert!(seen.contains("\r\nVia: 1.0 "), "{seen}");
    assert!(seen.starts_with("GET / HTTP/1.1\r\n"), "{seen}");

    let forward = Baton::forward(origin.address(), &["--workers", "1"]);
    let seen = forward.client().get(&origin.url("/")).text();
    assert!(
        seen.contains("\r\nVia: 1.1 ") && !seen.contains("X-Forwarded"),
        "{seen}"
    );
}

#[test]
fn the_host_of_the_origin_is_sent_where_it_is_asked_for() {
    let origin = Origin::start(|request| ok("", &request.head));
    let baton = Baton::reverse(
        origin.address(),
        &["--workers", "1", "--set", "reverse.host=origin"],
    );
    let seen = baton.client().get("/").text();
    assert!(
        seen.contains(&format!("\r\nHost: {}\r\n", origin.address())),
        "{seen}"
    );
    assert!(
        seen.contains("\r\nX-Forwarded-Host: a.example\r\n"),
        "{seen}"
    );
}

#[test]
fn a_request_that_comes_round_is_508_and_others_are_not() {
    let origin = Origin::start(|request| ok("", request.field("via").unwrap()));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    let own = client.get("/").text();
    let pseudonym = own.split(' ').nth(1).unwrap();
    for via in [
        own.clone(),
        format!("1.0 other, 1.1 {pseudonym} (comment)"),
        format!("1.1 {}, 1.1 after", pseudonym.to_ascii_uppercase()),
    ] {
        let looped = client.get_with("/", &format!("Via: {via}\r\n"));
        assert_eq!(looped.status, 508, "{via}: {}", looped.head);
        assert!(looped.has("proxy-status", "proxy_loop_detected"));
        assert!(looped.field("cache-status").is_some());
    }
    let other = client.get_with("/", "Via: 1.1 baton, 1.1 elsewhere\r\n");
    assert_eq!(other.text(), format!("1.1 baton, 1.1 elsewhere, {own}"));
    assert_eq!(client.get("/").status, 200, "the connection goes on");
}

#[test]
fn a_proxy_that_is_its_own_origin_does_not_spin() {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = probe.local_addr().unwrap();
    drop(probe);
    let baton = Baton::start(&[
        "reverse",
        "--to",
        &format!("http://{address}"),
        "--listen",
        &address.to_string(),
        "--workers",
        "2",
    ]);
    let response = baton.client().get("/");
    assert_eq!(response.status, 508, "{}", response.head);
    assert!(baton.access_lines(2).len() <= 3);
}

#[test]
fn a_first_hand_response_keeps_its_age_and_gets_a_date() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/aged" => ok("Age: 7\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n", ""),
        _ => ok("", ""),
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    let aged = client.get("/aged");
    assert_eq!(aged.field("age").as_deref(), Some("7"));
    assert_eq!(
        aged.field("date").as_deref(),
        Some("Sun, 06 Nov 1994 08:49:37 GMT")
    );
    let plain = client.get("/");
    assert_eq!(plain.field("age"), None);
    assert!(
        plain
            .field("date")
            .is_some_and(|date| date.ends_with("GMT"))
    );
}

#[test]
fn octets_beyond_ascii_in_values_pass_unchanged() {
    let origin = Origin::start(|request| {
        assert!(request.head.contains("X-Text: "));
        b"HTTP/1.1 200 Gr\xfc\xdfe\r\nX-Text: \xe9\xff\x80\tend\r\nCache-Control: max-age=60\r\nContent-Length: 0\r\n\r\n".to_vec()
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    for _ in 0..2 {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Text: \xe9\xff\r\nConnection: close\r\n\r\n");
        let octets = client.rest();
        assert!(octets.starts_with(b"HTTP/1.1 200 Gr\xfc\xdfe\r\n"));
        assert!(
            crate::support::client::find(&octets, b"\r\nX-Text: \xe9\xff\x80\tend\r\n").is_some()
        );
        client = baton.client();
    }
}
