//! The control socket of a running instance: commands come in through a Unix socket in the cache directory, or, where there
//! is none, in a directory that `meeting` knows. What begins with `{` is a line of JSON, anything else is HTTP.
//!
//! Who may reach the socket may read and remove every file beside it anyway: the directory is its owner's alone. Each
//! connection is one request, answered in a thread of its own, so that the janitor's loop waits for nobody. `run` in
//! the janitor starts it; [`ask`] is the other end, for the command line.

mod http;
mod resources;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};

use super::board::Board;
use super::books::Books;
use super::operations::{Archive, Ground, Instance, Note, Say, perform};
use super::protocol::{Done, Reply, Request};
use crate::cache::{Name, Policies};
use crate::shared::Region;
use crate::store::Known;
use crate::store::disk::limits::Sizes;
use crate::store::disk::place::{CONTROL, Place};
use crate::sys::fd::{recv_with_fds, send_with_fds};

/// Commands answered at once.
const MOST: usize = 8;
/// Longer than any request with a URL that the proxy would take.
const LONGEST: u64 = 2 << 20;
/// How long a connection may take to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long a reader may rest, as a pager does while somebody reads.
const REPLY_TIME: Duration = Duration::from_secs(3600);
/// How long who comes in a crowd is given to begin, so that the refusal is in the same language.
const CROWD_TIME: Duration = Duration::from_millis(20);

/// The janitor's end.
pub struct Control {
    board: Arc<Board>,
    notes: Receiver<Note>,
}

/// What commands have said.
#[derive(Default)]
pub(super) struct Heard {
    /// Those that wait for the catalogue.
    pub waiting: Vec<Sender<()>>,
    /// Head files that have come, and the octets that were reserved for them.
    pub put: Vec<(Vec<Name>, u64)>,
}

/// What every connection needs.
struct Shared {
    answer: Box<Answer>,
    active: AtomicUsize,
}

/// What is done about a request.
pub(super) type Answer =
    dyn Fn(&Request, Option<Archive<'_>>, Say<'_>) -> anyhow::Result<Done> + Send + Sync;

impl Control {
    /// Listens in the directory, in place of a socket that a dead janitor has left there.
    pub fn start(place: &Place, region: OwnedFd, policies: Policies) -> io::Result<Control> {
        place.remove_control()?;
        let listener = UnixListener::bind(address(place))?;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        fchmodat(place.root(), CONTROL, mode, FchmodatFlags::FollowSymlink)?;
        let board = Arc::new(Board::default());
        let (tell, notes) = channel();
        let (own, place) = (board.clone(), Place::open(place.path())?);
        let answer = move |request: &Request, archive: Option<Archive<'_>>, say: Say<'_>| {
            let region = Region::open(region.try_clone()?)?;
            let instance = Instance {
                known: Known::new(region.clone()),
                region,
                board: own.clone(),
                tell: tell.clone(),
            };
            let ground = Ground {
                place: &place,
                instance: Some(&instance),
                policies: &policies,
                sizes: Sizes::default(),
            };
            perform(request, &ground, archive, say)
        };
        listen(listener, Box::new(answer))?;
        Ok(Control { board, notes })
    }

    /// Where the loop says how far it is.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Enters what commands have removed; the rest is for the loop to do.
    pub(super) fn hear(&self, books: &mut Books) -> Heard {
        let mut heard = Heard::default();
        for note in self.notes.try_iter() {
            match note {
                Note::Removed(names) => names.iter().for_each(|name| books.evicted(name)),
                Note::Put { names, reserved } => heard.put.push((names, reserved)),
                Note::BringUpToDate(command) => heard.waiting.push(command),
            }
        }
        heard
    }
}

/// The catalogue is up to date.
pub(super) fn answer(waiting: Vec<Sender<()>>) {
    for command in waiting {
        // Who does not wait any more does not mind.
        let _ = command.send(());
    }
}

/// By way of the open directory: its own path may be longer than a socket's address can be.
fn address(place: &Place) -> PathBuf {
    let root = place.root().as_fd().as_raw_fd();
    PathBuf::from(format!("/proc/self/fd/{root}/{CONTROL}"))
}

/// Answers whoever connects, from now on and in threads of its own.
pub(super) fn listen(listener: UnixListener, answer: Box<Answer>) -> io::Result<()> {
    let shared = Arc::new(Shared {
        answer,
        active: AtomicUsize::new(0),
    });
    let thread = Builder::new().name("control".to_owned());
    thread.spawn(move || accept(&listener, &shared)).map(drop)
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Of descriptors there may be more in a moment.
                log::debug!("a command cannot be accepted: {error}");
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if shared.active.load(SeqCst) == MOST {
            // Shorter than what a socket takes without being read.
            let _ = refuse(&stream, "too many commands at once");
            continue;
        }
        shared.active.fetch_add(1, SeqCst);
        let own = shared.clone();
        let serving = Builder::new().name("command".to_owned()).spawn(move || {
            if let Err(error) = serve(&stream, &own) {
                log::debug!("a command has not been answered to its end: {error}");
            }
            own.active.fetch_sub(1, SeqCst);
        });
        if let Err(error) = serving {
            shared.active.fetch_sub(1, SeqCst);
            log::warn!("a command cannot be answered: {error}");
        }
    }
}

fn refuse(stream: &UnixStream, why: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(CROWD_TIME))?;
    let mut first = [0];
    let mut begun = stream;
    match begun.read(&mut first) {
        Ok(1) if first != *b"{" => http::refuse_crowd(stream, why),
        _ => send(stream, &Reply::Error(why.to_owned())),
    }
}

