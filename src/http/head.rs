//! The head of a message: bytes in, method, target, version, status and fields out; and back.
//!
//! Strict where `httparse` is lenient: CRLF only, single spaces, no folding, three digits from 100. It reads
//! no meaning from fields (see `framing`, `target`, `connection`). A caller whose head arrives in pieces keeps
//! a [`Scan`], which makes each new octet cost one look. Sessions and the upstream client call it.

use httparse::EMPTY_HEADER;
use thiserror::Error;

use super::headers::Headers;
pub use super::method::Method;
use super::syntax::{is_token_char, is_value_char, write_decimal};
use super::target;

/// Empty lines skipped before a request line.
const MAX_EMPTY_LINES: usize = 4;
/// Longer method names are refused before the line has ended.
const MAX_METHOD: usize = 64;
/// Fields parsed without a heap allocation: of a program, and of a browser that a proxy or two stand before. Room is written
/// before it is used, so the few do not pay for the many.
const FEW_FIELDS: usize = 16;
const USUAL_FIELDS: usize = 48;

/// What a head may measure; it holds for heads that have not ended too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets of the whole head.
    pub max_bytes: usize,
    pub max_headers: usize,
    /// Octets of the request target.
    pub max_target: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_bytes: 64 << 10,
            max_headers: 200,
            max_target: 16 << 10,
        }
    }
}

/// Of the peer's message; ours is always 1.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    Http10,
    /// And every later 1.x.
    #[default]
    Http11,
}

impl Version {
    /// As Via has it.
    pub fn number(self) -> &'static str {
        match self {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
        }
    }

    fn parse(text: &[u8]) -> Result<Version, HeadError> {
        // RFC 9112 2.3: HTTP-version = HTTP-name "/" DIGIT "." DIGIT, "case-sensitive"
        match text {
            b"HTTP/1.1" => Ok(Version::Http11),
            b"HTTP/1.0" => Ok(Version::Http10),
            // RFC 9110 2.5: "a recipient that receives a message with a higher minor version [...] processes it as
            // if it were the highest minor version within that major version"
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] if minor.is_ascii_digit() => {
                Ok(Version::Http11)
            }
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                Err(HeadError::VersionNotSupported)
            }
            _ => Err(HeadError::Version),
        }
    }
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum HeadError {
    #[error("a line of the head does not end with CRLF")]
    LineEnd,
    #[error("too many empty lines before the message")]
    EmptyLines,
    #[error("the request line is not method, target and version with single spaces between them")]
    RequestLine,
    #[error("the method is not a token")]
    Method,
    #[error("the method is longer than any known one")]
    MethodTooLong,
    #[error("the request target holds a character that no target may hold")]
    Target,
    #[error("the request target is too long")]
    TargetTooLong,
    #[error("the HTTP version is malformed")]
    Version,
    #[error("the HTTP version is not 1.x")]
    VersionNotSupported,
    #[error("the status line is not version, three digits from 100 and a reason")]
    StatusLine,
    #[error("a field line is folded")]
    Folded,
    #[error("white space stands before the colon of a field line")]
    SpaceBeforeColon,
    #[error("a field name is not a token")]
    FieldName,
    #[error("a field value holds a control character")]
    FieldValue,
    #[error("too many fields")]
    TooManyFields,
    #[error("the head is too large")]
    TooLarge,
}

impl HeadError {
    /// What a client gets. (What an origin server sends is 502, whatever is wrong.)
    pub fn status(self) -> u16 {
        match self {
            HeadError::TargetTooLong => 414,
            HeadError::TooManyFields | HeadError::TooLarge => 431,
            // RFC 9112 3: "A server that receives a method longer than any that it implements SHOULD respond with a
            // 501 (Not Implemented) status code"
            HeadError::MethodTooLong => 501,
            HeadError::VersionNotSupported => 505,
            _ => 400,
        }
    }
}

