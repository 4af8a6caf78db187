//! The agent's own log: a Hypercore that only grows, signed with the agent's key, each entry a JSON object
//! `{type, timestamp, author, data}`. What goes into it, and whether it was redacted, is the caller's.
//!
//! One thread owns the files. It appends what waits in one batch and answers when that is on disk. Opening, appending and
//! reading cost the same however long the log is; only a [`Verifier`] reads all of it.

mod oplog;
mod repair;
mod storage;
mod tree;
mod verify;

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use futures::executor::block_on;
use hypercore::{Hypercore, HypercoreBuilder, HypercoreError, PartialKeypair, SigningKey};
use libp2p::identity::Keypair;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{Error, Result};

pub use repair::Repair;
pub use verify::{Verified, Verifier};

/// An entry is a note, not a store.
const MAX_ENTRY_BYTES: usize = 1 << 20;

/// Appends that may wait; more wait at the caller.
const QUEUE_ENTRIES: usize = 1024;

/// One batch is one signature and two syncs.
const MAX_BATCH_ENTRIES: usize = 256;
const MAX_BATCH_BYTES: usize = 4 << 20;

/// A page holds no more than this, and no more entries are looked at for it, however many were asked for: appends wait.
const MAX_PAGE_SCAN: u64 = 1024;
const MAX_PAGE_BYTES: usize = 8 << 20;

/// A page is read in slices of so much, and what waits to be appended goes between them: a slice takes some milliseconds.
const SLICE_ENTRIES: usize = 32;
const SLICE_BYTES: usize = 256 << 10;

/// Pages whose turn has not come. With more of them the first is read in one go, and appends wait for it.
const MAX_READINGS: usize = 64;

/// What the log is at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogInfo {
    /// Entries.
    pub length: u64,
    /// Bytes in all of them.
    pub byte_length: u64,
    /// The public key that verifies the log, hex; it is the Hypercore's key.
    pub key: String,
    /// How often signed history was lost and begun anew.
    pub fork: u64,
}

/// The way to the log. Clones lead to the same one; with the last of them it is closed.
#[derive(Debug, Clone)]
pub struct LogHandle {
    commands: mpsc::Sender<Command>,
    info: watch::Receiver<LogInfo>,
}

/// Which entries of the log.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// The first number of interest; newest first, the one after it. Absent: the beginning or the end.
    pub from: Option<u64>,
    /// At most so many.
    pub count: u64,
    /// Only of this type.
    pub kind: Option<String>,
    /// Backwards.
    pub newest_first: bool,
}

/// Some entries, with their numbers.
#[derive(Debug, Clone)]
pub struct Page {
    /// In the order asked for.
    pub entries: Vec<(u64, Map<String, Value>)>,
    /// `from` of the page after this one.
    pub next: u64,
    /// Entries in the log.
    pub length: u64,
}

#[derive(Debug)]
enum Command {
    Append { entry: Vec<u8>, reply: oneshot::Sender<Result<u64>> },
    Read { query: Query, reply: oneshot::Sender<Result<Page>> },
    Verify { reply: oneshot::Sender<Result<Verifier>> },
    Close { reply: oneshot::Sender<()> },
}

impl LogHandle {
    /// Opens the log in `folder`, or begins one, after cutting off what a crash left half-written.
    ///
    /// # Errors
    /// `Invalid` when the log there is another identity's; `Internal` when the disk fails.
    pub fn open(folder: impl AsRef<Path>, keypair: &Keypair) -> Result<(Self, Option<Repair>)> {
        let folder = folder.as_ref().to_path_buf();
        let key = signing_key(keypair)?;
        let (core, repair) = open_core(&folder, &key)?;
        let (changed, info) = watch::channel(describe(&core, &key));
        let (commands, queue) = mpsc::channel(QUEUE_ENTRIES);
        let mut writer = Writer { folder, key, core: Some(core), info: changed };
        std::thread::Builder::new().name("chorus-log".into()).spawn(move || writer.run(queue))?;
        Ok((Self { commands, info }, repair))
    }

