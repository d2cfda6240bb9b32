//! The names by which an origin server lets several responses be purged at once: Cache-Tag and Surrogate-Key.
//!
//! Neither has an RFC. Members of Cache-Tag are separated by commas, as its inventors at CDNs have it, those of Surrogate-Key by
//! spaces; a tag is compared octet for octet.

use crate::http::Headers;
use crate::http::syntax::trim;

/// The tags of a response, in the order of its fields, doubles included.
pub fn tags(headers: &Headers) -> impl Iterator<Item = &[u8]> {
    headers.iter().flat_map(|(name, value)| {
        let separator = match name.len() {
            9 if name.eq_ignore_ascii_case("cache-tag") => Some(b','),
            13 if name.eq_ignore_ascii_case("surrogate-key") => Some(b' '),
            _ => None,
        };
        let value = separator.map(|_| value).unwrap_or_default();
        let members = value.split(move |octet| match separator {
            Some(b' ') => matches!(octet, b' ' | b'\t'),
            _ => *octet == b',',
        });
        members.map(trim).filter(|member| !member.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_what_the_separators_leave() {
        for (name, value, expected) in [
            ("Cache-Tag", "a", &["a"][..]),
            ("cache-tag", " a , b c,,B", &["a", "b c", "B"]),
            ("Cache-Tag", " , ", &[]),
            ("Surrogate-Key", "a b\tc  d,e", &["a", "b", "c", "d,e"]),
            ("SURROGATE-KEY", "", &[]),
            ("Cache-Tags", "a", &[]),
            ("Surrogate-Kez", "a", &[]),
        ] {
            let mut headers = Headers::new();
            headers.push(name, value.as_bytes());
            let expected: Vec<&[u8]> = expected.iter().map(|tag| tag.as_bytes()).collect();
            assert_eq!(
                tags(&headers).collect::<Vec<_>>(),
                expected,
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn all_lines_count() {
        let mut headers = Headers::new();
        headers.push("Cache-Tag", b"a,b");
        headers.push("Surrogate-Key", b"c");
        headers.push("Cache-Tag", b"d");
        let all: Vec<&[u8]> = tags(&headers).collect();
        assert_eq!(all, [&b"a"[..], b"b", b"c", b"d"]);
    }
}
