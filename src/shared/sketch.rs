//! How often names have been asked for lately, by all workers together: an estimate, never below the truth by more
//! than a race or a halving takes.
//!
//! A count-min sketch: four counters a name, all within one cache line, of which the least is the estimate and the
//! least alone is raised. Counters saturate; the janitor halves them all now and then, so that old fame fades.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU64};

use crate::sys::memory::in_shared_memory;

/// Counters in a cache line, of which each of the four rows has a quarter.
const LINE: usize = 64;
const LINES: usize = 1 << 14;
const ROWS: usize = 4;
const ROW: usize = LINE / ROWS;

in_shared_memory! {
    /// The sketch.
    pub struct Sketch {
        /// Times anything was asked for since the last halving.
        touches: AtomicU64,
        spare: [AtomicU64; 7],
        counters: [AtomicU8; LINE * LINES],
    }
}

impl Sketch {
    /// Asked for once more; how often that is by now.
    pub fn touch(&self, hash: u64) -> u64 {
        self.touches.fetch_add(1, Relaxed);
        let counters = self.counters_of(hash);
        let values = counters.map(|counter| counter.load(Relaxed));
        let least = values.into_iter().min().unwrap_or(0);
        let raised = least.saturating_add(1);
        for (counter, value) in counters.into_iter().zip(values) {
            if value < raised {
                counter.store(raised, Relaxed);
            }
        }
        u64::from(raised)
    }

    /// How often it has been asked for.
    #[must_use]
    pub fn estimate(&self, hash: u64) -> u64 {
        let values = self.counters_of(hash).map(|counter| counter.load(Relaxed));
        u64::from(values.into_iter().min().unwrap_or(0))
    }

    /// Times that `touch` was called since the last halving.
    #[must_use]
    pub fn touches(&self) -> u64 {
        self.touches.load(Relaxed)
    }

    /// Janitor: what was before counts half from now on.
    pub fn halve(&self) {
        self.touches.store(0, Relaxed);
        for counter in &self.counters {
            let value = counter.load(Relaxed);
            if value > 0 {
                counter.store(value / 2, Relaxed);
            }
        }
    }

    fn counters_of(&self, hash: u64) -> [&AtomicU8; ROWS] {
        let spread = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let line = (spread >> 50) as usize * LINE;
        std::array::from_fn(|row| {
            let place = (spread >> (4 * row)) as usize % ROW;
            &self.counters[line + row * ROW + place]
        })
    }
}

const _: () = assert!(LINES == 1 << (64 - 50), "the line is the topmost bits");

#[cfg(test)]
mod tests {
    use crate::cache::Name;
    use crate::shared::Region;

    fn hash(n: u32) -> u64 {
        Name::of(&n.to_le_bytes()).hash()
    }

    #[test]
    fn it_counts_saturates_and_fades() {
        let (region, _fd) = Region::create(1).unwrap();
        let sketch = region.sketch();
        assert_eq!(sketch.estimate(hash(1)), 0);
        for n in 1..=300 {
            assert_eq!(sketch.touch(hash(1)), n.min(255));
        }
        assert_eq!(sketch.touches(), 300);
        sketch.halve();
        assert_eq!(sketch.estimate(hash(1)), 127);
        assert_eq!(sketch.touches(), 0);
    }

    #[test]
    fn estimates_are_never_low_and_seldom_high() {
        let (region, _fd) = Region::create(1).unwrap();
        let sketch = region.sketch();
        // Every tenth name is popular.
        for n in 0..100_000 {
            for _ in 0..if n % 10 == 0 { 10 } else { 1 } {
                sketch.touch(hash(n));
            }
        }
        let high = |n: u32| sketch.estimate(hash(n)) > 2;
        assert!(
            (0..100_000)
                .step_by(10)
                .all(|n| sketch.estimate(hash(n)) >= 10)
        );
        let wrong = (0..100_000).filter(|n| n % 10 != 0 && high(*n)).count();
        assert!(wrong < 900, "{wrong} of 90000 look popular");
    }
}
