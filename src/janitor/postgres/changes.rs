//! What other nodes have changed, told to the workers of this one: each second, and at once when the database says that there is
//! something.
//!
//! A round asks for the changes behind the last one that is applied, moves the versions of their keys, says how far it has come, and
//! extends the lease by what was known when it asked. A node that was cut off finds what it missed by the numbers;
//! where they cannot tell, no copy counts any more. What this node could not tell the database it tells it now.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, Row, Statement};

use super::Ground;
use crate::shared::{Distant, LEASE_MS, Owed, Region};
use crate::store::postgres::schema::{self, SchemaError};
use crate::store::postgres::server::{Line, greet};
use crate::store::postgres::trouble::{Trouble, said};
use crate::sys::clock::awake_or_not_ms;

/// Between two rounds where nothing is heard.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a round may take: the lease ends before it would be of use.
const PATIENCE: Duration = Duration::from_millis(1_500);
const CONNECT: Duration = Duration::from_secs(2);
/// How long making the tables may take.
const MIGRATE: Duration = Duration::from_secs(660);
/// More changes than that are as good as everything.
const MOST: i64 = 10_000;
/// How long a worker may take to tell the database itself.
const OWED_MS: u64 = 1_000;
/// Names told at once.
const NAMES: usize = 500;

/// Each node holds this lock, shared, as long as it hears of the others, and so do they of it: a woken node counts anew.
const PRESENT: &str = "SELECT pg_advisory_lock_shared(422541815665); NOTIFY baton";
const ROUND: &str = "\
    SELECT c.incarnation, c.number, c.pruned, h.number, h.name IS NULL, h.hash, \
    to_regclass('baton_objects') IS NOT NULL AND to_regclass('baton_pieces') IS NOT NULL \
    AND to_regclass('baton_orphans') IS NOT NULL AND to_regproc('baton_store') IS NOT NULL, \
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted \
    AND (classid::bigint << 32) + objid::bigint = 422541815665 \
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) FROM baton_counter c \
    LEFT JOIN LATERAL (SELECT * FROM baton_changes WHERE number > $1 ORDER BY number LIMIT $2) h ON true";

/// Until the process ends.
pub(super) async fn attend(ground: &Ground) {
    let trouble = Trouble::new(ground.server.called());
    let mut warned = false;
    loop {
        let why = match once(ground, &trouble, &mut warned).await {
            Ok(never) => match never {},
            Err(why) => why,
        };
        trouble.began(&why);
        tokio::time::sleep(PAUSE).await;
    }
}

enum Never {}

/// Goes on until something fails; the error says what.
async fn once(ground: &Ground, trouble: &Trouble, warned: &mut bool) -> Result<Never, String> {
    let connected = timeout(CONNECT, ground.server.connect()).await;
    let connected = connected.map_err(|_| "it does not answer".to_owned())?;
    let (client, line) = connected.map_err(|error| said(&error))?;
    let heard = Rc::new(Notify::new());
    let _driver = Driver::start(line, heard.clone());
    let greeted = timeout(CONNECT, greet(&client)).await;
    greeted
        .map_err(|_| "it does not answer".to_owned())?
        .map_err(|error| said(&error))?;
    migrate(ground, warned).await?;
    let round = within(async {
        client.batch_execute("LISTEN baton").await?;
        client.batch_execute(PRESENT).await?;
        client.prepare(ROUND).await
    })
    .await?;
    let mut is_new = true;
    loop {
        take_part(&client, &round, &ground.region).await?;
        if ground.region.distant().incarnation() != 0 && std::mem::replace(&mut is_new, false) {
            log::info!("what other nodes change is heard of");
        }
        match pay(&client, &ground.region).await {
            Ok(()) => trouble.is_over(),
            Err(why) => trouble.began(&why),
        }
        let _ = timeout(PAUSE, heard.notified()).await;
        if client.is_closed() {
            return Err("the connection has ended".to_owned());
        }
    }
}

