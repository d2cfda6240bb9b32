//! Asks the workers what they have in memory: each over a stream to which the master introduces it.
//!
//! A worker that does not answer in time, because it is stopped or is being replaced, is named and left out. The threads
//! that answer commands call it, and wait; nobody else does.

use std::io::{self, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::ipc::{Channel, SendError, ToMaster};
use crate::store::asked::{ASK, Answer, InMemory, Question, Sum};
use crate::wire::blocking;

/// How long they have for their first word, all together, and each for any other.
const PATIENCE: Duration = Duration::from_secs(2);
/// Until a channel that was full is tried again.
const RETRY: Duration = Duration::from_millis(1);

pub struct Workers {
    /// The janitor's channel to the master.
    channel: OwnedFd,
    count: u16,
}

/// What they have said.
#[derive(Debug, Default)]
pub struct Told {
    pub by: Vec<(u16, Said)>,
    /// Those that did not answer, or not to the end.
    pub silent: Vec<u16>,
}

#[derive(Debug, Default)]
pub struct Said {
    pub kept: Vec<InMemory>,
    pub sum: Sum,
}

impl Workers {
    pub fn new(channel: &Channel, count: usize) -> io::Result<Workers> {
        Ok(Workers {
            channel: channel.as_fd().try_clone_to_owned()?,
            count: u16::try_from(count).unwrap_or(u16::MAX),
        })
    }

    /// Asks all of them at once.
    pub fn ask(&self, question: &Question) -> io::Result<Told> {
        // Messages are whole, so that threads may share what they go through.
        let channel = Channel::new(self.channel.try_clone()?);
        let (question, until) = (question.encode(), Instant::now() + PATIENCE);
        let streams: Vec<_> = (0..self.count)
            .map(|worker| (worker, call(&channel, worker, &question, until)))
            .collect();
        let mut told = Told::default();
        for (worker, stream) in streams {
            match stream.and_then(|stream| hear(&stream, until)) {
                Ok(said) => told.by.push((worker, said)),
                Err(error) => {
                    log::warn!("worker {worker} does not say what it has: {error}");
                    told.silent.push(worker);
                }
            }
        }
        Ok(told)
    }
}

fn call(channel: &Channel, worker: u16, question: &[u8], until: Instant) -> io::Result<UnixStream> {
    let (mut near, far) = UnixStream::pair()?;
    let mut fds = vec![OwnedFd::from(far)];
    loop {
        match channel.send(&ToMaster::Introduce { worker }, fds) {
            Ok(()) => break,
            Err((SendError::WouldBlock | SendError::TooManyInFlight, back))
                if Instant::now() < until =>
            {
                fds = back;
                sleep(RETRY);
            }
            Err((error, _)) => return Err(io::Error::other(error)),
        }
    }
    // Of a question with a long URL the stream may not take all before somebody reads.
    near.set_write_timeout(Some(left(until)))?;
    blocking::send(&mut near, ASK, question)?;
    Ok(near)
}

fn hear(stream: &UnixStream, until: Instant) -> io::Result<Said> {
    stream.set_read_timeout(Some(left(until)))?;
    let mut reader = BufReader::new(stream);
    let mut said = Said::default();
    let mut is_first = true;
    loop {
        let frame = blocking::next(&mut reader)?;
        if std::mem::take(&mut is_first) {
            stream.set_read_timeout(Some(PATIENCE))?;
        }
        match Answer::decode(frame.kind, &frame.content) {
            Some(Answer::Kept(kept)) => said.kept.push(*kept),
            Some(Answer::Sum(sum)) => said.sum = sum,
            Some(Answer::Done) => return Ok(said),
            None => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it says nonsense",
                ));
            }
        }
    }
}

/// A timeout of nothing would be none.
fn left(until: Instant) -> Duration {
    let left = until.saturating_duration_since(Instant::now());
    left.max(Duration::from_millis(1))
}
