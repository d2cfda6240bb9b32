//! A database that fails: said once when it begins and once when it is over, and never more often than once a minute.

use std::cell::Cell;
use std::fmt::Display;

use tokio_postgres::error::SqlState;

use crate::sys::clock::monotonic_ms;

/// Between two lines of the log about a beginning.
const LINE_MS: u64 = 60_000;
/// How long nothing may have failed before it is said that all is well.
const QUIET_MS: u64 = 3_000;

#[derive(Debug, Default)]
pub struct Trouble {
    /// Which database it is.
    of: String,
    /// Since when; and when something failed last.
    since: Cell<Option<u64>>,
    last: Cell<u64>,
    /// When a beginning was said, and whether its end is to be.
    said: Cell<Option<u64>>,
    owes_end: Cell<bool>,
}

/// An error with what the server said of it.
pub fn said(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => error.message().to_owned(),
        None => {
            use std::error::Error;
            match error.source() {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            }
        }
    }
}

/// What may help.
pub fn remedy(error: &tokio_postgres::Error) -> &'static str {
    const PASSWORD: &str = "the role must exist (CREATE ROLE … LOGIN); its password may stand in the URL, in the file that postgres.password_file names, or in PGPASSWORD";
    let Some(code) = error.code() else {
        return match said(error).contains("password missing") {
            true => PASSWORD,
            false => {
                "does it run, and may this machine reach it? --cache postgres://USER@HOST/DATABASE names another one"
            }
        };
    };
    match code {
        code if *code == SqlState::INVALID_PASSWORD
            || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION =>
        {
            PASSWORD
        }
        code if *code == SqlState::UNDEFINED_DATABASE => {
            "CREATE DATABASE makes one, and `baton migrate` its tables"
        }
        code if *code == SqlState::TOO_MANY_CONNECTIONS => {
            "max_connections of the server, or the limit of the role, is used up: raise it, or lower postgres.connections"
        }
        code if *code == SqlState::INSUFFICIENT_PRIVILEGE
            || *code == SqlState::INVALID_SCHEMA_NAME =>
        {
            "GRANT lets the role make tables there, or a schema of its own does: CREATE SCHEMA … AUTHORIZATION, and ?options=-csearch_path%3DSCHEMA behind the database"
        }
        code if *code == SqlState::READ_ONLY_SQL_TRANSACTION => {
            "it may not be written to: name the primary, or end default_transaction_read_only"
        }
        _ => "the log of the server may say more",
    }
}

impl Trouble {
    /// `of`: what the database is called.
    pub fn new(of: String) -> Trouble {
        Trouble {
            of,
            ..Trouble::default()
        }
    }

    pub fn began(&self, why: &impl Display) {
        let now = monotonic_ms();
        self.last.set(now);
        if self.since.get().is_none() {
            self.since.set(Some(now));
        }
        if self.said.get().is_none_or(|said| now >= said + LINE_MS) {
            self.said.set(Some(now));
            self.owes_end.set(true);
            log::warn!(
                "the cache in PostgreSQL fails, at {}: {why}; requests go on without it, and it is tried again",
                self.of
            );
        }
    }

    pub fn goes_on(&self) {
        self.last.set(monotonic_ms());
    }

    pub fn is_over(&self) {
        let now = monotonic_ms();
        if now < self.last.get() + QUIET_MS {
            return;
        }
        if let Some(since) = self.since.take()
            && self.owes_end.take()
        {
            let seconds = now.saturating_sub(since) / 1000;
            log::info!("the cache in PostgreSQL works again, after {seconds} s");
        }
    }
}
