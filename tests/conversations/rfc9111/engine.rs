//! Plays the rows of a table against a running baton, all of them, and says in one line each what did not hold.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::times;
use super::verdict::{Came, judge};
use super::words::{Answer, Row, Served, Step};
use crate::support::{Baton, Client, Origin, Request, Response};

/// How long something in the background may take.
const SOON: Duration = Duration::from_secs(8);
/// Rows in which no time has to pass are played by so many clients at once.
const LANES: usize = 4;

/// One worker: with a store in memory alone, two of them would not know of each other's responses.
const ALWAYS: &[&str] = &["--workers", "1", "--set", "cache.set_cookie=store"];

pub struct Table {
    pub name: &'static str,
    pub rows: Vec<Row>,
}

impl Table {
    pub fn new(name: &'static str, rows: impl IntoIterator<Item = Vec<Row>>) -> Table {
        Table {
            name,
            rows: rows.into_iter().flatten().collect(),
        }
    }

    pub fn holds_in_reverse_mode(&self) {
        let script = Script::default();
        let origin = script.start();
        let baton = Baton::reverse(origin.address(), ALWAYS);
        self.play(&baton, &script, "http://a.example", false);
    }

    pub fn holds_in_forward_mode(&self) {
        let script = Script::default();
        let origin = script.start();
        let baton = Baton::forward(origin.address(), ALWAYS);
        self.play(&baton, &script, &origin.url(""), true);
    }

    /// Two workers over one directory: what one of them stores the other has to serve, or to forget.
    pub fn holds_on_disk(&self) {
        let script = Script::default();
        let origin = script.start();
        let directory = tempfile::tempdir().unwrap();
        let cache = format!("dir:{}", directory.path().join("cache").display());
        let flags = ["--cache", &cache, "--workers", "2"];
        let baton = Baton::reverse(origin.address(), &[&ALWAYS[2..], &flags].concat());
        self.play(&baton, &script, "http://a.example", false);
    }

    fn play(&self, baton: &Baton, script: &Script, base: &str, absolute: bool) {
        let results: Vec<Mutex<Result<(), String>>> =
            self.rows.iter().map(|_| Mutex::new(Ok(()))).collect();
        let play = |number: usize| {
            let row = &self.rows[number];
            let mut stage = Stage {
                baton,
                script,
                client: None,
                path: format!("/{}/{number}", self.name),
                base,
                absolute,
                now: Timestamp::now(),
                answered: Vec::new(),
                latest: 0,
            };
            *results[number].lock().unwrap() = stage.play(row);
        };
        let (slow, quick): (Vec<usize>, Vec<usize>) = (0..self.rows.len())
            .partition(|number| self.rows[*number].steps.iter().any(|step| step.later > 0));
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for number in slow {
                scope.spawn(move || play(number));
            }
            for _ in 0..LANES {
                scope.spawn(|| {
                    while let Some(number) = quick.get(next.fetch_add(1, SeqCst)) {
                        play(*number);
                    }
                });
            }
        });
        self.report(results.into_iter().map(|result| {
            result
                .into_inner()
                .unwrap_or_else(|_| Err("the test itself panicked".into()))
        }));
    }

    fn report(&self, results: impl Iterator<Item = Result<(), String>>) {
        let (mut wrong, mut held) = (Vec::new(), 0);
        for (row, result) in self.rows.iter().zip(results) {
            match result {
                Ok(()) => held += 1,
                Err(what) => wrong.push(format!(
                    "{:?} {}: {}: {what}",
                    row.level, row.section, row.name
                )),
            }
        }
        for (number, row) in self.rows.iter().enumerate() {
            if self.rows[..number]
                .iter()
                .any(|other| other.name == row.name)
            {
                wrong.push(format!("{}: two rows have this name", row.name));
            }
        }
        let of = self.rows.len();
        eprintln!("{}: {held} of {of} rows hold", self.name);
        assert!(
            wrong.is_empty(),
            "{}: {} of {of} rows:\n{}",
            self.name,
            wrong.len(),
            wrong.join("\n")
        );
    }
}

/// What the origin server does at the moment, by the path of the row, and what it has been asked meanwhile.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Rows>>);

type Rows = HashMap<String, (Planned, Vec<Request>)>;

/// An answer with everything filled in.
#[derive(Clone, Default)]
struct Planned {
    head: String,
    body: String,
    /// Whether the connection goes on afterwards.
    goes_on: bool,
}

impl Script {
    fn start(&self) -> Origin {
        let script = self.clone();
        Origin::conversing(move |request, stream| {
            let mut rows = script.0.lock().unwrap_or_else(PoisonError::into_inner);
            let path = request.target.split(['?', '/']).take(3);
            let path: Vec<&str> = path.collect();
            let Some((planned, seen)) = rows.get_mut(&path.join("/")) else {
                return false;
            };
            let planned = planned.clone();
            seen.push(request.clone());
            drop(rows);
            let body = match request.method.as_str() {
                "HEAD" => "",
                _ => &planned.body,
            };
            let octets = planned.head + body;
            std::io::Write::write_all(stream, octets.as_bytes()).is_ok() && planned.goes_on
        })
    }

