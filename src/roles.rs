//! Which process this is: each role and its entry.
//!
//! Every role is this program, executed again under a title that `ps` shows and that names the role. It gets what it
//! needs through a descriptor: nothing here reads a file or an option.

use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::config::Launch;
use crate::ipc::Channel;
use crate::{master, sys, worker};

/// A role, and what runs it.
struct Role {
    name: &'static str,
    enter: fn() -> anyhow::Result<ExitCode>,
}

const ROLES: [Role; 2] = [
    Role {
        name: MASTER,
        enter: enter_master,
    },
    Role {
        name: WORKER,
        enter: enter_worker,
    },
];

pub const MASTER: &str = "master";
pub const WORKER: &str = "worker";

/// What `ps` shows of our processes begins with this; what follows names the role.
const TITLE: &str = "baton: ";

/// The role that this process's title names, if it does: a program that a user starts has a path there.
#[must_use]
pub fn named_by_title() -> Option<String> {
    let title = std::env::args_os().next()?.into_string().ok()?;
    let role = title.strip_prefix(TITLE)?.split(' ').next()?;
    ROLES
        .iter()
        .find(|known| known.name == role)
        .map(|known| known.name.to_owned())
}

/// Runs a role to its end.
pub fn run(role: &str) -> anyhow::Result<ExitCode> {
    let Some(role) = ROLES.iter().find(|known| known.name == role) else {
        bail!("there is no role {role:?}");
    };
    sys::title::set();
    (role.enter)()
}

/// Replaces this process by the master. Returns only when that failed.
pub fn become_master(launch: &Launch) -> anyhow::Error {
    let written = serde_json::to_vec(launch)
        .map_err(std::io::Error::from)
        .and_then(|json| sys::memory::sealed_file("baton-launch", &json));
    let error = match written {
        Ok(file) => sys::spawn::become_role(&format!("{TITLE}{MASTER}"), &file),
        Err(error) => error,
    };
    anyhow::Error::new(error).context("the master cannot be started")
}

fn enter_master() -> anyhow::Result<ExitCode> {
    let number = std::env::var(sys::spawn::LAUNCH_VARIABLE)
        .ok()
        .and_then(|text| text.parse().ok());
    let file = number.and_then(sys::fd::inherited).context(
        "this role is started by baton itself; use `baton forward`, `reverse` or `serve`",
    )?;
    let json = sys::memory::read_sealed(file).context("the launch cannot be read")?;
    let launch: Launch = serde_json::from_slice(&json).context("the launch is not valid")?;
    master::run(launch)
}

fn enter_worker() -> anyhow::Result<ExitCode> {
    sys::signal::leave_to_master().context("signals cannot be ignored")?;
    let channel = sys::fd::take_stdin().context("there is no channel to the master")?;
    worker::run(Channel::new(channel))
}
