//! Whole handles: threads, files, a network of channels in this process.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use libp2p::{PeerId, identity::Keypair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    Error, Result,
    raft::{Committed, Follower, Proposed, RaftConfig, RaftHandle, RaftTransport, Role},
};

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Every handle by its peer id; those that are gone are not there.
#[derive(Clone, Default)]
pub(super) struct Wires(Arc<Mutex<HashMap<PeerId, RaftHandle>>>);

struct Wire {
    wires: Wires,
    own: PeerId,
}

impl Wires {
    fn get(&self, peer: &PeerId) -> Option<RaftHandle> {
        self.0.lock().unwrap().get(peer).cloned()
    }
}

impl RaftTransport for Wire {
    fn send(&self, to: PeerId, frame: Bytes) {
        if let Some(handle) = self.wires.get(&to) {
            handle.receive(self.own, frame);
        }
    }

    fn forward(&self, leader: PeerId, entry: Bytes, timeout: Duration) -> BoxFuture<'static, Result<u64>> {
        let (handle, own) = (self.wires.get(&leader), self.own);
        Box::pin(async move {
            let handle = handle.ok_or_else(|| Error::Unavailable("gone".into()))?;
            handle.accept_forwarded(own, entry, timeout).await
        })
    }
}

pub(super) struct Agent {
    pub keypair: Keypair,
    pub peer: PeerId,
    pub dir: TempDir,
    pub wires: Wires,
    /// Types that may be proposed; any when missing.
    pub types: Option<Arc<BTreeSet<String>>>,
}

impl Agent {
    pub(super) fn new(wires: &Wires) -> Self {
        let keypair = Keypair::generate_ed25519();
        let peer = keypair.public().to_peer_id();
        Self { keypair, peer, dir: tempfile::tempdir().unwrap(), wires: wires.clone(), types: None }
    }

    pub(super) fn start(&self) -> RaftHandle {
        let transport = Arc::new(Wire { wires: self.wires.clone(), own: self.peer });
        let config = RaftConfig {
            dir: self.dir.path().into(),
            keypair: self.keypair.clone(),
            transport,
            types: self.types.clone(),
        };
        let handle = RaftHandle::start(config).unwrap();
        self.wires.0.lock().unwrap().insert(self.peer, handle.clone());
        handle
    }

    pub(super) async fn stop(&self) {
        let handle = self.wires.0.lock().unwrap().remove(&self.peer);
        if let Some(handle) = handle {
            handle.shutdown().await;
        }
    }
}

pub(super) fn settings() -> Value {
    json!({ "heartbeat_ms": 50, "election_timeout_ms": 300 })
}

/// Waits until `done` of a handle's status.
pub(super) async fn wait_for(handle: &RaftHandle, done: impl FnMut(&crate::raft::RaftStatus) -> bool) {
    let mut watch = handle.watch();
    tokio::time::timeout(PATIENCE, watch.wait_for(done)).await.expect("in time").expect("alive");
}

/// A mesh of voters: the first founds it, the others are admitted and promoted.
pub(super) async fn mesh(agents: &[Agent]) -> Vec<RaftHandle> {
    let handles: Vec<RaftHandle> = agents.iter().map(Agent::start).collect();
    let mesh = handles[0].found(settings(), json!({ "agent_id": "a0" }), Vec::new()).await.unwrap();
    for (agent, handle) in agents.iter().zip(&handles).skip(1) {
        let added =
            retry(|| handles[0].add(agent.peer, json!({ "agent_id": "a", "request": agent.peer.to_string() }))).await;
        let members = handles[0].status().members;
        let members = members.iter().map(|member| (member.raft_id, member.peer.parse().unwrap())).collect();
        handle.adopt(&mesh, added.raft_id, added.founding, members).await.unwrap();
        retry(|| handles[0].promote(agent.peer)).await;
        wait_for(handle, |status| status.role == Role::Follower && status.leader.is_some()).await;
    }
    handles
}

/// Repeats what is refused for now.
async fn retry<T, F: Future<Output = Result<T>>>(mut attempt: impl FnMut() -> F) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn propose(handle: &RaftHandle, text: &str) -> Proposed {
    handle.propose("note", None, json!({ "text": text }).to_string().as_bytes(), PATIENCE).await.unwrap()
}

