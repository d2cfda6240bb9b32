//! The bare limit: what one HTTP answer costs a single process that does nothing but epoll, read and write.
//!
//! Not a server for anybody's use, and no part of what is shipped: `scripts/bench` measures others against it, and
//! lets them fetch from it. It looks for the end of each head, and at its path alone: `/64k`, `/256k`, `/1m` and `/100m`
//! are answered with that much, any other with 1 KiB; what is below `/no-store/` (1 KiB or 1 MiB) may not be kept; what is
//! below `/file/`, and 100 MiB always, is sent from a file by `sendfile`; `Connection: close` is obeyed.
//!
//! Usage: `bare ADDR:PORT`; the file is made in the working directory, and has no name while it is used.

#![expect(unsafe_code, reason = "descriptors as numbers, and a socket option")]

use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, SockFlag, accept4, send, setsockopt, sockopt};

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// Answers that the kernel has not taken, and how much of the first piece it has.
    output: Vec<u8>,
    sent: usize,
    /// What is to be sent of the file.
    file: std::ops::Range<usize>,
    closing: bool,
}

struct Answers {
    small: Vec<u8>,
    small_and_close: Vec<u8>,
    small_no_store: Vec<u8>,
    medium: Vec<u8>,
    heavy: Vec<u8>,
    large: Vec<u8>,
    large_no_store: Vec<u8>,
    /// As long as the largest; all answers from it begin at its beginning.
    file: File,
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const FRESH: &str = "Cache-Control: max-age=36000";
const NO_STORE: &str = "Cache-Control: no-store";

fn head(length: usize, fields: &str) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n{fields}\r\n\r\n"
    );
    head.into_bytes()
}

fn answer(length: usize, fields: &str) -> Vec<u8> {
    [head(length, fields), vec![b'x'; length]].concat()
}

/// How much of the file a path asks for.
fn from_file(path: &[u8]) -> Option<usize> {
    let (path, below) = match path.strip_prefix(b"/file") {
        Some(rest) => (rest, true),
        None => (path, false),
    };
    let length = match path {
        path if path.starts_with(b"/100m") => return Some(100 * MIB),
        path if path.starts_with(b"/1m") => MIB,
        path if path.starts_with(b"/64k") => 64 * KIB,
        _ => KIB,
    };
    below.then_some(length)
}

/// On the disk, not in /dev/shm: what `sendfile` costs depends on the file system.
fn file() -> std::io::Result<File> {
    let path = format!("bare-{}", std::process::id());
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    let piece = vec![b'x'; MIB];
    for _ in 0..100 {
        file.write_all(&piece)?;
    }
    Ok(file)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // cargo adds an option of its own when it runs a benchmark.
    let Some(address) = std::env::args()
        .nth(1)
        .filter(|word| !word.starts_with('-'))
    else {
        eprintln!("usage: bare ADDR:PORT (started by scripts/bench)");
        return Ok(());
    };
    let answers = Answers {
        small: answer(KIB, FRESH),
        small_and_close: answer(KIB, &format!("{FRESH}\r\nConnection: close")),
        small_no_store: answer(KIB, NO_STORE),
        medium: answer(64 * KIB, FRESH),
        heavy: answer(256 * KIB, FRESH),
        large: answer(MIB, FRESH),
        large_no_store: answer(MIB, NO_STORE),
        file: file()?,
    };
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // std's backlog is short; this one is for a load generator.
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(4096)?)?;
    setsockopt(&listener, sockopt::TcpNoDelay, &true)?;
    defer_accept(&listener);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, u64::MAX))?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = vec![EpollEvent::empty(); 256];
    loop {
        let count = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..count] {
            if event.data() == u64::MAX {
                accept(&listener, &epoll, &mut connections, &answers)?;
                continue;
            }
            let place = &mut connections[event.data() as usize];
            let goes_on = place
                .as_mut()
                .is_some_and(|connection| connection.happened(&epoll, event.data(), &answers));
            if !goes_on {
                *place = None;
            }
        }
    }
}

/// Takes what waits. What has sent its request is answered before anything is registered.
fn accept(
    listener: &TcpListener,
    epoll: &Epoll,
    connections: &mut Vec<Option<Connection>>,
    answers: &Answers,
) -> nix::Result<()> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    while let Ok(number) = accept4(listener.as_raw_fd(), flags) {
        // SAFETY: accept4 has just opened it; nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        let index = number as usize;
        let mut connection = Connection {
            stream: fd.into(),
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            file: 0..0,
            closing: false,
        };
        if !connection.read(answers) {
            continue;
        }
        epoll.add(&connection.stream, connection.event(index as u64))?;
        if connections.len() <= index {
            connections.resize_with(index + 1, || None);
        }
        connections[index] = Some(connection);
    }
    Ok(())
}

