//! What every store must do, as tests that each store runs: in one process, and in two that know of each other.

use std::rc::Rc;

use super::{Body, Coherence, Find, MAX_VARIANTS, Object, Store, Version, Writer};
use crate::cache::{Key, Part, Policy, Stored, Times, key, storable};
use crate::http::{Headers, RequestHead, ResponseHead};
use crate::shared::Region;
use crate::store::disk::place::Place;
use crate::sys::files::Access;

/// The version table that processes share, without purges of many.
pub struct Slots(pub Region);

impl Default for Slots {
    fn default() -> Slots {
        Slots(Region::create(1).unwrap().0)
    }
}

impl Coherence for Slots {
    fn read(&self, hash: u64) -> Version {
        self.0.versions().read(hash)
    }

    fn bump(&self, hash: u64) {
        self.0.versions().bump(hash);
    }
}

/// What the processes of one instance share.
pub struct World {
    pub slots: Rc<Slots>,
    pub region: Region,
    directory: tempfile::TempDir,
}

impl World {
    pub fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let (region, _) = Region::create(2).unwrap();
        region.space().set_limit(1 << 30, 1 << 30);
        region.space().raise_generation(1);
        let world = World {
            slots: Rc::new(Slots(region.clone())),
            region,
            directory,
        };
        Place::prepare(&world.path()).unwrap();
        world
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("cache")
    }
}

/// Runs what may wait, as a worker does.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default());
    runtime.unwrap().block_on(future)
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

pub async fn put<S: Store>(store: &S, key: &str, body: &[u8]) -> Option<Rc<Object>> {
    put_variant(store, key, &[], &[], body).await
}

pub async fn put_variant<S: Store>(
    store: &S,
    key: &str,
    request: &[(&str, &str)],
    response: &[(&str, &str)],
    body: &[u8],
) -> Option<Rc<Object>> {
    let seen = store.version(key.as_bytes());
    let stored = stored(request, response);
    let mut writer = store
        .begin(Key::from(key.as_bytes()), stored, None, seen)
        .ok()?;
    for chunk in body.chunks(100_000) {
        if !(writer.write(chunk) && writer.room().await) {
            return None;
        }
    }
    writer.finish().await
}

pub async fn find<S: Store>(store: &S, key: &str, request: &[(&str, &str)]) -> Find {
    let request = request.iter().copied().collect();
    match store.find(key.as_bytes(), &request) {
        Find::AskDisk => store.look(key.as_bytes(), &request).await,
        found => found,
    }
}

pub async fn object<S: Store>(
    store: &S,
    key: &str,
    request: &[(&str, &str)],
) -> Option<Rc<Object>> {
    match find(store, key, request).await {
        Find::Object(object) => Some(object),
        _ => None,
    }
}

pub async fn body<S: Store>(store: &S, key: &str, request: &[(&str, &str)]) -> Option<Vec<u8>> {
    let object = object(store, key, request).await?;
    Some(content(&object).await)
}

/// All of a body, wherever it is.
pub async fn content(object: &Object) -> Vec<u8> {
    let Body::Rows(rows) = &object.body else {
        return octets(object);
    };
    let mut body = Vec::new();
    while (body.len() as u64) < rows.length {
        let read = rows.read(body.len() as u64, 300_000).await;
        body.extend_from_slice(&read.unwrap());
    }
    body
}

pub fn octets(object: &Object) -> Vec<u8> {
    let mut body = Vec::new();
    object.body.read(&mut body, Access::Blocking).unwrap();
    body
}

async fn has<S: Store>(store: &S) -> bool {
    body(store, KEY, &[]).await.is_some()
}

async fn invalidate<S: Store>(store: &S) {
    store.invalidate(KEY.as_bytes()).await;
}

