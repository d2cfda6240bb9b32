//! `baton cache` and `baton explain` on a database: of their own, where no instance runs, and by way of one.

use std::process::Command;

use serde_json::Value;

use super::{answer, content, is_kept, start};
use crate::support::baton::BATON;
use crate::support::origin::ok;
use crate::support::{Baton, Ended, Origin, PostgresServer, eventually};

/// `baton ARGUMENTS`, on the database.
fn run(server: &PostgresServer, arguments: &[&str]) -> Ended {
    Ended::of(Command::new(BATON).args([arguments, &["--cache", &server.url()]].concat()))
}

fn lines(ended: &Ended) -> Vec<Value> {
    let lines = ended.out.lines();
    lines
        .map(|line| serde_json::from_str(line).expect(&ended.err))
        .collect()
}

fn json(server: &PostgresServer, arguments: &[&str]) -> Vec<Value> {
    let ended = run(server, &[arguments, &["--json"]].concat());
    assert!(
        ended.err.is_empty() && ended.code == Some(0),
        "{:?}: {}",
        ended.code,
        ended.err
    );
    lines(&ended)
}

/// The URL of something that was asked for through a client of the tests.
fn url(path: &str) -> String {
    format!("http://a.example{path}")
}

fn urls(listed: &[Value]) -> Vec<&str> {
    let urls = listed.iter().map(|item| item["url"].as_str().unwrap());
    let mut urls: Vec<_> = urls.collect();
    urls.sort_unstable();
    urls
}

/// By language, fresh for long.
fn by_language() -> Origin {
    Origin::start(|request| {
        let language = request.field("accept-language").unwrap_or_default();
        ok(
            "Cache-Control: max-age=600\r\nVary: Accept-Language\r\n",
            language,
        )
    })
}

fn keep(baton: &Baton, target: &str, fields: &str) {
    eventually(&format!("{target} is kept"), || {
        let mut client = baton.client();
        client.get_with(target, fields).is_hit().then_some(())
    });
}

#[test]
fn a_database_is_looked_into_where_no_instance_runs() {
    let server = PostgresServer::start();
    let origin = Origin::start(answer);
    let baton = start(&origin, &server, &[]);
    let targets = ["/size/10", "/size/300000", "/size/2500000"];
    targets.iter().for_each(|target| is_kept(&baton, target));
    assert_eq!(json(&server, &["cache", "stats"])[0]["running"], true);
    baton.stop();
    let stats = json(&server, &["cache", "stats"]).remove(0);
    assert_eq!(
        (&stats["store"], &stats["running"], &stats["directory"]),
        (&"postgres".into(), &false.into(), &Value::Null)
    );
    assert_eq!(
        (&stats["objects"], &stats["content"]),
        (&3.into(), &2_800_010.into())
    );
    assert!(stats["database"].as_str().unwrap().contains("postgres"));
    let table = run(&server, &["cache", "stats"]).out;
    assert!(
        table.contains("in the database") && table.contains("at rest"),
        "{table}"
    );
    let listed = json(&server, &["cache", "ls"]);
    let mut all = targets.map(url);
    all.sort();
    assert_eq!(urls(&listed), all);
    assert!(
        listed.iter().all(|item| item["used"].is_i64()),
        "{listed:?}"
    );
    let largest = json(&server, &["cache", "ls", "--sort", "size", "--limit", "1"]);
    assert_eq!(urls(&largest), [url(targets[2])]);
    assert_eq!(largest[0]["side"], "reverse");
    let shown = json(&server, &["cache", "show", &url(targets[2])]).remove(0);
    let entry = &shown["found"][0];
    assert_eq!(entry["trouble"], Value::Null, "{shown}");
    assert!(entry["rows"][1].as_str().unwrap().ends_with("(3)"));
    assert_eq!(entry["response"]["length"], 2_500_000);
    let text = run(&server, &["cache", "show", &url(targets[2])]).out;
    assert!(text.contains("baton_pieces"), "{text}");
    assert_eq!(
        run(&server, &["cache", "show", &url("/never")]).code,
        Some(3)
    );

    let explained = json(&server, &["explain", &url(targets[0])]).remove(0);
    assert_eq!(explained["sides"][0]["outcome"], "hit", "{explained}");
    assert_eq!(run(&server, &["explain", &url("/never")]).code, Some(3));

    let purged = json(&server, &["cache", "purge", &url(targets[0])]).remove(0);
    assert_eq!(purged["objects"], 1);
    let again = run(&server, &["cache", "purge", &url(targets[0])]);
    assert_eq!(again.code, Some(3), "{}", again.err);
    let purged = json(&server, &["cache", "purge", "--all"]).remove(0);
    assert_eq!(purged["objects"], 2);
    // Nobody runs who would do it: the command has swept.
    for table in ["objects", "pieces", "orphans"] {
        assert_eq!(
            server.number(&format!("SELECT count(*) FROM baton_{table}")),
            0,
            "{table}"
        );
    }
    assert!(json(&server, &["cache", "ls"]).is_empty());
}

