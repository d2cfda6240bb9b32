//! Which stored response a request selects (RFC 9111 section 4.1).
//!
//! Values are compared member by member of their lists, so white space around commas and the way that lines are
//! split make no difference; an absent field and an empty one do. Of fields whose definition is known, as much is
//! disregarded as means nothing there. `stored` makes the value, stores compare with it.

use crate::http::Headers;
use crate::http::preference::{Preference, most_preferred};
use crate::http::syntax::{members, trim};

/// Names in Vary, of a response that is kept.
const MAX_NAMES: usize = 32;

/// The request fields that a stored response was selected by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    fields: Vec<Selecting>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Selecting {
    /// In lower case.
    name: Box<str>,
    /// The members in normal form with commas between them; None: the request had no such field.
    value: Option<Box<[u8]>>,
}

/// How much of a request a stored response answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// Its Content-Language is what the request likes best; all else is the same.
    Language,
    Same,
}

/// What the definition of a field lets differ. 4.1: "normalizing both header field values in a way that is known to have
/// identical semantics, according to the header field's specification (e.g., reordering field values when order is not
/// significant; case-normalization, where values are defined to be case-insensitive)"
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    AsWritten,
    /// Case, white space and the way that weights are written. The order is kept, although RFC 9110 12.5.1 gives it no
    /// meaning: many origin servers take the first of media types that weigh the same.
    Preferences,
    /// The order, too (RFC 9110 12.5.2 to 12.5.4).
    Ranked,
}

impl Form {
    fn of(name: &str) -> Form {
        match name {
            "accept" => Form::Preferences,
            "accept-charset" | "accept-encoding" | "accept-language" => Form::Ranked,
            _ => Form::AsWritten,
        }
    }
}

/// 4.1: "A stored response with a Vary header field value containing a member "*" always fails to match."
pub fn is_any(response: &Headers) -> bool {
    response.list("vary").any(|member| member == b"*")
}

/// Whether a response was selected by what a reverse listener tells the origin server of its client. No later request
/// brings that field, and so none could be told from the first.
pub fn is_by_peer(response: &Headers) -> bool {
    response.has_token("vary", "x-forwarded-for")
}

/// Whoever answers with more names would make each later request pay for all of them.
pub fn is_excessive(response: &Headers) -> bool {
    response.list("vary").nth(MAX_NAMES).is_some()
}

impl Selection {
    pub fn of(request: &Headers, response: &Headers) -> Selection {
        let mut names: Vec<Box<str>> = response
            .list("vary")
            .filter_map(|name| std::str::from_utf8(name).ok())
            .map(|name| name.to_ascii_lowercase().into())
            .collect();
        names.sort_unstable();
        names.dedup();
        Selection::by(names.iter().map(|name| &**name), request)
    }

    /// What a request selects by these names, which are in lower case, in order and each there once.
    pub fn by<'a>(names: impl Iterator<Item = &'a str>, request: &Headers) -> Selection {
        let fields = names.map(|name| Selecting {
            name: name.into(),
            value: combined(request, name),
        });
        Selection {
            fields: fields.collect(),
        }
    }

    /// The names by which it selects, as `by` wants them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| &*field.name)
    }

    /// The names with what the request had under them; none: it had no such field.
    pub fn fields(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.fields
            .iter()
            .map(|field| (&*field.name, field.value.as_deref()))
    }

    /// Whether every request selects it.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Appends octets that are equal exactly where selections are, and that `read` reads.
    pub fn write(&self, out: &mut Vec<u8>) {
        for field in &self.fields {
            write_counted(field.name.as_bytes(), out);
            match &field.value {
                None => out.push(0),
                Some(value) => {
                    out.push(1);
                    write_counted(value, out);
                }
            }
        }
    }

    /// Reads what `write` wrote; none: it is something else.
    pub fn read(mut octets: &[u8]) -> Option<Selection> {
        let mut fields = Vec::new();
        while !octets.is_empty() {
            let name = std::str::from_utf8(counted(&mut octets)?).ok()?.into();
            let (present, rest) = octets.split_first()?;
            octets = rest;
            let value = match present {
                0 => None,
                1 => Some(counted(&mut octets)?.into()),
                _ => return None,
            };
            fields.push(Selecting { name, value });
        }
        Some(Selection { fields })
    }

    /// Whether a request with these fields selects the response with those.
    pub fn matches(&self, request: &Headers, response: &Headers) -> Option<Match> {
        let mut all = Match::Same;
        for field in &self.fields {
            let same = match &field.value {
                None => !request.contains(&field.name),
                Some(value) => {
                    request.contains(&field.name) && is_same(request, &field.name, value)
                }
            };
            if !same {
                all = Match::Language;
                if &*field.name != "accept-language" || !is_best_language(request, response) {
                    return None;
                }
            }
        }
        Some(all)
    }

    pub fn memory(&self) -> usize {
        self.fields
            .iter()
            .map(|field| {
                40 + field.name.len() + field.value.as_ref().map_or(0, |value| value.len())
            })
            .sum()
    }
}

