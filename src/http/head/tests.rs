use proptest::prelude::*;

use super::*;

fn request(input: &[u8]) -> Result<Option<usize>, HeadError> {
    RequestHead::new().parse(input, &Limits::default())
}

fn response(input: &[u8]) -> Result<Option<usize>, HeadError> {
    ResponseHead::new().parse(input, &Limits::default())
}

#[test]
fn a_request_head() {
    let mut head = RequestHead::new();
    let input = b"GET /a?b HTTP/1.1\r\nHost: x\r\nX-Y:  1 \t\r\nEmpty:\r\n\r\nrest";
    assert_eq!(
        head.parse(input, &Limits::default()),
        Ok(Some(input.len() - 4))
    );
    assert_eq!(
        (head.method.clone(), head.version),
        (Method::Get, Version::Http11)
    );
    assert_eq!(head.target, b"/a?b");
    assert_eq!(head.headers.get("x-y"), Some(&b"1"[..]));
    assert_eq!(head.headers.get("empty"), Some(&b""[..]));
    let mut out = Vec::new();
    head.write(&mut out);
    assert_eq!(
        out,
        b"GET /a?b HTTP/1.1\r\nHost: x\r\nX-Y: 1\r\nEmpty: \r\n\r\n"
    );
    // The same value reads the next head.
    assert_eq!(
        head.parse(b"PURGE * HTTP/1.0\r\n\r\n", &Limits::default()),
        Ok(Some(20))
    );
    assert_eq!(
        (head.method.as_str(), head.version, head.headers.len()),
        ("PURGE", Version::Http10, 0)
    );
}

#[test]
fn requests_refused() {
    use HeadError::*;
    let cases: &[(&[u8], HeadError)] = &[
        (b"GET / HTTP/1.1\nHost: x\n\n", LineEnd),
        (b"GET / HTTP/1.1\r\nHost: x\n\r\n", LineEnd),
        (b"\n", LineEnd),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\n", LineEnd),
        (b"GET / HTTP/1.1\r\nHost: x\rY: z\r\n\r\n", FieldValue),
        (b"GET /\rHTTP/1.1 HTTP/1.1\r\n\r\n", Target),
        (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Folded),
        (b"GET / HTTP/1.1\r\n A: b\r\n\r\n", Folded),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", SpaceBeforeColon),
        (b"GET / HTTP/1.1\r\n: b\r\n\r\n", FieldName),
        (b"GET / HTTP/1.1\r\nnocolon\r\n\r\n", FieldName),
        (b"GET / HTTP/1.1\r\nA(: b\r\n\r\n", FieldName),
        (b"GET / HTTP/1.1\r\n\xc3\xa4: b\r\n\r\n", FieldName),
        (b"GET / HTTP/1.1\r\nA\0: b\r\n\r\n", FieldName),
        (b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", FieldValue),
        (b"GET / HTTP/1.1\r\nA: b\x7f\r\n\r\n", FieldValue),
        (b"GET / HTTP/1.1\r\nA: b\x0b\r\n\r\n", FieldValue),
        (b"GET  / HTTP/1.1\r\n\r\n", RequestLine),
        (b"GET /  HTTP/1.1\r\n\r\n", RequestLine),
        (b" GET / HTTP/1.1\r\n\r\n", Method),
        (b"GET\t/\tHTTP/1.1\r\n\r\n", RequestLine),
        (b"GET /\r\n\r\n", RequestLine),
        (b"GET\r\n\r\n", RequestLine),
        (b"GET / HTTP/1.1 \r\n\r\n", Version),
        (b"GET / http/1.1\r\n\r\n", Version),
        (b"GET / HTTP/1.10\r\n\r\n", Version),
        (b"GET / HTTP/1\r\n\r\n", Version),
        (b"GET / x HTTP/1.1\r\n\r\n", Version),
        (b"GET / HTTP/2.0\r\n\r\n", VersionNotSupported),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VersionNotSupported),
        (b"GET / HTTP/0.9\r\n\r\n", VersionNotSupported),
        (b"G(T / HTTP/1.1\r\n\r\n", Method),
        (b"GET /\x7f HTTP/1.1\r\n\r\n", Target),
        (b"GET /\xc3\xa4 HTTP/1.1\r\n\r\n", Target),
        (b"GET /\0 HTTP/1.1\r\n\r\n", Target),
        (b"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", EmptyLines),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", RequestLine),
    ];
    for (input, error) in cases {
        assert_eq!(request(input), Err(*error), "{}", input.escape_ascii());
        assert!(error.status() >= 400);
    }
}

