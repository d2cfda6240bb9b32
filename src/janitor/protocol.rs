//! What is asked of a cache directory and what is answered: one JSON object a line, in both directions.
//!
//! `operations` answers, `control` carries it over a socket, and the command line shows it; for a directory at rest the
//! same values go from the one to the other without a socket. The answers are also what `--json` prints, so a field
//! keeps its name and its meaning.

use serde::{Deserialize, Serialize};

use super::listing::Listing;
use crate::cache::Set;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    Stats,
    Ls(Listing),
    Show {
        url: String,
    },
    /// What a GET, or another method, of this URL with these fields would get now.
    Explain {
        url: String,
        method: String,
        fields: Vec<(String, String)>,
    },
    Verify,
    Purge {
        #[serde(flatten)]
        what: Set,
        /// It stays, as stale.
        #[serde(default)]
        soft: bool,
    },
    PurgeAll,
    /// Into the descriptor that comes along with it.
    Export,
    /// From the descriptor that comes along with it.
    Import,
}

/// Any number of `Progress` and `Item`, then one of the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// A total of 0: nobody knows.
    Progress {
        done: u64,
        total: u64,
    },
    Item(Item),
    Done(Done),
    Error(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Done {
    Stats(Box<Stats>),
    Listed(Listed),
    Shown(Shown),
    Explained(Explained),
    Verified(Verified),
    Purged(Purged),
    Exported(Exported),
    Imported(Imported),
}

/// On which side of the proxy something was asked for: neither answers requests of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Forward,
    Reverse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Object,
    /// One of the responses that Vary distinguishes.
    Variant,
    /// What leads to the variants of a URL.
    List,
}

/// A head file, as `ls` lists it. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Who has it, of an instance that keeps responses in memory alone; empty: the disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<u16>,
    pub url: String,
    pub side: Side,
    pub kind: Kind,
    pub name: String,
    pub status: u16,
    /// Octets of the body.
    pub length: u64,
    /// Octets that its files take on the disk, or that it takes in memory.
    pub size: u64,
    pub stored: i64,
    /// Fresh until then.
    pub expires: i64,
    /// Last use, to some minutes; null: nobody keeps count of that.
    pub used: Option<i64>,
    /// How often it was found for a request, as told until some seconds ago; null: nobody counts.
    pub hits: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    pub store: Store,
    /// None: there is none.
    pub directory: Option<String>,
    /// Host and database, where responses are kept in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Whether an instance uses it now.
    pub running: bool,
    /// Which one, in its own words.
    pub holder: Option<String>,
    pub objects: u64,
    pub variants: u64,
    pub lists: u64,
    /// Octets of all bodies.
    pub content: u64,
    /// Octets that everything takes on the disk, or in memory.
    pub size: u64,
    /// Octets that it may take; a directory at rest has no limit.
    pub limit: Option<u64>,
    /// Octets that are free on the file system.
    pub free: Option<u64>,
    pub generation: Option<u64>,
    pub catalogue: Option<Catalogue>,
    /// Since the instance was started; none at rest.
    pub counters: Option<Counters>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<u16>,
}

/// Where responses are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    #[default]
    Directory,
    /// In that of each worker, which counts what another one has as well.
    Memory,
    /// In a database, which other machines may use as well.
    Postgres,
}

/// What is to be believed of the figures above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Catalogue {
    Complete,
    /// The files are being read: this many percent of the directories.
    Reading(u8),
    /// An instance that was killed has left it: the next one looks at the files.
    Unfinished,
    #[default]
    Unusable,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub requests: u64,
    pub hits: u64,
    pub revalidated: u64,
    pub misses: u64,
    pub passes: u64,
    pub stored: u64,
    pub evicted: u64,
    /// Octets of content sent to clients.
    pub sent: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub items: u64,
    /// There may be more than was listed.
    pub incomplete: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    pub url: String,
    pub found: Vec<Entry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<u16>,
}

/// A head file, as `show` reads it from the disk, or a response in the memory of workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Who has it, of an instance that keeps responses in memory alone; empty: the disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<u16>,
    pub side: Side,
    pub kind: Kind,
    /// Paths below the cache directory: the head, and the body if it has a file of its own. In memory there are none.
    pub files: Vec<String>,
    /// Rows of a database that have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<String>,
    /// Octets that these take on the disk, or that it takes in memory.
    pub size: u64,
    /// Why it would not be used, whatever is asked; none: it would.
    pub trouble: Option<String>,
    pub response: Option<Response>,
    /// Of a list: the request fields by which variants have been selected.
    pub selects_by: Vec<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    pub status: u16,
    pub reason: String,
    pub fields: Vec<(String, String)>,
    /// The request fields that select it; none: the request must have no such field.
    pub selected_by: Vec<(String, Option<String>)>,
    /// Octets of the body.
    pub length: u64,
    pub stored: i64,
    pub age: u32,
    /// Seconds that it stays fresh; less than zero: that it has been stale.
    pub fresh: i64,
}

