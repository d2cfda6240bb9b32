//! What a 304 and a HEAD make of a stored response: RFC 9111 sections 3.2, 4.3.4 and 4.3.5.

use super::engine::Table;
use super::words::{Row, Step, get, head, may, must, should};

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
    Table::new(
        "updates",
        [updated(), kept(), merged(), named(), freshened(), heads()],
    )
}

/// Asks in spite of what is fresh.
fn reload() -> Step {
    get().with("Cache-Control: no-cache")
}

/// 3.2: "Caches are required to update a stored response's header fields from another (typically newer) response [...] the
/// cache MUST add each header field in the provided response to the stored response, replacing field values that are already
/// present, with the following exceptions"
fn updated() -> Vec<Row> {
    [
        "Test-Header",
        "X-Test-Header",
        "Content-Foo",
        "X-Content-Foo",
        "Content-Language",
        "Content-Location",
        "Content-MD5",
        "Content-Security-Policy",
        "Content-Disposition",
        "Link",
        "P3P",
        "Public-Key-Pins",
        "Server",
        "Set-Cookie",
        "Set-Cookie2",
        "Strict-Transport-Security",
        "X-Frame-Options",
        "X-XSS-Protection",
        "Clear-Site-Data",
        "Access-Control-Allow-Origin",
    ]
    .into_iter()
    .map(|name| {
        let old = format!("Cache-Control: max-age=3600\nETag: \"a\"\n{name}: old");
        let new = format!("ETag: \"a\"\n{name}: new");
        let steps = [
            get().says(&old),
            reload().validated().says(&new).has(&format!("{name}: new")),
            get().cached_from(1).has(&format!("{name}: new")),
        ];
        must("9111 3.2", format!("a 304 updates {name}"), &steps)
    })
    .collect()
}

/// "Header fields excepted from storage in Section 3.1; Header fields that the cache's stored response depends upon, as
/// described below; Header fields that are automatically processed and removed by the recipient [...]; and the
/// Content-Length header field."
fn kept() -> Vec<Row> {
    let mut rows: Vec<Row> = [
        ("Content-Encoding", "x-old", "x-new"),
        ("Content-Type", "text/plain", "text/html"),
        ("Content-Range", "bytes 0-1/9", "bytes 2-3/9"),
    ]
    .into_iter()
    .map(|(name, old, new)| {
        let steps = [
            get().says(&format!(
                "Cache-Control: max-age=3600\nETag: \"a\"\n{name}: {old}"
            )),
            reload()
                .validated()
                .says(&format!("ETag: \"a\"\n{name}: {new}")),
            get().cached_from(1).has(&format!("{name}: {old}")),
        ];
        must("9111 3.2", format!("a 304 leaves {name}"), &steps)
    })
    .collect();
    rows.push(must(
        "9111 3.2",
        "a 304 leaves Content-Length",
        &[
            get()
                .says("Cache-Control: max-age=3600\nETag: \"a\"")
                .body("0123456789"),
            reload()
                .validated()
                .says("ETag: \"a\"\nContent-Length: 4")
                .has("Content-Length: 10"),
            get().cached_from(1).has("Content-Length: 10"),
        ],
    ));
    for name in [
        "Keep-Alive",
        "Proxy-Authenticate",
        "Proxy-Connection",
        "TE",
        "Upgrade",
        "Proxy-Authentication-Info",
    ] {
        rows.push(must(
            "9111 3.1",
            format!("a 304 does not bring {name} into the store"),
            &[
                get().says("Cache-Control: max-age=3600\nETag: \"a\""),
                reload()
                    .validated()
                    .says(&format!("ETag: \"a\"\n{name}: new")),
                get().cached_from(1).lacks(name),
            ],
        ));
    }
    rows
}

fn merged() -> Vec<Row> {
    vec![
        must(
            "9110 7.6.1",
            "a 304 does not bring what its Connection names into the store",
            &[
                get().says("Cache-Control: max-age=3600\nETag: \"a\"\nX-A: old"),
                reload()
                    .validated()
                    .says("ETag: \"a\"\nConnection: X-B\nX-B: new"),
                get().cached_from(1).lacks("X-B").has("X-A: old"),
            ],
        ),
        must(
            "9111 3.2",
            "a field that the 304 does not have stays",
            &[
                get().says("Cache-Control: max-age=3600\nETag: \"a\"\nX-A: old"),
                reload().validated().says("ETag: \"a\"").has("X-A: old"),
                get().cached_from(1).has("X-A: old"),
            ],
        ),
        must(
            "9111 3.2",
            "one line takes the place of several",
            &[
                get().says("Cache-Control: max-age=3600\nETag: \"a\"\nX-A: 1\nX-A: 2"),
                reload()
                    .validated()
                    .says("ETag: \"a\"\nX-A: 3")
                    .has("X-A: 3"),
                get().cached_from(1).has("X-A: 3"),
            ],
        ),
        must(
            "9111 3.2",
            "several lines take the place of one",
            &[
                get().says("Cache-Control: max-age=3600\nETag: \"a\"\nX-A: 1"),
                reload().validated().says("ETag: \"a\"\nX-A: 3\nX-A: 4"),
                get().cached_from(1).has("X-A: 3, 4"),
            ],
        ),
    ]
}

