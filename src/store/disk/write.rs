//! Changing what is kept: written aside, renamed, removed. Everything here may wait for the disk.
//!
//! A body is in its place before the head that names it, a variant before the list that leads to it, and what is
//! replaced is removed last: whoever reads meanwhile finds the one or the other, whole. Whoever changes something waits
//! for his turn in the directory that the name is in, so that none undoes what another does; who invalidates says so
//! before that, and who stores looks behind it. So the process may end at any step, and nothing is there that was
//! asked for before an invalidation.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::format::{self, BLOCK, Body, Content, File, Head, Kept, List, MAX_LISTS};
use super::place::{Place, Turn, cost};
use super::purged;
use super::read::{self, ReadError};
use crate::cache::{Name, Stored, key};
use crate::shared::{Kind, Region, Version};
use crate::store::{InFile, MAX_VARIANTS};
use crate::sys::clock::unix_seconds;
use crate::sys::files::{self, Access, Facts};

/// What is to be kept, with the name that its files have until they are in their place.
pub struct New {
    pub key: Vec<u8>,
    pub generation: u64,
    pub stored: Stored,
    pub body: NewBody,
    pub aside: String,
    /// Whether there may be something under the key already.
    pub replaces: bool,
    /// None: nobody else changes the directory.
    pub seen: Option<Seen>,
}

/// The version of a key when its request was sent.
pub struct Seen {
    pub region: Region,
    pub version: Version,
}

pub enum NewBody {
    Inline(Vec<u8>),
    File(Spill),
}

/// What has come into its place.
pub struct Done {
    pub key: Vec<u8>,
    pub name: Name,
    pub kept: Kept,
    /// The file of the body, which begins at the octet `from`.
    pub file: Arc<OwnedFd>,
    pub from: u64,
    /// An inline body as it was given.
    pub inline: Vec<u8>,
    pub written: Vec<Written>,
    /// Head files that are gone.
    pub removed: Vec<Name>,
}

/// A head file that is there now, and the space that it and its body take.
pub struct Written {
    pub name: Name,
    pub kind: Kind,
    pub octets: u64,
}

// === bodies in files of their own

/// A body that is being written.
pub struct Spill {
    place: Arc<Place>,
    /// Readers may have it, too.
    file: Option<Arc<OwnedFd>>,
    aside: String,
    length: u64,
    checksums: Vec<u32>,
    hasher: crc32fast::Hasher,
    /// Octets of the block that `hasher` has seen.
    in_block: usize,
}

impl Spill {
    pub fn create(place: Arc<Place>, aside: String) -> io::Result<Spill> {
        Ok(Spill {
            file: Some(Arc::new(place.create_aside(&aside)?)),
            place,
            aside,
            length: 0,
            checksums: Vec::new(),
            hasher: crc32fast::Hasher::new(),
            in_block: 0,
        })
    }

    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        files::write_at(file.as_fd(), data, self.length)?;
        self.length += data.len() as u64;
        let mut rest = data;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BLOCK - self.in_block));
            self.hasher.update(now);
            self.in_block += now.len();
            rest = later;
            if self.in_block == BLOCK {
                self.end_block();
            }
        }
        Ok(())
    }

    /// What is in the file, for those who read it while more comes.
    pub fn so_far(&self) -> Option<InFile> {
        self.file.as_ref().map(|file| InFile {
            file: file.clone(),
            length: self.length,
        })
    }

    fn end_block(&mut self) {
        let hasher = std::mem::replace(&mut self.hasher, crc32fast::Hasher::new());
        self.checksums.push(hasher.finalize());
        self.in_block = 0;
    }

    /// Moves it to where the head of that name will say that it is.
    fn publish(mut self, turn: &Turn, name: &Name) -> io::Result<(Arc<OwnedFd>, File, Vec<u32>)> {
        if self.in_block > 0 {
            self.end_block();
        }
        let random = fastrand::u64(..);
        let Some(file) = self.file.take() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let modified = files::facts(file.as_fd())?.modified;
        self.place
            .publish(turn, &self.aside, name, Some(random))
            .inspect_err(|_| drop(self.place.remove_aside(self.aside.as_bytes())))?;
        let place = File {
            random,
            modified,
            boot: read::boot(),
        };
        Ok((file, place, std::mem::take(&mut self.checksums)))
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = self.place.remove_aside(self.aside.as_bytes());
        }
    }
}

// === storing

impl New {
    /// Whether something has been changed since its request was sent.
    fn is_overtaken(&self) -> bool {
        self.seen.as_ref().is_some_and(|Seen { region, version }| {
            region.versions().read(key::hash(&self.key)) != *version
                || region.space().generation() != self.generation
        })
    }
}