/// What a request would get now, on each side of the proxy where something is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    pub url: String,
    pub method: String,
    pub fields: Vec<(String, String)>,
    pub sides: Vec<Judged>,
    /// Workers that did not answer in time, here and elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Who would answer so, of an instance that keeps responses in memory alone; empty: all, from the disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<u16>,
    pub side: Side,
    /// Under which everything of this URL is kept.
    pub key: String,
    pub found: Vec<Considered>,
    /// `hit`, `revalidate`, `miss`, `pass` or `504`.
    pub outcome: String,
    pub why: String,
    pub then: Option<String>,
    /// As the client would see it.
    pub cache_status: String,
}

/// One response that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Considered {
    pub entry: Entry,
    /// Whether it is the one that the request selects.
    pub selected: bool,
    pub freshness: Option<Freshness>,
}

/// RFC 9111 section 4.2, in its names and in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freshness {
    pub freshness_lifetime: u32,
    pub lifetime_from: String,
    pub apparent_age: i64,
    pub response_delay: i64,
    pub corrected_initial_age: u32,
    pub resident_time: i64,
    pub current_age: u32,
    /// Less than zero: it has been stale for so long.
    pub remaining: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Head files read, and all their checksums compared.
    pub checked: u64,
    /// Octets read.
    pub octets: u64,
    /// Removed because they are not what was written.
    pub damaged: u64,
    /// Removed because they count no more: of another version of the format, or purged.
    pub dead: u64,
    /// Could not be read, and were left.
    pub unreadable: u64,
    /// What was damaged; the first ones.
    pub damage: Vec<Damage>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    pub name: String,
    /// None where the head itself does not say.
    pub url: Option<String>,
    pub why: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// None: everything.
    #[serde(flatten)]
    pub what: Option<Set>,
    /// They are still there, as stale.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub soft: bool,
    /// Responses that are gone, or stale now.
    pub objects: u64,
    /// Octets that they took on the disk, or in memory.
    pub octets: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// Responses in the archive.
    pub objects: u64,
    /// Octets of their bodies.
    pub octets: u64,
    /// Responses that are left out.
    pub damaged: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Responses that are there now.
    pub objects: u64,
    /// Octets of their bodies.
    pub octets: u64,
    /// Left out, as what was there is not older.
    pub newer: u64,
    /// Left out, as there was no more room.
    #[serde(rename = "no-room")]
    pub no_room: u64,
    /// Those that were found to be damaged when the archive was made.
    pub damaged: u64,
}

impl Side {
    /// The side and the URL that a key of the cache means.
    #[must_use]
    pub fn of_key(key: &[u8]) -> (Side, String) {
        let (side, url) = match key.strip_prefix(b"reverse ") {
            Some(url) => (Side::Reverse, url),
            None => (Side::Forward, key),
        };
        (side, String::from_utf8_lossy(url).into_owned())
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Side::Forward => "forward",
            Side::Reverse => "reverse",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_over_the_socket_looks_as_documented() {
        let text = |value: &Reply| serde_json::to_string(value).unwrap();
        let request: Request = serde_json::from_str(r#"{"do":"purge-all"}"#).unwrap();
        assert_eq!(request, Request::PurgeAll);
        let request: Request = serde_json::from_str(r#"{"do":"show","url":"http://a/"}"#).unwrap();
        assert_eq!(
            request,
            Request::Show {
                url: "http://a/".into()
            }
        );
        assert!(serde_json::from_str::<Request>(r#"{"do":"dance"}"#).is_err());
        let progress = Reply::Progress { done: 1, total: 2 };
        assert_eq!(text(&progress), r#"{"progress":{"done":1,"total":2}}"#);
        assert_eq!(text(&Reply::Error("no".into())), r#"{"error":"no"}"#);
        let done = Reply::Done(Done::Purged(Purged::default()));
        assert_eq!(
            text(&done),
            r#"{"done":{"purged":{"objects":0,"octets":0}}}"#
        );
        assert_eq!(serde_json::from_str::<Reply>(&text(&done)).unwrap(), done);
        let what = Set::Tags(vec!["a".into()]);
        let done = Reply::Done(Done::Purged(Purged {
            what: Some(what.clone()),
            soft: true,
            ..Purged::default()
        }));
        assert_eq!(
            text(&done),
            r#"{"done":{"purged":{"tags":["a"],"soft":true,"objects":0,"octets":0}}}"#
        );
        assert_eq!(serde_json::from_str::<Reply>(&text(&done)).unwrap(), done);
        let request: Request = serde_json::from_str(r#"{"do":"purge","tags":["a"]}"#).unwrap();
        assert_eq!(request, Request::Purge { what, soft: false });
        let request: Request = serde_json::from_str(r#"{"do":"ls"}"#).unwrap();
        assert_eq!(request, Request::Ls(Listing::default()));
        let request: Request = serde_json::from_str(r#"{"do":"ls","stale":true}"#).unwrap();
        assert!(matches!(request, Request::Ls(listing) if listing.stale));
    }

    #[test]
    fn a_key_tells_its_side() {
        let of = |key: &str| Side::of_key(key.as_bytes());
        assert_eq!(of("http://a/"), (Side::Forward, "http://a/".to_owned()));
        assert_eq!(
            of("reverse http://a/"),
            (Side::Reverse, "http://a/".to_owned())
        );
    }
}
