//! Every setting, once: name, kind with bounds, default, help.
//!
//! Parsing, `--set`, `baton check`, the shipped `proxy.conf` and the README's table all come from these rows.

use std::path::PathBuf;
use std::time::Duration;

use super::postgres::{is_ambiguous, is_url, masked};
use super::value::Kind;
use super::{
    AccessFormat, CacheRule, Config, HostField, Listener, Mode, Secret, SetCookie, StoreKind, Tls,
};

/// One setting of `T` (the whole configuration, or one listener).
pub(super) struct Setting<T: 'static> {
    /// `section.name`, or `name` at the top level.
    pub key: &'static str,
    /// As TOML.
    pub default: &'static str,
    pub help: &'static str,
    pub kind: Kind<T>,
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
const DAY: Duration = secs(86_400);
const YEAR: Duration = secs(31_536_000);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

macro_rules! setting {
    ($key:literal = $default:literal, $kind:expr, $help:literal) => {
        Setting {
            key: $key,
            default: $default,
            help: $help,
            kind: $kind,
        }
    };
}

/// The settings of one `[[listener]]`.
pub(super) const LISTENER: &[Setting<Listener>] = &[
    setting!(
        "listener.address" = "\"127.0.0.1:3128\"",
        Kind::Text(
            |l, text| {
                l.address = address(text)?;
                Ok(())
            },
            |l| l.address.to_string()
        ),
        "IP address and port to listen on; port 0 picks a free one."
    ),
    setting!(
        "listener.mode" = "\"forward\"",
        Kind::Choice(
            &["forward", "reverse"],
            |l, word| l.mode = if word == "reverse" {
                Mode::Reverse
            } else {
                Mode::Forward
            },
            |l| match l.mode {
                Mode::Forward => "forward",
                Mode::Reverse => "reverse",
            }
        ),
        "forward: the proxy of browsers. reverse: stands in front of the origin server `reverse.to`."
    ),
    setting!(
        "listener.priority" = "0",
        Kind::Small(|l| &mut l.priority),
        "Greater goes first when the workers are full; one step is worth `queue.ageing` of waiting."
    ),
];

/// The settings of one `[[cache_rule]]`, beside those of `[cache]` that it overrides.
pub(super) const RULE: &[Setting<CacheRule>] = &[
    setting!(
        "cache_rule.uri" = "\"\"",
        Kind::Text(
            |r, text| {
                super::policies::check_expression(text)?;
                r.uri = text.to_owned();
                Ok(())
            },
            |r| r.uri.clone()
        ),
        "A regular expression over the whole URL; the first rule that matches counts."
    ),
    setting!(
        "cache_rule.listener" = "\"\"",
        Kind::Text(
            |r, text| {
                r.listener = match text {
                    "" => None,
                    text => Some(address(text)?),
                };
                Ok(())
            },
            |r| r.listener.map(|it| it.to_string()).unwrap_or_default()
        ),
        "Only for requests through the listener with this address; empty: through any."
    ),
    setting!(
        "cache_rule.store" = "true",
        Kind::Flag(|r| &mut r.store),
        "false: the cache has no part in such requests."
    ),
];

