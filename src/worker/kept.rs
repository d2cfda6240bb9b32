//! What this worker keeps: one of the stores, behind the one contract.

use std::rc::Rc;
use std::sync::Arc;

use anyhow::Context;

use crate::cache::{Key, Stored};
use crate::config::{Config, StoreKind};
use crate::http::Headers;
use crate::shared::{Region, Version};
use crate::store::{
    Body, Coherence, Find, Hot, InFile, Known, NotKept, Object, Postgres, Promise, Purge, SoFar,
    Store, Tiered, Writer, hot, postgres, tiered,
};
use crate::sys::limits::Shares;

/// A store of the kind that the configuration names.
pub enum Kept {
    Disk(Tiered<InRegion>),
    Memory(Hot<InRegion>),
    Postgres(Postgres<InRegion>),
}

/// The body of a response on its way into one.
pub enum Filling {
    Disk(tiered::Filling<InRegion>),
    Memory(hot::Filling<InRegion>),
    Postgres(postgres::Filling<InRegion>),
}

/// Coherence with the other workers through shared memory.
pub struct InRegion {
    region: Region,
    known: Known,
}

impl Coherence for InRegion {
    fn read(&self, hash: u64) -> Version {
        self.region.versions().read(hash)
    }

    fn bump(&self, hash: u64) {
        self.region.versions().bump(hash);
    }

    fn purges(&self, earlier: Version, now: Version) -> Option<Vec<Arc<Purge>>> {
        self.known.between(earlier, now)
    }
}

impl Kept {
    /// None: nothing is kept. Must be called within the runtime.
    ///
    /// Errors: a database cannot be used as it is configured.
    pub fn new(config: &Config, region: &Region, worker: usize) -> anyhow::Result<Option<Kept>> {
        let settings = &config.postgres;
        let config = &config.cache;
        let coherence = InRegion {
            region: region.clone(),
            known: Known::new(region.clone()),
        };
        let memory = config.memory / region.workers() as u64;
        Ok(match (config.store, &config.directory) {
            (StoreKind::Off, _) => None,
            (StoreKind::Postgres, _) => {
                let (region, max) = (region.clone(), config.max_object);
                let store = Postgres::new(settings, region, worker, memory, max, coherence);
                Some(Kept::Postgres(store.context("the cache in PostgreSQL")?))
            }
            (StoreKind::Directory, Some(path)) => {
                // Connections need descriptors more.
                let files = config.open_files.min(Shares::own().files);
                let (tiers, max) = ((memory, files), config.max_object);
                let region = region.clone();
                let store = Tiered::new(path, region, worker, tiers, max, coherence);
                Some(Kept::Disk(store))
            }
            (StoreKind::Directory | StoreKind::Memory, _) => {
                Some(Kept::Memory(Hot::new(memory, config.max_object, coherence)))
            }
        })
    }

    /// The store that has no directory: nobody but this process knows what is in it.
    pub fn in_memory(&self) -> Option<&Hot<InRegion>> {
        match self {
            Kept::Disk(_) | Kept::Postgres(_) => None,
            Kept::Memory(store) => Some(store),
        }
    }

    /// What this worker has at hand, without a look at the disk. Good for serving it: who asks about it looks with `find`,
    /// and at the version before.
    pub fn at_hand(&self, key: &[u8], request: &Headers) -> Option<Rc<Object>> {
        match self {
            Kept::Disk(store) => store.copy(key, request),
            Kept::Postgres(store) => store.copy(key, request),
            Kept::Memory(store) => store.get(key, request),
        }
    }

    /// What there is where nothing is at hand. Never waits.
    pub fn find_beyond(&self, key: &[u8], request: &Headers) -> Find {
        match self {
            Kept::Disk(store) => store.find_on_disk(key, request),
            Kept::Memory(store) => store.find_other(key),
            Kept::Postgres(store) => store.find_beyond(),
        }
    }

    /// The store that other nodes use, too.
    pub fn of_nodes(&self) -> Option<&Postgres<InRegion>> {
        match self {
            Kept::Postgres(store) => Some(store),
            Kept::Disk(_) | Kept::Memory(_) => None,
        }
    }

    /// From now on nothing is stored: another instance may have begun to.
    pub fn close(&self) {
        match self {
            Kept::Disk(store) => store.close(),
            Kept::Postgres(store) => store.close(),
            Kept::Memory(_) => {}
        }
    }

    /// Now and then: whether the directory is still where it was.
    pub async fn look_after(&self) {
        match self {
            Kept::Disk(store) => store.look_after().await,
            Kept::Postgres(store) => store.look_after().await,
            Kept::Memory(_) => {}
        }
    }

