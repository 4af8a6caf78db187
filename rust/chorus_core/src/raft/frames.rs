//! Frames between members, and what a message must look like before the machine sees it: raft-rs
//! believes what it is given, and panics at some of it.
//!
//! `version:u8 | mesh:26 | from:u64be | to:u64be | introductions:u16be (len:u32be | entry)* |
//! messages:u16be (len:u32be | protobuf)*`. Introductions are signed `join` entries that list the
//! sender for a receiver whose log does not reach that far yet.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, decode_key, decode_varint},
};
use raft::eraftpb::{EntryType, Message, MessageType};

use super::{entry::ULID_CHARS, storage::FOUNDING_INDEX, types::MAX_ENTRY_BYTES};
use crate::{Error, Result};

const VERSION: u8 = 1;
/// A frame is split above this; the network's own limit is far higher.
pub(super) const FRAME_TARGET_BYTES: usize = 1024 * 1024;
/// No frame is larger: one message of the largest size, its entries and introductions.
const MAX_FRAME_BYTES: usize = 8 * 1024 * 1024;
const MAX_MESSAGES: usize = 4096;
/// Entries of all messages of a frame. An entry takes far more memory than an empty one takes bytes on the wire. Members
/// fill a message up to a size that thousands of the shortest signed entries reach.
const MAX_ENTRIES: usize = 16 * 1024;
/// Places of fields in raft-rs's protobuf message.
const ENTRIES_FIELD: u32 = 7;
const SNAPSHOT_FIELD: u32 = 9;
const CONTEXT_FIELD: u32 = 12;
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
    let parts = get_parts(&mut frame, MAX_MESSAGES)?;
    let mut entries = 0;
    for part in &parts {
        entries += count_entries(part)?;
        if entries > MAX_ENTRIES {
            return Err(Error::TooLarge(format!("frame: more than {MAX_ENTRIES} entries")));
        }
    }
    let messages = parts
        .into_iter()
        .map(|part| Message::decode(part).map_err(|_| bad("a message is no protobuf")))
        .collect::<Result<Vec<_>>>()?;
    if frame.has_remaining() {
        return Err(bad("bytes after the last message"));
    }
    Ok(Frame { mesh, from, to, introductions, messages })
}

/// Counts the entries of an encoded message without decoding it, and refuses what would take more memory than bytes: this
/// comes before anything is allocated for what a peer says.
fn count_entries(mut message: &[u8]) -> Result<usize> {
    let bad = |what: &str| Error::Invalid(format!("frame: {what}"));
    let mut entries = 0;
    while message.has_remaining() {
        let (field, wire) = decode_key(&mut message).map_err(|_| bad("a message is no protobuf"))?;
        let length = match wire {
            WireType::Varint => decode_varint(&mut message).map(|_| 0),
            WireType::SixtyFourBit => Ok(8),
            WireType::ThirtyTwoBit => Ok(4),
            WireType::LengthDelimited => decode_varint(&mut message),
            WireType::StartGroup | WireType::EndGroup => return Err(bad("a message with groups")),
        };
        let length = length.map_err(|_| bad("a message is no protobuf"))?;
        let length = usize::try_from(length).ok().filter(|length| *length <= message.remaining());
        let length = length.ok_or_else(|| bad("a message is cut short"))?;
        match field {
            ENTRIES_FIELD => entries += 1,
            SNAPSHOT_FIELD => return Err(bad("snapshots are not sent in frames")),
            CONTEXT_FIELD if length > MAX_CONTEXT_BYTES => return Err(bad("context too long")),
            _ => {}
        }
        message.advance(length);
    }
    Ok(entries)
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

/// Why this member's log is shorter than it was, if a leader's heartbeat shows it: a heartbeat commits no more than what
/// this member has acknowledged, and it acknowledges only what is on its disk.
pub(super) fn proof_of_loss(message: &Message, from: u64, known: &Known<'_>) -> Option<String> {
    let may_lead = message.term > known.term || (message.term == known.term && [0, from].contains(&known.leader_id));
    let heartbeat = message.msg_type == MessageType::MsgHeartbeat as i32;
    let own = message.from == from && message.to == known.raft_id;
    let sane = message.commit <= MAX_NUMBER && message.term <= known.term.saturating_add(MAX_TERM_JUMP);
    (heartbeat && own && sane && may_lead && message.commit > known.last).then(|| {
        format!(
            "the vote file was replaced by an older copy: its log ends at entry {}, and the leader has an acknowledgement of entry {}",
            known.last, message.commit
        )
    })
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use proptest::prelude::*;
    use raft::eraftpb::{Entry, Snapshot};

    use super::*;

    const MESH: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

    fn frame_of(messages: &[Message]) -> Bytes {
        encode(MESH, 1, 2, &[], messages)
    }

    fn with_entries(count: usize) -> Message {
        Message { entries: vec![Entry::default(); count], ..Message::default() }
    }

    #[test]
    fn entries_are_counted_before_they_are_decoded() {
        assert_eq!(decode(frame_of(&[with_entries(MAX_ENTRIES)])).unwrap().messages[0].entries.len(), MAX_ENTRIES);
        let half = with_entries(MAX_ENTRIES / 2 + 1);
        for refused in [frame_of(&[with_entries(MAX_ENTRIES + 1)]), frame_of(&[half.clone(), half])] {
            assert!(matches!(decode(refused), Err(Error::TooLarge(_))));
        }
        // Eight megabytes of empty entries decoded to three hundred.
        let flood = frame_of(&[with_entries(MAX_FRAME_BYTES / 2 - 100)]);
        assert!(flood.len() <= MAX_FRAME_BYTES);
        assert!(matches!(decode(flood), Err(Error::TooLarge(_))));
    }

    #[test]
    fn snapshots_long_contexts_and_groups_are_refused_before_decoding() {
        let snapshot = Message { snapshot: Some(Snapshot::default()), ..Message::default() };
        let context = Message { context: vec![0; MAX_CONTEXT_BYTES + 1], ..Message::default() };
        for message in [snapshot, context] {
            assert!(matches!(decode(frame_of(&[message])), Err(Error::Invalid(_))));
        }
        for bytes in [&[0x0b, 0x0c][..], &[0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f], &[0x3a], &[0x08]] {
            assert!(count_entries(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = count_entries(&bytes);
            let mut frame = frame_of(&[]).to_vec();
            frame.truncate(frame.len() - 2);
            frame.extend_from_slice(&1u16.to_be_bytes());
            frame.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            frame.extend_from_slice(&bytes);
            let _ = decode(frame.into());
            let _ = decode(bytes.into());
        }

        #[test]
        fn the_count_is_that_of_the_decoder(
            entries in 0usize..50, term in any::<u64>(), commit in any::<u64>(), data in proptest::collection::vec(any::<u8>(), 0..300),
            reject in any::<bool>(), priority in any::<i64>(),
        ) {
            let entry = Entry { term, data, ..Entry::default() };
            let message = Message { entries: vec![entry; entries], term, commit, reject, priority, ..Message::default() };
            prop_assert_eq!(count_entries(&message.encode_to_vec()).unwrap(), entries);
        }
    }
}
