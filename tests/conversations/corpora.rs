//! Every file of the fuzz corpora, replayed through the code that the fuzz targets run.

use std::fs;
use std::path::Path;

#[path = "../fuzz/targets.rs"]
mod targets;

fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(name);
    let entries = fs::read_dir(&folder).expect("the corpus is part of the source");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    files.sort();
    assert!(
        files.len() >= 20,
        "{} has {} files",
        folder.display(),
        files.len()
    );
    for file in files {
        println!("{}", file.display());
        target(&fs::read(&file).expect("a readable file"));
    }
}

#[test]
fn chunked() {
    replay("chunked", targets::chunked);
}

#[test]
fn config() {
    replay("config", targets::config);
}

#[test]
fn framing() {
    replay("framing", targets::framing);
}

#[test]
fn head() {
    replay("head", targets::head);
}

#[test]
fn ipc() {
    replay("ipc", targets::ipc);
}