/// All other settings, in the order of the shipped file.
#[rustfmt::skip]
pub(super) const SETTINGS: &[Setting<Config>] = &[
    setting!("workers" = "0", Kind::Count(0, 256, |c| &mut c.workers),
        "Worker processes; 0: one a core."),
    setting!("shutdown_timeout" = "\"30s\"", Kind::Duration(Duration::ZERO, secs(3600), |c| &mut c.shutdown_timeout),
        "How long TERM and QUIT wait for requests in flight."),

    setting!("client.header_timeout" = "\"10s\"", Kind::Duration(ms(10), secs(3600), |c| &mut c.client.header_timeout),
        "Total time a client has for a request's head, from its first octet; then 408."),
    setting!("client.idle_timeout" = "\"60s\"", Kind::Duration(ms(10), DAY, |c| &mut c.client.idle_timeout),
        "How long a connection may wait for its next request (or its first)."),
    setting!("client.body_timeout" = "\"60s\"", Kind::Duration(ms(10), DAY, |c| &mut c.client.body_timeout),
        "Window in which a request body must come at `client.min_rate` on average."),
    setting!("client.write_timeout" = "\"60s\"", Kind::Duration(ms(10), DAY, |c| &mut c.client.write_timeout),
        "Window in which a client must take a response at `client.min_rate` on average."),
    setting!("client.tunnel_timeout" = "\"10m\"", Kind::Duration(ms(10), DAY, |c| &mut c.client.tunnel_timeout),
        "How long a tunnel (CONNECT, WebSocket) may be silent in both directions."),
    setting!("client.min_rate" = "\"512\"", Kind::Size(1, 1 << 30, |c| &mut c.client.min_rate),
        "Octets a second below which a client counts as stalled, sending or taking a body."),
    setting!("client.max_header_bytes" = "\"64KiB\"", Kind::Size(KIB, 16 * MIB, |c| &mut c.client.max_header_bytes),
        "Largest head, of requests and of responses; beyond: 431 (502 from an origin)."),
    setting!("client.max_headers" = "200", Kind::Count(1, 4096, |c| &mut c.client.max_headers),
        "Most field lines in a head."),
    setting!("client.max_target_bytes" = "\"16KiB\"", Kind::Size(64, MIB, |c| &mut c.client.max_target_bytes),
        "Longest request target; beyond: 414."),
    setting!("client.max_requests" = "0", Kind::Count(0, usize::MAX, |c| &mut c.client.max_requests),
        "Requests served on one connection before it is closed; 0: no limit."),

    setting!("origin.connect_timeout" = "\"10s\"", Kind::Duration(ms(10), secs(3600), |c| &mut c.origin.connect_timeout),
        "Time to resolve and connect, over all addresses; then 504."),
    setting!("origin.header_timeout" = "\"60s\"", Kind::Duration(ms(10), DAY, |c| &mut c.origin.header_timeout),
        "Time from the request's end to the whole head of the response; then 504."),
    setting!("origin.body_timeout" = "\"60s\"", Kind::Duration(ms(10), DAY, |c| &mut c.origin.body_timeout),
        "Window in which a response body must come at `origin.min_rate` on average, and a request body be taken."),
    setting!("origin.min_rate" = "\"1\"", Kind::Size(1, 1 << 30, |c| &mut c.origin.min_rate),
        "Octets a second below which an origin counts as stalled; event streams send little."),
    setting!("origin.idle_timeout" = "\"30s\"", Kind::Duration(ms(10), DAY, |c| &mut c.origin.idle_timeout),
        "How long an idle connection to an origin is kept; a `Keep-Alive: timeout` of its own shortens it."),
    setting!("origin.idle_per_host" = "1024", Kind::Count(0, 65_536, |c| &mut c.origin.idle_per_host),
        "Idle connections kept a worker and an authority at most. Of more than 32, those go that nobody has needed for some seconds. Over all authorities a worker keeps at most 4096, and an eighth of its descriptors."),

    setting!("reverse.to" = "\"\"",
        Kind::Text(
            |c, text| { c.reverse.to = origin(text)?; Ok(()) },
            |c| c.reverse.to.as_ref().map(|to| format!("http://{to}")).unwrap_or_default()),
        "The origin server behind reverse listeners, as \"http://127.0.0.1:8000\"."),
    setting!("reverse.host" = "\"pass\"",
        Kind::Choice(&["pass", "origin"],
            |c, word| c.reverse.host = if word == "origin" { HostField::Origin } else { HostField::Pass },
            |c| match c.reverse.host { HostField::Pass => "pass", HostField::Origin => "origin" }),
        "Host that the origin server sees: the client's (pass), or that of `reverse.to` (origin)."),

    setting!("cache.store" = "\"dir\"",
        Kind::Text(store, show_store),
        "Where responses are kept, `--cache` sets it: dir:PATH, dir ($CACHE_DIRECTORY, else $XDG_CACHE_HOME/baton, else ~/.cache/baton), memory, postgres://USER@HOST/DATABASE, or off."),
    setting!("cache.memory" = "\"256MiB\"", Kind::Size(0, 1 << 44, |c| &mut c.cache.memory),
        "Memory for stored responses, over all workers; with a directory or PostgreSQL only small ones are kept there, too."),
    setting!("cache.max_object" = "\"1GiB\"", Kind::Size(KIB, 1 << 40, |c| &mut c.cache.max_object),
        "Largest body that is stored (in memory alone: a worker's share of `cache.memory` at the most)."),
    setting!("cache.finish_aborted" = "\"64KiB\"", Kind::Size(0, 1 << 40, |c| &mut c.cache.finish_aborted),
        "A response that is stored is fetched to its end although its clients have left, if no more than this is missing; 0: never; from `cache.max_object` on: always."),
    setting!("cache.max_size" = "\"0\"", Kind::Size(0, 1 << 50, |c| &mut c.cache.max_size),
        "Space on the disk for the cache; 0: half of what is free at the start, with what it has already; in PostgreSQL: no limit."),
    setting!("cache.min_free" = "\"0\"", Kind::Size(0, 1 << 50, |c| &mut c.cache.min_free),
        "Space on the disk that is left free; 0: a twentieth of the file system, 1 GiB at the most."),
    setting!("cache.open_files" = "1024", Kind::Count(0, 1 << 20, |c| &mut c.cache.open_files),
        "Files of often used responses that each worker keeps open."),
    setting!("cache.ttl" = "\"0s\"", Kind::Duration(Duration::ZERO, YEAR, |c| &mut c.cache.ttl),
        "Lifetime of responses that say nothing of their own and are safe to keep; 0s: a heuristic decides."),
    setting!("cache.min_ttl" = "\"0s\"", Kind::Duration(Duration::ZERO, YEAR, |c| &mut c.cache.min_ttl),
        "Lifetimes that responses give are raised to it; no-store, private and no-cache stay what they are."),
    setting!("cache.max_ttl" = "\"0s\"", Kind::Duration(Duration::ZERO, YEAR, |c| &mut c.cache.max_ttl),
        "No lifetime is longer, wherever it comes from, `min_ttl` included; 0s: no bound."),
    setting!("cache.heuristic_max" = "\"24h\"", Kind::Duration(Duration::ZERO, YEAR, |c| &mut c.cache.heuristic_max),
        "Longest lifetime that is guessed from Last-Modified, where neither the response nor `ttl` gives one; 0s: none is."),
    setting!("cache.heuristic_percent" = "10", Kind::Count(0, 100, |c| &mut c.cache.heuristic_percent),
        "That guess, in percent of the time since Last-Modified."),
    setting!("cache.stale_while_revalidate" = "\"0s\"", Kind::Duration(Duration::ZERO, YEAR, |c| &mut c.cache.stale_while_revalidate),
        "How long a stale response is served while the origin server is asked, where the response says nothing of that."),
    setting!("cache.stale_if_error" = "\"0s\"", Kind::Duration(Duration::ZERO, YEAR, |c| &mut c.cache.stale_if_error),
        "How long a stale response is served in place of 500, 502, 503 and 504, where the response says nothing of that."),
    setting!("cache.ignore_reload" = "false", Kind::Flag(|c| &mut c.cache.ignore_reload),
        "A client's reload (Cache-Control: no-cache or max-age=0, Pragma: no-cache) is served like any request."),
    setting!("cache.targeted" = "[\"CDN-Cache-Control\"]", Kind::Texts(field_name, |c| &mut c.cache.targeted),
        "Fields that go before Cache-Control and Expires (RFC 9213); the first that is there and valid counts. Surrogate-Control comes after them."),
    setting!("cache.set_cookie" = "\"strip\"",
        Kind::Choice(&["strip", "store", "refuse"],
            |c, word| c.cache.set_cookie = match word {
                "store" => SetCookie::Store, "refuse" => SetCookie::Refuse, _ => SetCookie::Strip },
            |c| match c.cache.set_cookie {
                SetCookie::Strip => "strip", SetCookie::Store => "store", SetCookie::Refuse => "refuse" }),
        "An explicitly fresh response with Set-Cookie: stored without it, stored as it is, or not stored."),
    setting!("cache.x_cache" = "false", Kind::Flag(|c| &mut c.cache.x_cache),
        "Responses have X-Cache: HIT or MISS beside Cache-Status."),
    setting!("cache.cache_status_key" = "false", Kind::Flag(|c| &mut c.cache.cache_status_key),
        "Cache-Status tells the cache key, too."),

    setting!("postgres.connections" = "4", Kind::Count(1, 64, |c| &mut c.postgres.connections),
        "Connections of each worker to the database; a node has two more."),
    setting!("postgres.deadline" = "\"250ms\"", Kind::Duration(ms(10), secs(60), |c| &mut c.postgres.deadline),
        "How long a request waits for the database; then it goes on without, and nobody waits until the database answers again."),
    setting!("postgres.logged" = "false", Kind::Flag(|c| &mut c.postgres.logged),
        "true: the cache survives a crash of the database, and storing costs more (tables are LOGGED)."),
    setting!("postgres.password_file" = "\"\"",
        Kind::Text(|c, text| { c.postgres.password_file = path(text)?; Ok(()) }, |c| show_path(&c.postgres.password_file)),
        "A file with the password, where the URL has none; empty: $CREDENTIALS_DIRECTORY/postgres-password, else $PGPASSWORD."),
    setting!("postgres.tls" = "\"auto\"",
        Kind::Choice(&["auto", "on", "off"],
            |c, word| c.postgres.tls = match word { "on" => Tls::On, "off" => Tls::Off, _ => Tls::Auto },
            |c| match c.postgres.tls { Tls::Auto => "auto", Tls::On => "on", Tls::Off => "off" }),
        "TLS to the database, always verified. auto: as sslmode in the URL says, else for all hosts but this one."),
    setting!("postgres.ca_file" = "\"\"",
        Kind::Text(|c, text| { c.postgres.ca_file = path(text)?; Ok(()) }, |c| show_path(&c.postgres.ca_file)),
        "Certificates (PEM) that the database's is verified with; empty: the system's."),

    setting!("control.socket" = "\"\"",
        Kind::Text(|c, text| { c.control.socket = socket(text)?; Ok(()) },
            |c| c.control.socket.as_ref().map(|path| path.display().to_string()).unwrap_or_default()),
        "With `--cache memory` or PostgreSQL: where `baton explain` and `baton cache` reach the instance; empty: ADDRESS.sock in $RUNTIME_DIRECTORY, else $XDG_RUNTIME_DIR/baton, else /run/baton (root), else /tmp/baton-UID. With a directory the socket is in that."),

    setting!("access.clients" = "[]", Kind::Networks(|c| &mut c.access.clients),
        "Who may use the proxy; empty: loopback and this host's own addresses."),
    setting!("access.purge" = "[]", Kind::Networks(|c| &mut c.access.purge),
        "Who may remove stored responses with the PURGE method; empty: nobody, and PURGE is an origin server's business."),
    setting!("access.destinations_allow" = "[]", Kind::Texts(destination, |c| &mut c.access.destinations_allow),
        "Exceptions from the refused destinations (loopback, link-local, metadata …): \"127.0.0.1:8000\", \"host:port\", CIDR."),
    setting!("access.connect_ports" = "[80, 443]", Kind::Ports(|c| &mut c.access.connect_ports),
        "Ports that CONNECT may reach (browsers open ws:// as CONNECT to port 80)."),

    setting!("worker.grace" = "\"1s\"", Kind::Duration(Duration::ZERO, secs(3600), |c| &mut c.worker.grace),
        "Quiet time after which a client connection goes back to the master."),
    setting!("worker.max_active" = "4096", Kind::Count(1, 1 << 20, |c| &mut c.worker.max_active),
        "Requests in progress in one worker; beyond, connections wait in the queue. Never more than half of the descriptors that the process may open."),

    setting!("queue.capacity" = "4096", Kind::Count(1, 1 << 24, |c| &mut c.queue.capacity),
        "Connections with a request that may wait for a worker; beyond: 503."),
    setting!("queue.ageing" = "\"1s\"", Kind::Duration(ms(1), secs(3600), |c| &mut c.queue.ageing),
        "Waiting time that is worth one step of listener priority."),

    setting!("log.directory" = "\"\"",
        Kind::Text(
            |c, text| { c.log.directory = (!text.is_empty()).then(|| PathBuf::from(text)); Ok(()) },
            |c| c.log.directory.as_ref().map(|d| d.display().to_string()).unwrap_or_default()),
        "Where logs go; empty: $LOGS_DIRECTORY, else $XDG_STATE_HOME/baton, else ~/.local/state/baton."),
    setting!("log.level" = "\"info\"",
        Kind::Text(|c, text| { c.log.level = level(text)?; Ok(()) }, |c| c.log.level.clone()),
        "error | warn | info | debug | trace | off, or `module=level, …`; RUST_LOG goes before it."),
    setting!("log.access" = "\"combined\"",
        Kind::Choice(&["combined", "squid", "json", "off"],
            |c, word| c.log.access = match word {
                "squid" => AccessFormat::Squid, "json" => AccessFormat::Json,
                "off" => AccessFormat::Off, _ => AccessFormat::Combined },
            |c| match c.log.access {
                AccessFormat::Combined => "combined", AccessFormat::Squid => "squid",
                AccessFormat::Json => "json", AccessFormat::Off => "off" }),
        "Format of access-N.log, a line a request."),
];