async fn next(follower: &mut Follower) -> Committed {
    tokio::time::timeout(PATIENCE, follower.recv()).await.expect("in time").expect("goes on")
}

/// Reads from index 1 up to `last`: every index once, in order, all valid.
async fn read_all(handle: &RaftHandle, last: u64) -> Vec<Committed> {
    let mut follower = handle.follow(1);
    let mut all = Vec::new();
    for index in 1..=last {
        let committed = next(&mut follower).await;
        assert_eq!(committed.index, index);
        assert_eq!(committed.reason, None, "{committed:?}");
        all.push(committed);
    }
    assert!(all.windows(2).all(|pair| pair[1].stamp == 0 || pair[0].stamp <= pair[1].stamp));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_lives_through_the_loss_and_return_of_its_leader() {
    let wires = Wires::default();
    let agents: Vec<Agent> = (0..3).map(|_| Agent::new(&wires)).collect();
    let mut handles = mesh(&agents).await;
    let first = propose(&handles[1], "from a follower").await;
    // The same id again, from the same author, is the same entry.
    let body = br#"{"text":"again"}"#;
    let again = handles[1].propose("note", Some(first.id.clone()), body, PATIENCE).await.unwrap();
    assert_eq!(again.index, first.index);
    let all = read_all(&handles[2], first.index).await;
    let kinds: Vec<&str> = all.iter().map(|committed| committed.kind.as_str()).collect();
    assert_eq!(kinds[..3], ["found", "", "leader"]);
    assert_eq!(kinds.iter().filter(|kind| **kind == "join").count(), 2);
    assert_eq!(kinds.iter().filter(|kind| **kind == "voter").count(), 2);
    let note = all.last().unwrap();
    assert_eq!((note.author.as_str(), note.id.as_str()), (agents[1].peer.to_string().as_str(), first.id.as_str()));
    assert_eq!(&note.body[..], br#"{"text":"from a follower"}"#);

    // The leader is gone: another leads, and goes on from the same log.
    let mut events = handles[1].events();
    agents[0].stop().await;
    handles.remove(0);
    wait_for(&handles[0], |status| status.leader.as_ref().is_some_and(|peer| *peer != agents[0].peer.to_string()))
        .await;
    assert!(events.recv().await.is_ok());
    let second = propose(&handles[0], "without it").await;
    assert!(second.index > first.index);

    // It comes back from its disk and catches up.
    let back = agents[0].start();
    let text = read_all(&back, second.index).await;
    assert_eq!(text.last().unwrap().id, second.id);
    let third = propose(&back, "from the one that came back").await;
    let one = read_all(&handles[0], third.index).await;
    let other = read_all(&back, third.index).await;
    for (one, other) in one.iter().zip(&other) {
        assert_eq!((one.index, one.term, &one.id, &one.body), (other.index, other.term, &other.id, &other.body));
    }
    // A follower may resume from anywhere, and goes on live.
    let mut follower = back.follow(third.index);
    assert_eq!(next(&mut follower).await.id, third.id);
    let fourth = propose(&handles[1], "live").await;
    assert_eq!(next(&mut follower).await.id, fourth.id);
    for agent in &agents {
        agent.stop().await;
    }
    assert!(matches!(back.propose("note", None, b"{}", PATIENCE).await, Err(Error::Closed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admission_is_repeatable_and_votes_are_guarded() {
    let wires = Wires::default();
    let agents: Vec<Agent> = (0..2).map(|_| Agent::new(&wires)).collect();
    let leader = agents[0].start();
    assert!(matches!(leader.propose("note", None, b"{}", PATIENCE).await, Err(Error::NoMesh)));
    assert_eq!(leader.status().role, Role::None);
    leader.found(settings(), json!({}), Vec::new()).await.unwrap();
    assert!(matches!(leader.found(settings(), json!({}), Vec::new()).await, Err(Error::Refused(_))));
    assert_eq!(leader.status().role, Role::Leader);
    let one = retry(|| leader.add(agents[1].peer, json!({ "agent_id": "b", "request": "r" }))).await;
    let two = leader.add(agents[1].peer, json!({ "agent_id": "b", "request": "r" })).await.unwrap();
    // Asked anew, it is a member that has lost its votes; so is the founder.
    for (peer, body) in [(agents[1].peer, json!({ "request": "s" })), (agents[0].peer, json!({ "request": "r" }))] {
        assert!(matches!(leader.add(peer, body).await, Err(Error::NotPermitted(_))));
    }
    assert!(matches!(leader.add(agents[1].peer, json!({})).await, Err(Error::Invalid(_))));
    assert_eq!(one, two);
    assert_eq!(leader.status().members.len(), 2);
    // It was never heard: no vote, and no leadership.
    assert!(matches!(leader.promote(agents[1].peer).await, Err(Error::Refused(_))));
    assert!(matches!(leader.transfer(agents[1].peer).await, Err(Error::Refused(_))));
    assert!(matches!(leader.promote(PeerId::random()).await, Err(Error::NotFound(_))));
    assert!(matches!(leader.demote(agents[0].peer).await, Err(Error::Refused(_))));
    assert!(matches!(leader.propose("voter", None, b"{}", PATIENCE).await, Err(Error::NotPermitted(_))));

    let joiner = agents[1].start();
    let mesh = leader.status().mesh.unwrap();
    // Whichever of its bytes is another (the stamp before them is of the log, not of the entry).
    for at in crate::raft::entry::STAMP_BYTES..one.founding.len() {
        let mut changed = one.founding.to_vec();
        changed[at] ^= 1;
        assert!(joiner.adopt(&mesh, one.raft_id, changed.into(), Vec::new()).await.is_err(), "byte {at}");
    }
    joiner.adopt(&mesh, one.raft_id, one.founding.clone(), Vec::new()).await.unwrap();
    joiner.adopt(&mesh, one.raft_id, one.founding, Vec::new()).await.unwrap();
    wait_for(&joiner, |status| status.role == Role::Learner && status.leader.is_some()).await;
    assert!(matches!(joiner.campaign().await, Err(Error::Refused(_))));
    assert!(matches!(joiner.read_index().await, Err(Error::NotLeader)));
    retry(|| leader.promote(agents[1].peer)).await;
    let proven = leader.read_index().await.unwrap();
    assert!(proven >= leader.status().applied - 1);

    // Leadership goes over, and the one that led before loses its vote to it.
    retry(|| leader.transfer(agents[1].peer)).await;
    wait_for(&joiner, |status| status.role == Role::Leader).await;
    retry(|| joiner.demote(agents[0].peer)).await;
    wait_for(&leader, |status| status.role == Role::Learner).await;
    propose(&leader, "still heard").await;
    for agent in &agents {
        agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_takes_part_no_longer_and_joins_anew() {
    let wires = Wires::default();
    let agents: Vec<Agent> = (0..3).map(|_| Agent::new(&wires)).collect();
    let handles = mesh(&agents).await;
    let (leader, gone) = (&handles[0], agents[2].peer);
    let why = || "it was away".to_owned();
    let old = handles[2].status();
    assert!(matches!(handles[1].remove(gone, why()).await, Err(Error::NotLeader)));
    assert!(matches!(leader.remove(PeerId::random(), why()).await, Err(Error::NotFound(_))));
    assert!(matches!(leader.remove(agents[0].peer, why()).await, Err(Error::Refused(_))));
    assert!(matches!(leader.remove(gone, why()).await, Err(Error::Refused(said)) if said.contains("votes")));
    assert!(matches!(leader.propose("removal", None, b"{}", PATIENCE).await, Err(Error::NotPermitted(_))));
    retry(|| leader.demote(gone)).await;
    let last = propose(leader, "it has this").await.index;
    wait_for(leader, |status| status.members.iter().all(|member| member.matched >= last)).await;
    let index = retry(|| leader.remove(gone, why())).await;
    assert!(matches!(leader.remove(gone, why()).await, Err(Error::NotFound(_))));
    assert!(leader.status().members.iter().all(|member| member.peer != gone.to_string()));
    let entry = read_all(leader, index).await.pop().unwrap();
    let body: Value = serde_json::from_slice(&entry.body).unwrap();
    let said = json!({ "peer": gone.to_string(), "raft_id": old.raft_id, "reason": "it was away" });
    assert_eq!((entry.kind.as_str(), body), ("removal", said));

    // It was there to hear of it; one that is away at its removal never does.
    wait_for(&handles[2], |status| status.removed.is_some()).await;
    for _ in 0..2 {
        agents[2].stop().await;
        let back = agents[2].start();
        let status = back.status();
        assert!(status.removed.is_some_and(|why| why.contains("it was away")));
        assert_eq!((status.mesh, status.role, status.members.len()), (None, Role::None, 0));
        assert!(matches!(back.campaign().await, Err(Error::NoMesh)));
        assert!(matches!(back.found(settings(), json!({}), Vec::new()).await, Err(Error::Refused(_))));
    }
    let vote_file = crate::raft::VoteFile::read(&agents[2].dir.path().join("raft.redb"));
    assert!(matches!(vote_file, Err(Error::Internal(_))), "it is in use");
    agents[2].stop().await;
    let path = agents[2].dir.path().join("raft.redb");
    assert!(crate::raft::VoteFile::read(&path).unwrap().unwrap().removed.is_some());

    std::fs::remove_file(path).unwrap();
    let back = agents[2].start();
    let added = retry(|| leader.add(gone, json!({ "agent_id": "a", "request": "anew" }))).await;
    assert!(added.raft_id > index);
    back.adopt(&old.mesh.unwrap(), added.raft_id, added.founding, Vec::new()).await.unwrap();
    retry(|| leader.promote(gone)).await;
    wait_for(&back, |status| status.role == Role::Follower && status.leader.is_some()).await;
    let status = back.status();
    assert_eq!((status.raft_id, status.members.len(), status.removed), (added.raft_id, 3, None));
    propose(&back, "under its new raft id").await;
    for agent in &agents {
        agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_outlives_its_founder() {
    let wires = Wires::default();
    let agents: Vec<Agent> = (0..4).map(|_| Agent::new(&wires)).collect();
    let handles = mesh(&agents[..2]).await;
    retry(|| handles[0].transfer(agents[1].peer)).await;
    let leader = &handles[1];
    wait_for(leader, |status| status.role == Role::Leader).await;
    agents[0].stop().await;
    // Without the founder's vote nothing is committed: the other voter alone is no majority.
    let founder = agents[0].start();
    retry(|| leader.demote(agents[0].peer)).await;
    agents[0].stop().await;
    drop(founder);
    retry(|| leader.remove(agents[0].peer, "its machine is gone".into())).await;

    let mesh = leader.status().mesh.unwrap();
    let mut joined = Vec::new();
    for agent in &agents[2..] {
        let handle = agent.start();
        let body = json!({ "agent_id": "a", "request": agent.peer.to_string() });
        let added = retry(|| leader.add(agent.peer, body.clone())).await;
        let members = leader.status().members;
        let members = members.iter().map(|member| (member.raft_id, member.peer.parse().unwrap())).collect();
        handle.adopt(&mesh, added.raft_id, added.founding, members).await.unwrap();
        retry(|| leader.promote(agent.peer)).await;
        joined.push(handle);
    }
    // Nobody who was there at the founding is left to lead.
    retry(|| leader.transfer(agents[2].peer)).await;
    wait_for(&joined[1], |status| status.leader == Some(agents[2].peer.to_string())).await;
    propose(&joined[1], "long after the founder").await;
    for agent in &agents {
        agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_says_which_it_goes_on_from() {
    let wires = Wires::default();
    let agents = [Agent::new(&wires)];
    let handle = agents[0].start();
    let before = crate::raft::entry::ulid();
    assert!(matches!(
        handle.found(settings(), json!({}), vec!["no id".into()]).await,
        Err(Error::Invalid(why)) if why.contains("recovers")
    ));
    handle.found(settings(), json!({}), vec![before.clone()]).await.unwrap();
    assert_eq!(handle.status().founding.unwrap()["recovers"], json!([before]));
    agents[0].stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_at_rest_is_read_with_what_was_never_committed() {
    let wires = Wires::default();
    let agents: Vec<Agent> = (0..2).map(|_| Agent::new(&wires)).collect();
    let handles = mesh(&agents).await;
    let path = agents[0].dir.path().join("raft.redb");
    let committed = propose(&handles[0], "committed").await;
    assert!(matches!(crate::raft::read_log(&path, 1, 10), Err(Error::Internal(_))), "it is in use");
    // Alone it appends, and commits nothing.
    agents[1].stop().await;
    let body = json!({ "text": "appended" }).to_string();
    let failed = handles[0].propose("note", None, body.as_bytes(), Duration::from_millis(100)).await;
    assert!(failed.is_err());
    agents[0].stop().await;
    let read = |first, limit| -> Vec<Value> {
        let lines = crate::raft::read_log(&path, first, limit).unwrap();
        lines.iter().map(|line| serde_json::from_slice(line).unwrap()).collect()
    };
    let all = read(1, usize::MAX);
    let last = all.len() as u64;
    assert_eq!(
        all.iter().map(|entry| entry["index"].as_u64().unwrap()).collect::<Vec<_>>(),
        (1..=last).collect::<Vec<_>>()
    );
    assert_eq!((&all[0]["type"], &all[0]["body"]["agent"]["agent_id"]), (&json!("found"), &json!("a0")));
    let texts: Vec<_> =
        all.iter().filter(|entry| entry["type"] == "note").map(|entry| &entry["body"]["text"]).collect();
    assert_eq!(texts, ["committed", "appended"]);
    let place = usize::try_from(committed.index).unwrap() - 1;
    assert_eq!((&all[place]["id"], &all[place]["reason"]), (&json!(committed.id), &Value::Null));
    assert_eq!(all[place]["author"], json!(agents[0].peer.to_string()));
    assert!(all.iter().any(|entry| entry["type"] == "" && entry["body"].is_null()), "a leader's empty entry");
    assert!(all.iter().all(|entry| entry["type"] != "invalid"));
    assert_eq!([read(2, 2), read(4, usize::MAX)].concat(), all[1..]);
    assert_eq!((read(last + 1, 10), read(1, 0), read(1, 1)), (Vec::new(), Vec::new(), all[..1].to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_restarts_only_the_machine_and_loses_nothing() {
    let wires = Wires::default();
    let agents = [Agent::new(&wires)];
    let handles = mesh(&agents).await;
    let before = propose(&handles[0], "before").await;
    let mut follower = handles[0].follow(1);
    handles[0].panic_for_test();
    let after = propose(&handles[0], "after").await;
    assert!(after.index > before.index);
    for index in 1..=after.index {
        assert_eq!(next(&mut follower).await.index, index);
    }
    assert_eq!(handles[0].status().error, None);
    agents[0].stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_stopped_under_load_starts_again() {
    let wires = Wires::default();
    let agents: Vec<Agent> = (0..3).map(|_| Agent::new(&wires)).collect();
    let handles = mesh(&agents).await;
    let mut follower = handles[2].clone();
    for round in 0..10 {
        let before = propose(&handles[0], "before").await;
        read_all(&follower, before.index).await;
        // Frames pile up, with entries and with commit indexes, and the stop behind them: one turn takes all.
        let release = follower.hold_for_test();
        let mut last = before.index;
        for _ in 0..20 {
            last = propose(&handles[0], "meanwhile").await.index;
        }
        let stopping = tokio::spawn({
            let follower = follower.clone();
            async move { follower.shutdown().await }
        });
        tokio::task::yield_now().await;
        // Every other stop comes with the load going on.
        let load = propose(&handles[0], "at the same time");
        if round % 2 == 0 {
            drop(release);
            last = load.await.index;
        } else {
            last = last.max(load.await.index);
            drop(release);
        }
        stopping.await.unwrap();
        agents[2].stop().await;
        follower = agents[2].start();
        assert_eq!(follower.status().error, None, "round {round}");
        wait_for(&follower, |status| status.role == Role::Follower && status.leader.is_some()).await;
        read_all(&follower, last).await;
    }
    for agent in &agents {
        agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_vote_file_is_an_older_copy_takes_part_no_longer() {
    let wires = Wires::default();
    let agents: Vec<Agent> = (0..3).map(|_| Agent::new(&wires)).collect();
    let handles = mesh(&agents).await;
    agents[2].stop().await;
    let file = agents[2].dir.path().join("raft.redb");
    let older = std::fs::read(&file).unwrap();
    let back = agents[2].start();
    let last = propose(&handles[0], "acknowledged by all").await.index;
    read_all(&back, last).await;
    wait_for(&handles[0], |status| status.members.iter().all(|member| member.matched >= last)).await;
    agents[2].stop().await;
    std::fs::write(&file, older).unwrap();
    for _ in 0..2 {
        let back = agents[2].start();
        wait_for(&back, |status| status.lost.is_some()).await;
        let status = back.status();
        assert!(status.lost.unwrap().contains("older copy"));
        assert_eq!((status.mesh, status.role), (None, Role::None));
        assert!(matches!(back.campaign().await, Err(Error::NoMesh)));
        assert!(matches!(back.found(settings(), json!({}), Vec::new()).await, Err(Error::Refused(_))));
        agents[2].stop().await;
    }
    propose(&handles[1], "the others go on").await;
    for agent in &agents {
        agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_of_another_identity_are_not_cast() {
    let wires = Wires::default();
    let mut agent = Agent::new(&wires);
    mesh(std::slice::from_ref(&agent)).await;
    agent.stop().await;
    agent.keypair = Keypair::generate_ed25519();
    let transport = Arc::new(Wire { wires: wires.clone(), own: agent.peer });
    let config = RaftConfig { dir: agent.dir.path().into(), keypair: agent.keypair.clone(), transport, types: None };
    let refused = RaftHandle::start(config).err().unwrap();
    assert!(refused.to_string().contains("identity.key"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_strangers_forward_is_not_appended() {
    let wires = Wires::default();
    let agents = [Agent::new(&wires), Agent::new(&wires)];
    let leader = agents[0].start();
    let mesh = leader.found(settings(), json!({}), Vec::new()).await.unwrap();
    let stranger = &agents[1];
    let id = crate::raft::entry::ulid();
    let draft = crate::raft::entry::Draft { mesh: &mesh, id: &id, kind: "note", seen: 0, body: b"{}" };
    let entry = crate::raft::entry::make(&stranger.keypair, &stranger.peer, &draft).unwrap();
    let refused = leader.accept_forwarded(stranger.peer, entry.clone(), PATIENCE).await;
    assert!(matches!(refused, Err(Error::NotPermitted(_))));
    // Nor under a member's name.
    assert!(leader.accept_forwarded(agents[0].peer, entry, PATIENCE).await.is_err());
    leader.receive(stranger.peer, Bytes::from_static(b"nonsense"));
    leader.receive(stranger.peer, crate::raft::frames::encode(&mesh, 1, 1, &[], &[]));
    propose(&leader, "goes on").await;
    assert_eq!(leader.refused_frames(), 2);
    agents[0].stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_outside_the_list_are_refused_here_and_by_the_leader() {
    let wires = Wires::default();
    let mut agents = [Agent::new(&wires), Agent::new(&wires)];
    // The second member's own core would let anything pass.
    agents[0].types = Some(Arc::new(BTreeSet::from(["note".to_owned()])));
    let handles = mesh(&agents).await;
    let last = handles[0].status().last;
    for handle in &handles {
        let refused = handle.propose("news", None, b"{}", PATIENCE).await;
        assert!(matches!(&refused, Err(Error::Invalid(why)) if why.contains("news")), "{refused:?}");
        // The types that the log writes itself are never proposed, whatever a list says.
        assert!(matches!(handle.propose("join", None, b"{}", PATIENCE).await, Err(Error::NotPermitted(_))));
    }
    let taken = propose(&handles[1], "a listed type").await;
    assert_eq!(taken.index, last + 1, "nothing of what was refused is in the log");
    for agent in &agents {
        agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_up_nobody_and_misses_nothing() {
    let wires = Wires::default();
    let agents = [Agent::new(&wires)];
    let handles = mesh(&agents).await;
    let mut slow = handles[0].follow(1);
    let mut last = 0;
    for round in 0..20 {
        let proposals =
            (0..100).map(|number| propose(&handles[0], if number == round { "x" } else { "y" }).boxed_index());
        last = futures::future::join_all(proposals).await.into_iter().max().unwrap();
    }
    for index in 1..=last {
        assert_eq!(next(&mut slow).await.index, index);
    }
    agents[0].stop().await;
}

trait BoxedIndex: Future<Output = Proposed> + Sized {
    async fn boxed_index(self) -> u64 {
        self.await.index
    }
}

impl<F: Future<Output = Proposed>> BoxedIndex for F {}
