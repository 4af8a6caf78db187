//! What the loop writes and handles read without asking it: the view of peers, counters, events; and its commands.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use libp2p::{Multiaddr, PeerId, StreamProtocol, swarm::ConnectionId};
use tokio::sync::{Notify, SetOnce, broadcast, mpsc, oneshot};

use super::{
    CoreServices, NetEvent, NetStats, Offence, PeerState, Publish, budget::Budget, kad::KadCommand,
    penalty::PenaltyBox, slots::Activities, subscription::Subscribers, wall::Wall,
};
use crate::{
    Error, Result,
    wire::{Reason, Standing, Topic},
};

/// Events that a slow listener may lag behind before it misses some.
const EVENT_QUEUE: usize = 1024;

/// Bytes of requests of all peers from their arrival to their answer, of answers until they are written, and of Raft's
/// frames until Raft has taken them. Three of the largest frames fit at once.
const BUDGET_BYTES: usize = 64 * 1024 * 1024;

/// What the loop is asked to do.
pub enum Command {
    /// Open a substream, dialling the peer's known addresses when it is away.
    Open { peer: PeerId, protocol: StreamProtocol, reply: oneshot::Sender<Result<libp2p::Stream>> },
    /// Dial an address as an operator writes it; answered when a connection stands or no address is left.
    Dial { addr: String, reply: oneshot::Sender<Result<()>> },
    /// Kademlia.
    Kad(KadCommand),
}

/// A publication on its way to the loop.
pub struct Outgoing {
    pub topic: Topic,
    pub publish: Publish,
    pub reply: oneshot::Sender<Result<String>>,
}

/// Opens a substream through the loop.
pub async fn open(commands: &mpsc::Sender<Command>, peer: PeerId, protocol: StreamProtocol) -> Result<libp2p::Stream> {
    let (reply, answer) = oneshot::channel();
    commands.send(Command::Open { peer, protocol, reply }).await.map_err(|_| Error::Closed)?;
    answer.await.map_err(|_| Error::Closed)?
}

/// State shared between the loop and the handles.
#[derive(Debug)]
pub struct Shared {
    pub local: PeerId,
    pub events: broadcast::Sender<NetEvent>,
    /// Peers that hold records, as they make themselves known.
    pub routed: broadcast::Sender<PeerId>,
    pub subscribers: Arc<Subscribers>,
    pub counters: Arc<Counters>,
    /// Who may ask this agent what.
    pub wall: Wall,
    /// What connected peers did last.
    pub activities: Activities,
    pub budgets: Budgets,
    /// The core above, once it is there; it owns this network.
    pub core: SetOnce<Weak<dyn CoreServices>>,
    penalties: Mutex<PenaltyBox>,
    /// Peers whose connections are to be closed.
    condemned: Mutex<Vec<PeerId>>,
    /// Told when there is one.
    pub condemned_news: Notify,
    view: RwLock<View>,
    /// `from_role` of outgoing envelopes.
    role: RwLock<Option<String>>,
}

/// Memory that peers fill.
#[derive(Debug)]
pub struct Budgets {
    pub requests: Arc<Budget>,
    pub answers: Arc<Budget>,
    pub lanes: Arc<Budget>,
}

/// Connections and addresses now.
#[derive(Debug, Default)]
pub struct View {
    pub listen: Vec<Multiaddr>,
    pub peers: HashMap<PeerId, PeerView>,
    pub mdns: bool,
}

/// A connected peer.
#[derive(Debug)]
pub struct PeerView {
    pub connections: Vec<(ConnectionId, Multiaddr)>,
    pub agent_version: Option<String>,
    pub since_ms: u64,
    pub rtt_ms: Option<f64>,
}

impl PeerView {
    pub fn new(since_ms: u64) -> Self {
        Self { connections: Vec::new(), agent_version: None, since_ms, rtt_ms: None }
    }
}

impl Shared {
    pub fn new(local: PeerId, members_only: bool, role: Option<String>) -> Self {
        Self {
            local,
            wall: Wall::new(members_only),
            activities: Activities::default(),
            budgets: Budgets {
                requests: Budget::new(BUDGET_BYTES),
                answers: Budget::new(BUDGET_BYTES),
                lanes: Budget::new(BUDGET_BYTES),
            },
            core: SetOnce::new(),
            penalties: Mutex::default(),
            condemned: Mutex::default(),
            condemned_news: Notify::new(),
            events: broadcast::channel(EVENT_QUEUE).0,
            routed: broadcast::channel(EVENT_QUEUE).0,
            subscribers: Arc::default(),
            counters: Arc::default(),
            view: RwLock::default(),
            role: RwLock::new(role),
        }
    }

    /// The core above; waits for its start.
    pub async fn core(&self) -> Result<Arc<dyn CoreServices>> {
        self.core.wait().await.upgrade().ok_or(Error::Closed)
    }

