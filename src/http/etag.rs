//! Entity tags (RFC 9110 section 8.8.3): reading one, reading a list, the two comparisons.
//!
//! A tag is compared octet for octet and never looked into. `conditional` and the cache rules call it.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityTag<'a> {
    pub weak: bool,
    /// Without the quotes.
    pub opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Exactly one tag.
    pub fn parse(text: &'a [u8]) -> Option<EntityTag<'a>> {
        match EntityTag::take(text)? {
            (tag, []) => Some(tag),
            _ => None,
        }
    }

    /// A tag at the start of `text`, and the rest.
    fn take(text: &'a [u8]) -> Option<(EntityTag<'a>, &'a [u8])> {
        // entity-tag = [ weak ] opaque-tag, weak = %s"W/" (case-sensitive), opaque-tag = DQUOTE *etagc DQUOTE
        let (weak, text) = match text {
            [b'W', b'/', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let inside = text.strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', inside)?;
        // etagc = %x21 / %x23-7E / obs-text; a backslash is an octet like another.
        let is_etagc = |c: &u8| matches!(c, 0x21 | 0x23..=0x7e | 0x80..);
        let opaque = &inside[..end];
        opaque
            .iter()
            .all(is_etagc)
            .then_some((EntityTag { weak, opaque }, &inside[end + 1..]))
    }

    /// "two entity tags are equivalent if both are not weak and their opaque-tags match character-by-character"
    pub fn strong_eq(self, other: EntityTag<'_>) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// "two entity tags are equivalent if their opaque-tags match character-by-character, regardless of either or both
    /// being tagged as "weak""
    pub fn weak_eq(self, other: EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }
}

/// The tags of a list value; what is none is skipped up to the next comma.
pub fn list(value: &[u8]) -> impl Iterator<Item = EntityTag<'_>> {
    let mut rest = value;
    std::iter::from_fn(move || {
        loop {
            while let [b' ' | b'\t' | b',', after @ ..] = rest {
                rest = after;
            }
            if rest.is_empty() {
                return None;
            }
            let taken = EntityTag::take(rest);
            let after = taken.map_or(rest, |(_, after)| after);
            let comma = memchr::memchr(b',', after).unwrap_or(after.len());
            let clean = super::syntax::trim(&after[..comma]).is_empty();
            rest = &after[comma..];
            if let (Some((tag, _)), true) = (taken, clean) {
                return Some(tag);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tag() {
        let tag = |weak, opaque| Some(EntityTag { weak, opaque });
        for (text, expected) in [
            (&b"\"a\""[..], tag(false, &b"a"[..])),
            (b"W/\"a\"", tag(true, b"a")),
            (b"\"\"", tag(false, b"")),
            (b"\"a\\\"", tag(false, b"a\\")),
            (b"\"\xff\"", tag(false, b"\xff")),
            (b"w/\"a\"", None),
            (b"W/ \"a\"", None),
            (b"a", None),
            (b"\"a", None),
            (b"\"a b\"", None),
            (b"\"a\"b", None),
            (b"", None),
        ] {
            assert_eq!(EntityTag::parse(text), expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn lists() {
        let opaque = |value: &'static str| {
            list(value.as_bytes())
                .map(|tag| String::from_utf8_lossy(tag.opaque).into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(opaque("\"a,b\" , W/\"c\\\",, \"d\""), ["a,b", "c\\", "d"]);
        assert_eq!(opaque("junk, \"a\" x, \"b\""), ["b"]);
        assert_eq!(opaque(" ,"), Vec::<String>::new());
    }

    #[test]
    fn comparisons_of_the_rfc_table() {
        let parse = |text: &'static [u8]| EntityTag::parse(text).unwrap();
        for (a, b, strong, weak) in [
            (&b"W/\"1\""[..], &b"W/\"1\""[..], false, true),
            (b"W/\"1\"", b"W/\"2\"", false, false),
            (b"W/\"1\"", b"\"1\"", false, true),
            (b"\"1\"", b"\"1\"", true, true),
        ] {
            assert_eq!(
                (parse(a).strong_eq(parse(b)), parse(a).weak_eq(parse(b))),
                (strong, weak)
            );
        }
    }
}