    /// Appends an entry and gives its number, once it is on disk.
    ///
    /// # Errors
    /// `TooLarge` above 1 MiB; `Internal` when the disk fails (then the entry is not in the log); `Closed`.
    pub async fn append(&self, kind: &str, data: Value, author: &str) -> Result<u64> {
        let entry = json!({"type": kind, "timestamp": now_ms(), "author": author, "data": data}).to_string();
        if entry.len() > MAX_ENTRY_BYTES {
            return Err(Error::TooLarge(format!("a log entry of {} bytes; at most {MAX_ENTRY_BYTES}", entry.len())));
        }
        let (reply, answer) = oneshot::channel();
        self.send(Command::Append { entry: entry.into_bytes(), reply }).await?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Entries in either order. A page may hold fewer than asked for, or none, before the end: `next` says where to go on.
    ///
    /// # Errors
    /// `Tampered` when an entry cannot be read as it was written; `Closed`.
    pub async fn page(&self, query: Query) -> Result<Page> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Read { query, reply }).await?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Begins to verify the log as it is now. Its steps are for a thread that may wait; appends go on meanwhile.
    ///
    /// # Errors
    /// As [`Verifier::open`]; `Closed`.
    pub async fn verifier(&self) -> Result<Verifier> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Verify { reply }).await?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// What the log is now.
    #[must_use]
    pub fn info(&self) -> LogInfo {
        self.info.borrow().clone()
    }

    /// The same, and word of every change; closed with the log.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<LogInfo> {
        self.info.clone()
    }

    /// Closes the log for all handles, after what was asked before.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.send(Command::Close { reply }).await.is_ok() {
            // An answer or none: either way the files are closed.
            let _ = answer.await;
        }
    }

    async fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).await.map_err(|_| Error::Closed)
    }
}

/// What the log's thread owns.
struct Writer {
    folder: PathBuf,
    key: SigningKey,
    /// Nothing after a failure; then the next command opens it again.
    core: Option<Hypercore>,
    info: watch::Sender<LogInfo>,
}

struct Waiting {
    entry: Vec<u8>,
    reply: oneshot::Sender<Result<u64>>,
}

/// A page on its way.
struct Reading {
    query: Query,
    reply: oneshot::Sender<Result<Page>>,
    /// Of the log's length when the page was begun: what is appended meanwhile is not in it.
    page: Option<Page>,
    scanned: u64,
    bytes: usize,
}

