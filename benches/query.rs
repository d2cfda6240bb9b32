//! What a hit costs without a proxy: the statements that a worker runs for one that is alone, over as many sessions as it reads by, and
//! nothing done with what they give. (A worker asks for several in one statement where several are under way.) `scripts/bench` measures baton over PostgreSQL against it, and has it fill a database.
//!
//! Usage: `query run URL KEY FLIGHTS SECONDS` waits for a line on its standard input, keeps so many hits in flight, and
//! prints how many there were and the processor time it has used for them; then it waits again, connected.
//! `query fill URL KEY FROM TO` copies the object stored under KEY so often: the name of each ends in a slash and its number.

use std::cell::Cell;
use std::io::BufRead;
use std::rc::Rc;
use std::time::{Duration, Instant};

use baton::cache::{Name, key};
use baton::store::disk::format::{Content, Head};
use baton::store::postgres::server::greet;
use baton::store::postgres::{LOOK, PIECE, PIECE_SIZE, PLAN_ONCE, decode};
use nix::sys::resource::{UsageWho, getrusage};
use tokio_postgres::{Client, NoTls, Statement};

type Failure = Box<dyn std::error::Error>;

/// Of the four that a worker opens by default, one is for writing.
const READERS: usize = 3;
/// Rows of one statement that fills.
const AT_ONCE: usize = 1000;

const USAGE: &str = "usage: query run URL KEY FLIGHTS SECONDS | query fill URL KEY FROM TO (started by scripts/bench)";

/// Everything but what is an object's own comes from the one that is copied.
const COPY: &str = "\
    INSERT INTO baton_objects (id, name, variant, generation, key, head, status, length, size, checksum, part, asked, answered, \
        stored, expires, used, etag, last_modified, tags, pieces, body) \
    SELECT own.id, own.name, variant, generation, own.key, own.head, status, length, size, checksum, part, asked, answered, \
        stored, expires, used, etag, last_modified, tags, pieces, body \
    FROM baton_objects AS one, unnest($2::bigint[], $3::bytea[], $4::bytea[], $5::bytea[]) AS own (id, name, key, head) \
    WHERE one.name = $1";

struct Session {
    client: Client,
    look: Statement,
    piece: Statement,
}

fn main() -> Result<(), Failure> {
    // cargo adds an option of its own when it runs a benchmark.
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())?;
    match words[..] {
        ["run", url, key, flights, seconds] => {
            runtime.block_on(run(url, key, flights.parse()?, seconds.parse()?))
        }
        ["fill", url, key, from, to] => {
            runtime.block_on(fill(url, key, from.parse()?, to.parse()?))
        }
        _ => {
            eprintln!("{USAGE}");
            Ok(())
        }
    }
}

async fn connect(url: &str) -> Result<Client, Failure> {
    let (client, line) = tokio_postgres::connect(url, NoTls).await?;
    tokio::task::spawn_local(line);
    greet(&client).await?;
    client.batch_execute(PLAN_ONCE).await?;
    Ok(client)
}

// === run

async fn run(url: &str, key: &str, flights: usize, seconds: u64) -> Result<(), Failure> {
    let mut sessions = Vec::new();
    for _ in 0..READERS {
        let client = connect(url).await?;
        let look = client.prepare(LOOK).await?;
        let piece = client.prepare(PIECE).await?;
        sessions.push(Rc::new(Session {
            client,
            look,
            piece,
        }));
    }
    let row = "SELECT incarnation FROM baton_counter";
    let incarnation: i64 = sessions[0].client.query_one(row, &[]).await?.get(0);
    let name = Name::of(key.as_bytes()).base;
    let row = "SELECT length FROM baton_objects WHERE name = $1";
    let length: i64 = sessions[0]
        .client
        .query_one(row, &[&&name[..]])
        .await?
        .get(0);

    println!("ready");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let (used, began) = (processor_time()?, Instant::now());
    let until = began + Duration::from_secs(seconds);
    let (octets, next) = (Rc::new(Cell::new(0u64)), Rc::new(Cell::new(0)));
    let flights = (0..flights).map(|_| {
        let (sessions, octets, next) = (sessions.clone(), octets.clone(), next.clone());
        tokio::task::spawn_local(async move {
            let choose = || {
                next.set(next.get() + 1);
                sessions[next.get() % READERS].clone()
            };
            while Instant::now() < until {
                hit(&choose, &name, incarnation, &octets).await?;
            }
            Ok::<(), tokio_postgres::Error>(())
        })
    });
    for flight in flights.collect::<Vec<_>>() {
        flight.await??;
    }
    // By the octets, as those of a large body that is under way count for their part, here as with wrk.
    let hits = octets.get() as f64 / length as f64;
    let took = began.elapsed().as_secs_f64();
    println!(
        "{hits} hits {took} seconds {} used",
        processor_time()? - used
    );
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(())
}

/// The object, and its pieces where it has some: the next is asked for before the last is there.
async fn hit(
    choose: &impl Fn() -> Rc<Session>,
    name: &[u8; 16],
    incarnation: i64,
    octets: &Cell<u64>,
) -> Result<(), tokio_postgres::Error> {
    let session = choose();
    let found = session
        .client
        .query_one(&session.look, &[&&name[..], &incarnation])
        .await?;
    let (id, pieces): (i64, i32) = (found.try_get(0)?, found.try_get(3)?);
    let body: Option<&[u8]> = found.try_get(4)?;
    octets.set(octets.get() + body.map_or(0, <[u8]>::len) as u64);
    let read = |number: i32| {
        let session = choose();
        tokio::task::spawn_local(async move {
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                [&id, &number, &1i32, &(PIECE_SIZE as i32)];
            session.client.query_one(&session.piece, &parameters).await
        })
    };
    let mut ahead = (pieces > 0).then(|| read(0));
    for number in 1..=pieces {
        let Some(piece) = ahead.take() else { break };
        let row = piece.await.expect("nobody ends it")?;
        ahead = (number < pieces).then(|| read(number));
        octets.set(octets.get() + row.try_get::<_, &[u8]>(0)?.len() as u64);
    }
    Ok(())
}

/// User and system time of this process, in seconds.
fn processor_time() -> nix::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

// === fill

async fn fill(url: &str, key: &str, from: usize, to: usize) -> Result<(), Failure> {
    let client = connect(url).await?;
    let copy = client.prepare(COPY).await?;
    let one = Name::of(key.as_bytes()).base;
    let row = "SELECT head FROM baton_objects WHERE name = $1";
    let head: Vec<u8> = client.query_one(row, &[&&one[..]]).await?.get(0);
    let kept = decode(key.as_bytes(), &head).map_err(|error| format!("its head: {error}"))?;
    let mut number = from;
    while number < to {
        let (mut ids, mut names, mut keys, mut heads) = (vec![], vec![], vec![], vec![]);
        for number in number..to.min(number + AT_ONCE) {
            let key = format!("{key}/{number}").into_bytes();
            let mut head = Vec::new();
            let content = Content::Object(Box::new(kept.clone()));
            Head {
                key: key.clone(),
                generation: 0,
                content,
            }
            .encode(&mut head);
            // As those that baton chooses: anywhere.
            ids.push((key::hash(&key) >> 1).cast_signed());
            names.push(Name::of(&key).base.to_vec());
            keys.push(key);
            heads.push(head);
        }
        client
            .execute(&copy, &[&&one[..], &ids, &names, &keys, &heads])
            .await?;
        number += AT_ONCE;
    }
    Ok(())
}
