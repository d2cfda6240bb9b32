//! Who uses the directory: one instance at a time, which says who it is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::Flock;

use super::top::write_over;
use super::{CONTROL, Place, PlaceError};
use crate::sys::files::{self, Access};

const LOCK: &[u8] = b"lock";

/// The right to use a directory; it ends with the process.
#[derive(Debug)]
pub struct Lock {
    file: Flock<OwnedFd>,
    inode: u64,
}

impl Place {
    /// Takes the directory for this process; `who` is what another one that wants it is told.
    pub fn lock(&self, who: &str) -> Result<Lock, PlaceError> {
        let refused = |error| PlaceError::Io {
            path: self.path.clone(),
            error,
        };
        let file = files::open_or_create(self.root.as_fd(), LOCK).map_err(refused)?;
        let inode = files::facts(file.as_fd()).map_err(refused)?.inode;
        match files::try_lock(file).map_err(refused)? {
            Ok(file) => {
                let lock = Lock { file, inode };
                lock.say(who).map_err(refused)?;
                Ok(lock)
            }
            Err(file) => Err(PlaceError::Held {
                path: self.path.clone(),
                who: self.holder(file.as_fd()),
            }),
        }
    }

    /// What whoever holds the lock, or held it last, has said of itself.
    pub fn holder_name(&self) -> Option<String> {
        let file = files::open(self.root.as_fd(), LOCK, Access::Blocking).ok()?;
        Some(self.holder(file.as_fd()))
    }

    fn holder(&self, file: BorrowedFd<'_>) -> String {
        let mut text = Vec::new();
        let _ = files::read(file, &mut text, 1024, 0, Access::Blocking);
        let who = String::from_utf8_lossy(&text).trim().to_owned();
        match who.is_empty() {
            true => "another process".to_owned(),
            false => who,
        }
    }

    /// No instance answers commands here any more.
    pub fn remove_control(&self) -> io::Result<bool> {
        files::remove(self.root.as_fd(), CONTROL.as_bytes())
    }

    /// Whether the lock is still that of this directory: files can be removed.
    pub fn is_locked_by(&self, lock: &Lock) -> bool {
        files::open(self.root.as_fd(), LOCK, Access::Blocking)
            .and_then(|file| files::facts(file.as_fd()))
            .is_ok_and(|facts| facts.inode == lock.inode)
    }
}

impl Lock {
    /// What another one that wants the directory is told.
    pub fn say(&self, who: &str) -> io::Result<()> {
        write_over(self.file.as_fd(), who.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::place::tests::prepared;

    #[test]
    fn one_at_a_time_and_the_other_is_told_who() {
        let (_temporary, place) = prepared();
        let lock = place.lock("pid 7, since Tuesday").unwrap();
        let again = Place::prepare(place.path()).unwrap();
        let refused = again.lock("pid 8").unwrap_err().to_string();
        assert!(refused.contains("pid 7, since Tuesday"), "{refused}");
        assert!(place.is_locked_by(&lock) && place.is_there());
        std::fs::remove_file(place.path().join("lock")).unwrap();
        assert!(!place.is_locked_by(&lock));
        drop(lock);
        std::fs::remove_dir_all(place.path()).unwrap();
        assert!(!place.is_there());
        let again = Place::prepare(place.path()).unwrap();
        assert!(again.lock("pid 9").is_ok() && !place.is_there());
    }
}
