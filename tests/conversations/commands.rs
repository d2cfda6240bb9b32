//! `baton cache`: against a running instance and against a directory at rest.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::baton::{BATON, has_ended};
use crate::support::origin::ok;
use crate::support::{Baton, Ended, Origin, eventually};

const FRESH: &str = "Cache-Control: max-age=600\r\n";

/// A cache directory that outlives the instances that use it.
struct Directory {
    temporary: tempfile::TempDir,
}

impl Directory {
    fn new() -> Directory {
        Directory {
            temporary: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.temporary.path().join("cache")
    }

    fn flag(&self) -> String {
        format!("dir:{}", self.path().display())
    }

    fn reverse(&self, origin: &Origin) -> Baton {
        Baton::reverse(origin.address(), &["--cache", &self.flag()])
    }

    /// `baton cache ARGUMENTS` on it.
    fn cache(&self, arguments: &[&str]) -> Ended {
        cache(&[arguments, &["--cache", &self.flag()]].concat())
    }

    /// The same with `--json`: each line of what it printed.
    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let ended = self.cache(&[arguments, &["--json"]].concat());
        let lines = ended.out.lines();
        let read = lines.map(|line| serde_json::from_str(line).unwrap());
        let values: Vec<Value> = read.collect();
        assert!(!values.is_empty() || arguments == ["ls"], "{}", ended.err);
        values
    }

    /// Files that hold heads and bodies.
    fn files(&self) -> Vec<PathBuf> {
        let directories = entries(&self.path().join("objects")).into_iter();
        directories
            .flat_map(|directory| entries(&directory))
            .collect()
    }
}

fn entries(path: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(path).into_iter().flatten().flatten();
    listed.map(|entry| entry.path()).collect()
}

fn cache(arguments: &[&str]) -> Ended {
    run(&[&["cache"], arguments].concat())
}

fn run(arguments: &[&str]) -> Ended {
    Ended::of(Command::new(BATON).args(arguments))
}

/// 400,000 octets below `/large`, five elsewhere; by language below `/vary`.
fn origin() -> Origin {
    Origin::start(|request| {
        let target = request.target.clone();
        if target.starts_with("/large") {
            return ok(FRESH, vec![b'x'; 400_000]);
        }
        if target.starts_with("/vary") {
            let language = request.field("accept-language").unwrap_or_default();
            return ok(&format!("{FRESH}Vary: Accept-Language\r\n"), language);
        }
        ok(FRESH, "hello")
    })
}

/// Asks until it is answered from the cache.
fn keep(baton: &Baton, target: &str, fields: &str) {
    eventually(&format!("{target} is kept"), || {
        baton
            .client()
            .get_with(target, fields)
            .is_hit()
            .then_some(())
    });
}

/// The URL of something that was asked for through a client of the tests.
fn url(path: &str) -> String {
    format!("http://a.example{path}")
}

fn urls(listed: &[Value]) -> Vec<&str> {
    let mut urls: Vec<_> = listed
        .iter()
        .map(|item| item["url"].as_str().unwrap())
        .collect();
    urls.sort_unstable();
    urls
}

#[test]
fn figures_and_lists_are_up_to_date_and_the_same_at_rest() {
    let (origin, directory) = (origin(), Directory::new());
    let baton = directory.reverse(&origin);
    keep(&baton, "/small", "");
    keep(&baton, "/large", "");
    let running = &eventually("the files have been read", || {
        let stats = directory.json(&["stats"]).remove(0);
        (stats["catalogue"] == "complete").then_some(stats)
    });
    assert_eq!(running["running"], true);
    assert_eq!(running["objects"], 2);
    assert_eq!(running["content"], 400_005);
    assert!(running["limit"].as_u64().unwrap() > running["size"].as_u64().unwrap());
    assert!(running["counters"]["hits"].as_u64().unwrap() >= 2);
    let pid = format!("pid {}", baton.master());
    assert!(running["holder"].as_str().unwrap().contains(&pid));
    let listed = directory.json(&["ls"]);
    assert_eq!(urls(&listed), [url("/large"), url("/small")]);
    let large = listed
        .iter()
        .find(|item| item["length"] == 400_000)
        .unwrap();
    assert_eq!(
        (&large["side"], &large["kind"]),
        (&"reverse".into(), &"object".into())
    );
    baton.stop();
    let at_rest = &directory.json(&["stats"])[0];
    assert_eq!(at_rest["running"], false);
    assert_eq!(at_rest["counters"], Value::Null);
    for same in ["objects", "content", "generation", "catalogue", "directory"] {
        assert_eq!(at_rest[same], running[same], "{same}");
    }
    assert_eq!(
        urls(&directory.json(&["ls"])),
        [url("/large"), url("/small")]
    );
    let table = directory.cache(&["ls"]).out;
    assert!(
        table.contains("LENGTH") && table.contains(&url("/large")),
        "{table}"
    );
    assert!(directory.cache(&["stats"]).out.contains("at rest"));
}

