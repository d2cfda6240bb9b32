//! baton: a pre-forked, multi-process caching HTTP proxy.
//!
//! One master accepts every connection and passes the open socket to a worker; a socket that is still
//! alive comes back and waits for its next request in the master's hands. `ARCHITECTURE.md` tells which
//! process does what; a module imports only from rows above its own, and a test holds the tree to that.

// row 0: leaves
pub mod dispatch;
pub mod http;
pub mod sys;
// row 1: rules, pure
pub mod access;
pub mod cache;
pub mod routing;
// row 2: plumbing
pub mod config;
pub mod ipc;
pub mod log;
pub mod shared;
pub mod wire;
// row 3: services
pub mod store;
pub mod upstream;
// row 4: roles
pub mod janitor;
pub mod master;
pub mod worker;
// row 5
pub mod cli;
pub mod roles;
