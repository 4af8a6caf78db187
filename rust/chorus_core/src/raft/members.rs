//! Which peer stands behind a raft id: the members that the log lists, and those heard of before the
//! log got that far, each by a join entry that a known member signed. A member that was removed stands
//! behind none; who it was is kept for the join entries that it signed.

use std::collections::BTreeMap;

use bytes::Bytes;
use libp2p::PeerId;

use super::{
    changes,
    entry::{self, JOIN},
    frames::MAX_INTRODUCTIONS,
    storage::{FOUNDER_ID, Store},
};
use crate::Result;

/// Members heard of ahead of the log; more are not kept.
const MAX_HINTS: usize = 1024;
/// Introductions in one frame. A receiver that does not list the sender yet takes small frames only.
const MAX_INTRODUCTIONS_BYTES: usize = 64 * 1024;

pub(super) struct Members {
    listed: BTreeMap<u64, PeerId>,
    hints: BTreeMap<u64, PeerId>,
    former: BTreeMap<u64, PeerId>,
    /// Join entries that lead from the founder to this agent, oldest first.
    chain: Option<Vec<(u64, Bytes)>>,
}

impl Members {
    pub(super) fn load(store: &Store) -> Result<Self> {
        let [listed, mut hints, former] = store.members()?;
        // A file of an earlier release kept what the log says by now.
        hints.retain(|id, _| *id > store.applied());
        Ok(Self { listed, hints, former, chain: None })
    }

    pub(super) fn listed(&self) -> &BTreeMap<u64, PeerId> {
        &self.listed
    }

    /// Members that the log does not list yet.
    pub(super) fn introduced(&self, applied: u64) -> Vec<PeerId> {
        self.hints
            .iter()
            .filter(|(id, _)| **id > applied && !self.listed.contains_key(id))
            .map(|(_, peer)| *peer)
            .collect()
    }

    /// Whose frames count as `id`'s. What the log lists wins over what others said.
    pub(super) fn peer_of(&self, id: u64, applied: u64) -> Option<PeerId> {
        self.listed.get(&id).or_else(|| self.hints.get(&id).filter(|_| id > applied)).copied()
    }

    pub(super) fn id_of(&self, peer: &PeerId) -> Option<u64> {
        self.listed.iter().find(|(_, listed)| *listed == peer).map(|(id, _)| *id)
    }

    pub(super) fn insert(&mut self, id: u64, peer: PeerId) {
        self.listed.insert(id, peer);
        self.hints.retain(|hint, _| *hint > id);
    }

    /// A member was removed: its raft id is nobody's from now on.
    pub(super) fn remove(&mut self, id: u64) {
        if let Some(peer) = self.listed.remove(&id) {
            self.former.insert(id, peer);
        }
    }

    /// The raft id that the author of the join entry at `index` had then; a peer may have joined anew since.
    fn id_before(&self, peer: &PeerId, index: u64) -> Option<u64> {
        let latest = |ids: &BTreeMap<u64, PeerId>| {
            ids.range(..index).rev().find(|(_, listed)| *listed == peer).map(|(id, _)| *id)
        };
        latest(&self.listed).max(latest(&self.former))
    }

    /// Learns senders from their introductions; answers what is new and to be stored.
    pub(super) fn learn(&mut self, introductions: &[Bytes], mesh: &str, applied: u64) -> Vec<(u64, PeerId)> {
        let mut learned = Vec::new();
        for bytes in introductions {
            if let Some((id, peer)) = self.read_introduction(bytes, mesh, applied)
                && self.hints.len() < MAX_HINTS
            {
                self.hints.insert(id, peer);
                learned.push((id, peer));
            }
        }
        learned
    }

    /// Reads a join entry above what is applied here. The log itself says who was admitted up to there; whoever signed
    /// those may have been removed since.
    fn read_introduction(&self, bytes: &[u8], mesh: &str, applied: u64) -> Option<(u64, PeerId)> {
        let view = entry::parse(bytes).ok().filter(|view| view.mesh == mesh && view.kind == JOIN)?;
        let (id, peer) = changes::joined(&view).filter(|(id, _)| *id > applied && !self.hints.contains_key(id))?;
        let author = view.verify().ok()?;
        let known = self.listed.values().any(|peer| *peer == author)
            || self.hints.iter().any(|(id, peer)| *id > applied && *peer == author);
        known.then_some((id, peer))
    }

    /// What lists this agent for a member whose log reaches to `matched` only.
    pub(super) fn introductions(&mut self, own_id: u64, matched: u64, store: &Store) -> Vec<Bytes> {
        if own_id == FOUNDER_ID || matched >= own_id || !self.listed.contains_key(&own_id) {
            return Vec::new();
        }
        let chain = match self.chain.take() {
            Some(chain) => chain,
            None => self.build_chain(own_id, store),
        };
        let chain = self.chain.insert(chain);
        chain.iter().filter(|(id, _)| *id > matched).map(|(_, entry)| entry.clone()).collect()
    }

    fn build_chain(&self, own_id: u64, store: &Store) -> Vec<(u64, Bytes)> {
        let mut chain = Vec::new();
        let mut chain_bytes = 0;
        let mut id = own_id;
        // Whoever signed a join was listed before: ids fall until the founder. The newest are what a receiver may lack.
        while id != FOUNDER_ID && chain.len() < MAX_INTRODUCTIONS {
            let Ok(entries) = store.read(id, id + 1, u64::MAX) else {
                break;
            };
            let Some(context) = entries.first().and_then(|entry| changes::context(entry).ok()) else {
                break;
            };
            let Some((_, bytes)) = entry::unstamp(&context) else {
                break;
            };
            let Ok(view) = entry::parse(bytes) else { break };
            chain_bytes += bytes.len();
            if chain_bytes > MAX_INTRODUCTIONS_BYTES {
                break;
            }
            let author = view.author.parse().ok().and_then(|author| self.id_before(&author, id));
            chain.push((id, Bytes::copy_from_slice(bytes)));
            let Some(author) = author else { break };
            id = author;
        }
        chain.reverse();
        chain
    }
}