#[test]
fn what_explain_says_of_variants_is_what_a_client_then_gets() {
    let server = PostgresServer::start();
    let origin = by_language();
    let baton = start(&origin, &server, &["--workers", "1"]);
    keep(&baton, "/vary", "Accept-Language: de\r\n");
    keep(&baton, "/vary", "Accept-Language: fi\r\n");
    let shown = json(&server, &["cache", "show", &url("/vary")]).remove(0);
    let found = shown["found"].as_array().unwrap();
    assert_eq!(found.len(), 2, "{shown}");
    assert!(found.iter().all(|entry| entry["kind"] == "variant"));
    assert_eq!(json(&server, &["cache", "stats"])[0]["lists"], 1);
    for (fields, outcome) in [
        (&["Accept-Language: de"][..], "hit"),
        (&["Accept-Language: sv"], "miss"),
        (&["Accept-Language: fi", "Cache-Control: no-store"], "pass"),
    ] {
        let url = url("/vary");
        let mut arguments = vec!["explain", &url];
        fields
            .iter()
            .for_each(|field| arguments.extend(["-H", field]));
        let told = json(&server, &arguments).remove(0);
        assert_eq!(told["sides"][0]["outcome"], outcome, "{fields:?}: {told}");
        let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let answer = baton.client().get_with("/vary", &lines);
        assert_eq!(answer.is_hit(), outcome == "hit", "{fields:?}");
    }
}

#[test]
fn a_purge_by_a_command_reaches_the_memory_of_nodes() {
    let server = PostgresServer::start();
    let origin = Origin::start(answer);
    let flags = ["--workers", "1"];
    let nodes = [
        start(&origin, &server, &flags),
        start(&origin, &server, &flags),
    ];
    let only = "Cache-Control: only-if-cached\r\n";
    for what in [
        &["cache", "purge", &url("/size/100")][..],
        &["cache", "purge", "--all"],
    ] {
        for node in &nodes {
            is_kept(node, "/size/100");
        }
        assert_eq!(json(&server, what)[0]["objects"], 1);
        for node in &nodes {
            eventually("the node has heard of it", || {
                let answer = node.client().get_with("/size/100", only);
                (answer.status == 504).then_some(())
            });
        }
    }
}

