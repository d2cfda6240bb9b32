//! What is written where, in which format.

use std::io::Write;

use crate::support::baton::Baton as Started;
use crate::support::origin::ok;
use crate::support::{Baton, Gate, Origin, eventually};

fn origin() -> Origin {
    Origin::start(|request| match request.target.as_str() {
        "/kept" => ok(
            "Cache-Control: max-age=60\r\nContent-Type: text/css; a=b\r\n",
            "12345",
        ),
        _ => ok("Cache-Control: no-store\r\n", "12345678"),
    })
}

fn baton(origin: &Origin, flags: &[&str]) -> Started {
    Baton::reverse(origin.address(), &[&["--workers", "1"], flags].concat())
}

#[test]
fn the_combined_format_is_extended_by_what_the_proxy_knows() {
    let origin = origin();
    let baton = baton(&origin, &[]);
    let mut client = baton.client();
    client.get_with(
        "/kept",
        "User-Agent: test/1\r\nReferer: http://a.example/\r\n",
    );
    client.get("/kept");
    client.get("/not");
    baton.client().get("/not");
    let lines = baton.access_lines(4);
    let [first, hit, not, other] = &lines[..] else {
        panic!("{lines:?}")
    };
    assert!(first.starts_with("127.0.0.1 - - ["), "{first}");
    assert!(
        first.contains("] \"GET /kept HTTP/1.1\" 200 5 \"http://a.example/\" \"test/1\" "),
        "{first}"
    );
    for (line, wanted) in [
        (first, "worker=0 connection=1 request=1 "),
        (first, "cache=miss"),
        (first, "new"),
        (hit, "connection=1 request=2 "),
        (hit, "cache=hit"),
        (not, "connection=1 request=3 "),
        (not, "reused"),
        (other, "connection=2 request=1 "),
        (other, "queued=0."),
    ] {
        assert!(line.contains(wanted), "{wanted}: {line}");
    }
}

#[test]
fn the_squid_format_is_what_its_tools_read() {
    let origin = origin();
    let baton = baton(&origin, &["--set", "log.access=squid"]);
    let mut client = baton.client();
    client.get("/kept");
    client.get("/kept");
    let lines = baton.access_lines(2);
    let fields =
        |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    let (miss, hit) = (fields(&lines[0]), fields(&lines[1]));
    let (seconds, millis) = miss[0].split_once('.').unwrap();
    assert!(seconds.parse::<u64>().unwrap() > 1_600_000_000 && millis.len() == 3);
    assert!(miss[1].parse::<u64>().is_ok());
    assert_eq!(
        miss[2..10],
        [
            "127.0.0.1",
            "TCP_MISS/200",
            "5",
            "GET",
            "/kept",
            "-",
            "HIER_DIRECT/127.0.0.1",
            "text/css"
        ]
    );
    assert_eq!(hit[3], "TCP_HIT/200");
    assert_eq!(hit[8], "HIER_NONE/-");
}

#[test]
fn the_json_format_is_an_object_a_line() {
    let origin = origin();
    let baton = baton(&origin, &["--set", "log.access=json"]);
    baton
        .client()
        .get_with("/not?q=\"x\\y", "User-Agent: \"quoted\"\r\n");
    let lines = baton.access_lines(1);
    let object: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(object["status"], 200);
    assert_eq!(object["method"], "GET");
    assert_eq!(object["user_agent"], "\"quoted\"");
    assert_eq!(object["worker"], 0);
}

#[test]
fn a_request_cannot_write_a_second_line_or_field() {
    let origin = origin();
    let baton = baton(&origin, &[]);
    baton
        .client()
        .get_with("/a\"b", "User-Agent: x\" 200 0 \"\x1b[2J\tend\r\n");
    baton.client().get("/last");
    let lines = baton.access_lines(2);
    assert_eq!(lines.len(), 2, "{lines:?}");
    // Refused or served: what came from the network stays within its quotes.
    assert_eq!(
        lines[0].replace("\\\"", "").matches('"').count() % 2,
        0,
        "{}",
        lines[0]
    );
    assert!(!lines[0].contains('\x1b'), "{}", lines[0]);
}

#[test]
fn no_access_log_is_written_when_it_is_off() {
    let origin = origin();
    let baton = baton(&origin, &["--set", "log.access=off"]);
    assert_eq!(baton.client().get("/").status, 200);
    assert!(!baton.log_path("access-0.log").exists());
}

