//! Figures and lists, from the columns beside the heads.

use super::{Ground, Say};
use crate::cache::Name;
use crate::janitor::listing::{Lister, Listing};
use crate::janitor::operations::list::counters;
use crate::janitor::protocol::{Item, Kind, Listed, Reply, Side, Stats, Store};
use crate::store::postgres::tags;
use crate::sys::clock::unix_seconds;

/// Rows read at once: each query is short, and no snapshot is held while they are handed on.
const PAGE: i64 = 1000;
/// For what has to read the whole table.
pub(super) const PATIENTLY: &str = "SET statement_timeout = '600s'";
pub(super) const AT_ONCE: &str = "SET statement_timeout = '10s'";

const TOTALS: &str = "\
    SELECT count(*) FILTER (WHERE variant = ''), count(*) FILTER (WHERE variant <> ''), \
    count(DISTINCT name) FILTER (WHERE variant <> ''), coalesce(sum(length), 0)::bigint, coalesce(sum(size), 0)::bigint \
    FROM baton_objects WHERE generation = (SELECT generation FROM baton_counter)";
/// Janitors say who they are.
const SESSIONS: &str = "\
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'baton janitor'";
const ROWS: &str = "\
    SELECT id, key, name, variant, status, length, size, answered, least(floor(extract(epoch FROM expires))::bigint, outdated), \
    floor(extract(epoch FROM used))::bigint, tags && $3, hits FROM baton_objects \
    WHERE id > $1 AND generation = (SELECT generation FROM baton_counter) ORDER BY id LIMIT $2";

pub(super) fn stats(ground: &mut Ground<'_>) -> anyhow::Result<Stats> {
    let database = ground.database;
    let client = &mut ground.client;
    client.batch_execute(PATIENTLY)?;
    let totals = client.query_one(TOTALS, &[])?;
    client.batch_execute(AT_ONCE)?;
    let number = |column| totals.try_get::<_, i64>(column).map(i64::cast_unsigned);
    let generation = client.query_one("SELECT generation FROM baton_counter", &[])?;
    let instance = database.instance.as_ref();
    Ok(Stats {
        store: Store::Postgres,
        database: Some(database.server.called()),
        running: instance.is_some() || is_in_use(ground)?,
        holder: instance.map(|it| it.holder.to_owned()),
        objects: number(0)?,
        variants: number(1)?,
        lists: number(2)?,
        content: number(3)?,
        size: number(4)?,
        limit: (database.max_size > 0).then_some(database.max_size),
        generation: Some(generation.try_get::<_, i64>(0)?.cast_unsigned()),
        counters: instance.map(|it| counters(&it.region)),
        ..Stats::default()
    })
}

/// Whether some node is connected.
pub(super) fn is_in_use(ground: &mut Ground<'_>) -> Result<bool, postgres::Error> {
    let sessions = ground.client.query_one(SESSIONS, &[])?;
    Ok(sessions.try_get::<_, i64>(0)? > 0)
}

pub(super) fn ls(
    ground: &mut Ground<'_>,
    listing: &Listing,
    say: Say<'_>,
) -> anyhow::Result<Listed> {
    let tags: Vec<String> = listing
        .tags
        .iter()
        .map(|tag| tags::one(tag.as_bytes()))
        .collect();
    let rows = ground.client.prepare(ROWS)?;
    let mut lister = Lister::new(listing, unix_seconds());
    let mut listed = Listed::default();
    let mut last = i64::MIN;
    loop {
        let page = ground.client.query(&rows, &[&last, &PAGE, &tags])?;
        for row in &page {
            last = row.try_get(0)?;
            let key: &[u8] = row.try_get(1)?;
            if !tags.is_empty() && !row.try_get::<_, bool>(10)? {
                continue;
            }
            if let Some(item) = lister.put(item(row, key)?) {
                say(&Reply::Item(item))?;
                listed.items += 1;
            }
        }
        if page.len() < PAGE as usize || lister.is_full() {
            break;
        }
    }
    for item in lister.finish() {
        say(&Reply::Item(item))?;
        listed.items += 1;
    }
    Ok(listed)
}

fn item(row: &postgres::Row, key: &[u8]) -> Result<Item, postgres::Error> {
    let (side, url) = Side::of_key(key);
    let number = |column| row.try_get::<_, i64>(column);
    let variant: &[u8] = row.try_get(3)?;
    let status: i32 = row.try_get(4)?;
    Ok(Item {
        workers: Vec::new(),
        url,
        side,
        kind: match variant.is_empty() {
            true => Kind::Object,
            false => Kind::Variant,
        },
        name: called(row.try_get(2)?, variant),
        status: u16::try_from(status).unwrap_or_default(),
        length: number(5)?.cast_unsigned(),
        size: number(6)?.cast_unsigned(),
        stored: number(7)?,
        expires: number(8)?,
        used: Some(number(9)?),
        hits: Some(number(11)?.cast_unsigned()),
    })
}

/// As its files would be called in a directory. Columns that are damaged are as good as none.
pub(super) fn called(base: &[u8], variant: &[u8]) -> String {
    let name = Name {
        base: base.try_into().unwrap_or_default(),
        variant: variant.try_into().unwrap_or_default(),
    };
    name.to_string()
}
