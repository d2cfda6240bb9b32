//! `baton explain` and `baton cache` against instances with `--cache memory`, where each worker keeps its own.

use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::baton::{BATON, has_ended};
use crate::support::origin::ok;
use crate::support::{Baton, Ended, Origin, eventually};

/// Where instances are found, for all of a test.
struct Runtime {
    temporary: tempfile::TempDir,
}

impl Runtime {
    fn new() -> Runtime {
        Runtime {
            temporary: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> &Path {
        self.temporary.path()
    }

    fn start(&self, origin: &Origin, flags: &[&str]) -> Baton {
        let to = format!("http://{}", origin.address());
        let arguments = ["reverse", "--to", &to, "--cache", "memory"];
        let listen: &[&str] = match flags.contains(&"--listen") {
            true => &[],
            false => &["--listen", "127.0.0.1:0"],
        };
        let variable = ("XDG_RUNTIME_DIR", self.path().to_str().unwrap());
        let baton = Baton::start_with(variable, &[&arguments, listen, flags].concat());
        eventually("commands are taken", || {
            let log = baton.log("janitor.log");
            log.contains("commands are taken").then_some(())
        });
        baton
    }

    /// The sockets of instances.
    fn sockets(&self) -> Vec<String> {
        let listed = std::fs::read_dir(self.path().join("baton"));
        let entries = listed.into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(
            Command::new(BATON)
                .args(arguments)
                .env("XDG_RUNTIME_DIR", self.path())
                .env("XDG_CACHE_HOME", self.path().join("cache"))
                .env_remove("CACHE_DIRECTORY")
                .env_remove("RUNTIME_DIRECTORY"),
        )
    }

    /// What it printed with `--json`: a value a line.
    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let ended = self.run(&[arguments, &["--json"]].concat());
        let lines = ended.out.lines();
        let values: Vec<Value> = lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(!values.is_empty() || arguments[1] == "ls", "{}", ended.err);
        values
    }
}

/// Fresh for long below `/fresh`, not for long below `/stale`, by language below `/vary`.
fn origin() -> Origin {
    Origin::start(|request| {
        let (fields, body) = match request.target.get(..5) {
            Some("/stal") => ("Cache-Control: max-age=1\r\nETag: \"a\"\r\n", "stale"),
            Some("/vary") => (
                "Cache-Control: max-age=600\r\nVary: Accept-Language\r\n",
                "some",
            ),
            _ => ("Cache-Control: max-age=600\r\n", "hello"),
        };
        ok(fields, body)
    })
}

fn keep(baton: &Baton, target: &str, fields: &str) {
    eventually(&format!("{target} is kept"), || {
        let mut client = baton.client();
        client.get_with(target, fields).is_hit().then_some(())
    });
}

/// The URL of something that was asked for through a client of the tests.
fn url(path: &str) -> String {
    format!("http://a.example{path}")
}

fn workers(value: &Value) -> BTreeSet<u64> {
    let workers = value["workers"].as_array().into_iter().flatten();
    workers.map(|it| it.as_u64().unwrap()).collect()
}

/// What each worker would do.
fn outcomes(told: &Value) -> Vec<(u64, String)> {
    let sides = told["sides"].as_array().unwrap();
    let mut all: Vec<_> = sides
        .iter()
        .flat_map(|side| {
            let outcome = side["outcome"].as_str().unwrap().to_owned();
            workers(side)
                .into_iter()
                .map(move |it| (it, outcome.clone()))
        })
        .collect();
    all.sort();
    all
}

#[test]
fn what_each_worker_would_answer_is_explained() {
    let (origin, runtime) = (origin(), Runtime::new());
    let baton = runtime.start(&origin, &[]);
    let explain = |target: &str, fields: &[&str]| {
        let url = url(target);
        let mut arguments = vec!["explain", &url];
        fields
            .iter()
            .for_each(|field| arguments.extend(["-H", field]));
        runtime.json(&arguments).remove(0)
    };
    let absent = explain("/fresh", &[]);
    assert_eq!(
        outcomes(&absent),
        [(0, "miss".to_owned()), (1, "miss".to_owned())],
        "{absent}"
    );
    assert_eq!(absent["sides"].as_array().unwrap().len(), 1, "{absent}");
    assert_eq!(runtime.run(&["explain", &url("/fresh")]).code, Some(3));

    keep(&baton, "/fresh", "");
    let fresh = explain("/fresh", &[]);
    let hit = &fresh["sides"][0];
    assert_eq!(
        (&hit["outcome"], &hit["side"]),
        (&"hit".into(), &"reverse".into())
    );
    let kept = &hit["found"][0];
    assert_eq!(kept["selected"], true);
    assert_eq!(kept["freshness"]["freshness_lifetime"], 600);
    assert_eq!(kept["entry"]["response"]["length"], 5);
    assert_eq!(workers(&kept["entry"]), workers(hit));
    let all: BTreeSet<u64> = outcomes(&fresh)
        .into_iter()
        .map(|(worker, _)| worker)
        .collect();
    assert_eq!(all, BTreeSet::from([0, 1]), "{fresh}");
    let reload = explain("/fresh", &["Cache-Control: no-store"]);
    assert!(
        outcomes(&reload)
            .iter()
            .all(|(_, outcome)| outcome == "pass")
    );
    let text = runtime.run(&["explain", &url("/fresh")]);
    assert_eq!(text.code, Some(0));
    for part in [
        "key  reverse http://a.example/fresh",
        "at   worker",
        "=> hit:",
    ] {
        assert!(text.out.contains(part), "{part}: {}", text.out);
    }

    baton.client().get("/stale");
    eventually("it is stale", || {
        let told = explain("/stale", &[]);
        outcomes(&told)
            .iter()
            .any(|(_, outcome)| outcome == "revalidate")
            .then_some(())
    });

    keep(&baton, "/vary", "Accept-Language: de\r\n");
    let german = explain("/vary", &["Accept-Language: de"]);
    assert_eq!(german["sides"][0]["outcome"], "hit", "{german}");
    let finnish = explain("/vary", &["Accept-Language: fi"]);
    assert!(
        outcomes(&finnish)
            .iter()
            .all(|(_, outcome)| outcome == "miss")
    );
    let status = finnish["sides"][0]["cache_status"].as_str().unwrap();
    assert!(status.contains("vary-miss"), "{finnish}");
}

#[test]
fn figures_lists_and_removal_are_those_of_all_workers() {
    let (origin, runtime) = (origin(), Runtime::new());
    let baton = runtime.start(&origin, &[]);
    keep(&baton, "/fresh/1", "");
    keep(&baton, "/fresh/2", "");
    keep(&baton, "/vary", "Accept-Language: de\r\n");
    let stats = runtime.json(&["cache", "stats"]).remove(0);
    assert_eq!(
        (&stats["store"], &stats["running"]),
        (&"memory".into(), &true.into())
    );
    assert!(stats["objects"].as_u64().unwrap() >= 3, "{stats}");
    assert!(
        stats["holder"]
            .as_str()
            .unwrap()
            .contains(&baton.address().to_string())
    );
    let listed = runtime.json(&["cache", "ls"]);
    let urls: BTreeSet<&str> = listed
        .iter()
        .map(|it| it["url"].as_str().unwrap())
        .collect();
    let due = [url("/fresh/1"), url("/fresh/2"), url("/vary")];
    assert_eq!(urls, due.iter().map(String::as_str).collect());
    assert!(listed.iter().all(|item| !workers(item).is_empty()));
    let shown = runtime.json(&["cache", "show", &url("/vary")]).remove(0);
    assert_eq!(shown["found"][0]["response"]["selected_by"][0][1], "de");
    for command in [
        &["cache", "stats"][..],
        &["cache", "ls"],
        &["cache", "show", &url("/vary")],
    ] {
        assert_eq!(runtime.run(command).code, Some(0));
    }
    let refused = runtime.run(&["cache", "verify"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("memory"), "{}", refused.err);

    let purged = runtime
        .json(&["cache", "purge", &url("/fresh/1")])
        .remove(0);
    assert_eq!(purged["objects"], 1, "{purged}");
    // Whoever is asked.
    for _ in 0..4 {
        let answer = baton
            .client()
            .get_with("/fresh/1", "Cache-Control: only-if-cached\r\n");
        assert_eq!(answer.status, 504);
    }
    assert_eq!(
        runtime.run(&["cache", "purge", &url("/fresh/1")]).code,
        Some(3)
    );
    assert!(baton.client().get("/fresh/2").status == 200);
    assert_eq!(runtime.run(&["cache", "purge", "--all"]).code, Some(0));
    assert!(runtime.json(&["cache", "ls"]).is_empty());
    let stats = runtime.json(&["cache", "stats"]).remove(0);
    assert_eq!((&stats["objects"], &stats["size"]), (&0.into(), &0.into()));
    keep(&baton, "/fresh/2", "");
}

#[test]
fn of_several_instances_one_is_chosen_and_each_cleans_up_behind_itself() {
    let (origin, runtime) = (origin(), Runtime::new());
    let none = runtime.run(&["explain", &url("/fresh"), "--cache", "memory"]);
    assert_eq!(none.code, Some(1));
    assert!(none.err.contains("no instance"), "{}", none.err);
    let one = runtime.start(&origin, &[]);
    keep(&one, "/fresh", "");
    assert_eq!(runtime.run(&["explain", &url("/fresh")]).code, Some(0));
    let other = runtime.start(&origin, &[]);
    let unclear = runtime.run(&["explain", &url("/fresh")]);
    assert_eq!(unclear.code, Some(1));
    let (first, second) = (one.address().to_string(), other.address().to_string());
    for address in [&first, &second] {
        let option = format!("--instance {address}");
        assert!(unclear.err.contains(&option), "{}", unclear.err);
    }
    let code = |address: &str| {
        runtime
            .run(&["explain", &url("/fresh"), "--instance", address])
            .code
    };
    assert_eq!((code(&first), code(&second)), (Some(0), Some(3)));
    let socket = runtime.path().join(format!("baton/{second}.sock"));
    let socket = socket.to_str().unwrap();
    let by_path = runtime.run(&["cache", "stats", "--control", socket]);
    assert!(by_path.out.contains(&second), "{}", by_path.err);
    one.stop();
    assert_eq!(runtime.sockets(), [format!("{second}.sock")]);
    assert_eq!(runtime.run(&["cache", "stats"]).code, Some(0));
    let unknown = runtime.run(&["cache", "stats", "--instance", &first]);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.err.contains(&second), "{}", unknown.err);
    other.stop();
    assert!(runtime.sockets().is_empty());
}

#[test]
fn a_socket_that_was_left_is_in_nobodys_way() {
    let (origin, runtime) = (origin(), Runtime::new());
    let mut baton = runtime.start(&origin, &[]);
    let address = baton.address().to_string();
    let own = format!("{address}.sock");
    // Neither of the two can clean up.
    baton.signal(baton.master(), "STOP");
    let janitor = baton.janitor();
    baton.signal(janitor, "KILL");
    baton.signal(baton.master(), "KILL");
    baton.wait();
    eventually("the janitor has ended", || has_ended(janitor).then_some(()));
    drop(baton);
    // Of one that does not come back.
    drop(UnixListener::bind(runtime.path().join("baton/127.0.0.1:1.sock")).unwrap());
    assert_eq!(runtime.sockets(), ["127.0.0.1:1.sock", &own]);
    let none = runtime.run(&["explain", &url("/fresh"), "--cache", "memory"]);
    assert!(none.err.contains("no instance"), "{}", none.err);
    let baton = runtime.start(&origin, &["--listen", &address]);
    keep(&baton, "/fresh", "");
    assert_eq!(runtime.run(&["explain", &url("/fresh")]).code, Some(0));
    assert_eq!(runtime.sockets(), [&*own]);
    // One that ends is replaced; only it was asked, so nothing is lost.
    let janitor = baton.janitor();
    baton.signal(janitor, "KILL");
    eventually("another one answers", || {
        let stats = runtime.run(&["cache", "stats"]);
        (stats.code == Some(0) && has_ended(janitor)).then_some(())
    });
    assert_eq!(runtime.run(&["explain", &url("/fresh")]).code, Some(0));
    baton.stop();
    assert!(runtime.sockets().is_empty());
}

#[test]
fn a_worker_that_does_not_answer_is_named_and_left_out() {
    let (origin, runtime) = (origin(), Runtime::new());
    let baton = runtime.start(&origin, &[]);
    keep(&baton, "/fresh", "");
    let stopped = baton.workers()[1];
    baton.signal(stopped, "STOP");
    let told = runtime.json(&["explain", &url("/fresh")]).remove(0);
    let text = runtime.run(&["cache", "stats"]);
    let purged = runtime.run(&["cache", "purge", "--all"]);
    baton.signal(stopped, "CONT");
    assert_eq!(told["silent"], serde_json::json!([1]), "{told}");
    assert!(outcomes(&told).iter().all(|(worker, _)| *worker == 0));
    assert!(text.err.contains("worker 1 did not answer"), "{}", text.err);
    // It is gone from there as well.
    assert_eq!(purged.code, Some(0), "{}", purged.err);
    eventually("both workers answer, and have nothing", || {
        let told = runtime.json(&["explain", &url("/fresh")]).remove(0);
        let due = [(0, "miss".to_owned()), (1, "miss".to_owned())];
        (outcomes(&told) == due).then_some(())
    });
}

#[test]
fn the_socket_may_be_elsewhere_and_a_configuration_file_leads_to_it() {
    let (origin, runtime) = (origin(), Runtime::new());
    let socket: PathBuf = runtime.path().join("own.sock");
    let setting = format!("control.socket={}", socket.display());
    let baton = runtime.start(&origin, &["--set", &setting]);
    keep(&baton, "/fresh", "");
    assert!(runtime.sockets().is_empty());
    let file = runtime.path().join("proxy.conf");
    let text = format!(
        "[[listener]]\naddress = \"{}\"\n[cache]\nstore = \"memory\"\n",
        baton.address()
    );
    let control = format!("[control]\nsocket = \"{}\"\n", socket.display());
    std::fs::write(&file, text.clone() + &control).unwrap();
    let explain = || runtime.run(&["explain", &url("/fresh"), "-c", file.to_str().unwrap()]);
    assert_eq!(explain().code, Some(0), "{}", explain().err);
    baton.stop();
    assert!(!socket.exists());
    // By its address, where the file says no more.
    let baton = runtime.start(&origin, &[]);
    keep(&baton, "/fresh", "");
    std::fs::write(
        &file,
        text.replace("[[listener]]", "# another\n[[listener]]"),
    )
    .unwrap();
    assert_eq!(explain().code, Some(1));
    let text = text.lines().filter(|line| !line.starts_with("address"));
    let address = format!("[[listener]]\naddress = \"{}\"", baton.address());
    let text: Vec<_> = text.collect();
    let text = text.join("\n").replace("[[listener]]", &address);
    std::fs::write(&file, text).unwrap();
    assert_eq!(explain().code, Some(0), "{}", explain().err);
}
