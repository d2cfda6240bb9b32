//! A check of every head and every body against the checksums that were written with them.
//!
//! It reads by pages and holds no snapshot, so what looks damaged may have been replaced or removed between two queries: it is looked at
//! again, by id and edition, before it is removed. All nodes are told of what is.

use postgres::{Client, Row};

use super::list::{AT_ONCE, PATIENTLY, called};
use super::{Ground, Say};
use crate::cache::{Name, key};
use crate::janitor::protocol::{Damage, Reply, Side, Verified};
use crate::store::disk::format::{Content, FormatError, Head, Kept};
use crate::store::postgres::{PIECE_SIZE, Sums};

/// Heads read at once.
pub(super) const PAGE: i64 = 200;
/// Damaged objects that are named.
const MOST_NAMED: usize = 1000;

pub(super) const COUNT: &str = "SELECT count(*) FROM baton_objects";
pub(super) const ROWS: &str = "\
    SELECT id, edition, name, variant, key, head, length, checksum, pieces, \
    generation IS DISTINCT FROM (SELECT generation FROM baton_counter), outdated FROM baton_objects WHERE id > $1 ORDER BY id LIMIT $2";
pub(super) const BODY: &str = "SELECT body FROM baton_objects WHERE id = $1 AND pieces = 0";
pub(super) const PIECE: &str =
    "SELECT octets FROM baton_pieces WHERE object_id = $1 AND number = $2";
pub(super) const SAME: &str =
    "SELECT EXISTS (SELECT FROM baton_objects WHERE id = $1 AND edition = $2)";
/// What is there under the lock is what is removed.
const REMOVE: &str =
    "SELECT baton_discard(array_agg(id)) FROM baton_objects WHERE id = $1 AND edition = $2";

/// What a row turned out to be.
pub(super) enum Looked {
    Fine,
    /// Gone meanwhile, or replaced.
    Changed,
    Dead,
    Damaged(&'static str),
}

pub(super) fn verify(ground: &mut Ground<'_>, say: Say<'_>) -> anyhow::Result<Verified> {
    let client = &mut ground.client;
    client.batch_execute(PATIENTLY)?;
    let total: i64 = client.query_one(COUNT, &[])?.try_get(0)?;
    client.batch_execute(AT_ONCE)?;
    let (mut done, mut last) = (0, i64::MIN);
    let mut verified = Verified::default();
    let rows = client.prepare(ROWS)?;
    loop {
        let page = ground.client.query(&rows, &[&last, &PAGE])?;
        for row in &page {
            last = row.try_get(0)?;
            let looked = look_at(&mut ground.client, row, &mut verified.octets)?;
            enter(ground, row, looked, &mut verified)?;
            done += 1;
            // What has come meanwhile is read as well.
            let total = total.cast_unsigned().max(done);
            say(&Reply::Progress { done, total })?;
        }
        if page.len() < PAGE as usize {
            return Ok(verified);
        }
    }
}

fn look_at(client: &mut Client, row: &Row, octets: &mut u64) -> anyhow::Result<Looked> {
    if row.try_get(9)? {
        return Ok(Looked::Dead);
    }
    let head: &[u8] = row.try_get(5)?;
    *octets += head.len() as u64;
    let why = match check_head(row, head)? {
        Err(Looked::Damaged(why)) => why,
        Err(looked) => return Ok(looked),
        Ok(kept) => match check_body(client, row, &kept, octets)? {
            None => return Ok(Looked::Fine),
            Some(why) => why,
        },
    };
    let (id, edition): (i64, i32) = (row.try_get(0)?, row.try_get(1)?);
    match client.query_one(SAME, &[&id, &edition])?.try_get(0)? {
        true => Ok(Looked::Damaged(why)),
        false => Ok(Looked::Changed),
    }
}

/// The head, if it is one and belongs where it is.
pub(super) fn check_head(row: &Row, octets: &[u8]) -> anyhow::Result<Result<Kept, Looked>> {
    let damaged = |why| Ok(Err(Looked::Damaged(why)));
    let (head, length) = match Head::decode(octets) {
        Ok(decoded) => decoded,
        Err(FormatError::Version) => return Ok(Err(Looked::Dead)),
        Err(_) => return damaged("its head is damaged"),
    };
    let key: &[u8] = row.try_get(4)?;
    let Content::Object(kept) = head.content else {
        return damaged("its head is none of a response");
    };
    if head.key != key || length != octets.len() {
        return damaged("its head is of another key");
    }
    let name = kept.stored.name(key);
    let (base, variant): (&[u8], &[u8]) = (row.try_get(2)?, row.try_get(3)?);
    let selects = match name.is_base() {
        true => variant.is_empty(),
        false => variant == name.variant,
    };
    if base != name.base || !selects {
        return damaged("its name is of another key");
    }
    if row.try_get::<_, i64>(6)?.cast_unsigned() != kept.stored.body_len {
        return damaged("its body has another length");
    }
    Ok(Ok(*kept))
}

/// What is wrong with the body.
fn check_body(
    client: &mut Client,
    row: &Row,
    kept: &Kept,
    octets: &mut u64,
) -> anyhow::Result<Option<&'static str>> {
    let (id, pieces): (i64, i32) = (row.try_get(0)?, row.try_get(8)?);
    let mut sums = Sums::default();
    let mut length = 0;
    let mut add = |piece: &[u8]| {
        length += piece.len() as u64;
        sums.add(piece);
    };
    if pieces == 0 {
        let Some(found) = client.query_opt(BODY, &[&id])? else {
            return Ok(Some("its body is not there"));
        };
        add(found.try_get::<_, Option<&[u8]>>(0)?.unwrap_or_default());
    }
    for number in 0..pieces {
        let Some(found) = client.query_opt(PIECE, &[&id, &number])? else {
            return Ok(Some("a piece of its body is not there"));
        };
        let piece: &[u8] = found.try_get(0)?;
        if number + 1 < pieces && piece.len() != PIECE_SIZE {
            return Ok(Some("a piece of its body has another length"));
        }
        add(piece);
    }
    *octets += length;
    let (blocks, whole) = sums.finish();
    let is_right = length == kept.stored.body_len
        && blocks == kept.checksums
        && i64::from(whole) == row.try_get::<_, i64>(7)?;
    Ok((!is_right).then_some("its body is damaged"))
}

