//! Filling a store from an archive: what an archive has is put where it is missing, or older.
//!
//! The order is the archive's, one response after the other, so that memory holds one block. What is there and newer stays, and
//! nothing is thrown out for what comes: where there is no more room the rest is left out, and counted. Into a directory here;
//! into a database in `postgres`.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use super::room::Room;
use super::{Archive, Ground, Note, Say, opened};
use crate::cache::{Name, Stored, key};
use crate::janitor::aside;
use crate::janitor::catalogue::{Catalogue, Change, Fact, Reader as Listed, Row};
use crate::janitor::protocol::{Imported, Reply};
use crate::store::archive::{Block, Entry, Reader};
use crate::store::disk::format;
use crate::store::disk::format::{BLOCK, Content, INLINE};
use crate::store::disk::place::{CATALOGUE, Place, cost};
use crate::store::disk::read::{self, ReadError};
use crate::store::disk::write::{self, Done, New, NewBody, Seen, Spill};
use crate::sys::clock::unix_seconds;
use crate::sys::files::Access;

/// Octets between two reports.
const REPORT: u64 = 4 << 20;

/// Why a response is not taken.
pub(super) enum LeftOut {
    /// What is there is not older, or is all of what this is a part of.
    Newer,
    NoRoom,
}

/// What is filled.
pub(super) trait Destination {
    /// One that is arriving.
    type Body;

    fn begin(&mut self, entry: &Entry) -> anyhow::Result<Result<Self::Body, LeftOut>>;
    /// 256 KiB more, or the rest.
    fn write(&mut self, body: &mut Self::Body, octets: &[u8]) -> anyhow::Result<()>;
    fn finish(&mut self, entry: Entry, body: Self::Body) -> anyhow::Result<Result<(), LeftOut>>;
    /// Its rest will not come.
    fn give_up(&mut self, body: Self::Body);
}

pub(super) fn import(
    ground: &Ground<'_>,
    from: Option<Archive<'_>>,
    say: Say<'_>,
) -> anyhow::Result<Imported> {
    let place = Place::open(ground.place.path())?;
    let mut directory = Directory {
        ground,
        place: Arc::new(place),
        files: 0,
        rows: Rows::default(),
        room: Room::default(),
    };
    if ground.instance.is_none() {
        directory.rows = Rows::of(&ground.place.path().join(CATALOGUE));
        let room = Room::of(&directory.place, ground.sizes, directory.rows.octets);
        directory.room = room.context("how much room there is")?;
    }
    let imported = fill(&mut directory, from, say);
    directory.rows.write();
    imported
}

/// Puts everything that an archive has where it is to be. Errors: the archive is damaged or ends too early, or the store fails; what has come until
/// then stays.
pub(super) fn fill(
    to: &mut impl Destination,
    from: Option<Archive<'_>>,
    say: Say<'_>,
) -> anyhow::Result<Imported> {
    let mut imported = Imported::default();
    fill_into(to, from, say, &mut imported).with_context(|| {
        let Imported { objects, .. } = imported;
        format!("the import has ended after {objects} responses, which stay")
    })?;
    Ok(imported)
}

fn fill_into(
    to: &mut impl Destination,
    from: Option<Archive<'_>>,
    say: Say<'_>,
    imported: &mut Imported,
) -> anyhow::Result<()> {
    let mut archive = Reader::new(io::BufReader::with_capacity(BLOCK, opened(from)?))?;
    let mut reported = 0;
    while let Some(entry) = archive.entry()? {
        let taken = match to.begin(&entry)? {
            Ok(body) => take(to, entry, body, &mut archive, imported)?,
            Err(why) => Err(why),
        };
        match taken {
            Ok(()) => {}
            Err(LeftOut::Newer) => imported.newer += 1,
            Err(LeftOut::NoRoom) => imported.no_room += 1,
        }
        if archive.at() - reported >= REPORT {
            reported = archive.at();
            say(&Reply::Progress {
                done: reported,
                total: 0,
            })?;
        }
    }
    Ok(())
}

