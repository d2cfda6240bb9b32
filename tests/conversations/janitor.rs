//! The cache directory between instances and over deaths: who may use it, what stays, and what is cleared away.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::baton::{children, has_ended, title};
use crate::support::origin::ok;
use crate::support::{Baton, Origin, eventually};

/// A cache directory that outlives the instances that use it.
struct Cache {
    directory: tempfile::TempDir,
}

impl Cache {
    fn new() -> Cache {
        Cache {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    fn flag(&self) -> String {
        format!("dir:{}", self.path().display())
    }

    fn serve(&self, origin: &Origin, flags: &[&str]) -> Baton {
        // Without the memory tier every hit is the disk's.
        let store = ["--cache", &self.flag(), "--set", "cache.memory=0"];
        Baton::reverse(origin.address(), &[&store, flags].concat())
    }

    fn catalogue(&self) -> PathBuf {
        self.path().join("catalogue.sqlite")
    }

    /// Everything below `objects` and `aside`, with its size.
    fn files(&self) -> Vec<(PathBuf, u64)> {
        ["objects", "aside"]
            .iter()
            .flat_map(|part| files(&self.path().join(part)))
            .collect()
    }

    /// Octets that they take, about.
    fn size(&self) -> u64 {
        let files = self.files();
        files
            .iter()
            .map(|(_, size)| size.div_ceil(4096) * 4096 + 1024)
            .sum()
    }
}

fn files(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => found.extend(files(&entry.path())),
            Ok(metadata) => found.push((entry.path(), metadata.len())),
            Err(_) => {}
        }
    }
    found
}

fn janitor(baton: &Baton) -> Option<i32> {
    let children = children(baton.master());
    children
        .into_iter()
        .find(|pid| title(*pid) == "baton: janitor")
}

/// What is asked for is what is answered, for ever fresh.
fn origin() -> Origin {
    Origin::start(|request| ok("Cache-Control: max-age=3600\r\n", &request.target))
}

/// Of `length` octets each.
fn large(length: usize) -> Origin {
    Origin::start(move |_| ok("Cache-Control: max-age=3600\r\n", vec![b'x'; length]))
}

/// Asks until the answer comes from the cache.
fn until_hit(baton: &Baton, target: &str) {
    eventually(&format!("{target} is kept"), || {
        baton.client().get(target).is_hit().then_some(())
    });
}

fn end(mut baton: Baton) {
    baton.signal(baton.master(), "TERM");
    assert!(baton.wait().success());
}

// === who uses it

#[test]
fn a_second_instance_is_refused_and_told_who_has_the_directory() {
    let (origin, cache) = (origin(), Cache::new());
    let baton = cache.serve(&origin, &[]);
    let to = format!("http://{}", origin.address());
    let flags = [
        "reverse",
        "--to",
        &to,
        "--listen",
        "127.0.0.1:0",
        "--cache",
        &cache.flag(),
    ];
    let Err(refused) = Baton::try_start(&flags) else {
        panic!("two instances in one directory")
    };
    let holder = format!("pid {}, since 20", baton.master());
    for part in [
        &holder,
        &format!("http://{};", baton.address()),
        &cache.path().display().to_string(),
        "--cache dir:PATH",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert_eq!(baton.client().get("/").status, 200);
}

#[test]
fn after_kill_9_of_the_master_a_new_one_starts_at_once() {
    let (origin, cache) = (origin(), Cache::new());
    let mut baton = cache.serve(&origin, &[]);
    until_hit(&baton, "/a");
    let old_janitor = janitor(&baton).unwrap();
    baton.signal(baton.master(), "KILL");
    baton.wait();
    let began = Instant::now();
    let successor = cache.serve(&origin, &[]);
    assert!(successor.client().get("/a").is_hit(), "nothing is lost");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    eventually("the old janitor ends", || {
        has_ended(old_janitor).then_some(())
    });
}

#[test]
fn a_directory_that_is_not_batons_is_left_alone() {
    let (origin, cache) = (origin(), Cache::new());
    std::fs::create_dir(cache.path()).unwrap();
    std::fs::write(cache.path().join("thesis.tex"), "x").unwrap();
    let to = format!("http://{}", origin.address());
    let flags = [
        "reverse",
        "--to",
        &to,
        "--listen",
        "127.0.0.1:0",
        "--cache",
        &cache.flag(),
    ];
    let Err(refused) = Baton::try_start(&flags) else {
        panic!("it uses what is not its own")
    };
    assert!(refused.contains("is not empty"), "{refused}");
    assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 1);
}

