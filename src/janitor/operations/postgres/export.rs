//! A database as an archive: every response that counts, each octet compared with its checksum.
//!
//! It reads by pages and holds no snapshot: what goes meanwhile is not in it or is, as it happens, and so is what comes. What is damaged is
//! left out and counted; `verify` removes it.

use std::io::BufWriter;

use postgres::{Client, Row};

use super::list::{AT_ONCE, PATIENTLY};
use super::verify::{BODY, COUNT, Looked, PAGE, PIECE, ROWS, SAME, check_head};
use super::{Ground, Say};
use crate::janitor::operations::{Archive, opened};
use crate::janitor::protocol::{Exported, Reply};
use crate::store::archive::{Entry, Writer};
use crate::store::disk::format::{BLOCK, Kept, checksum};

type Into<'a> = Writer<BufWriter<Archive<'a>>>;

pub(super) fn export(
    ground: &mut Ground<'_>,
    to: Option<Archive<'_>>,
    say: Say<'_>,
) -> anyhow::Result<Exported> {
    let to = opened(to)?;
    let client = &mut ground.client;
    client.batch_execute(PATIENTLY)?;
    let total: i64 = client.query_one(COUNT, &[])?.try_get(0)?;
    client.batch_execute(AT_ONCE)?;
    let mut into = Writer::new(BufWriter::with_capacity(BLOCK, to))?;
    let mut exported = Exported::default();
    let (mut done, mut last) = (0, i64::MIN);
    let rows = client.prepare(ROWS)?;
    loop {
        let page = client.query(&rows, &[&last, &PAGE])?;
        for row in &page {
            last = row.try_get(0)?;
            done += 1;
            match copy(client, row, &mut into)? {
                Ok(octets) => {
                    exported.objects += 1;
                    exported.octets += octets;
                }
                Err(Looked::Damaged(_)) => exported.damaged += 1,
                Err(_) => {}
            }
            // What has come meanwhile is read as well.
            let total = total.cast_unsigned().max(done);
            say(&Reply::Progress { done, total })?;
        }
        if page.len() < PAGE as usize {
            into.finish()?;
            return Ok(exported);
        }
    }
}

/// Octets of the body, or why it is not in the archive.
fn copy(
    client: &mut Client,
    row: &Row,
    into: &mut Into<'_>,
) -> anyhow::Result<Result<u64, Looked>> {
    if row.try_get(9)? {
        return Ok(Err(Looked::Dead));
    }
    let mut kept = match check_head(row, row.try_get(5)?)? {
        Ok(kept) => kept,
        Err(looked) => return Ok(Err(looked)),
    };
    if let Some(since) = row.try_get(10)? {
        kept.stored.purged.get_or_insert(since);
    }
    let (id, pieces): (i64, i32) = (row.try_get(0)?, row.try_get(8)?);
    let length = kept.stored.body_len;
    if pieces == 0 {
        let Some(found) = client.query_opt(BODY, &[&id])? else {
            return Ok(Err(Looked::Changed));
        };
        let body: Option<&[u8]> = found.try_get(0)?;
        let body = body.unwrap_or_default();
        if body.len() as u64 != length {
            return Ok(Err(Looked::Damaged("its body has another length")));
        }
        into.begin(entry(row, &kept)?)?;
        return match blocks(body, &kept.checksums, into)? {
            true => Ok(Ok(length)),
            false => Ok(Err(Looked::Damaged("its body is damaged"))),
        };
    }
    into.begin(entry(row, &kept)?)?;
    let mut checksums = &kept.checksums[..];
    for number in 0..pieces {
        let found = client.query_opt(PIECE, &[&id, &number])?;
        let piece: &[u8] = found.as_ref().map_or(Ok(&[][..]), |row| row.try_get(0))?;
        let (own, rest) = checksums.split_at(piece.len().div_ceil(BLOCK).min(checksums.len()));
        if own.is_empty() {
            into.give_up()?;
            // Pieces outlive their object for a while: they are missing, or it has been gone for long.
            let edition: i32 = row.try_get(1)?;
            let is_there = client.query_one(SAME, &[&id, &edition])?.try_get(0)?;
            return Ok(Err(match is_there {
                true => Looked::Damaged("a piece of its body is not there"),
                false => Looked::Changed,
            }));
        }
        if !blocks(piece, own, into)? {
            return Ok(Err(Looked::Damaged("its body is damaged")));
        }
        checksums = rest;
    }
    if !checksums.is_empty() {
        into.give_up()?;
        return Ok(Err(Looked::Damaged("its body is cut off")));
    }
    Ok(Ok(length))
}

fn entry(row: &Row, kept: &Kept) -> anyhow::Result<Entry> {
    Ok(Entry {
        key: row.try_get(4)?,
        stored: kept.stored.clone(),
        checksums: kept.checksums.clone(),
    })
}

/// False: one is not what was written, and the response is given up.
fn blocks(octets: &[u8], checksums: &[u32], into: &mut Into<'_>) -> std::io::Result<bool> {
    for (block, sum) in octets.chunks(BLOCK).zip(checksums) {
        if checksum(block) != *sum {
            into.give_up()?;
            return Ok(false);
        }
        into.block(block)?;
    }
    Ok(true)
}
