//! What is there is found, what leads nowhere goes, and the account is right afterwards.

use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::cache::{Policy, Stored as Response, Times};
use crate::http::{Headers, RequestHead, ResponseHead};
use crate::store::disk::write::{NewBody, Spill, put};

struct World {
    directory: tempfile::TempDir,
    place: Arc<Place>,
    region: Region,
    books: Books,
}

impl World {
    fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::prepare(&directory.path().join("cache")).unwrap();
        let (region, _fd) = Region::create(1).unwrap();
        region.space().raise_generation(1);
        let path = place.path().join("catalogue.sqlite");
        let mut books = Books::new(path, region.clone(), Now::read());
        books.open(|| ());
        region.space().set_limit(1 << 40, 1 << 40);
        World {
            directory,
            place: Arc::new(place),
            region,
            books,
        }
    }

    /// Stores, and tells nobody. `accept` is what selects a variant.
    fn put(&self, key: &str, accept: Option<&str>, length: usize) -> Name {
        let generation = self.region.space().generation();
        let aside = format!("0-1-{}", self.region.space().ticket());
        let body = vec![7; length];
        let body = if length > 32 << 10 {
            let mut spill = Spill::create(self.place.clone(), format!("{aside}b")).unwrap();
            spill.write(&body).unwrap();
            NewBody::File(spill)
        } else {
            NewBody::Inline(body)
        };
        let new = write::New {
            key: key.as_bytes().to_vec(),
            generation,
            stored: response(accept),
            body,
            aside,
            replaces: true,
            seen: None,
        };
        put(&self.place, new).unwrap().unwrap().name
    }

    fn tour(&mut self, scope: Scope) -> Tour {
        let mut tour = Tour::new(scope, &mut self.books, &self.region);
        while !tour.go_on(
            &self.place,
            &mut self.books,
            &self.region,
            monotonic_ms() + 3,
        ) {}
        tour
    }

    /// As if so many seconds had passed.
    fn later(&mut self, seconds: i64) {
        self.books.now.unix += seconds;
    }

    fn files(&self) -> Vec<PathBuf> {
        let objects = self.directory.path().join("cache/objects");
        let directories = std::fs::read_dir(objects).unwrap();
        let files = directories.flat_map(|entry| std::fs::read_dir(entry.unwrap().path()).unwrap());
        files.map(|entry| entry.unwrap().path()).collect()
    }

    fn head(&self, name: &Name) -> PathBuf {
        let name = name.to_string();
        let objects = self.directory.path().join("cache/objects");
        objects.join(&name[..3]).join(name)
    }

    fn used(&self) -> u64 {
        self.region.space().used()
    }
}

fn response(accept: Option<&str>) -> Response {
    let mut request = RequestHead::new();
    let mut headers = Headers::default();
    headers.push("Cache-Control", b"max-age=60");
    if let Some(accept) = accept {
        request.headers.push("Accept", accept.as_bytes());
        headers.push("Vary", b"Accept");
    }
    let response = ResponseHead {
        headers,
        ..ResponseHead::new()
    };
    let times = Times {
        request: 1_790_000_000,
        response: 1_790_000_000,
    };
    Response::new(&request, &response, times, &Policy::default())
}

#[test]
fn everything_is_found_and_counted_once() {
    let mut world = World::new();
    for n in 0..50 {
        world.put(&format!("http://a/{n}"), None, 1000 * n);
    }
    world.put("http://b/", Some("x"), 10);
    world.put("http://b/", Some("y"), 100_000);
    world.tour(Scope::All);
    assert_eq!(world.books.ledger.len(), 53);
    assert_eq!(world.used(), world.books.ledger.octets());
    let on_disk: u64 = world
        .files()
        .iter()
        .map(|file| cost(file.metadata().unwrap().len()))
        .sum();
    assert_eq!(world.used(), on_disk);
    world.later(60);
    let tour = world.tour(Scope::All);
    assert_eq!((tour.removed(), world.used()), (0, on_disk), "nothing new");
}