fn take<D: Destination>(
    to: &mut D,
    entry: Entry,
    mut body: D::Body,
    archive: &mut Reader<impl io::Read>,
    imported: &mut Imported,
) -> anyhow::Result<Result<(), LeftOut>> {
    loop {
        let written = match archive.block() {
            Ok(Block::Octets(octets)) => to.write(&mut body, octets),
            Ok(Block::GivenUp) => {
                to.give_up(body);
                imported.damaged += 1;
                return Ok(Ok(()));
            }
            Ok(Block::End) => break,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = written {
            to.give_up(body);
            return Err(error);
        }
    }
    let octets = entry.stored.body_len;
    let finished = to.finish(entry, body)?;
    if finished.is_ok() {
        imported.objects += 1;
        imported.octets += octets;
    }
    Ok(finished)
}

// === a directory

struct Directory<'a> {
    ground: &'a Ground<'a>,
    /// For files that are being written.
    place: Arc<Place>,
    /// Names of files given out.
    files: u64,
    /// Of a directory at rest: what its catalogue is to be told.
    rows: Rows,
    /// And how much more it may take.
    room: Room,
}

/// A response that is on its way into the directory.
struct Arriving {
    body: NewBody,
    aside: String,
    /// Octets taken from the account of a running instance.
    reserved: u64,
}

