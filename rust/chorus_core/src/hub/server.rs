//! The socket itself: born private, open to this user's processes only, and the way in for peers' requests and streams.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        net,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::{
    net::{UnixListener, UnixStream, unix::pipe},
    sync::{Notify, mpsc, oneshot},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    backend::{Backend, Pipe},
    bridge::Bridge,
    connection::{Connection, Touched, locked},
    serve::{Ask, Asker, Caller, SWEEP_INTERVAL, hand_over},
    services::{ServiceRules, Services},
    streams::{End, Other, attach, drop_unopened},
    subscriptions::LocalTopics,
};
use crate::{
    Error, Result,
    net::{
        IncomingRequest, IncomingStream, Reply,
        budget::{Account, Budget},
    },
};

/// Connections at once; an agent has five processes and a few tools.
const MAX_CONNECTIONS: usize = 256;
/// What may wait to be read by all peers together, on byte streams.
const WAITING_BYTES: usize = 128 * 1024 * 1024;
/// Pause after a failed accept (out of descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The hub's own counters.
#[derive(Debug, Clone, Default, Serialize)]
pub struct HubStats {
    /// Processes connected now.
    pub hub_connections: u64,
    /// Connections closed because of what they sent.
    pub hub_bad_connections: u64,
    /// Messages of local topics that slow readers missed.
    pub hub_local_gaps: u64,
    /// Ends of streams that processes hold now.
    pub hub_streams: u64,
    /// Streams to and from peers that are carried now.
    pub hub_peer_streams: u64,
    /// Bytes that wait on them to be read by peers.
    pub hub_waiting_bytes: u64,
}

/// The running hub.
pub struct Hub {
    inner: Arc<Inner>,
    path: PathBuf,
}

pub(super) struct Inner {
    pub backend: Arc<dyn Backend>,
    pub services: Services,
    pub local_topics: LocalTopics,
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    /// Told when a call to a process waits for its answer.
    waits: Arc<Notify>,
    bad: AtomicU64,
    /// Held once more by each stream to or from a peer.
    carried: Arc<()>,
    /// What waits to be read by peers, and for each of them that has a stream.
    waiting: Arc<Budget>,
    waiting_for: Mutex<HashMap<String, Weak<Account>>>,
    pub stop: CancellationToken,
    tasks: TaskTracker,
}

impl Hub {
    /// Opens the socket at `path` and serves it on the current runtime; `rules` bind services to processes.
    ///
    /// # Errors
    /// When the socket cannot be made there.
    pub fn start(path: &Path, backend: Arc<dyn Backend>, rules: Option<ServiceRules>) -> Result<Self> {
        let listener =
            bind(path).map_err(|error| Error::Internal(format!("hub socket {}: {error}", path.display())))?;
        let inner = Arc::new(Inner {
            backend,
            services: Services::new(rules),
            local_topics: LocalTopics::default(),
            connections: Mutex::default(),
            waits: Arc::default(),
            bad: AtomicU64::new(0),
            carried: Arc::default(),
            waiting: Budget::new(WAITING_BYTES),
            waiting_for: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        inner.tasks.spawn(Arc::clone(&inner).accept(listener));
        inner.tasks.spawn(Arc::clone(&inner).keep_time());
        Ok(Self { inner, path: path.to_owned() })
    }

    /// Routes what peers ask of this agent's services until the hub closes.
    pub fn route(&self, mut requests: mpsc::Receiver<IncomingRequest>, mut streams: mpsc::Receiver<IncomingStream>) {
        let (stop, inner) = (self.inner.stop.clone(), Arc::clone(&self.inner));
        self.inner.tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            let mut touched = Touched::default();
            while let Some(request) = requests.recv().await {
                inner.serve_peer(request, &mut touched);
                while let Ok(request) = requests.try_recv() {
                    inner.serve_peer(request, &mut touched);
                }
                touched.flush();
            }
        }));
        let inner = Arc::clone(&self.inner);
        self.inner.tasks.spawn(stop.run_until_cancelled_owned(async move {
            while let Some(stream) = streams.recv().await {
                inner.serve_stream(stream);
            }
        }));
    }

    /// Counters now.
    #[must_use]
    pub fn stats(&self) -> HubStats {
        let connections = self.inner.connections();
        HubStats {
            hub_connections: connections.len() as u64,
            hub_bad_connections: self.inner.bad.load(Ordering::Relaxed),
            hub_local_gaps: self.inner.local_topics.dropped.load(Ordering::Relaxed),
            hub_streams: connections.iter().map(|one| locked(&one.streams).len() as u64).sum(),
            // All but the hub's own.
            hub_peer_streams: (Arc::strong_count(&self.inner.carried) - 1) as u64,
            hub_waiting_bytes: self.inner.waiting.used() as u64,
        }
    }

    /// Takes the socket away and ends every connection.
    pub async fn close(&self) {
        if !self.inner.stop.is_cancelled() {
            let _ = fs::remove_file(&self.path);
        }
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.inner.stop.cancel();
    }
}

