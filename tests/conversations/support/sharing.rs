//! What the tests of shared responses have in common: a large body, a proxy with either store, clients that only ask.

use crate::support::{Baton, Client, Origin};

pub const FRESH: &str = "Cache-Control: max-age=60\r\nETag: \"a\"\r\n";
pub const STORES: [&str; 2] = ["memory", "dir"];
/// Octets of `large` that come first.
pub const HALF: usize = 1_400_000;

pub fn large() -> Vec<u8> {
    (0..3_000_000_u32).map(|n| (n / 7) as u8).collect()
}

/// So many workers in front of `origin`, with a store of either kind.
pub fn in_front_of(
    origin: &Origin,
    store: &str,
    workers: usize,
    flags: &[&str],
) -> (Baton, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let store = match store {
        "dir" => format!("dir:{}", directory.path().join("cache").display()),
        store => store.to_owned(),
    };
    let workers = workers.to_string();
    let flags = [&["--workers", &workers, "--cache", &store], flags].concat();
    (Baton::reverse(origin.address(), &flags), directory)
}

/// Clients that have asked, one after the other.
pub fn asked(baton: &Baton, count: usize, path: &str, fields: &str) -> Vec<Client> {
    let ask = |_| {
        let mut client = baton.client();
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"
        ));
        client
    };
    (0..count).map(ask).collect()
}

pub fn head_of(client: &mut Client) -> String {
    let mut head = String::new();
    loop {
        let line = client.line().unwrap();
        if line.is_empty() {
            return head;
        }
        head += &line;
        head += "\n";
    }
}
