//! The fields of a message in their order, names' case kept.
//!
//! Names and values each live in one buffer that `clear` empties and keeps, so a reused value allocates
//! nothing; those of a request lie there as they came, so that the next one's can be compared with them. Values are
//! octets (obs-text included). It knows no field by name, and refuses nothing: what comes from the network has passed
//! `head`, and what we push ourselves must be a token and a field value.

use std::fmt;
use std::ops::Range;

use super::syntax::{Members, members};

#[derive(Clone, Default)]
pub struct Headers {
    names: String,
    values: Vec<u8>,
    /// So many octets of `values` are the section that the fields were read from; 0: they were not, or were changed since.
    section: u32,
    fields: Vec<Field>,
    /// A bit for each name that was added, which others may share: most questions are about fields that are not there.
    marks: u64,
}

/// The same fields in the same order, whatever was removed on the way.
impl PartialEq for Headers {
    fn eq(&self, other: &Headers) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

/// Where a field's name and value lie in the two buffers.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Field {
    name: u32,
    name_end: u32,
    value: u32,
    value_end: u32,
}

impl Headers {
    pub fn new() -> Headers {
        Headers::default()
    }

    /// Forgets all fields and keeps the memory.
    pub fn clear(&mut self) {
        self.names.clear();
        self.values.clear();
        self.fields.clear();
        self.marks = 0;
        self.section = 0;
    }

    /// There are none; now come those of a section that has been read to its blank line: `read` says which.
    pub(super) fn begin_section(&mut self, section: &[u8]) {
        debug_assert!(self.values.is_empty());
        self.values.extend_from_slice(section);
        self.section = section.len() as u32;
    }

    /// A field of the section, whose value has that place in it.
    pub(super) fn read(&mut self, name: &str, value: Range<usize>) {
        let field = Field {
            name: self.names.len() as u32,
            name_end: (self.names.len() + name.len()) as u32,
            value: value.start as u32,
            value_end: value.end as u32,
        };
        self.names.push_str(name);
        self.marks |= mark(name);
        self.fields.push(field);
    }

    /// The section that the fields were read from, if they are still the same; else empty.
    pub(super) fn section(&self) -> &[u8] {
        &self.values[..self.section as usize]
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Makes room for so many fields, and for so many octets of names and of values.
    pub fn reserve(&mut self, fields: usize, names: usize, values: usize) {
        self.fields.reserve(fields);
        self.names.reserve(names);
        self.values.reserve(values);
    }

    pub fn push(&mut self, name: &str, value: &[u8]) {
        let field = self.append(name, value);
        self.fields.push(field);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields
            .iter()
            .map(|field| (self.name(field), self.value(field)))
    }

    /// The first field of that name.
    #[inline]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.that_may_be(name).iter();
        let field = fields.find(|field| self.is(field, name))?;
        Some(self.value(field))
    }

