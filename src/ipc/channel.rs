//! One end of the channel between the master and a child: whole messages with their descriptors, never blocking.
//!
//! Sending consumes descriptors and gives them back when it fails, so a socket always has an owner. Receiving reports
//! missing descriptors as a value: the kernel drops what this process has no room for, and that is shortage, not a
//! broken peer. Nothing is queued or retried here.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use thiserror::Error;

use super::message::{MAX_DESCRIPTORS, MAX_MESSAGE, Message, MessageError};
use crate::sys::fd::{MAX_RECEIVED, recv_with_fds, send_with_fds};

const _: () = assert!(MAX_DESCRIPTORS <= MAX_RECEIVED);

/// One end of a message channel.
pub struct Channel {
    fd: OwnedFd,
    /// The message being sent.
    outgoing: RefCell<Vec<u8>>,
    /// Room for the longest message; what no message has touched costs no memory.
    incoming: RefCell<Vec<u8>>,
}

/// What a receive found.
#[derive(Debug)]
pub enum Received<M> {
    Message {
        message: M,
        /// As many as the message says, or fewer: then the last ones are lost.
        fds: Vec<OwnedFd>,
        /// How many descriptors the kernel could not deliver.
        missing: usize,
    },
    /// Nothing is waiting.
    Nothing,
    /// The peer is gone, and everything it sent has been received.
    End,
}

