//! The log's thread: takes commands, gives the machine time, and starts it anew from disk when it
//! panics or the disk fails. What consensus does is the machine's.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use libp2p::PeerId;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::{
    entry::{self, Draft, FOUND, ULID_CHARS},
    handle::Command,
    machine::{Machine, Now, Parts},
    proposals::answer,
    shared::Shared,
    storage::{FOUNDER_ID, FOUNDING_INDEX, Identity, Store},
    types::{RaftConfig, RaftEvent, RaftStatus, Role, Timings},
    vote_file::VOTE_FILE,
};
use crate::{Error, Result};

/// Commands and bytes taken in one turn: what they make shares one write to disk.
const TURN_COMMANDS: usize = 1024;
const TURN_BYTES: usize = 1024 * 1024;
/// How long the thread sleeps at most.
const IDLE: Duration = Duration::from_secs(1);
/// Pause before the machine is started anew, doubled at each failure in a row.
const RESTART_MIN: Duration = Duration::from_millis(50);
const RESTART_MAX: Duration = Duration::from_secs(5);
/// A machine that ran this long had started well.
const STEADY: Duration = Duration::from_secs(10);
/// Meshes that a mesh may say it was recovered from, one out of the other.
const MAX_RECOVERED: usize = 64;

/// Opens the store and starts the thread.
pub(super) fn start(config: &RaftConfig, inbox: mpsc::Receiver<Command>) -> Result<Arc<Shared>> {
    std::fs::create_dir_all(&config.dir)?;
    let path = config.dir.join(VOTE_FILE);
    let store = Store::open(&path)?;
    let peer = config.keypair.public().to_peer_id();
    if let Some(owner) = store.identity().and_then(|identity| identity.owner)
        && owner != peer
    {
        return Err(Error::Invalid(format!(
            "{}: these are the votes of {owner}, and this agent's identity is {peer}: restore its identity.key, or move the file away",
            path.display()
        )));
    }
    let shared = Arc::new(Shared::new(store));
    let parts = Parts {
        shared: Arc::clone(&shared),
        transport: Arc::clone(&config.transport),
        keypair: config.keypair.clone(),
        #[cfg(test)]
        bug: None,
    };
    let origin = Instant::now();
    let clock = Box::new(move || Now { at: origin.elapsed(), wall_ms: entry::wall_ms() });
    let driver = Driver::new(parts, clock, rand::random());
    std::thread::Builder::new().name("raft".into()).spawn(move || driver.run(&inbox))?;
    Ok(shared)
}

/// What time it is.
pub(super) type Clock = Box<dyn Fn() -> Now + Send>;

pub(super) struct Driver {
    pub(super) parts: Parts,
    pub(super) machine: Option<Machine>,
    score: f64,
    clock: Clock,
    /// Chance, for the machines that are started here.
    rng: StdRng,
    started_at: Duration,
    restart_at: Duration,
    pause: Duration,
    restarts: u64,
    /// Who waits for the end; no command is taken any more.
    stopping: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Driver {
    /// Starts the machine of the mesh that is in the store, if there is one.
    pub(super) fn new(parts: Parts, clock: Clock, seed: u64) -> Self {
        let mut driver = Self {
            parts,
            machine: None,
            score: 0.5,
            clock,
            rng: StdRng::seed_from_u64(seed),
            started_at: Duration::ZERO,
            restart_at: Duration::ZERO,
            pause: RESTART_MIN,
            restarts: 0,
            stopping: None,
        };
        driver.restart();
        driver
    }

    fn run(mut self, inbox: &mpsc::Receiver<Command>) {
        while self.stopping.is_none() {
            let now = self.now().at;
            let first = match inbox.recv_timeout(self.next_wake().saturating_sub(now).min(IDLE)) {
                Ok(command) => Some(command),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            };
            self.wake(first, inbox);
        }
        if let Some(machine) = &mut self.machine
            && let Err(error) = machine.save()
        {
            tracing::warn!(%error, "the last commit index was not saved");
        }
        self.machine = None;
        self.parts.shared.close();
        self.parts.shared.store.close();
        if let Some(reply) = self.stopping.take() {
            let _ = reply.send(());
        }
    }

    fn now(&self) -> Now {
        (self.clock)()
    }

    /// When [`wake`](Self::wake) is due without any command.
    pub(super) fn next_wake(&self) -> Duration {
        match &self.machine {
            Some(machine) => machine.next_wake(),
            None if self.parts.shared.store.takes_part() => self.restart_at,
            None => self.now().at + IDLE,
        }
    }

    /// Takes `first` and what else waits in the inbox, and gives the machine its turn.
    pub(super) fn wake(&mut self, first: Option<Command>, inbox: &mpsc::Receiver<Command>) {
        // The machine's memory is worth nothing after a panic; its disk is.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.turn(first, inbox)));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.failed(&error),
            Err(_) => self.failed(&Error::Internal("the consensus machine panicked".into())),
        }
    }

