//! Which peer stands behind a raft id: the members that the log lists, and those heard of before the
//! log got that far, each by a join entry that a known member signed.

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

pub(super) struct Members {
    listed: BTreeMap<u64, PeerId>,
    hints: BTreeMap<u64, PeerId>,
    /// Join entries that lead from the founder to this agent, oldest first.
    chain: Option<Vec<(u64, Bytes)>>,
}

impl Members {
    pub(super) fn load(store: &Store) -> Result<Self> {
        let (listed, hints) = store.members()?;
        Ok(Self { listed, hints, chain: None })
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
        self.hints.remove(&id);
    }

    /// Learns senders from their introductions; answers what is new and to be stored.
    pub(super) fn learn(&mut self, introductions: &[Bytes], mesh: &str, applied: u64) -> Vec<(u64, PeerId)> {
        let mut learned = Vec::new();
        for bytes in introductions {
            let Some((id, peer)) = self.read_introduction(bytes, mesh, applied) else {
                break;
            };
            if id > applied && !self.listed.contains_key(&id) && self.hints.len() < MAX_HINTS {
                self.hints.insert(id, peer);
                learned.push((id, peer));
            }
        }
        learned
    }

    fn read_introduction(&self, bytes: &[u8], mesh: &str, applied: u64) -> Option<(u64, PeerId)> {
        let view = entry::parse(bytes).ok().filter(|view| view.mesh == mesh && view.kind == JOIN)?;
        let author = view.verify().ok()?;
        let known = self.listed.values().any(|peer| *peer == author)
            || self.hints.iter().any(|(id, peer)| *id > applied && *peer == author);
        let (id, peer) = changes::joined(&view)?;
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
        let mut id = own_id;
        // Whoever signed a join was listed before: ids fall until the founder.
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
            let author = view.author.parse().ok().and_then(|author| self.id_of(&author));
            chain.push((id, Bytes::copy_from_slice(bytes)));
            match author {
                Some(author) if author < id => id = author,
                _ => break,
            }
        }
        chain.reverse();
        chain
    }
}
