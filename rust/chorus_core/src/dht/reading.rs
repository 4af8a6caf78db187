//! Reading: the own disk, the agents that should hold a record, a search of the whole mesh, at last the peers that the
//! caller named. What cannot change is taken from the first who has it unharmed; of what its author may replace, the
//! newest version that enough holders know. Those found without it, or with a wrong or older one, are given it.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use libp2p::PeerId;
use tokio::{sync::oneshot, time::sleep};

use super::{
    DhtValue,
    facade::Inner,
    key::RecordKey,
    manifest::Manifest,
    record::Checked,
    replicas::{ANSWER_TIMEOUT, Replicas, SEARCH_TIMEOUT, needed},
    search::{Found, Search, open},
    store::COPIES_PER_NAME,
};
use crate::{
    Error, Result,
    net::{
        Closest,
        shared::{Counters, bump, now_ms},
    },
};

/// A holder that has not answered by then has company.
const HEDGE: Duration = Duration::from_millis(50);

/// The newest record of what its author may replace, as it came.
type Newest = Option<(Checked, Bytes)>;

impl Inner {
    /// Reads a value, its blocks included.
    pub async fn read_value(self: &Arc<Self>, key: &RecordKey, from: &[PeerId]) -> Result<DhtValue> {
        let mut search = Search::default();
        let mut failed = None;
        // A manifest that leads nowhere may be somebody's lie: another author's is tried.
        for _ in 0..COPIES_PER_NAME {
            let found = match self.find(key, from, &mut search).await {
                Ok(found) => found,
                Err(error) => return Err(failed.unwrap_or(error)),
            };
            let bytes = match found.header.blocks {
                None => Ok(found.plain),
                Some(count) => match Manifest::decode(&found.plain, count) {
                    Ok(manifest) => self.read_blocks(key, &found.header, &manifest, from).await,
                    Err(error) => Err(error),
                },
            };
            match bytes {
                Ok(bytes) => {
                    let Found { header, .. } = found;
                    let value = DhtValue {
                        author: header.author,
                        role: header.role,
                        created_at_ms: header.created_at,
                        version: header.version,
                        bytes,
                    };
                    return Ok((*self.remember(key, value)).clone());
                }
                Err(error) => {
                    search.reject(&found.record, error.clone());
                    failed.get_or_insert(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| search.failure(key)))
    }

    /// Finds a record and opens it.
    pub async fn find(self: &Arc<Self>, key: &RecordKey, from: &[PeerId], search: &mut Search) -> Result<Found> {
        let found = if key.kind.immutable() {
            self.find_fixed(key, from, search).await
        } else {
            self.find_newest(key, from, search).await
        };
        self.counters.dht_refused.fetch_add(std::mem::take(&mut search.refused), Ordering::Relaxed);
        found
    }

    async fn find_fixed(self: &Arc<Self>, key: &RecordKey, from: &[PeerId], search: &mut Search) -> Result<Found> {
        let text = key.to_string();
        let own = self.store.get(text.as_bytes());
        let harmed = !own.is_empty();
        if let Some(found) = search.first(key, own, &*self.sealer, now_ms()) {
            return Ok(found);
        }
        let closest = self.closest(&text).await?;
        let mut asked = closest.peers.clone();
        let mut found = self.first_of(key, &closest.peers, search).await;
        if found.is_none() {
            let farther = self.farther(&text, &mut asked).await;
            found = self.first_of(key, &farther, search).await;
        }
        if found.is_none() {
            found = self.first_of(key, &self.unasked(from, &mut asked), search).await;
        }
        let found = found.ok_or_else(|| search.failure(key))?;
        if closest.own || harmed {
            let _ = self.store.offer(text.as_bytes(), found.record.clone());
        }
        self.repair(
            &text,
            &found.record,
            search.wanting.drain(..).filter(|peer| closest.peers.contains(peer)).collect(),
        );
        Ok(found)
    }

    /// Asks peers, more of them at a time the longer nothing is found, until one has it unharmed.
    async fn first_of(&self, key: &RecordKey, peers: &[PeerId], search: &mut Search) -> Option<Found> {
        if peers.is_empty() {
            return None;
        }
        bump(&self.counters.dht_queries);
        let text = key.to_string();
        let mut unasked = VecDeque::from(peers.to_vec());
        let mut waiting = FuturesUnordered::new();
        let mut width = 1;
        loop {
            while waiting.len() < width
                && let Some(peer) = unasked.pop_front()
            {
                waiting.push(ask(&self.replicas, peer, &text));
            }
            tokio::select! {
                answer = waiting.next() => {
                    let (peer, answer) = answer?;
                    match answer {
                        Ok(records) => {
                            if let Some(found) = search.first(key, records, &*self.sealer, now_ms()) {
                                return Some(found);
                            }
                            search.wanting.push(peer);
                        }
                        Err(error) => search.unanswered(error),
                    }
                    width = (width * 2).min(peers.len());
                }
                () = sleep(HEDGE), if !unasked.is_empty() => width = (width * 2).min(peers.len()),
            }
        }
    }

    async fn find_newest(self: &Arc<Self>, key: &RecordKey, from: &[PeerId], search: &mut Search) -> Result<Found> {
        let text = key.to_string();
        let own = newest_of(key, self.store.get(text.as_bytes()), search);
        let author: Option<PeerId> = key.name.parse().ok();
        if author == Some(self.local)
            && let Some((checked, record)) = own
        {
            // Nobody else writes it.
            return opened(key, checked, record, self);
        }
        let closest = self.closest(&text).await?;
        let mut asked = closest.peers.clone();
        let mut newest = own;
        if !closest.peers.is_empty() {
            newest = self.newest_of_enough(key, &text, closest, newest, search).await?;
        }
        if newest.is_none() {
            let farther = self.farther(&text, &mut asked).await;
            newest = self.newest_of_all(key, &farther, None, search).await;
        }
        if newest.is_none() {
            // The author itself is always worth a question.
            let hints: Vec<PeerId> = author.into_iter().chain(from.iter().copied()).collect();
            let hints = self.unasked(&hints, &mut asked);
            newest = self.newest_of_all(key, &hints, None, search).await;
        } else if !self.kad.enabled() {
            let hints = self.unasked(from, &mut asked);
            newest = self.newest_of_all(key, &hints, newest, search).await;
        }
        let (checked, record) = newest.ok_or_else(|| search.failure(key))?;
        opened(key, checked, record, self)
    }

    /// The newest record among more than half of the holders; what the others say later still leads to repairs.
    async fn newest_of_enough(
        self: &Arc<Self>,
        key: &RecordKey,
        text: &str,
        closest: Closest,
        own: Newest,
        search: &mut Search,
    ) -> Result<Newest> {
        bump(&self.counters.dht_queries);
        let (all, enough) = (closest.peers.len(), needed(closest.peers.len()));
        let permit = self.background.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        let census = Census {
            replicas: self.replicas.clone(),
            counters: self.counters.clone(),
            key: key.clone(),
            text: text.to_owned(),
            closest,
            newest: own.clone(),
            own_version: own.as_ref().map(|(checked, _)| checked.header.version),
            store: self.store.clone(),
            search: std::mem::take(search),
        };
        let stop = self.stop.clone();
        tokio::spawn(async move {
            stop.run_until_cancelled(census.take(enough, reply)).await;
            drop(permit);
        });
        let (answered, newest, learnt) = answer.await.map_err(|_| Error::Closed)?;
        *search = learnt;
        if answered < enough {
            return Err(Error::QuorumFailed(format!(
                "{answered} of {all} replicas answered about {text}, {enough} are needed"
            )));
        }
        Ok(newest)
    }

    /// The newest record among those of some peers, all of which are asked.
    async fn newest_of_all(&self, key: &RecordKey, peers: &[PeerId], own: Newest, search: &mut Search) -> Newest {
        let text = key.to_string();
        let mut waiting: FuturesUnordered<_> = peers.iter().map(|peer| ask(&self.replicas, *peer, &text)).collect();
        let mut newest = own;
        while let Some((_, answer)) = waiting.next().await {
            match answer {
                Ok(records) => newest = newer(newest, newest_of(key, records, search)),
                Err(error) => search.unanswered(error),
            }
        }
        newest
    }

    async fn closest(&self, key: &str) -> Result<Closest> {
        if !self.kad.enabled() {
            return Ok(Closest::default());
        }
        self.kad.closest(key.as_bytes(), ANSWER_TIMEOUT).await
    }

    /// Agents that this one does not know, or not as close to a key, found by asking from peer to peer.
    async fn farther(&self, key: &str, asked: &mut Vec<PeerId>) -> Vec<PeerId> {
        if asked.is_empty() {
            return Vec::new();
        }
        let found = self.kad.search(key.as_bytes(), SEARCH_TIMEOUT).await.unwrap_or_default();
        self.unasked(&found, asked)
    }

    /// Those of `peers` that were not asked yet; they count as asked from now on.
    fn unasked(&self, peers: &[PeerId], asked: &mut Vec<PeerId>) -> Vec<PeerId> {
        let mut fresh = Vec::new();
        for peer in peers {
            if *peer != self.local && !asked.contains(peer) {
                asked.push(*peer);
                fresh.push(*peer);
            }
        }
        fresh
    }

    /// Gives holders what they lack, without waiting for it.
    fn repair(&self, key: &str, record: &Bytes, wanting: Vec<PeerId>) {
        let Ok(permit) = self.background.clone().try_acquire_owned() else { return };
        if wanting.is_empty() {
            return;
        }
        let (replicas, counters, stop) = (self.replicas.clone(), self.counters.clone(), self.stop.clone());
        let (key, record) = (key.to_owned(), record.clone());
        tokio::spawn(async move {
            stop.run_until_cancelled(repair_all(&replicas, &counters, &key, &record, &wanting)).await;
            drop(permit);
        });
    }
}

/// Asks all holders of what its author may replace.
struct Census {
    replicas: Replicas,
    counters: Arc<Counters>,
    key: RecordKey,
    text: String,
    closest: Closest,
    newest: Newest,
    own_version: Option<u64>,
    store: super::Store,
    search: Search,
}

impl Census {
    /// Answers with the newest record once `enough` have answered, then goes on with the rest and repairs.
    async fn take(mut self, enough: usize, reply: oneshot::Sender<(usize, Newest, Search)>) {
        let mut reply = Some(reply);
        let mut answered = 0;
        let mut versions: Vec<(PeerId, Option<u64>)> = Vec::new();
        let mut waiting: FuturesUnordered<_> =
            self.closest.peers.iter().map(|peer| ask(&self.replicas, *peer, &self.text)).collect();
        while let Some((peer, answer)) = waiting.next().await {
            match answer {
                Ok(records) => {
                    answered += 1;
                    let given = newest_of(&self.key, records, &mut self.search);
                    versions.push((peer, given.as_ref().map(|(checked, _)| checked.header.version)));
                    self.newest = newer(self.newest.take(), given);
                }
                Err(error) => self.search.unanswered(error),
            }
            if answered >= enough
                && let Some(reply) = reply.take()
            {
                let _ = reply.send((answered, self.newest.clone(), std::mem::take(&mut self.search)));
            }
        }
        drop(waiting);
        // Refused after the answer.
        self.counters.dht_refused.fetch_add(self.search.refused, Ordering::Relaxed);
        if let Some(reply) = reply {
            let _ = reply.send((answered, self.newest.clone(), std::mem::take(&mut self.search)));
        }
        let Some((checked, record)) = &self.newest else { return };
        let newest = checked.header.version;
        if self.closest.own && self.own_version.is_none_or(|own| own < newest) {
            let _ = self.store.offer(self.text.as_bytes(), record.clone());
        }
        let wanting = versions.iter().filter(|(_, has)| has.is_none_or(|has| has < newest));
        let wanting: Vec<PeerId> = wanting.map(|(peer, _)| *peer).collect();
        repair_all(&self.replicas, &self.counters, &self.text, record, &wanting).await;
    }
}

async fn ask(replicas: &Replicas, peer: PeerId, key: &str) -> (PeerId, Result<Vec<Bytes>>) {
    (peer, replicas.get(peer, key).await)
}

async fn repair_all(replicas: &Replicas, counters: &Counters, key: &str, record: &Bytes, wanting: &[PeerId]) {
    let puts: FuturesUnordered<_> = wanting.iter().map(|peer| replicas.put(*peer, key, record.clone())).collect();
    puts.for_each(|outcome| async move {
        if outcome.is_ok() {
            bump(&counters.dht_repaired);
        }
    })
    .await;
}

/// The newest sound one of some records.
fn newest_of(key: &RecordKey, records: Vec<Bytes>, search: &mut Search) -> Newest {
    let now = now_ms();
    let checked = records.into_iter().filter_map(|record| Some((search.check(key, &record, now)?, record)));
    checked.max_by_key(|(checked, _)| checked.header.version)
}

fn newer(one: Newest, other: Newest) -> Newest {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other.0.header.version > one.0.header.version { other } else { one }),
        (one, other) => one.or(other),
    }
}

fn opened(key: &RecordKey, checked: Checked, record: Bytes, inner: &Inner) -> Result<Found> {
    let plain = open(key, &checked, &record, &*inner.sealer)?;
    Ok(Found { header: checked.header, record, plain })
}
