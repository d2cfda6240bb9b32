//! `baton cache export` and `import`: a cache goes from one store into another, whole, in use or at rest.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use serde_json::{Value, json};

use crate::support::baton::BATON;
use crate::support::origin::ok;
use crate::support::{Baton, Ended, Origin, PostgresServer, eventually};

const FRESH: &str = "Cache-Control: max-age=600\r\n";

/// More than one block, more than one piece, and neither a multiple of one.
const SIZES: [usize; 5] = [0, 10, 300_000, 1_048_576, 2_700_001];

/// `/size/N` has so many octets, `/vary` is by language.
fn origin() -> Origin {
    Origin::start(|request| {
        if request.target == "/vary" {
            let language = request.field("accept-language").unwrap_or_default();
            return ok(
                "Cache-Control: max-age=600\r\nVary: Accept-Language\r\n",
                language,
            );
        }
        ok(
            "Cache-Control: max-age=600\r\nCache-Tag: moved\r\nETag: \"one\"\r\n",
            content(&request.target),
        )
    })
}

fn content(target: &str) -> Vec<u8> {
    let size = target.rsplit('/').next().and_then(|size| size.parse().ok());
    let seed = target.len();
    (0..size.unwrap_or(100))
        .map(|n: usize| (n / 7 + n % 251 + seed) as u8)
        .collect()
}

fn targets() -> Vec<String> {
    SIZES.iter().map(|size| format!("/size/{size}")).collect()
}

/// A place for directories and archives.
struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Room {
        Room(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn dir(&self, name: &str) -> String {
        format!("dir:{}", self.path(name).display())
    }

    fn archive(&self) -> String {
        self.path("archive").display().to_string()
    }
}

fn cache(store: &str, arguments: &[&str]) -> Ended {
    Ended::of(Command::new(BATON).args([&["cache"], arguments, &["--cache", store]].concat()))
}

/// With `--json`: what it says at its end.
fn said(store: &str, arguments: &[&str]) -> Value {
    let ended = cache(store, &[arguments, &["--json"]].concat());
    assert!(
        ended.code == Some(0) && ended.err.is_empty(),
        "{:?} {}",
        ended.code,
        ended.err
    );
    serde_json::from_str(&ended.out).unwrap()
}

fn start(origin: &Origin, store: &str) -> Baton {
    let memory = ["--set", "cache.memory=0"];
    Baton::reverse(
        origin.address(),
        &[&["--cache", store], &memory[..]].concat(),
    )
}

fn fill(baton: &Baton) {
    for target in targets() {
        is_kept(baton, &target);
    }
    for language in ["de", "en"] {
        eventually("the variant is kept", || {
            let fields = format!("Accept-Language: {language}\r\n");
            let response = baton.client().get_with("/vary", &fields);
            response.is_hit().then_some(())
        });
    }
}

fn is_kept(baton: &Baton, target: &str) {
    eventually(&format!("{target} is kept"), || {
        baton.client().get(target).is_hit().then_some(())
    });
}

/// One that answers nothing right: what is right comes from the cache.
fn nobody() -> Origin {
    Origin::start(|_| ok("Cache-Control: no-store\r\n", "not from the cache"))
}

/// Everything is answered from the cache, octet for octet.
fn found(baton: &Baton) {
    for target in targets() {
        let response = baton.client().get(&target);
        assert!(
            response.is_hit() && response.body == content(&target),
            "{target}"
        );
    }
    for language in ["de", "en"] {
        let fields = format!("Accept-Language: {language}\r\n");
        let response = baton.client().get_with("/vary", &fields);
        assert!(response.is_hit() && response.text() == language);
    }
}

#[test]
fn a_directory_moves_into_another_while_both_are_in_use() {
    let (room, origin, nobody) = (Room::new(), origin(), nobody());
    let one = start(&origin, &room.dir("one"));
    fill(&one);
    let archive = room.archive();
    let exported = said(&room.dir("one"), &["export", &archive]);
    assert_eq!(
        (&exported["objects"], &exported["damaged"]),
        (&json!(7), &json!(0))
    );
    assert_eq!(exported["octets"], SIZES.iter().sum::<usize>() + 4);
    let mode = std::fs::metadata(&archive).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        std::fs::read_dir(room.0.path()).unwrap().count(),
        2,
        "nothing lies beside it"
    );

    let other = start(&nobody, &room.dir("other"));
    // That it has nothing has been seen by its workers.
    assert_eq!(other.client().get("/size/10").text(), "not from the cache");
    let imported = said(&room.dir("other"), &["import", &archive]);
    let all =
        json!({"objects": 7, "octets": exported["octets"], "newer": 0, "no-room": 0, "damaged": 0});
    assert_eq!(imported, all);
    found(&other);
    // The accounts know of it, and so does everything that looks for it.
    let listed = cache(&room.dir("other"), &["ls", "--json", "--tag", "moved"]);
    assert_eq!(listed.out.lines().count(), SIZES.len());
    let (here, there) = (
        said(&room.dir("one"), &["stats"]),
        said(&room.dir("other"), &["stats"]),
    );
    for figure in ["objects", "variants", "lists", "content", "size"] {
        assert_eq!(here[figure], there[figure], "{figure}");
    }
    assert_eq!(said(&room.dir("other"), &["verify"])["damaged"], 0);
    // Once more: nothing is newer.
    let again = said(&room.dir("other"), &["import", &archive]);
    assert_eq!((&again["objects"], &again["newer"]), (&json!(0), &json!(7)));
    assert_eq!(said(&room.dir("other"), &["stats"])["size"], there["size"]);
    let purged = cache(&room.dir("other"), &["purge", "--tag", "moved"]);
    assert!(purged.out.contains("5 responses"), "{}", purged.out);
}

