//! A mesh in one thread with virtual time: the log's real driver and machine on disks that lose power, a
//! network that drops, delays, duplicates and reorders, and what must hold whatever happens.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use libp2p::{PeerId, identity::Keypair};
use raft::eraftpb::{ConfChangeType, Entry, EntryType};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio::sync::oneshot;

use super::disk::Disk;
use crate::{
    Error, Result,
    raft::{
        changes,
        driver::Driver,
        entry::{self, Draft, JOIN},
        frames,
        handle::{Command, Reply},
        machine::{Machine, Now, Parts},
        planted::Bug,
        shared::Shared,
        storage::FOUNDER_ID,
        types::{Added, RaftTransport},
    },
};

pub(super) const TIMEOUT_MS: u64 = 300;
const STEP: Duration = Duration::from_millis(2);
/// Commands that wait for one agent.
const INBOX: usize = 4096;
/// The wall's clock when virtual time begins.
const WALL_MS: u64 = 1_000_000;

/// Something that a schedule may do to the mesh.
type Act = Box<dyn Fn(&mut Sim)>;

#[derive(Default)]
struct Outbox(Mutex<Vec<(PeerId, Bytes)>>);

impl RaftTransport for Outbox {
    fn send(&self, to: PeerId, frame: Bytes) {
        self.0.lock().unwrap().push((to, frame));
    }

    fn forward(&self, _: PeerId, _: Bytes, _: Duration) -> BoxFuture<'static, Result<u64>> {
        Box::pin(async { Err(Error::NoLeader) })
    }
}

pub(super) struct Node {
    pub keypair: Keypair,
    pub peer: PeerId,
    pub disk: Disk,
    driver: Option<Driver>,
    commands: mpsc::SyncSender<Command>,
    inbox: mpsc::Receiver<Command>,
    outbox: Arc<Outbox>,
    checked: u64,
    back_at: Option<Duration>,
    /// How often its disk was wiped: each time it asks to join anew.
    lives: u32,
}

impl Node {
    fn new() -> Self {
        let keypair = Keypair::generate_ed25519();
        let (commands, inbox) = mpsc::sync_channel(INBOX);
        Self {
            peer: keypair.public().to_peer_id(),
            keypair,
            disk: Disk::default(),
            driver: None,
            commands,
            inbox,
            outbox: Arc::default(),
            checked: 0,
            back_at: None,
            lives: 0,
        }
    }

    pub(super) fn machine(&self) -> Option<&Machine> {
        self.driver.as_ref()?.machine.as_ref()
    }

    pub(super) fn machine_mut(&mut self) -> Option<&mut Machine> {
        self.driver.as_mut()?.machine.as_mut()
    }

    pub(super) fn is_running(&self) -> bool {
        self.driver.is_some()
    }

    fn shared(&self) -> Option<&Shared> {
        self.driver.as_ref().map(|driver| &*driver.parts.shared)
    }

    /// Whether its own log says that it was removed.
    pub(super) fn knows_of_its_removal(&self) -> bool {
        self.shared().is_some_and(|shared| shared.status.borrow().removed.is_some())
    }

    fn raft_id(&self) -> Option<u64> {
        Some(self.shared()?.store.identity()?.raft_id)
    }

    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> oneshot::Receiver<Result<T>> {
        let (reply, answer) = oneshot::channel();
        if self.is_running() {
            let _ = self.commands.try_send(command(reply));
        }
        answer
    }
}

struct Parcel {
    at: Duration,
    from: usize,
    to: usize,
    frame: Bytes,
}

/// How bad the network is now.
#[derive(Clone, Copy, Default)]
pub(super) struct Weather {
    pub loss: f64,
    pub twice: f64,
    pub delay_ms: u64,
}

/// The members as of one index, by what the committed entries say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub voters: BTreeSet<u64>,
    pub learners: BTreeSet<u64>,
    pub peers: BTreeMap<u64, PeerId>,
}

