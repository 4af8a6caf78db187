//! The network's handle: cheap to clone, every call bounded in time and memory.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use libp2p::PeerId;
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    CoreServices, GossipSubscription, IncomingRequest, IncomingStream, KadHandle, Lane, NetConfig, NetEvent, NetState,
    NetStats, Offence, PeerStream, Publish, Reply, request, service,
    shared::{Command, Outgoing, Shared, open},
    stream,
};
use crate::{Error, Result, dht::Store, wire::Topic};

/// Commands waiting for the loop.
const COMMAND_QUEUE: usize = 1024;
/// Publications waiting for the loop; publishers beyond it wait.
const PUBLISH_QUEUE: usize = 1024;
/// Requests and streams of peers waiting for the router.
const ROUTER_QUEUE: usize = 1024;
/// How long a publication may wait for room in the network before its publisher hears of it.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);
/// How long `dial` tries.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);

/// Byte streams between services of two agents.
pub(super) const STREAM_PROTOCOL: libp2p::StreamProtocol = libp2p::StreamProtocol::new("/chorus/stream/1.0.0");

/// The running network; it stops when the last clone is dropped or [`NetHandle::shutdown`] is called.
#[derive(Clone)]
pub struct NetHandle {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    publishes: mpsc::Sender<Outgoing>,
    requests: Arc<request::Requests>,
    lane: Lane,
    store: Store,
    dht: bool,
    request_router: mpsc::Sender<IncomingRequest>,
    stream_router: mpsc::Sender<IncomingStream>,
    incoming_requests: Mutex<Option<mpsc::Receiver<IncomingRequest>>>,
    incoming_streams: Mutex<Option<mpsc::Receiver<IncomingStream>>>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl NetHandle {
    /// Starts the network: listens, loads known peers, begins to dial. Fails when an address cannot be bound.
    pub async fn start(config: NetConfig) -> Result<Self> {
        let shared =
            Arc::new(Shared::new(config.keypair.public().to_peer_id(), config.members_only, config.role.clone()));
        let (commands, command_queue) = mpsc::channel(COMMAND_QUEUE);
        let (publishes, publish_queue) = mpsc::channel(PUBLISH_QUEUE);
        let (request_router, incoming_requests) = mpsc::channel(ROUTER_QUEUE);
        let (stream_router, incoming_streams) = mpsc::channel(ROUTER_QUEUE);
        let stop = CancellationToken::new();
        let dht = config.dht;
        let file = config.data_dir.join("dht.redb");
        let store = Store::open(&file, shared.local.to_string(), config.dht_limits, shared.counters.clone()).await?;
        let inputs = service::Inputs {
            commands: command_queue,
            publishes: publish_queue,
            requests: request_router.clone(),
            streams: stream_router.clone(),
            stop: stop.clone(),
            store: store.clone(),
        };
        let task = service::start(config, shared.clone(), inputs).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                requests: request::Requests::new(commands.clone(), shared.clone()),
                lane: Lane::new(commands.clone(), shared.clone()),
                shared,
                commands,
                publishes,
                store,
                dht,
                request_router,
                stream_router,
                incoming_requests: Mutex::new(Some(incoming_requests)),
                incoming_streams: Mutex::new(Some(incoming_streams)),
                stop,
                task: Mutex::new(Some(task)),
            }),
        })
    }

    /// This agent's peer id.
    #[must_use]
    pub fn local_peer(&self) -> PeerId {
        self.inner.shared.local
    }

    /// Says goodbye, closes connections, remembers the known peers; safe to call twice.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        let task = self.inner.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = task.await;
        }
        self.inner.requests.close();
        self.inner.shared.subscribers.close();
        self.inner.store.flush().await;
    }

    /// Publishes a message in this agent's name and answers with its id (hex). While nobody listens to the topic the
    /// message is kept for a while, and the id begins with `held-`.
    pub async fn publish(&self, publish: Publish) -> Result<String> {
        let topic: Topic = publish.topic.parse()?;
        let (reply, answer) = oneshot::channel();
        let outgoing = Outgoing { topic, publish, reply };
        let exchange = async {
            self.inner.publishes.send(outgoing).await.map_err(|_| Error::Closed)?;
            answer.await.map_err(|_| Error::Closed)?
        };
        match timeout(PUBLISH_TIMEOUT, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Timeout("the network takes no more messages now".into())),
        }
    }

    /// Subscribes to topics, with room for `queue` messages; unknown topics never bring any (see [`Topic`]).
    #[must_use]
    pub fn subscribe(&self, topics: &[String], queue: usize) -> GossipSubscription {
        self.inner.shared.subscribers.subscribe(topics, queue)
    }

    /// Asks a service of a peer (or of this agent) and waits for the answer.
    pub async fn request(
        &self,
        peer: PeerId,
        service: &str,
        method: &str,
        head: Bytes,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Reply> {
        let ask = request::ask(service, method, head, payload, timeout);
        if peer == self.local_peer() {
            return super::serving::answer(peer, ask, &self.inner.shared, &self.inner.request_router).await;
        }
        self.inner.requests.ask(peer, ask).await
    }

    /// Opens a byte stream to a service of a peer (or of this agent).
    pub async fn open_stream(
        &self,
        peer: PeerId,
        service: &str,
        method: &str,
        head: Bytes,
        patience: Duration,
    ) -> Result<PeerStream> {
        let header = stream::header(service, method, head, patience);
        let opening = async {
            if peer == self.local_peer() {
                return stream::local(peer, header, &self.inner.stream_router).await;
            }
            stream::ask(open(&self.inner.commands, peer, STREAM_PROTOCOL).await?, header).await
        };
        match timeout(patience, opening).await {
            Ok(stream) => stream,
            Err(_) => Err(Error::Timeout(format!("{peer} did not take the stream within {} ms", patience.as_millis()))),
        }
    }

    /// Has `core` take Raft's frames and answer requests to its own services, which wait until then; once only.
    pub fn serve_core(&self, core: Weak<dyn CoreServices>) {
        let _ = self.inner.shared.core.set(core);
    }

    /// Requests of peers (and of this agent to itself) to processes; to be taken once, by the router.
    #[must_use]
    pub fn take_requests(&self) -> Option<mpsc::Receiver<IncomingRequest>> {
        self.inner.incoming_requests.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Streams that peers open; to be taken once, by the router.
    #[must_use]
    pub fn take_streams(&self) -> Option<mpsc::Receiver<IncomingStream>> {
        self.inner.incoming_streams.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Raft's way to peers.
    #[must_use]
    pub fn lane(&self) -> Lane {
        self.inner.lane.clone()
    }

    /// What happens in the network, from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<NetEvent> {
        self.inner.shared.events.subscribe()
    }

    /// Says `from_role` of the envelopes that go out from now on.
    pub fn set_role(&self, role: Option<&str>) {
        self.inner.shared.set_role(role.filter(|role| !role.is_empty()).map(Into::into));
    }

    /// The network now.
    #[must_use]
    pub fn state(&self) -> NetState {
        let view = self.inner.shared.view();
        let own = self.local_peer();
        NetState {
            peer_id: own.to_string(),
            listen: view.listen.iter().map(|addr| format!("{addr}/p2p/{own}")).collect(),
            peers: view.states(),
            mdns: view.mdns,
            clock_skew: self.inner.shared.counters.clock_skew.load(std::sync::atomic::Ordering::Relaxed),
        }
    }

    /// Says who is a member of this agent's mesh, and whether it is in one: they are served what strangers are not. For
    /// those that have left nothing is kept.
    pub fn set_members(&self, in_mesh: bool, members: HashSet<PeerId>) {
        for peer in self.inner.shared.wall.set_members(in_mesh, members) {
            self.inner.lane.forget(&peer);
        }
    }

    /// Holds something against a peer; one that misbehaves again and again is disconnected and kept out for a time.
    pub fn blame(&self, peer: PeerId, offence: Offence) {
        self.inner.shared.blame(peer, offence);
    }

    /// Whether a connection to the peer stands.
    #[must_use]
    pub fn connected(&self, peer: &PeerId) -> bool {
        self.inner.shared.view().peers.contains_key(peer)
    }

    /// Connects to an address, with or without `/p2p/…`, names resolved here.
    pub async fn dial(&self, addr: &str) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.inner.commands.send(Command::Dial { addr: addr.to_owned(), reply }).await.map_err(|_| Error::Closed)?;
        match timeout(DIAL_TIMEOUT, answer).await {
            Ok(answer) => answer.map_err(|_| Error::Closed)?,
            Err(_) => Err(Error::Timeout(format!("{addr} did not answer"))),
        }
    }

    /// Counters and queue depths.
    #[must_use]
    pub fn stats(&self) -> NetStats {
        let connections = self.inner.shared.view().peers.values().map(|peer| peer.connections.len() as u64).sum();
        let depth = |free: usize, whole: usize| (whole - free.min(whole)) as u64;
        let budgets = &self.inner.shared.budgets;
        NetStats {
            connections,
            peer_bytes: (budgets.requests.used() + budgets.answers.used() + budgets.lanes.used()) as u64,
            queue_commands: depth(self.inner.commands.capacity(), COMMAND_QUEUE),
            queue_publish: depth(self.inner.publishes.capacity(), PUBLISH_QUEUE),
            ..self.inner.shared.counters.stats()
        }
    }

    /// Kademlia.
    #[must_use]
    pub fn kad(&self) -> KadHandle {
        KadHandle { commands: self.inner.commands.clone(), shared: self.inner.shared.clone(), enabled: self.inner.dht }
    }

    /// A bare substream to a peer, to write to it what this agent never would.
    #[cfg(test)]
    pub(super) async fn open_raw(&self, peer: PeerId, protocol: libp2p::StreamProtocol) -> Result<libp2p::Stream> {
        open(&self.inner.commands, peer, protocol).await
    }

    /// The disk store of DHT records, for the DHT's own use.
    pub(crate) fn store(&self) -> Store {
        self.inner.store.clone()
    }

    /// Counters that the DHT keeps.
    pub(crate) fn counters(&self) -> Arc<super::shared::Counters> {
        self.inner.shared.counters.clone()
    }
}
