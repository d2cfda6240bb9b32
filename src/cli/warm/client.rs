//! A client of the proxy: one connection, one GET after the other, each in absolute form (RFC 9112 section 3.2.2).
//!
//! It keeps no content; who wants it takes it as it comes. A connection that has ended between two requests is opened again.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::http::body::Decoder;
use crate::http::connection;
use crate::http::framing::{self, Framing};
use crate::http::head::{Limits, Method, ResponseHead};

const CONNECT: Duration = Duration::from_secs(10);
const PIECE: usize = 64 << 10;

pub struct Client<'a> {
    proxy: SocketAddr,
    /// How long a response may take.
    limit: Duration,
    fields: &'a [(String, String)],
    stream: Option<TcpStream>,
    /// Octets that have come and are not read yet.
    buffer: Vec<u8>,
}

/// A response, but for its content.
pub struct Answer {
    pub head: ResponseHead,
    /// Of the content.
    pub octets: u64,
}

impl<'a> Client<'a> {
    pub fn new(proxy: SocketAddr, limit: Duration, fields: &'a [(String, String)]) -> Client<'a> {
        Client {
            proxy,
            limit,
            fields,
            stream: None,
            buffer: Vec::new(),
        }
    }

    /// `url`: an http URL. Errors: there is no answer, or only a part of one.
    pub fn get(&mut self, url: &str, take: &mut dyn FnMut(&[u8])) -> io::Result<Answer> {
        let kept = self.stream.is_some();
        match self.converse(url, take) {
            // It had been closed while nothing was asked.
            Err(error) if kept && is_closed(&error) && self.buffer.is_empty() => {
                self.stream = None;
                self.converse(url, take)
            }
            answered => answered,
        }
        .inspect_err(|_| self.stream = None)
    }

    fn converse(&mut self, url: &str, take: &mut dyn FnMut(&[u8])) -> io::Result<Answer> {
        let until = Instant::now() + self.limit;
        self.send(url)?;
        let head = loop {
            let head = self.head(until)?;
            if head.status >= 200 {
                break head;
            }
        };
        let framing = framing::of_response(&Method::Get, &head).map_err(invalid)?;
        let octets = self.content(framing, until, take)?;
        if framing == Framing::UntilClose || !connection::persists(head.version, &head.headers) {
            self.stream = None;
        }
        Ok(Answer { head, octets })
    }

    fn send(&mut self, url: &str) -> io::Result<()> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                self.buffer.clear();
                let stream = TcpStream::connect_timeout(&self.proxy, CONNECT)?;
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(self.limit))?;
                self.stream.insert(stream)
            }
        };
        let authority = url.strip_prefix("http://").unwrap_or(url);
        let authority = authority.split(['/', '?']).next().unwrap_or_default();
        let mut request = format!("GET {url} HTTP/1.1\r\nHost: {authority}\r\n");
        for (name, value) in self.fields {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        stream.write_all(request.as_bytes())
    }

    fn head(&mut self, until: Instant) -> io::Result<ResponseHead> {
        let mut head = ResponseHead::new();
        loop {
            let parsed = head.parse(&self.buffer, &Limits::default());
            if let Some(length) = parsed.map_err(invalid)? {
                self.buffer.drain(..length);
                return Ok(head);
            }
            if self.fill(until)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn content(
        &mut self,
        framing: Framing,
        until: Instant,
        take: &mut dyn FnMut(&[u8]),
    ) -> io::Result<u64> {
        let (mut decoder, mut octets) = (Decoder::new(framing), 0);
        loop {
            while !decoder.is_done() && !self.buffer.is_empty() {
                let step = decoder.decode(&self.buffer).map_err(invalid)?;
                let content = self.buffer.get(step.data).unwrap_or_default();
                octets += content.len() as u64;
                take(content);
                self.buffer.drain(..step.consumed);
                if step.consumed == 0 {
                    break;
                }
            }
            if decoder.is_done() {
                return Ok(octets);
            }
            if self.fill(until)? == 0 {
                decoder.end_of_input().map_err(invalid)?;
            }
        }
    }

    fn fill(&mut self, until: Instant) -> io::Result<usize> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let before = self.buffer.len();
        self.buffer.resize(before + PIECE, 0);
        let read = stream.read(&mut self.buffer[before..]);
        self.buffer
            .truncate(before + read.as_ref().map_or(0, |read| *read));
        match read {
            // What a timeout of the socket says.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::ErrorKind::TimedOut.into())
            }
            read => read,
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let closed = [
        BrokenPipe,
        ConnectionAborted,
        ConnectionReset,
        UnexpectedEof,
    ];
    closed.contains(&error.kind())
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
