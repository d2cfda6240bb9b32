//! The same as `herd`, over all workers: whoever is served by another one than the first reads from there.

use std::collections::HashSet;
use std::io::Write;
use std::net::TcpStream;

use crate::support::origin::{Request, answer, ok};
use crate::support::sharing::{FRESH, HALF, STORES, asked, head_of, in_front_of, large};
use crate::support::{Baton, Client, Gate, Origin, eventually};

const CLIENTS: usize = 60;

/// Four workers in front of `origin`, with a store of either kind.
fn reverse(origin: &Origin, store: &str) -> (Baton, tempfile::TempDir) {
    let purge = "access.purge=[\"127.0.0.1\"]";
    in_front_of(origin, store, 4, &["--set", purge])
}

/// Half of `large`, then the rest when the gate opens.
fn halves(stream: &mut TcpStream, fields: &str, gate: &Gate) -> bool {
    let body = large();
    let head = format!(
        "HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    );
    let sent = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(&body[..HALF]));
    gate.wait();
    sent.and_then(|()| stream.write_all(&body[HALF..])).is_ok()
}

/// Which workers have written the lines.
fn workers(lines: &[String]) -> HashSet<&str> {
    let words = lines.iter().flat_map(|line| line.split(' '));
    words.filter(|word| word.starts_with("worker=")).collect()
}

/// So often; where each worker has a store of its own, those that come when the answer is there ask once each.
fn assert_asked(origin: &Origin, times: usize, store: &str) {
    let most = if store == "memory" { times + 3 } else { times };
    let asked = origin.count("/");
    assert!((times..=most).contains(&asked), "{store}: {asked}");
}

#[test]
fn one_request_to_the_origin_server_for_all_workers() {
    for store in STORES {
        let gate = Gate::new();
        let origin = Origin::conversing({
            let gate = gate.clone();
            move |_, stream| halves(stream, FRESH, &gate)
        });
        let (baton, _directory) = reverse(&origin, store);
        let body = large();
        let mut clients = asked(&baton, CLIENTS, "/", "");
        for client in &mut clients {
            assert!(head_of(client).contains("fwd=uri-miss"), "{store}");
            assert!(client.exactly(HALF).unwrap() == body[..HALF], "{store}");
        }
        // A second wave, while it still comes.
        let mut second = asked(&baton, CLIENTS, "/", "");
        for client in &mut second {
            assert!(head_of(client).contains("; collapsed"), "{store}");
            assert!(client.exactly(HALF).unwrap() == body[..HALF], "{store}");
        }
        gate.open();
        for client in clients.iter_mut().chain(&mut second) {
            let rest = client.exactly(body.len() - HALF).unwrap();
            assert!(rest == body[HALF..], "{store}");
        }
        // And a third, when it is there, or just about to be.
        for client in &mut asked(&baton, CLIENTS, "/", "") {
            assert!(client.response().body == body, "{store}");
        }
        assert_asked(&origin, 1, store);
        let lines = baton.access_lines(3 * CLIENTS);
        assert!(workers(&lines).len() > 1, "{store}: {:?}", workers(&lines));
        let joined = lines.iter().filter(|line| line.contains("cache=joined"));
        assert!(joined.count() >= 2 * CLIENTS - 1, "{store}");
    }
}

#[test]
fn small_answers_that_come_at_once_are_enough_for_all() {
    for store in STORES {
        let gate = Gate::new();
        let origin = Origin::start({
            let gate = gate.clone();
            move |_| {
                gate.wait();
                ok(FRESH, "small")
            }
        });
        let (baton, _directory) = reverse(&origin, store);
        let mut clients = asked(&baton, CLIENTS, "/", "");
        eventually("the origin server is asked", || {
            (origin.count("/") == 1).then_some(())
        });
        gate.open();
        for client in &mut clients {
            let response = client.response();
            assert_eq!((response.status, response.text().as_str()), (200, "small"));
        }
        assert_asked(&origin, 1, store);
    }
}

#[test]
fn what_is_for_one_client_is_asked_for_by_each() {
    for store in STORES {
        let gate = Gate::new();
        let origin = Origin::start({
            let gate = gate.clone();
            move |request: &Request| {
                gate.wait();
                let who = request.field("x-who").unwrap();
                ok("Cache-Control: private, max-age=60\r\n", who)
            }
        });
        let (baton, _directory) = reverse(&origin, store);
        let mut clients: Vec<Client> = (0..CLIENTS)
            .map(|n| asked(&baton, 1, "/", &format!("X-Who: {n}\r\n")).remove(0))
            .collect();
        eventually("the origin server is asked", || {
            (origin.count("/") >= 1).then_some(())
        });
        gate.open();
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.response().text(), n.to_string(), "{store}");
        }
        assert_eq!(origin.count("/"), CLIENTS, "{store}");
    }
}

