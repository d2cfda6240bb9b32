//! Removal: of what is kept of one URL, on both sides of the proxy, or of everything.
//!
//! One URL: every process is told before the files go and after. Whoever looked before the first word has answered
//! with what was there then; whoever looks later finds nothing, and nothing that it reads in between outlives the
//! second word; what is being put in its place either is there by then or finds the first word. Everything: one number is raised, from when on no head counts that was asked for before; the files go
//! in the background.

use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;

use super::show::heads_of;
use super::{Ground, Instance, Say};
use crate::cache::{Key, Name, Set, key};
use crate::http::{Method, RequestHead, TargetUri, Version};
use crate::janitor::catalogue::{Catalogue, Change};
use crate::janitor::protocol::{Purged, Reply};
use crate::janitor::purging::{Carried, Purging};
use crate::store::Fate;
use crate::store::disk::place::{CATALOGUE, DIRECTORIES, Found, Place, cost};
use crate::store::disk::{purged, read};
use crate::sys::clock::unix_seconds;
use crate::sys::files::{self, Access};

/// Between two looks at how far the janitor has swept.
const LOOK: Duration = Duration::from_millis(100);

/// The keys under which a URL may be kept: forward, reverse.
pub(super) fn keys(url: &str) -> anyhow::Result<[Key; 2]> {
    let url = url.trim();
    // As it may be copied from a browser's address line.
    let url = url.split('#').next().unwrap_or(url);
    let whole = match url.contains("://") {
        true => url.to_owned(),
        false => format!("http://{url}"),
    };
    let request = RequestHead {
        method: Method::Get,
        target: whole.into_bytes(),
        // Of which no Host is demanded.
        version: Version::Http10,
        ..RequestHead::new()
    };
    let uri = TargetUri::of(&request, None).with_context(|| format!("{url:?} is no URL"))?;
    Ok([key::Side::Forward, key::Side::Reverse].map(|side| Key::of(&uri, side)))
}

pub(super) fn purge(
    ground: &Ground<'_>,
    what: &Set,
    soft: bool,
    say: Say<'_>,
) -> anyhow::Result<Purged> {
    match (what, soft) {
        (Set::Url(url), false) => purge_url(ground, url),
        (Set::Url(url), true) => soften_url(ground, url),
        _ => super::sets::purge(ground, what, soft, say),
    }
}

fn purge_url(ground: &Ground<'_>, url: &str) -> anyhow::Result<Purged> {
    let mut purged = Purged {
        what: Some(Set::Url(url.to_owned())),
        ..Purged::default()
    };
    for key in keys(url)? {
        let key = key.as_bytes();
        ground.bump(key);
        let removed = remove_all_of(ground.place, &Name::of(key));
        ground.bump(key);
        let removed = removed.context("a file cannot be removed")?;
        purged.objects += removed.objects;
        purged.octets += removed.octets;
        ground.removed(removed.names);
    }
    Ok(purged)
}

/// The same, but it stays, and is stale.
fn soften_url(ground: &Ground<'_>, url: &str) -> anyhow::Result<Purged> {
    let mut purged = Purged {
        what: Some(Set::Url(url.to_owned())),
        soft: true,
        ..Purged::default()
    };
    let generation = ground.generation()?;
    let purging = Purging {
        place: ground.place,
        region: ground.instance.map(|instance| &instance.region),
        generation,
    };
    let fate = Fate::Stale(unix_seconds(), generation);
    let mut buffer = Vec::new();
    for key in keys(url)? {
        let key = key.as_bytes();
        ground.bump(key);
        let name = Name::of(key);
        let turn = ground.place.turn(name.directory())?;
        for found in heads_of(ground.place, &name)? {
            let Ok(read) = read::head(ground.place, &found, Access::Blocking, &mut buffer) else {
                continue;
            };
            let size = files::facts(read.file.as_fd())?.size;
            let carried = purging.carry_out(&turn, &found, &read.head, size, fate);
            if let Carried::Softened = carried.context("a file cannot be written")? {
                purged.objects += 1;
                purged.octets += cost(size);
            }
        }
        ground.bump(key);
    }
    Ok(purged)
}

#[derive(Default)]
pub(super) struct Removed {
    pub names: Vec<Name>,
    /// Responses: all heads but lists.
    pub objects: u64,
    pub octets: u64,
}

