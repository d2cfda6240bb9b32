//! Two nodes, one database: what one of them changes the other knows, and what it cannot know it does not serve.

use std::io::Write;
use std::time::{Duration, Instant};

use super::sets::cache;
use super::{answer, content, is_kept, start};
use crate::support::origin::ok;
use crate::support::sharing::head_of;
use crate::support::{Baton, Gate, Origin, PostgresServer, eventually};

const PURGE: [&str; 2] = ["--set", "access.purge=[\"127.0.0.1\"]"];

/// One worker, so that what it holds in memory is what is asked for.
fn node(origin: &Origin, server: &PostgresServer) -> Baton {
    start(origin, server, &[&["--workers", "1"], &PURGE[..]].concat())
}

fn purge(baton: &Baton, target: &str) {
    let status = ask_to_purge(baton, target);
    assert!(matches!(status, 200 | 204 | 404), "{status}");
}

fn ask_to_purge(baton: &Baton, target: &str) -> u16 {
    let mut client = baton.client();
    client.send(format!(
        "PURGE {target} HTTP/1.1\r\nHost: a.example\r\n\r\n"
    ));
    client.response().status
}

/// An origin whose content changes when it is told so, fresh for long all the same.
fn changing() -> (Origin, std::sync::Arc<std::sync::atomic::AtomicU64>) {
    let version = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(1));
    let own = version.clone();
    let origin = Origin::start(move |request| match request.method.as_str() {
        "GET" => {
            let version = own.load(std::sync::atomic::Ordering::SeqCst);
            ok(
                "Cache-Control: max-age=600\r\n",
                format!("version {version}").as_str(),
            )
        }
        _ => ok("Cache-Control: no-store\r\n", "changed"),
    });
    (origin, version)
}

fn raise(version: &std::sync::atomic::AtomicU64) -> u64 {
    version.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1
}

fn warm(baton: &Baton, target: &str, text: &str) {
    eventually(&format!("{text} is kept"), || {
        let response = baton.client().get(target);
        (response.is_hit() && response.text() == text).then_some(())
    });
}

#[test]
fn what_one_node_stores_the_other_serves() {
    let server = PostgresServer::start();
    let origin = Origin::start(answer);
    let (one, two) = (node(&origin, &server), node(&origin, &server));
    is_kept(&one, "/connected");
    is_kept(&two, "/connected");
    for target in ["/size/100", "/size/3000000"] {
        is_kept(&one, target);
        let asked = origin.requests().len();
        is_kept(&two, target);
        assert_eq!(origin.requests().len(), asked, "{target}");
    }
}

/// The second node holds it in memory; how long after the purge has returned does it serve that?
#[test]
fn a_purge_on_one_node_reaches_the_memory_of_the_other() {
    let server = PostgresServer::start();
    let (origin, version) = changing();
    let (one, two) = (node(&origin, &server), node(&origin, &server));
    let mut latencies = Vec::new();
    for n in 0..30 {
        let target = "/purged";
        let old = format!(
            "version {}",
            version.load(std::sync::atomic::Ordering::SeqCst)
        );
        warm(&one, target, &old);
        warm(&two, target, &old);
        raise(&version);
        match n % 2 {
            0 => purge(&one, target),
            // RFC 9111 section 4.4: a non-error answer to an unsafe method invalidates, too.
            _ => {
                let mut client = one.client();
                client
                    .send("POST /purged HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n");
                assert_eq!(client.response().status, 200);
            }
        }
        let since = Instant::now();
        let mut client = two.client();
        while client.get(target).text() == old {
            assert!(since.elapsed() < Duration::from_secs(5), "round {n}");
        }
        latencies.push(since.elapsed());
        assert_ne!(one.client().get(target).text(), old, "nor does the first");
    }
    latencies.sort();
    println!(
        "purge on one node to memory of another: median {:?}, most {:?}",
        latencies[latencies.len() / 2],
        latencies[latencies.len() - 1]
    );
    assert!(
        latencies[latencies.len() / 2] < Duration::from_millis(200),
        "{latencies:?}"
    );
}

