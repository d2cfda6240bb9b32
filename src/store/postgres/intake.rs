//! Storing from outside a worker, as an import does: one session, one response after the other, no memory over it, and
//! each call waits.

use std::time::{Duration, Instant};

use tokio::runtime::LocalRuntime;
use tokio::time::timeout;

use super::rows;
use super::server::Server;
use super::session::{Known, New, Session};
use super::trouble::said;
use crate::cache::{Stored, key};

const KNOWN: &str = "SELECT incarnation, number FROM baton_counter";
/// How long a change that comes meanwhile keeps out what is of before: for as long as that is remembered, and no longer.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// How long an answer may take: longer than the server lets any statement take.
const PATIENCE: Duration = Duration::from_secs(20);
const ANSWERED: &str = "SELECT answered FROM baton_objects WHERE name = $1 AND variant = $2 \
    AND generation = (SELECT generation FROM baton_counter)";

#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    #[error("the database fails: {}", said(.0))]
    Database(tokio_postgres::Error),
    #[error("the database has not answered for {PATIENCE:?}")]
    Silent,
}

/// What it says is said already: as a source it would be said once more.
impl From<tokio_postgres::Error> for IntakeError {
    fn from(error: tokio_postgres::Error) -> IntakeError {
        IntakeError::Database(error)
    }
}

pub struct Intake {
    session: Session,
    /// With when it was read. None: it is to be read again.
    known: Option<(Known, Instant)>,
    runtime: LocalRuntime,
}

/// A response whose body has come: that is here, or `pieces` have it.
pub struct Whole<'a> {
    pub id: i64,
    pub key: &'a [u8],
    pub stored: &'a Stored,
    pub pieces: i32,
    pub body: Option<&'a [u8]>,
    pub checksums: Vec<u32>,
    /// Of the whole body.
    pub checksum: u32,
}

/// What is kept under a key, for the same requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Present {
    Nothing,
    Older,
    Newer,
}

impl Intake {
    /// Errors: the database cannot be reached, or has no tables.
    pub fn open(runtime: LocalRuntime, server: &Server) -> Result<Intake, IntakeError> {
        let session = wait(&runtime, Session::open(server))?;
        Ok(Intake {
            session,
            known: None,
            runtime,
        })
    }

    /// What is there in whose place a response would come.
    pub fn present(&self, key: &[u8], stored: &Stored) -> Result<Present, IntakeError> {
        let name = stored.name(key);
        let variant: &[u8] = match name.is_base() {
            true => &[],
            false => &name.variant,
        };
        let client = &self.session.client;
        let row = wait(&self.runtime, async {
            client
                .query_opt(ANSWERED, &[&&name.base[..], &variant])
                .await
        });
        Ok(match row? {
            None => Present::Nothing,
            Some(row) if row.try_get::<_, i64>(0)? >= stored.times.response => Present::Newer,
            Some(_) => Present::Older,
        })
    }

    /// A MiB of a body, or its rest.
    pub fn put_piece(&self, id: i64, number: i32, octets: &[u8]) -> Result<(), IntakeError> {
        wait(&self.runtime, self.session.put_piece(id, number, octets))
    }

    /// Makes a response visible. False: what is there is newer, or all of what this is a part of.
    pub fn store(&mut self, whole: &Whole<'_>) -> Result<bool, IntakeError> {
        // A purge of something else refuses it as well, once.
        for _ in 0..2 {
            let replaces = match self.present(whole.key, whole.stored)? {
                Present::Newer => return Ok(false),
                Present::Older => true,
                Present::Nothing => false,
            };
            if self.try_store(whole, replaces)? {
                return Ok(true);
            }
            self.known = None;
        }
        Ok(false)
    }

    fn try_store(&mut self, whole: &Whole<'_>, replaces: bool) -> Result<bool, IntakeError> {
        let Whole {
            id, key, stored, ..
        } = *whole;
        self.known.take_if(|(_, read)| read.elapsed() > KNOWN_FOR);
        let known = match self.known {
            Some((known, _)) => known,
            None => wait(&self.runtime, known(&self.session))?,
        };
        self.known.get_or_insert((known, Instant::now()));
        let name = stored.name(key);
        let head = rows::encode(key, id, stored, whole.checksums.clone());
        let new = New {
            id,
            name: &name,
            hash: key::hash(key),
            key,
            head: &head,
            stored,
            checksum: whole.checksum,
            pieces: whole.pieces,
            body: whole.body,
            replaces,
        };
        let outcome = wait(&self.runtime, self.session.store(&new, known))?;
        if outcome.change > 0 {
            // Our own change keeps nothing out.
            self.known = None;
        }
        Ok(outcome.kept)
    }

    /// Its rest will not come.
    pub fn abandon(&self, id: i64) -> Result<(), IntakeError> {
        wait(&self.runtime, self.session.abandon(id))
    }
}

fn wait<T>(
    runtime: &LocalRuntime,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, IntakeError> {
    let within = runtime.block_on(async { timeout(PATIENCE, work).await });
    Ok(within.map_err(|_| IntakeError::Silent)??)
}

async fn known(session: &Session) -> Result<Known, tokio_postgres::Error> {
    let row = session.client.query_one(KNOWN, &[]).await?;
    let (incarnation, number): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Known {
        incarnation: incarnation.cast_unsigned(),
        applied: number.cast_unsigned(),
    })
}
