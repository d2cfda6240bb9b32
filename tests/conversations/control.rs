//! HTTP on the control socket: a raw client on a Unix stream, of an instance with a directory and of one without.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::client::find;
use crate::support::origin::ok;
use crate::support::{Baton, DEADLINE, Origin, eventually};

/// An instance and its control socket.
struct Controlled {
    baton: Baton,
    _temporary: tempfile::TempDir,
    socket: PathBuf,
    _origin: Origin,
}

/// The whole of what came on a connection.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    /// Its chunks put together.
    body: String,
    is_whole: bool,
}

impl Controlled {
    fn directory() -> Controlled {
        let (origin, temporary) = (origin(), tempfile::tempdir().unwrap());
        let path = temporary.path().join("cache");
        let flag = format!("dir:{}", path.display());
        let baton = Baton::reverse(origin.address(), &["--cache", &flag]);
        Controlled::with(baton, origin, temporary, path.join("control"))
    }

    fn memory() -> Controlled {
        let (origin, temporary) = (origin(), tempfile::tempdir().unwrap());
        let socket = temporary.path().join("own.sock");
        let set = format!("control.socket={}", socket.display());
        let baton = Baton::reverse(origin.address(), &["--cache", "memory", "--set", &set]);
        Controlled::with(baton, origin, temporary, socket)
    }

    fn with(
        baton: Baton,
        origin: Origin,
        temporary: tempfile::TempDir,
        socket: PathBuf,
    ) -> Controlled {
        eventually("somebody listens", || connect(&socket));
        Controlled {
            baton,
            _temporary: temporary,
            socket,
            _origin: origin,
        }
    }

    /// On one connection: each worker would keep a copy of its own in memory, of another second perhaps.
    fn keep(&self, target: &str) {
        let mut client = self.baton.client();
        eventually(&format!("{target} is kept"), || {
            client.get(target).is_hit().then_some(())
        });
    }

    fn connect(&self) -> UnixStream {
        connect(&self.socket).unwrap()
    }

    fn ask(&self, octets: impl AsRef<[u8]>) -> Answer {
        let mut stream = self.connect();
        stream.write_all(octets.as_ref()).unwrap();
        Answer::read(&stream)
    }

    fn get(&self, target: &str) -> Answer {
        self.ask(format!("GET {target} HTTP/1.1\r\nHost: baton\r\n\r\n"))
    }

