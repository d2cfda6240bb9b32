//! Which field of a response says how it may be cached: one for caches like this one, or Cache-Control.
//!
//! Targeted fields (RFC 9213) on the operator's list go first, then Surrogate-Control (Edge Architecture Specification
//! 1.0, in the form that Varnish, Squid and Fastly read), then Cache-Control. The first that says anything counts alone.
//! `storable` and `stored` ask here; nothing of this concerns requests.

use std::borrow::Cow;
use std::convert::Infallible;

use sfv::visitor::{
    DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ParameterVisitor,
};
use sfv::{BareItemFromInput, KeyRef, Parser, Version};

use super::control::{self, CacheControl, FOREVER, Speaker};
use super::policy::Policy;
use crate::http::Headers;
use crate::http::syntax::{decimal, trim};

/// What the response says to this cache.
pub fn control(headers: &Headers, policy: &Policy) -> CacheControl {
    // RFC 9213 2.2: "the cache MUST select the first (in target-list order) field with a valid, non-empty value and use
    // its value to determine the caching policy for the response, and it MUST ignore the Cache-Control and Expires header
    // fields in that response, unless no valid, non-empty value is available".
    let targeted = policy.targeted.iter().find_map(|name| {
        let members = members(headers, name)?;
        Some(directives(&members))
    });
    targeted
        .or_else(|| surrogate(headers))
        .unwrap_or_else(|| CacheControl::of(headers))
}

/// Calls `take` with each field that `no-cache` or `private` names, where it counts.
pub fn named_fields(headers: &Headers, policy: &Policy, mut take: impl FnMut(&[u8])) {
    let mut lists = policy.targeted.iter();
    let Some(members) = lists.find_map(|name| members(headers, name)) else {
        if surrogate(headers).is_none() {
            control::named_fields(headers, take);
        }
        return;
    };
    for (name, value) in &members {
        if let (&("no-cache" | "private"), Value::Text(names)) = (name, value) {
            names
                .split([',', ' '])
                .for_each(|name| take(name.as_bytes()));
        }
    }
}

// === targeted fields

/// The directives that a response can have (RFC 9111 section 5.2.2 and its extensions).
const NAMES: [&str; 13] = [
    "immutable",
    "max-age",
    "must-revalidate",
    "must-understand",
    "no-cache",
    "no-store",
    "private",
    "proxy-revalidate",
    "public",
    "s-maxage",
    "stale-if-error",
    "stale-while-revalidate",
    "no-transform",
];

/// A member's value, as far as any directive has a use for it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Boolean(bool),
    Integer(i64),
    Text(String),
    Other,
}

/// The members that are directives, each name once.
type Members = Vec<(&'static str, Value)>;

/// None: there is no such field, or it is empty, or is no dictionary.
///
/// RFC 9213 2.1: "If a targeted field in a given response is empty or a parsing error is encountered, that field MUST be
/// ignored by the cache". The grammar is that of RFC 8941, which RFC 9213 names: the types that RFC 9651 has added are
/// errors in it.
fn members(headers: &Headers, name: &str) -> Option<Members> {
    let mut lines = headers.get_all(name);
    let mut whole = Cow::Borrowed(lines.next()?);
    for line in lines {
        let whole = whole.to_mut();
        whole.extend_from_slice(b", ");
        whole.extend_from_slice(line);
    }
    let mut reader = DictionaryReader::default();
    Parser::new(&whole)
        .with_version(Version::Rfc8941)
        .parse_dictionary_with_visitor(&mut reader)
        .ok()?;
    reader.any.then_some(reader.members)
}

fn directives(members: &Members) -> CacheControl {
    let mut control = CacheControl {
        present: true,
        spoken_by: Speaker::Targeted,
        ..CacheControl::default()
    };
    for (name, value) in members {
        // A value of another type than the directive has is read as the careful one would be: it forbids, and allows nothing.
        let seconds = Some(match value {
            Value::Integer(seconds) => (*seconds).clamp(0, i64::from(FOREVER)) as u32,
            _ => 0,
        });
        let allows = *value == Value::Boolean(true);
        let forbids = *value != Value::Boolean(false);
        let names = matches!(value, Value::Text(names) if !names.is_empty());
        match *name {
            "immutable" => control.immutable = allows,
            "max-age" => control.max_age = seconds,
            "must-revalidate" => control.must_revalidate = forbids,
            "must-understand" => control.must_understand = allows,
            "no-cache" => control.no_cache = forbids && !names,
            "no-store" => control.no_store = forbids,
            "private" => control.private = forbids && !names,
            "proxy-revalidate" => control.proxy_revalidate = forbids,
            "public" => control.public = allows,
            "s-maxage" => control.s_maxage = seconds,
            "stale-if-error" => control.stale_if_error = seconds,
            "stale-while-revalidate" => control.stale_while_revalidate = seconds,
            _ => {}
        }
        control.names_fields |= names && matches!(*name, "no-cache" | "private");
    }
    control
}

#[derive(Default)]
struct DictionaryReader {
    members: Members,
    /// Whether there are members at all.
    any: bool,
}

/// One member of it; the name is None where it is no directive.
struct MemberReader<'a> {
    members: &'a mut Members,
    name: Option<&'static str>,
}

