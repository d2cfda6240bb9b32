//! The same of a cache in PostgreSQL: whoever asks connects to the database and looks itself.
//!
//! The process of a command does it, where no instance has to run, and the janitor of an instance, over its control socket: the
//! same code over a session of its own. What is changed here all nodes hear of, as they do of each other's changes.

mod export;
mod import;
mod list;
mod purge;
mod sets;
mod show;
mod verify;

use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use postgres::Client;

use super::{Archive, Say};
use crate::cache::Policies;
use crate::janitor::protocol::{Done, Request};
use crate::shared::Region;
use crate::store::postgres::schema;
use crate::store::postgres::server::Server;
use crate::store::postgres::trouble::{remedy, said};

/// How long a connection may take, TLS and password included.
const CONNECT: Duration = Duration::from_secs(5);

/// Where the database is, and who asks.
pub struct Database<'a> {
    pub server: &'a Server,
    pub policies: &'a Policies,
    /// Octets that there may be; 0: no limit.
    pub max_size: u64,
    /// None: a command, of its own.
    pub instance: Option<Instance<'a>>,
}

/// What the janitor of an instance knows besides.
pub struct Instance<'a> {
    pub region: Region,
    /// Which instance it is.
    pub holder: &'a str,
}

/// What an operation works with.
struct Ground<'a> {
    client: Client,
    database: &'a Database<'a>,
}

/// Does what is asked. Errors: the database does not answer or refuses, its tables are not there, or the URL is none.
pub fn perform(
    request: &Request,
    database: &Database<'_>,
    archive: Option<Archive<'_>>,
    say: Say<'_>,
) -> anyhow::Result<Done> {
    let done = connect(database).and_then(|mut ground| answer(request, &mut ground, archive, say));
    done.map_err(|error| match error.downcast_ref::<postgres::Error>() {
        Some(failed) => anyhow!(
            "the database at {} fails: {}",
            database.server.called(),
            said(failed)
        ),
        None => error,
    })
}

fn answer(
    request: &Request,
    ground: &mut Ground<'_>,
    archive: Option<Archive<'_>>,
    say: Say<'_>,
) -> anyhow::Result<Done> {
    match request {
        Request::Stats => list::stats(ground).map(|stats| Done::Stats(Box::new(stats))),
        Request::Ls(listing) => list::ls(ground, listing, say).map(Done::Listed),
        Request::Show { url } => show::show(ground, url).map(Done::Shown),
        Request::Explain {
            url,
            method,
            fields,
        } => show::explain(ground, url, method, fields).map(Done::Explained),
        Request::Verify => verify::verify(ground, say).map(Done::Verified),
        Request::Purge { what, soft } => purge::purge(ground, what, *soft).map(Done::Purged),
        Request::PurgeAll => purge::purge_all(ground, say).map(Done::Purged),
        Request::Export => export::export(ground, archive, say).map(Done::Exported),
        Request::Import => import::import(ground, archive, say).map(Done::Imported),
    }
}

fn connect<'a>(database: &'a Database<'a>) -> anyhow::Result<Ground<'a>> {
    let called = database.server.called();
    let (sender, connected) = channel();
    let server = database.server.clone();
    // A server that hangs takes a connection and says nothing: who waits for that ends with the process, or when it goes on.
    std::thread::Builder::new()
        .name("connect".to_owned())
        .spawn(move || drop(sender.send(server.connect_blocking())))?;
    let mut client = match connected.recv_timeout(CONNECT) {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => bail!(
            "the database at {called} cannot be asked: {}; {}",
            said(&error),
            remedy(&error)
        ),
        Err(_) => bail!(
            "the database at {called} does not answer; --cache postgres://USER@HOST/DATABASE names another one"
        ),
    };
    let client = match schema::check(&mut client) {
        Ok(()) => client,
        Err(error) => return Err(error).with_context(|| format!("the database at {called}")),
    };
    Ok(Ground { client, database })
}
