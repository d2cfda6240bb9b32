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
        let fields = names
            .into_iter()
            .map(|name| Selecting {
                value: combined(request, &name),
                name,
            })
            .collect();
        Selection { fields }
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
