//! A PostgreSQL server of a test's own: on a Unix socket in a temporary folder, as an unprivileged user, without fsync, gone
//! with the test. Unit tests use this file as well.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that starting or stopping may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct PostgresServer {
    directory: PathBuf,
    /// Holds its standard input: when that is closed, by whatever end of this process, the server ends and the folder goes.
    keeper: Option<Child>,
    user: Option<(u32, u32)>,
    arguments: Vec<String>,
    /// What its socket is called by, too.
    port: u16,
}

impl PostgresServer {
    pub fn start() -> PostgresServer {
        PostgresServer::start_with(&[])
    }

    /// With further settings, as `max_connections=20`.
    pub fn start_with(settings: &[&str]) -> PostgresServer {
        let user = unprivileged();
        let mut server = PostgresServer {
            directory: folder(user),
            keeper: None,
            user,
            port: 5432,
            arguments: settings
                .iter()
                .flat_map(|it| ["-c".to_owned(), (*it).to_owned()])
                .collect(),
        };
        let made = server
            .command(&binary("initdb"))
            .args([
                "--no-sync",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "-U",
                "baton",
                "-D",
            ])
            .arg(server.data())
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        server.run();
        server
    }

    /// One that follows this one, and may be read only until `SELECT pg_promote()`.
    pub fn standby(&self) -> PostgresServer {
        let standby = PostgresServer {
            directory: folder(self.user),
            keeper: None,
            user: self.user,
            arguments: self.arguments.clone(),
            port: self.port,
        };
        let copied = standby
            .command(&binary("pg_basebackup"))
            .args([
                "--no-sync",
                "--checkpoint=fast",
                "--write-recovery-conf",
                "-U",
                "baton",
            ])
            .args(["-p", &self.port.to_string(), "-h"])
            .arg(&self.directory)
            .arg("-D")
            .arg(standby.data())
            .output()
            .unwrap();
        assert!(
            copied.status.success(),
            "pg_basebackup: {}",
            String::from_utf8_lossy(&copied.stderr)
        );
        let mut standby = standby;
        standby.run();
        standby
    }

