//! The same of an instance without a directory: each worker keeps its own in memory, and is asked.
//!
//! What several workers have alike is told once. One that does not answer in time is named: an answer without it is better
//! than none, and what it has is judged no worse than by nobody.

use std::sync::{Mutex, PoisonError};

use anyhow::ensure;

use super::list::counters;
use super::purge::keys;
use super::show::response;
use super::{NotHere, Say, explain};
use crate::cache::{Key, Name, Policies, Set, key};
use crate::janitor::listing::{Lister, Listing};
use crate::janitor::protocol::{
    Done, Entry, Explained, Item, Judged, Kind, Listed, Purged, Reply, Request, Shown, Side, Stats,
    Store,
};
use crate::janitor::workers::{Told, Workers};
use crate::shared::{Posted, Region};
use crate::store::asked::{InMemory, Question};
use crate::sys::clock::unix_seconds;

/// What an instance without a directory has at hand.
pub struct Memory<'a> {
    pub region: Region,
    /// Held by whoever tells the workers of a purge.
    pub purging: &'a Mutex<()>,
    pub workers: &'a Workers,
    pub policies: &'a Policies,
    /// Which instance it is.
    pub holder: &'a str,
    /// Octets that all workers may keep.
    pub limit: u64,
}

/// Does what is asked. Errors: the URL is none, no worker answers, or there is no such thing in memory.
pub fn perform(request: &Request, memory: &Memory<'_>, say: Say<'_>) -> anyhow::Result<Done> {
    match request {
        Request::Stats => stats(memory).map(|stats| Done::Stats(Box::new(stats))),
        Request::Ls(listing) => ls(memory, listing, say).map(Done::Listed),
        Request::Show { url } => show(memory, url).map(Done::Shown),
        Request::Explain {
            url,
            method,
            fields,
        } => explain(memory, url, method, fields).map(Done::Explained),
        Request::Verify => {
            let why =
                "this instance keeps responses in memory alone: there is no file to be checked";
            Err(NotHere(why).into())
        }
        Request::Purge { what, soft } => purge(memory, what, *soft).map(Done::Purged),
        Request::PurgeAll => purge_all(memory).map(Done::Purged),
        Request::Export | Request::Import => {
            let why = "this instance keeps responses in memory alone, for as long as it runs; `baton cache warm` fills it";
            Err(NotHere(why).into())
        }
    }
}

/// A response, and who has it.
struct Shared {
    workers: Vec<u16>,
    kept: InMemory,
}

impl Memory<'_> {
    fn ask(&self, question: &Question) -> anyhow::Result<Told> {
        let told = self.workers.ask(question)?;
        ensure!(!told.by.is_empty(), "no worker answers");
        Ok(told)
    }
}

/// What they have, each response once.
fn merged(told: &mut Told) -> Vec<Shared> {
    let mut all: Vec<Shared> = Vec::new();
    for (worker, said) in &mut told.by {
        // Those of the workers before it, in the order of keys and with the latest last.
        let before = all.len();
        said.kept
            .sort_by(|one, other| order(one).cmp(&order(other)));
        for kept in said.kept.drain(..) {
            let same = all[..before].partition_point(|it| order(&it.kept) < order(&kept));
            let same = all[same..before]
                .iter_mut()
                .take_while(|it| order(&it.kept) == order(&kept))
                .find(|it| it.kept == kept);
            match same {
                Some(same) => same.workers.push(*worker),
                None => all.push(Shared {
                    workers: vec![*worker],
                    kept,
                }),
            }
        }
        all.sort_by(|one, other| order(&one.kept).cmp(&order(&other.kept)));
    }
    all
}

fn order(kept: &InMemory) -> (&[u8], i64) {
    (&kept.key, kept.stored.times.response)
}

fn stats(memory: &Memory<'_>) -> anyhow::Result<Stats> {
    let told = memory.ask(&Question::Sum)?;
    let mut stats = Stats {
        store: Store::Memory,
        running: true,
        holder: Some(memory.holder.to_owned()),
        limit: Some(memory.limit),
        counters: Some(counters(&memory.region)),
        silent: told.silent,
        ..Stats::default()
    };
    for (_, said) in told.by {
        stats.objects += said.sum.responses;
        stats.content += said.sum.content;
        stats.size += said.sum.size;
    }
    Ok(stats)
}