    fn turn(&mut self, first: Option<Command>, inbox: &mpsc::Receiver<Command>) -> Result<()> {
        let now = self.now();
        let mut bytes = 0;
        let mut next = first;
        for _ in 0..TURN_COMMANDS {
            let Some(command) = next else { break };
            bytes += match &command {
                Command::Frame { frame, .. } => frame.len(),
                Command::Propose { entry, .. } => entry.len(),
                _ => 0,
            };
            if let Command::Shutdown { reply } = command {
                // What was taken before it is handled below: half of it must not reach the disk.
                self.stopping = Some(reply);
                break;
            }
            self.take(command, now)?;
            next = if bytes < TURN_BYTES { inbox.try_recv().ok() } else { None };
        }
        if let Some(machine) = &mut self.machine {
            machine.turn(now)?;
            self.leave();
        } else if now.at >= self.restart_at && self.parts.shared.store.takes_part() {
            self.restart();
        }
        Ok(())
    }

    /// Makes a machine from what is on disk, when this agent is in a mesh.
    fn restart(&mut self) {
        let now = self.now();
        let parts = self.parts.clone();
        let (score, seed) = (self.score, self.rng.random());
        let opened = catch_unwind(AssertUnwindSafe(|| {
            if self.restarts > 0 {
                parts.shared.store.reopen()?;
            }
            match parts.shared.store.identity() {
                Some(_) if parts.shared.store.takes_part() => Machine::open(parts, score, seed, now).map(Some),
                _ => Ok(None),
            }
        }));
        match opened {
            Ok(Ok(machine)) => {
                self.machine = machine;
                self.started_at = now.at;
                match &mut self.machine {
                    Some(machine) => machine.publish_now(now),
                    None => self.show_end(),
                }
            }
            Ok(Err(error)) => self.failed(&error),
            Err(_) => self.failed(&Error::Internal("the consensus machine panicked at its start".into())),
        }
    }

    /// Ends this member: a log that lacks what it has acknowledged, and votes it may have given, must not count.
    fn retire(&mut self, why: String) -> Result<()> {
        self.machine = None;
        tracing::error!(reason = why, "this member takes part no longer: its identity is to be replaced");
        self.parts.shared.store.retire(&why)?;
        self.show_end();
        Ok(())
    }

    /// Shows why no machine runs here, when there is more to say than that this agent was never in a mesh.
    fn show_end(&self) {
        let store = &self.parts.shared.store;
        let (lost, removed) = (store.lost(), store.removed());
        if lost.is_some() || removed.is_some() {
            self.parts.shared.status.send_replace(RaftStatus { lost, removed, ..RaftStatus::default() });
        }
    }

