//! What the operator decides about caching: for all, for a listener, for some URLs; and that it is told.

use crate::support::origin::{answer, ok};
use crate::support::{Baton, Client, Origin, Response};

/// Response fields of `/A/…`, by the letter.
fn scripted() -> Origin {
    Origin::start(|request| {
        let fields = match &request.target[..3] {
            "/a/" => "",
            "/b/" => "Cache-Control: max-age=0",
            "/c/" => "Cache-Control: max-age=3600",
            "/d/" => "Cache-Control: no-store",
            "/e/" => "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
            "/f/" => "My-Cache-Control: max-age=90\r\nCDN-Cache-Control: max-age=30",
            "/g/" => "Cache-Control: no-cache, max-age=60",
            "/h/" => "Cache-Control: max-age=1\r\nAge: 1",
            _ => return answer("404 Not Found", "", ""),
        };
        let fields = match fields {
            "" => String::new(),
            fields => format!("{fields}\r\n"),
        };
        ok(&fields, "body")
    })
}

const RULES: &str = r#"
[cache]
store = "memory"
ttl = "1m"

[[listener]]
address = "127.0.0.1:0"
mode = "reverse"

[[listener]]
address = "127.0.0.1:0"
mode = "reverse"
ttl = "2m"
max_ttl = "100s"
cache_status_key = true

[[cache_rule]]
uri = "/never"
store = false

[[cache_rule]]
uri = "^http://[^/]*/./rule"
ttl = "3m"
min_ttl = "30s"
max_ttl = "50m"
targeted = ["My-Cache-Control", "CDN-Cache-Control"]
x_cache = true
"#;

/// Target, and Cache-Status of the answers to the first request and to the second, through the first listener.
#[rustfmt::skip]
const TOLD: &[(&str, &str, &str)] = &[
    ("/a/plain", "fwd=uri-miss; stored; ttl=60; detail=ttl", "hit; ttl=60; detail=ttl"),
    ("/b/plain", "fwd=uri-miss; detail=no-freshness", "fwd=uri-miss; detail=no-freshness"),
    ("/c/plain", "fwd=uri-miss; stored; ttl=3600", "hit; ttl=3600"),
    ("/f/plain", "fwd=uri-miss; stored; ttl=30", "hit; ttl=30"),
    ("/a/rule", "fwd=uri-miss; stored; ttl=180; detail=ttl-rule", "hit; ttl=180; detail=ttl-rule"),
    ("/b/rule", "fwd=uri-miss; stored; ttl=30; detail=min-ttl-rule", "hit; ttl=30; detail=min-ttl-rule"),
    ("/c/rule", "fwd=uri-miss; stored; ttl=3000; detail=max-ttl-rule", "hit; ttl=3000; detail=max-ttl-rule"),
    ("/d/rule", "fwd=uri-miss; detail=no-store", "fwd=uri-miss; detail=no-store"),
    ("/f/rule", "fwd=uri-miss; stored; ttl=90", "hit; ttl=90"),
    ("/g/rule", "fwd=uri-miss; detail=no-freshness", "fwd=uri-miss; detail=no-freshness"),
    ("/c/never", "fwd=bypass; detail=store-rule", "fwd=bypass; detail=store-rule"),
];

fn started(origin: &Origin) -> Baton {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proxy.conf");
    let text = format!("{RULES}\n[reverse]\nto = \"http://{}\"\n", origin.address());
    std::fs::write(&file, text).unwrap();
    Baton::start(&["serve", "--workers", "1", "-c", file.to_str().unwrap()])
}

/// Cache-Status without our name; a second may have passed.
fn told(response: &Response) -> String {
    let status = response.field("cache-status").unwrap();
    let told = status.strip_prefix("baton; ").unwrap().to_owned();
    let Some((before, rest)) = told.split_once("ttl=") else {
        return told;
    };
    let end = rest.find(';').unwrap_or(rest.len());
    let seconds: i64 = rest[..end].parse().unwrap();
    // All lifetimes here are multiples of ten.
    let whole = if (seconds + 1) % 10 == 0 {
        seconds + 1
    } else {
        seconds
    };
    format!("{before}ttl={whole}{}", &rest[end..])
}

#[test]
fn the_nearest_setting_counts_and_is_told() {
    let origin = scripted();
    let baton = started(&origin);
    let mut client = baton.client();
    for (target, first, second) in TOLD {
        let answers = [client.get(target), client.get(target)];
        assert_eq!(told(&answers[0]), *first, "{target}");
        assert_eq!(told(&answers[1]), *second, "{target}");
        let expected = match (target.ends_with("/rule"), answers[1].is_hit()) {
            (false, _) => None,
            (true, true) => Some("HIT".to_owned()),
            (true, false) => Some("MISS".to_owned()),
        };
        assert_eq!(answers[1].field("x-cache"), expected, "{target}");
    }
}

#[test]
fn a_listener_decides_for_its_own_requests() {
    let origin = scripted();
    let baton = started(&origin);
    let mut client = Client::connect(baton.addresses()[1]);
    let bounded = client.get("/a/plain");
    assert!(
        told(&bounded).contains("ttl=100; detail=max-ttl-listener"),
        "{}",
        bounded.head
    );
    assert!(
        bounded.has("cache-status", "; key=\"reverse http://"),
        "{}",
        bounded.head
    );
    let ruled = client.get("/a/rule");
    assert!(
        told(&ruled).contains("ttl=180; detail=ttl-rule"),
        "{}",
        ruled.head
    );
}

#[test]
fn heuristics_are_told_and_can_be_switched_off() {
    let origin = scripted();
    for (setting, expected) in [
        ("cache.heuristic_max=24h", "ttl=86400; detail=heuristic"),
        ("cache.heuristic_max=1h", "ttl=3600; detail=heuristic"),
        ("cache.heuristic_max=0s", "fwd=uri-miss; stored; ttl=0"),
    ] {
        let baton = Baton::reverse(origin.address(), &["--set", setting]);
        let answer = baton.client().get("/e/");
        assert!(told(&answer).contains(expected), "{}", answer.head);
    }
}

#[test]
fn a_reload_is_ignored_where_the_operator_wants_that() {
    let origin = scripted();
    for (setting, ignored) in [("false", false), ("true", true)] {
        let set = format!("cache.ignore_reload={setting}");
        let baton = Baton::reverse(origin.address(), &["--workers", "1", "--set", &set]);
        let mut client = baton.client();
        client.get("/c/");
        for reload in [
            "Cache-Control: no-cache",
            "Cache-Control: max-age=0",
            "Pragma: no-cache",
        ] {
            let answer = client.get_with("/c/", &format!("{reload}\r\n"));
            assert_eq!(answer.is_hit(), ignored, "{reload}: {}", answer.head);
        }
    }
}
