//! `baton cache warm`: fetches what a list or a sitemap names through a proxy, so that it is there when clients ask.
//!
//! Any proxy will do: it only speaks HTTP with it. So many threads, each with a connection of its own, take URLs from one
//! queue; what fails and may go better later is tried again. `list` reads lists, `client` fetches.

mod client;
mod list;

use std::collections::{HashSet, VecDeque};
use std::io::{self, IsTerminal, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::flags::WarmCommand;
use crate::http::headers::Headers;
use client::{Answer, Client};
use list::Entry;

/// Exit code: something could not be fetched.
const SOME_FAILED: u8 = 5;
/// Lists within lists within the one that was named.
const DEEPEST: u8 = 3;
/// Octets of a list that is fetched: sitemaps.org allows 52,428,800.
const LONGEST_LIST: u64 = 64 << 20;
/// Before the first new try; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// However long Retry-After says.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Something to be fetched.
struct Job {
    url: String,
    /// It is a list itself, at that depth.
    list: Option<u8>,
}

/// What came of a URL; with `--json` a line each.
#[derive(Debug, Serialize)]
struct Fetched {
    url: String,
    /// None: there was no answer.
    status: Option<u16>,
    octets: u64,
    seconds: f64,
    tries: u32,
    cache: Kept,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What the nearest cache says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kept {
    /// It was there already.
    Hit,
    Stored,
    NotStored,
}

/// Fetches everything, and prints what came of it.
///
/// Errors: a list cannot be read, or the proxy not be reached.
pub(super) fn run(command: &WarmCommand, json: bool) -> anyhow::Result<ExitCode> {
    let queue = Queue::default();
    for file in &command.files {
        if file.starts_with("http://") {
            queue.add(Entry::Sitemap(file.clone()), 0);
            continue;
        }
        let text = read(file).with_context(|| format!("{file} cannot be read"))?;
        let entries = list::entries(&text).with_context(|| format!("{file} is no list of URLs"))?;
        entries.into_iter().for_each(|entry| queue.add(entry, 0));
    }
    let proxy = command.through;
    std::net::TcpStream::connect_timeout(&proxy, Duration::from_secs(5)).with_context(|| {
        format!("no proxy answers at {proxy}; name the one that is meant with --through ADDR:PORT")
    })?;
    let mut output = Output::new(json);
    let (tell, told) = channel();
    thread::scope(|scope| {
        for _ in 0..command.concurrency {
            let (queue, tell) = (&queue, tell.clone());
            scope.spawn(move || fetch_all(command, proxy, queue, &tell));
        }
        drop(tell);
        for fetched in told {
            output.take(&fetched, queue.length())?;
        }
        anyhow::Ok(())
    })?;
    output.end()
}

fn read(file: &str) -> io::Result<Vec<u8>> {
    if file != "-" {
        return std::fs::read(file);
    }
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text)?;
    Ok(text)
}

// === fetching

fn fetch_all(command: &WarmCommand, proxy: SocketAddr, queue: &Queue, tell: &Sender<Fetched>) {
    let limit = Duration::from_secs(command.timeout);
    let mut client = Client::new(proxy, limit, &command.fields);
    while let Some(job) = queue.next() {
        let fetched = fetch(command, &mut client, &job, queue);
        queue.done();
        if tell.send(fetched).is_err() {
            return;
        }
    }
}

fn fetch(command: &WarmCommand, client: &mut Client<'_>, job: &Job, queue: &Queue) -> Fetched {
    let begun = Instant::now();
    let mut fetched = Fetched {
        url: job.url.clone(),
        status: None,
        octets: 0,
        seconds: 0.0,
        tries: 0,
        cache: Kept::NotStored,
        error: None,
    };
    match target(&job.url, command.http) {
        Ok(url) => {
            let text = ask(command, client, &url, job.list.is_some(), &mut fetched);
            if let (Some(depth), None) = (job.list, &fetched.error) {
                fetched.error = follow(&text, depth, queue)
                    .err()
                    .map(|it| format!("{it:#}"));
            }
        }
        Err(why) => fetched.error = Some(why.to_string()),
    }
    fetched.seconds = begun.elapsed().as_secs_f64();
    fetched
}

/// Tries until it is answered for good. What it returns is the content, where that is wanted.
fn ask(
    command: &WarmCommand,
    client: &mut Client<'_>,
    url: &str,
    is_list: bool,
    fetched: &mut Fetched,
) -> Vec<u8> {
    loop {
        fetched.tries += 1;
        let mut text = Vec::new();
        let mut take = |piece: &[u8]| {
            if is_list && text.len() as u64 <= LONGEST_LIST {
                text.extend_from_slice(piece);
            }
        };
        let answered = client.get(url, &mut take);
        let pause = pause(fetched.tries, answered.as_ref().ok());
        let may_go_better = match &answered {
            Ok(answer) => matches!(answer.head.status, 408 | 429 | 500 | 502..=504),
            Err(error) => error.kind() != io::ErrorKind::InvalidData,
        };
        match answered {
            Ok(answer) => {
                let status = answer.head.status;
                fetched.status = Some(status);
                fetched.octets = answer.octets;
                fetched.cache = kept(&answer.head.headers);
                fetched.error = (status >= 400).then(|| "it is answered with an error".to_owned());
            }
            Err(error) => {
                fetched.status = None;
                fetched.error = Some(error.to_string());
            }
        }
        if fetched.error.is_none() || !may_go_better || fetched.tries > command.retries {
            return text;
        }
        thread::sleep(pause);
    }
}

/// RFC 9110 section 10.2.3: Retry-After in seconds; its other form is too coarse to wait for.
fn pause(tries: u32, answer: Option<&Answer>) -> Duration {
    let told = answer.and_then(|answer| answer.head.headers.get("retry-after"));
    let told = told.and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok());
    let pause = match told {
        Some(seconds) => Duration::from_secs(seconds),
        None => FIRST_PAUSE * 2_u32.saturating_pow(tries.saturating_sub(1).min(16)),
    };
    // Not all at the same moment.
    pause
        .min(LONGEST_PAUSE)
        .mul_f64(0.75 + fastrand::f64() / 2.0)
}

