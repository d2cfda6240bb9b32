//! The lexical rules that every part of HTTP shares: tokens, field values, lists, numbers.
//!
//! It knows characters only, no field by name. All of `http` and the cache rules call it.

use std::net::IpAddr;

const TOKEN: u8 = 1;
const VALUE: u8 = 2;

/// One byte of class bits an octet.
static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        let c = octet as u8;
        // RFC 9110 5.6.2: tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" /
        // "|" / "~" / DIGIT / ALPHA
        if c.is_ascii_alphanumeric()
            || matches!(
                c,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            )
        {
            table[octet] |= TOKEN;
        }
        // RFC 9110 5.5: field-vchar = VCHAR / obs-text, between them SP and HTAB
        if c == b'\t' || (c >= b' ' && c != 0x7f) {
            table[octet] |= VALUE;
        }
        octet += 1;
    }
    table
}

/// `tchar` of RFC 9110 section 5.6.2.
pub fn is_token_char(octet: u8) -> bool {
    CLASS[octet as usize] & TOKEN != 0
}

/// `token`: at least one `tchar` and nothing else.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&c| is_token_char(c))
}

/// What may stand in a field value: visible octets, obs-text, space and tab.
pub fn is_value_char(octet: u8) -> bool {
    CLASS[octet as usize] & VALUE != 0
}

/// `text` without the optional white space (space and tab) around it.
pub fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The members of a comma-separated list (RFC 9110 section 5.6.1): trimmed, empty ones skipped, commas inside
/// a quoted string respected.
pub fn members(value: &[u8]) -> Members<'_> {
    Members { rest: value }
}

#[derive(Clone, Debug)]
pub struct Members<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let end = unquoted(self.rest, b',').unwrap_or(self.rest.len());
            let member = trim(&self.rest[..end]);
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if !member.is_empty() {
                return Some(member);
            }
        }
        None
    }
}

/// The first `wanted` octet outside quoted strings.
pub fn unquoted(text: &[u8], wanted: u8) -> Option<usize> {
    let mut quoted = false;
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => quoted = !quoted,
            b'\\' if quoted => at += 1,
            c if c == wanted && !quoted => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The inside of a quoted string; None where `text` is not one. Escapes stay as they are.
pub fn quoted(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b'"', inside @ .., b'"'] => Some(inside),
        _ => None,
    }
}

/// `1*DIGIT` and nothing else; None on overflow too.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, &c| {
        if !c.is_ascii_digit() {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(c - b'0'))
    })
}

/// Appends `number` in decimal. A log line and a head have many small ones.
#[inline]
pub fn write_decimal(number: u64, out: &mut Vec<u8>) {
    match number {
        0..10 => out.push(b'0' + number as u8),
        _ => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
    }
}

/// The same with leading zeros, in six digits.
pub fn write_six_digits(number: u32, out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    let with_a_one_before = digits.format(1_000_000 + number % 1_000_000);
    out.extend_from_slice(&with_a_one_before.as_bytes()[1..]);
}

/// Appends an address as text. IPv4, which every request to a reverse proxy writes several times, without the
/// formatting machinery.
pub fn write_address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(four) => {
            let (mut text, mut length) = ([0; 15], 0);
            let mut put = |character: u8| {
                text[length] = character;
                length += 1;
            };
            for (index, octet) in four.octets().into_iter().enumerate() {
                if index > 0 {
                    put(b'.');
                }
                if octet >= 100 {
                    put(b'0' + octet / 100);
                }
                if octet >= 10 {
                    put(b'0' + octet / 10 % 10);
                }
                put(b'0' + octet % 10);
            }
            out.extend_from_slice(&text[..length]);
        }
        IpAddr::V6(six) => out.extend_from_slice(six.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_skip_empty_members_and_respect_quotes() {
        let cases: [(&str, &[&str]); 7] = [
            ("", &[]),
            (" , ,, ", &[]),
            ("a, b ,\tc", &["a", "b", "c"]),
            (r#"a="x,y", b"#, &[r#"a="x,y""#, "b"]),
            (r#"a="x\",y", b"#, &[r#"a="x\",y""#, "b"]),
            (r#""open, b"#, &[r#""open, b"#]),
            (r#""open\"#, &[r#""open\"#]),
        ];
        for (value, expected) in cases {
            let found: Vec<_> = members(value.as_bytes())
                .map(|m| std::str::from_utf8(m).unwrap())
                .collect();
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn numbers_are_digits_only_and_checked() {
        for (text, expected) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("+1", None),
            ("1 ", None),
            ("0x1", None),
        ] {
            assert_eq!(decimal(text.as_bytes()), expected, "{text}");
        }
        for number in [0, 9, 10, 1234, u64::MAX] {
            let mut out = Vec::new();
            write_decimal(number, &mut out);
            assert_eq!(out, number.to_string().into_bytes());
        }
        for (number, expected) in [(0, "000000"), (7, "000007"), (999_999, "999999")] {
            let mut out = Vec::new();
            write_six_digits(number, &mut out);
            assert_eq!(out, expected.as_bytes());
        }
        for text in ["0.0.0.0", "127.0.0.1", "255.100.9.10", "::1", "2001:db8::1"] {
            let mut out = Vec::new();
            write_address(text.parse().unwrap(), &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }

    #[test]
    fn tokens() {
        assert!(is_token(b"Content-Length"));
        for bad in [&b""[..], b"a b", b"a:", b"(a)", b"\x80", b"a\0"] {
            assert!(!is_token(bad), "{bad:?}");
        }
    }
}
