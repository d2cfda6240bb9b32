//! A database that fails: said once when it begins and once when it is over, and never more often than once a minute.

use std::cell::Cell;
use std::fmt::Display;

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
