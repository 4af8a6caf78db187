//! The agent's Ed25519 identity: made once, kept in a file only its owner can read, and the same after every restart.
//!
//! The file holds the libp2p protobuf encoding of the private key, so any libp2p tool can read it.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use libp2p::{PeerId, identity::Keypair};
use zeroize::Zeroizing;

use crate::{Error, Result};

/// An encoded Ed25519 key has 68 bytes; anything much larger is some other file.
const MAX_KEY_FILE_BYTES: u64 = 1024;

/// Only the owner may read or write the key.
const KEY_FILE_MODE: u32 = 0o600;

/// Bits that let anybody else at the key.
const FOREIGN_ACCESS_BITS: u32 = 0o077;

/// The key pair that names this agent on the network and signs all it says.
#[derive(Clone)]
pub struct Identity {
    keypair: Keypair,
    peer_id: PeerId,
}

impl Identity {
    /// An identity that lives in memory only.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_keypair(Keypair::generate_ed25519())
    }

    /// Reads the identity at `path`, or makes one there when nothing exists.
    ///
    /// # Errors
    /// `Invalid` when the file is no private Ed25519 key file of its owner; `Internal` when the disk fails.
    pub fn load_or_create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if let Some(found) = Self::load(path)? {
            return Ok(found);
        }
        let fresh = Self::generate();
        if fresh.store_new(path)? {
            return Ok(fresh);
        }
        // Another process made one in between: theirs is the identity.
        Self::load(path)?.ok_or_else(|| Error::Internal(format!("{} vanished while it was read", path.display())))
    }

    /// The key pair, for the transport and for signatures.
    #[must_use]
    pub fn keypair(&self) -> &Keypair {
        &self.keypair
    }

    /// The name of this agent on the network.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Signs bytes with the agent's key.
    ///
    /// # Errors
    /// `Internal` when the key cannot sign; an Ed25519 key always can.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        self.keypair.sign(message).map_err(|e| Error::Internal(e.to_string()))
    }

    fn from_keypair(keypair: Keypair) -> Self {
        let peer_id = keypair.public().to_peer_id();
        Self { keypair, peer_id }
    }

    fn load(path: &Path) -> Result<Option<Self>> {
        // A named pipe in the key's place must not make the agent wait for a writer.
        let flags = rustix::fs::OFlags::NONBLOCK.bits();
        let file = match OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::Internal(format!("cannot read {}: {e}", path.display()))),
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(Error::Invalid(format!("{} is not a regular file", path.display())));
        }
        if meta.mode() & FOREIGN_ACCESS_BITS != 0 {
            return Err(Error::Invalid(format!(
                "{0} can be read or written by others (mode {1:03o}): it may be known to them; check who had access, then `chmod 600 {0}`",
                path.display(),
                meta.mode() & 0o777
            )));
        }
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(MAX_KEY_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.is_empty() || bytes.len() as u64 > MAX_KEY_FILE_BYTES {
            return Err(not_a_key(path, &format!("it has {} bytes", meta.len())));
        }
        let keypair = Keypair::from_protobuf_encoding(&bytes).map_err(|e| not_a_key(path, &e.to_string()))?;
        Ok(Some(Self::from_keypair(keypair)))
    }

    /// Puts the key at `path` unless something is there already. The link is the moment of creation: before it the
    /// name does not exist, after it the whole key is on disk.
    fn store_new(&self, path: &Path) -> Result<bool> {
        let folder = folder_of(path);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let encoded = Zeroizing::new(self.keypair.to_protobuf_encoding().map_err(|e| Error::Internal(e.to_string()))?);
        let draft = Draft(folder.join(format!(".identity-{}-{:08x}.new", std::process::id(), rand::random::<u32>())));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(KEY_FILE_MODE).open(&draft.0)?;
        file.write_all(&encoded)?;
        file.sync_all()?;
        let made = match fs::hard_link(&draft.0, path) {
            Ok(()) => true,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => false,
            Err(e) => return Err(Error::Internal(format!("cannot create {}: {e}", path.display()))),
        };
        drop(draft);
        File::open(&folder)?.sync_all()?;
        Ok(made)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("peer_id", &self.peer_id).finish_non_exhaustive()
    }
}

/// A file that goes away with its guard, so that a failed creation leaves no key lying about.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // Nothing to be done when it fails: the draft is private and its name never used again.
        let _ = fs::remove_file(&self.0);
    }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn not_a_key(path: &Path, why: &str) -> Error {
    Error::Invalid(format!(
        "{} is no Ed25519 identity ({why}): restore it from a backup, or remove it to start with a new identity",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn is_the_same_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deeper/identity.key");
        let first = Identity::load_or_create(&path).unwrap();
        let second = Identity::load_or_create(&path).unwrap();
        assert_eq!(first.peer_id(), second.peer_id());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["identity.key"], "no draft is left behind");
    }

    #[test]
    fn refuses_a_key_that_others_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        Identity::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load_or_create(&path).unwrap_err();
        assert_eq!(error.code(), "invalid");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn refuses_what_is_no_key_and_leaves_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        for contents in [&b""[..], b"hello", &[0x08, 0x01, 0x12, 0x40], &[7; 5000]] {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
            file.write_all(contents).unwrap();
            let error = Identity::load_or_create(&path).unwrap_err();
            assert_eq!(error.code(), "invalid");
            assert!(error.to_string().contains("identity.key"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), contents);
        }
    }

    #[test]
    fn refuses_a_folder_and_a_pipe_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Identity::load_or_create(dir.path()).unwrap_err().code(), "invalid");
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(Identity::load_or_create(&pipe).unwrap_err().code(), "invalid");
    }

    #[test]
    fn all_who_race_to_create_agree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        let ids: Vec<PeerId> = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..8).map(|_| scope.spawn(|| Identity::load_or_create(&path).unwrap().peer_id())).collect();
            workers.into_iter().map(|w| w.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]));
    }

    #[test]
    fn debug_shows_no_secret() {
        let identity = Identity::generate();
        let secret = hex::encode(identity.keypair().clone().try_into_ed25519().unwrap().secret());
        assert!(!format!("{identity:?}").contains(&secret));
    }
}
