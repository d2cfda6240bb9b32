use proptest::prelude::*;

use super::*;
use crate::http::head::Limits;

fn authority(text: &str) -> Result<String, TargetError> {
    Authority::parse(text.as_bytes()).map(|authority| authority.to_string())
}

#[test]
fn authorities() {
    use TargetError::*;
    let cases: &[(&str, Result<&str, TargetError>)] = &[
        ("Example.COM", Ok("example.com")),
        ("example.com.", Ok("example.com.")),
        ("a_b.example:8080", Ok("a_b.example:8080")),
        ("example.com:", Ok("example.com")),
        ("example.com:00080", Ok("example.com:80")),
        ("127.0.0.1:3128", Ok("127.0.0.1:3128")),
        ("[::1]:80", Ok("[::1]:80")),
        ("[0:0::FFFF:1.2.3.4]", Ok("[::ffff:1.2.3.4]")),
        ("web.1", Ok("web.1")),
        ("1and1.com", Ok("1and1.com")),
        ("", Err(EmptyHost)),
        (":80", Err(EmptyHost)),
        ("a b", Err(HostCharacter)),
        ("a/b", Err(HostCharacter)),
        ("a%41", Err(HostCharacter)),
        ("a\u{e4}", Err(HostCharacter)),
        ("a<", Err(HostCharacter)),
        ("u@a", Err(UserInfo)),
        ("u:p@a:80", Err(UserInfo)),
        ("a\\b", Err(Backslash)),
        ("a:b", Err(Port)),
        ("a:80:80", Err(Port)),
        ("a:65536", Err(Port)),
        ("a:-1", Err(Port)),
        ("a: 80", Err(Port)),
        ("a:99999999999999999999999", Err(Port)),
        ("[::1", Err(Ipv6)),
        ("[]", Err(Ipv6)),
        ("[1.2.3.4]", Err(Ipv6)),
        ("[v1.x]", Err(Ipv6)),
        ("[fe80::1%25eth0]", Err(ZoneId)),
        ("[::1]x", Err(HostCharacter)),
        ("::1", Err(EmptyHost)),
        ("2852039166", Err(NumericHost)),
        ("0x7f000001", Err(NumericHost)),
        ("0X7F.1", Err(NumericHost)),
        ("0x", Err(NumericHost)),
        ("127.1", Err(NumericHost)),
        ("127.0.0.01", Err(NumericHost)),
        ("0177.0.0.1", Err(NumericHost)),
        ("127.0.0.256", Err(NumericHost)),
        ("127.0.0.1.", Err(NumericHost)),
        ("1.2.3.4.5", Err(NumericHost)),
    ];
    for (text, expected) in cases {
        assert_eq!(authority(text), expected.map(str::to_string), "{text}");
    }
    assert_eq!(authority(&"a".repeat(256)), Err(HostTooLong));
}

#[test]
fn ports() {
    let bare = Authority::parse(b"a").unwrap();
    assert_eq!(
        (bare.port_or(80), bare.clone().with_default_port(81).port),
        (80, Some(81))
    );
    assert_eq!(bare.clone().with_default_port(80).without_port(80), bare);
}

#[test]
fn the_four_forms() {
    use TargetError::*;
    let parse = |method: &Method, raw: &str| Target::parse(method, raw.as_bytes());
    let a = Authority::parse(b"a").unwrap();
    assert_eq!(parse(&Method::Get, "/x?y"), Ok(Target::Origin));
    assert_eq!(parse(&Method::Get, "/a|b\"{}^`?c\\d"), Ok(Target::Origin));
    assert_eq!(
        parse(&Method::Get, "HTTP://a/x"),
        Ok(Target::Absolute(a.clone()))
    );
    assert_eq!(
        parse(&Method::Get, "http://a?x=//b"),
        Ok(Target::Absolute(a.clone()))
    );
    assert_eq!(parse(&Method::Options, "*"), Ok(Target::Asterisk));
    assert_eq!(
        parse(&Method::Connect, "a:443"),
        Ok(Target::Authority(a.with_default_port(443)))
    );
    for (method, raw, error) in [
        (Method::Get, "*", Form),
        (Method::Get, "a:80", Form),
        (Method::Get, "a", Form),
        (Method::Get, "", Character),
        (Method::Get, "://a/", Form),
        (Method::Get, "http:/a", Form),
        (Method::Get, "http:///a", EmptyHost),
        (Method::Get, "http://u@a/", UserInfo),
        (Method::Get, "http://a\\b/", Backslash),
        (Method::Get, "/a\\b", Backslash),
        (Method::Get, "https://a/", HttpsScheme),
        (Method::Get, "ftp://a/", OtherScheme),
        (Method::Get, "/a#b", Fragment),
        (Method::Get, "/a\u{e4}", Character),
        (Method::Get, "/a b", Character),
        (Method::Connect, "a", ConnectWithoutPort),
        (Method::Connect, "a:", ConnectWithoutPort),
        (Method::Connect, "/", HostCharacter),
        (Method::Connect, "http://a/", Port),
        (Method::Connect, "*", ConnectWithoutPort),
        (Method::Connect, "u@a:443", UserInfo),
    ] {
        assert_eq!(parse(&method, raw), Err(error), "{method} {raw}");
    }
}

