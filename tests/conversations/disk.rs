//! The disk store as clients see it: what it serves, and what becomes of them when the disk fails.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::origin::{answer, ok};
use crate::support::{Baton, Client, Origin, eventually};

const FRESH: &str = "Cache-Control: max-age=3600\r\n";
const SIZES: [usize; 7] = [0, 1, 40_000, 262_144, 262_145, 1_000_000, 9_000_000];

/// A body that is unlike every other of its length.
fn body_of(target: &str, length: usize) -> Vec<u8> {
    let seed = target
        .bytes()
        .fold(7u8, |sum, octet| sum.wrapping_mul(31).wrapping_add(octet));
    (0..length).map(|n| (n % 251) as u8 ^ seed).collect()
}

/// Says `/N` or `/N?…` in N octets that may be kept.
fn sized() -> Origin {
    Origin::start(|request| {
        let path = request.target.split('?').next().unwrap();
        let length = path[1..].parse().unwrap_or(10);
        let tag = format!(
            "{FRESH}ETag: \"{length}\"\r\nLast-Modified: Thu, 01 Jan 2015 00:00:00 GMT\r\n"
        );
        ok(&tag, body_of(&request.target, length))
    })
}

fn flag(path: &Path) -> String {
    format!("dir:{}", path.display())
}

/// One worker, and no copies in memory: every hit is the disk's.
fn plain(origin: &Origin, path: &Path, more: &[&str]) -> Baton {
    let flag = flag(path);
    let flags = [
        "--cache",
        &flag,
        "--set",
        "cache.memory=0",
        "--workers",
        "1",
    ];
    Baton::reverse(origin.address(), &[&flags, more].concat())
}

/// The files of objects: heads, or bodies that are apart.
fn files(cache: &Path, bodies: bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in fs::read_dir(cache.join("objects")).unwrap().flatten() {
        let files = fs::read_dir(directory.path()).unwrap().flatten();
        let paths = files.map(|file| file.path());
        found.extend(paths.filter(|file| file.extension().is_some() == bodies));
    }
    found
}

