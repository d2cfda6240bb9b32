//! The janitor of an instance whose responses are in PostgreSQL: it makes the tables, hears of what other nodes change, tidies up, and
//! takes commands.
//!
//! The database is spoken to on a thread of its own, so that a database that hangs holds up no command and not the end.

mod changes;
pub(super) mod tidy;

use std::os::fd::OwnedFd;
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::control;
use super::meeting::{Listening, Meeting};
use super::operations::postgres::{Database, Instance, perform};
use super::operations::{Archive, Say};
use super::protocol::Request;
use super::{End, listen};
use crate::config::{Launch, Postgres};
use crate::ipc::Channel;
use crate::shared::Region;
use crate::store::postgres::schema::{self, Facts, SchemaError};
use crate::store::postgres::server::Server;
use crate::sys::clock::unix_seconds;

/// Between two looks whether the socket is still there.
const LOOK_MS: u16 = 1_000;
/// Sessions of a node that are not a worker's.
const OWN_SESSIONS: usize = 2;
/// How long a start waits for the database.
const AT_START: std::time::Duration = std::time::Duration::from_secs(3);

/// What everything here works on.
struct Ground {
    server: Server,
    settings: Postgres,
    region: Region,
    /// Octets that there may be; 0: no limit.
    max_size: u64,
}

/// Works until the end.
///
/// Errors: the settings cannot be used.
pub(super) fn run(channel: &Channel, launch: &Launch, region: OwnedFd) -> anyhow::Result<ExitCode> {
    let settings = launch.config.postgres.clone();
    let server = Server::new(&settings, "janitor").context("the cache in PostgreSQL")?;
    let max_size = launch.config.cache.max_size;
    let since = jiff::Timestamp::from_second(unix_seconds()).unwrap_or_default();
    let (own_server, own_region) = (server.clone(), region.try_clone()?);
    let thread = std::thread::Builder::new()
        .name("changes".into())
        .spawn(move || {
            let region = Region::open(region)?;
            let ground = Ground {
                server,
                settings,
                region,
                max_size,
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(2)
                .build_local(Default::default())?;
            runtime
                .block_on(async { tokio::join!(changes::attend(&ground), tidy::attend(&ground)) });
            Ok::<_, std::io::Error>(())
        })?;
    let mut listening: Option<Listening> = None;
    let mut said = false;
    loop {
        if thread.is_finished() {
            bail!("nobody hears of changes any more");
        }
        if !listening.as_ref().is_some_and(Listening::is_there) {
            match start(launch, &own_server, &own_region, since) {
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
    launch: &Launch,
    server: &Server,
    region: &OwnedFd,
    since: jiff::Timestamp,
) -> anyhow::Result<Listening> {
    let address = launch.addresses.first().context("nothing is listened on")?;
    let (listener, listening) =
        Meeting::prepare(launch.config.control.socket.as_deref(), *address)?.listen()?;
    let holder = super::memory::holder(launch, since);
    let (server, region) = (server.clone(), region.try_clone()?);
    let (policies, max_size) = (launch.config.policies(), launch.config.cache.max_size);
    let answer = move |request: &Request, archive: Option<Archive<'_>>, say: Say<'_>| {
        let database = Database {
            server: &server,
            policies: &policies,
            max_size,
            instance: Some(Instance {
                region: Region::open(region.try_clone()?)?,
                holder: &holder,
            }),
        };
        perform(request, &database, archive, say)
    };
    control::listen(listener, Box::new(answer))?;
    Ok(listening)
}

/// Makes the tables, before an instance starts or by a command.
///
/// Errors: the settings cannot be used, or the database refuses, or does not answer in time.
pub fn prepare(settings: &Postgres) -> anyhow::Result<Facts> {
    let server = Server::new(settings, "start")?;
    let called = server.called();
    let (sender, done) = std::sync::mpsc::channel();
    let settings = settings.clone();
    // Whoever hangs there ends with the process, or before.
    std::thread::spawn(move || sender.send(schema::migrate(&server, &settings)));
    match done.recv_timeout(AT_START) {
        Ok(Err(error @ SchemaError::Newer { .. })) => Err(Newer(error.to_string()).into()),
        Ok(Ok(made)) => Ok(made),
        Ok(Err(error)) => {
            let remedy = error.remedy().map(|remedy| format!("; {remedy}"));
            let remedy = remedy.unwrap_or_default();
            anyhow::bail!("the database at {called} fails: {error}{remedy}")
        }
        Err(_) => anyhow::bail!(
            "the database at {called} does not answer; --cache postgres://USER@HOST/DATABASE names another one"
        ),
    }
}

/// The tables are those of a newer baton: no start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Newer(String);

/// More sessions than the database has, in words.
pub fn shortage(settings: &Postgres, workers: usize, facts: &Facts) -> Option<String> {
    let wanted = workers * settings.connections + OWN_SESSIONS;
    (i64::try_from(wanted).unwrap_or(i64::MAX) > facts.connections).then(|| {
        format!(
            "{workers} workers with {} connections each (postgres.connections) and {OWN_SESSIONS} more are {wanted}, and the database \
             allows {} (max_connections less superuser_reserved_connections), over all nodes",
            settings.connections, facts.connections
        )
    })
}
