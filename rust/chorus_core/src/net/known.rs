//! Peers known from before, remembered on disk (`peers.json`) and dialled at the next start.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Peers remembered. Those leave first that were neither members nor reached from here, then those not seen for longest.
const PEERS_MAX: usize = 512;
/// Addresses remembered for one peer.
const ADDRESSES_MAX: usize = 8;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    peer: String,
    addrs: Vec<String>,
    seen: u64,
}

/// What is remembered of a peer.
#[derive(Debug, Clone)]
struct Known {
    addresses: Vec<Multiaddr>,
    seen_ms: u64,
    /// A member, or one that was reached from here; else it only came and said where it listens.
    trusted: bool,
}

/// The peers known so far.
#[derive(Debug)]
pub struct KnownPeers {
    path: PathBuf,
    peers: HashMap<PeerId, Known>,
    changed: bool,
}

impl KnownPeers {
    /// Reads what is there; a missing or damaged file means that nothing is known.
    pub fn load(path: &Path) -> Self {
        let lines: Vec<Line> = std::fs::read(path)
            .ok()
            .and_then(|bytes| {
                serde_json::from_slice(&bytes)
                    .inspect_err(
                        |error| tracing::warn!(path = %path.display(), %error, "peers.json is damaged and ignored"),
                    )
                    .ok()
            })
            .unwrap_or_default();
        let peers = lines.into_iter().take(PEERS_MAX).filter_map(|line| {
            let addresses: Vec<Multiaddr> =
                line.addrs.iter().filter_map(|addr| addr.parse().ok()).take(ADDRESSES_MAX).collect();
            Some((line.peer.parse().ok()?, Known { addresses, seen_ms: line.seen, trusted: true }))
        });
        Self { path: path.to_owned(), peers: peers.collect(), changed: false }
    }

    /// All of them with their addresses.
    pub fn all(&self) -> impl Iterator<Item = (PeerId, &[Multiaddr])> {
        self.peers.iter().map(|(peer, known)| (*peer, known.addresses.as_slice()))
    }

    /// A peer's addresses.
    pub fn addresses(&self, peer: &PeerId) -> &[Multiaddr] {
        self.peers.get(peer).map(|known| known.addresses.as_slice()).unwrap_or_default()
    }

    /// Notes where a peer was reached, or says that it listens; the newest address comes first.
    pub fn note(&mut self, peer: PeerId, address: Multiaddr, trusted: bool, now_ms: u64) {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&peer) {
            let oldest = self.peers.iter().min_by_key(|(_, known)| (known.trusted, known.seen_ms));
            match oldest.map(|(peer, known)| (*peer, known.trusted)) {
                Some((_, true)) if !trusted => return,
                Some((oldest, _)) => self.peers.remove(&oldest),
                None => None,
            };
        }
        let known = self.peers.entry(peer).or_insert_with(|| Known { addresses: Vec::new(), seen_ms: now_ms, trusted });
        known.seen_ms = now_ms;
        known.trusted |= trusted;
        if known.addresses.first() != Some(&address) {
            known.addresses.retain(|one| *one != address);
            known.addresses.insert(0, address);
            known.addresses.truncate(ADDRESSES_MAX);
            self.changed = true;
        }
    }

    /// Forgets a peer.
    pub fn forget(&mut self, peer: &PeerId) {
        self.changed |= self.peers.remove(peer).is_some();
    }

    /// What is to be written, if anything changed since it was asked last.
    pub fn take_changes(&mut self) -> Option<(PathBuf, Vec<u8>)> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut lines: Vec<Line> = self
            .peers
            .iter()
            .map(|(peer, known)| Line {
                peer: peer.to_string(),
                addrs: known.addresses.iter().map(ToString::to_string).collect(),
                seen: known.seen_ms,
            })
            .collect();
        lines.sort_by(|a, b| b.seen.cmp(&a.seen).then_with(|| a.peer.cmp(&b.peer)));
        serde_json::to_vec_pretty(&lines).ok().map(|bytes| (self.path.clone(), bytes))
    }
}

/// Writes a file so that after a crash either the old or the new one is there, whole.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let folder = path.parent().ok_or_else(|| Error::Internal(format!("{} has no folder", path.display())))?;
    std::fs::create_dir_all(folder)?;
    let temporary = path.with_extension("json.new");
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(folder)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_back_and_stays_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("core/peers.json");
        let mut known = KnownPeers::load(&path);
        let peer = PeerId::random();
        for port in 1..=20u16 {
            known.note(peer, format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap(), true, 1);
        }
        let (to, bytes) = known.take_changes().unwrap();
        write_atomically(&to, &bytes).unwrap();
        assert!(known.take_changes().is_none());
        let back = KnownPeers::load(&path);
        assert_eq!(back.addresses(&peer).len(), ADDRESSES_MAX);
        assert_eq!(back.addresses(&peer)[0].to_string(), "/ip4/127.0.0.1/tcp/20");
        for n in 0..PEERS_MAX as u64 {
            known.note(PeerId::random(), "/ip4/127.0.0.1/tcp/1".parse().unwrap(), true, 2 + n);
        }
        assert_eq!(known.peers.len(), PEERS_MAX);
        assert!(known.addresses(&peer).is_empty());
    }

    #[test]
    fn strangers_that_come_do_not_push_out_whom_we_know() {
        let folder = tempfile::tempdir().unwrap();
        let mut known = KnownPeers::load(&folder.path().join("peers.json"));
        let (member, address) = (PeerId::random(), "/ip4/127.0.0.1/tcp/1".parse::<Multiaddr>().unwrap());
        known.note(member, address.clone(), true, 1);
        (0..2 * PEERS_MAX as u64).for_each(|n| known.note(PeerId::random(), address.clone(), false, 2 + n));
        assert_eq!((known.peers.len(), known.addresses(&member).len()), (PEERS_MAX, 1));
        (0..PEERS_MAX as u64).for_each(|n| known.note(PeerId::random(), address.clone(), true, 9_000 + n));
        let stranger = PeerId::random();
        known.note(stranger, address, false, 99_000);
        assert!(known.peers.len() == PEERS_MAX && known.addresses(&stranger).is_empty());
    }

    #[test]
    fn who_is_forgotten_is_not_in_the_file_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let (mut known, peer) = (KnownPeers::load(&folder.path().join("peers.json")), PeerId::random());
        known.note(peer, "/ip4/127.0.0.1/tcp/1".parse().unwrap(), true, 1);
        assert!(String::from_utf8(known.take_changes().unwrap().1).unwrap().contains(&peer.to_string()));
        known.forget(&peer);
        assert_eq!(known.take_changes().unwrap().1, b"[]");
        known.forget(&peer);
        assert!(known.take_changes().is_none());
    }

    #[test]
    fn a_damaged_file_is_no_reason_to_fail() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.json");
        std::fs::write(&path, b"{half").unwrap();
        assert_eq!(KnownPeers::load(&path).all().count(), 0);
    }
}
