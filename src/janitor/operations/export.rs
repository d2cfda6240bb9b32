//! A directory as an archive, while it is in use or at rest: every response that counts, each octet compared with its checksum.
//!
//! What goes meanwhile is not in it or is, as it happens, and so is what comes. What is damaged is left out and counted; `verify`
//! removes it.

use std::io;
use std::os::fd::AsFd;

use super::{Archive, Ground, Say, opened};
use crate::cache::Name;
use crate::janitor::protocol::{Exported, Reply};
use crate::store::Fate;
use crate::store::archive::{Entry, Writer};
use crate::store::disk::format::{BLOCK, Body, Content, Kept};
use crate::store::disk::place::{DIRECTORIES, Found};
use crate::store::disk::read::{self, ReadError};
use crate::sys::files::{self, Access};
use crate::sys::thread;

type Into<'a> = Writer<io::BufWriter<Archive<'a>>>;

pub(super) fn export(
    ground: &Ground<'_>,
    to: Option<Archive<'_>>,
    say: Say<'_>,
) -> anyhow::Result<Exported> {
    let to = opened(to)?;
    if ground.instance.is_some() {
        thread::yield_to_others();
    }
    let mut into = Writer::new(io::BufWriter::with_capacity(BLOCK, to))?;
    let mut exported = Exported::default();
    let total = u64::from(DIRECTORIES);
    for directory in 0..DIRECTORIES {
        let found = ground.place.list(directory)?.into_iter();
        let heads = found.filter_map(|found| match found {
            Found::Head(name) => Some(name),
            _ => None,
        });
        let mut heads: Vec<Name> = heads.collect();
        // The base of a name is before its variants.
        heads.sort_unstable();
        let mut list = None;
        for name in heads {
            if name.is_base() {
                list = None;
            }
            match copy(ground, &name, &mut list, &mut into)? {
                Copied::Nothing => {}
                Copied::Response(octets) => {
                    exported.objects += 1;
                    exported.octets += octets;
                }
                Copied::Damaged => exported.damaged += 1,
            }
        }
        let done = u64::from(directory) + 1;
        say(&Reply::Progress { done, total })?;
    }
    into.finish()?;
    Ok(exported)
}

/// What has become of a head file.
enum Copied {
    /// It is no response, counts no more or has gone.
    Nothing,
    /// Octets of its body.
    Response(u64),
    Damaged,
}

/// `list`: the number of the list of the base before, where that is one.
fn copy(
    ground: &Ground<'_>,
    name: &Name,
    list: &mut Option<u64>,
    into: &mut Into<'_>,
) -> anyhow::Result<Copied> {
    let mut buffer = Vec::new();
    let read = match read::head(ground.place, name, Access::Blocking, &mut buffer) {
        Ok(read) => read,
        Err(ReadError::Absent | ReadError::Version) => return Ok(Copied::Nothing),
        Err(_) => return Ok(Copied::Damaged),
    };
    let Some(fate) = ground.fate(&read.head)? else {
        return Ok(Copied::Nothing);
    };
    let mut kept = match read.head.content {
        Content::Object(kept) => kept,
        Content::List(found) => {
            *list = Some(found.number);
            return Ok(Copied::Nothing);
        }
    };
    // A variant of a list that is gone is found by nobody.
    if kept.list != *list {
        return Ok(Copied::Nothing);
    }
    if let Fate::Stale(since, _) = fate {
        kept.stored.purged.get_or_insert(since);
    }
    let entry = |kept: &Kept| Entry {
        key: read.head.key.clone(),
        stored: kept.stored.clone(),
        checksums: kept.checksums.clone(),
    };
    let Body::File(file) = &kept.body else {
        into.begin(entry(&kept))?;
        read.inline
            .chunks(BLOCK)
            .try_for_each(|block| into.block(block))?;
        return Ok(Copied::Response(kept.stored.body_len));
    };
    let body = match read::body(ground.place, name, &kept, file, Access::Blocking) {
        Ok((body, _)) => body,
        // Replaced since its head was read: the next one is as good as gone.
        Err(ReadError::Absent) => return Ok(Copied::Nothing),
        Err(_) => return Ok(Copied::Damaged),
    };
    into.begin(entry(&kept))?;
    let length = kept.stored.body_len;
    let was_in_memory = files::is_resident(body.as_fd(), 0, length);
    let mut octets = Vec::new();
    for block in 0..kept.checksums.len() {
        if read::verify_block(body.as_fd(), length, &kept.checksums, block, &mut octets).is_err() {
            into.give_up()?;
            return Ok(Copied::Damaged);
        }
        into.block(&octets)?;
    }
    if !was_in_memory {
        files::drop_pages(body.as_fd());
    }
    Ok(Copied::Response(length))
}
