//! The disk store of records (redb): one writer thread that commits what came together, readers that never wait for it.
//!
//! A name may hold records of several authors and for several roles, so that nobody can occupy the name of a value by being first. What others
//! wrote is bounded ([`Limits`]) and never pushes out what is there; this agent's own records are always taken.

mod disk;
mod tables;

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::record;
use crate::{
    Error, Result,
    net::shared::{Counters, bump, now_ms},
};
use disk::Disk;
pub(in crate::dht) use tables::{COPIES_PER_NAME, place, place_of};
pub use tables::{Entry, Stored, Usage};
use tables::{Ledger, Write};

/// Writes waiting for the writer; what peers send beyond it is refused, own writes wait.
const WRITE_QUEUE: usize = 1024;
/// Writes in one commit.
const BATCH_MAX: usize = 256;

/// How much of others' records a store takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of each member of the mesh; all authors who are no members share as much.
    pub author_bytes: u64,
    /// Bytes of everybody but this agent.
    pub foreign_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { author_bytes: 1024 * 1024 * 1024, foreign_bytes: 16 * 1024 * 1024 * 1024 }
    }
}

/// Peer ids of the members of the mesh.
pub(crate) type Members = Arc<RwLock<HashSet<String>>>;

/// Records on disk; cheap to clone.
#[derive(Clone)]
pub struct Store {
    disk: Arc<Disk>,
    writer: mpsc::Sender<Job>,
    members: Members,
    local: Arc<str>,
    counters: Arc<Counters>,
}

enum Job {
    Write { write: Write, done: Option<oneshot::Sender<Result<Stored>>> },
    Flush { done: oneshot::Sender<()> },
}

impl Store {
    /// Opens or makes the store of the agent `local`.
    pub(crate) async fn open(path: &Path, local: String, limits: Limits, counters: Arc<Counters>) -> Result<Self> {
        let path = path.to_owned();
        Self::over(move || disk::open_released(&path), local, limits, counters).await
    }

    /// A store over what `opener` opens, also again after a disk error.
    pub(crate) async fn over(
        opener: impl Fn() -> Result<redb::Database> + Send + Sync + 'static,
        local: String,
        limits: Limits,
        counters: Arc<Counters>,
    ) -> Result<Self> {
        let members = Members::default();
        let (of, known) = (local.clone(), members.clone());
        let (disk, ledger) = tokio::task::spawn_blocking(move || {
            let disk = Arc::new(Disk::new(Box::new(opener))?);
            let ledger = Ledger::new(&disk, of, limits, known)?;
            Ok::<_, Error>((disk, ledger))
        })
        .await
        .map_err(|e| Error::Internal(e.to_string()))??;
        let (writer, queue) = mpsc::channel(WRITE_QUEUE);
        let store = Self { disk: disk.clone(), writer, members, local: local.into(), counters };
        std::thread::Builder::new().name("dht-store".into()).spawn(move || write_loop(&disk, ledger, queue))?;
        Ok(store)
    }

    /// Stores a record of this agent and answers once it is on disk. It is remembered as one that others do not hold yet,
    /// until [`settle`](Self::settle).
    pub(crate) async fn put(&self, key: &[u8], record: Bytes) -> Result<Stored> {
        let checked = Box::new(record::check(key, &record, now_ms())?);
        self.write(Write::Put { checked, record, pending: true }).await
    }

    /// Takes a peer's record if it is sound, and answers once it is on disk.
    pub(crate) async fn keep(&self, key: &[u8], record: Bytes) -> Result<Stored> {
        let write = self.checked(key, record)?;
        let (done, answer) = oneshot::channel();
        self.send(Job::Write { write, done: Some(done) })?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Takes a peer's record if it is sound; never waits.
    pub(crate) fn offer(&self, key: &[u8], record: Bytes) -> Result<()> {
        let write = self.checked(key, record)?;
        self.send(Job::Write { write, done: None })
    }

    /// Records under a key whose time is not over: this agent's own first, one for each author.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Vec<Bytes> {
        self.disk.read(|database| tables::get(database, key, &self.local, now_ms())).unwrap_or_else(|error| {
            tracing::warn!(%error, "the record store cannot be read");
            Vec::new()
        })
    }

