//! Several stored responses at once, as a purge means them: by how their URLs begin, by tag, by a regular expression.
//!
//! A set is what somebody typed, and travels as JSON; a [`Matcher`] is what it means, and tells of one response after the other.

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::stored::Stored;
use super::{key, tags};

/// Octets that a compiled expression may take, in each process.
const MOST: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Set {
    /// Exactly this URL, on both sides of the proxy, with all that Vary distinguishes. In normal form.
    Url(String),
    /// URLs that begin so.
    Prefix(String),
    /// Responses with any of these.
    Tags(Vec<String>),
    /// URLs in which the expression matches somewhere.
    Regex(String),
}

/// A set that can be asked.
#[derive(Clone, Debug)]
pub struct Matcher(How);

#[derive(Clone, Debug)]
enum How {
    Url(Vec<u8>),
    Prefix(Vec<u8>),
    /// In order.
    Tags(Vec<Vec<u8>>),
    Regex(Regex),
}

#[derive(Debug, thiserror::Error)]
pub enum SetError {
    #[error("no tag is named")]
    Empty,
    #[error("the regular expression cannot be used: {0}")]
    Regex(regex::Error),
}

/// Its text is said already: as a source it would be said once more.
impl From<regex::Error> for SetError {
    fn from(error: regex::Error) -> SetError {
        SetError::Regex(error)
    }
}

impl Set {
    /// Errors: there is no tag, or the expression is none or too large.
    pub fn matcher(&self) -> Result<Matcher, SetError> {
        Ok(Matcher(match self {
            Set::Url(url) => How::Url(url.clone().into_bytes()),
            Set::Prefix(prefix) => How::Prefix(prefix.clone().into_bytes()),
            Set::Tags(tags) => {
                let tags = tags.iter().filter(|tag| !tag.is_empty());
                let mut tags: Vec<Vec<u8>> = tags.map(|tag| tag.clone().into_bytes()).collect();
                tags.sort_unstable();
                if tags.is_empty() {
                    return Err(SetError::Empty);
                }
                How::Tags(tags)
            }
            Set::Regex(text) => How::Regex(RegexBuilder::new(text).size_limit(MOST).build()?),
        }))
    }
}

impl Matcher {
    /// Whether the response that is stored under that key belongs to it.
    pub fn takes(&self, key: &[u8], stored: &Stored) -> bool {
        match &self.0 {
            How::Tags(wanted) => tags::tags(&stored.headers).any(|tag| {
                wanted
                    .binary_search_by(|one| one.as_slice().cmp(tag))
                    .is_ok()
            }),
            _ => self.takes_key(key) == Some(true),
        }
    }

    /// The same where the key alone tells. None: it does not.
    pub fn takes_key(&self, key: &[u8]) -> Option<bool> {
        let (_, url) = key::parts(key);
        match &self.0 {
            How::Url(wanted) => Some(url == wanted),
            How::Prefix(prefix) => Some(url.starts_with(prefix)),
            How::Regex(expression) => Some(expression.is_match(url)),
            How::Tags(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Policy, Times};
    use crate::http::{RequestHead, ResponseHead};

    fn stored(tags: &str) -> Stored {
        let mut response = ResponseHead::new();
        response.status = 200;
        response.headers.push("Cache-Tag", tags.as_bytes());
        let times = Times {
            request: 0,
            response: 0,
        };
        Stored::new(&RequestHead::new(), &response, times, &Policy::default())
    }

    #[test]
    fn a_set_takes_what_it_names_and_nothing_else() {
        let tags = |tags: &[&str]| Set::Tags(tags.iter().map(|&tag| tag.to_owned()).collect());
        for (set, url, of, expected) in [
            (Set::Url("http://a/x".into()), "http://a/x", "", true),
            (Set::Url("http://a/x".into()), "http://a/xy", "", false),
            (Set::Prefix("http://a/x".into()), "http://a/xy", "", true),
            (Set::Prefix("http://a/x".into()), "http://a/y", "", false),
            (Set::Regex(r"\.css$".into()), "http://a/b.css", "", true),
            (Set::Regex(r"\.css$".into()), "http://a/b.css?c", "", false),
            (Set::Regex("^http://a/".into()), "http://a/b", "", true),
            (tags(&["p"]), "http://a/", "q, p", true),
            (tags(&["z", "p"]), "http://a/", "q, p", true),
            (tags(&["P"]), "http://a/", "p", false),
            (tags(&["p"]), "http://p/", "pp", false),
        ] {
            let matcher = set.matcher().unwrap();
            for side in ["", "reverse "] {
                let key = format!("{side}{url}");
                assert_eq!(
                    matcher.takes(key.as_bytes(), &stored(of)),
                    expected,
                    "{set:?} {key} {of}"
                );
            }
        }
    }

    #[test]
    fn what_cannot_be_meant_is_said() {
        assert!(Set::Tags(Vec::new()).matcher().is_err());
        assert!(Set::Tags(vec![String::new()]).matcher().is_err());
        assert!(Set::Regex("(".into()).matcher().is_err());
        assert!(Set::Regex("(a{1000}){1000}".into()).matcher().is_err());
    }

    #[test]
    fn it_travels_as_json() {
        let set = Set::Tags(vec!["a".into(), "b".into()]);
        let text = serde_json::to_string(&set).unwrap();
        assert_eq!(text, r#"{"tags":["a","b"]}"#);
        assert_eq!(serde_json::from_str::<Set>(&text).unwrap(), set);
    }
}
