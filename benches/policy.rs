//! What it costs to decide about one message, over ordinary heads: may it be stored, may it be reused, by which policy.
//!
//! `cargo bench --bench policy`; each row of it is to stay below a microsecond (`docs/performance.md`).

use std::hint::black_box;

use baton::cache::decide::decide;
use baton::cache::{Policies, Policy, Side, Stored, Times, reuse, storable};
use baton::http::{Headers, RequestHead, ResponseHead};
use criterion::{Criterion, criterion_group, criterion_main};

const NOW: i64 = 1_700_000_100;

/// What a browser sends.
const REQUEST: [(&str, &str); 9] = [
    ("Host", "www.example.org"),
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    ),
    (
        "Accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("Accept-Language", "en-US,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", "http://www.example.org/"),
    ("Connection", "keep-alive"),
    ("Cookie", "session=0123456789abcdef; theme=dark"),
    ("Priority", "u=0, i"),
];

/// A response of twelve fields with these in the place of its Cache-Control.
fn response(own: &[(&str, &str)]) -> ResponseHead {
    let mut headers: Headers = [
        ("Date", "Tue, 14 Nov 2023 22:15:00 GMT"),
        ("Server", "Apache"),
        ("Last-Modified", "Mon, 13 Nov 2023 22:13:20 GMT"),
        ("ETag", "\"5f3a-60a1b2c3d4e5f\""),
        ("Accept-Ranges", "bytes"),
        ("Content-Length", "24378"),
        ("Content-Type", "text/html; charset=utf-8"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "SAMEORIGIN"),
        ("Referrer-Policy", "strict-origin-when-cross-origin"),
        ("Strict-Transport-Security", "max-age=31536000"),
    ]
    .into_iter()
    .collect();
    own.iter()
        .for_each(|(name, value)| headers.push(name, value.as_bytes()));
    ResponseHead {
        status: 200,
        headers,
        ..ResponseHead::new()
    }
}

fn storing(criterion: &mut Criterion) {
    let request = RequestHead {
        headers: REQUEST.into_iter().collect(),
        ..RequestHead::new()
    };
    let control = ("Cache-Control", "public, max-age=3600");
    let policy = Policy::default();
    for (name, own) in [
        ("storable: max-age", &[control][..]),
        ("storable: heuristic", &[]),
        (
            "storable: max-age, Vary",
            &[control, ("Vary", "Accept-Encoding, Accept-Language")],
        ),
        (
            "storable: CDN-Cache-Control",
            &[
                control,
                ("CDN-Cache-Control", "max-age=7200, stale-if-error=60"),
            ],
        ),
    ] {
        let response = response(own);
        assert!(storable(&request, &response, NOW, &policy).is_ok());
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| storable(black_box(&request), black_box(&response), NOW, &policy))
        });
    }
}

fn reusing(criterion: &mut Criterion) {
    let browser: Headers = REQUEST.into_iter().collect();
    let control = ("Cache-Control", "public, max-age=3600");
    let times = Times {
        request: NOW,
        response: NOW,
    };
    let policy = Policy::default();
    for (name, asked, own) in [
        ("fresh", &[][..], &[control][..]),
        (
            "a reload",
            &[("Cache-Control", "no-cache"), ("Pragma", "no-cache")],
            &[control],
        ),
        (
            "CDN-Cache-Control",
            &[],
            &[("CDN-Cache-Control", "max-age=7200")],
        ),
    ] {
        let mut headers = browser.clone();
        asked
            .iter()
            .for_each(|(name, value): &(&str, &str)| headers.push(name, value.as_bytes()));
        let request = RequestHead {
            headers,
            ..RequestHead::new()
        };
        let stored = Stored::new(&request, &response(own), times, &policy);
        criterion.bench_function(&format!("reuse: {name}"), |bencher| {
            bencher.iter(|| reuse(black_box(&request), black_box(&stored), &policy, NOW + 9))
        });
        criterion.bench_function(&format!("decide: {name}"), |bencher| {
            bencher.iter(|| decide(black_box(&request), black_box(&stored), &policy, NOW + 9))
        });
    }
}

fn choosing(criterion: &mut Criterion) {
    let uri = b"http://www.example.org/images/2023/11/header.png?width=1200".as_slice();
    for (name, rules) in [
        ("no rule", &[][..]),
        (
            "four rules",
            &[
                "^http://api\\.",
                "/live/",
                r"\.(png|jpg|css|js)(\?|$)",
                "/private/",
            ],
        ),
    ] {
        let rules: Vec<String> = rules.iter().map(|rule: &&str| (*rule).to_owned()).collect();
        let mut policies = Policies::new(&rules).expect("they are expressions");
        let by_rule = rules.iter().map(|_| Some(Policy::default())).collect();
        policies.add(Side::Forward, Policy::default(), by_rule);
        criterion.bench_function(&format!("policy: {name}"), |bencher| {
            bencher.iter(|| policies.get(policies.choose(0, black_box(uri))).store)
        });
    }
}

criterion_group!(benches, storing, reusing, choosing);
criterion_main!(benches);
