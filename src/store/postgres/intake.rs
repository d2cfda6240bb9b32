//! Storing from outside a worker, as an import does: one session, one response after the other, no memory over it, and
//! each call waits.

use std::time::{Duration, Instant};

use tokio::runtime::LocalRuntime;
use tokio_postgres::Error;

use super::name_of;
use super::rows;
use super::server::Server;
use super::session::{Known, New, Session};
use crate::cache::{Stored, key};

const KNOWN: &str = "SELECT incarnation, number FROM baton_counter";
/// How long a change that comes meanwhile keeps out what is of before: for as long as that is remembered, and no longer.
const KNOWN_FOR: Duration = Duration::from_secs(60);
const ANSWERED: &str = "SELECT answered FROM baton_objects WHERE name = $1 AND variant = $2 \
    AND generation = (SELECT generation FROM baton_counter)";

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
    pub replaces: bool,
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
    pub fn open(runtime: LocalRuntime, server: &Server) -> Result<Intake, Error> {
        let session = runtime.block_on(Session::open(server))?;
        Ok(Intake {
            session,
            known: None,
            runtime,
        })
    }

    /// What is there in whose place a response would come.
    pub fn present(&self, key: &[u8], stored: &Stored) -> Result<Present, Error> {
        let name = name_of(key, stored);
        let variant: &[u8] = match name.is_base() {
            true => &[],
            false => &name.variant,
        };
        let client = &self.session.client;
        let row = self.runtime.block_on(async {
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
    pub fn put_piece(&self, id: i64, number: i32, octets: &[u8]) -> Result<(), Error> {
        self.runtime
            .block_on(self.session.put_piece(id, number, octets))
    }

    /// Makes a response visible. False: what is there has changed meanwhile, or is all of what this is a part of.
    pub fn store(&mut self, whole: Whole<'_>) -> Result<bool, Error> {
        let Whole {
            id, key, stored, ..
        } = whole;
        self.known.take_if(|(_, read)| read.elapsed() > KNOWN_FOR);
        let known = match self.known {
            Some((known, _)) => known,
            None => self.runtime.block_on(known(&self.session))?,
        };
        self.known.get_or_insert((known, Instant::now()));
        let name = name_of(key, stored);
        let head = rows::encode(key, id, stored, whole.checksums);
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
            replaces: whole.replaces,
        };
        let outcome = self.runtime.block_on(self.session.store(&new, known))?;
        if outcome.change > 0 {
            // Our own change keeps nothing out.
            self.known = None;
        }
        Ok(outcome.kept)
    }

    /// Its rest will not come.
    pub fn abandon(&self, id: i64) -> Result<(), Error> {
        self.runtime.block_on(self.session.abandon(id))
    }
}

async fn known(session: &Session) -> Result<Known, Error> {
    let row = session.client.query_one(KNOWN, &[]).await?;
    let (incarnation, number): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Known {
        incarnation: incarnation.cast_unsigned(),
        applied: number.cast_unsigned(),
    })
}