/// `make` opens a store; two in one world are two processes (the first and the second worker). `shares`: what
/// one of them stores the other finds.
pub fn holds_for<S: Store>(make: impl Fn(&World, usize) -> S, max_object: u64, shares: bool) {
    run(async {
        let world = World::new;
        visible_when_complete(&make(&world(), 0)).await;
        heads_are_ready(&make(&world(), 0)).await;
        variants(&make(&world(), 0)).await;
        languages(&make(&world(), 0)).await;
        refresh(&make(&world(), 0)).await;
        overtaken(&make(&world(), 0)).await;
        parts(&make(&world(), 0), max_object).await;
        bounded_objects(&make(&world(), 0), max_object).await;
        let shared = world();
        two_processes(&make(&shared, 0), &make(&shared, 1), &shared.slots, shares).await;
    });
}

async fn visible_when_complete<S: Store>(store: &S) {
    let begin = |expected| {
        let seen = store.version(KEY.as_bytes());
        store
            .begin(Key::from(KEY.as_bytes()), stored(&[], &[]), expected, seen)
            .unwrap_or_else(|reason| panic!("{reason:?}"))
    };
    let mut writer = begin(None);
    assert!(writer.write(b"hel"));
    assert!(matches!(find(store, KEY, &[]).await, Find::Absent));
    assert!(writer.write(b"lo"));
    assert!(writer.finish().await.is_some());
    assert_eq!(body(store, KEY, &[]).await.as_deref(), Some(&b"hello"[..]));
    let mut writer = begin(None);
    writer.write(b"other");
    drop(writer);
    assert_eq!(body(store, KEY, &[]).await.as_deref(), Some(&b"hello"[..]));
    let mut writer = begin(Some(4));
    writer.write(b"oth");
    assert!(writer.finish().await.is_none(), "shorter than expected");
    let mut writer = begin(Some(4));
    assert!(!writer.write(b"other"), "longer than expected");
    let held = object(store, KEY, &[]).await.unwrap();
    assert!(store.invalidate(KEY.as_bytes()).await);
    assert!(!has(store).await);
    assert_eq!(octets(&held), b"hello", "who reads it keeps it");
    assert!(!store.invalidate(KEY.as_bytes()).await, "nothing is left");
}

async fn bounded_objects<S: Store>(store: &S, max_object: u64) {
    let seen = store.version(KEY.as_bytes());
    let begun = store.begin(
        Key::from(KEY.as_bytes()),
        stored(&[], &[]),
        Some(max_object + 1),
        seen,
    );
    assert_eq!(begun.err(), Some(super::NotKept::TooLarge));
    let large = vec![7; max_object as usize];
    assert!(put(store, KEY, &large).await.is_some());
    assert!(body(store, KEY, &[]).await == Some(large.clone()));
    let larger = [&large[..], b"x"].concat();
    assert!(put(store, "http://b/", &larger).await.is_none());
    assert!(body(store, "http://b/", &[]).await.is_none());
}

async fn heads_are_ready<S: Store>(store: &S) {
    let fields = [
        ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("Connection", "x"),
    ];
    put_variant(store, KEY, &[], &fields, b"12345").await;
    let object = object(store, KEY, &[]).await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&object.head),
        "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nCache-Control: max-age=60\r\n"
    );
    assert_eq!(object.stored.body_len, 5);
}

async fn variants<S: Store>(store: &S) {
    let vary = [("Vary", "X")];
    for n in 0..10 {
        let n = n.to_string();
        put_variant(store, KEY, &[("X", &n)], &vary, n.as_bytes()).await;
    }
    let mut kept = 0;
    for n in 0..10 {
        let n = n.to_string();
        kept += usize::from(body(store, KEY, &[("x", &n)]).await == Some(n.into_bytes()));
    }
    assert_eq!(kept, MAX_VARIANTS);
    let of = async |value| body(store, KEY, &[("X", value)]).await;
    assert_eq!(of("9").await.as_deref(), Some(&b"9"[..]));
    assert!(matches!(find(store, KEY, &[]).await, Find::OtherVariant));
    put_variant(store, KEY, &[("X", "9")], &vary, b"new").await;
    assert_eq!(of("9").await.as_deref(), Some(&b"new"[..]));
    assert_eq!(of("8").await.as_deref(), Some(&b"8"[..]), "others stay");
    put(store, KEY, b"all").await;
    let most_recent = of("9").await;
    assert_eq!(most_recent.as_deref(), Some(&b"all"[..]), "that matches");
    assert!(store.invalidate(KEY.as_bytes()).await);
    assert!(of("8").await.is_none() && matches!(find(store, KEY, &[]).await, Find::Absent));
    // What belonged to a list that is gone does not come back with the next one.
    put_variant(store, KEY, &[("X", "1")], &vary, b"later").await;
    assert!(of("1").await.is_some() && of("8").await.is_none());
}

