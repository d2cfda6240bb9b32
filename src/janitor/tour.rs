//! A tour of the cache directory: every head file is read, the books learn what there is, and what leads nowhere is
//! removed.
//!
//! It goes file by file, as far as it is given time, so that the janitor can do everything else meanwhile. What it
//! removes: heads that cannot be read, of another version or generation, or whose body is not there; bodies that no
//! head names; variants of a list that is gone. What is younger than a few seconds may just be on its way to its
//! place, and is left alone.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::books::{Books, Now};
use super::purging::{Carried, Purging};
use crate::cache::Name;
use crate::shared::{Kind, Region, Stored};
use crate::store::disk::format::{Body, Content, Head};
use crate::store::disk::place::{DIRECTORIES, Found, Place, cost};
use crate::store::disk::read::{self, ReadError};
use crate::store::disk::{purged, write};
use crate::store::{Fate, Known};
use crate::sys::clock::monotonic_ms;
use crate::sys::files::{self, Access};

/// Until a file is old enough that nobody is still about to name it.
const YOUNG: i64 = 5;

/// How often the log says how far it is.
const SAY_MS: u64 = 3_000;

/// Which directories are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    /// Those that have changed since then (seconds since 1970).
    Since(i64),
}

pub(super) struct Tour {
    scope: Scope,
    /// The directory that is visited next.
    next: u16,
    visit: Option<Visit>,
    visited: Vec<bool>,
    tally: Tally,
    /// What the books counted, when it began, without knowing it.
    presumed: u64,
    /// Something was left alone that may lead nowhere.
    left_young: bool,
    /// By the wall clock, and monotonic milliseconds.
    began_at: i64,
    began: u64,
    said: u64,
    /// What purges of many have taken: responses and octets, by generation.
    purged: HashMap<u64, (u64, u64)>,
    known: Known,
    buffer: Vec<u8>,
}

/// What has come out of it so far.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    directories: u32,
    found: u64,
    /// Octets of what the books did not have.
    new: u64,
    removed: u64,
}

/// One directory.
struct Visit {
    directory: u16,
    /// Heads that have not been read.
    heads: Vec<Name>,
    bodies: Vec<(Name, u64)>,
    /// Bodies that a head names.
    named: HashSet<(Name, u64)>,
    /// Lists by their base name.
    lists: HashMap<[u8; 16], u64>,
    /// Variants, with the lists that they say they belong to.
    variants: Vec<(Name, u64)>,
}

/// What a head file is found to be.
enum Looked {
    /// Its kind, the body file it names, the list it is or belongs to.
    Alive {
        body: Option<u64>,
        list: Option<u64>,
        /// Octets, if the books did not have it.
        new: u64,
    },
    /// With the body file that it named.
    Dead(Option<u64>),
    Gone,
    /// The disk does not say.
    Unreadable,
}

// === impl Tour ===

impl Tour {
    pub(super) fn new(scope: Scope, books: &mut Books, region: &Region) -> Tour {
        books.ledger.unmark_all();
        Tour {
            scope,
            next: 0,
            visit: None,
            visited: vec![false; usize::from(DIRECTORIES)],
            tally: Tally::default(),
            presumed: books.presumed(),
            left_young: false,
            began_at: books.now.unix,
            began: books.now.ms,
            said: books.now.ms,
            purged: HashMap::new(),
            known: Known::new(region.clone()),
            buffer: Vec::new(),
        }
    }

    /// What purges of many have taken since this was asked last.
    pub(super) fn take_purged(&mut self) -> HashMap<u64, (u64, u64)> {
        std::mem::take(&mut self.purged)
    }

    pub(super) fn is_of_all(&self) -> bool {
        self.scope == Scope::All
    }

    /// Directories that it has not entered yet.
    pub(super) fn remaining(&self) -> u16 {
        DIRECTORIES - self.next
    }

    /// When it began, less what lies before what it may have seen, seconds since 1970.
    pub(super) fn began_at(&self) -> i64 {
        self.began_at - 2 * YOUNG
    }

    /// Files removed that led nowhere.
    pub(super) fn removed(&self) -> usize {
        self.tally.removed as usize
    }

    /// Whether it left something that it has to be looked at again, when it is older.
    pub(super) fn has_left_young(&self) -> bool {
        self.left_young
    }