    fn post(&self, target: &str, body: &str) -> Answer {
        let length = body.len();
        self.ask(format!(
            "POST {target} HTTP/1.1\r\nHost: baton\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    }

    fn objects(&self) -> BTreeSet<String> {
        let answer = self.get("/cache/objects");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.is_whole);
        let urls = answer.lines().into_iter();
        urls.map(|line| line["url"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Until the files have been looked at: a list says when it is not all.
    fn is_settled(&self) -> bool {
        self.get("/cache/stats").json()["catalogue"] == "complete"
    }
}

fn connect(socket: &Path) -> Option<UnixStream> {
    let stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    Some(stream)
}

impl Answer {
    /// To the end of the connection, which must be one in order.
    fn read(mut stream: &UnixStream) -> Answer {
        let mut octets = Vec::new();
        stream.read_to_end(&mut octets).unwrap();
        Answer::of(&octets)
    }

    fn of(octets: &[u8]) -> Answer {
        let end = find(octets, b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(octets[..end].to_vec()).unwrap();
        let (body, is_whole) = match head.contains("Transfer-Encoding: chunked") {
            true => chunks(&octets[end..]),
            false => (octets[end..].to_vec(), true),
        };
        assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
        assert!(head.contains("\r\nDate: "), "{head}");
        Answer {
            status: head[9..12].parse().unwrap(),
            head,
            body: String::from_utf8(body).unwrap(),
            is_whole,
        }
    }

    fn json(&self) -> Value {
        assert!(
            self.head.contains("Content-Type: application/json\r\n"),
            "{self:?}"
        );
        let length = format!("Content-Length: {}\r\n", self.body.len());
        assert!(self.head.contains(&length), "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    fn lines(&self) -> Vec<Value> {
        let kind = "Content-Type: application/x-ndjson\r\n";
        assert!(self.head.contains(kind), "{self:?}");
        let lines = self.body.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// What the chunks hold, and whether the last one is there.
fn chunks(mut octets: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = find(octets, b"\r\n") {
        let size = std::str::from_utf8(&octets[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (body, octets == b"0\r\n\r\n");
        }
        body.extend_from_slice(&octets[end + 2..end + 2 + size]);
        octets = &octets[end + 2 + size + 2..];
    }
    (body, false)
}

fn origin() -> Origin {
    Origin::start(|request| match request.target.as_str() {
        "/news" => ok(
            "Cache-Control: max-age=600\r\nCache-Tag: news, all\r\n",
            "new",
        ),
        _ => ok("Cache-Control: max-age=600\r\n", "hello"),
    })
}

fn url(path: &str) -> String {
    format!("http://a.example{path}")
}

#[test]
fn what_is_kept_is_listed_shown_explained_and_purged() {
    for own in [Controlled::directory(), Controlled::memory()] {
        own.keep("/one");
        own.keep("/two?a=b&c");
        let is_memory = own.socket.ends_with("own.sock");
        eventually("the files have been read", || {
            (is_memory || own.is_settled()).then_some(())
        });
        let stats = own.get("/cache/stats").json();
        assert!(stats["objects"].as_u64().unwrap() >= 2, "{stats}");
        assert_eq!(stats["running"], true);
        let both = BTreeSet::from([url("/one"), url("/two?a=b&c")]);
        assert_eq!(own.objects(), both);
        let first = own.get("/cache/objects?limit=1&prefix=a.example/t");
        assert_eq!(first.lines().len(), 1, "{first:?}");
        assert_eq!(first.lines()[0]["url"], *url("/two?a=b&c"));

        let encoded = "http%3A%2F%2Fa.example/two?a=b%26c";
        let shown = own.get(&format!("/cache/object?url={encoded}"));
        assert_eq!(shown.status, 200, "{shown:?}");
        assert_eq!(shown.json()["found"][0]["response"]["length"], 5);
        let told = own.get(&format!("/cache/explain?url={encoded}"));
        assert_eq!(told.json()["sides"][0]["outcome"], "hit", "{told:?}");
        let told = own.get(&format!(
            "/cache/explain?url={encoded}&header=Cache-Control:%20no-store"
        ));
        assert_eq!(told.json()["sides"][0]["outcome"], "pass", "{told:?}");

        let purged = own.post(&format!("/cache/purge?url={encoded}"), "");
        assert_eq!(purged.json()["objects"], 1, "{purged:?}");
        let shown = own.get(&format!("/cache/object?url={encoded}"));
        assert_eq!(shown.status, 404);
        assert_eq!(shown.json()["found"], json!([]));
        assert_eq!(own.objects(), BTreeSet::from([url("/one")]));
        let answer = own
            .baton
            .client()
            .get_with("/two?a=b&c", "Cache-Control: only-if-cached\r\n");
        assert_eq!(answer.status, 504);
        let body = json!({ "url": url("/one") }).to_string();
        assert_eq!(own.post("/cache/purge", &body).json()["objects"], 1);
        own.keep("/one");
        assert_eq!(own.post("/cache/purge?all", "").status, 200);
        eventually("nothing is listed", || {
            own.objects().is_empty().then_some(())
        });
    }
}

#[test]
fn many_are_listed_and_purged_at_once() {
    for own in [Controlled::directory(), Controlled::memory()] {
        own.keep("/one");
        own.keep("/news");
        let is_memory = own.socket.ends_with("own.sock");
        eventually("the files have been read", || {
            (is_memory || own.is_settled()).then_some(())
        });
        let tagged = own.get("/cache/objects?tag=other&tag=news").lines();
        assert_eq!(tagged.len(), 1, "{tagged:?}");
        assert_eq!(tagged[0]["url"], *url("/news"));
        assert_eq!(own.get("/cache/objects?larger=1000000").lines().len(), 0);
        let soft = own.post("/cache/purge?soft", &json!({ "tags": ["all"] }).to_string());
        assert_eq!(soft.json()["objects"], 1, "{soft:?}");
        let stale = own.get("/cache/objects?stale").lines();
        assert_eq!(stale.len(), 1, "{stale:?}");
        assert_eq!(stale[0]["url"], *url("/news"));
        let purged = own.post("/cache/purge?regex=/n[a-z]%2Bs%24", "");
        assert_eq!(purged.json()["objects"], 1, "{purged:?}");
        assert_eq!(own.objects(), BTreeSet::from([url("/one")]));
        let purged = own.post("/cache/purge?prefix=a.example/", "");
        assert_eq!(purged.json()["objects"], 1, "{purged:?}");
        assert!(own.objects().is_empty());
    }
}

#[test]
fn verifying_tells_how_far_it_is_and_what_it_has_found() {
    let own = Controlled::directory();
    own.keep("/one");
    let answer = own.post("/cache/verify", "");
    assert!(answer.status == 200 && answer.is_whole, "{answer:?}");
    let lines = answer.lines();
    let (last, before) = lines.split_last().unwrap();
    assert_eq!(last["verified"]["checked"], 1, "{answer:?}");
    assert!(before.iter().all(|line| line["progress"].is_object()));
    assert!(!before.is_empty(), "{answer:?}");
    let none = Controlled::memory().post("/cache/verify", "");
    assert_eq!(none.status, 501, "{none:?}");
    assert!(none.json()["error"].as_str().unwrap().contains("memory"));
}

#[test]
fn the_protocol_in_lines_is_spoken_beside_it() {
    let own = Controlled::memory();
    let mut stream = own.connect();
    stream.write_all(b"{\"do\":\"stats\"}\n").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    let said: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(said["done"]["stats"]["store"], "memory");
}

#[test]
fn what_is_not_understood_is_refused_with_its_reason() {
    let own = Controlled::memory();
    for (request, status, part) in [
        ("GET /cache/stats HTTP/1.1\r\n\r\n", 400, "Host"),
        ("GET /cache/stats HTTP/1.1\n\n", 400, "CRLF"),
        (
            "GET /cache/stats HTTP/2.0\r\nHost: a\r\n\r\n",
            505,
            "version",
        ),
        ("GET /other HTTP/1.1\r\nHost: a\r\n\r\n", 404, "/other"),
        (
            "DELETE /cache/stats HTTP/1.1\r\nHost: a\r\n\r\n",
            405,
            "GET, HEAD",
        ),
        (
            "GET /cache/purge?all HTTP/1.1\r\nHost: a\r\n\r\n",
            405,
            "POST",
        ),
        (
            "GET /cache/object?url=%zz HTTP/1.1\r\nHost: a\r\n\r\n",
            400,
            "encoded",
        ),
        (
            "POST /cache/purge?all HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\n\r\n",
            403,
            "Origin",
        ),
        (
            "POST /cache/purge HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n",
            413,
            "body",
        ),
        (
            "POST /cache/purge HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "both",
        ),
        (
            "POST /cache/purge HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            400,
            "chunk",
        ),
    ] {
        let answer = own.ask(request);
        assert_eq!(answer.status, status, "{request} {answer:?}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(part), "{request} {error}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000));
    assert_eq!(own.ask(long).status, 414);
    let many = "A: b\r\n".repeat(300);
    let many = format!("GET /cache HTTP/1.1\r\nHost: a\r\n{many}\r\n");
    assert_eq!(own.ask(many).status, 431);
    let chunk = format!("{:x}\r\n{}\r\n", 60_000, " ".repeat(60_000));
    let large = format!(
        "POST /cache/purge HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"
    );
    assert_eq!(own.ask(large).status, 413);
    let unknown = own.get("/cache/").json();
    let index = own.get("/cache").json();
    assert_eq!(unknown["resources"], index["resources"]);
    let denied = own.ask("PUT /cache/objects HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        denied.head.contains("\r\nAllow: GET, HEAD\r\n"),
        "{denied:?}"
    );
}

#[test]
fn forms_that_http_has_besides() {
    let own = Controlled::memory();
    own.keep("/one");
    let head = own.ask("HEAD /cache/stats HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let head = own.ask("HEAD /cache/objects HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let absolute = own.ask("GET http://baton/cache/stats HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(absolute.status, 200);
    // The end of the connection is that of the body.
    let old = own.ask("GET /cache/objects HTTP/1.0\r\n\r\n");
    assert!(!old.head.contains("chunked"), "{old:?}");
    assert_eq!(old.lines().len(), 1);
    // A body that is waited with, and comes in pieces.
    let mut stream = own.connect();
    stream
        .write_all(b"POST /cache/purge HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        .unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    for piece in [
        "5\r\n{\"url",
        "\r\n1a\r\n\": \"http:",
        "//a.example/one\"}\r",
    ] {
        stream.write_all(piece.as_bytes()).unwrap();
    }
    stream.write_all(b"\n0\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&stream).json()["objects"], 1);
    // One a connection: what follows is not answered.
    let twice = "GET /cache/stats HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2);
    assert_eq!(own.ask(twice).json()["store"], "memory");
    // Nobody is answered who goes away before the end.
    let mut stream = own.connect();
    stream
        .write_all(b"POST /cache/purge?all HTTP/1.1\r\nContent-Length: 9\r\nHost: a\r\n\r\n{")
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut nothing = Vec::new();
    stream.read_to_end(&mut nothing).unwrap();
    assert_eq!(nothing, b"");
}

#[test]
fn a_crowd_is_refused_in_its_own_language() {
    let own = Controlled::memory();
    let mut silent: Vec<UnixStream> = (0..7).map(|_| own.connect()).collect();
    let refused = eventually("there is no room", || {
        // One may have been refused itself, as long as whoever was there before had not left.
        silent.push(own.connect());
        let answer = own.get("/cache/stats");
        (answer.status == 503).then_some(answer)
    });
    assert!(refused.head.contains("\r\nRetry-After: 1\r\n"));
    drop(silent);
    eventually("there is room again", || {
        (own.get("/cache/stats").status == 200).then_some(())
    });
}

#[test]
fn the_examples_in_the_documentation_work() {
    let own = Controlled::directory();
    own.keep("/one");
    let text = include_str!("../../docs/stores.md");
    let prefix = "    curl --unix-socket /var/cache/baton/control ";
    // Archives are moved in `moving`.
    let lines = text.lines().filter(|line| !line.contains("cache.baton"));
    let examples = lines.filter_map(|line| line.strip_prefix(prefix));
    let mut count = 0;
    for example in examples {
        let answer = own.ask(as_curl_sends(example));
        // What is asked about is not kept here.
        let is_absent = example.ends_with("/cache/object");
        let due = if is_absent { 404 } else { 200 };
        assert_eq!(answer.status, due, "{example} {answer:?}");
        assert!(answer.is_whole, "{example}");
        count += 1;
    }
    assert!(count >= 9, "{count} examples");
}

/// The request that curl makes of such arguments; of its options it knows those of the documentation.
fn as_curl_sends(arguments: &str) -> String {
    let mut words = words(arguments).into_iter();
    let (mut method, mut body, mut query, mut url) = ("GET".to_owned(), None, None, None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-X" => method = words.next().unwrap(),
            "-d" => body = words.next(),
            "-G" => {}
            "--data-urlencode" => {
                let pair = words.next().unwrap();
                let (name, value) = pair.split_once('=').unwrap();
                let value = value.bytes().map(|octet| match octet {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(octet).to_string(),
                    _ => format!("%{octet:02X}"),
                });
                query = Some(format!("?{name}={}", value.collect::<String>()));
            }
            _ => url = Some(word),
        }
    }
    let url = url.unwrap();
    let path = url.strip_prefix("http://baton").unwrap();
    let (query, body) = (query.unwrap_or_default(), body.unwrap_or_default());
    let length = body.len();
    format!(
        "{method} {path}{query} HTTP/1.1\r\nHost: baton\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// As a shell takes them apart, with single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for character in line.chars() {
        match character {
            '\'' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            character => words.last_mut().unwrap().push(character),
        }
    }
    words
}