    /// Over TCP and TLS alone, where the password is wanted: the port, and the file with the certificate that its own is signed by.
    pub fn with_tls(password: &str) -> (PostgresServer, u16, PathBuf) {
        let mut server = PostgresServer::start();
        server.execute(&format!("ALTER ROLE baton PASSWORD '{password}'"));
        server.stop();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let script = "umask 077; cd \"$0\" && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -keyout ca.key -out ca.pem \
            && openssl req -newkey rsa:2048 -nodes -subj /CN=db -keyout data/server.key -out db.csr \
            && echo subjectAltName=IP:127.0.0.1 >ext && openssl x509 -req -in db.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
            -extfile ext -out data/server.crt && chmod 644 ca.pem \
            && printf 'local all all trust\\nhostssl all all 127.0.0.1/32 scram-sha-256\\n' >data/pg_hba.conf";
        let mut command = server.command(Path::new("/bin/sh"));
        let made = command
            .args(["-c", script])
            .arg(&server.directory)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "openssl: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        for setting in [
            "ssl=on".to_owned(),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
        ] {
            server.arguments.extend(["-c".to_owned(), setting]);
        }
        server.port = port;
        server.run();
        let roots = server.directory.join("ca.pem");
        (server, port, roots)
    }

    /// Starts it, after `stop`.
    pub fn run(&mut self) {
        assert!(self.keeper.is_none(), "it runs");
        let log = self.directory.join("log");
        let script = "folder=$1; shift; \"$@\" >>\"$folder/log\" 2>&1 & server=$!; read _; \
            kill -CONT $server 2>&-; kill -QUIT $server 2>&-; wait $server; [ -e \"$folder/stopped\" ] || rm -rf \"$folder\"";
        let _ = std::fs::remove_file(self.directory.join("stopped"));
        let mut command = self.command(Path::new("/bin/sh"));
        command
            .args(["-c", script, "sh"])
            .arg(&self.directory)
            .arg(binary("postgres"));
        command
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(&self.directory);
        for setting in [
            "listen_addresses=",
            "fsync=off",
            "full_page_writes=off",
            "shared_buffers=32MB",
            "unix_socket_permissions=0777",
        ] {
            command.args(["-c", setting]);
        }
        let keeper = command
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        self.keeper = Some(keeper);
        let until = Instant::now() + PATIENCE;
        while let Err(error) =
            apart(|| postgres::Client::connect(&self.url(), postgres::NoTls).map(drop))
        {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            assert!(
                Instant::now() < until,
                "PostgreSQL does not start: {error}\n{log}"
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Ends it at once; the data stay.
    pub fn stop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            std::fs::write(self.directory.join("stopped"), []).unwrap();
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }

    pub fn url(&self) -> String {
        self.url_with("")
    }

    /// Of a schema of its own, which is made.
    pub fn url_of_schema(&self, schema: &str) -> String {
        self.execute(&format!("CREATE SCHEMA IF NOT EXISTS {schema}"));
        self.url_with(&format!("&options=-csearch_path%3D{schema}"))
    }

    /// Of this one and another one, whichever may be written to.
    pub fn url_or(&self, other: &PostgresServer) -> String {
        let hosts = [self, other].map(|server| {
            let socket = server.directory.display().to_string().replace('/', "%2F");
            format!("{socket}:{}", server.port)
        });
        let hosts = hosts.join(",");
        format!(
            "postgres://baton@{hosts}/postgres?connect_timeout=5&target_session_attrs=read-write"
        )
    }

    fn url_with(&self, more: &str) -> String {
        let socket = self.directory.display().to_string().replace('/', "%2F");
        let port = self.port;
        format!("postgres://baton@{socket}:{port}/postgres?connect_timeout=5{more}")
    }

    pub fn execute(&self, sql: &str) {
        self.try_execute(sql).unwrap();
    }

    pub fn try_execute(&self, sql: &str) -> Result<(), postgres::Error> {
        apart(|| postgres::Client::connect(&self.url(), postgres::NoTls)?.batch_execute(sql))
    }

    /// The one number that a query gives.
    pub fn number(&self, sql: &str) -> i64 {
        apart(|| {
            let mut client = postgres::Client::connect(&self.url(), postgres::NoTls).unwrap();
            client.query_one(sql, &[]).unwrap().get(0)
        })
    }

    /// Where its socket and its data are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The first process of it.
    pub fn pid(&self) -> i32 {
        let mut text = String::new();
        std::fs::File::open(self.data().join("postmaster.pid"))
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        text.lines().next().unwrap().parse().unwrap()
    }

    /// Sends a signal to all its processes.
    pub fn signal_all(&self, signal: &str) {
        let first = self.pid();
        let children =
            std::fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap();
        let all = std::iter::once(first.to_string())
            .chain(children.split_whitespace().map(str::to_owned));
        let sent = Command::new("kill")
            .arg(format!("-{signal}"))
            .args(all)
            .stderr(Stdio::null())
            .status();
        sent.unwrap();
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").env("LC_ALL", "C").env("TZ", "UTC");
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A new one, which a server may have for itself.
fn folder(user: Option<(u32, u32)>) -> PathBuf {
    let folder = tempfile::Builder::new().prefix("pg").tempdir();
    let folder = folder.unwrap().keep();
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(&folder, open).unwrap();
    if let Some((uid, gid)) = user {
        std::os::unix::fs::chown(&folder, Some(uid), Some(gid)).unwrap();
    }
    folder
}

/// A client that blocks may not do so on the thread of a runtime.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// Whom PostgreSQL runs as, where this is root, whom it refuses.
fn unprivileged() -> Option<(u32, u32)> {
    if number(&["-u"]) != Some(0) {
        return None;
    }
    let of = |user: &str| Some((number(&["-u", user])?, number(&["-g", user])?));
    Some(
        of("postgres")
            .or_else(|| of("nobody"))
            .expect("a user named postgres, or nobody"),
    )
}

fn number(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

fn binary(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<PathBuf> = versions
        .map(|version| version.path().join("bin").join(name))
        .collect();
    found.retain(|path| path.exists());
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|path| path.exists());
    found.pop().or(in_path).unwrap_or_else(|| {
        panic!("{name} is neither in /usr/lib/postgresql/*/bin nor in $PATH: install PostgreSQL's server, as `apt-get install postgresql`")
    })
}
