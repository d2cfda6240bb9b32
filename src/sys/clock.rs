//! The two clocks. Monotonic time is the same in every process of the machine, so it may travel in messages and
//! in shared memory. Pure code never calls this: it is handed `now`.

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

/// Milliseconds since some moment before every process of ours; it never goes back and stops while the machine sleeps.
#[must_use]
pub fn monotonic_ms() -> u64 {
    milliseconds(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux always has CLOCK_MONOTONIC"))
}

/// The same as the kernel's last tick has left it, some milliseconds ago, at a fraction of the cost.
#[must_use]
pub fn coarse_ms() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)
        .expect("Linux always has CLOCK_MONOTONIC_COARSE");
    milliseconds(time)
}

/// Milliseconds like `monotonic_ms`, and it goes on while the machine sleeps: what must not be trusted for longer, awake or not.
#[must_use]
pub fn awake_or_not_ms() -> u64 {
    milliseconds(clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux always has CLOCK_BOOTTIME"))
}

fn milliseconds(time: TimeSpec) -> u64 {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
    seconds * 1000 + nanos / 1_000_000
}

/// Seconds since 1970, as Date and Age count them.
#[must_use]
pub fn unix_seconds() -> i64 {
    wall_clock().tv_sec()
}

/// Milliseconds since 1970, to a few, as access logs tell them.
#[must_use]
pub fn unix_ms() -> i64 {
    let time = wall_clock();
    time.tv_sec() * 1000 + time.tv_nsec() / 1_000_000
}

/// As the kernel's last tick has left it, at a fraction of the cost of an exact look: requests ask several times.
fn wall_clock() -> TimeSpec {
    clock_gettime(ClockId::CLOCK_REALTIME_COARSE).expect("Linux always has CLOCK_REALTIME_COARSE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_does_not_go_back() {
        let first = monotonic_ms();
        assert!(first > 0);
        assert!(monotonic_ms() >= first);
        assert!(unix_seconds() > 1_700_000_000);
    }
}
