//! Bodies: received octets in, where the payload lies out; payload in, octets to send out.
//!
//! A decoder never reports a short or broken body as done, and an encoder never completes one: what was
//! promised is sent exactly, or the end is refused. Nothing is buffered. Sessions, the upstream client and the
//! exchange call it.

use std::ops::Range;

use thiserror::Error;

use super::chunked::{ChunkError, Chunks};
use super::framing::Framing;

#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BodyError {
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error("the connection ended {missing} octets before the body")]
    Short { missing: u64 },
    #[error("the connection ended inside a chunked body")]
    Unfinished,
}

/// What one call of `decode` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Octets of the input that are dealt with.
    pub consumed: usize,
    /// Where among them the payload lies; may be empty.
    pub data: Range<usize>,
    pub done: bool,
}

#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Length(u64),
    Chunked(Chunks),
    UntilClose,
    Done,
}

impl Decoder {
    pub fn new(framing: Framing) -> Decoder {
        Decoder {
            state: match framing {
                Framing::None | Framing::Length(0) => State::Done,
                Framing::Length(length) => State::Length(length),
                Framing::Chunked => State::Chunked(Chunks::default()),
                Framing::UntilClose => State::UntilClose,
            },
        }
    }

    /// Call again with what follows `consumed` until `done`; nothing consumed and not done: more input is needed.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        let (consumed, data) = match &mut self.state {
            State::Done => (0, 0..0),
            State::UntilClose => (input.len(), 0..input.len()),
            State::Length(left) => {
                let length = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(input.len());
                *left -= length as u64;
                if *left == 0 {
                    self.state = State::Done;
                }
                (length, 0..length)
            }
            State::Chunked(chunks) => {
                let found = chunks.decode(input)?;
                if chunks.is_done() {
                    self.state = State::Done;
                }
                found
            }
        };
        Ok(Step {
            consumed,
            data,
            done: self.is_done(),
        })
    }

    /// The peer sent FIN. (A reset is never the end of a body: do not call this then.)
    pub fn end_of_input(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            // RFC 9112 8: "A message body that uses the chunked transfer coding is incomplete if the zero-sized chunk that
            // terminates the encoding has not been received. A message that uses a valid Content-Length is incomplete if
            // the size of the message body received (in octets) is less than the value given by Content-Length."
            State::Length(missing) => Err(BodyError::Short { missing }),
            State::Chunked(_) => Err(BodyError::Unfinished),
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Octets still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(left) => Some(left),
            State::Chunked(_) | State::UntilClose => None,
        }
    }
}

/// We broke our own promise: the connection must not be used any more.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum EncodeError {
    #[error("{surplus} octets more than the message promised")]
    TooLong { surplus: u64 },
    #[error("{missing} octets fewer than the message promised")]
    TooShort { missing: u64 },
}

#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    framing: Framing,
}

impl Encoder {
    pub fn new(framing: Framing) -> Encoder {
        let framing = if framing == Framing::None {
            Framing::Length(0)
        } else {
            framing
        };
        Encoder { framing }
    }

    /// Appends `payload` as it goes on the wire; nothing is appended on error.
    pub fn data(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let prefix = self.prefix(payload.len())?;
        out.extend_from_slice(prefix.as_ref());
        out.extend_from_slice(payload);
        if !payload.is_empty() {
            out.extend_from_slice(self.suffix());
        }
        Ok(())
    }

    /// What to send before `length` octets that are sent without passing through here; `suffix` follows them.
    /// Both are empty but for chunks, and `length` 0 sends nothing.
    pub fn prefix(&mut self, length: usize) -> Result<Prefix, EncodeError> {
        match &mut self.framing {
            Framing::Length(left) => {
                let length = length as u64;
                if length > *left {
                    return Err(EncodeError::TooLong {
                        surplus: length - *left,
                    });
                }
                *left -= length;
                Ok(Prefix::EMPTY)
            }
            // An empty chunk would end the body.
            Framing::Chunked if length > 0 => Ok(Prefix::chunk(length)),
            _ => Ok(Prefix::EMPTY),
        }
    }