impl Listing {
    fn apply(&mut self, entry: &Entry) {
        let change = changes::decode(entry).unwrap();
        let (_, bytes) = entry::unstamp(&change.context).unwrap();
        let view = entry::parse(bytes).unwrap();
        let id = change.changes[0].node_id;
        self.voters.remove(&id);
        self.learners.remove(&id);
        match ConfChangeType::from_i32(change.changes[0].change_type).unwrap() {
            ConfChangeType::AddNode => self.voters.insert(id),
            ConfChangeType::AddLearnerNode => self.learners.insert(id),
            ConfChangeType::RemoveNode => self.peers.remove(&id).is_some(),
        };
        if view.kind == JOIN {
            let (_, peer) = changes::joined(&view).unwrap();
            self.peers.insert(id, peer);
        }
    }

    pub(super) fn id_of(&self, peer: &PeerId) -> Option<u64> {
        self.peers.iter().find(|(_, listed)| *listed == peer).map(|(id, _)| *id)
    }
}

struct Proposal {
    id: String,
    answer: oneshot::Receiver<Result<u64>>,
}

pub(super) struct Sim {
    pub nodes: Vec<Node>,
    /// The agents that are to be members; the others are to go.
    pub wanted: Vec<usize>,
    pub now: Duration,
    pub rng: StdRng,
    pub weather: Weather,
    /// Node pairs that do not reach each other.
    pub cut: Vec<(usize, usize)>,
    pub mesh: String,
    pub acknowledged: HashMap<String, u64>,
    clock: Arc<AtomicU64>,
    parcels: Vec<Parcel>,
    leaders: HashMap<u64, usize>,
    committed: BTreeMap<u64, (u64, Vec<u8>)>,
    listings: BTreeMap<u64, Listing>,
    proposals: Vec<Proposal>,
    additions: Vec<(usize, u32, oneshot::Receiver<Result<Added>>)>,
    removals: Vec<(u64, oneshot::Receiver<Result<u64>>)>,
    bug: Option<Bug>,
    pub seed: u64,
}

impl Sim {
    /// `count` agents, the first of which founds a mesh.
    pub(super) fn new(seed: u64, count: usize) -> Self {
        Self::with_bug(seed, count, None)
    }

    pub(super) fn with_bug(seed: u64, count: usize, bug: Option<Bug>) -> Self {
        let mut sim = Self {
            nodes: Vec::new(),
            wanted: (0..count).collect(),
            now: Duration::ZERO,
            rng: StdRng::seed_from_u64(seed),
            weather: Weather { delay_ms: 3, ..Weather::default() },
            cut: Vec::new(),
            mesh: String::new(),
            acknowledged: HashMap::new(),
            clock: Arc::default(),
            parcels: Vec::new(),
            leaders: HashMap::new(),
            committed: BTreeMap::new(),
            listings: BTreeMap::new(),
            proposals: Vec::new(),
            additions: Vec::new(),
            removals: Vec::new(),
            bug,
            seed,
        };
        for _ in 0..count {
            sim.new_node();
        }
        let settings = json!({ "heartbeat_ms": 50, "election_timeout_ms": TIMEOUT_MS });
        let mut founded =
            sim.nodes[0].ask(|reply| Command::Found { settings, agent: json!({}), recovers: Vec::new(), reply });
        let founder = sim.nodes[0].peer;
        let first =
            Listing { voters: [FOUNDER_ID].into(), peers: [(FOUNDER_ID, founder)].into(), ..Listing::default() };
        sim.listings.insert(FOUNDER_ID, first);
        sim.step();
        sim.mesh = founded.try_recv().unwrap().unwrap();
        sim
    }