#[test]
fn a_check_finds_what_is_damaged_and_removes_it() {
    let server = PostgresServer::start();
    let origin = Origin::start(answer);
    let baton = start(&origin, &server, &["--workers", "1"]);
    let targets = ["/size/10", "/size/2500000", "/size/70", "/size/400000"];
    targets.iter().for_each(|target| is_kept(&baton, target));
    let fine = run(&server, &["cache", "verify"]);
    assert_eq!((fine.code, fine.err.as_str()), (Some(0), ""));
    assert!(
        fine.out.contains("4 objects checked") && fine.out.contains("none is damaged"),
        "{}",
        fine.out
    );
    // An octet of the last piece, of a body, and of a head.
    for sql in [
        "UPDATE baton_pieces SET octets = set_byte(octets, 3, get_byte(octets, 3) # 1) WHERE number = 2",
        "UPDATE baton_objects SET body = set_byte(body, 3, get_byte(body, 3) # 1) WHERE length = 10",
        "UPDATE baton_objects SET head = set_byte(head, 60, get_byte(head, 60) # 1) WHERE length = 70",
    ] {
        server.execute(sql);
    }
    let ended = run(&server, &["cache", "verify", "--json"]);
    assert_eq!(ended.code, Some(4), "{}", ended.err);
    let verified = lines(&ended).remove(0);
    assert_eq!(
        (&verified["checked"], &verified["damaged"]),
        (&4.into(), &3.into())
    );
    let named = verified["damage"].as_array().unwrap();
    assert_eq!(
        urls(named),
        [url("/size/10"), url("/size/2500000"), url("/size/70")]
    );
    assert_eq!(
        urls(&json(&server, &["cache", "ls"])),
        [url("/size/400000")]
    );
    for target in targets {
        let again = baton.client().get(target);
        assert!(again.body == content(target), "{target}");
        is_kept(&baton, target);
    }
    assert_eq!(run(&server, &["cache", "verify"]).code, Some(0));
}

#[test]
fn an_instance_is_asked_by_its_address_and_all_are_listed() {
    let server = PostgresServer::start();
    let origin = Origin::start(answer);
    let runtime = tempfile::tempdir().unwrap();
    let cache = server.url();
    let variable = ("XDG_RUNTIME_DIR", runtime.path().to_str().unwrap());
    let start = || {
        let baton = Baton::reverse_with(variable, origin.address(), &["--cache", &cache]);
        eventually("commands are taken", || {
            let log = baton.log("janitor.log");
            log.contains("commands are taken").then_some(())
        });
        baton
    };
    let run = |arguments: &[&str]| {
        let mut command = Command::new(BATON);
        command.args(arguments).env(variable.0, variable.1);
        command.env("XDG_CACHE_HOME", runtime.path());
        Ended::of(
            command
                .env_remove("CACHE_DIRECTORY")
                .env_remove("RUNTIME_DIRECTORY"),
        )
    };
    let one = start();
    is_kept(&one, "/size/10");
    let alone = run(&["cache", "stats", "--json"]);
    let stats = lines(&alone).pop().expect(&alone.err);
    assert!(stats["counters"]["hits"].as_u64().unwrap() >= 1, "{stats}");
    let holder = stats["holder"].as_str().unwrap();
    assert!(holder.contains(&one.address().to_string()), "{stats}");
    let two = start();
    let addresses = [&one, &two].map(|baton| baton.address().to_string());
    let which = run(&["cache", "ls"]);
    assert_eq!(which.code, Some(1));
    for address in &addresses {
        let option = format!("--instance {address}");
        assert!(which.err.contains(&option), "{}", which.err);
    }
    is_kept(&two, "/size/10");
    let purged = run(&[
        "cache",
        "purge",
        &url("/size/10"),
        "--instance",
        &addresses[1],
    ]);
    assert_eq!(purged.code, Some(0), "{}", purged.err);
    // At once where it was asked, and when the other has heard of it there.
    let only = "Cache-Control: only-if-cached\r\n";
    assert_eq!(two.client().get_with("/size/10", only).status, 504);
    eventually("the other has heard of it", || {
        (one.client().get_with("/size/10", only).status == 504).then_some(())
    });
    let verified = run(&["cache", "verify", "--json", "--instance", &addresses[0]]);
    assert_eq!(verified.code, Some(0), "{}", verified.err);
}

