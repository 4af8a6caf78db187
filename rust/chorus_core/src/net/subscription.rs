//! Local subscribers to gossip topics: bounded queues in which a slow reader finds counted gaps, never silent loss.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, mpsc};

use super::GossipMessage;

/// A subscription to topics; dropping it unsubscribes (when it was the last one for a topic, in the network too).
#[derive(Debug)]
pub struct GossipSubscription {
    id: u64,
    queue: mpsc::Receiver<(u64, GossipMessage)>,
    subscribers: Arc<Subscribers>,
}

impl GossipSubscription {
    /// The next message and how many were dropped before it because this reader was slow; `None` after shutdown.
    pub async fn recv(&mut self) -> Option<(u64, GossipMessage)> {
        self.queue.recv().await
    }
}

impl Drop for GossipSubscription {
    fn drop(&mut self) {
        self.subscribers.lock().entries.remove(&self.id);
        self.subscribers.changed.notify_one();
    }
}

/// All subscribers of this agent.
#[derive(Debug, Default)]
pub struct Subscribers {
    table: Mutex<Table>,
    /// Woken when the wanted topics may have changed.
    pub changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    closed: bool,
    entries: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    topics: Vec<String>,
    queue: mpsc::Sender<(u64, GossipMessage)>,
    gap: u64,
}

impl Subscribers {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subscriber; the network follows as soon as the loop sees it.
    pub fn subscribe(self: &Arc<Self>, topics: &[String], queue: usize) -> GossipSubscription {
        let (sender, receiver) = mpsc::channel(queue.max(1));
        let mut table = self.lock();
        table.next += 1;
        let id = table.next;
        if !table.closed {
            table.entries.insert(id, Entry { topics: topics.to_vec(), queue: sender, gap: 0 });
        }
        drop(table);
        self.changed.notify_one();
        GossipSubscription { id, queue: receiver, subscribers: self.clone() }
    }

    /// Every topic somebody here wants.
    pub fn topics(&self) -> std::collections::BTreeSet<String> {
        self.lock().entries.values().flat_map(|entry| entry.topics.iter().cloned()).collect()
    }

    /// Hands a message to those who want it; returns how many queues had no room.
    pub fn deliver(&self, message: &GossipMessage) -> u64 {
        let mut full = 0;
        for entry in self.lock().entries.values_mut().filter(|entry| entry.topics.contains(&message.topic)) {
            match entry.queue.try_send((entry.gap, message.clone())) {
                Ok(()) => entry.gap = 0,
                Err(_) => {
                    entry.gap += 1;
                    full += 1;
                }
            }
        }
        full
    }

    /// Ends every subscription.
    pub fn close(&self) {
        let mut table = self.lock();
        table.closed = true;
        table.entries.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_sees_a_counted_gap() {
        let subscribers = Arc::new(Subscribers::default());
        let mut subscription = subscribers.subscribe(&["chorus/tasks".into()], 2);
        let message = GossipMessage {
            topic: "chorus/tasks".into(),
            kind: "task_cancel".into(),
            from: libp2p::PeerId::random(),
            timestamp_ms: 0,
            id: String::new(),
            sequence: 0,
            raw: bytes::Bytes::new(),
        };
        let dropped: u64 = (0..5).map(|_| subscribers.deliver(&message)).sum();
        assert_eq!(dropped, 3);
        assert_eq!(subscription.recv().await.unwrap().0, 0);
        assert_eq!(subscription.recv().await.unwrap().0, 0);
        subscribers.deliver(&message);
        assert_eq!(subscription.recv().await.unwrap().0, 3);
        drop(subscription);
        assert!(subscribers.topics().is_empty());
    }
}