#[test]
fn what_leads_nowhere_goes_when_it_is_old_enough() {
    let mut world = World::new();
    let body = world.put("http://body/", None, 50_000);
    std::fs::remove_file(world.head(&body)).unwrap();
    let variant = world.put("http://variant/", Some("x"), 50_000);
    std::fs::remove_file(world.head(&variant.of_base())).unwrap();
    world.put("http://whole/", None, 50_000);
    let tour = world.tour(Scope::All);
    assert!(tour.has_left_young() && tour.removed() == 0);
    assert_eq!(world.files().len(), 5);
    world.later(60);
    let tour = world.tour(Scope::Since(tour.began_at()));
    assert!(!tour.has_left_young());
    assert_eq!(world.files().len(), 2);
    assert_eq!(world.books.ledger.len(), 1);
    assert_eq!(world.used(), world.books.ledger.octets());
}

#[test]
fn what_cannot_be_an_object_goes() {
    let mut world = World::new();
    let names: Vec<Name> = (0..5)
        .map(|n| world.put(&format!("http://a/{n}"), None, 50_000))
        .collect();
    let moved = world.put("http://elsewhere/", None, 10);
    std::fs::write(world.head(&names[0]), "garbage").unwrap();
    std::fs::write(world.head(&names[1]), "").unwrap();
    let mut head = std::fs::read(world.head(&names[2])).unwrap();
    head[6] += 1;
    std::fs::write(world.head(&names[2]), head).unwrap();
    std::fs::rename(world.head(&moved), world.head(&names[3])).unwrap();
    world.later(60);
    world.tour(Scope::All);
    assert_eq!(world.books.ledger.len(), 1);
    assert_eq!(world.files().len(), 2, "one head and its body");
    assert!(world.head(&names[4]).exists());
}

#[test]
fn what_is_gone_is_forgotten() {
    let mut world = World::new();
    let names: Vec<Name> = (0..20)
        .map(|n| world.put(&format!("http://a/{n}"), None, 10))
        .collect();
    world.tour(Scope::All);
    for name in &names[..5] {
        std::fs::remove_file(world.head(name)).unwrap();
    }
    std::fs::remove_dir_all(world.head(&names[5]).parent().unwrap()).unwrap();
    world.tour(Scope::All);
    assert_eq!(world.books.ledger.len(), 14);
    assert_eq!(world.used(), world.books.ledger.octets());
}

#[test]
fn only_directories_that_have_changed_are_visited() {
    let mut world = World::new();
    let name = world.put("http://a/", None, 10);
    world.tour(Scope::Since(world.books.now.unix + 3600));
    assert!(world.books.ledger.is_empty());
    world.tour(Scope::Since(world.books.now.unix - 3600));
    assert!(world.books.ledger.get(&name).is_some());
}

#[test]
fn another_generation_is_dead_with_its_bodies() {
    let mut world = World::new();
    for n in 0..10 {
        world.put(&format!("http://a/{n}"), None, 10_000 * n);
    }
    world.put("http://b/", Some("x"), 10);
    world.tour(Scope::All);
    let before = world.used();
    world.region.space().raise_generation(purged::after_all(1));
    world.books.forget_all();
    let new = world.put("http://new/", None, 10);
    assert_eq!(world.used(), before, "it is there until it is removed");
    world.tour(Scope::All);
    assert_eq!(world.files(), [world.head(&new)]);
    assert_eq!(
        world.used(),
        cost(world.head(&new).metadata().unwrap().len())
    );
}

#[test]
fn what_is_not_found_yet_counts_by_what_is() {
    let mut world = World::new();
    for n in 0..2000 {
        world.put(&format!("http://a/{n}"), None, 10);
    }
    let mut tour = Tour::new(Scope::All, &mut world.books, &world.region);
    while tour.next < 500 {
        assert!(tour.step(&world.place, &mut world.books, &world.region));
    }
    world.books.presume(tour.still_unseen());
    let all = 2000 * cost(1);
    let counted = world.used();
    assert!(
        (all / 4 * 3..all / 4 * 5).contains(&counted),
        "{counted} of {all}"
    );
    while !tour.go_on(
        &world.place,
        &mut world.books,
        &world.region,
        monotonic_ms() + 50,
    ) {}
    assert_eq!(world.used(), all);
}
