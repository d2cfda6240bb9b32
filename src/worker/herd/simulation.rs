//! Many requests for a few keys go their `Course` at once, over several workers that die at any step: a seeded world
//! without sockets, in which one thing happens at a time and chance says which.
//!
//! The claims and the versions are the real tables, the herd of a worker is a small model of the real one, and bodies
//! are only begun and ended. What must hold: every request whose worker lives comes to an end; nobody asks while another
//! one's answer arrives or could be waited for, but for those that purges, failures, deaths and answers for one client
//! alone explain; nobody waits for what was asked for before a purge that it came after; and a world without trouble
//! asks once a key.

use std::collections::{HashMap, HashSet};

use super::Outcome;
use super::course::{Course, Heard, Step};
use crate::shared::{Claim, Claimed, Region, Version};

const WORKERS: usize = 4;
const KEYS: u64 = 3;
const REQUESTS: usize = 60;

/// How an origin server answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Shared,
    Private,
    Failure,
}

/// Where a request is.
#[derive(Debug, PartialEq)]
enum At {
    /// Has not come yet.
    Outside,
    Next(Step),
    /// Behind the request of that number, in its own worker.
    Behind(usize),
    /// Leads here, and reads what that worker has.
    Following(Claim),
    /// The origin server has been asked.
    Asking,
    /// All there is of it, or the client has gone with its worker.
    Done,
}

struct Request {
    worker: usize,
    key: u64,
    course: Course,
    at: At,
    claim: Option<Claim>,
    leads: bool,
    seen: u64,
    /// What was stored when it looked.
    version: Version,
}

struct World {
    random: fastrand::Rng,
    region: Region,
    requests: Vec<Request>,
    /// Who leads, by worker, key and version.
    leaders: HashMap<(usize, u64, Version), usize>,
    /// Of the leaders: the head is there.
    arriving: HashSet<usize>,
    stored: HashSet<u64>,
    tickets: u64,
    asked: HashMap<u64, usize>,
    /// Questions that nothing but trouble explains.
    excuses: usize,
    trouble: bool,
    history: Vec<String>,
}

