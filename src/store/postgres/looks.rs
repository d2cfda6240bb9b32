//! Looks that are under way at the same time share a statement: a plan to start, a snapshot to take and an answer to send cost
//! the database more than to find one object more.
//!
//! None waits for others to come. A look goes at once where its session has none under way; those that come meanwhile go
//! together when that is answered, or as soon as they fill a statement: a database that is far away is not waited for.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio::sync::{Notify, oneshot};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

use super::session::{Task, octets_of};

/// All that has a name, the newest last; the body, where that is one object with its body in it.
macro_rules! with_name {
    ($name:literal) => {
        concat!(
            "SELECT id, edition, head, pieces, CASE WHEN pieces = 0 AND count(*) OVER () = 1 THEN body END AS body, outdated, \
             count(*) OVER () AS objects FROM baton_objects WHERE name = ",
            $name,
            " AND generation = (SELECT generation FROM baton_counter WHERE incarnation = $2) ORDER BY stored"
        )
    };
}

/// What a hit runs: this, and `PIECE` for each piece of a larger body. `benches/query.rs` runs the same.
pub const LOOK: &str = with_name!("$1");
/// The same for each of several names, in their order. A subquery for each is what makes the server look each up in the index, even where
/// it has planned this while there was nothing in the table.
pub const SEVERAL: &str = concat!(
    "SELECT found.*, asked.place FROM unnest($1::bytea[]) WITH ORDINALITY AS asked (name, place), LATERAL (",
    with_name!("asked.name"),
    ") AS found ORDER BY asked.place"
);

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
pub struct Looks {
    queue: Rc<Queue>,
    _task: Task,
}

#[derive(Default)]
struct Queue {
    waiting: RefCell<VecDeque<Look>>,
    /// Statements that are not answered.
    under_way: Cell<usize>,
    more: Notify,
}

struct Look {
    name: [u8; 16],
    incarnation: i64,
    answer: oneshot::Sender<Answer>,
}

/// Those that were asked for together fail together.
type Answer = Result<Vec<Found>, Rc<Error>>;

struct Statements {
    client: Rc<Client>,
    one: Statement,
    several: Statement,
}

impl Looks {
    /// Prepares the statements. They run as long as this is held.
    pub async fn new(client: &Rc<Client>) -> Result<Looks, Error> {
        let (one, several) = tokio::try_join!(client.prepare(LOOK), client.prepare(SEVERAL))?;
        let statements = Statements {
            client: client.clone(),
            one,
            several,
        };
        let queue = Rc::new(Queue::default());
        let task = Task::new(run(queue.clone(), Rc::new(statements)));
        Ok(Looks { queue, _task: task })
    }

    /// Whether a look would go at once.
    pub fn is_idle(&self) -> bool {
        self.queue.under_way.get() == 0 && self.queue.waiting.borrow().is_empty()
    }

    /// What has that name, the newest last.
    pub async fn look(&self, name: [u8; 16], incarnation: u64) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.queue.waiting.borrow_mut().push_back(Look {
            name,
            incarnation: incarnation.cast_signed(),
            answer,
        });
        self.queue.more.notify_one();
        match answered.await {
            Ok(answer) => answer,
            // Its task has panicked. Whoever asks has a deadline, and what misses it is connected anew.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Statements that are under way end by themselves, at the latest with their connection.
async fn run(queue: Rc<Queue>, statements: Rc<Statements>) {
    loop {
        while let Some(looks) = queue.next() {
            let (queue, statements) = (queue.clone(), statements.clone());
            tokio::task::spawn_local(async move {
                statements.answer(looks).await;
                queue.under_way.set(queue.under_way.get() - 1);
                queue.more.notify_one();
            });
        }
        queue.more.notified().await;
    }
}

impl Queue {
    /// Those of the next statement, if it is time for it. Whoever has given up meanwhile is not asked for.
    fn next(&self) -> Option<VecDeque<Look>> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|look| !look.answer.is_closed());
        if waiting.len() < MOST && self.under_way.get() > 0 {
            return None;
        }
        // Where that differs, the database has begun anew between them.
        let incarnation = waiting.front()?.incarnation;
        let is_same = |look: &&Look| look.incarnation == incarnation;
        let count = waiting.iter().take(MOST).take_while(is_same).count();
        self.under_way.set(self.under_way.get() + 1);
        Some(waiting.drain(..count).collect())
    }
}

impl Statements {
    async fn answer(&self, mut looks: VecDeque<Look>) {
        let done = match looks.len() {
            1 => self.look(&mut looks).await,
            _ => self.look_for_several(&mut looks).await,
        };
        if let Err(error) = done {
            let error = Rc::new(error);
            for look in looks {
                let _ = look.answer.send(Err(error.clone()));
            }
        }
    }

    /// Takes those that it has answered out of `looks`, as the next.
    async fn look(&self, looks: &mut VecDeque<Look>) -> Result<(), Error> {
        let look = &looks[0];
        let parameters: [&(dyn ToSql + Sync); 2] = [&&look.name[..], &look.incarnation];
        let rows = self.client.query(&self.one, &parameters).await?;
        let found = rows
            .into_iter()
            .map(Found::read)
            .collect::<Result<_, _>>()?;
        answer_first(looks, found);
        Ok(())
    }

    /// Each is answered with its last row: nobody waits for the bodies of those behind.
    async fn look_for_several(&self, looks: &mut VecDeque<Look>) -> Result<(), Error> {
        let rows = {
            let names: Vec<&[u8]> = looks.iter().map(|look| &look.name[..]).collect();
            let parameters: [&(dyn ToSql + Sync); 2] = [&names, &looks[0].incarnation];
            self.client.query_raw(&self.several, parameters).await?
        };
        let mut rows = std::pin::pin!(rows);
        let mut found = Vec::new();
        // Of the first look that is not answered. Places count from one.
        let mut place = 1;
        while let Some(row) = rows.try_next().await? {
            let (objects, of): (i64, i64) = (row.try_get(6)?, row.try_get(7)?);
            // Of those before there was nothing.
            while place < of {
                answer_first(looks, Vec::new());
                place += 1;
            }
            found.push(Found::read(row)?);
            if found.len() as i64 == objects {
                answer_first(looks, std::mem::take(&mut found));
                place += 1;
            }
        }
        while !looks.is_empty() {
            answer_first(looks, Vec::new());
        }
        Ok(())
    }
}

fn answer_first(looks: &mut VecDeque<Look>, found: Vec<Found>) {
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