fn ls(memory: &Memory<'_>, listing: &Listing, say: Say<'_>) -> anyhow::Result<Listed> {
    let tags = match listing.tags.is_empty() {
        true => None,
        false => Some(Set::Tags(listing.tags.clone()).matcher()?),
    };
    let mut told = memory.ask(&Question::All)?;
    let now = unix_seconds();
    let mut lister = Lister::new(listing, now);
    let mut listed = Listed {
        incomplete: !told.silent.is_empty(),
        ..Listed::default()
    };
    for shared in merged(&mut told) {
        let InMemory { key, stored, .. } = &shared.kept;
        if tags.as_ref().is_some_and(|tags| !tags.takes(key, stored)) {
            continue;
        }
        if let Some(item) = lister.put(item(&shared, now)) {
            say(&Reply::Item(item))?;
            listed.items += 1;
        }
    }
    for item in lister.finish() {
        say(&Reply::Item(item))?;
        listed.items += 1;
    }
    listed.silent = told.silent;
    Ok(listed)
}

fn item(shared: &Shared, now: i64) -> Item {
    let InMemory { key, stored, size } = &shared.kept;
    let (side, url) = Side::of_key(key);
    Item {
        workers: shared.workers.clone(),
        url,
        side,
        kind: kind(&shared.kept),
        name: name(&shared.kept).to_string(),
        status: stored.status,
        length: stored.body_len,
        size: *size,
        stored: stored.times.response,
        expires: now + stored.remaining(now),
        used: None,
        hits: None,
    }
}

fn kind(kept: &InMemory) -> Kind {
    match kept.stored.selection.is_empty() {
        true => Kind::Object,
        false => Kind::Variant,
    }
}

/// As it would be called in a directory.
fn name(kept: &InMemory) -> Name {
    kept.stored.name(&kept.key)
}

fn entry(shared: &Shared) -> Entry {
    Entry {
        workers: shared.workers.clone(),
        side: Side::of_key(&shared.kept.key).0,
        kind: kind(&shared.kept),
        files: Vec::new(),
        rows: Vec::new(),
        size: shared.kept.size,
        trouble: None,
        response: Some(response(&shared.kept.stored)),
        selects_by: Vec::new(),
    }
}

fn texts(keys: &[Key]) -> Vec<Vec<u8>> {
    keys.iter().map(|key| key.as_bytes().to_vec()).collect()
}

fn show(memory: &Memory<'_>, url: &str) -> anyhow::Result<Shown> {
    let mut told = memory.ask(&Question::Kept(texts(&keys(url)?)))?;
    Ok(Shown {
        url: explain::normal(url)?,
        found: merged(&mut told).iter().map(entry).collect(),
        silent: told.silent,
    })
}

fn explain(
    memory: &Memory<'_>,
    url: &str,
    method: &str,
    fields: &[(String, String)],
) -> anyhow::Result<Explained> {
    let request = explain::request(method, fields)?;
    let keys = keys(url)?;
    let told = memory.ask(&Question::Kept(texts(&keys)))?;
    let mut sides: Vec<Judged> = Vec::new();
    let is_kept = |key: &Key| {
        let mut kept = told.by.iter().flat_map(|(_, said)| &said.kept);
        kept.any(|kept| kept.key == key.as_bytes())
    };
    // A side that has nothing is of interest only where the other has nothing either; then both say the same.
    let mut counting: Vec<&Key> = keys.iter().filter(|key| is_kept(key)).collect();
    if counting.is_empty() {
        counting.extend(keys.first());
    }
    for key in counting {
        for (workers, kept) in groups(&told, key) {
            let entries = kept.into_iter().map(|kept| {
                let shared = Shared {
                    workers: workers.clone(),
                    kept: kept.clone(),
                };
                (entry(&shared), Some(shared.kept.stored))
            });
            let judged = explain::judge(key, entries.collect(), memory.policies, &request);
            sides.push(Judged { workers, ..judged });
        }
    }
    Ok(Explained {
        url: explain::normal(url)?,
        method: method.to_owned(),
        fields: fields.to_vec(),
        sides,
        silent: told.silent,
    })
}