    #[inline]
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.that_may_be(name)
            .iter()
            .filter(move |field| self.is(field, name))
            .map(|field| self.value(field))
    }

    pub fn count(&self, name: &str) -> usize {
        self.get_all(name).count()
    }

    #[inline]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// None of the fields where none has that name for certain, else all.
    #[inline]
    fn that_may_be(&self, name: &str) -> &[Field] {
        match self.marks & mark(name) {
            0 => &[],
            _ => &self.fields,
        }
    }

    /// One field of that name with that value, in the place of the first there was, or at the end.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        let new = self.append(name, value);
        let mut place = Some(new);
        let (names, fields) = (&self.names, &mut self.fields);
        fields.retain_mut(|field| {
            if !is(names, field, name) {
                return true;
            }
            match place.take() {
                Some(new) => {
                    *field = new;
                    true
                }
                None => false,
            }
        });
        if let Some(new) = place {
            self.fields.push(new);
        }
    }

    /// Whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        self.section = 0;
        let before = self.fields.len();
        let names = &self.names;
        self.fields.retain(|field| !is(names, field, name));
        self.fields.len() != before
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&str, &[u8]) -> bool) {
        self.section = 0;
        let (names, values) = (&self.names, &self.values);
        self.fields.retain(|field| {
            keep(
                &names[field.name as usize..field.name_end as usize],
                &values[field.value as usize..field.value_end as usize],
            )
        });
    }

    /// The members of a list-based field over all its lines.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name)
            .flat_map(|value| -> Members<'a> { members(value) })
    }

    /// Whether the list holds that token, in any case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name)
            .any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// `Name: value CRLF` for each field, without the blank line.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.written());
        for (name, value) in self.iter() {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Octets that `write` appends.
    pub fn written(&self) -> usize {
        let lines = self
            .iter()
            .map(|(name, value)| name.len() + value.len() + 4);
        lines.sum()
    }

    /// Octets of memory held, for accounts.
    pub fn memory(&self) -> usize {
        self.names.capacity() + self.values.capacity() + self.fields.capacity() * size_of::<Field>()
    }

    fn append(&mut self, name: &str, value: &[u8]) -> Field {
        let field = Field {
            name: self.names.len() as u32,
            name_end: (self.names.len() + name.len()) as u32,
            value: self.values.len() as u32,
            value_end: (self.values.len() + value.len()) as u32,
        };
        self.names.push_str(name);
        self.values.extend_from_slice(value);
        self.marks |= mark(name);
        self.section = 0;
        field
    }

    fn name(&self, field: &Field) -> &str {
        &self.names[field.name as usize..field.name_end as usize]
    }

    fn value(&self, field: &Field) -> &[u8] {
        &self.values[field.value as usize..field.value_end as usize]
    }

    fn is(&self, field: &Field, name: &str) -> bool {
        is(&self.names, field, name)
    }
}

/// One bit of 64, the same for a name in any case.
#[inline]
fn mark(name: &str) -> u64 {
    let first = name.as_bytes().first().map_or(0, |octet| octet | 0x20);
    1 << ((name.len() * 11 + usize::from(first)) % 64)
}

// RFC 9110 5.1: "Field names are case-insensitive"
#[inline]
fn is(names: &str, field: &Field, name: &str) -> bool {
    (field.name_end - field.name) as usize == name.len()
        && names.as_bytes()[field.name as usize..field.name_end as usize]
            .eq_ignore_ascii_case(name.as_bytes())
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.iter()
                    .map(|(name, value)| (name, String::from_utf8_lossy(value))),
            )
            .finish()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Headers {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(fields: I) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.push(name, value.as_bytes());
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Headers {
        [
            ("Host", "a"),
            ("X", "1"),
            ("x", "2"),
            ("Accept", "b, c;q=\"1,2\""),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn names_are_found_in_any_case_and_keep_their_own() {
        let headers = sample();
        assert_eq!(headers.get("HOST"), Some(&b"a"[..]));
        assert_eq!(headers.get_all("x").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(
            (headers.count("X"), headers.contains("y"), headers.len()),
            (2, false, 4)
        );
        let mut out = Vec::new();
        headers.write(&mut out);
        assert_eq!(
            out,
            b"Host: a\r\nX: 1\r\nx: 2\r\nAccept: b, c;q=\"1,2\"\r\n"
        );
    }

    #[test]
    fn set_takes_the_place_of_the_first() {
        let mut headers = sample();
        headers.set("x", b"new");
        headers.set("Via", b"v");
        let fields: Vec<_> = headers
            .iter()
            .map(|(n, v)| format!("{n}={}", String::from_utf8_lossy(v)))
            .collect();
        assert_eq!(
            fields,
            ["Host=a", "x=new", "Accept=b, c;q=\"1,2\"", "Via=v"]
        );
    }

    #[test]
    fn remove_retain_clear() {
        let mut headers = sample();
        assert!(headers.remove("X") && !headers.remove("X"));
        headers.retain(|name, _| name != "Host");
        assert_eq!(headers.len(), 1);
        headers.clear();
        assert!(headers.is_empty());
        headers.push("A", b"\xff\t.");
        assert_eq!(headers.get("a"), Some(&b"\xff\t."[..]));
    }

    #[test]
    fn lists_run_over_lines() {
        let mut headers = sample();
        headers.push("accept", b",d ,");
        assert_eq!(
            headers.list("Accept").collect::<Vec<_>>(),
            [&b"b"[..], b"c;q=\"1,2\"", b"d"]
        );
        assert!(headers.has_token("accept", "D") && !headers.has_token("accept", "c"));
    }
}
