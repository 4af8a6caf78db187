//! The loop's side of Kademlia: begins queries, collects their answers, filters what peers want stored.

use std::collections::HashMap;

use bytes::Bytes;
use libp2p::{
    PeerId,
    kad::{
        self, GetProvidersOk, GetRecordOk, InboundRequest, KBucketKey, QueryId, QueryResult, Quorum, Record, RecordKey,
        store::RecordStore,
    },
};
use tokio::sync::oneshot;

use super::kad::{Accept, KadCommand, KadRecord};
use crate::{
    Error, Result,
    dht::{KadStore, Store, key},
};

type Kademlia = kad::Behaviour<KadStore>;

/// Providers collected for one question.
const PROVIDERS_MAX: usize = 64;

enum Query {
    Put(Option<oneshot::Sender<Result<usize>>>),
    Get { accept: Accept, reply: Option<oneshot::Sender<Result<KadRecord>>> },
    Provide(oneshot::Sender<Result<()>>),
    Find { found: Vec<PeerId>, reply: oneshot::Sender<Result<Vec<PeerId>>> },
}

/// Queries under way.
pub struct Queries {
    running: HashMap<QueryId, Query>,
    store: Store,
}

impl Queries {
    pub fn new(store: Store) -> Self {
        Self { running: HashMap::new(), store }
    }

    /// Begins what a handle asked for.
    pub fn begin(&mut self, kademlia: &mut Kademlia, command: KadCommand, connected: impl Fn(&PeerId) -> bool) {
        match command {
            KadCommand::Put { key, value, reply } => self.put(kademlia, key, value, reply, connected),
            KadCommand::Get { key, accept, reply } => {
                let id = kademlia.get_record(RecordKey::from(key));
                self.running.insert(id, Query::Get { accept, reply: Some(reply) });
            }
            KadCommand::Provide { key, reply } => match kademlia.start_providing(RecordKey::from(key)) {
                Ok(id) => {
                    self.running.insert(id, Query::Provide(reply));
                }
                Err(error) => {
                    let _ = reply.send(Err(Error::Refused(error.to_string())));
                }
            },
            KadCommand::Find { key, reply } => {
                let id = kademlia.get_providers(RecordKey::from(key));
                self.running.insert(id, Query::Find { found: Vec::new(), reply });
            }
        }
    }

    /// Sends a record straight to the closest peers that are connected: one round trip. Where the mesh is larger than the
    /// routing table's view of them, Kademlia's own search for still closer ones follows in the background.
    fn put(
        &mut self,
        kademlia: &mut Kademlia,
        key: Vec<u8>,
        value: Vec<u8>,
        reply: oneshot::Sender<Result<usize>>,
        connected: impl Fn(&PeerId) -> bool,
    ) {
        let record = Record::new(RecordKey::from(key), value);
        let target = KBucketKey::new(record.key.clone());
        let mut known = 0;
        let closest: Vec<PeerId> = kademlia
            .get_closest_local_peers(&target)
            .map(KBucketKey::into_preimage)
            .inspect(|_| known += 1)
            .filter(|peer| connected(peer))
            .take(kad::K_VALUE.get())
            .collect();
        if closest.is_empty() {
            let _ = reply.send(Ok(0));
            return;
        }
        if known >= kad::K_VALUE.get()
            && let Ok(id) = kademlia.put_record(record.clone(), Quorum::One)
        {
            self.running.insert(id, Query::Put(None));
        }
        let id = kademlia.put_record_to(record, closest.into_iter(), Quorum::One);
        self.running.insert(id, Query::Put(Some(reply)));
    }

    /// Takes in what Kademlia reports.
    pub fn on_event(&mut self, kademlia: &mut Kademlia, event: kad::Event) {
        match event {
            kad::Event::InboundRequest { request: InboundRequest::PutRecord { record: Some(record), source, .. } } => {
                if let Err(error) = self.store.offer(record.key.to_vec(), record.value) {
                    tracing::debug!(%source, %error, "a record was refused");
                }
            }
            kad::Event::InboundRequest { request: InboundRequest::AddProvider { record: Some(record) } }
                if key::RecordKey::parse(record.key.as_ref()).is_ok() =>
            {
                let _ = kademlia.store_mut().add_provider(record);
            }
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                self.progress(kademlia, id, result);
                if step.last
                    && let Some(query) = self.running.remove(&id)
                {
                    query.finish();
                }
            }
            _ => {}
        }
    }

    fn progress(&mut self, kademlia: &mut Kademlia, id: QueryId, result: QueryResult) {
        let Some(query) = self.running.get_mut(&id) else { return };
        match (query, result) {
            (Query::Put(reply), QueryResult::PutRecord(outcome)) => {
                let Some(reply) = reply.take() else { return };
                let _ = reply.send(match outcome {
                    // The crate reports success without a count once the quorum of one is reached.
                    Ok(_) => Ok(1),
                    Err(kad::PutRecordError::QuorumFailed { success, .. }) if !success.is_empty() => Ok(success.len()),
                    Err(kad::PutRecordError::QuorumFailed { .. }) => {
                        Err(Error::QuorumFailed("no peer took the record".into()))
                    }
                    Err(kad::PutRecordError::Timeout { .. }) => {
                        Err(Error::Timeout("no peer took the record in time".into()))
                    }
                });
            }
            (Query::Get { accept, reply }, QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found)))) => {
                if reply.as_ref().is_none_or(oneshot::Sender::is_closed) {
                    finish(kademlia, id);
                    return;
                }
                let candidate = KadRecord {
                    key: Bytes::from(found.record.key.to_vec()),
                    value: found.record.value.into(),
                    peer: found.peer,
                };
                if accept(&candidate) {
                    if let Some(reply) = reply.take() {
                        let _ = reply.send(Ok(candidate));
                    }
                    finish(kademlia, id);
                }
            }
            (Query::Get { reply, .. }, QueryResult::GetRecord(Err(kad::GetRecordError::Timeout { .. }))) => {
                if let Some(reply) = reply.take() {
                    let _ = reply.send(Err(Error::Timeout("the search for a record took too long".into())));
                }
            }
            (
                Query::Find { found, .. },
                QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })),
            ) => {
                found.extend(providers.into_iter().take(PROVIDERS_MAX.saturating_sub(found.len())));
            }
            _ => {}
        }
    }
}

impl Query {
    /// Answers whoever still waits when the query is over.
    fn finish(self) {
        match self {
            Self::Put(Some(reply)) => {
                let _ = reply.send(Err(Error::QuorumFailed("no peer took the record".into())));
            }
            Self::Get { reply: Some(reply), .. } => {
                let _ = reply.send(Err(Error::NotFound("no replica has an acceptable record".into())));
            }
            Self::Provide(reply) => {
                let _ = reply.send(Ok(()));
            }
            Self::Find { mut found, reply } => {
                found.sort_unstable();
                found.dedup();
                let _ = reply.send(Ok(found));
            }
            Self::Put(None) | Self::Get { reply: None, .. } => {}
        }
    }
}

fn finish(kademlia: &mut Kademlia, id: QueryId) {
    if let Some(mut query) = kademlia.query_mut(&id) {
        query.finish();
    }
}
