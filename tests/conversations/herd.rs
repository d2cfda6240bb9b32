//! Several clients that ask one worker for the same while it is not there: one request to the origin server.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use crate::support::origin::{Request, ok};
use crate::support::sharing::{FRESH, HALF, STORES, asked, head_of, in_front_of, large};
use crate::support::{Baton, Client, Gate, Origin, eventually};

/// One worker in front of `origin`, with a store of either kind.
fn reverse(origin: &Origin, store: &str) -> (Baton, tempfile::TempDir) {
    in_front_of(origin, store, 1, &[])
}

/// Sends half of `large`, then the rest when the gate opens; `/chunked` in chunks, of `/cut` no more than the half.
fn halves(request: &Request, stream: &mut TcpStream, gate: &Gate) -> bool {
    let body = large();
    let pieces = [&body[..HALF], &body[HALF..]];
    let is_chunked = request.target.starts_with("/chunked");
    let length = match is_chunked {
        true => "Transfer-Encoding: chunked".to_owned(),
        false => format!("Content-Length: {}", body.len()),
    };
    let head = format!("HTTP/1.1 200 OK\r\n{FRESH}{length}\r\n\r\n");
    let mut sent = stream.write_all(head.as_bytes());
    for (n, piece) in pieces.into_iter().enumerate() {
        if n == 1 {
            gate.wait();
            if request.target == "/cut" {
                return false;
            }
        }
        if is_chunked {
            let line = format!("{:x}\r\n", piece.len());
            sent = sent.and_then(|()| stream.write_all(line.as_bytes()));
        }
        sent = sent.and_then(|()| stream.write_all(piece));
        if is_chunked {
            sent = sent.and_then(|()| stream.write_all(b"\r\n"));
        }
    }
    if is_chunked {
        sent = sent.and_then(|()| stream.write_all(b"0\r\n\r\n"));
    }
    sent.is_ok()
}

fn origin_of_halves(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::conversing(move |request, stream| halves(request, stream, &gate))
}

#[test]
fn all_read_what_comes_while_it_comes_and_the_origin_server_is_asked_once() {
    for store in STORES {
        let gate = Gate::new();
        let origin = origin_of_halves(&gate);
        let (baton, _directory) = reverse(&origin, store);
        let mut clients = asked(&baton, 30, "/", "");
        let body = large();
        let mut collapsed = 0;
        for client in &mut clients {
            collapsed += usize::from(head_of(client).contains("; collapsed"));
            assert!(client.exactly(HALF).unwrap() == body[..HALF], "{store}");
        }
        assert_eq!(collapsed, 29);
        // One that comes late has the first half at once, too.
        let mut late = asked(&baton, 1, "/", "").remove(0);
        assert!(head_of(&mut late).contains("fwd=uri-miss; collapsed"));
        assert!(late.exactly(HALF).unwrap() == body[..HALF]);
        clients.push(late);
        gate.open();
        for client in &mut clients {
            assert!(client.exactly(body.len() - HALF).unwrap() == body[HALF..]);
        }
        assert!(baton.client().get("/").is_hit());
        assert_eq!(origin.count("/"), 1);
        let lines = baton.access_lines(32).join("\n");
        assert_eq!(lines.matches("joined").count(), 30, "{store}");
    }
}

