//! Two clients never see each other's octets, unless the RFC lets a shared cache give them: credentials, cookies, private
//! responses, under random combinations of fields, alone and at the same moment.
//!
//! Each answer of the origin server says whom it was made for. Whenever a client gets one that was made for another request,
//! an independent implementation of the rules (`http-cache-semantics`) must agree that it may be stored and is fresh for this
//! request. It is stricter than the RFC in places; those are kept out of the combinations, or taken out of what it is shown.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use http_cache_semantics::{BeforeRequest, CachePolicy};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::times;
use crate::support::{Baton, Client, Gate, Origin, Request, Response};

const CASES: u32 = 600;

const DIRECTIVES: &[&str] = &[
    "max-age=3600",
    "s-maxage=3600",
    "public",
    "must-revalidate",
    "private=\"X-Mine\"",
    "no-cache=\"X-Mine\"",
    // From here on nothing is shared.
    "private",
    "no-cache",
    "no-store",
];
const SHARING: usize = 6;

/// `{answer}` is who it is for, and its number.
const RESPONSE_FIELDS: &[&str] = &[
    "Expires: {now+3600}",
    "Last-Modified: {now-864000}",
    "ETag: \"{who}\"",
    "Vary: Cookie",
    "Vary: Authorization",
    "Vary: X-Who",
    "Vary: *",
    "Set-Cookie: of={answer}",
    "X-Mine: {answer}",
];

/// What a client sends with all its requests.
const OWN_FIELDS: &[&str] = &[
    "Authorization: Basic {who}",
    "Cookie: of={who}",
    "Authorization: Basic same",
    "Cookie: of=same",
];

/// What it sends with one of them.
const ONCE: &[&str] = &[
    "",
    "",
    "",
    "Cache-Control: no-cache",
    "Cache-Control: no-store",
    "Cache-Control: max-age=0",
    "Cache-Control: max-stale",
    "Cache-Control: only-if-cached",
    "Pragma: no-cache",
    "Range: bytes=0-",
];

