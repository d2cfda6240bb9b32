//! What a client says it prefers: the members of Accept, Accept-Language and their like (RFC 9110 section 12.4).
//!
//! It compares members whatever way they are written, and ranks them. It chooses nothing: whether one is
//! available is not known here. The cache's selection by Vary calls it.

use std::cmp::Ordering;

use super::syntax::{trim, unquoted};

/// The weight of a member without one, in thousandths.
const FULL: u16 = 1000;

/// One member of such a list, in the way it was written.
#[derive(Clone, Copy, Debug)]
pub struct Preference<'a> {
    /// What is preferred, without its parameters.
    range: &'a [u8],
    /// The parameters, from their semicolon on, unless the weight is all that they say.
    parameters: &'a [u8],
    /// In thousandths, where it has just one.
    weight: Option<u16>,
}

impl<'a> Preference<'a> {
    pub fn of(member: &'a [u8]) -> Preference<'a> {
        // Most have no parameter.
        let Some(end) = memchr::memchr2(b';', b'"', member) else {
            return Preference {
                range: trim(member),
                parameters: &[],
                weight: None,
            };
        };
        let end = match member[end] {
            b';' => end,
            _ => unquoted(member, b';').unwrap_or(member.len()),
        };
        let (range, parameters) = member.split_at(end);
        let mut weights = split(parameters).filter_map(weight);
        let weight = weights.next().filter(|_| weights.next().is_none());
        let says_more = split(parameters).count() > usize::from(weight.is_some());
        Preference {
            range: trim(range),
            parameters: if says_more { parameters } else { &[] },
            weight,
        }
    }

    /// In thousandths. "a value of 0 means "not acceptable""
    pub fn weight(&self) -> u16 {
        self.weight.unwrap_or(FULL)
    }

    pub fn range(&self) -> &'a [u8] {
        self.range
    }

    /// Appends it the one way that it is written here.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.octets());
        let weight = self.weight();
        if weight < FULL {
            out.extend_from_slice(b";q=0.");
            let digits = [weight / 100, weight / 10 % 10, weight % 10];
            out.extend(digits.map(|digit| b'0' + digit as u8));
        }
    }

    /// All of it but its weight. Ranges and the names of parameters are in any case, values are not (8.3.1).
    fn octets(&self) -> impl Iterator<Item = u8> {
        let has_weight = self.weight.is_some();
        let parameters = split(self.parameters)
            .filter(move |parameter| !(has_weight && weight(parameter).is_some()));
        let range = self.range.iter().map(u8::to_ascii_lowercase);
        range.chain(parameters.flat_map(|parameter| {
            let name = parameter.iter().position(|&c| c == b'=');
            let (name, value) = parameter.split_at(name.unwrap_or(parameter.len()));
            let name = name.iter().map(u8::to_ascii_lowercase);
            [b';'].into_iter().chain(name).chain(value.iter().copied())
        }))
    }
}

/// What weighs more comes first; equals are the same preference.
impl Ord for Preference<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_weight = other.weight().cmp(&self.weight());
        by_weight.then_with(|| match (self.parameters, other.parameters) {
            (&[], &[]) => {
                let own = self.range.iter().map(u8::to_ascii_lowercase);
                own.cmp(other.range.iter().map(u8::to_ascii_lowercase))
            }
            _ => self.octets().cmp(other.octets()),
        })
    }
}

impl PartialOrd for Preference<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Preference<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Preference<'_> {}

/// The one that outweighs all others. None: there is no such, or it is unacceptable.
pub fn most_preferred<'a>(members: impl Iterator<Item = &'a [u8]>) -> Option<Preference<'a>> {
    let (mut best, mut tied) = (None::<Preference<'a>>, false);
    for preference in members.map(Preference::of) {
        match best.map(|best| preference.weight().cmp(&best.weight())) {
            Some(Ordering::Less) => {}
            Some(Ordering::Equal) => tied = true,
            Some(Ordering::Greater) | None => (best, tied) = (Some(preference), false),
        }
    }
    best.filter(|best| !tied && best.weight() > 0)
}

/// What semicolons separate, trimmed; nothing is no parameter.
fn split(parameters: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = parameters;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = unquoted(rest, b';').unwrap_or(rest.len());
            let parameter = trim(&rest[..end]);
            rest = rest.get(end + 1..).unwrap_or_default();
            if !parameter.is_empty() {
                return Some(parameter);
            }
        }
        None
    })
}

/// RFC 9110 12.4.2: `weight = OWS ";" OWS "q=" qvalue`, `qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )`.
/// None: it is another parameter, or a value that says nothing.
fn weight(parameter: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', value @ ..] = parameter else {
        return None;
    };
    let (whole, digits) = match value {
        [whole] => (whole, &[][..]),
        [whole, b'.', digits @ ..] if digits.len() <= 3 => (whole, digits),
        _ => return None,
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let place = |at: usize| u16::from(digits.get(at).map_or(0, |digit| digit - b'0'));
    let thousandths = place(0) * 100 + place(1) * 10 + place(2);
    match (whole, thousandths) {
        (b'0', thousandths) => Some(thousandths),
        (b'1', 0) => Some(FULL),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_written_otherwise() {
        for (one, other, same) in [
            ("de", "DE", true),
            ("de;q=1", "de", true),
            ("de ; Q=0.50", "de;q=0.5", true),
            ("de;q=0", "de;q=0.000", true),
            ("de;q=0.5", "de;q=0.51", false),
            ("de;q=0", "de", false),
            ("de;q=2", "de", false),
            ("de;q=0.1234", "de;q=0.123", false),
            ("de;q=1.001", "de", false),
            ("de;q=x", "de", false),
            ("de;q=", "de", false),
            ("de;q", "de", false),
            ("text/html;Level=1", "TEXT/html; level=1", true),
            ("text/html;level=a", "text/html;level=A", false),
            ("text/html;q=0.5;level=1", "text/html;level=1;q=0.5", true),
            ("text/html;x=\"a;q=0.5\"", "text/html;x=\"a\"", false),
            ("a;q=0.5;q=0.7", "a;q=0.5", false),
            ("a;q=1;q=0.7", "a;q=0.7", false),
            ("", ";", true),
            ("a;;q=0.5;", "a;q=0.5", true),
            ("a;x", "a;x;q=1", true),
            ("\"a;b\";q=0.5", "\"a", false),
        ] {
            let (one, other) = (
                Preference::of(one.as_bytes()),
                Preference::of(other.as_bytes()),
            );
            assert_eq!(one == other, same, "{one:?} {other:?}");
            let (mut a, mut b) = (Vec::new(), Vec::new());
            one.write(&mut a);
            other.write(&mut b);
            assert_eq!(a == b, same, "{one:?} {other:?}");
            assert_eq!(Preference::of(&a), one, "what is written says the same");
        }
    }

    #[test]
    fn ranks() {
        let most = |value: &'static str| {
            let best = most_preferred(value.split(',').map(|member| trim(member.as_bytes())));
            best.map(|best| std::str::from_utf8(best.range()).unwrap())
        };
        for (value, expected) in [
            ("de", Some("de")),
            ("en;q=0.5, de", Some("de")),
            ("en;q=0.5, de;q=0.7, fr;q=0.6", Some("de")),
            ("en, de", None),
            ("en;q=0.5, de;q=0.5, fr", Some("fr")),
            ("de;q=0", None),
            ("*", Some("*")),
        ] {
            assert_eq!(most(value), expected, "{value}");
        }
    }
}
