//! Which stored response a request selects (RFC 9111 section 4.1).
//!
//! Values are compared member by member of their lists, so white space around commas and the way that lines are
//! split make no difference; an absent field and an empty one do. Nothing is allocated to compare. `stored`
//! makes the value, stores compare with it.

use crate::http::Headers;
use crate::http::syntax::members;

/// The request fields that a stored response was selected by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    fields: Vec<Selecting>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Selecting {
    /// In lower case.
    name: Box<str>,
    /// The members with commas between them; None: the request had no such field.
    value: Option<Box<[u8]>>,
}

/// 4.1: "A stored response with a Vary header field value containing a member "*" always fails to match."
pub fn is_any(response: &Headers) -> bool {
    response.list("vary").any(|member| member == b"*")
}

impl Selection {
    pub fn of(request: &Headers, response: &Headers) -> Selection {
        let mut names: Vec<Box<str>> = response
            .list("vary")
            .filter_map(|name| std::str::from_utf8(name).ok())
            .map(|name| name.to_ascii_lowercase().into())
            .collect();
        names.sort_unstable();
        names.dedup();
        Selection::by(names.iter().map(|name| &**name), request)
    }

    /// What a request selects by these names, which are in lower case, in order and each there once.
    pub fn by<'a>(names: impl Iterator<Item = &'a str>, request: &Headers) -> Selection {
        let fields = names.map(|name| Selecting {
            name: name.into(),
            value: combined(request, name),
        });
        Selection {
            fields: fields.collect(),
        }
    }

    /// The names by which it selects, as `by` wants them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| &*field.name)
    }

    /// The names with what the request had under them; none: it had no such field.
    pub fn fields(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.fields
            .iter()
            .map(|field| (&*field.name, field.value.as_deref()))
    }

    /// Whether every request selects it.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Appends octets that are equal exactly where selections are, and that `read` reads.
    pub fn write(&self, out: &mut Vec<u8>) {
        for field in &self.fields {
            write_counted(field.name.as_bytes(), out);
            match &field.value {
                None => out.push(0),
                Some(value) => {
                    out.push(1);
                    write_counted(value, out);
                }
            }
        }
    }

    /// Reads what `write` wrote; none: it is something else.
    pub fn read(mut octets: &[u8]) -> Option<Selection> {
        let mut fields = Vec::new();
        while !octets.is_empty() {
            let name = std::str::from_utf8(counted(&mut octets)?).ok()?.into();
            let (present, rest) = octets.split_first()?;
            octets = rest;
            let value = match present {
                0 => None,
                1 => Some(counted(&mut octets)?.into()),
                _ => return None,
            };
            fields.push(Selecting { name, value });
        }
        Some(Selection { fields })
    }

    /// Whether a request with these fields selects the same response.
    pub fn matches(&self, request: &Headers) -> bool {
        self.fields.iter().all(|field| match &field.value {
            None => !request.contains(&field.name),
            Some(value) => {
                request.contains(&field.name) && request.list(&field.name).eq(members(value))
            }
        })
    }

    pub fn memory(&self) -> usize {
        self.fields
            .iter()
            .map(|field| {
                40 + field.name.len() + field.value.as_ref().map_or(0, |value| value.len())
            })
            .sum()
    }
}

fn write_counted(octets: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(octets.len() as u32).to_le_bytes());
    out.extend_from_slice(octets);
}

fn counted<'a>(octets: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = octets.split_first_chunk()?;
    let (counted, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *octets = rest;
    Some(counted)
}

fn combined(request: &Headers, name: &str) -> Option<Box<[u8]>> {
    if !request.contains(name) {
        return None;
    }
    let mut value = Vec::new();
    for member in request.list(name) {
        if !value.is_empty() {
            value.push(b',');
        }
        value.extend_from_slice(member);
    }
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> Headers {
        fields.iter().copied().collect()
    }

    #[test]
    fn selection() {
        let vary = headers(&[("Vary", "Accept-Language, , X"), ("Vary", "x")]);
        let first = headers(&[("Accept-Language", "de, en;q=0.5"), ("Cookie", "a")]);
        let selection = Selection::of(&first, &vary);
        for (fields, expected) in [
            (&[("accept-language", "de, en;q=0.5")][..], true),
            (
                &[("Accept-Language", "de  ,,en;q=0.5"), ("Cookie", "b")],
                true,
            ),
            (
                &[("Accept-Language", "de"), ("Accept-Language", "en;q=0.5")],
                true,
            ),
            (&[("Accept-Language", "en;q=0.5, de")], false),
            (&[("Accept-Language", "DE, en;q=0.5")], false),
            (&[("Accept-Language", "de")], false),
            (&[], false),
            (&[("Accept-Language", "de, en;q=0.5"), ("X", "")], false),
        ] {
            assert_eq!(selection.matches(&headers(fields)), expected, "{fields:?}");
        }
        let empty = Selection::of(&headers(&[("X", "")]), &headers(&[("Vary", "x")]));
        assert!(empty.matches(&headers(&[("X", " , ")])) && !empty.matches(&headers(&[])));
        assert!(Selection::of(&first, &headers(&[])).matches(&headers(&[])));
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let vary = headers(&[("Vary", "b, A")]);
        for fields in [&[][..], &[("A", "1 ,2")], &[("a", ""), ("B", "x")]] {
            let selection = Selection::of(&headers(fields), &vary);
            let mut octets = Vec::new();
            selection.write(&mut octets);
            assert_eq!(Selection::read(&octets), Some(selection.clone()));
            assert!(
                (1..octets.len())
                    .all(|end| Selection::read(&octets[..end]) != Some(selection.clone()))
            );
            let again = Selection::by(selection.names(), &headers(fields));
            assert_eq!(again, selection);
        }
    }

    #[test]
    fn a_star_anywhere() {
        for (lines, expected) in [
            (&[("Vary", "*")][..], true),
            (&[("Vary", "a, *")], true),
            (&[("Vary", "a"), ("Vary", "b , * ")], true),
            (&[("Vary", "a, b*")], false),
            (&[], false),
        ] {
            assert_eq!(is_any(&headers(lines)), expected);
        }
    }
}
