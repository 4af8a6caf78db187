//! Nodes for tests: a network, its DHT and what answers its peers, as a core joins them.

use std::{
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use libp2p::{PeerId, identity::Keypair};
use tempfile::TempDir;
use tokio::{sync::oneshot, time::timeout};

use crate::{
    Error, Result,
    crypto::{self, RoleKeys},
    dht::{
        Dht, DhtConfig, Limits, Sealer,
        key::{RecordKey, content_hash},
        record::{self, Header},
    },
    net::{Ask, CoreServices, IncomingRequest, NetConfig, NetHandle, Reply},
};

/// Far beyond what anything here takes, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);
const SECRET: &[u8] = b"a secret for tests, long enough";

pub struct Roles(pub RoleKeys);

impl Sealer for Roles {
    fn seal(&self, role: Option<&str>, plain: &[u8]) -> Result<Vec<u8>> {
        crypto::seal(&self.0, role, plain)
    }

    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>> {
        crypto::open(&self.0, sealed)
    }

    fn reads(&self, role: Option<&str>) -> bool {
        self.0.reads(role)
    }
}

pub fn roles(role: &str) -> Arc<Roles> {
    Arc::new(Roles(RoleKeys::derive(SECRET, Some(role)).unwrap()))
}

/// How a node differs from the usual one.
pub struct Options {
    pub keypair: Keypair,
    pub folder: TempDir,
    pub dht: bool,
    pub role: &'static str,
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keypair: Keypair::generate_ed25519(),
            folder: tempfile::tempdir().unwrap(),
            dht: true,
            role: "developer",
            limits: Limits::default(),
        }
    }
}

/// What a node answers other than its DHT would; gives back what it leaves to the DHT.
pub type Manners = Box<dyn Fn(IncomingRequest) -> Option<IncomingRequest> + Send>;

pub struct Node {
    pub net: NetHandle,
    pub dht: Dht,
    pub keypair: Keypair,
    pub folder: TempDir,
    core: Arc<Core>,
}

struct Core {
    dht: Dht,
    manners: Mutex<Option<Manners>>,
}

impl CoreServices for Core {
    fn frame(&self, _: PeerId, _: Bytes) {}

    fn answer(&self, peer: PeerId, ask: Ask) -> BoxFuture<'static, Result<Reply>> {
        let Ask { service, method, head, payload, timeout } = ask;
        let (reply, answer) = oneshot::channel();
        let request = IncomingRequest { peer, service, method, head, payload, timeout, reply };
        let left = match &*self.manners.lock().unwrap() {
            Some(manners) => manners(request),
            None => Some(request),
        };
        let dht = self.dht.clone();
        Box::pin(async move {
            let Some(IncomingRequest { service, method, head, payload, timeout, .. }) = left else {
                return answer.await.unwrap_or(Err(Error::Unavailable("dropped".into())));
            };
            dht.serve(peer, Ask { service, method, head, payload, timeout }).await
        })
    }
}

impl Node {
    pub async fn start(options: Options, beside: &[&Node]) -> Self {
        let node = Self::alone(options, beside).await;
        for other in beside {
            connected(&node, other).await;
            if node.net.kad().enabled() && other.net.kad().enabled() {
                routed(&node, other).await;
                routed(other, &node).await;
            }
        }
        node
    }

    /// One that is started without waiting for anybody.
    pub async fn alone(options: Options, beside: &[&Node]) -> Self {
        let Options { keypair, folder, dht, role, limits } = options;
        let net = NetHandle::start(NetConfig {
            keypair: keypair.clone(),
            network_key: [9; 32],
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            bootstrap: beside.iter().map(|node| node.net.state().listen[0].clone()).collect(),
            mdns: false,
            data_dir: folder.path().to_owned(),
            agent_id: "test".into(),
            role: None,
            dht,
            dht_limits: limits,
            members_only: false,
        })
        .await
        .unwrap();
        let config = DhtConfig {
            net: net.clone(),
            keypair: keypair.clone(),
            sealer: roles(role),
            cache_bytes: 64 * 1024 * 1024,
        };
        let dht = Dht::start(config);
        let core = Arc::new(Core { dht: dht.clone(), manners: Mutex::default() });
        net.serve_core(Arc::downgrade(&core) as Weak<dyn CoreServices>);
        Self { net, dht, keypair, folder, core }
    }