#[test]
fn the_socket_goes_with_the_instance_and_one_that_was_left_misleads_nobody() {
    let (origin, directory) = (origin(), Directory::new());
    let socket = directory.path().join("control");
    let baton = directory.reverse(&origin);
    keep(&baton, "/small", "");
    let holder = directory.json(&["stats"])[0]["holder"].clone();
    let address = format!(" http://{}", baton.address());
    assert!(holder.as_str().unwrap().ends_with(&address), "{holder}");
    baton.stop();
    assert!(!socket.exists());
    assert!(directory.cache(&["stats"]).out.contains("at rest"));
    let mut baton = directory.reverse(&origin);
    let janitor = baton.janitor();
    eventually("there is a socket", || socket.exists().then_some(()));
    baton.signal(baton.master(), "KILL");
    baton.wait();
    eventually("the janitor has ended", || has_ended(janitor).then_some(()));
    assert!(socket.exists());
    assert!(directory.cache(&["stats"]).out.contains("at rest"));
    for arguments in [&["verify"][..], &["ls"], &["purge", &url("/small")]] {
        let ended = directory.cache(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.err);
    }
}

#[test]
fn what_is_kept_of_a_url_is_shown_with_all_its_variants() {
    let (origin, directory) = (origin(), Directory::new());
    let baton = directory.reverse(&origin);
    keep(&baton, "/vary", "Accept-Language: de\r\n");
    keep(&baton, "/vary", "Accept-Language: fi\r\n");
    let show = |directory: &Directory| {
        let shown = directory.json(&["show", &url("/vary")]).remove(0);
        let found = shown["found"].as_array().unwrap().clone();
        assert_eq!(found.len(), 3, "a list and two variants: {shown}");
        assert_eq!(found[0]["kind"], "list");
        let mut languages: Vec<_> = found[1..]
            .iter()
            .map(|entry| {
                entry["response"]["selected_by"][0][1]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        languages.sort();
        assert_eq!(languages, ["de", "fi"]);
        for entry in &found {
            assert_eq!(entry["trouble"], Value::Null);
            let file = entry["files"][0].as_str().unwrap();
            assert!(directory.path().join(file).exists());
        }
    };
    show(&directory);
    baton.stop();
    show(&directory);
    let ended = directory.cache(&["show", &url("/other")]);
    assert_eq!(ended.code, Some(3));
    assert!(
        ended
            .out
            .contains("nothing is kept of http://a.example/other"),
        "{}",
        ended.out
    );
}

#[test]
fn what_explain_says_is_what_a_client_then_gets() {
    let (origin, directory) = (origin(), Directory::new());
    let baton = directory.reverse(&origin);
    keep(&baton, "/small", "");
    keep(&baton, "/vary", "Accept-Language: de\r\n");
    let explain = |target: &str, fields: &[&str]| {
        let (flag, url) = (directory.flag(), url(target));
        let mut arguments = vec!["explain", "--json", "--cache", &flag];
        for field in fields {
            arguments.extend(["-H", field]);
        }
        arguments.push(&url);
        let ended = run(&arguments);
        let told: Value = serde_json::from_str(&ended.out).expect(&ended.err);
        (told["sides"][0].clone(), ended.code)
    };
    // Age moves on between the two, and what becomes of a miss is what the origin server decides.
    let reason = |status: &str| {
        let members = status.split("; ");
        let reason = members.filter(|it| !it.starts_with("ttl=") && *it != "stored");
        reason.collect::<Vec<_>>().join("; ")
    };
    for (target, fields, outcome) in [
        ("/small", &[][..], "hit"),
        ("/small", &["Range: bytes=1-2"], "hit"),
        ("/small", &["Cache-Control: min-fresh=900"], "miss"),
        ("/small", &["Cache-Control: no-store"], "pass"),
        ("/small", &["Authorization: Basic YQ=="], "hit"),
        ("/vary", &["accept-language:de"], "hit"),
        (
            "/vary",
            &["Accept-Language: fi", "Cache-Control: no-store"],
            "pass",
        ),
        ("/vary", &["Accept-Language: sv"], "miss"),
        ("/never", &[], "miss"),
    ] {
        let (told, code) = explain(target, fields);
        assert_eq!(told["outcome"], outcome, "{target} {fields:?}: {told}");
        assert_eq!(code, Some(if target == "/never" { 3 } else { 0 }));
        let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let answer = baton.client().get_with(target, &lines);
        let said = reason(&answer.field("cache-status").unwrap());
        let told = reason(told["cache_status"].as_str().unwrap());
        assert_eq!(said, told, "{target} {fields:?}");
    }
    baton.stop();
    let (told, _) = explain("/small", &[]);
    assert_eq!(told["key"], "reverse http://a.example/small");
    let freshness = &told["found"][0]["freshness"];
    assert_eq!(freshness["freshness_lifetime"], 600, "{told}");
    let left = 600 - freshness["current_age"].as_i64().unwrap();
    assert_eq!(freshness["remaining"], left);
    let wrong = run(&["explain", "-H", "no colon", &url("/")]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.err.contains("Name: value"), "{}", wrong.err);
}

#[test]
fn a_purged_url_is_fetched_again_and_its_files_and_space_are_free() {
    let (origin, directory) = (origin(), Directory::new());
    let baton = directory.reverse(&origin);
    for target in ["/large", "/small", "/vary"] {
        keep(&baton, target, "");
    }
    for (target, count) in [("/large", 1), ("/small", 1), ("/vary", 1)] {
        let purged = &directory.json(&[
            "purge",
            &url(target)
                .to_uppercase()
                .replace(&target.to_uppercase(), target),
        ])[0];
        assert_eq!(purged["objects"], count, "{target}: {purged}");
        let before = origin.count(target);
        let answer = baton
            .client()
            .get_with(target, "Cache-Control: only-if-cached\r\n");
        assert_eq!(answer.status, 504, "{target}");
        assert!(!baton.client().get(target).is_hit());
        assert_eq!(origin.count(target), before + 1);
    }
    for target in ["/large", "/small", "/vary"] {
        keep(&baton, target, "");
        directory.cache(&["purge", &url(target)]);
    }
    assert!(directory.files().is_empty());
    eventually("the space is free", || {
        (directory.json(&["stats"])[0]["size"] == 0).then_some(())
    });
    assert!(directory.json(&["ls"]).is_empty());
    assert_eq!(directory.cache(&["purge", &url("/small")]).code, Some(3));
}

#[test]
fn a_url_is_purged_on_the_forward_side_and_at_rest() {
    let (origin, directory) = (origin(), Directory::new());
    let flags = ["--cache", &directory.flag()];
    let baton = Baton::forward(origin.address(), &flags);
    let target = origin.url("/small");
    keep(&baton, &target, "");
    assert_eq!(directory.json(&["purge", &target])[0]["objects"], 1);
    assert!(!baton.client().get(&target).is_hit());
    keep(&baton, &target, "");
    baton.stop();
    assert_eq!(directory.cache(&["purge", &target]).code, Some(0));
    assert_eq!(directory.cache(&["purge", &target]).code, Some(3));
    assert!(directory.json(&["ls"]).is_empty());
    let baton = Baton::forward(origin.address(), &flags);
    assert!(!baton.client().get(&target).is_hit());
}

#[test]
fn everything_is_purged_at_once_and_the_files_go() {
    let (origin, directory) = (origin(), Directory::new());
    let baton = directory.reverse(&origin);
    let targets: Vec<_> = (0..20).map(|n| format!("/small/{n}")).collect();
    for target in &targets {
        keep(&baton, target, "");
    }
    keep(&baton, "/large", "");
    let purged = &directory.json(&["purge", "--all"])[0];
    assert_eq!(
        (&purged["url"], &purged["objects"]),
        (&Value::Null, &21.into())
    );
    assert!(directory.files().is_empty(), "it waits until they are gone");
    for target in &targets {
        assert!(!baton.client().get(target).is_hit(), "{target}");
    }
    keep(&baton, "/small/0", "");
    baton.stop();
    let baton = directory.reverse(&origin);
    assert!(
        baton.client().get("/small/0").is_hit(),
        "it came after the purge"
    );
    assert!(!baton.client().get("/large").is_hit());
    baton.stop();
    assert_eq!(directory.cache(&["purge", "--all"]).code, Some(0));
    assert!(directory.files().is_empty());
    let baton = directory.reverse(&origin);
    assert!(!baton.client().get("/small/0").is_hit());
}

#[test]
fn a_check_finds_a_flipped_octet_that_serving_has_not_seen() {
    let (origin, directory) = (origin(), Directory::new());
    let baton = directory.reverse(&origin);
    keep(&baton, "/large", "");
    keep(&baton, "/small", "");
    let fine = directory.cache(&["verify"]);
    assert_eq!((fine.code, fine.err.as_str()), (Some(0), ""));
    assert!(fine.out.contains("none is damaged"), "{}", fine.out);
    damage_body(&directory);
    let ended = directory.cache(&["verify", "--json"]);
    assert_eq!(ended.code, Some(4));
    let verified: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(
        (&verified["checked"], &verified["damaged"]),
        (&2.into(), &1.into())
    );
    assert_eq!(verified["damage"][0]["url"], *url("/large"));
    let again = baton.client().get("/large");
    assert!(!again.is_hit() && again.body == vec![b'x'; 400_000]);
    keep(&baton, "/large", "");
    baton.stop();
    damage_body(&directory);
    assert_eq!(directory.cache(&["verify"]).code, Some(4));
    assert_eq!(directory.cache(&["verify"]).code, Some(0));
    assert_eq!(urls(&directory.json(&["ls"])), [url("/small")]);
}

/// Changes an octet of the only body that has a file, and nothing by which that would show.
fn damage_body(directory: &Directory) {
    let files = directory.files();
    let body = files
        .iter()
        .find(|path| path.extension().is_some())
        .unwrap();
    let modified = std::fs::metadata(body).unwrap().modified().unwrap();
    let mut octets = std::fs::read(body).unwrap();
    octets[50_000] ^= 1;
    std::fs::write(body, octets).unwrap();
    let file = std::fs::File::options().append(true).open(body).unwrap();
    file.set_modified(modified).unwrap();
}

#[test]
fn what_is_no_cache_is_named_and_left_alone() {
    let directory = Directory::new();
    let ended = directory.cache(&["stats"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("there is no cache in"), "{}", ended.err);
    assert!(!directory.path().exists());
    std::fs::create_dir(directory.path()).unwrap();
    let ended = directory.cache(&["purge", "--all"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("no cache of baton's"), "{}", ended.err);
    assert!(entries(&directory.path()).is_empty());
    let ended = cache(&["stats", "--cache", "off"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("--cache dir:PATH"), "{}", ended.err);
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let directory = Directory::new();
    for arguments in [
        &["purge"][..],
        &["purge", "http://a/", "--all"],
        &["purge", "https://a/"],
        &["show", "no url"],
        &["dance"],
    ] {
        let ended = directory.cache(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.err);
    }
}

#[test]
fn the_directory_may_come_from_a_configuration_file() {
    let (origin, directory) = (origin(), Directory::new());
    directory.reverse(&origin).stop();
    let file = directory.temporary.path().join("proxy.conf");
    std::fs::write(
        &file,
        format!("[cache]\nstore = \"{}\"\n", directory.flag()),
    )
    .unwrap();
    let ended = cache(&["stats", "--json", "-c", file.to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let stats: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(stats["directory"], *directory.path().to_str().unwrap());
}

#[test]
fn commands_go_on_when_the_janitor_is_replaced() {
    let (origin, directory) = (origin(), Directory::new());
    let baton = directory.reverse(&origin);
    keep(&baton, "/small", "");
    let janitor = baton.janitor();
    baton.signal(janitor, "KILL");
    assert_eq!(directory.json(&["purge", &url("/small")])[0]["objects"], 1);
    assert!(!baton.client().get("/small").is_hit());
    eventually("there is another janitor", || {
        (directory.json(&["stats"])[0]["running"] == true).then_some(())
    });
}
