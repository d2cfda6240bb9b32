//! The janitor of an instance that keeps responses in memory alone: there is nothing to look after, only commands to answer.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::Context;

use super::control;
use super::meeting::{Listening, Meeting};
use super::operations::memory::{Memory, perform};
use super::operations::{Archive, Say};
use super::protocol::Request;
use super::workers::Workers;
use super::{End, listen};
use crate::config::Launch;
use crate::ipc::Channel;
use crate::shared::Region;
use crate::sys::clock::unix_seconds;

/// Between two looks whether the socket is still there.
const LOOK_MS: u16 = 10_000;

/// Answers until the end. Without a socket, too: it would be no better the next time.
pub(super) fn run(channel: &Channel, launch: &Launch, region: OwnedFd) -> anyhow::Result<ExitCode> {
    let since = jiff::Timestamp::from_second(unix_seconds()).unwrap_or_default();
    let mut listening = None;
    let mut said = false;
    loop {
        if !listening.as_ref().is_some_and(Listening::is_there) {
            match start(channel, launch, &region, since) {
                Ok(started) => {
                    log::info!("commands are taken at {}", started.path().display());
                    listening = Some(started);
                    said = false;
                }
                Err(error) if !std::mem::replace(&mut said, true) => {
                    log::warn!("there is no control socket for commands: {error:#}");
                }
                Err(_) => {}
            }
        }
        if let Some(end) = listen(channel, LOOK_MS) {
            if let Some(listening) = listening {
                listening.leave();
            }
            if matches!(end, End::Orphaned) {
                log::warn!("the master is gone");
            }
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn start(
    channel: &Channel,
    launch: &Launch,
    region: &OwnedFd,
    since: jiff::Timestamp,
) -> anyhow::Result<Listening> {
    let address = launch.addresses.first().context("nothing is listened on")?;
    let (listener, listening) =
        Meeting::prepare(launch.config.control.socket.as_deref(), *address)?.listen()?;
    let holder = holder(launch, since);
    let workers = Workers::new(channel, launch.config.workers)?;
    let policies = launch.config.policies();
    let (region, limit) = (region.try_clone()?, launch.config.cache.memory);
    let purging = Mutex::new(());
    let answer = move |request: &Request, _: Option<Archive<'_>>, say: Say<'_>| {
        let memory = Memory {
            purging: &purging,
            region: Region::open(region.try_clone()?)?,
            workers: &workers,
            policies: &policies,
            holder: &holder,
            limit,
        };
        perform(request, &memory, say)
    };
    control::listen(listener, Box::new(answer))?;
    Ok(listening)
}

/// How an instance without a directory calls itself.
pub(super) fn holder(launch: &Launch, since: jiff::Timestamp) -> String {
    let addresses = launch.addresses.iter();
    let addresses: Vec<String> = addresses.map(|it| format!("http://{it}")).collect();
    let master = std::os::unix::process::parent_id();
    format!("pid {master}, since {since}, {}", addresses.join(" "))
}
