//! The views of the catalogue: every example in the documentation runs, and says what is there.

use rusqlite::{Connection, OpenFlags};

use crate::support::origin::ok;
use crate::support::{Baton, Origin, eventually, examples};

#[test]
fn each_example_of_the_documentation_finds_something() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("cache");
    let origin = Origin::start(|request| {
        let vary = match request.target.as_str() {
            "/vary" => "Vary: Accept-Language\r\n",
            _ => "",
        };
        let fields = format!("Cache-Control: max-age=600\r\n{vary}");
        ok(&fields, vec![b'x'; 1000])
    });
    let cache = format!("dir:{}", path.display());
    let baton = Baton::reverse(origin.address(), &["--workers", "1", "--cache", &cache]);
    for target in ["/vary", "/one?a/b", "/caf%C3%A9"] {
        eventually(&format!("{target} is kept"), || {
            baton.client().get(target).is_hit().then_some(())
        });
    }
    // One is found more often, and that once only, from memory, at that.
    for _ in 0..40 {
        assert!(baton.client().get("/one?a/b").is_hit());
    }
    let catalogue = path.join("catalogue.sqlite");
    let number = |sql: &str| {
        let opened = Connection::open_with_flags(&catalogue, OpenFlags::SQLITE_OPEN_READ_ONLY);
        let number = opened.and_then(|it| it.query_row(sql, [], |row| row.get::<_, i64>(0)));
        number.unwrap_or_else(|error| panic!("{sql}: {error}"))
    };
    let of = |what: &str| number(&format!("SELECT count(*) FROM cache_objects WHERE {what}"));
    eventually("the catalogue knows of it", || {
        (of("true") == 3).then_some(())
    });
    let examples = examples("Asking in SQL");
    assert!(examples.len() >= 6, "{examples:?}");
    let found_once = "url = 'http://a.example/vary' AND hits >= 1";
    for example in &examples {
        // What was never found is none of these.
        let some = !example.contains("hits = 0");
        let count = number(&format!("SELECT count(*) FROM ({example}) AS example"));
        assert!(count > 0 || !some, "{example}");
    }
    let site = "FROM cache_sites WHERE site = 'http://a.example'";
    assert_eq!(number(&format!("SELECT objects {site}")), 3);
    assert_eq!(number(&format!("SELECT length {site}")), 3000);
    assert_eq!(
        of("url = 'http://a.example/one?a/b' AND side = 'reverse'"),
        1
    );
    assert_eq!(of("kind = 'variant' AND url LIKE '%/vary'"), 1);
    assert_eq!(
        of("expires > stored AND used >= stored AND status = 200"),
        3
    );
    assert_eq!(number("SELECT count(*) FROM cache_oldest"), 3);
    eventually("what is found is counted", || {
        // It asks for the catalogue to be brought up to date.
        let listed = crate::support::Ended::of(
            std::process::Command::new(crate::support::baton::BATON).args([
                "cache", "ls", "--sort", "hits", "--limit", "1", "--json", "--cache", &cache,
            ]),
        );
        let first: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
        let is_counted = of("url LIKE '%/one?a/b' AND hits >= 40") == 1;
        (is_counted && first["url"] == "http://a.example/one?a/b" && of(found_once) == 1)
            .then_some(())
    });
}
