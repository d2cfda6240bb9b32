//! A purge of many responses at once: by how their URLs begin, by tag, by a regular expression; or of anything, softly.
//!
//! It counts from one moment on, for all processes and whatever is kept: the purge is written down in the directory, then all are
//! told, and whoever looks something up applies it. The files follow, and when all have been looked at it is forgotten. What was asked
//! for before that moment, and comes later, is not kept.

use std::os::fd::AsFd;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::purge::wait_until_swept;
use super::{Ground, Instance, Say};
use crate::cache::Set;
use crate::janitor::protocol::{Purged, Reply};
use crate::janitor::purging::{Carried, Purging};
use crate::store::disk::place::{DIRECTORIES, Found};
use crate::store::disk::purged::Pending;
use crate::store::disk::read::{self, ReadError};
use crate::store::{Fate, Purge, Purges};
use crate::sys::clock::unix_seconds;
use crate::sys::files::{self, Access};

/// Errors: the directory cannot be read or written, or there is no such set.
pub(super) fn purge(
    ground: &Ground<'_>,
    set: &Set,
    soft: bool,
    say: Say<'_>,
) -> anyhow::Result<Purged> {
    set.matcher()?;
    let mut purged = Purged {
        what: Some(set.clone()),
        soft,
        ..Purged::default()
    };
    let pending = Pending {
        generation: 0,
        soft: soft.then(unix_seconds),
        set: set.clone(),
    };
    (purged.objects, purged.octets) = match ground.instance {
        Some(instance) => {
            let generation = post(ground, instance, pending)?;
            wait_until_swept(instance, generation, say)?;
            instance.board.purged(generation)
        }
        None => at_rest(ground, pending, say)?,
    };
    Ok(purged)
}

/// From now on it counts: the number that it has.
fn post(ground: &Ground<'_>, instance: &Instance, pending: Pending) -> anyhow::Result<u64> {
    let _alone = instance.board.purge_alone();
    let (place, region) = (ground.place, &instance.region);
    let generation = region.space().generation() + 1;
    let mut all = place.pending().context("the file `purges`")?;
    let pending = Pending {
        generation,
        ..pending
    };
    let posted = pending.posted()?;
    all.push(pending);
    // A restart purges as well, should it come before the end.
    place
        .set_pending(&all)
        .context("the file `purges` cannot be written")?;
    let done = instance.board.swept();
    if let Err(error) = region.purges().post(posted, done, region.versions()) {
        all.pop();
        place.set_pending(&all)?;
        bail!("{error}");
    }
    // What is asked for from now on has a number that the purge is not about.
    region.space().raise_generation(generation);
    place
        .set_generation(generation)
        .context("the generation cannot be written")?;
    Ok(generation)
}

/// Looks at every file: how many responses were meant, and the octets that they took.
fn at_rest(ground: &Ground<'_>, pending: Pending, say: Say<'_>) -> anyhow::Result<(u64, u64)> {
    let place = ground.place;
    let generation = place.generation()? + 1;
    // One that was interrupted is carried out along with it.
    let mut all = place.pending().context("the file `purges`")?;
    all.push(Pending {
        generation,
        ..pending
    });
    place
        .set_pending(&all)
        .context("the file `purges` cannot be written")?;
    place.set_generation(generation)?;
    let purges = purges_of(&all)?;
    let purging = Purging {
        place,
        region: None,
        generation,
    };
    let (mut objects, mut octets, mut names) = (0, 0, Vec::new());
    let mut listens = true;
    let mut buffer = Vec::new();
    for directory in 0..DIRECTORIES {
        for found in place.list(directory)? {
            let Found::Head(name) = found else { continue };
            let turn = place.turn(directory)?;
            let read = match read::head(place, &name, Access::Blocking, &mut buffer) {
                Ok(read) => read,
                Err(ReadError::Io(error)) => return Err(error).context("a file cannot be read"),
                Err(_) => continue,
            };
            let size = files::facts(read.file.as_fd())?.size;
            let fate = Fate::of(&read.head, &purges);
            match purging.carry_out(&turn, &name, &read.head, size, fate)? {
                Carried::NotMeant => {}
                Carried::Removed(freed) => {
                    objects += 1;
                    octets += freed;
                    names.push(name);
                }
                Carried::Softened => {
                    objects += 1;
                    octets += size;
                }
            }
        }
        let (done, total) = (u64::from(directory) + 1, u64::from(DIRECTORIES));
        listens = listens && say(&Reply::Progress { done, total }).is_ok();
    }
    place.set_pending(&[])?;
    ground.removed(names);
    Ok((objects, octets))
}

/// Those that are written down, ready to be asked.
pub(super) fn purges_of(pending: &[Pending]) -> anyhow::Result<Purges> {
    let purges = pending
        .iter()
        .map(|pending| Ok(Arc::new(Purge::new(&pending.posted()?))));
    purges.collect()
}
