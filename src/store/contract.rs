//! What every store must do, as tests that each store runs.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::{Coherence, MAX_VARIANTS, Object, Store, Version, Writer};
use crate::cache::{Key, Policy, Stored, Times, storable};
use crate::http::{Headers, RequestHead, ResponseHead};

/// A version table as processes share it, in one process.
#[derive(Default)]
pub struct Slots {
    slots: RefCell<HashMap<u64, u64>>,
    epoch: Cell<u64>,
}

impl Coherence for Slots {
    fn read(&self, hash: u64) -> Version {
        Version {
            slot: self.slots.borrow().get(&hash).copied().unwrap_or(0),
            epoch: self.epoch.get(),
        }
    }

    fn bump(&self, hash: u64) {
        *self.slots.borrow_mut().entry(hash).or_default() += 1;
    }
}

const KEY: &str = "http://a/";

pub fn stored(request: &[(&str, &str)], response: &[(&str, &str)]) -> Stored {
    stored_at(0, request, response)
}

fn stored_at(now: i64, request: &[(&str, &str)], response: &[(&str, &str)]) -> Stored {
    let request = RequestHead {
        headers: request.iter().copied().collect(),
        ..RequestHead::new()
    };
    let mut headers: Headers = response.iter().copied().collect();
    headers.push("Cache-Control", b"max-age=60");
    headers.push("Content-Length", b"5");
    headers.push("Age", b"1");
    let response = ResponseHead {
        reason: b"OK".to_vec(),
        headers,
        ..ResponseHead::new()
    };
    storable(&request, &response, now, &Policy::default()).unwrap();
    Stored::new(
        &request,
        &response,
        Times {
            request: now,
            response: now,
        },
        &Policy::default(),
    )
}

pub fn put<S: Store>(store: &S, key: &str, body: &[u8]) -> Option<Rc<Object>> {
    put_variant(store, key, &[], &[], body)
}

fn put_variant<S: Store>(
    store: &S,
    key: &str,
    request: &[(&str, &str)],
    response: &[(&str, &str)],
    body: &[u8],
) -> Option<Rc<Object>> {
    let seen = store.version(key.as_bytes());
    let mut writer = store.begin(
        Key::from(key.as_bytes()),
        stored(request, response),
        None,
        seen,
    )?;
    body.chunks(100)
        .all(|chunk| writer.write(chunk))
        .then(|| writer.finish())?
}

fn body<S: Store>(store: &S, key: &str, request: &[(&str, &str)]) -> Option<Vec<u8>> {
    store
        .find(key.as_bytes(), &request.iter().copied().collect())
        .map(|object| object.body.to_vec())
}

/// `make` opens a store on a version table; two of them are two processes.
pub fn holds_for<S: Store>(make: impl Fn(Rc<Slots>) -> S, max_object: u64) {
    let slots = || Rc::new(Slots::default());
    visible_when_complete(&make(slots()));
    bounded_objects(&make(slots()), max_object);
    heads_are_ready(&make(slots()));
    variants(&make(slots()));
    refresh(&make(slots()));
    overtaken(&make(slots()));
    let shared = slots();
    two_processes(&make(shared.clone()), &make(shared.clone()), &shared);
}

fn visible_when_complete<S: Store>(store: &S) {
    let begin = |expected| {
        store
            .begin(
                Key::from(KEY.as_bytes()),
                stored(&[], &[]),
                expected,
                store.version(KEY.as_bytes()),
            )
            .unwrap()
    };
    let mut writer = begin(None);
    assert!(writer.write(b"hel"));
    assert!(body(store, KEY, &[]).is_none() && !store.holds(KEY.as_bytes()));
    assert!(writer.write(b"lo"));
    assert!(writer.finish().is_some());
    assert_eq!(body(store, KEY, &[]).as_deref(), Some(&b"hello"[..]));
    let mut writer = begin(None);
    writer.write(b"other");
    drop(writer);
    assert_eq!(body(store, KEY, &[]).as_deref(), Some(&b"hello"[..]));
    let mut writer = begin(Some(4));
    writer.write(b"oth");
    assert!(writer.finish().is_none(), "shorter than expected");
    let mut writer = begin(Some(4));
    assert!(!writer.write(b"other"), "longer than expected");
    let held = store.find(KEY.as_bytes(), &Headers::new()).unwrap();
    store.invalidate(KEY.as_bytes());
    assert!(body(store, KEY, &[]).is_none());
    assert_eq!(&held.body[..], b"hello", "who reads it keeps it");
}

fn bounded_objects<S: Store>(store: &S, max_object: u64) {
    let version = store.version(KEY.as_bytes());
    assert!(
        store
            .begin(
                Key::from(KEY.as_bytes()),
                stored(&[], &[]),
                Some(max_object + 1),
                version
            )
            .is_none()
    );
    let large = vec![0; max_object as usize];
    assert!(put(store, KEY, &large).is_some());
    assert!(put(store, "http://b/", &[&large[..], b"x"].concat()).is_none());
    assert!(body(store, "http://b/", &[]).is_none());
}

