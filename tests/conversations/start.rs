//! From the command line to the line that says that it serves, or to the reason why it does not.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::baton::BATON;
use crate::support::origin::ok;
use crate::support::{Baton, Client, DEADLINE, Ended, Origin, eventually};

/// A command that ends by itself.
fn run(arguments: &[&str]) -> Ended {
    run_in(Path::new("/"), arguments)
}

fn run_in(directory: &Path, arguments: &[&str]) -> Ended {
    Ended::of(
        Command::new(BATON)
            .args(arguments)
            .current_dir(directory)
            .env_remove("RUST_LOG"),
    )
}

#[test]
fn several_addresses_are_served_and_each_is_named() {
    let origin = Origin::start(|_| ok("", "served"));
    let baton = Baton::reverse(origin.address(), &["--listen", "127.0.0.1:0"]);
    let [first, second] = baton.addresses() else {
        panic!("{}", baton.start_line())
    };
    assert_ne!(first, second);
    for address in [first, second] {
        assert_eq!(Client::connect(*address).get("/").text(), "served");
    }
}

#[test]
fn the_line_comes_when_every_worker_is_ready() {
    let origin = Origin::start(|_| ok("", ""));
    let baton = Baton::reverse(origin.address(), &["--workers", "3", "--cache", "off"]);
    let wanted = format!(
        "baton: listening on http://{} (reverse, 3 workers, cache off)",
        baton.address()
    );
    assert_eq!(baton.start_line(), wanted);
    for worker in 0..3 {
        assert!(baton.log(&format!("worker-{worker}.log")).contains("ready"));
    }
}

#[test]
fn the_service_manager_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let heard = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let variable = ("NOTIFY_SOCKET", path.to_str().unwrap());
    let mut baton = Baton::start_with(variable, &["forward", "--listen", "127.0.0.1:0"]);
    assert!(heard().contains("READY=1"));
    baton.signal(baton.master(), "TERM");
    assert!(heard().contains("STOPPING=1"));
    assert_eq!(baton.wait().code(), Some(0));
}

#[test]
fn a_taken_port_is_named_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let logs = tempfile::tempdir().unwrap();
    let ended = run(&[
        "forward",
        "--listen",
        &address,
        "--log-dir",
        logs.path().to_str().unwrap(),
    ]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.err.contains(&format!("cannot listen on {address}")),
        "{}",
        ended.err
    );
    assert!(ended.err.contains("choose another port"), "{}", ended.err);
    assert!(!ended.err.contains("panicked"));
}

#[test]
fn a_log_directory_that_cannot_be_had_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let logs = file.join("logs");
    let ended = run(&[
        "forward",
        "--listen",
        "127.0.0.1:0",
        "--log-dir",
        logs.to_str().unwrap(),
    ]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.err.contains(logs.to_str().unwrap()) && ended.err.contains("--log-dir"),
        "{}",
        ended.err
    );
}

#[test]
fn a_configuration_at_fault_names_file_line_key_and_what_is_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proxy.conf");
    for (text, wanted) in [
        (
            "[[listener]]\naddress = \"127.0.0.1:0\"\n\n[client]\nheader_timeot = \"5s\"\n",
            ["proxy.conf:5", "header_timeout"],
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:0\"\n[client]\nheader_timeout = \"soon\"\n",
            ["proxy.conf:4", "client.header_timeout"],
        ),
        (
            "[[listener]]\naddress = \"somewhere\"\n",
            ["proxy.conf:2", "listener.address"],
        ),
        ("[[listener]\n", ["proxy.conf:1", ""]),
        ("workers = 1\n", ["listener", "--listen"]),
        (
            "[[listener]]\naddress = \"127.0.0.1:0\"\nmode = \"reverse\"\n",
            ["reverse.to", "http://"],
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        for command in ["check", "serve"] {
            let ended = run(&[command, "-c", file.to_str().unwrap()]);
            assert_eq!(ended.code, Some(1), "{text}: {}", ended.err);
            for wanted in wanted {
                assert!(
                    ended.err.contains(wanted),
                    "{text}: {wanted}: {}",
                    ended.err
                );
            }
        }
    }
}

#[test]
fn check_prints_what_is_in_effect() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proxy.conf");
    std::fs::write(
        &file,
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[cache]\nttl = \"90s\"\n",
    )
    .unwrap();
    let ended = run_in(
        directory.path(),
        &["check", "--set", "client.header_timeout=7s"],
    );
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    assert!(
        ended.out.contains("header_timeout = \"7s\""),
        "{}",
        ended.out
    );
    assert!(
        ended.out.contains("ttl = \"1m 30s\"") || ended.out.contains("ttl = \"90s\""),
        "{}",
        ended.out
    );
    // What it prints is a configuration with the same effect.
    std::fs::write(&file, &ended.out).unwrap();
    let again = run_in(directory.path(), &["check"]);
    assert_eq!((again.code, again.out), (Some(0), ended.out));
}

#[test]
fn without_a_file_serve_says_where_it_looked() {
    let directory = tempfile::tempdir().unwrap();
    let ended = run_in(directory.path(), &["serve"]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.err.contains("proxy.conf") && ended.err.contains("-c FILE"),
        "{}",
        ended.err
    );
    let ended = run_in(directory.path(), &["serve", "-c", "missing.conf"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("missing.conf"), "{}", ended.err);
}

#[test]
fn wrong_usage_is_code_two_and_points_to_the_help() {
    for arguments in [
        &["forward", "--wrokers", "2"][..],
        &["reverse"],
        &["fly"],
        &[],
        &["forward", "--set", "workers"],
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.err);
        assert!(
            ended.err.contains("--help") || ended.err.contains("Usage"),
            "{}",
            ended.err
        );
    }
    let ended = run(&["forward", "--workers", "many"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("--workers"), "{}", ended.err);
}

#[test]
fn help_man_and_completions_are_printed() {
    let short = run(&["forward", "-h"]);
    let long = run(&["forward", "--help"]);
    assert!(short.code == Some(0) && long.code == Some(0));
    assert!(short.out.contains("--listen") && short.out.len() < long.out.len());
    for (arguments, wanted) in [
        (&["--help"][..], "Exit codes"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
        (&["man"], ".TH baton"),
        (&["completions", "bash"], "complete -F"),
        (&["completions", "zsh"], "#compdef baton"),
        (&["check", "--print-defaults"], "# workers = 0"),
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.err);
        assert!(ended.out.contains(wanted), "{arguments:?}: {}", ended.out);
    }
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    for arguments in [
        &["check", "--print-defaults"][..],
        &["completions", "bash"],
        &["man"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(BATON)
            .args(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (output.status.code(), &*said),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_console_that_takes_nothing_does_not_keep_it_from_serving() {
    let directory = tempfile::tempdir().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let mut child = Command::new(BATON)
        .args(["forward", "--listen", "127.0.0.1:0", "--workers", "1"])
        .arg("--log-dir")
        .arg(directory.path())
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stderr(full.unwrap())
        .spawn()
        .unwrap();
    let address = eventually("the log names the address", || {
        let log = std::fs::read_to_string(directory.path().join("master.log")).ok()?;
        let (_, rest) = log.split_once("listening on http://")?;
        rest.split(' ').next()?.parse().ok()
    });
    let answer = std::panic::catch_unwind(|| Client::connect(address).get("/").status);
    let ended = child.try_wait().unwrap();
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!((answer.ok(), ended), (Some(400), None));
}
