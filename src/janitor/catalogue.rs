//! The catalogue: what the files of the cache directory say, in a database, for listing and for a quick restart.
//!
//! It may always be deleted: the files are the truth. So nothing in it is ever waited for by the disk but the word
//! that it is complete, and whatever is wrong with it is one of two things: it is broken, and there will be another;
//! or it cannot be written now. One connection writes, in batches; readers have connections of their own. The books
//! call it; whoever lists uses [`Reader`].

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};

use crate::cache::Name;
use crate::shared::Kind;

mod migrations {
    refinery::embed_migrations!("migrations/sqlite");
}

/// Another one that writes is a janitor about to end, or a command on a directory at rest.
const BUSY: Duration = Duration::from_secs(2);

/// What belongs to a database, behind its name.
const PARTS: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// A head file as the catalogue has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: u64,
    pub name: Name,
    pub kind: Kind,
    pub status: u16,
    /// Octets of the body.
    pub length: u64,
    /// Space that all its files take.
    pub kib: u32,
    /// Seconds since 1970, as the next two.
    pub stored: i64,
    pub expires: i64,
    pub used: i64,
    /// How often it was found for a request. It begins with 0, and stays when the row is written again.
    pub hits: u64,
    pub key: Vec<u8>,
}

/// The part of a row that the janitor remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub id: u64,
    pub name: Name,
    pub kind: Kind,
    pub kib: u32,
    pub used: i64,
}

/// Something to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new row, or in place of the one with that id.
    Put(Row),
    Used {
        id: u64,
        used: i64,
    },
    Hits {
        id: u64,
        hits: u64,
    },
    Remove {
        id: u64,
    },
    RemoveAll,
}

/// Single numbers that are kept beside the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Everything was written before the end.
    Clean,
    /// The start of the machine in which it was last written.
    Boot,
    /// When it was last written, seconds since 1970.
    Written,
    /// Octets that everything took then.
    Octets,
    /// The generation of the directory then.
    Generation,
}

#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Its content cannot be used, now or ever.
    #[error("it is damaged: {0}")]
    Broken(Source),
    /// The disk is full, or read-only, or failing.
    #[error("it cannot be written: {0}")]
    Unwritable(Source),
}

type Source = Box<dyn std::error::Error + Send + Sync>;

pub struct Catalogue {
    connection: Connection,
    path: PathBuf,
    inode: u64,
}

// === impl Catalogue ===

impl Catalogue {
    /// Opens the database of that path, made if it is not there.
    pub fn open(path: &Path) -> Result<Catalogue, CatalogueError> {
        // For its owner alone, as all that SQLite puts beside it then is; and no link is followed.
        let inode = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .and_then(|file| Ok(file.metadata()?.ino()))
            .map_err(of_io)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(of_sqlite)?;
        // Before anything that may have to wait.
        connection.busy_timeout(BUSY).map_err(of_sqlite)?;
        for (name, value) in [
            ("synchronous", "off"),
            ("journal_mode", "wal"),
            ("wal_autocheckpoint", "256"),
            ("cache_size", "-4096"),
        ] {
            connection
                .pragma_update(None, name, value)
                .map_err(of_sqlite)?;
        }
        migrations::migrations::runner()
            .run(&mut connection)
            .map_err(of_refinery)?;
        Ok(Catalogue {
            connection,
            path: path.to_owned(),
            inode,
        })
    }

    /// Whether its files are still those that are written: they may have been removed under way.
    pub fn is_there(&self) -> bool {
        let there = |part| std::fs::symlink_metadata(beside(&self.path, part));
        there("").is_ok_and(|file| file.ino() == self.inode) && there("-wal").is_ok()
    }

    /// Octets that it takes on the disk.
    pub fn size(&self) -> u64 {
        let sizes = PARTS.map(|part| {
            std::fs::symlink_metadata(beside(&self.path, part)).map_or(0, |file| file.len())
        });
        sizes.iter().sum()
    }

