//! `[postgres]`: a cache that several machines share, and the words by which it is entered, which nobody is shown.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Postgres {
    /// `postgres://…`, as it was written.
    pub url: Secret,
    /// Where the URL has none.
    pub password: Option<Secret>,
    pub password_file: Option<PathBuf>,
    /// Sessions of each worker.
    pub connections: usize,
    pub tls: Tls,
    /// Certificates that the server's is verified with; none: those of the system.
    pub ca_file: Option<PathBuf>,
    /// Whether tables survive a crash of the database.
    pub logged: bool,
    /// How long a request waits for the database.
    pub deadline: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// As the URL says; where it says nothing, for all hosts but this one.
    Auto,
    On,
    Off,
}

/// Text that is not shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Postgres {
    pub(crate) fn blank() -> Postgres {
        Postgres {
            url: Secret::default(),
            password: None,
            password_file: None,
            connections: 0,
            tls: Tls::Auto,
            ca_file: None,
            logged: false,
            deadline: Duration::ZERO,
        }
    }

    /// The URL for people, without a password.
    pub fn shown(&self) -> String {
        masked(self.url.reveal())
    }

    /// Finds the password where the URL has none. The error says what cannot be read.
    pub(super) fn find_password(&mut self) -> Result<(), String> {
        let read = |path: PathBuf| match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(Secret::new(text.trim_end_matches(['\r', '\n'])))),
            Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
        };
        let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let credential = variable("CREDENTIALS_DIRECTORY")
            .map(|path| PathBuf::from(path).join("postgres-password"))
            .filter(|path| path.exists());
        self.password = match self.password_file.clone().or(credential) {
            Some(path) => read(path)?,
            None => variable("PGPASSWORD").map(Secret::new),
        };
        Ok(())
    }
}

/// Whether that is the URL of a database.
pub(super) fn is_url(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

/// Whether a password seems to go beyond the place that it has: a character in it would have to be encoded.
pub(super) fn is_ambiguous(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let behind_host = rest.find(['/', '?', '#']).map(|at| &rest[at..]);
    behind_host.is_some_and(|text| text.contains('@'))
}

/// A URL with `***` in the place of passwords.
pub(super) fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (before, query) = match rest.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (rest, None),
    };
    let before = match before.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) => format!("{user}:***@{host}"),
            None => format!("{user}@{host}"),
        },
        None => before.to_owned(),
    };
    let Some(query) = query else {
        return format!("{scheme}://{before}");
    };
    let parameters = query.split('&').map(|one| match one.split_once('=') {
        Some((name, _)) if name.eq_ignore_ascii_case("password") => format!("{name}=***"),
        _ => one.to_owned(),
    });
    let parameters: Vec<String> = parameters.collect();
    format!("{scheme}://{before}?{}", parameters.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        for (url, shown) in [
            ("postgres://u@h/db", "postgres://u@h/db"),
            ("postgres://u:p@w:x@h:5/db", "postgres://u:***@h:5/db"),
            (
                "postgres:///db?host=/run&password=p",
                "postgres:///db?host=/run&password=***",
            ),
            ("postgresql://u:@h", "postgresql://u:***@h"),
        ] {
            assert_eq!(masked(url), shown);
        }
        for (url, is) in [
            ("postgres://u:p%40@h/db?host=/run", false),
            ("postgres://u:p@w@h", false),
            ("postgres://u:p/w@h/db", true),
            ("postgres://u:p?w@h/db", true),
            ("postgres://u:p#w@h", true),
        ] {
            assert_eq!(is_ambiguous(url), is, "{url}");
        }
        let postgres = Postgres {
            url: Secret::new("postgres://u:sesame@h/db"),
            password: Some(Secret::new("sesame")),
            ..Postgres::blank()
        };
        assert!(!format!("{postgres:?}{}", postgres.shown()).contains("sesame"));
    }
}
