//! Large bodies that are kept in memory alone, and that the kernel sends from there.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::support::origin::ok;
use crate::support::{Baton, Client, Origin};

const FRESH: &str = "Cache-Control: max-age=3600\r\nETag: \"a\"\r\n";
const LARGE: usize = 3_000_000;
const IN_MEMORY: [&str; 4] = ["--cache", "memory", "--workers", "1"];

fn octets(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|n| ((n + seed) % 251) as u8).collect()
}

/// `/N` has N octets.
fn origin() -> Origin {
    Origin::start(|request| ok(FRESH, octets(request.target[1..].parse().unwrap(), 0)))
}

fn in_front_of(origin: &Origin) -> Baton {
    Baton::reverse(origin.address(), &IN_MEMORY)
}

fn ask(client: &mut Client, method: &str, target: &str, fields: &str) {
    client.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"
    ));
}

#[test]
fn they_are_served_whole_and_in_every_part() {
    let origin = origin();
    let baton = in_front_of(&origin);
    let mut client = baton.client();
    for length in [65_535, 65_536, 300_000, LARGE] {
        let (target, body) = (format!("/{length}"), octets(length, 0));
        assert!(client.get(&target).body == body);
        let hit = client.get(&target);
        assert!(hit.is_hit() && hit.body == body, "{length}");
        for (from, to) in [(0, 1), (7, 1000), (1, length), (length - 70, length)] {
            let range = format!("Range: bytes={from}-{}\r\n", to - 1);
            let part = client.get_with(&target, &range);
            assert_eq!(part.status, 206);
            assert!(part.body == body[from..to], "{from} to {to} of {length}");
        }
        let parts = client.get_with(&target, "Range: bytes=0-9,40000-49999,60000-65534\r\n");
        assert_eq!(parts.status, 206);
        for (from, to) in [(0, 10), (40_000, 50_000), (60_000, 65_535)] {
            let mut windows = parts.body.windows(to - from);
            assert!(windows.any(|window| window == &body[from..to]));
        }
        ask(&mut client, "HEAD", &target, "");
        let head = client.response_to("HEAD");
        assert_eq!(head.field("content-length"), Some(length.to_string()));
        let unchanged = client.get_with(&target, "If-None-Match: \"a\"\r\n");
        assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
        assert_eq!(origin.count(&target), 1);
    }
}

#[test]
fn they_keep_their_place_among_answers_to_requests_that_came_together() {
    let origin = origin();
    let baton = in_front_of(&origin);
    let lengths = [100, LARGE, 10, 70_000, 100, 300_000];
    let mut client = baton.client();
    for length in lengths {
        client.get(&format!("/{length}"));
    }
    for length in lengths {
        ask(&mut client, "GET", &format!("/{length}"), "");
    }
    for length in lengths {
        let hit = client.response();
        assert!(hit.is_hit() && hit.body == octets(length, 0), "{length}");
    }
}

#[test]
fn who_reads_slowly_gets_what_was_there_when_it_asked() {
    let times = AtomicUsize::new(0);
    let origin = Origin::start(move |_| ok(FRESH, octets(LARGE, times.fetch_add(1, SeqCst))));
    let baton = in_front_of(&origin);
    assert!(baton.client().get("/").body == octets(LARGE, 0));
    // More than the sockets between us hold, so that some of it is left to be sent.
    let mut slow = baton.client();
    ask(&mut slow, "GET", "/", "");
    assert_eq!(slow.exactly(1).unwrap(), b"H");
    let newer = baton.client().get_with("/", "Cache-Control: no-cache\r\n");
    assert!(newer.body == octets(LARGE, 1));
    assert!(baton.client().get("/").body == octets(LARGE, 1));
    assert!(slow.response().body == octets(LARGE, 0));
}

#[test]
fn where_descriptors_are_few_only_some_of_them_take_one() {
    let origin = origin();
    let program = ["prlimit", "--nofile=160:160"];
    let baton = Baton::reverse_by(&program, origin.address(), &IN_MEMORY);
    let mut client = baton.client();
    for _ in 0..2 {
        for length in 70_000..70_060 {
            let response = client.get(&format!("/{length}"));
            assert!(response.body == octets(length, 0), "{length}");
        }
    }
    assert_eq!(origin.count("/70001"), 1);
    let open = std::fs::read_dir(format!("/proc/{}/fd", baton.workers()[0])).unwrap();
    let bodies = open
        .flatten()
        .filter_map(|entry| entry.path().read_link().ok());
    let bodies = bodies.filter(|link| link.to_string_lossy().contains("baton-body"));
    assert_eq!(bodies.count(), 160 / 8);
}