    /// One more agent, on an empty disk.
    pub(super) fn new_node(&mut self) -> usize {
        self.nodes.push(Node::new());
        self.start(self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    pub(super) fn clock(&self) -> Now {
        Now { at: self.now, wall_ms: WALL_MS + self.now.as_millis() as u64 }
    }

    pub(super) fn start(&mut self, node: usize) {
        let seed = self.rng.random();
        let millis = Arc::clone(&self.clock);
        let clock = move || {
            let millis = millis.load(Ordering::Relaxed);
            Now { at: Duration::from_millis(millis), wall_ms: WALL_MS + millis }
        };
        let agent = &mut self.nodes[node];
        agent.back_at = None;
        if let Ok(store) = agent.disk.open() {
            let parts = Parts {
                shared: Arc::new(Shared::new(store)),
                transport: agent.outbox.clone(),
                keypair: agent.keypair.clone(),
                bug: self.bug,
            };
            (agent.commands, agent.inbox) = mpsc::sync_channel(INBOX);
            agent.driver = Some(Driver::new(parts, Box::new(clock), seed));
        }
        self.look_after(node, Duration::from_millis(20));
        self.check(node);
    }

    /// Crashes a node whose power failed; any other error is one of the machine.
    fn look_after(&mut self, node: usize, back_in: Duration) {
        if self.nodes[node].disk.has_failed() {
            return self.crash(node, back_in);
        }
        let error = self.nodes[node].shared().expect("a disk with power opens").status.borrow().error.clone();
        assert_eq!(error, None, "seed {}: node {node}", self.seed);
    }

    /// Takes a node's power; it comes back later.
    pub(super) fn crash(&mut self, node: usize, back_in: Duration) {
        self.nodes[node].disk.cut(&mut self.rng);
        self.nodes[node].driver = None;
        self.nodes[node].back_at = Some(self.now + back_in);
    }

    /// Empties a node's disk: from then on it is an agent that was never in a mesh.
    pub(super) fn wipe(&mut self, node: usize) {
        let agent = &mut self.nodes[node];
        agent.driver = None;
        agent.disk = Disk::default();
        agent.checked = 0;
        agent.lives += 1;
        self.start(node);
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |node: &usize| self.nodes[*node].machine().is_some_and(Machine::is_leader);
        let term = |node: &usize| self.nodes[*node].machine().map(|machine| machine.node.raft.term);
        (0..self.nodes.len()).filter(leads).max_by_key(term)
    }

    /// The members by all that is known to be committed.
    pub(super) fn listing(&self) -> &Listing {
        self.listing_at(u64::MAX)
    }

    fn listing_at(&self, index: u64) -> &Listing {
        self.listings.range(..=index).next_back().unwrap().1
    }

    /// Whether a node's raft id was removed, which its own log need not say.
    pub(super) fn was_removed(&self, node: usize) -> bool {
        let last = self.committed.last_key_value().map_or(0, |(index, _)| *index);
        self.nodes[node].raft_id().is_some_and(|id| id <= last && !self.listing().peers.contains_key(&id))
    }

    /// A client at `node` proposes; its node forwards to the leader that it knows.
    pub(super) fn propose(&mut self, node: usize) {
        let id = entry::ulid();
        let body = json!({ "n": self.rng.random_range(0..1000) }).to_string();
        let draft = Draft { mesh: &self.mesh, id: &id, kind: "note", seen: 0, body: body.as_bytes() };
        let entry = entry::make(&self.nodes[node].keypair, &self.nodes[node].peer, &draft).unwrap();
        let key = entry::key_of(&self.nodes[node].peer.to_string(), &id);
        let Some(place) = self.place(node) else { return };
        let answer = self.nodes[place].ask(|reply| Command::Propose { entry, key, reply });
        self.proposals.push(Proposal { id, answer });
    }

    /// Where a proposal of `node` is appended: with the leader that it knows, if that one hears it, for members alone
    /// are heard; else with itself.
    fn place(&self, node: usize) -> Option<usize> {
        let own = self.nodes[node].peer.to_string();
        let Some(leader) = self.nodes[node].shared()?.status.borrow().leader.clone().filter(|peer| *peer != own) else {
            return Some(node);
        };
        let leader = self.index_of(&leader.parse().unwrap());
        let heard = self.nodes[leader].shared()?.status.borrow().members.iter().any(|member| member.peer == own);
        heard.then_some(leader)
    }

    pub(super) fn index_of(&self, peer: &PeerId) -> usize {
        self.nodes.iter().position(|node| node.peer == *peer).unwrap()
    }

    /// The leader admits an agent that is in no mesh, or one whose answer got lost.
    pub(super) fn add(&mut self, node: usize) {
        let Some(leader) = self.leader() else { return };
        let Node { peer, lives, .. } = self.nodes[node];
        let body = json!({ "agent_id": format!("a{node}"), "request": format!("r{node}-{lives}") });
        let answer = self.nodes[leader].ask(|reply| Command::Add { peer, body, reply });
        self.additions.push((node, lives, answer));
    }

    pub(super) fn vote(&mut self, node: usize, voter: bool) {
        let peer = self.nodes[node].peer;
        let Some(leader) = self.leader() else { return };
        self.nodes[leader].ask(|reply| Command::Vote { peer, voter, reply });
    }

    pub(super) fn remove(&mut self, node: usize) {
        let peer = self.nodes[node].peer;
        let Some(leader) = self.leader() else { return };
        let Some(id) = self.listing().id_of(&peer) else { return };
        let answer = self.nodes[leader].ask(|reply| Command::Remove { peer, reason: "gone".into(), reply });
        self.removals.push((id, answer));
    }

    pub(super) fn hand_over(&mut self, node: usize) {
        let to = self.nodes[node].peer;
        let Some(leader) = self.leader() else { return };
        self.nodes[leader].ask(|reply| Command::Transfer { to, reply });
    }

    /// One step towards the members that are wanted, as the leader sees them.
    pub(super) fn tend(&mut self) {
        let Some(leader) = self.leader() else { return };
        let machine = self.nodes[leader].machine().unwrap();
        let voters = machine.node.raft.prs().conf().voters();
        let mut steps: Vec<Act> = Vec::new();
        for node in 0..self.nodes.len() {
            let id = machine.members.id_of(&self.nodes[node].peer);
            let votes = id.is_some_and(|id| voters.contains(id));
            match (self.wanted.contains(&node), id) {
                (true, _) if self.nodes[node].is_running() && self.nodes[node].machine().is_none() => {
                    steps.push(Box::new(move |sim| sim.add(node)));
                }
                (true, Some(_)) if !votes => steps.push(Box::new(move |sim| sim.vote(node, true))),
                (false, Some(_)) if node == leader => {
                    let heir = self.wanted[self.now.as_millis() as usize / 2 % self.wanted.len()];
                    steps.push(Box::new(move |sim| sim.hand_over(heir)));
                }
                (false, Some(_)) if votes => steps.push(Box::new(move |sim| sim.vote(node, false))),
                (false, Some(_)) => steps.push(Box::new(move |sim| sim.remove(node))),
                _ => {}
            }
        }
        if !steps.is_empty() {
            let chosen = self.rng.random_range(0..steps.len());
            steps[chosen](self);
        }
    }

    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.step();
        }
    }

