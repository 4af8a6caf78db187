//! The hub's frames: the one place that packs, bounds and unpacks them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// Bytes of a frame after its length field: 16 MiB of payload (the largest value of the DHT) and room for its head.
pub const FRAME_MAX_BYTES: usize = 17 * 1024 * 1024;
/// Length, op, id and length of the head.
const PREFIX_BYTES: usize = 13;
/// The part of the prefix that the length counts.
const COUNTED_PREFIX_BYTES: usize = 9;
/// How much is read at once; many small frames fit in.
const READ_BYTES: usize = 64 * 1024;
/// A payload from this size on travels beside its header instead of being copied behind it.
const SEPARATE_PAYLOAD_BYTES: usize = 4 * 1024;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Op {
    Call = 1,
    Ok = 2,
    Err = 3,
    Event = 4,
    Credit = 5,
    Cancel = 6,
    Data = 7,
    Window = 8,
    End = 9,
}

impl Op {
    fn from_byte(byte: u8) -> Option<Self> {
        const OPS: [Op; 9] =
            [Op::Call, Op::Ok, Op::Err, Op::Event, Op::Credit, Op::Cancel, Op::Data, Op::Window, Op::End];
        OPS.get(usize::from(byte).checked_sub(1)?).copied()
    }
}

/// One frame off the wire.
#[derive(Debug)]
pub(super) struct Frame {
    pub op: Op,
    pub id: u32,
    pub head: Bytes,
    pub payload: Bytes,
}

impl Frame {
    /// The head as an object; an empty one is `{}`.
    pub fn object(&self) -> Result<Map<String, Value>> {
        if self.head.is_empty() {
            return Ok(Map::new());
        }
        serde_json::from_slice(&self.head)
            .map_err(|error| Error::Invalid(format!("the head of a {:?} frame is no JSON object: {error}", self.op)))
    }

    /// The count in the head of CREDIT and WINDOW.
    pub fn count(&self) -> Result<u32> {
        self.object()?
            .get("n")
            .and_then(Value::as_u64)
            .and_then(|n| u32::try_from(n).ok())
            .ok_or_else(|| Error::Invalid(format!("a {:?} frame needs \"n\", a count", self.op)))
    }
}

/// A frame ready to be written: its header, and its payload when that is worth not copying.
#[derive(Debug)]
pub(super) struct Packed {
    pub first: Bytes,
    pub rest: Bytes,
}

impl Packed {
    pub fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }
}

/// Packs a frame; `too_large` above the ceiling.
pub(super) fn pack(op: Op, id: u32, head: &[u8], payload: &Bytes) -> Result<Packed> {
    let size = COUNTED_PREFIX_BYTES + head.len() + payload.len();
    if size > FRAME_MAX_BYTES {
        return Err(Error::TooLarge(format!("a frame of {size} bytes; the hub's ceiling is {FRAME_MAX_BYTES}")));
    }
    let beside = payload.len() >= SEPARATE_PAYLOAD_BYTES;
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + head.len() + if beside { 0 } else { payload.len() });
    // Both fit: the sum is below the ceiling.
    bytes.put_u32(size as u32);
    bytes.put_u8(op as u8);
    bytes.put_u32(id);
    bytes.put_u32(head.len() as u32);
    bytes.put_slice(head);
    if beside {
        return Ok(Packed { first: bytes.freeze(), rest: payload.clone() });
    }
    bytes.put_slice(payload);
    Ok(Packed { first: bytes.freeze(), rest: Bytes::new() })
}

/// Cuts a byte stream into frames.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Where the next bytes are read to; `next` has checked the ceiling before a long frame gets its room here.
    pub fn space(&mut self) -> &mut BytesMut {
        let missing = self.expected().map_or(0, |whole| whole.saturating_sub(self.buffer.len()));
        let wanted = missing.clamp(READ_BYTES / 4, 16 * READ_BYTES);
        if self.buffer.capacity() - self.buffer.len() < wanted {
            self.buffer.reserve(wanted.max(READ_BYTES));
        }
        &mut self.buffer
    }

    fn expected(&self) -> Option<usize> {
        let size = self.buffer.first_chunk::<4>()?;
        Some(4 + (u32::from_be_bytes(*size) as usize).min(FRAME_MAX_BYTES))
    }

    /// The next whole frame, or `None` when more bytes are needed; an error means that the connection is useless.
    pub fn next(&mut self) -> Result<Option<Frame>> {
        let Some(size) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let size = u32::from_be_bytes(*size) as usize;
        if size > FRAME_MAX_BYTES {
            return Err(Error::TooLarge(format!("a frame of {size} bytes; the ceiling is {FRAME_MAX_BYTES}")));
        }
        if size < COUNTED_PREFIX_BYTES {
            return Err(Error::Invalid(format!("a frame of {size} bytes; the shortest has {COUNTED_PREFIX_BYTES}")));
        }
        if self.buffer.len() < 4 + size {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(4 + size).freeze();
        frame.advance(4);
        let op = frame.get_u8();
        let op = Op::from_byte(op).ok_or_else(|| Error::Invalid(format!("op {op} is unknown")))?;
        let id = frame.get_u32();
        let head_bytes = frame.get_u32() as usize;
        if head_bytes > frame.len() {
            return Err(Error::Invalid(format!("a head of {head_bytes} bytes in a frame with {} left", frame.len())));
        }
        let head = frame.split_to(head_bytes);
        Ok(Some(Frame { op, id, head, payload: frame }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8], step: usize) -> Result<Vec<Frame>> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for part in bytes.chunks(step) {
            decoder.space().put_slice(part);
            while let Some(frame) = decoder.next()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn frames_survive_any_cut() {
        let mut bytes = Vec::new();
        for (id, size) in [(1u32, 0usize), (2, 5), (3, 100_000)] {
            let packed = pack(Op::Data, id, b"{\"a\":1}", &Bytes::from(vec![7; size])).unwrap();
            bytes.extend_from_slice(&packed.first);
            bytes.extend_from_slice(&packed.rest);
        }
        for step in [1, 3, 4096, usize::MAX] {
            let frames = decode(&bytes, step).unwrap();
            assert_eq!(
                frames.iter().map(|f| (f.id, f.payload.len())).collect::<Vec<_>>(),
                [(1, 0), (2, 5), (3, 100_000)]
            );
            assert!(frames.iter().all(|f| f.object().unwrap()["a"] == 1));
        }
    }

    #[test]
    fn lies_about_size_are_refused_before_room_is_made() {
        let mut decoder = Decoder::default();
        decoder.space().put_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(decoder.next(), Err(Error::TooLarge(_))));
        assert!(decoder.buffer.capacity() <= 2 * READ_BYTES);
        for bad in [
            &[0u8, 0, 0, 3, 1, 0, 0][..],
            &[0, 0, 0, 9, 77, 0, 0, 0, 1, 0, 0, 0, 0],
            &[0, 0, 0, 9, 1, 0, 0, 0, 1, 0, 0, 0, 9],
        ] {
            assert!(matches!(decode(bad, 64), Err(Error::Invalid(_))));
        }
        assert!(pack(Op::Data, 1, b"", &Bytes::from(vec![0; FRAME_MAX_BYTES])).is_err());
    }
}
