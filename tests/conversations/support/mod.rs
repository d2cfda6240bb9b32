//! The three parties of a conversation.

pub mod baton;
pub mod client;
pub mod documentation;
pub mod ended;
pub mod gate;
pub mod origin;
#[allow(dead_code, reason = "unit tests use the rest")]
pub mod postgres;
pub mod sharing;

use std::time::{Duration, Instant};

pub use baton::Baton;
pub use client::{Client, Response};
pub use documentation::examples;
pub use ended::Ended;
pub use gate::Gate;
pub use origin::{Origin, Request};
pub use postgres::PostgresServer;

/// The longest that any single step of a conversation may take.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Looks again until `check` says something, or the deadline has passed.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < until, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
