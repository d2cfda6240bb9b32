//! HTTP on the control socket: one request a connection, answered in JSON, so that `curl --unix-socket` will do.
//!
//! What there is to be asked is `resources`; here are the octets. `control` calls it for a connection that does not begin as
//! its own protocol does. It serves nobody who comes from a web page, and keeps no connection.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::resources::{self, Asked, Refusal};
use super::{Answer, REQUEST_TIME};
use crate::http::framing::{self, Framing};
use crate::http::head::write_status_line;
use crate::http::page::phrase;
use crate::http::{
    Authority, Decoder, Encoder, Headers, Limits, Method, RequestHead, Scan, TargetUri, Version,
    date,
};
use crate::janitor::operations::NotHere;
use crate::janitor::protocol::{Done, Reply, Request};
use crate::store::archive::ArchiveError;
use crate::sys::clock::unix_seconds;

/// Octets of a request's body.
const MAX_BODY: usize = 64 << 10;
/// Lines of a list are sent in pieces of at least so many octets.
const PIECE: usize = 16 << 10;
const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const ARCHIVE: &str = "application/octet-stream";

/// What is answered instead of what was asked for.
struct Refused {
    status: u16,
    why: String,
    fields: Headers,
    /// Beside the reason.
    resources: Option<Value>,
}

/// Reads a request, has it answered, and ends the connection. `begun`: what of it has been read already.
pub(super) fn serve(stream: &UnixStream, begun: &[u8], answer: &Answer) -> io::Result<()> {
    let mut incoming = Incoming {
        stream,
        until: Instant::now() + REQUEST_TIME,
        buffer: begun.to_vec(),
        archive: None,
    };
    let mut head = RequestHead::new();
    let asked = incoming.read(&mut head)?;
    let mut out = Outgoing::new(stream, &head);
    match asked {
        Ok(Asked::Index) => out.whole(200, &json!({ "resources": resources::index() }))?,
        Ok(Asked::Request(Request::Export)) => export(answer, &mut out)?,
        Ok(Asked::Request(Request::Import)) => import(answer, &mut incoming, &mut out)?,
        Ok(Asked::Request(request)) => perform(&request, answer, &mut out)?,
        Err(refused) => out.refuse(refused)?,
    }
    end(stream)
}

/// For whom there is no room.
pub(super) fn refuse_crowd(stream: &UnixStream, why: &str) -> io::Result<()> {
    let mut refused = Refused::new(503, why);
    refused.fields.push("Retry-After", b"1");
    Outgoing::new(stream, &RequestHead::new()).refuse(refused)?;
    end(stream)
}

/// An end that takes nothing away from what was sent: a socket that is closed with something unread is a reset.
fn end(stream: &UnixStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let most = (MAX_BODY + Limits::default().max_bytes) as u64;
    let _ = io::copy(&mut stream.take(most), &mut io::sink());
    Ok(())
}

// === the request

struct Incoming<'a> {
    stream: &'a UnixStream,
    until: Instant,
    /// What has come and is not dealt with.
    buffer: Vec<u8>,
    /// Of a body that is read while it is dealt with.
    archive: Option<Decoder>,
}

