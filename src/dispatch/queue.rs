//! Who is served next: priority, softened by age.
//!
//! Each step of priority is worth a fixed time of waiting, so a place is a number that is known when a connection
//! is queued and never changes: however many important requests come later, those that come more than their head
//! start later are served later. One that was offered in vain comes back to its old place.

use std::collections::BTreeSet;

use super::event::Token;

/// A place in the queue; smaller is served sooner. Ties go by the order of acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// When it was queued, less what its priority is worth.
    due: i64,
    id: u64,
    pub(super) token: Token,
}

#[derive(Debug)]
pub(super) struct Queue {
    places: BTreeSet<Place>,
    capacity: usize,
    ageing_ms: i64,
}

impl Queue {
    pub(super) fn new(capacity: usize, ageing_ms: u64) -> Queue {
        // 32 bits of milliseconds are 49 days; more would only risk an overflow.
        let ageing_ms = i64::from(u32::try_from(ageing_ms).unwrap_or(u32::MAX));
        Queue {
            places: BTreeSet::new(),
            capacity,
            ageing_ms,
        }
    }

    /// The place of a connection that has been waiting since `since_ms`.
    pub(super) fn place(&self, token: Token, id: u64, since_ms: u64, priority: u8) -> Place {
        let since = i64::try_from(since_ms).unwrap_or(i64::MAX);
        Place {
            due: since.saturating_sub(i64::from(priority) * self.ageing_ms),
            id,
            token,
        }
    }

    /// Queues a newcomer. The worst-placed connection comes back when there are too many.
    pub(super) fn push(&mut self, place: Place) -> Option<Token> {
        self.places.insert(place);
        if self.places.len() <= self.capacity {
            return None;
        }
        self.places.pop_last().map(|place| place.token)
    }

    /// Queues one that was offered in vain; what has been queued once is not refused for it.
    pub(super) fn push_again(&mut self, place: Place) {
        self.places.insert(place);
    }

    pub(super) fn pop(&mut self) -> Option<Token> {
        self.places.pop_first().map(|place| place.token)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn contains(&self, place: &Place) -> bool {
        self.places.contains(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(index: u32) -> Token {
        Token {
            index,
            generation: 0,
        }
    }

    #[test]
    fn priority_goes_first_and_age_catches_up() {
        let mut queue = Queue::new(10, 100);
        for (index, since, priority) in [(0, 1000, 0), (1, 1050, 1), (2, 1101, 1), (3, 1000, 0)] {
            assert_eq!(
                queue.push(queue.place(token(index), u64::from(index), since, priority)),
                None
            );
        }
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop())
            .map(|token| token.index)
            .collect();
        // 1 has 50 ms less than its head start of 100 ms; 2 comes 101 ms after 0 and 3, just too late.
        assert_eq!(order, [1, 0, 3, 2]);
    }

    #[test]
    fn the_worst_placed_gives_way() {
        let mut queue = Queue::new(2, 100);
        assert_eq!(queue.push(queue.place(token(0), 0, 1000, 0)), None);
        assert_eq!(queue.push(queue.place(token(1), 1, 1000, 0)), None);
        assert_eq!(
            queue.push(queue.place(token(2), 2, 1001, 1)),
            Some(token(1))
        );
        assert_eq!(
            queue.push(queue.place(token(3), 3, 1002, 0)),
            Some(token(3))
        );
        queue.push_again(queue.place(token(4), 4, 900, 0));
        assert_eq!(queue.len(), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        /// However the others arrive, nobody who came later than the greatest head start is served sooner.
        #[test]
        fn waiting_is_bounded(arrivals in proptest::collection::vec((0u64..5000, 0u8..4), 1..60), ageing in 0u64..1000) {
            let mut queue = Queue::new(100, ageing);
            for (index, (since, priority)) in (0..).zip(&arrivals) {
                queue.push(queue.place(token(index), u64::from(index), *since, *priority));
            }
            let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|token| arrivals[token.index()]).collect();
            prop_assert_eq!(order.len(), arrivals.len());
            for (position, (since, priority)) in order.iter().enumerate() {
                for (earlier, other) in &order[..position] {
                    let head_start = u64::from(other.saturating_sub(*priority)) * ageing;
                    prop_assert!(*earlier <= since + head_start);
                }
            }
        }
    }
}
