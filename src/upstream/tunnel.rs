//! Octets both ways between two sockets until both directions have ended: CONNECT and Upgrade.
//!
//! Each direction has one buffer of fixed size, owned only while octets are in it. The end of one direction is
//! passed on and leaves the other open.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use crate::wire::{Stream, buffers};

/// Octets moved, and why a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub to_origin: u64,
    pub to_client: u64,
    pub why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Both sides ended in order.
    Closed,
    /// Nothing moved for the idle limit.
    Idle,
    /// A side broke.
    Reset,
}

/// Moves octets until both directions end, one breaks, or nothing has moved for `idle`.
pub async fn run(client: &Stream, origin: &Stream, idle: Duration) -> Ended {
    let moved = std::cell::Cell::new((0u64, 0u64, Instant::now()));
    let to_origin = one_way(client, origin, |n| {
        moved.set((moved.get().0 + n, moved.get().1, Instant::now()))
    });
    let to_client = one_way(origin, client, |n| {
        moved.set((moved.get().0, moved.get().1 + n, Instant::now()))
    });
    let both = async {
        let (up, down) = tokio::join!(to_origin, to_client);
        if up.and(down).is_ok() {
            Why::Closed
        } else {
            Why::Reset
        }
    };
    let silence = async {
        loop {
            let quiet_since = moved.get().2;
            tokio::time::sleep_until(quiet_since + idle).await;
            if moved.get().2 == quiet_since {
                return Why::Idle;
            }
        }
    };
    let why = tokio::select! { why = both => why, why = silence => why };
    Ended {
        to_origin: moved.get().0,
        to_client: moved.get().1,
        why,
    }
}

async fn one_way(from: &Stream, to: &Stream, moved: impl Fn(u64)) -> io::Result<()> {
    // A direction that broke ends the other one, too: nobody is left to answer.
    let outcome = copy(from, to, moved).await;
    to.shutdown_write();
    if outcome.is_err() {
        let _ = crate::sys::socket::shutdown_read(from.as_fd());
        let _ = crate::sys::socket::shutdown_read(to.as_fd());
    }
    outcome
}

async fn copy(from: &Stream, to: &Stream, moved: impl Fn(u64)) -> io::Result<()> {
    let mut large = false;
    loop {
        drop(from.readable().await?);
        let (mut buffer, size) = match large {
            true => (buffers::take_large(), buffers::LARGE),
            false => (buffers::take(), buffers::ORDINARY),
        };
        let read = from.read(&mut buffer, size).await?;
        moved(read as u64);
        to.write_all(&buffer).await?;
        moved(0);
        buffers::give(&mut buffer);
        if read == 0 {
            return Ok(());
        }
        // A full buffer tells of a large transfer: fewer, larger calls.
        large = read == size || (large && read > buffers::ORDINARY);
    }
}
