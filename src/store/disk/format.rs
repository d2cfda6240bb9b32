//! A head file as octets: what is kept of a response, where its body is, and by what damage shows.
//!
//! Pure: octets in, a value out, and back. A head is complete, of this version and undamaged, or it is no head at
//! all. It holds whole what names it (the key, the selecting fields), so that a file in another one's place is
//! found out. A small body follows it in the same file. `place` finds the files; stores and the janitor read them.
//!
//! ```text
//! 0   "baton" NUL            14  CRC-32 of octets 0 to 14 and of 18 to the head's end
//! 6   version, u32           18  what follows, in the order of `Head::encode`; numbers are little-endian
//! 10  length of the head     …   zeros up to a page, before an inline body that the kernel sends
//!                            …   the body, if it is inline
//! ```

use crate::cache::control::Speaker;
use crate::cache::vary::Selection;
use crate::cache::{CacheControl, Lifetime, Part, Source, Stored, Times};
use crate::http::Headers;
use crate::http::head::write_status_line;
use crate::http::range::Span;
use crate::store::MAX_VARIANTS;

/// Rises with any change of the layout, and of what selections are equal; files of another version are misses, and are swept.
const VERSION: u32 = 5;
/// The same with zeros behind it.
const PADDED: u32 = 6;
const MAGIC: &[u8; 6] = b"baton\0";
/// Magic, version, length.
const PREFIX: usize = 14;
const START: usize = PREFIX + 4;

/// Octets of a body that have a checksum of their own.
pub const BLOCK: usize = 256 << 10;
/// Largest body that is kept in the head's own file: making a second one costs more than anything else.
pub const INLINE: usize = BLOCK;
/// Inline bodies of more than that begin with a page of the file: one that lies across pages needs one page more than a packet
/// of the kernel's holds beside a head, and what is then sent in two goes out at twice the cost.
pub const SENT: usize = 16 << 10;
const PAGE: usize = 4096;
/// Longest head that is read at all.
pub const MAX_HEAD: usize = 24 << 20;
/// Lists of field names that are remembered of a key; the oldest goes.
pub const MAX_LISTS: usize = 4;

/// What a head file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub key: Vec<u8>,
    /// The directory's generation when the response was asked for.
    pub generation: u64,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Object(Box<Kept>),
    List(List),
}

/// A response, whole but for its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub stored: Stored,
    /// Status line and fields as a hit begins with them.
    pub text: Vec<u8>,
    /// For a variant: the number of the list that it belongs to.
    pub list: Option<u64>,
    pub body: Body,
    /// CRC-32 of each block of the body.
    pub checksums: Vec<u32>,
}

/// Where a body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Behind the head.
    Inline,
    File(File),
}

/// A body in a file of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What its name has behind the head's.
    pub random: u64,
    /// Its last change, and the start of the machine in which it was written: with these unchanged it is trusted.
    pub modified: (i64, u32),
    pub boot: [u8; 16],
}

/// In place of an object: what selects among several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Chosen at random when the list began: variants of a list that is gone are dead.
    pub number: u64,
    /// Field names that Vary has named, as `Selection::names` gives them, the newest last.
    pub names: Vec<Vec<Box<str>>>,
    /// The variants in the order they were added.
    pub variants: Vec<[u8; 8]>,
}

/// Why octets are no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// More octets are needed: the whole head has so many.
    #[error("the head has {0} octets, and not all are there")]
    Short(usize),
    #[error("the file is of another version of the format")]
    Version,
    #[error("the file is damaged")]
    Damaged,
}

pub fn checksum(octets: &[u8]) -> u32 {
    crc32fast::hash(octets)
}

/// Whether a body is the one that has these checksums.
pub fn agrees(body: &[u8], checksums: &[u32]) -> bool {
    body.chunks(BLOCK)
        .map(checksum)
        .eq(checksums.iter().copied())
}

/// The checksums of a body.
pub fn checksums(body: &[u8]) -> Vec<u32> {
    body.chunks(BLOCK).map(checksum).collect()
}

impl Kept {
    /// For a body whose checksums are known.
    pub fn new(stored: Stored, list: Option<u64>, body: Body, checksums: Vec<u32>) -> Kept {
        Kept {
            text: text(&stored),
            stored,
            list,
            body,
            checksums,
        }
    }
}