#[derive(Clone, Debug)]
struct Case {
    status: u16,
    control: Vec<&'static str>,
    fields: Vec<&'static str>,
    clients: [Vec<&'static str>; 2],
    rounds: Vec<(Asking, &'static str)>,
}

#[derive(Clone, Copy, Debug)]
enum Asking {
    First,
    Second,
    /// Both requests are there before either has its answer.
    Both,
}

fn cases() -> impl Strategy<Value = Case> {
    let own = || subsequence(OWN_FIELDS, 0..=2);
    let asking = prop_oneof![
        Just(Asking::First),
        Just(Asking::Second),
        Just(Asking::Both)
    ];
    (
        prop_oneof![4 => Just(200u16), 1 => select(&[203u16, 301, 302, 404, 410][..])],
        prop_oneof![
            subsequence(&DIRECTIVES[..SHARING], 1..=3),
            subsequence(DIRECTIVES, 0..=3),
        ],
        subsequence(RESPONSE_FIELDS, 0..=4),
        [own(), own()],
        prop::collection::vec((asking, select(ONCE)), 2..7),
    )
        .prop_map(|(status, control, fields, clients, rounds)| Case {
            status,
            control,
            fields,
            clients,
            rounds,
        })
}

/// One answer of the origin server.
#[derive(Clone, Debug)]
struct Answer {
    who: String,
    /// Field lines of the request it was made for, as its client sent them.
    asked: String,
    round: usize,
    /// 304: nothing of its own.
    not_modified: bool,
}

/// What the origin server does for the case that is played.
#[derive(Clone)]
struct Script {
    now: Timestamp,
    case: Case,
    gate: Gate,
    /// Field lines of each client in this round.
    asked: [String; 2],
    round: usize,
    answers: Vec<Answer>,
}

#[test]
fn never_see_each_others_octets() {
    let script: Arc<Mutex<Option<Script>>> = Arc::default();
    let origin = Origin::start({
        let script = script.clone();
        move |request| answer(&script, request)
    });
    let baton = Baton::reverse(origin.address(), &[]);
    let seed = std::env::var("BATON_TEST_SEED").map(|seed| seed.parse().unwrap());
    let seed = seed.unwrap_or_else(|_| fastrand::u64(..));
    let mut runner = TestRunner::new(Config {
        cases: CASES,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_iters: 400,
        ..Config::default()
    });
    let (number, shared) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let result = runner.run(&cases(), |case| {
        let path = format!("/strangers/{}", number.fetch_add(1, SeqCst));
        let strangers = play(&case, &path, &baton, &script).map_err(TestCaseError::fail)?;
        shared.fetch_add(strangers, SeqCst);
        Ok(())
    });
    result.unwrap_or_else(|why| panic!("BATON_TEST_SEED={seed}: {why}"));
    // A cache that shared nothing would pass all of that.
    let shared = shared.into_inner();
    assert!(
        shared > 20,
        "BATON_TEST_SEED={seed}: only {shared} answers were shared"
    );
}

/// How many answers were given to the other one, all of them rightly.
fn play(
    case: &Case,
    path: &str,
    baton: &Baton,
    script: &Mutex<Option<Script>>,
) -> Result<usize, String> {
    let now = Timestamp::now();
    let mut shared = 0;
    let lock = || script.lock().unwrap_or_else(PoisonError::into_inner);
    *lock() = Some(Script {
        now,
        case: case.clone(),
        gate: Gate::new(),
        asked: Default::default(),
        round: 0,
        answers: Vec::new(),
    });
    let mut clients = [baton.client(), baton.client()];
    for (round, (asking, once)) in case.rounds.iter().enumerate() {
        let asked = ["a", "b"].map(|who| {
            let own = case.clients[usize::from(who == "b")]
                .join("\r\n")
                .replace("{who}", who);
            let lines = [own.as_str(), once, &format!("X-Who: {who}")].join("\r\n");
            lines
                .split("\r\n")
                .filter(|line| !line.is_empty())
                .collect::<Vec<_>>()
                .join("\r\n")
        });
        let gate = Gate::new();
        let mut guard = lock();
        let state = guard.as_mut().ok_or("no script")?;
        (state.round, state.gate, state.asked) = (round, gate.clone(), asked.clone());
        drop(guard);
        let who: &[usize] = match asking {
            Asking::First => &[0],
            Asking::Second => &[1],
            Asking::Both => &[0, 1],
        };
        for &who in who {
            let lines = &asked[who];
            clients[who].send_anyway(format!(
                "GET {path} HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n\r\n"
            ));
        }
        gate.open();
        for &who in who {
            let response = clients[who].try_response_to("GET")?;
            if response.has("connection", "close") {
                clients[who] = Client::connect(baton.address());
            }
            let guard = lock();
            let state = guard.as_ref().ok_or("no script")?;
            shared += usize::from(look(state, ["a", "b"][who], &asked[who], &response)?);
        }
    }
    Ok(shared)
}

/// Whether the response was made for the other one. The error says why it should not have come to this one.
fn look(state: &Script, who: &str, asked: &str, response: &Response) -> Result<bool, String> {
    let text = response.text();
    let number = text
        .strip_prefix("answer ")
        .and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    let Some(answer) = number.and_then(|number| state.answers.get(number)) else {
        let own = matches!(response.status, 304 | 502 | 504);
        return own
            .then_some(false)
            .ok_or(format!("who said {:?}?", response.head));
    };
    let mine = answer.who == who;
    let wrong = |what: &str| {
        let head = &response.head;
        Err(format!(
            "round {}: {who} {what}: {answer:?}; asked {asked:?}; got {head:?}",
            state.round
        ))
    };
    // Neither Set-Cookie nor a field that is private to another client comes along; those of a 304 to this very request do.
    let now = |value: String| {
        let mut answers = state.answers.iter().enumerate();
        answers.any(|(number, one)| {
            one.who == who && one.round == state.round && value.ends_with(&format!("{who}{number}"))
        })
    };
    let named = state
        .case
        .control
        .iter()
        .any(|directive| directive.contains('"'));
    if response
        .field("set-cookie")
        .is_some_and(|value| !now(value))
    {
        return wrong("has a stored cookie");
    }
    if named && response.field("x-mine").is_some_and(|value| !now(value)) {
        return wrong("has a field that is another's");
    }
    let fresh_from_origin = mine && answer.round == state.round;
    let validated = state
        .answers
        .iter()
        .any(|one| one.not_modified && one.who == who && one.round == state.round);
    if fresh_from_origin || mine && validated {
        return Ok(false);
    }
    match oracle_allows(state, answer, asked) {
        true => Ok(!mine),
        false => wrong("has what the oracle does not allow"),
    }
}

fn oracle_allows(state: &Script, answer: &Answer, asked: &str) -> bool {
    let request = |lines: &str| {
        let lines = lines.split("\r\n").filter_map(|line| line.split_once(": "));
        let builder = http::Request::get("http://a.example/");
        lines
            .fold(builder, |builder, (name, value)| {
                builder.header(name, value)
            })
            .body(())
            .unwrap()
    };
    // It takes the forms with field names for those without.
    let control: Vec<&str> = state
        .case
        .control
        .iter()
        .copied()
        .filter(|directive| !directive.contains('"'))
        .collect();
    let mut builder = http::Response::builder().status(state.case.status);
    if !state.case.control.is_empty() {
        builder = builder.header("Cache-Control", control.join(", "));
    }
    for line in response_lines(state, answer, 0).split("\r\n") {
        // It keeps responses with Set-Cookie out by default, where baton keeps the field out.
        if let Some((name, value)) = line.split_once(": ")
            && !["Set-Cookie", "Cache-Control"].contains(&name)
        {
            builder = builder.header(name, value);
        }
    }
    let then = request(&answer.asked);
    let policy = CachePolicy::new(&then, &builder.body(()).unwrap());
    let now = policy.before_request(&request(asked), SystemTime::now());
    policy.is_storable() && matches!(now, BeforeRequest::Fresh(_))
}

fn answer(script: &Mutex<Option<Script>>, request: &Request) -> Vec<u8> {
    let lock = || script.lock().unwrap_or_else(PoisonError::into_inner);
    let gate = lock().as_ref().map(|state| state.gate.clone());
    gate.unwrap_or_default().wait();
    let mut guard = lock();
    let Some(state) = guard.as_mut() else {
        return Vec::new();
    };
    let who = request.field("x-who").unwrap_or_default();
    let known = request.field("if-none-match").unwrap_or_default();
    let answer = Answer {
        not_modified: known.contains(&format!("\"{who}\"")),
        asked: state.asked[usize::from(who == "b")].clone(),
        round: state.round,
        who,
    };
    let number = state.answers.len();
    state.answers.push(answer.clone());
    let lines = response_lines(state, &answer, number);
    if answer.not_modified {
        return format!("HTTP/1.1 304 Not Modified\r\n{lines}\r\n").into_bytes();
    }
    let body = format!("answer {number} for {}", answer.who);
    let status = state.case.status;
    let length = body.len();
    format!("HTTP/1.1 {status} Said\r\nContent-Length: {length}\r\n{lines}\r\n{body}").into_bytes()
}

/// With CRLF behind each.
fn response_lines(state: &Script, answer: &Answer, number: usize) -> String {
    let mut lines = String::new();
    if !state.case.control.is_empty() {
        lines += &format!("Cache-Control: {}\r\n", state.case.control.join(", "));
    }
    for field in &state.case.fields {
        let field = field.replace("{who}", &answer.who);
        let field = field.replace("{answer}", &format!("{}{number}", answer.who));
        lines += &format!("{}\r\n", times::fill(&field, state.now));
    }
    lines
}
