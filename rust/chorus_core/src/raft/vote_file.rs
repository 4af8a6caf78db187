//! What an agent's vote file says while nothing runs: whose it is, in which mesh, and what its log holds.

use std::{
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use redb::{Database, DatabaseError, StorageError};
use serde::Serialize;
use serde_json::json;

use super::{
    follow,
    shared::Verified,
    storage::{self, FOUNDING_INDEX, Mem},
    types::Committed,
};
use crate::{Error, Result};

/// The file in the log's folder that holds votes, log and members.
pub(super) const VOTE_FILE: &str = "raft.redb";

/// Entries that one call of [`read_log`] answers with, in bytes.
const PAGE_BYTES: u64 = 8 * 1024 * 1024;

/// What a vote file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VoteFile {
    /// The mesh that its owner is a member of.
    pub mesh: String,
    /// Its owner's raft id there.
    pub raft_id: u64,
    /// Its owner's peer id; a file of an earlier release may not tell.
    pub owner: Option<String>,
    /// The last index in the log.
    pub last: u64,
    /// Why its owner must not take part any more.
    pub lost: Option<String>,
    /// Why its owner is a member no more: the log in the file says that it was removed.
    pub removed: Option<String>,
}

impl VoteFile {
    /// Reads the file at `path`; none when it is missing, empty, or of an agent that was never in a mesh.
    ///
    /// # Errors
    /// `tampered` for a damaged file, `internal` when it cannot be read or is in use.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let Some((_, mem)) = open(path, |_, _| Ok(()))? else {
            return Ok(None);
        };
        Ok(mem.identity.map(|identity| Self {
            mesh: identity.mesh,
            raft_id: identity.raft_id,
            owner: identity.owner.map(|owner| owner.to_string()),
            last: mem.last,
            lost: mem.lost,
            removed: mem.removed,
        }))
    }
}

/// Reads up to `limit` entries of the log in the vote file at `path`, committed or not, from index `first` on: each as a
/// JSON object with `index`, `term`, `stamp`, `type`, `id`, `author`, `seen`, `body` and `reason`, checked as entries are
/// that a running agent delivers. At least one when there is one, then no more than fit into [`PAGE_BYTES`]; none at the
/// log's end, and none of an agent that was never in a mesh.
///
/// # Errors
/// `tampered` for a damaged file, `internal` when it cannot be read or is in use.
pub fn read_log(path: &Path, first: u64, limit: usize) -> Result<Vec<Vec<u8>>> {
    let read = open(path, |db, mem| {
        let Some(identity) = &mem.identity else {
            return Ok(Vec::new());
        };
        let verified = Verified::default();
        let mut lines = Vec::new();
        if first <= FOUNDING_INDEX && limit > 0 {
            lines.push(line(&follow::founding(&identity.founding)));
        }
        let from = first.max(FOUNDING_INDEX + 1);
        let entries = storage::entries(db, from, limit.saturating_sub(lines.len()), PAGE_BYTES)?;
        lines.extend(entries.iter().map(|entry| line(&follow::committed(entry, &identity.mesh, &verified))));
        Ok(lines)
    })?;
    Ok(read.map_or_else(Vec::new, |(lines, _)| lines))
}

/// An entry as JSON. The body stands there as it was signed.
fn line(entry: &Committed) -> Vec<u8> {
    let Committed { index, term, stamp, seen, .. } = entry;
    let (kind, id, author) = (json!(entry.kind), json!(entry.id), json!(entry.author));
    let body = if entry.body.is_empty() { "null".into() } else { String::from_utf8_lossy(&entry.body) };
    let reason = json!(entry.reason);
    format!(
        r#"{{"index":{index},"term":{term},"stamp":{stamp},"type":{kind},"id":{id},"author":{author},"seen":{seen},"body":{body},"reason":{reason}}}"#
    )
    .into_bytes()
}

