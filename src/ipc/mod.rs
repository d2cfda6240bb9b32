//! Messages between the master and its children, with sockets attached.
//!
//! `message` is pure: values to octets and back. `channel` moves those octets and the descriptors that belong to
//! them. Neither knows what a message is good for: the master and the worker do.

mod channel;
mod message;

pub use channel::{Channel, Received, RecvError, SendError};
pub use message::{
    MAX_BYTES, MAX_DESCRIPTORS, MAX_MESSAGE, MAX_PARTS, Message, MessageError, Offer, Returned,
    ToMaster, ToWorker,
};
