//! What callers hold of the log: a cheap handle that sends commands to the log's thread, signs
//! entries and sees a proposal through changes of leader. Everything consensus decides is elsewhere.

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc as std_mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use libp2p::{PeerId, identity::Keypair};
use serde_json::Value;
use tokio::sync::{broadcast, oneshot, watch};

use super::{
    driver,
    entry::{self, Draft, Key},
    follow::Follower,
    shared::Shared,
    types::{Added, Proposed, RaftConfig, RaftEvent, RaftStatus, RaftTransport},
};
use crate::{Error, Result};

/// Commands that wait for the log's thread; more are refused, frames dropped.
const COMMAND_QUEUE: usize = 4096;
/// Pause before a proposal that found no leader is tried again when nothing else wakes it.
const RETRY_PAUSE: Duration = Duration::from_millis(25);
/// A membership change or hand-over that takes longer is given up by its caller.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) type Reply<T> = oneshot::Sender<Result<T>>;

/// What the log's thread is asked to do.
pub(super) enum Command {
    Frame {
        from: PeerId,
        frame: Bytes,
    },
    Propose {
        entry: Bytes,
        key: Key,
        reply: Reply<u64>,
    },
    Found {
        settings: Value,
        agent: Value,
        recovers: Vec<String>,
        reply: Reply<String>,
    },
    Adopt {
        mesh: String,
        raft_id: u64,
        founding: Bytes,
        members: Vec<(u64, PeerId)>,
        reply: Reply<()>,
    },
    Add {
        peer: PeerId,
        body: Value,
        reply: Reply<Added>,
    },
    Vote {
        peer: PeerId,
        voter: bool,
        reply: Reply<()>,
    },
    Remove {
        peer: PeerId,
        reason: String,
        reply: Reply<u64>,
    },
    ReadIndex {
        reply: Reply<u64>,
    },
    Transfer {
        to: PeerId,
        reply: Reply<()>,
    },
    Campaign {
        reply: Reply<()>,
    },
    Score(f64),
    PeerUp(PeerId),
    Shutdown {
        reply: oneshot::Sender<()>,
    },
    #[cfg(test)]
    Hold(std_mpsc::Receiver<()>),
    #[cfg(test)]
    Panic,
}

/// A cheap, cloneable handle of the log. Dropping the last one stops the log's thread.
#[derive(Clone)]
pub struct RaftHandle {
    commands: std_mpsc::SyncSender<Command>,
    shared: Arc<Shared>,
    keypair: Keypair,
    peer: PeerId,
    name: String,
    transport: Arc<dyn RaftTransport>,
    types: Option<Arc<BTreeSet<String>>>,
}

impl RaftHandle {
    /// Opens the log's folder and starts its thread; resumes the mesh that is stored there.
    ///
    /// # Errors
    /// When the folder or its database cannot be opened.
    pub fn start(config: RaftConfig) -> Result<Self> {
        let (commands, inbox) = std_mpsc::sync_channel(COMMAND_QUEUE);
        let shared = driver::start(&config, inbox)?;
        let peer = config.keypair.public().to_peer_id();
        Ok(Self {
            commands,
            shared,
            peer,
            name: peer.to_string(),
            keypair: config.keypair,
            transport: config.transport,
            types: config.types,
        })
    }

    /// Takes a frame that `from` sent; bad ones are dropped and counted.
    pub fn receive(&self, from: PeerId, frame: Bytes) {
        if self.commands.try_send(Command::Frame { from, frame }).is_err() {
            tracing::debug!(%from, "a consensus frame was dropped: the log is busy");
        }
    }

    /// Refuses a type that is the log's own, or that nobody here could apply.
    fn check_type(&self, kind: &str) -> Result<()> {
        if entry::is_reserved(kind) {
            return Err(Error::NotPermitted(format!("nobody proposes {kind:?} entries")));
        }
        match &self.types {
            Some(types) if !types.contains(kind) => {
                Err(Error::Invalid(format!("type: entries of type {kind:?} are not known to this agent")))
            }
            _ => Ok(()),
        }
    }

    /// The leader's side of forwarding: appends what `from` signed, answers once it is committed.
    ///
    /// # Errors
    /// `not_leader` when another leads; `not_permitted`, `invalid`, `tampered` for a bad entry.
    pub async fn accept_forwarded(&self, from: PeerId, entry: Bytes, timeout: Duration) -> Result<u64> {
        let view = entry::parse(&entry)?;
        {
            let status = self.shared.status.borrow();
            let mesh = status.mesh.as_deref().ok_or(Error::NoMesh)?;
            if view.mesh != mesh {
                return Err(Error::Refused(format!("the entry is of mesh {}, not {mesh}", view.mesh)));
            }
            if !status.members.iter().any(|member| member.peer == view.author) {
                return Err(Error::NotPermitted(format!("{from} is no member")));
            }
        }
        self.check_type(view.kind)?;
        if !view.author.parse().is_ok_and(|author: PeerId| author == from) {
            return Err(Error::NotPermitted("members forward only their own entries".into()));
        }
        view.verify()?;
        view.check_body()?;
        let key = view.key();
        self.shared.verified.insert(&entry);
        self.append(entry, key, timeout).await
    }