    /// A body that had to be looked at has been, all of it, while it was served.
    pub async fn attest(&self, object: &Object) {
        if let (Kept::Disk(store), Some(at), Body::File(body)) =
            (self, &object.on_disk, &object.body)
        {
            store.disk().attest(at.name, body.facts()).await;
        }
    }

    /// An object turned out to be damaged while it was served.
    pub async fn discard(&self, object: &Object) {
        match (self, &object.on_disk) {
            (Kept::Disk(store), Some(at)) => {
                object.body.give_up();
                store.disk().remove(at.name).await;
            }
            (Kept::Postgres(store), _) => store.discard(object).await,
            _ => {}
        }
    }
}

impl Store for Kept {
    type Writer = Filling;

    fn find(&self, key: &[u8], request: &Headers) -> Find {
        match self {
            Kept::Disk(store) => store.find(key, request),
            Kept::Memory(store) => store.find(key, request),
            Kept::Postgres(store) => store.find(key, request),
        }
    }

    async fn look(&self, key: &[u8], request: &Headers) -> Find {
        match self {
            Kept::Disk(store) => store.look(key, request).await,
            Kept::Memory(store) => store.look(key, request).await,
            Kept::Postgres(store) => store.look(key, request).await,
        }
    }

    async fn variants(&self, key: &[u8]) -> Vec<Rc<Object>> {
        match self {
            Kept::Disk(store) => store.variants(key).await,
            Kept::Memory(store) => store.variants(key).await,
            Kept::Postgres(store) => store.variants(key).await,
        }
    }

    fn version(&self, key: &[u8]) -> Version {
        match self {
            Kept::Disk(store) => store.version(key),
            Kept::Memory(store) => store.version(key),
            Kept::Postgres(store) => store.version(key),
        }
    }

    fn begin(
        &self,
        key: Key,
        stored: Stored,
        expected: Option<u64>,
        seen: Version,
    ) -> Result<Filling, NotKept> {
        match self {
            Kept::Disk(store) => store.begin(key, stored, expected, seen).map(Filling::Disk),
            Kept::Memory(store) => store
                .begin(key, stored, expected, seen)
                .map(Filling::Memory),
            Kept::Postgres(store) => store
                .begin(key, stored, expected, seen)
                .map(Filling::Postgres),
        }
    }

    async fn refresh(
        &self,
        key: &[u8],
        old: &Rc<Object>,
        new: Stored,
        seen: Version,
    ) -> Rc<Object> {
        match self {
            Kept::Disk(store) => store.refresh(key, old, new, seen).await,
            Kept::Memory(store) => store.refresh(key, old, new, seen).await,
            Kept::Postgres(store) => store.refresh(key, old, new, seen).await,
        }
    }

    async fn invalidate(&self, key: &[u8]) -> bool {
        match self {
            Kept::Disk(store) => store.invalidate(key).await,
            Kept::Memory(store) => store.invalidate(key).await,
            Kept::Postgres(store) => store.invalidate(key).await,
        }
    }
}

impl Writer for Filling {
    fn write(&mut self, data: &[u8]) -> bool {
        match self {
            Filling::Disk(filling) => filling.write(data),
            Filling::Memory(filling) => filling.write(data),
            Filling::Postgres(filling) => filling.write(data),
        }
    }

    async fn room(&mut self) -> bool {
        match self {
            Filling::Disk(filling) => filling.room().await,
            Filling::Memory(filling) => filling.room().await,
            Filling::Postgres(filling) => filling.room().await,
        }
    }

    fn promise(&self) -> &Promise {
        match self {
            Filling::Disk(filling) => filling.promise(),
            Filling::Memory(filling) => filling.promise(),
            Filling::Postgres(filling) => filling.promise(),
        }
    }

    fn promise_mut(&mut self) -> &mut Promise {
        match self {
            Filling::Disk(filling) => filling.promise_mut(),
            Filling::Memory(filling) => filling.promise_mut(),
            Filling::Postgres(filling) => filling.promise_mut(),
        }
    }

    async fn so_far(&mut self) -> Option<SoFar> {
        match self {
            Filling::Disk(filling) => filling.so_far().await,
            Filling::Memory(filling) => filling.so_far().await,
            Filling::Postgres(filling) => filling.so_far().await,
        }
    }

    fn in_file(&self) -> Option<InFile> {
        match self {
            Filling::Disk(filling) => filling.in_file(),
            Filling::Memory(filling) => filling.in_file(),
            Filling::Postgres(filling) => filling.in_file(),
        }
    }

    async fn finish(self) -> Option<Rc<Object>> {
        match self {
            Filling::Disk(filling) => filling.finish().await,
            Filling::Memory(filling) => filling.finish().await,
            Filling::Postgres(filling) => filling.finish().await,
        }
    }
}
