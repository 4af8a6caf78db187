//! Starts the parts of a core in order, joins them, and stops them in the reverse order.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::{Arc, OnceLock, Weak},
};

use libp2p::PeerId;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{config::CoreConfig, transport::NetTransport};
use crate::{
    Error, Result,
    crypto::{self, KeySource, LiveKeys},
    dht::{Dht, DhtConfig, Limits, Sealer},
    hub::{
        Hub,
        methods::{CoreBackend, Findings, Parts},
    },
    identity::Identity,
    log::{LogHandle, Repair},
    net::{CoreServices, NetConfig, NetEvent, NetHandle},
    raft::{RaftConfig, RaftHandle, RaftTransport},
};

/// Characters of the peer id that make an agent's name.
const NAME_TAIL_CHARS: usize = 8;

pub(super) struct Running {
    pub parts: Arc<Parts>,
    hub: Arc<Hub>,
    transport: Arc<NetTransport>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    pub async fn start(config: &CoreConfig) -> Result<Self> {
        let secret = config.secret()?;
        let scanner = config.scanner()?;
        let stores = config.data_dir.join("core");
        for folder in [&config.data_dir, &stores] {
            private_folder(folder)?;
        }
        let identity = Identity::load_or_create(config.data_dir.join("identity.key"))?;
        let source = KeySource {
            secret: secret.clone(),
            previous: config.previous_secrets()?,
            file: config.role_keys_file.clone(),
            grants: config.role_grants.clone(),
        };
        let keys = Arc::new(LiveKeys::new(source, config.role.as_deref())?);
        let local = identity.peer_id().to_string();
        let agent_id = config.agent_id.clone().unwrap_or_else(|| {
            let tail = local.len().saturating_sub(NAME_TAIL_CHARS);
            format!("chorus-{}", &local[tail..])
        });
        let listen = config
            .listen
            .iter()
            .map(|addr| addr.parse().map_err(|error| Error::Invalid(format!("listen address {addr}: {error}"))))
            .collect::<Result<Vec<_>>>()?;
        let (log, repair) = open_log(&stores, &identity).await?;
        if let Some(repair) = repair {
            tracing::warn!(?repair, "the log was repaired after a crash");
        }
        let net = NetHandle::start(NetConfig {
            keypair: identity.keypair().clone(),
            network_key: crypto::network_key(&secret),
            listen,
            bootstrap: config.bootstrap.clone(),
            mdns: config.mdns,
            data_dir: stores.clone(),
            agent_id: agent_id.clone(),
            role: config.role.clone(),
            dht: config.dht,
            dht_limits: Limits::default(),
            members_only: config.members_only,
        })
        .await?;
        let dht = Dht::start(DhtConfig {
            net: net.clone(),
            keypair: identity.keypair().clone(),
            sealer: Arc::new(RoleSealer(Arc::clone(&keys))),
            cache_bytes: config.dht_cache_bytes,
        });
        let transport = Arc::new(NetTransport::new(net.clone()));
        let raft = RaftHandle::start(RaftConfig {
            dir: stores,
            keypair: identity.keypair().clone(),
            transport: Arc::clone(&transport) as Arc<dyn RaftTransport>,
            types: config.entry_types.clone().map(Arc::new),
        })?;
        let parts = Arc::new(Parts {
            identity,
            agent_id,
            net,
            dht,
            raft,
            log,
            scanner,
            keys,
            local,
            findings: Arc::new(Findings::default()),
            hub: OnceLock::new(),
        });
        let backend = Arc::new(CoreBackend(Arc::clone(&parts)));
        let hub = Arc::new(Hub::start(&config.hub, backend, config.services.clone())?);
        let _ = parts.hub.set(Arc::downgrade(&hub));
        let running = Self { parts, hub, transport, stop: CancellationToken::new(), tasks: TaskTracker::new() };
        running.join();
        Ok(running)
    }

    /// Connects the parts that hear from each other.
    fn join(&self) {
        let Parts { net, raft, .. } = &*self.parts;
        if let (Some(requests), Some(streams)) = (net.take_requests(), net.take_streams()) {
            self.hub.route(requests, streams);
        }
        net.serve_core(Arc::downgrade(&self.parts) as Weak<dyn CoreServices>);
        // Members of the mesh are served what strangers are not, and have a share each of the record store.
        let (mut status, dht, net) = (raft.watch(), self.parts.dht.clone(), net.clone());
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(async move {
            loop {
                let (in_mesh, members) = {
                    let status = status.borrow_and_update();
                    let listed = status.members.iter().filter_map(|member| member.peer.parse().ok());
                    (
                        status.mesh.is_some(),
                        listed.chain(status.introduced.iter().copied()).collect::<HashSet<PeerId>>(),
                    )
                };
                dht.set_members(members.iter().map(PeerId::to_string));
                net.set_members(in_mesh, members);
                if status.changed().await.is_err() {
                    return;
                }
            }
        }));
        let (mut events, raft) = (self.parts.net.events(), raft.clone());
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(async move {
            loop {
                match events.recv().await {
                    Ok(NetEvent::PeerUp { peer }) => {
                        if let Ok(peer) = peer.parse() {
                            raft.peer_up(peer);
                        }
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        }));
    }

    /// Processes first, then the log's order, then the network that carried it.
    pub async fn stop(&self) {
        self.hub.close().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.parts.raft.shutdown().await;
        self.transport.close();
        self.parts.log.close().await;
        self.parts.dht.close().await;
        self.parts.net.shutdown().await;
    }
}

/// Opening syncs, and after a crash repairs, the log: not for a runtime's thread.
async fn open_log(stores: &Path, identity: &Identity) -> Result<(LogHandle, Option<Repair>)> {
    let (folder, keypair) = (stores.join("log"), identity.keypair().clone());
    tokio::task::spawn_blocking(move || LogHandle::open(folder, &keypair))
        .await
        .map_err(|error| Error::Internal(format!("opening the log broke off: {error}")))?
}

fn private_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Error::Internal(format!("folder {}: {error}", path.display())))
}

struct RoleSealer(Arc<LiveKeys>);

impl Sealer for RoleSealer {
    fn seal(&self, role: Option<&str>, plain: &[u8]) -> Result<Vec<u8>> {
        crypto::seal(&self.0.current(), role, plain)
    }

    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>> {
        crypto::open(&self.0.current(), sealed)
    }

    fn reads(&self, role: Option<&str>) -> bool {
        self.0.current().reads(role)
    }
}
