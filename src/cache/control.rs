//! Cache-Control, of requests and of responses, read into one value (RFC 9111 section 5.2).
//!
//! Unknown directives are ignored, broken arguments read as the most careful ones. Nothing is allocated. The
//! other files of `cache` call it.

use super::policy::Policy;
use crate::http::Headers;
use crate::http::syntax::{decimal, members, quoted, trim, unquoted};

/// RFC 9111 1.2.2: "If a cache receives a delta-seconds value greater than the greatest integer it can represent, or
/// if any of its subsequent calculations overflows, the cache MUST consider the value to be 2147483648 (2^31)"
pub const FOREVER: u32 = 1 << 31;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// Whether there is such a field at all.
    pub present: bool,
    pub immutable: bool,
    pub must_revalidate: bool,
    pub must_understand: bool,
    /// Without field names.
    pub no_cache: bool,
    pub no_store: bool,
    pub only_if_cached: bool,
    /// Without field names.
    pub private: bool,
    pub proxy_revalidate: bool,
    pub public: bool,
    /// `no-cache` or `private` comes with field names.
    pub names_fields: bool,
    pub max_age: Option<u32>,
    /// `FOREVER` where it comes without an argument.
    pub max_stale: Option<u32>,
    pub min_fresh: Option<u32>,
    pub s_maxage: Option<u32>,
    pub stale_if_error: Option<u32>,
    pub stale_while_revalidate: Option<u32>,
    pub spoken_by: Speaker,
}

/// Which field of a response said it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speaker {
    #[default]
    CacheControl,
    /// Surrogate-Control.
    Surrogate,
    /// One on the operator's list of targeted fields (RFC 9213).
    Targeted,
}

impl CacheControl {
    /// What a client asks for, as far as the operator lets clients decide.
    pub fn asked(request: &Headers, policy: &Policy) -> CacheControl {
        let control = CacheControl::of(request);
        match policy.ignore_reload {
            // What browsers send for a reload: no-cache, or max-age=0.
            true => CacheControl {
                no_cache: false,
                max_age: control.max_age.filter(|seconds| *seconds > 0),
                ..control
            },
            false => control,
        }
    }

    pub fn of(headers: &Headers) -> CacheControl {
        let mut control = CacheControl::default();
        for line in headers.get_all("cache-control") {
            control.present = true;
            directives(line, |name, argument| control.take(name, argument));
        }
        control
    }

    fn take(&mut self, name: &[u8], argument: Argument<'_>) {
        let is = |directive: &str| name.eq_ignore_ascii_case(directive.as_bytes());
        // 4.2.1: "When there is more than one value present for a given directive [...], either the first occurrence should
        // be used or the response should be considered stale", and "Caches are encouraged to consider responses that have
        // invalid freshness information (e.g., a max-age directive with non-integer content) to be stale": the least
        // lifetime is right for both.
        let least = |so_far: Option<u32>| {
            let seconds = argument.seconds().unwrap_or(0);
            Some(so_far.map_or(seconds, |so_far| so_far.min(seconds)))
        };
        let names_fields = matches!(argument, Argument::Value(value) if !value.is_empty());
        match name.len() {
            6 if is("public") => self.public = true,
            7 if is("max-age") => self.max_age = least(self.max_age),
            7 if is("private") => match names_fields {
                true => self.names_fields = true,
                false => self.private = true,
            },
            8 if is("no-store") => self.no_store = true,
            8 if is("no-cache") => match names_fields {
                true => self.names_fields = true,
                false => self.no_cache = true,
            },
            8 if is("s-maxage") => self.s_maxage = least(self.s_maxage),
            9 if is("immutable") => self.immutable = true,
            9 if is("max-stale") => match argument {
                Argument::None => self.max_stale = Some(self.max_stale.unwrap_or(FOREVER)),
                _ => self.max_stale = least(self.max_stale),
            },
            9 if is("min-fresh") => {
                let seconds = argument.seconds().unwrap_or(FOREVER);
                self.min_fresh = Some(self.min_fresh.map_or(seconds, |so_far| so_far.max(seconds)));
            }
            14 if is("only-if-cached") => self.only_if_cached = true,
            14 if is("stale-if-error") => self.stale_if_error = least(self.stale_if_error),
            15 if is("must-revalidate") => self.must_revalidate = true,
            15 if is("must-understand") => self.must_understand = true,
            16 if is("proxy-revalidate") => self.proxy_revalidate = true,
            22 if is("stale-while-revalidate") => {
                self.stale_while_revalidate = least(self.stale_while_revalidate)
            }
            _ => {}
        }
    }

