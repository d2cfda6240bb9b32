use super::*;

fn asked(method: &str, target: &str, body: &str) -> Result<Asked, Refusal> {
    let method = Method::parse(method.as_bytes()).unwrap();
    read(&method, target.as_bytes(), body.as_bytes())
}

/// The request in the protocol's words.
fn said(method: &str, target: &str, body: &str) -> String {
    match asked(method, target, body) {
        Ok(Asked::Request(request)) => serde_json::to_string(&request).unwrap(),
        other => format!("{other:?}"),
    }
}

/// Method, target and body, and the request in the protocol's words.
const REQUESTS: [(&str, &str, &str, &str); 17] = [
    ("GET", "/cache/stats", "", r#"{"do":"stats"}"#),
    ("HEAD", "/cache/stats?", "", r#"{"do":"stats"}"#),
    ("GET", "/cache/objects", "", r#"{"do":"ls"}"#),
    (
        "GET",
        "/cache/objects?prefix=A.example/b&tag=x&tag=y%2Cz&stale&larger=10&sort=size&limit=3",
        "",
        r#"{"do":"ls","prefix":"http://a.example/b","tags":["x","y,z"],"stale":true,"larger":10,"sort":"size","limit":3}"#,
    ),
    (
        "GET",
        "/cache/objects?stale=false&limit=1",
        "",
        r#"{"do":"ls","sort":"url","limit":1}"#,
    ),
    (
        "GET",
        "/cache/object?url=http%3a%2F%2fa/%3Fb+c",
        "",
        r#"{"do":"show","url":"http://a/?b+c"}"#,
    ),
    (
        "GET",
        "/cache/explain?url=http://a/?b=c",
        "",
        r#"{"do":"explain","url":"http://a/?b=c","method":"GET","fields":[]}"#,
    ),
    (
        "GET",
        "/cache/explain?url=http://a/&method=HEAD&header=Accept:%20a&header=Range:b",
        "",
        r#"{"do":"explain","url":"http://a/","method":"HEAD","fields":[["Accept","a"],["Range","b"]]}"#,
    ),
    ("POST", "/cache/verify", "", r#"{"do":"verify"}"#),
    (
        "POST",
        "/cache/purge?url=http://a/",
        "",
        r#"{"do":"purge","url":"http://a/","soft":false}"#,
    ),
    (
        "POST",
        "/cache/purge",
        r#"{"url":"http://a/"}"#,
        r#"{"do":"purge","url":"http://a/","soft":false}"#,
    ),
    (
        "POST",
        "/cache/purge?soft",
        r#"{"tags":["a","b"]}"#,
        r#"{"do":"purge","tags":["a","b"],"soft":true}"#,
    ),
    (
        "POST",
        "/cache/purge?tag=a&tag=b",
        "",
        r#"{"do":"purge","tags":["a","b"],"soft":false}"#,
    ),
    ("POST", "/cache/purge?all", "", r#"{"do":"purge-all"}"#),
    (
        "POST",
        "/cache/purge?soft=false",
        r#"{"all":true}"#,
        r#"{"do":"purge-all"}"#,
    ),
    (
        "POST",
        "/cache/purge?all&soft",
        "",
        r#"{"do":"purge","prefix":"","soft":true}"#,
    ),
    (
        "POST",
        "/cache/purge?regex=%5C.css%24&all=false",
        "",
        r#"{"do":"purge","regex":"\\.css$","soft":false}"#,
    ),
];

#[test]
fn resources_and_parameters_are_requests() {
    for (method, target, body, expected) in REQUESTS {
        assert_eq!(said(method, target, body), expected, "{method} {target}");
    }
    assert_eq!(asked("GET", "/cache", ""), Ok(Asked::Index));
}

#[test]
fn what_cannot_be_meant_is_refused_and_the_reason_said() {
    for (method, target, body, part) in [
        ("GET", "/cache/stats?a", "", "takes no \"a\""),
        ("GET", "/cache/stats?&", "", "takes no \"\""),
        ("GET", "/cache/stats", "{}", "takes no body"),
        ("GET", "/cache/objects?colour=red", "", "limit, and no"),
        ("GET", "/cache/objects?limit=+1", "", "no number"),
        ("GET", "/cache/objects?limit=", "", "no number"),
        ("GET", "/cache/objects?limit", "", "no value"),
        ("GET", "/cache/objects?limit=1&limit=2", "", "twice"),
        ("GET", "/cache/objects?stale=1", "", "true or false"),
        ("GET", "/cache/objects?sort=colour", "", "colour"),
        ("GET", "/cache/object", "", "url"),
        ("GET", "/cache/object?url=%", "", "encoded"),
        ("GET", "/cache/object?url=%4", "", "encoded"),
        ("GET", "/cache/object?url=%4g", "", "encoded"),
        ("GET", "/cache/object?url=%+4", "", "encoded"),
        ("GET", "/cache/object?url=%ff", "", "encoded"),
        ("GET", "/cache/object?url=http://", "", "no URL"),
        ("GET", "/cache/explain?url=a&header=b", "", "no field"),
        ("GET", "/cache/explain?url=a&header=b%0A:c", "", "no field"),
        ("GET", "/cache/explain?url=a&header=b:c%0Ad", "", "no field"),
        ("GET", "/cache/explain?url=a&method=b%20", "", "no method"),
        ("POST", "/cache/purge", "", "one of url"),
        ("POST", "/cache/purge?soft", "", "one of url"),
        ("POST", "/cache/purge?url=a&all", "", "one of url"),
        ("POST", "/cache/purge?url=a&tag=b", "", "one of url"),
        ("POST", "/cache/purge?url=a", r#"{"url":"a"}"#, "and in the"),
        ("POST", "/cache/purge", "[]", "no JSON object"),
        ("POST", "/cache/purge", r#"{"do":"stats"}"#, "no \"do\""),
        ("POST", "/cache/purge", r#"{"all":1}"#, "true or false"),
        ("POST", "/cache/purge", r#"{"url":1}"#, "string"),
        ("POST", "/cache/purge?regex=(", "", "expression"),
        ("POST", "/cache/purge?tag=", "", "no tag"),
    ] {
        match asked(method, target, body) {
            Err(Refusal::Parameters(why)) => assert!(why.contains(part), "{target}: {why}"),
            other => panic!("{method} {target}: {other:?}"),
        }
    }
    for target in ["/", "/cache/", "/cache/Stats", "*", "/cache/stats/x"] {
        let refusal = asked("GET", target, "").unwrap_err();
        assert_eq!(refusal, Refusal::NoResource(target.to_owned()));
    }
    for (method, target, allowed) in [
        ("POST", "/cache/stats", "GET, HEAD"),
        ("DELETE", "/cache", "GET, HEAD"),
        ("GET", "/cache/purge", "POST"),
        ("HEAD", "/cache/verify", "POST"),
    ] {
        match asked(method, target, "") {
            Err(Refusal::Method { allow, .. }) => assert_eq!(allow, allowed),
            other => panic!("{method} {target}: {other:?}"),
        }
    }
}
