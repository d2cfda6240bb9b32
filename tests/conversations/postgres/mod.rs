//! A cache in PostgreSQL: kept over restarts, shared by nodes, and of no harm when the database is in trouble.

mod commands;
mod nodes;
mod secrets;
mod sets;
mod trouble;
mod views;

use crate::support::baton::BATON;
use crate::support::origin::ok;
use crate::support::{Baton, Ended, Origin, PostgresServer, Request, eventually};

/// What the target says: `/size/N` has so many octets, which tell where they are; everything is fresh for long.
fn answer(request: &Request) -> Vec<u8> {
    let fields = "Cache-Control: max-age=600\r\n";
    if request.method != "GET" {
        return ok("Cache-Control: no-store\r\n", "done");
    }
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n",
        content(&request.target).len()
    )
    .into_bytes();
    answer.extend(content(&request.target));
    answer
}

/// What a target is answered with, octet for octet.
fn content(target: &str) -> Vec<u8> {
    let size = target
        .rsplit('/')
        .next()
        .and_then(|size| size.split('?').next()?.parse().ok());
    let seed = target.bytes().fold(7u32, |sum, octet| {
        sum.wrapping_mul(31).wrapping_add(u32::from(octet))
    });
    let mut state = seed | 1;
    (0..size.unwrap_or(100))
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect()
}

fn start(origin: &Origin, server: &PostgresServer, flags: &[&str]) -> Baton {
    let url = server.url();
    Baton::reverse(origin.address(), &[&["--cache", &url], flags].concat())
}

/// Asks until the answer is from the cache, and compares each with what it must be.
fn is_kept(baton: &Baton, target: &str) {
    eventually(&format!("{target} is kept"), || {
        let response = baton.client().get(target);
        assert_eq!(
            (response.status, response.body == content(target)),
            (200, true)
        );
        response.is_hit().then_some(())
    });
}

#[test]
fn what_is_stored_is_there_after_a_restart() {
    let server = PostgresServer::start();
    let origin = Origin::start(answer);
    let targets = [
        "/size/0",
        "/size/10",
        "/size/300000",
        "/size/1048576",
        "/size/1048577",
        "/size/5000000",
    ];
    {
        let baton = start(&origin, &server, &[]);
        targets.iter().for_each(|target| is_kept(&baton, target));
    }
    // Without memory of its own, what comes is from the database.
    let flags = ["--workers", "1", "--set", "cache.memory=0"];
    let baton = start(&origin, &server, &flags);
    is_kept(&baton, "/connected");
    let asked = origin.requests().len();
    for target in targets {
        let response = baton.client().get(target);
        assert!(
            response.is_hit() && response.body == content(target),
            "{target}"
        );
    }
    let ranged = baton
        .client()
        .get_with(targets[5], "Range: bytes=1048570-3145800\r\n");
    assert_eq!(ranged.status, 206);
    assert!(ranged.body == content(targets[5])[1_048_570..=3_145_800]);
    assert_eq!(origin.requests().len(), asked);
}

#[test]
fn the_start_says_what_is_wrong_and_shows_no_password() {
    let server = PostgresServer::start_with(&["max_connections=9"]);
    let origin = Origin::start(answer);
    let url = server.url().replace("baton@", "baton:sesame@");
    let baton = Baton::reverse(origin.address(), &["--cache", &url]);
    assert!(
        baton.start_line().contains("baton:***@"),
        "{}",
        baton.start_line()
    );
    is_kept(&baton, "/size/10");
    let log = baton.log("janitor.log");
    assert!(log.contains("2 workers with 4 connections each"), "{log}");
    let everything = ["master.log", "janitor.log", "worker-0.log", "worker-1.log"]
        .map(|name| baton.log(name))
        .concat();
    assert!(!everything.contains("sesame") && !baton.start_line().contains("sesame"));
    let mut processes = vec![baton.master(), baton.janitor()];
    processes.extend(baton.workers());
    for pid in processes {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!String::from_utf8_lossy(&line).contains("sesame"));
    }
}

#[test]
fn tables_of_a_newer_one_are_left_alone() {
    let server = PostgresServer::start();
    let origin = Origin::start(answer);
    drop(start(&origin, &server, &[]));
    server.execute("INSERT INTO baton_schema (version, name, applied_on, checksum) VALUES (999, 'later', '2030-01-01T00:00:00Z', '1')");
    let to = format!("http://{}", origin.address());
    let url = server.url();
    let refused = Baton::try_start(&[
        "reverse",
        "--to",
        &to,
        "--listen",
        "127.0.0.1:0",
        "--cache",
        &url,
    ]);
    let said = refused.err().expect("no start");
    assert!(
        said.contains("newer baton") && said.contains("999"),
        "{said}"
    );
}

#[test]
fn tables_are_made_by_a_command_too() {
    let server = PostgresServer::start();
    let url = server.url().replace("baton@", "baton:sesame@");
    let run = || Ended::of(std::process::Command::new(BATON).args(["migrate", "--cache", &url]));
    let (first, again) = (run(), run());
    assert!(
        first.out.contains("7 migrations made") && again.out.contains("up to date"),
        "{}{}",
        first.out,
        first.err
    );
    assert!(!first.out.contains("sesame"));
    assert_eq!(server.number("SELECT count(*) FROM baton_counter"), 1);
    let of_directory =
        Ended::of(std::process::Command::new(BATON).args(["migrate", "--cache", "memory"]));
    assert!(
        of_directory.err.contains("only a cache in PostgreSQL"),
        "{}",
        of_directory.err
    );
}
