//! What breaks off, or is given up by its clients, while it comes: gone on with, cut visibly, or fetched to the end.

use std::io::Write;

use crate::support::sharing::{STORES, asked, head_of, in_front_of};
use crate::support::{Baton, Client, Gate, Origin, eventually};

const LENGTH: usize = 1_000_000;
const FIRST: usize = 600_000;

fn body() -> Vec<u8> {
    (0..LENGTH as u32).map(|n| (n / 5) as u8).collect()
}

/// Answers with the first octets, and breaks off when the gate opens; a range with what `rest` makes of the octets.
fn breaking_origin(gate: &Gate, tag: &'static str, rest: fn(&[u8]) -> Vec<u8>) -> Origin {
    let (gate, body) = (gate.clone(), body());
    Origin::conversing(move |request, stream| {
        if request.field("range").is_some() {
            assert_eq!(request.field("range").unwrap(), format!("bytes={FIRST}-"));
            return stream.write_all(&rest(&body)).is_ok();
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{tag}Content-Length: {LENGTH}\r\n\r\n"
        );
        let _ = stream.write_all(&[head.as_bytes(), &body[..FIRST]].concat());
        gate.wait();
        false
    })
}

fn partial(fields: &str, from: usize, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\n{fields}Content-Range: bytes {from}-{}/{LENGTH}\r\nContent-Length: {}\r\n\r\n",
        LENGTH - 1,
        LENGTH - from
    );
    [head.as_bytes(), &body[from..]].concat()
}

fn the_rest(body: &[u8]) -> Vec<u8> {
    partial("Cache-Control: max-age=60\r\nETag: \"a\"\r\n", FIRST, body)
}

/// Clients that have got all that has come.
fn reading(baton: &Baton, count: usize) -> Vec<Client> {
    let mut clients = asked(baton, count, "/", "");
    for client in &mut clients {
        head_of(client);
        assert!(client.exactly(FIRST).unwrap() == body()[..FIRST]);
    }
    clients
}

#[test]
fn all_get_the_rest_by_one_more_request() {
    for store in STORES {
        let gate = Gate::new();
        let origin = breaking_origin(&gate, "ETag: \"a\"\r\n", the_rest);
        let (baton, _directory) = in_front_of(&origin, store, 1, &[]);
        let mut clients = reading(&baton, 5);
        gate.open();
        for client in &mut clients {
            let rest = client.exactly(LENGTH - FIRST).unwrap();
            assert!(rest == body()[FIRST..], "{store}");
        }
        let stored = baton.client().get("/");
        assert!(stored.body == body(), "{store}");
        let requests = origin.requests();
        assert_eq!(requests.len(), 2, "{store}");
        assert_eq!(requests[1].field("if-range").unwrap(), "\"a\"");
    }
}

#[test]
fn what_is_not_the_rest_for_certain_is_not_put_behind() {
    type Rest = fn(&[u8]) -> Vec<u8>;
    let other_tag: Rest = |body| partial("ETag: \"b\"\r\n", FIRST, body);
    let other_place: Rest = |body| partial("ETag: \"a\"\r\n", FIRST - 1, body);
    let whole: Rest = |body| {
        let head = format!("HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Length: {LENGTH}\r\n\r\n");
        [head.as_bytes(), body].concat()
    };
    let strong = "ETag: \"a\"\r\n";
    for (tag, rest, requests) in [
        (strong, other_tag, 2),
        (strong, other_place, 2),
        (strong, whole, 2),
        ("ETag: W/\"a\"\r\n", the_rest as Rest, 1),
        ("", the_rest as Rest, 1),
    ] {
        for store in STORES {
            let gate = Gate::new();
            let origin = breaking_origin(&gate, tag, rest);
            let (baton, _directory) = in_front_of(&origin, store, 1, &[]);
            let mut clients = reading(&baton, 3);
            gate.open();
            for client in &mut clients {
                assert!(client.exactly(1).is_err(), "{store} {tag}");
            }
            assert_eq!(origin.requests().len(), requests, "{store} {tag}");
        }
    }
}

