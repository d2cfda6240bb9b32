//! The sockets of clients that wait in the master, by the token's place, and what was read of them elsewhere.
//!
//! Who may have which socket is decided by the mind; here they are only kept, and ended in the ways that are right
//! for a socket that others may have copies of.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::dispatch::Token;
use crate::sys::socket::{recv_now, send_now, shutdown_write};

/// What a client gets that nobody can serve now. One constant, so that it costs one send.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 68\r\n\
    Retry-After: 1\r\n\
    Cache-Control: no-store\r\n\
    Proxy-Status: baton; error=proxy_internal_response\r\n\
    Cache-Status: baton; detail=overloaded\r\n\
    Connection: close\r\n\
    \r\n\
    The proxy has too many requests waiting. Please try again shortly.\r\n";

/// Octets of a refused request that are read, so that closing does not reset the connection under the answer.
const DRAIN: usize = 64 * 1024;

pub(super) struct Connections {
    /// As long as the most connections there ever were at once.
    sockets: Vec<Option<OwnedFd>>,
    /// Only few connections come back with something already read.
    bytes: HashMap<usize, Vec<u8>>,
}

impl Connections {
    pub(super) fn new() -> Connections {
        Connections {
            sockets: Vec::new(),
            bytes: HashMap::new(),
        }
    }

    /// Keeps a socket under a token that has just been given for it.
    pub(super) fn keep(&mut self, token: Token, socket: OwnedFd, bytes: Vec<u8>) {
        let index = token.index();
        if self.sockets.len() <= index {
            self.sockets.resize_with(index + 1, || None);
        }
        if !bytes.is_empty() {
            self.bytes.insert(index, bytes);
        }
        self.sockets[index] = Some(socket);
    }

    pub(super) fn socket(&self, token: Token) -> Option<BorrowedFd<'_>> {
        self.sockets
            .get(token.index())?
            .as_ref()
            .map(OwnedFd::as_fd)
    }

    /// What a worker had read of the next request.
    pub(super) fn bytes(&self, token: Token) -> &[u8] {
        self.bytes.get(&token.index()).map_or(&[], Vec::as_slice)
    }

    /// Closes our copy. Another process has its own and goes on with it.
    pub(super) fn let_go(&mut self, token: Token) {
        self.take(token);
    }

    /// Ends the connection, also where a process that never claimed it still has a copy.
    pub(super) fn end(&mut self, token: Token) {
        if let Some(socket) = self.take(token) {
            // It may be gone already; then there is nothing to end.
            let _ = shutdown_write(socket.as_fd());
        }
    }

    /// Answers 503 as far as the socket takes it at once, then ends the connection.
    pub(super) fn refuse(&mut self, token: Token) {
        let Some(socket) = self.take(token) else {
            return;
        };
        let socket = socket.as_fd();
        let _ = send_now(socket, BUSY);
        let _ = shutdown_write(socket);
        let mut buf = [0; 4096];
        for _ in 0..DRAIN / buf.len() {
            if !matches!(recv_now(socket, &mut buf), Ok(n) if n > 0) {
                return;
            }
        }
    }

    fn take(&mut self, token: Token) -> Option<OwnedFd> {
        if !self.bytes.is_empty() {
            self.bytes.remove(&token.index());
        }
        self.sockets.get_mut(token.index())?.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_constant_answer_has_the_length_it_says() {
        let text = std::str::from_utf8(BUSY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
            "{}",
            body.len()
        );
        assert!(head.contains("Cache-Status: ") && head.contains("Proxy-Status: "));
    }

    #[test]
    fn a_refused_client_reads_the_answer_and_the_end() {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        let mut connections = Connections::new();
        let token = Token::from(5);
        let copy = server.try_clone().unwrap();
        connections.keep(token, server.into(), b"x".to_vec());
        assert_eq!(connections.bytes(token), b"x");
        connections.refuse(token);
        assert!(connections.socket(token).is_none() && connections.bytes(token).is_empty());
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, BUSY);
        drop(copy);
    }

    #[test]
    fn letting_go_does_not_end_what_another_has() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let mut other = server.try_clone().unwrap();
        let mut connections = Connections::new();
        connections.keep(Token::from(0), server.into(), Vec::new());
        connections.let_go(Token::from(0));
        other.write_all(b"alive").unwrap();
        let mut text = [0; 5];
        client.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"alive");
    }
}
