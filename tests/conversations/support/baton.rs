//! The real binary, started as a user would, on free ports, with its logs in a folder of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use super::client::Client;
use super::postgres::PostgresServer;
use super::{DEADLINE, eventually};

/// The program under test.
pub const BATON: &str = env!("CARGO_BIN_EXE_baton");

pub struct Baton {
    child: Child,
    addresses: Vec<SocketAddr>,
    start_line: String,
    directory: tempfile::TempDir,
}

impl Baton {
    /// `baton reverse --to http://ORIGIN`, with two workers and what `flags` add.
    pub fn reverse(origin: SocketAddr, flags: &[&str]) -> Baton {
        let to = format!("http://{origin}");
        Baton::start(&[&in_front_of(&to), flags].concat())
    }

    /// The same, started by another program, such as `prlimit --nofile=64`, that becomes baton.
    pub fn reverse_by(program: &[&str], origin: SocketAddr, flags: &[&str]) -> Baton {
        let to = format!("http://{origin}");
        Baton::start_by(program, &[&in_front_of(&to), flags].concat())
    }

    /// The same with another environment variable.
    pub fn reverse_with(variable: (&str, &str), origin: SocketAddr, flags: &[&str]) -> Baton {
        let to = format!("http://{origin}");
        Baton::start_with(variable, &[&in_front_of(&to), flags].concat())
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
        Baton::spawn(Command::new(BATON).args(arguments), arguments)
    }

    /// Started by another program that becomes baton.
    fn start_by(program: &[&str], arguments: &[&str]) -> Baton {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(BATON).args(arguments);
        Baton::spawn(&mut command, arguments).unwrap_or_else(|error| panic!("no start: {error}"))
    }

    /// Started with another environment variable.
    pub fn start_with(variable: (&str, &str), arguments: &[&str]) -> Baton {
        let mut command = Command::new(BATON);
        command.args(arguments).env(variable.0, variable.1);
        Baton::spawn(&mut command, arguments).unwrap_or_else(|error| panic!("no start: {error}"))
    }