fn heads_are_ready<S: Store>(store: &S) {
    put_variant(
        store,
        KEY,
        &[],
        &[
            ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("Connection", "x"),
        ],
        b"12345",
    );
    let object = store.find(KEY.as_bytes(), &Headers::new()).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&object.head),
        "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nCache-Control: max-age=60\r\n"
    );
    assert_eq!(object.stored.body_len, 5);
}

fn variants<S: Store>(store: &S) {
    let vary = [("Vary", "X")];
    for n in 0..10 {
        let n = n.to_string();
        put_variant(store, KEY, &[("X", &n)], &vary, n.as_bytes());
    }
    let kept = (0..10)
        .filter(|n| body(store, KEY, &[("x", &n.to_string())]).is_some())
        .count();
    assert_eq!(kept, MAX_VARIANTS);
    assert_eq!(body(store, KEY, &[("X", "9")]).as_deref(), Some(&b"9"[..]));
    assert!(body(store, KEY, &[]).is_none() && store.holds(KEY.as_bytes()));
    put_variant(store, KEY, &[("X", "9")], &vary, b"new");
    assert_eq!(
        body(store, KEY, &[("X", "9")]).as_deref(),
        Some(&b"new"[..])
    );
    assert_eq!(
        body(store, KEY, &[("X", "8")]).as_deref(),
        Some(&b"8"[..]),
        "others stay"
    );
    put(store, KEY, b"all");
    assert_eq!(
        body(store, KEY, &[("X", "9")]).as_deref(),
        Some(&b"all"[..]),
        "the most recent that matches"
    );
    store.invalidate(KEY.as_bytes());
    assert!(body(store, KEY, &[("X", "8")]).is_none() && !store.holds(KEY.as_bytes()));
}

fn refresh<S: Store>(store: &S) {
    let old = put(store, KEY, b"hello").unwrap();
    let new = store.refresh(KEY.as_bytes(), &old, stored(&[], &[("X-New", "1")]));
    assert_eq!((&new.body[..], new.stored.body_len), (&b"hello"[..], 5));
    let found = store.find(KEY.as_bytes(), &Headers::new()).unwrap();
    assert!(found.stored.headers.contains("x-new"));
    assert!(String::from_utf8_lossy(&found.head).contains("X-New: 1\r\n"));
    // A second revalidation of the same time undoes nothing.
    let served = store.refresh(KEY.as_bytes(), &old, stored(&[], &[]));
    assert_eq!(&served.body[..], b"hello");
    assert!(
        store
            .find(KEY.as_bytes(), &Headers::new())
            .is_some_and(|found| found.stored.headers.contains("x-new"))
    );
}

fn overtaken<S: Store>(store: &S) {
    let begin = || {
        let seen = store.version(KEY.as_bytes());
        let mut writer = store
            .begin(Key::from(KEY.as_bytes()), stored(&[], &[]), None, seen)
            .unwrap();
        writer.write(b"early");
        writer
    };
    let early = begin();
    store.invalidate(KEY.as_bytes());
    assert!(
        early.finish().is_none() && body(store, KEY, &[]).is_none(),
        "its request was sent before"
    );
    let late = begin();
    assert!(late.finish().is_some());
}

fn two_processes<S: Store>(one: &S, two: &S, slots: &Slots) {
    let none = Headers::new();
    let fill = || (put(one, KEY, b"hello").unwrap(), put(two, KEY, b"hello"));
    let both = || [body(one, KEY, &[]).is_some(), body(two, KEY, &[]).is_some()];
    fill();
    assert_eq!(both(), [true, true]);
    two.invalidate(KEY.as_bytes());
    assert_eq!(both(), [false, false], "invalidation reaches all");
    let (old, _) = fill();
    one.refresh(KEY.as_bytes(), &old, stored(&[], &[("X-New", "1")]));
    assert_eq!(both(), [true, false], "a refresh reaches all");
    put(two, KEY, b"hello");
    assert_eq!(both(), [true, true], "and filling again disturbs nobody");
    let old = one.find(KEY.as_bytes(), &none).unwrap();
    two.invalidate(KEY.as_bytes());
    one.refresh(KEY.as_bytes(), &old, stored(&[], &[]));
    assert_eq!(
        both(),
        [false, false],
        "a refresh does not bring back what was invalidated"
    );
    fill();
    slots.epoch.set(slots.epoch.get() + 1);
    assert_eq!(both(), [false, false], "a new epoch ends everything");
    fill();
    put(one, KEY, b"other");
    assert_eq!(
        both(),
        [true, true],
        "an answer of the same time is as good"
    );
    let seen = one.version(KEY.as_bytes());
    let mut writer = one
        .begin(
            Key::from(KEY.as_bytes()),
            stored_at(9, &[], &[]),
            None,
            seen,
        )
        .unwrap();
    writer.write(b"later");
    writer.finish();
    assert_eq!(both(), [true, false], "a later one replaces it for all");
    let (old, held) = (two.find(KEY.as_bytes(), &none), fill());
    assert!(old.is_none());
    two.refresh(KEY.as_bytes(), &held.1.unwrap(), stored(&[], &[]));
    one.refresh(KEY.as_bytes(), &held.0, stored(&[], &[]));
    assert_eq!(
        both(),
        [false, true],
        "of two refreshes at the same time one holds"
    );
}
