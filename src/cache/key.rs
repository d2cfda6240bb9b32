//! The name of what is cached: the target URI in normal form (RFC 9111 section 2).
//!
//! The whole key is always compared; its hash only says where to look and which version slot counts. HEAD uses
//! GET's key. What came through a reverse listener has a space of its own: see [`Side`]. The exchange makes keys;
//! stores hold them.

use std::borrow::Borrow;
use std::sync::Arc;

use crate::http::TargetUri;

/// Many hold the same one while its response is on its way: a copy is the same text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<[u8]>);

/// On whose word the authority in a target URI is where the response comes from.
///
/// A forward proxy connects to it. A reverse proxy asks its configured origin whatever Host says, so that a client
/// could make that origin speak for any name: neither side's responses may answer the other's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Forward,
    Reverse,
}

impl Key {
    pub fn of(uri: &TargetUri, side: Side) -> Key {
        let mut text = Vec::with_capacity(32 + uri.path_and_query.len());
        write(uri, side, &mut text);
        Key(text.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Appends the text of the key. No URI holds a space: the prefix cannot be imitated.
pub fn write(uri: &TargetUri, side: Side, out: &mut Vec<u8>) {
    if side == Side::Reverse {
        out.extend_from_slice(REVERSE);
    }
    uri.write_key(out);
}

/// The side and the URI of a key's text.
pub fn parts(key: &[u8]) -> (Side, &[u8]) {
    match key.strip_prefix(REVERSE) {
        Some(uri) => (Side::Reverse, uri),
        None => (Side::Forward, key),
    }
}

const REVERSE: &[u8] = b"reverse ";

impl From<&[u8]> for Key {
    fn from(text: &[u8]) -> Key {
        Key(text.into())
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// A hash of the key that is the same in all processes. It is no identity: it only spreads.
pub fn hash(key: &[u8]) -> u64 {
    const MULTIPLIER: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let mix = |state: u64, word: u64| {
        let product = u128::from(state ^ word).wrapping_mul(MULTIPLIER);
        (product >> 64) as u64 ^ product as u64
    };
    let (words, rest) = key.as_chunks::<8>();
    let mut state = mix(0x2545_f491_4f6c_dd1d, key.len() as u64);
    for word in words {
        state = mix(state, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(mix(state, u64::from_le_bytes(last)), 0x6a09_e667_f3bc_c908)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_hash_spreads_and_never_changes() {
        let slots: HashSet<_> = (0..4096)
            .map(|n| hash(format!("http://a/{n}").as_bytes()) & 0xffff)
            .collect();
        assert!(slots.len() > 3800, "{}", slots.len());
        let high: HashSet<_> = (0..4096)
            .map(|n| hash(format!("http://a/{n}").as_bytes()) >> 48)
            .collect();
        assert!(high.len() > 3800, "{}", high.len());
        assert_ne!(hash(b"a"), hash(b"a\0"));
        assert_ne!(hash(b""), hash(b"\0"));
    }
}
