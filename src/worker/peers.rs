//! Streams between this worker and other processes of the instance, which the master passes on and does not read.
//!
//! Who calls sends one frame first, whose kind says what it wants; the modules of those kinds do the rest.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use super::asked;
use super::context::Context;
use super::exchange::lend;
use crate::ipc::{SendError, ToMaster};
use crate::wire::{Frame, Frames};

/// How long a caller may take to say what it wants: it has, before it is introduced.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// What a caller wants.
pub mod wants {
    /// To read what this worker is fetching.
    pub const FOLLOW: u8 = 1;
    /// To know what is kept in memory here: the control process.
    pub const ASK: u8 = crate::store::asked::ASK;
}

/// Opens a stream to another worker. It ends at once where there is none.
///
/// Errors: no descriptors, or no master.
pub async fn call(context: &Context, worker: u16) -> io::Result<Frames> {
    let (near, far) = Frames::pair()?;
    let mut fds = vec![far];
    loop {
        let message = ToMaster::Introduce { worker };
        match context.channel.send(&message, fds) {
            Ok(()) => return Ok(near),
            Err((SendError::WouldBlock | SendError::TooManyInFlight, back)) => {
                fds = back;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err((error, _)) => return Err(io::Error::other(error)),
        }
    }
}

/// Another process has been introduced.
pub fn answer(context: &Rc<Context>, stream: OwnedFd) {
    let context = context.clone();
    tokio::task::spawn_local(async move {
        let answered = async {
            let mut frames = Frames::new(stream)?;
            let first = tokio::time::timeout(FIRST_WORD, frames.next()).await;
            let first = first.map_err(io::Error::from)??;
            first.map_or(Ok(None), |frame| Ok(Some((frames, frame))))
        };
        match answered.await {
            Ok(Some((frames, frame))) => heard(&context, frames, frame).await,
            Ok(None) => {}
            Err::<_, io::Error>(error) => log::warn!("another process cannot be heard: {error}"),
        }
    });
}

async fn heard(context: &Rc<Context>, frames: Frames, frame: Frame) {
    match frame.kind {
        wants::ASK => asked::answer(context, frames, &frame).await,
        wants::FOLLOW => lend(context, frames, &frame).await,
        other => log::error!("another process wants something unknown ({other})"),
    }
}
