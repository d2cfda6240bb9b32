//! Who may use the proxy, and where it connects to: decided on the address actually connected to.

use std::io::Write;

use crate::support::origin::ok;
use crate::support::{Baton, Origin};

fn forward(more: &[&str]) -> Baton {
    Baton::start(
        &[
            &["forward", "--listen", "127.0.0.1:0", "--workers", "1"],
            more,
        ]
        .concat(),
    )
}

#[test]
fn addresses_of_this_host_and_its_surroundings_are_refused_in_every_form() {
    let origin = Origin::start(|_| ok("", "secret"));
    let baton = forward(&[]);
    let port = origin.address().port();
    let mut client = baton.client();
    for host in [
        "127.0.0.1",
        "127.255.255.254",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "0.0.0.0",
        "0.1.2.3",
        "[::]",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::127.0.0.1]",
        "[2002:7f00:1::]",
        "169.254.0.1",
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "[fe80::1]",
        "224.0.0.1",
        "[ff02::1]",
        "255.255.255.255",
    ] {
        let refused = client.get(&format!("http://{host}:{port}/"));
        assert_eq!(refused.status, 403, "{host}: {}", refused.head);
        assert!(
            refused.has("proxy-status", "baton; error=destination_ip_prohibited"),
            "{host}: {}",
            refused.head
        );
        assert!(
            refused.text().contains("destinations_allow"),
            "{host}: {}",
            refused.text()
        );
        assert!(refused.field("cache-status").is_some(), "{host}");
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn exceptions_are_for_what_they_name() {
    let origin = Origin::start(|_| ok("", "yes"));
    let other = Origin::start(|_| ok("", "no"));
    let (port, other_port) = (origin.address().port(), other.address().port());
    for (entry, host) in [
        (format!("127.0.0.1:{port}"), "127.0.0.1"),
        (format!("127.0.0.1:{port}"), "localhost"),
        (format!("localhost:{port}"), "localhost"),
        ("127.0.0.0/8".to_owned(), "127.0.0.1"),
        ("127.0.0.1".to_owned(), "127.0.0.1"),
    ] {
        let allow = format!("access.destinations_allow=[\"{entry}\"]");
        let baton = forward(&["--set", &allow]);
        let mut client = baton.client();
        let allowed = client.get(&format!("http://{host}:{port}/"));
        assert_eq!(allowed.status, 200, "{entry}, {host}: {}", allowed.text());
        let status = client.get(&format!("http://{host}:{other_port}/")).status;
        assert_eq!(status == 200, !entry.contains(':'), "{entry}: another port");
        assert_eq!(
            client.get(&format!("http://[::1]:{port}/")).status,
            403,
            "{entry}: another address"
        );
    }
    // A name is not its address.
    let allow = format!("access.destinations_allow=[\"localhost:{port}\"]");
    let baton = forward(&["--set", &allow]);
    assert_eq!(baton.client().get(&origin.url("/")).status, 403);
}

#[test]
fn a_name_of_the_hosts_file_is_judged_by_its_address() {
    // Most systems name themselves there, with a loopback address.
    let text = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let names = text.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address: std::net::IpAddr = words.next()?.parse().ok()?;
        address
            .is_loopback()
            .then(|| words.next().map(str::to_owned))?
    });
    let origin = Origin::start(|_| ok("", "secret"));
    let baton = forward(&[]);
    let mut client = baton.client();
    for name in names {
        let refused = client.get(&format!("http://{name}:{}/", origin.address().port()));
        assert_eq!(refused.status, 403, "{name}: {}", refused.head);
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn a_redirect_to_a_refused_address_goes_to_the_client_and_is_refused_when_it_follows() {
    let inner = Origin::start(|_| ok("", "secret"));
    let to = inner.url("/admin");
    let outer = Origin::start(move |_| {
        crate::support::origin::answer("302 Found", &format!("Location: {to}\r\n"), "")
    });
    let baton = Baton::forward(outer.address(), &["--workers", "1"]);
    let mut client = baton.client();
    let redirect = client.get(&outer.url("/"));
    assert_eq!(
        (redirect.status, redirect.field("location").unwrap()),
        (302, inner.url("/admin"))
    );
    assert_eq!(client.get(&inner.url("/admin")).status, 403);
    assert!(inner.requests().is_empty());
}

#[test]
fn the_reverse_modes_own_origin_is_exempt_and_nothing_else() {
    let origin = Origin::start(|_| ok("", "behind"));
    let other = Origin::start(|_| ok("", "secret"));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    assert_eq!(client.get("/").text(), "behind");
    // Whatever the target names, a reverse listener asks its own origin.
    assert_eq!(client.get(&other.url("/")).text(), "behind");
    assert!(other.requests().is_empty());
}

#[test]
fn clients_are_those_of_this_host_or_those_that_are_named() {
    let origin = Origin::start(|_| ok("", "yes"));
    let baton = Baton::reverse(
        origin.address(),
        &["--workers", "1", "--set", "access.clients=[\"10.0.0.0/8\"]"],
    );
    let mut client = baton.client();
    let refused = client.get("/");
    assert_eq!(refused.status, 403);
    assert!(
        refused.text().contains("127.0.0.1") && refused.text().contains("access.clients"),
        "{}",
        refused.text()
    );
    assert!(
        refused.has("cache-status", "baton; detail=client-denied"),
        "{}",
        refused.head
    );
    assert!(origin.requests().is_empty());
    for clients in [
        "[\"127.0.0.0/8\"]",
        "[\"10.0.0.0/8\", \"127.0.0.1/32\"]",
        "[]",
    ] {
        let set = format!("access.clients={clients}");
        let baton = Baton::reverse(origin.address(), &["--workers", "1", "--set", &set]);
        assert_eq!(baton.client().get("/").status, 200, "{clients}");
    }
}

#[test]
fn a_client_on_ipv6_loopback_is_of_this_host_too() {
    let origin = Origin::start(|request| ok("", request.field("x-forwarded-for").unwrap()));
    let to = format!("http://{}", origin.address());
    let arguments = [
        "reverse",
        "--to",
        &to,
        "--listen",
        "[::1]:0",
        "--workers",
        "1",
    ];
    // A machine without IPv6 has nothing to show here.
    let Ok(baton) = Baton::try_start(&arguments) else {
        return;
    };
    assert_eq!(baton.client().get("/").text(), "::1");
}

#[test]
fn refusals_do_not_reveal_markup_from_the_request() {
    let baton = forward(&[]);
    let mut client = baton.client();
    client.stream.write_all(b"GET http://<script>alert(1)</script>/ HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\r\n").unwrap();
    let page = client.response();
    assert_eq!(page.status, 400);
    assert!(!page.text().contains("<script>"), "{}", page.text());
}

#[test]
fn an_ipv6_destination_is_reached_where_it_is_allowed() {
    let Ok(listener) = std::net::TcpListener::bind("[::1]:0") else {
        return;
    };
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::Read;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut octets = [0; 4096];
            let read = stream.read(&mut octets).unwrap();
            let _ = stream.write_all(&ok("", &octets[..read]));
        }
    });
    let allow = format!("access.destinations_allow=[\"[::1]:{port}\"]");
    let baton = forward(&["--set", &allow]);
    let seen = baton.client().get(&format!("http://[0:0::1]:{port}/"));
    assert!(
        seen.text().contains(&format!("\r\nHost: [::1]:{port}\r\n")),
        "{}",
        seen.text()
    );
    assert_eq!(
        baton
            .client()
            .get(&format!("http://127.0.0.1:{port}/"))
            .status,
        403
    );
}