async fn languages<S: Store>(store: &S) {
    let accept = |value| [("Accept-Language", value)];
    for language in ["de", "en"] {
        let fields = [("Vary", "Accept-Language"), ("Content-Language", language)];
        put_variant(store, KEY, &accept(language), &fields, language.as_bytes()).await;
    }
    let of = async |value| body(store, KEY, &accept(value)).await;
    assert_eq!(of("en, de;q=0.5").await.as_deref(), Some(&b"en"[..]));
    assert_eq!(of("de, en;q=0.5").await.as_deref(), Some(&b"de"[..]));
    assert!(of("de, en").await.is_none() && of("fr, de;q=0.5").await.is_none());
    // What was asked for by the same fields comes before what is only in the language.
    let fields = [("Vary", "Accept-Language"), ("Content-Language", "en")];
    put_variant(store, KEY, &accept("de, en;q=0.5"), &fields, b"own").await;
    put_variant(store, KEY, &accept("de"), &fields, b"de").await;
    assert_eq!(of("en;q=0.5,de").await.as_deref(), Some(&b"own"[..]));
}

async fn refresh<S: Store>(store: &S) {
    let old = put(store, KEY, b"hello").await.unwrap();
    let fields = stored(&[], &[("X-New", "1")]);
    let seen = store.version(KEY.as_bytes());
    let new = store.refresh(KEY.as_bytes(), &old, fields, seen).await;
    assert_eq!((octets(&new), new.stored.body_len), (b"hello".to_vec(), 5));
    let found = object(store, KEY, &[]).await.unwrap();
    assert!(found.stored.headers.contains("x-new"));
    assert!(String::from_utf8_lossy(&found.head).contains("X-New: 1\r\n"));
    assert_eq!(octets(&found), b"hello");
    // One that has been invalidated is served to whom it was for, and not kept.
    let seen = store.version(KEY.as_bytes());
    invalidate(store).await;
    let served = store
        .refresh(KEY.as_bytes(), &found, stored(&[], &[]), seen)
        .await;
    assert_eq!(octets(&served), b"hello");
    assert!(!has(store).await);
    // Nor does a late answer about one put its fields over another body that came in the same second.
    let old = put_variant(store, KEY, &[], &[("ETag", "\"old\"")], b"hello").await;
    invalidate(store).await;
    put_variant(store, KEY, &[], &[("ETag", "\"new\"")], b"other").await;
    let seen = store.version(KEY.as_bytes());
    let late = stored(&[], &[("ETag", "\"old\""), ("X-New", "1")]);
    store
        .refresh(KEY.as_bytes(), &old.unwrap(), late, seen)
        .await;
    let found = object(store, KEY, &[]).await;
    assert!(found.is_none_or(|found| octets(&found) == b"other"
        && found.stored.headers.get("etag") == Some(&b"\"new\""[..])));
    invalidate(store).await;
}

async fn overtaken<S: Store>(store: &S) {
    let begin = || {
        let seen = store.version(KEY.as_bytes());
        let begun = store.begin(Key::from(KEY.as_bytes()), stored(&[], &[]), None, seen);
        let mut writer = begun.unwrap_or_else(|reason| panic!("{reason:?}"));
        writer.write(b"early");
        writer
    };
    let early = begin();
    invalidate(store).await;
    assert!(
        early.finish().await.is_none() && !has(store).await,
        "its request was sent before"
    );
    let late = begin();
    assert!(late.finish().await.is_some());
}

