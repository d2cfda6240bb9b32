//! The first things a user does.

use crate::support::origin::ok;
use crate::support::{Baton, Origin};

#[test]
fn a_reverse_proxy_passes_a_get_on_and_says_so() {
    let origin = Origin::start(|_| ok("Content-Type: text/plain\r\n", "hello"));
    let baton = Baton::reverse(origin.address(), &[]);
    let response = baton.client().get("/greeting");
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    assert!(
        response
            .field("via")
            .is_some_and(|via| via.starts_with("1.1 ")),
        "{}",
        response.head
    );
    let seen = &origin.requests()[0];
    assert_eq!(seen.target, "/greeting");
    assert_eq!(seen.field("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert!(
        baton.start_line().contains("(reverse, 2 workers, cache "),
        "{}",
        baton.start_line()
    );
}

#[test]
fn a_forward_proxy_fetches_an_absolute_target_and_keeps_what_is_fresh() {
    let origin = Origin::start(|_| ok("Cache-Control: max-age=60\r\n", "page"));
    let baton = Baton::forward(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    let url = origin.url("/page");
    assert!(!client.get(&url).is_hit());
    let again = client.get(&url);
    assert!(again.is_hit(), "{}", again.head);
    assert_eq!(again.text(), "page");
    assert_eq!(origin.count("/page"), 1);
}

#[test]
fn one_connection_carries_many_requests_on_both_sides() {
    let origin =
        Origin::start(|request| ok("", format!("{} {}", request.connection, request.number)));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    let texts: Vec<String> = (0..3)
        .map(|n| client.get(&format!("/{n}")).text())
        .collect();
    assert_eq!(texts, ["0 0", "0 1", "0 2"]);
}

#[test]
fn a_client_on_loopback_is_not_taken_to_loopback_through_a_forward_proxy() {
    let origin = Origin::start(|_| ok("", "secret"));
    let baton = Baton::start(&["forward", "--listen", "127.0.0.1:0"]);
    let response = baton.client().get(&origin.url("/"));
    assert_eq!(response.status, 403);
    assert!(
        response.has("proxy-status", "destination_ip_prohibited"),
        "{}",
        response.head
    );
    assert!(origin.requests().is_empty());
}
