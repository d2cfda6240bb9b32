//! What all sessions of this worker share.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::Notify;

use super::herd::Herd;
use super::kept::Kept;
use super::lobby::Lobby;
use super::meter;
use super::returns::Returns;
use crate::access::{Clients, Destinations};
use crate::cache::{Key, Policies};
use crate::config::{Config, Launch, Mode};
use crate::dispatch::Conn;
use crate::http::head::Limits;
use crate::http::target::Authority;
use crate::ipc::{Channel, Returned, SendError, ToMaster};
use crate::log::AccessLog;
use crate::routing::loops::Pseudonym;
use crate::shared::{Counter, Region};
use crate::sys::limits::Shares;
use crate::sys::{clock, memory};
use crate::upstream::dns::Resolver;
use crate::upstream::pool::Pool;
use crate::wire::buffers;

pub struct Context {
    pub worker: usize,
    pub config: Config,
    /// This instance's name in Via.
    pub pseudonym: Pseudonym,
    pub limits: Limits,
    pub clients: Clients,
    pub destinations: Destinations,
    pub reverse_to: Option<Authority>,
    pub resolver: Resolver,
    pub pool: RefCell<Pool>,
    pub policies: Policies,
    pub store: Option<Kept>,
    pub herd: Rc<Herd>,
    /// Keys that are being revalidated behind a stale response.
    pub behind: RefCell<HashSet<Key>>,
    /// Fetches that go on although nobody reads them any more.
    pub finishing: Cell<u32>,
    /// Lent to each lookup, so that a key costs no allocation.
    pub key_buffer: Cell<Vec<u8>>,
    pub access_log: RefCell<AccessLog>,
    pub region: Region,
    pub channel: Channel,
    pub returns: Returns,
    pub lobby: Rc<Lobby>,
    sessions: Sessions,
}

/// The client connections held, and how far they may go on.
#[derive(Default)]
struct Sessions {
    held: Cell<u32>,
    active: Cell<u32>,
    draining: Cell<bool>,
    over_share: Cell<bool>,
    ended: Notify,
}

impl Context {
    /// Everything a worker needs before it says ready.
    pub fn new(
        worker: usize,
        launch: Launch,
        region: Region,
        channel: Channel,
    ) -> anyhow::Result<Context> {
        let Launch {
            config, instance, ..
        } = launch;
        let own: Vec<IpAddr> = sys_addresses();
        let limits = Limits {
            max_bytes: config.client.max_header_bytes as usize,
            max_headers: config.client.max_headers,
            max_target: config.client.max_target_bytes as usize,
        };
        let reverse_to = config
            .reverse
            .to
            .as_ref()
            .map(|to| Authority::parse(to.as_bytes()))
            .transpose();
        Ok(Context {
            worker,
            pseudonym: Pseudonym::new(&instance),
            limits,
            clients: Clients::new(&config.access.clients, own),
            destinations: Destinations::parse(&config.access.destinations_allow)
                .context("access.destinations_allow")?,
            reverse_to: reverse_to.context("reverse.to")?,
            resolver: Resolver::system(),
            pool: RefCell::new(Pool::new(
                config.origin.idle_per_host,
                Shares::own().origins,
                config.origin.idle_timeout,
            )),
            policies: config.policies(),
            store: Kept::new(&config, &region, worker)?,
            herd: Rc::new(Herd::new(region.clone(), worker)),
            behind: RefCell::default(),
            finishing: Cell::default(),
            key_buffer: Cell::default(),
            access_log: RefCell::new(AccessLog::open(worker, &config.log)?),
            region,
            channel,
            returns: Returns::default(),
            lobby: Rc::default(),
            sessions: Sessions::default(),
            config,
        })
    }

    pub fn mode(&self, conn: &Conn) -> Mode {
        self.config
            .listeners
            .get(usize::from(conn.listener))
            .map_or(Mode::Forward, |listener| listener.mode)
    }

    pub fn count(&self, counter: Counter, n: u64) {
        self.region.counters(1 + self.worker).add_alone(counter, n);
    }

