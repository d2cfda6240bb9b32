use std::sync::OnceLock;
use std::time::Duration;

use super::*;
use crate::config::{Secret, Tls};
use crate::store::Promise;
use crate::store::contract::{
    self, Slots, World, body, content, find, object, put, put_variant, run, stored,
};
use crate::store::{Find, Writer};

#[path = "../../../tests/conversations/support/postgres.rs"]
#[allow(dead_code, reason = "conversations use the rest")]
pub(crate) mod server_of_tests;
use server_of_tests::PostgresServer;

mod sessions;

const KEY: &str = "http://a/";
const LARGEST: u64 = 3 << 20;

/// One for all tests of this process.
pub(crate) fn server() -> &'static PostgresServer {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    SERVER.get_or_init(PostgresServer::start)
}

/// Each world has a schema of its own.
fn settings(world: &World) -> Settings {
    let path = world.path();
    let digest = crate::cache::Name::of(path.as_os_str().as_encoded_bytes());
    let schema = format!("w{:016x}", digest.hash());
    Settings {
        url: Secret::new(server().url_of_schema(&schema)),
        password: None,
        password_file: None,
        connections: 2,
        tls: Tls::Auto,
        ca_file: None,
        logged: false,
        deadline: Duration::from_secs(5),
    }
}

/// What the janitor does at its start.
fn prepare(world: &World, settings: &Settings) {
    let distant = world.region.distant();
    if distant.incarnation() != 0 {
        return;
    }
    let settings = settings.clone();
    let made = std::thread::spawn(move || {
        let server = Server::new(&settings, "test").unwrap();
        schema::migrate(&server, &settings).unwrap();
        let mut client = server.connect_blocking().unwrap();
        let row = client.query_one("SELECT incarnation, number FROM baton_counter", &[]);
        let row = row.unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    });
    let (incarnation, number) = made.join().unwrap();
    distant.set_applied(incarnation.cast_unsigned(), number.cast_unsigned());
    distant.extend_lease(crate::sys::clock::awake_or_not_ms() + 600_000);
}

fn store(world: &World, worker: usize, memory: u64) -> Postgres<Rc<Slots>> {
    let settings = settings(world);
    prepare(world, &settings);
    let (region, slots) = (world.region.clone(), world.slots.clone());
    Postgres::new(&settings, region, worker, memory, LARGEST, slots).unwrap()
}

async fn ready(world: &World, worker: usize, memory: u64) -> Postgres<Rc<Slots>> {
    let store = store(world, worker, memory);
    store.inner.link.ready().await;
    store
}

