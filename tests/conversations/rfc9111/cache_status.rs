//! What Cache-Status tells: RFC 9211 section 2.

use super::engine::Table;
use super::words::{Row, Step, by, get, may, must, post, should};

#[test]
fn in_reverse_mode() {
    table().holds_in_reverse_mode();
}

#[test]
fn in_forward_mode() {
    table().holds_in_forward_mode();
}

fn table() -> Table {
    Table::new("cache_status", [hits(), forwarded()])
}

fn hour() -> Step {
    get().says("Cache-Control: max-age=3600")
}

#[rustfmt::skip]
fn hits() -> Vec<Row> {
    vec![
        should("9211 2.1", "hit", &[hour(), get().cached().contains("Cache-Status", "; hit")]),
        must("9211 2.1", "hit and fwd exclude each other", &[hour(), get().cached().says_not("Cache-Status", "fwd=")]),
        should("9211 2.5", "ttl of what is fresh", &[get().says("Cache-Control: max-age=3600\nAge: 1800"), get().cached().contains("Cache-Status", "ttl=1")]),
        may("9211 2.5", "ttl of what is stale is below zero", &[
            get().says("Cache-Control: max-age=1"), get().with("Cache-Control: max-stale").later(3).cached().contains("Cache-Status", "ttl=-"),
        ]),
        // 2: "each cache adds a member": the first is the one closest to the origin server.
        must("9211 2", "what another cache has said stays in front", &[
            get().says("Cache-Control: max-age=3600\nCache-Status: Other; hit").contains("Cache-Status", "Other; hit, baton; fwd="),
            get().cached().contains("Cache-Status", "Other; hit, baton; hit"),
        ]),
        may("9211 2.1", "a 304 from the store is a hit", &[
            hour().says("ETag: \"a\""), get().with("If-None-Match: \"a\"").cached().status(304).contains("Cache-Status", "; hit"),
        ]),
        may("9211 2.1", "a part from the store is a hit", &[
            hour().body("0123456789"), get().with("Range: bytes=0-1").cached().status(206).gives("01").contains("Cache-Status", "; hit"),
        ]),
    ]
}

#[rustfmt::skip]
fn forwarded() -> Vec<Row> {
    let fwd = |step: Step, why: &'static str| step.contains("Cache-Status", why);
    vec![
        should("9211 2.2", "fwd=uri-miss", &[fwd(hour(), "fwd=uri-miss")]),
        should("9211 2.2", "fwd=vary-miss", &[hour().says("Vary: X-A").with("X-A: 1"), fwd(get().with("X-A: 2").reaches(), "fwd=vary-miss")]),
        should("9211 2.2", "fwd=stale", &[get().says("Cache-Control: max-age=1"), fwd(get().later(2).reaches(), "fwd=stale")]),
        should("9211 2.2", "fwd=request", &[hour(), fwd(get().with("Cache-Control: no-cache").reaches(), "fwd=request")]),
        should("9211 2.2", "fwd=method", &[fwd(post().reaches(), "fwd=method")]),
        should("9211 2.2", "fwd=method for what is unknown", &[fwd(by("FOO").reaches(), "fwd=method")]),
        should("9211 2.3", "fwd-status where it was 304", &[
            get().says("Cache-Control: max-age=0\nETag: \"a\""), fwd(get().validated().says("ETag: \"a\""), "fwd-status=304"),
        ]),
        should("9211 2.4", "stored", &[fwd(hour(), "stored")]),
        must("9211 2.4", "what is not stored is not said to be", &[get().says("Cache-Control: no-store").says_not("Cache-Status", "stored")]),
        may("9211 2.8", "detail says why not", &[fwd(get().says("Cache-Control: no-store"), "detail=")]),
        should("9211 2.2", "fwd=partial", &[
            get().with("Range: bytes=0-1").answers(206).says("Cache-Control: max-age=3600\nETag: \"a\"\nContent-Range: bytes 0-1/10").body("01"),
            fwd(get().with("Range: bytes=0-5").answers(206).says("Cache-Control: max-age=3600\nETag: \"a\"\nContent-Range: bytes 0-5/10").body("012345").whoever(), "fwd=partial"),
        ]),
    ]
}
