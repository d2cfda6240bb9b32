//! HTTP/1.1 as values: heads, targets, framing, bodies, connection options, dates, conditions, preferences, ranges, our own pages.
//!
//! Bytes go in, values come out. Nothing here has a socket or a clock, and nothing the network sends can
//! make it panic. Sessions, exchanges, the upstream client and the cache rules call it.

pub mod body;
pub mod chunked;
pub mod conditional;
pub mod connection;
pub mod date;
pub mod etag;
pub mod framing;
pub mod head;
pub mod headers;
pub mod method;
pub mod page;
pub mod preference;
pub mod range;
pub mod syntax;
pub mod target;

pub use body::{BodyError, Decoder, EncodeError, Encoder, Step};
pub use framing::{Framing, FramingError};
pub use head::{HeadError, Limits, Method, RequestHead, ResponseHead, Scan, Version};
pub use headers::Headers;
pub use page::{Answer, AnswerReason};
pub use target::{Authority, Host, Target, TargetError, TargetUri};
