//! The turn of whoever changes which heads are in a directory of objects.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::fcntl::Flock;

use super::Place;
use crate::sys::files;

/// How long a turn is waited for by who must have it: longer than a worker may be stuck before it is replaced.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);
/// How long by who can do without.
const SOON: Duration = Duration::from_millis(250);

/// The right to change which heads are in one of the [`super::DIRECTORIES`]: whoever else wants to waits until it is given up. It
/// ends with the process.
#[derive(Debug)]
pub struct Turn {
    pub(super) directory: Option<Flock<OwnedFd>>,
}

impl Place {
    /// Waits for the turn to remove what must go. `TimedOut`: a process has it and does not move.
    pub fn turn(&self, directory: u16) -> io::Result<Turn> {
        self.turn_within(directory, PATIENCE)?.ok_or_else(|| {
            let message = format!("a process that changes objects/{directory:03x} does not get on");
            io::Error::new(io::ErrorKind::TimedOut, message)
        })
    }

    /// The same to do what may be left undone. None: others have it for too long.
    pub fn turn_soon(&self, directory: u16) -> io::Result<Option<Turn>> {
        self.turn_within(directory, SOON)
    }

    /// A directory that does not exist is no reason to wait: who makes it has a turn of his own afterwards.
    fn turn_within(&self, directory: u16, patience: Duration) -> io::Result<Option<Turn>> {
        match self.directory(directory) {
            Ok(directory) => Turn::of(directory, patience),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Some(Turn { directory: None }))
            }
            Err(error) => Err(error),
        }
    }

    /// Waits for the turn to put something there, too. None: others have it for too long.
    pub fn turn_to_put(&self, directory: u16) -> io::Result<Option<Turn>> {
        Turn::of(self.open_or_make(directory)?, SOON)
    }
}

impl Turn {
    fn of(directory: OwnedFd, patience: Duration) -> io::Result<Option<Turn>> {
        let directory = files::lock_within(directory, patience)?;
        Ok(directory.map(|directory| Turn {
            directory: Some(directory),
        }))
    }
}