    /// How many records there are.
    pub fn len(&self) -> Result<u64> {
        self.disk.read(tables::len)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// How much is stored.
    pub fn usage(&self) -> Result<Usage> {
        self.disk.read(|database| tables::usage(database, &self.local))
    }

    /// Who is in the mesh: each of them has a share of the store.
    pub fn set_members(&self, members: HashSet<String>) {
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = members;
    }

    /// Up to `count` records that follow a place; those whose time is over are forgotten on the way.
    pub(crate) fn walk(&self, after: Option<&[u8]>, count: usize) -> Result<Vec<Entry>> {
        let now = now_ms();
        let entries = self.disk.read(|database| tables::walk(database, after, count))?;
        for over in entries.iter().filter(|entry| entry.until <= now) {
            let _ = self.send(Job::Write { write: Write::Forget { place: over.place.clone() }, done: None });
        }
        Ok(entries)
    }

    /// Up to `count` own records, after a place, that too few others hold as far as is known.
    pub(crate) fn pending(&self, after: Option<&[u8]>, count: usize) -> Result<Vec<Entry>> {
        self.disk.read(|database| tables::pending(database, after, count))
    }

    /// The record at a place that [`walk`](Self::walk) or [`pending`](Self::pending) named.
    pub(crate) fn at(&self, place: &[u8]) -> Option<Bytes> {
        self.disk.read(|database| tables::at(database, place)).ok().flatten()
    }

    /// Which of some records this store has not, or has in an older version.
    pub(crate) fn lacks(&self, held: &[(Vec<u8>, u64)]) -> Result<Vec<usize>> {
        self.disk.read(|database| tables::lacks(database, held, now_ms()))
    }

    /// Enough others hold the own record at a place now.
    pub(crate) async fn settle(&self, place: Vec<u8>) {
        let _ = self.writer.send(Job::Write { write: Write::Settle { place }, done: None }).await;
    }

    /// Waits until everything accepted so far is on disk.
    pub(crate) async fn flush(&self) {
        let (done, answer) = oneshot::channel();
        if self.writer.send(Job::Flush { done }).await.is_ok() {
            let _ = answer.await;
        }
    }

    /// Lays a record on the disk without any check.
    #[cfg(test)]
    pub(crate) fn plant(&self, key: &[u8], author: &str, record: &[u8], until: u64) {
        self.disk.read(|database| tables::plant(database, &place(key, author, None), record, until)).unwrap();
    }

    async fn write(&self, write: Write) -> Result<Stored> {
        let (done, answer) = oneshot::channel();
        self.writer.send(Job::Write { write, done: Some(done) }).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    fn checked(&self, key: &[u8], record: Bytes) -> Result<Write> {
        match record::check(key, &record, now_ms()) {
            Ok(checked) => Ok(Write::Put { checked: Box::new(checked), record, pending: false }),
            Err(error) => {
                bump(&self.counters.dht_refused);
                Err(error)
            }
        }
    }

    fn send(&self, job: Job) -> Result<()> {
        self.writer.try_send(job).map_err(|_| Error::Unavailable("the record store is behind".into()))
    }
}

fn write_loop(disk: &Disk, mut ledger: Ledger, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        let writes = batch.iter().filter_map(|job| match job {
            Job::Write { write, .. } => Some(write),
            Job::Flush { .. } => None,
        });
        let writes: Vec<&Write> = writes.collect();
        let outcomes = if writes.is_empty() { Ok(Vec::new()) } else { commit(disk, &mut ledger, &writes) };
        if let Err(error) = &outcomes {
            tracing::error!(%error, "DHT records could not be written");
        }
        let mut outcomes = outcomes.map(Vec::into_iter);
        for job in batch {
            match job {
                Job::Write { done, .. } => {
                    let outcome = match &mut outcomes {
                        Ok(all) => all.next().unwrap_or(Err(Error::Closed)),
                        Err(error) => Err(error.clone()),
                    };
                    if let Some(done) = done {
                        let _ = done.send(outcome);
                    }
                }
                Job::Flush { done } => {
                    let _ = done.send(());
                }
            }
        }
    }
}

/// Commits a batch; after a disk error the file is opened anew, so that the next batch finds it usable.
fn commit(disk: &Disk, ledger: &mut Ledger, writes: &[&Write]) -> Result<Vec<Result<Stored>>> {
    if !disk.is_open() {
        disk.reopen()?;
        ledger.recount(disk)?;
    }
    let outcome = disk.read(|database| tables::commit(database, ledger, writes, now_ms()));
    if outcome.is_err()
        && let Err(error) = disk.reopen().and_then(|()| ledger.recount(disk))
    {
        tracing::error!(%error, "the record store could not be opened again");
    }
    outcome
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests;
