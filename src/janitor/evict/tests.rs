//! The policy by examples, and by a simulated trace beside plain LRU: the table in `docs/stores.md` is this test's.

use std::collections::{BTreeMap, HashMap};

use super::super::ledger::Moment;
use super::*;
use crate::shared::{Kind, Region, Sketch};

fn entry(n: u32, kib: u32, used: u32) -> Entry {
    Entry::new(
        Name::of(&n.to_le_bytes()),
        Kind::Object,
        kib,
        Moment(used),
        0,
    )
}

#[test]
fn bounds_are_in_order_at_every_size() {
    for limit in [0, 1, 7, 4096, MIB, 3 * MIB, 20 * MIB, 1 << 40, u64::MAX] {
        let Bounds {
            high, low, tight, ..
        } = Bounds::of(limit);
        assert!(tight <= low && low <= high && high <= limit, "{limit}");
        assert!(limit < 8 || high < limit);
    }
    let bounds = Bounds::of(1 << 40);
    assert!(bounds.limit - bounds.low <= (1 << 40) / 16);
}

#[test]
fn the_old_go_and_of_them_the_rare() {
    let mut ledger = Ledger::new();
    for n in 0..10_000 {
        ledger.put(entry(n, 5, n));
    }
    let popular = Name::of(&3_u32.to_le_bytes()).hash();
    let choice = choose(
        &ledger,
        100 * 5 * 1024,
        |hash| {
            if hash == popular { 9 } else { 1 }
        },
    );
    assert_eq!(choice.victims.len(), 100);
    assert_eq!(choice.floor, 1);
    let oldest = (0..101).filter(|n| *n != 3);
    let expected: Vec<Name> = oldest.map(|n: u32| Name::of(&n.to_le_bytes())).collect();
    assert_eq!(choice.victims, expected);
}

#[test]
fn everything_goes_if_it_must_and_nothing_if_not() {
    let mut ledger = Ledger::new();
    assert_eq!(choose(&ledger, 1 << 30, |_| 0), Choice::default());
    for n in 0..100 {
        ledger.put(entry(n, 5, 7));
    }
    assert_eq!(choose(&ledger, 1 << 30, |_| 2).victims.len(), 100);
    assert_eq!(choose(&ledger, 0, |_| 2), Choice::default());
    assert_eq!(choose(&ledger, 1, |_| 2).victims.len(), 1);
}

// === the simulation

/// Names that are asked for again and again.
const NAMES: usize = 100_000;
const REQUESTS: usize = 1_000_000;
/// The cache holds a twentieth of them.
const CACHE: u64 = 5;
const A_SECOND: usize = 1000;
/// The janitor looks each 20 ms.
const A_LOOK: usize = A_SECOND / 50;

#[derive(Clone, Copy)]
struct Trace {
    name: &'static str,
    /// After so many requests...
    every: usize,
    /// ... so many names in a row that nobody ever asks for again.
    scan: usize,
    /// After so many requests other names are popular.
    shift: usize,
    /// What baton's hit ratio must exceed plain LRU's by, in percent of requests to popular names.
    gain: f64,
}

const TRACES: [Trace; 5] = [
    Trace {
        name: "no scans",
        every: 0,
        scan: 0,
        shift: 0,
        gain: 5.0,
    },
    Trace {
        name: "a tenth one-time names, 2,000 in a row",
        every: 18_000,
        scan: 2_000,
        shift: 0,
        gain: 6.0,
    },
    Trace {
        name: "a third one-time names, 10,000 in a row",
        every: 20_000,
        scan: 10_000,
        shift: 0,
        gain: 10.0,
    },
    Trace {
        name: "half one-time names, one by one",
        every: 1,
        scan: 1,
        shift: 0,
        gain: 10.0,
    },
    Trace {
        name: "other names popular after each 250,000",
        every: 0,
        scan: 0,
        shift: 250_000,
        gain: 2.0,
    },
];

/// Who is asked for; `None` while a scan goes on.
struct Requests {
    trace: Trace,
    random: fastrand::Rng,
    /// The share of requests that the first n names have.
    shares: Vec<f64>,
    asked: usize,
    scanned: usize,
    rest: usize,
}

impl Requests {
    fn new(trace: Trace) -> Requests {
        let mut sum = 0.0;
        let weights = (1..=NAMES).map(|rank| (rank as f64).powf(-0.9));
        let mut shares: Vec<f64> = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        shares.iter_mut().for_each(|share| *share /= sum);
        Requests {
            trace,
            random: fastrand::Rng::with_seed(1),
            shares,
            asked: 0,
            scanned: 0,
            rest: 0,
        }
    }

