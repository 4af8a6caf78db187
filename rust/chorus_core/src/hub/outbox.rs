//! What waits to be written to one connection: many frames leave in one write, at once when the socket takes them,
//! and by the connection's own writer task when it does not. Whoever queues never waits.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, Write},
    os::unix::net::UnixStream,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::{Buf, Bytes};
use tokio::{net::unix::pipe, sync::Notify};

use super::frame::Packed;

/// Pieces handed to one write.
const WRITE_PIECES: usize = 64;
/// While more than this waits, nothing more is read from the connection.
const HIGH_WATER_BYTES: usize = 4 * 1024 * 1024;
/// A process that lets this much pile up does not read any more; its connection is closed.
const OUTBOX_MAX_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Outbox {
    socket: UnixStream,
    state: Mutex<State>,
    /// Wakes the writer task.
    work: Notify,
    /// Wakes those who wait when there is room again.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    broken: bool,
}

impl Outbox {
    /// Writes to `socket`, which must not block.
    pub fn new(socket: UnixStream) -> Self {
        Self { socket, state: Mutex::default(), work: Notify::new(), room: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame; false when the connection is beyond hope. Call `flush` when nothing more follows.
    pub fn push(&self, frame: Packed) -> bool {
        let mut state = self.lock();
        if state.broken {
            return false;
        }
        state.bytes += frame.len();
        state.pieces.push_back(frame.first);
        if !frame.rest.is_empty() {
            state.pieces.push_back(frame.rest);
        }
        if state.bytes > OUTBOX_MAX_BYTES {
            state.broken = true;
            drop(state);
            self.work.notify_one();
            return false;
        }
        true
    }

    /// Writes what the socket takes now and leaves the rest to the writer task.
    pub fn flush(&self) {
        let mut state = self.lock();
        if !matches!(self.write_some(&mut state), Ok(true)) {
            drop(state);
            self.work.notify_one();
        }
    }

    /// True when everything is written.
    fn write_some(&self, state: &mut State) -> io::Result<bool> {
        while !state.pieces.is_empty() && !state.broken {
            let mut slices = [IoSlice::new(&[]); WRITE_PIECES];
            let mut used = 0;
            for (slice, piece) in slices.iter_mut().zip(&state.pieces) {
                *slice = IoSlice::new(piece);
                used += 1;
            }
            let mut written = match (&self.socket).write_vectored(&slices[..used]) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    state.broken = true;
                    return Err(error);
                }
            };
            state.bytes -= written;
            while let Some(piece) = state.pieces.front_mut() {
                if piece.len() > written {
                    piece.advance(written);
                    break;
                }
                written -= piece.len();
                state.pieces.pop_front();
            }
        }
        if state.bytes <= HIGH_WATER_BYTES {
            self.room.notify_waiters();
        }
        Ok(!state.broken)
    }

    /// The writer task: returns with the reason when the connection cannot be written to any more.
    pub async fn run(&self) -> io::Error {
        loop {
            let done = {
                let mut state = self.lock();
                if state.broken {
                    return io::Error::other("what was sent to it was not read");
                }
                match self.write_some(&mut state) {
                    Ok(done) => done,
                    Err(error) => return error,
                }
            };
            if done {
                self.work.notified().await;
            } else if let Err(error) = self.writable().await {
                return error;
            }
        }
    }

    /// Waits until the socket takes more. It is watched for that only meanwhile: otherwise each read of the process
    /// would wake the hub for nothing.
    async fn writable(&self) -> io::Result<()> {
        pipe::Sender::from_owned_fd_unchecked(self.socket.try_clone()?.into())?.writable().await
    }

    /// Whether so much waits that nothing should be added that can wait elsewhere.
    pub fn is_full(&self) -> bool {
        self.lock().bytes > HIGH_WATER_BYTES
    }

    /// Returns when little enough waits to read on.
    pub async fn has_room(&self) {
        while self.is_full() {
            let mut room = std::pin::pin!(self.room.notified());
            // Enlisted before looking again, so that no waking is missed.
            room.as_mut().enable();
            if self.is_full() {
                room.await;
            }
        }
    }

    /// Drops what waits; nothing is queued any more.
    pub fn close(&self) {
        let mut state = self.lock();
        state.broken = true;
        state.pieces.clear();
        state.bytes = 0;
        drop(state);
        self.work.notify_one();
        self.room.notify_waiters();
    }
}