fn named() -> Vec<Row> {
    vec![
        must(
            "9111 5.2.2.7",
            "a 304 does not bring what the stored response called private into the store",
            &[
                get().says("Cache-Control: max-age=3600, private=\"X-A\"\nETag: \"a\"\nX-A: mine"),
                reload().validated().says("ETag: \"a\"\nX-A: mine"),
                get().cached_from(1).lacks("X-A"),
            ],
        ),
        must(
            "9111 5.2.2.7",
            "what a 304 calls private leaves the store",
            &[
                get().says("Cache-Control: max-age=3600\nETag: \"a\"\nX-A: mine"),
                reload()
                    .validated()
                    .says("Cache-Control: max-age=3600, private=\"X-A\"\nETag: \"a\""),
                get().cached_from(1).lacks("X-A"),
            ],
        ),
        must(
            "9111 5.2.2.7",
            "a 304 with a private field does not bring it into the store",
            &[
                get().says("Cache-Control: max-age=3600\nETag: \"a\""),
                reload()
                    .validated()
                    .says("Cache-Control: max-age=3600, private=\"X-A\"\nETag: \"a\"\nX-A: mine"),
                get().cached_from(1).lacks("X-A"),
            ],
        ),
    ]
}

/// 4.3.4: "the cache MUST update [...] the stored response"; so freshness is that of the new fields.
#[rustfmt::skip]
fn freshened() -> Vec<Row> {
    let old = || get().says("Cache-Control: max-age=1\nETag: \"a\"");
    vec![
        must("9111 4.3.4", "a 304 brings a lifetime", &[
            old(), get().later(2).validated().says("Cache-Control: max-age=3600\nETag: \"a\""), get().cached_from(1).has("Cache-Control: max-age=3600"),
        ]),
        must("9111 4.3.4", "a 304 takes the lifetime away", &[
            get().says("Cache-Control: max-age=3600\nETag: \"a\""), reload().validated().says("Cache-Control: max-age=0\nETag: \"a\""), get().reaches(),
        ]),
        must("9111 5.2.2.5", "a 304 with no-store ends storing", &[
            get().says("Cache-Control: max-age=3600\nETag: \"a\""), reload().validated().says("Cache-Control: no-store\nETag: \"a\""), get().reaches(),
        ]),
        must("9111 5.2.2.7", "a 304 with private ends storing", &[
            get().says("Cache-Control: max-age=3600\nETag: \"a\""), reload().validated().says("Cache-Control: private, max-age=3600\nETag: \"a\""), get().reaches(),
        ]),
        must("9111 4.3.4", "a 304 brings Expires", &[
            get().says("Expires: {now-60}\nETag: \"a\""), get().validated().says("Expires: {now+3600}\nETag: \"a\""), get().cached_from(1).has("Expires: {now+3600}"),
        ]),
        must("9111 4.2.3", "an Age of the 304 counts", &[
            old(), get().later(2).validated().says("Cache-Control: max-age=3600\nAge: 4000\nETag: \"a\""), get().reaches(),
        ]),
        must("9111 4.2.3", "an old Age ends with the 304", &[
            get().says("Cache-Control: max-age=3600\nAge: 3590\nETag: \"a\""), reload().validated().says("ETag: \"a\"\nDate: {now}"), get().cached_from(1).age(0, 5),
        ]),
        must("9111 4.3.4", "a 304 brings a Date", &[
            old().says("Date: {now}"), get().later(2).validated().says("Cache-Control: max-age=3600\nETag: \"a\"\nDate: {now+2}"), get().cached_from(1).has("Date: {now+2}"),
        ]),
        must("9111 4.3.4", "a 304 changes a weak ETag's fields, too", &[
            get().says("Cache-Control: max-age=3600\nETag: W/\"a\"\nX-A: old"), reload().validated().says("ETag: W/\"a\"\nX-A: new"), get().cached_from(1).has("X-A: new"),
        ]),
        must("9111 4.3.4", "a 304 without validators updates the one that is stored", &[
            get().says("Cache-Control: max-age=3600\nETag: \"a\"\nX-A: old"), reload().validated().says("X-A: new"), get().cached_from(1).has("X-A: new"),
        ]),
    ]
}

