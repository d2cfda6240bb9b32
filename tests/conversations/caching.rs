//! What is kept, for how long, for whom, and what is said about it.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::support::origin::{answer, ok};
use crate::support::{Baton, Client, DEADLINE, Origin, Request, Response, eventually};

const FRESH: &str = "Cache-Control: max-age=60\r\n";

/// Clients that certainly speak to different workers: a connection that is kept busy stays where it is.
fn one_client_a_worker(baton: &Baton) -> (Client, Client) {
    let mut clients = Vec::new();
    let mut seen = Vec::new();
    for n in 0..200 {
        let mut client = baton.client();
        client.get(&format!("/which-worker/{n}"));
        let line = baton
            .access_lines(n + 1)
            .into_iter()
            .find(|line| line.contains(&format!("/which-worker/{n} ")))
            .unwrap_or_else(|| panic!("no line for request {n}"));
        let worker = line
            .split("worker=")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .to_owned();
        if !seen.contains(&worker) {
            seen.push(worker);
            clients.push(client);
            if clients.len() == 2 {
                let second = clients.pop().unwrap();
                return (clients.pop().unwrap(), second);
            }
        }
    }
    panic!("all connections went to one worker");
}

fn two_workers(origin: &Origin) -> Baton {
    // Without grace running out, a connection stays with its worker.
    Baton::reverse(origin.address(), &["--set", "worker.grace=30s"])
}

fn request(client: &mut Client, method: &str, target: &str, fields: &str) -> Response {
    client.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"
    ));
    client.response_to(method)
}

/// Response fields, request fields, whether it is kept, and what Cache-Status tells of the first response.
#[rustfmt::skip]
const STORING: &[(&str, &str, bool, &str)] = &[
    ("Cache-Control: max-age=60", "", true, "stored"),
    ("Cache-Control: MAX-AGE=\"60\"", "", true, "stored"),
    ("Cache-Control: max-age=0, s-maxage=60", "", true, "stored"),
    ("Cache-Control: max-age=60, s-maxage=0", "", false, "no-freshness"),
    ("Expires: Fri, 31 Dec 2100 23:59:59 GMT", "", true, "stored"),
    ("Expires: 0", "", false, "no-freshness"),
    ("Expires: Thu, 01 Jan 1970 00:00:00 GMT", "", false, "no-freshness"),
    ("X-Nothing: said", "", false, "no-freshness"),
    // Kept, and asked about each time.
    ("ETag: \"a\"", "", false, "stored"),
    ("Cache-Control: no-store", "", false, "no-store"),
    ("Cache-Control: max-age=60, no-store", "", false, "no-store"),
    ("Cache-Control: max-age=60\r\nCache-Control: no-store", "", false, "no-store"),
    ("Cache-Control: max-age=60, private", "", false, "private"),
    ("Cache-Control: max-age=60\r\nVary: *", "", false, "vary-any"),
    ("Cache-Control: max-age=60\r\nVary: Accept, *", "", false, "vary-any"),
    ("Cache-Control: max-age=60", "Authorization: Basic eA==\r\n", false, "authorization"),
    ("Cache-Control: max-age=60, public", "Authorization: Basic eA==\r\n", true, "stored"),
    ("Cache-Control: s-maxage=60", "Authorization: Basic eA==\r\n", true, "stored"),
    ("Cache-Control: max-age=60, must-revalidate", "Authorization: Basic eA==\r\n", true, "stored"),
    ("Cache-Control: max-age=60", "Cache-Control: no-store\r\n", false, "request-no-store"),
    ("Cache-Control: max-age=60", "Cookie: a=b\r\n", true, "stored"),
    ("Set-Cookie: a=b", "", false, "set-cookie"),
    ("Set-Cookie: a=b\r\nCache-Control: max-age=60", "", true, "stored"),
];

