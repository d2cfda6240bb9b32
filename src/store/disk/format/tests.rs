use proptest::prelude::*;

use super::*;
use crate::store::contract::stored;

fn object(body: &[u8], place: Body) -> Head {
    let mut stored = stored(
        &[("X", "1"), ("Accept-Language", "de, en")],
        &[
            ("Vary", "x, accept-language"),
            ("ETag", "\"a\""),
            ("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("X-Empty", ""),
            ("X-Octets", "a: b"),
        ],
    );
    stored.body_len = body.len() as u64;
    stored.purged = (!body.is_empty()).then_some(-5);
    Head {
        key: b"http://a/".to_vec(),
        generation: 7,
        content: Content::Object(Box::new(Kept::new(stored, Some(3), place, checksums(body)))),
    }
}

fn file() -> Body {
    Body::File(File {
        random: 0xdead_beef,
        modified: (-1, 999_999_999),
        boot: [9; 16],
    })
}

fn list() -> Head {
    Head {
        key: b"reverse http://a/".to_vec(),
        generation: u64::MAX,
        content: Content::List(List {
            number: 5,
            names: vec![vec![], vec!["accept".into(), "x".into()]],
            variants: vec![[1; 8], [2; 8]],
        }),
    }
}

fn encoded(head: &Head) -> Vec<u8> {
    let mut octets = Vec::new();
    head.encode(&mut octets);
    octets
}

fn examples() -> [Head; 4] {
    [
        object(b"hello", Body::Inline),
        object(b"", Body::Inline),
        object(&[1; 300_000], file()),
        list(),
    ]
}

#[test]
fn what_is_written_is_read() {
    for head in examples() {
        let mut octets = encoded(&head);
        let length = octets.len();
        octets.extend_from_slice(b"the body");
        assert_eq!(Head::decode(&octets), Ok((head, length)));
    }
}

#[test]
fn a_body_that_the_kernel_sends_begins_with_a_page() {
    let head = object(&[1; SENT], Body::Inline);
    for (body, is_on_page) in [(SENT, false), (SENT + 1, true), (INLINE, true)] {
        let mut octets = b"before".to_vec();
        head.encode_before(body, &mut octets);
        let octets = octets.split_off(b"before".len());
        assert_eq!(octets.len().is_multiple_of(PAGE), is_on_page, "{body}");
        assert_eq!(Head::decode(&octets), Ok((head.clone(), octets.len())));
    }
}

#[test]
fn a_missing_octet_is_missed() {
    for head in examples() {
        let octets = encoded(&head);
        for end in 0..octets.len() {
            let expected = if end < START { START } else { octets.len() };
            assert_eq!(
                Head::decode(&octets[..end]),
                Err(FormatError::Short(expected))
            );
        }
    }
}

#[test]
fn a_flipped_bit_shows() {
    for head in examples() {
        let octets = encoded(&head);
        for at in 0..octets.len() * 8 {
            let mut octets = octets.clone();
            octets[at / 8] ^= 1 << (at % 8);
            assert!(Head::decode(&octets).is_err(), "bit {at}");
        }
    }
}

#[test]
fn a_length_that_no_inline_body_has_is_damage() {
    for length in [INLINE as u64 + 1, u64::MAX] {
        let mut head = object(b"hello", Body::Inline);
        let Content::Object(kept) = &mut head.content else {
            unreachable!("an object was made")
        };
        kept.stored.body_len = length;
        kept.checksums = vec![0; length.div_ceil(BLOCK as u64).min(3) as usize];
        assert_eq!(Head::decode(&encoded(&head)), Err(FormatError::Damaged));
    }
}

#[test]
fn another_version_says_so() {
    let mut octets = encoded(&list());
    octets[6] = (PADDED + 1) as u8;
    assert_eq!(Head::decode(&octets), Err(FormatError::Version));
    assert_eq!(
        Head::decode(b"<html>something else entirely"),
        Err(FormatError::Damaged)
    );
}

#[test]
fn control_is_what_the_fields_say() {
    let head = object(b"x", Body::Inline);
    let Content::Object(kept) = &head.content else {
        unreachable!("an object was made")
    };
    assert_eq!(kept.stored.control, CacheControl::of(&kept.stored.headers));
    assert_eq!(fields(&kept.text), Some(kept.stored.headers.clone()));
}

#[test]
fn what_another_field_says_is_kept() {
    for (name, value) in [
        (
            "CDN-Cache-Control",
            "max-age=60, must-revalidate, stale-if-error=5",
        ),
        ("Surrogate-Control", "max-age=60+7"),
    ] {
        let mut head = object(b"x", Body::Inline);
        let Content::Object(kept) = &mut head.content else {
            unreachable!("an object was made")
        };
        let headers = [(name, value), ("Cache-Control", "no-store")]
            .into_iter()
            .collect();
        kept.stored.control =
            crate::cache::targeted::control(&headers, &crate::cache::Policy::default());
        assert_eq!(kept.stored.control.max_age, Some(60));
        let (back, _) = Head::decode(&encoded(&head)).unwrap();
        assert_eq!(back, head, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// With a right checksum over anything, nothing panics and no memory is asked for that is not there.
    #[test]
    fn nothing_panics(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut octets = [&MAGIC[..], &VERSION.to_le_bytes(), &((START + payload.len()) as u32).to_le_bytes(), &[0; 4], &payload].concat();
        let sum = sum_of(&octets);
        octets[PREFIX..START].copy_from_slice(&sum.to_le_bytes());
        let _ = Head::decode(&octets);
    }

    #[test]
    fn headers_survive(fields_in in proptest::collection::vec(("[A-Za-z][A-Za-z0-9-]{0,20}", "[!-~]([ -~]{0,20}[!-~])?"), 0..20)) {
        let mut text = b"HTTP/1.1 200 OK\r\n".to_vec();
        let headers: Headers = fields_in.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        headers.write(&mut text);
        let read = fields(&text).unwrap();
        prop_assert!(read.iter().eq(headers.iter()));
    }
}

#[test]
fn nothing_is_read_that_would_take_more_than_it_may() {
    let most = object(&[1; INLINE], Body::Inline);
    assert!(Head::decode(&encoded(&most)).is_ok());
    let more = object(&[1; INLINE + 1], Body::Inline);
    assert_eq!(Head::decode(&encoded(&more)), Err(FormatError::Damaged));
    let list = |names, variants| Head {
        content: Content::List(List {
            number: 5,
            names: vec![vec![]; names],
            variants: vec![[1; 8]; variants],
        }),
        ..list()
    };
    let decoded = |names, variants| Head::decode(&encoded(&list(names, variants))).is_ok();
    assert!(decoded(MAX_LISTS, MAX_VARIANTS));
    assert!(!decoded(MAX_LISTS + 1, 1) && !decoded(1, MAX_VARIANTS + 1));
}
