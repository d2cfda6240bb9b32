//! Conversations between a raw client, the real binary, and a scripted origin server, on ephemeral ports.
//!
//! A file is a topic; a test reads like the exchange it checks. Deadlines bound every wait; nothing sleeps.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on ends with the place"
)]

mod support;

mod access;
mod basics;
mod bodies;
mod caching;
mod commands;
mod connect;
mod control;
mod corpora;
mod descriptors;
mod disk;
mod fields;
mod framing;
mod herd;
mod herd_over_workers;
mod in_memory;
mod janitor;
mod large_in_memory;
mod limits;
mod logs;
mod moving;
mod origins;
mod pipelining;
mod postgres;
mod processes;
mod purging;
mod queue;
mod ranges;
mod resume;
mod rfc9111;
mod settings;
mod shutdown;
mod size;
mod sql;
mod stale;
mod start;
mod targets;
mod warm;
