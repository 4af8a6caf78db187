//! The loop's side of Kademlia: begins queries, collects their answers, filters what peers want stored.

use std::collections::HashMap;

use libp2p::{
    PeerId,
    kad::{
        self, GetClosestPeersError, GetProvidersOk, InboundRequest, KBucketKey, QueryId, QueryResult, RecordKey,
        store::RecordStore,
    },
};
use tokio::sync::oneshot;

use super::kad::{Closest, KadCommand};
use crate::{
    Error, Result,
    dht::{KadStore, Store, key},
};

type Kademlia = kad::Behaviour<KadStore>;

/// Providers collected for one question.
const PROVIDERS_MAX: usize = 64;

enum Query {
    Search(oneshot::Sender<Result<Vec<PeerId>>>),
    Provide(oneshot::Sender<Result<()>>),
    Find { found: Vec<PeerId>, reply: oneshot::Sender<Result<Vec<PeerId>>> },
}

/// Queries under way.
pub struct Queries {
    running: HashMap<QueryId, Query>,
    store: Store,
    local: PeerId,
}

impl Queries {
    pub fn new(store: Store, local: PeerId) -> Self {
        Self { running: HashMap::new(), store, local }
    }

    /// Begins what a handle asked for.
    pub fn begin(&mut self, kademlia: &mut Kademlia, command: KadCommand, connected: impl Fn(&PeerId) -> bool) {
        match command {
            KadCommand::Closest { key, reply } => {
                let _ = reply.send(Ok(closest(kademlia, self.local, key, connected)));
            }
            KadCommand::Search { key, reply } => {
                let id = kademlia.get_closest_peers(key);
                self.running.insert(id, Query::Search(reply));
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

    /// Takes in what Kademlia reports; answers who sent a record that nobody may believe.
    pub fn on_event(&mut self, kademlia: &mut Kademlia, event: kad::Event) -> Option<PeerId> {
        match event {
            kad::Event::InboundRequest { request: InboundRequest::PutRecord { record: Some(record), source, .. } } => {
                if let Err(error) = self.store.offer(record.key.as_ref(), record.value.into()) {
                    tracing::debug!(%source, %error, "a record was refused");
                    return matches!(error, Error::Invalid(_) | Error::Tampered(_)).then_some(source);
                }
            }
            kad::Event::InboundRequest { request: InboundRequest::AddProvider { record: Some(record) } }
                if key::RecordKey::parse(record.key.as_ref()).is_ok() =>
            {
                let _ = kademlia.store_mut().add_provider(record);
            }
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                if let Some(Query::Find { found, .. }) = self.running.get_mut(&id)
                    && let QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) = &result
                {
                    found.extend(providers.iter().take(PROVIDERS_MAX.saturating_sub(found.len())));
                }
                if step.last
                    && let Some(query) = self.running.remove(&id)
                {
                    query.finish(result);
                }
            }
            _ => {}
        }
        None
    }
}

fn closest(kademlia: &mut Kademlia, local: PeerId, key: Vec<u8>, connected: impl Fn(&PeerId) -> bool) -> Closest {
    let target = KBucketKey::new(key);
    let mut known = 0;
    let near: Vec<KBucketKey<PeerId>> = kademlia
        .get_closest_local_peers(&target)
        .inspect(|_| known += 1)
        .filter(|peer| connected(peer.preimage()))
        .take(kad::K_VALUE.get())
        .collect();
    let own = near
        .get(kad::K_VALUE.get() - 1)
        .is_none_or(|farthest| target.distance(&KBucketKey::from(local)) < target.distance(farthest));
    Closest { peers: near.into_iter().map(KBucketKey::into_preimage).collect(), own, more: known >= kad::K_VALUE.get() }
}

impl Query {
    /// Answers whoever still waits when the query is over.
    fn finish(self, result: QueryResult) {
        match self {
            Self::Search(reply) => {
                let peers = match result {
                    QueryResult::GetClosestPeers(Ok(found)) => found.peers,
                    QueryResult::GetClosestPeers(Err(GetClosestPeersError::Timeout { peers, .. })) => peers,
                    _ => Vec::new(),
                };
                let _ = reply.send(Ok(peers.into_iter().map(|info| info.peer_id).collect()));
            }
            Self::Provide(reply) => {
                let _ = reply.send(Ok(()));
            }
            Self::Find { mut found, reply } => {
                found.sort_unstable();
                found.dedup();
                let _ = reply.send(Ok(found));
            }
        }
    }
}