    /// A message without descriptors, sent as soon as the channel has room.
    pub async fn say(&self, message: &ToMaster) -> anyhow::Result<()> {
        loop {
            match self.channel.send(message, Vec::new()) {
                Ok(()) => return Ok(()),
                Err((SendError::WouldBlock, _)) => {
                    tokio::time::sleep(Duration::from_millis(1)).await
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// Hands a live connection back to the master with what was read of its next request.
    pub fn give_back(&self, mut conn: Conn, fd: OwnedFd, octets: Vec<u8>) {
        conn.active_ms = clock::monotonic_ms();
        self.returns.push(
            Returned {
                conn,
                bytes: octets,
            },
            fd,
        );
    }

    // === sessions: counting, load, draining

    pub fn session_begins(self: &Rc<Self>) -> Held {
        self.sessions.held.set(self.sessions.held.get() + 1);
        self.region
            .load(self.worker)
            .held
            .store(self.sessions.held.get(), Relaxed);
        Held(self.clone())
    }

    pub fn request_begins(self: &Rc<Self>) -> Active {
        self.sessions.active.set(self.sessions.active.get() + 1);
        self.region
            .load(self.worker)
            .active
            .store(self.sessions.active.get(), Relaxed);
        Active(self.clone())
    }

    pub fn held(&self) -> u32 {
        self.sessions.held.get()
    }

    pub fn is_draining(&self) -> bool {
        self.sessions.draining.get()
    }

    /// Whether sockets go back between requests, without grace: this loop is full and another is not.
    pub fn is_over_share(&self) -> bool {
        self.sessions.over_share.get()
    }

    /// From now on connections end after the response in progress; those that wait end now.
    pub fn drain(&self) {
        self.sessions.draining.set(true);
        self.pool.borrow_mut().clear();
        self.lobby.end_all();
        self.sessions.ended.notify_one();
    }

    /// Gives back the memory that many connections at once have used.
    pub fn forget_crowd(&self) {
        self.lobby.shrink();
        self.returns.shrink();
        buffers::free_all();
        memory::give_back_freed();
    }

    /// Ends when no client connection is left and none is on its way to the master.
    pub async fn idle(&self) {
        while self.held() > 0 || !self.returns.is_empty() {
            let _ = tokio::time::timeout(Duration::from_millis(20), self.sessions.ended.notified())
                .await;
        }
    }

    /// Tells the master that the loop is alive and how busy it is; looks whether others have more room.
    pub fn publish_load(&self, busy: u32) {
        let own = self.region.load(self.worker);
        own.busy.store(busy, Relaxed);
        own.heartbeat.store(clock::monotonic_ms(), Relaxed);
        let others = (0..self.region.workers()).filter(|other| *other != self.worker);
        let others = others.map(|other| self.region.load(other).busy.load(Relaxed));
        self.sessions
            .over_share
            .set(meter::is_over_share(busy, others));
    }
}

/// Counts a client connection as held by this worker until dropped.
pub struct Held(Rc<Context>);

impl Drop for Held {
    fn drop(&mut self) {
        let sessions = &self.0.sessions;
        sessions.held.set(sessions.held.get() - 1);
        self.0
            .region
            .load(self.0.worker)
            .held
            .store(sessions.held.get(), Relaxed);
        if sessions.draining.get() {
            sessions.ended.notify_one();
        }
    }
}

/// Counts a request as in progress until dropped.
pub struct Active(Rc<Context>);

impl Drop for Active {
    fn drop(&mut self) {
        let sessions = &self.0.sessions;
        sessions.active.set(sessions.active.get() - 1);
        self.0
            .region
            .load(self.0.worker)
            .active
            .store(sessions.active.get(), Relaxed);
    }
}

/// This host's own addresses, for the default of `access.clients`.
fn sys_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    let address = |storage: nix::sys::socket::SockaddrStorage| -> Option<IpAddr> {
        let v4 = storage.as_sockaddr_in().map(|four| IpAddr::V4(four.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|six| IpAddr::V6(six.ip())))
    };
    interfaces
        .filter_map(|interface| interface.address.and_then(address))
        .collect()
}
