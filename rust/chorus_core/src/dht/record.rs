//! A record as it is stored and travels: header, signature, sealed value.
//!
//! ```text
//! record = hlen:u32be | header | signature:64 bytes | sealed value
//! header = canonical JSON (RFC 8785) of {"author","blocks"?,"created_at","hash","kind","name","of"?,"role"?,"v":1,"version"}
//! ```
//!
//! With `blocks` the sealed value is the manifest of that many blocks ([`super::manifest`]) and `hash` is that of the whole
//! value. A block says with `of` which kind of value it belongs to when that kind is not kept for good.
//!
//! `author` is the peer id whose Ed25519 key made the signature, over `chorus/v1/record\n` | header | sealed value.
//! `hash` is the SHA-256 of the plain value, `created_at` and `version` are milliseconds (a later version replaces an
//! earlier one of the same author where the kind allows it). A holder checks everything but the hash of the plain value,
//! which only readers can; they do.

use libp2p::{
    PeerId,
    identity::{Keypair, PublicKey},
};
use serde::{Deserialize, Serialize};

use super::{
    key::{Kind, RecordKey},
    manifest::BLOCKS_MAX,
};
use crate::{Error, Result};

/// Largest record: with its key it still fits a Kademlia packet of 128 KiB.
pub const RECORD_MAX_BYTES: usize = 127 * 1024;
/// Largest header.
const HEADER_MAX_BYTES: usize = 4096;
/// Format of records.
const FORMAT: u8 = 1;
/// What a signature is for, so that it fits nothing else that this key signs.
const SIGNED_AS: &[u8] = b"chorus/v1/record\n";
/// Length of an Ed25519 signature.
const SIGNATURE_BYTES: usize = 64;
/// How long what an agent says of itself is kept, blocks of it included.
pub const AGENT_KEPT_MS: u64 = 48 * 60 * 60 * 1000;
/// When the time of what is kept for good is over.
pub const NEVER: u64 = u64::MAX;
/// Largest whole number that every reader of JSON reads alike: 2^53.
const EXACT_MAX: u64 = 1 << 53;
/// How far in the future a record's version may lie; beyond it, an author could lock itself out.
const FUTURE_MAX_MS: u64 = 24 * 60 * 60 * 1000;

/// What a record says of its value, in the order of its canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Peer id of the author.
    pub author: String,
    /// Blocks that hold the value; the record itself then holds their manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<u32>,
    /// Milliseconds since the epoch.
    pub created_at: u64,
    /// SHA-256 of the plain value, hex.
    pub hash: String,
    /// Kind, as in the key.
    pub kind: String,
    /// Name, as in the key.
    pub name: String,
    /// On a block: the kind of the value it is a piece of; none means one that is kept for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// Role that it is sealed for; none means every member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Format.
    pub v: u8,
    /// Milliseconds since the epoch; the higher one replaces.
    pub version: u64,
}

/// A record whose signature, key and form were checked.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Its header.
    pub header: Header,
    /// Its key.
    pub key: RecordKey,
    /// Where the sealed value begins.
    sealed_at: usize,
}

impl Checked {
    /// When its time is over, for one that is stored at `now_ms`; [`NEVER`] for what is kept for good.
    #[must_use]
    pub fn until(&self, now_ms: u64) -> u64 {
        let passing = self.key.kind == Kind::Agent || self.header.of.as_deref() == Some(Kind::Agent.as_str());
        // A version in the future must not make it live longer.
        if passing { self.header.version.min(now_ms).saturating_add(AGENT_KEPT_MS) } else { NEVER }
    }

    /// The sealed value within the record that was checked.
    #[must_use]
    pub fn sealed<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        record.get(self.sealed_at..).unwrap_or_default()
    }
}

/// Signs a sealed value into a record.
pub fn write(keypair: &Keypair, header: &Header, sealed: &[u8]) -> Result<Vec<u8>> {
    let head = serde_jcs::to_vec(header).map_err(|e| Error::Internal(e.to_string()))?;
    let signature = keypair.sign(&message(&head, sealed)).map_err(|e| Error::Internal(e.to_string()))?;
    let length = u32::try_from(head.len()).map_err(|e| Error::TooLarge(e.to_string()))?;
    let mut record = Vec::with_capacity(4 + head.len() + signature.len() + sealed.len());
    record.extend_from_slice(&length.to_be_bytes());
    record.extend_from_slice(&head);
    record.extend_from_slice(&signature);
    record.extend_from_slice(sealed);
    if record.len() > RECORD_MAX_BYTES {
        return Err(Error::TooLarge(format!("a record of {} bytes; the limit is {RECORD_MAX_BYTES}", record.len())));
    }
    Ok(record)
}

