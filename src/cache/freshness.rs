//! How long a response is fresh, and how old it is (RFC 9111 sections 4.2.1 to 4.2.3).
//!
//! Seconds everywhere; no arithmetic here can overflow or go below zero. The other files of `cache` call it.

use super::Policy;
use super::control::{CacheControl, FOREVER, pragma_no_cache};
use crate::http::Headers;
use crate::http::date;
use crate::http::syntax::{decimal, trim};

/// Where a lifetime comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Expires,
    MaxAge,
    /// The response says nothing, and neither does the operator.
    Nothing,
    SharedMaxAge,
    /// The response says nothing; the operator's `ttl` does.
    Ttl,
}

impl Source {
    /// What `source as u8` came from.
    pub fn from_number(number: u8) -> Option<Source> {
        const ALL: [Source; 5] = [
            Source::Expires,
            Source::MaxAge,
            Source::Nothing,
            Source::SharedMaxAge,
            Source::Ttl,
        ];
        ALL.get(usize::from(number)).copied()
    }

    /// Whether the origin server gave it.
    pub fn is_explicit(self) -> bool {
        matches!(
            self,
            Source::Expires | Source::MaxAge | Source::SharedMaxAge
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub seconds: u32,
    pub source: Source,
}

/// RFC 9111 4.2.1: "A cache can calculate the freshness lifetime [...] by evaluating the following rules and using the
/// first match"
pub fn lifetime(
    status: u16,
    headers: &Headers,
    control: &CacheControl,
    response_time: i64,
    policy: &Policy,
) -> Lifetime {
    // "If the cache is shared and the s-maxage response directive is present, use its value, or"
    if let Some(seconds) = control.s_maxage {
        return Lifetime {
            seconds,
            source: Source::SharedMaxAge,
        };
    }
    // "If the max-age response directive is present, use its value, or"
    if let Some(seconds) = control.max_age {
        return Lifetime {
            seconds,
            source: Source::MaxAge,
        };
    }
    // "If the Expires response header field is present, use its value minus the value of the Date response header field
    // (using the time the message was received if it is not present), or"
    if let Some(seconds) = expires(headers, response_time) {
        return Lifetime {
            seconds,
            source: Source::Expires,
        };
    }
    // "Otherwise, no explicit expiration time is present in the response."
    let may =
        (is_heuristic(status) || control.public) && (control.present || !pragma_no_cache(headers));
    match policy.ttl {
        ttl @ 1.. if may => Lifetime {
            seconds: ttl.min(FOREVER),
            source: Source::Ttl,
        },
        _ => Lifetime {
            seconds: 0,
            source: Source::Nothing,
        },
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

    const NOW: i64 = 784_111_777;
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const IN_AN_HOUR: &str = "Sun, 06 Nov 1994 09:49:37 GMT";

    fn of(status: u16, fields: &[(&str, &str)], ttl: u32) -> (u32, Source) {
        let headers = fields.iter().copied().collect();
        let policy = Policy {
            ttl,
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
            (&[], 9, (9, Ttl)),
            (&[], 0, (0, Nothing)),
            (&[("Pragma", "no-cache")], 9, (0, Nothing)),
        ] {
            assert_eq!(of(200, fields, ttl), expected, "{fields:?}");
        }
        assert_eq!(of(302, &[], 9), (0, Nothing));
        assert_eq!(of(302, &[cc("public")], 9), (9, Ttl));
        assert_eq!(of(302, &[cc("max-age=3")], 9), (3, MaxAge));
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
