//! The loop that owns the swarm: takes commands, turns events into state, and keeps peers connected.

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, TransportError,
    core::ConnectedPoint,
    gossipsub, identify,
    swarm::{ConnectionId, DialError, SwarmEvent},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    IncomingRequest, IncomingStream, NetConfig, NetEvent, Offence,
    addresses::{ip_of, is_taken, worth_keeping},
    behaviour::{self, Behaviour, BehaviourEvent, KAD_PROTOCOL, without_peer},
    connect::Connector,
    gossip::Gossip,
    kad_queries::Queries,
    kad_wall::Routable,
    known::{KnownPeers, write_atomically},
    lane::{self, LANE_PROTOCOL},
    mdns::{Found, Mdns},
    request::REQUEST_PROTOCOL,
    serving::{self, Guest},
    shared::{Command, Outgoing, PeerView, Shared, now_ms},
    stream,
    substream::Inbound,
};
use crate::{Error, Result, dht::Store};

/// How often what waits is looked at: dials, held messages.
const TICK: Duration = Duration::from_millis(250);
/// The same once no connection has come, gone or failed for `STIRRED`: ticks are most of what an idle core does.
const CALM_TICK: Duration = Duration::from_secs(1);
const STIRRED: Duration = Duration::from_secs(15);
/// How soon a publication that found no room is tried again.
const RETRY: Duration = Duration::from_millis(5);
/// Changes of known peers are written at most this often.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked at whom gossipsub does not listen to any more.
const SCORE_EVERY: Duration = Duration::from_secs(1);
/// How long the start waits for the first listen address of each listener.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the goodbye may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);
/// Publications taken at one go.
const PUBLISH_BATCH: usize = 64;
/// Request and lane substreams that one peer may have open, and byte streams.
const CONTROL_SUBSTREAMS_MAX: usize = 8;
const BYTE_STREAMS_MAX: usize = 256;

/// The loop's ends of the channels.
pub struct Inputs {
    pub commands: mpsc::Receiver<Command>,
    pub publishes: mpsc::Receiver<Outgoing>,
    pub requests: mpsc::Sender<IncomingRequest>,
    pub streams: mpsc::Sender<IncomingStream>,
    pub stop: CancellationToken,
    pub store: Store,
}

/// Binds, starts mDNS and spawns the loop.
pub async fn start(config: NetConfig, shared: Arc<Shared>, inputs: Inputs) -> Result<JoinHandle<()>> {
    let dht = config.dht.then(|| inputs.store.clone());
    let mut swarm = behaviour::swarm(&config.keypair, config.network_key, &config.agent_id, dht, shared.clone())?;
    let listeners = listen(&mut swarm, &config.listen)?;
    let known = KnownPeers::load(&config.data_dir.join("peers.json"));
    let (mdns, found) = match config.mdns.then(|| Mdns::start(shared.local)) {
        Some(Ok((mdns, found))) => (Some(mdns), Some(found)),
        Some(Err(error)) => {
            tracing::warn!(%error, "mDNS is off: agents on this network must be named in CHORUS_BOOTSTRAP_PEERS");
            (None, None)
        }
        None => (None, None),
    };
    shared.view_mut().mdns = mdns.is_some();
    let (connector, resolved) = Connector::new(shared.local, &config.bootstrap, &known);
    let mut service = Service {
        swarm,
        gossip: Gossip::new(shared.clone()),
        queries: Queries::new(inputs.store.clone(), shared.local),
        connector,
        known,
        mdns,
        served: HashMap::new(),
        routable: Routable::default(),
        requests: inputs.requests,
        streams: inputs.streams,
        saved: Instant::now(),
        scored: Instant::now(),
        due: Instant::now(),
        stirred: Instant::now(),
        shared,
    };
    let deadline = Instant::now() + LISTEN_TIMEOUT;
    while service.shared.view().listen.len() < listeners {
        match timeout_at(deadline, service.swarm.select_next_some()).await {
            Ok(event) => service.on_event(event),
            Err(_) => break,
        }
    }
    let inputs = Waiting { commands: inputs.commands, publishes: inputs.publishes, resolved, found, stop: inputs.stop };
    Ok(tokio::spawn(service.run(inputs)))
}

