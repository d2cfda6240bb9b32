//! What a cache directory remembers of purges: the number that heads are compared with, and in the file `purges` those of many
//! responses whose files have not all been looked at yet, a JSON object a line.
//!
//! The number has two halves. The upper one is raised by each purge of everything, and heads of another one are dead; the lower one by
//! each purge of many, and heads below it may be meant.

use std::io::{self, ErrorKind::InvalidData};
use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};

use super::place::Place;
use crate::cache::Set;
use crate::shared::Posted;
use crate::sys::files::{self, Access};

const PURGES: &[u8] = b"purges";
/// Octets that the file may have.
const MOST: usize = 64 << 20;

/// Of a directory in which nothing has been purged.
pub const FIRST: u64 = 1 << 32;

/// Whether a head counts where the directory's number is `now`.
pub const fn counts(head: u64, now: u64) -> bool {
    head >> 32 == now >> 32
}

/// The number when everything has been purged.
pub const fn after_all(now: u64) -> u64 {
    ((now >> 32) + 1) << 32
}

/// A purge of many that is being carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// It is about heads below that.
    pub generation: u64,
    /// What it names is stale since then; none: gone.
    pub soft: Option<i64>,
    #[serde(flatten)]
    pub set: Set,
}

impl Pending {
    /// As processes tell each other. Errors: never, for what was read.
    pub fn posted(&self) -> io::Result<Posted> {
        Ok(Posted {
            epoch: 0,
            generation: self.generation,
            soft: self.soft,
            text: serde_json::to_vec(&self.set)?,
        })
    }
}

impl Place {
    /// Errors: the file cannot be read (`InvalidData`: nobody knows any more what was purged).
    pub fn pending(&self) -> io::Result<Vec<Pending>> {
        let file = match files::open(self.root(), PURGES, Access::Blocking) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        let mut text = Vec::new();
        files::read(file.as_fd(), &mut text, MOST, 0, Access::Blocking)?;
        let lines = text.split(|octet| *octet == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        lines
            .map(|line| {
                serde_json::from_slice(line).map_err(|error| {
                    io::Error::new(InvalidData, format!("a line in `purges` is none: {error}"))
                })
            })
            .collect()
    }

    pub fn set_pending(&self, pending: &[Pending]) -> io::Result<()> {
        if pending.is_empty() {
            files::remove(self.root(), PURGES)?;
            return Ok(());
        }
        let mut text = Vec::new();
        for purge in pending {
            serde_json::to_writer(&mut text, purge)?;
            text.push(b'\n');
        }
        self.replace(PURGES, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pending_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::prepare(&directory.path().join("cache")).unwrap();
        assert_eq!(place.pending().unwrap(), []);
        let purge = |generation, soft, set| Pending {
            generation,
            soft,
            set,
        };
        let both = [
            purge(FIRST + 1, None, Set::Tags(vec!["a\nb".into(), "c".into()])),
            purge(FIRST + 2, Some(-7), Set::Prefix(String::new())),
        ];
        place.set_pending(&both).unwrap();
        assert_eq!(place.pending().unwrap(), both);
        place.set_pending(&[]).unwrap();
        assert_eq!(place.pending().unwrap(), []);
        std::fs::write(place.path().join("purges"), "{}\n").unwrap();
        assert_eq!(place.pending().unwrap_err().kind(), InvalidData);
    }

    #[test]
    fn the_upper_half_says_what_counts() {
        assert!(counts(FIRST, FIRST + 7) && counts(FIRST + 7, FIRST));
        let after = after_all(FIRST + 7);
        assert!(!counts(FIRST + 7, after) && after > FIRST + 7);
    }
}