    /// Removes the database and what belongs to it.
    pub fn delete(path: &Path) -> io::Result<()> {
        for part in PARTS {
            match std::fs::remove_file(beside(path, part)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    pub fn fact(&self, fact: Fact) -> Result<Option<i64>, CatalogueError> {
        read_fact(&self.connection, fact).map_err(of_sqlite)
    }

    /// Reads every row.
    pub fn load(&self, mut each: impl FnMut(Known)) -> Result<(), CatalogueError> {
        let select = "SELECT id, kind, kib, used, name FROM objects";
        let mut statement = self.connection.prepare(select).map_err(of_reading)?;
        let mut rows = statement.query([]).map_err(of_reading)?;
        while let Some(row) = rows.next().map_err(of_reading)? {
            each(known(row).map_err(of_reading)?);
        }
        Ok(())
    }

    /// Writes a batch, whole or not at all.
    pub fn write(
        &mut self,
        changes: &[Change],
        facts: &[(Fact, i64)],
    ) -> Result<(), CatalogueError> {
        self.try_write(changes, facts).map_err(of_sqlite)
    }

    fn try_write(&mut self, changes: &[Change], facts: &[(Fact, i64)]) -> rusqlite::Result<()> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for change in changes {
            write_one(&transaction, change)?;
        }
        for (fact, value) in facts {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO facts (name, value) VALUES (?1, ?2)")?
                .execute(params![fact.name(), value])?;
        }
        transaction.commit()
    }

    /// Writes facts, and returns when the disk has them and everything that was written before.
    pub fn write_through(&mut self, facts: &[(Fact, i64)]) -> Result<(), CatalogueError> {
        self.set_synchronous("full")?;
        // What the facts vouch for comes first.
        let written = self
            .checkpoint()
            .and_then(|()| self.write(&[], facts))
            .and_then(|()| self.checkpoint());
        self.set_synchronous("off")?;
        written
    }

    fn set_synchronous(&self, value: &str) -> Result<(), CatalogueError> {
        self.connection
            .pragma_update(None, "synchronous", value)
            .map_err(of_sqlite)
    }

    fn checkpoint(&self) -> Result<(), CatalogueError> {
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(of_sqlite)
    }
}

fn write_one(connection: &Connection, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::Put(row) => {
            let insert = "INSERT INTO objects \
                (id, name, kind, status, length, kib, stored, expires, used, key) \
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
                ON CONFLICT (id) DO UPDATE SET name = ?2, kind = ?3, status = ?4, length = ?5, \
                kib = ?6, stored = ?7, expires = ?8, used = ?9, key = ?10";
            let (octets, length) = octets_of(&row.name);
            connection.prepare_cached(insert)?.execute(params![
                row.id.cast_signed(),
                &octets[..length],
                number_of(row.kind),
                row.status,
                row.length.cast_signed(),
                row.kib,
                row.stored,
                row.expires,
                row.used,
                row.key,
            ])?;
        }
        Change::Used { id, used } => {
            connection
                .prepare_cached("UPDATE objects SET used = ?2 WHERE id = ?1")?
                .execute(params![id.cast_signed(), used])?;
        }
        Change::Hits { id, hits } => {
            connection
                .prepare_cached("UPDATE objects SET hits = hits + ?2 WHERE id = ?1")?
                .execute(params![id.cast_signed(), hits.cast_signed()])?;
        }
        Change::Remove { id } => {
            connection
                .prepare_cached("DELETE FROM objects WHERE id = ?1")?
                .execute(params![id.cast_signed()])?;
        }
        Change::RemoveAll => {
            connection.execute("DELETE FROM objects", [])?;
        }
    }
    Ok(())
}

fn read_fact(connection: &Connection, fact: Fact) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare("SELECT value FROM facts WHERE name = ?1")?;
    let mut rows = statement.query([fact.name()])?;
    rows.next()?.map(|row| row.get(0)).transpose()
}

impl Fact {
    fn name(self) -> &'static str {
        match self {
            Fact::Boot => "boot",
            Fact::Clean => "clean",
            Fact::Generation => "generation",
            Fact::Octets => "octets",
            Fact::Written => "written",
        }
    }
}

// === Reader ===

/// A connection that only reads, beside the janitor or where none runs.
pub struct Reader {
    connection: Connection,
}

/// All rows together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub objects: u64,
    pub variants: u64,
    pub lists: u64,
    /// Octets of bodies.
    pub length: u64,
    /// Space that all files take.
    pub kib: u64,
}

impl Reader {
    pub fn open(path: &Path) -> Result<Reader, CatalogueError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(of_sqlite)?;
        connection.busy_timeout(BUSY).map_err(of_sqlite)?;
        Ok(Reader { connection })
    }

    /// Hands out the rows behind that id, in the order they were stored first, until `each` returns `false`.
    pub fn rows(
        &self,
        behind: u64,
        mut each: impl FnMut(Row) -> bool,
    ) -> Result<(), CatalogueError> {
        let select = "SELECT id, kind, kib, used, name, status, length, stored, expires, key, hits \
            FROM objects WHERE id > ?1 ORDER BY id";
        let mut statement = self.connection.prepare(select).map_err(of_reading)?;
        let mut rows = statement
            .query([behind.cast_signed()])
            .map_err(of_reading)?;
        while let Some(row) = rows.next().map_err(of_reading)? {
            if !each(whole(row).map_err(of_reading)?) {
                break;
            }
        }
        Ok(())
    }

    pub fn totals(&self) -> Result<Totals, CatalogueError> {
        let select = "SELECT kind, count(*), sum(length), sum(kib) FROM objects GROUP BY kind";
        let mut statement = self.connection.prepare(select).map_err(of_reading)?;
        let mut rows = statement.query([]).map_err(of_reading)?;
        let mut totals = Totals::default();
        while let Some(row) = rows.next().map_err(of_reading)? {
            let number = |at: usize| row.get::<_, i64>(at).map(i64::cast_unsigned);
            let count = number(1).map_err(of_reading)?;
            match kind_of(row.get(0).map_err(of_reading)?) {
                Some(Kind::Variant) => totals.variants += count,
                Some(Kind::List) => totals.lists += count,
                _ => totals.objects += count,
            }
            totals.length += number(2).map_err(of_reading)?;
            totals.kib += number(3).map_err(of_reading)?;
        }
        Ok(totals)
    }

    pub fn fact(&self, fact: Fact) -> Result<Option<i64>, CatalogueError> {
        read_fact(&self.connection, fact).map_err(of_reading)
    }
}

