//! What the operator decides about caching, and which decision counts for a request.
//!
//! A listener may decide otherwise than the whole, and a rule for some URLs otherwise than its listener. All
//! combinations are made when a process starts; a request only picks one, and only where rules exist is its URL looked
//! at. `config` makes them of what is written; the rules of this module obey them.

use regex::bytes::RegexSet;

use super::key::Side;

/// What counts for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// False: the cache has no part in such requests.
    pub store: bool,
    /// How long a response that says nothing stays fresh; 0: a heuristic decides.
    pub ttl: Bound,
    /// Explicit lifetimes are raised to it.
    pub min_ttl: Bound,
    /// No lifetime is longer; 0: there is no bound.
    pub max_ttl: Bound,
    /// Percent of the time since Last-Modified that a response which says nothing stays fresh, and the longest in seconds;
    /// 0: no heuristics.
    pub heuristic_percent: u32,
    pub heuristic_max: u32,
    pub set_cookie: SetCookie,
    /// Seconds that a stale response is served where it says nothing of that itself: while it is revalidated, and instead
    /// of an error of the origin server.
    pub stale_while_revalidate: u32,
    pub stale_if_error: u32,
    /// A client's reload is served like any request.
    pub ignore_reload: bool,
    /// Names of targeted fields (RFC 9213), the first goes first.
    pub targeted: Vec<String>,
    /// Responses have X-Cache, and Cache-Status has the key.
    pub x_cache: bool,
    pub status_key: bool,
}

/// A time that the operator has set, in seconds, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    pub seconds: u32,
    pub by: Level,
}

/// Where a setting is written; the later goes before the earlier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    #[default]
    Cache,
    Listener,
    Rule,
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

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            store: true,
            ttl: Bound::default(),
            min_ttl: Bound::default(),
            max_ttl: Bound::default(),
            heuristic_percent: 10,
            heuristic_max: 86_400,
            set_cookie: SetCookie::default(),
            stale_while_revalidate: 0,
            stale_if_error: 0,
            ignore_reload: false,
            targeted: vec!["CDN-Cache-Control".to_owned()],
            x_cache: false,
            status_key: false,
        }
    }
}

impl Bound {
    pub fn new(seconds: u32) -> Bound {
        Bound {
            seconds,
            by: Level::Cache,
        }
    }
}

/// Which policy; only the `Policies` that gave it can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyId(u32);

/// The policies of all listeners.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    listeners: Vec<OfListener>,
    rules: Option<RegexSet>,
    /// Of a listener without rules that apply; then of each rule under it.
    policies: Vec<Policy>,
}

/// One listener's.
#[derive(Clone, Debug)]
struct OfListener {
    side: Side,
    plain: PolicyId,
    /// Of each rule, where it holds for this listener.
    by_rule: Vec<Option<PolicyId>>,
}

impl Policies {
    /// `rules` are expressions over the target URI. Errors: one of them is none.
    pub fn new(rules: &[String]) -> Result<Policies, regex::Error> {
        let rules = match rules {
            [] => None,
            rules => Some(RegexSet::new(rules)?),
        };
        Ok(Policies {
            rules,
            ..Policies::default()
        })
    }

    /// The next listener: its own policy, and that of each rule that holds for it.
    pub fn add(&mut self, side: Side, plain: Policy, by_rule: Vec<Option<Policy>>) {
        let plain = self.keep(plain);
        let by_rule = by_rule.into_iter();
        let by_rule = by_rule.map(|policy| Some(self.keep(policy?))).collect();
        self.listeners.push(OfListener {
            side,
            plain,
            by_rule,
        });
    }

    fn keep(&mut self, policy: Policy) -> PolicyId {
        self.policies.push(policy);
        PolicyId(self.policies.len() as u32 - 1)
    }

    /// Whether the URL matters at all.
    pub fn has_rules(&self) -> bool {
        self.rules.is_some()
    }

    /// For a request that came through that listener. The first rule that matches counts.
    pub fn choose(&self, listener: usize, uri: &[u8]) -> PolicyId {
        match self.listeners.get(listener) {
            Some(listener) => self.of(listener, uri),
            None => PolicyId::default(),
        }
    }

    /// For what is kept under a key, as the first listener of its side would have it.
    pub fn of_key(&self, key: &[u8]) -> Option<&Policy> {
        let (side, uri) = super::key::parts(key);
        let listener = self.listeners.iter().find(|listener| listener.side == side);
        listener.map(|listener| self.get(self.of(listener, uri)))
    }

    fn of(&self, listener: &OfListener, uri: &[u8]) -> PolicyId {
        let matches = self.rules.iter().flat_map(|rules| rules.matches(uri));
        matches
            .filter_map(|rule| listener.by_rule.get(rule).copied().flatten())
            .next()
            .unwrap_or(listener.plain)
    }

    pub fn get(&self, id: PolicyId) -> &Policy {
        static NONE: std::sync::LazyLock<Policy> = std::sync::LazyLock::new(Policy::default);
        self.policies.get(id.0 as usize).unwrap_or(&NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ttl(seconds: u32) -> Policy {
        Policy {
            ttl: Bound::new(seconds),
            ..Policy::default()
        }
    }

    #[test]
    fn the_first_rule_that_matches_and_holds_for_the_listener_counts() {
        let rules = [r"\.png$", "^http://a\\.example/", "x"];
        let rules = rules.map(str::to_owned);
        let mut policies = Policies::new(&rules).unwrap();
        policies.add(
            Side::Forward,
            ttl(1),
            vec![Some(ttl(2)), Some(ttl(3)), None],
        );
        policies.add(
            Side::Reverse,
            ttl(4),
            vec![None, Some(ttl(5)), Some(ttl(6))],
        );
        for (listener, uri, expected) in [
            (0, "http://a.example/a.png", 2),
            (0, "http://a.example/a", 3),
            (0, "http://b.test/a", 1),
            (0, "http://b.test/x", 1),
            (1, "http://b.test/a.png", 4),
            (1, "http://a.example/x.png", 5),
            (1, "http://b.test/x.png", 6),
            (9, "http://b.test/a", 1),
        ] {
            let id = policies.choose(listener, uri.as_bytes());
            assert_eq!(policies.get(id).ttl.seconds, expected, "{listener} {uri}");
        }
        let of_key = |key: &str| policies.of_key(key.as_bytes()).map(|it| it.ttl.seconds);
        assert_eq!(of_key("http://b.test/a.png"), Some(2));
        assert_eq!(of_key("reverse http://b.test/a.png"), Some(4));
    }

    #[test]
    fn without_rules_the_listener_counts() {
        let mut policies = Policies::new(&[]).unwrap();
        policies.add(Side::Forward, ttl(1), Vec::new());
        assert!(!policies.has_rules());
        let id = policies.choose(0, b"http://a.example/");
        assert_eq!(policies.get(id).ttl.seconds, 1);
        assert_eq!(policies.of_key(b"reverse http://a.example/"), None);
        assert!(Policies::new(&["(".to_owned()]).is_err());
    }
}
