//! Live sockets on their way back to the master, several a message.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use super::context::Context;
use crate::ipc::{MAX_DESCRIPTORS, MAX_PARTS, Returned, SendError, ToMaster};

/// Sockets that wait for the next message to the master.
#[derive(Default)]
pub struct Returns {
    waiting: RefCell<Vec<(Returned, OwnedFd)>>,
    some: Notify,
}

impl Returns {
    pub fn push(&self, returned: Returned, fd: OwnedFd) {
        self.waiting.borrow_mut().push((returned, fd));
        self.some.notify_one();
    }

    /// Keeps no more memory than what waits needs.
    pub fn shrink(&self) {
        self.waiting.borrow_mut().shrink_to_fit();
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// As many as one message holds.
    fn batch(&self) -> (Vec<Returned>, Vec<OwnedFd>) {
        let mut waiting = self.waiting.borrow_mut();
        let mut room = MAX_PARTS;
        let fits = |(returned, _): &&(Returned, OwnedFd)| {
            let length = returned.encoded_length();
            let fits = length <= room;
            room = room.saturating_sub(length);
            fits
        };
        let count = waiting
            .iter()
            .take(MAX_DESCRIPTORS)
            .take_while(fits)
            .count();
        waiting.drain(..count).unzip()
    }
}

/// Sends what is pushed until the worker ends. A master that is gone gets nothing: the sockets are closed.
pub async fn run(context: Rc<Context>) {
    loop {
        context.returns.some.notified().await;
        while !context.returns.is_empty() {
            let (parts, fds) = context.returns.batch();
            if parts.is_empty() {
                break;
            }
            send(&context, ToMaster::Return(parts), fds).await;
        }
    }
}

async fn send(context: &Context, message: ToMaster, mut fds: Vec<OwnedFd>) {
    loop {
        match context.channel.send(&message, fds) {
            Ok(()) => return,
            // The master reads at its next wake; it never blocks.
            Err((SendError::WouldBlock | SendError::TooManyInFlight, back)) => {
                fds = back;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err((error, _)) => {
                log::warn!("connections cannot go back to the master: {error}");
                return;
            }
        }
    }
}
