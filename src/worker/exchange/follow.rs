//! Reading what another worker is fetching, so that a herd over all workers asks once.
//!
//! The one who leads in this worker follows the one who has the claim: over a stream that the master has passed on
//! comes the head of the response, then its octets as they arrive, and those who wait here read them as if they came
//! from the origin server. Sockets of clients stay where they are, so that a worker's death takes along only its own:
//! what it was fetching is gone on with by one of those that followed (`resume`). `lend` is the other side.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::timeout;

use super::fetch::Reply;
use super::lend::{self, Arriving, Question};
use super::recording::Recording;
use super::resume::Again;
use super::share::{Came, absorb};
use super::{Fetch, finish, join};
use crate::cache::{Key, Stored, part};
use crate::http::body::Decoder;
use crate::shared::{Claim, Claimed, Counter};
use crate::store::{Growing, InFile, Object, SoFar, Store};
use crate::wire::Frames;
use crate::worker::context::Context;
use crate::worker::herd::{Lead, Outcome};
use crate::worker::kept::{Filling, Kept};
use crate::worker::peers::{self, wants};
use crate::worker::session::Session;

/// Workers that are turned to, one after the other, for the rest of one response.
const MOST_TURNS: usize = 4;

/// What came of turning to the worker that has the claim.
pub enum Followed {
    /// It arrives; whoever waits behind `Lead` has been told.
    Arrives(Rc<Object>),
    Told(Outcome),
    /// It is not there, or does not know of it.
    Unknown(Lead),
    /// This worker could not turn to it, which says nothing of that one.
    NotAsked(Lead),
}

/// Asks the worker for what it is fetching, in the name of those who wait behind `lead`.
pub async fn follow(session: &Session, fetch: &Fetch, claim: Claim, lead: Lead) -> Followed {
    let (context, worker) = (&session.context, claim.worker());
    let Some(key) = fetch.plan.key.clone() else {
        return Followed::Unknown(lead);
    };
    let question = Question::of(context, fetch, &key, 0);
    let answered = timeout(join::patience(context), ask(context, worker, &question)).await;
    let (frames, answer) = match answered {
        Ok(Ok(Some(answered))) => answered,
        Ok(Ok(None)) => return Followed::Unknown(lead),
        Ok(Err(error)) => {
            log::debug!("worker {worker} cannot be followed: {error}");
            return Followed::NotAsked(lead);
        }
        // Nobody waits a second time for one that is so slow.
        Err(_) => {
            lead.settle(Outcome::NotKept);
            return Followed::Told(Outcome::NotKept);
        }
    };
    let arriving = match answer {
        Answer::Over(outcome) => {
            lead.settle(outcome);
            return Followed::Told(outcome);
        }
        Answer::Arriving(arriving) => arriving,
    };
    context.count(Counter::HerdFollowed, 1);
    let growing = Growing::new(arriving.expected, SoFar::new(None, Bytes::new()));
    growing.is_ahead(arriving.ahead);
    let growing = Rc::new(growing);
    let object = Rc::new(Object::growing(arriving.stored.clone(), growing.clone()));
    lead.answered();
    lead.share(object.clone());
    let copy = copy(context, &key, &arriving);
    let follower = Follower {
        recording: Recording::followed(growing.clone(), copy, fetch.plan.status),
        context: context.clone(),
        stored: arriving.stored,
        again: Again::of(session, fetch),
        growing,
        file: None,
        claim,
        key,
        lead,
    };
    tokio::task::spawn_local(follower.run(frames));
    Followed::Arrives(object)
}

/// Where each worker has a store of its own, what comes is kept in this one, too.
fn copy(context: &Context, key: &Key, arriving: &Arriving) -> Option<Filling> {
    let Some(store @ Kept::Memory(_)) = &context.store else {
        return None;
    };
    let (stored, expected) = (arriving.stored.clone(), arriving.expected);
    store
        .begin(key.clone(), stored, expected, arriving.version)
        .ok()
}

enum Answer {
    Arriving(Box<Arriving>),
    Over(Outcome),
}

/// None: it is not known there, or the stream ended: the worker has died. Error: it is too busy, or this one could not
/// turn to it at all.
async fn ask(
    context: &Context,
    worker: u16,
    question: &Question,
) -> io::Result<Option<(Frames, Answer)>> {
    let mut frames = peers::call(context, worker).await?;
    match answer(&mut frames, question).await {
        Ok(answer) => Ok(answer.map(|answer| (frames, answer))),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(error),
        Err(error) => {
            log::debug!("worker {worker} does not answer: {error}");
            Ok(None)
        }
    }
}

async fn answer(frames: &mut Frames, question: &Question) -> io::Result<Option<Answer>> {
    let sent = frames.send(wants::FOLLOW, &question.encoded()).await;
    // Whoever was turned away may find the stream closed before, and the reason still in it.
    let Some(frame) = frames.next().await? else {
        return sent.map(|()| None);
    };
    sent?;
    let answer = match frame.kind {
        lend::UNKNOWN => return Ok(None),
        lend::OVER => lend::outcome(&frame.content).map(Answer::Over),
        lend::HEAD => Arriving::decode(&frame.content).map(|it| Answer::Arriving(Box::new(it))),
        _ => None,
    };
    answer.map(Some).ok_or(io::ErrorKind::InvalidData.into())
}

