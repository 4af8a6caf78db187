//! The form of an entry: one canonical JSON object (RFC 8785) that holds its author's signature, and
//! the leader's stamp before it. Who may say what is the table's business.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use libp2p::{
    PeerId,
    identity::{Keypair, PublicKey},
};
use serde::de::IgnoredAny;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::types::MAX_ENTRY_BYTES;
use crate::{Error, Result};

/// Length of a ULID, which mesh ids and entry ids are.
pub(super) const ULID_CHARS: usize = 26;
/// Length of an Ed25519 signature in base64.
const SIGNATURE_CHARS: usize = 88;
/// A type's name is short; it is a word out of a fixed vocabulary.
const MAX_KIND_CHARS: usize = 64;
/// The leader's stamp before an entry.
pub(super) const STAMP_BYTES: usize = 8;
/// Largest number in a body, either way of zero: 2^53.
const MAX_BODY_NUMBER: u64 = 1 << 53;
/// Identity multihash of a protobuf-encoded Ed25519 public key: the key itself follows.
const ED25519_PEER_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Types that the log writes itself; nobody may propose them.
pub(super) const FOUND: &str = "found";
pub(super) const LEADER: &str = "leader";
pub(super) const JOIN: &str = "join";
pub(super) const VOTER: &str = "voter";
pub(super) const REMOVAL: &str = "removal";
/// What a delivered entry is called that fails a check.
pub(super) const INVALID: &str = "invalid";

/// Whether entries of this type come from the log alone.
pub(super) fn is_reserved(kind: &str) -> bool {
    matches!(kind, FOUND | LEADER | JOIN | VOTER | REMOVAL | INVALID | "")
}

/// A new random, time-ordered id.
pub(super) fn ulid() -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let millis = wall_ms() & 0xFFFF_FFFF_FFFF;
    let random: u128 = rand::random::<u128>() >> 48;
    let value = (u128::from(millis) << 80) | random;
    (0..ULID_CHARS).rev().map(|place| char::from(ALPHABET[((value >> (5 * place)) & 31) as usize])).collect()
}

/// Whether `id` has the form of an id.
pub(super) fn is_ulid(id: &str) -> bool {
    id.len() == ULID_CHARS && id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
}

/// Milliseconds since the epoch on this agent's clock.
pub(super) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Sixteen bytes that stand for (author, id): a repeat of a proposal is known by them.
pub(super) type Key = [u8; 16];

pub(super) fn key_of(author: &str, id: &str) -> Key {
    let digest = Sha256::new().chain_update(author).chain_update([0]).chain_update(id).finalize();
    let mut key = Key::default();
    key.copy_from_slice(&digest[..16]);
    key
}

/// What an author says, before it is signed.
pub(super) struct Draft<'a> {
    pub mesh: &'a str,
    pub id: &'a str,
    pub kind: &'a str,
    pub seen: u64,
    /// JSON object in any form.
    pub body: &'a [u8],
}

