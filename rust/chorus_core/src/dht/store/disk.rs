//! The store's file: opened, and opened again after an error of the disk.

use std::{
    path::Path,
    sync::{PoisonError, RwLock},
    time::{Duration, Instant},
};

use redb::{Builder, Database, DatabaseError};

use crate::{Error, Result, database};

/// Pages that redb keeps in memory.
const DISK_CACHE_BYTES: usize = 8 * 1024 * 1024;
/// How long opening waits for the file's last holder, and how often it looks.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);
const RELEASE_STEP: Duration = Duration::from_millis(20);

type Opener = Box<dyn Fn() -> Result<Database> + Send + Sync>;

pub(super) struct Disk {
    opener: Opener,
    /// Nothing after an error, until it could be opened again.
    database: RwLock<Option<Database>>,
}

impl Disk {
    pub fn new(opener: Opener) -> Result<Self> {
        let database = RwLock::new(Some(opener()?));
        Ok(Self { opener, database })
    }

    pub fn read<T>(&self, work: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        work(database.as_ref().ok_or_else(|| Error::Internal("DHT store: closed after a disk error".into()))?)
    }

    pub fn is_open(&self) -> bool {
        self.database.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Lets go of the file and opens it anew; redb takes no more writes after an error.
    pub fn reopen(&self) -> Result<()> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        drop(database.take());
        *database = Some((self.opener)()?);
        Ok(())
    }
}

/// Opens the file; one that a store of this process is just about to let go of is waited for.
pub(super) fn open_released(path: &Path) -> Result<Database> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let until = Instant::now() + RELEASE_TIMEOUT;
    database::make_if_missing(path).map_err(disk)?;
    loop {
        match Builder::new().set_cache_size(DISK_CACHE_BYTES).open(path) {
            Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < until => std::thread::sleep(RELEASE_STEP),
            outcome => return outcome.map_err(disk),
        }
    }
}

pub(super) fn disk(error: impl Into<redb::Error>) -> Error {
    Error::Internal(format!("DHT store: {}", error.into()))
}
