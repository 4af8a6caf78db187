//! The log on disk: entries, hard state, ConfState by index, members and the founding entry in one
//! redb file, with the newest entries also in memory. One transaction per write, durable on return.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use bytes::Bytes;
use libp2p::PeerId;
use prost::Message as _;
use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::shared::lock;
use crate::{Error, Result, database};

/// The founding entry stands at this index and term on every member, as a snapshot that holds the
/// founder as sole voter: a member that lacks it would never vote rightly.
pub(super) const FOUNDING_INDEX: u64 = 1;
pub(super) const FOUNDING_TERM: u64 = 1;
/// The founder's raft id.
pub(super) const FOUNDER_ID: u64 = 1;

/// redb's own page cache; the newest entries are cached here already.
const PAGE_CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Newest entries kept in memory for followers and lagging members.
const RECENT_ENTRIES: usize = 4096;
const RECENT_BYTES: usize = 8 * 1024 * 1024;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const CONF: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("conf");
const MEMBERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("members");
const HINTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("hints");
const FORMER: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("former");

const MESH: &str = "mesh";
const RAFT_ID: &str = "raft_id";
const FOUNDING: &str = "founding";
const HARD: &str = "hard";
const APPLIED: &str = "applied";
/// Whose file this is.
const OWNER: &str = "owner";
/// Why this member must not take part any more.
const LOST: &str = "lost";
/// Why this member is one no more: its own log says that it was removed.
const REMOVED: &str = "removed";

type Opener = Box<dyn Fn() -> Result<Database> + Send + Sync>;

/// The store; clones share it.
#[derive(Clone)]
pub(super) struct Store(Arc<Inner>);

struct Inner {
    opener: Opener,
    db: RwLock<Option<Database>>,
    mem: Mutex<Mem>,
}

/// Who this agent is in its mesh.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub mesh: String,
    pub raft_id: u64,
    /// Stamp and founding entry.
    pub founding: Bytes,
    /// The peer whose votes these are; files of earlier releases may not tell.
    pub owner: Option<PeerId>,
}

/// What is needed without asking the disk.
#[derive(Default)]
pub(super) struct Mem {
    pub(super) identity: Option<Identity>,
    pub(super) lost: Option<String>,
    pub(super) removed: Option<String>,
    hard: HardState,
    conf: ConfState,
    pub(super) applied: u64,
    pub(super) last: u64,
    recent: VecDeque<Arc<Entry>>,
    recent_bytes: usize,
}

/// One transaction's worth of changes.
#[derive(Default)]
pub(super) struct Batch<'a> {
    pub hard: Option<HardState>,
    pub entries: &'a [Entry],
    pub applied: Option<u64>,
    pub conf: Option<(u64, &'a ConfState)>,
    /// A member that is listed from now on.
    pub joined: Option<(u64, PeerId)>,
    /// A member that is listed no more.
    pub left: Option<(u64, PeerId)>,
    /// Why this member itself is one no more.
    pub removed: Option<&'a str>,
    pub hints: &'a [(u64, PeerId)],
}

fn disk(error: impl std::fmt::Display) -> Error {
    Error::Internal(format!("raft.redb: {error}"))
}

fn encode_entry(entry: &Entry) -> Vec<u8> {
    entry.encode_to_vec()
}

fn decode_entry(bytes: &[u8]) -> Result<Entry> {
    Entry::decode(bytes).map_err(|error| disk(format_args!("damaged entry: {error}")))
}

