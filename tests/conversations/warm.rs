//! `baton cache warm`: lists and sitemaps, fetched through a proxy.

use std::process::Command;

use serde_json::Value;

use crate::support::baton::BATON;
use crate::support::origin::{Request, answer, ok};
use crate::support::{Baton, Ended, Origin};

const FRESH: &str = "Cache-Control: max-age=600\r\n";

/// A site with sitemaps in one another, and pages that fail.
fn site() -> Origin {
    let failures = std::sync::atomic::AtomicU32::new(0);
    Origin::start(move |request: &Request| {
        let host = request.field("host").unwrap();
        let location = |path: &str| format!("<loc>http://{host}{path}</loc>");
        match request.target.as_str() {
            "/index.xml" => {
                let (one, own) = (location("/map.xml"), location("/index.xml"));
                let index = format!(
                    "<sitemapindex><sitemap>{one}</sitemap><sitemap>{own}</sitemap></sitemapindex>"
                );
                ok(FRESH, index)
            }
            "/map.xml" => {
                let pages = (0..20).map(|n| format!("<url>{}</url>", location(&format!("/{n}"))));
                ok(
                    "",
                    format!("<urlset>{}</urlset>", pages.collect::<String>()),
                )
            }
            "/broken" => Vec::new(),
            "/gone" => answer("404 Not Found", "", "no"),
            "/later" if failures.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 1 => {
                answer("503 Service Unavailable", "Retry-After: 0\r\n", "not yet")
            }
            "/own" => ok(
                "Cache-Control: private\r\n",
                request.field("x-who").unwrap_or_default(),
            ),
            target => ok(FRESH, target),
        }
    })
}

fn warm(baton: &Baton, arguments: &[&str]) -> Ended {
    let through = baton.address().to_string();
    let own = ["cache", "warm", "--through", &through];
    Ended::of(Command::new(BATON).args([&own, arguments].concat()))
}

fn lines(ended: &Ended) -> Vec<Value> {
    let lines = ended.out.lines();
    let mut read: Vec<Value> = lines.map(|it| serde_json::from_str(it).unwrap()).collect();
    read.sort_by_key(|line| line["url"].as_str().map(str::to_owned));
    read
}

#[test]
fn all_of_a_site_is_fetched_once_and_then_there() {
    let origin = site();
    let baton = Baton::forward(origin.address(), &["--cache", "memory", "--workers", "1"]);
    let first = warm(&baton, &[&origin.url("/index.xml")]);
    assert_eq!(first.code, Some(0), "{}{}", first.out, first.err);
    assert!(first.out.starts_with("22 URLs in "), "{}", first.out);
    assert!(
        first
            .out
            .contains("21 stored, 0 were there already, 1 may not be stored, 0 failed")
    );
    let again = warm(&baton, &[&origin.url("/index.xml"), "--concurrency", "1"]);
    assert!(
        again
            .out
            .contains(": 0 stored, 21 were there already, 1 may not"),
        "{}",
        again.out
    );
    for n in 0..20 {
        assert_eq!(origin.count(&format!("/{n}")), 1);
    }
}

#[test]
fn what_fails_is_tried_again_or_named() {
    let origin = site();
    let baton = Baton::forward(origin.address(), &["--cache", "memory", "--workers", "1"]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("list");
    let broken = &origin.url("/broken");
    let urls = ["/gone", "/later", "/own"].map(|path| origin.url(path));
    let list = format!(
        "# a list\n{}\n{broken}\nhttps://a.example/\n",
        urls.join("\n")
    );
    std::fs::write(&file, list).unwrap();
    let file = file.to_str().unwrap();
    let ended = warm(
        &baton,
        &[file, "--json", "--retries", "1", "-H", "X-Who: me"],
    );
    assert_eq!(ended.code, Some(5), "{}{}", ended.out, ended.err);
    let lines = lines(&ended);
    let of = |url: &str| lines.iter().find(|line| line["url"] == url).unwrap();
    assert_eq!(
        (&of(&urls[0])["status"], &of(&urls[0])["tries"]),
        (&404.into(), &1.into())
    );
    assert_eq!(
        (&of(&urls[1])["cache"], &of(&urls[1])["tries"]),
        (&"stored".into(), &2.into())
    );
    assert_eq!(of(&urls[1])["error"], Value::Null);
    assert_eq!(
        (&of(&urls[2])["cache"], &of(&urls[2])["octets"]),
        (&"not-stored".into(), &2.into())
    );
    assert_eq!(
        (&of(broken)["status"], &of(broken)["tries"]),
        (&502.into(), &2.into())
    );
    assert!(
        of("https://a.example/")["error"]
            .as_str()
            .unwrap()
            .contains("--http")
    );
    let people = warm(&baton, &[file, "--retries", "0"]);
    assert!(
        people.out.contains(&format!("404  {}  ", urls[0])),
        "{}",
        people.out
    );
    assert!(people.out.contains("3 failed"), "{}", people.out);
}

#[test]
fn where_nobody_listens_it_says_how_to_name_the_proxy() {
    let ended = Ended::of(Command::new(BATON).args([
        "cache",
        "warm",
        "--through",
        "127.0.0.1:1",
        "/dev/null",
    ]));
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.err.contains("no proxy answers at 127.0.0.1:1"),
        "{}",
        ended.err
    );
    assert!(ended.err.contains("--through"), "{}", ended.err);
}
