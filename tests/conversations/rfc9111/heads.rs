//! Which fields are stored, and that interim responses are none: RFC 9111 sections 3 and 3.1, RFC 9110 sections 7.6.1 and 15.2.

use super::engine::Table;
use super::words::{Row, get, may, must};

#[test]
fn in_reverse_mode() {
    table().holds_in_reverse_mode();
}

#[test]
fn on_disk() {
    table().holds_on_disk();
}

#[test]
fn in_forward_mode() {
    table().holds_in_forward_mode();
}

fn table() -> Table {
    Table::new("heads", [stored(), not_stored(), interim()])
}

/// 3.1: "Caches MUST include all received response header fields -- including unrecognized ones -- when storing a response"
fn stored() -> Vec<Row> {
    [
        "X-Test: a, \"b\", c",
        "X-Empty:",
        "Clear-Site-Data: \"cookies\"",
        "Content-Encoding: x-unknown",
        "Content-Foo: a",
        "Content-Language: en",
        "Content-Location: /elsewhere",
        "Content-MD5: rL0Y20zC+Fzt72VPzMSk2A==",
        "Content-Security-Policy: default-src 'self'",
        "Content-Type: text/plain;charset=utf-8",
        "ETag: \"abc\"",
        "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
        "Expires: Fri, 31 Dec 2100 23:59:59 GMT",
        "Link: <https://a.example/>; rel=next",
        "P3P: CP=\"x\"",
        "Public-Key-Pins: a",
        "Server: scripted",
        "Set-Cookie: a=b",
        "Set-Cookie2: a=b",
        "Strict-Transport-Security: max-age=1",
        "Vary: X-Absent",
        "WWW-Authenticate: Basic realm=\"a\"",
        "X-Content-Foo: a",
        "X-Frame-Options: deny",
        "X-XSS-Protection: 1",
    ]
    .into_iter()
    .map(|line| {
        let (name, _) = line.split_once(':').unwrap();
        must(
            "9111 3.1",
            format!("{name} is stored"),
            &[
                get()
                    .says(&format!("Cache-Control: max-age=3600\n{line}"))
                    .has(line),
                get().cached().has(line),
            ],
        )
    })
    .chain([
        must(
            "9111 3.1",
            "several lines of a field are stored in order",
            &[
                get().says("Cache-Control: max-age=3600\nX-A: 1\nX-B: 0\nX-A: 2"),
                get().cached().has("X-A: 1, 2"),
            ],
        ),
        must(
            "9111 3.1",
            "Cache-Control is stored as it came",
            &[
                get().says("Cache-Control: max-age=3600, FOO=\"bar\""),
                get()
                    .cached()
                    .has("Cache-Control: max-age=3600, FOO=\"bar\""),
            ],
        ),
    ])
    .collect()
}

/// 3.1: "The Connection header field and fields whose names are listed in it are required by Section 7.6.1 of [HTTP] to be
/// removed before forwarding the message. [...] Likewise, some fields' semantics require them to be removed [...]; fields that
/// are specific to the proxy that a cache uses when forwarding a request MUST NOT be stored"
fn not_stored() -> Vec<Row> {
    let mut rows: Vec<Row> = [
        "Keep-Alive: timeout=20",
        "Proxy-Connection: keep-alive",
        "Proxy-Authenticate: Basic realm=\"a\"",
        "Proxy-Authentication-Info: a=b",
        "Proxy-Authorization: Basic eA==",
        "TE: trailers",
        "Upgrade: h2c",
    ]
    .into_iter()
    .map(|line| {
        let (name, _) = line.split_once(':').unwrap();
        must(
            "9111 3.1",
            format!("{name} is not stored"),
            &[
                get().says(&format!("Cache-Control: max-age=3600\n{line}")),
                get().cached().lacks(name),
            ],
        )
    })
    .collect();
    rows.extend([
        must("9110 7.6.1", "what Connection names is not stored", &[
            get().says("Cache-Control: max-age=3600\nConnection: X-A\nX-A: 1\nX-B: 2").lacks("X-A"),
            get().cached().lacks("X-A").has("X-B: 2"),
        ]),
        must("9110 7.6.1", "what Connection names in other letters, on two lines, is not stored", &[
            get().says("Cache-Control: max-age=3600\nConnection: x-a\nX-A: 1\nConnection: foo , X-b\nX-B: 2"),
            get().cached().lacks("X-A").lacks("X-B"),
        ]),
        // RFC 9110 7.6.1: "A sender MUST NOT send a connection option corresponding to a field that is intended for all
        // recipients of the content. For example, Cache-Control is never appropriate as a connection option". Whatever a
        // cache makes of it, it must not keep for longer what it was told not to.
        must("9110 7.6.1", "Connection does not hide no-store", &[
            get().says("Cache-Control: no-store\nConnection: Cache-Control\nExpires: {now+3600}"), get().reaches(),
        ]),
    ]);
    rows
}

/// 3: "the response status code is final"
fn interim() -> Vec<Row> {
    let hour = || get().says("Cache-Control: max-age=3600\nX-A: final");
    vec![
        must(
            "9110 15.2",
            "102 goes on to the client",
            &[hour().first(102, "").interim(1)],
        ),
        must(
            "9110 15.2",
            "103 goes on to the client with its fields",
            &[hour()
                .first(103, "Link: </a>; rel=preload")
                .interim(1)
                .contains("Link", "</a>")],
        ),
        must(
            "9111 3",
            "an interim response's fields are not the final one's",
            &[
                hour().first(103, "Link: </a>; rel=preload\nX-B: early"),
                get().cached().lacks("X-B").lacks("Link").has("X-A: final"),
            ],
        ),
        may(
            "9111 3",
            "a response after an interim one is stored without that",
            &[
                hour().first(103, "Link: </a>; rel=preload"),
                get().cached().interim(0),
            ],
        ),
        must(
            "9111 3",
            "an interim response's Cache-Control allows nothing",
            &[
                get().first(103, "Cache-Control: max-age=3600"),
                get().reaches(),
            ],
        ),
        must(
            "9110 15.2",
            "several interim responses",
            &[
                hour().first(102, "").first(103, "X-B: 1").interim(2),
                get().cached().interim(0),
            ],
        ),
    ]
}
