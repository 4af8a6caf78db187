//! The Merkle tree of a Hypercore: nodes in the tree file and in unflushed entries, checked against blocks and
//! signatures. A leaf of block `i` has index `2i`; a parent's index lies between its children's (flat in-order tree).

use std::{collections::HashMap, fs::File, os::unix::fs::FileExt};

use hypercore::{Signature, SigningKey, VerifyingKey};
use hypercore_schema::{Hash, Node, TREE};

use super::oplog::Signed;

/// Length and hash.
pub(super) const NODE_BYTES: u64 = 40;

/// All blocks are below this; more in a node is damage.
pub(super) const MAX_BLOCK_BYTES: u64 = 4 << 20;

/// The tree file with the nodes of unflushed entries over it.
pub(super) struct Nodes<'a> {
    pub(super) file: &'a [u8],
    pub(super) unflushed: HashMap<u64, Node>,
}

impl Nodes<'_> {
    pub(super) fn get(&self, index: u64) -> Option<Node> {
        if let Some(node) = self.unflushed.get(&index) {
            return Some(node.clone());
        }
        let at = usize::try_from(index.checked_mul(NODE_BYTES)?).ok()?;
        let (length, hash) = self.file.get(at..)?.get(..NODE_BYTES as usize)?.split_first_chunk::<8>()?;
        let node = Node::new(index, hash.to_vec(), u64::from_le_bytes(*length));
        (!node.blank).then_some(node)
    }

    /// The roots of a tree of so many blocks, if every node below them is there and fits its children.
    pub(super) fn proven_roots(&self, length: u64) -> Option<Vec<Node>> {
        let mut grower = Grower::default();
        for index in 0..length {
            grower.push(self.get(2 * index)?);
            if !grower.nodes.drain(..).all(|node| self.get(node.index).is_some_and(|stored| same(&stored, &node))) {
                return None;
            }
        }
        Some(grower.roots)
    }

    /// The block, if its leaf is known and fits it; and its length.
    pub(super) fn block_fits(&self, index: u64, data: &File, offset: u64) -> Option<Node> {
        let leaf = self.get(index.checked_mul(2)?).filter(|leaf| leaf.length <= MAX_BLOCK_BYTES)?;
        let mut block = vec![0; usize::try_from(leaf.length).ok()?];
        data.read_exact_at(&mut block, offset).ok()?;
        (Hash::data(&block).as_bytes() == leaf.hash).then_some(leaf)
    }
}

fn same(one: &Node, other: &Node) -> bool {
    one.length == other.length && one.hash == other.hash
}

pub(super) fn root_hash(roots: &[Node]) -> Vec<u8> {
    Hash::tree(roots).as_bytes().to_vec()
}

pub(super) fn byte_length(roots: &[Node]) -> Option<u64> {
    roots.iter().try_fold(0u64, |sum, root| sum.checked_add(root.length))
}

fn signable(root_hash: &[u8], length: u64, fork: u64) -> Vec<u8> {
    [&TREE[..], root_hash, &length.to_le_bytes(), &fork.to_le_bytes()].concat()
}

pub(super) fn sign(key: &SigningKey, root_hash: &[u8], length: u64, fork: u64) -> Signed {
    let signature = hypercore::sign(key, &signable(root_hash, length, fork)).to_bytes().to_vec();
    Signed { fork, length, signature }
}

pub(super) fn is_signed(key: &VerifyingKey, root_hash: &[u8], state: &Signed) -> bool {
    Signature::from_slice(&state.signature).is_ok_and(|signature| {
        hypercore::verify(key, &signable(root_hash, state.length, state.fork), Some(&signature)).is_ok()
    })
}

/// Puts leaves together to a tree.
#[derive(Default)]
pub(super) struct Grower {
    pub(super) roots: Vec<Node>,
    pub(super) nodes: Vec<Node>,
    pub(super) length: u64,
    pub(super) byte_length: u64,
}

impl Grower {
    pub(super) fn push(&mut self, leaf: Node) {
        self.length += 1;
        // Lengths that a damaged file claims may be absurd; they fit no hash.
        self.byte_length = self.byte_length.wrapping_add(leaf.length);
        self.nodes.push(leaf.clone());
        let mut node = leaf;
        // As many pairs are whole now as the length has zeros at its end.
        for _ in 0..self.length.trailing_zeros() {
            let Some(left) = self.roots.pop() else { break };
            let index = u64::midpoint(left.index, node.index);
            let hash = Hash::parent(&left, &node).as_bytes().to_vec();
            node = Node::new(index, hash, left.length.wrapping_add(node.length));
            self.nodes.push(node.clone());
        }
        self.roots.push(node);
    }
}

pub(super) fn encode_node(node: &Node) -> Vec<u8> {
    [&node.length.to_le_bytes()[..], &node.hash].concat()
}
