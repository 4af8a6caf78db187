//! Raft's lanes: ordered frames to each peer over one persistent substream, dropped rather than waited for.
//!
//! Raft repeats what it misses, so a full queue or an absent peer loses frames (counted) and never blocks the sender.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{AsyncReadExt, AsyncWriteExt, io::BufReader};
use libp2p::{PeerId, StreamProtocol};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    Offence,
    frame::{lane_header, read_length, read_rest, skip_rest},
    serving::Guest,
    shared::{Command, Shared, bump, open},
};

/// Ordered, lossy frames of Raft.
pub const LANE_PROTOCOL: StreamProtocol = StreamProtocol::new("/chorus/raft/1.0.0");

/// Largest frame of Raft.
pub const LANE_FRAME_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Largest frame of a peer that is not listed as a member here.
const INTRODUCTION_MAX_BYTES: usize = 128 * 1024;
/// What frames of one member may hold until Raft has taken them: two of the largest.
const MEMBER_FRAMES_MAX_BYTES: usize = 2 * LANE_FRAME_MAX_BYTES + 2 * OVERHEAD_BYTES;
/// What a frame costs beside its bytes.
const OVERHEAD_BYTES: usize = 256;
/// Frames waiting for one peer.
const QUEUE_FRAMES: usize = 4096;
/// Bytes waiting for one peer; above one frame's ceiling, so that the largest always fits.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Small frames that go out in one write.
const BATCH_BYTES: usize = 64 * 1024;
/// How long opening may take before what waits is dropped.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause after a failed opening: first, and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Sends frames to peers, in order, without ever waiting.
#[derive(Clone)]
pub struct Lane {
    inner: Arc<Inner>,
}

struct Inner {
    queues: Mutex<HashMap<PeerId, Queue>>,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
}

struct Queue {
    frames: mpsc::Sender<Bytes>,
    bytes: Arc<AtomicUsize>,
}

impl Lane {
    pub(super) fn new(commands: mpsc::Sender<Command>, shared: Arc<Shared>) -> Self {
        let runtime = tokio::runtime::Handle::current();
        Self { inner: Arc::new(Inner { queues: Mutex::default(), commands, shared, runtime }) }
    }

    /// Queues a frame for a peer; it is dropped (and counted) when the queue is full or the peer cannot be reached.
    pub fn send(&self, to: PeerId, frame: Bytes) {
        let dropped = &self.inner.shared.counters.lane_dropped;
        if frame.len() > LANE_FRAME_MAX_BYTES || to == self.inner.shared.local {
            bump(dropped);
            return;
        }
        let mut queues = self.inner.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(to).or_insert_with(|| self.spawn(to));
        if queue.frames.is_closed() {
            *queue = self.spawn(to);
        }
        let length = frame.len();
        if queue.bytes.fetch_add(length, Ordering::Relaxed) + length > QUEUE_BYTES
            || queue.frames.try_send(frame).is_err()
        {
            queue.bytes.fetch_sub(length, Ordering::Relaxed);
            bump(dropped);
        }
    }

