//! Which cache a command means: a directory, in use or at rest, a database, or an instance that is asked for what it has.
//!
//! What is typed decides. Where nothing is, the only instance that runs is meant; where none does, the directory of
//! `baton forward`. Where several do, it says how to choose.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};

use super::flags::Whereabouts;
use crate::cache::Policies;
use crate::config::{Cache, Config, Mode, Sources, StoreKind};
use crate::janitor::control;
use crate::janitor::meeting::{Meeting, name_of};
use crate::store::disk::limits::Sizes;
use crate::store::disk::place::Place;
use crate::store::postgres::server::Server;

pub(super) enum Meant {
    /// And what its instance would be told about caching, and about room.
    Directory(Place, Policies, Sizes),
    Database(Box<Database>),
    Instance(Meeting),
}

/// Where the database is, and what its instances would be told about caching.
pub(super) struct Database {
    pub server: Server,
    pub policies: Policies,
    pub max_size: u64,
}

/// `make`: a directory that is not there, or empty, is made a cache.
pub(super) fn find(of: &Whereabouts, make: bool) -> anyhow::Result<Meant> {
    if let Some(path) = &of.control {
        return at(path);
    }
    if let Some(address) = of.instance {
        return by_address(address);
    }
    let config = load(of)?;
    match config.cache.store {
        StoreKind::Off => {
            bail!("nothing is kept where the cache is off; --cache dir:PATH names another one")
        }
        StoreKind::Postgres => database(&config),
        StoreKind::Memory => in_memory(&config, of.file.is_some()),
        StoreKind::Directory => {
            let is_named = of.cache.is_some() || of.file.is_some();
            let running = match is_named {
                true => Vec::new(),
                false => running(),
            };
            if running.is_empty() {
                return directory(config, make);
            }
            let own = config.cache.directory.as_deref();
            only(running, own.filter(|path| is_in_use(path)))
        }
    }
}

fn load(of: &Whereabouts) -> anyhow::Result<Config> {
    let flag = of.cache.clone().into_iter();
    let sources = Sources {
        file: of.file.clone(),
        listen: Vec::new(),
        mode: Some(Mode::Forward),
        set: flag
            .map(|value| ("--cache".to_owned(), "cache.store".to_owned(), value))
            .collect(),
    };
    Ok(sources.load()?)
}

/// The directory that an instance with this configuration would use.
fn directory(config: Config, make: bool) -> anyhow::Result<Meant> {
    let policies = config.policies();
    let Cache {
        directory,
        max_size,
        min_free,
        ..
    } = config.cache;
    let sizes = Sizes { max_size, min_free };
    let path = directory.context("the cache has no directory; --cache dir:PATH names one")?;
    if make {
        return Ok(Meant::Directory(Place::prepare(&path)?, policies, sizes));
    }
    let place =
        Place::open(&path).with_context(|| format!("there is no cache in {}", path.display()))?;
    if !place.is_cache()? {
        bail!("{} is no cache of baton's", path.display());
    }
    Ok(Meant::Directory(place, policies, sizes))
}

/// Nothing is connected to yet.
fn database(config: &Config) -> anyhow::Result<Meant> {
    let server = Server::new(&config.postgres, "command").context("the cache in PostgreSQL")?;
    Ok(Meant::Database(Box::new(Database {
        server,
        policies: config.policies(),
        max_size: config.cache.max_size,
    })))
}

fn is_in_use(path: &Path) -> bool {
    let connected = Place::open(path).and_then(|place| control::connect(&place));
    matches!(connected, Ok(Some(_)))
}

// === in memory

/// A file says where the instance that it configures is to be found.
fn in_memory(config: &Config, is_of_file: bool) -> anyhow::Result<Meant> {
    if let Some(socket) = &config.control.socket {
        return at(socket);
    }
    match config.listeners.first() {
        Some(first) if is_of_file && first.address.port() != 0 => by_address(first.address),
        _ => only(running(), None),
    }
}

fn at(socket: &Path) -> anyhow::Result<Meant> {
    let meeting = Meeting::at(socket)
        .with_context(|| format!("there can be no socket at {}", socket.display()))?;
    Ok(Meant::Instance(meeting))
}

fn running() -> Vec<Meeting> {
    let mut all = Meeting::all();
    all.retain(|meeting| matches!(meeting.connect(), Ok(Some(_))));
    all
}

fn by_address(address: SocketAddr) -> anyhow::Result<Meant> {
    let name = name_of(address);
    let found = Meeting::all().into_iter().find(|it| it.is_called(&name));
    match found {
        Some(meeting) => Ok(Meant::Instance(meeting)),
        None => {
            let others = listed(&running(), None);
            bail!(
                "no instance is known that listens on {address} first of all; one with a cache directory is named by --cache dir:PATH, one whose \
                 control.socket is elsewhere by --control PATH{others}"
            )
        }
    }
}

fn only(mut running: Vec<Meeting>, directory: Option<&Path>) -> anyhow::Result<Meant> {
    if running.len() + usize::from(directory.is_some()) > 1 {
        let all = listed(&running, directory);
        bail!("several instances are running; choose one{all}");
    }
    let meeting = running.pop();
    let meeting =
        meeting.context("no instance without a cache directory is running; --control PATH names its socket, if it is elsewhere")?;
    Ok(Meant::Instance(meeting))
}

/// The options by which each is chosen, for the end of a message.
fn listed(running: &[Meeting], directory: Option<&Path>) -> String {
    let mut text = String::new();
    for meeting in running {
        text += &format!("\n  --instance {}", meeting.called());
    }
    if let Some(path) = directory {
        text += &format!("\n  --cache dir:{}", path.display());
    }
    match text.is_empty() {
        true => text,
        false => format!(":{text}"),
    }
}
