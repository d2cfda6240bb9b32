//! What a request for a URL would get now, and why: decided by the rules that decide for a client, over what the disk has.

use anyhow::{Context, ensure};

use super::Ground;
use super::purge::keys;
use super::show::entries;
use crate::cache::explain::{Found, arithmetic, outcome};
use crate::cache::{Key, Policies, Stored};
use crate::http::syntax::{is_token, is_value_char};
use crate::http::{Headers, Method, RequestHead};
use crate::janitor::protocol::{Considered, Explained, Freshness, Judged, Side};
use crate::sys::clock::unix_seconds;

pub(super) fn explain(
    ground: &Ground<'_>,
    url: &str,
    method: &str,
    fields: &[(String, String)],
) -> anyhow::Result<Explained> {
    let request = request(method, fields)?;
    let mut sides = Vec::new();
    for key in keys(url)? {
        let found = entries(ground, &key)?;
        sides.push(judge(&key, found, ground.policies, &request));
    }
    // A side that has nothing is of interest only where the other has nothing either; then both say the same.
    match sides.iter().any(|side| !side.found.is_empty()) {
        true => sides.retain(|side| !side.found.is_empty()),
        false => sides.truncate(1),
    }
    Ok(Explained {
        url: normal(url)?,
        method: method.to_owned(),
        fields: fields.to_vec(),
        sides,
        silent: Vec::new(),
    })
}

/// The URL as keys have it.
pub(super) fn normal(url: &str) -> anyhow::Result<String> {
    let [key, _] = keys(url)?;
    Ok(Side::of_key(key.as_bytes()).1)
}

pub(super) fn request(method: &str, fields: &[(String, String)]) -> anyhow::Result<RequestHead> {
    let mut headers = Headers::new();
    for (name, value) in fields {
        check_field(name, value)?;
        headers.push(name, value.trim().as_bytes());
    }
    let method = Method::parse(method.as_bytes());
    Ok(RequestHead {
        method: method.context("that is no method")?,
        headers,
        ..RequestHead::new()
    })
}

/// Whether that may stand in a request. Errors: which half is wrong.
pub fn check_field(name: &str, value: &str) -> anyhow::Result<()> {
    ensure!(is_token(name.as_bytes()), "{name:?} is no field name");
    let holds = value.bytes().all(is_value_char);
    ensure!(holds, "{value:?} is no field value");
    Ok(())
}

/// What that request would get, where this is kept under its key.
pub(super) fn judge(
    key: &Key,
    entries: Vec<Entry>,
    policies: &Policies,
    request: &RequestHead,
) -> Judged {
    let now = unix_seconds();
    let selected = select(&entries, request);
    let found = match (selected, entries.iter().any(is_usable)) {
        (Some((_, stored)), _) => Found::Selected(stored),
        (None, true) => Found::Others,
        (None, false) => Found::Nothing,
    };
    let policy = policies.of_key(key.as_bytes());
    let policy = policy.cloned().unwrap_or_default();
    let outcome = outcome(request, found, &policy, now);
    let mut status = Vec::new();
    outcome.status.write(&mut status);
    let at = selected.map(|(at, _)| at);
    Judged {
        workers: Vec::new(),
        side: Side::of_key(key.as_bytes()).0,
        key: String::from_utf8_lossy(key.as_bytes()).into_owned(),
        found: entries
            .into_iter()
            .enumerate()
            .map(|(index, (entry, stored))| Considered {
                entry,
                selected: at == Some(index),
                freshness: stored.map(|stored| freshness(&stored, now)),
            })
            .collect(),
        outcome: outcome.word.to_owned(),
        why: outcome.why.to_owned(),
        then: outcome.then.map(str::to_owned),
        cache_status: String::from_utf8_lossy(&status).into_owned(),
    }
}

/// What is kept, and its response, if it is one.
pub(super) type Entry = (crate::janitor::protocol::Entry, Option<Stored>);

fn is_usable((entry, stored): &Entry) -> bool {
    entry.trouble.is_none() && stored.is_some()
}

/// RFC 9111 section 4.1: of those that match best, the most recent by Date.
fn select<'a>(entries: &'a [Entry], request: &RequestHead) -> Option<(usize, &'a Stored)> {
    entries
        .iter()
        .enumerate()
        .filter(|(_, entry)| is_usable(entry))
        .filter_map(|(at, (_, stored))| Some((at, stored.as_ref()?)))
        .filter_map(|(at, stored)| Some((stored.matches(&request.headers)?, at, stored)))
        .max_by_key(|(matches, _, stored)| (*matches, stored.date, stored.times.response))
        .map(|(_, at, stored)| (at, stored))
}

fn freshness(stored: &Stored, now: i64) -> Freshness {
    let it = arithmetic(stored, now);
    Freshness {
        freshness_lifetime: it.freshness_lifetime,
        lifetime_from: it.source.describe().to_owned(),
        apparent_age: it.apparent_age,
        response_delay: it.response_delay,
        corrected_initial_age: it.corrected_initial_age,
        resident_time: it.resident_time,
        current_age: it.current_age,
        remaining: it.remaining,
    }
}
