//! Pieces of a log line, appended without the formatting machinery: every request writes one.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use crate::http::syntax::{write_address, write_decimal, write_six_digits};

/// The end of a line that is being written.
pub struct Line<'a>(pub &'a mut Vec<u8>);

impl Line<'_> {
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Text that was formatted before.
    pub fn octets(&mut self, octets: &[u8]) -> &mut Self {
        self.0.extend_from_slice(octets);
        self
    }

    /// Text of our own, or a dash where there is none.
    pub fn or_dash(&mut self, text: &str) -> &mut Self {
        self.text(if text.is_empty() { "-" } else { text })
    }

    pub fn number(&mut self, number: u64) -> &mut Self {
        write_decimal(number, self.0);
        self
    }

    pub fn address(&mut self, address: IpAddr) -> &mut Self {
        write_address(address.to_canonical(), self.0);
        self
    }

    /// Seconds with microseconds: short requests are what a proxy has.
    pub fn seconds(&mut self, duration: Duration) -> &mut Self {
        match duration.as_secs() {
            0 => self.text("0."),
            seconds => self.number(seconds).text("."),
        };
        write_six_digits(duration.subsec_micros(), self.0);
        self
    }

    /// Octets from the network: those that could end a field or a line, or that a terminal might obey, as `\xHH`.
    pub fn escaped(&mut self, octets: &[u8]) -> &mut Self {
        let is_plain = |octet: &u8| matches!(octet, b' '..=b'~') && !matches!(octet, b'"' | b'\\');
        if octets.iter().all(is_plain) {
            self.0.extend_from_slice(octets);
            return self;
        }
        for octet in octets {
            match octet {
                b'"' | b'\\' => self.0.extend_from_slice(&[b'\\', *octet]),
                octet if is_plain(octet) => self.0.push(*octet),
                _ => drop(write!(self.0, "\\x{octet:02X}")),
            }
        }
        self
    }
}
