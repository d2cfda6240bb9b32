//! The chunked transfer coding (RFC 9112 section 7.1), strictly: octets in, where the data lies out.
//!
//! Extensions and trailer fields are checked against their grammar, counted, and dropped; nothing is kept of
//! them. `body` calls it for messages, and nothing else does.

use std::ops::Range;

use thiserror::Error;

use super::syntax::{is_token_char, is_value_char};

/// Octets of framing allowed beyond what the data so far pays for.
const MAX_EXCESS: u64 = 16 << 10;
/// Octets of one chunk's extensions.
const MAX_EXTENSION: u32 = 4 << 10;
/// Octets of the trailer section.
const MAX_TRAILER: u32 = 8 << 10;
/// Hexadecimal digits of a chunk size; a u64 holds them all.
const MAX_DIGITS: u8 = 16;

#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ChunkError {
    #[error("a chunk size is not 1 to 16 hexadecimal digits")]
    Size,
    #[error("a chunk extension is malformed")]
    Extension,
    #[error("chunk extensions are too long")]
    ExtensionTooLong,
    #[error("a chunk line or its data does not end with CRLF")]
    LineEnd,
    #[error("a trailer field is malformed")]
    Trailer,
    #[error("the trailer section is too long")]
    TrailerTooLong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    /// White space after size or value: only `;` may follow.
    BeforeSemicolon,
    BeforeName,
    Name,
    AfterName,
    BeforeValue,
    Value,
    Quoted,
    QuotedPair,
    AfterQuoted,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

#[derive(Clone, Debug)]
pub struct Chunks {
    state: State,
    /// The size being read, then the data still to come of this chunk.
    left: u64,
    digits: u8,
    extension: u32,
    trailer: u32,
    /// Framing octets less what data has paid for.
    excess: u64,
}

impl Default for Chunks {
    fn default() -> Chunks {
        Chunks {
            state: State::Size,
            left: 0,
            digits: 0,
            extension: 0,
            trailer: 0,
            excess: 0,
        }
    }
}

