//! What the person or the service manager wants: signals, and what they mean.

use std::os::fd::{AsFd, BorrowedFd};

use super::Master;
use crate::dispatch::{Event, Shutdown};
use crate::ipc::ToWorker;
use crate::sys::signal::{Signal, Signals};

pub(super) struct Control {
    signals: Signals,
}

impl Control {
    pub(super) fn new(signals: Signals) -> Control {
        Control { signals }
    }

    pub(super) fn signals(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

impl Master {
    pub(super) fn obey_signals(&mut self) {
        loop {
            match self.control.signals.take() {
                Ok(Some(signal)) => self.obey(signal),
                Ok(None) => return,
                Err(error) => {
                    log::error!("signals cannot be read: {error}");
                    return;
                }
            }
        }
    }

    fn obey(&mut self, signal: Signal) {
        match signal {
            Signal::Child => {
                self.reap();
                self.reap_janitor();
            }
            Signal::HangUp => self.check_configuration(),
            Signal::Interrupt => self.stop(Shutdown::AtOnce),
            Signal::Quit | Signal::Terminate if self.mind.is_stopping() => {
                self.stop(Shutdown::AtOnce)
            }
            Signal::Quit | Signal::Terminate => self.stop(Shutdown::Graceful),
            Signal::User1 => self.reopen_logs(),
        }
    }

    fn stop(&mut self, how: Shutdown) {
        let said = match how {
            Shutdown::Graceful => "stopping: requests in progress are finished",
            Shutdown::AtOnce => "stopping at once",
        };
        log::info!("{said}");
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Stopping]) {
            log::warn!("the service manager cannot be told: {error}");
        }
        self.tell(Event::Shutdown(how));
    }

    /// Reads the configuration again and says what it found; what runs goes on as it is.
    fn check_configuration(&self) {
        match self.launch.sources.load() {
            Ok(config) if config == self.launch.config => {
                log::info!("the configuration is valid and has not changed")
            }
            Ok(_) => log::warn!(
                "the configuration is valid; a restart is needed to use what has changed"
            ),
            Err(error) => {
                log::error!("the configuration is not valid, and the running one stays: {error}")
            }
        }
    }

    fn reopen_logs(&mut self) {
        crate::log::reopen();
        log::info!(
            "logs have been opened again; since the start: {}",
            self.region.totals()
        );
        for worker in 0..self.children.len() {
            self.say(worker, ToWorker::Reopen);
        }
        self.tell_janitor(&ToWorker::Reopen);
    }
}
