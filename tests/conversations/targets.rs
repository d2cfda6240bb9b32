//! Which resource a request is for: the four target forms, Host, authorities, OPTIONS and TRACE.

use crate::support::origin::ok;
use crate::support::{Baton, Origin};

#[test]
fn host_is_there_once_and_valid() {
    let origin = Origin::start(|_| ok("", "no"));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    for (name, octets) in [
        ("no Host", "GET / HTTP/1.1\r\n\r\n"),
        ("two", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("two equal", "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"),
        ("empty", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        ("list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
        ("user information", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
        ("path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        ("space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (
            "port out of range",
            "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n",
        ),
        ("port of letters", "GET / HTTP/1.1\r\nHost: a:http\r\n\r\n"),
        (
            "absolute form without Host",
            "GET http://a/ HTTP/1.1\r\n\r\n",
        ),
        (
            "absolute form, two",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        ),
        (
            "absolute form, invalid",
            "GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n",
        ),
    ] {
        let mut client = baton.client();
        let response = client.send(octets).response();
        assert_eq!(response.status, 400, "{name}: {}", response.head);
        assert!(client.is_closed(), "{name}");
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn targets_that_lead_elsewhere_than_they_seem_are_refused_unresolved() {
    let origin = Origin::start(|_| ok("", "no"));
    let baton = Baton::forward(origin.address(), &["--workers", "1"]);
    let port = origin.address().port();
    for target in [
        format!("http://2130706433:{port}/"),
        format!("http://0x7f000001:{port}/"),
        format!("http://0x7f.1:{port}/"),
        format!("http://017700000001:{port}/"),
        format!("http://127.1:{port}/"),
        format!("http://127.0.0.01:{port}/"),
        format!("http://127.0.0.1.:{port}/"),
        format!("http://user@127.0.0.1:{port}/"),
        format!("http://user:password@127.0.0.1:{port}/"),
        format!("http://example.org\\@127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}\\/"),
        format!("http://127.0.0.1:{port}/#fragment"),
        format!("http://127.0.0.1:{port}#fragment"),
        format!("http://127%2e0.0.1:{port}/"),
        format!("http://[::1%25lo]:{port}/"),
        format!("http://[::1:{port}/"),
        format!("http:///127.0.0.1:{port}/"),
        format!("http:/127.0.0.1:{port}/"),
        format!("http:127.0.0.1:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("ftp://127.0.0.1:{port}/"),
        "http://:80/".into(),
        "http://a:b/".into(),
        "http://a:80:80/".into(),
        "http:///".into(),
        "a/b".into(),
        "*".into(),
    ] {
        let mut client = baton.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status, 400, "{target}: {}", response.head);
        assert!(client.is_closed(), "{target}");
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn the_authority_of_an_absolute_target_overrides_host() {
    let origin = Origin::start(|request| {
        ok(
            "Cache-Control: max-age=60\r\n",
            request.field("host").unwrap(),
        )
    });
    let forward = Baton::forward(origin.address(), &["--workers", "1"]);
    let authority = origin.address().to_string();
    let mut client = forward.client();
    client.send(format!(
        "GET {} HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        origin.url("/a")
    ));
    assert_eq!(client.response().text(), authority);
    // It is the key, too: the Host that came along makes no difference.
    assert!(client.get(&origin.url("/a")).is_hit());

    let reverse = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = reverse.client();
    client.send("GET http://good.example/b HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(client.response().text(), "good.example");
    client.send("GET /b HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    let other = client.response();
    assert!(!other.is_hit());
    assert_eq!(other.text(), "evil.example");
    client.send("GET /b HTTP/1.1\r\nHost: GOOD.example:80\r\n\r\n");
    assert!(
        client.response().is_hit(),
        "case and the default port make no other key"
    );
}

#[test]
fn path_and_query_are_passed_on_octet_for_octet() {
    let origin = Origin::start(|request| ok("Cache-Control: max-age=60\r\n", &request.target));
    let baton = Baton::forward(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    for path in [
        "/a//b/./c/../d",
        "/%7euser/%2F%2f",
        "/~user",
        "/%7Euser",
        "/?",
        "/",
        "/?a=1&b=%20+",
        "/;p=1?q=/?x",
        "/|\"{}^`<>",
        "/a:b@c",
    ] {
        let response = client.get(&origin.url(path));
        assert!(
            !response.is_hit(),
            "{path}: not the same resource as one before"
        );
        assert_eq!(response.text(), path);
        assert!(client.get(&origin.url(path)).is_hit(), "{path}");
    }
}

#[test]
fn an_empty_path_becomes_a_slash_and_for_options_an_asterisk() {
    let origin = Origin::start(|request| ok("", &request.target));
    let baton = Baton::forward(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    for (method, suffix, seen) in [
        ("GET", "", "/"),
        ("GET", "?q", "/?q"),
        ("OPTIONS", "", "*"),
        ("OPTIONS", "?q", "/?q"),
        ("OPTIONS", "/", "/"),
    ] {
        let url = origin.url(suffix);
        client.send(format!("{method} {url} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.response().text(), seen, "{method} {url}");
    }
}

#[test]
fn a_request_that_is_not_for_a_proxy_is_told_how_to_set_one_up() {
    let origin = Origin::start(|_| ok("", "no"));
    let baton = Baton::forward(origin.address(), &["--workers", "1"]);
    let page = baton.client().get_with("/", "Accept: text/html\r\n");
    assert_eq!(page.status, 400);
    assert!(page.has("content-type", "text/html"));
    assert!(
        page.text().contains("Firefox") && page.text().contains("curl"),
        "{}",
        page.text()
    );
    let text = baton.client().get("/");
    assert!(text.has("content-type", "text/plain"));
}

#[test]
fn options_and_trace_end_where_max_forwards_says() {
    let origin = Origin::start(|request| {
        ok(
            "",
            request
                .field("max-forwards")
                .unwrap_or_else(|| "none".into()),
        )
    });
    let baton = Baton::forward(origin.address(), &["--workers", "1"]);
    let url = origin.url("/");
    let mut client = baton.client();
    let mut ask = |method: &str, target: &str, fields: &str| {
        client.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"
        ));
        client.response()
    };
    assert_eq!(ask("OPTIONS", &url, "Max-Forwards: 5\r\n").text(), "4");
    assert_eq!(ask("TRACE", &url, "Max-Forwards: 1\r\n").text(), "0");
    assert_eq!(
        ask("GET", &url, "Max-Forwards: 0\r\n").status,
        200,
        "for OPTIONS and TRACE only"
    );
    let asked = origin.requests().len();
    let options = ask("OPTIONS", &url, "Max-Forwards: 0\r\n");
    assert_eq!(options.status, 200);
    assert!(options.field("allow").is_some() && options.field("cache-status").is_some());
    let own = ask("OPTIONS", "*", "");
    assert!(own.status == 200 && own.field("allow").is_some());
    let trace = ask(
        "TRACE",
        &url,
        "Max-Forwards: 0\r\nCookie: secret\r\nX-Seen: yes\r\n",
    );
    assert!(trace.has("content-type", "message/http"));
    assert!(
        trace.text().contains("X-Seen: yes") && !trace.text().contains("secret"),
        "{}",
        trace.text()
    );
    assert_eq!(origin.requests().len(), asked, "answered here");
    let invalid = ask("OPTIONS", &url, "Max-Forwards: x\r\n");
    assert!(matches!(invalid.status, 200 | 400));
}

#[test]
fn trace_with_content_is_refused_and_connect_is_not_for_a_reverse_listener() {
    let origin = Origin::start(|_| ok("", "no"));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.send("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.response().status, 400);
    assert!(client.is_closed());
    let mut client = baton.client();
    client.send("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    let refused = client.response();
    assert_eq!(refused.status, 405);
    assert!(
        refused.has("allow", "GET") && !refused.has("allow", "CONNECT"),
        "{}",
        refused.head
    );
    assert!(client.rest().is_empty());
    assert!(origin.requests().is_empty());
}

#[test]
fn unknown_methods_are_passed_on() {
    let origin =
        Origin::start(|request| ok("", format!("{} {}", request.method, request.body.len())));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    for method in ["PROPFIND", "M-SEARCH", "get", "BREW", "QUERY"] {
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"
        ));
        let response = client.response();
        assert_eq!(response.text(), format!("{method} 2"));
        assert!(
            response.has("cache-status", "fwd=method"),
            "{}",
            response.head
        );
    }
}

#[test]
fn http_1_0_needs_no_host_in_front_of_a_known_origin() {
    let origin = Origin::start(|request| ok("", request.field("host").unwrap()));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().text(), origin.address().to_string());
    assert!(client.is_closed());
}
