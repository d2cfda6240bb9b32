//! A body that is still arriving, as those see it who read it meanwhile, each at its own pace.
//!
//! One adds, any number reads. What a file has is dropped from memory, but for the last piece of it. Without a file
//! everything stays in memory, up to a bound: then what all have read is dropped, and whoever adds waits for the
//! slowest (`room`). It knows nothing of stores: a writer says where its file is.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

/// Octets that stay in memory although a file has them: most readers are close behind what comes.
const WINDOW: u64 = 1 << 20;
/// Octets in memory of one body without a file, before whoever adds waits for its readers.
const MOST: u64 = 48 << 20;
/// The same when all bodies of this worker together have more than `MOST_OF_ALL`.
const LEAST: u64 = 256 << 10;
const MOST_OF_ALL: u64 = 64 << 20;
/// What comes in small pieces is put together up to this.
const PIECE: usize = 64 << 10;

thread_local! {
    /// Octets in memory of all bodies.
    static OF_ALL: Cell<u64> = const { Cell::new(0) };
}

/// What is there of a body before its first reader joins.
#[derive(Debug, Default)]
pub struct SoFar {
    file: Option<InFile>,
    /// Behind what the file has.
    tail: Bytes,
    /// Octets before those, which nobody has.
    lost: u64,
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
    /// Octets that are there where it comes from, and on their way.
    ahead: Cell<u64>,
    end: Cell<Option<End>>,
    more: Notify,
    room: Notify,
    /// A reader has left.
    left: Notify,
}

#[derive(Debug, Default)]
struct Content {
    file: Option<InFile>,
    /// Pieces behind each other, each with where it begins.
    pieces: VecDeque<(u64, Bytes)>,
    /// Behind those: small pieces put together.
    tail: Vec<u8>,
    /// Octets that have come.
    length: u64,
    /// Octets in `pieces`, and room in `tail`.
    held: u64,
    /// Where each reader is.
    readers: Vec<Option<u64>>,
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

/// One who reads; as long as it is there, what it has not read is.
pub struct Reader<'a> {
    growing: &'a Growing,
    number: usize,
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

impl Growing {
    pub fn new(expected: Option<u64>, so_far: SoFar) -> Growing {
        let mut content = Content::default();
        content.length = so_far.file.as_ref().map_or(so_far.lost, |file| file.length);
        content.file = so_far.file;
        content.push(so_far.tail);
        Growing {
            expected,
            content: RefCell::new(content),
            ahead: Cell::new(0),
            end: Cell::new(None),
            more: Notify::new(),
            room: Notify::new(),
            left: Notify::new(),
        }
    }

    /// Octets that have come.
    pub fn length(&self) -> u64 {
        self.content.borrow().length
    }

    /// Waits until a reader leaves, or is told at once of one that has.
    pub async fn left(&self) {
        self.left.notified().await;
    }

    /// So many octets need only to be brought here.
    pub fn is_ahead(&self, octets: u64) {
        self.ahead.set(octets);
    }

    /// Octets that have come, or need only to be brought here.
    pub fn soon(&self) -> u64 {
        self.length().max(self.ahead.get())
    }

    /// What a file has of it.
    pub fn in_file(&self) -> Option<InFile> {
        self.content.borrow().file.clone()
    }

    /// Whether it can be read from there on.
    pub fn has(&self, at: u64) -> bool {
        let content = self.content.borrow();
        let in_file = content.file.as_ref().map_or(0, |file| file.length);
        let in_memory = content.in_memory_from();
        at >= in_memory || at < in_file && in_file >= in_memory
    }

    pub fn add(&self, octets: &[u8]) {
        if octets.is_empty() {
            return;
        }
        let mut content = self.content.borrow_mut();
        content.add(octets);
        content.drop_surplus();
        drop(content);
        self.more.notify_waiters();
    }

