//! What callers ask of the machine beside proposals: proof of leadership, hand-over, candidacy; and
//! the picture it shows of itself.

use std::time::Duration;

use libp2p::PeerId;
use raft::StateRole;
use serde_json::Value;

use super::{
    handle::Reply,
    machine::{Machine, Now, Transfer},
    proposals::answer,
    types::{MemberStatus, RaftStatus, Role},
};
use crate::{Error, Result};

/// A hand-over that takes longer is given up: proposals wait meanwhile.
const TRANSFER_LIMIT: Duration = Duration::from_secs(1);
/// A read round that is not answered by then has company; the next may be faster.
const READ_ROUND_AGE: Duration = Duration::from_millis(20);
/// Indexes alone are shown at most this often.
const STATUS_PAUSE: Duration = Duration::from_millis(50);

impl Machine {
    pub(super) fn read_index(&mut self, reply: Reply<u64>) {
        if self.is_leader() {
            self.reads.waiting.push(reply);
        } else {
            answer(reply, Err(Error::NotLeader));
        }
    }

    /// Begins one majority round for all that wait. raft-rs drops what is asked before the leader's
    /// own first entry is committed, so that it is not asked before.
    pub(super) fn begin_reads(&mut self, now: Now) {
        self.reads.waiting.retain(|reply| !reply.is_closed());
        let busy = self.reads.in_flight() && now.at < self.read_at + READ_ROUND_AGE;
        if self.reads.waiting.is_empty() || busy || !self.is_leader() {
            return;
        }
        if self.node.raft.commit_to_current_term() {
            let context = self.reads.begin();
            self.read_at = now.at;
            self.node.read_index(context);
        }
    }

    pub(super) fn hand_over(&mut self, to: PeerId, reply: Reply<()>, now: Now) {
        if !self.is_leader() {
            return answer(reply, Err(Error::NotLeader));
        }
        match self.successor(to, now) {
            Ok(id) if id == self.identity.raft_id => answer(reply, Ok(())),
            Ok(id) => {
                // It must answer just now: a dead one would cost proposals a whole timeout.
                self.node.ping();
                let deadline = now.at + TRANSFER_LIMIT;
                self.transfer = Some(Transfer { to: id, asked: now.at, begun: false, deadline, reply });
            }
            Err(error) => answer(reply, Err(error)),
        }
    }

    fn successor(&self, to: PeerId, now: Now) -> Result<u64> {
        let id = self.members.id_of(&to).ok_or_else(|| Error::Refused(format!("{to} is no member")))?;
        if id == self.identity.raft_id {
            return Ok(id);
        }
        if self.transfer.is_some() {
            return Err(Error::Refused("leadership is being handed over already".into()));
        }
        if !self.node.raft.prs().conf().voters().contains(id) {
            return Err(Error::Refused(format!("{to} has no vote")));
        }
        self.lags(id, now).map_or(Ok(id), |reason| Err(Error::Refused(reason)))
    }

    pub(super) fn watch_transfer(&mut self, now: Now) {
        let Some(mut transfer) = self.transfer.take() else {
            return;
        };
        let leader = self.node.raft.leader_id;
        let leads = self.is_leader();
        if !leads && leader == transfer.to {
            answer(transfer.reply, Ok(()));
        } else if !leads && leader != 0 {
            answer(transfer.reply, Err(Error::Refused("another member leads now".into())));
        } else if now.at >= transfer.deadline || (leads && transfer.begun && self.node.raft.lead_transferee.is_none()) {
            if leads {
                self.node.raft.abort_leader_transfer();
            }
            answer(transfer.reply, Err(Error::Timeout("the other did not take over".into())));
        } else {
            let answered = self.heard.get(&transfer.to).is_some_and(|at| *at > transfer.asked);
            if leads && answered && !transfer.begun {
                self.flush(now);
                self.node.transfer_leader(transfer.to);
                transfer.begun = true;
            }
            self.transfer = Some(transfer);
        }
    }

    pub(super) fn stand(&mut self, reply: Reply<()>, now: Now) {
        if !self.is_voter() {
            return answer(reply, Err(Error::Refused("this agent has no vote".into())));
        }
        if self.is_leader() {
            return answer(reply, Ok(()));
        }
        self.flush(now);
        answer(reply, self.node.campaign().map_err(super::machine::failed));
    }

    /// The way to a member is open again: what was sent meanwhile counts as lost.
    pub(super) fn peer_up(&mut self, peer: PeerId) {
        if self.is_leader()
            && let Some(id) = self.members.id_of(&peer).filter(|id| *id != self.identity.raft_id)
        {
            self.node.report_unreachable(id);
            self.node.ping();
        }
    }

    /// Shows the present picture: what matters at once, mere indexes now and then.
    pub(super) fn publish(&mut self, now: Now) {
        let picture = (self.role(), self.node.raft.term, self.leader());
        if self.shown != picture || self.published.is_none_or(|at| now.at >= at + STATUS_PAUSE) {
            self.publish_now(now);
        }
    }

    pub(super) fn publish_now(&mut self, now: Now) {
        self.published = Some(now.at);
        self.shown = (self.role(), self.node.raft.term, self.leader());
        let status = self.status(now);
        self.parts.shared.status.send_if_modified(|shown| {
            let changed = *shown != status;
            if changed {
                *shown = status;
            }
            changed
        });
    }

    fn status(&self, now: Now) -> RaftStatus {
        let raft = &self.node.raft;
        let leads = raft.state == StateRole::Leader;
        let member = |(&raft_id, peer): (&u64, &PeerId)| {
            let own = raft_id == self.identity.raft_id;
            let progress = raft.prs().get(raft_id).filter(|_| leads);
            let heard = self.heard.get(&raft_id);
            MemberStatus {
                raft_id,
                peer: peer.to_string(),
                voter: raft.prs().conf().voters().contains(raft_id),
                matched: progress.map_or(0, |progress| progress.matched),
                recent: leads && (own || heard.is_some_and(|at| *at + self.timings.election_timeout >= now.at)),
            }
        };
        RaftStatus {
            mesh: Some(self.identity.mesh.clone()),
            raft_id: self.identity.raft_id,
            term: raft.term,
            role: match self.role() {
                // A member of a mesh is never without a role.
                Role::None => Role::Learner,
                role => role,
            },
            leader: self.leader().and_then(|id| self.peer_of(id)).map(|peer| peer.to_string()),
            commit: raft.raft_log.committed,
            applied: self.applied,
            last: raft.raft_log.last_index(),
            last_term: raft.raft_log.last_term(),
            members: self.members.listed().iter().map(member).collect(),
            introduced: self.members.introduced(self.applied),
            settings: self.founding.get("settings").cloned().unwrap_or(Value::Null),
            founding: Some(self.founding.clone()),
            lost: None,
            removed: None,
            error: None,
        }
    }
}
