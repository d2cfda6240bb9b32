//! Removal, for all nodes: a transaction that takes a number, of which they are told when it is there.
//!
//! Everything: one number is raised, from when on no row counts that was stored before; the rows go afterwards. Whoever
//! runs sweeps, and so does the command: there may be no node that does.

use std::thread::sleep;
use std::time::Duration;

use anyhow::bail;

use super::list::{AT_ONCE, PATIENTLY, is_in_use};
use super::{Ground, Say, sets};
use crate::cache::{Name, Set, key};
use crate::janitor::operations::purge::keys;
use crate::janitor::postgres::tidy;
use crate::janitor::protocol::{Purged, Reply};
use crate::sys::clock::unix_seconds;

/// Between two looks at what somebody else sweeps.
const LOOK: Duration = Duration::from_millis(100);

/// Of a transaction that changes what others may have copies of (`migrations/postgres`).
pub(super) const ALONE: &str =
    "SET LOCAL synchronous_commit = on; SELECT pg_advisory_xact_lock(422541815662)";
const FOUND: &str = "\
    SELECT count(*), coalesce(sum(size), 0)::bigint FROM baton_objects \
    WHERE name = ANY ($1) AND generation = (SELECT generation FROM baton_counter)";
const SOFTEN: &str =
    "UPDATE baton_objects SET outdated = $2 WHERE name = ANY ($1) AND outdated IS NULL";
const CHANGED: &str = "SELECT max(baton_changed(name, hash)) FROM unnest($1::bytea[], $2::bigint[]) AS of (name, hash)";
const OLD: &str =
    "SELECT count(*), coalesce(sum(size), 0)::bigint FROM baton_objects WHERE generation = $1";
const LEFT: &str =
    "SELECT count(*) FROM baton_objects WHERE generation <> (SELECT generation FROM baton_counter)";
/// Bodies of what is gone, where nobody is connected who could be reading them.
const ORPHANS: &str = "\
    WITH old AS (DELETE FROM baton_orphans WHERE object_id IN (SELECT object_id FROM baton_orphans LIMIT 100) RETURNING object_id) \
    DELETE FROM baton_pieces USING old WHERE baton_pieces.object_id = old.object_id";

pub(super) fn purge(ground: &mut Ground<'_>, what: &Set, soft: bool) -> anyhow::Result<Purged> {
    let since = soft.then(unix_seconds);
    let (objects, octets) = match what {
        Set::Url(url) => purge_url(ground, url, since)?,
        _ => sets::purge(ground, what, since)?,
    };
    Ok(Purged {
        what: Some(what.clone()),
        soft,
        objects: objects.cast_unsigned(),
        octets: octets.cast_unsigned(),
        silent: Vec::new(),
    })
}

/// How many there were, and their octets. `soft`: they stay, as stale since then.
fn purge_url(ground: &mut Ground<'_>, url: &str, soft: Option<i64>) -> anyhow::Result<(i64, i64)> {
    let keys = keys(url)?;
    let names = keys.each_ref().map(|key| Name::of(key.as_bytes()).base);
    let names: Vec<&[u8]> = names.iter().map(|name| &name[..]).collect();
    let hashes = keys.each_ref().map(|key| key::hash(key.as_bytes()));
    let signed: Vec<i64> = hashes.iter().map(|hash| hash.cast_signed()).collect();
    let mut transaction = ground.client.transaction()?;
    transaction.batch_execute(ALONE)?;
    let found = transaction.query_one(FOUND, &[&names])?;
    let changed = match soft {
        None => {
            transaction.query_one("SELECT change FROM baton_purge($1, $2)", &[&names, &signed])?
        }
        Some(since) => {
            transaction.execute(SOFTEN, &[&names, &since])?;
            transaction.query_one(CHANGED, &[&names, &signed])?
        }
    };
    let change: i64 = changed.try_get(0)?;
    transaction.commit()?;
    // At once, and not when its janitor hears of it.
    if let Some(instance) = &ground.database.instance {
        hashes
            .iter()
            .for_each(|hash| instance.region.versions().bump(*hash));
    }
    counts(change)?;
    Ok((found.try_get(0)?, found.try_get(1)?))
}

/// A change without a number did not count.
pub(super) fn counts(change: i64) -> anyhow::Result<()> {
    match change {
        0 => bail!("the table baton_counter is empty; `baton migrate` makes its row"),
        _ => Ok(()),
    }
}

pub(super) fn purge_all(ground: &mut Ground<'_>, say: Say<'_>) -> anyhow::Result<Purged> {
    let mut transaction = ground.client.transaction()?;
    transaction.batch_execute(ALONE)?;
    let before = transaction.query_one("SELECT generation FROM baton_counter", &[])?;
    let before: i64 = before.try_get(0)?;
    let change = transaction.query_one("SELECT baton_purge_all()", &[])?;
    let change: i64 = change.try_get(0)?;
    transaction.commit()?;
    if let Some(instance) = &ground.database.instance {
        instance.region.versions().bump_epoch();
    }
    counts(change)?;
    // From here on it holds, and only rows go.
    ground.client.batch_execute(PATIENTLY)?;
    let old = ground.client.query_one(OLD, &[&before])?;
    sweep(ground, old.try_get(0)?, say)?;
    ground.client.batch_execute(AT_ONCE)?;
    Ok(Purged {
        what: None,
        soft: false,
        objects: old.try_get::<_, i64>(0)?.cast_unsigned(),
        octets: old.try_get::<_, i64>(1)?.cast_unsigned(),
        silent: Vec::new(),
    })
}

/// Removes rows that count no more, or waits for a janitor that does: one at a time.
fn sweep(ground: &mut Ground<'_>, total: i64, say: Say<'_>) -> anyhow::Result<()> {
    let total = total.cast_unsigned();
    let mut done = 0;
    loop {
        say(&Reply::Progress {
            done: done.min(total),
            total,
        })?;
        let client = &mut ground.client;
        let locked = client.query_one("SELECT pg_try_advisory_lock($1)", &[&tidy::LOCK])?;
        if !locked.try_get::<_, bool>(0)? {
            let left: i64 = client.query_one(LEFT, &[])?.try_get(0)?;
            if left == 0 {
                return Ok(());
            }
            done = total.saturating_sub(left.cast_unsigned());
            sleep(LOOK);
            continue;
        }
        let removed = client.query_one(tidy::DEAD, &[])?;
        let removed: Option<i64> = removed.try_get(0)?;
        let is_over = removed.unwrap_or_default() == 0;
        done += removed.unwrap_or_default().cast_unsigned();
        if is_over && !is_in_use(ground)? {
            while ground.client.execute(ORPHANS, &[])? > 0 {}
        }
        let client = &mut ground.client;
        client.query_one("SELECT pg_advisory_unlock($1)", &[&tidy::LOCK])?;
        if is_over {
            return Ok(());
        }
    }
}
