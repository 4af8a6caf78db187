//! Requests to peers: one persistent substream per peer carries any number of them, answered in any order.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{
    AsyncReadExt, AsyncWrite, AsyncWriteExt,
    io::{BufReader, ReadHalf},
};
use libp2p::{PeerId, StreamProtocol};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    Reply,
    frame::{Ask, Frame, read_body},
    shared::{Command, Shared, bump, open},
};
use crate::{Error, Result};

/// Requests and their answers.
pub const REQUEST_PROTOCOL: StreamProtocol = StreamProtocol::new("/chorus/request/1.0.0");

/// Frames waiting to be written to one peer; callers beyond it wait.
pub const QUEUE_FRAMES: usize = 1024;
/// Small frames that go out in one write.
const BATCH_BYTES: usize = 64 * 1024;
/// What is read at once.
pub const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Asks peers.
pub struct Requests {
    lines: Mutex<HashMap<PeerId, Arc<Line>>>,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// The substream to one peer as callers see it.
struct Line {
    queue: mpsc::Sender<Bytes>,
    next: AtomicU32,
    /// Who waits for which answer; `None` once the substream is gone.
    waiting: Mutex<Option<HashMap<u32, oneshot::Sender<Result<Reply>>>>>,
}

impl Line {
    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u32, oneshot::Sender<Result<Reply>>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect(&self, reply: oneshot::Sender<Result<Reply>>) -> Option<u32> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.waiting().as_mut()?.insert(id, reply);
        Some(id)
    }

    fn answer(&self, id: u32, answer: Result<Reply>) {
        if let Some(reply) = self.waiting().as_mut().and_then(|waiting| waiting.remove(&id)) {
            let _ = reply.send(answer);
        }
    }

    fn end(&self, error: &Error) {
        for (_, reply) in self.waiting().take().into_iter().flatten() {
            let _ = reply.send(Err(error.clone()));
        }
    }
}

/// Takes the waiter away when its caller stops waiting, and tells the peer.
struct Waiter<'a> {
    line: &'a Line,
    shared: &'a Shared,
    id: u32,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.shared.counters.requests_in_flight.fetch_sub(1, Ordering::Relaxed);
        let given_up = self.line.waiting().as_mut().and_then(|waiting| waiting.remove(&self.id)).is_some();
        if given_up && let Ok(cancel) = Frame::Cancel(self.id).encode() {
            let _ = self.line.queue.try_send(cancel);
        }
    }
}

impl Requests {
    pub fn new(commands: mpsc::Sender<Command>, shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { lines: Mutex::default(), commands, shared })
    }

    /// Asks a peer; the deadline covers dialling, sending and the answer.
    pub async fn ask(self: &Arc<Self>, peer: PeerId, ask: Ask) -> Result<Reply> {
        let patience = ask.timeout;
        bump(&self.shared.counters.requests_sent);
        match timeout(patience, self.exchange(peer, ask)).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Timeout(format!("{peer} did not answer within {} ms", patience.as_millis()))),
        }
    }

    async fn exchange(self: &Arc<Self>, peer: PeerId, ask: Ask) -> Result<Reply> {
        let (reply, answer) = oneshot::channel();
        let line = self.line(peer);
        let Some(id) = line.expect(reply) else {
            return Err(Error::Unavailable(format!("the connection to {peer} just closed")));
        };
        self.shared.counters.requests_in_flight.fetch_add(1, Ordering::Relaxed);
        let _waiter = Waiter { line: &line, shared: &self.shared, id };
        let frame = Frame::Request(id, ask).encode()?;
        // A closed queue means that the line is ending; its end answers below with the reason.
        let _ = line.queue.send(frame).await;
        answer.await.unwrap_or_else(|_| Err(Error::Unavailable(format!("the connection to {peer} closed"))))
    }

    fn line(self: &Arc<Self>, peer: PeerId) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(&peer)
            && line.waiting().is_some()
        {
            return line.clone();
        }
        let (queue, frames) = mpsc::channel(QUEUE_FRAMES);
        let line = Arc::new(Line { queue, next: AtomicU32::new(1), waiting: Mutex::new(Some(HashMap::new())) });
        lines.insert(peer, line.clone());
        tokio::spawn(run(peer, line.clone(), frames, self.commands.clone()));
        line
    }

    /// Ends every line.
    pub fn close(&self) {
        for (_, line) in self.lines.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            line.end(&Error::Closed);
        }
    }
}

async fn run(peer: PeerId, line: Arc<Line>, frames: mpsc::Receiver<Bytes>, commands: mpsc::Sender<Command>) {
    let stream = match open(&commands, peer, REQUEST_PROTOCOL).await {
        Ok(stream) => stream,
        Err(error) => return line.end(&error),
    };
    let (reader, writer) = stream.split();
    let reason = tokio::select! {
        error = read_answers(reader, &line) => error,
        error = write_frames(writer, frames) => error,
    };
    line.end(&Error::Unavailable(format!("the connection to {peer} was lost before an answer came ({reason})")));
}

async fn read_answers(reader: ReadHalf<libp2p::Stream>, line: &Line) -> Error {
    let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, reader);
    loop {
        let body = match read_body(&mut reader).await {
            Ok(Some(body)) => body,
            Ok(None) => return Error::Closed,
            Err(error) => return error.into(),
        };
        match Frame::decode(body) {
            Ok(Frame::Reply(id, reply)) => line.answer(id, Ok(reply)),
            Ok(Frame::Error(id, error)) => line.answer(id, Err(error)),
            Ok(Frame::Request(..) | Frame::Cancel(_)) => {
                return Error::Invalid("a request came where answers belong".into());
            }
            Err(error) => return error,
        }
    }
}

/// Writes what is queued, several small frames at once; returns when the substream breaks or nobody is left to write.
pub async fn write_frames<W: AsyncWrite + Unpin, F: AsRef<[u8]>>(
    mut writer: W,
    mut frames: mpsc::Receiver<F>,
) -> Error {
    let mut batch = BytesMut::new();
    let mut next: Option<F> = None;
    loop {
        let first = match next.take() {
            Some(first) => first,
            None => match frames.recv().await {
                Some(first) => first,
                None => {
                    let _ = writer.close().await;
                    return Error::Closed;
                }
            },
        };
        batch.clear();
        if first.as_ref().len() < BATCH_BYTES {
            batch.extend_from_slice(first.as_ref());
            while batch.len() < BATCH_BYTES
                && let Ok(frame) = frames.try_recv()
            {
                if frame.as_ref().len() >= BATCH_BYTES {
                    // A large frame is not copied.
                    next = Some(frame);
                    break;
                }
                batch.extend_from_slice(frame.as_ref());
            }
        }
        let written =
            if batch.is_empty() { writer.write_all(first.as_ref()).await } else { writer.write_all(&batch).await };
        if let Err(error) = written {
            return error.into();
        }
        if let Err(error) = writer.flush().await {
            return error.into();
        }
    }
}

/// What is asked, as a frame's content.
pub fn ask(service: &str, method: &str, head: Bytes, payload: Bytes, timeout: Duration) -> Ask {
    Ask { service: service.into(), method: method.into(), head, payload, timeout }
}
