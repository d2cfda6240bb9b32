//! Carries purges of many out, head file by head file: what one names is removed, or marked as stale.
//!
//! The tour of a running instance does it, and a command on a directory at rest. Whoever looks something up meanwhile applies the same
//! purges himself; here they are written down, so that they can be forgotten.

use std::io;

use super::aside;
use crate::cache::Name;
use crate::shared::Region;
use crate::store::Fate;
use crate::store::disk::format::{Content, Head};
use crate::store::disk::place::{Place, Turn, cost};
use crate::store::disk::write;

/// Where it happens.
pub(super) struct Purging<'a> {
    pub place: &'a Place,
    /// None: nobody else changes the directory.
    pub region: Option<&'a Region>,
    /// The number that was read before the purges were.
    pub generation: u64,
}

/// What has become of a head file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    NotMeant,
    /// With everything that it led to: octets on the disk.
    Removed(u64),
    /// The file is another one now.
    Softened,
}

impl Purging<'_> {
    /// In one's turn, which began before `head` was read. `size`: octets of the head file.
    pub(super) fn carry_out(
        &self,
        turn: &Turn,
        name: &Name,
        head: &Head,
        size: u64,
        fate: Fate,
    ) -> io::Result<Carried> {
        match fate {
            Fate::Stays => Ok(Carried::NotMeant),
            Fate::Gone(_) => self.remove(name, head, size),
            Fate::Stale(since, _) => self.soften(turn, name, since),
        }
    }

    fn remove(&self, name: &Name, head: &Head, size: u64) -> io::Result<Carried> {
        let mut octets = cost(size);
        let removed = self.place.remove(name, None)?;
        if let Content::Object(kept) = &head.content
            && let Some(random) = kept.body.random()
            && self.place.remove(name, Some(random))?
        {
            octets += cost(kept.stored.body_len);
        }
        Ok(match removed {
            true => Carried::Removed(octets),
            false => Carried::NotMeant,
        })
    }

    fn soften(&self, turn: &Turn, name: &Name, since: i64) -> io::Result<Carried> {
        let aside = aside::name(self.region.map_or(0, |region| region.space().ticket()));
        let generation = self.generation;
        Ok(
            match write::soften_in(turn, self.place, name, since, generation, aside)? {
                true => Carried::Softened,
                false => Carried::NotMeant,
            },
        )
    }
}
