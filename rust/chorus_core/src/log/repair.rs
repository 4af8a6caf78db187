//! The cut before opening. The hypercore crate fails on a bad checksum, spins on an unfinished batch, writes over
//! entries it has not flushed and cannot read its own bitfield above 32,768 blocks; so the log is brought into a state
//! before it sees it in which none of that happens: every entry flushed, the last blocks proven, nothing behind them.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use hypercore::SigningKey;
use serde::Serialize;

use super::{
    oplog::{self, ENTRIES_AT, Oplog, SLOT_BYTES, STALE, Signed},
    storage::{BITFIELD, DATA, OPLOG, TREE, make_folder, open_file, sync_folder},
    tree::{self, Grower, NODE_BYTES, Nodes},
};
use crate::{Error, Result};

/// The crate flushes at 64 KiB and writes no batch of nodes beyond a few MiB.
const MAX_OPLOG_BYTES: u64 = 64 << 20;

/// So many blocks before the unflushed ones are proven at every start, with all that is above them. What is older was
/// synced before the header that counts it was written, so no power cut touches it; the verifier reads it all.
const PROVEN_BLOCKS: u64 = 64;

/// The crate reads the bitfield's pages from the wrong places: right are only the first 1024 bytes.
pub(super) const MAX_BITFIELD_BLOCKS: u64 = 8 * 1024;
const BITFIELD_PAGE_BYTES: usize = 4096;

/// What was cut off a log at its start, for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// What was wrong.
    pub reason: String,
    /// Entries the log has now.
    pub length: u64,
    /// Signed entries that are lost. A torn entry that was never acknowledged does not count.
    pub lost: u64,
    /// Bytes cut off the end of the files.
    pub cut_bytes: u64,
    /// Where the damaged files were put, when signed entries were lost or the tree had to be made anew.
    pub kept: Option<PathBuf>,
}

struct Files {
    oplog: File,
    tree: File,
    data: File,
}

/// Brings the log in `folder` into a state that can be opened. `None` when there was nothing to cut.
pub(super) fn mend(folder: &Path, key: &SigningKey) -> Result<Option<Repair>> {
    make_folder(folder)?;
    let files =
        Files { oplog: open_file(folder, OPLOG)?, tree: open_file(folder, TREE)?, data: open_file(folder, DATA)? };
    sync_folder(folder)?;
    let size = files.oplog.metadata()?.len();
    if size > MAX_OPLOG_BYTES {
        return Err(Error::Invalid(format!("{} has {size} bytes and is no oplog", folder.join(OPLOG).display())));
    }
    let raw = fs::read(folder.join(OPLOG))?;
    if raw.is_empty() && files.data.metadata()?.len() == 0 {
        return Ok(None); // the crate makes a new one
    }
    let oplog = Oplog::parse(&raw);
    if oplog.header.is_none() && files.data.metadata()?.len() == 0 {
        // It was being made when the agent stopped. Nothing was ever in it.
        files.oplog.set_len(0)?;
        return Ok(None);
    }
    if let Some((_, public)) = &oplog.header
        && *public != key.verifying_key().to_bytes()
    {
        return Err(Error::Invalid(format!(
            "the log in {} is signed by another identity: move it away to begin a new one",
            folder.display()
        )));
    }
    let unflushed = oplog.unflushed();
    let nodes = Nodes { file: &files.tree, unflushed: &unflushed };
    let (state, repair) = match prove(&oplog, &nodes, &files, key) {
        Ok((state, roots)) => {
            let repair = trim(&oplog, &nodes, &files, key, &state, &roots)?;
            (state, repair)
        }
        Err(reason) => rebuild(folder, &oplog, &nodes, &files, key, reason)?,
    };
    // The header may have been written anew, so its bits are read anew.
    let oplog = Oplog::parse(&fs::read(folder.join(OPLOG))?);
    set_presence(folder, &state, oplog.entry_bit())?;
    Ok(repair)
}

