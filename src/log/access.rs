//! The access log of one worker: lines collected in memory and appended together.
//!
//! The caller says when to write (`flush`): at its timer's tick and before it ends. It never blocks a request
//! on a slow formatter: a line is formatted straight into the buffer.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use super::format::{Record, Recurring};
use crate::config::{self, AccessFormat};

/// Octets after which a line goes out without waiting for the tick.
const FULL: usize = 64 * 1024;

pub struct AccessLog {
    format: AccessFormat,
    path: Option<PathBuf>,
    file: Option<File>,
    lines: Vec<u8>,
    recurring: Recurring,
    /// Whether the last write failed: said once, not a line each time.
    failing: bool,
}

impl AccessLog {
    /// `access-WORKER.log` in the configured directory; without a directory nothing is kept.
    pub fn open(worker: usize, config: &config::Log) -> anyhow::Result<AccessLog> {
        let wanted = config.access != AccessFormat::Off;
        let path = config
            .directory
            .as_ref()
            .filter(|_| wanted)
            .map(|d| d.join(format!("access-{worker}.log")));
        let file = path.as_deref().map(super::open_append).transpose()?;
        Ok(AccessLog {
            format: config.access,
            path,
            file,
            lines: Vec::new(),
            recurring: Recurring::default(),
            failing: false,
        })
    }

    /// Adds one line. Whether it waited for the file, as there were enough of them.
    pub fn add(&mut self, record: &Record<'_>) -> bool {
        if self.file.is_none() {
            return false;
        }
        match self.format {
            AccessFormat::Combined => record.combined(&mut self.recurring, &mut self.lines),
            AccessFormat::Squid => record.squid(&mut self.recurring, &mut self.lines),
            AccessFormat::Json => record.json(&mut self.lines),
            AccessFormat::Off => {}
        }
        let is_full = self.lines.len() >= FULL;
        if is_full {
            self.flush();
        }
        is_full
    }

    /// Appends what has been collected. Lines that cannot be written are lost, and that is logged once.
    pub fn flush(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        if let Some(file) = &mut self.file {
            match file.write_all(&self.lines) {
                Ok(()) => self.failing = false,
                Err(error) if !self.failing => {
                    self.failing = true;
                    log::error!("access log lines are being lost: {error}");
                }
                Err(_) => {}
            }
        }
        self.lines.clear();
    }

    /// Writes what has been collected to the old file and goes on in a new one of the same name.
    pub fn reopen(&mut self) {
        self.flush();
        let Some(path) = &self.path else { return };
        match super::open_append(path) {
            Ok(file) => self.file = Some(file),
            Err(error) => {
                log::error!("cannot reopen the access log, keeping the old file: {error:#}")
            }
        }
    }
}
