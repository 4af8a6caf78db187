//! Calls that a process answers: routed to it, remembered until it has, given up at their deadline.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::{Serialize, de::IgnoredAny};
use serde_json::{Map, Value, json};
use tokio::{sync::oneshot, task::AbortHandle};

use super::{
    connection::{Connection, Touched, head_error, locked},
    frame::{Frame, Op},
    server::Inner,
};
use crate::{Error, Result, net};

/// Calls that one process may have to answer at once; more are turned away, so that a stuck one is noticed.
const MAX_SERVING: usize = 4096;
/// How often deadlines are looked at while calls wait; callers keep finer time themselves.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_millis(100);
/// Calls without a deadline of their own.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Nobody waits longer than this.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// A call of a process that has no answer yet.
#[derive(Debug)]
pub(super) enum Running {
    /// The core works on it.
    Task(AbortHandle),
    /// A sibling works on it, under this id.
    Sibling(Weak<Connection>, u32),
}

/// A call to a process that has no answer yet.
#[derive(Debug)]
pub(super) struct Waiting {
    deadline: Instant,
    caller: Caller,
}

/// Who hears the answer.
#[derive(Debug)]
pub(super) enum Caller {
    /// A sibling's call.
    Sibling { connection: Weak<Connection>, call: u32 },
    /// A sibling that opens a stream, under the id `near`.
    Stream { connection: Weak<Connection>, call: u32, near: u32 },
    /// Somebody in the core, on behalf of a peer.
    Core(oneshot::Sender<Result<net::Reply>>),
}

/// What is asked, from the heads of `call`, `request` and `stream`.
pub(super) struct Ask {
    pub service: String,
    pub method: String,
    pub head: Value,
    pub timeout: Duration,
}

impl Ask {
    pub fn from_head(head: &mut Map<String, Value>) -> Result<Self> {
        let mut text = |name: &str| match head.remove(name) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(Error::Invalid(format!("{name}: a string is needed"))),
        };
        let (service, method) = (text("service")?, text("method")?);
        let inner = match head.remove("head") {
            None | Some(Value::Null) => Value::Object(Map::new()),
            Some(value @ Value::Object(_)) => value,
            Some(_) => return Err(Error::Invalid("head: an object is needed".into())),
        };
        Ok(Self { service, method, head: inner, timeout: timeout_of(head) })
    }

    /// The inner head as bytes; empty for `{}`.
    pub fn head_bytes(&self) -> Bytes {
        match &self.head {
            Value::Object(object) if !object.is_empty() => self.head.to_string().into(),
            _ => Bytes::new(),
        }
    }
}

/// `timeout_ms` of a head.
pub(super) fn timeout_of(head: &Map<String, Value>) -> Duration {
    head.get("timeout_ms").and_then(Value::as_u64).map_or(DEFAULT_TIMEOUT, Duration::from_millis).min(MAX_TIMEOUT)
}

/// Who asks.
pub(super) enum Asker<'a> {
    /// A process of this agent, by its name.
    Process(&'a str),
    /// Another agent, by its peer id.
    Peer(&'a str),
}

/// The head of a call to the process that serves it; with a stream's id it asks for that stream.
#[derive(Serialize)]
struct Served<'a> {
    m: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<u32>,
    service: &'a str,
    method: &'a str,
    head: &'a Value,
    timeout_ms: u128,
    peer: Option<&'a str>,
    process: Option<&'a str>,
}

/// Hands a call, or with its id a stream, to the process `to`. Answers the id that the call has there.
pub(super) fn hand_over(
    to: &Arc<Connection>,
    ask: &Ask,
    stream: Option<u32>,
    asker: &Asker<'_>,
    payload: &Bytes,
    caller: Caller,
) -> std::result::Result<u32, (Error, Caller)> {
    let id = to.next_id();
    let (peer, process) = match *asker {
        Asker::Process(name) => (None, Some(name)),
        Asker::Peer(id) => (Some(id), None),
    };
    let head = serde_json::to_vec(&Served {
        m: if stream.is_some() { "stream" } else { "serve" },
        stream,
        service: &ask.service,
        method: &ask.method,
        head: &ask.head,
        timeout_ms: ask.timeout.as_millis(),
        peer,
        process,
    });
    let head = match head {
        Ok(head) => head,
        Err(error) => return Err((Error::Internal(format!("the head of a call: {error}")), caller)),
    };
    {
        let mut serving = locked(&to.serving);
        if serving.len() >= MAX_SERVING || to.outbox.is_full() {
            return Err((Error::Unavailable(format!("{} does not keep up with its calls", to.label())), caller));
        }
        serving.insert(id, Waiting { deadline: Instant::now() + ask.timeout, caller });
    }
    to.waits.notify_one();
    if let Err(error) = to.send(Op::Call, id, &head, payload) {
        let error = if matches!(error, Error::Closed) {
            Error::Unavailable(format!("{} went away", to.label()))
        } else {
            error
        };
        if let Some(waiting) = locked(&to.serving).remove(&id) {
            return Err((error, waiting.caller));
        }
    }
    Ok(id)
}

