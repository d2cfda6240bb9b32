//! One session with the database: its prepared statements, as functions. SQL that workers speak stands here, in `looks` and in
//! the migrations.

use std::rc::Rc;

use bytes::Bytes;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

use super::looks::{Found, Looks};
use super::rows::InRow;
use super::server::{Server, greet};
use super::tags;
use crate::cache::{Name, Stored};

const HEADS: &str = "\
    SELECT id, edition, head, pieces, NULL::bytea, outdated FROM baton_objects \
    WHERE name = $1 AND generation = (SELECT generation FROM baton_counter WHERE incarnation = $2) ORDER BY stored";
const BODY: &str =
    "SELECT substring(body FROM $2 FOR $3) FROM baton_objects WHERE id = $1 AND pieces = 0";
pub const PIECE: &str = "SELECT substring(octets FROM $3 FOR $4) FROM baton_pieces WHERE object_id = $1 AND number = $2";
const PUT_PIECE: &str = "INSERT INTO baton_pieces (object_id, number, octets) VALUES ($1, $2, $3) \
    ON CONFLICT DO NOTHING";
const ABANDON: &str = "SELECT baton_abandon($1)";
const STORE: &str = "SELECT kept, change FROM baton_store(\
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)";
const REFRESH: &str = "SELECT kept, change, itself FROM baton_refresh(\
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";
const PURGE: &str = "SELECT removed, change FROM baton_purge($1, $2)";
const DISCARD: &str = "SELECT baton_discard($1)";
const USED: &str = "\
    UPDATE baton_objects AS own SET used = clock_timestamp(), hits = hits + times \
    FROM unnest($1::bigint[], $2::bigint[]) AS told (told, times) WHERE id = told";
/// A lease is taken, again if the answer was lost: whether it is ours, and whether something has come into the store of late.
const TAKE: &str = "WITH taken AS (INSERT INTO baton_fetches AS own (name, node, until) \
    VALUES ($1, $2, clock_timestamp() + interval '10 seconds') ON CONFLICT (name) DO UPDATE \
    SET node = excluded.node, until = excluded.until WHERE own.until < clock_timestamp() OR own.node = excluded.node RETURNING 1) \
    SELECT EXISTS (SELECT FROM taken), EXISTS (SELECT FROM baton_objects WHERE name = $1 \
    AND greatest(stored, used) > clock_timestamp() - interval '10 seconds')";
const RENEW: &str = "UPDATE baton_fetches SET until = clock_timestamp() + interval '10 seconds' WHERE name = $1 AND node = $2";
const TAKEN: &str =
    "SELECT EXISTS (SELECT FROM baton_fetches WHERE name = $1 AND until > clock_timestamp())";
const RELEASE: &str = "DELETE FROM baton_fetches WHERE name = $1 AND node = $2";
const WRITABLE: &str =
    "SELECT NOT (pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean)";

/// The statements are few and need the same way each time, also those within functions. Left to itself the server plans some of them
/// anew for each request, as plans for the very values look cheaper: twice the work of a hit.
pub const PLAN_ONCE: &str = "SET plan_cache_mode = force_generic_plan";

/// Octets of a body in one row.
pub const PIECE_SIZE: usize = 1 << 20;

pub struct Session {
    pub client: Rc<Client>,
    looks: Looks,
    heads: Statement,
    body: Statement,
    piece: Statement,
    put_piece: Statement,
    abandon: Statement,
    store: Statement,
    refresh: Statement,
    purge: Statement,
    discard: Statement,
    used: Statement,
    writable: Statement,
    take: Statement,
    renew: Statement,
    taken: Statement,
    release: Statement,
    /// Moves the octets, as long as the session is held.
    _driver: Task,
}

/// What has changed of what nodes know, when something was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub kept: bool,
    /// 0: nothing that anybody could have a copy of.
    pub change: u64,
}

/// Which changes this node knows of.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub incarnation: u64,
    pub applied: u64,
}

/// Something to be stored.
pub struct New<'a> {
    pub id: i64,
    pub name: &'a Name,
    pub hash: u64,
    pub key: &'a [u8],
    pub head: &'a [u8],
    pub stored: &'a Stored,
    pub checksum: u32,
    pub pieces: i32,
    pub body: Option<&'a [u8]>,
    pub replaces: bool,
}

/// Something to be brought up to date.
pub struct Refreshed<'a> {
    pub row: InRow,
    /// Of the variant.
    pub name: &'a Name,
    pub hash: u64,
    pub head: &'a [u8],
    pub old: &'a Stored,
    pub stored: &'a Stored,
}

