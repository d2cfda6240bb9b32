//! The processes: who holds which socket, and what is lost when one of them stops, hangs or dies.

use std::time::{Duration, Instant};

use crate::support::baton::{has_ended, has_socket, tcp_sockets, title};
use crate::support::origin::ok;
use crate::support::{Baton, Client, Gate, Origin, eventually};

/// Quiet connections go back to the master soon.
const BRIEF_GRACE: [&str; 2] = ["--set", "worker.grace=20ms"];

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")
}

/// An origin that answers everything with its target, except `/held…`, which waits for the gate.
fn origin_with(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |request| {
        if request.target.starts_with("/held") {
            gate.wait();
        }
        ok("", &request.target)
    })
}

fn deaths(baton: &Baton) -> Vec<String> {
    let log = baton.log("master.log");
    let lines = log.lines().filter(|line| line.contains("died"));
    lines.map(str::to_owned).collect()
}

#[test]
fn ps_shows_a_master_and_its_workers() {
    let origin = Origin::start(|_| ok("", ""));
    let baton = Baton::reverse(origin.address(), &["--workers", "3"]);
    assert_eq!(title(baton.master()), "baton: master");
    let titles: Vec<String> = baton.workers().into_iter().map(title).collect();
    assert_eq!(
        titles,
        ["baton: worker 0", "baton: worker 1", "baton: worker 2"]
    );
}

#[test]
fn the_master_is_the_only_listener() {
    let origin = Origin::start(|_| ok("", ""));
    let baton = Baton::reverse(origin.address(), &[]);
    assert_eq!(baton.client().get("/").status, 200);
    let port = baton.address().port();
    let sockets = tcp_sockets();
    let listening: Vec<_> = sockets
        .iter()
        .filter(|socket| socket.listens && socket.local == port)
        .collect();
    assert_eq!(listening.len(), 1);
    assert!(has_socket(baton.master(), listening[0].inode));
    for worker in baton.workers() {
        for socket in sockets.iter().filter(|socket| socket.listens) {
            assert!(!has_socket(worker, socket.inode), "worker {worker} listens");
        }
    }
}

#[test]
fn workers_share_the_connections() {
    let gate = Gate::new();
    let origin = origin_with(&gate);
    let baton = Baton::reverse(origin.address(), &[]);
    let mut clients: Vec<Client> = (0..8).map(|_| baton.client()).collect();
    for client in &mut clients {
        client.send(get("/held"));
    }
    let mut held: Vec<i32> = clients
        .iter()
        .map(|client| baton.wait_until_served(client))
        .collect();
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    held.sort_unstable();
    let first = held.iter().filter(|pid| **pid == held[0]).count();
    assert_eq!(
        first, 4,
        "{held:?}: one that is idle has as much as the other"
    );
}

#[test]
fn a_quiet_connection_goes_back_to_the_master_and_comes_again() {
    let origin = Origin::start(|request| ok("", &request.target));
    let baton = Baton::reverse(origin.address(), &BRIEF_GRACE);
    let mut client = baton.client();
    for path in ["/1", "/2", "/3"] {
        assert_eq!(client.get(path).text(), path);
        baton.wait_until_parked(&client);
    }
    let lines = baton.access_lines(3);
    for number in 1..=3 {
        // One connection with one number, whoever served it, and requests counted on.
        let wanted = format!("request={number}");
        let line = lines.iter().find(|line| line.contains(&wanted));
        assert!(
            line.is_some_and(|line| line.contains("connection=1")),
            "{lines:?}"
        );
    }
}

#[test]
fn a_client_that_leaves_while_parked_costs_nothing() {
    let origin = Origin::start(|_| ok("", ""));
    let baton = Baton::reverse(origin.address(), &BRIEF_GRACE);
    let open = || {
        std::fs::read_dir(format!("/proc/{}/fd", baton.master()))
            .unwrap()
            .count()
    };
    let before = open();
    let mut clients: Vec<Client> = (0..10).map(|_| baton.client()).collect();
    for client in &mut clients {
        client.get("/");
    }
    for client in &clients {
        baton.wait_until_parked(client);
    }
    assert_eq!(open(), before + 10);
    drop(clients);
    eventually("the master lets go", || (open() == before).then_some(()));
}

#[test]
fn a_silent_connection_ends_after_the_idle_timeout() {
    let origin = Origin::start(|_| ok("", ""));
    let baton = Baton::reverse(origin.address(), &["--set", "client.idle_timeout=100ms"]);
    let mut never_spoke = baton.client();
    let mut spoke = baton.client();
    spoke.get("/");
    assert!(spoke.is_closed() && never_spoke.is_closed());
}