    /// Signs an entry and has it committed, through whichever agent leads meanwhile. Repeat a call
    /// that timed out with the same id: it counts once.
    ///
    /// # Errors
    /// `no_mesh`, `no_leader`, `timeout` (unknown outcome), `refused`, `too_large`, `invalid`.
    pub async fn propose(&self, kind: &str, id: Option<String>, body: &[u8], timeout: Duration) -> Result<Proposed> {
        let deadline = Instant::now() + timeout;
        let id = id.unwrap_or_else(entry::ulid);
        let mesh = self.shared.status.borrow().mesh.clone().ok_or(Error::NoMesh)?;
        self.check_type(kind)?;
        let draft = Draft { mesh: &mesh, id: &id, kind, seen: self.shared.applied.get(), body };
        let entry = entry::make(&self.keypair, &self.peer, &draft)?;
        let key = entry::key_of(&self.name, &id);
        self.shared.verified.insert(&entry);
        let mut tried = false;
        loop {
            // Subscribed before looking, so that no change of leader is missed.
            let mut changes = self.shared.status.subscribe();
            let left = deadline.saturating_duration_since(Instant::now());
            let other = self.other_leader();
            tried |= other.is_some();
            let outcome = match other {
                Some(leader) => self.forward(leader, entry.clone(), left, &mut changes).await,
                None => self.append(entry.clone(), key, left).await,
            };
            match outcome {
                Ok(index) => return Ok(Proposed { index, id }),
                Err(Error::NotLeader) => tried = true,
                Err(Error::NoLeader | Error::Unavailable(_) | Error::Timeout(_) | Error::Closed) => {}
                Err(error) => return Err(error),
            }
            if self.shared.is_closed() {
                return Err(Error::Closed);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let leader = self.shared.status.borrow().leader.is_some();
                return Err(if tried || leader {
                    Error::Timeout("no answer from the leader; repeat with the same id".into())
                } else {
                    Error::NoLeader
                });
            }
            let _ = tokio::time::timeout(RETRY_PAUSE.min(left), changes.changed()).await;
        }
    }

    /// The leader as last shown, when it is another member. One that leads no longer says so when it is asked.
    fn other_leader(&self) -> Option<PeerId> {
        let leader = self.shared.status.borrow().leader.as_deref()?.parse().ok();
        leader.filter(|leader| *leader != self.peer)
    }

    /// One try at `leader`, given up as soon as another leads.
    async fn forward(
        &self,
        leader: PeerId,
        entry: Bytes,
        timeout: Duration,
        changes: &mut watch::Receiver<RaftStatus>,
    ) -> Result<u64> {
        if timeout.is_zero() {
            return Err(Error::Timeout("the leader did not answer".into()));
        }
        let name = leader.to_string();
        let answer = self.transport.forward(leader, entry, timeout);
        tokio::select! {
            answer = answer => answer,
            () = tokio::time::sleep(timeout) => Err(Error::Timeout("the leader did not answer".into())),
            _ = changes.wait_for(|status| status.leader.as_ref().is_some_and(|other| *other != name)) => Err(Error::NotLeader),
        }
    }

    /// Has the log's thread append an entry, as only a leader's does; answers its index once it is committed.
    async fn append(&self, entry: Bytes, key: Key, timeout: Duration) -> Result<u64> {
        self.ask(timeout, |reply| Command::Propose { entry, key, reply }).await
    }

