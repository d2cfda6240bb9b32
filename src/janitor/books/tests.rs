//! The three accounts agree, whatever happens to a process or to the catalogue in between.

use super::written::boot_id;
use super::*;
use crate::janitor::catalogue::Fact;
use crate::janitor::catalogue::Reader;
use crate::shared::{Entry as Record, Kind};

struct World {
    directory: tempfile::TempDir,
    region: Region,
}

impl World {
    fn new() -> World {
        let world = World {
            directory: tempfile::tempdir().unwrap(),
            region: Region::create(2).unwrap().0,
        };
        world.region.space().raise_generation(1);
        world
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("catalogue.sqlite")
    }

    /// As a janitor does when it starts.
    fn open(&self) -> (Books, Opened) {
        let mut books = Books::new(self.path(), self.region.clone(), Now::read());
        let space = self.region.space();
        let opened = books.open(|| space.set_limit(1 << 30, 1 << 29));
        space.set_limit(1 << 30, 1 << 29);
        books.begin();
        (books, opened)
    }

    /// As a worker does: reserves, writes, tells.
    fn store(&self, worker: usize, key: &str, kib: u32) {
        let (row, space) = (self.region.space_row(worker), self.region.space());
        assert!(row.reserve(space, u64::from(kib) * 1024));
        assert!(
            self.region
                .journal(worker)
                .push(&Record::Stored(stored(key, kib)))
        );
        row.recorded(u64::from(kib) * 1024);
    }

    fn tell(&self, record: &Record<'_>) {
        assert!(self.region.journal(0).push(record));
    }

    /// Keys and sizes in the catalogue.
    fn rows(&self) -> Vec<(String, u32)> {
        let mut rows = Vec::new();
        let reader = Reader::open(&self.path()).unwrap();
        reader
            .rows(0, |row| {
                rows.push((String::from_utf8(row.key).unwrap(), row.kib));
                true
            })
            .unwrap();
        rows
    }

    fn used(&self) -> u64 {
        self.region.space().used() / 1024
    }
}

fn stored(key: &str, kib: u32) -> Stored<'_> {
    Stored {
        name: Name::of(key.as_bytes()),
        kind: Kind::Object,
        key: key.as_bytes(),
        status: 200,
        length: 7,
        kib,
        expires: 0,
        at: 0,
    }
}

#[test]
fn what_workers_tell_is_in_all_three_accounts() {
    let world = World::new();
    let (mut books, opened) = world.open();
    assert_eq!(opened, Opened::Empty);
    world.store(0, "a", 5);
    world.store(1, "b", 9);
    world.store(0, "a", 42);
    assert_eq!(
        world.used(),
        56,
        "what is replaced counts until the janitor knows"
    );
    assert_eq!(books.drain(), 3);
    assert_eq!((books.ledger.octets() / 1024, world.used()), (51, 51));
    world.tell(&Record::Removed(Name::of(b"b")));
    world.tell(&Record::Removed(Name::of(b"never there")));
    books.drain();
    assert_eq!((books.ledger.octets() / 1024, world.used()), (42, 42));
    books.commit(true);
    assert_eq!(world.rows(), [("a".to_owned(), 42)]);
    assert!(world.region.filter().is_ready() || world.region.filter().may_hold(&Name::of(b"a")));
}

#[test]
fn an_orderly_end_needs_no_tour_and_any_other_does() {
    let world = World::new();
    let (mut books, _) = world.open();
    world.store(0, "a", 5);
    books.drain();
    books.close(true);
    let (books, opened) = world.open();
    assert!(matches!(opened, Opened::Complete { .. }), "{opened:?}");
    assert_eq!(books.ledger.len(), 1);
    drop(books);
    assert_eq!(world.open().1, Opened::Doubtful, "a death");
    let (books, _) = world.open();
    books.close(false);
    assert_eq!(world.open().1, Opened::Doubtful, "an end amid a tour");
    world.open().0.close(true);
    world.region.space().raise_generation(2);
    assert_eq!(world.open().1, Opened::Doubtful, "purged at rest");
}

#[test]
fn a_janitors_death_leaves_its_records_to_its_successor() {
    let world = World::new();
    let (mut books, _) = world.open();
    world.store(0, "a", 5);
    books.drain();
    books.commit(true);
    world.store(0, "b", 5);
    books.drain();
    drop(books);
    let (mut books, _) = world.open();
    assert_eq!(books.ledger.len(), 1);
    assert_eq!(books.drain(), 1);
    books.commit(true);
    assert_eq!(world.rows().len(), 2);
    assert_eq!(world.used(), 10);
    assert_eq!(books.drain(), 0);
    drop(books);
    assert_eq!(world.open().0.drain(), 0, "settled");
}

