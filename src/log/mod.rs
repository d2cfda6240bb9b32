//! Each process's own log files: `master.log`, `worker-0.log`, and `access-0.log`.
//!
//! A line is one `write` to a file opened for appending, so that nothing interleaves within a line, and a
//! rotated file is let go of at `reopen`. A disk that is full loses lines, never a request. Callers: the roles.

mod access;
mod format;
mod line;

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::Context;

use crate::config;
pub use access::AccessLog;
pub use format::{OriginUse, Record};

/// The sink of this process's own log, once `init` has run.
static SINK: OnceLock<Arc<Sink>> = OnceLock::new();

/// Sends the records of the `log` macros to `NAME.log` in the configured directory, and to standard error
/// when that is a terminal or there is no directory.
///
/// Errors: the directory cannot be made or the file not opened; the text names it and the remedy.
pub fn init(name: &str, config: &config::Log) -> anyhow::Result<()> {
    let sink = Arc::new(Sink::open(name, config.directory.as_deref())?);
    let mut builder = env_logger::Builder::new();
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| config.level.clone());
    // It tells of each step of what is a matter of course.
    builder.filter_module("refinery_core", log::LevelFilter::Warn);
    // What a database says to each of its connections when it ends them is said once, by the store.
    builder.filter_module("tokio_postgres", log::LevelFilter::Warn);
    builder.parse_filters(&filter);
    builder.target(env_logger::Target::Pipe(Box::new(Shared(sink.clone()))));
    builder.write_style(env_logger::WriteStyle::Never);
    builder.format_timestamp_millis();
    // A second `init` in one process (tests) keeps the first logger.
    let _ = builder.try_init();
    let _ = SINK.set(sink);
    Ok(())
}

/// Lets go of the log file and opens it anew by name (after rotation). A failure keeps the old file and says so.
pub fn reopen() {
    if let Some(sink) = SINK.get()
        && let Err(error) = sink.reopen()
    {
        log::error!("cannot reopen the log, keeping the old file: {error:#}");
    }
}

/// A log file that can be reopened, and the console beside it.
struct Sink {
    file: Mutex<Option<File>>,
    path: Option<PathBuf>,
    console: bool,
}

impl Sink {
    fn open(name: &str, directory: Option<&Path>) -> anyhow::Result<Sink> {
        let path = directory.map(|directory| directory.join(format!("{name}.log")));
        let file = path.as_deref().map(open_append).transpose()?;
        let console = file.is_none() || io::stderr().is_terminal();
        Ok(Sink {
            file: Mutex::new(file),
            path,
            console,
        })
    }

    fn reopen(&self) -> anyhow::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let fresh = open_append(path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        Ok(())
    }
}

/// The handle that env_logger writes through: one `write_all` a record.
struct Shared(Arc<Sink>);

impl Write for Shared {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        if self.0.console {
            let _ = io::stderr().write_all(record);
        }
        if let Some(file) = &mut *self.0.file.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = file.write_all(record);
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens `path` for appending, making its directory if need be.
fn open_append(path: &Path) -> anyhow::Result<File> {
    let remedy = "name another directory with --log-dir DIR";
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(|| {
            format!(
                "cannot make the log directory {}; {remedy}",
                directory.display()
            )
        })?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
        .with_context(|| format!("cannot open the log {}; {remedy}", path.display()))
}