#[test]
fn what_is_in_the_way_is_named_and_no_password_is() {
    let mut server = PostgresServer::start();
    let url = server.url().replace("baton@", "baton:sesame@");
    let stats = || Ended::of(Command::new(BATON).args(["cache", "stats", "--cache", &url]));
    let without_tables = stats();
    assert_eq!(without_tables.code, Some(1));
    assert!(
        without_tables.err.contains("`baton migrate`"),
        "{}",
        without_tables.err
    );
    let made = Ended::of(Command::new(BATON).args(["migrate", "--cache", &url]));
    assert_eq!(made.code, Some(0), "{}", made.err);
    assert_eq!(stats().code, Some(0));
    server.signal_all("STOP");
    let hung = stats();
    server.signal_all("CONT");
    assert_eq!(hung.code, Some(1));
    assert!(hung.err.contains("does not answer"), "{}", hung.err);
    server.execute(
        "INSERT INTO baton_schema (version, name, applied_on, checksum) VALUES (999, 'later', '2030-01-01T00:00:00Z', '1')",
    );
    assert!(stats().err.contains("newer baton"), "{}", stats().err);
    server.stop();
    let down = stats();
    assert_eq!(down.code, Some(1));
    let host = server.directory().to_str().unwrap();
    assert!(
        down.err.contains(host) && down.err.contains("does it run"),
        "{}",
        down.err
    );
    for ended in [without_tables, hung, down] {
        assert!(!ended.err.contains("sesame"), "{}", ended.err);
    }
}

#[test]
fn whoever_may_not_migrate_is_told_what_helps() {
    let server = PostgresServer::start();
    server.execute(
        "CREATE ROLE guest LOGIN; CREATE SCHEMA none; GRANT USAGE ON SCHEMA none TO guest",
    );
    let migrate = |url: &str| Ended::of(Command::new(BATON).args(["migrate", "--cache", url]));
    for (user, why, remedy) in [
        ("nobody", "does not exist", "CREATE ROLE"),
        ("guest", "permission denied", "GRANT"),
    ] {
        let url = server.url_of_schema("none");
        let ended = migrate(&url.replace("baton@", &format!("{user}@")));
        assert_eq!(ended.code, Some(1));
        assert!(ended.err.contains(why), "{}", ended.err);
        assert!(ended.err.contains(remedy), "{}", ended.err);
        assert_eq!(ended.err.matches(why).count(), 1, "{}", ended.err);
    }
    for mistyped in [
        "host=h user=u password=sesame",
        "postgres:u:sesame@h/x",
        "postgres://u:se/same@h/x",
        "postgres://u:se#same@h",
    ] {
        let ended = migrate(mistyped);
        assert_ne!(ended.code, Some(0));
        assert!(!ended.err.contains("same"), "{}", ended.err);
        assert!(ended.err.contains("password"), "{}", ended.err);
    }
}

#[test]
fn what_is_in_the_way_of_a_migration_is_said_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("postgres://baton@{address}/postgres");
    let refused = Ended::of(Command::new(BATON).args(["migrate", "--cache", &url]));
    assert_eq!(refused.code, Some(1));
    for once in ["PostgreSQL", &address.to_string(), "os error 111"] {
        let times = refused.err.matches(once).count();
        assert_eq!(times, 1, "{once}: {}", refused.err);
    }
}

#[test]
fn settings_and_the_password_come_from_the_file() {
    let (server, port, roots) = PostgresServer::with_tls("open sesame");
    let directory = tempfile::tempdir().unwrap();
    let (file, password) = (
        directory.path().join("proxy.conf"),
        directory.path().join("password"),
    );
    std::fs::write(&password, "open sesame\n").unwrap();
    let settings = |more: &str| {
        let text = format!(
            "[cache]\nstore = \"postgres://baton@127.0.0.1:{port}/postgres\"\n[postgres]\ntls = \"on\"\nca_file = {roots:?}\n{more}"
        );
        std::fs::write(&file, text).unwrap();
    };
    let run = |arguments: &[&str]| {
        let flags = [arguments, &["-c", file.to_str().unwrap()]].concat();
        let mut command = Command::new(BATON);
        Ended::of(command.args(flags).env_remove("PGPASSWORD"))
    };
    settings(&format!("password_file = {password:?}\n"));
    let made = run(&["migrate"]);
    assert_eq!(made.code, Some(0), "{}", made.err);
    let stats = run(&["cache", "stats", "--json"]);
    assert_eq!(stats.code, Some(0), "{}", stats.err);
    settings("");
    let refused = run(&["cache", "stats"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains(&format!("127.0.0.1:{port}"))
            && refused.err.contains("postgres.password_file"),
        "{}",
        refused.err
    );
    drop(server);
}
