//! The views for operators: every example in the documentation runs, and says what is there.

use super::start;
use crate::support::origin::ok;
use crate::support::{Origin, PostgresServer, eventually, examples};

#[test]
fn each_example_of_the_documentation_finds_something() {
    let server = PostgresServer::start();
    let origin = Origin::start(|request| {
        let vary = match request.target.as_str() {
            "/vary" => "Vary: Accept-Language\r\n",
            _ => "",
        };
        let fields = format!("Cache-Control: max-age=600\r\nSurrogate-Key: news\r\n{vary}");
        ok(&fields, vec![b'x'; 1000])
    });
    let baton = start(&origin, &server, &["--workers", "1"]);
    for target in ["/vary", "/one?a/b", "/caf%C3%A9"] {
        eventually(&format!("{target} is kept"), || {
            let mut client = baton.client();
            client.get(target).is_hit().then_some(())
        });
    }
    let examples = examples("PostgreSQL");
    assert!(examples.len() >= 7, "{examples:?}");
    for example in &examples {
        let count = format!("SELECT count(*) FROM ({example}) AS example");
        assert!(server.number(&count) > 0, "{example}");
    }
    let number = |sql: &str| server.number(sql);
    let site = "FROM baton_cache_sites WHERE site = 'http://a.example'";
    assert_eq!(number(&format!("SELECT objects {site}")), 3);
    assert_eq!(number(&format!("SELECT length {site}")), 3000);
    let of = |what: &str| {
        number(&format!(
            "SELECT count(*) FROM baton_cache_objects WHERE {what}"
        ))
    };
    assert_eq!(
        of("url = 'http://a.example/one?a/b' AND side = 'reverse'"),
        1
    );
    assert_eq!(of("kind = 'variant' AND tags = '{news}'"), 1);
    assert_eq!(
        of("expires > stored AND used >= stored AND status = 200"),
        3
    );
    assert_eq!(number("SELECT count(*) FROM baton_cache_oldest"), 3);
    server.execute("SELECT baton_purge_all()");
    assert_eq!(of("true"), 0);
}
