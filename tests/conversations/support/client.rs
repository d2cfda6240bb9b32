//! A raw client: octets out, octets and whole responses in.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::DEADLINE;

pub struct Client {
    pub stream: TcpStream,
    /// Octets received and not yet understood.
    buffer: Vec<u8>,
}

/// One response, its content decoded.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// Status line and field lines as they came.
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    /// The values of all lines of a field, comma-joined.
    pub fn field(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .head
            .split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub fn has(&self, name: &str, text: &str) -> bool {
        self.field(name).is_some_and(|value| {
            value
                .to_ascii_lowercase()
                .contains(&text.to_ascii_lowercase())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether Cache-Status says that it came from the cache.
    pub fn is_hit(&self) -> bool {
        self.has("cache-status", "; hit")
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client {
            stream,
            buffer: Vec::new(),
        }
    }

    pub fn send(&mut self, octets: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(octets.as_ref()).unwrap();
        self
    }

    /// Sends as much as the peer takes; a peer that has closed is no failure.
    pub fn send_anyway(&mut self, octets: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.stream.write_all(octets.as_ref());
        self
    }

    /// `GET target` with Host, and the answer.
    pub fn get(&mut self, target: &str) -> Response {
        self.get_with(target, "")
    }

    /// `GET target` with further field lines (each ending in CRLF), and the answer.
    pub fn get_with(&mut self, target: &str, fields: &str) -> Response {
        let host = target
            .strip_prefix("http://")
            .map_or("a.example", |rest| rest.split('/').next().unwrap());
        self.send(format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"
        ));
        self.response()
    }

    /// Ends the connection with a reset instead of in order.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    pub fn shutdown_write(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// The next response (interim ones are responses, too) to a request that was not HEAD.
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    pub fn response_to(&mut self, method: &str) -> Response {
        self.try_response_to(method)
            .unwrap_or_else(|why| panic!("no whole response: {why}"))
    }

    /// The error says how the response fell short.
    pub fn try_response_to(&mut self, method: &str) -> Result<Response, String> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if self.fill()? == 0 {
                return Err(format!(
                    "the connection ended; got {:?}",
                    String::from_utf8_lossy(&self.buffer)
                ));
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end);
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("status in {head:?}"));
        let mut response = Response {
            status,
            head,
            body: Vec::new(),
        };
        if method == "HEAD"
            || status < 200
            || status == 204
            || status == 304
            || method == "CONNECT" && status == 200
        {
            return Ok(response);
        }
        response.body = if response.has("transfer-encoding", "chunked") {
            self.chunked()?
        } else if let Some(length) = response.field("content-length") {
            self.exactly(length.parse().unwrap())?
        } else {
            self.until_end()?
        };
        Ok(response)
    }

    fn chunked(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(line.split(';').next().unwrap(), 16)
                .map_err(|_| format!("chunk size {line:?}"))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(size)?);
            assert_eq!(self.line()?, "", "after a chunk's data");
        }
    }

    /// One line without its end.
    pub fn line(&mut self) -> Result<String, String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 2);
                return Ok(line);
            }
            if self.fill()? == 0 {
                return Err("the connection ended within a line".into());
            }
        }
    }

    pub fn exactly(&mut self, length: usize) -> Result<Vec<u8>, String> {
        while self.buffer.len() < length {
            if self.fill()? == 0 {
                return Err(format!(
                    "the connection ended {} octets early",
                    length - self.buffer.len()
                ));
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn until_end(&mut self) -> Result<Vec<u8>, String> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Everything up to the end of the connection, however it ends.
    pub fn rest(&mut self) -> Vec<u8> {
        let _ = self.until_end().map(|octets| self.buffer = octets);
        std::mem::take(&mut self.buffer)
    }

    /// Whether the peer has ended the connection and nothing is left of it.
    pub fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && matches!(self.fill(), Ok(0) | Err(_))
    }

    fn fill(&mut self) -> Result<usize, String> {
        let mut octets = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut octets) {
                Ok(read) => {
                    self.buffer.extend_from_slice(&octets[..read]);
                    return Ok(read);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Err("nothing came within the deadline".into());
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

pub fn find(octets: &[u8], wanted: &[u8]) -> Option<usize> {
    octets
        .windows(wanted.len())
        .position(|window| window == wanted)
}
