//! Nodes for tests.

use std::{
    sync::{Arc, Once, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use libp2p::{Multiaddr, PeerId, Swarm, identity::Keypair};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};

use crate::{
    Result,
    net::{
        Ask, CoreServices, NetConfig, NetEvent, NetHandle, Reply,
        behaviour::{self, Behaviour},
        shared::Shared,
    },
};

/// Far beyond what anything here takes, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);
pub const KEY: [u8; 32] = [7; 32];

/// A node and the folder that it keeps things in.
pub struct Node {
    pub net: NetHandle,
    pub keypair: Keypair,
    pub folder: TempDir,
}

impl Node {
    pub fn peer(&self) -> PeerId {
        self.net.local_peer()
    }

    /// Its address with the peer id.
    pub fn address(&self) -> String {
        self.net.state().listen[0].clone()
    }

    /// Its address without the peer id.
    pub fn bare_address(&self) -> String {
        let mut address: Multiaddr = self.address().parse().unwrap();
        address.pop();
        address.to_string()
    }
}

pub fn config(keypair: &Keypair, folder: &TempDir) -> NetConfig {
    static LOGS: Once = Once::new();
    LOGS.call_once(|| {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    });
    NetConfig {
        keypair: keypair.clone(),
        network_key: KEY,
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        bootstrap: Vec::new(),
        mdns: false,
        data_dir: folder.path().to_owned(),
        agent_id: "test".into(),
        role: Some("developer".into()),
        dht: true,
        dht_limits: Default::default(),
        members_only: false,
    }
}

/// A node with changed settings.
pub async fn node_with(change: impl FnOnce(&mut NetConfig)) -> Node {
    let (keypair, folder) = (Keypair::generate_ed25519(), tempfile::tempdir().unwrap());
    let mut config = config(&keypair, &folder);
    change(&mut config);
    let net = NetHandle::start(config).await.unwrap();
    Node { net, keypair, folder }
}

pub async fn node() -> Node {
    node_with(|_| {}).await
}

/// A swarm without the loop that drives it: speaks every protocol, past our own checks.
pub fn raw_swarm(keypair: &Keypair) -> Swarm<Behaviour> {
    let shared = Arc::new(Shared::new(keypair.public().to_peer_id(), false, None));
    behaviour::swarm(keypair, KEY, "raw", None, shared).unwrap()
}

/// A node that knows another.
pub async fn node_beside(other: &Node) -> Node {
    let address = other.address();
    let node = node_with(|config| config.bootstrap = vec![address]).await;
    meet(&node, other).await;
    node
}

/// Waits until two nodes are connected, seen from both.
pub async fn meet(one: &Node, other: &Node) {
    connected(&one.net, other.peer()).await;
    connected(&other.net, one.peer()).await;
}

pub async fn connected(net: &NetHandle, peer: PeerId) {
    let mut events = net.events();
    timeout(PATIENCE, async {
        while !net.connected(&peer) {
            let _ = events.recv().await.unwrap();
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{} never met {peer}", net.local_peer()));
}

/// Waits until a connection to the peer is gone.
pub async fn parted(net: &NetHandle, peer: PeerId) {
    let mut events = net.events();
    timeout(PATIENCE, async {
        while net.connected(&peer) {
            let _ = events.recv().await.unwrap();
        }
    })
    .await
    .unwrap();
}

/// Waits until an event of the wanted kind comes.
pub async fn event(
    events: &mut tokio::sync::broadcast::Receiver<NetEvent>,
    wanted: impl Fn(&NetEvent) -> bool,
) -> NetEvent {
    timeout(PATIENCE, async {
        loop {
            let event = events.recv().await.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
    .unwrap()
}

/// The core above a node, for as long as it is kept: tells of what it takes, and answers what it is asked with the
/// name of the method, but for `never`.
pub struct Core {
    pub frames: mpsc::UnboundedReceiver<(PeerId, Bytes)>,
    /// Says something when an answer is not wanted any more.
    pub given_up: mpsc::UnboundedReceiver<()>,
    _above: Arc<Above>,
}

struct Above {
    frames: mpsc::UnboundedSender<(PeerId, Bytes)>,
    given_up: mpsc::UnboundedSender<()>,
}

struct Pending(mpsc::UnboundedSender<()>);

impl Drop for Pending {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl CoreServices for Above {
    fn frame(&self, from: PeerId, frame: Bytes) {
        let _ = self.frames.send((from, frame));
    }

    fn answer(&self, _: PeerId, ask: Ask) -> BoxFuture<'static, Result<Reply>> {
        let given_up = self.given_up.clone();
        Box::pin(async move {
            if ask.method == "never" {
                let _pending = Pending(given_up);
                std::future::pending::<()>().await;
            }
            Ok(Reply { head: Bytes::new(), payload: ask.method.into() })
        })
    }
}

/// Puts a core above a node.
pub fn core(net: &NetHandle) -> Core {
    let (taken, frames) = mpsc::unbounded_channel();
    let (dropped, given_up) = mpsc::unbounded_channel();
    let above = Arc::new(Above { frames: taken, given_up: dropped });
    net.serve_core(Arc::downgrade(&above) as Weak<dyn CoreServices>);
    Core { frames, given_up, _above: above }
}

/// Looks again and again until something holds; for counters that announce themselves to nobody.
pub async fn until(mut holds: impl FnMut() -> bool) {
    timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}
