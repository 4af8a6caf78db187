//! The Merkle tree of a Hypercore: nodes in the tree file and in unflushed entries, checked against blocks and
//! signatures. A leaf of block `i` has index `2i`; a parent's index lies between its children's (flat in-order tree).

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    os::unix::fs::FileExt,
};

use hypercore::{Signature, SigningKey, VerifyingKey};
use hypercore_schema::{Hash, Node, TREE};

use super::oplog::Signed;

/// Length and hash.
pub(super) const NODE_BYTES: u64 = 40;

/// All blocks are below this; more in a node is damage.
pub(super) const MAX_BLOCK_BYTES: u64 = 4 << 20;

/// More blocks than any log will have; a file that claims more is damaged.
const MAX_BLOCKS: u64 = 1 << 40;

/// The tree file with the nodes of unflushed entries over it.
pub(super) struct Nodes<'a> {
    pub(super) file: &'a File,
    pub(super) unflushed: &'a HashMap<u64, Node>,
}

impl Nodes<'_> {
    pub(super) fn get(&self, index: u64) -> Option<Node> {
        if let Some(node) = self.unflushed.get(&index) {
            return Some(node.clone());
        }
        let mut bytes = [0; NODE_BYTES as usize];
        self.file.read_exact_at(&mut bytes, index.checked_mul(NODE_BYTES)?).ok()?;
        let (length, hash) = bytes.split_first_chunk::<8>()?;
        let node = Node::new(index, hash.to_vec(), u64::from_le_bytes(*length));
        (!node.blank).then_some(node)
    }

    /// The roots of a tree of so many blocks, if they are there and the blocks from number `from` on lead up to them.
    /// What lies under other blocks alone is not read: an opening would take longer with every entry.
    pub(super) fn proven_roots(&self, length: u64, from: u64) -> Option<Vec<Node>> {
        let roots = root_indices(length)?.into_iter().map(|index| self.get(index)).collect::<Option<Vec<_>>>()?;
        let mut proven: HashSet<u64> = roots.iter().map(|root| root.index).collect();
        for block in from..length {
            let (mut index, mut depth) = (2 * block, 0);
            while proven.insert(index) {
                let offset = index >> (depth + 1);
                let [left, right] = [offset & !1, offset | 1].map(|offset| self.get(index_at(depth, offset)));
                let above = parent(&left?, &right?);
                (index, depth) = (index_at(depth + 1, offset >> 1), depth + 1);
                if !self.get(index).is_some_and(|stored| same(&stored, &above)) {
                    return None;
                }
            }
        }
        Some(roots)
    }

    /// The block, if its leaf is known and fits it; and its length.
    pub(super) fn block_fits(&self, index: u64, data: &File, offset: u64) -> Option<Node> {
        let leaf = self.get(index.checked_mul(2)?).filter(|leaf| leaf.length <= MAX_BLOCK_BYTES)?;
        let mut block = vec![0; usize::try_from(leaf.length).ok()?];
        data.read_exact_at(&mut block, offset).ok()?;
        (Hash::data(&block).as_bytes() == leaf.hash).then_some(leaf)
    }
}

/// The node at so many steps above the leaves, the `offset`-th of its row.
fn index_at(depth: u32, offset: u64) -> u64 {
    (offset << (depth + 1)) | ((1 << depth) - 1)
}

/// The roots of a tree of so many blocks: one for each bit of the number, the largest first.
fn root_indices(length: u64) -> Option<Vec<u64>> {
    let rows = (0..u64::BITS).rev().filter(|depth| length >> depth & 1 == 1);
    (length <= MAX_BLOCKS).then(|| rows.map(|depth| index_at(depth, (length >> depth) - 1)).collect())
}

/// The node above two.
fn parent(left: &Node, right: &Node) -> Node {
    let hash = Hash::parent(left, right).as_bytes().to_vec();
    // Lengths that a damaged file claims may be absurd; they fit no hash.
    Node::new(u64::midpoint(left.index, right.index), hash, left.length.wrapping_add(right.length))
}

pub(super) fn same(one: &Node, other: &Node) -> bool {
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
#[derive(Debug, Default)]
pub(super) struct Grower {
    pub(super) roots: Vec<Node>,
    /// What was made since the caller last took it away.
    pub(super) nodes: Vec<Node>,
    pub(super) length: u64,
    pub(super) byte_length: u64,
}

impl Grower {
    pub(super) fn push(&mut self, leaf: Node) {
        self.length += 1;
        self.byte_length = self.byte_length.wrapping_add(leaf.length);
        self.nodes.push(leaf.clone());
        let mut node = leaf;
        // As many pairs are whole now as the length has zeros at its end.
        for _ in 0..self.length.trailing_zeros() {
            let Some(left) = self.roots.pop() else { break };
            node = parent(&left, &node);
            self.nodes.push(node.clone());
        }
        self.roots.push(node);
    }
}

pub(super) fn encode_node(node: &Node) -> Vec<u8> {
    [&node.length.to_le_bytes()[..], &node.hash].concat()
}
