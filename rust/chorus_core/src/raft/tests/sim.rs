//! A mesh in one thread with virtual time: machines on disks that lose power, a network that drops,
//! delays, duplicates and reorders, and what must hold whatever happens.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use libp2p::{PeerId, identity::Keypair};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio::sync::oneshot;

use super::disk::Disk;
use crate::{
    Error, Result,
    raft::{
        entry::{self, Draft, FOUND},
        handle::Placed,
        machine::{Machine, Now, Parts},
        shared::Shared,
        storage::{FOUNDER_ID, Identity},
        types::{Added, RaftTransport},
    },
};

pub(super) const TIMEOUT_MS: u64 = 300;
const STEP: Duration = Duration::from_millis(2);

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
    pub machine: Option<Machine>,
    outbox: Arc<Outbox>,
    checked: u64,
    back_at: Option<Duration>,
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

pub(super) struct Sim {
    pub nodes: Vec<Node>,
    pub now: Duration,
    pub rng: StdRng,
    pub weather: Weather,
    /// Node pairs that do not reach each other.
    pub cut: Vec<(usize, usize)>,
    pub mesh: String,
    pub founding: Bytes,
    parcels: Vec<Parcel>,
    leaders: HashMap<u64, usize>,
    committed: BTreeMap<u64, (u64, Vec<u8>)>,
    pub acknowledged: HashMap<String, u64>,
    proposals: Vec<(String, oneshot::Receiver<Result<Placed>>)>,
    additions: Vec<(usize, oneshot::Receiver<Result<Added>>)>,
    seed: u64,
}

impl Sim {
    /// `count` agents, the first of which founds a mesh.
    pub(super) fn new(seed: u64, count: usize) -> Self {
        let nodes: Vec<Node> = (0..count).map(|_| Node::new()).collect();
        let mesh = entry::ulid();
        let settings = json!({ "heartbeat_ms": 50, "election_timeout_ms": TIMEOUT_MS });
        let body = json!({ "settings": settings, "agent": {} }).to_string();
        let draft = Draft { mesh: &mesh, id: &entry::ulid(), kind: FOUND, seen: 0, body: body.as_bytes() };
        let entry = entry::make(&nodes[0].keypair, &nodes[0].peer, &draft).unwrap();
        let mut sim = Self {
            nodes,
            now: Duration::ZERO,
            rng: StdRng::seed_from_u64(seed),
            weather: Weather { delay_ms: 3, ..Weather::default() },
            cut: Vec::new(),
            mesh,
            founding: entry::stamped(1, &entry).into(),
            parcels: Vec::new(),
            leaders: HashMap::new(),
            committed: BTreeMap::new(),
            acknowledged: HashMap::new(),
            proposals: Vec::new(),
            additions: Vec::new(),
            seed,
        };
        sim.init(0, FOUNDER_ID, &[]);
        sim
    }

    fn init(&mut self, node: usize, raft_id: u64, hints: &[(u64, PeerId)]) {
        let identity = Identity { mesh: self.mesh.clone(), raft_id, founding: self.founding.clone(), owner: None };
        let founder = self.nodes[0].peer;
        self.nodes[node].disk.open().unwrap().init(&identity, founder, hints).unwrap();
        self.start(node);
    }

    pub(super) fn clock(&self) -> Now {
        Now { at: self.now, wall_ms: 1_000_000 + self.now.as_millis() as u64 }
    }

    pub(super) fn start(&mut self, node: usize) {
        let now = self.clock();
        let seed = self.rng.random();
        let agent = &mut self.nodes[node];
        agent.back_at = None;
        let opened = agent.disk.open().and_then(|store| {
            let shared = Arc::new(Shared::new(store));
            let parts = Parts { shared, transport: agent.outbox.clone(), keypair: agent.keypair.clone() };
            Machine::open(parts, 0.5, seed, now)
        });
        match opened {
            Ok(machine) => agent.machine = Some(machine),
            Err(Error::Internal(why)) if why.contains("no power") => {
                self.crash(node, Duration::from_millis(20));
            }
            Err(error) => panic!("seed {}: {error}", self.seed),
        }
    }

