//! What is wrong with a configuration, where, and what would be right.

use std::fmt;
use std::path::PathBuf;

/// A configuration that cannot be used. Its text names the place (file and line, or the flag), the key,
/// and what is allowed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    place: Place,
    key: String,
    message: String,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file, and the line in it (from 1; 0 where the whole file is meant).
    File(PathBuf, usize),
    /// A flag of the command line.
    Flag(String),
    /// Settings that are each right but do not go together.
    Whole,
}

impl Error {
    pub(super) fn new(place: Place, key: impl Into<String>, message: impl Into<String>) -> Self {
        Error {
            place,
            key: key.into(),
            message: message.into(),
        }
    }

    /// The setting at fault, empty where the text itself cannot be read.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(path, 0) => write!(f, "{}: ", path.display())?,
            Place::File(path, line) => write!(f, "{}:{line}: ", path.display())?,
            Place::Flag(flag) => write!(f, "{flag}: ")?,
            Place::Whole => {}
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
