//! Length-prefixed frames on substreams, with the ceiling checked before anything is allocated.
//!
//! ```text
//! frame   = length:u32be (bytes after this field) | body
//! request = 1 | id:u32be | timeout_ms:u32be | slen:u8 | service | mlen:u8 | method | hlen:u32be | head | payload
//! reply   = 2 | id:u32be | hlen:u32be | head | payload
//! error   = 3 | id:u32be | JSON {"code","message"}
//! cancel  = 4 | id:u32be
//! ```
//!
//! `/chorus/request/1.0.0` carries any number of them, answers in any order. `/chorus/stream/1.0.0` carries one request
//! and one reply or error (both with id 0), then raw bytes. `/chorus/raft/1.0.0` carries frames whose body is Raft's.

use std::{io, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{AsyncRead, AsyncReadExt};

use tokio::time::timeout;

use super::Reply;
use crate::{Error, Result};

/// Largest body of a frame: 16 MiB of payload and 1 MiB for what surrounds it.
pub const FRAME_MAX_BYTES: usize = 17 * 1024 * 1024;
/// Largest head: it is JSON that is parsed whole, so that bulk belongs into the payload.
pub const HEAD_MAX_BYTES: usize = 64 * 1024;
/// Objects and arrays within one another in a head.
const HEAD_DEPTH_MAX: usize = 32;
/// Largest frame of a peer that is no member: what joining takes, and room around it.
pub const STRANGER_FRAME_MAX_BYTES: usize = HEAD_MAX_BYTES + 1024;
/// How long a body may take once its length is there. Whole requests have shorter deadlines.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Up to this size a body is allocated at once; beyond it memory grows only as bytes arrive.
const READ_STEP_BYTES: usize = 64 * 1024;
/// Bytes of an error's message that travel.
const ERROR_MESSAGE_MAX_BYTES: usize = 4096;

const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const ERROR: u8 = 3;
const CANCEL: u8 = 4;

/// What is asked of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Service asked.
    pub service: String,
    /// Method of the service.
    pub method: String,
    /// JSON head, raw.
    pub head: Bytes,
    /// Payload.
    pub payload: Bytes,
    /// What is left of the caller's deadline.
    pub timeout: Duration,
}

/// One frame of the request or stream protocol.
#[derive(Debug, Clone)]
pub enum Frame {
    Request(u32, Ask),
    Reply(u32, Reply),
    Error(u32, Error),
    Cancel(u32),
}

impl Frame {
    /// The frame as bytes, its length in front; the payload is copied once.
    pub fn encode(&self) -> Result<Bytes> {
        let mut out = BytesMut::new();
        match self {
            Self::Request(id, ask) => {
                let (service, method) = (ask.service.as_bytes(), ask.method.as_bytes());
                let (Ok(slen), Ok(mlen)) = (u8::try_from(service.len()), u8::try_from(method.len())) else {
                    return Err(Error::Invalid("service and method names have at most 255 bytes".into()));
                };
                let body = 15 + service.len() + method.len() + ask.head.len() + ask.payload.len();
                begin(&mut out, body, REQUEST, *id)?;
                out.put_u32(u32::try_from(ask.timeout.as_millis()).unwrap_or(u32::MAX));
                out.put_u8(slen);
                out.put_slice(service);
                out.put_u8(mlen);
                out.put_slice(method);
                put_head(&mut out, &ask.head)?;
                out.put_slice(&ask.payload);
            }
            Self::Reply(id, reply) => {
                begin(&mut out, 9 + reply.head.len() + reply.payload.len(), REPLY, *id)?;
                put_head(&mut out, &reply.head)?;
                out.put_slice(&reply.payload);
            }
            Self::Error(id, error) => {
                let mut message = detail(error);
                if message.len() > ERROR_MESSAGE_MAX_BYTES {
                    let cut = (0..=ERROR_MESSAGE_MAX_BYTES).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
                    message.truncate(cut);
                }
                let text = serde_json::json!({"code": error.code(), "message": message}).to_string();
                begin(&mut out, 5 + text.len(), ERROR, *id)?;
                out.put_slice(text.as_bytes());
            }
            Self::Cancel(id) => begin(&mut out, 5, CANCEL, *id)?,
        }
        Ok(out.freeze())
    }

    /// Reads a body that [`read_body`] returned.
    pub fn decode(mut body: Bytes) -> Result<Self> {
        let kind = body.try_get_u8().map_err(short)?;
        let id = body.try_get_u32().map_err(short)?;
        match kind {
            REQUEST => {
                let timeout = Duration::from_millis(u64::from(body.try_get_u32().map_err(short)?));
                let service = take_name(&mut body)?;
                let method = take_name(&mut body)?;
                let head = take_head(&mut body)?;
                Ok(Self::Request(id, Ask { service, method, head, payload: body, timeout }))
            }
            REPLY => {
                let head = take_head(&mut body)?;
                Ok(Self::Reply(id, Reply { head, payload: body }))
            }
            ERROR => {
                #[derive(serde::Deserialize)]
                struct Said {
                    code: String,
                    message: String,
                }
                let said: Said =
                    serde_json::from_slice(&body).map_err(|e| Error::Invalid(format!("error frame: {e}")))?;
                Ok(Self::Error(id, Error::from_code(&said.code, said.message)))
            }
            CANCEL => Ok(Self::Cancel(id)),
            other => Err(Error::Invalid(format!("frame of unknown kind {other}"))),
        }
    }
}

/// A frame whose body is given bytes (Raft's lanes).
pub fn lane_header(body: usize) -> Result<[u8; 4]> {
    if body > FRAME_MAX_BYTES {
        return Err(Error::TooLarge(format!("a frame of {body} bytes; the limit is {FRAME_MAX_BYTES}")));
    }
    u32::try_from(body).map(u32::to_be_bytes).map_err(|e| Error::TooLarge(e.to_string()))
}

