//! The consensus machine of one member: raft-rs with its store, fed commands, frames and time, and
//! handling what it makes ready: persist before acknowledging, then send, then apply. Threads and
//! clocks are the driver's.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use libp2p::{PeerId, identity::Keypair};
use prost::Message as _;
use raft::{
    Config, RawNode, Ready, StateRole,
    eraftpb::{Entry, EntryType, HardState, Message, MessageType},
};
use serde_json::Value;

#[cfg(test)]
use super::planted::Bug;
use super::{
    changes::Pending,
    election::{Election, Sight},
    entry::Key,
    follow::founding_body,
    frames::{self, FRAME_TARGET_BYTES},
    handle::Reply,
    members::Members,
    proposals::{Proposals, Reads},
    shared::Shared,
    storage::{Batch, Identity, Store},
    types::{RaftEvent, RaftTransport, Role, Timings},
};
use crate::{Error, Result};

/// An append message carries this much; larger entries go alone.
const MAX_APPEND_BYTES: u64 = 256 * 1024;
/// Append messages on their way to one member; with their size this bounds what lags in memory.
const MAX_INFLIGHT: usize = 128;
/// What a leader takes without a majority answering.
const MAX_UNCOMMITTED_BYTES: u64 = 16 * 1024 * 1024;
/// Committed entries handled at once.
const MAX_READY_BYTES: u64 = 1024 * 1024;
/// Ticks in an election timeout: how finely silence is measured.
const TICKS_PER_TIMEOUT: u32 = 60;
const TICK_MIN: Duration = Duration::from_millis(2);
/// raft-rs's own random stand, put where it never comes: this agent stands by its score.
const NEVER_TICKS: usize = 1 << 40;
/// A commit index reaches the disk at least this often, with entries or without.
const COMMIT_SAVED_AFTER: Duration = Duration::from_secs(1);

/// Time as passed in: since any fixed moment, and on the wall.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub at: Duration,
    pub wall_ms: u64,
}

/// What a machine is made of.
#[derive(Clone)]
pub(super) struct Parts {
    pub shared: Arc<Shared>,
    pub transport: Arc<dyn RaftTransport>,
    pub keypair: Keypair,
    #[cfg(test)]
    pub bug: Option<Bug>,
}

/// A leadership transfer under way.
pub(super) struct Transfer {
    pub to: u64,
    pub asked: Duration,
    /// The other answered since, and was told to stand.
    pub begun: bool,
    pub deadline: Duration,
    pub reply: Reply<()>,
}

pub(super) struct Machine {
    pub(super) node: RawNode<Store>,
    pub(super) store: Store,
    pub(super) parts: Parts,
    pub(super) peer: PeerId,
    pub(super) identity: Identity,
    pub(super) founding: Value,
    pub(super) timings: Timings,
    pub(super) members: Members,
    pub(super) heard: HashMap<u64, Duration>,
    pub(super) election: Election,
    pub(super) proposals: Proposals,
    pub(super) reads: Reads,
    pub(super) read_at: Duration,
    pub(super) change: Option<Pending>,
    pub(super) transfer: Option<Transfer>,
    pub(super) applied: u64,
    pub(super) published: Option<Duration>,
    /// Role, term and leader as last published.
    pub(super) shown: (Role, u64, Option<u64>),
    tick: Duration,
    next_tick: Duration,
    pub(super) batch: Vec<(Key, Bytes, Reply<u64>)>,
    role: Role,
    leader_seen: (u64, u64),
    /// The term whose `leader` entry this agent proposed.
    pub(super) led_term: u64,
    pub(super) last_stamp: u64,
    unsaved_commit: bool,
    saved_at: Duration,
    pub(super) lost_vote: bool,
    /// Whether entries of a leader have followed on this log since the start. From then on nobody's word ends this
    /// member: a log can be replaced by an older copy only while nothing runs.
    followed: bool,
    /// Why this member must not take part any more.
    pub(super) lost: Option<String>,
    /// Why this member is one no more: its log says so, and the store knows. Nothing is done any more.
    pub(super) removed: Option<String>,
}

