//! What agents say to each other about records: requests to the service `_dht` of another agent's core.
//!
//! | method | head | payload | answer |
//! |---|---|---|---|
//! | `get` | `{"key"}` | | head `{"records": [bytes of each]}`, payload: the records of that key, by author and role |
//! | `put` | `{"key"}` | a record | empty, once it is on disk |
//! | `lacks` | `{"records": [{"key", "author", "role"?, "version"}]}` | | head `{"lacks": [places in the list]}` |

use std::time::Duration;

use bytes::Bytes;
use libp2p::PeerId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::store::COPIES_PER_NAME;
use crate::{
    Error, Result,
    net::{NetHandle, Offence},
};

/// The core's service for records.
pub const SERVICE: &str = "_dht";
pub(super) const GET: &str = "get";
pub(super) const PUT: &str = "put";
pub(super) const LACKS: &str = "lacks";

/// How long one replica has to answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a search from peer to peer may take.
pub(super) const SEARCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Records asked about with one `lacks`: their names fit a head of 64 KiB.
pub(super) const LACKS_MAX: usize = 128;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeyHead {
    pub key: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FoundHead {
    pub records: Vec<usize>,
}

/// A record that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    pub key: String,
    pub author: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    pub version: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HeldHead {
    pub records: Vec<Held>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LacksHead {
    pub lacks: Vec<usize>,
}

/// A head as it travels.
pub(super) fn encode(head: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(head).map(Bytes::from).map_err(|error| Error::Internal(error.to_string()))
}

/// Reads a head that a peer sent.
pub(super) fn decode<T: DeserializeOwned>(head: &[u8]) -> Result<T> {
    serde_json::from_slice(head).map_err(|error| Error::Invalid(format!("a head of {SERVICE}: {error}")))
}

/// Takes the records of an answer apart; at most as many as a holder may have of one name.
pub(super) fn split(sizes: &[usize], mut payload: Bytes) -> Result<Vec<Bytes>> {
    let wrong = || Error::Tampered("a peer's answer does not have the records that it says".into());
    if sizes.len() > COPIES_PER_NAME {
        return Err(wrong());
    }
    let mut records = Vec::with_capacity(sizes.len());
    for size in sizes {
        if *size > payload.len() {
            return Err(wrong());
        }
        records.push(payload.split_to(*size));
    }
    if payload.is_empty() { Ok(records) } else { Err(wrong()) }
}

/// The other agents' stores.
#[derive(Clone)]
pub(super) struct Replicas {
    net: NetHandle,
}

impl Replicas {
    pub fn new(net: NetHandle) -> Self {
        Self { net }
    }

    /// Holds against a peer that it sent what nobody may believe.
    pub fn blame(&self, peer: PeerId) {
        self.net.blame(peer, Offence::Refused);
    }

    /// The records that a peer has of a key.
    pub async fn get(&self, peer: PeerId, key: &str) -> Result<Vec<Bytes>> {
        let reply = self.ask(peer, GET, &KeyHead { key: key.into() }, Bytes::new()).await?;
        split(&decode::<FoundHead>(&reply.head)?.records, reply.payload)
    }

    /// Has a peer keep a record; answers when it is on that peer's disk.
    pub async fn put(&self, peer: PeerId, key: &str, record: Bytes) -> Result<()> {
        self.ask(peer, PUT, &KeyHead { key: key.into() }, record).await.map(|_| ())
    }

    /// Which of some records a peer lacks.
    pub async fn lacks(&self, peer: PeerId, records: Vec<Held>) -> Result<Vec<usize>> {
        let reply = self.ask(peer, LACKS, &HeldHead { records }, Bytes::new()).await?;
        Ok(decode::<LacksHead>(&reply.head)?.lacks)
    }

    async fn ask(
        &self,
        peer: PeerId,
        method: &str,
        head: &impl Serialize,
        payload: Bytes,
    ) -> Result<crate::net::Reply> {
        self.net.request(peer, SERVICE, method, encode(head)?, payload, ANSWER_TIMEOUT).await
    }
}

/// How many of `others` must take part, so that with this agent they are more than half of all who hold a record. A write
/// and a later read then meet in at least one holder.
pub(super) fn needed(others: usize) -> usize {
    others.div_ceil(2)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_write_and_a_read_meet() {
        assert_eq!([0, 1, 2, 3, 4, 19, 20].map(needed), [0, 1, 1, 2, 2, 10, 10]);
        for others in 1..=20 {
            let side = 1 + needed(others);
            assert!(2 * side > others + 1, "{others}");
        }
    }

    #[test]
    fn records_are_taken_apart_as_they_were_put_together() {
        let payload = Bytes::from_static(b"abcde");
        assert_eq!(split(&[2, 0, 3], payload.clone()).unwrap(), ["ab", "", "cde"]);
        for wrong in [&[2, 2][..], &[6], &[usize::MAX, 1], &[0; 9], &[]] {
            assert!(matches!(split(wrong, payload.clone()), Err(Error::Tampered(_))), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_head_is_safe(head in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<KeyHead>(&head);
            let _ = decode::<FoundHead>(&head);
            let _ = decode::<HeldHead>(&head);
            let _ = decode::<LacksHead>(&head);
        }

        #[test]
        fn any_sizes_are_safe(sizes in proptest::collection::vec(any::<usize>(), 0..6), payload in proptest::collection::vec(any::<u8>(), 0..50)) {
            if let Ok(records) = split(&sizes, payload.clone().into()) {
                prop_assert_eq!(records.concat(), payload);
            }
        }
    }
}
