//! What purges of many responses at once mean for what is kept: whether a response that was there before them is gone, stale, or
//! not meant.
//!
//! A copy in memory knows the epoch that it is of, a file the generation of the directory in which its response was asked for; only
//! purges behind that count for it.

use std::cell::RefCell;
use std::sync::Arc;

use super::disk::format::{Content, Head};
use crate::cache::{Matcher, Set, Stored};
use crate::shared::{Posted, Region, Version};

/// One purge, ready to be asked.
#[derive(Debug)]
pub struct Purge {
    pub epoch: u64,
    pub generation: u64,
    /// What it names is stale since then; none: gone.
    pub soft: Option<i64>,
    /// None: a process that is broken has written nonsense, which names everything.
    matcher: Option<Matcher>,
}

/// What becomes of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Stays,
    /// By the purge of that generation.
    Gone(u64),
    /// Since that time, by the purge of that generation.
    Stale(i64, u64),
}

pub type Purges = Arc<[Arc<Purge>]>;

/// The purges that a process knows of, read again when there is another epoch.
pub struct Known {
    region: Region,
    read: RefCell<(Option<u64>, Purges)>,
}

impl Purge {
    #[must_use]
    pub fn new(posted: &Posted) -> Purge {
        let set = serde_json::from_slice::<Set>(&posted.text).ok();
        Purge {
            epoch: posted.epoch,
            generation: posted.generation,
            soft: posted.soft,
            matcher: set.and_then(|set| set.matcher().ok()),
        }
    }

    fn takes(&self, key: &[u8], stored: &Stored) -> bool {
        let matcher = self.matcher.as_ref();
        matcher.is_none_or(|matcher| matcher.takes(key, stored))
    }
}

impl Fate {
    /// What these purges, all of them later than the response, make of it.
    pub fn by<'a>(
        purges: impl IntoIterator<Item = &'a Arc<Purge>>,
        key: &[u8],
        stored: &Stored,
    ) -> Fate {
        let mut fate = Fate::Stays;
        for purge in purges {
            match (purge.takes(key, stored), purge.soft, fate) {
                (false, _, _) => {}
                (true, None, _) => return Fate::Gone(purge.generation),
                // The first one made it stale.
                (true, Some(since), Fate::Stays) if stored.purged.is_none() => {
                    fate = Fate::Stale(since, purge.generation);
                }
                (true, Some(_), _) => {}
            }
        }
        fate
    }

    /// The fate of what a head file tells of.
    #[must_use]
    pub fn of(head: &Head, purges: &Purges) -> Fate {
        let later = purges.iter().filter(|it| it.generation > head.generation);
        match &head.content {
            Content::Object(kept) => Fate::by(later, &head.key, &kept.stored),
            // What leads to variants goes when they have gone.
            Content::List(_) => Fate::Stays,
        }
    }
}

impl Known {
    #[must_use]
    pub fn new(region: Region) -> Known {
        Known {
            region,
            read: RefCell::new((None, Arc::new([]))),
        }
    }

    /// All that may still matter.
    #[must_use]
    pub fn all(&self) -> Purges {
        let epoch = self.region.versions().epoch();
        let mut read = self.read.borrow_mut();
        if read.0 != Some(epoch) {
            let posted = self.region.purges().all();
            let purges = posted.iter().map(|posted| Arc::new(Purge::new(posted)));
            *read = (Some(epoch), purges.collect());
        }
        read.1.clone()
    }

    /// Those between two versions of a copy. None: they are not remembered, or something else has changed as well.
    #[must_use]
    pub fn between(&self, earlier: Version, now: Version) -> Option<Vec<Arc<Purge>>> {
        let count = now.purges_since(earlier)?;
        let all = self.all();
        let between = all
            .iter()
            .filter(|purge| (earlier.epoch + 1..=now.epoch).contains(&purge.epoch));
        let between: Vec<_> = between.cloned().collect();
        (between.len() as u64 == count).then_some(between)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::stored;

    fn post(region: &Region, soft: Option<i64>, set: &Set) -> Posted {
        let purge = Posted {
            epoch: 0,
            generation: 0,
            soft,
            text: serde_json::to_vec(set).unwrap(),
        };
        let posted = region.purges().post(purge, 0, region.versions());
        posted.unwrap()
    }

    #[test]
    fn a_copy_knows_the_purges_behind_it() {
        let (region, _fd) = Region::create(1).unwrap();
        let known = Known::new(region.clone());
        let read = || region.versions().read(7);
        let before = read();
        assert!(known.between(before, before).unwrap().is_empty());
        post(&region, None, &Set::Prefix("http://a/".into()));
        let middle = read();
        post(&region, Some(5), &Set::Tags(vec!["x".into()]));
        let fate = |since, key: &str, tag| {
            let purges = known.between(since, read())?;
            let stored = stored(&[], &[("Cache-Tag", tag)]);
            Some(Fate::by(&purges, key.as_bytes(), &stored))
        };
        assert_eq!(fate(before, "http://a/", "x"), Some(Fate::Gone(0)));
        assert_eq!(fate(middle, "http://a/", "x"), Some(Fate::Stale(5, 0)));
        assert_eq!(fate(before, "http://b/", "y"), Some(Fate::Stays));
        assert_eq!(fate(before, "reverse http://a/", ""), Some(Fate::Gone(0)));
        region.versions().bump_epoch();
        assert_eq!(fate(before, "http://b/", "y"), None);
        let later = read();
        for n in 0..70 {
            post(&region, None, &Set::Url(format!("http://c/{n}")));
        }
        assert_eq!(fate(later, "http://b/", "y"), None, "too many to remember");
    }

    #[test]
    fn nonsense_names_everything() {
        let purge = Purge::new(&Posted {
            epoch: 1,
            generation: 1,
            soft: None,
            text: b"nonsense".to_vec(),
        });
        let fate = Fate::by(&[Arc::new(purge)], b"http://a/", &stored(&[], &[]));
        assert_eq!(fate, Fate::Gone(1));
    }
}