#[test]
fn requests_taken() {
    let cases: &[&[u8]] = &[
        b"GET / HTTP/1.2\r\n\r\n",
        b"\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"get / HTTP/1.1\r\nA: \xff\t\"\r\n\r\n",
        b"M-SEARCH * HTTP/1.1\r\na:b\r\n\r\n",
    ];
    for input in cases {
        assert_eq!(
            request(input),
            Ok(Some(input.len())),
            "{}",
            input.escape_ascii()
        );
    }
}

#[test]
fn responses() {
    let mut head = ResponseHead::new();
    assert_eq!(
        head.parse(
            b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n",
            &Limits::default()
        ),
        Ok(Some(33))
    );
    assert_eq!((head.status, &head.reason[..]), (204, &b"No Content"[..]));
    for good in [
        &b"HTTP/1.0 200\r\n\r\n"[..],
        b"HTTP/1.1 200 \r\n\r\n",
        b"HTTP/1.1 599 \xe4h!\r\n\r\n",
        b"HTTP/1.1 999 a\r\n\r\n",
    ] {
        assert_eq!(
            response(good),
            Ok(Some(good.len())),
            "{}",
            good.escape_ascii()
        );
    }
    use HeadError::*;
    let cases: &[(&[u8], HeadError)] = &[
        (b"HTTP/1.1 000 a\r\n\r\n", StatusLine),
        (b"HTTP/1.1 099 a\r\n\r\n", StatusLine),
        (b"HTTP/1.1 20 a\r\n\r\n", StatusLine),
        (b"HTTP/1.1 2000 a\r\n\r\n", StatusLine),
        (b"HTTP/1.1 +20 a\r\n\r\n", StatusLine),
        (b"HTTP/1.1  200 a\r\n\r\n", StatusLine),
        (b"HTTP/1.1 200 a\0\r\n\r\n", StatusLine),
        (b"HTTP/1.1\r\n\r\n", StatusLine),
        (b"200 OK\r\n\r\n", StatusLine),
        (b"HTTP/2 200 a\r\n\r\n", Version),
        (b"HTTP/2.0 200 a\r\n\r\n", VersionNotSupported),
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", EmptyLines),
        (b"HTTP/1.1 200 OK\n\n", LineEnd),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\tc\r\n\r\n", Folded),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", SpaceBeforeColon),
    ];
    for (input, error) in cases {
        assert_eq!(response(input), Err(*error), "{}", input.escape_ascii());
    }
}

#[test]
fn limits_hold_before_the_end() {
    let limits = Limits {
        max_bytes: 100,
        max_headers: 2,
        max_target: 20,
    };
    let mut head = RequestHead::new();
    let long = [b"GET /".as_slice(), &[b'a'; 20]].concat();
    let fits = [b"GET /".as_slice(), &[b'a'; 19], b" HTTP/1.1\r\n\r\n"].concat();
    assert_eq!(head.parse(&fits, &limits), Ok(Some(fits.len())));
    // The line is still shorter than any method with that target could be; with its end it is refused.
    assert_eq!(
        head.parse(&[&long[..], b" HTTP/1.1\r\n\r\n"].concat(), &limits),
        Err(HeadError::TargetTooLong)
    );
    assert_eq!(
        head.parse(&[b"GET /".as_slice(), &[b'a'; 70]].concat(), &limits),
        Err(HeadError::TargetTooLong)
    );
    assert_eq!(
        head.parse(&[b'A'; 65], &limits),
        Err(HeadError::MethodTooLong)
    );
    assert_eq!(head.parse(&[b'A'; 64], &limits), Ok(None));
    let ended = [[b'A'; 65].as_slice(), b" / HTTP/1.1\r\nA"].concat();
    assert_eq!(head.parse(&ended, &limits), Err(HeadError::MethodTooLong));
    let ended = [b"GET /".as_slice(), &[b'a'; 70], b" HTTP/1.1\r\nA"].concat();
    assert_eq!(head.parse(&ended, &limits), Err(HeadError::TargetTooLong));
    let endless = [b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'a'; 90]].concat();
    assert_eq!(head.parse(&endless, &limits), Err(HeadError::TooLarge));
    let ended = [&endless[..], b"\r\n\r\n"].concat();
    assert_eq!(head.parse(&ended, &limits), Err(HeadError::TooLarge));
    assert_eq!(
        head.parse(b"GET / HTTP/1.1\r\nA:\r\nB:\r\n\r\n", &limits),
        Ok(Some(26))
    );
    assert_eq!(
        head.parse(b"GET / HTTP/1.1\r\nA:\r\nB:\r\nC:\r\n\r\n", &limits),
        Err(HeadError::TooManyFields)
    );
    let many = |n| {
        [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"A: b\r\n".repeat(n),
            b"\r\n".to_vec(),
        ]
        .concat()
    };
    // The borders of the rooms that are made for them.
    for fields in [0, 1, 16, 17, 48, 49, 200] {
        assert_eq!(request(&many(fields)), Ok(Some(many(fields).len())));
    }
    assert_eq!(request(&many(201)), Err(HeadError::TooManyFields));
}