impl Writer {
    fn run(&mut self, mut queue: mpsc::Receiver<Command>) {
        let mut next = None;
        let mut readings: VecDeque<Reading> = VecDeque::new();
        loop {
            let command = match next.take() {
                None if readings.is_empty() => match queue.blocking_recv() {
                    None => return,
                    some => some,
                },
                None => queue.try_recv().ok(),
                some => some,
            };
            match command {
                None => {}
                Some(Command::Append { entry, reply }) => {
                    let mut batch = vec![Waiting { entry, reply }];
                    let mut bytes = batch[0].entry.len();
                    while batch.len() < MAX_BATCH_ENTRIES && bytes < MAX_BATCH_BYTES {
                        match queue.try_recv() {
                            Ok(Command::Append { entry, reply }) => {
                                bytes += entry.len();
                                batch.push(Waiting { entry, reply });
                            }
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.append(batch);
                }
                Some(Command::Read { query, reply }) => {
                    readings.push_back(Reading { query, reply, page: None, scanned: 0, bytes: 0 });
                }
                // The files are at rest now; what is written later does not change what this one will read.
                Some(Command::Verify { reply }) => {
                    let verifier =
                        Verifier::open(&self.folder).and_then(|verifier| verifier.by(&self.key.verifying_key()));
                    // Nobody waits any more for an answer that cannot be given; so below.
                    let _ = reply.send(verifier);
                }
                Some(Command::Close { reply }) => {
                    self.finish(&mut readings, 0);
                    self.core = None;
                    let _ = reply.send(());
                    return;
                }
            }
            self.finish(&mut readings, MAX_READINGS);
            if let Some(mut reading) = readings.pop_front() {
                match self.read_slice(&mut reading) {
                    Some(answer) => drop(reading.reply.send(answer)),
                    None => readings.push_front(reading),
                }
            }
        }
    }

    /// Reads pages to their end, the oldest first, until no more than `left` remain.
    fn finish(&mut self, readings: &mut VecDeque<Reading>, left: usize) {
        while readings.len() > left {
            let Some(mut reading) = readings.pop_front() else { return };
            let answer = loop {
                if let Some(answer) = self.read_slice(&mut reading) {
                    break answer;
                }
            };
            let _ = reading.reply.send(answer);
        }
    }

    fn append(&mut self, batch: Vec<Waiting>) {
        let entries: Vec<&[u8]> = batch.iter().map(|waiting| waiting.entry.as_slice()).collect();
        let outcome = self.append_entries(&entries);
        for (index, waiting) in batch.into_iter().enumerate() {
            let answer = outcome.as_ref().map(|first| first + index as u64).map_err(Clone::clone);
            let _ = waiting.reply.send(answer);
        }
    }

    /// Gives the number of the batch's first entry.
    fn append_entries(&mut self, entries: &[&[u8]]) -> Result<u64> {
        let core = self.core()?;
        let first = core.info().length;
        let failure = match block_on(core.append_batch(entries)) {
            Ok(_) => {
                self.refresh();
                return Ok(first);
            }
            Err(e) => failed(&e),
        };
        // What is in memory may differ from what is on disk now. The files say whether the batch is in the log.
        self.core = None;
        let length = self.core()?.info().length;
        self.refresh();
        if length == first + entries.len() as u64 { Ok(first) } else { Err(failure) }
    }

    /// The page's next slice; the answer when it was the last one.
    fn read_slice(&mut self, reading: &mut Reading) -> Option<Result<Page>> {
        match self.try_read_slice(reading) {
            Ok(false) => None,
            Ok(true) => reading.page.take().map(Ok),
            Err(e) => Some(Err(e)),
        }
    }

    /// Whether the page is complete.
    fn try_read_slice(&mut self, reading: &mut Reading) -> Result<bool> {
        let core = self.core()?;
        let query = &reading.query;
        let page = reading.page.get_or_insert_with(|| {
            let length = core.info().length;
            let next = if query.newest_first {
                query.from.map_or(length, |from| from.min(length))
            } else {
                query.from.unwrap_or(0)
            };
            Page { entries: Vec::new(), next, length }
        });
        let mut bytes = 0;
        for _ in 0..SLICE_ENTRIES {
            let coming = if query.newest_first {
                page.next.checked_sub(1)
            } else {
                (page.next < page.length).then_some(page.next)
            };
            let room = (page.entries.len() as u64) < query.count && reading.bytes < MAX_PAGE_BYTES;
            let Some(number) = coming.filter(|_| room && reading.scanned < MAX_PAGE_SCAN) else {
                return Ok(true);
            };
            let block = block_on(core.get(number)).map_err(|e| damaged(number, &e))?;
            let block = block.ok_or_else(|| damaged(number, &"it is missing"))?;
            let entry: Map<String, Value> = serde_json::from_slice(&block).map_err(|e| damaged(number, &e))?;
            bytes += block.len();
            reading.scanned += 1;
            if query.kind.as_ref().is_none_or(|kind| entry.get("type").is_some_and(|own| own == kind)) {
                reading.bytes += block.len();
                page.entries.push((number, entry));
            }
            page.next = if query.newest_first { number } else { number + 1 };
            if bytes >= SLICE_BYTES {
                break;
            }
        }
        Ok(false)
    }

    fn core(&mut self) -> Result<&Hypercore> {
        let core = match self.core.take() {
            Some(core) => core,
            None => {
                let (core, repair) = open_core(&self.folder, &self.key)?;
                tracing::warn!(?repair, "the log was opened again after a failure");
                core
            }
        };
        Ok(self.core.insert(core))
    }

    fn refresh(&mut self) {
        if let Some(core) = &self.core {
            self.info.send_replace(describe(core, &self.key));
        }
    }
}

fn open_core(folder: &Path, key: &SigningKey) -> Result<(Hypercore, Option<Repair>)> {
    let repair = repair::mend(folder, key)?;
    let pair = PartialKeypair { public: key.verifying_key(), secret: Some(key.clone()) };
    let open = async { HypercoreBuilder::new(storage::open_storage(folder).await?).key_pair(pair).build().await };
    Ok((block_on(open).map_err(|e| failed(&e))?, repair))
}

fn describe(core: &Hypercore, key: &SigningKey) -> LogInfo {
    let info = core.info();
    let key = hex::encode(key.verifying_key().to_bytes());
    LogInfo { length: info.length, byte_length: info.byte_length, key, fork: info.fork }
}

fn signing_key(keypair: &Keypair) -> Result<SigningKey> {
    let pair =
        keypair.clone().try_into_ed25519().map_err(|e| Error::Invalid(format!("the log needs an Ed25519 key: {e}")))?;
    let secret: [u8; 32] =
        pair.secret().as_ref().try_into().map_err(|_| Error::Internal("an Ed25519 secret has 32 bytes".into()))?;
    Ok(SigningKey::from_bytes(&secret))
}

fn failed(error: &HypercoreError) -> Error {
    Error::Internal(format!("the log failed: {error}"))
}

fn damaged(number: u64, why: &dyn std::fmt::Display) -> Error {
    Error::Tampered(format!("log entry {number} cannot be read: {why}"))
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
