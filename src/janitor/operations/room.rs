//! How much more a directory at rest may take: what the settings say and the disk leaves, by the marks of a running instance, so
//! that the next one has nothing to throw out for it.

use std::io;
use std::os::fd::AsFd;

use crate::janitor::evict::Bounds;
use crate::store::disk::limits::{Limits, Sizes};
use crate::store::disk::place::{CATALOGUE, DIRECTORIES, Found, Place, cost};
use crate::sys::files::{self, Access};

/// What the catalogue may take beside its rows, its log included; and a row, beside its key.
const BOOKS: u64 = 4 << 20;
const ROW: u64 = 300;

#[derive(Default)]
pub(super) struct Room {
    /// Octets that objects take.
    used: u64,
    /// Octets that there may be of them and of the catalogue.
    whole: u64,
    /// Octets that the catalogue takes, or will.
    books: u64,
}

impl Room {
    /// `known`: octets that objects take, where the catalogue has all of them; else their files are counted.
    pub(super) fn of(place: &Place, sizes: Sizes, known: Option<u64>) -> io::Result<Room> {
        let used = known.map_or_else(|| count(place), Ok)?;
        let (free, size) = place.free_space()?;
        let catalogue = std::fs::metadata(place.path().join(CATALOGUE));
        let mut limits = Limits::new(sizes.max_size, sizes.min_free);
        Ok(Room {
            used,
            whole: limits.limit(used, 0, free, size),
            books: BOOKS + catalogue.map_or(0, |it| it.len()),
        })
    }

    pub(super) fn has(&self, octets: u64) -> bool {
        // A small cache is not eaten up by its own books.
        let limit = self.whole - self.books.min(self.whole / 4);
        let Bounds { high, tight, .. } = Bounds::of(limit);
        self.used <= tight && self.used.saturating_add(octets) <= high
    }

    /// `key`: the length of its key.
    pub(super) fn take(&mut self, octets: u64, key: usize) {
        self.used += octets;
        self.books += ROW + key as u64;
    }

    pub(super) fn free(&mut self, octets: u64) {
        self.used = self.used.saturating_sub(octets);
    }
}

/// Octets that all files of objects take.
fn count(place: &Place) -> io::Result<u64> {
    let mut octets = 0;
    for directory in 0..DIRECTORIES {
        for found in place.list(directory)? {
            let opened = match found {
                Found::Head(name) => place.open_head(&name, Access::Blocking),
                Found::Body(name, random) => place.open_body(&name, random, Access::Blocking),
                Found::Other(_) => continue,
            };
            // One that cannot be opened is none of ours, or damaged.
            let facts = opened.and_then(|file| files::facts(file.as_fd()));
            octets += facts.map_or(0, |facts| cost(facts.size));
        }
    }
    Ok(octets)
}