fn enter(
    ground: &mut Ground<'_>,
    row: &Row,
    looked: Looked,
    verified: &mut Verified,
) -> anyhow::Result<()> {
    match looked {
        Looked::Changed => return Ok(()),
        Looked::Fine => {}
        Looked::Dead => {
            verified.dead += 1;
            let id: i64 = row.try_get(0)?;
            ground
                .client
                .query_one("SELECT baton_discard(ARRAY[$1::bigint])", &[&id])?;
        }
        Looked::Damaged(why) => {
            verified.damaged += 1;
            remove(ground, row)?;
            if verified.damage.len() < MOST_NAMED {
                let key: &[u8] = row.try_get(4)?;
                let name: &[u8] = row.try_get(2)?;
                let is_its = Name::of(key).base == name;
                verified.damage.push(Damage {
                    name: called(name, row.try_get(3)?),
                    url: is_its.then(|| Side::of_key(key).1),
                    why: why.to_owned(),
                });
            }
        }
    }
    verified.checked += 1;
    Ok(())
}

/// With a number, as everything that others may have copies of: a head in memory may lead to a body that is damaged.
fn remove(ground: &mut Ground<'_>, row: &Row) -> anyhow::Result<()> {
    let (id, edition): (i64, i32) = (row.try_get(0)?, row.try_get(1)?);
    let (name, key): (&[u8], &[u8]) = (row.try_get(2)?, row.try_get(4)?);
    // Of a key that is damaged nobody knows where copies would show it.
    let hash = (Name::of(key).base == name).then(|| key::hash(key).cast_signed());
    let mut transaction = ground.client.transaction()?;
    transaction.batch_execute(super::purge::ALONE)?;
    let removed = transaction.query_one(REMOVE, &[&id, &edition])?;
    if removed.try_get::<_, i64>(0)? > 0 {
        transaction.query_one("SELECT baton_changed($1, $2)", &[&name, &hash])?;
    }
    transaction.commit()?;
    if let Some(instance) = &ground.database.instance {
        match hash {
            Some(hash) => instance.region.versions().bump(hash.cast_unsigned()),
            None => instance.region.versions().bump_epoch(),
        }
    }
    Ok(())
}
