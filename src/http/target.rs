//! The request target: four forms, the authority, and the normal form that is the cache's key.
//!
//! Authorities are read by RFC 3986, not as browsers read them, and what two readers could take for different
//! hosts is refused. Path and query are never changed. It resolves no names. Sessions, routing, access, the
//! cache key and the upstream client call it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use thiserror::Error;

use super::head::{Method, RequestHead, Version};
use super::syntax::decimal;

/// The port of `http`.
pub const HTTP_PORT: u16 = 80;
/// DNS names end here (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 255;

/// Why a target or a Host is refused. All are 400.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TargetError {
    #[error("the host is empty")]
    EmptyHost,
    #[error("the host holds a character that no host name may hold")]
    HostCharacter,
    #[error("the host name is longer than 255 octets")]
    HostTooLong,
    #[error("the host is a number in a form that only some programs read as an address")]
    NumericHost,
    #[error("the IPv6 address is malformed")]
    Ipv6,
    #[error("an IPv6 zone has no meaning on the way to another host")]
    ZoneId,
    #[error("user information in an authority is refused")]
    UserInfo,
    #[error("a backslash is refused")]
    Backslash,
    #[error("the port is not a number up to 65535")]
    Port,
    #[error("CONNECT needs host and port")]
    ConnectWithoutPort,
    #[error("the target is none of the four forms for this method")]
    Form,
    #[error("a fragment does not belong into a request")]
    Fragment,
    #[error("the target holds a character that no target may hold")]
    Character,
    #[error("https in a request target: a client reaches https through CONNECT")]
    HttpsScheme,
    #[error("only the scheme http is served")]
    OtherScheme,
    #[error("the Host field is missing")]
    HostMissing,
    #[error("there is more than one Host field")]
    HostRepeated,
}

/// Names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    Name(Arc<str>),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