    async fn ask<T>(&self, timeout: Duration, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(command(reply)).map_err(|error| match error {
            std_mpsc::TrySendError::Full(_) => Error::Unavailable("the log is busy".into()),
            std_mpsc::TrySendError::Disconnected(_) => Error::Closed,
        })?;
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) if self.shared.is_closed() => Err(Error::Closed),
            Ok(Err(_)) => Err(Error::NotLeader),
            Err(_) => Err(Error::Timeout("the log did not answer".into())),
        }
    }

    /// Every committed entry from index `from` on, in order, none missing. The founding entry is index 1.
    #[must_use]
    pub fn follow(&self, from: u64) -> Follower {
        Follower::new(Arc::clone(&self.shared), from)
    }

    /// A picture of the log now.
    #[must_use]
    pub fn status(&self) -> RaftStatus {
        let mut status = self.shared.status.borrow().clone();
        status.applied = status.applied.max(self.shared.applied.get());
        status.commit = status.commit.max(status.applied);
        status.last = status.last.max(status.commit);
        status
    }

    /// The picture as it changes; indexes lag behind a little when nothing else changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<RaftStatus> {
        self.shared.status.subscribe()
    }

    /// What happens in the consensus.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<RaftEvent> {
        self.shared.events.subscribe()
    }

    /// Frames refused since the start.
    #[must_use]
    pub fn refused_frames(&self) -> u64 {
        self.shared.refused_frames()
    }

    /// Founds a mesh of one with these settings; answers its id. `recovers` are the ids of the meshes that this one
    /// goes on from because their majority is lost for good, newest first; mostly none.
    ///
    /// # Errors
    /// `refused` when this agent is in a mesh already or was removed from one; `invalid` for bad settings or ids.
    pub async fn found(&self, settings: Value, agent: Value, recovers: Vec<String>) -> Result<String> {
        self.ask(CHANGE_TIMEOUT, |reply| Command::Found { settings, agent, recovers, reply }).await
    }

    /// Starts this agent as the member that the leader's [`add`](Self::add) admitted. `members` are
    /// those known by then, so that frames of any of them are accepted.
    ///
    /// # Errors
    /// `refused` when this agent is in another mesh already; `invalid` or `tampered` for a bad founding.
    pub async fn adopt(&self, mesh: &str, raft_id: u64, founding: Bytes, members: Vec<(u64, PeerId)>) -> Result<()> {
        let mesh = mesh.to_owned();
        self.ask(CHANGE_TIMEOUT, |reply| Command::Adopt { mesh, raft_id, founding, members, reply }).await
    }

    /// Admits `peer` as a learner (leader only); a member is answered with what it has.
    ///
    /// # Errors
    /// `not_leader`; `refused` while another member change is under way.
    pub async fn add(&self, peer: PeerId, body: Value) -> Result<Added> {
        self.ask(CHANGE_TIMEOUT, |reply| Command::Add { peer, body, reply }).await
    }

    /// Gives `peer` a vote (leader only).
    ///
    /// # Errors
    /// `not_leader`; `not_found` for a stranger; `refused` while it lags or another change is under way.
    pub async fn promote(&self, peer: PeerId) -> Result<()> {
        self.ask(CHANGE_TIMEOUT, |reply| Command::Vote { peer, voter: true, reply }).await
    }

    /// Takes `peer`'s vote (leader only; never its own, never the last).
    ///
    /// # Errors
    /// As [`promote`](Self::promote).
    pub async fn demote(&self, peer: PeerId) -> Result<()> {
        self.ask(CHANGE_TIMEOUT, |reply| Command::Vote { peer, voter: false, reply }).await
    }

    /// Removes `peer`, which has no vote (leader only; never itself); answers the removal's index. Where its own log
    /// comes to say so, the removed member takes part in nothing any more.
    ///
    /// # Errors
    /// `not_leader`; `not_found` for a stranger; `refused` while it votes or another change is under way.
    pub async fn remove(&self, peer: PeerId, reason: String) -> Result<u64> {
        self.ask(CHANGE_TIMEOUT, |reply| Command::Remove { peer, reason, reply }).await
    }

    /// An index that holds everything committed before the call, proven by a majority that answered
    /// after it (leader only).
    ///
    /// # Errors
    /// `not_leader` when this agent does not lead or stops leading meanwhile; `timeout` without a majority.
    pub async fn read_index(&self) -> Result<u64> {
        self.ask(CHANGE_TIMEOUT, |reply| Command::ReadIndex { reply }).await
    }

    /// Hands leadership to the voter `to`; answers when it leads or after a second.
    ///
    /// # Errors
    /// `not_leader`; `refused` unless `to` is a caught-up voter heard just now; `timeout` when given up.
    pub async fn transfer(&self, to: PeerId) -> Result<()> {
        self.ask(CHANGE_TIMEOUT, |reply| Command::Transfer { to, reply }).await
    }

    /// Stands for election now; pre-vote still protects a leader that is heard.
    ///
    /// # Errors
    /// `no_mesh`; `refused` without a vote.
    pub async fn campaign(&self) -> Result<()> {
        self.ask(CHANGE_TIMEOUT, |reply| Command::Campaign { reply }).await
    }

    /// This agent's fitness, 0 to 1: a high one stands sooner when a leader is missing.
    pub fn set_score(&self, score: f64) {
        let _ = self.commands.try_send(Command::Score(score));
    }

    /// Tells that the way to `peer` is open again: what got lost meanwhile is sent anew at once.
    pub fn peer_up(&self, peer: PeerId) {
        let _ = self.commands.try_send(Command::PeerUp(peer));
    }

    /// Stops the log's thread and closes its files.
    pub async fn shutdown(&self) {
        let (reply, done) = oneshot::channel();
        let mut command = Command::Shutdown { reply };
        loop {
            match self.commands.try_send(command) {
                Ok(()) => break,
                Err(std_mpsc::TrySendError::Disconnected(_)) => return,
                Err(std_mpsc::TrySendError::Full(back)) => command = back,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let _ = done.await;
    }

    /// Keeps the thread from taking commands until the sender is dropped, so that they pile up.
    #[cfg(test)]
    pub(super) fn hold_for_test(&self) -> std_mpsc::Sender<()> {
        let (release, until) = std_mpsc::channel();
        let _ = self.commands.try_send(Command::Hold(until));
        release
    }

    #[cfg(test)]
    pub(super) fn panic_for_test(&self) {
        let _ = self.commands.try_send(Command::Panic);
    }
}
