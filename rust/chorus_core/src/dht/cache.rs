//! Opened values in memory: bounded in bytes, each for a limited time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use quick_cache::{Weighter, sync::Cache};

use super::DhtValue;

/// How long an opened value is answered from memory.
const KEPT: Duration = Duration::from_secs(10 * 60);
/// The same for what its author may replace.
const KEPT_MUTABLE: Duration = Duration::from_secs(30);
/// What an entry costs besides its bytes.
const ENTRY_BYTES: u64 = 256;
/// Size for which the cache is laid out at first.
const TYPICAL_VALUE_BYTES: u64 = 4096;

#[derive(Clone)]
struct Entry {
    value: Arc<DhtValue>,
    until: Instant,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<String, Entry> for Bytes {
    fn weight(&self, key: &String, entry: &Entry) -> u64 {
        key.len() as u64 + entry.value.bytes.len() as u64 + ENTRY_BYTES
    }
}

/// Opened values by key.
pub struct ValueCache(Cache<String, Entry, Bytes>);

impl ValueCache {
    pub fn new(bytes: u64) -> Self {
        let typical = usize::try_from(bytes / TYPICAL_VALUE_BYTES).unwrap_or(usize::MAX).clamp(16, 65_536);
        Self(Cache::with_weighter(typical, bytes, Bytes))
    }

    pub fn get(&self, key: &str) -> Option<Arc<DhtValue>> {
        let entry = self.0.get(key)?;
        if entry.until > Instant::now() {
            return Some(entry.value);
        }
        self.0.remove(key);
        None
    }

    pub fn insert(&self, key: String, value: Arc<DhtValue>, mutable: bool) {
        let until = Instant::now() + if mutable { KEPT_MUTABLE } else { KEPT };
        self.0.insert(key, Entry { value, until });
    }

    pub fn clear(&self) {
        self.0.clear();
    }
}