impl Machine {
    /// Resumes from what the store holds.
    pub(super) fn open(parts: Parts, score: f64, seed: u64, now: Now) -> Result<Self> {
        let store = parts.shared.store.clone();
        let identity = store.identity().ok_or(Error::NoMesh)?;
        let founding = founding_body(&identity.founding)?;
        let timings = Timings::from_settings(founding.get("settings").unwrap_or(&Value::Null))?;
        let tick = (timings.election_timeout / TICKS_PER_TIMEOUT).max(TICK_MIN).min(timings.heartbeat);
        let ticks = |span: Duration| (span.as_nanos().div_ceil(tick.as_nanos().max(1))) as usize;
        let applied = store.applied();
        let config = Config {
            id: identity.raft_id,
            election_tick: ticks(timings.election_timeout),
            heartbeat_tick: (timings.heartbeat.as_nanos() / tick.as_nanos().max(1)).max(1) as usize,
            min_election_tick: NEVER_TICKS,
            max_election_tick: NEVER_TICKS + 1,
            applied,
            max_size_per_msg: MAX_APPEND_BYTES,
            max_inflight_msgs: MAX_INFLIGHT,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
            max_committed_size_per_ready: MAX_READY_BYTES,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, store.clone(), &logger).map_err(failed)?;
        parts.shared.applied.advance(applied);
        Ok(Self {
            node,
            members: Members::load(&store)?,
            store,
            peer: parts.keypair.public().to_peer_id(),
            parts,
            identity,
            founding,
            timings,
            heard: HashMap::new(),
            election: Election::new(timings.election_timeout, score, seed),
            proposals: Proposals::default(),
            reads: Reads::default(),
            read_at: now.at,
            change: None,
            transfer: None,
            applied,
            published: None,
            shown: (Role::None, 0, None),
            tick,
            next_tick: now.at + tick,
            batch: Vec::new(),
            role: Role::None,
            leader_seen: (0, 0),
            led_term: 0,
            last_stamp: 0,
            unsaved_commit: false,
            saved_at: now.at,
            lost_vote: false,
            followed: false,
            lost: None,
            removed: None,
        })
    }

    pub(super) fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    pub(super) fn is_voter(&self) -> bool {
        self.node.raft.promotable()
    }

    /// The leader's raft id, when it was heard within the election timeout.
    pub(super) fn leader(&self) -> Option<u64> {
        let raft = &self.node.raft;
        let fresh = self.is_leader() || raft.election_elapsed <= raft.election_timeout();
        Some(raft.leader_id).filter(|&id| id != 0 && fresh)
    }

    pub(super) fn peer_of(&self, id: u64) -> Option<PeerId> {
        self.members.peer_of(id, self.applied)
    }