/// Puts a response in its place, instead of what was there. None: it has been overtaken, by an invalidation or, where it
/// is a part, by the whole; or others change the directory for too long.
pub fn put(place: &Place, new: New) -> io::Result<Option<Done>> {
    let base = Name::of(&new.key);
    let Some(turn) = place.turn_to_put(base.directory())? else {
        return Ok(None);
    };
    // Whoever invalidates without a look at the files, as there are none, has changed the version before.
    if let Some(Seen { region, .. }) = &new.seen {
        region.filter().add(&base);
    }
    if new.is_overtaken() {
        return Ok(None);
    }
    let mut buffer = Vec::new();
    let present = match new.replaces {
        true => present(place, &base, &new.key, new.generation, &mut buffer),
        false => None,
    };
    if is_less(&new, present.as_ref()) {
        return Ok(None);
    }
    let old = present.as_ref().and_then(body_of);
    let list = match present {
        Some(Content::List(list)) => Some(list),
        _ => None,
    };
    if list.is_none() && new.stored.selection.is_empty() {
        let mut done = put_at(place, &turn, base, None, new)?;
        done.remove_body(place, &base, old);
        return Ok(Some(done));
    }
    put_variant(place, &turn, base, list, old, new)
}

fn put_variant(
    place: &Place,
    turn: &Turn,
    base: Name,
    list: Option<List>,
    old_of_base: Option<u64>,
    new: New,
) -> io::Result<Option<Done>> {
    let is_new = list.is_none();
    let mut list = list.unwrap_or_else(|| List {
        number: fastrand::u64(..),
        ..List::default()
    });
    let mut selected = Vec::new();
    new.stored.selection.write(&mut selected);
    let name = base.variant(&selected);
    let surplus = list.add(new.stored.selection.names(), name.variant);
    let (key, generation, aside) = (new.key.clone(), new.generation, new.aside.clone());
    let mut buffer = Vec::new();
    let old = present(place, &name, &key, generation, &mut buffer);
    if is_less(&new, old.as_ref()) {
        return Ok(None);
    }
    let old = old.as_ref().and_then(body_of);
    let number = list.number;
    let mut done = put_at(place, turn, name, Some(number), new)?;
    done.remove_body(place, &name, old);
    if surplus.changed || is_new {
        let head = Head {
            key,
            generation,
            content: Content::List(list),
        };
        let octets = write_head(place, turn, &aside, &base, &head, &[])?.1;
        done.written.push(Written {
            name: base,
            kind: Kind::List,
            octets,
        });
        done.remove_body(place, &base, old_of_base);
    }
    for variant in surplus.variants {
        done.removed
            .extend(remove_in(turn, place, &Name { variant, ..base })?);
    }
    Ok(Some(done))
}

fn is_less(new: &New, present: Option<&Content>) -> bool {
    match present {
        Some(Content::Object(kept)) => {
            new.stored.selection == kept.stored.selection && new.stored.is_less_than(&kept.stored)
        }
        _ => false,
    }
}

/// Writes body and head under one name.
fn put_at(place: &Place, turn: &Turn, name: Name, list: Option<u64>, new: New) -> io::Result<Done> {
    let mut stored = new.stored;
    let (file, body, checksums, inline) = match new.body {
        NewBody::Inline(body) => {
            stored.body_len = body.len() as u64;
            (None, Body::Inline, format::checksums(&body), body)
        }
        NewBody::File(spill) => {
            stored.body_len = spill.length;
            let (file, place, checksums) = spill.publish(turn, &name)?;
            (Some(file), Body::File(place), checksums, Vec::new())
        }
    };
    let random = body.random();
    let kind = match list {
        Some(_) => Kind::Variant,
        None => Kind::Object,
    };
    let of_body = random.map_or(0, |_| cost(stored.body_len));
    let kept = Kept::new(stored, list, body, checksums);
    let head = Head {
        key: new.key,
        generation: new.generation,
        content: Content::Object(Box::new(kept)),
    };
    let written = write_head(place, turn, &new.aside, &name, &head, &inline)
        .inspect_err(|_| drop(random.map(|random| place.remove(&name, Some(random)))));
    let (head_file, octets, from) = written?;
    let Content::Object(kept) = head.content else {
        unreachable!("it was made an object above")
    };
    Ok(Done {
        key: head.key,
        name,
        kept: *kept,
        from: if file.is_some() { 0 } else { from },
        file: file.unwrap_or_else(|| Arc::new(head_file)),
        inline,
        written: vec![Written {
            name,
            kind,
            octets: octets + of_body,
        }],
        removed: Vec::new(),
    })
}

