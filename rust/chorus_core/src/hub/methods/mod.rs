//! The core's parts behind the hub: each method of the wire (docs/ipc.md) as a call of the part that does it.

mod audit;
mod consensus;
mod feeds;
mod findings;
mod params;
mod records;
mod sealing;

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use libp2p::PeerId;
use serde_json::{Map, Value, json};

use super::{
    Hub,
    backend::{Answer, Backend, Pipe, Source},
};
use crate::{
    Error, Result,
    crypto::LiveKeys,
    dht::{self, Dht},
    identity::Identity,
    log::LogHandle,
    net::{self, Ask, CORE_PREFIX, CoreServices, NetHandle, Publish},
    raft::RaftHandle,
    sentinel::{Action, Finding, Scanner},
};
pub use findings::Findings;
use params::Params;

/// The service under which members hand proposals to the leader.
pub(crate) const FORWARD_SERVICE: &str = "_raft";
/// Work on more bytes than this leaves the task that reads the socket.
const INLINE_WORK_BYTES: usize = 64 * 1024;

/// What a task needs unaltered to do its work.
const WHOLE_IN_TASKS: &[&str] = &["commands", "source", "stdin"];

/// The running parts of a core.
pub struct Parts {
    /// The agent's key.
    pub identity: Identity,
    /// Its name.
    pub agent_id: String,
    /// The network.
    pub net: NetHandle,
    /// Records.
    pub dht: Dht,
    /// The replicated log.
    pub raft: RaftHandle,
    /// The audit log.
    pub log: LogHandle,
    /// SHHH.
    pub scanner: Scanner,
    /// Keys of the roles this agent holds.
    pub keys: Arc<LiveKeys>,
    /// Peer id as text.
    pub local: String,
    /// Secrets found on the way out.
    pub findings: Arc<Findings>,
    /// The hub, once it runs, for its counters.
    pub hub: OnceLock<Weak<Hub>>,
}

impl Parts {
    /// Counters of every part.
    #[must_use]
    pub fn stats(&self) -> Value {
        let mut stats = serde_json::to_value(self.net.stats()).unwrap_or_else(|_| json!({}));
        if let Value::Object(stats) = &mut stats {
            stats.insert("peers_connected".into(), self.net.state().peers.len().into());
            stats.insert("shhh_findings".into(), json!(self.findings.counts()));
            stats.insert("shhh_audit".into(), json!(self.findings.audit()));
            stats.insert("raft_refused_frames".into(), self.raft.refused_frames().into());
            if let Ok(usage) = self.dht.usage() {
                stats.insert("dht_records".into(), usage.records.into());
                stats.insert("dht_pending".into(), usage.pending.into());
            }
            if let Some(hub) = self.hub.get().and_then(Weak::upgrade)
                && let Ok(Value::Object(counters)) = serde_json::to_value(hub.stats())
            {
                stats.extend(counters);
            }
        }
        stats
    }

    fn redact(&self, place: &str, text: &str) -> String {
        let (clean, found) = self.scanner.redact(text.as_bytes());
        self.findings.note(place, &found);
        String::from_utf8_lossy(&clean).into_owned()
    }

    /// `payload`, JSON, with secrets in its strings redacted but in the fields `whole`, whose findings are only noted;
    /// the very same bytes when there are none. Gives what was redacted, too.
    fn redact_json(&self, place: &str, payload: Bytes, whole: &[&str]) -> Result<(Bytes, Vec<Finding>)> {
        let mut value: Value =
            serde_json::from_slice(&payload).map_err(|error| Error::Invalid(format!("payload: not JSON: {error}")))?;
        let mut kept = Vec::new();
        for name in whole {
            if let Some(field) = value.get_mut(*name) {
                kept.push((*name, field.take()));
            }
        }
        let found = self.scanner.redact_json(&mut value);
        self.findings.note(place, &found);
        for (name, original) in kept {
            self.findings.note(&format!("{place} {name}"), &self.scanner.redact_json(&mut original.clone()));
            value[name] = original;
        }
        Ok(if found.is_empty() { (payload, found) } else { (value.to_string().into(), found) })
    }

    fn net_state(&self) -> Result<Answer> {
        let mut state =
            serde_json::to_value(self.net.state()).map_err(|error| Error::Internal(format!("net.state: {error}")))?;
        state["agent_id"] = self.agent_id.clone().into();
        state["role_keys"] = self.keys.current().kind().into();
        Ok(Answer::head(state))
    }

