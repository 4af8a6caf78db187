//! Frames that members would never send: refused, counted, and without effect.

use std::time::Duration;

use libp2p::PeerId;
use raft::eraftpb::{Entry, Message, MessageType};

use super::sim::Sim;
use crate::{
    Error,
    raft::{frames, machine::Machine},
};

struct Stage {
    sim: Sim,
    leader: usize,
    follower: usize,
}

impl Stage {
    fn new() -> Self {
        let mut sim = Sim::new(5, 3);
        sim.run_until(Duration::from_secs(1), "the founder leads", |sim| sim.leader().is_some());
        for node in 1..3 {
            sim.run_until(Duration::from_secs(10), "a member votes", |sim| {
                if sim.nodes[node].machine().is_none() {
                    sim.add(node);
                } else {
                    sim.vote(node, true);
                }
                sim.run(Duration::from_millis(20));
                sim.nodes[node].machine().is_some_and(Machine::is_voter)
            });
        }
        let leader = sim.leader().unwrap();
        Self { sim, leader, follower: (leader + 1) % 3 }
    }

    fn machine(&mut self, node: usize) -> &mut Machine {
        self.sim.nodes[node].machine_mut().unwrap()
    }

    /// Hands `node` a frame as from the peer of `from`; says whether it was taken, and proves that
    /// refusal left no trace.
    fn taken(&mut self, node: usize, peer: PeerId, header_from: u64, message: &Message) -> bool {
        let to = self.machine(node).identity.raft_id;
        let frame = frames::encode(&self.sim.mesh, header_from, to, &[], std::slice::from_ref(message));
        let now = self.sim.clock();
        let machine = self.machine(node);
        let picture = |machine: &Machine| {
            let raft = &machine.node.raft;
            (raft.hard_state(), raft.state, raft.raft_log.last_index(), machine.store.last(), raft.msgs.len())
        };
        let before = picture(machine);
        match machine.receive(peer, frame, now) {
            Ok(()) => true,
            Err(error) => {
                assert!(!matches!(error, Error::Internal(_)), "{error}");
                assert_eq!(before, picture(machine));
                false
            }
        }
    }

    fn message(&mut self, kind: MessageType, from: usize, to: usize) -> Message {
        let (from, to) = (self.machine(from).identity.raft_id, self.machine(to).identity.raft_id);
        let raft = &self.machine(self.leader).node.raft;
        let last = raft.raft_log.last_index();
        let term = raft.term;
        let mut message = Message { from, to, term, index: last, log_term: term, ..Message::default() };
        message.set_msg_type(kind);
        message
    }
}

#[test]
fn messages_that_members_do_not_send_are_refused() {
    let mut stage = Stage::new();
    let (leader, follower) = (stage.leader, stage.follower);
    let peer = stage.sim.nodes[leader].peer;
    let id = stage.machine(leader).identity.raft_id;
    for kind in [
        MessageType::MsgHup,
        MessageType::MsgBeat,
        MessageType::MsgPropose,
        MessageType::MsgSnapshot,
        MessageType::MsgUnreachable,
        MessageType::MsgSnapStatus,
        MessageType::MsgCheckQuorum,
        MessageType::MsgTransferLeader,
        MessageType::MsgReadIndex,
        MessageType::MsgReadIndexResp,
    ] {
        let message = stage.message(kind, leader, follower);
        assert!(!stage.taken(follower, peer, id, &message), "{kind:?}");
    }
    let mut unknown = stage.message(MessageType::MsgHeartbeat, leader, follower);
    unknown.msg_type = 99;
    assert!(!stage.taken(follower, peer, id, &unknown));
    let heartbeat = stage.message(MessageType::MsgHeartbeat, leader, follower);
    assert!(stage.taken(follower, peer, id, &heartbeat));
}

