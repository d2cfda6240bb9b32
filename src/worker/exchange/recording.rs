//! The octets of a response on their way into the store, while they pass to a client.
//!
//! What breaks off is kept as far as it came, where its length was known: a request for the rest completes it. What is
//! joined to a part that is kept takes the octets around it along. It never holds the delivery up for longer than the
//! store's patience, and a body that becomes too large ends the recording, not the delivery.

use std::rc::Rc;

use crate::cache::part::{self, Others, Part};
use crate::cache::{self, CacheStatus, Key, Stored};
use crate::http::head::ResponseHead;
use crate::http::range::{ContentRange, Span};
use crate::shared::Counter;
use crate::store::{Body, Growing, Object, SoFar, Store, Writer};
use crate::worker::context::Context;
use crate::worker::kept::Filling;
use crate::worker::session::Session;

/// Octets of an older part that are taken along at most: each new part copies them.
const MOST_JOINED: u64 = 64 << 20;
/// Octets of a body that are copied at most where it is stored a second time, for another selection.
const MOST_COPIED: u64 = 1 << 20;
/// Octets read from it at once.
const PIECE: u64 = 256 << 10;

/// A response on its way into the store, or not.
pub struct Recording {
    writer: Option<Box<Filling>>,
    status: CacheStatus,
    keeping: Keeping,
    /// Octets of the response that the writer has.
    octets: u64,
    /// For those who read it while it comes.
    growing: Option<Rc<Growing>>,
    /// Octets that the store has already, of the same representation.
    had: u64,
    /// Whether the store has it.
    is_kept: bool,
    /// What is stored under this key is older: where this one cannot be kept, that goes.
    replaces: Option<Key>,
}

/// As what it will be kept.
pub enum Keeping {
    /// All of a representation, of this length where it is known.
    Whole(Option<u64>),
    Part(Joining),
}

/// A part, and the one that is kept already.
pub struct Joining {
    old: Option<Rc<Object>>,
    others: Others,
    range: ContentRange,
    /// The Range field that it answers.
    asked: Option<Box<[u8]>>,
}

impl Joining {
    /// `whole`: the new part's fields.
    pub fn new(
        old: Option<&Rc<Object>>,
        whole: &ResponseHead,
        range: ContentRange,
        asked: Option<&[u8]>,
    ) -> Joining {
        let others = old.map(|old| part::others(&old.stored, &whole.headers, range));
        Joining {
            old: old.cloned(),
            others: others
                .filter(|others| others.octets() <= MOST_JOINED)
                .unwrap_or_default(),
            range,
            asked: asked.map(Box::from),
        }
    }
}

impl Keeping {
    /// Octets that the writer will get, where that is known.
    pub fn expected(&self) -> Option<u64> {
        match self {
            Keeping::Whole(length) => *length,
            Keeping::Part(joining) => Some(joining.others.octets() + joining.range.span.len()),
        }
    }
}

// === impl Recording

impl Recording {
    /// Of a response that is not kept.
    pub fn none(status: CacheStatus) -> Recording {
        Recording {
            writer: None,
            status,
            keeping: Keeping::Whole(None),
            octets: 0,
            growing: None,
            had: 0,
            is_kept: false,
            replaces: None,
        }
    }

    /// Of what another worker fetches and its clients read here; `copy`: the store of this one keeps it, too.
    pub fn followed(growing: Rc<Growing>, copy: Option<Filling>, status: CacheStatus) -> Recording {
        let mut recording = Recording::none(status);
        recording.writer = copy.map(Box::new);
        recording.keeping = Keeping::Whole(growing.expected);
        recording.growing = Some(growing);
        recording
    }

    pub async fn begin(writer: Filling, keeping: Keeping, status: CacheStatus) -> Recording {
        let mut recording = Recording {
            writer: Some(Box::new(writer)),
            status,
            keeping,
            octets: 0,
            growing: None,
            had: 0,
            is_kept: false,
            replaces: None,
        };
        recording.take_along(|others| &others.before).await;
        recording
    }

