//! One level-triggered epoll set with 64-bit tokens. The token is the caller's; nothing here knows what it means.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll as NixEpoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// What to be told about. Hang-up and error are always told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Nothing but hang-up and error.
    Quiet,
    Read,
    ReadWrite,
    /// Readable, or the peer has closed its sending half.
    ReadOrEnd,
}

/// What happened to one descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    pub token: u64,
    /// There is something to read, be it the end.
    pub read: bool,
    pub write: bool,
    /// The peer has closed its sending half (told for `ReadOrEnd` only); there may be octets before that.
    pub end: bool,
    /// The peer is gone, or the socket is in error.
    pub hang_up: bool,
}

pub struct Epoll {
    set: NixEpoll,
    /// Where the kernel puts a batch.
    events: Vec<EpollEvent>,
}

// === impl Interest ===

impl Interest {
    fn flags(self) -> EpollFlags {
        match self {
            Interest::Quiet => EpollFlags::empty(),
            Interest::Read => EpollFlags::EPOLLIN,
            Interest::ReadWrite => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
            Interest::ReadOrEnd => EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP,
        }
    }
}

// === impl Epoll ===

impl Epoll {
    /// A set that reports at most `batch` events a wait.
    pub fn new(batch: usize) -> io::Result<Epoll> {
        Ok(Epoll {
            set: NixEpoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            events: vec![EpollEvent::empty(); batch.max(1)],
        })
    }

    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.set.add(fd, EpollEvent::new(interest.flags(), token))?)
    }

    pub fn modify(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self
            .set
            .modify(fd, &mut EpollEvent::new(interest.flags(), token))?)
    }

    /// Must come before the close of a descriptor that another process has a copy of: the registration belongs to
    /// the open socket, not to the number, and would outlive the number.
    pub fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.set.delete(fd)?)
    }

    /// Waits at most `timeout_ms` (`None`: for ever) and appends what is ready. A signal ends the wait early.
    pub fn wait(&mut self, timeout_ms: Option<u64>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let timeout = match timeout_ms {
            None => EpollTimeout::NONE,
            Some(ms) => EpollTimeout::try_from(ms).unwrap_or(EpollTimeout::MAX),
        };
        let count = match self.set.wait(&mut self.events, timeout) {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        ready.extend(self.events.iter().take(count).map(|event| {
            let flags = event.events();
            Ready {
                token: event.data(),
                read: flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP),
                write: flags.contains(EpollFlags::EPOLLOUT),
                end: flags.contains(EpollFlags::EPOLLRDHUP),
                hang_up: flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR),
            }
        }));
        Ok(())
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn reports_token_readiness_and_end() {
        let mut epoll = Epoll::new(8).unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        epoll
            .add(far.as_fd(), u64::MAX - 1, Interest::ReadOrEnd)
            .unwrap();
        let mut ready = Vec::new();
        epoll.wait(Some(0), &mut ready).unwrap();
        assert!(ready.is_empty());

        near.write_all(b"x").unwrap();
        epoll.wait(Some(1000), &mut ready).unwrap();
        let expected = Ready {
            token: u64::MAX - 1,
            read: true,
            write: false,
            end: false,
            hang_up: false,
        };
        assert_eq!(ready, [expected]);

        ready.clear();
        drop(near);
        epoll.wait(Some(1000), &mut ready).unwrap();
        assert!(ready[0].read && ready[0].hang_up);

        ready.clear();
        epoll.delete(far.as_fd()).unwrap();
        epoll.wait(Some(0), &mut ready).unwrap();
        assert!(ready.is_empty());
    }
}
