//! Putting and getting values: sealing, signing, the disk first, then the network; reading checks all of it again.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use libp2p::{PeerId, identity::Keypair};
use tokio_util::sync::CancellationToken;

use super::{
    Store,
    cache::ValueCache,
    key::{RecordKey, content_hash},
    record::{self, Checked, Header},
    republish,
};
use crate::{
    Error, Result,
    net::{
        KadHandle, NetHandle,
        shared::{Counters, bump, now_ms},
    },
};

/// Largest value in one record; larger ones are for blocks.
pub const VALUE_MAX_BYTES: usize = 60 * 1024;
/// How long a put waits for a first replica.
const PUT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a get searches.
const GET_TIMEOUT: Duration = Duration::from_secs(10);
/// Replicas that may turn out wrong after opening before a get gives up.
const BAD_REPLICAS_MAX: usize = 20;
/// Own records that no peer holds yet and that are remembered for the next peer.
const LONELY_MAX: usize = 10_000;

/// Seals to roles and opens what this agent may read.
pub trait Sealer: Send + Sync {
    /// Seals a value for a role (`None`: every member).
    fn seal(&self, role: Option<&str>, plain: &[u8]) -> Result<Vec<u8>>;
    /// Opens a sealed value, or says that it is not permitted.
    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>>;
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

/// The DHT; cheap to clone.
#[derive(Clone)]
pub struct Dht {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) kad: KadHandle,
    pub(super) store: Store,
    pub(super) lonely: Mutex<VecDeque<Vec<u8>>>,
    local: PeerId,
    keypair: Keypair,
    sealer: Arc<dyn Sealer>,
    cache: ValueCache,
    counters: Arc<Counters>,
    /// Versions only grow, also when the clock goes back.
    last_version: AtomicU64,
    stop: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Dht {
    /// Starts the DHT over a running network; with Kademlia switched off it works on the local store alone.
    #[must_use]
    pub fn start(config: DhtConfig) -> Self {
        let inner = Arc::new(Inner {
            kad: config.net.kad(),
            store: config.net.store(),
            lonely: Mutex::default(),
            local: config.net.local_peer(),
            keypair: config.keypair,
            sealer: config.sealer,
            cache: ValueCache::new(config.cache_bytes),
            counters: config.net.counters(),
            last_version: AtomicU64::new(0),
            stop: CancellationToken::new(),
        });
        if inner.kad.enabled() {
            tokio::spawn(republish::run(Arc::downgrade(&inner), config.net.events(), inner.stop.clone()));
        }
        Self { inner }
    }

    /// Seals, signs and stores a value: on the own disk first, then at the peers closest to its key. Answers with the key
    /// once one peer has it, or at once when no peer is connected (the next one to come gets it).
    pub async fn put(&self, kind: &str, name: &str, value: &[u8], role: Option<&str>) -> Result<String> {
        if value.len() > VALUE_MAX_BYTES {
            return Err(Error::TooLarge(format!(
                "a DHT value of {} bytes; the limit is {VALUE_MAX_BYTES}",
                value.len()
            )));
        }
        let key = RecordKey::new(kind, name)?;
        let hash = content_hash(value);
        if key.kind.immutable() && hash != key.name {
            return Err(Error::Invalid(format!(
                "the name under /chorus/{kind} is the SHA-256 of the value, here {hash}"
            )));
        }
        let inner = &self.inner;
        if !key.kind.immutable() && key.name != inner.local.to_string() {
            return Err(Error::NotPermitted("only an agent itself writes its record".into()));
        }
        let header = Header {
            author: inner.local.to_string(),
            created_at: now_ms(),
            hash,
            kind: kind.into(),
            name: name.into(),
            role: role.map(Into::into),
            v: 1,
            version: inner.next_version(&key),
        };
        let sealed = inner.sealer.seal(role, value)?;
        let record = record::write(&inner.keypair, &header, &sealed)?;
        let text = key.to_string();
        inner.store.put(text.clone().into_bytes(), record.clone()).await?;
        inner.remember(&text, &key, &header, Bytes::copy_from_slice(value));
        if inner.kad.enabled() {
            inner.replicate(text.as_bytes(), record).await?;
        }
        Ok(text)
    }

    /// Reads a value: from memory, the own disk, or the first replica that holds it unharmed.
    pub async fn get(&self, kind: &str, name: &str) -> Result<DhtValue> {
        let key = RecordKey::new(kind, name)?;
        let text = key.to_string();
        let inner = &self.inner;
        if let Some(value) = inner.cache.get(&text) {
            bump(&inner.counters.dht_cache_hits);
            return Ok((*value).clone());
        }
        bump(&inner.counters.dht_cache_misses);
        let local = inner.read_local(&key, &text);
        // What others write may have a newer version elsewhere; what cannot change needs no second opinion.
        let settled = key.kind.immutable() || key.name == inner.local.to_string() || !inner.kad.enabled();
        match local {
            Ok(value) if settled => Ok(value),
            Err(error @ Error::NotPermitted(_)) if settled => Err(error),
            local => match inner.search(&key, &text, local.as_ref().map_or(0, |value| value.version)).await {
                Ok(value) => Ok(value),
                Err(_) if local.is_ok() => local,
                Err(error) => Err(error),
            },
        }
    }

    /// Says that this agent can give what a key names.
    pub async fn provide(&self, key: &str) -> Result<()> {
        RecordKey::parse(key.as_bytes())?;
        self.inner.kad.provide(key.as_bytes(), PUT_TIMEOUT).await
    }

    /// Who can give what a key names.
    pub async fn find(&self, key: &str) -> Result<Vec<PeerId>> {
        RecordKey::parse(key.as_bytes())?;
        self.inner.kad.find_providers(key.as_bytes(), GET_TIMEOUT).await
    }

    /// Brings everything to disk and empties the cache, at shutdown.
    pub async fn flush(&self) {
        self.inner.store.flush().await;
        self.inner.cache.clear();
    }
}

impl Inner {
    /// Gives a record to the peers closest to its key; a record that none took waits for the next peer.
    pub(super) async fn replicate(&self, key: &[u8], record: Vec<u8>) -> Result<()> {
        let outcome = self.kad.put_record(key, record, PUT_TIMEOUT).await;
        if !matches!(outcome, Ok(replicas) if replicas > 0) {
            let mut lonely = self.lonely.lock().unwrap_or_else(PoisonError::into_inner);
            if lonely.len() >= LONELY_MAX {
                lonely.pop_front();
            }
            lonely.push_back(key.to_vec());
        }
        outcome.map(|_| ())
    }