    /// Its directives without arguments, in an order that does not change: stored responses have them so.
    pub fn flags(&mut self) -> [&mut bool; 10] {
        [
            &mut self.immutable,
            &mut self.must_revalidate,
            &mut self.must_understand,
            &mut self.no_cache,
            &mut self.no_store,
            &mut self.only_if_cached,
            &mut self.private,
            &mut self.proxy_revalidate,
            &mut self.public,
            &mut self.names_fields,
        ]
    }

    /// Those with a time, likewise.
    pub fn times(&mut self) -> [&mut Option<u32>; 6] {
        [
            &mut self.max_age,
            &mut self.max_stale,
            &mut self.min_fresh,
            &mut self.s_maxage,
            &mut self.stale_if_error,
            &mut self.stale_while_revalidate,
        ]
    }

    /// Whether what is stale must never be served without asking (RFC 9111 section 4.2.4).
    pub fn forbids_stale(&self) -> bool {
        // 5.2.2.10: s-maxage "incorporates the semantics of the proxy-revalidate response directive"
        self.must_revalidate || self.proxy_revalidate || self.no_cache || self.s_maxage.is_some()
    }
}

/// What follows a directive's name.
#[derive(Clone, Copy, Debug)]
enum Argument<'a> {
    None,
    /// Without quotes.
    Value(&'a [u8]),
    Invalid,
}

impl Argument<'_> {
    fn seconds(self) -> Option<u32> {
        let Argument::Value(value) = self else {
            return None;
        };
        match decimal(value) {
            Some(seconds) => Some(u32::try_from(seconds).unwrap_or(FOREVER).min(FOREVER)),
            None if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => Some(FOREVER),
            None => None,
        }
    }
}

/// Calls `take` for each directive of a line.
fn directives<'a>(line: &'a [u8], mut take: impl FnMut(&'a [u8], Argument<'a>)) {
    for member in members(line) {
        directive(member, &mut take);
        // A quote that never ends must not hide the directives behind it.
        if unquoted(member, b',').is_none() && member.contains(&b',') && !is_balanced(member) {
            member
                .split(|&c| c == b',')
                .skip(1)
                .for_each(|piece| directive(trim(piece), &mut take));
        }
    }
}

fn directive<'a>(member: &'a [u8], take: &mut impl FnMut(&'a [u8], Argument<'a>)) {
    let Some(equals) = memchr::memchr(b'=', member) else {
        return take(member, Argument::None);
    };
    let (name, value) = (&member[..equals], &member[equals + 1..]);
    // The grammar has no white space there; whoever writes it gets the careful reading.
    if trim(name) != name || trim(value) != value {
        return take(trim(name), Argument::Invalid);
    }
    // 5.2: "Cache directives [...] have an optional argument [that] can use both token and quoted-string syntax"
    take(name, Argument::Value(quoted(value).unwrap_or(value)));
}

