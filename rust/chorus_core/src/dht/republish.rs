//! Keeping records alive: a paced walk over the disk gives each one to the peers closest to it once in 24 hours, and what
//! no peer holds yet goes to the next one that comes.

use std::{
    sync::{PoisonError, Weak},
    time::Duration,
};

use tokio::{sync::broadcast, time::interval};
use tokio_util::sync::CancellationToken;

use super::facade::Inner;
use crate::net::NetEvent;

/// Pause between steps of the walk.
const STEP: Duration = Duration::from_secs(30);
/// Steps in 24 hours.
const STEPS_PER_DAY: u64 = 24 * 60 * 60 / 30;
/// How long a new peer is given to say where it listens before it gets records.
const SETTLE: Duration = Duration::from_millis(500);

/// Runs until the DHT is dropped.
pub async fn run(inner: Weak<Inner>, mut events: broadcast::Receiver<NetEvent>, stop: CancellationToken) {
    let mut cursor: Option<Vec<u8>> = None;
    let mut due = 0;
    let mut steps = interval(STEP);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            event = events.recv() => match event {
                Ok(NetEvent::PeerUp { .. }) => {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(SETTLE) => {}
                    }
                    let Some(inner) = inner.upgrade() else { return };
                    give_lonely(&inner).await;
                }
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            },
            _ = steps.tick() => {
                let Some(inner) = inner.upgrade() else { return };
                due += inner.store.len().unwrap_or(0);
                let count = usize::try_from(due / STEPS_PER_DAY).unwrap_or(usize::MAX);
                due %= STEPS_PER_DAY;
                if count > 0 {
                    cursor = walk(&inner, cursor, count).await;
                }
            }
        }
    }
}

async fn give_lonely(inner: &Inner) {
    let keys = std::mem::take(&mut *inner.lonely.lock().unwrap_or_else(PoisonError::into_inner));
    for key in keys {
        if let Some(record) = inner.store.get(&key) {
            // Those that fail are remembered again.
            let _ = inner.replicate(&key, record).await;
        }
    }
}

/// One step; returns where the next one begins.
async fn walk(inner: &Inner, cursor: Option<Vec<u8>>, count: usize) -> Option<Vec<u8>> {
    let records = inner.store.walk(cursor.as_deref(), count).unwrap_or_default();
    let next = records.last().map(|(key, _)| key.clone());
    for (key, record) in records.into_iter().filter(|(_, record)| !record.is_empty()) {
        let _ = inner.kad.put_record(&key, record, STEP).await;
    }
    next
}
