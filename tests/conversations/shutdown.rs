//! The end of the master, asked for or not, and the other signals.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::baton::has_ended;
use crate::support::origin::ok;
use crate::support::{Baton, Client, Gate, Origin, eventually};

/// A baton with one request that waits at the origin until the gate opens.
fn with_a_request_in_flight(flags: &[&str]) -> (Baton, Client, Gate) {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        held.wait();
        ok("", "finished")
    });
    let baton = Baton::reverse(origin.address(), flags);
    let mut client = baton.client();
    client.send("GET /held HTTP/1.1\r\nHost: a.example\r\n\r\n");
    eventually("the request is with the origin", || {
        (origin.count("/held") == 1).then_some(())
    });
    (baton, client, gate)
}

fn refuses(baton: &Baton) -> bool {
    TcpStream::connect(baton.address()).is_err()
}

#[test]
fn term_and_quit_finish_what_is_in_flight_and_close_what_is_idle() {
    for name in ["TERM", "QUIT"] {
        let (mut baton, mut client, gate) =
            with_a_request_in_flight(&["--set", "worker.grace=20ms"]);
        // One idle connection in the master, and one that has not gone back yet.
        gate.open();
        let mut idle = baton.client();
        idle.get("/");
        baton.wait_until_parked(&idle);
        assert_eq!(client.response().text(), "finished");
        drop(gate);

        let (mut baton2, mut client, gate) =
            with_a_request_in_flight(&["--set", "worker.grace=1h"]);
        baton.signal(baton.master(), name);
        assert!(idle.is_closed());
        assert_eq!(baton.wait().code(), Some(0));

        baton2.signal(baton2.master(), name);
        eventually("the listener is closed", || refuses(&baton2).then_some(()));
        assert!(baton2.is_running());
        gate.open();
        let response = client.response();
        assert_eq!(response.text(), "finished");
        assert!(response.has("connection", "close"), "{}", response.head);
        assert!(client.is_closed());
        assert_eq!(baton2.wait().code(), Some(0));
    }
}

#[test]
fn a_connection_within_its_grace_is_closed_by_term() {
    let origin = Origin::start(|_| ok("", ""));
    let mut baton = Baton::reverse(origin.address(), &["--set", "worker.grace=1h"]);
    let mut client = baton.client();
    client.get("/");
    baton.signal(baton.master(), "TERM");
    assert!(client.is_closed());
    assert_eq!(baton.wait().code(), Some(0));
}

#[test]
fn a_second_term_and_an_int_end_at_once() {
    for names in [&["TERM", "TERM"][..], &["INT"], &["TERM", "INT"]] {
        let (mut baton, mut client, _gate) = with_a_request_in_flight(&[]);
        let workers = baton.workers();
        let began = Instant::now();
        for name in names {
            baton.signal(baton.master(), name);
            if names.len() == 2 {
                eventually("it has been heard", || refuses(&baton).then_some(()));
            }
        }
        assert_eq!(baton.wait().code(), Some(0), "{names:?}");
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
        assert!(client.is_closed());
        assert!(workers.into_iter().all(has_ended));
    }
}

#[test]
fn patience_ends_with_the_shutdown_timeout() {
    let (mut baton, mut client, _gate) =
        with_a_request_in_flight(&["--set", "shutdown_timeout=300ms"]);
    let began = Instant::now();
    baton.signal(baton.master(), "TERM");
    assert_eq!(baton.wait().code(), Some(0));
    assert!(
        began.elapsed() >= Duration::from_millis(290),
        "{:?}",
        began.elapsed()
    );
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert!(client.is_closed());
}

#[test]
fn a_master_that_is_killed_leaves_its_workers_to_finish_and_its_port_to_the_next() {
    let (mut baton, mut client, gate) = with_a_request_in_flight(&[]);
    let (address, workers) = (baton.address().to_string(), baton.workers());
    baton.signal(baton.master(), "KILL");
    baton.wait();

    let origin = Origin::start(|_| ok("", "the next one"));
    let to = format!("http://{}", origin.address());
    let next = Baton::start(&["reverse", "--to", &to, "--listen", &address]);
    assert_eq!(next.client().get("/").text(), "the next one");

    gate.open();
    assert_eq!(client.response().text(), "finished");
    eventually("the workers end", || {
        workers.iter().all(|pid| has_ended(*pid)).then_some(())
    });
}

#[test]
fn workers_without_a_master_end_within_five_seconds() {
    let (mut baton, mut client, _gate) = with_a_request_in_flight(&[]);
    let workers = baton.workers();
    let began = Instant::now();
    baton.signal(baton.master(), "KILL");
    baton.wait();
    eventually("the workers end", || {
        workers.iter().all(|pid| has_ended(*pid)).then_some(())
    });
    assert!(
        began.elapsed() < Duration::from_millis(5_900),
        "{:?}",
        began.elapsed()
    );
    assert!(client.is_closed());
}

#[test]
fn hup_checks_the_file_and_changes_nothing() {
    let origin = Origin::start(|_| ok("", "served"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proxy.conf");
    let text = format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nmode = \"reverse\"\n[reverse]\nto = \"http://{}\"\n",
        origin.address()
    );
    std::fs::write(&file, &text).unwrap();
    let baton = Baton::start(&["serve", "-c", file.to_str().unwrap()]);
    let says = |wanted: &str| {
        baton.signal(baton.master(), "HUP");
        eventually(wanted, || {
            baton.log("master.log").contains(wanted).then_some(())
        });
        assert_eq!(baton.client().get("/").text(), "served");
    };
    says("has not changed");
    std::fs::write(&file, format!("{text}[cache]\nttl = \"1m\"\n")).unwrap();
    says("a restart is needed");
    std::fs::write(&file, format!("{text}[cache]\nttll = \"1m\"\n")).unwrap();
    says("proxy.conf:7: cache.ttll");
}

#[test]
fn usr1_opens_every_log_again() {
    let origin = Origin::start(|_| ok("", ""));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    baton.client().get("/before");
    baton.access_lines(1);
    let names = ["master.log", "worker-0.log", "access-0.log"];
    for name in names {
        std::fs::rename(baton.log_path(name), baton.log_path(&format!("{name}.1"))).unwrap();
    }
    baton.signal(baton.master(), "USR1");
    for name in names {
        eventually(name, || baton.log_path(name).exists().then_some(()));
    }
    baton.client().get("/after");
    let lines = baton.access_lines(1);
    assert!(lines.len() == 1 && lines[0].contains("/after"), "{lines:?}");
    assert!(baton.log("access-0.log.1").contains("/before"));
    assert!(!baton.log("access-0.log.1").contains("/after"));
}
