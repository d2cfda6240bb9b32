//! The configuration as written: a TOML file and `--set key=value`, read against the declared settings.
//!
//! Every error names the file and line (or the flag), the key, and what is allowed.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Error, Place};
use super::policies::{OVERRIDABLE, Overrides};
use super::settings::{LISTENER, RULE, SETTINGS, Setting};
use super::{
    Access, AccessFormat, Cache, CacheRule, Client, Config, Control, HostField, Listener, Log,
    Mode, Origin, Postgres, Queue, Reverse, SetCookie, StoreKind, Worker,
};

/// All settings at their declared defaults, without a listener.
pub(super) fn defaults() -> Config {
    let mut config = blank();
    for setting in SETTINGS {
        apply_text(setting, &mut config, setting.default)
            .expect("a declared default is within its own bounds");
    }
    config
}

/// A listener at its declared defaults.
pub(super) fn default_listener() -> Listener {
    let mut listener = Listener {
        address: ([127, 0, 0, 1], 0).into(),
        mode: Mode::Forward,
        priority: 0,
        caching: Overrides::default(),
    };
    for setting in LISTENER {
        apply_text(setting, &mut listener, setting.default)
            .expect("a declared default is within its own bounds");
    }
    listener
}

/// Lays the TOML `text` of `path` over `config`. Listeners in the file are added to `config.listeners`.
pub(super) fn lay_file(config: &mut Config, path: &Path, text: &str) -> Result<(), Error> {
    let at = |offset: usize| {
        Place::File(
            path.to_owned(),
            1 + text[..offset.min(text.len())].matches('\n').count(),
        )
    };
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        Error::new(at(offset), "", error.message().to_owned())
    })?;
    for (name, value) in table.get_ref() {
        let place = at(name.span().start);
        match (name.get_ref().as_ref(), value.get_ref()) {
            ("listener", DeValue::Array(listeners)) => {
                for listener in listeners.iter() {
                    config.listeners.push(read_listener(listener, &at)?);
                }
            }
            ("listener", _) => {
                return Err(Error::new(
                    place,
                    "listener",
                    "listeners are written as [[listener]], with two brackets",
                ));
            }
            ("cache_rule", DeValue::Array(rules)) => {
                for rule in rules.iter() {
                    config.cache_rules.push(read_rule(rule, &at)?);
                }
            }
            ("cache_rule", _) => {
                return Err(Error::new(
                    place,
                    "cache_rule",
                    "rules are written as [[cache_rule]], with two brackets",
                ));
            }
            (section, DeValue::Table(rows)) => {
                for (key, value) in rows {
                    let key_place = at(key.span().start);
                    lay_one(
                        SETTINGS,
                        config,
                        &format!("{section}.{}", key.get_ref()),
                        value.get_ref(),
                        key_place,
                    )?;
                }
                if !SETTINGS
                    .iter()
                    .any(|setting| section_of(setting.key) == section)
                {
                    return Err(unknown(SETTINGS, section, place));
                }
            }
            (key, value) => lay_one(SETTINGS, config, key, value, place)?,
        }
    }
    Ok(())
}

/// Lays one `--set key=value` over `config`. The value is TOML; quotes around a plain text may be left out.
pub(super) fn lay_flag(
    config: &mut Config,
    flag: &str,
    key: &str,
    value: &str,
) -> Result<(), Error> {
    let place = || Place::Flag(flag.to_owned());
    let document = format!("value = {value}");
    let quoted = format!("value = {}", super::value::quoted(value));
    // `10s` is no TOML value and `127.0.0.1` neither: what does not parse is taken as a plain text.
    let table = DeTable::parse(&document)
        .or_else(|_| DeTable::parse(&quoted))
        .map_err(|error| Error::new(place(), key, error.message().to_owned()))?;
    match table.get_ref().get("value") {
        Some(value) if table.get_ref().len() == 1 => {
            lay_one(SETTINGS, config, key, value.get_ref(), place())
        }
        _ => Err(Error::new(place(), key, "one value is wanted")),
    }
}

fn read_listener(
    value: &Spanned<DeValue<'_>>,
    at: &dyn Fn(usize) -> Place,
) -> Result<Listener, Error> {
    let DeValue::Table(rows) = value.get_ref() else {
        return Err(Error::new(
            at(value.span().start),
            "listener",
            "listeners are written as [[listener]]",
        ));
    };
    let mut listener = default_listener();
    for (key, value) in rows {
        let place = at(key.span().start);
        let name = format!("listener.{}", key.get_ref());
        match listener.caching.set(key.get_ref(), value.get_ref()) {
            Some(set) => set.map_err(|message| Error::new(place, &name, message))?,
            None => lay_one(LISTENER, &mut listener, &name, value.get_ref(), place)?,
        }
    }
    if !rows.contains_key("address") {
        return Err(Error::new(
            at(value.span().start),
            "listener.address",
            "a listener needs an address, as \"127.0.0.1:3128\"",
        ));
    }
    Ok(listener)
}