/// Opens the file at `path` and reads it by `read`; none when it is missing or empty.
fn open<T>(path: &Path, read: impl FnOnce(&Database, &Mem) -> Result<T>) -> Result<Option<(T, Mem)>> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() && found.len() == 0 => return Ok(None),
        Ok(found) if !found.is_file() => {
            return Err(Error::Internal(format!("{} is no file", path.display())));
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::Internal(format!("{}: {error}", path.display()))),
    }
    // redb trusts some of what stands in a file, and panics where that is not so.
    let outcome = catch_unwind(AssertUnwindSafe(|| match Database::open(path) {
        Ok(db) => {
            let read =
                storage::tables(&db).and_then(|()| storage::load(&db)).and_then(|mem| Ok((read(&db, &mem)?, mem)));
            read.map_err(|error| Error::Tampered(error.to_string()))
        }
        Err(error) if is_of_the_disk(&error) => Err(Error::Internal(format!("{}: {error}", path.display()))),
        Err(error) => Err(Error::Tampered(format!("{}: {error}", path.display()))),
    }));
    outcome.unwrap_or_else(|_| Err(Error::Tampered(format!("{}: not readable", path.display())))).map(Some)
}

/// Whether the error says nothing about what stands in the file.
fn is_of_the_disk(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::DatabaseAlreadyOpen => true,
        DatabaseError::Storage(StorageError::Io(error)) => {
            !matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use bytes::Bytes;
    use libp2p::identity::Keypair;
    use raft::eraftpb::Entry;

    use super::{
        super::storage::{Batch, Identity, Store},
        *,
    };

    #[test]
    fn a_file_says_whose_it_is_and_how_far_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(VOTE_FILE);
        assert_eq!(VoteFile::read(&path).unwrap(), None);
        assert!(read_log(&path, 1, 10).unwrap().is_empty());
        std::fs::write(&path, b"").unwrap();
        assert_eq!(VoteFile::read(&path).unwrap(), None);
        let store = Store::open(&path).unwrap();
        assert_eq!(VoteFile::read(&path).unwrap_err().code(), "internal", "it is in use");
        let owner = Keypair::generate_ed25519().public().to_peer_id();
        let identity =
            Identity { mesh: "m".into(), raft_id: 7, founding: Bytes::from_static(b"x"), owner: Some(owner) };
        store.init(&identity, owner, &[]).unwrap();
        let entries = [Entry { index: 2, term: 1, ..Entry::default() }];
        store.write(&Batch { entries: &entries, ..Batch::default() }).unwrap();
        store.close();
        let said = VoteFile::read(&path).unwrap().unwrap();
        let expected = VoteFile {
            mesh: "m".into(),
            raft_id: 7,
            owner: Some(owner.to_string()),
            last: 2,
            lost: None,
            removed: None,
        };
        assert_eq!(said, expected);
        // Entries that fail a check are read too, and pages are bounded.
        let said: serde_json::Value = serde_json::from_slice(&read_log(&path, 2, 10).unwrap()[0]).unwrap();
        assert_eq!((&said["type"], &said["index"]), (&json!(""), &json!(2)));
        let store = Store::open(&path).unwrap();
        let large = |index| Entry { index, term: 1, data: vec![7; PAGE_BYTES as usize / 2], ..Entry::default() };
        store.write(&Batch { entries: &[large(3), large(4)], ..Batch::default() }).unwrap();
        drop(store);
        let page = read_log(&path, 3, 10).unwrap();
        assert_eq!(page.len(), 1, "two of them are larger than a page");
        let said: serde_json::Value = serde_json::from_slice(&page[0]).unwrap();
        assert_eq!((&said["type"], &said["body"]), (&json!("invalid"), &serde_json::Value::Null));
        assert!(said["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
        let store = Store::open(&path).unwrap();
        store.retire("gone").unwrap();
        drop(store);
        assert_eq!(VoteFile::read(&path).unwrap().unwrap().lost.as_deref(), Some("gone"));
    }

    #[test]
    fn a_file_that_was_never_in_a_mesh_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(VOTE_FILE);
        drop(Store::open(&path).unwrap());
        assert_eq!(VoteFile::read(&path).unwrap(), None);
    }

    #[test]
    fn a_damaged_file_is_told_from_a_disk_that_failed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(VOTE_FILE);
        drop(Store::open(&path).unwrap());
        let whole = std::fs::read(&path).unwrap();
        for damaged in [b"hello".to_vec(), vec![0; 4096], whole[..whole.len() / 3].to_vec(), vec![7; whole.len()]] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(VoteFile::read(&path).unwrap_err().code(), "tampered");
            assert_eq!(read_log(&path, 1, 10).unwrap_err().code(), "tampered");
        }
        assert_eq!(VoteFile::read(folder.path()).unwrap_err().code(), "internal");
    }
}
