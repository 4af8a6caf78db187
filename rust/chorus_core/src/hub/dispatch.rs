//! What each frame of a process sets in motion.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use serde_json::{Map, Value, json};

use super::{
    backend::{Answer, Source},
    bridge::Bridge,
    connection::{Connection, Touched, locked},
    frame::{Frame, Op},
    serve::{Ask, Asker, Caller, Running, hand_over, settle},
    server::Inner,
    streams::{End, Other, attach, drop_unopened},
    subscriptions::{DEFAULT_QUEUE, LOCAL_PREFIX, MAX_QUEUE, Sub},
};
use crate::{Error, Result};

/// Calls that one process may have in flight.
const MAX_RUNNING: usize = 8192;
/// Subscriptions of one process.
const MAX_SUBS: usize = 1024;
const MAX_NAME_BYTES: usize = 64;
/// Topics of one subscription.
const MAX_TOPICS: usize = 256;

/// A stream to a peer that is being opened; given up or failed, its end is taken away.
struct Opening {
    connection: Weak<Connection>,
    near: u32,
    bridge: Arc<Bridge>,
    opened: bool,
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.opened
            && let Some(connection) = self.connection.upgrade()
        {
            drop_unopened(&connection, self.near, &self.bridge);
        }
    }
}

impl Inner {
    /// Handles one frame; an error closes this connection alone.
    pub fn on_frame(self: &Arc<Self>, connection: &Arc<Connection>, frame: Frame, touched: &mut Touched) -> Result<()> {
        if connection.name.get().is_none() && frame.op != Op::Call {
            return Err(Error::Invalid("the first frame must be a call of hello".into()));
        }
        match frame.op {
            Op::Call => self.on_call(connection, frame, touched),
            Op::Ok | Op::Err => self.on_answer(connection, &frame, touched),
            Op::Cancel => {
                self.on_cancel(connection, frame.id, touched);
                Ok(())
            }
            Op::Credit => {
                let n = frame.count()?;
                if let Some(sub) = locked(&connection.subs).get(&frame.id) {
                    sub.add_credit(n);
                }
                Ok(())
            }
            Op::Data | Op::Window | Op::End => self.on_stream_frame(connection, &frame, touched),
            Op::Event => Err(Error::Invalid("events come from the hub only".into())),
        }
    }

    fn on_call(self: &Arc<Self>, connection: &Arc<Connection>, frame: Frame, touched: &mut Touched) -> Result<()> {
        let mut head = frame.object()?;
        let Some(Value::String(method)) = head.remove("m") else {
            return Err(Error::Invalid("a call needs \"m\", its method".into()));
        };
        let call = frame.id;
        if connection.name.get().is_none() {
            let answer = self.hello(connection, &method, &head)?;
            connection.send_ok(call, &answer, &Bytes::new());
            touched.add(connection);
            return Ok(());
        }
        {
            let running = locked(&connection.running);
            if running.contains_key(&call) {
                return Err(Error::Invalid(format!("call {call} is in flight already")));
            }
            if running.len() >= MAX_RUNNING {
                drop(running);
                connection.send_error(call, &Error::Unavailable(format!("more than {MAX_RUNNING} calls in flight")));
                touched.add(connection);
                return Ok(());
            }
        }
        match self.answer(connection, call, &method, head, frame.payload, touched) {
            Ok(None) => return Ok(()),
            Ok(Some(answer)) => connection.send_ok(call, &answer.head, &answer.payload),
            Err(error) => connection.send_error(call, &error),
        }
        touched.add(connection);
        Ok(())
    }

