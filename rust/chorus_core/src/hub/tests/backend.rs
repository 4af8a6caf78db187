//! A stand-in for the core: echoes, a feed that counts, and peers that are other hubs.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use libp2p::PeerId;
use serde_json::{Map, Value, json};
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
        (method == "count").then(|| Ok(Box::new(Count(0)) as Source))
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

    fn reserved(&self, request: IncomingRequest) {
        let _ = request
            .reply
            .send(Ok(net::Reply { head: json!({"core": true}).to_string().into(), payload: Bytes::new() }));
    }
}

pub struct Served {
    pub folder: TempDir,
    pub hub: Hub,
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
        let hub = Hub::start(&folder.path().join("hub.sock"), Arc::new(Stand { peer, requests }), rules).unwrap();
        hub.route(incoming, streams);
        Self { folder, hub }
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("hub.sock")
    }
}
