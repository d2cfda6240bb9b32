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
pub mod policy;
pub mod refresh;
pub mod reuse;
pub mod set;
pub mod stale;
pub mod status;
pub mod storable;
pub mod stored;
pub mod tags;
pub mod targeted;
pub mod vary;

pub use control::CacheControl;
pub use freshness::{Lifetime, Source};
pub use key::{Key, Side};
pub use name::Name;
pub use part::Part;
pub use policy::{Policies, Policy, PolicyId, SetCookie};
pub use refresh::{NotRefreshed, Refreshed, refresh};
pub use reuse::{MissReason, RevalidateReason, Verdict, reuse};
pub use set::{Matcher, Set, SetError};
pub use status::{CacheStatus, Forwarded};
pub use storable::{NotStored, Storing, storable};
pub use stored::{Stored, Times};
