//! The replicated log's way to other members: lanes for its own frames, a request for proposals.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use libp2p::PeerId;
use serde_json::Value;

use crate::{
    Error, Result,
    hub::methods::FORWARD_SERVICE,
    net::{Lane, NetHandle, Offence},
    raft::RaftTransport,
};

pub(super) struct NetTransport {
    /// Gone once closed: the log's thread ends in its own time and must not keep the network's files open.
    net: Mutex<Option<NetHandle>>,
    lane: Lane,
}

impl NetTransport {
    pub fn new(net: NetHandle) -> Self {
        Self { lane: net.lane(), net: Mutex::new(Some(net)) }
    }

    /// Lets go of the network.
    pub fn close(&self) {
        self.net.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl RaftTransport for NetTransport {
    fn send(&self, to: PeerId, frame: Bytes) {
        self.lane.send(to, frame);
    }

    fn refused(&self, from: PeerId, malformed: bool) {
        if let Some(net) = &*self.net.lock().unwrap_or_else(PoisonError::into_inner) {
            net.blame(from, if malformed { Offence::Malformed } else { Offence::Refused });
        }
    }

    fn forward(&self, leader: PeerId, entry: Bytes, timeout: Duration) -> BoxFuture<'static, Result<u64>> {
        let net = self.net.lock().unwrap_or_else(PoisonError::into_inner).clone();
        async move {
            let net = net.ok_or(Error::Closed)?;
            let reply = net.request(leader, FORWARD_SERVICE, "propose", Bytes::new(), entry, timeout).await?;
            let head: Value = serde_json::from_slice(&reply.head).unwrap_or_default();
            head["index"].as_u64().ok_or_else(|| Error::Invalid("the leader's answer has no index".into()))
        }
        .boxed()
    }
}
