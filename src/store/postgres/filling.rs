//! A response on its way into the database: small ones in one statement with their head, larger ones in pieces that nobody
//! sees before the head is there.

use std::rc::Rc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::link::What;
use super::rows::{self, InRow, Rows, Sums};
use super::session::{New, PIECE_SIZE, Session};
use super::{Inner, MAX_ARRIVING};
use crate::cache::{Key, Stored, key};
use crate::store::lasting::lasting;
use crate::store::{Body, Coherence, InFile, Object, Octets, Promise, SoFar, Version, Writer};

/// Octets that have gone to the database and are held for those who join while more comes.
const EARLY: usize = 4 << 20;

pub struct Filling<C: Coherence + 'static> {
    inner: Rc<Inner<C>>,
    key: Key,
    promise: Promise,
    seen: Version,
    id: i64,
    /// Octets that have arrived.
    length: u64,
    sums: Sums,
    /// Those that have not gone to the database.
    buffer: Vec<u8>,
    /// Octets that are in `Inner::arriving`.
    counted: u64,
    /// Pieces that have gone, or are on their way.
    pieces: i32,
    /// What those were, as long as that is not much.
    early: Option<Vec<Bytes>>,
    putting: Putting,
}

/// Whether the last piece is there.
enum Putting {
    Idle,
    Busy(JoinHandle<bool>),
    Failed,
}

impl<C: Coherence + 'static> Filling<C> {
    pub(super) fn new(
        inner: Rc<Inner<C>>,
        key: Key,
        stored: Stored,
        expected: Option<u64>,
        seen: Version,
    ) -> Filling<C> {
        let at_once = expected.map_or(0, |length| length.min(PIECE_SIZE as u64));
        Filling {
            inner,
            key,
            promise: Promise::new(stored, expected),
            seen,
            // So many that none is chosen twice; who finds one in the place of another sees that by its head.
            id: (fastrand::u64(..) >> 1).cast_signed(),
            length: 0,
            sums: Sums::default(),
            buffer: Vec::with_capacity(at_once as usize),
            counted: 0,
            pieces: 0,
            early: Some(Vec::new()),
            putting: Putting::Idle,
        }
    }

    fn is_current(&self) -> bool {
        let version = self.inner.coherence.read(key::hash(self.key.as_bytes()));
        version == self.seen && !self.inner.closed.get()
    }

    fn uncount(&mut self, octets: u64) {
        let octets = octets.min(self.counted);
        self.counted -= octets;
        self.inner.arriving.set(self.inner.arriving.get() - octets);
    }

    /// Waits until the last piece is there.
    async fn is_idle(&mut self) -> bool {
        // Whoever waits may be left in the middle of it: then it is still on its way.
        if let Putting::Busy(putting) = &mut self.putting {
            self.putting = match putting.await {
                Ok(true) => Putting::Idle,
                _ => Putting::Failed,
            };
        }
        matches!(self.putting, Putting::Idle)
    }

    /// Begins to put a piece; the one before is there.
    fn put(&mut self, piece: Vec<u8>) {
        let piece = Bytes::from(piece);
        if let Some(early) = &mut self.early {
            early.push(piece.clone());
            if early.len() * PIECE_SIZE > EARLY {
                let held: usize = early.iter().map(Bytes::len).sum();
                self.early = None;
                self.uncount(held as u64);
            }
        } else {
            self.uncount(piece.len() as u64);
        }
        let (link, id, number) = (self.inner.link.clone(), self.id, self.pieces);
        self.pieces = number.saturating_add(1);
        self.putting = Putting::Busy(tokio::task::spawn_local(async move {
            let put = async |session: &Session| session.put_piece(id, number, &piece).await;
            link.ask(What::Writing, put).await.is_some()
        }));
    }

    /// Puts whole pieces of what is there.
    async fn put_pieces(&mut self) -> bool {
        while self.buffer.len() >= PIECE_SIZE {
            if !self.is_idle().await {
                return false;
            }
            let rest = self.buffer.split_off(PIECE_SIZE);
            let piece = std::mem::replace(&mut self.buffer, rest);
            self.put(piece);
        }
        true
    }
}