    /// It completes a part of so many octets, which stays unless more comes.
    pub fn completing(mut self, octets: u64) -> Recording {
        self.had = octets;
        self
    }

    /// It takes the place of what is stored under the key.
    pub fn replacing(mut self, key: Key) -> Recording {
        self.replaces = Some(key);
        self
    }

    /// Takes content as it passes. A body over the limit ends the recording, never the delivery.
    pub async fn write(&mut self, content: &[u8]) {
        self.take(content).await;
        // Behind the store: what its file has needs no room.
        if let Some(growing) = &self.growing {
            growing.room().await;
        }
    }

    /// The same without a wait for those who read it.
    pub async fn take(&mut self, content: &[u8]) {
        if let Some(growing) = &self.growing {
            growing.add(content);
        }
        self.keep(content).await;
    }

    async fn keep(&mut self, content: &[u8]) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        if writer.write(content) {
            self.octets += content.len() as u64;
            if writer.room().await {
                if let (Some(growing), Some(file)) = (&self.growing, writer.in_file()) {
                    growing.is_in(file);
                }
                return;
            }
        }
        self.writer = None;
    }

    /// Takes the content of what is stored already, if that is not too much to be copied.
    pub async fn copy(&mut self, body: &Body) {
        let mut at = 0;
        while at < body.len() {
            let piece = match body.len() <= MOST_COPIED {
                true => body.read_piece(at, PIECE).await,
                false => None,
            };
            let Some(piece) = piece else {
                self.writer = None;
                return;
            };
            at += piece.len() as u64;
            self.write(&piece).await;
        }
    }

    /// What comes is for those who read it, and for nobody after them.
    pub fn keep_no_more(&mut self) {
        self.writer = None;
    }

    /// Waits until one who reads it leaves.
    pub async fn left(&self) {
        match &self.growing {
            Some(growing) => growing.left().await,
            None => std::future::pending().await,
        }
    }

    /// Whether it is fetched to its end although its client has left.
    pub fn is_worth_finishing(&self, context: &Context) -> bool {
        let missing = match &self.keeping {
            Keeping::Whole(length) => length.map(|length| length.saturating_sub(self.octets)),
            Keeping::Part(_) => return false,
        };
        super::share::is_little(missing, &context.config.cache)
    }

    /// The fields of what is being kept.
    pub fn stored(&self) -> Option<&Stored> {
        self.writer.as_ref().and_then(|writer| writer.stored())
    }

    /// Whether others may read it while it comes.
    pub fn is_shareable(&self) -> bool {
        self.writer.is_some() && matches!(self.keeping, Keeping::Whole(_))
    }

    /// From now on others read it while it comes: as `Object`, or, where the store has given up, only who has got all
    /// that has come until now.
    pub async fn share(&mut self) -> (Option<Rc<Object>>, Rc<Growing>) {
        let expected = match &self.keeping {
            Keeping::Whole(expected) => *expected,
            Keeping::Part(_) => None,
        };
        let mut so_far = None;
        let mut stored = None;
        if let Some(writer) = &mut self.writer {
            so_far = writer.so_far().await;
            stored = writer.stored().filter(|_| so_far.is_some()).cloned();
        }
        let so_far = so_far.unwrap_or_else(|| SoFar::lost(self.octets));
        let growing = Rc::new(Growing::new(expected, so_far));
        self.growing = Some(growing.clone());
        let object = stored.map(|stored| Rc::new(Object::growing(stored, growing.clone())));
        (object, growing)
    }

    /// Whether the store has it now.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// The content is whole: from here on it is found.
    pub async fn finish(&mut self, context: &Context) {
        self.publish(context).await;
        if let (false, Some(key), Some(store)) =
            (self.is_kept, self.replaces.take(), &context.store)
        {
            store.invalidate(key.as_bytes()).await;
        }
        if let Some(growing) = &self.growing {
            growing.finish();
        }
    }

    async fn publish(&mut self, context: &Context) {
        if self.writer.is_none() {
            return;
        }
        self.take_along(|others| &others.after).await;
        let Some(mut writer) = self.writer.take() else {
            return;
        };
        if let Keeping::Part(joining) = &self.keeping {
            let span = joining.arrived(self.octets);
            let asked = joining.asked.as_deref();
            let complete = joining.range.complete;
            writer.keep_as(part::joined(&joining.others, span, complete, asked));
        }
        if writer.finish().await.is_some() {
            self.is_kept = true;
            context.count(Counter::CacheStored, 1);
        }
    }

    /// No more will come. What has come is kept, where a request for the rest can follow.
    pub async fn cut(&mut self, context: &Context) {
        if let Some(growing) = &self.growing {
            growing.break_off();
        }
        // What is older and whole is better than a part, and a part than less of it.
        if self.octets <= self.had || self.replaces.is_some() {
            self.writer = None;
        }
        match (&self.keeping, &mut self.writer) {
            // RFC 9111 section 3.3: "A cache MUST NOT store incomplete or partial-content responses if it does not support the
            // Range and Content-Range header fields"; a length that nobody has told cannot be asked for.
            (Keeping::Whole(Some(length)), Some(writer)) if self.octets < *length => {
                writer.keep_as(Part::arrived(0, self.octets, Some(*length), None));
            }
            (Keeping::Part(_), _) => {}
            _ => self.writer = None,
        }
        self.publish(context).await;
        // A part is no answer to those who wait for the whole.
        self.is_kept = false;
    }

    /// Copies what the older part has before or behind the new one.
    async fn take_along(&mut self, side: impl Fn(&Others) -> &Vec<(Span, u64)>) {
        let Keeping::Part(joining) = &mut self.keeping else {
            return;
        };
        let (Some(old), Some(writer)) = (&joining.old, &mut self.writer) else {
            return;
        };
        for (span, at) in side(&joining.others) {
            let mut at = *at;
            let end = at + span.len();
            while at < end {
                let piece = old.body.read_piece(at, (end - at).min(PIECE)).await;
                let taken = match piece {
                    Some(piece) if writer.write(&piece) && writer.room().await => piece.len(),
                    _ => {
                        self.writer = None;
                        return;
                    }
                };
                at += taken as u64;
            }
        }
    }

    /// The Cache-Status field (RFC 9211).
    pub fn status(&self) -> &CacheStatus {
        &self.status
    }

    /// The reason in one word, for the log.
    pub fn reason(&self) -> &'static str {
        reason(&self.status)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(growing) = &self.growing {
            growing.break_off();
        }
    }
}

impl Joining {
    /// The octets that have come, which may be fewer or more than Content-Range said.
    fn arrived(&self, octets: u64) -> Span {
        let from = self.range.span.from;
        Span {
            from,
            to: from.saturating_add(octets),
        }
    }
}

pub fn write_status(status: &CacheStatus, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Cache-Status: ");
    status.write(out);
    out.extend_from_slice(b"\r\n");
}

/// The same with what the operator wants to be told beside. `hit`: the content is from the store.
pub fn write_told(session: &Session, status: &CacheStatus, hit: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Cache-Status: ");
    status.write(out);
    if let Some(key) = &session.key_told {
        cache::status::write_key(key.as_bytes(), out);
    }
    out.extend_from_slice(b"\r\n");
    if session.context.policies.get(session.policy).x_cache {
        out.extend_from_slice(match hit {
            true => b"X-Cache: HIT\r\n".as_slice(),
            false => b"X-Cache: MISS\r\n",
        });
    }
}

fn reason(status: &CacheStatus) -> &'static str {
    status
        .detail
        .or(status.forwarded.map(cache::Forwarded::as_str))
        .unwrap_or_default()
}
