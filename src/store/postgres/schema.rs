//! The tables: made and brought up to date, by one process at a time. A schema that a newer baton has made is left alone.

use super::server::Server;
use super::trouble;
use crate::config::Postgres;

mod migrations {
    refinery::embed_migrations!("migrations/postgres");
}

/// Where it is written down which migrations have been made.
const HISTORY: &str = "baton_schema";
/// Of the lock that migrations are made under.
const LOCK: i64 = 422_541_815_663;
/// Tables that are logged or not, and the sign by which that shows.
const TABLES: [&str; 6] = [
    "baton_counter",
    "baton_objects",
    "baton_pieces",
    "baton_orphans",
    "baton_changes",
    "baton_fetches",
];

/// For people.
const VIEWS: [&str; 3] = [
    "baton_cache_objects",
    "baton_cache_sites",
    "baton_cache_oldest",
];

#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error(
        "the tables have been made by a newer baton (their version is {found}, this one knows {known}): use that one, or another database or schema"
    )]
    Newer { found: i32, known: i32 },
    #[error("there are no tables of baton's, or not all of them: `baton migrate` makes them")]
    Absent,
    #[error(
        "the tables have been made by an older baton (their version is {found}, this one knows {known}): `baton migrate` brings them up to date"
    )]
    Older { found: i32, known: i32 },
    #[error("{}", trouble::said(.0))]
    Database(postgres::Error),
    #[error("{}", said_of_migration(.0))]
    Migration(refinery::Error),
}

impl From<refinery::Error> for SchemaError {
    fn from(error: refinery::Error) -> SchemaError {
        SchemaError::Migration(error)
    }
}

impl SchemaError {
    /// What may help, where it does not say so itself.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            SchemaError::Newer { .. } | SchemaError::Absent | SchemaError::Older { .. } => None,
            SchemaError::Database(error) => Some(trouble::remedy(error)),
            SchemaError::Migration(error) => of_database(error).map(trouble::remedy),
        }
    }
}

/// What the database has said, below what else is said of it.
fn of_database(error: &refinery::Error) -> Option<&postgres::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        source = error.source();
    }
    None
}

/// What it was doing, and what the database has said; once.
fn said_of_migration(error: &refinery::Error) -> String {
    match (error.kind(), of_database(error)) {
        (refinery::error::Kind::Connection(doing, _), Some(said)) => {
            format!("{doing}: {}", trouble::said(said))
        }
        (_, Some(said)) => trouble::said(said),
        _ => error.to_string(),
    }
}

/// What it says is said already: as a source it would be said once more.
impl From<postgres::Error> for SchemaError {
    fn from(error: postgres::Error) -> SchemaError {
        SchemaError::Database(error)
    }
}

/// What the database says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Sessions that others than superusers may have.
    pub connections: i64,
    /// Migrations that have been made now.
    pub made: usize,
}

/// Brings the tables up to date. Blocks.
///
/// Errors: they are newer than this program, or the database cannot be reached or refuses.
pub fn migrate(server: &Server, settings: &Postgres) -> Result<Facts, SchemaError> {
    let mut client = server.connect_blocking()?;
    client.batch_execute("SET statement_timeout = '600s'; SET lock_timeout = '60s'")?;
    // Ends with the session, however that ends.
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK])?;
    let mut runner = migrations::migrations::runner();
    runner.set_migration_table_name(HISTORY);
    let known = known(&runner);
    let found = version(&mut client)?;
    if found > known {
        return Err(SchemaError::Newer { found, known });
    }
    // What is written down says nothing of what somebody has dropped.
    if found > 0 && !is_whole(&mut client)? {
        client.batch_execute(&format!(
            "DROP TABLE {HISTORY}; DROP TABLE IF EXISTS baton_counter CASCADE"
        ))?;
    }
    let made = match found == known && version(&mut client)? == known {
        true => 0,
        false => runner.run(&mut client)?.applied_migrations().len(),
    };
    log_tables(&mut client, settings.logged)?;
    // One that may not be written to is of use as it is.
    let counted = client.query_one("SELECT count(*) FROM baton_counter", &[])?;
    if counted.try_get::<_, i64>(0)? == 0 {
        client.batch_execute(COUNTER)?;
    }
    let facts = client.query_one(
        "SELECT current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint",
        &[],
    )?;
    Ok(Facts {
        connections: facts.try_get(0)?,
        made,
    })
}

/// Whether the tables are there, and this program's. Changes nothing. Blocks.
///
/// Errors: they are not, or the database fails.
pub fn check(client: &mut postgres::Client) -> Result<(), SchemaError> {
    let known = known(&migrations::migrations::runner());
    let found = version(client)?;
    if found > known {
        return Err(SchemaError::Newer { found, known });
    }
    if found == 0 || !is_whole(client)? {
        return Err(SchemaError::Absent);
    }
    if found < known {
        return Err(SchemaError::Older { found, known });
    }
    let counted = client.query_one("SELECT count(*) FROM baton_counter", &[])?;
    match counted.try_get::<_, i64>(0)? {
        0 => Err(SchemaError::Absent),
        _ => Ok(()),
    }
}

/// The last migration that this program has.
fn known(runner: &refinery::Runner) -> i32 {
    let versions = runner.get_migrations().iter().map(|it| it.version());
    versions.max().unwrap_or_default()
}

/// The last migration; 0: none.
fn version(client: &mut postgres::Client) -> Result<i32, postgres::Error> {
    if !exists(client, HISTORY)? {
        return Ok(0);
    }
    let row = client.query_one(&format!("SELECT max(version)::integer FROM {HISTORY}"), &[])?;
    let version: Option<i32> = row.try_get(0)?;
    Ok(version.unwrap_or_default())
}

fn is_whole(client: &mut postgres::Client) -> Result<bool, postgres::Error> {
    for table in TABLES.iter().chain(&VIEWS) {
        if !exists(client, table)? {
            return Ok(false);
        }
    }
    let function = "SELECT to_regproc('baton_store') IS NOT NULL AND to_regproc('baton_purge') IS NOT NULL \
         AND to_regproc('baton_purge_set') IS NOT NULL";
    client.query_one(function, &[])?.try_get(0)
}

fn exists(client: &mut postgres::Client, table: &str) -> Result<bool, postgres::Error> {
    let row = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table])?;
    row.try_get(0)
}

/// Makes tables logged or not, where they are not so.
fn log_tables(client: &mut postgres::Client, logged: bool) -> Result<(), postgres::Error> {
    let wanted = if logged { "p" } else { "u" };
    for table in TABLES {
        let row = client.query_one(
            "SELECT relpersistence::text FROM pg_class WHERE oid = to_regclass($1)",
            &[&table],
        )?;
        let is: String = row.try_get(0)?;
        if is != wanted {
            let kind = if logged { "LOGGED" } else { "UNLOGGED" };
            client.batch_execute(&format!("ALTER TABLE {table} SET {kind}"))?;
        }
    }
    Ok(())
}

/// Makes the row that everything hangs by, if there is none.
/// What was stored under another one is lost with it.
pub const COUNTER: &str = "INSERT INTO baton_counter (incarnation, generation) \
    VALUES ((random() * 9007199254740990)::bigint + 1, (random() * 9007199254740990)::bigint) ON CONFLICT DO NOTHING";
