//! A process's stream to a peer: carries bytes between the hub's frames and the network's stream.
//!
//! On the network each piece is preceded by its length (u32, big endian). Length 0 is the clean end of a direction and
//! `u32::MAX` a reset, followed by the length and text of `{"code","message"}`; a reset may still follow the clean end,
//! for it concerns the other direction then. A stream that just stops was cut off, so that truncated output is never
//! taken for whole. Each side closes when both directions have ended; one that gives up drops the stream, which tells
//! the peer's side to write no more but leaves it what was sent before.

use std::{
    io,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use futures::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, io::BufReader};
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    backend::Pipe,
    connection::{Connection, error_head, head_error, locked},
    frame::Op,
    streams::{self, WINDOW_BYTES},
};
use crate::{
    Error, Result,
    net::budget::{Account, Held},
};

const RESET_MARK: u32 = u32::MAX;
/// The text of a reset.
const RESET_MAX_BYTES: u32 = 4096;
/// The largest piece that a peer may send.
const PIECE_MAX_BYTES: u32 = 1024 * 1024;
/// The largest piece sent from here: window goes back to the process, and a reset goes out, between pieces.
const PIECE_BYTES: usize = 256 * 1024;
/// Read from the network at one go, and so the most that a DATA frame to the process carries.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// What may wait to be read by one peer, over all streams with it. Beyond that the stream which needs more is given up:
/// its window lets the process write on, so there is nobody to make wait.
const WAITING_MAX_BYTES: usize = 32 * 1024 * 1024;
/// How long a peer may take nothing once the process has given up; what it ended cleanly before is sent that long.
const LINGER: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Bridge {
    connection: Weak<Connection>,
    id: u32,
    /// What waits for the peer.
    waiting: Arc<Account>,
    state: Mutex<State>,
    /// Something has changed for the outbound side.
    out_work: Notify,
    /// The process has read something, or given up.
    in_work: Notify,
    given_up: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    /// From the process, bounded by its window, and counted.
    out: BytesMut,
    held: Option<Held>,
    /// The process's clean end, and whether it was taken to be sent.
    out_ended: bool,
    end_taken: bool,
    /// The peer's clean end, and whether its side has closed after it.
    in_ended: bool,
    in_closed: bool,
    /// What the process takes.
    window: i64,
    /// Why the process gave up.
    reset: Option<Error>,
}

/// What the outbound side finds to do.
enum Work {
    Bytes(Bytes, Option<Held>),
    End,
    Reset(Error),
    /// Both directions have ended.
    Done,
    /// The peer is gone after its own clean end, before ours.
    Cut,
}

impl Bridge {
    /// A stream of a process to a peer; `waiting` counts what waits for that peer on all its streams.
    pub fn new(connection: &Arc<Connection>, id: u32, waiting: Arc<Account>) -> Arc<Self> {
        Arc::new(Self {
            connection: Arc::downgrade(connection),
            id,
            waiting,
            state: Mutex::new(State { window: WINDOW_BYTES, ..State::default() }),
            out_work: Notify::new(),
            in_work: Notify::new(),
            given_up: CancellationToken::new(),
        })
    }

    /// Bytes from the process.
    ///
    /// # Errors
    /// When too much waits for the peer already: the stream is to be given up.
    pub fn push(&self, bytes: &[u8]) -> Result<()> {
        let held = self
            .waiting
            .try_hold(bytes.len(), WAITING_MAX_BYTES)
            .ok_or_else(|| Error::Unavailable("the peer does not read its streams: too much waits for it".into()))?;
        let mut state = locked(&self.state);
        state.out.extend_from_slice(bytes);
        match &mut state.held {
            Some(known) => known.join(held),
            none => *none = Some(held),
        }
        drop(state);
        self.out_work.notify_one();
        Ok(())
    }

    /// The process's clean end.
    pub fn end(&self) {
        locked(&self.state).out_ended = true;
        self.out_work.notify_one();
    }

    /// The process gave up, or is gone.
    pub fn reset(&self, error: &Error) {
        locked(&self.state).reset.get_or_insert_with(|| error.clone());
        self.given_up.cancel();
        self.out_work.notify_one();
        self.in_work.notify_one();
    }

    /// The process has read `n` bytes.
    pub fn widen(&self, n: u32) {
        locked(&self.state).window += i64::from(n);
        self.in_work.notify_one();
    }

