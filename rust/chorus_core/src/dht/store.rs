//! The disk store of records (redb): one writer thread that commits what came together, readers that never wait for it.

use std::{
    collections::HashMap,
    ops::Bound,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use super::{
    key::Kind,
    record::{self, Checked},
};
use crate::{
    Error, Result, database,
    net::shared::{Counters, bump, now_ms},
};

/// Records by key; the value is `stored_at_ms:u64be | record`.
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
/// How long an agent's record is kept after it was stored or replaced.
pub const AGENT_KEPT_MS: u64 = 48 * 60 * 60 * 1000;
/// Pages that redb keeps in memory.
const DISK_CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Writes waiting for the writer; what peers send beyond it is refused, own writes wait.
const WRITE_QUEUE: usize = 1024;
/// How long opening waits for the file's last holder, and how often it looks.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);
const RELEASE_STEP: Duration = Duration::from_millis(20);
/// Writes in one commit.
const BATCH_MAX: usize = 256;

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is on disk now.
    New,
    /// The same or an equally good record was there already.
    Kept,
}

/// Records on disk; cheap to clone.
#[derive(Clone)]
pub struct Store {
    database: Arc<Database>,
    writer: mpsc::Sender<Write>,
    /// Accepted and not yet committed, so that readers see it at once.
    coming: Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>,
    counters: Arc<Counters>,
}

enum Write {
    Put {
        key: Vec<u8>,
        record: Vec<u8>,
        checked: Box<Checked>,
        own: bool,
        done: Option<oneshot::Sender<Result<Stored>>>,
    },
    Forget {
        key: Vec<u8>,
    },
    Flush {
        done: oneshot::Sender<()>,
    },
}

impl Store {
    /// Opens or makes the store.
    pub(crate) async fn open(path: &Path, counters: Arc<Counters>) -> Result<Self> {
        let path = path.to_owned();
        let database = tokio::task::spawn_blocking(move || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let database = open_released(&path)?;
            let write = database.begin_write().map_err(disk)?;
            write.open_table(RECORDS).map_err(disk)?;
            write.commit().map_err(disk)?;
            Ok::<_, Error>(Arc::new(database))
        })
        .await
        .map_err(|e| Error::Internal(e.to_string()))??;
        let (writer, queue) = mpsc::channel(WRITE_QUEUE);
        let store = Self { database: database.clone(), writer, coming: Arc::default(), counters };
        let coming = store.coming.clone();
        std::thread::Builder::new().name("dht-store".into()).spawn(move || write_loop(&database, queue, &coming))?;
        Ok(store)
    }

    /// Stores a record of this agent and answers once it is on disk.
    pub(crate) async fn put(&self, key: Vec<u8>, record: Vec<u8>) -> Result<Stored> {
        let checked = Box::new(record::check(&key, &record, now_ms())?);
        let (done, answer) = oneshot::channel();
        self.writer
            .send(Write::Put { key, record, checked, own: true, done: Some(done) })
            .await
            .map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Takes a peer's record if it is sound; never waits.
    pub(crate) fn offer(&self, key: Vec<u8>, record: Vec<u8>) -> Result<()> {
        let checked = match record::check(&key, &record, now_ms()) {
            Ok(checked) => Box::new(checked),
            Err(error) => {
                bump(&self.counters.dht_refused);
                return Err(error);
            }
        };
        if self.get(&key).is_some_and(|present| supersedes(&checked, &key, &present).is_none()) {
            return Ok(());
        }
        let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        let write = Write::Put { key: key.clone(), record: record.clone(), checked, own: false, done: None };
        self.writer.try_send(write).map_err(|_| Error::Unavailable("the record store is behind".into()))?;
        coming.insert(key, record);
        Ok(())
    }

    /// The record under a key, unless its time is over.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        if let Some(record) = self.coming.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Some(record.clone());
        }
        self.read(key).unwrap_or_else(|error| {
            tracing::warn!(%error, "the record store cannot be read");
            None
        })
    }

    /// How many records there are.
    pub fn len(&self) -> Result<u64> {
        self.database.begin_read().map_err(disk)?.open_table(RECORDS).map_err(disk)?.len().map_err(disk)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Up to `count` records that follow a key; those whose time is over are forgotten on the way.
    pub(crate) fn walk(&self, after: Option<&[u8]>, count: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let read = self.database.begin_read().map_err(disk)?;
        let table = read.open_table(RECORDS).map_err(disk)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = Vec::new();
        for entry in table.range::<&[u8]>((from, Bound::Unbounded)).map_err(disk)?.take(count) {
            let (key, value) = entry.map_err(disk)?;
            match unpack(key.value(), value.value(), now_ms()) {
                Some(record) => found.push((key.value().to_vec(), record.to_vec())),
                None => {
                    let _ = self.writer.try_send(Write::Forget { key: key.value().to_vec() });
                    found.push((key.value().to_vec(), Vec::new()));
                }
            }
        }
        Ok(found)
    }

    /// Waits until everything accepted so far is on disk.
    pub(crate) async fn flush(&self) {
        let (done, answer) = oneshot::channel();
        if self.writer.send(Write::Flush { done }).await.is_ok() {
            let _ = answer.await;
        }
    }

    /// Lays a record in readers' way without any check.
    #[cfg(test)]
    pub(crate) fn plant(&self, key: Vec<u8>, record: Vec<u8>) {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner).insert(key, record);
    }

    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let read = self.database.begin_read().map_err(disk)?;
        let table = read.open_table(RECORDS).map_err(disk)?;
        let value = table.get(key).map_err(disk)?;
        Ok(value.and_then(|value| unpack(key, value.value(), now_ms()).map(<[u8]>::to_vec)))
    }
}