    /// Runs until `done`, or fails after `limit`.
    pub(super) fn run_until(&mut self, limit: Duration, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            assert!(self.now < end, "seed {}: not within {limit:?}: {what}", self.seed);
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        self.clock.store(self.now.as_millis() as u64, Ordering::Relaxed);
        for node in 0..self.nodes.len() {
            if self.nodes[node].back_at.is_some_and(|at| at <= self.now) {
                self.start(node);
            }
        }
        let (due, later): (Vec<Parcel>, _) =
            std::mem::take(&mut self.parcels).into_iter().partition(|parcel| parcel.at <= self.now);
        self.parcels = later;
        for parcel in due {
            let from = self.nodes[parcel.from].peer;
            let _ = self.nodes[parcel.to].commands.try_send(Command::Frame { from, frame: parcel.frame });
        }
        for node in 0..self.nodes.len() {
            let Node { driver: Some(driver), inbox, .. } = &mut self.nodes[node] else {
                continue;
            };
            let first = inbox.try_recv().ok();
            if first.is_none() && driver.next_wake() > self.now {
                continue;
            }
            let known = driver.machine.as_ref().map(|machine| (machine.members.listed().clone(), machine.applied));
            driver.wake(first, inbox);
            // The power may have gone in the middle of it; what was sent before is on its way.
            self.post(node, known);
            let back_in = Duration::from_millis(self.rng.random_range(1..500));
            self.look_after(node, back_in);
            self.check(node);
        }
        self.collect();
    }