    /// Carries bytes both ways until both directions have ended or the stream was given up at either side.
    pub async fn run(self: Arc<Self>, pipe: Pipe) {
        let (reader, writer) = pipe.split();
        let outcome = tokio::select! {
            error = self.inbound(BufReader::with_capacity(READ_BUFFER_BYTES, reader)) => Err(error),
            outcome = self.outbound(writer) => outcome,
        };
        if let Err(error) = outcome {
            self.tell(|state, connection| {
                // Otherwise the process's end is gone, and its id may stand for another stream.
                if !(state.out_ended && state.in_ended) {
                    streams::finish(connection, self.id, Some(&error));
                }
            });
        }
    }

    /// Says something to the process, unless it has given the stream up.
    fn tell(&self, say: impl FnOnce(&mut State, &Connection)) {
        let mut state = locked(&self.state);
        let Some(connection) = self.connection.upgrade().filter(|_| state.reset.is_none()) else { return };
        say(&mut state, &connection);
        drop(state);
        connection.outbox.flush();
    }

    fn next_work(&self) -> Option<Work> {
        let mut state = locked(&self.state);
        let reset = state.reset.clone().map(Work::Reset);
        if reset.is_some() && !state.out_ended {
            return reset;
        }
        if !state.out.is_empty() {
            let take = state.out.len().min(PIECE_BYTES);
            let held = state.held.as_mut().map(|held| held.split(take));
            return Some(Work::Bytes(state.out.split_to(take).freeze(), held));
        }
        if state.out_ended && !state.end_taken {
            state.end_taken = true;
            return Some(Work::End);
        }
        if reset.is_some() {
            return reset;
        }
        if state.end_taken && state.in_ended {
            return Some(Work::Done);
        }
        state.in_closed.then_some(Work::Cut)
    }

    /// Carries the process's bytes out; ends with the stream.
    async fn outbound(&self, mut writer: impl futures::AsyncWrite + Unpin) -> Result<()> {
        let outcome = self.carry_out(&mut writer).await;
        if outcome.is_err() && !self.given_up.is_cancelled() {
            self.drain().await;
        }
        outcome
    }

    async fn carry_out(&self, writer: &mut (impl futures::AsyncWrite + Unpin)) -> Result<()> {
        loop {
            let Some(work) = self.next_work() else {
                self.out_work.notified().await;
                continue;
            };
            match work {
                Work::Bytes(bytes, held) => {
                    self.write_piece(writer, &bytes).await?;
                    drop(held);
                    self.give_window(bytes.len());
                }
                Work::End => {
                    self.write(writer, &0u32.to_be_bytes()).await?;
                    self.in_time(writer.flush()).await?;
                    // Not closed yet: a reset for the other direction may still have to be told.
                }
                Work::Reset(error) => {
                    let head = error_head(&error);
                    if head.len() <= RESET_MAX_BYTES as usize {
                        let mut mark = Vec::from(RESET_MARK.to_be_bytes());
                        mark.extend_from_slice(&(head.len() as u32).to_be_bytes());
                        mark.extend_from_slice(head.as_bytes());
                        self.write(writer, &mark).await?;
                        self.in_time(writer.flush()).await?;
                    }
                    // Dropped, not closed: the peer's side must hear that nobody reads here either.
                    return Err(error);
                }
                Work::Done => return self.in_time(writer.close()).await,
                Work::Cut => return Err(cut_off()),
            }
        }
    }

    /// The peer takes no more, but what it said before may still be on its way to a slow reader, its clean end above
    /// all. Until that is over the process's bytes lead nowhere, so that it is not stuck writing before it reads.
    async fn drain(&self) {
        loop {
            let dropped = {
                let mut state = locked(&self.state);
                if state.in_closed || state.reset.is_some() {
                    return;
                }
                state.held = None;
                std::mem::take(&mut state.out).len()
            };
            self.give_window(dropped);
            self.out_work.notified().await;
        }
    }

    fn give_window(&self, bytes: usize) {
        self.tell(|state, connection| {
            if bytes > 0 && !state.out_ended {
                // At most what the window allowed: far below u32's end.
                streams::widen(connection, self.id, bytes as u32);
            }
        });
    }