impl<'de> DictionaryVisitor<'de> for &mut DictionaryReader {
    type Out = ();
    type Error = Infallible;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Infallible> {
        self.any = true;
        let name = NAMES.into_iter().find(|name| *name == key.as_str());
        Ok(MemberReader {
            members: &mut self.members,
            name,
        })
    }

    fn finish(self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl MemberReader<'_> {
    /// RFC 8941 4.2.2: "If dictionary already contains a key this_key (comparing character for character), overwrite its
    /// value with member."
    fn keep(self, value: Value) {
        if let Some(name) = self.name {
            self.members.retain(|(other, _)| *other != name);
            self.members.push((name, value));
        }
    }
}

impl<'de> EntryVisitor<'de> for MemberReader<'_> {
    type Error = Infallible;

    fn item(self) -> Result<impl ItemVisitor<'de>, Infallible> {
        Ok(self)
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, Infallible> {
        self.keep(Value::Other);
        Ok(Ignored)
    }
}

impl<'de> ItemVisitor<'de> for MemberReader<'_> {
    type Out = ();
    type Error = Infallible;

    /// RFC 9213 2.1: "parameters received on directives are to be ignored".
    fn bare_item(
        self,
        item: BareItemFromInput<'de>,
    ) -> Result<impl ParameterVisitor<'de, Out = ()>, Infallible> {
        self.keep(match item {
            BareItemFromInput::Boolean(truth) => Value::Boolean(truth),
            BareItemFromInput::Integer(number) => Value::Integer(number.into()),
            BareItemFromInput::String(text) => Value::Text(text.as_str().to_owned()),
            _ => Value::Other,
        });
        Ok(Ignored)
    }
}

// === Surrogate-Control

/// None: it says nothing of caching, but perhaps of other things that surrogates do.
fn surrogate(headers: &Headers) -> Option<CacheControl> {
    let mut control = CacheControl {
        present: true,
        spoken_by: Speaker::Surrogate,
        ..CacheControl::default()
    };
    let mut says = false;
    for member in headers.list("surrogate-control") {
        let (directive, target) = match memchr::memchr(b';', member) {
            Some(at) => (trim(&member[..at]), trim(&member[at + 1..])),
            None => (member, &b""[..]),
        };
        // "Directives can be targeted at a specific surrogate by appending its name".
        if !target.is_empty() && !target.eq_ignore_ascii_case(b"baton") {
            continue;
        }
        let (name, value) = match memchr::memchr(b'=', directive) {
            Some(at) => (&directive[..at], &directive[at + 1..]),
            None => (directive, &b""[..]),
        };
        if name.eq_ignore_ascii_case(b"no-store") {
            (control.no_store, says) = (true, true);
        } else if name.eq_ignore_ascii_case(b"max-age") {
            let (fresh, stale) = delta(value);
            control.max_age = Some(control.max_age.map_or(fresh, |so_far| so_far.min(fresh)));
            control.stale_while_revalidate = stale;
            control.stale_if_error = stale;
            says = true;
        }
    }
    says.then_some(control)
}

