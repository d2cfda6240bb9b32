//! `baton cache` and `baton explain`: asks a running instance, or does it itself, on a directory that none uses or in a database, and
//! shows the answer.
//!
//! Which cache is meant is `whereabouts`; what can be asked is `janitor::operations`; how it looks is `tables`. While it changes files of a directory at
//! rest it holds the lock, so that no instance starts on it meanwhile.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::archive::Archive;
use super::flags::{CacheQuestion, ExplainCommand, LsCommand, PurgeCommand, Whereabouts};
use super::tables;
use super::whereabouts::{self, Meant, find};
use crate::cache::Set;
use crate::janitor::control;
use crate::janitor::listing::{Listing, Sort};
use crate::janitor::meeting::Meeting;
use crate::janitor::operations::{self, Ground, normal_prefix, perform, postgres};
use crate::janitor::protocol::{Done, Item, Reply, Request};
use crate::store::disk::place::PlaceError;

/// How long an instance without a janitor is given to start another one.
const PATIENCE: Duration = Duration::from_secs(6);
/// The same where nobody knows whether there is an instance.
const DOUBT: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(50);

const NOTHING_FOUND: u8 = 3;
const DAMAGE_FOUND: u8 = 4;

/// Asks, and prints the answer.
pub(super) fn run(
    request: &Request,
    archive: Option<Archive>,
    of: &Whereabouts,
) -> anyhow::Result<ExitCode> {
    let meant = find(of, matches!(request, Request::Import))?;
    let mut output = Output::new(of.json, archive.as_ref());
    output.sorted = matches!(request, Request::Ls(listing) if listing.sort.is_some());
    let mut say = |reply: &Reply| output.take(reply);
    let done = match &meant {
        Meant::Directory(place, policies, sizes) => {
            let at_rest = Ground {
                place,
                instance: None,
                policies,
                sizes: *sizes,
            };
            answer(&at_rest, request, archive.as_ref(), &mut say)
        }
        Meant::Database(database) => look(database, request, archive.as_ref(), &mut say),
        Meant::Instance(meeting) => ask(meeting, request, archive.as_ref(), &mut say),
    };
    output.progress.finish_and_clear();
    match done {
        // Half an archive is none.
        Err(error) if archive.is_none() && is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        done => {
            let done = done?;
            archive.map_or(Ok(()), Archive::keep)?;
            output.end(done)
        }
    }
}

pub(super) fn request(question: &CacheQuestion) -> Request {
    match question {
        CacheQuestion::Stats => Request::Stats,
        CacheQuestion::Ls(command) => Request::Ls(listing(command)),
        CacheQuestion::Show { url } => Request::Show { url: url.clone() },
        CacheQuestion::Verify => Request::Verify,
        CacheQuestion::Purge(command) => purge(command),
    }
}

fn listing(command: &LsCommand) -> Listing {
    Listing {
        prefix: command.prefix.as_deref().map(normal_prefix),
        tags: command.tags.clone(),
        stale: command.stale,
        larger: command.larger,
        // The first of what?
        sort: command.sort.or(command.limit.map(|_| Sort::Url)),
        limit: command.limit,
    }
}

fn purge(command: &PurgeCommand) -> Request {
    let what = if let Some(url) = &command.url {
        Set::Url(url.clone())
    } else if let Some(prefix) = &command.prefix {
        Set::Prefix(normal_prefix(prefix))
    } else if let Some(regex) = &command.regex {
        Set::Regex(regex.clone())
    } else if command.tags.is_empty() {
        match command.soft {
            true => Set::Prefix(String::new()),
            false => return Request::PurgeAll,
        }
    } else {
        Set::Tags(command.tags.clone())
    };
    let soft = command.soft;
    Request::Purge { what, soft }
}

pub(super) fn explain(command: &ExplainCommand) -> Request {
    Request::Explain {
        url: command.url.clone(),
        method: command.method.clone(),
        fields: command.fields.clone(),
    }
}

