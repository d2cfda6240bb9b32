//! Figures and lists, from the catalogue: what it takes to read a million heads is not asked of the disk.

use anyhow::Context;

use super::{Ground, Say};
use crate::cache::{Matcher, Name, Set};
use crate::janitor::catalogue::{Fact, Reader, Row};
use crate::janitor::listing::{Lister, Listing};
use crate::janitor::protocol::{Catalogue, Counters, Item, Kind, Listed, Reply, Side, Stats};
use crate::shared::{self, Counter, Region};
use crate::store::disk::format::Content;
use crate::store::disk::place::{CATALOGUE, Place};
use crate::store::disk::read;
use crate::sys::clock::unix_seconds;
use crate::sys::files::Access;

/// Rows read at once: while they are handed on, however slowly, the catalogue is left alone.
const PAGE: usize = 1000;

pub(super) fn stats(ground: &Ground<'_>) -> anyhow::Result<Stats> {
    ground.bring_up_to_date();
    let place = ground.place;
    let mut stats = Stats {
        directory: Some(place.path().display().to_string()),
        running: ground.instance.is_some(),
        holder: ground.instance.and_then(|_| place.holder_name()),
        generation: Some(ground.generation()?),
        free: Some(place.free_space().context("the free space")?.0),
        catalogue: Some(Catalogue::Unusable),
        ..Stats::default()
    };
    // Without it, there is still the rest to be said.
    if let Ok(reader) = Reader::open(&place.path().join(CATALOGUE))
        && let Ok(totals) = reader.totals()
    {
        stats.objects = totals.objects;
        stats.variants = totals.variants;
        stats.lists = totals.lists;
        stats.content = totals.length;
        stats.size = totals.kib * 1024;
        stats.catalogue = Some(state(ground, &reader));
    }
    if let Some(instance) = ground.instance {
        let space = instance.region.space();
        stats.size = space.used();
        stats.limit = Some(space.limit());
        stats.counters = Some(counters(&instance.region));
    }
    Ok(stats)
}

fn state(ground: &Ground<'_>, reader: &Reader) -> Catalogue {
    match ground.instance {
        Some(instance) => match instance.board.percent() {
            Some(percent) => Catalogue::Reading(percent),
            None => Catalogue::Complete,
        },
        None => match reader.fact(Fact::Clean) {
            Ok(Some(1)) => Catalogue::Complete,
            _ => Catalogue::Unfinished,
        },
    }
}

pub(super) fn counters(region: &Region) -> Counters {
    let total = |counter| region.total(counter);
    Counters {
        requests: total(Counter::Requests),
        hits: total(Counter::CacheHit),
        revalidated: total(Counter::CacheRevalidated),
        misses: total(Counter::CacheMiss),
        passes: total(Counter::CachePass),
        stored: total(Counter::CacheStored),
        evicted: total(Counter::CacheEvicted),
        sent: total(Counter::ClientBytesOut),
    }
}

pub(super) fn ls(ground: &Ground<'_>, listing: &Listing, say: Say<'_>) -> anyhow::Result<Listed> {
    ground.bring_up_to_date();
    let path = ground.place.path().join(CATALOGUE);
    let refused = || format!("the catalogue {} cannot be read", path.display());
    let reader = Reader::open(&path).with_context(refused)?;
    let mut listed = Listed {
        incomplete: state(ground, &reader) != Catalogue::Complete,
        ..Listed::default()
    };
    let tags = match listing.tags.is_empty() {
        true => None,
        false => Some(Set::Tags(listing.tags.clone()).matcher()?),
    };
    let now = unix_seconds();
    let mut lister = Lister::new(listing, now);
    let mut page = Vec::with_capacity(PAGE);
    let mut last = 0;
    loop {
        reader
            .rows(last, |row| {
                last = row.id;
                page.push((row.name, item(row)));
                page.len() < PAGE
            })
            .with_context(refused)?;
        let is_last = page.len() < PAGE;
        for (name, item) in page.drain(..) {
            if let Some(tags) = &tags
                && !(listing.takes(&item, now) && is_tagged(ground.place, &name, tags))
            {
                continue;
            }
            if let Some(item) = lister.put(item) {
                say(&Reply::Item(item))?;
                listed.items += 1;
            }
        }
        if is_last || lister.is_full() {
            break;
        }
    }
    for item in lister.finish() {
        say(&Reply::Item(item))?;
        listed.items += 1;
    }
    Ok(listed)
}

/// The catalogue does not know of tags: the head does.
fn is_tagged(place: &Place, name: &Name, tags: &Matcher) -> bool {
    let mut buffer = Vec::new();
    let Ok(read) = read::head(place, name, Access::Blocking, &mut buffer) else {
        return false;
    };
    matches!(&read.head.content, Content::Object(kept) if tags.takes(&read.head.key, &kept.stored))
}

fn item(row: Row) -> Item {
    let (side, url) = Side::of_key(&row.key);
    Item {
        workers: Vec::new(),
        url,
        side,
        kind: kind(row.kind),
        name: row.name.to_string(),
        status: row.status,
        length: row.length,
        size: u64::from(row.kib) * 1024,
        stored: row.stored,
        expires: row.expires,
        used: Some(row.used),
        hits: Some(row.hits),
    }
}

fn kind(kind: shared::Kind) -> Kind {
    match kind {
        shared::Kind::Object => Kind::Object,
        shared::Kind::Variant => Kind::Variant,
        shared::Kind::List => Kind::List,
    }
}
