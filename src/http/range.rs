//! Byte ranges: what Range asks for, which octets of a representation that is, and what Content-Range says
//! (RFC 9110 section 14).
//!
//! Positions count from 0; a [`Span`] ends behind its last octet. It reads and writes fields and knows no bodies.
//! The cache rules and deliver call it.

use super::syntax::{decimal, trim, write_decimal};

/// Ranges answered in one response; RFC 9110 section 14.2: "A server that supports range requests MAY ignore or reject
/// a Range header field that contains [...] many small ranges", which cost more than the whole.
const MOST: usize = 32;

/// Octets `from` up to, and not with, `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub from: u64,
    pub to: u64,
}

impl Span {
    pub fn len(self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether `other` lies within.
    pub fn holds(self, other: Span) -> bool {
        self.from <= other.from && other.to <= self.to
    }
}

/// One member of a Range field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// From an octet on to the end.
    From(u64),
    /// Both given, the last one included.
    Between(u64, u64),
    /// So many at the end.
    Last(u64),
}

/// What a Range field comes to, for a representation of known length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// The octets to send, in the order asked for; those that overlap have become one.
    Parts(Vec<Span>),
    /// No octet of it exists: 416.
    Unsatisfiable,
}

/// Reads a Range field. None: it is to be ignored (another unit, malformed, too many ranges).
pub fn parse(value: &[u8]) -> Option<Vec<Asked>> {
    // range-unit "=" range-set, and "range units are [...] case-insensitive" (14.1).
    let equals = memchr::memchr(b'=', value)?;
    let unit = value.get(..equals)?;
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut asked = Vec::new();
    for member in value.get(equals + 1..)?.split(|octet| *octet == b',') {
        // The list rule lets empty members be (5.6.1).
        let member = trim(member);
        if member.is_empty() {
            continue;
        }
        if asked.len() == MOST {
            return None;
        }
        asked.push(one(member)?);
    }
    (!asked.is_empty()).then_some(asked)
}

fn one(member: &[u8]) -> Option<Asked> {
    let dash = memchr::memchr(b'-', member)?;
    let (first, last) = (member.get(..dash)?, member.get(dash + 1..)?);
    match (first, last) {
        (b"", last) => Some(Asked::Last(position(last)?)),
        (first, b"") => Some(Asked::From(position(first)?)),
        (first, last) => {
            let (first, last) = (position(first)?, position(last)?);
            // 14.1.1: "An int-range is invalid if the last-pos value is present and less than first-pos."
            (first <= last).then_some(Asked::Between(first, last))
        }
    }
}

/// More than a number holds is more than any representation has.
fn position(digits: &[u8]) -> Option<u64> {
    match decimal(digits) {
        None if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => Some(u64::MAX),
        position => position,
    }
}

impl Asked {
    /// The octets that this means of a representation of `length` octets. None: there are none.
    pub fn span(self, length: u64) -> Option<Span> {
        let span = match self {
            Asked::From(from) => Span { from, to: length },
            // "If the last-pos value is absent, or if the value is greater than or equal to the current length of the
            // representation data, the byte range is interpreted as the remainder of the representation".
            Asked::Between(from, last) => Span {
                from,
                to: last.saturating_add(1).min(length),
            },
            // "If the selected representation is shorter than the specified suffix-length, the entire representation is used."
            Asked::Last(count) => Span {
                from: length.saturating_sub(count),
                to: length,
            },
        };
        (!span.is_empty()).then_some(span)
    }
}

/// Which octets of a representation of `length` octets are to be sent.
pub fn resolve(asked: &[Asked], length: u64) -> Ranges {
    let mut parts: Vec<Span> = Vec::new();
    for span in asked.iter().filter_map(|asked| asked.span(length)) {
        // 15.3.7.2: "A server that generates a multipart response [...] MAY coalesce any of the ranges that overlap, or that
        // are separated by a gap that is smaller than the overhead of sending multiple parts".
        let mut span = span;
        parts.retain(|part| {
            let apart = part.to < span.from || span.to < part.from;
            if !apart {
                span.from = span.from.min(part.from);
                span.to = span.to.max(part.to);
            }
            apart
        });
        parts.push(span);
    }
    match parts.is_empty() {
        true => Ranges::Unsatisfiable,
        false => Ranges::Parts(parts),
    }
}

/// What a Content-Range field of a 206 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    pub span: Span,
    /// Octets of the whole representation, where it is known.
    pub complete: Option<u64>,
}

impl ContentRange {
    /// None: of another unit, or not as 14.4 has it.
    pub fn parse(value: &[u8]) -> Option<ContentRange> {
        let value = trim(value);
        let space = memchr::memchr(b' ', value)?;
        if !value.get(..space)?.eq_ignore_ascii_case(b"bytes") {
            return None;
        }
        let rest = trim(value.get(space + 1..)?);
        let slash = memchr::memchr(b'/', rest)?;
        let (range, complete) = (rest.get(..slash)?, rest.get(slash + 1..)?);
        let dash = memchr::memchr(b'-', range)?;
        let (first, last) = (
            decimal(range.get(..dash)?)?,
            decimal(range.get(dash + 1..)?)?,
        );
        let complete = match complete {
            b"*" => None,
            length => Some(decimal(length)?),
        };
        // "A Content-Range field value is invalid if it contains a range-resp that has a last-pos value less than its
        // first-pos value, or a complete-length value less than or equal to its last-pos value."
        if last < first || last == u64::MAX || complete.is_some_and(|length| length <= last) {
            return None;
        }
        Some(ContentRange {
            span: Span {
                from: first,
                to: last + 1,
            },
            complete,
        })
    }