/// Removes every file that begins with that name: heads, then bodies.
pub(super) fn remove_all_of(place: &Place, name: &Name) -> anyhow::Result<Removed> {
    let _turn = place.turn(name.directory())?;
    let mut removed = Removed::default();
    let mut bodies = Vec::new();
    let mut heads = Vec::new();
    for found in place.list(name.directory())? {
        match found {
            Found::Head(found) if found.base == name.base => heads.push(found),
            Found::Body(found, random) if found.base == name.base => bodies.push((found, random)),
            _ => {}
        }
    }
    // The base leads to the others.
    heads.sort_unstable();
    let has_variants = heads.iter().any(|head| !head.is_base());
    for head in heads {
        let size = size(place.open_head(&head, Access::Blocking));
        if place.remove(&head, None)? {
            removed.octets += size;
            removed.objects += u64::from(!(head.is_base() && has_variants));
            removed.names.push(head);
        }
    }
    for (name, random) in bodies {
        let size = size(place.open_body(&name, random, Access::Blocking));
        if place.remove(&name, Some(random))? {
            removed.octets += size;
        }
    }
    Ok(removed)
}

fn size(opened: std::io::Result<std::os::fd::OwnedFd>) -> u64 {
    opened
        .and_then(|file| files::facts(file.as_fd()))
        .map_or(0, |facts| cost(facts.size))
}

pub(super) fn purge_all(ground: &Ground<'_>, say: Say<'_>) -> anyhow::Result<Purged> {
    // The figures as they are now, from the catalogue: no file is read for them, and it does not depend on them.
    let before = super::list::stats(ground).unwrap_or_default();
    let generation = match ground.instance {
        Some(instance) => {
            let _alone = instance.board.purge_alone();
            let generation = raise(ground)?;
            // The file is there: a restart purges as well. Then nothing new counts, then no copy in memory does.
            instance.region.space().raise_generation(generation);
            instance.region.versions().bump_epoch();
            generation
        }
        None => raise(ground)?,
    };
    match ground.instance {
        Some(instance) => wait_until_swept(instance, generation, say)?,
        None => sweep(ground.place, say)?,
    }
    Ok(Purged {
        what: None,
        soft: false,
        objects: before.objects + before.variants,
        octets: before.size,
        silent: Vec::new(),
    })
}

fn raise(ground: &Ground<'_>) -> anyhow::Result<u64> {
    let known = ground
        .instance
        .map_or(0, |it| it.region.space().generation());
    // Unreadable, it must still rise: beyond what the instance knows, or what anybody will have counted to.
    let written = ground
        .place
        .generation()
        .unwrap_or(unix_seconds().cast_unsigned() << 32);
    let generation = purged::after_all(known.max(written));
    ground
        .place
        .set_generation(generation)
        .context("the generation cannot be written")?;
    // Whatever they name has gone along.
    ground.place.set_pending(&[])?;
    Ok(generation)
}

/// The janitor's loop sweeps; whoever waits for it may stop waiting.
pub(super) fn wait_until_swept(
    instance: &Instance,
    generation: u64,
    say: Say<'_>,
) -> anyhow::Result<()> {
    let (total, mut has_begun) = (u64::from(DIRECTORIES), false);
    while instance.board.swept() < generation {
        has_begun |= instance.board.percent().is_some();
        let done = if has_begun {
            instance.board.visited()
        } else {
            0
        };
        say(&Reply::Progress { done, total })?;
        sleep(LOOK);
    }
    Ok(())
}

/// At rest everything may go.
fn sweep(place: &Place, say: Say<'_>) -> anyhow::Result<()> {
    let total = u64::from(DIRECTORIES);
    let mut listens = true;
    for directory in 0..DIRECTORIES {
        for found in place.list(directory)? {
            match found {
                Found::Head(name) => place.remove(&name, None)?,
                Found::Body(name, random) => place.remove(&name, Some(random))?,
                Found::Other(_) => false,
            };
        }
        let done = u64::from(directory) + 1;
        listens = listens && say(&Reply::Progress { done, total }).is_ok();
    }
    for file in place.aside()? {
        place.remove_aside(&file)?;
    }
    let path = place.path().join(CATALOGUE);
    let emptied = Catalogue::open(&path).and_then(|mut it| it.write(&[Change::RemoveAll], &[]));
    if emptied.is_err() {
        Catalogue::delete(&path).context("the catalogue cannot be removed")?;
    }
    Ok(())
}
