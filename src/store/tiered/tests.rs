use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::*;
use crate::cache::Name;
use crate::shared::Entry;
use crate::store::contract::{
    self, Slots, World, body, find, object, octets, put, put_variant, run,
};
use crate::store::disk::format::BLOCK;
use crate::store::disk::place::{Found as Listed, Place};
use crate::store::disk::purged;
use crate::store::{Body, Writer};

const KEY: &str = "http://a/";
const LARGEST: u64 = 3 << 20;

fn store(world: &World, worker: usize) -> Tiered<Rc<Slots>> {
    tiers(world, worker, 1 << 20, 16)
}

fn tiers(world: &World, worker: usize, memory: u64, files: usize) -> Tiered<Rc<Slots>> {
    let (path, region, slots) = (world.path(), world.region.clone(), world.slots.clone());
    Tiered::new(&path, region, worker, (memory, files), LARGEST, slots)
}

fn body_of(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

#[test]
fn the_contract_with_memory_over_it() {
    contract::holds_for(store, LARGEST, true);
}

#[test]
fn the_contract_with_files_kept_open() {
    contract::holds_for(|world, worker| tiers(world, worker, 0, 16), LARGEST, true);
}

#[test]
fn the_contract_with_nothing_in_memory() {
    contract::holds_for(|world, worker| tiers(world, worker, 0, 0), LARGEST, true);
}

#[test]
fn what_is_stored_outlives_its_process() {
    let world = World::new();
    run(async {
        for length in [0, 1, INLINE, INLINE + 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7] {
            let key = format!("http://a/{length}");
            put(&store(&world, 0), &key, &body_of(length))
                .await
                .unwrap();
            let found = body(&store(&world, 1), &key, &[]).await;
            assert!(found == Some(body_of(length)), "{length}");
        }
    });
}

#[test]
fn accounts_are_right_whatever_becomes_of_a_response() {
    let world = World::new();
    let space = world.region.space();
    run(async {
        let store = store(&world, 0);
        let abandoned = async |length: usize| {
            let seen = store.version(KEY.as_bytes());
            let stored = contract::stored(&[], &[]);
            let begun = store.begin(Key::from(KEY.as_bytes()), stored, None, seen);
            let mut writer = begun.unwrap_or_else(|reason| panic!("{reason:?}"));
            assert!(writer.write(&body_of(length)) && writer.room().await);
            assert!(space.used() >= length as u64);
        };
        abandoned(10).await;
        abandoned(BLOCK + 1).await;
        until("nothing is taken", || space.used() == 0).await;
        put(&store, KEY, &body_of(400_000)).await.unwrap();
    });
    let expected = cost(400_000) + cost(300);
    assert_eq!(space.used(), expected);
    assert_eq!(world.region.space_row(0).in_flight(), 0);
    let mut told = 0;
    let journal = world.region.journal(0);
    journal.drain(&mut journal.begin(), 100, |entry| {
        if let Entry::Stored(stored) = entry {
            told += u64::from(stored.kib) * 1024;
        }
    });
    assert_eq!(told, expected);
    // Nothing is left of what was abandoned.
    assert!(
        Place::open(&world.path())
            .unwrap()
            .aside()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_promise_takes_no_space_and_a_removed_file_is_let_go() {
    let world = World::new();
    run(async {
        let store = store(&world, 0);
        let seen = store.version(KEY.as_bytes());
        let stored = contract::stored(&[], &[]);
        let promised = store.begin(Key::from(KEY.as_bytes()), stored, Some(LARGEST), seen);
        assert!(promised.is_ok() && world.region.space().used() <= STEP);
        drop(promised);
        put(&store, KEY, &body_of(400_000)).await.unwrap();
        let held = object(&store, KEY, &[]).await.unwrap();
        let place = Place::open(&world.path()).unwrap();
        crate::store::disk::write::remove(&place, &Name::of(KEY.as_bytes())).unwrap();
        store.look_after().await;
        let files = store.inner.files.as_ref().unwrap();
        assert!(
            files.is_empty() && Rc::strong_count(&held) == 1,
            "nobody holds it open"
        );
        assert!(octets(&held) == body_of(400_000), "but who reads it");
    });
}

#[test]
fn what_is_asked_for_once_takes_no_open_file_its_place() {
    let world = World::new();
    run(async {
        let (key, none) = (|n: usize| format!("http://a/{n}"), Headers::new());
        for n in 0..40 {
            let other = tiers(&world, 1, 0, 0);
            // A disk that is busy with other tests may take longer than a response is held back for; then it is there later.
            let _ = put(&other, &key(n), b"x").await;
            let is_there = || matches!(other.find(key(n).as_bytes(), &none), Find::Object(_));
            until("it is stored", is_there).await;
        }
        let store = tiers(&world, 0, 0, 16);
        let is_open = |n: usize| store.copy(key(n).as_bytes(), &Headers::new()).is_some();
        for n in 0..40 {
            assert_eq!(body(&store, &key(n), &[]).await.unwrap(), b"x");
            assert_eq!(is_open(n), n < 16, "{n}");
        }
        assert!((0..16).all(is_open));
        // Asked for again, and at once.
        body(&store, &key(39), &[]).await.unwrap();
        assert!(is_open(39));
    });
}

#[test]
fn no_more_than_the_limit_is_stored() {
    let world = World::new();
    world.region.space().set_limit(100_000, 100_000);
    run(async {
        let store = store(&world, 0);
        let begun = |expected| {
            let seen = store.version(KEY.as_bytes());
            let stored = contract::stored(&[], &[]);
            store.begin(Key::from(KEY.as_bytes()), stored, expected, seen)
        };
        assert_eq!(begun(Some(100_000)).err(), Some(NotKept::Full));
        let mut writer = begun(None).unwrap_or_else(|reason| panic!("{reason:?}"));
        assert!(writer.write(&[0; 50_000]) && !writer.write(&[0; 50_000]));
        drop(writer);
        assert!(put(&store, KEY, &body_of(20_000)).await.is_some());
        // While space is tight, what is asked for more often goes first.
        world.region.space().set_limit(100_000, 10_000);
        world.region.space().set_floor(1);
        assert_eq!(begun(Some(1)).err(), Some(NotKept::Rare));
        for _ in 0..2 {
            find(&store, "http://b/", &[]).await;
        }
        assert!(put(&store, "http://b/", b"x").await.is_some());
    });
}

/// Keeps every thread of a store's disk busy until what is returned goes.
async fn hang(store: &Tiered<Rc<Slots>>) -> Vec<std::sync::mpsc::Sender<()>> {
    let mut held = Vec::new();
    for _ in 0..crate::store::disk::MOST_AT_ONCE {
        let (hold, wait) = std::sync::mpsc::channel();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let disk = store.inner.disk.clone();
        tokio::task::spawn_local(async move {
            let job = move |_: &_| Ok((begin.send(()).is_ok(), wait.recv().is_ok()));
            disk.run(job).await
        });
        begun.await.unwrap();
        held.push(hold);
    }
    held
}

#[test]
fn what_waits_for_the_disk_counts_until_it_is_written() {
    run(async {
        let world = World::new();
        let store = store(&world, 0);
        let held = hang(&store).await;
        assert!(put(&store, KEY, &[7; 1000]).await.is_none());
        // Nobody waits for it any more, and its memory is taken all the same.
        assert_eq!(store.inner.arriving.get(), 1000);
        drop(held);
        until("it is written", || store.inner.arriving.get() == 0).await;
    });
}

#[test]
fn a_turn_that_does_not_end_holds_up_nobody_who_can_do_without() {
    run(async {
        let world = World::new();
        let store = store(&world, 0);
        put(&store, KEY, b"x").await.unwrap();
        let place = Place::open(&world.path()).unwrap();
        let held = place.turn(Name::of(KEY.as_bytes()).directory()).unwrap();
        for _ in 0..2 * crate::store::disk::MOST_AT_ONCE {
            assert!(put(&store, KEY, b"x").await.is_none());
        }
        assert!(put(&store, "http://elsewhere/", b"x").await.is_some());
        drop(held);
        assert!(put(&store, KEY, b"x").await.is_some());
    });
}

/// Looks again until it is so.
async fn until(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

#[test]
fn what_is_being_written_takes_its_space_until_it_is_gone() {
    for gives_up in [false, true] {
        let world = World::new();
        let space = world.region.space();
        run(async {
            let store = store(&world, 0);
            let held = hang(&store).await;
            let seen = store.version(KEY.as_bytes());
            let stored = contract::stored(&[], &[]);
            let begun = store.begin(Key::from(KEY.as_bytes()), stored, None, seen);
            let mut writer = begun.unwrap_or_else(|reason| panic!("{reason:?}"));
            assert!(writer.write(&body_of(BLOCK + 1)) && writer.room().await);
            // The one does not wait for the disk any more, the other's client has left.
            assert!(!gives_up || !writer.is_idle().await);
            let taken = space.used();
            drop(writer);
            for _ in 0..100 {
                tokio::task::yield_now().await;
                assert!(space.used() == taken && taken > BLOCK as u64);
            }
            drop(held);
            until("nothing is taken", || space.used() == 0).await;
            let place = Place::open(&world.path()).unwrap();
            assert_eq!(place.aside().unwrap(), Vec::<Vec<u8>>::new());
        });
    }
}

#[test]
fn what_a_worker_was_storing_when_it_died_does_not_outlive_an_invalidation() {
    for body in [body_of(10), body_of(400_000)] {
        let world = World::new();
        run(async { put(&store(&world, 0), KEY, b"old").await.unwrap() });
        let (path, region) = (world.path(), world.region.clone());
        let (say, said) = std::sync::mpsc::channel();
        // The loop ends in the middle of it, and never looks at the version again; a thread of its disk goes on.
        let dies = std::thread::spawn(move || {
            run(async {
                let slots = Rc::new(Slots(region.clone()));
                let store = Tiered::new(&path, region, 0, (1 << 20, 16), LARGEST, slots);
                let seen = store.version(KEY.as_bytes());
                let stored = contract::stored(&[], &[]);
                let begun = store.begin(Key::from(KEY.as_bytes()), stored, None, seen);
                let mut writer = begun.unwrap_or_else(|reason| panic!("{reason:?}"));
                assert!(writer.write(&body) && writer.room().await && writer.is_idle().await);
                let held = hang(&store).await;
                assert!(writer.finish().await.is_none(), "the disk hangs");
                say.send(held).unwrap();
            });
        });
        let held = said.recv().unwrap();
        run(async {
            let other = store(&world, 1);
            assert!(other.invalidate(KEY.as_bytes()).await);
            drop(held);
            dies.join().unwrap();
            assert!(object(&other, KEY, &[]).await.is_none());
        });
        assert_eq!(files(&world), Vec::<PathBuf>::new());
    }
}

/// The head file and the body file of what is stored.
fn files(world: &World) -> Vec<PathBuf> {
    let place = Place::open(&world.path()).unwrap();
    let name = Name::of(KEY.as_bytes());
    let mut found: Vec<PathBuf> = place
        .list(name.directory())
        .unwrap()
        .into_iter()
        .map(|file| match file {
            Listed::Head(name) => name.to_string(),
            Listed::Body(name, random) => format!("{name}.{random:016x}"),
            Listed::Other(_) => panic!("something else"),
        })
        .map(|file| world.path().join("objects").join(&file[..3]).join(file))
        .collect();
    found.sort();
    found
}

fn flip(path: &Path, at: u64) {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut octet = [0];
    file.read_exact_at(&mut octet, at).unwrap();
    file.write_all_at(&[!octet[0]], at).unwrap();
}

#[test]
fn damage_is_found_and_what_is_damaged_is_gone() {
    type Damage = fn(&[PathBuf]);
    let damages: &[(&str, Damage)] = &[
        ("a flipped octet in the head", |files| flip(&files[0], 100)),
        ("a head cut off", |files| truncate(&files[0], 50)),
        ("a head and a half", |files| truncate(&files[0], 5_000)),
        ("an empty head", |files| truncate(&files[0], 0)),
        ("a flipped octet in the body", |files| {
            flip(files.last().unwrap(), length(files.last().unwrap()) - 1)
        }),
        ("a body cut off", |files| {
            let last = files.last().unwrap();
            truncate(last, length(last) - 1);
        }),
        ("a body that is missing", |files| {
            std::fs::remove_file(files.last().unwrap()).unwrap()
        }),
        ("a directory in its place", |files| {
            std::fs::remove_file(&files[0]).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", &files[0]).unwrap();
        }),
    ];
    for (damage, harm) in damages {
        for size in [1_000, 100_000, 400_000] {
            for (memory, open) in [(1 << 20, 16), (0, 0)] {
                let world = World::new();
                run(async {
                    put(&tiers(&world, 0, 0, 0), KEY, &body_of(size))
                        .await
                        .unwrap();
                    harm(&files(&world));
                    let found = body(&tiers(&world, 1, memory, open), KEY, &[]).await;
                    assert!(found.is_none(), "{damage}, {size} octets");
                    let heads = || {
                        files(&world)
                            .iter()
                            .filter(|path| path.extension().is_none())
                            .count()
                    };
                    assert_eq!(heads(), 0, "{damage}, {size} octets");
                    put(&tiers(&world, 0, 0, 0), KEY, b"again").await.unwrap();
                    assert!(
                        body(&store(&world, 1), KEY, &[]).await.is_some(),
                        "{damage}"
                    );
                });
            }
        }
    }
}

#[test]
fn a_changed_body_is_noticed_in_an_open_file() {
    let world = World::new();
    run(async {
        let store = store(&world, 0);
        put(&store, KEY, &body_of(400_000)).await.unwrap();
        assert!(body(&store, KEY, &[]).await == Some(body_of(400_000)));
        flip(files(&world).last().unwrap(), 399_999);
        assert_eq!(body(&store, KEY, &[]).await, None);
    });
}

#[test]
fn another_object_in_its_place_is_not_taken_for_it() {
    let world = World::new();
    run(async {
        let store = tiers(&world, 0, 0, 0);
        put(&store, KEY, &body_of(100)).await.unwrap();
        put(&store, "http://b/", &body_of(100)).await.unwrap();
        let other = Name::of(b"http://b/").to_string();
        let other = world.path().join("objects").join(&other[..3]).join(other);
        std::fs::copy(other, &files(&world)[0]).unwrap();
        assert_eq!(body(&store, KEY, &[]).await, None);
        assert!(files(&world).is_empty());
    });
}

#[test]
fn a_body_that_is_only_touched_is_read_and_served() {
    let world = World::new();
    run(async {
        put(&store(&world, 0), KEY, &body_of(400_000))
            .await
            .unwrap();
        let path = files(&world).pop().unwrap();
        let content = std::fs::read(&path).unwrap();
        std::fs::write(&path, content).unwrap();
        let found = object(&store(&world, 1), KEY, &[]).await.unwrap();
        assert!(octets(&found) == body_of(400_000));
    });
}

#[test]
fn what_has_been_read_and_found_right_is_trusted_from_then_on() {
    const HUGE: usize = (16 << 20) + 70_000;
    let world = World::new();
    let open = || {
        let (path, region, slots) = (world.path(), world.region.clone(), world.slots.clone());
        Tiered::new(&path, region, 0, (0, 16), 1 << 30, slots)
    };
    run(async {
        put(&open(), KEY, &body_of(HUGE)).await.unwrap();
        let path = files(&world).remove(1);
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        let store = open();
        let found = object(&store, KEY, &[]).await.unwrap();
        let Body::File(body) = &found.body else {
            panic!("{:?}", found.body)
        };
        let blocks = HUGE.div_ceil(BLOCK);
        for block in [0].into_iter().chain(0..blocks) {
            assert!(!body.is_trusted(), "block {block}");
            body.read_block(block, &mut Vec::new()).unwrap();
        }
        assert!(body.is_trusted() && body.read_block(blocks, &mut Vec::new()).is_err());
        let at = found.on_disk.as_ref().unwrap();
        store.disk().attest(at.name, body.facts()).await;
        let trusted = async || match &object(&open(), KEY, &[]).await.unwrap().body {
            Body::File(body) => body.is_trusted(),
            other => panic!("{other:?}"),
        };
        assert!(trusted().await);
        // Not once it has been changed again.
        file.set_modified(std::time::SystemTime::now()).unwrap();
        store.disk().attest(at.name, body.facts()).await;
        assert!(!trusted().await);
    });
}

#[test]
fn a_replaced_body_leaves_nothing_behind() {
    let world = World::new();
    run(async {
        let store = store(&world, 0);
        for length in [400_000, 500_000, 100, 100_000, 300_000] {
            put(&store, KEY, &body_of(length)).await.unwrap();
            let expected = if length > INLINE { 2 } else { 1 };
            assert_eq!(files(&world).len(), expected, "{length}");
        }
        put_variant(
            &store,
            KEY,
            &[("X", "1")],
            &[("Vary", "x")],
            &body_of(400_000),
        )
        .await;
        assert_eq!(files(&world).len(), 3, "a list, a variant and its body");
        store.invalidate(KEY.as_bytes()).await;
        assert_eq!(files(&world).len(), 0);
    });
}

/// Files that somebody has written who knows the format.
#[test]
fn what_leads_around_in_a_circle_or_is_a_part_is_a_miss() {
    use crate::store::disk::format::{Content, Head, List};
    use crate::sys::files::write_at;
    use std::os::fd::AsFd;

    let world = World::new();
    let place = Place::open(&world.path()).unwrap();
    let base = Name::of(KEY.as_bytes());
    let variant = base.variant(b"");
    for name in [base, variant] {
        let list = List {
            number: 1,
            names: vec![vec![]],
            variants: vec![variant.variant],
        };
        let head = Head {
            key: KEY.as_bytes().to_vec(),
            generation: 1,
            content: Content::List(list),
        };
        let mut octets = Vec::new();
        head.encode(&mut octets);
        let file = place.create_aside("planted").unwrap();
        write_at(file.as_fd(), &octets, 0).unwrap();
        let turn = place.turn_to_put(name.directory()).unwrap().unwrap();
        place.publish(&turn, "planted", &name, None).unwrap();
    }
    run(async {
        let store = store(&world, 0);
        assert!(body(&store, KEY, &[]).await.is_none());
        assert!(store.invalidate(KEY.as_bytes()).await);
        assert!(files(&world).is_empty());
    });
}

#[test]
fn a_past_generation_is_not_found() {
    let world = World::new();
    run(async {
        let (here, fresh) = (store(&world, 0), store(&world, 1));
        put(&here, KEY, b"x").await.unwrap();
        world.region.space().raise_generation(purged::after_all(1));
        assert!(body(&fresh, KEY, &[]).await.is_none());
        put(&fresh, KEY, b"y").await.unwrap();
        assert!(body(&tiers(&world, 0, 0, 0), KEY, &[]).await.is_some());
    });
}

#[test]
fn what_cannot_be_removed_is_not_served() {
    let world = World::new();
    run(async {
        let store = store(&world, 0);
        put(&store, KEY, b"x").await.unwrap();
        put(&store, "http://b/", b"y").await.unwrap();
        // Not even the superuser can unlink from a directory that is not one.
        let objects = world.path().join("objects");
        std::fs::rename(&objects, world.path().join("elsewhere")).unwrap();
        std::fs::write(&objects, "").unwrap();
        let before = store.version(KEY.as_bytes());
        store.invalidate(KEY.as_bytes()).await;
        // Said twice as any other: who read it in between must not keep his copy.
        assert_eq!(store.version(KEY.as_bytes()).slot, before.slot + 2);
        std::fs::remove_file(&objects).unwrap();
        std::fs::rename(world.path().join("elsewhere"), &objects).unwrap();
        assert!(body(&store, KEY, &[]).await.is_none());
        let other = body(&self::store(&world, 1), "http://b/", &[]).await;
        assert!(other.is_none(), "nothing of before is");
    });
}

#[test]
fn a_directory_that_goes_and_comes_back_is_used_again() {
    let world = World::new();
    run(async {
        let store = store(&world, 0);
        std::fs::remove_dir_all(world.path()).unwrap();
        assert!(put(&store, KEY, b"x").await.is_none());
        Place::prepare(&world.path()).unwrap();
        store.disk().open_again().await;
        let stored = async || put(&store, KEY, b"x").await.is_some();
        let until = std::time::Instant::now() + Duration::from_secs(5);
        while !stored().await {
            assert!(std::time::Instant::now() < until);
            tokio::task::yield_now().await;
        }
        assert!(body(&self::store(&world, 1), KEY, &[]).await.is_some());
    });
}

/// A lease of another process is a disk that takes its time.
#[test]
fn a_slow_disk_keeps_only_those_waiting_who_ask_it() {
    let world = World::new();
    run(async {
        put(&store(&world, 0), KEY, b"x").await.unwrap();
        let file = std::fs::File::options()
            .write(true)
            .open(&files(&world)[0])
            .unwrap();
        assert!(lease(&file), "{}", std::io::Error::last_os_error());
        let slow = store(&world, 1);
        assert!(matches!(
            slow.find(KEY.as_bytes(), &Headers::new()),
            Find::AskDisk
        ));
        let waiting = async { body(&slow, KEY, &[]).await };
        let others = async {
            put(&slow, "http://b/", b"y").await.unwrap();
            drop(file);
        };
        let (found, ()) = tokio::join!(waiting, others);
        assert_eq!(found.as_deref(), Some(&b"x"[..]));
    });
}

/// Keeps everybody else waiting who opens the file, for as long as it is open. Some file systems have no leases.
#[expect(unsafe_code, reason = "no crate wraps leases")]
fn lease(file: &std::fs::File) -> bool {
    use std::os::fd::AsRawFd;
    // SAFETY: commands with a number each, on a descriptor that is open.
    unsafe {
        let taken = libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) == 0;
        // The signal that asks for it back would end this process.
        taken && libc::fcntl(file.as_raw_fd(), libc::F_SETOWN, 0) == 0
    }
}

fn truncate(path: &Path, length: u64) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(length).unwrap();
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[test]
fn a_list_leads_to_no_list() {
    use super::super::disk::format::{Content, Head, List};
    use super::super::disk::read::{self, ReadError};
    use crate::sys::files::Access;
    use crate::sys::files::write_at;
    use std::os::fd::AsFd;

    let world = World::new();
    let place = Place::open(&world.path()).unwrap();
    let head = Head {
        key: KEY.as_bytes().to_vec(),
        generation: 1,
        content: Content::List(List::default()),
    };
    let mut encoded = Vec::new();
    head.encode(&mut encoded);
    let base = Name::of(KEY.as_bytes());
    let is_read = |name: Name| {
        let file = place.create_aside("1-2-3").unwrap();
        write_at(file.as_fd(), &encoded, 0).unwrap();
        let turn = place.turn_to_put(name.directory()).unwrap().unwrap();
        place.publish(&turn, "1-2-3", &name, None).unwrap();
        let mut buffer = Vec::new();
        let read = read::head(&place, &name, Access::Blocking, &mut buffer);
        assert!(matches!(read, Ok(_) | Err(ReadError::Damaged(_))));
        read.is_ok()
    };
    assert!(is_read(base) && !is_read(base.variant(b"x")));
}
