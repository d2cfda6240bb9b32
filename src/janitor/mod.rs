//! The janitor.

mod catalogue;
mod evict;
mod ledger;
