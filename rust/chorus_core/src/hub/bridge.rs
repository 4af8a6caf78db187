//! A process's stream to a peer: carries bytes between the hub's frames and the network's stream.
//!
//! On the network each piece is preceded by its length (u32, big endian). Length 0 is the clean end of a direction and
//! `u32::MAX` a reset, followed by the length and text of `{"code","message"}`; a stream that just stops was cut off,
//! so that truncated output is never taken for whole.

use std::sync::{Arc, Mutex, Weak};

use bytes::{Buf, Bytes, BytesMut};
use futures::{AsyncReadExt, AsyncWriteExt, io::BufReader};
use tokio::sync::Notify;

use super::{
    backend::Pipe,
    connection::{Connection, error_head, head_error, locked},
    frame::Op,
    streams::{self, WINDOW_BYTES},
};
use crate::{Error, Result};

const RESET_MARK: u32 = u32::MAX;
/// The text of a reset.
const RESET_MAX_BYTES: u32 = 4096;
/// A piece on the network; the peer's own limit must not be smaller.
const PIECE_MAX_BYTES: u32 = 1024 * 1024;
/// A DATA frame to the process.
const CHUNK_BYTES: usize = 256 * 1024;
const READ_BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Bridge {
    connection: Weak<Connection>,
    id: u32,
    state: Mutex<State>,
    /// The process has sent something, or given up.
    out_work: Notify,
    /// The process has read something.
    in_work: Notify,
}

#[derive(Debug)]
struct State {
    /// From the process, bounded by its window.
    out: BytesMut,
    out_ended: bool,
    /// What the process takes.
    window: i64,
    reset: Option<Error>,
}

/// What the outbound side finds to do.
enum Work {
    Bytes(Bytes),
    End,
    Reset(Error),
}

impl Bridge {
    pub fn new(connection: &Arc<Connection>, id: u32) -> Arc<Self> {
        let state = State { out: BytesMut::new(), out_ended: false, window: WINDOW_BYTES, reset: None };
        Arc::new(Self {
            connection: Arc::downgrade(connection),
            id,
            state: Mutex::new(state),
            out_work: Notify::new(),
            in_work: Notify::new(),
        })
    }

    /// Bytes from the process.
    pub fn push(&self, bytes: &[u8]) {
        locked(&self.state).out.extend_from_slice(bytes);
        self.out_work.notify_one();
    }

    /// The process's clean end.
    pub fn end(&self) {
        locked(&self.state).out_ended = true;
        self.out_work.notify_one();
    }

    /// The process gave up, or is gone.
    pub fn reset(&self, error: &Error) {
        locked(&self.state).reset.get_or_insert_with(|| error.clone());
        self.out_work.notify_one();
    }

    /// The process has read `n` bytes.
    pub fn widen(&self, n: u32) {
        locked(&self.state).window += i64::from(n);
        self.in_work.notify_one();
    }

    /// Carries bytes both ways until both directions have ended or one fails.
    pub async fn run(self: Arc<Self>, pipe: Pipe) {
        let (reader, writer) = pipe.split();
        let outcome = futures::future::try_join(
            self.inbound(BufReader::with_capacity(READ_BUFFER_BYTES, reader)),
            self.outbound(writer),
        )
        .await;
        if let (Err(error), Some(connection)) = (outcome, self.connection.upgrade()) {
            // Says nothing when it was the process that reset: its end is gone.
            streams::finish(&connection, self.id, Some(&error));
            connection.outbox.flush();
        }
    }

    async fn next_work(&self) -> Work {
        loop {
            {
                let mut state = locked(&self.state);
                if let Some(error) = &state.reset {
                    return Work::Reset(error.clone());
                }
                if !state.out.is_empty() {
                    let take = state.out.len().min(PIECE_MAX_BYTES as usize);
                    return Work::Bytes(state.out.split_to(take).freeze());
                }
                if state.out_ended {
                    return Work::End;
                }
            }
            self.out_work.notified().await;
        }
    }