impl Session {
    pub async fn open(server: &Server) -> Result<Session, Error> {
        let (client, line) = server.connect().await?;
        let client = Rc::new(client);
        let driver = Task::new(async { drop(line.await) });
        greet(&client).await?;
        client.batch_execute(PLAN_ONCE).await?;
        let prepare = |sql: &'static str| client.prepare(sql);
        let looks = Looks::new(&client).await?;
        let (heads, body, piece, put_piece, abandon) = tokio::try_join!(
            prepare(HEADS),
            prepare(BODY),
            prepare(PIECE),
            prepare(PUT_PIECE),
            prepare(ABANDON),
        )?;
        let (store, refresh, purge, discard, used, writable) = tokio::try_join!(
            prepare(STORE),
            prepare(REFRESH),
            prepare(PURGE),
            prepare(DISCARD),
            prepare(USED),
            prepare(WRITABLE),
        )?;
        let (take, renew, taken, release) = tokio::try_join!(
            prepare(TAKE),
            prepare(RENEW),
            prepare(TAKEN),
            prepare(RELEASE)
        )?;
        Ok(Session {
            take,
            renew,
            taken,
            release,
            looks,
            heads,
            body,
            piece,
            put_piece,
            abandon,
            store,
            refresh,
            purge,
            discard,
            used,
            writable,
            _driver: driver,
            client,
        })
    }

    /// Whether a look would go at once.
    pub fn is_idle(&self) -> bool {
        self.looks.is_idle()
    }

    /// What has that name; the body, if that is one object with its body in it. The newest last.
    pub async fn look(&self, name: &Name, incarnation: u64) -> Result<Vec<Found>, Rc<Error>> {
        self.looks.look(name.base, incarnation).await
    }

    pub async fn heads(&self, name: &Name, incarnation: u64) -> Result<Vec<Found>, Error> {
        let incarnation = incarnation.cast_signed();
        let parameters: [&(dyn ToSql + Sync); 2] = [&&name.base[..], &incarnation];
        let rows = self.client.query(&self.heads, &parameters).await?;
        rows.into_iter().map(Found::read).collect()
    }

    /// Octets of a body, `at` within the piece of that number (none: it is with its object). None: it is not there.
    pub async fn octets(
        &self,
        id: i64,
        number: Option<i32>,
        at: usize,
        length: usize,
    ) -> Result<Option<Bytes>, Error> {
        let (from, length) = (i32_of(at) + 1, i32_of(length));
        let row = match number {
            None => {
                self.client
                    .query_opt(&self.body, &[&id, &from, &length])
                    .await?
            }
            Some(number) => {
                let parameters: [&(dyn ToSql + Sync); 4] = [&id, &number, &from, &length];
                self.client.query_opt(&self.piece, &parameters).await?
            }
        };
        row.map_or(Ok(None), |row| octets_of(row, 0))
    }

    pub async fn put_piece(&self, id: i64, number: i32, octets: &[u8]) -> Result<(), Error> {
        let parameters: [&(dyn ToSql + Sync); 3] = [&id, &number, &octets];
        self.client
            .execute(&self.put_piece, &parameters)
            .await
            .map(drop)
    }

    /// Pieces whose object is not there go.
    pub async fn abandon(&self, id: i64) -> Result<(), Error> {
        self.client.execute(&self.abandon, &[&id]).await.map(drop)
    }

    pub async fn store(&self, new: &New<'_>, known: Known) -> Result<Outcome, Error> {
        let stored = new.stored;
        let most = i32_of(crate::store::MAX_VARIANTS);
        let row = self
            .client
            .query_one(
                &self.store,
                &[
                    &new.id,
                    &&new.name.base[..],
                    &new.hash.cast_signed(),
                    &variant(new.name),
                    &new.key,
                    &new.head,
                    &i32::from(stored.status),
                    &stored.body_len.cast_signed(),
                    &i64::from(new.checksum),
                    &stored.part.is_some(),
                    &stored.times.request,
                    &stored.times.response,
                    &expires(stored),
                    &text(stored.etag()),
                    &text(stored.headers.get("last-modified")),
                    &tags::column(&stored.headers),
                    &new.pieces,
                    &new.body,
                    &known.incarnation.cast_signed(),
                    &known.applied.cast_signed(),
                    &new.replaces,
                    &most,
                ],
            )
            .await?;
        outcome(&row)
    }