/// `max-age=N` or `N+M`: fresh for N seconds, and for M more it may be served while it is revalidated. What is neither is 0.
fn delta(value: &[u8]) -> (u32, Option<u32>) {
    let seconds = |text: &[u8]| decimal(text).map(|it| it.min(u64::from(FOREVER)) as u32);
    match memchr::memchr(b'+', value) {
        None => (seconds(value).unwrap_or(0), None),
        Some(at) => match (seconds(&value[..at]), seconds(&value[at + 1..])) {
            (Some(fresh), Some(stale)) => (fresh, Some(stale)),
            _ => (0, None),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(&str, &str)], names: &[&str]) -> CacheControl {
        let policy = Policy {
            targeted: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Policy::default()
        };
        control(&fields.iter().copied().collect(), &policy)
    }

    fn cdn(value: &str) -> CacheControl {
        let fields = [("CDN-Cache-Control", value), ("Cache-Control", "max-age=7")];
        of(&fields, &["CDN-Cache-Control"])
    }

    #[test]
    fn a_valid_value_counts_alone() {
        for (value, max_age) in [
            ("max-age=60", Some(60)),
            ("max-age=60;a=b, foo=(1 2)", Some(60)),
            ("max-age=0, max-age=60", Some(60)),
            ("max-age=60, max-age=0", Some(0)),
            ("foo", None),
            ("max-age=-5", Some(0)),
            ("max-age=999999999999999", Some(FOREVER)),
            ("max-age=\"60\"", Some(0)),
            ("max-age=6.5", Some(0)),
            ("max-age", Some(0)),
            ("max-age=(60)", Some(0)),
        ] {
            let found = cdn(value);
            assert_eq!(found.max_age, max_age, "{value}");
            assert_eq!(found.spoken_by, Speaker::Targeted, "{value}");
        }
        let strict = cdn("no-store, must-revalidate=?1, private=\"x-a\", public=1, no-cache=?0");
        assert!(strict.no_store && strict.must_revalidate && strict.names_fields);
        assert!(!strict.private && !strict.public && !strict.no_cache);
    }

    #[test]
    fn what_is_empty_or_no_dictionary_is_as_if_it_were_not_there() {
        for value in [
            "",
            " ",
            "MAX-AGE=60",
            "max-age=60,",
            ",max-age=60",
            "max-age =60",
            "max-age= 60",
            "max-age=",
            "max-age=@60",
            "max-age=60 foo",
            "max-age=1000000000000000",
            "a=\"",
            "a=%\"x\"",
            "max-age='60'",
        ] {
            let found = cdn(value);
            let expected = (Some(7), Speaker::CacheControl);
            assert_eq!((found.max_age, found.spoken_by), expected, "{value:?}");
        }
    }

    #[test]
    fn the_first_of_the_list_goes_first() {
        let fields = [
            ("A-Cache-Control", "max-age=1"),
            ("B-Cache-Control", "max-age=2"),
            ("Surrogate-Control", "max-age=3"),
            ("Cache-Control", "max-age=4"),
        ];
        let max_age = |fields: &[(&str, &str)], names: &[&str]| of(fields, names).max_age;
        let (a, b) = ("A-Cache-Control", "b-cache-control");
        assert_eq!(max_age(&fields, &[a, b]), Some(1));
        assert_eq!(max_age(&fields, &[b, a]), Some(2));
        assert_eq!(max_age(&fields, &["C-Cache-Control"]), Some(3));
        assert_eq!(max_age(&fields[3..], &[a, b]), Some(4));
        let broken = [(a, "max-age="), (b, "max-age=2")];
        assert_eq!(max_age(&broken, &[a, b]), Some(2));
        let two = [(a, "foo"), (a, "max-age=5")];
        assert_eq!(max_age(&two, &[a]), Some(5));
    }

    #[test]
    fn surrogate_control() {
        let is = |value: &str| {
            of(
                &[("Surrogate-Control", value), ("Cache-Control", "public")],
                &[],
            )
        };
        for (value, max_age, stale, no_store) in [
            ("max-age=60", Some(60), None, false),
            (
                "max-age=60+30, content=\"ESI/1.0\"",
                Some(60),
                Some(30),
                false,
            ),
            ("no-store, max-age=60", Some(60), None, true),
            ("max-age=60, max-age=5", Some(5), None, false),
            ("max-age=x", Some(0), None, false),
            ("max-age=60+x", Some(0), None, false),
            ("max-age=60;baton, max-age=5;other", Some(60), None, false),
        ] {
            let found = is(value);
            let all = (found.max_age, found.stale_while_revalidate, found.no_store);
            assert_eq!(all, (max_age, stale, no_store), "{value}");
            assert!(!found.public, "{value}");
        }
        for value in ["content=\"ESI/1.0\"", "max-age=5;other", ""] {
            assert_eq!(is(value).spoken_by, Speaker::CacheControl, "{value}");
        }
    }

    #[test]
    fn named_fields_are_those_of_the_field_that_counts() {
        let fields = [
            ("CDN-Cache-Control", "max-age=5, private=\"x-a, x-b\""),
            ("Cache-Control", "no-cache=x-c"),
        ];
        let named = |fields: &[(&str, &str)]| {
            let mut names = Vec::new();
            let headers = fields.iter().copied().collect();
            named_fields(&headers, &Policy::default(), |name| {
                names.push(String::from_utf8_lossy(name).into_owned())
            });
            names.retain(|name| !name.is_empty());
            names
        };
        assert_eq!(named(&fields), ["x-a", "x-b"]);
        assert_eq!(named(&fields[1..]), ["x-c"]);
    }
}
