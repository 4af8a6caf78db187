//! Byte streams between processes: frames passed from end to end, each end held to the window it was given.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::{
    bridge::Bridge,
    connection::{Connection, Touched, error_head, head_error, locked},
    frame::{Frame, Op},
    server::Inner,
};
use crate::{Error, Result};

/// What either end may send before the other says that it has read.
pub(super) const WINDOW_BYTES: i64 = 1024 * 1024;
/// No end may be given more than this, whatever the other says.
const WINDOW_MAX_BYTES: i64 = 16 * 1024 * 1024;
/// Streams of one process at once.
pub(super) const MAX_STREAMS: usize = 1024;

/// One process's end of a stream.
#[derive(Debug)]
pub(super) struct End {
    other: Other,
    /// What this process may still send.
    window: i64,
    /// This process has ended its direction.
    ended: bool,
    /// The other direction has ended.
    other_ended: bool,
}

/// What lies at the other end.
#[derive(Debug, Clone)]
pub(super) enum Other {
    /// A sibling's end.
    Sibling(Weak<Connection>, u32),
    /// A stream to a peer.
    Peer(Arc<Bridge>),
}

impl End {
    pub fn new(other: Other) -> Self {
        Self { other, window: WINDOW_BYTES, ended: false, other_ended: false }
    }
}

/// Adds an end to a process.
pub(super) fn attach(connection: &Connection, id: u32, end: End) -> Result<()> {
    let mut streams = locked(&connection.streams);
    if streams.len() >= MAX_STREAMS {
        return Err(Error::Unavailable(format!("{} has {MAX_STREAMS} streams open", connection.label())));
    }
    if streams.contains_key(&id) {
        return Err(Error::Invalid(format!("stream {id} is in use")));
    }
    streams.insert(id, end);
    Ok(())
}

/// Takes an end, and its sibling's end, away without a word.
pub(super) fn drop_pair(connection: &Connection, id: u32) {
    let end = locked(&connection.streams).remove(&id);
    match end.map(|end| end.other) {
        Some(Other::Sibling(other, other_id)) => {
            if let Some(other) = other.upgrade() {
                locked(&other.streams).remove(&other_id);
            }
        }
        Some(Other::Peer(bridge)) => bridge.reset(&Error::Closed),
        None => {}
    }
}

/// Takes away an end whose stream to a peer never came about, unless its id stands for another one by now.
pub(super) fn drop_unopened(connection: &Connection, id: u32, bridge: &Arc<Bridge>) {
    let mut streams = locked(&connection.streams);
    if matches!(streams.get(&id), Some(End { other: Other::Peer(known), .. }) if Arc::ptr_eq(known, bridge)) {
        streams.remove(&id);
    }
}

/// Gives an end more window: the other end has read.
pub(super) fn widen(connection: &Connection, id: u32, n: u32) -> bool {
    let mut streams = locked(&connection.streams);
    let Some(end) = streams.get_mut(&id) else { return false };
    end.window = (end.window + i64::from(n)).min(WINDOW_MAX_BYTES);
    drop(streams);
    let head = format!("{{\"n\":{n}}}");
    connection.send(Op::Window, id, head.as_bytes(), &Bytes::new()).is_ok()
}

/// Tells an end that the other direction has ended, cleanly or by a reset.
pub(super) fn finish(connection: &Connection, id: u32, reset: Option<&Error>) {
    let mut streams = locked(&connection.streams);
    let Some(end) = streams.get_mut(&id) else { return };
    end.other_ended = true;
    if end.ended || reset.is_some() {
        streams.remove(&id);
    }
    drop(streams);
    let head = reset.map(error_head).unwrap_or_default();
    let _ = connection.send(Op::End, id, head.as_bytes(), &Bytes::new());
}

impl Inner {
    /// DATA, WINDOW or END from a process. On a stream that is gone they mean nothing: a reset may be on its way.
    pub fn on_stream_frame(&self, connection: &Arc<Connection>, frame: &Frame, touched: &mut Touched) -> Result<()> {
        match frame.op {
            Op::Data => on_data(connection, frame, touched),
            Op::Window => {
                let n = frame.count()?;
                let other = locked(&connection.streams).get(&frame.id).map(|end| end.other.clone());
                match other {
                    Some(Other::Sibling(other, id)) => {
                        if let Some(other) = other.upgrade() {
                            widen(&other, id, n);
                            touched.add(&other);
                        }
                    }
                    Some(Other::Peer(bridge)) => bridge.widen(n),
                    None => {}
                }
                Ok(())
            }
            _ => on_end(connection, frame, touched),
        }
    }

    /// A process is gone: the other ends of its streams are reset.
    pub fn abandon_streams(&self, connection: &Arc<Connection>, touched: &mut Touched) {
        let ends: Vec<_> = locked(&connection.streams).drain().collect();
        let error = Error::Closed;
        for (_, end) in ends {
            reset_other(&end.other, &error, touched);
        }
    }
}

fn reset_other(other: &Other, error: &Error, touched: &mut Touched) {
    match other {
        Other::Sibling(other, id) => {
            if let Some(other) = other.upgrade() {
                finish(&other, *id, Some(error));
                touched.add(&other);
            }
        }
        Other::Peer(bridge) => bridge.reset(error),
    }
}

fn on_data(connection: &Arc<Connection>, frame: &Frame, touched: &mut Touched) -> Result<()> {
    let other = {
        let mut streams = locked(&connection.streams);
        let Some(end) = streams.get_mut(&frame.id) else { return Ok(()) };
        let size = frame.payload.len() as i64;
        if end.ended {
            return Err(Error::Invalid(format!("data after the end of stream {}", frame.id)));
        }
        if size > end.window {
            return Err(Error::Invalid(format!("{size} bytes on stream {} with a window of {}", frame.id, end.window)));
        }
        end.window -= size;
        end.other.clone()
    };
    if frame.payload.is_empty() {
        return Ok(());
    }
    match other {
        Other::Sibling(other, id) => {
            if let Some(other) = other.upgrade() {
                let _ = other.send(Op::Data, id, b"", &frame.payload);
                touched.add(&other);
            }
        }
        Other::Peer(bridge) => {
            if let Err(error) = bridge.push(&frame.payload) {
                bridge.reset(&error);
                finish(connection, frame.id, Some(&error));
                touched.add(connection);
            }
        }
    }
    Ok(())
}

fn on_end(connection: &Arc<Connection>, frame: &Frame, touched: &mut Touched) -> Result<()> {
    let object = frame.object()?;
    let reset = object.contains_key("code").then(|| head_error(&object));
    let other = {
        let mut streams = locked(&connection.streams);
        let Some(end) = streams.get_mut(&frame.id) else { return Ok(()) };
        let other = end.other.clone();
        end.ended = true;
        if end.other_ended || reset.is_some() {
            streams.remove(&frame.id);
        }
        other
    };
    match (&other, &reset) {
        (_, Some(error)) => reset_other(&other, error, touched),
        (Other::Sibling(other, id), None) => {
            if let Some(other) = other.upgrade() {
                finish(&other, *id, None);
                touched.add(&other);
            }
        }
        (Other::Peer(bridge), None) => bridge.end(),
    }
    Ok(())
}
