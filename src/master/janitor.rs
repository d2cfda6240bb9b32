//! The cache directory and the janitor: the one prepared and locked before anything else, the other started, replaced, and
//! the last to be let go.
//!
//! The lock is the master's alone, so that it ends with it, however it ends. The janitor obeys its channel like a
//! worker does, and says nothing but to whom it wants to be introduced. It is no worker: the mind knows nothing of it, and
//! clients are served without it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::{Master, Source};
use crate::config::{Config, Launch, StoreKind};
use crate::ipc::{Channel, Received, ToMaster, ToWorker};
use crate::shared::{Region, Space};
use crate::store::disk::limits::Limits;
use crate::store::disk::place::{Lock, Place, PlaceError};
use crate::sys::clock::{monotonic_ms, unix_seconds};
use crate::sys::epoll::Interest;
use crate::sys::spawn::{self, Exit, Pid};

/// Between two starts, when it ends soon after each: doubled from the one to the other.
const FIRST_PAUSE_MS: u64 = 100;
const LAST_PAUSE_MS: u64 = 5_000;
/// One that lived so long is replaced at once.
const LONG_LIFE_MS: u64 = 10_000;
/// How long it may take to write everything down at the end.
const PATIENCE_MS: u64 = 2_000;
/// Messages taken from it before others get their turn.
const MESSAGES_AT_ONCE: usize = 16;

pub(super) struct Janitor {
    /// None: responses are kept in memory alone, and the janitor only answers commands.
    directory: Option<Directory>,
    child: Option<Child>,
    /// When it is started next, while there is none.
    start_at: u64,
    pause_ms: u64,
}

struct Directory {
    path: PathBuf,
    /// What another instance that wants the directory is told.
    who: String,
    held: Option<(Place, Lock)>,
    limits: Limits,
    /// It has been said that it cannot be used.
    failing: bool,
}

struct Child {
    pid: Pid,
    channel: Channel,
    started: u64,
}

// === impl Janitor ===

impl Janitor {
    /// Makes the directory of the configuration ready and takes it for this instance; none: nothing is kept.
    ///
    /// Errors: it cannot be made or used, is somebody else's, or in use by another instance.
    pub(super) fn prepare(launch: &Launch) -> Result<Option<Janitor>, PlaceError> {
        let config = &launch.config;
        if config.cache.store == StoreKind::Off {
            return Ok(None);
        }
        let directory = directory(config).map(|path| Directory::prepare(path, config));
        Ok(Some(Janitor {
            directory: directory.transpose()?,
            child: None,
            start_at: 0,
            pause_ms: 0,
        }))
    }

    /// Tells all processes which generation of objects counts, and how much may be stored until the janitor knows.
    pub(super) fn publish(&mut self, region: &Region) -> io::Result<()> {
        let directory = self.directory.as_mut();
        directory.map_or(Ok(()), |directory| directory.publish(region))
    }

    /// What another instance that wants the directory is told, now that it is known where this one listens.
    pub(super) fn introduce(&mut self, addresses: &[SocketAddr]) -> io::Result<()> {
        let Some(directory) = &mut self.directory else {
            return Ok(());
        };
        directory.who = who(addresses);
        let held = directory.held.as_ref();
        held.map_or(Ok(()), |(_, lock)| lock.say(&directory.who))
    }

    /// Whether it can be started: there is no directory, or it is there and ours.
    fn hold(&mut self, space: &Space) -> bool {
        let Some(directory) = &mut self.directory else {
            return true;
        };
        match directory.hold(space) {
            Ok(()) => {
                if std::mem::take(&mut directory.failing) {
                    let path = directory.path.display();
                    log::info!("the cache directory {path} can be used again");
                }
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut directory.failing, true) {
                    log::warn!("{error}; nothing is stored meanwhile, and it is tried again");
                }
                false
            }
        }
    }

    fn say(&self, message: &ToWorker) {
        if let Some(child) = &self.child
            && let Err(error) = child.channel.send_borrowed(message, &[])
        {
            log::debug!("the janitor does not hear: {error}");
        }
    }

    /// It has ended, or could not be started: when is it tried again?
    fn wait(&mut self, now: u64, lived_ms: u64) {
        if lived_ms >= LONG_LIFE_MS {
            self.pause_ms = 0;
        }
        self.start_at = now + self.pause_ms;
        self.pause_ms = (self.pause_ms * 2).clamp(FIRST_PAUSE_MS, LAST_PAUSE_MS);
    }
}

