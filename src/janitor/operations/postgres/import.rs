//! Filling a database from an archive: pieces of a MiB, then the response, in a transaction of its own.
//!
//! All nodes are told of what is replaced. A purge that comes while an import runs is about what is there already, and for a minute
//! at the most about what is not.

use anyhow::Context;

use super::{Ground, Say};
use crate::janitor::operations::Archive;
use crate::janitor::operations::import::{Destination, LeftOut, fill};
use crate::janitor::protocol::Imported;
use crate::store::archive::Entry;
use crate::store::postgres::intake::{Intake, Present, Whole};
use crate::store::postgres::{PIECE_SIZE, Sums};

const SIZE: &str = "SELECT coalesce(sum(size), 0)::bigint FROM baton_objects";

pub(super) fn import(
    ground: &mut Ground<'_>,
    from: Option<Archive<'_>>,
    say: Say<'_>,
) -> anyhow::Result<Imported> {
    let size: i64 = ground.client.query_one(SIZE, &[])?.try_get(0)?;
    let limit = match ground.database.max_size {
        0 => u64::MAX,
        limit => limit,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .context("no session can be opened")?;
    let mut table = Table {
        intake: Intake::open(runtime, ground.database.server)?,
        room: limit.saturating_sub(size.cast_unsigned()),
    };
    fill(&mut table, from, say)
}

struct Table {
    intake: Intake,
    /// Octets that may come.
    room: u64,
}

/// A response that is on its way into the database.
struct Arriving {
    id: i64,
    pieces: i32,
    buffer: Vec<u8>,
    sums: Sums,
}

impl Table {
    fn put(&self, arriving: &mut Arriving) -> anyhow::Result<()> {
        self.intake
            .put_piece(arriving.id, arriving.pieces, &arriving.buffer)?;
        arriving.pieces += 1;
        arriving.buffer.clear();
        Ok(())
    }
}

impl Destination for Table {
    type Body = Arriving;

    fn begin(&mut self, entry: &Entry) -> anyhow::Result<Result<Arriving, LeftOut>> {
        if entry.stored.body_len > self.room {
            return Ok(Err(LeftOut::NoRoom));
        }
        if self.intake.present(&entry.key, &entry.stored)? == Present::Newer {
            return Ok(Err(LeftOut::Newer));
        }
        Ok(Ok(Arriving {
            id: (fastrand::u64(..) >> 1).cast_signed(),
            pieces: 0,
            buffer: Vec::new(),
            sums: Sums::default(),
        }))
    }

    fn write(&mut self, arriving: &mut Arriving, octets: &[u8]) -> anyhow::Result<()> {
        // A body of one piece is with its object: another one must be known to come before the first is put.
        if arriving.buffer.len() >= PIECE_SIZE {
            self.put(arriving)?;
        }
        arriving.sums.add(octets);
        arriving.buffer.extend_from_slice(octets);
        Ok(())
    }

    fn finish(
        &mut self,
        entry: Entry,
        mut arriving: Arriving,
    ) -> anyhow::Result<Result<(), LeftOut>> {
        if arriving.pieces > 0 {
            self.put(&mut arriving)?;
        }
        let body = (arriving.pieces == 0).then_some(&arriving.buffer[..]);
        let (checksums, checksum) = arriving.sums.finish();
        let whole = Whole {
            id: arriving.id,
            key: &entry.key,
            stored: &entry.stored,
            pieces: arriving.pieces,
            body,
            checksums,
            checksum,
        };
        if !self.intake.store(&whole)? {
            self.intake.abandon(arriving.id)?;
            return Ok(Err(LeftOut::Newer));
        }
        self.room = self.room.saturating_sub(entry.stored.body_len);
        Ok(Ok(()))
    }

    fn give_up(&mut self, arriving: Arriving) {
        // What stays is removed after a day.
        let _ = self.intake.abandon(arriving.id);
    }
}