/// Reads one frame's body; `None` when the stream ended between frames.
pub async fn read_body<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<Bytes>> {
    match read_length(stream).await? {
        Some(length) => Ok(Some(Bytes::from(read_rest(stream, length).await?))),
        None => Ok(None),
    }
}

/// Reads the length of a frame's body, and checks it; `None` when the stream ended between frames.
pub async fn read_length<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<usize>> {
    let mut length = [0u8; 4];
    let mut have = 0;
    while have < length.len() {
        match stream.read(&mut length[have..]).await? {
            0 if have == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => have += n,
        }
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes; the limit is {FRAME_MAX_BYTES}"),
        ));
    }
    Ok(Some(length))
}

/// Reads the body that [`read_length`] announced.
pub async fn read_rest<S: AsyncRead + Unpin>(stream: &mut S, length: usize) -> io::Result<Vec<u8>> {
    let read = async {
        let mut body = Vec::with_capacity(length.min(READ_STEP_BYTES));
        while body.len() < length {
            // Doubling: a peer that announces much and sends little holds little.
            let step = (length - body.len()).min(READ_STEP_BYTES.max(body.len()));
            let from = body.len();
            body.resize(from + step, 0);
            stream.read_exact(&mut body[from..]).await?;
        }
        Ok(body)
    };
    timeout(BODY_TIMEOUT, read).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads and forgets a body that [`read_length`] announced.
pub async fn skip_rest<S: AsyncRead + Unpin>(stream: &mut S, length: usize) -> io::Result<()> {
    let mut nowhere = [0; 8 * 1024];
    let mut left = length;
    while left > 0 {
        let step = left.min(nowhere.len());
        stream.read_exact(&mut nowhere[..step]).await?;
        left -= step;
    }
    Ok(())
}

/// Whether a head may be parsed: neither too long nor nested too deep. Whether it is JSON shows when it is.
pub fn check_head(head: &[u8]) -> Result<()> {
    if head.len() > HEAD_MAX_BYTES {
        return Err(Error::TooLarge(format!("a head of {} bytes; the limit is {HEAD_MAX_BYTES}", head.len())));
    }
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for byte in head {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                if depth > HEAD_DEPTH_MAX {
                    return Err(Error::Invalid(format!("a head nested deeper than {HEAD_DEPTH_MAX}")));
                }
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

fn begin(out: &mut BytesMut, body: usize, kind: u8, id: u32) -> Result<()> {
    let header = lane_header(body)?;
    out.reserve(4 + body);
    out.put_slice(&header);
    out.put_u8(kind);
    out.put_u32(id);
    Ok(())
}

fn put_head(out: &mut BytesMut, head: &Bytes) -> Result<()> {
    check_head(head)?;
    out.put_u32(u32::try_from(head.len()).map_err(|e| Error::TooLarge(e.to_string()))?);
    out.put_slice(head);
    Ok(())
}

fn take_head(body: &mut Bytes) -> Result<Bytes> {
    let length = body.try_get_u32().map_err(short)? as usize;
    if length > body.len() {
        return Err(Error::Invalid("frame ends inside its head".into()));
    }
    let head = body.split_to(length);
    check_head(&head)?;
    Ok(head)
}

fn take_name(body: &mut Bytes) -> Result<String> {
    let length = body.try_get_u8().map_err(short)? as usize;
    if length > body.len() {
        return Err(Error::Invalid("frame ends inside a name".into()));
    }
    String::from_utf8(body.split_to(length).to_vec()).map_err(|_| Error::Invalid("a name is not UTF-8".into()))
}

/// An error's text without the words that its code already says.
fn detail(error: &Error) -> String {
    match error {
        Error::Invalid(text)
        | Error::NotFound(text)
        | Error::Unavailable(text)
        | Error::Timeout(text)
        | Error::Refused(text)
        | Error::TooLarge(text)
        | Error::NotPermitted(text)
        | Error::Tampered(text)
        | Error::QuorumFailed(text)
        | Error::Internal(text) => text.clone(),
        other => other.to_string(),
    }
}

fn short(_: bytes::TryGetError) -> Error {
    Error::Invalid("frame is too short".into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(frame: &Frame) -> Bytes {
        frame.encode().unwrap().slice(4..)
    }

    #[test]
    fn frames_come_back_as_they_were() {
        let ask = Ask {
            service: "executor".into(),
            method: "award".into(),
            head: Bytes::from_static(b"{}"),
            payload: Bytes::from_static(b"payload"),
            timeout: Duration::from_millis(1500),
        };
        let Frame::Request(7, back) = Frame::decode(body(&Frame::Request(7, ask.clone()))).unwrap() else { panic!() };
        assert_eq!(back, ask);
        let Frame::Error(8, back) = Frame::decode(body(&Frame::Error(8, Error::Refused("no".into())))).unwrap() else {
            panic!()
        };
        assert_eq!((back.code(), detail(&back).as_str()), ("refused", "no"));
        assert!(matches!(Frame::decode(body(&Frame::Cancel(9))), Ok(Frame::Cancel(9))));
    }

    #[tokio::test]
    async fn ceiling_is_checked_before_allocation() {
        let mut bytes = &[0xff, 0xff, 0xff, 0xff, 1][..];
        assert_eq!(read_body(&mut bytes).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(
            Frame::Reply(1, Reply { head: Bytes::new(), payload: vec![0; FRAME_MAX_BYTES].into() }).encode().is_err()
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Frame::decode(Bytes::from(bytes));
        }
    }
}