// === impl Directory ===

impl Directory {
    fn prepare(path: &std::path::Path, config: &Config) -> Result<Directory, PlaceError> {
        // Until it listens: a port of 0 may be any.
        let wanted: Vec<SocketAddr> = config.listeners.iter().map(|it| it.address).collect();
        let who = who(&wanted);
        let held = take(path, &who)?;
        Ok(Directory {
            path: path.to_owned(),
            who,
            held: Some(held),
            limits: Limits::new(config.cache.max_size, config.cache.min_free),
            failing: false,
        })
    }

    fn publish(&mut self, region: &Region) -> io::Result<()> {
        let Some((place, _)) = &self.held else {
            return Ok(());
        };
        let known = place.generation().and_then(|known| {
            let pending = place.pending()?;
            let raised = pending.iter().map(|purge| purge.generation).max();
            Ok((known.max(raised.unwrap_or_default()), pending))
        });
        let generation = match known {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                // Nobody knows which it was, or what was purged: one that no object has.
                let fresh = unix_seconds().cast_unsigned() << 32;
                log::warn!(
                    "{}: {error}; everything in the cache is given up",
                    self.path.display()
                );
                place.set_generation(fresh)?;
                place.set_pending(&[])?;
                fresh
            }
            known => {
                let (generation, pending) = known?;
                // What an instance that is gone has not carried out.
                for purge in &pending {
                    let posted = region.purges().post(purge.posted()?, 0, region.versions());
                    posted.map_err(io::Error::other)?;
                }
                generation
            }
        };
        let space = region.space();
        space.raise_generation(generation);
        let (free, size) = place.free_space()?;
        let limit = self.limits.provisional(place.is_new(), free, size);
        space.set_limit(limit, limit);
        Ok(())
    }

    /// Makes sure that the directory is there and ours: it may have been deleted.
    fn hold(&mut self, space: &Space) -> Result<(), PlaceError> {
        let holds = |(place, lock): &(Place, Lock)| place.is_there() && place.is_locked_by(lock);
        if self.held.as_ref().is_some_and(holds) {
            return Ok(());
        }
        self.held = None;
        let (place, lock) = take(&self.path, &self.who)?;
        log::info!(
            "the cache directory {} has been made anew",
            self.path.display()
        );
        // What is stored from now on carries the number that all processes know.
        if let Err(error) = place.set_generation(space.generation()) {
            log::warn!("{}: {error}", self.path.display());
        }
        self.held = Some((place, lock));
        Ok(())
    }
}

fn directory(config: &Config) -> Option<&PathBuf> {
    let directory = config.cache.directory.as_ref();
    directory.filter(|_| config.cache.store == StoreKind::Directory)
}

fn take(path: &std::path::Path, who: &str) -> Result<(Place, Lock), PlaceError> {
    let place = Place::prepare(path)?;
    let lock = place.lock(who)?;
    Ok((place, lock))
}

/// `pid 123, since 2026-11-24T22:50:00Z, http://127.0.0.1:3128`
fn who(addresses: &[SocketAddr]) -> String {
    let since = jiff::Timestamp::from_second(unix_seconds()).unwrap_or_default();
    let addresses = addresses.iter().map(|address| format!("http://{address}"));
    let addresses: Vec<String> = addresses.collect();
    let pid = std::process::id();
    format!("pid {pid}, since {since}, {}", addresses.join(" "))
}

// === impl Master ===

impl Master {
    /// Starts the janitor when it is due.
    pub(super) fn look_after_janitor(&mut self) {
        let now = self.now;
        let Some(janitor) = &mut self.janitor else {
            return;
        };
        if janitor.child.is_some() || now < janitor.start_at || self.mind.is_stopping() {
            return;
        }
        if !janitor.hold(self.region.space()) {
            janitor.wait(now, 0);
            return;
        }
        match self.children.start_janitor() {
            Ok((pid, channel)) => {
                log::info!("the janitor (pid {pid}) started");
                let heard = self
                    .epoll
                    .add(channel.as_fd(), Source::Janitor.into(), Interest::Read);
                if let Err(error) = heard {
                    log::error!("the janitor (pid {pid}) cannot be listened to: {error}");
                }
                janitor.child = Some(Child {
                    pid,
                    channel,
                    started: now,
                });
            }
            Err(error) => {
                log::error!("the janitor cannot be started: {error}");
                janitor.wait(now, 0);
            }
        }
    }

