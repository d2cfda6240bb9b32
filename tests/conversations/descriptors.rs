//! Descriptors: the limit is raised as far as it goes, and reaching it is no catastrophe.

use std::time::{Duration, Instant};

use crate::support::baton::cpu_time;
use crate::support::origin::ok;
use crate::support::{Baton, Client, Origin, eventually};

fn limit_of(pid: i32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let numbers: Vec<u64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    (numbers[0], numbers[1])
}

fn count_of(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

#[test]
fn the_limit_is_raised_to_the_hard_one() {
    let origin = Origin::start(|_| ok("", ""));
    let program = ["prlimit", "--nofile=200:700"];
    let baton = Baton::reverse_by(&program, origin.address(), &[]);
    for pid in [vec![baton.master()], baton.workers()].concat() {
        assert_eq!(limit_of(pid), (700, 700));
    }
}

#[test]
fn accepting_pauses_at_the_limit_without_a_busy_loop_and_resumes() {
    const CLIENTS: usize = 120;
    let origin = Origin::start(|_| ok("Cache-Control: max-age=60\r\n", "served"));
    let baton = Baton::reverse_by(
        &["prlimit", "--nofile=80:80"],
        origin.address(),
        &[
            "--workers",
            "1",
            "--set",
            "worker.grace=10ms",
            "--cache",
            "memory",
        ],
    );
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| baton.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    }
    eventually("accepting pauses", || {
        baton
            .log("master.log")
            .contains("accepting pauses")
            .then_some(())
    });
    eventually("the worker has given all back", || {
        (baton.access_lines(1).len() > 10 && count_of(baton.master()) > 40).then_some(())
    });
    // Those that were accepted keep their connections; the others wait in the kernel, and nobody spins over that.
    let served = baton.access_lines(1).len();
    assert!(served < CLIENTS, "{served}");
    let (began, before) = (Instant::now(), cpu_time(baton.master()));
    eventually("half a second", || {
        (began.elapsed() > Duration::from_millis(500)).then_some(())
    });
    let used = cpu_time(baton.master()) - before;
    assert!(
        used <= Duration::from_millis(50),
        "{used:?} of processor time while paused"
    );
    assert!(count_of(baton.master()) <= 80);

    // Each that leaves makes room for another.
    let mut others = Vec::new();
    for (at, mut client) in clients.into_iter().enumerate() {
        match client.try_response_to("GET") {
            Ok(response) if response.status == 200 => {}
            Ok(response) => others.push((at, response.head)),
            Err(reason) => others.push((at, reason)),
        }
    }
    assert!(
        others.is_empty(),
        "{others:?}\nmaster: {}\nworker: {}",
        baton.log("master.log"),
        baton.log("worker-1.log")
    );
    assert_eq!(baton.client().get("/").text(), "served");
}

#[test]
fn a_worker_without_descriptors_loses_no_connection() {
    const CLIENTS: usize = 100;
    let gate = crate::support::Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        held.wait();
        ok("Cache-Control: no-store\r\n", "served")
    });
    let program = ["prlimit", "--nofile=64:64"];
    let baton = Baton::reverse_by(&program, origin.address(), &["--workers", "1"]);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| baton.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let head = format!("GET /{n} HTTP/1.1\r\nHost: a.example\r\n");
        client.send(head + "Connection: close\r\n\r\n");
    }
    eventually("the worker is full", || {
        (count_of(baton.workers()[0]) >= 50).then_some(())
    });
    let (began, before) = (
        Instant::now(),
        [baton.master(), baton.workers()[0]].map(cpu_time),
    );
    eventually("half a second", || {
        (began.elapsed() > Duration::from_millis(500)).then_some(())
    });
    for (pid, before) in [baton.master(), baton.workers()[0]].into_iter().zip(before) {
        let used = cpu_time(pid) - before;
        assert!(used <= Duration::from_millis(150), "{used:?} by {pid}");
    }
    gate.open();
    // It takes no more requests than it has descriptors for, at both ends; the others wait for their turn.
    for client in &mut clients {
        let response = client.response();
        assert_eq!(response.status, 200, "{}", response.head);
    }
    assert_eq!(baton.client().get("/").text(), "served");
}
