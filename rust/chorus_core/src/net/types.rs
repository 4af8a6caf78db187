//! What crosses the border of the network module.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use serde::Serialize;
use tokio::sync::oneshot;

use super::{Ask, PeerStream};
use crate::{Result, dht::Limits};

/// How to start the network.
pub struct NetConfig {
    /// The agent's key.
    pub keypair: Keypair,
    /// Pre-shared key of the cluster (pnet), 32 bytes.
    pub network_key: [u8; 32],
    /// Addresses to listen on, e.g. `/ip4/127.0.0.1/tcp/9000`.
    pub listen: Vec<Multiaddr>,
    /// Bootstrap multiaddrs as the operator wrote them.
    pub bootstrap: Vec<String>,
    /// Whether to announce and browse `_chorus-peer-discovery._udp.local`.
    pub mdns: bool,
    /// Folder for `peers.json` and `dht.redb`.
    pub data_dir: PathBuf,
    /// Put into identify's agent version and mDNS.
    pub agent_id: String,
    /// `from_role` of outgoing envelopes.
    pub role: Option<String>,
    /// Whether Kademlia runs.
    pub dht: bool,
    /// How much of others' records is stored.
    pub dht_limits: Limits,
    /// Whether strangers are served only what joining takes, also while this node is in no mesh. In a mesh they always are.
    pub members_only: bool,
}

/// A gossip message that passed every check.
#[derive(Debug, Clone)]
pub struct GossipMessage {
    /// Topic it came on.
    pub topic: String,
    /// The envelope's `type`.
    pub kind: String,
    /// Its signer.
    pub from: PeerId,
    /// Milliseconds since the epoch, from the envelope.
    pub timestamp_ms: u64,
    /// gossipsub message id, hex.
    pub id: String,
    /// The signer's sequence number.
    pub sequence: u64,
    /// The whole envelope as received.
    pub raw: Bytes,
}

/// What a caller publishes; the core makes the envelope.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Topic.
    pub topic: String,
    /// Message type.
    pub kind: String,
    /// JSON of `data`.
    pub data: Bytes,
    /// Re-publications so far.
    pub hop_count: Option<u32>,
    /// Priority hint.
    pub priority: Option<String>,
    /// Conversation.
    pub thread_id: Option<String>,
}

/// Services whose names begin like this are answered by the core itself.
pub const CORE_PREFIX: char = '_';

/// What the core itself takes from peers, as the network calls it.
pub trait CoreServices: Send + Sync {
    /// A frame of Raft; those of one peer come in their order. Must not wait.
    fn frame(&self, from: PeerId, frame: Bytes);

    /// A request to a service whose name begins with [`CORE_PREFIX`]. Dropped when its caller gives up.
    fn answer(&self, from: PeerId, ask: Ask) -> BoxFuture<'static, Result<Reply>>;
}

/// A request that another peer's process made of this agent.
#[derive(Debug)]
pub struct IncomingRequest {
    /// Who asks (proven by the transport).
    pub peer: PeerId,
    /// Service and method asked.
    pub service: String,
    /// Method of the service.
    pub method: String,
    /// JSON head, raw.
    pub head: Bytes,
    /// Payload.
    pub payload: Bytes,
    /// What is left of the caller's deadline.
    pub timeout: Duration,
    /// Where the answer goes; it is closed when the caller gave up.
    pub reply: oneshot::Sender<Result<Reply>>,
}

/// Answer to a request.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// JSON head, raw.
    pub head: Bytes,
    /// Payload.
    pub payload: Bytes,
}

/// A byte stream that another peer opened to a service of this agent.
#[derive(Debug)]
pub struct IncomingStream {
    /// Who opened it.
    pub peer: PeerId,
    /// Service and method asked.
    pub service: String,
    /// Method of the service.
    pub method: String,
    /// JSON head, raw.
    pub head: Bytes,
    /// Accept with `Ok(())` or refuse; dropping it refuses too.
    pub answer: oneshot::Sender<Result<()>>,
    /// The bytes; they flow once `answer` has accepted.
    pub stream: PeerStream,
}

/// What happened in the network.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NetEvent {
    /// First connection to a peer.
    PeerUp {
        /// Peer id.
        peer: String,
    },
    /// Last connection to a peer closed.
    PeerDown {
        /// Peer id.
        peer: String,
    },
    /// A new listen address.
    Listening {
        /// Multiaddr with `/p2p/…`.
        addr: String,
    },
    /// A dial of the operator's bootstrap address failed (it is tried again).
    DialFailed {
        /// What was dialled.
        addr: String,
        /// Why.
        error: String,
    },
}

/// A connected peer.
#[derive(Debug, Clone, Serialize)]
pub struct PeerState {
    /// Peer id.
    pub peer: String,
    /// Remote addresses of its connections.
    pub addrs: Vec<String>,
    /// identify's agent version, when known.
    pub agent_version: Option<String>,
    /// Milliseconds since the epoch.
    pub since: u64,
    /// Last ping, milliseconds.
    pub rtt_ms: Option<f64>,
}

/// Counters since the start and depths now, for metrics and health.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NetStats {
    /// Gossip messages of this agent handed to the network.
    pub pubsub_sent: u64,
    /// Gossip messages of others that passed every check.
    pub pubsub_received: u64,
    /// Gossip messages that failed, by reason (reject and ignore alike).
    pub rejected: BTreeMap<String, u64>,
    /// Messages that local subscribers were too slow for.
    pub pubsub_gaps: u64,
    /// Own messages waiting for a peer that listens.
    pub pubsub_held: u64,
    /// Own messages that found no listener in time.
    pub pubsub_expired: u64,
    /// Kademlia queries begun.
    pub dht_queries: u64,
    /// Values answered from memory.
    pub dht_cache_hits: u64,
    /// Values that had to be looked up.
    pub dht_cache_misses: u64,
    /// DHT records refused because signature, hash, key or size did not fit.
    pub dht_refused: u64,
    /// Replicas that were found wrong on a read and were given the right record.
    pub dht_repaired: u64,
    /// Connections now.
    pub connections: u64,
    /// Requests to peers since the start.
    pub requests_sent: u64,
    /// Requests from peers since the start.
    pub requests_received: u64,
    /// Requests to peers without an answer yet.
    pub requests_in_flight: u64,
    /// Raft frames dropped: queue full or peer away.
    pub lane_dropped: u64,
    /// What peers did that was held against them.
    pub peer_offences: u64,
    /// Times that a peer was disconnected and kept out for misbehaving.
    pub peer_bans: u64,
    /// Bytes of peers' requests, answers and Raft frames that are held now.
    pub peer_bytes: u64,
    /// Commands waiting for the swarm.
    pub queue_commands: u64,
    /// Publications waiting for the swarm.
    pub queue_publish: u64,
}

/// A picture of the network now.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NetState {
    /// This agent.
    pub peer_id: String,
    /// Listen addresses with `/p2p/…`.
    pub listen: Vec<String>,
    /// Connected peers.
    pub peers: Vec<PeerState>,
    /// Whether mDNS runs.
    pub mdns: bool,
    /// More than half of the peers' clocks disagree with ours.
    pub clock_skew: bool,
}