/// The file, the space that it takes, and where in it an inline body begins.
fn write_head(
    place: &Place,
    turn: &Turn,
    aside: &str,
    name: &Name,
    head: &Head,
    inline: &[u8],
) -> io::Result<(OwnedFd, u64, u64)> {
    let mut octets = Vec::with_capacity(1024);
    head.encode_before(inline.len(), &mut octets);
    let from = octets.len() as u64;
    let file = place.create_aside(aside)?;
    files::write_both(file.as_fd(), &octets, inline)
        .and_then(|()| place.publish(turn, aside, name, None))
        .inspect_err(|_| drop(place.remove_aside(aside.as_bytes())))?;
    Ok((file, cost(from + inline.len() as u64), from))
}

/// Brings the fields of an object up to date, if it still is the one that was `known`.
///
/// None: another one has taken its place, it is gone, the answer about it has been overtaken, or others change the directory
/// for too long.
pub fn refresh(place: &Place, name: &Name, known: &Stored, new: New) -> io::Result<Option<Done>> {
    let Some(turn) = place.turn_soon(name.directory())? else {
        return Ok(None);
    };
    if new.is_overtaken() {
        return Ok(None);
    }
    let mut buffer = Vec::new();
    let read = match read::head(place, name, Access::Blocking, &mut buffer) {
        Ok(read) => read,
        Err(ReadError::Io(error)) => return Err(error),
        Err(_) => return Ok(None),
    };
    let Content::Object(old) = read.head.content else {
        return Ok(None);
    };
    let is_same = read.head.key == new.key
        && purged::counts(read.head.generation, new.generation)
        && old.stored.times == known.times
        && old.stored.body_len == known.body_len
        && old.stored.part == known.part
        // Two may have come in one second.
        && old.stored.headers == known.headers
        && old.stored.selection == new.stored.selection;
    if !is_same {
        return Ok(None);
    }
    let mut stored = new.stored;
    stored.body_len = old.stored.body_len;
    let of_body = old.body.random().map_or(0, |_| cost(stored.body_len));
    let kind = match old.list {
        Some(_) => Kind::Variant,
        None => Kind::Object,
    };
    let head = Head {
        key: new.key,
        generation: new.generation,
        content: Content::Object(Box::new(Kept::new(
            stored,
            old.list,
            old.body,
            old.checksums,
        ))),
    };
    let (file, octets, from) = write_head(place, &turn, &new.aside, name, &head, read.inline)?;
    let Content::Object(kept) = head.content else {
        unreachable!("it was made an object above")
    };
    Ok(Some(Done {
        key: head.key,
        name: *name,
        kept: *kept,
        file: Arc::new(file),
        from,
        inline: Vec::new(),
        written: vec![Written {
            name: *name,
            kind,
            octets: octets + of_body,
        }],
        removed: Vec::new(),
    }))
}

/// Writes down that a body has been read and found to be right since this start of the machine: from now on it is trusted.
/// `facts`: what was known of its file before.
pub fn attest(place: &Place, name: &Name, facts: Facts, aside: &str) -> io::Result<()> {
    let Some(turn) = place.turn_soon(name.directory())? else {
        return Ok(());
    };
    let mut buffer = Vec::new();
    let mut head = match read::head(place, name, Access::Blocking, &mut buffer) {
        Ok(read) => read.head,
        Err(ReadError::Io(error)) => return Err(error),
        Err(_) => return Ok(()),
    };
    let Content::Object(kept) = &mut head.content else {
        return Ok(());
    };
    let Body::File(file) = &mut kept.body else {
        return Ok(());
    };
    // Another one may have come into its place.
    let Ok(body) = place.open_body(name, file.random, Access::Blocking) else {
        return Ok(());
    };
    let now = files::facts(body.as_fd())?;
    if (now.inode, now.size, now.modified) != (facts.inode, facts.size, facts.modified) {
        return Ok(());
    }
    // What was changed a moment ago may change again without another time: as far as the clock of files goes.
    if (unix_seconds() - now.modified.0).abs() <= 1 {
        return Ok(());
    }
    file.modified = now.modified;
    file.boot = read::boot();
    write_head(place, &turn, aside, name, &head, &[]).map(drop)
}