/// How far a head that arrives in pieces has been looked at. One per head; start the next with a new one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// Where the start line begins, after skipped empty lines.
    start: usize,
    empty_lines: usize,
    /// Where the current line begins.
    line: usize,
    /// Where the field lines begin; 0: the start line has not ended.
    fields: usize,
    /// Lines of fields that have ended, without the blank one.
    count: usize,
    /// The whole request line has been looked at.
    line_checked: bool,
    /// Looked at up to here.
    at: usize,
}

impl Scan {
    /// Whether `input` is whole empty lines and nothing else, so that no request has begun.
    pub fn is_before_head(&self, input: &[u8]) -> bool {
        self.start > 0 && self.start == input.len()
    }

    /// The length of the head, skipped lines included, once the blank line is there. An error as soon as it is
    /// certain. `input` is the same buffer as last time, perhaps longer.
    fn find_end(
        &mut self,
        input: &[u8],
        limits: &Limits,
        empty_lines: usize,
    ) -> Result<Option<usize>, HeadError> {
        while let Some(found) = input
            .get(self.at..)
            .and_then(|rest| memchr::memchr(b'\n', rest))
        {
            let lf = self.at + found;
            self.at = lf + 1;
            // RFC 9112 2.2 lets a recipient take a lone LF for a line end; telling two parsers apart by that is how
            // requests are smuggled, so we do not.
            if lf == self.line || input[lf - 1] != b'\r' {
                return Err(HeadError::LineEnd);
            }
            let blank = lf - 1 == self.line;
            self.line = lf + 1;
            if self.fields > 0 {
                if blank {
                    self.within(lf + 1, limits)?;
                    return Ok(Some(lf + 1));
                }
                self.count += 1;
            } else if blank {
                // RFC 9112 2.2: "a server that is expecting to receive and parse a request-line SHOULD ignore at least one
                // empty line (CRLF) received prior to the request-line"
                self.empty_lines += 1;
                if self.empty_lines > empty_lines {
                    return Err(HeadError::EmptyLines);
                }
                self.start = self.line;
            } else {
                self.fields = self.line;
            }
        }
        self.at = input.len();
        self.within(input.len(), limits)?;
        Ok(None)
    }

    fn within(&self, end: usize, limits: &Limits) -> Result<(), HeadError> {
        if end - self.start > limits.max_bytes {
            return Err(HeadError::TooLarge);
        }
        Ok(())
    }

    /// Whether the request line can be refused already, though the head has not ended.
    fn check_line(&mut self, input: &[u8], limits: &Limits) -> Result<(), HeadError> {
        if self.line_checked {
            return Ok(());
        }
        self.line_checked = self.fields > 0;
        let end = if self.fields > 0 {
            self.fields - 2
        } else {
            input.len()
        };
        let line = input.get(self.start..end).unwrap_or_default();
        // What may be half of the line's end is not of the line.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() <= MAX_METHOD {
            return Ok(());
        }
        match memchr::memchr(b' ', &line[..=MAX_METHOD]) {
            None => Err(HeadError::MethodTooLong),
            // The target may be followed by a space and the version.
            Some(space) => {
                let rest = &line[space + 1..];
                match rest.len() > limits.max_target
                    && memchr::memchr(b' ', &rest[..=limits.max_target]).is_none()
                {
                    true => Err(HeadError::TargetTooLong),
                    false => Ok(()),
                }
            }
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    pub method: Method,
    /// As it came; `Target::parse` reads it.
    pub target: Vec<u8>,
    pub version: Version,
    pub headers: Headers,
}

impl RequestHead {
    pub fn new() -> RequestHead {
        RequestHead::default()
    }

