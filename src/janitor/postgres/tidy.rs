//! Keeps the tables small: what nobody can find any more, bodies that lost their object, changes that all have heard of, and
//! what was used least where there is a limit. One node at a time does it; each step is short.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, Error};

use super::Ground;
use crate::shared::Counter;
use crate::store::postgres::server::greet;
use crate::store::postgres::trouble::said;

/// Between two times.
const PAUSE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(2);
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// Of the lock that says who does it.
pub(in crate::janitor) const LOCK: i64 = 422_541_815_664;

/// Objects of before a purge of everything.
pub(in crate::janitor) const DEAD: &str = "SELECT baton_discard(array_agg(id)) FROM (SELECT id FROM baton_objects \
    WHERE generation <> (SELECT generation FROM baton_counter) LIMIT 1000) AS dead";
/// Bodies whose object went so long ago that nobody is reading them. One that was stored twice, because nobody heard of the first
/// time, is there.
const ORPHANS: &str = "WITH old AS (DELETE FROM baton_orphans WHERE object_id IN (SELECT object_id FROM baton_orphans \
    WHERE at < clock_timestamp() - interval '10 minutes' LIMIT 100) RETURNING object_id), \
    bodies AS (DELETE FROM baton_pieces USING old WHERE baton_pieces.object_id = old.object_id \
    AND NOT EXISTS (SELECT FROM baton_objects WHERE id = old.object_id)) \
    SELECT count(*) FROM old";
/// Bodies whose object never came, for longer than any may take.
const LOST: &str = "DELETE FROM baton_pieces p WHERE at < clock_timestamp() - interval '1 day' \
    AND NOT EXISTS (SELECT FROM baton_objects o WHERE o.id = p.object_id) \
    AND NOT EXISTS (SELECT FROM baton_orphans o WHERE o.object_id = p.object_id)";
const SIZE: &str = "SELECT coalesce(sum(size), 0)::bigint FROM baton_objects";
/// The least recently used, so many octets of them, but not too many at once.
const EVICT: &str = "SELECT baton_discard(array_agg(id)) FROM \
    (SELECT id, (sum(size) OVER (ORDER BY used, id) - size)::bigint AS before FROM \
    (SELECT id, size, used FROM baton_objects ORDER BY used, id LIMIT 1000) AS oldest) AS oldest WHERE before < $1";

/// Until the process ends.
pub(super) async fn attend(ground: &Ground) {
    loop {
        tokio::time::sleep(PAUSE).await;
        match timeout(PATIENCE, once(ground)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::debug!("the tables cannot be tidied: {}", said(&error)),
            Err(_) => log::warn!("tidying the tables takes too long"),
        }
    }
}

async fn once(ground: &Ground) -> Result<(), Error> {
    let Ok(connected) = timeout(CONNECT, ground.server.connect()).await else {
        return Ok(());
    };
    let (client, line) = connected?;
    let driver = tokio::task::spawn_local(line);
    greet(&client).await?;
    let mine = client
        .query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK])
        .await?;
    if mine.try_get(0)? {
        tidy(&client, ground).await?;
    }
    drop(client);
    let _ = driver.await;
    Ok(())
}

pub(super) async fn tidy(client: &Client, ground: &Ground) -> Result<(), Error> {
    let counters = ground.region.janitor_counters();
    client
        .execute("SELECT baton_prune(interval '1 hour')", &[])
        .await?;
    loop {
        let dead = number(client, DEAD, &[]).await?;
        counters.add(Counter::CacheSwept, dead.cast_unsigned());
        if dead == 0 {
            break;
        }
    }
    while number(client, ORPHANS, &[]).await? > 0 {}
    client.execute(LOST, &[]).await?;
    let limit = i64::try_from(ground.max_size).unwrap_or(i64::MAX);
    if limit == 0 {
        return Ok(());
    }
    let mut size = number(client, SIZE, &[]).await?;
    if size <= limit {
        return Ok(());
    }
    // Somewhat less, so that it is not the same again at once.
    let wanted = limit - limit / 20;
    while size > wanted {
        let evicted = number(client, EVICT, &[&(size - wanted)]).await?;
        counters.add(Counter::CacheEvicted, evicted.cast_unsigned());
        if evicted == 0 {
            break;
        }
        size = number(client, SIZE, &[]).await?;
    }
    Ok(())
}

async fn number(
    client: &Client,
    sql: &str,
    parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<i64, Error> {
    let row = client.query_one(sql, parameters).await?;
    let number: Option<i64> = row.try_get(0)?;
    Ok(number.unwrap_or_default())
}

#[cfg(test)]
mod tests;