impl Store {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        Self::with_opener(Box::new(move || {
            database::make_if_missing(&path).map_err(disk)?;
            Database::builder().set_cache_size(PAGE_CACHE_BYTES).open(&path).map_err(disk)
        }))
    }

    pub(super) fn with_opener(opener: Opener) -> Result<Self> {
        let store = Self(Arc::new(Inner { opener, db: RwLock::new(None), mem: Mutex::default() }));
        store.reopen()?;
        Ok(store)
    }

    /// Closes the database and reads everything anew: after an error redb takes no more writes.
    pub(super) fn reopen(&self) -> Result<()> {
        let mut slot = self.0.db.write().unwrap_or_else(PoisonError::into_inner);
        *slot = None;
        let db = (self.0.opener)()?;
        tables(&db)?;
        *lock(&self.0.mem) = load(&db)?;
        *slot = Some(db);
        Ok(())
    }

    pub(super) fn close(&self) {
        *self.0.db.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn with_db<T>(&self, work: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        let slot = self.0.db.read().unwrap_or_else(PoisonError::into_inner);
        work(slot.as_ref().ok_or(Error::Closed)?)
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        lock(&self.0.mem).identity.clone()
    }

    /// Why this member must not take part any more: its log lacks what it has acknowledged.
    pub(super) fn lost(&self) -> Option<String> {
        lock(&self.0.mem).lost.clone()
    }

    /// Why this member is one no more: its own log says that it was removed.
    pub(super) fn removed(&self) -> Option<String> {
        lock(&self.0.mem).removed.clone()
    }

    /// Whether a member lives here that may take part in its mesh.
    pub(super) fn takes_part(&self) -> bool {
        let mem = lock(&self.0.mem);
        mem.identity.is_some() && mem.lost.is_none() && mem.removed.is_none()
    }

    /// Ends this member for good: neither this start nor a later one takes part.
    pub(super) fn retire(&self, why: &str) -> Result<()> {
        lock(&self.0.mem).lost = Some(why.to_owned());
        self.with_db(|db| {
            let transaction = db.begin_write().map_err(disk)?;
            transaction.open_table(META).map_err(disk)?.insert(LOST, why.as_bytes()).map_err(disk)?;
            transaction.commit().map_err(disk)
        })
    }

    pub(super) fn applied(&self) -> u64 {
        lock(&self.0.mem).applied
    }

    pub(super) fn last(&self) -> u64 {
        lock(&self.0.mem).last
    }

    pub(super) fn hard(&self) -> HardState {
        lock(&self.0.mem).hard.clone()
    }

    /// Makes this agent a member: the state every member starts from, and what is its own.
    pub(super) fn init(&self, identity: &Identity, founder: PeerId, hints: &[(u64, PeerId)]) -> Result<()> {
        self.with_db(|db| {
            let transaction = db.begin_write().map_err(disk)?;
            {
                let mut meta = transaction.open_table(META).map_err(disk)?;
                meta.insert(MESH, identity.mesh.as_bytes()).map_err(disk)?;
                if let Some(owner) = identity.owner {
                    meta.insert(OWNER, owner.to_bytes().as_slice()).map_err(disk)?;
                }
                meta.insert(RAFT_ID, identity.raft_id.to_be_bytes().as_slice()).map_err(disk)?;
                meta.insert(FOUNDING, identity.founding.as_ref()).map_err(disk)?;
                let hard = HardState { term: FOUNDING_TERM, vote: 0, commit: FOUNDING_INDEX };
                meta.insert(HARD, hard.encode_to_vec().as_slice()).map_err(disk)?;
                meta.insert(APPLIED, FOUNDING_INDEX.to_be_bytes().as_slice()).map_err(disk)?;
                let voters = ConfState { voters: vec![FOUNDER_ID], ..ConfState::default() };
                let mut conf = transaction.open_table(CONF).map_err(disk)?;
                conf.insert(FOUNDING_INDEX, voters.encode_to_vec().as_slice()).map_err(disk)?;
                let mut members = transaction.open_table(MEMBERS).map_err(disk)?;
                members.insert(FOUNDER_ID, founder.to_bytes().as_slice()).map_err(disk)?;
                let mut table = transaction.open_table(HINTS).map_err(disk)?;
                for (id, peer) in hints {
                    table.insert(id, peer.to_bytes().as_slice()).map_err(disk)?;
                }
            }
            transaction.commit().map_err(disk)?;
            *lock(&self.0.mem) = load(db)?;
            Ok(())
        })
    }

    /// Writes a batch; durable when it returns. A commit index above the last entry is not kept: the
    /// machine does not start from one, and it is learnt again from the leader.
    pub(super) fn write(&self, batch: &Batch<'_>) -> Result<()> {
        let last = batch.entries.last().map_or_else(|| self.last(), |entry| entry.index);
        let hard = batch.hard.clone().map(|hard| HardState { commit: hard.commit.min(last), ..hard });
        let batch = &Batch { hard, ..*batch };
        self.with_db(|db| {
            let transaction = db.begin_write().map_err(disk)?;
            {
                let mut meta = transaction.open_table(META).map_err(disk)?;
                if let Some(hard) = &batch.hard {
                    meta.insert(HARD, hard.encode_to_vec().as_slice()).map_err(disk)?;
                }
                if let Some(applied) = batch.applied {
                    meta.insert(APPLIED, applied.to_be_bytes().as_slice()).map_err(disk)?;
                }
                if let Some(first) = batch.entries.first() {
                    let mut log = transaction.open_table(LOG).map_err(disk)?;
                    if first.index <= self.last() {
                        log.retain_in(first.index.., |_, _| false).map_err(disk)?;
                    }
                    for entry in batch.entries {
                        log.insert(entry.index, encode_entry(entry).as_slice()).map_err(disk)?;
                    }
                }
                if let Some((index, state)) = batch.conf {
                    let mut conf = transaction.open_table(CONF).map_err(disk)?;
                    conf.insert(index, state.encode_to_vec().as_slice()).map_err(disk)?;
                }
                if let Some((id, peer)) = batch.joined {
                    let mut members = transaction.open_table(MEMBERS).map_err(disk)?;
                    members.insert(id, peer.to_bytes().as_slice()).map_err(disk)?;
                    // The log says now who was admitted up to here.
                    let mut hints = transaction.open_table(HINTS).map_err(disk)?;
                    hints.retain_in(..=id, |_, _| false).map_err(disk)?;
                }
                if let Some((id, peer)) = batch.left {
                    transaction.open_table(MEMBERS).map_err(disk)?.remove(id).map_err(disk)?;
                    let mut former = transaction.open_table(FORMER).map_err(disk)?;
                    former.insert(id, peer.to_bytes().as_slice()).map_err(disk)?;
                }
                if let Some(why) = batch.removed {
                    meta.insert(REMOVED, why.as_bytes()).map_err(disk)?;
                }
                if !batch.hints.is_empty() {
                    let mut hints = transaction.open_table(HINTS).map_err(disk)?;
                    for (id, peer) in batch.hints {
                        hints.insert(id, peer.to_bytes().as_slice()).map_err(disk)?;
                    }
                }
            }
            transaction.commit().map_err(disk)?;
            lock(&self.0.mem).take_over(batch);
            Ok(())
        })
    }

    /// The listed members, those only heard of from others, and those that were removed.
    pub(super) fn members(&self) -> Result<[BTreeMap<u64, PeerId>; 3]> {
        self.with_db(|db| {
            let transaction = db.begin_read().map_err(disk)?;
            let read = |table| -> Result<BTreeMap<u64, PeerId>> {
                let table: redb::ReadOnlyTable<u64, &[u8]> = transaction.open_table(table).map_err(disk)?;
                let mut peers = BTreeMap::new();
                for row in table.iter().map_err(disk)? {
                    let (id, peer) = row.map_err(disk)?;
                    peers.insert(id.value(), PeerId::from_bytes(peer.value()).map_err(disk)?);
                }
                Ok(peers)
            };
            Ok([read(MEMBERS)?, read(HINTS)?, read(FORMER)?])
        })
    }

    /// Entries from `low` up to but without `high`; at least one when there is one, else as many as
    /// `max_bytes` holds.
    pub(super) fn read(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Arc<Entry>>> {
        {
            let mut found = Vec::new();
            let mut bytes = 0;
            let mut fits = |entry: &Entry, count: usize| {
                bytes += entry.encoded_len() as u64;
                count == 0 || bytes <= max_bytes
            };
            let mem = lock(&self.0.mem);
            if mem.recent.front().is_some_and(|first| first.index <= low) {
                let skip = usize::try_from(low - mem.recent[0].index).unwrap_or(usize::MAX);
                for entry in mem.recent.iter().skip(skip) {
                    if entry.index >= high || !fits(entry, found.len()) {
                        break;
                    }
                    found.push(Arc::clone(entry));
                }
                return Ok(found);
            }
        }
        let limit = usize::try_from(high.saturating_sub(low)).unwrap_or(usize::MAX);
        let found = self.with_db(|db| entries(db, low, limit, max_bytes))?;
        Ok(found.into_iter().map(Arc::new).collect())
    }
}

impl Mem {
    fn take_over(&mut self, batch: &Batch<'_>) {
        if let Some(hard) = &batch.hard {
            self.hard = hard.clone();
        }
        if let Some(applied) = batch.applied {
            self.applied = applied;
        }
        if let Some((_, conf)) = batch.conf {
            self.conf = conf.clone();
        }
        if let Some(why) = batch.removed {
            self.removed = Some(why.to_owned());
        }
        if let Some(first) = batch.entries.first() {
            while self.recent.back().is_some_and(|entry| entry.index >= first.index) {
                if let Some(gone) = self.recent.pop_back() {
                    self.recent_bytes -= gone.data.len();
                }
            }
        }
        for entry in batch.entries {
            self.last = entry.index;
            self.recent_bytes += entry.data.len();
            self.recent.push_back(Arc::new(entry.clone()));
        }
        while self.recent.len() > RECENT_ENTRIES || self.recent_bytes > RECENT_BYTES {
            let Some(oldest) = self.recent.pop_front() else {
                break;
            };
            self.recent_bytes -= oldest.data.len();
        }
    }
}

pub(super) fn load(db: &Database) -> Result<Mem> {
    let transaction = db.begin_read().map_err(disk)?;
    let meta = transaction.open_table(META).map_err(disk)?;
    let bytes = |name: &str| -> Result<Option<Vec<u8>>> {
        Ok(meta.get(name).map_err(disk)?.map(|value| value.value().to_vec()))
    };
    let number = |name: &str| -> Result<u64> {
        let value = bytes(name)?.ok_or_else(|| disk(format_args!("{name} is missing")))?;
        let value: [u8; 8] = value.try_into().map_err(|_| disk(format_args!("{name} is damaged")))?;
        Ok(u64::from_be_bytes(value))
    };
    let Some(mesh) = bytes(MESH)? else {
        return Ok(Mem::default());
    };
    let raft_id = number(RAFT_ID)?;
    let owner = match bytes(OWNER)? {
        Some(owner) => Some(owner),
        // A file of an earlier release: the log lists this member sooner or later.
        None => {
            let members = transaction.open_table(MEMBERS).map_err(disk)?;
            members.get(raft_id).map_err(disk)?.map(|peer| peer.value().to_vec())
        }
    };
    let identity = Identity {
        mesh: String::from_utf8(mesh).map_err(disk)?,
        raft_id,
        owner: owner.map(|owner| PeerId::from_bytes(&owner).map_err(disk)).transpose()?,
        founding: bytes(FOUNDING)?.ok_or_else(|| disk("the founding entry is missing"))?.into(),
    };
    let hard = bytes(HARD)?.ok_or_else(|| disk("the vote is missing"))?;
    let mut hard = HardState::decode(hard.as_slice()).map_err(disk)?;
    let applied = number(APPLIED)?;
    let conf = transaction.open_table(CONF).map_err(disk)?;
    let conf = conf.range(..=applied).map_err(disk)?.next_back();
    let conf = conf.ok_or_else(|| disk("no configuration is stored"))?.map_err(disk)?;
    let conf = ConfState::decode(conf.1.value()).map_err(disk)?;
    let log = transaction.open_table(LOG).map_err(disk)?;
    let last = log.last().map_err(disk)?.map_or(FOUNDING_INDEX, |(index, _)| index.value());
    if applied > last {
        return Err(disk(format_args!("{applied} entries were applied, and the log ends at {last}")));
    }
    if hard.commit > last {
        // Left by a release that saved it before the entries; nothing above the last one was acknowledged.
        tracing::warn!(commit = hard.commit, last, "the commit index was above the log's end and is learnt again");
        hard.commit = last;
    }
    let text = |name| Ok::<_, Error>(bytes(name)?.map(|why| String::from_utf8_lossy(&why).into_owned()));
    let (lost, removed) = (text(LOST)?, text(REMOVED)?);
    Ok(Mem { identity: Some(identity), lost, removed, hard, conf, applied, last, ..Mem::default() })
}

/// Up to `limit` entries from index `low` on; at least one when there is one, else as many as `max_bytes` holds.
pub(super) fn entries(db: &Database, low: u64, limit: usize, max_bytes: u64) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut bytes = 0;
    let table = db.begin_read().map_err(disk)?.open_table(LOG).map_err(disk)?;
    for row in table.range(low..).map_err(disk)?.take(limit) {
        let (_, value) = row.map_err(disk)?;
        bytes += value.value().len() as u64;
        if !found.is_empty() && bytes > max_bytes {
            break;
        }
        found.push(decode_entry(value.value())?);
    }
    Ok(found)
}

