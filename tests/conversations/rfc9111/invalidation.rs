//! What a request that changes something does to what is stored: RFC 9111 section 4.4.

use super::engine::Table;
use super::words::{Row, Step, by, get, head, may, must, post, should};

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
    Table::new("invalidation", [methods(), statuses(), places()])
}

fn hour() -> Step {
    get().says("Cache-Control: max-age=3600")
}

/// "A cache MUST invalidate the target URI [...] when it receives a non-error status code in response to an unsafe request
/// method (including methods whose safety is unknown)."
fn methods() -> Vec<Row> {
    let mut rows = Vec::new();
    for method in [
        "POST",
        "PUT",
        "DELETE",
        "PATCH",
        "M-SEARCH",
        "FOO",
        "MOVE",
        "PROPPATCH",
    ] {
        rows.push(must(
            "9111 4.4",
            format!("{method} ends what is stored"),
            &[hour(), by(method).content("x").reaches(), get().reaches()],
        ));
    }
    for method in ["OPTIONS", "TRACE"] {
        rows.push(may(
            "9110 9.2.1",
            format!("{method} is safe and ends nothing"),
            &[hour(), by(method).whoever(), get().cached_from(1)],
        ));
    }
    // RFC 9110 16.1.1 has a registry of methods: these are safe there.
    for method in ["PROPFIND", "REPORT", "SEARCH"] {
        rows.push(may(
            "9110 16.1.1",
            format!("{method} is asked of the origin server"),
            &[hour(), by(method).content("x").reaches()],
        ));
    }
    rows
}

/// "a 'non-error response' is one with a 2xx (Successful) or 3xx (Redirection) status code."
fn statuses() -> Vec<Row> {
    let mut rows = Vec::new();
    for status in [200, 201, 202, 204, 205, 299, 301, 302, 303, 307, 308] {
        rows.push(must(
            "9111 4.4",
            format!("{status} to POST ends what is stored"),
            &[hour(), post().answers(status).reaches(), get().reaches()],
        ));
    }
    for status in [400, 403, 404, 409, 500, 503] {
        rows.push(may(
            "9111 4.4",
            format!("{status} to POST ends nothing"),
            &[
                hour(),
                post().answers(status).reaches(),
                get().cached_from(1),
            ],
        ));
    }
    rows
}

/// "A cache MAY invalidate other URIs when it receives a non-error status code in response to an unsafe request method
/// [...]. In particular, the URI(s) in the Location and Content-Location response header fields (if present) are candidates
/// for invalidation [...]. However, a cache MUST NOT trigger an invalidation under these conditions if the origin [...]
/// differs".
#[rustfmt::skip]
fn places() -> Vec<Row> {
    let other = || hour().at("/other");
    let says = |fields: &str| post().says(fields).reaches();
    let mut rows = Vec::new();
    for name in ["Location", "Content-Location"] {
        rows.extend([
            may("9111 4.4", format!("{name} as a path ends what is stored there"), &[
                other(), says(&format!("{name}: {{path}}/other")), get().at("/other").reaches(),
            ]),
            may("9111 4.4", format!("{name} as a URL ends what is stored there"), &[
                other(), says(&format!("{name}: {{base}}{{path}}/other")), get().at("/other").reaches(),
            ]),
            may("9110 10.2.2", format!("{name} as a relative reference ends what is stored there"), &[
                other(), post().at("/x").says(&format!("{name}: other")).reaches(), get().at("/other").reaches(),
            ]),
            must("9111 4.4", format!("{name} of another host ends nothing here"), &[
                other(), says(&format!("{name}: http://elsewhere.example{{path}}/other")), get().at("/other").cached_from(1),
            ]),
            must("9111 4.4", format!("{name} of another scheme ends nothing here"), &[
                other(), says(&format!("{name}: https://a.example{{path}}/other")), get().at("/other").cached_from(1),
            ]),
            must("9111 4.4", format!("{name} of an error ends nothing"), &[
                other(), post().answers(500).says(&format!("{name}: {{path}}/other")).reaches(), get().at("/other").cached_from(1),
            ]),
            must("9111 4.4", format!("{name} in an answer to GET ends nothing"), &[
                other(), get().says(&format!("{name}: {{path}}/other")).reaches(), get().at("/other").cached_from(1),
            ]),
            must("9111 4.4", format!("{name} that is no reference ends nothing"), &[
                other(), says(&format!("{name}: http://[")), get().at("/other").cached_from(1), get().reaches(),
            ]),
        ]);
    }
    rows.extend([
        may("9111 4.4", "Location as a query", &[
            hour().at("?y"), post().at("?x").says("Location: ?y").reaches(), get().at("?y").reaches(),
        ]),
        may("9111 4.4", "Location with dots in its path", &[hour().at("/b"), post().says("Location: {path}/a/./../b").reaches(), get().at("/b").reaches()]),
        may("9111 4.4", "Location with a fragment", &[hour().at("/b"), post().says("Location: {path}/b#c").reaches(), get().at("/b").reaches()]),
        must("9111 4.4", "Location of another port ends nothing here", &[
            hour().at("/b"), post().says("Location: {base}:81{path}/b").reaches(), get().at("/b").cached_from(1),
        ]),
        must("9111 4.4", "what HEAD would get is ended, too", &[hour(), by("PUT").content("x").reaches(), head().reaches()]),
        must("9111 4.4", "an unknown method that fails ends nothing", &[
            hour(), by("FOO").answers(404).reaches(), get().cached_from(1),
        ]),
        must("9111 4.4", "another query is another URI", &[hour().at("?a"), post().at("?b").reaches(), get().at("?a").cached_from(1)]),
        // "invalidate" means that the cache will either remove all stored responses whose target URI matches [...] or will
        // mark them as "invalid" and in need of a mandatory validation
        may("9111 4.4", "what comes afterwards is stored again", &[hour(), post().reaches(), hour().reaches(), get().cached_from(3)]),
        must("9111 4.4", "max-stale does not bring it back", &[hour(), post().reaches(), get().with("Cache-Control: max-stale").reaches()]),
        should("9111 5.2.1.7", "only-if-cached does not bring it back", &[hour(), post().reaches(), get().with("Cache-Control: only-if-cached").refused(504)]),
        must("9111 4.4", "a silent origin server does not bring it back", &[hour(), by("DELETE").answers(204).reaches(), get().closes().whoever().status(502)]),
    ]);
    rows
}
