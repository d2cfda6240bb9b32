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
