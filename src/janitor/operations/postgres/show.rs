//! All that the database has of one URL, read from the heads, and what a request for it would get.

use postgres::Row;

use super::Ground;
use crate::cache::{Key, Name};
use crate::janitor::operations::explain::{Entry, judge, normal, request};
use crate::janitor::operations::purge::keys;
use crate::janitor::operations::show::response;
use crate::janitor::protocol::{self, Explained, Kind, Shown, Side};
use crate::store::disk::format::FormatError;
use crate::store::postgres::decode;

const HEADS: &str = "\
    SELECT id, variant, head, length, size, pieces, generation = (SELECT generation FROM baton_counter), \
    coalesce(octet_length(body), 0)::bigint, (SELECT count(*) FROM baton_pieces WHERE object_id = id), \
    (SELECT coalesce(sum(octet_length(octets)), 0) FROM baton_pieces WHERE object_id = id)::bigint, outdated \
    FROM baton_objects WHERE name = $1 ORDER BY stored";

pub(super) fn show(ground: &mut Ground<'_>, url: &str) -> anyhow::Result<Shown> {
    let mut shown = Shown {
        url: normal(url)?,
        ..Shown::default()
    };
    for key in keys(url)? {
        let found = entries(ground, &key)?.into_iter();
        shown.found.extend(found.map(|(entry, _)| entry));
    }
    Ok(shown)
}

pub(super) fn explain(
    ground: &mut Ground<'_>,
    url: &str,
    method: &str,
    fields: &[(String, String)],
) -> anyhow::Result<Explained> {
    let request = request(method, fields)?;
    let mut sides = Vec::new();
    for key in keys(url)? {
        let found = entries(ground, &key)?;
        sides.push(judge(&key, found, ground.database.policies, &request));
    }
    // A side that has nothing is of interest only where the other has nothing either; then both say the same.
    match sides.iter().any(|side| !side.found.is_empty()) {
        true => sides.retain(|side| !side.found.is_empty()),
        false => sides.truncate(1),
    }
    Ok(Explained {
        url: normal(url)?,
        method: method.to_owned(),
        fields: fields.to_vec(),
        sides,
        silent: Vec::new(),
    })
}

/// All that is kept under a key, with the responses of those that can be read.
fn entries(ground: &mut Ground<'_>, key: &Key) -> anyhow::Result<Vec<Entry>> {
    let name = Name::of(key.as_bytes());
    let rows = ground.client.query(HEADS, &[&&name.base[..]])?;
    let instance = ground.database.instance.as_ref();
    let is_owed = instance.is_some_and(|it| it.region.distant().is_owed(&name.base));
    let entries = rows.iter().map(|row| {
        let (mut entry, stored) = entry(row, key)?;
        if is_owed {
            entry.trouble = Some("invalidated; the database is about to be told".to_owned());
        }
        Ok((entry, stored))
    });
    entries.collect()
}

fn entry(row: &Row, key: &Key) -> anyhow::Result<Entry> {
    let id: i64 = row.try_get(0)?;
    let variant: &[u8] = row.try_get(1)?;
    let number = |column| row.try_get::<_, i64>(column);
    let (length, pieces) = (number(3)?, row.try_get::<_, i32>(5)?);
    let mut rows = vec![format!("baton_objects {id}")];
    let trouble = match pieces {
        0 => (number(7)? != length).then_some("its body has another length"),
        pieces => {
            rows.push(format!("baton_pieces {id} ({pieces})"));
            let is_there = number(8)? == i64::from(pieces) && number(9)? == length;
            (!is_there).then_some("its body is not all there")
        }
    };
    let mut kept = decode(key.as_bytes(), row.try_get(2)?);
    if let Ok(kept) = &mut kept {
        kept.stored.purged = row.try_get(10)?;
    }
    let trouble = match (&kept, row.try_get::<_, Option<bool>>(6)?) {
        (_, None | Some(false)) => Some("purged; its rows are about to go"),
        (Err(FormatError::Version), _) => Some("its head is of another version"),
        (Err(_), _) => Some("its head is damaged"),
        (Ok(_), Some(true)) => trouble,
    };
    let entry = protocol::Entry {
        workers: Vec::new(),
        side: Side::of_key(key.as_bytes()).0,
        kind: match variant.is_empty() {
            true => Kind::Object,
            false => Kind::Variant,
        },
        files: Vec::new(),
        rows,
        size: number(4)?.cast_unsigned(),
        trouble: trouble.map(str::to_owned),
        response: kept.as_ref().ok().map(|kept| response(&kept.stored)),
        selects_by: Vec::new(),
    };
    Ok((entry, kept.ok().map(|kept| kept.stored)))
}
