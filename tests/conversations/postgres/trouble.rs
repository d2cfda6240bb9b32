//! A database in trouble: requests go on, uncached, held up no longer than the deadline and only at first, and never with a
//! wrong octet; when it is over the cache is of use again within seconds.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::{answer, content, is_kept, start};
use crate::support::{Baton, Client, Origin, PostgresServer, eventually};

/// The deadline, and what a busy machine may add.
const HELD_UP: Duration = Duration::from_millis(250 + 400);
/// Within which the cache is of use again.
const BACK: Duration = Duration::from_secs(5 + 2);

/// One worker, and nothing in memory: each hit is the database's.
fn node(origin: &Origin, server: &PostgresServer) -> Baton {
    start(
        origin,
        server,
        &["--workers", "1", "--set", "cache.memory=0"],
    )
}

/// Asks for it, and compares every octet; whether it was a hit, and how long it took.
fn ask(client: &mut Client, target: &str) -> (bool, Duration) {
    let since = Instant::now();
    let response = client.get(target);
    assert_eq!(response.status, 200, "{target}: {}", response.head);
    assert!(response.body == content(target), "{target}: wrong octets");
    (response.is_hit(), since.elapsed())
}

/// Requests go on without the cache: none is held up for longer than the deadline, and most not at all.
fn goes_on_without(baton: &Baton, targets: &[&str]) {
    let mut client = baton.client();
    let mut times: Vec<Duration> = Vec::new();
    for n in 0..40 {
        let (_, took) = ask(&mut client, targets[n % targets.len()]);
        times.push(took);
    }
    times.sort();
    assert!(times[39] < HELD_UP, "{times:?}");
    assert!(times[20] < Duration::from_millis(60), "{times:?}");
}

fn is_back(baton: &Baton, target: &str) {
    let since = Instant::now();
    is_kept(baton, target);
    println!("back after {:?}", since.elapsed());
    assert!(since.elapsed() < BACK, "{:?}", since.elapsed());
}

/// Lines that say that the cache fails, of one process.
fn complaints(baton: &Baton, log: &str) -> usize {
    baton
        .log(log)
        .matches("the cache in PostgreSQL fails")
        .count()
}

#[test]
fn a_database_that_is_down_at_the_start_is_waited_for_by_nobody() {
    let mut server = PostgresServer::start();
    let origin = Origin::start(answer);
    server.stop();
    let baton = node(&origin, &server);
    goes_on_without(&baton, &["/size/10", "/size/1500000"]);
    eventually("it is said", || {
        (complaints(&baton, "worker-0.log") == 1).then_some(())
    });
    server.run();
    is_back(&baton, "/size/10");
    is_back(&baton, "/size/1500000");
    assert_eq!(complaints(&baton, "worker-0.log"), 1);
}

#[test]
fn a_database_that_goes_away_comes_back() {
    let mut server = PostgresServer::start_with(&["autovacuum=off"]);
    let origin = Origin::start(answer);
    // Logged: what was stored is there again.
    let flags = [
        "--workers",
        "1",
        "--set",
        "cache.memory=0",
        "--set",
        "postgres.logged=true",
    ];
    let baton = start(&origin, &server, &flags);
    let targets = ["/size/10", "/size/1500000"];
    targets.iter().for_each(|target| is_kept(&baton, target));
    for _ in 0..2 {
        // A crash loses what was committed within the last moment.
        server.execute("CHECKPOINT");
        server.stop();
        goes_on_without(&baton, &targets);
        server.run();
        is_back(&baton, targets[0]);
        let (is_hit, _) = ask(&mut baton.client(), targets[1]);
        assert!(is_hit, "it has survived");
    }
    assert_eq!(complaints(&baton, "worker-0.log"), 1, "one line a minute");
    assert!(complaints(&baton, "janitor.log") <= 1);
}

