//! A body that is still arriving, as those see it who read it meanwhile, each at its own pace.
//!
//! One adds, any number reads. What a file has is dropped from memory, but for the last piece of it; without a file
//! everything stays in memory, up to a bound: who then lags behind loses the body, and nobody else does. It knows
//! nothing of stores: a writer says where its file is.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

/// Octets that stay in memory although a file has them: most readers are close behind what comes.
const WINDOW: u64 = 1 << 20;
/// Octets kept in memory at the most.
const MOST: u64 = 64 << 20;

/// What is there of a body before its first reader joins.
#[derive(Debug, Default)]
pub struct SoFar {
    pub file: Option<InFile>,
    /// Behind what the file has.
    pub tail: Bytes,
    /// Octets before those, which nobody has.
    lost: u64,
}

impl SoFar {
    pub fn new(file: Option<InFile>, tail: Bytes) -> SoFar {
        SoFar {
            file,
            tail,
            lost: 0,
        }
    }

    /// Octets that nobody can read any more, who has not read them yet.
    pub fn lost(length: u64) -> SoFar {
        SoFar {
            file: None,
            tail: Bytes::new(),
            lost: length,
        }
    }
}

/// The octets of a body that have been written to a file, from its beginning.
#[derive(Clone, Debug)]
pub struct InFile {
    pub file: Arc<OwnedFd>,
    pub length: u64,
}

#[derive(Debug)]
pub struct Growing {
    /// Octets that there will be, where that is known.
    pub expected: Option<u64>,
    content: RefCell<Content>,
    end: Cell<Option<End>>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Content {
    file: Option<InFile>,
    /// Pieces behind each other, each with where it begins.
    pieces: VecDeque<(u64, Bytes)>,
    length: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
}

/// What a reader gets at some place.
#[derive(Debug)]
pub enum Read {
    Memory(Bytes),
    /// The file has octets up to there.
    File(Arc<OwnedFd>, u64),
    /// It ends here.
    End,
    /// No more will come, or these octets are there no more.
    Broken,
}

impl Growing {
    pub fn new(expected: Option<u64>, so_far: SoFar) -> Growing {
        let growing = Growing {
            expected,
            content: RefCell::new(Content {
                length: so_far.file.as_ref().map_or(so_far.lost, |file| file.length),
                file: so_far.file,
                pieces: VecDeque::new(),
            }),
            end: Cell::new(None),
            more: Notify::new(),
        };
        growing.add(so_far.tail);
        growing
    }

    /// Octets that have come.
    pub fn length(&self) -> u64 {
        self.content.borrow().length
    }

    pub fn add(&self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        let mut content = self.content.borrow_mut();
        let at = content.length;
        content.length += piece.len() as u64;
        content.pieces.push_back((at, piece));
        let oldest = content.length.saturating_sub(MOST);
        content.drop_before(oldest);
        drop(content);
        self.more.notify_waiters();
    }

    /// A file has all of that now.
    pub fn is_in(&self, file: InFile) {
        let mut content = self.content.borrow_mut();
        let oldest = file.length.min(content.length.saturating_sub(WINDOW));
        content.file = Some(file);
        content.drop_before(oldest);
    }

    /// All has come.
    pub fn finish(&self) {
        self.stop(End::Whole);
    }

    /// No more will come.
    pub fn break_off(&self) {
        self.stop(End::Broken);
    }

    fn stop(&self, end: End) {
        if self.end.get().is_none() {
            self.end.set(Some(end));
            self.more.notify_waiters();
        }
    }

    /// What there is from `at` on; waits for it.
    pub async fn read(&self, at: u64) -> Read {
        loop {
            let mut more = std::pin::pin!(self.more.notified());
            more.as_mut().enable();
            if let Some(read) = self.now(at) {
                return read;
            }
            more.await;
        }
    }

    /// None: it has not come yet.
    fn now(&self, at: u64) -> Option<Read> {
        let content = self.content.borrow();
        if at < content.length {
            return Some(content.read(at));
        }
        self.end.get().map(|end| match end {
            End::Whole if at == content.length => Read::End,
            End::Whole | End::Broken => Read::Broken,
        })
    }
}

impl Content {
    fn read(&self, at: u64) -> Read {
        let index = self.pieces.partition_point(|(from, _)| *from <= at);
        let piece = index
            .checked_sub(1)
            .and_then(|index| self.pieces.get(index));
        if let Some((from, piece)) = piece {
            // Pieces lie behind each other, so the last that begins before it has it.
            return Read::Memory(piece.slice((at - from) as usize..));
        }
        match &self.file {
            Some(file) if at < file.length => Read::File(file.file.clone(), file.length),
            _ => Read::Broken,
        }
    }

    /// Drops pieces that end there or before.
    fn drop_before(&mut self, at: u64) {
        while let Some((from, piece)) = self.pieces.front()
            && from + piece.len() as u64 <= at
        {
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(octets: &'static [u8]) -> Bytes {
        Bytes::from_static(octets)
    }

    fn read(growing: &Growing, at: u64) -> Option<Bytes> {
        match growing.now(at)? {
            Read::Memory(octets) => Some(octets),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_is_read_from_anywhere_while_it_comes() {
        let so_far = SoFar::new(None, of(b"hel"));
        let growing = Growing::new(None, so_far);
        assert_eq!(read(&growing, 1), Some(of(b"el")));
        assert!(growing.now(3).is_none());
        growing.add(of(b"lo"));
        assert_eq!(read(&growing, 0), Some(of(b"hel")));
        assert_eq!(read(&growing, 4), Some(of(b"o")));
        growing.finish();
        assert!(matches!(growing.now(5), Some(Read::End)));
        assert!(matches!(growing.now(6), Some(Read::Broken)));
        growing.break_off();
        assert!(matches!(growing.now(5), Some(Read::End)), "whole it stays");
    }

    #[test]
    fn what_a_file_has_leaves_memory() {
        let growing = Growing::new(None, SoFar::default());
        let piece = Bytes::from(vec![7; 300_000]);
        for _ in 0..10 {
            growing.add(piece.clone());
        }
        let file = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        growing.is_in(InFile {
            file,
            length: 2_500_000,
        });
        assert!(matches!(growing.now(0), Some(Read::File(_, 2_500_000))));
        assert_eq!(read(&growing, 2_999_999).unwrap().len(), 1);
        let kept: usize = growing
            .content
            .borrow()
            .pieces
            .iter()
            .map(|(_, piece)| piece.len())
            .sum();
        assert!((WINDOW as usize..WINDOW as usize + 300_000).contains(&kept));
    }

    #[test]
    fn memory_is_bounded_and_only_who_lags_loses() {
        let growing = Growing::new(None, SoFar::default());
        let piece = Bytes::from(vec![7; 1 << 20]);
        for _ in 0..70 {
            growing.add(piece.clone());
        }
        assert!(matches!(growing.now(0), Some(Read::Broken)));
        assert!(read(&growing, 69 << 20).is_some());
    }

    #[test]
    fn who_waits_is_woken() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let growing = Growing::new(None, SoFar::default());
        let read = runtime.block_on(async {
            tokio::join!(growing.read(0), async {
                tokio::task::yield_now().await;
                growing.break_off();
            })
            .0
        });
        assert!(matches!(read, Read::Broken));
    }
}
