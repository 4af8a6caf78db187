//! Subscriptions of processes: paid for with credit, bounded, with every dropped item counted.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    thread,
};

use bytes::Bytes;
use futures::executor;
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    backend::{FeedItem, Source},
    connection::{Connection, Touched, locked},
    frame::Op,
};

/// Topics with this prefix stay in this hub.
pub(super) const LOCAL_PREFIX: &str = "local/";
/// Items that may be under way when the process does not say how many.
pub(super) const DEFAULT_QUEUE: usize = 1024;
/// More than any reader needs; bounds what one subscription can hold.
pub(super) const MAX_QUEUE: usize = 65_536;
/// Items written to the socket at once.
const BATCH_ITEMS: usize = 64;

#[derive(Debug)]
pub(super) struct Sub {
    connection: Weak<Connection>,
    pub id: u32,
    credit: AtomicI64,
    more: Notify,
    /// Local items dropped since the last one that was sent.
    gap: AtomicU64,
    stopped: CancellationToken,
}

impl Sub {
    pub fn new(connection: &Arc<Connection>, id: u32, queue: usize, stopped: CancellationToken) -> Self {
        Self {
            connection: Arc::downgrade(connection),
            id,
            credit: AtomicI64::new(queue as i64),
            more: Notify::new(),
            gap: AtomicU64::new(0),
            stopped,
        }
    }

    /// Lets more items come.
    pub fn add_credit(&self, n: u32) {
        let ceiling = MAX_QUEUE as i64;
        let _ = self
            .credit
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| Some((now + i64::from(n)).min(ceiling)));
        self.more.notify_one();
    }

    /// Starts to carry a feed's items.
    pub fn carry(self: &Arc<Self>, feed: Source) {
        let blocks = feed.blocks();
        let carrying = self.stopped.clone().run_until_cancelled_owned(carry(Arc::clone(self), feed));
        if !blocks {
            tokio::spawn(carrying);
            return;
        }
        let started = thread::Builder::new().name("hub-feed".into()).spawn(|| executor::block_on(carrying));
        if let Err(error) = started {
            tracing::error!(%error, "cannot start a thread that carries a subscription");
        }
    }

    /// Ends it, and drops the feed.
    pub fn stop(&self) {
        self.stopped.cancel();
    }

    fn send(&self, connection: &Connection, mut head: Map<String, Value>, gap: u64, payload: &Bytes) {
        if gap > 0 {
            head.insert("gap".into(), gap.into());
        }
        let head = Value::Object(head).to_string();
        if connection.send(Op::Event, self.id, head.as_bytes(), payload).is_ok() {
            self.credit.fetch_sub(1, Ordering::AcqRel);
        } else {
            self.gap.fetch_add(gap + 1, Ordering::AcqRel);
        }
    }

    /// A message on a local topic: sent if there is credit and room, else counted.
    fn deliver(&self, topic: &str, from: &str, payload: &Bytes, touched: &mut Touched) -> bool {
        let Some(connection) = self.connection.upgrade() else { return false };
        if self.credit.load(Ordering::Acquire) <= 0 || connection.outbox.is_full() {
            self.gap.fetch_add(1, Ordering::AcqRel);
            return false;
        }
        let mut head = Map::new();
        head.insert("topic".into(), topic.into());
        head.insert("from".into(), from.into());
        self.send(&connection, head, self.gap.swap(0, Ordering::AcqRel), payload);
        touched.add(&connection);
        true
    }
}

/// Carries items as credit and the connection's room allow; a feed whose reader is slow waits or counts by itself.
async fn carry(sub: Arc<Sub>, mut feed: Source) {
    loop {
        let Some(connection) = sub.connection.upgrade() else { return };
        while sub.credit.load(Ordering::Acquire) <= 0 {
            sub.more.notified().await;
        }
        connection.outbox.has_room().await;
        let Some(first) = feed.next().await else { return };
        let mut next = Some(first);
        let mut sent = 0;
        while let Some(FeedItem { gap, head, payload }) = next.take() {
            let dropped = sub.gap.swap(0, Ordering::AcqRel);
            sub.send(&connection, head, gap + dropped, &payload);
            sent += 1;
            if sent < BATCH_ITEMS && sub.credit.load(Ordering::Acquire) > 0 && !connection.outbox.is_full() {
                next = feed.ready();
            }
        }
        connection.outbox.flush();
    }
}

/// Who listens to which local topic.
#[derive(Debug, Default)]
pub(super) struct LocalTopics {
    table: Mutex<HashMap<String, Vec<Weak<Sub>>>>,
    /// Items that were dropped because a reader was slow.
    pub dropped: AtomicU64,
}

impl LocalTopics {
    pub fn add(&self, topic: &str, sub: &Arc<Sub>) {
        let mut table = locked(&self.table);
        let subs = table.entry(topic.to_owned()).or_default();
        subs.retain(|sub| sub.strong_count() > 0);
        subs.push(Arc::downgrade(sub));
    }

    pub fn publish(&self, topic: &str, from: &str, payload: &Bytes, touched: &mut Touched) {
        let subs: Vec<_> = {
            let mut table = locked(&self.table);
            let Some(subs) = table.get_mut(topic) else { return };
            subs.retain(|sub| sub.strong_count() > 0);
            let alive: Vec<_> = subs.iter().filter_map(Weak::upgrade).collect();
            if alive.is_empty() {
                table.remove(topic);
            }
            alive
        };
        for sub in subs {
            if !sub.deliver(topic, from, payload, touched) {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
