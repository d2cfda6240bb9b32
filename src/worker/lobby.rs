//! Connections that wait for their next request, and what ends the wait beside that: the end of its time, or a drain.
//!
//! A timer for each would be set and cleared with every request. Here a wait costs two stores, and the worker's tick
//! looks at all of them: so its end may come a tick late. It knows no clock: who calls says what time it is.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Those who wait in this worker.
#[derive(Default)]
pub struct Lobby {
    places: RefCell<Vec<Place>>,
    free: RefCell<Vec<usize>>,
}

#[derive(Default)]
struct Place {
    state: State,
    /// Of the task that has the place.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Nobody waits here.
    #[default]
    Away,
    /// Until then, in milliseconds.
    Waits(u64),
    Over,
}

/// A connection's place, for as long as it is in this worker.
pub struct Seat {
    lobby: Rc<Lobby>,
    number: usize,
}

impl Lobby {
    pub fn seat(self: &Rc<Self>) -> Seat {
        let number = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut places = self.places.borrow_mut();
            places.push(Place::default());
            places.len() - 1
        });
        Seat {
            lobby: self.clone(),
            number,
        }
    }

    /// Ends the waits whose time has come.
    pub fn end_due(&self, now: u64) {
        self.end(|until| until <= now);
    }

    pub fn end_all(&self) {
        self.end(|_| true);
    }

    fn end(&self, is_over: impl Fn(u64) -> bool) {
        for place in self.places.borrow_mut().iter_mut() {
            if let State::Waits(until) = place.state
                && is_over(until)
            {
                place.state = State::Over;
                place.waker.iter().for_each(Waker::wake_by_ref);
            }
        }
    }

    /// Gives the memory of a crowd back, as far as nobody behind it has a place.
    pub fn shrink(&self) {
        let (mut places, mut free) = (self.places.borrow_mut(), self.free.borrow_mut());
        // The lowest is taken first from here on.
        free.sort_unstable_by(|one, other| other.cmp(one));
        let behind = free.iter().zip((0..places.len()).rev());
        let surplus = behind.take_while(|(free, last)| *free == last).count();
        let left = places.len() - surplus;
        places.truncate(left);
        free.drain(..surplus);
        places.shrink_to_fit();
        free.shrink_to_fit();
    }
}

impl Seat {
    /// Waits for `arrival`, until then at the most, in milliseconds. None: the wait was ended.
    pub async fn wait<T>(&self, until: u64, arrival: impl Future<Output = T>) -> Option<T> {
        let mut arrival = pin!(arrival);
        self.with(|place| place.state = State::Waits(until));
        let arrived = std::future::poll_fn(|task| {
            if let Poll::Ready(arrived) = arrival.as_mut().poll(task) {
                return Poll::Ready(Some(arrived));
            }
            self.with(|place| {
                let is_known = |known: &Waker| known.will_wake(task.waker());
                if !place.waker.as_ref().is_some_and(is_known) {
                    place.waker = Some(task.waker().clone());
                }
                match place.state {
                    State::Over => Poll::Ready(None),
                    State::Away | State::Waits(_) => Poll::Pending,
                }
            })
        });
        let arrived = arrived.await;
        self.with(|place| place.state = State::Away);
        arrived
    }

    fn with<T>(&self, change: impl FnOnce(&mut Place) -> T) -> T {
        let mut places = self.lobby.places.borrow_mut();
        // It is there as long as its seat is.
        change(&mut places[self.number])
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.with(|place| *place = Place::default());
        self.lobby.free.borrow_mut().push(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(future)
    }

    #[test]
    fn what_arrives_ends_the_wait() {
        let lobby = Rc::new(Lobby::default());
        let seat = lobby.seat();
        assert_eq!(run(seat.wait(5, async { 7 })), Some(7));
        assert_eq!(run(seat.wait(5, async { 8 })), Some(8));
    }

    #[test]
    fn its_time_ends_it_and_no_others() {
        let lobby = Rc::new(Lobby::default());
        let (one, other) = (lobby.seat(), lobby.seat());
        let (arrive, arrival) = tokio::sync::oneshot::channel();
        let ended = run(async {
            tokio::join!(
                one.wait(100, std::future::pending::<()>()),
                other.wait(101, arrival),
                async {
                    tokio::task::yield_now().await;
                    lobby.end_due(99);
                    tokio::task::yield_now().await;
                    lobby.end_due(100);
                    tokio::task::yield_now().await;
                    arrive.send(()).unwrap();
                }
            )
        });
        assert_eq!((ended.0, ended.1), (None, Some(Ok(()))));
    }

    #[test]
    fn a_drain_ends_all_and_places_are_used_again() {
        let lobby = Rc::new(Lobby::default());
        let mut crowd: Vec<Seat> = (0..100).map(|_| lobby.seat()).collect();
        let ended = run(async {
            tokio::join!(
                crowd[7].wait(u64::MAX, std::future::pending::<()>()),
                async { lobby.end_all() }
            )
        });
        assert_eq!(ended.0, None);
        let seventh = crowd.swap_remove(7);
        drop(crowd);
        lobby.shrink();
        assert_eq!(lobby.places.borrow().len(), 8, "somebody has the last");
        assert_eq!(lobby.seat().number, 0);
        drop(seventh);
        lobby.shrink();
        assert_eq!(lobby.places.borrow().len(), 0);
    }
}
