//! Writing: a record on the own disk and, at the same time, at the agents closest to its key, until enough of them have it.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::sync::oneshot;

use super::{
    DhtValue, Written,
    facade::Inner,
    key::{Kind, RecordKey},
    manifest::{BLOCK_BYTES, Manifest},
    record::{self, Header},
    replicas::{ANSWER_TIMEOUT, Replicas, SEARCH_TIMEOUT, needed},
    store::place,
};
use crate::{
    Error, Result,
    net::{
        Closest, KadHandle,
        shared::{bump, now_ms},
    },
};

impl Inner {
    /// Writes a value whose key, size and right to be written were checked.
    pub async fn write_value(
        self: &Arc<Self>,
        key: &RecordKey,
        hash: String,
        value: &[u8],
        role: Option<&str>,
    ) -> Result<Written> {
        let mut header = Header {
            author: self.local.to_string(),
            blocks: None,
            created_at: now_ms(),
            hash,
            kind: key.kind.as_str().into(),
            name: key.name.clone(),
            of: None,
            role: role.map(Into::into),
            v: 1,
            version: self.next_version(key),
        };
        let written = if value.len() <= BLOCK_BYTES {
            self.write_record(key, &header, value).await?
        } else {
            let manifest = Manifest::of(value);
            header.blocks = u32::try_from(manifest.blocks.len()).ok();
            let blocks = self.write_blocks(&header, &manifest, value).await?;
            let own = self.write_record(key, &header, &manifest.encode()).await?;
            Written { replicas: own.replicas.min(blocks), ..own }
        };
        self.remember(
            key,
            DhtValue {
                author: header.author,
                role: header.role,
                created_at_ms: header.created_at,
                version: header.version,
                bytes: Bytes::copy_from_slice(value),
            },
        );
        Ok(written)
    }

    /// Seals, signs and writes one record.
    pub async fn write_record(self: &Arc<Self>, key: &RecordKey, header: &Header, plain: &[u8]) -> Result<Written> {
        let sealed = self.sealer.seal(header.role.as_deref(), plain)?;
        let record = Bytes::from(record::write(&self.keypair, header, &sealed)?);
        let text = key.to_string();
        let (stored, replicas) =
            tokio::join!(self.store.put(text.as_bytes(), record.clone()), self.replicate(&text, record));
        stored?;
        let replicas = replicas?;
        if replicas > 0 {
            self.store.settle(place(text.as_bytes(), &header.author, header.role.as_deref())).await;
        }
        Ok(Written { key: text, replicas })
    }

    /// Gives a record to the agents closest to its key; answers with how many have it on disk as soon as they are
    /// enough (the others follow), 0 when none is there.
    pub async fn replicate(self: &Arc<Self>, key: &str, record: Bytes) -> Result<usize> {
        if !self.kad.enabled() {
            return Ok(0);
        }
        let closest = self.kad.closest(key.as_bytes(), ANSWER_TIMEOUT).await?;
        if closest.peers.is_empty() {
            return Ok(0);
        }
        bump(&self.counters.dht_queries);
        let permit = self.background.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        // Without the DHT itself, which must not be kept alive by what goes on after the answer.
        let spread = spread(self.replicas.clone(), self.kad.clone(), key.to_owned(), record, closest, reply);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            stop.run_until_cancelled(spread).await;
            drop(permit);
        });
        answer.await.map_err(|_| Error::Closed)?
    }

    fn next_version(&self, key: &RecordKey) -> u64 {
        if key.kind.immutable() {
            return now_ms();
        }
        let text = key.to_string();
        let stored = self.store.get(text.as_bytes()).into_iter();
        let stored = stored.filter_map(|record| record::check(text.as_bytes(), &record, now_ms()).ok());
        let least = stored.map(|checked| checked.header.version + 1).max().unwrap_or_default().max(now_ms());
        let last =
            self.last_version.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(least.max(last + 1)));
        least.max(last.unwrap_or_default() + 1)
    }

    /// Keeps an opened value in memory.
    pub fn remember(&self, key: &RecordKey, value: DhtValue) -> Arc<DhtValue> {
        let value = Arc::new(value);
        if key.kind != Kind::Block {
            self.cache.insert(key.to_string(), value.clone(), !key.kind.immutable());
        }
        value
    }
}

/// Puts a record at the closest peers and answers when it is clear whether enough have it. In a mesh larger than the
/// routing table's view of it a search for still closer ones follows.
async fn spread(
    replicas: Replicas,
    kad: KadHandle,
    key: String,
    record: Bytes,
    closest: Closest,
    reply: oneshot::Sender<Result<usize>>,
) {
    let (all, enough) = (closest.peers.len(), needed(closest.peers.len()));
    let mut reply = Some(reply);
    let (mut have, mut late, mut refusal) = (0, 0, None);
    let mut waiting: FuturesUnordered<_> =
        closest.peers.iter().map(|peer| replicas.put(*peer, &key, record.clone())).collect();
    while let Some(outcome) = waiting.next().await {
        match outcome {
            Ok(()) => have += 1,
            Err(error) => {
                late += usize::from(matches!(error, Error::Timeout(_)));
                refusal.get_or_insert(error);
            }
        }
        if have >= enough
            && let Some(reply) = reply.take()
        {
            let _ = reply.send(Ok(have));
        }
    }
    if let Some(reply) = reply {
        let why = refusal.map_or_else(String::new, |error| format!(": {error}"));
        let text = format!("{have} of {all} replicas have {key}, {enough} are needed{why}");
        let _ = reply.send(Err(if have + late == all { Error::Timeout(text) } else { Error::QuorumFailed(text) }));
    }
    if closest.more
        && let Ok(found) = kad.search(key.as_bytes(), SEARCH_TIMEOUT).await
    {
        let closer = found.iter().filter(|peer| !closest.peers.contains(peer));
        let puts: FuturesUnordered<_> = closer.map(|peer| replicas.put(*peer, &key, record.clone())).collect();
        puts.for_each(|_| async {}).await;
    }
}