/// Takes what comes from the other worker, for those who read it here.
struct Follower {
    context: Rc<Context>,
    key: Key,
    /// Of the worker that is followed.
    claim: Claim,
    lead: Lead,
    stored: Stored,
    again: Again,
    growing: Rc<Growing>,
    recording: Recording,
    /// The file of the store that the other worker is writing.
    file: Option<Arc<OwnedFd>>,
}

/// Where the rest comes from.
enum Source {
    Worker(Frames),
    Origin(Box<Reply>),
}

impl Follower {
    async fn run(mut self, frames: Frames) {
        let mut source = Source::Worker(frames);
        let outcome = loop {
            let came = match &mut source {
                Source::Worker(frames) => self.take(frames).await,
                Source::Origin(reply) => self.absorb(reply).await,
            };
            match came {
                Ok(Some(outcome)) if self.is_whole() => break self.finish(outcome).await,
                Ok(None) => break Outcome::Failed,
                Ok(Some(_)) => log::debug!("what another worker was fetching did not come whole"),
                Err(error) => log::debug!("what was being fetched for a herd broke off: {error}"),
            }
            source = match self.next_source().await {
                Some(source) => source,
                None => break Outcome::Failed,
            };
        };
        if let Source::Origin(reply) = source
            && outcome != Outcome::Failed
        {
            finish::keep_origin(&self.context, reply, true);
        }
        self.growing.break_off();
        self.lead.settle(outcome);
    }

    /// What the other worker says at the end; none: nobody wants it.
    async fn take(&mut self, frames: &mut Frames) -> io::Result<Option<Outcome>> {
        while self.lead.is_followed() {
            let next = tokio::select! {
                biased;
                next = frames.next() => next?,
                () = self.growing.left() => continue,
            };
            let frame = next.ok_or(io::ErrorKind::UnexpectedEof)?;
            match frame.kind {
                lend::DATA => {
                    // Before, and not behind: what makes room may be in the frames that follow.
                    self.growing.room().await;
                    self.recording.take(&frame.content).await;
                }
                lend::FILE => self.file = frame.descriptor.map(Into::into),
                lend::IN_FILE => {
                    if let (Some(file), Some(length)) = (&self.file, lend::number(&frame.content)) {
                        let file = file.clone();
                        self.growing.is_in(InFile { file, length });
                    }
                }
                lend::OVER => return Ok(lend::outcome(&frame.content)),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(None)
    }

    /// The same from the origin server, in the place of the worker that was followed.
    async fn absorb(&mut self, reply: &mut Reply) -> io::Result<Option<Outcome>> {
        let decoder = Decoder::new(reply.framing);
        let wanted = || self.lead.is_followed();
        let recording = &mut self.recording;
        match absorb(&self.context, reply, decoder, recording, wanted).await {
            // The store has not seen the beginning.
            Came::Whole => Ok(Some(Outcome::NotKept)),
            Came::Unwanted => Ok(None),
            Came::Broken => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn is_whole(&self) -> bool {
        let length = self.growing.length();
        self.growing
            .expected
            .is_none_or(|expected| expected == length)
    }

    /// It has come to its end.
    async fn finish(&mut self, outcome: Outcome) -> Outcome {
        if !matches!(outcome, Outcome::Stored | Outcome::NotKept) {
            return Outcome::Failed;
        }
        self.recording.finish(&self.context).await;
        match self.recording.is_kept() {
            true => Outcome::Stored,
            false => outcome,
        }
    }

    /// It broke off: whoever claims the key asks for the rest, and the others follow that one.
    async fn next_source(&mut self) -> Option<Source> {
        if !part::may_resume(&self.stored) {
            return None;
        }
        let mut is_ours = self.lead.has_claim() || self.lead.take_over(self.claim);
        for _ in 0..MOST_TURNS {
            if !is_ours {
                match self.lead.claim() {
                    Claimed::Ours | Claimed::Crowded => is_ours = true,
                    Claimed::Theirs(claim) => self.claim = claim,
                }
            }
            if is_ours {
                return self.rest().await.map(Source::Origin);
            }
            if let Some(frames) = self.turn_to(self.claim.worker()).await {
                return Some(Source::Worker(frames));
            }
            is_ours = self.lead.take_over(self.claim);
        }
        None
    }

    async fn rest(&mut self) -> Option<Box<Reply>> {
        let (from, length) = (self.growing.length(), self.growing.expected);
        let recording = &mut self.recording;
        let resumed = self
            .again
            .resume(&self.context, &self.stored, from, length, recording);
        let reply = resumed.await?;
        self.context.count(Counter::HerdTakenOver, 1);
        Some(reply)
    }

    /// The worker's stream of the same representation, from where this one has come.
    async fn turn_to(&mut self, worker: u16) -> Option<Frames> {
        let from = self.growing.length();
        let question = Question::of(&self.context, self.again.fetch(), &self.key, from);
        let asked = ask(&self.context, worker, &question);
        let answered = timeout(join::patience(&self.context), asked).await;
        match answered.ok()?.ok()?? {
            (frames, Answer::Arriving(arriving)) => {
                let is_same = arriving.expected == self.growing.expected
                    && part::is_same(&self.stored, &arriving.stored.headers);
                self.file = None;
                is_same.then_some(frames)
            }
            (_, Answer::Over(_)) => None,
        }
    }
}
