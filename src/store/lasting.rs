//! Work on a store that is waited for as long as patience lasts, and goes on where nobody waits any more.
//!
//! It belongs to whoever waits, who most often sees its end, and costs no task then. Where patience ends, or the client is
//! gone for whom it is done, it becomes a task of its own: a file must not come into its place without anybody being told.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::timeout;

/// What comes of `work`. None: it takes longer, and goes on.
pub async fn within<T: 'static>(
    patience: Duration,
    work: impl Future<Output = T> + 'static,
) -> Option<T> {
    timeout(patience, lasting(work)).await.ok()
}

/// The same where the work itself ends in time.
pub fn lasting<F: Future + 'static>(work: F) -> Lasting<F> {
    Lasting(Some(Box::pin(work)))
}

/// None: it has come to its end.
pub struct Lasting<F: Future + 'static>(Option<Pin<Box<F>>>);

impl<F: Future + 'static> Future for Lasting<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // What panics does not go on.
        let Some(mut work) = self.0.take() else {
            return Poll::Pending;
        };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.0 = Some(work);
        }
        polled
    }
}

impl<F: Future + 'static> Drop for Lasting<F> {
    fn drop(&mut self) {
        // Where the runtime has ended, nothing goes on.
        let has_runtime = tokio::runtime::Handle::try_current().is_ok();
        if let Some(work) = self.0.take().filter(|_| has_runtime) {
            tokio::task::spawn_local(async move { drop(work.await) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use tokio::sync::Notify;

    use super::*;
    use crate::store::contract::run;

    const LONG: Duration = Duration::from_secs(60);

    /// Work that ends when it is told to, and where its end is seen.
    fn work(go: &Rc<Notify>, ended: &Rc<Cell<bool>>) -> impl Future<Output = u8> + 'static {
        let (go, ended) = (go.clone(), ended.clone());
        async move {
            go.notified().await;
            ended.set(true);
            7
        }
    }

    async fn ends(go: &Rc<Notify>, ended: &Rc<Cell<bool>>) {
        assert!(!ended.get());
        go.notify_one();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(ended.get());
    }

    #[test]
    fn its_end_is_seen_by_who_waits() {
        run(async {
            let (go, ended) = Default::default();
            let work = work(&go, &ended);
            go.notify_one();
            assert_eq!(within(LONG, work).await, Some(7));
            assert!(ended.get());
        });
    }

    #[test]
    fn it_goes_on_when_patience_ends() {
        run(async {
            let (go, ended) = Default::default();
            assert_eq!(within(Duration::ZERO, work(&go, &ended)).await, None);
            ends(&go, &ended).await;
        });
    }

    #[test]
    fn it_goes_on_when_who_waits_leaves() {
        run(async {
            let (go, ended) = Default::default();
            let mut waits = Box::pin(within(LONG, work(&go, &ended)));
            let once = std::future::poll_fn(|context| {
                Poll::Ready(waits.as_mut().poll(context).is_pending())
            });
            assert!(once.await);
            drop(waits);
            ends(&go, &ended).await;
        });
    }

    #[test]
    fn it_ends_with_the_runtime() {
        let ended = Rc::default();
        run(async {
            let waits = within(LONG, work(&Rc::default(), &ended));
            tokio::task::spawn_local(waits);
            tokio::task::yield_now().await;
        });
        assert_eq!(Rc::strong_count(&ended), 1);
    }
}
