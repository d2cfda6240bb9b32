//! One fetch for many nodes: whoever is about to ask an origin server takes a lease in the database, and others wait for what comes of
//! it, but never without an end.
//!
//! A lease ends by itself, some seconds after its holder has died. It is a courtesy: where the database is in trouble
//! everybody asks.

use std::time::Duration;

use tokio::task::AbortHandle;

use super::link::{Link, What};
use super::session::Session;

/// Between two times that a lease is made longer; it is for ten seconds.
const RENEWED: Duration = Duration::from_secs(4);

/// What comes of wanting to ask an origin server.
pub enum Turn {
    /// Nobody else asks, or nobody knows; with the lease, where there is one.
    Mine(Option<Lease>),
    /// The same, and something has come into the store of late.
    Look(Lease),
    /// Another node asks.
    Others,
}

/// Held while an origin server is asked.
pub struct Lease {
    link: Link,
    name: [u8; 16],
    holder: i64,
    renewing: AbortHandle,
}

impl Lease {
    pub(super) async fn take(link: &Link, name: [u8; 16]) -> Turn {
        let holder = (fastrand::u64(..) >> 1).cast_signed();
        let take = async |session: &Session| session.take(&name, holder).await;
        let Some((is_mine, is_news)) = link.ask(What::Writing, take).await else {
            return Turn::Mine(None);
        };
        if !is_mine {
            return Turn::Others;
        }
        let own = link.clone();
        let renewing = tokio::task::spawn_local(async move {
            // Until a change, or another node after its end, has taken it away.
            let mut is_held = true;
            while is_held {
                tokio::time::sleep(RENEWED).await;
                let renew = async |session: &Session| session.renew(&name, holder).await;
                is_held = own.ask(What::Writing, renew).await.unwrap_or(true);
            }
        });
        let lease = Lease {
            link: link.clone(),
            name,
            holder,
            renewing: renewing.abort_handle(),
        };
        match is_news {
            true => Turn::Look(lease),
            false => Turn::Mine(Some(lease)),
        }
    }

    /// Whether somebody holds it.
    pub(super) async fn is_taken(link: &Link, name: [u8; 16]) -> bool {
        let taken = async |session: &Session| session.is_taken(&name).await;
        link.ask(What::Reading, taken).await.unwrap_or(false)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (link, name, holder) = (self.link.clone(), self.name, self.holder);
        tokio::task::spawn_local(async move {
            let release = async |session: &Session| session.release(&name, holder).await;
            link.ask(What::Writing, release).await
        });
    }
}