#[test]
fn a_directory_moves_at_rest_through_a_pipe() {
    let (room, origin) = (Room::new(), origin());
    let one = start(&origin, &room.dir("one"));
    fill(&one);
    one.stop();
    let mut export = Command::new(BATON)
        .args(["cache", "export", "--cache", &room.dir("one")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let import = Command::new(BATON)
        .args(["cache", "import", "--cache", &room.dir("new")])
        .stdin(export.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(export.wait().unwrap().success());
    let (out, err) = [&import.stdout, &import.stderr]
        .map(|octets| String::from_utf8_lossy(octets))
        .into();
    assert!(import.status.success(), "{err}");
    assert!(out.contains("7 responses put"), "{out}");
    let listed = cache(&room.dir("new"), &["ls", "--json"]);
    // Responses, and the list that leads to two of them.
    assert_eq!(listed.out.lines().count(), 8, "{}", listed.err);
    let new = start(&nobody(), &room.dir("new"));
    found(&new);
    eventually("the catalogue knows of it", || {
        (said(&room.dir("new"), &["stats"])["objects"] == SIZES.len()).then_some(())
    });
}

#[test]
fn a_cache_moves_into_a_database_and_back() {
    let (room, origin, server) = (Room::new(), origin(), PostgresServer::start());
    let one = start(&origin, &room.dir("one"));
    fill(&one);
    let archive = room.archive();
    let exported = said(&room.dir("one"), &["export", &archive]);
    let refused = cache(&server.url(), &["import", &archive]);
    assert!(
        refused.code == Some(1) && refused.err.contains("baton migrate"),
        "{}",
        refused.err
    );

    let node = start(&nobody(), &server.url());
    eventually("the database is connected to", || {
        let stats = said(&server.url(), &["stats"]);
        (stats["running"] == true).then_some(())
    });
    let imported = said(&server.url(), &["import", &archive]);
    assert_eq!(imported["objects"], 7);
    eventually("the node finds it", || {
        node.client().get("/size/10").is_hit().then_some(())
    });
    found(&node);
    assert_eq!(said(&server.url(), &["verify"])["damaged"], 0);
    let again = said(&server.url(), &["import", &archive]);
    assert_eq!((&again["objects"], &again["newer"]), (&json!(0), &json!(7)));

    let back = room.path("back").display().to_string();
    let exported_again = said(&server.url(), &["export", &back]);
    assert_eq!(exported_again, exported);
    assert_eq!(said(&room.dir("third"), &["import", &back])["objects"], 7);
    found(&start(&nobody(), &room.dir("third")));
}

#[test]
fn what_is_older_is_replaced_and_what_is_newer_stays() {
    let (room, origin, server) = (Room::new(), origin(), PostgresServer::start());
    let stores = [room.dir("two"), server.url()];
    let one = start(&origin, &room.dir("one"));
    is_kept(&one, "/size/10");
    let archive = room.archive();
    said(&room.dir("one"), &["export", &archive]);
    for store in &stores {
        let later = Origin::start(|_| ok("Cache-Control: max-age=600\r\n", "later"));
        let baton = start(&later, store);
        eventually("the node uses its store", || {
            baton.client().get("/size/10").is_hit().then_some(())
        });
        assert_eq!(said(store, &["import", &archive])["newer"], 1);
        assert_eq!(baton.client().get("/size/10").text(), "later");
        // Then what is later is moved back, over what is older: a second lies between.
        let newer = room.path("newer").display().to_string();
        eventually("it is later by a second", || {
            let mut client = baton.client();
            client.get_with("/size/10", "Cache-Control: no-cache\r\n");
            said(store, &["export", &newer]);
            (said(&room.dir("one"), &["import", &newer])["objects"] == 1).then_some(())
        });
        let response = one.client().get("/size/10");
        assert!(response.is_hit() && response.text() == "later");
        said(&room.dir("one"), &["purge", "http://a.example/size/10"]);
        assert_eq!(said(&room.dir("one"), &["import", &archive])["objects"], 1);
        assert!(one.client().get("/size/10").body == content("/size/10"));
    }
}

#[test]
fn what_has_been_purged_softly_arrives_as_stale() {
    let (room, origin, server) = (Room::new(), origin(), PostgresServer::start());
    let one = start(&origin, &room.dir("one"));
    is_kept(&one, "/size/10");
    said(&room.dir("one"), &["purge", "--soft", "--tag", "moved"]);
    let archive = room.archive();
    said(&room.dir("one"), &["export", &archive]);
    for store in [room.dir("two"), server.url()] {
        let two = start(&origin, &store);
        is_kept(&two, "/connected/10");
        said(&store, &["import", &archive]);
        let asked = origin.count("/size/10");
        assert!(two.client().get("/size/10").body == content("/size/10"));
        assert_eq!(origin.count("/size/10"), asked + 1, "it is revalidated");
        assert!(two.client().get("/size/10").is_hit(), "and fresh then");
    }
}

/// An archive that is sent slowly: the first response is there before the last one is read.
#[test]
fn what_happens_while_an_import_runs_is_heeded() {
    let (room, origin, server) = (Room::new(), origin(), PostgresServer::start());
    let one = start(&origin, &room.dir("one"));
    // In the archive's order, whichever that is.
    for n in 0..20 {
        is_kept(&one, &format!("/{n}/size/200000"));
    }
    let archive = room.archive();
    said(&room.dir("one"), &["export", &archive]);
    let octets = std::fs::read(&archive).unwrap();
    for store in [room.dir("two"), server.url()] {
        let later = Origin::start(|_| ok("Cache-Control: max-age=600\r\n", "later"));
        let two = start(&later, &store);
        is_kept(&two, "/connected");
        let mut import = Command::new(BATON)
            .args(["cache", "import", "--json", "--cache", &store])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = import.stdin.take().unwrap();
        let (first, rest) = octets.split_at(octets.len() / 2);
        pipe.write_all(first).unwrap();
        eventually("the first have come", || {
            (said(&store, &["stats"])["objects"].as_u64().unwrap() > 5).then_some(())
        });
        // Something else is purged, and something is fetched that is newer than what the archive has of it.
        assert_eq!(cache(&store, &["purge", "--tag", "nothing"]).code, Some(3));
        let mut newer = 0;
        for n in 0..20 {
            let target = format!("/{n}/size/200000");
            if two.client().get(&target).text() == "later" {
                is_kept(&two, &target);
                newer += 1;
            }
        }
        assert!(newer > 5, "{newer}");
        pipe.write_all(rest).unwrap();
        drop(pipe);
        let ended = import.wait_with_output().unwrap();
        let imported: Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!(
            imported["objects"].as_u64().unwrap() + newer as u64,
            20,
            "{imported}"
        );
        let still = (0..20)
            .filter(|n| two.client().get(&format!("/{n}/size/200000")).text() == "later")
            .count();
        assert_eq!(still, newer);
    }
}

#[test]
fn what_is_damaged_is_left_out_and_said() {
    let (room, origin) = (Room::new(), origin());
    let one = start(&origin, &room.dir("one"));
    fill(&one);
    one.stop();
    // Of the body that has more than one block, in the last one.
    let large = files(&room.path("one").join("objects"))
        .into_iter()
        .find(|path| std::fs::metadata(path).unwrap().len() == 2_700_001)
        .unwrap();
    let mut octets = std::fs::read(&large).unwrap();
    octets[2_690_000] ^= 1;
    std::fs::write(&large, octets).unwrap();
    let archive = room.archive();
    let ended = cache(&room.dir("one"), &["export", &archive]);
    assert_eq!(ended.code, Some(4), "{}", ended.err);
    assert!(ended.out.contains("6 responses written"), "{}", ended.out);
    assert!(ended.out.contains("1 response damaged"), "{}", ended.out);
    let imported = said(&room.dir("two"), &["import", &archive]);
    assert_eq!(
        (&imported["objects"], &imported["damaged"]),
        (&json!(6), &json!(1))
    );
    assert!(files(&room.path("two").join("aside")).is_empty());
}

#[test]
fn an_archive_that_is_none_or_not_all_is_refused_with_the_reason() {
    let (room, origin, server) = (Room::new(), origin(), PostgresServer::start());
    let one = start(&origin, &room.dir("one"));
    fill(&one);
    let archive = room.archive();
    said(&room.dir("one"), &["export", &archive]);
    let whole = std::fs::read(&archive).unwrap();
    let migrated = Ended::of(Command::new(BATON).args(["migrate", "--cache", &server.url()]));
    assert_eq!(migrated.code, Some(0));
    let running = start(&origin, &room.dir("two"));
    for store in [room.dir("two"), room.dir("three"), server.url()] {
        for (octets, why) in [
            (&b"hello"[..], "no archive of a cache"),
            (&whole[..whole.len() - 1], "the rest is missing"),
            (&whole[..whole.len() / 2], "the rest is missing"),
        ] {
            std::fs::write(&archive, octets).unwrap();
            let ended = cache(&store, &["import", &archive]);
            assert!(
                ended.code == Some(1) && ended.err.contains(why),
                "{store}: {}",
                ended.err
            );
        }
        let directory = cache(&store, &["import", room.0.path().to_str().unwrap()]);
        let why = "the archive cannot be read: Is a directory (os error 21)\n";
        assert!(directory.err.ends_with(why), "{}", directory.err);
        assert_eq!(directory.err.matches("os error").count(), 1);
        let missing = cache(&store, &["import", "/nowhere/archive"]);
        assert!(
            missing.err.contains("/nowhere/archive cannot be read"),
            "{}",
            missing.err
        );
    }
    let nowhere = cache(&room.dir("one"), &["export", "/nowhere/archive"]);
    assert!(
        nowhere.err.contains("/nowhere/archive cannot be written"),
        "{}",
        nowhere.err
    );
    assert_eq!(said(&room.dir("two"), &["verify"])["damaged"], 0);
    drop(running);
    let memory = Baton::reverse(
        origin.address(),
        &[
            "--cache",
            "memory",
            "--set",
            &format!("control.socket={}", room.path("s").display()),
        ],
    );
    let socket = room.path("s").display().to_string();
    let asked = eventually("the socket is there", || {
        let arguments = ["cache", "export", &archive, "--control", &socket];
        let ended = Ended::of(Command::new(BATON).args(arguments));
        (!ended.err.contains("no instance")).then_some(ended)
    });
    assert!(asked.err.contains("in memory alone"), "{}", asked.err);
    drop(memory);
}

#[test]
fn where_there_is_no_room_the_rest_is_left_out() {
    let (room, origin) = (Room::new(), origin());
    let one = start(&origin, &room.dir("one"));
    fill(&one);
    let archive = room.archive();
    said(&room.dir("one"), &["export", &archive]);
    let flags = ["--cache", &room.dir("two"), "--set", "cache.max_size=2MiB"];
    let two = Baton::reverse(origin.address(), &flags);
    let ended = cache(&room.dir("two"), &["import", &archive, "--json"]);
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    let imported: Value = serde_json::from_str(&ended.out).unwrap();
    assert!(imported["no-room"].as_u64().unwrap() >= 1, "{imported}");
    let size = said(&room.dir("two"), &["stats"])["size"].as_u64().unwrap();
    assert!(size <= 2 << 20, "{size}");
    // What was reserved for it is free again.
    is_kept(&two, "/size/10");
}

#[test]
fn a_directory_at_rest_takes_no_more_than_its_settings_say() {
    let (room, origin) = (Room::new(), origin());
    let one = start(&origin, &room.dir("one"));
    fill(&one);
    let archive = room.archive();
    said(&room.dir("one"), &["export", &archive]);
    let settings = room.path("proxy.conf");
    let text = format!(
        "[cache]\nstore = {:?}\nmax_size = \"2MiB\"\n",
        room.dir("two")
    );
    std::fs::write(&settings, text).unwrap();
    let import = |arguments: &[&str]| {
        let named = [
            "cache",
            "import",
            &archive,
            "-c",
            settings.to_str().unwrap(),
        ];
        Ended::of(Command::new(BATON).args([&named, arguments].concat()))
    };
    let stats = || said(&room.dir("two"), &["stats"]);
    let ended = import(&["--json"]);
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    let imported: Value = serde_json::from_str(&ended.out).unwrap();
    let count = |name: &str| imported[name].as_u64().unwrap();
    assert!(count("objects") >= 1 && count("no-room") >= 1, "{imported}");
    assert_eq!(count("objects") + count("no-room"), 7);
    let (objects, size) = (
        stats()["objects"].clone(),
        stats()["size"].as_u64().unwrap(),
    );
    assert!(size <= 2 << 20, "{size}");
    // The next instance has nothing to throw out.
    let flags = ["--cache", &room.dir("two"), "--set", "cache.max_size=2MiB"];
    let two = Baton::reverse(origin.address(), &flags);
    eventually("all of it is counted", || {
        let now = stats();
        (now["catalogue"] == "complete" && now["objects"] == objects).then_some(())
    });
    two.stop();
    // Once more, without a catalogue that says what there is.
    for part in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(room.path("two").join(format!("catalogue.sqlite{part}")));
    }
    let again = import(&[]);
    assert_eq!(again.code, Some(1));
    assert!(again.out.contains("no more room"), "{}", again.out);
}

#[test]
fn over_http_an_archive_is_the_body() {
    let (room, origin) = (Room::new(), origin());
    let one = start(&origin, &room.dir("one"));
    let two = start(&nobody(), &room.dir("two"));
    fill(&one);
    let ask = |name: &str, request: &[u8]| {
        let socket = room.path(name).join("control");
        let mut stream = eventually("somebody listens", || UnixStream::connect(&socket).ok());
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    };
    let answer = ask("one", b"GET /cache/export HTTP/1.0\r\n\r\n");
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap()
        + 4;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    assert!(
        head.starts_with("HTTP/1.1 200") && head.contains("octet-stream"),
        "{head}"
    );
    let archive = &answer[end..];
    let length = archive.len();
    let framed = [
        format!("POST /cache/import HTTP/1.1\r\nHost: b\r\nContent-Length: {length}\r\n\r\n")
            .into_bytes(),
        archive.to_vec(),
    ]
    .concat();
    let said = String::from_utf8(ask("two", &framed)).unwrap();
    assert!(said.contains("\"objects\":7"), "{said}");
    found(&two);

    let mut chunked =
        b"POST /cache/import HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in archive.chunks(70_001) {
        write!(chunked, "{:x}\r\n", chunk.len()).unwrap();
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let said = String::from_utf8(ask("two", &chunked)).unwrap();
    assert!(said.contains("\"newer\":7"), "{said}");

    let none = b"POST /cache/import HTTP/1.1\r\nHost: b\r\nContent-Length: 5\r\n\r\nhello";
    let said = String::from_utf8(ask("two", none)).unwrap();
    assert!(
        said.starts_with("HTTP/1.1 400") && said.contains("no archive"),
        "{said}"
    );
}

fn files(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| match entry.path().is_dir() {
            true => files(&entry.path()),
            false => vec![entry.path()],
        })
        .collect()
}

/// An archive with a variant must not do away with a newer response that has none.
#[test]
fn an_older_variant_does_not_replace_what_needs_none_any_more() {
    let (room, origin) = (Room::new(), origin());
    let one = start(&origin, &room.dir("one"));
    fill(&one);
    let archive = room.archive();
    said(&room.dir("one"), &["export", &archive]);
    let plain = Origin::start(|_| ok("Cache-Control: max-age=600\r\n", "for all"));
    let two = start(&plain, &room.dir("two"));
    is_kept(&two, "/vary");
    assert_eq!(said(&room.dir("two"), &["import", &archive])["newer"], 2);
    let response = two.client().get_with("/vary", "Accept-Language: de\r\n");
    assert!(response.is_hit() && response.text() == "for all");
}

/// What nothing selects, beside variants that were there before.
#[test]
fn an_older_response_without_vary_does_not_replace_a_newer_one() {
    let (room, plain) = (Room::new(), Origin::start(|_| ok(FRESH, "older")));
    let one = start(&plain, &room.dir("one"));
    is_kept(&one, "/vary");
    let archive = room.archive();
    said(&room.dir("one"), &["export", &archive]);
    let varies = Arc::new(AtomicBool::new(true));
    let own = varies.clone();
    let origin = Origin::start(move |_| match own.load(SeqCst) {
        true => ok(&format!("{FRESH}Vary: Accept-Language\r\n"), "varies"),
        false => ok(FRESH, "newer"),
    });
    let two = start(&origin, &room.dir("two"));
    is_kept(&two, "/vary");
    varies.store(false, SeqCst);
    let ask = || two.client().get_with("/vary", "Accept-Language: de\r\n");
    eventually("another one is kept beside it", || {
        let response = ask();
        (response.is_hit() && response.text() == "newer").then_some(())
    });
    assert_eq!(said(&room.dir("two"), &["import", &archive])["newer"], 1);
    assert_eq!(ask().text(), "newer");
}

/// Half an archive is none, and a reader who has gone is no success.
#[test]
fn an_export_that_nobody_reads_fails_and_a_pipe_stays_one() {
    let (room, origin) = (Room::new(), origin());
    let one = start(&origin, &room.dir("one"));
    fill(&one);
    // In use, and then at rest.
    let mut one = Some(one);
    for _ in 0..2 {
        let store = room.dir("one");
        let mut export = Command::new(BATON)
            .args(["cache", "export", "--cache", &store])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(export.stdout.take());
        assert_eq!(export.wait().unwrap().code(), Some(1));
        if let Some(one) = one.take() {
            one.stop();
        }
    }
    let null = cache(&room.dir("one"), &["export", "/dev/null"]);
    assert_eq!(null.code, Some(0), "{}", null.err);
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    let empty = cache(&room.dir("one"), &["purge", "--prefix", ""]);
    assert_eq!(empty.code, Some(2), "{}", empty.out);
}

/// The file that an archive is written into is there when it is whole.
#[test]
fn nothing_is_left_of_an_export_that_fails() {
    let (room, origin) = (Room::new(), origin());
    drop(start(&origin, &room.dir("one")));
    let archive = room.archive();
    File::create(&archive)
        .unwrap()
        .write_all(b"before")
        .unwrap();
    let ended = cache("dir:/nowhere/at/all", &["export", &archive]);
    assert_eq!(ended.code, Some(1));
    assert_eq!(std::fs::read(&archive).unwrap(), b"before");
    let names = std::fs::read_dir(room.0.path()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["archive", "one"]);
}
