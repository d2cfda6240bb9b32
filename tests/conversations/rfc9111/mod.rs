//! What a shared HTTP cache must, should and may do, as tables of RFC 9111 and its companions.
//!
//! Black-box: a scripted origin server, the real binary, a raw client. A row is a behaviour under the section that
//! says it (RFC 9111, 9110, 5861, 8246, 9211, 9213); its steps are requests. All rows of a table are played, and what does
//! not hold is told in one line a row. Read `words` first, then any table.

mod engine;
mod times;
mod verdict;
mod words;

mod cache_status;
mod freshness;
mod heads;
mod invalidation;
mod parsing;
mod ranges;
mod requests;
mod stale;
mod storing;
mod strangers;
mod targeted;
mod updates;
mod validation;
mod vary;