fn write_counted(octets: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(octets.len() as u32).to_le_bytes());
    out.extend_from_slice(octets);
}

fn counted<'a>(octets: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = octets.split_first_chunk()?;
    let (counted, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *octets = rest;
    Some(counted)
}

fn combined(request: &Headers, name: &str) -> Option<Box<[u8]>> {
    if !request.contains(name) {
        return None;
    }
    let mut value = Vec::new();
    let preferences = match Form::of(name) {
        Form::AsWritten => Vec::new(),
        Form::Preferences => request.list(name).map(Preference::of).collect(),
        Form::Ranked => ranked(request, name),
    };
    for preference in preferences {
        write_comma(&mut value);
        preference.write(&mut value);
    }
    if Form::of(name) == Form::AsWritten {
        for member in request.list(name) {
            write_comma(&mut value);
            value.extend_from_slice(member);
        }
    }
    Some(value.into())
}

fn write_comma(value: &mut Vec<u8>) {
    if !value.is_empty() {
        value.push(b',');
    }
}

fn ranked<'a>(request: &'a Headers, name: &'a str) -> Vec<Preference<'a>> {
    let mut preferences: Vec<_> = request.list(name).map(Preference::of).collect();
    preferences.sort_unstable();
    preferences
}

/// Whether the request's members, in normal form, are those of `value`, which `combined` made.
fn is_same(request: &Headers, name: &str, value: &[u8]) -> bool {
    let own = request.list(name);
    match Form::of(name) {
        Form::AsWritten => own.eq(members(value)),
        Form::Preferences => own
            .map(Preference::of)
            .eq(members(value).map(Preference::of)),
        Form::Ranked => {
            let kept = members(value).map(Preference::of);
            ranked(request, name).into_iter().eq(kept)
        }
    }
}