// === over starts and deaths

#[test]
fn what_is_stored_is_there_after_a_restart_without_a_tour() {
    let (origin, cache) = (origin(), Cache::new());
    let baton = cache.serve(&origin, &[]);
    until_hit(&baton, "/a");
    end(baton);
    let baton = cache.serve(&origin, &[]);
    assert!(baton.client().get("/a").is_hit());
    eventually("the catalogue knows it", || {
        let log = baton.log("janitor.log");
        log.contains("janitor ready: 1 objects in the catalogue")
            .then_some(())
    });
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn a_janitor_that_is_killed_is_replaced_and_nobody_notices() {
    let (origin, cache) = (origin(), Cache::new());
    let baton = cache.serve(&origin, &[]);
    until_hit(&baton, "/a");
    let first = janitor(&baton).unwrap();
    let mut client = baton.client();
    baton.signal(first, "KILL");
    assert!(client.get("/a").is_hit());
    eventually("a successor", || {
        janitor(&baton).filter(|pid| *pid != first)
    });
    until_hit(&baton, "/b");
    assert!(client.get("/a").is_hit());
    let log = baton.log("master.log");
    assert!(log.contains(&format!(
        "the janitor (pid {first}) died: signal 9 (SIGKILL)"
    )));
    end(baton);
    let baton = cache.serve(&origin, &[]);
    assert!(baton.client().get("/a").is_hit() && baton.client().get("/b").is_hit());
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn a_stopped_janitor_stops_nothing_and_is_killed_at_the_end() {
    let (origin, cache) = (origin(), Cache::new());
    let baton = cache.serve(&origin, &[]);
    until_hit(&baton, "/a");
    baton.signal(janitor(&baton).unwrap(), "STOP");
    until_hit(&baton, "/b");
    end(baton);
    let baton = cache.serve(&origin, &[]);
    assert!(baton.client().get("/b").is_hit());
}

// === the catalogue

#[test]
fn a_catalogue_that_is_damaged_is_made_anew_from_the_files() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("zeros", |path| {
            let length = std::fs::metadata(path).unwrap().len() as usize;
            std::fs::write(path, vec![0; length]).unwrap();
        }),
        ("truncated", |path| {
            let file = std::fs::OpenOptions::new().write(true).open(path);
            file.unwrap().set_len(5000).unwrap();
        }),
        ("garbage", |path| {
            std::fs::write(path, [0xa5; 20_000]).unwrap()
        }),
        ("gone", |path| std::fs::remove_file(path).unwrap()),
        ("a directory", |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("x"), "x").unwrap();
        }),
    ];
    let (origin, cache) = (origin(), Cache::new());
    for (name, damage) in damages {
        let baton = cache.serve(&origin, &[]);
        until_hit(&baton, "/a");
        until_hit(&baton, "/b");
        end(baton);
        damage(&cache.catalogue());
        let baton = cache.serve(&origin, &[]);
        assert!(
            baton.client().get("/a").is_hit(),
            "{name}: service starts at once"
        );
        if name == "a directory" {
            eventually("it is said", || {
                let log = baton.log("janitor.log");
                log.contains("the cache is used without").then_some(())
            });
            continue;
        }
        eventually(&format!("{name}: the files have been read"), || {
            let log = baton.log("janitor.log");
            log.contains("catalogue: 2 objects found").then_some(())
        });
        end(baton);
        let baton = cache.serve(&origin, &[]);
        eventually(&format!("{name}: the catalogue knows them"), || {
            let log = baton.log("janitor.log");
            log.contains("janitor ready: 2 objects").then_some(())
        });
        end(baton);
    }
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn a_catalogue_that_disappears_under_way_comes_back() {
    let (origin, cache) = (origin(), Cache::new());
    let baton = cache.serve(&origin, &[]);
    until_hit(&baton, "/a");
    for (times, part) in (1..).zip(["", "-wal"]) {
        let path = cache.path().join(format!("catalogue.sqlite{part}"));
        eventually("it is there", || path.exists().then_some(()));
        std::fs::remove_file(&path).unwrap();
        eventually(&format!("{part} has been filled again"), || {
            let log = baton.log("janitor.log");
            let anew = log.match_indices("it is made anew").nth(times - 1)?.0;
            log[anew..]
                .contains("catalogue: 1 objects found")
                .then_some(())
        });
    }
    end(baton);
    let baton = cache.serve(&origin, &[]);
    eventually("it knows everything", || {
        let log = baton.log("janitor.log");
        log.contains("janitor ready: 1 objects").then_some(())
    });
}

