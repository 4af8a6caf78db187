//! Member changes: ConfChangeV2 entries whose context is a signed `join`, `voter` or `removal` entry. What
//! one says is decided here by its bytes alone, so that every member applies or ignores it alike.

use libp2p::PeerId;
use prost::Message as _;
use raft::{
    StateRole,
    eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Entry, EntryType},
};
use serde_json::{Value, json};

#[cfg(test)]
use super::planted::Bug;
use super::{
    entry::{self, Draft, JOIN, REMOVAL, VOTER, View},
    handle::Reply,
    machine::{Machine, Now, failed},
    proposals::answer,
    storage::Batch,
    types::Added,
};
use crate::{Error, Result};

/// A member further behind gets no vote and no leadership: commits would wait for it.
const MAX_LAG: u64 = 1024;

/// What a change makes of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Voter,
    Learner,
    Removed,
}

/// A change as its entry says it.
pub(super) struct Change<'a> {
    pub view: View<'a>,
    pub raft_id: u64,
    pub peer: PeerId,
    pub standing: Standing,
}

pub(super) fn decode(entry: &Entry) -> Result<ConfChangeV2> {
    if entry.entry_type != EntryType::EntryConfChangeV2 as i32 {
        return Err(Error::Invalid("member change: of an unknown kind".into()));
    }
    ConfChangeV2::decode(entry.data.as_slice()).map_err(|error| Error::Invalid(format!("member change: {error}")))
}

/// The stamped entry inside a member change.
pub(super) fn context(entry: &Entry) -> Result<Vec<u8>> {
    Ok(decode(entry)?.context)
}

/// Reads and checks a member change; `context` is what [`context`] answered for it.
pub(super) fn read<'a>(entry: &Entry, context: &'a [u8], mesh: &str) -> Result<Change<'a>> {
    let bad = |what: &str| Error::Invalid(format!("member change: {what}"));
    let change = decode(entry)?;
    let [single] = change.changes.as_slice() else {
        return Err(bad("not exactly one"));
    };
    if change.transition != ConfChangeTransition::Auto as i32 {
        return Err(bad("not a simple one"));
    }
    let standing = match ConfChangeType::from_i32(single.change_type) {
        Some(ConfChangeType::AddNode) => Standing::Voter,
        Some(ConfChangeType::AddLearnerNode) => Standing::Learner,
        Some(ConfChangeType::RemoveNode) => Standing::Removed,
        None => return Err(bad("of an unknown kind")),
    };
    let (_, bytes) = entry::unstamp(context).ok_or_else(|| bad("no stamp"))?;
    let view = entry::parse(bytes)?;
    if view.mesh != mesh {
        return Err(bad("of another mesh"));
    }
    view.verify()?;
    let body = view.body_json();
    let said = match view.kind {
        JOIN => joined(&view).filter(|(id, _)| *id == entry.index && standing == Standing::Learner),
        VOTER => {
            let voter = match standing {
                Standing::Voter => Some(true),
                Standing::Learner => Some(false),
                Standing::Removed => None,
            };
            let says_so = voter.is_some() && body.get("voter").and_then(Value::as_bool) == voter;
            peer_in(&body).filter(|_| says_so).map(|peer| (single.node_id, peer))
        }
        REMOVAL => joined(&view).filter(|_| standing == Standing::Removed),
        _ => None,
    };
    let (raft_id, peer) =
        said.filter(|(id, _)| *id == single.node_id).ok_or_else(|| bad("its entry says something else"))?;
    Ok(Change { view, raft_id, peer, standing })
}

/// Who a `join` entry admits or a `removal` entry removes, and as which raft id.
pub(super) fn joined(view: &View<'_>) -> Option<(u64, PeerId)> {
    let body = view.body_json();
    Some((body.get("raft_id")?.as_u64()?, peer_in(&body)?))
}

fn peer_in(body: &Value) -> Option<PeerId> {
    body.get("peer")?.as_str()?.parse().ok()
}

/// A change to propose.
pub(super) fn single(raft_id: u64, standing: Standing, context: Vec<u8>) -> ConfChangeV2 {
    let mut change = ConfChangeSingle { node_id: raft_id, ..ConfChangeSingle::default() };
    change.set_change_type(match standing {
        Standing::Voter => ConfChangeType::AddNode,
        Standing::Learner => ConfChangeType::AddLearnerNode,
        Standing::Removed => ConfChangeType::RemoveNode,
    });
    ConfChangeV2 { changes: vec![change], context, ..ConfChangeV2::default() }
}

