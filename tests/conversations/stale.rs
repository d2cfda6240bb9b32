//! Stale on purpose: while it is revalidated behind, and where the origin server fails.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::support::origin::{answer, ok};
use crate::support::{Baton, Origin, eventually};

/// As old as that when it comes: stale at once.
const STALE: &str = "Age: 10\r\nETag: \"a\"\r\n";

#[test]
fn stale_comes_at_once_while_it_is_revalidated() {
    for validator in ["ETag: \"a\"\r\n", ""] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let origin = Origin::start(move |request| {
            let fields = "Cache-Control: max-age=5, stale-while-revalidate=60\r\n";
            match (count.fetch_add(1, SeqCst), request.field("if-none-match")) {
                (0, _) => ok(&format!("{fields}Age: 10\r\n{validator}"), "old"),
                (_, Some(_)) => answer("304 Not Modified", &format!("{fields}ETag: \"a\"\r\n"), ""),
                (_, None) => ok(fields, "new"),
            }
        });
        let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
        let mut client = baton.client();
        client.get("/");
        let stale = client.get_with("/", "If-None-Match: \"x\"\r\nX-Own: 1\r\n");
        assert_eq!((stale.is_hit(), stale.text().as_str()), (true, "old"));
        let status = stale.field("cache-status").unwrap();
        assert!(
            status.contains("ttl=-") && status.contains("detail=stale-while-revalidate"),
            "{status}"
        );
        // The one request behind it has our conditions and not the client's.
        let fresh = eventually("the store to be brought up to date", || {
            let response = client.get("/");
            let age: u32 = response.field("age").unwrap().parse().unwrap();
            (age < 5).then_some(response)
        });
        let expected = if validator.is_empty() { "new" } else { "old" };
        assert_eq!((fresh.is_hit(), fresh.text().as_str()), (true, expected));
        let behind = origin.requests()[1].clone();
        let wanted = (!validator.is_empty()).then_some("\"a\"");
        assert_eq!(behind.field("if-none-match").as_deref(), wanted);
        assert_eq!(origin.requests().len(), 2);
    }
}

#[test]
fn what_is_stale_is_better_than_no_answer_unless_it_is_forbidden() {
    for (control, served) in [
        ("max-age=5", true),
        ("max-age=5, must-revalidate", false),
        ("max-age=5, proxy-revalidate", false),
        ("s-maxage=5", false),
        ("no-cache", false),
        ("max-age=5, stale-if-error=600", true),
        ("s-maxage=5, stale-if-error=600", true),
    ] {
        let asked = AtomicUsize::new(0);
        let origin = Origin::conversing(move |_, stream| {
            let fields = format!("Cache-Control: {control}\r\n{STALE}");
            // Once, and then never again.
            asked.fetch_add(1, SeqCst) == 0 && stream.write_all(&ok(&fields, "kept")).is_ok()
        });
        let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
        let mut client = baton.client();
        client.get("/");
        let response = client.get("/");
        let status = response.field("cache-status").unwrap();
        if served {
            assert_eq!(
                (response.status, response.text().as_str()),
                (200, "kept"),
                "{control}"
            );
            let why = if control.contains("error") {
                "stale-if-error"
            } else {
                "origin-unreachable"
            };
            assert!(
                status.contains("fwd=stale") && status.contains(why),
                "{status}"
            );
        } else {
            assert_eq!(response.status, 504, "{control}");
        }
        // A client that wants no stored response gets none.
        let asking = client.get_with("/", "Cache-Control: no-cache\r\n");
        assert_eq!(asking.status, 504, "{control}");
    }
}

#[test]
fn what_is_stale_is_better_than_an_error_where_the_origin_server_says_so() {
    for (control, request, status, expected) in [
        (
            "max-age=5, stale-if-error=600",
            "",
            "503 Unavailable",
            "kept",
        ),
        ("max-age=5, stale-if-error=600", "", "500 Oops", "kept"),
        ("max-age=5, stale-if-error=600", "", "501 What", "error"),
        ("max-age=5, stale-if-error=600", "", "404 Gone", "error"),
        (
            "max-age=5, stale-if-error=1",
            "",
            "503 Unavailable",
            "error",
        ),
        ("max-age=5", "", "503 Unavailable", "error"),
        (
            "max-age=5",
            "Cache-Control: stale-if-error=600\r\n",
            "502 Bad",
            "kept",
        ),
        (
            "max-age=5, must-revalidate, stale-if-error=600",
            "",
            "503 Unavailable",
            "error",
        ),
    ] {
        let asked = AtomicUsize::new(0);
        let origin = Origin::start(move |_| {
            let fields = format!("Cache-Control: {control}\r\n{STALE}");
            match asked.fetch_add(1, SeqCst) {
                0 => ok(&fields, "kept"),
                _ => answer(status, "Cache-Control: no-store\r\n", "error"),
            }
        });
        let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
        let mut client = baton.client();
        client.get("/");
        let response = client.get_with("/", request);
        assert_eq!(response.text(), expected, "{control} and {status}");
    }
}