    pub fn peer(&self) -> PeerId {
        self.net.local_peer()
    }

    /// From now on its peers are answered like this.
    pub fn behave(&self, manners: impl Fn(IncomingRequest) -> Option<IncomingRequest> + Send + 'static) {
        *self.core.manners.lock().unwrap() = Some(Box::new(manners));
    }

    /// Its peers are answered as they should be again.
    pub fn behave_well(&self) {
        *self.core.manners.lock().unwrap() = None;
    }

    /// Stops it and gives back what a restart needs.
    pub async fn stop(self) -> Options {
        let Self { net, dht, keypair, folder, core } = self;
        dht.close().await;
        drop(core);
        net.shutdown().await;
        Options { keypair, folder, ..Options::default() }
    }

    pub fn holds(&self, key: &str) -> bool {
        !self.net.store().get(key.as_bytes()).is_empty()
    }

    /// A record in this node's name, sealed for `role`.
    pub fn record(&self, kind: &str, name: &str, version: u64, role: Option<&str>, plain: &[u8]) -> Vec<u8> {
        let immutable = RecordKey::new(kind, name).unwrap().kind.immutable();
        let header = Header {
            author: self.peer().to_string(),
            blocks: None,
            created_at: version,
            hash: if immutable { name.into() } else { content_hash(plain) },
            kind: kind.into(),
            name: name.into(),
            of: None,
            role: role.map(Into::into),
            v: 1,
            version,
        };
        record::write(&self.keypair, &header, &roles("admin").seal(role, plain).unwrap()).unwrap()
    }
}

pub async fn node(beside: &[&Node]) -> Node {
    Node::start(Options::default(), beside).await
}

/// Nodes that all know each other.
pub async fn mesh<const N: usize>() -> [Node; N] {
    let mut nodes: Vec<Node> = Vec::new();
    for _ in 0..N {
        let next = node(&nodes.iter().collect::<Vec<_>>()).await;
        nodes.push(next);
    }
    nodes.try_into().unwrap_or_else(|_| unreachable!())
}

pub async fn connected(node: &Node, other: &Node) {
    let mut events = node.net.events();
    timeout(PATIENCE, async {
        while !node.net.connected(&other.peer()) {
            let _ = events.recv().await.unwrap();
        }
    })
    .await
    .unwrap();
}

/// Waits until one node counts the other among those who hold records.
pub async fn routed(node: &Node, other: &Node) {
    let mut routed = node.net.kad().routed();
    let key = format!("/chorus/agent/{}", other.peer());
    timeout(PATIENCE, async {
        while !node.net.kad().closest(key.as_bytes(), PATIENCE).await.unwrap().peers.contains(&other.peer()) {
            let _ = timeout(Duration::from_millis(100), routed.recv()).await;
        }
    })
    .await
    .unwrap();
}

/// Waits until something is so.
pub async fn until(what: &str, so: impl Fn() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

pub fn content(text: &str) -> (String, Vec<u8>) {
    (content_hash(text.as_bytes()), text.as_bytes().to_vec())
}

/// Answers a request for records with these.
pub fn give(reply: oneshot::Sender<Result<Reply>>, records: &[Bytes]) {
    let head = serde_json::json!({"records": records.iter().map(Bytes::len).collect::<Vec<_>>()});
    let _ = reply.send(Ok(Reply { head: head.to_string().into(), payload: records.concat().into() }));
}

pub fn refuse(reply: oneshot::Sender<Result<Reply>>) {
    let _ = reply.send(Err(Error::Refused("not here".into())));
}
