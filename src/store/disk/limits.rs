//! How large the cache may be: what the settings say, and what the disk leaves. Pure. The janitor asks, and the
//! master for the first moments, before anything is counted.

const GIB: u64 = 1 << 30;

/// What is set about the size of a cache; 0: chosen by the disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    pub max_size: u64,
    pub min_free: u64,
}

pub struct Limits {
    max_size: u64,
    min_free: u64,
    /// The size that was chosen because none was set, once it is known what the cache has.
    chosen: Option<u64>,
    is_settled: bool,
}

impl Limits {
    /// Zeros mean: chosen by the disk.
    pub fn new(max_size: u64, min_free: u64) -> Limits {
        Limits {
            max_size,
            min_free,
            chosen: None,
            is_settled: false,
        }
    }

    /// All that the cache has is counted from now on: what is chosen next stays.
    pub fn settle(&mut self) {
        self.is_settled = true;
    }

    /// Octets that objects may take. `used`: what they take now; `overhead`: what the cache has beside them; `free` and
    /// `size`: of the file system.
    pub fn limit(&mut self, used: u64, overhead: u64, free: u64, size: u64) -> u64 {
        let most = match self.max_size {
            0 => self.choose(used, free),
            set => set,
        };
        let min_free = match self.min_free {
            0 => (size / 20).min(GIB),
            set => set,
        };
        let by_disk = match free.checked_sub(min_free) {
            Some(more) => used.saturating_add(more),
            None => used.saturating_sub(min_free - free),
        };
        // A small cache is not eaten up by its own books.
        most.saturating_sub(overhead.min(most / 4)).min(by_disk)
    }

    /// Before what is there has been counted: of a cache that is not `empty`, so little that it does not matter.
    pub fn provisional(&mut self, empty: bool, free: u64, size: u64) -> u64 {
        let limit = self.limit(0, 0, free, size);
        if empty { limit } else { limit / 64 }
    }

    /// Half of what is free, with what the cache has already.
    fn choose(&mut self, used: u64, free: u64) -> u64 {
        let chosen = self.chosen.unwrap_or(used.saturating_add(free / 2));
        if self.is_settled {
            self.chosen = Some(chosen);
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_holds_and_what_the_disk_leaves() {
        for (max_size, min_free, used, free, expected) in [
            (100, 10, 50, 1000, 100),
            (100, 10, 50, 30, 70),
            (100, 10, 50, 10, 50),
            (100, 10, 50, 4, 44),
            (1000, 900, 50, 4, 0),
            // Chosen: half of 1000, a twentieth of 2000.
            (0, 0, 50, 1000, 550),
            (0, 0, 50, 90, 40),
        ] {
            let mut limits = Limits::new(max_size, min_free);
            assert_eq!(limits.limit(used, 0, free, 2000), expected);
        }
        let huge = 1 << 50;
        let mut limits = Limits::new(huge, 0);
        assert_eq!(limits.limit(0, 0, 10 * GIB, huge), 9 * GIB);
    }

    #[test]
    fn what_is_chosen_stays_once_everything_is_counted() {
        let mut limits = Limits::new(0, 1);
        assert_eq!(limits.limit(0, 0, 1000, 9000), 500);
        assert_eq!(limits.limit(600, 0, 1000, 9000), 1100);
        limits.settle();
        assert_eq!(limits.limit(600, 0, 1000, 9000), 1100);
        assert_eq!(limits.limit(900, 0, 700, 9000), 1100);
    }

    #[test]
    fn the_catalogue_counts_but_leaves_room() {
        let mut limits = Limits::new(1000, 1);
        assert_eq!(limits.limit(0, 100, 1 << 20, 1 << 20), 900);
        assert_eq!(limits.limit(0, 100_000, 1 << 20, 1 << 20), 750);
    }
}
