//! The check of a whole log: every entry against the tree, every node of the tree against those below it, the roots
//! against the signature. It reads, never writes, and goes in steps, so that whoever wants it can show how far it is.

use std::{collections::HashMap, fs::File, os::unix::fs::FileExt, path::Path};

use hypercore::VerifyingKey;
use hypercore_schema::{Hash, Node};
use libp2p::identity::{PublicKey, ed25519};
use serde::Serialize;

use super::{
    oplog::{Oplog, STALE, Signed},
    storage::{DATA, OPLOG, TREE},
    tree::{self, Grower, MAX_BLOCK_BYTES, NODE_BYTES, Nodes},
};
use crate::{Error, Result};

/// An oplog is flushed long before it is as large as this.
const MAX_OPLOG_BYTES: u64 = 64 << 20;

/// How far a verification is, and what it is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Entries checked so far.
    pub checked: u64,
    /// Entries that the signature covers.
    pub length: u64,
    /// Bytes in the checked entries.
    pub byte_length: u64,
    /// How often signed history was lost and begun anew.
    pub fork: u64,
    /// The public key that signed, hex.
    pub key: String,
    /// The agent that has this key.
    pub peer_id: String,
    /// What stands behind the signed entries, if anything: a write that was cut off and never acknowledged.
    pub unfinished: Option<String>,
}

/// A verification under way, of the log as it was when this was made; what is appended meanwhile does not matter to it.
#[derive(Debug)]
pub struct Verifier {
    tree: File,
    data: File,
    unflushed: HashMap<u64, Node>,
    state: Signed,
    key: VerifyingKey,
    grower: Grower,
    unfinished: Option<String>,
}

impl Verifier {
    /// Begins to verify the log in `folder`, which nobody is writing to.
    ///
    /// # Errors
    /// `NotFound` when there is no log, `Tampered` when it says of itself nothing that can be read, `Internal` for the disk.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let [oplog, tree, data] = [OPLOG, TREE, DATA].map(|name| match File::open(folder.join(name)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::NotFound(format!("a log in {}: it has no file {name}", folder.display())))
            }
            other => other.map_err(Error::from),
        });
        let oplog = oplog?;
        let size = oplog.metadata()?.len();
        if size > MAX_OPLOG_BYTES {
            return Err(Error::Tampered(format!("{} has {size} bytes and is no oplog", folder.join(OPLOG).display())));
        }
        let mut raw = vec![0; usize::try_from(size).unwrap_or(0)];
        oplog.read_exact_at(&mut raw, 0)?;
        let oplog = Oplog::parse(&raw);
        let Some(((_, key), state)) = oplog.header.as_ref().zip(oplog.state()) else {
            return Err(Error::Tampered("no header of the log can be read".into()));
        };
        let key = VerifyingKey::from_bytes(key).map_err(|e| Error::Tampered(format!("the log's key is none: {e}")))?;
        let unfinished = (oplog.surplus > 0 && oplog.surplus_is != STALE)
            .then(|| format!("{} bytes that are {}", oplog.surplus, oplog.surplus_is));
        let (state, unflushed) = (state.clone(), oplog.unflushed());
        Ok(Self { tree: tree?, data: data?, unflushed, state, key, grower: Grower::default(), unfinished })
    }

    /// The same, when the log is signed with this key.
    pub(super) fn by(self, key: &VerifyingKey) -> Result<Self> {
        if self.key != *key {
            return Err(tampered(format!(
                "the log is signed with the key {}, not this agent's",
                hex::encode(self.key)
            )));
        }
        Ok(self)
    }

    /// Checks up to `count` more entries, and the signature after the last. True when all is checked.
    ///
    /// # Errors
    /// `Tampered`, naming the first entry that is not as it was signed.
    pub fn step(&mut self, count: u64) -> Result<bool> {
        let end = self.state.length.min(self.grower.length.saturating_add(count));
        let nodes = Nodes { file: &self.tree, unflushed: &self.unflushed };
        let mut block = Vec::new();
        for index in self.grower.length..end {
            let leaf = nodes.get(index.saturating_mul(2)).filter(|leaf| leaf.length <= MAX_BLOCK_BYTES);
            let leaf = leaf.ok_or_else(|| tampered(format!("the tree has lost its hash of entry {index}")))?;
            block.resize(usize::try_from(leaf.length).unwrap_or(0), 0);
            let read = self.data.read_exact_at(&mut block, self.grower.byte_length);
            read.map_err(|e| tampered(format!("entry {index} cannot be read: {e}")))?;
            if Hash::data(&block).as_bytes() != leaf.hash {
                return Err(tampered(format!("entry {index} does not fit its hash")));
            }
            self.grower.push(leaf);
            for made in self.grower.nodes.drain(..) {
                if !nodes.get(made.index).is_some_and(|stored| tree::same(&stored, &made)) {
                    let at = made.index * NODE_BYTES;
                    return Err(tampered(format!("the tree's node over entry {index}, byte {at}, does not fit")));
                }
            }
        }
        if end < self.state.length {
            return Ok(false);
        }
        let root_hash = tree::root_hash(&self.grower.roots);
        if end > 0 && !tree::is_signed(&self.key, &root_hash, &self.state) {
            return Err(tampered("the signature does not fit the entries".into()));
        }
        Ok(true)
    }

    /// How far it is.
    #[must_use]
    pub fn so_far(&self) -> Verified {
        Verified {
            checked: self.grower.length,
            length: self.state.length,
            byte_length: self.grower.byte_length,
            fork: self.state.fork,
            key: hex::encode(self.key.to_bytes()),
            peer_id: ed25519::PublicKey::try_from_bytes(self.key.as_bytes())
                .map(|key| PublicKey::from(key).to_peer_id().to_string())
                .unwrap_or_default(),
            unfinished: self.unfinished.clone(),
        }
    }
}

fn tampered(what: String) -> Error {
    Error::Tampered(what)
}