async fn parts<S: Store>(store: &S, max_object: u64) {
    let begin = |length| {
        let seen = store.version(KEY.as_bytes());
        let begun = store.begin(Key::from(KEY.as_bytes()), stored(&[], &[]), None, seen);
        let mut writer = begun.unwrap_or_else(|reason| panic!("{reason:?}"));
        writer.write(&vec![b'x'; length]);
        writer
    };
    let length = async || body(store, KEY, &[]).await.map(|body| body.len());
    let part = |length: usize| {
        let mut writer = begin(length);
        writer.keep_as(Part::arrived(0, length as u64, Some(40_000), None));
        writer
    };
    // As the sizes are, they are kept in different ways.
    let sizes = [(5, 20), (5, 40_000), (35_000, 40_000)];
    for (small, large) in sizes
        .into_iter()
        .filter(|(_, large)| *large as u64 <= max_object)
    {
        invalidate(store).await;
        part(small).finish().await;
        assert_eq!(length().await, Some(small));
        let late = part(small);
        begin(large).finish().await;
        assert_eq!(length().await, Some(large), "the whole takes its place");
        late.finish().await;
        assert_eq!(length().await, Some(large), "and keeps it");
    }
    invalidate(store).await;
}

async fn two_processes<S: Store>(one: &S, two: &S, slots: &Slots, shares: bool) {
    let fill = async || (put(one, KEY, b"hello").await, put(two, KEY, b"hello").await);
    let both = async || [has(one).await, has(two).await];
    fill().await;
    assert_eq!(both().await, [true, true]);
    invalidate(two).await;
    assert_eq!(both().await, [false, false], "invalidation reaches all");
    put(one, KEY, b"hello").await;
    assert_eq!(both().await, [true, shares]);
    // A refresh reaches all: nobody serves what was before it.
    let (old, _) = fill().await;
    let old = object(one, KEY, &[]).await.or(old).unwrap();
    let seen = one.version(KEY.as_bytes());
    one.refresh(KEY.as_bytes(), &old, stored(&[], &[("X-New", "1")]), seen)
        .await;
    for store in [one, two] {
        let found = object(store, KEY, &[]).await;
        assert!(found.is_none_or(|found| found.stored.headers.contains("x-new")));
    }
    assert!(has(one).await);
    let old = object(one, KEY, &[]).await.unwrap();
    let seen = one.version(KEY.as_bytes());
    invalidate(two).await;
    one.refresh(KEY.as_bytes(), &old, stored(&[], &[]), seen)
        .await;
    assert_eq!(
        both().await,
        [false, false],
        "a refresh does not bring back what was invalidated"
    );
    assert!(!one.invalidate(KEY.as_bytes()).await, "it is gone already");
    // An invalidation that has only begun, when a refresh comes: its files are still there.
    fill().await;
    let old = object(one, KEY, &[]).await.unwrap();
    let seen = one.version(KEY.as_bytes());
    slots.bump(key::hash(KEY.as_bytes()));
    one.refresh(KEY.as_bytes(), &old, stored(&[], &[("X-New", "1")]), seen)
        .await;
    for store in [one, two] {
        let found = object(store, KEY, &[]).await;
        assert!(found.is_none_or(|found| !found.stored.headers.contains("x-new")));
    }
    // A new epoch ends what is held in memory; what is being stored is of before.
    fill().await;
    let seen = one.version(KEY.as_bytes());
    let begun = one.begin(Key::from(KEY.as_bytes()), stored(&[], &[]), None, seen);
    slots.0.versions().bump_epoch();
    assert_eq!(both().await, [shares, shares]);
    let mut writer = begun.unwrap_or_else(|reason| panic!("{reason:?}"));
    writer.write(b"older");
    assert!(writer.finish().await.is_none());
    // A later answer takes the place of an earlier one, for all.
    invalidate(one).await;
    fill().await;
    let seen = one.version(KEY.as_bytes());
    let later = stored_at(9, &[], &[]);
    let begun = one.begin(Key::from(KEY.as_bytes()), later, None, seen);
    let mut writer = begun.unwrap_or_else(|reason| panic!("{reason:?}"));
    writer.write(b"later");
    writer.finish().await;
    assert_eq!(body(one, KEY, &[]).await.as_deref(), Some(&b"later"[..]));
    let other = body(two, KEY, &[]).await;
    assert!(other.is_none_or(|other| shares && other == b"later"));
}
