//! What must go when space is short, and what is worth to come: the policy, pure.
//!
//! Of the least recently used, those that are least often asked for go first; while space is tight, a newcomer must
//! have been asked for more often than what went last. So one-time names, however many, take no place from what is
//! popular. Recency comes from the ledger, frequency from the sketch that all workers keep. The janitor calls it;
//! its simulation compares it with plain LRU (`docs/stores.md`).

use super::ledger::{Entry, Ledger};
use crate::cache::Name;

/// Of everything, so much is looked at: the least recently used.
const SHARE: usize = 20;

/// Candidates, if there are as many.
const FEWEST: usize = 64;

/// Frequencies are asked for the sketch's halving after so many touches an object, and at least so many in all.
const TOUCHES_AN_OBJECT: u64 = 10;
const LEAST_TOUCHES: u64 = 20_000;

const MIB: u64 = 1 << 20;

/// Marks on the way to the limit, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// There is never more.
    pub limit: u64,
    /// Beyond, something must go...
    pub high: u64,
    /// ... until there is so little.
    pub low: u64,
    /// Beyond, a newcomer must be worth it.
    pub tight: u64,
}

/// What goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    pub victims: Vec<Name>,
    /// How often the most popular of them is asked for.
    pub floor: u64,
}

impl Bounds {
    /// The space between the marks is what workers may fill before the janitor looks again.
    #[must_use]
    pub fn of(limit: u64) -> Bounds {
        let margin = (limit / 100 * 3).max(MIB).min(limit / 8);
        Bounds {
            limit,
            high: limit - margin,
            low: limit - 2 * margin,
            tight: limit - 3 * margin,
        }
    }
}

/// Chooses what to remove so that `octets` become free. `frequency` is asked for hashes of names, which count all
/// variants together.
#[must_use]
pub fn choose(ledger: &Ledger, octets: u64, frequency: impl Fn(u64) -> u64) -> Choice {
    let mut candidates = least_recently_used(ledger, octets);
    let frequency = |entry: &Entry| frequency(entry.name.of_base().hash());
    candidates.sort_by_cached_key(|entry| (frequency(entry), entry.used));
    let mut choice = Choice::default();
    let mut freed = 0;
    for entry in candidates {
        if freed >= octets {
            break;
        }
        freed += u64::from(entry.kib) * 1024;
        choice.floor = frequency(entry);
        choice.victims.push(entry.name);
    }
    choice
}

fn least_recently_used(ledger: &Ledger, octets: u64) -> Vec<&Entry> {
    let mut entries: Vec<&Entry> = ledger.iter().collect();
    // At least twice what must go, so that there is a choice.
    let needed = ledger.len() as u128 * 2 * u128::from(octets) / u128::from(ledger.octets().max(1));
    let count = usize::try_from(needed)
        .unwrap_or(usize::MAX)
        .max(ledger.len() / SHARE)
        .max(FEWEST);
    if count < entries.len() {
        entries.select_nth_unstable_by_key(count, |entry| entry.used);
        entries.truncate(count);
    }
    entries
}

/// Whether old fame has to fade.
#[must_use]
pub fn is_time_to_halve(touches: u64, objects: usize) -> bool {
    touches > (objects as u64 * TOUCHES_AN_OBJECT).max(LEAST_TOUCHES)
}

#[cfg(test)]
mod tests;
