use super::*;
use crate::config::{Postgres, Secret, Tls};
use crate::shared::Region;
use crate::store::postgres::schema;
use crate::store::postgres::server::Server;
use crate::store::postgres::tests::server;

/// A schema with baton's tables, and a session to look into it.
struct World {
    ground: Ground,
    sql: postgres::Client,
}

impl World {
    fn new(schema: &str, max_size: u64) -> World {
        let settings = Postgres {
            url: Secret::new(server().url_of_schema(schema)),
            password: None,
            password_file: None,
            connections: 2,
            tls: Tls::Auto,
            ca_file: None,
            logged: false,
            deadline: Duration::from_secs(5),
        };
        let own = Server::new(&settings, "test").unwrap();
        schema::migrate(&own, &settings).unwrap();
        let sql = own.connect_blocking().unwrap();
        let ground = Ground {
            server: own,
            settings,
            region: Region::create(1).unwrap().0,
            max_size,
        };
        World { ground, sql }
    }

    fn soon(&mut self, mut check: impl FnMut(&mut World) -> bool) {
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while !check(self) {
            assert!(std::time::Instant::now() < until, "not within 20 s");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn execute(&mut self, sql: &str) {
        self.sql.batch_execute(sql).unwrap();
    }

    fn number(&mut self, sql: &str) -> i64 {
        self.sql.query_one(sql, &[]).unwrap().get(0)
    }

    /// Numbers, in their order.
    fn numbers(&mut self, sql: &str) -> Vec<i64> {
        let rows = self.sql.query(sql, &[]).unwrap();
        let mut numbers: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Objects of the present generation with these numbers, of 1,000 octets each; the first ones were used last.
    fn objects(&mut self, from: i64, to: i64, pieces: i32) {
        self.execute(&format!(
            "INSERT INTO baton_objects (id, name, variant, generation, key, head, status, length, size, checksum, part, asked, \
             answered, expires, used, pieces) \
             SELECT n, int8send(n), '', (SELECT generation FROM baton_counter), '', '', 200, 0, 1000, 0, false, 0, 0, \
             clock_timestamp(), clock_timestamp() - n * interval '1 minute', {pieces} FROM generate_series({from}, {to}) n"
        ));
    }

    /// A piece of a body, that old.
    fn piece(&mut self, object: i64, age: &str) {
        self.execute(&format!(
            "INSERT INTO baton_pieces (object_id, number, at, octets) \
             VALUES ({object}, 0, clock_timestamp() - interval '{age}', 'x')"
        ));
    }

    fn orphan(&mut self, object: i64, age: &str) {
        self.execute(&format!(
            "INSERT INTO baton_orphans VALUES ({object}, clock_timestamp() - interval '{age}')"
        ));
    }

    fn run<'a, F: Future<Output = Result<(), Error>>>(
        &'a self,
        work: impl FnOnce(&'a Ground) -> F,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(Default::default())
            .unwrap();
        runtime.block_on(work(&self.ground)).unwrap();
    }

    fn tidy(&self) {
        self.run(|ground| async move {
            let (client, line) = ground.server.connect().await?;
            let driver = tokio::task::spawn_local(line);
            greet(&client).await?;
            tidy(&client, ground).await?;
            drop(client);
            let _ = driver.await;
            Ok(())
        });
    }

    fn counted(&self, counter: Counter) -> u64 {
        self.ground.region.janitor_counters().value(counter)
    }
}

const OBJECTS: &str = "SELECT id FROM baton_objects";
const PIECES: &str = "SELECT object_id FROM baton_pieces";
const ORPHANED: &str = "SELECT object_id FROM baton_orphans";

#[test]
fn objects_of_before_a_purge_of_everything_go_however_many() {
    let mut world = World::new("tidy_dead", 0);
    world.objects(1, 2300, 0);
    world.objects(2301, 2302, 1);
    world.piece(2301, "1 minute");
    world.execute("SELECT baton_purge_all()");
    world.objects(3001, 3002, 0);
    world.tidy();
    assert_eq!(world.numbers(OBJECTS), [3001, 3002]);
    assert_eq!(world.counted(Counter::CacheSwept), 2302);
    // Somebody may be reading these.
    assert_eq!(world.numbers(ORPHANED), [2301, 2302]);
    assert_eq!(world.numbers(PIECES), [2301]);
    world.tidy();
    assert_eq!(world.numbers(OBJECTS), [3001, 3002]);
    assert_eq!(world.counted(Counter::CacheSwept), 2302);
}

#[test]
fn bodies_go_ten_minutes_after_their_object_also_where_some_have_none() {
    let mut world = World::new("tidy_orphans", 0);
    world.orphan(1, "9 minutes");
    world.piece(1, "20 minutes");
    // More than go at a time, and before the one that has a body.
    world.execute(
        "INSERT INTO baton_orphans SELECT n, clock_timestamp() - interval '11 minutes' FROM generate_series(2, 249) n",
    );
    world.orphan(250, "11 minutes");
    world.piece(250, "20 minutes");
    // It was stored once more under its number.
    world.objects(300, 300, 1);
    world.orphan(300, "11 minutes");
    world.piece(300, "20 minutes");
    world.tidy();
    assert_eq!(world.numbers(ORPHANED), [1]);
    assert_eq!(world.numbers(PIECES), [1, 300]);
}

#[test]
fn a_body_whose_object_never_came_goes_after_a_day() {
    let mut world = World::new("tidy_lost", 0);
    world.objects(1, 1, 1);
    world.orphan(2, "1 minute");
    for object in [1, 2, 3] {
        world.piece(object, "25 hours");
    }
    // It may still be being stored.
    world.piece(4, "23 hours");
    world.tidy();
    assert_eq!(world.numbers(PIECES), [1, 2, 4]);
}

#[test]
fn changes_are_forgotten_after_an_hour_and_it_is_known_up_to_which() {
    let mut world = World::new("tidy_changes", 0);
    world.execute(
        "INSERT INTO baton_changes (number, at) VALUES (1, clock_timestamp() - interval '62 minutes'), \
         (2, clock_timestamp() - interval '61 minutes'), (3, clock_timestamp() - interval '59 minutes'); \
         UPDATE baton_counter SET number = 3",
    );
    world.tidy();
    assert_eq!(world.numbers("SELECT number FROM baton_changes"), [3]);
    assert_eq!(world.number("SELECT pruned FROM baton_counter"), 2);
    world.tidy();
    assert_eq!(world.number("SELECT pruned FROM baton_counter"), 2);
}

#[test]
fn what_was_used_least_recently_goes_down_to_the_limit() {
    let mut world = World::new("tidy_limit", 10_000);
    world.objects(1, 10, 0);
    world.tidy();
    assert_eq!(world.numbers(OBJECTS).len(), 10, "that much there may be");
    // More than go at a time.
    world.objects(11, 1500, 0);
    world.objects(1501, 1501, 1);
    world.tidy();
    // Somewhat less than the limit.
    assert_eq!(world.numbers(OBJECTS), (1..=9).collect::<Vec<_>>());
    assert_eq!(world.counted(Counter::CacheEvicted), 1492);
    assert_eq!(world.numbers(ORPHANED), [1501]);
    let mut without = World::new("tidy_no_limit", 0);
    without.objects(1, 1200, 0);
    without.tidy();
    assert_eq!(without.numbers(OBJECTS).len(), 1200);
}

#[test]
fn while_one_node_tidies_another_does_nothing() {
    let mut world = World::new("tidy_nodes", 0);
    world.objects(1, 3, 0);
    world.execute("SELECT baton_purge_all()");
    let mut other = world.ground.server.connect_blocking().unwrap();
    let lock = format!("SELECT pg_advisory_lock({LOCK})");
    other.batch_execute(&lock).unwrap();
    world.run(once);
    assert_eq!(world.numbers(OBJECTS), [1, 2, 3]);
    other
        .batch_execute(&lock.replace("lock(", "unlock("))
        .unwrap();
    // Another test may be tidying its own schema just now.
    world.soon(|world| {
        world.run(once);
        world.numbers(OBJECTS).is_empty()
    });
    // It holds it no longer than it takes, and the server has to notice that its session has ended.
    let taken = format!("SELECT pg_try_advisory_lock({LOCK})::int::bigint");
    world.soon(|world| world.number(&taken) == 1);
}