    pub fn suffix(&self) -> &'static [u8] {
        match self.framing {
            Framing::Chunked => b"\r\n",
            _ => b"",
        }
    }

    /// The body is whole. Nothing is appended on error.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self.framing {
            Framing::Length(missing @ 1..) => Err(EncodeError::TooShort { missing }),
            Framing::Chunked => {
                out.extend_from_slice(b"0\r\n\r\n");
                self.framing = Framing::Length(0);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The line before a chunk's data.
#[derive(Clone, Copy, Debug)]
pub struct Prefix {
    line: [u8; 18],
    from: u8,
}

impl Prefix {
    const EMPTY: Prefix = Prefix {
        line: [0; 18],
        from: 18,
    };

    fn chunk(length: usize) -> Prefix {
        let mut line = [0; 18];
        line[16..].copy_from_slice(b"\r\n");
        let (mut from, mut rest) = (16, length);
        while rest > 0 {
            from -= 1;
            line[from] = b"0123456789abcdef"[rest & 15];
            rest >>= 4;
        }
        Prefix {
            line,
            from: from as u8,
        }
    }
}

impl AsRef<[u8]> for Prefix {
    fn as_ref(&self) -> &[u8] {
        &self.line[self.from as usize..]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything that `decoder` makes of `pieces`: payload, octets left over in the last piece, done.
    fn run(framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), BodyError> {
        let (mut decoder, mut data, mut left) = (Decoder::new(framing), Vec::new(), Vec::new());
        for piece in pieces {
            left.extend_from_slice(piece);
            loop {
                let step = decoder.decode(&left)?;
                assert!(step.data.end <= step.consumed && step.data.start <= step.data.end);
                data.extend_from_slice(&left[step.data]);
                left.drain(..step.consumed);
                if step.consumed == 0 || step.done {
                    break;
                }
            }
        }
        Ok((data, left.len(), decoder.is_done()))
    }

    #[test]
    fn each_framing_ends_where_it_should() {
        assert_eq!(run(Framing::None, &[b"next"]), Ok((vec![], 4, true)));
        assert_eq!(
            run(Framing::Length(3), &[b"ab", b"cd"]),
            Ok((b"abc".to_vec(), 1, true))
        );
        assert_eq!(
            run(Framing::UntilClose, &[b"ab", b"cd"]),
            Ok((b"abcd".to_vec(), 0, false))
        );
        assert_eq!(
            run(Framing::Chunked, &[b"1\r\na\r\n0\r\n\r\nG"]),
            Ok((b"a".to_vec(), 1, true))
        );
    }

    #[test]
    fn the_end_of_input_completes_only_what_it_delimits() {
        let end = |framing| Decoder::new(framing).end_of_input();
        assert_eq!(end(Framing::None), Ok(()));
        assert_eq!(end(Framing::UntilClose), Ok(()));
        assert_eq!(
            end(Framing::Length(2)),
            Err(BodyError::Short { missing: 2 })
        );
        assert_eq!(end(Framing::Chunked), Err(BodyError::Unfinished));
    }

    #[test]
    fn an_encoder_keeps_its_promise() {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(Framing::Length(3));
        assert_eq!(encoder.data(b"ab", &mut out), Ok(()));
        assert_eq!(
            encoder.end(&mut out),
            Err(EncodeError::TooShort { missing: 1 })
        );
        assert_eq!(
            encoder.data(b"cd", &mut out),
            Err(EncodeError::TooLong { surplus: 1 })
        );
        assert_eq!(out, b"ab");
        assert_eq!(
            Encoder::new(Framing::None).data(b"x", &mut out),
            Err(EncodeError::TooLong { surplus: 1 })
        );
        let (mut encoder, mut out) = (Encoder::new(Framing::Chunked), Vec::new());
        encoder.data(b"", &mut out).unwrap();
        encoder.data(&[b'x'; 26], &mut out).unwrap();
        encoder.end(&mut out).unwrap();
        assert_eq!(
            out,
            [b"1a\r\n".as_slice(), &[b'x'; 26], b"\r\n0\r\n\r\n"].concat()
        );
    }

    fn chunky() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => Just(b"3\r\nabc\r\n".to_vec()),
            2 => Just(b"1;a=\"b\"\r\nx\r\n".to_vec()),
            2 => Just(b"0\r\n\r\n".to_vec()),
            1 => Just(b"0\r\nA: b\r\n\r\n".to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 0..5),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    fn cut<'a>(input: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        places.extend([0, input.len()]);
        places.sort_unstable();
        places
            .windows(2)
            .map(|pair| &input[pair[0]..pair[1]])
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

        #[test]
        fn decoding_does_not_depend_on_where_the_stream_is_cut(
            input in chunky(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8), length in 0u64..40,
        ) {
            for framing in [Framing::Chunked, Framing::Length(length), Framing::UntilClose, Framing::None] {
                prop_assert_eq!(run(framing, &[&input]), run(framing, &cut(&input, &cuts)));
            }
        }

        #[test]
        fn what_is_encoded_decodes_the_same(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
        ) {
            let payload = parts.concat();
            for framing in [Framing::Chunked, Framing::Length(payload.len() as u64), Framing::UntilClose] {
                let (mut encoder, mut out) = (Encoder::new(framing), Vec::new());
                for part in &parts {
                    encoder.data(part, &mut out).unwrap();
                }
                encoder.end(&mut out).unwrap();
                let done = framing != Framing::UntilClose;
                prop_assert_eq!(run(framing, &[&out]), Ok((payload.clone(), 0, done)));
            }
        }

        #[test]
        fn octets_never_panic(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = run(Framing::Chunked, &[&input]);
        }
    }
}
