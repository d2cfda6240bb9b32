//! Work that may wait for a disk, done away from the loop.
//!
//! One thread does it all, job after job, as long as it gets on, and hands back what it has done many at a time: a wake
//! and a change of threads are paid for once a burst and not once a job. Where a job takes long, another thread goes on
//! with the rest, up to a few; so one file that hangs does not hold up the others. The threads are the runtime's.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::sys::thread;

/// A job that has not begun after this is worth another thread.
const LONG: Duration = Duration::from_millis(5);
/// Threads at once.
pub const MOST: usize = 4;
/// How long what is done waits for what is done next.
const HELD: Duration = Duration::from_micros(500);

/// Does something, and returns what tells of it: that is called where the job came from.
type Job = Box<dyn FnOnce() -> Done + Send>;
type Done = Box<dyn FnOnce() + Send>;

#[derive(Clone, Default)]
pub struct Elsewhere {
    local: Rc<Local>,
    shared: Arc<Shared>,
}

/// The part of the loop.
#[derive(Default)]
struct Local {
    /// Jobs that no thread knows of yet.
    pending: RefCell<Vec<Job>>,
    /// Jobs that have not been told of.
    open: Cell<usize>,
    /// The task that hands jobs over and takes them back, while there are any.
    tender: RefCell<Option<tokio::task::JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There are jobs to be handed over, or some are done.
    news: Notify,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    done: Vec<Done>,
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
        let (say, done) = oneshot::channel();
        self.submit(Box::new(move || {
            // A bug in one job must not end the others: its channel closes, and who waits for it hears.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            Box::new(move || drop(result.map(|value| say.send(value))))
        }));
        done.await.ok()
    }

    /// It is handed over when the tasks that are ready now have had their turn: they may have more.
    fn submit(&self, job: Job) {
        self.local.pending.borrow_mut().push(job);
        self.local.open.set(self.local.open.get() + 1);
        let mut tender = self.local.tender.borrow_mut();
        match &*tender {
            Some(tender) if !tender.is_finished() => self.shared.news.notify_one(),
            _ => *tender = Some(tokio::task::spawn_local(self.clone().tend())),
        }
    }

    async fn tend(self) {
        while self.local.open.get() > 0 {
            let pending = self.local.pending.take();
            let done = {
                let mut queue = self.shared.lock();
                queue.jobs.extend(pending);
                if queue.wants_another() {
                    self.start(&mut queue);
                }
                std::mem::take(&mut queue.done)
            };
            self.local.open.set(self.local.open.get() - done.len());
            done.into_iter().for_each(|done| done());
            if self.local.open.get() > 0 {
                // Then it looks whether a job hangs, if it has not been called before.
                let _ = timeout(LONG, self.shared.news.notified()).await;
            }
        }
    }

    fn start(&self, queue: &mut Queue) {
        queue.threads += 1;
        // It is on its way: what comes meanwhile is no reason for another.
        queue.began = Some(Instant::now());
        let own = self.shared.clone();
        tokio::task::spawn_blocking(move || own.work());
    }
}

impl Queue {
    /// Whether jobs wait that no thread gets to: there is none, or nothing has moved for long.
    fn wants_another(&self) -> bool {
        let stands = || self.began.is_none_or(|began| began.elapsed() >= LONG);
        !self.jobs.is_empty() && (self.threads == 0 || self.threads < MOST && stands())
    }
}

impl Shared {
    /// Does jobs until none is left.
    fn work(&self) {
        thread::never_interrupt();
        let mut told = Instant::now();
        let mut done = None;
        loop {
            let job = {
                let mut queue = self.lock();
                let now = Instant::now();
                queue.done.extend(done.take());
                // Where the next job hangs, the loop finds what is done by itself.
                let is_time = queue.jobs.is_empty() || now - told >= HELD;
                if is_time && !queue.done.is_empty() {
                    told = now;
                    self.news.notify_one();
                }
                queue.began = Some(now);
                match queue.jobs.pop_front() {
                    Some(job) => job,
                    None => {
                        queue.threads -= 1;
                        return;
                    }
                }
            };
            done = Some(job());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn one_that_hangs_holds_up_nobody_of_a_stream_that_does_not_end() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        run(async {
            let elsewhere = Elsewhere::default();
            let hangs = elsewhere.run(move || wait.recv().is_ok());
            let stream = async {
                let done = Rc::new(Cell::new(0));
                // More often than a job may wait.
                let mut often = tokio::time::interval(LONG / 5);
                for _ in 0..100 {
                    often.tick().await;
                    let (elsewhere, done) = (elsewhere.clone(), done.clone());
                    tokio::task::spawn_local(async move {
                        elsewhere.run(|| ()).await;
                        done.set(done.get() + 1);
                    });
                }
                let done = done.get();
                go.send(()).unwrap();
                assert!(done > 50, "{done} of 100 are done");
            };
            assert_eq!(tokio::join!(hangs, stream).0, Some(true));
        });
    }

    #[test]
    fn what_is_done_is_told_although_the_next_one_hangs() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        run(async {
            let elsewhere = Elsewhere::default();
            let first = elsewhere.run(|| 1);
            let hangs = elsewhere.run(move || wait.recv().is_ok());
            let first = async {
                assert_eq!(first.await, Some(1));
                go.send(()).unwrap();
            };
            assert_eq!(tokio::join!(first, hangs).1, Some(true));
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

    #[test]
    fn another_loop_may_go_on_with_it() {
        let elsewhere = Elsewhere::default();
        assert_eq!(run(elsewhere.run(|| 1)), Some(1));
        assert_eq!(run(elsewhere.run(|| 2)), Some(2));
    }
}
