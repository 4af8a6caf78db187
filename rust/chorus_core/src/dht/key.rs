//! Keys of DHT records: `/chorus/<kind>/<name>`, a closed set of kinds with a rule each.

use std::{fmt, str::FromStr};

use libp2p::PeerId;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// What a record is, and with it who may write it and how long it stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A piece of a larger value; immutable.
    Block,
    /// A decision record; immutable, permanent.
    Decision,
    /// Content at a UCXL address (CHORUS's addresses for what agents know); immutable, permanent.
    Content,
    /// What an agent says of itself; one writer, the higher version replaces, kept 48 h.
    Agent,
}

impl Kind {
    /// The kind's name in keys.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Decision => "decision",
            Self::Content => "content",
            Self::Agent => "agent",
        }
    }

    /// Whether the name is the SHA-256 of the plain value, so that the value can never change.
    #[must_use]
    pub fn immutable(self) -> bool {
        !matches!(self, Self::Agent)
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "block" => Ok(Self::Block),
            "decision" => Ok(Self::Decision),
            "content" => Ok(Self::Content),
            "agent" => Ok(Self::Agent),
            _ => Err(Error::Invalid(format!(
                "unknown DHT kind `{}`: block, decision, content or agent",
                text.escape_debug()
            ))),
        }
    }
}

/// A record's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordKey {
    /// What it is.
    pub kind: Kind,
    /// SHA-256 in lower-case hex, or a peer id.
    pub name: String,
}

impl RecordKey {
    /// A key whose name fits its kind.
    pub fn new(kind: &str, name: &str) -> Result<Self> {
        let kind: Kind = kind.parse()?;
        let fits = if kind.immutable() {
            name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        } else {
            name.len() <= 128 && name.parse::<PeerId>().is_ok_and(|peer| peer.to_string() == name)
        };
        if !fits {
            let wanted = if kind.immutable() { "64 lower-case hex digits (SHA-256)" } else { "a peer id" };
            return Err(Error::Invalid(format!("a name under /chorus/{} is {wanted}", kind.as_str())));
        }
        Ok(Self { kind, name: name.into() })
    }

    /// Reads a key's bytes as they travel.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let foreign = || Error::Invalid("a DHT key has the form /chorus/<kind>/<name>".into());
        let text = std::str::from_utf8(bytes).map_err(|_| foreign())?;
        let (kind, name) = text.strip_prefix("/chorus/").and_then(|rest| rest.split_once('/')).ok_or_else(foreign)?;
        Self::new(kind, name)
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/chorus/{}/{}", self.kind.as_str(), self.name)
    }
}

/// SHA-256 in lower-case hex, as names are written.
#[must_use]
pub fn content_hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_must_fit_their_kind() {
        let hash = content_hash(b"x");
        assert_eq!(
            RecordKey::parse(format!("/chorus/decision/{hash}").as_bytes()).unwrap().to_string(),
            format!("/chorus/decision/{hash}")
        );
        let peer = PeerId::random().to_string();
        assert!(RecordKey::new("agent", &peer).is_ok());
        for (kind, name) in
            [("decision", "abc"), ("agent", hash.as_str()), ("other", hash.as_str()), ("content", &hash.to_uppercase())]
        {
            assert!(RecordKey::new(kind, name).is_err(), "{kind}/{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = RecordKey::parse(&bytes);
        }
    }
}
