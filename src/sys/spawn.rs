//! Children of the master: the same program executed again, under a name that `ps` shows.
//!
//! Always the literal `/proc/self/exe`: it starts the version that runs, also after the file has been replaced.
//! The child finds its channel as standard input and learns its role from one argument; nothing else is handed over here.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill as nix_kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid as NixPid;

use super::fd::set_cloexec;
use super::memory::AT_HAND;

/// The program that runs now, whatever its file is called by now.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// Names the descriptor that hands a launch over to the master; its children must not see it.
pub const LAUNCH_VARIABLE: &str = "BATON_LAUNCH_FD";

/// Read by the GNU C library when a program starts, and nowhere else; another library takes no notice.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// A child that has been started and not yet been reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pid(i32);

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// Starts this program anew as `title`, which names its role, in a process group of its own, with `control` as its standard input. The caller reaps
/// it by its id.
pub fn spawn(title: &str, control: OwnedFd) -> io::Result<Pid> {
    let child = Command::new(THIS_PROGRAM)
        .arg0(title)
        .stdin(Stdio::from(control))
        .stdout(Stdio::null())
        .env_remove(LAUNCH_VARIABLE)
        .env(TUNABLES, tunables(std::env::var_os(TUNABLES)))
        .process_group(0)
        .spawn()?;
    i32::try_from(child.id()).map(Pid).map_err(io::Error::other)
}

/// Ours, and behind them, where they count for more, those of whoever has started this program.
fn tunables(given: Option<OsString>) -> OsString {
    let mut tunables = OsString::from(format!("glibc.malloc.tcache_count={AT_HAND}"));
    if let Some(given) = given {
        tunables.push(":");
        tunables.push(given);
    }
    tunables
}

/// Replaces this process by the role that `title` names, which finds `launch` open under the number that
/// [`LAUNCH_VARIABLE`] says. Returns only when that failed.
pub fn become_role(title: &str, launch: &OwnedFd) -> io::Error {
    if let Err(error) = set_cloexec(launch.as_fd(), false) {
        return error;
    }
    let number = launch.as_raw_fd().to_string();
    let error = Command::new(THIS_PROGRAM)
        .arg0(title)
        .env(LAUNCH_VARIABLE, number)
        .exec();
    let _ = set_cloexec(launch.as_fd(), true);
    error
}

/// Whether the child has ended, and how; its entry is gone then. Never waits.
pub fn reap(pid: Pid) -> io::Result<Option<Exit>> {
    match waitpid(NixPid::from_raw(pid.0), Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Ok(Some(Exit::Code(code))),
        Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(Exit::Signal(signal as i32))),
        Ok(_) | Err(Errno::EINTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// SIGKILL: it ends a stopped process too. One that has ended already is fine.
pub fn kill(pid: Pid) -> io::Result<()> {
    match nix_kill(NixPid::from_raw(pid.0), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl std::fmt::Display for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(number) => match Signal::try_from(number) {
                Ok(signal) => write!(f, "signal {number} ({signal})"),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_says_of_the_allocator_counts_for_more() {
        assert_eq!(tunables(None), "glibc.malloc.tcache_count=64");
        let given = tunables(Some("glibc.malloc.tcache_count=3".into()));
        // The library takes the last.
        let last = "glibc.malloc.tcache_count=64:glibc.malloc.tcache_count=3";
        assert_eq!(given, last);
    }

    #[test]
    fn an_exit_reads_well() {
        assert_eq!(Exit::Code(3).to_string(), "exit code 3");
        assert_eq!(Exit::Signal(9).to_string(), "signal 9 (SIGKILL)");
        assert_eq!(Exit::Signal(64).to_string(), "signal 64");
    }
}
