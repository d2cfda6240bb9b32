//! HTTP caching (RFC 9111) as pure rules: request, stored response and now in, verdict with its reason out.
//!
//! It keeps nothing and does no I/O: `store` keeps, the exchange asks. Whoever calls gives the time as seconds
//! since 1970.

pub mod control;
pub mod decide;
pub mod explain;
pub mod freshness;
pub mod invalidate;
pub mod key;
pub mod name;
pub mod part;
pub mod refresh;
pub mod reuse;
pub mod stale;
pub mod status;
pub mod storable;
pub mod stored;
pub mod vary;

pub use control::CacheControl;
pub use freshness::{Lifetime, Source};
pub use key::{Key, Side};
pub use name::Name;
pub use part::Part;
pub use refresh::{NotRefreshed, Refreshed, refresh};
pub use reuse::{MissReason, RevalidateReason, Verdict, reuse};
pub use status::{CacheStatus, Forwarded};
pub use storable::{NotStored, Storing, storable};
pub use stored::{Stored, Times};

/// What the operator decides about storing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Seconds that a response which says nothing stays fresh; 0: it is not kept.
    pub ttl: u32,
    pub set_cookie: SetCookie,
    /// Seconds that a stale response is served where it says nothing of that itself: while it is revalidated, and instead
    /// of an error of the origin server.
    pub stale_while_revalidate: u32,
    pub stale_if_error: u32,
}

/// What becomes of an explicitly fresh response with Set-Cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetCookie {
    /// Stored without the field.
    #[default]
    Strip,
    /// Stored as it is (RFC 9111 section 7.3 as written).
    Store,
    /// Not stored.
    Refuse,
}
