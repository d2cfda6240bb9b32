//! Cache-Status (RFC 9211): what the cache did with a request, and why, for the response, the log and counters.
//!
//! A value in, the member that we append out. Deliver calls it.

use super::freshness::Source;
use super::reuse::{MissReason, RevalidateReason};
use super::storable::NotStored;
use crate::http::syntax::write_decimal;

/// Why a request went to the origin server, in RFC 9211's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forwarded {
    /// The cache is off, or has no part in such requests.
    Bypass,
    Method,
    /// Some of the octets are there, and not those that are asked for.
    Partial,
    /// The request's own fields asked for it.
    Request,
    Stale,
    UriMiss,
    VaryMiss,
}

impl Forwarded {
    pub fn as_str(self) -> &'static str {
        match self {
            Forwarded::Bypass => "bypass",
            Forwarded::Method => "method",
            Forwarded::Partial => "partial",
            Forwarded::Request => "request",
            Forwarded::Stale => "stale",
            Forwarded::UriMiss => "uri-miss",
            Forwarded::VaryMiss => "vary-miss",
        }
    }
}

impl From<MissReason> for Forwarded {
    fn from(reason: MissReason) -> Forwarded {
        match reason {
            MissReason::Method => Forwarded::Method,
            MissReason::NotFound => Forwarded::UriMiss,
            MissReason::Vary => Forwarded::VaryMiss,
            MissReason::Expired => Forwarded::Stale,
            MissReason::RequestDirective | MissReason::RequestNoStore => Forwarded::Request,
            MissReason::Conditional | MissReason::RequestContent | MissReason::Setting => {
                Forwarded::Bypass
            }
            MissReason::Range => Forwarded::Partial,
        }
    }
}

impl From<RevalidateReason> for Forwarded {
    fn from(reason: RevalidateReason) -> Forwarded {
        match reason {
            RevalidateReason::Clock
            | RevalidateReason::Expired
            | RevalidateReason::NoCache
            | RevalidateReason::Purged => Forwarded::Stale,
            RevalidateReason::RequestMaxAge
            | RevalidateReason::RequestMinFresh
            | RevalidateReason::RequestNoCache => Forwarded::Request,
        }
    }
}

/// What is said of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    pub hit: bool,
    pub forwarded: Option<Forwarded>,
    /// The origin server's status, where it is not the one that the client sees.
    pub forwarded_status: Option<u16>,
    pub stored: bool,
    /// The answer is that to another request for the same.
    pub collapsed: bool,
    /// Seconds of freshness left of what was served or stored.
    pub ttl: Option<i64>,
    /// A reason of ours, one word.
    pub detail: Option<&'static str>,
}

impl CacheStatus {
    pub fn hit(ttl: i64) -> CacheStatus {
        CacheStatus {
            hit: true,
            ttl: Some(ttl),
            ..CacheStatus::default()
        }
    }

    /// Never asked the cache, or found nothing.
    pub fn miss(reason: MissReason) -> CacheStatus {
        let detail = (!matches!(
            reason,
            MissReason::Method | MissReason::NotFound | MissReason::Vary
        ))
        .then(|| reason.as_str());
        CacheStatus {
            forwarded: Some(reason.into()),
            detail,
            ..CacheStatus::default()
        }
    }

    pub fn revalidated(reason: RevalidateReason) -> CacheStatus {
        CacheStatus {
            forwarded: Some(reason.into()),
            detail: Some(reason.as_str()),
            ..CacheStatus::default()
        }
    }

    /// The response was kept, and is fresh for `ttl` seconds.
    pub fn and_stored(self, ttl: i64) -> CacheStatus {
        CacheStatus {
            stored: true,
            ttl: Some(ttl),
            ..self
        }
    }

    /// Says where the lifetime comes from, if it is not from the response and nothing else is to be said.
    pub fn because(self, source: Source) -> CacheStatus {
        CacheStatus {
            detail: self.detail.or(source.word()),
            ..self
        }
    }

    pub fn and_not_stored(self, reason: NotStored) -> CacheStatus {
        CacheStatus {
            detail: Some(reason.as_str()),
            ..self
        }
    }

    /// Appends the value: `baton; hit; ttl=59` or `baton; fwd=uri-miss; stored; ttl=60`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"baton");
        // RFC 9211 2.2: "MUST NOT be present if hit"
        if self.hit {
            out.extend_from_slice(b"; hit");
        } else if let Some(forwarded) = self.forwarded {
            out.extend_from_slice(b"; fwd=");
            out.extend_from_slice(forwarded.as_str().as_bytes());
            if let Some(status) = self.forwarded_status {
                out.extend_from_slice(b"; fwd-status=");
                write_decimal(u64::from(status), out);
            }
        }
        if self.stored {
            out.extend_from_slice(b"; stored");
        }
        if self.collapsed {
            out.extend_from_slice(b"; collapsed");
        }
        if let Some(ttl) = self.ttl {
            out.extend_from_slice(if ttl < 0 { b"; ttl=-" } else { b"; ttl=" });
            write_decimal(ttl.unsigned_abs(), out);
        }
        if let Some(detail) = self.detail {
            out.extend_from_slice(b"; detail=");
            out.extend_from_slice(detail.as_bytes());
        }
    }
}

/// RFC 9211 2.7: "key" has "a representation of the cache key", as a String: what no String can hold is left out.
pub fn write_key(key: &[u8], out: &mut Vec<u8>) {
    if !key.iter().all(|c| matches!(c, b' '..=b'~')) {
        return;
    }
    out.extend_from_slice(b"; key=\"");
    for &c in key {
        if matches!(c, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(c);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::policy::Level;

    #[test]
    fn keys() {
        let text = |key: &[u8]| {
            let mut out = Vec::new();
            write_key(key, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(b"http://a/\"\\"), "; key=\"http://a/\\\"\\\\\"");
        assert_eq!(text(b"http://a/\xff"), "");
    }

    #[test]
    fn values() {
        let text = |status: CacheStatus| {
            let mut out = Vec::new();
            status.write(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(CacheStatus::hit(59)), "baton; hit; ttl=59");
        assert_eq!(text(CacheStatus::hit(-3)), "baton; hit; ttl=-3");
        assert_eq!(text(CacheStatus::default()), "baton");
        assert_eq!(
            text(CacheStatus::hit(9).because(Source::Ttl(Level::Rule))),
            "baton; hit; ttl=9; detail=ttl-rule"
        );
        assert_eq!(
            text(CacheStatus::hit(9).because(Source::MaxAge)),
            "baton; hit; ttl=9"
        );
        let miss = CacheStatus::miss(MissReason::NotFound);
        assert_eq!(text(miss), "baton; fwd=uri-miss");
        assert_eq!(
            text(miss.and_stored(60)),
            "baton; fwd=uri-miss; stored; ttl=60"
        );
        assert_eq!(
            text(miss.and_not_stored(NotStored::Private)),
            "baton; fwd=uri-miss; detail=private"
        );
        assert_eq!(
            text(CacheStatus::miss(MissReason::Range)),
            "baton; fwd=partial; detail=range"
        );
        let stale = CacheStatus {
            forwarded_status: Some(304),
            ..CacheStatus::revalidated(RevalidateReason::Expired)
        };
        assert_eq!(
            text(stale),
            "baton; fwd=stale; fwd-status=304; detail=expired"
        );
    }
}