/// Checks a record found under `key`: size, form, author's right to that name, signature, time.
pub fn check(key: &[u8], record: &[u8], now_ms: u64) -> Result<Checked> {
    if record.len() > RECORD_MAX_BYTES {
        return Err(Error::TooLarge(format!("a record of {} bytes; the limit is {RECORD_MAX_BYTES}", record.len())));
    }
    let key = RecordKey::parse(key)?;
    let malformed = || Error::Tampered("a record is malformed".into());
    let (length, rest) = record.split_first_chunk::<4>().ok_or_else(malformed)?;
    let length = u32::from_be_bytes(*length) as usize;
    if length > HEADER_MAX_BYTES || rest.len() < length + SIGNATURE_BYTES {
        return Err(malformed());
    }
    let (head, rest) = rest.split_at(length);
    let (signature, sealed) = rest.split_at(SIGNATURE_BYTES);
    let header: Header = serde_json::from_slice(head).map_err(|_| malformed())?;
    if header.created_at > EXACT_MAX || header.version > EXACT_MAX {
        return Err(malformed());
    }
    if header.v != FORMAT {
        return Err(Error::Tampered(format!("a record of format {}; this agent reads {FORMAT}", header.v)));
    }
    if header.kind != key.kind.as_str() || header.name != key.name {
        return Err(Error::Tampered("a record lies under a key that is not its own".into()));
    }
    let author: PeerId = header.author.parse().map_err(|_| malformed())?;
    match key.kind {
        Kind::Agent if header.author != key.name => {
            return Err(Error::NotPermitted("only an agent itself writes its record".into()));
        }
        Kind::Agent if header.version > now_ms.saturating_add(FUTURE_MAX_MS) => {
            return Err(Error::Tampered("a record's version lies in the future".into()));
        }
        Kind::Block | Kind::Decision | Kind::Content if header.hash != key.name => {
            return Err(Error::Tampered("a record's name is not the hash of its content".into()));
        }
        _ => {}
    }
    let fits = match key.kind {
        Kind::Block => header.blocks.is_none() && header.of.as_deref().is_none_or(|of| of == Kind::Agent.as_str()),
        _ => header.of.is_none() && header.blocks.is_none_or(|blocks| (1..=BLOCKS_MAX).contains(&blocks)),
    };
    if !fits {
        return Err(Error::Tampered("a record says of blocks what cannot be".into()));
    }
    if !public_key(&author).is_some_and(|key| key.verify(&message(head, sealed), signature)) {
        return Err(Error::Tampered("a record's signature does not fit".into()));
    }
    let checked = Checked { header, key, sealed_at: 4 + length + SIGNATURE_BYTES };
    if checked.until(now_ms) <= now_ms {
        return Err(Error::Refused("the record's time is over".into()));
    }
    Ok(checked)
}

fn message(head: &[u8], sealed: &[u8]) -> Vec<u8> {
    [SIGNED_AS, head, sealed].concat()
}

