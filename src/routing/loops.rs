//! Requests that come round: Via with this instance's pseudonym, and Max-Forwards.
//!
//! It says whether a request has been here and marks what passes; answering 508 is the exchange's part, which
//! calls it.

use crate::http::syntax::{decimal, is_token_char, write_decimal};
use crate::http::{Headers, Version};

/// How this running instance signs Via. The caller makes it unique, with randomness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pseudonym(Box<str>);

impl Pseudonym {
    /// Characters that no pseudonym may hold become hyphens.
    pub fn new(name: &str) -> Pseudonym {
        let tokens = name.chars().map(|c| {
            if c.is_ascii() && is_token_char(c as u8) {
                c
            } else {
                '-'
            }
        });
        Pseudonym(tokens.collect())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether the request has been through the instance of that pseudonym.
pub fn via_has(headers: &Headers, pseudonym: &Pseudonym) -> bool {
    // RFC 9110 7.6.3: Via = #( received-protocol RWS received-by [ RWS comment ] )
    headers.list("via").any(|member| {
        let mut words = member
            .split(|c| matches!(c, b' ' | b'\t'))
            .filter(|word| !word.is_empty());
        words
            .nth(1)
            .is_some_and(|by| by.eq_ignore_ascii_case(pseudonym.0.as_bytes()))
    })
}

/// The Via line of a message that came in that version. "A proxy MUST send an appropriate Via header field in each
/// message that it forwards."
pub fn write_via(received: Version, pseudonym: &Pseudonym, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Via: ");
    out.extend_from_slice(received.number().as_bytes());
    out.push(b' ');
    out.extend_from_slice(pseudonym.0.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// How many more times TRACE or OPTIONS may be forwarded; anything but one number is ignored.
pub fn max_forwards(headers: &Headers) -> Option<u32> {
    let mut values = headers.get_all("max-forwards");
    match (values.next(), values.next()) {
        (Some(value), None) => decimal(value).map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
        _ => None,
    }
}

/// RFC 9110 7.6.2: "If the Max-Forwards value is greater than zero, the intermediary MUST generate an updated
/// Max-Forwards field in the forwarded message with a field value that is the lesser of a) the received value
/// decremented by one (1) or b) the recipient's maximum supported value for Max-Forwards."
pub fn write_forwarded_once(headers: &Headers, out: &mut Vec<u8>) {
    if let Some(count @ 1..) = max_forwards(headers) {
        out.extend_from_slice(b"Max-Forwards: ");
        write_decimal(u64::from(count - 1), out);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_was_here_is_known_by_its_via() {
        let own = Pseudonym::new("baton-1f");
        let seen = |via: &[&str]| via_has(&via.iter().map(|value| ("Via", *value)).collect(), &own);
        assert!(
            !seen(&[]) && !seen(&["1.1 baton-1e", "baton-1f"]) && !seen(&["1.1 other (baton-1f)"])
        );
        assert!(seen(&["1.0 a, HTTP/1.1  BATON-1F (x, y)"]) && seen(&["1.1 a", "1.1 baton-1f"]));
        let mut line = Vec::new();
        write_via(Version::Http10, &own, &mut line);
        assert_eq!(line, b"Via: 1.0 baton-1f\r\n");
        assert_eq!(Pseudonym::new("a b,c\r\n\u{e4}").as_str(), "a-b-c---");
    }

    #[test]
    fn max_forwards_counts_down_or_is_ignored() {
        let of = |values: &[&str]| {
            values
                .iter()
                .map(|value| ("Max-Forwards", *value))
                .collect::<Headers>()
        };
        assert_eq!(max_forwards(&of(&["0"])), Some(0));
        assert_eq!(max_forwards(&of(&["99999999999"])), Some(u32::MAX));
        for bad in [&["-1"][..], &["x"], &[""], &["1", "1"], &["1, 1"], &[]] {
            assert_eq!(max_forwards(&of(bad)), None, "{bad:?}");
        }
        let mut line = Vec::new();
        write_forwarded_once(&of(&["3"]), &mut line);
        assert_eq!(line, b"Max-Forwards: 2\r\n");
    }
}
