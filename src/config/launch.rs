//! Where a configuration comes from, and the step from what was written to what is used.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{Error, Place};
use super::settings::address;
use super::written::{default_listener, defaults, lay_file, lay_flag};
use super::{Config, Mode, StoreKind};

/// What a master is started with: the checked configuration, and where it came from (to check it again).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    pub config: Config,
    pub sources: Sources,
    /// This instance's name in Via: `baton-` and eight random digits, the same in all its processes.
    pub instance: String,
    /// What is listened on, with the ports that the kernel has chosen; none before the master has bound them.
    #[serde(default)]
    pub addresses: Vec<SocketAddr>,
}

impl Launch {
    pub fn new(config: Config, sources: Sources) -> Launch {
        Launch {
            config,
            sources,
            instance: format!("baton-{:08x}", fastrand::u32(..)),
            addresses: Vec::new(),
        }
    }
}

/// Everything the user said, unread: a file, and flags that go before it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// `--listen` addresses as written; they replace the listeners of the file.
    pub listen: Vec<String>,
    /// The mode of `--listen` addresses and of the default listeners; none: the file must name listeners.
    pub mode: Option<Mode>,
    /// (flag, key, value) in the order given; the last of a key wins.
    pub set: Vec<(String, String, String)>,
}

impl Sources {
    /// Reads and checks everything. Errors: the file cannot be read, a setting is unknown or out of bounds,
    /// or settings do not go together.
    pub fn load(&self) -> Result<Config, Error> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|error| {
                let place = Place::File(path.clone(), 0);
                Error::new(place, "", format!("cannot be read: {error}"))
            })
        };
        self.resolve(
            &self
                .file
                .as_ref()
                .map(read)
                .transpose()?
                .unwrap_or_default(),
        )
    }

    /// The same with the file's text at hand.
    pub fn resolve(&self, text: &str) -> Result<Config, Error> {
        let mut config = defaults();
        let path = self.file.as_deref().unwrap_or(Path::new(""));
        lay_file(&mut config, path, text)?;
        for (flag, key, value) in &self.set {
            lay_flag(&mut config, flag, key, value)?;
        }
        self.lay_listeners(&mut config)?;
        settle(&mut config)?;
        Ok(config)
    }

    fn lay_listeners(&self, config: &mut Config) -> Result<(), Error> {
        let mode = self.mode.unwrap_or(Mode::Forward);
        if !self.listen.is_empty() {
            config.listeners.clear();
        }
        for text in &self.listen {
            let place = Place::Flag("--listen".to_owned());
            let address = address(text).map_err(|message| Error::new(place, "", message))?;
            config.listeners.push(super::Listener {
                address,
                mode,
                ..default_listener()
            });
        }
        if config.listeners.is_empty() && self.mode.is_some() {
            let addresses: &[SocketAddr] = match mode {
                Mode::Forward => &[(LOOPBACK_4, 3128), (LOOPBACK_6, 3128)].map(SocketAddr::from),
                Mode::Reverse => &[(LOOPBACK_4, 8080)].map(SocketAddr::from),
            };
            let listener = |&address| super::Listener {
                address,
                mode,
                ..default_listener()
            };
            config.listeners = addresses.iter().map(listener).collect();
        }
        Ok(())
    }
}

const LOOPBACK_4: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const LOOPBACK_6: std::net::IpAddr = std::net::IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

