//! What crosses the border of the network module.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use serde::Serialize;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::{Error, Result};

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

/// A request that another peer's process made of this agent.
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
    /// Where the answer goes.
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
pub struct IncomingStream {
    /// Who opened it.
    pub peer: PeerId,
    /// Service and method asked.
    pub service: String,
    /// Method of the service.
    pub method: String,
    /// JSON head, raw.
    pub head: Bytes,
    /// Accept with `Ok(())` or refuse; the stream follows.
    pub answer: oneshot::Sender<Result<()>>,
    /// The bytes, valid after acceptance.
    pub stream: PeerStream,
}

/// An encrypted byte stream to or from a peer.
pub type PeerStream = libp2p::Stream;

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
