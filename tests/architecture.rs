//! Holds the tree to the table in ARCHITECTURE.md: a module imports only from rows above its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The rows, top first; a module may import what stands in an earlier row.
const ROWS: [&[&str]; 6] = [
    &["sys", "http", "dispatch"],
    &["cache", "access", "routing"],
    &["ipc", "shared", "wire", "config", "log"],
    &["store", "upstream"],
    &["janitor", "master", "worker"],
    &["roles", "cli"],
];

/// Arrows within a row that the table allows.
const WITHIN: [(&str, &str); 2] = [("log", "config"), ("cli", "roles")];

#[test]
fn modules_import_only_from_rows_above_their_own() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let row: HashMap<&str, usize> = ROWS
        .iter()
        .enumerate()
        .flat_map(|(row, modules)| modules.iter().map(move |module| (*module, row)))
        .collect();
    let mut wrong = Vec::new();
    for file in rust_files(&source) {
        let relative = file.strip_prefix(&source).unwrap();
        let first = relative
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap();
        let module = first.strip_suffix(".rs").unwrap_or(first);
        if ["build", "lib", "main"].contains(&module) {
            continue;
        }
        let own = *row
            .get(module)
            .unwrap_or_else(|| panic!("src/{module} stands in no row of ARCHITECTURE.md"));
        for other in imports(&std::fs::read_to_string(&file).unwrap()) {
            // What is no module is a macro; that each module stands in a row is checked above.
            let allowed = other == module
                || row.get(other.as_str()).is_none_or(|other| *other < own)
                || WITHIN.contains(&(module, &other));
            if !allowed {
                wrong.push(format!("{}: {module} → {other}", relative.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that the table does not allow:\n{}",
        wrong.join("\n")
    );
}

/// The module names behind every `crate::` of product code (tests at the end of a file are left out).
fn imports(text: &str) -> Vec<String> {
    let product = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let code = product
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let mut found = Vec::new();
    for line in code {
        for rest in line.split("crate::").skip(1) {
            let before = line.split("crate::").next().unwrap();
            if before.ends_with('$') {
                continue;
            }
            match rest.strip_prefix('{') {
                Some(list) => found.extend(list.split(',').map(|part| word(part.trim()))),
                None => found.push(word(rest)),
            }
        }
    }
    found.retain(|module| module.starts_with(|c: char| c.is_ascii_lowercase()));
    found
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_stem().is_none_or(|stem| stem != "tests")
        {
            files.push(path);
        }
    }
    files
}