    /// Takes a node's power; it comes back later.
    pub(super) fn crash(&mut self, node: usize, back_in: Duration) {
        self.nodes[node].disk.cut(&mut self.rng);
        self.nodes[node].machine = None;
        self.nodes[node].back_at = Some(self.now + back_in);
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |node: &usize| self.nodes[*node].machine.as_ref().is_some_and(Machine::is_leader);
        let term = |node: &usize| self.nodes[*node].machine.as_ref().map(|machine| machine.node.raft.term);
        (0..self.nodes.len()).filter(leads).max_by_key(term)
    }

    /// A client at `node` proposes; its node forwards to the leader that it knows.
    pub(super) fn propose(&mut self, node: usize) {
        let id = entry::ulid();
        let body = json!({ "n": self.rng.random_range(0..1000) }).to_string();
        let draft = Draft { mesh: &self.mesh, id: &id, kind: "note", seen: 0, body: body.as_bytes() };
        let entry = entry::make(&self.nodes[node].keypair, &self.nodes[node].peer, &draft).unwrap();
        let key = entry::key_of(&self.nodes[node].peer.to_string(), &id);
        let mut at = node;
        for _ in 0..2 {
            let (reply, mut answer) = oneshot::channel();
            let Some(machine) = &mut self.nodes[at].machine else {
                return;
            };
            machine.propose(entry.clone(), key, reply);
            match answer.try_recv() {
                Ok(Ok(Placed::Leader(leader))) => at = self.index_of(&leader),
                Ok(_) => return,
                Err(_) => return self.proposals.push((id, answer)),
            }
        }
    }

    pub(super) fn index_of(&self, peer: &PeerId) -> usize {
        self.nodes.iter().position(|node| node.peer == *peer).unwrap()
    }

    /// The leader admits the next agent that is in no mesh, or one whose answer got lost.
    pub(super) fn add(&mut self, node: usize) {
        let now = self.clock();
        let peer = self.nodes[node].peer;
        let Some(leader) = self.leader() else { return };
        let (reply, answer) = oneshot::channel();
        self.nodes[leader].machine.as_mut().unwrap().add(
            peer,
            json!({ "agent_id": format!("a{node}"), "request": format!("r{node}") }),
            reply,
            now,
        );
        self.additions.push((node, answer));
    }

    pub(super) fn vote(&mut self, node: usize, voter: bool) {
        let now = self.clock();
        let peer = self.nodes[node].peer;
        let Some(leader) = self.leader() else { return };
        let (reply, _) = oneshot::channel();
        self.nodes[leader].machine.as_mut().unwrap().vote(peer, voter, reply, now);
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
        let now = self.clock();
        for node in 0..self.nodes.len() {
            if self.nodes[node].back_at.is_some_and(|at| at <= self.now) {
                self.start(node);
            }
        }
        let mut touched = vec![false; self.nodes.len()];
        let (due, later): (Vec<Parcel>, _) =
            std::mem::take(&mut self.parcels).into_iter().partition(|parcel| parcel.at <= self.now);
        self.parcels = later;
        for parcel in due {
            let from = self.nodes[parcel.from].peer;
            let Some(machine) = &mut self.nodes[parcel.to].machine else {
                continue;
            };
            touched[parcel.to] = true;
            // Else it may be of a member that this one has not heard of yet, or from an old term.
            if let Err(Error::Internal(_)) = machine.receive(from, parcel.frame, now) {
                self.crash(parcel.to, Duration::from_millis(100));
            }
        }
        for (node, touched) in touched.into_iter().enumerate() {
            let Some(machine) = &mut self.nodes[node].machine else {
                continue;
            };
            if touched || machine.next_wake() <= self.now || !self.proposals.is_empty() {
                if machine.turn(now).is_err() {
                    // The power went in the middle of it; what was sent before is on its way.
                    self.post(node);
                    let back_in = Duration::from_millis(self.rng.random_range(1..500));
                    self.crash(node, back_in);
                    continue;
                }
                self.post(node);
                self.check(node);
            }
        }
        self.collect();
    }

