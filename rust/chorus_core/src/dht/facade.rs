//! The interface to records: putting, getting, providing, and what all of it shares.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
use libp2p::{PeerId, identity::Keypair};
use tokio::{
    sync::{Notify, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Store, Usage, VALUE_MAX_BYTES,
    cache::ValueCache,
    key::{Kind, RecordKey, content_hash},
    manifest::BLOCK_BYTES,
    replicas::Replicas,
    republish,
};
use crate::{
    Error, Result,
    net::{
        Ask, KadHandle, NetHandle, Reply,
        shared::{Counters, bump},
    },
};

/// Peers that a get may be told to ask.
pub const HINTS_MAX: usize = 32;
/// How long writing down or finding who can give something may take.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a get may take, all blocks included.
const GET_TIMEOUT: Duration = Duration::from_secs(60);
/// Requests to replicas that nobody waits for any more, and requests of peers in work.
const BACKGROUND_MAX: usize = 256;
const SERVED_MAX: usize = 1024;

/// Seals to roles and opens what this agent may read.
pub trait Sealer: Send + Sync {
    /// Seals a value for a role (`None`: every member).
    fn seal(&self, role: Option<&str>, plain: &[u8]) -> Result<Vec<u8>>;
    /// Opens a sealed value, or says that it is not permitted.
    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>>;
    /// Whether a value for a role may be read now; what was opened before may be so no longer.
    fn reads(&self, role: Option<&str>) -> bool;
}

/// What the DHT needs.
pub struct DhtConfig {
    /// The network; whether Kademlia runs was decided there.
    pub net: NetHandle,
    /// The author's key.
    pub keypair: Keypair,
    /// Seals and opens.
    pub sealer: Arc<dyn Sealer>,
    /// Memory for opened values (`CHORUS_DHT_CACHE_SIZE`).
    pub cache_bytes: u64,
}

/// A value that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhtValue {
    /// Peer id of its author.
    pub author: String,
    /// Role that it is sealed for.
    pub role: Option<String>,
    /// Milliseconds since the epoch.
    pub created_at_ms: u64,
    /// Version; the higher one replaces.
    pub version: u64,
    /// The plain value.
    pub bytes: Bytes,
}

/// What became of a put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The record's key.
    pub key: String,
    /// Other agents that have it on disk by now; more follow.
    pub replicas: usize,
}

/// The DHT; cheap to clone.
#[derive(Clone)]
pub struct Dht {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) kad: KadHandle,
    pub(super) store: Store,
    pub(super) replicas: Replicas,
    pub(super) local: PeerId,
    pub(super) keypair: Keypair,
    pub(super) sealer: Arc<dyn Sealer>,
    pub(super) cache: ValueCache,
    pub(super) counters: Arc<Counters>,
    /// Versions only grow, also when the clock goes back.
    pub(super) last_version: AtomicU64,
    /// Room for requests that go on after their caller has been answered.
    pub(super) background: Arc<Semaphore>,
    pub(super) served: Semaphore,
    /// There may be somebody to give pending records to.
    pub(super) chance: Arc<Notify>,
    pub(super) stop: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Dht {
    /// Starts the DHT over a running network; with Kademlia switched off it works on the local store, and on those of
    /// the peers that a get is told to ask.
    #[must_use]
    pub fn start(config: DhtConfig) -> Self {
        let inner = Arc::new(Inner {
            kad: config.net.kad(),
            store: config.net.store(),
            local: config.net.local_peer(),
            keypair: config.keypair,
            sealer: config.sealer,
            cache: ValueCache::new(config.cache_bytes),
            counters: config.net.counters(),
            last_version: AtomicU64::new(0),
            background: Arc::new(Semaphore::new(BACKGROUND_MAX)),
            served: Semaphore::new(SERVED_MAX),
            chance: Arc::default(),
            stop: CancellationToken::new(),
            replicas: Replicas::new(config.net.clone()),
        });
        if inner.kad.enabled() {
            republish::start(&inner, config.net.events());
        }
        Self { inner }
    }

    /// Seals, signs and stores a value: on the own disk and at the agents closest to its key. Answers once enough of
    /// those have it on disk (with this agent more than half of all), or at once when no other is there: then those who
    /// come get it. What fails after the own disk has it is given to others later all the same.
    pub async fn put(&self, kind: &str, name: &str, value: &[u8], role: Option<&str>) -> Result<Written> {
        let key = RecordKey::new(kind, name)?;
        let limit = if key.kind == Kind::Block { BLOCK_BYTES } else { VALUE_MAX_BYTES };
        if value.len() > limit {
            return Err(Error::TooLarge(format!("a {kind} of {} bytes; the limit is {limit}", value.len())));
        }
        let hash = content_hash(value);
        if key.kind.immutable() && hash != key.name {
            return Err(Error::Invalid(format!(
                "the name under /chorus/{kind} is the SHA-256 of the value, here {hash}"
            )));
        }
        if !key.kind.immutable() && key.name != self.inner.local.to_string() {
            return Err(Error::NotPermitted("only an agent itself writes its record".into()));
        }
        self.inner.write_value(&key, hash, value, role).await
    }

    /// Reads a value: from memory, the own disk, the agents that should hold it, at last the peers in `from`. Of what
    /// its author may replace, the newest version that enough holders know.
    pub async fn get(&self, kind: &str, name: &str, from: &[PeerId]) -> Result<DhtValue> {
        let key = RecordKey::new(kind, name)?;
        if from.len() > HINTS_MAX {
            return Err(Error::Invalid(format!("from: at most {HINTS_MAX} peers, here {}", from.len())));
        }
        let inner = &self.inner;
        if let Some(value) = inner.cache.get(&key.to_string())
            && inner.sealer.reads(value.role.as_deref())
        {
            bump(&inner.counters.dht_cache_hits);
            return Ok((*value).clone());
        }
        bump(&inner.counters.dht_cache_misses);
        match timeout(GET_TIMEOUT, inner.read_value(&key, from)).await {
            Ok(read) => read,
            Err(_) => Err(Error::Timeout(format!("{key} could not be read within {} s", GET_TIMEOUT.as_secs()))),
        }
    }

    /// Answers another agent's request for records.
    pub async fn serve(&self, from: PeerId, ask: Ask) -> Result<Reply> {
        super::serve::serve(&self.inner, from, ask).await
    }

    /// Says that this agent can give what a key names.
    pub async fn provide(&self, key: &str) -> Result<()> {
        RecordKey::parse(key.as_bytes())?;
        self.inner.kad.provide(key.as_bytes(), PROVIDER_TIMEOUT).await
    }

    /// Who can give what a key names.
    pub async fn find(&self, key: &str) -> Result<Vec<PeerId>> {
        RecordKey::parse(key.as_bytes())?;
        self.inner.kad.find_providers(key.as_bytes(), PROVIDER_TIMEOUT).await
    }

    /// How much is stored here.
    pub fn usage(&self) -> Result<Usage> {
        self.inner.store.usage()
    }

    /// Says who is in the mesh: each of them has a share of the store for what it wrote.
    pub fn set_members(&self, members: impl IntoIterator<Item = String>) {
        self.inner.store.set_members(members.into_iter().collect());
    }

    /// Brings everything to disk and empties the cache, at shutdown.
    pub async fn flush(&self) {
        self.inner.store.flush().await;
        self.inner.cache.clear();
    }

    /// Gives up what goes on in the background and flushes. What others do not hold yet is remembered on disk.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        self.flush().await;
    }
}
