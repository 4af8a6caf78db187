//! What the hub asks of the core: methods, feeds of events, and the way to peers.

use std::time::Duration;

use bytes::Bytes;
use futures::{
    AsyncRead, AsyncWrite,
    future::{BoxFuture, FutureExt},
};
use serde_json::{Map, Value};

use crate::{Result, net};

/// Answer to a method of the core.
#[derive(Debug, Default)]
pub struct Answer {
    /// The head of the OK frame.
    pub head: Value,
    /// Its payload.
    pub payload: Bytes,
}

impl Answer {
    /// An answer that is all head.
    #[must_use]
    pub fn head(head: Value) -> Self {
        Self { head, payload: Bytes::new() }
    }

    /// An answer that is all payload.
    #[must_use]
    pub fn payload(payload: impl Into<Bytes>) -> Self {
        Self { head: Value::Null, payload: payload.into() }
    }
}

/// An event on its way to a subscriber.
#[derive(Debug)]
pub struct FeedItem {
    /// Items lost before this one because the reader was slow.
    pub gap: u64,
    /// The head of the EVENT frame.
    pub head: Map<String, Value>,
    /// Its payload.
    pub payload: Bytes,
}

/// Where a subscription's items come from. Dropping it ends the subscription.
pub trait Feed: Send {
    /// The next item; `None` when no more will come. Safe to drop before it is ready.
    fn next(&mut self) -> BoxFuture<'_, Option<FeedItem>>;

    /// The next item if it is here already.
    fn ready(&mut self) -> Option<FeedItem> {
        self.next().now_or_never().flatten()
    }

    /// Whether `next` may block its thread; such a feed is carried on a thread of its own.
    fn blocks(&self) -> bool {
        false
    }
}

/// A feed that a subscription holds.
pub type Source = Box<dyn Feed>;

/// A byte stream to or from a peer.
pub trait PipeIo: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> PipeIo for T {}
/// A boxed byte stream to or from a peer.
pub type Pipe = Box<dyn PipeIo>;

/// The core, as the hub sees it.
pub trait Backend: Send + Sync + 'static {
    /// Answers `hello`: `peer_id`, `agent_id`, `version`.
    fn hello(&self) -> Map<String, Value>;

    /// This agent's peer id, so that requests to oneself stay here.
    fn local_peer(&self) -> &str;

    /// A method of the core; `None` when there is none of that name.
    fn call(
        &self,
        method: &str,
        head: Map<String, Value>,
        payload: Bytes,
    ) -> Option<BoxFuture<'static, Result<Answer>>>;

    /// Opens a feed: gossip for `subscribe`, or a method that is a feed by itself (`raft.follow`, `events`).
    fn feed(&self, method: &str, head: &Map<String, Value>, queue: usize) -> Option<Result<Source>>;

    /// Asks a peer.
    fn request(
        &self,
        peer: &str,
        service: &str,
        method: &str,
        head: Bytes,
        payload: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<net::Reply>>;

    /// Opens a byte stream to a peer.
    fn open_stream(
        &self,
        peer: &str,
        service: &str,
        method: &str,
        head: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Pipe>>;
}