/// Makes the tables that are not there yet.
pub(super) fn tables(db: &Database) -> Result<()> {
    let transaction = db.begin_write().map_err(disk)?;
    for table in [LOG, CONF, MEMBERS, HINTS, FORMER] {
        transaction.open_table(table).map_err(disk)?;
    }
    transaction.open_table(META).map_err(disk)?;
    transaction.commit().map_err(disk)
}

fn raft_error(error: Error) -> raft::Error {
    raft::Error::Store(StorageError::Other(Box::new(error)))
}

impl Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mem = lock(&self.0.mem);
        Ok(RaftState::new(mem.hard.clone(), mem.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= FOUNDING_INDEX {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let max_bytes = max_size.into().unwrap_or(u64::MAX);
        let found = self.read(low, high, max_bytes).map_err(raft_error)?;
        if found.is_empty() && low < high {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        Ok(found.into_iter().map(|entry| Entry::clone(&entry)).collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == FOUNDING_INDEX {
            return Ok(FOUNDING_TERM);
        }
        if index < FOUNDING_INDEX {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let found = self.read(index, index + 1, u64::MAX).map_err(raft_error)?;
        let entry = found.first().ok_or(raft::Error::Store(StorageError::Unavailable))?;
        Ok(entry.term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(FOUNDING_INDEX + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        // Nothing is compacted, so that every member can be served from index 2 on.
        Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;

    const LAST: u64 = 3;

    fn store(folder: &Path) -> Store {
        let store = Store::open(&folder.join("raft.redb")).unwrap();
        if store.identity().is_none() {
            let identity =
                Identity { mesh: "m".into(), raft_id: FOUNDER_ID, founding: Bytes::from_static(b"x"), owner: None };
            store.init(&identity, Keypair::generate_ed25519().public().to_peer_id(), &[]).unwrap();
            let entries: Vec<Entry> = (2..=LAST).map(|index| Entry { index, term: 1, ..Entry::default() }).collect();
            store.write(&Batch { entries: &entries, ..Batch::default() }).unwrap();
        }
        store
    }

    #[test]
    fn a_commit_above_the_last_entry_is_not_saved() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let hard = |commit| Some(HardState { term: 5, vote: 2, commit });
        store.write(&Batch { hard: hard(9), ..Batch::default() }).unwrap();
        assert_eq!(store.hard(), hard(LAST).unwrap());
        store.reopen().unwrap();
        assert_eq!(store.hard(), hard(LAST).unwrap());
        let next = [Entry { index: LAST + 1, term: 5, ..Entry::default() }];
        store.write(&Batch { hard: hard(LAST + 1), entries: &next, ..Batch::default() }).unwrap();
        assert_eq!(store.hard(), hard(LAST + 1).unwrap());
    }

    #[test]
    fn a_commit_above_the_last_entry_that_an_earlier_release_saved_is_not_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        store
            .with_db(|db| {
                let transaction = db.begin_write().map_err(disk)?;
                let hard = HardState { term: 5, vote: 2, commit: LAST + 6 }.encode_to_vec();
                transaction.open_table(META).map_err(disk)?.insert(HARD, hard.as_slice()).map_err(disk)?;
                transaction.commit().map_err(disk)
            })
            .unwrap();
        store.reopen().unwrap();
        assert_eq!(store.hard(), HardState { term: 5, vote: 2, commit: LAST });
    }
}