/// Replaces values that mean "choose for me", and checks what no setting can check alone.
fn settle(config: &mut Config) -> Result<(), Error> {
    if config.workers == 0 {
        config.workers = std::thread::available_parallelism().map_or(1, usize::from);
    }
    if config.log.directory.is_none() {
        config.log.directory = standard_log_directory();
    }
    if config.listeners.is_empty() {
        let message = "at least one [[listener]] with an address is needed, or --listen ADDR:PORT";
        return Err(Error::new(Place::Whole, "listener", message));
    }
    for (index, listener) in config.listeners.iter().enumerate() {
        let twice = |other: &super::Listener| {
            other.address == listener.address && listener.address.port() != 0
        };
        if config.listeners[..index].iter().any(twice) {
            let message = format!("{} is listed twice", listener.address);
            return Err(Error::new(Place::Whole, "listener.address", message));
        }
    }
    let has = |address| config.listeners.iter().any(|it| it.address == address);
    for rule in &config.cache_rules {
        if let Some(address) = rule.listener.filter(|address| !has(*address)) {
            let message =
                format!("no listener has the address {address}; name one of them, or none for all");
            return Err(Error::new(Place::Whole, "cache_rule.listener", message));
        }
    }
    if config.reverse.to.is_none()
        && config
            .listeners
            .iter()
            .any(|listener| listener.mode == Mode::Reverse)
    {
        let message = "a reverse listener needs its origin server, as \"http://127.0.0.1:8000\"";
        return Err(Error::new(Place::Whole, "reverse.to", message));
    }
    if config.cache.store == StoreKind::Directory && config.cache.directory.is_none() {
        config.cache.directory = standard_cache_directory();
        // Without a home there is no place: better a proxy that forgets than none.
        if config.cache.directory.is_none() {
            config.cache.store = StoreKind::Memory;
        }
    }
    if config.cache.store == StoreKind::Postgres {
        let found = config.postgres.find_password();
        found.map_err(|message| Error::new(Place::Whole, "postgres.password_file", message))?;
    }
    // In memory alone a worker holds its share, and an object must fit into one.
    let share = config.cache.memory / config.workers as u64;
    if config.cache.store == StoreKind::Memory && config.cache.max_object > share {
        config.cache.max_object = share;
    }
    Ok(())
}

/// `$CACHE_DIRECTORY` (set by service managers), else `$XDG_CACHE_HOME/baton`, else `~/.cache/baton`.
fn standard_cache_directory() -> Option<PathBuf> {
    variable("CACHE_DIRECTORY")
        .or_else(|| absolute("XDG_CACHE_HOME").map(|path| path.join("baton")))
        .or_else(|| absolute("HOME").map(|home| home.join(".cache/baton")))
}

/// `$LOGS_DIRECTORY` (set by service managers), else `$XDG_STATE_HOME/baton`, else `~/.local/state/baton`.
fn standard_log_directory() -> Option<PathBuf> {
    variable("LOGS_DIRECTORY")
        .or_else(|| absolute("XDG_STATE_HOME").map(|path| path.join("baton")))
        .or_else(|| variable("HOME").map(|home| home.join(".local/state/baton")))
}

/// Where an instance without a cache directory puts its control socket: `$RUNTIME_DIRECTORY` (set by service managers),
/// else `$XDG_RUNTIME_DIR/baton`, else `/run/baton` for root, else `/tmp/baton-UID`.
pub fn standard_control_directory(own: u32) -> PathBuf {
    let mut places = control_directories(own);
    if own != 0 {
        places.retain(|path| path != Path::new(RUN));
    }
    places.into_iter().next().unwrap_or_else(|| RUN.into())
}

/// Everywhere that a command of this user looks for such sockets.
pub fn control_directories(own: u32) -> Vec<PathBuf> {
    // systemd names several with colons between them.
    let first = |path: PathBuf| {
        let text = path.into_os_string().into_string().ok()?;
        text.split(':').next().map(PathBuf::from)
    };
    let places = [
        variable("RUNTIME_DIRECTORY").and_then(first),
        absolute("XDG_RUNTIME_DIR")
            .filter(|path| is_of(path, own))
            .map(|path| path.join("baton")),
        Some(PathBuf::from(RUN)),
        Some(PathBuf::from(format!("/tmp/baton-{own}"))),
    ];
    let mut known: Vec<PathBuf> = Vec::new();
    for place in places.into_iter().flatten() {
        if !known.contains(&place) {
            known.push(place);
        }
    }
    known
}

const RUN: &str = "/run/baton";

/// Root may have kept the variables of another user.
fn is_of(path: &Path, user: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    path.metadata().is_ok_and(|found| found.uid() == user)
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// A path that does not depend on where the process stands.
fn absolute(name: &str) -> Option<PathBuf> {
    variable(name).filter(|path| path.is_absolute())
}
