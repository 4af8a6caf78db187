//! The composed network behaviour.

use std::{sync::Arc, time::Duration};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm,
    connection_limits::{self, ConnectionLimits},
    identify,
    identity::Keypair,
    kad, ping,
    swarm::{self, NetworkBehaviour, behaviour::toggle::Toggle},
};

use super::{
    gossip_config, gossip_gate::GatedGossip, handle::STREAM_PROTOCOL, kad_wall, lane::LANE_PROTOCOL,
    request::REQUEST_PROTOCOL, shared::Shared, slots, substream, transport,
};
use crate::{
    Result,
    dht::{KadStore, Store},
};

/// Kademlia of CHORUS, apart from every public one.
pub const KAD_PROTOCOL: StreamProtocol = StreamProtocol::new("/chorus/kad/1.0.0");
/// What identify says we speak.
const IDENTIFY_PROTOCOL: &str = "/chorus/1.0.0";
/// Largest Kademlia packet: a record of 127 KiB with key and framing.
const KAD_PACKET_BYTES: usize = 128 * 1024;
/// How long one Kademlia query may take.
const KAD_QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections per peer: two from a simultaneous dial, and room for ones about to close.
const CONNECTIONS_PER_PEER_MAX: u32 = 4;
/// Connections being made, each way.
const PENDING_MAX: u32 = 128;
/// Pings show a dead connection within twice this time.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Members stay connected; what is dead shows by ping.
const IDLE_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Substreams of one connection being negotiated: as many as byte streams may be opened at once. Each may hold a window of
/// unread bytes until it is known what it is for.
const NEGOTIATING_MAX: usize = 256;

/// Everything that the swarm does.
#[derive(NetworkBehaviour)]
pub struct Behaviour {
    /// Refuses connections beyond the limits of one peer, and of those being made.
    pub limits: connection_limits::Behaviour,
    /// Keeps connections for members and keeps the banned out.
    pub slots: slots::Behaviour,
    /// Tells peers where we listen and who we are.
    pub identify: identify::Behaviour,
    /// Shows dead connections and round-trip times.
    pub ping: ping::Behaviour,
    /// Carries the topics.
    pub gossip: GatedGossip,
    /// Finds peers and holds records.
    pub kad: Toggle<kad_wall::Behaviour>,
    /// Requests, byte streams, Raft's lanes.
    pub substreams: substream::Behaviour,
}

/// Builds the swarm; it listens nowhere yet.
pub fn swarm(
    keypair: &Keypair,
    network_key: [u8; 32],
    agent_id: &str,
    dht: Option<Store>,
    shared: Arc<Shared>,
) -> Result<Swarm<Behaviour>> {
    let local = keypair.public().to_peer_id();
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(
            ConnectionLimits::default()
                .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX))
                .with_max_pending_incoming(Some(PENDING_MAX))
                .with_max_pending_outgoing(Some(PENDING_MAX)),
        ),
        slots: slots::Behaviour::new(Arc::clone(&shared)),
        identify: identify::Behaviour::new(
            identify::Config::new(IDENTIFY_PROTOCOL.into(), keypair.public())
                .with_agent_version(format!("chorus/{} ({agent_id})", env!("CARGO_PKG_VERSION")))
                .with_push_listen_addr_updates(true),
        ),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT)),
        gossip: gossip_config::behaviour(keypair, &shared)?,
        kad: Toggle::from(dht.map(|store| kad_wall::Behaviour::new(kademlia(local, store), shared))),
        substreams: substream::Behaviour::new(vec![REQUEST_PROTOCOL, STREAM_PROTOCOL, LANE_PROTOCOL]),
    };
    let config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE_TIMEOUT)
        .with_max_negotiating_inbound_streams(NEGOTIATING_MAX);
    Ok(Swarm::new(transport::build(keypair, network_key)?, behaviour, local, config))
}

fn kademlia(local: PeerId, store: Store) -> kad::Behaviour<KadStore> {
    let mut config = kad::Config::new(KAD_PROTOCOL);
    config
        .set_replication_factor(kad::K_VALUE) // 20
        .set_max_packet_size(KAD_PACKET_BYTES)
        .set_query_timeout(KAD_QUERY_TIMEOUT)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        // The crate lets the smaller time-to-live win; here each kind has its own, kept by the store.
        .set_record_ttl(None)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_caching(kad::Caching::Disabled);
    let mut kademlia = kad::Behaviour::with_config(local, KadStore::new(store, local), config);
    kademlia.set_mode(Some(kad::Mode::Server));
    kademlia
}

/// An address with the peer id at its end taken off.
pub fn without_peer(address: &Multiaddr) -> (Multiaddr, Option<PeerId>) {
    let mut address = address.clone();
    match address.iter().last() {
        Some(libp2p::multiaddr::Protocol::P2p(peer)) => {
            address.pop();
            (address, Some(peer))
        }
        _ => (address, None),
    }
}