/// Makes the socket inside a directory that only this user enters, and moves it to its place when it is private itself.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let parent = path.parent().ok_or_else(|| io::Error::other("it needs a directory"))?;
    let nest = parent.join(format!(".h{}", std::process::id()));
    let _ = fs::remove_dir_all(&nest);
    fs::DirBuilder::new().mode(0o700).create(&nest)?;
    let made = (|| {
        let born = nest.join("s");
        let listener = UnixListener::bind(&born)?;
        fs::set_permissions(&born, fs::Permissions::from_mode(0o600))?;
        fs::rename(&born, path)?;
        Ok(listener)
    })();
    let _ = fs::remove_dir_all(&nest);
    made
}

impl Inner {
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        locked(&self.connections).values().cloned().collect()
    }

    async fn accept(self: Arc<Self>, listener: UnixListener) {
        let own = rustix::process::geteuid().as_raw();
        let mut next = 0;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            let socket = match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    tracing::warn!(%error, "the hub cannot accept connections now");
                    time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match socket.peer_cred() {
                Ok(credentials) if credentials.uid() == own => {}
                Ok(credentials) => {
                    tracing::warn!(uid = credentials.uid(), "the hub refused a connection of another user");
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "the hub refused a connection of an unknown user");
                    continue;
                }
            }
            if locked(&self.connections).len() >= MAX_CONNECTIONS {
                tracing::warn!("the hub refused a connection: {MAX_CONNECTIONS} are open");
                continue;
            }
            next += 1;
            match halves(socket) {
                Ok((reading, writing)) => {
                    let connection = Connection::new(next, writing, Arc::clone(&self.waits));
                    self.tasks.spawn(Arc::clone(&self).attend(connection, reading));
                }
                Err(error) => tracing::warn!(%error, "the hub cannot take a connection now"),
            }
        }
    }

    async fn attend(self: Arc<Self>, connection: Connection, socket: pipe::Receiver) {
        let connection = Arc::new(connection);
        locked(&self.connections).insert(connection.id, Arc::clone(&connection));
        let reason = tokio::select! {
            error = connection.run(&self, socket) => error,
            error = connection.outbox.run() => error.into(),
            () = self.stop.cancelled() => Error::Closed,
        };
        match &reason {
            Error::Closed => tracing::debug!(client = connection.label(), "a process left the hub"),
            Error::Invalid(_) | Error::TooLarge(_) => {
                self.bad.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(client = connection.label(), %reason, "the hub closed a connection: bad frame");
            }
            _ => tracing::warn!(client = connection.label(), %reason, "a connection to the hub broke"),
        }
        self.bury(&connection);
    }

    fn bury(&self, connection: &Arc<Connection>) {
        let mut touched = Touched::default();
        locked(&self.connections).remove(&connection.id);
        self.services.withdraw(connection);
        connection.outbox.close();
        for (_, sub) in locked(&connection.subs).drain() {
            sub.stop();
        }
        self.abandon_calls(connection, &mut touched);
        self.abandon_streams(connection, &mut touched);
        touched.flush();
    }

    /// Ends late calls. Without any call it is not woken.
    async fn keep_time(self: Arc<Self>) {
        let sweeping = async {
            let mut touched = Touched::default();
            loop {
                self.waits.notified().await;
                loop {
                    time::sleep(SWEEP_INTERVAL).await;
                    let waits = self.sweep(&mut touched);
                    touched.flush();
                    if !waits {
                        break;
                    }
                }
            }
        };
        self.stop.run_until_cancelled(sweeping).await;
    }

    /// Carries a stream to or from a peer until it has ended or the hub closes.
    pub fn carry(&self, bridge: Arc<Bridge>, pipe: Pipe) {
        let carried = Arc::clone(&self.carried);
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(async move {
            bridge.run(pipe).await;
            drop(carried);
        }));
    }

    /// A peer asks a service of this agent.
    fn serve_peer(&self, request: IncomingRequest, touched: &mut Touched) {
        let IncomingRequest { peer, service, method, head, payload, timeout, reply } = request;
        let found = inner_head(&head).and_then(|head| Ok((head, self.services.find_for_peer(&service, &method)?)));
        let (head, to) = match found {
            Ok(found) => found,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let ask = Ask { service, method, head, timeout };
        let peer = peer.to_string();
        let handed = hand_over(&to, &ask, None, &Asker::Peer(&peer), &payload, Caller::Core(reply));
        if let Err((error, Caller::Core(reply))) = handed {
            let _ = reply.send(Err(error));
        }
        touched.add(&to);
    }

    /// Counts what waits for one peer on its streams.
    pub fn waiting_for(&self, peer: &str) -> Arc<Account> {
        let mut accounts = locked(&self.waiting_for);
        if let Some(account) = accounts.get(peer).and_then(Weak::upgrade) {
            return account;
        }
        accounts.retain(|_, account| account.strong_count() > 0);
        let account = self.waiting.account();
        accounts.insert(peer.to_owned(), Arc::downgrade(&account));
        account
    }

    /// A peer opens a stream to a service of this agent.
    fn serve_stream(self: &Arc<Self>, incoming: IncomingStream) {
        let IncomingStream { peer, service, method, head, answer, stream } = incoming;
        let found = inner_head(&head).and_then(|head| Ok((head, self.services.find_for_peer(&service, &method)?)));
        let (head, to) = match found {
            Ok(found) => found,
            Err(error) => {
                let _ = answer.send(Err(error));
                return;
            }
        };
        let id = to.next_id();
        let peer = peer.to_string();
        let bridge = Bridge::new(&to, id, self.waiting_for(&peer));
        if let Err(error) = attach(&to, id, End::new(Other::Peer(Arc::clone(&bridge)))) {
            let _ = answer.send(Err(error));
            return;
        }
        let ask = Ask { service, method, head, timeout: super::serve::DEFAULT_TIMEOUT };
        let (reply, accepted) = oneshot::channel::<Result<Reply>>();
        let handed = hand_over(&to, &ask, Some(id), &Asker::Peer(&peer), &Bytes::new(), Caller::Core(reply));
        if let Err((error, Caller::Core(reply))) = handed {
            let _ = reply.send(Err(error));
        }
        to.outbox.flush();
        let inner = Arc::clone(self);
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(async move {
            match accepted.await.unwrap_or(Err(Error::Closed)) {
                Ok(_) => {
                    let _ = answer.send(Ok(()));
                    inner.carry(bridge, Box::new(stream));
                }
                Err(error) => {
                    drop_unopened(&to, id, &bridge);
                    let _ = answer.send(Err(error));
                }
            }
        }));
    }
}

/// A socket to read from, and to write to without blocking. Nobody watches it for room to write but who waits for it:
/// tokio's own stream does always, and the hub would be woken each time that a process has read something.
fn halves(socket: UnixStream) -> io::Result<(pipe::Receiver, net::UnixStream)> {
    let writing = socket.into_std()?;
    let reading = pipe::Receiver::from_owned_fd_unchecked(writing.try_clone()?.into())?;
    Ok((reading, writing))
}

/// The head that a peer sent, which must be a JSON object.
fn inner_head(head: &[u8]) -> Result<Value> {
    if head.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    serde_json::from_slice::<Map<String, Value>>(head)
        .map(Value::Object)
        .map_err(|_| Error::Invalid("the request's head is no JSON object".into()))
}
