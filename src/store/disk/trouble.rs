//! A disk that refuses: said once, not tried with every response, and tried again until it works.

use std::cell::Cell;
use std::io;
use std::path::Path;

use crate::sys::clock::monotonic_ms;

/// How long nothing is stored after a failure.
const PAUSE_MS: u64 = 1_000;
/// How long nothing may have failed before it is said that all is well: a full disk takes a little now and then.
const QUIET_MS: u64 = 5_000;

/// Since when and until when.
#[derive(Debug, Default)]
pub struct Trouble {
    since: Cell<Option<u64>>,
    until: Cell<u64>,
}

impl Trouble {
    pub fn began(&self, path: &Path, error: &io::Error) {
        let now = monotonic_ms();
        self.until.set(now + PAUSE_MS);
        if self.since.get().is_none() {
            self.since.set(Some(now));
            log::warn!(
                "the cache in {} fails: {error}; responses are passed on, and it is tried again",
                path.display()
            );
        }
    }

    pub fn is_over(&self, path: &Path) {
        if monotonic_ms() < self.until.get() + QUIET_MS {
            return;
        }
        if let Some(since) = self.since.take() {
            let seconds = monotonic_ms().saturating_sub(since) / 1000;
            log::info!(
                "the cache in {} works again, after {seconds} s",
                path.display()
            );
        }
    }

    /// Whether it is too early to try again.
    pub fn is_recent(&self) -> bool {
        self.since.get().is_some() && monotonic_ms() < self.until.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_pauses_and_success_ends_it() {
        let trouble = Trouble::default();
        let path = Path::new("/x");
        assert!(!trouble.is_recent());
        trouble.began(path, &io::ErrorKind::StorageFull.into());
        assert!(trouble.is_recent());
        trouble.until.set(monotonic_ms());
        assert!(!trouble.is_recent());
        trouble.is_over(path);
        assert!(trouble.since.get().is_some(), "too early to say");
        trouble.until.set(0);
        trouble.is_over(path);
        assert!(!trouble.is_recent() && trouble.since.get().is_none());
    }
}