/// Status line and field lines, without the blank line.
pub fn text(stored: &Stored) -> Vec<u8> {
    // It is kept for long: as large as it has to be.
    let of_status_line = b"HTTP/1.1 200 \r\n".len() + stored.reason.len();
    let mut text = Vec::with_capacity(of_status_line + stored.headers.written());
    write_status_line(stored.status, &stored.reason, &mut text);
    stored.headers.write(&mut text);
    text
}

// === impl Head

impl Head {
    /// For a response whose body is elsewhere, and stays there: it is in no checksum. Another process hears of it so.
    pub fn without_body(key: &[u8], stored: Stored) -> Head {
        let blocks = stored.body_len.div_ceil(BLOCK as u64) as usize;
        let body = Body::File(File {
            random: 0,
            modified: (0, 0),
            boot: [0; 16],
        });
        Head {
            key: key.to_vec(),
            generation: 0,
            content: Content::Object(Box::new(Kept::new(stored, None, body, vec![0; blocks]))),
        }
    }

    /// Appends the head. An inline body is the caller's to append behind it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_before(0, out);
    }

    /// The same, so that an inline body of so many octets has its place behind it.
    pub fn encode_before(&self, body: usize, out: &mut Vec<u8>) {
        let from = out.len();
        out.extend_from_slice(MAGIC);
        u32(VERSION, out);
        u32(0, out);
        u32(0, out);
        u64(self.generation, out);
        counted(&self.key, out);
        match &self.content {
            Content::Object(kept) => encode_object(kept, out),
            Content::List(list) => encode_list(list, out),
        }
        if body > SENT {
            let pages = (out.len() - from).div_ceil(PAGE);
            out.resize(from + pages * PAGE, 0);
            out[from + MAGIC.len()..from + 10].copy_from_slice(&PADDED.to_le_bytes());
        }
        let length = (out.len() - from) as u32;
        out[from + 10..from + PREFIX].copy_from_slice(&length.to_le_bytes());
        let sum = sum_of(&out[from..]);
        out[from + PREFIX..from + START].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads a head from the beginning of a file. Also returns its length: an inline body is behind it.
    pub fn decode(octets: &[u8]) -> Result<(Head, usize), FormatError> {
        let prefix = octets.get(..START).ok_or(FormatError::Short(START))?;
        let mut reader = Reader(prefix);
        if reader.take(MAGIC.len()) != Some(MAGIC) {
            return Err(FormatError::Damaged);
        }
        let version = reader.u32();
        if !matches!(version, Some(VERSION | PADDED)) {
            return Err(FormatError::Version);
        }
        let length = reader.u32().ok_or(FormatError::Damaged)? as usize;
        let sum = reader.u32().ok_or(FormatError::Damaged)?;
        if !(START..=MAX_HEAD).contains(&length) {
            return Err(FormatError::Damaged);
        }
        let whole = octets.get(..length).ok_or(FormatError::Short(length))?;
        if sum_of(whole) != sum {
            return Err(FormatError::Damaged);
        }
        let mut reader = Reader(whole.get(START..).unwrap_or_default());
        let head = decode(&mut reader).ok_or(FormatError::Damaged)?;
        let is_padded = version == Some(PADDED);
        match reader.0.iter().all(|octet| is_padded && *octet == 0) {
            true => Ok((head, length)),
            false => Err(FormatError::Damaged),
        }
    }
}

fn sum_of(whole: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(whole.get(..PREFIX).unwrap_or_default());
    hasher.update(whole.get(START..).unwrap_or_default());
    hasher.finalize()
}

fn encode_object(kept: &Kept, out: &mut Vec<u8>) {
    let stored = &kept.stored;
    out.push(0);
    u32(u32::from(stored.status), out);
    counted(&stored.reason, out);
    counted(&kept.text, out);
    let mut selection = Vec::new();
    stored.selection.write(&mut selection);
    counted(&selection, out);
    u64(stored.times.request as u64, out);
    u64(stored.times.response as u64, out);
    u32(stored.lifetime.seconds, out);
    out.push(stored.lifetime.source.number());
    encode_control(&stored.control, out);
    u32(stored.initial_age, out);
    u64(stored.date as u64, out);
    optional(stored.last_modified.map(|time| time as u64), out);
    optional(stored.purged.map(|time| time as u64), out);
    u64(stored.body_len, out);
    out.push(u8::from(stored.part.is_some()));
    stored.part.iter().for_each(|part| encode_part(part, out));
    optional(kept.list, out);
    match &kept.body {
        Body::Inline => out.push(0),
        Body::File(file) => {
            out.push(1);
            u64(file.random, out);
            u64(file.modified.0 as u64, out);
            u32(file.modified.1, out);
            out.extend_from_slice(&file.boot);
        }
    }
    u32(kept.checksums.len() as u32, out);
    kept.checksums.iter().for_each(|sum| u32(*sum, out));
}

