//! Byte streams to peers: a header frame, the answer, then raw bytes both ways.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{AsyncRead, AsyncWrite, AsyncWriteExt, FutureExt};
use libp2p::PeerId;
use tokio::{
    io::DuplexStream,
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::timeout,
};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::{
    IncomingStream,
    frame::{Ask, Frame, read_body},
    serving::Guest,
};
use crate::{Error, Result};

/// How long an opened stream may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Room between the two ends of a stream to this agent itself.
const LOCAL_BUFFER_BYTES: usize = 256 * 1024;

/// An encrypted byte stream to or from a peer (in memory when the peer is this agent).
#[derive(Debug)]
pub struct PeerStream(State);

#[derive(Debug)]
enum State {
    Open(libp2p::Stream),
    /// One that a peer opened; it gives its place back when it is dropped.
    Served(libp2p::Stream, #[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit),
    Local(Compat<DuplexStream>),
    /// The serving side before its answer went out.
    Waiting(oneshot::Receiver<State>),
}

impl PeerStream {
    /// The stream itself, once the answer has gone out.
    fn ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut State>> {
        if let State::Waiting(receiver) = &mut self.0 {
            match receiver.poll_unpin(cx) {
                Poll::Ready(Ok(state)) => self.0 = state,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(&mut self.0))
    }
}

macro_rules! forward {
    ($self:ident, $cx:ident, $call:ident $(, $argument:expr)*) => {
        match std::task::ready!($self.get_mut().ready($cx))? {
            State::Open(stream) | State::Served(stream, _) => Pin::new(stream).$call($cx $(, $argument)*),
            State::Local(stream) => Pin::new(stream).$call($cx $(, $argument)*),
            State::Waiting(_) => Poll::Pending,
        }
    };
}

impl AsyncRead for PeerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        forward!(self, cx, poll_read, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        forward!(self, cx, poll_write, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, cx, poll_flush)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, cx, poll_close)
    }
}

/// The opening side: asks on a fresh substream and waits for the answer.
pub async fn ask(mut stream: libp2p::Stream, ask: Ask) -> Result<PeerStream> {
    let bytes = Frame::Request(0, ask).encode()?;
    stream.write_all(&bytes).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    match read_body(&mut stream).await.map_err(lost)?.map(Frame::decode).transpose()? {
        Some(Frame::Reply(..)) => Ok(PeerStream(State::Open(stream))),
        Some(Frame::Error(_, error)) => Err(error),
        Some(_) => Err(Error::Unavailable("the peer answered a stream's header with something else".into())),
        None => Err(Error::Unavailable("the peer closed the stream before answering".into())),
    }
}

/// The serving side: reads the header, offers the stream to the router and sends the answer.
pub async fn serve(
    guest: Guest,
    mut stream: libp2p::Stream,
    router: mpsc::Sender<IncomingStream>,
    permit: OwnedSemaphorePermit,
) {
    let peer = guest.peer;
    let ask = match timeout(HEADER_TIMEOUT, guest.read(&mut stream)).await {
        Ok(Ok(Some((Frame::Request(_, ask), _)))) => ask,
        Ok(Ok(None)) | Err(_) => return,
        Ok(_) => {
            tracing::debug!(%peer, "a stream began with a bad header");
            return;
        }
    };
    let (open, waiting) = oneshot::channel();
    let verdict = match guest.admit(&ask.service, &ask.method).await {
        Ok(()) => take(peer, ask, waiting, &router).await,
        Err(error) => Err(error),
    };
    let accepted = verdict.is_ok();
    let frame = match verdict {
        Ok(()) => Frame::Reply(0, super::Reply::default()),
        Err(error) => Frame::Error(0, error),
    };
    let Ok(bytes) = frame.encode() else { return };
    if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
        return;
    }
    if accepted {
        let _ = open.send(State::Served(stream, permit));
    } else {
        let _ = stream.close().await;
    }
}

/// Has the router take a stream, or say why not.
async fn take(
    peer: PeerId,
    ask: Ask,
    waiting: oneshot::Receiver<State>,
    router: &mpsc::Sender<IncomingStream>,
) -> Result<()> {
    let patience = ask.timeout;
    let (answer, answered) = oneshot::channel();
    router.send(offer(peer, ask, answer, waiting)).await.map_err(|_| Error::Closed)?;
    match timeout(patience, answered).await {
        Ok(verdict) => verdict.unwrap_or_else(|_| Err(Error::Unavailable("nobody serves this".into()))),
        Err(_) => Err(Error::Timeout("nobody took the stream".into())),
    }
}

/// A stream from this agent to itself.
pub async fn local(own: PeerId, ask: Ask, router: &mpsc::Sender<IncomingStream>) -> Result<PeerStream> {
    let (ours, theirs) = tokio::io::duplex(LOCAL_BUFFER_BYTES);
    let (answer, answered) = oneshot::channel();
    let (open, waiting) = oneshot::channel();
    router.send(offer(own, ask, answer, waiting)).await.map_err(|_| Error::Closed)?;
    answered.await.unwrap_or_else(|_| Err(Error::Unavailable("nobody serves this".into())))?;
    let _ = open.send(State::Local(theirs.compat()));
    Ok(PeerStream(State::Local(ours.compat())))
}

fn offer(
    peer: PeerId,
    ask: Ask,
    answer: oneshot::Sender<Result<()>>,
    waiting: oneshot::Receiver<State>,
) -> IncomingStream {
    IncomingStream {
        peer,
        service: ask.service,
        method: ask.method,
        head: ask.head,
        answer,
        stream: PeerStream(State::Waiting(waiting)),
    }
}

fn lost(error: io::Error) -> Error {
    Error::Unavailable(format!("the stream broke before it was answered: {error}"))
}

/// What opens a stream.
pub fn header(service: &str, method: &str, head: Bytes, timeout: Duration) -> Ask {
    Ask { service: service.into(), method: method.into(), head, payload: Bytes::new(), timeout }
}