/// Binds every address; one that this machine does not have (IPv6 switched off) is forgiven while another works.
fn listen(swarm: &mut Swarm<Behaviour>, addresses: &[Multiaddr]) -> Result<usize> {
    let mut bound = 0;
    let mut missing = None;
    for address in addresses {
        // libp2p shares a port with whoever holds it already (`SO_REUSEPORT`); a second agent on it must fail instead.
        if is_taken(address) {
            return Err(Error::Unavailable(format!("bind: address already in use: {address}")));
        }
        match swarm.listen_on(address.clone()) {
            Ok(_) => bound += 1,
            Err(TransportError::Other(error)) if lacks_address(&error) => {
                tracing::warn!(%address, %error, "this machine has no such address");
                missing = Some(Error::Unavailable(format!("bind: {error}: {address}")));
            }
            Err(error) => {
                let why = match error {
                    TransportError::Other(error) => innermost(&error),
                    other => other.to_string(),
                };
                return Err(Error::Unavailable(format!("bind: {why}: {address}")));
            }
        }
    }
    match missing {
        Some(error) if bound == 0 => Err(error),
        _ => Ok(bound),
    }
}

/// What the system said, without the layers around it.
fn innermost(error: &std::io::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

fn lacks_address(error: &std::io::Error) -> bool {
    let text = innermost(error);
    error.kind() == std::io::ErrorKind::AddrNotAvailable
        || text.contains("Cannot assign requested address")
        || text.contains("Address family not supported")
}

/// What the loop waits for besides the swarm.
struct Waiting {
    commands: mpsc::Receiver<Command>,
    publishes: mpsc::Receiver<Outgoing>,
    resolved: mpsc::Receiver<super::connect::Resolved>,
    found: Option<mpsc::Receiver<Found>>,
    stop: CancellationToken,
}

struct Service {
    shared: Arc<Shared>,
    swarm: Swarm<Behaviour>,
    gossip: Gossip,
    queries: Queries,
    connector: Connector,
    known: KnownPeers,
    mdns: Option<Mdns>,
    served: HashMap<PeerId, Served>,
    routable: Routable,
    requests: mpsc::Sender<IncomingRequest>,
    streams: mpsc::Sender<IncomingStream>,
    saved: Instant,
    scored: Instant,
    /// When the next tick is.
    due: Instant,
    /// When a connection came, went or failed last.
    stirred: Instant,
}

/// One peer as it is served: its budget, and room for its substreams.
struct Served {
    guest: Guest,
    control: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// Ends the work for it when its last connection is gone: a line that waits for room does not see its end.
    gone: CancellationToken,
}

impl Served {
    fn is_idle(&self) -> bool {
        self.guest.is_idle()
            && self.control.available_permits() == CONTROL_SUBSTREAMS_MAX
            && self.streams.available_permits() == BYTE_STREAMS_MAX
    }
}

impl Service {
    async fn run(mut self, mut waiting: Waiting) {
        let mut tick = pin!(sleep_until(self.due));
        let mut retry = interval(RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shared = self.shared.clone();
        self.gossip.sync_topics(&mut self.swarm.behaviour_mut().gossip);
        loop {
            tokio::select! {
                () = waiting.stop.cancelled() => break,
                event = self.swarm.select_next_some() => self.on_event(event),
                command = waiting.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                outgoing = waiting.publishes.recv(), if self.gossip.ready() => {
                    let Some(outgoing) = outgoing else { break };
                    self.on_publish(outgoing, &mut waiting.publishes);
                }
                () = shared.subscribers.changed.notified() => {
                    self.gossip.sync_topics(&mut self.swarm.behaviour_mut().gossip);
                }
                Some(resolved) = waiting.resolved.recv() => self.connector.on_resolved(&mut self.swarm, &self.shared, resolved),
                Some(found) = next_found(&mut waiting.found) => self.connector.on_found(&found),
                _ = retry.tick(), if !self.gossip.ready() => self.gossip.tick(&mut self.swarm.behaviour_mut().gossip),
                () = shared.condemned_news.notified() => self.swarm.behaviour_mut().slots.tick(),
                () = &mut tick => self.on_tick(),
            }
            if tick.deadline() != self.due {
                tick.as_mut().reset(self.due);
            }
        }
        self.goodbye().await;
    }

    fn on_publish(&mut self, first: Outgoing, queue: &mut mpsc::Receiver<Outgoing>) {
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        self.gossip.publish(gossip, first);
        for _ in 1..PUBLISH_BATCH {
            if !self.gossip.ready() {
                return;
            }
            match queue.try_recv() {
                Ok(next) => self.gossip.publish(gossip, next),
                Err(_) => return,
            }
        }
    }

    /// A connection came, went or failed.
    fn stir(&mut self) {
        self.stirred = Instant::now();
        self.due = self.due.min(self.stirred + TICK);
    }

    fn on_tick(&mut self) {
        self.due = Instant::now() + if self.stirred.elapsed() < STIRRED { TICK } else { CALM_TICK };
        self.gossip.tick(&mut self.swarm.behaviour_mut().gossip);
        self.connector.tick(&mut self.swarm);
        if self.scored.elapsed() >= SCORE_EVERY {
            self.scored = Instant::now();
            for peer in self.swarm.behaviour().gossip.graylisted() {
                self.shared.blame_for_gossip(peer, Offence::Graylisted);
            }
        }
        self.swarm.behaviour_mut().slots.tick();
        self.forget_left();
        self.route();
        // What a peer fills counts on when it connects anew.
        self.served.retain(|peer, served| self.swarm.is_connected(peer) || !served.is_idle());
        if self.saved.elapsed() >= SAVE_EVERY
            && let Some((path, bytes)) = self.known.take_changes()
        {
            self.saved = Instant::now();
            tokio::task::spawn_blocking(move || {
                if let Err(error) = write_atomically(&path, &bytes) {
                    tracing::warn!(%error, "known peers could not be written");
                }
            });
        }
    }

    fn forget_left(&mut self) {
        for peer in self.shared.wall.take_left() {
            tracing::info!(%peer, "a member has left the mesh: it is not looked for any more");
            self.forget(peer);
        }
    }

    /// A peer has left the mesh: its addresses go, and it is not looked for any more. A connection that stands stays.
    fn forget(&mut self, peer: PeerId) {
        self.known.forget(&peer);
        self.connector.forget(peer);
        if let Some(kademlia) = self.swarm.behaviour_mut().kad.as_mut() {
            kademlia.remove_peer(&peer);
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Open { peer, protocol, reply } => {
                if let Err(reply) = self.swarm.behaviour_mut().substreams.open(peer, protocol.clone(), reply) {
                    self.connector.open_later(&mut self.swarm, &self.known, peer, protocol, reply);
                }
            }
            Command::Dial { addr, reply } => self.connector.ask(&addr, reply),
            Command::Kad(command) => {
                let view = self.shared.view();
                if let Some(kademlia) = self.swarm.behaviour_mut().kad.as_mut() {
                    self.queries.begin(kademlia, command, |peer| view.peers.contains_key(peer));
                }
            }
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                tracing::debug!(peer = %peer_id, cause = ?cause.map(|cause| cause.to_string()), "a connection closed");
                self.on_disconnected(peer_id, connection_id, num_established == 0);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.on_dial_error(connection_id, peer_id, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "a connection was not made");
            }
            SwarmEvent::NewListenAddr { address, .. } => self.on_listen(|listen| {
                if !listen.contains(&address) {
                    listen.push(address.clone());
                }
            }),
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.on_listen(|listen| listen.retain(|one| *one != address))
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                if let Err(error) = reason {
                    tracing::error!(%error, "a listener closed");
                }
                self.on_listen(|listen| listen.retain(|one| !addresses.contains(one)));
            }
            _ => {}
        }
    }

    fn on_listen(&mut self, change: impl FnOnce(&mut Vec<Multiaddr>)) {
        let before = self.shared.view().listen.clone();
        change(&mut self.shared.view_mut().listen);
        let now = self.shared.view().listen.clone();
        for address in now.iter().filter(|address| !before.contains(address)) {
            self.shared.emit(NetEvent::Listening { addr: format!("{address}/p2p/{}", self.shared.local) });
        }
        if let Some(mdns) = &mut self.mdns {
            mdns.announce(&now);
        }
    }

    fn on_connected(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        self.stir();
        let address = without_peer(endpoint.get_remote_address()).0;
        let first = {
            let mut view = self.shared.view_mut();
            let entry = view.peers.entry(peer).or_insert_with(|| PeerView::new(now_ms()));
            entry.connections.push((connection, address.clone()));
            entry.connections.len() == 1
        };
        if endpoint.is_dialer() {
            self.known.note(peer, address.clone(), true, now_ms());
        }
        self.connector.on_connected(&mut self.swarm, peer, connection, endpoint.is_dialer().then_some(&address));
        if first {
            tracing::info!(%peer, %address, "peer connected");
            self.shared.emit(NetEvent::PeerUp { peer: peer.to_string() });
        }
    }

    fn on_disconnected(&mut self, peer: PeerId, connection: ConnectionId, last: bool) {
        self.stir();
        {
            let mut view = self.shared.view_mut();
            if let Some(entry) = view.peers.get_mut(&peer) {
                entry.connections.retain(|(id, _)| *id != connection);
            }
            if last {
                view.peers.remove(&peer);
            }
        }
        if last {
            tracing::info!(%peer, "peer disconnected");
            self.routable.forget(&peer);
            if let Some(served) = self.served.get_mut(&peer) {
                std::mem::take(&mut served.gone).cancel();
            }
            self.forget_left();
            if self.shared.wall.is_member(&peer) {
                self.connector.welcome(&peer);
            }
            if self.connector.has_left(&peer) {
                self.forget(peer);
            } else {
                self.connector.on_lost(peer, self.known.addresses(&peer));
            }
            self.shared.emit(NetEvent::PeerDown { peer: peer.to_string() });
        }
    }

    fn on_dial_error(&mut self, connection: ConnectionId, peer: Option<PeerId>, error: &DialError) {
        self.stir();
        let connected = peer.is_some_and(|peer| self.swarm.is_connected(&peer));
        self.connector.on_failed(&self.shared, connection, peer, error, connected);
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                self.gossip.on_message(gossip, &propagation_source, &message_id, message);
            }
            BehaviourEvent::Gossip(gossipsub::Event::Subscribed { topic, .. }) => {
                self.gossip.on_subscribed(&mut self.swarm.behaviour_mut().gossip, &topic);
            }
            BehaviourEvent::Gossip(_) => {}
            BehaviourEvent::Kad(event) => {
                if let Some(kademlia) = self.swarm.behaviour_mut().kad.as_mut()
                    && let Some(liar) = self.queries.on_event(kademlia, event)
                {
                    self.shared.blame(liar, Offence::Refused);
                }
            }
            BehaviourEvent::Substreams(inbound) => self.on_substream(inbound),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, connection_id }) => {
                self.on_identified(peer_id, connection_id, info);
            }
            BehaviourEvent::Identify(_) => {}
            BehaviourEvent::Ping(event) => match event.result {
                Ok(rtt) => {
                    if let Some(peer) = self.shared.view_mut().peers.get_mut(&event.peer) {
                        peer.rtt_ms = Some(rtt.as_secs_f64() * 1000.0);
                    }
                }
                Err(libp2p::ping::Failure::Unsupported) => {}
                Err(error) => {
                    tracing::debug!(peer = %event.peer, %error, "no answer to a ping: the connection is closed");
                    self.swarm.close_connection(event.connection);
                }
            },
            BehaviourEvent::Limits(never) | BehaviourEvent::Slots(never) => match never {},
        }
    }

    fn on_identified(&mut self, peer: PeerId, connection: ConnectionId, info: identify::Info) {
        let (seen, dialled) = {
            let mut view = self.shared.view_mut();
            let Some(entry) = view.peers.get_mut(&peer) else { return };
            entry.agent_version = Some(info.agent_version.chars().take(200).collect());
            let seen =
                entry.connections.iter().find(|(id, _)| *id == connection).and_then(|(_, address)| ip_of(address));
            (seen, self.known.addresses(&peer).to_vec())
        };
        let listens = info.listen_addrs.iter().map(|address| without_peer(address).0);
        let mut addresses: Vec<Multiaddr> = listens.filter(|address| worth_keeping(address, seen)).take(16).collect();
        let member = self.shared.wall.is_member(&peer);
        for address in addresses.iter().filter(|_| member || !self.connector.has_left(&peer)) {
            self.known.note(peer, address.clone(), member, now_ms());
        }
        addresses.extend(dialled);
        if info.protocols.contains(&KAD_PROTOCOL)
            && let Some(kademlia) = self.swarm.behaviour_mut().kad.as_mut()
        {
            self.routable.note(kademlia, peer, addresses);
            self.route();
        }
    }

    fn route(&mut self) {
        if let Some(kademlia) = self.swarm.behaviour_mut().kad.as_mut() {
            self.routable.route(kademlia, &self.shared);
        }
    }

    fn on_substream(&mut self, inbound: Inbound) {
        let Inbound { peer, protocol, stream } = inbound;
        let served = self.served.entry(peer).or_insert_with(|| Served {
            guest: Guest::new(peer, &self.shared),
            control: Arc::new(Semaphore::new(CONTROL_SUBSTREAMS_MAX)),
            streams: Arc::new(Semaphore::new(BYTE_STREAMS_MAX)),
            gone: CancellationToken::new(),
        });
        let room =
            if protocol == REQUEST_PROTOCOL || protocol == LANE_PROTOCOL { &served.control } else { &served.streams };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            self.shared.blame(peer, Offence::Refused);
            tracing::debug!(%peer, %protocol, "the peer has too many substreams open");
            return;
        };
        let (guest, gone) = (served.guest.clone(), served.gone.clone());
        if protocol == REQUEST_PROTOCOL {
            let router = self.requests.clone();
            tokio::spawn(gone.run_until_cancelled_owned(async move {
                serving::serve(guest, stream, router).await;
                drop(permit);
            }));
        } else if protocol == LANE_PROTOCOL {
            tokio::spawn(gone.run_until_cancelled_owned(async move {
                lane::serve(guest, stream).await;
                drop(permit);
            }));
        } else {
            tokio::spawn(gone.run_until_cancelled_owned(stream::serve(guest, stream, self.streams.clone(), permit)));
        }
    }

    async fn goodbye(mut self) {
        if let Some(mdns) = &mut self.mdns {
            mdns.stop();
        }
        self.forget_left();
        if let Some((path, bytes)) = self.known.take_changes() {
            let written = tokio::task::spawn_blocking(move || write_atomically(&path, &bytes)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, "known peers could not be written");
            }
        }
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let _ = timeout(GOODBYE_TIMEOUT, async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        })
        .await;
        self.shared.view_mut().peers.clear();
        self.shared.view_mut().listen.clear();
    }
}

async fn next_found(found: &mut Option<mpsc::Receiver<Found>>) -> Option<Found> {
    match found {
        Some(found) => found.recv().await,
        None => std::future::pending().await,
    }
}