    /// Appends the value: `bytes 0-99/1234`.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"bytes ");
        write_decimal(self.span.from, out);
        out.push(b'-');
        write_decimal(self.span.to.saturating_sub(1), out);
        out.push(b'/');
        match self.complete {
            Some(length) => write_decimal(length, out),
            None => out.push(b'*'),
        }
    }
}

/// Appends the value for a 416: `bytes */1234`.
pub fn write_unsatisfied(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"bytes */");
    write_decimal(length, out);
}

#[cfg(test)]
mod tests {
    use super::Asked::{Between, From, Last};
    use super::*;

    #[test]
    fn range_is_read_as_14_1_has_it() {
        let table: &[(&[u8], Option<&[Asked]>)] = &[
            (b"bytes=0-499", Some(&[Between(0, 499)])),
            (b"bytes=500-", Some(&[From(500)])),
            (b"bytes=-500", Some(&[Last(500)])),
            (b"Bytes=0-0", Some(&[Between(0, 0)])),
            (b"bytes=0-0,-1", Some(&[Between(0, 0), Last(1)])),
            (b"bytes= 0-0 ,, 2-3 ", Some(&[Between(0, 0), Between(2, 3)])),
            (b"bytes=-0", Some(&[Last(0)])),
            (b"bytes=99999999999999999999-", Some(&[From(u64::MAX)])),
            (
                b"bytes=5-99999999999999999999",
                Some(&[Between(5, u64::MAX)]),
            ),
            (b"bytes=5-4", None),
            (b"bytes=0-4,5-4", None),
            (b"bytes=", None),
            (b"bytes=,", None),
            (b"bytes=-", None),
            (b"bytes=a-b", None),
            (b"bytes=+1-2", None),
            (b"bytes=1 - 2", None),
            (b"bytes", None),
            (b"bytes 0-4", None),
            (b"items=0-4", None),
            (b" bytes=0-4", None),
            (b"", None),
        ];
        for (value, expected) in table {
            let text = String::from_utf8_lossy(value);
            assert_eq!(parse(value).as_deref(), *expected, "{text:?}");
        }
        let many = format!("bytes={}", "0-1,".repeat(MOST + 1));
        assert_eq!(parse(many.as_bytes()), None);
    }

    #[test]
    fn ranges_are_cut_to_what_there_is_and_joined_where_they_meet() {
        let parts = |spans: &[(u64, u64)]| {
            Ranges::Parts(spans.iter().map(|&(from, to)| Span { from, to }).collect())
        };
        let table: &[(&[Asked], u64, Ranges)] = &[
            (&[Between(0, 4)], 10, parts(&[(0, 5)])),
            (&[Between(0, 99)], 10, parts(&[(0, 10)])),
            (&[From(9)], 10, parts(&[(9, 10)])),
            (&[From(10)], 10, Ranges::Unsatisfiable),
            (&[Last(3)], 10, parts(&[(7, 10)])),
            (&[Last(30)], 10, parts(&[(0, 10)])),
            (&[Last(0)], 10, Ranges::Unsatisfiable),
            (&[Last(1)], 0, Ranges::Unsatisfiable),
            (&[From(0)], 0, Ranges::Unsatisfiable),
            (&[Between(u64::MAX, u64::MAX)], 10, Ranges::Unsatisfiable),
            (&[From(20), Between(1, 2)], 10, parts(&[(1, 3)])),
            (
                &[Between(6, 7), Between(0, 1)],
                10,
                parts(&[(6, 8), (0, 2)]),
            ),
            (&[Between(0, 4), Between(2, 6)], 10, parts(&[(0, 7)])),
            (&[Between(0, 4), Between(5, 6)], 10, parts(&[(0, 7)])),
            (
                &[Between(0, 1), Between(6, 7), Between(1, 6)],
                10,
                parts(&[(0, 8)]),
            ),
        ];
        for (asked, length, expected) in table {
            assert_eq!(resolve(asked, *length), *expected, "{asked:?} of {length}");
        }
    }

    #[test]
    fn content_range_is_read_and_written() {
        let range = |from, to, complete| {
            Some(ContentRange {
                span: Span { from, to },
                complete,
            })
        };
        let table: &[(&[u8], Option<ContentRange>)] = &[
            (b"bytes 0-4/10", range(0, 5, Some(10))),
            (b"bytes 5-9/10", range(5, 10, Some(10))),
            (b"bytes 0-4/*", range(0, 5, None)),
            (b"Bytes 0-0/1", range(0, 1, Some(1))),
            (b"bytes 0-4/5", range(0, 5, Some(5))),
            (b"bytes 0-5/5", None),
            (b"bytes 5-4/10", None),
            (b"bytes */10", None),
            (b"bytes 0-4", None),
            (b"bytes=0-4/10", None),
            (b"items 0-4/10", None),
            (b"bytes 0-18446744073709551615/*", None),
            (b"", None),
        ];
        for (value, expected) in table {
            let read = ContentRange::parse(value);
            assert_eq!(read, *expected, "{:?}", String::from_utf8_lossy(value));
            if let Some(read) = read {
                let mut written = Vec::new();
                read.write(&mut written);
                assert!(written.eq_ignore_ascii_case(value));
            }
        }
        let mut written = Vec::new();
        write_unsatisfied(47, &mut written);
        assert_eq!(written, b"bytes */47");
    }
}
