//! The handle's side of Kademlia: what the DHT asks of the swarm. Records themselves travel as requests ([`crate::dht`]).

use std::{sync::Arc, time::Duration};

use libp2p::PeerId;
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::timeout,
};

use super::shared::{Command, Shared};
use crate::{Error, Result};

/// Who should hold a record, as far as the routing table knows.
#[derive(Debug, Clone, Default)]
pub struct Closest {
    /// Connected peers, the closest first, at most 20.
    pub peers: Vec<PeerId>,
    /// Whether this agent is as close as they are.
    pub own: bool,
    /// Whether the mesh may have closer ones that only a search finds.
    pub more: bool,
}

/// What the loop is asked of Kademlia.
pub enum KadCommand {
    Closest { key: Vec<u8>, reply: oneshot::Sender<Result<Closest>> },
    Search { key: Vec<u8>, reply: oneshot::Sender<Result<Vec<PeerId>>> },
    Provide { key: Vec<u8>, reply: oneshot::Sender<Result<()>> },
    Find { key: Vec<u8>, reply: oneshot::Sender<Result<Vec<PeerId>>> },
}

/// Kademlia of this agent.
#[derive(Clone)]
pub struct KadHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) shared: Arc<Shared>,
    pub(super) enabled: bool,
}

impl KadHandle {
    /// Whether Kademlia runs.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Who should hold what lies under a key, without asking anybody.
    pub async fn closest(&self, key: &[u8], within: Duration) -> Result<Closest> {
        let (reply, answer) = oneshot::channel();
        self.ask(KadCommand::Closest { key: key.to_vec(), reply }, answer, within).await
    }

    /// The peers closest to a key in the whole mesh, found by asking from peer to peer.
    pub async fn search(&self, key: &[u8], within: Duration) -> Result<Vec<PeerId>> {
        let (reply, answer) = oneshot::channel();
        self.ask(KadCommand::Search { key: key.to_vec(), reply }, answer, within).await
    }

    /// Says that this agent can give what `key` names.
    pub async fn provide(&self, key: &[u8], within: Duration) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.ask(KadCommand::Provide { key: key.to_vec(), reply }, answer, within).await
    }

    /// Who can give what `key` names.
    pub async fn find_providers(&self, key: &[u8], within: Duration) -> Result<Vec<PeerId>> {
        let (reply, answer) = oneshot::channel();
        self.ask(KadCommand::Find { key: key.to_vec(), reply }, answer, within).await
    }

    /// Peers as they become known as holders of records, from now on; one may be named more than once.
    #[must_use]
    pub fn routed(&self) -> broadcast::Receiver<PeerId> {
        self.shared.routed.subscribe()
    }

    async fn ask<T>(&self, command: KadCommand, answer: oneshot::Receiver<Result<T>>, within: Duration) -> Result<T> {
        if !self.enabled {
            return Err(Error::Unavailable("the DHT is switched off (CHORUS_DHT_ENABLED)".into()));
        }
        if !matches!(command, KadCommand::Closest { .. }) {
            super::shared::bump(&self.shared.counters.dht_queries);
        }
        self.commands.send(Command::Kad(command)).await.map_err(|_| Error::Closed)?;
        match timeout(within, answer).await {
            Ok(answer) => answer.map_err(|_| Error::Closed)?,
            Err(_) => Err(Error::Timeout("the DHT did not answer in time".into())),
        }
    }
}
