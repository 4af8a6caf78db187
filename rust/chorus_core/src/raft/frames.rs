//! Frames between members, and what a message must look like before the machine sees it: raft-rs
//! believes what it is given, and panics at some of it.
//!
//! `version:u8 | mesh:26 | from:u64be | to:u64be | introductions:u16be (len:u32be | entry)* |
//! messages:u16be (len:u32be | protobuf)*`. Introductions are signed `join` entries that list the
//! sender for a receiver whose log does not reach that far yet.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message as _;
use raft::eraftpb::{EntryType, Message, MessageType};

use super::{entry::ULID_CHARS, storage::FOUNDING_INDEX, types::MAX_ENTRY_BYTES};
use crate::{Error, Result};

const VERSION: u8 = 1;
/// A frame is split above this; the network's own limit is far higher.
pub(super) const FRAME_TARGET_BYTES: usize = 1024 * 1024;
/// No frame is larger: one message of the largest size, its entries and introductions.
const MAX_FRAME_BYTES: usize = 8 * 1024 * 1024;
const MAX_MESSAGES: usize = 4096;
pub(super) const MAX_INTRODUCTIONS: usize = 64;
/// Room for stamp, ConfChange and framing around an entry.
const ENTRY_OVERHEAD_BYTES: usize = 1024;
/// Read rounds are numbered in eight bytes; a hand-over says so in 16.
const MAX_CONTEXT_BYTES: usize = 64;
/// Indexes and terms stay far from where arithmetic ends.
const MAX_NUMBER: u64 = 1 << 60;
/// Elections that a member may have slept through; pre-vote keeps real terms far lower.
const MAX_TERM_JUMP: u64 = 1 << 20;

/// A decoded frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub mesh: String,
    pub from: u64,
    pub to: u64,
    pub introductions: Vec<Bytes>,
    pub messages: Vec<Message>,
}

/// Builds a frame around encoded messages.
pub(super) fn encode(mesh: &str, from: u64, to: u64, introductions: &[Bytes], messages: &[Message]) -> Bytes {
    let mut frame = BytesMut::with_capacity(64 + messages.iter().map(|m| m.encoded_len() + 8).sum::<usize>());
    frame.put_u8(VERSION);
    frame.put_slice(mesh.as_bytes());
    frame.put_u64(from);
    frame.put_u64(to);
    frame.put_u16(u16::try_from(introductions.len()).unwrap_or(0));
    for introduction in introductions {
        put_part(&mut frame, introduction.len());
        frame.put_slice(introduction);
    }
    frame.put_u16(u16::try_from(messages.len()).unwrap_or(0));
    for message in messages {
        put_part(&mut frame, message.encoded_len());
        // BytesMut grows as needed, so that encoding cannot fail.
        let _ = message.encode(&mut frame);
    }
    frame.freeze()
}

fn put_part(frame: &mut BytesMut, length: usize) {
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

/// Reads a frame; nothing in it is trusted yet.
pub(super) fn decode(mut frame: Bytes) -> Result<Frame> {
    let bad = |what: &str| Error::Invalid(format!("frame: {what}"));
    if frame.len() > MAX_FRAME_BYTES {
        return Err(Error::TooLarge(format!("a frame of {} bytes", frame.len())));
    }
    let head = 1 + ULID_CHARS + 8 + 8 + 2;
    if frame.len() < head || frame.get_u8() != VERSION {
        return Err(bad("not of version 1"));
    }
    let mesh = String::from_utf8(frame.split_to(ULID_CHARS).into()).map_err(|_| bad("no mesh"))?;
    let from = frame.get_u64();
    let to = frame.get_u64();
    let introductions = get_parts(&mut frame, MAX_INTRODUCTIONS)?;
    if frame.remaining() < 2 {
        return Err(bad("cut short"));
    }
    let messages = get_parts(&mut frame, MAX_MESSAGES)?
        .into_iter()
        .map(|part| Message::decode(part).map_err(|_| bad("a message is no protobuf")))
        .collect::<Result<Vec<_>>>()?;
    if frame.has_remaining() {
        return Err(bad("bytes after the last message"));
    }
    Ok(Frame { mesh, from, to, introductions, messages })
}

fn get_parts(frame: &mut Bytes, limit: usize) -> Result<Vec<Bytes>> {
    let bad = || Error::Invalid("frame: cut short or too many parts".into());
    let count = usize::from(frame.get_u16());
    if count > limit {
        return Err(bad());
    }
    let mut parts = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        if frame.remaining() < 4 {
            return Err(bad());
        }
        let length = frame.get_u32() as usize;
        if frame.remaining() < length {
            return Err(bad());
        }
        parts.push(frame.split_to(length));
    }
    Ok(parts)
}