    /// Takes what a node has sent; `known` is whom it listed before, and as of which index.
    fn post(&mut self, from: usize, known: Option<(BTreeMap<u64, PeerId>, u64)>) {
        let frames = std::mem::take(&mut *self.nodes[from].outbox.0.lock().unwrap());
        for (peer, frame) in frames {
            let id = frames::decode(frame.clone()).unwrap().to;
            if let Some((listed, applied)) = &known {
                let member = *applied < id || listed.get(&id) == Some(&peer);
                assert!(member, "seed {}: a frame to {id}, which its sender does not list", self.seed);
            }
            let to = self.index_of(&peer);
            let severed = self.cut.iter().any(|pair| *pair == (from, to) || *pair == (to, from));
            if severed || self.rng.random_bool(self.weather.loss) {
                continue;
            }
            let copies = if self.rng.random_bool(self.weather.twice) { 2 } else { 1 };
            for _ in 0..copies {
                let delay = Duration::from_millis(self.rng.random_range(0..=self.weather.delay_ms));
                self.parcels.push(Parcel { at: self.now + delay, from, to, frame: frame.clone() });
            }
        }
    }

    /// What must hold: one leader a term, one committed log, and the members that it says.
    fn check(&mut self, node: usize) {
        let seed = self.seed;
        let Some(machine) = self.nodes[node].driver.as_ref().and_then(|driver| driver.machine.as_ref()) else {
            return;
        };
        if machine.is_leader() {
            let term = machine.node.raft.term;
            let first = *self.leaders.entry(term).or_insert(node);
            assert_eq!(first, node, "seed {seed}: two leaders in term {term}");
        }
        let (low, high) = (self.nodes[node].checked.max(1) + 1, machine.applied + 1);
        if low < high {
            let entries = machine.store.read(low, high, u64::MAX).unwrap();
            assert_eq!(entries.len() as u64, high - low, "seed {seed}: a gap");
            for entry in entries {
                let said = (entry.term, entry.data.clone());
                if let Some(first) = self.committed.get(&entry.index) {
                    assert_eq!(*first, said, "seed {seed}: two entries committed at {}", entry.index);
                    continue;
                }
                self.committed.insert(entry.index, said);
                if is_change(&entry) {
                    let mut listing = self.listing().clone();
                    listing.apply(&entry);
                    assert!(!listing.voters.is_empty(), "seed {seed}: no voters as of {}", entry.index);
                    self.listings.insert(entry.index, listing);
                }
            }
        }
        let machine = self.nodes[node].machine().unwrap();
        let conf = machine.node.raft.prs().conf();
        let counted = Listing {
            voters: conf.voters().ids().iter().collect(),
            learners: conf.learners().iter().copied().collect(),
            peers: machine.members.listed().clone(),
        };
        let said = self.listing_at(machine.applied);
        assert_eq!(counted, *said, "seed {seed}: node {node} counts other members than its log says");
        // As its disk knows it: after a power cut it counts votes by what it knows to be committed.
        let (commit, last) = (machine.store.hard().commit, machine.store.last());
        let pending = machine.store.read(commit + 1, last + 1, u64::MAX).unwrap();
        let changes = pending.iter().filter(|entry| is_change(entry)).count();
        assert!(changes <= 1, "seed {seed}: node {node} has {changes} changes under way");
        if low < high {
            self.check_status(node);
        }
        self.nodes[node].checked = self.nodes[node].checked.max(high - 1);
    }

