//! Reading what another worker is fetching, so that a herd over all workers asks once.
//!
//! The one who leads in this worker follows the one who has the claim: over a stream that the master has passed on
//! comes the head of the response, then its octets as they arrive, and those who wait here read them as if they came
//! from the origin server. Sockets of clients stay where they are, so that a worker's death takes along only its own:
//! what it was fetching is gone on with by one of those that followed (`resume`). `lend` is the other side.

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use tokio::time::timeout;

use super::lend::{self, Question};
use super::{Fetch, join};
use crate::cache::{Key, Stored};
use crate::shared::{Counter, Version};
use crate::store::{Growing, InFile, Object, SoFar, Store, Writer};
use crate::wire::Frames;
use crate::worker::context::Context;
use crate::worker::herd::{Lead, Outcome};
use crate::worker::kept::{Filling, Kept};
use crate::worker::peers::{self, wants};

/// What came of turning to the worker that has the claim.
pub enum Followed {
    /// It arrives; whoever waits behind `Lead` has been told.
    Arrives(Rc<Object>),
    Told(Outcome),
    /// It is not there, or does not know of it.
    Unknown(Lead),
}

/// The head, as it comes from the other worker.
struct Arriving {
    stored: Stored,
    expected: Option<u64>,
    /// Octets that are there.
    ahead: u64,
}

/// Asks the worker for what it is fetching, in the name of those who wait behind `lead`.
pub async fn follow(context: &Rc<Context>, fetch: &Fetch, worker: u16, lead: Lead) -> Followed {
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
            return Followed::Unknown(lead);
        }
        Err(_) => {
            lead.settle(Outcome::Failed);
            return Followed::Told(Outcome::Failed);
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
    let follower = Follower {
        copy: copy(context, &key, &arriving, fetch.plan.version),
        growing,
        file: None,
        lead,
    };
    tokio::task::spawn_local(follower.run(frames));
    Followed::Arrives(object)
}

/// Where each worker has a store of its own, what comes is kept in this one, too.
fn copy(context: &Context, key: &Key, arriving: &Arriving, version: Version) -> Option<Filling> {
    let Some(store @ Kept::Memory(_)) = &context.store else {
        return None;
    };
    let (stored, expected) = (arriving.stored.clone(), arriving.expected);
    store.begin(key.clone(), stored, expected, version).ok()
}

enum Answer {
    Arriving(Box<Arriving>),
    Over(Outcome),
}

/// None: the stream ended without a word, or with the one that says it is not known there.
async fn ask(
    context: &Context,
    worker: u16,
    question: &Question,
) -> io::Result<Option<(Frames, Answer)>> {
    let mut frames = peers::call(context, worker).await?;
    frames.send(wants::FOLLOW, &question.encoded()).await?;
    let Some(frame) = frames.next().await? else {
        return Ok(None);
    };
    let answer = match frame.kind {
        lend::UNKNOWN => return Ok(None),
        lend::OVER => lend::outcome(&frame.content).map(Answer::Over),
        lend::HEAD => arriving(&frame.content).map(|it| Answer::Arriving(Box::new(it))),
        _ => None,
    };
    let answer = answer.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some((frames, answer)))
}

fn arriving(content: &[u8]) -> Option<Arriving> {
    let (stored, expected, ahead) = lend::head(content)?;
    Some(Arriving {
        stored,
        expected,
        ahead,
    })
}

/// Takes what comes from the other worker, for those who read it here.
struct Follower {
    growing: Rc<Growing>,
    lead: Lead,
    copy: Option<Filling>,
    /// The file of the store that the other worker is writing.
    file: Option<std::sync::Arc<std::os::fd::OwnedFd>>,
}

impl Follower {
    async fn run(mut self, mut frames: Frames) {
        let outcome = match self.take(&mut frames).await {
            Ok(Some(outcome)) => self.is_whole(outcome).await,
            // Nobody reads it any more.
            Ok(None) => Outcome::Failed,
            Err(error) => {
                log::debug!("what another worker was fetching broke off: {error}");
                Outcome::Failed
            }
        };
        self.growing.break_off();
        self.lead.settle(outcome);
    }

    /// What the other worker says at the end; none: nobody wants it.
    async fn take(&mut self, frames: &mut Frames) -> io::Result<Option<Outcome>> {
        while self.lead.is_followed() {
            let frame = frames.next().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            match frame.kind {
                lend::DATA => self.add(&frame.content).await,
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

    async fn add(&mut self, content: &[u8]) {
        self.growing.add(content);
        self.growing.room().await;
        let is_kept = match &mut self.copy {
            Some(writer) => writer.write(content) && writer.room().await,
            None => true,
        };
        if !is_kept {
            self.copy = None;
        }
    }

    /// It has come to its end there; here, too, if nothing is missing.
    async fn is_whole(&mut self, outcome: Outcome) -> Outcome {
        let length = self.growing.length();
        let is_whole = self
            .growing
            .expected
            .is_none_or(|expected| expected == length);
        if !matches!(outcome, Outcome::Stored | Outcome::NotKept) || !is_whole {
            return Outcome::Failed;
        }
        let kept = match self.copy.take() {
            Some(writer) => Some(writer.finish().await.is_some()),
            None => None,
        };
        self.growing.finish();
        match kept {
            Some(true) => Outcome::Stored,
            Some(false) => Outcome::NotKept,
            None => outcome,
        }
    }
}
