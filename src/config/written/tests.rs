use super::*;
use crate::config::{Sources, effective, shipped};
use std::time::Duration;

fn file(text: &str) -> Result<Config, String> {
    let mut config = defaults();
    lay_file(&mut config, Path::new("proxy.conf"), text).map_err(|error| error.to_string())?;
    Ok(config)
}

#[test]
fn a_file_sets_what_it_names_and_nothing_else() {
    let config =
        file("workers = 3\n[client]\nheader_timeout = \"5s\"\nmax_header_bytes = \"32KiB\"\n")
            .unwrap();
    assert_eq!(config.workers, 3);
    assert_eq!(config.client.header_timeout, Duration::from_secs(5));
    assert_eq!(config.client.max_header_bytes, 32 << 10);
    assert_eq!(config.client.idle_timeout, defaults().client.idle_timeout);
}

#[test]
fn errors_name_file_line_key_and_what_is_allowed() {
    let table = [
        (
            "\n[client]\nheader_tiemout = \"5s\"\n",
            "proxy.conf:3: client.header_tiemout: there is no such setting; did you mean \"client.header_timeout\"?",
        ),
        (
            "wokers = 1\n",
            "proxy.conf:1: wokers: there is no such setting; did you mean \"workers\"?",
        ),
        (
            "workers = 1000\n",
            "proxy.conf:1: workers: 1000 is outside 0 to 256",
        ),
        (
            "[client]\nheader_timeout = 5\n",
            "proxy.conf:2: client.header_timeout: a time such as \"500ms\", \"10s\" or \"1h 30m\" is wanted, not 5",
        ),
        (
            "[client]\nheader_timeout = \"-5s\"\n",
            "proxy.conf:2: client.header_timeout: \"-5s\" is negative; a time such as \"500ms\", \"10s\" or \"1h 30m\" is wanted",
        ),
        (
            "[cache]\nstore = \"disc\"\n",
            "proxy.conf:2: cache.store: \"disc\" is no place to keep responses: write \"dir:/var/cache/baton\", \"dir\", \"memory\", \"postgres://user@host/database\" or \"off\"",
        ),
        (
            "[access]\nconnect_ports = [443, 99999]\n",
            "proxy.conf:2: access.connect_ports: a port (1 to 65535) is wanted, not 99999",
        ),
        (
            "[listener]\naddress = \"127.0.0.1:1\"\n",
            "proxy.conf:1: listener: listeners are written as [[listener]], with two brackets",
        ),
        (
            "[[listener]]\npriority = 1\n",
            "proxy.conf:1: listener.address: a listener needs an address, as \"127.0.0.1:3128\"",
        ),
        (
            "[reverse]\nto = \"https://x\"\n",
            "proxy.conf:2: reverse.to: \"https://x\": only http:// is spoken to origin servers; write the origin server as \"http://127.0.0.1:8000\"",
        ),
        (
            "[clint]\n",
            "proxy.conf:1: clint: there is no such setting; did you mean \"client\"?",
        ),
    ];
    for (text, error) in table {
        assert_eq!(file(text).unwrap_err(), error, "{text}");
    }
    assert!(file("a = [\n").unwrap_err().starts_with("proxy.conf:"));
}

#[test]
fn errors_in_rules_and_overrides_likewise() {
    let table = [
        (
            "[[cache_rule]]\nuri = \"a(\"\n",
            "proxy.conf:2: cache_rule.uri: \"a(\" is no regular expression: regex parse error:     a(      ^ error: unclosed group",
        ),
        (
            "[[cache_rule]]\nttl = \"1m\"\n",
            "proxy.conf:1: cache_rule.uri: a rule needs the URLs that it is for, as uri = \"^http://example\\\\.org/\"; it may set store, listener, ttl, min_ttl, max_ttl, heuristic_max, heuristic_percent, stale_while_revalidate, stale_if_error, ignore_reload, targeted, set_cookie, x_cache, cache_status_key",
        ),
        (
            "[[cache_rule]]\nuri = \"a\"\nttl = 5\n",
            "proxy.conf:3: cache_rule.ttl: a time such as \"500ms\", \"10s\" or \"1h 30m\" is wanted, not 5",
        ),
        (
            "[[cache_rule]]\nuri = \"a\"\nmemory = 5\n",
            "proxy.conf:3: cache_rule.memory: there is no such setting; did you mean \"cache_rule.store\"?",
        ),
        (
            "[[listener]]\nignore_reload = 1\n",
            "proxy.conf:2: listener.ignore_reload: true or false is wanted, not 1",
        ),
        (
            "[cache]\ntargeted = [\"a b\"]\n",
            "proxy.conf:2: cache.targeted: \"a b\" is no field name: write it as \"CDN-Cache-Control\"",
        ),
    ];
    for (text, error) in table {
        assert_eq!(file(text).unwrap_err(), error, "{text}");
    }
}

