//! Asks at a rate, whatever the answers do: the open-loop load of `scripts/bench`.
//!
//! Requests are due at equal distances. One that comes due while every connection waits for an answer is sent when the
//! first of them has it, and its time counts from when it was due: a server that stops for a moment is charged with
//! everything that should have been asked meanwhile. A load that waits for its answers leaves that out (coordinated
//! omission). It looks at the length of each answer, and that it is a 200; anything else ends it.
//!
//! Usage: `pace ADDR:PORT PATH CONNECTIONS RATE SECONDS` prints how many requests were answered, and the times within
//! which 50, 99 and 99.9 of 100 were, and the worst, in microseconds.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

type Failure = Box<dyn std::error::Error>;

const TIMER: u64 = u64::MAX;
/// A wake for each request, up to this rate; beyond, some leave together.
const FINEST: Duration = Duration::from_micros(20);
/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(10);

struct Connection {
    stream: TcpStream,
    /// When the request that is under way was due.
    due: Instant,
    /// What has come of the answer's head, until it is whole.
    head: Vec<u8>,
    /// Octets that are missing of its body.
    left: usize,
}

fn main() -> Result<(), Failure> {
    // cargo adds an option of its own when it runs a benchmark.
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [address, path, connections, rate, seconds] = words[..] else {
        eprintln!("usage: pace ADDR:PORT PATH CONNECTIONS RATE SECONDS (started by scripts/bench)");
        return Ok(());
    };
    let (rate, seconds): (f64, f64) = (rate.parse()?, seconds.parse()?);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes();
    let mut connections = (0..connections.parse()?)
        .map(|_| Connection::open(address))
        .collect::<Result<Vec<_>, _>>()?;
    let mut times = run(&mut connections, &request, rate, (rate * seconds) as usize)?;
    times.sort_unstable();
    let within = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    println!(
        "answered {} p50 {:.1} p99 {:.1} p99.9 {:.1} worst {:.1}",
        times.len(),
        within(0.5),
        within(0.99),
        within(0.999),
        within(1.0)
    );
    Ok(())
}

/// What each request took, from when it was due.
fn run(
    connections: &mut [Connection],
    request: &[u8],
    rate: f64,
    total: usize,
) -> Result<Vec<Duration>, Failure> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (index, connection) in connections.iter().enumerate() {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, index as u64);
        epoll.add(&connection.stream, event)?;
    }
    // The timeout of epoll_wait is too coarse.
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
    let distance = Duration::from_secs_f64(1.0 / rate);
    let every = Expiration::Interval(TimeSpec::from_duration(distance.max(FINEST)));
    timer.set(every, TimerSetTimeFlags::empty())?;
    epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;

    let mut events = vec![EpollEvent::empty(); 256];
    // The one that has waited longest is next, so that all take part.
    let mut free: VecDeque<usize> = (0..connections.len()).collect();
    let mut times = Vec::with_capacity(total);
    let mut asked = 0;
    let began = Instant::now();
    while times.len() < total {
        let elapsed = began.elapsed();
        if elapsed > distance.mul_f64(total as f64) + PATIENCE {
            return Err(format!("{} of {total} answered", times.len()).into());
        }
        let due = total.min((elapsed.as_secs_f64() * rate) as usize + 1);
        while asked < due
            && let Some(index) = free.pop_front()
        {
            connections[index].ask(request, began + distance.mul_f64(asked as f64))?;
            asked += 1;
        }
        let count = epoll.wait(&mut events, EpollTimeout::from(100u8))?;
        for event in &events[..count] {
            if event.data() == TIMER {
                timer.wait()?;
                continue;
            }
            let index = event.data() as usize;
            if connections[index].read()? {
                times.push(connections[index].due.elapsed());
                free.push_back(index);
            }
        }
    }
    Ok(times)
}

impl Connection {
    fn open(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            due: Instant::now(),
            head: Vec::new(),
            left: 0,
        })
    }

    fn ask(&mut self, request: &[u8], due: Instant) -> std::io::Result<()> {
        self.due = due;
        // A request is small, and the one before has been answered: the kernel takes it whole.
        (&self.stream).write_all(request)
    }

    /// Reads once; whether the answer is whole.
    fn read(&mut self) -> Result<bool, Failure> {
        let mut octets = [0; 64 * 1024];
        let mut length = (&self.stream).read(&mut octets)?;
        if length == 0 {
            return Err("the server has closed a connection".into());
        }
        if self.left == 0 {
            self.head.extend_from_slice(&octets[..length]);
            let Some(end) = memchr::memmem::find(&self.head, b"\r\n\r\n") else {
                return Ok(false);
            };
            length = self.head.len() - end - 4;
            self.left = body_length(&self.head[..end])?;
            self.head.clear();
        }
        self.left = (self.left.checked_sub(length)).ok_or("more came than was asked for")?;
        Ok(self.left == 0)
    }
}

fn body_length(head: &[u8]) -> Result<usize, Failure> {
    let head = std::str::from_utf8(head)?.to_ascii_lowercase();
    if !head.starts_with("http/1.1 200") {
        return Err(head.into());
    }
    let (_, rest) = (head.split_once("\r\ncontent-length:")).ok_or("an answer has no length")?;
    Ok(rest.lines().next().unwrap_or("").trim().parse()?)
}