impl World {
    fn new(seed: u64, trouble: bool) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let request = |random: &mut fastrand::Rng| Request {
            worker: random.usize(..WORKERS),
            key: random.u64(..KEYS),
            course: Course::default(),
            at: At::Outside,
            claim: None,
            leads: false,
            seen: 0,
            version: Version::default(),
        };
        World {
            requests: (0..REQUESTS).map(|_| request(&mut random)).collect(),
            random,
            region: Region::create(WORKERS).unwrap().0,
            leaders: HashMap::new(),
            arriving: HashSet::new(),
            stored: HashSet::new(),
            tickets: 0,
            asked: HashMap::new(),
            excuses: 0,
            trouble,
            history: Vec::new(),
        }
    }

    fn run(&mut self) {
        for _ in 0..100_000 {
            let ready: Vec<usize> = (0..REQUESTS).filter(|n| self.may_move(*n)).collect();
            let Some(index) = (!ready.is_empty()).then(|| self.random.usize(..ready.len())) else {
                break;
            };
            if self.trouble {
                match self.random.u8(..) {
                    0..4 => {
                        let worker = self.random.usize(..WORKERS);
                        self.dies(worker);
                        continue;
                    }
                    4..8 => {
                        let key = self.random.u64(..KEYS);
                        self.is_purged(key);
                        continue;
                    }
                    _ => {}
                }
            }
            self.moves(ready[index]);
        }
        let stuck: Vec<_> = self
            .requests
            .iter()
            .filter(|request| request.at != At::Done)
            .map(|request| (request.worker, request.key, &request.at))
            .collect();
        assert!(stuck.is_empty(), "{stuck:?}\n{}", self.history.join("\n"));
    }

    /// Whether something can happen to it.
    fn may_move(&self, n: usize) -> bool {
        match self.requests[n].at {
            At::Done => false,
            At::Outside | At::Next(_) | At::Asking => true,
            At::Behind(leader) => self.arriving.contains(&leader),
            At::Following(claim) => self.arrives(n, claim) != Some(false),
        }
    }

    /// Whether what the worker of that claim asks for arrives. None: it does not know of it, or is dead, which is heard at
    /// once.
    fn arrives(&self, n: usize, claim: Claim) -> Option<bool> {
        let worker = usize::from(claim.worker());
        let request = &self.requests[n];
        let leader = self.leaders.get(&(worker, request.key, request.version))?;
        let is_its = self.requests[*leader].claim == Some(claim);
        is_its.then(|| self.arriving.contains(leader))
    }

    fn moves(&mut self, n: usize) {
        let heard = match std::mem::replace(&mut self.requests[n].at, At::Done) {
            At::Outside => {
                self.requests[n].at = At::Next(Step::Look);
                return;
            }
            At::Next(step) => match self.steps(n, step) {
                Some(heard) => heard,
                None => return,
            },
            At::Behind(_) => Heard::Arrives,
            At::Following(claim) => match self.arrives(n, claim) {
                None => Heard::Unknown(claim),
                Some(_) => {
                    // Those behind it read along, and its own stream has an end of its own.
                    self.settle(n, None);
                    Heard::Arrives
                }
            },
            At::Asking => return self.answered(n),
            At::Done => unreachable!("it is over"),
        };
        let step = self.requests[n].course.next(heard);
        self.history.push(format!("{n}: {heard:?} → {step:?}"));
        self.requests[n].at = At::Next(step);
    }

    /// None: there is nothing to hear yet, or ever.
    fn steps(&mut self, n: usize, step: Step) -> Option<Heard> {
        let (worker, key) = (self.requests[n].worker, self.requests[n].key);
        let place = (worker, key, self.requests[n].version);
        let now = self.region.versions().read(key);
        let request = &mut self.requests[n];
        Some(match step {
            Step::Enter => match self.leaders.get(&place) {
                Some(leader) => {
                    request.at = At::Next(Step::Wait);
                    let leader = *leader;
                    request.course.next(Heard::Behind);
                    request.at = At::Behind(leader);
                    return None;
                }
                None => {
                    self.leaders.insert(place, n);
                    request.leads = true;
                    Heard::First
                }
            },
            Step::Wait => unreachable!("it entered behind another one"),
            Step::Claim => {
                let claim = self.new_claim(n);
                match self.region.inflight().claim(claim) {
                    Claimed::Ours => {
                        self.requests[n].claim = Some(claim);
                        self.claimed(n)
                    }
                    Claimed::Crowded => self.claimed(n),
                    Claimed::Theirs(theirs) => Heard::Theirs(theirs),
                }
            }
            Step::Follow(claim) => {
                request.at = At::Following(claim);
                return None;
            }
            Step::TakeOver(from) => {
                let claim = self.new_claim(n);
                match self.region.inflight().take_over(from, claim) {
                    true => {
                        self.requests[n].claim = Some(claim);
                        Heard::TookOver
                    }
                    false => Heard::TooLate,
                }
            }
            Step::Look => {
                request.seen = self.region.inflight().stored(key);
                if self.stored.contains(&key) {
                    self.settle(n, Some(Outcome::Stored));
                    return None;
                }
                if request.leads && request.version != now {
                    self.settle(n, Some(Outcome::Failed));
                    self.requests[n].version = now;
                    return Some(Heard::Moved);
                }
                request.version = now;
                Heard::Absent
            }
            Step::Ask | Step::AskAlone => {
                if step == Step::AskAlone {
                    self.settle(n, Some(Outcome::Failed));
                    self.excuses += 1;
                }
                *self.asked.entry(key).or_default() += 1;
                self.requests[n].at = At::Asking;
                return None;
            }
            Step::Read | Step::Refuse(_) => return None,
        })
    }

    fn claimed(&self, n: usize) -> Heard {
        let request = &self.requests[n];
        Heard::Claimed {
            is_late: self.region.inflight().stored(request.key) != request.seen,
        }
    }

    fn new_claim(&mut self, n: usize) -> Claim {
        self.tickets += 1;
        let request = &self.requests[n];
        let worker = u16::try_from(request.worker).unwrap();
        Claim::new(request.key, request.version, worker, self.tickets)
    }

    /// The origin server says something to the one who has asked.
    fn answered(&mut self, n: usize) {
        let answer = match self.trouble {
            true => self
                .random
                .choice([Answer::Shared, Answer::Private, Answer::Failure]),
            false => Some(Answer::Shared),
        };
        let leads = self.requests[n].leads;
        match answer.unwrap() {
            // First the head; then, when those who wait have seen it or not, the end.
            Answer::Shared if leads && !self.arriving.contains(&n) => {
                self.arriving.insert(n);
                self.requests[n].at = At::Asking;
            }
            Answer::Shared => {
                let (key, version) = (self.requests[n].key, self.requests[n].version);
                // What has been purged meanwhile is for those who asked before.
                let is_current = version == self.region.versions().read(key);
                if leads && is_current {
                    self.stored.insert(key);
                    self.region.inflight().has_stored(key);
                }
                self.settle(
                    n,
                    Some(match is_current {
                        true => Outcome::Stored,
                        false => Outcome::NotKept,
                    }),
                );
            }
            Answer::Private => {
                self.excuses += 1;
                self.settle(n, Some(Outcome::Unshared));
            }
            Answer::Failure => {
                self.excuses += 1;
                self.settle(n, Some(Outcome::Failed));
            }
        }
    }

    /// The place of a leader is left. Those behind it hear `outcome`; none: they read along.
    fn settle(&mut self, n: usize, outcome: Option<Outcome>) {
        self.arriving.remove(&n);
        let request = &self.requests[n];
        let place = (request.worker, request.key, request.version);
        if self.leaders.get(&place) == Some(&n) {
            self.leaders.remove(&place);
        }
        let claim = self.requests[n].claim.take();
        self.requests[n].leads = false;
        let heard = outcome.map_or(Heard::Arrives, Heard::Told);
        for other in 0..REQUESTS {
            let waits = match self.requests[other].at {
                At::Behind(leader) => leader == n,
                At::Following(followed) => Some(followed) == claim,
                _ => false,
            };
            if !waits {
                continue;
            }
            if matches!(self.requests[other].at, At::Following(_)) {
                self.settle(other, outcome);
            }
            let step = self.requests[other].course.next(heard);
            self.history
                .push(format!("{other}: {heard:?} of {n} → {step:?}"));
            self.requests[other].at = At::Next(step);
        }
        claim
            .iter()
            .for_each(|claim| self.region.inflight().release(*claim));
    }

    /// All its clients are gone; its claims stay up, as a dead worker's do.
    fn dies(&mut self, worker: usize) {
        self.history.push(format!("worker {worker} dies"));
        self.excuses += KEYS as usize;
        for n in 0..REQUESTS {
            let request = &mut self.requests[n];
            if request.worker == worker && request.at != At::Outside {
                request.at = At::Done;
                request.claim = None;
                self.arriving.remove(&n);
            }
        }
        self.leaders.retain(|(of, ..), _| *of != worker);
        self.region.versions().bump_epoch();
    }

    /// Whoever comes from now on wants another answer than those before.
    fn is_purged(&mut self, key: u64) {
        self.history.push(format!("key {key} is purged"));
        self.excuses += 1;
        self.stored.remove(&key);
        self.region.versions().bump(key);
    }
}

#[test]
fn a_world_without_trouble_asks_once_a_key() {
    for seed in 0..2_000 {
        let mut world = World::new(seed, false);
        world.run();
        let asked: usize = world.asked.values().sum();
        let history = world.history.join("\n");
        assert!(asked <= KEYS as usize, "seed {seed}: {asked}\n{history}");
    }
}

#[test]
fn a_world_of_failures_and_deaths_answers_everybody_and_asks_no_more_than_they_explain() {
    for seed in 0..5_000 {
        let mut world = World::new(seed, true);
        world.run();
        let asked: usize = world.asked.values().sum();
        let most = KEYS as usize + world.excuses;
        let history = world.history.join("\n");
        assert!(asked <= most, "seed {seed}: {asked} > {most}\n{history}");
    }
}