// === bounds

#[test]
fn the_limit_holds_while_it_is_filled_and_a_smaller_one_is_reached() {
    const LIMIT: u64 = 8 << 20;
    let (origin, cache) = (large(20_000), Cache::new());
    let baton = cache.serve(&origin, &["--set", "cache.max_size=8MiB"]);
    let mut client = baton.client();
    for n in 0..1000 {
        assert_eq!(client.get(&format!("/{n}")).status, 200);
        if n % 50 == 0 {
            let size = cache.size();
            assert!(size <= LIMIT / 100 * 102, "{size}");
        }
    }
    let size = cache.size();
    assert!(size > LIMIT / 2, "{size}: it is used");
    end(baton);
    let baton = cache.serve(&origin, &["--set", "cache.max_size=2MiB"]);
    eventually("the smaller limit is reached", || {
        (cache.size() <= 2 << 20).then_some(())
    });
    assert!(cache.size() > 1 << 20, "and no more goes than must");
    assert_eq!(baton.client().get("/0").status, 200);
}

// === what leads nowhere

#[test]
fn orphans_of_a_former_instance_go() {
    let (origin, cache) = (large(300_000), Cache::new());
    let mut baton = cache.serve(&origin, &[]);
    until_hit(&baton, "/a");
    until_hit(&baton, "/b");
    baton.signal(baton.master(), "KILL");
    baton.wait();
    std::fs::write(cache.path().join("aside/0-1-1"), "half").unwrap();
    let is_head = |path: &Path| !path.file_name().unwrap().to_string_lossy().contains('.');
    let files = cache.files();
    let head = files
        .iter()
        .find(|(path, size)| is_head(path) && *size > 100);
    std::fs::remove_file(&head.unwrap().0).unwrap();
    let baton = cache.serve(&origin, &[]);
    eventually("one object is left, in two files", || {
        (cache.files().len() == 2).then_some(())
    });
    drop(baton);
}

#[test]
fn what_a_worker_was_writing_when_it_died_goes() {
    let gate = crate::support::Gate::new();
    let held = gate.clone();
    let origin = Origin::conversing(move |_, stream| {
        use std::io::Write;
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 900000\r\n\r\n";
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&[b'x'; 600_000]);
        held.wait();
        false
    });
    let cache = Cache::new();
    let baton = cache.serve(&origin, &["--workers", "1"]);
    let mut client = baton.client();
    client.send("GET /large HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let aside = || files(&cache.path().join("aside")).len();
    eventually("it is being written", || (aside() == 1).then_some(()));
    baton.signal(baton.workers()[0], "KILL");
    eventually("it is gone", || (aside() == 0).then_some(()));
    gate.open();
}

#[test]
fn a_directory_that_is_deleted_under_way_comes_back() {
    let (origin, cache) = (origin(), Cache::new());
    let baton = cache.serve(&origin, &[]);
    until_hit(&baton, "/a");
    // What is being made meanwhile may be in the way of the removal.
    eventually("it is gone", || std::fs::remove_dir_all(cache.path()).ok());
    let mut client = baton.client();
    let mut numbers = 0..;
    let stored = eventually("something is stored again", || {
        let target = format!("/{}", numbers.next()?);
        assert_eq!(client.get(&target).text(), target);
        (cache.files().len() == 1).then_some(target)
    });
    end(baton);
    let baton = cache.serve(&origin, &[]);
    let response = baton.client().get(&stored);
    assert!(response.is_hit(), "its generation is the one it had");
}
