//! The real binary, started as a user would, on free ports, with its logs in a folder of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::client::Client;
use super::{DEADLINE, eventually};

pub struct Baton {
    child: Child,
    addresses: Vec<SocketAddr>,
    start_line: String,
    stderr: mpsc::Receiver<String>,
    directory: tempfile::TempDir,
}

impl Baton {
    /// `baton reverse --to http://ORIGIN`, with two workers and what `flags` add.
    pub fn reverse(origin: SocketAddr, flags: &[&str]) -> Baton {
        let to = format!("http://{origin}");
        Baton::start(&[&["reverse", "--to", &to, "--listen", "127.0.0.1:0"], flags].concat())
    }

    /// `baton forward` that may reach `origin` on loopback.
    pub fn forward(origin: SocketAddr, flags: &[&str]) -> Baton {
        let allow = format!("access.destinations_allow=[\"{origin}\"]");
        Baton::start(
            &[
                &["forward", "--listen", "127.0.0.1:0", "--set", &allow],
                flags,
            ]
            .concat(),
        )
    }

    /// Any command line; it must come to its start-up line.
    pub fn start(arguments: &[&str]) -> Baton {
        Baton::try_start(arguments).unwrap_or_else(|error| panic!("baton did not start: {error}"))
    }

    /// The error is what it printed before it ended.
    pub fn try_start(arguments: &[&str]) -> Result<Baton, String> {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_baton"))
            .args(arguments)
            .args(if arguments.contains(&"--workers") {
                &[][..]
            } else {
                &["--workers", "2"]
            })
            .arg("--log-dir")
            .arg(directory.path())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (say, stderr) = mpsc::channel();
        let pipe = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if say.send(line).is_err() {
                    return;
                }
            }
        });
        let mut before = String::new();
        loop {
            match stderr.recv_timeout(DEADLINE) {
                Ok(line) if line.starts_with("baton: listening on ") => {
                    let addresses = line.split("http://").skip(1).filter_map(|rest| {
                        let end = rest.find([' ', ',', ')']).unwrap_or(rest.len());
                        rest[..end].parse().ok()
                    });
                    let addresses = addresses.collect();
                    return Ok(Baton {
                        child,
                        addresses,
                        start_line: line,
                        stderr,
                        directory,
                    });
                }
                Ok(line) => before += &(line + "\n"),
                Err(_) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(before);
                }
            }
        }
    }

    /// The first (usually the only) address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn start_line(&self) -> &str {
        &self.start_line
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    // === processes

    pub fn master(&self) -> i32 {
        self.child.id() as i32
    }

    /// Process ids of the workers, by their titles, in order.
    pub fn workers(&self) -> Vec<i32> {
        let mut found: Vec<(String, i32)> = children(self.master())
            .into_iter()
            .map(|pid| (title(pid), pid))
            .filter(|(title, _)| title.starts_with("baton: worker"))
            .collect();
        found.sort();
        found.into_iter().map(|(_, pid)| pid).collect()
    }

    pub fn signal(&self, pid: i32, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &pid.to_string()])
            .status()
            .unwrap();
        assert!(status.success(), "kill -{name} {pid}");
    }

    /// Waits for the master's own end.
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "baton does not end");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    // === logs

    pub fn log_path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn log_directory(&self) -> &Path {
        self.directory.path()
    }

    /// The content of `master.log`, `worker-0.log` …; empty where there is none yet.
    pub fn log(&self, name: &str) -> String {
        let mut text = String::new();
        if let Ok(mut file) = std::fs::File::open(self.log_path(name)) {
            let _ = file.read_to_string(&mut text);
        }
        text
    }

    /// All access logs, once `count` lines are there.
    pub fn access_lines(&self, count: usize) -> Vec<String> {
        eventually(&format!("{count} lines in the access logs"), || {
            let names = (0..8).map(|worker| self.log(&format!("access-{worker}.log")));
            let lines: Vec<String> = names
                .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
                .collect();
            (lines.len() >= count).then_some(lines)
        })
    }

    /// The next line on standard error.
    pub fn stderr_line(&self) -> Option<String> {
        self.stderr.recv_timeout(DEADLINE).ok()
    }
}

impl Drop for Baton {
    fn drop(&mut self) {
        let workers = self.workers();
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in workers {
            let _ = Command::new("kill")
                .args(["-KILL", &pid.to_string()])
                .stderr(Stdio::null())
                .status();
        }
        if std::thread::panicking() {
            for name in [
                "master.log",
                "worker-0.log",
                "worker-1.log",
                "access-0.log",
                "access-1.log",
            ] {
                eprintln!("--- {name}\n{}", self.log(name));
            }
        }
    }
}

/// What `ps` shows of a process.
pub fn title(pid: i32) -> String {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(
        command
            .split(|octet| *octet == 0)
            .next()
            .unwrap_or_default(),
    )
    .into_owned()
}

pub fn children(parent: i32) -> Vec<i32> {
    let tasks = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(tasks).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}
