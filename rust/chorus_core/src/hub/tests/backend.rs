//! A stand-in for the core: echoes, a feed that counts, and peers that are other hubs.

use std::{
    sync::{Arc, Mutex, mpsc as std_mpsc},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use libp2p::PeerId;
use serde_json::{Map, Value};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::{
    Error, Result,
    hub::backend::Pipe,
    hub::{Answer, Backend, Feed, FeedItem, Hub, ServiceRules, Source},
    net::{self, IncomingRequest},
};

pub struct Stand {
    peer: String,
    /// The way to the one other hub.
    pub requests: mpsc::Sender<IncomingRequest>,
    /// What the feed that blocks waits for; to be taken once.
    numbers: Mutex<Option<std_mpsc::Receiver<u64>>>,
}

/// Counts up without end.
struct Count(u64);

impl Feed for Count {
    fn next(&mut self) -> BoxFuture<'_, Option<FeedItem>> {
        self.0 += 1;
        let mut head = Map::new();
        head.insert("n".into(), self.0.into());
        futures::future::ready(Some(FeedItem { gap: 0, head, payload: Bytes::new() })).boxed()
    }
}

/// Gives the numbers that it is sent, and blocks its thread until there is one.
struct Blocking(std_mpsc::Receiver<u64>);

impl Feed for Blocking {
    fn next(&mut self) -> BoxFuture<'_, Option<FeedItem>> {
        let numbers = &mut self.0;
        async move {
            let mut head = Map::new();
            head.insert("n".into(), numbers.recv().ok()?.into());
            Some(FeedItem { gap: 0, head, payload: Bytes::new() })
        }
        .boxed()
    }

    fn ready(&mut self) -> Option<FeedItem> {
        None
    }

    fn blocks(&self) -> bool {
        true
    }
}

impl Backend for Stand {
    fn hello(&self) -> Map<String, Value> {
        let mut hello = Map::new();
        hello.insert("peer_id".into(), self.peer.clone().into());
        hello
    }

    fn local_peer(&self) -> &str {
        &self.peer
    }

    fn call(
        &self,
        method: &str,
        head: Map<String, Value>,
        payload: Bytes,
    ) -> Option<BoxFuture<'static, Result<Answer>>> {
        match method {
            "echo" => Some(futures::future::ready(Ok(Answer { head: Value::Object(head), payload })).boxed()),
            "stuck" => Some(futures::future::pending().boxed()),
            _ => None,
        }
    }

    fn feed(&self, method: &str, _head: &Map<String, Value>, _queue: usize) -> Option<Result<Source>> {
        match method {
            "count" => Some(Ok(Box::new(Count(0)))),
            "block" => self.numbers.lock().unwrap().take().map(|numbers| Ok(Box::new(Blocking(numbers)) as Source)),
            _ => None,
        }
    }

    fn request(
        &self,
        _peer: &str,
        service: &str,
        method: &str,
        head: Bytes,
        payload: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<net::Reply>> {
        let (reply, answer) = oneshot::channel();
        let request = IncomingRequest {
            peer: PeerId::random(),
            service: service.into(),
            method: method.into(),
            head,
            payload,
            timeout,
            reply,
        };
        let requests = self.requests.clone();
        async move {
            requests.send(request).await.map_err(|_| Error::Closed)?;
            answer.await.map_err(|_| Error::Closed)?
        }
        .boxed()
    }

    fn open_stream(
        &self,
        _peer: &str,
        service: &str,
        _method: &str,
        _head: Bytes,
        _timeout: Duration,
    ) -> BoxFuture<'static, Result<Pipe>> {
        let opened = if service == "unread" {
            let (ours, theirs) = tokio::io::duplex(1024);
            // The peer keeps its end open and reads nothing.
            tokio::spawn(async move {
                let _kept = theirs;
                std::future::pending::<()>().await;
            });
            Ok(Box::new(ours.compat()) as Pipe)
        } else {
            Err(Error::Unavailable("no such service at the peer".into()))
        };
        futures::future::ready(opened).boxed()
    }
}

pub struct Served {
    pub folder: TempDir,
    pub hub: Hub,
    /// To the feed that blocks.
    pub numbers: std_mpsc::Sender<u64>,
}

impl Served {
    pub fn start() -> Self {
        Self::with_rules(None)
    }

    pub fn with_rules(rules: Option<ServiceRules>) -> Self {
        let folder = tempfile::Builder::new().prefix("hub").tempdir_in("/tmp").unwrap();
        let (requests, incoming) = mpsc::channel(16);
        let (_, streams) = mpsc::channel(1);
        let peer = PeerId::random().to_string();
        let (numbers, waiting) = std_mpsc::channel();
        let stand = Stand { peer, requests, numbers: Mutex::new(Some(waiting)) };
        let hub = Hub::start(&folder.path().join("hub.sock"), Arc::new(stand), rules).unwrap();
        hub.route(incoming, streams);
        Self { folder, hub, numbers }
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("hub.sock")
    }
}
