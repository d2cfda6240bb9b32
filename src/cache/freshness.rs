//! How long a response is fresh, and how old it is (RFC 9111 sections 4.2.1 to 4.2.3).
//!
//! Seconds everywhere; no arithmetic here can overflow or go below zero. The other files of `cache` call it.

use super::control::{CacheControl, FOREVER, Speaker, pragma_no_cache};
use super::policy::{Level, Policy};
use crate::http::Headers;
use crate::http::date;
use crate::http::syntax::{decimal, trim};

/// Where a lifetime comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Expires,
    /// A share of the time since Last-Modified (section 4.2.2).
    Heuristic,
    MaxAge,
    /// It was more, and the operator's `max_ttl` is less.
    MaxTtl(Level),
    /// The response gives less than the operator's `min_ttl`.
    MinTtl(Level),
    /// The response says nothing, and neither does the operator.
    Nothing,
    SharedMaxAge,
    /// The response says nothing; the operator's `ttl` does.
    Ttl(Level),
}

impl Source {
    /// Every one; the place is its number in a stored response.
    const ALL: [Source; 14] = [
        Source::Expires,
        Source::Heuristic,
        Source::MaxAge,
        Source::Nothing,
        Source::SharedMaxAge,
        Source::MaxTtl(Level::Cache),
        Source::MaxTtl(Level::Listener),
        Source::MaxTtl(Level::Rule),
        Source::MinTtl(Level::Cache),
        Source::MinTtl(Level::Listener),
        Source::MinTtl(Level::Rule),
        Source::Ttl(Level::Cache),
        Source::Ttl(Level::Listener),
        Source::Ttl(Level::Rule),
    ];

    pub fn number(self) -> u8 {
        let at = Source::ALL.iter().position(|source| *source == self);
        at.unwrap_or_default() as u8
    }

    /// What `number` gave.
    pub fn from_number(number: u8) -> Option<Source> {
        Source::ALL.get(usize::from(number)).copied()
    }

    /// Whether the origin server gave it, as it is.
    pub fn is_explicit(self) -> bool {
        matches!(
            self,
            Source::Expires | Source::MaxAge | Source::SharedMaxAge
        )
    }