/// What another field than Cache-Control says: that field may not have been kept, and the names of such fields are the
/// operator's to change. Cache-Control itself is read again.
fn encode_control(control: &CacheControl, out: &mut Vec<u8>) {
    out.push(match control.spoken_by {
        Speaker::CacheControl => return out.push(0),
        Speaker::Surrogate => 1,
        Speaker::Targeted => 2,
    });
    let mut copy = *control;
    let (mut flags, mut bit) = (0, 1);
    for flag in copy.flags() {
        flags |= if *flag { bit } else { 0 };
        bit <<= 1;
    }
    u32(flags, out);
    for seconds in copy.times() {
        optional(seconds.map(u64::from), out);
    }
}

/// Some(None): what Cache-Control says counts.
fn decode_control(reader: &mut Reader<'_>) -> Option<Option<CacheControl>> {
    let spoken_by = match reader.u8()? {
        0 => return Some(None),
        1 => Speaker::Surrogate,
        2 => Speaker::Targeted,
        _ => return None,
    };
    let mut control = CacheControl {
        present: true,
        spoken_by,
        ..CacheControl::default()
    };
    let mut flags = reader.u32()?;
    for flag in control.flags() {
        *flag = flags & 1 == 1;
        flags >>= 1;
    }
    for seconds in control.times() {
        *seconds = reader.optional()?.and_then(|it| u32::try_from(it).ok());
    }
    Some(Some(control))
}

fn encode_list(list: &List, out: &mut Vec<u8>) {
    out.push(1);
    u64(list.number, out);
    u32(list.names.len() as u32, out);
    for names in &list.names {
        u32(names.len() as u32, out);
        names.iter().for_each(|name| counted(name.as_bytes(), out));
    }
    u32(list.variants.len() as u32, out);
    list.variants
        .iter()
        .for_each(|variant| out.extend_from_slice(variant));
}

fn decode(reader: &mut Reader<'_>) -> Option<Head> {
    Some(Head {
        generation: reader.u64()?,
        key: reader.counted()?.to_vec(),
        content: match reader.u8()? {
            0 => Content::Object(Box::new(decode_object(reader)?)),
            1 => Content::List(decode_list(reader)?),
            _ => return None,
        },
    })
}

fn decode_object(reader: &mut Reader<'_>) -> Option<Kept> {
    let status = u16::try_from(reader.u32()?).ok()?;
    let reason = reader.counted()?.to_vec();
    let text = reader.counted()?.to_vec();
    let headers = fields(&text)?;
    let selection = Selection::read(reader.counted()?)?;
    let times = Times {
        request: reader.time()?,
        response: reader.time()?,
    };
    let lifetime = Lifetime {
        seconds: reader.u32()?,
        source: Source::from_number(reader.u8()?)?,
    };
    let control = decode_control(reader)?;
    let stored = Stored {
        status,
        reason,
        selection,
        times,
        lifetime,
        initial_age: reader.u32()?,
        control: control.unwrap_or_else(|| CacheControl::of(&headers)),
        headers,
        date: reader.time()?,
        last_modified: optional_time(reader.optional()?)?,
        purged: optional_time(reader.optional()?)?,
        body_len: reader.u64()?,
        part: None,
    };
    let part = match reader.u8()? {
        0 => None,
        1 => Some(Box::new(decode_part(reader, stored.body_len)?)),
        _ => return None,
    };
    let stored = Stored { part, ..stored };
    let list = reader.optional()?;
    let body = match reader.u8()? {
        // Whoever reads it makes room for all of it.
        0 if stored.body_len <= INLINE as u64 => Body::Inline,
        1 => Body::File(decode_file(reader)?),
        _ => return None,
    };
    let sums = reader.u32()?;
    if u64::from(sums) != stored.body_len.div_ceil(BLOCK as u64) {
        return None;
    }
    Some(Kept {
        stored,
        text,
        list,
        body,
        checksums: (0..sums).map(|_| reader.u32()).collect::<Option<_>>()?,
    })
}