    fn plan(&self, path: &str, planned: Planned) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.insert(path.to_owned(), (planned, Vec::new()));
    }

    fn seen(&self, path: &str) -> Vec<Request> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.get(path).map(|row| row.1.clone()).unwrap_or_default()
    }
}

/// One row on its way.
struct Stage<'a> {
    baton: &'a Baton,
    script: &'a Script,
    client: Option<Client>,
    path: String,
    base: &'a str,
    /// Whether the client says the whole URL, as to a forward proxy.
    absolute: bool,
    /// What `{now}` means: the row's beginning.
    now: Timestamp,
    /// Status and content that the origin server had for each step so far.
    answered: Vec<(u16, String)>,
    /// The latest step whose answer had content and went to the client (from 0).
    latest: usize,
}

impl Stage<'_> {
    fn play(&mut self, row: &Row) -> Result<(), String> {
        for (number, step) in row.steps.iter().enumerate() {
            if step.later > 0 {
                std::thread::sleep(Duration::from_secs(step.later));
            }
            self.step(step, number)
                .map_err(|what| format!("step {}: {what}", number + 1))?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step, number: usize) -> Result<(), String> {
        let (planned, answered) = self.planned(step, number);
        self.answered.push(answered);
        self.script.plan(&self.path, planned);
        let asked = self.ask(step);
        if step.served == Served::CutShort {
            return match asked {
                Err(_) => Ok(()),
                Ok(_) => Err("the response should end early".into()),
            };
        }
        let (interim, response) = asked?;
        let until = Instant::now() + SOON;
        while step.served == Served::ThenAsked
            && self.script.seen(&self.path).is_empty()
            && Instant::now() < until
        {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let from = match step.served {
            Served::ByOrigin => number,
            Served::FromCache(Some(step)) => step - 1,
            _ => self.latest,
        };
        let expected = self.answered.get(from).cloned().unwrap_or_default();
        let came = Came {
            response,
            interim,
            requests: self.script.seen(&self.path),
            expected,
        };
        judge(step, &came, |text| self.fill(text))?;
        let has_content = step.method != "HEAD" && !self.answered[number].1.is_empty();
        if has_content && matches!(step.served, Served::ByOrigin | Served::ThenAsked) {
            self.latest = number;
        }
        Ok(())
    }

    fn planned(&self, step: &Step, number: usize) -> (Planned, (u16, String)) {
        match &step.answer {
            Answer::Nothing => (Planned::default(), (0, String::new())),
            Answer::Octets(octets, ends) => {
                let octets = self.fill(octets);
                let content = octets.split_once("\r\n\r\n").map_or("", |(_, rest)| rest);
                let answered = (200, content.to_owned());
                let planned = Planned {
                    head: octets,
                    body: String::new(),
                    goes_on: !ends,
                };
                (planned, answered)
            }
            Answer::Plain {
                status,
                fields,
                body,
                interim,
            } => {
                let body = match (status, body) {
                    (204 | 205 | 304, None) => String::new(),
                    (_, Some(body)) => body.clone(),
                    (_, None) => format!("what step {} of {} says", number + 1, self.path),
                };
                let fields = self.fill(fields);
                let length = match status {
                    204 | 304 => String::new(),
                    _ if fields.to_ascii_lowercase().contains("content-length:") => String::new(),
                    _ => format!("Content-Length: {}\r\n", body.len()),
                };
                let planned = Planned {
                    head: format!(
                        "{}HTTP/1.1 {status} Said\r\n{length}{fields}\r\n",
                        self.fill(interim)
                    ),
                    body: body.clone(),
                    goes_on: true,
                };
                (planned, (*status, body))
            }
        }
    }

    /// The request, and the interim responses and the final one.
    fn ask(&mut self, step: &Step) -> Result<(Vec<Response>, Response), String> {
        let (_, authority) = self.base.split_once("://").unwrap_or_default();
        let target = match self.absolute {
            true => format!("{}{}{}", self.base, self.path, step.suffix),
            false => format!("{}{}", self.path, step.suffix),
        };
        let content = step.content.unwrap_or_default();
        let length = match step.content {
            Some(content) => format!("Content-Length: {}\r\n", content.len()),
            None => String::new(),
        };
        let mut client = self.client.take().unwrap_or_else(|| self.baton.client());
        client.send_anyway(format!(
            "{} {target} HTTP/1.1\r\nHost: {authority}\r\n{length}{}\r\n{content}",
            step.method,
            self.fill(&step.fields)
        ));
        let mut interim = Vec::new();
        loop {
            let response = client.try_response_to(step.method)?;
            if response.status < 200 {
                interim.push(response);
                continue;
            }
            if !response.has("connection", "close") {
                self.client = Some(client);
            }
            return Ok((interim, response));
        }
    }

    fn fill(&self, text: &str) -> String {
        times::fill(text, self.now)
            .replace("{path}", &self.path)
            .replace("{base}", self.base)
    }
}