// === death

#[test]
fn a_replacement_serves_within_half_a_second() {
    let origin = Origin::start(|_| ok("", "served"));
    // A machine that is busy with other tests may be late once, not each time.
    let mut took = Vec::new();
    for _ in 0..4 {
        let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
        let [worker] = baton.workers()[..] else {
            panic!("one worker")
        };
        let began = Instant::now();
        baton.signal(worker, "KILL");
        assert_eq!(baton.client().get("/").text(), "served");
        took.push(began.elapsed());
        if took.iter().any(|took| *took < Duration::from_millis(500)) {
            return;
        }
    }
    panic!("{took:?}");
}

#[test]
fn a_request_offered_to_a_worker_that_dies_unclaimed_is_served_by_its_successor() {
    let origin = Origin::start(|request| ok("", &request.target));
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let [worker] = baton.workers()[..] else {
        panic!("one worker")
    };
    baton.signal(worker, "STOP");
    let mut clients: Vec<Client> = (0..5).map(|_| baton.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(get(&format!("/{n}")));
    }
    // Both have it: it is offered and nobody has claimed it.
    eventually("the sockets are on offer", || {
        let offered = |client| baton.holders(client).contains(&baton.master());
        clients.iter().all(offered).then_some(())
    });
    baton.signal(worker, "KILL");
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.response().text(), format!("/{n}"));
        assert_eq!(origin.count(&format!("/{n}")), 1);
    }
}

#[test]
fn a_death_costs_what_was_in_that_worker_and_nothing_else() {
    let gate = Gate::new();
    let origin = origin_with(&gate);
    let baton = Baton::reverse(origin.address(), &BRIEF_GRACE);
    let mut parked: Vec<Client> = (0..6).map(|_| baton.client()).collect();
    for client in &mut parked {
        assert_eq!(client.get("/before").status, 200);
    }
    for client in &parked {
        baton.wait_until_parked(client);
    }
    let mut in_flight: Vec<Client> = (0..6).map(|_| baton.client()).collect();
    for (n, client) in in_flight.iter_mut().enumerate() {
        client.send(get(&format!("/held/{n}")));
    }
    let held = || (0..6).map(|n| origin.count(&format!("/held/{n}")));
    let holders: Vec<i32> = in_flight
        .iter()
        .map(|client| baton.wait_until_served(client))
        .collect();
    eventually("all are with the origin", || {
        held().all(|count| count == 1).then_some(())
    });
    let victim = holders[0];
    let mut lost = 0;
    baton.signal(victim, "KILL");
    eventually("the death is known", || {
        (deaths(&baton).len() == 1).then_some(())
    });
    gate.open();
    for (n, (client, holder)) in in_flight.iter_mut().zip(holders).enumerate() {
        if holder == victim {
            lost += 1;
            assert!(client.is_closed(), "no answer and no second try");
        } else {
            assert_eq!(client.response().text(), format!("/held/{n}"));
        }
    }
    assert!(lost > 0);
    assert!(held().all(|count| count == 1), "nothing is sent twice");
    for client in &mut parked {
        assert_eq!(client.get("/after").text(), "/after");
    }
}

#[test]
fn all_workers_may_die_and_parked_clients_live_on() {
    let origin = Origin::start(|request| ok("", &request.target));
    let baton = Baton::reverse(origin.address(), &BRIEF_GRACE);
    let mut clients: Vec<Client> = (0..20).map(|_| baton.client()).collect();
    for client in &mut clients {
        client.get("/before");
    }
    for client in &clients {
        baton.wait_until_parked(client);
    }
    for worker in baton.workers() {
        baton.signal(worker, "KILL");
    }
    for client in &mut clients {
        assert_eq!(client.get("/after").text(), "/after");
    }
}

