//! The handle's side of Kademlia: what the DHT asks of the swarm.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use libp2p::PeerId;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::shared::{Command, Shared};
use crate::{Error, Result};

/// A record that some replica holds.
#[derive(Debug, Clone)]
pub struct KadRecord {
    /// Its key.
    pub key: Bytes,
    /// Its value as stored (sealed and signed).
    pub value: Bytes,
    /// Who gave it; `None` when it came from the own store.
    pub peer: Option<PeerId>,
}

/// Decides about a candidate; the search ends with the first that it accepts.
pub type Accept = Box<dyn FnMut(&KadRecord) -> bool + Send>;

/// What the loop is asked of Kademlia.
pub enum KadCommand {
    Put { key: Vec<u8>, value: Vec<u8>, reply: oneshot::Sender<Result<usize>> },
    Get { key: Vec<u8>, accept: Accept, reply: oneshot::Sender<Result<KadRecord>> },
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

    /// Sends a record to the peers closest to its key; answers with how many have it as soon as one has (the others
    /// follow in the background), 0 when no peer is there at all.
    pub async fn put_record(&self, key: &[u8], value: Vec<u8>, within: Duration) -> Result<usize> {
        let (reply, answer) = oneshot::channel();
        self.ask(KadCommand::Put { key: key.to_vec(), value, reply }, answer, within).await
    }

    /// Asks replica after replica until `accept` takes a record.
    pub async fn get_record(
        &self,
        key: &[u8],
        within: Duration,
        accept: impl FnMut(&KadRecord) -> bool + Send + 'static,
    ) -> Result<KadRecord> {
        let (reply, answer) = oneshot::channel();
        self.ask(KadCommand::Get { key: key.to_vec(), accept: Box::new(accept), reply }, answer, within).await
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

    async fn ask<T>(&self, command: KadCommand, answer: oneshot::Receiver<Result<T>>, within: Duration) -> Result<T> {
        if !self.enabled {
            return Err(Error::Unavailable("the DHT is switched off (CHORUS_DHT_ENABLED)".into()));
        }
        super::shared::bump(&self.shared.counters.dht_queries);
        self.commands.send(Command::Kad(command)).await.map_err(|_| Error::Closed)?;
        match timeout(within, answer).await {
            Ok(answer) => answer.map_err(|_| Error::Closed)?,
            Err(_) => Err(Error::Timeout("the DHT did not answer in time".into())),
        }
    }
}
