//! What was missed among the open files lately.
//!
//! Opening a file for good throws another one out, which costs as much as the hit. So where all places are taken, only
//! what is missed twice within about as many misses as there are places gets one: of objects that are asked for once,
//! or far more of them than places, each is opened, sent and closed. It keeps four octets a place, and may take one
//! name for another, which costs an opened file.

use std::cell::Cell;

pub struct Recent {
    /// Upper halves of hashes, by their lower halves.
    misses: Box<[Cell<u32>]>,
}

impl Recent {
    /// For so many places.
    pub fn new(places: usize) -> Recent {
        let misses = vec![Cell::new(0); places.next_power_of_two()];
        Recent {
            misses: misses.into(),
        }
    }

    /// Whether it was missed lately; now it has been.
    pub fn again(&self, hash: u64) -> bool {
        let (upper, lower) = ((hash >> 32) as u32, hash as u32 as usize);
        let place = self.misses.get(lower & (self.misses.len() - 1));
        place.is_some_and(|place| place.replace(upper) == upper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_soon_is_known_and_what_comes_late_is_not() {
        let recent = Recent::new(1000);
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let again = |range: std::ops::Range<u64>| range.filter(|n| recent.again(hash(*n))).count();
        assert_eq!(again(1..100), 0);
        assert!(again(1..100) > 80);
        assert_eq!(again(1000..100_000), 0);
        assert!(again(1..100) < 5);
    }
}