/// An address to listen on.
pub(super) fn address(text: &str) -> Result<std::net::SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("\"{text}\" is not an address to listen on: write \"127.0.0.1:3128\", \"[::1]:3128\" or \"0.0.0.0:8080\"")
    })
}

/// `http://host[:port]` → `host[:port]`; empty → none.
fn origin(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let hint = "write the origin server as \"http://127.0.0.1:8000\"";
    let rest = text
        .strip_prefix("http://")
        .ok_or_else(|| format!("\"{text}\": only http:// is spoken to origin servers; {hint}"))?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains('/') {
        return Err(format!("\"{text}\" has a path; {hint}"));
    }
    crate::http::target::Authority::parse(authority.as_bytes())
        .map_err(|error| format!("\"{text}\": {error}; {hint}"))?;
    Ok(Some(authority.to_owned()))
}

/// `memory`, `off`, `dir`, `dir:PATH` or `postgres://…`.
fn store(config: &mut Config, text: &str) -> Result<(), String> {
    let hint = "write \"dir:/var/cache/baton\", \"dir\", \"memory\", \"postgres://user@host/database\" or \"off\"";
    let cache = &mut config.cache;
    cache.directory = None;
    config.postgres.url = Secret::default();
    if is_url(text) {
        if is_ambiguous(text) {
            return Err(
                "an @ stands behind the name of the host: in a user's name or password @ is written %40, / is %2F, ? is %3F and # is %23; the value is not shown, as there is a password in it"
                    .to_owned(),
            );
        }
        let read = text.parse::<tokio_postgres::Config>();
        read.map_err(|error| format!("{}: {error}", masked(text)))?;
        cache.store = StoreKind::Postgres;
        config.postgres.url = Secret::new(text);
        return Ok(());
    }
    cache.store = match text.split_once(':') {
        None if text == "dir" => StoreKind::Directory,
        None if text == "memory" => StoreKind::Memory,
        None if text == "off" => StoreKind::Off,
        Some(("dir", path)) if !path.is_empty() => {
            // Every process must find the same one, wherever it stands.
            let path = std::path::absolute(path).map_err(|error| format!("\"{text}\": {error}"))?;
            cache.directory = Some(path);
            StoreKind::Directory
        }
        _ if !text.contains("://") && text.contains(['@', '=']) => {
            return Err(format!(
                "that is no place to keep responses, and not shown, as there may be a password in it: {hint}"
            ));
        }
        _ => {
            return Err(format!(
                "\"{}\" is no place to keep responses: {hint}",
                masked(text)
            ));
        }
    };
    Ok(())
}