/// A node's janitor hears nothing from now on; since when. Its lease may last for `LEASE` from then.
fn cut_off(baton: &Baton) -> (i32, Instant) {
    let janitor = baton.janitor();
    baton.signal(janitor, "STOP");
    eventually("it stands still", || {
        let stat = std::fs::read_to_string(format!("/proc/{janitor}/stat")).ok()?;
        stat.contains(") T ").then_some(())
    });
    (janitor, Instant::now())
}

const LEASE: Duration = Duration::from_millis(2_000);

/// What the node holds in memory is served no longer than the lease.
#[test]
fn a_node_that_hears_nothing_serves_nothing_from_memory() {
    let server = PostgresServer::start();
    let (origin, version) = changing();
    let (one, two) = (node(&origin, &server), node(&origin, &server));
    warm(&one, "/a", "version 1");
    warm(&two, "/a", "version 1");
    let (janitor, since) = cut_off(&two);
    raise(&version);
    purge(&one, "/a");
    let mut client = two.client();
    // It may go on serving that, or have no copy: then it has one of the next version, for as long.
    while since.elapsed() < LEASE {
        client.get("/a");
    }
    assert_eq!(client.get("/a").text(), "version 2");
    // It still stores and finds, in the database; and what it asked for before it knew of a purge it does not store.
    warm(&one, "/a", "version 2");
    for old in ["version 2", "version 3", "version 4"] {
        raise(&version);
        purge(&one, "/a");
        assert_ne!(two.client().get("/a").text(), old);
    }
    two.signal(janitor, "CONT");
    warm(&two, "/a", "version 5");
    warm(&one, "/a", "version 5");
}

/// What is arriving when it is purged on another node is joined by nobody who comes when the lease is over.
#[test]
fn a_node_that_hears_nothing_lets_nobody_join_what_it_asked_for_before() {
    for workers in ["1", "2"] {
        let server = PostgresServer::start();
        let gate = Gate::new();
        let closed = gate.clone();
        let origin = Origin::conversing(move |request, stream| {
            if request.target == "/herd" {
                std::thread::park_timeout(Duration::from_millis(500));
            }
            if request.field("x-first").is_none() {
                let new = ok("Cache-Control: max-age=600\r\n", "new");
                return stream.write_all(&new).is_ok();
            }
            let old = ok("Cache-Control: max-age=600\r\n", "old, and slow");
            let (now, later) = old.split_at(old.len() - 4);
            stream.write_all(now).unwrap();
            closed.wait();
            stream.write_all(later).is_ok()
        });
        let one = node(&origin, &server);
        let two = start(&origin, &server, &["--workers", workers]);
        is_connected(&one);
        is_connected(&two);
        let mut first = two.client();
        first.send("GET /slow HTTP/1.1\r\nHost: a.example\r\nX-First: 1\r\n\r\n");
        eventually("it asks", || (origin.count("/slow") == 1).then_some(()));
        let mut joined = two.client();
        joined.send("GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n");
        assert!(head_of(&mut joined).contains("collapsed"));
        let (_, since) = cut_off(&two);
        purge(&one, "/slow");
        eventually("the lease is over", || {
            (since.elapsed() > LEASE).then_some(())
        });
        let since = Instant::now();
        for _ in 0..8 {
            assert_eq!(two.client().get("/slow").text(), "new");
        }
        // Nor is the fetch of before waited for.
        assert!(since.elapsed() < Duration::from_secs(2));
        // A herd is one all the same, but for who comes in the next era.
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| assert_eq!(two.client().get("/herd").text(), "new"));
            }
        });
        assert!(origin.count("/herd") <= 2, "{}", origin.count("/herd"));
        gate.open();
        assert_eq!(first.response().text(), "old, and slow");
        assert_eq!(joined.exactly(13).unwrap(), b"old, and slow");
    }
}

