//! How busy the event loop is: the share of the last interval in which it did not wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Business (permille) above which a worker is over its share while another is below `FREE`.
const FULL: u32 = 900;
const FREE: u32 = 700;

/// Whether a worker that is this busy should let go of its connections between requests.
pub fn is_over_share(own: u32, mut others: impl Iterator<Item = u32>) -> bool {
    own > FULL && others.any(|other| other < FREE)
}

pub struct Meter {
    shared: Arc<Shared>,
    last: std::cell::Cell<(u64, u64)>,
}

struct Shared {
    began: Instant,
    /// Nanoseconds waited so far, and when the present wait began (0: not waiting).
    waited: AtomicU64,
    parked_at: AtomicU64,
}

impl Shared {
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }
}

impl Meter {
    pub fn new() -> Meter {
        let began = Instant::now();
        let shared = Shared {
            began,
            waited: AtomicU64::new(0),
            parked_at: AtomicU64::new(0),
        };
        Meter {
            shared: Arc::new(shared),
            last: Default::default(),
        }
    }

    /// What the runtime calls before and after it waits.
    pub fn hooks(&self) -> (impl Fn() + use<>, impl Fn() + use<>) {
        let (before, after) = (self.shared.clone(), self.shared.clone());
        let parked = move || before.parked_at.store(before.now(), Relaxed);
        let unparked = move || {
            let since = after.parked_at.swap(0, Relaxed);
            if since > 0 {
                after
                    .waited
                    .fetch_add(after.now().saturating_sub(since), Relaxed);
            }
        };
        (parked, unparked)
    }

    /// Thousandths of the time since the last call in which the loop worked.
    pub fn busy_permille(&self) -> u32 {
        let (now, waited) = (self.shared.now(), self.shared.waited.load(Relaxed));
        let (then, waited_then) = self.last.replace((now, waited));
        let elapsed = now.saturating_sub(then).max(1);
        let idle = waited.saturating_sub(waited_then).min(elapsed);
        ((elapsed - idle) * 1000 / elapsed) as u32
    }
}

/// Watches the number of connections held, once a tick: when many were here and are gone, their memory is worth
/// giving back.
#[derive(Default)]
pub struct Crowd {
    most: u32,
    last: u32,
    /// Ticks for which the number has not fallen.
    steady: u32,
}

impl Crowd {
    /// How many make a crowd.
    const MANY: u32 = 256;
    const STEADY: u32 = 5;

    /// Whether a crowd was here, three quarters of it have left, and nobody else is about to.
    pub fn has_left(&mut self, held: u32) -> bool {
        self.most = self.most.max(held);
        self.steady = if held < self.last { 0 } else { self.steady + 1 };
        self.last = held;
        self.most >= Crowd::MANY && held < self.most / 4 && self.steady >= Crowd::STEADY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_worker_lets_go_only_where_another_is_free() {
        let over = |own, others: &[u32]| is_over_share(own, others.iter().copied());
        assert!(over(950, &[980, 100]) && over(1000, &[699]));
        assert!(!over(900, &[0]), "not full");
        assert!(!over(1000, &[700, 950]), "nobody is free");
        assert!(!over(1000, &[]), "alone");
    }

    #[test]
    fn a_crowd_has_left_when_no_more_leave() {
        let ticks = |held: &[u32]| {
            let mut crowd = Crowd::default();
            held.iter()
                .map(|held| crowd.has_left(*held))
                .collect::<Vec<_>>()
        };
        assert!(
            ticks(&[1000, 600, 100, 50, 10, 10, 10, 10, 10])
                .iter()
                .all(|left| !left),
            "still leaving"
        );
        assert_eq!(ticks(&[1000, 10, 10, 10, 10, 10, 10]).last(), Some(&true));
        assert_eq!(
            ticks(&[1000, 500, 500, 500, 500, 500, 500]).last(),
            Some(&false),
            "half are here"
        );
        assert_eq!(
            ticks(&[200, 0, 0, 0, 0, 0, 0]).last(),
            Some(&false),
            "not many"
        );
    }

    #[test]
    fn waiting_is_not_work() {
        let meter = Meter::new();
        let (parked, unparked) = meter.hooks();
        parked();
        std::thread::park_timeout(std::time::Duration::from_millis(20));
        unparked();
        assert!(meter.busy_permille() < 500);
        let until = Instant::now() + std::time::Duration::from_millis(5);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        assert!(meter.busy_permille() > 500);
    }
}
