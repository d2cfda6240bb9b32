//! What is written is read again, a million rows quickly, and damage is told from a disk that cannot be written.

use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Instant;

use super::*;

fn row(n: u32) -> Row {
    let key = format!("http://origin.example/some/path/{n}").into_bytes();
    let mut name = Name::of(&key);
    let kind = match n % 5 {
        3 => Kind::Variant,
        4 => Kind::List,
        _ => Kind::Object,
    };
    if kind == Kind::Variant {
        name = name.variant(b"x");
    }
    Row {
        id: u64::from(n) + 1,
        name,
        kind,
        status: 200,
        length: 1000 + u64::from(n),
        kib: 5,
        stored: 1_790_000_000,
        expires: -1,
        used: 1_790_000_001,
        hits: 0,
        key,
    }
}

fn filled(count: u32) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalogue.sqlite");
    let mut catalogue = Catalogue::open(&path).unwrap();
    for from in (0..count).step_by(100_000) {
        let rows = (from..count.min(from + 100_000)).map(|n| Change::Put(row(n)));
        catalogue.write(&rows.collect::<Vec<_>>(), &[]).unwrap();
    }
    (directory, path)
}

fn loaded(path: &Path) -> Result<usize, CatalogueError> {
    let mut count = 0;
    Catalogue::open(path)?.load(|_| count += 1)?;
    Ok(count)
}

#[test]
fn rows_and_facts_come_back_as_they_were_written() {
    let (_directory, path) = filled(10);
    let mut catalogue = Catalogue::open(&path).unwrap();
    let changes = [
        Change::Used { id: 1, used: 7 },
        Change::Remove { id: 2 },
        Change::Hits { id: 3, hits: 4 },
        Change::Put(Row { kib: 9, ..row(2) }),
        Change::Hits { id: 3, hits: 5 },
        Change::Remove { id: 99 },
    ];
    catalogue.write(&changes, &[(Fact::Octets, 5)]).unwrap();
    catalogue.write_through(&[(Fact::Clean, 1)]).unwrap();
    assert_eq!(catalogue.fact(Fact::Octets).unwrap(), Some(5));
    assert_eq!(catalogue.fact(Fact::Clean).unwrap(), Some(1));
    assert_eq!(catalogue.fact(Fact::Boot).unwrap(), None);

    let reader = Reader::open(&path).unwrap();
    let mut rows = Vec::new();
    reader
        .rows(0, |row| {
            rows.push(row);
            true
        })
        .unwrap();
    let mut expected = vec![
        Row { used: 7, ..row(0) },
        Row {
            kib: 9,
            hits: 9,
            ..row(2)
        },
    ];
    expected.extend((3..10).map(row));
    assert_eq!(rows, expected);
    let totals = reader.totals().unwrap();
    assert_eq!((totals.objects, totals.variants, totals.lists), (5, 2, 2));
    assert_eq!(totals.kib, 8 * 5 + 9);

    catalogue.write(&[Change::RemoveAll], &[]).unwrap();
    assert_eq!(reader.totals().unwrap(), Totals::default());
}

#[test]
fn a_million_rows_are_loaded_in_a_moment() {
    let (_directory, path) = filled(1_000_000);
    // A machine that is busy with other tests may be late once, not each time.
    let mut took = Vec::new();
    for _ in 0..4 {
        let began = Instant::now();
        assert_eq!(loaded(&path).unwrap(), 1_000_000);
        took.push(began.elapsed());
        if took.iter().any(|took| *took < Duration::from_millis(1500)) {
            println!("{took:?}");
            return;
        }
    }
    panic!("{took:?}");
}

#[test]
fn it_is_for_its_owner_alone() {
    let (directory, path) = filled(10);
    let _open = Catalogue::open(&path).unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{entry:?}");
    }
}

#[test]
fn damage_is_found_out_and_there_is_a_way_out() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 6] = [
        ("pages zeroed", |path| overwrite(path, 4096 * 3, &[0; 8192])),
        ("first page zeroed", |path| overwrite(path, 0, &[0; 4096])),
        ("truncated", |path| truncate(path, 4096 * 9 + 100)),
        ("garbage", |path| {
            std::fs::write(path, [0xa5; 100_000]).unwrap()
        }),
        ("no database", |path| std::fs::write(path, "hello").unwrap()),
        ("a link", |path| {
            std::fs::remove_file(path).unwrap();
            symlink("/etc/passwd", path).unwrap();
        }),
    ];
    for (name, damage) in damages {
        let (_directory, path) = filled(5000);
        damage(&path);
        let found = loaded(&path);
        assert!(
            matches!(found, Err(CatalogueError::Broken(_))),
            "{name}: {found:?}"
        );
        Catalogue::delete(&path).unwrap();
        assert_eq!(loaded(&path).unwrap(), 0, "{name}");
    }
}

#[test]
fn files_that_are_removed_under_way_are_missed() {
    for part in ["", "-wal"] {
        let (_directory, path) = filled(10);
        let mut catalogue = Catalogue::open(&path).unwrap();
        assert!(catalogue.is_there() && catalogue.size() > 4096);
        catalogue.write_through(&[(Fact::Clean, 1)]).unwrap();
        assert!(catalogue.is_there());
        std::fs::remove_file(beside(&path, part)).unwrap();
        assert!(!catalogue.is_there(), "{part}");
    }
}

#[test]
fn an_empty_file_is_an_empty_catalogue() {
    let (_directory, path) = filled(10);
    std::fs::write(&path, "").unwrap();
    assert_eq!(loaded(&path).unwrap(), 0);
}

#[test]
fn one_of_a_later_version_is_of_no_use() {
    let (_directory, path) = filled(10);
    let connection = Connection::open(&path).unwrap();
    connection
        .execute(
            "INSERT INTO refinery_schema_history VALUES (99, 'later', '2030-01-01T00:00:00Z', '1')",
            [],
        )
        .unwrap();
    drop(connection);
    assert!(matches!(loaded(&path), Err(CatalogueError::Broken(_))));
}

#[test]
fn a_path_that_leads_nowhere_cannot_be_written() {
    let missing = Path::new("/nonexistent/catalogue.sqlite");
    assert!(matches!(
        Catalogue::open(missing),
        Err(CatalogueError::Unwritable(_))
    ));
}

fn overwrite(path: &Path, at: u64, octets: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(octets).unwrap();
}

fn truncate(path: &Path, length: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(length).unwrap();
}
