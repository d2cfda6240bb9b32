//! Purges of many responses at once, and soft ones, in a directory and in memory: what is meant goes at one moment for all workers,
//! what is not meant stays, and what was asked for before does not come back.

use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};

use serde_json::Value;

use crate::support::baton::BATON;
use crate::support::gate::Gate;
use crate::support::origin::ok;
use crate::support::{Baton, Ended, Origin, Request, eventually};

/// An instance with one of the stores, and its commands.
struct Instance {
    /// Where its directory, or its socket, is.
    temporary: tempfile::TempDir,
    cache: String,
    baton: Option<Baton>,
}

impl Instance {
    /// `memory`, or `dir`.
    fn start(origin: &Origin, store: &str) -> Instance {
        let temporary = tempfile::tempdir().unwrap();
        let cache = match store {
            "dir" => format!("dir:{}", temporary.path().join("cache").display()),
            other => other.to_owned(),
        };
        let mut instance = Instance {
            temporary,
            cache,
            baton: None,
        };
        instance.run(origin);
        instance
    }

    fn run(&mut self, origin: &Origin) {
        let variable = ("XDG_RUNTIME_DIR", self.temporary.path().to_str().unwrap());
        let flags = ["--cache", self.cache.as_str()];
        self.baton = Some(Baton::reverse_with(variable, origin.address(), &flags));
    }

    fn baton(&self) -> &Baton {
        self.baton.as_ref().unwrap()
    }

    /// Its master is killed, and what follows it has ended: what is asked now is asked of the directory.
    fn kill(&mut self) {
        drop(self.baton.take());
        let socket = self.temporary.path().join("cache/control");
        eventually("the janitor has ended", || {
            UnixStream::connect(&socket).is_err().then_some(())
        });
    }

    /// `baton cache ARGUMENTS --json`: the exit code and the last line.
    fn cache(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let ended = self.command(&[arguments, &["--json"]].concat());
        let line = ended.out.lines().last();
        let line = line.unwrap_or_else(|| panic!("{arguments:?} said only: {}", ended.err));
        let value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line} {}", ended.err));
        (ended.code, value)
    }

    fn command(&self, arguments: &[&str]) -> Ended {
        let run = || {
            let mut command = Command::new(BATON);
            command
                .arg("cache")
                .args(arguments)
                .env("XDG_RUNTIME_DIR", self.temporary.path())
                .env("XDG_CACHE_HOME", self.temporary.path().join("none"))
                .env_remove("RUNTIME_DIRECTORY");
            if self.cache.starts_with("dir:") {
                command.args(["--cache", &self.cache]);
            } else {
                let address = self.baton().address().to_string();
                command.args(["--instance", &address]);
            }
            Ended::of(&mut command)
        };
        // Its first moments may pass before commands are taken.
        eventually("the command is heard", || {
            let ended = run();
            (!ended.err.contains("no instance") && !ended.err.contains("in use")).then_some(ended)
        })
    }

    /// Which of these come from the cache, whichever worker is asked.
    fn hits(&self, targets: &[&str]) -> Vec<bool> {
        let ask = |target: &&str| {
            let hits: Vec<bool> = (0..4)
                .map(|_| {
                    let response = self.baton().client().get(target);
                    assert_eq!(response.status, 200, "{target}");
                    response.is_hit()
                })
                .collect();
            hits[0]
        };
        targets.iter().map(ask).collect()
    }

    fn fill(&self, targets: &[&str]) {
        for target in targets {
            // In a memory of its own, each worker has to ask once.
            eventually(&format!("{target} is kept by all"), || {
                let all = (0..6).all(|_| self.baton().client().get(target).is_hit());
                all.then_some(())
            });
        }
    }
}

const STORES: [&str; 2] = ["dir", "memory"];
const TARGETS: [&str; 5] = ["/news/1", "/news/2", "/shop/1", "/shop/2.css", "/"];

/// Tags are the parts of the path, and `all`; everything is fresh for long and has a validator.
fn answer(request: &Request) -> Vec<u8> {
    if request.field("if-none-match").is_some() {
        return b"HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=600, stale-if-error=600\r\n\r\n".to_vec();
    }
    let tags: Vec<&str> = request
        .target
        .split('/')
        .filter(|it| !it.is_empty())
        .collect();
    let fields = format!(
        "Cache-Control: max-age=600, stale-if-error=600\r\nETag: \"a\"\r\nCache-Tag: all, {}\r\nSurrogate-Key: s1 s2\r\n",
        tags.join(",")
    );
    ok(&fields, &request.target)
}

