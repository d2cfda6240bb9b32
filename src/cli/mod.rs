//! The command line: what the user typed, turned into `config::Sources`, and the commands that print.
//!
//! It starts nothing itself but the master; it reads no setting and knows no default (`config` does).

mod archive;
mod cache;
mod flags;
mod tables;
mod warm;
mod whereabouts;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};

use crate::config::{self, Launch, Sources};
use crate::janitor::protocol::Request;
use crate::{janitor, roles};
use archive::Archive;
use flags::{CacheAction, CacheCommand, Cli, Command};

/// Runs the command that the process's arguments name.
///
/// Returns the exit code: 0 done, 1 the configuration or the start failed (the error says why), 2 wrong usage; `cache`
/// has others as well.
pub fn run() -> anyhow::Result<ExitCode> {
    // A hidden role (master, worker) is no command: it is this binary executing itself again.
    if let Some(role) = roles::named_by_title() {
        return roles::run(&role);
    }
    match Cli::parse().command {
        Command::Forward(common) => start(common.sources(Some(config::Mode::Forward), None)),
        Command::Reverse { to, common } => {
            start(common.sources(Some(config::Mode::Reverse), Some(&to)))
        }
        Command::Serve { file, common } => {
            let mut sources = common.sources(None, None);
            sources.file = Some(file_or_standard(file)?);
            start(sources)
        }
        Command::Check {
            print_defaults: true,
            ..
        } => print(config::shipped().as_bytes()),
        Command::Check { file, common, .. } => {
            let mut sources = common.sources(None, None);
            sources.file = Some(file_or_standard(file)?);
            print(config::effective(&sources.load()?).as_bytes())
        }
        Command::Migrate { cache, file } => migrate(cache, file),
        Command::Cache(CacheCommand { action, of }) => match action {
            CacheAction::Ask(question) => cache::run(&cache::request(&question), None, &of),
            CacheAction::Export { archive } => {
                let archive = Archive::to(&archive)?;
                cache::run(&Request::Export, Some(archive), &of)
            }
            CacheAction::Import { archive } => {
                let archive = Archive::from(&archive)?;
                cache::run(&Request::Import, Some(archive), &of)
            }
            CacheAction::Warm(command) => warm::run(&command, of.json),
        },
        Command::Explain(command) => cache::run(&cache::explain(&command), None, &command.of),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "baton", &mut script);
            print(&script)
        }
        Command::Man { directory } => man(directory),
    }
}

fn start(sources: Sources) -> anyhow::Result<ExitCode> {
    let config = sources.load()?;
    if config.cache.store == config::StoreKind::Postgres {
        prepare(&config)?;
    }
    Err(roles::become_master(&Launch::new(config, sources)))
}

fn migrate(cache: Option<String>, file: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let file = match (&cache, file) {
        (Some(_), file) => file,
        (None, file) => Some(file_or_standard(file)?),
    };
    let set = cache.map(|value| ("--cache".to_owned(), "cache.store".to_owned(), value));
    let sources = Sources {
        file,
        listen: Vec::new(),
        mode: Some(config::Mode::Forward),
        set: set.into_iter().collect(),
    };
    let config = sources.load()?;
    if config.cache.store != config::StoreKind::Postgres {
        anyhow::bail!(
            "only a cache in PostgreSQL has tables to be made: --cache postgres://USER@HOST/DATABASE names one"
        );
    }
    let facts = janitor::postgres::prepare(&config.postgres).context("the cache in PostgreSQL")?;
    let shown = config.postgres.shown();
    let said = match facts.made {
        0 => format!("{shown}: the tables are up to date\n"),
        made => format!("{shown}: {made} migrations made\n"),
    };
    print(said.as_bytes())
}

/// Makes the tables of a cache in PostgreSQL ready. What does not answer now is tried again by the janitor.
///
/// Errors: they are those of a newer baton, or the settings cannot be used.
fn prepare(config: &config::Config) -> anyhow::Result<()> {
    use janitor::postgres::{Newer, prepare, shortage};
    let said = match prepare(&config.postgres) {
        Ok(facts) => shortage(&config.postgres, config.workers, &facts),
        Err(error) if error.is::<Newer>() => return Err(error),
        Err(error) => Some(format!("{error:#}; it is tried again")),
    };
    if let Some(said) = said {
        eprintln!("baton: the cache in PostgreSQL: {said}");
    }
    Ok(())
}

/// `./proxy.conf`, then `/etc/baton/proxy.conf`.
fn file_or_standard(file: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(file) = file {
        return Ok(file);
    }
    const STANDARD: [&str; 2] = ["proxy.conf", "/etc/baton/proxy.conf"];
    let found = STANDARD
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists());
    found.context(
        "neither ./proxy.conf nor /etc/baton/proxy.conf exists: name the file with -c FILE",
    )
}

fn man(directory: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return print(&page);
    };
    clap_mangen::generate_to(Cli::command(), &directory)
        .with_context(|| format!("cannot write man pages to {}", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// To standard output. A reader that has had enough, as `head` does, is no failure.
fn print(text: &[u8]) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
