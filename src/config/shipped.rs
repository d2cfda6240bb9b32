//! The configuration as text: the shipped `proxy.conf` and what `baton check` prints.

use std::fmt::Write;

use super::settings::{LISTENER, SETTINGS, Setting};
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
    text
}

/// A file must say where to listen; the shipped one does what `baton forward` does.
fn shipped_listener(text: &mut String) {
    text.push_str(
        "\n# One table a listener; `priority` and `mode` may be left out.\n[[listener]]\n",
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
    text
}

fn effective_listener(text: &mut String, listener: &Listener) {
    text.push_str("\n[[listener]]\n");
    LISTENER
        .iter()
        .for_each(|setting| effective_row(text, setting, listener));
}

fn effective_row<T: Clone>(text: &mut String, setting: &Setting<T>, target: &T) {
    let name = setting.key.rsplit('.').next().unwrap_or(setting.key);
    let _ = writeln!(text, "{name} = {}", setting.kind.show(target));
}