    /// Goes on until `deadline` (monotonic milliseconds); whether it has come to its end.
    pub(super) fn go_on(
        &mut self,
        place: &Place,
        books: &mut Books,
        region: &Region,
        deadline: u64,
    ) -> bool {
        while monotonic_ms() < deadline {
            if !self.step(place, books, region) {
                self.end(books);
                return true;
            }
        }
        if self.is_of_all() {
            books.presume(self.still_unseen());
        }
        if books.now.ms >= self.said + SAY_MS {
            self.said = books.now.ms;
            log::info!(
                "catalogue: {} objects found, {} % of the directories",
                self.tally.found,
                self.tally.directories * 100 / u32::from(DIRECTORIES)
            );
        }
        false
    }

    /// Looks at one file, or at what a directory has come to. `false`: there is nothing more.
    fn step(&mut self, place: &Place, books: &mut Books, region: &Region) -> bool {
        let Some(visit) = &mut self.visit else {
            return self.enter_next(place);
        };
        if let Some(name) = visit.heads.pop() {
            let ground = Ground {
                place,
                region,
                known: &self.known,
            };
            match ground.look_at(&name, books, &mut self.buffer, &mut self.purged, false) {
                Looked::Alive { body, list, new } => {
                    self.tally.found += 1;
                    self.tally.new += new;
                    visit.enter(name, body, list);
                }
                Looked::Dead(_) => self.tally.removed += 1,
                Looked::Gone | Looked::Unreadable => {}
            }
        } else {
            let (removed, left_young) = visit.tidy(place, books);
            self.tally.removed += removed;
            self.left_young |= left_young;
            self.visit = None;
        }
        true
    }

    fn enter_next(&mut self, place: &Place) -> bool {
        if self.next == DIRECTORIES {
            return false;
        }
        let directory = self.next;
        self.next += 1;
        self.tally.directories += 1;
        let wanted = match self.scope {
            Scope::All => true,
            Scope::Since(time) => match place.directory_changed(directory) {
                Ok(changed) => changed.is_none_or(|changed| changed >= time),
                Err(_) => false,
            },
        };
        if wanted {
            // What comes into it from now on has looked at the purges and the generation that this tour knows.
            let listed = place
                .turn(directory)
                .and_then(|_turn| place.list(directory));
            match listed {
                Ok(found) => {
                    self.visited[usize::from(directory)] = true;
                    self.visit = Some(Visit::new(directory, found));
                }
                Err(error) => log::debug!("directory {directory:03x} cannot be listed: {error}"),
            }
        }
        true
    }

    /// Names are spread evenly: what has been visited tells how much there is in the rest.
    fn still_unseen(&self) -> u64 {
        let rest = u64::from(DIRECTORIES) - u64::from(self.tally.directories);
        let estimate = self.tally.new / u64::from(self.tally.directories.max(1)) * rest;
        estimate.max(self.presumed / u64::from(DIRECTORIES) * rest)
    }

    /// What was in the books and not in its directory is gone.
    fn end(&mut self, books: &mut Books) {
        books.presume(0);
        // What was stored meanwhile is marked as soon as its record is read.
        books.drain();
        let visited = |name: &Name| self.visited[usize::from(name.directory())];
        let missing = books.ledger.unmarked().map(|entry| entry.name);
        let missing: Vec<Name> = missing.filter(visited).collect();
        for name in &missing {
            books.forget(name);
        }
        let took = (monotonic_ms() - self.began) / 1000;
        let Tally { found, removed, .. } = self.tally;
        let gone = missing.len();
        let said = format!(
            "catalogue: {found} objects found, {gone} missing, {removed} files removed, in {took} s"
        );
        match self.scope {
            Scope::All if found + removed > 0 || gone > 0 => log::info!("{said}"),
            Scope::All | Scope::Since(_) => log::debug!("{said}"),
        }
    }
}

// === impl Visit ===

impl Visit {
    fn new(directory: u16, found: Vec<Found>) -> Visit {
        let mut visit = Visit {
            directory,
            heads: Vec::new(),
            bodies: Vec::new(),
            named: HashSet::new(),
            lists: HashMap::new(),
            variants: Vec::new(),
        };
        for found in found {
            match found {
                Found::Head(name) => visit.heads.push(name),
                Found::Body(name, random) => visit.bodies.push((name, random)),
                Found::Other(file) => {
                    let file = String::from_utf8_lossy(&file);
                    log::debug!("{file:?} in directory {directory:03x} is none of ours");
                }
            }
        }
        visit
    }