#[test]
fn one_revalidation_for_all_workers() {
    let gate = Gate::new();
    let origin = Origin::start({
        let gate = gate.clone();
        move |request: &Request| match request.field("if-none-match") {
            None => ok("Cache-Control: max-age=0\r\nETag: \"a\"\r\n", "old"),
            Some(_) => {
                gate.wait();
                answer("304 Not Modified", FRESH, "")
            }
        }
    });
    let (baton, _directory) = reverse(&origin, "dir");
    baton.client().get("/");
    let mut clients = asked(&baton, CLIENTS, "/", "");
    eventually("the origin server is asked", || {
        (origin.count("/") == 2).then_some(())
    });
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().text(), "old");
    }
    assert_eq!(origin.count("/"), 2);
}

#[test]
fn what_is_validated_each_time_is_asked_for_side_by_side() {
    for policy in ["no-cache", "max-age=0, must-revalidate"] {
        let fields = format!("Cache-Control: {policy}\r\nETag: \"a\"\r\n");
        let gate = Gate::new();
        let origin = Origin::start({
            let (gate, fields) = (gate.clone(), fields.clone());
            move |request: &Request| match request.field("if-none-match") {
                None => ok(&fields, "old"),
                Some(_) => {
                    if request.field("x-wave").unwrap() == "2" {
                        gate.wait();
                    }
                    answer("304 Not Modified", &fields, "")
                }
            }
        });
        let (baton, _directory) = reverse(&origin, "dir");
        baton.client().get("/");
        for client in &mut asked(&baton, CLIENTS, "/", "X-Wave: 1\r\n") {
            assert_eq!(client.response().text(), "old", "{policy}");
        }
        // What the first ones have waited for in vain the next do not wait for.
        let before = origin.count("/");
        let mut clients = asked(&baton, CLIENTS, "/", "X-Wave: 2\r\n");
        eventually("each has asked", || {
            (origin.count("/") == before + CLIENTS).then_some(())
        });
        gate.open();
        for client in &mut clients {
            assert_eq!(client.response().text(), "old", "{policy}");
        }
    }
}

#[test]
fn what_breaks_off_before_its_first_octet_is_asked_for_once_more() {
    for store in STORES {
        let gate = Gate::new();
        let origin = Origin::conversing({
            let gate = gate.clone();
            move |_, stream| {
                let head = format!("HTTP/1.1 200 OK\r\n{FRESH}Content-Length: 100000\r\n\r\n");
                let _ = stream.write_all(head.as_bytes());
                gate.wait();
                false
            }
        });
        let (baton, _directory) = reverse(&origin, store);
        let mut clients = asked(&baton, CLIENTS, "/", "");
        eventually("the origin server is asked", || {
            (origin.count("/") >= 1).then_some(())
        });
        gate.open();
        let is_cut = |client: &mut Client| {
            let is_begun = head_of(client).starts_with("HTTP/1.1 200 ");
            is_begun && client.exactly(1).is_err()
        };
        let cut = clients
            .iter_mut()
            .filter_map(|client| is_cut(client).then_some(()));
        // Each of the four workers may be late once; whoever asked for itself alone had begun to answer.
        let (cut, asked) = (cut.count(), origin.count("/"));
        assert!(asked <= 8 && cut <= asked, "{store}: {asked} {cut}");
        let lines = baton.access_lines(CLIENTS);
        assert!(
            lines.iter().all(|line| !line.contains("store-broke")),
            "{store}"
        );
    }
}

#[test]
fn a_leader_whose_client_leaves_before_the_head_asks_on_for_the_others() {
    for store in STORES {
        let gate = Gate::new();
        let origin = Origin::conversing({
            let gate = gate.clone();
            move |_, stream| {
                gate.wait();
                stream.write_all(&ok(FRESH, "for all")).is_ok()
            }
        });
        let (baton, _directory) = reverse(&origin, store);
        let leader = asked(&baton, 1, "/", "").remove(0);
        eventually("the origin server is asked", || {
            (origin.count("/") == 1).then_some(())
        });
        let mut others = asked(&baton, CLIENTS, "/", "");
        // One of those who wait leaves as well, and its end is written down: the leader's has been seen by then.
        leader.reset();
        others.remove(0).reset();
        baton.access_lines(1);
        gate.open();
        for client in &mut others {
            assert_eq!(client.response().text(), "for all", "{store}");
        }
        assert_asked(&origin, 1, store);
    }
}

