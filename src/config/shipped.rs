//! The configuration as text: the shipped `proxy.conf` and what `baton check` prints.

use std::fmt::Write;

use super::policies::Overrides;
use super::settings::{LISTENER, RULE, SETTINGS, Setting};
use super::written::section_of;
use super::{Config, Listener};

/// The shipped `proxy.conf`: every setting, commented out, with its default, its bounds and what it does.
pub fn shipped() -> String {
    let mut text = String::from(
        "# proxy.conf: every setting of baton with its default.\n\
         #\n\
         # `baton check -c proxy.conf` validates a file and prints the settings in effect; any setting can be given\n\
         # on the command line, too: --set client.header_timeout=5s. Times read like \"10s\" or \"1h 30m\", sizes like\n\
         # \"64KiB\". An unknown key is an error.\n",
    );
    let mut section = "";
    for setting in SETTINGS {
        if section_of(setting.key) != section {
            if section.is_empty() {
                shipped_listener(&mut text);
            }
            section = section_of(setting.key);
            let _ = write!(text, "\n[{section}]\n");
        }
        shipped_row(&mut text, setting, "# ");
    }
    text.push_str(
        "\n# For some URLs: one table a rule. It may set, beside these, what a listener may set.\n# [[cache_rule]]\n",
    );
    for setting in RULE {
        shipped_row(&mut text, setting, "# ");
    }
    text
}

/// A file must say where to listen; the shipped one does what `baton forward` does.
fn shipped_listener(text: &mut String) {
    text.push_str(
        "\n# One table a listener; `priority` and `mode` may be left out. For its own requests it may set, too, what [cache] sets\n\
         # for all: ttl, min_ttl, max_ttl, heuristic_max, heuristic_percent, stale_while_revalidate, stale_if_error,\n\
         # ignore_reload, targeted, set_cookie, x_cache, cache_status_key.\n[[listener]]\n",
    );
    for setting in LISTENER {
        shipped_row(
            text,
            setting,
            if setting.key == "listener.address" {
                ""
            } else {
                "# "
            },
        );
    }
}

fn shipped_row<T: Clone>(text: &mut String, setting: &Setting<T>, comment: &str) {
    let name = setting.key.rsplit('.').next().unwrap_or(setting.key);
    let _ = write!(
        text,
        "\n# {} ({})\n{comment}{name} = {}\n",
        setting.help,
        setting.kind.allowed(),
        setting.default
    );
}

/// Every setting of `config` as TOML, which reads back to the same configuration.
pub fn effective(config: &Config) -> String {
    let mut text = String::new();
    let mut section = "";
    for setting in SETTINGS {
        if section_of(setting.key) != section {
            if section.is_empty() {
                config
                    .listeners
                    .iter()
                    .for_each(|listener| effective_listener(&mut text, listener));
            }
            section = section_of(setting.key);
            let _ = write!(text, "\n[{section}]\n");
        }
        effective_row(&mut text, setting, config);
    }
    for rule in &config.cache_rules {
        text.push_str("\n[[cache_rule]]\n");
        RULE.iter()
            .for_each(|setting| effective_row(&mut text, setting, rule));
        effective_overrides(&mut text, &rule.caching);
    }
    text
}

fn effective_overrides(text: &mut String, overrides: &Overrides) {
    for (name, value) in &overrides.0 {
        let _ = writeln!(text, "{name} = {value}");
    }
}

fn effective_listener(text: &mut String, listener: &Listener) {
    text.push_str("\n[[listener]]\n");
    LISTENER
        .iter()
        .for_each(|setting| effective_row(text, setting, listener));
    effective_overrides(text, &listener.caching);
}

fn effective_row<T: Clone>(text: &mut String, setting: &Setting<T>, target: &T) {
    let name = setting.key.rsplit('.').next().unwrap_or(setting.key);
    let _ = writeln!(text, "{name} = {}", setting.kind.show(target));
}
