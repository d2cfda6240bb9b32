//! What is decided about caching for a listener, and for some URLs: overrides of `[cache]`, and the policies they make.
//!
//! An override is kept as it is shown again, and laid over a copy of the configuration: so it is read, bounded and
//! explained by the one declaration of its setting. A rule goes before its listener, a listener before `[cache]`.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::settings::SETTINGS;
use super::written::{apply_text, defaults};
use super::{Cache, Config, Mode, SetCookie};
use crate::cache::policy::{Bound, Level};
use crate::cache::{self, Policies, Policy, Side};

/// The settings of `[cache]` that a listener and a rule may set, too.
pub(super) const OVERRIDABLE: [&str; 12] = [
    "ttl",
    "min_ttl",
    "max_ttl",
    "heuristic_max",
    "heuristic_percent",
    "stale_while_revalidate",
    "stale_if_error",
    "ignore_reload",
    "targeted",
    "set_cookie",
    "x_cache",
    "cache_status_key",
];

/// Settings of `[cache]`, as TOML, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides(pub(super) Vec<(String, String)>);

/// `[[cache_rule]]`: what is decided otherwise for some URLs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheRule {
    /// A regular expression over the target URI.
    pub uri: String,
    /// Only for requests that came through this one.
    pub listener: Option<SocketAddr>,
    /// False: the cache has no part in such requests.
    pub store: bool,
    pub caching: Overrides,
}

impl Overrides {
    /// Sets `name` to `value`; None where it is no setting that can be overridden. Errors: what is allowed.
    pub(super) fn set(&mut self, name: &str, value: &DeValue<'_>) -> Option<Result<(), String>> {
        let name = OVERRIDABLE.into_iter().find(|other| *other == name)?;
        let setting = setting(name)?;
        let mut scratch = defaults();
        Some(setting.kind.set(&mut scratch, value).map(|()| {
            self.0.retain(|(other, _)| other != name);
            self.0.push((name.to_owned(), setting.kind.show(&scratch)));
            let place = |name: &str| OVERRIDABLE.iter().position(|other| *other == name);
            self.0.sort_by_key(|(name, _)| place(name));
        }))
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(other, _)| other == name)
    }

    fn lay_over(&self, config: &mut Config) {
        for (name, text) in &self.0 {
            if let Some(setting) = setting(name) {
                apply_text(setting, config, text).expect("it was shown by the setting itself");
            }
        }
    }
}

fn setting(name: &str) -> Option<&'static super::settings::Setting<Config>> {
    let mut all = SETTINGS.iter();
    all.find(|setting| setting.key.strip_prefix("cache.") == Some(name))
}

/// Whether that is an expression that rules can have; the error says what is wrong.
pub(super) fn check_expression(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(
            "an expression over URLs is wanted, as \"^http://example\\\\.org/images/\"".into(),
        );
    }
    Policies::new(&[text.to_owned()])
        .map(drop)
        .map_err(|error| {
            let error = error.to_string().replace('\n', " ");
            format!("\"{text}\" is no regular expression: {error}")
        })
}

impl Config {
    /// For all listeners and rules, as the rules of `cache` want them.
    #[must_use]
    pub fn policies(&self) -> Policies {
        let expressions: Vec<String> = self.cache_rules.iter().map(|it| it.uri.clone()).collect();
        let mut policies = Policies::new(&expressions).expect("each expression has been checked");
        for listener in &self.listeners {
            let mut scratch = self.clone();
            listener.caching.lay_over(&mut scratch);
            let plain = policy(&scratch.cache, &[(Level::Listener, &listener.caching)]);
            let holds = |rule: &&CacheRule| rule.listener.is_none_or(|it| it == listener.address);
            let by_rule = self.cache_rules.iter().map(|rule| {
                let rule = Some(rule).filter(holds)?;
                let mut scratch = scratch.clone();
                rule.caching.lay_over(&mut scratch);
                let levels = [
                    (Level::Rule, &rule.caching),
                    (Level::Listener, &listener.caching),
                ];
                Some(Policy {
                    store: rule.store,
                    ..policy(&scratch.cache, &levels)
                })
            });
            let by_rule = by_rule.collect();
            policies.add(side(listener.mode), plain, by_rule);
        }
        policies
    }
}