    /// A name's number, and whether it is one of those that come again.
    fn next(&mut self) -> (u32, bool) {
        if self.rest > 0 {
            self.rest -= 1;
            self.scanned += 1;
            return ((1 << 31) + self.scanned as u32, false);
        }
        self.asked += 1;
        if self.trace.every > 0 && self.asked.is_multiple_of(self.trace.every) {
            self.rest = self.trace.scan;
        }
        let at = self.random.f64();
        let rank = self.shares.partition_point(|share| *share < at);
        let era = self.asked.checked_div(self.trace.shift).unwrap_or(0);
        ((rank + era * NAMES) as u32, true)
    }
}

fn kib(n: u32) -> u32 {
    // Mostly small, some large: 5 to 320 KiB, and always the same for a name.
    let spread = Name::of(&n.to_le_bytes()).hash();
    5 << (spread % 7).min(spread / 7 % 7)
}

fn limit() -> u64 {
    let all: u64 = (0..NAMES as u32).map(|n| u64::from(kib(n)) * 1024).sum();
    all / 100 * CACHE
}

/// The policy as workers and the janitor carry it out.
struct Baton<'a> {
    bounds: Bounds,
    ledger: Ledger,
    sketch: &'a Sketch,
    floor: u64,
}

impl Baton<'_> {
    fn ask(&mut self, n: u32, now: Moment) -> bool {
        let entry = entry(n, kib(n), now.0);
        let asked = self.sketch.touch(entry.name.hash());
        if self.ledger.touch(&entry.name, now).is_some() {
            return true;
        }
        let used = self.ledger.octets();
        let is_worth_it = used <= self.bounds.tight || asked > self.floor;
        if is_worth_it && used + u64::from(entry.kib) * 1024 <= self.bounds.limit {
            self.ledger.put(entry);
        }
        false
    }

    fn look(&mut self) {
        let used = self.ledger.octets();
        if used > self.bounds.high {
            let estimate = |hash| self.sketch.estimate(hash);
            let choice = choose(&self.ledger, used - self.bounds.low, estimate);
            self.floor = choice.floor;
            for name in &choice.victims {
                self.ledger.remove(name);
            }
        }
        if is_time_to_halve(self.sketch.touches(), self.ledger.len()) {
            self.sketch.halve();
            self.floor /= 2;
        }
    }
}

/// Plain LRU, exact, with the whole of the limit.
#[derive(Default)]
struct Lru {
    by_age: BTreeMap<usize, u32>,
    ages: HashMap<u32, usize>,
    octets: u64,
    time: usize,
}

impl Lru {
    fn ask(&mut self, n: u32, limit: u64) -> bool {
        self.time += 1;
        let before = self.ages.insert(n, self.time);
        if let Some(age) = before {
            self.by_age.remove(&age);
        } else {
            self.octets += u64::from(kib(n)) * 1024;
        }
        self.by_age.insert(self.time, n);
        while self.octets > limit {
            let Some((_, oldest)) = self.by_age.pop_first() else {
                break;
            };
            self.ages.remove(&oldest);
            self.octets -= u64::from(kib(oldest)) * 1024;
        }
        before.is_some()
    }
}

/// Hit ratios, in percent of the requests for names that come again: LRU's and ours.
fn simulate(trace: Trace) -> (f64, f64) {
    let (region, _fd) = Region::create(1).unwrap();
    let limit = limit();
    let mut lru = Lru::default();
    let mut baton = Baton {
        bounds: Bounds::of(limit),
        ledger: Ledger::new(),
        sketch: region.sketch(),
        floor: 0,
    };
    let mut requests = Requests::new(trace);
    let (mut hits, mut lru_hits, mut counted) = (0, 0, 0);
    for time in 0.. {
        if requests.asked == REQUESTS {
            break;
        }
        let (n, comes_again) = requests.next();
        let hit = baton.ask(n, Moment((time / A_SECOND) as u32));
        let lru_hit = lru.ask(n, limit);
        // The first quarter fills the cache.
        if comes_again && requests.asked > REQUESTS / 4 {
            counted += 1;
            hits += usize::from(hit);
            lru_hits += usize::from(lru_hit);
        }
        if time % A_LOOK == 0 {
            baton.look();
        }
        assert!(baton.ledger.octets() <= limit);
    }
    let percent = |hits: usize| hits as f64 * 100.0 / counted as f64;
    (percent(lru_hits), percent(hits))
}

#[test]
fn popular_names_stay_whatever_is_scanned() {
    let mut missed = Vec::new();
    println!("| requests | LRU | baton |\n|---|---|---|");
    for trace in TRACES {
        let (lru, baton) = simulate(trace);
        println!("| {} | {lru:.1} % | {baton:.1} % |", trace.name);
        if baton < lru + trace.gain {
            missed.push(trace.name);
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}
