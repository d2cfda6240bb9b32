//! The operating system, wrapped once: the only place where `unsafe` is written.
//!
//! Each file wraps one idea and decides nothing: no policy, no retry, no log line. Descriptors come in borrowed
//! and leave owned; errors are `std::io::Error` as the kernel gave them. The master, the workers and the plumbing
//! between them call it.

pub mod clock;
pub mod epoll;
pub mod fd;
pub mod files;
pub mod limits;
pub mod memory;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod thread;
pub mod title;
pub mod watched;