fn is_balanced(member: &[u8]) -> bool {
    let mut quoted = false;
    let mut escaped = false;
    for &c in member {
        match c {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    !quoted
}

/// Calls `take` with each field that `no-cache` or `private` names.
pub fn named_fields(headers: &Headers, mut take: impl FnMut(&[u8])) {
    for line in headers.get_all("cache-control") {
        directives(line, |name, argument| {
            if let Argument::Value(value) = argument
                && (name.eq_ignore_ascii_case(b"no-cache") || name.eq_ignore_ascii_case(b"private"))
            {
                value
                    .split(|c| matches!(c, b',' | b' ' | b'\t' | b'"'))
                    .for_each(&mut take);
            }
        });
    }
}

/// Whether a request asks for a fresh look the old way: "When the Cache-Control header field is also present and
/// understood in a request, Pragma is ignored." (RFC 9111 section 5.4)
pub fn pragma_no_cache(headers: &Headers) -> bool {
    headers.has_token("pragma", "no-cache")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> CacheControl {
        CacheControl::of(&lines.iter().map(|line| ("Cache-Control", *line)).collect())
    }

    #[test]
    fn seconds() {
        for (line, expected) in [
            ("max-age=10", Some(10)),
            ("MAX-AGE=\"10\"", Some(10)),
            ("max-age=007", Some(7)),
            ("max-age=2147483648", Some(FOREVER)),
            ("max-age=4294967297", Some(FOREVER)),
            ("max-age=99999999999999999999999", Some(FOREVER)),
            ("max-age=10, max-age=5", Some(5)),
            ("max-age=5, max-age=10", Some(5)),
            ("max-age=5, max-age=x", Some(0)),
            ("foo=\"max-age=3\", max-age=10", Some(10)),
            ("foo=\"a, max-age=3\", max-age=10", Some(10)),
            ("max-age", Some(0)),
            ("max-age=", Some(0)),
            ("max-age=\"\"", Some(0)),
            ("max-age=-1", Some(0)),
            ("max-age=+1", Some(0)),
            ("max-age=1.5", Some(0)),
            ("max-age='10'", Some(0)),
            ("max-age=10 x", Some(0)),
            ("max-age =10", Some(0)),
            ("max-age= 10", Some(0)),
            ("max-age:10", None),
            ("x-max-age=10", None),
            ("", None),
        ] {
            assert_eq!(of(&[line]).max_age, expected, "{line}");
        }
    }

    #[test]
    fn directives_of_all_kinds() {
        let control = of(&[
            "No-Store,, private=\"a, b\" , no-cache=\"\"",
            "PUBLIC;x, must-revalidate, foo=bar",
        ]);
        assert!(control.present && control.no_store && control.no_cache && control.must_revalidate);
        assert!(control.names_fields && !control.private && !control.public);
        let control = of(&[
            "public, s-maxage=3, proxy-revalidate, immutable, must-understand, stale-if-error=4",
        ]);
        assert!(
            control.public
                && control.proxy_revalidate
                && control.immutable
                && control.must_understand
        );
        assert_eq!(
            (control.s_maxage, control.stale_if_error, control.max_age),
            (Some(3), Some(4), None)
        );
        let control = of(&["max-stale, min-fresh=5, min-fresh=4, only-if-cached"]);
        assert_eq!(
            (control.max_stale, control.min_fresh, control.only_if_cached),
            (Some(FOREVER), Some(5), true)
        );
        assert_eq!(of(&["max-stale=7, max-stale"]).max_stale, Some(7));
        assert_eq!(of(&["max-stale=x, min-fresh=x"]).max_stale, Some(0));
        assert_eq!(CacheControl::of(&Headers::new()), CacheControl::default());
    }

    #[test]
    fn an_open_quote_hides_nothing() {
        for line in [
            "foo=\"bar, no-store",
            "foo=\"bar\\\", no-store",
            "\", no-store",
        ] {
            assert!(of(&[line]).no_store, "{line}");
        }
        assert!(!of(&["foo=\"bar, no-store\""]).no_store);
    }

    #[test]
    fn named() {
        let headers: Headers = [("Cache-Control", "private=\"Set-Cookie, X-A\", no-cache=x-b")]
            .into_iter()
            .collect();
        let mut names = Vec::new();
        named_fields(&headers, |name| {
            names.push(String::from_utf8_lossy(name).into_owned())
        });
        names.retain(|name| !name.is_empty());
        assert_eq!(names, ["Set-Cookie", "X-A", "x-b"]);
    }
}