fn head_file(cache: &Path) -> PathBuf {
    let mut found = files(cache, false);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn bodies_of_every_size_come_back_as_they_were() {
    let origin = sized();
    let temporary = tempfile::tempdir().unwrap();
    let cache = temporary.path().join("cache");
    for open_files in ["cache.open_files=0", "cache.open_files=64"] {
        let baton = plain(&origin, &cache, &["--set", open_files]);
        let mut client = baton.client();
        for round in 0..3 {
            for size in SIZES {
                let target = format!("/{size}");
                let response = client.get(&target);
                assert!(
                    response.body == body_of(&target, size),
                    "{target} in round {round}"
                );
                let length = response.field("content-length");
                assert_eq!(length.as_deref(), Some(&*size.to_string()));
                assert!(round == 0 || response.is_hit(), "{}", response.head);
                let condition = format!("If-None-Match: \"{size}\"\r\n");
                let unchanged = client.get_with(&target, &condition);
                assert_eq!((unchanged.status, unchanged.is_hit()), (304, true));
                client.send(format!("HEAD {target} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
                let head = client.response_to("HEAD");
                assert_eq!(head.field("content-length"), length);
            }
        }
    }
    assert!(
        SIZES
            .iter()
            .all(|size| origin.count(&format!("/{size}")) == 1)
    );
}

/// Octets of a body that is too large to be checked as a whole before it is served.
const LARGE: usize = 20_000_000;

fn stored(client: &mut Client, target: &str) {
    client.get(target);
    until_stored(client, target);
}

#[test]
fn a_damaged_body_too_large_to_be_checked_before_is_fetched_again() {
    let (origin, temporary) = (sized(), tempfile::tempdir().unwrap());
    let cache = temporary.path().join("cache");
    let baton = plain(&origin, &cache, &["--set", "cache.open_files=0"]);
    let (mut client, target) = (baton.client(), format!("/{LARGE}"));
    stored(&mut client, &target);
    let (body, asked) = (files(&cache, true).remove(0), origin.requests().len());
    let mut octets = fs::read(&body).unwrap();
    octets[0] ^= 1;
    fs::write(&body, octets).unwrap();
    // Nothing has left when the first block turns out to be wrong: the client never knows.
    let response = client.get(&target);
    assert!(response.body == body_of(&target, LARGE) && !response.is_hit());
    assert_eq!(origin.requests().len(), asked + 1);
    until_stored(&mut client, &target);
}

#[test]
fn a_large_body_that_was_touched_is_read_once_and_then_trusted() {
    let (origin, temporary) = (sized(), tempfile::tempdir().unwrap());
    let cache = temporary.path().join("cache");
    let baton = plain(&origin, &cache, &["--set", "cache.open_files=0"]);
    let (mut client, target) = (baton.client(), format!("/{LARGE}"));
    stored(&mut client, &target);
    let body = files(&cache, true).remove(0);
    let head = body.with_extension("");
    let before = fs::read(&head).unwrap();
    let file = File::options().write(true).open(&body).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    let hit = |client: &mut Client| {
        let response = client.get(&target);
        assert!(response.is_hit() && response.body == body_of(&target, LARGE));
    };
    hit(&mut client);
    // The head says from then on that the body is right as it is.
    let after = eventually("it is remembered", || {
        let now = fs::read(&head).unwrap();
        (now != before).then_some(now)
    });
    hit(&mut client);
    assert!(fs::read(&head).unwrap() == after && files(&cache, true) == [body]);
}

#[test]
fn large_hits_leave_while_others_are_served_and_may_be_given_up() {
    let origin = sized();
    let temporary = tempfile::tempdir().unwrap();
    let baton = plain(&origin, &temporary.path().join("cache"), &[]);
    let target = "/9000000";
    baton.client().get(target);
    // One that does not read holds nobody up, and one that leaves harms nobody.
    let mut lazy = baton.client();
    lazy.send(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
    let mut leaving = baton.client();
    leaving.send(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
    drop(leaving);
    for _ in 0..3 {
        assert!(baton.client().get(target).body == body_of(target, 9_000_000));
    }
    let late = lazy.response_to("GET");
    assert!(late.is_hit() && late.body == body_of(target, 9_000_000));
}

#[test]
fn pipelined_hits_of_all_sizes_keep_their_order() {
    let origin = sized();
    let temporary = tempfile::tempdir().unwrap();
    let baton = plain(&origin, &temporary.path().join("cache"), &[]);
    let mut client = baton.client();
    for size in SIZES {
        client.get(&format!("/{size}"));
    }
    let requests: String = SIZES
        .iter()
        .map(|size| format!("GET /{size} HTTP/1.1\r\nHost: a.example\r\n\r\n"))
        .collect();
    client.send(requests);
    for size in SIZES {
        let response = client.response_to("GET");
        assert!(response.is_hit() && response.body == body_of(&format!("/{size}"), size));
    }
}

/// A lease that another process holds on a file is a disk that does not answer.
#[test]
fn a_slow_disk_keeps_only_those_waiting_who_ask_it() {
    let origin = sized();
    let temporary = tempfile::tempdir().unwrap();
    let cache = temporary.path().join("cache");
    let baton = plain(&origin, &cache, &["--set", "cache.open_files=0"]);
    baton.client().get("/10?slow");
    let file = File::options().write(true).open(head_file(&cache)).unwrap();
    assert!(lease(&file), "{}", std::io::Error::last_os_error());
    let mut waiting = baton.client();
    waiting.send("GET /10?slow HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let began = Instant::now();
    let mut other = baton.client();
    for n in 0..50 {
        let target = format!("/10?{n}");
        assert!(other.get(&target).body == body_of(&target, 10));
        assert!(other.get(&target).is_hit());
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    drop(file);
    // It has been served from the disk if that was soon enough, and by the origin if not.
    assert!(waiting.response_to("GET").body == body_of("/10?slow", 10));
}

#[expect(unsafe_code, reason = "no crate wraps leases")]
fn lease(file: &File) -> bool {
    // SAFETY: commands with a number each, on a descriptor that is open.
    unsafe {
        let taken = libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) == 0;
        // The signal that asks for it back would end this process.
        taken && libc::fcntl(file.as_raw_fd(), libc::F_SETOWN, 0) == 0
    }
}

/// Stores as soon as it can again.
fn until_stored(client: &mut Client, what: &str) {
    let mut n = 0;
    eventually(what, || {
        n += 1;
        let target = format!("/50?{what}-{n}");
        client.get(&target);
        client.get(&target).is_hit().then_some(())
    });
}

fn warnings(baton: &Baton) -> Vec<String> {
    let log = baton.log("worker-0.log");
    let lines = log
        .lines()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_directory_that_is_deleted_costs_nobody_a_response() {
    let origin = sized();
    let temporary = tempfile::tempdir().unwrap();
    let cache = temporary.path().join("cache");
    let baton = plain(&origin, &cache, &[]);
    let mut client = baton.client();
    client.get("/50?before");
    // The janitor may be adding something just then.
    eventually("it is gone", || fs::remove_dir_all(&cache).ok());
    for n in 0..20 {
        let target = format!("/{}?{n}", n * 100_000);
        assert!(
            client.get(&target).body == body_of(&target, n * 100_000),
            "{target}"
        );
    }
    until_stored(&mut client, "deleted");
    let warned = warnings(&baton);
    assert!(warned.len() <= 1, "{warned:#?}");
}

/// Not the superuser, to whom rights mean nothing.
fn as_nobody(cache: &Path, origin: &Origin) -> Baton {
    let flag = flag(cache);
    let flags = [
        "--cache",
        &flag,
        "--set",
        "cache.memory=0",
        "--workers",
        "1",
    ];
    // The build's own folder may be closed to others.
    let program = cache.with_file_name("baton");
    fs::copy(crate::support::baton::BATON, &program).unwrap();
    let script = format!("shift; exec {} \"$@\"", program.display());
    let become_nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let by = [&become_nobody[..], &["sh", "-c", &script, "sh"]].concat();
    Baton::reverse_by(&by, origin.address(), &flags)
}

fn mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_directory_that_becomes_read_only_costs_nobody_a_response() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let origin = sized();
    let temporary = tempfile::tempdir().unwrap();
    mode(temporary.path(), 0o777);
    let cache = temporary.path().join("cache");
    let baton = as_nobody(&cache, &origin);
    let mut client = baton.client();
    until_stored(&mut client, "before");
    let parts = [cache.join("aside"), cache.join("objects")];
    parts.iter().for_each(|part| mode(part, 0o500));
    for n in 0..20 {
        let target = format!("/{}?{n}", n * 50_000);
        assert!(
            client.get(&target).body == body_of(&target, n * 50_000),
            "{target}"
        );
    }
    assert_eq!(warnings(&baton).len(), 1, "{:#?}", warnings(&baton));
    parts.iter().for_each(|part| mode(part, 0o700));
    until_stored(&mut client, "read-only");
    let mut n = 0;
    eventually("it is said once that it works again", || {
        n += 1;
        client.get(&format!("/50?again-{n}"));
        (baton.log("worker-0.log").matches("works again").count() == 1).then_some(())
    });
}

#[test]
fn a_directory_of_somebody_else_is_refused_at_the_start_and_survived_later() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let origin = sized();
    let temporary = tempfile::tempdir().unwrap();
    mode(temporary.path(), 0o777);
    let cache = temporary.path().join("cache");
    let baton = as_nobody(&cache, &origin);
    let mut client = baton.client();
    until_stored(&mut client, "before");
    let parts = ["", "aside", "objects"].map(|part| cache.join(part));
    let give = |owner: u32| {
        for part in &parts {
            std::os::unix::fs::chown(part, Some(owner), None).unwrap();
        }
    };
    give(0);
    for n in 0..20 {
        let target = format!("/{}?{n}", n * 50_000);
        assert!(
            client.get(&target).body == body_of(&target, n * 50_000),
            "{target}"
        );
    }
    give(65534);
    until_stored(&mut client, "owner");
    drop(baton);
    give(1);
    let to = format!("http://{}", origin.address());
    let refused = Baton::try_start(&[
        "reverse",
        "--to",
        &to,
        "--listen",
        "127.0.0.1:0",
        "--cache",
        &flag(&cache),
    ]);
    let error = refused.err().unwrap();
    assert!(
        error.contains("belongs to user 1") && error.contains("--cache dir:"),
        "{error}"
    );
}

/// A file system of 8 MiB, gone with the namespace that it is mounted in.
#[test]
fn a_full_disk_costs_nobody_a_response() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let origin = sized();
    let temporary = tempfile::tempdir().unwrap();
    let disk = temporary.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=8m none {0} && exec \"$@\"",
        disk.display()
    );
    let flag = flag(&disk.join("cache"));
    let flags = [
        "--cache",
        &flag,
        "--workers",
        "1",
        "--set",
        "cache.memory=0",
        "--set",
        "cache.max_size=1GiB",
        "--set",
        "cache.min_free=1",
    ];
    let program = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let baton = Baton::reverse_by(&program, origin.address(), &flags);
    // As the processes see it.
    let seen = PathBuf::from(format!("/proc/{}/root", baton.master()))
        .join(disk.strip_prefix("/").unwrap());
    let mut client = baton.client();
    until_stored(&mut client, "before");
    let full = seen.join("full");
    let fill = || {
        let mut ballast = File::create(&full).unwrap();
        while std::io::Write::write_all(&mut ballast, &[0; 4096]).is_ok() {}
    };
    fill();
    for n in 0..40 {
        let target = format!("/{}?{n}", n * 30_000);
        assert!(
            client.get(&target).body == body_of(&target, n * 30_000),
            "{target}"
        );
    }
    assert!(warnings(&baton).len() <= 2, "{:#?}", warnings(&baton));
    fs::remove_file(&full).unwrap();
    until_stored(&mut client, "full");
    // And with nothing but the cache itself on it, it stays within what there is.
    for n in 0..60 {
        let target = format!("/300000?more-{n}");
        assert!(
            client.get(&target).body == body_of(&target, 300_000),
            "{target}"
        );
    }
}

#[test]
fn purge_is_for_those_whom_the_settings_name() {
    let origin = sized();
    let purge = |client: &mut Client, target: &str| {
        client.send(format!(
            "PURGE {target} HTTP/1.1\r\nHost: a.example\r\n\r\n"
        ));
        client.response_to("PURGE").status
    };
    for store in ["memory", ""] {
        let store: &[&str] = if store.is_empty() {
            &[]
        } else {
            &["--cache", store]
        };
        let allowed = ["--set", "access.purge=[\"127.0.0.0/8\"]", "--workers", "1"];
        let baton = Baton::reverse(origin.address(), &[&allowed, store].concat());
        let mut client = baton.client();
        client.get("/300000?x");
        assert!(client.get("/300000?x").is_hit());
        assert_eq!(purge(&mut client, "/300000?x"), 200);
        assert!(!client.get("/300000?x").is_hit());
        assert_eq!(purge(&mut client, "/10?never"), 404);
    }
    // Somebody else may.
    let baton = Baton::reverse(origin.address(), &["--set", "access.purge=[\"192.0.2.1\"]"]);
    let mut client = baton.client();
    client.get("/10?x");
    assert_eq!(purge(&mut client, "/10?x"), 403);
    assert!(client.get("/10?x").is_hit());
    // Nobody may: it is the origin's business.
    let asked = Origin::start(|request| match request.method.as_str() {
        "PURGE" => answer("418 Teapot", "", "mine"),
        _ => ok(FRESH, "x"),
    });
    let baton = Baton::reverse(asked.address(), &[]);
    assert_eq!(purge(&mut baton.client(), "/x"), 418);
}