#[test]
fn fields_that_recur_are_those_that_were_read_unless_somebody_changed_them() {
    let mut head = RequestHead::new();
    let limits = Limits::default();
    let read = |head: &mut RequestHead, input: &[u8]| {
        let mut fresh = RequestHead::new();
        let expected = fresh.parse(input, &limits);
        assert_eq!(head.parse(input, &limits), expected);
        assert_eq!(*head, fresh);
    };
    read(
        &mut head,
        b"GET /1 HTTP/1.1\r\nHost: x\r\nA: 1\r\n\r\nGET /2",
    );
    for next in [
        &b"HEAD /2 HTTP/1.0\r\nHost: x\r\nA: 1\r\n\r\n"[..],
        b"GET /3 HTTP/1.1\r\nHost: x\r\nA: 2\r\n\r\n",
        b"GET /4 HTTP/1.1\r\nHost: x\r\nA: 2\r\nB: 3\r\n\r\n",
        b"GET /5 HTTP/1.1\r\nHost: x\r\n\r\nA: 2\r\n\r\n",
        b"\r\nGET /6 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /7 HTTP/1.1\r\n\r\n",
        b"GET /8 HTTP/1.1\r\n\r\n",
    ] {
        read(&mut head, next);
    }
    let again = b"GET / HTTP/1.1\r\nHost: x\r\nA: 1\r\n\r\n";
    let changes: [fn(&mut Headers); 5] = [
        |headers| headers.set("a", b"2"),
        |headers| headers.push("B", b""),
        |headers| assert!(headers.remove("a")),
        |headers| headers.retain(|name, _| name == "A"),
        Headers::clear,
    ];
    for change in changes {
        read(&mut head, again);
        change(&mut head.headers);
        read(&mut head, again);
    }
    head = head.clone();
    read(&mut head, again);
    let few = Limits {
        max_headers: 1,
        ..limits
    };
    assert_eq!(head.parse(again, &few), Err(HeadError::TooManyFields));
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"GET / HTTP/1.1\r\n".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Just(b"Host: a\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b" ".to_vec()),
        Just(b":".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..6),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn octet_by_octet_gives_what_one_piece_gives(input in pieces()) {
        let limits = Limits { max_bytes: 60, max_headers: 3, max_target: 10 };
        let (mut head, mut scan) = (RequestHead::new(), Scan::default());
        let mut slow = Ok(None);
        for end in 0..=input.len() {
            slow = head.parse_more(&mut scan, &input[..end], &limits);
            if slow != Ok(None) {
                // What followed does not change it.
                prop_assert_eq!(&slow, &RequestHead::new().parse(&input[..end], &limits));
                break;
            }
        }
        let mut whole = RequestHead::new();
        let fast = whole.parse(&input, &limits);
        prop_assert_eq!(slow.is_err(), fast.is_err());
        if let Ok(length) = fast {
            prop_assert_eq!(slow.unwrap(), length);
        }
    }

    #[test]
    fn what_was_read_before_does_not_matter(inputs in proptest::collection::vec(pieces(), 0..5), again in any::<bool>()) {
        let limits = Limits { max_bytes: 60, max_headers: 3, max_target: 10 };
        let mut head = RequestHead::new();
        for input in inputs {
            // The same fields behind another request line.
            if again && let Some(line) = memchr::memchr(b'\n', &input) {
                let other = [b"GET /x HTTP/1.1\r\n", &input[line + 1..]].concat();
                let _ = head.parse(&other, &limits);
            }
            let mut fresh = RequestHead::new();
            let expected = fresh.parse(&input, &limits);
            prop_assert_eq!(head.parse(&input, &limits), expected);
            if let Ok(Some(_)) = expected {
                prop_assert_eq!(&head, &fresh);
            }
        }
    }

    #[test]
    fn what_is_written_reads_the_same(input in pieces()) {
        let mut head = RequestHead::new();
        if let Ok(Some(_)) = head.parse(&input, &Limits::default()) {
            let mut out = Vec::new();
            head.write(&mut out);
            let mut again = RequestHead::new();
            prop_assert_eq!(again.parse(&out, &Limits::default()), Ok(Some(out.len())));
            head.version = Version::Http11;
            prop_assert_eq!(head, again);
        }
        let mut head = ResponseHead::new();
        if let Ok(Some(_)) = head.parse(&input, &Limits::default()) {
            let mut out = Vec::new();
            head.write(&mut out);
            let mut again = ResponseHead::new();
            prop_assert_eq!(again.parse(&out, &Limits::default()), Ok(Some(out.len())));
            head.version = Version::Http11;
            prop_assert_eq!(head, again);
        }
    }
}
