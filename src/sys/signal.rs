//! Signals as events of the master's loop, and their silence in its children.
//!
//! The master blocks what it cares for and reads it from a descriptor: no handler ever runs. Children obey their
//! channel alone; Ctrl-C and service managers signal everyone, and a child that ended by it would cut its clients.

#![expect(
    unsafe_code,
    reason = "setting a signal's disposition is unsafe in nix"
)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal as NixSignal, signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that mean something to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Child,
    HangUp,
    Interrupt,
    Quit,
    Terminate,
    User1,
}

const TABLE: [(NixSignal, Signal); 6] = [
    (NixSignal::SIGCHLD, Signal::Child),
    (NixSignal::SIGHUP, Signal::HangUp),
    (NixSignal::SIGINT, Signal::Interrupt),
    (NixSignal::SIGQUIT, Signal::Quit),
    (NixSignal::SIGTERM, Signal::Terminate),
    (NixSignal::SIGUSR1, Signal::User1),
];

/// The master's signals, blocked and readable.
pub struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Blocks the signals of the table in this thread and makes them readable. To be called before any thread
    /// exists.
    pub fn block() -> io::Result<Signals> {
        let mask = mask();
        mask.thread_block()?;
        let fd = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Signals { fd })
    }

    /// The next signal that has arrived, if one has.
    pub fn take(&mut self) -> io::Result<Option<Signal>> {
        while let Some(info) = self.fd.read_signal()? {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            if let Some((_, known)) = TABLE.iter().find(|(signal, _)| *signal as i32 == number) {
                return Ok(Some(*known));
            }
        }
        Ok(None)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// In a child: ignore what is meant for the master, then lift the block that was inherited from it.
pub fn leave_to_master() -> io::Result<()> {
    for (number, meaning) in TABLE {
        if meaning != Signal::Child {
            // SAFETY: ignoring a signal installs no handler, so nothing can run at a bad moment.
            unsafe { signal(number, SigHandler::SigIgn) }?;
        }
    }
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&mask()), None)?;
    Ok(())
}

fn mask() -> SigSet {
    TABLE.iter().map(|(number, _)| *number).collect()
}
