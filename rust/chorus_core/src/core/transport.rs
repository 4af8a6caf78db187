//! The replicated log's way to other members: lanes for its own frames, a request for proposals.

use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use libp2p::PeerId;
use serde_json::Value;

use crate::{Error, Result, hub::methods::FORWARD_SERVICE, net::{Lane, NetHandle}, raft::RaftTransport};

pub(super) struct NetTransport {
    net: NetHandle,
    lane: Lane,
}

impl NetTransport {
    pub fn new(net: NetHandle) -> Self {
        Self { lane: net.lane(), net }
    }
}

impl RaftTransport for NetTransport {
    fn send(&self, to: PeerId, frame: Bytes) {
        self.lane.send(to, frame);
    }

    fn forward(&self, leader: PeerId, entry: Bytes, timeout: Duration) -> BoxFuture<'static, Result<u64>> {
        let net = self.net.clone();
        async move {
            let reply = net.request(leader, FORWARD_SERVICE, "propose", Bytes::new(), entry, timeout).await?;
            let head: Value = serde_json::from_slice(&reply.head).unwrap_or_default();
            head["index"].as_u64().ok_or_else(|| Error::Invalid("the leader's answer has no index".into()))
        }
        .boxed()
    }
}