    pub fn role(&self) -> Option<String> {
        self.role.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_role(&self, role: Option<String>) {
        *self.role.write().unwrap_or_else(PoisonError::into_inner) = role;
    }

    /// What a peer is to this agent's mesh. To an agent without a mesh nobody is a stranger.
    pub fn standing(&self, peer: &PeerId) -> Standing {
        if !self.wall.in_mesh() || self.wall.is_member(peer) { Standing::Member } else { Standing::Stranger }
    }

    pub fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn view_mut(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a peer did; one that has done too much is disconnected.
    pub fn blame(&self, peer: PeerId, offence: Offence) {
        bump(&self.counters.offences);
        let banned = self.penalties.lock().unwrap_or_else(PoisonError::into_inner).note(peer, offence, Instant::now());
        if banned {
            bump(&self.counters.bans);
            tracing::warn!(%peer, ?offence, "a peer misbehaved again and again: it is disconnected and kept out for a time");
            self.condemned.lock().unwrap_or_else(PoisonError::into_inner).push(peer);
            self.condemned_news.notify_one();
        }
    }

    /// Notes what a stranger did on topics. A member keeps its connections whatever it says there: consensus needs them,
    /// and an older agent passes on what a newer one rejects.
    pub fn blame_for_gossip(&self, peer: PeerId, offence: Offence) {
        if self.standing(&peer) == Standing::Stranger {
            self.blame(peer, offence);
        }
    }

    /// Whether a peer is kept out now.
    pub fn is_banned(&self, peer: &PeerId) -> bool {
        self.penalties.lock().unwrap_or_else(PoisonError::into_inner).is_banned(peer, Instant::now())
    }

    /// Peers to disconnect, each once.
    pub fn take_condemned(&self) -> Vec<PeerId> {
        std::mem::take(&mut *self.condemned.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn emit(&self, event: NetEvent) {
        // Nobody listening is no error.
        let _ = self.events.send(event);
    }
}

impl View {
    pub fn states(&self) -> Vec<PeerState> {
        let mut peers: Vec<PeerState> = self
            .peers
            .iter()
            .map(|(peer, view)| PeerState {
                peer: peer.to_string(),
                addrs: view.connections.iter().map(|(_, addr)| addr.to_string()).collect(),
                agent_version: view.agent_version.clone(),
                since: view.since_ms,
                rtt_ms: view.rtt_ms,
            })
            .collect();
        peers.sort_by(|a, b| a.peer.cmp(&b.peer));
        peers
    }
}

/// Counters since the start; each only grows, but for the three that say how many now.
#[derive(Debug, Default)]
pub struct Counters {
    pub pubsub_sent: AtomicU64,
    pub pubsub_received: AtomicU64,
    pub pubsub_gaps: AtomicU64,
    pub pubsub_held: AtomicU64,
    pub pubsub_expired: AtomicU64,
    rejected: [AtomicU64; Reason::COUNT],
    pub dht_queries: AtomicU64,
    pub dht_cache_hits: AtomicU64,
    pub dht_cache_misses: AtomicU64,
    pub dht_refused: AtomicU64,
    pub dht_repaired: AtomicU64,
    pub requests_sent: AtomicU64,
    pub requests_received: AtomicU64,
    pub requests_in_flight: AtomicU64,
    pub lane_dropped: AtomicU64,
    pub offences: AtomicU64,
    pub bans: AtomicU64,
    /// More than half of the signers heard disagree with our clock.
    pub clock_skew: AtomicBool,
}

impl Counters {
    pub fn reject(&self, reason: Reason) {
        bump(&self.rejected[reason as usize]);
    }

    /// The counters as a picture; what only the handle knows is left at zero.
    pub fn stats(&self) -> NetStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NetStats {
            pubsub_sent: read(&self.pubsub_sent),
            pubsub_received: read(&self.pubsub_received),
            rejected: Reason::ALL
                .iter()
                .map(|reason| (reason.as_str().to_owned(), read(&self.rejected[*reason as usize])))
                .filter(|(_, count)| *count > 0)
                .collect(),
            pubsub_gaps: read(&self.pubsub_gaps),
            pubsub_held: read(&self.pubsub_held),
            pubsub_expired: read(&self.pubsub_expired),
            dht_queries: read(&self.dht_queries),
            dht_cache_hits: read(&self.dht_cache_hits),
            dht_cache_misses: read(&self.dht_cache_misses),
            dht_refused: read(&self.dht_refused),
            dht_repaired: read(&self.dht_repaired),
            requests_sent: read(&self.requests_sent),
            requests_received: read(&self.requests_received),
            requests_in_flight: read(&self.requests_in_flight),
            lane_dropped: read(&self.lane_dropped),
            peer_offences: read(&self.offences),
            peer_bans: read(&self.bans),
            ..NetStats::default()
        }
    }
}

/// One more.
pub fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