    /// Lets go of a machine whose own log says that this member was removed; the store knows it already.
    fn leave(&mut self) {
        if let Some(why) = self.machine.as_ref().and_then(|machine| machine.removed.clone()) {
            self.machine = None;
            tracing::warn!(reason = why, "this member takes part no longer: it was removed");
            self.show_end();
            self.parts.shared.emit(RaftEvent::Role { role: Role::None });
        }
    }

    fn failed(&mut self, error: &Error) {
        let now = self.now().at;
        tracing::error!(%error, "the consensus machine starts anew from disk");
        self.restarts += 1;
        self.pause = if now > self.started_at + STEADY { RESTART_MIN } else { (self.pause * 2).min(RESTART_MAX) };
        self.restart_at = now + self.pause;
        self.machine = None;
        let shared = &self.parts.shared;
        let (led, term) = {
            let status = shared.status.borrow();
            (status.role == Role::Leader, status.term)
        };
        if led {
            shared.emit(RaftEvent::StepDown { term, reason: "restart".into() });
        }
        shared.status.send_modify(|status| {
            status.role = if status.mesh.is_some() { Role::Learner } else { Role::None };
            status.leader = None;
            status.error = Some(error.to_string());
        });
    }

    fn take(&mut self, command: Command, now: Now) -> Result<()> {
        match command {
            Command::Found { settings, agent, recovers, reply } => {
                answer(reply, self.found(settings, agent, &recovers));
            }
            Command::Adopt { mesh, raft_id, founding, members, reply } => {
                answer(reply, self.adopt(&mesh, raft_id, founding, &members));
            }
            Command::Score(score) => {
                self.score = score;
                if let Some(machine) = &mut self.machine {
                    machine.election.set_score(score);
                }
            }
            #[cfg(test)]
            Command::Hold(until) => drop(until.recv()),
            #[cfg(test)]
            Command::Panic => panic!("asked to by a test"),
            command => match &mut self.machine {
                Some(machine) => instruct(machine, command, now)?,
                None => self.refuse(command),
            },
        }
        if let Some(why) = self.machine.as_mut().and_then(|machine| machine.lost.take()) {
            self.retire(why)?;
        }
        Ok(())
    }

    /// Nothing runs: either there is no mesh, or the machine waits to be started anew.
    fn refuse(&self, command: Command) {
        let error = match self.parts.shared.status.borrow().error.clone() {
            Some(error) => Error::Unavailable(error),
            None => Error::NoMesh,
        };
        match command {
            Command::Propose { reply, .. } => answer(reply, Err(error)),
            Command::Add { reply, .. } => answer(reply, Err(error)),
            Command::ReadIndex { reply } | Command::Remove { reply, .. } => answer(reply, Err(error)),
            Command::Vote { reply, .. } | Command::Transfer { reply, .. } | Command::Campaign { reply } => {
                answer(reply, Err(error));
            }
            _ => {}
        }
    }

    fn found(&mut self, settings: Value, agent: Value, recovers: &[String]) -> Result<String> {
        let store = &self.parts.shared.store;
        check_free(store)?;
        Timings::from_settings(&settings)?;
        if recovers.len() > MAX_RECOVERED || !recovers.iter().all(|mesh| entry::is_ulid(mesh)) {
            return Err(Error::Invalid(format!("recovers: give at most {MAX_RECOVERED} mesh ids")));
        }
        let mesh = entry::ulid();
        let peer = self.parts.keypair.public().to_peer_id();
        let mut body = json!({ "settings": settings, "agent": agent });
        if !recovers.is_empty() {
            body["recovers"] = json!(recovers);
        }
        let body = body.to_string();
        let draft = Draft { mesh: &mesh, id: &entry::ulid(), kind: FOUND, seen: 0, body: body.as_bytes() };
        let entry = entry::make(&self.parts.keypair, &peer, &draft)?;
        let founding = Bytes::from(entry::stamped(self.now().wall_ms, &entry));
        let identity = Identity { mesh: mesh.clone(), raft_id: FOUNDER_ID, founding, owner: Some(peer) };
        store.init(&identity, peer, &[])?;
        tracing::info!(%mesh, "this agent founded a mesh");
        self.restart();
        // A mesh of one has its leader at once.
        let now = self.now();
        if let Some(machine) = &mut self.machine {
            machine.turn(now)?;
        }
        Ok(mesh)
    }