    fn enter(&mut self, name: Name, body: Option<u64>, list: Option<u64>) {
        if let Some(random) = body {
            self.named.insert((name, random));
        }
        match list {
            Some(number) if name.is_base() => {
                self.lists.insert(name.base, number);
            }
            Some(number) => self.variants.push((name, number)),
            None => {}
        }
    }

    /// Removes what leads nowhere, now that all heads have been read: how many files, and whether some were too young.
    fn tidy(&mut self, place: &Place, books: &mut Books) -> (u64, bool) {
        let (mut removed, mut left_young) = (0, false);
        for (name, random) in &self.bodies {
            if self.named.contains(&(*name, *random)) {
                continue;
            }
            match age(place.open_body(name, *random, Access::Blocking), books.now) {
                Age::Old => removed += u64::from(remove(place, name, Some(*random))),
                Age::Young => left_young = true,
                Age::Gone => {}
            }
        }
        for (name, number) in &self.variants {
            if self.lists.get(&name.base) == Some(number) {
                continue;
            }
            match age(place.open_head(name, Access::Blocking), books.now) {
                Age::Old => removed += discard(place, name, books),
                Age::Young => left_young = true,
                Age::Gone => {}
            }
        }
        if removed > 0 {
            log::debug!(
                "{removed} files removed from directory {:03x}",
                self.directory
            );
        }
        (removed, left_young)
    }
}

enum Age {
    /// Somebody may still be about to name it.
    Young,
    Old,
    Gone,
}

/// When a clock is set back, a file may seem to be from the future: it is as old.
fn age(opened: io::Result<OwnedFd>, now: Now) -> Age {
    match opened.and_then(|file| Ok(files::facts(file.as_fd())?.changed)) {
        Ok(changed) if (now.unix - changed).abs() > YOUNG => Age::Old,
        Ok(_) => Age::Young,
        Err(_) => Age::Gone,
    }
}

// === looking at a head, and removing it

/// Where heads are looked at.
struct Ground<'a> {
    place: &'a Place,
    region: &'a Region,
    known: &'a Known,
}

impl Ground<'_> {
    /// Reads a head file: the books learn of one that lives, and one that does not is removed. `taken`: what purges take is
    /// counted here.
    fn look_at(
        &self,
        name: &Name,
        books: &mut Books,
        buffer: &mut Vec<u8>,
        taken: &mut HashMap<u64, (u64, u64)>,
        is_renewed: bool,
    ) -> Looked {
        let is_softened = match self.purge(name, books, buffer, taken) {
            Ok(Carried::NotMeant) => false,
            Ok(Carried::Softened) => true,
            Ok(Carried::Removed(_)) => return Looked::Dead(None),
            Err(error) => {
                log::debug!("{name} cannot be purged: {error}");
                return Looked::Unreadable;
            }
        };
        look_at(self, name, books, buffer, is_softened || is_renewed)
    }

    /// What purges of many want of it.
    fn purge(
        &self,
        name: &Name,
        books: &mut Books,
        buffer: &mut Vec<u8>,
        taken: &mut HashMap<u64, (u64, u64)>,
    ) -> io::Result<Carried> {
        let purging = Purging {
            place: self.place,
            region: Some(self.region),
            generation: self.region.space().generation(),
        };
        let purges = self.known.all();
        if purges.is_empty() {
            return Ok(Carried::NotMeant);
        }
        let turn = self.place.turn(name.directory())?;
        // Whatever is wrong with it is found by who looks at it next.
        let Ok(read) = read::head(self.place, name, Access::Blocking, buffer) else {
            return Ok(Carried::NotMeant);
        };
        let size = files::facts(read.file.as_fd())?.size;
        let fate = Fate::of(&read.head, &purges);
        let carried = purging.carry_out(&turn, name, &read.head, size, fate)?;
        let octets = match carried {
            Carried::NotMeant => return Ok(carried),
            Carried::Softened => cost(size),
            Carried::Removed(octets) => {
                books.forget(name);
                octets
            }
        };
        if let Fate::Gone(generation) | Fate::Stale(_, generation) = fate {
            let count = taken.entry(generation).or_default();
            *count = (count.0 + 1, count.1 + octets);
        }
        Ok(carried)
    }
}