impl Host {
    /// The address that the host is written as.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Host::Name(_) => None,
            Host::V4(address) => Some((*address).into()),
            Host::V6(address) => Some((*address).into()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Authority {
    pub host: Host,
    /// As written; an empty one is absent.
    pub port: Option<u16>,
}

impl Authority {
    /// `host [ ":" port ]` without user information.
    pub fn parse(text: &[u8]) -> Result<Authority, TargetError> {
        if text.contains(&b'@') {
            // RFC 9110 4.2.4: "a recipient SHOULD parse for userinfo and treat its presence as an error"
            return Err(TargetError::UserInfo);
        }
        if text.contains(&b'\\') {
            return Err(TargetError::Backslash);
        }
        let (host, rest) = match text {
            [b'[', inside @ ..] => {
                let end = memchr::memchr(b']', inside).ok_or(TargetError::Ipv6)?;
                (parse_v6(&inside[..end])?, &inside[end + 1..])
            }
            _ => {
                let end = memchr::memchr(b':', text).unwrap_or(text.len());
                (parse_name(&text[..end])?, &text[end..])
            }
        };
        let port = match rest {
            [] | [b':'] => None,
            [b':', digits @ ..] => Some(
                decimal(digits)
                    .and_then(|port| u16::try_from(port).ok())
                    .ok_or(TargetError::Port)?,
            ),
            _ => return Err(TargetError::HostCharacter),
        };
        Ok(Authority { host, port })
    }

    pub fn port_or(&self, default: u16) -> u16 {
        self.port.unwrap_or(default)
    }

    /// The same with that port where none is written.
    pub fn with_default_port(mut self, default: u16) -> Authority {
        self.port.get_or_insert(default);
        self
    }

    /// The same without a port where it is the default.
    pub fn without_port(mut self, default: u16) -> Authority {
        if self.port == Some(default) {
            self.port = None;
        }
        self
    }

    /// Normal form with the default port dropped: what a key and a forwarded Host have.
    pub fn write(&self, default_port: u16, out: &mut Vec<u8>) {
        match &self.host {
            Host::Name(name) => out.extend_from_slice(name.as_bytes()),
            Host::V4(address) => super::syntax::write_address((*address).into(), out),
            Host::V6(address) => out.extend_from_slice(format!("[{address}]").as_bytes()),
        }
        if let Some(port) = self.port.filter(|&port| port != default_port) {
            out.push(b':');
            super::syntax::write_decimal(u64::from(port), out);
        }
    }
}

fn parse_v6(text: &[u8]) -> Result<Host, TargetError> {
    if text.contains(&b'%') {
        return Err(TargetError::ZoneId);
    }
    let address = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok());
    address.map(Host::V6).ok_or(TargetError::Ipv6)
}

// RFC 3986 3.2.2: reg-name = *( unreserved / pct-encoded / sub-delims ), of which we leave out pct-encoded: no
// resolver knows such names, and two spellings of one name would be two keys.
fn parse_name(text: &[u8]) -> Result<Host, TargetError> {
    if text.is_empty() {
        // RFC 9110 4.2.1: "A sender MUST NOT generate an "http" URI with an empty host identifier. A recipient that
        // processes such a URI reference MUST reject it as invalid."
        return Err(TargetError::EmptyHost);
    }
    if text.len() > MAX_NAME {
        return Err(TargetError::HostTooLong);
    }
    if !text.iter().all(|&c| is_name_char(c)) {
        return Err(TargetError::HostCharacter);
    }
    let name =
        String::from_utf8(text.to_ascii_lowercase()).map_err(|_| TargetError::HostCharacter)?;
    if looks_numeric(&name) {
        // `std` reads exactly the dotted quad of RFC 3986, without leading zeros.
        return name
            .parse()
            .map(Host::V4)
            .map_err(|_| TargetError::NumericHost);
    }
    Ok(Host::Name(name.into()))
}

fn is_name_char(octet: u8) -> bool {
    matches!(octet,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~'
        | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

/// Whether `inet_aton` would read it as an address: one to four numbers, decimal, octal or hexadecimal.
fn looks_numeric(name: &str) -> bool {
    // Every form of a number begins with a digit, and hardly a name does.
    if !name.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    name.split('.').all(|part| match part.strip_prefix("0x") {
        Some(hex) => hex.bytes().all(|c| c.is_ascii_hexdigit()),
        None => !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit()),
    })
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::V4(address) => address.fmt(f),
            Host::V6(address) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// The four forms of RFC 9112 section 3.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Origin,
    Absolute(Authority),
    /// CONNECT; the port is there.
    Authority(Authority),
    Asterisk,
}

/// Visible ASCII. RFC 3986 allows less, but browsers send `|`, `"`, `^`, `{`, `}` and backquotes as they are;
/// all of them are passed on octet for octet.
pub fn is_target_char(octet: u8) -> bool {
    matches!(octet, 0x21..=0x7e)
}

impl Target {
    pub fn parse(method: &Method, raw: &[u8]) -> Result<Target, TargetError> {
        Ok(Parts::split(method, raw)?.target)
    }
}

/// A target with what follows its authority.
pub struct Parts<'a> {
    pub target: Target,
    /// From the path's first octet; may be empty or begin with `?` in absolute form.
    path_and_query: &'a [u8],
}

impl<'a> Parts<'a> {
    pub fn split(method: &Method, raw: &'a [u8]) -> Result<Parts<'a>, TargetError> {
        check_characters(raw)?;
        // RFC 9112 3.2.3: authority-form "is only used for CONNECT requests"
        if *method == Method::Connect {
            let authority = Authority::parse(raw)?;
            return match authority.port {
                Some(_) => Ok(Parts {
                    target: Target::Authority(authority),
                    path_and_query: &[],
                }),
                None => Err(TargetError::ConnectWithoutPort),
            };
        }
        match raw {
            [b'/', ..] => {
                check_path(raw)?;
                Ok(Parts {
                    target: Target::Origin,
                    path_and_query: raw,
                })
            }
            // RFC 9112 3.2.4: asterisk-form "is only used for a server-wide OPTIONS request"
            b"*" if *method == Method::Options => Ok(Parts {
                target: Target::Asterisk,
                path_and_query: raw,
            }),
            _ => Parts::split_absolute(raw),
        }
    }

    fn split_absolute(raw: &'a [u8]) -> Result<Parts<'a>, TargetError> {
        let colon = memchr::memchr(b':', raw).ok_or(TargetError::Form)?;
        let (scheme, rest) = (&raw[..colon], &raw[colon + 1..]);
        let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
            && scheme
                .iter()
                .all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(c));
        if !is_scheme {
            return Err(TargetError::Form);
        }
        let Some(rest) = rest.strip_prefix(b"//") else {
            // `host:port` without CONNECT looks like a scheme.
            return Err(TargetError::Form);
        };
        if scheme.eq_ignore_ascii_case(b"https") {
            return Err(TargetError::HttpsScheme);
        }
        if !scheme.eq_ignore_ascii_case(b"http") {
            return Err(TargetError::OtherScheme);
        }
        let end = rest
            .iter()
            .position(|c| matches!(c, b'/' | b'?'))
            .unwrap_or(rest.len());
        let authority = Authority::parse(&rest[..end])?;
        check_path(&rest[end..])?;
        Ok(Parts {
            target: Target::Absolute(authority),
            path_and_query: &rest[end..],
        })
    }
}

fn check_characters(raw: &[u8]) -> Result<(), TargetError> {
    if raw.contains(&b'#') {
        return Err(TargetError::Fragment);
    }
    if raw.is_empty() || !raw.iter().all(|&c| is_target_char(c)) {
        return Err(TargetError::Character);
    }
    Ok(())
}

/// Browsers send a backslash in the query as it is, but turn one in the path into a slash: there it would mean
/// two things.
fn check_path(path_and_query: &[u8]) -> Result<(), TargetError> {
    let path = path_and_query
        .split(|&c| c == b'?')
        .next()
        .unwrap_or_default();
    match path.contains(&b'\\') {
        true => Err(TargetError::Backslash),
        false => Ok(()),
    }
}

/// What the requests of a connection leave for the next one: nearly all name the same host.
#[derive(Debug, Default)]
pub struct Memory {
    /// The last Host field, and what it says.
    host: Vec<u8>,
    authority: Option<Authority>,
    /// Memory for a path.
    path: Vec<u8>,
}

impl Memory {
    /// Takes back what nobody needs any more.
    pub fn recycle(&mut self, uri: TargetUri) {
        self.path = uri.path_and_query;
    }

