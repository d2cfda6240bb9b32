//! What has happened so far, a row of counters for each process; a sum over the rows is the whole proxy.
//!
//! Each counter is declared once, with its name and what it counts. A row has one writer, so adding is cheap; it
//! outlives its process, so nothing is lost when a worker dies.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::sys::memory::in_shared_memory;

/// Counters a row has room for, so that most new ones leave the layout alone.
const ROOM: usize = 64;

macro_rules! counters {
    ($($variant:ident, $name:literal, $help:literal;)+) => {
        /// What is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter { $(#[doc = $help] $variant,)+ }

        impl Counter {
            pub const ALL: &'static [Counter] = &[$(Counter::$variant,)+];

            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Counter::$variant => $name,)+ }
            }

            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Counter::$variant => $help,)+ }
            }
        }
    };
}

counters! {
    Accepted, "accepted", "Client connections accepted.";
    AcceptPauses, "accept_pauses", "Times accepting paused for want of descriptors.";
    Parked, "parked", "Times a client connection was left waiting in the master.";
    IdleClosed, "idle_closed", "Client connections closed by the master because they stayed idle.";
    Offered, "offered", "Sockets offered to workers.";
    Revoked, "revoked", "Offers taken back from a worker that had not claimed them.";
    Returned, "returned", "Sockets that came back from workers.";
    QueueOverflow, "queue_overflow", "Connections answered 503 because the queue was full.";
    WorkerDeaths, "worker_deaths", "Workers that ended unasked.";
    Requests, "requests", "Requests read.";
    Responses1xx, "responses_1xx", "Interim responses sent.";
    Responses2xx, "responses_2xx", "Responses sent with a status of 2xx.";
    Responses3xx, "responses_3xx", "Responses sent with a status of 3xx.";
    Responses4xx, "responses_4xx", "Responses sent with a status of 4xx.";
    Responses5xx, "responses_5xx", "Responses sent with a status of 5xx.";
    CacheHit, "cache_hit", "Requests answered from the cache.";
    CacheRevalidated, "cache_revalidated", "Requests answered from the cache after a 304 of the origin.";
    CacheStale, "cache_stale", "Requests answered with a stale response because the origin server failed.";
    CacheJoined, "cache_joined", "Requests answered by what another request was fetching.";
    CacheMiss, "cache_miss", "Requests whose answer was not in the cache.";
    CachePass, "cache_pass", "Requests that neither read nor fill the cache.";
    CacheStored, "cache_stored", "Responses stored.";
    CacheDamaged, "cache_damaged", "Stored responses that were damaged, and are gone.";
    CacheErrors, "cache_errors", "Times the disk refused to store or to give back.";
    StoreFailures, "store_failures", "Times the database failed, or did not answer in time.";
    CacheEvicted, "cache_evicted", "Stored responses that made room for others.";
    CacheSwept, "cache_swept", "Files removed from the cache directory that led nowhere.";
    CacheInvalidated, "cache_invalidated", "Stored responses invalidated.";
    HerdLed, "herd_led", "Requests to an origin server whose answer others waited for.";
    HerdFollowed, "herd_followed", "Responses read from the worker that was fetching them, for this worker's clients.";
    HerdTakenOver, "herd_taken_over", "Requests sent, or gone on with, in the place of one that had failed.";
    HerdReleased, "herd_released", "Requests that waited for an answer that was not for them, and asked for themselves.";
    ClientBytesOut, "client_bytes_out", "Octets of content sent to clients.";
    OriginConnects, "origin_connects", "Connections opened to origins.";
    OriginReuses, "origin_reuses", "Requests sent on a kept origin connection.";
    OriginRetries, "origin_retries", "Requests sent once more because a kept origin connection had ended.";
    OriginErrors, "origin_errors", "Requests that failed because of their origin.";
    Tunnels, "tunnels", "Tunnels opened.";
    Denied, "denied", "Requests refused by an access rule.";
}

const _: () = assert!(
    Counter::ALL.len() <= ROOM,
    "a row needs more room, and the layout another version"
);

in_shared_memory! {
    /// One process's counters.
    pub struct Counters {
        values: [AtomicU64; ROOM],
    }
}

impl Counters {
    pub fn add(&self, counter: Counter, n: u64) {
        self.values[counter as usize].fetch_add(n, Relaxed);
    }

    /// The same by the only thread that writes the row, which need not keep others off: five a request add up.
    pub fn add_alone(&self, counter: Counter, n: u64) {
        let value = &self.values[counter as usize];
        value.store(value.load(Relaxed).wrapping_add(n), Relaxed);
    }

    #[must_use]
    pub fn value(&self, counter: Counter) -> u64 {
        self.values[counter as usize].load(Relaxed)
    }
}

impl Counter {
    /// The counter for a response of this status.
    #[must_use]
    pub const fn of_status(status: u16) -> Counter {
        match status / 100 {
            1 => Counter::Responses1xx,
            2 => Counter::Responses2xx,
            3 => Counter::Responses3xx,
            4 => Counter::Responses4xx,
            _ => Counter::Responses5xx,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_every_counter_says_what_it_counts() {
        let names: HashSet<_> = Counter::ALL.iter().map(|counter| counter.name()).collect();
        assert_eq!(names.len(), Counter::ALL.len());
        for counter in Counter::ALL {
            assert!(
                counter
                    .name()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
            assert!(counter.help().ends_with('.'));
        }
    }

    #[test]
    fn each_counter_has_a_place_of_its_own() {
        let row = Counters {
            values: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        for (n, counter) in (1..).zip(Counter::ALL) {
            row.add(*counter, n);
        }
        row.add_alone(Counter::ALL[0], 7);
        assert_eq!(row.value(Counter::ALL[0]), 8);
        for (n, counter) in (1..).zip(Counter::ALL).skip(1) {
            assert_eq!(row.value(*counter), n);
        }
        assert_eq!(Counter::of_status(204), Counter::Responses2xx);
        assert_eq!(Counter::of_status(999), Counter::Responses5xx);
    }
}
