//! Which process this is: each role and its entry.

pub fn named_by_arguments() -> Option<String> {
    None
}

pub fn run(role: &str) -> anyhow::Result<std::process::ExitCode> {
    anyhow::bail!("there is no role {role}")
}

pub fn become_master(_: &crate::config::Launch) -> anyhow::Error {
    anyhow::anyhow!("there is no master yet")
}