    fn hello(&self, connection: &Connection, method: &str, head: &Map<String, Value>) -> Result<Value> {
        let name = head.get("name").and_then(Value::as_str).unwrap_or_default();
        if method != "hello" || name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(Error::Invalid(format!(
                "the first call must be hello, with a name of 1 to {MAX_NAME_BYTES} bytes"
            )));
        }
        let _ = connection.name.set(name.to_owned());
        Ok(Value::Object(self.backend.hello()))
    }

    /// Answers at once, or `None` when the answer will come later.
    fn answer(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        call: u32,
        method: &str,
        mut head: Map<String, Value>,
        payload: Bytes,
        touched: &mut Touched,
    ) -> Result<Option<Answer>> {
        let done = |head: Value| Ok(Some(Answer::head(head)));
        match method {
            "hello" => Err(Error::Invalid("hello was said already".into())),
            "publish"
                if head.get("topic").and_then(Value::as_str).is_some_and(|topic| topic.starts_with(LOCAL_PREFIX)) =>
            {
                let topic = head.get("topic").and_then(Value::as_str).unwrap_or_default();
                self.local_topics.publish(topic, connection.label(), &payload, touched);
                done(Value::Null)
            }
            "subscribe" => {
                self.subscribe(connection, call, &head, touched)?;
                Ok(None)
            }
            "unsubscribe" => {
                let sub = head.get("sub").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
                if let Some(sub) = sub.and_then(|id| locked(&connection.subs).remove(&id)) {
                    sub.stop();
                }
                done(Value::Null)
            }
            "offer" => {
                let service = head.get("service").and_then(Value::as_str).unwrap_or_default();
                let peers = head.get("peers").and_then(Value::as_bool).unwrap_or(false);
                self.services.offer(service, peers, connection)?;
                done(Value::Null)
            }
            "call" => {
                let ask = Ask::from_head(&mut head)?;
                self.to_sibling(connection, call, ask, &payload, touched)?;
                Ok(None)
            }
            "request" => {
                let ask = Ask::from_head(&mut head)?;
                let peer = head.get("peer").and_then(Value::as_str).unwrap_or_default();
                if peer == self.backend.local_peer() {
                    self.to_sibling(connection, call, ask, &payload, touched)?;
                    return Ok(None);
                }
                let asked =
                    self.backend.request(peer, &ask.service, &ask.method, ask.head_bytes(), payload, ask.timeout);
                Ok(self.work(
                    connection,
                    call,
                    async move {
                        let reply = asked.await?;
                        let inner =
                            if reply.head.is_empty() { Ok(json!({})) } else { serde_json::from_slice(&reply.head) };
                        let inner: Value =
                            inner.map_err(|_| Error::Invalid("the peer's answer has no JSON head".into()))?;
                        Ok(Answer { head: json!({"head": inner}), payload: reply.payload })
                    }
                    .boxed(),
                )?)
            }
            "stream" => self.open_stream(connection, call, head, touched),
            _ => {
                if let Some(feed) = self.backend.feed(method, &head, queue_of(&head)) {
                    let feed = feed?;
                    let sub = self.add_sub(connection, &head)?;
                    begin(connection, call, &sub, Some(feed), touched);
                    return Ok(None);
                }
                match self.backend.call(method, head, payload) {
                    Some(work) => self.work(connection, call, work),
                    None => Err(Error::Invalid(format!("the hub has no method {method:?}"))),
                }
            }
        }
    }

    fn add_sub(&self, connection: &Arc<Connection>, head: &Map<String, Value>) -> Result<Arc<Sub>> {
        let mut subs = locked(&connection.subs);
        if subs.len() >= MAX_SUBS {
            return Err(Error::TooLarge(format!("more than {MAX_SUBS} subscriptions")));
        }
        let id = connection.next_id();
        let sub = Arc::new(Sub::new(connection, id, queue_of(head), self.stop.child_token()));
        subs.insert(id, Arc::clone(&sub));
        Ok(sub)
    }

    fn subscribe(
        &self,
        connection: &Arc<Connection>,
        call: u32,
        head: &Map<String, Value>,
        touched: &mut Touched,
    ) -> Result<()> {
        let topics: Vec<&str> =
            head.get("topics").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        if topics.is_empty() || topics.len() > MAX_TOPICS {
            return Err(Error::Invalid(format!("topics: a list of 1 to {MAX_TOPICS} strings")));
        }
        let (local, mesh): (Vec<_>, Vec<_>) = topics.into_iter().partition(|topic| topic.starts_with(LOCAL_PREFIX));
        let feed = if mesh.is_empty() {
            None
        } else {
            let mut wanted = Map::new();
            wanted.insert("topics".into(), mesh.into());
            self.backend.feed("subscribe", &wanted, queue_of(head)).transpose()?
        };
        let sub = self.add_sub(connection, head)?;
        for topic in local {
            self.local_topics.add(topic, &sub);
        }
        begin(connection, call, &sub, feed, touched);
        Ok(())
    }

    /// Gives a call to the sibling that offers its service.
    fn to_sibling(
        &self,
        connection: &Arc<Connection>,
        call: u32,
        ask: Ask,
        payload: &Bytes,
        touched: &mut Touched,
    ) -> Result<()> {
        let to = self.services.find(&ask.service)?;
        let caller = Caller::Sibling { connection: Arc::downgrade(connection), call };
        let asker = Asker::Process(connection.label());
        let id = hand_over(&to, &ask, None, &asker, payload, caller).map_err(|(error, _)| error)?;
        locked(&connection.running).insert(call, Running::Sibling(Arc::downgrade(&to), id));
        // Answered before it stood in the table? Then nobody else takes it out.
        if !locked(&to.serving).contains_key(&id) {
            locked(&connection.running).remove(&call);
        }
        touched.add(&to);
        Ok(())
    }

    fn open_stream(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        call: u32,
        mut head: Map<String, Value>,
        touched: &mut Touched,
    ) -> Result<Option<Answer>> {
        let near = head.get("stream").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        let near = near.filter(|id| id % 2 == 1).ok_or_else(|| Error::Invalid("stream: an odd id of yours".into()))?;
        let ask = Ask::from_head(&mut head)?;
        let peer = head.get("peer").and_then(Value::as_str).unwrap_or(self.backend.local_peer());
        if peer != self.backend.local_peer() {
            let bridge = Bridge::new(connection, near, self.waiting_for(peer));
            attach(connection, near, End::new(Other::Peer(Arc::clone(&bridge))))?;
            let opened = self.backend.open_stream(peer, &ask.service, &ask.method, ask.head_bytes(), ask.timeout);
            let inner = Arc::clone(self);
            let opening = Opening { connection: Arc::downgrade(connection), near, bridge, opened: false };
            let work = async move {
                // The whole of it moves in here, so that it is dropped with this work.
                let mut opening = opening;
                let pipe = opened.await?;
                inner.carry(Arc::clone(&opening.bridge), pipe);
                opening.opened = true;
                Ok(Answer::head(json!({"stream": near})))
            };
            return self.work(connection, call, work.boxed());
        }
        let to = self.services.find(&ask.service)?;
        let far = to.next_id();
        attach(connection, near, End::new(Other::Sibling(Arc::downgrade(&to), far)))?;
        if let Err(error) = attach(&to, far, End::new(Other::Sibling(Arc::downgrade(connection), near))) {
            locked(&connection.streams).remove(&near);
            return Err(error);
        }
        let caller = Caller::Stream { connection: Arc::downgrade(connection), call, near };
        let asker = Asker::Process(connection.label());
        touched.add(&to);
        if let Err((error, caller)) = hand_over(&to, &ask, Some(far), &asker, &Bytes::new(), caller) {
            settle(caller, Err(error), touched);
        }
        Ok(None)
    }

    /// Answers at once what is ready at once, and the rest from a task of its own.
    fn work(
        &self,
        connection: &Arc<Connection>,
        call: u32,
        mut work: BoxFuture<'static, Result<Answer>>,
    ) -> Result<Option<Answer>> {
        if let Some(done) = (&mut work).now_or_never() {
            return done.map(Some);
        }
        let origin = Arc::clone(connection);
        // Held while spawning: the task cannot leave the table before it is in it.
        let mut running = locked(&connection.running);
        let task = tokio::spawn(async move {
            let outcome = work.await;
            locked(&origin.running).remove(&call);
            match outcome {
                Ok(answer) => origin.send_ok(call, &answer.head, &answer.payload),
                Err(error) => origin.send_error(call, &error),
            }
            origin.outbox.flush();
        });
        running.insert(call, Running::Task(task.abort_handle()));
        Ok(None)
    }
}

/// Answers with a subscription, and only then carries its feed: a process knows no subscription before that answer.
fn begin(connection: &Arc<Connection>, call: u32, sub: &Arc<Sub>, feed: Option<Source>, touched: &mut Touched) {
    connection.send_ok(call, &json!({"sub": sub.id}), &Bytes::new());
    touched.add(connection);
    if let Some(feed) = feed {
        sub.carry(feed);
    }
}

fn queue_of(head: &Map<String, Value>) -> usize {
    head.get("queue")
        .and_then(Value::as_u64)
        .and_then(|queue| usize::try_from(queue).ok())
        .unwrap_or(DEFAULT_QUEUE)
        .clamp(1, MAX_QUEUE)
}
