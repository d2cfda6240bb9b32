//! Where connections are kept: a table with generations, and the idle ones in a list through it.
//!
//! A parked connection costs its slot here and its descriptor next door, nothing else: no timer and no box. The
//! list is in the order of parking, so the one that times out first is always in front.

use super::conn::Conn;
use super::event::Token;

/// No slot.
const NONE: u32 = u32::MAX;

/// Keeps the highest bit of a token's number clear.
const GENERATIONS: u32 = 0x7fff_ffff;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Free,
    /// Admitted, and nobody has said yet whether there is something to read.
    Arriving,
    Parked,
    Queued,
    /// A copy is on its way to this worker.
    Offered {
        worker: u16,
    },
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) conn: Conn,
    /// When it was parked, or when it was first queued.
    pub(super) since_ms: u64,
    generation: u32,
    pub(super) state: State,
    /// Neighbours in the idle list; of a free slot, `next` is the next free one.
    previous: u32,
    next: u32,
}

// With its descriptor's entry an idle connection stays below 100 octets.
const _: () = assert!(size_of::<Slot>() <= 88);

#[derive(Debug)]
pub(super) struct Slab {
    slots: Vec<Slot>,
    used: usize,
    free: u32,
    /// The connection that has been parked longest, and the last one.
    oldest: u32,
    newest: u32,
    parked: usize,
}

impl Slab {
    pub(super) fn new() -> Slab {
        Slab {
            slots: Vec::new(),
            used: 0,
            free: NONE,
            oldest: NONE,
            newest: NONE,
            parked: 0,
        }
    }