    /// One word for Cache-Status and the log, where it is not what the response itself says.
    pub fn word(self) -> Option<&'static str> {
        Some(match self {
            Source::Heuristic => "heuristic",
            Source::MaxTtl(Level::Cache) => "max-ttl",
            Source::MaxTtl(Level::Listener) => "max-ttl-listener",
            Source::MaxTtl(Level::Rule) => "max-ttl-rule",
            Source::MinTtl(Level::Cache) => "min-ttl",
            Source::MinTtl(Level::Listener) => "min-ttl-listener",
            Source::MinTtl(Level::Rule) => "min-ttl-rule",
            Source::Ttl(Level::Cache) => "ttl",
            Source::Ttl(Level::Listener) => "ttl-listener",
            Source::Ttl(Level::Rule) => "ttl-rule",
            Source::Expires | Source::MaxAge | Source::Nothing | Source::SharedMaxAge => {
                return None;
            }
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub seconds: u32,
    pub source: Source,
}

/// What the response itself gives, as it is, or what is taken where it gives nothing.
///
/// Explicit times go first, then the operator's `ttl`, then a heuristic; `bounded` comes after.
pub fn lifetime(
    status: u16,
    headers: &Headers,
    control: &CacheControl,
    response_time: i64,
    policy: &Policy,
) -> Lifetime {
    let of = |seconds, source| Lifetime { seconds, source };
    // RFC 9111 4.2.1: "A cache can calculate the freshness lifetime [...] by evaluating the following rules and using the
    // first match": "If the cache is shared and the s-maxage response directive is present, use its value, or"
    if let Some(seconds) = control.s_maxage {
        return of(seconds, Source::SharedMaxAge);
    }
    // "If the max-age response directive is present, use its value, or"
    if let Some(seconds) = control.max_age {
        return of(seconds, Source::MaxAge);
    }
    // "If the Expires response header field is present, use its value minus the value of the Date response header field
    // (using the time the message was received if it is not present), or" RFC 9213 2.2: where a targeted field counts, the
    // cache "MUST ignore the Cache-Control and Expires header fields in that response".
    if control.spoken_by == Speaker::CacheControl
        && let Some(seconds) = expires(headers, response_time)
    {
        return of(seconds, Source::Expires);
    }
    // "Otherwise, no explicit expiration time is present in the response. A heuristic freshness lifetime might be
    // applicable; see Section 4.2.2." There: "a cache MUST NOT use heuristics to determine freshness when an explicit
    // expiration time is present", and responses "with status codes that are defined as heuristically cacheable [...] or
    // that have been marked as explicitly cacheable (e.g., with a public response directive)".
    let may = is_heuristic(status) || control.public;
    if !may || !control.present && pragma_no_cache(headers) {
        return of(0, Source::Nothing);
    }
    if policy.ttl.seconds > 0 {
        return of(policy.ttl.seconds.min(FOREVER), Source::Ttl(policy.ttl.by));
    }
    match heuristic(headers, response_time, policy) {
        0 => of(0, Source::Nothing),
        seconds => of(seconds, Source::Heuristic),
    }
}

/// 4.2.2: "If the response has a Last-Modified header field [...], caches are encouraged to use a heuristic expiration
/// value that is no more than some fraction of the interval since that time. A typical setting of this fraction might
/// be 10%."
fn heuristic(headers: &Headers, response_time: i64, policy: &Policy) -> u32 {
    let modified = headers.get("last-modified");
    let Some(modified) = modified.and_then(|value| date::parse_near(trim(value), response_time))
    else {
        return 0;
    };
    let unchanged = clamp(date_value(headers, response_time).saturating_sub(modified));
    let share = u64::from(unchanged) * u64::from(policy.heuristic_percent.min(100)) / 100;
    (share as u32).min(policy.heuristic_max)
}

/// Within the operator's bounds. `min_ttl` raises what the response gives explicitly, and nothing else: what it does not
/// say has `ttl`. `max_ttl` goes last, and over anything.
pub fn bounded(lifetime: Lifetime, policy: &Policy) -> Lifetime {
    let (least, most) = (policy.min_ttl, policy.max_ttl);
    let raised = match lifetime.source.is_explicit() && lifetime.seconds < least.seconds {
        true => Lifetime {
            seconds: least.seconds.min(FOREVER),
            source: Source::MinTtl(least.by),
        },
        false => lifetime,
    };
    match most.seconds > 0 && raised.seconds > most.seconds {
        true => Lifetime {
            seconds: most.seconds,
            source: Source::MaxTtl(most.by),
        },
        false => raised,
    }
}

/// None: there is no Expires; anything wrong with it: it has expired.
fn expires(headers: &Headers, response_time: i64) -> Option<u32> {
    let mut lines = headers.get_all("expires");
    let value = lines.next()?;
    // 5.3: "A cache recipient MUST interpret invalid date formats, especially the value "0", as representing a time in the
    // past (i.e., "already expired")."
    let expires = match lines.next() {
        None => date::parse_near(trim(value), response_time),
        Some(_) => None,
    };
    Some(expires.map_or(0, |expires| {
        clamp(expires.saturating_sub(date_value(headers, response_time)))
    }))
}

/// Statuses that RFC 9110 section 15.1 calls heuristically cacheable, less 206.
pub fn is_heuristic(status: u16) -> bool {
    matches!(
        status,
        200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// The Date field, or the time of receipt where there is no valid one.
pub fn date_value(headers: &Headers, response_time: i64) -> i64 {
    headers
        .get("date")
        .and_then(|value| date::parse_near(trim(value), response_time))
        .unwrap_or(response_time)
}

/// The Age that a response came with: the first member that is a number.
pub fn age_value(headers: &Headers) -> u32 {
    // 5.1: "If the value of the Age header field is not valid [...] it is ignored", and "uses the first value"
    let seconds = headers
        .list("age")
        .find_map(|member| match decimal(member) {
            Some(seconds) => Some(u32::try_from(seconds).unwrap_or(FOREVER)),
            None if member.iter().all(u8::is_ascii_digit) => Some(FOREVER),
            None => None,
        });
    seconds.unwrap_or(0).min(FOREVER)
}

/// `corrected_initial_age` of RFC 9111 section 4.2.3.
pub fn initial_age(headers: &Headers, request_time: i64, response_time: i64) -> u32 {
    // apparent_age = max(0, response_time - date_value);
    let apparent_age = clamp(response_time.saturating_sub(date_value(headers, response_time)));
    // response_delay = response_time - request_time; corrected_age_value = age_value + response_delay;
    let response_delay = clamp(response_time.saturating_sub(request_time));
    let corrected_age_value = age_value(headers)
        .saturating_add(response_delay)
        .min(FOREVER);
    // corrected_initial_age = max(apparent_age, corrected_age_value);
    apparent_age.max(corrected_age_value)
}

/// `resident_time = now - response_time; current_age = corrected_initial_age + resident_time;`
pub fn current_age(initial_age: u32, response_time: i64, now: i64) -> u32 {
    initial_age
        .saturating_add(clamp(now.saturating_sub(response_time)))
        .min(FOREVER)
}

fn clamp(seconds: i64) -> u32 {
    seconds.clamp(0, i64::from(FOREVER)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::policy::Bound;

    const NOW: i64 = 784_111_777;
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const IN_AN_HOUR: &str = "Sun, 06 Nov 1994 09:49:37 GMT";

    fn of(status: u16, fields: &[(&str, &str)], ttl: u32) -> (u32, Source) {
        let headers = fields.iter().copied().collect();
        let policy = Policy {
            ttl: Bound::new(ttl),
            ..Policy::default()
        };
        let found = lifetime(status, &headers, &CacheControl::of(&headers), NOW, &policy);
        (found.seconds, found.source)
    }

    #[test]
    fn lifetimes() {
        use Source::*;
        let cc = |value| ("Cache-Control", value);
        let expires = ("Expires", IN_AN_HOUR);
        for (fields, ttl, expected) in [
            (
                &[cc("s-maxage=1, max-age=2"), expires][..],
                9,
                (1, SharedMaxAge),
            ),
            (&[cc("max-age=2"), expires], 9, (2, MaxAge)),
            (&[cc("max-age=x"), expires], 9, (0, MaxAge)),
            (&[cc("public"), expires], 9, (3600, Expires)),
            (
                &[expires, ("Date", "Sun, 06 Nov 1994 08:49:27 GMT")],
                9,
                (3610, Expires),
            ),
            (&[expires, ("Date", "nonsense")], 9, (3600, Expires)),
            (&[("Expires", "0")], 9, (0, Expires)),
            (&[("Expires", "")], 9, (0, Expires)),
            (&[expires, expires], 9, (0, Expires)),
            (&[("Expires", DATE), ("Date", IN_AN_HOUR)], 9, (0, Expires)),
            (
                &[("Expires", "Sunday, 06-Nov-94 09:49:37 GMT")],
                9,
                (3600, Expires),
            ),
            (&[], 9, (9, Ttl(Level::Cache))),
            (&[], 0, (0, Nothing)),
            (&[("Pragma", "no-cache")], 9, (0, Nothing)),
        ] {
            assert_eq!(of(200, fields, ttl), expected, "{fields:?}");
        }
        assert_eq!(of(302, &[], 9), (0, Nothing));
        assert_eq!(of(302, &[cc("public")], 9), (9, Ttl(Level::Cache)));
        assert_eq!(of(302, &[cc("max-age=3")], 9), (3, MaxAge));
    }

    #[test]
    fn heuristics() {
        use Source::*;
        let cc = |value| ("Cache-Control", value);
        let day_ago = ("Last-Modified", "Sat, 05 Nov 1994 08:49:37 GMT");
        let year_ago = ("Last-Modified", "Sat, 06 Nov 1993 08:49:37 GMT");
        for (status, fields, expected) in [
            (200, &[day_ago][..], (8640, Heuristic)),
            (200, &[day_ago, ("Date", IN_AN_HOUR)], (9000, Heuristic)),
            (200, &[year_ago], (86_400, Heuristic)),
            (200, &[("Last-Modified", IN_AN_HOUR)], (0, Nothing)),
            (200, &[("Last-Modified", "yesterday")], (0, Nothing)),
            (200, &[day_ago, cc("max-age=3")], (3, MaxAge)),
            (200, &[day_ago, cc("max-age=x")], (0, MaxAge)),
            (200, &[day_ago, ("Expires", "0")], (0, Expires)),
            (200, &[day_ago, ("Pragma", "no-cache")], (0, Nothing)),
            (404, &[day_ago], (8640, Heuristic)),
            (302, &[day_ago], (0, Nothing)),
            (302, &[day_ago, cc("public")], (8640, Heuristic)),
        ] {
            assert_eq!(of(status, fields, 0), expected, "{status} {fields:?}");
        }
        assert_eq!(of(200, &[day_ago], 9), (9, Ttl(Level::Cache)));
        let never = Policy {
            heuristic_max: 0,
            ..Policy::default()
        };
        let headers = [day_ago].into_iter().collect();
        let control = CacheControl::default();
        let found = lifetime(200, &headers, &control, NOW, &never);
        assert_eq!(found.source, Nothing);
    }

    #[test]
    fn the_operators_bounds() {
        use Source::*;
        let bound = |seconds, by| Bound { seconds, by };
        for (seconds, source, least, most, expected) in [
            (10, MaxAge, 60, 0, (60, MinTtl(Level::Rule))),
            (0, Expires, 60, 0, (60, MinTtl(Level::Rule))),
            (90, MaxAge, 60, 0, (90, MaxAge)),
            (10, Heuristic, 60, 0, (10, Heuristic)),
            (0, Nothing, 60, 0, (0, Nothing)),
            (90, MaxAge, 0, 60, (60, MaxTtl(Level::Listener))),
            (90, Heuristic, 0, 60, (60, MaxTtl(Level::Listener))),
            (90, Ttl(Level::Cache), 0, 60, (60, MaxTtl(Level::Listener))),
            (10, MaxAge, 90, 60, (60, MaxTtl(Level::Listener))),
        ] {
            let policy = Policy {
                min_ttl: bound(least, Level::Rule),
                max_ttl: bound(most, Level::Listener),
                ..Policy::default()
            };
            let found = bounded(Lifetime { seconds, source }, &policy);
            assert_eq!((found.seconds, found.source), expected, "{source:?}");
        }
    }

    #[test]
    fn every_source_has_a_number() {
        for (number, source) in Source::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(source.number()), number);
            assert_eq!(Source::from_number(source.number()), Some(source));
        }
        assert_eq!(Source::from_number(14), None);
    }

    #[test]
    fn ages() {
        for (fields, request_time, expected) in [
            (&[][..], NOW, 0),
            (&[("Age", "7")], NOW, 7),
            (&[("Age", "7")], NOW - 3, 10),
            (
                &[("Age", "7"), ("Date", "Sun, 06 Nov 1994 08:49:17 GMT")],
                NOW - 3,
                20,
            ),
            (&[("Date", IN_AN_HOUR)], NOW, 0),
            (&[("Age", "x, -1, 8, 9")], NOW, 8),
            (&[("Age", "-5")], NOW, 0),
            (&[("Age", "1.5")], NOW, 0),
            (&[("Age", "99999999999999999999999")], NOW, FOREVER),
            (&[("Age", "4294967295")], NOW - 9, FOREVER),
        ] {
            let headers = fields.iter().copied().collect();
            assert_eq!(
                initial_age(&headers, request_time, NOW),
                expected,
                "{fields:?}"
            );
        }
        assert_eq!(current_age(5, NOW, NOW + 3), 8);
        assert_eq!(current_age(5, NOW, NOW - 3), 5);
        assert_eq!(current_age(5, i64::MIN, i64::MAX), FOREVER);
    }
}