    fn authority(&mut self, host: &[u8]) -> Result<Authority, TargetError> {
        if let Some(known) = &self.authority
            && self.host == host
        {
            return Ok(known.clone());
        }
        let authority = Authority::parse(host)?;
        self.host.clear();
        self.host.extend_from_slice(host);
        self.authority = Some(authority.clone());
        Ok(authority)
    }

    fn path(&mut self, parts: &[&[u8]]) -> Vec<u8> {
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        parts.iter().for_each(|part| path.extend_from_slice(part));
        path
    }
}

/// The target URI of a request: where it goes, and the name of what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetUri {
    pub authority: Authority,
    /// At least `/`; `*` for a server-wide OPTIONS; empty for CONNECT.
    pub path_and_query: Vec<u8>,
}

impl TargetUri {
    /// Puts target and Host together. `fallback` is the authority of an HTTP/1.0 request that names none (a
    /// reverse proxy has one).
    pub fn of(
        request: &RequestHead,
        fallback: Option<&Authority>,
    ) -> Result<TargetUri, TargetError> {
        let parts = Parts::split(&request.method, &request.target)?;
        TargetUri::of_parts(request, parts, fallback, &mut Memory::default())
    }

    /// The same of a target that has been split already.
    pub fn of_parts(
        request: &RequestHead,
        parts: Parts<'_>,
        fallback: Option<&Authority>,
        memory: &mut Memory,
    ) -> Result<TargetUri, TargetError> {
        let host = host_field(request, memory)?;
        let authority = match parts.target {
            // RFC 9112 3.2.2: "When a proxy receives a request with an absolute-form of request-target, the proxy MUST
            // ignore the received Host header field (if any) and instead replace it with the host information of the
            // request-target."
            Target::Absolute(authority) | Target::Authority(authority) => authority,
            Target::Origin | Target::Asterisk => host
                .or_else(|| fallback.cloned())
                .ok_or(TargetError::HostMissing)?,
        };
        let path_and_query = match parts.path_and_query {
            // RFC 9112 3.2.4: "If a proxy receives an OPTIONS request with an absolute-form of request-target in which the
            // URI has an empty path and no query component, then the last proxy on the request chain MUST send a
            // request-target of "*""
            [] if request.method == Method::Options => memory.path(&[b"*"]),
            [] if request.method == Method::Connect => memory.path(&[]),
            // RFC 9112 3.2.1: "If the target URI's path component is empty, the client MUST send "/" as the path"
            [] => memory.path(&[b"/"]),
            query @ [b'?', ..] => memory.path(&[b"/", query]),
            path => memory.path(&[path]),
        };
        Ok(TargetUri {
            authority,
            path_and_query,
        })
    }

    /// `http://authority/path?query`, octet for octet, with the default port dropped and the host in lower case.
    pub fn write_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"http://");
        self.authority.write(HTTP_PORT, out);
        out.extend_from_slice(&self.path_and_query);
    }
}

// RFC 9112 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that
// lacks a Host header field and to any request message that contains more than one Host header field line or a
// Host header field with an invalid field value."
fn host_field(
    request: &RequestHead,
    memory: &mut Memory,
) -> Result<Option<Authority>, TargetError> {
    let mut fields = request.headers.get_all("host");
    match (fields.next(), fields.next()) {
        (_, Some(_)) => Err(TargetError::HostRepeated),
        (Some(value), None) => memory.authority(value).map(Some),
        (None, None) if request.version == Version::Http11 => Err(TargetError::HostMissing),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests;