impl Incoming<'_> {
    /// Errors: it does not come, or not to its end; nobody is there who wants to know.
    fn read(&mut self, head: &mut RequestHead) -> io::Result<Result<Asked, Refused>> {
        let (limits, mut scan) = (Limits::default(), Scan::default());
        let length = loop {
            match head.parse_more(&mut scan, &self.buffer, &limits) {
                Ok(Some(length)) => break length,
                Ok(None) => self.more()?,
                Err(error) => {
                    let why = error.to_string();
                    return Ok(Err(Refused::new(error.status(), why)));
                }
            }
        };
        self.buffer.drain(..length);
        // A program has no origin, and whoever has one speaks for a page that may not know what is kept here.
        if head.headers.contains("origin") {
            let why = "this is for programs, not for web pages: there is an Origin field";
            return Ok(Err(Refused::new(403, why)));
        }
        // HTTP/1.0 knows no Host, and what is in it makes no difference here.
        let nobody = Authority::parse(b"baton").ok();
        let uri = match TargetUri::of(head, nobody.as_ref()) {
            Ok(uri) => uri,
            Err(error) => return Ok(Err(Refused::new(400, error.to_string()))),
        };
        let framing = match framing::of_request(head) {
            Ok(framing) => framing,
            Err(error) => return Ok(Err(Refused::new(error.status(), error.to_string()))),
        };
        let body = match self.body(head, framing)? {
            Ok(body) => body,
            Err(refused) => return Ok(Err(refused)),
        };
        let asked = resources::read(&head.method, &uri.path_and_query, &body);
        Ok(asked.map_err(Refused::from))
    }

    fn body(
        &mut self,
        head: &RequestHead,
        framing: Framing,
    ) -> io::Result<Result<Vec<u8>, Refused>> {
        let too_large = || Refused::new(413, format!("a body has at most {MAX_BODY} octets"));
        let mut decoder = Decoder::new(framing);
        if resources::takes_archive(&head.method, &head.target) {
            self.go_on(head, &decoder)?;
            self.archive = Some(decoder);
            return Ok(Ok(Vec::new()));
        }
        if decoder
            .remaining()
            .is_some_and(|left| left > MAX_BODY as u64)
        {
            return Ok(Err(too_large()));
        }
        self.go_on(head, &decoder)?;
        let mut body = Vec::new();
        while !decoder.is_done() {
            let step = match decoder.decode(&self.buffer) {
                Ok(step) => step,
                Err(error) => return Ok(Err(Refused::new(400, error.to_string()))),
            };
            let data = self.buffer.get(step.data).unwrap_or_default();
            if body.len() + data.len() > MAX_BODY {
                return Ok(Err(too_large()));
            }
            body.extend_from_slice(data);
            self.buffer.drain(..step.consumed);
            if step.consumed == 0 && !step.done {
                self.more()?;
            }
        }
        Ok(Ok(body))
    }

    fn go_on(&self, head: &RequestHead, decoder: &Decoder) -> io::Result<()> {
        // RFC 9110 10.1.1: "Upon receiving an HTTP/1.1 (or later) request that has a method, target URI, and complete header
        // section that contains a 100-continue expectation and indicates that request content will follow, an origin server
        // MUST send either [...] an immediate response with a final status code [...] or an immediate 100 (Continue)"
        let expects = head.headers.has_token("expect", "100-continue");
        if expects && head.version == Version::Http11 && !decoder.is_done() {
            let mut stream = self.stream;
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        Ok(())
    }

    fn more(&mut self) -> io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut octets = [0; 4096];
        let mut stream = self.stream;
        match stream.read(&mut octets)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.buffer
                    .extend_from_slice(octets.get(..read).unwrap_or_default());
                Ok(())
            }
        }
    }
}

/// The archive in the body of a request, which may take as long as it likes while it comes.
struct Body<'a, 'b> {
    incoming: &'a mut Incoming<'b>,
    decoder: Decoder,
    /// Octets of it that lie ready, at the beginning of what has come, and of the framing behind them.
    ready: usize,
    framing: usize,
}

impl Read for Body<'_, '_> {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        while self.ready == 0 {
            self.incoming
                .buffer
                .drain(..std::mem::take(&mut self.framing));
            if self.decoder.is_done() {
                return Ok(0);
            }
            let step = self
                .decoder
                .decode(&self.incoming.buffer)
                .map_err(io::Error::other)?;
            self.incoming.buffer.drain(..step.data.start);
            self.ready = step.data.len();
            self.framing = step.consumed - step.data.end;
            if step.consumed == 0 && !step.done {
                self.incoming.until = Instant::now() + REQUEST_TIME;
                self.incoming.more()?;
            }
        }
        let length = self.ready.min(octets.len());
        let ready = self.incoming.buffer.drain(..length);
        octets
            .iter_mut()
            .zip(ready)
            .for_each(|(to, from)| *to = from);
        self.ready -= length;
        Ok(length)
    }
}

