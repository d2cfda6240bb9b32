//! Purges of many at once, in a database: by tag, prefix and regular expression, softly, and of what is on its way.

use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use super::start;
use crate::support::baton::BATON;
use crate::support::gate::Gate;
use crate::support::origin::{answer, ok};
use crate::support::{Baton, Ended, Origin, PostgresServer, eventually};

pub fn cache(server: &PostgresServer, arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let url = server.url();
    let flags = [&["cache"], arguments, &["--json", "--cache", &url]].concat();
    let ended = Ended::of(Command::new(BATON).args(flags));
    assert_eq!(ended.err, "");
    let lines = ended.out.lines();
    let lines = lines.map(|line| serde_json::from_str(line).unwrap());
    (ended.code, lines.collect())
}

fn urls(listed: &[Value]) -> Vec<&str> {
    let urls = listed.iter().map(|item| item["url"].as_str().unwrap());
    let mut urls: Vec<_> = urls.collect();
    urls.sort_unstable();
    urls
}

/// What stands behind `?` are tags; validated by an entity tag.
fn origin() -> Origin {
    Origin::start(|request| {
        let tags = request.target.split('?').nth(1).unwrap_or_default();
        let fields = format!("Cache-Control: max-age=600\r\nETag: \"a\"\r\nCache-Tag: {tags}\r\n");
        match request.field("if-none-match") {
            Some(_) => answer("304 Not Modified", &fields, ""),
            None => ok(&fields, "hello"),
        }
    })
}

fn keep(baton: &Baton, target: &str) {
    eventually(&format!("{target} is kept"), || {
        baton.client().get(target).is_hit().then_some(())
    });
}

fn is_gone(baton: &Baton, target: &str) -> bool {
    let only = "Cache-Control: only-if-cached\r\n";
    baton.client().get_with(target, only).status == 504
}

const TARGETS: [&str; 5] = [
    "/news/1?a,b",
    "/news/2?b",
    "/style.css?c",
    "/other?ab",
    "/%FF?",
];

#[test]
fn what_has_a_tag_a_beginning_or_a_pattern_vanishes_from_all_nodes() {
    let server = PostgresServer::start();
    let origin = origin();
    let flags = ["--workers", "1"];
    let nodes = [
        start(&origin, &server, &flags),
        start(&origin, &server, &flags),
    ];
    for (what, gone) in [
        (&["--tag", "a"][..], &[0][..]),
        (&["--tag", "b", "--tag", "c", "--tag", "z"], &[0, 1, 2]),
        (&["--prefix", "A.example/news/"], &[0, 1]),
        (&["--regex", r"\.css\?|^http://a\.example/o"], &[2, 3]),
        (&["--regex", "nothing"], &[]),
        (&["--tag", "z"], &[]),
    ] {
        for node in &nodes {
            TARGETS.iter().for_each(|target| keep(node, target));
        }
        let (code, purged) = cache(&server, &[&["purge"], what].concat());
        assert_eq!(purged[0]["objects"], gone.len(), "{what:?}");
        assert_eq!(code, Some(if gone.is_empty() { 3 } else { 0 }));
        for node in &nodes {
            for (n, target) in TARGETS.iter().enumerate() {
                match gone.contains(&n) {
                    true => eventually(&format!("{target} is gone by {what:?}"), || {
                        is_gone(node, target).then_some(())
                    }),
                    false => keep(node, target),
                }
            }
        }
        let (_, left) = cache(&server, &["ls"]);
        assert_eq!(left.len(), TARGETS.len() - gone.len(), "{what:?}");
    }
    let (_, tagged) = cache(&server, &["ls", "--tag", "a", "--tag", "c"]);
    assert_eq!(
        urls(&tagged),
        [
            "http://a.example/news/1?a,b",
            "http://a.example/style.css?c"
        ]
    );
    let (_, begun) = cache(&server, &["ls", "--prefix", "http://a.example/n"]);
    assert_eq!(begun.len(), 2);
}

#[test]
fn what_is_purged_softly_stays_and_is_validated_when_it_is_asked_for() {
    let server = PostgresServer::start();
    let origin = origin();
    let baton = start(&origin, &server, &["--workers", "1"]);
    for what in [
        &["--tag", "b"][..],
        &["--all"],
        &["http://a.example/news/2?b"],
    ] {
        keep(&baton, TARGETS[1]);
        let before = origin.count(TARGETS[1]);
        let (code, purged) = cache(&server, &[&["purge", "--soft"], what].concat());
        assert_eq!(
            (code, &purged[0]["soft"]),
            (Some(0), &true.into()),
            "{purged:?}"
        );
        assert_eq!(purged[0]["objects"], 1, "{purged:?}");
        let (_, stale) = cache(&server, &["ls", "--stale"]);
        assert_eq!(urls(&stale), ["http://a.example/news/2?b"]);
        let validated = eventually("the node has heard of it", || {
            let response = baton.client().get(TARGETS[1]);
            (!response.is_hit() || origin.count(TARGETS[1]) > before).then_some(response)
        });
        let status = validated.field("cache-status").unwrap();
        assert!(status.contains("fwd=stale"), "{status}");
        assert_eq!(validated.text(), "hello");
        let asked = origin.requests();
        assert!(asked.last().unwrap().field("if-none-match").is_some());
        // And is fresh again.
        keep(&baton, TARGETS[1]);
        assert!(cache(&server, &["ls", "--stale"]).1.is_empty());
        assert_eq!(origin.count(TARGETS[1]), before + 1, "{what:?}");
    }
}

#[test]
fn what_is_being_fetched_meanwhile_is_not_kept() {
    let server = PostgresServer::start();
    let (asked, gate) = (Arc::new(Gate::new()), Arc::new(Gate::new()));
    let (own_asked, own_gate) = (asked.clone(), gate.clone());
    let origin = Origin::start(move |request| {
        if request.target == "/slow" && !own_gate.is_open() {
            own_asked.open();
            own_gate.wait();
            return ok(
                "Cache-Control: max-age=600\r\nSurrogate-Key: x y\r\n",
                "old",
            );
        }
        ok(
            "Cache-Control: max-age=600\r\nSurrogate-Key: x y\r\n",
            "new",
        )
    });
    let baton = start(&origin, &server, &["--workers", "1"]);
    keep(&baton, "/connected");
    let mut client = baton.client();
    client.send("GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n");
    asked.wait();
    let (code, _) = cache(&server, &["purge", "--tag", "y"]);
    assert_eq!(code, Some(0), "the other one has it");
    gate.open();
    assert_eq!(client.response().text(), "old", "it was asked for before");
    assert_eq!(baton.client().get("/slow").text(), "new");
    keep(&baton, "/slow");
    assert_eq!(baton.client().get("/slow").text(), "new");
}