/// The leader's one change under way.
pub(super) struct Pending {
    pub index: u64,
    pub term: u64,
    pub raft_id: u64,
    pub peer: PeerId,
    pub standing: Standing,
    pub waiting: Waiting,
}

/// Who waits for it.
pub(super) enum Waiting {
    /// With the request's id: the same request asked again waits along.
    Join(String, Vec<Reply<Added>>),
    Vote(Reply<()>),
    /// Answered with the removal's index.
    Removal(Reply<u64>),
}

impl Waiting {
    pub(super) fn fail(self, error: &Error) {
        match self {
            Self::Join(_, replies) => replies.into_iter().for_each(|reply| answer(reply, Err(error.clone()))),
            Self::Vote(reply) => answer(reply, Err(error.clone())),
            Self::Removal(reply) => answer(reply, Err(error.clone())),
        }
    }

    pub(super) fn succeed(self, index: u64, added: &Added) {
        match self {
            Self::Join(_, replies) => replies.into_iter().for_each(|reply| answer(reply, Ok(added.clone()))),
            Self::Vote(reply) => answer(reply, Ok(())),
            Self::Removal(reply) => answer(reply, Ok(index)),
        }
    }
}

impl Machine {
    /// Admits `peer` as a learner whose raft id is its join entry's index. The body's `request` names the
    /// request: repeated, it is answered alike. A member that asks anew has lost its votes: under its old
    /// raft id it could vote twice.
    pub(super) fn add(&mut self, peer: PeerId, body: Value, reply: Reply<Added>, now: Now) {
        let Some(request) = body.get("request").and_then(Value::as_str).map(str::to_owned) else {
            return answer(reply, Err(Error::Invalid("body.request: name the request".into())));
        };
        if let Some(pending) = &mut self.change
            && pending.peer == peer
            && let Waiting::Join(asked, replies) = &mut pending.waiting
            && *asked == request
        {
            return replies.push(reply);
        }
        if self.is_leader()
            && let Some(raft_id) = self.members.id_of(&peer)
        {
            if self.join_request(raft_id).is_some_and(|joined| joined == request) {
                return answer(reply, Ok(self.added(raft_id)));
            }
            let why = format!("{peer} is member {raft_id} already and has lost its vote file: it needs a new identity");
            return answer(reply, Err(Error::NotPermitted(why)));
        }
        let Value::Object(mut body) = body else {
            return answer(reply, Err(Error::Invalid("body: give a JSON object".into())));
        };
        let index = match self.free_for_change(now) {
            Ok(index) => index,
            Err(error) => return answer(reply, Err(error)),
        };
        body.insert("peer".into(), peer.to_string().into());
        body.insert("raft_id".into(), index.into());
        let wanted =
            Wanted { kind: JOIN, body: Value::Object(body), raft_id: index, peer, standing: Standing::Learner };
        self.change_members(index, &wanted, Waiting::Join(request, vec![reply]), now);
    }

    /// The request that a member was admitted for; none of the founder.
    fn join_request(&self, raft_id: u64) -> Option<String> {
        let entries = self.store.read(raft_id, raft_id + 1, u64::MAX).ok()?;
        let context = context(entries.first()?).ok()?;
        let (_, bytes) = entry::unstamp(&context)?;
        let view = entry::parse(bytes).ok()?;
        Some(view.body_json().get("request")?.as_str()?.to_owned())
    }

    /// Gives or takes a vote.
    pub(super) fn vote(&mut self, peer: PeerId, voter: bool, reply: Reply<()>, now: Now) {
        if !self.is_leader() {
            return answer(reply, Err(Error::NotLeader));
        }
        let Some(raft_id) = self.members.id_of(&peer) else {
            return answer(reply, Err(Error::NotFound(format!("{peer} is no member"))));
        };
        let voters = self.node.raft.prs().conf().voters().ids();
        let (has, count) = (voters.contains(raft_id), voters.len());
        if has == voter {
            return answer(reply, Ok(()));
        }
        let refusal = if voter {
            self.lags(raft_id, now)
        } else if raft_id == self.identity.raft_id {
            Some("a leader does not take its own vote: hand over first".to_owned())
        } else if count <= 1 {
            Some("the last vote is not taken".to_owned())
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return answer(reply, Err(Error::Refused(refusal)));
        }
        match self.free_for_change(now) {
            Ok(index) => {
                let body = json!({ "peer": peer.to_string(), "voter": voter });
                let standing = if voter { Standing::Voter } else { Standing::Learner };
                let wanted = Wanted { kind: VOTER, body, raft_id, peer, standing };
                self.change_members(index, &wanted, Waiting::Vote(reply), now);
            }
            Err(error) => answer(reply, Err(error)),
        }
    }