    fn next_version(&self, key: &RecordKey) -> u64 {
        let stored = self.store.get(key.to_string().as_bytes());
        let stored = stored.and_then(|record| record::check(key.to_string().as_bytes(), &record, now_ms()).ok());
        let least =
            stored.map_or(0, |checked| checked.header.version).max(self.last_version.load(Ordering::Relaxed)) + 1;
        let version = now_ms().max(if key.kind.immutable() { 0 } else { least });
        self.last_version.fetch_max(version, Ordering::Relaxed);
        version
    }

    fn read_local(&self, key: &RecordKey, text: &str) -> Result<DhtValue> {
        let record = self.store.get(text.as_bytes()).ok_or_else(|| Error::NotFound(text.into()))?;
        let checked = record::check(text.as_bytes(), &record, now_ms())?;
        self.open(key, text, &checked, &record)
    }

    async fn search(&self, key: &RecordKey, text: &str, newer_than: u64) -> Result<DhtValue> {
        let bad = Arc::new(Mutex::new(HashSet::<Bytes>::new()));
        let refused = Arc::new(AtomicU64::new(0));
        for _ in 0..BAD_REPLICAS_MAX {
            let (bad_seen, counter, counters) = (bad.clone(), refused.clone(), self.counters.clone());
            let found = self.kad.get_record(text.as_bytes(), GET_TIMEOUT, move |candidate| {
                if bad_seen.lock().unwrap_or_else(PoisonError::into_inner).contains(&candidate.value) {
                    return false;
                }
                match record::check(&candidate.key, &candidate.value, now_ms()) {
                    Ok(checked) => checked.header.version >= newer_than,
                    Err(_) => {
                        counter.fetch_add(1, Ordering::Relaxed);
                        bump(&counters.dht_refused);
                        false
                    }
                }
            });
            let found = match found.await {
                Ok(found) => found,
                Err(Error::NotFound(_)) if refused.load(Ordering::Relaxed) > 0 => {
                    return Err(Error::Tampered(format!("every replica of {text} was refused")));
                }
                Err(error) => return Err(error),
            };
            let checked = record::check(text.as_bytes(), &found.value, now_ms())?;
            match self.open(key, text, &checked, &found.value) {
                Err(Error::Tampered(_)) => {
                    bump(&self.counters.dht_refused);
                    refused.fetch_add(1, Ordering::Relaxed);
                    bad.lock().unwrap_or_else(PoisonError::into_inner).insert(found.value);
                }
                opened => return opened,
            }
        }
        Err(Error::Tampered(format!("every replica of {text} was refused")))
    }

    fn open(&self, key: &RecordKey, text: &str, checked: &Checked, record: &[u8]) -> Result<DhtValue> {
        let plain = self.sealer.open(checked.sealed(record))?;
        if content_hash(&plain) != checked.header.hash {
            return Err(Error::Tampered(format!("the content of {text} is not what its author signed")));
        }
        Ok((*self.remember(text, key, &checked.header, plain.into())).clone())
    }

    fn remember(&self, text: &str, key: &RecordKey, header: &Header, bytes: Bytes) -> Arc<DhtValue> {
        let value = Arc::new(DhtValue {
            author: header.author.clone(),
            role: header.role.clone(),
            created_at_ms: header.created_at,
            version: header.version,
            bytes,
        });
        self.cache.insert(text.into(), value.clone(), !key.kind.immutable());
        value
    }
}
