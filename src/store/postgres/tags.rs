//! Tags as the column `tags` has them: text, in order, each once.
//!
//! PostgreSQL takes no NUL and no octets that are no UTF-8 for text, and nothing very long into an index. Whoever asks for a tag asks for what
//! the column makes of it.

use sha2::{Digest, Sha256};

use crate::cache::name::hexadecimal;
use crate::cache::tags::tags;
use crate::http::Headers;

/// Octets of a tag; of a longer one the digest stands in its place.
const LONGEST: usize = 256;

/// The column of a response.
pub fn column(headers: &Headers) -> Vec<String> {
    let mut all: Vec<String> = tags(headers).map(one).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// What the column has for a tag.
pub fn one(tag: &[u8]) -> String {
    if tag.len() > LONGEST {
        let mut text = b"sha256:".to_vec();
        hexadecimal(&Sha256::digest(tag), &mut text);
        return String::from_utf8_lossy(&text).into_owned();
    }
    String::from_utf8_lossy(tag).replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_takes_any_tag() {
        let mut headers = Headers::new();
        headers.push("Cache-Tag", b"b, a,b");
        headers.push("Surrogate-Key", b"c \xff");
        headers.push("Cache-Tag", &[b'x'; 257]);
        let column = column(&headers);
        assert_eq!(column[..3], ["a", "b", "c"]);
        assert_eq!(column.len(), 5);
        assert!(column[3].starts_with("sha256:") && column[3].len() == 71);
        assert_eq!(column[3], one(&[b'x'; 257]));
        assert_eq!(one(b"a\0"), "a\u{fffd}");
    }
}
