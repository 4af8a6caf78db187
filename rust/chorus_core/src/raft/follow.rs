//! Delivery of committed entries.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{shared::Shared, types::Committed};

pub(super) fn start(shared: Arc<Shared>, from: u64) -> mpsc::Receiver<Committed> {
    let _ = (shared, from);
    mpsc::channel(1).1
}
