//! Answers to the control process, which asks what this worker has in memory. Clients go first: it says a little at a time.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::context::Context;
use super::kept::InRegion;
use crate::store::asked::{Answer, InMemory, Question};
use crate::store::{Hot, Object};
use crate::wire::{Frame, Frames};

/// Keys told of before the connections get their turn.
const KEYS_AT_ONCE: usize = 32;
/// How long the other side may take to hear one answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub async fn answer(context: &Rc<Context>, mut frames: Frames, frame: &Frame) {
    let Some(question) = Question::decode(&frame.content) else {
        log::error!("a question of the control process is not understood");
        return;
    };
    // A worker that keeps nothing in memory alone has nothing to tell.
    let store = context.store.as_ref().and_then(|store| store.in_memory());
    let told = match store {
        Some(store) => tell(store, &question, &mut frames).await,
        None => Ok(()),
    };
    if let Err(error) = match told {
        Ok(()) => say(&mut frames, &Answer::Done).await,
        failed => failed,
    } {
        log::debug!("the control process does not hear: {error}");
    }
}

async fn tell(store: &Hot<InRegion>, question: &Question, frames: &mut Frames) -> io::Result<()> {
    match question {
        Question::Kept(keys) => {
            for key in keys {
                say_all(frames, key, store.current(key)).await?;
            }
        }
        Question::Forget(keys) => {
            for key in keys {
                let current = store.current(key);
                store.forget(key);
                say_all(frames, key, current).await?;
            }
        }
        Question::All => {
            for keys in store.keys().chunks(KEYS_AT_ONCE) {
                for key in keys {
                    let key = key.as_bytes();
                    say_all(frames, key, store.current(key)).await?;
                }
                tokio::task::yield_now().await;
            }
        }
        Question::Sum => say(frames, &Answer::Sum(store.sum())).await?,
        Question::Sweep => {
            store.forget_outdated();
            say(frames, &Answer::Sum(store.sum())).await?;
        }
    }
    Ok(())
}

async fn say_all(frames: &mut Frames, key: &[u8], objects: Vec<Rc<Object>>) -> io::Result<()> {
    for object in objects {
        let answer = Answer::Kept(Box::new(InMemory {
            key: key.to_vec(),
            stored: object.stored.clone(),
            size: object.memory() as u64,
        }));
        say(frames, &answer).await?;
    }
    Ok(())
}

async fn say(frames: &mut Frames, answer: &Answer) -> io::Result<()> {
    let (kind, content) = answer.encode();
    let sent = tokio::time::timeout(PATIENCE, frames.send(kind, &content)).await;
    sent.map_err(io::Error::from)?
}