/// Builds and signs an entry.
pub(super) fn make(keypair: &Keypair, author: &PeerId, draft: &Draft<'_>) -> Result<Bytes> {
    if !is_ulid(draft.id) {
        return Err(Error::Invalid("id: give 26 digits and capital letters (a ULID)".into()));
    }
    if !is_kind(draft.kind) {
        return Err(Error::Invalid("type: give a short lower-case word".into()));
    }
    if draft.body.len() > MAX_ENTRY_BYTES {
        return Err(too_large(draft.body.len()));
    }
    let body: Value =
        serde_json::from_slice(draft.body).map_err(|error| Error::Invalid(format!("body: not JSON: {error}")))?;
    if !body.is_object() {
        return Err(Error::Invalid("body: give a JSON object".into()));
    }
    check_numbers(&body)?;
    let body = serde_jcs::to_string(&body).map_err(|error| Error::Invalid(format!("body: {error}")))?;
    let Draft { mesh, id, kind, seen, .. } = draft;
    let head = format!(r#"{{"author":"{author}","body":{body},"id":"{id}","mesh":"{mesh}","seen":{seen},"#);
    let tail = format!(r#""type":"{kind}","v":1}}"#);
    let signature = keypair
        .sign(format!("{head}{tail}").as_bytes())
        .map_err(|error| Error::Internal(format!("cannot sign: {error}")))?;
    let signature = base64_encode(&signature);
    let entry = format!(r#"{head}"sig":"{signature}",{tail}"#);
    if entry.len() > MAX_ENTRY_BYTES {
        return Err(too_large(entry.len()));
    }
    Ok(Bytes::from(entry))
}

/// Refuses numbers that not every reader of JSON reads alike: RFC 8785 has doubles, which are exact up to 2^53 only.
fn check_numbers(body: &Value) -> Result<()> {
    match body {
        Value::Number(number) if !is_exact(number) => {
            Err(Error::Invalid(format!("body: the number {number} is beyond 2^53, where numbers are no longer exact")))
        }
        Value::Array(all) => all.iter().try_for_each(check_numbers),
        Value::Object(all) => all.values().try_for_each(check_numbers),
        _ => Ok(()),
    }
}

fn is_exact(number: &serde_json::Number) -> bool {
    match (number.as_i64(), number.as_f64()) {
        (Some(whole), _) => whole.unsigned_abs() <= MAX_BODY_NUMBER,
        (None, Some(number)) => number.abs() <= MAX_BODY_NUMBER as f64,
        (None, None) => false,
    }
}

fn too_large(size: usize) -> Error {
    Error::TooLarge(format!("an entry of {size} bytes; {MAX_ENTRY_BYTES} are allowed"))
}

fn is_kind(kind: &str) -> bool {
    !kind.is_empty() && kind.len() <= MAX_KIND_CHARS && kind.bytes().all(is_kind_byte)
}

fn is_kind_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
}

/// A parsed entry; borrows its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub author: &'a str,
    pub body: &'a str,
    pub id: &'a str,
    pub mesh: &'a str,
    pub seen: u64,
    pub kind: &'a str,
    /// The text before and after the signature, and the signature.
    head: &'a str,
    signature: &'a str,
    tail: &'a str,
}

/// Reads an entry. The canonical form has one order of keys, so that it is read from both ends and
/// the signed bytes are what stands there but for the signature.
pub(super) fn parse(bytes: &[u8]) -> Result<View<'_>> {
    let bad = |what: &str| Error::Invalid(format!("entry: {what}"));
    if bytes.len() > MAX_ENTRY_BYTES {
        return Err(too_large(bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| bad("not UTF-8"))?;
    let rest = text.strip_suffix(r#"","v":1}"#).ok_or_else(|| bad("not of version 1"))?;
    let (rest, kind) = split_back(rest, is_kind_byte);
    let rest = rest.strip_suffix(r#","type":""#).filter(|_| is_kind(kind));
    let rest = rest.and_then(|rest| rest.strip_suffix('"')).ok_or_else(|| bad("no type"))?;
    let tail = &text[rest.len() + 2..];
    let (rest, signature) = split_back(rest, |b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
    let head = rest
        .strip_suffix(r#""sig":""#)
        .filter(|_| signature.len() == SIGNATURE_CHARS)
        .ok_or_else(|| bad("no signature"))?;
    let rest = head.strip_suffix(',').ok_or_else(|| bad("no signature"))?;
    let (rest, seen) = split_back(rest, |b| b.is_ascii_digit());
    let rest = rest.strip_suffix(r#"","seen":"#).ok_or_else(|| bad("no seen"))?;
    let seen: u64 =
        seen.parse().ok().filter(|number: &u64| number.to_string() == seen).ok_or_else(|| bad("no seen"))?;
    let (rest, mesh) = split_back(rest, |b| b.is_ascii_alphanumeric());
    let rest = rest.strip_suffix(r#"","mesh":""#).filter(|_| is_ulid(mesh)).ok_or_else(|| bad("no mesh"))?;
    let (rest, id) = split_back(rest, |b| b.is_ascii_alphanumeric());
    let rest = rest.strip_suffix(r#","id":""#).filter(|_| is_ulid(id)).ok_or_else(|| bad("no id"))?;
    let rest = rest.strip_prefix(r#"{"author":""#).ok_or_else(|| bad("no author"))?;
    let (author, rest) = rest.split_once('"').ok_or_else(|| bad("no author"))?;
    let body = rest.strip_prefix(r#","body":"#).ok_or_else(|| bad("no body"))?;
    if !body.starts_with('{') || serde_json::from_str::<IgnoredAny>(body).is_err() {
        return Err(bad("the body is no JSON object"));
    }
    Ok(View { author, body, id, mesh, seen, kind, head, signature, tail })
}

fn split_back(text: &str, belongs: impl Fn(u8) -> bool) -> (&str, &str) {
    let length = text.bytes().rev().take_while(|&byte| belongs(byte)).count();
    text.split_at(text.len() - length)
}

impl View<'_> {
    /// Checks the signature against the key inside the author's peer id.
    pub(super) fn verify(&self) -> Result<PeerId> {
        let author: PeerId =
            self.author.parse().map_err(|_| Error::Invalid("entry: the author is no peer id".into()))?;
        let signature =
            base64_decode(self.signature).ok_or_else(|| Error::Invalid("entry: the signature is not base64".into()))?;
        let key = public_key(&author).ok_or_else(|| Error::Invalid("entry: the author is no Ed25519 peer".into()))?;
        let signed = [self.head, self.tail].concat();
        if key.verify(signed.as_bytes(), &signature) {
            Ok(author)
        } else {
            Err(Error::Tampered("entry: the signature does not fit".into()))
        }
    }

    /// Checks that the body stands in RFC 8785 form and holds exact numbers only; the leader takes no other.
    pub(super) fn check_body(&self) -> Result<()> {
        let body: Value =
            serde_json::from_str(self.body).map_err(|error| Error::Invalid(format!("body: not JSON: {error}")))?;
        check_numbers(&body)?;
        if serde_jcs::to_string(&body).is_ok_and(|canonical| canonical == self.body) {
            return Ok(());
        }
        Err(Error::Invalid("entry: not in RFC 8785 form".into()))
    }

    pub(super) fn key(&self) -> Key {
        key_of(self.author, self.id)
    }

    pub(super) fn body_json(&self) -> Value {
        serde_json::from_str(self.body).unwrap_or(Value::Null)
    }
}

/// The Ed25519 key that a peer id holds.
fn public_key(peer: &PeerId) -> Option<PublicKey> {
    let bytes = peer.to_bytes();
    let key = bytes.strip_prefix(&ED25519_PEER_PREFIX)?;
    libp2p::identity::ed25519::PublicKey::try_from_bytes(key).ok().map(PublicKey::from)
}

/// Puts the leader's stamp before an entry.
pub(super) fn stamped(stamp: u64, entry: &[u8]) -> Vec<u8> {
    let mut data = BytesMut::with_capacity(STAMP_BYTES + entry.len());
    data.put_u64(stamp);
    data.put_slice(entry);
    data.into()
}

/// Splits what [`stamped`] made.
pub(super) fn unstamp(data: &[u8]) -> Option<(u64, &[u8])> {
    let (stamp, entry) = data.split_first_chunk::<STAMP_BYTES>()?;
    Some((u64::from_be_bytes(*stamp), entry))
}

fn base64_encode(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn base64_decode(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}
