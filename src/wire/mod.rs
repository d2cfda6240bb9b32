//! Octets on their way: a socket that registers with the runtime only when it has to wait, the pace a peer
//! must keep, buffers that an idle connection does not own, and frames between processes.

pub mod buffers;
pub mod frames;
pub mod inbox;
pub mod pace;
pub mod stream;

pub use frames::{Frame, Frames};
pub use inbox::Inbox;
pub use pace::Pace;
pub use stream::Stream;

/// Why octets stopped moving.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The peer ended or reset the connection, or the kernel refused.
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// The peer kept the connection but not the pace.
    #[error("the peer stalled")]
    Stalled,
}