fn body_of(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

/// Asks whatever the circuit says: tests begin before there is a connection.
struct Waiting(Postgres<Rc<Slots>>);

#[test]
fn the_contract_with_memory_over_it() {
    contract::holds_for(
        |world, worker| Waiting(store(world, worker, 8 << 20)),
        LARGEST,
        true,
    );
}

#[test]
fn the_contract_with_nothing_in_memory() {
    contract::holds_for(
        |world, worker| Waiting(store(world, worker, 0)),
        LARGEST,
        true,
    );
}

/// `begin` cannot wait for the first connection, and the contract calls it at once.
impl Store for Waiting {
    type Writer = Late;

    fn find(&self, _: &[u8], _: &Headers) -> Find {
        Find::AskDisk
    }

    async fn look(&self, key: &[u8], request: &Headers) -> Find {
        self.0.inner.link.ready().await;
        match self.0.find(key, request) {
            Find::AskDisk => self.0.look(key, request).await,
            found => found,
        }
    }

    async fn variants(&self, key: &[u8]) -> Vec<Rc<Object>> {
        self.0.variants(key).await
    }

    fn version(&self, key: &[u8]) -> Version {
        self.0.version(key)
    }

    fn begin(
        &self,
        key: Key,
        stored: Stored,
        expected: Option<u64>,
        seen: Version,
    ) -> Result<Late, NotKept> {
        if expected.is_some_and(|length| length > LARGEST) {
            return Err(NotKept::TooLarge);
        }
        let link = self.0.inner.link.clone();
        Ok(Late(
            Filling::new(self.0.inner.clone(), key, stored, expected, seen),
            link,
        ))
    }

    async fn refresh(
        &self,
        key: &[u8],
        old: &Rc<Object>,
        new: Stored,
        seen: Version,
    ) -> Rc<Object> {
        self.0.inner.link.ready().await;
        self.0.refresh(key, old, new, seen).await
    }

    async fn invalidate(&self, key: &[u8]) -> bool {
        self.0.inner.link.ready().await;
        self.0.invalidate(key).await
    }
}

struct Late(Filling<Rc<Slots>>, link::Link);

impl Writer for Late {
    fn write(&mut self, data: &[u8]) -> bool {
        self.0.write(data)
    }
    async fn room(&mut self) -> bool {
        self.1.ready().await;
        self.0.room().await
    }
    fn promise(&self) -> &Promise {
        self.0.promise()
    }
    fn promise_mut(&mut self) -> &mut Promise {
        self.0.promise_mut()
    }
    async fn so_far(&mut self) -> Option<crate::store::SoFar> {
        self.0.so_far().await
    }
    fn in_file(&self) -> Option<crate::store::InFile> {
        None
    }
    async fn finish(self) -> Option<Rc<Object>> {
        self.1.ready().await;
        self.0.finish().await
    }
}

#[test]
fn what_is_stored_outlives_its_process() {
    let world = World::new();
    run(async {
        let (one, two) = (ready(&world, 0, 0).await, ready(&world, 1, 0).await);
        for length in [
            0,
            1,
            262_144,
            262_145,
            PIECE_SIZE,
            PIECE_SIZE + 1,
            2 * PIECE_SIZE + 7,
        ] {
            let key = format!("http://a/{length}");
            put(&one, &key, &body_of(length)).await.unwrap();
            let found = body(&two, &key, &[]).await;
            assert!(found == Some(body_of(length)), "{length}");
        }
    });
}

/// Runs SQL in the schema of that world.
fn sql(world: &World, text: &str) -> Vec<i64> {
    let (settings, text) = (settings(world), text.to_owned());
    let done = std::thread::spawn(move || {
        let server = Server::new(&settings, "test").unwrap();
        let mut client = server.connect_blocking().unwrap();
        let rows = client.query(&text, &[]).unwrap();
        rows.iter()
            .map(|row| row.try_get(0).unwrap_or_default())
            .collect()
    });
    done.join().unwrap()
}

#[test]
fn what_is_damaged_is_not_served_and_goes() {
    let world = World::new();
    run(async {
        let store = ready(&world, 0, 0).await;
        let large = body_of(PIECE_SIZE + 300_000);
        for (key, length) in [("http://head/", 10), ("http://body/", 10)] {
            put(&store, key, &body_of(length)).await.unwrap();
        }
        put(&store, "http://large/", &large).await.unwrap();
        sql(
            &world,
            "UPDATE baton_objects SET head = set_byte(head, 40, 255 - get_byte(head, 40)) WHERE key = 'http://head/'",
        );
        sql(
            &world,
            "UPDATE baton_objects SET body = set_byte(body, 4, 77) WHERE key = 'http://body/'",
        );
        sql(
            &world,
            "UPDATE baton_pieces SET octets = set_byte(octets, 4, 77) WHERE number = 1",
        );
        for key in ["http://head/", "http://body/"] {
            assert!(body(&store, key, &[]).await.is_none(), "{key}");
        }
        let found = object(&store, "http://large/", &[]).await.unwrap();
        let first = found.body.read_piece(0, 1 << 30).await.unwrap();
        assert!(first == large[..PIECE_SIZE]);
        assert!(found.body.read_piece(PIECE_SIZE as u64, 10).await.is_none());
        store.discard(&found).await;
        let gone = async || sql(&world, "SELECT count(*) FROM baton_objects") == [0];
        while !gone().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let counted = world.region.total(Counter::CacheDamaged);
        assert_eq!(counted, 2);
    });
}

#[test]
fn what_another_node_has_changed_overtakes_what_was_asked_for_before() {
    let world = World::new();
    run(async {
        let store = ready(&world, 0, 0).await;
        let begin = || {
            let seen = store.version(KEY.as_bytes());
            let begun = store.begin(Key::from(KEY.as_bytes()), stored(&[], &[]), None, seen);
            let mut writer = begun.unwrap_or_else(|reason| panic!("{reason:?}"));
            writer.write(b"early");
            writer
        };
        let early = begin();
        let name = "substring(sha256('http://a/') FOR 16)";
        sql(
            &world,
            &format!("SELECT change FROM baton_purge(ARRAY[{name}], ARRAY[1])"),
        );
        assert!(
            early.finish().await.is_none(),
            "nobody here has heard of it"
        );
        let other = begin();
        sql(&world, "SELECT baton_purge_all()");
        assert!(other.finish().await.is_none(), "nor of that");
        // As the janitor would say it.
        let number = sql(&world, "SELECT number FROM baton_counter")[0].cast_unsigned();
        let distant = world.region.distant();
        distant.set_applied(distant.incarnation(), number);
        assert!(begin().finish().await.is_some());
        // Changes that nobody remembers, or that never were.
        sql(
            &world,
            "UPDATE baton_counter SET pruned = number + 1, number = number + 1",
        );
        assert!(begin().finish().await.is_none());
        distant.set_applied(distant.incarnation(), number + 7);
        assert!(begin().finish().await.is_none());
        sql(
            &world,
            "UPDATE baton_counter SET incarnation = incarnation + 1",
        );
        assert!(
            body(&store, KEY, &[]).await.is_none(),
            "of another life of the database"
        );
    });
}

#[test]
fn what_is_owed_is_found_by_nobody() {
    let world = World::new();
    run(async {
        let store = ready(&world, 0, 8 << 20).await;
        put(&store, KEY, b"hello").await.unwrap();
        sql(&world, "DROP FUNCTION baton_purge(bytea[], bigint[])");
        store.invalidate(KEY.as_bytes()).await;
        let distant = world.region.distant();
        assert_eq!(distant.owed_since(0).len(), 1);
        assert!(matches!(find(&store, KEY, &[]).await, Find::Absent));
        assert_eq!(
            sql(&world, "SELECT count(*) FROM baton_objects"),
            [1],
            "it is still there"
        );
    });
}

#[test]
fn copies_are_served_under_the_lease_alone() {
    let world = World::new();
    run(async {
        let store = ready(&world, 0, 8 << 20).await;
        put(&store, KEY, b"hello").await.unwrap();
        let none = Headers::new();
        assert!(store.copy(KEY.as_bytes(), &none).is_some());
        world.region.distant().extend_lease(1);
        assert!(store.copy(KEY.as_bytes(), &none).is_none());
        assert!(
            body(&store, KEY, &[]).await.is_some(),
            "the database is asked"
        );
    });
}

#[test]
fn a_large_body_is_dropped_with_its_writer_and_swept_with_its_object() {
    let world = World::new();
    run(async {
        let store = ready(&world, 0, 0).await;
        let seen = store.version(KEY.as_bytes());
        let begun = store.begin(Key::from(KEY.as_bytes()), stored(&[], &[]), None, seen);
        let mut writer = begun.unwrap_or_else(|reason| panic!("{reason:?}"));
        for _ in 0..5 {
            assert!(writer.write(&body_of(PIECE_SIZE / 2)) && writer.room().await);
        }
        assert!(writer.so_far().await.is_some());
        drop(writer);
        let pieces = || sql(&world, "SELECT count(*) FROM baton_pieces")[0];
        while pieces() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(store.inner.arriving.get(), 0);
        let held = put(&store, KEY, &body_of(2 * PIECE_SIZE)).await.unwrap();
        assert!(store.invalidate(KEY.as_bytes()).await);
        assert!(
            content(&held).await == body_of(2 * PIECE_SIZE),
            "who reads it keeps it"
        );
        assert_eq!(sql(&world, "SELECT count(*) FROM baton_orphans"), [1]);
    });
}

#[test]
fn variants_are_read_whole_and_no_others() {
    let world = World::new();
    run(async {
        let store = ready(&world, 0, 0).await;
        let vary = [("Vary", "X")];
        for n in ["1", "2"] {
            put_variant(&store, KEY, &[("X", n)], &vary, n.as_bytes())
                .await
                .unwrap();
        }
        let found = object(&store, KEY, &[("X", "1")]).await.unwrap();
        assert!(matches!(found.body, Body::Memory(_)));
        assert_eq!(content(&found).await, b"1");
        let all = store.variants(KEY.as_bytes()).await;
        assert_eq!(all.len(), 2);
        assert_eq!(content(&all[0]).await, b"2", "the newest first");
    });
}

#[test]
fn the_database_is_told_what_was_used_and_how_often() {
    let world = World::new();
    run(async {
        let (with, without) = (ready(&world, 0, 1 << 20).await, ready(&world, 1, 0).await);
        put(&without, "http://often/", b"often").await.unwrap();
        put(&without, "http://never/", b"never").await.unwrap();
        for store in [&with, &without, &with] {
            body(store, "http://often/", &[]).await.unwrap();
        }
        for store in [&with, &without] {
            for _ in 0..USED_EVERY {
                store.look_after().await;
            }
        }
        let hits = "SELECT hits FROM baton_cache_objects ORDER BY url";
        assert_eq!(sql(&world, hits), [0, 3]);
    });
}

/// A session that ends behind a commit leaves whoever has stored in doubt.
#[test]
fn who_does_not_hear_of_an_object_leaves_its_pieces() {
    let world = World::new();
    run(async {
        let store = ready(&world, 0, 0).await;
        let octets = body_of(2_500_000);
        let object = put(&store, KEY, &octets).await.unwrap();
        let id = object.in_row.unwrap().id;
        let link = &store.inner.link;
        let put_again = async |session: &session::Session| session.put_piece(id, 1, b"x").await;
        link.ask(What::Writing, put_again).await.unwrap();
        let lost = async |session: &session::Session| {
            session.put_piece(7, 0, b"x").await?;
            session.abandon(7).await?;
            session.abandon(id).await?;
            session.octets(7, Some(0), 0, 1).await
        };
        assert_eq!(link.ask(What::Writing, lost).await, Some(None));
        assert!(body(&store, KEY, &[]).await.unwrap() == octets);
    });
}
