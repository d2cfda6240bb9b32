//! The name under which a stored response is found: a digest of its key, and of what Vary selected.
//!
//! A name is no identity: whoever finds something under it compares the whole key (and the selecting fields).
//! It is the first half of SHA-256 over the key, so `printf %s URL | sha256sum` begins with it.

use sha2::{Digest, Sha256};

/// Sixteen octets of the key's digest, eight of the selecting fields' (zero where nothing selects).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    pub base: [u8; 16],
    pub variant: [u8; 8],
}

impl Name {
    /// Of what is kept under a key as a whole.
    pub fn of(key: &[u8]) -> Name {
        Name {
            base: first(&Sha256::digest(key)),
            variant: [0; 8],
        }
    }

    /// Of the variant that these selecting fields (in a form that is equal where they are) choose.
    pub fn variant(self, selection: &[u8]) -> Name {
        let mut variant: [u8; 8] = first(&Sha256::digest(selection));
        // Zero means the base.
        variant[0] |= 1;
        Name { variant, ..self }
    }

    /// Under which everything is found that this is a variant of.
    pub fn of_base(self) -> Name {
        Name {
            variant: [0; 8],
            ..self
        }
    }

    pub fn is_base(&self) -> bool {
        self.variant == [0; 8]
    }

    /// A number that spreads as well as the name does, for tables.
    pub fn hash(&self) -> u64 {
        let half = |from: usize| u64::from_le_bytes(first(&self.base[from..]));
        half(0) ^ half(8).rotate_left(32) ^ u64::from_le_bytes(self.variant)
    }

    /// Which of the 4096 directories it is in: the first three digits.
    pub fn directory(&self) -> u16 {
        u16::from(self.base[0]) << 4 | u16::from(self.base[1] >> 4)
    }

    /// `DIGITS`, or `DIGITS-DIGITS` for a variant: 32 and 16 hexadecimal ones.
    pub fn write(&self, out: &mut Vec<u8>) {
        hexadecimal(&self.base, out);
        if !self.is_base() {
            out.push(b'-');
            hexadecimal(&self.variant, out);
        }
    }

    /// Reads what `write` wrote; nothing else is a name.
    pub fn parse(text: &[u8]) -> Option<Name> {
        let (base, variant) = match text.split_at_checked(32)? {
            (base, []) => (base, None),
            (base, [b'-', variant @ ..]) => (base, Some(variant)),
            _ => return None,
        };
        let name = Name {
            base: octets(base)?,
            variant: match variant {
                Some(digits) => octets(digits)?,
                None => [0; 8],
            },
        };
        (variant.is_some() != name.is_base()).then_some(name)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = Vec::with_capacity(49);
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

fn first<const N: usize>(octets: &[u8]) -> [u8; N] {
    *octets
        .first_chunk()
        .expect("a digest is longer than its part")
}

/// Two digits an octet, in lower case.
pub fn hexadecimal(octets: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for octet in octets {
        out.push(DIGITS[usize::from(octet >> 4)]);
        out.push(DIGITS[usize::from(octet & 15)]);
    }
}

/// Exactly `N` octets as lower-case digits.
pub fn octets<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut octets = [0; N];
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != N {
        return None;
    }
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    for (octet, [high, low]) in octets.iter_mut().zip(pairs) {
        *octet = digit(*high)? << 4 | digit(*low)?;
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_first_half_of_sha256() {
        let name = Name::of(b"http://example.org/");
        assert_eq!(name.to_string(), &sha256sum("http://example.org/")[..32]);
        assert_eq!(Name::parse(name.to_string().as_bytes()), Some(name));
        let digits = format!("{:03x}", name.directory());
        assert!(name.to_string().starts_with(&digits));
    }

    #[test]
    fn variants_have_names_of_their_own() {
        let base = Name::of(b"http://a/");
        let (one, two) = (base.variant(b"x=1"), base.variant(b"x=2"));
        assert!(one != two && !one.is_base() && one.base == base.base);
        assert_eq!(one.to_string().len(), 49);
        assert_eq!(one.of_base(), base);
        assert_eq!(Name::parse(one.to_string().as_bytes()), Some(one));
        assert!(one.hash() != two.hash() && one.hash() != base.hash());
    }

    #[test]
    fn nothing_else_is_a_name() {
        let good = Name::of(b"x").variant(b"y").to_string();
        for bad in [
            "",
            "abc",
            &good[..33],
            &good[..48],
            &format!("{good}0"),
            &good.to_uppercase(),
            &good.replace('-', "_"),
            &format!("{}-0000000000000000", &good[..32]),
            &format!("{}.tmp", &good[..32]),
            "ääääääääääääääää",
        ] {
            assert_eq!(Name::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    fn sha256sum(text: &str) -> String {
        let mut digits = Vec::new();
        hexadecimal(&Sha256::digest(text.as_bytes()), &mut digits);
        String::from_utf8(digits).unwrap()
    }
}
