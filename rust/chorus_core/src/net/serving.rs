//! Requests from peers: reads them off a substream within the peer's budget, lets those through that the peer may make,
//! has the core or the router's other end answer them and writes the answers back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures::{AsyncReadExt, io::BufReader};
use libp2p::PeerId;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use super::{
    CORE_PREFIX, IncomingRequest, Offence, Reply,
    budget::{Account, Held},
    frame::{Ask, FRAME_MAX_BYTES, Frame, STRANGER_FRAME_MAX_BYTES, read_length, read_rest},
    request::{QUEUE_FRAMES, READ_BUFFER_BYTES, write_frames},
    shared::{Shared, bump},
    slots::Activity,
    wall::is_claim,
};
use crate::{Error, Result};

/// Requests of one peer that may be in work at once; beyond it nothing more is read.
const IN_WORK_MAX: usize = 4096;
/// What a member's requests may hold together, from their arrival to their answer: the largest and some small ones.
const MEMBER_REQUESTS_MAX_BYTES: usize = 20 * 1024 * 1024;
/// What a stranger's may.
const STRANGER_REQUESTS_MAX_BYTES: usize = 2 * STRANGER_FRAME_MAX_BYTES;
/// What answers may hold together until the peer has read them: two of the largest.
const ANSWERS_MAX_BYTES: usize = 2 * FRAME_MAX_BYTES;
/// What a request costs beside its bytes.
const OVERHEAD_BYTES: usize = 1024;

/// Requests of a peer in work, so that a cancel finds them.
type InWork = Arc<Mutex<HashMap<u32, AbortHandle>>>;

/// What all tasks share that serve one peer.
#[derive(Clone)]
pub struct Guest {
    pub peer: PeerId,
    pub shared: Arc<Shared>,
    pub activity: Arc<Activity>,
    pub requests: Arc<Account>,
    pub answers: Arc<Account>,
    pub lanes: Arc<Account>,
}

impl Guest {
    pub fn new(peer: PeerId, shared: &Arc<Shared>) -> Self {
        let Shared { activities, budgets, .. } = &**shared;
        Self {
            peer,
            shared: Arc::clone(shared),
            activity: activities.of(&peer),
            requests: budgets.requests.account(),
            answers: budgets.answers.account(),
            lanes: budgets.lanes.account(),
        }
    }

    /// Whether nothing that was read from the peer, or waits to be written to it, is held.
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.answers.is_empty() && self.lanes.is_empty()
    }

    /// Lets a request or stream through, or says why not; what is refused is held against the peer.
    pub async fn admit(&self, service: &str, method: &str) -> Result<()> {
        self.shared.activities.touch(&self.activity);
        let admitted = self.shared.wall.admit(&self.peer, service, method).await;
        if admitted.is_err() {
            self.shared.blame(self.peer, Offence::Refused);
        }
        admitted
    }

    /// Reads a request's or stream's frame, once the peer's budget has room for it; also the bytes of the whole frame,
    /// which count as long as they are kept.
    pub async fn read<S: futures::AsyncRead + Unpin>(&self, stream: &mut S) -> Result<Option<(Frame, Bytes)>> {
        let length = match read_length(stream).await {
            Ok(Some(length)) => length,
            Ok(None) => return Ok(None),
            Err(error) => {
                if error.kind() == std::io::ErrorKind::InvalidData {
                    self.shared.blame(self.peer, Offence::Malformed);
                }
                return Err(error.into());
            }
        };
        // Only what a stranger never needs makes its sender wait for the news that it is a member.
        let wall = &self.shared.wall;
        let member =
            wall.permits(&self.peer) || (length > STRANGER_FRAME_MAX_BYTES && wall.permits_soon(&self.peer).await);
        if length > STRANGER_FRAME_MAX_BYTES && !member {
            self.shared.blame(self.peer, Offence::Refused);
            return Err(Error::TooLarge(format!("a stranger sent a frame of {length} bytes")));
        }
        let limit = if member { MEMBER_REQUESTS_MAX_BYTES } else { STRANGER_REQUESTS_MAX_BYTES };
        let held = self.requests.hold(length + OVERHEAD_BYTES, limit).await;
        let body = held.own(read_rest(stream, length).await?);
        let frame = Frame::decode(body.clone());
        if frame.is_err() {
            self.shared.blame(self.peer, Offence::Malformed);
        }
        frame.map(|frame| Some((frame, body)))
    }
}

