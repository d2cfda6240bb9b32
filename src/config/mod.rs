//! The configuration: as written in `proxy.conf` and on the command line, then as used.
//!
//! `settings` declares every setting once; `written` reads a file and `--set` against those declarations;
//! this file holds what comes out: plain values, checked, that a process never changes. It refuses to
//! interpret addresses and rules further: `access` and `http` do that, where they are used.

mod error;
mod launch;
mod policies;
mod postgres;
mod settings;
mod shipped;
mod value;
mod written;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use error::Error;
pub use launch::{Launch, Sources, control_directories, standard_control_directory};
pub use policies::{CacheRule, Overrides};
pub use postgres::{Postgres, Secret, Tls};
pub use shipped::{effective, shipped};

/// How a listener reads its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Forward,
    Reverse,
}

/// Everything a role needs, checked. It reaches the workers as JSON in a sealed memfd.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub workers: usize,
    pub shutdown_timeout: Duration,
    pub listeners: Vec<Listener>,
    pub client: Client,
    pub origin: Origin,
    pub reverse: Reverse,
    pub cache: Cache,
    pub postgres: Postgres,
    /// The first that matches counts.
    pub cache_rules: Vec<CacheRule>,
    pub control: Control,
    pub access: Access,
    pub worker: Worker,
    pub queue: Queue,
    pub log: Log,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    pub address: SocketAddr,
    pub mode: Mode,
    /// Greater goes first; one step is worth `queue.ageing` of waiting.
    pub priority: u8,
    /// What it decides otherwise than `[cache]`.
    pub caching: Overrides,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Client {
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub body_timeout: Duration,
    pub write_timeout: Duration,
    pub tunnel_timeout: Duration,
    /// Octets a second below which a client counts as stalled, sending or taking a body.
    pub min_rate: u64,
    pub max_header_bytes: u64,
    pub max_headers: usize,
    pub max_target_bytes: u64,
    /// Requests a connection; 0: no limit.
    pub max_requests: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    pub connect_timeout: Duration,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    /// Octets a second below which a response's body counts as stalled.
    pub min_rate: u64,
    pub idle_timeout: Duration,
    /// Idle connections kept a worker and an authority at most.
    pub idle_per_host: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reverse {
    /// Authority of the origin server (`host` or `host:port`); a reverse listener needs it.
    pub to: Option<String>,
    pub host: HostField,
}

/// Which Host a reverse proxy sends to its origin server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostField {
    Pass,
    Origin,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    pub store: StoreKind,
    /// Of the disk store.
    pub directory: Option<PathBuf>,
    /// Octets over all workers.
    pub memory: u64,
    pub max_object: u64,
    /// Octets that may be missing of a response that is fetched to its end although its clients have left.
    pub finish_aborted: u64,
    /// Octets on the disk; 0: a share of what is free.
    pub max_size: u64,
    /// Octets left free on the disk; 0: a share of the file system.
    pub min_free: u64,
    /// Files that each worker keeps open.
    pub open_files: usize,
    /// Lifetime of responses that say nothing of their own; zero: a heuristic decides.
    pub ttl: Duration,
    pub min_ttl: Duration,
    /// Zero: no bound.
    pub max_ttl: Duration,
    /// Zero: no heuristics.
    pub heuristic_max: Duration,
    pub heuristic_percent: usize,
    pub stale_while_revalidate: Duration,
    pub stale_if_error: Duration,
    pub ignore_reload: bool,
    pub targeted: Vec<String>,
    pub set_cookie: SetCookie,
    pub x_cache: bool,
    pub cache_status_key: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    Directory,
    Memory,
    Off,
    /// A database, as `Config::postgres` says.
    Postgres,
}

/// What becomes of an explicitly fresh response with Set-Cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetCookie {
    /// Stored without the field.
    Strip,
    /// Stored as it is (RFC 9111 section 7.3 as written).
    Store,
    /// Not stored.
    Refuse,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// Of an instance without a cache directory; none: the standard place.
    pub socket: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Access {
    /// Empty: loopback and this host's own addresses.
    pub clients: Vec<ipnet::IpNet>,
    /// Who may use the PURGE method; empty: nobody.
    pub purge: Vec<ipnet::IpNet>,
    /// `host:port`, `address`, `address:port` or CIDR, as written; `access::Destinations::parse` reads them.
    pub destinations_allow: Vec<String>,
    pub connect_ports: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Quiet time after which a plain client connection goes back to the master.
    pub grace: Duration,
    /// Requests in progress at once, a worker.
    pub max_active: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    pub capacity: usize,
    /// Waiting time that is worth one step of priority.
    pub ageing: Duration,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Log {
    pub directory: Option<PathBuf>,
    pub level: String,
    pub access: AccessFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessFormat {
    Combined,
    Squid,
    Json,
    Off,
}