    /// Waits until there is memory for more.
    pub async fn room(&self) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            {
                let mut content = self.content.borrow_mut();
                content.drop_surplus();
                if !content.is_full() || content.slowest().is_none() {
                    return;
                }
            }
            room.await;
        }
    }

    /// A file has all of that now.
    pub fn is_in(&self, file: InFile) {
        let mut content = self.content.borrow_mut();
        // Of two files the one that has more: memory has been let go of by that.
        let has = content.file.as_ref().map_or(0, |file| file.length);
        if file.length > has {
            content.file = Some(file);
        }
        content.drop_surplus();
        drop(content);
        self.room.notify_waiters();
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

    /// One who reads from `at` on.
    pub fn reader(&self, at: u64) -> Reader<'_> {
        let readers = &mut self.content.borrow_mut().readers;
        let number = readers.iter().position(Option::is_none);
        let number = number.unwrap_or_else(|| {
            readers.push(None);
            readers.len() - 1
        });
        if let Some(place) = readers.get_mut(number) {
            *place = Some(at);
        }
        Reader {
            growing: self,
            number,
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

impl Reader<'_> {
    /// What there is from `at` on; waits for it. What is before is not asked for any more.
    pub async fn read(&self, at: u64) -> Read {
        self.moved(Some(at));
        loop {
            let mut more = std::pin::pin!(self.growing.more.notified());
            more.as_mut().enable();
            if let Some(read) = self.growing.now(at) {
                return read;
            }
            more.await;
        }
    }

    fn moved(&self, to: Option<u64>) {
        let mut content = self.growing.content.borrow_mut();
        if let Some(place) = content.readers.get_mut(self.number) {
            *place = to;
        }
        drop(content);
        // Whether it is full depends on other bodies, too: whoever waits for room looks again itself.
        self.growing.room.notify_waiters();
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.moved(None);
        self.growing.left.notify_one();
    }
}

impl Content {
    fn add(&mut self, octets: &[u8]) {
        if self.tail.len() + octets.len() > PIECE {
            let tail = Bytes::from(std::mem::take(&mut self.tail));
            self.length -= tail.len() as u64;
            self.held -= tail.len() as u64;
            count(-(tail.len() as i64));
            self.push(tail);
        }
        if octets.len() >= PIECE {
            return self.push(Bytes::copy_from_slice(octets));
        }
        self.tail.extend_from_slice(octets);
        self.length += octets.len() as u64;
        self.hold(octets.len() as i64);
    }

    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            let at = self.length;
            self.length += piece.len() as u64;
            self.hold(piece.len() as i64);
            self.pieces.push_back((at, piece));
        }
    }

    fn hold(&mut self, octets: i64) {
        self.held = self.held.saturating_add_signed(octets);
        count(octets);
    }

    fn read(&self, at: u64) -> Read {
        let tail_from = self.length - self.tail.len() as u64;
        if at >= tail_from {
            let octets = self.tail.get((at - tail_from) as usize..);
            return Read::Memory(Bytes::copy_from_slice(octets.unwrap_or_default()));
        }
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

    /// From where on everything is in memory.
    fn in_memory_from(&self) -> u64 {
        let tail_from = self.length - self.tail.len() as u64;
        self.pieces.front().map_or(tail_from, |(from, _)| *from)
    }

    fn is_full(&self) -> bool {
        let is_crowded = OF_ALL.get() > MOST_OF_ALL;
        self.held > if is_crowded { LEAST } else { MOST }
    }

    fn slowest(&self) -> Option<u64> {
        self.readers.iter().flatten().min().copied()
    }

    /// Drops what a file has, but for the last of it; and where memory is short, what all have read.
    fn drop_surplus(&mut self) {
        let in_file = self.file.as_ref().map_or(0, |file| file.length);
        let mut oldest = in_file.min(self.length.saturating_sub(WINDOW));
        if self.is_full() {
            // Nobody can join any more who wants it from the beginning, unless a file has that.
            // Where nobody reads, nothing is needed.
            let needed = self.slowest().unwrap_or(self.length);
            oldest = oldest.max(in_file).max(needed);
        }
        while let Some((from, piece)) = self.pieces.front()
            && from + piece.len() as u64 <= oldest
        {
            let octets = piece.len() as i64;
            self.pieces.pop_front();
            self.hold(-octets);
        }
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        count(-(self.held as i64));
    }
}

