//! What the control process asks a worker of the responses in its memory, and what that answers, as octets.
//!
//! Pure. A question is the first frame of a stream, answers are the frames behind it, the last of them `Done`. A response
//! goes as the head file that it would have on a disk, without its body. The janitor asks, the worker answers.

use super::disk::format::{Content, Head};
use crate::cache::Stored;

/// The kind of the frame that has the question.
pub const ASK: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// What is kept under these keys?
    Kept(Vec<Vec<u8>>),
    /// The same, and it is forgotten in this worker.
    Forget(Vec<Vec<u8>>),
    /// What is kept at all?
    All,
    /// How much is that?
    Sum,
    /// What counts no more may go; the answer is how much is left.
    Sweep,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Kept(Box<InMemory>),
    Sum(Sum),
    Done,
}

/// A response in the memory of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InMemory {
    pub key: Vec<u8>,
    pub stored: Stored,
    /// Octets of memory that it takes.
    pub size: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub keys: u64,
    pub responses: u64,
    /// Octets of all bodies.
    pub content: u64,
    /// Octets of memory, with what counts no more and has not gone yet.
    pub size: u64,
}

// === impl Question

impl Question {
    pub fn encode(&self) -> Vec<u8> {
        let (kind, keys): (u8, &[Vec<u8>]) = match self {
            Question::Kept(keys) => (0, keys),
            Question::Forget(keys) => (1, keys),
            Question::All => (2, &[]),
            Question::Sum => (3, &[]),
            Question::Sweep => (4, &[]),
        };
        let mut out = vec![kind];
        for key in keys {
            out.extend_from_slice(&(key.len() as u32).to_le_bytes());
            out.extend_from_slice(key);
        }
        out
    }

    pub fn decode(octets: &[u8]) -> Option<Question> {
        let (kind, mut rest) = octets.split_first()?;
        let mut keys = Vec::new();
        while !rest.is_empty() {
            let (length, behind) = rest.split_first_chunk()?;
            let length = u32::from_le_bytes(*length) as usize;
            let (key, behind) = behind.split_at_checked(length)?;
            keys.push(key.to_vec());
            rest = behind;
        }
        Some(match kind {
            0 => Question::Kept(keys),
            1 => Question::Forget(keys),
            2 => Question::All,
            3 => Question::Sum,
            4 => Question::Sweep,
            _ => return None,
        })
    }
}

// === impl Answer

impl Answer {
    /// The kind of its frame, and the content.
    pub fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Answer::Kept(it) => (0, encode_kept(&it.key, &it.stored, it.size)),
            Answer::Sum(it) => {
                let numbers = [it.keys, it.responses, it.content, it.size];
                (1, numbers.map(u64::to_le_bytes).concat())
            }
            Answer::Done => (2, Vec::new()),
        }
    }

    pub fn decode(kind: u8, content: &[u8]) -> Option<Answer> {
        match (kind, content) {
            (0, content) => decode_kept(content).map(|it| Answer::Kept(Box::new(it))),
            (1, content) => {
                let (numbers, []) = content.as_chunks() else {
                    return None;
                };
                let [keys, responses, content, size] = *numbers else {
                    return None;
                };
                Some(Answer::Sum(Sum {
                    keys: u64::from_le_bytes(keys),
                    responses: u64::from_le_bytes(responses),
                    content: u64::from_le_bytes(content),
                    size: u64::from_le_bytes(size),
                }))
            }
            (2, []) => Some(Answer::Done),
            _ => None,
        }
    }
}

fn encode_kept(key: &[u8], stored: &Stored, size: u64) -> Vec<u8> {
    let mut out = size.to_le_bytes().to_vec();
    Head::without_body(key, stored.clone()).encode(&mut out);
    out
}

fn decode_kept(content: &[u8]) -> Option<InMemory> {
    let (size, head) = content.split_first_chunk()?;
    let (head, length) = Head::decode(head).ok().filter(|_| !head.is_empty())?;
    match head.content {
        Content::Object(kept) if length + 8 == content.len() => Some(InMemory {
            key: head.key,
            stored: kept.stored,
            size: u64::from_le_bytes(*size),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::stored;

    #[test]
    fn questions_and_answers_come_back_as_they_were() {
        let keys = vec![b"http://a/".to_vec(), b"reverse http://a/".to_vec()];
        for question in [
            Question::Kept(keys.clone()),
            Question::Forget(keys),
            Question::All,
            Question::Sum,
            Question::Sweep,
        ] {
            let octets = question.encode();
            assert_eq!(Question::decode(&octets), Some(question));
            for cut in 1..octets.len() {
                assert!(Question::decode(&octets[..cut]) != Question::decode(&octets));
            }
        }
        let mut stored = stored(&[("Accept-Language", "de")], &[("Vary", "Accept-Language")]);
        stored.body_len = 3 << 20;
        let sum = Sum {
            keys: 1,
            responses: 2,
            content: 3,
            size: 4,
        };
        let kept = InMemory {
            key: b"http://a/".to_vec(),
            stored,
            size: 5,
        };
        for answer in [Answer::Kept(Box::new(kept)), Answer::Sum(sum), Answer::Done] {
            let (kind, content) = answer.encode();
            for cut in 0..content.len() {
                assert_eq!(Answer::decode(kind, &content[..cut]), None);
            }
            assert_eq!(Answer::decode(kind, &content), Some(answer));
            assert_eq!(Answer::decode(kind, &[&content[..], b"x"].concat()), None);
        }
        assert_eq!(Answer::decode(9, b""), None);
    }
}
