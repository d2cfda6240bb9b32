//! A gate that keeps answers back until the test opens it.

use std::sync::{Arc, Condvar, Mutex};

use super::DEADLINE;

#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn new() -> Gate {
        Gate::default()
    }

    /// Waits until it is open. It gives way in the end, so that no thread stays behind.
    pub fn wait(&self) {
        let (open, changed) = &*self.0;
        drop(changed.wait_timeout_while(open.lock().unwrap(), DEADLINE, |open| !*open));
    }

    pub fn is_open(&self) -> bool {
        *self.0.0.lock().unwrap()
    }

    /// Lets everyone pass from now on.
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}