// === rows

fn known(row: &rusqlite::Row<'_>) -> rusqlite::Result<Known> {
    let odd = |at: usize| rusqlite::Error::IntegralValueOutOfRange(at, 0);
    let name = match row.get_ref(4)? {
        ValueRef::Blob(octets) => name_of(octets),
        _ => None,
    };
    Ok(Known {
        id: row.get::<_, i64>(0)?.cast_unsigned(),
        kind: kind_of(row.get(1)?).ok_or_else(|| odd(1))?,
        kib: row.get(2)?,
        used: row.get(3)?,
        name: name.ok_or_else(|| odd(4))?,
    })
}

fn whole(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let known = known(row)?;
    Ok(Row {
        id: known.id,
        name: known.name,
        kind: known.kind,
        kib: known.kib,
        used: known.used,
        status: row.get(5)?,
        length: row.get::<_, i64>(6)?.cast_unsigned(),
        stored: row.get(7)?,
        expires: row.get(8)?,
        key: row.get(9)?,
        hits: row.get::<_, i64>(10)?.cast_unsigned(),
    })
}

fn number_of(kind: Kind) -> u8 {
    match kind {
        Kind::Object => 0,
        Kind::Variant => 1,
        Kind::List => 2,
    }
}

fn kind_of(number: i64) -> Option<Kind> {
    match number {
        0 => Some(Kind::Object),
        1 => Some(Kind::Variant),
        2 => Some(Kind::List),
        _ => None,
    }
}

fn octets_of(name: &Name) -> ([u8; 24], usize) {
    let mut octets = [0; 24];
    octets[..16].copy_from_slice(&name.base);
    octets[16..].copy_from_slice(&name.variant);
    (octets, if name.is_base() { 16 } else { 24 })
}

fn name_of(octets: &[u8]) -> Option<Name> {
    let (base, variant) = octets.split_first_chunk()?;
    let variant = match variant {
        [] => [0; 8],
        variant => variant.try_into().ok()?,
    };
    Some(Name {
        base: *base,
        variant,
    })
}

fn beside(path: &Path, part: &str) -> PathBuf {
    let mut whole = path.as_os_str().to_owned();
    whole.push(part);
    whole.into()
}

// === errors

fn of_sqlite(error: rusqlite::Error) -> CatalogueError {
    use ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, PermissionDenied,
        ReadOnly, SystemIoFailure,
    };
    match error.sqlite_error_code() {
        Some(
            CannotOpen | DatabaseBusy | DatabaseLocked | DiskFull | OutOfMemory | PermissionDenied
            | ReadOnly | SystemIoFailure,
        ) => CatalogueError::Unwritable(error.into()),
        _ => CatalogueError::Broken(error.into()),
    }
}

/// A file that is cut off fails to be read like one on a failing disk: another one is of use in both cases.
fn of_reading(error: rusqlite::Error) -> CatalogueError {
    match error.sqlite_error_code() {
        Some(ErrorCode::SystemIoFailure) => CatalogueError::Broken(error.into()),
        _ => of_sqlite(error),
    }
}

fn of_io(error: io::Error) -> CatalogueError {
    match error.raw_os_error() {
        // A link or a directory in its place.
        Some(libc::ELOOP | libc::EISDIR) => CatalogueError::Broken(error.into()),
        _ => CatalogueError::Unwritable(error.into()),
    }
}

fn of_refinery(error: refinery::Error) -> CatalogueError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut unwritable = false;
    while let Some(known) = cause {
        if let Some(known) = known.downcast_ref::<rusqlite::Error>() {
            let code = known.sqlite_error_code();
            unwritable = matches!(
                code,
                Some(ErrorCode::DatabaseBusy | ErrorCode::DiskFull | ErrorCode::ReadOnly)
            );
        }
        cause = known.source();
    }
    match unwritable {
        true => CatalogueError::Unwritable(error.into()),
        // A table that should be there and is not, or a database of a later version.
        false => CatalogueError::Broken(error.into()),
    }
}

#[cfg(test)]
mod tests;