#[test]
fn each_process_has_its_own_log_at_the_level_asked_for() {
    let origin = origin();
    let quiet = baton(&origin, &["--set", "log.level=error"]);
    assert_eq!(quiet.client().get("/").status, 200);
    assert_eq!(
        (quiet.log("master.log"), quiet.log("worker-0.log")),
        (String::new(), String::new())
    );

    let usual = baton(&origin, &[]);
    assert!(
        usual.log("master.log").contains("INFO"),
        "{}",
        usual.log("master.log")
    );
    assert!(usual.log("worker-0.log").contains("worker 0 ready"));

    let flags = ["--set", "log.level=info"];
    let silenced = Baton::reverse_with(("RUST_LOG", "off"), origin.address(), &flags);
    assert_eq!(
        silenced.log("master.log"),
        "",
        "RUST_LOG goes before the setting"
    );
}

#[test]
fn a_hit_that_was_cut_is_logged_as_cut() {
    let origin = Origin::start(|_| ok("Cache-Control: max-age=60\r\n", vec![b'x'; 12_000_000]));
    let baton = baton(&origin, &[]);
    assert_eq!(baton.client().get("/").body.len(), 12_000_000);
    let mut leaving = baton.client();
    leaving.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    leaving.exactly(1000).unwrap();
    leaving.reset();
    let line = &baton.access_lines(2)[1];
    assert!(
        line.contains("cache=hit") && line.contains("end=client-gone"),
        "{line}"
    );
    assert!(!line.contains(" 200 12000000 "), "{line}");
}

#[test]
fn a_revalidation_names_the_origin_that_was_asked() {
    let origin = Origin::start(|request| match request.field("if-none-match") {
        None => ok("Cache-Control: no-cache\r\nETag: \"a\"\r\n", "kept"),
        Some(_) => b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n".to_vec(),
    });
    let baton = baton(&origin, &[]);
    let mut client = baton.client();
    client.get("/");
    assert_eq!(client.get("/").text(), "kept");
    let line = &baton.access_lines(2)[1];
    let asked = format!("origin={}", origin.address());
    for wanted in ["cache=revalidated", &asked, "reused"] {
        assert!(line.contains(wanted), "{wanted}: {line}");
    }
}

#[test]
fn a_request_behind_an_answer_that_nobody_takes_is_logged_too() {
    let (asked, gate) = (Gate::new(), Gate::new());
    let origin = {
        let (asked, gate) = (asked.clone(), gate.clone());
        Origin::start(move |request| {
            if request.target == "/first" {
                asked.open();
                gate.wait();
            }
            ok("", "answer")
        })
    };
    let baton = baton(&origin, &[]);
    let mut client = baton.client();
    client.send(
        "GET /first HTTP/1.1\r\nHost: a\r\n\r\n\
         GET /second HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    asked.wait();
    client.reset();
    gate.open();
    let lines = eventually("all that was read is logged", || {
        let lines = baton.access_lines(1);
        // On a slow machine the reset may be noticed before the first answer: then nothing else was read.
        (lines[0].contains("client-gone") || lines.len() > 1).then_some(lines)
    });
    assert!(
        lines[lines.len() - 1].contains("end=client-gone"),
        "{lines:?}"
    );
}

#[test]
fn the_counters_say_what_happened_once() {
    let origin = Origin::conversing(|request, stream| {
        let answer = match request.target.as_str() {
            "/kept" => ok("Cache-Control: max-age=60\r\n", "12345"),
            "/early" => [b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec(), ok("", "")].concat(),
            "/short" => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort".to_vec(),
            _ => Vec::new(),
        };
        stream.write_all(&answer).is_ok() && request.target != "/short" && !answer.is_empty()
    });
    let mut baton = Baton::forward(
        origin.address(),
        &["--workers", "1", "--set", "worker.grace=20ms"],
    );
    let mut client = baton.client();
    client.get(&origin.url("/kept"));
    baton.wait_until_parked(&client);
    assert!(client.get(&origin.url("/kept")).is_hit());
    assert_eq!(client.get(&origin.url("/early")).status, 103);
    assert_eq!(client.response().status, 200);
    assert_eq!(client.get("http://127.0.0.1:1/").status, 403);
    assert_eq!(client.get(&origin.url("/gone")).status, 502);
    client.send(format!(
        "GET {} HTTP/1.1\r\nHost: a\r\n\r\n",
        origin.url("/short")
    ));
    assert!(client.try_response_to("GET").is_err());
    drop(client);
    let mut client = baton.client();
    client.send("CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().status, 403);
    drop(client);
    baton.signal(baton.master(), "TERM");
    baton.wait();
    let log = baton.log("master.log");
    let totals = log.rsplit("since its start: ").next().unwrap();
    let counted: Vec<&str> = totals.split_whitespace().collect();
    for wanted in [
        "accepted=2",
        "requests=7",
        "responses_1xx=1",
        "responses_2xx=4",
        "responses_4xx=2",
        "responses_5xx=1",
        "cache_hit=1",
        "cache_stored=1",
        "origin_errors=2",
        "denied=2",
    ] {
        assert!(counted.contains(&wanted), "{wanted}: {totals}");
    }
}
