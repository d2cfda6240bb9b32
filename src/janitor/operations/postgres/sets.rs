//! A purge of many at once: looked for beforehand, while everything goes on, and changed in one short transaction.
//!
//! Behind the lock it looks once more, at what has come or been refreshed meanwhile: `used` tells. So nothing slips through, and nobody
//! waits while a large table is read. What is being fetched meanwhile is refused when it is stored, since the
//! change is about everything.

use std::collections::HashSet;

use postgres::fallible_iterator::FallibleIterator;
use postgres::types::ToSql;

use super::Ground;
use super::list::{AT_ONCE, PATIENTLY};
use super::purge::{ALONE, counts};
use crate::cache::{Matcher, Set};
use crate::store::postgres::tags;

/// Longer ago than any transaction can have begun that is still to be seen: a statement of a node takes ten seconds at the most.
const BEGUN: &str = "SELECT floor(extract(epoch FROM clock_timestamp()))::bigint - 20";
const TAGGED: &str = "SELECT id FROM baton_objects WHERE tags && $1 AND tags <> '{}'";
const ALL: &str = "SELECT id, key FROM baton_objects";
const LATELY_TAGGED: &str =
    "SELECT id FROM baton_objects WHERE used > to_timestamp($2) AND tags && $1";
/// A row keeps its key: of rows that were there before nothing is to be seen. The index is one of `used`.
const LATELY: &str =
    "SELECT id, key FROM baton_objects WHERE used > to_timestamp($1) AND stored > to_timestamp($1)";
const PURGE: &str = "SELECT objects, octets, change FROM baton_purge_set($1, $2)";

/// How many there were, and their octets. `soft`: they stay, as stale since then.
pub(super) fn purge(
    ground: &mut Ground<'_>,
    what: &Set,
    soft: Option<i64>,
) -> anyhow::Result<(i64, i64)> {
    let matcher = what.matcher()?;
    let tags: Option<Vec<String>> = match what {
        Set::Tags(tags) => Some(tags.iter().map(|tag| tags::one(tag.as_bytes())).collect()),
        _ => None,
    };
    let client = &mut ground.client;
    client.batch_execute(PATIENTLY)?;
    let begun: i64 = client.query_one(BEGUN, &[])?.try_get(0)?;
    let begun = begun as f64;
    let mut ids = HashSet::new();
    match &tags {
        Some(tags) => take(client.query_raw(TAGGED, [tags])?, None, &mut ids)?,
        None => {
            let nothing: [&(dyn ToSql + Sync); 0] = [];
            take(client.query_raw(ALL, nothing)?, Some(&matcher), &mut ids)?;
        }
    }
    client.batch_execute(AT_ONCE)?;
    let mut transaction = client.transaction()?;
    transaction.batch_execute(ALONE)?;
    match &tags {
        Some(tags) => {
            let parameters: [&(dyn ToSql + Sync); 2] = [tags, &begun];
            let rows = transaction.query_raw(LATELY_TAGGED, parameters)?;
            take(rows, None, &mut ids)?;
        }
        None => {
            let rows = transaction.query_raw(LATELY, [&begun])?;
            take(rows, Some(&matcher), &mut ids)?;
        }
    }
    let ids: Vec<i64> = ids.into_iter().collect();
    let purged = transaction.query_one(PURGE, &[&ids, &soft])?;
    transaction.commit()?;
    if let Some(instance) = &ground.database.instance {
        instance.region.versions().bump_epoch();
    }
    counts(purged.try_get(2)?)?;
    Ok((purged.try_get(0)?, purged.try_get(1)?))
}

/// The ids of those that match; without a matcher, of all.
fn take(
    mut rows: postgres::RowIter<'_>,
    matcher: Option<&Matcher>,
    ids: &mut HashSet<i64>,
) -> Result<(), postgres::Error> {
    while let Some(row) = rows.next()? {
        let takes = match matcher {
            Some(matcher) => matcher.takes_key(row.try_get(1)?) == Some(true),
            None => true,
        };
        if takes {
            ids.insert(row.try_get(0)?);
        }
    }
    Ok(())
}