/// Why a message was not sent.
#[derive(Debug, Error)]
pub enum SendError {
    /// The peer has not read enough of what was sent before.
    #[error("the channel is full")]
    WouldBlock,
    /// Too many descriptors are on their way to processes that have not received them (ETOOMANYREFS).
    #[error("too many descriptors are in flight")]
    TooManyInFlight,
    #[error("the peer is gone")]
    PeerGone,
    #[error("the message does not fit: {0}")]
    Message(#[from] MessageError),
    /// The message says another count of descriptors than were handed over.
    #[error("the message has {due} descriptors, not {given}")]
    Count { due: usize, given: usize },
    #[error("sending failed: {0}")]
    Io(#[source] io::Error),
}

/// Why nothing could be received; the peer is not to be trusted any further.
#[derive(Debug, Error)]
pub enum RecvError {
    #[error("not a message: {0}")]
    Message(#[from] MessageError),
    #[error("a message with {given} descriptors instead of {due}")]
    SurplusDescriptors { due: usize, given: usize },
    #[error("receiving failed: {0}")]
    Io(#[source] io::Error),
}

// === impl Channel ===

impl Channel {
    /// Takes over one end of a SEQPACKET pair that does not block.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Channel {
        // One octet more than a message may have, so that one that is too long shows.
        let incoming = RefCell::new(vec![0; MAX_MESSAGE + 1]);
        Channel {
            fd,
            outgoing: RefCell::new(Vec::new()),
            incoming,
        }
    }

    /// Sends a message; its descriptors are closed here once they are on their way, and come back otherwise.
    pub fn send<M: Message>(
        &self,
        message: &M,
        fds: Vec<OwnedFd>,
    ) -> Result<(), (SendError, Vec<OwnedFd>)> {
        let mut raw: [RawFd; MAX_DESCRIPTORS] = [-1; MAX_DESCRIPTORS];
        for (place, fd) in raw.iter_mut().zip(&fds) {
            *place = fd.as_raw_fd();
        }
        match self.send_raw(message, &raw[..fds.len().min(MAX_DESCRIPTORS)], fds.len()) {
            Ok(()) => Ok(()),
            Err(error) => Err((error, fds)),
        }
    }

    /// Sends a message with copies of descriptors that the caller keeps.
    pub fn send_borrowed<M: Message>(
        &self,
        message: &M,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), SendError> {
        let mut raw: [RawFd; MAX_DESCRIPTORS] = [-1; MAX_DESCRIPTORS];
        for (place, fd) in raw.iter_mut().zip(fds) {
            *place = fd.as_raw_fd();
        }
        self.send_raw(message, &raw[..fds.len().min(MAX_DESCRIPTORS)], fds.len())
    }

    /// Receives one message, if one is waiting.
    pub fn recv<M: Message>(&self) -> Result<Received<M>, RecvError> {
        let mut buffer = self.incoming.borrow_mut();
        let mut fds = Vec::new();
        let length = loop {
            match recv_with_fds(self.fd.as_fd(), &mut buffer, &mut fds) {
                Ok(length) => break length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Received::Nothing);
                }
                // After a child's death the reset comes first, and behind it what the child still sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(RecvError::Io(error)),
            }
        };
        if length == 0 {
            return Ok(Received::End);
        }
        let message = M::decode(&buffer[..length])?;
        let due = message.descriptors();
        if fds.len() > due {
            return Err(RecvError::SurplusDescriptors {
                due,
                given: fds.len(),
            });
        }
        let missing = due - fds.len();
        Ok(Received::Message {
            message,
            fds,
            missing,
        })
    }

    fn send_raw<M: Message>(
        &self,
        message: &M,
        raw: &[RawFd],
        given: usize,
    ) -> Result<(), SendError> {
        let due = message.descriptors();
        if due != given {
            return Err(SendError::Count { due, given });
        }
        let mut buffer = self.outgoing.borrow_mut();
        buffer.clear();
        message.encode(&mut buffer)?;
        loop {
            match send_with_fds(self.fd.as_fd(), &buffer, raw) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SendError::of(error)),
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

// === impl SendError ===

impl SendError {
    fn of(error: io::Error) -> SendError {
        match error.raw_os_error() {
            Some(libc::ETOOMANYREFS) => SendError::TooManyInFlight,
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => SendError::WouldBlock,
            Some(libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN | libc::ECONNREFUSED) => {
                SendError::PeerGone
            }
            _ => SendError::Io(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Conn;
    use crate::ipc::{Offer, Returned, ToMaster, ToWorker};
    use crate::sys::fd::seqpacket_pair;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn pair() -> (Channel, Channel) {
        let (near, far) = seqpacket_pair().unwrap();
        (Channel::new(near), Channel::new(far))
    }

    fn conn() -> Conn {
        Conn::accepted("192.0.2.1:4711".parse().unwrap(), 1, 7)
    }

    fn returned(count: usize) -> ToMaster {
        ToMaster::Return(vec![
            Returned {
                conn: conn(),
                bytes: Vec::new()
            };
            count
        ])
    }

    #[test]
    fn a_live_socket_goes_and_comes_back() {
        let (master, worker) = pair();
        let (mut client, server) = UnixStream::pair().unwrap();
        let offers = ToWorker::Offers(vec![Offer {
            seq: 3,
            conn: conn(),
            bytes: b"GET".to_vec(),
        }]);
        master.send_borrowed(&offers, &[server.as_fd()]).unwrap();

        let Received::Message {
            message,
            mut fds,
            missing: 0,
        } = worker.recv::<ToWorker>().unwrap()
        else {
            panic!("no message");
        };
        assert_eq!(message, offers);
        let back = ToMaster::Return(vec![Returned {
            conn: conn(),
            bytes: Vec::new(),
        }]);
        worker.send(&back, vec![fds.remove(0)]).unwrap();
        assert!(fds.is_empty());

        let Received::Message { message, fds, .. } = master.recv::<ToMaster>().unwrap() else {
            panic!("no message");
        };
        assert_eq!(message, back);
        client.write_all(b"alive").unwrap();
        let mut text = [0; 5];
        UnixStream::from(fds.into_iter().next().unwrap())
            .read_exact(&mut text)
            .unwrap();
        assert_eq!(&text, b"alive");
        assert!(matches!(
            master.recv::<ToMaster>().unwrap(),
            Received::Nothing
        ));
    }

    #[test]
    fn a_full_channel_gives_the_descriptors_back() {
        let (_master, worker) = pair();
        let mut sent = 0;
        let (error, fds) = loop {
            let (near, _) = UnixStream::pair().unwrap();
            match worker.send(&returned(1), vec![near.into()]) {
                Ok(()) => sent += 1,
                Err(refused) => break refused,
            }
        };
        assert!(sent > 16, "{sent}");
        assert!(
            matches!(error, SendError::WouldBlock | SendError::TooManyInFlight),
            "{error}"
        );
        assert_eq!(fds.len(), 1);
    }

    #[test]
    fn the_last_words_of_a_dead_peer_are_heard() {
        let (master, worker) = pair();
        master.send(&ToWorker::Reopen, Vec::new()).unwrap();
        let (near, _) = UnixStream::pair().unwrap();
        worker.send(&returned(1), vec![near.into()]).unwrap();
        // Unread messages on its side: the master's first receive would say ECONNRESET.
        drop(worker);
        assert!(matches!(
            master.recv::<ToMaster>().unwrap(),
            Received::Message { missing: 0, .. }
        ));
        assert!(matches!(master.recv::<ToMaster>().unwrap(), Received::End));
        assert!(matches!(master.recv::<ToMaster>().unwrap(), Received::End));
        let (error, _) = master.send(&ToWorker::Reopen, Vec::new()).unwrap_err();
        assert!(matches!(error, SendError::PeerGone), "{error}");
    }

    #[test]
    fn a_wrong_count_is_refused_on_both_sides() {
        let (master, worker) = pair();
        let (near, far) = UnixStream::pair().unwrap();
        let (error, fds) = worker.send(&returned(2), vec![near.into()]).unwrap_err();
        assert!(
            matches!(error, SendError::Count { due: 2, given: 1 }),
            "{error}"
        );
        assert_eq!(fds.len(), 1);

        let mut wire = Vec::new();
        returned(2).encode(&mut wire).unwrap();
        send_with_fds(worker.as_fd(), &wire, &[far.as_raw_fd()]).unwrap();
        let Received::Message { fds, missing, .. } = master.recv::<ToMaster>().unwrap() else {
            panic!("no message");
        };
        assert_eq!((fds.len(), missing), (1, 1), "shortage is a value");

        wire.clear();
        ToMaster::Ready.encode(&mut wire).unwrap();
        send_with_fds(worker.as_fd(), &wire, &[far.as_raw_fd()]).unwrap();
        let error = master.recv::<ToMaster>().unwrap_err();
        assert!(
            matches!(error, RecvError::SurplusDescriptors { due: 0, given: 1 }),
            "{error}"
        );
    }

    #[test]
    fn garbage_is_an_error_not_a_panic() {
        let (master, worker) = pair();
        for garbage in [
            &b"x"[..],
            &[0; 3],
            &[1, 65, 32],
            &[255; 1000],
            &vec![1; MAX_MESSAGE + 7],
        ] {
            send_with_fds(worker.as_fd(), garbage, &[]).unwrap();
            assert!(matches!(
                master.recv::<ToMaster>(),
                Err(RecvError::Message(_))
            ));
        }
    }
}