#[test]
fn the_next_client_of_any_worker_takes_over_from_an_origin_server_that_fails() {
    for store in STORES {
        let gate = Gate::new();
        let origin = Origin::conversing({
            let (gate, first) = (gate.clone(), std::sync::atomic::AtomicBool::new(true));
            move |_, stream| {
                if first.swap(false, std::sync::atomic::Ordering::SeqCst) {
                    gate.wait();
                    return false;
                }
                stream.write_all(&ok(FRESH, "second")).is_ok()
            }
        });
        let (baton, _directory) = reverse(&origin, store);
        let mut clients = asked(&baton, CLIENTS, "/", "");
        eventually("the origin server is asked", || {
            (origin.count("/") == 1).then_some(())
        });
        gate.open();
        let statuses: Vec<u16> = clients.iter_mut().map(|it| it.response().status).collect();
        let failed = statuses.iter().filter(|status| **status != 200).count();
        // The one who asked is told so, or asks once more where the connection was an old one.
        assert!(failed <= 1, "{store}: {statuses:?}");
        assert_asked(&origin, 2, store);
    }
}

#[test]
fn a_range_is_read_from_where_it_is_coming() {
    let gate = Gate::new();
    let origin = Origin::conversing({
        let gate = gate.clone();
        move |_, stream| halves(stream, FRESH, &gate)
    });
    let (baton, _directory) = reverse(&origin, "dir");
    let mut first = asked(&baton, 1, "/", "").remove(0);
    head_of(&mut first);
    first.exactly(HALF).unwrap();
    let body = large();
    for client in &mut asked(&baton, CLIENTS, "/", "Range: bytes=1000000-1000009\r\n") {
        let part = client.response();
        assert_eq!(part.status, 206);
        assert!(part.body == body[1_000_000..1_000_010]);
    }
    gate.open();
    first.exactly(body.len() - HALF).unwrap();
    assert_eq!(origin.count("/"), 1);
}

#[test]
fn what_has_been_purged_meanwhile_is_for_those_who_asked_before() {
    for store in STORES {
        let gate = Gate::new();
        let origin = Origin::conversing({
            let (gate, first) = (gate.clone(), std::sync::atomic::AtomicBool::new(true));
            move |_, stream| match first.swap(false, std::sync::atomic::Ordering::SeqCst) {
                true => halves(stream, FRESH, &gate),
                false => stream.write_all(&ok(FRESH, "new")).is_ok(),
            }
        });
        let (baton, _directory) = reverse(&origin, store);
        let mut before = asked(&baton, CLIENTS, "/", "");
        for client in &mut before {
            head_of(client);
        }
        let mut purger = baton.client();
        purger.send("PURGE / HTTP/1.1\r\nHost: a.example\r\n\r\n");
        purger.response();
        for client in &mut asked(&baton, CLIENTS, "/", "") {
            assert_eq!(client.response().text(), "new", "{store}");
        }
        gate.open();
        for client in &mut before {
            assert!(client.exactly(large().len()).unwrap() == large(), "{store}");
        }
        assert_eq!(baton.client().get("/").text(), "new", "{store}");
        assert_asked(&origin, 2, store);
    }
}

/// Octets that come of the rest before the gate opens.
const MORE: usize = 100_000;

/// What is asked for from some octet on, of what `large` is; or all of it. The end waits for the gate.
fn ranges(request: &Request, stream: &mut TcpStream, gate: &Gate) -> bool {
    let body = large();
    let range = request.field("range");
    let from = range.as_deref().and_then(|range| {
        let from = range.strip_prefix("bytes=")?.strip_suffix('-')?;
        from.parse::<usize>().ok()
    });
    let Some(from) = from else {
        return halves(stream, FRESH, gate);
    };
    assert_eq!(request.field("if-range").as_deref(), Some("\"a\""));
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\n{FRESH}Content-Range: bytes {from}-{}/{}\r\nContent-Length: {}\r\n\r\n",
        body.len() - 1,
        body.len(),
        body.len() - from
    );
    let sent = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(&body[from..from + MORE]));
    gate.wait();
    sent.and_then(|()| stream.write_all(&body[from + MORE..]))
        .is_ok()
}

