//! Requests from peers: reads them off a substream, hands them to the router and writes the answers back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
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
    IncomingRequest, Reply,
    frame::{Ask, Frame, read_body},
    request::{QUEUE_FRAMES, READ_BUFFER_BYTES, write_frames},
    shared::bump,
};
use crate::{Error, Result};

/// Requests of one peer that may be in work at once; beyond it nothing more is read.
const IN_WORK_MAX: usize = 4096;

/// Requests of a peer in work, so that a cancel finds them.
type InWork = Arc<Mutex<HashMap<u32, AbortHandle>>>;

/// Serves one substream until it ends; what is still in work then is given up.
pub async fn serve(peer: PeerId, stream: libp2p::Stream, router: mpsc::Sender<IncomingRequest>, received: &AtomicU64) {
    let (reader, writer) = stream.split();
    let (answers, frames) = mpsc::channel(QUEUE_FRAMES);
    let reason = tokio::select! {
        error = read_requests(peer, BufReader::with_capacity(READ_BUFFER_BYTES, reader), &router, answers, received) => error,
        error = write_frames(writer, frames) => error,
    };
    tracing::debug!(%peer, %reason, "a request substream ended");
}

async fn read_requests<R: futures::AsyncRead + Unpin>(
    peer: PeerId,
    mut reader: R,
    router: &mpsc::Sender<IncomingRequest>,
    answers: mpsc::Sender<Bytes>,
    received: &AtomicU64,
) -> Error {
    let room = Arc::new(Semaphore::new(IN_WORK_MAX));
    let in_work = InWork::default();
    let mut tasks = JoinSet::new();
    loop {
        let body = match read_body(&mut reader).await {
            Ok(Some(body)) => body,
            Ok(None) => return Error::Closed,
            Err(error) => return error.into(),
        };
        while tasks.try_join_next().is_some() {}
        match Frame::decode(body) {
            Ok(Frame::Request(id, ask)) => {
                bump(received);
                let Ok(permit) = room.clone().acquire_owned().await else { return Error::Closed };
                let (router, answers, table) = (router.clone(), answers.clone(), in_work.clone());
                // Held while spawning: the task cannot leave the table before it is in it.
                let mut entries = in_work.lock().unwrap_or_else(PoisonError::into_inner);
                let handle = tasks.spawn(async move {
                    let frame = match answer(peer, ask, &router).await {
                        Ok(reply) => Frame::Reply(id, reply),
                        Err(error) => Frame::Error(id, error),
                    };
                    let bytes = frame.encode().or_else(|error| Frame::Error(id, error).encode());
                    if let Ok(bytes) = bytes {
                        let _ = answers.send(bytes).await;
                    }
                    table.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                    drop(permit);
                });
                entries.insert(id, handle);
            }
            Ok(Frame::Cancel(id)) => {
                if let Some(task) = in_work.lock().unwrap_or_else(PoisonError::into_inner).remove(&id) {
                    task.abort();
                }
            }
            Ok(Frame::Reply(..) | Frame::Error(..)) => {
                return Error::Invalid("an answer came where requests belong".into());
            }
            Err(error) => return error,
        }
    }
}

/// Has one request answered by whoever took the router's other end.
pub async fn answer(peer: PeerId, ask: Ask, router: &mpsc::Sender<IncomingRequest>) -> Result<Reply> {
    let (reply, answer) = oneshot::channel();
    let patience = ask.timeout;
    let request = IncomingRequest {
        peer,
        service: ask.service,
        method: ask.method,
        head: ask.head,
        payload: ask.payload,
        timeout: patience,
        reply,
    };
    let exchange = async {
        router.send(request).await.map_err(|_| Error::Unavailable("this agent serves no requests".into()))?;
        answer.await.unwrap_or_else(|_| Err(Error::Unavailable("the request was dropped by its server".into())))
    };
    match timeout(patience, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Timeout("the request was not answered in time".into())),
    }
}