    /// It may ask to be introduced to workers, and says nothing else. One that does is ended; the next one is started as usual.
    pub(super) fn hear_janitor(&mut self) {
        for _ in 0..MESSAGES_AT_ONCE {
            let child = self.janitor.as_ref().and_then(|it| it.child.as_ref());
            let Some(child) = child else {
                return;
            };
            let wrong = match child.channel.recv::<ToMaster>() {
                // Without a descriptor to spare the stream is lost, which the janitor sees.
                Ok(Received::Message {
                    message: ToMaster::Introduce { worker },
                    fds,
                    ..
                }) => {
                    fds.into_iter()
                        .for_each(|stream| self.introduce(worker.into(), stream));
                    continue;
                }
                Ok(Received::Nothing) => return,
                // SIGCHLD will say more.
                Ok(Received::End) => None,
                Ok(Received::Message { .. }) => Some("a worker's message".to_owned()),
                Err(error) => Some(error.to_string()),
            };
            let _ = self.epoll.delete(child.channel.as_fd());
            if let Some(wrong) = wrong {
                log::error!("the janitor (pid {}) says nonsense: {wrong}", child.pid);
                if let Err(error) = spawn::kill(child.pid) {
                    log::error!("the janitor cannot be killed: {error}");
                }
            }
            return;
        }
    }

    /// When it has to be looked after at the latest.
    pub(super) fn janitor_wake(&self) -> u64 {
        match &self.janitor {
            Some(janitor) if janitor.child.is_none() && !self.mind.is_stopping() => {
                janitor.start_at
            }
            _ => u64::MAX,
        }
    }

    /// Finds out whether it has ended.
    pub(super) fn reap_janitor(&mut self) {
        let Some(janitor) = &mut self.janitor else {
            return;
        };
        let Some(child) = &janitor.child else {
            return;
        };
        let exit = match spawn::reap(child.pid) {
            Ok(None) => return,
            Ok(Some(exit)) => exit,
            Err(error) => {
                log::error!(
                    "the janitor (pid {}) cannot be waited for: {error}",
                    child.pid
                );
                return;
            }
        };
        let lived_ms = self.now.saturating_sub(child.started);
        match exit {
            _ if self.mind.is_stopping() => {
                log::info!("the janitor (pid {}) ended: {exit}", child.pid)
            }
            Exit::Code(0) => {
                log::info!("the janitor (pid {}) ended and is started anew", child.pid)
            }
            exit => log::warn!("the janitor (pid {}) died: {exit}", child.pid),
        }
        janitor.child = None;
        janitor.wait(self.now, lived_ms);
    }

    pub(super) fn tell_janitor(&self, message: &ToWorker) {
        if let Some(janitor) = &self.janitor {
            janitor.say(message);
        }
    }

    /// The end, when no worker is left: it writes everything down, and its socket goes.
    pub(super) fn dismiss_janitor(&mut self) {
        self.wait_for_janitor();
        let directory = self.janitor.as_ref().and_then(|it| it.directory.as_ref());
        // The lock is still ours: the socket is no other instance's.
        if let Some((place, _)) = directory.and_then(|it| it.held.as_ref())
            && let Err(error) = place.remove_control()
        {
            log::warn!(
                "the control socket stays in {}: {error}",
                place.path().display()
            );
        }
    }

    fn wait_for_janitor(&mut self) {
        self.tell_janitor(&ToWorker::Stop);
        let deadline = monotonic_ms() + PATIENCE_MS;
        loop {
            self.now = monotonic_ms();
            self.reap_janitor();
            let child = self
                .janitor
                .as_ref()
                .and_then(|janitor| janitor.child.as_ref());
            let Some(child) = child else {
                return;
            };
            if self.now >= deadline {
                log::warn!("the janitor (pid {}) is killed: it does not end", child.pid);
                if let Err(error) = spawn::kill(child.pid) {
                    log::error!("the janitor cannot be killed: {error}");
                }
                return;
            }
            // Its death is a signal, which need not be taken: looking again is enough.
            let _ = self.epoll.wait(Some(10), &mut Vec::new());
        }
    }
}