impl Directory<'_> {
    fn aside(&mut self) -> String {
        self.files += 1;
        let instance = self.ground.instance;
        aside::name(instance.map_or(self.files, |it| it.region.space().ticket()))
    }

    fn reserve(&self, octets: u64) -> bool {
        match self.ground.instance {
            Some(instance) => {
                let space = instance.region.space();
                // The board comes first: whoever sees the octets in the account sees them here.
                instance.board.reserved(octets);
                let fits = !space.is_tight() && space.reserve(octets);
                if !fits {
                    instance.board.settled(octets);
                }
                fits
            }
            None => self.room.has(octets),
        }
    }

    fn release(&self, octets: u64) {
        if let Some(instance) = self.ground.instance {
            instance.region.space().release(octets);
            instance.board.settled(octets);
        }
    }

    /// Whether what is kept under the same key, for the same requests or for all, is not older.
    fn has_newer(&self, key: &[u8], stored: &Stored) -> anyhow::Result<bool> {
        let base = Name::of(key);
        let mut selected = Vec::new();
        stored.selection.write(&mut selected);
        let mut buffer = Vec::new();
        // Beside variants, what nothing selects is one as well.
        for name in [base, base.variant(&selected)] {
            let head = match read::head(&self.place, &name, Access::Blocking, &mut buffer) {
                Ok(read) => read.head,
                Err(ReadError::Io(error)) => return Err(error.into()),
                Err(_) => continue,
            };
            if let Content::Object(kept) = &head.content
                && head.key == key
                && self.ground.fate(&head)?.is_some()
                && (kept.stored.selection == stored.selection || name == base)
                && kept.stored.times.response >= stored.times.response
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Destination for Directory<'_> {
    type Body = Arriving;

    fn begin(&mut self, entry: &Entry) -> anyhow::Result<Result<Arriving, LeftOut>> {
        let length = entry.stored.body_len;
        if self.has_newer(&entry.key, &entry.stored)? {
            return Ok(Err(LeftOut::Newer));
        }
        let reserved = cost(format::text(&entry.stored).len() as u64 + 1024) + cost(length);
        if !self.reserve(reserved) {
            return Ok(Err(LeftOut::NoRoom));
        }
        let aside = self.aside();
        let body = match length <= INLINE as u64 {
            true => Ok(NewBody::Inline(Vec::with_capacity(length as usize))),
            false => Spill::create(self.place.clone(), aside.clone()).map(NewBody::File),
        };
        let body = body.inspect_err(|_| self.release(reserved))?;
        Ok(Ok(Arriving {
            body,
            aside,
            reserved,
        }))
    }

    fn write(&mut self, arriving: &mut Arriving, octets: &[u8]) -> anyhow::Result<()> {
        match &mut arriving.body {
            NewBody::Inline(body) => body.extend_from_slice(octets),
            NewBody::File(spill) => spill.write(octets)?,
        }
        Ok(())
    }

    fn finish(&mut self, entry: Entry, arriving: Arriving) -> anyhow::Result<Result<(), LeftOut>> {
        let aside = match arriving.body {
            NewBody::Inline(_) => arriving.aside,
            // That one is the body's.
            NewBody::File(_) => self.aside(),
        };
        // As everybody does who stores: what has changed since is not undone.
        let hash = key::hash(&entry.key);
        let seen = self.ground.instance.map(|instance| Seen {
            region: instance.region.clone(),
            version: instance.region.versions().read(hash),
        });
        let new = New {
            key: entry.key.clone(),
            generation: self.ground.generation()?,
            stored: entry.stored,
            body: arriving.body,
            aside,
            replaces: true,
            seen,
        };
        let is_newer = self.has_newer(&new.key, &new.stored);
        let done = match is_newer {
            Ok(true) => Ok(None),
            Ok(false) => write::put(&self.place, new).map_err(anyhow::Error::from),
            Err(error) => Err(error),
        };
        let done = done.inspect_err(|_| self.release(arriving.reserved))?;
        let Some(done) = done else {
            self.release(arriving.reserved);
            return Ok(Err(LeftOut::Newer));
        };
        let Some(instance) = self.ground.instance else {
            self.rows.put(&entry.key, &done, &mut self.room);
            return Ok(Ok(()));
        };
        let names: Vec<Name> = done.written.iter().map(|written| written.name).collect();
        names
            .iter()
            .for_each(|name| instance.region.filter().add(name));
        self.ground.bump(&entry.key);
        self.ground.removed(done.removed);
        let put = Note::Put {
            names,
            reserved: arriving.reserved,
        };
        // A janitor that ends meanwhile leaves it to the next one, which looks at the directory.
        let _ = instance.tell.send(put);
        Ok(Ok(()))
    }

    fn give_up(&mut self, arriving: Arriving) {
        self.release(arriving.reserved);
    }
}

// === the catalogue of a directory at rest

/// Changes that are written at once.
const BATCH: usize = 10_000;

/// What the catalogue has, and what it is to have. It may lack something: the next instance looks at what has changed.
#[derive(Default)]
struct Rows {
    path: PathBuf,
    /// Ids, and the KiB that each takes.
    known: HashMap<Name, (u64, u32)>,
    /// Octets that all of them take; none: it may not have all that is there.
    octets: Option<u64>,
    last: u64,
    changes: Vec<Change>,
}

impl Rows {
    fn of(path: &Path) -> Rows {
        let mut rows = Rows {
            path: path.to_owned(),
            ..Rows::default()
        };
        if path.exists() {
            let known = Listed::open(path).and_then(|reader| {
                let mut kib = 0;
                reader.rows(0, |row| {
                    rows.last = rows.last.max(row.id);
                    rows.known.insert(row.name, (row.id, row.kib));
                    kib += u64::from(row.kib);
                    true
                })?;
                let is_complete = reader.fact(Fact::Clean)? == Some(1);
                rows.octets = is_complete.then_some(kib * 1024);
                Ok(())
            });
            if let Err(error) = known {
                log::debug!("the catalogue cannot be read: {error}");
            }
        }
        rows
    }

    fn put(&mut self, key: &[u8], done: &Done, room: &mut Room) {
        let stored = &done.kept.stored;
        for written in &done.written {
            let kib = u32::try_from(written.octets / 1024).unwrap_or(u32::MAX);
            let known = self.known.entry(written.name).or_insert_with(|| {
                self.last += 1;
                (self.last, 0)
            });
            room.free(u64::from(known.1) * 1024);
            room.take(written.octets, key.len());
            known.1 = kib;
            let id = known.0;
            let (status, length) = done.figures(written);
            let at = stored.times.response;
            self.changes.push(Change::Put(Row {
                id,
                name: written.name,
                kind: written.kind,
                status,
                length,
                kib,
                stored: at,
                expires: at + stored.remaining(at),
                used: unix_seconds(),
                hits: 0,
                key: key.to_vec(),
            }));
        }
        for name in &done.removed {
            if let Some((id, kib)) = self.known.remove(name) {
                room.free(u64::from(kib) * 1024);
                self.changes.push(Change::Remove { id });
            }
        }
        if self.changes.len() >= BATCH {
            self.write();
        }
    }

    fn write(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        let changes = std::mem::take(&mut self.changes);
        let written = Catalogue::open(&self.path).and_then(|mut it| it.write(&changes, &[]));
        if let Err(error) = written {
            log::debug!("the catalogue does not know what has been imported: {error}");
        }
    }
}
