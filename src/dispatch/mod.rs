//! The master's mind: who waits, who is served next, by which worker, and what becomes of the workers.

mod conn;

pub use conn::{Conn, Peer};
