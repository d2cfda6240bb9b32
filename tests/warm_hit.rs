//! What a warm hit allocates: nothing.
//!
//! This program plays the master of one worker, which runs on a thread of its own, so that an allocator that counts
//! can watch it. It refuses to measure time; `scripts/bench` does. An argument names the one kind of hit to look at;
//! `BATON_SHOW=N` shows where the next N allocations are made, and `BATON_REQUESTS=N` makes so many requests, for a
//! profiler that counts instructions (docs/performance.md).

#![expect(unsafe_code, reason = "an allocator that counts")]
#![expect(clippy::unwrap_used, reason = "a test, whose failure is a panic")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use baton::config::{Launch, Sources};
use baton::dispatch::{Conn, Peer};
use baton::ipc::{Channel, Offer, Received, ToMaster, ToWorker};
use baton::shared::Region;
use baton::store::disk::place::Place;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

// === an allocator that counts what one thread allocates

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_WATCHED: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if !IS_WATCHED.get() {
        return;
    }
    ALLOCATIONS.fetch_add(1, SeqCst);
    if SHOWN.load(SeqCst) > 0 {
        // What showing it allocates is not counted.
        IS_WATCHED.set(false);
        SHOWN.fetch_sub(1, SeqCst);
        eprintln!("{}", Backtrace::force_capture());
        IS_WATCHED.set(true);
    }
}

/// How many of the next allocations are shown, with where they are made.
static SHOWN: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(place, layout, size) }
    }
}

// === a worker, and its master

struct Master {
    channel: Channel,
    region: Region,
    offers: u64,
}

/// A worker in front of `origin`, with those settings.
fn start(origin: SocketAddr, logs: &Path, set: &[(&str, &str)]) -> Master {
    let to = format!("http://{origin}");
    let directory = logs.display().to_string();
    let own = [
        ("reverse.to", to.as_str()),
        ("log.directory", directory.as_str()),
    ];
    let set = own.iter().chain(set);
    let sources = Sources {
        mode: Some(baton::config::Mode::Reverse),
        listen: vec!["127.0.0.1:0".to_owned()],
        set: set
            .map(|(key, value)| ("--set".to_owned(), (*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..Sources::default()
    };
    let launch = Launch::new(sources.load().unwrap(), sources);
    let (ours, its) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
    )
    .unwrap();
    let (region, memory) = Region::create(1).unwrap();
    // What the janitor does when it has looked at the directory.
    region.space().set_limit(1 << 40, 1 << 40);
    std::thread::spawn(move || {
        IS_WATCHED.set(true);
        baton::worker::run(Channel::new(its), 0, launch, memory).unwrap();
    });
    let mut master = Master {
        channel: Channel::new(ours),
        region,
        offers: 0,
    };
    assert_eq!(master.hears(), ToMaster::Ready);
    master
}

impl Master {
    fn hears(&mut self) -> ToMaster {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            match self.channel.recv().unwrap() {
                Received::Message { message, .. } => return message,
                Received::Nothing => self.wait_until(deadline),
                Received::End => break,
            }
        }
        panic!("the worker says nothing");
    }

    /// Waits for the worker's next word.
    fn wait_until(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut source = [PollFd::new(self.channel.as_fd(), PollFlags::POLLIN)];
        // A signal is as good as a look in between.
        let _ = poll(&mut source, left);
    }

    /// A client whose connection the worker has.
    fn client(&mut self) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        client.set_nodelay(true).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        accepted.set_nodelay(true).unwrap();
        self.offers += 1;
        let offer = Offer {
            seq: self.offers,
            conn: Conn {
                id: self.offers,
                accepted_ms: 0,
                active_ms: 0,
                peer: Peer::from(peer),
                listener: 0,
                requests: 0,
                queued_ms: 0,
                flags: 0,
            },
            bytes: Vec::new(),
        };
        self.region.ring(0).offer(offer.seq);
        let message = ToWorker::Offers(vec![offer]);
        let fds = vec![OwnedFd::from(accepted)];
        assert!(self.channel.send(&message, fds).is_ok());
        client
    }
}

