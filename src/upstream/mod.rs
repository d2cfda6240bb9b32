//! Origin servers: names to addresses, addresses to connections, connections kept for the next request.
//!
//! What a connection carries is `worker::exchange`'s business; this module refuses to know requests, but for
//! the one head and the responses' heads that `client` writes and reads.

pub mod client;
pub mod dial;
pub mod dns;
pub mod pool;
pub mod tunnel;

use std::net::SocketAddr;

use crate::access::DenyReason;
use crate::http::body::BodyError;
use crate::http::framing::FramingError;
use crate::http::head::HeadError;

/// Why there is no response from an origin server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the name {0} has no address: {1}")]
    Name(String, String),
    #[error("{0} may not be reached ({1})")]
    Denied(SocketAddr, DenyReason),
    #[error("no connection to {0}: {1}")]
    Connect(String, #[source] std::io::Error),
    #[error("no connection to {0} within the deadline")]
    ConnectTimeout(String),
    #[error("the origin server closed the connection before a whole response head")]
    Closed,
    #[error("the connection to the origin server broke: {0}")]
    Broken(#[source] std::io::Error),
    #[error("no response head from the origin server within the deadline")]
    HeaderTimeout,
    #[error("the response body stalled")]
    BodyStalled,
    #[error("the response's head is malformed: {0}")]
    Head(#[from] HeadError),
    #[error("the response's framing is malformed: {0}")]
    Framing(#[from] FramingError),
    #[error("the response's body is malformed: {0}")]
    Body(#[from] BodyError),
    #[error("the origin server switched protocols unasked")]
    UnaskedSwitch,
    #[error("too many interim responses")]
    TooManyInterim,
}

impl From<crate::wire::Broken> for Error {
    fn from(broken: crate::wire::Broken) -> Self {
        match broken {
            crate::wire::Broken::Io(error) => Error::Broken(error),
            crate::wire::Broken::Stalled => Error::BodyStalled,
        }
    }
}
