//! One process's connection: what is in flight on it in either direction, and its reading loop.

use std::{
    collections::HashMap,
    io,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::{io::AsyncReadExt, net::unix::pipe, sync::Notify, time::timeout};

use super::{
    frame::{self, Decoder, Op},
    outbox::Outbox,
    serve::{Running, Waiting},
    server::Inner,
    streams::End,
    subscriptions::Sub,
};
use crate::{Error, Result};

/// A connection that does not say hello is no process of ours.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Connection {
    pub id: u64,
    /// The process's name, once it has said hello.
    pub name: OnceLock<String>,
    pub outbox: Outbox,
    /// Calls of the process that wait for their answer.
    pub running: Mutex<HashMap<u32, Running>>,
    /// Calls to the process that wait for its answer.
    pub serving: Mutex<HashMap<u32, Waiting>>,
    /// Told when one is added to them.
    pub waits: Arc<Notify>,
    pub subs: Mutex<HashMap<u32, Arc<Sub>>>,
    pub streams: Mutex<HashMap<u32, End>>,
    ids: AtomicU32,
}

/// Connections that were written to while a batch of frames was handled, to be flushed once at its end.
#[derive(Debug, Default)]
pub(super) struct Touched(Vec<Arc<Connection>>);

impl Touched {
    pub fn add(&mut self, connection: &Arc<Connection>) {
        if !self.0.iter().any(|known| Arc::ptr_eq(known, connection)) {
            self.0.push(Arc::clone(connection));
        }
    }

    pub fn flush(&mut self) {
        for connection in self.0.drain(..) {
            connection.outbox.flush();
        }
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    /// `socket` must not block.
    pub fn new(id: u64, socket: UnixStream, waits: Arc<Notify>) -> Self {
        Self {
            id,
            name: OnceLock::new(),
            outbox: Outbox::new(socket),
            running: Mutex::default(),
            serving: Mutex::default(),
            waits,
            subs: Mutex::default(),
            streams: Mutex::default(),
            ids: AtomicU32::new(0),
        }
    }

    /// What logs call it.
    pub fn label(&self) -> &str {
        self.name.get().map_or("(no hello yet)", String::as_str)
    }

    /// An id of the hub's: even, so that streams of the process's own, which are odd, never meet it.
    pub fn next_id(&self) -> u32 {
        self.ids.fetch_add(2, Ordering::Relaxed).wrapping_add(2)
    }

    /// Queues a frame; the caller flushes.
    pub fn send(&self, op: Op, id: u32, head: &[u8], payload: &Bytes) -> Result<()> {
        let packed = frame::pack(op, id, head, payload)?;
        if self.outbox.push(packed) { Ok(()) } else { Err(Error::Closed) }
    }

    /// Queues an OK.
    pub fn send_ok(&self, call: u32, head: &Value, payload: &Bytes) {
        let head = match head {
            Value::Object(object) if !object.is_empty() => head.to_string(),
            _ => String::new(),
        };
        if let Err(error) = self.send(Op::Ok, call, head.as_bytes(), payload) {
            self.send_error(call, &error);
        }
    }

    /// Queues an ERR.
    pub fn send_error(&self, call: u32, error: &Error) {
        // Small: it fits, and a connection that is gone needs no answer.
        let _ = self.send(Op::Err, call, error_head(error).as_bytes(), &Bytes::new());
    }

    /// Reads and handles frames until the connection ends; the error says why.
    pub async fn run(self: &Arc<Self>, hub: &Arc<Inner>, mut socket: pipe::Receiver) -> Error {
        let mut decoder = Decoder::default();
        let mut touched = Touched::default();
        loop {
            self.outbox.has_room().await;
            let reading = socket.read_buf(decoder.space());
            let read = if self.name.get().is_some() {
                reading.await
            } else {
                timeout(HELLO_TIMEOUT, reading).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            };
            match read {
                Ok(0) => return Error::Closed,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return error.into(),
            }
            loop {
                let handled = match decoder.next() {
                    Ok(None) => break,
                    Ok(Some(frame)) => hub.on_frame(self, frame, &mut touched),
                    Err(error) => Err(error),
                };
                if let Err(error) = handled {
                    touched.flush();
                    return error;
                }
            }
            touched.flush();
        }
    }
}

/// The head of an ERR frame, also of an END that resets.
pub(super) fn error_head(error: &Error) -> String {
    json!({"code": error.code(), "message": plain_message(error)}).to_string()
}

/// The message without the prefix that the code already says, so that it does not pile up from hop to hop.
fn plain_message(error: &Error) -> String {
    match error {
        Error::NotFound(message)
        | Error::Unavailable(message)
        | Error::Timeout(message)
        | Error::Refused(message)
        | Error::TooLarge(message)
        | Error::NotPermitted(message)
        | Error::Tampered(message)
        | Error::QuorumFailed(message)
        | Error::Internal(message)
        | Error::Invalid(message) => message.clone(),
        Error::NoMesh | Error::NoLeader | Error::NotLeader | Error::Closed => error.to_string(),
    }
}

/// The error that the head of an ERR or END stands for.
pub(super) fn head_error(object: &Map<String, Value>) -> Error {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    Error::from_code(text("code"), text("message").to_owned())
}
