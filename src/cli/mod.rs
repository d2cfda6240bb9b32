//! The command line: what the user typed, turned into `config::Sources`, and the commands that print.
//!
//! It starts nothing itself but the master; it reads no setting and knows no default (`config` does).

mod flags;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};

use crate::config::{self, Launch, Sources};
use crate::roles;
use flags::{Cli, Command};

/// Runs the command that the process's arguments name.
///
/// Returns the exit code: 0 done, 1 the configuration or the start failed (the error says why), 2 wrong usage.
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
        } => {
            print!("{}", config::shipped());
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { file, common, .. } => {
            let mut sources = common.sources(None, None);
            sources.file = Some(file_or_standard(file)?);
            print!("{}", config::effective(&sources.load()?));
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "baton", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { directory } => man(directory),
    }
}

fn start(sources: Sources) -> anyhow::Result<ExitCode> {
    let config = sources.load()?;
    Err(roles::become_master(&Launch::new(config, sources)))
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
    match directory {
        Some(directory) => clap_mangen::generate_to(Cli::command(), &directory)
            .with_context(|| format!("cannot write man pages to {}", directory.display()))?,
        None => clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?,
    }
    Ok(ExitCode::SUCCESS)
}
