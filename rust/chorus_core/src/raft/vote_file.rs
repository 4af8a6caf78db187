//! What an agent's vote file says while nothing runs: whose it is, in which mesh, and how far its log goes.

use std::{
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use redb::{Database, DatabaseError, StorageError};
use serde::Serialize;

use super::storage;
use crate::{Error, Result};

/// The file in the log's folder that holds votes, log and members.
pub(super) const VOTE_FILE: &str = "raft.redb";

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
}

impl VoteFile {
    /// Reads the file at `path`; none when it is missing, empty, or of an agent that was never in a mesh.
    ///
    /// # Errors
    /// `tampered` for a damaged file, `internal` when it cannot be read or is in use.
    pub fn read(path: &Path) -> Result<Option<Self>> {
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
            Ok(db) => match storage::tables(&db).and_then(|()| storage::load(&db)) {
                Ok(mem) => Ok(mem),
                Err(error) => Err(Error::Tampered(error.to_string())),
            },
            Err(error) if is_of_the_disk(&error) => Err(Error::Internal(format!("{}: {error}", path.display()))),
            Err(error) => Err(Error::Tampered(format!("{}: {error}", path.display()))),
        }));
        let mem = outcome.unwrap_or_else(|_| Err(Error::Tampered(format!("{}: not readable", path.display()))))?;
        Ok(mem.identity.map(|identity| Self {
            mesh: identity.mesh,
            raft_id: identity.raft_id,
            owner: identity.owner.map(|owner| owner.to_string()),
            last: mem.last,
            lost: mem.lost,
        }))
    }
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
        let expected = VoteFile { mesh: "m".into(), raft_id: 7, owner: Some(owner.to_string()), last: 2, lost: None };
        assert_eq!(said, expected);
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
        }
        assert_eq!(VoteFile::read(folder.path()).unwrap_err().code(), "internal");
    }
}
