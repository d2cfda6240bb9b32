//! The vocabulary of the master's mind: what happens to it, and what it wants done.
//!
//! Actions are carried out in order and before the next event is told, so a token that an action names is valid
//! while that action runs, and perhaps no longer.

/// One client connection in the master's hands. A token that has been used up never becomes valid again soon: its
/// place is used anew under another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// What the mind must know before it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    pub workers: usize,
    /// The priority of each listener; greater goes first.
    pub priorities: Vec<u8>,
    /// Connections that may wait for a worker.
    pub queue_capacity: usize,
    /// Waiting time that is worth one step of priority.
    pub ageing_ms: u64,
    /// How long a client may stay parked without a request.
    pub idle_timeout_ms: u64,
    /// Requests in progress a worker.
    pub max_active: u32,
    /// How long a graceful stop may take.
    pub shutdown_timeout_ms: u64,
    /// Client sockets that the process may hold at most.
    pub descriptors: usize,
    /// How many of those are kept for sockets that come back; accepting pauses before it touches them.
    pub reserve: usize,
}

/// What a worker said about itself when the master last looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub heartbeat_ms: u64,
    pub active: u32,
    pub held: u32,
    /// Permille of the last 100 ms.
    pub busy: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection has been admitted and its socket is kept; `ready`: there is something to read.
    Arrived {
        token: Token,
        ready: bool,
    },
    /// A parked connection has something to read.
    Readable(Token),
    /// A parked connection has ended.
    HungUp(Token),
    /// The worker owns the offer.
    Claimed {
        worker: usize,
        seq: u64,
    },
    /// The offer was taken back before the worker claimed it.
    Revoked {
        worker: usize,
        seq: u64,
    },
    /// The offer never left: the worker's channel is full, and `retry` says when to try again.
    Unsent {
        worker: usize,
        seq: u64,
        retry: Retry,
    },
    /// The worker's channel has room again.
    Writable {
        worker: usize,
    },
    /// The worker has said that it is ready.
    Ready {
        worker: usize,
    },
    /// The worker said something that no worker says.
    Misbehaved {
        worker: usize,
    },
    /// The worker's process is gone, everything it had sent has been received, and all its claims have been told.
    Died {
        worker: usize,
    },
    /// The worker could not be started.
    SpawnFailed {
        worker: usize,
    },
    /// Accepting failed for want of descriptors or memory.
    AcceptFailed,
    Shutdown(Shutdown),
}

/// When a full channel is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// When the kernel says that it is writable.
    Writable,
    /// After a while: the kernel says nothing when descriptors in flight become fewer.
    Later,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Finish what is queued and in progress.
    Graceful,
    AtOnce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell when the connection becomes readable or ends.
    Watch(Token),
    /// Do not tell any more.
    Unwatch(Token),
    /// Put the offer up in the worker's ring and send a copy of the socket.
    Offer {
        worker: usize,
        seq: u64,
        token: Token,
    },
    /// Take the offer back; answer with `Revoked` or `Claimed`.
    Revoke {
        worker: usize,
        seq: u64,
    },
    /// The worker has it: close our copy and nothing else.
    Release(Token),
    /// End the connection.
    Close(Token, CloseReason),
    /// Answer 503 and end the connection.
    Refuse(Token),
    Spawn {
        worker: usize,
    },
    /// End the process, whatever state it is in; `Died` will follow.
    Kill {
        worker: usize,
        reason: KillReason,
    },
    /// After a death: clear the ring and the load, and let caches know that anything may have changed.
    Bury {
        worker: usize,
    },
    /// Tell the worker that no offer will follow.
    Drain {
        worker: usize,
    },
    /// Tell the worker to exit now.
    Stop {
        worker: usize,
    },
    /// All workers are ready for the first time: accept.
    Serve,
    PauseAccept,
    ResumeAccept,
    CloseListeners,
    /// A worker cannot be started at all.
    GiveUp {
        worker: usize,
    },
    /// All workers are gone: exit.
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer has ended it.
    HungUp,
    /// No request came in time.
    Idle,
    /// Its descriptor is needed for a socket that comes back.
    Room,
    /// The proxy stops.
    Stopping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// It broke the protocol of the channel.
    Misbehaved,
    /// It did not become ready in time.
    NeverReady,
    /// The time for an orderly end is over.
    ShutdownTimeout,
    /// It has not claimed or not come around for too long.
    Stuck,
}

// === impl Token ===

impl Token {
    /// The place in a table that is kept next to the mind's own.
    #[must_use]
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// The highest bit stays clear, for numbers that name something other than a connection.
impl From<Token> for u64 {
    fn from(token: Token) -> u64 {
        u64::from(token.generation) << 32 | u64::from(token.index)
    }
}

impl From<u64> for Token {
    fn from(number: u64) -> Token {
        Token {
            index: number as u32,
            generation: (number >> 32) as u32,
        }
    }
}

impl std::fmt::Display for KillReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            KillReason::Misbehaved => "it broke the protocol of its channel",
            KillReason::NeverReady => "it did not become ready in time",
            KillReason::ShutdownTimeout => "the time for an orderly end is over",
            KillReason::Stuck => "it is stuck",
        })
    }
}