/// An answer on its way to the peer.
struct Answer {
    frame: Bytes,
    _held: Option<Held>,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

/// Serves one substream until it ends; what is still in work then is given up.
pub async fn serve(guest: Guest, stream: libp2p::Stream, router: mpsc::Sender<IncomingRequest>) {
    let (reader, writer) = stream.split();
    let (answers, frames) = mpsc::channel(QUEUE_FRAMES);
    let peer = guest.peer;
    let reason = tokio::select! {
        error = read_requests(guest, BufReader::with_capacity(READ_BUFFER_BYTES, reader), &router, answers) => error,
        error = write_frames(writer, frames) => error,
    };
    tracing::debug!(%peer, %reason, "a request substream ended");
}

async fn read_requests<R: futures::AsyncRead + Unpin>(
    guest: Guest,
    mut reader: R,
    router: &mpsc::Sender<IncomingRequest>,
    answers: mpsc::Sender<Answer>,
) -> Error {
    let room = Arc::new(Semaphore::new(IN_WORK_MAX));
    let in_work = InWork::default();
    let mut tasks = JoinSet::new();
    loop {
        let (frame, bytes) = match guest.read(&mut reader).await {
            Ok(Some(read)) => read,
            Ok(None) => return Error::Closed,
            Err(error) => return error,
        };
        while tasks.try_join_next().is_some() {}
        match frame {
            Frame::Request(id, ask) => {
                bump(&guest.shared.counters.requests_received);
                let Ok(permit) = room.clone().acquire_owned().await else { return Error::Closed };
                let (guest, router, answers, table) = (guest.clone(), router.clone(), answers.clone(), in_work.clone());
                // Held while spawning: the task cannot leave the table before it is in it.
                let mut entries = in_work.lock().unwrap_or_else(PoisonError::into_inner);
                let handle = tasks.spawn(async move {
                    // They count until it is answered: a process may hold a copy of them as long.
                    let _bytes = bytes;
                    let claim =
                        is_claim(&ask.service, &ask.method).then(|| guest.shared.activities.claim(&guest.activity));
                    let outcome = match guest.admit(&ask.service, &ask.method).await {
                        Ok(()) => answer(guest.peer, ask, &guest.shared, &router).await,
                        Err(error) => Err(error),
                    };
                    drop(claim);
                    if let Some(answer) = pack(&guest, id, outcome) {
                        let _ = answers.send(answer).await;
                    }
                    table.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                    drop(permit);
                });
                entries.insert(id, handle);
            }
            Frame::Cancel(id) => {
                if let Some(task) = in_work.lock().unwrap_or_else(PoisonError::into_inner).remove(&id) {
                    task.abort();
                }
            }
            Frame::Reply(..) | Frame::Error(..) => {
                guest.shared.blame(guest.peer, Offence::Malformed);
                return Error::Invalid("an answer came where requests belong".into());
            }
        }
    }
}

/// The frame of an answer. A peer that does not read its answers is told that, in few bytes, instead of being sent more.
fn pack(guest: &Guest, id: u32, outcome: Result<Reply>) -> Option<Answer> {
    let whole = outcome.and_then(|reply| {
        let bytes = reply.head.len() + reply.payload.len() + OVERHEAD_BYTES;
        let held = guest
            .answers
            .try_hold(bytes, ANSWERS_MAX_BYTES)
            .ok_or_else(|| Error::Unavailable("earlier answers wait to be read; read them and ask again".into()))?;
        Ok(Answer { frame: Frame::Reply(id, reply).encode()?, _held: Some(held) })
    });
    whole.or_else(|error| Ok::<_, Error>(Answer { frame: Frame::Error(id, error).encode()?, _held: None })).ok()
}

/// Has one request answered: by the core, or by whoever took the router's other end.
pub async fn answer(peer: PeerId, ask: Ask, shared: &Shared, router: &mpsc::Sender<IncomingRequest>) -> Result<Reply> {
    let patience = ask.timeout;
    let exchange = async {
        if ask.service.starts_with(CORE_PREFIX) {
            // The core is held for no longer than it takes to call it: an open answer must not outlive it.
            let answering = shared.core().await?.answer(peer, ask);
            return answering.await;
        }
        let (reply, answer) = oneshot::channel();
        let request = IncomingRequest {
            peer,
            service: ask.service,
            method: ask.method,
            head: ask.head,
            payload: ask.payload,
            timeout: patience,
            reply,
        };
        router.send(request).await.map_err(|_| Error::Unavailable("this agent serves no requests".into()))?;
        answer.await.unwrap_or_else(|_| Err(Error::Unavailable("the request was dropped by its server".into())))
    };
    match timeout(patience, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Timeout("the request was not answered in time".into())),
    }
}