    /// Removes a member that has no vote.
    pub(super) fn remove(&mut self, peer: PeerId, reason: &str, reply: Reply<u64>, now: Now) {
        if !self.is_leader() {
            return answer(reply, Err(Error::NotLeader));
        }
        let Some(raft_id) = self.members.id_of(&peer) else {
            return answer(reply, Err(Error::NotFound(format!("{peer} is no member"))));
        };
        if raft_id == self.identity.raft_id {
            return answer(reply, Err(Error::Refused("a leader does not remove itself: hand over first".into())));
        }
        if self.node.raft.prs().conf().voters().contains(raft_id) {
            return answer(reply, Err(Error::Refused(format!("{peer} votes: take its vote first"))));
        }
        match self.free_for_change(now) {
            Ok(index) => {
                let body = json!({ "peer": peer.to_string(), "raft_id": raft_id, "reason": reason });
                let wanted = Wanted { kind: REMOVAL, body, raft_id, peer, standing: Standing::Removed };
                self.change_members(index, &wanted, Waiting::Removal(reply), now);
            }
            Err(error) => answer(reply, Err(error)),
        }
    }

    /// Why a member is not fit for a vote or leadership now.
    pub(super) fn lags(&self, raft_id: u64, now: Now) -> Option<String> {
        let matched = self.node.raft.prs().get(raft_id).map_or(0, |progress| progress.matched);
        if matched + MAX_LAG < self.node.raft.raft_log.last_index() {
            return Some(format!("member {raft_id} has not caught up: it is at {matched}"));
        }
        let recent = self.heard.get(&raft_id).is_some_and(|at| *at + self.timings.election_timeout >= now.at);
        (!recent).then(|| format!("member {raft_id} was not heard lately"))
    }

    /// The index that a member change would get now, when one may be made.
    fn free_for_change(&mut self, now: Now) -> Result<u64> {
        if !self.is_leader() {
            return Err(Error::NotLeader);
        }
        self.flush(now);
        self.lead(now);
        #[cfg(test)]
        if self.has(Bug::TwoChanges) {
            self.change = None;
            self.node.raft.pending_conf_index = 0;
        }
        if self.change.is_some() || self.node.raft.has_pending_conf() {
            return Err(Error::Refused("another member change is under way".into()));
        }
        if self.node.raft.lead_transferee.is_some() {
            return Err(Error::Refused("leadership is being handed over".into()));
        }
        // Before that a change of the leader before it may still come to count (Ongaro 2015).
        if !self.node.raft.commit_to_current_term() {
            return Err(Error::Refused("this leader has committed nothing yet".into()));
        }
        Ok(self.node.raft.raft_log.last_index() + 1)
    }

    fn change_members(&mut self, index: u64, wanted: &Wanted, waiting: Waiting, now: Now) {
        match self.propose_change(index, wanted, now) {
            Ok(()) => {
                let (raft_id, peer, standing) = (wanted.raft_id, wanted.peer, wanted.standing);
                let term = self.node.raft.term;
                self.change = Some(Pending { index, term, raft_id, peer, standing, waiting });
            }
            Err(error) => waiting.fail(&error),
        }
    }

    fn propose_change(&mut self, index: u64, wanted: &Wanted, now: Now) -> Result<()> {
        let body = wanted.body.to_string();
        let draft = Draft {
            mesh: &self.identity.mesh,
            id: &entry::ulid(),
            kind: wanted.kind,
            seen: self.applied,
            body: body.as_bytes(),
        };
        let entry = entry::make(&self.parts.keypair, &self.peer, &draft)?;
        let context = entry::stamped(self.stamp(now), &entry);
        let change = single(wanted.raft_id, wanted.standing, context);
        self.node.propose_conf_change(Vec::new(), change).map_err(failed)?;
        // raft-rs makes a change that it refuses an empty entry, and says nothing.
        let raft_log = &self.node.raft.raft_log;
        let appended = raft_log
            .unstable_entries()
            .last()
            .is_some_and(|last| last.index == index && last.entry_type == EntryType::EntryConfChangeV2 as i32);
        if appended { Ok(()) } else { Err(Error::Refused("the member change was refused".into())) }
    }

