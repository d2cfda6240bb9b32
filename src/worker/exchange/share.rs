//! A response that is read by more than one client while it arrives.
//!
//! From then on a task of its own takes it from the origin server, at the origin server's pace, into the store; no
//! client holds it up, and none that leaves ends it but the last: then it goes on to its end if little is missing. What breaks
//! off is gone on with where that is safe (`resume`). `relay` lets go of it, `join` is where those come from who read it.

use std::cell::RefCell;
use std::rc::Rc;

use super::deliver::{End, Source};
use super::fetch::{Prefix, Reply};
use super::finish;
use super::recording::Recording;
use super::relay::Coming;
use super::resume::Again;
use crate::cache::Stored;
use crate::config::Cache;
use crate::http::body::Decoder;
use crate::store::{Growing, Object};
use crate::wire::{Pace, buffers};
use crate::worker::context::Context;
use crate::worker::herd::{Lead, Outcome};

/// Fetches of a worker that go on at once although nobody reads them.
const MOST_FINISHING: u32 = 64;

/// How what was taken from an origin server came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    Whole,
    /// Nobody wants it any more.
    Unwanted,
    Broken,
}

/// Lets what comes of the response come for everybody, from where it is.
pub async fn share(
    context: &Rc<Context>,
    lead: Lead,
    reply: Box<Reply>,
    coming: Coming,
    mut recording: Recording,
    again: Again,
) -> (Source, Reader) {
    let (object, growing) = recording.share().await;
    let lead = match &object {
        Some(object) => {
            lead.share(object.clone());
            Some(lead)
        }
        None => {
            lead.settle(Outcome::NotKept);
            None
        }
    };
    let source = Source::Elsewhere {
        content_type: reply.head.headers.get("content-type").map(<[u8]>::to_vec),
        origin: finish::origin(&reply.link),
    };
    let sharing = Sharing {
        context: context.clone(),
        stored: object.as_ref().map(|object| object.stored.clone()),
        growing: growing.clone(),
        lead,
        again,
    };
    tokio::task::spawn_local(sharing.run(reply, coming, recording));
    let reader = Reader {
        growing,
        _object: object,
    };
    (source, reader)
}

/// A response that comes for everybody.
struct Sharing {
    context: Rc<Context>,
    /// None: the store has given it up, and nobody else can join.
    stored: Option<Stored>,
    growing: Rc<Growing>,
    lead: Option<Lead>,
    again: Again,
}

impl Sharing {
    async fn run(mut self, mut reply: Box<Reply>, mut coming: Coming, mut recording: Recording) {
        let context = self.context.clone();
        let came = loop {
            let finishing = RefCell::new(None);
            let wanted = || self.is_wanted(&finishing);
            let mut came = absorb_kept(&context, coming.prefix, &mut recording, &wanted).await;
            if came == Came::Whole {
                let decoder = coming.decoder;
                came = absorb(&context, &mut reply, decoder, &mut recording, wanted).await;
            }
            if came != Came::Broken {
                break came;
            }
            let Some(rest) = self.rest(&mut recording).await else {
                break came;
            };
            coming = Coming {
                prefix: None,
                decoder: Decoder::new(rest.framing),
            };
            reply = rest;
        };
        if came == Came::Whole {
            recording.finish(&context).await;
            if let Some(lead) = self.lead {
                lead.settle(outcome(&recording, &End::Whole));
            }
            return finish::keep_origin(&context, reply, true);
        }
        // Nobody joins what has broken off, while what came of it is put away.
        if let Some(lead) = self.lead {
            lead.settle(Outcome::Failed);
        }
        recording.cut(&context).await;
    }

