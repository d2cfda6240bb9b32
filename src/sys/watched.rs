//! A descriptor that registers with the event loop only when somebody has to wait for it.

#![expect(
    unsafe_code,
    reason = "the runtime's registration borrows a descriptor that it does not own"
)]

use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use tokio::io::unix::AsyncFd;

/// An open descriptor and, once it was waited for, its registration.
pub struct Watched {
    // Declared, and so dropped, before the descriptor: deregistering needs it open, and a copy of the descriptor in
    // another process would keep a forgotten registration alive.
    registration: OnceCell<AsyncFd<RawFd>>,
    fd: OwnedFd,
}

impl Watched {
    /// Takes a non-blocking descriptor.
    pub fn new(fd: OwnedFd) -> Watched {
        Watched {
            registration: OnceCell::new(),
            fd,
        }
    }

    pub fn is_registered(&self) -> bool {
        self.registration.get().is_some()
    }

    /// Registers for reading and writing at the first call. Must be called within the runtime.
    pub fn registration(&self) -> io::Result<&AsyncFd<RawFd>> {
        if let Some(registration) = self.registration.get() {
            return Ok(registration);
        }
        // SAFETY: the number stays that of our own descriptor as long as the registration lives: both are private to this
        // struct, the registration is dropped first, and `into_fd` drops it before it lets the descriptor go.
        let registration = unsafe { AsyncFd::register(self.fd.as_raw_fd()) }
            .map_err(|error| error.into_parts().1)?;
        Ok(self.registration.get_or_init(|| registration))
    }

    /// The descriptor, deregistered.
    pub fn into_fd(self) -> OwnedFd {
        drop(self.registration);
        self.fd
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