    async fn write_piece(&self, writer: &mut (impl futures::AsyncWrite + Unpin), bytes: &Bytes) -> Result<()> {
        let prefix = (bytes.len() as u32).to_be_bytes();
        if bytes.len() < READ_BUFFER_BYTES {
            let mut whole = Buf::chain(&prefix[..], &bytes[..]);
            let together = whole.copy_to_bytes(whole.remaining());
            self.write(writer, &together).await?;
        } else {
            self.write(writer, &prefix).await?;
            self.write(writer, bytes).await?;
        }
        self.in_time(writer.flush()).await
    }

    async fn write(&self, writer: &mut (impl futures::AsyncWrite + Unpin), mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.in_time(writer.write(bytes)).await? {
                0 => return Err(cut_off()),
                written => bytes = &bytes[written..],
            }
        }
        Ok(())
    }

    /// Waits for the peer as long as the process does, and a while longer.
    async fn in_time<T>(&self, work: impl Future<Output = io::Result<T>>) -> Result<T> {
        let over = async {
            self.given_up.cancelled().await;
            sleep(LINGER).await;
        };
        tokio::select! {
            biased;
            done = work => done.map_err(lost),
            () = over => Err(Error::Timeout("the peer does not read the stream".into())),
        }
    }

    /// Carries the peer's bytes in; returns only with what ends the whole stream.
    async fn inbound(&self, mut reader: impl futures::AsyncBufRead + Unpin) -> Error {
        if let Err(error) = self.carry_in(&mut reader).await {
            return error;
        }
        self.tell(|_, connection| streams::finish(connection, self.id, None));
        locked(&self.state).in_ended = true;
        self.out_work.notify_one();
        match read_u32(&mut reader).await {
            Ok(RESET_MARK) => return read_reset(&mut reader).await.unwrap_or_else(|error| error),
            Ok(_) => return Error::Invalid("the peer sent more after its end".into()),
            Err(_) => {}
        }
        locked(&self.state).in_closed = true;
        self.out_work.notify_one();
        std::future::pending().await
    }

    /// Carries bytes until the peer's clean end; any other end is an error.
    async fn carry_in(&self, reader: &mut (impl futures::AsyncBufRead + Unpin)) -> Result<()> {
        loop {
            let mut left = match read_u32(reader).await? {
                0 => return Ok(()),
                RESET_MARK => return Err(read_reset(reader).await?),
                size if size > PIECE_MAX_BYTES => {
                    return Err(Error::Invalid(format!("the peer sent a piece of {size} bytes")));
                }
                size => size as usize,
            };
            while left > 0 {
                let room = self.room().await.min(left);
                let here = reader.fill_buf().await.map_err(lost)?;
                if here.is_empty() {
                    return Err(cut_off());
                }
                let take = here.len().min(room);
                let chunk = Bytes::copy_from_slice(&here[..take]);
                reader.consume_unpin(take);
                left -= take;
                self.tell(|state, connection| {
                    state.window -= take as i64;
                    // A connection that takes no more is about to be buried, and this stream given up with it.
                    let _ = connection.send(Op::Data, self.id, b"", &chunk);
                });
            }
        }
    }

    /// What the process takes now; waits while that is nothing, and while so much waits for the process that more would
    /// only pile up. One that gave up takes all, to let it go.
    async fn room(&self) -> usize {
        if let Some(connection) = self.connection.upgrade() {
            connection.outbox.has_room().await;
        }
        loop {
            {
                let state = locked(&self.state);
                if state.reset.is_some() {
                    return usize::MAX;
                }
                if let Ok(room @ 1..) = usize::try_from(state.window) {
                    return room;
                }
            }
            self.in_work.notified().await;
        }
    }
}

async fn read_u32(reader: &mut (impl futures::AsyncRead + Unpin)) -> Result<u32> {
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes).await.map_err(lost)?;
    Ok(u32::from_be_bytes(bytes))
}

async fn read_reset(reader: &mut (impl futures::AsyncRead + Unpin)) -> Result<Error> {
    let size = read_u32(reader).await?;
    if size > RESET_MAX_BYTES {
        return Err(Error::Invalid(format!("the peer sent a reset of {size} bytes")));
    }
    let mut text = vec![0; size as usize];
    reader.read_exact(&mut text).await.map_err(lost)?;
    Ok(serde_json::from_slice(&text).map_or_else(|_| cut_off(), |object| head_error(&object)))
}

fn cut_off() -> Error {
    Error::Unavailable("the stream was cut off".into())
}

fn lost(error: io::Error) -> Error {
    Error::Unavailable(format!("the stream was cut off: {error}"))
}