async fn migrate(ground: &Ground, warned: &mut bool) -> Result<(), String> {
    let (server, settings) = (ground.server.clone(), ground.settings.clone());
    let migrated = tokio::task::spawn_blocking(move || schema::migrate(&server, &settings));
    let migrated = timeout(MIGRATE, migrated).await;
    let migrated = migrated.map_err(|_| "its tables are locked".to_owned())?;
    match migrated.map_err(|error| error.to_string())? {
        Ok(facts) => {
            if facts.made > 0 {
                log::info!("the tables have been made in {}", ground.server.called());
            }
            if let Some(warning) =
                super::shortage(&ground.settings, ground.region.workers(), &facts)
                && !std::mem::replace(warned, true)
            {
                log::warn!("{warning}");
            }
            Ok(())
        }
        Err(error) => {
            if matches!(error, SchemaError::Newer { .. }) {
                ground.region.distant().shut();
            }
            Err(error.to_string())
        }
    }
}

async fn within<T>(
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, String> {
    match timeout(PATIENCE, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(said(&error)),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    }
}

/// One round.
async fn take_part(client: &Client, round: &Statement, region: &Region) -> Result<(), String> {
    let distant = region.distant();
    let asked = awake_or_not_ms();
    let applied = distant.applied();
    let (behind, most) = (applied.cast_signed(), MOST + 1);
    let rows = within(client.query(round, &[&behind, &most])).await?;
    let Some(first) = rows.first() else {
        // The database has lost everything, and its tables are empty.
        within(client.batch_execute(schema::COUNTER)).await?;
        return Ok(());
    };
    if !first.try_get::<_, bool>(6).map_err(|error| said(&error))? {
        return Err("some of its tables are gone".to_owned());
    }
    let heard = Heard::read(first, &rows).map_err(|error| said(&error))?;
    let nodes: i64 = first.try_get(7).map_err(|error| said(&error))?;
    distant.set_alone(if nodes == 1 { asked + LEASE_MS } else { 0 });
    heard.apply(distant, applied, region);
    distant.extend_lease(asked + LEASE_MS);
    Ok(())
}

/// What a round has brought.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    incarnation: u64,
    /// The last change that there is, and the last that nobody remembers.
    number: u64,
    pruned: u64,
    /// The changes behind the last one that was applied, each with where copies of it are; none: no copy counts any more.
    hashes: Option<Vec<(u64, u64)>>,
}

impl Heard {
    fn read(first: &Row, rows: &[Row]) -> Result<Heard, tokio_postgres::Error> {
        let number = |column| {
            let number: i64 = first.try_get(column)?;
            Ok::<_, tokio_postgres::Error>(number.cast_unsigned())
        };
        let mut hashes = Some(Vec::new());
        for row in rows {
            let change: Option<i64> = row.try_get(3)?;
            let Some(change) = change else {
                continue;
            };
            let hash: Option<i64> = row.try_get(5)?;
            let is_everything: bool = row.try_get(4)?;
            match (hash, &mut hashes) {
                (Some(hash), Some(hashes)) if !is_everything => {
                    hashes.push((change.cast_unsigned(), hash.cast_unsigned()));
                }
                _ => hashes = None,
            }
        }
        Ok(Heard {
            incarnation: number(0)?,
            number: number(1)?,
            pruned: number(2)?,
            hashes: hashes.filter(|hashes| hashes.len() as i64 <= MOST),
        })
    }

    /// `applied` is what the round asked from.
    fn apply(&self, distant: &Distant, applied: u64, region: &Region) {
        let is_next = self.incarnation == distant.incarnation()
            && (self.pruned..=self.number).contains(&applied);
        match &self.hashes {
            Some(hashes) if is_next => {
                // What a worker has counted itself meanwhile must not undo what it has stored since.
                let counted = distant.applied();
                let others = hashes.iter().filter(|(number, _)| *number > counted);
                others.for_each(|(_, hash)| region.versions().bump(*hash));
            }
            _ => {
                region.versions().bump_epoch();
                if distant.incarnation() != 0 {
                    log::info!(
                        "what was held in memory counts no more: a set was purged, or too much has changed to tell what"
                    );
                }
            }
        }
        // A worker may have counted its own change meanwhile, which is behind these.
        if !is_next || distant.applied() < self.number {
            distant.set_applied(self.incarnation, self.number);
        }
    }
}