impl Chunks {
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Goes through `input` up to the end of the next run of data, or of the body. Gives the octets consumed and
    /// where among them the data lies.
    pub fn decode(&mut self, input: &[u8]) -> Result<(usize, Range<usize>), ChunkError> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let length = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(input.len() - at);
                self.left -= length as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                return Ok((at + length, at..at + length));
            }
            self.state = self.step(input[at])?;
            at += 1;
        }
        Ok((at, at..at))
    }

    fn step(&mut self, c: u8) -> Result<State, ChunkError> {
        match self.state {
            State::Size => self.size(c),
            State::SizeLf => match c {
                b'\n' => self.chunk_begins(),
                _ => Err(ChunkError::LineEnd),
            },
            State::DataCr => match c {
                b'\r' => Ok(State::DataLf),
                _ => Err(ChunkError::LineEnd),
            },
            State::DataLf => match c {
                b'\n' => Ok(State::Size),
                _ => Err(ChunkError::LineEnd),
            },
            State::TrailerStart
            | State::TrailerName
            | State::TrailerValue
            | State::TrailerLf
            | State::EndLf => self.trailer(c),
            State::Data | State::Done => Ok(self.state),
            _ => self.extension(c),
        }
    }

    // chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF, chunk-size = 1*HEXDIG
    fn size(&mut self, c: u8) -> Result<State, ChunkError> {
        if let Some(digit) = (c as char).to_digit(16) {
            if self.digits == MAX_DIGITS {
                return Err(ChunkError::Size);
            }
            self.digits += 1;
            self.left = self.left << 4 | u64::from(digit);
            return Ok(State::Size);
        }
        match c {
            _ if self.digits == 0 => Err(ChunkError::Size),
            b'\r' => Ok(State::SizeLf),
            b';' => Ok(State::BeforeName),
            b' ' | b'\t' => Ok(State::BeforeSemicolon),
            _ => Err(ChunkError::Size),
        }
    }

    // chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
    fn extension(&mut self, c: u8) -> Result<State, ChunkError> {
        use State::*;
        self.extension += 1;
        if self.extension > MAX_EXTENSION {
            return Err(ChunkError::ExtensionTooLong);
        }
        let space = c == b' ' || c == b'\t';
        match (self.state, c) {
            (BeforeSemicolon | Name | AfterName | Value | AfterQuoted, b';') => Ok(BeforeName),
            (Name | Value | AfterQuoted, b'\r') => Ok(SizeLf),
            (Name | AfterName, b'=') => Ok(BeforeValue),
            (BeforeValue, b'"') => Ok(Quoted),
            (BeforeSemicolon | BeforeName | AfterName | BeforeValue, _) if space => Ok(self.state),
            (Name, _) if space => Ok(AfterName),
            (Value | AfterQuoted, _) if space => Ok(BeforeSemicolon),
            (BeforeName | Name, _) if is_token_char(c) => Ok(Name),
            (BeforeValue | Value, _) if is_token_char(c) => Ok(Value),
            (Quoted, b'"') => Ok(AfterQuoted),
            (Quoted, b'\\') => Ok(QuotedPair),
            (Quoted | QuotedPair, _) if is_value_char(c) => Ok(Quoted),
            _ => Err(ChunkError::Extension),
        }
    }

    fn chunk_begins(&mut self) -> Result<State, ChunkError> {
        // Extensions may be long where the data is long (some clients sign each chunk), not instead of data.
        self.excess += u64::from(self.extension) + u64::from(self.digits);
        self.excess = self
            .excess
            .saturating_sub(self.left.saturating_mul(2).saturating_add(16));
        if self.excess > MAX_EXCESS {
            return Err(ChunkError::ExtensionTooLong);
        }
        self.extension = 0;
        self.digits = 0;
        // last-chunk = 1*("0") [ chunk-ext ] CRLF
        Ok(if self.left == 0 {
            State::TrailerStart
        } else {
            State::Data
        })
    }

    // trailer-section = *( field-line CRLF )
    fn trailer(&mut self, c: u8) -> Result<State, ChunkError> {
        use State::*;
        self.trailer += 1;
        if self.trailer > MAX_TRAILER {
            return Err(ChunkError::TrailerTooLong);
        }
        match (self.state, c) {
            (TrailerStart, b'\r') => Ok(EndLf),
            (TrailerStart | TrailerName, _) if is_token_char(c) => Ok(TrailerName),
            (TrailerName, b':') => Ok(TrailerValue),
            (TrailerValue, b'\r') => Ok(TrailerLf),
            (TrailerValue, _) if is_value_char(c) => Ok(TrailerValue),
            (TrailerLf, b'\n') => Ok(TrailerStart),
            (EndLf, b'\n') => Ok(Done),
            (TrailerLf | EndLf, _) => Err(ChunkError::LineEnd),
            _ => Err(ChunkError::Trailer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut input: &[u8]) -> Result<(Vec<u8>, bool, usize), ChunkError> {
        let (mut chunks, mut data) = (Chunks::default(), Vec::new());
        loop {
            let (consumed, range) = chunks.decode(input)?;
            data.extend_from_slice(&input[range]);
            input = &input[consumed..];
            if consumed == 0 || chunks.is_done() {
                return Ok((data, chunks.is_done(), input.len()));
            }
        }
    }

    #[test]
    fn bodies() {
        for (input, data, rest) in [
            ("0\r\n\r\n", "", 0),
            ("000\r\n\r\nGET", "", 3),
            ("3\r\nabc\r\n0\r\n\r\n", "abc", 0),
            (
                "0000000000000003\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
                "abc0123456789",
                0,
            ),
            (
                "3;a\r\nabc\r\n0;b=c;d=\"e\\\"\r; \"\r\n\r\n",
                "",
                usize::MAX,
            ),
            ("3;a\r\nabc\r\n0;b=c;d=\"e\\\"; \"\r\n\r\n", "abc", 0),
            ("3 ; a = b ;c\r\nabc\r\n0\r\n\r\n", "abc", 0),
            ("1\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\nrest", "x", 4),
        ] {
            match all(input.as_bytes()) {
                Ok(found) => assert_eq!(found, (data.as_bytes().to_vec(), true, rest), "{input:?}"),
                Err(_) => assert_eq!(rest, usize::MAX, "{input:?}"),
            }
        }
    }

    #[test]
    fn refused() {
        use ChunkError::*;
        for (input, error) in [
            ("\r\n", Size),
            ("g\r\n", Size),
            ("-1\r\n", Size),
            ("+1\r\n", Size),
            ("0x1\r\n", Size),
            (" 1\r\n", Size),
            (";a\r\n", Size),
            ("1_0\r\n", Size),
            ("00000000000000001\r\n", Size),
            ("fffffffffffffffff\r\n", Size),
            ("3\nabc\n", Size),
            ("3\rabc", LineEnd),
            ("3\r\r\n", LineEnd),
            ("3 \r\nabc", Extension),
            ("3;\r\n", Extension),
            ("3;a=\r\n", Extension),
            ("3;a \r\n", Extension),
            ("3;a=b \r\n", Extension),
            ("3;a\nabc", Extension),
            ("3;a=\"\n\"\r\n", Extension),
            ("3;a=\"\0\"\r\n", Extension),
            ("3;a=\"\\\r\n", Extension),
            ("3;=b\r\n", Extension),
            ("3\r\nabcd", LineEnd),
            ("3\r\nabc\n", LineEnd),
            ("3\r\nabc\rx", LineEnd),
            ("3\r\nab\r\n0\r\n\r\n", LineEnd),
            ("0\r\nGET / HTTP/1.1\r\n", Trailer),
            ("0\r\n a: b\r\n", Trailer),
            ("0\r\na : b\r\n", Trailer),
            ("0\r\n: b\r\n", Trailer),
            ("0\r\na: \0\r\n", Trailer),
            ("0\r\na: b\n", Trailer),
            ("0\r\na: b\rx", LineEnd),
            ("0\r\n\rx", LineEnd),
            ("0\r\n\n", Trailer),
        ] {
            assert_eq!(all(input.as_bytes()), Err(error), "{input:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(5000));
        assert_eq!(all(long.as_bytes()), Err(ChunkError::ExtensionTooLong));
        let many = format!("1;{}\r\nx\r\n", "a".repeat(1000)).repeat(20);
        assert_eq!(all(many.as_bytes()), Err(ChunkError::ExtensionTooLong));
        let signed = format!("800;s={}\r\n{}\r\n", "a".repeat(90), "d".repeat(0x800)).repeat(400)
            + "0\r\n\r\n";
        assert!(
            all(signed.as_bytes()).is_ok_and(|(data, done, _)| done && data.len() == 400 * 0x800)
        );
        let trailer = format!("0\r\n{}\r\n", "A: b\r\n".repeat(1400));
        assert_eq!(all(trailer.as_bytes()), Err(ChunkError::TrailerTooLong));
        let ones = "1\r\nx\r\n".repeat(20_000) + "0\r\n\r\n";
        assert!(all(ones.as_bytes()).is_ok_and(|(data, ..)| data.len() == 20_000));
    }

    #[test]
    fn the_largest_size_does_not_overflow() {
        assert_eq!(
            all(b"ffffffffffffffff\r\nabc"),
            Ok((b"abc".to_vec(), false, 0))
        );
    }
}
