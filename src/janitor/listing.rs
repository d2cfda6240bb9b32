//! What `ls` is to list, and in which order. Pure: the same for every store.

use serde::{Deserialize, Serialize};

use super::protocol::{Item, Kind};

/// All of it must hold. Tags are for the store to look at, which has the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listing {
    /// URLs that begin so, in normal form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Responses with any of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What is not fresh any more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
    /// What takes more octets than that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub larger: Option<u64>,
    /// None: as the store has it, without waiting for the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sort: Option<Sort>,
    /// So many at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// What comes first is what one usually looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    Url,
    /// The largest first.
    Size,
    /// The newest first.
    Stored,
    /// What becomes stale, or became so, first.
    Expires,
    /// What was not used for longest first.
    Used,
    /// What was found most often first.
    Hits,
}

/// Takes items as a store finds them and gives those that are to be listed.
#[derive(Debug)]
pub struct Lister<'a> {
    listing: &'a Listing,
    now: i64,
    given: u64,
    held: Vec<Item>,
}

impl Listing {
    /// Whether it is to be listed, but for its tags.
    #[must_use]
    pub fn takes(&self, item: &Item, now: i64) -> bool {
        let prefix = self.prefix.as_deref().unwrap_or_default();
        item.url.starts_with(prefix)
            && (!self.stale || item.expires <= now)
            && self.larger.is_none_or(|octets| item.size > octets)
            && (item.kind != Kind::List || self.takes_lists())
    }

    /// What leads to variants is of interest only to who wants to see everything.
    fn takes_lists(&self) -> bool {
        let everything = Listing {
            prefix: self.prefix.clone(),
            ..Listing::default()
        };
        *self == everything
    }
}

impl<'a> Lister<'a> {
    #[must_use]
    pub fn new(listing: &'a Listing, now: i64) -> Lister<'a> {
        Lister {
            listing,
            now,
            given: 0,
            held: Vec::new(),
        }
    }

    /// Whether there is no more to be given, whatever comes.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.listing.sort.is_none() && self.listing.limit.is_some_and(|limit| self.given >= limit)
    }

    /// Gives it on at once where the order does not matter.
    #[must_use]
    pub fn put(&mut self, item: Item) -> Option<Item> {
        if self.is_full() || !self.listing.takes(&item, self.now) {
            return None;
        }
        if self.listing.sort.is_some() {
            self.held.push(item);
            return None;
        }
        self.given += 1;
        Some(item)
    }

    /// What is left, in its order.
    #[must_use]
    pub fn finish(self) -> Vec<Item> {
        let mut items = self.held;
        let Some(sort) = self.listing.sort else {
            return items;
        };
        items.sort_by(|one, other| {
            let order = match sort {
                Sort::Url => std::cmp::Ordering::Equal,
                Sort::Size => other.size.cmp(&one.size),
                Sort::Stored => other.stored.cmp(&one.stored),
                Sort::Expires => one.expires.cmp(&other.expires),
                Sort::Used => one.used.cmp(&other.used),
                Sort::Hits => other.hits.cmp(&one.hits),
            };
            let names = |item: &Item| (item.url.clone(), item.side, item.name.clone());
            order.then_with(|| names(one).cmp(&names(other)))
        });
        let limit = self.listing.limit.unwrap_or(u64::MAX);
        items.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::janitor::protocol::Side;

    fn item(url: &str, size: u64, expires: i64) -> Item {
        Item {
            workers: Vec::new(),
            url: url.to_owned(),
            side: Side::Forward,
            kind: Kind::Object,
            name: String::new(),
            status: 200,
            length: size,
            size,
            stored: 1000 - expires,
            expires,
            used: Some(expires / 2),
            hits: Some(size),
        }
    }

    fn listed(listing: &str) -> Vec<String> {
        let listing: Listing = serde_json::from_str(listing).unwrap();
        let mut lister = Lister::new(&listing, 100);
        let all = [
            item("http://a/1", 10, 90),
            item("http://b/2", 30, 300),
            item("http://a/3", 20, 200),
        ];
        let mut given: Vec<Item> = Vec::new();
        for item in all {
            given.extend(lister.put(item));
        }
        given.extend(lister.finish());
        given.iter().map(|item| item.url[7..].to_owned()).collect()
    }

    #[test]
    fn what_is_listed_and_in_which_order() {
        for (listing, expected) in [
            ("{}", &["a/1", "b/2", "a/3"][..]),
            (r#"{"prefix":"http://a/"}"#, &["a/1", "a/3"]),
            (r#"{"stale":true}"#, &["a/1"]),
            (r#"{"larger":19}"#, &["b/2", "a/3"]),
            (r#"{"larger":20}"#, &["b/2"]),
            (r#"{"limit":1}"#, &["a/1"]),
            (r#"{"limit":1,"prefix":"http://b"}"#, &["b/2"]),
            (r#"{"sort":"url"}"#, &["a/1", "a/3", "b/2"]),
            (r#"{"sort":"size","limit":2}"#, &["b/2", "a/3"]),
            (r#"{"sort":"stored"}"#, &["a/1", "a/3", "b/2"]),
            (r#"{"sort":"expires"}"#, &["a/1", "a/3", "b/2"]),
            (r#"{"sort":"used","limit":0}"#, &[]),
        ] {
            assert_eq!(listed(listing), expected, "{listing}");
        }
        assert!(serde_json::from_str::<Listing>(r#"{"colour":"red"}"#).is_err());
    }
}