fn serve(stream: &UnixStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(REQUEST_TIME))?;
    stream.set_write_timeout(Some(REPLY_TIME))?;
    let (mut begun, mut files) = (vec![0; 4096], Vec::new());
    let length = recv_with_fds(stream.as_fd(), &mut begun, &mut files)?;
    begun.truncate(length);
    match begun.first() {
        Some(b'{') => serve_lines(&begun, files.pop().map(File::from), stream, shared),
        Some(_) => http::serve(stream, &begun, &shared.answer),
        None => Ok(()),
    }
}

/// `begun`: what of the request has been read already; `archive`: the file that came along.
fn serve_lines(
    begun: &[u8],
    archive: Option<File>,
    stream: &UnixStream,
    shared: &Shared,
) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new(begun.chain(stream.take(LONGEST))).read_line(&mut line)?;
    let request: Request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => return send(stream, &Reply::Error(format!("not understood: {error}"))),
    };
    log::info!("command: {}", line.trim());
    let mut out = BufWriter::new(stream);
    let mut archive = archive.map(|file| Watched { file, stream });
    let archive = archive.as_mut().map(|file| file as Archive<'_>);
    let done = (shared.answer)(&request, archive, &mut |reply| {
        write(&mut out, reply)?;
        match reply {
            // They come in crowds.
            Reply::Item(_) => Ok(()),
            _ => out.flush(),
        }
    });
    write(
        &mut out,
        &match done {
            Ok(done) => Reply::Done(done),
            Err(error) => Reply::Error(format!("{error:#}")),
        },
    )?;
    out.flush()
}

/// The file of an archive, as long as the command that has sent it is there: a pipe may have other ends.
struct Watched<'a> {
    file: File,
    stream: &'a UnixStream,
}

impl Watched<'_> {
    fn wait(&self, events: PollFlags) -> io::Result<()> {
        loop {
            let mut sources = [
                PollFd::new(self.file.as_fd(), events),
                // Nothing more is to come there but its end.
                PollFd::new(self.stream.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut sources, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                polled => polled?,
            };
            if sources[1].any() == Some(true) {
                let gone = "the command has ended";
                return Err(io::Error::new(io::ErrorKind::ConnectionReset, gone));
            }
            if sources[0].any() == Some(true) {
                return Ok(());
            }
        }
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        self.wait(PollFlags::POLLIN)?;
        self.file.read(octets)
    }
}

impl Write for Watched<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.wait(PollFlags::POLLOUT)?;
        // A pipe that can be written to takes so many without waiting.
        let most = octets.len().min(4096);
        self.file.write(octets.get(..most).unwrap_or(octets))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn send(mut stream: &UnixStream, reply: &Reply) -> io::Result<()> {
    write(&mut stream, reply)
}

fn write(out: &mut impl Write, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    out.write_all(&line)
}

// === the other end

/// Connects to the instance that uses the directory; none: nobody listens there.
pub fn connect(place: &Place) -> io::Result<Option<UnixStream>> {
    match UnixStream::connect(address(place)) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
            _ => Err(error),
        },
    }
}

/// Sends a request, with the file of an archive where there is one, and hands out what comes before its end. Errors: what the instance
/// says, or that it went away.
pub fn ask(
    stream: &UnixStream,
    request: &Request,
    archive: Option<&File>,
    say: &mut dyn FnMut(&Reply) -> io::Result<()>,
) -> anyhow::Result<Done> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let files: Vec<RawFd> = archive.iter().map(|file| file.as_raw_fd()).collect();
    let sent = send_with_fds(stream.as_fd(), &line, &files)?;
    let mut out = stream;
    out.write_all(line.get(sent..).unwrap_or_default())?;
    for line in BufReader::new(stream).lines() {
        match serde_json::from_str(&line?)? {
            Reply::Done(done) => return Ok(done),
            Reply::Error(error) => anyhow::bail!(error),
            reply => say(&reply)?,
        }
    }
    let gone = "the instance has ended before its answer did";
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, gone).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started() -> (tempfile::TempDir, Place, Control) {
        let temporary = tempfile::tempdir().unwrap();
        // Longer than the address of a socket can be.
        let path = temporary.path().join("x".repeat(120)).join("cache");
        let place = Place::prepare(&path).unwrap();
        let (_, fd) = Region::create(1).unwrap();
        let control = Control::start(&place, fd, Policies::default()).unwrap();
        (temporary, place, control)
    }

    #[test]
    fn a_command_is_answered_however_long_the_path_is() {
        let (_temporary, place, _control) = started();
        let stream = connect(&place).unwrap().unwrap();
        let done = ask(&stream, &Request::Stats, None, &mut |_| Ok(())).unwrap();
        let Done::Stats(stats) = done else {
            panic!("{done:?}")
        };
        assert!(stats.running);
        assert_eq!(stats.directory, Some(place.path().display().to_string()));
    }

    #[test]
    fn the_socket_is_its_owners_alone_and_replaces_one_that_was_left() {
        use std::os::unix::fs::PermissionsExt;
        let (_temporary, place, control) = started();
        drop(control);
        let (_, fd) = Region::create(1).unwrap();
        let _control = Control::start(&place, fd, Policies::default()).unwrap();
        let metadata = std::fs::metadata(place.path().join(CONTROL)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert!(connect(&place).unwrap().is_some());
    }

    #[test]
    fn what_is_no_request_is_refused_and_so_is_a_crowd() {
        let (_temporary, place, _control) = started();
        let said = |stream: &UnixStream| {
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).unwrap();
            line
        };
        let silent: Vec<_> = (0..MOST)
            .map(|_| connect(&place).unwrap().unwrap())
            .collect();
        let refused = connect(&place).unwrap().unwrap();
        assert!(said(&refused).contains("too many"));
        let mut first = &silent[0];
        first.write_all(b"{\"do\":\"dance\"}\n").unwrap();
        assert!(said(first).contains("not understood"));
    }
}