impl Inner {
    /// A process has answered a call.
    pub fn on_answer(&self, connection: &Arc<Connection>, frame: &Frame, touched: &mut Touched) -> Result<()> {
        let Some(waiting) = locked(&connection.serving).remove(&frame.id) else {
            // Given up meanwhile.
            return Ok(());
        };
        let outcome = if frame.op == Op::Ok {
            let object = frame.head.is_empty()
                || (frame.head.trim_ascii_start().starts_with(b"{")
                    && serde_json::from_slice::<IgnoredAny>(&frame.head).is_ok());
            if !object {
                settle(waiting.caller, Err(Error::Internal("the answer's head is no JSON object".into())), touched);
                return Err(Error::Invalid("the head of an OK frame is no JSON object".into()));
            }
            Ok(net::Reply { head: frame.head.clone(), payload: frame.payload.clone() })
        } else {
            Err(head_error(&frame.object()?))
        };
        settle(waiting.caller, outcome, touched);
        Ok(())
    }

    /// A caller does not want its answer any more.
    pub fn on_cancel(&self, connection: &Arc<Connection>, call: u32, touched: &mut Touched) {
        let running = locked(&connection.running).remove(&call);
        if let Some(running) = running {
            give_up(running, touched);
        }
    }

    /// Calls past their deadline are answered with `timeout`. Answers whether others wait still.
    pub fn sweep(&self, touched: &mut Touched) -> bool {
        let now = Instant::now();
        let mut waits = false;
        for connection in self.connections() {
            let late: Vec<_> = locked(&connection.serving).extract_if(|_, waiting| waiting.deadline <= now).collect();
            for (id, waiting) in late {
                let _ = connection.send(Op::Cancel, id, b"", &Bytes::new());
                touched.add(&connection);
                let error = Error::Timeout(format!("{} did not answer in time", connection.label()));
                settle(waiting.caller, Err(error), touched);
            }
            // Those in the core who gave up closed their end.
            let gone: Vec<_> = locked(&connection.serving)
                .extract_if(|_, waiting| matches!(&waiting.caller, Caller::Core(reply) if reply.is_closed()))
                .collect();
            for (id, _) in gone {
                let _ = connection.send(Op::Cancel, id, b"", &Bytes::new());
                touched.add(&connection);
            }
            waits |= !locked(&connection.serving).is_empty();
        }
        waits
    }

    /// A process is gone: those who wait for it hear so, those it waited for may stop.
    pub fn abandon_calls(&self, connection: &Arc<Connection>, touched: &mut Touched) {
        let waiting: Vec<_> = locked(&connection.serving).drain().collect();
        for (_, waiting) in waiting {
            let error = Error::Unavailable(format!("{} went away; outcome unknown", connection.label()));
            settle(waiting.caller, Err(error), touched);
        }
        let running: Vec<_> = locked(&connection.running).drain().collect();
        for (_, running) in running {
            give_up(running, touched);
        }
    }
}

fn give_up(running: Running, touched: &mut Touched) {
    match running {
        Running::Task(task) => task.abort(),
        Running::Sibling(to, id) => {
            if let Some(to) = to.upgrade()
                && locked(&to.serving).remove(&id).is_some()
            {
                let _ = to.send(Op::Cancel, id, b"", &Bytes::new());
                touched.add(&to);
            }
        }
    }
}

/// Tells the caller.
pub(super) fn settle(caller: Caller, outcome: Result<net::Reply>, touched: &mut Touched) {
    match caller {
        Caller::Core(reply) => {
            let _ = reply.send(outcome);
        }
        Caller::Sibling { connection, call } => {
            let Some(connection) = connection.upgrade() else { return };
            locked(&connection.running).remove(&call);
            match outcome {
                Ok(reply) => {
                    let mut head = Vec::with_capacity(reply.head.len() + 10);
                    head.extend_from_slice(b"{\"head\":");
                    head.extend_from_slice(if reply.head.is_empty() { b"{}" } else { &reply.head });
                    head.push(b'}');
                    if let Err(error) = connection.send(Op::Ok, call, &head, &reply.payload) {
                        connection.send_error(call, &error);
                    }
                }
                Err(error) => connection.send_error(call, &error),
            }
            touched.add(&connection);
        }
        Caller::Stream { connection, call, near } => {
            let Some(connection) = connection.upgrade() else { return };
            locked(&connection.running).remove(&call);
            match outcome {
                Ok(_) => connection.send_ok(call, &json!({"stream": near}), &Bytes::new()),
                Err(error) => {
                    super::streams::drop_pair(&connection, near);
                    connection.send_error(call, &error);
                }
            }
            touched.add(&connection);
        }
    }
}