fn side(mode: Mode) -> Side {
    match mode {
        Mode::Forward => Side::Forward,
        Mode::Reverse => Side::Reverse,
    }
}

/// `levels`: who may have overridden a setting, the last word first.
fn policy(cache: &Cache, levels: &[(Level, &Overrides)]) -> Policy {
    // Lifetimes are whole seconds. A part of one must not become 0, which means something else: no bound, not set.
    let seconds = |time: Duration| {
        let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        u32::try_from(whole).unwrap_or(u32::MAX)
    };
    let bound = |name: &str, time: Duration| Bound {
        seconds: seconds(time),
        by: levels
            .iter()
            .find(|(_, overrides)| overrides.has(name))
            .map_or(Level::Cache, |(level, _)| *level),
    };
    Policy {
        store: true,
        ttl: bound("ttl", cache.ttl),
        min_ttl: bound("min_ttl", cache.min_ttl),
        max_ttl: bound("max_ttl", cache.max_ttl),
        heuristic_percent: u32::try_from(cache.heuristic_percent).unwrap_or(0),
        heuristic_max: seconds(cache.heuristic_max),
        set_cookie: match cache.set_cookie {
            SetCookie::Strip => cache::SetCookie::Strip,
            SetCookie::Store => cache::SetCookie::Store,
            SetCookie::Refuse => cache::SetCookie::Refuse,
        },
        stale_while_revalidate: seconds(cache.stale_while_revalidate),
        stale_if_error: seconds(cache.stale_if_error),
        ignore_reload: cache.ignore_reload,
        targeted: cache.targeted.clone(),
        x_cache: cache.x_cache,
        status_key: cache.cache_status_key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::written::lay_file;
    use std::path::Path;

    #[test]
    fn the_nearest_level_counts_and_is_told() {
        let mut config = defaults();
        let text = r#"
[cache]
ttl = "1m"
min_ttl = "5s"
[[listener]]
address = "127.0.0.1:1"
ttl = "2m"
x_cache = true
[[listener]]
address = "127.0.0.1:2"
[[cache_rule]]
uri = "/live/"
store = false
[[cache_rule]]
uri = "\\.png$"
listener = "127.0.0.1:1"
max_ttl = "1h"
ignore_reload = true
[[cache_rule]]
uri = "\\.png$"
ttl = "3m"
"#;
        lay_file(&mut config, Path::new("proxy.conf"), text).unwrap();
        let policies = config.policies();
        let of = |listener, uri: &str| policies.get(policies.choose(listener, uri.as_bytes()));
        let bound = |seconds, by| Bound { seconds, by };
        let page = of(0, "http://a/");
        assert_eq!(page.ttl, bound(120, Level::Listener));
        assert_eq!(page.min_ttl, bound(5, Level::Cache));
        assert!(page.store && page.x_cache && !page.ignore_reload);
        let image = of(0, "http://a/x.png");
        assert_eq!(image.ttl, bound(120, Level::Listener));
        assert_eq!(image.max_ttl, bound(3600, Level::Rule));
        assert!(image.x_cache && image.ignore_reload);
        let other = of(1, "http://a/x.png");
        assert_eq!(other.ttl, bound(180, Level::Rule));
        assert!(!other.x_cache);
        assert!(!of(1, "http://a/live/x.png").store);
        assert_eq!(of(1, "http://a/").ttl, bound(60, Level::Cache));
    }

    #[test]
    fn a_part_of_a_second_is_one() {
        let mut config = defaults();
        let text = "[cache]\nttl = \"1500ms\"\nmax_ttl = \"1ms\"\n[[listener]]\naddress = \"127.0.0.1:1\"\n";
        lay_file(&mut config, Path::new("proxy.conf"), text).unwrap();
        let policies = config.policies();
        let policy = policies.get(policies.choose(0, b"http://a/"));
        let seconds = |bound: Bound| bound.seconds;
        assert_eq!(
            [policy.ttl, policy.max_ttl, policy.min_ttl].map(seconds),
            [2, 1, 0]
        );
    }
}
