//! The janitor.

mod evict;
mod ledger;