/// Checks the last signed state: its signature, and the blocks that were written last with the tree above them.
fn prove(
    oplog: &Oplog,
    nodes: &Nodes<'_>,
    files: &Files,
    key: &SigningKey,
) -> Result<(Signed, Vec<hypercore_schema::Node>), String> {
    let state = oplog.state().ok_or("no header can be read")?;
    let flushed = oplog.header.as_ref().map_or(0, |(header, _)| header.length);
    let from = flushed.saturating_sub(PROVEN_BLOCKS);
    let roots = nodes.proven_roots(state.length, from).ok_or("the tree has lost or bad nodes")?;
    if state.length > 0 && !tree::is_signed(&key.verifying_key(), &tree::root_hash(&roots), state) {
        return Err("the signature does not fit the tree".into());
    }
    let mut offset = tree::byte_length(&roots).ok_or("the tree's lengths are impossible")?;
    for index in (from..state.length).rev() {
        let length = nodes.get(2 * index).map(|leaf| leaf.length).ok_or("the tree has lost or bad nodes")?;
        offset = offset.checked_sub(length).ok_or("the tree's lengths are impossible")?;
        nodes.block_fits(index, &files.data, offset).ok_or_else(|| format!("entry {index} does not fit its hash"))?;
    }
    Ok((state.clone(), roots))
}

/// Flushes good entries and cuts off what stands behind them.
fn trim(
    oplog: &Oplog,
    nodes: &Nodes<'_>,
    files: &Files,
    key: &SigningKey,
    state: &Signed,
    roots: &[hypercore_schema::Node],
) -> Result<Option<Repair>> {
    for node in nodes.unflushed.values() {
        files.tree.write_all_at(&tree::encode_node(node), node.index * NODE_BYTES)?;
    }
    let bytes = tree::byte_length(roots).unwrap_or(0);
    let debris = files.data.metadata()?.len().saturating_sub(bytes);
    if debris > 0 {
        files.data.set_len(bytes)?;
        files.data.sync_all()?;
    }
    if !oplog.entries.is_empty() || oplog.surplus > 0 || oplog.bad_slot {
        files.tree.sync_all()?;
        let (slot, bit) = oplog.next_slot();
        let root_hash = if state.length > 0 { tree::root_hash(roots) } else { Vec::new() };
        let header = oplog::encode_header(key, state, &root_hash, bit);
        files.oplog.write_all_at(&header, slot as u64)?;
        files.oplog.sync_all()?;
    }
    // Also lengthens a file that ends within its second slot.
    files.oplog.set_len(ENTRIES_AT as u64)?;
    files.oplog.sync_all()?;
    let reason = if oplog.surplus > 0 && oplog.surplus_is != STALE {
        oplog.surplus_is
    } else if debris > 0 {
        "data without an entry"
    } else if oplog.bad_slot {
        "a torn header"
    } else {
        return Ok(None);
    };
    let cut_bytes = oplog.surplus as u64 + debris;
    Ok(Some(Repair { reason: reason.into(), length: state.length, lost: 0, cut_bytes, kept: None }))
}