#[test]
fn what_has_no_length_is_read_in_chunks() {
    for store in STORES {
        let gate = Gate::new();
        let origin = origin_of_halves(&gate);
        let (baton, _directory) = reverse(&origin, store);
        let clients = asked(&baton, 5, "/chunked", "");
        eventually("the origin server is asked", || {
            (origin.count("/chunked") == 1).then_some(())
        });
        gate.open();
        for mut client in clients {
            assert!(client.response().body == large(), "{store}");
        }
        assert_eq!(origin.count("/chunked"), 1);
    }
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up_and_one_that_leaves_ends_nothing() {
    for store in STORES {
        let gate = Gate::new();
        gate.open();
        let origin = Origin::conversing({
            let gate = gate.clone();
            move |request, stream| {
                let body = large().repeat(8);
                let head = format!(
                    "HTTP/1.1 200 OK\r\n{FRESH}Content-Length: {}\r\n\r\n",
                    body.len()
                );
                gate.wait();
                stream.write_all(head.as_bytes()).is_ok()
                    && stream.write_all(&body).is_ok()
                    && !request.target.is_empty()
            }
        });
        let (baton, _directory) = reverse(&origin, store);
        let mut idle = asked(&baton, 1, "/", "").remove(0);
        assert!(head_of(&mut idle).contains("200 OK"));
        let mut leaving = asked(&baton, 1, "/", "").remove(0);
        assert!(head_of(&mut leaving).contains("200 OK"));
        leaving.reset();
        let whole = large().repeat(8);
        let mut other = baton.client();
        assert!(other.get("/").body == whole, "{store}");
        assert!(idle.exactly(whole.len()).unwrap() == whole, "{store}");
        assert_eq!(origin.count("/"), 1, "{store}");

        // The first one leaves while another waits.
        let mut first = asked(&baton, 1, "/first", "").remove(0);
        assert!(head_of(&mut first).contains("200 OK"));
        let mut second = asked(&baton, 1, "/first", "").remove(0);
        assert!(head_of(&mut second).contains("200 OK"));
        first.reset();
        assert!(second.exactly(whole.len()).unwrap() == whole, "{store}");
        assert_eq!(origin.count("/first"), 1, "{store}");
    }
}

#[test]
fn what_is_for_one_alone_is_asked_for_by_each_at_once() {
    let gate = Gate::new();
    let origin = Origin::start({
        let gate = gate.clone();
        let number = AtomicUsize::new(0);
        move |request| {
            if request.target == "/" {
                gate.wait();
            }
            let number = number.fetch_add(1, SeqCst);
            ok("Cache-Control: private\r\n", format!("for {number}"))
        }
    });
    let (baton, _directory) = reverse(&origin, "memory");
    let clients = asked(&baton, 10, "/", "");
    eventually("one asks", || (origin.count("/") == 1).then_some(()));
    gate.open();
    let mut seen: Vec<String> = clients
        .into_iter()
        .map(|mut client| client.response().text())
        .collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 10, "nobody sees what is for another: {seen:?}");
    assert_eq!(origin.count("/"), 10);
}

#[test]
fn what_is_known_to_be_for_one_alone_is_not_waited_for() {
    let gate = Gate::new();
    gate.open();
    let closed = Gate::new();
    let origin = Origin::start({
        let (first, later) = (AtomicUsize::new(0), closed.clone());
        move |_| {
            if first.fetch_add(1, SeqCst) > 0 {
                later.wait();
            }
            ok("Cache-Control: no-store\r\n", "own")
        }
    });
    let (baton, _directory) = reverse(&origin, "memory");
    assert_eq!(baton.client().get("/").text(), "own");
    let clients = asked(&baton, 5, "/", "");
    eventually("all ask at once", || (origin.count("/") == 6).then_some(()));
    closed.open();
    for mut client in clients {
        assert_eq!(client.response().text(), "own");
    }
}

#[test]
fn another_variant_is_asked_for_at_once() {
    let gate = Gate::new();
    let origin = Origin::conversing({
        let gate = gate.clone();
        move |request, stream| {
            let language = request.field("accept-language").unwrap_or_default();
            let head = format!(
                "HTTP/1.1 200 OK\r\n{FRESH}Vary: Accept-Language\r\nContent-Length: 4\r\n\r\n{language}"
            );
            let begun = stream.write_all(head.as_bytes()).is_ok();
            if language == "de" {
                gate.wait();
            }
            begun && stream.write_all(b"!!").is_ok()
        }
    });
    let (baton, _directory) = reverse(&origin, "memory");
    let mut german = asked(&baton, 2, "/", "Accept-Language: de\r\n");
    for client in &mut german {
        head_of(client);
    }
    let swedish = baton.client().get_with("/", "Accept-Language: sv\r\n");
    assert_eq!(swedish.text(), "sv!!");
    gate.open();
    for client in &mut german {
        assert_eq!(client.exactly(4).unwrap(), b"de!!");
    }
    assert_eq!(origin.count("/"), 2);
}

