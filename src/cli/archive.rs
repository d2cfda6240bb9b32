//! The file of an archive, as a command names it: one that is written is there when it is whole, and not before.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Standard input or output.
const STANDARD: &str = "-";

pub(super) struct Archive {
    pub file: File,
    /// Octets of one that is read; 0: nobody knows.
    pub length: u64,
    /// Whether it is standard output.
    pub is_output: bool,
    /// Of one that is written: what it is called meanwhile, and then.
    names: Option<(PathBuf, PathBuf)>,
}

impl Archive {
    /// One that is to be written. Errors: it cannot be, or it would go to a terminal.
    pub fn to(path: &Path) -> anyhow::Result<Archive> {
        if path == Path::new(STANDARD) {
            let output = io::stdout();
            if output.is_terminal() {
                bail!(
                    "an archive is nothing for a terminal: name a file, or send it on with | or >"
                );
            }
            return Ok(Archive {
                file: File::from(output.as_fd().try_clone_to_owned()?),
                length: 0,
                is_output: true,
                names: None,
            });
        }
        // A link stays one, and what is no plain file is written into as it is.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let refused = || format!("{} cannot be written", path.display());
        let is_special = std::fs::metadata(&path).is_ok_and(|facts| !facts.is_file());
        if is_special {
            let file = OpenOptions::new().write(true).open(&path);
            return Ok(Archive {
                file: file.with_context(refused)?,
                length: 0,
                is_output: false,
                names: None,
            });
        }
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".part-{}", std::process::id()));
        let aside = PathBuf::from(aside);
        // It has what private caches have: for its owner alone.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&aside)
            .with_context(refused)?;
        Ok(Archive {
            file,
            length: 0,
            is_output: false,
            names: Some((aside, path)),
        })
    }

    /// One that is there. Errors: it cannot be read.
    pub fn from(path: &Path) -> anyhow::Result<Archive> {
        let file = match path == Path::new(STANDARD) {
            true => File::from(io::stdin().as_fd().try_clone_to_owned()?),
            false => {
                File::open(path).with_context(|| format!("{} cannot be read", path.display()))?
            }
        };
        let facts = file.metadata()?;
        Ok(Archive {
            length: if facts.is_file() { facts.len() } else { 0 },
            file,
            is_output: false,
            names: None,
        })
    }

    /// It is whole.
    pub fn keep(mut self) -> anyhow::Result<()> {
        if let Some((aside, path)) = self.names.take() {
            std::fs::rename(&aside, &path)
                .with_context(|| format!("{} cannot be written", path.display()))?;
        }
        Ok(())
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        if let Some((aside, _)) = &self.names {
            let _ = std::fs::remove_file(aside);
        }
    }
}