fn read_rule(
    value: &Spanned<DeValue<'_>>,
    at: &dyn Fn(usize) -> Place,
) -> Result<CacheRule, Error> {
    let whole = at(value.span().start);
    let DeValue::Table(rows) = value.get_ref() else {
        let message = "rules are written as [[cache_rule]]";
        return Err(Error::new(whole, "cache_rule", message));
    };
    let mut rule = CacheRule {
        uri: String::new(),
        listener: None,
        store: true,
        caching: Overrides::default(),
    };
    for (key, value) in rows {
        let place = at(key.span().start);
        let name = format!("cache_rule.{}", key.get_ref());
        match rule.caching.set(key.get_ref(), value.get_ref()) {
            Some(set) => set.map_err(|message| Error::new(place, &name, message))?,
            None => lay_one(RULE, &mut rule, &name, value.get_ref(), place)?,
        }
    }
    if rule.uri.is_empty() {
        let message = format!(
            "a rule needs the URLs that it is for, as uri = \"^http://example\\\\.org/\"; it may set store, listener, {}",
            OVERRIDABLE.join(", ")
        );
        return Err(Error::new(whole, "cache_rule.uri", message));
    }
    Ok(rule)
}

fn lay_one<T: Clone>(
    settings: &[Setting<T>],
    target: &mut T,
    key: &str,
    value: &DeValue<'_>,
    place: Place,
) -> Result<(), Error> {
    match settings.iter().find(|setting| setting.key == key) {
        Some(setting) => setting
            .kind
            .set(target, value)
            .map_err(|message| Error::new(place, key, message)),
        None => Err(unknown(settings, key, place)),
    }
}

pub(super) fn apply_text<T: Clone>(
    setting: &Setting<T>,
    target: &mut T,
    text: &str,
) -> Result<(), String> {
    let document = format!("value = {text}");
    let table = DeTable::parse(&document).map_err(|error| error.to_string())?;
    let value = table.get_ref().get("value").ok_or("no value")?;
    setting.kind.set(target, value.get_ref())
}

fn unknown<T>(settings: &[Setting<T>], key: &str, place: Place) -> Error {
    let nearest = settings
        .iter()
        .flat_map(|setting| [setting.key, section_of(setting.key)])
        .filter(|name| !name.is_empty())
        .min_by_key(|name| distance(key, name));
    let message = match nearest.filter(|name| distance(key, name) <= 1 + key.len() / 3) {
        Some(name) => format!("there is no such setting; did you mean \"{name}\"?"),
        None => {
            let section = section_of(key);
            let allowed: Vec<&str> = settings
                .iter()
                .map(|s| s.key)
                .filter(|k| section_of(k) == section)
                .collect();
            let allowed = if allowed.is_empty() {
                settings.iter().map(|s| s.key).collect()
            } else {
                allowed
            };
            format!("there is no such setting; allowed: {}", allowed.join(", "))
        }
    };
    Error::new(place, key, message)
}

pub(super) fn section_of(key: &str) -> &str {
    key.split_once('.').map_or("", |(section, _)| section)
}

/// Edit distance, for suggestions.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The shape that `defaults` fills; no value of it is ever seen.
fn blank() -> Config {
    use std::time::Duration;
    let zero = Duration::ZERO;
    Config {
        workers: 0,
        shutdown_timeout: zero,
        listeners: Vec::new(),
        client: Client {
            header_timeout: zero,
            idle_timeout: zero,
            body_timeout: zero,
            write_timeout: zero,
            tunnel_timeout: zero,
            min_rate: 0,
            max_header_bytes: 0,
            max_headers: 0,
            max_target_bytes: 0,
            max_requests: 0,
        },
        origin: Origin {
            connect_timeout: zero,
            header_timeout: zero,
            body_timeout: zero,
            min_rate: 0,
            idle_timeout: zero,
            idle_per_host: 0,
        },
        reverse: Reverse {
            to: None,
            host: HostField::Pass,
        },
        cache: blank_cache(),
        postgres: Postgres::blank(),
        cache_rules: Vec::new(),
        control: Control { socket: None },
        access: Access {
            clients: Vec::new(),
            purge: Vec::new(),
            destinations_allow: Vec::new(),
            connect_ports: Vec::new(),
        },
        worker: Worker {
            grace: zero,
            max_active: 0,
        },
        queue: Queue {
            capacity: 0,
            ageing: zero,
        },
        log: Log {
            directory: None,
            level: String::new(),
            access: AccessFormat::Combined,
        },
    }
}

fn blank_cache() -> Cache {
    let zero = std::time::Duration::ZERO;
    Cache {
        store: StoreKind::Memory,
        directory: None,
        memory: 0,
        max_object: 0,
        finish_aborted: 0,
        max_size: 0,
        min_free: 0,
        open_files: 0,
        ttl: zero,
        min_ttl: zero,
        max_ttl: zero,
        heuristic_max: zero,
        heuristic_percent: 0,
        stale_while_revalidate: zero,
        stale_if_error: zero,
        ignore_reload: false,
        targeted: Vec::new(),
        set_cookie: SetCookie::Strip,
        x_cache: false,
        cache_status_key: false,
    }
}

#[cfg(test)]
mod tests;
