//! A check of every head and every body against the checksums that were written with them.
//!
//! It reads what is seldom read, so it is careful: at the lowest priority where others work, and out of memory again
//! what was not in memory before. What is damaged is removed, and every process is told, as some may have it open.
//! What nothing leads to is left to the janitor's tours, which know what may just be on its way.

use std::os::fd::AsFd;

use super::{Ground, Say};
use crate::cache::Name;
use crate::janitor::protocol::{Damage, Reply, Side, Verified};
use crate::store::disk::format::{Body, Content, Head, Kept};
use crate::store::disk::place::{DIRECTORIES, Found, Place};
use crate::store::disk::read::{self, ReadError};
use crate::store::disk::{purged, write};
use crate::sys::files::{self, Access};
use crate::sys::thread;

/// Damaged objects that are named.
const MOST_NAMED: usize = 1000;

/// What a head file turned out to be.
enum Looked {
    Fine,
    /// Gone meanwhile, or replaced.
    Changed,
    Dead,
    Damaged(String, Option<Box<Head>>),
    Unreadable,
}

pub(super) fn verify(ground: &Ground<'_>, say: Say<'_>) -> anyhow::Result<Verified> {
    if ground.instance.is_some() {
        thread::yield_to_others();
    }
    let mut verified = Verified::default();
    let total = u64::from(DIRECTORIES);
    let mut gone = Vec::new();
    let mut buffers = Buffers::default();
    for directory in 0..DIRECTORIES {
        let found = ground.place.list(directory)?;
        for found in found {
            if let Found::Head(name) = found {
                let looked = look_at(ground, &name, &mut buffers, &mut verified.octets)?;
                enter(ground, &name, looked, &mut verified, &mut gone)?;
            }
        }
        if ground.instance.is_some() {
            ground.removed(std::mem::take(&mut gone));
        }
        let done = u64::from(directory) + 1;
        say(&Reply::Progress { done, total })?;
    }
    // At rest the catalogue is read through for it: once is enough.
    ground.removed(gone);
    Ok(verified)
}

#[derive(Default)]
struct Buffers {
    head: Vec<u8>,
    body: Vec<u8>,
}

fn look_at(
    ground: &Ground<'_>,
    name: &Name,
    buffers: &mut Buffers,
    octets: &mut u64,
) -> anyhow::Result<Looked> {
    let place = ground.place;
    let read = match read::head(place, name, Access::Blocking, &mut buffers.head) {
        Ok(read) => read,
        Err(ReadError::Absent) => return Ok(Looked::Changed),
        Err(ReadError::Version) => return Ok(Looked::Dead),
        Err(ReadError::Damaged(why)) => return Ok(Looked::Damaged(why.to_owned(), None)),
        Err(ReadError::Io(_) | ReadError::Later) => return Ok(Looked::Unreadable),
    };
    *octets += (read.length + read.inline.len()) as u64;
    let head = read.head;
    if ground.fate(&head)?.is_none() {
        return Ok(Looked::Dead);
    }
    let Content::Object(kept) = &head.content else {
        return Ok(Looked::Fine);
    };
    match check_body(place, name, kept, &mut buffers.body) {
        Ok(read) => {
            *octets += read;
            Ok(Looked::Fine)
        }
        Err(ReadError::Io(_) | ReadError::Later) => Ok(Looked::Unreadable),
        // Head and body may have been replaced, or removed, between the two looks.
        Err(error) => match read::head(place, name, Access::Blocking, &mut buffers.head) {
            Ok(again) if again.head == head => {
                let why = match error {
                    ReadError::Damaged(why) => why.to_owned(),
                    error => format!("its body: {error}"),
                };
                Ok(Looked::Damaged(why, Some(Box::new(head))))
            }
            _ => Ok(Looked::Changed),
        },
    }
}

/// Octets read. An inline body has been checked with its head.
fn check_body(
    place: &Place,
    name: &Name,
    kept: &Kept,
    buffer: &mut Vec<u8>,
) -> Result<u64, ReadError> {
    let Body::File(file) = &kept.body else {
        return Ok(0);
    };
    let length = kept.stored.body_len;
    let (opened, _) = read::body(place, name, kept, file, Access::Blocking)?;
    let was_in_memory = files::is_resident(opened.as_fd(), 0, length);
    let checked = read::verify(opened.as_fd(), kept, buffer);
    if !was_in_memory {
        files::drop_pages(opened.as_fd());
    }
    checked.map(|()| length)
}

fn enter(
    ground: &Ground<'_>,
    name: &Name,
    looked: Looked,
    verified: &mut Verified,
    gone: &mut Vec<Name>,
) -> anyhow::Result<()> {
    match looked {
        Looked::Changed => return Ok(()),
        Looked::Fine => {}
        Looked::Unreadable => verified.unreadable += 1,
        Looked::Dead => {
            verified.dead += 1;
            remove(ground, name, None, gone)?;
        }
        Looked::Damaged(why, head) => {
            verified.damaged += 1;
            remove(ground, name, head.as_deref(), gone)?;
            if verified.damage.len() < MOST_NAMED {
                verified.damage.push(Damage {
                    name: name.to_string(),
                    url: head.map(|head| Side::of_key(&head.key).1),
                    why,
                });
            }
        }
    }
    verified.checked += 1;
    Ok(())
}

/// The head first. Whoever has the body open, because it is asked for often, looks again when told.
fn remove(
    ground: &Ground<'_>,
    name: &Name,
    head: Option<&Head>,
    gone: &mut Vec<Name>,
) -> anyhow::Result<()> {
    let generation = ground.generation()?;
    let is_it = |read: &read::Read<'_>| match head {
        Some(head) => read.head == *head,
        None => !purged::counts(read.head.generation, generation),
    };
    if write::remove_dead(ground.place, name, &mut Vec::new(), is_it)? {
        gone.push(*name);
    }
    let Some(head) = head else {
        if let Some(instance) = ground.instance {
            instance.region.versions().bump_epoch();
        }
        return Ok(());
    };
    ground.bump(&head.key);
    if let Content::Object(kept) = &head.content
        && let Body::File(file) = &kept.body
    {
        ground.place.remove(name, Some(file.random))?;
    }
    Ok(())
}