    fn spawn(command: &mut Command, arguments: &[&str]) -> Result<Baton, String> {
        let directory = tempfile::tempdir().unwrap();
        // Some tests start it as another user.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(directory.path(), open).unwrap();
        if !command.get_envs().any(|(name, _)| name == "RUST_LOG") {
            command.env_remove("RUST_LOG");
        }
        // Where an instance without a cache directory puts its socket.
        if !command
            .get_envs()
            .any(|(name, _)| name == "XDG_RUNTIME_DIR")
        {
            command.env("XDG_RUNTIME_DIR", directory.path());
        }
        command.env_remove("RUNTIME_DIRECTORY");
        let cache = (!arguments.contains(&"--cache")).then(|| cache_in(directory.path()));
        let in_database = cache
            .as_ref()
            .is_some_and(|cache| cache.starts_with("postgres://"));
        let mut child = command
            .args(if arguments.contains(&"--workers") {
                &[][..]
            } else {
                &["--workers", "2"]
            })
            .arg("--log-dir")
            .arg(directory.path())
            .args(cache.iter().flat_map(|cache| ["--cache", cache]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (say, stderr) = mpsc::channel();
        let pipe = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                // Read to the end, also when nobody listens any more: the pipe must not break.
                let _ = say.send(line);
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
                    let baton = Baton {
                        child,
                        addresses,
                        start_line: line,
                        directory,
                    };
                    if in_database {
                        baton.wait_for_database();
                    }
                    return Ok(baton);
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

    /// Until all its processes say that they use it: before, they do without a cache.
    fn wait_for_database(&self) {
        let workers = (0..self.workers().len()).map(|n| format!("worker-{n}.log"));
        let connected = "the database is connected to";
        let mut wanted: Vec<_> = workers.map(|log| (log, connected)).collect();
        wanted.push(("janitor.log".into(), "what other nodes change is heard of"));
        for (log, line) in wanted {
            eventually("the database is used", || {
                self.log(&log).contains(line).then_some(())
            });
        }
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

    /// Process id of the janitor.
    pub fn janitor(&self) -> i32 {
        eventually("there is a janitor", || {
            children(self.master())
                .into_iter()
                .find(|pid| title(*pid) == "baton: janitor")
        })
    }

    pub fn signal(&self, pid: i32, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &pid.to_string()])
            .status()
            .unwrap();
        assert!(status.success(), "kill -{name} {pid}");
    }

    /// Ends it in order.
    pub fn stop(mut self) {
        self.signal(self.master(), "TERM");
        assert_eq!(self.wait().code(), Some(0));
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

    /// Which of the processes have the server's end of this client's connection open, by process id; the master
    /// comes first.
    pub fn holders(&self, client: &Client) -> Vec<i32> {
        let (from, to) = (
            client.stream.local_addr().unwrap().port(),
            client.stream.peer_addr().unwrap().port(),
        );
        let sockets = tcp_sockets();
        let Some(socket) = sockets
            .iter()
            .find(|socket| (socket.local, socket.remote) == (to, from))
        else {
            return Vec::new();
        };
        let processes = [vec![self.master()], self.workers()].concat();
        processes
            .into_iter()
            .filter(|pid| has_socket(*pid, socket.inode))
            .collect()
    }

    /// Waits until nobody but the master has this client's connection.
    pub fn wait_until_parked(&self, client: &Client) {
        eventually("the connection is back with the master", || {
            (self.holders(client) == [self.master()]).then_some(())
        });
    }

    /// Waits until a worker alone has this client's connection, and says which (by process id).
    pub fn wait_until_served(&self, client: &Client) -> i32 {
        eventually("a worker has the connection", || {
            match self.holders(client)[..] {
                [pid] if pid != self.master() => Some(pid),
                _ => None,
            }
        })
    }

    // === logs

    pub fn log_path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
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
}

fn in_front_of(to: &str) -> [&str; 5] {
    ["reverse", "--to", to, "--listen", "127.0.0.1:0"]
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
                "janitor.log",
                "worker-0.log",
                "worker-1.log",
                "janitor.log",
                "access-0.log",
                "access-1.log",
            ] {
                eprintln!("--- {name}\n{}", self.log(name));
            }
        }
    }
}

/// Where an instance under test keeps responses: a directory of its own, or what `BATON_TEST_CACHE` says; `postgres` is a
/// schema of its own in a server that all of them share.
fn cache_in(directory: &std::path::Path) -> String {
    match std::env::var("BATON_TEST_CACHE") {
        Ok(kind) if kind == "postgres" => {
            static NUMBER: AtomicUsize = AtomicUsize::new(0);
            let name = format!("t{}", NUMBER.fetch_add(1, SeqCst));
            shared().url_of_schema(&name)
        }
        Ok(kind) => kind,
        Err(_) => format!("dir:{}", directory.join("cache").display()),
    }
}

fn shared() -> &'static PostgresServer {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    SERVER.get_or_init(|| PostgresServer::start_with(&["max_connections=400"]))
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

/// Whether the process has ended. One that nobody has waited for yet is a zombie.
pub fn has_ended(pid: i32) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let state = text.rsplit(") ").next().unwrap_or_default();
    state.starts_with(['Z', 'X'])
}

/// Processor time used so far, user and system.
pub fn cpu_time(pid: i32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    // utime and stime are fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms.
    let ticks: u64 = fields[11..13]
        .iter()
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// A TCP socket of this machine, as /proc/net/tcp lists it.
pub struct TcpSocket {
    pub local: u16,
    pub remote: u16,
    pub listens: bool,
    pub inode: u64,
}

pub fn tcp_sockets() -> Vec<TcpSocket> {
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port =
        |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap(), 16).unwrap();
    text.lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            TcpSocket {
                local: port(fields[1]),
                remote: port(fields[2]),
                listens: fields[3] == "0A",
                inode: fields[9].parse().unwrap(),
            }
        })
        .collect()
}

pub fn has_socket(pid: i32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|link| link == *wanted))
}