/// Answers every request with `length` octets that may be kept.
fn origin(length: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            while stream.read(&mut request).is_ok_and(|read| read > 0) {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: max-age=3600\r\nAge: 100\r\nContent-Length: {length}\r\n\r\n"
                );
                let answer = [head.as_bytes(), &vec![b'x'; length]].concat();
                stream.write_all(&answer).unwrap();
            }
        }
    });
    address
}

// === measuring

const REQUEST: &str = "GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// The length of one whole response.
fn exchange(client: &mut TcpStream, requests: &str, length: usize, buffer: &mut [u8]) {
    client.write_all(requests.as_bytes()).unwrap();
    let mut read = 0;
    while read < length {
        let more = client.read(buffer).unwrap();
        assert!(more > 0, "the connection has been closed");
        read += more;
    }
    assert_eq!(read, length);
}

fn length_of_response(client: &mut TcpStream, body: usize) -> usize {
    client.write_all(REQUEST.as_bytes()).unwrap();
    let (mut all, mut buffer) = (Vec::new(), [0; 1 << 16]);
    loop {
        let read = client.read(&mut buffer).unwrap();
        assert!(read > 0, "the connection has been closed");
        all.extend_from_slice(&buffer[..read]);
        let end = all.windows(4).position(|octets| octets == b"\r\n\r\n");
        if end.is_some_and(|end| all.len() == end + 4 + body) {
            let head = String::from_utf8_lossy(&all);
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            return all.len();
        }
    }
}

/// What the worker allocates over warm hits, `pipelined` at a time, on one connection, and how many these were.
fn allocations(body: usize, pipelined: usize, set: &[(&str, &str)]) -> (u64, u64) {
    let logs = tempfile::tempdir().unwrap();
    let mut master = start(origin(body), logs.path(), set);
    let mut client = master.client();
    // Fetched, and found: what a hit uses for the first time has its place then.
    for _ in 0..20 {
        length_of_response(&mut client, body);
    }
    let length = length_of_response(&mut client, body);
    let requests = REQUEST.repeat(pipelined);
    let mut buffer = vec![0; 1 << 20];
    let times = std::env::var("BATON_REQUESTS").map_or(2_000, |text| text.parse().unwrap());
    for _ in 0..100 {
        exchange(&mut client, &requests, length * pipelined, &mut buffer);
    }
    if let Ok(number) = std::env::var("BATON_SHOW") {
        SHOWN.store(number.parse().unwrap(), SeqCst);
    }
    let before = ALLOCATIONS.load(SeqCst);
    for _ in 0..times / pipelined {
        exchange(&mut client, &requests, length * pipelined, &mut buffer);
    }
    let made = ALLOCATIONS.load(SeqCst) - before;
    SHOWN.store(0, SeqCst);
    (made, (times / pipelined * pipelined) as u64)
}

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let kinds = [
        ("small", 1 << 10, 1, false),
        ("pipelined", 1 << 10, 16, false),
        ("large", 64 << 10, 1, false),
        ("file", 64 << 10, 1, true),
        ("small-file", 1 << 10, 1, true),
    ];
    let only = std::env::args()
        .nth(1)
        .filter(|word| !word.starts_with('-'));
    for (name, body, pipelined, is_in_files) in kinds {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        // Not before it is wanted: valgrind knows no `openat2`.
        let place = is_in_files.then(|| Place::prepare(&directory.path().join(name)).unwrap());
        let store = place.map(|place| format!("dir:{}", place.path().display()));
        let in_files = |store| vec![("cache.store", store), ("cache.memory", "0")];
        let set = store
            .as_deref()
            .map_or(vec![("cache.store", "memory")], in_files);
        let (made, requests) = allocations(body, pipelined, &set);
        println!("{name}: {made} allocations over {requests} warm hits");
        // What is not a request's: the tick, once in 100 ms, and the log when it goes to its file.
        assert!(made < requests / 20, "a warm hit allocates ({name})");
    }
}
