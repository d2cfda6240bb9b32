//! All that the disk has of one URL, read from its head files.

use std::os::fd::AsFd;

use super::Ground;
use super::purge::keys;
use crate::cache::{Key, Name, Stored};
use crate::janitor::protocol::{Entry, Kind, Response, Shown, Side};
use crate::store::disk::format::{Body, Content, List};
use crate::store::disk::place::{self, Found, Place, cost};
use crate::store::disk::purged::counts;
use crate::store::disk::read::{self, ReadError};
use crate::store::{Fate, Purges};
use crate::sys::clock::unix_seconds;
use crate::sys::files::{self, Access};

pub(super) fn show(ground: &Ground<'_>, url: &str) -> anyhow::Result<Shown> {
    let mut shown = Shown {
        url: url.to_owned(),
        ..Shown::default()
    };
    for key in keys(url)? {
        shown.url = Side::of_key(key.as_bytes()).1;
        let found = entries(ground, &key)?.into_iter();
        shown.found.extend(found.map(|(entry, _)| entry));
    }
    Ok(shown)
}

/// All that is kept under a key, with the responses of those files that have one.
pub(super) fn entries(
    ground: &Ground<'_>,
    key: &Key,
) -> anyhow::Result<Vec<(Entry, Option<Stored>)>> {
    let generation = ground.generation()?;
    let purges = ground.purges()?;
    let name = Name::of(key.as_bytes());
    let (side, _) = Side::of_key(key.as_bytes());
    let mut heads = heads_of(ground.place, &name)?;
    heads.sort_unstable();
    let mut list = None;
    let found = heads
        .iter()
        .filter_map(|head| entry(ground.place, side, head, (generation, &purges), &mut list));
    Ok(found.collect())
}

/// The base, and all variants.
pub(super) fn heads_of(place: &Place, name: &Name) -> std::io::Result<Vec<Name>> {
    let found = place.list(name.directory())?.into_iter();
    let heads = found.filter_map(|found| match found {
        Found::Head(head) if head.base == name.base => Some(head),
        _ => None,
    });
    Ok(heads.collect())
}

/// None: it has gone meanwhile. `list`: what the base turned out to be, for the variants that follow.
fn entry(
    place: &Place,
    side: Side,
    name: &Name,
    (generation, purges): (u64, &Purges),
    list: &mut Option<List>,
) -> Option<(Entry, Option<Stored>)> {
    let mut entry = Entry {
        workers: Vec::new(),
        side,
        kind: match name.is_base() {
            true => Kind::Object,
            false => Kind::Variant,
        },
        files: vec![place::path(name, None)],
        size: 0,
        trouble: None,
        response: None,
        selects_by: Vec::new(),
    };
    let mut buffer = Vec::new();
    let read = match read::head(place, name, Access::Blocking, &mut buffer) {
        Ok(read) => read,
        Err(ReadError::Absent) => return None,
        Err(error) => {
            entry.trouble = Some(error.to_string());
            return Some((entry, None));
        }
    };
    entry.size = files::facts(read.file.as_fd()).map_or(0, |facts| cost(facts.size));
    let fate = Fate::of(&read.head, purges);
    if !counts(read.head.generation, generation) || matches!(fate, Fate::Gone(_)) {
        entry.trouble = Some("purged; its files are about to go".to_owned());
    }
    let mut stored = None;
    match read.head.content {
        Content::List(found) => {
            entry.kind = Kind::List;
            let names = |names: &Vec<Box<str>>| names.iter().map(|name| name.to_string()).collect();
            entry.selects_by = found.names.iter().map(names).collect();
            *list = Some(found);
        }
        Content::Object(mut kept) => {
            if let Fate::Stale(since, _) = fate {
                kept.stored.purged = Some(since);
            }
            if let Body::File(file) = &kept.body {
                entry.files.push(place::path(name, Some(file.random)));
                entry.size += cost(kept.stored.body_len);
                if let Err(error) = read::body(place, name, &kept, file, Access::Blocking) {
                    entry.trouble = Some(format!("its body: {error}"));
                }
            }
            if kept.list != list.as_ref().map(|list| list.number) {
                entry.trouble = Some("a variant of a list that is gone".to_owned());
            }
            entry.response = Some(response(&kept.stored));
            stored = Some(kept.stored);
        }
    }
    Some((entry, stored))
}

pub(super) fn response(stored: &Stored) -> Response {
    let now = unix_seconds();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let fields = stored.headers.iter();
    let selecting = stored.selection.fields();
    Response {
        status: stored.status,
        reason: text(&stored.reason),
        fields: fields
            .map(|(name, value)| (name.to_owned(), text(value)))
            .collect(),
        selected_by: selecting
            .map(|(name, value)| (name.to_owned(), value.map(text)))
            .collect(),
        length: stored.body_len,
        stored: stored.times.response,
        age: stored.age(now),
        fresh: stored.remaining(now),
    }
}