#[test]
fn a_range_is_read_from_what_comes_where_it_is_coming() {
    for store in STORES {
        let gate = Gate::new();
        let origin = Origin::conversing({
            let gate = gate.clone();
            move |request, stream| match request.field("range") {
                None => halves(request, stream, &gate),
                Some(_) => {
                    let part = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2999999-2999999/3000000\r\nETag: \"a\"\r\nContent-Length: 1\r\n\r\nx";
                    stream.write_all(part.as_bytes()).is_ok()
                }
            }
        });
        let (baton, _directory) = reverse(&origin, store);
        let mut first = asked(&baton, 1, "/", "").remove(0);
        head_of(&mut first);
        let body = large();
        for (range, octets) in [
            ("0-9", 0..10),
            ("1000000-1000099", 1_000_000..1_000_100),
            ("1399990-1399999", 1_399_990..1_400_000),
        ] {
            let part = baton
                .client()
                .get_with("/", &format!("Range: bytes={range}\r\n"));
            assert_eq!(part.status, 206, "{store} {range}");
            assert!(part.body == body[octets], "{store} {range}");
            assert!(part.field("cache-status").unwrap().contains("collapsed"));
        }
        assert_eq!(origin.count("/"), 1, "{store}");
        // A range that is far off does not wait for it.
        let last = baton.client().get_with("/", "Range: bytes=2999999-\r\n");
        assert_eq!((last.status, last.text().as_str()), (206, "x"));
        assert_eq!(origin.count("/"), 2, "{store}");
        // One that reaches beyond what has come goes on when that does.
        let mut across = asked(&baton, 1, "/", "Range: bytes=1399000-1400999\r\n").remove(0);
        assert!(head_of(&mut across).contains("Content-Range: bytes 1399000-1400999/3000000"));
        assert!(across.exactly(1000).unwrap() == body[1_399_000..1_400_000]);
        gate.open();
        assert!(across.exactly(1000).unwrap() == body[1_400_000..1_401_000]);
        // A condition is evaluated on what is arriving, too; and in the end it is whole, whatever parts were asked for.
        let unchanged = || {
            let conditions = "If-None-Match: \"a\"\r\n";
            baton.client().get_with("/", conditions)
        };
        assert_eq!(unchanged().status, 304, "{store}");
        first.exactly(body.len()).unwrap();
        assert_eq!(unchanged().status, 304, "{store}");
        assert_eq!(origin.count("/"), 2, "{store}");
    }
}

#[test]
fn what_breaks_off_is_whole_for_nobody() {
    for store in STORES {
        let gate = Gate::new();
        let origin = origin_of_halves(&gate);
        let (baton, _directory) = reverse(&origin, store);
        let mut clients = asked(&baton, 5, "/cut", "");
        for client in &mut clients {
            head_of(client);
            client.exactly(HALF).unwrap();
        }
        gate.open();
        for client in &mut clients {
            assert!(client.exactly(1).is_err(), "{store}");
        }
        // The rest was asked for, and did not come.
        assert_eq!(origin.count("/cut"), 2);
        let again = asked(&baton, 1, "/cut", "")
            .remove(0)
            .try_response_to("GET");
        assert!(again.is_err(), "{store}");
    }
}

#[test]
fn where_the_first_fails_another_takes_over() {
    let gate = Gate::new();
    let origin = Origin::start({
        let (gate, number) = (gate.clone(), AtomicUsize::new(0));
        move |_| match number.fetch_add(1, SeqCst) {
            0 => {
                gate.wait();
                Vec::new()
            }
            _ => ok(FRESH, "served"),
        }
    });
    let (baton, _directory) = reverse(&origin, "memory");
    let mut clients = asked(&baton, 10, "/", "");
    eventually("one asks", || (origin.count("/") == 1).then_some(()));
    gate.open();
    for client in &mut clients {
        let response = client.response();
        assert!(matches!(response.status, 200 | 502), "{}", response.head);
    }
    // A request that met the close of a new connection is not sent again; the one that takes over asks once for all.
    assert_eq!(origin.count("/"), 2);
}

#[test]
fn what_is_stale_is_revalidated_once() {
    let gate = Gate::new();
    let origin = Origin::start({
        let gate = gate.clone();
        move |request| match request.field("if-none-match") {
            None => ok("Cache-Control: max-age=0\r\nETag: \"a\"\r\n", "kept"),
            Some(_) => {
                gate.wait();
                format!("HTTP/1.1 304 Not Modified\r\n{FRESH}\r\n").into_bytes()
            }
        }
    });
    let (baton, _directory) = reverse(&origin, "memory");
    assert_eq!(baton.client().get("/").text(), "kept");
    let clients = asked(&baton, 10, "/", "");
    eventually("one asks", || (origin.count("/") == 2).then_some(()));
    gate.open();
    for mut client in clients {
        assert_eq!(client.response().text(), "kept");
    }
    assert_eq!(origin.count("/"), 2);
}

