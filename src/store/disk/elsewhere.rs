//! Work that may wait for a disk, done away from the loop.
//!
//! One thread does it all, job after job, as long as it gets on: a wake and a change of threads are paid for once a
//! burst and not once a job. Where a job takes long, another thread goes on with the rest, up to a few; so one
//! file that hangs does not hold up the others. The threads are the runtime's.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

/// A job that has not begun after this is worth another thread.
const LONG: Duration = Duration::from_millis(5);
/// Threads at once.
const MOST: usize = 4;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Clone, Default)]
pub struct Elsewhere {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    /// When a job was last begun.
    began: Option<Instant>,
}

impl Elsewhere {
    /// Does `job` on another thread. None: it panicked. It is done even if nobody waits for it any more.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (say, mut done) = oneshot::channel();
        self.submit(Box::new(move || drop(say.send(job()))));
        loop {
            match timeout(LONG, &mut done).await {
                Ok(result) => return result.ok(),
                Err(_) => self.help(),
            }
        }
    }

    fn submit(&self, job: Job) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.jobs.push_back(job);
        if queue.threads == 0 {
            self.start(&mut queue);
        }
    }

    /// Another thread, if jobs wait and nothing has moved for long.
    fn help(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let stands = queue.began.is_none_or(|began| began.elapsed() >= LONG);
        if !queue.jobs.is_empty() && stands && queue.threads < MOST {
            self.start(&mut queue);
        }
    }

    fn start(&self, queue: &mut Queue) {
        queue.threads += 1;
        let own = self.queue.clone();
        tokio::task::spawn_blocking(move || work(&own));
    }
}

/// Does jobs until none is left.
fn work(queue: &Mutex<Queue>) {
    loop {
        let job = {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.began = Some(Instant::now());
            match queue.jobs.pop_front() {
                Some(job) => job,
                None => {
                    queue.threads -= 1;
                    return;
                }
            }
        };
        // A bug in one job must not end the others: its channel closes, and who waits for it hears.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::run;

    #[test]
    fn one_that_hangs_holds_nobody_up() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        run(async {
            let elsewhere = Elsewhere::default();
            let hangs = elsewhere.run(move || wait.recv().is_ok());
            let others = async {
                for n in 0..100 {
                    assert_eq!(elsewhere.run(move || n).await, Some(n));
                }
                go.send(()).unwrap();
            };
            let (hung, ()) = tokio::join!(hangs, others);
            assert_eq!(hung, Some(true));
        });
    }

    #[test]
    fn one_that_panics_is_told_and_ends_nothing() {
        run(async {
            let elsewhere = Elsewhere::default();
            assert_eq!(elsewhere.run(|| -> u8 { panic!("on purpose") }).await, None);
            assert_eq!(elsewhere.run(|| 7).await, Some(7));
        });
    }
}
