//! The format of a Hypercore's oplog: two slots of headers of which the bits tell the newer, then the entries written
//! since that header. Reading never fails; it says how far the file is good. Facts from Hypercore's `lib/oplog.js`.

use std::collections::HashMap;

use hypercore::{SigningKey, VerifyingKey};
use hypercore_schema::Node;

pub(super) const SLOT_BYTES: usize = 4096;
pub(super) const ENTRIES_AT: usize = 2 * SLOT_BYTES;

/// Checksum, then length and bits.
const LEADER_BYTES: usize = 8;
const HASH_BYTES: usize = 32;
const HEADER_VERSION: u8 = 1;
/// A manifest and a key pair follow.
const HEADER_FLAGS: u8 = 2 | 4;
/// Tree nodes, an upgrade and a range of the bitfield follow.
const ENTRY_FLAGS: u8 = 2 | 4 | 8;

/// A manifest with one Ed25519 signer and BLAKE2b hashes: version 0, hash 0, one signer, signature 0.
const MANIFEST_HEAD: [u8; 4] = [0, 0, 1, 0];

/// BLAKE2b-256 of "hypercore", the namespace of a core with one signer (Hypercore's `lib/caps.js`).
const DEFAULT_NAMESPACE: [u8; 32] = [
    0x41, 0x44, 0xEE, 0xA5, 0x31, 0xE4, 0x83, 0xD5, 0x4E, 0x0C, 0x14, 0xF4, 0xCA, 0x68, 0xE0, 0x64, 0x4F, 0x35, 0x53,
    0x43, 0xFF, 0x6F, 0xCB, 0x0F, 0x00, 0x52, 0x00, 0xE1, 0x2C, 0xD7, 0x47, 0xCB,
];

/// A signed state of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Signed {
    pub(super) fork: u64,
    pub(super) length: u64,
    pub(super) signature: Vec<u8>,
}

/// An entry: the nodes it adds and the state they lead to.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) nodes: Vec<Node>,
    pub(super) state: Signed,
}

/// What an oplog holds.
#[derive(Debug)]
pub(super) struct Oplog {
    /// The newer header, if any is good, and the public key in it.
    pub(super) header: Option<(Signed, [u8; 32])>,
    bits: [bool; 2],
    /// A slot that holds something which is no header.
    pub(super) bad_slot: bool,
    pub(super) entries: Vec<Entry>,
    /// Bytes after the last good entry, and why they are none; stale ones belong to an older header.
    pub(super) surplus: usize,
    pub(super) surplus_is: &'static str,
}

pub(super) const STALE: &str = "entries of an older header";

impl Oplog {
    pub(super) fn parse(raw: &[u8]) -> Self {
        // A file that ends within its slots is read as if zeros followed, which is what lengthening it makes of it.
        let mut headers = raw[..raw.len().min(ENTRIES_AT)].to_vec();
        headers.resize(ENTRIES_AT, 0);
        let (first, second) = headers.split_at(SLOT_BYTES);
        let slots = [first, second];
        let good = slots.map(|slot| unwrap_leader(slot).and_then(|l| Some((l.header_bit, decode_header(l.body)?))));
        let bad_slot = slots.iter().zip(&good).any(|(slot, good)| good.is_none() && slot.iter().any(|b| *b != 0));
        // A missing slot counts as if it had the bit that makes the other one the newer.
        let (bits, header) = match good {
            [Some((a, first)), Some((b, second))] => ([a, b], Some(if a == b { first } else { second })),
            [Some((a, first)), None] => ([a, a], Some(first)),
            [None, Some((b, second))] => ([!b, b], Some(second)),
            [None, None] => ([true, false], None),
        };
        let mut oplog = Self { header, bits, bad_slot, entries: Vec::new(), surplus: 0, surplus_is: "" };
        oplog.parse_entries(raw.get(ENTRIES_AT..).unwrap_or_default());
        oplog
    }

    fn parse_entries(&mut self, mut rest: &[u8]) {
        let mut length = self.header.as_ref().map(|(state, _)| state.length);
        while !rest.is_empty() {
            self.surplus_is = match unwrap_leader(rest) {
                None if rest.iter().all(|b| *b == 0) => "zeros",
                None => "a torn entry",
                Some(leader) if length.is_some() && leader.header_bit != (self.bits[0] != self.bits[1]) => STALE,
                Some(leader) if leader.partial => "an unfinished batch",
                Some(leader) => match decode_entry(leader.body) {
                    Some((entry, ancestors)) if length.is_none_or(|l| l == ancestors) => {
                        length = length.map(|_| entry.state.length);
                        self.entries.push(entry);
                        rest = &rest[LEADER_BYTES + leader.body.len()..];
                        continue;
                    }
                    Some(_) => "an entry that does not follow the one before",
                    None => "an entry that cannot be read",
                },
            };
            break;
        }
        self.surplus = rest.len();
    }

    /// The last state that was signed.
    pub(super) fn state(&self) -> Option<&Signed> {
        let (header, _) = self.header.as_ref()?;
        Some(self.entries.last().map_or(header, |entry| &entry.state))
    }

    /// The nodes that the tree file may not have yet.
    pub(super) fn unflushed(&self) -> HashMap<u64, Node> {
        self.entries.iter().flat_map(|entry| &entry.nodes).map(|node| (node.index, node.clone())).collect()
    }

    /// The slot that the next header goes to, and that header's bit.
    pub(super) fn next_slot(&self) -> (usize, bool) {
        if self.bits[0] == self.bits[1] { (SLOT_BYTES, !self.bits[1]) } else { (0, !self.bits[0]) }
    }

    /// The bit of entries that follow the newer header.
    pub(super) fn entry_bit(&self) -> bool {
        self.bits[0] != self.bits[1]
    }
}