impl<C: Coherence + 'static> Writer for Filling<C> {
    fn write(&mut self, data: &[u8]) -> bool {
        let length = self.length + data.len() as u64;
        let most = self
            .promise
            .expected()
            .unwrap_or(u64::MAX)
            .min(self.inner.max_object);
        let arriving = self.inner.arriving.get() + data.len() as u64;
        if length > most || arriving > MAX_ARRIVING {
            return false;
        }
        self.length = length;
        self.inner.arriving.set(arriving);
        self.counted += data.len() as u64;
        self.sums.add(data);
        self.buffer.extend_from_slice(data);
        true
    }

    async fn room(&mut self) -> bool {
        match self.length > PIECE_SIZE as u64 {
            true => self.put_pieces().await,
            false => true,
        }
    }

    fn promise(&self) -> &Promise {
        &self.promise
    }

    fn promise_mut(&mut self) -> &mut Promise {
        &mut self.promise
    }

    async fn so_far(&mut self) -> Option<SoFar> {
        let mut octets = self.early.as_ref()?.concat();
        octets.extend_from_slice(&self.buffer);
        Some(SoFar::new(None, octets.into()))
    }

    fn in_file(&self) -> Option<InFile> {
        None
    }

    async fn finish(mut self) -> Option<Rc<Object>> {
        if !self.promise.is_kept_by(self.length) || !self.is_current() {
            return None;
        }
        let mut body = None;
        if self.length > PIECE_SIZE as u64 {
            if !(self.put_pieces().await && self.is_idle().await) {
                return None;
            }
            let rest = std::mem::take(&mut self.buffer);
            if !rest.is_empty() {
                self.put(rest);
            }
            if !self.is_idle().await {
                return None;
            }
        } else {
            body = Some(Bytes::from(std::mem::take(&mut self.buffer)));
        }
        let mut stored = self.promise.take_stored()?;
        stored.body_len = self.length;
        let (checksums, checksum) = std::mem::take(&mut self.sums).finish();
        let publish = Publish {
            inner: self.inner.clone(),
            key: self.key.clone(),
            id: self.id,
            stored,
            checksums,
            checksum,
            pieces: self.pieces,
            body,
            replaces: self.promise.replaces(),
            seen: self.seen,
        };
        // What takes longer than the deadline ends by itself, and what it comes to is heeded.
        let object = lasting(publish.run()).await;
        if object.is_some() {
            self.pieces = 0;
        }
        object
    }
}

impl<C: Coherence + 'static> Drop for Filling<C> {
    fn drop(&mut self) {
        self.uncount(self.counted);
        if self.pieces == 0 || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (link, id) = (self.inner.link.clone(), self.id);
        let putting = std::mem::replace(&mut self.putting, Putting::Idle);
        tokio::task::spawn_local(async move {
            if let Putting::Busy(putting) = putting {
                let _ = putting.await;
            }
            // What nobody has heard of may be there nevertheless.
            let abandon = async |session: &Session| session.abandon(id).await;
            link.ask(What::Writing, abandon).await
        });
    }
}

/// Everything that makes an object visible.
struct Publish<C: Coherence + 'static> {
    inner: Rc<Inner<C>>,
    key: Key,
    id: i64,
    stored: Stored,
    checksums: Vec<u32>,
    checksum: u32,
    pieces: i32,
    body: Option<Bytes>,
    replaces: bool,
    seen: Version,
}

impl<C: Coherence + 'static> Publish<C> {
    async fn run(self) -> Option<Rc<Object>> {
        let inner = self.inner;
        let hash = key::hash(self.key.as_bytes());
        let known = inner.known();
        if inner.coherence.read(hash) != self.seen {
            return None;
        }
        let name = self.stored.name(self.key.as_bytes());
        let (key, id) = (self.key.as_bytes(), self.id);
        let head = rows::encode(key, id, &self.stored, self.checksums.clone());
        let store = async |session: &Session| {
            let new = New {
                id,
                name: &name,
                hash,
                key,
                head: &head,
                stored: &self.stored,
                checksum: self.checksum,
                pieces: self.pieces,
                body: self.body.as_deref(),
                replaces: self.replaces,
            };
            session.store(&new, known).await
        };
        let outcome = inner.link.ask(What::Writing, store).await;
        let Some(outcome) = outcome else {
            // It may be there, in the place of what somebody has a copy of.
            inner.coherence.bump(hash);
            return None;
        };
        if !outcome.kept {
            return None;
        }
        // First of all, since others serve what it has taken the place of until they hear of it.
        let now = inner.changed(&self.key, outcome.change, self.seen);
        let length = self.stored.body_len;
        let body = match self.body {
            Some(body) if inner.hot.is_some() => Body::Memory(Octets::kept_now(body)),
            Some(body) => Body::Memory(body.into()),
            None => {
                let rows = Rows::new(inner.link.clone(), id, self.pieces, length, self.checksums);
                Body::Rows(Rc::new(rows))
            }
        };
        let object = Rc::new(Object {
            head: crate::store::disk::format::text(&self.stored),
            stored: self.stored,
            body,
            on_disk: None,
            in_row: Some(InRow { id, edition: 0 }),
        });
        // Ours is the only change since, or else the database knows better.
        if inner.coherence.read(hash) == now {
            inner.keep_copy(self.key.as_bytes(), &object, now);
        }
        Some(object)
    }
}