#[test]
fn a_set_is_gone_at_once_and_nothing_else() {
    for store in STORES {
        let origin = Origin::start(answer);
        let instance = Instance::start(&origin, store);
        let prefix = "http://A.example:80/shop".to_owned();
        let host = "a.example/news/2".to_owned();
        for (arguments, left) in [
            (&["--tag", "news"][..], [false, false, true, true, true]),
            (
                &["--tag", "1", "--tag", "2.css"],
                [false, true, false, false, true],
            ),
            (&["--prefix", &prefix], [true, true, false, false, true]),
            (&["--prefix", &host], [true, false, true, true, true]),
            (
                &["--regex", r"\.css$|/news/1"],
                [false, true, true, false, true],
            ),
            (&["--tag", "s2"], [false; 5]),
        ] {
            instance.fill(&TARGETS);
            let (code, purged) = instance.cache(&[&["purge"], arguments].concat());
            let gone = left.iter().filter(|left| !**left).count();
            assert_eq!(
                (code, purged["objects"].as_u64()),
                (Some(0), Some(gone as u64)),
                "{store} {arguments:?} {purged}"
            );
            assert_eq!(instance.hits(&TARGETS), left, "{store} {arguments:?}");
        }
        let (code, purged) = instance.cache(&["purge", "--tag", "NEWS"]);
        assert_eq!(
            (code, purged["objects"].as_u64()),
            (Some(3), Some(0)),
            "{store}"
        );
        let ended = instance.command(&["purge", "--regex", "("]);
        assert_eq!(ended.code, Some(2), "{}", ended.err);
    }
}

#[test]
fn what_is_purged_softly_is_revalidated_and_serves_where_the_origin_server_fails() {
    for store in STORES {
        let fails = Arc::new(AtomicBool::new(false));
        let failing = fails.clone();
        let origin = Origin::start(move |request| match failing.load(SeqCst) {
            true => b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec(),
            false => answer(request),
        });
        let asked = || origin.requests().len();
        let instance = Instance::start(&origin, store);
        let url = "http://a.example/news/1".to_owned();
        for arguments in [&["--tag", "news"][..], &[url.as_str()], &["--all"]] {
            instance.fill(&TARGETS);
            let before = asked();
            let (code, purged) = instance.cache(&[&["purge", "--soft"], arguments].concat());
            assert_eq!(
                (code, purged["soft"].as_bool()),
                (Some(0), Some(true)),
                "{store} {arguments:?} {purged}"
            );
            let response = instance.baton().client().get("/news/1");
            assert!(
                response.has("cache-status", "fwd=stale; fwd-status=304"),
                "{store} {arguments:?} {}",
                response.head
            );
            assert_eq!(asked(), before + 1, "{store} {arguments:?}");
            let last = origin.requests().pop().unwrap();
            assert_eq!(last.field("if-none-match").as_deref(), Some("\"a\""));
            instance.fill(&["/news/1"]);
            let others = instance.hits(&["/shop/1"]);
            assert_eq!(others, [arguments != ["--all"]], "{store} {arguments:?}");
        }
        instance.fill(&TARGETS);
        instance.cache(&["purge", "--soft", "--prefix", "http://"]);
        fails.store(true, SeqCst);
        let response = instance.baton().client().get("/shop/1");
        assert!(
            response.status == 200 && response.has("cache-status", "detail=stale-if-error"),
            "{store} {}",
            response.head
        );
    }
}

#[test]
fn what_is_being_fetched_meanwhile_is_not_kept() {
    for store in STORES {
        let (gate, (say, asked)) = (Gate::new(), mpsc::channel());
        let opened = gate.clone();
        let origin = Origin::start(move |request| {
            if request.target == "/news/slow" && !opened.is_open() {
                say.send(()).unwrap();
                opened.wait();
            }
            answer(request)
        });
        let instance = Instance::start(&origin, store);
        let mut client = instance.baton().client();
        let waiting = std::thread::spawn(move || client.get("/news/slow"));
        asked.recv().unwrap();
        let (code, _) = instance.cache(&["purge", "--tag", "news"]);
        assert_eq!(code, Some(3), "nothing is there yet");
        gate.open();
        assert_eq!(waiting.join().unwrap().text(), "/news/slow");
        let next = instance.baton().client().get("/news/slow");
        assert!(!next.is_hit(), "{store} {}", next.head);
        instance.fill(&["/news/slow"]);
    }
}