#[test]
fn what_nobody_waits_for_any_more_ends() {
    for store in STORES {
        let (joined, ended) = (Gate::new(), Gate::new());
        let origin = Origin::conversing({
            let (joined, ended) = (joined.clone(), ended.clone());
            move |_, stream| {
                let head = format!("HTTP/1.1 200 OK\r\n{FRESH}Transfer-Encoding: chunked\r\n\r\n");
                let mut written = stream.write_all(head.as_bytes());
                let chunk = format!("{:x}\r\n{}\r\n", 10_000, "x".repeat(10_000));
                while written.is_ok() {
                    written = stream.write_all(chunk.as_bytes());
                    // What is far ahead of the store's memory cannot be joined any more.
                    joined.wait();
                }
                ended.open();
                false
            }
        });
        let (baton, _directory) = reverse(&origin, store);
        let mut clients = asked(&baton, 3, "/", "");
        for client in &mut clients {
            assert!(head_of(client).contains("200 OK"));
            client.exactly(1000).unwrap();
        }
        assert_eq!(origin.count("/"), 1);
        joined.open();
        clients.into_iter().for_each(Client::reset);
        eventually("the origin server is let go", || {
            ended.is_open().then_some(())
        });
    }
}

#[test]
fn what_is_invalidated_meanwhile_is_for_those_who_asked_before() {
    for store in STORES {
        let gate = Gate::new();
        let origin = Origin::conversing({
            let gate = gate.clone();
            let number = AtomicUsize::new(0);
            move |request, stream| {
                if request.method == "POST" {
                    return stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_ok();
                }
                match number.fetch_add(1, SeqCst) {
                    0 => halves(request, stream, &gate),
                    _ => stream.write_all(&ok(FRESH, "new")).is_ok(),
                }
            }
        });
        let (baton, _directory) = reverse(&origin, store);
        let mut before = asked(&baton, 2, "/", "");
        for client in &mut before {
            head_of(client);
        }
        let mut changing = baton.client();
        changing.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(changing.response().status, 204);
        assert_eq!(baton.client().get("/").text(), "new", "{store}");
        gate.open();
        for client in &mut before {
            assert!(client.exactly(large().len()).unwrap() == large(), "{store}");
        }
        assert_eq!(baton.client().get("/").text(), "new", "{store}");
    }
}

/// The first response is complete and stale at once; later ones come in halves, of which `/cut` has the first only.
fn origin_that_changes(gate: &Gate, control: &'static str) -> Origin {
    let (gate, number) = (gate.clone(), AtomicUsize::new(0));
    Origin::conversing(move |request, stream| match number.fetch_add(1, SeqCst) {
        0 => {
            let stale =
                format!("Cache-Control: max-age=5{control}\r\nAge: 10\r\nETag: \"old\"\r\n");
            stream.write_all(&ok(&stale, "old")).is_ok()
        }
        1 => halves(request, stream, &gate),
        _ => false,
    })
}

#[test]
fn what_replaces_a_stored_response_is_asked_for_once_too() {
    for store in STORES {
        let gate = Gate::new();
        let origin = origin_that_changes(&gate, "");
        let (baton, _directory) = reverse(&origin, store);
        assert_eq!(baton.client().get("/").text(), "old");
        let mut clients = asked(&baton, 1, "/", "");
        assert!(head_of(&mut clients[0]).contains("3000000"));
        clients.extend(asked(&baton, 5, "/", ""));
        for client in &mut clients[1..] {
            assert!(head_of(client).contains("collapsed"), "{store}");
        }
        gate.open();
        for client in &mut clients {
            assert!(client.exactly(large().len()).unwrap() == large(), "{store}");
        }
        assert_eq!(origin.count("/"), 2, "{store}");
        assert!(baton.client().get("/").is_hit());
    }
}

#[test]
fn what_is_stale_is_served_until_what_replaces_it_has_come() {
    for store in STORES {
        let gate = Gate::new();
        let origin = origin_that_changes(&gate, ", stale-while-revalidate=60");
        let (baton, _directory) = reverse(&origin, store);
        assert_eq!(baton.client().get("/").text(), "old");
        for _ in 0..3 {
            let stale = baton.client().get("/");
            assert_eq!((stale.is_hit(), stale.text().as_str()), (true, "old"));
            eventually("it is being revalidated", || {
                (origin.count("/") == 2).then_some(())
            });
        }
        gate.open();
        eventually("what has come is served", || {
            (baton.client().get("/").body == large()).then_some(())
        });
        assert_eq!(origin.count("/"), 2, "{store}");
    }
}