    async fn outbound(&self, mut writer: impl futures::AsyncWrite + Unpin) -> Result<()> {
        loop {
            match self.next_work().await {
                Work::Bytes(bytes) => {
                    tokio::select! {
                        written = write_piece(&mut writer, &bytes) => written.map_err(lost)?,
                        error = self.was_reset() => return Err(error),
                    }
                    let Some(connection) = self.connection.upgrade() else { return Err(Error::Closed) };
                    // A piece is at most the window: far below u32's end.
                    streams::widen(&connection, self.id, bytes.len() as u32);
                    connection.outbox.flush();
                }
                Work::End => {
                    writer.write_all(&0u32.to_be_bytes()).await.map_err(lost)?;
                    writer.flush().await.map_err(lost)?;
                    // Not closed yet: the reset of the other direction may still have to be told.
                    return Ok(());
                }
                Work::Reset(error) => {
                    let head = error_head(&error);
                    if head.len() <= RESET_MAX_BYTES as usize {
                        let mut mark = Vec::from(RESET_MARK.to_be_bytes());
                        mark.extend_from_slice(&(head.len() as u32).to_be_bytes());
                        mark.extend_from_slice(head.as_bytes());
                        let _ = writer.write_all(&mark).await;
                        let _ = writer.flush().await;
                    }
                    let _ = writer.close().await;
                    return Err(error);
                }
            }
        }
    }

    /// While a slow peer takes a piece the process may give up.
    async fn was_reset(&self) -> Error {
        loop {
            self.out_work.notified().await;
            if let Some(error) = &locked(&self.state).reset {
                return error.clone();
            }
        }
    }

    async fn inbound(&self, mut reader: impl futures::AsyncRead + Unpin) -> Result<()> {
        loop {
            let mut left = match read_u32(&mut reader).await? {
                0 => break,
                RESET_MARK => return Err(read_reset(&mut reader).await?),
                size if size > PIECE_MAX_BYTES => {
                    return Err(Error::Invalid(format!("the peer sent a piece of {size} bytes")));
                }
                size => size as usize,
            };
            while left > 0 {
                let room = self.room().await.min(left).min(CHUNK_BYTES);
                let mut chunk = BytesMut::zeroed(room);
                let read = reader.read(&mut chunk).await.map_err(lost)?;
                if read == 0 {
                    return Err(cut_off());
                }
                chunk.truncate(read);
                left -= read;
                locked(&self.state).window -= read as i64;
                let connection = self.connection.upgrade().ok_or(Error::Closed)?;
                connection.send(Op::Data, self.id, b"", &chunk.freeze())?;
                connection.outbox.flush();
            }
        }
        let connection = self.connection.upgrade().ok_or(Error::Closed)?;
        streams::finish(&connection, self.id, None);
        connection.outbox.flush();
        Ok(())
    }

    /// What the process takes now; waits while that is nothing.
    async fn room(&self) -> usize {
        loop {
            if let Ok(room @ 1..) = usize::try_from(locked(&self.state).window) {
                return room;
            }
            self.in_work.notified().await;
        }
    }
}

async fn write_piece(writer: &mut (impl futures::AsyncWrite + Unpin), bytes: &Bytes) -> std::io::Result<()> {
    let prefix = (bytes.len() as u32).to_be_bytes();
    let mut whole = Buf::chain(&prefix[..], &bytes[..]);
    if bytes.len() < READ_BUFFER_BYTES {
        let together = whole.copy_to_bytes(whole.remaining());
        writer.write_all(&together).await?;
    } else {
        writer.write_all(&prefix).await?;
        writer.write_all(bytes).await?;
    }
    writer.flush().await
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

fn lost(error: std::io::Error) -> Error {
    Error::Unavailable(format!("the stream was cut off: {error}"))
}