impl Write for Body<'_, '_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Refused {
    fn new(status: u16, why: impl Into<String>) -> Refused {
        Refused {
            status,
            why: why.into(),
            fields: Headers::new(),
            resources: None,
        }
    }

    fn of(error: &anyhow::Error) -> Refused {
        let status = if error.is::<NotHere>() {
            501
        } else if error.is::<ArchiveError>() {
            400
        } else {
            500
        };
        Refused::new(status, format!("{error:#}"))
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        let why = refusal.to_string();
        match refusal {
            Refusal::NoResource(_) => Refused {
                resources: Some(resources::index()),
                ..Refused::new(404, why)
            },
            Refusal::Method { allow, .. } => {
                // RFC 9110 15.5.6: "The origin server MUST generate an Allow header field in a 405 response"
                let mut refused = Refused::new(405, why);
                refused.fields.push("Allow", allow.as_bytes());
                refused
            }
            Refusal::Parameters(_) => Refused::new(400, why),
        }
    }
}

// === the answer

fn perform(request: &Request, answer: &Answer, out: &mut Outgoing<'_>) -> io::Result<()> {
    let text = serde_json::to_string(request)?;
    log::info!("command over HTTP: {text}");
    let comes_in_lines = matches!(request, Request::Ls(_) | Request::Verify);
    // What a HEAD is about is known without listing anything.
    if comes_in_lines && out.is_head {
        return out.begin();
    }
    let done = answer(request, None, &mut |reply| match reply {
        Reply::Item(item) => out.line(item),
        // Somebody may be watching it.
        Reply::Progress { .. } if comes_in_lines => out.line(reply).and_then(|()| out.send()),
        _ => Ok(()),
    });
    match done {
        Ok(done) if comes_in_lines => {
            if says_more(&done) {
                out.line(&done)?;
            }
            out.finish()
        }
        Ok(done) => out.done(&done),
        // It cannot be taken back: what ends without its last chunk is seen not to be complete.
        Err(error) if out.has_begun => {
            out.line(&Reply::Error(format!("{error:#}")))?;
            out.send()
        }
        Err(error) => out.refuse(Refused::of(&error)),
    }
}

fn export(answer: &Answer, out: &mut Outgoing<'_>) -> io::Result<()> {
    log::info!("command over HTTP: export");
    out.kind = ARCHIVE;
    if out.is_head {
        return out.begin();
    }
    match answer(&Request::Export, Some(out), &mut |_| Ok(())) {
        Ok(_) => out.finish(),
        // As with lists.
        Err(error) if out.has_begun => {
            log::warn!("an export has not come to its end: {error:#}");
            Ok(())
        }
        Err(error) => out.refuse(Refused::of(&error)),
    }
}

fn import(answer: &Answer, incoming: &mut Incoming<'_>, out: &mut Outgoing<'_>) -> io::Result<()> {
    log::info!("command over HTTP: import");
    let Some(decoder) = incoming.archive.take() else {
        return out.refuse(Refused::new(400, "there is no archive"));
    };
    let mut body = Body {
        incoming,
        decoder,
        ready: 0,
        framing: 0,
    };
    match answer(&Request::Import, Some(&mut body), &mut |_| Ok(())) {
        Ok(done) => out.done(&done),
        Err(error) => out.refuse(Refused::of(&error)),
    }
}

/// A list says nothing after its items, but where it is not all.
fn says_more(done: &Done) -> bool {
    match done {
        Done::Listed(listed) => listed.incomplete || !listed.silent.is_empty(),
        _ => true,
    }
}

struct Outgoing<'a> {
    stream: &'a UnixStream,
    is_head: bool,
    /// In HTTP/1.0 the end of the connection ends the body.
    encoder: Encoder,
    is_chunked: bool,
    has_begun: bool,
    /// The media type of what comes in pieces.
    kind: &'static str,
    /// What is not sent yet.
    lines: Vec<u8>,
}

