//! Feeds of the core: gossip, committed entries, events; those of the audit log are beside it.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::broadcast::{self, error::RecvError};

use super::{Parts, audit};
use crate::{
    Error, Result,
    hub::backend::{Feed, FeedItem, Source},
    net::{GossipSubscription, NetEvent},
    raft::{Committed, Follower, RaftEvent},
};

pub(super) fn open(
    parts: &Arc<Parts>,
    method: &str,
    head: &Map<String, Value>,
    queue: usize,
) -> Option<Result<Source>> {
    match method {
        "subscribe" => {
            let topics: Vec<String> = head
                .get("topics")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|topic| topic.as_str().map(str::to_owned))
                .collect();
            Some(gossip(parts, &topics, queue))
        }
        "raft.follow" => Some(match head.get("from").and_then(Value::as_u64) {
            Some(from) => Ok(Box::new(Follow(parts.raft.follow(from)))),
            None => Err(Error::Invalid("from: an index is needed".into())),
        }),
        "log.follow" | "log.verify" => Some(audit::open(&parts.log, method, head)),
        "events" => Some(Ok(Box::new(Events { net: parts.net.events(), raft: parts.raft.events(), gap: 0 }))),
        _ => None,
    }
}

fn gossip(parts: &Parts, topics: &[String], queue: usize) -> Result<Source> {
    for topic in topics {
        topic.parse::<crate::wire::Topic>()?;
    }
    Ok(Box::new(Gossip(parts.net.subscribe(topics, queue))))
}

struct Gossip(GossipSubscription);

impl Feed for Gossip {
    fn next(&mut self) -> BoxFuture<'_, Option<FeedItem>> {
        async {
            let (gap, message) = self.0.recv().await?;
            let mut head = Map::new();
            head.insert("topic".into(), message.topic.into());
            head.insert("type".into(), message.kind.into());
            head.insert("from".into(), message.from.to_string().into());
            head.insert("timestamp".into(), message.timestamp_ms.into());
            head.insert("id".into(), message.id.into());
            head.insert("seq".into(), message.sequence.into());
            Some(FeedItem { gap, head, payload: message.raw })
        }
        .boxed()
    }
}

struct Follow(Follower);

impl Feed for Follow {
    fn next(&mut self) -> BoxFuture<'_, Option<FeedItem>> {
        async { self.0.recv().await.map(item_of) }.boxed()
    }

    fn ready(&mut self) -> Option<FeedItem> {
        self.0.ready().map(item_of)
    }

    fn blocks(&self) -> bool {
        true
    }
}

fn item_of(entry: Committed) -> FeedItem {
    let mut head = Map::new();
    head.insert("index".into(), entry.index.into());
    head.insert("term".into(), entry.term.into());
    head.insert("stamp".into(), entry.stamp.into());
    head.insert("type".into(), entry.kind.into());
    head.insert("id".into(), entry.id.into());
    head.insert("author".into(), entry.author.into());
    head.insert("seen".into(), entry.seen.into());
    if let Some(reason) = entry.reason {
        head.insert("reason".into(), reason.into());
    }
    FeedItem { gap: 0, head, payload: entry.body }
}

struct Events {
    net: broadcast::Receiver<NetEvent>,
    raft: broadcast::Receiver<RaftEvent>,
    gap: u64,
}

impl Feed for Events {
    fn next(&mut self) -> BoxFuture<'_, Option<FeedItem>> {
        async {
            loop {
                let head = tokio::select! {
                    event = self.net.recv() => event.map(|event| object(&event)),
                    event = self.raft.recv() => event.map(|event| object(&event)),
                };
                match head {
                    Ok(head) => {
                        return Some(FeedItem { gap: std::mem::take(&mut self.gap), head, payload: Bytes::new() });
                    }
                    Err(RecvError::Lagged(missed)) => self.gap += missed,
                    Err(RecvError::Closed) => return None,
                }
            }
        }
        .boxed()
    }
}

fn object(event: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(event) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    }
}