#[test]
fn a_database_that_hangs_holds_up_one_request_and_that_not_for_long() {
    let server = PostgresServer::start();
    let origin = Origin::start(answer);
    let baton = node(&origin, &server);
    let targets = ["/size/10", "/size/300000", "/size/1500000"];
    targets.iter().for_each(|target| is_kept(&baton, target));
    for _ in 0..2 {
        server.signal_all("STOP");
        goes_on_without(&baton, &targets);
        server.signal_all("CONT");
        targets.iter().for_each(|target| is_back(&baton, target));
    }
}

#[test]
fn sessions_that_are_killed_again_and_again_cost_hits_and_nothing_else() {
    let server = PostgresServer::start();
    let origin = Origin::start(answer);
    let baton = node(&origin, &server);
    let targets = ["/size/10", "/size/300000", "/size/2500000"];
    targets.iter().for_each(|target| is_kept(&baton, target));
    let server = &server;
    let hits = std::thread::scope(|scope| {
        // Its end is dropped behind the clients, also when one panics.
        let (over, told) = channel::<()>();
        let killing = scope.spawn(move || {
            let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'baton %'";
            let mut times = 0;
            loop {
                let _ = server.try_execute(kill);
                times += 1;
                if told.recv_timeout(Duration::from_secs(2)) != Err(RecvTimeoutError::Timeout) {
                    return times;
                }
            }
        });
        let until = Instant::now() + Duration::from_secs(7);
        let clients: Vec<_> = (0..3)
            .map(|n| {
                let (baton, targets) = (&baton, &targets);
                scope.spawn(move || {
                    let mut client = baton.client();
                    let (mut hits, mut count) = (0, n);
                    while Instant::now() < until {
                        let target = targets[count % targets.len()];
                        count += 1;
                        client.send(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
                        match client.try_response_to("GET") {
                            Ok(response) => {
                                assert_eq!(response.status, 200, "{target}");
                                assert!(response.body == content(target), "{target}");
                                hits += usize::from(response.is_hit());
                            }
                            Err(why) => panic!("{target}: {why}"),
                        }
                    }
                    hits
                })
            })
            .collect();
        let hits: usize = clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum();
        drop(over);
        assert!(killing.join().unwrap() >= 3);
        hits
    });
    println!("{hits} hits meanwhile");
    assert!(complaints(&baton, "worker-0.log") <= 1);
    is_back(&baton, targets[2]);
}

#[test]
fn without_a_connection_to_spare_it_does_without() {
    let server =
        PostgresServer::start_with(&["max_connections=8", "superuser_reserved_connections=0"]);
    let origin = Origin::start(answer);
    let mut others: Vec<postgres::Client> = Vec::new();
    while let Ok(other) = postgres::Client::connect(&server.url(), postgres::NoTls) {
        others.push(other);
    }
    let baton = node(&origin, &server);
    goes_on_without(&baton, &["/size/10"]);
    others.clear();
    is_back(&baton, "/size/10");
    // Those that it has suffice, however few.
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'baton worker 0' \
                AND pid <> (SELECT min(pid) FROM pg_stat_activity WHERE application_name = 'baton worker 0')";
    server.execute(kill);
    assert!(ask(&mut baton.client(), "/size/10").0);
}

#[test]
fn a_database_that_may_not_be_written_to_still_gives() {
    let server = PostgresServer::start();
    let origin = Origin::start(answer);
    let baton = node(&origin, &server);
    is_kept(&baton, "/size/10");
    is_kept(&baton, "/size/1500000");
    server.execute("ALTER SYSTEM SET default_transaction_read_only = on");
    server.execute("SELECT pg_reload_conf()");
    eventually("nothing is stored", || {
        let response = baton
            .client()
            .get(&format!("/size/{}", fastrand::u32(20..5000)));
        response.has("cache-status", "store-trouble").then_some(())
    });
    for target in ["/size/10", "/size/1500000"] {
        assert!(ask(&mut baton.client(), target).0, "{target}");
    }
    // What is invalidated meanwhile is not found, although it is there.
    let mut client = baton.client();
    client.send("POST /size/10 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert!(!ask(&mut baton.client(), "/size/10").0);
    assert_eq!(
        server.number("SELECT count(*) FROM baton_objects WHERE key LIKE '%/size/10'"),
        1
    );
    server.execute("ALTER SYSTEM RESET default_transaction_read_only");
    server.execute("SELECT pg_reload_conf()");
    is_back(&baton, "/size/77");
    is_back(&baton, "/size/10");
    assert_eq!(complaints(&baton, "worker-0.log"), 1);
}

#[test]
fn tables_that_are_dropped_are_made_again() {
    let server = PostgresServer::start();
    let origin = Origin::start(answer);
    let baton = node(&origin, &server);
    is_kept(&baton, "/size/10");
    server.execute("DROP TABLE baton_objects, baton_pieces CASCADE");
    goes_on_without(&baton, &["/size/10", "/size/1500000"]);
    is_back(&baton, "/size/10");
    is_back(&baton, "/size/1500000");
    server.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    goes_on_without(&baton, &["/size/10"]);
    is_back(&baton, "/size/10");
}

/// Its tables are empty then: what is unlogged is not copied to a standby.
#[test]
fn when_a_standby_takes_over_the_cache_is_of_use_again() {
    let mut primary = PostgresServer::start();
    let standby = primary.standby();
    let origin = Origin::start(answer);
    let url = primary.url_or(&standby);
    let flags = ["--workers", "1", "--set", "cache.memory=0"];
    let baton = Baton::reverse(origin.address(), &[&["--cache", &url], &flags[..]].concat());
    let targets = ["/size/10", "/size/300000", "/size/1500000"];
    targets.iter().for_each(|target| is_kept(&baton, target));
    eventually("the standby has heard of the tables", || {
        let tables =
            "SELECT count(*) FROM pg_class WHERE relname IN ('baton_counter', 'baton_schema')";
        (standby.number(tables) == 2).then_some(())
    });
    primary.stop();
    goes_on_without(&baton, &targets);
    // For as long as nobody has taken over.
    goes_on_without(&baton, &targets);
    standby.execute("SELECT pg_promote()");
    is_back(&baton, targets[0]);
    targets.iter().for_each(|target| is_back(&baton, target));
    assert_eq!(standby.number("SELECT count(*) FROM baton_counter"), 1);
    assert!(standby.number("SELECT count(*) FROM baton_objects") >= 3);
    assert!(complaints(&baton, "worker-0.log") <= 1);
    assert!(complaints(&baton, "janitor.log") <= 1);
}

/// A response that is on its way from the database when that goes away for a moment is finished, right, or visibly not.
#[test]
fn a_body_that_is_being_sent_is_right_or_cut() {
    let mut server = PostgresServer::start_with(&["autovacuum=off"]);
    let origin = Origin::start(answer);
    let flags = [
        "--workers",
        "1",
        "--set",
        "cache.memory=0",
        "--set",
        "postgres.logged=true",
    ];
    let baton = start(&origin, &server, &flags);
    let target = "/size/30000000";
    is_kept(&baton, target);
    let mut client = baton.client();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
    // The head and some octets: the rest waits in sockets, or has not been read from the database yet.
    loop {
        let line = client.line().unwrap();
        if line.is_empty() {
            break;
        }
        assert!(!line.starts_with("HTTP") || line.contains("200"));
    }
    let mut got = client.exactly(1_000_000).unwrap();
    // A crash loses what was committed within the last moment.
    server.execute("CHECKPOINT");
    server.stop();
    server.run();
    let whole = content(target);
    while got.len() < whole.len() {
        let next = (whole.len() - got.len()).min(1_000_000);
        got.extend(client.exactly(next).expect("it came back in time"));
    }
    assert!(got == whole);
}
