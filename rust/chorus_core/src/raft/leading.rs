//! What only a leader does with its log: appends what is proposed, each with a stamp, after an entry
//! of its own that says that it leads. When it leads is Raft's business.

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use serde_json::json;

use super::{
    changes,
    entry::{self, Draft, Key, LEADER},
    handle::Reply,
    machine::{Machine, Now},
    proposals::answer,
};
use crate::Error;

/// Newest entries whose repeats a new leader recognises.
const REPEATS_KNOWN: u64 = 2048;
const REPEATS_BYTES: u64 = 4 * 1024 * 1024;

impl Machine {
    /// Takes a signed and checked entry to append.
    pub(super) fn propose(&mut self, entry: Bytes, key: Key, reply: Reply<u64>) {
        if reply.is_closed() {
            return;
        }
        if !self.is_leader() {
            let leader = self.leader().filter(|&id| id != self.identity.raft_id);
            return answer(reply, Err(if leader.is_some() { Error::NotLeader } else { Error::NoLeader }));
        }
        if self.proposals.is_full() || self.node.raft.lead_transferee.is_some() {
            return answer(reply, Err(Error::Unavailable("the leader takes nothing now".into())));
        }
        if let Some((index, term)) = self.proposals.find(&key)
            && self.node.raft.raft_log.term(index).is_ok_and(|stands| stands == term)
        {
            if index <= self.applied {
                answer(reply, Ok(index));
            } else {
                self.proposals.wait(index, term, reply);
            }
            return;
        }
        self.batch.push((key, entry, reply));
    }

    /// Appends what [`propose`](Self::propose) gathered, as one batch.
    pub(super) fn flush(&mut self, now: Now) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        if !self.is_leader() {
            return batch.into_iter().for_each(|(_, _, reply)| answer(reply, Err(Error::NotLeader)));
        }
        self.lead(now);
        let stamp = self.stamp(now);
        let entries = batch.iter().map(|(key, entry, _)| Entry {
            data: entry::stamped(stamp, entry),
            context: key.to_vec(),
            ..Entry::default()
        });
        let first = self.node.raft.raft_log.last_index() + 1;
        let term = self.node.raft.term;
        let appended = self.append(entries.collect());
        for (index, (key, _, reply)) in (first..).zip(batch) {
            if appended {
                self.proposals.remember(key, index, term);
                self.proposals.wait(index, term, reply);
            } else {
                answer(reply, Err(Error::Unavailable("the leader takes nothing now".into())));
            }
        }
    }

    fn append(&mut self, entries: Vec<Entry>) -> bool {
        let mut message = Message { from: self.identity.raft_id, entries, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        self.node.raft.step(message).is_ok()
    }

    /// The leader's clock, never below the stamp before.
    pub(super) fn stamp(&mut self, now: Now) -> u64 {
        self.last_stamp = self.last_stamp.max(now.wall_ms);
        self.last_stamp
    }

    /// A new leader's first entry says that it leads.
    pub(super) fn lead(&mut self, now: Now) {
        let term = self.node.raft.term;
        if !self.is_leader() || self.led_term == term {
            return;
        }
        self.read_tail();
        let body = json!({ "term": term }).to_string();
        let draft = Draft {
            mesh: &self.identity.mesh,
            id: &entry::ulid(),
            kind: LEADER,
            seen: self.applied,
            body: body.as_bytes(),
        };
        match entry::make(&self.parts.keypair, &self.peer, &draft) {
            Ok(entry) => {
                self.parts.shared.verified.insert(&entry);
                let data = entry::stamped(self.stamp(now), &entry);
                if self.append(vec![Entry { data, ..Entry::default() }]) {
                    self.led_term = term;
                }
            }
            Err(error) => tracing::error!(%error, "cannot sign the leader's entry"),
        }
    }

    /// What a new leader must know of its log: the last stamp, and which proposals are in it.
    fn read_tail(&mut self) {
        let last = self.store.last();
        let low = last.saturating_sub(REPEATS_KNOWN).max(2);
        if let Ok(entries) = self.store.read(low, last + 1, REPEATS_BYTES) {
            for entry in entries {
                self.remember(&entry);
            }
        }
        let mut stamp = entry::unstamp(&self.identity.founding).map_or(0, |(stamp, _)| stamp);
        for index in (2..=last).rev() {
            let Ok(entries) = self.store.read(index, index + 1, u64::MAX) else {
                break;
            };
            let Some(entry) = entries.first() else { break };
            let context = changes::context(entry).unwrap_or_default();
            let data = if entry.entry_type == EntryType::EntryNormal as i32 { &entry.data } else { &context };
            if let Some((found, _)) = entry::unstamp(data) {
                stamp = found;
                break;
            }
        }
        self.last_stamp = self.last_stamp.max(stamp);
    }

    pub(super) fn remember(&mut self, entry: &Entry) {
        if let Ok(key) = Key::try_from(entry.context.as_slice()) {
            self.proposals.remember(key, entry.index, entry.term);
        }
    }
}
