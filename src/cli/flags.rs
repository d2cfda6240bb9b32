//! The flags as clap sees them: exactly what may be typed, nothing resolved.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::cache::Set;
use crate::config::{Mode, Sources};
use crate::janitor::listing::Sort;

/// A pre-forked, multi-process caching HTTP proxy.
#[derive(Debug, Parser)]
#[command(name = "baton", version, max_term_width = 110, after_help = EXAMPLES)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  baton forward                                  a proxy for browsers, on 127.0.0.1:3128
  baton reverse --to http://127.0.0.1:8000       a cache in front of a web server, on 127.0.0.1:8080
  baton serve -c proxy.conf                      the service, everything from the file
  baton check -c proxy.conf                      validate a file and print the settings in effect
  baton cache stats                              look into the cache directory
  baton explain http://example.org/              what a request would get from it, and why
  curl -x http://127.0.0.1:3128 http://example.org/

Exit codes: 0 stopped as asked, 1 configuration or start failed, 2 wrong usage; those of `cache` are in its help.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Runs a forward proxy for browsers and build machines; needs no configuration.
    Forward(#[command(flatten)] Common),
    /// Runs a caching reverse proxy in front of one origin server.
    Reverse {
        /// The origin server, as http://127.0.0.1:8000.
        #[arg(long, value_name = "URL")]
        to: String,
        #[command(flatten)]
        common: Common,
    },
    /// Runs the service that a configuration file describes.
    Serve {
        /// Configuration file [default: ./proxy.conf, then /etc/baton/proxy.conf].
        #[arg(short = 'c', long = "config", value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Validates a configuration and prints the settings in effect.
    Check {
        /// Configuration file [default: ./proxy.conf, then /etc/baton/proxy.conf].
        #[arg(short = 'c', long = "config", value_name = "FILE")]
        file: Option<PathBuf>,
        /// Prints the shipped proxy.conf instead: every setting with its default.
        #[arg(long)]
        print_defaults: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Makes the tables of a cache in PostgreSQL, or brings them up to date; a start does the same.
    Migrate {
        /// Where they are, as postgres://USER@HOST/DATABASE.
        #[arg(long, value_name = "STORE")]
        cache: Option<String>,
        /// Configuration file [default: ./proxy.conf, then /etc/baton/proxy.conf, if no store is named].
        #[arg(short = 'c', long = "config", value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Looks into a cache, checks it, and removes from it: that of a running instance, or a directory at rest.
    #[command(after_help = CACHE_HELP)]
    Cache(CacheCommand),
    /// Tells what a request for a URL would get from the cache now, and why.
    ///
    /// It prints the key, every response that is kept under it, the arithmetic of its age and freshness, and the rule that
    /// decides. A running instance is asked, also one with `--cache memory`; a directory at rest is read.
    #[command(after_help = EXPLAIN_HELP)]
    Explain(ExplainCommand),
    /// Prints a completion script for a shell.
    Completions { shell: clap_complete::Shell },
    /// Prints the man page, or writes the pages of all commands into a directory.
    Man {
        /// Directory for baton.1, baton-forward.1 …
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

const EXPLAIN_HELP: &str = "\
Examples:
  baton explain http://example.org/logo.png
  baton explain -H 'Cache-Control: no-cache' http://example.org/   what a reload would do
  baton explain -H 'Accept-Language: de' --json http://example.org/ | jq .sides[].outcome

Exit codes: 0 told, 1 failed (the message says why), 2 wrong usage, 3 nothing is kept of that URL.";

const CACHE_HELP: &str = "\
Examples:
  baton cache stats                              how full it is, and how often it answers
  baton cache ls --json | jq .url                every URL of which something is kept
  baton cache ls --sort size --limit 20          what takes most
  baton cache purge http://example.org/logo.png  removes one response, with all its variants
  baton cache purge --tag news --tag front --soft   what has a tag is revalidated when it is asked for next
  baton cache verify -c /etc/baton/proxy.conf    checks all that the service keeps
  baton cache ls --instance 127.0.0.1:3128       what that instance has in memory
  baton cache warm http://example.org/sitemap.xml   fetches all of a site through 127.0.0.1:3128

Exit codes: 0 done, 1 failed (the message says why), 2 wrong usage, 3 nothing of that is kept,
4 verify has found damage (and removed it), 5 warm could not fetch everything.";

/// `baton cache`
#[derive(Debug, Args)]
pub(super) struct CacheCommand {
    #[command(subcommand)]
    pub action: CacheAction,
    #[command(flatten)]
    pub of: Whereabouts,
}

/// `baton explain`
#[derive(Debug, Args)]
pub(super) struct ExplainCommand {
    #[arg(value_parser = url)]
    pub url: String,
    /// A field of the request (repeatable), as 'Accept-Language: de'.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = field)]
    pub fields: Vec<(String, String)>,
    /// The request's method.
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    pub method: String,
    #[command(flatten)]
    pub of: Whereabouts,
}

/// Which cache is meant, and how the answer is printed.
#[derive(Debug, Args)]
pub(super) struct Whereabouts {
    /// Where: dir:PATH, postgres://USER@HOST/DATABASE, or memory [default: the instance that runs, else the directory of
    /// `baton forward`].
    #[arg(long, value_name = "STORE", global = true)]
    pub cache: Option<String>,
    /// Configuration file of the instance.
    #[arg(short = 'c', long = "config", value_name = "FILE", global = true)]
    pub file: Option<PathBuf>,
    /// Of several instances with `--cache memory` or PostgreSQL, the one that listens there first of all.
    #[arg(long, value_name = "ADDR:PORT", global = true, conflicts_with_all = ["cache", "file"])]
    pub instance: Option<SocketAddr>,
    /// The socket of an instance with `--cache memory` or PostgreSQL, as `control.socket` names it.
    #[arg(long, value_name = "PATH", global = true, conflicts_with_all = ["cache", "file", "instance"])]
    pub control: Option<PathBuf>,
    /// Prints JSON: one document, or with `ls` and `warm` one object a line.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum CacheAction {
    #[command(flatten)]
    Ask(CacheQuestion),
    /// Writes everything that is kept into one file, from which `import` fills another cache, of whatever kind.
    Export {
        /// Where to; - is standard output.
        #[arg(default_value = "-", value_name = "FILE")]
        archive: PathBuf,
    },
    /// Puts what `export` has written where it is missing, or older.
    ///
    /// Nothing is thrown out for it: where there is no more room, by cache.max_size of the file or of a running instance, the rest is left out.
    Import {
        /// Where from; - is standard input.
        #[arg(default_value = "-", value_name = "FILE")]
        archive: PathBuf,
    },
    /// Fetches what a list or a sitemap names through the proxy, so that it is there when clients ask.
    Warm(WarmCommand),
}

/// What is asked of a cache.
#[derive(Debug, Subcommand)]
pub(super) enum CacheQuestion {
    /// Prints how much is kept, how much may be, and how often it was of use.
    Stats,
    /// Lists what is kept.
    Ls(LsCommand),
    /// Prints what is kept of a URL: fields, age, files.
    Show {
        #[arg(value_parser = url)]
        url: String,
    },
    /// Reads everything, compares every checksum, and removes what is damaged.
    Verify,
    /// Removes what is kept of a URL, of many, or everything.
    ///
    /// No request from now on gets any of it, and nothing of it that is being fetched meanwhile is kept.
    Purge(PurgeCommand),
}

/// `baton cache ls`
#[derive(Debug, Args)]
pub(super) struct LsCommand {
    /// URLs that begin so.
    #[arg(long, value_name = "URL")]
    pub prefix: Option<String>,
    /// Responses with this tag in Cache-Tag or Surrogate-Key (repeatable: any of them).
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// What is not fresh any more.
    #[arg(long)]
    pub stale: bool,
    /// What takes more than that, as 10MiB.
    #[arg(long, value_name = "SIZE", value_parser = octets)]
    pub larger: Option<u64>,
    /// What comes first: by URL, the largest, the newest, what becomes stale first, what was not used for longest, what was
    /// found most often.
    #[arg(long, value_name = "BY")]
    pub sort: Option<Sort>,
    /// So many at most.
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

/// `baton cache purge`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(super) struct PurgeCommand {
    #[arg(value_parser = url, group = "what")]
    pub url: Option<String>,
    /// URLs that begin so.
    #[arg(long, value_name = "URL", group = "what", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub prefix: Option<String>,
    /// Responses with this tag in Cache-Tag or Surrogate-Key (repeatable: those with any of them, all at once).
    #[arg(long = "tag", value_name = "TAG", group = "what", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub tags: Vec<String>,
    /// URLs in which this regular expression matches, as '\\.css(\\?|$)'.
    #[arg(long, value_name = "REGEX", group = "what", value_parser = expression)]
    pub regex: Option<String>,
    /// Everything.
    #[arg(long, group = "what")]
    pub all: bool,
    /// It stays and is stale: revalidated when it is asked for next, and served where the origin server fails and
    /// stale-if-error allows it.
    #[arg(long)]
    pub soft: bool,
}

/// `baton cache warm`
#[derive(Debug, Args)]
pub(super) struct WarmCommand {
    /// A list of URLs, one a line, or a sitemap; - is standard input; what begins with http:// is fetched through the proxy, too.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<String>,
    /// The proxy, forward or reverse.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:3128")]
    pub through: SocketAddr,
    /// Requests at a time.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// New tries of what may go better later: no answer, 408, 429, 500, 502, 503, 504.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub retries: u32,
    /// How long one response may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// A field of each request (repeatable), as 'Accept-Encoding: gzip'.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = field)]
    pub fields: Vec<(String, String)>,
    /// https URLs are asked for as http, as a TLS terminator in front of the proxy does.
    #[arg(long)]
    pub http: bool,
}

fn octets(text: &str) -> Result<u64, String> {
    let size = text.parse::<bytesize::ByteSize>();
    size.map(|size| size.as_u64())
        .map_err(|_| "a size such as 4096, 64KiB or 10MiB is wanted".to_owned())
}

fn expression(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("an empty expression matches everywhere: --all means everything".to_owned());
    }
    match Set::Regex(text.to_owned()).matcher() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or("write it as 'Name: value', for example 'Accept-Language: de'")?;
    let (name, value) = (name.trim(), value.trim());
    match crate::janitor::operations::check_field(name, value) {
        Ok(()) => Ok((name.to_owned(), value.to_owned())),
        Err(error) => Err(error.to_string()),
    }
}

fn url(text: &str) -> Result<String, String> {
    match crate::janitor::operations::check_url(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// Flags that every command with a configuration takes.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Address to listen on (repeatable); port 0 picks a free one, which the start-up line names.
    ///
    /// Replaces the listeners of a configuration file.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<String>,
    /// Worker processes [default: one a core].
    #[arg(long, value_name = "N")]
    workers: Option<String>,
    /// Where responses are kept: dir:PATH | dir | memory | postgres://USER@HOST/DATABASE | off [default: dir, which is ~/.cache/baton].
    ///
    /// The value selects the backend like a URL's scheme does.
    #[arg(long, value_name = "STORE")]
    cache: Option<String>,
    /// Lifetime of responses that say nothing of their own and are safe to keep, such as 10m.
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// Directory for master.log, worker-N.log and access-N.log.
    #[arg(long, value_name = "DIR")]
    log_dir: Option<String>,
    /// Any setting of the file (repeatable); the value is TOML, quotes around plain text may be left out.
    ///
    /// For example: --set client.header_timeout=5s --set 'access.destinations_allow=["127.0.0.1:8000"]'
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

impl Common {
    /// What was typed, as sources of a configuration. `--set` goes before the other flags, those before the file.
    pub fn sources(self, mode: Option<Mode>, to: Option<&str>) -> Sources {
        let named = [
            ("--to", "reverse.to", to.map(str::to_owned)),
            ("--workers", "workers", self.workers),
            ("--cache", "cache.store", self.cache),
            ("--ttl", "cache.ttl", self.ttl),
            ("--log-dir", "log.directory", self.log_dir),
        ];
        let named = named
            .into_iter()
            .filter_map(|(flag, key, value)| Some((flag, key.to_owned(), value?)));
        let set = self
            .set
            .into_iter()
            .map(|(key, value)| ("--set", key, value));
        let set = named
            .chain(set)
            .map(|(flag, key, value)| (flag.to_owned(), key, value))
            .collect();
        Sources {
            file: None,
            listen: self.listen,
            mode,
            set,
        }
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("write it as key=value, for example workers=2")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_settings_and_set_has_the_last_word() {
        let arguments = [
            "baton",
            "forward",
            "--workers",
            "3",
            "--cache",
            "off",
            "--set",
            "workers=4",
            "--ttl",
            "10m",
        ];
        let Command::Forward(common) = Cli::parse_from(arguments).command else {
            panic!("forward was typed")
        };
        let config = common.sources(Some(Mode::Forward), None).load().unwrap();
        assert_eq!(config.workers, 4);
        assert_eq!(config.cache.store, crate::config::StoreKind::Off);
        assert_eq!(config.cache.ttl.as_secs(), 600);
        assert_eq!(config.listeners.len(), 2);
    }
}
