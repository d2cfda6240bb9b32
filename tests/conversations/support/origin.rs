//! A scripted origin server: a closure says what each request gets; every request is remembered.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::DEADLINE;
use super::client::find;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// Request line and field lines.
    pub head: String,
    /// Content, decoded.
    pub body: Vec<u8>,
    /// Which connection it came on, from 0, and which request it was there, from 0.
    pub connection: usize,
    pub number: usize,
}

impl Request {
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
}

#[derive(Clone)]
pub struct Origin {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Origin {
    /// Answers each request with the octets that `script` returns; an empty answer closes the connection.
    pub fn start(script: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Origin {
        Origin::conversing(move |request, stream| {
            let answer = script(request);
            stream.write_all(&answer).is_ok() && !answer.is_empty()
        })
    }

    /// Hands each request and its connection to `script`, which says whether the connection goes on.
    pub fn conversing(
        script: impl Fn(&Request, &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Origin {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let address = Origin::raw(move |mut stream, connection| {
            let mut buffer = Vec::new();
            let mut number = 0;
            while let Some(request) = read_request(&mut stream, &mut buffer, connection, number) {
                seen.lock().unwrap().push(request.clone());
                number += 1;
                if !script(&request, &mut stream) {
                    return;
                }
            }
        });
        Origin { address, requests }
    }

    /// Hands each bare connection to `script`.
    pub fn raw(script: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { return };
                let _ = stream.set_nodelay(true);
                let _ = stream.set_read_timeout(Some(DEADLINE));
                let script = script.clone();
                std::thread::spawn(move || script(stream, connection));
            }
        });
        address
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT/path`
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// How many requests named this target.
    pub fn count(&self, target: &str) -> usize {
        self.requests()
            .iter()
            .filter(|request| request.target == target)
            .count()
    }
}

/// A 200 with these field lines (each ending in CRLF) and this content.
pub fn ok(fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    answer("200 OK", fields, body)
}

pub fn answer(status: &str, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut octets = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{fields}\r\n",
        body.len()
    )
    .into_bytes();
    octets.extend_from_slice(body);
    octets
}

/// None at the end of the connection.
fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    connection: usize,
    number: usize,
) -> Option<Request> {
    let end = loop {
        if let Some(at) = find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
        fill(stream, buffer)?;
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end);
    let mut words = head.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut request = Request {
        method,
        target,
        head,
        body: Vec::new(),
        connection,
        number,
    };
    let expects = request.field("expect").is_some();
    if request.field("transfer-encoding").is_some() {
        if expects {
            return Some(request);
        }
        loop {
            let at = loop {
                if let Some(at) = find(buffer, b"\r\n") {
                    break at;
                }
                fill(stream, buffer)?;
            };
            let size = usize::from_str_radix(std::str::from_utf8(&buffer[..at]).ok()?, 16).ok()?;
            while buffer.len() < at + 2 + size + 2 {
                fill(stream, buffer)?;
            }
            request
                .body
                .extend_from_slice(&buffer[at + 2..at + 2 + size]);
            buffer.drain(..at + 2 + size + 2);
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = request
        .field("content-length")
        .and_then(|length| length.parse::<usize>().ok())
    {
        // A script that is asked to expect reads what has not come along itself.
        if expects {
            let here = buffer.len().min(length);
            request.body = buffer.drain(..here).collect();
            return Some(request);
        }
        while buffer.len() < length {
            fill(stream, buffer)?;
        }
        request.body = buffer.drain(..length).collect();
    }
    Some(request)
}

fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut octets = [0; 16 * 1024];
    match stream.read(&mut octets) {
        Ok(0) | Err(_) => None,
        Ok(read) => {
            buffer.extend_from_slice(&octets[..read]);
            Some(())
        }
    }
}