#[test]
fn what_another_start_of_the_machine_left_is_not_believed() {
    let world = World::new();
    let (mut books, _) = world.open();
    world.store(0, "a", 5);
    books.drain();
    books.commit(true);
    let catalogue = books.catalogue.as_mut().unwrap();
    catalogue
        .write(&[], &[(Fact::Boot, boot_id() ^ 1)])
        .unwrap();
    drop(books);
    let (books, opened) = world.open();
    assert_eq!((books.ledger.len(), opened), (0, Opened::Empty));
}

#[test]
fn a_broken_catalogue_is_made_anew_and_filled_by_a_tour() {
    let world = World::new();
    let (mut books, _) = world.open();
    world.store(0, "a", 5);
    books.drain();
    books.close(true);
    std::fs::write(world.path(), [7; 9000]).unwrap();
    let (mut books, opened) = world.open();
    assert_eq!((books.ledger.len(), opened), (0, Opened::Empty));
    assert!(books.take_wants_tour());
    assert!(books.found(&stored("a", 5), 0));
    books.commit(true);
    assert_eq!(world.rows().len(), 1);
}

#[test]
fn a_catalogue_that_disappears_under_way_is_made_anew() {
    for part in ["", "-wal"] {
        let world = World::new();
        let (mut books, _) = world.open();
        world.store(0, "a", 5);
        books.drain();
        books.commit(true);
        books.look_after_catalogue();
        assert!(!books.take_wants_tour());
        let mut path = world.path().into_os_string();
        path.push(part);
        std::fs::remove_file(path).unwrap();
        books.look_after_catalogue();
        assert!(books.take_wants_tour(), "{part}");
        assert_eq!(books.ledger.len(), 1, "the ledger knows all the same");
        assert!(!books.found(&stored("a", 5), 0), "it is known, and written");
        world.store(0, "b", 5);
        books.drain();
        books.commit(true);
        assert_eq!(world.rows().len(), 2);
        assert_eq!(world.used(), 10);
    }
}

#[test]
fn a_catalogue_that_cannot_be_written_is_done_without_until_it_can() {
    let world = World::new();
    let region = world.region.clone();
    let folder = world.directory.path().join("later");
    let mut books = Books::new(folder.join("catalogue.sqlite"), region, Now::read());
    assert_eq!(books.open(|| ()), Opened::Empty);
    world.region.space().set_limit(1 << 30, 1 << 29);
    books.begin();
    world.store(0, "a", 5);
    books.drain();
    books.commit(true);
    assert_eq!(books.ledger.len(), 1);
    assert!(books.failing_since.is_some());
    let journal = world.region.journal(0);
    assert!(journal.is_read(journal.begin()), "its room is not held");
    std::fs::create_dir(&folder).unwrap();
    books.commit(false);
    assert!(books.failing_since.is_some(), "not tried too often");
    books.now.ms += 5_000;
    books.commit(false);
    assert!(books.failing_since.is_none() && books.take_wants_tour());
}

#[test]
fn an_account_that_a_death_left_wrong_is_put_right() {
    let world = World::new();
    let (mut books, _) = world.open();
    world.store(0, "a", 5);
    books.drain();
    assert!(world.region.space().reserve(3000), "and nobody ever tells");
    books.reconcile(0);
    assert!(
        world
            .region
            .space_row(1)
            .reserve(world.region.space(), 1000)
    );
    books.reconcile(0);
    assert_eq!(world.region.space().used(), 5 * 1024 + 1000);
    world.store(0, "b", 5);
    for _ in 0..3 {
        books.reconcile(0);
    }
    assert_eq!(
        world.region.space().used(),
        10 * 1024 + 1000,
        "unread records are waited for"
    );
}

#[test]
fn use_is_remembered_coarsely() {
    let world = World::new();
    let (mut books, _) = world.open();
    world.store(0, "a", 5);
    books.drain();
    books.commit(true);
    let began = books.now.unix;
    for _ in 0..4 {
        books.now.unix += i64::from(COARSE) / 2;
        world.tell(&Record::Used(Name::of(b"a"), 2));
        books.drain();
    }
    let written = books.pending.len();
    assert!((1..=2).contains(&written), "{written}");
    books.now.unix = began - 1_000_000;
    world.tell(&Record::Used(Name::of(b"a"), 2));
    books.drain();
    let used = books.ledger.get(&Name::of(b"a")).unwrap().used;
    assert_eq!(
        used.unix(),
        began + 2 * i64::from(COARSE),
        "clocks that go back change nothing"
    );
    world.tell(&Record::Used(Name::of(b"unknown"), 1));
    books.drain();
    assert_eq!(books.take_unknown(), [Name::of(b"unknown")]);
}

#[test]
fn a_purge_of_everything_counts_until_the_files_are_gone() {
    let world = World::new();
    let (mut books, _) = world.open();
    world.store(0, "a", 5);
    books.drain();
    books.forget_all();
    books.commit(true);
    assert_eq!((books.ledger.len(), world.used()), (0, 5));
    assert!(world.rows().is_empty());
    books.presume(0);
    assert_eq!(world.used(), 0);
}