    pub async fn refresh(
        &self,
        new: &Refreshed<'_>,
        known: Known,
    ) -> Result<(Outcome, bool), Error> {
        let (old, stored) = (new.old, new.stored);
        let tags = tags::column(&stored.headers);
        let parameters: [&(dyn ToSql + Sync); 18] = [
            &new.row.id,
            &new.row.edition,
            &&new.name.base[..],
            &new.hash.cast_signed(),
            &variant(new.name),
            &stored.body_len.cast_signed(),
            &old.times.request,
            &old.times.response,
            &text(old.etag()),
            &new.head,
            &stored.times.request,
            &stored.times.response,
            &expires(stored),
            &text(stored.etag()),
            &text(stored.headers.get("last-modified")),
            &tags,
            &known.incarnation.cast_signed(),
            &known.applied.cast_signed(),
        ];
        let row = self.client.query_one(&self.refresh, &parameters).await?;
        Ok((outcome(&row)?, row.try_get(2)?))
    }

    /// How many objects are gone, and the number of the change; 0: there is no counter, and it did not count.
    pub async fn purge(&self, name: &Name, hash: u64) -> Result<(u64, u64), Error> {
        let (names, hashes) = (vec![&name.base[..]], vec![hash.cast_signed()]);
        let row = self
            .client
            .query_one(&self.purge, &[&names, &hashes])
            .await?;
        Ok((number(&row, 0)?, number(&row, 1)?))
    }

    pub async fn discard(&self, ids: &[i64]) -> Result<(), Error> {
        self.client
            .query_one(&self.discard, &[&ids])
            .await
            .map(drop)
    }

    /// So often each.
    pub async fn used(&self, ids: &[i64], times: &[i64]) -> Result<(), Error> {
        self.client
            .execute(&self.used, &[&ids, &times])
            .await
            .map(drop)
    }

    /// Whether the fetch is ours, and whether it is worth a look in the store before.
    pub async fn take(&self, name: &[u8; 16], node: i64) -> Result<(bool, bool), Error> {
        let row = self
            .client
            .query_one(&self.take, &[&&name[..], &node])
            .await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }

    /// Whether it is still there.
    pub async fn renew(&self, name: &[u8; 16], node: i64) -> Result<bool, Error> {
        let renewed = self
            .client
            .execute(&self.renew, &[&&name[..], &node])
            .await?;
        Ok(renewed > 0)
    }

    pub async fn is_taken(&self, name: &[u8; 16]) -> Result<bool, Error> {
        self.client
            .query_one(&self.taken, &[&&name[..]])
            .await?
            .try_get(0)
    }

    pub async fn release(&self, name: &[u8; 16], node: i64) -> Result<(), Error> {
        self.client
            .execute(&self.release, &[&&name[..], &node])
            .await
            .map(drop)
    }

    pub async fn is_writable(&self) -> Result<bool, Error> {
        self.client.query_one(&self.writable, &[]).await?.try_get(0)
    }
}

/// Ends when it is dropped.
pub struct Task(tokio::task::AbortHandle);

impl Task {
    pub fn new(work: impl Future<Output = ()> + 'static) -> Task {
        Task(tokio::task::spawn_local(work).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn variant(name: &Name) -> &[u8] {
    match name.is_base() {
        true => &[],
        false => &name.variant,
    }
}

fn outcome(row: &Row) -> Result<Outcome, Error> {
    Ok(Outcome {
        kept: row.try_get(0)?,
        change: number(row, 1)?,
    })
}

/// Octets of a row where they have been read to: they are not copied, and the row stays as long as anybody has them, with
/// what the driver has read into the same buffer.
struct Column(Row, usize);

impl AsRef<[u8]> for Column {
    fn as_ref(&self) -> &[u8] {
        self.0.try_get(self.1).unwrap_or_default()
    }
}

pub fn octets_of(row: Row, column: usize) -> Result<Option<Bytes>, Error> {
    let is_there = row.try_get::<_, Option<&[u8]>>(column)?.is_some();
    Ok(is_there.then(|| Bytes::from_owner(Column(row, column))))
}

fn number(row: &Row, column: usize) -> Result<u64, Error> {
    let number: Option<i64> = row.try_get(column)?;
    Ok(number.unwrap_or_default().cast_unsigned())
}

/// Times that PostgreSQL knows end long after, and begin long before those that responses give.
fn expires(stored: &Stored) -> i64 {
    let at = stored.times.response;
    (at + stored.remaining(at)).clamp(-62_000_000_000, 253_402_300_799)
}

fn text(value: Option<&[u8]>) -> Option<String> {
    value.map(|value| String::from_utf8_lossy(value).replace('\0', ""))
}

fn i32_of(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