    /// Connections in the table, whatever their state.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    pub(super) fn parked(&self) -> usize {
        self.parked
    }

    pub(super) fn insert(&mut self, conn: Conn) -> Token {
        self.used += 1;
        if let Some(slot) = self.slots.get_mut(self.free as usize) {
            let token = Token {
                index: self.free,
                generation: slot.generation,
            };
            self.free = slot.next;
            slot.conn = conn;
            slot.state = State::Arriving;
            slot.next = NONE;
            return token;
        }
        let index =
            u32::try_from(self.slots.len()).expect("descriptors are ints, so there are fewer");
        let state = State::Arriving;
        self.slots.push(Slot {
            conn,
            since_ms: 0,
            generation: 0,
            state,
            previous: NONE,
            next: NONE,
        });
        Token {
            index,
            generation: 0,
        }
    }

    pub(super) fn get(&self, token: Token) -> Option<&Slot> {
        self.slots
            .get(token.index())
            .filter(|slot| slot.generation == token.generation)
    }

    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut Slot> {
        self.slots
            .get_mut(token.index())
            .filter(|slot| slot.generation == token.generation)
    }

    /// Forgets a connection; it must not be parked.
    pub(super) fn remove(&mut self, token: Token) {
        let free = self.free;
        if let Some(slot) = self.get_mut(token) {
            slot.state = State::Free;
            slot.generation = (slot.generation + 1) & GENERATIONS;
            slot.next = free;
            slot.previous = NONE;
            self.free = token.index;
            self.used -= 1;
        }
    }

    /// Puts a connection at the end of the idle list.
    pub(super) fn park(&mut self, token: Token, now: u64) {
        let newest = self.newest;
        let Some(slot) = self.get_mut(token) else {
            return;
        };
        slot.state = State::Parked;
        slot.since_ms = now;
        slot.previous = newest;
        slot.next = NONE;
        match self.slots.get_mut(newest as usize) {
            Some(last) => last.next = token.index,
            None => self.oldest = token.index,
        }
        self.newest = token.index;
        self.parked += 1;
    }

    /// Takes a connection out of the idle list; `false`: it was not in it.
    pub(super) fn unpark(&mut self, token: Token) -> bool {
        let Some(slot) = self
            .get_mut(token)
            .filter(|slot| slot.state == State::Parked)
        else {
            return false;
        };
        slot.state = State::Arriving;
        let (previous, next) = (slot.previous, slot.next);
        (slot.previous, slot.next) = (NONE, NONE);
        match self.slots.get_mut(previous as usize) {
            Some(slot) => slot.next = next,
            None => self.oldest = next,
        }
        match self.slots.get_mut(next as usize) {
            Some(slot) => slot.previous = previous,
            None => self.newest = previous,
        }
        self.parked -= 1;
        true
    }

    /// The connection that has been parked longest, and since when.
    pub(super) fn oldest_parked(&self) -> Option<(Token, u64)> {
        let slot = self.slots.get(self.oldest as usize)?;
        Some((
            Token {
                index: self.oldest,
                generation: slot.generation,
            },
            slot.since_ms,
        ))
    }

    /// Every connection in the table.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, &Slot)> {
        let with_token = |(index, slot): (usize, &'_ Slot)| {
            (
                Token {
                    index: index as u32,
                    generation: slot.generation,
                },
                slot.state != State::Free,
            )
        };
        self.slots
            .iter()
            .enumerate()
            .filter_map(move |(index, slot)| {
                let (token, used) = with_token((index, slot));
                used.then_some((token, slot))
            })
    }

    /// The list is whole in both directions, in order of time, and holds exactly the parked ones.
    pub(super) fn check_invariants(&self) {
        let (mut count, mut previous, mut at, mut since) = (0, NONE, self.oldest, 0);
        while let Some(slot) = self.slots.get(at as usize) {
            assert_eq!(
                slot.state,
                State::Parked,
                "only parked connections are in the idle list"
            );
            assert_eq!(slot.previous, previous, "the idle list is whole backwards");
            assert!(slot.since_ms >= since, "the idle list is in order of time");
            (previous, at, since) = (at, slot.next, slot.since_ms);
            count += 1;
            assert!(count <= self.parked, "the idle list ends");
        }
        assert_eq!(self.newest, previous);
        assert_eq!(count, self.parked);
        assert_eq!(
            self.iter()
                .filter(|(_, slot)| slot.state == State::Parked)
                .count(),
            self.parked
        );
        assert_eq!(self.iter().count(), self.used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn conn() -> Conn {
        Conn::accepted("192.0.2.1:1".parse().unwrap(), 0, 0)
    }

    #[test]
    fn an_old_token_names_nothing() {
        let mut slab = Slab::new();
        let old = slab.insert(conn());
        slab.remove(old);
        let new = slab.insert(conn());
        assert_eq!(old.index(), new.index());
        assert!(slab.get(old).is_none() && slab.get(new).is_some());
        slab.remove(old);
        assert_eq!(slab.len(), 1);
        assert_eq!(Token::from(u64::from(new)), new);
        assert!(!slab.unpark(new));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn the_idle_list_is_a_queue_with_removal(steps in proptest::collection::vec((0u8..4, any::<usize>()), 0..200)) {
            let mut slab = Slab::new();
            let mut model: VecDeque<Token> = VecDeque::new();
            for (now, (step, pick)) in steps.into_iter().enumerate() {
                match (step, model.len()) {
                    (0 | 1, _) | (_, 0) => {
                        let token = slab.insert(conn());
                        slab.park(token, now as u64);
                        model.push_back(token);
                    }
                    (2, _) => {
                        let (token, _) = slab.oldest_parked().unwrap();
                        prop_assert_eq!(Some(token), model.pop_front());
                        slab.unpark(token);
                        slab.remove(token);
                    }
                    (_, length) => {
                        let token = model.remove(pick % length).unwrap();
                        prop_assert!(slab.unpark(token));
                        slab.remove(token);
                    }
                }
                slab.check_invariants();
                prop_assert_eq!(slab.parked(), model.len());
                prop_assert_eq!(slab.len(), model.len());
            }
        }
    }
}