/// Makes the tree, header and signature anew from the blocks that can be proven, up to the first that cannot.
fn rebuild(
    folder: &Path,
    oplog: &Oplog,
    nodes: &Nodes<'_>,
    files: &Files,
    key: &SigningKey,
    reason: String,
) -> Result<(Signed, Option<Repair>)> {
    let claimed = oplog.state().map(|state| state.length);
    let draft = open_file(folder, &draft_name(TREE))?;
    draft.set_len(0)?;
    let mut grower = Grower::default();
    while claimed.is_none_or(|claimed| grower.length < claimed) {
        let Some(leaf) = nodes.block_fits(grower.length, &files.data, grower.byte_length) else { break };
        grower.push(leaf);
        for node in grower.nodes.drain(..) {
            draft.write_all_at(&tree::encode_node(&node), node.index * NODE_BYTES)?;
        }
    }
    draft.sync_all()?;
    let length = grower.length;
    let lost = claimed.unwrap_or(length).saturating_sub(length);
    // History that was signed and is now another makes a fork, so that a reader of the old one sees the difference.
    let seen = oplog.state().into_iter().chain(oplog.entries.iter().map(|entry| &entry.state));
    let fork = seen.map(|state| state.fork).max().unwrap_or(0) + u64::from(claimed != Some(length));
    let data_bytes = files.data.metadata()?.len();
    let cut_bytes = data_bytes - grower.byte_length + oplog.surplus as u64;
    let kept = keep_damaged(folder, files, grower.byte_length)?;

    let (state, root_hash) = if length > 0 {
        let root_hash = tree::root_hash(&grower.roots);
        (tree::sign(key, &root_hash, length, fork), root_hash)
    } else {
        (Signed { fork, ..Signed::default() }, Vec::new())
    };
    let mut oplog_bytes = oplog::encode_header(key, &state, &root_hash, false);
    oplog_bytes.resize(2 * SLOT_BYTES, 0);
    // A crash in between is found at the next start: the tree then proves no more than these blocks.
    take_place(folder, TREE)?;
    overwrite(&open_file(folder, &draft_name(OPLOG))?, &oplog_bytes)?;
    take_place(folder, OPLOG)?;
    files.data.set_len(grower.byte_length)?;
    files.data.sync_all()?;
    Ok((state, Some(Repair { reason, length, lost, cut_bytes, kept: Some(kept) })))
}

fn draft_name(name: &str) -> String {
    format!("{name}.new")
}

/// Puts a file's draft in its place: at every moment there is the old one or the new one.
fn take_place(folder: &Path, name: &str) -> io::Result<()> {
    fs::rename(folder.join(draft_name(name)), folder.join(name))?;
    sync_folder(folder)
}

fn overwrite(file: &File, bytes: &[u8]) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()
}

/// Copies what is about to be changed, so that a person can look at it.
fn keep_damaged(folder: &Path, files: &Files, data_from: u64) -> Result<PathBuf> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let kept = (0..).map(|n| folder.join(format!("damaged-{seconds}-{n}"))).find(|path| !path.exists());
    let kept = kept.unwrap_or_else(|| folder.join("damaged"));
    make_folder(&kept)?;
    for name in [OPLOG, TREE] {
        fs::copy(folder.join(name), kept.join(name))?;
    }
    let mut tail = io::BufReader::new(files.data.try_clone()?);
    io::Seek::seek(&mut tail, io::SeekFrom::Start(data_from))?;
    io::copy(&mut tail, &mut open_file(&kept, &format!("data-from-{data_from}"))?)?;
    sync_folder(&kept)?;
    Ok(kept)
}

/// Says that all blocks are there, in a way that the crate reads rightly: as bits while one page has them all, above
/// that by an entry of the oplog from which it sets the bits itself.
fn set_presence(folder: &Path, state: &Signed, entry_bit: bool) -> Result<()> {
    let bitfield = open_file(folder, BITFIELD)?;
    if state.length > MAX_BITFIELD_BLOCKS {
        let oplog = open_file(folder, OPLOG)?;
        oplog.write_all_at(&oplog::encode_presence(state, entry_bit), ENTRIES_AT as u64)?;
        oplog.sync_all()?;
        return Ok(overwrite(&bitfield, &[])?);
    }
    let mut page = vec![0u8; if state.length == 0 { 0 } else { BITFIELD_PAGE_BYTES }];
    for index in 0..usize::try_from(state.length).unwrap_or(0) {
        page[index / 8] |= 1 << (index % 8);
    }
    let mut found = vec![0; page.len()];
    let same_size = bitfield.metadata()?.len() == page.len() as u64;
    if same_size && bitfield.read_exact_at(&mut found, 0).is_ok() && found == page {
        return Ok(());
    }
    Ok(overwrite(&bitfield, &page)?)
}