/// Opens the file; one that a store of this process is just about to let go of is waited for.
fn open_released(path: &Path) -> Result<Database> {
    let until = Instant::now() + RELEASE_TIMEOUT;
    database::make_if_missing(path).map_err(disk)?;
    loop {
        match Builder::new().set_cache_size(DISK_CACHE_BYTES).open(path) {
            Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < until => std::thread::sleep(RELEASE_STEP),
            outcome => return outcome.map_err(disk),
        }
    }
}

fn write_loop(database: &Database, mut queue: mpsc::Receiver<Write>, coming: &Mutex<HashMap<Vec<u8>, Vec<u8>>>) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        let outcomes = commit(database, &batch);
        let mut coming = coming.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = &outcomes {
            tracing::error!(%error, "DHT records could not be written");
        }
        for (at, write) in batch.into_iter().enumerate() {
            match write {
                Write::Put { key, record, done, .. } => {
                    // A later record of the same key may be on its way already.
                    if coming.get(&key).is_some_and(|waiting| *waiting == record) {
                        coming.remove(&key);
                    }
                    let outcome = outcomes.as_ref().map_err(Clone::clone).and_then(|all| all[at].clone());
                    if let Some(done) = done {
                        let _ = done.send(outcome);
                    }
                }
                Write::Forget { .. } => {}
                Write::Flush { done } => {
                    let _ = done.send(());
                }
            }
        }
    }
}

fn commit(database: &Database, batch: &[Write]) -> Result<Vec<Result<Stored>>> {
    let write = database.begin_write().map_err(disk)?;
    let mut outcomes = Vec::with_capacity(batch.len());
    {
        let mut table = write.open_table(RECORDS).map_err(disk)?;
        for item in batch {
            outcomes.push(match item {
                Write::Put { key, record, checked, own, .. } => {
                    let present = table
                        .get(key.as_slice())
                        .map_err(disk)?
                        .and_then(|value| unpack(key, value.value(), now_ms()).map(<[u8]>::to_vec));
                    let better = match &present {
                        None => Ok(Stored::New),
                        Some(present) if *own && checked.key.kind.immutable() && foreign(checked, key, present) => {
                            Ok(Stored::New)
                        }
                        Some(present) => supersedes(checked, key, present).unwrap_or(Ok(Stored::Kept)),
                    };
                    if matches!(better, Ok(Stored::New)) {
                        let value = [&now_ms().to_be_bytes()[..], record].concat();
                        table.insert(key.as_slice(), value.as_slice()).map_err(disk)?;
                    }
                    better
                }
                Write::Forget { key } => {
                    let over = table
                        .get(key.as_slice())
                        .map_err(disk)?
                        .is_some_and(|value| unpack(key, value.value(), now_ms()).is_none());
                    if over {
                        table.remove(key.as_slice()).map_err(disk)?;
                    }
                    Ok(Stored::Kept)
                }
                Write::Flush { .. } => Ok(Stored::Kept),
            });
        }
    }
    write.commit().map_err(disk)?;
    Ok(outcomes)
}

/// Whether a checked record takes the place of the present one: `None` when the present one stays without blame.
fn supersedes(new: &Checked, key: &[u8], present: &[u8]) -> Option<Result<Stored>> {
    let Ok(present) = record::check(key, present, now_ms()) else {
        return Some(Ok(Stored::New)); // damaged on disk
    };
    if new.key.kind.immutable() {
        return None;
    }
    match new.header.version.cmp(&present.header.version) {
        std::cmp::Ordering::Greater => Some(Ok(Stored::New)),
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Less => Some(Err(Error::Refused(format!(
            "version {} is older than {}, which is stored",
            new.header.version, present.header.version
        )))),
    }
}

/// Whether the present record comes from somebody else; an agent's own value then takes its place on its own disk.
fn foreign(new: &Checked, key: &[u8], present: &[u8]) -> bool {
    record::check(key, present, now_ms()).map_or(true, |present| present.header.author != new.header.author)
}

fn unpack<'a>(key: &[u8], value: &'a [u8], now_ms: u64) -> Option<&'a [u8]> {
    let (stored_at, record) = value.split_first_chunk::<8>()?;
    let agent = key.starts_with(b"/chorus/agent/");
    debug_assert_eq!(Kind::Agent.as_str(), "agent");
    let over = agent && now_ms.saturating_sub(u64::from_be_bytes(*stored_at)) > AGENT_KEPT_MS;
    (!over).then_some(record)
}

fn disk(error: impl Into<redb::Error>) -> Error {
    Error::Internal(format!("DHT store: {}", error.into()))
}
