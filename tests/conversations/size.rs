//! A cache directory with very many objects: 10⁵, or as many as `BATON_TEST_OBJECTS` says.

use std::path::Path;
use std::time::{Duration, Instant};

use baton::cache::{Name, Policy, Stored, Times};
use baton::http::{Headers, RequestHead, ResponseHead};
use baton::store::disk::format::{Body, Content, Head, Kept, checksums};
use baton::store::disk::place::Place;
use baton::sys::files::write_at;

use crate::support::baton::children;
use crate::support::{Baton, Client, DEADLINE, Origin};

/// Octets of user memory an object, over all processes.
const MEMORY: u64 = 200;
/// Hits in a row of one run, before the other has its turn.
const HITS: usize = 200;
const TURNS: usize = 20;

fn objects() -> usize {
    let wanted = std::env::var("BATON_TEST_OBJECTS");
    wanted.map_or(100_000, |number| number.parse().unwrap())
}

/// Writes objects as a worker does, `/0` to `/COUNT`.
fn fill(cache: &Path, count: usize) {
    let place = Place::prepare(cache).unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64;
    let times = Times {
        request: now,
        response: now,
    };
    let headers: Headers = [
        ("Cache-Control", "max-age=86400"),
        ("Content-Type", "text/plain"),
    ]
    .into_iter()
    .collect();
    let response = ResponseHead {
        reason: b"OK".to_vec(),
        headers,
        ..ResponseHead::new()
    };
    let stored = Stored::new(&RequestHead::new(), &response, times, &Policy::default());
    for n in 0..count {
        let key = format!("reverse http://a.example/{n}").into_bytes();
        let body = format!("object {n}");
        let mut stored = stored.clone();
        stored.body_len = body.len() as u64;
        let name = Name::of(&key);
        let sums = checksums(body.as_bytes());
        let head = Head {
            key,
            generation: 1 << 32,
            content: Content::Object(Box::new(Kept::new(stored, None, Body::Inline, sums))),
        };
        let mut octets = Vec::new();
        head.encode(&mut octets);
        octets.extend_from_slice(body.as_bytes());
        let file = place.create_aside("test").unwrap();
        write_at(std::os::fd::AsFd::as_fd(&file), &octets, 0).unwrap();
        let turn = place.turn_to_put(name.directory()).unwrap().unwrap();
        place.publish(&turn, "test", &name, None).unwrap();
    }
}

/// Octets in user space that the processes share with nobody.
fn memory(baton: &Baton) -> u64 {
    let processes = [vec![baton.master()], children(baton.master())].concat();
    let private = |pid: i32| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let lines = text
            .lines()
            .filter(|line| line.starts_with("Private_") || line.starts_with("Shared_Dirty"));
        lines
            .map(|line| {
                line.split_whitespace()
                    .nth(1)
                    .unwrap()
                    .parse::<u64>()
                    .unwrap()
                    * 1024
            })
            .sum()
    };
    processes.into_iter().map(private).sum()
}

/// An instance over so many objects, which it knows all.
struct Run {
    count: usize,
    client: Client,
    /// From exec to the first hit.
    started: Duration,
    memory: u64,
    _baton: Baton,
    /// Of hits, in nanoseconds.
    took: Vec<u128>,
}

impl Run {
    fn start(origin: &Origin, cache: &Path, count: usize) -> Run {
        fill(cache, count);
        let flag = format!("dir:{}", cache.display());
        // Nothing is at hand: each hit is looked up among all.
        let flags = [
            "--cache",
            &flag,
            "--workers",
            "1",
            "--set",
            "cache.memory=0",
            "--set",
            "cache.open_files=0",
        ];
        let began = Instant::now();
        let baton = Baton::reverse(origin.address(), &flags);
        let mut client = baton.client();
        let first = client.get(&format!("/{}", count / 2));
        let started = began.elapsed();
        assert!(first.is_hit(), "{}", first.head);
        knows_all(&baton, count);
        let memory = memory(&baton);
        Run {
            count,
            client,
            started,
            memory,
            _baton: baton,
            took: Vec::new(),
        }
    }

    /// One hit of those that are all over the directory.
    fn hit(&mut self, n: usize) {
        let number = (n * 7919) % self.count;
        let began = Instant::now();
        let response = self.client.get(&format!("/{number}"));
        self.took.push(began.elapsed().as_nanos());
        assert!(
            response.is_hit() && response.text() == format!("object {number}"),
            "{}",
            response.head
        );
    }

    fn median(&mut self) -> u128 {
        self.took.sort_unstable();
        self.took[self.took.len() / 2]
    }
}

fn knows_all(baton: &Baton, count: usize) {
    // It reads some 40,000 a second.
    for _ in 0..=count / 200_000 {
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            if baton
                .log("janitor.log")
                .contains(&format!(" {count} objects"))
            {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
    panic!(
        "the janitor does not know every object:\n{}",
        baton.log("janitor.log")
    );
}

#[test]
fn many_objects_cost_neither_time_nor_memory() {
    // Files in memory where there is such a place: it is the number that counts.
    let shm = Path::new("/dev/shm");
    let place = if shm.is_dir() {
        shm.to_owned()
    } else {
        std::env::temp_dir()
    };
    let temporary = tempfile::tempdir_in(place).unwrap();
    let origin = Origin::start(|_| Vec::new());
    let [mut few, mut many] = [1000, objects()]
        .map(|count| Run::start(&origin, &temporary.path().join(count.to_string()), count));
    // By turns, so that what else this machine does slows both.
    for turn in 0..TURNS {
        for run in [&mut few, &mut many] {
            (turn * HITS..(turn + 1) * HITS).for_each(|n| run.hit(n));
        }
    }
    let each = many.memory.saturating_sub(few.memory) / (many.count - few.count) as u64;
    for run in [&mut few, &mut many] {
        let median = run.median();
        println!(
            "{} objects: first hit after {:?}, a hit {median} ns, {} octets of memory",
            run.count, run.started, run.memory,
        );
    }
    println!("{each} octets an object");
    assert!(each < MEMORY, "{each} octets of memory an object");
}
