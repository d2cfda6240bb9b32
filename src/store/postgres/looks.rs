//! Looks that are under way at the same time share a statement: a plan to start, a snapshot to take and an answer to send cost
//! the database more than to find one object more.
//!
//! None waits for others to come. A look goes at once where its session has fewer than `AT_ONCE` statements under way; those that
//! come meanwhile go together when one of them is answered.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio::sync::{Notify, oneshot};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

/// What a hit runs: this, and `PIECE` for each piece of a larger body. `benches/query.rs` runs the same.
pub const LOOK: &str = "\
    SELECT id, edition, head, pieces, CASE WHEN pieces = 0 AND count(*) OVER () = 1 THEN body END, outdated FROM baton_objects \
    WHERE name = $1 AND generation = (SELECT generation FROM baton_counter WHERE incarnation = $2) ORDER BY stored";
/// The same for several names, each in a subquery of its own: so each is found by the index, whatever the server thinks how
/// many there are.
const LOOKS: &str = "\
    SELECT found.*, asked.place FROM unnest($1::bytea[]) WITH ORDINALITY AS asked (name, place), LATERAL (\
        SELECT id, edition, head, pieces, CASE WHEN pieces = 0 AND count(*) OVER () = 1 THEN body END, outdated FROM baton_objects \
        WHERE name = asked.name AND generation = (SELECT generation FROM baton_counter WHERE incarnation = $2) ORDER BY stored\
    ) AS found";

/// Statements under way in a session. With two the database has the next at hand when it has answered one.
const AT_ONCE: usize = 2;
/// Names in one statement; a body of up to a MiB comes with each.
const MOST: usize = 16;

/// A row as it was found.
pub struct Found {
    pub id: i64,
    pub edition: i32,
    pub head: Vec<u8>,
    pub pieces: i32,
    pub body: Option<Bytes>,
    /// When it was purged softly.
    pub outdated: Option<i64>,
}

/// Those of one session.
#[derive(Default)]
pub struct Looks {
    waiting: RefCell<VecDeque<Look>>,
    more: Notify,
}

struct Look {
    name: [u8; 16],
    incarnation: i64,
    answer: oneshot::Sender<Answer>,
}

/// One error is that of all that were asked for together.
type Answer = Result<Vec<Found>, Rc<Error>>;

#[derive(Clone)]
struct Statements {
    client: Rc<Client>,
    one: Statement,
    several: Statement,
}

impl Looks {
    /// Prepares the statements, and begins to run them. They end with the tasks.
    pub async fn begin(client: &Rc<Client>) -> Result<(Rc<Looks>, Vec<Task>), Error> {
        let (one, several) = tokio::try_join!(client.prepare(LOOK), client.prepare(LOOKS))?;
        let looks = Rc::new(Looks::default());
        let statements = Statements {
            client: client.clone(),
            one,
            several,
        };
        let run = |_| Task::new(looks.clone().run(statements.clone()));
        let tasks = (0..AT_ONCE).map(run).collect();
        Ok((looks, tasks))
    }

    /// What has that name, the newest last.
    pub async fn look(&self, name: [u8; 16], incarnation: u64) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.waiting.borrow_mut().push_back(Look {
            name,
            incarnation: incarnation.cast_signed(),
            answer,
        });
        self.more.notify_one();
        match answered.await {
            Ok(answer) => answer,
            // Nobody is left to say anything: the deadline of whoever asks will.
            Err(_) => std::future::pending().await,
        }
    }

    async fn run(self: Rc<Looks>, statements: Statements) {
        loop {
            let looks = self.next();
            match looks.len() {
                0 => self.more.notified().await,
                _ => statements.run(looks).await,
            }
        }
    }

    /// Some that can share a statement, of those that are still waited for.
    fn next(&self) -> VecDeque<Look> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|look| !look.answer.is_closed());
        let first = waiting.front().map(|look| look.incarnation);
        let is_same = |look: &&Look| Some(look.incarnation) == first;
        let count = waiting.iter().take(MOST).take_while(is_same).count();
        waiting.drain(..count).collect()
    }
}

impl Statements {
    /// Answers all of them.
    async fn run(&self, mut looks: VecDeque<Look>) {
        let done = match looks.len() {
            1 => self.run_one(&mut looks).await,
            _ => self.run_several(&mut looks).await,
        };
        if let Err(error) = done {
            let error = Rc::new(error);
            for look in looks {
                let _ = look.answer.send(Err(error.clone()));
            }
        }
    }

    /// Those that it answers are gone from `looks`; so in the next.
    async fn run_one(&self, looks: &mut VecDeque<Look>) -> Result<(), Error> {
        let Some(look) = looks.front() else {
            return Ok(());
        };
        let parameters: [&(dyn ToSql + Sync); 2] = [&&look.name[..], &look.incarnation];
        let rows = self.client.query(&self.one, &parameters).await?;
        let found = rows
            .into_iter()
            .map(Found::read)
            .collect::<Result<_, _>>()?;
        answer(looks, found);
        Ok(())
    }

    /// Each is answered as soon as the first row of the next is there: none waits for the bodies of those behind it.
    async fn run_several(&self, looks: &mut VecDeque<Look>) -> Result<(), Error> {
        let names: Vec<Vec<u8>> = looks.iter().map(|look| look.name.to_vec()).collect();
        let incarnation = looks.front().map(|look| look.incarnation);
        let parameters: [&(dyn ToSql + Sync); 2] = [&names, &incarnation];
        let rows = self.client.query_raw(&self.several, parameters).await?;
        let mut rows = std::pin::pin!(rows);
        let mut found = Vec::new();
        // Places count from one.
        let mut place = 1;
        while let Some(row) = rows.try_next().await? {
            let of: i64 = row.try_get(6)?;
            while place < of {
                answer(looks, std::mem::take(&mut found));
                place += 1;
            }
            found.push(Found::read(row)?);
        }
        while !looks.is_empty() {
            answer(looks, std::mem::take(&mut found));
        }
        Ok(())
    }
}

/// The first of them.
fn answer(looks: &mut VecDeque<Look>, found: Vec<Found>) {
    if let Some(look) = looks.pop_front() {
        // It may have given up meanwhile.
        let _ = look.answer.send(Ok(found));
    }
}

// === impl Found

impl Found {
    /// From a row whose columns begin with those of `LOOK`.
    pub fn read(row: Row) -> Result<Found, Error> {
        Ok(Found {
            id: row.try_get(0)?,
            edition: row.try_get(1)?,
            head: row.try_get(2)?,
            pieces: row.try_get(3)?,
            outdated: row.try_get(5)?,
            body: octets_of(row, 4)?,
        })
    }
}

/// Octets of a row where they have been read to: they are not copied, and the row stays as long as anybody has them. The
/// driver's buffer around it may be twice as large.
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