    /// Reads a head from the start of `input`: None while it has not ended, else the octets it took.
    pub fn parse(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, HeadError> {
        self.parse_more(&mut Scan::default(), input, limits)
    }

    /// `parse` for a head that arrives in pieces: looks at what is new only.
    pub fn parse_more(
        &mut self,
        scan: &mut Scan,
        input: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, HeadError> {
        if scan.at == 0
            && let Some((line, end)) = self.recurring(input, limits)
        {
            self.parse_line(line, limits)?;
            return Ok(Some(end));
        }
        let end = match scan.find_end(input, limits, MAX_EMPTY_LINES) {
            Ok(Some(end)) => end,
            Ok(None) => {
                scan.check_line(input, limits)?;
                return Ok(None);
            }
            // A too long target is the better reason where both hold.
            Err(HeadError::TooLarge) => {
                scan.check_line(input, limits)?;
                return Err(HeadError::TooLarge);
            }
            Err(error) => return Err(error),
        };
        self.parse_line(&input[scan.start..scan.fields - 2], limits)?;
        let section = &input[scan.fields..end];
        let headers = &mut self.headers;
        headers.clear();
        parse_fields(section, scan, limits, |fields| {
            let names = fields.iter().map(|field| field.name.len()).sum();
            headers.reserve(fields.len(), names, section.len());
            headers.begin_section(section);
            for field in fields {
                let from = (field.value.as_ptr().addr()).wrapping_sub(section.as_ptr().addr());
                // An empty value may be anywhere.
                let place = match field.value.is_empty() {
                    true => 0..0,
                    false => from..from + field.value.len(),
                };
                headers.read(field.name, place);
            }
        })?;
        Ok(Some(end))
    }

    /// Most requests of a connection have the fields of the one before, to the octet; those are not read again. The request
    /// line, and the length of the head. None: it may be anything.
    fn recurring<'a>(&self, input: &'a [u8], limits: &Limits) -> Option<(&'a [u8], usize)> {
        let section = self.headers.section();
        if section.is_empty() {
            return None;
        }
        let line_end = memchr::memchr(b'\n', input)? + 1;
        let line = input[..line_end].strip_suffix(b"\r\n")?;
        let end = line_end + section.len();
        let is_same = !line.is_empty()
            && input[line_end..].starts_with(section)
            && end <= limits.max_bytes
            && self.headers.len() <= limits.max_headers;
        is_same.then_some((line, end))
    }

    // RFC 9112 3: request-line = method SP request-target SP HTTP-version
    fn parse_line(&mut self, line: &[u8], limits: &Limits) -> Result<(), HeadError> {
        let space = memchr::memchr(b' ', line).ok_or(HeadError::RequestLine)?;
        let (method, rest) = (&line[..space], &line[space + 1..]);
        if method.len() > MAX_METHOD {
            return Err(HeadError::MethodTooLong);
        }
        self.method = Method::parse(method).ok_or(HeadError::Method)?;
        let space = memchr::memchr(b' ', rest).ok_or(HeadError::RequestLine)?;
        let (target, version) = (&rest[..space], &rest[space + 1..]);
        if target.len() > limits.max_target {
            return Err(HeadError::TargetTooLong);
        }
        if target.is_empty() || version.first() == Some(&b' ') {
            return Err(HeadError::RequestLine);
        }
        if !target.iter().all(|&c| target::is_target_char(c)) {
            return Err(HeadError::Target);
        }
        self.version = Version::parse(version)?;
        self.target.clear();
        self.target.extend_from_slice(target);
        Ok(())
    }

    /// Request line, fields and blank line; the version is ours, 1.1.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(&self.target);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        self.headers.write(out);
        out.extend_from_slice(b"\r\n");
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    pub version: Version,
    pub status: u16,
    pub reason: Vec<u8>,
    pub headers: Headers,
}

impl Default for ResponseHead {
    fn default() -> ResponseHead {
        ResponseHead {
            version: Version::Http11,
            status: 200,
            reason: Vec::new(),
            headers: Headers::new(),
        }
    }
}

impl ResponseHead {
    pub fn new() -> ResponseHead {
        ResponseHead::default()
    }