#[test]
fn a_frame_counts_only_from_the_peer_it_names() {
    let mut stage = Stage::new();
    let (leader, follower) = (stage.leader, stage.follower);
    let other = 3 - leader - follower;
    let (leader_id, other_id) = (stage.machine(leader).identity.raft_id, stage.machine(other).identity.raft_id);
    let (leader_peer, other_peer) = (stage.sim.nodes[leader].peer, stage.sim.nodes[other].peer);
    let heartbeat = stage.message(MessageType::MsgHeartbeat, leader, follower);
    assert!(!stage.taken(follower, other_peer, leader_id, &heartbeat));
    assert!(!stage.taken(follower, other_peer, other_id, &heartbeat));
    assert!(!stage.taken(follower, PeerId::random(), leader_id, &heartbeat));
    assert!(!stage.taken(follower, leader_peer, 999, &heartbeat));
    let mut elsewhere = heartbeat.clone();
    elsewhere.to = other_id;
    assert!(!stage.taken(follower, leader_peer, leader_id, &elsewhere));
    stage.sim.mesh = "0".repeat(26);
    assert!(!stage.taken(follower, leader_peer, leader_id, &heartbeat));
}

#[test]
fn wild_numbers_are_refused() {
    let mut stage = Stage::new();
    let (leader, follower) = (stage.leader, stage.follower);
    let peer = stage.sim.nodes[leader].peer;
    let id = stage.machine(leader).identity.raft_id;
    let mut refused = |name: &str, kind: MessageType, change: &dyn Fn(&mut Message)| {
        let mut message = stage.message(kind, leader, follower);
        change(&mut message);
        assert!(!stage.taken(follower, peer, id, &message), "{name}");
    };
    use MessageType::{MsgAppend, MsgAppendResponse, MsgHeartbeat, MsgRequestVote};
    refused("wild commit", MsgHeartbeat, &|m| m.commit = 1_000_000);
    refused("no term", MsgHeartbeat, &|m| m.term = 0);
    refused("wild term", MsgHeartbeat, &|m| m.term = u64::MAX);
    refused("long jump", MsgRequestVote, &|m| m.term += 1 << 30);
    refused("index 0", MsgAppend, &|m| m.index = 0);
    refused("log term 0", MsgAppend, &|m| (m.index, m.log_term) = (1_000_000, 0));
    refused("log term ahead", MsgAppend, &|m| m.log_term = m.term + 1);
    refused("a gap", MsgAppend, &|m| {
        m.entries = vec![Entry { term: m.term, index: m.index + 2, ..Entry::default() }];
    });
    refused("an old kind of change", MsgAppend, &|m| {
        m.entries = vec![Entry { entry_type: 1, term: m.term, index: m.index + 1, ..Entry::default() }];
    });
    refused("too large", MsgAppend, &|m| {
        m.entries = vec![Entry { term: m.term, index: m.index + 1, data: vec![0; 300_000], ..Entry::default() }];
    });
    refused("entries in a heartbeat", MsgHeartbeat, &|m| m.entries = vec![Entry::default()]);
    refused("a priority", MsgRequestVote, &|m| m.priority = 5);
    refused("a snapshot wished for", MsgAppendResponse, &|m| m.request_snapshot = 1);
    refused("acknowledges nothing that is", MsgAppendResponse, &|m| m.index += 1_000);
    refused("wild hint", MsgAppendResponse, &|m| (m.reject, m.reject_hint) = (true, 0));
    refused("long context", MsgHeartbeat, &|m| m.context = vec![0; 1000]);
}

#[test]
fn only_the_leader_hands_over() {
    let mut stage = Stage::new();
    let (leader, follower) = (stage.leader, stage.follower);
    let other = 3 - leader - follower;
    let (peer, id) = (stage.sim.nodes[other].peer, stage.machine(other).identity.raft_id);
    let message = stage.message(MessageType::MsgTimeoutNow, other, follower);
    assert!(!stage.taken(follower, peer, id, &message));
}
