//! The binary: one place that turns errors into an exit code.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match baton::cli::run() {
        Ok(code) => code,
        Err(error) => {
            // One write: several processes may have something to say at the same time.
            let line = format!("baton: {error:#}\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            ExitCode::FAILURE
        }
    }
}