    pub(super) fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Follower if self.is_voter() => Role::Follower,
            StateRole::Follower => Role::Learner,
        }
    }

    /// Takes a frame that `from` sent; answers why it is refused.
    pub(super) fn receive(&mut self, from: PeerId, frame: Bytes, now: Now) -> Result<()> {
        let frame = frames::decode(frame)?;
        if frame.mesh != self.identity.mesh || frame.to != self.identity.raft_id {
            return Err(Error::Refused("frame: for another mesh or member".into()));
        }
        if self.peer_of(frame.from).is_none() && !frame.introductions.is_empty() {
            let learned = self.members.learn(&frame.introductions, &self.identity.mesh, self.applied);
            if !learned.is_empty() {
                self.store.write(&Batch { hints: &learned, ..Batch::default() })?;
            }
        }
        if self.peer_of(frame.from) != Some(from) {
            return Err(Error::Refused(format!("frame: {from} is not listed as member {}", frame.from)));
        }
        for message in frame.messages {
            let raft = &self.node.raft;
            let known = frames::Known {
                raft_id: self.identity.raft_id,
                term: raft.term,
                leader_id: raft.leader_id,
                committed: raft.raft_log.committed,
                last: raft.raft_log.last_index(),
                term_of: &|index| raft.raft_log.term(index).ok(),
            };
            if !self.followed
                && let Some(why) = frames::proof_of_loss(&message, frame.from, &known)
            {
                self.lost = Some(why);
                return Ok(());
            }
            frames::check(&message, frame.from, &known)?;
            self.heard.insert(frame.from, now.at);
            self.followed |= message.msg_type == MessageType::MsgAppend as i32
                && raft.raft_log.match_term(message.index, message.log_term);
            // What raft-rs refuses (an answer of one that it does not list) has no effect.
            let _ = self.node.step(message);
        }
        Ok(())
    }

    /// One turn after commands were taken: time, elections, reads, then everything that is ready.
    pub(super) fn turn(&mut self, now: Now) -> Result<()> {
        self.flush(now);
        if now.at >= self.next_tick {
            self.node.tick();
            // Ticks missed while the disk was slow are not made up: the others were not silent.
            self.next_tick = (self.next_tick + self.tick).max(now.at + self.tick / 2);
        }
        self.process(now)?;
        if self.election.observe(now.at, self.sight()) {
            // A refused campaign (a member change not applied yet) is tried again later.
            let _ = self.node.campaign();
            self.process(now)?;
        }
        self.lead(now);
        self.begin_reads(now);
        self.watch_transfer(now);
        self.process(now)?;
        if self.removed.is_some() {
            return Ok(());
        }
        self.note_role();
        self.save_commit(now)?;
        self.publish(now);
        Ok(())
    }

    /// When [`turn`](Self::turn) is due without any command.
    pub(super) fn next_wake(&self) -> Duration {
        let transfer = self.transfer.as_ref().map(|transfer| transfer.deadline);
        [self.election.next(), transfer].into_iter().flatten().fold(self.next_tick, Duration::min)
    }

    fn sight(&self) -> Sight {
        let raft = &self.node.raft;
        if raft.state == StateRole::Leader || !raft.promotable() {
            return Sight::Settled;
        }
        let voters = raft.prs().conf().voters();
        if voters.ids().len() == 1 {
            return Sight::SoleVoter;
        }
        // One tick more than the others' lease, so that their pre-votes are not refused.
        if raft.election_elapsed > raft.election_timeout() {
            Sight::Silent
        } else if raft.leader_id == 0 {
            Sight::Leaderless
        } else {
            Sight::Settled
        }
    }

    /// Handles everything that raft-rs has ready.
    fn process(&mut self, now: Now) -> Result<()> {
        while self.removed.is_none() && self.node.has_ready() {
            let mut ready = self.node.ready();
            let early = ready.take_messages();
            // A leader sends entries while its own disk still writes them. Its term must be on disk
            // first, though: a sole voter leads before its vote was persisted.
            let stored = self.store.hard();
            let new_term = ready.hs().is_some_and(|hs| (hs.term, hs.vote) != (stored.term, stored.vote));
            let mut late = Vec::new();
            if new_term {
                late = early;
            } else {
                self.send(early);
            }
            self.persist(&ready, &stored, now)?;
            #[cfg(test)]
            if self.has(Bug::BeforeCommit) {
                for entry in ready.entries().iter().filter(|entry| entry.entry_type != EntryType::EntryNormal as i32) {
                    let _ = self.node.apply_conf_change(&super::changes::decode(entry)?);
                }
            }
            late.extend(ready.take_persisted_messages());
            self.send(late);
            for read in ready.take_read_states() {
                self.reads.finish(&read.request_ctx, read.index);
            }
            self.note_role();
            self.apply(&ready.take_committed_entries(), now)?;
            if self.removed.is_some() {
                return Ok(());
            }
            let mut light = self.node.advance_append(ready);
            self.send(light.take_messages());
            self.apply(&light.take_committed_entries(), now)?;
            self.node.advance_apply();
            self.unsaved_commit |= light.commit_index().is_some();
            if std::mem::take(&mut self.lost_vote) {
                self.step_aside();
            }
            self.lead(now);
        }
        Ok(())
    }

    fn persist(&mut self, ready: &Ready, stored: &HardState, now: Now) -> Result<()> {
        let new_term = ready.hs().is_some_and(|hard| (hard.term, hard.vote) != (stored.term, stored.vote));
        if ready.must_sync() {
            // The commit index alone may lag on disk: it is learnt again. With a member change comes the commit of the
            // one before: a member that forgot it would count votes by a configuration two changes old.
            let change = ready.entries().iter().any(|entry| entry.entry_type != EntryType::EntryNormal as i32);
            let save = new_term || change || now.at >= self.saved_at + COMMIT_SAVED_AFTER;
            self.store.write(&Batch {
                hard: save.then(|| self.node.raft.hard_state()),
                entries: ready.entries(),
                applied: save.then_some(self.applied),
                ..Batch::default()
            })?;
            self.unsaved_commit = !save;
            self.saved_at = if save { now.at } else { self.saved_at };
        } else if ready.hs().is_some() {
            self.unsaved_commit = true;
        }
        if let Some(hard) = ready.hs()
            && hard.vote != 0
            && new_term
        {
            if hard.vote != self.identity.raft_id {
                self.election.voted(now.at);
            } else {
                self.parts.shared.emit(RaftEvent::Candidate { term: hard.term });
            }
            let candidate = self.peer_of(hard.vote).map_or_else(String::new, |peer| peer.to_string());
            self.parts.shared.emit(RaftEvent::Voted { term: hard.term, candidate });
        }
        Ok(())
    }

    /// The last commit index is kept although no entry follows, so that a restart delivers at once.
    fn save_commit(&mut self, now: Now) -> Result<()> {
        if self.unsaved_commit && now.at >= self.saved_at + COMMIT_SAVED_AFTER {
            self.save()?;
            self.saved_at = now.at;
        }
        Ok(())
    }

    pub(super) fn save(&mut self) -> Result<()> {
        if self.unsaved_commit {
            let hard = Some(self.node.raft.hard_state());
            self.store.write(&Batch { hard, applied: Some(self.applied), ..Batch::default() })?;
            self.unsaved_commit = false;
        }
        Ok(())
    }

    /// Sends in frames per member.
    fn send(&mut self, messages: Vec<Message>) {
        let mut frames: BTreeMap<u64, Vec<Message>> = BTreeMap::new();
        for message in messages {
            frames.entry(message.to).or_default().push(message);
        }
        for (to, messages) in frames {
            let Some(peer) = self.peer_of(to) else {
                continue;
            };
            let mut part = Vec::new();
            let mut bytes = 0;
            for message in messages {
                let size = message.encoded_len();
                if !part.is_empty() && bytes + size > FRAME_TARGET_BYTES {
                    self.send_frame(to, peer, &std::mem::take(&mut part));
                    bytes = 0;
                }
                bytes += size;
                part.push(message);
            }
            self.send_frame(to, peer, &part);
        }
    }

    fn send_frame(&mut self, to: u64, peer: PeerId, messages: &[Message]) {
        let stranger = messages.iter().any(|message| {
            let asks = [MessageType::MsgRequestVote as i32, MessageType::MsgRequestPreVote as i32];
            asks.contains(&message.msg_type)
        });
        let introductions = if stranger || self.is_leader() {
            let matched = self.node.raft.prs().get(to).map_or(0, |progress| progress.matched);
            let matched = if self.is_leader() { matched } else { 0 };
            self.members.introductions(self.identity.raft_id, matched, &self.store)
        } else {
            Vec::new()
        };
        let frame = frames::encode(&self.identity.mesh, self.identity.raft_id, to, &introductions, messages);
        self.parts.transport.send(peer, frame);
    }

    fn apply(&mut self, entries: &[Entry], now: Now) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        for entry in entries {
            if entry.entry_type != EntryType::EntryNormal as i32 {
                self.apply_change(entry)?;
            }
            self.applied = entry.index;
            self.remember(entry);
            if self.removed.is_some() {
                break;
            }
        }
        self.parts.shared.applied.advance(self.applied);
        for entry in entries {
            self.proposals.committed(entry.index, entry.term);
            self.settle_change(entry, now);
        }
        Ok(())
    }

    /// Tells what changed in who leads, and ends what only a leader can finish.
    fn note_role(&mut self) {
        let raft = &self.node.raft;
        let (term, leader) = (raft.term, raft.leader_id);
        let role = self.role();
        let shared = Arc::clone(&self.parts.shared);
        if role != self.role {
            let before = std::mem::replace(&mut self.role, role);
            shared.emit(RaftEvent::Role { role });
            if before == Role::Leader {
                let led = self.leader_seen.0;
                let reason = match () {
                    () if !self.is_voter() => "vote_taken",
                    () if self.transfer.is_some() => "transfer",
                    () if led == term => "quorum_loss",
                    () => "higher_term",
                };
                shared.emit(RaftEvent::StepDown { term: led, reason: reason.into() });
                tracing::info!(term = led, reason, "this agent leads the mesh no longer");
                self.proposals.give_up();
                self.reads.give_up();
                if let Some(change) = self.change.take() {
                    change.waiting.fail(&Error::NotLeader);
                }
            }
        }
        if leader != 0 && self.leader_seen != (term, leader) {
            self.leader_seen = (term, leader);
            let peer = self.peer_of(leader).map_or_else(String::new, |peer| peer.to_string());
            tracing::info!(term, leader = %peer, "the mesh has a leader");
            shared.emit(RaftEvent::Leader { term, peer });
        }
    }
}

pub(super) fn failed(error: raft::Error) -> Error {
    Error::Internal(format!("consensus: {error}"))
}