    /// Applies a committed change, the same on every member, and stores the outcome before anything
    /// is done by it.
    pub(super) fn apply_change(&mut self, entry: &Entry) -> Result<()> {
        let context = context(entry).unwrap_or_default();
        let change = match read(entry, &context, &self.identity.mesh) {
            Ok(change) => change,
            Err(error) => {
                tracing::warn!(index = entry.index, %error, "a member change was ignored");
                return Ok(());
            }
        };
        let join = change.view.kind == JOIN;
        let removal = change.standing == Standing::Removed;
        let votes = self.node.raft.prs().conf().voters().contains(change.raft_id);
        let fits = if join {
            self.members.id_of(&change.peer).is_none()
        } else {
            self.members.listed().get(&change.raft_id) == Some(&change.peer) && !(removal && votes)
        };
        if !fits {
            tracing::warn!(index = entry.index, peer = %change.peer, "a member change was ignored: it does not fit");
            return Ok(());
        }
        let standing = change.standing;
        #[cfg(test)]
        let standing = if removal && self.has(Bug::RemovedVotes) { Standing::Voter } else { standing };
        let single = single(change.raft_id, standing, Vec::new());
        let state = match self.node.apply_conf_change(&single) {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(index = entry.index, %error, "a member change was ignored");
                return Ok(());
            }
        };
        let own = (removal && change.raft_id == self.identity.raft_id).then(|| {
            let body = change.view.body_json();
            let reason = body.get("reason").and_then(Value::as_str).unwrap_or("no reason given");
            format!(
                "removed from mesh {} by {} at entry {}: {reason}",
                change.view.mesh, change.view.author, entry.index
            )
        });
        self.store.write(&Batch {
            hard: Some(self.node.raft.hard_state()),
            applied: Some(entry.index),
            conf: Some((entry.index, &state)),
            joined: join.then_some((change.raft_id, change.peer)),
            left: removal.then_some((change.raft_id, change.peer)),
            removed: own.as_deref(),
            ..Batch::default()
        })?;
        if join {
            self.members.insert(change.raft_id, change.peer);
        }
        if removal {
            self.members.remove(change.raft_id);
            self.heard.remove(&change.raft_id);
        }
        self.removed = own;
        tracing::info!(index = entry.index, peer = %change.peer, standing = ?change.standing, "the members changed");
        self.lost_vote = self.is_leader() && !self.is_voter();
        // Shown at the end of this turn.
        self.published = None;
        Ok(())
    }

    /// Answers whoever waits for the change at this entry's place, by what the ConfState now holds.
    pub(super) fn settle_change(&mut self, entry: &Entry, now: Now) {
        let Some(pending) = self.change.take_if(|pending| pending.index <= entry.index) else {
            return;
        };
        let conf = self.node.raft.prs().conf();
        let (votes, learns) = (conf.voters().contains(pending.raft_id), conf.learners().contains(&pending.raft_id));
        let holds = match pending.standing {
            Standing::Voter => votes,
            Standing::Learner => learns,
            Standing::Removed => !votes && !learns,
        };
        self.publish_now(now);
        if holds && pending.term == entry.term && pending.index == entry.index {
            pending.waiting.succeed(entry.index, &self.added(pending.raft_id));
        } else {
            pending.waiting.fail(&Error::Refused("the member change was refused".into()));
        }
    }

    /// A leader without a vote would lead on: it calls the best voter to stand, and follows.
    pub(super) fn step_aside(&mut self) {
        let raft = &mut self.node.raft;
        if raft.state != StateRole::Leader {
            return;
        }
        let voters: Vec<u64> = raft.prs().conf().voters().ids().iter().collect();
        let best = voters.into_iter().max_by_key(|id| raft.prs().get(*id).map_or(0, |progress| progress.matched));
        if let Some(best) = best {
            raft.send_timeout_now(best);
        }
        let term = raft.term;
        raft.become_follower(term, raft::INVALID_ID);
    }

    fn added(&self, raft_id: u64) -> Added {
        Added { raft_id, index: raft_id, founding: self.identity.founding.clone() }
    }
}

/// A change as the leader wants it.
struct Wanted {
    kind: &'static str,
    body: Value,
    raft_id: u64,
    peer: PeerId,
    standing: Standing,
}
