use super::*;
use crate::store::contract::stored;

fn entry(key: &str, body: &[u8]) -> Entry {
    let mut stored = stored(&[], &[("Cache-Control", "max-age=60"), ("ETag", "\"a\"")]);
    stored.body_len = body.len() as u64;
    Entry {
        key: key.as_bytes().to_vec(),
        stored,
        checksums: format::checksums(body),
    }
}

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

fn bodies() -> [Vec<u8>; 4] {
    [body(0), body(5), body(BLOCK), body(2 * BLOCK + 7)]
}

fn written() -> Vec<u8> {
    let mut octets = Vec::new();
    let mut writer = Writer::new(&mut octets).unwrap();
    for (n, body) in bodies().iter().enumerate() {
        writer.begin(entry(&format!("http://a/{n}"), body)).unwrap();
        for block in body.chunks(BLOCK) {
            writer.block(block).unwrap();
        }
    }
    assert_eq!(writer.finish().unwrap(), 4);
    octets
}

/// All that can be read, and how it ends.
fn read(octets: &[u8]) -> (Vec<(Entry, Vec<u8>)>, Option<ArchiveError>) {
    let mut all = Vec::new();
    let mut reading = || {
        let mut reader = Reader::new(octets)?;
        while let Some(entry) = reader.entry()? {
            let mut body = Vec::new();
            while let Block::Octets(octets) = reader.block()? {
                body.extend_from_slice(octets);
            }
            all.push((entry, body));
        }
        assert_eq!(reader.at(), octets.len() as u64);
        Ok(())
    };
    let end = reading().err();
    (all, end)
}

#[test]
fn what_is_written_is_read() {
    let (all, end) = read(&written());
    assert!(end.is_none(), "{end:?}");
    assert_eq!(all.len(), 4);
    for (n, ((read, octets), body)) in all.iter().zip(bodies()).enumerate() {
        assert_eq!(*read, entry(&format!("http://a/{n}"), &body));
        assert!(*octets == body);
    }
}

#[test]
fn bodies_may_be_passed_over() {
    let octets = written();
    let mut reader = Reader::new(&octets[..]).unwrap();
    let keys = std::iter::from_fn(|| reader.entry().unwrap()).map(|entry| entry.key);
    assert_eq!(keys.last().unwrap(), b"http://a/3");
}

#[test]
fn what_cannot_be_had_is_given_up_and_the_rest_goes_on() {
    let mut octets = Vec::new();
    let mut writer = Writer::new(&mut octets).unwrap();
    let long = body(2 * BLOCK);
    writer.begin(entry("http://a/", &long)).unwrap();
    writer.block(&long[..BLOCK]).unwrap();
    writer.give_up().unwrap();
    writer.begin(entry("http://b/", b"b")).unwrap();
    writer.block(b"b").unwrap();
    assert_eq!(writer.finish().unwrap(), 1);

    let mut reader = Reader::new(&octets[..]).unwrap();
    reader.entry().unwrap();
    assert_eq!(reader.block().unwrap(), Block::Octets(&long[..BLOCK]));
    assert_eq!(reader.block().unwrap(), Block::GivenUp);
    assert_eq!(reader.block().unwrap(), Block::End);
    assert_eq!(reader.entry().unwrap().unwrap().key, b"http://b/");
    assert_eq!(reader.entry().unwrap(), None);
}

#[test]
fn one_that_is_cut_off_is_found_out() {
    let octets = written();
    // Every octet of the first heads, and some of the long bodies.
    let cuts = (0..2_000).chain((2_000..octets.len()).step_by(997));
    for cut in cuts.chain(octets.len() - 20..octets.len()) {
        let (_, end) = read(&octets[..cut]);
        match end {
            Some(ArchiveError::NotOne) => assert!(cut < BEGINNING.len()),
            Some(ArchiveError::Short(at)) => assert_eq!(at, cut as u64),
            end => panic!("{cut}: {end:?}"),
        }
    }
}

#[test]
fn no_changed_octet_goes_unnoticed() {
    let octets = written();
    let places = (0..2_000).chain((2_000..octets.len()).step_by(997));
    for at in places.chain(octets.len() - 20..octets.len()) {
        let mut octets = octets.clone();
        octets[at] ^= 0x10;
        let (_, end) = read(&octets);
        assert!(end.is_some(), "{at}");
    }
    let mut longer = octets.clone();
    longer.push(0);
    assert!(matches!(read(&longer).1, Some(ArchiveError::Damaged(_))));
}

#[test]
fn what_is_no_archive_is_told_from_one_of_another_version() {
    let end = |octets: &[u8]| read(octets).1;
    assert!(matches!(end(b""), Some(ArchiveError::NotOne)));
    assert!(matches!(end(b"PK\x03\x04"), Some(ArchiveError::NotOne)));
    assert!(matches!(end(&[7; 100]), Some(ArchiveError::NotOne)));
    let later = b"baton archive 2\n and so on";
    assert!(matches!(end(later), Some(ArchiveError::Version)));
    let mut head = written();
    // The version of the head's format.
    head[BEGINNING.len() + 6] = u8::MAX;
    assert!(matches!(end(&head), Some(ArchiveError::Version)));
}