/// RFC 9211 section 2: "the last member of the list represents the cache closest to the user".
fn kept(headers: &Headers) -> Kept {
    let last = headers.list("cache-status").last().unwrap_or_default();
    let mut words = last.split(|octet| *octet == b';').map(<[u8]>::trim_ascii);
    match words.find(|word| matches!(*word, b"hit" | b"stored")) {
        Some(b"hit") => Kept::Hit,
        Some(_) => Kept::Stored,
        None => Kept::NotStored,
    }
}

/// What is asked for.
fn target(url: &str, as_http: bool) -> anyhow::Result<String> {
    let url = match (url.strip_prefix("https://"), as_http) {
        (Some(rest), true) => format!("http://{rest}"),
        (Some(_), false) => bail!(
            "a proxy cannot look into https; with --http it is asked for as http, as a TLS terminator in front of it does"
        ),
        (None, _) => url.to_owned(),
    };
    // What stands behind # is for the one who reads the page.
    let url = url.split('#').next().unwrap_or_default().to_owned();
    crate::janitor::operations::check_url(&url)?;
    Ok(url)
}

fn follow(text: &[u8], depth: u8, queue: &Queue) -> anyhow::Result<()> {
    if text.len() as u64 > LONGEST_LIST {
        bail!("the list has more than {} octets", LONGEST_LIST);
    }
    if text.starts_with(&[0x1f, 0x8b]) {
        bail!("the list is compressed; unpack it first (gunzip)");
    }
    let entries = list::entries(text).context("it is no list of URLs")?;
    for entry in entries {
        queue.add(entry, depth + 1);
    }
    Ok(())
}

// === the queue

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    /// What has been added ever.
    seen: HashSet<String>,
    /// Jobs being done: they may add more.
    busy: usize,
}

impl Queue {
    fn add(&self, entry: Entry, depth: u8) {
        let (url, list) = match entry {
            Entry::Url(url) => (url, None),
            Entry::Sitemap(url) if depth <= DEEPEST => (url, Some(depth)),
            Entry::Sitemap(_) => return,
        };
        let mut state = self.lock();
        if state.seen.insert(url.clone()) {
            state.waiting.push_back(Job { url, list });
            self.changed.notify_one();
        }
    }