/// The kernel keeps a connection until its first octets are there, as it does for the others in the comparison.
fn defer_accept(listener: &TcpListener) {
    let seconds: libc::c_int = 1;
    // SAFETY: the option takes a C int, and the pointer and length name one that lives through the call.
    unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            std::ptr::from_ref(&seconds).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

/// As much as the kernel takes at once.
fn send_file(to: &TcpStream, file: &File, range: std::ops::Range<usize>) -> std::io::Result<usize> {
    let mut offset = range.start as libc::off_t;
    // SAFETY: both descriptors are open, and the offset lives through the call.
    let sent =
        unsafe { libc::sendfile(to.as_raw_fd(), file.as_raw_fd(), &mut offset, range.len()) };
    usize::try_from(sent).map_err(|_| std::io::Error::last_os_error())
}

impl Connection {
    /// Whether the connection goes on.
    fn happened(&mut self, epoll: &Epoll, token: u64, answers: &Answers) -> bool {
        if self.is_writing() {
            return self.flush(answers) && (self.is_writing() || self.watch(epoll, token));
        }
        self.read(answers) && (!self.is_writing() || self.watch(epoll, token))
    }

    fn is_writing(&self) -> bool {
        !self.output.is_empty() || !self.file.is_empty()
    }

    /// Reads once and answers. False: the connection is over.
    fn read(&mut self, answers: &Answers) -> bool {
        let mut octets = [0; 16 * 1024];
        match (&self.stream).read(&mut octets) {
            Ok(0) => return false,
            Ok(read) if self.input.is_empty() => {
                let used = self.answer(&octets[..read], answers);
                self.input.extend_from_slice(&octets[used..read]);
            }
            Ok(read) => {
                let mut input = std::mem::take(&mut self.input);
                input.extend_from_slice(&octets[..read]);
                let used = self.answer(&input, answers);
                self.input = input.split_off(used);
            }
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
        self.is_writing() || !self.closing
    }

    /// Answers every whole head; returns the octets of those heads.
    fn answer(&mut self, octets: &[u8], answers: &Answers) -> usize {
        let mut used = 0;
        let mut pieces = Vec::with_capacity(16);
        while let Some(end) = memchr::memmem::find(&octets[used..], b"\r\n\r\n") {
            let head = &octets[used..used + end];
            let path = &head[4.min(head.len())..];
            self.closing |= memchr::memmem::find(head, b"onnection: close").is_some();
            used += end + 4;
            // Nobody asks for files in a pipeline.
            if let Some(length) = from_file(path) {
                self.begin_file(length, answers);
                return used;
            }
            pieces.push(IoSlice::new(match path {
                path if path.starts_with(b"/64k") => &answers.medium,
                path if path.starts_with(b"/256k") => &answers.heavy,
                path if path.starts_with(b"/1m") => &answers.large,
                path if path.starts_with(b"/no-store/1m") => &answers.large_no_store,
                path if path.starts_with(b"/no-store/") => &answers.small_no_store,
                _ if self.closing => &answers.small_and_close,
                _ => &answers.small,
            }));
        }
        if !pieces.is_empty() {
            let sent = (&self.stream).write_vectored(&pieces).unwrap_or(0);
            if sent < pieces.iter().map(|piece| piece.len()).sum() {
                self.output = pieces
                    .iter()
                    .flat_map(|piece| piece.iter().copied())
                    .collect();
                self.sent = sent;
            }
        }
        used
    }

    fn begin_file(&mut self, length: usize, answers: &Answers) {
        self.output = head(length, FRESH);
        self.sent = 0;
        self.file = 0..length;
        // nix does not name MSG_MORE.
        let flags = MsgFlags::from_bits_retain(libc::MSG_MORE) | MsgFlags::MSG_NOSIGNAL;
        if let Ok(sent) = send(self.stream.as_raw_fd(), &self.output, flags) {
            self.sent = sent;
            self.flush(answers);
        }
    }

    /// False: the connection is over.
    fn flush(&mut self, answers: &Answers) -> bool {
        if self.sent < self.output.len() {
            match (&self.stream).write(&self.output[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
        if self.output.is_empty() && !self.file.is_empty() {
            match send_file(&self.stream, &answers.file, self.file.clone()) {
                Ok(sent) => self.file.start += sent,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        self.is_writing() || !self.closing
    }

    fn watch(&self, epoll: &Epoll, token: u64) -> bool {
        epoll
            .modify(self.stream.as_fd(), &mut self.event(token))
            .is_ok()
    }

    /// What it waits for.
    fn event(&self, token: u64) -> EpollEvent {
        let flags = if self.is_writing() {
            EpollFlags::EPOLLOUT
        } else {
            EpollFlags::EPOLLIN
        };
        EpollEvent::new(flags, token)
    }
}