    fn is_wanted(&self, finishing: &RefCell<Option<Finishing>>) -> bool {
        let is_read = match &self.lead {
            Some(lead) => lead.is_followed(),
            // Ours, the recording's, and the reader's.
            None => Rc::strong_count(&self.growing) > 2,
        };
        if is_read || finishing.borrow().is_some() {
            return true;
        }
        let expected = self.growing.expected;
        let missing = expected.map(|expected| expected.saturating_sub(self.growing.length()));
        if self.lead.is_some() && is_little(missing, &self.context.config.cache) {
            *finishing.borrow_mut() = Finishing::begin(&self.context);
        }
        finishing.borrow().is_some()
    }

    /// What is missing, from the origin server once more.
    async fn rest(&mut self, recording: &mut Recording) -> Option<Box<Reply>> {
        let stored = self.stored.as_ref()?;
        let (from, length) = (self.growing.length(), self.growing.expected);
        let resumed = self
            .again
            .resume(&self.context, stored, from, length, recording);
        resumed.await
    }
}

/// Whether so much (octets; none: nobody knows) is fetched although nobody waits for it any more.
pub fn is_little(missing: Option<u64>, config: &Cache) -> bool {
    missing.unwrap_or(config.max_object) <= config.finish_aborted
}

/// One of the few fetches that go on although nobody reads them.
struct Finishing(Rc<Context>);

impl Finishing {
    fn begin(context: &Rc<Context>) -> Option<Finishing> {
        let count = &context.finishing;
        if count.get() >= MOST_FINISHING || context.is_draining() {
            return None;
        }
        count.set(count.get() + 1);
        Some(Finishing(context.clone()))
    }
}

impl Drop for Finishing {
    fn drop(&mut self) {
        self.0.finishing.set(self.0.finishing.get() - 1);
    }
}

/// The same of what is kept already, and goes before what comes.
async fn absorb_kept(
    context: &Context,
    prefix: Option<Prefix>,
    recording: &mut Recording,
    is_wanted: &impl Fn() -> bool,
) -> Came {
    let Some(mut prefix) = prefix else {
        return Came::Whole;
    };
    while is_wanted() {
        match prefix.next(context).await {
            Ok(Some(piece)) => recording.write(&piece).await,
            Ok(None) => return Came::Whole,
            Err(_) => return Came::Broken,
        }
    }
    Came::Unwanted
}

/// Takes a response for the store, and for those who read it meanwhile, as long as it is wanted. Its end is the caller's to tell.
pub async fn absorb(
    context: &Context,
    reply: &mut Reply,
    mut decoder: Decoder,
    recording: &mut Recording,
    is_wanted: impl Fn() -> bool,
) -> Came {
    let link = &mut reply.link;
    let mut pace = Pace::new(
        context.config.origin.body_timeout,
        context.config.origin.min_rate,
    );
    loop {
        while !decoder.is_done() && !link.inbox.is_empty() {
            let Ok(step) = decoder.decode(link.inbox.octets()) else {
                return Came::Broken;
            };
            let content = link.inbox.octets().get(step.data.clone());
            recording.write(content.unwrap_or_default()).await;
            link.inbox.consume(step.consumed);
            if step.consumed == 0 {
                break;
            }
        }
        if decoder.is_done() {
            return Came::Whole;
        }
        if !is_wanted() {
            return Came::Unwanted;
        }
        let read = tokio::select! {
            biased;
            read = link.inbox.fill_paced(&link.stream, buffers::LARGE, &mut pace) => read,
            () = recording.left() => continue,
        };
        match read {
            Ok(0) if decoder.end_of_input().is_ok() => {}
            Ok(0) | Err(_) => return Came::Broken,
            Ok(_) => {}
        }
    }
}

/// One who reads what comes; while there is any, it does.
pub struct Reader {
    pub growing: Rc<Growing>,
    _object: Option<Rc<Object>>,
}

/// What those hear who wait for a response that has come to that end.
pub fn outcome(recording: &Recording, end: &End) -> Outcome {
    match (recording.is_kept(), end) {
        (true, _) => Outcome::Stored,
        (false, End::Whole) => Outcome::NotKept,
        (false, _) => Outcome::Failed,
    }
}
