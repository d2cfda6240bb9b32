//! The binary: one place that turns errors into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    match baton::cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("baton: {error:#}");
            ExitCode::FAILURE
        }
    }
}
