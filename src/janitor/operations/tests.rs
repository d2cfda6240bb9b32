//! On a directory at rest, with files that need not be what they are called. Conversations do the rest.

use std::os::fd::AsFd;
use std::path::Path;

use super::purge::keys;
use super::*;
use crate::cache::Set;
use crate::janitor::listing::Listing;
use crate::janitor::protocol::Kind;
use crate::store::disk::format::{Content, Head, List};
use crate::store::disk::purged;
use crate::sys::files::write_at;

fn prepared() -> (tempfile::TempDir, Place) {
    let temporary = tempfile::tempdir().unwrap();
    let place = Place::prepare(&temporary.path().join("cache")).unwrap();
    (temporary, place)
}

fn put(place: &Place, name: &Name, random: Option<u64>, content: &[u8]) {
    let file = place.create_aside("0-0-0").unwrap();
    write_at(file.as_fd(), content, 0).unwrap();
    let turn = place.turn_to_put(name.directory()).unwrap().unwrap();
    place.publish(&turn, "0-0-0", name, random).unwrap();
}

fn list(key: &[u8], generation: u64) -> Vec<u8> {
    let head = Head {
        key: key.to_vec(),
        generation,
        content: Content::List(List {
            number: 1,
            names: vec![vec!["accept-language".into()]],
            variants: Vec::new(),
        }),
    };
    let mut octets = Vec::new();
    head.encode(&mut octets);
    octets
}

fn at_rest(place: &Place, request: &Request) -> Done {
    let ground = Ground {
        place,
        instance: None,
        policies: &Policies::default(),
        sizes: Sizes::default(),
    };
    perform(request, &ground, None, &mut |_| Ok(())).unwrap()
}

fn files(place: &Place) -> usize {
    fn count(path: &Path) -> usize {
        let entries = std::fs::read_dir(path).unwrap().flatten();
        entries
            .map(|entry| match entry.path().is_dir() {
                true => count(&entry.path()),
                false => 1,
            })
            .sum()
    }
    count(&place.path().join("objects"))
}

#[test]
fn a_url_is_found_however_it_is_written() {
    let wanted = ["http://example.org/a?b", "reverse http://example.org/a?b"];
    for url in [
        "http://example.org/a?b",
        "http://EXAMPLE.org:80/a?b",
        " http://example.org/a?b#there ",
        "example.org/a?b",
    ] {
        let keys = keys(url).unwrap();
        assert_eq!(
            keys.map(|key| key.as_bytes().to_vec()),
            wanted.map(|key| key.as_bytes().to_vec())
        );
    }
    assert!(keys("example.org").is_ok_and(|[key, _]| key.as_bytes() == b"http://example.org/"));
    for bad in [
        "",
        "http://",
        "https://example.org/",
        "ftp://a/",
        "http://a/ b",
        "/path",
        "http://a:b@c/",
    ] {
        assert!(keys(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_purge_takes_everything_of_one_url_and_nothing_else() {
    let (_temporary, place) = prepared();
    let name = Name::of(b"reverse http://a/");
    let other = Name::of(b"http://b/");
    put(&place, &name, None, b"a list, it may be");
    put(&place, &name.variant(b"1"), None, b"a variant");
    put(&place, &name.variant(b"1"), Some(7), b"its body");
    put(&place, &name.variant(b"2"), None, b"another");
    put(&place, &other, None, b"something else");
    let request = Request::Purge {
        what: Set::Url("http://a/".to_owned()),
        soft: false,
    };
    let Done::Purged(purged) = at_rest(&place, &request) else {
        panic!()
    };
    assert_eq!(purged.objects, 2, "two variants");
    assert_eq!(purged.octets, 4 * 5120);
    assert_eq!(files(&place), 1);
    let Done::Purged(purged) = at_rest(&place, &request) else {
        panic!()
    };
    assert_eq!(purged.objects, 0);
}

#[test]
fn a_purge_of_everything_leaves_no_file_and_a_number() {
    let (_temporary, place) = prepared();
    let name = Name::of(b"http://a/");
    put(&place, &name, None, b"x");
    put(&place, &name, Some(1), b"x");
    place.create_aside("0-1-2").unwrap();
    let before = place.generation().unwrap();
    at_rest(&place, &Request::PurgeAll);
    assert_eq!(files(&place), 0);
    assert!(place.aside().unwrap().is_empty());
    assert_eq!(place.generation().unwrap(), purged::after_all(before));
    std::fs::write(place.path().join("generation"), "nonsense").unwrap();
    at_rest(&place, &Request::PurgeAll);
    assert!(place.generation().unwrap() > purged::after_all(before));
}

#[test]
fn a_check_removes_what_is_damaged_and_what_counts_no_more() {
    let (_temporary, place) = prepared();
    let key = b"http://a/";
    let generation = place.generation().unwrap();
    put(&place, &Name::of(key), None, &list(key, generation));
    put(
        &place,
        &Name::of(b"http://b/"),
        None,
        &list(key, generation),
    );
    put(&place, &Name::of(b"http://c/"), None, b"no head");
    let purged = list(b"http://d/", purged::after_all(generation));
    put(&place, &Name::of(b"http://d/"), None, &purged);
    let Done::Verified(verified) = at_rest(&place, &Request::Verify) else {
        panic!()
    };
    assert_eq!(
        (verified.checked, verified.damaged, verified.dead),
        (4, 2, 1)
    );
    assert_eq!(verified.damage.len(), 2);
    assert_eq!(files(&place), 1);
}

#[test]
fn what_is_shown_says_what_is_wrong_with_it() {
    let (_temporary, place) = prepared();
    let key = b"http://a/";
    put(&place, &Name::of(key), None, &list(key, 77));
    put(&place, &Name::of(key).variant(b"x"), None, b"nonsense");
    let request = Request::Show {
        url: "http://a/".to_owned(),
    };
    let Done::Shown(shown) = at_rest(&place, &request) else {
        panic!()
    };
    let [list, variant] = &shown.found[..] else {
        panic!("{shown:?}")
    };
    assert_eq!(list.kind, Kind::List);
    assert!(
        list.trouble
            .as_ref()
            .is_some_and(|it| it.contains("purged"))
    );
    assert_eq!(list.selects_by, [["accept-language"]]);
    assert!(
        variant
            .trouble
            .as_ref()
            .is_some_and(|it| it.contains("damaged"))
    );
}

#[test]
fn without_a_catalogue_there_are_still_figures() {
    let (_temporary, place) = prepared();
    let Done::Stats(stats) = at_rest(&place, &Request::Stats) else {
        panic!()
    };
    assert_eq!(
        stats.catalogue,
        Some(crate::janitor::protocol::Catalogue::Unusable)
    );
    assert!(stats.free > Some(0) && !stats.running && stats.holder.is_none());
    let ground = Ground {
        place: &place,
        instance: None,
        policies: &Policies::default(),
        sizes: Sizes::default(),
    };
    let error = perform(&Request::Ls(Listing::default()), &ground, None, &mut |_| {
        Ok(())
    })
    .unwrap_err();
    assert!(format!("{error:#}").contains("catalogue"), "{error:#}");
}
