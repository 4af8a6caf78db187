//! Memory that peers fill, counted in bytes for each of them and in all. What does not fit waits, so that the peer's own
//! connection stops being read; or it is refused, where nothing can wait.
//!
//! The nearer the sum is to its limit, the less one peer may hold: no more than what is still free. So the largest
//! consumers are stopped first, and the others find room (Choudhury and Hahne, dynamic queue thresholds, 1998).

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::Notify;

/// What all peers together may hold of one kind of memory.
#[derive(Debug)]
pub struct Budget {
    limit_bytes: usize,
    used: AtomicUsize,
    freed: Notify,
}

impl Budget {
    pub fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self { limit_bytes, used: AtomicUsize::new(0), freed: Notify::new() })
    }

    /// One peer's share; all tasks that serve the peer use the same one.
    pub fn account(self: &Arc<Self>) -> Arc<Account> {
        Arc::new(Account { budget: Arc::clone(self), held: AtomicUsize::new(0) })
    }

    /// Bytes that are held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// What one peer holds.
#[derive(Debug)]
pub struct Account {
    budget: Arc<Budget>,
    held: AtomicUsize,
}

impl Account {
    /// Takes `bytes` at once, or nothing: when the peer would hold more than `limit_bytes`, or more than is still free.
    pub fn try_hold(self: &Arc<Self>, bytes: usize, limit_bytes: usize) -> Option<Held> {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let taken = held <= limit_bytes
            && self
                .budget
                .used
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                    (held <= self.budget.limit_bytes.saturating_sub(used)).then_some(used + bytes)
                })
                .is_ok();
        if taken {
            return Some(Held { account: Arc::clone(self), bytes });
        }
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        None
    }

    /// Waits until `bytes` can be taken. More than both limits allow is never had: callers bound what they ask for.
    pub async fn hold(self: &Arc<Self>, bytes: usize, limit_bytes: usize) -> Held {
        loop {
            let mut freed = pin!(self.budget.freed.notified());
            // Enlisted before trying, so that no waking is missed.
            freed.as_mut().enable();
            if let Some(held) = self.try_hold(bytes, limit_bytes) {
                return held;
            }
            freed.await;
        }
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.load(Ordering::Relaxed) == 0
    }
}

/// Bytes that count until this is dropped.
#[derive(Debug)]
pub struct Held {
    account: Arc<Account>,
    bytes: usize,
}

impl Held {
    /// Bytes that count as held as long as any part of them is kept.
    pub fn own(self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Owned { bytes, _held: self })
    }

    /// Adds what the same account holds besides.
    pub fn join(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.account, &other.account), "only one account's bytes are added up");
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Takes `bytes` off, or all when there are fewer; they count until what is returned is dropped.
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { account: Arc::clone(&self.account), bytes }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.held.fetch_sub(self.bytes, Ordering::Relaxed);
        self.account.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.account.budget.freed.notify_waiters();
    }
}

struct Owned {
    bytes: Vec<u8>,
    _held: Held,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_peer_has_its_limit_and_the_largest_is_stopped_first() {
        let budget = Budget::new(100);
        let (large, small) = (budget.account(), budget.account());
        let first = large.try_hold(40, 60).unwrap();
        assert!(large.try_hold(30, 60).is_none(), "beyond its own limit");
        let second = large.try_hold(10, 60).unwrap();
        // 50 are used and 50 free: the large one gets no more, the small one does.
        assert!(large.try_hold(1, 60).is_none());
        let other = small.try_hold(25, 60).unwrap();
        assert!(small.try_hold(1, 60).is_none());
        drop((first, second));
        assert!(small.try_hold(30, 60).is_some());
        drop(other);
        assert_eq!(budget.used(), 0);
        assert!(large.is_empty() && small.is_empty());
    }

    #[test]
    fn joined_and_split_parts_count_once() {
        let budget = Budget::new(100);
        let account = budget.account();
        let mut held = account.try_hold(20, 60).unwrap();
        held.join(account.try_hold(10, 60).unwrap());
        assert_eq!(budget.used(), 30);
        let part = held.split(25);
        drop(held);
        assert_eq!(budget.used(), 25);
        drop(part);
        assert!(account.is_empty());
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_another_lets_go_and_every_part_counts() {
        let budget = Budget::new(100);
        let (one, other) = (budget.account(), budget.account());
        let bytes = one.hold(50, 100).await.own(vec![7; 50]);
        let part = bytes.slice(10..20);
        drop(bytes);
        assert!(other.hold(60, 100).now_or_never().is_none());
        let waiting = other.hold(60, 100);
        let (held, ()) = tokio::join!(waiting, async {
            tokio::task::yield_now().await;
            drop(part);
        });
        drop(held);
        assert_eq!(budget.used(), 0);
    }
}