#[test]
fn a_death_is_one_line_with_pid_and_signal() {
    let origin = Origin::start(|_| ok("", ""));
    let baton = Baton::reverse(origin.address(), &[]);
    let workers = baton.workers();
    baton.signal(workers[1], "KILL");
    eventually("a successor", || {
        let now = baton.workers();
        (now.len() == 2 && now != workers).then_some(())
    });
    baton.signal(workers[0], "ABRT");
    let lines = eventually("two deaths", || {
        let lines = deaths(&baton);
        (lines.len() >= 2).then_some(lines)
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains(&format!(
        "worker 1 (pid {}) died: signal 9 (SIGKILL)",
        workers[1]
    )));
    assert!(lines[1].contains(&format!(
        "worker 0 (pid {}) died: signal 6 (SIGABRT)",
        workers[0]
    )));
    let log = baton.log("master.log");
    let about = log
        .lines()
        .filter(|line| line.contains("WARN") || line.contains("ERROR"));
    assert_eq!(about.count(), 2, "{log}");
}

#[test]
fn repeated_deaths_back_off_while_the_others_serve() {
    let origin = Origin::start(|_| ok("", ""));
    let baton = Baton::reverse(origin.address(), &[]);
    let second = || {
        let workers = baton.workers();
        workers
            .into_iter()
            .find(|pid| title(*pid) == "baton: worker 1")
    };
    let mut pauses = Vec::new();
    for _ in 0..5 {
        let victim = eventually("worker 1", second);
        baton.signal(victim, "KILL");
        let died = Instant::now();
        assert_eq!(baton.client().get("/").status, 200);
        eventually("its successor", || second().filter(|pid| *pid != victim));
        pauses.push(died.elapsed());
    }
    // None, 100, 200, 400, 800 ms.
    assert!(pauses[2] >= Duration::from_millis(190), "{pauses:?}");
    assert!(pauses[4] >= Duration::from_millis(790), "{pauses:?}");
}

#[test]
fn a_response_that_the_close_delimits_does_not_look_whole_when_its_worker_dies() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::conversing(move |_, stream| {
        use std::io::Write;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf of it");
        held.wait();
        false
    });
    let baton = Baton::reverse(origin.address(), &["--workers", "1"]);
    let mut client = baton.client();
    client.send("GET / HTTP/1.0\r\nHost: a.example\r\n\r\n");
    while client.line().unwrap() != "" {}
    assert_eq!(client.exactly(10).unwrap(), b"half of it");
    baton.signal(baton.workers()[0], "KILL");
    let error = client.exactly(1).unwrap_err();
    assert!(error.contains("reset"), "{error}");
    gate.open();
}

// === standstill

#[test]
fn what_a_stopped_worker_has_not_claimed_goes_elsewhere_and_is_answered_once() {
    let origin = Origin::start(|request| ok("", &request.target));
    let baton = Baton::reverse(origin.address(), &["--set", "worker.grace=1h"]);
    let [stopped, other] = baton.workers()[..] else {
        panic!("two workers")
    };
    baton.signal(stopped, "STOP");
    let mut clients: Vec<Client> = (0..12).map(|_| baton.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(get(&format!("/{n}")));
    }
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.response().text(), format!("/{n}"));
    }
    // Its loop is known not to come around: nothing waits for it any more.
    let began = Instant::now();
    for _ in 0..10 {
        assert_eq!(baton.client().get("/more").status, 200);
    }
    assert!(
        began.elapsed() < Duration::from_millis(450),
        "{:?}",
        began.elapsed()
    );

    baton.signal(stopped, "CONT");
    // It wakes, finds its offers revoked, and gets work again.
    eventually("it serves again", || {
        let mut client = baton.client();
        assert_eq!(client.get("/again").status, 200);
        baton.log("access-0.log").contains("/again").then_some(())
    });
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(origin.count(&format!("/{n}")), 1, "asked once");
        assert_eq!(baton.holders(client), [other], "what is revoked is closed");
        // The connection is in order: the next answer is that of the next request.
        assert_eq!(client.get("/next").text(), "/next");
    }
    assert!(deaths(&baton).is_empty());
}

#[test]
fn workers_obey_the_channel_and_no_signals() {
    let origin = Origin::start(|_| ok("", ""));
    let baton = Baton::reverse(origin.address(), &[]);
    let workers = baton.workers();
    for name in ["INT", "TERM", "QUIT", "HUP", "USR1"] {
        baton.signal(workers[0], name);
    }
    for _ in 0..4 {
        assert_eq!(baton.client().get("/").status, 200);
    }
    assert_eq!(baton.workers(), workers);
    assert!(!has_ended(workers[0]));
}

#[test]
fn an_empty_line_behind_a_request_does_not_keep_its_connection_from_being_idle() {
    let origin = Origin::start(|_| ok("", "served"));
    let baton = Baton::reverse(origin.address(), &BRIEF_GRACE);
    let mut client = baton.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab\r\n");
    assert_eq!(client.response().text(), "served");
    baton.wait_until_parked(&client);
    assert_eq!(client.get("/").text(), "served");
}