#[test]
fn a_flag_takes_toml_and_plain_text_alike() {
    let mut config = defaults();
    let mut set =
        |key, value| lay_flag(&mut config, "--set", key, value).map_err(|error| error.to_string());
    set("client.header_timeout", "5s").unwrap();
    set("client.idle_timeout", "\"6s\"").unwrap();
    set("access.destinations_allow", "[\"127.0.0.1:8000\"]").unwrap();
    set("cache.memory", "64MiB").unwrap();
    set("workers", "4").unwrap();
    assert_eq!(
        set("workers", "four").unwrap_err(),
        "--set: workers: a whole number is wanted, not the text \"four\""
    );
    assert_eq!(
        set("log.level", "loud").unwrap_err().split(':').next(),
        Some("--set")
    );
    assert_eq!(config.client.header_timeout, Duration::from_secs(5));
    assert_eq!(config.client.idle_timeout, Duration::from_secs(6));
    assert_eq!(config.access.destinations_allow, ["127.0.0.1:8000"]);
    assert_eq!((config.cache.memory, config.workers), (64 << 20, 4));
}

#[test]
fn the_shipped_file_holds_every_setting_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.conf");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        text,
        shipped(),
        "write it anew with: baton check --print-defaults > proxy.conf"
    );
    // With every comment before a setting taken away it says the same as the built-in defaults.
    let is_setting = |line: &str| {
        line.split_once(" = ")
            .is_some_and(|(name, _)| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let bare = |line: &str| {
        line.strip_prefix("# ")
            .filter(|rest| is_setting(rest))
            .unwrap_or(line)
            .to_owned()
    };
    // A rule has no defaults: it is for some URLs, or it is none.
    let (all, _) = text.split_once("\n# For some URLs").unwrap();
    let uncommented: Vec<String> = all.lines().map(bare).collect();
    let mut expected = defaults();
    expected.listeners.push(default_listener());
    assert_eq!(file(&uncommented.join("\n")).unwrap(), expected);
    assert_eq!(file(&text).unwrap(), expected);
}

#[test]
fn what_check_prints_reads_back_to_the_same_settings() {
    let sources = Sources {
        mode: Some(Mode::Forward),
        listen: vec!["127.0.0.1:0".into(), "[::1]:0".into()],
        ..Sources::default()
    };
    let mut config = sources.load().unwrap();
    config.reverse.to = Some("a.example:81".into());
    config.access.clients = vec![
        "10.0.0.0/8".parse().unwrap(),
        "192.168.1.7/32".parse().unwrap(),
    ];
    let rules = r#"
[[listener]]
address = "127.0.0.1:1"
targeted = ["A-Cache-Control", "CDN-Cache-Control"]
min_ttl = "1m"
[[cache_rule]]
uri = "\\.(png|jpg)\\?"
store = false
[[cache_rule]]
uri = "^http://\"a"
listener = "127.0.0.1:1"
set_cookie = "store"
heuristic_percent = 20
x_cache = true
"#;
    lay_file(&mut config, Path::new("proxy.conf"), rules).unwrap();
    assert_eq!(config.cache_rules.len(), 2);
    assert_eq!(file(&effective(&config)).unwrap(), config);
}

#[test]
fn listeners_of_the_command_line_replace_those_of_the_file() {
    let sources = Sources {
        mode: Some(Mode::Reverse),
        ..Sources::default()
    };
    assert_eq!(sources.load().unwrap_err().key(), "reverse.to");
    let set = vec![(
        "--to".to_owned(),
        "reverse.to".to_owned(),
        "http://127.0.0.1:8000".to_owned(),
    )];
    let config = Sources {
        mode: Some(Mode::Reverse),
        set,
        ..Sources::default()
    }
    .load()
    .unwrap();
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.reverse.to.as_deref(), Some("127.0.0.1:8000"));
    let none = Sources::default().load().unwrap_err();
    assert!(none.to_string().contains("--listen"), "{none}");
}

/// The README's table of settings, made of the declarations.
fn table() -> String {
    use crate::config::settings::{LISTENER, RULE, SETTINGS};
    use std::fmt::Write;
    let mut text = String::from("| setting | default | allowed | what |\n|---|---|---|---|\n");
    let cell = |text: &str| text.replace('|', "\\|");
    let mut row = |key: &str, default: &str, allowed: String, help: &str| {
        let _ = writeln!(
            text,
            "| `{key}` | `{default}` | {} | {} |",
            cell(&allowed),
            cell(help)
        );
    };
    for setting in LISTENER {
        row(
            setting.key,
            setting.default,
            setting.kind.allowed(),
            setting.help,
        );
    }
    for setting in SETTINGS {
        row(
            setting.key,
            setting.default,
            setting.kind.allowed(),
            setting.help,
        );
    }
    for setting in RULE {
        row(
            setting.key,
            setting.default,
            setting.kind.allowed(),
            setting.help,
        );
    }
    text
}

#[test]
fn the_readme_lists_every_setting() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    if std::env::var_os("UPDATE_README").is_some() {
        let from = readme
            .find("@SETTINGS@\n")
            .or_else(|| readme.find("| setting | default |"))
            .unwrap();
        let rest = &readme[from..];
        let length = rest.find("\n\n").unwrap() + 1;
        let written = format!("{}{}{}", &readme[..from], table(), &rest[length..]);
        std::fs::write(&path, written).unwrap();
        return;
    }
    assert!(
        readme.contains(&table()),
        "write it anew with: UPDATE_README=1 cargo test --lib the_readme_lists"
    );
}