    /// Members are shown as they are, while changes go on too.
    fn check_status(&self, node: usize) {
        let seed = self.seed;
        let status = self.nodes[node].shared().unwrap().status.borrow();
        let said = self.listing_at(status.applied.max(FOUNDER_ID));
        let shown = status.members.iter().map(|member| (member.raft_id, member.peer.clone(), member.voter));
        let right = said.peers.iter().map(|(id, peer)| (*id, peer.to_string(), said.voters.contains(id)));
        assert!(shown.eq(right), "seed {seed}: node {node} shows other members than its log says: {status:?}");
    }

    fn collect(&mut self) {
        for mut proposal in std::mem::take(&mut self.proposals) {
            match proposal.answer.try_recv() {
                Ok(Ok(index)) => {
                    // A node whose power failed right after its answer was not looked at.
                    if let Some((_, data)) = self.committed.get(&index) {
                        let (_, bytes) = entry::unstamp(data).unwrap();
                        assert_eq!(entry::parse(bytes).unwrap().id, proposal.id, "seed {}: another entry", self.seed);
                    }
                    self.acknowledged.insert(proposal.id, index);
                }
                Err(oneshot::error::TryRecvError::Empty) => self.proposals.push(proposal),
                _ => {}
            }
        }
        for (node, lives, mut answer) in std::mem::take(&mut self.additions) {
            match answer.try_recv() {
                Ok(Ok(added)) if self.nodes[node].lives == lives => self.adopt(node, added),
                Err(oneshot::error::TryRecvError::Empty) => self.additions.push((node, lives, answer)),
                _ => {}
            }
        }
        for (id, mut answer) in std::mem::take(&mut self.removals) {
            match answer.try_recv() {
                Ok(Ok(index)) if self.committed.contains_key(&index) => {
                    assert!(!self.listing().peers.contains_key(&id), "seed {}: {id} is not removed", self.seed);
                }
                Err(oneshot::error::TryRecvError::Empty) => self.removals.push((id, answer)),
                _ => {}
            }
        }
    }

    /// A joiner is told who is listed; half of the time by one that is out of date.
    fn adopt(&mut self, node: usize, added: Added) {
        let leader = self.leader().filter(|_| self.rng.random_bool(0.5));
        let members = match leader.and_then(|leader| self.nodes[leader].machine()) {
            Some(machine) => machine.members.listed().iter().map(|(id, peer)| (*id, *peer)).collect(),
            None => Vec::new(),
        };
        let (mesh, Added { raft_id, founding, .. }) = (self.mesh.clone(), added);
        self.nodes[node].ask(|reply| Command::Adopt { mesh, raft_id, founding, members, reply });
    }

    /// Whether the wanted agents alone are members, all of them vote, run, agree and have applied everything.
    pub(super) fn is_settled(&self) -> bool {
        let Some(leader) = self.leader().and_then(|leader| self.nodes[leader].machine()) else {
            return false;
        };
        let last = leader.node.raft.raft_log.last_index();
        let listing = self.listing();
        let settled = |node: &usize| {
            self.nodes[*node].machine().is_some_and(|machine| {
                machine.applied == last
                    && machine.store.last() == last
                    && listing.voters.contains(&machine.identity.raft_id)
            })
        };
        listing.peers.len() == self.wanted.len() && self.wanted.iter().all(settled)
    }
}

fn is_change(entry: &Entry) -> bool {
    entry.entry_type != EntryType::EntryNormal as i32
}
