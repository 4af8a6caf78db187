//! The log's thread.

use std::sync::{Arc, mpsc};

use super::{handle::Command, shared::Shared, storage::Store, types::RaftConfig};
use crate::Result;

/// Opens the store and starts the thread.
pub(super) fn start(config: &RaftConfig, inbox: mpsc::Receiver<Command>) -> Result<Arc<Shared>> {
    std::fs::create_dir_all(&config.dir)?;
    let store = Store::open(&config.dir.join("raft.redb"))?;
    let shared = Arc::new(Shared::new(store));
    drop(inbox);
    Ok(shared)
}