#[test]
fn who_followed_a_worker_that_dies_goes_on_without_it() {
    for store in STORES {
        let gate = Gate::new();
        let origin = Origin::conversing({
            let gate = gate.clone();
            move |request, stream| ranges(request, stream, &gate)
        });
        let (baton, _directory) = reverse(&origin, store);
        let body = large();
        let mut first = asked(&baton, 1, "/", "").remove(0);
        head_of(&mut first);
        first.exactly(HALF).unwrap();
        let leader = baton.wait_until_served(&first);
        let mut clients = asked(&baton, CLIENTS, "/", "");
        for client in &mut clients {
            head_of(client);
            assert!(client.exactly(HALF).unwrap() == body[..HALF], "{store}");
        }
        let holders: Vec<Vec<i32>> = clients.iter().map(|it| baton.holders(it)).collect();
        baton.signal(leader, "KILL");
        let mut left = Vec::new();
        for (mut client, holders) in clients.into_iter().zip(holders) {
            match client.exactly(MORE) {
                Ok(more) => {
                    assert!(more == body[HALF..HALF + MORE], "{store}");
                    left.push(client);
                }
                // Only with the worker that had its socket.
                Err(error) => assert!(holders.contains(&leader), "{store}: {error}"),
            }
        }
        assert!(left.len() >= CLIENTS / 2, "{store}: {} left", left.len());
        gate.open();
        for client in &mut left {
            let rest = client.exactly(body.len() - HALF - MORE).unwrap();
            assert!(rest == body[HALF + MORE..], "{store}");
        }
        // One of those who followed asked for the rest, and the others followed that one.
        assert_eq!(origin.count("/"), 2, "{store}");
    }
}

#[test]
fn what_the_origin_server_breaks_off_is_gone_on_with_for_all() {
    for store in STORES {
        let gate = Gate::new();
        let origin = Origin::conversing({
            let gate = gate.clone();
            move |request, stream| {
                if request.field("range").is_some() {
                    return ranges(request, stream, &gate);
                }
                let body = large();
                let head = format!(
                    "HTTP/1.1 200 OK\r\n{FRESH}Content-Length: {}\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&body[..HALF]);
                gate.wait();
                false
            }
        });
        let (baton, _directory) = reverse(&origin, store);
        let body = large();
        let mut clients = asked(&baton, CLIENTS, "/", "");
        for client in &mut clients {
            head_of(client);
            client.exactly(HALF).unwrap();
        }
        gate.open();
        for client in &mut clients {
            let rest = client.exactly(body.len() - HALF).unwrap();
            assert!(rest == body[HALF..], "{store}");
        }
        assert_eq!(origin.count("/"), 2, "{store}");
        assert!(baton.client().get("/").is_hit(), "{store}");
    }
}

const TEN_MIB: usize = 10 << 20;
const HERD: usize = 500;

/// A body of 10 MiB, other octets at every place.
fn ten_mib() -> Vec<u8> {
    let number = |n: u32| n.wrapping_mul(0x9e37_79b9).to_le_bytes();
    (0..TEN_MIB as u32 / 4).flat_map(number).collect()
}

/// An origin server that takes two seconds for 10 MiB.
fn slow_origin() -> Origin {
    let body = ten_mib();
    Origin::conversing(move |request, stream| {
        let from = request.field("range").map_or(0, |range| {
            let from = range.trim_start_matches("bytes=").trim_end_matches('-');
            from.parse().unwrap()
        });
        let (status, range) = match from {
            0 => ("200 OK", String::new()),
            from => {
                let last = TEN_MIB - 1;
                let range = format!("Content-Range: bytes {from}-{last}/{TEN_MIB}\r\n");
                ("206 Partial Content", range)
            }
        };
        let length = TEN_MIB - from;
        let head = format!("HTTP/1.1 {status}\r\n{FRESH}{range}Content-Length: {length}\r\n\r\n");
        let mut sent = stream.write_all(head.as_bytes());
        for piece in body[from..].chunks(TEN_MIB / 40) {
            sent = sent.and_then(|()| stream.write_all(piece));
            // The pace of the origin server, not a wait for anything.
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        sent.is_ok()
    })
}

/// Reads what each client is sent, all at once. How many octets came of a body that is right as far as it came.
fn read_all(clients: Vec<Client>, body: &[u8]) -> Vec<usize> {
    std::thread::scope(|scope| {
        let reads: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || {
                    let head = head_of(&mut client);
                    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
                    let mut at = 0;
                    while at < body.len() {
                        let length = (body.len() - at).min(64 << 10);
                        match client.exactly(length) {
                            Ok(piece) => assert!(piece == body[at..at + length], "wrong at {at}"),
                            Err(_) => break,
                        }
                        at += length;
                    }
                    at
                })
            })
            .collect();
        reads.into_iter().map(|read| read.join().unwrap()).collect()
    })
}