/// 4.3.5: "A response to the HEAD method is identical to what an equivalent request made with a GET would have been, without
/// sending the content. This property of HEAD responses can be used to invalidate or update a cached GET response"
#[rustfmt::skip]
fn heads() -> Vec<Row> {
    let stored = |fields: &str| get().says(&format!("Cache-Control: max-age=3600\n{fields}")).body("0123456789");
    let asked = |fields: &str| head().with("Cache-Control: no-cache").says(fields).body("0123456789").reaches();
    vec![
        // "If one or more stored responses can be selected [...] and the fields [...] match: Content-Length [...], ETag,
        // Last-Modified [...] the cache SHOULD update the stored response"
        should("9111 4.3.5", "HEAD updates fields", &[stored("ETag: \"a\"\nX-A: old"), asked("ETag: \"a\"\nX-A: new"), get().cached_from(1).has("X-A: new")]),
        should("9111 4.3.5", "HEAD updates fields without any validator", &[stored("X-A: old"), asked("X-A: new"), get().cached_from(1).has("X-A: new")]),
        should("9111 4.3.5", "HEAD brings a lifetime", &[
            get().says("Cache-Control: max-age=1\nX-A: old").body("0123456789"),
            head().later(2).says("Cache-Control: max-age=3600\nX-A: new").body("0123456789").reaches(),
            get().cached_from(1).has("X-A: new"),
        ]),
        // "and consider it to be stale" otherwise
        should("9111 4.3.5", "HEAD with another ETag ends it", &[stored("ETag: \"a\""), asked("ETag: \"b\""), get().reaches()]),
        should("9111 4.3.5", "HEAD with another Last-Modified ends it", &[stored("Last-Modified: {now-100}"), asked("Last-Modified: {now-50}"), get().reaches()]),
        should("9111 4.3.5", "HEAD with another Content-Length ends it", &[
            stored(""), head().with("Cache-Control: no-cache").says("Content-Length: 11").reaches(), get().reaches(),
        ]),
        should("9111 4.3.5", "HEAD with an ETag where none was ends it", &[stored(""), asked("ETag: \"a\""), get().reaches()]),
        should("9111 4.3.5", "HEAD that ignores the condition updates", &[
            get().says("Cache-Control: max-age=1\nETag: \"a\"\nX-A: old").body("0123456789"),
            head().later(2).says("Cache-Control: max-age=3600\nETag: \"a\"\nX-A: new").body("0123456789").reaches(),
            get().cached_from(1).has("X-A: new"),
        ]),
        must("9111 5.2.2.5", "HEAD with no-store ends it", &[stored("ETag: \"a\""), asked("ETag: \"a\"\nCache-Control: no-store"), get().reaches()]),
        must("9111 3.2", "HEAD leaves Content-Type", &[
            stored("ETag: \"a\"\nContent-Type: text/plain"), asked("ETag: \"a\"\nContent-Type: text/html"), get().cached_from(1).has("Content-Type: text/plain"),
        ]),
        should("9111 4.3.5", "HEAD that finds nothing ends it", &[
            stored("ETag: \"a\""), head().with("Cache-Control: no-cache").answers(404).reaches(), get().reaches(),
        ]),
        may("9111 4.3.5", "HEAD that is not allowed leaves what is stored", &[
            stored("ETag: \"a\""), head().with("Cache-Control: no-cache").answers(405).reaches(), get().cached_from(1),
        ]),
        must("9111 4.1", "HEAD of another variant leaves the stored one", &[
            stored("ETag: \"a\"\nVary: X-A").with("X-A: 1"), head().with("X-A: 2").says("ETag: \"b\"\nVary: X-A\nCache-Control: max-age=3600").reaches(),
            get().with("X-A: 1").cached_from(1),
        ]),
        may("9111 4.3.5", "HEAD that fails leaves what is stored", &[
            stored("ETag: \"a\""), head().with("Cache-Control: no-cache").answers(500).reaches(), get().cached_from(1),
        ]),
        must("9111 4.3.5", "a stored GET is never without its content after HEAD", &[stored(""), asked(""), get().whoever().status(200)]),
        must("9110 9.3.2", "HEAD has the length and no content", &[stored(""), head().cached().has("Content-Length: 10")]),
    ]
}