/// From the instance that uses the directory, or on the spot.
fn answer(
    at_rest: &Ground<'_>,
    request: &Request,
    archive: Option<&Archive>,
    say: &mut dyn FnMut(&Reply) -> io::Result<()>,
) -> anyhow::Result<Done> {
    let place = at_rest.place;
    let path = place.path().display();
    let until = Instant::now() + PATIENCE;
    let mut file = archive.map(|it| &it.file);
    loop {
        let instance = control::connect(place)
            .with_context(|| format!("the instance that uses {path} cannot be asked"))?;
        if let Some(stream) = instance {
            let mut said = false;
            let done = control::ask(&stream, request, archive.map(|it| &it.file), &mut |reply| {
                said = true;
                say(reply)
            });
            match done {
                // Its janitor has died, and another one is being started: nothing is asked for that cannot be asked again.
                Err(error)
                    if may_again(said, archive) && is_gone(&error) && Instant::now() < until =>
                {
                    sleep(RETRY);
                    continue;
                }
                done => return done,
            }
        }
        if !request.changes_files() {
            return perform(request, at_rest, transfer(&mut file), say);
        }
        match place.lock(&format!("a command, pid {}", std::process::id())) {
            Ok(_lock) => return perform(request, at_rest, transfer(&mut file), say),
            // It has just started, or its janitor is about to be.
            Err(PlaceError::Held { .. }) if Instant::now() < until => sleep(RETRY),
            Err(PlaceError::Held { who, .. }) => {
                bail!("{path} is in use by {who}, which does not answer")
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// In the database, whoever else uses it.
fn look(
    database: &whereabouts::Database,
    request: &Request,
    archive: Option<&Archive>,
    say: &mut dyn FnMut(&Reply) -> io::Result<()>,
) -> anyhow::Result<Done> {
    let database = postgres::Database {
        server: &database.server,
        policies: &database.policies,
        max_size: database.max_size,
        instance: None,
    };
    let mut file = archive.map(|it| &it.file);
    postgres::perform(request, &database, transfer(&mut file), say)
}

/// From an instance that has no directory.
fn ask(
    meeting: &Meeting,
    request: &Request,
    archive: Option<&Archive>,
    say: &mut dyn FnMut(&Reply) -> io::Result<()>,
) -> anyhow::Result<Done> {
    let path = meeting.path();
    let begun = Instant::now();
    loop {
        let instance = meeting
            .connect()
            .with_context(|| format!("the instance at {} cannot be asked", path.display()))?;
        let Some(stream) = instance else {
            if begun.elapsed() >= DOUBT {
                bail!("no instance listens at {}", path.display());
            }
            sleep(RETRY);
            continue;
        };
        let mut said = false;
        let done = control::ask(&stream, request, archive.map(|it| &it.file), &mut |reply| {
            said = true;
            say(reply)
        });
        match done {
            Err(error)
                if may_again(said, archive) && is_gone(&error) && begun.elapsed() < PATIENCE =>
            {
                sleep(RETRY);
            }
            done => return done,
        }
    }
}

/// Half an archive cannot be sent, or read, once more.
fn may_again(said: bool, archive: Option<&Archive>) -> bool {
    !said && archive.is_none()
}

fn transfer<'a>(file: &'a mut Option<&File>) -> Option<operations::Archive<'a>> {
    file.as_mut().map(|file| file as operations::Archive<'a>)
}

/// Whether whoever was asked went away.
fn is_gone(error: &anyhow::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|it| matches!(it.kind(), BrokenPipe | ConnectionReset | UnexpectedEof))
}

/// Whether the reader has had enough, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

struct Output {
    json: bool,
    /// Standard output, where no archive goes there.
    out: io::BufWriter<Box<dyn Write>>,
    /// Hidden where standard error is no terminal.
    progress: ProgressBar,
    /// For a table, whose columns are as wide as the widest.
    items: Vec<Item>,
    /// They come in the order that is wanted.
    sorted: bool,
}

impl Output {
    fn new(json: bool, archive: Option<&Archive>) -> Output {
        let progress = match io::stderr().is_terminal() {
            true => ProgressBar::no_length(),
            false => ProgressBar::hidden(),
        };
        if let Some(archive) = archive
            && archive.length > 0
        {
            progress.set_length(archive.length);
        }
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} %  {eta} left") {
            progress.set_style(style.progress_chars("█▌ "));
        }
        Output {
            json,
            out: io::BufWriter::new(match archive.is_some_and(|it| it.is_output) {
                true => Box::new(io::stderr()),
                false => Box::new(io::stdout()),
            }),
            progress,
            items: Vec::new(),
            sorted: false,
        }
    }

    fn take(&mut self, reply: &Reply) -> io::Result<()> {
        match reply {
            Reply::Progress { done, total } => {
                match (*total, self.progress.length()) {
                    (0, Some(_)) => {}
                    // Of an archive that comes through a pipe nobody knows how long it is.
                    (0, None) => self.progress.set_style(octets_only()),
                    (total, _) => self.progress.set_length(total),
                }
                self.progress.set_position(*done);
            }
            Reply::Item(item) if self.json => {
                serde_json::to_writer(&mut self.out, item)?;
                self.out.write_all(b"\n")?;
            }
            Reply::Item(item) => self.items.push(item.clone()),
            Reply::Done(_) | Reply::Error(_) => {}
        }
        Ok(())
    }

    fn end(mut self, done: Done) -> anyhow::Result<ExitCode> {
        let text = match (self.json, &done) {
            (true, Done::Stats(it)) => serde_json::to_string(it)?,
            (true, Done::Listed(_)) => String::new(),
            (true, Done::Shown(it)) => serde_json::to_string(it)?,
            (true, Done::Explained(it)) => serde_json::to_string(it)?,
            (true, Done::Verified(it)) => serde_json::to_string(it)?,
            (true, Done::Purged(it)) => serde_json::to_string(it)?,
            (true, Done::Exported(it)) => serde_json::to_string(it)?,
            (true, Done::Imported(it)) => serde_json::to_string(it)?,
            (false, Done::Stats(it)) => tables::stats(it),
            (false, Done::Listed(_)) => tables::list(&mut self.items, self.sorted),
            (false, Done::Shown(it)) => tables::shown(it),
            (false, Done::Explained(it)) => tables::explained(it),
            (false, Done::Verified(it)) => tables::verified(it),
            (false, Done::Purged(it)) => tables::purged(it),
            (false, Done::Exported(it)) => tables::exported(it),
            (false, Done::Imported(it)) => tables::imported(it),
        };
        let line = if text.is_empty() { "" } else { "\n" };
        let written = write!(self.out, "{text}{line}").and_then(|()| self.out.flush());
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(error).context("cannot write to standard output");
            }
            _ => {}
        }
        let silent = silent(&done);
        if !silent.is_empty() {
            let who = tables::workers(silent);
            eprintln!("baton: {who} did not answer in time: what it has is not in this");
        } else if let Done::Listed(listed) = &done
            && listed.incomplete
        {
            eprintln!(
                "baton: the catalogue is not complete, and an instance goes on with it while it runs: there may be more"
            );
        }
        Ok(code(&done))
    }
}

fn octets_only() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {binary_bytes}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Workers that were asked and did not answer.
fn silent(done: &Done) -> &[u16] {
    match done {
        Done::Stats(it) => &it.silent,
        Done::Listed(it) => &it.silent,
        Done::Shown(it) => &it.silent,
        Done::Explained(it) => &it.silent,
        Done::Purged(it) => &it.silent,
        Done::Verified(_) | Done::Exported(_) | Done::Imported(_) => &[],
    }
}

fn code(done: &Done) -> ExitCode {
    match done {
        Done::Shown(shown) if shown.found.is_empty() => NOTHING_FOUND.into(),
        Done::Explained(it) if it.sides.iter().all(|side| side.found.is_empty()) => {
            NOTHING_FOUND.into()
        }
        Done::Purged(purged) if purged.what.is_some() && purged.objects == 0 => {
            NOTHING_FOUND.into()
        }
        Done::Verified(verified) if verified.damaged > 0 => DAMAGE_FOUND.into(),
        Done::Verified(verified) if verified.unreadable > 0 => ExitCode::FAILURE,
        Done::Exported(exported) if exported.damaged > 0 => DAMAGE_FOUND.into(),
        Done::Imported(imported) if imported.no_room > 0 => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