#[test]
fn a_directory_at_rest_is_purged_as_well() {
    let origin = Origin::start(answer);
    let mut instance = Instance::start(&origin, "dir");
    instance.fill(&TARGETS);
    instance.kill();
    let (_, purged) = instance.cache(&["purge", "--tag", "shop"]);
    assert_eq!(purged["objects"], 2, "{purged}");
    let (_, purged) = instance.cache(&["purge", "--tag", "2", "--soft"]);
    assert_eq!(purged["objects"], 1, "{purged}");
    let (_, stats) = instance.cache(&["stats"]);
    assert_eq!(stats["objects"], 3, "{stats}");
    instance.run(&origin);
    let before = origin.requests().len();
    assert_eq!(instance.hits(&["/news/1", "/"]), [true, true]);
    assert_eq!(origin.requests().len(), before);
    let response = instance.baton().client().get("/news/2");
    assert!(
        response.has("cache-status", "fwd=stale"),
        "{}",
        response.head
    );
    assert_eq!(instance.hits(&["/shop/1", "/shop/2.css"]), [false, false]);
}

#[test]
fn a_purge_that_was_interrupted_counts_from_the_next_start_on() {
    let origin = Origin::start(answer);
    let mut instance = Instance::start(&origin, "dir");
    instance.fill(&TARGETS);
    instance.kill();
    let cache = instance.temporary.path().join("cache");
    let generation = std::fs::read_to_string(cache.join("generation")).unwrap();
    let generation = generation.trim().parse::<u64>().unwrap() + 1;
    let pending = format!("{{\"generation\":{generation},\"soft\":null,\"tags\":[\"news\"]}}\n");
    std::fs::write(cache.join("purges"), pending).unwrap();
    instance.run(&origin);
    assert_eq!(
        instance.hits(&TARGETS),
        [false, false, true, true, true],
        "from the first request on"
    );
    eventually("all files have been looked at", || {
        (!cache.join("purges").exists()).then_some(())
    });
    assert_eq!(instance.hits(&TARGETS), [true; 5], "what came later stays");
}

#[test]
fn ls_lists_what_is_wanted_in_the_order_that_is_wanted() {
    for store in STORES {
        let origin = Origin::start(|request| {
            let length = request.target[1..].parse().unwrap_or(0);
            let fields = format!("Cache-Control: max-age=600\r\nCache-Tag: t{length}\r\n");
            ok(&fields, "x".repeat(length))
        });
        let instance = Instance::start(&origin, store);
        instance.fill(&["/10", "/9000", "/300000"]);
        instance.cache(&["purge", "--soft", "--tag", "t10"]);
        let prefix = "http://a.example/3".to_owned();
        for (arguments, expected) in [
            (&["--sort", "size"][..], &["/300000", "/9000", "/10"][..]),
            (&["--sort", "size", "--limit", "1"], &["/300000"]),
            (&["--sort", "url"], &["/10", "/300000", "/9000"]),
            (&["--prefix", &prefix], &["/300000"]),
            (
                &["--tag", "t10", "--tag", "t9000", "--sort", "url"],
                &["/10", "/9000"],
            ),
            (&["--larger", "200KiB"], &["/300000"]),
            (&["--stale"], &["/10"]),
            (&["--sort", "expires", "--limit", "1"], &["/10"]),
        ] {
            let ended = instance.command(&[&["ls", "--json"], arguments].concat());
            let listed: Vec<String> = ended
                .out
                .lines()
                .map(|line| {
                    let item: Value = serde_json::from_str(line).unwrap();
                    let url = item["url"].as_str().unwrap();
                    format!("/{}", url.rsplit('/').next().unwrap())
                })
                .collect();
            assert_eq!(listed, expected, "{store} {arguments:?} {}", ended.err);
        }
    }
}