/// The key that an Ed25519 peer id carries in itself.
fn public_key(peer: &PeerId) -> Option<PublicKey> {
    let hash = peer.as_ref();
    // Multihash code 0 is "identity": the digest is the key.
    (hash.code() == 0).then(|| PublicKey::try_decode_protobuf(hash.digest()).ok()).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dht::key::content_hash;

    const NOW: u64 = 1_795_436_546_001;

    fn header(author: &Keypair, kind: &str, name: &str, hash: &str) -> Header {
        Header {
            author: author.public().to_peer_id().to_string(),
            blocks: None,
            created_at: NOW,
            hash: hash.into(),
            kind: kind.into(),
            name: name.into(),
            of: None,
            role: None,
            v: FORMAT,
            version: NOW,
        }
    }

    fn decision(author: &Keypair) -> (Vec<u8>, Vec<u8>) {
        let hash = content_hash(b"plain");
        let record = write(author, &header(author, "decision", &hash, &hash), b"sealed").unwrap();
        (format!("/chorus/decision/{hash}").into_bytes(), record)
    }

    #[test]
    fn written_is_checked_and_every_changed_byte_is_seen() {
        let author = Keypair::generate_ed25519();
        let (key, record) = decision(&author);
        assert_eq!(check(&key, &record, NOW).unwrap().sealed(&record), b"sealed");
        for at in 0..record.len() {
            let mut changed = record.clone();
            changed[at] ^= 1;
            assert!(check(&key, &changed, NOW).is_err(), "byte {at}");
        }
    }

    #[test]
    fn names_are_bound_to_hash_and_author() {
        let (author, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (_, record) = decision(&author);
        let elsewhere = format!("/chorus/decision/{}", content_hash(b"other"));
        assert!(matches!(check(elsewhere.as_bytes(), &record, NOW), Err(Error::Tampered(_))));
        let name = other.public().to_peer_id().to_string();
        let forged = write(&author, &header(&author, "agent", &name, &content_hash(b"p")), b"s").unwrap();
        assert!(matches!(check(format!("/chorus/agent/{name}").as_bytes(), &forged, NOW), Err(Error::NotPermitted(_))));
    }

    #[test]
    fn what_an_agent_says_of_itself_has_its_time() {
        let author = Keypair::generate_ed25519();
        let name = author.public().to_peer_id().to_string();
        let key = format!("/chorus/agent/{name}").into_bytes();
        let record = write(&author, &header(&author, "agent", &name, &content_hash(b"p")), b"s").unwrap();
        assert_eq!(check(&key, &record, NOW + 1).unwrap().until(NOW + 1), NOW + AGENT_KEPT_MS);
        assert!(check(&key, &record, NOW + AGENT_KEPT_MS - 1).is_ok());
        assert!(matches!(check(&key, &record, NOW + AGENT_KEPT_MS), Err(Error::Refused(_))));
        let (key, record) = decision(&author);
        assert_eq!(check(&key, &record, NOW + 10 * AGENT_KEPT_MS).unwrap().until(NOW), NEVER);
        // A block goes with what it is a piece of.
        let hash = content_hash(b"piece");
        let key = format!("/chorus/block/{hash}").into_bytes();
        for (of, until) in [(None, NEVER), (Some("agent".to_owned()), NOW + AGENT_KEPT_MS)] {
            let block = Header { of, ..header(&author, "block", &hash, &hash) };
            assert_eq!(check(&key, &write(&author, &block, b"s").unwrap(), NOW).unwrap().until(NOW), until);
        }
    }

    #[test]
    fn only_what_can_be_is_said_of_blocks() {
        let author = Keypair::generate_ed25519();
        let hash = content_hash(b"plain");
        for (kind, blocks, of) in [
            ("content", Some(0), None),
            ("content", Some(BLOCKS_MAX + 1), None),
            ("content", None, Some("agent")),
            ("block", Some(2), None),
            ("block", None, Some("content")),
        ] {
            let odd = Header { blocks, of: of.map(str::to_owned), ..header(&author, kind, &hash, &hash) };
            let record = write(&author, &odd, b"s").unwrap();
            let key = format!("/chorus/{kind}/{hash}");
            assert!(matches!(check(key.as_bytes(), &record, NOW), Err(Error::Tampered(_))), "{kind} {blocks:?} {of:?}");
        }
    }

    proptest! {
        /// A real record with some bytes changed, cut off or added is refused and never panics.
        #[test]
        fn altered_records_are_refused(at in 0usize..400, with in proptest::collection::vec(any::<u8>(), 0..8), cut in any::<bool>()) {
            let author = Keypair::ed25519_from_bytes([7; 32]).unwrap();
            let (key, whole) = decision(&author);
            let mut record = whole.clone();
            let at = at.min(record.len());
            let end = if cut { record.len() } else { (at + with.len()).min(record.len()) };
            record.splice(at..end, with);
            prop_assert!(record == whole || check(&key, &record, NOW).is_err());
        }

        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let key = format!("/chorus/decision/{}", content_hash(b"plain"));
            prop_assert!(check(key.as_bytes(), &bytes, NOW).is_err());
        }
    }
}