#[test]
fn what_breaks_off_replaces_nothing() {
    for store in STORES {
        let gate = Gate::new();
        let origin = origin_that_changes(&gate, ", stale-if-error=60");
        let (baton, _directory) = reverse(&origin, store);
        assert_eq!(baton.client().get("/cut").text(), "old");
        gate.open();
        let mut cut = asked(&baton, 1, "/cut", "").remove(0);
        assert!(cut.try_response_to("GET").is_err());
        assert_eq!(baton.client().get("/cut").text(), "old", "{store}");
        assert_eq!(origin.count("/cut"), 3);
    }
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up_where_pieces_are_small_or_the_rest_is_missing() {
    for (store, path) in [("memory", "/small"), ("dir", "/small"), ("dir", "/rest")] {
        let whole = large().repeat(8);
        let origin = Origin::conversing({
            let (whole, number) = (whole.clone(), AtomicUsize::new(0));
            move |request, stream| {
                let number = number.fetch_add(1, SeqCst);
                let (from, head) = match request.field("range") {
                    None => (0, "HTTP/1.1 200 OK\r\n".to_owned()),
                    Some(range) => {
                        let from = range.trim_start_matches("bytes=").trim_end_matches('-');
                        let last = whole.len() - 1;
                        let all = whole.len();
                        let range = format!("Content-Range: bytes {from}-{last}/{all}\r\n");
                        let head = format!("HTTP/1.1 206 Partial Content\r\n{range}");
                        (from.parse().unwrap(), head)
                    }
                };
                let rest = &whole[from..];
                let head = format!("{head}{FRESH}Content-Length: {}\r\n\r\n", rest.len());
                let mut sent = stream.write_all(head.as_bytes());
                let is_cut = request.target == "/rest" && number == 0;
                let most = if is_cut { HALF } else { rest.len() };
                for piece in rest[..most].chunks(8000) {
                    sent = sent.and_then(|()| stream.write_all(piece));
                }
                sent.is_ok() && !is_cut
            }
        });
        let (baton, _directory) = reverse(&origin, store);
        if path == "/rest" {
            let mut first = asked(&baton, 1, path, "").remove(0);
            assert!(first.try_response_to("GET").is_err());
        }
        let mut idle = asked(&baton, 1, path, "").remove(0);
        assert!(head_of(&mut idle).contains("200 OK"));
        assert!(baton.client().get(path).body == whole, "{store} {path}");
        assert!(
            idle.exactly(whole.len()).unwrap() == whole,
            "{store} {path}"
        );
    }
}

#[test]
fn where_no_answer_is_to_be_had_a_herd_is_told_so_and_does_not_try_one_by_one() {
    let gate = Gate::new();
    let origin = Origin::start({
        let gate = gate.clone();
        move |_| {
            gate.wait();
            Vec::new()
        }
    });
    let (baton, _directory) = reverse(&origin, "memory");
    let mut clients = asked(&baton, 20, "/", "");
    eventually("one asks", || (origin.count("/") == 1).then_some(()));
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().status, 502);
    }
    let count = origin.count("/");
    assert!(count <= 4, "{count}");
}

#[test]
fn who_comes_when_it_has_become_too_large_to_be_shared_does_not_wait() {
    let gate = Gate::new();
    let origin = Origin::conversing({
        let (gate, number) = (gate.clone(), AtomicUsize::new(0));
        move |_, stream| {
            if number.fetch_add(1, SeqCst) > 0 {
                return stream.write_all(&ok(FRESH, "own")).is_ok();
            }
            let head = format!("HTTP/1.1 200 OK\r\n{FRESH}Transfer-Encoding: chunked\r\n\r\n");
            let chunk = format!("{:x}\r\n{}\r\n", HALF, "x".repeat(HALF));
            let begun = stream.write_all(head.as_bytes()).is_ok();
            let begun = begun && stream.write_all(chunk.as_bytes()).is_ok();
            gate.wait();
            begun && stream.write_all(b"0\r\n\r\n").is_ok()
        }
    });
    let flags = ["--workers", "1", "--cache", "memory"];
    let small = ["--set", "cache.max_object=1MiB"];
    let baton = Baton::reverse(origin.address(), &[&flags[..], &small].concat());
    let mut first = asked(&baton, 1, "/", "").remove(0);
    head_of(&mut first);
    first.exactly(HALF).unwrap();
    assert_eq!(baton.client().get("/").text(), "own");
    gate.open();
}