#[test]
fn what_is_kept_of_it_and_the_rest_come_for_all_by_one_request() {
    for store in STORES {
        let (broken, gate) = (Gate::new(), Gate::new());
        let origin = Origin::conversing({
            let (broken, gate, body) = (broken.clone(), gate.clone(), body());
            move |request, stream| {
                if request.field("range").is_some() {
                    let rest = the_rest(&body);
                    let (now, later) = rest.split_at(rest.len() - 100_000);
                    let _ = stream.write_all(now);
                    gate.wait();
                    return stream.write_all(later).is_ok();
                }
                let head = format!(
                    "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nETag: \"a\"\r\nContent-Length: {LENGTH}\r\n\r\n"
                );
                let _ = stream.write_all(&[head.as_bytes(), &body[..FIRST]].concat());
                broken.wait();
                false
            }
        });
        let (baton, _directory) = in_front_of(&origin, store, 1, &[]);
        let mut first = reading(&baton, 1).remove(0);
        broken.open();
        assert!(first.exactly(1).is_err(), "{store}");
        let there = LENGTH - 100_000;
        let mut clients = asked(&baton, 5, "/", "");
        for client in &mut clients {
            head_of(client);
            assert!(client.exactly(there).unwrap() == body()[..there], "{store}");
        }
        // Whoever leaves ends nothing for the others.
        clients.remove(0).reset();
        gate.open();
        for client in &mut clients {
            let rest = client.exactly(LENGTH - there).unwrap();
            assert!(rest == body()[there..], "{store}");
        }
        assert!(baton.client().get("/").body == body(), "{store}");
        assert_eq!(origin.requests().len(), 2, "{store}");
    }
}

#[test]
fn who_leaves_while_a_part_is_completed_leaves_the_part() {
    const ALL: usize = 24_000_000;
    const HALF: usize = 16_000_000;
    for store in STORES {
        let (broken, gate) = (Gate::new(), Gate::new());
        let body: Vec<u8> = (0..ALL as u32).map(|n| (n / 11) as u8).collect();
        let origin = Origin::conversing({
            let (broken, gate, body) = (broken.clone(), gate.clone(), body.clone());
            move |request, stream| {
                let head = "Cache-Control: max-age=60\r\nETag: \"a\"\r\n";
                if request.field("range").is_some() {
                    let head = format!(
                        "HTTP/1.1 206 Partial Content\r\n{head}Content-Range: bytes {HALF}-{}/{ALL}\r\nContent-Length: {}\r\n\r\n",
                        ALL - 1,
                        ALL - HALF
                    );
                    let _ = stream.write_all(head.as_bytes());
                    gate.wait();
                    return stream.write_all(&body[HALF..]).is_ok();
                }
                let head = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {ALL}\r\n\r\n");
                let _ = stream.write_all(&[head.as_bytes(), &body[..HALF]].concat());
                broken.wait();
                false
            }
        });
        let (baton, _directory) = in_front_of(&origin, store, 1, &[]);
        let mut first = asked(&baton, 1, "/", "").remove(0);
        head_of(&mut first);
        assert!(first.exactly(HALF).unwrap() == body[..HALF], "{store}");
        broken.open();
        assert!(first.exactly(1).is_err(), "{store}");
        let mut second = asked(&baton, 1, "/", "").remove(0);
        head_of(&mut second);
        second.exactly(1_000).unwrap();
        second.reset();
        baton.access_lines(2);
        gate.open();
        assert!(baton.client().get("/").body == body, "{store}");
        let requests = origin.requests();
        assert_eq!(requests.len(), 3, "{store}");
        for request in &requests[1..] {
            assert_eq!(
                request.field("range").unwrap(),
                format!("bytes={HALF}-"),
                "{store}"
            );
        }
    }
}

#[test]
fn what_its_clients_have_left_is_fetched_to_the_end_where_little_is_missing() {
    for (flags, is_finished) in [
        (&[][..], false),
        (&["--set", "cache.finish_aborted=1MiB"], true),
        (&["--set", "cache.finish_aborted=0"], false),
    ] {
        for clients in [1, 3] {
            let gate = Gate::new();
            let origin = Origin::conversing({
                let (gate, body) = (gate.clone(), body());
                move |request, stream| {
                    if request.field("range").is_some() {
                        return stream.write_all(&the_rest(&body)).is_ok();
                    }
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nETag: \"a\"\r\nContent-Length: {LENGTH}\r\n\r\n"
                    );
                    let _ = stream.write_all(&[head.as_bytes(), &body[..FIRST]].concat());
                    gate.wait();
                    stream.write_all(&body[FIRST..]).is_ok()
                }
            });
            let (baton, _directory) = in_front_of(&origin, "dir", 1, flags);
            let left = reading(&baton, clients);
            left.into_iter().for_each(Client::reset);
            // The proxy has seen them go.
            baton.access_lines(clients);
            gate.open();
            let is_whole = || {
                let part = baton.client().get_with(
                    "/",
                    "Cache-Control: only-if-cached\r\nRange: bytes=999999-\r\n",
                );
                (part.status == 206).then_some(())
            };
            match is_finished {
                true => eventually("it is whole", is_whole),
                false => assert!(is_whole().is_none(), "{flags:?} {clients}"),
            }
            let all = baton.client().get("/");
            assert!(all.body == body(), "{flags:?} {clients}");
            let asked = if is_finished { 1 } else { 2 };
            assert_eq!(origin.requests().len(), asked, "{flags:?} {clients}");
        }
    }
}