/// Marks an object as stale since then, in one's turn. False: it is gone, or has been marked before.
pub fn soften_in(
    turn: &Turn,
    place: &Place,
    name: &Name,
    since: i64,
    generation: u64,
    aside: String,
) -> io::Result<bool> {
    let mut buffer = Vec::new();
    let read = match read::head(place, name, Access::Blocking, &mut buffer) {
        Ok(read) => read,
        Err(ReadError::Io(error)) => return Err(error),
        Err(_) => return Ok(false),
    };
    let mut head = read.head;
    match &mut head.content {
        Content::Object(kept) if kept.stored.purged.is_none() => kept.stored.purged = Some(since),
        _ => return Ok(false),
    }
    head.generation = head.generation.max(generation);
    write_head(place, turn, &aside, name, &head, read.inline)?;
    Ok(true)
}

// === what there is, and removing it

fn present(
    place: &Place,
    name: &Name,
    key: &[u8],
    generation: u64,
    buffer: &mut Vec<u8>,
) -> Option<Content> {
    let read = read::head(place, name, Access::Blocking, buffer).ok()?;
    let head = read.head;
    let counts = head.key == key && purged::counts(head.generation, generation);
    counts.then_some(head.content)
}

fn body_of(content: &Content) -> Option<u64> {
    match content {
        Content::Object(kept) => kept.body.random(),
        Content::List(_) => None,
    }
}

/// Removes a head file and all that it leads to: its body, its variants. The head files that are gone; a damaged
/// one's body is left for the janitor to find.
pub fn remove(place: &Place, name: &Name) -> io::Result<Vec<Name>> {
    remove_in(&place.turn(name.directory())?, place, name)
}

/// The same, in one's turn.
#[expect(clippy::only_used_in_recursion, reason = "who has it has the turn")]
pub fn remove_in(turn: &Turn, place: &Place, name: &Name) -> io::Result<Vec<Name>> {
    let mut buffer = Vec::new();
    let content = read::head(place, name, Access::Blocking, &mut buffer);
    let content = content.map(|read| read.head.content);
    if matches!(content, Err(ReadError::Absent)) {
        return Ok(Vec::new());
    }
    let mut removed = Vec::new();
    if place.remove(name, None)? {
        removed.push(*name);
    }
    match content {
        Ok(Content::Object(kept)) => {
            if let Some(random) = kept.body.random() {
                place.remove(name, Some(random))?;
            }
        }
        Ok(Content::List(list)) => {
            for variant in list.variants {
                removed.extend(remove_in(turn, place, &Name { variant, ..*name })?);
            }
        }
        Err(_) => {}
    }
    Ok(removed)
}

/// Removes a head that was found to be good for nothing, unless another one has come into its place since: one that can be
/// read, and is not `it`. Whether it is gone.
pub fn remove_dead(
    place: &Place,
    name: &Name,
    buffer: &mut Vec<u8>,
    it: impl FnOnce(&read::Read<'_>) -> bool,
) -> io::Result<bool> {
    // The next one who finds it removes it.
    let Some(_turn) = place.turn_soon(name.directory())? else {
        return Ok(false);
    };
    match read::head(place, name, Access::Blocking, buffer) {
        Ok(read) if !it(&read) => Ok(false),
        _ => place.remove(name, None),
    }
}

impl Done {
    /// The status and the length that the catalogue has of one of its head files: a list is no response.
    pub fn figures(&self, written: &Written) -> (u16, u64) {
        let stored = &self.kept.stored;
        match written.kind {
            Kind::List => (0, 0),
            Kind::Object | Kind::Variant => (stored.status, stored.body_len),
        }
    }

    fn remove_body(&mut self, place: &Place, name: &Name, random: Option<u64>) {
        // What cannot be removed now is found by the janitor.
        if let Some(random) = random {
            let _ = place.remove(name, Some(random));
        }
    }
}

impl Body {
    /// What its file's name has behind the head's, if it has a file.
    pub fn random(&self) -> Option<u64> {
        match self {
            Body::Inline => None,
            Body::File(file) => Some(file.random),
        }
    }
}

/// What adding to a list has changed.
struct Surplus {
    changed: bool,
    /// Variants that must go.
    variants: Vec<[u8; 8]>,
}

impl List {
    fn add<'a>(&mut self, names: impl Iterator<Item = &'a str>, variant: [u8; 8]) -> Surplus {
        let before = self.clone();
        let names: Vec<Box<str>> = names.map(Box::from).collect();
        self.names.retain(|known| *known != names);
        self.names.push(names);
        if self.names.len() > MAX_LISTS {
            self.names.remove(0);
        }
        if !self.variants.contains(&variant) {
            self.variants.push(variant);
        }
        let surplus = self.variants.len().saturating_sub(MAX_VARIANTS);
        let variants = self.variants.drain(..surplus).collect();
        Surplus {
            changed: *self != before,
            variants,
        }
    }
}