fn count(octets: i64) {
    OF_ALL.set(OF_ALL.get().saturating_add_signed(octets));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(growing: &Growing, at: u64) -> Option<Bytes> {
        match growing.now(at)? {
            Read::Memory(octets) => Some(octets),
            other => panic!("{other:?}"),
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(future)
    }

    #[test]
    fn it_is_read_from_anywhere_while_it_comes() {
        let growing = Growing::new(None, SoFar::new(None, Bytes::from_static(b"hel")));
        assert_eq!(read(&growing, 1).unwrap(), "el");
        assert!(growing.now(3).is_none());
        growing.add(b"l");
        growing.add(b"o");
        assert_eq!(read(&growing, 0).unwrap(), "hel");
        assert_eq!(read(&growing, 3).unwrap(), "lo");
        assert_eq!(read(&growing, 4).unwrap(), "o");
        growing.finish();
        assert!(matches!(growing.now(5), Some(Read::End)));
        assert!(matches!(growing.now(6), Some(Read::Broken)));
        growing.break_off();
        assert!(matches!(growing.now(5), Some(Read::End)), "whole it stays");
    }

    #[test]
    fn pieces_of_every_size_come_back_as_they_were() {
        let growing = Growing::new(None, SoFar::default());
        let whole: Vec<u8> = (0..400_000_u32).map(|n| (n / 3) as u8).collect();
        let mut rest = whole.as_slice();
        for length in [1, 70_000, 10, 65_535, 1, 65_536, 100_000].iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*length));
            growing.add(now);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        let mut back = Vec::new();
        while back.len() < whole.len() {
            back.extend_from_slice(&read(&growing, back.len() as u64).unwrap());
        }
        assert!(back == whole);
    }

    #[test]
    fn small_pieces_cost_what_they_are() {
        let before = OF_ALL.get();
        let growing = Growing::new(None, SoFar::default());
        for _ in 0..300_000 {
            growing.add(b"x");
        }
        assert_eq!(growing.content.borrow().pieces.len(), 300_000 / PIECE);
        assert_eq!(OF_ALL.get() - before, 300_000);
        drop(growing);
        assert_eq!(OF_ALL.get(), before);
    }

    #[test]
    fn what_a_file_has_leaves_memory() {
        let growing = Growing::new(None, SoFar::default());
        for _ in 0..10 {
            growing.add(&[7; 300_000]);
        }
        let file = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        growing.is_in(InFile {
            file,
            length: 2_500_000,
        });
        assert!(matches!(growing.now(0), Some(Read::File(_, 2_500_000))));
        assert!(growing.has(0));
        assert_eq!(read(&growing, 2_999_999).unwrap().len(), 1);
        let held = growing.content.borrow().held;
        assert!((WINDOW..WINDOW + 300_000).contains(&held));
    }

    #[test]
    fn whoever_adds_waits_for_the_slowest_where_memory_is_short() {
        let growing = Growing::new(None, SoFar::default());
        let (slow, fast) = (growing.reader(0), growing.reader(0));
        let mebibyte = vec![7; 1 << 20];
        for _ in 0..=MOST >> 20 {
            growing.add(&mebibyte);
        }
        let is_room = || {
            let mut room = std::pin::pin!(growing.room());
            run(std::future::poll_fn(|context| {
                std::task::Poll::Ready(room.as_mut().poll(context).is_ready())
            }))
        };
        assert!(!is_room());
        run(fast.read(5 << 20));
        assert!(!is_room(), "the slow one has read nothing");
        run(slow.read(2 << 20));
        assert!(is_room());
        assert!(!growing.has(0), "nobody can begin from the beginning");
        assert_eq!(read(&growing, 2 << 20).unwrap().len(), 1 << 20);
    }

    #[test]
    fn who_waits_is_woken() {
        let growing = Growing::new(None, SoFar::default());
        let reader = growing.reader(0);
        let read = run(async {
            tokio::join!(reader.read(0), async {
                tokio::task::yield_now().await;
                growing.break_off();
            })
            .0
        });
        assert!(matches!(read, Read::Broken));
    }
}