/// `is_renewed`: its file is another one than the books know.
fn look_at(
    ground: &Ground<'_>,
    name: &Name,
    books: &mut Books,
    buffer: &mut Vec<u8>,
    is_renewed: bool,
) -> Looked {
    let place = ground.place;
    let mut inode = None;
    let looked = match read::head(place, name, Access::Blocking, buffer) {
        Ok(read) => {
            let facts = files::facts(read.file.as_fd()).map_err(ReadError::from);
            inode = facts.as_ref().ok().map(|facts| facts.inode);
            facts.and_then(|facts| match_up(ground, name, &read.head, facts, books, is_renewed))
        }
        Err(error) => Err(error),
    };
    match looked {
        Ok(Looked::Dead(body)) => {
            remove_head(place, name, inode, books, buffer);
            if let Some(random) = body {
                remove(place, name, Some(random));
            }
            Looked::Dead(body)
        }
        Ok(looked) => looked,
        Err(ReadError::Absent) => {
            books.forget(name);
            Looked::Gone
        }
        Err(error) if error.is_worthless() => {
            log::debug!("the object {name} is removed: {error}");
            remove_head(place, name, inode, books, buffer);
            Looked::Dead(None)
        }
        Err(error) => {
            log::debug!("the object {name} cannot be read: {error}");
            Looked::Unreadable
        }
    }
}

/// Looks for one name that the books do not have. What purges of many have taken of it.
pub(super) fn look_for(
    place: &Place,
    name: &Name,
    books: &mut Books,
    region: &Region,
    is_renewed: bool,
) -> HashMap<u64, (u64, u64)> {
    let mut taken = HashMap::new();
    let ground = Ground {
        place,
        region,
        known: &Known::new(region.clone()),
    };
    ground.look_at(name, books, &mut Vec::new(), &mut taken, is_renewed);
    taken
}

fn match_up(
    ground: &Ground<'_>,
    name: &Name,
    head: &Head,
    facts: files::Facts,
    books: &mut Books,
    is_renewed: bool,
) -> Result<Looked, ReadError> {
    let Ground { place, region, .. } = ground;
    // Read after the head, so that it is not behind it.
    if !purged::counts(head.generation, region.space().generation()) {
        let body = match &head.content {
            Content::Object(kept) => kept.body.random(),
            Content::List(_) => None,
        };
        return Ok(Looked::Dead(body));
    }
    let mut octets = cost(facts.size);
    let mut stored = Stored {
        name: *name,
        kind: Kind::List,
        key: &head.key,
        status: 0,
        length: 0,
        kib: 0,
        expires: 0,
        at: facts.modified.0,
    };
    let (body, list) = match &head.content {
        Content::List(list) => (None, Some(list.number)),
        Content::Object(kept) => {
            stored.kind = if name.is_base() {
                Kind::Object
            } else {
                Kind::Variant
            };
            stored.status = kept.stored.status;
            stored.length = kept.stored.body_len;
            stored.at = kept.stored.times.response;
            stored.expires = stored.at + kept.stored.remaining(stored.at);
            let body = match &kept.body {
                Body::Inline => None,
                Body::File(file) => {
                    read::body(place, name, kept, file, Access::Blocking)?;
                    octets += cost(stored.length);
                    Some(file.random)
                }
            };
            (body, kept.list)
        }
    };
    stored.kib = u32::try_from(octets / 1024).unwrap_or(u32::MAX);
    if is_renewed {
        books.renewed(&stored);
    }
    let is_new = books.found(&stored, facts.modified.0);
    let new = if is_new { octets } else { 0 };
    Ok(Looked::Alive { body, list, new })
}

/// `inode`: that of its file, if it could be read.
fn remove_head(
    place: &Place,
    name: &Name,
    inode: Option<u64>,
    books: &mut Books,
    buffer: &mut Vec<u8>,
) {
    let is_it = |read: &read::Read<'_>| {
        let now = files::facts(read.file.as_fd()).ok();
        inode.is_some() && now.map(|now| now.inode) == inode
    };
    match write::remove_dead(place, name, buffer, is_it) {
        Ok(true) => drop(books.forget(name)),
        Ok(false) => {}
        Err(error) => log::debug!("{name} cannot be removed: {error}"),
    }
}

/// Removes a file; whether it is gone.
fn remove(place: &Place, name: &Name, random: Option<u64>) -> bool {
    match place.remove(name, random) {
        Ok(_) => true,
        Err(error) => {
            log::debug!("{name} cannot be removed: {error}");
            false
        }
    }
}

/// Removes a head with its body; how many files.
fn discard(place: &Place, name: &Name, books: &mut Books) -> u64 {
    match write::remove(place, name) {
        Ok(removed) => {
            removed.iter().for_each(|name| {
                books.forget(name);
            });
            removed.len() as u64
        }
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests;
