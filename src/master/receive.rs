//! What comes from workers, and what parked clients do: everything that brings a connection back into motion.

use std::os::fd::{AsFd, OwnedFd};

use super::Master;
use crate::dispatch::{Conn, Event, Token};
use crate::ipc::{Received, Returned, ToMaster};
use crate::shared::Counter;
use crate::sys::epoll::Ready;
use crate::sys::socket::{Readiness, has_bytes};

/// Messages taken from one worker before others get their turn.
const MESSAGES_AT_ONCE: usize = 16;

/// Whether a worker has more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Something,
    Nothing,
    /// Nothing ever again.
    End,
}

impl Master {
    /// Keeps a socket and tells the mind of it.
    pub(super) fn take_in(&mut self, socket: OwnedFd, conn: Conn, bytes: Vec<u8>, ready: bool) {
        let token = self.mind.admit(conn);
        self.connections.keep(token, socket, bytes);
        self.tell(Event::Arrived { token, ready });
    }

    /// A parked client has sent something, or has left.
    pub(super) fn parked_is_ready(&mut self, token: Token, ready: Ready) {
        // The event may be older than what became of that connection in this very batch.
        let Some(socket) = self
            .mind
            .conn(token)
            .and_then(|_| self.connections.socket(token))
        else {
            return;
        };
        let event = if ready.read && !ready.end && !ready.hang_up {
            Event::Readable(token)
        } else {
            match has_bytes(socket) {
                Ok(Readiness::Bytes) => Event::Readable(token),
                Ok(Readiness::Nothing) if !ready.hang_up => return,
                Ok(Readiness::Nothing | Readiness::End) | Err(_) => Event::HungUp(token),
            }
        };
        self.tell(event);
    }

    /// Hears what a worker says, as long as there are descriptors for what may come with it.
    pub(super) fn receive(&mut self, worker: usize) {
        for _ in 0..MESSAGES_AT_ONCE {
            let room = self.mind.make_room(self.room_to_receive, &mut self.actions);
            self.carry_out();
            if !room {
                if let Some(child) = self.children.get_mut(worker) {
                    child.deaf = true;
                }
                self.set_interest(worker);
                return;
            }
            if self.hear(worker) != Heard::Something {
                return;
            }
        }
    }

    /// After its death: everything that a worker still had sent.
    pub(super) fn receive_rest(&mut self, worker: usize) {
        loop {
            self.mind.make_room(self.room_to_receive, &mut self.actions);
            self.carry_out();
            if self.hear(worker) != Heard::Something {
                return;
            }
        }
    }

    /// Takes one message.
    fn hear(&mut self, worker: usize) -> Heard {
        let Some(child) = self
            .children
            .get_mut(worker)
            .filter(|child| child.closed_at.is_none())
        else {
            return Heard::End;
        };
        match child.channel.recv::<ToMaster>() {
            Ok(Received::Message {
                message,
                fds,
                missing,
            }) => {
                if missing > 0 {
                    log::error!(
                        "{missing} connections were lost on their way back: no descriptors left"
                    );
                }
                match message {
                    ToMaster::Ready => self.tell(Event::Ready { worker }),
                    ToMaster::Return(returned) => self.take_back_in(returned, fds),
                    ToMaster::Introduce { worker } => {
                        fds.into_iter()
                            .for_each(|stream| self.introduce(worker.into(), stream));
                    }
                }
                Heard::Something
            }
            Ok(Received::Nothing) => Heard::Nothing,
            Ok(Received::End) => {
                // SIGCHLD will say more; until then the end would be reported again and again.
                child.closed_at = Some(self.now);
                let _ = self.epoll.delete(child.channel.as_fd());
                Heard::End
            }
            Err(error) => {
                log::error!("worker {worker} (pid {}) says nonsense: {error}", child.pid);
                child.closed_at = Some(self.now);
                let _ = self.epoll.delete(child.channel.as_fd());
                self.tell(Event::Misbehaved { worker });
                Heard::End
            }
        }
    }

    fn take_back_in(&mut self, returned: Vec<Returned>, sockets: Vec<OwnedFd>) {
        for (Returned { conn, bytes }, socket) in returned.into_iter().zip(sockets) {
            self.count(Counter::Returned);
            let ready = !bytes.is_empty();
            self.take_in(socket, conn, bytes, ready);
        }
    }
}