    /// Reads a head from the start of `input`: None while it has not ended, else the octets it took.
    pub fn parse(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, HeadError> {
        self.parse_more(&mut Scan::default(), input, limits)
    }

    /// `parse` for a head that arrives in pieces: looks at what is new only.
    pub fn parse_more(
        &mut self,
        scan: &mut Scan,
        input: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, HeadError> {
        // No empty line may stand before a status line.
        let Some(end) = scan.find_end(input, limits, 0)? else {
            return Ok(None);
        };
        self.parse_line(&input[scan.start..scan.fields - 2])?;
        let headers = &mut self.headers;
        headers.clear();
        parse_fields(&input[scan.fields..end], scan, limits, |fields| {
            let names = fields.iter().map(|field| field.name.len()).sum();
            let values = fields.iter().map(|field| field.value.len()).sum();
            headers.reserve(fields.len(), names, values);
            for field in fields {
                headers.push(field.name, field.value);
            }
        })?;
        Ok(Some(end))
    }

    // RFC 9112 4: status-line = HTTP-version SP status-code SP [ reason-phrase ]
    fn parse_line(&mut self, line: &[u8]) -> Result<(), HeadError> {
        let Some((version, rest)) = line.split_at_checked(8) else {
            return Err(HeadError::StatusLine);
        };
        let version = Version::parse(version)?;
        // "a server MUST send the space that separates the status-code from the reason-phrase even when the
        // reason-phrase is absent"; many do not, and nothing hangs on it.
        let (code, reason) = match rest {
            [b' ', a, b, c] => ([a, b, c], &[][..]),
            [b' ', a, b, c, b' ', reason @ ..] => ([a, b, c], reason),
            _ => return Err(HeadError::StatusLine),
        };
        if !code.iter().all(|c| c.is_ascii_digit()) || !reason.iter().all(|&c| is_value_char(c)) {
            return Err(HeadError::StatusLine);
        }
        self.status = code
            .iter()
            .fold(0, |number, &&c| number * 10 + u16::from(c - b'0'));
        if self.status < 100 {
            return Err(HeadError::StatusLine);
        }
        self.version = version;
        self.reason.clear();
        self.reason.extend_from_slice(reason);
        Ok(())
    }

    /// Status line, fields and blank line; the version is ours, 1.1.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_status_line(self.status, &self.reason, out);
        self.headers.write(out);
        out.extend_from_slice(b"\r\n");
    }
}

/// `HTTP/1.1 SP status SP reason CRLF`.
pub fn write_status_line(status: u16, reason: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    write_decimal(u64::from(status), out);
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

/// Reads `section`, which has been looked at to its end, the blank line; `take` is told of all fields at once.
fn parse_fields(
    section: &[u8],
    scan: &Scan,
    limits: &Limits,
    take: impl FnOnce(&[httparse::Header<'_>]),
) -> Result<(), HeadError> {
    let count = scan.count;
    // Too many are refused before any is looked at.
    if count > limits.max_headers {
        return Err(HeadError::TooManyFields);
    }
    if count <= FEW_FIELDS {
        parse_into(section, &mut [EMPTY_HEADER; FEW_FIELDS], take)
    } else if count <= USUAL_FIELDS {
        parse_into(section, &mut [EMPTY_HEADER; USUAL_FIELDS], take)
    } else {
        parse_into(section, &mut vec![EMPTY_HEADER; count], take)
    }
}

/// `room` is enough for all of them.
fn parse_into<'a>(
    section: &'a [u8],
    room: &mut [httparse::Header<'a>],
    take: impl FnOnce(&[httparse::Header<'_>]),
) -> Result<(), HeadError> {
    match httparse::parse_headers(section, room) {
        Ok(httparse::Status::Complete((length, fields))) if length == section.len() => {
            take(fields);
            Ok(())
        }
        _ => Err(diagnose(section)),
    }
}

/// What is wrong with a section that `httparse` refused.
fn diagnose(section: &[u8]) -> HeadError {
    for line in section.split(|&c| c == b'\n') {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            // RFC 9112 5.2: "A server that receives an obs-fold in a request message [...] MUST either reject the message by
            // sending a 400 (Bad Request)"
            return HeadError::Folded;
        }
        if line.is_empty() || line == b"\r" {
            continue;
        }
        let name = line.iter().take_while(|&&c| is_token_char(c)).count();
        match line.get(name) {
            Some(b':') if name > 0 => {}
            // RFC 9112 5.1: "No whitespace is allowed between the field name and colon."
            Some(b' ' | b'\t') if name > 0 => return HeadError::SpaceBeforeColon,
            _ => return HeadError::FieldName,
        }
    }
    HeadError::FieldValue
}

#[cfg(test)]
mod tests;