#[test]
fn five_hundred_clients_in_three_waves_cost_one_request() {
    let origin = slow_origin();
    let (baton, _directory) = reverse(&origin, "dir");
    let body = ten_mib();
    let mut clients = asked(&baton, HERD / 3, "/", "");
    for _ in 0..2 {
        std::thread::sleep(std::time::Duration::from_secs(1));
        clients.extend(asked(&baton, HERD / 3, "/", ""));
    }
    assert!(read_all(clients, &body).iter().all(|read| *read == TEN_MIB));
    assert_eq!(origin.count("/"), 1);
}

#[test]
fn five_hundred_clients_survive_the_death_of_the_worker_that_fetches() {
    let origin = slow_origin();
    let (baton, _directory) = reverse(&origin, "dir");
    let body = ten_mib();
    let mut first = asked(&baton, 1, "/", "").remove(0);
    head_of(&mut first);
    let leader = baton.wait_until_served(&first);
    let clients = asked(&baton, HERD, "/", "");
    // Every one of them is in some worker's hands, and the response is on its way.
    let of_leader = clients
        .iter()
        .filter(|client| baton.wait_until_served(client) == leader)
        .count();
    first.exactly(TEN_MIB / 4).unwrap();
    baton.signal(leader, "KILL");
    let read = read_all(clients, &body);
    let whole = read.iter().filter(|read| **read == TEN_MIB).count();
    assert_eq!(whole, HERD - of_leader, "{of_leader} were the leader's");
    assert!(origin.count("/") <= 3, "{}", origin.count("/"));
}

#[test]
fn five_hundred_clients_get_private_answers_side_by_side() {
    let origin = Origin::start(|request: &Request| {
        let who = request.field("x-who").unwrap();
        ok("Cache-Control: private, max-age=60\r\n", who)
    });
    let (baton, _directory) = reverse(&origin, "dir");
    let mut clients: Vec<Client> = (0..HERD)
        .map(|n| asked(&baton, 1, "/private", &format!("X-Who: {n}\r\n")).remove(0))
        .collect();
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.response().text(), n.to_string());
    }
    assert_eq!(origin.count("/private"), HERD);
}

#[test]
fn one_revalidation_behind_what_is_stale_for_all_workers() {
    let gate = Gate::new();
    let origin = Origin::start({
        let gate = gate.clone();
        move |request: &Request| {
            let fields = "Cache-Control: max-age=0, stale-while-revalidate=60\r\nETag: \"a\"\r\n";
            match request.field("if-none-match") {
                None => ok(fields, "old"),
                Some(_) => {
                    gate.wait();
                    answer("304 Not Modified", FRESH, "")
                }
            }
        }
    });
    let (baton, _directory) = reverse(&origin, "dir");
    baton.client().get("/");
    for client in &mut asked(&baton, CLIENTS, "/", "") {
        assert_eq!(client.response().text(), "old");
    }
    eventually("the origin server is asked", || {
        (origin.count("/") == 2).then_some(())
    });
    gate.open();
    eventually("it is fresh", || {
        baton
            .client()
            .get("/")
            .has("cache-status", "hit")
            .then_some(())
    });
    assert_eq!(origin.count("/"), 2);
}

#[test]
fn the_log_tells_who_led_and_who_was_released() {
    let gate = Gate::new();
    let origin = Origin::start({
        let gate = gate.clone();
        move |request: &Request| {
            gate.wait();
            match request.target.as_str() {
                "/private" => ok("Cache-Control: private\r\n", "x"),
                _ => ok(FRESH, "x"),
            }
        }
    });
    let (baton, _directory) = reverse(&origin, "dir");
    let paths = ["/", "/private"];
    let mut clients: Vec<Client> = paths
        .iter()
        .flat_map(|path| asked(&baton, 20, path, ""))
        .collect();
    for path in paths {
        eventually("the origin server is asked", || {
            (origin.count(path) == 1).then_some(())
        });
    }
    gate.open();
    clients
        .iter_mut()
        .for_each(|client| drop(client.response()));
    let lines = baton.access_lines(40);
    let count = |path: &str, herd: &str| {
        let is_it = |line: &&String| {
            line.contains(&format!("GET {path} ")) && line.ends_with(&format!(" herd={herd}"))
        };
        lines.iter().filter(is_it).count()
    };
    assert_eq!(
        (count("/", "led"), count("/", "released")),
        (1, 0),
        "{lines:#?}"
    );
    assert!(count("/private", "released") >= 10, "{lines:#?}");
}