/// RFC 9111 4.1: "When a nominated request header field has a known mechanism for ranking preference (e.g., qvalues on Accept
/// and similar request header fields), that mechanism MAY be used to choose a preferred response." No response can please
/// the client more than one in the language that it ranks above all others. It is not so with Content-Encoding: who
/// ranks one coding first mostly does so because it knows no other, and origin servers keep workarounds for just those.
fn is_best_language(request: &Headers, response: &Headers) -> bool {
    let mut languages = response.list("content-language");
    let (Some(language), None) = (languages.next(), languages.next()) else {
        return false;
    };
    most_preferred(request.list("accept-language"))
        .is_some_and(|best| best.range().eq_ignore_ascii_case(trim(language)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> Headers {
        fields.iter().copied().collect()
    }

    #[test]
    fn selection() {
        let vary = headers(&[("Vary", "Accept-Language, , X"), ("Vary", "x")]);
        let first = headers(&[("Accept-Language", "de, en;q=0.5"), ("Cookie", "a")]);
        let selection = Selection::of(&first, &vary);
        for (fields, expected) in [
            (&[("accept-language", "de, en;q=0.5")][..], true),
            (
                &[("Accept-Language", "de  ,,en;q=0.5"), ("Cookie", "b")],
                true,
            ),
            (
                &[("Accept-Language", "de"), ("Accept-Language", "en;q=0.5")],
                true,
            ),
            (&[("Accept-Language", "en;q=0.50, DE;q=1")], true),
            (&[("Accept-Language", "de;q=0.5, en")], false),
            (&[("Accept-Language", "de")], false),
            (&[], false),
            (&[("Accept-Language", "de, en;q=0.5"), ("X", "")], false),
        ] {
            let found = selection.matches(&headers(fields), &vary).is_some();
            assert_eq!(found, expected, "{fields:?}");
            let again = Selection::of(&headers(fields), &vary) == selection;
            assert_eq!(again, expected, "{fields:?}");
        }
        let empty = Selection::of(&headers(&[("X", "")]), &headers(&[("Vary", "x")]));
        let none = headers(&[]);
        assert!(empty.matches(&headers(&[("X", " , ")]), &none).is_some());
        assert!(empty.matches(&none, &none).is_none());
        assert!(Selection::of(&first, &none).matches(&none, &none).is_some());
    }

    #[test]
    fn what_means_nothing_makes_no_difference() {
        for (name, one, other, expected) in [
            ("Accept-Language", "de, en", "EN,de", true),
            ("Accept-Language", "de, en", "de, en, en", false),
            ("Accept-Language", "de, en;q=0", "de", false),
            ("Accept-Encoding", "gzip, br", "BR , gzip;q=1.0", true),
            ("Accept-Encoding", "gzip, br", "gzip;q=0.9, br", false),
            ("Accept-Encoding", "identity;q=0", "identity", false),
            ("Accept-Charset", "a, b", "B, A", true),
            ("Accept", "a/b, c/d;q=0.5", "A/B,c/D; q=0.50", true),
            ("Accept", "a/b;x=c", "a/b;x=C", false),
            ("Accept", "a/b, c/d", "c/d, a/b", false),
            ("X", "a, b", "b, a", false),
            ("X", "a", "A", false),
            ("User-Agent", "x (a, b)", "x (a,b)", true),
        ] {
            let vary = headers(&[("Vary", name)]);
            let [one, other] = [one, other].map(|value| headers(&[(name, value)]));
            let selection = Selection::of(&one, &vary);
            let found = selection.matches(&other, &vary);
            assert_eq!(found.is_some(), expected, "{one:?} {other:?}");
            assert_eq!(selection == Selection::of(&other, &vary), expected);
        }
    }

    #[test]
    fn the_best_language() {
        let asked = headers(&[("Accept-Language", "de, en"), ("X", "1")]);
        for (languages, fields, expected) in [
            (
                "de",
                &[("Accept-Language", "DE")][..],
                Some(Match::Language),
            ),
            (
                "de",
                &[("Accept-Language", "fr;q=0.5, de")],
                Some(Match::Language),
            ),
            ("de", &[("Accept-Language", "en, de")], Some(Match::Same)),
            ("de", &[("Accept-Language", "fr, de")], None),
            ("de", &[("Accept-Language", "fr, de;q=0.5")], None),
            ("de", &[("Accept-Language", "de-AT")], None),
            ("de", &[("Accept-Language", "*")], None),
            ("de", &[("Accept-Language", "de;q=0")], None),
            ("de, en", &[("Accept-Language", "de")], None),
            ("", &[("Accept-Language", "")], None),
            ("de", &[], None),
        ] {
            let response = headers(&[
                ("Vary", "Accept-Language, X"),
                ("Content-Language", languages),
            ]);
            let selection = Selection::of(&asked, &response);
            let mut request = headers(fields);
            assert_eq!(selection.matches(&request, &response), None, "X differs");
            request.push("X", b"1");
            let found = selection.matches(&request, &response);
            assert_eq!(found, expected, "{languages} {fields:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let vary = headers(&[("Vary", "b, A")]);
        for fields in [&[][..], &[("A", "1 ,2")], &[("a", ""), ("B", "x")]] {
            let selection = Selection::of(&headers(fields), &vary);
            let mut octets = Vec::new();
            selection.write(&mut octets);
            assert_eq!(Selection::read(&octets), Some(selection.clone()));
            assert!(
                (1..octets.len())
                    .all(|end| Selection::read(&octets[..end]) != Some(selection.clone()))
            );
            let again = Selection::by(selection.names(), &headers(fields));
            assert_eq!(again, selection);
        }
    }

    #[test]
    fn a_star_anywhere() {
        for (lines, expected) in [
            (&[("Vary", "*")][..], true),
            (&[("Vary", "a, *")], true),
            (&[("Vary", "a"), ("Vary", "b , * ")], true),
            (&[("Vary", "a, b*")], false),
            (&[], false),
        ] {
            assert_eq!(is_any(&headers(lines)), expected);
        }
    }
}