fn uri(head: &str, fallback: Option<&str>) -> Result<String, TargetError> {
    let mut request = RequestHead::new();
    let input = head.replace('\n', "\r\n") + "\r\n\r\n";
    assert_eq!(
        request.parse(input.as_bytes(), &Limits::default()),
        Ok(Some(input.len())),
        "{head}"
    );
    let fallback = fallback.map(|text| Authority::parse(text.as_bytes()).unwrap());
    let uri = TargetUri::of(&request, fallback.as_ref())?;
    let mut key = Vec::new();
    uri.write_key(&mut key);
    Ok(String::from_utf8(key).unwrap())
}

#[test]
fn target_uris() {
    use TargetError::*;
    for (head, expected) in [
        ("GET /a?b HTTP/1.1\nHost: X:80", Ok("http://x/a?b")),
        (
            "GET /a%2F%2f HTTP/1.1\nHost: x:8080",
            Ok("http://x:8080/a%2F%2f"),
        ),
        ("GET http://Y/p HTTP/1.1\nHost: x", Ok("http://y/p")),
        ("GET http://y HTTP/1.1\nHost: x", Ok("http://y/")),
        ("GET http://y?q HTTP/1.1\nHost: x", Ok("http://y/?q")),
        ("OPTIONS http://y HTTP/1.1\nHost: x", Ok("http://y*")),
        ("OPTIONS http://y?q HTTP/1.1\nHost: x", Ok("http://y/?q")),
        ("OPTIONS * HTTP/1.1\nHost: x", Ok("http://x*")),
        ("GET http://[::1]:80/ HTTP/1.0", Ok("http://[::1]/")),
        ("CONNECT y:443 HTTP/1.1\nHost: x", Ok("http://y:443")),
        ("GET //x/y HTTP/1.1\nHost: h", Ok("http://h//x/y")),
        ("GET / HTTP/1.0", Err(HostMissing)),
        ("GET / HTTP/1.1", Err(HostMissing)),
        ("GET http://y/ HTTP/1.1", Err(HostMissing)),
        ("GET / HTTP/1.1\nHost: a\nhost: a", Err(HostRepeated)),
        ("GET / HTTP/1.0\nHost: a\nhost: b", Err(HostRepeated)),
        ("GET http://y/ HTTP/1.1\nHost: a/b", Err(HostCharacter)),
        ("GET / HTTP/1.1\nHost:", Err(EmptyHost)),
        ("GET / HTTP/1.1\nHost: a b", Err(HostCharacter)),
    ] {
        assert_eq!(uri(head, None), expected.map(str::to_string), "{head}");
    }
    assert_eq!(
        uri("GET / HTTP/1.0", Some("f:81")),
        Ok("http://f:81/".into())
    );
    assert_eq!(uri("GET / HTTP/1.1", Some("f:81")), Err(HostMissing));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_normal_form_reads_the_same(text in "[a-zA-Z0-9.:\\[\\]@%_-]{0,20}") {
        if let Ok(parsed) = Authority::parse(text.as_bytes()) {
            prop_assert_eq!(Authority::parse(parsed.to_string().as_bytes()), Ok(parsed));
        }
    }

    #[test]
    fn octets_never_panic(raw in proptest::collection::vec(any::<u8>(), 0..40)) {
        for method in [Method::Get, Method::Connect, Method::Options] {
            let _ = Target::parse(&method, &raw);
        }
    }
}
