//! The janitor.

mod board;
pub mod catalogue;
pub mod control;
mod evict;
mod ledger;
pub mod operations;
pub mod protocol;
