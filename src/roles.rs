//! Which process this is: each role and its entry.
//!
//! Every role is this program, executed again under a title that `ps` shows and that names the role. It gets what it
//! needs through a descriptor: nothing here reads a file or an option.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use anyhow::{Context, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::config::Launch;
use crate::ipc::{Channel, Received, ToWorker};
use crate::{janitor, master, sys, worker};

/// A role, and what runs it.
struct Role {
    name: &'static str,
    enter: fn() -> anyhow::Result<ExitCode>,
}

const ROLES: [Role; 3] = [
    Role {
        name: JANITOR,
        enter: enter_janitor,
    },
    Role {
        name: MASTER,
        enter: enter_master,
    },
    Role {
        name: WORKER,
        enter: enter_worker,
    },
];

pub const JANITOR: &str = "janitor";
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
    let channel = channel()?;
    let start = receive_start(&channel)?;
    worker::run(channel, start.number, start.launch, start.region)
}

fn enter_janitor() -> anyhow::Result<ExitCode> {
    let channel = channel()?;
    let start = receive_start(&channel)?;
    janitor::run(&channel, &start.launch, start.region)
}

/// A child's end of its channel to the master, which alone it obeys.
fn channel() -> anyhow::Result<Channel> {
    sys::signal::leave_to_master().context("signals cannot be ignored")?;
    let channel = sys::fd::take_stdin().context("there is no channel to the master")?;
    Ok(Channel::new(channel))
}

/// What the master's first message brings.
struct Start {
    /// Which of the workers it is.
    number: usize,
    launch: Launch,
    region: OwnedFd,
}

fn receive_start(channel: &Channel) -> anyhow::Result<Start> {
    loop {
        let received = channel
            .recv::<ToWorker>()
            .context("the master's first message")?;
        let (number, fds) = match received {
            Received::Message {
                message: ToWorker::Start { worker, .. },
                fds,
                missing: 0,
            } => (usize::from(worker), fds),
            Received::Nothing => {
                let mut source = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
                poll(&mut source, PollTimeout::NONE)?;
                continue;
            }
            Received::End => bail!("the master ended before it started this process"),
            Received::Message { .. } => bail!("the master's first message is not a start"),
        };
        let [launch, region] = <[OwnedFd; 2]>::try_from(fds)
            .map_err(|_| anyhow::anyhow!("a start has two descriptors"))?;
        let json = sys::memory::read_sealed(launch).context("the configuration from the master")?;
        return Ok(Start {
            number,
            launch: serde_json::from_slice(&json).context("the configuration from the master")?,
            region,
        });
    }
}
