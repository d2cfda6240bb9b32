//! Sessions with the database: what shares one, and what becomes of those that end or are silent.

use super::*;

/// Looks for all of them at once.
async fn bodies(store: &Rc<Postgres<Rc<Slots>>>, keys: &[String]) -> Vec<Option<Vec<u8>>> {
    let look = |key: &String| {
        let (store, key) = (store.clone(), key.clone());
        tokio::task::spawn_local(async move { body(&*store, &key, &[]).await })
    };
    let mut found = Vec::new();
    for task in keys.iter().map(look).collect::<Vec<_>>() {
        found.push(task.await.unwrap());
    }
    found
}

#[test]
fn looks_at_once_share_a_statement_and_each_has_its_own_answer() {
    let world = World::new();
    run(async {
        let store = Rc::new(ready(&world, 0, 0).await);
        let keys: Vec<String> = (0..40).map(|n| format!("http://a/{n}")).collect();
        let expected = |n: usize| match n % 5 {
            0 => None,
            // Bodies of other lengths: in the row, in pieces, and one of two variants.
            1 => Some(body_of(2 * PIECE_SIZE + n)),
            _ => Some(body_of(1000 * n)),
        };
        let expected: Vec<_> = (0..keys.len()).map(expected).collect();
        for (key, body) in keys.iter().zip(&expected) {
            let Some(body) = body else { continue };
            put(&*store, key, body).await.unwrap();
        }
        let vary = [("Vary", "X")];
        put_variant(&*store, &keys[5], &[("X", "1")], &vary, b"another")
            .await
            .unwrap();
        assert!(bodies(&store, &keys).await == expected);
        let link = &store.inner.link;
        let pid = async |session: &session::Session| {
            let row = session
                .client
                .query_one("SELECT pg_backend_pid()", &[])
                .await?;
            row.try_get::<_, i32>(0)
        };
        let pid = link.ask(What::Reading, pid).await.unwrap();
        // Nothing but looks, so that one of them is the last statement of the only session that reads.
        let in_rows: Vec<String> = (2..40).step_by(5).map(|n| keys[n].clone()).collect();
        bodies(&store, &in_rows).await;
        let shared = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query LIKE '%AS asked (name, place)%'"
        );
        assert_eq!(sql(&world, &shared), [1], "one by one");
    });
}

/// A plan that reads the whole table would be used as well when there are many in it.
#[test]
fn names_are_looked_up_by_the_index_even_where_that_was_planned_for_an_empty_table() {
    let world = World::new();
    let settings = settings(&world);
    prepare(&world, &settings);
    let mut client = Server::new(&settings, "test")
        .unwrap()
        .connect_blocking()
        .unwrap();
    client.batch_execute(session::PLAN_ONCE).unwrap();
    for (parameters, statement, values) in [
        ("bytea", looks::LOOK, "'a'"),
        ("bytea[]", looks::SEVERAL, "ARRAY['a', 'b']::bytea[]"),
    ] {
        client
            .batch_execute(&format!(
                "PREPARE look ({parameters}, bigint) AS {statement}"
            ))
            .unwrap();
        let explain = format!("EXPLAIN EXECUTE look ({values}, 1)");
        let rows = client.query(&explain, &[]).unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(plan.contains("baton_objects_name_variant_key"), "{plan}");
        // Only what has one name is sorted.
        assert!(plan.matches("Sort  (").count() <= 1, "{plan}");
        client.batch_execute("DEALLOCATE look").unwrap();
    }
}

#[test]
fn whoever_looks_in_a_session_that_ends_is_answered_by_another() {
    let world = World::new();
    run(async {
        let store = Rc::new(ready(&world, 0, 0).await);
        let keys: Vec<String> = (0..40).map(|n| format!("http://a/{n}")).collect();
        for key in &keys {
            put(&*store, key, key.as_bytes()).await.unwrap();
        }
        let (ready, is_ready) = std::sync::mpsc::channel();
        let settings = settings(&world);
        let other = std::thread::spawn(move || {
            let server = Server::new(&settings, "test").unwrap();
            let mut client = server.connect_blocking().unwrap();
            let mut lock = client.transaction().unwrap();
            lock.batch_execute("LOCK TABLE baton_objects IN ACCESS EXCLUSIVE MODE")
                .unwrap();
            ready.send(()).unwrap();
            // One: whoever looks in the other soon waits for the lock as well.
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid)) LIMIT 1";
            while lock.query(end, &[]).unwrap().is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        is_ready.recv().unwrap();
        let found = bodies(&store, &keys).await;
        other.join().unwrap();
        let bodies = keys.iter().map(|key| Some(key.as_bytes().to_vec()));
        assert!(found == bodies.collect::<Vec<_>>());
    });
}

/// Processes that stand still until this is dropped.
struct Stopped(Vec<String>);

impl Stopped {
    fn new(pids: Vec<String>) -> Stopped {
        let stopped = Stopped(pids);
        stopped.signal("-STOP");
        stopped
    }

    fn signal(&self, name: &str) {
        let mut kill = std::process::Command::new("kill");
        assert!(kill.arg(name).args(&self.0).status().unwrap().success());
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}

/// A firewall that has forgotten connections does this: they are silent, and new ones are not.
#[test]
fn sessions_that_are_silent_say_nothing_of_those_that_came_after_them() {
    let world = World::new();
    let mut settings = settings(&world);
    settings.deadline = Duration::from_millis(500);
    settings.connections = 3;
    prepare(&world, &settings);
    let (region, slots) = (world.region.clone(), world.slots.clone());
    run(async {
        let store = Postgres::new(&settings, region, 0, 0, LARGEST, slots).unwrap();
        let link = &store.inner.link;
        link.ready().await;
        let pid = async |session: &session::Session| {
            let row = session.client.query_one("SELECT pg_backend_pid()", &[]);
            row.await.map(|row| row.get::<_, i32>(0).to_string())
        };
        let mut pids = Vec::new();
        for _ in 0..2 {
            pids.push(link.ask(What::Reading, pid).await.unwrap());
        }
        let stopped = Stopped::new(pids);
        let (long, until) = (Duration::from_secs(4), Instant::now());
        let patient = async {
            let silent = link.ask_patiently(long, What::Reading, pid).await;
            assert_eq!(silent, None);
            assert!(until.elapsed() >= long);
        };
        let others = async {
            assert_eq!(link.ask(What::Reading, pid).await, None);
            while link.is_open(What::Reading) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(until.elapsed() < long);
        };
        tokio::join!(patient, others);
        let is_open = link.is_open(What::Reading);
        drop(stopped);
        assert!(!is_open);
        assert!(link.ask(What::Reading, pid).await.is_some());
    });
}