struct Leader<'a> {
    header_bit: bool,
    partial: bool,
    body: &'a [u8],
}

/// Takes a checked piece off the front: `crc32(rest) | length << 2 | partial << 1 | header bit | body`.
fn unwrap_leader(bytes: &[u8]) -> Option<Leader<'_>> {
    let (checksum, rest) = bytes.split_first_chunk::<4>()?;
    let (combined, body) = rest.split_first_chunk::<4>()?;
    let combined = u32::from_le_bytes(*combined);
    let length = usize::try_from(combined >> 2).ok()?;
    let body = body.get(..length).filter(|body| !body.is_empty())?;
    let whole = &bytes[4..LEADER_BYTES + length];
    (crc32fast::hash(whole) == u32::from_le_bytes(*checksum)).then_some(Leader {
        header_bit: combined & 1 == 1,
        partial: combined & 2 == 2,
        body,
    })
}

fn wrap(body: &[u8], header_bit: bool) -> Vec<u8> {
    #[allow(clippy::cast_possible_truncation)]
    let combined = ((body.len() as u32) << 2) | u32::from(header_bit);
    let mut checked = combined.to_le_bytes().to_vec();
    checked.extend_from_slice(body);
    let mut bytes = crc32fast::hash(&checked).to_le_bytes().to_vec();
    bytes.extend(checked);
    bytes
}

/// A whole slot with a header for this key and state.
pub(super) fn encode_header(key: &SigningKey, state: &Signed, root_hash: &[u8], bit: bool) -> Vec<u8> {
    let public = key.verifying_key().to_bytes();
    let mut body = vec![HEADER_VERSION, HEADER_FLAGS];
    body.extend_from_slice(&public);
    body.extend_from_slice(&MANIFEST_HEAD);
    body.extend_from_slice(&DEFAULT_NAMESPACE);
    body.extend_from_slice(&public);
    put_bytes(&mut body, &public);
    put_bytes(&mut body, &[key.to_bytes(), public].concat());
    put_number(&mut body, 0); // no user data
    put_number(&mut body, state.fork);
    put_number(&mut body, state.length);
    put_bytes(&mut body, root_hash);
    put_bytes(&mut body, &state.signature);
    put_number(&mut body, 0); // no reorganisations
    put_number(&mut body, state.length); // everything is there
    let mut slot = wrap(&body, bit);
    slot.resize(SLOT_BYTES, 0);
    slot
}

/// An entry that changes nothing and says that all blocks are there.
pub(super) fn encode_presence(state: &Signed, bit: bool) -> Vec<u8> {
    let mut body = vec![ENTRY_FLAGS];
    put_number(&mut body, 0); // no nodes
    put_number(&mut body, state.fork);
    put_number(&mut body, state.length);
    put_number(&mut body, state.length);
    put_bytes(&mut body, &state.signature);
    body.push(0); // set, not dropped
    put_number(&mut body, 0);
    put_number(&mut body, state.length);
    wrap(&body, bit)
}

fn decode_header(body: &[u8]) -> Option<(Signed, [u8; 32])> {
    let mut input = Input(body);
    if input.take(2)? != [HEADER_VERSION, HEADER_FLAGS] {
        return None;
    }
    let key: [u8; 32] = input.take(HASH_BYTES)?.try_into().ok()?;
    VerifyingKey::from_bytes(&key).ok()?;
    if input.take(MANIFEST_HEAD.len())? != MANIFEST_HEAD {
        return None;
    }
    input.take(2 * HASH_BYTES)?; // namespace and public key
    input.bytes()?; // public key again
    input.bytes()?; // secret key
    input.no_items()?; // user data
    let (fork, length) = (input.number()?, input.number()?);
    input.bytes()?; // root hash
    let signature = input.bytes()?.to_vec();
    Some((Signed { fork, length, signature }, key))
}

/// The entry, and the length it follows.
fn decode_entry(body: &[u8]) -> Option<(Entry, u64)> {
    let mut input = Input(body);
    if input.take(1)? != [ENTRY_FLAGS] {
        return None;
    }
    let count = input.number()?;
    let mut nodes = Vec::new();
    for _ in 0..count {
        let (index, length) = (input.number()?, input.number()?);
        nodes.push(Node::new(index, input.take(HASH_BYTES)?.to_vec(), length));
    }
    let (fork, ancestors, length) = (input.number()?, input.number()?, input.number()?);
    let signature = input.bytes()?.to_vec();
    let (flags, start, added) = (input.take(1)?, input.number()?, input.number()?);
    let presence = nodes.is_empty() && ancestors == length && start == 0 && added == length;
    let append = !nodes.is_empty() && start == ancestors && ancestors.checked_add(added) == Some(length) && added > 0;
    let whole = input.0.is_empty() && flags == [0] && (presence || append);
    whole.then_some((Entry { nodes, state: Signed { fork, length, signature } }, ancestors))
}

/// Reads compact-encoding's numbers and byte strings.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        let [first] = *self.take(1)? else { return None };
        let width = match first {
            0xfd => 2,
            0xfe => 4,
            0xff => 8,
            small => return Some(u64::from(small)),
        };
        Some(self.take(width)?.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    fn no_items(&mut self) -> Option<()> {
        (self.number()? == 0).then_some(())
    }
}

fn put_number(out: &mut Vec<u8>, number: u64) {
    let bytes = number.to_le_bytes();
    match number {
        0..=0xfc => out.push(bytes[0]),
        0xfd..=0xffff => out.extend([&[0xfd], &bytes[..2]].concat()),
        0x1_0000..=0xffff_ffff => out.extend([&[0xfe], &bytes[..4]].concat()),
        _ => out.extend([&[0xff], &bytes[..]].concat()),
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
