//! Octets that have arrived and have not been understood yet.

use std::io;

use super::{Broken, Pace, Stream, buffers};

/// A read buffer with a consumed front. Empty, it owns no memory.
#[derive(Default)]
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
}

impl Inbox {
    /// Begins with octets that arrived elsewhere.
    pub fn with(octets: Vec<u8>) -> Inbox {
        Inbox {
            buffer: octets,
            start: 0,
        }
    }

    pub fn octets(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.start >= self.buffer.len()
    }

    pub fn len(&self) -> usize {
        self.buffer.len().saturating_sub(self.start)
    }

    /// Drops `octets` from the front.
    pub fn consume(&mut self, octets: usize) {
        self.start += octets;
        if self.is_empty() {
            self.buffer.clear();
            self.start = 0;
        }
    }

    /// Gives the memory back if nothing is buffered.
    pub fn release(&mut self) {
        if self.is_empty() && self.buffer.capacity() > 0 {
            self.start = 0;
            buffers::give(&mut self.buffer);
        }
    }

    /// What is buffered, leaving nothing.
    pub fn take(&mut self) -> Vec<u8> {
        let octets = self.octets().to_vec();
        self.consume(octets.len());
        self.release();
        octets
    }

    /// Reads what is there now; `WouldBlock` if nothing; 0 at the end of input.
    pub fn try_fill(&mut self, stream: &Stream, max: usize) -> io::Result<usize> {
        self.make_room(max);
        stream.try_read(&mut self.buffer, max)
    }

    /// Waits for more octets; 0 at the end of input.
    pub async fn fill(&mut self, stream: &Stream, max: usize) -> io::Result<usize> {
        self.make_room(max);
        stream.read(&mut self.buffer, max).await
    }

    /// Like `fill`, but owns no memory as long as nothing has come.
    pub async fn fill_when_ready(&mut self, stream: &Stream, max: usize) -> io::Result<usize> {
        loop {
            let mut ready = stream.readable_alone().await?;
            self.make_room(max);
            match stream.try_read(&mut self.buffer, max) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                    self.release();
                }
                read => {
                    // A short read emptied the socket.
                    if read.as_ref().is_ok_and(|read| *read < max) {
                        ready.clear_ready();
                    }
                    return read;
                }
            }
        }
    }

    /// Like `fill`, from a peer that must keep a pace.
    pub async fn fill_paced(
        &mut self,
        stream: &Stream,
        max: usize,
        pace: &mut Pace,
    ) -> Result<usize, Broken> {
        self.make_room(max);
        stream.read_paced(&mut self.buffer, max, pace).await
    }

    fn make_room(&mut self, max: usize) {
        // An empty one that is too small is exchanged, not enlarged.
        if self.buffer.capacity() < max {
            self.release();
        }
        if self.buffer.capacity() == 0 {
            self.buffer = if max > buffers::ORDINARY {
                buffers::take_large()
            } else {
                buffers::take()
            };
        }
        if self.start > 0 && self.buffer.capacity() - self.buffer.len() < max {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        buffers::give(&mut self.buffer);
    }
}