impl Outgoing<'_> {
    fn new<'a>(stream: &'a UnixStream, request: &RequestHead) -> Outgoing<'a> {
        let is_chunked = request.version == Version::Http11;
        Outgoing {
            stream,
            is_head: request.method == Method::Head,
            encoder: Encoder::new(match is_chunked {
                true => Framing::Chunked,
                false => Framing::UntilClose,
            }),
            is_chunked,
            has_begun: false,
            kind: LINES,
            lines: Vec::new(),
        }
    }

    /// The answer without the name that tells answers apart where requests have none.
    fn done(&mut self, done: &Done) -> io::Result<()> {
        match done {
            Done::Stats(it) => self.whole(200, it),
            Done::Shown(it) if it.found.is_empty() => self.whole(404, it),
            Done::Shown(it) => self.whole(200, it),
            Done::Explained(it) => self.whole(200, it),
            Done::Purged(it) => self.whole(200, it),
            Done::Verified(it) => self.whole(200, it),
            Done::Listed(it) => self.whole(200, it),
            Done::Exported(it) => self.whole(200, it),
            Done::Imported(it) => self.whole(200, it),
        }
    }

    fn refuse(&mut self, refused: Refused) -> io::Result<()> {
        let mut body = json!({ "error": refused.why });
        if let (Some(resources), Some(body)) = (refused.resources, body.as_object_mut()) {
            body.insert("resources".to_owned(), resources);
        }
        self.whole_with(refused.status, &refused.fields, &body)
    }

    fn whole(&mut self, status: u16, body: &impl Serialize) -> io::Result<()> {
        self.whole_with(status, &Headers::new(), body)
    }

    fn whole_with(
        &mut self,
        status: u16,
        fields: &Headers,
        body: &impl Serialize,
    ) -> io::Result<()> {
        let mut body = serde_json::to_vec(body)?;
        body.push(b'\n');
        let mut fields = fields.clone();
        fields.push("Content-Length", body.len().to_string().as_bytes());
        let mut octets = head(status, JSON, &fields);
        if !self.is_head {
            octets.extend_from_slice(&body);
        }
        self.stream.write_all(&octets)
    }

    /// The head of what comes line by line.
    fn begin(&mut self) -> io::Result<()> {
        self.has_begun = true;
        let mut fields = Headers::new();
        if self.is_chunked {
            fields.push("Transfer-Encoding", b"chunked");
        }
        self.stream.write_all(&head(200, self.kind, &fields))
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.lines, value)?;
        self.lines.push(b'\n');
        match self.lines.len() >= PIECE {
            true => self.send(),
            false => Ok(()),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if !self.has_begun {
            self.begin()?;
        }
        let mut octets = Vec::with_capacity(self.lines.len() + 32);
        let encoded = self.encoder.data(&self.lines, &mut octets);
        encoded.map_err(io::Error::other)?;
        self.lines.clear();
        self.stream.write_all(&octets)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.send()?;
        let mut octets = Vec::new();
        self.encoder.end(&mut octets).map_err(io::Error::other)?;
        self.stream.write_all(&octets)
    }
}

impl Write for Outgoing<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.lines.extend_from_slice(octets);
        if self.lines.len() >= PIECE {
            self.send()?;
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl Read for Outgoing<'_> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn head(status: u16, kind: &str, fields: &Headers) -> Vec<u8> {
    let mut octets = Vec::new();
    write_status_line(status, phrase(status).as_bytes(), &mut octets);
    octets.extend_from_slice(b"Date: ");
    date::write(unix_seconds(), &mut octets);
    octets.extend_from_slice(b"\r\nContent-Type: ");
    octets.extend_from_slice(kind.as_bytes());
    octets.extend_from_slice(b"\r\n");
    fields.write(&mut octets);
    octets.extend_from_slice(b"Cache-Control: no-store\r\nConnection: close\r\n\r\n");
    octets
}
