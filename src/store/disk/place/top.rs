//! The few files at the top of the directory that change: whole or not at all, by one process at a time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::Flock;

use super::Place;
use super::turn::PATIENCE;
use crate::sys::files::{self, Access};

const GENERATION: &[u8] = b"generation";

impl Place {
    /// The number that heads must carry. `InvalidData`: nobody knows which it was.
    pub fn generation(&self) -> io::Result<u64> {
        let file = match files::open(self.root.as_fd(), GENERATION, Access::Blocking) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let message = "the file `generation` is missing";
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            opened => opened?,
        };
        let mut text = Vec::new();
        files::read(file.as_fd(), &mut text, 64, 0, Access::Blocking)?;
        let text = String::from_utf8_lossy(&text);
        text.trim().parse().map_err(|_| {
            let message = format!("{:?} in `generation` is no number", text.trim());
            io::Error::new(io::ErrorKind::InvalidData, message)
        })
    }

    /// It only rises: of two that write it at once the one who is late changes nothing.
    pub fn set_generation(&self, generation: u64) -> io::Result<()> {
        let _turn = self.turn_at_top()?;
        match self.generation() {
            Ok(known) if known >= generation => Ok(()),
            _ => self.put_at_top(GENERATION, format!("{generation}\n").as_bytes()),
        }
    }

    /// A file at the top, whole or not at all.
    pub(in crate::store::disk) fn replace(&self, name: &[u8], content: &[u8]) -> io::Result<()> {
        let _turn = self.turn_at_top()?;
        self.put_at_top(name, content)
    }

    /// A command, the janitor's loop and the master may want to write the same file at once.
    fn turn_at_top(&self) -> io::Result<Flock<OwnedFd>> {
        let top = files::open_directory(self.root.as_fd(), b".")?;
        files::lock_within(top, PATIENCE)?.ok_or_else(|| {
            let message = "a process that changes the files at its top does not get on";
            io::Error::new(io::ErrorKind::TimedOut, message)
        })
    }

    /// In one's turn.
    fn put_at_top(&self, name: &[u8], content: &[u8]) -> io::Result<()> {
        let aside = [name, b".new"].concat();
        files::remove(self.root.as_fd(), &aside)?;
        let file = files::create(self.root.as_fd(), &aside)?;
        write_over(file.as_fd(), content)?;
        files::rename(self.root.as_fd(), &aside, self.root.as_fd(), name)
    }

    pub(super) fn has_generation(&self) -> io::Result<bool> {
        files::exists(self.root.as_fd(), GENERATION)
    }
}

/// Whoever reads meanwhile finds some of it.
pub(super) fn write_over(file: BorrowedFd<'_>, content: &[u8]) -> io::Result<()> {
    files::write_at(file, content, 0)?;
    let length = i64::try_from(content.len()).map_err(io::Error::other)?;
    Ok(nix::unistd::ftruncate(file, length)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::place::tests::prepared;
    use crate::store::disk::purged;

    #[test]
    fn generations_are_counted_on_the_disk() {
        let (_temporary, place) = prepared();
        assert_eq!(place.generation().unwrap(), purged::FIRST);
        place.set_generation(purged::FIRST + 12).unwrap();
        place.set_generation(purged::FIRST + 11).unwrap();
        assert_eq!(place.generation().unwrap(), purged::FIRST + 12);
        std::fs::write(place.path().join("generation"), "soon").unwrap();
        assert!(place.generation().unwrap_err().to_string().contains("soon"));
    }

    #[test]
    fn several_who_count_at_once_do_not_get_in_each_others_way() {
        let (_temporary, place) = prepared();
        std::thread::scope(|scope| {
            for first in 1..5 {
                let own = Place::open(place.path()).unwrap();
                scope.spawn(move || {
                    for n in 0..100 {
                        own.set_generation(purged::FIRST + 4 * n + first).unwrap();
                    }
                });
            }
        });
        assert_eq!(place.generation().unwrap(), purged::FIRST + 400);
    }
}
