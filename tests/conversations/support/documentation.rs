//! What the documentation says that can be run.

/// The statements of all SQL examples in a section of docs/stores.md.
pub fn examples(section: &str) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/stores.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, text) = text.split_once(&format!("\n## {section}\n")).unwrap();
    let section = text.split("\n## ").next().unwrap();
    let blocks = section.split("```sql\n").skip(1);
    let code = blocks.flat_map(|block| block.split("```").next().unwrap().split(';'));
    code.map(|one| one.trim().to_owned())
        .filter(|one| !one.is_empty())
        .collect()
}
