//! Something that goes wrong for a while: said once when it begins and once when it ends.

use crate::sys::clock::monotonic_ms;

#[derive(Debug, Default)]
pub(super) struct Trouble {
    since: Option<u64>,
}

impl Trouble {
    pub(super) fn begins(&mut self, what: std::fmt::Arguments<'_>) {
        if self.since.is_none() {
            self.since = Some(monotonic_ms());
            log::warn!("{what}; it is tried again");
        }
    }

    pub(super) fn ends(&mut self, what: std::fmt::Arguments<'_>) {
        if let Some(since) = self.since.take() {
            log::info!("{what}, after {} s", (monotonic_ms() - since) / 1000);
        }
    }
}