    async fn publish(self: Arc<Self>, params: Params, payload: Bytes) -> Result<Answer> {
        let (topic, kind) = (params.text("topic")?, params.text("type")?);
        let whole = if kind == "task_announcement" { WHOLE_IN_TASKS } else { &[] };
        let hop_count = params.optional_number("hop_count")?;
        let (data, found) = self.redact_json(topic, payload, whole)?;
        if let Some(denied) = found.iter().find(|finding| finding.action == Action::Deny) {
            return Err(Error::Refused(format!(
                "the message holds a secret that must not go out (rule {})",
                denied.rule
            )));
        }
        let publish = Publish {
            topic: topic.to_owned(),
            kind: kind.to_owned(),
            data,
            hop_count: hop_count.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            priority: params.optional_text("priority")?.map(str::to_owned),
            thread_id: params.optional_text("thread_id")?.map(|text| self.redact(topic, text)),
        };
        Ok(Answer::head(json!({"id": self.net.publish(publish).await?})))
    }
}

/// The core as the hub calls it.
pub struct CoreBackend(pub Arc<Parts>);

impl Backend for CoreBackend {
    fn hello(&self) -> Map<String, Value> {
        let mut hello = Map::new();
        hello.insert("peer_id".into(), self.0.local.clone().into());
        hello.insert("agent_id".into(), self.0.agent_id.clone().into());
        hello.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        hello
    }

    fn local_peer(&self) -> &str {
        &self.0.local
    }

    fn call(
        &self,
        method: &str,
        head: Map<String, Value>,
        payload: Bytes,
    ) -> Option<BoxFuture<'static, Result<Answer>>> {
        let parts = Arc::clone(&self.0);
        let params = Params(head);
        Some(match method {
            "publish" => parts.publish(params, payload).boxed(),
            "net.state" => futures::future::ready(parts.net_state()).boxed(),
            "net.dial" => async move {
                parts.net.dial(params.text("addr")?).await?;
                Ok(Answer::default())
            }
            .boxed(),
            "stats" => futures::future::ready(Ok(Answer::head(parts.stats()))).boxed(),
            _ => {
                return consensus::call(&parts, method, params, payload)
                    .or_else(|(params, payload)| records::call(&parts, method, params, payload))
                    .or_else(|(params, payload)| sealing::call(&parts, method, params, payload))
                    .ok();
            }
        })
    }

    fn feed(&self, method: &str, head: &Map<String, Value>, queue: usize) -> Option<Result<Source>> {
        feeds::open(&self.0, method, head, queue)
    }

    fn request(
        &self,
        peer: &str,
        service: &str,
        method: &str,
        head: Bytes,
        payload: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<net::Reply>> {
        let net = self.0.net.clone();
        let (peer, service, method) = (params::peer(peer), service.to_owned(), method.to_owned());
        async move {
            // The core's own services are the core's to ask.
            if service.starts_with(CORE_PREFIX) {
                return Err(Error::NotPermitted(format!("{service} is the core's own")));
            }
            net.request(peer?, &service, &method, head, payload, timeout).await
        }
        .boxed()
    }

    fn open_stream(
        &self,
        peer: &str,
        service: &str,
        method: &str,
        head: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Pipe>> {
        let net = self.0.net.clone();
        let (peer, service, method) = (params::peer(peer), service.to_owned(), method.to_owned());
        async move {
            let stream = net.open_stream(peer?, &service, &method, head, timeout).await?;
            Ok(Box::new(stream) as Pipe)
        }
        .boxed()
    }
}

impl CoreServices for Parts {
    fn frame(&self, from: PeerId, frame: Bytes) {
        self.raft.receive(from, frame);
    }

    fn answer(&self, from: PeerId, ask: Ask) -> BoxFuture<'static, Result<net::Reply>> {
        let (raft, dht, net) = (self.raft.clone(), self.dht.clone(), self.net.clone());
        async move {
            match ask.service.as_str() {
                dht::SERVICE => dht.serve(from, ask).await,
                FORWARD_SERVICE => {
                    let appended = raft.accept_forwarded(from, ask.payload, ask.timeout).await;
                    if matches!(appended, Err(Error::Invalid(_) | Error::Tampered(_) | Error::NotPermitted(_))) {
                        net.blame(from, net::Offence::Refused);
                    }
                    let head = json!({"index": appended?}).to_string().into();
                    Ok(net::Reply { head, payload: Bytes::new() })
                }
                other => Err(Error::Unavailable(format!("nobody offers {other} here"))),
            }
        }
        .boxed()
    }
}

/// A method's answer to be, or the call handed back because it belongs to another part.
type Work = std::result::Result<BoxFuture<'static, Result<Answer>>, (Params, Bytes)>;

/// Runs work on `bytes` bytes: here when they are few, on a thread for such work when they are many.
async fn heavy<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    if bytes <= INLINE_WORK_BYTES {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Internal(format!("work broke off: {error}")))?
}