    fn post(&mut self, from: usize) {
        let frames = std::mem::take(&mut *self.nodes[from].outbox.0.lock().unwrap());
        for (peer, frame) in frames {
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

    /// What must hold: one leader a term, and one committed log.
    fn check(&mut self, node: usize) {
        let machine = self.nodes[node].machine.as_ref().unwrap();
        if machine.is_leader() {
            let term = machine.node.raft.term;
            let first = *self.leaders.entry(term).or_insert(node);
            assert_eq!(first, node, "seed {}: two leaders in term {term}", self.seed);
        }
        let (low, high) = (self.nodes[node].checked.max(1) + 1, machine.applied + 1);
        if low >= high {
            return;
        }
        let entries = machine.store.read(low, high, u64::MAX).unwrap();
        assert_eq!(entries.len() as u64, high - low, "seed {}: a gap", self.seed);
        for entry in entries {
            let said = (entry.term, entry.data.clone());
            let first = self.committed.entry(entry.index).or_insert_with(|| said.clone());
            assert_eq!(*first, said, "seed {}: two entries committed at {}", self.seed, entry.index);
        }
        self.nodes[node].checked = high - 1;
    }

    fn collect(&mut self) {
        let proposals = std::mem::take(&mut self.proposals);
        for (id, mut answer) in proposals {
            match answer.try_recv() {
                Ok(Ok(Placed::At(index))) => {
                    let (_, data) = self.committed.get(&index).expect("acknowledged before it was committed");
                    let (_, bytes) = entry::unstamp(data).unwrap();
                    assert_eq!(entry::parse(bytes).unwrap().id, id, "seed {}: another entry", self.seed);
                    self.acknowledged.insert(id, index);
                }
                Err(oneshot::error::TryRecvError::Empty) => self.proposals.push((id, answer)),
                _ => {}
            }
        }
        let additions = std::mem::take(&mut self.additions);
        for (node, mut answer) in additions {
            match answer.try_recv() {
                Ok(Ok(added)) if self.nodes[node].machine.is_none() && self.nodes[node].back_at.is_none() => {
                    // A joiner is told who is listed; half of the time by one that is out of date.
                    let leader = self.leader().unwrap_or(0);
                    let known = self.rng.random_bool(0.5);
                    let hints: Vec<_> = match &self.nodes[leader].machine {
                        Some(machine) if known => {
                            machine.members.listed().iter().map(|(id, peer)| (*id, *peer)).collect()
                        }
                        _ => Vec::new(),
                    };
                    self.init(node, added.raft_id, &hints);
                }
                Err(oneshot::error::TryRecvError::Empty) => self.additions.push((node, answer)),
                _ => {}
            }
        }
    }

    /// Whether everybody runs, agrees and has applied everything.
    pub(super) fn is_settled(&self) -> bool {
        let machines: Option<Vec<_>> = self.nodes.iter().map(|node| node.machine.as_ref()).collect();
        let Some(machines) = machines else {
            return false;
        };
        let last = machines[0].node.raft.raft_log.last_index();
        self.leader().is_some()
            && machines.iter().all(|machine| machine.applied == last && machine.store.last() == last)
    }
}

impl Node {
    fn new() -> Self {
        let keypair = Keypair::generate_ed25519();
        Self {
            peer: keypair.public().to_peer_id(),
            keypair,
            disk: Disk::default(),
            machine: None,
            outbox: Arc::default(),
            checked: 0,
            back_at: None,
        }
    }
}
