//! The least pace of a body: over each window of *waiting*, so many octets a second on average.
//!
//! Only time spent waiting for this peer counts. A long transfer at a fair rate is never cut, one that
//! trickles is, and a peer is not blamed for the slowness of the other.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use super::Broken;

#[derive(Debug)]
pub struct Pace {
    window: Duration,
    /// Octets that a full window must bring.
    wanted: u64,
    waited: Duration,
    moved: u64,
}

impl Pace {
    /// `min_rate` in octets a second.
    pub fn new(window: Duration, min_rate: u64) -> Pace {
        let wanted = (window.as_secs_f64() * min_rate as f64) as u64;
        Pace {
            window,
            wanted: wanted.max(1),
            waited: Duration::ZERO,
            moved: 0,
        }
    }

    /// Counts octets that moved.
    pub fn moved(&mut self, octets: usize) {
        self.moved += octets as u64;
    }

    /// Waits for `operation` as long as the peer keeps the pace.
    pub async fn keep<T>(&mut self, operation: impl Future<Output = T>) -> Result<T, Broken> {
        let mut operation = std::pin::pin!(operation);
        loop {
            let began = Instant::now();
            let ended =
                tokio::time::timeout(self.window.saturating_sub(self.waited), &mut operation).await;
            self.waited += began.elapsed();
            match ended {
                Ok(value) => {
                    if self.waited >= self.window && self.moved >= self.wanted {
                        self.next_window();
                    }
                    return Ok(value);
                }
                Err(_) if self.moved >= self.wanted => self.next_window(),
                Err(_) => return Err(Broken::Stalled),
            }
        }
    }

    fn next_window(&mut self) {
        self.waited = Duration::ZERO;
        self.moved = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paused<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime.unwrap().block_on(future)
    }

    #[test]
    fn a_fair_rate_is_never_cut_and_a_trickle_is() {
        paused(async {
            let mut fair = Pace::new(Duration::from_secs(10), 100);
            for _ in 0..1000 {
                fair.keep(tokio::time::sleep(Duration::from_secs(1)))
                    .await
                    .unwrap();
                fair.moved(110);
            }
            let mut trickle = Pace::new(Duration::from_secs(10), 100);
            let mut seconds = 0;
            while trickle
                .keep(tokio::time::sleep(Duration::from_secs(1)))
                .await
                .is_ok()
            {
                trickle.moved(50);
                seconds += 1;
            }
            assert!((9..=11).contains(&seconds), "cut after {seconds} s");
        });
    }

    #[test]
    fn silence_is_cut_after_one_window() {
        paused(async {
            let began = Instant::now();
            let mut pace = Pace::new(Duration::from_secs(10), 1);
            pace.moved(50);
            assert!(pace.keep(std::future::pending::<()>()).await.is_err());
            assert_eq!(
                began.elapsed(),
                Duration::from_secs(20),
                "the first window had its octets, the second none"
            );
        });
    }
}
