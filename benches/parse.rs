//! What the parts cost that every request passes: its head, its framing, its key, a chunked body, its line in the log,
//! and the master's decision about its connection.
//!
//! `cargo bench --bench parse`; `policy` is about the rules of caching. `docs/performance.md` has the figures.

use std::hint::black_box;
use std::time::Duration;

use baton::cache::{Side, key};
use baton::config;
use baton::dispatch::{Action, Conn, Dispatch, Event, Load, Settings};
use baton::http::body::Decoder;
use baton::http::framing::{self, Framing};
use baton::http::head::{Limits, RequestHead, ResponseHead};
use baton::http::target::{Memory, Parts, TargetUri};
use baton::log::{AccessLog, OriginUse, Record};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// What a browser sends to a proxy.
const BROWSER: &[u8] =
    b"GET http://www.example.org/images/2023/11/header.png?width=1200 HTTP/1.1\r\n\
Host: www.example.org\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
Accept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Referer: http://www.example.org/\r\n\
Connection: keep-alive\r\n\
Cookie: session=0123456789abcdef; theme=dark\r\n\
Priority: u=0, i\r\n\r\n";

/// What a load generator sends to a server.
const SHORT: &[u8] = b"GET /1k HTTP/1.1\r\nHost: www.example.org\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
Date: Tue, 14 Nov 2023 22:15:00 GMT\r\n\
Server: Apache\r\n\
Last-Modified: Mon, 13 Nov 2023 22:13:20 GMT\r\n\
ETag: \"5f3a-60a1b2c3d4e5f\"\r\n\
Accept-Ranges: bytes\r\n\
Content-Length: 24378\r\n\
Cache-Control: public, max-age=3600\r\n\
Content-Type: text/html; charset=utf-8\r\n\r\n";

const LIMITS: Limits = Limits {
    max_bytes: 64 << 10,
    max_headers: 128,
    max_target: 8 << 10,
};

fn heads(criterion: &mut Criterion) {
    for (name, text) in [("a browser's", BROWSER), ("a short one", SHORT)] {
        let mut head = RequestHead::new();
        assert_eq!(head.parse(text, &LIMITS), Ok(Some(text.len())));
        criterion.bench_function(&format!("request head, same fields: {name}"), |bencher| {
            bencher.iter(|| head.parse(black_box(text), &LIMITS))
        });
        // As of two clients by turns.
        let other = String::from_utf8_lossy(text).replace("www", "web");
        let mut turns = [text, other.as_bytes()].into_iter().cycle();
        criterion.bench_function(&format!("request head, other fields: {name}"), |bencher| {
            bencher.iter(|| {
                let text = turns.next().expect("they never end");
                head.parse(black_box(text), &LIMITS)
            })
        });
        criterion.bench_function(&format!("framing: {name}"), |bencher| {
            bencher.iter(|| framing::of_request(black_box(&head)))
        });
        let (mut memory, mut key) = (Memory::default(), Vec::new());
        criterion.bench_function(&format!("target and key: {name}"), |bencher| {
            bencher.iter(|| {
                let parts = Parts::split(&head.method, &head.target).expect("it is a target");
                let uri = TargetUri::of_parts(black_box(&head), parts, None, &mut memory);
                let uri = uri.expect("it has a host");
                key.clear();
                key::write(&uri, Side::Forward, &mut key);
                memory.recycle(uri);
                key.len()
            })
        });
    }
    let mut head = ResponseHead::new();
    criterion.bench_function("response head", |bencher| {
        bencher.iter(|| head.parse(black_box(RESPONSE), &LIMITS))
    });
}

fn bodies(criterion: &mut Criterion) {
    let chunk = [b"4000\r\n", vec![b'x'; 0x4000].as_slice(), b"\r\n"].concat();
    let body = [chunk.repeat(64).as_slice(), b"0\r\n\r\n"].concat();
    let mut group = criterion.benchmark_group("chunked");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("1 MiB in chunks of 16 KiB", |bencher| {
        bencher.iter(|| {
            let (mut decoder, mut at, mut octets) = (Decoder::new(Framing::Chunked), 0, 0);
            while !decoder.is_done() {
                let step = decoder.decode(black_box(&body[at..])).expect("it is whole");
                at += step.consumed;
                octets += step.data.len();
            }
            octets
        })
    });
    group.finish();
}

/// A connection with something to read arrives, is offered, claimed, and gone: what the master decides for each.
fn dispatching(criterion: &mut Criterion) {
    for workers in [1, 8] {
        let mut mind = Dispatch::new(Settings {
            workers,
            priorities: vec![0],
            queue_capacity: 4096,
            ageing_ms: 100,
            idle_timeout_ms: 60_000,
            max_active: 4096,
            shutdown_timeout_ms: 30_000,
            descriptors: 100_000,
            reserve: 1_000,
        });
        let mut out = Vec::new();
        mind.start(0, &mut out);
        for worker in 0..workers {
            mind.on(Event::Ready { worker }, 0, &mut out);
        }
        let loads = vec![Load::default(); workers];
        let peer = std::net::SocketAddr::from(([192, 0, 2, 1], 1));
        criterion.bench_function(&format!("dispatch: {workers} workers"), |bencher| {
            bencher.iter(|| {
                out.clear();
                let token = mind.admit(Conn::accepted(peer, 0, 1));
                mind.on(Event::Arrived { token, ready: true }, 1, &mut out);
                mind.pass(black_box(&loads), 1, &mut out);
                let offered = out.iter().find_map(|action| match action {
                    Action::Offer { worker, seq, .. } => Some((*worker, *seq)),
                    _ => None,
                });
                let (worker, seq) = offered.expect("there is room");
                mind.on(Event::Claimed { worker, seq }, 1, &mut out);
                out.len()
            })
        });
    }
}

/// The line of a hit, without what its file costs: that of the same connection again, and those of two by turns.
fn lines(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("there is room for a log");
    std::os::unix::fs::symlink("/dev/null", directory.path().join("access-0.log"))
        .expect("it is empty");
    let config = config::Log {
        directory: Some(directory.path().to_owned()),
        level: "info".to_owned(),
        access: config::AccessFormat::Combined,
    };
    let mut log = AccessLog::open(0, &config).expect("the directory is there");
    let mut record = Record {
        unix_ms: 1_700_000_000_123,
        client: std::net::SocketAddr::from(([192, 0, 2, 1], 40_000)),
        method: "GET",
        target: b"/1k",
        version: "HTTP/1.1",
        status: 200,
        octets: 1024,
        referer: None,
        user_agent: None,
        content_type: None,
        worker: 0,
        connection: 12_345,
        request: 678,
        queued: Duration::ZERO,
        took: Duration::from_micros(12),
        cache: "hit",
        reason: "fresh",
        origin: None,
        origin_use: OriginUse::None,
        end: "",
        herd: "",
    };
    criterion.bench_function("access log line: the same connection", |bencher| {
        bencher.iter(|| log.add(black_box(&record)))
    });
    criterion.bench_function("access log line: another connection", |bencher| {
        bencher.iter(|| {
            record.connection ^= 1;
            log.add(black_box(&record))
        })
    });
}

criterion_group!(benches, heads, bodies, lines, dispatching);
criterion_main!(benches);