/// The workers that have the same under a key, and what that is; those with nothing last.
fn groups<'a>(told: &'a Told, key: &Key) -> Vec<(Vec<u16>, Vec<&'a InMemory>)> {
    let mut groups: Vec<(Vec<u16>, Vec<&InMemory>)> = Vec::new();
    for (worker, said) in &told.by {
        let own = said.kept.iter().filter(|kept| kept.key == key.as_bytes());
        let own: Vec<_> = own.collect();
        match groups.iter_mut().find(|(_, kept)| *kept == own) {
            Some((workers, _)) => workers.push(*worker),
            None => groups.push((vec![*worker], own)),
        }
    }
    groups.sort_by_key(|(_, kept)| kept.is_empty());
    groups
}

fn purge(memory: &Memory<'_>, what: &Set, soft: bool) -> anyhow::Result<Purged> {
    match (what, soft) {
        (Set::Url(url), false) => purge_url(memory, url),
        (Set::Url(url), true) => purge_set(memory, &Set::Url(explain::normal(url)?), soft),
        _ => purge_set(memory, what, soft),
    }
}

/// One moment for all workers: each looks at what it has of before when it is asked for it, or at once.
fn purge_set(memory: &Memory<'_>, what: &Set, soft: bool) -> anyhow::Result<Purged> {
    let matcher = what.matcher()?;
    let before = memory.workers.ask(&Question::All)?;
    let purge = Posted {
        epoch: 0,
        generation: 0,
        soft: soft.then(unix_seconds),
        text: serde_json::to_vec(what)?,
    };
    let region = &memory.region;
    {
        let _alone = memory
            .purging
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        region.purges().post(purge, 0, region.versions())?;
    }
    let after = memory.workers.ask(&Question::Sweep)?;
    let kept = before.by.iter().flat_map(|(_, said)| &said.kept);
    let taken = kept.filter(|kept| matcher.takes(&kept.key, &kept.stored));
    let mut names: Vec<Name> = taken.clone().map(name).collect();
    names.sort_unstable();
    names.dedup();
    Ok(Purged {
        what: Some(what.clone()),
        soft,
        objects: names.len() as u64,
        octets: taken.map(|kept| kept.size).sum(),
        silent: after.silent,
    })
}

fn purge_url(memory: &Memory<'_>, url: &str) -> anyhow::Result<Purged> {
    let keys = keys(url)?;
    let told = memory.workers.ask(&Question::Forget(texts(&keys)));
    // This is what counts, also for a worker that did not answer: no copy of before is found by anybody from now on.
    for key in &keys {
        memory.region.versions().bump(key::hash(key.as_bytes()));
    }
    let told = told?;
    ensure!(
        !told.by.is_empty(),
        "no worker says what it had; none serves it any more"
    );
    let kept = told.by.iter().flat_map(|(_, said)| &said.kept);
    let mut names: Vec<Name> = kept.clone().map(name).collect();
    names.sort_unstable();
    names.dedup();
    Ok(Purged {
        what: Some(Set::Url(url.to_owned())),
        soft: false,
        objects: names.len() as u64,
        octets: kept.map(|kept| kept.size).sum(),
        silent: told.silent,
    })
}

fn purge_all(memory: &Memory<'_>) -> anyhow::Result<Purged> {
    let before = memory.workers.ask(&Question::Sum);
    memory.region.versions().bump_epoch();
    // What has no version any more goes now, or when its place is needed.
    let after = memory.workers.ask(&Question::Sweep)?;
    let before = before?.by;
    let before = before.iter().map(|(_, said)| said.sum);
    Ok(Purged {
        what: None,
        soft: false,
        objects: before.clone().map(|sum| sum.responses).sum(),
        octets: before.map(|sum| sum.size).sum(),
        silent: after.silent,
    })
}
