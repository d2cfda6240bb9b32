//! What can be asked of a cache directory: figures, lists, a check of every checksum, removal.
//!
//! The same code answers in the janitor of a running instance, in a thread of its own, and in the process of a command
//! on a directory at rest. Beside an instance it changes nothing but files and the tables that all processes share,
//! and tells the janitor's loop what it has removed; at rest it strikes that out of the catalogue itself. `control`
//! and the command line call it.

mod explain;
mod export;
mod import;
mod list;
pub mod memory;
pub mod postgres;
mod purge;
mod room;
mod sets;
mod show;
mod verify;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::Context;

use super::board::Board;
use super::catalogue::{Catalogue, CatalogueError, Change, Reader};
use super::protocol::{Done, Reply, Request};
use crate::cache::{Name, Policies, key};
use crate::shared::Region;
use crate::store::disk::format::Head;
use crate::store::disk::limits::Sizes;
use crate::store::disk::place::{CATALOGUE, Place};
use crate::store::disk::purged;
use crate::store::{Fate, Known, Purges};

/// Where it happens.
pub struct Ground<'a> {
    pub place: &'a Place,
    /// None: the directory is at rest, and nobody else changes it meanwhile.
    pub instance: Option<&'a Instance>,
    /// What the operator has decided about caching.
    pub policies: &'a Policies,
    /// And about room, which a running instance knows itself.
    pub sizes: Sizes,
}

/// What an operation in the janitor has at hand.
pub struct Instance {
    pub region: Region,
    pub known: Known,
    pub board: Arc<Board>,
    pub tell: Sender<Note>,
}

/// What an operation tells the janitor's loop.
#[derive(Debug)]
pub enum Note {
    /// Head files are gone.
    Removed(Vec<Name>),
    /// Head files have come; so many octets have been taken from the account for them.
    Put { names: Vec<Name>, reserved: u64 },
    /// Says when the catalogue has everything that has happened until now.
    BringUpToDate(Sender<()>),
}

/// How long a loop that is busy is waited for; then the catalogue is read as it is.
const PATIENCE: Duration = Duration::from_secs(2);

pub use explain::check_field;

/// What this kind of store has nothing for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotHere(pub &'static str);

/// Whether that is a URL which the proxy could keep something of; the error says why not.
pub fn check_url(url: &str) -> anyhow::Result<()> {
    purge::keys(url).map(drop)
}

/// The beginning of URLs as keys have it: where all of the authority is there, in its normal form.
pub fn normal_prefix(text: &str) -> String {
    let text = text.trim();
    let whole = match text.contains("://") || text.is_empty() {
        true => text.to_owned(),
        false => format!("http://{text}"),
    };
    let has_path = whole
        .split_once("://")
        .is_some_and(|(_, rest)| rest.contains(['/', '?']));
    match has_path.then(|| explain::normal(&whole)) {
        Some(Ok(normal)) => normal,
        _ => whole.to_ascii_lowercase(),
    }
}

/// Takes what comes before the end. An error ends the operation: nobody listens any more.
pub type Say<'a> = &'a mut dyn FnMut(&Reply) -> std::io::Result<()>;

/// What an archive is read from, or written to.
pub type Archive<'a> = &'a mut dyn Transfer;

pub trait Transfer: Read + Write {}

impl<T: Read + Write> Transfer for T {}

/// Errors: none came along.
fn opened(archive: Option<Archive<'_>>) -> anyhow::Result<Archive<'_>> {
    archive.context(
        "an open file has to come along with that: `baton cache export` and `import` send one",
    )
}

/// Does what is asked. `archive`: for `Export` and `Import`. Errors: the directory cannot be read or written, the URL is none, or the archive is.
pub fn perform(
    request: &Request,
    ground: &Ground<'_>,
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
        } => explain::explain(ground, url, method, fields).map(Done::Explained),
        Request::Verify => verify::verify(ground, say).map(Done::Verified),
        Request::Purge { what, soft } => purge::purge(ground, what, *soft, say).map(Done::Purged),
        Request::PurgeAll => purge::purge_all(ground, say).map(Done::Purged),
        Request::Export => export::export(ground, archive, say).map(Done::Exported),
        Request::Import => import::import(ground, archive, say).map(Done::Imported),
    }
}

impl Request {
    /// Whether a directory at rest must be held against others meanwhile.
    #[must_use]
    pub fn changes_files(&self) -> bool {
        matches!(
            self,
            Request::Verify | Request::Purge { .. } | Request::PurgeAll | Request::Import
        )
    }
}

impl Ground<'_> {
    /// The number that heads must carry.
    fn generation(&self) -> anyhow::Result<u64> {
        Ok(match self.instance {
            Some(instance) => instance.region.space().generation(),
            None => self.place.generation()?,
        })
    }

    /// The purges that heads may not know of.
    fn purges(&self) -> anyhow::Result<Purges> {
        match self.instance {
            Some(instance) => Ok(instance.known.all()),
            None => sets::purges_of(&self.place.pending()?),
        }
    }

    /// What purges of many mean for what a head says. None: it counts no more.
    fn fate(&self, head: &Head) -> anyhow::Result<Option<Fate>> {
        // Read after the head, so that it is not behind it.
        let counts = purged::counts(head.generation, self.generation()?);
        Ok(match Fate::of(head, &self.purges()?) {
            Fate::Gone(_) => None,
            fate => counts.then_some(fate),
        })
    }

    /// No process trusts its own copy of what is under this key any more.
    fn bump(&self, key: &[u8]) {
        if let Some(instance) = self.instance {
            instance.region.versions().bump(key::hash(key));
        }
    }

    /// The catalogue is about to be read.
    fn bring_up_to_date(&self) {
        if let Some(instance) = self.instance {
            let (sender, done) = channel();
            if instance.tell.send(Note::BringUpToDate(sender)).is_ok() {
                // Late is as good as never.
                let _ = done.recv_timeout(PATIENCE);
            }
        }
    }

    /// Head files are gone: whoever keeps accounts is told.
    fn removed(&self, names: Vec<Name>) {
        if names.is_empty() {
            return;
        }
        match self.instance {
            // A janitor that ends meanwhile leaves it to the next one, which looks at the directory.
            Some(instance) => drop(instance.tell.send(Note::Removed(names))),
            None => {
                // What stays in it is found to be missing at the next start.
                if let Err(error) = self.strike_out(&names.into_iter().collect()) {
                    log::debug!("the catalogue keeps what has been removed: {error}");
                }
            }
        }
    }

    fn strike_out(&self, names: &HashSet<Name>) -> Result<(), CatalogueError> {
        let path = self.place.path().join(CATALOGUE);
        if !path.exists() {
            return Ok(());
        }
        let mut changes = Vec::new();
        Reader::open(&path)?.rows(0, |row| {
            if names.contains(&row.name) {
                changes.push(Change::Remove { id: row.id });
            }
            true
        })?;
        Catalogue::open(&path)?.write(&changes, &[])
    }
}

#[cfg(test)]
mod tests;