fn show_store(config: &Config) -> String {
    match (config.cache.store, &config.cache.directory) {
        (StoreKind::Postgres, _) => config.postgres.shown(),
        (StoreKind::Directory, Some(path)) => format!("dir:{}", path.display()),
        (StoreKind::Directory, None) => "dir".to_owned(),
        (StoreKind::Memory, _) => "memory".to_owned(),
        (StoreKind::Off, _) => "off".to_owned(),
    }
}

/// Every process must find the same one, wherever it stands.
fn path(text: &str) -> Result<Option<PathBuf>, String> {
    match text {
        "" => Ok(None),
        text => std::path::absolute(text)
            .map(Some)
            .map_err(|error| format!("\"{text}\": {error}")),
    }
}

fn show_path(path: &Option<PathBuf>) -> String {
    path.as_ref()
        .map(|path| path.display().to_string())
        .unwrap_or_default()
}

fn socket(text: &str) -> Result<Option<PathBuf>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    // Every process must find the same one, wherever it stands.
    let path = std::path::absolute(text).map_err(|error| format!("\"{text}\": {error}"))?;
    match path.file_name() {
        Some(_) if !text.ends_with('/') => Ok(Some(path)),
        _ => Err(format!(
            "\"{text}\" is no path of a socket: write it as \"/run/baton/control\""
        )),
    }
}

fn field_name(text: &str) -> Result<(), String> {
    match crate::http::syntax::is_token(text.as_bytes()) {
        true => Ok(()),
        false => Err(format!(
            "\"{text}\" is no field name: write it as \"CDN-Cache-Control\""
        )),
    }
}

fn destination(text: &str) -> Result<(), String> {
    crate::access::Destinations::parse(&[text.to_owned()])
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// `info`, or `warn,baton::master=debug`.
fn level(text: &str) -> Result<String, String> {
    const WORDS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let known = |part: &str| {
        let word = part.rsplit('=').next().unwrap_or(part).trim();
        WORDS.iter().any(|known| known.eq_ignore_ascii_case(word))
    };
    if text.split(',').all(known) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "\"{text}\" is not a level: {}, or module=level, comma separated",
        WORDS.join(", ")
    ))
}