    /// Ends the lane to a peer; what waits in it may still go out.
    pub(super) fn forget(&self, peer: &PeerId) {
        self.inner.queues.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    /// The peers that have a lane.
    #[cfg(test)]
    pub(super) fn peers(&self) -> Vec<PeerId> {
        self.inner.queues.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    fn spawn(&self, peer: PeerId) -> Queue {
        let (sender, receiver) = mpsc::channel(QUEUE_FRAMES);
        let bytes = Arc::new(AtomicUsize::new(0));
        let writer = Writer {
            peer,
            frames: receiver,
            bytes: bytes.clone(),
            commands: self.inner.commands.clone(),
            shared: self.inner.shared.clone(),
        };
        self.inner.runtime.spawn(writer.run());
        Queue { frames: sender, bytes }
    }
}

struct Writer {
    peer: PeerId,
    frames: mpsc::Receiver<Bytes>,
    bytes: Arc<AtomicUsize>,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

impl Writer {
    async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        while let Some(first) = self.frames.recv().await {
            self.took(&first);
            let opened = timeout(OPEN_TIMEOUT, open(&self.commands, self.peer, LANE_PROTOCOL)).await;
            let Ok(Ok(stream)) = opened else {
                bump(&self.shared.counters.lane_dropped);
                self.drop_for(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
                continue;
            };
            pause = PAUSE_MIN;
            self.carry(first, stream).await;
        }
    }

    /// Writes until the substream breaks or every sender is gone.
    async fn carry(&mut self, first: Bytes, stream: libp2p::Stream) {
        let (mut reader, mut writer) = stream.split();
        let mut next = Some(first);
        let mut probe = [0u8; 1];
        let mut batch = BytesMut::new();
        loop {
            let frame = match next.take() {
                Some(frame) => frame,
                None => tokio::select! {
                    frame = self.frames.recv() => match frame {
                        Some(frame) => { self.took(&frame); frame }
                        None => { let _ = writer.close().await; return; }
                    },
                    // The other side never writes here: anything read means that it is gone.
                    _ = reader.read(&mut probe) => return,
                },
            };
            batch.clear();
            put(&mut batch, &frame);
            while batch.len() < BATCH_BYTES
                && let Ok(frame) = self.frames.try_recv()
            {
                self.took(&frame);
                put(&mut batch, &frame);
            }
            if writer.write_all(&batch).await.is_err() || writer.flush().await.is_err() {
                bump(&self.shared.counters.lane_dropped);
                return;
            }
            if batch.capacity() > 4 * BATCH_BYTES {
                batch = BytesMut::new();
            }
        }
    }

    /// Loses what comes for a while instead of dialling for every frame.
    async fn drop_for(&mut self, pause: Duration) {
        let until = Instant::now() + pause.mul_f64(0.75 + rand::random::<f64>() / 2.0);
        while let Ok(Some(frame)) = tokio::time::timeout_at(until, self.frames.recv()).await {
            self.took(&frame);
            bump(&self.shared.counters.lane_dropped);
        }
    }

    fn took(&self, frame: &Bytes) {
        self.bytes.fetch_sub(frame.len(), Ordering::Relaxed);
    }
}

fn put(batch: &mut BytesMut, frame: &Bytes) {
    // The length was checked when the frame was queued.
    if let Ok(header) = lane_header(frame.len()) {
        batch.put_slice(&header);
        batch.put_slice(frame);
    }
}

/// Hands a peer's frames to the core, in order. A full budget slows the peer down. Of a peer that is not listed as a
/// member only small frames pass: a member that the log here does not list yet introduces itself in one.
pub async fn serve(guest: Guest, stream: libp2p::Stream) {
    let mut stream = BufReader::with_capacity(BATCH_BYTES, stream);
    let peer = guest.peer;
    let outcome: io::Result<()> = async {
        while let Some(length) = read_length(&mut stream).await? {
            if length > LANE_FRAME_MAX_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
            }
            let member = guest.shared.wall.permits(&peer);
            if !member && length > INTRODUCTION_MAX_BYTES {
                guest.shared.blame(peer, Offence::Refused);
                skip_rest(&mut stream, length).await?;
                continue;
            }
            let limit = if member { MEMBER_FRAMES_MAX_BYTES } else { INTRODUCTION_MAX_BYTES + OVERHEAD_BYTES };
            let held = guest.lanes.hold(length + OVERHEAD_BYTES, limit).await;
            let frame = held.own(read_rest(&mut stream, length).await?);
            match guest.shared.core().await {
                Ok(core) => core.frame(peer, frame),
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }
    .await;
    if let Err(error) = outcome {
        tracing::debug!(%peer, %error, "a lane ended");
        if error.kind() == io::ErrorKind::InvalidData {
            guest.shared.blame(peer, Offence::Malformed);
        }
    }
}