    /// None: everything has been done.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.waiting.pop_front() {
                state.busy += 1;
                return Some(job);
            }
            if state.busy == 0 {
                return None;
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self) {
        self.lock().busy -= 1;
        self.changed.notify_all();
    }

    fn length(&self) -> u64 {
        self.lock().seen.len() as u64
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === what is printed

struct Output {
    json: bool,
    progress: ProgressBar,
    begun: Instant,
    octets: u64,
    /// By what the cache says.
    hits: u64,
    stored: u64,
    not_stored: u64,
    failed: Vec<String>,
}

impl Output {
    fn new(json: bool) -> Output {
        let progress = match io::stderr().is_terminal() {
            true => ProgressBar::no_length(),
            false => ProgressBar::hidden(),
        };
        let template = "{bar:40} {pos} of {len}  {per_sec}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            progress.set_style(style.progress_chars("█▌ "));
        }
        Output {
            json,
            progress,
            begun: Instant::now(),
            octets: 0,
            hits: 0,
            stored: 0,
            not_stored: 0,
            failed: Vec::new(),
        }
    }

    fn take(&mut self, fetched: &Fetched, total: u64) -> anyhow::Result<()> {
        self.progress.set_length(total);
        self.progress.inc(1);
        self.octets += fetched.octets;
        match (&fetched.error, fetched.cache) {
            (Some(why), _) => {
                let status = fetched.status.map_or("-".to_owned(), |it| it.to_string());
                self.failed
                    .push(format!("{status:>3}  {}  {why}", fetched.url));
            }
            (None, Kept::Hit) => self.hits += 1,
            (None, Kept::Stored) => self.stored += 1,
            (None, Kept::NotStored) => self.not_stored += 1,
        }
        if self.json {
            let line = serde_json::to_string(fetched)?;
            writeln!(io::stdout(), "{line}")?;
        }
        Ok(())
    }

    fn end(self) -> anyhow::Result<ExitCode> {
        self.progress.finish_and_clear();
        let mut out = io::stdout();
        if !self.json {
            for line in &self.failed {
                writeln!(out, "{line}")?;
            }
            let all = self.hits + self.stored + self.not_stored + self.failed.len() as u64;
            writeln!(
                out,
                "{all} URLs in {:.1} s, {}: {} stored, {} were there already, {} may not be stored, {} failed",
                self.begun.elapsed().as_secs_f64(),
                ByteSize(self.octets),
                self.stored,
                self.hits,
                self.not_stored,
                self.failed.len(),
            )?;
        }
        Ok(match self.failed.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(SOME_FAILED),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_cache_counts() {
        for (value, expected) in [
            ("baton; hit; ttl=5", Kept::Hit),
            ("other; hit, baton; fwd=uri-miss; stored", Kept::Stored),
            (
                "other; stored, baton; fwd=uri-miss; detail=no-store",
                Kept::NotStored,
            ),
            ("baton; detail=hit", Kept::NotStored),
        ] {
            let headers: Headers = [("Cache-Status", value)].into_iter().collect();
            assert_eq!(kept(&headers), expected, "{value}");
        }
        assert_eq!(kept(&Headers::new()), Kept::NotStored);
    }

    #[test]
    fn what_is_asked_for() {
        assert_eq!(target("http://a/b?c#d", false).unwrap(), "http://a/b?c");
        assert_eq!(target("https://a/b", true).unwrap(), "http://a/b");
        let refused = target("https://a/b", false).unwrap_err().to_string();
        assert!(refused.contains("--http"), "{refused}");
        assert!(target("ftp://a/", true).is_err() && target("no url", false).is_err());
    }

    #[test]
    fn each_url_is_fetched_once_and_a_list_that_is_being_read_may_add_more() {
        let queue = Queue::default();
        queue.add(Entry::Sitemap("http://a/map".into()), 0);
        queue.add(Entry::Sitemap("http://a/map".into()), 0);
        let first = queue.next().unwrap();
        assert_eq!(first.list, Some(0));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.next().map(|job| job.url));
            queue.add(Entry::Url("http://a/".into()), 1);
            queue.add(Entry::Sitemap("http://a/deeper".into()), DEEPEST + 1);
            queue.done();
            assert_eq!(waiting.join().unwrap().as_deref(), Some("http://a/"));
        });
        queue.done();
        assert!(queue.next().is_none());
    }
}
