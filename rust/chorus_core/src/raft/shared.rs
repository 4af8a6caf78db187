//! What the log's thread shows to handles and followers: status, events, the applied index to wait
//! on, and which entries need no second check of their signature.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use sha2::{Digest, Sha256};
use tokio::sync::{broadcast, watch};

use super::{
    storage::Store,
    types::{RaftEvent, RaftStatus},
};

/// Events kept for a slow reader.
const EVENT_QUEUE: usize = 256;
/// Signatures remembered as good: those of entries on their way through this agent.
const VERIFIED_MAX: usize = 16_384;

/// Locks that survive a panic of the machine: what they guard is rebuilt from disk.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Shared {
    pub status: watch::Sender<RaftStatus>,
    pub events: broadcast::Sender<RaftEvent>,
    pub applied: Applied,
    pub verified: Verified,
    pub store: Store,
    refused_frames: AtomicU64,
    closed: AtomicBool,
}

impl Shared {
    pub(super) fn new(store: Store) -> Self {
        Self {
            status: watch::Sender::new(RaftStatus::default()),
            events: broadcast::Sender::new(EVENT_QUEUE),
            applied: Applied::default(),
            verified: Verified::default(),
            store,
            refused_frames: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        }
    }

    pub(super) fn emit(&self, event: RaftEvent) {
        let _ = self.events.send(event);
    }

    pub(super) fn count_refused_frame(&self) {
        self.refused_frames.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused_frames(&self) -> u64 {
        self.refused_frames.load(Ordering::Relaxed)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Wakes every follower for the last time.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.applied.wake();
    }
}

/// The index up to which entries may be delivered, with a way to wait for the next.
#[derive(Default)]
pub(super) struct Applied(watch::Sender<u64>);

impl Applied {
    pub(super) fn get(&self) -> u64 {
        *self.0.borrow()
    }

    /// Never goes back: after a restart from disk the machine applies again what was delivered.
    pub(super) fn advance(&self, to: u64) {
        self.0.send_if_modified(|index| {
            let moved = to > *index;
            *index = to.max(*index);
            moved
        });
    }

    fn wake(&self) {
        self.0.send_modify(|_| {});
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

type Hash = [u8; 16];

/// Entries whose signature was checked or made here, by hash; bounded, oldest out first.
#[derive(Default)]
pub(super) struct Verified(Mutex<Hashes>);

#[derive(Default)]
struct Hashes {
    known: HashSet<Hash>,
    order: VecDeque<Hash>,
}

impl Verified {
    pub(super) fn insert(&self, entry: &[u8]) {
        let hash = Self::hash(entry);
        let Hashes { known, order } = &mut *lock(&self.0);
        if known.insert(hash) {
            order.push_back(hash);
            if order.len() > VERIFIED_MAX
                && let Some(oldest) = order.pop_front()
            {
                known.remove(&oldest);
            }
        }
    }

    pub(super) fn contains(&self, entry: &[u8]) -> bool {
        lock(&self.0).known.contains(&Self::hash(entry))
    }

    fn hash(entry: &[u8]) -> Hash {
        let digest = Sha256::digest(entry);
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        hash
    }
}