/// What the machine knows that a message is held against.
pub(super) struct Known<'a> {
    pub raft_id: u64,
    pub term: u64,
    pub leader_id: u64,
    pub committed: u64,
    pub last: u64,
    /// The term of an entry in this log, when it is there.
    pub term_of: &'a dyn Fn(u64) -> Option<u64>,
}

/// Whether `message` from the member `from` is one that Raft itself would send, and harmless.
pub(super) fn check(message: &Message, from: u64, known: &Known<'_>) -> Result<()> {
    let refuse = |what: &str| Err(Error::Refused(format!("frame: {what}")));
    let Some(kind) = MessageType::from_i32(message.msg_type) else {
        return refuse("unknown message type");
    };
    if message.from != from || message.to != known.raft_id {
        return refuse("the message names other members than its frame");
    }
    let numbers =
        [message.term, message.log_term, message.index, message.commit, message.commit_term, message.reject_hint];
    if numbers.iter().any(|&number| number > MAX_NUMBER) {
        return refuse("a number out of all bounds");
    }
    if message.term == 0 || message.term > known.term.saturating_add(MAX_TERM_JUMP) {
        return refuse("wild term");
    }
    if message.snapshot.is_some() || message.request_snapshot != 0 {
        return refuse("snapshots are not sent in frames");
    }
    if message.priority != 0 || message.deprecated_priority != 0 {
        return refuse("priorities are not used");
    }
    if message.context.len() > MAX_CONTEXT_BYTES {
        return refuse("context too long");
    }
    if !message.entries.is_empty() && kind != MessageType::MsgAppend {
        return refuse("entries in a message that has none");
    }
    match kind {
        MessageType::MsgAppend => check_append(message, known),
        MessageType::MsgAppendResponse => {
            // A leader of an older term is answered with index 0, to tell it of the newer one.
            if message.index > known.last && message.term == known.term {
                return refuse("acknowledges entries that do not exist");
            }
            if message.reject && (message.reject_hint == 0 || message.reject_hint > message.index) {
                return refuse("wild hint");
            }
            Ok(())
        }
        MessageType::MsgHeartbeat => {
            if message.commit > known.last {
                return refuse("commits entries that are not here");
            }
            Ok(())
        }
        MessageType::MsgHeartbeatResponse => Ok(()),
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
            if message.log_term > message.term || message.index < FOUNDING_INDEX {
                return refuse("wild candidate");
            }
            Ok(())
        }
        MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => Ok(()),
        MessageType::MsgTimeoutNow => {
            if from != known.leader_id || message.term != known.term {
                return refuse("only the leader hands over");
            }
            Ok(())
        }
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgSnapshot
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp => refuse("a message that members do not send each other"),
    }
}

fn check_append(message: &Message, known: &Known<'_>) -> Result<()> {
    let refuse = |what: &str| Err(Error::Refused(format!("frame: {what}")));
    // An index before the founding, or a term of 0, would match where nothing is.
    if message.index < FOUNDING_INDEX || message.log_term == 0 || message.log_term > message.term {
        return refuse("wild place to append");
    }
    let mut before = message.log_term;
    for (index, entry) in (message.index + 1..).zip(&message.entries) {
        if entry.index != index || entry.term < before || entry.term > message.term {
            return refuse("entries out of order");
        }
        before = entry.term;
        let normal = entry.entry_type == EntryType::EntryNormal as i32;
        if !normal && entry.entry_type != EntryType::EntryConfChangeV2 as i32 {
            return refuse("unknown kind of entry");
        }
        if entry.data.len() + entry.context.len() > MAX_ENTRY_BYTES + ENTRY_OVERHEAD_BYTES {
            return refuse("entry too large");
        }
        if index <= known.committed && (known.term_of)(index).is_some_and(|term| term != entry.term) {
            return refuse("contradicts what is committed");
        }
    }
    Ok(())
}