/// Tells the database what could not be told before.
async fn pay(client: &Client, region: &Region) -> Result<(), String> {
    let distant = region.distant();
    let owed = distant.owed_since(OWED_MS);
    for owed in owed.chunks(NAMES) {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut hashes: Vec<i64> = Vec::new();
        let mut tickets = Vec::new();
        for one in owed {
            match one {
                Owed::Name(name, hash, ticket) => {
                    names.push(name);
                    hashes.push(hash.cast_signed());
                    tickets.push(*ticket);
                }
                Owed::Everything(ticket) => {
                    let purged = client.query_one("SELECT baton_purge_all()", &[]);
                    changed(&within(purged).await?, 0)?;
                    region.versions().bump_epoch();
                    distant.paid(*ticket);
                }
            }
        }
        if names.is_empty() {
            continue;
        }
        let purge = "SELECT removed, change FROM baton_purge($1, $2)";
        let purged = within(client.query_one(purge, &[&names, &hashes])).await?;
        changed(&purged, 1)?;
        hashes
            .iter()
            .for_each(|hash| region.versions().bump(hash.cast_unsigned()));
        for ticket in tickets {
            distant.paid(ticket);
        }
        log::info!("{} invalidations have been made up for", names.len());
    }
    Ok(())
}

/// A change without a number did not count.
fn changed(row: &Row, column: usize) -> Result<(), String> {
    match row.try_get::<_, i64>(column) {
        Ok(change) if change > 0 => Ok(()),
        Ok(_) => Err("there is no counter".to_owned()),
        Err(error) => Err(said(&error)),
    }
}

/// Moves octets, and says when there is something to be heard.
struct Driver(tokio::task::AbortHandle);

impl Driver {
    fn start(mut line: Line, heard: Rc<Notify>) -> Driver {
        let driver = tokio::task::spawn_local(async move {
            loop {
                let message = std::future::poll_fn(|task| line.poll_message(task)).await;
                match message {
                    Some(Ok(AsyncMessage::Notification(_))) => heard.notify_one(),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => {
                        heard.notify_one();
                        return;
                    }
                }
            }
        });
        Driver(driver.abort_handle())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(number: u64, hashes: &[u64]) -> Heard {
        Heard {
            incarnation: 7,
            number,
            pruned: 0,
            hashes: Some(hashes.iter().map(|hash| (number, *hash)).collect()),
        }
    }

    #[test]
    fn changes_that_follow_move_their_keys_and_a_gap_moves_all() {
        let (region, _fd) = Region::create(1).unwrap();
        let (distant, versions) = (region.distant(), region.versions());
        let state = || (versions.read(1), versions.read(2), distant.applied());
        let (one, two, _) = state();
        heard(5, &[]).apply(distant, 0, &region);
        let first = state();
        assert!(first.0 != one && first.1 != two, "nothing was known before");
        assert_eq!((first.2, distant.incarnation()), (5, 7));
        heard(6, &[1]).apply(distant, 5, &region);
        let second = state();
        assert_eq!(second, (first.0.next(), first.1, 6));
        // Changes are forgotten that this node has not heard of; the database is an older one; it is another one.
        let gap = Heard {
            pruned: 8,
            ..heard(9, &[])
        };
        let older = heard(3, &[]);
        let other = Heard {
            incarnation: 8,
            ..heard(3, &[])
        };
        let much = Heard {
            hashes: None,
            ..heard(4, &[])
        };
        for (n, heard) in [gap, older, other, much].into_iter().enumerate() {
            let before = state();
            heard.apply(distant, before.2, &region);
            let after = state();
            assert!(before.0 != after.0 && before.1 != after.1, "{n}");
            assert_eq!(
                (after.2, distant.incarnation()),
                (heard.number, heard.incarnation),
                "{n}"
            );
        }
    }
}