/// After that a lease is made longer.
const RENEWED: Duration = Duration::from_millis(4_500);

/// Who asks for what has been purged waits for nobody's answer of before.
#[test]
fn a_purge_ends_the_lease_of_who_asks() {
    let server = PostgresServer::start();
    let gate = Gate::new();
    let closed = gate.clone();
    let origin = Origin::start(move |request| match request.field("x-first") {
        Some(_) => {
            closed.wait();
            ok("Cache-Control: max-age=600\r\n", "old")
        }
        None => ok("Cache-Control: max-age=600\r\n", "new"),
    });
    let (one, two) = (node(&origin, &server), node(&origin, &server));
    is_connected(&one);
    is_connected(&two);
    let leases = || server.number("SELECT count(*) FROM baton_fetches");
    for target in ["/slow/1", "/slow/2"] {
        let mut first = one.client();
        let mut count = 0;
        eventually("it asks under a lease, as it is not alone", || {
            count += 1;
            first = one.client();
            first.send(format!(
                "GET {target}?{count} HTTP/1.1\r\nHost: a.example\r\nX-First: 1\r\n\r\n"
            ));
            let has_lease = || {
                std::thread::sleep(Duration::from_millis(20));
                leases() > 0
            };
            (0..20).any(|_| has_lease()).then_some(())
        });
        let target = format!("{target}?{count}");
        match target.starts_with("/slow/1") {
            true => purge(&two, &target),
            false => {
                let prefix = format!("http://a.example{target}");
                let code = cache(&server, &["purge", "--prefix", &prefix]).0;
                assert_eq!(code, Some(3), "there is nothing yet");
            }
        }
        let since = Instant::now();
        assert_eq!(two.client().get(&target).text(), "new");
        assert!(since.elapsed() < Duration::from_secs(2));
        eventually("who has asked lets go of it", || {
            (leases() == 0).then_some(())
        });
        // Nor does who asked before take it again.
        while since.elapsed() < RENEWED {
            assert_eq!(leases(), 0);
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(first);
    }
    gate.open();
}

/// The node's connections are cut, and what it holds in memory is purged meanwhile.
#[test]
fn a_node_that_was_cut_off_learns_what_it_missed() {
    let server = PostgresServer::start();
    let (origin, version) = changing();
    let (one, two) = (node(&origin, &server), node(&origin, &server));
    for target in ["/a", "/b"] {
        warm(&one, target, "version 1");
        warm(&two, target, "version 1");
    }
    // The janitor of the second is stopped while its session ends: it must find out afterwards.
    let (janitor, _) = cut_off(&two);
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'baton janitor'");
    raise(&version);
    purge(&one, "/a");
    two.signal(janitor, "CONT");
    // It may serve until its lease is over, and from then on nothing that was purged.
    let since = Instant::now();
    let mut client = two.client();
    while client.get("/a").text() == "version 1" {
        assert!(
            since.elapsed() < Duration::from_millis(2_500),
            "{:?}",
            since.elapsed()
        );
    }
    assert_eq!(
        two.client().get("/b").text(),
        "version 1",
        "what was not purged stays"
    );
    // The database loses what is unlogged when it crashes.
    warm(&two, "/b", "version 1");
    raise(&version);
    server.signal_all("KILL");
    eventually("the database has died", || {
        server.try_execute("SELECT 1").is_err().then_some(())
    });
    let mut server = server;
    server.stop();
    server.run();
    eventually("what was held before the crash is served no more", || {
        (two.client().get("/b").text() == "version 3").then_some(())
    });
    warm(&two, "/b", "version 3");
}

/// The database refuses: what one node has removed the other may still serve, and who removes it is told so.
#[test]
fn a_purge_that_the_others_cannot_be_told_of_says_so() {
    let server = PostgresServer::start();
    let (origin, version) = changing();
    let (one, two) = (node(&origin, &server), node(&origin, &server));
    warm(&one, "/a", "version 1");
    warm(&two, "/a", "version 1");
    server.execute("ALTER SYSTEM SET default_transaction_read_only = on");
    server.execute("SELECT pg_reload_conf()");
    eventually("nothing is stored", || {
        let target = format!("/{}", fastrand::u32(..));
        let response = one.client().get(&target);
        response.has("cache-status", "store-trouble").then_some(())
    });
    raise(&version);
    assert_eq!(ask_to_purge(&one, "/a"), 202);
    assert_eq!(one.client().get("/a").text(), "version 2");
    assert_eq!(two.client().get("/a").text(), "version 1");
    server.execute("ALTER SYSTEM RESET default_transaction_read_only");
    server.execute("SELECT pg_reload_conf()");
    eventually("the other has been told", || {
        (two.client().get("/a").text() == "version 2").then_some(())
    });
}

/// What comes back from an origin server that was asked before the purge is not stored after it.
#[test]
fn what_a_purge_overtakes_is_not_stored() {
    let server = PostgresServer::start();
    let (asked, answer_now) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let (sender, receiver) = (
        std::sync::Mutex::new(asked.0),
        std::sync::Mutex::new(answer_now.1),
    );
    let slow = Origin::start(move |request| {
        if request.field("x-wait").is_some() {
            sender.lock().unwrap().send(()).unwrap();
            receiver.lock().unwrap().recv().unwrap();
        }
        ok("Cache-Control: max-age=600\r\n", "old")
    });
    let (one, two) = (node(&slow, &server), node(&slow, &server));
    is_connected(&one);
    is_connected(&two);
    // What the head says of it, it says as soon as this node has heard of the purge.
    eventually("it is not said to be stored", || {
        let mut client = two.client();
        client.send("GET /slow HTTP/1.1\r\nHost: a.example\r\nX-Wait: 1\r\n\r\n");
        asked.1.recv().unwrap();
        purge(&one, "/slow");
        answer_now.0.send(()).unwrap();
        let response = client.response();
        assert_eq!(response.text(), "old");
        assert_eq!(
            server.number("SELECT count(*) FROM baton_objects WHERE key LIKE '%/slow'"),
            0
        );
        let is_told = response.has("cache-status", "invalidated-meanwhile");
        assert!(!is_told || !response.has("cache-status", "stored"));
        is_told.then_some(())
    });
}

/// Asks until something is stored.
fn is_connected(baton: &Baton) {
    eventually("the database is used", || {
        baton.client().get("/connected").is_hit().then_some(())
    });
}

#[test]
fn two_nodes_at_once_never_serve_a_wrong_octet() {
    let server = PostgresServer::start();
    let origin = Origin::start(answer);
    let (one, two) = (node(&origin, &server), node(&origin, &server));
    let until = Instant::now() + Duration::from_secs(3);
    std::thread::scope(|scope| {
        for (n, baton) in [&one, &two, &one, &two].into_iter().enumerate() {
            scope.spawn(move || {
                let mut client = baton.client();
                let mut count = 0usize;
                while Instant::now() < until {
                    let target = format!(
                        "/{}/size/{}",
                        count % 7,
                        [100, 70_000, 1_500_000][(count + n) % 3]
                    );
                    let response = client.get(&target);
                    assert!(
                        response.status == 200 && response.body == content(&target),
                        "{target}"
                    );
                    // Where it is told too late, under this load, that is 202.
                    if count % 9 == n {
                        let status = ask_to_purge(baton, &target);
                        assert!(matches!(status, 200 | 202 | 404), "{status}");
                    }
                    count += 1;
                }
            });
        }
    });
}

/// How often the origin server was asked for it.
fn asked_for(origin: &Origin, target: &str) -> usize {
    let requests = origin.requests();
    requests
        .iter()
        .filter(|request| request.target == target)
        .count()
}

#[test]
fn a_herd_over_two_nodes_is_one_request() {
    let server = PostgresServer::start();
    let origin = Origin::start(|request| {
        if request.target.starts_with("/herd") {
            std::thread::park_timeout(Duration::from_millis(300));
        }
        answer(request)
    });
    let (one, two) = (node(&origin, &server), node(&origin, &server));
    is_connected(&one);
    is_connected(&two);
    for n in 0..3 {
        let target = format!("/herd/{n}/size/200000");
        std::thread::scope(|scope| {
            for baton in [&one, &two, &one, &two, &one, &two] {
                let target = &target;
                scope.spawn(move || {
                    let response = baton.client().get(target);
                    assert!(response.status == 200 && response.body == content(target));
                });
            }
        });
        assert_eq!(asked_for(&origin, &target), 1, "{target}");
    }
    eventually("no lease is left", || {
        (server.number("SELECT count(*) FROM baton_fetches") == 0).then_some(())
    });
}

/// What only a second node needs costs the first one nothing.
#[test]
fn a_node_that_is_alone_takes_no_lease() {
    let server = PostgresServer::start();
    let origin = Origin::start(answer);
    let one = node(&origin, &server);
    is_connected(&one);
    server.execute(
        "CREATE TABLE taken (name bytea); \
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN INSERT INTO taken VALUES (new.name); RETURN new; END'; \
         CREATE TRIGGER note BEFORE INSERT ON baton_fetches FOR EACH ROW EXECUTE FUNCTION note()",
    );
    let taken = || server.number("SELECT count(*) FROM taken");
    is_kept(&one, "/alone/size/10");
    assert_eq!(taken(), 0);
    let two = node(&origin, &server);
    is_connected(&two);
    let mut count = 0;
    eventually("it has heard of the other", || {
        count += 1;
        one.client().get(&format!("/{count}/size/10"));
        (taken() > 0).then_some(())
    });
}

/// Whoever holds the lease dies: the others wait for its end, and then ask themselves.
#[test]
fn a_node_that_dies_while_it_asks_holds_up_the_others_for_a_while_only() {
    let server = PostgresServer::start();
    let origin = Origin::start(|request| {
        if request.target == "/dies/size/10" && request.field("x-dies").is_some() {
            std::thread::park_timeout(Duration::from_secs(30));
        }
        answer(request)
    });
    let (one, two) = (node(&origin, &server), node(&origin, &server));
    is_connected(&one);
    is_connected(&two);
    let mut first = one.client();
    first.send("GET /dies/size/10 HTTP/1.1\r\nHost: a.example\r\nX-Dies: 1\r\n\r\n");
    eventually("it asks", || {
        (asked_for(&origin, "/dies/size/10") == 1).then_some(())
    });
    for pid in one.workers() {
        one.signal(pid, "KILL");
    }
    let since = Instant::now();
    let response = two.client().get("/dies/size/10");
    assert!(response.body == content("/dies/size/10"));
    println!("answered after {:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(12));
    assert_eq!(asked_for(&origin, "/dies/size/10"), 2);
}

/// What is for nobody else is waited for by nobody for longer than until its head shows that.
#[test]
fn what_is_not_kept_is_asked_for_by_each_node() {
    let server = PostgresServer::start();
    let origin = Origin::start(|request| match request.target.as_str() {
        "/own" => {
            std::thread::park_timeout(Duration::from_millis(100));
            ok("Cache-Control: no-store\r\n", "own")
        }
        _ => answer(request),
    });
    let (one, two) = (node(&origin, &server), node(&origin, &server));
    is_connected(&one);
    is_connected(&two);
    let since = Instant::now();
    std::thread::scope(|scope| {
        for baton in [&one, &two] {
            scope.spawn(move || assert_eq!(baton.client().get("/own").text(), "own"));
        }
    });
    assert!(
        since.elapsed() < Duration::from_secs(1),
        "{:?}",
        since.elapsed()
    );
}
