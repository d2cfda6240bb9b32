//! Where a request may go: loops today, rules and failover as they come. Pure.

pub mod loops;
