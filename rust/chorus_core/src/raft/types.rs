//! What crosses the border of the replicated log: its configuration, status, events and committed
//! entries. How they come about is the business of the machine and its driver.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use libp2p::{PeerId, identity::Keypair};
use serde::Serialize;
use serde_json::Value;

use crate::{Error, Result};

/// An entry as signed and sent, in bytes.
pub const MAX_ENTRY_BYTES: usize = 256 * 1024;

/// How the log reaches the other members; the network implements it.
pub trait RaftTransport: Send + Sync {
    /// Sends a frame without blocking; it may get lost, and frames to one peer keep their order.
    fn send(&self, to: PeerId, frame: Bytes);

    /// Asks `leader` to append `entry` through its [`accept_forwarded`]; answers the committed index.
    ///
    /// [`accept_forwarded`]: super::RaftHandle::accept_forwarded
    fn forward(&self, leader: PeerId, entry: Bytes, timeout: Duration) -> BoxFuture<'static, Result<u64>>;

    /// Hears that a frame of `from` was refused; `malformed` when no member would ever send such a frame.
    fn refused(&self, from: PeerId, malformed: bool) {
        let _ = (from, malformed);
    }
}

/// How to start the log.
#[derive(Clone)]
pub struct RaftConfig {
    /// Folder that holds `raft.redb`.
    pub dir: PathBuf,
    /// The agent's key; entries are signed with it.
    pub keypair: Keypair,
    /// The way to the other members.
    pub transport: Arc<dyn RaftTransport>,
    /// The types of entries that may be proposed; any when missing.
    pub types: Option<Arc<BTreeSet<String>>>,
}

/// A committed entry, delivered in index order with none missing.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Its place in the log; the founding entry is 1.
    pub index: u64,
    /// The term whose leader appended it.
    pub term: u64,
    /// The leader's clock, milliseconds since the epoch; 0 for an empty entry.
    pub stamp: u64,
    /// The entry's type; empty for an empty entry, `invalid` for one that fails a check.
    pub kind: String,
    /// The author's id for it; empty when there is none.
    pub id: String,
    /// The peer id that signed it; empty when there is none.
    pub author: String,
    /// The index that the author had seen when writing it.
    pub seen: u64,
    /// JSON of the body; empty when there is none.
    pub body: Bytes,
    /// Why an `invalid` entry is invalid.
    pub reason: Option<String>,
}

/// The answer to a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// Where the entry was committed.
    pub index: u64,
    /// Its id, given or made.
    pub id: String,
}

/// The answer to an admission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The new member's raft id, which is its join entry's index.
    pub raft_id: u64,
    /// Index of the join entry.
    pub index: u64,
    /// What the joiner needs for [`adopt`](super::RaftHandle::adopt).
    pub founding: Bytes,
}

/// What a member is in the present term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// In no mesh.
    #[default]
    None,
    /// Follows without a vote.
    Learner,
    /// Follows and votes.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

impl Role {
    /// The name used in the hub's protocol.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Learner => "learner",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        }
    }
}

/// A listed member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemberStatus {
    /// Its number in the log's frames.
    pub raft_id: u64,
    /// Its peer id.
    pub peer: String,
    /// Whether it votes.
    pub voter: bool,
    /// The last index known to be on its disk (only the leader knows; else 0).
    #[serde(rename = "match")]
    pub matched: u64,
    /// Whether it was heard within an election timeout (only the leader knows).
    pub recent: bool,
}

/// A picture of the log now.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct RaftStatus {
    /// The mesh, when there is one.
    pub mesh: Option<String>,
    /// This agent's raft id; 0 without a mesh.
    pub raft_id: u64,
    /// The present term.
    pub term: u64,
    /// What this agent is in it.
    pub role: Role,
    /// The leader's peer id, when one was heard lately.
    pub leader: Option<String>,
    /// The last committed index.
    pub commit: u64,
    /// The last index up to which followers of the log are served.
    pub applied: u64,
    /// The last index in the log.
    pub last: u64,
    /// The term of the entry there.
    pub last_term: u64,
    /// The listed members.
    pub members: Vec<MemberStatus>,
    /// Members that this agent has heard of and that its log does not list yet.
    #[serde(skip)]
    pub introduced: Vec<PeerId>,
    /// The mesh's settings from the founding entry.
    pub settings: Value,
    /// The founding entry's body.
    pub founding: Option<Value>,
    /// Why this agent's identity is to be replaced by a new one, when it is: it takes part in nothing until then.
    pub lost: Option<String>,
    /// Why this agent is a member no more: its own log says that it was removed. It takes part in nothing until its vote
    /// file is moved away.
    pub removed: Option<String>,
    /// The disk or machine error that keeps the log from working, when there is one.
    pub error: Option<String>,
}

/// What happened in the consensus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RaftEvent {
    /// A leader is known for a term.
    Leader {
        /// Its term.
        term: u64,
        /// Its peer id; empty while the member is not listed here yet.
        peer: String,
    },
    /// This agent stands for election.
    Candidate {
        /// The term it stands for.
        term: u64,
    },
    /// This agent voted.
    Voted {
        /// The term.
        term: u64,
        /// The candidate's peer id.
        #[serde(rename = "for")]
        candidate: String,
    },
    /// This agent leads no longer.
    StepDown {
        /// The term it led.
        term: u64,
        /// `quorum_loss`, `transfer`, `higher_term`, `vote_taken` or `restart`.
        reason: String,
    },
    /// This agent's role changed.
    Role {
        /// The new role.
        role: Role,
    },
}

/// Election timings of a mesh, out of its founding entry's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// How often a leader is heard.
    pub heartbeat: Duration,
    /// Silence after which members stand for election.
    pub election_timeout: Duration,
}

/// Election timings below this make no sense on a real network or disk.
const MIN_ELECTION_TIMEOUT_MS: u64 = 20;
/// An hour without a leader is never wanted.
const MAX_ELECTION_TIMEOUT_MS: u64 = 3_600_000;
/// Defaults of a mesh whose founder says nothing.
const DEFAULT_HEARTBEAT_MS: u64 = 5_000;
const DEFAULT_ELECTION_TIMEOUT_MS: u64 = 15_000;

impl Timings {
    /// Reads `heartbeat_ms` and `election_timeout_ms`.
    ///
    /// # Errors
    /// `invalid` when one is out of bounds or the heartbeat is not below half the timeout.
    pub fn from_settings(settings: &Value) -> Result<Self> {
        let read = |name: &str, default: u64| match settings.get(name) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => {
                value.as_u64().ok_or_else(|| Error::Invalid(format!("settings.{name}: give whole milliseconds")))
            }
        };
        let timeout = read("election_timeout_ms", DEFAULT_ELECTION_TIMEOUT_MS)?;
        let heartbeat = read("heartbeat_ms", DEFAULT_HEARTBEAT_MS.min(timeout / 3))?;
        if !(MIN_ELECTION_TIMEOUT_MS..=MAX_ELECTION_TIMEOUT_MS).contains(&timeout) {
            return Err(Error::Invalid(format!(
                "settings.election_timeout_ms: {timeout} is not in {MIN_ELECTION_TIMEOUT_MS}..{MAX_ELECTION_TIMEOUT_MS}"
            )));
        }
        if heartbeat == 0 || heartbeat * 2 > timeout {
            return Err(Error::Invalid(format!(
                "settings.heartbeat_ms: {heartbeat} is not in 1..{} (half the election timeout)",
                timeout / 2
            )));
        }
        Ok(Self { heartbeat: Duration::from_millis(heartbeat), election_timeout: Duration::from_millis(timeout) })
    }
}