#[test]
fn what_is_explicitly_fresh_is_kept_and_what_is_not_safe_is_not() {
    let origin = Origin::start(|request| {
        let index: usize = request.target[1..].parse().unwrap();
        ok(&format!("{}\r\n", STORING[index].0), "body")
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    for (index, (response, fields, kept, told)) in STORING.iter().enumerate() {
        let target = format!("/{index}");
        let first = client.get_with(&target, fields);
        assert!(
            first.has("cache-status", told),
            "{response} / {fields}: {}",
            first.head
        );
        let second = client.get_with(
            &target,
            if *told == "request-no-store" {
                ""
            } else {
                fields
            },
        );
        assert_eq!(
            second.is_hit(),
            *kept,
            "{response} / {fields}: {}",
            second.head
        );
        assert_eq!(second.text(), "body");
        if *kept {
            assert_eq!(second.field("set-cookie"), None, "{}", second.head);
        }
    }
}

#[test]
fn status_codes() {
    const TABLE: &[(&str, bool)] = &[
        ("200 OK", true),
        ("203 Non-Authoritative", true),
        ("301 Moved Permanently", true),
        ("302 Found", true),
        ("404 Not Found", true),
        ("410 Gone", true),
        ("500 Internal Server Error", true),
        ("299 Odd", true),
        ("206 Partial Content", false),
    ];
    let origin = Origin::start(|request| {
        let index: usize = request.target[1..].parse().unwrap();
        let fields = format!("{FRESH}Content-Range: bytes 0-3/9\r\n");
        answer(
            TABLE[index].0,
            if TABLE[index].1 { FRESH } else { &fields },
            "body",
        )
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    for (index, (status, kept)) in TABLE.iter().enumerate() {
        let target = format!("/{index}");
        client.get(&target);
        let again = client.get(&target);
        assert_eq!(again.is_hit(), *kept, "{status}");
        assert!(status.starts_with(&again.status.to_string()));
    }
}

#[test]
fn a_204_is_kept_without_a_length() {
    let origin = Origin::start(|_| format!("HTTP/1.1 204 No Content\r\n{FRESH}\r\n").into_bytes());
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.get("/");
    let hit = client.get("/");
    assert!(
        hit.is_hit() && hit.status == 204 && hit.field("content-length").is_none(),
        "{}",
        hit.head
    );
}

#[test]
fn the_ttl_is_for_responses_that_say_nothing_and_are_safe() {
    const TABLE: &[(&str, bool)] = &[
        ("X: y", true),
        ("Cache-Control: max-age=0", false),
        ("Cache-Control: no-cache", false),
        ("Expires: 0", false),
        ("Set-Cookie: a=b", false),
        ("Cache-Control: private", false),
    ];
    let origin = Origin::start(|request| {
        let index: usize = request.target[1..].parse().unwrap();
        ok(&format!("{}\r\n", TABLE[index].0), "body")
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1", "--ttl", "1h"]);
    let mut client = baton.client();
    for (index, (fields, kept)) in TABLE.iter().enumerate() {
        client.get(&format!("/{index}"));
        assert_eq!(client.get(&format!("/{index}")).is_hit(), *kept, "{fields}");
    }
    let authorized = client.get_with("/0", "Authorization: Basic eA==\r\n");
    assert!(
        authorized.is_hit(),
        "what needed no permission is for everybody"
    );
}

#[test]
fn set_cookie_is_handled_as_the_operator_says() {
    for (setting, kept, cookie) in [
        ("strip", true, None),
        ("store", true, Some("a=b")),
        ("refuse", false, Some("a=b")),
    ] {
        let origin = Origin::start(|_| ok(&format!("{FRESH}Set-Cookie: a=b\r\n"), "body"));
        let set = format!("cache.set_cookie={setting}");
        let baton = Baton::reverse(origin.address(), &["--workers", "1", "--set", &set]);
        let mut client = baton.client();
        assert_eq!(
            client.get("/").field("set-cookie").as_deref(),
            Some("a=b"),
            "{setting}: first-hand"
        );
        let second = client.get("/");
        assert_eq!(
            (second.is_hit(), second.field("set-cookie").as_deref()),
            (kept, cookie),
            "{setting}"
        );
    }
}

#[test]
fn age_and_date_and_cache_status_are_right() {
    let origin = Origin::start(|_| {
        ok(
            "Cache-Control: max-age=100\r\nAge: 40\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            "x",
        )
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    // By its Date it is decades old: never fresh.
    assert!(!client.get("/").is_hit());
    assert!(!client.get("/").is_hit());

    let origin = Origin::start(|_| ok("Cache-Control: max-age=100\r\nAge: 40\r\n", "x"));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    let first = client.get("/");
    assert_eq!(first.field("age").as_deref(), Some("40"));
    let status = first.field("cache-status").unwrap();
    // A second may have passed.
    let told = ["60", "59"].map(|ttl| format!("baton; fwd=uri-miss; stored; ttl={ttl}"));
    assert!(told.contains(&status), "{status}");
    let hit = client.get("/");
    let age: u32 = hit.field("age").unwrap().parse().unwrap();
    assert!((40..45).contains(&age), "{}", hit.head);
    let status = hit.field("cache-status").unwrap();
    assert_eq!(status, format!("baton; hit; ttl={}", 100 - age));
    assert_eq!(hit.field("date"), first.field("date"));
    assert!(hit.field("via").is_some());
}

#[test]
fn head_is_answered_by_gets_response_and_stores_nothing() {
    let origin = Origin::start(|request| match request.method.as_str() {
        "HEAD" => format!("HTTP/1.1 200 OK\r\n{FRESH}Content-Length: 4\r\n\r\n").into_bytes(),
        _ => ok(FRESH, "body"),
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    let miss = request(&mut client, "HEAD", "/", "");
    assert!(!miss.is_hit());
    assert_eq!(miss.field("content-length").as_deref(), Some("4"));
    assert!(!client.get("/").is_hit(), "a HEAD has no body to keep");
    let hit = request(&mut client, "HEAD", "/", "");
    assert!(hit.is_hit());
    assert_eq!(hit.field("content-length").as_deref(), Some("4"));
    assert!(client.get("/").is_hit());
}

#[test]
fn a_get_with_content_neither_reads_nor_fills() {
    let origin = Origin::start(|request| ok(FRESH, &request.body));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    for framing in [
        "Content-Length: 3\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        client.send(format!("GET / HTTP/1.1\r\nHost: a.example\r\n{framing}"));
        let response = client.response();
        assert!(
            !response.is_hit() && response.has("cache-status", "request-content"),
            "{}",
            response.head
        );
        assert_eq!(response.text(), "abc");
        let plain = client.get("/");
        assert_eq!(
            plain.text(),
            "",
            "filled by, or read into, a request with content"
        );
    }
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n");
    assert!(client.response().is_hit(), "no content at all");
}

// === revalidation

/// Answers 304 to its current entity tag; `/bump` makes a new one.
fn versioned(fields: &'static str) -> Origin {
    let version = AtomicUsize::new(1);
    Origin::start(move |request| {
        if request.target == "/bump" {
            version.fetch_add(1, SeqCst);
            return ok("", "");
        }
        let version = version.load(SeqCst);
        let tag = format!("\"v{version}\"");
        let fields = format!("{fields}ETag: {tag}\r\nX-Version: {version}\r\n");
        if request.field("if-none-match").as_deref() == Some(&tag) {
            return format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n").into_bytes();
        }
        ok(&fields, format!("version {version}"))
    })
}

#[test]
fn what_has_expired_is_revalidated_and_a_304_refreshes() {
    let origin = versioned("Cache-Control: max-age=1\r\n");
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.get("/");
    let revalidated = crate::support::eventually("it expires", || {
        let response = client.get("/");
        (!response.is_hit()).then_some(response)
    });
    assert_eq!(
        (revalidated.status, revalidated.text().as_str()),
        (200, "version 1")
    );
    assert!(
        revalidated.has("cache-status", "fwd=stale; fwd-status=304; stored"),
        "{}",
        revalidated.head
    );
    assert!(
        revalidated.has("cache-status", "detail=expired"),
        "{}",
        revalidated.head
    );
    assert!(client.get("/").is_hit(), "fresh again");
    let last = origin.requests().last().unwrap().clone();
    assert_eq!(last.field("if-none-match").as_deref(), Some("\"v1\""));
}

#[test]
fn no_cache_is_revalidated_each_time_on_either_side() {
    let origin = versioned("Cache-Control: no-cache\r\n");
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.get("/");
    for _ in 0..2 {
        let response = client.get("/");
        assert!(
            response.has("cache-status", "fwd-status=304")
                && response.has("cache-status", "no-cache"),
            "{}",
            response.head
        );
        assert_eq!(response.text(), "version 1");
    }
    request(&mut client, "GET", "/bump", "");
    assert_eq!(client.get("/").text(), "version 2");

    let origin = versioned("Cache-Control: max-age=60\r\n");
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.get("/");
    for fields in [
        "Cache-Control: no-cache\r\n",
        "Cache-Control: max-age=0\r\n",
        "Pragma: no-cache\r\n",
    ] {
        let response = client.get_with("/", fields);
        assert!(
            response.has("cache-status", "fwd=request; fwd-status=304"),
            "{fields}: {}",
            response.head
        );
    }
    request(&mut client, "GET", "/bump", "");
    assert_eq!(
        client.get("/").text(),
        "version 1",
        "nothing said that it has changed"
    );
    assert_eq!(
        client.get_with("/", "Cache-Control: no-cache\r\n").text(),
        "version 2"
    );
    let hit = client.get("/");
    assert!(hit.is_hit() && hit.text() == "version 2");
}

#[test]
fn last_modified_will_do_for_revalidating() {
    const WHEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let origin = Origin::start(|request| {
        let fields = format!("Cache-Control: no-cache\r\nLast-Modified: {WHEN}\r\n");
        match request.field("if-modified-since").as_deref() {
            Some(WHEN) => format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n").into_bytes(),
            _ => ok(&fields, "body"),
        }
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.get("/");
    let response = client.get("/");
    assert_eq!((response.status, response.text().as_str()), (200, "body"));
    assert!(
        response.has("cache-status", "fwd-status=304"),
        "{}",
        response.head
    );
}

#[test]
fn head_revalidates_and_refreshes_too() {
    let origin = versioned("Cache-Control: max-age=60\r\n");
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.get("/");
    let head = request(&mut client, "HEAD", "/", "Cache-Control: no-cache\r\n");
    assert!(
        head.status == 200 && head.has("cache-status", "fwd-status=304; stored"),
        "{}",
        head.head
    );
    assert!(client.get("/").is_hit(), "still there");
    // A HEAD that tells of another version ends the use of the old one.
    request(&mut client, "GET", "/bump", "");
    request(&mut client, "HEAD", "/", "Cache-Control: no-cache\r\n");
    assert_eq!(client.get("/").text(), "version 2");
}

#[test]
fn a_304s_cookie_reaches_the_client_whose_request_was_revalidated_and_nobody_else() {
    let origin = Origin::start(|request| {
        let fields = "Cache-Control: max-age=60\r\nETag: \"a\"\r\n";
        match request.field("if-none-match") {
            Some(_) => format!(
                "HTTP/1.1 304 Not Modified\r\n{fields}Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n"
            )
            .into_bytes(),
            None => ok(fields, "body"),
        }
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.get("/");
    let own = client.get_with("/", "Cache-Control: no-cache\r\n");
    assert_eq!(
        own.field("set-cookie").as_deref(),
        Some("a=1, b=2"),
        "{}",
        own.head
    );
    let other = client.get("/");
    assert!(
        other.is_hit() && other.field("set-cookie").is_none(),
        "{}",
        other.head
    );
}

#[test]
fn a_304_that_names_another_validator_is_not_believed() {
    let origin = Origin::start(|request| match request.field("if-none-match") {
        Some(_) => b"HTTP/1.1 304 Not Modified\r\nETag: \"other\"\r\n\r\n".to_vec(),
        None => ok("Cache-Control: no-cache\r\nETag: \"a\"\r\n", "body"),
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.get("/");
    let response = client.get("/");
    assert_eq!((response.status, response.text().as_str()), (200, "body"));
    let conditional: Vec<bool> = origin
        .requests()
        .iter()
        .map(|r| r.field("if-none-match").is_some())
        .collect();
    assert_eq!(
        conditional,
        [false, true, false],
        "asked again without conditions"
    );
}

#[test]
fn an_error_while_revalidating_is_passed_on_and_spoils_nothing() {
    let failing = Arc::new(AtomicUsize::new(0));
    let fails = failing.clone();
    let origin = Origin::start(move |_| match fails.load(SeqCst) {
        1 => answer("503 Service Unavailable", "", "down"),
        2 => Vec::new(),
        _ => ok("Cache-Control: max-age=60\r\nETag: \"a\"\r\n", "body"),
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.get("/");
    for (how, status) in [(1, 503), (2, 504)] {
        failing.store(how, SeqCst);
        let response = client.get_with("/", "Cache-Control: no-cache\r\n");
        assert_eq!(response.status, status);
        assert!(
            response.has("cache-status", "fwd=request"),
            "{}",
            response.head
        );
        assert!(client.get("/").is_hit());
    }
}

// === the client's own conditions

#[test]
fn a_clients_conditions_are_answered_from_the_cache() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/404" => answer("404 Not Found", &format!("{FRESH}ETag: \"a\"\r\n"), "gone"),
        _ => ok(
            &format!(
                "{FRESH}ETag: \"a\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nVary: Accept\r\nContent-Type: text/plain\r\nX-Other: 1\r\n"
            ),
            "body",
        ),
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.get("/");
    client.get("/404");
    for (fields, status) in [
        ("If-None-Match: \"a\"\r\n", 304),
        ("If-None-Match: W/\"a\"\r\n", 304),
        ("If-None-Match: \"x\", \"a\"\r\n", 304),
        ("If-None-Match: *\r\n", 304),
        ("If-None-Match: \"x\"\r\n", 200),
        (
            "If-None-Match: \"x\"\r\nIf-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT\r\n",
            200,
        ),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 304),
        ("If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n", 304),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n", 200),
        ("If-Modified-Since: nonsense\r\n", 200),
    ] {
        let response = client.get_with("/", fields);
        assert_eq!(response.status, status, "{fields}");
        assert!(response.is_hit(), "{fields}: {}", response.head);
        if status == 304 {
            for kept in ["etag", "date", "vary", "cache-control", "age", "via"] {
                assert!(response.field(kept).is_some(), "{kept}: {}", response.head);
            }
            assert_eq!(
                (response.field("content-length"), response.field("x-other")),
                (None, None)
            );
        }
    }
    // Conditions are for what would be a success.
    let gone = client.get_with("/404", "If-None-Match: \"a\"\r\n");
    assert!(gone.is_hit() && gone.status == 404, "{}", gone.head);
    assert_eq!(
        request(&mut client, "HEAD", "/", "If-None-Match: \"a\"\r\n").status,
        304
    );
    // Those that are the origin's to judge go there.
    for fields in [
        "If-Match: \"a\"\r\n",
        "If-Unmodified-Since: Sun, 06 Nov 2094 08:49:37 GMT\r\n",
    ] {
        assert!(!client.get_with("/", fields).is_hit(), "{fields}");
    }
}

#[test]
fn a_clients_conditions_on_what_is_not_stored_go_to_the_origin_and_its_304_back() {
    let origin = Origin::start(|request| match request.field("if-none-match") {
        Some(_) => format!("HTTP/1.1 304 Not Modified\r\n{FRESH}ETag: \"a\"\r\n\r\n").into_bytes(),
        None => ok(&format!("{FRESH}ETag: \"a\"\r\n"), "body"),
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    let response = client.get_with("/", "If-None-Match: \"a\"\r\n");
    assert_eq!((response.status, response.is_hit()), (304, false));
    let whole = client.get("/");
    assert_eq!(
        (whole.status, whole.text().as_str()),
        (200, "body"),
        "the 304 was not stored as an answer"
    );
}

#[test]
fn requests_may_limit_what_they_take() {
    let origin = Origin::start(|_| ok("Cache-Control: max-age=60\r\nAge: 30\r\n", "body"));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    let absent = client.get_with("/", "Cache-Control: only-if-cached\r\n");
    assert_eq!(absent.status, 504);
    assert!(
        absent.has("cache-status", "only-if-cached"),
        "{}",
        absent.head
    );
    client.get("/");
    assert!(
        client
            .get_with("/", "Cache-Control: only-if-cached\r\n")
            .is_hit()
    );
    assert!(
        client
            .get_with("/", "Cache-Control: max-age=50\r\n")
            .is_hit()
    );
    assert!(
        !client
            .get_with("/", "Cache-Control: max-age=10\r\n")
            .is_hit()
    );
    assert!(
        !client
            .get_with("/", "Cache-Control: min-fresh=50\r\n")
            .is_hit()
    );
    assert!(!client.get_with("/", "Cache-Control: no-store\r\n").is_hit());
}

// === Vary

#[test]
fn vary_selects() {
    let origin = Origin::start(|request: &Request| {
        let language = request.field("accept-language").unwrap_or_default();
        ok(
            &format!("{FRESH}Vary: Accept-Language, Accept-Encoding\r\n"),
            format!("in {language}"),
        )
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    for (fields, body, hit) in [
        ("Accept-Language: de\r\n", "in de", false),
        ("Accept-Language: en\r\n", "in en", false),
        ("", "in ", false),
        ("Accept-Language: de\r\n", "in de", true),
        ("accept-language: en\r\n", "in en", true),
        ("", "in ", true),
        (
            "Accept-Language: de\r\nAccept-Encoding: gzip\r\n",
            "in de",
            false,
        ),
        ("Accept-Language: de\r\nX-Other: 1\r\n", "in de", true),
    ] {
        let response = client.get_with("/", fields);
        assert_eq!(
            (response.text().as_str(), response.is_hit()),
            (body, hit),
            "{fields}: {}",
            response.head
        );
    }
    let miss = client.get_with("/", "Accept-Language: fr\r\n");
    assert!(miss.has("cache-status", "fwd=vary-miss"), "{}", miss.head);
}

// === what is whole

#[test]
fn a_body_that_ends_with_fin_is_kept_and_one_that_is_reset_is_not() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::raw(move |mut stream, _| {
        let mut octets = [0; 4096];
        let read = stream.read(&mut octets).unwrap();
        let reset = octets[..read].starts_with(b"GET /reset");
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\n{FRESH}\r\n").as_bytes())
            .unwrap();
        stream.write_all(&[b'x'; 5000]).unwrap();
        if reset {
            // A reset drops what the peer has not read yet; it is sent once the client has everything.
            let _ = wait.lock().unwrap().recv_timeout(DEADLINE);
            socket2::SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
    });
    let baton = Baton::reverse(origin, &["--workers", "1"]);
    let mut client = baton.client();
    assert_eq!(client.get("/fin").body.len(), 5000);
    assert!(client.get("/fin").is_hit());
    for _ in 0..2 {
        let mut client = baton.client();
        client.send("GET /reset HTTP/1.1\r\nHost: a.example\r\n\r\n");
        let mut seen = Vec::new();
        while seen.iter().filter(|octet| **octet == b'x').count() < 5000 {
            let mut octets = [0; 8192];
            let read = client.stream.read(&mut octets).unwrap();
            assert!(read > 0, "ended early");
            seen.extend_from_slice(&octets[..read]);
        }
        assert!(
            !String::from_utf8_lossy(&seen).contains("; hit"),
            "stored though reset"
        );
        go.send(()).unwrap();
        let rest = client.rest();
        assert!(
            !rest.ends_with(b"0\r\n\r\n"),
            "completed: {}",
            rest.escape_ascii()
        );
    }
}

#[test]
fn a_truncated_body_is_not_kept() {
    let origin = Origin::conversing(move |_, stream| {
        let head = format!("HTTP/1.1 200 OK\r\n{FRESH}Content-Length: 10\r\n\r\nfirst");
        stream.write_all(head.as_bytes()).unwrap();
        false
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    for n in 1..=2 {
        let mut client = baton.client();
        client.send("GET /cut HTTP/1.1\r\nHost: a.example\r\n\r\n");
        assert!(client.try_response_to("GET").is_err());
        assert_eq!(origin.count("/cut"), n);
    }
}

#[test]
fn a_client_that_leaves_does_not_make_half_a_body_whole() {
    let origin = Origin::start(|_| ok(FRESH, "x".repeat(4_000_000)));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut leaving = baton.client();
    leaving.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    leaving.exactly(1000).unwrap();
    leaving.reset();
    assert_eq!(baton.client().get("/").body.len(), 4_000_000);
}

#[test]
fn what_is_too_large_passes_unkept() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/chunked" => {
            let chunk = format!("{:x}\r\n{}\r\n", 5000, "x".repeat(5000));
            format!(
                "HTTP/1.1 200 OK\r\n{FRESH}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
                chunk.repeat(4)
            )
            .into_bytes()
        }
        _ => ok(FRESH, "x".repeat(20_000)),
    });
    let baton = Baton::reverse(
        origin.address(),
        &["--workers", "1", "--set", "cache.max_object=10KiB"],
    );
    let mut client = baton.client();
    for target in ["/length", "/chunked"] {
        for _ in 0..2 {
            let response = client.get(target);
            assert_eq!(
                (response.body.len(), response.is_hit()),
                (20_000, false),
                "{target}"
            );
        }
    }
    assert!(client.get("/length").has("cache-status", "too-large"));
}

// === several workers

#[test]
fn an_unsafe_request_invalidates_for_all_workers_before_its_answer_is_whole() {
    let version = Arc::new(AtomicUsize::new(1));
    let there = version.clone();
    let origin =
        Origin::start(
            move |request| match (request.method.as_str(), request.target.as_str()) {
                ("GET", "/which") => ok("", ""),
                ("GET", _) => ok(FRESH, format!("version {}", there.load(SeqCst))),
                (_, "/fails") => answer("500 Internal Server Error", "", ""),
                (method, _) => {
                    there.fetch_add(1, SeqCst);
                    match method {
                        "POST" => answer(
                            "303 See Other",
                            "Location: /elsewhere\r\nContent-Location: http://a.example/listed\r\n",
                            "",
                        ),
                        _ => answer("204 No Content", "", ""),
                    }
                }
            },
        );
    let baton = two_workers(&origin);
    let (mut one, mut two) = one_client_a_worker(&baton);
    for (n, method) in ["POST", "PUT", "DELETE", "PATCH", "FROBNICATE"]
        .into_iter()
        .enumerate()
    {
        for target in ["/page", "/fails", "/elsewhere", "/listed"] {
            for client in [&mut one, &mut two] {
                client.get(target);
                assert!(client.get(target).is_hit(), "{method} {target}");
            }
        }
        request(&mut one, method, "/fails", "Content-Length: 0\r\n");
        assert!(two.get("/fails").is_hit(), "an error changes nothing");
        one.send(format!(
            "{method} /page HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n"
        ));
        one.response();
        let expected = format!("version {}", n + 2);
        for client in [&mut two, &mut one] {
            assert_eq!(client.get("/page").text(), expected, "{method}");
        }
        if method == "POST" {
            assert_eq!(two.get("/elsewhere").text(), expected, "Location");
            assert_eq!(two.get("/listed").text(), expected, "Content-Location");
        }
        assert!(two.get("/page").is_hit());
    }
}

#[test]
fn what_one_worker_has_refreshed_is_not_served_old_by_another() {
    let origin = versioned("Cache-Control: max-age=60\r\n");
    let baton = two_workers(&origin);
    let (mut one, mut two) = one_client_a_worker(&baton);
    for client in [&mut one, &mut two] {
        client.get("/");
        assert!(client.get("/").is_hit());
    }
    one.get("/bump");
    // Replaced by a reload in one worker: the other must not go on serving the old version.
    assert_eq!(
        one.get_with("/", "Cache-Control: no-cache\r\n").text(),
        "version 2"
    );
    assert_eq!(two.get("/").text(), "version 2");
    for client in [&mut one, &mut two] {
        client.get("/");
        assert!(client.get("/").is_hit());
    }
    // Refreshed by a 304: the other's copy, with its older fields, is out of date, too.
    assert!(
        one.get_with("/", "Cache-Control: no-cache\r\n")
            .has("cache-status", "fwd-status=304")
    );
    // In memory alone it has to ask itself; from the disk it has the new fields at once.
    let again = two.get("/");
    let fresh = again.field("age").is_none_or(|age| age == "0");
    assert!(!again.is_hit() || fresh, "{}", again.head);
}

#[test]
fn a_fetch_that_an_invalidation_overtook_is_not_kept() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::conversing(move |request, stream| {
        if request.method == "POST" {
            return stream.write_all(&ok("", "")).is_ok();
        }
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\n{FRESH}Content-Length: 3\r\n\r\n").as_bytes())
            .unwrap();
        if request.target == "/page" {
            wait.lock().unwrap().recv_timeout(DEADLINE).unwrap();
        }
        stream.write_all(b"old").is_ok()
    });
    let baton = two_workers(&origin);
    let (mut one, mut two) = one_client_a_worker(&baton);
    one.send("GET /page HTTP/1.1\r\nHost: a.example\r\n\r\n");
    while !one.line().unwrap().is_empty() {}
    request(&mut two, "POST", "/page", "Content-Length: 0\r\n");
    go.send(()).unwrap();
    assert_eq!(one.exactly(3).unwrap(), b"old");
    go.send(()).unwrap();
    assert!(
        !one.get("/page").is_hit(),
        "what was asked for before the POST was kept after it"
    );
}

#[test]
fn a_reload_that_an_invalidation_overtook_is_not_kept() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::conversing(move |request, stream| {
        // The answer to the reload was made before the POST, and comes after it, head and all.
        if request.field("cache-control").is_some() {
            wait.lock().unwrap().recv_timeout(DEADLINE).unwrap();
        }
        stream.write_all(&ok(FRESH, "old")).is_ok()
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let (mut one, mut two) = (baton.client(), baton.client());
    one.get("/page");
    one.send("GET /page HTTP/1.1\r\nHost: a.example\r\nCache-Control: no-cache\r\n\r\n");
    eventually("the reload at the origin", || {
        (origin.count("/page") == 2).then_some(())
    });
    request(&mut two, "POST", "/page", "Content-Length: 0\r\n");
    go.send(()).unwrap();
    assert_eq!(one.response().text(), "old");
    assert!(
        !one.get("/page").is_hit(),
        "what was asked for before the POST was kept after it"
    );
}

#[test]
fn a_store_that_is_off_says_so() {
    let origin = Origin::start(|_| ok(FRESH, "body"));
    let baton = Baton::reverse(origin.address(), &["--workers", "1", "--cache", "off"]);
    let mut client = baton.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!(
            response.field("cache-status").as_deref(),
            Some("baton; fwd=bypass; detail=off")
        );
    }
    assert!(baton.start_line().contains("cache off"));
}

#[test]
fn the_same_resource_under_other_hosts_is_another() {
    let origin = Origin::start(|request| ok(FRESH, request.field("host").unwrap()));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    for host in ["a.example", "b.example", "a.example:8080", "a.example"] {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.response().text(), host);
    }
}

#[test]
fn memory_is_bounded() {
    let origin = Origin::start(|_| ok(FRESH, vec![b'x'; 100_000]));
    let baton = Baton::reverse(
        origin.address(),
        &[
            "--workers",
            "1",
            "--set",
            "cache.memory=2MiB",
            "--set",
            "cache.max_object=200KiB",
            "--cache",
            "memory",
        ],
    );
    let mut client = baton.client();
    for n in 0..100 {
        client.get(&format!("/{n}"));
    }
    let hits = (0..100)
        .filter(|n| {
            client
                .get_with(&format!("/{n}"), "Cache-Control: only-if-cached\r\n")
                .is_hit()
        })
        .count();
    assert!(
        (5..=21).contains(&hits),
        "{hits} objects of 100 kB in 2 MiB"
    );
}

#[test]
fn a_clients_conditions_are_not_mixed_with_ours_when_we_revalidate() {
    const WHEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let origin = Origin::start(|request| {
        let fields = format!("Cache-Control: no-cache\r\nLast-Modified: {WHEN}\r\n");
        // A 304 to the client's own tag would say nothing about what we hold.
        if request.field("if-none-match").is_some() {
            return b"HTTP/1.1 304 Not Modified\r\nETag: \"client\"\r\n\r\n".to_vec();
        }
        match request.field("if-modified-since").as_deref() {
            Some(WHEN) => format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n").into_bytes(),
            _ => ok(&fields, "body"),
        }
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.get("/");
    for fields in [
        "If-None-Match: \"client\"\r\n",
        "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n",
    ] {
        let response = client.get_with("/", fields);
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "body"),
            "{fields}"
        );
        assert!(
            response.has("cache-status", "fwd-status=304"),
            "{fields}: {}",
            response.head
        );
    }
    let own = client.get_with("/", &format!("If-Modified-Since: {WHEN}\r\n"));
    assert_eq!(own.status, 304, "the client's copy is as good as ours");
}

#[test]
fn what_is_stored_for_others_is_offered_and_may_be_selected() {
    let origin = Origin::start(|request| {
        let own = request.field("x-a").unwrap();
        // 1 and 2 are the same representation, 3 is one of its own.
        let tag = if own == "3" { "\"b\"" } else { "\"a\"" };
        let fields = format!("{FRESH}Vary: X-A\r\nETag: {tag}\r\n");
        match request.field("if-none-match") {
            Some(offered) if offered.contains(tag) => answer("304 Not Modified", &fields, ""),
            _ => ok(&fields, format!("made for {own}")),
        }
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    let mut ask = |own: &str| {
        let response = client.get_with("/", &format!("X-A: {own}\r\n"));
        (response.status, response.is_hit(), response.text())
    };
    assert_eq!(ask("1"), (200, false, "made for 1".to_owned()));
    assert_eq!(ask("2"), (200, false, "made for 1".to_owned()));
    assert_eq!(ask("2"), (200, true, "made for 1".to_owned()));
    assert_eq!(ask("3"), (200, false, "made for 3".to_owned()));
    assert_eq!(ask("4"), (200, false, "made for 1".to_owned()));
    assert_eq!(ask("1"), (200, true, "made for 1".to_owned()));
    let offered: Vec<Option<String>> = origin
        .requests()
        .iter()
        .map(|request| request.field("if-none-match"))
        .collect();
    assert_eq!(offered.len(), 4);
    assert_eq!(offered[1].as_deref(), Some("\"a\""));
    let all = offered[3].clone().unwrap();
    assert!(all.contains("\"a\"") && all.contains("\"b\""), "{all}");
}