    fn adopt(&mut self, mesh: &str, raft_id: u64, founding: Bytes, members: &[(u64, PeerId)]) -> Result<()> {
        let store = &self.parts.shared.store;
        if let Some(identity) = store.identity()
            && identity.mesh == mesh
            && identity.raft_id == raft_id
            && store.takes_part()
        {
            return Ok(());
        }
        check_free(store)?;
        let founder = check_founding(mesh, &founding)?;
        if raft_id <= FOUNDING_INDEX {
            return Err(Error::Invalid(format!("raft_id: {raft_id} is the founder's")));
        }
        let owner = Some(self.parts.keypair.public().to_peer_id());
        let identity = Identity { mesh: mesh.to_owned(), raft_id, founding, owner };
        let hints: Vec<_> = members.iter().copied().filter(|(id, _)| *id != FOUNDER_ID).collect();
        store.init(&identity, founder, &hints)?;
        tracing::info!(mesh, raft_id, "this agent joined a mesh");
        self.restart();
        Ok(())
    }
}

/// Refuses what only an agent without a mesh may do.
fn check_free(store: &Store) -> Result<()> {
    match store.identity() {
        Some(identity) if store.takes_part() => {
            Err(Error::Refused(format!("this agent is in mesh {} already", identity.mesh)))
        }
        Some(_) if store.lost().is_some() => {
            Err(Error::Refused("this agent's identity is to be replaced first".into()))
        }
        Some(identity) => Err(Error::Refused(format!(
            "this agent was removed from mesh {}: its vote file is to be moved away first",
            identity.mesh
        ))),
        None => Ok(()),
    }
}

/// Checks a founding entry by its bytes; answers the founder.
fn check_founding(mesh: &str, founding: &[u8]) -> Result<PeerId> {
    let (_, bytes) = entry::unstamp(founding).ok_or_else(|| Error::Invalid("founding: cut short".into()))?;
    let view = entry::parse(bytes)?;
    if view.kind != FOUND || view.mesh != mesh || mesh.len() != ULID_CHARS {
        return Err(Error::Invalid("founding: of another mesh, or none".into()));
    }
    Timings::from_settings(view.body_json().get("settings").unwrap_or(&Value::Null))?;
    view.verify()
}

fn instruct(machine: &mut Machine, command: Command, now: Now) -> Result<()> {
    match command {
        Command::Frame { from, frame } => match machine.receive(from, frame, now) {
            Ok(()) => {}
            Err(error @ Error::Internal(_)) => return Err(error),
            Err(error) => {
                machine.parts.shared.count_refused_frame();
                let malformed = matches!(error, Error::Invalid(_) | Error::TooLarge(_));
                machine.parts.transport.refused(from, malformed);
                tracing::debug!(%from, %error, "a consensus frame was refused");
            }
        },
        Command::Propose { entry, key, reply } => machine.propose(entry, key, reply),
        Command::Add { peer, body, reply } => machine.add(peer, body, reply, now),
        Command::Vote { peer, voter, reply } => machine.vote(peer, voter, reply, now),
        Command::Remove { peer, reason, reply } => machine.remove(peer, &reason, reply, now),
        Command::ReadIndex { reply } => machine.read_index(reply),
        Command::Transfer { to, reply } => machine.hand_over(to, reply, now),
        Command::Campaign { reply } => machine.stand(reply, now),
        Command::PeerUp(peer) => machine.peer_up(peer),
        // The driver itself takes these.
        _ => {}
    }
    Ok(())
}
