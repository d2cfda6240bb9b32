//! What a worker says about itself: written by that worker alone, read by the master before it offers.
//!
//! The loop that claims sockets must be the one that writes the heartbeat, or a stuck worker would look alive.
//! `active` and `held` rise before a socket is claimed, not after, so that the master never counts it nowhere.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::sys::memory::in_shared_memory;

in_shared_memory! {
    /// One worker's load, in a cache line of its own.
    pub struct LoadRow {
        /// When the worker's loop last came around, monotonic milliseconds.
        pub heartbeat: AtomicU64,
        /// Requests in progress.
        pub active: AtomicU32,
        /// Client connections held, busy or in their grace.
        pub held: AtomicU32,
        /// How much of the last 100 ms the loop worked, in permille.
        pub busy: AtomicU32,
    }
}

impl LoadRow {
    /// Master, after the worker's death: nothing is held, and no heartbeat yet.
    pub fn reset(&self) {
        self.heartbeat.store(0, Relaxed);
        self.active.store(0, Relaxed);
        self.held.store(0, Relaxed);
        self.busy.store(0, Relaxed);
    }
}
