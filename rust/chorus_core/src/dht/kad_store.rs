//! Kademlia's view of the store: records from disk (filtered by the loop before they get there), providers in memory.

use std::{borrow::Cow, collections::HashMap};

use libp2p::{
    PeerId,
    kad::{
        ProviderRecord, Record, RecordKey,
        store::{Error, RecordStore, Result},
    },
};

use super::Store;

/// Keys whose providers are remembered.
const PROVIDED_KEYS_MAX: usize = 16 * 1024;
/// Providers remembered for one key, as many as Kademlia replicates to.
const PROVIDERS_MAX: usize = 20;

/// What Kademlia is given as its store.
pub struct KadStore {
    records: Store,
    local: PeerId,
    providers: HashMap<RecordKey, Vec<ProviderRecord>>,
}

impl KadStore {
    /// Over the disk store, for the given agent.
    #[must_use]
    pub fn new(records: Store, local: PeerId) -> Self {
        Self { records, local, providers: HashMap::new() }
    }
}

impl RecordStore for KadStore {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::vec::IntoIter<Cow<'a, ProviderRecord>>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        let first = self.records.get(key.as_ref()).into_iter().next()?;
        Some(Cow::Owned(Record::new(key.clone(), first.to_vec())))
    }

    /// Kademlia calls this for what this agent itself puts, which lies on disk by then.
    fn put(&mut self, _: Record) -> Result<()> {
        Ok(())
    }

    /// Nothing is removed at Kademlia's wish: records here leave when their kind's time is over.
    fn remove(&mut self, _: &RecordKey) {}

    /// Empty: republishing is paced by this crate, from disk, instead of loading everything at once.
    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    fn add_provider(&mut self, record: ProviderRecord) -> Result<()> {
        if !self.providers.contains_key(&record.key) && self.providers.len() >= PROVIDED_KEYS_MAX {
            let now = std::time::Instant::now();
            self.providers.retain(|_, all| {
                all.retain(|known| known.expires.is_none_or(|until| until > now));
                !all.is_empty()
            });
            if self.providers.len() >= PROVIDED_KEYS_MAX {
                return Err(Error::MaxProvidedKeys);
            }
        }
        let all = self.providers.entry(record.key.clone()).or_default();
        if let Some(known) = all.iter_mut().find(|known| known.provider == record.provider) {
            *known = record;
        } else if all.len() < PROVIDERS_MAX || record.provider == self.local {
            all.push(record);
        }
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        self.providers.get(key).cloned().unwrap_or_default()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        let own = self.providers.values().flatten().filter(|record| record.provider == self.local);
        own.cloned().map(Cow::Owned).collect::<Vec<_>>().into_iter()
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if let Some(all) = self.providers.get_mut(key) {
            all.retain(|known| known.provider != *provider);
            if all.is_empty() {
                self.providers.remove(key);
            }
        }
    }
}