/// Seconds that can be added up: no clock and no date says others.
fn is_time(seconds: i64) -> bool {
    (-(1 << 40)..1 << 40).contains(&seconds)
}

fn optional_time(octets: Option<u64>) -> Option<Option<i64>> {
    match octets.map(u64::cast_signed) {
        Some(seconds) if !is_time(seconds) => None,
        time => Some(time),
    }
}

fn decode_file(reader: &mut Reader<'_>) -> Option<File> {
    Some(File {
        random: reader.u64()?,
        modified: (reader.u64()? as i64, reader.u32()?),
        boot: *reader.take(16)?.first_chunk()?,
    })
}

/// The octets of the representation that a body of `length` octets has, where they are not all.
fn encode_part(part: &Part, out: &mut Vec<u8>) {
    optional(part.complete, out);
    counted(part.asked.as_deref().unwrap_or_default(), out);
    u32(part.spans.len() as u32, out);
    for span in &part.spans {
        u64(span.from, out);
        u64(span.to, out);
    }
}

fn decode_part(reader: &mut Reader<'_>, length: u64) -> Option<Part> {
    let complete = reader.optional()?;
    let asked = reader.counted()?;
    let count = reader.u32()?;
    let (mut spans, mut octets, mut end) = (Vec::new(), 0u64, 0);
    for _ in 0..count {
        let span = Span {
            from: reader.u64()?,
            to: reader.u64()?,
        };
        if span.is_empty() || span.from < end {
            return None;
        }
        end = span.to;
        octets = octets.checked_add(span.len())?;
        spans.push(span);
    }
    (octets == length).then(|| Part {
        spans,
        complete,
        asked: (!asked.is_empty()).then(|| asked.into()),
    })
}

fn decode_list(reader: &mut Reader<'_>) -> Option<List> {
    let number = reader.u64()?;
    // Each costs whoever looks up a head more, or whoever removes.
    let lists = reader.u32().filter(|lists| *lists <= MAX_LISTS as u32)?;
    let names = (0..lists)
        .map(|_| {
            let names = reader.u32()?;
            (0..names)
                .map(|_| std::str::from_utf8(reader.counted()?).ok().map(Box::from))
                .collect()
        })
        .collect::<Option<_>>()?;
    let variants = reader.u32().filter(|it| *it <= MAX_VARIANTS as u32)?;
    Some(List {
        number,
        names,
        variants: (0..variants)
            .map(|_| reader.take(8)?.first_chunk().copied())
            .collect::<Option<_>>()?,
    })
}

/// The fields of a text that `text` wrote.
fn fields(text: &[u8]) -> Option<Headers> {
    let mut headers = Headers::new();
    headers.reserve(text.len() / 32, text.len() / 3, text.len());
    let mut rest = text;
    let mut is_field = false;
    while !rest.is_empty() {
        let end = memchr::memchr(b'\n', rest)?;
        let line = rest.get(..end)?.strip_suffix(b"\r")?;
        rest = rest.get(end + 1..)?;
        if is_field {
            let colon = memchr::memchr(b':', line)?;
            let name = std::str::from_utf8(line.get(..colon)?).ok()?;
            headers.push(name, line.get(colon + 2..)?);
        }
        is_field = true;
    }
    Some(headers)
}

// === numbers

fn u32(number: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn u64(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn optional(number: Option<u64>, out: &mut Vec<u8>) {
    out.push(u8::from(number.is_some()));
    u64(number.unwrap_or(0), out);
}

fn counted(octets: &[u8], out: &mut Vec<u8>) {
    u32(octets.len() as u32, out);
    out.extend_from_slice(octets);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn time(&mut self) -> Option<i64> {
        Some(self.u64()?.cast_signed()).filter(|seconds| is_time(*seconds))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(*self.take(4)?.first_chunk()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(*self.take(8)?.first_chunk()?))
    }

    fn optional(&mut self) -> Option<Option<u64>> {
        let present = self.u8()? == 1;
        let number = self.u64()?;
        Some(present.then_some(number))
    }

    fn counted(&mut self) -> Option<&'a [u8]> {
        let count = self.u32()? as usize;
        self.take(count)
    }
}

#[cfg(test)]
mod tests;
