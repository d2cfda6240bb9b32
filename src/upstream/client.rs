//! One connection to an origin server in use: the request's head out, the response's heads in.

use std::net::SocketAddr;
use std::rc::Rc;

use super::Error;
use crate::http::head::{Limits, ResponseHead, Scan};
use crate::wire::{Inbox, Stream, buffers};

/// A connection that carries one exchange. The request's body may still be on its way while the response is read.
pub struct Link {
    /// `host:port`, under which it is kept when idle.
    pub name: Rc<[u8]>,
    /// Shared with the pump of the request's body.
    pub stream: Rc<Stream>,
    pub address: SocketAddr,
    /// Whether it has carried an exchange before.
    pub reused: bool,
    pub inbox: Inbox,
    /// Whether anything of this exchange's response has arrived.
    heard: bool,
}

impl Link {
    pub fn new(name: Rc<[u8]>, stream: Stream, address: SocketAddr, reused: bool) -> Link {
        Link {
            name,
            stream: Rc::new(stream),
            address,
            reused,
            inbox: Inbox::default(),
            heard: false,
        }
    }

    /// Reads one response head, interim ones included.
    ///
    /// Errors: malformed, too large, or the connection ended before the whole head; the caller keeps the deadline.
    pub async fn read_head(&mut self, limits: &Limits) -> Result<ResponseHead, Error> {
        let mut head = ResponseHead::new();
        let mut scan = Scan::default();
        loop {
            if let Some(octets) = head.parse_more(&mut scan, self.inbox.octets(), limits)? {
                self.inbox.consume(octets);
                return Ok(head);
            }
            // A response that is short takes no more of a large buffer than it needs, and a longer one comes with fewer calls;
            // what a first read has left of the head is short.
            let size = match self.inbox.is_empty() {
                true => buffers::LARGE,
                false => buffers::ORDINARY,
            };
            match self.inbox.fill_when_ready(&self.stream, size).await {
                Ok(0) => return Err(Error::Closed),
                Ok(_) => self.heard = true,
                Err(error) => return Err(Error::Broken(error)),
            }
        }
    }

    /// Whether nothing of a response has arrived: a request may then have met the close of an idle connection.
    pub fn is_untouched(&self) -> bool {
        !self.heard
    }

    /// The bare connection, if nobody else uses it and nothing is left on it.
    pub fn into_idle(self) -> Option<(Rc<[u8]>, Stream, SocketAddr)> {
        if !self.inbox.is_empty() {
            return None;
        }
        let stream = Rc::try_unwrap(self.stream).ok()?;
        Some((self.name, stream, self.address))
    }
}
